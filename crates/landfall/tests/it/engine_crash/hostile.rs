//! What must not bring an engine down: a second engine, a taken port, a folder that cannot be written, and requests that
//! no client of good will sends.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use kube::Client;
use kube::client::Body;
use serde_json::Value;

use crate::running_engine::{RunningEngine, command};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// The exit code and what was said, without the folder's name.
fn ended(mut command: Command, folder: &Path) -> String {
    let output = command.output().expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stderr).replace(&folder.display().to_string(), "<folder>");
    format!("{}: {said}", output.status.code().expect("it ends by itself"))
}

#[test]
fn a_folder_has_one_engine() {
    let folder = folder();
    let mut first = RunningEngine::start(folder.path(), "images: []", &["--network", "loopback"]);
    let second = ended(command(&folder.path().join("data")), folder.path());
    insta::assert_snapshot!(second, @"3: error: `<folder>/data/objects/store.redb` is in use by another engine");
    assert!(first.lives());
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let address = taken.local_addr().expect("it has one").to_string();
    let mut engine = command(&folder.path().join("data"));
    engine.args(["--network", "loopback", "--listen", &address]);
    let said = ended(engine, folder.path()).replace(&address, "<address>");
    insta::assert_snapshot!(said, @"3: error: failed to listen on <address>: Address already in use (os error 98)");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = folder();
    // A file in its place stops even an administrator, whom permissions would not.
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file can be written");
    let said = ended(command(&file.join("data")), folder.path());
    insta::assert_snapshot!(said, @"3: error: failed to write `<folder>/file/data`: Not a directory (os error 20)");
}

/// Status, reason and message of the answer.
async fn answer(client: &Client, method: &str, path: &str, media_type: &str, body: impl Into<Vec<u8>>) -> String {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, media_type)
        .body(Body::from(body.into()))
        .expect("it is a request");
    let answer = client.send(request).await.expect("there is an answer");
    let code = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await.expect("it has a body");
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    let message: String = text("message").chars().take(160).collect();
    format!("{code} {}: {message}\n", text("reason"))
}

#[test]
fn requests_of_ill_will_are_answered_and_the_engine_lives() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    const JSON: &str = "application/json";
    let folder = folder();
    let mut engine = RunningEngine::start(folder.path(), "images: []", &["--network", "loopback"]);
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let answers = runtime.block_on(async {
        let client = engine.client().await;
        let deep = "[".repeat(200_000);
        let nested = format!(
            r#"{{"metadata":{{"name":"a"}},"data":{}{}}}"#,
            "{\"a\":".repeat(500),
            "1".to_owned() + &"}".repeat(500)
        );
        let mut answers = String::new();
        for (method, path, media_type, body) in [
            ("POST", MAPS, JSON, b"{\"kind\": \"ConfigMap\", ".to_vec()),
            ("POST", MAPS, JSON, deep.into_bytes()),
            ("POST", MAPS, JSON, nested.into_bytes()),
            ("POST", MAPS, JSON, vec![0xff, 0xfe, 0x00]),
            ("POST", MAPS, JSON, b"[]".to_vec()),
            ("POST", MAPS, JSON, br#"{"metadata":{"name":1}}"#.to_vec()),
            ("POST", MAPS, JSON, br#"{"metadata":{"name":"a"},"data":"text"}"#.to_vec()),
            ("POST", MAPS, "application/yaml", b"a: [1\nb: *nowhere".to_vec()),
            ("POST", MAPS, "application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff\xff\xff\x0f".to_vec()),
            ("POST", MAPS, "text/plain", b"hello".to_vec()),
            ("PATCH", "/api/v1/namespaces/default", "application/json-patch+json", br#"[{"op":"fly"}]"#.to_vec()),
            ("PATCH", "/api/v1/namespaces/default", JSON, b"{}".to_vec()),
            ("POST", "/apis/apps/v9/namespaces/default/deployments", JSON, b"{}".to_vec()),
            ("GET", "/api/v1/namespaces/default/configmaps?labelSelector=a%20in%20(", JSON, Vec::new()),
            ("GET", "/api/v1/namespaces/default/configmaps?limit=many", JSON, Vec::new()),
            ("GET", "/api/v1/configmaps?resourceVersion=later", JSON, Vec::new()),
            ("GET", "/api/v1/namespaces/..%2f..%2fetc/configmaps/passwd", JSON, Vec::new()),
            ("DELETE", "/api/v1/namespaces/default/configmaps/none", JSON, b"null and void".to_vec()),
        ] {
            answers += &answer(&client, method, path, media_type, body).await;
        }
        vanish(&engine);
        answers += &answer(&client, "GET", "/api/v1/namespaces/none", JSON, Vec::new()).await;
        answers
    });
    // What is wrong is told in a text of the parsers; that it is the sender's mistake is ours to say.
    let coded = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    let reasons = answers.lines().filter(coded).filter_map(|line| line.split_once(':').map(|(reason, _)| reason));
    let reasons: Vec<&str> = reasons.collect();
    assert_eq!(
        reasons,
        [
            vec!["400 BadRequest"; 9],
            vec!["415 UnsupportedMediaType", "422 Invalid", "415 UnsupportedMediaType", "404 NotFound"],
            vec!["400 BadRequest"; 3],
            vec!["404 NotFound", "400 BadRequest", "404 NotFound"],
        ]
        .concat()
    );
    assert!(engine.lives());
}

/// Clients that speak no TLS, or begin to and go.
fn vanish(engine: &RunningEngine) {
    let text = std::fs::read_to_string(engine.kubeconfig()).expect("it is written");
    let (_, server) = text.split_once("https://").expect("it names a server");
    let (server, _) = server.split_once('"').expect("the name is quoted");
    for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 0x03, 0x01, 0xff, 0xff, 0x01], &[0; 4096]] {
        for _ in 0..50 {
            let mut connection = TcpStream::connect(server).expect("the engine listens");
            // It may hang up before everything is sent.
            let _sent = connection.write_all(sent);
        }
    }
}

/// A client may be told no before it has sent everything, so this one reads while it still writes.
#[test]
fn a_body_of_100_megabytes_is_refused_before_it_is_read() {
    let folder = folder();
    let mut engine = RunningEngine::start(folder.path(), "images: []", &["--network", "loopback"]);
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let client = engine.client().await;
        let request = http::Request::post("/api/v1/namespaces/default/configmaps")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(vec![b' '; 100 << 20]))
            .expect("it is a request");
        // The engine hangs up on a client that goes on sending; whether its answer still arrives is a matter of luck.
        let refused = match client.send(request).await {
            Ok(answer) => answer.status() == http::StatusCode::PAYLOAD_TOO_LARGE,
            Err(_) => true,
        };
        assert!(refused);
        assert!(client.apiserver_version().await.is_ok(), "the engine serves on");
    });
    assert!(engine.lives());
}
