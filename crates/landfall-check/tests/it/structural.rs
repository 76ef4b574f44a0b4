//! What structural rules say, word by word, about contradictions that real documents contain.

use std::fmt::Write;

use landfall_check::{Rendering, Report, check};
use landfall_model::{File, Sources, Span};

fn place(sources: &Sources, span: Span) -> String {
    sources.position(span).map_or_else(|| "-".to_owned(), |at| format!("{}:{}", at.line, at.column))
}

/// The findings and proofs of one rule, as text.
fn told(rule: &str, body: &str) -> String {
    let text = format!("landfall: v1\nname: shop\n{body}");
    let file = File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(path.to_owned()));
    let architecture = file.architecture(None).expect("the file of the test can be read");
    let objects: Vec<_> = architecture.document.objects.iter().map(|object| object.value.clone()).collect();
    let report: Report = check(
        &architecture,
        Rendering { objects: &objects, findings: &[] },
        "2026-11-21".parse().expect("the date is a date"),
    );
    let mut out = String::new();
    for finding in report.findings.iter().filter(|finding| finding.rule == rule) {
        let at = place(file.sources(), finding.primary.span);
        let subject = finding.subject.as_deref().unwrap_or("-");
        writeln!(out, "{at} {} on {subject}: {}", finding.severity.as_str(), finding.message)
            .expect("a string takes text");
        for label in std::iter::once(&finding.primary).chain(&finding.secondary).filter(|label| !label.text.is_empty())
        {
            writeln!(out, "  {} {}", place(file.sources(), label.span), label.text).expect("a string takes text");
        }
        for line in &finding.why {
            writeln!(out, "  because {line}").expect("a string takes text");
        }
        if let Some(help) = &finding.help {
            writeln!(out, "  help: {help}").expect("a string takes text");
        }
    }
    for proof in report.proofs.iter().filter(|proof| proof.rule == rule) {
        writeln!(out, "{:?}: {}", proof.verdict, proof.statement).expect("a string takes text");
    }
    out
}

