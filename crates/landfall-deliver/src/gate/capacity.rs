//! Whether a release fits on the live nodes: the copies that run beside the old ones while they are replaced, and what there is
//! afterwards. Pure.
//!
//! Not handled: affinity, spread and volumes. What only they forbid is told by the scheduler, and the release goes back.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::Room;
use crate::plan::Strategy;
use crate::release::{ReleaseSpec, ServiceRelease};

/// What is asked for, or free: thousandths of a core, bytes, pods.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Amount {
    cpu: f64,
    memory: f64,
    pods: f64,
}

/// A node, and what is free on it.
#[derive(Clone)]
struct Free<'a> {
    node: &'a Node,
    amount: Amount,
}

/// What shows that it fits; or what does not.
pub(super) fn fits(cluster: &Room, spec: &ReleaseSpec) -> Result<Vec<String>, String> {
    let living = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    };
    let mut rooms: Vec<Free<'_>> = cluster
        .nodes
        .iter()
        .filter(|node| node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true)) && is_ready(node))
        .map(|node| {
            let mut amount = allocatable(node);
            for pod in cluster.pods.iter().filter(living).filter(|pod| is_on(pod, node)) {
                amount.take(request(pod.spec.as_ref()));
            }
            Free { node, amount }
        })
        .collect();
    let mut shown = vec![format!("{} nodes take pods, {} are there", rooms.len(), cluster.nodes.len())];
    for service in &spec.services {
        let Some(deployment) = cluster
            .deployments
            .iter()
            .find(|own| own.name_any() == service.name && own.namespace().as_deref() == Some(&service.namespace))
        else {
            return Err(format!("the Deployment `{}` is gone", service.name));
        };
        let template: PodTemplateSpec = serde_json::from_value(service.new_template.clone())
            .map_err(|error| format!("the template of `{}` is none: {error}", service.name))?;
        let asks = request(template.spec.as_ref());
        let copies = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let copies = u32::try_from(copies).unwrap_or_default();
        let beside = beside(service, deployment, copies);
        let mut tried = rooms.clone();
        place(&mut tried, &template, asks, beside).map_err(|placed| {
            format!(
                "{beside} more copies of `{}` run beside the old ones, each asks for {}, and there is room for {placed}",
                service.name,
                asks.text()
            )
        })?;
        // At the end the old copies have gone.
        let old = cluster.pods.iter().filter(living).filter(|pod| belongs(pod, deployment));
        for pod in old {
            if let Some(room) = rooms.iter_mut().find(|room| is_on(pod, room.node)) {
                room.amount.give(request(pod.spec.as_ref()));
            }
        }
        place(&mut rooms, &template, asks, copies).map_err(|placed| {
            format!(
                "{copies} copies of `{}` ask for {} each, and there is room for {placed}",
                service.name,
                asks.text()
            )
        })?;
        shown.push(format!("`{}`: {copies} copies, {beside} beside them, {} each", service.name, asks.text()));
    }
    Ok(shown)
}

impl Amount {
    fn take(&mut self, other: Self) {
        self.cpu -= other.cpu;
        self.memory -= other.memory;
        self.pods -= other.pods;
    }

    fn give(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.pods += other.pods;
    }

    fn holds(&self, other: Self) -> bool {
        self.cpu >= other.cpu && self.memory >= other.memory && self.pods >= other.pods
    }

    fn text(self) -> String {
        format!("{}m and {} MiB", self.cpu, (self.memory / 1_048_576.0).ceil())
    }
}

/// Places copies, each on the node with the most memory left; the error is how many found a place.
fn place(rooms: &mut [Free<'_>], template: &PodTemplateSpec, asks: Amount, copies: u32) -> Result<(), u32> {
    for placed in 0..copies {
        let fitting =
            rooms.iter_mut().filter(|room| room.amount.holds(asks) && accepts(room.node, template.spec.as_ref()));
        let Some(room) = fitting.max_by(|a, b| a.amount.memory.total_cmp(&b.amount.memory)) else { return Err(placed) };
        room.amount.take(asks);
    }
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_on(pod: &Pod, node: &Node) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&node.name_any())
}

