//! The times at which a release may begin. Pure.

use std::fmt;

use jiff::civil::Weekday as Day;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use landfall_model::{DeployWindow, Weekday};
use serde::{Deserialize, Serialize};

/// How far ahead a next window is looked for: every day of the week comes within it, a missing hour included.
const AHEAD_DAYS: i64 = 9;

/// A span of the day on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The days, as `mon`; every day when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Weekday>,
    /// From this minute of the day on.
    pub from_minute: u16,
    /// Until this one; of the next day when it is not later.
    pub to_minute: u16,
    /// The IANA time zone.
    pub time_zone: String,
}

impl From<&DeployWindow> for Window {
    fn from(window: &DeployWindow) -> Self {
        Self {
            days: window.days.iter().map(|day| day.value).collect(),
            from_minute: window.from.value.minutes(),
            to_minute: window.to.value.minutes(),
            time_zone: window.time_zone.to_string(),
        }
    }
}

/// `between 09:00 and 17:00 on Mon, Fri in Europe/Berlin`: as people read it.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let days: Vec<String> = self.days.iter().map(|day| format!("{day:?}")).collect();
        let days = if days.is_empty() { String::new() } else { format!(" on {}", days.join(", ")) };
        write!(f, "between {} and {}{days} in {}", clock(self.from_minute), clock(self.to_minute), self.time_zone)
    }
}

/// Whether one of the windows is open. The error names a time zone that nobody knows.
pub(super) fn is_open(windows: &[Window], now: Timestamp) -> Result<bool, String> {
    for window in windows {
        if window.is_open(now)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// When the next window begins.
pub(super) fn next(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    windows.iter().filter_map(|window| window.next(now)).min()
}

impl Window {
    fn zone(&self) -> Result<TimeZone, String> {
        TimeZone::get(&self.time_zone).map_err(|_| format!("there is no time zone `{}`", self.time_zone))
    }

    fn is_on(&self, day: Day) -> bool {
        self.days.is_empty() || self.days.iter().any(|own| weekday(*own) == day)
    }

    fn is_open(&self, now: Timestamp) -> Result<bool, String> {
        let here = now.to_zoned(self.zone()?);
        let minute =
            u16::try_from(here.hour()).unwrap_or_default() * 60 + u16::try_from(here.minute()).unwrap_or_default();
        let today = here.weekday();
        Ok(if self.from_minute < self.to_minute {
            self.is_on(today) && (self.from_minute..self.to_minute).contains(&minute)
        } else {
            // Over midnight: it belongs to the day on which it begins.
            (self.is_on(today) && minute >= self.from_minute)
                || (self.is_on(today.previous()) && minute < self.to_minute)
        })
    }

    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let zone = self.zone().ok()?;
        let today = now.to_zoned(zone.clone()).date();
        (0..AHEAD_DAYS).find_map(|ahead| {
            let date = today.checked_add(ahead.days()).ok()?;
            if !self.is_on(date.weekday()) {
                return None;
            }
            let midnight = date.to_datetime(jiff::civil::Time::midnight());
            let begin = midnight.checked_add(SignedDuration::from_mins(i64::from(self.from_minute))).ok()?;
            let begin = begin.to_zoned(zone.clone()).ok()?.timestamp();
            (begin > now).then_some(begin)
        })
    }
}

fn weekday(day: Weekday) -> Day {
    match day {
        Weekday::Mon => Day::Monday,
        Weekday::Tue => Day::Tuesday,
        Weekday::Wed => Day::Wednesday,
        Weekday::Thu => Day::Thursday,
        Weekday::Fri => Day::Friday,
        Weekday::Sat => Day::Saturday,
        Weekday::Sun => Day::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[Weekday], from: u16, to: u16) -> Window {
        Window {
            days: days.to_vec(),
            from_minute: from * 60,
            to_minute: to * 60,
            time_zone: "Europe/Berlin".to_owned(),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_window_is_open_between_its_hours_in_its_time_zone() {
        let window = [window(&[Weekday::Mon, Weekday::Fri], 9, 17)];
        // 2026-11-27 is a Friday; Berlin is an hour ahead of UTC in winter and two in summer.
        for (time, open) in [
            ("2026-11-27T07:59:59Z", false),
            ("2026-11-27T08:00:00Z", true),
            ("2026-11-27T15:59:59Z", true),
            ("2026-11-27T16:00:00Z", false),
            ("2026-11-28T12:00:00Z", false),
            ("2026-07-03T07:00:00Z", true),
            ("2026-07-03T15:00:00Z", false),
        ] {
            assert_eq!(is_open(&window, at(time)), Ok(open), "{time}");
        }
        assert_eq!(next(&window, at("2026-11-27T16:00:00Z")), Some(at("2026-11-30T08:00:00Z")));
        assert_eq!(next(&window, at("2026-11-27T07:00:00Z")), Some(at("2026-11-27T08:00:00Z")));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let window = [window(&[Weekday::Fri], 22, 4)];
        for (time, open) in [
            ("2026-11-27T20:59:00Z", false),
            ("2026-11-27T21:00:00Z", true),
            ("2026-11-28T02:59:00Z", true),
            ("2026-11-28T03:00:00Z", false),
            ("2026-11-27T02:00:00Z", false),
        ] {
            assert_eq!(is_open(&window, at(time)), Ok(open), "{time}");
        }
    }

    #[test]
    fn a_time_zone_that_nobody_knows_closes_it() {
        let mut window = window(&[], 0, 24);
        window.time_zone = "Europe/Atlantis".to_owned();
        assert!(is_open(&[window], at("2026-11-27T12:00:00Z")).is_err());
    }
}
