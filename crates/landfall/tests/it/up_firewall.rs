//! A declared firewall stands before the gateway: it refuses attacks, and lets pass what the platform promises to take.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use landfall_standin::{Server, find_server};
use landfall_testing::require_or_skip;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::Folder;
use crate::platform::Platform;
use crate::up::{are_here, ask, list, room};

/// One host that is behind a firewall and has two services, one with a limit, and one that is not.
const SHOP: &str = "
landfall: v1
name: shop
services:
  web:
    port: 8080
    expose: { host: shop.example, tls: letsencrypt, waf: true, rate-limit: 100/s }
    probes: { ready: { http: /ready, period: 1s } }
    uses: [{ call: stock }, { send: carrier }]
  limited:
    port: 8080
    expose: { host: limited.example, waf: true, rate-limit: 30/m }
    probes: { ready: { http: /ready, period: 1s } }
  stock:
    port: 8080
    expose: { host: stock.example, tls: letsencrypt }
    probes: { ready: { http: /ready, period: 1s } }
externals:
  carrier: { profile: { latency: 5ms }, uses: [{ call: web }] }
flows:
  order: { rate: 20/s, within: 10s, payload: { schema: order.json, size: 4kB }, steps: [client -> web, web -> stock, web -> carrier] }
  receipt: { rate: 5/s, within: 10s, steps: [carrier -> web, web -> stock] }
  upload: { rate: 2/s, within: 10s, payload: { size: 500kB }, steps: [client -> web] }
environments:
  development: {}
claims:
  - { id: A1, says: A firewall looks at every request, shown-by: [up: waf] }
  - { id: A2, says: The way in is by TLS and limited, shown-by: [up: route web] }
";

const ORDER: &str = r#"{
  "type": "object",
  "required": ["id", "mail", "placed", "lines"],
  "properties": {
    "id": { "type": "string", "format": "uuid" },
    "mail": { "type": "string", "format": "email" },
    "placed": { "type": "string", "format": "date-time" },
    "lines": { "type": "array", "minItems": 2, "items": { "type": "object", "properties": { "note": { "type": "string" } } } }
  }
}"#;

fn shop() -> Folder {
    let folder = Folder::with(SHOP);
    std::fs::write(folder.path().join("order.json"), ORDER).expect("a file can be written");
    folder
}

#[test]
fn attacks_are_refused_before_the_gateway_and_all_else_passes() {
    let Some(()) = are_here(&[Server::Modsecurity]) else { return };
    let (_room, folder) = (room(), shop());
    let mut platform = Platform::start(folder.path(), "shop", Some("development"), &["--duration", "2s"]);
    let report = platform.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    assert_eq!(report["left_out"], json!([]), "{report:#}");
    let firewall = &report["firewall"];
    let found = find_server(Server::Modsecurity).expect("it was just there");
    assert_eq!(firewall["by"], json!(found.version));
    let hosts: Vec<_> = list(&firewall["hosts"]).map(|host| host["host"].as_str().unwrap_or_default()).collect();
    assert_eq!(hosts, ["limited.example", "shop.example"], "{firewall:#}");
    for host in list(&firewall["hosts"]) {
        let attacks: Vec<_> = list(&host["attacks"]).map(|attack| (&attack["answer"], &attack["refused"])).collect();
        assert_eq!(attacks, [(&json!(403), &json!(true)); 6], "{host:#}");
        let ordinary: Vec<_> = list(&host["ordinary"]).map(|one| (&one["answer"], &one["refused"])).collect();
        assert_eq!(ordinary, [(&json!(200), &json!(false))], "{host:#}");
    }
    // What the flows bring passes, and so do limits and the way in by TLS alone.
    for flow in list(&report["flows"]) {
        assert_eq!((&flow["refused"], &flow["lost"]), (&json!(0), &json!(0)), "{flow:#}");
    }
    let limits: Vec<_> = list(&report["routes"]).map(|route| route["limit"]["refused_after"].is_number()).collect();
    assert_eq!(limits, [true, false, true], "limited, stock and web: {report:#}");
    let (code, claims) = ask(&platform, &["claims"]);
    let held: Vec<_> = list(&claims["claims"]).map(|claim| claim["measured_here"][0]["held"].clone()).collect();
    assert_eq!((code, held), (Some(0), vec![json!(true); 2]), "{claims:#}");

    // The gateway still knows one client from another.
    let address: SocketAddr = firewall["http"].as_str().and_then(|text| text.parse().ok()).expect("it is an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("threads can be started");
    let [often, first] = runtime.block_on(async {
        let mut often = 200;
        for _ in 0..40 {
            often = status(address, [127, 0, 0, 1]).await;
            if often == 429 {
                break;
            }
        }
        [often, status(address, [127, 0, 0, 9]).await]
    });
    assert_eq!((often, first), (429, 200), "one client has to wait, and another one has not");

    let https = firewall["https"].as_str().expect("it is an address");
    let told = told_by_open(&platform, "web");
    assert_eq!(told, format!("note: it goes past the firewall; users come to `shop.example` by {https}\n"));

    // Clients find it again.
    assert!(platform.interrupt().success(), "its promises held");
    let (status, again) =
        Platform::start(folder.path(), "shop", Some("development"), &["--duration", "1s", "--once"]).ended();
    assert!(status.success(), "{again:#}");
    assert_eq!(again["firewall"]["https"], json!(https));
}

/// The status of the answer to a client with this address.
async fn status(server: SocketAddr, client: [u8; 4]) -> u16 {
    let asked = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((client, 0)))?;
        let mut stream = socket.connect(server).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: limited.example\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), asked).await.expect("it answers");
    let answer = answer.expect("it takes connections");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer}"))
}

