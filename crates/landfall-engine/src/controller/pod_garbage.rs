//! Pods that nobody else ends: of nodes that are gone, of nodes declared out of service, deleted before they had a node,
//! and too many that have finished.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::cache::ObjectKey;
use crate::context::Context;
use crate::scheduler::{is_finished, matching};

/// How often pods are looked through (Kubernetes: `gcCheckPeriod`).
const PERIOD: Duration = Duration::from_secs(20);

/// How long a node must have been gone: it may only be on its way (Kubernetes: `quarantineTime`).
const QUARANTINE: Duration = Duration::from_secs(40);

/// How many finished pods may stay (`--terminated-pod-gc-threshold`).
const FINISHED: usize = 12_500;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

pub(crate) struct PodGarbageController {
    context: Context,
    /// Since when nodes that pods name have not been there.
    gone_since: Mutex<HashMap<String, Instant>>,
}

/// Why a pod is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Finished,
    NodeGone,
    OutOfService,
    NeverPlaced,
}

impl PodGarbageController {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, gone_since: Mutex::default() }
    }

    /// The nodes that have been gone for long enough.
    fn long_gone(&self, pods: &[Arc<Pod>], nodes: &[Arc<Node>], now: Instant) -> HashSet<String> {
        let present: HashSet<&str> = nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        let named: HashSet<&str> = pods.iter().filter_map(|pod| node_of(pod)).collect();
        let mut since = self.gone_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|node, _| named.contains(node.as_str()) && !present.contains(node.as_str()));
        for node in named.difference(&present) {
            since.entry((*node).to_owned()).or_insert(now);
        }
        let gone = since.iter().filter(|(_, since)| now.duration_since(**since) >= QUARANTINE);
        gone.map(|(node, _)| node.clone()).collect()
    }

    /// Of these nodes, the ones that the API server does not know either: the cache may be behind.
    async fn not_there(&self, nodes: HashSet<String>) -> Result<HashSet<String>, ReconcileError> {
        let api: Api<Node> = Api::all(self.context.client.clone());
        let mut missing = HashSet::new();
        for node in nodes {
            let found = api.get_metadata_opt(&node).await;
            if found.map_err(ReconcileError::request("look for the node of a pod"))?.is_none() {
                missing.insert(node);
            }
        }
        Ok(missing)
    }

    async fn end(&self, pod: &Pod, cause: Cause) -> Result<(), ReconcileError> {
        let pods: Api<Pod> =
            Api::namespaced(self.context.client.clone(), pod.namespace().as_deref().unwrap_or_default());
        // Nobody will report the end of what ran there, so this does.
        if !is_finished(pod) && cause != Cause::NeverPlaced {
            let mut status = json!({ "phase": "Failed" });
            if cause == Cause::NodeGone {
                let now = self.context.clock.now();
                status["conditions"] = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists",
                    "lastTransitionTime": now.round(jiff::Unit::Second).unwrap_or(now),
                    "observedGeneration": pod.metadata.generation,
                }]);
            }
            let patch = Patch::Strategic(json!({ "status": status }));
            let answer = pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
            if !answer.as_ref().is_err_and(is_gone) {
                answer.map_err(ReconcileError::request("mark a lost pod as failed"))?;
            }
        }
        let same = kube::api::Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let at_once =
            DeleteParams { grace_period_seconds: Some(0), preconditions: Some(same), ..DeleteParams::default() };
        match pods.delete(&pod.name_any(), &at_once).await {
            Err(error) if !is_gone(&error) => Err(ReconcileError::request("delete a lost pod")(error)),
            _ => {
                tracing::info!(pod = %ObjectKey::of(pod), ?cause, "ended");
                Ok(())
            }
        }
    }
}

impl Reconciler for PodGarbageController {
    /// One for all pods.
    type Key = &'static str;

    const NAME: &'static str = "pod-garbage";

