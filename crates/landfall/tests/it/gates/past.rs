//! What is not as it was: releases that were written past their gates, what somebody has changed while a release waited, and the pods
//! of others that start again after one.

use std::collections::BTreeSet;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use landfall_deliver::Release;
use serde_json::{Value, json};

use super::{ARCHITECTURE, PATIENCE, Platform, STOCK, pods_with};
use crate::running_engine::POLL;

impl Platform {
    fn deployment(&self, namespace: &str) -> Deployment {
        self.runtime.block_on(async {
            let deployments = Api::<Deployment>::namespaced(self.client.clone(), namespace);
            deployments.get("web").await.expect("it is there")
        })
    }

    /// Writes a release of `web` down, as who may write releases can: with this image, and whatever else it says.
    fn write_release(&self, name: &str, image: &str, says: &Value) {
        let old = json!(self.deployment("shop-production").spec.expect("it has one").template);
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!(image);
        let mut spec = json!({
            "architecture": "shop", "number": 1, "digest": "", "automatic": true,
            "services": [{
                "name": "web", "namespace": "shop-production", "oldImage": "shop/web:1", "newImage": image,
                "strategy": "rolling", "readyWithinSeconds": 30, "oldTemplate": old, "newTemplate": new,
            }],
        });
        for (key, value) in says.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let mut release = Release::new(name, serde_json::from_value(spec).expect("it is a release"));
        // Whoever forges one can compute its digest, too.
        release.spec.digest = release.spec.computed_digest();
        self.runtime.block_on(async {
            let releases = Api::<Release>::namespaced(self.client.clone(), "shop-production");
            releases.create(&PostParams::default(), &release).await.expect("an administrator may write it");
        });
    }

    /// Says where a release is.
    fn write_status(&self, name: &str, status: &Value) {
        self.runtime.block_on(async {
            let releases = Api::<Release>::namespaced(self.client.clone(), "shop-production");
            let patch = Patch::Merge(json!({ "status": status }));
            releases.patch_status(name, &PatchParams::default(), &patch).await.expect("an administrator may write it");
        });
    }

    /// The pods of a service in staging that are ready.
    fn ready_in_staging(&self, service: &str) -> BTreeSet<String> {
        self.runtime.block_on(async {
            let pods = Api::<Pod>::namespaced(self.client.clone(), "shop-staging");
            let own = ListParams::default().labels(&format!("app.kubernetes.io/name={service}"));
            let is_ready = |pod: &Pod| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
            };
            let found = pods.list(&own).await.expect("they can be listed");
            found.items.iter().filter(|pod| is_ready(pod)).map(ResourceExt::name_any).collect()
        })
    }

    fn delete_in_staging(&self, pods: &BTreeSet<String>) {
        self.runtime.block_on(async {
            let api = Api::<Pod>::namespaced(self.client.clone(), "shop-staging");
            for pod in pods {
                api.delete(pod, &DeleteParams::default()).await.expect("an administrator may delete it");
            }
        });
    }
}

fn image(deployment: &Deployment) -> Option<String> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers[0].image.clone()
}

#[test]
fn pods_of_other_services_start_again_after_a_release_in_a_protected_environment() {
    let text = ARCHITECTURE.replacen("environments:\n", STOCK, 1);
    let Some(platform) = Platform::start_with(&text) else { return };
    let protected = platform.done(&["protect", "--env", "staging"]);
    assert_eq!(protected["images"], json!(["shop/stock:1", "shop/web:1"]));
    platform.refuses_images("shop-staging");

    platform.done(&["ship", "--env", "staging", "--image", "web=shop/web:2"]);
    let before = platform.ready_in_staging("stock");
    assert_eq!(before.len(), 2, "{before:?}");
    platform.delete_in_staging(&before);
    let deadline = Instant::now() + PATIENCE;
    while platform.ready_in_staging("stock").difference(&before).count() < 2 {
        assert!(Instant::now() < deadline, "the pods of `stock` do not come back");
        std::thread::sleep(POLL);
    }
    // What nobody let through is still refused.
    let refused = platform.refuses_images("shop-staging");
    assert!(refused.contains("no release has let"), "{refused}");
    assert_eq!(platform.done(&["releases", "--env", "staging"])["drift"], json!([]));
}

#[test]
fn a_release_that_is_written_past_its_gates_is_not_carried_out() {
    let Some(platform) = Platform::start() else { return };
    platform.done(&["signers", "set", "allowed_signers", "--env", "production"]);
    let watch = ["ship", "--watch", "--env", "production"];

    // It says that it takes back what never was, and so needs no approval.
    platform.write_release("shop-1", "shop/web:evil", &json!({ "takesBack": "shop-0" }));
    let (code, release, _) = platform.run(&watch);
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    let why = release["why"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("there is no such release"), "{why}");

    // It says that it has begun already.
    platform.write_release("shop-2", "shop/web:evil", &json!({ "number": 2 }));
    let change = json!({ "setTemplate": { "service": 0, "version": "new" } });
    let stage = json!({ "progressing": { "service": 0, "stage": "updating" } });
    platform.write_status("shop-2", &json!({ "phase": stage, "state": "Progressing", "pending": [change] }));
    let (code, _, said) = platform.run(&watch);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("is not what was let through"), "{said}");

    assert_eq!(image(&platform.deployment("shop-production")).as_deref(), Some("shop/web:1"));
    let drift = platform.done(&["releases", "--env", "production"])["drift"].to_string();
    assert!(drift.contains("does not say that anybody wrote release `shop-1` down"), "{drift}");
    assert!(drift.contains("release `shop-2` is Progressing"), "{drift}");
}

#[test]
fn what_somebody_has_changed_while_a_release_waited_is_not_undone() {
    let Some(platform) = Platform::start() else { return };
    platform.done(&["freeze", "staging", "--because", "end of the quarter"]);
    platform.done(&["ship", "--env", "staging", "--image", "web=shop/web:2", "--detach"]);
    let fix = pods_with(&json!({ "env": [{ "name": "FIX", "value": "1" }] }));
    platform.patch_in("shop-staging", &fix).expect("an administrator may change it");
    platform.done(&["thaw", "staging", "--because", "the books are closed"]);

    let (code, release, _) = platform.run(&["ship", "--watch", "--env", "staging"]);
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    let why = release["why"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("somebody has changed the pods of `web`") && why.contains("`landfall ship`"), "{why}");
    let left = json!(platform.deployment("shop-staging")).to_string();
    assert!(left.contains("FIX") && left.contains("shop/web:1"), "{left}");

    // Planned anew it goes.
    platform.done(&["ship", "--env", "staging", "--image", "web=shop/web:2"]);
}
