//! Nodes that exist in the API only.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Where nodes show that they live.
const LEASES: &str = "kube-node-lease";

/// How long a lease is good for, as the real kubelet says it.
const LEASE_SECONDS: u64 = 40;

/// A node in a zone.
#[derive(Debug, Clone)]
pub struct FakeNode {
    name: String,
    zone: String,
    cpu: String,
    memory: String,
    pods: u32,
}

impl FakeNode {
    /// A node with 8 CPUs, 32 GiB and room for 110 pods.
    pub fn new(name: &str, zone: &str) -> Self {
        Self { name: name.to_owned(), zone: zone.to_owned(), cpu: "8".to_owned(), memory: "32Gi".to_owned(), pods: 110 }
    }

    /// Another size, in Kubernetes' quantities.
    #[must_use]
    pub fn with_capacity(mut self, cpu: &str, memory: &str) -> Self {
        cpu.clone_into(&mut self.cpu);
        memory.clone_into(&mut self.memory);
        self
    }

    /// Room for another number of pods.
    #[must_use]
    pub fn with_pods(mut self, pods: u32) -> Self {
        self.pods = pods;
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Creates the node, or brings it up to date, and says that it is ready.
    pub(super) async fn register(&self, client: &Client) -> kube::Result<()> {
        let nodes = Api::<Node>::all(client.clone());
        let manager = PatchParams::apply("fake-kubelet").force();
        let registered = nodes.patch(&self.name, &manager, &Patch::Apply(self.object())).await?;
        // Every new node is tainted until the node lifecycle controller has seen it ready. There may be none.
        if registered.spec.and_then(|spec| spec.taints).is_some() {
            let untainted = json!({ "spec": { "taints": null } });
            nodes.patch(&self.name, &PatchParams::default(), &Patch::Merge(untainted)).await?;
        }
        nodes.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(self.status())).await?;
        self.renew_lease(client).await
    }

    pub(super) async fn renew_lease(&self, client: &Client) -> kube::Result<()> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": self.name },
            "spec": {
                "holderIdentity": self.name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        let leases = Api::<Lease>::namespaced(client.clone(), LEASES);
        leases.patch(&self.name, &PatchParams::apply("fake-kubelet").force(), &Patch::Apply(lease)).await?;
        Ok(())
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": {
                    "kubernetes.io/hostname": self.name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                    "topology.kubernetes.io/region": "testing",
                    "topology.kubernetes.io/zone": self.zone,
                },
            },
        })
    }

    fn status(&self) -> Value {
        let capacity = json!({
            "cpu": self.cpu,
            "memory": self.memory,
            "ephemeral-storage": "100Gi",
            "pods": self.pods.to_string(),
        });
        let now = format!("{:.0}", Timestamp::now());
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({
                "type": kind, "status": status, "reason": reason,
                "message": "as the fake kubelet says", "lastHeartbeatTime": now, "lastTransitionTime": now,
            })
        };
        json!({
            "status": {
                "capacity": capacity,
                "allocatable": capacity,
                "addresses": [
                    { "type": "InternalIP", "address": super::status::HOST_ADDRESS },
                    { "type": "Hostname", "address": self.name },
                ],
                "conditions": [
                    condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                    condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                    condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                    condition("Ready", "True", "KubeletReady"),
                ],
                "nodeInfo": {
                    "architecture": "amd64", "operatingSystem": "linux", "osImage": "none", "kernelVersion": "none",
                    "containerRuntimeVersion": "fake://1", "kubeletVersion": "v1.36.3", "kubeProxyVersion": "",
                    "bootID": self.name, "machineID": self.name, "systemUUID": self.name,
                },
            },
        })
    }
}
