//! Two who ship to one environment: the second is refused, or waits. And a way back that takes longer than the file promises.

use serde_json::json;

use super::{Platform, architecture};

#[test]
fn of_two_who_ship_the_second_is_refused_or_waits() {
    let text = architecture("{ rolling: { max-surge: 1, max-unavailable: 0 } }");
    let text = text.replace("rollback: { automatic: true }", "rollback: { automatic: true, within: 1s }");
    let Some(platform) = Platform::start_with(&text) else { return };

    // The third version is never ready, so whoever ships it is at work for a while.
    let first = platform.shipper("first", &["ship", "--image", "web=shop/web:3"]);
    platform.release_becomes("shop-1", "Progressing");
    let (code, _, said) = platform.run(&["ship", "--image", "web=shop/web:2"]);
    assert_eq!((code, said.contains("at this moment")), (Some(1), true), "{said}");
    let second = platform.shipper("second", &["ship", "--wait", "--image", "web=shop/web:2"]);
    second.says("release `shop-1` is not finished (Progressing)");
    let (_, releases, _) = platform.run(&["releases"]);
    assert_eq!(releases["releases"].as_array().map(Vec::len), Some(1), "who waits writes nothing: {releases:#}");

    platform.run(&["rollback"]);
    let (code, release, _) = first.ends();
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    let (code, release, _) = second.ends();
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    assert_eq!((&release["name"], platform.image()), (&json!("shop-2"), json!("shop/web:2")));

    // Two copies are not replaced within a second: the version before is back, and not as it was promised.
    let (code, release, said) = platform.run(&["rollback"]);
    assert_eq!((code, &release["state"]), (Some(1), &json!("Succeeded")), "{release:#}");
    assert_eq!((&release["way_back"]["kept"], &release["way_back"]["promised_seconds"]), (&json!(false), &json!(1)));
    assert!(said.contains("warning: the way back took"), "{said}");
    let (_, audit, _) = platform.run(&["audit"]);
    assert!(audit.to_string().contains("`delivery.rollback.within` promises 1 s at most"), "{audit:#}");
}
