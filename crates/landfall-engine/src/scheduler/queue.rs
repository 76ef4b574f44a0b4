//! The order in which pods are tried: by priority, then by age; a pod that found no place waits for something that could
//! help it, and not less than its back-off.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::ObjectKey;

/// The first wait of a pod that found no place, and the longest; it doubles with each attempt (Kubernetes:
/// `podInitialBackoffSeconds`, `podMaxBackoffSeconds`).
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// After this long a pod is tried again although nothing has happened (Kubernetes:
/// `DefaultPodMaxInUnschedulablePodsDuration`).
const MAX_WAIT: Duration = Duration::from_mins(5);

/// High priority first, then the order of arrival.
type Rank = (std::cmp::Reverse<i32>, u64);

#[derive(Debug)]
struct Entry {
    rank: Rank,
    attempts: u32,
    /// Other pods can open a place for it by being placed, not only by going.
    sociable: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// Being tried, or bound.
    Taken,
    /// Found no place; not before `until` even when something changes.
    Waiting {
        since: Instant,
        until: Instant,
        hopeful: bool,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<ObjectKey, Entry>,
    ready: BTreeMap<Rank, ObjectKey>,
    /// Waiting pods that something has changed for, by the end of their back-off.
    hopeful: BTreeSet<(Instant, ObjectKey)>,
    arrivals: u64,
}

impl Queue {
    /// Adds a pod, or has it tried again at once when it has changed.
    pub(crate) fn add(&mut self, key: ObjectKey, priority: i32, sociable: bool) {
        let attempts = self.entries.get(&key).map_or(0, |entry| entry.attempts);
        self.remove(&key);
        self.arrivals += 1;
        let rank = (std::cmp::Reverse(priority), self.arrivals);
        self.ready.insert(rank, key.clone());
        self.entries.insert(key, Entry { rank, attempts, sociable, state: State::Ready });
    }

    pub(crate) fn contains(&self, key: &ObjectKey) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        match entry.state {
            State::Ready => {
                self.ready.remove(&entry.rank);
            }
            State::Waiting { until, .. } => {
                self.hopeful.remove(&(until, key.clone()));
            }
            State::Taken => {}
        }
    }

    /// The next pod to try.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<ObjectKey> {
        while let Some((until, _)) = self.hopeful.first()
            && *until <= now
            && let Some((_, key)) = self.hopeful.pop_first()
        {
            self.make_ready(key);
        }
        let key = self.ready.pop_first()?.1;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = State::Taken;
            entry.attempts += 1;
        }
        Some(key)
    }

    fn make_ready(&mut self, key: ObjectKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = State::Ready;
            self.ready.insert(entry.rank, key);
        }
    }

    /// A pod that was tried found no place.
    pub(crate) fn put_back(&mut self, key: &ObjectKey, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            let doubled = MIN_BACKOFF.saturating_mul(1 << entry.attempts.saturating_sub(1).min(8));
            entry.state = State::Waiting { since: now, until: now + doubled.min(MAX_BACKOFF), hopeful: false };
        }
    }

    /// Something has changed that could help those who wait.
    pub(crate) fn wake_all(&mut self) {
        self.wake(|_, _| true);
    }

    /// A pod was placed: that helps those only who look at other pods.
    pub(crate) fn wake_sociable(&mut self) {
        self.wake(|entry, _| entry.sociable);
    }

    /// Wakes those that have waited very long.
    pub(crate) fn wake_old(&mut self, now: Instant) {
        self.wake(|_, since| now.duration_since(since) >= MAX_WAIT);
    }

    fn wake(&mut self, whom: impl Fn(&Entry, Instant) -> bool) {
        for (key, entry) in &mut self.entries {
            if let State::Waiting { since, until, hopeful: false } = entry.state
                && whom(entry, since)
            {
                entry.state = State::Waiting { since, until, hopeful: true };
                self.hopeful.insert((until, key.clone()));
            }
        }
    }

    /// When [`Queue::pop`] will have something, if time alone decides.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        if self.ready.is_empty() { self.hopeful.first().map(|(until, _)| *until) } else { Some(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    #[tokio::test(start_paused = true)]
    async fn pods_come_by_priority_and_then_in_their_order() {
        let mut queue = Queue::default();
        for (name, priority) in [("first", 0), ("second", 0), ("urgent", 10)] {
            queue.add(key(name), priority, false);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(Instant::now())).map(|key| key.name.to_string()).collect();
        assert_eq!(order, ["urgent", "first", "second"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_without_a_place_waits_for_a_change_and_for_its_back_off() {
        let mut queue = Queue::default();
        queue.add(key("a"), 0, false);
        for wait in [1, 2, 4, 8, 10, 10] {
            let now = Instant::now();
            assert_eq!(queue.pop(now), Some(key("a")));
            queue.put_back(&key("a"), now);
            assert_eq!(queue.next(now), None);
            queue.wake_all();
            assert_eq!(queue.pop(now), None);
            assert_eq!(queue.next(now), Some(now + Duration::from_secs(wait)));
            tokio::time::advance(Duration::from_secs(wait)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_has_changed_is_tried_at_once() {
        let mut queue = Queue::default();
        queue.add(key("a"), 0, false);
        queue.pop(Instant::now());
        queue.put_back(&key("a"), Instant::now());
        queue.add(key("a"), 0, false);
        assert_eq!(queue.pop(Instant::now()), Some(key("a")));
    }
}
