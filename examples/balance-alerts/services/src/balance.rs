//! Balance: asks the bank for a balance, keeps it, and says that it has changed.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use example_kit::{Attempts, Database, Failure, Message, Peer, Platform, answer, serve, variable};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::event::BalanceChanged;
use crate::events::Events;
use crate::tables::TABLES;

const QUERY: &str = "balance query banking-api/accounts";
const PUBLISH: &str = "balance publish events/balance.changed";
const READ: &str = "balance read cache/eligibility";
const STORE: &str = "balance store balances/balances";

/// How long the bank may take each time, and how often it is asked again.
const BANK: Attempts = Attempts { timeout: Duration::from_secs(2), retries: 2 };

struct Balance {
    platform: Arc<Platform>,
    bank: Peer,
    events: Events,
    cache: Cache,
    database: Database,
}

/// What a client may say; without it the account of the message is meant.
#[derive(Default, Deserialize)]
struct Asked {
    account: Option<String>,
}

pub(crate) async fn run() -> Result<(), Failure> {
    let platform = Platform::new(&[QUERY, PUBLISH, READ, STORE])?;
    let balance = Arc::new(Balance {
        bank: Peer::new(&platform, "https://api.bank.example", Some(variable("BANKING_API_KEY")?))?,
        events: Events::new(&platform)?,
        cache: Cache::new(&platform)?,
        database: Database::open(&platform, TABLES).await?,
        platform: Arc::clone(&platform),
    });
    let work = Router::new().route("/balances", post(look)).with_state(balance);
    serve(platform, work, JoinSet::new(), CancellationToken::new(), || true).await
}

/// Looks what the balance of an account is now. Asked twice it says twice that the balance has changed, and who hears of it
/// knows that it is the same change.
async fn look(State(balance): State<Arc<Balance>>, headers: HeaderMap, body: Bytes) -> Response {
    let asked = if body.is_empty() { Ok(Asked::default()) } else { serde_json::from_slice(&body) };
    match (Message::of_request(&headers), asked) {
        (Ok(message), Ok(asked)) => answer(balance.look(message, asked).await),
        (Err(error), _) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        (_, Err(error)) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

impl Balance {
    async fn look(&self, message: Message, asked: Asked) -> Result<(), Failure> {
        let metrics = &self.platform.metrics;
        let account = asked.account.unwrap_or_else(|| message.account());
        let question = json!({ "account": account });
        let answer = metrics.edge(QUERY, self.bank.post("/accounts", &question, &message, BANK)).await?;
        // The bank of the example has no money.
        let cents = answer["cents"].as_i64().unwrap_or_else(|| i64::try_from(message.id % 100_000).unwrap_or_default());
        let key = format!("eligibility:{account}");
        let wanted = metrics.edge(READ, self.cache.get(&key)).await?.map(|wanted| wanted == "yes");
        let store = "insert into alerts.balances (account, cents, change) values ($1, $2, $3) \
                     on conflict (account) do update set cents = excluded.cents, change = excluded.change, at = now()";
        metrics.edge(STORE, self.database.query(store, &[&account, &cents, &message.key()])).await?;
        let event = BalanceChanged { message, account, cents, wanted };
        metrics.edge(PUBLISH, self.events.publish(&event)).await?;
        Ok(self.platform.ledger.tell(&event.message, None)?)
    }
}
