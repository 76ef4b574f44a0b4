//! The same product on a real Kubernetes: every rendered object of the five examples is applied, and the workloads run.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use landfall_model::File;
use landfall_testing::{Applier, Apply, ControlPlane, FakeKubelet, FakeNode, Pieces, Schemas, require_or_skip};

use crate::example;
use crate::examples::read;

/// How long the workloads of one environment may take. None waits for a program; controllers back off, however.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often they are looked at.
const POLL: Duration = Duration::from_millis(100);

/// Renders every environment, applies it, first without effect and then for real, and waits for its workloads.
fn check(name: &str) {
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let Some(plane) = ControlPlane::start_or_skip(Pieces::default()).await else { return };
        let client = plane.client().await;
        let file = read(&example(name));
        let _kubelet = FakeKubelet::start(client.clone(), nodes(&file)).await.expect("the nodes register");
        for environment in file.environments() {
            apply(&client, &schemas, &file, &environment).await;
            workloads_become_ready(&client, &environment).await;
        }
    });
}

/// Two large nodes in each zone: whether everything fits on the nodes of the file is proved by `check`.
fn nodes(file: &File) -> Vec<FakeNode> {
    let architecture = file.architecture(None).expect("the example is an architecture");
    let regions = architecture.document.platform.regions.values();
    let mut zones: Vec<_> =
        regions.flat_map(|region| region.zones.iter()).map(std::string::ToString::to_string).collect();
    if zones.is_empty() {
        zones.push("only".to_owned());
    }
    let node = |zone: &str, number| FakeNode::new(&format!("{zone}-{number}"), zone).with_capacity("64", "256Gi");
    zones.iter().flat_map(|zone| [node(zone, 1), node(zone, 2)]).collect()
}

/// Applies what is rendered for an environment, and waits until its workloads are ready.
pub(crate) async fn set_up(client: &Client, schemas: &Schemas, file: &File, environment: &str) {
    let architecture = file.architecture(Some(environment)).expect("it is an architecture");
    let objects = landfall_render::kubernetes(&architecture).into_values();
    let applier = Applier::prepare(client.clone(), schemas, &objects).await.unwrap_or_else(|error| panic!("{error:?}"));
    let (namespaces, others): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object["kind"] == "Namespace");
    for object in namespaces.into_iter().chain(others) {
        applier.apply(object, Apply::ForReal).await.unwrap_or_else(|error| panic!("{error:?}"));
    }
    workloads_become_ready(client, environment).await;
}

async fn apply(client: &Client, schemas: &Schemas, file: &File, environment: &str) {
    let architecture = file.architecture(Some(environment)).expect("the example is an architecture");
    let objects = landfall_render::kubernetes(&architecture).into_values();
    let applier = Applier::prepare(client.clone(), schemas, &objects).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(applier.loose().is_empty(), "schemas that Kubernetes refuses:\n{}", applier.loose().join("\n"));

    // Nothing can be tried in a namespace that is not there.
    let (namespaces, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object["kind"] == "Namespace");
    let mut problems = Vec::new();
    for (objects, mode) in [
        (&namespaces, Apply::DryRun),
        (&namespaces, Apply::ForReal),
        (&others, Apply::DryRun),
        (&others, Apply::ForReal),
    ] {
        for object in objects {
            match applier.apply(object, mode).await {
                Ok(applied) => {
                    let subject = format!("{} {}", object["kind"], object["metadata"]["name"]);
                    problems.extend(applied.warnings.iter().map(|warning| format!("{subject}: warning: {warning}")));
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
    }
    problems.sort();
    problems.dedup();
    assert!(problems.is_empty(), "{environment}: Kubernetes objects to\n{}", problems.join("\n"));
}

pub(crate) async fn workloads_become_ready(client: &Client, environment: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let waiting = not_ready(client).await;
        if waiting.is_empty() {
            return;
        }
        if tokio::time::Instant::now() >= deadline {
            let reasons = reasons(client).await;
            panic!("{environment}: not ready:\n{}\nbecause:\n{}", waiting.join("\n"), reasons.join("\n"));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn not_ready(client: &Client) -> Vec<String> {
    let everything = ListParams::default();
    let deployments = Api::<Deployment>::all(client.clone()).list(&everything).await.expect("they can be listed");
    let sets = Api::<StatefulSet>::all(client.clone()).list(&everything).await.expect("they can be listed");
    let deployments = deployments.iter().filter(|deployment| {
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        ready < deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    });
    let sets = sets.iter().filter(|set| {
        let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        ready < set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    });
    deployments
        .map(|deployment| format!("Deployment {}", deployment.name_any()))
        .chain(sets.map(|set| format!("StatefulSet {}", set.name_any())))
        .collect()
}

/// What Kubernetes says of pods that are not made or not scheduled.
async fn reasons(client: &Client) -> Vec<String> {
    let events = Api::<Event>::all(client.clone()).list(&ListParams::default()).await.expect("they can be listed");
    let warnings = events.iter().filter(|event| event.type_.as_deref() == Some("Warning"));
    let mut reasons: Vec<_> = warnings
        .map(|event| {
            let object = &event.involved_object;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {}: {}: {}", text(&object.kind), text(&object.name), text(&event.reason), text(&event.message))
        })
        .collect();
    reasons.sort();
    reasons.dedup();
    reasons
}

#[test]
fn a_real_kubernetes_runs_water_channels() {
    check("water-channels");
}

#[test]
fn a_real_kubernetes_runs_balance_alerts() {
    check("balance-alerts");
}

#[test]
fn a_real_kubernetes_runs_attendance_monitoring() {
    check("attendance-monitoring");
}

#[test]
fn a_real_kubernetes_runs_composerp() {
    check("composerp");
}

#[test]
fn a_real_kubernetes_runs_mindcompute() {
    check("mindcompute");
}
