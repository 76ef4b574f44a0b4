//! References between rendered objects that lead nowhere.

use std::collections::{BTreeSet, HashMap, HashSet};

use landfall_model::{Finding, Severity, Span};
use serde_json::Value;

use super::raw::{RawObjects, text};
use super::wording::{count, proof, verdict};
use crate::cluster::{Cluster, Direction, ObjectKey, Problem, RuleRef};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "dangling-reference",
    subject: Subject::Completeness,
    severity: Severity::Error,
    summary: "Every reference from one rendered object to another leads somewhere.",
    explanation: "Kubernetes accepts an Ingress without its Service, a pod without its Secret, an autoscaler without its \
        Deployment and a NetworkPolicy that selects nobody; each then fails quietly at run time, or worse, protects \
        nothing. The rule follows the references of all rendered objects, with patches and raw objects, and knows the \
        Secrets and Services that operators make. An object that cannot be read as Kubernetes reads it is reported too. \
        The analysis is the one of the rule `isolation`, and says nothing when the file was checked without rendering. \
        Not handled: namespaces and objects that only exist in the cluster; selectors for namespaces that are not \
        rendered are taken to be right.",
    passing: include_str!("../../tests/it/rules/dangling-reference/ok.yaml"),
    failing: include_str!("../../tests/it/rules/dangling-reference/bad.yaml"),
    // The rule `isolation` builds the cluster and calls `report`.
    run: None,
};

/// Tells the problems of the cluster that are about references and shapes.
pub(super) fn report(context: &Context<'_>, cluster: &Cluster, report: &mut Report) {
    let rendered = RenderedObjects::new(context.objects);
    let raw = RawObjects::new(context.architecture);
    let mut told = 0;
    let mut messages = BTreeSet::new();
    let meant = |problem: &&Problem| is_of_an_operator(&rendered, problem) || selects_some_pods(cluster, problem);
    for problem in cluster.problems().iter().filter(|problem| !meant(problem)) {
        let Some((object, severity, message, help)) = describe(&rendered, problem) else { continue };
        if !messages.insert(message.clone()) {
            // A container may read several keys of one Secret.
            continue;
        }
        let (span, subject) = place(context, &rendered, &raw, object.as_ref());
        let finding = Finding::new(RULE.name, severity, span, message).help(help);
        report.findings.push(finding.on(subject.unwrap_or_else(|| "objects".to_owned())));
        told += 1;
    }
    let derivation = vec![format!("{} looked at", count(context.objects.len(), "object"))];
    let statement = "every reference between the rendered objects leads somewhere";
    report.proofs.push(proof(RULE.name, "objects", statement, verdict(told), Span::NONE, derivation));
}

/// The rendered objects by their names: a large set has as many problems as services, and each looks some objects up.
struct RenderedObjects<'a> {
    /// The first object of each kind, namespace and name.
    by_key: HashMap<[&'a str; 3], &'a Value>,
    /// The names of the network policies, in whatever namespace.
    policies: HashSet<&'a str>,
    /// Every namespace that an object names.
    namespaces: HashSet<&'a str>,
}

impl<'a> RenderedObjects<'a> {
    fn new(objects: &'a [Value]) -> Self {
        let mut rendered = Self { by_key: HashMap::new(), policies: HashSet::new(), namespaces: HashSet::new() };
        for object in objects {
            let Some(metadata) = object.get("metadata") else { continue };
            let (kind, name) = (text(object, "kind"), text(metadata, "name"));
            let namespace = metadata.get("namespace").and_then(Value::as_str);
            rendered.by_key.entry([kind, namespace.unwrap_or("default"), name]).or_insert(object);
            rendered.namespaces.insert(namespace.unwrap_or_default());
            if kind == "NetworkPolicy" {
                rendered.policies.insert(name);
            }
        }
        rendered
    }

    fn get(&self, key: &ObjectKey) -> Option<&'a Value> {
        self.by_key.get(&[key.kind.as_str(), &key.namespace, &key.name]).copied()
    }
}

/// Labels that controllers give to some pods of a workload, so that no template has them.
const LABELS_OF_SOME_PODS: [&str; 6] = [
    "apps.kubernetes.io/pod-index",
    "statefulset.kubernetes.io/pod-name",
    "batch.kubernetes.io/job-completion-index",
    "cnpg.io/instanceRole",
    "cnpg.io/instanceName",
    "redis-role",
];

/// Whether a Service only seems to select nothing, because it selects one pod of a workload, such as its primary.
fn selects_some_pods(cluster: &Cluster, problem: &Problem) -> bool {
    let Problem::ServiceSelectsNothing { service } = problem else { return false };
    let Some((selected, _)) = cluster.service(&service.namespace, &service.name) else { return false };
    let of_some = |key: &str| LABELS_OF_SOME_PODS.contains(&key);
    let of_all = || selected.selector.iter().filter(|(key, _)| !of_some(key));
    selected.selector.keys().any(|key| of_some(key))
        && cluster.workloads().any(|(_, workload)| {
            workload.key.namespace == service.namespace
                && of_all().all(|(key, value)| workload.labels.get(key) == Some(value))
        })
}

/// Whether it is about a policy that an operator makes, which is added for the analysis.
fn is_of_an_operator(rendered: &RenderedObjects<'_>, problem: &Problem) -> bool {
    let policy = match problem {
        Problem::PolicySelectsNothing { policy } | Problem::RulesIgnored { policy, .. } => policy,
        Problem::PeerMatchesNothing { rule, .. } | Problem::NamedPortUnknown { rule, .. } => &rule.policy,
        _ => return false,
    };
    !rendered.policies.contains(policy.name.as_str())
}

