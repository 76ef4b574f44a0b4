//! Runs many scenarios at a time and says which answers are not the recorded ones.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use futures::StreamExt as _;

use crate::scenario::endpoint::Endpoint;
use crate::scenario::known::{self, Known};
use crate::scenario::play::play;
use crate::scenario::script::{self, LoadError, Scenario};
use crate::scenario::transcript::Transcript;

/// How many scenarios run at a time: most of their time is waiting for controllers.
const AT_A_TIME: usize = 8;

/// The scenarios of a folder, their recordings and the accepted differences from these.
pub struct Suite {
    scenarios: Vec<Scenario>,
    known_file: PathBuf,
}

/// Whose answers are compared with the recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// Kubernetes itself: every difference is an error of the recording.
    Kubernetes,
    /// Something that wants to answer alike: listed differences are accepted.
    Candidate,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many scenarios ran.
    pub scenarios: usize,
    /// Scenarios whose every answer is the recorded one.
    pub identical: usize,
    /// Scenarios that differ as listed only.
    pub known: usize,
    /// Scenarios that differ in what is not listed.
    pub new: usize,
    /// Listed differences that are none any more.
    pub gone: usize,
    /// Diffs and remarks, for a person.
    pub report: String,
}

impl Outcome {
    /// Whether everything is as recorded and as listed.
    pub fn holds(&self) -> bool {
        self.new == 0 && self.gone == 0
    }

    /// Adds what another run found.
    pub fn add(&mut self, other: Self) {
        self.scenarios += other.scenarios;
        self.identical += other.identical;
        self.known += other.known;
        self.new += other.new;
        self.gone += other.gone;
        self.report += &other.report;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenarios, identical, known, new, .. } = self;
        write!(f, "conformance: {scenarios} scenarios, {identical} identical, {known} known differences, {new} new")
    }
}

/// Why a suite cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// Its files are missing or wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No scenario has a name that was asked for.
    #[error("no scenario is called `{0}`")]
    Unknown(String),
    /// The list of accepted differences names a step that does not exist.
    #[error("`{file}` lists the step `{step}` of `{scenario}`, which does not exist", file = file.display())]
    Stale {
        /// The list.
        file: PathBuf,
        /// The scenario that it names.
        scenario: String,
        /// The step that it names.
        step: String,
    },
    /// A recording cannot be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The recording.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A recording cannot be made into YAML.
    #[error("failed to write the recording of `{scenario}` as YAML")]
    Yaml {
        /// The scenario.
        scenario: String,
        /// Why.
        source: Box<serde_saphyr::SerializeError>,
    },
}

impl Suite {
    /// Reads `scenarios/<area>/<name>.yaml` and `known.yaml` of a folder.
    pub fn load(folder: &Path) -> Result<Self, SuiteError> {
        let scenarios = script::load(&folder.join("scenarios"))?;
        let suite = Self { scenarios, known_file: folder.join("known.yaml") };
        for entry in Known::load(&suite.known_file)?.entries() {
            let scenario = suite.scenarios.iter().find(|scenario| scenario.name == entry.scenario);
            if !scenario.is_some_and(|scenario| scenario.script.steps.iter().any(|step| step.name == entry.step)) {
                return Err(SuiteError::Stale {
                    file: suite.known_file,
                    scenario: entry.scenario.clone(),
                    step: entry.step.clone(),
                });
            }
        }
        Ok(suite)
    }

    /// Keeps only scenarios and areas of these names; all of them when there are none.
    pub fn only(mut self, names: &[String]) -> Result<Self, SuiteError> {
        let matches = |scenario: &Scenario, name: &str| {
            scenario.name == name || scenario.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
        };
        if let Some(name) = names.iter().find(|name| !self.scenarios.iter().any(|scenario| matches(scenario, name))) {
            return Err(SuiteError::Unknown(name.clone()));
        }
        self.scenarios.retain(|scenario| names.is_empty() || names.iter().any(|name| matches(scenario, name)));
        Ok(self)
    }

