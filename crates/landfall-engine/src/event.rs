//! Events, recorded as Kubernetes records them: a component says what it did to an object, and events that repeat are
//! counted, similar ones combined, floods held back (`correlator`).
//!
//! Recording never fails and never waits: events go through a queue, and one writer sends them. What does not fit into
//! the queue is dropped, as in Kubernetes, and counted ([`Lost`]). How long an event lives is the API's business.

mod correlator;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use correlator::{Correlator, Observed};

use crate::clock::Clock;

/// How many events may wait to be written: four times as many as in client-go, as there is one queue for all nodes.
const QUEUE: usize = 4096;

/// How many events are written at the same time.
const CONCURRENCY: usize = 8;

/// How many events wait behind one that is being written.
const LANE: usize = 16;

/// The manager of the fields of an event, as the controllers of Kubernetes name themselves.
const FIELD_MANAGER: &str = "kube-controller-manager";

/// What kind of news an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// How many events were lost, as more were recorded than could be written. All queues of an engine share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lost(Arc<LostEvents>);

#[derive(Debug, Default)]
struct LostEvents {
    total: AtomicU64,
    untold: AtomicU64,
}

impl Lost {
    fn add(&self) {
        self.0.total.fetch_add(1, Ordering::Relaxed);
        self.0.untold.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Says it in the log, once for each flood.
    fn tell(&self) {
        let untold = self.0.untold.swap(0, Ordering::Relaxed);
        if untold > 0 {
            warn!(lost = untold, total = self.total(), "events are lost, as more were recorded than could be written");
        }
    }
}

/// Records the events of one component. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Event>,
    /// What events are dated by.
    clock: Clock,
    component: String,
    host: Option<String>,
    action: Option<&'static str>,
    /// While it is set, what is recorded reaches nobody.
    muted: Option<Arc<AtomicBool>>,
    lost: Lost,
}

/// Writes what the recorders of one queue record.
pub(crate) struct EventWriter {
    client: Client,
    queue: mpsc::Receiver<Event>,
    lost: Lost,
}

/// A queue of events: its recorder and its writer, which the caller runs in a task of its own.
pub(crate) fn queue(client: Client, clock: Clock, lost: &Lost, component: &str) -> (Recorder, EventWriter) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let component = component.to_owned();
    let recorder =
        Recorder { queue: sender, clock, component, host: None, action: None, muted: None, lost: lost.clone() };
    (recorder, EventWriter { client, queue: receiver, lost: lost.clone() })
}

impl Recorder {
    /// The same queue for another component.
    pub(crate) fn component(&self, component: &str) -> Self {
        Self { component: component.to_owned(), ..self.clone() }
    }

    /// The same component on this node: what kubelets say.
    pub(crate) fn host(&self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self.clone() }
    }

    /// The same recorder, for what comes of this action.
    pub(crate) fn action(&self, action: &'static str) -> Self {
        Self { action: Some(action), ..self.clone() }
    }

    /// The same recorder, of which nothing is heard while `muted` is set: that of a node that is cut off.
    pub(crate) fn muted_by(&self, muted: Arc<AtomicBool>) -> Self {
        Self { muted: Some(muted), ..self.clone() }
    }

    pub(crate) fn normal<K>(&self, object: &K, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(reference_to(object), EventType::Normal, reason, message.into());
    }

    pub(crate) fn warning<K>(&self, object: &K, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(reference_to(object), EventType::Warning, reason, message.into());
    }

    /// An event about a part of an object, say: `fieldPath` names it.
    pub(crate) fn record(&self, about: ObjectReference, type_: EventType, reason: &str, message: String) {
        if self.muted.as_ref().is_some_and(|muted| muted.load(Ordering::Acquire)) {
            return;
        }
        // A clock that stands still, or was set back, shows the same time again: no two events may have one name.
        let name = name_of(&about, Timestamp::now());
        let now = self.clock.now();
        let mut event = event(&self.component, self.host.as_deref(), about, type_, reason, message, now);
        event.metadata.name = Some(name);
        event.action = self.action.map(str::to_owned);
        // When it is closed, nobody is there to be told any more.
        if let Err(TrySendError::Full(_)) = self.queue.try_send(event) {
            self.lost.add();
        }
    }
}

impl EventWriter {
    /// Writes events until every recorder is gone and all they recorded is written.
    pub(crate) async fn run(self) {
        self.run_until(CancellationToken::new()).await;
    }

