//! Horizontal pod autoscalers: replicas that follow what was measured.
//!
//! What a metric asks for is `replicas`, how fast it is followed is `behavior`, both pure; `metrics` reads.
//!
//! Not handled: scaling to zero by a condition (`HPAScaleToZero`), and the check that no two autoscalers select the same
//! pods (`AmbiguousSelector`).

mod behavior;
mod metrics;
mod replicas;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{ApiResource, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use self::behavior::{History, Range};
use self::replicas::{Target, Tolerance};
use super::{Action, ReconcileError, Reconciler, Triggers, pod};
use crate::cache::ObjectKey;
use crate::context::Context;
use crate::event::Recorder;
use crate::scheduler::quantity;

/// How often an autoscaler looks (`--horizontal-pod-autoscaler-sync-period`).
const PERIOD: Duration = Duration::from_secs(15);

/// The change that is too small to act on (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;

pub(crate) struct HorizontalPodAutoscalerController {
    context: Context,
    recorder: Recorder,
    period: Duration,
    histories: Mutex<HashMap<ObjectKey, History>>,
}

/// What one metric asks for.
struct Asked {
    replicas: i32,
    /// As events name the metric.
    name: String,
    status: Value,
}

/// Why a metric says nothing: the reason of the event and the condition, and what failed.
struct Unusable {
    reason: &'static str,
    /// What the condition and its event say.
    cause: String,
    /// The same as the summary of all metrics says it.
    summary: String,
}

impl HorizontalPodAutoscalerController {
    pub(crate) fn new(context: Context, recorder: &Recorder) -> Self {
        Self::with_period(context, recorder, PERIOD)
    }

    /// One that looks more or less often than usual.
    pub(crate) fn with_period(context: Context, recorder: &Recorder, period: Duration) -> Self {
        let recorder = recorder.component("horizontal-pod-autoscaler");
        Self { context, recorder, period, histories: Mutex::default() }
    }

