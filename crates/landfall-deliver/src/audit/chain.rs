//! Whether an audit log is whole. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Action, AuditEntrySpec};
use crate::release::{hexadecimal, sorted};

/// The last entry of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

/// A log as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditLog {
    /// By their numbers.
    pub entries: Vec<AuditEntrySpec>,
    /// Which one is said to be the last.
    pub head: Option<Head>,
    /// Objects whose name is not that of their number.
    pub misnamed: Vec<String>,
}

impl Head {
    pub(super) fn of(entry: &AuditEntrySpec) -> Self {
        Self { number: entry.number, hash: entry.hash.clone() }
    }

    pub(super) fn from_config(config: &ConfigMap) -> Option<Self> {
        let data = config.data.as_ref()?;
        Some(Self { number: data.get("number")?.parse().ok()?, hash: data.get("hash")?.clone() })
    }

    pub(super) fn data(&self) -> BTreeMap<String, String> {
        [("number".to_owned(), self.number.to_string()), ("hash".to_owned(), self.hash.clone())].into()
    }
}

impl AuditEntrySpec {
    /// The hash of everything in it but the hash: SHA-256 of its JSON without blanks, keys in their order.
    pub fn content_hash(&self) -> String {
        let mut value = json!(self);
        if let Value::Object(fields) = &mut value {
            fields.remove("hash");
        }
        format!("sha256:{}", hexadecimal(&Sha256::digest(sorted(&value).to_string())))
    }
}

impl AuditLog {
    /// Whether an entry says this of something with that digest.
    pub fn says(&self, action: Action, subject: &str, digest: &str) -> bool {
        let is_it = |entry: &AuditEntrySpec| {
            entry.action == action && entry.subject == subject && entry.digest.as_deref() == Some(digest)
        };
        self.entries.iter().any(is_it)
    }

    /// What is wrong with it; nothing when it is whole.
    pub fn verify(&self) -> Vec<String> {
        let mut problems: Vec<String> = self
            .misnamed
            .iter()
            .map(|name| {
                format!("the object `{name}` has not the name of its number: somebody else than Landfall wrote it")
            })
            .collect();
        let mut expected = Head::default();
        for entry in &self.entries {
            let number = entry.number;
            let content = entry.content_hash();
            if content != entry.hash {
                problems.push(format!(
                    "entry {number} was changed: it says that its hash is {}, and its content has {content}",
                    entry.hash
                ));
            }
            if number <= expected.number {
                problems.push(format!("there is a second entry {number}: it was inserted"));
                continue;
            }
            if number > expected.number + 1 {
                problems.push(removed(expected.number + 1, number - 1));
            } else if entry.previous != expected.hash {
                let before = if expected.number == 0 {
                    "the beginning".to_owned()
                } else {
                    format!("entry {}", expected.number)
                };
                problems
                    .push(format!("entry {number} does not follow {before}: one of them was inserted or exchanged"));
            }
            // What its content has, so that a changed entry does not follow itself.
            expected = Head { number, hash: content };
        }
        match &self.head {
            Some(head) if head.number > expected.number => {
                problems.push(format!(
                    "{}: the log is said to end with {}",
                    removed(expected.number + 1, head.number),
                    head.number
                ));
            }
            Some(head) => {
                let there = self.entries.iter().find(|entry| entry.number == head.number);
                if there.is_some_and(|there| there.hash != head.hash) {
                    problems.push(format!(
                        "entry {} is not the one that was said to be the last: the log was rewritten",
                        head.number
                    ));
                }
            }
            None if !self.entries.is_empty() => {
                problems.push("nothing says which entry is the last: its end may have been cut off".to_owned());
            }
            None => {}
        }
        problems
    }

    /// The same log, said to end where it ends: an export has nothing beside it that says so.
    #[must_use]
    pub fn ended(mut self) -> Self {
        self.head = self.entries.last().map(Head::of);
        self
    }

    /// How it differs from an earlier export of itself: what is in that must be here, unchanged.
    pub fn against(&self, earlier: &[AuditEntrySpec]) -> Vec<String> {
        let here: BTreeMap<u64, &AuditEntrySpec> = self.entries.iter().map(|entry| (entry.number, entry)).collect();
        let compared = earlier.iter().filter_map(|then| match here.get(&then.number) {
            None => Some(format!("entry {} of the export is not in the log any more", then.number)),
            Some(now) if *now != then => {
                Some(format!("entry {} is not what it was when the log was exported", then.number))
            }
            Some(_) => None,
        });
        compared.collect()
    }
}

fn removed(from: u64, to: u64) -> String {
    if from == to { format!("entry {from} was removed") } else { format!("the entries {from} to {to} were removed") }
}

