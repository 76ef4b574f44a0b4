//! Pod Security admission: holds pods, and the templates of pods, against the standard that the labels of their
//! namespace name. The rules are those of <https://kubernetes.io/docs/concepts/security/pod-security-admission/>, the
//! words those of Kubernetes 1.36 (`k8s.io/pod-security-admission/admission`).
//!
//! Not handled: what `audit` asks for, as there is no audit log (its labels must be right all the same), and exemptions
//! and defaults for the whole cluster, which Kubernetes takes from a file of its API server.

mod checks;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use self::checks::{Violation, violations};
use crate::api::failure::{Failure, Subject};
use crate::api::{Call, Warnings, cause};
use crate::scheme::Cause;
use crate::store::{Collection, Key};

/// What the labels of a namespace begin with.
const LABEL: &str = "pod-security.kubernetes.io/";

/// How many pods of a namespace are looked at when its standard becomes stricter, as in Kubernetes.
///
/// Not handled: when there are more, Kubernetes looks first at one pod of each controller, and it stops after a second.
const MAX_EXISTING: usize = 3000;

/// The subresources of pods that change nothing that a standard speaks of.
const FREE_SUBRESOURCES: [&str; 8] = ["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"];

/// How much a pod may do, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl FromStr for Level {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// The version of Kubernetes whose standards are meant. The latest is newer than any that has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    /// `v1.N`.
    Minor(i64),
    Latest,
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let digits = text.strip_prefix("v1.").unwrap_or_default();
        let canonical = digits == "0" || !digits.starts_with('0');
        match digits.parse::<i64>() {
            Ok(minor) if canonical && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self::Minor(minor)),
            _ => Err("must be \"latest\" or \"v1.x\""),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(formatter, "v1.{minor}"),
            Self::Latest => formatter.write_str("latest"),
        }
    }
}

/// A standard that pods are held against: `restricted:v1.30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standard {
    level: Level,
    version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.level, self.version)
    }
}

/// What a label says.
enum Said<T> {
    Nothing,
    Nonsense,
    Value(T),
}

impl<T> Said<T> {
    fn or(self, nothing: T, nonsense: T) -> T {
        match self {
            Self::Nothing => nothing,
            Self::Nonsense => nonsense,
            Self::Value(value) => value,
        }
    }
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    enforce: Standard,
    warn: Standard,
}

impl Policy {
    /// The policy that labels name, and what is wrong with them. A level that cannot be read is the strictest where it
    /// is enforced, and none where it is warned of.
    fn read(labels: &Value) -> (Self, Vec<Cause>) {
        let mut problems = Vec::new();
        let enforced = said::<Level>(labels, "enforce", &mut problems);
        let enforced_version = said(labels, "enforce-version", &mut problems);
        said::<Level>(labels, "audit", &mut problems);
        said::<Version>(labels, "audit-version", &mut problems);
        let warned = said::<Level>(labels, "warn", &mut problems);
        let warned_version = said(labels, "warn-version", &mut problems);

        let is_enforced = matches!(enforced, Said::Value(_));
        let enforce = Standard {
            level: enforced.or(Level::Privileged, Level::Restricted),
            version: enforced_version.or(Version::Latest, Version::Latest),
        };
        // Of what is enforced is warned too, where the labels do not say otherwise.
        let warn = match warned {
            Said::Nothing if is_enforced && enforce.level > Level::Privileged => {
                Standard { level: enforce.level, version: warned_version.or(enforce.version, Version::Latest) }
            }
            warned => Standard {
                level: warned.or(Level::Privileged, Level::Privileged),
                version: warned_version.or(Version::Latest, Version::Latest),
            },
        };
        (Self { enforce, warn }, problems)
    }

    /// The policy of the namespace that a request writes into. `None`: it asks for nothing.
    fn of(call: &Call<'_>) -> Option<Self> {
        let key = Key::new(&Collection::new("", "namespaces"), "", &call.target.namespace);
        let namespace = call.state.store.get(&key)?.value();
        let labels = &namespace["metadata"]["labels"];
        // Every pod passes here, and few namespaces have such labels.
        let asks = labels.as_object()?.keys().any(|label| label.starts_with(LABEL));
        asks.then(|| Self::read(labels).0)
    }
}

fn said<T: FromStr<Err = &'static str>>(labels: &Value, name: &str, problems: &mut Vec<Cause>) -> Said<T> {
    let label = format!("{LABEL}{name}");
    let Some(text) = labels[&label].as_str() else { return Said::Nothing };
    match text.parse::<T>() {
        Ok(value) => Said::Value(value),
        Err(why) => {
            problems.push(cause::invalid(&format!("metadata.labels[{label}]"), &json!(text), why));
            Said::Nonsense
        }
    }
}

