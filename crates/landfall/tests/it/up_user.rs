//! `landfall up` of somebody who is not root, below `/tmp`, in a folder with a long name, two environments at a time.

use std::fs;

use landfall_standin::Server;
use serde_json::json;

use crate::nobody;
use crate::platform::Platform;
use crate::up::{are_here, room};

const SHOP: &str = r#"
landfall: v1
name: shop
services:
  web:
    image: web:1.0.0
    port: 8080
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
  mail:
    image: mail:1.0.0
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
    env: { BROKER_URL: { store: events/url } }
    uses: [{ consume: events/order.placed }]
stores:
  rows:     { engine: postgres, version: "17", size: 1Gi }
  sessions: { engine: redis, size: 1Gi }
  events:   { engine: rabbitmq, version: "4.2", size: 1Gi, topics: { order.placed: { retention: 24h } } }
  objects:  { engine: s3, size: 1Gi }
flows:
  order: { rate: 10/s, within: 30s, steps: [client -> web, web -> rows, web -> events, events -> mail] }
environments:
  development: { namespace: shop-development }
  staging: { namespace: shop-staging }
"#;

#[test]
fn two_environments_of_an_ordinary_user_run_beside_each_other() {
    let Some(()) = are_here(&[Server::Postgres, Server::Redis, Server::Rabbitmq, Server::S3]) else { return };
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    // The address of a socket has room for 108 bytes (unix(7)).
    let folder = home.path().join("long/".repeat(20));
    fs::create_dir_all(&folder).expect("folders can be made");
    fs::write(folder.join("landfall.yaml"), SHOP).expect("a file can be written");
    let mut all: Vec<_> = folder.ancestors().take_while(|path| path.starts_with(home.path())).collect();
    let file = folder.join("landfall.yaml");
    all.push(&file);
    let Some(()) = nobody::owns(all) else { return };
    let _room = room();
    let start = |environment: &str| {
        let mut program = nobody::command(env!("CARGO_BIN_EXE_landfall"));
        program.env("HOME", home.path());
        Platform::start_by(program, &folder, "shop", Some(environment), &["--duration", "2s"])
    };
    let mut platforms = ["development", "staging"].map(start);
    for platform in &mut platforms {
        let report = platform.reported();
        assert_eq!(report["broken"], json!([]), "{report:#}");
        assert_eq!((&report["edges"]["declared"], &report["edges"]["carrying"]), (&json!(5), &json!(5)), "{report:#}");
        assert_eq!(report["flows"][0]["lost"], 0, "{report:#}");
    }
    let down = platforms[0].command(&["down"]).status().expect("the program can be started");
    assert!(down.success());
    let status = |platform: &Platform| {
        let output = platform.command(&["status"]).output().expect("the program can be started");
        output.status.code()
    };
    assert_eq!((status(&platforms[0]), status(&platforms[1])), (Some(1), Some(0)), "only one was stopped");
}