    async fn autoscale(&self, autoscaler: &HorizontalPodAutoscaler) -> Result<(), ReconcileError> {
        let key = ObjectKey::of(autoscaler);
        let spec = &autoscaler.spec;
        let now = self.context.clock.now();
        let mut news = News::of(autoscaler, now.to_string());
        let target = match self.scale_of(&key.namespace, spec).await {
            Ok(target) => target,
            Err(error) => {
                self.recorder.warning(autoscaler, "FailedGetScale", error.clone());
                let text = format!("the HPA controller was unable to get the target's current scale: {error}");
                news.set("AbleToScale", "False", "FailedGetScale", &text);
                return self.write(autoscaler, news).await;
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        news.set("AbleToScale", "True", "SucceededGetScale", text);
        let current = target.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        news.status["currentReplicas"] = current.into();
        let range = Range { min: spec.min_replicas.unwrap_or(1), max: spec.max_replicas, current };
        self.history(&key, |history| history.begin(now, current));

        let (desired, reason) = if current == 0 && range.min != 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            news.set("ScalingActive", "False", "ScalingDisabled", text);
            (0, String::new())
        } else if current > range.max {
            (range.max, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < range.min {
            (range.min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            let Some((proposed, metric)) = self.measure(autoscaler, spec, &target, &mut news).await else {
                news.status["desiredReplicas"] = autoscaler.status.as_ref().map_or(0, |s| s.desired_replicas).into();
                return self.write(autoscaler, news).await;
            };
            let decision = self.history(&key, |history| history.decide(now, proposed, range, spec.behavior.as_ref()));
            news.set("AbleToScale", "True", decision.able.0, decision.able.1);
            let limited = if decision.limited { "True" } else { "False" };
            news.set("ScalingLimited", limited, decision.limit.0, decision.limit.1);
            let above = format!("{metric} above target");
            (decision.replicas, if proposed > current { above } else { "All metrics below target".to_owned() })
        };
        news.status["desiredReplicas"] = desired.into();
        if desired != current {
            match self.rescale(&key.namespace, &target, desired).await {
                Ok(()) => {
                    let text = format!("the HPA controller was able to update the target scale to {desired}");
                    news.set("AbleToScale", "True", "SucceededRescale", &text);
                    news.status["lastScaleTime"] = seconds(now).into();
                    let text = format!("New size: {desired}; reason: {reason}");
                    self.recorder.normal(autoscaler, "SuccessfulRescale", text);
                    self.history(&key, |history| history.changed(now, desired - current, spec.behavior.as_ref()));
                }
                Err(error) => {
                    let text = format!("New size: {desired}; reason: {reason}; error: {error}");
                    self.recorder.warning(autoscaler, "FailedRescale", text);
                    let text = format!("the HPA controller was unable to update the target scale: {error}");
                    news.set("AbleToScale", "False", "FailedUpdateScale", &text);
                    news.status["desiredReplicas"] = current.into();
                }
            }
        }
        self.write(autoscaler, news).await
    }

    fn history<T>(&self, key: &ObjectKey, f: impl FnOnce(&mut History) -> T) -> T {
        f(self.histories.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default())
    }

    /// The most that any metric asks for, and which one does. None when nothing may be concluded: it is said why.
    async fn measure(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        target: &ScaleTarget,
        news: &mut News,
    ) -> Option<(i32, String)> {
        let selector = target.scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        if selector.is_empty() {
            self.recorder.warning(autoscaler, "SelectorRequired", "selector is required");
            let text = "the HPA target's scale is missing a selector";
            news.set("ScalingActive", "False", "InvalidSelector", text);
            return None;
        }
        let namespace = autoscaler.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &namespace);
        let pods = match pods.list(&ListParams::default().labels(&selector)).await {
            Ok(list) => list.items,
            Err(error) => {
                tracing::debug!(%error, "cannot list the pods of an autoscaler");
                return None;
            }
        };
        let measured = Measured {
            controller: self,
            namespace: &namespace,
            selector: &selector,
            pods: &pods,
            scale: &target.scale,
            tolerance: tolerance(spec),
        };
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        let mut most: Option<(i32, String)> = None;
        let mut statuses = Vec::new();
        let mut failures = Vec::new();
        for metric in metrics {
            match measured.ask(metric).await {
                Ok(asked) => {
                    statuses.push(asked.status);
                    if most.as_ref().is_none_or(|(replicas, _)| asked.replicas > *replicas) {
                        most = Some((asked.replicas, asked.name));
                    }
                }
                Err(unusable) => {
                    self.recorder.warning(autoscaler, unusable.reason, unusable.cause.clone());
                    failures.push(unusable);
                    // A metric keeps its place when there is nothing to say of it.
                    statuses.push(json!({ "type": "" }));
                }
            }
        }
        news.status["currentMetrics"] = statuses.into();
        let current = target.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        // What is not known might ask for more: then nothing is taken away.
        if let Some(first) = failures.first()
            && most.as_ref().is_none_or(|(replicas, _)| *replicas < current)
        {
            let text = format!("the HPA was unable to compute the replica count: {}", first.cause);
            news.set("ScalingActive", "False", first.reason, &text);
            let text = format!(
                "invalid metrics ({} invalid out of {}), first error is: {}",
                failures.len(),
                metrics.len(),
                first.summary
            );
            self.recorder.warning(autoscaler, "FailedComputeMetricsReplicas", text);
            return None;
        }
        let (replicas, name) = most?;
        let text = format!("the HPA was able to successfully calculate a replica count from {name}");
        news.set("ScalingActive", "True", "ValidMetricFound", &text);
        Some((replicas, name))
    }

    async fn scale_of(&self, namespace: &str, spec: &HorizontalPodAutoscalerSpec) -> Result<ScaleTarget, String> {
        let reference = &spec.scale_target_ref;
        let version = reference.api_version.as_deref().unwrap_or("v1");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = GroupVersionKind::gvk(group, version, &reference.kind);
        let resource = match (group, reference.kind.as_str()) {
            ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") => ApiResource::from_gvk(&kind),
            _ => {
                let found = kube::discovery::pinned_kind(&self.context.client, &kind).await;
                found.map_err(|_| format!("no matches for kind \"{}\" in group \"{group}\"", reference.kind))?.0
            }
        };
        let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let path = format!("{base}/namespaces/{namespace}/{}/{}/scale", resource.plural, reference.name);
        let request = http::Request::get(&path).body(Vec::new()).map_err(|error| error.to_string())?;
        let scale = self.context.client.request(request).await.map_err(words)?;
        Ok(ScaleTarget { path, scale })
    }

    async fn rescale(&self, namespace: &str, target: &ScaleTarget, replicas: i32) -> Result<(), String> {
        let patch = json!({ "spec": { "replicas": replicas } }).to_string().into_bytes();
        let request = http::Request::patch(&target.path).header("content-type", "application/merge-patch+json");
        let request = request.body(patch).map_err(|error| error.to_string())?;
        let _: Value = self.context.client.request(request).await.map_err(words)?;
        tracing::info!(namespace, target = %target.path, replicas, "scaled");
        Ok(())
    }

    async fn write(&self, autoscaler: &HorizontalPodAutoscaler, news: News) -> Result<(), ReconcileError> {
        let mut status = news.status;
        status["conditions"] = news.conditions.into();
        status["observedGeneration"] = autoscaler.metadata.generation.into();
        let old = serde_json::to_value(&autoscaler.status).unwrap_or_default();
        let same = status.as_object().is_some_and(|new| new.iter().all(|(key, value)| old.get(key) == Some(value)));
        if same {
            return Ok(());
        }
        let api: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.context.client.clone(), autoscaler.namespace().as_deref().unwrap_or_default());
        let patch = Patch::Merge(json!({ "status": status }));
        let written = api.patch_status(&autoscaler.name_any(), &PatchParams::default(), &patch).await;
        let written = written.map_err(ReconcileError::request("write the status of an autoscaler"))?;
        if self.context.caches.horizontal_pod_autoscalers.reached(&written).await {
            Ok(())
        } else {
            Err(ReconcileError::Behind)
        }
    }
}

impl Reconciler for HorizontalPodAutoscalerController {
    type Key = ObjectKey;

    const NAME: &'static str = "horizontal-pod-autoscaler";

    fn watch(&self, triggers: &mut Triggers<Self::Key>) {
        let caches = &self.context.caches;
        triggers.on_each(&caches.horizontal_pod_autoscalers);
    }

    async fn reconcile(&self, key: &Self::Key) -> Result<Action, ReconcileError> {
        let Some(autoscaler) = self.context.caches.horizontal_pod_autoscalers.get(key) else {
            self.histories.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(Action::AwaitChange);
        };
        self.autoscale(&autoscaler).await?;
        Ok(Action::RequeueAfter(self.period))
    }
}

/// The scale subresource of what is scaled.
struct ScaleTarget {
    path: String,
    scale: Scale,
}

/// What one look at the metrics has to go by.
struct Measured<'a> {
    controller: &'a HorizontalPodAutoscalerController,
    namespace: &'a str,
    selector: &'a str,
    pods: &'a [Pod],
    scale: &'a Scale,
    tolerance: Tolerance,
}

impl Measured<'_> {
    async fn ask(&self, metric: &MetricSpec) -> Result<Asked, Unusable> {
        let unusable = |reason, subject: String, text: &'static str| {
            move |cause: String| Unusable { reason, summary: format!("failed to get {subject}{text}: {cause}"), cause }
        };
        if let Some(source) = &metric.resource {
            let asked = self.ask_resource(&source.name, None, &source.target).await;
            let value =
                asked.map_err(unusable("FailedGetResourceMetric", source.name.clone(), " resource metric value"));
            return value.map(|(replicas, name, current)| {
                let status = json!({ "type": "Resource", "resource": { "name": source.name, "current": current } });
                Asked { replicas, name, status }
            });
        }
        if let Some(source) = &metric.container_resource {
            let asked = self.ask_resource(&source.name, Some(&source.container), &source.target).await;
            let (reason, subject) = ("FailedGetContainerResourceMetric", source.container.clone());
            let value = asked.map_err(unusable(reason, subject, " container metric value"));
            return value.map(|(replicas, name, current)| Asked {
                replicas,
                name,
                status: json!({ "type": "ContainerResource", "containerResource": {
                    "name": source.name, "container": source.container, "current": current,
                } }),
            });
        }
        if let Some(source) = &metric.pods {
            let asked = self.ask_pods(&source.metric, &source.target).await;
            let value = asked.map_err(unusable("FailedGetPodsMetric", String::new(), "pods metric value"));
            return value.map(|(replicas, average)| Asked {
                replicas,
                name: format!("pods metric {}", source.metric.name),
                status: json!({ "type": "Pods", "pods": {
                    "metric": source.metric, "current": { "averageValue": milli(average) },
                } }),
            });
        }
        if let Some(source) = &metric.object {
            let object = &source.described_object;
            let (group, _) = object.api_version.as_deref().unwrap_or_default().split_once('/').unwrap_or_default();
            let plural = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", &object.kind)).plural;
            let resource = if group.is_empty() { plural } else { format!("{plural}.{group}") };
            let client = &self.controller.context.client;
            let metric = metrics::Metric::of(&source.metric);
            let value = metrics::object(client, self.namespace, &resource, &object.name, &metric).await;
            let value = value.map_err(|error| {
                let (metric, kind, name) = (&source.metric.name, &object.kind, &object.name);
                format!("unable to get metric {metric}: {kind} on {} {name}/{error}", self.namespace)
            });
            let asked = value.and_then(|value| self.ask_value(value, &source.target));
            let value = asked.map_err(unusable("FailedGetObjectMetric", String::new(), "object metric value"));
            return value.map(|(replicas, current)| Asked {
                replicas,
                name: format!("{} metric {}", object.kind, source.metric.name),
                status: json!({ "type": "Object", "object": {
                    "metric": source.metric, "describedObject": object, "current": current,
                } }),
            });
        }
        if let Some(source) = &metric.external {
            let name = &source.metric.name;
            let metric = metrics::Metric::of(&source.metric);
            let value = metrics::external(&self.controller.context.client, self.namespace, &metric).await;
            let asked = value.and_then(|value| self.ask_value(value, &source.target));
            let value = asked.map_err(unusable("FailedGetExternalMetric", name.clone(), " external metric value"));
            return value.map(|(replicas, current)| Asked {
                replicas,
                name: format!("external metric {name}"),
                status: json!({ "type": "External", "external": { "metric": source.metric, "current": current } }),
            });
        }
        let cause = format!("unknown metric source type \"{}\"", metric.type_);
        Err(Unusable { reason: "InvalidMetricSourceType", summary: cause.clone(), cause })
    }