#[cfg(test)]
impl AuditLog {
    /// A log of the architecture `shop` that says these things, each of a subject with its digest.
    pub(crate) fn sample(says: &[(Action, &str, &str)]) -> Self {
        let entry = |(number, (action, subject, digest)): (u64, &(Action, &str, &str))| AuditEntrySpec {
            architecture: "shop".to_owned(),
            number,
            previous: String::new(),
            at: "2026-11-28T12:00:00Z".to_owned(),
            who: "ada".to_owned(),
            action: *action,
            subject: (*subject).to_owned(),
            digest: Some((*digest).to_owned()),
            says: String::new(),
            evidence: Vec::new(),
            hash: String::new(),
        };
        Self { entries: (1..).zip(says).map(entry).collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(length: u64) -> AuditLog {
        let mut log = AuditLog::default();
        for number in 1..=length {
            let previous = log.entries.last().map(|entry: &AuditEntrySpec| entry.hash.clone()).unwrap_or_default();
            let mut entry = AuditEntrySpec {
                architecture: "shop".to_owned(),
                number,
                previous,
                at: format!("2026-11-28T12:00:0{number}Z"),
                who: "ada".to_owned(),
                action: Action::Propose,
                subject: format!("shop-{number}"),
                digest: Some("sha256:aa".to_owned()),
                says: "a release".to_owned(),
                evidence: vec!["tests passed".to_owned()],
                hash: String::new(),
            };
            entry.hash = entry.content_hash();
            log.entries.push(entry);
        }
        log.head = log.entries.last().map(Head::of);
        log
    }

    /// What is found after somebody has done something to a log of five.
    fn after(change: impl FnOnce(&mut AuditLog)) -> Vec<String> {
        let mut log = log(5);
        change(&mut log);
        log.verify()
    }

    #[test]
    fn a_log_that_nobody_touched_is_whole() {
        assert_eq!(after(|_| {}), Vec::<String>::new());
        assert_eq!(AuditLog::default().verify(), Vec::<String>::new());
    }

    #[test]
    fn every_change_of_every_field_of_every_entry_is_found() {
        let changes: [fn(&mut AuditEntrySpec); 9] = [
            |entry| entry.architecture.push('x'),
            |entry| entry.previous.push('0'),
            |entry| entry.at.push('0'),
            |entry| entry.who = "eve".to_owned(),
            |entry| entry.action = Action::Approve,
            |entry| entry.subject.push('0'),
            |entry| entry.digest = None,
            |entry| entry.says.push('!'),
            |entry| entry.evidence.clear(),
        ];
        for place in 0..5 {
            for change in changes {
                assert!(!after(|log| change(&mut log.entries[place])).is_empty());
                // Whoever computes the hash anew breaks the chain, and at its end the head.
                let rehashed = after(|log| {
                    change(&mut log.entries[place]);
                    log.entries[place].hash = log.entries[place].content_hash();
                });
                assert!(!rehashed.is_empty(), "entry {}", place + 1);
            }
        }
    }

    #[test]
    fn every_removed_entry_is_found_wherever_it_was() {
        for first in 0..5 {
            for end in first + 1..=5 {
                let problems = after(|log| drop(log.entries.drain(first..end)));
                let removed = removed(first as u64 + 1, end as u64);
                assert!(problems.iter().any(|problem| problem.starts_with(&removed)), "{problems:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_entry() {
        insta::assert_snapshot!(after(|log| log.entries[1].who = "eve".to_owned()).join("\n"), @"
        entry 2 was changed: it says that its hash is sha256:ce91f1dd7ddf3cee9f8d5501168544f76ce118c51517dc02382a10b4e0ae91e9, and its content has sha256:dbb0aacfcd48057d5852ef06f0823d42832a380d00ff19581dc31e4812c7abc7
        entry 3 does not follow entry 2: one of them was inserted or exchanged
        ");
        insta::assert_snapshot!(
            after(|log| { let copy = log.entries[2].clone(); log.entries.insert(3, copy); }).join("\n"), @"there is a second entry 3: it was inserted");
        insta::assert_snapshot!(after(|log| log.head = None).join("\n"), @"nothing says which entry is the last: its end may have been cut off");
        insta::assert_snapshot!(after(|log| log.misnamed.push("other".to_owned())).join("\n"), @"the object `other` has not the name of its number: somebody else than Landfall wrote it");
    }

    #[test]
    fn a_log_that_was_written_anew_as_a_whole_differs_from_its_export() {
        let earlier = log(3).entries;
        assert_eq!(log(5).against(&earlier), Vec::<String>::new());
        let mut other = log(5);
        other.entries[0].who = "eve".to_owned();
        let mut previous = String::new();
        for entry in &mut other.entries {
            entry.previous.clone_from(&previous);
            entry.hash = entry.content_hash();
            previous.clone_from(&entry.hash);
        }
        other.head = other.entries.last().map(Head::of);
        assert_eq!(other.verify(), Vec::<String>::new());
        assert_eq!(other.against(&earlier).len(), 3);
        assert_eq!(log(2).against(&earlier), ["entry 3 of the export is not in the log any more"]);
    }
}
