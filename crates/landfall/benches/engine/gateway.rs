//! What a request costs on its way to a pod: through the gateway beside nginx, and to the address of a Service beside that
//! of its pod.
//!
//! The same server stands behind both proxies: an nginx that answers every request at once, in a pod for the gateway, beside
//! its proxy for nginx, which cannot enter the pods' network. `wrk` asks with the same number of connections, one way after
//! the other in each round, so that a busy moment of the machine hits all of them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::measure;
use crate::side::{EngineOptions, Side};

/// How often each way is taken.
const ROUNDS: usize = 5;

/// How long one way is measured, in seconds.
const SECONDS: u32 = 4;

/// How many connections ask at once.
const CONNECTIONS: u32 = 32;

/// The ways, in the order of the table; each of the last two of a group is compared with the one before.
const NGINX: &str = "nginx as a proxy";
const GATEWAY: &str = "the gateway";
const POD: &str = "from pod to pod";
const SERVICE: &str = "from pod to Service";

/// What `wrk` measured.
#[derive(Clone, Copy)]
struct Load {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures and prints, if the programs for it are there.
pub(crate) async fn run() {
    let Some((nginx, wrk)) = program("nginx").zip(program("wrk")) else {
        eprintln!("gateway and services: left out, as nginx and wrk are not both installed");
        return;
    };
    let folder = TempDir::with_prefix("landfall-bench-gateway-").expect("there is room for a folder");
    let server = Nginx::configure(folder.path(), "pod", "0.0.0.0:8080", None);
    let images = format!(
        "- {{ image: server, program: {}, args: [-p, {prefix}, -c, {file}, -e, stderr] }}\n- {{ image: wrk, program: {} }}\n",
        nginx.display(),
        wrk.display(),
        prefix = folder.path().display(),
        file = server.display(),
    );
    let side = Side::engine(EngineOptions::with_images(images)).await;
    let client = side.client().await;
    measure::wait_for_default_account(&client).await;
    measure::wait_for_nodes(&client, 3).await;
    let (pod, service) = serve(&client).await;

    let upstream = Nginx::start(&nginx, folder.path(), "upstream", None);
    let proxy = Nginx::start(&nginx, folder.path(), "proxy", Some(upstream.address));
    let gateway = side.gateway();
    wait_for_route(gateway).await;

    let mut loads: BTreeMap<&str, Vec<Load>> = BTreeMap::new();
    for round in 1..=ROUNDS {
        eprintln!("gateway and services: round {round} of {ROUNDS}");
        let mut note = |way, load| loads.entry(way).or_default().push(load);
        note(NGINX, outside(&wrk, proxy.address));
        note(GATEWAY, outside(&wrk, gateway));
        note(POD, inside(&client, &format!("http://{pod}:8080/")).await);
        note(SERVICE, inside(&client, &format!("http://{service}/")).await);
    }
    drop((upstream, proxy));
    side.stop().await;
    print(&loads);
}

fn print(loads: &BTreeMap<&str, Vec<Load>>) {
    println!("\n{:33} {:>12} {:>10} {:>10} {:>8}  budget", "", "requests", "p50", "p99", "of it");
    for (way, beside, budget) in
        [(NGINX, None, ""), (GATEWAY, Some(NGINX), "80 %, p99 no worse"), (POD, None, ""), (SERVICE, Some(POD), "")]
    {
        let of = |way: &str, figure: fn(&Load) -> f64| crate::median(Some(&loads[way].iter().map(figure).collect()));
        let [per_second, p50, p99] =
            [|load: &Load| load.per_second, |load: &Load| load.p50_ms, |load: &Load| load.p99_ms]
                .map(|figure| of(way, figure).unwrap_or_default());
        let share =
            beside.and_then(|beside| of(beside, |load| load.per_second)).map(|other| per_second / other * 100.0);
        let share = share.map_or_else(String::new, |share| format!("{share:.0} %"));
        println!("{way:33} {:>12} {p50:>7.2} ms {p99:>7.2} ms {share:>8}  {budget}", format!("{per_second:.0} /s"));
    }
    println!("\nmedians of {ROUNDS} rounds of {SECONDS} s with {CONNECTIONS} connections, one way after the other");
}

/// A pod that answers, a Service and an Ingress before it: the addresses of the first two.
async fn serve(client: &Client) -> (String, String) {
    let labels = json!({ "app": "server" });
    let pod = json!({
        "metadata": { "name": "server", "labels": labels },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": "server", "ports": [{ "containerPort": 8080 }],
            "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
        }] },
    });
    let service = json!({
        "metadata": { "name": "server" },
        "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    let ingress = json!({
        "metadata": { "name": "server" },
        "spec": { "defaultBackend": { "service": { "name": "server", "port": { "number": 80 } } } },
    });
    let service: Service = create(client, service).await;
    create::<k8s_openapi::api::networking::v1::Ingress>(client, ingress).await;
    create::<Pod>(client, pod).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    measure::until(async || measure::is_ready(&pods.get("server").await.expect("it was created"))).await;
    let pod = pods.get("server").await.expect("it was created");
    let address = pod.status.and_then(|status| status.pod_ip).expect("a pod that is ready has an address");
    let service = service.spec.and_then(|spec| spec.cluster_ip).expect("a Service gets an address");
    (address, service)
}