    async fn ask_resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(i32, String, Value), String> {
        let kind = if target.average_value.is_some() { "usage" } else { "utilization" };
        let failed = |error: String| format!("failed to get {resource} {kind}: {error}");
        let client = &self.controller.context.client;
        let samples = metrics::resource(client, self.namespace, self.selector, resource, container).await;
        let samples = samples.map_err(|e| failed(format!("unable to get metrics for resource {resource}: {e}")))?;
        let propose = |target| {
            let now = jiff::Timestamp::now();
            replicas::propose(self.pods, samples, target, resource == "cpu", self.current(), self.tolerance, now)
        };
        if let Some(average) = target.average_value.as_ref().and_then(quantity::millis) {
            let proposal = propose(Target::Average(average)).map_err(failed)?;
            let current = json!({ "averageValue": amount(resource, proposal.average) });
            return Ok((proposal.replicas, format!("{resource} resource"), current));
        }
        let Some(percent) = target.average_utilization else {
            return Err("invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set"
                .to_owned());
        };
        let requests = replicas::requests(self.pods, resource, container).map_err(failed)?;
        let proposal = propose(Target::Utilization { percent: percent.into(), requests: &requests }).map_err(failed)?;
        let of = if container.is_some() { "container resource" } else { "resource" };
        let name = format!("{resource} {of} utilization (percentage of request)");
        let average = amount(resource, proposal.average);
        Ok((proposal.replicas, name, json!({ "averageUtilization": proposal.utilization, "averageValue": average })))
    }

