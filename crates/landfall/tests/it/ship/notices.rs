//! People are told of releases: by a receiver that fails twice, one that is down, a file, and one that takes a message and is not
//! heard, because the shipper is killed before it has written the receipt down.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, Platform};
use crate::running_engine::POLL;

/// What a receiver does with the messages that come; the last of it again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// It takes the message and says nothing.
    Never,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) body: Value,
}

/// An HTTP server that takes messages. It ends when dropped.
pub(crate) struct Receiver {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    pub(crate) fn start(answers: &[Answer]) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect::<Vec<_>>()));
        let stop = CancellationToken::new();
        let (told, port) = std::sync::mpsc::channel();
        let (into, from, until) = (Arc::clone(&received), Arc::clone(&answers), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
                told.send(listener.local_addr().expect("it has one").port()).expect("somebody waits for it");
                serve(listener, into, from, until).await;
            });
        });
        let port = port.recv().expect("it listens");
        Self { url: format!("http://127.0.0.1:{port}/releases"), received, answers, stop, thread: Some(thread) }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("nobody panics").clone()
    }

    /// From now on.
    fn answer(&self, answer: Answer) {
        *self.answers.lock().expect("nobody panics") = vec![answer];
    }

    fn until(&self, count: usize) -> Vec<Received> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            assert!(Instant::now() < deadline, "no {count} messages: {received:?}");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

async fn serve(
    listener: TcpListener,
    into: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
    until: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = until.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (into, answers) = (Arc::clone(&into), Arc::clone(&answers));
        let service =
            service_fn(move |request: Request<Incoming>| take(request, Arc::clone(&into), Arc::clone(&answers)));
        let (stream, _) = accepted.expect("connections can be accepted");
        connections.spawn(async move {
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _client_is_gone = served.await;
        });
    }
}

async fn take(
    request: Request<Incoming>,
    into: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/releases"));
    assert_eq!(request.headers()["content-type"], "application/json");
    let id = request.headers()["idempotency-key"].to_str().expect("it is a text").to_owned();
    let body = request.into_body().collect().await.expect("it comes whole").to_bytes();
    let body = serde_json::from_slice(&body).expect("it is JSON");
    into.lock().expect("nobody panics").push(Received { id, body });
    let answer = {
        let mut answers = answers.lock().expect("nobody panics");
        if answers.len() > 1 { answers.pop() } else { answers.last().copied() }
    };
    match answer.expect("it has an answer") {
        Answer::Never => std::future::pending().await,
        Answer::Status(code) => {
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = StatusCode::from_u16(code).expect("it is one");
            Ok(response)
        }
    }
}

/// A port that nobody listens on.
fn closed() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    format!("http://{}/releases", listener.local_addr().expect("it has one"))
}

/// The receipts of a release: of whom, of what, and what has become of it.
fn receipts(release: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of =
        |notice: &Value| (text(&notice["message"]["to"]), text(&notice["message"]["event"]), text(&notice["state"]));
    release["notices"].as_array().into_iter().flatten().map(of).collect()
}

fn owned(of: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    of.iter().map(|(to, event, state)| ((*to).to_owned(), (*event).to_owned(), (*state).to_owned())).collect()
}

