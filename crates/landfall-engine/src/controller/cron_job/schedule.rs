//! The times of a schedule in its time zone. Pure.
//!
//! Not handled: `@every`, which Kubernetes' parser reads too, and the daylight-saving rules of that parser where they differ from
//! croner's. Without a time zone, times are UTC, as with a controller manager in a container.

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(super) struct Schedule {
    cron: Cron,
    pub(super) zone: TimeZone,
}

/// The time zone with this name of the IANA database.
pub(super) fn zone(name: Option<&str>) -> Result<TimeZone, jiff::Error> {
    name.map_or(Ok(TimeZone::UTC), TimeZone::get)
}

/// Which times have passed since the last one that was seen to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) latest: Option<Timestamp>,
    /// More than a hundred: something is wrong with the clock or the schedule.
    pub(super) too_many: bool,
}

impl Schedule {
    pub(super) fn parse(text: &str, zone: TimeZone) -> Result<Self, CronError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        Ok(Self { cron: parser.parse(text)?, zone })
    }

    /// The first time after `time`; `None`: there is none, as with the 30th of February.
    pub(super) fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&time.to_zoned(self.zone.clone()), false);
        next.ok().map(|next| next.timestamp())
    }

    fn until(&self, time: Timestamp) -> Option<Timestamp> {
        let previous = self.cron.find_previous_occurrence(&time.to_zoned(self.zone.clone()), true);
        previous.ok().map(|previous| previous.timestamp())
    }

    /// The times after `since` up to `now`.
    pub(super) fn due(&self, since: Timestamp, now: Timestamp) -> Due {
        let Some(first) = self.after(since).filter(|first| *first <= now) else { return Due::default() };
        let Some(second) = self.after(first).filter(|second| *second <= now) else {
            return Due { latest: Some(first), too_many: false };
        };
        // As many as there would be if all were as far apart as the first two: counting them one by one could take long.
        let apart = second.duration_since(first).as_secs().max(1);
        let missed = now.duration_since(first).as_secs() / apart + 1;
        Due { latest: self.until(now), too_many: missed > 100 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn schedule(text: &str, name: Option<&str>) -> Schedule {
        Schedule::parse(text, zone(name).expect("a time zone")).expect("a schedule")
    }

    #[test]
    fn a_time_zone_moves_the_times() {
        let schedule = schedule("30 8 * * 1-5", Some("Asia/Kolkata"));
        assert_eq!(schedule.after(at("2027-01-01T04:00:00Z")), Some(at("2027-01-04T03:00:00Z")));
    }

    #[test]
    fn only_the_latest_of_the_missed_times_is_due() {
        let schedule = schedule("*/10 * * * *", None);
        let due = |since, now| schedule.due(at(since), at(now));
        assert_eq!(due("2027-01-01T00:00:00Z", "2027-01-01T00:09:59Z"), Due::default());
        let once = Due { latest: Some(at("2027-01-01T00:10:00Z")), too_many: false };
        assert_eq!(due("2027-01-01T00:00:00Z", "2027-01-01T00:10:00Z"), once);
        let some = Due { latest: Some(at("2027-01-01T00:50:00Z")), too_many: false };
        assert_eq!(due("2027-01-01T00:00:00Z", "2027-01-01T00:55:00Z"), some);
        let many = Due { latest: Some(at("2027-01-02T00:00:00Z")), too_many: true };
        assert_eq!(due("2027-01-01T00:00:00Z", "2027-01-02T00:05:00Z"), many);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(Schedule::parse("* * * *", TimeZone::UTC).is_err());
        assert!(zone(Some("Mars/Olympus")).is_err());
        assert_eq!(schedule("@hourly", None).after(at("2027-01-01T00:30:00Z")), Some(at("2027-01-01T01:00:00Z")));
    }
}