    async fn ask_pods(&self, metric: &MetricIdentifier, target: &MetricTarget) -> Result<(i32, i64), String> {
        let client = &self.controller.context.client;
        let samples = metrics::pods(client, self.namespace, self.selector, &metrics::Metric::of(metric)).await;
        let samples = samples.map_err(|error| format!("unable to get metric {}: {error}", metric.name))?;
        let target = target.average_value.as_ref().and_then(quantity::millis).filter(|target| *target > 0);
        let target = Target::Average(target.ok_or_else(|| "invalid pods metric source: no average value".to_owned())?);
        let now = jiff::Timestamp::now();
        let proposal = replicas::propose(self.pods, samples, target, false, self.current(), self.tolerance, now)?;
        Ok((proposal.replicas, proposal.average))
    }

    /// For one value of the whole workload: the replicas, and the value as the status has it.
    fn ask_value(&self, value: i64, target: &MetricTarget) -> Result<(i32, Value), String> {
        if let Some(target) = target.value.as_ref().and_then(quantity::millis).filter(|target| *target > 0) {
            let ready = self.pods.iter().filter(|pod| is_ready(pod)).count();
            let replicas = replicas::propose_for_value(value, target, self.current(), ready, self.tolerance);
            return Ok((replicas, json!({ "value": milli(value) })));
        }
        let Some(target) = target.average_value.as_ref().and_then(quantity::millis).filter(|target| *target > 0) else {
            return Err("neither a value target nor an average value target was set".to_owned());
        };
        let current = self.scale.status.as_ref().map_or(0, |status| status.replicas);
        let (replicas, average) = replicas::propose_for_share(value, target, current, self.tolerance);
        Ok((replicas, json!({ "averageValue": milli(average) })))
    }

