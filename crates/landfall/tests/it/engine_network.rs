//! The network of the engine, seen from inside the pods: names, service addresses and policies, with the real `kubectl`.

mod away;
mod egress;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use landfall_testing::{Tool, require_or_skip};

use crate::running_engine::{POLL, RunningEngine};

/// A server that says who it is, and a client that waits to be told whom to ask.
const CATALOGUE: &str = r#"
images:
- image: server
  program: python3
  args: [-m, http.server, "{{port}}", --bind, "{{pod_ip}}"]
- image: client
  program: sleep
  args: [infinity]
"#;

const OBJECTS: &str = r"
apiVersion: v1
kind: Pod
metadata: { name: server, labels: { app: server } }
spec:
  containers:
  - name: server
    image: server
    ports: [{ name: http, containerPort: 8080 }]
    readinessProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: server }
spec: { type: NodePort, selector: { app: server }, ports: [{ name: http, port: 80, targetPort: http }] }
---
apiVersion: v1
kind: Pod
metadata: { name: friend, labels: { app: friend } }
spec: { containers: [{ name: client, image: client }] }
---
apiVersion: v1
kind: Pod
metadata: { name: stranger, labels: { app: stranger } }
spec: { containers: [{ name: client, image: client }] }
";

const ONLY_FRIENDS: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-friends }
spec:
  podSelector: { matchLabels: { app: server } }
  policyTypes: [Ingress]
  ingress:
  - from: [{ podSelector: { matchLabels: { app: friend } } }]
    ports: [{ port: http }]
";

