//! The topics, queues and buckets of a store: those that it declares and those that its edges name.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Element, Topic, Verb};

use super::Site;

/// Who does what with a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// The topics that are written; `None` among them is every topic.
    pub(super) publishes: BTreeSet<Option<String>>,
    /// The topics that are read.
    pub(super) consumes: BTreeSet<Option<String>>,
}

impl Site<'_> {
    /// Every topic by name. One that only an edge names has no settings of its own.
    pub(super) fn topics(&self) -> BTreeMap<String, Topic> {
        let declared = self.store.topics.iter().map(|(name, topic)| (name.value.clone(), topic.clone()));
        let mut topics: BTreeMap<String, Topic> = declared.collect();
        let element = self.element();
        for connection in self.architecture.to(&element) {
            if let Some(detail) = &connection.detail {
                topics.entry(detail.clone()).or_default();
            }
        }
        topics
    }

    /// The queues of one topic, where each service that consumes it gets every message: one for each of them, or one
    /// of the topic's own name while nobody else consumes it.
    pub(super) fn queues(&self, topic: &str) -> BTreeSet<String> {
        let element = self.element();
        let consumers: BTreeSet<&str> = self
            .architecture
            .to(&element)
            .filter(|edge| edge.verb == Verb::Consume && edge.detail.as_deref().is_none_or(|detail| detail == topic))
            .map(|edge| edge.from.name())
            .collect();
        if consumers.len() < 2 {
            return BTreeSet::from([topic.to_owned()]);
        }
        consumers.into_iter().map(|consumer| format!("{topic}.{consumer}")).collect()
    }

    /// What each service does with the topics.
    pub(super) fn clients(&self) -> BTreeMap<String, Access> {
        let mut clients: BTreeMap<String, Access> = BTreeMap::new();
        let element = self.element();
        for connection in self.architecture.to(&element) {
            let Element::Service(service) = &connection.from else { continue };
            let access = clients.entry(service.to_string()).or_default();
            let topics = if connection.verb == Verb::Consume { &mut access.consumes } else { &mut access.publishes };
            topics.insert(connection.detail.clone());
        }
        clients
    }

    /// The name of the object of a topic: the store's and the topic's, as Kubernetes takes names.
    ///
    /// A topic whose name had to be changed gets a hash of it, so that `a_b` and `a-b` stay two objects.
    pub(super) fn topic_object(&self, topic: &str) -> String {
        let keep =
            |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.') { c } else { '-' };
        let plain: String = topic.to_ascii_lowercase().chars().map(keep).collect();
        let plain = plain.trim_matches(['-', '.']);
        if plain == topic {
            format!("{}-{plain}", self.name())
        } else {
            format!("{}-{plain}-{:08x}", self.name(), fingerprint(topic)).replace("--", "-")
        }
    }
}

/// FNV-1a: short, and the same on every machine.
pub(super) fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
