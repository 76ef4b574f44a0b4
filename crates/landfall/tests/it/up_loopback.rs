//! `landfall up --network loopback`: pods share the network of the machine, declared edges carry all the same, and what nothing
//! closes is told as that.

use landfall_standin::Server;
use serde_json::{Value, json};

use crate::Folder;
use crate::nobody;
use crate::platform::Platform;
use crate::up::{are_here, is_driven, room, up};

/// Stores with members that find each other by name, a service at port 80 and an external at 443, which not every user may open.
const SHOP: &str = r#"
landfall: v1
name: shop
platform: { nodes: { count: 3, cpu: 8, memory: 16Gi } }
services:
  web:
    image: web:1.0.0
    port: 8080
    replicas: 2
    probes: { ready: { http: /ready, period: 1s } }
    expose: { host: shop.example, tls: letsencrypt }
    env:
      DATABASE_URL:   { store: rows/url }
      REDIS_URL:      { store: sessions/url }
      BROKER_URL:     { store: events/url }
      OBJECTS:        { store: objects/address }
      OBJECTS_KEY:    { store: objects/username }
      OBJECTS_SECRET: { store: objects/password }
    uses:
      - { write:   rows/orders }
      - { cache:   sessions/session, ttl: 1m }
      - { publish: events/order.placed }
      - { store:   objects/invoices }
      - { call:    stock }
  stock:
    image: stock:1.0.0
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
  mail:
    image: mail:1.0.0
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
    env: { BROKER_URL: { store: events/url } }
    uses: [{ consume: events/order.placed }, { send: carrier }]
stores:
  rows:     { engine: postgres, version: "17", size: 1Gi, members: 2 }
  sessions: { engine: redis, size: 1Gi }
  events:   { engine: rabbitmq, version: "4.2", size: 1Gi, members: 3, topics: { order.placed: { retention: 24h } } }
  objects:  { engine: s3, size: 1Gi, members: 3 }
externals:
  carrier: { host: api.carrier.example, profile: { latency: 10ms } }
flows:
  order: { rate: 10/s, within: 30s, steps: [client -> web, web -> rows, web -> events, events -> mail, mail -> carrier] }
  ask:   { rate: 5/s, within: 10s, steps: [client -> web, web -> stock] }
"#;

fn servers() -> Option<()> {
    are_here(&[Server::Postgres, Server::Redis, Server::Rabbitmq, Server::S3])
}

/// Declared edges carry, and of what nobody declares only the gateway closes anything.
fn check(report: &Value) {
    assert_eq!((&report["isolation"], &report["broken"]), (&json!("loopback"), &json!([])), "{report:#}");
    let edges = &report["edges"];
    assert_eq!((&edges["declared"], &edges["carrying"]), (&json!(7), &json!(7)), "{report:#}");
    assert_eq!((&edges["undeclared_from"], &edges["reachable"]), (&json!({ "outside": 6 }), &json!([])), "{report:#}");
    let open = edges["not_enforceable_from"].as_object().expect("it has counts");
    for origin in ["services", "stores", "externals", "foreign-namespaces"] {
        assert!(open.get(origin).and_then(Value::as_u64) > Some(0), "{origin}: {report:#}");
    }
    let sum: u64 = open.values().filter_map(Value::as_u64).sum();
    assert_eq!(edges["not_enforceable"], json!(sum), "{report:#}");
    for flow in report["flows"].as_array().expect("flows are a list") {
        assert_eq!((&flow["lost"], is_driven(flow)), (&json!(0), true), "{flow:#}");
    }
}

#[test]
fn without_network_namespaces_platforms_run_beside_each_other_for_root_and_for_an_ordinary_user() {
    let Some(()) = servers() else { return };
    let _room = room();
    let (own, of_user) = (Folder::with(SHOP), Folder::with(SHOP));
    let arguments = ["--network", "loopback", "--duration", "2s"];
    let mut platforms = vec![Platform::start(own.path(), "shop", None, &arguments)];
    if nobody::owns([of_user.path(), &of_user.path().join("landfall.yaml")]).is_some() {
        let mut program = nobody::command(env!("CARGO_BIN_EXE_landfall"));
        program.env("HOME", of_user.path());
        platforms.push(Platform::start_by(program, of_user.path(), "shop", None, &arguments));
    }
    for platform in &mut platforms {
        check(&platform.reported());
        assert!(platform.said().contains("warning: pods share the network of this machine: no policy"));
    }
    // The next one goes on at the level of the data, and another level is refused.
    let first = platforms.remove(0);
    let down = first.command(&["down"]).status().expect("the program can be started");
    assert!(down.success());
    let again = up(own.path(), &["--once", "--duration", "1s", "--output", "json"]);
    check(&again.report.unwrap_or_else(|| panic!("no report:\n{}", again.said)));
    let refused = up(own.path(), &["--once", "--network", "namespace"]);
    assert_eq!(refused.code, Some(3), "{}", refused.said);
    let hint = "hint: go on with `--network loopback`, or delete it with `landfall down --delete-data`";
    assert!(refused.said.contains(hint), "{}", refused.said);
}
