//! What a pod asks of a node and what a node has, by resource.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity;

/// What the scorers assume of a container that asks for no CPU, in thousandths of a core, so that such pods spread too
/// (Kubernetes: `DefaultMilliCPURequest`).
const ASSUMED_CPU: i64 = 100;

/// The same of memory, in bytes (Kubernetes: `DefaultMemoryRequest`).
const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource: CPU in thousandths, everything else in whole units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources(BTreeMap<String, i64>);

impl Resources {
    pub(crate) fn read(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let read = |(name, amount): (&String, &Quantity)| {
            let amount = if name == "cpu" { quantity::millis(amount) } else { quantity::units(amount) };
            Some((name.clone(), amount?))
        };
        Self(quantities.into_iter().flatten().filter_map(read).collect())
    }

    pub(crate) fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            *self.0.entry(name.to_owned()).or_default() += amount;
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            *self.0.entry(name.to_owned()).or_default() -= amount;
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let own = self.0.entry(name.to_owned()).or_default();
            *own = amount.max(*own);
        }
    }
}

/// What the node must have free for a pod.
///
/// Sidecars (init containers that restart always) run beside everything that starts after them (KEP-753). Requests of the
/// pod as a whole replace the sum of its containers' (KEP-2837).
///
/// Not handled: a resize that the node has not carried out yet; the new requests count at once.
pub(crate) fn of_pod(spec: &PodSpec) -> Resources {
    total(spec, |container| {
        Resources::read(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    })
}

/// What the scorers count for a pod: as [`of_pod`], with assumed CPU and memory where a container names none.
pub(crate) fn for_scoring(spec: &PodSpec) -> Resources {
    total(spec, |container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut resources = Resources::read(requests);
        for (name, assumed) in [("cpu", ASSUMED_CPU), ("memory", ASSUMED_MEMORY)] {
            if requests.is_none_or(|requests| !requests.contains_key(name)) {
                resources.0.insert(name.to_owned(), assumed);
            }
        }
        resources
    })
}

fn total(spec: &PodSpec, requests: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&requests(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&own);
            sidecars.add(&own);
            starting.raise_to(&sidecars);
        } else {
            let mut beside = sidecars.clone();
            beside.add(&own);
            starting.raise_to(&beside);
        }
    }
    running.raise_to(&starting);
    let of_pod = spec.resources.as_ref().and_then(|ResourceRequirements { requests, .. }| requests.as_ref());
    for (name, amount) in Resources::read(of_pod).iter() {
        running.0.insert(name.to_owned(), amount);
    }
    running.add(&Resources::read(spec.overhead.as_ref()));
    running
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value, expected: &[(&str, i64)]) {
        let spec: PodSpec = serde_json::from_value(spec).expect("a pod spec");
        let found = of_pod(&spec);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }

    fn container(cpu: &str) -> serde_json::Value {
        json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } })
    }

    fn sidecar(cpu: &str) -> serde_json::Value {
        json!({ "name": "s", "restartPolicy": "Always", "resources": { "requests": { "cpu": cpu } } })
    }

    #[test]
    fn containers_add_up_and_init_containers_run_one_by_one() {
        check(
            json!({ "containers": [container("1"), container("2")], "initContainers": [container("2"), container("4")] }),
            &[("cpu", 4000)],
        );
    }

    #[test]
    fn a_sidecar_runs_beside_what_starts_after_it_and_beside_the_containers() {
        check(
            json!({ "containers": [container("1")], "initContainers": [container("3"), sidecar("1"), container("3")] }),
            &[("cpu", 4000)],
        );
        check(json!({ "containers": [container("5")], "initContainers": [sidecar("1")] }), &[("cpu", 6000)]);
    }

    #[test]
    fn overhead_is_added_and_requests_of_the_pod_replace_those_of_its_containers() {
        check(
            json!({ "containers": [container("5")], "resources": { "requests": { "cpu": "2" } }, "overhead": { "cpu": "100m" } }),
            &[("cpu", 2100)],
        );
    }
}
