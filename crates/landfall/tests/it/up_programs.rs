//! `landfall up` with services that are programs of their own: those of an example, and a small one that knows nothing of
//! Landfall.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use landfall_testing::require_or_skip;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Folder;
use crate::platform::{Platform, copy};
use crate::up::{everything_is_here, list, room};
use crate::up_kills::{NAMESPACE, SERVICES, kill_a_copy_of_each};

/// A program of the workspace that another crate of it makes.
fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_landfall")).with_file_name(name);
    let found = if path.is_file() { Ok(path) } else { Err("cargo build --workspace") };
    require_or_skip(name, found)
}

/// The example with its programs where its file says they are.
fn built(example: &str, programs: &[&str]) -> Option<tempfile::TempDir> {
    let folder = copy(example);
    let bin = folder.path().join("services/bin");
    fs::create_dir_all(&bin).expect("a folder can be made");
    for name in programs {
        symlink(program(name)?, bin.join(name)).expect("a link can be made");
    }
    Some(folder)
}

#[test]
fn balance_alerts_runs_by_its_own_programs_and_loses_nothing_when_they_are_killed() {
    let Some(()) = everything_is_here() else { return };
    let Some(folder) = built("balance-alerts", &["balance-alerts"]) else { return };
    let _room = room();
    let mut platform = Platform::start(folder.path(), "balance-alerts", Some("development"), &["--duration", "3s"]);
    let report = platform.reported();
    assert!(list(&report["programs"]).all(|program| program["runs"] == json!(true)), "{report:#}");
    assert_eq!(list(&report["programs"]).count(), SERVICES.len(), "{report:#}");
    let edges = &report["edges"];
    assert_eq!((&edges["carrying"], &edges["declared"]), (&json!(17), &json!(17)), "{report:#}");
    assert_eq!(edges["reachable"], json!([]), "{report:#}");
    assert!(edges["undeclared"].as_u64() > Some(0), "{report:#}");
    for flow in list(&report["flows"]) {
        assert!(flow["sent"].as_u64() > Some(0), "{flow:#}");
        assert_eq!(flow["lost"], json!(0), "{flow:#}");
    }
    Runtime::new().expect("threads can be started").block_on(async {
        let pods = Api::<Pod>::namespaced(platform.client().await, NAMESPACE);
        kill_a_copy_of_each(&platform, &pods).await;
    });
}

#[test]
fn water_channels_runs_by_its_own_programs_and_its_mocks() {
    let Some(()) = everything_is_here() else { return };
    let Some(folder) = built("water-channels", &["water-channels"]) else { return };
    let _room = room();
    let platform = Platform::start(folder.path(), "water-channels", Some("dev"), &["--duration", "3s", "--once"]);
    let (_, report) = platform.ended();
    let programs: Vec<_> = list(&report["programs"]).filter(|program| program["runs"] == json!(true)).collect();
    // Three in Rust; the mocks are a script in Python.
    assert_eq!(programs.len(), 7, "{report:#}");
    let edges = &report["edges"];
    assert_eq!((&edges["silent"], &edges["connected"]), (&json!([]), &json!([])), "{report:#}");
    assert_eq!(edges["reachable"], json!([]), "{report:#}");
    for flow in list(&report["flows"]) {
        assert!(flow["sent"].as_u64() > Some(0), "{flow:#}");
        assert_eq!(flow["lost"], json!(0), "{flow:#}");
    }
}

/// The program of `web` is a few lines of JavaScript, that of `stock` is missing.
const SHOP: &str = "
landfall: v1
name: shop
services:
  web:
    port: 8080
    expose: { host: shop.example, tls: letsencrypt }
    probes: { ready: { http: /ready, period: 1s } }
    env: { STOCK: { value: 'http://stock.shop.svc' } }
    run: { command: [node, web.mjs] }
    uses: [{ call: stock }]
  stock:
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
    run: { command: [bin/stock], build: make stock }
    uses: [{ send: carrier }]
externals:
  carrier: { host: api.carrier.example, profile: { latency: 5ms } }
flows:
  order: { rate: 10/s, within: 10s, steps: [client -> web, web -> stock, stock -> carrier] }
  look: { rate: 5/s, within: 10s, steps: [client -> web] }
";

/// It passes on what it was told, as it was told.
const WEB: &str = r#"
import { createServer } from "node:http";

createServer(async (request, response) => {
  request.resume();
  const message = request.headers["x-landfall-message"];
  if (message && JSON.parse(message).flow === "order") {
    const headers = { "x-landfall-message": message };
    const answer = await fetch(`${process.env.STOCK}/take`, { method: "POST", headers });
    await answer.text();
    response.statusCode = answer.status;
  }
  response.end("hello\n");
}).listen(8080);

process.on("SIGTERM", () => process.exit(0));
"#;

#[test]
fn a_program_that_knows_nothing_of_landfall_runs_among_stand_ins() {
    let node = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file()));
    let Some(_) = require_or_skip("node", node.ok_or("apt-get install nodejs")) else { return };
    let _room = room();
    let folder = Folder::with(SHOP);
    fs::write(folder.path().join("web.mjs"), WEB).expect("a file can be written");
    let platform = Platform::start(folder.path(), "shop", None, &["--duration", "2s", "--once"]);
    let (_, report) = platform.ended();

    let programs: Vec<_> =
        list(&report["programs"]).map(|program| (program["service"].clone(), program["runs"].clone())).collect();
    assert_eq!(programs, [(json!("stock"), json!(false)), (json!("web"), json!(true))], "{report:#}");
    // Nobody tells what it carries; there is a connection, and what arrives at the other side is counted there.
    assert_eq!(report["edges"]["connected"], json!(["web call stock"]), "{report:#}");
    assert_eq!(report["edges"]["silent"], json!([]), "{report:#}");
    assert_eq!(report["edges"]["reachable"], json!([]), "{report:#}");
    assert_eq!(report["edges"]["undeclared"], json!(2), "tried from inside of the program's pod, too: {report:#}");
    let flows: Vec<_> = list(&report["flows"]).collect();
    let [look, order] = flows[..] else { panic!("{report:#}") };
    assert!(order["sent"].as_u64() > Some(0), "{order:#}");
    assert_eq!((&order["lost"], &order["problem"]), (&json!(0), &Value::Null), "{order:#}");
    // Where it ends in a program that writes down nothing, that is said.
    insta::assert_snapshot!(look["problem"].as_str().unwrap_or_default(), @"whether anything arrives cannot be seen: the program of `web` writes nothing of it to the file that LANDFALL_LEDGER names");
}

#[test]
fn a_program_that_is_missing_is_told_with_what_makes_it() {
    let _room = room();
    let folder = Folder::with(SHOP);
    fs::write(folder.path().join("web.mjs"), WEB).expect("a file can be written");
    let mut platform = Platform::start(folder.path(), "shop", None, &["--duration", "1s"]);
    // One that is told to end before it is up would leave its network behind.
    platform.reported();
    let (said, line) =
        (platform.said(), "`stock` is a stand-in: there is no program `bin/stock`; `make stock` makes it");
    assert!(said.contains(line), "{said}");
}
