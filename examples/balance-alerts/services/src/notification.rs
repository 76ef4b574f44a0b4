//! Notification: sends the SMS, once.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use example_kit::{Attempts, Database, Failure, Message, Peer, Platform, answer, serve, variable};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::event::BalanceChanged;
use crate::events::{Consumer, Events};
use crate::tables::TABLES;

const CONSUME: &str = "notification consume events/balance.changed";
const READ: &str = "notification read balances/customers";
const SEND: &str = "notification send sms-provider/messages";
const CACHE: &str = "notification cache cache/sent";

/// How long it is known which SMS was sent.
const KNOWN: Duration = Duration::from_hours(24);

/// How long the provider may take each time, and how often it is asked again.
const PROVIDER: Attempts = Attempts { timeout: Duration::from_secs(3), retries: 2 };

struct Notification {
    platform: Arc<Platform>,
    events: Events,
    cache: Cache,
    database: Database,
    provider: Peer,
}

pub(crate) async fn run() -> Result<(), Failure> {
    let platform = Platform::new(&[CONSUME, READ, SEND, CACHE])?;
    let notification = Arc::new(Notification {
        events: Events::new(&platform)?,
        cache: Cache::new(&platform)?,
        database: Database::open(&platform, TABLES).await?,
        provider: Peer::new(&platform, "https://api.sms.example", Some(variable("SMS_PROVIDER_KEY")?))?,
        platform: Arc::clone(&platform),
    });
    let (stop, mut works) = (CancellationToken::new(), JoinSet::new());
    works.spawn({
        let (own, stop) = (Arc::clone(&notification), stop.clone());
        async move {
            let consumer = Consumer { queue: "balance.changed.notification", edge: CONSUME, at_once: 32 };
            own.events.consume(&own.platform, consumer, &stop, |event| own.hear(event)).await;
        }
    });
    let work = Router::new().route("/notifications", post(again)).with_state(Arc::clone(&notification));
    serve(platform, work, works, stop, move || notification.events.is_attached()).await
}

/// A customer wants the last SMS again.
async fn again(State(notification): State<Arc<Notification>>, headers: HeaderMap) -> Response {
    match Message::of_request(&headers) {
        Ok(message) => answer(notification.again(&message).await),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

impl Notification {
    async fn hear(&self, event: BalanceChanged) -> Result<(), Failure> {
        let metrics = &self.platform.metrics;
        let message = &event.message;
        if metrics.edge(CACHE, self.cache.knows("sent", message)).await? {
            return Ok(());
        }
        let text = format!("Your balance is {}.{:02}", event.cents / 100, (event.cents % 100).abs());
        self.send(&event.account, &text, message).await?;
        // Told before it is remembered: a crash between the two sends with the same key again, which the provider knows.
        self.platform.ledger.tell(message, Some(CONSUME))?;
        metrics.edge(CACHE, self.cache.remember("sent", message, KNOWN)).await
    }

    async fn again(&self, message: &Message) -> Result<(), Failure> {
        self.send(&message.account(), "You asked for it: nothing has changed", message).await?;
        Ok(self.platform.ledger.tell(message, None)?)
    }

    async fn send(&self, account: &str, text: &str, message: &Message) -> Result<(), Failure> {
        let metrics = &self.platform.metrics;
        let customer = "select phone, wants from alerts.customers where account = $1";
        let rows = metrics.edge(READ, self.database.query(customer, &[&account])).await?;
        // A customer of whom nothing is known has the number of the account, and hears of everything.
        let (phone, wants) = match rows.first() {
            Some(row) => (row.get::<_, String>(0), row.get(1)),
            None => (account.to_owned(), true),
        };
        if !wants {
            return Ok(());
        }
        let sms = json!({ "to": phone, "text": text });
        metrics.edge(SEND, self.provider.post("/messages", &sms, message, PROVIDER)).await?;
        metrics.happened("alerts_sent");
        Ok(())
    }
}
