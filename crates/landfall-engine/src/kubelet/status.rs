//! The status of a pod as Kubernetes writes it. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{is_sidecar, restarts};
use crate::runtime::{ContainerRecord, ContainerState};

/// What the worker knows of a container besides what the runtime recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Why it does not run: reason and message.
    pub(super) waiting: Option<(String, String)>,
    /// It is being started: until its `postStart` hook is done, nobody is told that it runs.
    pub(super) starting: bool,
    pub(super) started: bool,
    pub(super) ready: bool,
    /// The image as the catalogue names it.
    pub(super) image_id: String,
}

/// What a status is made of.
pub(super) struct Facts<'a> {
    pub(super) pod: &'a Pod,
    pub(super) records: &'a [ContainerRecord],
    pub(super) known: &'a dyn Fn(&str) -> Known,
    pub(super) host_ip: &'a str,
    /// None: the sandbox is not there (any more).
    pub(super) pod_ip: Option<&'a str>,
    /// No container runs or will run again.
    pub(super) over: bool,
    /// Why the node agent has failed the pod: reason and message.
    pub(super) failed: Option<(&'a str, &'a str)>,
    pub(super) now: Timestamp,
}

/// The status that the pod should have. Conditions of others are kept.
pub(super) fn status(facts: &Facts<'_>) -> PodStatus {
    let pod = facts.pod;
    let spec = pod.spec.clone().unwrap_or_default();
    let old = pod.status.clone().unwrap_or_default();
    let init: Vec<_> = spec.init_containers.iter().flatten().cloned().collect();
    let containers = |list: &[Container], old: &Option<Vec<ContainerStatus>>, is_init: bool| -> Vec<ContainerStatus> {
        let one = |container: &Container| {
            let old = old.iter().flatten().find(|status| status.name == container.name);
            container_status(facts, container, old, is_init, !init.is_empty())
        };
        list.iter().map(one).collect()
    };
    let init_statuses = containers(&init, &old.init_container_statuses, true);
    let statuses = containers(&spec.containers, &old.container_statuses, false);

    let terminal = old.phase.as_deref().filter(|phase| matches!(*phase, "Succeeded" | "Failed"));
    let phase = match (terminal, facts.failed) {
        (Some(phase), _) => phase,
        (None, Some(_)) => "Failed",
        (None, None) => phase(&spec, &init_statuses, &statuses, facts.over),
    };
    let (reason, message) = match facts.failed {
        Some((reason, message)) if terminal.is_none() => (Some(reason.to_owned()), Some(message.to_owned())),
        _ if Some(phase) == old.phase.as_deref() => (old.reason.clone(), old.message.clone()),
        _ => (None, None),
    };

    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        host_ip: Some(facts.host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: facts.host_ip.to_owned() }]),
        start_time: Some(old.start_time.clone().unwrap_or(Time(facts.now))),
        observed_generation: pod.metadata.generation,
        qos_class: old.qos_class.clone(),
        ..PodStatus::default()
    };
    let ip = facts.pod_ip.map(ToOwned::to_owned).or(old.pod_ip.clone());
    status.pod_ips = ip.clone().map(|ip| vec![PodIP { ip }]);
    status.pod_ip = ip;
    status.conditions = Some(conditions(facts, &spec, &old, phase, &init_statuses, &statuses));
    status.container_statuses = Some(statuses);
    status.init_container_statuses = Some(init_statuses).filter(|statuses| !statuses.is_empty());
    status
}

fn container_status(
    facts: &Facts<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    is_init: bool,
    has_init: bool,
) -> ContainerStatus {
    let known = (facts.known)(&container.name);
    let told = |record: &&ContainerRecord| record.name == container.name && !(known.starting && record.is_running());
    let mut newest_first = facts.records.iter().rev().filter(told);
    let (record, previous) = (newest_first.next(), newest_first.next().and_then(terminated));
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        started: Some(false),
        volume_mounts: volume_mounts(container),
        resources: container.resources.clone(),
        allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
        ..ContainerStatus::default()
    };
    let Some(record) = record else {
        // The runtime knows nothing: what was known stays true when the container had ended.
        if let Some(old) = old.filter(|old| old.state.as_ref().is_some_and(|state| state.terminated.is_some())) {
            return old.clone();
        }
        let default = if has_init { "PodInitializing" } else { "ContainerCreating" };
        let (reason, message) = known.waiting.unwrap_or((default.to_owned(), String::new()));
        status.state = Some(waiting(&reason, &message));
        status.last_state = Some(ApiState::default());
        return status;
    };
    status.restart_count = i32::try_from(record.attempt).unwrap_or(i32::MAX);
    status.container_id = Some(container_id(&record.id));
    status.image_id = if known.image_id.is_empty() {
        old.map(|old| old.image_id.clone()).unwrap_or_default()
    } else {
        known.image_id.clone()
    };
    status.last_state = Some(ApiState { terminated: previous, ..ApiState::default() });
    match &record.state {
        ContainerState::Running { started_at, .. } => {
            status.state = Some(ApiState {
                running: Some(ContainerStateRunning { started_at: Some(Time(*started_at)) }),
                ..ApiState::default()
            });
            status.started = Some(known.started);
            status.ready = known.ready;
        }
        ContainerState::Exited(exit) => match known.waiting {
            // It will run again: what was its state becomes its last.
            Some((reason, message)) if !(is_init && exit.code == 0 && !is_sidecar(container)) => {
                status.last_state = Some(ApiState { terminated: terminated(record), ..ApiState::default() });
                status.state = Some(waiting(&reason, &message));
            }
            _ => {
                status.state = Some(ApiState { terminated: terminated(record), ..ApiState::default() });
                status.ready = is_init && !is_sidecar(container) && exit.code == 0;
            }
        },
    }
    status
}

