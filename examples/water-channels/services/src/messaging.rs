//! Messaging: orchestrates what people write and what is answered. A reading goes to field operations; when it was accepted,
//! whoever sent it by `WhatsApp` is thanked. An administrator may have somebody reminded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use example_kit::{Attempts, Database, Failure, Message, Peer, Platform, answer, serve, variable};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::submission::{BY_WHATSAPP, Event, Submission};
use crate::topics::{Subscription, Topics};

const WRITE: &str = "messaging write postgresql/conversations";
const CALL: &str = "messaging call field-ops";
const PUBLISH: &str = "messaging publish kafka/messages.outbound";
const OUTBOUND: &str = "messaging consume kafka/messages.outbound";
const ACCEPTED: &str = "messaging consume kafka/submissions.accepted";
const OUTBOUND_TOPIC: &str = "messages.outbound";
const SEND: &str = "messaging send glific/messages";

/// How long each may take, and how often it is asked again.
const FIELD_OPERATIONS: Attempts = Attempts { timeout: Duration::from_secs(5), retries: 2 };
const GLIFIC: Attempts = Attempts { timeout: Duration::from_secs(5), retries: 3 };

const TABLES: &str = "
begin;
select pg_advisory_xact_lock(4713);
create schema if not exists messaging;
create table if not exists messaging.conversations (
    id text primary key, channel text not null, state text not null, at timestamptz not null default now());
commit";

struct Messaging {
    platform: Arc<Platform>,
    database: Database,
    topics: Topics,
    field_operations: Peer,
    glific: Peer,
    accepted: Subscription,
    outbound: Subscription,
}

pub(crate) async fn run(field_operations: &str) -> Result<(), Failure> {
    let platform = Platform::new(&[WRITE, CALL, PUBLISH, OUTBOUND, ACCEPTED, SEND])?;
    let messaging = Arc::new(Messaging {
        database: Database::open(&platform, TABLES).await?,
        topics: Topics::new()?,
        field_operations: Peer::new(&platform, field_operations, None)?,
        glific: Peer::new(&platform, "https://api.glific.example", Some(variable("GLIFIC_KEY")?))?,
        accepted: Subscription::new("submissions.accepted", "messaging.submissions.accepted", ACCEPTED),
        outbound: Subscription::new(OUTBOUND_TOPIC, "messaging.messages.outbound", OUTBOUND),
        platform: Arc::clone(&platform),
    });
    let (stop, mut works) = (CancellationToken::new(), JoinSet::new());
    works.spawn({
        let (own, stop) = (Arc::clone(&messaging), stop.clone());
        async move { own.topics.prepare(OUTBOUND_TOPIC, &stop).await }
    });
    works.spawn({
        let (own, stop) = (Arc::clone(&messaging), stop.clone());
        async move {
            own.topics.consume(&own.platform, &own.accepted, &stop, |event| own.hear_of(event)).await;
        }
    });
    works.spawn({
        let (own, stop) = (Arc::clone(&messaging), stop.clone());
        async move { own.topics.consume(&own.platform, &own.outbound, &stop, |event| own.say(event)).await }
    });
    let work =
        Router::new().route("/", post(take)).route("/submissions", post(take)).with_state(Arc::clone(&messaging));
    let is_ready = move || {
        let attached = |subscription: &Subscription| subscription.attached.load(Ordering::Relaxed);
        messaging.topics.are_prepared() && attached(&messaging.accepted) && attached(&messaging.outbound)
    };
    serve(platform, work, works, stop, is_ready).await
}

async fn take(State(messaging): State<Arc<Messaging>>, headers: HeaderMap, body: Bytes) -> Response {
    match Message::of_request(&headers) {
        Ok(message) => match Submission::read(&body) {
            Some(submission) => answer(messaging.take(&message, &submission).await),
            None if message.flow.is_some() => answer(messaging.remind(message).await),
            // Somebody asks whether anybody is there.
            None => StatusCode::OK.into_response(),
        },
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

impl Messaging {
    /// Hands a submission to field operations.
    async fn take(&self, message: &Message, submission: &Submission) -> Result<(), Failure> {
        self.remember(&message.key(), &submission.channel, "received").await?;
        let submission = serde_json::to_value(submission)?;
        let called = self.field_operations.post("/submissions", &submission, message, FIELD_OPERATIONS);
        self.platform.metrics.edge(CALL, called).await?;
        Ok(self.platform.ledger.tell(message, None)?)
    }

    /// An administrator wants a village to be reminded.
    async fn remind(&self, message: Message) -> Result<(), Failure> {
        let text = Some("Your reading is missing".to_owned());
        let event = Event { text, message, submission: Submission::default() };
        self.platform.metrics.edge(PUBLISH, self.topics.publish(OUTBOUND_TOPIC, &event)).await?;
        Ok(self.platform.ledger.tell(&event.message, None)?)
    }

    /// A submission was accepted: whoever has sent it is to be thanked.
    async fn hear_of(&self, accepted: Event) -> Result<(), Failure> {
        if accepted.submission.channel != BY_WHATSAPP {
            return Ok(());
        }
        let event = Event { text: Some("Thank you for the reading".to_owned()), ..accepted };
        self.platform.metrics.edge(PUBLISH, self.topics.publish(OUTBOUND_TOPIC, &event)).await
    }

    /// Says something to somebody, once.
    async fn say(&self, event: Event) -> Result<(), Failure> {
        let (message, metrics) = (&event.message, &self.platform.metrics);
        let (id, channel) = (format!("{}-said", message.key()), event.submission.channel.as_str());
        if self.remember(&id, channel, "due").await? == "sent" {
            return Ok(());
        }
        let said = json!({ "to": event.submission.reporter, "text": event.text });
        metrics.edge(SEND, self.glific.post("/messages", &said, message, GLIFIC)).await?;
        // What began with an accepted submission ends here, too. Told before it is marked: a crash between the two counts a
        // message twice, and never loses one.
        let began = if channel == BY_WHATSAPP { ACCEPTED } else { OUTBOUND };
        self.platform.ledger.tell(message, Some(began))?;
        let sent = "update messaging.conversations set state = 'sent', at = now() where id = $1";
        metrics.edge(WRITE, self.database.query(sent, &[&id])).await.map(drop)
    }

    /// Remembers that something is to be done, and says how far it came before.
    async fn remember(&self, id: &str, channel: &str, state: &str) -> Result<String, Failure> {
        let remember = "insert into messaging.conversations (id, channel, state) values ($1, $2, $3) \
                        on conflict (id) do update set at = now() returning state";
        let metrics = &self.platform.metrics;
        let rows = metrics.edge(WRITE, self.database.query(remember, &[&id, &channel, &state])).await?;
        Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
    }
}
