//! What people sign, with real keys, and what becomes of it when anything changes.

use jiff::SignedDuration;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use super::*;

/// A key that is always the same for a person.
pub(crate) fn key(person: &str) -> PrivateKey {
    let mut seed = [0; 32];
    seed[..person.len()].copy_from_slice(person.as_bytes());
    PrivateKey::from(Ed25519Keypair::from_seed(&seed))
}

/// A line of a list of signers.
pub(crate) fn line(person: &str, groups: &str) -> String {
    let public = key(person).public_key().to_openssh().expect("a key can be written");
    format!("{person}{groups} {public}\n")
}

pub(crate) fn list(number: u64, previous: &str, count: u32, lines: &[String]) -> SignersSpec {
    SignersSpec {
        architecture: "shop".to_owned(),
        number,
        previous: previous.to_owned(),
        of: vec!["leads".to_owned()],
        count,
        expire_seconds: 3600,
        list: lines.concat(),
    }
}

fn leads(count: u32) -> SignersSpec {
    list(1, "", count, &[line("ada", ",leads"), line("bob", ",leads"), line("eve", "")])
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn statement(decision: Decision, subject: &str, digest: &str) -> Statement {
    Statement {
        decision,
        architecture: "shop".to_owned(),
        namespace: "shop".to_owned(),
        subject: subject.to_owned(),
        digest: digest.to_owned(),
        images: [("web".to_owned(), "shop/web:2".to_owned())].into(),
        at: at("2026-11-28T12:00:00Z"),
        until: at("2026-11-28T13:00:00Z"),
        because: None,
    }
}

/// A statement, signed by a person.
pub(crate) fn signed(person: &str, statement: &Statement) -> ApprovalSpec {
    let text = statement.text();
    let signature = key(person).sign(SIGNATURE_NAMESPACE, HashAlg::Sha512, text.as_bytes()).expect("a key can sign");
    let signature = signature.to_pem(LineEnding::LF).expect("a signature can be written");
    ApprovalSpec { architecture: "shop".to_owned(), statement: text, signature }
}

const SUBJECT: Subject<'static> =
    Subject { architecture: "shop", namespace: "shop", name: "shop-1", digest: "sha256:aa" };

fn tally(approvals: &[ApprovalSpec], subject: Subject<'_>, now: &str) -> String {
    let policy = leads(2).policy().expect("it is one");
    let tally = policy.tally(subject, approvals, Expiry::At(at(now)));
    let names = |counted: &[Counted]| counted.iter().map(|one| one.person.clone()).collect::<Vec<_>>().join(", ");
    format!(
        "approved: {}; rejected: {}; void: {}",
        names(&tally.approved),
        names(&tally.rejected),
        tally.void.join(" | ")
    )
}

fn approve(person: &str) -> ApprovalSpec {
    signed(person, &statement(Decision::Approve, "shop-1", "sha256:aa"))
}

const NOON: &str = "2026-11-28T12:10:00Z";

#[test]
fn each_person_counts_once() {
    let approvals = [approve("ada"), approve("ada"), approve("bob")];
    insta::assert_snapshot!(tally(&approvals, SUBJECT, NOON), @"approved: ada, bob; rejected: ; void:");
}

#[test]
fn another_digest_has_no_approvals() {
    let other = Subject { digest: "sha256:bb", ..SUBJECT };
    insta::assert_snapshot!(tally(&[approve("ada"), approve("bob")], other, NOON), @"approved: ; rejected: ; void: ada spoke of the digest sha256:aa, and this is sha256:bb | bob spoke of the digest sha256:aa, and this is sha256:bb");
    let elsewhere = Subject { namespace: "other", ..SUBJECT };
    insta::assert_snapshot!(tally(&[approve("ada")], elsewhere, NOON), @"approved: ; rejected: ; void: ada spoke of `shop` in `shop`, and this is `shop` in `other`");
}

#[test]
fn an_approval_ends_and_does_not_begin_in_the_future() {
    insta::assert_snapshot!(tally(&[approve("ada")], SUBJECT, "2026-11-28T12:59:59Z"), @"approved: ada; rejected: ; void:");
    insta::assert_snapshot!(tally(&[approve("ada")], SUBJECT, "2026-11-28T13:00:00Z"), @"approved: ; rejected: ; void: what ada signed at 2026-11-28T12:00:00Z counted until 2026-11-28T13:00:00Z");
    insta::assert_snapshot!(tally(&[approve("ada")], SUBJECT, "2026-11-28T11:00:00Z"), @"approved: ; rejected: ; void: ada signed in the future, at 2026-11-28T12:00:00Z");
    // Whoever writes a later end into the statement does not get it.
    let mut long = statement(Decision::Approve, "shop-1", "sha256:aa");
    long.until = at("2027-11-28T12:00:00Z");
    insta::assert_snapshot!(tally(&[signed("ada", &long)], SUBJECT, "2026-11-28T13:00:00Z"), @"approved: ; rejected: ; void: what ada signed at 2026-11-28T12:00:00Z counted until 2026-11-28T13:00:00Z");
}

#[test]
fn only_those_count_who_are_asked_and_who_signed() {
    insta::assert_snapshot!(tally(&[approve("eve")], SUBJECT, NOON), @"approved: ; rejected: ; void: eve is in none of: leads");
    insta::assert_snapshot!(tally(&[approve("mallory")], SUBJECT, NOON), @"approved: ; rejected: ; void: the key SHA256:g2zuS2GQAwBOBy96YiZ/j31eXRION7jEIesD9ERa5Gs is not among the signers of list 1");
    let mut moved = approve("ada");
    moved.statement = moved.statement.replace("shop/web:2", "shop/web:3");
    insta::assert_snapshot!(tally(&[moved], SUBJECT, NOON), @"approved: ; rejected: ; void: the signature by ada is not one of this statement: cryptographic error");
    let elsewhere = statement(Decision::Approve, "shop-1", "sha256:aa").text();
    let file = key("ada").sign("file", HashAlg::Sha512, elsewhere.as_bytes()).expect("a key can sign");
    let file = ApprovalSpec {
        architecture: "shop".to_owned(),
        statement: elsewhere,
        signature: file.to_pem(LineEnding::LF).expect("a signature can be written"),
    };
    insta::assert_snapshot!(tally(&[file], SUBJECT, NOON), @"approved: ; rejected: ; void: the signature by ada is not one of this statement: namespace invalid");
}

#[test]
fn one_who_rejects_is_told() {
    let no = signed("bob", &statement(Decision::Reject, "shop-1", "sha256:aa"));
    insta::assert_snapshot!(tally(&[approve("ada"), no], SUBJECT, NOON), @"approved: ada; rejected: bob; void:");
}

#[test]
fn a_statement_is_read_only_as_it_is_written() {
    let whole = Statement { because: Some("two\nlines".to_owned()), ..statement(Decision::Confirm, "x", "sha256:aa") };
    let text = whole.text();
    let read = Statement::parse(&text).expect("it was written so");
    assert_eq!(read.because.as_deref(), Some("two lines"));
    for other in [
        text.replace("landfall statement 1", "landfall statement 2"),
        text.replace("subject: x", "subject: x\nsubject: y"),
        text.replace("at: ", "at:  "),
        text.replace("decision: confirm", "decision: perhaps"),
        format!("{text}\n"),
        text.trim_end().to_owned(),
    ] {
        assert!(Statement::parse(&other).is_err(), "{other}");
    }
}

fn state(lists: &[SignersSpec], approvals: &[ApprovalSpec]) -> String {
    let state = SignersState::of("shop", lists.to_vec(), approvals);
    let number = state.policy.map(|policy| policy.number);
    let proposed = state.proposed.map(|(list, tally)| format!("{} with {}", list.name(), tally.approved.len()));
    format!("counts: {number:?}; proposed: {proposed:?}; {}", state.problems.join(" | "))
}

#[test]
fn only_those_who_may_approve_change_who_may() {
    let first = leads(2);
    let second = list(2, &first.digest(), 1, &[line("eve", ",leads")]);
    let lists = [first.clone(), second.clone()];
    let by = |person: &str| signed(person, &statement(Decision::Approve, &second.name(), &second.digest()));
    insta::assert_snapshot!(state(&lists[..1], &[]), @"counts: Some(1); proposed: None;");
    insta::assert_snapshot!(state(&lists, &[]), @r#"counts: Some(1); proposed: Some("shop-signers-2 with 0");"#);
    insta::assert_snapshot!(state(&lists, &[by("ada"), by("eve")]), @r#"counts: Some(1); proposed: Some("shop-signers-2 with 1");"#);
    insta::assert_snapshot!(state(&lists, &[by("ada"), by("bob")]), @"counts: Some(2); proposed: None;");
    // A list that says so of itself, a first one that was exchanged, and one that leads past a list that nobody signed.
    let own = signed("eve", &statement(Decision::Approve, &second.name(), &second.digest()));
    insta::assert_snapshot!(state(&lists, &[own]), @r#"counts: Some(1); proposed: Some("shop-signers-2 with 0");"#);
    let exchanged = list(1, "", 1, &[line("eve", ",leads")]);
    insta::assert_snapshot!(state(&[exchanged, second.clone()], &[by("ada"), by("bob")]), @"counts: Some(1); proposed: None; the list `shop-signers-2` does not follow the one that counts");
    let third = list(3, &second.digest(), 1, &[line("eve", ",leads")]);
    insta::assert_snapshot!(state(&[first, third], &[]), @"counts: Some(1); proposed: None; the list `shop-signers-3` does not follow the one that counts");
}

#[test]
fn what_changed_the_signers_does_not_expire() {
    let first = leads(2);
    let second = list(2, &first.digest(), 1, &[line("eve", ",leads")]);
    let by = |person: &str| {
        let mut old = statement(Decision::Approve, &second.name(), &second.digest());
        (old.at, old.until) = (at("2020-01-01T00:00:00Z"), at("2020-01-01T01:00:00Z"));
        signed(person, &old)
    };
    insta::assert_snapshot!(state(&[first, second.clone()], &[by("ada"), by("bob")]), @"counts: Some(2); proposed: None;");
}

#[test]
fn a_list_is_read_as_openssh_reads_it() {
    let public = key("ada").public_key().to_openssh().expect("a key can be written");
    let read = |line: &str| match parse_signers(line) {
        Ok(signers) => {
            let said = signers.iter().map(|signer| {
                let valid = signer.is_valid(at("2026-11-28T12:00:00Z"));
                format!("{} of {:?}, valid: {valid}", signer.person, signer.groups)
            });
            said.collect::<Vec<_>>().join(" | ")
        }
        Err(why) => why.replace(public.split(' ').nth(1).expect("it has a key"), "KEY"),
    };
    insta::assert_snapshot!(read(&format!("# people\n\nada,leads,on-call {public} ada@laptop\n")), @r#"ada of ["leads", "on-call"], valid: true"#);
    insta::assert_snapshot!(read(&format!("ada namespaces=\"file,git\" {public}")), @"");
    insta::assert_snapshot!(read(&format!("ada namespaces=\"git,landfall\",valid-before=\"20261128Z\" {public}")), @"ada of [], valid: false");
    insta::assert_snapshot!(read(&format!("ada valid-after=\"202611281159\" {public}")), @"ada of [], valid: true");
    insta::assert_snapshot!(read(&format!("ada cert-authority {public}")), @"line 1 of the signers: authorities that sign keys are not handled; list the keys");
    insta::assert_snapshot!(read(&format!("*@example.com {public}")), @"line 1 of the signers: `*@example.com` is a pattern; name the person, then their groups");
    insta::assert_snapshot!(read(&format!("ada {public}\nbob {public}")), @"ada and bob have the same key");
    insta::assert_snapshot!(read("ada ssh-ed25519 nothing"), @"line 1 of the signers: `ssh-ed25519 nothing` is no public key: Base64 encoding error: invalid Base64 encoding");
    insta::assert_snapshot!(read("ada"), @"line 1 of the signers: a line has a name, a kind of key, and a key");
}

#[test]
fn a_list_that_cannot_reach_its_own_number_is_refused() {
    let alone = list(1, "", 2, &[line("ada", ",leads"), line("eve", "")]);
    insta::assert_snapshot!(alone.policy().expect_err("one of two is there"), @"2 of leads have to approve, and the list has 1 of them");
}

#[test]
fn clocks_may_be_a_little_apart() {
    let mut early = statement(Decision::Approve, "shop-1", "sha256:aa");
    early.at = at(NOON) + SignedDuration::from_secs(60);
    insta::assert_snapshot!(tally(&[signed("ada", &early)], SUBJECT, NOON), @"approved: ada; rejected: ; void:");
}
