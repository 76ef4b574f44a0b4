//! What real clients get through the gateway from real servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::rig::{Rig, Upstream, ask, ask_over, get};
use super::{GATEWAY, put, route, service, service_speaking, world};
use crate::gateway::fault::Fault;
use crate::gateway::table::World;
use crate::network::{Dial, Loopback};

/// A world with one route to the service `web`, which is at these addresses.
fn web(endpoints: &[SocketAddr], rule: Value) -> World {
    let mut world = world(GATEWAY);
    service(&mut world, "web", endpoints);
    let mut rule = rule;
    if rule["backendRefs"].is_null() {
        rule["backendRefs"] = json!([{ "name": "web", "port": 80 }]);
    }
    route(&mut world, "web", &[], json!([rule]));
    world
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn a_request_arrives_with_its_host_its_body_and_who_asked() {
    let upstream = Upstream::start("web").await;
    let rig = Rig::start(&web(&[upstream.address], json!({})), 1);
    let request = Request::post("http://shop.example.com/cart?x=%20y")
        .header("connection", "close, x-private")
        .header("x-private", "1")
        .header("x-forwarded-for", "10.9.8.7")
        .body(Full::new(Bytes::from("apples")));
    let got = ask(rig.http, request.expect("a request")).await;
    assert_eq!(got.status, StatusCode::OK);
    insta::assert_snapshot!(got.text, @"
    web POST /cart?x=%20y
    content-length: 6
    host: shop.example.com
    x-forwarded-for: 127.0.0.1
    x-forwarded-host: shop.example.com
    x-forwarded-proto: http
    apples
    ");
    rig.stop().await;
}

#[tokio::test]
async fn filters_change_headers_paths_and_hosts() {
    let upstream = Upstream::start("web").await;
    let rule = json!({
        "matches": [{ "path": { "type": "PathPrefix", "value": "/old" } }],
        "filters": [
            { "type": "RequestHeaderModifier", "requestHeaderModifier": {
                "set": [{ "name": "a", "value": "set" }], "add": [{ "name": "b", "value": "added" }], "remove": ["c"] } },
            { "type": "ResponseHeaderModifier", "responseHeaderModifier": { "set": [{ "name": "x-answer", "value": "yes" }] } },
            { "type": "URLRewrite", "urlRewrite": {
                "hostname": "inside.example.com", "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" } } },
        ],
    });
    let rig = Rig::start(&web(&[upstream.address], rule), 1);
    let request = Request::get("http://outside/old/x?q=1").header("a", "1").header("b", "1").header("c", "1");
    let got = ask(rig.http, request.body(Full::default()).expect("a request")).await;
    assert_eq!(got.headers["x-answer"], "yes");
    insta::assert_snapshot!(got.text, @"
    web GET /new/x?q=1
    a: set
    b: 1
    b: added
    host: inside.example.com
    x-forwarded-for: 127.0.0.1
    x-forwarded-host: outside
    x-forwarded-proto: http
    ");
    rig.stop().await;
}

#[tokio::test]
async fn each_backend_gets_exactly_its_weight() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let mut world = world(GATEWAY);
    service(&mut world, "a", &[a.address]);
    service(&mut world, "b", &[b.address]);
    let backends = json!([{ "name": "a", "port": 80, "weight": 95 }, { "name": "b", "port": 80, "weight": 5 }]);
    route(&mut world, "web", &[], json!([{ "backendRefs": backends }]));
    let rig = Rig::start(&world, 2);
    let mut counts = BTreeMap::<String, usize>::new();
    for turn in 0..100 {
        // A new table must not begin anew with the first backend.
        if turn % 7 == 0 {
            rig.show(&world);
        }
        let got = ask(rig.http, get("http://x/")).await;
        *counts.entry(got.text[..1].to_owned()).or_default() += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a".to_owned(), 95), ("b".to_owned(), 5)]));
    rig.stop().await;
}

#[tokio::test]
async fn without_endpoints_it_is_503_without_a_service_500_and_without_a_route_404() {
    let mut world = web(&[], json!({}));
    let missing =
        json!([{ "matches": [{ "path": { "value": "/missing" } }], "backendRefs": [{ "name": "no", "port": 80 }] }]);
    route(&mut world, "missing", &[], missing);
    let rig = Rig::start(&world, 1);
    assert_eq!(ask(rig.http, get("http://x/")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(rig.http, get("http://x/missing")).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    rig.show(&World::default());
    assert_eq!(ask(rig.http, get("http://x/")).await.status, StatusCode::NOT_FOUND);
    rig.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over_and_nobody_notices() {
    let upstream = Upstream::start("web").await;
    let rig = Rig::start(&web(&[nobody().await, upstream.address], json!({})), 1);
    for _ in 0..4 {
        let request = Request::post("http://x/").body(Full::new(Bytes::from("apples"))).expect("a request");
        let got = ask(rig.http, request).await;
        assert_eq!(got.status, StatusCode::OK);
        assert!(got.text.ends_with("apples"), "{}", got.text);
    }
    assert!(
        rig.shared
            .registry
            .metrics()
            .contains("gateway_retries_total{route=\"HTTPRoute/shop/web\",backend=\"shop/web:80\"} 2")
    );
    rig.stop().await;
}

#[tokio::test]
async fn no_request_is_lost_while_endpoints_come_and_go() {
    let rig = Rig::start(&web(&[], json!({})), 2);
    let first = Upstream::start("first").await;
    rig.show(&web(&[first.address], json!({})));
    let (asked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (address, asked, stop) = (rig.http, Arc::clone(&asked), Arc::clone(&stop));
        clients.spawn(async move {
            while stop.load(Ordering::Relaxed) == 0 {
                let got = ask(address, get("http://x/")).await;
                assert_eq!(got.status, StatusCode::OK, "{}", got.text);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut before = first;
    for _ in 0..20 {
        let next = Upstream::start("next").await;
        let seen = asked.load(Ordering::Relaxed);
        // As in a rolling update: the new one is ready, then the old one is taken away, and ends a little too early.
        rig.show(&web(&[before.address, next.address], json!({})));
        while asked.load(Ordering::Relaxed) < seen + 8 {
            tokio::task::yield_now().await;
        }
        let address = next.address;
        drop(std::mem::replace(&mut before, next));
        tokio::task::yield_now().await;
        rig.show(&web(&[address], json!({})));
    }
    stop.store(1, Ordering::Relaxed);
    clients.join_all().await;
    rig.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_an_endpoint_that_is_gone() {
    let asked = Arc::new(Notify::new());
    let told = Arc::clone(&asked);
    // A pod whose network went before its last word: it is asked, and neither answers nor hangs up.
    let silent = Upstream::serving(move |_| {
        told.notify_one();
        std::future::pending()
    })
    .await;
    let other = Upstream::start("other").await;
    let rig = Rig::start(&web(&[silent.address], json!({})), 1);
    let request = tokio::spawn(ask(rig.http, get("http://shop.example.com/")));
    asked.notified().await;

    rig.show(&web(&[other.address], json!({})));
    let got = tokio::time::timeout(Duration::from_secs(20), request).await.expect("it is not waited for");
    let got = got.expect("the client does not panic");
    assert_eq!((got.status, got.text.lines().next()), (StatusCode::OK, Some("other GET /")));
    rig.stop().await;
}

/// The way to an endpoint whose network is gone: nothing comes back from there.
struct Silence {
    at: SocketAddr,
    dialled: Arc<Notify>,
}

impl Dial for Silence {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        if address != self.at {
            return Loopback.dial(address);
        }
        self.dialled.notify_one();
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn what_was_never_sent_goes_to_another_endpoint_whatever_it_is_and_once() {
    let (asked, dialled) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let counted = Arc::clone(&asked);
    let other = Upstream::serving(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            Response::new(Full::new(body.unwrap_or_default()))
        }
    })
    .await;
    let lost = nobody().await;
    let dialer = Arc::new(Silence { at: lost, dialled: Arc::clone(&dialled) });
    let rig = Rig::dialling(dialer, &web(&[lost], json!({})), 1);
    let request = Request::post("http://shop.example.com/").body(Full::new(Bytes::from("apples")));
    let request = tokio::spawn(ask(rig.http, request.expect("a request")));
    dialled.notified().await;

    rig.show(&web(&[other.address], json!({})));
    let got = tokio::time::timeout(Duration::from_secs(20), request).await.expect("it is not waited for");
    let got = got.expect("the client does not panic");
    assert_eq!((got.status, got.text.as_str()), (StatusCode::OK, "apples"));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_limit_lets_its_burst_through_and_says_when_to_come_back() {
    let upstream = Upstream::start("web").await;
    let filter = json!({ "type": "ExtensionRef", "extensionRef": { "group": "traefik.io", "kind": "Middleware", "name": "limit" } });
    let mut world = web(&[upstream.address], json!({ "filters": [filter] }));
    let rig = Rig::start(&world, 1);
    assert_eq!(
        ask(rig.http, get("http://x/")).await.status,
        StatusCode::INTERNAL_SERVER_ERROR,
        "a limit is not skipped"
    );
    let limit = json!({ "rateLimit": { "average": 2, "period": "1h", "burst": 2 } });
    put(&mut world, json!({ "kind": "Middleware", "metadata": { "name": "limit" }, "spec": limit }));
    rig.show(&world);
    assert_eq!(ask(rig.http, get("http://x/")).await.status, StatusCode::OK);
    rig.show(&world);
    assert_eq!(ask(rig.http, get("http://x/")).await.status, StatusCode::OK);
    let refused = ask(rig.http, get("http://x/")).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = refused.headers["retry-after"].to_str().expect("text").parse().expect("a number");
    assert!((1790..=1800).contains(&wait), "{wait}");
    rig.stop().await;
}

#[tokio::test]
async fn a_body_is_as_large_as_the_annotation_of_ingress_nginx_allows() {
    let upstream = Upstream::start("web").await;
    for (allowed, length, expected) in [
        ("1k", 1024, StatusCode::OK),
        ("1K", 1025, StatusCode::PAYLOAD_TOO_LARGE),
        ("7", 8, StatusCode::PAYLOAD_TOO_LARGE),
        ("0", 2048, StatusCode::OK),
        ("much", 2048, StatusCode::OK),
    ] {
        let mut world = World::default();
        service(&mut world, "web", &[upstream.address]);
        let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
        let paths = json!([{ "path": "/", "pathType": "Prefix", "backend": backend }]);
        let annotations = json!({ "nginx.ingress.kubernetes.io/proxy-body-size": allowed });
        put(
            &mut world,
            json!({
                "kind": "Ingress", "metadata": { "name": "web", "annotations": annotations },
                "spec": { "rules": [{ "http": { "paths": paths } }] },
            }),
        );
        let rig = Rig::start(&world, 1);
        let request = Request::post("http://x/").body(Full::new(Bytes::from(vec![b'a'; length]))).expect("a request");
        assert_eq!(ask(rig.http, request).await.status, expected, "{length} bytes, {allowed} are allowed");
        let code = ask_in_chunks(rig.http, length).await;
        assert_eq!(code, expected.as_str(), "{length} bytes of which nothing was said, {allowed} are allowed");
        rig.stop().await;
    }
}

/// Sends a body without a word about its length, and says the code of the answer.
async fn ask_in_chunks(gateway: SocketAddr, length: usize) -> String {
    let mut stream = TcpStream::connect(gateway).await.expect("the gateway listens");
    let mut request = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for chunk in vec![b'a'; length].chunks(500) {
        request += &format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk));
    }
    stream.write_all(format!("{request}0\r\n\r\n").as_bytes()).await.expect("the gateway reads");
    let mut start = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut start).await.expect("the gateway answers");
    String::from_utf8_lossy(&start[9..]).into_owned()
}

#[tokio::test]
async fn tls_shows_the_certificate_of_the_host_and_speaks_http_2() {
    let upstream = Upstream::start("web").await;
    let mut world = world(
        "
kind: Ingress
metadata: { name: web, annotations: { cert-manager.io/cluster-issuer: letsencrypt } }
spec:
  tls: [{ hosts: [a.example.com], secretName: a-tls }]
  rules:
  - host: a.example.com
    http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] }
",
    );
    service(&mut world, "web", &[upstream.address]);
    let rig = Rig::start(&world, 1);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(rig.certificates.authority().as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = |config: &ClientConfig, host: &'static str| {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config.clone()));
        async move {
            let stream = TcpStream::connect(rig.https).await.expect("the gateway listens");
            connector.connect(ServerName::try_from(host).expect("a name"), stream).await.expect("TLS")
        }
    };
    let got = ask_over(TokioIo::new(tls(&config, "a.example.com").await), get("http://a.example.com/")).await;
    assert!(got.text.contains("x-forwarded-proto: https\n"), "{}", got.text);

    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tls(&config, "a.example.com").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let answer = sender.send_request(get("https://a.example.com/two")).await.expect("an answer");
    let text = answer.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with("web GET /two\nhost: a.example.com\n"), "{text}");
    rig.stop().await;
}

#[tokio::test]
async fn a_backend_of_http_2_is_spoken_to_in_it() {
    let upstream = Upstream::serving(|request| async move {
        Response::new(Full::new(Bytes::from(format!("{:?} {}", request.version(), request.uri()))))
    })
    .await;
    let mut world = world(GATEWAY);
    service_speaking(&mut world, "web", &[upstream.address], Some("kubernetes.io/h2c"));
    route(&mut world, "web", &[], json!([{ "backendRefs": [{ "name": "web", "port": 80 }] }]));
    let rig = Rig::start(&world, 1);
    assert_eq!(ask(rig.http, get("http://a.example.com/x")).await.text, "HTTP/2.0 http://a.example.com/x");
    rig.stop().await;
}

#[tokio::test]
async fn a_switched_connection_carries_bytes_both_ways_whichever_endpoint_is_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a request"));
            }
            assert!(String::from_utf8_lossy(&head).to_lowercase().contains("\r\nupgrade: echo\r\n"));
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello ";
            stream.write_all(answer).await.expect("an answer");
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.expect("an echo");
        }
    });
    let rig = Rig::start(&web(&[nobody().await, address], json!({})), 1);
    // Each endpoint has its turn, and one of them refuses.
    for _ in 0..2 {
        let mut client = TcpStream::connect(rig.http).await.expect("the gateway listens");
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
        client.write_all(request).await.expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("an answer"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        client.write_all(b"world").await.expect("it is open");
        client.shutdown().await.expect("it is open");
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("the other side ends too");
        assert_eq!(text, "hello world");
    }
    let retried = "gateway_retries_total{route=\"HTTPRoute/shop/web\",backend=\"shop/web:80\"} 1";
    assert!(rig.shared.registry.metrics().contains(retried), "{}", rig.shared.registry.metrics());
    rig.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_request_and_a_fault_answers_it() {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let upstream = Upstream::serving(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.notified().await;
            Response::new(Full::default())
        }
    })
    .await;
    let rig = Rig::start(&web(&[upstream.address], json!({ "timeouts": { "request": "30ms" } })), 1);
    assert_eq!(ask(rig.http, get("http://x/")).await.status, StatusCode::GATEWAY_TIMEOUT);
    let fault = Fault {
        route: Some("HTTPRoute/shop/web".to_owned()),
        backend: None,
        percent: 100.0,
        delay_millis: 5,
        jitter_millis: 0,
        status: Some(503),
    };
    rig.shared.faults.put("drill", &fault);
    assert_eq!(ask(rig.http, get("http://x/")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(rig.shared.faults.remove("drill"));
    assert_eq!(ask(rig.http, get("http://x/")).await.status, StatusCode::GATEWAY_TIMEOUT);
    rig.stop().await;
}

#[tokio::test]
async fn threads_share_connections_evenly_and_each_finishes_its_own_when_the_gateway_stops() {
    let (arrived, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (tell, held) = (Arc::clone(&arrived), Arc::clone(&release));
    let upstream = Upstream::serving(move |_| {
        let (tell, held) = (Arc::clone(&tell), Arc::clone(&held));
        async move {
            let released = held.notified();
            tell.fetch_add(1, Ordering::Relaxed);
            released.await;
            Response::new(Full::new(Bytes::from("done")))
        }
    })
    .await;
    let rig = Rig::start(&web(&[upstream.address], json!({})), 3);
    let address = rig.http;
    let mut asking = JoinSet::new();
    for _ in 0..12 {
        asking.spawn(async move { ask(address, get("http://x/")).await });
    }
    let all = async {
        while arrived.load(Ordering::Relaxed) < 12 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("every request reaches the endpoint");
    assert_eq!(rig.connections(), [4, 4, 4]);
    let stopping = rig.stop();
    let mut stopping = std::pin::pin!(stopping);
    let early = tokio::time::timeout(Duration::from_millis(50), stopping.as_mut()).await;
    assert!(early.is_err(), "it waits for the requests");
    release.notify_waiters();
    while let Some(got) = asking.join_next().await {
        let got = got.expect("no panic");
        assert_eq!((got.status, got.text.as_str()), (StatusCode::OK, "done"));
    }
    stopping.await;
}

#[tokio::test]
async fn a_request_that_is_under_way_is_finished_when_the_gateway_stops() {
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, held) = (Arc::clone(&arrived), Arc::clone(&release));
    let upstream = Upstream::serving(move |_| {
        let (tell, held) = (Arc::clone(&tell), Arc::clone(&held));
        async move {
            tell.notify_one();
            held.notified().await;
            Response::new(Full::new(Bytes::from("done")))
        }
    })
    .await;
    let rig = Rig::start(&web(&[upstream.address], json!({})), 1);
    let address = rig.http;
    let mut asking = JoinSet::new();
    asking.spawn(async move { ask(address, get("http://x/")).await });
    arrived.notified().await;
    let stopping = rig.stop();
    let mut stopping = std::pin::pin!(stopping);
    let early = tokio::time::timeout(Duration::from_millis(50), stopping.as_mut()).await;
    assert!(early.is_err(), "it waits for the request");
    release.notify_one();
    let got = asking.join_next().await.expect("one request").expect("no panic");
    assert_eq!((got.status, got.text.as_str()), (StatusCode::OK, "done"));
    stopping.await;
}