    fn watch(&self, triggers: &mut Triggers<Self::Key>) {
        triggers.every(PERIOD, "all");
    }

    async fn reconcile(&self, _: &Self::Key) -> Result<Action, ReconcileError> {
        let (pods, nodes) = (self.context.caches.pods.list(), self.context.caches.nodes.list());
        let gone = self.not_there(self.long_gone(&pods, &nodes, Instant::now())).await?;
        let mut result = Ok(());
        for (pod, cause) in plan(&pods, &nodes, &gone, FINISHED) {
            result = result.and(self.end(&pod, cause).await);
        }
        result.map(|()| Action::AwaitChange)
    }
}

/// Which pods to end. `gone` are nodes that are gone for good; `keep` says how many finished pods stay.
fn plan(pods: &[Arc<Pod>], nodes: &[Arc<Node>], gone: &HashSet<String>, keep: usize) -> Vec<(Arc<Pod>, Cause)> {
    let out_of_service: HashSet<&str> = nodes
        .iter()
        .filter(|node| !is_ready(node) && matching::taints(node).iter().any(|taint| taint.key == OUT_OF_SERVICE))
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    let cause = |pod: &Pod| {
        let terminating = pod.metadata.deletion_timestamp.is_some();
        match node_of(pod) {
            Some(node) if gone.contains(node) => Some(Cause::NodeGone),
            Some(node) if terminating && out_of_service.contains(node) => Some(Cause::OutOfService),
            None if terminating && !is_finished(pod) => Some(Cause::NeverPlaced),
            _ => None,
        }
    };
    let mut ends: Vec<_> = pods.iter().filter_map(|pod| Some((Arc::clone(pod), cause(pod)?))).collect();
    let mut finished: Vec<_> = pods.iter().filter(|pod| is_finished(pod) && cause(pod).is_none()).cloned().collect();
    let surplus = finished.len().saturating_sub(keep);
    finished.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    ends.extend(finished.into_iter().take(surplus).map(|pod| (pod, Cause::Finished)));
    ends
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, terminating: bool) -> Arc<Pod> {
        let deleted = if terminating { "1970-01-01T00:00:00Z".into() } else { Value::Null };
        let pod = json!({
            "metadata": { "name": name, "deletionTimestamp": deleted },
            "spec": { "nodeName": node, "containers": [] }, "status": { "phase": phase },
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn node(name: &str, taints: &Value) -> Arc<Node> {
        let node = json!({ "metadata": { "name": name }, "spec": { "taints": taints } });
        Arc::new(serde_json::from_value(node).expect("a node"))
    }

    #[test]
    fn only_pods_that_nobody_else_can_end_are_ended() {
        let out_of_service = json!([{ "key": OUT_OF_SERVICE, "effect": "NoExecute", "value": "nodeshutdown" }]);
        let nodes = [node("here", &json!([])), node("out", &out_of_service)];
        let pods = [
            pod("runs", Some("here"), "Running", false),
            pod("stops", Some("here"), "Running", true),
            pod("lost", Some("gone"), "Running", false),
            pod("young", Some("unknown"), "Running", false),
            pod("stuck", Some("out"), "Running", true),
            pod("waits", None, "Pending", false),
            pod("cancelled", None, "Pending", true),
            pod("done", Some("here"), "Succeeded", false),
        ];
        let gone = HashSet::from(["gone".to_owned()]);
        let ended = |keep| -> Vec<_> {
            plan(&pods, &nodes, &gone, keep).into_iter().map(|(pod, cause)| (pod.name_any(), cause)).collect()
        };
        let expected = [
            ("lost".to_owned(), Cause::NodeGone),
            ("stuck".to_owned(), Cause::OutOfService),
            ("cancelled".to_owned(), Cause::NeverPlaced),
        ];
        assert_eq!(ended(1), expected);
        assert_eq!(ended(0)[3], ("done".to_owned(), Cause::Finished));
    }
}
