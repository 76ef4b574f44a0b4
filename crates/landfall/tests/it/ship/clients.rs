//! Clients that ask at a fixed rate, however long the answers take, and remember each answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::running_engine::POLL;

/// After which time nobody waits for an answer any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a connection may be kept without a request. The gateway closes one that has been idle for 20 s; a client that keeps
/// it longer asks on it at the moment of its end when the machine is busy, and gets no answer (RFC 9112, section 9.5).
const IDLE: Duration = Duration::from_secs(10);

/// How often each answer came: the version that gave it and its status, or why there was none; and when it was asked for
/// first and last, in seconds since the clients began.
#[derive(Debug, Default, Clone)]
pub(super) struct Answers(BTreeMap<String, Times>);

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Times {
    count: u64,
    first: f64,
    last: f64,
}

impl Answers {
    pub(super) fn of(&self, answer: &str) -> u64 {
        self.0.get(answer).map_or(0, |times| times.count)
    }

    fn add(&mut self, answer: String, asked: f64) {
        let times = self.0.entry(answer).or_insert(Times { count: 0, first: asked, last: asked });
        times.count += 1;
        times.first = times.first.min(asked);
        times.last = times.last.max(asked);
    }

    /// Whether everybody who got one of these answers had asked before anybody who got the other.
    pub(super) fn come_before(&self, one: &str, other: &str) -> bool {
        self.0[one].last < self.0[other].first
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().map(|times| times.count).sum()
    }

    /// What failed, by its cause, besides `expected`.
    pub(super) fn failed(&self, expected: &[&str]) -> BTreeMap<String, Times> {
        let bad = |answer: &str| !answer.ends_with(" 200") && !expected.contains(&answer);
        self.0.iter().filter(|(answer, _)| bad(answer)).map(|(answer, count)| (answer.clone(), *count)).collect()
    }
}

/// Clients at work; [`Clients::stop`] says what they got.
pub(super) struct Clients {
    answers: Arc<Mutex<Answers>>,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Clients {
    /// So many requests a second for the page `/` of `host` at a gateway.
    pub(super) fn start(gateway: &str, host: &'static str, rate: u32) -> Self {
        let answers = Arc::new(Mutex::new(Answers::default()));
        let stop = CancellationToken::new();
        let (gateway, into, until) = (gateway.to_owned(), Arc::clone(&answers), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(ask(&gateway, host, rate, &into, &until));
        });
        Self { answers, stop, thread }
    }

    pub(super) fn so_far(&self) -> Answers {
        self.answers.lock().expect("no client panics").clone()
    }

    pub(super) fn stop(self) -> Answers {
        self.stop.cancel();
        self.thread.join().expect("no client panics");
        self.answers.lock().expect("no client panics").clone()
    }
}

async fn ask(gateway: &str, host: &'static str, rate: u32, into: &Arc<Mutex<Answers>>, until: &CancellationToken) {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build_http();
    let request = || {
        let request = Request::get(format!("http://{gateway}/")).header("host", host).body(Empty::new());
        request.expect("an address makes a request")
    };
    // Pods are ready before the gateway has read the route to them.
    let begin = Instant::now();
    while !client.request(request()).await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(begin.elapsed() < PATIENCE, "the gateway has no route to {host}");
        tokio::time::sleep(POLL).await;
    }
    let mut interval = tokio::time::interval(Duration::from_secs(1) / rate);
    // Those that are late are asked nevertheless: the rate is that of the clients, not of the answers.
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut asked, begin) = (JoinSet::new(), Instant::now());
    loop {
        tokio::select! {
            () = until.cancelled() => break,
            _ = interval.tick() => {}
        }
        let (client, into, request) = (client.clone(), Arc::clone(into), request());
        let asked_at = begin.elapsed();
        asked.spawn(async move {
            let exchange = async {
                let answer = client.request(request).await.map_err(|error| error.to_string())?;
                let status = answer.status().as_u16();
                let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
                let body = String::from_utf8_lossy(&body).trim().to_owned();
                Ok::<_, String>(format!("{body} {status}"))
            };
            let answer = match tokio::time::timeout(PATIENCE, exchange).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => error,
                Err(_) => "no answer".to_owned(),
            };
            into.lock().expect("no client panics").add(answer, asked_at.as_secs_f64());
        });
        while asked.try_join_next().is_some() {}
    }
    asked.join_all().await;
}
