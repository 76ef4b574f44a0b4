//! The same on a real Kubernetes, where nothing keeps to weights: the canary has a share of the copies, and a real Prometheus has
//! counted what each pod answered.
//!
//! The pods are only said to run. What they would have answered is played by the endpoints that Kubernetes' own controllers make
//! of them: each request goes to one of the ready ones, and is counted where Prometheus scrapes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use landfall_testing::{
    Applier, Apply, ControlPlane, FakeKubelet, FakeNode, Pieces, Schemas, StartError, require_or_skip,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{PATIENCE, RATE};
use crate::Folder;
use crate::examples::read;
use crate::kubernetes::workloads_become_ready;

/// How often requests are sent, and counted.
const BEAT: Duration = Duration::from_millis(100);

const ARCHITECTURE: &str = "landfall: v1
name: shop
platform:
  regions: { here: { zones: [a, b] } }
  nodes: { count: 2, cpu: 4, memory: 16Gi }
services:
  web:
    image: shop/web:1
    port: 8080
    startup: 5s
    replicas: 3
    resources: { cpu: 50m..200m, memory: 32Mi..128Mi }
    probes: { ready: { http: /ready, period: 1s } }
    rollout: { canary: { steps: [10%, 25%, 50%], judge: { success: 99% }, decide-within: 5m } }
  shop:
    image: shop/shop:1
    port: 8080
    replicas: 1
    resources: { cpu: 50m..200m, memory: 32Mi..128Mi }
    probes: { ready: { http: /ready, period: 1s } }
    uses: [{ call: web, rate: 200/s }]
environments:
  development: { deploy: automatic }
delivery:
  rollback: { automatic: true }
";

/// What the pods have answered so far, by pod, and by image.
#[derive(Default)]
struct Answers {
    by_pod: BTreeMap<String, [u64; 2]>,
    by_image: BTreeMap<String, [u64; 2]>,
    unanswered: u64,
}

impl Answers {
    /// As OpenTelemetry counts requests of an HTTP server, in Prometheus' text format.
    fn text(&self) -> String {
        let mut text = String::from("# TYPE http_server_request_duration_seconds histogram\n");
        for (pod, counts) in &self.by_pod {
            for (status, count) in ["200", "500"].iter().zip(counts) {
                let labels = format!("namespace=\"shop\",pod=\"{pod}\",http_response_status_code=\"{status}\"");
                for bound in ["0.05", "+Inf"] {
                    text +=
                        &format!("http_server_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}\n");
                }
                text += &format!("http_server_request_duration_seconds_sum{{{labels}}} 0\n");
                text += &format!("http_server_request_duration_seconds_count{{{labels}}} {count}\n");
            }
        }
        text
    }
}

/// A control plane with the platform on it, callers, and a Prometheus. They end in this order.
struct World {
    folder: Folder,
    client: Client,
    answers: Arc<Mutex<Answers>>,
    prometheus: Prometheus,
    _tasks: JoinSet<()>,
    _kubelet: FakeKubelet,
    plane: ControlPlane,
}

impl World {
    async fn start() -> Option<Self> {
        let schemas = require_or_skip("the schemas of Kubernetes", Schemas::locate())?;
        let installed = Path::new("/usr/bin/prometheus").exists();
        require_or_skip("prometheus", if installed { Ok(()) } else { Err("it is not in /usr/bin") })?;
        let plane = match ControlPlane::start(Pieces::default()).await {
            Ok(plane) => plane,
            Err(StartError::Missing(missing)) => return require_or_skip("a control plane", Err(missing)),
            Err(error) => panic!("{error}"),
        };
        let client = plane.client().await;
        let nodes = ["a", "b"].map(|zone| FakeNode::new(&format!("node-{zone}"), zone));
        let kubelet = FakeKubelet::start(client.clone(), nodes).await.expect("the nodes register");
        let folder = Folder::with(ARCHITECTURE);
        let architecture = read(folder.path()).architecture(Some("development")).expect("it is an architecture");
        let objects = landfall_render::kubernetes(&architecture).into_values();
        let applier = Applier::prepare(client.clone(), &schemas, &objects).await;
        let applier = applier.unwrap_or_else(|error| panic!("{error:?}"));
        let (namespaces, others): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object["kind"] == "Namespace");
        for object in namespaces.into_iter().chain(others) {
            applier.apply(object, Apply::ForReal).await.unwrap_or_else(|error| panic!("{error:?}"));
        }
        workloads_become_ready(&client, "development").await;

