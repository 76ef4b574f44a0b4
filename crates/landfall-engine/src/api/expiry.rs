//! Events go an hour after they were last written (Kubernetes: `--event-ttl`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Server;
use crate::store::{Collection, CommitError, Draft, Expect, Key, Record, Revision, Store};

const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// How often events are looked through, by the clock of the server.
const PERIOD: SignedDuration = SignedDuration::from_mins(1);

/// The bounds of that by the clock of the machine, however fast the other runs.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How many deletions are under way at once.
const TOGETHER: usize = 64;

/// When events were written, as they were at a revision: each of them is read once.
type Known = HashMap<Key, (Revision, Timestamp)>;

impl Server {
    /// Deletes events whose time is over, until cancelled.
    pub(crate) async fn expire_events(self, cancel: CancellationToken) {
        let clock = &self.state.clock;
        let mut set = clock.set_times();
        let mut known = Known::new();
        loop {
            let now = clock.now();
            sweep(&self.state.store, now, &mut known).await;
            let next = now.saturating_add(PERIOD).unwrap_or(Timestamp::MAX);
            let pause = clock.until(next).clamp(PAUSE.0, PAUSE.1);
            // Every arm may be dropped half-way: a timer, a token and a signal lose nothing.
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                changed = set.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Deletes the events that are over at a time.
async fn sweep(store: &Store, now: Timestamp, known: &mut Known) {
    let events = store.list(&Collection::new("", "events"), None).records;
    let mut times = Known::with_capacity(events.len());
    let mut over = Vec::new();
    for event in events {
        let time = match known.get(event.key()) {
            Some((revision, time)) if *revision == event.revision() => *time,
            _ => written(&event.value()).unwrap_or(now),
        };
        if now.duration_since(time) >= LIFE {
            over.push(event);
        } else {
            times.insert(event.key().clone(), (event.revision(), time));
        }
    }
    *known = times;
    stream::iter(over).for_each_concurrent(TOGETHER, |event| delete(store, event)).await;
}

async fn delete(store: &Store, event: Arc<Record>) {
    let last = Draft::new(&event.value());
    match store.delete(event.key(), Expect::Exactly(event.revision()), last).await {
        // Somebody has written it meanwhile, so that it lives on.
        Ok(_) | Err(CommitError::Conflict { .. }) => {}
        Err(error) => warn!(event = %event.key(), %error, "failed to delete an event whose time is over"),
    }
}

/// The last time that an event has: of its writes, or of what it tells of.
fn written(event: &Value) -> Option<Timestamp> {
    let fields = event["metadata"]["managedFields"].as_array().into_iter().flatten();
    let times = [
        &event["metadata"]["creationTimestamp"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["series"]["lastObservedTime"],
    ];
    let times = times.into_iter().chain(fields.map(|entry| &entry["time"]));
    times.filter_map(|time| time.as_str()?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::super::Config;
    use super::super::tests::send;
    use super::*;

    const EVENTS: &str = "/api/v1/namespaces/default/events";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    async fn names(server: &Server) -> Vec<String> {
        let (_, list) = send(server, "GET", EVENTS, Value::Null).await;
        let items = list["items"].as_array().into_iter().flatten();
        items.map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[tokio::test]
    async fn an_event_goes_an_hour_after_it_was_written_last() {
        let config = Config::in_memory();
        let (clock, mut known) = (config.clock.clone(), Known::new());
        clock.set(at("2030-01-01T12:00:00Z"), 0.0);
        let server = Server::start(config).await.expect("a server in memory starts");
        for name in ["once", "again"] {
            let event = json!({
                "metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
                "reason": "Tested", "type": "Normal", "lastTimestamp": "2030-01-01T12:00:00Z",
            });
            let (code, answer) = send(&server, "POST", EVENTS, event).await;
            assert_eq!(code, StatusCode::CREATED, "{answer}");
        }
        sweep(&server.state.store, clock.now(), &mut known).await;
        assert_eq!(names(&server).await, ["again", "once"]);
        clock.set(at("2030-01-01T12:30:00Z"), 0.0);
        let patch = json!({"count": 2, "lastTimestamp": "2030-01-01T12:30:00Z"});
        send(&server, "PATCH", &format!("{EVENTS}/again"), patch).await;
        clock.set(at("2030-01-01T13:00:00Z"), 0.0);
        sweep(&server.state.store, clock.now(), &mut known).await;
        assert_eq!(names(&server).await, ["again"]);
        clock.set(at("2030-01-01T13:30:00Z"), 0.0);
        sweep(&server.state.store, clock.now(), &mut known).await;
        assert!(names(&server).await.is_empty());
    }
}
