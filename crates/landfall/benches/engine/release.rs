//! How long a release takes, how much of that is the shipper's, and how many requests it sends.
//!
//! Pods are only said to run, so that a release is as fast as the controllers and the shipper are. What the shipper adds is the
//! difference to the same change made by a patch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use landfall_deliver::{Author, Lock, Phase, Telling, Wanted, carry, create, phase_of, propose};
use landfall_model::{Architecture, File};
use serde_json::{Value, json};

use crate::measure::{PATIENCE, POLL, wait_for_default_account, wait_for_nodes};
use crate::side::{EngineOptions, Side};

/// What a release cost.
pub(crate) struct Cost {
    pub(crate) milliseconds: f64,
    pub(crate) requests: f64,
    /// The same change by a patch of the Deployments.
    pub(crate) by_patch: f64,
}

/// So many services of so many copies each, all of which get a new version, one service after another.
pub(crate) async fn rolling(services: usize, copies: u32) -> Cost {
    let images = "- { image: \"shop/web:1\", program: /bin/true }\n- { image: \"shop/web:2\", program: /bin/true }\n- { image: \"shop/web:3\", program: /bin/true }\n";
    let side = Side::engine(EngineOptions::mock(2, 500).and_images(images)).await;
    let client = side.client().await;
    wait_for_default_account(&client).await;
    wait_for_nodes(&client, 2).await;
    let architecture = architecture(services, copies);
    let objects = landfall_render::kubernetes(&architecture).into_values();
    apply(&client, &objects).await;
    settled(&client, "shop/web:1").await;

    let requests = Arc::new(AtomicU64::new(0));
    let counting = side.counting_client(Arc::clone(&requests)).await;
    let wanted: BTreeMap<String, String> =
        architecture.document.services.keys().map(|name| (name.to_string(), "shop/web:2".to_owned())).collect();
    let began = Instant::now();
    let wanted = Wanted { architecture: &architecture, objects: &objects, images: &wanted, prometheus: None };
    let proposal = propose(&counting, wanted).await.expect("it can be planned");
    assert!(proposal.refusals.is_empty(), "{:?}", proposal.refusals);
    let lock = Lock::take(&counting, "shop", "shop", "bench").await.expect("nobody else ships");
    let author = Author::of(&counting, "shop", "shop", "bench").await.expect("the cluster says who we are");
    let release = create(&counting, &proposal, &author).await.expect("it can be written down");
    let telling = Telling { folder: std::env::temp_dir(), linger: std::time::Duration::ZERO };
    let ended = carry(&counting, "shop", &release.name_any(), &lock, telling, |_| ()).await.expect("it ends");
    let milliseconds = began.elapsed().as_secs_f64() * 1e3;
    assert_eq!(phase_of(&ended), Phase::Succeeded);
    #[expect(clippy::cast_precision_loss, reason = "there are not so many requests")]
    let requests = requests.load(Ordering::Relaxed) as f64;

    let by_patch = patch(&client).await;
    side.stop().await;
    Cost { milliseconds, requests, by_patch }
}

fn architecture(services: usize, copies: u32) -> Architecture {
    let mut text = String::from("landfall: v1\nname: shop\nservices:\n");
    for number in 0..services {
        text += &format!(
            "  web-{number}: {{ image: \"shop/web:1\", port: 8080, replicas: {copies}, resources: {{ cpu: 10m..20m, memory: 16Mi..32Mi }}, rollout: {{ rolling: {{ max-surge: 25 }} }} }}\n"
        );
    }
    let file = File::read("landfall.yaml", text.as_bytes(), &mut |_| Err("no includes".to_owned()));
    file.architecture(None).expect("it is an architecture")
}

async fn apply(client: &Client, objects: &[Value]) {
    let kinds =
        [("", "Namespace", false), ("", "ServiceAccount", true), ("", "Service", true), ("apps", "Deployment", true)];
    for (group, kind, in_namespace) in kinds {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api: Api<DynamicObject> = if in_namespace {
            Api::namespaced_with(client.clone(), "shop", &resource)
        } else {
            Api::all_with(client.clone(), &resource)
        };
        for object in objects.iter().filter(|object| object["kind"] == kind) {
            let name = object["metadata"]["name"].as_str().expect("it has a name");
            api.patch(name, &PatchParams::apply("bench"), &Patch::Apply(object)).await.expect("it is valid");
        }
    }
}

/// The same change without a shipper: one Deployment after another.
async fn patch(client: &Client) -> f64 {
    let deployments = Api::<Deployment>::namespaced(client.clone(), "shop");
    let names: Vec<String> = list(client).await.iter().map(kube::ResourceExt::name_any).collect();
    let began = Instant::now();
    for name in names {
        let patch =
            json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "shop/web:3" }]);
        let patch = serde_json::from_value(patch).expect("it is a patch");
        deployments
            .patch(&name, &PatchParams::default(), &Patch::<Deployment>::Json(patch))
            .await
            .expect("it is valid");
        until(async || is_settled(&deployments.get(&name).await.expect("it is there"), "shop/web:3")).await;
    }
    began.elapsed().as_secs_f64() * 1e3
}

async fn settled(client: &Client, image: &str) {
    until(async || list(client).await.iter().all(|deployment| is_settled(deployment, image))).await;
}

async fn list(client: &Client) -> Vec<Deployment> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), "shop");
    deployments.list(&ListParams::default()).await.expect("they can be listed").items
}

fn is_settled(deployment: &Deployment, image: &str) -> bool {
    let (Some(spec), Some(status)) = (&deployment.spec, &deployment.status) else { return false };
    let runs = spec.template.spec.as_ref().and_then(|spec| spec.containers[0].image.as_deref());
    let counts = [status.replicas, status.updated_replicas, status.available_replicas];
    runs == Some(image)
        && status.observed_generation >= deployment.metadata.generation
        && counts.iter().all(|count| *count == spec.replicas)
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "it takes too long");
        tokio::time::sleep(Duration::max(POLL, Duration::from_millis(50))).await;
    }
}
