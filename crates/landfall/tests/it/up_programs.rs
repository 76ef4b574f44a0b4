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
use crate::up::{ask, everything_is_here, is_driven, list, room};
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
        assert!(is_driven(flow), "{flow:#}");
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
        assert!(is_driven(flow), "{flow:#}");
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
}).listen(Number(process.argv[2] ?? 8080));

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
    let from = json!({ "services": 2, "externals": 2, "foreign-namespaces": 2, "outside": 1 });
    assert_eq!(report["edges"]["undeclared_from"], from, "tried from inside of the program's pod, too: {report:#}");
    assert_eq!((&report["edges"]["undeclared"], &report["edges"]["untried"]), (&json!(7), &json!([])), "{report:#}");
    let flows: Vec<_> = list(&report["flows"]).collect();
    let [look, order] = flows[..] else { panic!("{report:#}") };
    assert!(order["sent"].as_u64() > Some(0), "{order:#}");
    assert_eq!((&order["lost"], &order["problem"]), (&json!(0), &Value::Null), "{order:#}");
    // Where it ends in a program that writes down nothing, that is said.
    insta::assert_snapshot!(look["problem"].as_str().unwrap_or_default(), @"whether anything arrives cannot be seen: the program of `web` writes nothing of it to the file that LANDFALL_LEDGER names");
}

/// The program of `web` is named by its image alone, and told where to listen; nothing has the image of the last entry.
const IMAGES: &str = "
images:
- image: acme/web:1.*
  program: node
  args: [web.mjs, '{{port:http}}']
  env: { STOCK: 'http://stock.{{namespace}}.svc' }
- image: acme/wbe
  program: node
";

#[test]
fn a_service_is_the_program_that_a_catalogue_of_images_names() {
    let node = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file()));
    let Some(_) = require_or_skip("node", node.ok_or("apt-get install nodejs")) else { return };
    let _room = room();
    let shop = SHOP.replace("run: { command: [node, web.mjs] }", "image: acme/web:1.4.2");
    let shop = shop.replace("    env: { STOCK: { value: 'http://stock.shop.svc' } }\n", "");
    let folder = Folder::with(&shop);
    fs::write(folder.path().join("web.mjs"), WEB).expect("a file can be written");
    fs::write(folder.path().join("images.yaml"), IMAGES).expect("a file can be written");
    let mut platform = Platform::start(folder.path(), "shop", None, &["--duration", "2s", "--images", "images.yaml"]);
    let report = platform.reported();
    let programs: Vec<_> =
        list(&report["programs"]).map(|program| (program["service"].clone(), program["runs"].clone())).collect();
    assert_eq!(programs, [(json!("stock"), json!(false)), (json!("web"), json!(true))], "{report:#}");
    let edges = &report["edges"];
    assert_eq!((&edges["connected"], &edges["silent"]), (&json!(["web call stock"]), &json!([])), "{report:#}");
    let order = list(&report["flows"]).find(|flow| flow["name"] == "order").expect("it was tried");
    assert!(order["sent"].as_u64() > Some(0), "{order:#}");
    assert_eq!((&order["lost"], &order["problem"]), (&json!(0), &Value::Null), "{order:#}");
    let idle =
        "`acme/wbe` of `--images` is no image of a service, or of a pod of `objects`, that no entry before it fits";
    assert!(list(&report["left_out"]).any(|note| note == idle), "{report:#}");
    // Commands that come later know of it, too.
    let (_, edges) = ask(&platform, &["edges"]);
    let connected: Vec<_> = list(&edges["edges"]).filter(|edge| edge["connected"] == true).collect();
    assert_eq!(connected.len(), 1, "{edges:#}");
}

