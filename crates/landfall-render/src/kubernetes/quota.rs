//! Quotas: what all pods of a namespace may request together.
//!
//! A quota is the sum of what is declared: the most copies of every service with the copies of a rollout on top, and the
//! members of every store, with some headroom for what operators start beside them. It stops a mistake from taking the
//! whole cluster; it must never stop a declared rollout or the autoscaler.
//!
//! A quota refuses pods that request nothing. So there is none in a namespace in which anything declares no resources,
//! and where operators run stores a `LimitRange` lends their auxiliary containers a request.

use crate::json::json;
use landfall_model::{Architecture, Bytes, Cpu, Overlap, Resources, Rollout, Service, StoreProvider};

use super::metadata::Subject;
use super::namespace;
use super::scaling::{self, Scaling};
use crate::object::Object;

/// What is added for operators' jobs and the pods of `kubectl debug`, in hundredths.
const HEADROOM: u64 = 20;

/// What a sidecar of Istio requests when the mesh does not say, as its own defaults have it.
const SIDECAR_CPU: Cpu = Cpu::from_millicores(100);
const SIDECAR_MEMORY: Bytes = Bytes::new(128 << 20);

/// What a container of an operator requests that says nothing itself.
const AUXILIARY_CPU: &str = "50m";
const AUXILIARY_MEMORY: &str = "128Mi";

/// What the pods of a namespace request together.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    millicores: u64,
    bytes: u64,
    pods: u64,
}

impl Total {
    fn add(&mut self, copies: u64, cpu: Cpu, memory: Bytes) {
        self.millicores += copies * cpu.millicores();
        self.bytes += copies * memory.get();
        self.pods += copies;
    }

    fn with_headroom(self) -> Self {
        let more = |amount: u64| amount + (amount * HEADROOM).div_ceil(100);
        // Memory in whole mebibytes, so that a person can read it.
        Self {
            millicores: more(self.millicores),
            bytes: more(self.bytes).div_ceil(1 << 20) << 20,
            pods: more(self.pods),
        }
    }
}

/// The quotas of every namespace whose workloads all declare their resources.
pub(super) fn objects(architecture: &Architecture) -> Vec<Object> {
    let mut objects = Vec::new();
    for (namespace, span) in namespace::all(architecture) {
        let Some((total, operators)) = total(architecture, namespace) else { continue };
        let subject = Subject::platform(architecture, namespace, "quota", "services", span);
        let total = total.with_headroom();
        let name = architecture.document.name.as_str();
        let value = json!({
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": subject.metadata(name),
            "spec": {
                "hard": {
                    "requests.cpu": Cpu::from_millicores(total.millicores).to_string(),
                    "requests.memory": Bytes::new(total.bytes).to_string(),
                    "pods": total.pods.to_string(),
                },
            },
        });
        objects.push(subject.object("quota", value));
        if operators {
            let value = json!({
                "apiVersion": "v1",
                "kind": "LimitRange",
                "metadata": subject.metadata(name),
                "spec": {
                    "limits": [{
                        "type": "Container",
                        "defaultRequest": { "cpu": AUXILIARY_CPU, "memory": AUXILIARY_MEMORY },
                    }],
                },
            });
            objects.push(subject.object("limitrange", value));
        }
    }
    objects
}

/// The total of a namespace, and whether operators run stores in it; `None` when there is nothing in it, or something
/// that declares no resources.
fn total(architecture: &Architecture, namespace: &str) -> Option<(Total, bool)> {
    let document = &architecture.document;
    let here = |own: Option<&str>| own.unwrap_or_else(|| architecture.namespace().as_str()) == namespace;
    let sidecar = document.platform.mesh.as_ref().map(|mesh| {
        mesh.sidecar.as_ref().map_or((SIDECAR_CPU, SIDECAR_MEMORY), |sidecar| (sidecar.cpu.value, sidecar.memory.value))
    });
    let (mut total, mut operators) = (Total::default(), false);
    for service in document.services.values() {
        if here(service.namespace.as_ref().map(|own| own.as_str())) {
            let (cpu, memory) = requests(&service.resources)?;
            let copies = copies(architecture, service);
            total.add(copies, cpu, memory);
            if let Some((cpu, memory)) = sidecar {
                total.add(copies, cpu, memory);
                total.pods -= copies;
            }
        }
    }
    for store in document.stores.values() {
        let in_cluster = !store.provider.value.is_managed();
        if in_cluster && here(store.namespace.as_ref().map(|own| own.as_str())) {
            let (cpu, memory) = requests(&store.resources)?;
            total.add(u64::from(store.members.value), cpu, memory);
            operators |= store.provider.value == StoreProvider::Operator;
        }
    }
    (total.pods > 0).then_some((total, operators))
}

fn requests(resources: &Resources) -> Option<(Cpu, Bytes)> {
    Some((resources.cpu.as_ref()?.low, resources.memory.as_ref()?.low))
}

/// The most copies of a service that exist at one time: those that it wants, and those that a rollout adds. A job that
/// may overlap counts twice, which is a guess; the others have one run at a time.
fn copies(architecture: &Architecture, service: &Service) -> u64 {
    if let Some(schedule) = &service.schedule {
        return if schedule.overlap.value == Overlap::Allow { 2 } else { 1 };
    }
    let most = scaling::most(service);
    // The copies of a canary beside an autoscaler are a part of its most, and then one more is replaced at a time.
    let beside = matches!(scaling::of(architecture, service), Scaling::Fixed(_));
    let surge = match architecture.rollout(service).value {
        Rollout::Rolling(rolling) => rolling.max_surge.value,
        Rollout::Canary(canary) if beside => canary.most_copies(most).max(1),
        Rollout::Canary(_) => 1,
        Rollout::Recreate => 0,
    };
    u64::from(most) + u64::from(surge)
}
