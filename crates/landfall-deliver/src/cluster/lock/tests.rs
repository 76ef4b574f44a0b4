//! Two who want one lock, in a time of their own, over a cluster that keeps one lease and may give no answer.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// The one lease of a cluster.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Option<Value>>>);

/// Whether somebody gets no answers.
#[derive(Clone, Default)]
struct Away(Arc<AtomicBool>);

impl Away {
    fn set(&self, away: bool) {
        self.0.store(away, Ordering::Relaxed);
    }
}

impl Cluster {
    /// With a lease that somebody took, and whose clock is an hour ahead or behind.
    fn held_by(holder: &str, clock: jiff::SignedDuration) -> Self {
        let cluster = Self::default();
        let at = MicroTime(Timestamp::now() + clock);
        *cluster.0.lock().expect("nobody panics") = Some(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "landfall-shop", "namespace": "shop", "resourceVersion": "1" },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": at, "acquireTime": at },
        }));
        cluster
    }

    /// Somebody who asks, and gets answers unless they are away.
    fn client(&self, away: &Away) -> Client {
        let (cluster, away) = (self.clone(), away.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (cluster, away) = (cluster.clone(), away.clone());
            async move {
                if away.0.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(cluster.answer(request).await)
            }
        });
        Client::new(service, "shop")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let method = request.method().clone();
        let sent = request.into_body().collect_bytes().await.expect("it is in memory");
        let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
        let mut kept = self.0.lock().expect("nobody panics");
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        let (status, body) = match (method, &mut *kept) {
            (Method::GET, Some(lease)) => (StatusCode::OK, lease.clone()),
            (Method::GET | Method::PUT, None) => refusal(StatusCode::NOT_FOUND, "NotFound"),
            (Method::PUT, Some(lease)) if version(lease) != version(&sent) => refusal(StatusCode::CONFLICT, "Conflict"),
            (Method::POST, Some(_)) => refusal(StatusCode::CONFLICT, "AlreadyExists"),
            (_, kept) => {
                let next = kept.as_ref().map_or(0, |lease| version(lease).parse::<u64>().expect("a number")) + 1;
                let mut lease = sent;
                lease["metadata"]["resourceVersion"] = json!(next.to_string());
                *kept = Some(lease.clone());
                (StatusCode::OK, lease)
            }
        };
        let body = Body::from(body.to_string().into_bytes());
        Response::builder().status(status).body(body).expect("it is an answer")
    }
}

fn refusal(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let (code, kind) = (status.as_u16(), "Status");
    (
        status,
        json!({ "apiVersion": "v1", "kind": kind, "status": "Failure", "reason": reason, "message": reason, "code": code }),
    )
}

async fn take(client: &Client, holder: &str) -> Result<Lock, LockError> {
    Lock::take(client, "shop", "shop", holder).await
}

/// Who has it instead.
fn holder(taken: Result<Lock, LockError>) -> String {
    match taken {
        Err(LockError::Held { holder }) => holder,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_the_dead_is_waited_for_as_long_as_it_holds_whatever_their_clock_says() {
    for hours in [-1, 0, 1] {
        let cluster = Cluster::held_by("somebody who is dead", jiff::SignedDuration::from_hours(hours));
        let began = Instant::now();
        let lock = take(&cluster.client(&Away::default()), "ada").await.expect("nobody renews it");
        let waited = began.elapsed().as_secs();
        assert!((15..17).contains(&waited), "{waited} s, by a clock that is {hours} h ahead");
        lock.check().expect("it is hers");
    }
}

#[tokio::test(start_paused = true)]
async fn who_works_is_seen_to_work_and_keeps_the_lock() {
    let cluster = Cluster::default();
    let client = cluster.client(&Away::default());
    let ada = take(&client, "ada").await.expect("nobody has it");
    // As long as a canary may take to go, and longer.
    sleep(Duration::from_mins(2)).await;
    ada.check().expect("it is renewed while she does something else");
    let began = Instant::now();
    assert!(holder(take(&client, "bob").await).starts_with("ada, "));
    assert!(began.elapsed() <= RENEW + LOOK, "{:?}", began.elapsed());
    ada.check().expect("it is still hers");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_given_back_is_taken_at_once() {
    let cluster = Cluster::default();
    let client = cluster.client(&Away::default());
    take(&client, "ada").await.expect("nobody has it").release().await;
    let began = Instant::now();
    let bob = take(&client, "bob").await.expect("it was given back");
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(bob.holder(), "bob");
}

#[tokio::test(start_paused = true)]
async fn two_of_one_name_are_two() {
    let cluster = Cluster::default();
    let client = cluster.client(&Away::default());
    let _first = take(&client, "landfall on web, process 1").await.expect("nobody has it");
    assert!(holder(take(&client, "landfall on web, process 1").await).starts_with("landfall on web, process 1, "));
}

#[tokio::test(start_paused = true)]
async fn who_gets_no_answers_stops_before_another_begins() {
    let cluster = Cluster::default();
    let away = Away::default();
    let ada = take(&cluster.client(&away), "ada").await.expect("nobody has it");
    away.set(true);
    let began = Instant::now();
    let other = cluster.client(&Away::default());
    let (stopped, bob) = tokio::join!(
        async {
            let why = ada.lost().await;
            assert!(matches!(why, LockError::NotRenewed), "{why}");
            Instant::now()
        },
        async {
            let bob = take(&other, "bob").await.expect("it ends");
            (Instant::now(), bob)
        },
    );
    assert!(stopped < bob.0, "{:?} and {:?}", stopped - began, bob.0 - began);
    // When she hears again, it is not hers.
    away.set(false);
    sleep(3 * RENEW).await;
    assert!(matches!(ada.check(), Err(LockError::Held { holder }) if holder.starts_with("bob, ")));
    ada.release().await;
    bob.1.check().expect("she gives nothing back that is not hers");
}

#[tokio::test(start_paused = true)]
async fn a_short_silence_changes_nothing() {
    let cluster = Cluster::default();
    let away = Away::default();
    let ada = take(&cluster.client(&away), "ada").await.expect("nobody has it");
    away.set(true);
    sleep(SURE + Duration::from_secs(1)).await;
    assert!(matches!(ada.check(), Err(LockError::NotRenewed)));
    away.set(false);
    sleep(3 * RENEW).await;
    ada.check().expect("nobody else wanted it");
    // Nor does a lease that somebody has deleted.
    cluster.0.lock().expect("nobody panics").take();
    sleep(3 * RENEW).await;
    ada.check().expect("it was made anew");
}

#[test]
fn a_lease_is_nobodys_once_it_was_given_back_or_nothing_has_changed_for_as_long_as_it_holds() {
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    let lease = |holder: &str, transitions: i32| Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    };
    let (ada, mut seen) = (Some("ada".to_owned()), None);
    assert_eq!(owner(&mut seen, &lease("ada", 1), after(0)), ada);
    assert_eq!(owner(&mut seen, &lease("ada", 1), after(14)), ada);
    assert_eq!(owner(&mut seen, &lease("ada", 2), after(14)), ada, "it has changed");
    assert_eq!(owner(&mut seen, &lease("ada", 2), after(28)), ada);
    assert_eq!(owner(&mut seen, &lease("ada", 2), after(29)), None);
    assert_eq!(owner(&mut seen, &lease("", 2), after(29)), None);
    assert_eq!(owner(&mut None, &Lease::default(), after(0)), None);
}
