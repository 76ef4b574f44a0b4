//! Wall clocks: when a window begins and ends, and when a clock is changed.

use std::collections::BTreeMap;

use jiff::civil::{self, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use landfall_model::{TimeOfDay, Weekday, Window};

/// How far ahead clock changes are looked for.
const HORIZON_DAYS: i32 = 731;

/// The changes of clocks by time zone, each looked up once.
pub(super) struct ClockChanges {
    today: civil::Date,
    known: BTreeMap<String, Vec<Change>>,
}

/// A change of the clocks of a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) kind: Kind,
    /// The first local time that is skipped or comes twice.
    from: DateTime,
    /// The local time after the last such.
    to: DateTime,
}

/// What a change does to local times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They do not exist on that day.
    Skipped,
    /// They come twice on that day.
    Repeated,
}

impl ClockChanges {
    pub(super) fn new(today: civil::Date) -> Self {
        Self { today, known: BTreeMap::new() }
    }

    /// The changes of the next two years.
    pub(super) fn of(&mut self, zone: &str) -> &[Change] {
        let today = self.today;
        self.known.entry(zone.to_owned()).or_insert_with(|| changes(zone, today))
    }
}

fn changes(zone: &str, today: civil::Date) -> Vec<Change> {
    let Ok(zone) = TimeZone::get(zone) else { return Vec::new() };
    let Ok(begin) = today.to_zoned(TimeZone::UTC) else { return Vec::new() };
    let end = begin.saturating_add(HORIZON_DAYS.days()).timestamp();
    let until_end = zone.following(begin.timestamp()).take_while(|transition| transition.timestamp() <= end);
    let change = |at: Timestamp| {
        let before = zone.to_offset(at.checked_sub(SignedDuration::from_secs(1)).ok()?);
        let after = zone.to_offset(at);
        let (old, new) = (before.to_datetime(at), after.to_datetime(at));
        match old.cmp(&new) {
            std::cmp::Ordering::Less => Some(Change { kind: Kind::Skipped, from: old, to: new }),
            std::cmp::Ordering::Greater => Some(Change { kind: Kind::Repeated, from: new, to: old }),
            // Only the name or the rule of the offset changed.
            std::cmp::Ordering::Equal => None,
        }
    };
    until_end.filter_map(|transition| change(transition.timestamp())).collect()
}

impl Change {
    /// The day on which the beginning or the end of the window falls into the change.
    pub(super) fn day_of(&self, window: &Window, time: TimeOfDay, ends: bool) -> Option<civil::Date> {
        let overnight = ends && window.to.value <= window.from.value;
        [self.from.date(), self.to.date()].into_iter().find(|day| {
            let local = at(*day, time);
            let begun = if overnight { day.yesterday().unwrap_or(*day) } else { *day };
            // 24:00 is a time of the day after.
            (self.from..self.to).contains(&local) && local.date() == *day && begins_on(window, begun)
        })
    }
}

/// Beginning and end of each time that the window is open in the week after `today`, or so many weeks later, in seconds.
/// The day before that week counts too: its window may last into it.
pub(super) fn week_of(window: &Window, today: civil::Date, weeks: i32) -> Vec<(i64, i64)> {
    let Ok(zone) = TimeZone::get(&window.time_zone) else { return Vec::new() };
    let first = today.saturating_add((weeks * 7).days());
    let open = |offset: i32| {
        let day = first.saturating_add(offset.days());
        begins_on(window, day).then(|| {
            let last = if window.to.value <= window.from.value { day.tomorrow().unwrap_or(day) } else { day };
            (instant(&zone, at(day, window.from.value)), instant(&zone, at(last, window.to.value)))
        })
    };
    (-1..7).filter_map(open).filter(|(begin, end)| begin < end).collect()
}

fn instant(zone: &TimeZone, local: DateTime) -> i64 {
    zone.to_ambiguous_timestamp(local).compatible().map_or(0, Timestamp::as_second)
}

/// The local time; `24:00` is midnight of the next day.
fn at(day: civil::Date, time: TimeOfDay) -> DateTime {
    let midnight = day.to_datetime(civil::Time::midnight());
    midnight.saturating_add(i64::from(time.minutes()).minutes())
}

fn begins_on(window: &Window, day: civil::Date) -> bool {
    let weekday = match day.weekday() {
        civil::Weekday::Monday => Weekday::Mon,
        civil::Weekday::Tuesday => Weekday::Tue,
        civil::Weekday::Wednesday => Weekday::Wed,
        civil::Weekday::Thursday => Weekday::Thu,
        civil::Weekday::Friday => Weekday::Fri,
        civil::Weekday::Saturday => Weekday::Sat,
        civil::Weekday::Sunday => Weekday::Sun,
    };
    window.days.is_empty() || window.days.iter().any(|known| known.value == weekday)
}