/// Refuses a pod that violates what its namespace enforces, and a namespace whose labels cannot be read; warns of the
/// rest. `new` is absent from deletions, `old` from creations.
pub(super) fn check(
    call: &Call<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    let Some(new) = new else { return Ok(()) };
    let (group, plural) = (call.resource.group.as_str(), call.resource.plural.as_str());
    let subresource = call.target.subresource.as_str();
    match (group, plural) {
        ("", "pods") if FREE_SUBRESOURCES.contains(&subresource) => Ok(()),
        ("", "pods") => check_pod(call, new, old, warnings),
        _ if !subresource.is_empty() => Ok(()),
        ("", "namespaces") => check_namespace(call, new, old, warnings),
        _ => {
            if let Some(template) = template(group, plural, new)
                && let Some(policy) = Policy::of(call)
            {
                warn(policy.warn, template, warnings);
            }
            Ok(())
        }
    }
}

/// The template of the pods that an object makes.
fn template<'a>(group: &str, plural: &str, object: &'a Value) -> Option<&'a Value> {
    let template = match (group, plural) {
        ("", "podtemplates") => &object["template"],
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => &object["spec"]["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    template.is_object().then_some(template)
}

fn check_pod(call: &Call<'_>, pod: &Value, old: Option<&Value>, warnings: &mut Warnings) -> Result<(), Failure> {
    if old.is_some_and(|old| !runs_something_else(pod, old)) {
        return Ok(());
    }
    let Some(policy) = Policy::of(call) else { return Ok(()) };
    let found = violations(policy.enforce, pod);
    if found.is_empty() {
        warn(policy.warn, pod, warnings);
        return Ok(());
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, in_detail(&found));
    Err(Failure::forbidden(&Subject::resource(call.resource, name), &why))
}

/// Whether an update brings other containers or images. Kubernetes looks at no other update of a pod, as nothing else
/// that a standard speaks of can change; so pods can still be labelled in a namespace that has become stricter.
fn runs_something_else(new: &Value, old: &Value) -> bool {
    let others = |list| images(new, list).ne(images(old, list));
    let known = |container: &Value| {
        let mut before = items(old, "ephemeralContainers");
        before.any(|old| old["name"] == container["name"] && old["image"] == container["image"])
    };
    others("containers") || others("initContainers") || !items(new, "ephemeralContainers").all(known)
}

fn images<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    items(pod, list).map(|container| &container["image"])
}

fn items<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    pod["spec"][list].as_array().into_iter().flatten()
}

fn warn(standard: Standard, pod: &Value, warnings: &mut Warnings) {
    let found = violations(standard, pod);
    if !found.is_empty() {
        warnings.add(format!("would violate PodSecurity \"{standard}\": {}", in_detail(&found)));
    }
}

fn in_detail(violations: &[Violation]) -> String {
    let texts: Vec<String> =
        violations.iter().map(|violation| format!("{} ({})", violation.reason, violation.detail)).collect();
    texts.join(", ")
}

fn check_namespace(call: &Call<'_>, new: &Value, old: Option<&Value>, warnings: &mut Warnings) -> Result<(), Failure> {
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let (policy, problems) = Policy::read(&new["metadata"]["labels"]);
    let before = old.map(|old| Policy::read(&old["metadata"]["labels"]));
    // What was wrong before does not stand in the way of other changes.
    let known = before.as_ref().is_some_and(|(_, known)| *known == problems);
    if !problems.is_empty() && !known {
        return Err(Failure::invalid(&call.resource.group, &call.resource.kind, name, &problems));
    }
    if let Some((before, _)) = before
        && is_stricter(policy.enforce, before.enforce)
    {
        let pods = call.state.store.list(&Collection::new("", "pods"), Some(name)).records;
        let checked = pods.iter().take(MAX_EXISTING).map(|pod| pod.value());
        let found = existing(name, policy.enforce, checked);
        if pods.len() > MAX_EXISTING {
            warnings.add(format!(
                "new PodSecurity enforce level only checked against the first {MAX_EXISTING} of {} existing pods",
                pods.len()
            ));
        }
        for warning in found {
            warnings.add(warning);
        }
    }
    Ok(())
}

/// Whether pods that met `before` may violate `now`. Of two versions none is stricter, so both can.
fn is_stricter(now: Standard, before: Standard) -> bool {
    now.level > Level::Privileged && (now.version != before.version || now.level > before.level)
}

/// What is told of the pods of a namespace that violate its new standard: those with the same violations together.
fn existing(namespace: &str, standard: Standard, pods: impl Iterator<Item = impl Borrow<Value>>) -> Vec<String> {
    let mut alike: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods {
        let pod: &Value = pod.borrow();
        let reasons: Vec<&str> = violations(standard, pod).iter().map(|violation| violation.reason).collect();
        if reasons.is_empty() {
            continue;
        }
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let (first, count) = alike.entry(reasons.join(", ")).or_insert_with(|| (name.to_owned(), 0));
        if name < first.as_str() {
            name.clone_into(first);
        }
        *count += 1;
    }
    if alike.is_empty() {
        return Vec::new();
    }
    let mut texts: Vec<String> = alike
        .into_iter()
        .map(|(reasons, (first, count))| match count {
            1 => format!("{first}: {reasons}"),
            2 => format!("{first} (and 1 other pod): {reasons}"),
            _ => format!("{first} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    texts.sort();
    let head =
        format!("existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\"");
    std::iter::once(head).chain(texts).collect()
}
