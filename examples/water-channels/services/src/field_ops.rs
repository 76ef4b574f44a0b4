//! Field operations: keeps every submission once, whichever channel it came by, and says that it was accepted.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use example_kit::{Database, Failure, Message, Platform, answer, serve};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::objects::Objects;
use crate::submission::{Event, Submission};
use crate::topics::Topics;

const WRITE: &str = "field-ops write postgresql/submissions";
const PUBLISH: &str = "field-ops publish kafka/submissions.accepted";
const ACCEPTED_TOPIC: &str = "submissions.accepted";
const STORE: &str = "field-ops store objects/images";

/// `state` is `kept` until everybody knows of it.
const TABLES: &str = "
begin;
select pg_advisory_xact_lock(4712);
create schema if not exists field_operations;
create table if not exists field_operations.submissions (
    id text primary key, channel text not null, scheme text not null, kind text not null, value double precision not null,
    state text not null, at timestamptz not null default now());
commit";

struct FieldOperations {
    platform: Arc<Platform>,
    database: Database,
    objects: Objects,
    topics: Topics,
}

pub(crate) async fn run() -> Result<(), Failure> {
    let platform = Platform::new(&[WRITE, PUBLISH, STORE])?;
    let field_operations = Arc::new(FieldOperations {
        database: Database::open(&platform, TABLES).await?,
        objects: Objects::new(&platform, "images")?,
        topics: Topics::new()?,
        platform: Arc::clone(&platform),
    });
    let (stop, mut works) = (CancellationToken::new(), JoinSet::new());
    works.spawn({
        let (own, stop) = (Arc::clone(&field_operations), stop.clone());
        async move { own.topics.prepare(ACCEPTED_TOPIC, &stop).await }
    });
    let work = Router::new()
        .route("/", post(take))
        .route("/submissions", post(take))
        .with_state(Arc::clone(&field_operations));
    serve(platform, work, works, stop, move || field_operations.topics.are_prepared()).await
}

async fn take(State(field_operations): State<Arc<FieldOperations>>, headers: HeaderMap, body: Bytes) -> Response {
    match Message::of_request(&headers) {
        Ok(message) => match Submission::of_request(&body, &message) {
            Some(submission) => answer(field_operations.keep(message, submission).await),
            // Somebody asks whether anybody is there.
            None => StatusCode::OK.into_response(),
        },
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

impl FieldOperations {
    /// Keeps a submission and says so. Whoever sends it again after a failure has it kept once; what was not done the last
    /// time is done now.
    async fn keep(&self, message: Message, submission: Submission) -> Result<(), Failure> {
        let metrics = &self.platform.metrics;
        // Those of one journey are told apart by the way they came: their senders make up ids anew when they try again.
        let id = match message.flow {
            Some(_) => format!("{}-{}", message.key(), message.hop),
            None => submission.id.clone(),
        };
        let keep = "insert into field_operations.submissions (id, channel, scheme, kind, value, state) \
                    values ($1, $2, $3, $4, $5, 'kept') on conflict (id) do update set at = now() returning state";
        let Submission { channel, scheme, kind, value, .. } = &submission;
        let rows = metrics.edge(WRITE, self.database.query(keep, &[&id, channel, scheme, kind, value])).await?;
        if rows.first().is_some_and(|row| row.get::<_, &str>(0) == "accepted") {
            return Ok(());
        }
        // In the place of the picture of a meter, which nobody has taken here.
        let picture = serde_json::to_vec(&submission)?;
        metrics.edge(STORE, self.objects.put(&format!("{id}.json"), &picture)).await?;
        let event = Event { message, submission, text: None };
        metrics.edge(PUBLISH, self.topics.publish(ACCEPTED_TOPIC, &event)).await?;
        // Told before it is marked: a crash between the two counts a message twice, and never loses one.
        self.platform.ledger.tell(&event.message, None)?;
        let accept = "update field_operations.submissions set state = 'accepted' where id = $1";
        metrics.edge(WRITE, self.database.query(accept, &[&id])).await.map(drop)
    }
}
