//! Samples that decide, that do not, and that do not come.

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::analysis::Counts;
use crate::observe::{Seen, Workload, observe};
use crate::plan::{CanaryPlan, CountedBy, Split, Strategy};
use crate::release::{ReleaseSpec, ServiceRelease, Window};
use crate::rollout::{Event, Phase, Reason, Stage};

fn lag() -> CanaryMetric {
    CanaryMetric {
        name: "lag".to_owned(),
        query: "max(lag{pod=~\"{{pods}}\"})".to_owned(),
        bound: Bound::AtMost(10.0),
        every_seconds: 15,
    }
}

/// A release with a canary that is judged by its failures and by a metric.
fn release(metric: CanaryMetric) -> ReleaseSpec {
    let mut plan = CanaryPlan::sample();
    plan.judge.metrics = vec![metric];
    ReleaseSpec::sample(vec![ServiceRelease { strategy: Strategy::Canary(plan), ..ServiceRelease::sample("web") }])
}

/// A canary that answers as it should, while its metric is asked for.
struct Played {
    spec: ReleaseSpec,
    status: ReleaseStatus,
    now: Timestamp,
    good: u64,
    /// What the old version has, where it is asked.
    stable: Option<Answer>,
    /// Whether somebody counts what the canary answers.
    counts: bool,
}

impl Played {
    fn start(metric: CanaryMetric) -> Self {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        let phase = Phase::Progressing { service: 0, stage: Stage::Judging { step: 0 } };
        let status = ReleaseStatus { phase, since: Some(now.to_string()), ..ReleaseStatus::default() };
        let mut played = Self { spec: release(metric), status, now, good: 0, stable: None, counts: true };
        assert_eq!(played.look(3, &Answer::Value(0.0)), None, "what came before does not count");
        assert_eq!(played.status.metrics, Vec::new());
        played
    }

