//! The canary of a worker: it takes messages from the same queue as the copies beside it, and is judged by what it makes of them. The
//! broker and Prometheus are real, and so are the messages; the worker is a stand-in, which counts them as OpenTelemetry does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use landfall_standin::{Action, EdgeBehaviour, FAULT_VARIABLE, ServiceBehaviour};
use landfall_testing::scenario::Endpoint;
use landfall_testing::{Applier, Apply, Schemas, require_or_skip};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, Platform};
use crate::kubernetes::workloads_become_ready;
use crate::running_engine::POLL;

/// One copy, so that its canary is one of two consumers.
const ARCHITECTURE: &str = "landfall: v1
name: shop
platform:
  regions: { here: { zones: [a, b, c] } }
  nodes: { count: 3, cpu: 4, memory: 16Gi }
services:
  mail:
    kind: worker
    image: shop/mail:1
    port: 8080
    startup: 5s
    replicas: 1
    resources: { cpu: 500m..1000m, memory: 32Mi..128Mi }
    probes: { ready: { http: /ready, period: 1s } }
    rollout: { canary: { steps: [50%], judge: { success: 90% }, decide-within: 3m } }
environments:
  development: { deploy: automatic }
delivery:
  rollback: { automatic: false }
";

/// The variable with the address of the broker.
const BROKER: &str = "BROKER";

/// How often a message is published.
const EVERY_MS: u64 = 25;

/// A stand-in with one edge, which has no probes: it is ready at once.
fn behaviour(service: &str, action: Action) -> String {
    let edge = EdgeBehaviour { name: format!("{service} placed"), action, every_ms: Some(EVERY_MS), optional: false };
    let behaviour = ServiceBehaviour {
        service: service.to_owned(),
        ports: vec![8080],
        ready: Vec::new(),
        probes: vec!["/ready".to_owned()],
        runs_once: false,
        business: Vec::new(),
        edges: vec![edge],
        flows: BTreeMap::new(),
        ledger: None,
        authority: String::new(),
        program: None,
    };
    json!(behaviour).to_string()
}

/// What the images are here: two good versions of the worker, a third one that fails three of ten messages, whoever publishes, the
/// broker, and Prometheus, which is told the pods in a file.
fn images(folder: &Path) -> String {
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).expect("a file can be written");
        file.display().to_string()
    };
    let (url, topic) = (BROKER.to_owned(), "placed".to_owned());
    let takes = Action::MqttSubscribe { url: url.clone(), topic: topic.clone() };
    let worker = write("worker.json", &behaviour("mail", takes));
    let publisher = write("publisher.json", &behaviour("web", Action::MqttPublish { url, topic }));
    let broker = write("mosquitto.conf", "listener 1883\nallow_anonymous true\n");
    let job =
        json!({ "job_name": "pods", "file_sd_configs": [{ "files": [targets(folder)], "refresh_interval": "1s" }] });
    let configuration =
        json!({ "global": { "scrape_interval": "1s", "scrape_timeout": "1s" }, "scrape_configs": [job] });
    write("targets.json", "[]");
    let prometheus = write("prometheus.yaml", &configuration.to_string());
    let standin = |image: &str, file: &str, fault: Option<&str>| {
        let mut environment = json!({ BROKER: "mqtt://broker.tools:1883" });
        if let Some(fault) = fault {
            environment[FAULT_VARIABLE] = json!(fault);
        }
        let program = env!("CARGO_BIN_EXE_landfall");
        json!({ "image": image, "program": program, "args": ["__standin", "service", file], "env": environment })
    };
    let arguments = [
        format!("--config.file={prometheus}"),
        "--storage.tsdb.path=/data".to_owned(),
        "--web.listen-address={{pod_ip}}:9090".to_owned(),
    ];
    let images = [
        standin("shop/mail:1", &worker, None),
        standin("shop/mail:2", &worker, None),
        standin("shop/mail:3", &worker, Some(r#"{"errors": 0.3}"#)),
        standin("publisher", &publisher, None),
        json!({ "image": "broker", "program": "/usr/sbin/mosquitto", "args": ["-c", broker] }),
        json!({ "image": "prometheus", "program": "/usr/bin/prometheus", "args": arguments }),
    ];
    images.iter().map(|image| format!("- {image}\n")).collect()
}

fn targets(folder: &Path) -> PathBuf {
    folder.join("targets.json")
}

/// The broker, whoever publishes, and Prometheus, whose API is behind the gateway; and a policy that lets them to the worker.
fn tools() -> Vec<Value> {
    let metadata = |name: &str, namespace: &str| json!({ "name": name, "namespace": namespace });
    let run = |name: &str, port: u16| {
        let labels = json!({ "app": name });
        let container = json!({ "name": name, "image": name, "ports": [{ "containerPort": port }], "workingDir": "/data",
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
        let pod = json!({ "containers": [container], "volumes": [{ "name": "data", "emptyDir": {} }] });
        [
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(name, "tools"), "spec": {
                "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": pod } } }),
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata(name, "tools"),
                "spec": { "selector": labels, "ports": [{ "port": port }] } }),
        ]
    };
    let backend = json!({ "service": { "name": "prometheus", "port": { "number": 9090 } } });
    let path = json!({ "path": "/api/v1", "pathType": "Prefix", "backend": backend });
    let mut objects = vec![json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "tools" } })];
    objects.extend([run("broker", 1883), run("publisher", 8080), run("prometheus", 9090)].concat());
    objects.extend([
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata("prometheus", "tools"),
            "spec": { "rules": [{ "http": { "paths": [path] } }] } }),
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata("open", "shop"), "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}] } }),
    ]);
    objects
}

