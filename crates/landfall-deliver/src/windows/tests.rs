//! Windows at single moments, on whole days with autoscalers that look every now and then, and on days on which clocks change.

use std::path::Path;

use landfall_model::File;
use proptest::prelude::*;

use super::*;

fn window(name: &str, from: &str, to: &str, zone: &str, (min, max): (Option<u32>, Option<u32>)) -> Window {
    let minute = |text: &str| text.parse::<landfall_model::TimeOfDay>().expect("a time of day").minutes();
    Window {
        name: name.to_owned(),
        days: Vec::new(),
        from_minute: minute(from),
        to_minute: minute(to),
        time_zone: zone.to_owned(),
        min,
        max,
    }
}

fn of(windows: Vec<Window>) -> Windows {
    Windows { min: 2, max: 12, startup_seconds: 90, windows }
}

fn at(text: &str) -> Clock {
    Clock { now: text.parse().expect("a time"), speed: 1.0 }
}

fn pair(limits: Limits) -> (u32, u32) {
    (limits.min, limits.max)
}

#[track_caller]
fn check(windows: &Windows, moments: &[(&str, (u32, u32))]) {
    for (moment, expected) in moments {
        assert_eq!(pair(windows.bounds(at(moment), 0)), *expected, "at {moment}");
    }
}

#[test]
fn a_window_begins_as_much_earlier_as_copies_need_to_start_and_ends_when_it_ends() {
    let windows = of(vec![window("day", "09:00", "19:00", "Asia/Kolkata", (Some(6), Some(10)))]);
    // India is 5:30 h ahead. Copies start for 90 s, and autoscalers look every now and then: 30 s.
    check(
        &windows,
        &[
            ("2026-11-30T03:27:59Z", (2, 12)),
            ("2026-11-30T03:28:00Z", (6, 12)),
            ("2026-11-30T03:30:00Z", (6, 10)),
            ("2026-11-30T13:29:59Z", (6, 10)),
            ("2026-11-30T13:30:00Z", (2, 12)),
        ],
    );
}

#[test]
fn days_count_by_their_beginning_and_midnight_may_be_inside() {
    let mut night = window("night", "22:00", "06:00", "UTC", (None, Some(3)));
    night.days = vec![Weekday::Fri];
    check(
        &of(vec![night]),
        &[
            ("2026-11-27T21:59:59Z", (2, 12)),
            ("2026-11-27T22:00:00Z", (2, 3)),
            ("2026-11-28T05:59:59Z", (2, 3)),
            ("2026-11-28T06:00:00Z", (2, 12)),
            ("2026-11-28T22:00:00Z", (2, 12)),
        ],
    );
    let whole = window("whole", "00:00", "24:00", "UTC", (Some(4), None));
    check(&of(vec![whole]), &[("2026-11-27T00:00:00Z", (4, 12)), ("2026-11-27T23:59:59Z", (4, 12))]);
}

#[test]
fn of_windows_that_overlap_the_highest_minimum_and_the_lowest_maximum_count() {
    let windows = of(vec![
        window("day", "08:00", "18:00", "UTC", (Some(4), Some(9))),
        window("noon", "11:00", "14:00", "UTC", (Some(8), None)),
        window("sale", "13:00", "15:00", "UTC", (Some(3), Some(8))),
    ]);
    check(
        &windows,
        &[
            ("2026-11-27T10:00:00Z", (4, 9)),
            ("2026-11-27T12:00:00Z", (8, 9)),
            ("2026-11-27T13:30:00Z", (8, 8)),
            ("2026-11-27T14:30:00Z", (4, 8)),
            ("2026-11-27T16:00:00Z", (4, 9)),
        ],
    );
    // What begins soon needs its copies although what ends would have fewer.
    let meets = of(vec![
        window("low", "00:00", "08:00", "UTC", (None, Some(2))),
        window("high", "08:00", "18:00", "UTC", (Some(7), None)),
    ]);
    check(
        &meets,
        &[("2026-11-27T07:57:59Z", (2, 2)), ("2026-11-27T07:58:00Z", (7, 7)), ("2026-11-27T08:00:00Z", (7, 12))],
    );
}

/// Until when, on a day with changed clocks, a window from 02:30 to 05:00 is open: the minutes of UTC at which its minimum holds.
fn open_on(day: &str, zone: &str) -> (String, String, usize) {
    let windows = Windows { startup_seconds: 0, ..of(vec![window("early", "02:30", "05:00", zone, (Some(5), None))]) };
    let begin: Timestamp = format!("{day}T00:00:00Z").parse().expect("a day");
    let minutes = (0..1440).map(|minute| begin + SignedDuration::from_mins(minute));
    // Without the lead of the reaction.
    let open: Vec<Timestamp> = minutes.filter(|now| windows.windows[0].is_open(*now, SignedDuration::ZERO)).collect();
    (open[0].to_string(), open[open.len() - 1].to_string(), open.len())
}

