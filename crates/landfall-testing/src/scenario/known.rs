//! The differences from Kubernetes that are accepted, each with its reason.

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use serde::Deserialize;

use crate::scenario::path::Path;
use crate::scenario::script::{LoadError, read};
use crate::scenario::transcript::{Answer, Difference};

/// One accepted difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownDifference {
    /// `area/name`.
    pub scenario: String,
    /// The step of it.
    pub step: String,
    /// Where in the answer; anything else in it must still be the same. The whole answer when empty.
    #[serde(default)]
    at: Vec<Path>,
    /// Why it is accepted.
    pub reason: String,
}

/// The list of accepted differences, and which of them were seen.
pub(crate) struct Known {
    entries: Vec<KnownDifference>,
    seen: BTreeSet<usize>,
}

impl Known {
    /// Reads the list; an empty file is an empty list.
    pub(crate) fn load(file: &FilePath) -> Result<Self, LoadError> {
        let entries: Option<Vec<KnownDifference>> = serde_saphyr::from_str(&read(file)?)
            .map_err(|error| LoadError::Grammar { path: file.to_owned(), problem: error.to_string() })?;
        Ok(Self { entries: entries.unwrap_or_default(), seen: BTreeSet::new() })
    }

    /// Whether the list accepts this difference.
    pub(crate) fn accepts(&mut self, scenario: &str, difference: &Difference) -> bool {
        let entry = self.entries.iter().position(|entry| entry.scenario == scenario && entry.step == difference.step);
        let Some(index) = entry else { return false };
        self.seen.insert(index);
        let at = &self.entries[index].at;
        at.is_empty() || without(difference.expected.as_ref(), at) == without(difference.actual.as_ref(), at)
    }

    /// Entries about scenarios that were run, which differed no more.
    pub(crate) fn gone<'a>(&'a self, ran: &'a BTreeSet<String>) -> impl Iterator<Item = &'a KnownDifference> {
        let unseen = self.entries.iter().enumerate().filter(|(index, _)| !self.seen.contains(index));
        unseen.map(|(_, entry)| entry).filter(|entry| ran.contains(&entry.scenario))
    }

    /// Entries about scenarios or steps that do not exist.
    pub(crate) fn entries(&self) -> &[KnownDifference] {
        &self.entries
    }
}

fn without(answer: Option<&Answer>, at: &[Path]) -> Option<serde_json::Value> {
    let mut value = serde_json::to_value(answer?).ok()?;
    for path in at {
        path.remove(&mut value);
    }
    Some(value)
}

/// The list as a table of Markdown, for the documentation.
pub(crate) fn table(entries: &[KnownDifference]) -> String {
    if entries.is_empty() {
        return "None yet.\n".to_owned();
    }
    let rows = entries.iter().map(|entry| format!("| `{}` | {} | {} |\n", entry.scenario, entry.step, entry.reason));
    format!("| scenario | step | reason |\n| --- | --- | --- |\n{}", rows.collect::<String>())
}
