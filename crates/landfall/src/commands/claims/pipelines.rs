//! What runs of the pipeline on this machine have shown of the claims. Pure.

use std::collections::BTreeMap;

use landfall_deliver::Receipt;

use crate::commands::pipeline::{Run, StageRecord, State, StepRecord};

/// Words that only a release can show, though a stage may have such a name: whoever names a stage has not signed anything.
const OF_RELEASES: [&str; 5] = ["rolling", "canary", "approval", "promotion", "checklist"];

/// The steps that scan something.
const SCANS: [&str; 3] = ["sast", "image-scan", "dast"];

/// Whether a run has shown what is wanted, for each environment in which it tried.
///
/// A word is the name of a stage, else of an environment, else of a step: each has shown itself when it ran and passed, and has
/// not when it failed.
pub(super) fn shown(run: &Run, words: &[&str]) -> BTreeMap<Option<String>, bool> {
    let mut all: BTreeMap<Option<String>, bool> = BTreeMap::new();
    for stage in &run.stages {
        if let Some(held) = of_stage(run, stage, words) {
            let known = all.entry(stage.environment.clone()).or_insert(true);
            *known = *known && held;
        }
    }
    all
}

fn of_stage(run: &Run, stage: &StageRecord, words: &[&str]) -> Option<bool> {
    let named = |word: &str| stage.name == word;
    let within = |word: &str| stage.environment.as_deref() == Some(word);
    let steps = |wanted: &dyn Fn(&str) -> bool| passed(stage.steps.iter().filter(|step| wanted(&step.name)));
    let any = |wanted: &dyn Fn(&StageRecord) -> bool| run.stages.iter().any(wanted);
    match *words {
        ["rollback"] => taken_back(stage),
        ["rollback", place] if within(place) => taken_back(stage),
        ["failed-tests"] => told_of_failed_tests(run, stage),
        ["digests"] => steps(&|name| name == "push").map(|pushed| pushed && has_digests(run)),
        [word] if OF_RELEASES.contains(&word) => None,
        [word] if any(&|stage| stage.name == word) => named(word).then(|| whole(stage))?,
        [word] if any(&|stage| stage.environment.as_deref() == Some(word)) => within(word).then(|| whole(stage))?,
        ["scan"] => steps(&|name| SCANS.contains(&name)),
        [word] => steps(&|name| name == word),
        _ => None,
    }
}

/// Whether a stage has passed with all its steps; nothing when it was not run to its end.
fn whole(stage: &StageRecord) -> Option<bool> {
    is_good(stage.state).filter(|_| !stage.steps.is_empty())
}

/// Whether all of these have passed; nothing when none has run to its end.
fn passed<'a>(steps: impl Iterator<Item = &'a StepRecord>) -> Option<bool> {
    steps.filter_map(|step| is_good(step.state)).reduce(|a, b| a && b)
}

fn is_good(state: State) -> Option<bool> {
    match state {
        State::Passed => Some(true),
        State::Failed | State::TimedOut => Some(false),
        State::Planned | State::Running | State::Interrupted | State::Waiting => None,
    }
}

/// Whether what a stage has deployed was taken back. Where nothing was deployed, the step `rollback` has nothing to do.
fn taken_back(stage: &StageRecord) -> Option<bool> {
    let step = |wanted: &str| passed(stage.steps.iter().filter(|step| step.name == wanted));
    step("deploy").filter(|deployed| *deployed)?;
    step("rollback")
}

/// Whether somebody was told that tests have failed; nothing when none has, or nobody was to be told.
fn told_of_failed_tests(run: &Run, stage: &StageRecord) -> Option<bool> {
    let mut tests = stage.steps.iter().filter(|step| step.name.ends_with("-test"));
    if !tests.any(|step| is_good(step.state) == Some(false)) {
        return None;
    }
    let told = run.notices.iter().filter_map(|notice| match &notice.receipt {
        Receipt::ToSend { .. } => None,
        Receipt::Sent { .. } => Some(true),
        Receipt::GivenUp { .. } => Some(false),
    });
    told.reduce(|a, b| a && b)
}

