//! Probes that restart what works, and copies that are killed before they finish.

use crate::rules::testing::messages;

fn said(service: &str) -> Vec<String> {
    messages("probes", &format!("landfall: v1\nname: shop\nservices: {{ checkout: {{ port: 80, {service} }} }}\n"))
}

#[test]
fn the_same_question_may_be_asked_with_more_patience() {
    let live = |failures: u32| {
        format!("probes: {{ live: {{ http: /health, delay: 30s, failures: {failures} }}, ready: /health }}")
    };
    assert_eq!(said(&live(3)).len(), 1);
    assert_eq!(said(&live(6)), [""; 0]);
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    let probes = "startup: 60s, probes: { live: /health, ready: /ready, startup: { http: /health, failures: 7 } }";
    assert_eq!(said(probes), [""; 0]);
    assert_eq!(
        said(&probes.replace("failures: 7", "failures: 5")),
        ["error: `checkout` is killed before it has started, again and again"]
    );
}

#[test]
fn a_start_that_is_assumed_refutes_nothing() {
    let probes = "probes: { live: { http: /health, period: 5s }, ready: /ready }";
    assert_eq!(said(probes), ["warning: `checkout` is killed before it has started, again and again"]);
}

#[test]
fn calls_that_last_longer_than_the_grace_are_cut_off() {
    let text = "
landfall: v1
name: shop
services:
  checkout: { port: 80, probes: { ready: /ready } }
  web: { port: 80, probes: { ready: /ready }, uses: [{ call: checkout, timeout: 60s }] }
";
    assert_eq!(
        messages("probes", text),
        ["warning: a copy of `checkout` that is stopped cuts off calls of service.web"]
    );
    assert_eq!(
        messages("probes", &text.replace("{ ready: /ready } }\n  web", "{ ready: /ready }, grace: 60s }\n  web")),
        [""; 0]
    );
}

#[test]
fn a_hook_may_not_use_up_the_grace() {
    let text = "
landfall: v1
name: shop
services: { checkout: { port: 80, probes: { ready: /ready } } }
objects:
  - apiVersion: apps/v1
    kind: Deployment
    metadata: { name: checkout, namespace: shop }
    spec:
      template:
        spec:
          terminationGracePeriodSeconds: 20
          containers:
            - { name: checkout, lifecycle: { preStop: { exec: { command: [sh, -c, sleep 20] } } } }
";
    assert_eq!(
        messages("probes", text),
        ["warning: service.checkout is killed during its `preStop` hook, before it may finish a request"]
    );
    assert_eq!(messages("probes", &text.replace("sleep 20", "sleep 5")), [""; 0]);
}

#[test]
fn mocks_jobs_and_what_serves_nothing_are_not_asked() {
    assert_eq!(said("kind: mock"), [""; 0]);
    assert_eq!(messages("probes", "landfall: v1\nname: shop\nservices: { worker: { kind: worker } }\n"), [""; 0]);
}
