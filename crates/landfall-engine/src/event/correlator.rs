//! Which events are written, and as what: the rules of client-go's event correlator (`k8s.io/client-go/tools/record`).
//!
//! An event that is equal to an earlier one raises that one's count. The tenth similar event in ten minutes (the same
//! but for its message) and all after it are combined into one. An object may cause 25 events of a component at once and one each
//! five minutes after that.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How many keys of each sort are remembered.
const REMEMBERED: usize = 4096;

/// How many different messages make events similar.
const SIMILAR: usize = 10;

/// How long similar events are looked at together.
const SIMILAR_FOR: SignedDuration = SignedDuration::from_mins(10);

/// How many events an object may cause at once.
const BURST: f64 = 25.0;

/// How many events a second an object may cause in the long run.
const REFILL: f64 = 1.0 / 300.0;

/// What to do with an event.
#[derive(Debug, PartialEq)]
pub(super) enum Observed {
    /// It is new: create it.
    First(Event),
    /// It repeats an earlier one of this name: raise the count.
    Again(Event),
}

#[derive(Debug, Default)]
pub(super) struct Correlator {
    budgets: Recent<Budget>,
    similar: Recent<Similar>,
    written: Recent<Written>,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

#[derive(Debug)]
struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

#[derive(Debug, Clone)]
struct Written {
    name: Option<String>,
    first: Option<Time>,
    count: i32,
}

impl Correlator {
    /// `None`: the object has caused too many events lately.
    pub(super) fn observe(&mut self, mut event: Event, now: Timestamp) -> Option<Observed> {
        let about = about(&event);
        let message = event.message.clone().unwrap_or_default();
        let similar_key = format!("{about}\0{}", event.reason.as_deref().unwrap_or_default());

        let similar =
            self.similar.entry(&similar_key, || Similar { messages: BTreeSet::new(), last: Timestamp::UNIX_EPOCH });
        if now.duration_since(similar.last) > SIMILAR_FOR {
            similar.messages.clear();
        }
        similar.last = now;
        similar.messages.insert(message.clone());
        let key = if similar.messages.len() < SIMILAR {
            let part = event.involved_object.field_path.as_deref().unwrap_or_default();
            format!("{similar_key}\0{part}\0{message}")
        } else {
            similar.messages.pop_first();
            event.message = Some(format!("(combined from similar events): {message}"));
            similar_key
        };

        let first = Written { name: event.metadata.name.clone(), first: event.first_timestamp.clone(), count: 0 };
        let written = self.written.entry(&key, || first);
        written.count += 1;
        event.metadata.name.clone_from(&written.name);
        event.first_timestamp.clone_from(&written.first);
        event.count = Some(written.count);
        let again = written.count > 1;

        let budget = self.budgets.entry(&about, || Budget { tokens: BURST, at: now });
        let earned = now.duration_since(budget.at).as_secs_f64().max(0.0) * REFILL;
        budget.tokens = (budget.tokens + earned).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return None;
        }
        budget.tokens -= 1.0;
        Some(if again { Observed::Again(event) } else { Observed::First(event) })
    }
}

/// Who speaks of what, in which tone.
fn about(event: &Event) -> String {
    let object = &event.involved_object;
    let source = event.source.as_ref();
    let parts = [
        source.and_then(|source| source.component.as_deref()),
        source.and_then(|source| source.host.as_deref()),
        object.kind.as_deref(),
        object.namespace.as_deref(),
        object.name.as_deref(),
        object.uid.as_deref(),
        object.api_version.as_deref(),
        event.type_.as_deref(),
    ];
    parts.map(Option::unwrap_or_default).join("\0")
}

/// Values by key; the ones that were not used for long are forgotten.
#[derive(Debug)]
struct Recent<V> {
    values: HashMap<String, (u64, V)>,
    uses: u64,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), uses: 0 }
    }
}

impl<V> Recent<V> {
    fn entry(&mut self, key: &str, new: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        if self.values.len() >= REMEMBERED && !self.values.contains_key(key) {
            // Forgetting half at once costs little for each event; exact order does not matter.
            let mut used: Vec<u64> = self.values.values().map(|(used, _)| *used).collect();
            let (_, median, _) = used.select_nth_unstable(REMEMBERED / 2);
            let median = *median;
            self.values.retain(|_, (used, _)| *used > median);
        }
        let uses = self.uses;
        let (last_use, value) = self.values.entry(key.to_owned()).or_insert_with(|| (uses, new()));
        *last_use = uses;
        value
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::super::{EventType, event};
    use super::*;

    fn said(message: &str, now: Timestamp) -> Event {
        let about = ObjectReference { name: Some("web".to_owned()), ..ObjectReference::default() };
        event("deployment-controller", None, about, EventType::Normal, "ScalingReplicaSet", message.to_owned(), now)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
    }

    #[test]
    fn an_event_that_repeats_raises_the_count_of_the_first() {
        let mut correlator = Correlator::default();
        let Some(Observed::First(first)) = correlator.observe(said("up", at(0)), at(0)) else { panic!("not first") };
        let Some(Observed::Again(again)) = correlator.observe(said("up", at(5)), at(5)) else { panic!("not again") };
        assert_eq!(again.metadata.name, first.metadata.name);
        assert_eq!(again.first_timestamp, first.first_timestamp);
        assert_eq!((again.count, again.last_timestamp), (Some(2), Some(Time(at(5)))));
    }

    #[test]
    fn the_tenth_similar_event_and_those_after_it_are_one() {
        let mut correlator = Correlator::default();
        let observed: Vec<_> =
            (0..12).filter_map(|n| correlator.observe(said(&format!("message {n}"), at(n)), at(n))).collect();
        assert!(observed[..9].iter().all(|observed| matches!(observed, Observed::First(_))));
        let Observed::First(combined) = &observed[9] else { panic!("not first") };
        assert_eq!(combined.message.as_deref(), Some("(combined from similar events): message 9"));
        let Observed::Again(next) = &observed[10] else { panic!("not again") };
        assert_eq!(next.metadata.name, combined.metadata.name);
        assert_eq!(next.message.as_deref(), Some("(combined from similar events): message 10"));
    }

    #[test]
    fn an_object_may_cause_25_events_and_then_one_each_five_minutes() {
        let mut correlator = Correlator::default();
        let written = (0..40).filter_map(|_| correlator.observe(said("up", at(0)), at(0))).count();
        assert_eq!(written, 25);
        assert!(correlator.observe(said("up", at(299)), at(299)).is_none());
        assert!(correlator.observe(said("up", at(301)), at(301)).is_some());
    }

    #[test]
    fn what_was_not_used_for_long_is_forgotten() {
        let mut recent = Recent::<u32>::default();
        for n in 0..3 * REMEMBERED {
            *recent.entry(&n.to_string(), || 0) += 1;
            assert!(recent.values.len() <= REMEMBERED);
        }
        assert_eq!(*recent.entry(&(3 * REMEMBERED - 1).to_string(), || 0), 1);
    }
}
