//! The same on a real Kubernetes: its API server, controllers and scheduler, with this machine as its nodes, so that the pods are
//! processes and the requests real. Where nothing keeps to weights the canary has a share of the copies. A real Prometheus, which is
//! a pod as well, has counted what each pod answered.

mod protected;
mod registry;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use landfall_testing::{Applier, Apply, ControlPlane, Pieces, Schemas, require_or_skip};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::registry::{DIGEST, Registry};
use super::clients::Clients;
use super::{PATIENCE, PROGRAM, RATE, catalogue, gateway};
use crate::Folder;
use crate::examples::read;
use crate::kubernetes::workloads_become_ready;
use crate::running_engine::{POLL, RunningEngine};

const ARCHITECTURE: &str = "landfall: v1
name: shop
platform:
  regions: { here: { zones: [a, b, c] } }
  nodes: { count: 3, cpu: 4, memory: 16Gi }
  ingress: { api: ingress }
services:
  web:
    image: shop/web:1
    port: 8080
    startup: 5s
    replicas: 3
    resources: { cpu: 50m..200m, memory: 32Mi..128Mi }
    probes: { ready: { http: /ready, period: 1s } }
    expose: { host: shop.example }
    rollout: { canary: { steps: [10%, 25%, 50%], judge: { success: 99% }, decide-within: 5m } }
flows:
  buy: { rate: 200/s, within: 1s, steps: [client -> web] }
environments:
  development: { deploy: automatic }
delivery:
  rollback: { automatic: true }
";

/// A Prometheus in a namespace of its own, which looks at each pod of `web` each second. Its API is behind the gateway for every
/// host, and a policy beside the rendered ones lets it to the pods.
fn prometheus() -> Vec<Value> {
    let labels = json!({ "app": "prometheus" });
    let probe = json!({ "httpGet": { "path": "/-/ready", "port": 9090 }, "periodSeconds": 1 });
    let container = json!({ "name": "prometheus", "image": "prometheus", "ports": [{ "containerPort": 9090 }], "readinessProbe": probe,
        "workingDir": "/data", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
    let pod = json!({ "containers": [container], "volumes": [{ "name": "data", "emptyDir": {} }] });
    let backend = json!({ "service": { "name": "prometheus", "port": { "number": 9090 } } });
    let path = json!({ "path": "/api/v1", "pathType": "Prefix", "backend": backend });
    let metadata = |name: &str, namespace: &str| json!({ "name": name, "namespace": namespace });
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "monitoring" } }),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("prometheus", "monitoring"), "spec": {
            "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": pod } } }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata("prometheus", "monitoring"),
            "spec": { "selector": labels, "ports": [{ "port": 9090 }] } }),
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata("prometheus", "monitoring"),
            "spec": { "rules": [{ "http": { "paths": [path] } }] } }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata("web-pods", "shop"), "spec": {
            "clusterIP": "None", "selector": { "app.kubernetes.io/name": "web" }, "ports": [{ "port": 8080 }] } }),
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata("scrape", "shop"), "spec": {
            "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{ "from": [{ "namespaceSelector": {
                "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } } }] }] } }),
    ]
}

/// Which pods it looks at, and what it runs as here.
fn prometheus_image(folder: &Path) -> String {
    let pods =
        json!([{ "names": ["web-pods.shop.svc.cluster.local"], "type": "A", "port": 8080, "refresh_interval": "1s" }]);
    let configuration = json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
        "scrape_configs": [{ "job_name": "pods", "honor_labels": true, "dns_sd_configs": pods }],
    });
    let file = folder.join("prometheus.yaml");
    std::fs::write(&file, configuration.to_string()).expect("a file can be written");
    let file = file.display();
    format!(
        "- image: prometheus\n  program: /usr/bin/prometheus\n  args: [\"--config.file={file}\", \"--storage.tsdb.path=/data\", \"--web.listen-address={{{{pod_ip}}}}:9090\"]\n"
    )
}

/// Waits until the gateway leads to `web`: it learns of a kind some time after that is defined.
async fn is_served(gateway: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = async {
            let mut stream = TcpStream::connect(gateway).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = asked.await.unwrap_or_else(|error| error.to_string());
        if answer.starts_with("HTTP/1.1 200") {
            return;
        }
        assert!(Instant::now() < deadline, "the gateway leads nowhere: {answer}");
        tokio::time::sleep(10 * POLL).await;
    }
}

/// A control plane with the platform on it, this machine as its nodes, and clients. They end in this order.
struct World {
    clients: Clients,
    client: Client,
    prometheus: String,
    _nodes: RunningEngine,
    plane: ControlPlane,
    folder: Folder,
}

