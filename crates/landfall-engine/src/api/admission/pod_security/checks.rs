//! What the Pod Security Standards (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>) ask of a
//! pod, check by check, with the versions and in the words of Kubernetes 1.36 (`k8s.io/pod-security-admission/policy`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Level, Standard, Version};

/// Why a pod does not meet a standard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// All that is told of the pods that a namespace has already.
    pub(super) reason: &'static str,
    /// Who does it, and what it should be.
    pub(super) detail: String,
}

/// What `pod`, a pod or the template of one, violates of a standard.
pub(super) fn violations(standard: Standard, pod: &Value) -> Vec<Violation> {
    let candidate = Candidate { pod, version: standard.version };
    CHECKS.iter().filter(|check| check.belongs_to(standard)).filter_map(|check| (check.run)(candidate)).collect()
}

struct Check {
    /// The first level that has it; stricter ones do too.
    level: Level,
    /// The first version that has it.
    since: i64,
    /// From which version on a stricter check takes its place in `restricted`.
    replaced: Option<i64>,
    run: fn(Candidate<'_>) -> Option<Violation>,
}

impl Check {
    fn belongs_to(&self, standard: Standard) -> bool {
        let reached = |minor: i64| standard.version >= Version::Minor(minor);
        let replaced = standard.level == Level::Restricted && self.replaced.is_some_and(reached);
        self.level <= standard.level && reached(self.since) && !replaced
    }
}

/// Every check, in the order in which violations are told: by level, then by Kubernetes' name of the check.
const CHECKS: [Check; 19] = [
    Check { level: Level::Baseline, since: 0, replaced: None, run: app_armor_profile },
    Check { level: Level::Baseline, since: 0, replaced: Some(22), run: added_capabilities },
    Check { level: Level::Baseline, since: 0, replaced: None, run: host_namespaces },
    Check { level: Level::Baseline, since: 0, replaced: Some(0), run: host_path_volumes },
    Check { level: Level::Baseline, since: 0, replaced: None, run: host_ports },
    Check { level: Level::Baseline, since: 34, replaced: None, run: probe_hosts },
    Check { level: Level::Baseline, since: 0, replaced: None, run: privileged },
    Check { level: Level::Baseline, since: 0, replaced: Some(35), run: proc_mount_of_host_users },
    Check { level: Level::Baseline, since: 0, replaced: None, run: se_linux_options },
    Check { level: Level::Baseline, since: 0, replaced: Some(19), run: other_seccomp_profile },
    Check { level: Level::Baseline, since: 0, replaced: None, run: sysctls },
    Check { level: Level::Baseline, since: 0, replaced: None, run: windows_host_process },
    Check { level: Level::Restricted, since: 8, replaced: None, run: privilege_escalation },
    Check { level: Level::Restricted, since: 22, replaced: None, run: capabilities },
    Check { level: Level::Restricted, since: 35, replaced: None, run: proc_mount },
    Check { level: Level::Restricted, since: 0, replaced: None, run: volume_types },
    Check { level: Level::Restricted, since: 0, replaced: None, run: non_root },
    Check { level: Level::Restricted, since: 23, replaced: None, run: root_user },
    Check { level: Level::Restricted, since: 19, replaced: None, run: seccomp_profile },
];

/// A pod that is held against the standards of a version.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    pod: &'a Value,
    version: Version,
}

impl<'a> Candidate<'a> {
    fn spec(self) -> &'a Value {
        &self.pod["spec"]
    }

    /// The security context of the pod as a whole.
    fn context(self) -> &'a Value {
        &self.spec()["securityContext"]
    }

    fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let annotations = self.pod["metadata"]["annotations"].as_object();
        annotations.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
    }

    fn volumes(self) -> impl Iterator<Item = &'a Value> {
        self.spec()["volumes"].as_array().into_iter().flatten()
    }

    fn containers(self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec();
        let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
        lists.filter_map(move |list| spec[list].as_array()).flatten()
    }

    /// The names of the containers that are wrong.
    fn wrong(self, mut is_wrong: impl FnMut(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is_wrong(container)).map(name).collect()
    }

    /// The names of the containers whose security contexts are wrong.
    fn wrong_context(self, mut is_wrong: impl FnMut(&Value) -> bool) -> Vec<&'a str> {
        self.wrong(|container| is_wrong(&container["securityContext"]))
    }

    fn reached(self, minor: i64) -> bool {
        self.version >= Version::Minor(minor)
    }

    /// Windows has none of these settings; since 1.25 its pods need not say so.
    fn is_windows(self) -> bool {
        self.reached(25) && self.spec()["os"]["name"] == "windows"
    }

    /// Whether root inside of the pod is nobody outside; since 1.35 such pods may be root.
    fn has_own_users(self) -> bool {
        self.reached(35) && self.spec()["hostUsers"] == false
    }
}

