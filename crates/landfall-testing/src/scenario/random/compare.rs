//! Asks Kubernetes and another server the same, and looks for the fewest requests that show a difference.

use std::fmt::Write as _;

use futures::StreamExt as _;
use tokio::time::{Duration, Instant};

use crate::scenario::endpoint::Endpoint;
use crate::scenario::play::play;
use crate::scenario::random::RandomScenario;
use crate::scenario::script::Scenario;
use crate::scenario::suite::{Outcome, letters};
use crate::scenario::transcript::{Difference, Transcript};

/// How many scenarios run at a time.
const AT_A_TIME: usize = 4;

/// How long a scenario is cut down. A difference that keeps a watch waiting takes its time in each of the trials.
const CUTTING: Duration = Duration::from_mins(1);

/// Plays scenarios against both servers and compares the answers. `trace` is told every request and answer.
pub async fn check_random(
    scenarios: &[RandomScenario],
    kubernetes: &Endpoint,
    candidate: &Endpoint,
    trace: &dyn Fn(&str),
) -> Outcome {
    let both = Both { kubernetes, candidate, trace };
    let checks = scenarios.iter().map(|scenario| async move { (scenario, both.first_difference(scenario).await) });
    let checked: Vec<_> = futures::stream::iter(checks).buffered(AT_A_TIME).collect().await;
    let mut outcome = Outcome { scenarios: scenarios.len(), ..Outcome::default() };
    for (scenario, difference) in checked {
        match difference {
            None => outcome.identical += 1,
            Some(Found::NotPlayed(why)) => {
                outcome.new += 1;
                writeln!(outcome.report, "{}: {why}", scenario.name()).expect("a string takes every text");
            }
            Some(Found::Difference { at, difference }) => {
                outcome.new += 1;
                outcome.report += &both.explain(scenario, at, difference).await;
            }
        }
    }
    outcome
}

#[derive(Clone, Copy)]
struct Both<'a> {
    kubernetes: &'a Endpoint,
    candidate: &'a Endpoint,
    trace: &'a dyn Fn(&str),
}

/// What keeps a scenario from being identical.
enum Found {
    /// The first step that is answered differently.
    Difference { at: usize, difference: Box<Difference> },
    /// Kubernetes did not do what the scenario waits for, so nothing can be said.
    NotPlayed(String),
}

impl Both<'_> {
    async fn first_difference(&self, scenario: &RandomScenario) -> Option<Found> {
        let scenario = scenario.scenario();
        let (expected, actual) = futures::join!(
            self.play(&scenario, self.kubernetes, "kubernetes"),
            self.play(&scenario, self.candidate, "here")
        );
        let steps = scenario.script.steps.iter().zip(&expected.0);
        let waited = steps.filter(|(step, _)| step.waits()).find_map(|(step, answer)| {
            Some(Found::NotPlayed(format!("{}: Kubernetes: {}", step.name, answer.failure.as_ref()?)))
        });
        waited.or_else(|| {
            let difference = Box::new(actual.differences(&expected).into_iter().next()?);
            let at = scenario.script.steps.iter().position(|step| step.name == difference.step)?;
            Some(Found::Difference { at, difference })
        })
    }

    async fn play(&self, scenario: &Scenario, endpoint: &Endpoint, whose: &str) -> Transcript {
        let namespace = format!("conformance-{}", letters(8));
        let trace = |line: &str| (self.trace)(&format!("{}: {whose}: {line}", scenario.name));
        play(scenario, endpoint, &namespace, &trace).await
    }

    /// Leaves out one step after the other, as long as something differs, and tells what is left.
    async fn explain(&self, scenario: &RandomScenario, at: usize, difference: Box<Difference>) -> String {
        let mut smallest = scenario.clone().prefix(at + 1);
        let mut shown = difference;
        let mut index = at;
        let end = Instant::now() + CUTTING;
        while Instant::now() < end {
            // The last step is the one that differs. Without a part of the definitions nobody would wait for them.
            let shorter = match index.checked_sub(1).filter(|next| *next >= smallest.definitions) {
                Some(next) => {
                    index = next;
                    smallest.without(index)
                }
                None if smallest.definitions > 0 && index > 0 => {
                    index = 0;
                    smallest.without_definitions()
                }
                None => break,
            };
            if let Some(Found::Difference { at, difference }) = self.first_difference(&shorter).await {
                smallest = shorter.prefix(at + 1);
                shown = difference;
                index = index.min(at);
            }
        }
        let RandomScenario { seed, length, .. } = scenario;
        format!(
            "{}: {}\n{}\nthe shortest scenario that shows it; all of it: `--random {seed} --steps {length} --verbose`\n\n{}\n",
            scenario.name(),
            shown.step,
            shown.diff(),
            smallest.source(),
        )
    }
}
