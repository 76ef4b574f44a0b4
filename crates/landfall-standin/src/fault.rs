//! What a stand-in is told to get wrong, or to have to do, while it runs: releases, drills and autoscalers are seen to take it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
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
    /// How much of a processor it is busy with, in thousandths, as if it had that much to do.
    pub busy_millicores: u32,
    /// How much more memory it needs, in bytes; given back when it is over.
    pub hold_bytes: u64,
    /// Figures that it tells at `/metrics`, by their names.
    pub gauges: BTreeMap<String, f64>,
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

/// How long a thread that is busy works and rests in turn.
const TURN: Duration = Duration::from_millis(50);

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

    /// Keeps processors busy while it is told to; never returns.
    pub(crate) async fn be_busy(&self) {
        let mut news = self.0.subscribe();
        loop {
            let millicores = news.borrow_and_update().busy_millicores;
            if millicores == 0 {
                let _ = news.wait_for(|fault| fault.busy_millicores > 0).await;
                continue;
            }
            // One thread for each processor, each for its share of a turn.
            let threads = millicores.div_ceil(1000);
            let work = TURN * millicores / (1000 * threads);
            let busy = (0..threads).map(|_| tokio::task::spawn_blocking(move || work_for(work)));
            let _ended = tokio::join!(futures::future::join_all(busy), tokio::time::sleep(TURN));
        }
    }

    /// Holds as much memory as it is told to; never returns.
    pub(crate) async fn hold_memory(&self) {
        let mut news = self.0.subscribe();
        let mut held = None;
        loop {
            let wanted = news.borrow_and_update().hold_bytes;
            if held.as_ref().map_or(0, |held: &MmapMut| held.len() as u64) != wanted {
                drop(held.take());
                held = take(wanted);
            }
            let _ = news.changed().await;
        }
    }

    /// Takes memory while the fault asks for it; never returns.
    pub(crate) async fn leak(&self) {
        let mut news = self.0.subscribe();
        let mut taken: Vec<MmapMut> = Vec::new();
        loop {
            let rate = news.borrow_and_update().leak_bytes_per_second;
            if rate == 0 {
                taken = Vec::new();
                let _ = news.wait_for(|fault| fault.leak_bytes_per_second > 0).await;
            } else {
                taken.extend(take(rate / 10));
                tokio::time::sleep(LEAK).await;
            }
        }
    }
}

/// Takes so much memory of the system, which gets it back when it is dropped; none when there is not as much.
fn take(bytes: u64) -> Option<MmapMut> {
    let length = usize::try_from(bytes).ok().filter(|length| *length > 0)?;
    let mut taken = MmapMut::map_anon(length).ok()?;
    // Written to, or the system would not give it.
    taken.fill(1);
    Some(taken)
}

/// Computes for so long.
fn work_for(time: Duration) {
    let begin = Instant::now();
    let mut number = 1_u64;
    while begin.elapsed() < time {
        for _ in 0..1000 {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
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
