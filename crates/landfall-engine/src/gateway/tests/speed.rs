//! Figures for a person who asks for them, beside nginx on the same machine, in turns:
//! `LANDFALL_BENCH=1 cargo test --release -p landfall-engine gateway::tests::speed -- --nocapture`.
//!
//! `nginx` and `wrk` are looked for on the path; without them there are no figures.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::rig::Rig;
use super::{GATEWAY, route, service, world};

const ROUNDS: usize = 5;

fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").expect("stdout is open");
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// An nginx with one worker, which ends with this.
struct Nginx(Child);

impl Nginx {
    fn start(folder: &Path, server: &str) -> Self {
        let config = format!(
            "daemon off; pid nginx.pid; error_log stderr crit; worker_processes 1; events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; \
             scgi_temp_path s; keepalive_requests 1000000; {server} }}"
        );
        std::fs::write(folder.join("nginx.conf"), config).expect("a folder");
        let mut command = Command::new("nginx");
        command.args(["-p", &folder.to_string_lossy(), "-c", "nginx.conf"]).stdin(Stdio::null());
        Self(command.spawn().expect("nginx starts"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master ends its worker.
        let master = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(master, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Requests per second and the 99th percentile, as `wrk` prints them.
fn wrk(address: SocketAddr) -> (f64, String) {
    let output = Command::new("wrk")
        .args(["-t1", "-c32", "-d4s", "--latency", "-H", "Host: shop.example.com", &format!("http://{address}/")])
        .output()
        .expect("wrk runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after =
        |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).unwrap_or("?").trim().to_owned();
    assert!(!text.contains("Non-2xx"), "{text}");
    (after("Requests/sec:").parse().unwrap_or_default(), after("99%"))
}

#[tokio::test(flavor = "multi_thread")]
async fn throughput_beside_nginx() {
    if std::env::var_os("LANDFALL_BENCH").is_none() {
        return;
    }
    for tool in ["nginx", "wrk"] {
        if Command::new(tool).arg("-v").output().is_err() {
            return say(&format!("skipped: `{tool}` is not on the path"));
        }
    }
    let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let (upstream, proxy) = (free_port(), free_port());
    let body = "x".repeat(128);
    let _upstream = Nginx::start(
        folders[0].path(),
        &format!("server {{ listen {upstream}; location / {{ return 200 '{body}'; }} }}"),
    );
    let _proxy = Nginx::start(
        folders[1].path(),
        &format!(
            "upstream u {{ server {upstream}; keepalive 256; }} server {{ listen {proxy}; location / {{ \
             proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host; \
             proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; }} }}"
        ),
    );
    let mut world = world(GATEWAY);
    service(&mut world, "web", &[upstream]);
    route(&mut world, "web", &["shop.example.com"], json!([{ "backendRefs": [{ "name": "web", "port": 80 }] }]));
    let rig = Rig::start(&world, 1);
    let targets = [("directly", upstream), ("nginx", proxy), ("landfall", rig.http)];
    for (_, target) in targets {
        while std::net::TcpStream::connect(target).is_err() {
            tokio::task::yield_now().await;
        }
        wrk(target);
    }
    let mut rates = vec![Vec::new(); targets.len()];
    for round in 1..=ROUNDS {
        for ((name, target), rates) in targets.iter().zip(&mut rates) {
            let (rate, slow) = wrk(*target);
            say(&format!("round {round} {name:<10} {rate:>10.0}/s  p99 {slow}"));
            rates.push(rate);
        }
    }
    for ((name, _), rates) in targets.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        say(&format!("median {name:<10} {:>10.0}/s", rates[ROUNDS / 2]));
    }
    rig.stop().await;
}