    fn current(&self) -> i32 {
        self.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default()
    }
}

/// The status that is to be written.
struct News {
    status: Value,
    conditions: Vec<Value>,
    now: String,
}

impl News {
    fn of(autoscaler: &HorizontalPodAutoscaler, now: String) -> Self {
        let conditions = autoscaler.status.as_ref().and_then(|status| status.conditions.as_ref());
        let conditions = conditions.into_iter().flatten();
        let conditions = conditions.filter_map(|condition| serde_json::to_value(condition).ok()).collect();
        let now = now.parse().map_or(now, seconds);
        Self { status: json!({}), conditions, now }
    }

    fn set(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let old = self.conditions.iter().position(|condition| condition["type"] == kind);
        let since = match old.map(|index| &self.conditions[index]) {
            Some(condition) if condition["status"] == value => condition["lastTransitionTime"].clone(),
            _ => self.now.clone().into(),
        };
        let condition = json!({
            "type": kind, "status": value, "lastTransitionTime": since, "reason": reason, "message": message,
        });
        match old {
            Some(index) => self.conditions[index] = condition,
            None => self.conditions.push(condition),
        }
    }
}

fn tolerance(spec: &HorizontalPodAutoscalerSpec) -> Tolerance {
    let behavior = spec.behavior.as_ref();
    let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
        let millis = rules.and_then(|rules| rules.tolerance.as_ref()).and_then(quantity::millis);
        millis.and_then(|millis| i32::try_from(millis).ok()).map_or(TOLERANCE, |millis| f64::from(millis) / 1000.0)
    };
    Tolerance {
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
    }
}

fn is_ready(pod: &Pod) -> bool {
    pod::phase(pod) == "Running" && pod::is_ready(pod)
}

/// An amount in thousandths, as Kubernetes writes it.
fn milli(value: i64) -> Quantity {
    Quantity(if value % 1000 == 0 { (value / 1000).to_string() } else { format!("{value}m") })
}

/// The same of a resource; memory has no fractions.
fn amount(resource: &str, value: i64) -> Quantity {
    if resource == "memory" { Quantity((value / 1000).to_string()) } else { milli(value) }
}

fn words(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn seconds(time: jiff::Timestamp) -> String {
    time.round(jiff::Unit::Second).unwrap_or(time).to_string()
}
