//! A simulated node: its object, its heartbeats, and what can be done to it in a drill.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::api::machine::NodeFault;
use crate::context::Context;

/// How often a node says that it is there, and for how long it counts: the kubelet's `nodeLeaseDurationSeconds` = 40, of
/// which it renews each quarter.
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);

/// How often the status of a node is written when nothing changes: the kubelet's `nodeStatusReportFrequency`.
const REPORT: Duration = Duration::from_mins(5);

/// How soon a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A part of this machine that the cluster sees as a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its zone: `topology.kubernetes.io/zone`.
    #[serde(default)]
    pub zone: Option<String>,
    /// Its region: `topology.kubernetes.io/region`.
    #[serde(default)]
    pub region: Option<String>,
    /// Processors that it claims to have, as a quantity.
    pub cpu: String,
    /// Memory that it claims to have, as a quantity.
    pub memory: String,
    /// How many pods it takes.
    #[serde(default = "default_pods")]
    pub pods: u32,
    /// More labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The address that it says it has.
    #[serde(default = "default_address")]
    pub address: String,
}

impl NodeSpec {
    /// A node with this capacity, in no zone.
    pub fn new(name: impl Into<String>, cpu: impl Into<String>, memory: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            zone: None,
            region: None,
            cpu: cpu.into(),
            memory: memory.into(),
            pods: default_pods(),
            labels: BTreeMap::new(),
            address: default_address(),
        }
    }

    /// The same node in a zone.
    #[must_use]
    pub fn in_zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }
}

fn default_pods() -> u32 {
    110
}

fn default_address() -> String {
    "127.0.0.1".to_owned()
}

impl NodeSpec {
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        let mut set = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
        set("kubernetes.io/hostname", &self.name);
        set("kubernetes.io/os", "linux");
        set("kubernetes.io/arch", architecture());
        // The names that they had first, by which older manifests select.
        set("beta.kubernetes.io/os", "linux");
        set("beta.kubernetes.io/arch", architecture());
        if let Some(zone) = &self.zone {
            set("topology.kubernetes.io/zone", zone);
        }
        if let Some(region) = &self.region {
            set("topology.kubernetes.io/region", region);
        }
        labels
    }

    fn status(&self, now: Timestamp) -> Value {
        let resources = json!({ "cpu": self.cpu, "memory": self.memory, "pods": self.pods.to_string(), "ephemeral-storage": "100Gi" });
        let condition = |type_: &str, status: &str, reason: &str, message: &str| json!({ "type": type_, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() });
        json!({
            "capacity": resources,
            "allocatable": resources,
            "addresses": [
                { "type": "InternalIP", "address": self.address },
                { "type": "Hostname", "address": self.name },
            ],
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "",
                "kernelVersion": kernel(), "osImage": "this machine", "containerRuntimeVersion": concat!("landfall://", env!("CARGO_PKG_VERSION")),
                "kubeletVersion": concat!("v1.36.0-landfall.", env!("CARGO_PKG_VERSION")), "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": architecture(),
            },
        })
    }
}

/// Registers the node and keeps it alive until cancelled. A faulty node is silent.
pub(super) async fn keep(
    spec: &NodeSpec,
    context: &Context,
    mut fault: watch::Receiver<NodeFault>,
    cancel: &CancellationToken,
) {
    let mut reported: Option<tokio::time::Instant> = None;
    loop {
        let mut next = RENEW;
        if *fault.borrow_and_update() == NodeFault::None {
            let beat = async {
                if reported.is_none_or(|at| at.elapsed() >= REPORT) {
                    register(spec, context).await?;
                    reported = Some(tokio::time::Instant::now());
                }
                renew(spec, context).await
            };
            if let Err(error) = beat.await {
                warn!(node = spec.name, %error, "the node is not reported, trying again");
                next = RETRY;
            }
        } else {
            // It has been away: whatever the control plane made of that, it says anew how it is.
            reported = None;
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(next) => {}
            changed = fault.changed() => if changed.is_err() { return },
        }
    }
}

async fn register(spec: &NodeSpec, context: &Context) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let body =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": spec.name, "labels": spec.labels() } });
    if nodes.get_opt(&spec.name).await?.is_some() {
        nodes.patch(&spec.name, &PatchParams::default(), &Patch::Merge(&body)).await?;
    } else {
        let node: Node = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
        nodes.create(&PostParams::default(), &node).await?;
    }
    // When each condition last changed is the API's to keep: a strategic merge leaves what it does not name.
    let mut status = spec.status(Timestamp::now());
    let changed = context.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let old = nodes.get_status(&spec.name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        let same = old.iter().any(|old| condition["type"] == old.type_ && condition["status"] == old.status);
        if !same {
            condition["lastTransitionTime"] = changed.as_str().into();
        }
    }
    let body = json!({ "status": status });
    nodes.patch_status(&spec.name, &PatchParams::default(), &Patch::Strategic(&body)).await?;
    Ok(())
}

async fn renew(spec: &NodeSpec, context: &Context) -> kube::Result<()> {
    let leases: Api<Lease> = Api::namespaced(context.client.clone(), "kube-node-lease");
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let body = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": spec.name },
        "spec": { "holderIdentity": spec.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now },
    });
    match leases.patch(&spec.name, &PatchParams::default(), &Patch::Merge(&body)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease: Lease = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
            leases.create(&PostParams::default(), &lease).await.map(drop)
        }
        result => result.map(drop),
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