fn name(object: &Value) -> &str {
    object["name"].as_str().unwrap_or_default()
}

/// `container`, or `containers` when there are several or none.
fn plural(noun: &str, count: usize) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

fn uses(count: usize) -> &'static str {
    if count == 1 { "uses" } else { "use" }
}

/// `"a", "b"`. Nothing in the items is escaped.
fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// As [`quoted`], in the order of the texts and each of them once.
fn listed(items: &BTreeSet<String>) -> String {
    quoted(&Vec::from_iter(items))
}

/// `containers "a", "b"`.
fn named(noun: &str, names: &[&str]) -> String {
    format!("{} {}", plural(noun, names.len()), quoted(names))
}

/// Who asks for something: the pod as a whole, containers, or both. Empty: nobody.
fn setters(pod: bool, containers: &[&str]) -> Vec<String> {
    let containers = (!containers.is_empty()).then(|| named("container", containers));
    pod.then(|| "pod".to_owned()).into_iter().chain(containers).collect()
}

/// `None` if there are none.
fn violation(reason: &'static str, wrong: &[&str], detail: impl FnOnce() -> String) -> Option<Violation> {
    (!wrong.is_empty()).then(|| Violation { reason, detail: detail() })
}

/// Whether a profile, of `AppArmor` or of seccomp, is of another type than those that confine; which goes to `types`.
fn is_unconfined(profile: &Value, types: &mut BTreeSet<String>) -> bool {
    let kind = profile["type"].as_str().unwrap_or_default();
    if profile.is_null() || matches!(kind, "RuntimeDefault" | "Localhost") {
        return false;
    }
    types.insert(kind.to_owned());
    true
}

fn app_armor_profile(pod: Candidate<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let whole = is_unconfined(&pod.context()["appArmorProfile"], &mut types);
    let containers = pod.wrong_context(|context| is_unconfined(&context["appArmorProfile"], &mut types));
    let mut setters = setters(whole, &containers);
    let mut annotations: Vec<String> = pod
        .annotations()
        .filter(|(key, value)| {
            let allowed = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !allowed
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        setters.push(plural("annotation", annotations.len()));
    }
    if setters.is_empty() {
        return None;
    }
    let found: Vec<String> = types.into_iter().chain(annotations).collect();
    Some(Violation {
        reason: if found.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" },
        detail: format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&found)),
    })
}

/// What the container runtimes give a container that asks for nothing, without `NET_RAW`.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Whether a security context adds other capabilities than the allowed ones; which go to `others`.
fn adds_others(context: &Value, allowed: &[&str], others: &mut BTreeSet<String>) -> bool {
    let added = context["capabilities"]["add"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let found: Vec<String> = added.filter(|added| !allowed.contains(added)).map(str::to_owned).collect();
    let any = !found.is_empty();
    others.extend(found);
    any
}

fn adding(containers: &[&str], others: &BTreeSet<String>) -> String {
    let who = named("container", containers);
    format!("{who} must not include {} in securityContext.capabilities.add", listed(others))
}

fn added_capabilities(pod: Candidate<'_>) -> Option<Violation> {
    let mut others = BTreeSet::new();
    let wrong = pod.wrong_context(|context| adds_others(context, &DEFAULT_CAPABILITIES, &mut others));
    violation("non-default capabilities", &wrong, || adding(&wrong, &others))
}

fn host_namespaces(pod: Candidate<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec()[field] == true);
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| Violation { reason: "host namespaces", detail: shared.join(", ") })
}

fn host_path_volumes(pod: Candidate<'_>) -> Option<Violation> {
    let wrong: Vec<&str> = pod.volumes().filter(|volume| !volume["hostPath"].is_null()).map(name).collect();
    violation("hostPath volumes", &wrong, || named("volume", &wrong))
}

fn host_ports(pod: Candidate<'_>) -> Option<Violation> {
    // In the order of their digits, as in Kubernetes.
    let mut numbers: BTreeSet<String> = BTreeSet::new();
    let wrong = pod.wrong(|container| {
        let ports = container["ports"].as_array().into_iter().flatten();
        let taken = ports.filter_map(|port| port["hostPort"].as_i64()).filter(|number| *number != 0);
        let taken: Vec<String> = taken.map(|number| number.to_string()).collect();
        let any = !taken.is_empty();
        numbers.extend(taken);
        any
    });
    violation("hostPort", &wrong, || {
        let noun = plural("hostPort", numbers.len());
        let numbers = Vec::from_iter(numbers).join(", ");
        format!("{} {} {noun} {numbers}", named("container", &wrong), uses(wrong.len()))
    })
}

