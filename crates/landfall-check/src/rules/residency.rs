//! Residency: data, its backups and its copies stay in the countries that the file names.

use landfall_model::{Architecture, Finding, Name, Region, Severity, Span, Spanned};

use super::wording::{either, proof};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "residency",
    subject: Subject::Security,
    severity: Severity::Error,
    summary: "Stores, backups, copies and the standby stay in the countries of `platform.residency`.",
    explanation: "A promise of data residency covers every place where the data comes to rest: the store itself, the bucket \
        of its backups, each region with a copy of them, each region it is replicated to, and the standby region. The rule \
        follows all of these to the `country` of their region. A region without a country leaves the promise undecided, \
        which is an error where it keeps data: nobody can audit it. Not handled: data that services send to externals.",
    passing: include_str!("../../tests/it/rules/residency/ok.yaml"),
    failing: include_str!("../../tests/it/rules/residency/bad.yaml"),
    run: Some(run),
};

/// A place where data comes to rest.
struct Resting<'a> {
    what: String,
    region: Option<(&'a Spanned<Name>, &'a Region)>,
    at: Span,
}

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let allowed = &architecture.document.platform.residency;
    if allowed.is_empty() {
        return;
    }
    for (subject, span, places) in resting(architecture) {
        let (mut refuted, mut undecided) = (false, false);
        let mut derivation = Vec::new();
        for place in places {
            let Some((name, region)) = place.region else {
                derivation.push(format!("{}: in no declared region", place.what));
                undecided = true;
                let message = format!("{} is in no declared region, so its country is not known", place.what);
                let finding = Finding::error(RULE.name, place.at, message).on(subject.clone());
                report.findings.push(finding.help("declare the region under `platform.regions`, with its `country`"));
                continue;
            };
            let Some(country) = &region.country else {
                derivation.push(format!("{}: region {name}, country unknown", place.what));
                undecided = true;
                let message = format!("{} is in the region `{name}`, which has no `country`", place.what);
                let finding = Finding::error(RULE.name, name.span, message)
                    .also(place.at, "data comes to rest here")
                    .on(subject.clone());
                report
                    .findings
                    .push(finding.help(format!("add `country:` to `platform.regions.{name}`, as an ISO 3166 code")));
                continue;
            };
            let inside = allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(country));
            derivation.push(format!("{}: region {name}, {country}", place.what));
            if inside {
                continue;
            }
            refuted = true;
            let at = if place.at.is_written() { place.at } else { country.span };
            let message = format!("{} is in `{country}`, but data may be kept in {} only", place.what, either(allowed));
            let finding = Finding::error(RULE.name, at, message)
                .also(country.span, "the country of this region")
                .also(allowed[0].span, "the promise")
                .on(subject.clone());
            report.findings.push(finding.help("choose a region in an allowed country"));
        }
        let statement = format!("`{subject}` and its copies stay in {}", either(allowed));
        let result = match (refuted, undecided) {
            (true, _) => Verdict::Refuted,
            (false, true) => Verdict::Undecided,
            (false, false) => Verdict::Proved,
        };
        report.proofs.push(proof(RULE.name, subject, statement, result, span, derivation));
    }
}

fn resting(architecture: &Architecture) -> Vec<(String, Span, Vec<Resting<'_>>)> {
    let document = &architecture.document;
    let named = |name: &Name| document.platform.regions.get_key_value(name.as_str());
    let home = |region: &Option<Spanned<Name>>| {
        region.as_ref().map_or_else(|| architecture.primary_region(), |name| named(&name.value))
    };
    let mut all = Vec::new();
    for (name, store) in &document.stores {
        let at = store.region.as_ref().map_or(name.span, |region| region.span);
        let mut places = vec![Resting { what: format!("the store `{name}`"), region: home(&store.region), at }];
        if let Some(backup) = &store.backup {
            if let Some((to, bucket)) = backup.to.as_ref().and_then(|to| Some((to, document.stores.get(to.as_str())?)))
            {
                let what = format!("the backup of `{name}` in `{to}`");
                places.push(Resting { what, region: home(&bucket.region), at: to.span });
            }
            for copy in &backup.copies {
                let what = format!("the copy of the backup of `{name}` in `{copy}`");
                places.push(Resting { what, region: named(&copy.value), at: copy.span });
            }
        }
        for replication in
            document.recovery.replication.iter().filter(|replication| replication.store.value == name.value)
        {
            let what = format!("the replica of `{name}` in `{}`", replication.to);
            places.push(Resting { what, region: named(&replication.to.value), at: replication.to.span });
        }
        all.push((format!("store.{name}"), name.span, places));
    }
    if let Some(standby) = &document.recovery.standby {
        let what = format!("the standby region `{}`", standby.region);
        let places = vec![Resting { what, region: named(&standby.region.value), at: standby.region.span }];
        all.push(("recovery.standby".to_owned(), standby.region.span, places));
    }
    all
}
