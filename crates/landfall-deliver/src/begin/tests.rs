//! What stands against the beginning of a release that has waited.

use landfall_model::Baseline;
use serde_json::json;

use super::*;
use crate::analysis::Judge;
use crate::plan::CountedBy;
use crate::release::{RELEASE, annotate};

fn template(image: &str, configuration: &str) -> Value {
    json!({
        "metadata": { "annotations": { CONFIGURATION: configuration } },
        "spec": { "containers": [{ "name": "web", "image": image }] },
    })
}

fn rules(port: u16) -> Value {
    json!([{ "backendRefs": [{ "name": "web", "port": port }] }])
}

fn canary(split: Split) -> Strategy {
    let mut plan = CanaryPlan {
        declared: vec![250_000, 500_000],
        steps: Vec::new(),
        split,
        counted_by: CountedBy::Gateway,
        judge: Judge { failures: Some(0.01), p99_ms: None, verdicts: 2, metrics: Vec::new() },
        metrics_at: None,
        decide_within_seconds: 600,
        copies: 0,
        baseline: Baseline::Stable,
        has_baseline: false,
        ceiling: None,
    };
    let size = plan.size_beside(3, Some(Bounds { floor: 2, ceiling: 12 })).expect("it fits");
    plan.resize(&size);
    Strategy::Canary(plan)
}

/// A service that was planned beside three copies of an autoscaler with at most 12.
fn service(strategy: Strategy) -> ServiceRelease {
    ServiceRelease {
        strategy,
        copies: Some(3),
        old_template: template("shop/web:1", "aa"),
        new_template: template("shop/web:2", "bb"),
        route_rules: Some(rules(80)),
        autoscaler_ceiling: Some(12),
        ..ServiceRelease::sample("web")
    }
}

fn found() -> Found {
    Found {
        template: template("shop/web:1", "aa"),
        copies: 3,
        settled: true,
        autoscaler: Some(Bounds { floor: 2, ceiling: 12 }),
        route_rules: Some(rules(80)),
        mesh_rules: None,
        configuration: Some("bb".to_owned()),
    }
}

fn told(strategy: Strategy, found: Option<&Found>) -> String {
    match compare(&service(strategy), found, false) {
        Finding::Same => "same".to_owned(),
        Finding::Replanned(again) => {
            format!("beside {}: {:?}, {:?}", again.beside, again.size.split, again.size.ceiling)
        }
        Finding::Changed(what) => what.join("\n"),
        Finding::Waits(why) => format!("waits: {why}"),
    }
}

#[test]
fn what_somebody_has_changed_is_not_undone() {
    for strategy in [Strategy::Rolling, canary(Split::Route), canary(Split::Copies(Vec::new()))] {
        assert_eq!(told(strategy, Some(&found())), "same");
    }
    let with = |strategy: Strategy, change: fn(&mut Found)| {
        let mut found = found();
        change(&mut found);
        told(strategy, Some(&found))
    };
    insta::assert_snapshot!(told(Strategy::Rolling, None), @"the Deployment `web` has gone");
    insta::assert_snapshot!(with(Strategy::Rolling, |found| found.template = template("shop/web:hotfix", "aa")), @"somebody has changed the pods of `web` (/spec/containers/0/image)");
    insta::assert_snapshot!(with(Strategy::Rolling, |found| found.configuration = Some("cc".to_owned())), @"somebody has changed a ConfigMap or Secret that `web` reads");
    insta::assert_snapshot!(with(canary(Split::Route), |found| found.route_rules = Some(rules(81))), @"somebody has changed the rules of the HTTPRoute `web`");
    insta::assert_snapshot!(with(canary(Split::Route), |found| found.autoscaler = None), @"somebody has taken away the autoscaler of `web`");
    // To which release pods belong, and that somebody started them again, changes nothing.
    assert_eq!(with(Strategy::Rolling, |found| annotate(&mut found.template, RELEASE, "shop-6")), "same");
    assert_eq!(
        with(Strategy::Rolling, |found| annotate(&mut found.template, "kubectl.kubernetes.io/restartedAt", "now")),
        "same"
    );
    // Routes and copies are nobody's business when copies are replaced one by one.
    assert_eq!(with(Strategy::Rolling, |found| (found.copies, found.route_rules) = (9, None)), "same");
}

#[test]
fn a_canary_beside_copies_that_an_autoscaler_has_changed_is_planned_again() {
    let beside = |split: Split, copies: u32| told(canary(split), Some(&Found { copies, ..found() }));
    insta::assert_snapshot!(beside(Split::Copies(Vec::new()), 6), @"beside 6: Copies([2, 6]), Some(6)");
    insta::assert_snapshot!(beside(Split::Route, 6), @"beside 6: Route, Some(9)");
    insta::assert_snapshot!(beside(Split::Route, 11), @"waits: 11 of at most 12 copies run now, which leaves no room for a canary of 6: wait until it is quieter, or raise `replicas.max`");
    let replaced = Found { settled: false, ..found() };
    insta::assert_snapshot!(told(canary(Split::Route), Some(&replaced)), @"waits: copies of `web` are being replaced at this moment");
    let mut by_hand = service(canary(Split::Route));
    by_hand.autoscaler_ceiling = None;
    let scaled = Found { copies: 5, autoscaler: None, ..found() };
    let expected = Finding::Changed(vec!["somebody has changed the copies of `web` from 3 to 5".to_owned()]);
    assert_eq!(compare(&by_hand, Some(&scaled), false), expected);
}

#[test]
fn what_goes_back_reads_the_configuration_of_today() {
    let changed = Found { configuration: Some("cc".to_owned()), ..found() };
    assert_eq!(compare(&service(Strategy::Rolling), Some(&changed), true), Finding::Same);
}
