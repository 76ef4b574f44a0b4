//! The row of a pod: the one word that says what it is at.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::scheme::table::since;
use crate::scheme::validate::Fields as _;

pub(super) fn row(pod: &Value, age: &str, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    let is_sidecar = |container: &Value| container.text("restartPolicy") == "Always";
    let init_containers = spec.items("initContainers");
    let sidecar_named = |name: &str| init_containers.iter().any(|one| one.text("name") == name && is_sidecar(one));
    let total = spec.items("containers").len() + init_containers.iter().filter(|one| is_sidecar(one)).count();

    let mut reason = match status.text("reason") {
        "" => status.text("phase").to_owned(),
        reason => reason.to_owned(),
    };
    let condition = |name: &str| status.items("conditions").iter().find(|one| one.text("type") == name);
    if condition("PodScheduled").is_some_and(|one| one.text("reason") == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut reason);
    }
    let (mut ready, mut all, mut sidecars) = (0, Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (index, one) in status.items("initContainerStatuses").iter().enumerate() {
        let sidecar = sidecar_named(one.text("name"));
        all.add(one);
        if sidecar {
            sidecars.add(one);
        }
        let terminated = one.at("state.terminated");
        if terminated.is_object() && terminated.integer("exitCode").unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && one.at("started") == &json!(true) {
            ready += usize::from(one.at("ready") == &json!(true));
            continue;
        }
        let waiting = one.text("state.waiting.reason");
        reason = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init_containers.len())
        };
        initializing = true;
        break;
    }
    let initialized = condition("Initialized").is_some_and(|one| one.text("status") == "True");
    let mut restarts = all;
    if !initializing || initialized {
        restarts = sidecars;
        let (mut running, mut error) = (false, String::new());
        for one in status.items("containerStatuses").iter().rev() {
            restarts.add(one);
            let terminated = one.at("state.terminated");
            let waiting = one.text("state.waiting.reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if terminated.is_object() {
                reason = ended(terminated);
                if terminated.integer("exitCode").unwrap_or(0) != 0 {
                    error.clone_from(&reason);
                }
            } else if one.at("ready") == &json!(true) && one.at("state.running").is_object() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" {
            let is_ready = condition("Ready").is_some_and(|one| one.text("status") == "True");
            if running && is_ready {
                "Running".clone_into(&mut reason);
            } else if !error.is_empty() {
                reason = error;
            } else if running {
                "NotReady".clone_into(&mut reason);
            }
        }
    }
    if !pod.text("metadata.deletionTimestamp").is_empty() {
        if status.text("reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(status.text("phase"), "Failed" | "Succeeded") {
            "Terminating".clone_into(&mut reason);
        }
    }
    let gates = spec.items("readinessGates");
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let open =
            |gate: &&Value| condition(gate.text("conditionType")).is_some_and(|one| one.text("status") == "True");
        format!("{}/{}", gates.iter().filter(open).count(), gates.len())
    };
    let or_none = |text: &str| if text.is_empty() { json!("<none>") } else { json!(text) };
    vec![
        json!(format!("{ready}/{total}")),
        json!(reason),
        json!(restarts.text(now)),
        json!(age),
        or_none(status.items("podIPs").first().map_or(status.text("podIP"), |one| one.text("ip"))),
        or_none(spec.text("nodeName")),
        or_none(status.text("nominatedNodeName")),
        json!(gates),
    ]
}

/// How a container ended: its reason, or the signal, or the exit code.
fn ended(terminated: &Value) -> String {
    let signal = terminated.integer("signal").unwrap_or(0);
    match terminated.text("reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", terminated.integer("exitCode").unwrap_or(0)),
        reason => reason.to_owned(),
    }
}

#[derive(Default)]
struct Restarts {
    count: i64,
    /// RFC 3339 in UTC, so that the order of texts is that of times.
    last: String,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status.integer("restartCount").unwrap_or(0);
        let finished = status.text("lastState.terminated.finishedAt");
        if finished > self.last.as_str() {
            finished.clone_into(&mut self.last);
        }
    }

    fn text(&self, now: Timestamp) -> String {
        if self.count != 0 && !self.last.is_empty() {
            format!("{} ({} ago)", self.count, since(Some(&json!(self.last)), now))
        } else {
            self.count.to_string()
        }
    }
}