#[test]
fn people_are_told_of_releases_whoever_is_down_and_whoever_is_killed() {
    let rollout = "{ canary: { steps: [50%], judge: { success: 99% }, decide-within: 5m } }";
    let Some(platform) = Platform::start(rollout) else { return };
    let fails_twice = Receiver::start(&[Answer::Status(503), Answer::Status(500), Answer::Status(200)]);
    let (by_secret, down) = (Receiver::start(&[Answer::Status(204)]), closed());
    let path = platform.folder.path().join("landfall.yaml");
    let text = std::fs::read_to_string(&path).expect("the file is there");
    // `delivery` is the last section of the file.
    let list = format!(
        "  notify:
    - {{ to: managers, webhook: \"{}\", on: [failed, rolled-back] }}
    - {{ to: nobody, webhook: \"{down}\", on: [rolled-back] }}
    - {{ to: support, webhook: mail/url }}
    - {{ to: the log, file: told.jsonl }}
security: {{ secrets: {{ items: {{ mail: {{ keys: [url] }} }} }} }}
",
        fails_twice.url
    );
    std::fs::write(&path, text + &list).expect("the file can be written");
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let secrets = Api::namespaced(platform.engine.client().await, "shop");
        let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(json!({
            "metadata": { "name": "mail" }, "stringData": { "url": by_secret.url },
        }))
        .expect("it is a Secret");
        secrets.create(&kube::api::PostParams::default(), &secret).await.expect("it can be made");
    });

    // It waits: whoever is to act must know, although nobody stays.
    let gate = |word: &str| {
        let mut command = platform.command(&[word, "development", "--because", "a test", "--kubeconfig"]);
        let status = command.arg(platform.engine.kubeconfig()).status().expect("the program can be started");
        assert!(status.success(), "{word}: {status}");
    };
    gate("freeze");
    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:4", "--detach"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Waiting")), "{release:#}");
    let waiting = [("support", "waiting", "sent"), ("the log", "waiting", "sent")];
    assert_eq!(receipts(&release), owned(&waiting), "{release:#}");
    gate("thaw");

    // A canary that fails every twentieth request.
    let clients = platform.clients();
    let began = jiff::Timestamp::now();
    let (code, release, said) = platform.run(&["ship", "--watch"]);
    let ended = jiff::Timestamp::now();
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    let told = [
        ("managers", "rolled-back", "sent"),
        ("nobody", "rolled-back", "to-send"),
        ("support", "rolled-back", "sent"),
        ("the log", "rolled-back", "sent"),
    ];
    assert_eq!(receipts(&release), owned(&[&waiting[..], &told[..]].concat()), "{release:#}");
    assert!(said.contains("`managers` was told of `rolled-back` at attempt 3: HTTP 200"), "{said}");
    assert!(said.contains("`landfall ship --watch` sends the messages that are left"), "{said}");
    let received = fails_twice.received();
    let ids: Vec<&str> = received.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, [ids[0]; 3], "each attempt has the same id");
    assert!(received.iter().all(|one| one.body == received[0].body), "and says the same");

    // What it has cost is what the clients have seen, as far as it was counted.
    let impact = &received[0].body["release"]["impact"];
    let seen = clients.so_far();
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{impact:#}"));
    let (requests, failed) = (number(&impact["requests"]), number(&impact["failed"]));
    let (all, bad) = (seen.of("4 200") + seen.of("4 500"), seen.of("4 500"));
    assert!(0 < failed && failed <= bad && failed < requests && requests <= all, "{impact:#}: {seen:?}");
    let time = |value: &Value| value.as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok()).expect("a time");
    let (begin, end) = (time(&impact["begin"]), time(&impact["end"]));
    assert!(began <= begin && begin < end && end <= ended, "{impact:#}");
    assert_eq!(
        (&impact["services"][0]["from"], &impact["services"][0]["to"]),
        (&json!("shop/web:4"), &json!("shop/web:1"))
    );

    // The next one takes the message of its success, and its shipper is killed before it has the receipt.
    by_secret.answer(Answer::Never);
    let before = by_secret.received().len();
    let mut shipper = platform.command(&["ship", "--image", "web=shop/web:2", "--env", "development", "--kubeconfig"]);
    let mut shipper = shipper.arg(platform.engine.kubeconfig()).spawn().expect("the program can be started");
    let first = by_secret.until(before + 1)[before].clone();
    shipper.kill().expect("a child can be killed");
    shipper.wait().expect("a child can be waited for");
    assert_eq!(first.body["event"], "succeeded");
    by_secret.answer(Answer::Status(200));
    runtime.block_on(async {
        let leases =
            Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(platform.engine.client().await, "shop");
        leases.delete("landfall-shop", &DeleteParams::default()).await.expect("a dead shipper has one");
    });
    let (code, release, _) = platform.run(&["release", "show", "shop-2"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")));
    let (code, release, _) = platform.run(&["ship", "--watch"]);
    assert_eq!((code, &release["name"]), (Some(0), &json!("shop-2")), "what is left of both is sent: {release:#}");
    assert_eq!(receipts(&release), owned(&[("support", "succeeded", "sent"), ("the log", "succeeded", "sent")]));
    let again = by_secret.until(before + 2)[before + 1].clone();
    assert_eq!((&again.id, &again.body), (&first.id, &first.body), "it comes twice, and is known by its id");

    // The file has each message, and the audit log each receipt.
    let lines = std::fs::read_to_string(platform.folder.path().join("told.jsonl")).expect("the file was written");
    let lines: BTreeMap<String, Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"))
        .map(|line| (format!("{} {}", line["release"]["name"], line["event"]), line))
        .collect();
    let told: Vec<&str> = lines.keys().map(String::as_str).collect();
    assert_eq!(told, ["\"shop-1\" \"rolled-back\"", "\"shop-1\" \"waiting\"", "\"shop-2\" \"succeeded\""]);
    let (code, audit, _) = platform.run(&["audit"]);
    let entries = audit["entries"].as_array().expect("there is a log");
    let tells = entries.iter().filter(|entry| entry["action"] == "tell").count();
    assert!(code == Some(0) && tells >= 7, "{audit:#}");
    let answers = clients.stop();
    assert_eq!(answers.failed(&["4 500"]), BTreeMap::new(), "nobody who is told late costs a request");
}
