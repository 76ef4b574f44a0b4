//! Disruption budgets: how many pods of each may go at the moment.
//!
//! This writes the status; the eviction subresource of the API reads and uses it up.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::fraction::{Round, of_total};
use super::pod::is_ready;
use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::cache::{ObjectKey, controller_of};
use crate::context::Context;
use crate::event::Recorder;
use crate::scheduler::matching::LabelMatcher;

/// How long a pod that was evicted may take to be deleted before it counts again (Kubernetes: `DeletionTimeout`).
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// In Kubernetes' words.
const UNMANAGED: &str = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of \
                         the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
                         these pods please set \".spec.minAvailable\" field of the PDB to an integer value.";

pub(crate) struct DisruptionController {
    context: Context,
    recorder: Recorder,
}

impl DisruptionController {
    pub(crate) fn new(context: Context, recorder: &Recorder) -> Self {
        Self { context, recorder: recorder.component("controllermanager") }
    }

    /// How many pods the workload that a pod belongs to wants; None for kinds without a scale.
    fn scale_of(&self, pod: &Pod) -> Option<(String, i32)> {
        let owner = controller_of(pod)?;
        let caches = &self.context.caches;
        let key = ObjectKey::new(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name);
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = caches.replica_sets.get(&key).filter(|set| set.metadata.uid.as_ref() == Some(&owner.uid))?;
                let deployment = controller_of(&*set).filter(|owner| owner.kind == "Deployment").and_then(|owner| {
                    let deployment = caches.deployments.get(&ObjectKey::new(&key.namespace, &owner.name))?;
                    Some((owner.uid.clone(), deployment.spec.as_ref()?.replicas.unwrap_or(1)))
                });
                deployment.or_else(|| Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1))))
            }
            "StatefulSet" => {
                let set = caches.stateful_sets.get(&key).filter(|set| set.metadata.uid.as_ref() == Some(&owner.uid))?;
                Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }

    /// The pods that the workloads of `pods` want together. `Err` names a pod whose workload cannot be asked.
    ///
    /// Not handled: custom resources with a scale subresource, and `ReplicationController`.
    fn expected(&self, pods: &[std::sync::Arc<Pod>]) -> Result<Expected, String> {
        let mut scales = BTreeMap::new();
        let mut unmanaged = false;
        for pod in pods {
            if controller_of(&**pod).is_none() {
                unmanaged = true;
                continue;
            }
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let (uid, scale) = self.scale_of(pod).ok_or_else(|| format!("found no controllers for pod \"{name}\""))?;
            scales.insert(uid, scale);
        }
        Ok(Expected { pods: scales.values().sum(), unmanaged })
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: &PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        let key = ObjectKey::of(budget);
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.context.client.clone(), &key.namespace);
        // An eviction may be using the budget up at this moment: then this is out of date, and the next look is right.
        let mut disrupted = serde_json::to_value(&status.disrupted_pods).expect("a status is plain data");
        for gone in budget.status.iter().filter_map(|status| status.disrupted_pods.as_ref()).flatten() {
            if status.disrupted_pods.as_ref().is_none_or(|pods| !pods.contains_key(gone.0)) {
                disrupted[gone.0] = serde_json::Value::Null;
            }
        }
        let mut status = serde_json::to_value(status).expect("a status is plain data");
        status["disruptedPods"] = disrupted;
        let patch = json!({ "metadata": { "resourceVersion": budget.metadata.resource_version }, "status": status });
        let params = PatchParams::default();
        let written = api.patch_status(&key.name, &params, &Patch::Merge(patch)).await;
        let written = written.map_err(ReconcileError::request("write the status of a disruption budget"))?;
        if self.context.caches.pod_disruption_budgets.reached(&written).await {
            Ok(())
        } else {
            Err(ReconcileError::Behind)
        }
    }
}

struct Expected {
    pods: i32,
    unmanaged: bool,
}

impl Reconciler for DisruptionController {
    type Key = ObjectKey;

    const NAME: &'static str = "disruption";

    fn watch(&self, triggers: &mut Triggers<Self::Key>) {
        let caches = &self.context.caches;
        triggers.on_each(&caches.pod_disruption_budgets);
        let budgets = caches.pod_disruption_budgets.clone();
        triggers.on(&caches.pods, move |pod| {
            let of_namespace = budgets.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
            of_namespace.iter().filter(|budget| selects(budget, pod)).map(|budget| ObjectKey::of(&**budget)).collect()
        });
        // A change of scale shows in the budgets of the namespace even before pods come or go.
        let budgets = caches.pod_disruption_budgets.clone();
        let of = move |namespace: Option<&str>| -> Vec<ObjectKey> {
            let budgets = budgets.in_namespace(namespace.unwrap_or_default());
            budgets.iter().map(|budget| ObjectKey::of(&**budget)).collect()
        };
        let (first, second) = (of.clone(), of.clone());
        triggers.on(&caches.deployments, move |object| first(object.metadata.namespace.as_deref()));
        triggers.on(&caches.replica_sets, move |object| second(object.metadata.namespace.as_deref()));
        triggers.on(&caches.stateful_sets, move |object| of(object.metadata.namespace.as_deref()));
    }