#[test]
fn on_days_on_which_clocks_change_a_window_begins_and_ends_by_the_clock_on_the_wall() {
    // 02:30 does not exist: it becomes 03:30 in summer time, and the window is an hour shorter.
    assert_eq!(
        open_on("2026-03-29", "Europe/Berlin"),
        ("2026-03-29T01:30:00Z".to_owned(), "2026-03-29T02:59:00Z".to_owned(), 90)
    );
    // 02:30 comes twice: the first counts, and the window is an hour longer.
    assert_eq!(
        open_on("2026-10-25", "Europe/Berlin"),
        ("2026-10-25T00:30:00Z".to_owned(), "2026-10-25T03:59:00Z".to_owned(), 210)
    );
    assert_eq!(
        open_on("2026-07-01", "Europe/Berlin"),
        ("2026-07-01T00:30:00Z".to_owned(), "2026-07-01T02:59:00Z".to_owned(), 150)
    );
}

/// An autoscaler, and a service without load: every copy above the minimum goes after a while, every missing one comes.
struct Service {
    /// When each copy is ready.
    copies: Vec<Timestamp>,
    calm_until: Option<Timestamp>,
}

impl Service {
    fn tick(&mut self, now: Timestamp, limits: Limits, startup: SignedDuration) {
        let (min, max) = (limits.min as usize, limits.max as usize);
        while self.copies.len() < min {
            self.copies.push(now + startup);
        }
        if self.copies.len() > max {
            self.copies.truncate(max);
        }
        if self.copies.len() > min {
            let until = *self.calm_until.get_or_insert(now + SignedDuration::from_secs(300));
            if now >= until {
                self.copies.truncate(min);
                self.calm_until = None;
            }
        } else {
            self.calm_until = None;
        }
    }

    fn ready(&self, now: Timestamp) -> usize {
        self.copies.iter().filter(|ready| **ready <= now).count()
    }
}

/// Plays whole days: the keeper looks every 10 s, the autoscaler every 15 s. How many copies were ready when each window began, and
/// the fewest and most that there were by the hour.
fn play(windows: &Windows, days: &[&str]) -> String {
    let startup = SignedDuration::from_secs(i64::try_from(windows.startup_seconds).expect("a short time"));
    let mut story = String::new();
    for day in days {
        let begin: Timestamp = format!("{day}T00:00:00Z").parse().expect("a day");
        let before = begin - SignedDuration::from_hours(2);
        let mut service = Service { copies: Vec::new(), calm_until: None };
        let mut limits = windows.bounds(Clock { now: before, speed: 1.0 }, 0);
        let mut was_open = vec![true; windows.windows.len()];
        let mut last = None;
        for second in 0..(26 * 3600) {
            let now = before + SignedDuration::from_secs(second);
            // Neither looks at the same moment as windows begin.
            if second % 10 == 7 {
                limits = windows.bounds(Clock { now, speed: 1.0 }, 0);
            }
            if second % 15 == 11 {
                service.tick(now, limits, startup);
            }
            for (place, window) in windows.windows.iter().enumerate() {
                let is_open = window.is_open(now, SignedDuration::ZERO);
                if is_open && !was_open[place] {
                    let wanted = window.min.unwrap_or(0) as usize;
                    let ready = service.ready(now);
                    story += &format!("{now} `{}` begins: {ready} ready, {wanted} wanted\n", window.name);
                    assert!(ready >= wanted, "{story}");
                }
                was_open[place] = is_open;
            }
            let copies = service.copies.len();
            if now >= begin && last != Some(copies) {
                story += &format!("{now} {copies} copies\n");
                last = Some(copies);
            }
        }
    }
    story
}

fn mindcompute() -> Windows {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mindcompute");
    let read = |path: &str| std::fs::read(folder.join(path)).map_err(|error| error.to_string());
    let bytes = read("landfall.yaml").expect("the example is there");
    let file = File::read("landfall.yaml", &bytes, &mut |path| read(path));
    let architecture = file.architecture(Some("production")).unwrap_or_else(|findings| panic!("{findings:?}"));
    let service = architecture.service("interview").expect("it is declared");
    Windows {
        min: service.replicas.floor(),
        max: service.replicas.ceiling(),
        startup_seconds: service.startup.seconds(),
        windows: service
            .windows
            .iter()
            .map(|window| Window {
                name: window.name.to_string(),
                days: window.days.iter().map(|day| day.value).collect(),
                from_minute: window.from.value.minutes(),
                to_minute: window.to.value.minutes(),
                time_zone: window.time_zone.to_string(),
                min: window.min.map(|min| min.value),
                max: window.max.map(|max| max.value),
            })
            .collect(),
    }
}