fn probe_hosts(pod: Candidate<'_>) -> Option<Violation> {
    let mut hosts: BTreeSet<String> = BTreeSet::new();
    let mut wrong = pod.wrong(|container| {
        let lifecycle = &container["lifecycle"];
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let handlers = probes.into_iter().chain([&lifecycle["postStart"], &lifecycle["preStop"]]);
        let actions = handlers.flat_map(|handler| [&handler["httpGet"], &handler["tcpSocket"]]);
        let named = actions.filter_map(|action| action["host"].as_str()).filter(|host| !host.is_empty());
        let named: Vec<String> = named.map(str::to_owned).collect();
        let any = !named.is_empty();
        hosts.extend(named);
        any
    });
    wrong.sort_unstable();
    wrong.dedup();
    violation("probe or lifecycle host", &wrong, || {
        let noun = plural("probe or lifecycle host", hosts.len());
        format!("{} {} {noun} {}", named("container", &wrong), uses(wrong.len()), listed(&hosts))
    })
}

fn privileged(pod: Candidate<'_>) -> Option<Violation> {
    let wrong = pod.wrong_context(|context| context["privileged"] == true);
    violation("privileged", &wrong, || {
        format!("{} must not set securityContext.privileged=true", named("container", &wrong))
    })
}

fn proc_mount_of_host_users(pod: Candidate<'_>) -> Option<Violation> {
    if pod.has_own_users() { None } else { proc_mount(pod) }
}

fn proc_mount(pod: Candidate<'_>) -> Option<Violation> {
    let mut kinds: BTreeSet<String> = BTreeSet::new();
    let wrong = pod.wrong_context(|context| {
        let kind = context["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(kind.map(str::to_owned));
        kind.is_some()
    });
    violation("procMount", &wrong, || {
        format!("{} must not set securityContext.procMount to {}", named("container", &wrong), listed(&kinds))
    })
}

fn se_linux_options(pod: Candidate<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut is_wrong = |context: &Value| {
        let text = |field: &str| context["seLinuxOptions"][field].as_str().unwrap_or_default();
        let allowed = match text("type") {
            "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
            "container_engine_t" => pod.reached(31),
            _ => false,
        };
        if !allowed {
            types.insert(text("type").to_owned());
        }
        let (sets_user, sets_role) = (!text("user").is_empty(), !text("role").is_empty());
        user |= sets_user;
        role |= sets_role;
        !allowed || sets_user || sets_role
    };
    let whole = is_wrong(pod.context());
    let containers = pod.wrong_context(&mut is_wrong);
    let setters = setters(whole, &containers);
    if setters.is_empty() {
        return None;
    }
    let types = (!types.is_empty()).then(|| format!("{} {}", plural("type", types.len()), listed(&types)));
    let user = user.then(|| "user may not be set".to_owned());
    let role = role.then(|| "role may not be set".to_owned());
    let found: Vec<String> = [types, user, role].into_iter().flatten().collect();
    let who = setters.join(" and ");
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", found.join("; "));
    Some(Violation { reason: "seLinuxOptions", detail })
}

fn other_seccomp_profile(pod: Candidate<'_>) -> Option<Violation> {
    if !pod.reached(19) {
        return seccomp_annotations(pod);
    }
    let mut types = BTreeSet::new();
    let whole = is_unconfined(&pod.context()["seccompProfile"], &mut types);
    let containers = pod.wrong_context(|context| is_unconfined(&context["seccompProfile"], &mut types));
    let setters = setters(whole, &containers);
    (!setters.is_empty()).then(|| {
        let who = setters.join(" and ");
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", listed(&types));
        Violation { reason: "seccompProfile", detail }
    })
}

/// What profiles were named by before there was a field for them.
fn seccomp_annotations(pod: Candidate<'_>) -> Option<Violation> {
    let concerned = |key: &str| {
        let container = key.strip_prefix("container.seccomp.security.alpha.kubernetes.io/");
        key == "seccomp.security.alpha.kubernetes.io/pod"
            || container.is_some_and(|container| pod.containers().any(|known| name(known) == container))
    };
    let allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let found = pod.annotations().filter(|(key, value)| concerned(key) && !allowed(value));
    let found: BTreeSet<String> = found.map(|(key, value)| format!("{key}={value:?}")).collect();
    (!found.is_empty()).then(|| {
        let noun = plural("annotation", found.len());
        let detail = format!("forbidden {noun} {}", Vec::from_iter(found).join(", "));
        Violation { reason: "seccompProfile", detail }
    })
}

/// Kernel parameters that a pod has for itself, and the first version that allows them.
const SAFE_SYSCTLS: [(&str, i64); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: Candidate<'_>) -> Option<Violation> {
    let asked = pod.context()["sysctls"].as_array().into_iter().flatten().map(name);
    let safe = |asked: &str| SAFE_SYSCTLS.iter().any(|(safe, since)| *safe == asked && pod.reached(*since));
    let found: Vec<&str> = asked.filter(|asked| !safe(asked)).collect();
    violation("forbidden sysctls", &found, || found.join(", "))
}

fn windows_host_process(pod: Candidate<'_>) -> Option<Violation> {
    let is_wrong = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let setters = setters(is_wrong(pod.context()), &pod.wrong_context(is_wrong));
    (!setters.is_empty()).then(|| {
        let who = setters.join(" and ");
        let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
        Violation { reason: "hostProcess", detail }
    })
}

fn privilege_escalation(pod: Candidate<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let wrong = pod.wrong_context(|context| context["allowPrivilegeEscalation"] != false);
    violation("allowPrivilegeEscalation != false", &wrong, || {
        format!("{} must set securityContext.allowPrivilegeEscalation=false", named("container", &wrong))
    })
}

fn capabilities(pod: Candidate<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let keeping = pod.wrong_context(|context| {
        let dropped = context["capabilities"]["drop"].as_array();
        dropped.is_none_or(|dropped| dropped.iter().all(|capability| capability != "ALL"))
    });
    let mut others = BTreeSet::new();
    let adders = pod.wrong_context(|context| adds_others(context, &["NET_BIND_SERVICE"], &mut others));
    let keeping = (!keeping.is_empty())
        .then(|| format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named("container", &keeping)));
    let adders = (!adders.is_empty()).then(|| adding(&adders, &others));
    let found: Vec<String> = keeping.into_iter().chain(adders).collect();
    (!found.is_empty()).then(|| Violation { reason: "unrestricted capabilities", detail: found.join("; ") })
}

