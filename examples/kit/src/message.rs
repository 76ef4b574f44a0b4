//! What a request or event belongs to, which is passed on with everything that is done for it: its journey, its id, its
//! place in its trace. And the file in which is written what was dealt with, where somebody counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Failure;

/// The header of a request that belongs to a journey.
pub(crate) const HEADER: &str = "x-landfall-message";

/// The header with the place in a trace (W3C Trace Context).
pub(crate) const TRACE_HEADER: &str = "traceparent";

/// The variable with the path of the [`Ledger`].
const LEDGER: &str = "LANDFALL_LEDGER";

/// What a request or event belongs to. Whoever passes it on leaves it as it is, but for the trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// The journey; none for what nobody counts.
    pub flow: Option<String>,
    /// Unique in its journey.
    pub id: u64,
    /// When it began, in microseconds since 1970.
    pub sent_us: u64,
    /// The step of the journey at which it came to the first of these services.
    pub hop: u32,
    /// Its place in its trace, as the header `traceparent` says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl Message {
    /// That of a request: what its headers say, or a new one.
    pub fn of_request(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut message = match headers.get(HEADER) {
            Some(header) => serde_json::from_slice(header.as_bytes())?,
            None => Self { id: rand::random(), sent_us: now_us(), ..Self::default() },
        };
        if let Some(trace) = headers.get(TRACE_HEADER).and_then(|trace| trace.to_str().ok()) {
            message.trace = Some(trace.to_owned());
        }
        Ok(message)
    }

    /// Names it among all messages, so that what was done for it is known.
    pub fn key(&self) -> String {
        format!("{}-{}", self.flow.as_deref().unwrap_or("direct"), self.id)
    }

    /// The account that a message is about which names none: one of a thousand.
    pub fn account(&self) -> String {
        format!("account-{:03}", self.id % 1000)
    }

    /// The trace that it is in.
    pub fn trace_id(&self) -> &str {
        self.trace.as_deref().and_then(|trace| trace.split('-').nth(1)).unwrap_or_default()
    }
}

/// One line for each message that was dealt with. Nobody has to keep one.
pub struct Ledger(Option<Mutex<File>>);

impl Ledger {
    /// The one that the environment names.
    pub fn open() -> io::Result<Self> {
        let Some(path) = std::env::var_os(LEDGER) else { return Ok(Self(None)) };
        Ok(Self(Some(Mutex::new(OpenOptions::new().create(true).append(true).open(path)?))))
    }

    /// Writes that a message was dealt with; `edge` has brought it, if it was no request.
    pub fn tell(&self, message: &Message, edge: Option<&str>) -> io::Result<()> {
        let (Some(file), Some(flow)) = (&self.0, &message.flow) else { return Ok(()) };
        let after_us = now_us().saturating_sub(message.sent_us);
        let line = json!({ "flow": flow, "hop": message.hop, "id": message.id, "after_us": after_us, "edge": edge });
        // In one piece: the process may be killed at any time.
        file.lock().unwrap_or_else(PoisonError::into_inner).write_all(format!("{line}\n").as_bytes())
    }
}

/// Now, in microseconds since 1970.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_belongs_to() {
        let mut headers = HeaderMap::new();
        let new = Message::of_request(&headers).expect("nothing is wrong with it");
        assert_eq!(new.flow, None);
        headers.insert(HEADER, r#"{"flow":"alert","id":7042,"sent_us":5,"hop":1}"#.parse().expect("it is a header"));
        headers.insert(TRACE_HEADER, "00-0af7-b7ad-01".parse().expect("it is a header"));
        let message = Message::of_request(&headers).expect("nothing is wrong with it");
        assert_eq!((message.key().as_str(), message.account().as_str()), ("alert-7042", "account-042"));
        assert_eq!((message.hop, message.trace_id()), (1, "0af7"));
        headers.insert(HEADER, "seven".parse().expect("it is a header"));
        assert!(Message::of_request(&headers).is_err());
    }
}
