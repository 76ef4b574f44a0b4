//! `landfall ship` on an engine with real processes, while clients ask at a fixed rate whatever comes back: a good version, one
//! that never becomes ready, and a canary that fails every twentieth request.
#![expect(clippy::print_stdout, reason = "what a release said, and what the clients got, are for people")]

mod baseline;
mod clients;
mod control_plane;
mod held;
mod kills;
pub(crate) mod notices;
mod recreate;
mod refused;
mod several;
mod shippers;
mod soak;
mod turn;
mod windows;
mod worker;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use landfall_testing::{Schemas, require_or_skip};
use serde_json::{Value, json};

use self::clients::Clients;
use crate::Folder;
use crate::examples::read;
use crate::kubernetes::set_up;
use crate::running_engine::{POLL, RunningEngine};

/// How many requests the clients make in a second.
const RATE: u32 = 200;

/// How long a release may take to get somewhere. Debug builds on a busy machine are slow.
const PATIENCE: Duration = Duration::from_mins(5);

/// A server: its address, its port, and which share of its answers is an error; `never` answers the probe with an error, `slow`
/// takes its time, `leaks` ends after a minute, `queue` has a long queue, and `cold` fails a tenth of its first 400 requests. What it has answered is at `/metrics`, as OpenTelemetry
/// counts it, and how long its queue is.
pub(crate) const PROGRAM: &str = r#"
import asyncio, os, signal, socket, sys
host, port, version, fault = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
count, counts = 0, {200: 0, 500: 0}
def answer(path):
    global count
    if path == b"/ready":
        return 503 if fault == "never" else 200
    if path == b"/metrics":
        return 200
    count += 1
    fails = fault.isdigit() and count % int(fault) == 0 or fault == "cold" and count <= 400 and count % 10 == 0
    status = 500 if fails else 200
    counts[status] += 1
    return status
def metrics():
    name, lines = "http_server_request_duration_seconds", ['# TYPE http_server_request_duration_seconds histogram']
    for status, count in counts.items():
        labels = 'namespace="shop",pod="%s",http_response_status_code="%d"' % (socket.gethostname(), status)
        lines += ['%s_bucket{%s,le="%s"} %d' % (name, labels, bound, count) for bound in ("0.05", "+Inf") if count]
        lines += ['%s_%s{%s} %d' % (name, part, labels, count) for part in ("sum", "count") if count]
    lines += ['# TYPE queue_length gauge']
    lines += ['queue_length{namespace="shop",pod="%s"} %d' % (socket.gethostname(), 40 if fault == "queue" else 2)]
    return "\n".join(lines + [""]).encode()
class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""
    def data_received(self, data):
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            path = head.split(b" ", 2)[1]
            status = answer(path)
            body = metrics() if path == b"/metrics" else version.encode()
            reply = b"HTTP/1.1 %d X\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
            delay = 0.9 if fault == "slow" and path not in (b"/ready", b"/metrics") else 0
            asyncio.get_running_loop().call_later(delay, self.transport.write, reply)
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.get_running_loop().create_server(Server, host, port, backlog=512)
    if fault == "leaks":
        asyncio.get_running_loop().call_later(60, os._exit, 1)
    await stop.wait()
    server.close()
    await asyncio.sleep(0.5)
asyncio.run(main())
"#;

/// The architecture. `rollout` is that of the service `web`.
fn architecture(rollout: &str) -> String {
    format!(
        "landfall: v1
name: shop
platform:
  regions: {{ here: {{ zones: [a, b, c] }} }}
  nodes: {{ count: 3, cpu: 4, memory: 16Gi }}
  ingress: {{ api: gateway }}
services:
  web:
    image: shop/web:1
    port: 8080
    startup: 5s
    replicas: 2
    resources: {{ cpu: 50m..200m, memory: 32Mi..128Mi }}
    probes: {{ ready: {{ http: /ready, period: 1s }} }}
    expose: {{ host: shop.example }}
    rollout: {rollout}
flows:
  buy: {{ rate: 200/s, within: 1s, steps: [client -> web] }}
environments:
  development: {{ deploy: automatic }}
delivery:
  rollback: {{ automatic: true }}
"
    )
}

/// Which program each version is: the first two are good, the third is never ready, every twentieth answer of the fourth fails, the
/// fifth is slow, the sixth leaks, the seventh has a long queue, and the copies of the eighth and ninth are cold at first. Another service, `stock`, has two good ones.
fn catalogue(program: &Path) -> String {
    let program = program.display();
    let entry = |service: &str, version: u32, fault: &str| {
        format!(
            "- image: shop/{service}:{version}\n  program: /usr/bin/python3\n  args: [\"{program}\", \"{{{{pod_ip}}}}\", \"{{{{port}}}}\", \"{version}\", \"{fault}\"]\n"
        )
    };
    let faults = ["none", "none", "never", "20", "slow", "leaks", "queue", "cold", "cold"];
    let web = (1..).zip(faults).map(|(version, fault)| entry("web", version, fault));
    let stock = (1..=2).map(|version| entry("stock", version, "none"));
    format!("images:\n{}", web.chain(stock).collect::<String>())
}

/// A running platform: an engine, and the rendered objects in it.
struct Platform {
    engine: RunningEngine,
    folder: tempfile::TempDir,
    gateway: String,
}

impl Platform {
    fn start(rollout: &str) -> Option<Self> {
        Self::start_with(&architecture(rollout))
    }

    /// The same, with another architecture.
    fn start_with(text: &str) -> Option<Self> {
        Self::start_among(text, |_| String::new())
    }

