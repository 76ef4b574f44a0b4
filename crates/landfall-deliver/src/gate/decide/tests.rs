//! Every gate, open and closed; what it says when it is closed, and what it says to bring.

use std::collections::BTreeMap;

use super::*;
use crate::approval::tests::{key, line, list, signed};
use crate::approval::{Decision, SignersState, Statement};
use crate::freeze::FreezeSpec;
use crate::release::ServiceRelease;

const NOW: &str = "2026-11-28T12:00:00Z";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A release of two services to production.
fn release() -> ReleaseSpec {
    let services = ["api", "web"].map(ServiceRelease::sample).to_vec();
    ReleaseSpec { environment: Some("production".to_owned()), ..ReleaseSpec::sample(services) }
}

fn facts() -> Facts {
    Facts {
        now: time(NOW),
        namespace: "shop".to_owned(),
        signers: SignersState::default(),
        approvals: Vec::new(),
        evidence: Vec::new(),
        freeze: None,
        room: None,
    }
}

fn evidence(kind: EvidenceKind, images: &[(&str, &str)], at: &str) -> EvidenceSpec {
    EvidenceSpec {
        architecture: "shop".to_owned(),
        kind,
        environment: "staging".to_owned(),
        images: images.iter().map(|(service, image)| ((*service).to_owned(), (*image).to_owned())).collect(),
        since: None,
        at: at.to_owned(),
        passed: true,
        says: "12 tests passed".to_owned(),
        report: Some("sha256:cc".to_owned()),
        by: "ci".to_owned(),
        statement: None,
        signature: None,
    }
}

const BOTH: [(&str, &str); 2] = [("api", "shop/api:2"), ("web", "shop/web:2")];

fn shown(gate: &Gate, facts: &Facts) -> String {
    let state = decide(gate, Some("shop-1"), &release(), facts);
    let bring = state.bring.map(|bring| format!("\nbring: {bring}")).unwrap_or_default();
    let evidence: String = state.evidence.iter().map(|piece| format!("\nshown by: {piece}")).collect();
    format!("{}: {}: {}{evidence}{bring}", state.standing.as_str(), state.gate, state.why)
}

