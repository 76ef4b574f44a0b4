//! Reporting: shows the bank how many were told, and how soon.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use example_kit::{Database, Failure, Message, Platform, answer, serve};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::event::BalanceChanged;
use crate::events::{Consumer, Events};
use crate::tables::TABLES;

const CONSUME: &str = "reporting consume events/balance.changed";
const READ: &str = "reporting read balances/deliveries";
const CACHE: &str = "reporting cache cache/reports";

/// How long a report is shown.
const SHOWN: Duration = Duration::from_mins(5);

struct Reporting {
    platform: Arc<Platform>,
    events: Events,
    cache: Cache,
    replicas: Database,
}

pub(crate) async fn run() -> Result<(), Failure> {
    let platform = Platform::new(&[CONSUME, READ, CACHE])?;
    // The tables are made at the primary, and come to the replicas from there.
    drop(Database::open(&platform, TABLES).await?);
    let reporting = Arc::new(Reporting {
        events: Events::new(&platform)?,
        cache: Cache::new(&platform)?,
        replicas: Database::replicas(&platform)?,
        platform: Arc::clone(&platform),
    });
    let (stop, mut works) = (CancellationToken::new(), JoinSet::new());
    works.spawn({
        let (own, stop) = (Arc::clone(&reporting), stop.clone());
        async move {
            let consumer = Consumer { queue: "balance.changed.reporting", edge: CONSUME, at_once: 32 };
            own.events.consume(&own.platform, consumer, &stop, |event| own.hear(event)).await;
        }
    });
    let work = Router::new().route("/reports", post(look)).with_state(Arc::clone(&reporting));
    serve(platform, work, works, stop, move || reporting.events.is_attached()).await
}

/// The bank looks at a report.
async fn look(State(reporting): State<Arc<Reporting>>, headers: HeaderMap) -> Response {
    match Message::of_request(&headers) {
        Ok(message) => answer(reporting.look(&message).await),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

impl Reporting {
    async fn hear(&self, event: BalanceChanged) -> Result<(), Failure> {
        let (metrics, message) = (&self.platform.metrics, &event.message);
        if metrics.edge(CACHE, self.cache.knows("reported", message)).await? {
            return Ok(());
        }
        self.report().await?;
        // Told before it is remembered: a crash between the two counts a message twice, and never loses one.
        self.platform.ledger.tell(message, Some(CONSUME))?;
        metrics.edge(CACHE, self.cache.remember("reported", message, SHOWN)).await
    }

    async fn look(&self, message: &Message) -> Result<(), Failure> {
        self.report().await?;
        Ok(self.platform.ledger.tell(message, None)?)
    }

    /// Counts the deliveries of the last minute, and keeps that as the report.
    async fn report(&self) -> Result<(), Failure> {
        let metrics = &self.platform.metrics;
        let count = "select count(*), count(*) filter (where state = 'arrived') \
                     from alerts.deliveries where at > now() - interval '1 minute'";
        let rows = metrics.edge(READ, self.replicas.query(count, &[])).await?;
        let (sent, arrived) = rows.first().map_or((0, 0), |row| (row.get::<_, i64>(0), row.get::<_, i64>(1)));
        let report = json!({ "sent": sent, "arrived": arrived }).to_string();
        metrics.edge(CACHE, self.cache.set("reports:latest", &report, SHOWN)).await
    }
}
