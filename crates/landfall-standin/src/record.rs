//! What a stand-in remembers of messages: which it has dealt with, and which have arrived at an end of their flow.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

use crate::behaviour::{Arrival, Message};

/// How many messages are remembered, for each purpose: hours of a flow of ten a second.
const KEPT: usize = 200_000;

/// A message at one step of its flow.
type Key = (String, u32, u64);

#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    done: HashSet<Key>,
    /// The same, oldest first.
    order: VecDeque<Key>,
    arrivals: BTreeMap<String, VecDeque<Arrival>>,
    suppressed: BTreeMap<String, u64>,
}

impl Record {
    /// Whether the message was dealt with before; if so, that is counted.
    pub(crate) fn knows(&self, flow: &str, message: &Message) -> bool {
        let mut inner = self.lock();
        let known = inner.done.contains(&(flow.to_owned(), message.hop, message.id));
        if known {
            *inner.suppressed.entry(flow.to_owned()).or_default() += 1;
        }
        known
    }

    /// Remembers that the message was dealt with.
    pub(crate) fn deal(&self, flow: &str, message: &Message) {
        let mut inner = self.lock();
        let key = (flow.to_owned(), message.hop, message.id);
        if inner.done.insert(key.clone()) {
            inner.order.push_back(key);
        }
        if inner.order.len() > KEPT
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.done.remove(&oldest);
        }
    }

    /// Remembers that the message is at an end of its flow.
    pub(crate) fn arrive(&self, flow: &str, arrival: Arrival) {
        let mut inner = self.lock();
        let arrivals = inner.arrivals.entry(flow.to_owned()).or_default();
        if arrivals.len() == KEPT {
            arrivals.pop_front();
        }
        arrivals.push_back(arrival);
    }

    /// The arrivals by flow, and what was suppressed.
    pub(crate) fn told(&self) -> (BTreeMap<String, VecDeque<Arrival>>, BTreeMap<String, u64>) {
        let inner = self.lock();
        (inner.arrivals.clone(), inner.suppressed.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it remembers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_at_the_step_where_it_was_dealt_with() {
        let record = Record::default();
        let message = |hop| Message { id: 7, hop, ..Message::default() };
        assert!(!record.knows("order", &message(1)));
        record.deal("order", &message(1));
        assert!(record.knows("order", &message(1)));
        assert!(!record.knows("order", &message(2)), "it comes back at a later step");
        assert_eq!(record.told().1, BTreeMap::from([("order".to_owned(), 1)]));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let record = Record::default();
        for id in 0..=KEPT as u64 {
            record.deal("order", &Message { id, ..Message::default() });
        }
        assert!(!record.knows("order", &Message { id: 0, ..Message::default() }));
        assert!(record.knows("order", &Message { id: 1, ..Message::default() }));
    }
}
