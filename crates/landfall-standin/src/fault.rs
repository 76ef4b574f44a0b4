//! What a stand-in is told to get wrong, while it runs: releases and drills look at how the platform takes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Failure;

/// What goes wrong until another one takes its place; the default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fault {
    /// How much longer every answer takes and every message is worked on, in milliseconds.
    pub slow_ms: u64,
    /// The share of requests and messages that fail, from 0 to 1; probes do not.
    pub errors: f64,
    /// It says that it is not ready.
    pub not_ready: bool,
    /// It answers nothing, probes neither, and works on no message.
    pub hang: bool,
    /// How many bytes of memory it takes each second, and gives back when the fault is over.
    pub leak_bytes_per_second: u64,
    /// It ends at once, as after a bug, without finishing what is under way.
    pub crash: bool,
}

impl Fault {
    /// Reads JSON, and says what is wrong with it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let fault: Self = serde_json::from_slice(text).map_err(|error| format!("this is no fault: {error}"))?;
        if (0.0..=1.0).contains(&fault.errors) {
            Ok(fault)
        } else {
            Err(format!("`errors` is a share from 0 to 1, not {}", fault.errors))
        }
    }
}

/// How often memory is taken.
const LEAK: Duration = Duration::from_millis(100);

/// The fault of a stand-in now.
pub(crate) struct Faults(watch::Sender<Fault>);

impl Faults {
    pub(crate) fn new(fault: Fault) -> Self {
        Self(watch::Sender::new(fault))
    }

    pub(crate) fn now(&self) -> Fault {
        self.0.borrow().clone()
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.0.send_replace(fault);
    }

    /// Holds an answer back for as long as the fault asks for.
    pub(crate) async fn hold(&self) {
        let mut news = self.0.subscribe();
        // The sender is `self`: waiting ends with an answer.
        let _ = news.wait_for(|fault| !fault.hang).await;
        let slow = self.0.borrow().slow_ms;
        if slow > 0 {
            tokio::time::sleep(Duration::from_millis(slow)).await;
        }
    }

    /// Whether this request or message is one of those that fail.
    pub(crate) fn strikes(&self) -> bool {
        let errors = self.0.borrow().errors;
        errors > 0.0 && rand::random::<f64>() < errors
    }

    /// Returns when it is to end as after a bug.
    pub(crate) async fn crash(&self) -> Failure {
        let mut news = self.0.subscribe();
        let _ = news.wait_for(|fault| fault.crash).await;
        "it was told to crash".into()
    }

    /// Takes memory while the fault asks for it; never returns.
    pub(crate) async fn leak(&self) {
        let mut news = self.0.subscribe();
        let mut taken: Vec<Vec<u8>> = Vec::new();
        loop {
            let rate = news.borrow_and_update().leak_bytes_per_second;
            if rate == 0 {
                taken = Vec::new();
                let _ = news.wait_for(|fault| fault.leak_bytes_per_second > 0).await;
            } else {
                // Written to, or the system would not give it.
                taken.push(vec![1; usize::try_from(rate / 10).unwrap_or(usize::MAX)]);
                tokio::time::sleep(LEAK).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_and_what_is_none_is_said() {
        let read = |text: &str| Fault::parse(text.as_bytes());
        assert_eq!(read(r#"{"slow-ms": 200}"#), Ok(Fault { slow_ms: 200, ..Fault::default() }));
        assert_eq!(read("{}"), Ok(Fault::default()));
        assert_eq!(read(r#"{"errors": 2}"#), Err("`errors` is a share from 0 to 1, not 2".to_owned()));
        assert!(read(r#"{"slow": 1}"#).is_err_and(|error| error.contains("unknown field `slow`")));
    }

    #[tokio::test]
    async fn what_hangs_goes_on_when_the_fault_is_over() {
        let faults = Faults::new(Fault { hang: true, ..Fault::default() });
        let mut held = std::pin::pin!(faults.hold());
        assert!(futures::poll!(&mut held).is_pending(), "it hangs");
        faults.set(Fault::default());
        held.await;
    }

    #[test]
    fn the_declared_share_fails() {
        let faults = Faults::new(Fault { errors: 0.25, ..Fault::default() });
        let failed = (0..4000).filter(|_| faults.strikes()).count();
        assert!((800..1200).contains(&failed), "{failed} of 4000");
    }
}