/// Another server, and names that lead to pods rather than to an address of their own, and to another name.
const NAMES: &str = r"
apiVersion: v1
kind: Service
metadata: { name: each }
spec: { clusterIP: None, selector: { app: server }, ports: [{ name: http, port: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: other }
spec: { type: ExternalName, externalName: server.default.svc.cluster.local }
---
apiVersion: v1
kind: Service
metadata: { name: circle }
spec: { type: ExternalName, externalName: circle.default.svc.cluster.local }
---
apiVersion: v1
kind: Pod
metadata: { name: second, labels: { app: server } }
spec:
  hostname: one
  subdomain: each
  containers:
  - name: server
    image: server
    ports: [{ name: http, containerPort: 8080 }]
    readinessProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
";

/// Friends reach nobody, unless there are `RULES`.
const FRIENDS_STAY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: friends-stay }
spec:
  podSelector: { matchLabels: { app: friend } }
  policyTypes: [Egress]
  egress: [RULES]
";

/// How long a change may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

struct Cluster {
    engine: RunningEngine,
    kubectl: std::path::PathBuf,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn start(level: &str) -> Option<Self> {
        Self::start_with(&["--network", level])
    }

    fn start_with(options: &[&str]) -> Option<Self> {
        let kubectl = require_or_skip("kubectl", Tool::Kubectl.locate())?;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let engine = RunningEngine::start(folder.path(), CATALOGUE, options);
        let cluster = Self { engine, kubectl, folder };
        cluster.apply(OBJECTS);
        let ready = cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);
        assert!(ready.status.success(), "{ready:?}");
        Some(cluster)
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.engine.kubeconfig()).args(arguments);
        command.output().expect("kubectl can be run")
    }

    fn apply(&self, objects: &str) {
        let file: &Path = &self.folder.path().join("objects.yaml");
        std::fs::write(file, objects).expect("a file can be written");
        let applied = self.kubectl(&["apply", "-f", file.to_str().expect("temporary folders have plain names")]);
        assert!(applied.status.success(), "{applied:?}");
    }

    /// What a client pod learns when it asks for a page: the status, or the last line of the error.
    fn ask(&self, pod: &str, url: &str) -> String {
        let script = format!("import urllib.request as r; print(r.urlopen('{url}', timeout=5).status)");
        let output = self.kubectl(&["exec", pod, "--", "python3", "-c", &script]);
        let said = if output.status.success() { &output.stdout } else { &output.stderr };
        let said = String::from_utf8_lossy(said);
        said.lines().rfind(|line| line.contains("Error") || line.len() == 3).unwrap_or(&said).trim().to_owned()
    }

    /// The status that a pod gets for a path of the API when it asks as client libraries do in a pod.
    fn ask_api(&self, pod: &str, path: &str) -> String {
        let script = format!(
            "import os, ssl, urllib.request as r, urllib.error as e
folder = '/var/run/secrets/kubernetes.io/serviceaccount/'
trust = ssl.create_default_context(cafile=folder + 'ca.crt')
token = {{'Authorization': 'Bearer ' + open(folder + 'token').read()}}
for host in [os.environ['KUBERNETES_SERVICE_HOST'], 'kubernetes.default.svc']:
    url = 'https://' + host + ':' + os.environ['KUBERNETES_SERVICE_PORT'] + '{path}'
    try: print(r.urlopen(r.Request(url, headers=token), timeout=5, context=trust).status)
    except e.HTTPError as error: print(error.code)"
        );
        let output = self.kubectl(&["exec", pod, "--", "python3", "-c", &script]);
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        said.split_whitespace().collect::<Vec<_>>().join(" ") + &error
    }

    /// Whether the node port of the service answers outside of the cluster.
    fn is_served_outside(&self) -> bool {
        let port = self.kubectl(&["get", "service", "server", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
        let port: u16 = String::from_utf8_lossy(&port.stdout).parse().expect("a service of this type has a node port");
        let asked = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        asked.is_ok_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    fn eventually_outside(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_served_outside() {
            assert!(Instant::now() < deadline, "the node port does not answer");
            std::thread::sleep(POLL);
        }
    }

    /// The addresses that a name has in a pod, in order.
    fn addresses(&self, pod: &str, name: &str) -> Vec<String> {
        let script = format!("import socket; print(*sorted(socket.gethostbyname_ex('{name}')[2]))");
        let output = self.kubectl(&["exec", pod, "--", "python3", "-c", &script]);
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
    }

    /// Whether pods have networks of their own; if not, it is reported as skipped.
    fn has_networks(&self) -> bool {
        let log = std::fs::read_to_string(self.folder.path().join("engine.log")).expect("the engine has a log");
        let namespaces = if log.contains("its own network") { Ok(()) } else { Err(log) };
        require_or_skip("network namespaces", namespaces).is_some()
    }

    fn eventually(&self, pod: &str, url: &str, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.ask(pod, url);
            if said.contains(expected) {
                return;
            }
            assert!(Instant::now() < deadline, "{pod} asks for {url}: {said}, and not {expected}");
            std::thread::sleep(POLL);
        }
    }
}

#[test]
fn pods_find_services_by_name_and_policies_close_what_they_do_not_open() {
    let Some(cluster) = Cluster::start("auto") else { return };
    if !cluster.has_networks() {
        return;
    }
    for url in ["http://server", "http://server.default", "http://server.default.svc.cluster.local"] {
        cluster.eventually("stranger", url, "200");
    }
    cluster.eventually_outside();
    assert_eq!(cluster.ask_api("stranger", "/version"), "200 200");
    assert_eq!(cluster.ask_api("stranger", "/api/v1/namespaces/default/secrets"), "403 403");
    cluster.apply(ONLY_FRIENDS);
    cluster.eventually("stranger", "http://server", "Connection refused");
    cluster.eventually("friend", "http://server", "200");
    // It comes from the node, which no policy keeps from its pods.
    cluster.eventually_outside();
    let removed = cluster.kubectl(&["delete", "networkpolicy", "only-friends"]);
    assert!(removed.status.success(), "{removed:?}");
    cluster.eventually("stranger", "http://server", "200");
    cluster.eventually("stranger", "http://elsewhere", "Name or service not known");
}

#[test]
fn what_pods_may_not_reach_is_closed_to_them_and_names_lead_to_pods_and_other_names() {
    let Some(cluster) = Cluster::start("auto") else { return };
    if !cluster.has_networks() {
        return;
    }
    cluster.apply(NAMES);
    let ready = cluster.kubectl(&["wait", "--for=condition=Ready", "pod/second", "--timeout=60s"]);
    assert!(ready.status.success(), "{ready:?}");
    let pods = cluster.kubectl(&["get", "pods", "-l", "app=server", "-o", "jsonpath={.items[*].status.podIP}"]);
    let pods = String::from_utf8(pods.stdout).expect("addresses are ASCII");
    let mut pods: Vec<&str> = pods.split(' ').collect();
    pods.sort_unstable();
    let deadline = Instant::now() + PATIENCE;
    while cluster.addresses("stranger", "each") != pods {
        assert!(Instant::now() < deadline, "{:?} and not {pods:?}", cluster.addresses("stranger", "each"));
        std::thread::sleep(POLL);
    }
    for url in ["http://each:8080", "http://one.each:8080", "http://other", "http://other.default.svc.cluster.local"] {
        cluster.eventually("stranger", url, "200");
    }
    assert_eq!(cluster.addresses("stranger", "circle"), Vec::<String>::new());

    cluster.apply(&FRIENDS_STAY.replace("RULES", ""));
    cluster.eventually("friend", "http://server", "Connection refused");
    cluster.eventually("stranger", "http://server", "200");
    let to = "{ to: [{ podSelector: { matchLabels: { app: server } } }], ports: [{ port: http }] }";
    cluster.apply(&FRIENDS_STAY.replace("RULES", to));
    cluster.eventually("friend", "http://server", "200");
    cluster.apply(&FRIENDS_STAY.replace("RULES", &to.replace("app: server", "app: stranger")));
    cluster.eventually("friend", "http://server", "Connection refused");
}

#[test]
fn without_namespaces_services_have_addresses_all_the_same() {
    let Some(cluster) = Cluster::start_with(&["--network", "loopback", "--egress", "192.0.2.0/24"]) else { return };
    let log = std::fs::read_to_string(cluster.folder.path().join("engine.log")).expect("the engine has a log");
    assert!(log.contains("egress: `--egress` has no effect"), "{log}");
    let address = cluster.kubectl(&["get", "service", "server", "-o", "jsonpath={.spec.clusterIP}"]);
    let address = String::from_utf8(address.stdout).expect("an address is ASCII");
    assert!(address.starts_with("127."), "{address}");
    // An ordinary user may not listen on port 80, so the service says so in the log and is tried at its pod.
    let pod = cluster.kubectl(&["get", "pod", "server", "-o", "jsonpath={.status.podIP}"]);
    let pod = String::from_utf8(pod.stdout).expect("an address is ASCII");
    cluster.eventually("friend", &format!("http://{pod}:8080"), "200");
    cluster.eventually_outside();
    let privileged = std::net::TcpListener::bind(("127.0.0.9", 80)).is_ok();
    let port = if privileged { 80 } else { 20080 };
    cluster.eventually("friend", &format!("http://{address}:{port}"), "200");
}

#[test]
fn without_namespaces_of_the_network_pods_read_names_in_a_file_that_is_kept_current() {
    let Some(cluster) = Cluster::start("loopback") else { return };
    let log = std::fs::read_to_string(cluster.folder.path().join("engine.log")).expect("the engine has a log");
    if !log.contains("volumes are at the paths that pods name") {
        return;
    }
    let address = cluster.kubectl(&["get", "service", "server", "-o", "jsonpath={.spec.clusterIP}"]);
    let address = String::from_utf8(address.stdout).expect("an address is ASCII");
    let deadline = Instant::now() + PATIENCE;
    for name in ["server", "server.default", "server.default.svc", "server.default.svc.cluster.local"] {
        while cluster.addresses("stranger", name) != [address.as_str()] {
            assert!(Instant::now() < deadline, "{name}: {:?} and not {address}", cluster.addresses("stranger", name));
            std::thread::sleep(POLL);
        }
    }
    // What comes while a pod runs is there, too, and what goes is not.
    cluster.apply(NAMES);
    let ready = cluster.kubectl(&["wait", "--for=condition=Ready", "pod/second", "--timeout=30s"]);
    assert!(ready.status.success(), "{ready:?}");
    let pods = cluster.kubectl(&["get", "pods", "-l", "app=server", "-o", "jsonpath={.items[*].status.podIP}"]);
    let pods = String::from_utf8(pods.stdout).expect("addresses are ASCII");
    let mut pods: Vec<&str> = pods.split(' ').collect();
    pods.sort_unstable();
    let until = |name: &str, expected: &[&str]| {
        let deadline = Instant::now() + PATIENCE;
        while cluster.addresses("stranger", name) != expected {
            assert!(
                Instant::now() < deadline,
                "{name}: {:?} and not {expected:?}",
                cluster.addresses("stranger", name)
            );
            std::thread::sleep(POLL);
        }
    };
    until("each", &pods);
    until("other", &[&address]);
    for url in ["http://each:8080", "http://one.each:8080"] {
        cluster.eventually("stranger", url, "200");
    }
    let gone = cluster.kubectl(&["delete", "service", "each"]);
    assert!(gone.status.success(), "{gone:?}");
    until("each", &[]);
}