async fn create<K>(client: &Client, object: Value) -> K
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::Serialize
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::default_namespaced(client.clone());
    let object = serde_json::from_value(object).expect("it is an object of its kind");
    api.create(&PostParams::default(), &object).await.expect("the server takes a write")
}

/// From this machine.
fn outside(wrk: &Path, address: SocketAddr) -> Load {
    let output = Command::new(wrk)
        .args(arguments(&format!("http://{address}/")))
        .stdin(Stdio::null())
        .output()
        .expect("wrk was found");
    Load::read(&String::from_utf8_lossy(&output.stdout))
}

/// From a pod.
async fn inside(client: &Client, url: &str) -> Load {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let container = json!({ "name": "main", "image": "wrk", "args": arguments(url) });
    let spec = json!({ "restartPolicy": "Never", "containers": [container] });
    create::<Pod>(client, json!({ "metadata": { "name": "wrk" }, "spec": spec })).await;
    let phase = async || pods.get("wrk").await.expect("it was created").status.and_then(|status| status.phase);
    measure::until(async || phase().await.is_some_and(|phase| phase == "Succeeded")).await;
    let text = pods.logs("wrk", &LogParams::default()).await.expect("a pod that ran has a log");
    pods.delete("wrk", &DeleteParams::default()).await.expect("a pod can be deleted");
    measure::until(async || pods.get_opt("wrk").await.expect("the server answers").is_none()).await;
    Load::read(&text)
}

fn arguments(url: &str) -> [String; 5] {
    ["-t1".to_owned(), format!("-c{CONNECTIONS}"), format!("-d{SECONDS}s"), "--latency".to_owned(), url.to_owned()]
}

impl Load {
    /// What `wrk --latency` prints. Answers that are no success would be fast, and are a failure of the bench.
    fn read(text: &str) -> Self {
        assert!(!text.contains("Non-2xx"), "the server answers otherwise:\n{text}");
        let after = |label: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
            line.unwrap_or_else(|| panic!("wrk says nothing of {label}:\n{text}")).trim().to_owned()
        };
        let latency = |label| milliseconds(&after(label)).expect("a time with its unit");
        let per_second = after("Requests/sec:").parse().expect("a number");
        Self { per_second, p50_ms: latency("50%"), p99_ms: latency("99%") }
    }
}

/// `1.52ms`, `850.00us` or `1.02s`.
fn milliseconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(number) = text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok()) {
            return Some(number * factor);
        }
    }
    None
}

/// The route is there when a request is answered with success.
async fn wait_for_route(gateway: SocketAddr) {
    use std::io::{Read as _, Write as _};
    measure::until(async || {
        let asked = TcpStream::connect(gateway).and_then(|mut stream| {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        asked.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    })
    .await;
}

/// An nginx of ours on a free port, which ends with this.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn start(program: &Path, folder: &Path, name: &str, behind: Option<SocketAddr>) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("there is a free port");
        let file = Self::configure(folder, name, &address.to_string(), behind);
        let child = Command::new(program)
            .args(["-e", "stderr", "-p"])
            .arg(folder)
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx was found");
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "nginx does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, address }
    }

    /// Passes requests on to a server, or answers them itself.
    fn configure(folder: &Path, name: &str, listen: &str, behind: Option<SocketAddr>) -> PathBuf {
        let location = match behind {
            Some(_) => "proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection '';",
            None => "return 200 'ok';",
        };
        let behind = behind.map(|server| format!("upstream behind {{ server {server}; keepalive 256; }}"));
        let text = format!(
            "worker_processes auto; daemon off; error_log stderr; pid {folder}/{name}.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
  {behind}
  server {{ listen {listen}; location / {{ {location} }} }}
}}
",
            folder = folder.display(),
            behind = behind.unwrap_or_default(),
        );
        let file = folder.join(format!("{name}.conf"));
        fs::write(&file, text).expect("there is room for a file");
        file
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, it would leave its workers behind.
        let id = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A program of this machine; root's programs are not on everybody's path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