/// A container's id as the API shows it.
pub(super) fn container_id(id: &str) -> String {
    format!("landfall://{id}")
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let one = |mount: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        ..VolumeMountStatus::default()
    };
    Some(mounts.iter().map(one).collect())
}

fn waiting(reason: &str, message: &str) -> ApiState {
    let message = Some(message.to_owned()).filter(|message| !message.is_empty());
    ApiState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ApiState::default()
    }
}

fn terminated(record: &ContainerRecord) -> Option<ContainerStateTerminated> {
    let exit = record.exit()?;
    Some(ContainerStateTerminated {
        container_id: Some(container_id(&record.id)),
        exit_code: exit.code,
        reason: Some(exit.reason.clone()),
        message: exit.message.clone(),
        started_at: Some(Time(exit.started_at)),
        finished_at: Some(Time(exit.finished_at)),
        ..ContainerStateTerminated::default()
    })
}

/// The exit code of a container that does not run, now or the last time.
fn ended(status: &ContainerStatus) -> Option<i32> {
    let code = |state: &Option<ApiState>| state.as_ref()?.terminated.as_ref().map(|ended| ended.exit_code);
    code(&status.state).or_else(|| code(&status.last_state))
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// Kubernetes, "Pod phase".
fn phase(spec: &PodSpec, init: &[ContainerStatus], statuses: &[ContainerStatus], over: bool) -> &'static str {
    let all = || spec.init_containers.iter().flatten().zip(init);
    let for_good = |container: &Container, code: i32| !restarts(spec, container, code);
    let begun = statuses.iter().any(|status| is_running(status) || ended(status).is_some());
    for (container, status) in all().filter(|(container, _)| !is_sidecar(container)) {
        match ended(status).filter(|_| !is_running(status)) {
            Some(code) if code != 0 && for_good(container, code) => return "Failed",
            Some(_) => {}
            None => return "Pending",
        }
    }
    let sidecars = || all().filter(|(container, _)| is_sidecar(container));
    let pending = sidecars()
        .any(|(_, status)| if is_running(status) { status.started != Some(true) } else { ended(status).is_none() });
    if pending && !begun {
        return if over && statuses.iter().all(|status| ended(status).is_none()) { "Failed" } else { "Pending" };
    }
    if statuses.iter().any(|status| !is_running(status) && ended(status).is_none()) {
        // Deleted before it ever ran.
        return if over { "Failed" } else { "Pending" };
    }
    if statuses.iter().any(is_running) || sidecars().any(|(_, status)| is_running(status)) {
        return "Running";
    }
    let mut containers = spec.containers.iter().zip(statuses);
    let all_for_good =
        containers.all(|(container, status)| ended(status).is_some_and(|code| for_good(container, code)));
    if !over && !all_for_good {
        return "Running";
    }
    if statuses.iter().all(|status| ended(status) == Some(0)) { "Succeeded" } else { "Failed" }
}

fn conditions(
    facts: &Facts<'_>,
    spec: &PodSpec,
    old: &PodStatus,
    phase: &str,
    init: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Vec<PodCondition> {
    let owned = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let before = old.conditions.clone().unwrap_or_default();
    let mut all: Vec<_> =
        before.iter().filter(|condition| !owned.contains(&condition.type_.as_str())).cloned().collect();
    let others = all.clone();
    let mut set = |type_: &str, verdict: Result<Option<&str>, (&str, String)>| {
        let (status, reason, message) = match verdict {
            Ok(reason) => ("True", reason.map(ToOwned::to_owned), None),
            Err((reason, message)) => (
                "False",
                Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
                Some(message).filter(|message| !message.is_empty()),
            ),
        };
        let same = before.iter().find(|condition| condition.type_ == type_ && condition.status == status);
        all.push(PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: same
                .and_then(|condition| condition.last_transition_time.clone())
                .or(Some(Time(facts.now))),
            observed_generation: facts.pod.metadata.generation,
            ..PodCondition::default()
        });
    };

    let sandboxed = facts.pod_ip.is_some() && !facts.over;
    set("PodReadyToStartContainers", if sandboxed { Ok(None) } else { Err(("", String::new())) });

    let begun = statuses.iter().any(|status| is_running(status) || ended(status).is_some());
    let incomplete: Vec<_> = spec
        .init_containers
        .iter()
        .flatten()
        .zip(init)
        .filter(|(container, status)| if is_sidecar(container) { status.started != Some(true) } else { !status.ready })
        .map(|(container, _)| container.name.as_str())
        .collect();
    set(
        "Initialized",
        match phase {
            "Succeeded" => Ok(Some("PodCompleted")),
            _ if begun || incomplete.is_empty() => Ok(None),
            _ => Err((
                "ContainersNotInitialized",
                format!("containers with incomplete status: [{}]", incomplete.join(" ")),
            )),
        },
    );

    let sidecars = spec.init_containers.iter().flatten().zip(init).filter(|(container, _)| is_sidecar(container));
    let unready: Vec<_> = sidecars
        .map(|(_, status)| status)
        .chain(statuses)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    let containers_ready = match phase {
        "Succeeded" => Err(("PodCompleted", String::new())),
        "Failed" => Err(("PodFailed", String::new())),
        _ if unready.is_empty() => Ok(None),
        _ => Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))),
    };
    let gates: Vec<_> = spec
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match others.iter().find(|condition| condition.type_ == *name) {
                None => Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist.")),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    let ready = match &containers_ready {
        Ok(_) if !gates.is_empty() => Err(("ReadinessGatesNotReady", gates.join(", "))),
        verdict => verdict.clone(),
    };
    set("Ready", ready);
    set("ContainersReady", containers_ready);
    set("PodScheduled", Ok(None));
    all
}
