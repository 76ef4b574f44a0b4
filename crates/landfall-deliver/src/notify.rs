//! Who is told of releases, and what: pure. [`crate::carry()`] writes each notice down with what it tells of, sends it, and
//! writes down the receipt, so that no notice is lost, and one may come twice, with the same id.

mod impact;
mod message;
pub(crate) mod post;

use std::time::Duration;

use jiff::Timestamp;
use landfall_model::{Notify, NotifyEvent};
use serde::{Deserialize, Serialize};

pub use self::impact::{Impact, ServiceImpact};
pub use self::message::{Author as CommitAuthor, Message, PipelineNews, ReleaseNews, ShippedService};
pub use self::post::{append, post};

use crate::gate::WAITING;
use crate::release::{ReleaseSpec, ReleaseStatus};
use crate::rollout::{Phase, Reason};

/// How long a notice is worth sending; then it is given up.
pub(crate) const WORTH: Duration = Duration::from_hours(24);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Somebody who is told, as a release keeps it: whoever carries the release on tells the same people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Who.
    pub to: String,
    /// By which means.
    pub by: Means,
    /// Of what; of everything when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<NotifyEvent>,
}

/// By which means somebody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Means {
    /// A URL that takes messages.
    Webhook(String),
    /// A key of a Secret beside the release, which holds such a URL.
    SecretWebhook {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
    },
    /// A file on the machine of whoever sends, from the folder of the architecture's file on.
    File(String),
}

/// A message for somebody, and what has become of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// By which means.
    pub by: Means,
    /// What is told, and to whom.
    pub message: Message,
    /// How often it was tried.
    #[serde(default)]
    pub attempts: u32,
    /// What has become of it.
    pub receipt: Receipt,
}

/// What has become of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Receipt {
    /// It is to be sent, or nobody has written down yet that it was.
    ToSend {
        /// Why the last attempt failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trouble: Option<String>,
    },
    /// Somebody has taken it.
    Sent {
        /// When.
        at: String,
        /// What they have answered.
        answer: String,
    },
    /// It is not tried any more.
    GivenUp {
        /// When.
        at: String,
        /// Why.
        why: String,
    },
}

/// Who is told, as the file lists them ([`landfall_model::Architecture::notify`]).
pub fn told(list: &[Notify]) -> Vec<Told> {
    let means = |notify: &Notify| {
        if let Some(file) = &notify.file {
            return Some(Means::File(file.to_string()));
        }
        Some(match notify.secret() {
            Some(secret) => Means::SecretWebhook { secret: secret.name.to_string(), key: secret.key },
            None => Means::Webhook(notify.webhook.as_ref()?.to_string()),
        })
    };
    let told = list.iter().filter_map(|notify| {
        let on = notify.on.iter().map(|on| on.value).collect();
        Some(Told { to: notify.to.to_string(), by: means(notify)?, on })
    });
    told.collect()
}

impl Told {
    /// Whether it is told of this.
    pub fn wants(&self, event: NotifyEvent) -> bool {
        self.on.is_empty() || self.on.contains(&event)
    }
}

impl Notice {
    /// One that nobody has tried to send.
    pub fn new(by: Means, message: Message) -> Self {
        Self { by, message, attempts: 0, receipt: Receipt::ToSend { trouble: None } }
    }

