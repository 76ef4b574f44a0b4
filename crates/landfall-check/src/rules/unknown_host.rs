//! Hosts in environment variables: a name without dots is a Service of the cluster, or it is nothing.

use std::collections::BTreeSet;

use landfall_model::{Architecture, Engine, Finding, Severity, Span, Store, StoreProvider, suggestion};
use serde_json::Value;

use super::wording::{count, names, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "unknown-host",
    subject: Subject::Completeness,
    severity: Severity::Error,
    summary: "Each host that a variable names inside the cluster exists.",
    explanation: "A name without dots is looked up as a Service in the pod's own namespace. The rule reads environment variables \
        that hold `host:port` or a URL, and compares the host with the services, the Services that operators make for stores, \
        and the rendered ones. The Service of an operator rarely has the name of the store: Strimzi calls it \
        `<name>-kafka-bootstrap`, CloudNativePG `<name>-rw`. A variable with `store: events/address` is always right. Not \
        handled: hosts in configuration files, and names with dots, which may belong to anybody.",
    passing: include_str!("../../tests/it/rules/unknown-host/ok.yaml"),
    failing: include_str!("../../tests/it/rules/unknown-host/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let known = known_hosts(context);
    let mut looked = 0;
    let mut findings = Vec::new();
    for (name, service) in &architecture.document.services {
        for (variable, value) in &service.env {
            let Some(text) = &value.value else { continue };
            for host in hosts(text) {
                looked += 1;
                if known.contains(host) {
                    continue;
                }
                let message = format!("`{variable}` of `{name}` names the host `{host}`, which does not exist");
                let finding = Finding::error(RULE.name, text.span, message).on(format!("service.{name}"));
                findings.push(explain(architecture, &known, host, finding));
            }
        }
    }
    if looked > 0 {
        let derivation = vec![format!("{} without dots looked up", count(looked, "host"))];
        report.proofs.push(proof(
            RULE.name,
            "hosts",
            "each host inside the cluster exists",
            verdict(findings.len()),
            Span::NONE,
            derivation,
        ));
    }
    report.findings.extend(findings);
}

fn explain(architecture: &Architecture, known: &BTreeSet<String>, host: &str, finding: Finding) -> Finding {
    if let Some((name, store)) = architecture.document.stores.get_key_value(host) {
        let finding = finding.also(name.span, "the store");
        return if store.provider.value.is_managed() {
            finding
                .because("a managed store has an address of its provider")
                .help(format!("write `{{ store: {host}/address }}`"))
        } else {
            let finding = finding.because(format!("clients reach it as {}", names(store_hosts(host, store))));
            finding.help(format!("write `{{ store: {host}/address }}`"))
        };
    }
    match suggestion(host, known.iter().map(String::as_str)) {
        Some(near) => finding.help(format!("did you mean `{near}`?")),
        None => finding.help("name a service, or a store as `{ store: <name>/address }`"),
    }
}

/// The Services by which clients reach a store in the cluster.
fn store_hosts(name: &str, store: &Store) -> Vec<String> {
    let with = |suffixes: &[&str]| suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect();
    match (store.provider.value, store.engine.value) {
        (StoreProvider::Aws | StoreProvider::Azure | StoreProvider::Gcp, _) => Vec::new(),
        (StoreProvider::Statefulset, _) => with(&["", "-headless"]),
        (StoreProvider::Operator, Engine::Kafka) => with(&["-kafka-bootstrap", "-kafka-brokers"]),
        (StoreProvider::Operator, Engine::Postgres) => with(&["-rw", "-ro", "-r"]),
        (StoreProvider::Operator, Engine::Mongodb) => with(&["-rs0", "-mongos"]),
        (StoreProvider::Operator, Engine::Redis) => {
            with(&["", "-master", "-replica", "-leader", "-follower", "-sentinel-sentinel"])
        }
        (StoreProvider::Operator, Engine::Elasticsearch) => with(&["-es-http"]),
        (StoreProvider::Operator, Engine::Rabbitmq | Engine::S3 | Engine::Mqtt) => with(&[""]),
    }
}

fn known_hosts(context: &Context<'_>) -> BTreeSet<String> {
    let document = &context.architecture.document;
    let services = document
        .services
        .iter()
        .filter(|(_, service)| !service.all_ports().is_empty())
        .map(|(name, _)| name.to_string());
    let stores = document.stores.iter().flat_map(|(name, store)| store_hosts(name.as_str(), store));
    let rendered =
        context.objects.iter().filter(|object| object.get("kind").and_then(Value::as_str) == Some("Service"));
    let rendered =
        rendered.filter_map(|object| object.pointer("/metadata/name").and_then(Value::as_str)).map(str::to_owned);
    services.chain(stores).chain(rendered).chain(["localhost".to_owned()]).collect()
}

/// The hosts without dots in `host:port`, in a list of them, or in a URL.
fn hosts(text: &str) -> Vec<&str> {
    let host = |part: &'_ str| -> Option<(usize, usize)> {
        let begin = part.find("://").map_or(0, |at| at + 3);
        let authority = part[begin..].split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let (name, port) = host.split_once(':').unwrap_or((host, ""));
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = name.bytes().any(|byte| byte.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let at = begin + authority.len() - host.len();
        ((begin > 0 || is_port) && is_name).then_some((at, at + name.len()))
    };
    text.split(',').map(str::trim).filter_map(|part| host(part).map(|(from, to)| &part[from..to])).collect()
}

#[cfg(test)]
mod tests {
    use super::hosts;

    #[test]
    fn hosts_are_found_where_an_address_is_written() {
        assert_eq!(hosts("kafka:9092"), ["kafka"]);
        assert_eq!(hosts("kafka-0:9092, kafka-1:9092"), ["kafka-0", "kafka-1"]);
        assert_eq!(hosts("http://orders/v1"), ["orders"]);
        assert_eq!(hosts("amqp://user@broker:5672/shop"), ["broker"]);
    }

    #[test]
    fn other_values_name_no_host_of_the_cluster() {
        assert!(hosts("info").is_empty());
        assert!(hosts("https://api.example.com/v1").is_empty());
        assert!(hosts("10.0.0.7:5432").is_empty());
        assert!(hosts("key:value").is_empty());
        assert!(hosts("$(HOST):9092").is_empty());
        assert!(hosts("").is_empty());
    }
}
