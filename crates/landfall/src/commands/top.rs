//! `landfall top`: how much the pods of a platform that is up use.

use std::io::Write as _;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::up::{Found, table};
use crate::Outcome;
use crate::cli::{AskArguments, Output};
use crate::output::VERSION;
use crate::terminal::Terminal;

/// As `metrics.k8s.io` has it.
#[derive(Debug, Deserialize)]
struct Measured {
    items: Vec<Pod>,
}

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Metadata,
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Container {
    usage: Usage,
}

#[derive(Debug, Deserialize)]
struct Usage {
    cpu: String,
    memory: String,
}

/// What a pod uses.
#[derive(Debug, Serialize)]
struct Used {
    namespace: String,
    pod: String,
    cpu_millicores: u64,
    memory_bytes: u64,
}

/// Prints the pods, those that use most memory first, and their sum.
pub(crate) fn run(arguments: &AskArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    super::up::block_on(async {
        let found = match Found::find(&arguments.input, terminal).await? {
            Ok(found) => found,
            Err(outcome) => return Ok(outcome),
        };
        let mut all = Vec::new();
        for namespace in found.namespaces() {
            let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
            let request = http::Request::get(path).body(Vec::new())?;
            let measured = found.client().request::<Measured>(request).await;
            let measured = measured.with_context(|| format!("failed to read what the pods in {namespace} use"))?;
            for pod in measured.items {
                all.push(used(&namespace, pod)?);
            }
        }
        if all.is_empty() {
            terminal.say("nothing is measured yet: that takes a while after the start; try again")?;
        }
        all.sort_by_key(|used| (std::cmp::Reverse(used.memory_bytes), used.pod.clone()));
        let total = |of: fn(&Used) -> u64| all.iter().map(of).sum::<u64>();
        let (cpu, memory) = (total(|used| used.cpu_millicores), total(|used| used.memory_bytes));
        match arguments.output {
            Output::Json => {
                let text = serde_json::to_string_pretty(&json!({
                    "version": VERSION, "pods": all, "cpu_millicores": cpu, "memory_bytes": memory,
                }))?;
                writeln!(terminal.data(), "{text}")?;
            }
            Output::Text => {
                let mut lines = table(&["NAMESPACE", "POD", "CPU", "MEMORY"]);
                let row = |namespace: &str, pod: &str, cpu: u64, memory: u64| {
                    [namespace.to_owned(), pod.to_owned(), format!("{cpu}m"), format!("{}Mi", memory >> 20)]
                };
                for used in &all {
                    lines.add_row(row(&used.namespace, &used.pod, used.cpu_millicores, used.memory_bytes));
                }
                lines.add_row(row("", "together", cpu, memory));
                writeln!(terminal.data(), "{lines}")?;
            }
        }
        Ok(Outcome::Done)
    })
}

fn used(namespace: &str, pod: Pod) -> anyhow::Result<Used> {
    let mut used = Used { namespace: namespace.to_owned(), pod: pod.metadata.name, cpu_millicores: 0, memory_bytes: 0 };
    for container in pod.containers {
        let number = |text: &str, unit: &str| text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
        let cpu = number(&container.usage.cpu, "n").context("`cpu` is in nanocores")?;
        let memory = number(&container.usage.memory, "Ki").context("`memory` is in kibibytes")?;
        used.cpu_millicores += cpu / 1_000_000;
        used.memory_bytes += memory * 1024;
    }
    Ok(used)
}
