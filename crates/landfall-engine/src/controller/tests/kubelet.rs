//! A kubelet of the tests: pods bind to a node, run, become ready, and end when asked.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// The node of all pods that are not pinned to another.
pub(super) const NODE: &str = "node-a";

/// A pod with this annotation ends at once with this code.
pub(super) const EXIT: &str = "testing.landfall.dev/exit";

/// Makes the node, without which pods would be garbage after forty seconds.
pub(super) async fn register(client: &Client) {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    let ready = json!({ "apiVersion": "v1", "kind": "Node", "status": { "conditions": [
        { "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "" } ] } });
    let nodes = Api::<Node>::all(client.clone());
    let params = PatchParams::apply("kubelet").force();
    nodes.patch(NODE, &params, &Patch::Apply(node)).await.expect("the node is accepted");
    nodes.patch_status(NODE, &params, &Patch::Apply(ready)).await.expect("the node's status is accepted");
}

/// Says now and then that the node is alive.
pub(super) async fn beat(client: Client) {
    let leases = Api::<Lease>::namespaced(client, "kube-node-lease");
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": NODE },
            "spec": { "holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": MicroTime(Timestamp::now()) } });
        // A beat that is missed is made up for by the next.
        let _ = leases.patch(NODE, &PatchParams::apply("kubelet").force(), &Patch::Apply(lease)).await;
    }
}

/// Runs the pods of one namespace. A pod whose image is `broken` never becomes ready.
pub(super) async fn run(client: Client, namespace: String) {
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let events = watcher(pods.clone(), watcher::Config::default()).default_backoff().applied_objects();
    let result = events.try_for_each(|pod| step(&pods, pod)).await;
    result.expect("the watch of the fake kubelet is repeated when it fails");
}

async fn step(pods: &Api<Pod>, pod: Pod) -> Result<(), watcher::Error> {
    let name = pod.name_any();
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        // Somebody else may have been quicker, and another pod may have the name by now.
        let this = Preconditions { uid: pod.uid(), resource_version: None };
        let _ = pods.delete(&name, &DeleteParams::default().grace_period(0).preconditions(this)).await;
        return Ok(());
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    if node.is_none() {
        let node = pinned(&pod).unwrap_or_else(|| NODE.to_owned());
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": name },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let _: Result<Value, _> = pods.create_subresource("binding", &name, &PostParams::default(), &binding).await;
        return Ok(());
    }
    if phase != "Pending" && !phase.is_empty() {
        return Ok(());
    }
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
    let annotations: &BTreeMap<_, _> = pod.annotations();
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).cloned().unwrap_or_default();
    let broken = container.image.as_deref() == Some("broken");
    let exit = annotations.get(EXIT).and_then(|code| code.parse::<i32>().ok());
    let (phase, ready, state) = match exit {
        Some(code) => {
            let state = json!({ "terminated": { "exitCode": code, "startedAt": now, "finishedAt": now } });
            (if code == 0 { "Succeeded" } else { "Failed" }, "False", state)
        }
        None => ("Running", if broken { "False" } else { "True" }, json!({ "running": { "startedAt": now } })),
    };
    let status = json!({
        "phase": phase,
        "startTime": now,
        "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": now }],
        "containerStatuses": [{
            "name": container.name, "image": container.image, "imageID": "", "ready": ready == "True",
            "restartCount": 0, "state": state,
        }],
    });
    let patch = Patch::Merge(json!({ "status": status }));
    let _ = pods.patch_status(&name, &PatchParams::default(), &patch).await;
    Ok(())
}

/// The node to which a daemon set pins its pod.
fn pinned(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let field = required.node_selector_terms.iter().find_map(|term| term.match_fields.as_ref()?.first())?;
    field.values.as_ref()?.first().cloned()
}
