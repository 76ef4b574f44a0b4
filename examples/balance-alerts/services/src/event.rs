//! The one event of the platform.

use example_kit::Message;
use serde::{Deserialize, Serialize};

/// The balance of an account has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BalanceChanged {
    #[serde(flatten)]
    pub(crate) message: Message,
    pub(crate) account: String,
    /// The balance, in hundredths.
    pub(crate) cents: i64,
    /// What was known at that moment of whether the customer wants to hear of it.
    pub(crate) wanted: Option<bool>,
}

impl BalanceChanged {
    /// Reads one. Who names no account means the one of the message.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut event: Self = serde_json::from_slice(body)?;
        if event.account.is_empty() {
            event.account = event.message.account();
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let message = Message { flow: Some("alert".to_owned()), id: 7, sent_us: 1, hop: 2, trace: None };
        let event = BalanceChanged { message, account: "a".to_owned(), cents: -5, wanted: Some(true) };
        let text = serde_json::to_vec(&event).expect("it can be written");
        assert_eq!(BalanceChanged::parse(&text).expect("it can be read"), event);
        let bare = BalanceChanged::parse(br#"{"flow":null,"id":12,"sent_us":3}"#).expect("it can be read");
        assert_eq!(bare.account, "account-012");
    }
}