/// Whether a node has the labels that a pod asks for, and no taint that it does not tolerate.
fn accepts(node: &Node, pod: Option<&PodSpec>) -> bool {
    let Some(pod) = pod else { return false };
    let selected = pod.node_selector.iter().flatten().all(|(key, value)| node.labels().get(key) == Some(value));
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tolerated = taints.into_iter().filter(|taint| taint.effect != "PreferNoSchedule").all(|taint| {
        pod.tolerations.iter().flatten().any(|toleration| {
            let key = toleration.key.as_ref().is_none_or(|key| *key == taint.key);
            let value = toleration.operator.as_deref() == Some("Exists")
                || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
            let effect = toleration.effect.as_ref().is_none_or(|effect| *effect == taint.effect);
            key && value && effect
        })
    });
    selected && tolerated
}

/// How many copies run beside the old ones at most.
fn beside(service: &ServiceRelease, deployment: &Deployment, copies: u32) -> u32 {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let surge = match strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.max_surge.clone()) {
        Some(IntOrString::Int(surge)) => u32::try_from(surge).unwrap_or_default(),
        Some(IntOrString::String(share)) => {
            let percent: u32 = share.trim_end_matches('%').parse().unwrap_or_default();
            (copies * percent).div_ceil(100)
        }
        None => 0,
    };
    match &service.strategy {
        Strategy::Canary(canary) => surge.max(canary.beside()),
        Strategy::Recreate => 0,
        Strategy::Rolling => surge,
    }
}

fn belongs(pod: &Pod, deployment: &Deployment) -> bool {
    let labels = deployment.spec.iter().flat_map(|spec| spec.selector.match_labels.iter().flatten());
    pod.namespace() == deployment.namespace()
        && labels.into_iter().all(|(key, value)| pod.labels().get(key) == Some(value))
}

fn allocatable(node: &Node) -> Amount {
    let amounts = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let read = |name: &str| amounts.and_then(|amounts| amounts.get(name)).and_then(quantity).unwrap_or(0.0);
    Amount { cpu: read("cpu") * 1000.0, memory: read("memory"), pods: read("pods") }
}

/// What a pod asks for: its containers together, or its largest initial one if that is more.
fn request(pod: Option<&PodSpec>) -> Amount {
    let mut sum = Amount { pods: 1.0, ..Amount::default() };
    let Some(pod) = pod else { return sum };
    let of = |resources: Option<&ResourceRequirements>, name: &str| {
        resources.and_then(|resources| resources.requests.as_ref()?.get(name)).and_then(quantity).unwrap_or(0.0)
    };
    let one = |container: &Container| Amount {
        cpu: of(container.resources.as_ref(), "cpu") * 1000.0,
        memory: of(container.resources.as_ref(), "memory"),
        pods: 0.0,
    };
    pod.containers.iter().for_each(|container| sum.give(one(container)));
    for container in pod.init_containers.iter().flatten() {
        let own = one(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.give(own);
        } else {
            sum.cpu = sum.cpu.max(own.cpu);
            sum.memory = sum.memory.max(own.memory);
        }
    }
    sum
}

