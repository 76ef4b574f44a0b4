//! `landfall up` whole: the architecture of an example runs with real servers, and what its report says holds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use landfall_standin::{Server, find_server};
use landfall_testing::{check_text, require_or_skip};
use serde_json::{Value, json};

use crate::platform::{Platform, copy};
use crate::{Folder, example};

/// What `up` has printed, and how it ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) report: Option<Value>,
    pub(crate) said: String,
}

pub(crate) fn up(folder: &Path, arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .arg("up")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    Ended {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).ok(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The servers that the examples need.
pub(crate) fn everything_is_here() -> Option<()> {
    let stores = [Server::Postgres, Server::Redis, Server::Rabbitmq, Server::Kafka];
    are_here(&stores).and_then(|()| are_here(&[Server::Prometheus, Server::Alertmanager, Server::Modsecurity]))
}

/// Whether a flow of the report had traffic: something was taken, or refused, as the profile of an external allows. Of few
/// messages, a profile with one error in fifty may refuse all.
pub(crate) fn is_driven(flow: &Value) -> bool {
    ["sent", "refused"].iter().any(|count| flow[count].as_u64() > Some(0))
}

/// Whether this machine has all of these servers; a test that needs one that is missing is skipped.
pub(crate) fn are_here(servers: &[Server]) -> Option<()> {
    for server in servers {
        require_or_skip(server.as_str(), find_server(*server).ok_or_else(|| server.remedy()))?;
    }
    Some(())
}

/// How many platforms there is room for. They are many processes each; with more than two at a time each would be late with
/// everything.
static FREE: Mutex<usize> = Mutex::new(2);

static LEFT: Condvar = Condvar::new();

/// Room for one platform, given back when dropped.
pub(crate) struct Room;

/// Waits until there is room for one more platform.
pub(crate) fn room() -> Room {
    let free = FREE.lock().expect("nobody panics while counting");
    let mut free = LEFT.wait_while(free, |free| *free == 0).expect("nobody panics while counting");
    *free -= 1;
    Room
}

impl Drop for Room {
    fn drop(&mut self) {
        *FREE.lock().expect("nobody panics while counting") += 1;
        LEFT.notify_one();
    }
}

/// Runs an environment of an example to its report. What its `not-here.txt` lists cannot be had on one machine, and nothing
/// else; everything that runs carries, arrives and is closed as declared.
fn check(name: &str, environment: &str) {
    let Some(()) = everything_is_here() else { return };
    let (_room, folder) = (room(), copy(name));
    let arguments = ["--env", environment, "--once", "--duration", "3s", "--timeout", "10m", "--output", "json"];
    let ended = up(folder.path(), &arguments);
    let report = ended.report.unwrap_or_else(|| panic!("no report:\n{}", ended.said));
    assert_eq!(report["pods"]["ready"], report["pods"]["total"], "{report:#}");
    assert_eq!(report["edges"]["silent"], json!([]), "{report:#}");
    assert_eq!(report["edges"]["reachable"], json!([]), "{report:#}");
    assert!(report["edges"]["undeclared"].as_u64() > Some(0), "{report:#}");
    assert_eq!(report["edges"]["untried"], json!([]), "{report:#}");
    for flow in list(&report["flows"]).filter(|flow| flow["missing"].is_null()) {
        assert_eq!((&flow["lost"], is_driven(flow)), (&json!(0), true), "{flow:#}");
    }
    let edges = list(&report["edges"]["missing"]).map(|edge| line("edge", &edge["edge"], &edge["because"]));
    let flows = list(&report["flows"]).filter(|flow| !flow["missing"].is_null());
    let flows = flows.map(|flow| line("flow", &flow["name"], &flow["missing"]));
    let notes = list(&report["left_out"]).map(|note| format!("note {}\n", note.as_str().unwrap_or_default()));
    let not_here: String = edges.chain(flows).chain(notes).collect();
    check_text(&example(name).join("not-here.txt"), &not_here);
    let kept = report["broken"] == json!([]);
    assert_eq!(ended.code, Some(i32::from(!kept)), "{}", ended.said);
    // What a busy machine does too late is no defect of the example; what does not hold otherwise is.
    let is_known = |broken: &&Value| {
        let broken = broken.as_str().unwrap_or_default();
        let late = ["it takes longer than declared", ": no answer after "].iter().any(|late| broken.contains(late));
        late || broken.contains(" is not tried: ")
    };
    assert_eq!(list(&report["broken"]).find(|broken| !is_known(broken)), None, "{report:#}");
    shows(name, folder.path());
}

/// Which claims of the example this run speaks of is committed beside it; but for flows that came late, all of them held.
fn shows(name: &str, folder: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .args(["claims", "--output", "json"])
        .current_dir(folder)
        .output()
        .expect("the program can be started");
    let claims: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let mut shown = String::new();
    for claim in list(&claims["claims"]) {
        for measured in list(&claim["measured_here"]) {
            let what = measured["what"].as_str().unwrap_or_default();
            shown += &format!("{} {what}\n", claim["id"].as_str().unwrap_or_default());
            let may_be_late = ["up: flow ", "up: all"].iter().any(|late| what.starts_with(late));
            assert!(may_be_late || measured["held"] == true, "{claim:#}");
        }
    }
    check_text(&example(name).join("shown-here.txt"), &shown);
}

#[test]
fn balance_alerts_runs_as_expected() {
    check("balance-alerts", "development");
}

#[test]
fn attendance_monitoring_runs_as_expected() {
    check("attendance-monitoring", "development");
}

#[test]
fn composerp_runs_as_expected() {
    check("composerp", "staging");
}

#[test]
fn water_channels_runs_as_expected() {
    check("water-channels", "dev");
}

#[test]
fn mindcompute_runs_as_expected() {
    let Some(()) = are_here(&[Server::Mongodb]) else { return };
    check("mindcompute", "development");
}

const SHOP: &str = "
landfall: v1
name: shop
services:
  web:
    port: 8080
    expose: { host: shop.example, tls: letsencrypt }
    probes: { ready: { http: /ready, period: 1s } }
    uses: [{ call: stock }, { send: carrier }]
  stock:
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
externals:
  carrier: { profile: { latency: 5ms }, uses: [{ call: web }] }
flows:
  order: { rate: 20/s, within: 10s, steps: [client -> web, web -> stock, web -> carrier] }
  receipt: { rate: 5/s, within: 10s, steps: [carrier -> web, web -> stock] }
environments:
  here: {}
delivery:
  pipeline:
    runner: github
    stages: [{ name: deploy, steps: [deploy], environment: here }, { name: smoke, steps: [smoke], environment: here }]
";

/// What a command prints as JSON, and its exit code.
pub(crate) fn ask(platform: &Platform, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = platform.command(arguments).args(["--output", "json"]).output().expect("the program can be started");
    let told = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {told}"));
    (output.status.code(), answer)
}

#[test]
fn a_platform_that_is_up_is_asked_and_comes_back_as_its_file_says() {
    let _room = room();
    let folder = Folder::with(SHOP);
    let mut up = Platform::start(folder.path(), "shop", Some("here"), &["--duration", "1s"]);
    up.reported();

    let (code, edges) = ask(&up, &["edges"]);
    let carrying = list(&edges["edges"]).filter(|edge| edge["carried"].as_u64() > Some(0));
    let carrying: Vec<_> = carrying.filter_map(|edge| edge["edge"].as_str()).collect();
    assert_eq!(carrying, ["carrier call web", "web call stock", "web send carrier"], "{edges:#}");
    assert_eq!(code, Some(0));

    let (code, flows) = ask(&up, &["flows", "--duration", "1s"]);
    let whole = |flow: &Value| (flow["name"].as_str().map(ToOwned::to_owned), flow["lost"].as_u64(), is_driven(flow));
    let flows: Vec<_> = list(&flows["flows"]).map(whole).collect();
    assert_eq!(flows, [(Some("order".into()), Some(0), true), (Some("receipt".into()), Some(0), true)]);
    assert_eq!(code, Some(0));

    // What pods use is measured over a while.
    let deadline = Instant::now() + Duration::from_mins(2);
    while list(&ask(&up, &["top"]).1["pods"]).count() != 3 {
        assert!(Instant::now() < deadline, "not all pods are measured");
        std::thread::sleep(Duration::from_millis(500));
    }

    // A trace goes on from pod to pod.
    let trace = |name: &str| {
        let (_, logs) = ask(&up, &["logs", name]);
        let lines = list(&logs["lines"]).filter_map(|line| serde_json::from_str::<Value>(line["text"].as_str()?).ok());
        let passed: Vec<_> =
            lines.map(|line| line["fields"].clone()).filter(|fields| fields["flow"] == "order").collect();
        passed.into_iter().next_back().expect("a message was passed on")
    };
    let stock = trace("stock");
    let (_, web) = ask(&up, &["logs", "web"]);
    let is_parent = |line: &Value| {
        line["text"].as_str().is_some_and(|text| text.contains(stock["trace_id"].as_str().unwrap_or("?")))
    };
    assert!(list(&web["lines"]).any(is_parent), "{stock:#} comes from no message of {web:#}");

    assert!(through_open(&up, "web").contains("\"edges\""), "its stand-in says what its edges have carried");

    // The pipeline's requests come in through the gateway, by the name and the certificate of the host.
    let (code, run) = ask(&up, &["pipeline", "run", "--stage", "smoke"]);
    let said: Vec<_> = list(&run["stages"][0]["steps"][0]["tail"]).filter_map(Value::as_str).collect();
    let [answer] = said[..] else { panic!("{run:#}") };
    let (status, url) = answer.split_once(' ').expect("a status and a URL");
    assert_eq!((code, url), (Some(0), "https://shop.example/"), "{run:#}");
    assert!(status.parse::<u16>().is_ok_and(|status| (200..500).contains(&status)), "{run:#}");

    // The data stays; what is not in the file any more goes.
    assert!(up.interrupt().success(), "its promises held");
    let smaller = SHOP.replace(", { send: carrier }", "").replace(", web -> carrier", "");
    std::fs::write(folder.path().join("landfall.yaml"), smaller).expect("the file can be written");
    let again = self::up(folder.path(), &["--once", "--duration", "1s", "--timeout", "10m", "--output", "json"]);
    assert!(again.said.contains("1 to be removed"), "{}", again.said);
    let report = again.report.unwrap_or_else(|| panic!("no report:\n{}", again.said));
    assert_eq!((&report["edges"]["carrying"], &report["broken"]), (&json!(2), &json!([])), "{report:#}");

    // What has been stopped does not run on.
    insta::assert_snapshot!(folder.run(&["down", "--delete-data"]), @"
    exit: 0
    --- stderr
    here: not up
    here: data deleted
    ");
    assert!(!folder.path().join(".landfall/shop-here").exists());
}

/// A job and a worker among them, and a flow whose messages are large and have a schema.
const READINGS: &str = "
landfall: v1
name: readings
services:
  web:
    port: 8080
    expose: { host: readings.example, tls: letsencrypt }
    probes: { ready: { http: /ready, period: 1s } }
    uses: [{ call: keeper }]
  keeper:
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
  nightly: { kind: scheduled-job, schedule: '0 3 * * *', uses: [{ call: keeper }] }
flows:
  reading:
    rate: 10/s
    within: 10s
    payload: { schema: reading.json, size: 20kB }
    steps: [client -> web, web -> keeper]
  upload: { rate: 2/s, within: 10s, payload: { size: 300kB }, steps: [client -> web, web -> keeper] }
";

const READING: &str = r#"{
  "type": "object",
  "required": ["id", "kind", "value"],
  "properties": {
    "id": { "type": "string", "format": "uuid" },
    "kind": { "enum": ["volume", "energy"] },
    "value": { "type": "number", "minimum": 0, "maximum": 5 },
    "note": { "type": "string" }
  },
  "additionalProperties": false
}"#;

#[test]
fn messages_have_the_declared_form_and_size_and_jobs_get_no_further_than_declared() {
    let _room = room();
    let folder = Folder::with(READINGS);
    std::fs::write(folder.path().join("reading.json"), READING).expect("a file can be written");
    let ended = up(folder.path(), &["--once", "--duration", "2s", "--timeout", "10m", "--output", "json"]);
    let report = ended.report.unwrap_or_else(|| panic!("no report:\n{}", ended.said));
    assert_eq!((&report["broken"], ended.code), (&json!([]), Some(0)), "{report:#}");
    let flows: Vec<_> = list(&report["flows"])
        .map(|flow| (&flow["name"], &flow["schema"], &flow["payload_bytes"], &flow["invalid"], &flow["lost"]))
        .collect();
    let (reading, upload, schema) = (json!("reading"), json!("upload"), json!("reading.json"));
    let (small, large, none) = (json!(20_000), json!(300_000), json!(0));
    assert_eq!(
        flows,
        [(&reading, &schema, &small, &none, &none), (&upload, &Value::Null, &large, &none, &none)],
        "{report:#}"
    );
    // From `web`: nothing, as it calls the only other one. From `keeper`: `web`. From the job: `web`.
    let from = json!({ "services": 1, "jobs": 1, "foreign-namespaces": 2, "outside": 1 });
    assert_eq!((&report["edges"]["undeclared_from"], &report["edges"]["untried"]), (&from, &json!([])), "{report:#}");
}

#[test]
fn a_flow_whose_schema_is_not_there_is_not_tried_and_told_why() {
    let _room = room();
    let folder = Folder::with(READINGS);
    let ended = up(folder.path(), &["--once", "--duration", "1s", "--timeout", "10m", "--output", "json"]);
    let report = ended.report.unwrap_or_else(|| panic!("no report:\n{}", ended.said));
    let missing = list(&report["flows"]).find(|flow| flow["name"] == "reading").map(|flow| &flow["missing"]);
    let missing = missing.and_then(Value::as_str).unwrap_or_default();
    assert!(missing.starts_with("failed to read the schema `reading.json` of its payload: "), "{report:#}");
    assert_eq!(ended.code, Some(1), "{report:#}");
}

/// What a service answers through `landfall open`.
fn through_open(platform: &Platform, service: &str) -> String {
    let mut opened =
        platform.command(&["open", service, "--no-browser"]).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut told = String::new();
    BufReader::new(opened.stderr.take().expect("it is piped")).read_line(&mut told).expect("it is text");
    let address = told.split(' ').next().unwrap_or_default().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{error}: {told}"));
    stream.write_all(b"GET /.landfall/seen HTTP/1.0\r\n\r\n").expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is text");
    opened.kill().expect("a child can be killed");
    opened.wait().expect("a child can be waited for");
    answer
}

#[test]
fn a_store_that_there_is_not_cannot_be_left_out() {
    let folder = Folder::with("landfall: v1\nname: shop\nstores: { ledger: { engine: postgres, version: '17' } }\n");
    insta::assert_snapshot!(folder.run(&["up", "--without", "leger"]), @"
    exit: 2
    --- stderr
    error: there is no store `leger` to be left out
    hint: there are ledger
    ");
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn line(what: &str, name: &Value, because: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{what} {}: {}\n", text(name), text(because))
}

#[test]
fn several_environments_ask_for_one() {
    let folder = Folder::with("landfall: v1\nname: shop\nenvironments: { development: {}, production: {} }\n");
    insta::assert_snapshot!(folder.run(&["up"]), @"
    exit: 2
    --- stderr
    error: which environment?
    hint: add `--env development`; there are development, production
    ");
}

#[test]
fn what_is_not_up_cannot_be_stopped() {
    let folder = Folder::with("landfall: v1\nname: shop\n");
    insta::assert_snapshot!(folder.run(&["down"]), @"
    exit: 0
    --- stderr
    it: not up
    ");
    insta::assert_snapshot!(folder.run(&["status"]), @"
    exit: 1
    --- stderr
    it: not up
    ");
}
