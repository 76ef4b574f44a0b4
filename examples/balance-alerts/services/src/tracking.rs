//! Tracking: asks what became of each SMS, and keeps it. The provider is asked for all that wait at once, as often as
//! declared.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use example_kit::{Attempts, Database, Failure, Message, Peer, Platform, answer, now_us, serve, variable};
use serde_json::json;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::event::BalanceChanged;
use crate::events::{Consumer, Events};
use crate::tables::TABLES;

const CONSUME: &str = "tracking consume events/balance.changed";
const POLL: &str = "tracking poll sms-provider/receipts";
const WRITE: &str = "tracking write balances/deliveries";

/// How often the provider is asked.
const EVERY: Duration = Duration::from_secs(15);

/// How long the provider may take each time, and how often it is asked again.
const PROVIDER: Attempts = Attempts { timeout: Duration::from_secs(3), retries: 1 };

/// How many SMS may wait for their receipts here: what comes in within two intervals at the declared rates.
const WAITING: u16 = 2000;

/// The most SMS for which the provider is asked in one request.
const MOST: usize = 500;

struct Tracking {
    platform: Arc<Platform>,
    events: Events,
    database: Database,
    provider: Peer,
    /// By the keys of their messages: who waits to hear that an SMS has arrived.
    waiting: Mutex<Vec<(String, oneshot::Sender<()>)>>,
}

pub(crate) async fn run() -> Result<(), Failure> {
    let platform = Platform::new(&[CONSUME, POLL, WRITE])?;
    let tracking = Arc::new(Tracking {
        events: Events::new(&platform)?,
        database: Database::open(&platform, TABLES).await?,
        provider: Peer::new(&platform, "https://api.sms.example", Some(variable("SMS_PROVIDER_KEY")?))?,
        waiting: Mutex::default(),
        platform: Arc::clone(&platform),
    });
    let (stop, mut works) = (CancellationToken::new(), JoinSet::new());
    works.spawn({
        let (own, stop) = (Arc::clone(&tracking), stop.clone());
        async move {
            let consumer = Consumer { queue: "balance.changed.tracking", edge: CONSUME, at_once: WAITING };
            own.events.consume(&own.platform, consumer, &stop, |event| own.hear(event)).await;
        }
    });
    works.spawn({
        let (own, stop) = (Arc::clone(&tracking), stop.clone());
        async move { own.poll(&stop).await }
    });
    let work = Router::new().route("/tracking", post(acknowledge)).with_state(Arc::clone(&tracking));
    serve(platform, work, works, stop, move || tracking.events.is_attached()).await
}

/// A customer has read an SMS.
async fn acknowledge(State(tracking): State<Arc<Tracking>>, headers: HeaderMap) -> Response {
    match Message::of_request(&headers) {
        Ok(message) => answer(tracking.acknowledge(&message).await),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

impl Tracking {
    /// Keeps that an SMS is on its way, waits for its receipt, and keeps that it has arrived. Until then the event is not
    /// acknowledged: whoever gets it after a crash waits on.
    async fn hear(&self, event: BalanceChanged) -> Result<(), Failure> {
        let (metrics, key) = (&self.platform.metrics, event.message.key());
        let keep = "insert into alerts.deliveries (id, account, state) values ($1, $2, 'sent') \
                    on conflict (id) do update set account = excluded.account returning state";
        let rows = metrics.edge(WRITE, self.database.query(keep, &[&key, &event.account])).await?;
        if rows.first().is_some_and(|row| row.get::<_, &str>(0) == "arrived") {
            return Ok(());
        }
        let (tell, told) = oneshot::channel();
        self.waiting.lock().await.push((key.clone(), tell));
        let arrived = told.await;
        metrics.share("alerts_delivered", arrived.is_ok());
        arrived.map_err(|_| "nobody asks for receipts any more")?;
        // Told before it is kept: a crash between the two counts a message twice, and never loses one.
        self.platform.ledger.tell(&event.message, Some(CONSUME))?;
        let arrived = "update alerts.deliveries set state = 'arrived', at = now() where id = $1";
        metrics.edge(WRITE, self.database.query(arrived, &[&key])).await.map(drop)
    }

    async fn acknowledge(&self, message: &Message) -> Result<(), Failure> {
        let keep = "insert into alerts.acknowledgements (id, account) values ($1, $2) on conflict (id) do nothing";
        let metrics = &self.platform.metrics;
        metrics.edge(WRITE, self.database.query(keep, &[&message.key(), &message.account()])).await.map(drop)?;
        Ok(self.platform.ledger.tell(message, None)?)
    }

    /// Asks for receipts until it is told to stop; who waits then is let go, so that the events go to another copy.
    async fn poll(&self, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
            }
            let waiting = std::mem::take(&mut *self.waiting.lock().await);
            let mut waiting = waiting.into_iter().peekable();
            loop {
                let some: Vec<_> = waiting.by_ref().take(MOST).collect();
                self.ask(some).await;
                if waiting.peek().is_none() {
                    break;
                }
            }
        }
        self.waiting.lock().await.clear();
    }

    /// Asks what became of these, and tells who waits. Those that have not arrived wait on.
    async fn ask(&self, waiting: Vec<(String, oneshot::Sender<()>)>) {
        let keys: Vec<&String> = waiting.iter().map(|(key, _)| key).collect();
        let question = json!({ "messages": keys });
        // For all of them together, so it belongs to no journey.
        let message = Message { id: now_us(), sent_us: now_us(), ..Message::default() };
        let asked = self.provider.post("/receipts", &question, &message, PROVIDER);
        match self.platform.metrics.edge(POLL, asked).await {
            Ok(answer) => {
                let pending = answer["pending"].as_array().cloned().unwrap_or_default();
                for (key, tell) in waiting {
                    if pending.iter().any(|other| other.as_str() == Some(&key)) {
                        self.waiting.lock().await.push((key, tell));
                    } else {
                        // Who has stopped waiting needs no answer.
                        let _ = tell.send(());
                    }
                }
            }
            Err(error) => {
                warn!(%error, "no receipts this time");
                self.waiting.lock().await.extend(waiting);
            }
        }
    }
}
