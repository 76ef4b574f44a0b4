//! What a set of Kubernetes objects lets reach what, and which of their references lead nowhere.
//!
//! This is one half of the isolation proof: the relation that the rendered policies allow, which a rule compares with
//! the declared edges. It knows Kubernetes only, so that a mistake of the renderer cannot hide in it, and it leaves to
//! rules how to say what it finds. It follows
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>.
//!
//! A connection is opened if the egress policies of its source and the ingress policies of its destination both allow
//! it; a pod that no policy isolates in a direction allows everything in it. Replies belong to the connection. Traffic
//! between a pod and its own node, kubelet probes among it, passes every policy and is no part of the relation.

mod address;
mod field;
mod index;
mod object;
mod policy;
mod problem;
mod reach;
mod references;
mod relation;
mod resolve;
mod selector;
mod service;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

pub use self::address::{AddressBlock, AddressRange};
pub use self::field::{Labels, Malformed};
pub use self::object::ObjectKey;
pub use self::policy::{Direction, PortMatch, PortSet, RuleRef};
pub use self::problem::Problem;
pub use self::reach::{DnsReachability, Endpoint, Exit, Grant, GrantedBy, Reachability, Verdict};
pub use self::relation::{Connection, Relation, Source};
pub use self::service::{Service, ServicePort, TargetPort};
pub use self::workload::{ContainerPort, Origin, PodNetwork, Port, Protocol, Workload, WorkloadId};

use self::index::{Index, Namespaces};
use self::object::Object;
use self::policy::Policy;
use self::references::Present;
use self::resolve::{ResolvedPolicy, Resolver, may_hold};
use self::selector::Selector;

/// The objects of a set of namespaces, indexed for analysis.
#[derive(Debug)]
pub struct Cluster {
    workloads: Vec<Workload>,
    namespaces: Namespaces,
    services: BTreeMap<ObjectKey, (Service, Vec<WorkloadId>)>,
    policies: Vec<Policy>,
    /// In the order of `policies`.
    resolved: Vec<ResolvedPolicy>,
    /// For each workload the policies that select it.
    selecting: Vec<Vec<u32>>,
    pod_ranges: Vec<AddressRange>,
    problems: Vec<Problem>,
}

/// What is in the cluster without being among the rendered objects.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Pods that operators make, such as those of a `CloudNativePG` `Cluster` with their label `cnpg.io/cluster`, and
    /// strangers: an ingress controller, Prometheus, [`Workload::kube_dns`].
    pub workloads: Vec<Workload>,
    /// Services that operators make.
    pub services: Vec<Service>,
    /// Labels of namespaces that are not rendered. Their name label need not be given.
    pub namespaces: BTreeMap<String, Labels>,
    /// Other objects that may be referred to: Secrets, `ConfigMap`s, targets of autoscalers.
    pub objects: BTreeSet<ObjectKey>,
    /// The addresses of pods. Empty if they are not known: then every private address may be a pod's, and none is
    /// surely one.
    pub pod_ranges: Vec<AddressRange>,
}

impl Cluster {
    /// Reads the objects as all that there is.
    pub fn from_objects(objects: &[Value]) -> Self {
        Cluster::new(objects, Surroundings::default())
    }

    /// Reads the objects. What cannot be read is among the [`problems`](Cluster::problems) and takes no part.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Value>, surroundings: Surroundings) -> Self {
        let mut problems = Vec::new();
        let objects = object::read(objects, &mut problems);
        let mut workloads = Vec::new();
        let mut namespaces = Namespaces::default();
        let mut policies = Vec::new();
        let mut all_services = surroundings.services;
        for object in &objects {
            if let Err(malformed) =
                read_object(object, &mut workloads, &mut namespaces, &mut policies, &mut all_services)
            {
                problems.push(Problem::Malformed { object: object.key.clone(), malformed });
            }
            if Policy::is_of_another_language(object) {
                problems.push(Problem::OtherPolicyLanguage { object: object.key.clone() });
            }
        }
        workloads.extend(surroundings.workloads);
        for (name, labels) in surroundings.namespaces {
            namespaces.add(&name, labels);
        }
        let dns = Workload::kube_dns();
        for workload in workloads.iter().chain([&dns]) {
            namespaces.mention(&workload.key.namespace);
            if workload.network == PodNetwork::Host && workload.origin != Origin::Stranger {
                problems.push(Problem::HostNetwork { workload: workload.key.clone() });
            }
        }

