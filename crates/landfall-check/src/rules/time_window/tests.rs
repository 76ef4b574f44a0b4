//! Windows, clocks and overlaps.

use crate::rules::testing::messages;

fn windows(windows: &str) -> Vec<String> {
    messages("time-window", &format!("landfall: v1\nname: shop\nservices:\n  checkout:\n    windows:\n{windows}\n"))
}

#[test]
fn clocks_that_go_forward_skip_a_time() {
    let found = windows("      - { name: batch, from: \"02:30\", to: \"05:00\", time-zone: Europe/Berlin, min: 2 }");
    assert_eq!(
        found,
        [
            "warning: window `batch` of `checkout` begins at 02:30, which comes twice on 2027-10-31",
            "warning: window `batch` of `checkout` begins at 02:30, which does not exist on 2027-03-28",
        ]
    );
}

#[test]
fn a_window_on_weekdays_does_not_meet_a_change_on_sunday() {
    let found = windows(
        "      - { name: batch, days: [mon, fri], from: \"02:30\", to: \"05:00\", time-zone: Europe/Berlin, min: 2 }",
    );
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_window_that_begins_on_saturday_may_end_in_a_change() {
    let found = windows(
        "      - { name: night, days: [sat], from: \"22:00\", to: \"02:30\", time-zone: Europe/Berlin, min: 2 }",
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_zone_without_changes_has_none() {
    assert_eq!(
        windows("      - { name: batch, from: \"02:30\", to: \"05:00\", time-zone: Asia/Kolkata, min: 2 }"),
        [""; 0]
    );
}

#[test]
fn windows_in_different_zones_are_compared_by_instants() {
    // 09:00 in Kolkata is 03:30 in UTC.
    let contradict = "
      - { name: day, from: \"09:00\", to: \"18:00\", time-zone: Asia/Kolkata, min: 5 }
      - { name: night, from: \"00:00\", to: \"04:00\", time-zone: UTC, max: 2 }";
    assert_eq!(
        windows(contradict),
        ["error: windows `day` and `night` of `checkout` overlap and contradict each other"]
    );
    assert_eq!(windows(&contradict.replace("04:00", "03:30")), [""; 0]);
}

#[test]
fn windows_that_agree_may_overlap() {
    let agree = "
      - { name: day, from: \"09:00\", to: \"18:00\", time-zone: UTC, min: 2 }
      - { name: noon, from: \"11:00\", to: \"13:00\", time-zone: UTC, min: 4, max: 8 }";
    assert_eq!(windows(agree), [""; 0]);
}

#[test]
fn a_window_of_a_night_reaches_into_the_next_day() {
    let contradict = "
      - { name: night, days: [sun], from: \"22:00\", to: \"06:00\", time-zone: UTC, max: 1 }
      - { name: early, days: [mon], from: \"05:00\", to: \"07:00\", time-zone: UTC, min: 2 }";
    assert_eq!(windows(contradict).len(), 1);
}

#[test]
fn the_same_begin_and_end_last_a_day() {
    let found = windows("      - { name: always, from: \"08:00\", to: \"08:00\", time-zone: UTC, min: 2 }");
    assert_eq!(found, ["warning: window `always` of `checkout` begins when it ends: it lasts a whole day"]);
    assert_eq!(windows("      - { name: always, from: \"00:00\", to: \"24:00\", time-zone: UTC, min: 2 }"), [""; 0]);
}
