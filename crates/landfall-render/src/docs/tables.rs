//! Tables: services, stores, systems of others, edges, environments, objectives, alerts, claims.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use landfall_model::{Architecture, Service, Store};

use super::{ClaimRow, cell, word};
use crate::kubernetes::monitoring::routes;

/// A table of Markdown; a sentence when it would be empty.
fn table(head: &[&str], rows: Vec<Vec<String>>, nothing: &str) -> String {
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    let _ = writeln!(text, "|{}", "---|".repeat(head.len()));
    for row in rows {
        text += &line(&row.iter().map(|text| cell(text)).collect::<Vec<_>>());
    }
    text
}

fn mark(assumed: bool) -> &'static str {
    if assumed { "assumed" } else { "" }
}

fn copies(service: &Service) -> String {
    let (floor, ceiling) = (service.replicas.floor(), service.replicas.ceiling());
    if floor == ceiling { floor.to_string() } else { format!("{floor} to {ceiling}") }
}

fn resources(resources: &landfall_model::Resources) -> String {
    let cpu = resources.cpu.as_ref().map(|cpu| format!("CPU {}", cpu.value));
    let memory = resources.memory.as_ref().map(|memory| format!("memory {}", memory.value));
    cpu.into_iter().chain(memory).collect::<Vec<_>>().join(", ")
}

pub(super) fn services(architecture: &Architecture) -> String {
    let rows = architecture.document.services.iter().map(|(name, service)| {
        let title = service.title.as_ref().map_or("", |title| title.as_str());
        let reached = service.expose.as_ref().map_or_else(String::new, |expose| {
            let scheme = if expose.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}{}", expose.host.value, expose.path.value.trim_end_matches('/'))
        });
        vec![
            name.to_string(),
            title.to_owned(),
            word(&service.kind.value),
            copies(service),
            resources(&service.resources),
            reached,
            mark(service.assumed).to_owned(),
        ]
    });
    let head = ["service", "what it does", "kind", "copies", "each", "reached from outside", ""];
    table(&head, rows.collect(), "The file declares no services.")
}

fn software(store: &Store) -> String {
    let version = store.version.as_ref().map_or_else(String::new, |version| format!(" {}", version.value));
    format!("{}{version}", store.engine.value.as_str())
}

pub(super) fn stores(architecture: &Architecture) -> String {
    let rows = architecture.document.stores.iter().map(|(name, store)| {
        let title = store.title.as_ref().map_or("", |title| title.as_str());
        let backup = store.backup.as_ref().map_or_else(
            || "none".to_owned(),
            |backup| {
                let log = backup.log.as_ref().map_or_else(String::new, |log| format!(", log every {}", log.value));
                format!("full every {}{log}, kept {}", backup.full.value, backup.keep.value)
            },
        );
        vec![
            name.to_string(),
            title.to_owned(),
            software(store),
            store.provider.value.as_str().to_owned(),
            store.members.to_string(),
            store.size.as_ref().map_or_else(String::new, ToString::to_string),
            backup,
            mark(store.assumed).to_owned(),
        ]
    });
    let head = ["store", "what it holds", "software", "run by", "members", "size of each", "backups", ""];
    table(&head, rows.collect(), "The file declares no stores.")
}

pub(super) fn externals(architecture: &Architecture) -> String {
    let rows = architecture.document.externals.iter().map(|(name, external)| {
        let title = external.title.as_ref().map_or("", |title| title.as_str());
        let users: BTreeSet<&str> = architecture
            .connections
            .iter()
            .filter(|edge| edge.to.name() == name.as_str())
            .map(|edge| edge.from.name())
            .collect();
        vec![
            name.to_string(),
            title.to_owned(),
            word(&external.protocol.value),
            external.host.as_ref().map_or_else(String::new, ToString::to_string),
            users.into_iter().collect::<Vec<_>>().join(", "),
            mark(external.assumed).to_owned(),
        ]
    });
    let head = ["system", "what it is", "speaks", "host", "used by", ""];
    table(&head, rows.collect(), "The platform talks to no system of others.")
}

pub(super) fn edges(architecture: &Architecture) -> String {
    let rows = architecture.connections.iter().map(|edge| {
        vec![
            edge.from.name().to_owned(),
            edge.verb.to_string(),
            edge.to.name().to_owned(),
            edge.detail.clone().unwrap_or_default(),
            edge.port.to_string(),
            mark(edge.edge.assumed).to_owned(),
        ]
    });
    let head = ["from", "does", "to", "what", "port", ""];
    let text = table(&head, rows.collect(), "Nothing talks to anything.");
    format!("{text}\nWhat is not listed is closed by the rendered NetworkPolicies.\n")
}

/// A row for each value that differs between environments, and rows for what an environment says of itself.
pub(super) fn environments(all: &[&Architecture]) -> String {
    let names: Vec<String> = all
        .iter()
        .map(|architecture| {
            architecture.environment.as_ref().map_or_else(|| "the file".to_owned(), ToString::to_string)
        })
        .collect();
    let head: Vec<&str> = ["what"].into_iter().chain(names.iter().map(String::as_str)).collect();
    // The order of the values is that in which the first environment that has them says them.
    let mut order: Vec<String> = Vec::new();
    let mut values: Vec<BTreeMap<String, String>> = Vec::new();
    for architecture in all {
        let said = values_of(architecture);
        for (what, _) in &said {
            if !order.contains(what) {
                order.push(what.clone());
            }
        }
        values.push(said.into_iter().collect());
    }
    let rows = order.into_iter().filter_map(|what| {
        let cells: Vec<String> =
            values.iter().map(|of| of.get(&what).cloned().unwrap_or_else(|| "-".to_owned())).collect();
        let differs = cells.iter().any(|cell| *cell != cells[0]);
        (differs || all.len() == 1).then(|| [what].into_iter().chain(cells).collect())
    });
    let text = table(&head, rows.collect(), "The environments do not differ.");
    if all.len() > 1 { format!("{text}\nEverything else is the same in all of them.\n") } else { text }
}

