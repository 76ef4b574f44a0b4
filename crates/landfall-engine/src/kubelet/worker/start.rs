//! Starts the containers of a pod, and delays the restarts of those that keep failing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::retry::{RETRY, go_duration};
use super::{Busy, Done, Slot, Worker};
use crate::event::EventType::{self, Normal, Warning};
use crate::kubelet::BackOff;
use crate::kubelet::launch::{self, Launch, tell};
use crate::kubelet::status::Known;
use crate::runtime::{Exit, Records, latest};

/// Records an event about the container: type, reason, text.
type Say<'a> = &'a dyn Fn(EventType, &str, &str);

impl Worker {
    /// Starts a container, unless it must wait.
    pub(super) fn start(&mut self, pod: &Arc<Pod>, spec: &PodSpec, records: &Records, name: &str) {
        let Some((container, is_init)) = find(spec, name) else { return };
        let Some(sandbox) = self.sandbox.clone() else { return };
        let (back_off, place) = (self.shared.back_off, self.place());
        let slot = self.slots.entry(name.to_owned()).or_default();
        if slot.busy.is_some() {
            return;
        }
        let record = latest(records, name);
        let say = |type_: EventType, reason: &str, text: &str| {
            tell(&self.recorder, pod, name, is_init, type_, reason, text);
        };
        let wait = match (slot.image_wait(container, &say), record.and_then(|record| record.exit())) {
            (Some(wait), _) => Some(wait),
            (None, Some(exit)) => slot.restart_wait(pod, name, exit, back_off, &say),
            // It could not be started for another reason.
            (None, None) => slot.restarts_at.filter(|at| *at > Instant::now()),
        };
        if let Some(at) = wait {
            self.wake(at);
            return;
        }
        slot.restarts_at = None;
        slot.busy = Some(Busy::Starting);
        let before = self.known_by_api.status.as_ref().and_then(|status| {
            let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
            all.find(|status| status.name == name && status.container_id.is_some())
                .map(|status| status.restart_count + 1)
        });
        let attempt = record.map(|record| record.attempt + 1).or(before.and_then(|count| u32::try_from(count).ok()));
        slot.id = uuid::Uuid::new_v4().simple().to_string();
        slot.stop_probing();
        slot.doomed = None;
        slot.known = Known {
            waiting: slot.known.waiting.take(),
            starting: true,
            image_id: launch::image_id(container.image.as_deref().unwrap_or_default()),
            ..Known::default()
        };
        let launch = Launch {
            shared: Arc::clone(&self.shared),
            recorder: self.recorder.clone(),
            pod: Arc::clone(pod),
            container: container.clone(),
            is_init,
            sandbox,
            volumes: self.volumes.clone().unwrap_or_default(),
            place,
            attempt: attempt.unwrap_or_default(),
            id: slot.id.clone(),
        };
        let name = name.to_owned();
        self.jobs.spawn(async move {
            let started = match launch.image() {
                Ok(entry) => launch.run(entry).await,
                Err(refusal) => Err(refusal),
            };
            Done::Started(name, started)
        });
    }
}

impl Slot {
    /// When to look again, if its image was not found a short time ago.
    fn image_wait(&mut self, container: &Container, say: Say<'_>) -> Option<Instant> {
        let now = Instant::now();
        let (wait, until) = self.image_back_off.filter(|(_, until)| *until > now)?;
        let failed = |slot: &Self| slot.known.waiting.as_ref().is_some_and(|(reason, _)| reason == "ErrImagePull");
        if failed(self) && until - now < wait.saturating_sub(RETRY) {
            let image = container.image.as_deref().unwrap_or_default();
            say(Normal, "BackOff", &format!("Back-off pulling image \"{image}\""));
            say(Warning, "Failed", "Error: ImagePullBackOff");
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", self.image_error);
            self.known.waiting = Some(("ImagePullBackOff".to_owned(), message));
        }
        // Told as an error for a moment first, as Kubernetes does.
        Some(if failed(self) { until.min(now + RETRY + RETRY) } else { until })
    }

    /// When to look again, if it has failed before and has not been down for long enough since. The wait is doubled when
    /// it is over.
    fn restart_wait(&mut self, pod: &Pod, name: &str, exit: &Exit, back_off: BackOff, say: Say<'_>) -> Option<Instant> {
        let now = Instant::now();
        let ran = Duration::try_from(exit.finished_at.duration_since(exit.started_at)).unwrap_or_default();
        if ran >= back_off.most * 2 {
            self.back_off = None;
        }
        let down = Duration::try_from(Timestamp::now().duration_since(exit.finished_at)).unwrap_or_default();
        let at = *self.restarts_at.get_or_insert(now + self.back_off.unwrap_or_default().saturating_sub(down));
        if let Some(wait) = self.back_off.filter(|_| at > now) {
            let (namespace, uid) = (pod.namespace().unwrap_or_default(), pod.uid().unwrap_or_default());
            let full = format!("{}_{namespace}({uid})", pod.name_any());
            let text = format!("back-off {} restarting failed container={name} pod={full}", go_duration(wait));
            let waiting = Some(("CrashLoopBackOff".to_owned(), text));
            // A container that ends at once was perhaps never seen running: its last wait may still be told.
            if self.known.waiting != waiting {
                say(Warning, "BackOff", &format!("Back-off restarting failed container {name} in pod {full}"));
                self.known.waiting = waiting;
            }
            return Some(at);
        }
        self.back_off = Some(self.back_off.map_or(back_off.first, |wait| (wait * 2).min(back_off.most)));
        None
    }
}

/// The container of this name, and whether it is an init container.
pub(super) fn find<'a>(spec: &'a PodSpec, name: &str) -> Option<(&'a Container, bool)> {
    let named = |container: &&Container| container.name == name;
    let ordinary = spec.containers.iter().find(named).map(|container| (container, false));
    ordinary.or_else(|| spec.init_containers.iter().flatten().find(named).map(|container| (container, true)))
}
