//! How long services, names and the gateway are away when the engine is killed and started again at once.
#![expect(clippy::print_stdout, reason = "the figures are what docs/engine.md tells")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use landfall_testing::require_or_skip;

use super::{CATALOGUE, Cluster};
use crate::running_engine::{POLL, RunningEngine};

/// How long anything may take until it is back.
const PATIENCE: Duration = Duration::from_secs(90);

/// Asks the service at the address that is its first argument, and the name server that is its second for the service's
/// name, again and again: what, whether it was answered, and when.
const ASKER: &str = r#"
import socket, sys, time
def service():
    with socket.create_connection((sys.argv[1], 80), timeout=60) as stream:
        stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return stream.recv(12) == b"HTTP/1.0 200"
def name():
    name = b"".join(bytes([len(part)]) + part for part in b"server.default.svc.cluster.local".split(b"."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(0.1)
        datagrams.sendto(bytes([1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + name + bytes([0, 0, 1, 0, 1]), (sys.argv[2], 53))
        answer = datagrams.recv(512)
        return answer[3] & 15 == 0 and answer[7] > 0
while True:
    for what in (service, name):
        try:
            good = what()
        except OSError:
            good = False
        print(what.__name__, int(good), time.time(), flush=True)
    time.sleep(0.002)
"#;

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: landfall }
spec: { controller: landfall.dev/gateway }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: server }
spec:
  ingressClassName: landfall
  rules:
  - host: server.example
    http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: server, port: { number: 80 } } } }] }
";

fn asker(service: &str, names: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: asker }}
spec:
  containers:
  - {{ name: main, image: client, command: [python3, -c, {ASKER:?}, \"{service}\", \"{names}\"] }}
"
    )
}

/// What the asker has found out so far.
fn answers(cluster: &Cluster) -> Vec<(String, bool, f64)> {
    let log = cluster.kubectl(&["logs", "asker"]);
    let lines = String::from_utf8_lossy(&log.stdout).into_owned();
    let answer = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()? == "1", words.next()?.parse().ok()?))
    };
    lines.lines().filter_map(answer).collect()
}

fn gateway_answers(address: &str) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: server.example\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    asked().unwrap_or(false)
}

#[track_caller]
fn wait(what: &str, fits: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fits() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(POLL);
    }
}

#[test]
fn no_request_to_a_service_fails_while_there_is_no_engine() {
    let Some(mut cluster) = Cluster::start("auto") else { return };
    let said = |cluster: &Cluster| {
        std::fs::read_to_string(cluster.folder.path().join("engine.log")).expect("the engine has a log")
    };
    let level = said(&cluster);
    let namespaces = if level.contains("its own network") { Ok(()) } else { Err(level.clone()) };
    if require_or_skip("network namespaces", namespaces).is_none() {
        return;
    }
    wait("the log says where the gateway is", || said(&cluster).contains("gateway: http://"));
    let log = said(&cluster);
    let gateway = log.split("gateway: http://").nth(1).and_then(|rest| rest.split(' ').next());
    let gateway = gateway.expect("it was said").to_owned();
    let address = cluster.kubectl(&["get", "service", "server", "-o", "jsonpath={.spec.clusterIP}"]);
    let address = String::from_utf8(address.stdout).expect("an address is ASCII");
    cluster.apply(INGRESS);
    // The tenth address of services, as docs/engine.md and kubeadm have it.
    cluster.apply(&asker(&address, "10.96.0.10"));
    wait("the gateway answers", || gateway_answers(&gateway));
    let both_after = |cluster: &Cluster, time: f64| {
        let answers = answers(cluster);
        ["service", "name"].iter().all(|what| answers.iter().any(|(of, good, at)| of == what && *good && *at > time))
    };
    wait("both are answered", || both_after(&cluster, 0.0));

    let Cluster { engine, kubectl, folder } = cluster;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs_f64();
    let (killed, killed_at) = (Instant::now(), now());
    engine.kill();
    let engine = RunningEngine::start(folder.path(), CATALOGUE, &["--network", "auto"]);
    let serves = killed.elapsed();
    wait("the gateway answers again", || gateway_answers(&gateway));
    let gateway_away = killed.elapsed();
    cluster = Cluster { engine, kubectl, folder };
    wait("both are answered again", || both_after(&cluster, killed_at + serves.as_secs_f64()));

    let answers = answers(&cluster);
    let good_names: Vec<f64> =
        answers.iter().filter(|(what, good, _)| what == "name" && *good).map(|(_, _, at)| *at).collect();
    // Nothing else keeps names away for as long.
    let names_away = good_names.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    let requests = answers.iter().filter(|(what, _, at)| what == "service" && *at > killed_at).count();
    println!("the API was away for {serves:.1?}, the gateway for {gateway_away:.1?}, names for {names_away:.2} s");
    println!("{requests} requests to the service since");
    // The first answers are asked for before all rules are there.
    let first_good = answers.iter().position(|(what, good, _)| what == "service" && *good).unwrap_or_default();
    let failed = answers[first_good..].iter().filter(|(what, good, _)| what == "service" && !good).count();
    assert_eq!(failed, 0, "of {requests} requests");
}
