//! Ends the containers of a pod: hook, signal, grace period, force.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use tokio::time::Instant;
use tracing::info;

use super::start::find;
use super::{Busy, Done, Ending, MIN_GRACE, Worker};
use crate::event::EventType;
use crate::kubelet::launch::{PATIENCE, run_hook, tell};
use crate::kubelet::plan::is_sidecar;
use crate::kubelet::probe::{Question, Target};
use crate::runtime::{Records, latest};

impl Worker {
    /// Ends a container that runs; `question`: the probe that it has failed.
    pub(super) fn stop(&mut self, pod: &Arc<Pod>, records: &Records, name: &str, question: Option<Question>) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        let Some(record) = latest(records, name).filter(|record| record.is_running()) else { return };
        let Some(spec) = pod.spec.as_ref() else { return };
        let Some((container, is_init)) = find(spec, name) else { return };
        let container = container.clone();
        let ending = self.ending;
        let slot = self.slots.entry(name.to_owned()).or_default();
        if slot.busy == Some(Busy::Stopping) {
            return;
        }
        slot.busy = Some(Busy::Stopping);
        slot.stop_probing();
        slot.known.ready = slot.known.ready && question.is_none();
        let grace = grace(spec, &container, question, ending);
        let text = match question {
            None => format!("Stopping container {name}"),
            Some(question) => {
                let probe = question.name().to_lowercase();
                format!("Container {name} failed {probe} probe, will be restarted")
            }
        };
        tell(&self.recorder, pod, name, is_init, EventType::Normal, "Killing", &text);
        let target = Target {
            sandbox: Arc::clone(&sandbox),
            id: record.id.clone(),
            pod_ip: self.ip.clone().unwrap_or_default(),
            container: container.clone(),
            dialer: self.shared.network.node_dialer(),
        };
        let lifecycle = container.lifecycle.as_ref();
        let signal = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.clone()).or_else(|| {
            let images = self.shared.images.load();
            images.find(container.image.as_deref().unwrap_or_default())?.stop_signal.clone()
        });
        let signal = signal.unwrap_or_else(|| "SIGTERM".to_owned());
        let hook = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.clone());
        let (recorder, pod, id, name) = (self.recorder.clone(), Arc::clone(pod), record.id.clone(), name.to_owned());
        let mut records = sandbox.records();
        self.jobs.spawn(async move {
            let begun = Instant::now();
            let has_ended = |records: &Records| !records.iter().any(|record| record.id == id && record.is_running());
            if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
                tokio::select! {
                    result = tokio::time::timeout(grace, run_hook(&hook, &target)) => if let Ok(Err(error)) = result {
                        info!(container = name, %error, "the preStop hook failed");
                        tell(&recorder, &pod, &name, is_init, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
                    },
                    _ = records.wait_for(has_ended) => {}
                }
            }
            let left = grace.saturating_sub(begun.elapsed()).max(MIN_GRACE);
            let mut stopped = sandbox.stop(&id, &signal, left).await.map_err(|error| error.to_string());
            // The worker plans by the records: it must not see this container as one that is still to be stopped.
            if stopped.is_ok() && tokio::time::timeout(PATIENCE, records.wait_for(has_ended)).await.is_err() {
                stopped = Err("the pod's shim does not say how the container ended".to_owned());
            }
            Done::Stopped(name, stopped)
        });
    }
}

/// How long a container may take to end.
fn grace(spec: &PodSpec, container: &Container, question: Option<Question>, ending: Option<Ending>) -> Duration {
    if let Some(ending) = ending {
        return (ending.since + ending.grace).saturating_duration_since(Instant::now());
    }
    let own = question.and_then(|question| question.of(container)?.termination_grace_period_seconds);
    let seconds = own.or(spec.termination_grace_period_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    // A sidecar that is no longer needed gets what the pod gets.
    Duration::from_secs(seconds.unwrap_or(30)).max(if is_sidecar(container) { MIN_GRACE } else { Duration::ZERO })
}