#[test]
fn tests_have_to_have_passed_on_every_image_and_lately() {
    let gate = Gate::Check {
        says: "The tests have passed".to_owned(),
        shown_by: EvidenceKind::TestsPassed,
        environment: "staging".to_owned(),
        fresh_seconds: Some(86_400),
    };
    let with = |evidence: Vec<EvidenceSpec>| shown(&gate, &Facts { evidence, ..facts() });
    let tests = EvidenceKind::TestsPassed;
    insta::assert_snapshot!(with(vec![]), @"
    closed: The tests have passed: there is no evidence for `shop/api:2` of `api` from staging
    bring: landfall attest tests-passed --env production --seen-in staging --report junit.xml
    ");
    insta::assert_snapshot!(with(vec![evidence(tests, &BOTH[..1], "2026-11-28T11:00:00Z")]), @"
    closed: The tests have passed: there is no evidence for `shop/web:2` of `web` from staging
    bring: landfall attest tests-passed --env production --seen-in staging --report junit.xml
    ");
    insta::assert_snapshot!(with(vec![evidence(tests, &[("api", "shop/api:2"), ("web", "shop/web:1")], "2026-11-28T11:00:00Z")]), @"
    closed: The tests have passed: there is no evidence for `shop/web:2` of `web` from staging
    bring: landfall attest tests-passed --env production --seen-in staging --report junit.xml
    ");
    insta::assert_snapshot!(with(vec![evidence(tests, &BOTH, "2026-11-27T11:59:59Z")]), @"
    closed: The tests have passed: the evidence for `shop/api:2` of `api` is of 2026-11-27T11:59:59Z, and may be 1 d old
    bring: landfall attest tests-passed --env production --seen-in staging --report junit.xml
    ");
    insta::assert_snapshot!(with(vec![evidence(tests, &BOTH, "2026-11-27T12:00:00Z")]), @"
    open: The tests have passed: it held in staging
    shown by: 12 tests passed at 2026-11-27T12:00:00Z by ci, report sha256:cc
    ");
    // What came later counts, in either direction.
    let failed =
        |at: &str| EvidenceSpec { passed: false, says: "3 tests failed".to_owned(), ..evidence(tests, &BOTH, at) };
    insta::assert_snapshot!(with(vec![evidence(tests, &BOTH, "2026-11-28T10:00:00Z"), failed("2026-11-28T11:00:00Z")]), @"
    closed: The tests have passed: it did not hold for `shop/api:2` of `api` at 2026-11-28T11:00:00Z: 3 tests failed
    bring: landfall attest tests-passed --env production --seen-in staging --report junit.xml
    ");
    insta::assert_snapshot!(with(vec![failed("2026-11-28T10:00:00Z"), evidence(tests, &BOTH, "2026-11-28T11:00:00Z")]), @"
    open: The tests have passed: it held in staging
    shown by: 12 tests passed at 2026-11-28T11:00:00Z by ci, report sha256:cc
    ");
    // It is not seen before it happens.
    assert!(with(vec![evidence(tests, &BOTH, "2027-11-28T11:00:00Z")]).starts_with("closed"));
    // Seen in another environment, or of another kind, it is something else.
    let mut elsewhere = evidence(tests, &BOTH, "2026-11-28T11:00:00Z");
    elsewhere.environment = "development".to_owned();
    assert!(with(vec![elsewhere]).starts_with("closed"));
    assert!(with(vec![evidence(EvidenceKind::NoVulnerabilities, &BOTH, "2026-11-28T11:00:00Z")]).starts_with("closed"));
}

#[test]
fn what_a_person_says_is_signed_where_signers_are_known() {
    let gate = Gate::Check {
        says: "Somebody is on call".to_owned(),
        shown_by: EvidenceKind::OnCallConfirmed,
        environment: "production".to_owned(),
        fresh_seconds: Some(43_200),
    };
    let mut said = evidence(EvidenceKind::OnCallConfirmed, &[], "2026-11-28T11:00:00Z");
    "production".clone_into(&mut said.environment);
    (said.report, said.says) = (None, "eve until Monday".to_owned());
    let unsigned = Facts { evidence: vec![said.clone()], ..facts() };
    insta::assert_snapshot!(shown(&gate, &unsigned), @"
    open: Somebody is on call: it held in production
    shown by: eve until Monday at 2026-11-28T11:00:00Z by ci
    ");
    let first = list(1, "", 1, &[line("ada", ",leads"), line("eve", "")]);
    let signers = SignersState::of("shop", vec![first], &[]);
    insta::assert_snapshot!(shown(&gate, &Facts { signers: signers.clone(), ..unsigned }), @"
    closed: Somebody is on call: who said so is not known: it is not signed
    bring: landfall attest on-call-confirmed --env production --because …
    ");
    let statement = Statement {
        decision: Decision::Confirm,
        architecture: "shop".to_owned(),
        namespace: "shop".to_owned(),
        subject: "on-call-confirmed".to_owned(),
        digest: digest_of("eve until Monday"),
        images: BTreeMap::new(),
        at: time("2026-11-28T11:00:00Z"),
        until: time("2026-11-29T11:00:00Z"),
        because: None,
    };
    let sign = |person: &str, statement: &Statement| {
        let approval = signed(person, statement);
        let said =
            EvidenceSpec { statement: Some(approval.statement), signature: Some(approval.signature), ..said.clone() };
        shown(&gate, &Facts { signers: signers.clone(), evidence: vec![said], ..facts() })
    };
    // Whoever is on call need not be one of those who approve.
    insta::assert_snapshot!(sign("eve", &statement), @"
    open: Somebody is on call: it held in production
    shown by: eve until Monday at 2026-11-28T11:00:00Z by ci, signed by eve
    ");
    insta::assert_snapshot!(sign("mallory", &statement).replace(&key("mallory").fingerprint(ssh_key::HashAlg::Sha256).to_string(), "KEY"), @"
    closed: Somebody is on call: who said so is not known: the key KEY is not among the signers of list 1
    bring: landfall attest on-call-confirmed --env production --because …
    ");
    insta::assert_snapshot!(sign("eve", &Statement { digest: digest_of("something else"), ..statement.clone() }), @"
    closed: Somebody is on call: who said so is not known: eve spoke of the digest sha256:f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8, and this is sha256:a2f8743e92640d04225442a10793e7a254c1f94c3d76d3dad574095e83fe8cdc
    bring: landfall attest on-call-confirmed --env production --because …
    ");
}

#[test]
fn images_have_to_have_run_before_for_long_enough() {
    let gate = Gate::After { environment: "staging".to_owned(), soak_seconds: 7200 };
    let ran = |since: &str, images: &[(&str, &str)]| {
        let evidence = EvidenceSpec {
            since: Some(since.to_owned()),
            ..evidence(EvidenceKind::Ran, images, "2026-11-28T11:00:00Z")
        };
        shown(&gate, &Facts { evidence: vec![evidence], ..facts() })
    };
    insta::assert_snapshot!(shown(&gate, &facts()), @"
    closed: has run in staging for 2 h: nobody has seen `shop/api:2` of `api` run in staging
    bring: landfall promote staging production
    ");
    insta::assert_snapshot!(ran("2026-11-28T09:00:01Z", &BOTH), @"
    closed: has run in staging for 2 h: `shop/api:2` had run there for 1 h 59 min when it was looked at
    bring: landfall promote staging production
    ");
    insta::assert_snapshot!(ran("2026-11-28T09:00:00Z", &BOTH), @"
    open: has run in staging for 2 h: every image has run in staging
    shown by: `shop/api:2` had run in staging for 2 h at 2026-11-28T11:00:00Z, seen by ci
    shown by: `shop/web:2` had run in staging for 2 h at 2026-11-28T11:00:00Z, seen by ci
    ");
    insta::assert_snapshot!(ran("2026-11-20T09:00:00Z", &[("api", "shop/api:2"), ("web", "shop/web:1")]), @"
    closed: has run in staging for 2 h: nobody has seen `shop/web:2` of `web` run in staging
    bring: landfall promote staging production
    ");
}

#[test]
fn people_have_to_have_approved_what_the_cluster_and_the_file_agree_on() {
    let gate = Gate::Approval { of: vec!["leads".to_owned()], count: 2, expire_seconds: 3600 };
    insta::assert_snapshot!(shown(&gate, &facts()), @"
    closed: approved by 2 of leads: the cluster does not know who may approve
    bring: landfall signers set allowed_signers --env production
    ");
    let lines = [line("ada", ",leads"), line("bob", ",leads")];
    let signers = |count| SignersState::of("shop", vec![list(1, "", count, &lines)], &[]);
    insta::assert_snapshot!(shown(&gate, &Facts { signers: signers(1), ..facts() }), @"
    closed: approved by 2 of leads: the cluster asks for 1 of leads, for 3600 s, and the file for 2 of leads, for 3600 s
    bring: change the file, or have the signers change the cluster: landfall signers set allowed_signers --env production
    ");
    let statement = |decision, digest: &str| Statement {
        decision,
        architecture: "shop".to_owned(),
        namespace: "shop".to_owned(),
        subject: "shop-1".to_owned(),
        digest: digest.to_owned(),
        images: BTreeMap::new(),
        at: time("2026-11-28T11:30:00Z"),
        until: time("2026-11-28T12:30:00Z"),
        because: Some("the books are open".to_owned()),
    };
    let by = |approvals: &[(&str, Decision, &str)]| {
        let approvals =
            approvals.iter().map(|(who, decision, digest)| signed(who, &statement(*decision, digest))).collect();
        let text = shown(&gate, &Facts { signers: signers(2), approvals, ..facts() });
        ["ada", "bob"].iter().fold(text, |text, person| {
            text.replace(&key(person).fingerprint(ssh_key::HashAlg::Sha256).to_string(), "KEY")
        })
    };
    let (yes, no) = (Decision::Approve, Decision::Reject);
    insta::assert_snapshot!(by(&[("ada", yes, "sha256:aa")]), @"
    closed: approved by 2 of leads: 1 of 2: ada
    bring: landfall approve shop-1 --env production --key ~/.ssh/id_ed25519
    ");
    insta::assert_snapshot!(by(&[("ada", yes, "sha256:aa"), ("bob", yes, "sha256:bb")]), @"
    closed: approved by 2 of leads: 1 of 2: ada; not counted: bob spoke of the digest sha256:bb, and this is sha256:aa
    bring: landfall approve shop-1 --env production --key ~/.ssh/id_ed25519
    ");
    insta::assert_snapshot!(by(&[("ada", yes, "sha256:aa"), ("bob", yes, "sha256:aa")]), @"
    open: approved by 2 of leads: 2 have approved sha256:aa
    shown by: ada with the key KEY at 2026-11-28T11:30:00Z
    shown by: bob with the key KEY at 2026-11-28T11:30:00Z
    ");
    insta::assert_snapshot!(by(&[("ada", yes, "sha256:aa"), ("bob", no, "sha256:aa")]), @"
    rejected: approved by 2 of leads: bob rejects it: the books are open
    shown by: bob with the key KEY at 2026-11-28T11:30:00Z
    ");
}

#[test]
fn a_freeze_closes_everything_and_says_why() {
    let freeze = FreezeSpec {
        architecture: "shop".to_owned(),
        because: "end of the quarter".to_owned(),
        by: "ada".to_owned(),
        at: NOW.to_owned(),
    };
    insta::assert_snapshot!(shown(&Gate::Thawed, &Facts { freeze: Some(freeze), ..facts() }), @"
    closed: nothing is frozen: frozen by ada since 2026-11-28T12:00:00Z: end of the quarter
    bring: landfall thaw production --because …
    ");
    insta::assert_snapshot!(shown(&Gate::Thawed, &facts()), @"open: nothing is frozen: nobody has frozen it");
}

#[test]
fn a_window_says_when_the_next_one_begins() {
    let window = Window {
        days: vec![landfall_model::Weekday::Mon],
        from_minute: 540,
        to_minute: 1020,
        time_zone: "Europe/Berlin".to_owned(),
    };
    let gate = Gate::Window { windows: vec![window] };
    insta::assert_snapshot!(shown(&gate, &facts()), @"
    closed: the time is between 09:00 and 17:00 on Mon in Europe/Berlin: it is not; the next begins at 2026-11-30T08:00:00Z
    bring: wait: it begins by itself
    ");
    insta::assert_snapshot!(shown(&gate, &Facts { now: time("2026-11-30T10:00:00Z"), ..facts() }), @"open: the time is between 09:00 and 17:00 on Mon in Europe/Berlin: it is");
}
