//! `landfall logs`: what the pods of a platform that is up have written.

use std::io::Write as _;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::json;

use super::up::{Found, is_of};
use crate::Outcome;
use crate::cli::{Input, LogsArguments, Output};
use crate::output::VERSION;
use crate::terminal::Terminal;

/// A line of a log.
#[derive(Debug, Serialize)]
struct Line {
    namespace: String,
    pod: String,
    container: String,
    text: String,
}

/// Prints the logs pod by pod. The answer is no when no pod is called so.
pub(crate) fn run(arguments: &LogsArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let input = Input { file: arguments.file.clone(), environment: arguments.environment.clone() };
    super::up::block_on(async {
        let found = match Found::find(&input, terminal).await? {
            Ok(found) => found,
            Err(outcome) => return Ok(outcome),
        };
        let (mut lines, mut pods) = (Vec::new(), 0);
        for namespace in found.namespaces() {
            let api = Api::<Pod>::namespaced(found.client().clone(), &namespace);
            let all = api.list(&ListParams::default()).await;
            for pod in all.with_context(|| format!("failed to list the pods in {namespace}"))? {
                if arguments.name.as_ref().is_none_or(|name| is_of(&pod, name)) {
                    pods += 1;
                    lines.extend(read(&api, &namespace, &pod, arguments.tail).await?);
                }
            }
        }
        if pods == 0 {
            let name = arguments.name.as_deref().unwrap_or("it");
            terminal.say(&format!("no pod of `{name}` is there\nhint: `landfall status` lists the pods"))?;
            return Ok(Outcome::No);
        }
        match arguments.output {
            Output::Json => {
                let text = serde_json::to_string_pretty(&json!({ "version": VERSION, "lines": lines }))?;
                writeln!(terminal.data(), "{text}")?;
            }
            Output::Text => {
                for line in lines {
                    // Of one pod, a log is what it wrote and nothing else.
                    match pods {
                        1 => writeln!(terminal.data(), "{}", line.text)?,
                        _ => writeln!(terminal.data(), "{}: {}", line.pod, line.text)?,
                    }
                }
            }
        }
        Ok(Outcome::Done)
    })
}

async fn read(api: &Api<Pod>, namespace: &str, pod: &Pod, tail: u32) -> anyhow::Result<Vec<Line>> {
    let name = pod.name_any();
    let mut lines = Vec::new();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    for container in containers {
        let parameters = LogParams {
            container: Some(container.name.clone()),
            tail_lines: Some(tail.into()),
            ..LogParams::default()
        };
        let log = match api.logs(&name, &parameters).await {
            // It has not started yet.
            Err(kube::Error::Api(status)) if status.code == 400 => continue,
            log => log.with_context(|| format!("failed to read the log of pod `{name}`"))?,
        };
        lines.extend(log.lines().map(|text| Line {
            namespace: namespace.to_owned(),
            pod: name.clone(),
            container: container.name.clone(),
            text: text.to_owned(),
        }));
    }
    Ok(lines)
}
