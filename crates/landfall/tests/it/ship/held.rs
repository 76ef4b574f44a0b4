//! Releases that go no further until a person decides: one that was aborted, and one that fails where nothing goes back by itself.
//! Beside their canaries the bounds of an autoscaler are kept, whoever sets others.

use std::time::Instant;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::clients::Clients;
use super::{PATIENCE, Platform, architecture};
use crate::running_engine::POLL;

/// How many requests have to be answered by others before a version counts as one that gets none.
const ENOUGH: u64 = 400;

/// Two copies, up to six, none of them busy enough for more.
fn file() -> String {
    let text = architecture("{ canary: { steps: [5%, 50%], judge: { success: 99% }, decide-within: 5m } }");
    let text = text.replace("    replicas: 2\n", "    replicas: { min: 2, max: 6, cpu: 70% }\n");
    let text = text.replace("cpu: 50m..200m", "cpu: 500m..1000m");
    text.replace("rollback: { automatic: true }", "rollback: { automatic: false, within: 10m }")
}

/// The bounds of the autoscaler, once they are these.
fn bounds_become(platform: &Platform, wanted: (i32, i32)) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = platform.with_client(async |client| {
            let found = Api::<HorizontalPodAutoscaler>::namespaced(client, "shop").get("web").await;
            let spec = found.expect("it has an autoscaler").spec;
            (spec.min_replicas.unwrap_or(1), spec.max_replicas)
        });
        if now == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{now:?} and not {wanted:?}");
        std::thread::sleep(POLL);
    }
}

/// Somebody sets other bounds, as who applies what was rendered does.
fn set_bounds(platform: &Platform, min: i32, max: i32) {
    platform.with_client(async |client| {
        let patch = Patch::Merge(json!({ "spec": { "minReplicas": min, "maxReplicas": max } }));
        let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(client, "shop");
        autoscalers.patch("web", &PatchParams::default(), &patch).await.expect("bounds can be set");
    });
}

/// Waits until nobody gets an answer of this version any more.
fn gets_nothing(clients: &Clients, answer: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut before = clients.so_far();
    loop {
        let now = clients.so_far();
        if now.total() >= before.total() + ENOUGH {
            if now.of(answer) == before.of(answer) {
                return;
            }
            before = now;
        }
        assert!(Instant::now() < deadline, "`{answer}` is still given: {:?}", clients.so_far());
        std::thread::sleep(POLL);
    }
}

#[test]
fn what_is_aborted_or_fails_is_held_until_somebody_takes_it_back() {
    let Some(platform) = Platform::start_with(&file()) else { return };
    let clients = platform.clients();
    let (code, _, said) = platform.run(&["abort"]);
    assert_eq!((code, said.contains("no release is under way")), (Some(1), true), "{said}");

    let shipper = platform.shipper("good", &["ship", "--image", "web=shop/web:2"]);
    let deadline = Instant::now() + PATIENCE;
    while clients.so_far().of("2 200") == 0 {
        assert!(Instant::now() < deadline, "the canary gets no request: {:?}", clients.so_far());
        std::thread::sleep(POLL);
    }
    // One copy of six is the canary's, and one its baseline's.
    bounds_become(&platform, (2, 4));
    set_bounds(&platform, 1, 9);
    bounds_become(&platform, (2, 4));

    // Whoever means another release stops none.
    let (code, _, said) = platform.run(&["abort", "shop-7"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no release `shop-7`; `shop-1` is under way, and goes on"), "{said}");
    let (code, release, _) = platform.run(&["abort", "shop-1", "--file", "landfall.yaml"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Held")), "{release:#}");
    assert_eq!(release["why"]["reason"], "aborted", "{release:#}");
    let (code, release, said) = shipper.ends();
    assert_eq!((code, &release["state"]), (Some(1), &json!("Held")), "{release:#}");
    assert!(said.contains("hint: `landfall rollback shop-1` takes it back"), "{said}");
    gets_nothing(&clients, "2 200");
    assert_eq!(platform.image(), "shop/web:1");

    let (code, release, _) = platform.run(&["rollback"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["way_back"]["kept"], true, "{release:#}");
    bounds_become(&platform, (2, 6));
    let (code, _, said) = platform.run(&["abort", "shop-1"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("release `shop-1` has ended (RolledBack), and none is under way"), "{said}");

    // Every twentieth answer of the fourth fails, and nothing goes back by itself.
    let (code, release, said) = platform.run(&["ship", "--image", "web=shop/web:4"]);
    assert_eq!((code, &release["state"]), (Some(1), &json!("Held")), "{release:#}");
    assert_eq!((&release["why"]["reason"], &release["way_back"]), (&json!("worse"), &json!(null)), "{release:#}");
    assert!(said.contains("hint: `landfall rollback shop-2` takes it back"), "{said}");
    gets_nothing(&clients, "4 200");
    let (code, release, _) = platform.run(&["rollback", "shop-2"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("RolledBack")), "{release:#}");
    assert_eq!(platform.image(), "shop/web:1");

    let answers = clients.stop();
    println!("{answers:?}");
    let failed = answers.failed(&["4 500"]);
    assert_eq!(failed, std::collections::BTreeMap::new(), "besides the canary's own, of {} requests", answers.total());
}
