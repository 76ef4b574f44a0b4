//! What people are told of releases that go well and badly, to the word, and what becomes of what nobody takes.

use serde_json::json;

use super::*;
use crate::analysis::{Counts, Verdict};
use crate::gate::{GateState, Standing};
use crate::plan::Strategy;
use crate::release::ServiceRelease;
use crate::rollout::Event;
use crate::schema::SchemaUse;

fn at(second: i64) -> Timestamp {
    let begin: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
    begin + jiff::SignedDuration::from_secs(second)
}

fn list(on: &[&[NotifyEvent]]) -> Vec<Told> {
    let one = |(place, on): (usize, &&[NotifyEvent])| Told {
        to: format!("team-{place}"),
        by: Means::File("told.jsonl".to_owned()),
        on: on.to_vec(),
    };
    on.iter().enumerate().map(one).collect()
}

/// Two services, of which the first brings a schema.
fn spec() -> ReleaseSpec {
    let schema = |writes| SchemaUse { store: "ledger".to_owned(), reads_from: 3, reads_to: 5, writes };
    let stock = ServiceRelease {
        schema: Some(schema(5)),
        old_schema: Some(schema(4)),
        strategy: Strategy::Rolling,
        ..ServiceRelease::sample("stock")
    };
    ReleaseSpec {
        environment: Some("production".to_owned()),
        notify: list(&[&[]]),
        ..ReleaseSpec::sample(vec![stock, ServiceRelease::sample("web")])
    }
}

/// What happens, second by second; the messages that come of it.
fn tell(spec: &ReleaseSpec, status: &mut ReleaseStatus, happens: &[(i64, Event)]) {
    for (second, event) in happens {
        let before = status.clone();
        assert!(status.follow(spec, event, at(*second)), "{event:?} means nothing");
        announce(subject(spec), &before, status, at(*second));
    }
}

fn subject(spec: &ReleaseSpec) -> Subject<'_> {
    Subject { name: "shop-1", namespace: "shop", uid: "7f3a", spec }
}

fn texts(status: &ReleaseStatus) -> String {
    let told = |notice: &Notice| {
        let Message { id, event, to, text, .. } = &notice.message;
        format!("{id} ({}) to {to}\n{text}\n", event.as_str())
    };
    status.notices.iter().map(told).collect()
}