#[test]
fn a_day_of_the_examples_office_hours_has_its_copies_ready_when_they_begin() {
    // A Friday and a Saturday.
    insta::assert_snapshot!(play(&mindcompute(), &["2026-11-27", "2026-11-28"]), @"
    2026-11-27T00:00:00Z 3 copies
    2026-11-27T03:29:11Z 6 copies
    2026-11-27T03:30:00Z `office-hours` begins: 6 ready, 6 wanted
    2026-11-27T13:35:11Z 3 copies
    2026-11-28T00:00:00Z 3 copies
    ");
}

#[test]
fn copies_are_ready_on_days_on_which_clocks_change_too() {
    let windows = of(vec![
        window("early", "02:30", "05:00", "Europe/Berlin", (Some(6), None)),
        window("noon", "12:00", "14:00", "Europe/Berlin", (Some(9), Some(10))),
    ]);
    insta::assert_snapshot!(play(&windows, &["2026-03-29", "2026-10-25"]), @"
    2026-03-29T00:00:00Z 2 copies
    2026-03-29T01:28:11Z 6 copies
    2026-03-29T01:30:00Z `early` begins: 6 ready, 6 wanted
    2026-03-29T03:05:11Z 2 copies
    2026-03-29T09:58:11Z 9 copies
    2026-03-29T10:00:00Z `noon` begins: 9 ready, 9 wanted
    2026-03-29T12:05:11Z 2 copies
    2026-10-25T00:00:00Z 2 copies
    2026-10-25T00:28:11Z 6 copies
    2026-10-25T00:30:00Z `early` begins: 6 ready, 6 wanted
    2026-10-25T04:05:11Z 2 copies
    2026-10-25T10:58:11Z 9 copies
    2026-10-25T11:00:00Z `noon` begins: 9 ready, 9 wanted
    2026-10-25T13:05:11Z 2 copies
    ");
}

#[test]
fn a_clock_that_runs_faster_leaves_copies_their_time() {
    let windows = of(vec![window("day", "09:00", "19:00", "UTC", (Some(6), None))]);
    let fast = |text: &str| windows.bounds(Clock { speed: 60.0, ..at(text) }, 0).min;
    // Two minutes of the machine are two hours of this clock.
    assert_eq!([fast("2026-11-30T06:59:59Z"), fast("2026-11-30T07:00:00Z")], [2, 6]);
}

#[test]
fn what_stands_in_the_annotation_is_read_back() {
    let windows = mindcompute();
    let text = serde_json::to_string(&windows).expect("it is plain data");
    assert_eq!(Windows::read(&text), Ok(windows));
    let nowhere = text.replace("Asia/Kolkata", "Asia/Nowhere");
    assert_eq!(Windows::read(&nowhere), Err("there is no time zone `Asia/Nowhere`".to_owned()));
    assert!(Windows::read("{}").is_err());
}

prop_compose! {
    fn any_window()(from in 0u16..1440, to in 1u16..=1440, min in proptest::option::of(0u32..15), max in proptest::option::of(0u32..15)) -> Window {
        Window { name: "any".to_owned(), days: Vec::new(), from_minute: from, to_minute: to, time_zone: "Europe/Berlin".to_owned(), min, max }
    }
}

proptest! {
    #[test]
    fn stable_copies_keep_their_floor_and_leave_a_canary_its_room_where_there_is_any(
        windows in proptest::collection::vec(any_window(), 0..4), minute in 0i64..(400 * 1440), room in 0u32..4,
    ) {
        let windows = of(windows);
        let now = at("2026-01-01T00:00:00Z").now + SignedDuration::from_mins(minute);
        let clock = Clock { now, speed: 1.0 };
        let (alone, beside) = (windows.bounds(clock, 0), windows.bounds(clock, room));
        prop_assert!(beside.min == alone.min, "a canary takes no copy from the floor");
        prop_assert!(beside.min <= beside.max && beside.max >= 1);
        // Both together stay within what is declared, unless the floor leaves no room.
        prop_assert!(beside.max + room <= alone.max || beside.max == beside.min.max(1));
    }
}
