//! What is said of a pod. Pure: the caller knows the time and tells the API server.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::kubelet::FakeNode;

/// The address of every fake node. It leads nowhere.
pub(super) const HOST_ADDRESS: &str = "192.0.2.1";

/// What the programs of a pod do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Programs {
    Running {
        ready: bool,
    },
    /// They have exited, and are not started again.
    Exited {
        code: i32,
    },
    /// They exit and must run again.
    Crashing {
        code: i32,
    },
}

impl Programs {
    /// What a pod's annotations ask for, under its restart policy.
    pub(super) fn of(pod: &Pod) -> Self {
        let annotation = |name: &str| pod.annotations().get(&format!("testing.landfall.dev/{name}"));
        let Some(code) = annotation("exit").and_then(|code| code.parse().ok()) else {
            return Self::Running { ready: annotation("ready").is_none_or(|ready| ready != "false") };
        };
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Self::Exited { code },
            Some("OnFailure") if code == 0 => Self::Exited { code },
            _ => Self::Crashing { code },
        }
    }

    /// Programs that ended when they were asked to.
    pub(super) fn stopped() -> Self {
        Self::Exited { code: 0 }
    }

    /// Whether nothing more will happen.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Exited { .. })
    }

    /// A strategic merge patch of the pod's status.
    pub(super) fn status(&self, pod: &Pod, node: &FakeNode, address: Ipv4Addr, now: Timestamp) -> Value {
        let now = format!("{now:.0}");
        let spec = pod.spec.as_ref().expect("a pod that is bound to a node has a spec");
        let ready = matches!(self, Self::Running { ready: true });
        let phase = match self {
            Self::Running { .. } | Self::Crashing { .. } => "Running",
            Self::Exited { code: 0 } => "Succeeded",
            Self::Exited { .. } => "Failed",
        };

        let told = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let gates = spec.readiness_gates.iter().flatten();
        let gates_open = gates
            .map(|gate| &gate.condition_type)
            .all(|gate| told.iter().any(|condition| condition.type_ == *gate && condition.status == "True"));
        let condition = |kind: &str, holds: bool| {
            let mut condition = json!({
                "type": kind, "status": if holds { "True" } else { "False" },
                "observedGeneration": pod.metadata.generation, "lastTransitionTime": now,
            });
            if !holds {
                let reason = if self.is_final() { "PodCompleted" } else { "ContainersNotReady" };
                condition["reason"] = reason.into();
            }
            condition
        };

        let containers: Vec<_> =
            spec.containers.iter().map(|container| self.container(container, ready, node, &now)).collect();
        let first: Vec<_> = spec.init_containers.iter().flatten().collect();
        let first: Vec<_> = first
            .into_iter()
            .map(|container| {
                // A sidecar runs beside the others, any other init container has ended before them.
                if container.restart_policy.as_deref() == Some("Always") && !self.is_final() {
                    Self::Running { ready: true }.container(container, true, node, &now)
                } else {
                    Self::stopped().container(container, true, node, &now)
                }
            })
            .collect();

        let mut status = json!({
            "phase": phase,
            "observedGeneration": pod.metadata.generation,
            "hostIP": HOST_ADDRESS,
            "hostIPs": [{ "ip": HOST_ADDRESS }],
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "conditions": [
                condition("PodReadyToStartContainers", !self.is_final()),
                condition("Initialized", true),
                condition("ContainersReady", ready),
                condition("Ready", ready && gates_open),
            ],
            "containerStatuses": containers,
        });
        if !first.is_empty() {
            status["initContainerStatuses"] = first.into();
        }
        if pod.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
            status["startTime"] = now.into();
        }
        json!({ "metadata": { "uid": pod.uid() }, "status": status })
    }

    fn container(&self, container: &Container, ready: bool, node: &FakeNode, now: &str) -> Value {
        let id = format!("fake://{}-{}", node.name(), container.name);
        let terminated = |code: i32| {
            json!({ "terminated": {
                "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
                "startedAt": now, "finishedAt": now, "containerID": id,
            }})
        };
        let (state, last, restarts) = match self {
            Self::Running { .. } => (json!({ "running": { "startedAt": now } }), json!({}), 0),
            Self::Exited { code } => (terminated(*code), json!({}), 0),
            Self::Crashing { code } => {
                let waiting = json!({ "waiting": {
                    "reason": "CrashLoopBackOff",
                    "message": format!("back-off 10s restarting failed container={}", container.name),
                }});
                (waiting, terminated(*code), 1)
            }
        };
        json!({
            "name": container.name,
            "image": container.image,
            "imageID": format!("fake://{}", container.image.as_deref().unwrap_or_default()),
            "containerID": id,
            "ready": ready,
            "started": matches!(self, Self::Running { .. }),
            "restartCount": restarts,
            "state": state,
            "lastState": last,
        })
    }
}

/// How long the containers of a pod run on after they were asked to end: as long as the pod says they need, and never longer
/// than its grace.
pub(super) fn stop_after(pod: &Pod) -> Duration {
    let seconds = |text: &String| text.parse::<u64>().ok();
    let needed = pod.annotations().get("testing.landfall.dev/stops-after").and_then(seconds).unwrap_or(0);
    let grace = pod.metadata.deletion_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok()).unwrap_or(0);
    Duration::from_secs(needed.min(grace))
}

#[cfg(test)]
mod tests {
    use super::{Programs, stop_after};
    use crate::FakeNode;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn pod(annotations: &Value, restart_policy: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "annotations": annotations, "deletionGracePeriodSeconds": 30 },
            "spec": {
                "restartPolicy": restart_policy,
                "readinessGates": [{ "conditionType": "example.com/open" }],
                "containers": [{ "name": "web", "image": "web:1" }],
            },
        }))
        .expect("it is a pod")
    }

    #[test]
    fn the_restart_policy_decides_whether_an_exit_is_the_end() {
        let check = |code: &str, policy, expected| {
            let pod = pod(&json!({ "testing.landfall.dev/exit": code }), policy);
            assert_eq!(Programs::of(&pod), expected, "exit {code} under {policy}");
        };
        check("0", "Never", Programs::Exited { code: 0 });
        check("3", "Never", Programs::Exited { code: 3 });
        check("0", "OnFailure", Programs::Exited { code: 0 });
        check("3", "OnFailure", Programs::Crashing { code: 3 });
        check("0", "Always", Programs::Crashing { code: 0 });
    }

    #[test]
    fn a_pod_is_not_ready_before_its_readiness_gates_are_open() {
        let mut pod = pod(&json!({}), "Always");
        let ready = |pod: &Pod| {
            let patch =
                Programs::of(pod).status(pod, &FakeNode::new("a", "z"), Ipv4Addr::LOCALHOST, Timestamp::UNIX_EPOCH);
            patch.pointer("/status/conditions/3/status").cloned()
        };
        assert_eq!(ready(&pod), Some(json!("False")));
        pod.status =
            serde_json::from_value(json!({ "conditions": [{ "type": "example.com/open", "status": "True" }] }))
                .expect("it is a status");
        assert_eq!(ready(&pod), Some(json!("True")));
    }

    #[test]
    fn containers_stop_after_what_they_need_and_at_most_the_grace() {
        let check = |annotations, seconds| {
            assert_eq!(stop_after(&pod(&annotations, "Always")), Duration::from_secs(seconds));
        };
        check(json!({}), 0);
        check(json!({ "testing.landfall.dev/stops-after": "5" }), 5);
        check(json!({ "testing.landfall.dev/stops-after": "500" }), 30);
    }
}