    /// The same, with more images, which are made in its folder.
    fn start_among(text: &str, more: impl FnOnce(&Path) -> String) -> Option<Self> {
        let schemas = require_or_skip("the schemas of Kubernetes", Schemas::locate())?;
        let python = Path::new("/usr/bin/python3").exists();
        require_or_skip("python3", if python { Ok(()) } else { Err("it is not in /usr/bin") })?;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Pods have users of their own, who must be able to read the program.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it is our folder");
        let program = folder.path().join("server.py");
        std::fs::write(&program, PROGRAM).expect("a file can be written");
        std::fs::write(folder.path().join("landfall.yaml"), text).expect("a file can be written");
        let engine = RunningEngine::start(folder.path(), &(catalogue(&program) + &more(folder.path())), &[]);
        let gateway = gateway(folder.path());
        let platform = Self { engine, folder, gateway };
        tokio::runtime::Runtime::new().expect("threads can be started").block_on(async {
            let client = platform.engine.client().await;
            set_up(&client, &schemas, &read(platform.folder.path()), "development").await;
        });
        Some(platform)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command about releases; its exit code, its document and what it said.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, Value, String) {
        let mut command = self.command(arguments);
        command.args(["--env", "development", "--output", "json", "--kubeconfig"]).arg(self.engine.kubeconfig());
        let output = command.output().expect("the program can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
        println!("{arguments:?}: {:?}\n{said}", output.status.code());
        (output.status.code(), document, said)
    }

    /// Clients at the gateway.
    fn clients(&self) -> Clients {
        Clients::start(&self.gateway, "shop.example", RATE)
    }
}

/// Where the gateway listens, from the engine's log.
fn gateway(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("engine.log")).expect("the engine has a log");
    let told = log.split("gateway: http://").nth(1).and_then(|rest| rest.split(' ').next());
    told.unwrap_or_else(|| panic!("the log does not say where the gateway is:\n{log}")).to_owned()
}

#[test]
fn a_rolling_release_loses_no_request_and_takes_back_what_is_never_ready() {
    let Some(platform) = Platform::start("{ rolling: { max-surge: 1, max-unavailable: 0 } }") else { return };
    let clients = platform.clients();

    let (code, planned, _) = platform.run(&["ship", "--plan", "--image", "web=shop/web:2"]);
    assert_eq!((code, &planned["services"][0]["to"]), (Some(0), &json!("shop/web:2")));
    let (code, releases, _) = platform.run(&["releases"]);
    assert_eq!((code, &releases["releases"]), (Some(0), &json!([])), "a plan writes nothing");

    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:2"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    let (code, _, said) = platform.run(&["ship", "--image", "web=shop/web:2"]);
    assert_eq!((code, said.contains("there is nothing to ship")), (Some(0), true), "{said}");

    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:3"]);
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["why"]["reason"], "notReady", "{release:#}");
    let (code, _, _) = platform.run(&["release", "show", "shop-2"]);
    assert_eq!(code, Some(0));

    // The last that succeeded goes back to the version before it.
    let (code, release, _) = platform.run(&["rollback"]);
    assert_eq!((code, &release["state"], &release["takes_back"]), (Some(0), &json!("Succeeded"), &json!("shop-1")));

    let answers = clients.stop();
    println!("{answers:?}");
    assert_eq!(answers.failed(&[]), std::collections::BTreeMap::new(), "of {} requests", answers.total());
    assert!(answers.of("1 200") > 0 && answers.of("2 200") > 0 && answers.of("3 200") == 0, "{answers:?}");
}

#[test]
fn a_canary_that_fails_is_taken_back_and_a_good_one_goes_on_after_its_shipper_was_killed() {
    let rollout = "{ canary: { steps: [20%, 50%], judge: { success: 99% }, decide-within: 5m } }";
    let Some(platform) = Platform::start(rollout) else { return };
    let clients = platform.clients();

    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:4"]);
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["services"][0]["by"], "canary");
    assert_eq!((&release["why"]["reason"], &release["last_verdict"]["verdict"]), (&json!("worse"), &json!("fail")));
    let answers = clients.so_far();
    println!("{answers:?}");
    let own = answers.of("4 200") + answers.of("4 500");
    assert!(own * 3 < answers.total(), "the canary got more than its share: {answers:?}");

    let mut shipper = platform.command(&["ship", "--image", "web=shop/web:2", "--env", "development", "--kubeconfig"]);
    let mut shipper = shipper.arg(platform.engine.kubeconfig()).spawn().expect("the program can be started");
    let deadline = Instant::now() + PATIENCE;
    while clients.so_far().of("2 200") == 0 {
        assert!(Instant::now() < deadline, "the second canary gets no request: {:?}", clients.so_far());
        std::thread::sleep(POLL);
    }
    shipper.kill().expect("a child can be killed");
    shipper.wait().expect("a child can be waited for");
    let (code, _, said) = platform.run(&["ship", "--image", "web=shop/web:1"]);
    assert_eq!(code, Some(1), "its lock or its release is in the way: {said}");
    let (code, release, _) = platform.run(&["ship", "--watch"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");

    let answers = clients.stop();
    println!("{answers:?}");
    let failed = answers.failed(&["4 500"]);
    assert_eq!(failed, std::collections::BTreeMap::new(), "besides the canary's own, of {} requests", answers.total());
    assert!(answers.of("2 200") > 0, "{answers:?}");
}

#[test]
fn a_cluster_that_nobody_named_is_not_guessed() {
    let folder = Folder::with("landfall: v1\nname: shop\nenvironments: { development: {} }\n");
    insta::assert_snapshot!(folder.run(&["releases", "--env", "development"]), @"
    exit: 2
    --- stderr
    error: which cluster?
    hint: add `--context` or `--kubeconfig`, or run it here first: `landfall up --env development`
    ");
}