    /// The same, and when cancelled, only what was recorded by then: for those who cannot wait for every recorder.
    pub(crate) async fn run_until(self, cancel: CancellationToken) {
        let Self { client, queue, lost } = self;
        let mut correlator = Correlator::default();
        let recorded = futures::stream::unfold((queue, cancel, lost), |(mut queue, cancel, lost)| async move {
            if queue.is_empty() {
                lost.tell();
            }
            // Either arm may be dropped half-way: receiving from a channel loses nothing.
            let event = tokio::select! {
                event = queue.recv() => event,
                () = cancel.cancelled() => {
                    queue.close();
                    queue.recv().await
                }
            };
            Some((event?, (queue, cancel, lost)))
        });
        let observed = recorded.filter_map(|event| {
            // How often is often does not depend on what the clock is set to.
            let observed = correlator.observe(event, Timestamp::now());
            async move { observed }
        });
        // Those of one name are written one after the other: a count that arrives before the event does, or after a higher
        // one, would be lost.
        let (lanes, writers): (Vec<_>, Vec<_>) = (0..CONCURRENCY)
            .map(|_| {
                let (lane, mut arrived) = mpsc::channel::<Observed>(LANE);
                let client = &client;
                let writer = async move {
                    while let Some(observed) = arrived.recv().await {
                        write(client, observed).await;
                    }
                };
                (lane, writer)
            })
            .unzip();
        let distribute = async move {
            let mut observed = pin!(observed);
            while let Some(next) = observed.next().await {
                let sent = lanes[lane_of(&next)].send(next).await;
                sent.expect("a lane is read until its sender is gone");
            }
        };
        tokio::join!(distribute, join_all(writers));
    }
}

/// In which lane an event is written.
fn lane_of(observed: &Observed) -> usize {
    let (Observed::First(event) | Observed::Again(event)) = observed;
    let name = event.metadata.name.as_deref().unwrap_or_default();
    name.bytes().fold(0, |lane, byte| (lane * 31 + usize::from(byte)) % CONCURRENCY)
}

/// An object as an event refers to it.
pub(crate) fn reference_to<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        resource_version: object.meta().resource_version.clone(),
        field_path: None,
    }
}

fn event(
    component: &str,
    host: Option<&str>,
    about: ObjectReference,
    type_: EventType,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Event {
    let namespace = about.namespace.clone().filter(|namespace| !namespace.is_empty());
    Event {
        metadata: ObjectMeta {
            name: Some(name_of(&about, now)),
            namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: about,
        reason: Some(reason.to_owned()),
        message: Some(message),
        source: Some(EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(host.unwrap_or_default().to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        type_: Some(type_.as_str().to_owned()),
        ..Event::default()
    }
}

/// The name of the object and the time in hexadecimal nanoseconds, as client-go names events.
fn name_of(about: &ObjectReference, now: Timestamp) -> String {
    format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), now.as_nanosecond())
}

async fn write(client: &Client, observed: Observed) {
    let (Observed::First(event) | Observed::Again(event)) = &observed;
    let api = Api::<Event>::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let written = match &observed {
        Observed::First(event) => api.create(&params, event).await,
        Observed::Again(event) => {
            let patch = json!({
                "count": event.count,
                "lastTimestamp": event.last_timestamp,
                "message": event.message,
            });
            let params = PatchParams { field_manager: params.field_manager.clone(), ..PatchParams::default() };
            let name = event.metadata.name.as_deref().unwrap_or_default();
            match api.patch(name, &params, &Patch::Merge(patch)).await {
                // It lived its time: the next one begins anew, with the count so far.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
                    api.create(&params, event).await
                }
                other => other,
            }
        }
    };
    if let Err(error) = written {
        debug!(%error, reason = event.reason, "an event could not be written");
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ListParams;

    use super::*;

    #[tokio::test]
    async fn events_have_the_time_of_the_clock_and_names_of_their_own_while_it_stands_still() {
        let noon: Timestamp = "2030-01-01T12:00:00Z".parse().expect("a time");
        let clock = Clock::wall();
        clock.set(noon, 0.0);
        let (recorder, mut writer) = queue(crate::api::tests::client().await, clock, &Lost::default(), "test");
        let about = ObjectReference { name: Some("web".to_owned()), ..ObjectReference::default() };
        for message in ["one", "two"] {
            recorder.record(about.clone(), EventType::Normal, "Tested", message.to_owned());
        }
        let [one, two] =
            [writer.queue.try_recv(), writer.queue.try_recv()].map(|event| event.expect("it was recorded"));
        assert_eq!((one.first_timestamp, two.last_timestamp), (Some(Time(noon)), Some(Time(noon))));
        assert_ne!(one.metadata.name, two.metadata.name);
    }

    #[tokio::test]
    async fn what_does_not_fit_into_the_queue_is_counted_and_the_rest_is_written() {
        let (client, lost) = (crate::api::tests::client().await, Lost::default());
        let (recorder, writer) = queue(client.clone(), Clock::wall(), &lost, "test");
        // Of one object, no more than the first would be written.
        for number in 0..QUEUE + 3 {
            let name = if number < 2 { format!("web-{number}") } else { "flood".to_owned() };
            let about = ObjectReference { name: Some(name), ..ObjectReference::default() };
            recorder.record(about, EventType::Normal, "Tested", "one".to_owned());
        }
        assert_eq!(lost.total(), 3);
        drop(recorder);
        writer.run().await;
        let written = Api::<Event>::namespaced(client, "default").list(&ListParams::default()).await;
        let mut names: Vec<_> =
            written.expect("it is served").items.into_iter().filter_map(|event| event.involved_object.name).collect();
        names.sort();
        assert_eq!(names, ["flood", "web-0", "web-1"]);
        assert_eq!(lost.0.untold.load(Ordering::Relaxed), 0, "it was told");
    }
}