#[test]
fn a_catalogue_of_images_that_is_wrong_is_told_with_the_place() {
    let folder = Folder::with(SHOP);
    fs::write(folder.path().join("images.yaml"), IMAGES.replace("program: node", "progam: node"))
        .expect("a file can be written");
    insta::assert_snapshot!(folder.run(&["up", "--images", "images.yaml"]), @"
    exit: 2
    --- stderr
    error[wrong-value]: the catalogue of images `images.yaml` is not understood: unknown field `progam`, expected one of image, program, args, env, working-dir, ignore-command, stop-signal, files, writable, metrics
     --> images.yaml:4:3
      |
    4 |   progam: node
      |   ^^^^^^
      |
    help: write `images: [{ image: acme/web, program: /path/to/web }]`; `docs/up.md` has all keys
    ");
}

#[test]
fn a_program_that_does_not_send_what_its_flow_declares_is_told() {
    let node = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file()));
    let Some(_) = require_or_skip("node", node.ok_or("apt-get install nodejs")) else { return };
    let _room = room();
    let steps = "steps: [client -> web, web -> stock, stock -> carrier]";
    let folder = Folder::with(&SHOP.replace(steps, &format!("payload: {{ schema: order.json }}, {steps}")));
    fs::write(folder.path().join("web.mjs"), WEB).expect("a file can be written");
    fs::write(folder.path().join("order.json"), r#"{ "type": "object" }"#).expect("a file can be written");
    let platform = Platform::start(folder.path(), "shop", None, &["--duration", "2s", "--once"]);
    let (_, report) = platform.ended();
    let order = list(&report["flows"]).find(|flow| flow["name"] == "order").expect("it was tried");
    assert_eq!((&order["schema"], &order["sent"]), (&json!("order.json"), &json!(0)), "{order:#}");
    assert!(order["invalid"].as_u64() > Some(0), "{order:#}");
    // The program passes on the header and no body.
    let problem = order["problem"].as_str().unwrap_or_default();
    let told = "were not as `order.json` says; the first at `stock`: the request has no payload";
    assert!(problem.ends_with(told), "{order:#}");
}

/// Two jobs: one whose second attempt makes the first good, and one that fails for good.
/// The first knows its attempts apart by a folder in memory that pods share with the machine.
fn jobs(folder: &str) -> String {
    format!(
        "
landfall: v1
name: office
services:
  shaky:
    kind: scheduled-job
    schedule: {{ cron: '0 0 1 1 *', deadline: 1h, retries: 2 }}
    run: {{ command: [sh, -c, 'mkdir {folder} && exit 1; exit 0'] }}
  lost:
    kind: scheduled-job
    schedule: {{ cron: '0 0 1 1 *', deadline: 1h, retries: 0 }}
    run: {{ command: [sh, -c, exit 3] }}
"
    )
}

#[test]
fn a_job_that_fails_for_good_breaks_a_promise_and_a_failed_attempt_does_not() {
    let _room = room();
    let memory = tempfile::tempdir_in("/dev/shm").expect("every Linux has it");
    let folder = Folder::with(&jobs(&memory.path().join("tried").display().to_string()));
    let platform = Platform::start(folder.path(), "office", None, &["--duration", "1s", "--once"]);
    let (status, report) = platform.ended();
    let jobs: Vec<_> = list(&report["jobs"])
        .map(|job| (job["name"].as_str(), job["runs"].as_u64(), job["failed"].as_u64(), job["last"].as_str()))
        .collect();
    let expected = [("lost", 1, "failed"), ("shaky", 0, "succeeded")];
    assert_eq!(
        jobs,
        expected.map(|(name, failed, last)| (Some(name), Some(1), Some(failed), Some(last))),
        "{report:#}"
    );
    assert!(memory.path().join("tried").is_dir(), "its first attempt failed");
    let broken: Vec<_> = list(&report["broken"]).filter_map(Value::as_str).collect();
    let [line] = broken[..] else { panic!("{report:#}") };
    assert!(line.starts_with("job `lost`: 1 of 1 runs failed; the last of them, `lost-"), "{line}");
    assert!(line.ends_with("Job has reached the specified backoff limit"), "{line}");
    assert_eq!(status.code(), Some(1));
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