#[test]
fn a_policy_with_egress_and_no_rules_blocks_names_and_stores() {
    let body = r#"
services:
  inventory: { image: "inventory:1.0", port: 3000, uses: [{ read: ledger }] }
stores:
  ledger: { engine: postgres, provider: statefulset }
objects:
  - apiVersion: apps/v1
    kind: Deployment
    metadata: { name: inventory, namespace: shop }
    spec: { template: { metadata: { labels: { app.kubernetes.io/name: inventory } }, spec: { containers: [{ name: a, ports: [{ containerPort: 3000 }] }] } } }
  - apiVersion: apps/v1
    kind: StatefulSet
    metadata: { name: ledger, namespace: shop }
    spec: { template: { metadata: { labels: { app.kubernetes.io/name: ledger } }, spec: { containers: [{ name: a, ports: [{ containerPort: 5432 }] }] } } }
  - apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: { name: ledger, namespace: shop }
    spec: { podSelector: { matchLabels: { app.kubernetes.io/name: ledger } }, ingress: [{ from: [{ podSelector: { matchLabels: { app.kubernetes.io/name: inventory } } }] }] }
  - apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: { name: inventory-policy, namespace: shop }
    spec: { podSelector: { matchLabels: { app.kubernetes.io/name: inventory } }, policyTypes: [Ingress, Egress] }
"#;
    insta::assert_snapshot!(told("isolation", body), @"
    5:3 error on service.inventory: `service.inventory` cannot resolve names: DNS is blocked over UDP and TCP
      21:5 this policy isolates the pod
      because leaving: `NetworkPolicy shop/inventory-policy` isolates the pod, and no policy allows this connection
      because its edges name Services and hosts, so none of them works without DNS
      help: allow egress to the pods `k8s-app: kube-dns` in `kube-system` on port 53, UDP and TCP
    5:67 error on service.inventory: `service.inventory` cannot connect to `store.ledger` on 5432/TCP, though the file declares it
      5:67 blocked when leaving its source
      21:5 this policy isolates the pod
      because leaving: `NetworkPolicy shop/inventory-policy` isolates the pod, and no policy allows this connection
      help: allow it in a policy that selects these pods; a patch or a raw policy may have removed or narrowed the rendered rule
    Refuted: in the namespace `shop` the declared edges can be used, and nothing else
    ");
}

#[test]
fn a_broker_calls_nobody() {
    let body = r#"
services:
  messaging: { image: "messaging:1.0", kind: worker, uses: [{ publish: events }] }
stores:
  events: { engine: kafka }
externals:
  glific: {}
flows:
  reading: { steps: [messaging -> events, events -> glific] }
"#;
    insta::assert_snapshot!(told("flow-without-edge", body), @"
    11:43 error on flow.reading: the step `events -> glific` of the flow `reading` has no edge
      11:43 nothing carries it
      because a store opens no connection: `events` cannot call `glific`
      help: put a service between them, with `- consume: events` and an edge to `glific`
    Refuted: every step of every flow goes along a declared edge
    ");
}

#[test]
fn a_scan_of_a_running_target_needs_one() {
    let body = "
environments:
  staging: { deploy: automatic }
delivery:
  pipeline:
    runner: github
    stages:
      - { name: build, steps: [unit-test, build, sast, dast, push] }
      - { name: staging, environment: staging, steps: [deploy, smoke] }
";
    insta::assert_snapshot!(told("pipeline-order", body), @"
    10:56 error on stage.build: `dast` needs something that runs, but stands before any deployment
      10:56 nothing runs yet
      11:56 the first deployment
      help: move `dast` behind it, to the stage `staging` or a later one
    Refuted: the 7 steps come in an order that works
    ");
}

#[test]
fn an_old_state_file_takes_nothing_back() {
    let body = "
delivery:
  rollback:
    procedures: [{ of: infrastructure, by: previous-state }]
";
    insta::assert_snapshot!(told("rollback", body), @"
    6:44 error on rollback.infrastructure: putting the previous Terraform state back takes no infrastructure back
      because the state file only records what exists: with an old one, Terraform forgets resources, and the next apply makes them twice or fails
      help: use `by: previous-configuration`: the previous configuration is planned, its destroy list is shown, then it is applied
    Refuted: what is promised to be taken back can be
    ");
}

#[test]
fn a_store_of_an_operator_is_not_reached_by_its_name() {
    let body = r#"
services:
  inventory: { image: "inventory:1.0", env: { KAFKA_BROKERS: "kafka:9092" }, uses: [{ publish: kafka }] }
stores:
  kafka: { engine: kafka }
"#;
    insta::assert_snapshot!(told("unknown-host", body), @"
    5:62 error on service.inventory: `KAFKA_BROKERS` of `inventory` names the host `kafka`, which does not exist
      7:3 the store
      because clients reach it as `kafka-kafka-bootstrap` and `kafka-kafka-brokers`
      help: write `{ store: kafka/address }`
    Refuted: each host inside the cluster exists
    ");
}

#[test]
fn what_ends_soon_is_a_warning_and_what_has_ended_an_error() {
    let body = r#"
platform: { kubernetes: "1.35" }
stores:
  ledger: { engine: postgres, version: "14" }
  documents: { engine: mongodb, version: "7.0" }
"#;
    insta::assert_snapshot!(told("end-of-life", body), @"
    4:25 warning on platform.kubernetes: Kubernetes 1.35 reaches its end of life on 2027-02-28, in 99 days
      because source: https://kubernetes.io/releases/patch-releases/
      help: move to 1.37
    6:40 error on store.ledger: PostgreSQL 14 reached its end of life on 2026-11-12
      because source: https://www.postgresql.org/support/versioning/
      help: move to 18
    Refuted: nothing has reached its end of life
    ");
}

#[test]
fn logs_in_elasticsearch_raise_no_alert() {
    let body = "
observability:
  metrics: prometheus
  logs: elasticsearch
  alerts: { from: [logs] }
";
    insta::assert_snapshot!(told("alert-path", body), @"
    7:20 error on alerts.logs: alerts from logs have no way from Elasticsearch to Alertmanager
      6:9 it sends nothing to Alertmanager by itself
      help: count the log lines as a metric and alert from metrics, or use the stack `loki`, whose ruler sends to Alertmanager
    Refuted: what raises alerts has a way to Alertmanager
    ");
}

#[test]
fn a_secret_is_never_repeated() {
    let body = r#"
services:
  web:
    image: "web:1.0"
    env: { DATABASE_URL: "postgres://app:hunter2@ledger/app", API_TOKEN: hunter2 }
    config: { app.properties: "port=80\nspring.datasource.password=hunter2\n" }
"#;
    let told = told("secret-literal", body);
    assert!(!told.contains("hunter2"));
    insta::assert_snapshot!(told, @"
    7:26 error on service.web: the variable `DATABASE_URL` of `web` holds a URL with a password
      7:26 the password is before the `@`
      help: put it into the secret back end, declare it under `security.secrets.items`, and write `DATABASE_URL: { secret: web/database-url }`
    7:74 error on service.web: the variable `API_TOKEN` of `web` is a secret in plain text
      7:74 in Git for good
      help: put it into the secret back end, declare it under `security.secrets.items`, and write `API_TOKEN: { secret: web/api-token }`
    8:31 error on service.web: line 2 of the file `app.properties` of `web` is a secret in plain text
      8:31 in Git for good
      help: let the program read it from an environment variable with `secret: …`
    Refuted: no secret stands in the file
    ");
}

#[test]
fn a_frontend_behind_an_exposed_service_is_reached_over_any_number_of_calls() {
    let body = r#"
services:
  gateway: { image: "gateway:1.0", port: 80, expose: { host: shop.example, tls: it }, uses: [{ call: shell }] }
  shell: { image: "shell:1.0", port: 80, uses: [{ call: pages }] }
  pages: { image: "pages:1.0", port: 80, kind: frontend }
  job: { image: "job:1.0", kind: worker, uses: [{ call: admin-pages }] }
  admin-pages: { image: "admin:1.0", port: 80, kind: frontend }
"#;
    insta::assert_snapshot!(told("exposure", body), @"
    9:54 warning on service.admin-pages: the frontend `admin-pages` is not exposed, so no browser reaches it
      help: add `expose:` with a host and TLS, or choose another kind
    Proved: every exposed host has TLS, a route of its own and the promised protection
    ");
}

#[test]
fn a_key_that_somebody_caches_is_filled() {
    let body = r#"
services:
  qualification: { image: "q:1.0", uses: [{ cache: cache/eligibility }] }
  balance: { image: "b:1.0", uses: [{ read: cache/eligibility }] }
  report: { image: "r:1.0", uses: [{ read: cache/eligibilty }] }
  screen: { image: "s:1.0", uses: [{ read: cache }] }
stores:
  cache: { engine: redis }
"#;
    insta::assert_snapshot!(told("cache-without-writer", body), @"
    7:44 warning on service.report: `report` reads `eligibilty` from `store.cache`, which nobody puts there
      7:44 misses every time
      because what is put there: `eligibility`
      help: did you mean `cache/eligibility`?
    8:44 note on service.screen: `screen` reads from `store.cache` what only `qualification` puts there
      help: name the keys on both sides, such as `cache/sessions`, or let it cache what it missed
    Refuted: somebody fills every cache that is read
    ");
}

#[test]
fn a_misspelt_topic_is_told_once() {
    let body = r#"
services:
  attendance: { image: "a:1.0", uses: [{ publish: events/recorded }] }
  fraud: { image: "f:1.0", kind: worker, uses: [{ consume: events/recorde }] }
stores:
  events: { engine: kafka }
"#;
    insta::assert_snapshot!(told("consumer-without-publisher", body), @"
    6:60 warning on service.fraud: nobody publishes to the topic `recorde` of `store.events`, which is consumed by `fraud`
      6:60 waits for ever
      because what is published: `recorded`
      help: did you mean `events/recorded`? Otherwise add `- publish: events/recorde` to the service that produces it
    Refuted: somebody publishes to every topic that is consumed
    ");
    insta::assert_snapshot!(told("publisher-without-consumer", body), @"
    Refuted: somebody consumes every topic that is published to
    ");
}

#[test]
fn a_store_that_fails_over_comes_back_by_itself() {
    let body = "
stores:
  ledger: { engine: postgres, members: 3, size: 10Gi }
  alone: { engine: postgres, members: 1, size: 10Gi }
";
    insta::assert_snapshot!(told("stateful-node-loss", body), @"
    Refuted: `alone` comes back by itself when a node dies
    Proved: `ledger` comes back by itself when a node dies
    ");
}
