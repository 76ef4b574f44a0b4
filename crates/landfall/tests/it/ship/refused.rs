//! What is refused, or waits, before anything changes: a version that cannot run against the schema that is there, and one that comes
//! at the wrong time of the day.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Platform, architecture};

/// The service reads these versions of a schema and brings this one; it is shipped between these hours from now, if any.
fn file(reads: &str, writes: u32, hours: Option<(i64, i64)>) -> String {
    let text = architecture("{ rolling: { max-surge: 1, max-unavailable: 0 } }");
    let schema = format!("    schema: {{ store: ledger, reads: {reads}, writes: {writes} }}\n    rollout:");
    let text =
        text.replace("    rollout:", &schema).replace("flows:\n", "stores:\n  ledger: { engine: postgres }\nflows:\n");
    let Some((from, to)) = hours else { return text };
    let clock = |hours| (Timestamp::now() + SignedDuration::from_hours(hours)).strftime("%H:%M").to_string();
    let window = format!("deploy-windows: [{{ from: \"{}\", to: \"{}\", time-zone: UTC }}]", clock(from), clock(to));
    text.replace("{ deploy: automatic }", &format!("{{ deploy: automatic, {window} }}"))
}

/// How the gate of the time of the day stands.
fn standing(document: &Value) -> &str {
    let mut gates = document["gates"].as_array().into_iter().flatten();
    let window = gates.find(|gate| gate["gate"].as_str().is_some_and(|name| name.contains("between")));
    window.and_then(|gate| gate["standing"].as_str()).unwrap_or_else(|| panic!("there is no such gate: {document:#}"))
}

#[test]
fn what_cannot_read_the_schema_and_what_comes_at_the_wrong_time_changes_nothing() {
    let Some(platform) = Platform::start_with(&file("2..3", 3, None)) else { return };
    let ship = ["ship", "--image", "web=shop/web:2"];
    let (code, release, _) = platform.run(&ship);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");

    // It runs beside one that could not read what it brings; and one that cannot read what is there.
    let back = ["ship", "--image", "web=shop/web:1"];
    for (reads, writes, why) in
        [("5..6", 6, "which runs beside it and is the way back"), ("1..2", 2, "has brought version 3")]
    {
        platform.write(&file(reads, writes, None));
        let (code, refused, said) = platform.run(&back);
        assert_eq!(code, Some(1), "{said}");
        assert!(refused["refusals"][0].as_str().is_some_and(|refusal| refusal.contains(why)), "{refused:#}");
    }
    let (_, releases, _) = platform.run(&["releases"]);
    assert_eq!(releases["releases"].as_array().map(Vec::len), Some(1), "{releases:#}");
    assert_eq!(platform.image(), "shop/web:2");

    // Its window begins in two hours: it waits, and what has not begun ends when it is aborted.
    platform.write(&file("2..3", 3, Some((2, 3))));
    let (code, planned, _) = platform.run(&[&back[..], &["--plan"]].concat());
    assert_eq!((code, standing(&planned)), (Some(0), "closed"), "{planned:#}");
    let shipper = platform.shipper("early", &back);
    let release = platform.release_becomes("shop-2", "Waiting");
    assert_eq!((standing(&release), platform.image()), ("closed", json!("shop/web:2")), "{release:#}");
    let (code, release, _) = platform.run(&["abort"]);
    assert_eq!(
        (code, &release["state"], &release["why"]["reason"]),
        (Some(0), &json!("RolledBack"), &json!("aborted"))
    );
    assert_eq!((shipper.ends().0, platform.image()), (Some(1), json!("shop/web:2")));

    // Within its window it goes.
    platform.write(&file("2..3", 3, Some((-1, 1))));
    let (code, release, _) = platform.run(&back);
    assert_eq!((code, standing(&release), &release["state"]), (Some(0), "open", &json!("Succeeded")), "{release:#}");
    assert_eq!(platform.image(), "shop/web:1");
}