    /// Names and sentences of the scenarios.
    pub fn titles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.scenarios.iter().map(|scenario| (scenario.name.as_str(), scenario.script.shows.as_str()))
    }

    /// The accepted differences as a table of Markdown.
    pub fn known_table(&self) -> Result<String, SuiteError> {
        Ok(known::table(Known::load(&self.known_file)?.entries()))
    }

    /// Compares a server's answers with the recordings. `trace` is told every request and answer.
    pub async fn check(
        &self,
        endpoint: &Endpoint,
        against: Against,
        trace: &dyn Fn(&str),
    ) -> Result<Outcome, SuiteError> {
        let mut known = Known::load(&self.known_file)?;
        let mut outcome = Outcome { scenarios: self.scenarios.len(), ..Outcome::default() };
        for (scenario, transcript) in self.play(endpoint, trace).await {
            let expected = match recording(scenario) {
                Ok(expected) => expected,
                Err(problem) => {
                    outcome.new += 1;
                    outcome.report += &format!("{}: {problem}\n", scenario.name);
                    continue;
                }
            };
            let differences = transcript.differences(&expected);
            let (listed, new): (Vec<_>, Vec<_>) = differences
                .into_iter()
                .partition(|difference| against == Against::Candidate && known.accepts(&scenario.name, difference));
            match (new.is_empty(), listed.is_empty()) {
                (true, true) => outcome.identical += 1,
                (true, false) => outcome.known += 1,
                (false, _) => outcome.new += 1,
            }
            for difference in new {
                outcome.report += &format!("{}: {}\n{}\n", scenario.name, difference.step, difference.diff());
            }
        }
        if against == Against::Candidate {
            let ran: BTreeSet<_> = self.scenarios.iter().map(|scenario| scenario.name.clone()).collect();
            for entry in known.gone(&ran) {
                outcome.gone += 1;
                outcome.report += &format!(
                    "{}: {}\n  is answered as recorded now: remove it from {}\n",
                    entry.scenario,
                    entry.step,
                    self.known_file.display(),
                );
            }
        }
        Ok(outcome)
    }

    /// Writes what a server answers as the recordings, and gives the scenarios that could not be played.
    pub async fn record(&self, endpoint: &Endpoint, trace: &dyn Fn(&str)) -> Result<Outcome, SuiteError> {
        let mut outcome = Outcome { scenarios: self.scenarios.len(), ..Outcome::default() };
        for (scenario, transcript) in self.play(endpoint, trace).await {
            let failures: String =
                transcript.failures().map(|(step, why)| format!("{}: {step}: {why}\n", scenario.name)).collect();
            if !failures.is_empty() {
                outcome.new += 1;
                outcome.report += &failures;
                continue;
            }
            outcome.identical += 1;
            let text = transcript
                .to_yaml(&scenario.name)
                .map_err(|source| SuiteError::Yaml { scenario: scenario.name.clone(), source: Box::new(source) })?;
            let path = &scenario.recording;
            fs::write(path, text).map_err(|source| SuiteError::Write { path: path.clone(), source })?;
        }
        Ok(outcome)
    }

    /// Plays all scenarios, several at a time; in the order of their names.
    async fn play(&self, endpoint: &Endpoint, trace: &dyn Fn(&str)) -> Vec<(&Scenario, Transcript)> {
        let playing = self.scenarios.iter().map(|scenario| async move {
            let namespace = format!("conformance-{}", letters(8));
            let trace = |line: &str| trace(&format!("{}: {line}", scenario.name));
            (scenario, play(scenario, endpoint, &namespace, &trace).await)
        });
        futures::stream::iter(playing).buffered(AT_A_TIME).collect().await
    }
}

fn recording(scenario: &Scenario) -> Result<Transcript, String> {
    let text = script::read(&scenario.recording)
        .map_err(|_| "not recorded yet: run it with `LANDFALL_BLESS=1` against Kubernetes".to_owned())?;
    Transcript::from_yaml(&text).map_err(|error| format!("{}: {error}", scenario.recording.display()))
}

/// Random letters: names of different runs must not meet on one server. The hasher of the standard library has a
/// random seed, which is all that is needed here.
pub(crate) fn letters(count: usize) -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let mut number = RandomState::new().hash_one(std::time::Instant::now());
    let mut letter = || {
        let letter = b"bcdfghjklmnpqrstvwxz"[usize::try_from(number % 20).expect("it is below 20")];
        number /= 20;
        char::from(letter)
    };
    (0..count).map(|_| letter()).collect()
}