    fn metrics(&self) -> Vec<CanaryMetric> {
        match &self.spec.services[0].strategy {
            Strategy::Canary(plan) => plan.judge.metrics.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// A look some seconds later, at which a metric that is due has this answer.
    fn look(&mut self, seconds: i64, answer: &Answer) -> Option<Event> {
        self.now += SignedDuration::from_secs(seconds);
        self.good += if self.counts { 1000 } else { 0 };
        let due = self.status.due(&self.metrics(), self.now);
        let sample = |metric| Sample { metric, answer: answer.clone(), stable: self.stable.clone() };
        let samples = due.into_iter().map(sample).collect();
        let canary = Counts { good: self.good, bad: 0, buckets: Vec::new(), timed: self.good };
        let seen = Seen {
            workloads: vec![Some(Workload { name: "web-canary".to_owned(), done: true, ..Workload::default() })],
            counted: Some(vec![Window { canary, stable: Counts::default() }]),
            samples,
            understood: true,
            ..Seen::default()
        };
        observe(&self.spec, &mut self.status, &seen, self.now)
    }

    /// The same after 15 s: the verdict on everything, and what the metric shows.
    fn sample(&mut self, answer: &Answer) -> String {
        let event = self.look(15, answer);
        let Some(Event::Judged(verdict, _)) = event else { panic!("{event:?}") };
        let lines = self.status.analysis.as_ref().map(|analysis| analysis.lines.clone()).unwrap_or_default();
        format!("{} | {}\n", verdict.as_str(), lines.last().map(String::as_str).unwrap_or_default())
    }
}

fn told(answers: &[Answer]) -> String {
    let mut played = Played::start(lag());
    answers.iter().map(|answer| played.sample(answer)).collect()
}

#[test]
fn three_samples_in_a_row_decide_and_fewer_do_not() {
    let values = |values: &[f64]| told(&values.iter().copied().map(Answer::Value).collect::<Vec<_>>());
    insta::assert_snapshot!(values(&[4.0, 4.0, 10.0]), @"
    inconclusive | `lag` at most 10: 4 is within, 1 in a row, 3 decide: inconclusive; 1 of 1 samples were within
    inconclusive | `lag` at most 10: 4 is within, 2 in a row, 3 decide: inconclusive; 2 of 2 samples were within
    pass | `lag` at most 10: 10 is within, 3 in a row, 3 decide: pass; 3 of 3 samples were within
    ");
    insta::assert_snapshot!(values(&[4.0, 12.5, 12.5, 4.0, 12.5, 12.5, 12.5]), @"
    inconclusive | `lag` at most 10: 4 is within, 1 in a row, 3 decide: inconclusive; 1 of 1 samples were within
    inconclusive | `lag` at most 10: 12.5 is beyond, 1 in a row, 3 decide: inconclusive; 1 of 2 samples were within
    inconclusive | `lag` at most 10: 12.5 is beyond, 2 in a row, 3 decide: inconclusive; 1 of 3 samples were within
    inconclusive | `lag` at most 10: 4 is within, 1 in a row, 3 decide: inconclusive; 2 of 4 samples were within
    inconclusive | `lag` at most 10: 12.5 is beyond, 1 in a row, 3 decide: inconclusive; 2 of 5 samples were within
    inconclusive | `lag` at most 10: 12.5 is beyond, 2 in a row, 3 decide: inconclusive; 2 of 6 samples were within
    fail | `lag` at most 10: 12.5 is beyond, 3 in a row, 3 decide: fail; 2 of 7 samples were within
    ");
}

/// What verdicts say of pairs: what the canary has, and what the old version has at the same time.
fn beside(bound: Bound, pairs: &[(Answer, Answer)]) -> String {
    let mut played = Played::start(CanaryMetric { bound, ..lag() });
    let mut sample = |(own, stable): &(Answer, Answer)| {
        played.stable = Some(stable.clone());
        played.sample(own)
    };
    pairs.iter().map(&mut sample).collect()
}

fn values(pairs: &[(f64, f64)]) -> Vec<(Answer, Answer)> {
    pairs.iter().map(|(own, stable)| (Answer::Value(*own), Answer::Value(*stable))).collect()
}

#[test]
fn a_bound_that_is_relative_goes_by_what_the_old_version_has_at_the_same_time() {
    let most = Bound::AtMostOfStable(1.2);
    insta::assert_snapshot!(beside(most, &values(&[(48.0, 40.0), (60.0, 40.0), (60.0, 40.0), (120.0, 80.0)])), @"
    inconclusive | `lag` at most 1.2 times the old version's: 48, 1.2 times its 40, is within, 1 in a row, 3 decide: inconclusive; 1 of 1 samples were within
    inconclusive | `lag` at most 1.2 times the old version's: 60, 1.5 times its 40, is beyond, 1 in a row, 3 decide: inconclusive; 1 of 2 samples were within
    inconclusive | `lag` at most 1.2 times the old version's: 60, 1.5 times its 40, is beyond, 2 in a row, 3 decide: inconclusive; 1 of 3 samples were within
    fail | `lag` at most 1.2 times the old version's: 120, 1.5 times its 80, is beyond, 3 in a row, 3 decide: fail; 1 of 4 samples were within
    ");
    // A trouble that both share is not the version's.
    insta::assert_snapshot!(beside(most, &values(&[(300.0, 290.0), (310.0, 300.0), (0.0, 0.0)])), @"
    inconclusive | `lag` at most 1.2 times the old version's: 300, 1.034 times its 290, is within, 1 in a row, 3 decide: inconclusive; 1 of 1 samples were within
    inconclusive | `lag` at most 1.2 times the old version's: 310, 1.033 times its 300, is within, 2 in a row, 3 decide: inconclusive; 2 of 2 samples were within
    pass | `lag` at most 1.2 times the old version's: 0 beside its 0 is within, 3 in a row, 3 decide: pass; 3 of 3 samples were within
    ");
    insta::assert_snapshot!(beside(Bound::AtLeastOfStable(0.9), &values(&[(0.8, 1.0), (0.9, 1.0)])), @"
    inconclusive | `lag` at least 0.9 times the old version's: 0.8, 0.8 times its 1, is beyond, 1 in a row, 3 decide: inconclusive; 0 of 1 samples were within
    inconclusive | `lag` at least 0.9 times the old version's: 0.9, 0.9 times its 1, is within, 1 in a row, 3 decide: inconclusive; 1 of 2 samples were within
    ");
}

#[test]
fn silence_on_either_side_of_a_relative_bound_holds() {
    let nothing = || Answer::NoData("there is no such series".to_owned());
    let pairs = [
        (nothing(), Answer::Value(4.0)),
        (Answer::Value(4.0), nothing()),
        (Answer::Value(4.0), Answer::Value(-1.0)),
        (Answer::Value(4.0), Answer::Value(4.0)),
    ];
    insta::assert_snapshot!(beside(Bound::AtMostOfStable(1.2), &pairs), @"
    no data | `lag` at most 1.2 times the old version's: no data: there is no such series; 0 of 1 samples were within
    no data | `lag` at most 1.2 times the old version's: no data: of the old version: there is no such series; 0 of 2 samples were within
    no data | `lag` at most 1.2 times the old version's: no data: the old version has -1, of which nothing is a multiple; 0 of 3 samples were within
    inconclusive | `lag` at most 1.2 times the old version's: 4, 1 times its 4, is within, 1 in a row, 3 decide: inconclusive; 1 of 4 samples were within
    ");
}

#[test]
fn a_metric_that_is_silent_begins_its_row_anew_and_holds() {
    let nothing = Answer::NoData("there is no such series".to_owned());
    let four = Answer::Value(4.0);
    insta::assert_snapshot!(told(&[four.clone(), four.clone(), nothing, four.clone(), four]), @"
    inconclusive | `lag` at most 10: 4 is within, 1 in a row, 3 decide: inconclusive; 1 of 1 samples were within
    inconclusive | `lag` at most 10: 4 is within, 2 in a row, 3 decide: inconclusive; 2 of 2 samples were within
    no data | `lag` at most 10: no data: there is no such series; 2 of 3 samples were within
    inconclusive | `lag` at most 10: 4 is within, 1 in a row, 3 decide: inconclusive; 3 of 4 samples were within
    inconclusive | `lag` at most 10: 4 is within, 2 in a row, 3 decide: inconclusive; 4 of 5 samples were within
    ");
}

#[test]
fn a_metric_that_does_not_exist_is_waited_for_until_the_deadline_and_then_it_goes_back() {
    let nothing = Answer::NoData("there is no such series".to_owned());
    let mut played = Played::start(lag());
    loop {
        let event = played.look(15, &nothing).expect("its requests are counted");
        let next = played.status.phase.next(&event, &played.spec.plan());
        match event {
            Event::Judged(Verdict::NoData, _) => assert_eq!(next, None, "silence goes nowhere"),
            Event::DeadlinePassed(why) => {
                assert!(
                    why.starts_with("not decided within 600 s") && why.contains("there is no such series"),
                    "{why}"
                );
                let (phase, _) = next.expect("it goes back");
                assert_eq!(phase.cause().map(|cause| cause.reason), Some(Reason::Undecided));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn where_nobody_counts_metrics_judge_alone_and_nothing_is_said_of_requests() {
    let mut played = Played::start(lag());
    if let Strategy::Canary(plan) = &mut played.spec.services[0].strategy {
        (plan.split, plan.counted_by) = (Split::Consumers(vec![1]), CountedBy::Nobody);
        (plan.judge.failures, plan.judge.verdicts) = (None, 0);
    }
    played.counts = false;
    played.status = ReleaseStatus { windows: Vec::new(), ..played.status };
    assert_eq!(played.look(3, &Answer::Value(0.0)), None, "what came before does not count");
    insta::assert_snapshot!((0..3).map(|_| played.sample(&Answer::Value(4.0))).collect::<String>(), @"
    inconclusive | `lag` at most 10: 4 is within, 1 in a row, 3 decide: inconclusive; 1 of 1 samples were within
    inconclusive | `lag` at most 10: 4 is within, 2 in a row, 3 decide: inconclusive; 2 of 2 samples were within
    pass | `lag` at most 10: 4 is within, 3 in a row, 3 decide: pass; 3 of 3 samples were within
    ");
    assert_eq!(played.status.answered, Vec::new());
}

#[test]
fn a_sample_is_taken_as_often_as_the_file_says_also_by_whoever_comes_next() {
    let mut played = Played::start(lag());
    let metrics = played.metrics();
    let is_due = |played: &Played, seconds| {
        let later = played.now + SignedDuration::from_secs(seconds);
        !played.status.due(&metrics, later).is_empty()
    };
    assert!(!is_due(&played, 11) && is_due(&played, 12), "the canary has its share for 15 s");
    played.sample(&Answer::Value(4.0));
    // What is written down is all that the next one knows.
    let text = serde_json::to_string(&played.status).expect("a status can be written");
    played.status = serde_json::from_str(&text).expect("and read");
    assert!(!is_due(&played, 14) && is_due(&played, 15));
    assert!(played.sample(&Answer::Value(4.0)).contains("2 in a row"));
}

#[test]
fn a_query_is_about_the_pods_of_the_canary() {
    let query = "rate(a{namespace=\"{{namespace}}\",pod=~\"{{pods}}\"}[{{window}}])";
    let metric = CanaryMetric { query: query.to_owned(), ..lag() };
    assert_eq!(
        metric.expression("shop", "web-canary", 31),
        "rate(a{namespace=\"shop\",pod=~\"web-canary-[a-z0-9]+-[a-z0-9]{5}\"}[31s])"
    );
    assert!(metric.expression("shop", "web", 0).ends_with("[1s])"), "there is no range without a time");
}

#[test]
fn people_sign_what_a_canary_is_judged_by() {
    let with = |metric: CanaryMetric| release(metric).computed_digest();
    assert_ne!(with(lag()), with(CanaryMetric { bound: Bound::AtMost(11.0), ..lag() }));
    assert_ne!(with(lag()), with(CanaryMetric { bound: Bound::AtMostOfStable(10.0), ..lag() }));
    assert_ne!(with(lag()), with(CanaryMetric { query: "vector(0)".to_owned(), ..lag() }));
    // What was signed before there were such metrics is still what it was.
    assert_eq!(json!(CanaryPlan::sample().judge), json!({ "failures": 0.01, "p99Ms": null, "verdicts": 1 }));
}
