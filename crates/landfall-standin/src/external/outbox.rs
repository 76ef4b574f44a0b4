//! What an external sends. It stands outside of the cluster and comes in through the gateway, where its stand-in, a pod,
//! does not reach; so whoever is outside asks for what is to be sent, and says what became of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::{Notify, oneshot};

use super::External;
use crate::Failure;
use crate::behaviour::{Callback, Load, Message, Outcome, Parcel};

/// How long a question for parcels stays open; then the answer is that there are none.
const OPEN: Duration = Duration::from_secs(5);

/// How long a parcel waits for somebody who carries it, beside the time that the call itself may take.
const WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    filled: Notify,
}

#[derive(Default)]
struct Inner {
    last: u64,
    parcels: VecDeque<Parcel>,
    waiting: HashMap<u64, oneshot::Sender<Option<String>>>,
}

impl Outbox {
    /// Has the call made, and waits for what becomes of it.
    pub(super) async fn send(&self, callback: &Callback, message: &Message, load: Load) -> Result<(), Failure> {
        let (sender, outcome) = oneshot::channel();
        let number = {
            let mut inner = self.lock();
            inner.last += 1;
            let number = inner.last;
            inner.waiting.insert(number, sender);
            inner.parcels.push_back(Parcel { number, callback: callback.clone(), message: message.clone(), load });
            number
        };
        self.filled.notify_one();
        let patience = WAIT + Duration::from_millis(callback.timeout_ms);
        match tokio::time::timeout(patience, outcome).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(error))) => Err(error.into()),
            Ok(Err(_)) | Err(_) => {
                let mut inner = self.lock();
                inner.waiting.remove(&number);
                inner.parcels.retain(|parcel| parcel.number != number);
                Err(format!("{}: nobody outside has carried the call within {patience:?}", callback.host).into())
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics with the outbox")
    }

    fn take(&self) -> Vec<Parcel> {
        self.lock().parcels.drain(..).collect()
    }
}

/// All parcels, as soon as there is one.
pub(super) async fn hand_out(State(external): State<Arc<External>>) -> Json<Vec<Parcel>> {
    let outbox = &external.outbox;
    let parcels = outbox.take();
    if !parcels.is_empty() {
        return Json(parcels);
    }
    // A notice that nobody waited for is kept, so that none is missed between the two.
    let _ = tokio::time::timeout(OPEN, outbox.filled.notified()).await;
    Json(outbox.take())
}

/// What became of a parcel.
pub(super) async fn take_back(State(external): State<Arc<External>>, Json(outcome): Json<Outcome>) -> StatusCode {
    let waiting = external.outbox.lock().waiting.remove(&outcome.number);
    match waiting.map(|waiting| waiting.send(outcome.error)) {
        Some(Ok(())) => StatusCode::NO_CONTENT,
        // The caller has given up meanwhile.
        _ => StatusCode::GONE,
    }
}
