//! Every rule finds nothing in its passing example, and something in its failing one.
//!
//! Raw `objects` of an example stand for the rendered ones: this crate does not see the renderer.

use landfall_check::{RULES, Rendering, Report, check};
use landfall_model::File;

/// The date on which the examples are checked.
const TODAY: &str = "2026-11-21";

/// Rules whose failing example is found elsewhere: a file of more than 8 MiB and one that is not UTF-8 by the tests of
/// `landfall-model`, what cannot be rendered by those of the program.
const STANDS_FOR_ANOTHER: [&str; 3] = ["file-too-large", "not-utf-8", "not-rendered"];

fn report(text: &str) -> Result<Report, Vec<String>> {
    let file = File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(format!("no file `{path}`")));
    let rules = |findings: Vec<landfall_model::Finding>| findings.iter().map(|f| f.rule.to_owned()).collect::<Vec<_>>();
    let architecture = file.architecture(None).map_err(rules)?;
    let objects: Vec<_> = architecture.document.objects.iter().map(|object| object.value.clone()).collect();
    Ok(check(&architecture, Rendering { objects: &objects, findings: &[] }, TODAY.parse().expect("the date is a date")))
}

fn rules_found(text: &str) -> Vec<String> {
    match report(text) {
        Ok(report) => report.findings.iter().map(|finding| finding.rule.to_owned()).collect(),
        Err(rules) => rules,
    }
}

#[test]
fn every_rule_finds_nothing_in_its_passing_example() {
    for rule in RULES {
        let found = rules_found(rule.passing);
        assert!(
            !found.iter().any(|found| found == rule.name),
            "`{}` finds something in its passing example",
            rule.name
        );
        assert!(report(rule.passing).is_ok(), "the passing example of `{}` is not read: {found:?}", rule.name);
    }
}

#[test]
fn every_rule_finds_something_in_its_failing_example() {
    for rule in RULES.iter().filter(|rule| !STANDS_FOR_ANOTHER.contains(&rule.name)) {
        let found = rules_found(rule.failing);
        assert!(
            found.iter().any(|found| found == rule.name),
            "`{}` finds nothing in its failing example: {found:?}",
            rule.name
        );
    }
}

#[test]
fn rule_names_are_unique_and_sorted_by_subject() {
    let keys: Vec<_> = RULES.iter().map(|rule| (rule.subject, rule.name)).collect();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(keys, sorted, "keep RULES sorted by subject and name");
}