/// What `restricted` lets a pod mount.
const VOLUME_TYPES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volume_types(pod: Candidate<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let mut wrong = Vec::new();
    for volume in pod.volumes() {
        if VOLUME_TYPES.iter().any(|kind| !volume[kind].is_null()) {
            continue;
        }
        wrong.push(name(volume));
        let mut fields = volume.as_object().into_iter().flatten();
        let kind = fields.find(|(key, value)| *key != "name" && !value.is_null());
        types.insert(kind.map_or_else(|| "unknown".to_owned(), |(key, _)| key.clone()));
    }
    violation("restricted volume types", &wrong, || {
        let noun = plural("restricted volume type", types.len());
        format!("{} {} {noun} {}", named("volume", &wrong), uses(wrong.len()), listed(&types))
    })
}

fn non_root(pod: Candidate<'_>) -> Option<Violation> {
    if pod.has_own_users() {
        return None;
    }
    let reason = "runAsNonRoot != true";
    let is_wrong = |context: &Value| context["runAsNonRoot"] == false;
    let setters = setters(is_wrong(pod.context()), &pod.wrong_context(is_wrong));
    if !setters.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and "));
        return Some(Violation { reason, detail });
    }
    if pod.context()["runAsNonRoot"] == true {
        return None;
    }
    let silent = pod.wrong_context(|context| context["runAsNonRoot"].is_null());
    violation(reason, &silent, || {
        format!("pod or {} must set securityContext.runAsNonRoot=true", named("container", &silent))
    })
}

fn root_user(pod: Candidate<'_>) -> Option<Violation> {
    if pod.has_own_users() {
        return None;
    }
    let is_wrong = |context: &Value| context["runAsUser"] == 0;
    let setters = setters(is_wrong(pod.context()), &pod.wrong_context(is_wrong));
    (!setters.is_empty()).then(|| {
        let detail = format!("{} must not set runAsUser=0", setters.join(" and "));
        Violation { reason: "runAsUser=0", detail }
    })
}

fn seccomp_profile(pod: Candidate<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    if let Some(wrong) = other_seccomp_profile(pod) {
        return Some(wrong);
    }
    if !pod.context()["seccompProfile"].is_null() {
        return None;
    }
    let silent = pod.wrong_context(|context| context["seccompProfile"].is_null());
    violation("seccompProfile", &silent, || {
        let who = named("container", &silent);
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"")
    })
}
