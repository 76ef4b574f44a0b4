//! Rollouts that wait for ever, and canaries with their numbers.

use crate::report::Verdict;
use crate::rules::testing::{messages, proof};

const RULE: &str = "rollout-cannot-progress";

#[test]
fn a_required_distance_leaves_no_node_for_one_more_copy() {
    let text = "
landfall: v1
name: shop
platform: { nodes: { count: 3, cpu: 4, memory: 16Gi } }
services:
  checkout: { replicas: 3, resources: { cpu: 100m, memory: 64Mi }, placement: { nodes: required } }
";
    assert_eq!(messages(RULE, text), ["error: the rollout of `checkout` has no node for a new copy"]);
    let frees = text.replace("placement:", "rollout: { rolling: { max-surge: 0, max-unavailable: 1 } }, placement:");
    assert_eq!(messages(RULE, &frees), [""; 0]);
}

#[test]
fn recreate_is_an_outage_of_grace_and_start() {
    let text = "
landfall: v1
name: shop
services: { checkout: { replicas: 3, port: 80, rollout: recreate } }
";
    assert_eq!(
        messages(RULE, text),
        ["warning: every release of `checkout` is an outage: no copy serves while it is replaced"]
    );
    let (_, derivation) = proof(RULE, "service.checkout", text);
    assert_eq!(derivation, ["outage of each release = grace 30s + start 30s = 1m"]);
}

#[test]
fn a_canary_needs_1194_requests_for_99_5_percent() {
    let text = "
landfall: v1
name: shop
services: { checkout: { replicas: 3, port: 80, expose: shop.example.com } }
flows: { buy: { rate: 20/s, steps: [client -> checkout] } }
delivery: { rollout: { canary: { steps: [5%, 50%], judge: { success: 99.5% }, decide-within: 20m } } }
";
    let (verdict, derivation) = proof(RULE, "service.checkout", text);
    assert_eq!(verdict, Verdict::Proved);
    assert_eq!(derivation[2], "1194 requests ÷ (20.00/s × 5 %) = 1194 s for the first step; 1200 s are allowed");
    assert_eq!(proof(RULE, "service.checkout", &text.replace("20/s", "19/s")).0, Verdict::Refuted);
    assert_eq!(proof(RULE, "service.checkout", &text.replace("rate: 20/s, ", "")).0, Verdict::Undecided);
}

#[test]
fn without_weights_the_share_is_that_of_the_copies() {
    let text = "
landfall: v1
name: shop
services: { worker: { kind: worker, replicas: 3 } }
delivery: { rollout: { canary: { steps: [5%, 50%], judge: { success: 99% } } } }
";
    assert_eq!(
        messages(RULE, text),
        ["warning: a canary of `worker` cannot have 5% of the messages: its smallest share is 25 %"]
    );
    let web = text.replace("worker: { kind: worker,", "web: { port: 80,");
    assert_eq!(
        messages(RULE, &web),
        ["warning: a canary of `web` cannot have 5% of the traffic: its smallest share is 25 %"]
    );
}

#[test]
fn a_worker_is_one_of_its_consumers_and_counts_messages() {
    let text = "
landfall: v1
name: shop
platform: { mesh: { kind: istio } }
services:
  web: { port: 80, replicas: 2, uses: [{ publish: events/placed }, { call: mail, rate: 500/s }] }
  mail:
    kind: worker
    port: 80
    replicas: 3
    uses: [{ consume: events/placed }]
    rollout: { canary: { steps: [25%], judge: { success: 99% }, decide-within: 5m } }
stores: { events: { engine: rabbitmq, topics: { placed: {} } } }
flows: { buy: { rate: 20/s, steps: [client -> web, web -> events, events -> mail] } }
";
    let (verdict, derivation) = proof(RULE, "service.mail", text);
    assert_eq!(
        derivation[..3],
        [
            "without weights the share is that of the copies: 1 of 4 = 25 %",
            "a success of 99% is believed after 595 good messages in a row",
            "20.00/s reach `mail`: flow `buy` 20/s",
        ]
    );
    assert_eq!(
        (verdict, derivation[3].as_str()),
        (Verdict::Proved, "595 messages ÷ (20.00/s × 25 %) = 119 s for the first step; 300 s are allowed")
    );
    let by_metrics = text.replace("{ success: 99% }", "{ metrics: [{ name: jobs, query: up, at-least: 1 }] }");
    assert_eq!(messages(RULE, &by_metrics), [""; 0], "nobody has to count what it does");
}

#[test]
fn shares_must_grow() {
    let text = "
landfall: v1
name: shop
services: { checkout: { port: 80, expose: a.example.com }, search: { port: 80, expose: b.example.com } }
delivery: { rollout: { canary: { steps: [25%, 10%, 150%], judge: { success: 99% } } } }
";
    assert_eq!(
        messages(RULE, text),
        ["error: the canary goes from 25% to 10%: shares must grow", "error: 150% is no share of the traffic"]
    );
}

#[test]
fn a_budget_that_allows_nothing_stops_every_drain() {
    let text = "
landfall: v1
name: shop
services: { checkout: { replicas: 2, port: 80 } }
objects:
  - apiVersion: apps/v1
    kind: Deployment
    metadata: { name: checkout, namespace: shop }
    spec: { replicas: 2, template: { metadata: { labels: { app: checkout } } } }
  - apiVersion: policy/v1
    kind: PodDisruptionBudget
    metadata: { name: checkout, namespace: shop }
    spec: { minAvailable: \"51%\", selector: { matchLabels: { app: checkout } } }
";
    assert_eq!(
        messages(RULE, text),
        ["warning: no node with `checkout` on it can ever be drained: its disruption budget allows nothing"]
    );
    assert_eq!(messages(RULE, &text.replace("51%", "50%")), [""; 0]);
}

#[test]
fn a_strategy_that_stops_every_service_is_told_once() {
    let text = "
landfall: v1
name: shop
services: { checkout: { replicas: 3 }, stock: { replicas: 3 } }
delivery: { rollout: { rolling: { max-surge: 0, max-unavailable: 0 } } }
";
    assert_eq!(messages(RULE, text), ["error: the rollout of `checkout` can never make progress"]);
    assert_eq!(proof(RULE, "service.stock", text).0, Verdict::Refuted);
}
