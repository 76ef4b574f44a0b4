//! How long the way back takes, beside what `delivery.rollback.within` promises. Pure.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Release, ReleaseSpec, ReleaseStatus};
use crate::rollout::Phase;

/// When the way back was begun, and when every service ran the old version again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WayBack {
    /// When it was decided.
    pub begin: String,
    /// When it was done; nothing when it is under way, or was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

/// How long the way back took, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Took {
    /// From the decision until every service ran the old version again.
    pub seconds: u64,
    /// What `delivery.rollback.within` promises, if it does.
    pub promised_seconds: Option<u64>,
}

impl Took {
    /// Whether it took longer than is promised.
    pub fn is_late(&self) -> bool {
        self.promised_seconds.is_some_and(|promised| self.seconds > promised)
    }
}

impl fmt::Display for Took {
    fn fmt(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(into, "the way back took {} s", self.seconds)?;
        match self.promised_seconds {
            Some(promised) if self.is_late() => {
                write!(into, ", and `delivery.rollback.within` promises {promised} s at most")
            }
            Some(promised) => write!(into, ", of the {promised} s of `delivery.rollback.within`"),
            None => Ok(()),
        }
    }
}

impl Release {
    /// How long its way back took; nothing while it is on the way, or when there was none.
    pub fn way_back(&self) -> Option<Took> {
        self.status.as_ref().and_then(|status| status.measured_way_back(&self.spec))
    }
}

impl ReleaseStatus {
    /// Notes when the way back begins and ends, as `next` begins. What is to be said of it when it took too long.
    ///
    /// Of a release that takes another one back, the whole of it is the way back.
    pub(super) fn note_way_back(&mut self, spec: &ReleaseSpec, next: &Phase, now: Timestamp) -> Option<String> {
        let goes_back = match next {
            Phase::RollingBack { .. } => true,
            Phase::Progressing { .. } => spec.takes_back.is_some(),
            _ => false,
        };
        if goes_back && self.way_back.is_none() {
            self.way_back = Some(WayBack { begin: now.to_string(), end: None });
        }
        if !matches!(next, Phase::Succeeded | Phase::RolledBack { .. }) {
            return None;
        }
        self.way_back.as_mut()?.end = Some(now.to_string());
        self.measured_way_back(spec).filter(Took::is_late).map(|late| late.to_string())
    }

    fn measured_way_back(&self, spec: &ReleaseSpec) -> Option<Took> {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let way_back = self.way_back.as_ref()?;
        let took = time(way_back.end.as_deref()?)?.duration_since(time(&way_back.begin)?);
        // A part of a second counts as one: a promise is not kept by rounding.
        let seconds = u64::try_from(took.as_millis()).unwrap_or_default().div_ceil(1000);
        Some(Took { seconds, promised_seconds: spec.rollback_within_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::ServiceRelease;
    use crate::rollout::Event;

    /// A release of one service that goes back when it has begun, `seconds` later.
    fn went_back(within: Option<u64>, seconds: i64) -> Release {
        let spec =
            ReleaseSpec { rollback_within_seconds: within, ..ReleaseSpec::sample(vec![ServiceRelease::sample("web")]) };
        let begin: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        let after = |seconds| begin + jiff::SignedDuration::from_secs(seconds);
        let mut status = ReleaseStatus::default();
        for (event, at) in
            [(Event::Begin, 0), (Event::Broken("it crashes".to_owned()), 60), (Event::Ready, 60 + seconds)]
        {
            assert!(status.follow(&spec, &event, after(at)), "{event:?}");
        }
        let mut release = Release::new("shop-1", spec);
        release.status = Some(status);
        release
    }

    fn last_words(release: &Release) -> &str {
        release.status.as_ref().map(|status| status.message.as_str()).unwrap_or_default()
    }

    #[test]
    fn a_way_back_that_takes_too_long_is_told_with_what_was_promised() {
        let late = went_back(Some(300), 301);
        insta::assert_snapshot!(last_words(&late), @"every service runs the old version again, because: it crashes; the way back took 301 s, and `delivery.rollback.within` promises 300 s at most");
        assert_eq!(late.way_back(), Some(Took { seconds: 301, promised_seconds: Some(300) }));
    }

    #[test]
    fn a_way_back_in_time_is_measured_and_no_news() {
        let kept = went_back(Some(300), 300);
        insta::assert_snapshot!(last_words(&kept), @"every service runs the old version again, because: it crashes");
        insta::assert_snapshot!(kept.way_back().expect("it went back").to_string(), @"the way back took 300 s, of the 300 s of `delivery.rollback.within`");
        insta::assert_snapshot!(went_back(None, 7).way_back().expect("it went back").to_string(), @"the way back took 7 s");
    }

    #[test]
    fn a_release_that_takes_another_one_back_is_a_way_back_itself() {
        let spec = ReleaseSpec {
            takes_back: Some("shop-1".to_owned()),
            rollback_within_seconds: Some(60),
            ..ReleaseSpec::sample(vec![ServiceRelease::sample("web")])
        };
        let begin: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        let mut status = ReleaseStatus::default();
        assert!(status.follow(&spec, &Event::Begin, begin));
        assert_eq!(status.measured_way_back(&spec), None, "it is under way");
        assert!(status.follow(&spec, &Event::Ready, begin + jiff::SignedDuration::from_secs(61)));
        insta::assert_snapshot!(status.message, @"every service runs the new version; the way back took 61 s, and `delivery.rollback.within` promises 60 s at most");
    }

    #[test]
    fn what_goes_forward_has_no_way_back() {
        let spec = ReleaseSpec::sample(vec![ServiceRelease::sample("web")]);
        let mut status = ReleaseStatus::default();
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        assert!(status.follow(&spec, &Event::Begin, now) && status.follow(&spec, &Event::Ready, now));
        assert_eq!((status.phase.clone(), status.measured_way_back(&spec)), (Phase::Succeeded, None));
    }
}