    async fn reconcile(&self, key: &Self::Key) -> Result<Action, ReconcileError> {
        let Some(budget) = self.context.caches.pod_disruption_budgets.get(key) else { return Ok(Action::AwaitChange) };
        let mut pods = self.context.caches.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selects(&budget, pod));
        let expected = if asks_for_scale(&budget) {
            match self.expected(&pods) {
                Ok(expected) => expected,
                Err(message) => {
                    let status = failed(&budget, &message, self.context.clock.now());
                    if budget.status.as_ref() != Some(&status) {
                        let text = format!("Failed to calculate the number of expected pods: {message}");
                        self.recorder.warning(&*budget, "CalculateExpectedPodCountFailed", text);
                        self.write(&budget, &status).await?;
                    }
                    // Only a change of the pods or their workloads can help.
                    return Ok(Action::AwaitChange);
                }
            }
        } else {
            Expected { pods: i32::try_from(pods.len()).unwrap_or(i32::MAX), unmanaged: false }
        };
        let now = self.context.clock.now();
        let status = status(&budget, &pods, expected.pods, now);
        let first = status.disrupted_pods.iter().flatten().map(|(_, time)| time.0).min();
        if budget.status.as_ref() != Some(&status) {
            // Told with each change of the numbers, not with each look at them.
            if pods.is_empty() {
                self.recorder.normal(&*budget, "NoPods", "No matching pods found");
            }
            if expected.unmanaged {
                self.recorder.warning(&*budget, "UnmanagedPods", UNMANAGED);
            }
            self.write(&budget, &status).await?;
        }
        Ok(match first {
            Some(time) => Action::RequeueAfter(
                self.context.clock.until(time + DELETION_TIMEOUT).saturating_add(Duration::from_millis(1)),
            ),
            None => Action::AwaitChange,
        })
    }
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    LabelMatcher::read(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref())).matches(&labels)
}

/// Whether the budget is a share of what the workloads want, rather than a number of pods.
fn asks_for_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

fn desired_healthy(budget: &PodDisruptionBudget, expected: i32) -> i32 {
    let Some(spec) = &budget.spec else { return 0 };
    let share = |part| of_total(part, expected, Round::Up).unwrap_or_default();
    match (&spec.max_unavailable, &spec.min_available) {
        (unavailable @ Some(_), _) => (expected - share(unavailable.as_ref())).max(0),
        (None, available) => share(available.as_ref()),
    }
}

/// What the status of a budget should be.
fn status(
    budget: &PodDisruptionBudget,
    pods: &[impl std::ops::Deref<Target = Pod>],
    expected: i32,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let evicted = old.disrupted_pods.unwrap_or_default();
    let present = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let mut disrupted = BTreeMap::new();
    let mut healthy = 0;
    for pod in present {
        let name = pod.metadata.name.clone().unwrap_or_default();
        match evicted.get(&name).filter(|time| time.0 + DELETION_TIMEOUT >= now) {
            Some(time) => {
                disrupted.insert(name, time.clone());
            }
            None => healthy += i32::from(is_ready(pod)),
        }
    }
    let desired = desired_healthy(budget, expected);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(budget, value, reason, "", now)]),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    }
}

/// Nothing may be disrupted while it is not known what would be left.
fn failed(budget: &PodDisruptionBudget, message: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        conditions: Some(vec![condition(budget, "False", "SyncFailed", message, now)]),
        ..old
    }
}

fn condition(budget: &PodDisruptionBudget, value: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    let conditions = budget.status.as_ref().and_then(|status| status.conditions.as_ref());
    let old = conditions.into_iter().flatten().find(|condition| condition.type_ == "DisruptionAllowed");
    let since =
        old.filter(|condition| condition.status == value).map(|condition| condition.last_transition_time.clone());
    let now = now.round(jiff::Unit::Second).unwrap_or(now);
    Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: budget.metadata.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool) -> Box<Pod> {
        let condition = json!({ "type": "Ready", "status": if ready { "True" } else { "False" } });
        let pod = json!({ "metadata": { "name": name }, "status": { "conditions": [condition] } });
        Box::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn check(spec: &serde_json::Value, ready: usize, pods: usize, expected: i32, desired: i32, allowed: i32) {
        let budget = json!({ "metadata": { "name": "b", "generation": 3 }, "spec": spec });
        let budget = serde_json::from_value(budget).expect("a budget");
        let pods: Vec<_> = (0..pods).map(|number| pod(&format!("p{number}"), number < ready)).collect();
        let found = status(&budget, &pods, expected, Timestamp::UNIX_EPOCH);
        assert_eq!((found.desired_healthy, found.disruptions_allowed), (Some(desired), Some(allowed)));
    }

    #[test]
    fn percentages_round_up() {
        check(&json!({ "minAvailable": "50%" }), 3, 3, 3, 2, 1);
        check(&json!({ "maxUnavailable": "50%" }), 3, 3, 3, 1, 2);
    }

    #[test]
    fn what_is_not_ready_uses_the_budget_up() {
        check(&json!({ "maxUnavailable": 1 }), 2, 3, 3, 2, 0);
        check(&json!({ "minAvailable": 1 }), 3, 3, 3, 1, 2);
        check(&json!({ "maxUnavailable": 1 }), 0, 0, 0, 0, 0);
    }

    #[test]
    fn an_evicted_pod_counts_again_when_it_was_not_deleted_in_time() {
        let budget = json!({
            "metadata": { "name": "b" }, "spec": { "minAvailable": 1 },
            "status": { "disruptedPods": { "p0": "1970-01-01T00:00:00Z" } },
        });
        let budget = serde_json::from_value(budget).expect("a budget");
        let pods = [pod("p0", true), pod("p1", true)];
        let at = |seconds| {
            let now = Timestamp::from_second(seconds).expect("a time");
            let found = status(&budget, &pods, 2, now);
            (found.current_healthy, found.disrupted_pods.is_some())
        };
        assert_eq!(at(60), (Some(1), true));
        assert_eq!(at(121), (Some(2), false));
    }
}