/// A quantity of Kubernetes as a number.
fn quantity(quantity: &Quantity) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("", 1.0),
    ];
    SUFFIXES.iter().find_map(|(suffix, factor)| {
        let number: f64 = quantity.0.strip_suffix(suffix)?.parse().ok()?;
        Some(number * factor)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("it is one")
    }

    fn node(name: &str, cpu: &str, memory: &str) -> Node {
        read(json!({ "metadata": { "name": name }, "status": {
            "allocatable": { "cpu": cpu, "memory": memory, "pods": "110" },
            "conditions": [{ "type": "Ready", "status": "True" }],
        } }))
    }

    fn template(cpu: &str, memory: &str) -> Value {
        json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [
            { "name": "web", "image": "web:2", "resources": { "requests": { "cpu": cpu, "memory": memory } } },
        ] } })
    }

    fn pod(node: &str, cpu: &str, memory: &str) -> Pod {
        let mut pod = template(cpu, memory);
        pod["metadata"]["namespace"] = json!("shop");
        pod["spec"]["nodeName"] = json!(node);
        read(pod)
    }

    /// Three copies of a service, one on each node, are replaced by copies that ask for this much.
    fn replaced(nodes: &[Node], surge: u32, asks: (&str, &str)) -> Result<Vec<String>, String> {
        let pods: Vec<Pod> = nodes.iter().map(|node| pod(&node.name_any(), "1", "1Gi")).collect();
        let deployment: Deployment = read(json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "replicas": nodes.len(), "selector": { "matchLabels": { "app": "web" } }, "template": template("1", "1Gi"),
                "strategy": { "rollingUpdate": { "maxSurge": surge } } },
        }));
        let service = ServiceRelease {
            old_template: template("1", "1Gi"),
            new_template: template(asks.0, asks.1),
            ..ServiceRelease::sample("web")
        };
        let spec = ReleaseSpec::sample(vec![service]);
        fits(&Room { nodes: nodes.to_vec(), pods, deployments: vec![deployment] }, &spec)
    }

    #[test]
    fn a_copy_more_needs_room_on_one_node_and_not_on_all_of_them_together() {
        let tight = [node("a", "1500m", "4Gi"), node("b", "1500m", "4Gi"), node("c", "1500m", "4Gi")];
        insta::assert_snapshot!(replaced(&tight, 1, ("1", "1Gi")).expect_err("there are 1.5 cores free, and no node has one"), @"1 more copies of `web` run beside the old ones, each asks for 1000m and 1024 MiB, and there is room for 0");
        assert!(replaced(&tight, 0, ("1", "1Gi")).is_ok(), "an old copy goes first");
        let wide = [node("a", "2", "4Gi"), node("b", "1500m", "4Gi"), node("c", "1500m", "4Gi")];
        insta::assert_snapshot!(replaced(&wide, 1, ("1", "1Gi")).expect("there is room on one").join("\n"), @"
        3 nodes take pods, 3 are there
        `web`: 3 copies, 1 beside them, 1000m and 1024 MiB each
        ");
    }

    #[test]
    fn copies_that_ask_for_more_need_room_at_the_end() {
        let nodes = [node("a", "8", "4Gi"), node("b", "8", "2Gi"), node("c", "8", "2Gi")];
        assert!(replaced(&nodes, 1, ("1", "2Gi")).is_ok());
        insta::assert_snapshot!(replaced(&nodes, 1, ("1", "3Gi")).expect_err("three times 3 GiB do not fit"), @"3 copies of `web` ask for 1000m and 3072 MiB each, and there is room for 1");
    }

    #[test]
    fn a_node_that_is_not_ready_or_cordoned_or_tainted_takes_nothing() {
        let good = node("a", "2", "4Gi");
        let change = |change: fn(&mut Node)| {
            let mut node = good.clone();
            change(&mut node);
            replaced(&[node], 1, ("500m", "1Gi")).is_ok()
        };
        assert!(change(|_| {}));
        assert!(!change(|node| node.spec = Some(read(json!({ "unschedulable": true })))));
        assert!(
            !change(|node| node.spec = Some(read(json!({ "taints": [{ "key": "gpu", "effect": "NoSchedule" }] }))))
        );
        assert!(!change(|node| node.status.as_mut().expect("it has one").conditions = None));
    }

    #[test]
    fn every_way_to_write_a_quantity_is_read() {
        for (text, number) in
            [("250m", 0.25), ("4", 4.0), ("1.5", 1.5), ("16Gi", 17_179_869_184.0), ("1e3", 1000.0), ("2k", 2000.0)]
        {
            assert_eq!(quantity(&Quantity(text.to_owned())), Some(number), "{text}");
        }
        assert_eq!(quantity(&Quantity("much".to_owned())), None);
    }
}