        let answers = Arc::new(Mutex::new(Answers::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(call(client.clone(), Arc::clone(&answers)));
        tasks.spawn(tell(listener, Arc::clone(&answers)));
        let prometheus = Prometheus::start(folder.path(), &address).await;
        Some(Self { folder, client, answers, prometheus, _tasks: tasks, _kubelet: kubelet, plane })
    }

    /// Ships an image; the exit code, the document and what was said.
    async fn ship(&self, image: &str, more: &[&str]) -> (Option<i32>, Value, String) {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(["ship", "--env", "development", "--output", "json", "--image", &format!("web={image}")]);
        command.args(["--prometheus", &self.prometheus.url]).args(more);
        command.arg("--kubeconfig").arg(self.plane.kubeconfig()).current_dir(self.folder.path()).stdin(Stdio::null());
        let output = command.output().await.expect("the program can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{image}: {:?}\n{said}", output.status.code());
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
    }

    fn of(&self, image: &str) -> [u64; 2] {
        let answers = self.answers.lock().expect("no caller panics");
        answers.by_image.get(image).copied().unwrap_or_default()
    }

    /// The images that run and how many copies each has, as Kubernetes says it.
    async fn runs(&self) -> Value {
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), "shop");
        let listed = deployments.list(&ListParams::default()).await.expect("they can be listed");
        let of = |deployment: &Deployment| {
            let spec = deployment.spec.as_ref()?;
            let image = spec.template.spec.as_ref()?.containers.first()?.image.clone();
            Some((deployment.name_any(), json!([image, deployment.status.as_ref()?.ready_replicas])))
        };
        json!(listed.iter().filter_map(of).collect::<BTreeMap<_, _>>())
    }
}

/// A real Prometheus that looks each second.
struct Prometheus {
    process: Child,
    url: String,
}

impl Prometheus {
    async fn start(folder: &Path, target: &str) -> Self {
        let configuration = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
            "scrape_configs": [{ "job_name": "pods", "honor_labels": true, "static_configs": [{ "targets": [target] }] }],
        });
        let file = folder.join("prometheus.yaml");
        std::fs::write(&file, configuration.to_string()).expect("a file can be written");
        let log = std::fs::File::create(folder.join("prometheus.log")).expect("a file can be made");
        // Another program may take the port between its choice and its use; then it is not ready, and says so.
        let free = TcpListener::bind("127.0.0.1:0").await.and_then(|socket| socket.local_addr()).expect("a free port");
        let process = Command::new("/usr/bin/prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address={free}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program can be started");
        let prometheus = Self { process, url: format!("http://{free}") };
        let deadline = Instant::now() + PATIENCE;
        while !answers(&free.to_string()).await {
            let log = || std::fs::read_to_string(folder.join("prometheus.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "prometheus is not ready:\n{}", log());
            tokio::time::sleep(BEAT).await;
        }
        prometheus
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Whether Prometheus has scraped the counters.
async fn answers(address: &str) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!(
            "GET /api/v1/query?query=http_server_request_duration_seconds_count HTTP/1.0\r\nHost: {address}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    ask.await.is_ok_and(|answer| answer.contains("http_response_status_code"))
}

/// Serves the counters.
async fn tell(listener: TcpListener, answers: Arc<Mutex<Answers>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4096];
        // A scrape is one packet; who sends something else gets the same answer.
        let _read = stream.read(&mut request).await;
        let text = answers.lock().expect("no caller panics").text();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            text.len()
        );
        let _may_be_gone = stream.write_all(format!("{head}{text}").as_bytes()).await;
    }
}