fn has_digests(run: &Run) -> bool {
    !run.images.is_empty() && run.images.values().all(|image| image.contains("@sha256:"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A run with stages as `NAME ENVIRONMENT STATE: STEP STATE, STEP STATE`.
    fn run(stages: &[&str]) -> Run {
        let step = |text: &str| {
            let (name, state) = text.trim().split_once(' ').expect("a step has a state");
            json!({ "name": name, "command": "", "state": state, "tail": [], "log": "", "reports": [] })
        };
        let stage = |text: &&str| {
            let (head, steps) = text.split_once(": ").expect("a stage has steps");
            let words: Vec<&str> = head.split(' ').collect();
            let environment = Some(words[1]).filter(|word| *word != "-");
            let steps: Vec<_> = steps.split(',').map(step).collect();
            json!({ "name": words[0], "environment": environment, "state": words[2], "steps": steps })
        };
        let run = json!({
            "version": 1, "number": 7, "name": "shop", "by": "ada", "state": "passed", "started": "2026-11-28T12:00:00Z",
            "stages": stages.iter().map(stage).collect::<Vec<_>>(), "images": {},
        });
        serde_json::from_value(run).expect("it is a run")
    }

    /// What a run has shown, as `ENVIRONMENT held`.
    fn check(run: &Run, words: &str, expected: &[&str]) {
        let words: Vec<&str> = words.split(' ').collect();
        let line = |(environment, held): (Option<String>, bool)| {
            format!("{} {}", environment.as_deref().unwrap_or("-"), if held { "held" } else { "broke" })
        };
        let lines: Vec<String> = shown(run, &words).into_iter().map(line).collect();
        assert_eq!(lines, expected, "{words:?}");
    }

    #[test]
    fn a_step_and_a_stage_show_themselves_by_running() {
        let run = run(&[
            "scan - passed: sast passed, image-scan passed",
            "staging staging passed: deploy passed, smoke passed, dast passed",
            "production production waiting: deploy planned, smoke planned",
        ]);
        check(&run, "smoke", &["staging held"]);
        check(&run, "scan", &["- held"]);
        check(&run, "staging", &["staging held"]);
        check(&run, "production", &[]);
        check(&run, "gitops", &[]);
        check(&run, "rollback", &[]);
    }

    #[test]
    fn an_environment_has_all_its_stages_and_a_scan_may_be_a_step_of_any() {
        let stages =
            ["build - passed: compile passed, sast passed", "validation staging passed: deploy passed, dast passed"];
        check(&run(&stages), "staging", &["staging held"]);
        check(&run(&stages), "scan", &["- held", "staging held"]);
        let more = [stages[0], stages[1], "pre-production staging failed: smoke failed"];
        check(&run(&more), "staging", &["staging broke"]);
        check(&run(&more), "smoke", &["staging broke"]);
    }

    #[test]
    fn what_failed_is_taken_back_where_it_was() {
        let run = run(&["staging staging failed: deploy passed, smoke timed-out, rollback passed"]);
        check(&run, "rollback", &["staging held"]);
        check(&run, "rollback staging", &["staging held"]);
        check(&run, "rollback production", &[]);
        check(&run, "staging", &["staging broke"]);
        let nothing = self::run(&["staging staging failed: deploy failed, rollback passed"]);
        check(&nothing, "rollback", &[]);
    }

    #[test]
    fn an_approval_is_shown_by_a_signature_and_not_by_the_name_of_a_stage() {
        let run = run(&["approval production passed: approval passed", "canary production passed: deploy passed"]);
        check(&run, "approval", &[]);
        check(&run, "canary", &[]);
    }

    #[test]
    fn images_are_pushed_by_digests_or_not() {
        let mut run = run(&["push - passed: push passed"]);
        check(&run, "digests", &["- broke"]);
        run.images.insert("web".to_owned(), "shop/web@sha256:aa".to_owned());
        check(&run, "digests", &["- held"]);
        run.images.insert("api".to_owned(), "shop/api:2".to_owned());
        check(&run, "digests", &["- broke"]);
    }

    #[test]
    fn failed_tests_are_told_to_somebody_who_takes_it() {
        let mut run = run(&["test - failed: unit-test passed, integration-test failed"]);
        check(&run, "failed-tests", &[]);
        let notice = |receipt: serde_json::Value| {
            let message = json!({
                "version": 1, "id": "1", "event": "failed", "to": "ops", "at": "2026-11-28T12:00:00Z", "text": "it failed",
                "architecture": "shop",
            });
            let notice =
                json!({ "by": { "file": "told.jsonl" }, "message": message, "attempts": 1, "receipt": receipt });
            serde_json::from_value(notice).expect("it is a notice")
        };
        run.notices.push(notice(json!({ "sent": { "at": "2026-11-28T12:00:01Z", "answer": "200" } })));
        check(&run, "failed-tests", &["- held"]);
        run.notices.push(notice(json!({ "givenUp": { "at": "2026-11-29T12:00:01Z", "why": "nobody answers" } })));
        check(&run, "failed-tests", &["- broke"]);
        check(&self::run(&["test - passed: unit-test passed"]), "failed-tests", &[]);
    }
}