/// Tells Prometheus the pods of the worker, until it is dropped.
struct Discovery {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Discovery {
    fn start(platform: &Platform) -> Self {
        let stop = CancellationToken::new();
        let (stopped, folder, kubeconfig) =
            (stop.clone(), platform.folder.path().to_owned(), platform.engine.kubeconfig());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let endpoint = Endpoint::from_kubeconfig(&kubeconfig).await;
                let client = endpoint.expect("the engine writes a kubeconfig").client();
                while !stopped.is_cancelled() {
                    tell(&client, &folder).await;
                    tokio::time::sleep(10 * POLL).await;
                }
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop.cancel();
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

/// Writes down the pods that are there now.
async fn tell(client: &Client, folder: &Path) {
    let list = ListParams::default().labels("app.kubernetes.io/name=mail");
    // While the engine ends, there is nothing to tell.
    let Ok(pods) = Api::<Pod>::namespaced(client.clone(), "shop").list(&list).await else { return };
    let target = |pod: &Pod| {
        let ip = pod.status.as_ref()?.pod_ip.as_ref()?;
        Some(json!({ "targets": [format!("{ip}:8080")], "labels": { "namespace": "shop", "pod": pod.name_any() } }))
    };
    let all: Vec<Value> = pods.iter().filter_map(target).collect();
    let next = folder.join("targets.next");
    fs::write(&next, json!(all).to_string()).expect("a file can be written");
    fs::rename(&next, targets(folder)).expect("it takes the place of the other");
}

impl Platform {
    /// Waits until Prometheus has seen messages that the worker has processed.
    fn is_counted(&self, prometheus: &str) {
        let uri: http::Uri = prometheus.parse().expect("an address is an address");
        self.with_client(async |_| {
            let asking = Client::try_from(kube::Config::new(uri)).expect("a client");
            let deadline = Instant::now() + PATIENCE;
            loop {
                let query = "/api/v1/query?query=sum(messaging_process_duration_seconds_count)";
                let request = http::Request::get(query).body(Vec::new()).expect("it is a request");
                let seen = asking.request::<Value>(request).await.unwrap_or_else(|error| json!(error.to_string()));
                if seen["data"]["result"][0]["value"][1].is_string() {
                    return;
                }
                assert!(Instant::now() < deadline, "Prometheus sees no message: {seen:#}");
                tokio::time::sleep(10 * POLL).await;
            }
        });
    }

    /// The images of the workers, and how many copies each is to have.
    fn workers(&self) -> Value {
        self.with_client(async |client| {
            let listed = Api::<Deployment>::namespaced(client, "shop").list(&ListParams::default()).await;
            let of = |deployment: &Deployment| {
                let spec = deployment.spec.as_ref()?;
                let image = spec.template.spec.as_ref()?.containers.first()?.image.clone();
                Some((deployment.name_any(), json!([image, spec.replicas])))
            };
            json!(listed.expect("they can be listed").iter().filter_map(of).collect::<BTreeMap<_, _>>())
        })
    }
}

#[test]
fn a_worker_is_judged_by_the_messages_that_its_canary_takes_from_the_same_queue() {
    for program in ["/usr/sbin/mosquitto", "/usr/bin/prometheus"] {
        let installed = Path::new(program).exists();
        let Some(()) = require_or_skip(program, if installed { Ok(()) } else { Err("it is not there") }) else {
            return;
        };
    }
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    let Some(platform) = Platform::start_among(ARCHITECTURE, images) else { return };
    platform.with_client(async |client| {
        let objects = tools();
        let applier = Applier::prepare(client.clone(), &schemas, &objects).await;
        let applier = applier.unwrap_or_else(|error| panic!("{error:?}"));
        for object in &objects {
            applier.apply(object, Apply::ForReal).await.unwrap_or_else(|error| panic!("{error:?}"));
        }
        workloads_become_ready(&client, "development").await;
    });
    let _discovery = Discovery::start(&platform);
    let prometheus = format!("http://{}", platform.gateway);
    let ship = |image: &str, more: &[&str]| {
        let image = format!("mail={image}");
        platform.run(&[&["ship", "--image", &image, "--prometheus", &prometheus], more].concat())
    };
    platform.is_counted(&prometheus);

    let (code, plan, _) = ship("shop/mail:2", &["--plan"]);
    let lines = plan["services"][0]["plan"].to_string();
    assert_eq!(code, Some(0), "{plan:#}");
    assert!(
        lines.contains("canary of 1 beside 1 copies, by its share of the consumers, counted by Prometheus"),
        "{lines}"
    );

    // The third fails three of ten messages. Held, it takes no more of them.
    let (code, release, _) = ship("shop/mail:3", &[]);
    assert_eq!((code, &release["state"]), (Some(1), &json!("Held")), "{release:#}");
    assert_eq!(release["why"]["reason"], "worse", "{release:#}");
    assert_eq!(platform.workers(), json!({ "mail": ["shop/mail:1", 1], "mail-canary": ["shop/mail:3", 0] }));
    let (code, release, _) = platform.run(&["rollback"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("RolledBack")), "{release:#}");
    assert_eq!(platform.workers(), json!({ "mail": ["shop/mail:1", 1] }));

    let (code, release, said) = ship("shop/mail:2", &[]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    assert!(said.contains("the canary of `mail` gets 50% of the messages"), "{said}");
    assert_eq!(platform.workers(), json!({ "mail": ["shop/mail:2", 1] }));
}
