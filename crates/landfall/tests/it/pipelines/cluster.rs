//! The cluster of an environment: an engine that knows the custom resources of the chart, with a gateway, and with an account
//! for the pipeline.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::PostParams;
use kube::{Api, Client};
use landfall_model::File;
use landfall_testing::{Applier, Apply, Schemas};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::engine_examples::{catalogue, classes_of_providers, nodes_file, secrets_of_operators};
use crate::running_engine::RunningEngine;

/// How long the pipeline may take until its namespace is there.
const PATIENCE: Duration = Duration::from_mins(10);

/// How often that is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The rights of the pipeline: it makes namespaces, and what is in them.
const ACCOUNT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: { name: pipeline, namespace: default }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: pipeline }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin }
subjects: [{ kind: ServiceAccount, name: pipeline, namespace: default }]
";

pub(super) struct Cluster {
    kubectl: PathBuf,
    hosts: BTreeSet<String>,
    /// What operators do beside the pipeline.
    operators: JoinHandle<()>,
    // Stops before its folder goes.
    engine: RunningEngine,
    folder: tempfile::TempDir,
}

impl Cluster {
    pub(super) fn start(
        file: &File,
        environment: &str,
        schemas: &Schemas,
        python: &str,
        kubectl: &Path,
        runtime: &tokio::runtime::Runtime,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let nodes = folder.path().join("nodes.yaml");
        fs::write(&nodes, nodes_file(file)).expect("a file can be written");
        let nodes = nodes.to_str().expect("temporary folders have plain names");
        let engine = RunningEngine::start(folder.path(), &catalogue(python, folder.path()), &["--nodes", nodes]);
        let architecture = file.architecture(Some(environment)).expect("the example is an architecture");
        let hosts = architecture.exposed().map(|(_, _, expose)| expose.host.value.clone()).collect();
        let objects = landfall_render::kubernetes(&architecture).into_values();
        let client = runtime.block_on(async {
            let client = engine.client().await;
            let applier = Applier::prepare(client.clone(), schemas, &objects).await;
            let applier = applier.unwrap_or_else(|error| panic!("{error:?}"));
            for class in classes_of_providers(&objects) {
                applier.apply(&class, Apply::ForReal).await.unwrap_or_else(|error| panic!("{error:?}"));
            }
            client
        });
        let operators = runtime.spawn(make_secrets(client, secrets_of_operators(&objects)));
        let cluster = Self { kubectl: kubectl.to_owned(), hosts, operators, engine, folder };
        let account = cluster.folder.path().join("account.yaml");
        fs::write(&account, ACCOUNT).expect("a file can be written");
        cluster.kubectl(&["apply", "--filename", account.to_str().expect("temporary folders have plain names")]);
        cluster
    }

    /// What the administrator of the cluster sees.
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.said(&self.kubectl, arguments)
    }

    fn said(&self, program: &Path, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", self.engine.kubeconfig())
            .env("HOME", self.folder.path())
            .output()
            .expect("the program can be started");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {error}", program.display());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A token of the pipeline's account.
    pub(super) fn token(&self) -> String {
        self.kubectl(&["create", "token", "pipeline", "--namespace", "default", "--duration", "1h"])
    }

    /// A variable of the environment, as its owner sets it.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let of_cluster = |field: &str| {
            let template = format!("jsonpath={{.clusters[0].cluster.{field}}}");
            self.kubectl(&["config", "view", "--raw", "--output", &template])
        };
        match name {
            "CLUSTER_SERVER" => Some(of_cluster("server")),
            "CLUSTER_CA" => {
                let script = "printf %s \"$0\" | base64 --decode";
                Some(self.said(Path::new("sh"), &["-c", script, &of_cluster("certificate-authority-data")]))
            }
            _ => None,
        }
    }

    /// Lets curl find the hosts of the environment at the gateway, and trust it: what DNS and a public authority do. `home`
    /// is the home of the job.
    pub(super) fn lead_to_gateway(&self, home: &Path) {
        let log = fs::read_to_string(self.folder.path().join("engine.log")).expect("the engine has a log");
        let line =
            log.lines().find(|line| line.contains("gateway: http://")).expect("the log says where the gateway is");
        let address = |after: &str| {
            let rest = line.split(after).nth(1).expect("the line names it");
            rest.split([' ', ',', '/']).next().unwrap_or_default().to_owned()
        };
        let authority = self.folder.path().join("authority.pem");
        let url = format!("http://{}/authority.pem", address("figures at http://"));
        let path = authority.to_str().expect("temporary folders have plain names");
        self.said(Path::new("curl"), &["--silent", "--show-error", "--fail", "--output", path, &url]);
        let https = address("and https://");
        let hosts = self.hosts.iter().map(|host| format!("connect-to = \"{host}:443:{https}\"\n"));
        let text = format!("cacert = \"{path}\"\n{}", hosts.collect::<String>());
        fs::write(home.join(".curlrc"), text).expect("a file can be written");
    }

    /// The image that a Deployment runs.
    pub(super) fn image_of(&self, deployment: &str, namespace: &str) -> String {
        let template = "jsonpath={.spec.template.spec.containers[0].image}";
        self.kubectl(&["get", "deployment", deployment, "--namespace", namespace, "--output", template])
    }

    /// What became of each revision of a release.
    pub(super) fn releases(&self, helm: &Path, name: &str) -> Vec<String> {
        let text = self.said(helm, &["history", name, "--namespace", "default", "--output", "json"]);
        let history: Vec<Value> = serde_json::from_str(&text).expect("helm writes JSON");
        history.iter().filter_map(|revision| revision["status"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.operators.abort();
    }
}

/// Makes the secrets that pods wait for, as soon as their namespace is there.
async fn make_secrets(client: Client, secrets: Vec<Value>) {
    let deadline = Instant::now() + PATIENCE;
    for secret in secrets {
        let namespace = secret["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let secret: Secret = serde_json::from_value(secret).expect("it is a secret");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        while !matches!(namespaces.get_opt(&namespace).await, Ok(Some(_))) {
            assert!(Instant::now() < deadline, "the pipeline has made no namespace {namespace}");
            tokio::time::sleep(POLL).await;
        }
        let made = Api::<Secret>::namespaced(client.clone(), &namespace).create(&PostParams::default(), &secret).await;
        made.unwrap_or_else(|error| panic!("a secret is refused: {error}"));
    }
}