#[test]
fn a_release_that_succeeds_is_told_once() {
    let (spec, mut status) = (spec(), ReleaseStatus::default());
    tell(&spec, &mut status, &[(0, Event::Begin), (20, Event::Ready), (40, Event::Ready)]);
    insta::assert_snapshot!(texts(&status), @"
    7f3a/succeeded/0 (succeeded) to team-0
    shop in production: release shop-1 has succeeded
    stock shop/stock:1 -> shop/stock:2, web shop/web:1 -> shop/web:2
    ");
}

#[test]
fn a_rollback_is_told_with_what_it_has_cost() {
    let (spec, mut status) = (spec(), ReleaseStatus::default());
    tell(&spec, &mut status, &[(0, Event::Begin), (20, Event::Ready)]);
    status.note_answers("web", Some(0), &Counts { good: 228, bad: 12, ..Counts::default() });
    tell(
        &spec,
        &mut status,
        &[(50, Event::Broken("`web` crashed".to_owned())), (60, Event::Ready), (75, Event::Ready)],
    );
    insta::assert_snapshot!(texts(&status), @"
    7f3a/rolled-back/0 (rolled-back) to team-0
    shop in production: release shop-1 was taken back, because: `web` crashed
    stock shop/stock:2 -> shop/stock:1, web shop/web:2 -> shop/web:1
    It ran from 2026-11-28T12:00:00Z to 2026-11-28T12:01:15Z, 75 s. 12 of 240 counted requests to it failed. What stays: version 5 of the schema of `ledger`, with what was written in it.
    ");
    let impact = status.notices[0].message.release.as_ref().and_then(|news| news.impact.as_ref()).expect("it has cost");
    let ran: Vec<_> = impact.services.iter().map(|own| (own.name.as_str(), own.seconds, own.failed)).collect();
    assert_eq!(ran, [("stock", 75, None), ("web", 40, Some(12))], "who came last goes back first");
}

#[test]
fn a_service_that_never_got_the_version_is_in_no_impact() {
    let (spec, mut status) = (spec(), ReleaseStatus::default());
    let late = Event::DeadlinePassed("none is ready".to_owned());
    tell(&spec, &mut status, &[(0, Event::Begin), (30, late), (45, Event::Ready)]);
    insta::assert_snapshot!(texts(&status), @"
    7f3a/rolled-back/0 (rolled-back) to team-0
    shop in production: release shop-1 was taken back, because: none is ready
    stock shop/stock:2 -> shop/stock:1
    It ran from 2026-11-28T12:00:00Z to 2026-11-28T12:00:45Z, 45 s. Nobody has counted its requests. What stays: version 5 of the schema of `ledger`, with what was written in it.
    ");
}

#[test]
fn a_release_that_takes_another_back_is_told_as_a_rollback_of_that_one() {
    let schema = |writes| SchemaUse { store: "ledger".to_owned(), reads_from: 3, reads_to: 5, writes };
    let stock = ServiceRelease {
        old_since: Some(at(-3600).to_string()),
        old_image: "shop/stock:2".to_owned(),
        new_image: "shop/stock:1".to_owned(),
        schema: Some(schema(4)),
        old_schema: Some(schema(5)),
        ..ServiceRelease::sample("stock")
    };
    let spec =
        ReleaseSpec { takes_back: Some("shop-0".to_owned()), notify: list(&[&[]]), ..ReleaseSpec::sample(vec![stock]) };
    let mut status = ReleaseStatus::default();
    tell(&spec, &mut status, &[(0, Event::Begin), (20, Event::Ready)]);
    insta::assert_snapshot!(texts(&status), @"
    7f3a/rolled-back/0 (rolled-back) to team-0
    shop: release shop-0 was taken back by shop-1
    stock shop/stock:2 -> shop/stock:1
    It ran from 2026-11-28T11:00:00Z to 2026-11-28T12:00:20Z, 3620 s. Nobody has counted its requests. What stays: version 5 of the schema of `ledger`, with what was written in it.
    ");
}

#[test]
fn who_waits_is_told_once_and_who_is_held_or_rejected_has_failed() {
    let (mut spec, mut status) = (spec(), ReleaseStatus::default());
    spec.automatic = false;
    let closed = GateState {
        gate: "approved by 2 of leads".to_owned(),
        standing: Standing::Closed,
        why: "0 have".to_owned(),
        bring: None,
        evidence: Vec::new(),
    };
    for second in [0, 5, 10] {
        let before = status.clone();
        // The gate opens for a moment, and closes again.
        if second == 5 {
            status.state.clear();
        } else {
            WAITING.clone_into(&mut status.state);
            status.gates = vec![closed.clone()];
        }
        announce(subject(&spec), &before, &mut status, at(second));
    }
    let mut rejected = status.clone();
    tell(&spec, &mut rejected, &[(15, Event::Abort("Ada rejects it".to_owned()))]);
    tell(&spec, &mut status, &[(20, Event::Begin), (50, Event::Broken("`stock` crashed".to_owned()))]);
    insta::assert_snapshot!(texts(&status), @"
    7f3a/waiting/0 (waiting) to team-0
    shop in production: release shop-1 waits for: approved by 2 of leads: 0 have
    stock shop/stock:1 -> shop/stock:2, web shop/web:1 -> shop/web:2
    7f3a/held/0 (failed) to team-0
    shop in production: release shop-1 is held until somebody decides, because: `stock` crashed; `landfall rollback shop-1` takes it back
    stock shop/stock:2 -> shop/stock:1
    It runs since 2026-11-28T12:00:20Z, 30 s so far. Nobody has counted its requests. What stays: version 5 of the schema of `ledger`, with what was written in it.
    ");
    insta::assert_snapshot!(texts(&rejected).lines().skip(3).collect::<Vec<_>>().join("\n"), @"
    7f3a/rejected/0 (failed) to team-0
    shop in production: release shop-1 never began, because: Ada rejects it
    stock shop/stock:1 -> shop/stock:2, web shop/web:1 -> shop/web:2
    ");
}

#[test]
fn people_are_told_of_what_they_want_to_know() {
    use NotifyEvent::{Failed, RolledBack, Succeeded, Waiting};
    let mut spec = spec();
    spec.notify = list(&[&[Succeeded], &[Failed, Waiting], &[RolledBack, Succeeded]]);
    let mut status = ReleaseStatus::default();
    tell(&spec, &mut status, &[(0, Event::Begin), (20, Event::Ready), (40, Event::Ready)]);
    let ids: Vec<&str> = status.notices.iter().map(|notice| notice.message.id.as_str()).collect();
    assert_eq!(ids, ["7f3a/succeeded/0", "7f3a/succeeded/2"]);
}

#[test]
fn a_message_has_the_documented_form_and_is_read_back_as_it_was_written() {
    let (spec, mut status) = (spec(), ReleaseStatus::default());
    let verdict = Event::Judged(Verdict::Fail, "5 %".to_owned());
    tell(&spec, &mut status, &[(0, Event::Begin), (9, Event::DeadlinePassed("late".to_owned())), (12, Event::Ready)]);
    assert!(!status.clone().follow(&spec, &verdict, at(13)), "it is at its end");
    let message = &status.notices[0].message;
    assert_eq!(
        json!(message),
        json!({
            "version": 1,
            "id": "7f3a/rolled-back/0",
            "event": "rolled-back",
            "text": message.text,
            "to": "team-0",
            "at": "2026-11-28T12:00:12Z",
            "architecture": "shop",
            "environment": "production",
            "release": {
                "name": "shop-1",
                "namespace": "shop",
                "digest": "sha256:aa",
                "state": "RolledBack",
                "why": { "reason": "notReady", "why": "late" },
                "services": [
                    { "name": "stock", "from": "shop/stock:1", "to": "shop/stock:2" },
                    { "name": "web", "from": "shop/web:1", "to": "shop/web:2" },
                ],
                "impact": {
                    "services": [{
                        "name": "stock", "from": "shop/stock:2", "to": "shop/stock:1",
                        "begin": "2026-11-28T12:00:00Z", "end": "2026-11-28T12:00:12Z", "seconds": 12,
                    }],
                    "begin": "2026-11-28T12:00:00Z",
                    "end": "2026-11-28T12:00:12Z",
                    "seconds": 12,
                    "stays": ["version 5 of the schema of `ledger`, with what was written in it"],
                },
            },
        })
    );
    let again: ReleaseStatus = serde_json::from_value(json!(status)).expect("what is written can be read");
    assert_eq!(again, status);
}

#[test]
fn what_nobody_takes_is_tried_ever_more_rarely_and_given_up_after_a_day() {
    assert_eq!([1, 2, 3, 4, 9, 10, 99].map(|attempts| pause(attempts).as_secs()), [1, 2, 4, 8, 256, 300, 300]);
    let (spec, mut status) = (spec(), ReleaseStatus::default());
    tell(&spec, &mut status, &[(0, Event::Begin), (20, Event::Ready), (40, Event::Ready)]);
    let mut notice = status.notices.remove(0);
    let failed = Err("HTTP 503".to_owned());
    notice.settle(&failed, at(41));
    assert_eq!(notice.summary(), "`team-0` is to be told of `succeeded`; attempt 1 failed: HTTP 503");
    let mut taken = notice.clone();
    taken.settle(&Ok("HTTP 200".to_owned()), at(86_400 + 60));
    assert_eq!(taken.summary(), "`team-0` was told of `succeeded` at attempt 2: HTTP 200");
    assert!(!taken.is_open());
    notice.settle(&failed, at(86_400 + 60));
    assert_eq!(notice.summary(), "`team-0` was not told of `succeeded`: not within 24 h: HTTP 503");
    assert!(!notice.is_open());
}

#[test]
fn a_line_that_was_cut_off_takes_no_other_along() {
    let (spec, mut status) = (spec(), ReleaseStatus::default());
    tell(&spec, &mut status, &[(0, Event::Begin), (20, Event::Ready), (40, Event::Ready)]);
    let message = &status.notices[0].message;
    let file = std::env::temp_dir().join(format!("landfall-told-{}.jsonl", std::process::id()));
    std::fs::write(&file, "{\"version\":1,\"id").expect("a file can be written");
    for _ in 0..2 {
        assert_eq!(append(&file, message), Ok("written".to_owned()));
    }
    let text = std::fs::read_to_string(&file).expect("it is there");
    std::fs::remove_file(&file).expect("it is ours");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1..].iter().all(|line| serde_json::from_str::<Message>(line).is_ok_and(|read| read == *message)));
    assert!(append(&std::env::temp_dir(), message).is_err(), "a folder is no file");
}
