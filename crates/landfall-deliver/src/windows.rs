//! Time windows where no KEDA keeps them: the bounds of an autoscaler at each moment. Pure; [`keep()`] moves them.
//!
//! What is to be kept is an annotation of the `HorizontalPodAutoscaler`, so whoever keeps it needs no file. A release that has
//! a canary beside the service writes its room there, too: both, the keeper and the release, set what [`Windows::bounds`] says
//! and nothing else, so neither undoes what the other does.

mod keep;

use jiff::civil::{DateTime, Time, Weekday as Day};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use landfall_model::Weekday;
use serde::{Deserialize, Serialize};

pub use self::keep::{Kept, keep, keep_once};

/// The annotation of an autoscaler with its windows; [`Windows`] as JSON.
pub(crate) const WINDOWS: &str = "landfall.dev/windows";

/// The annotation of an autoscaler with how many copies of a canary there are beside those that it counts.
pub(crate) const ROOM: &str = "landfall.dev/room";

/// How long after its time a window acts at worst: how often the keeper looks, and how often autoscalers do
/// (`--horizontal-pod-autoscaler-sync-period`, 15 s).
const REACTION: SignedDuration = SignedDuration::from_secs(30);

/// What is declared for the number of copies of a service, as it stands in the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the windows are the windows in the annotation, too")]
pub(crate) struct Windows {
    /// The fewest copies outside of all windows.
    pub min: u32,
    /// The most copies outside of all windows.
    pub max: u32,
    /// How long a copy needs until it is ready.
    pub startup_seconds: u64,
    /// The windows.
    pub windows: Vec<Window>,
}

/// A span of the day on some days of the week, with bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Window {
    /// Its name.
    pub name: String,
    /// The days on which it begins; every day when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Weekday>,
    /// From this minute of the day on.
    pub from_minute: u16,
    /// Until this one; of the next day when it is not later.
    pub to_minute: u16,
    /// The IANA time zone of both.
    pub time_zone: String,
    /// The fewest copies in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// The most copies in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// How many copies there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The fewest.
    pub min: u32,
    /// The most; at least the fewest, and at least one.
    pub max: u32,
}

/// The time that windows go by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// What it shows.
    pub now: Timestamp,
    /// How many times as fast as a copy starts it runs; one for every clock but those that are set for tests.
    pub speed: f64,
}

impl Windows {
    /// What an annotation says. The error is for people.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let windows: Self = serde_json::from_str(text).map_err(|error| format!("it is not understood: {error}"))?;
        for window in &windows.windows {
            window.zone()?;
        }
        Ok(windows)
    }

    /// The bounds at a moment, with so many copies of a canary beside.
    ///
    /// The fewest copies of a window count earlier than it begins by the time that copies need to start, so that they are ready
    /// when it does. Of windows that overlap the highest minimum and the lowest maximum count. Where both cannot be kept, the
    /// fewest copies are: too few hurt users, too many only cost.
    pub(crate) fn bounds(&self, clock: Clock, room: u32) -> Limits {
        let lead = REACTION + SignedDuration::try_from_secs_f64(to_float(self.startup_seconds)).unwrap_or_default();
        // Copies start in the time of the machine, however fast this clock runs.
        let lead = SignedDuration::try_from_secs_f64(lead.as_secs_f64() * clock.speed.max(1.0)).unwrap_or(REACTION);
        let soon = |window: &&Window| window.is_open(clock.now, lead);
        let now = |window: &&Window| window.is_open(clock.now, SignedDuration::ZERO);
        let least = self.windows.iter().filter(|window| window.min.is_some()).filter(soon);
        let min = least.filter_map(|window| window.min).fold(self.min, u32::max);
        let most = self.windows.iter().filter(|window| window.max.is_some()).filter(now);
        let max = most.filter_map(|window| window.max).min().unwrap_or(self.max);
        Limits { min, max: max.saturating_sub(room).max(min).max(1) }
    }
}

impl Window {
    fn zone(&self) -> Result<TimeZone, String> {
        TimeZone::get(&self.time_zone).map_err(|_| format!("there is no time zone `{}`", self.time_zone))
    }

    /// Whether it is open, or will be within `lead`.
    ///
    /// On a day on which clocks change, a time that is skipped moves forward by the jump, and of one that comes twice the first
    /// counts.
    fn is_open(&self, now: Timestamp, lead: SignedDuration) -> bool {
        self.around(now, lead.as_hours() / 24 + 2)
            .any(|(begin, end)| begin.saturating_sub(lead).is_ok_and(|begin| begin <= now) && now < end)
    }

    /// When it begins and ends, from two days before a moment until so many days after it.
    fn around(&self, now: Timestamp, ahead: i64) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let zone = self.zone().ok();
        (-2..=ahead).filter_map(move |offset| {
            let zone = zone.as_ref()?;
            let day = now.to_zoned(zone.clone()).date().checked_add(offset.days()).ok()?;
            if !self.begins_on(day.weekday()) {
                return None;
            }
            let last = if self.to_minute <= self.from_minute { day.tomorrow().ok()? } else { day };
            let begin = instant(zone, day.to_datetime(Time::midnight()), self.from_minute)?;
            Some((begin, instant(zone, last.to_datetime(Time::midnight()), self.to_minute)?))
        })
    }

    fn begins_on(&self, day: Day) -> bool {
        let day = match day {
            Day::Monday => Weekday::Mon,
            Day::Tuesday => Weekday::Tue,
            Day::Wednesday => Weekday::Wed,
            Day::Thursday => Weekday::Thu,
            Day::Friday => Weekday::Fri,
            Day::Saturday => Weekday::Sat,
            Day::Sunday => Weekday::Sun,
        };
        self.days.is_empty() || self.days.contains(&day)
    }
}

/// When a declared window begins for the first time after a moment, and when it ends then. `None`: its time zone is not known.
pub fn next_window(declared: &landfall_model::Window, after: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let window = Window {
        name: declared.name.to_string(),
        days: declared.days.iter().map(|day| day.value).collect(),
        from_minute: declared.from.minutes(),
        to_minute: declared.to.minutes(),
        time_zone: declared.time_zone.value.clone(),
        min: None,
        max: None,
    };
    // Whatever its days are, one is within a week.
    window.around(after, 8).find(|(begin, _)| *begin > after)
}

/// A minute of a day; the 1440th is midnight of the next.
fn instant(zone: &TimeZone, midnight: DateTime, minute: u16) -> Option<Timestamp> {
    let local = midnight.checked_add(i64::from(minute).minutes()).ok()?;
    zone.to_ambiguous_timestamp(local).compatible().ok()
}

#[expect(clippy::cast_precision_loss, reason = "no copy starts for longer than doubles have whole seconds")]
fn to_float(seconds: u64) -> f64 {
    seconds as f64
}

#[cfg(test)]
mod tests;