        let possible_pod_ranges = possible_pod_ranges(&surroundings.pod_ranges);
        let mut resolving = Resolver {
            index: Index::new(&workloads, &namespaces),
            workloads: &workloads,
            namespaces: &namespaces,
            pod_ranges: &possible_pod_ranges,
            only_pod_ranges: &surroundings.pod_ranges,
            dns,
            problems,
        };
        let resolved: Vec<ResolvedPolicy> = policies.iter().map(|policy| resolving.resolve(policy)).collect();
        let mut problems = resolving.problems;
        let mut selecting = vec![Vec::new(); workloads.len()];
        for (position, policy) in (0..).zip(&resolved) {
            for id in policy.selected.iter() {
                selecting[id.0 as usize].push(position);
            }
        }

        let mut index = Index::with_host_network(&workloads, &namespaces);
        let services = all_services.into_iter().map(|service| {
            let behind = if service.selector.is_empty() {
                Vec::new()
            } else {
                index.select(&service.key.namespace, &Selector::labels(service.selector.clone())).to_vec()
            };
            (service.key.clone(), (service, behind))
        });
        let services = services.collect();
        let present = Present::new(&objects, &surroundings.objects, &services);
        for object in &objects {
            references::check(object, &present, &mut index, &workloads, &mut problems);
        }
        problems.sort();
        Cluster {
            workloads,
            namespaces,
            services,
            policies,
            resolved,
            selecting,
            pod_ranges: surroundings.pod_ranges,
            problems,
        }
    }

    /// The workloads: those of the objects in their order, then those of the surroundings.
    pub fn workloads(&self) -> impl Iterator<Item = (WorkloadId, &Workload)> {
        (0..).map(WorkloadId).zip(&self.workloads)
    }

    /// The workload with the id.
    ///
    /// # Panics
    ///
    /// If the id comes from another cluster.
    pub fn workload(&self, id: WorkloadId) -> &Workload {
        &self.workloads[id.0 as usize]
    }

    /// The workload of the object.
    pub fn find(&self, key: &ObjectKey) -> Option<WorkloadId> {
        self.workloads().find(|(_, workload)| workload.key == *key).map(|(id, _)| id)
    }

    /// A Service and the workloads behind it.
    pub fn service(&self, namespace: &str, name: &str) -> Option<(&Service, &[WorkloadId])> {
        let (service, behind) = self.services.get(&ObjectKey::new("Service", namespace, name))?;
        Some((service, behind))
    }

    /// What cannot be meant, sorted.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether a block may hold the address of a pod.
    fn may_hold_pods(&self, block: &AddressBlock) -> bool {
        may_hold(block, &possible_pod_ranges(&self.pod_ranges))
    }
}

fn read_object(
    object: &Object<'_>,
    workloads: &mut Vec<Workload>,
    namespaces: &mut Namespaces,
    policies: &mut Vec<Policy>,
    services: &mut Vec<Service>,
) -> Result<(), Malformed> {
    if Policy::is_policy(object) {
        policies.push(Policy::parse(object)?);
    } else if object.is("", "Namespace") {
        namespaces.add(&object.key.name, object.root.at(&["metadata", "labels"])?.labels()?);
    } else if object.is("", "Service") {
        services.push(Service::parse(object)?);
    } else {
        workloads.extend(Workload::read(object)?);
    }
    Ok(())
}

/// The known ranges, or every private one (RFC 1918, RFC 4193).
fn possible_pod_ranges(known: &[AddressRange]) -> Vec<AddressRange> {
    if !known.is_empty() {
        return known.to_vec();
    }
    let private = [
        (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
        (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
        (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
        (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    ];
    private.into_iter().filter_map(|(address, prefix)| AddressRange::new(address, prefix)).collect()
}
