//! Decides what a pod's containers need next. Pure: the worker performs it.
//!
//! ```text
//! init containers, one after another ── each ends with 0, or (a sidecar) has started; all once more in a new sandbox
//!        ▼
//! ordinary containers, at once ── restarted as their policy says; sidecars restarted always
//!        ▼ all have ended for good, or the pod is to end
//! ordinary containers stop at once, then the sidecars, last first
//! ```

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Never started.
    New,
    Running {
        /// Its startup probe has succeeded, or it has none; its `postStart` hook is done.
        started: bool,
    },
    Exited {
        code: i32,
        /// In a sandbox before this one, whose network and volumes in memory are gone: init containers run once more
        /// (<https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#detailed-behavior>).
        earlier: bool,
    },
}

/// What to do now. What is under way already is told again each time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) start: Vec<String>,
    pub(super) stop: Vec<String>,
    /// No container runs, and none will again.
    pub(super) over: bool,
}

/// `ending`: the pod was deleted, or has run out of its deadline.
pub(super) fn plan(spec: &PodSpec, ending: bool, standing: impl Fn(&str) -> Standing) -> Plan {
    let init: Vec<_> = spec.init_containers.iter().flatten().collect();
    let running = |container: &&Container| matches!(standing(&container.name), Standing::Running { .. });
    let names = |containers: Vec<&Container>| containers.iter().map(|container| container.name.clone()).collect();
    let ordinary = || spec.containers.iter().map(|container| standing(&container.name));
    let ever_begun = ordinary().any(|standing| standing != Standing::New);
    let begun = ordinary().any(|standing| !matches!(standing, Standing::New | Standing::Exited { earlier: true, .. }));

    let init_failed = !begun
        && init.iter().any(|container| match standing(&container.name) {
            Standing::Exited { earlier: true, .. } if ever_begun => false,
            Standing::Exited { code, .. } => code != 0 && !is_sidecar(container) && !restarts(spec, container, code),
            _ => false,
        });
    let done = |container: &Container| match standing(&container.name) {
        Standing::Exited { code, .. } => !restarts(spec, container, code),
        _ => false,
    };
    if ending || init_failed || (ever_begun && spec.containers.iter().all(done)) {
        let ordinary: Vec<_> =
            spec.containers.iter().chain(init.iter().copied().filter(|c| !is_sidecar(c))).filter(running).collect();
        if !ordinary.is_empty() {
            return Plan { stop: names(ordinary), ..Plan::default() };
        }
        // A sidecar serves those before it to the end, so that the last goes first.
        let sidecar = init.iter().rev().copied().find(running);
        return Plan { over: sidecar.is_none(), stop: names(sidecar.into_iter().collect()), ..Plan::default() };
    }

    let mut start = Vec::new();
    for container in &init {
        match standing(&container.name) {
            Standing::New if begun && !is_sidecar(container) => {}
            Standing::Exited { code: 0, earlier: false } if !is_sidecar(container) => {}
            Standing::Exited { .. } if begun && !is_sidecar(container) => {}
            Standing::Running { started: true } if is_sidecar(container) => {}
            Standing::New | Standing::Exited { .. } => {
                start.push(container.name.clone());
                if !begun {
                    return Plan { start, ..Plan::default() };
                }
            }
            Standing::Running { .. } if begun => {}
            Standing::Running { .. } => return Plan::default(),
        }
    }
    let needed = spec.containers.iter().filter(|container| match standing(&container.name) {
        Standing::New => true,
        Standing::Running { .. } => false,
        Standing::Exited { code, .. } => restarts(spec, container, code),
    });
    start.extend(needed.map(|container| container.name.clone()));
    Plan { start, ..Plan::default() }
}