/// The raw object that the user wrote, or the service or store that it was rendered from.
fn place(
    context: &Context<'_>,
    rendered: &RenderedObjects<'_>,
    raw: &RawObjects<'_>,
    key: Option<&ObjectKey>,
) -> (Span, Option<String>) {
    let Some(key) = key else { return (Span::NONE, None) };
    if let Some(span) = raw.span_of(&key.kind, &key.namespace, &key.name) {
        return (span, Some(key.to_string()));
    }
    let label = rendered
        .get(key)
        .and_then(|object| object.pointer("/metadata/labels/app.kubernetes.io~1name"))
        .and_then(Value::as_str);
    let element = label.and_then(|label| context.architecture.element(label));
    match element {
        Some(element) => (context.architecture.span_of(&element), Some(element.to_string())),
        None => (Span::NONE, Some(key.to_string())),
    }
}

type Told = (Option<ObjectKey>, Severity, String, String);

fn describe(rendered: &RenderedObjects<'_>, problem: &Problem) -> Option<Told> {
    let told = |key: &ObjectKey, severity, message: String, help: &str| {
        Some((Some(key.clone()), severity, message, help.to_owned()))
    };
    match problem {
        Problem::HostNetwork { .. } | Problem::OtherPolicyLanguage { .. } => None,
        Problem::MalformedHeader { index, malformed } => Some((
            None,
            Severity::Error,
            format!("object {} of the set is no Kubernetes object: {malformed}", index + 1),
            "give it `apiVersion`, `kind` and `metadata.name`".to_owned(),
        )),
        Problem::Malformed { object, malformed } => told(
            object,
            Severity::Error,
            format!("the API server refuses `{object}`: {malformed}"),
            "mend the field; until then the object takes no part in any proof",
        ),
        Problem::Duplicate { object } => told(
            object,
            Severity::Error,
            format!("there are two objects `{object}`"),
            "keep one: the later one replaces the other when they are applied",
        ),
        Problem::PolicySelectsNothing { policy } => told(
            policy,
            Severity::Error,
            format!("`{policy}` selects no pod, so it protects nothing"),
            "compare its `podSelector` with the labels of the pods",
        ),
        Problem::RulesIgnored { policy, direction } => {
            let (list, kind) = names(*direction);
            told(
                policy,
                Severity::Error,
                format!("`{policy}` has rules under `{list}` without effect: its `policyTypes` leave out `{kind}`"),
                "add the type to `policyTypes`, or remove the rules",
            )
        }
        Problem::PeerMatchesNothing { rule, peer } => {
            if is_elsewhere(rendered, rule, *peer) {
                return None;
            }
            let (list, _) = names(rule.direction);
            let peers = if rule.direction == Direction::Ingress { "from" } else { "to" };
            told(
                &rule.policy,
                Severity::Error,
                format!(
                    "`{}` names a peer that does not exist: `spec.{list}[{}].{peers}[{peer}]` finds no pod",
                    rule.policy, rule.index
                ),
                "compare the selector with the labels of the pods, and remember that `podSelector` alone means the same namespace",
            )
        }
        Problem::NamedPortUnknown { rule, name, protocol } => told(
            &rule.policy,
            Severity::Error,
            format!("`{}` names the port `{name}` ({protocol}), which no pod declares", rule.policy),
            "use the number, or name the port of the container",
        ),
        Problem::Missing { by, path, object } => told(
            by,
            Severity::Error,
            format!("`{by}` refers to `{object}`, which does not exist"),
            &format!("it is named at `{path}`: declare it, or mend the name"),
        ),
        Problem::MissingKey { by, path, object, key } => told(
            by,
            Severity::Error,
            format!("`{by}` reads the key `{key}` of `{object}`, which does not have it"),
            &format!("it is named at `{path}`: add the key, or mend the name"),
        ),
        Problem::BackendPortMissing { route, service, port, .. } => told(
            route,
            Severity::Error,
            format!("`{route}` leads to port {port} of `{service}`, which does not have it"),
            "route to a port of the Service, not of the container",
        ),
        Problem::ServiceSelectsNothing { service } => told(
            service,
            Severity::Error,
            format!("`{service}` selects no pod, so it has no endpoints"),
            "compare its selector with the labels of the pods",
        ),
        Problem::TargetPortUndeclared { service, port, protocol } => told(
            service,
            Severity::Warning,
            format!("`{service}` sends to port {port}/{protocol}, which no pod behind it declares"),
            "declare the port of the container, or mend `targetPort`",
        ),
        Problem::BudgetSelectsNothing { budget } => told(
            budget,
            Severity::Error,
            format!("`{budget}` selects no pod, so it protects nothing from eviction"),
            "compare its selector with the labels of the pods",
        ),
    }
}

fn names(direction: Direction) -> (&'static str, &'static str) {
    match direction {
        Direction::Ingress => ("ingress", "Ingress"),
        Direction::Egress => ("egress", "Egress"),
    }
}

/// Whether the peer is looked for in a namespace that is not rendered, such as that of an operator.
fn is_elsewhere(rendered: &RenderedObjects<'_>, rule: &RuleRef, peer: usize) -> bool {
    let (list, _) = names(rule.direction);
    let peers = if rule.direction == Direction::Ingress { "from" } else { "to" };
    let policy = rendered.get(&rule.policy);
    let selector = policy
        .and_then(|policy| policy.pointer(&format!("/spec/{list}/{}/{peers}/{peer}/namespaceSelector", rule.index)));
    let Some(selector) = selector else { return false };
    match selector.pointer("/matchLabels/kubernetes.io~1metadata.name").and_then(Value::as_str) {
        Some(name) => !rendered.namespaces.contains(name),
        // Labels of namespaces that somebody else makes.
        None => true,
    }
}
