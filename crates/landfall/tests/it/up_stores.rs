//! `landfall up` with every kind of store that no other test runs, and what happens when the primary of one is lost.

use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use landfall_standin::Server;
use landfall_testing::{Tool, require_or_skip};
use serde_json::json;

use crate::platform::Platform;
use crate::up::are_here;

/// How long a replica may take to be promoted.
const PATIENCE: Duration = Duration::from_mins(4);

const POLL: Duration = Duration::from_millis(250);

const SHOP: &str = r#"
landfall: v1
name: shop
platform:
  regions: { here: { location: ap-south-1, zones: [a, b, c] } }
  nodes: { count: 3, cpu: 8, memory: 16Gi }
services:
  web:
    image: web:1.0.0
    port: 8080
    probes: { ready: { http: /ready, period: 2s } }
    env:
      MONGODB_URL:    { store: documents/url }
      REDIS_URL:      { store: sessions/url }
      OBJECTS:        { store: objects/address }
      OBJECTS_KEY:    { store: objects/username }
      OBJECTS_SECRET: { store: objects/password }
      DEVICES_URL:    { store: devices/url }
      DATABASE_URL:   { secret: rows-secret/url }
    uses:
      - { write:   documents/orders }
      - { read:    documents/orders }
      - { cache:   sessions/session, ttl: 1m }
      - { store:   objects/images }
      - { read:    objects/images }
      - { publish: devices/telemetry }
      - { write:   rows/orders }
      - { read:    rows/orders, from-replica: true }
  worker:
    image: worker:1.0.0
    port: 8080
    replicas: 2
    probes: { ready: { http: /ready, period: 2s } }
    env:
      DEVICES_URL: { store: devices/url }
    uses:
      - { consume: devices/telemetry }
security: { secrets: { backend: aws, items: { rows-secret: { keys: [url] } } } }
stores:
  documents: { engine: mongodb, version: "8.0", members: 3, size: 1Gi, encryption: { in-transit: true } }
  sessions:  { engine: redis, members: 3, size: 1Gi, persistence: log, failover: 4s, encryption: { in-transit: true } }
  objects:   { engine: s3, members: 3, replication: 2, size: 1Gi, encryption: { in-transit: true } }
  devices:   { engine: mqtt, size: 1Gi, encryption: { in-transit: true } }
  rows:      { engine: postgres, version: "17", members: 2, size: 1Gi, encryption: { in-transit: true } }
"#;

#[test]
fn every_kind_of_store_carries_its_edges_and_a_lost_redis_primary_is_replaced() {
    let Some(()) = are_here(&[Server::Postgres, Server::Redis, Server::S3, Server::Mosquitto, Server::Mongodb]) else {
        return;
    };
    let Some(kubectl) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder can be made");
    fs::write(folder.path().join("landfall.yaml"), SHOP).expect("a file can be written");
    let mut platform = Platform::start(folder.path(), "shop", None, &["--duration", "1s"]);
    let report = platform.reported();
    let ask = |arguments: &[&str]| {
        let kubeconfig = platform.root().join("kubeconfig");
        let output = Command::new(&kubectl).arg("--kubeconfig").arg(kubeconfig).args(arguments).output();
        String::from_utf8_lossy(&output.expect("kubectl can be started").stdout).trim().to_owned()
    };
    assert_eq!(report["broken"], json!([]), "{report:#}");
    assert_eq!((&report["edges"]["declared"], &report["edges"]["carrying"]), (&json!(9), &json!(9)), "{report:#}");
    assert_eq!(report["edges"]["reachable"], json!([]), "{report:#}");
    // From inside of the pods of real servers, too.
    let from = json!({ "services": 6, "stores": 30, "foreign-namespaces": 7, "outside": 7 });
    assert_eq!((&report["edges"]["undeclared_from"], &report["edges"]["untried"]), (&from, &json!([])), "{report:#}");
    let stores = report["stores"].as_array().expect("stores are a list");
    let ready: Vec<_> = stores.iter().map(|store| (&store["name"], &store["ready"])).collect();
    let expected = [("devices", 1), ("documents", 3), ("objects", 3), ("rows", 2), ("sessions", 3)]
        .map(|(n, r)| (json!(n), json!(r)));
    assert_eq!(ready, expected.iter().map(|(n, r)| (n, r)).collect::<Vec<_>>(), "{report:#}");

    let primary = || {
        let label = "redis-role=master";
        ask(&["get", "pods", "-n", "shop", "-l", label, "-o", "jsonpath={.items[*].metadata.name}"])
    };
    // On a busy machine Sentinel may have chosen another one already.
    let before = primary();
    assert!(before.starts_with("sessions-") && !before.contains(' '), "one primary: `{before}`");
    // Its container is killed and started again; Sentinel is to have another primary by then, or keep this one.
    ask(&["delete", "pod", "-n", "shop", &before, "--grace-period=0", "--force"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = primary();
        let write = "REDISCLI_AUTH=$REDIS_PASSWORD redis-cli --tls --cacert /tls/ca.crt -h sessions-master.shop.svc set probe 1";
        let writes = ask(&["exec", "-n", "shop", "sessions-sentinel-0", "--", "sh", "-c", write]);
        if writes == "OK" && !now.is_empty() && !now.contains(' ') {
            break;
        }
        assert!(Instant::now() < deadline, "no primary takes writes: `{now}`, `{writes}`");
        thread::sleep(POLL);
    }
}
