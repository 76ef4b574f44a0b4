//! For the unit tests of rules: a file goes in, what one rule says of it comes out.

use landfall_model::{Architecture, File};

use crate::report::{Report, Verdict};

/// The architecture of a file as it stands.
pub(super) fn architecture(text: &str) -> Architecture {
    let file = File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(format!("no file `{path}`")));
    file.architecture(None).unwrap_or_else(|findings| panic!("the file is not read: {findings:?}"))
}

/// What one rule says, findings and proofs.
pub(super) fn report(rule: &str, text: &str) -> Report {
    let architecture = architecture(text);
    let objects: Vec<_> = architecture.document.objects.iter().map(|object| object.value.clone()).collect();
    let mut report = crate::check(
        &architecture,
        crate::Rendering { objects: &objects, findings: &[] },
        "2026-11-21".parse().expect("the date is a date"),
    );
    report.findings.retain(|finding| finding.rule == rule);
    report.proofs.retain(|proof| proof.rule == rule);
    report
}

/// The messages of one rule's findings, each with its severity.
pub(super) fn messages(rule: &str, text: &str) -> Vec<String> {
    let said = report(rule, text);
    said.findings.into_iter().map(|finding| format!("{}: {}", finding.severity.as_str(), finding.message)).collect()
}

/// The verdict on a subject, and the derivation.
pub(super) fn proof(rule: &str, subject: &str, text: &str) -> (Verdict, Vec<String>) {
    let proofs = report(rule, text).proofs;
    let proof = proofs.into_iter().find(|proof| proof.subject == subject);
    let proof = proof.unwrap_or_else(|| panic!("`{rule}` proves nothing about `{subject}`"));
    (proof.verdict, proof.derivation)
}