/// An init container that goes on beside the ordinary ones (KEP-753).
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container that has ended with this code is started again.
///
/// Not handled: `restartPolicyRules` (KEP-5307).
pub(super) fn restarts(spec: &PodSpec, container: &Container, code: i32) -> bool {
    let policy = container.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always");
    let init = spec.init_containers.iter().flatten().any(|init| init.name == container.name);
    match policy {
        // An init container that has done its work is done under every policy.
        "Always" => !init || is_sidecar(container) || code != 0,
        "OnFailure" => code != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NEW: Standing = Standing::New;
    const UP: Standing = Standing::Running { started: true };
    const STARTING: Standing = Standing::Running { started: false };

    fn exited(code: i32) -> Standing {
        Standing::Exited { code, earlier: false }
    }

    fn earlier(code: i32) -> Standing {
        Standing::Exited { code, earlier: true }
    }

    /// Containers are `init`, `side` (a sidecar), `a` and `b`.
    fn check(policy: &str, ending: bool, standings: [Standing; 4]) -> (String, String, bool) {
        let spec: PodSpec = serde_json::from_value(json!({
            "restartPolicy": policy,
            "initContainers": [{ "name": "init" }, { "name": "side", "restartPolicy": "Always" }],
            "containers": [{ "name": "a" }, { "name": "b" }],
        }))
        .expect("a spec");
        let names = ["init", "side", "a", "b"];
        let of = |name: &str| standings[names.iter().position(|known| *known == name).expect("a known name")];
        let plan = plan(&spec, ending, of);
        (plan.start.join(" "), plan.stop.join(" "), plan.over)
    }

    fn starts(expected: &str) -> (String, String, bool) {
        (expected.to_owned(), String::new(), false)
    }

    fn stops(expected: &str) -> (String, String, bool) {
        (String::new(), expected.to_owned(), false)
    }

    fn over() -> (String, String, bool) {
        (String::new(), String::new(), true)
    }

    #[test]
    fn init_containers_run_one_after_another_before_all_others() {
        assert_eq!(check("Always", false, [NEW, NEW, NEW, NEW]), starts("init"));
        assert_eq!(check("Always", false, [UP, NEW, NEW, NEW]), starts(""));
        assert_eq!(check("Always", false, [exited(0), NEW, NEW, NEW]), starts("side"));
    }

    #[test]
    fn a_sidecar_must_have_started_before_the_next() {
        assert_eq!(check("Always", false, [exited(0), STARTING, NEW, NEW]), starts(""));
        assert_eq!(check("Always", false, [exited(0), UP, NEW, NEW]), starts("a b"));
    }

    #[test]
    fn a_failed_init_container_is_tried_again_unless_it_never_restarts() {
        assert_eq!(check("Always", false, [exited(1), NEW, NEW, NEW]), starts("init"));
        assert_eq!(check("Never", false, [exited(1), NEW, NEW, NEW]), over());
    }

    #[test]
    fn in_a_new_sandbox_init_containers_run_before_what_is_started_again() {
        assert_eq!(check("Always", false, [earlier(0), earlier(137), earlier(137), earlier(137)]), starts("init"));
        assert_eq!(check("Always", false, [UP, earlier(137), earlier(137), earlier(137)]), starts(""));
        assert_eq!(check("Always", false, [exited(0), earlier(137), earlier(137), earlier(137)]), starts("side"));
        assert_eq!(check("Always", false, [exited(0), UP, earlier(137), earlier(137)]), starts("a b"));
        assert_eq!(check("Always", false, [exited(0), UP, UP, earlier(137)]), starts("b"));
        assert_eq!(check("OnFailure", false, [earlier(0), earlier(137), earlier(0), earlier(137)]), starts("init"));
        assert_eq!(check("OnFailure", false, [exited(0), UP, earlier(0), earlier(137)]), starts("b"));
    }

    #[test]
    fn a_pod_that_had_ended_for_good_stays_so_in_a_new_sandbox() {
        assert_eq!(check("Never", false, [earlier(0), earlier(137), earlier(0), earlier(137)]), over());
        assert_eq!(check("Never", false, [earlier(1), NEW, NEW, NEW]), over());
    }

    #[test]
    fn each_container_restarts_by_the_policy() {
        assert_eq!(check("Always", false, [exited(0), UP, exited(0), UP]), starts("a"));
        assert_eq!(check("OnFailure", false, [exited(0), UP, exited(0), exited(1)]), starts("b"));
        assert_eq!(check("Never", false, [exited(0), UP, exited(0), UP]), starts(""));
    }

    #[test]
    fn a_sidecar_restarts_under_every_policy_while_the_pod_lives() {
        assert_eq!(check("Never", false, [exited(0), exited(0), UP, UP]), starts("side"));
    }

    #[test]
    fn sidecars_stop_when_the_others_have_ended_for_good() {
        assert_eq!(check("Never", false, [exited(0), UP, exited(0), exited(1)]), stops("side"));
        assert_eq!(check("Never", false, [exited(0), exited(143), exited(0), exited(1)]), over());
    }

    #[test]
    fn an_ending_pod_stops_its_ordinary_containers_first() {
        assert_eq!(check("Always", true, [exited(0), UP, UP, UP]), stops("a b"));
        assert_eq!(check("Always", true, [exited(0), UP, exited(143), exited(137)]), stops("side"));
        assert_eq!(check("Always", true, [NEW, NEW, NEW, NEW]), over());
        assert_eq!(check("Always", true, [STARTING, NEW, NEW, NEW]), stops("init"));
    }
}
