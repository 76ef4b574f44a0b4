//! A canary by the weights of its `HTTPRoute` on a real API server, which our gateway reads there, judged by what a real Prometheus has:
//! the answers of its pods, and a metric of its own.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::{ARCHITECTURE, World};
use crate::running_engine::POLL;

/// By weights, beside a baseline, and with a queue that must not be long.
fn architecture(query: &str) -> String {
    let metric = format!("{{ name: queue-length, query: '{query}', at-most: 10, every: 2s }}");
    let text = ARCHITECTURE.replace("api: ingress", "api: gateway").replace("[10%, 25%, 50%]", "[20%, 50%]");
    text.replace("success: 99% }", &format!("success: 99%, metrics: [{metric}] }}, baseline: fresh"))
}

const QUERY: &str = r#"max(queue_length{namespace="{{namespace}}",pod=~"{{pods}}"})"#;

impl World {
    /// The route as the API server has it.
    async fn route(&self) -> DynamicObject {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
        let routes = Api::<DynamicObject>::namespaced_with(self.client.clone(), "shop", &kind);
        routes.get("web").await.expect("it is there")
    }

    async fn rules(&self) -> Value {
        self.route().await.data["spec"]["rules"].clone()
    }

    /// Who has written fields of the route.
    async fn writers(&self) -> BTreeSet<String> {
        self.route().await.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect()
    }
}

/// `web 60, web-baseline 20, web-canary 20`.
fn weights(rules: &Value) -> String {
    let backends = rules[0]["backendRefs"].as_array().cloned().unwrap_or_default();
    let of = |backend: &Value| format!("{} {}", backend["name"].as_str().unwrap_or_default(), backend["weight"]);
    backends.iter().map(of).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_shares_requests_by_weights_and_a_metric_of_ones_own_takes_a_version_back() {
    let Some(world) = World::start(&architecture(QUERY)).await else { return };
    let (before, writers) = (world.rules().await, world.writers().await);

    // Prometheus reads a query before anything begins.
    let file = world.folder.path().join("landfall.yaml");
    std::fs::write(&file, architecture("max(queue_length")).expect("a file can be written");
    let (code, _, said) = world.ship("shop/web:2", &["--plan"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the metric `queue-length` of the canary of `web` cannot be had"), "{said}");
    assert!(said.contains("parse error"), "in the words of Prometheus: {said}");
    std::fs::write(&file, architecture(QUERY)).expect("a file can be written");

    let (code, plan, _) = world.ship("shop/web:2", &["--plan"]).await;
    assert_eq!(code, Some(0), "{plan:#}");
    let lines = plan["services"][0]["plan"].to_string();
    assert!(lines.contains("by the weights of its HTTPRoute, counted by Prometheus"), "{plan:#}");
    assert!(lines.contains("`queue-length` at most 10") && lines.contains("it is 2"), "{plan:#}");

    // The answers of the seventh are good, and its queue is long.
    let (code, release, _) = world.ship("shop/web:7", &[]).await;
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["why"]["reason"], "worse", "{release:#}");
    let shown = release["last_verdict"]["lines"].to_string();
    assert!(shown.contains("`queue-length` at most 10: 40 is beyond, 3 in a row, 3 decide: fail"), "{release:#}");
    assert_eq!(world.rules().await, before, "the route is as it was");
    let answers = world.clients.so_far();
    assert!(answers.of("7 200") > 0, "the canary got no request: {answers:?}");
    assert!(answers.of("7 200") * 2 < answers.total(), "the canary got more than its share: {answers:?}");

    // A good one gets its shares one after the other, and none in the end.
    let mut seen = BTreeSet::new();
    let (code, release, _) = {
        let shipping = world.ship("shop/web:2", &[]);
        tokio::pin!(shipping);
        loop {
            tokio::select! {
                ended = &mut shipping => break ended,
                () = tokio::time::sleep(POLL) => { seen.insert(weights(&world.rules().await)); }
            }
        }
    };
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    for share in ["web 60, web-baseline 20, web-canary 20", "web 0, web-baseline 50, web-canary 50"] {
        assert!(seen.contains(share), "{seen:?}");
    }
    assert_eq!(world.rules().await, before, "the route is as it was");
    assert_eq!(world.writers().await, writers, "and who says what is in it is who said so before");
    assert_eq!(world.runs().await, json!({ "web": ["shop/web:2", 3] }));

    let answers = world.clients.stop();
    println!("{answers:?}");
    assert_eq!(answers.failed(&[]), BTreeMap::new(), "of {} requests", answers.total());
}