fn values_of(architecture: &Architecture) -> Vec<(String, String)> {
    let mut said = Vec::new();
    let mut say = |what: String, value: String| said.push((what, value));
    if let Some(environment) = architecture.environment() {
        say("for".to_owned(), environment.purpose.as_ref().map_or_else(String::new, ToString::to_string));
        say("deployed".to_owned(), word(&environment.deploy.value));
        say("after".to_owned(), environment.after.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string));
        say("data".to_owned(), word(&environment.data.value));
    }
    say("namespace".to_owned(), architecture.namespace().to_string());
    for (name, pool) in architecture.pools() {
        let nodes = format!("{} × CPU {}, memory {}", pool.count.value, pool.cpu.value, pool.memory.value);
        say(format!("nodes of `{name}`"), nodes);
    }
    for (name, service) in &architecture.document.services {
        say(format!("copies of `{name}`"), copies(service));
        say(format!("each of `{name}`"), resources(&service.resources));
        if let Some(expose) = &service.expose {
            say(format!("host of `{name}`"), expose.host.to_string());
        }
    }
    for (name, store) in &architecture.document.stores {
        let size = store.size.as_ref().map_or_else(String::new, |size| format!(" of {}", size.value));
        let of = format!("{} by {}, {}{size}", software(store), store.provider.value.as_str(), store.members.value);
        say(format!("store `{name}`"), of);
    }
    said
}

pub(super) fn objectives(architecture: &Architecture) -> String {
    let objectives = &architecture.document.objectives;
    let mut rows = Vec::new();
    let mut row = |what: &str, value: String, of: &str| rows.push(vec![what.to_owned(), value, of.to_owned()]);
    if let Some(availability) = &objectives.availability {
        row("availability", format!("{} over {}", availability.value, objectives.window.value), "the platform");
    }
    if let Some(p99) = &objectives.p99 {
        row("99 of 100 requests", format!("within {}", p99.value), "the platform");
    }
    for (name, service) in &architecture.document.services {
        let Some(own) = &service.objective else { continue };
        if let Some(availability) = &own.availability {
            row("availability", format!("{} over {}", availability.value, objectives.window.value), name.as_str());
        }
        if let Some(p99) = &own.p99 {
            row("99 of 100 requests", format!("within {}", p99.value), name.as_str());
        }
    }
    for (kind, objective) in objectives.recovery.declared() {
        let time = objective.rto.as_ref().map(|rto| format!("RTO {}", rto.value));
        let point = objective.rpo.as_ref().map(|rpo| format!("RPO {}", rpo.value));
        let value = time.into_iter().chain(point).collect::<Vec<_>>().join(", ");
        row(
            &format!("a {} is lost", kind.as_str()).replace("a corruption is lost", "data is corrupted"),
            value,
            "the platform",
        );
    }
    for (name, flow) in &architecture.document.flows {
        if let Some(within) = &flow.within {
            row("from end to end", format!("within {}", within.value), &format!("flow {name}"));
        }
    }
    table(&["what", "promise", "of"], rows, "The file promises no figures.")
}

pub(super) fn alerts(architecture: &Architecture) -> String {
    let receivers = &architecture.document.observability.alerts.receivers;
    let means = |name: &str| {
        receivers.get(name).map_or_else(String::new, |receiver| format!(" ({})", word(&receiver.by.value)))
    };
    let rows = routes(architecture).map(|(severity, route)| {
        let then: Vec<String> = route
            .escalate
            .iter()
            .map(|step| format!("after {}: {}{}", step.after.value, step.to.value, means(step.to.as_str())))
            .collect();
        vec![severity.to_owned(), format!("{}{}", route.to.value, means(route.to.as_str())), then.join("; ")]
    });
    table(&["severity", "is told", "who is told when nobody answers"], rows.collect(), "Nobody is told of anything.")
}

pub(super) fn claims(claims: &[ClaimRow]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for claim in claims {
        *counts.entry(&claim.state).or_default() += 1;
    }
    let rows = claims.iter().map(|claim| {
        let to_measure = if claim.to_measure == 0 { String::new() } else { format!("by {} runs", claim.to_measure) };
        let to_measure = to_measure.replace("by 1 runs", "by a run");
        let line = claim.line.clone().unwrap_or_default();
        vec![claim.id.clone(), line, claim.says.clone(), claim.state.clone(), to_measure]
    });
    let text = table(&["id", "line", "claim", "state", "to be measured"], rows.collect(), "The file makes no claims.");
    let counts: Vec<String> = counts.into_iter().map(|(state, count)| format!("{count} {state}")).collect();
    if counts.is_empty() { text } else { format!("{} claims: {}.\n\n{text}", claims.len(), counts.join(", ")) }
}
