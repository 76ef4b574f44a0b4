//! Environments: what they override, and where findings on that point.

use insta::assert_snapshot;

use crate::{read, told};

/// A small file with two environments.
pub(crate) const FILE: &str = "
landfall: v1
name: shop
services:
  api: { image: shop/api:1.0, port: 3000, replicas: { min: 3, max: 10, cpu: 70% }, uses: [read: ledger, call: mock-bank] }
  mock-bank: { kind: mock, image: shop/bank:1.0, port: 80, environments: [staging] }
stores:
  ledger: { engine: postgres, members: 3 }
environments:
  staging:
    services: { api: { replicas: { min: 1, max: 2 } } }
    stores: { ledger: { members: 1 } }
  production:
    production: true
";

#[test]
fn mappings_merge_and_values_replace() {
    let (_, staging) = read(FILE, Some("staging"));
    let staging = staging.expect("the file is an architecture");
    let replicas = &staging.service("api").expect("there is an api").replicas;
    assert_eq!((replicas.floor(), replicas.ceiling()), (1, 2));
    assert_eq!(replicas.cpu.expect("the metric stays").whole(), 70);
    assert_eq!(*staging.store("ledger").expect("there is a ledger").members, 1);
}

#[test]
fn an_edge_to_what_an_environment_does_not_have_is_dropped() {
    let edges = |environment| {
        let (_, architecture) = read(FILE, Some(environment));
        architecture.expect("the file is an architecture").connections.len()
    };
    assert_eq!((edges("staging"), edges("production")), (2, 1));
}

#[test]
fn nothing_removes_a_value() {
    let text = FILE.replace("{ min: 1, max: 2 }", "{ min: ~, max: ~, cpu: ~, count: 1 }");
    let (_, staging) = read(&text, Some("staging"));
    let staging = staging.expect("the file is an architecture");
    assert!(!staging.service("api").expect("there is an api").replicas.scales());
}

#[test]
fn a_finding_points_at_the_override() {
    let text = FILE.replace("{ min: 1, max: 2 }", "{ min: 1, max: 2, cpus: 3 }");
    let (file, staging) = read(&text, Some("staging"));
    assert_snapshot!(told(&staging.expect_err("`cpus` is no key"), file.sources()),
        @"11:52 unknown-key: unknown key `cpus` in `services.api.replicas` => did you mean `cpu`?");
}

#[test]
fn an_environment_that_is_not_declared_is_told_so() {
    let (file, missing) = read(FILE, Some("prod"));
    assert_snapshot!(told(&missing.expect_err("there is no `prod`"), file.sources()),
        @"unknown-name: there is no environment `prod` [not declared] => declared: production, staging");
}

fn as_staging(text: &str) -> String {
    let (file, staging) = read(text, Some("staging"));
    told(&staging.expect_err("the file is wrong"), file.sources())
}

#[test]
fn what_is_not_declared_cannot_be_overridden() {
    let text = FILE.replace("{ api: { replicas", "{ apy: { replicas").replace("stores: { ledger", "stores: { ledgr");
    assert_snapshot!(as_staging(&text), @"
    11:17 unknown-name: there is no service `apy` [not declared] => did you mean `api`?
    12:15 unknown-name: there is no store `ledgr` [not declared] => did you mean `ledger`?
    ");
}

#[test]
fn an_override_of_what_is_wrong_itself_leaves_nothing_missing() {
    let text = FILE.replace("services:\n  api:", "platform: { nodes: 6 }\nservices:\n  api:");
    let text = text.replace("  staging:\n", "  staging:\n    platform: { nodes: { count: 3 } }\n");
    assert_snapshot!(as_staging(&text), @"4:20 wrong-value: `platform.nodes`: expected a mapping, found a single value => known here: count, cpu, memory, machine, zones, reserved, dedicated, assumed");
}

#[test]
fn a_value_is_found_in_the_overrides_and_under_keys_with_dots() {
    let text = FILE.replace("members: 3 }", "members: 3, topics: { order.paid: { partitions: 3 } } }");
    let (file, _) = read(&text, None);
    let line = |path: &str, environment| {
        let span = file.written_in(path, environment)?;
        file.sources().position(span).map(|at| at.line)
    };
    assert_eq!(line("stores.ledger.members", None), Some(8));
    assert_eq!(line("stores.ledger.members", Some("production")), Some(8));
    assert_eq!(line("stores.ledger.members", Some("staging")), Some(12));
    assert_eq!(line("stores.ledger.topics.order.paid.partitions", None), Some(8));
    assert_eq!(line("services.api.uses.0.read", None), Some(5));
    assert_eq!(line("services.api.uses.9", None), None);
}
