//! Readings in their canonical form (`schemas/submission.json`), and the events about them.

use example_kit::Message;
use serde::{Deserialize, Serialize};

/// One reading, whichever channel it came by. What this platform does not look at is kept as it came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Submission {
    pub(crate) id: String,
    pub(crate) channel: String,
    pub(crate) scheme: String,
    pub(crate) measured: String,
    pub(crate) kind: String,
    pub(crate) value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reporter: Option<String>,
}

impl Submission {
    /// The one in the body of a request. A request that is part of a journey and brings none is about a made-up one, so that
    /// callers that know nothing of readings can be counted; any other brings nothing.
    pub(crate) fn of_request(body: &[u8], message: &Message) -> Option<Self> {
        Self::read(body).or_else(|| message.flow.is_some().then(|| Self::made_up(message)))
    }

    /// The one that is written here, if it is one.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let read = serde_json::from_slice::<Self>(body).ok();
        read.filter(|submission| !submission.id.is_empty() && !submission.channel.is_empty())
    }

    fn made_up(message: &Message) -> Self {
        Self {
            id: message.key(),
            channel: "unknown".to_owned(),
            scheme: format!("scheme-{:02}", message.id % 40),
            kind: "volume".to_owned(),
            ..Self::default()
        }
    }

    /// The one that somebody sends by `WhatsApp`.
    pub(crate) fn by_whatsapp(message: &Message) -> Self {
        Self { channel: BY_WHATSAPP.to_owned(), reporter: Some(message.account()), ..Self::made_up(message) }
    }
}

/// The channel whose people are thanked.
pub(crate) const BY_WHATSAPP: &str = "bfm";

/// Says that a submission was accepted, or what is to be said to somebody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    #[serde(flatten)]
    pub(crate) message: Message,
    pub(crate) submission: Submission,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_brings_a_submission_or_is_part_of_a_journey() {
        let (journey, nobody) = (Message { flow: Some("a".into()), id: 7, ..Message::default() }, Message::default());
        let body = br#"{"id":"x","channel":"pumps","scheme":"s","measured":"now","kind":"duration","value":4.5}"#;
        let read = Submission::of_request(body, &nobody).expect("it is one");
        assert_eq!((read.id.as_str(), read.channel.as_str(), read.value), ("x", "pumps", 4.5));
        assert_eq!(Submission::of_request(b"{\"id\":3}", &nobody), None);
        assert_eq!(Submission::of_request(b"", &nobody), None);
        assert_eq!(Submission::of_request(b"", &journey).map(|made_up| made_up.id), Some("a-7".to_owned()));
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let message = Message { flow: Some("a".into()), id: 7, sent_us: 1, hop: 2, trace: None };
        let event = Event { submission: Submission::by_whatsapp(&message), message, text: None };
        let text = serde_json::to_vec(&event).expect("it can be written");
        assert_eq!(serde_json::from_slice::<Event>(&text).expect("it can be read"), event);
    }
}
