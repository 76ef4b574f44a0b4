//! Waivers: they silence one rule on one thing until a date, and are checked themselves.

use std::collections::BTreeMap;

use landfall_model::{Finding, suggestion};

use crate::report::Report;
use crate::rule::{Context, Subject};
use crate::rules::RULES;

/// The name under which waivers are reported.
pub(crate) const WAIVER: &str = "waiver";

/// Moves the findings that a valid waiver names to `report.waived`, and reports waivers that are expired, name no rule
/// that can be waived, or silence nothing.
///
/// A finding about a waiver cannot be waived.
pub(crate) fn apply(context: &Context<'_>, report: &mut Report) {
    let waivers = &context.architecture.document.waivers;
    let mut told = Vec::new();
    // By rule and thing: which waiver it is, and how many findings it has silenced.
    let mut valid: BTreeMap<&str, BTreeMap<&str, (usize, usize)>> = BTreeMap::new();
    for (index, waiver) in waivers.iter().enumerate() {
        let rule = &waiver.rule;
        let Some(known) = RULES.iter().find(|known| known.name == rule.as_str()) else {
            let finding = Finding::error(WAIVER, rule.span, format!("there is no rule `{rule}`"));
            let near = suggestion(rule, RULES.iter().map(|known| known.name));
            told.push(finding.help(near.map_or_else(
                || "`landfall explain rules` lists them".to_owned(),
                |near| format!("did you mean `{near}`?"),
            )));
            continue;
        };
        if known.subject == Subject::Language || known.name == WAIVER {
            let finding = Finding::error(WAIVER, rule.span, format!("the rule `{rule}` cannot be waived"));
            told.push(finding.help("mend what it finds: without that the file has no meaning"));
            continue;
        }
        if waiver.until.value < context.today {
            let finding = Finding::error(
                WAIVER,
                waiver.until.span,
                format!("the waiver of `{rule}` on `{}` has expired", waiver.on),
            );
            told.push(finding.help("mend what it excused, or decide again and move the date"));
            continue;
        }
        if let Some((first, _)) = valid.entry(rule).or_default().insert(&waiver.on, (index, 0)) {
            let message = format!("`{rule}` on `{}` is waived twice", waiver.on);
            told.push(
                Finding::error(WAIVER, rule.span, message)
                    .also(waivers[first].rule.span, "the other one")
                    .help("keep one of them"),
            );
        }
    }
    let silenced = |finding: &mut Finding| {
        let on = finding.subject.as_deref().unwrap_or_default();
        let waiver = valid.get_mut(finding.rule).and_then(|things| things.get_mut(on));
        waiver.map(|(_, count)| *count += 1).is_some()
    };
    report.waived.extend(report.findings.extract_if(.., silenced));
    for (rule, things) in valid {
        for (on, (index, _)) in things.into_iter().filter(|(_, (_, count))| *count == 0) {
            let message = format!("the waiver of `{rule}` on `{on}` silences nothing here");
            told.push(
                Finding::note(WAIVER, waivers[index].rule.span, message).help("remove it once no environment needs it"),
            );
        }
    }
    report.findings.extend(told.into_iter().map(|finding| finding.on("waivers")));
}

#[cfg(test)]
mod tests {
    use landfall_model::File;

    use crate::{Rendering, Report, check};

    /// The report on a service with a moving tag and these waivers.
    fn report(waivers: &str) -> Report {
        let text = format!(
            "landfall: v1\nname: shop\nservices:\n  web: {{ image: web:latest, port: 80, expose: {{ host: shop.example, tls: letsencrypt }} }}\nwaivers:\n{waivers}"
        );
        let file = File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(path.to_owned()));
        let architecture = file.architecture(None).expect("the file of the test can be read");
        check(&architecture, Rendering { objects: &[], findings: &[] }, "2026-11-21".parse().expect("a date"))
    }

    /// Each finding about waivers, and whether the tag is still reported.
    #[track_caller]
    fn check_waivers(waivers: &str, expected: &[&str], tag_is_reported: bool) {
        let report = report(waivers);
        let about: Vec<&str> = report
            .findings
            .iter()
            .filter(|finding| finding.rule == "waiver")
            .map(|finding| finding.message.as_str())
            .collect();
        assert_eq!(about, expected);
        assert_eq!(report.findings.iter().any(|finding| finding.rule == "mutable-tag"), tag_is_reported);
        assert_eq!(report.waived.len(), usize::from(!tag_is_reported));
    }

    #[test]
    fn a_waiver_silences_one_rule_on_one_thing() {
        check_waivers("  - { rule: mutable-tag, on: service.web, because: tried, until: 2026-11-21 }", &[], false);
    }

    #[test]
    fn a_waiver_counts_on_its_last_day_and_not_after() {
        let expired = "the waiver of `mutable-tag` on `service.web` has expired";
        check_waivers(
            "  - { rule: mutable-tag, on: service.web, because: tried, until: 2026-11-20 }",
            &[expired],
            true,
        );
    }

    #[test]
    fn a_waiver_on_another_thing_silences_nothing() {
        let note = "the waiver of `mutable-tag` on `service.api` silences nothing here";
        check_waivers("  - { rule: mutable-tag, on: service.api, because: tried, until: 2027-01-01 }", &[note], true);
    }

    #[test]
    fn a_waiver_names_a_rule_that_can_be_waived() {
        check_waivers(
            "  - { rule: mutable-tags, on: service.web, because: tried, until: 2027-01-01 }",
            &["there is no rule `mutable-tags`"],
            true,
        );
        check_waivers(
            "  - { rule: unknown-key, on: service.web, because: tried, until: 2027-01-01 }",
            &["the rule `unknown-key` cannot be waived"],
            true,
        );
        check_waivers(
            "  - { rule: waiver, on: waivers, because: tried, until: 2027-01-01 }",
            &["the rule `waiver` cannot be waived"],
            true,
        );
    }

    #[test]
    fn two_waivers_of_one_thing_are_one_too_many() {
        let both = "  - { rule: mutable-tag, on: service.web, because: a, until: 2027-01-01 }\n  - { rule: mutable-tag, on: service.web, because: b, until: 2027-02-01 }";
        check_waivers(both, &["`mutable-tag` on `service.web` is waived twice"], false);
    }
}
