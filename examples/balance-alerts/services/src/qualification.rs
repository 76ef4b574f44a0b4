//! Qualification: decides which changes a customer wants to hear of.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use example_kit::{Database, Failure, Message, Platform, answer, serve};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::event::BalanceChanged;
use crate::events::{Consumer, Events};
use crate::tables::TABLES;

const CONSUME: &str = "qualification consume events/balance.changed";
const READ: &str = "qualification read balances/balances";
const CACHE: &str = "qualification cache cache/eligibility";

/// How long a decision holds.
const HOLDS: Duration = Duration::from_mins(10);

/// Below this balance, in hundredths, a customer wants to hear of every change.
const LOW: i64 = 50_000;

struct Qualification {
    platform: Arc<Platform>,
    events: Events,
    cache: Cache,
    database: Database,
}

pub(crate) async fn run() -> Result<(), Failure> {
    let platform = Platform::new(&[CONSUME, READ, CACHE])?;
    let qualification = Arc::new(Qualification {
        events: Events::new(&platform)?,
        cache: Cache::new(&platform)?,
        database: Database::open(&platform, TABLES).await?,
        platform: Arc::clone(&platform),
    });
    let (stop, mut works) = (CancellationToken::new(), JoinSet::new());
    works.spawn({
        let (own, stop) = (Arc::clone(&qualification), stop.clone());
        async move {
            let consumer = Consumer { queue: "balance.changed.qualification", edge: CONSUME, at_once: 32 };
            own.events.consume(&own.platform, consumer, &stop, |event| own.hear(event)).await;
        }
    });
    let work = Router::new().route("/eligibility", post(ask)).with_state(Arc::clone(&qualification));
    serve(platform, work, works, stop, move || qualification.events.is_attached()).await
}

/// A customer asks what they will hear of.
async fn ask(State(qualification): State<Arc<Qualification>>, headers: HeaderMap) -> Response {
    match Message::of_request(&headers) {
        Ok(message) => answer(qualification.answer(&message).await),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

impl Qualification {
    async fn hear(&self, event: BalanceChanged) -> Result<(), Failure> {
        let message = &event.message;
        let known = self.cache.knows("qualified", message);
        if self.platform.metrics.edge(CACHE, known).await? {
            return Ok(());
        }
        self.decide(&event.account).await?;
        // Told before it is remembered: a crash between the two counts a message twice, and never loses one.
        self.platform.ledger.tell(message, Some(CONSUME))?;
        self.platform.metrics.edge(CACHE, self.cache.remember("qualified", message, HOLDS)).await
    }

    async fn answer(&self, message: &Message) -> Result<(), Failure> {
        self.decide(&message.account()).await?;
        Ok(self.platform.ledger.tell(message, None)?)
    }

    async fn decide(&self, account: &str) -> Result<(), Failure> {
        let metrics = &self.platform.metrics;
        let balance = "select cents from alerts.balances where account = $1";
        let rows = metrics.edge(READ, self.database.query(balance, &[&account])).await?;
        let low = rows.first().is_some_and(|row| row.get::<_, i64>(0) < LOW);
        let (key, wanted) = (format!("eligibility:{account}"), if low { "yes" } else { "no" });
        metrics.edge(CACHE, self.cache.set(&key, wanted, HOLDS)).await
    }
}
