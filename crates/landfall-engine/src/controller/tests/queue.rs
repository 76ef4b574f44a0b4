//! The loop that all controllers share, with a reconciler that only counts.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::{Action, ReconcileError, Reconciler, Triggers, run};

/// Counts its reconciles; fails the first few.
struct Counter {
    asked: usize,
    failures: u32,
    began: Mutex<Vec<Instant>>,
    running: AtomicU32,
    then: Action,
    done: Notify,
}

impl Counter {
    fn new(asked: usize, failures: u32, then: Action) -> Arc<Self> {
        let began = Mutex::default();
        Arc::new(Self { asked, failures, began, running: AtomicU32::new(0), then, done: Notify::new() })
    }

    fn began(&self) -> Vec<Instant> {
        self.began.lock().expect("no test panics with the lock").clone()
    }
}

impl Reconciler for Counter {
    type Key = &'static str;
    const NAME: &'static str = "counter";

    fn watch(&self, triggers: &mut Triggers<&'static str>) {
        // Equal keys at once: they must fall together.
        for _ in 0..self.asked {
            triggers.queue.send("key").expect("the queue is open");
        }
    }

    async fn reconcile(&self, _: &&'static str) -> Result<Action, ReconcileError> {
        assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "two reconciles of one key at a time");
        let count = {
            let mut began = self.began.lock().expect("no test panics with the lock");
            began.push(Instant::now());
            u32::try_from(began.len()).expect("few")
        };
        // Paused time goes on only when nobody has anything to do: all that was asked for is then in the queue.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.done.notify_one();
        if count <= self.failures { Err(ReconcileError::Behind) } else { Ok(self.then) }
    }
}

/// Runs until there were as many reconciles, and then for a while in which there must be no more.
async fn reconciles(counter: &Arc<Counter>, count: usize, quiet: Duration) -> Vec<Duration> {
    let cancel = CancellationToken::new();
    let controller = run(Arc::clone(counter), cancel.clone());
    let watch = async {
        while counter.began().len() < count {
            counter.done.notified().await;
        }
        let more = async {
            while counter.began().len() == count {
                counter.done.notified().await;
            }
        };
        let more = tokio::time::timeout(quiet, more).await;
        assert!(more.is_err(), "there was one reconcile more");
        cancel.cancel();
    };
    futures::future::join(controller, watch).await;
    let began = counter.began();
    began.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_asked_for_while_it_is_reconciled_is_reconciled_once_more() {
    let counter = Counter::new(5, 0, Action::AwaitChange);
    assert_eq!(reconciles(&counter, 2, Duration::from_hours(1)).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_reconcile_is_tried_again_after_ever_longer_waits() {
    let counter = Counter::new(1, 4, Action::AwaitChange);
    let waits = reconciles(&counter, 5, Duration::from_hours(1)).await;
    let expected = [5, 10, 20, 40].map(Duration::from_millis);
    let close = waits.iter().zip(expected).all(|(wait, expected)| *wait >= expected && *wait < expected * 2);
    assert!(close && waits.len() == 4, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_comes_back_when_it_asked_to() {
    let counter = Counter::new(1, 0, Action::RequeueAfter(Duration::from_secs(10)));
    let waits = reconciles(&counter, 3, Duration::from_secs(9)).await;
    let close = waits.iter().all(|wait| wait.as_secs() == 10);
    assert!(close && waits.len() == 2, "{waits:?}");
}