impl World {
    async fn start(text: &str) -> Option<Self> {
        let schemas = require_or_skip("the schemas of Kubernetes", Schemas::locate())?;
        for program in ["/usr/bin/prometheus", "/usr/bin/python3"] {
            let installed = Path::new(program).exists();
            require_or_skip(program, if installed { Ok(()) } else { Err("it is not there") })?;
        }
        let plane = ControlPlane::start_or_skip(Pieces::default()).await?;
        let client = plane.client().await;
        let folder = Folder::with(text);
        // Pods have users of their own, who must be able to read the programs.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it is our folder");
        let program = folder.path().join("server.py");
        std::fs::write(&program, PROGRAM).expect("a file can be written");
        let images = catalogue(&program) + &prometheus_image(folder.path());
        let nodes = RunningEngine::joined(folder.path(), &images, plane.kubeconfig());

        let architecture = read(folder.path()).architecture(Some("development")).expect("it is an architecture");
        let objects: Vec<Value> =
            prometheus().into_iter().chain(landfall_render::kubernetes(&architecture).into_values()).collect();
        let applier = Applier::prepare(client.clone(), &schemas, &objects).await;
        let applier = applier.unwrap_or_else(|error| panic!("{error:?}"));
        let (namespaces, others): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object["kind"] == "Namespace");
        for object in namespaces.into_iter().chain(others) {
            applier.apply(object, Apply::ForReal).await.unwrap_or_else(|error| panic!("{error:?}"));
        }
        workloads_become_ready(&client, "development").await;

        let gateway = gateway(folder.path());
        is_served(&gateway).await;
        let clients = Clients::start(&gateway, "shop.example", RATE);
        let prometheus = format!("http://{gateway}");
        let world = Self { clients, client, prometheus, _nodes: nodes, plane, folder };
        world.is_counted().await;
        Some(world)
    }

    /// Waits until Prometheus has seen answers of every pod.
    async fn is_counted(&self) {
        let uri: http::Uri = self.prometheus.parse().expect("an address is an address");
        let asking = Client::try_from(kube::Config::new(uri)).expect("a client");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let query = "/api/v1/query?query=count(http_server_request_duration_seconds_count)";
            let request = http::Request::get(query).body(Vec::new()).expect("it is a request");
            let seen = asking.request::<Value>(request).await.unwrap_or_else(|error| json!(error.to_string()));
            if seen["data"]["result"][0]["value"][1] == "3" {
                return;
            }
            assert!(Instant::now() < deadline, "Prometheus does not see three pods: {seen:#}");
            tokio::time::sleep(10 * POLL).await;
        }
    }

    /// Ships an image as it is named; the exit code, the document and what was said.
    async fn ship(&self, image: &str, more: &[&str]) -> (Option<i32>, Value, String) {
        self.ship_by_digest(image, &[&["--allow-tags"], more].concat()).await
    }

    /// The same by the digest that its registry has for it.
    async fn ship_by_digest(&self, image: &str, more: &[&str]) -> (Option<i32>, Value, String) {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(["ship", "--env", "development", "--output", "json", "--image", &format!("web={image}")]);
        command.args(["--prometheus", &self.prometheus]).args(more);
        command.arg("--kubeconfig").arg(self.plane.kubeconfig()).current_dir(self.folder.path()).stdin(Stdio::null());
        let output = command.output().await.expect("the program can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{image}: {:?}\n{said}", output.status.code());
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
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

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kubernetes_ships_by_shares_of_copies_and_takes_back_what_is_bad() {
    let Some(world) = World::start(ARCHITECTURE).await else { return };

    // Releases are over digests: of a tag its registry has one, or there is no release.
    let registry = Registry::start().await;
    let tag = format!("{}/shop/web:2", registry.address);
    let (code, plan, _) = world.ship_by_digest(&tag, &["--plan"]).await;
    assert_eq!(
        (code, &plan["services"][0]["to"]),
        (Some(0), &json!(tag.replace(":2", &format!("@{DIGEST}")))),
        "{plan:#}"
    );
    let (code, _, said) = world.ship_by_digest(&tag.replace("web:2", "web:9"), &[]).await;
    assert_eq!((code, said.contains("has no `9` of `shop/web`")), (Some(1), true), "{said}");

    let (code, plan, _) = world.ship("shop/web:2", &["--plan"]).await;
    assert_eq!(code, Some(0), "{plan:#}");
    let note = "`shop/web:2` has no digest: whoever moves the tag changes what runs";
    assert!(plan["notes"].to_string().contains(note), "{plan:#}");
    let lines = &plan["services"][0]["plan"];
    assert_eq!(
        lines[1], "nothing here keeps to weights, so 10%, 25%, 50% become 25% (1 of 4), 50% (3 of 6)",
        "{plan:#}"
    );

    // Every twentieth answer of the fourth fails.
    let (code, release, _) = world.ship("shop/web:4", &[]).await;
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["why"]["reason"], "worse", "{release:#}");
    assert_eq!(world.runs().await, json!({ "web": ["shop/web:1", 3] }));
    let answers = world.clients.so_far();
    let own = answers.of("4 200") + answers.of("4 500");
    assert!(answers.of("4 500") > 0 && own * 2 < answers.total(), "more than its share: {answers:?}");

    // The third is never ready.
    let (code, release, _) = world.ship("shop/web:3", &[]).await;
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["why"]["reason"], "notReady", "{release:#}");

    let (code, release, _) = world.ship("shop/web:2", &[]).await;
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    assert_eq!(world.runs().await, json!({ "web": ["shop/web:2", 3] }));

    let answers = world.clients.stop();
    println!("{answers:?}");
    let failed = answers.failed(&["4 500"]);
    assert_eq!(failed, BTreeMap::new(), "besides the canary's own, of {} requests", answers.total());
    assert!(answers.of("2 200") > 0 && answers.of("3 200") == 0, "{answers:?}");
}