    /// Whether it is still to be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.receipt, Receipt::ToSend { .. })
    }

    /// Writes down how an attempt went. One that failed is given up when the message is not worth sending any more.
    pub fn settle(&mut self, outcome: &Result<String, String>, now: Timestamp) {
        self.attempts += 1;
        self.receipt = match outcome {
            Ok(answer) => Receipt::Sent { at: now.to_string(), answer: answer.clone() },
            Err(why) if self.is_stale(now) => {
                let why = format!("not within {} h: {why}", WORTH.as_secs() / 3600);
                Receipt::GivenUp { at: now.to_string(), why }
            }
            Err(why) => Receipt::ToSend { trouble: Some(why.clone()) },
        };
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        let written = self.message.at.parse::<Timestamp>().unwrap_or(now);
        now.duration_since(written).unsigned_abs() >= WORTH
    }

    /// What has become of it, on one line.
    pub fn summary(&self) -> String {
        let Message { to, event, .. } = &self.message;
        let event = event.as_str();
        match &self.receipt {
            Receipt::ToSend { trouble: None } => format!("`{to}` is to be told of `{event}`"),
            Receipt::ToSend { trouble: Some(why) } => {
                format!("`{to}` is to be told of `{event}`; attempt {} failed: {why}", self.attempts)
            }
            Receipt::Sent { answer, .. } if self.attempts > 1 => {
                format!("`{to}` was told of `{event}` at attempt {}: {answer}", self.attempts)
            }
            Receipt::Sent { answer, .. } => format!("`{to}` was told of `{event}`: {answer}"),
            Receipt::GivenUp { why, .. } => format!("`{to}` was not told of `{event}`: {why}"),
        }
    }
}

/// How long it is waited after so many attempts: twice as long each time.
pub fn pause(attempts: u32) -> Duration {
    let seconds = 1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(LONGEST_PAUSE)
}

/// A release that something is told of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Where it is kept.
    pub(crate) namespace: &'a str,
    /// By what it differs from releases of that name in other clusters.
    pub(crate) uid: &'a str,
    /// What is shipped.
    pub(crate) spec: &'a ReleaseSpec,
}

/// Writes down whom to tell of what has changed since `before`.
pub(crate) fn announce(subject: Subject<'_>, before: &ReleaseStatus, status: &mut ReleaseStatus, now: Timestamp) {
    if subject.spec.notify.is_empty() {
        return;
    }
    let Some((event, moment)) = happened(subject.spec, before, status) else { return };
    let id = |place: usize| format!("{}/{moment}/{place}", subject.uid);
    // A gate that closes once more is no news.
    let known = |place: usize| status.notices.iter().any(|notice| notice.message.id == id(place));
    let wanted = subject.spec.notify.iter().enumerate();
    let wanted = wanted.filter(|(place, told)| told.wants(event) && !known(*place));
    let notices: Vec<Notice> = wanted
        .map(|(place, told)| {
            let message = message::of_release(subject, status, event, told, id(place), now);
            Notice::new(told.by.clone(), message)
        })
        .collect();
    status.notices.extend(notices);
}

/// What people are told of, and a word for the moment, which comes once for each release.
fn happened(spec: &ReleaseSpec, before: &ReleaseStatus, now: &ReleaseStatus) -> Option<(NotifyEvent, &'static str)> {
    if now.phase == Phase::Pending {
        let waits = now.state == WAITING && before.state != WAITING;
        return waits.then_some((NotifyEvent::Waiting, "waiting"));
    }
    if before.phase.name() == now.phase.name() {
        return None;
    }
    match &now.phase {
        Phase::Pending | Phase::Progressing { .. } | Phase::RollingBack { .. } => None,
        Phase::Held { .. } => Some((NotifyEvent::Failed, "held")),
        Phase::Failed { .. } => Some((NotifyEvent::Failed, "failed")),
        Phase::Succeeded if spec.takes_back.is_some() => Some((NotifyEvent::RolledBack, "rolled-back")),
        Phase::Succeeded => Some((NotifyEvent::Succeeded, "succeeded")),
        // It was stopped before it began: nothing had to be taken back.
        Phase::RolledBack { cause } if now.ran.is_empty() => {
            Some((NotifyEvent::Failed, if cause.reason == Reason::Aborted { "rejected" } else { "withdrawn" }))
        }
        Phase::RolledBack { .. } => Some((NotifyEvent::RolledBack, "rolled-back")),
    }
}

#[cfg(test)]
mod tests;
