//! Random scenarios: a seed gives a sequence of requests, which Kubernetes and another server are asked alike.
//!
//! What they are made of is data (`tests/conformance/random.yaml`). There is no recording: both servers run, so that a
//! difference can be cut down to the few requests that it takes, and be kept as a scenario of its own.

mod author;
mod compare;
mod kind;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::scenario::random::kind::Kind;
use crate::scenario::script::{self, LoadError, Scenario};

pub use compare::check_random;

/// What random scenarios are made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alphabet {
    /// The seeds that are played when nobody names one.
    pub seeds: Vec<u64>,
    /// How many things a scenario does when nobody says; some of them take more than one request.
    pub steps: usize,
    kinds: Vec<Kind>,
}

impl Alphabet {
    /// Reads `random.yaml` of the folder of scenarios.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        let file = folder.join("random.yaml");
        serde_saphyr::from_str(&script::read(&file)?)
            .map_err(|error| LoadError::Grammar { path: file, problem: error.to_string() })
    }

    /// The scenario of a seed; the same one whenever and wherever it is asked for.
    pub fn scenario(&self, seed: u64, length: usize) -> RandomScenario {
        let (steps, definitions) = author::write(&self.kinds, seed, length);
        RandomScenario { seed, length, steps, definitions }
    }
}

/// A sequence of requests that a seed gave, or a part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomScenario {
    seed: u64,
    /// What was asked for, with which the seed gives the same scenario again.
    length: usize,
    /// As they are written in a file.
    steps: Vec<Value>,
    /// How many of the steps, at the beginning, define custom resources and wait for them.
    definitions: usize,
}

impl RandomScenario {
    /// The text of a file of `tests/conformance/scenarios` that does the same.
    fn source(&self) -> String {
        let cleanup: Vec<_> =
            self.steps.iter().filter_map(|step| step["request"].as_str()).filter_map(defined).collect();
        let shows = format!("What the seed {} came to.", self.seed);
        let mut file = json!({"shows": shows, "managedFields": true, "steps": self.steps});
        if !cleanup.is_empty() {
            file["cleanup"] = cleanup.into();
        }
        serde_saphyr::to_string(&file).expect("JSON can be written as YAML")
    }

    /// What can be played.
    fn scenario(&self) -> Scenario {
        let source = self.source();
        let script = script::parse(&source).expect("the author writes what the grammar allows");
        Scenario { name: self.name(), script, source, recording: PathBuf::new() }
    }

    fn name(&self) -> String {
        format!("random/{}", self.seed)
    }

    fn prefix(mut self, length: usize) -> Self {
        self.steps.truncate(length);
        self.definitions = self.definitions.min(length);
        self
    }

    fn without(&self, index: usize) -> Self {
        let mut shorter = self.clone();
        shorter.steps.remove(index);
        shorter
    }

    fn without_definitions(&self) -> Self {
        Self { steps: self.steps[self.definitions..].to_vec(), definitions: 0, ..self.clone() }
    }
}

/// The definition of a custom resource that a step asks about; it belongs to no namespace, so nothing else removes it.
fn defined(request: &str) -> Option<&str> {
    request.strip_prefix("GET ").filter(|address| address.contains("/customresourcedefinitions/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alphabet() -> Alphabet {
        Alphabet::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance")))
            .expect("the file can be read")
    }

    #[test]
    fn a_seed_gives_the_same_scenario_again_and_another_seed_another() {
        let alphabet = alphabet();
        assert_eq!(alphabet.scenario(7, 40), alphabet.scenario(7, 40));
        assert_ne!(alphabet.scenario(7, 40).steps, alphabet.scenario(8, 40).steps);
    }

    #[test]
    fn every_scenario_and_every_part_of_it_follows_the_grammar() {
        let alphabet = alphabet();
        for seed in 0..100 {
            let scenario = alphabet.scenario(seed, 25);
            assert_eq!(scenario.scenario().script.steps.len(), scenario.steps.len());
            assert_eq!(scenario.without(3).scenario().script.steps.len(), scenario.steps.len() - 1);
        }
    }

    #[test]
    fn what_is_defined_is_removed() {
        let alphabet = alphabet();
        let with_definition = (0..20).map(|seed| alphabet.scenario(seed, 25).scenario().script);
        let with_definition: Vec<_> = with_definition.filter(|script| !script.cleanup.is_empty()).collect();
        assert!(!with_definition.is_empty());
        for script in with_definition {
            assert_eq!(script.cleanup.len(), 1, "{:?}", script.cleanup);
        }
    }
}