/// Sends requests to the ready endpoints of the service in turns.
async fn call(client: Client, answers: Arc<Mutex<Answers>>) {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "shop");
    let of_service = ListParams::default().labels("kubernetes.io/service-name=web");
    let pods = Api::<Pod>::namespaced(client, "shop");
    let mut images: BTreeMap<String, String> = BTreeMap::new();
    let mut ticks = tokio::time::interval(BEAT);
    let (mut turn, mut failing) = (0_usize, 0_u64);
    loop {
        ticks.tick().await;
        let Ok(listed) = slices.list(&of_service).await else { continue };
        let endpoints = listed.iter().flat_map(|slice| &slice.endpoints).flatten();
        let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|it| it.ready == Some(true)));
        let ready: Vec<String> = ready.filter_map(|endpoint| endpoint.target_ref.clone()?.name).collect();
        for pod in ready.iter().filter(|pod| !images.contains_key(*pod)).cloned().collect::<Vec<_>>() {
            let found = pods.get_opt(&pod).await.ok().flatten().and_then(|pod| pod.spec);
            let image = found.and_then(|spec| spec.containers.first()?.image.clone());
            if let Some(image) = image {
                images.insert(pod, image);
            }
        }
        let mut answers = answers.lock().expect("nobody else panics");
        for _ in 0..RATE / 10 {
            turn += 1;
            let pod = (!ready.is_empty()).then(|| &ready[turn % ready.len()]);
            let Some((pod, image)) = pod.and_then(|pod| Some((pod, images.get(pod)?))) else {
                answers.unanswered += 1;
                continue;
            };
            // Every twentieth answer of the fourth version fails.
            failing += u64::from(image == "shop/web:4");
            let place = usize::from(image == "shop/web:4" && failing % 20 == 0);
            answers.by_pod.entry(pod.clone()).or_default()[place] += 1;
            answers.by_image.entry(image.clone()).or_default()[place] += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kubernetes_ships_by_shares_of_copies_and_takes_back_what_is_bad() {
    let Some(world) = World::start().await else { return };

    let (code, plan, _) = world.ship("shop/web:2", &["--plan"]).await;
    assert_eq!(code, Some(0), "{plan:#}");
    let lines = &plan["services"][0]["plan"];
    assert_eq!(
        lines[1], "nothing here keeps to weights, so 10%, 25%, 50% become 25% (1 of 4), 50% (3 of 6)",
        "{plan:#}"
    );

    let (code, release, _) = world.ship("shop/web:4", &[]).await;
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["why"]["reason"], "worse", "{release:#}");
    assert_eq!(world.runs().await, json!({ "shop": ["shop/shop:1", 1], "web": ["shop/web:1", 3] }));
    let ([good, bad], [others, _]) = (world.of("shop/web:4"), world.of("shop/web:1"));
    assert!(bad > 0 && good + bad < others, "{good} and {bad} of {others}: more than its share");

    let (code, release, _) = world.ship("shop/web:never-ready", &[]).await;
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["why"]["reason"], "notReady", "{release:#}");

    let (code, release, _) = world.ship("shop/web:2", &[]).await;
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    assert_eq!(world.runs().await, json!({ "shop": ["shop/shop:1", 1], "web": ["shop/web:2", 3] }));
    assert_eq!(world.of("shop/web:never-ready"), [0, 0]);
    let answers = world.answers.lock().expect("no caller panics");
    assert_eq!(answers.unanswered, 0, "{:?}", answers.by_image);
    assert!(answers.by_image["shop/web:2"][1] + answers.by_image["shop/web:1"][1] == 0, "{:?}", answers.by_image);
}