/// The second line that `landfall open` says.
fn told_by_open(platform: &Platform, service: &str) -> String {
    let mut opened =
        platform.command(&["open", service, "--no-browser"]).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(opened.stderr.take().expect("it is piped"));
    let mut told = String::new();
    for _ in 0..2 {
        told.clear();
        said.read_line(&mut told).expect("it is text");
    }
    opened.kill().expect("a child can be killed");
    opened.wait().expect("a child can be waited for");
    told
}

/// Where Debian's package has it.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_http_modsecurity_module.so";

/// The program on a machine without the module, which nothing is then that it sees: it has mounts of its own, and no tools.
fn without_firewall(folder: &Path) -> Option<Command> {
    let mounts = Command::new("unshare").args(["--mount", "true"]).output().map_err(|error| error.to_string());
    let mounts = mounts.and_then(|output| output.status.success().then_some(()).ok_or("it may not".to_owned()));
    require_or_skip("unshare", mounts)?;
    let script = r#"if [ -e "$0" ]; then mount --bind /dev/null "$0"; fi && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, MODULE, env!("CARGO_BIN_EXE_landfall")]);
    command.env("LANDFALL_TOOLS", folder.join("tools"));
    Some(command)
}

#[test]
fn without_a_firewall_the_platform_runs_and_says_what_is_missing() {
    let (_room, folder) = (room(), shop());
    let Some(program) = without_firewall(folder.path()) else { return };
    let (_, report) =
        Platform::start_by(program, folder.path(), "shop", Some("development"), &["--duration", "1s", "--once"])
            .ended();
    let missing = "no nginx with ModSecurity and its core rules on this machine: the firewall in front of `limited`, `web` is not enforced, \
                   and the gateway lets every request through; try: apt-get install nginx libnginx-mod-http-modsecurity modsecurity-crs";
    assert_eq!(report["left_out"], json!([missing]), "{report:#}");
    assert_eq!((&report["firewall"], &report["broken"]), (&Value::Null, &json!([])), "{report:#}");
    let said = |mut command: Command| {
        let output = command.current_dir(folder.path()).output().expect("the program can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut claims = Command::new(env!("CARGO_BIN_EXE_landfall"));
    claims.args(["claims", "--output", "json"]);
    let claims: Value = serde_json::from_str(&said(claims)).expect("it is JSON");
    assert_eq!(claims["claims"][0]["measured_here"], json!([]), "{claims:#}");

    let mut doctor = without_firewall(folder.path()).expect("it was just possible");
    doctor.arg("doctor");
    let said = said(doctor);
    let line = "missing    modsecurity: apt-get install nginx libnginx-mod-http-modsecurity modsecurity-crs; until then: the gateway lets every request \
                through, and `up` says so";
    assert!(said.lines().any(|own| own == line), "{said}");
}
