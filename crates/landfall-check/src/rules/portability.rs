//! Portability: nothing depends on a cloud provider that the file does not list.

use std::collections::BTreeMap;

use landfall_model::{Architecture, Finding, Portability, Provider, SecretBackend, Severity, Span, StoreProvider};
use serde_json::Value;

use super::raw::RawObjects;
use super::wording::{count, names, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "portability",
    subject: Subject::Completeness,
    severity: Severity::Error,
    summary: "Nothing depends on a cloud provider beyond what `platform.portability` and `platform.providers` say.",
    explanation: "Under `portability: neutral` the platform must run on any Kubernetes: a managed store, a provider's machine \
        type, a secret back end or registry of a provider, and rendered objects that only a provider's controller \
        understands are errors. Otherwise only the providers under `platform.providers` may be used, when any is listed. \
        The derivation counts the rendered objects by class: core Kubernetes, open-source custom resources, and those of a \
        provider. An image registry counts because pulling needs the provider's credentials.",
    passing: include_str!("../../tests/it/rules/portability/ok.yaml"),
    failing: include_str!("../../tests/it/rules/portability/bad.yaml"),
    run: Some(run),
};

/// Registry hosts by their ending.
const REGISTRIES: [(&str, Provider); 6] = [
    ("amazonaws.com", Provider::Aws),
    ("public.ecr.aws", Provider::Aws),
    ("azurecr.io", Provider::Azure),
    ("mcr.microsoft.com", Provider::Azure),
    ("gcr.io", Provider::Gcp),
    ("pkg.dev", Provider::Gcp),
];

/// Endings of API groups and prefixes of annotations that only a provider's controllers understand.
const GROUPS: [(&str, Provider); 8] = [
    ("k8s.aws", Provider::Aws),
    ("amazonaws.com", Provider::Aws),
    ("aws.upbound.io", Provider::Aws),
    ("azure.com", Provider::Azure),
    ("azure.upbound.io", Provider::Azure),
    ("cnrm.cloud.google.com", Provider::Gcp),
    ("networking.gke.io", Provider::Gcp),
    ("cloud.google.com", Provider::Gcp),
];

const ANNOTATIONS: [(&str, Provider); 7] = [
    ("service.beta.kubernetes.io/aws-", Provider::Aws),
    ("alb.ingress.kubernetes.io/", Provider::Aws),
    ("eks.amazonaws.com/", Provider::Aws),
    ("service.beta.kubernetes.io/azure-", Provider::Azure),
    ("azure.workload.identity/", Provider::Azure),
    ("cloud.google.com/", Provider::Gcp),
    ("iam.gke.io/", Provider::Gcp),
];

/// API groups of Kubernetes itself.
const CORE: [&str; 14] = [
    "",
    "apps",
    "batch",
    "autoscaling",
    "policy",
    "networking.k8s.io",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "node.k8s.io",
];

/// Something that binds the platform to a provider.
struct Dependency {
    provider: Option<Provider>,
    what: String,
    subject: String,
    span: Span,
    help: &'static str,
}

fn word(provider: Provider) -> &'static str {
    match provider {
        Provider::Aws => "aws",
        Provider::Azure => "azure",
        Provider::Gcp => "gcp",
    }
}

pub(super) fn registry_provider(host: &str) -> Option<Provider> {
    let host = host.split('/').next().unwrap_or(host);
    let is =
        |ending: &str| host == ending || host.strip_suffix(ending).is_some_and(|front| front.ends_with(['.', '-']));
    REGISTRIES.iter().find(|(ending, _)| is(ending)).map(|(_, provider)| *provider)
}

fn run(context: &Context<'_>, report: &mut Report) {
    let platform = &context.architecture.document.platform;
    let neutral = platform.portability.value == Portability::Neutral;
    if !neutral && platform.providers.is_empty() {
        return;
    }
    let mut against = 0;
    for dependency in dependencies(context) {
        let listed = dependency
            .provider
            .is_some_and(|provider| platform.providers.iter().any(|listed| listed.value == provider));
        let unclear = dependency.provider.is_none();
        if !neutral && (listed || unclear) {
            continue;
        }
        against += 1;
        let of = dependency
            .provider
            .map_or_else(|| "a cloud provider".to_owned(), |provider| format!("`{}`", word(provider)));
        let mut finding = Finding::error(RULE.name, dependency.span, format!("{} depends on {of}", dependency.what))
            .on(dependency.subject);
        if neutral {
            finding = finding.also(platform.portability.span, "nothing may depend on a provider").help(dependency.help);
        } else {
            let listed = names(platform.providers.iter().map(|provider| word(provider.value)));
            finding = finding
                .also(platform.providers[0].span, "the providers that may be used")
                .because(format!("`platform.providers` lists {listed}"));
            finding = finding.help("use a resource of a listed provider, or list this one too");
        }
        report.findings.push(finding);
    }
    let statement = if neutral {
        "the platform runs on any Kubernetes".to_owned()
    } else {
        let providers = names(platform.providers.iter().map(|provider| word(provider.value)));
        format!("the platform depends on no other provider than {providers}")
    };
    let span = if neutral { platform.portability.span } else { platform.providers[0].span };
    report.proofs.push(proof(RULE.name, "platform.portability", statement, verdict(against), span, classes(context)));
}

/// How many rendered objects there are of each class.
fn classes(context: &Context<'_>) -> Vec<String> {
    let mut core = 0;
    let mut custom: BTreeMap<&str, usize> = BTreeMap::new();
    for object in context.objects {
        let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        if CORE.contains(&group) {
            core += 1;
        } else {
            *custom.entry(group).or_default() += 1;
        }
    }
    if context.objects.is_empty() {
        return vec!["checked without rendering: the objects themselves were not looked at".to_owned()];
    }
    let mut lines = vec![format!("{} of Kubernetes itself", count(core, "object"))];
    lines.extend(custom.into_iter().map(|(group, number)| {
        let class = if group_provider(group).is_some() { "of a provider" } else { "open source" };
        format!("{} of `{group}`: {class}", count(number, "object"))
    }));
    lines
}

fn group_provider(group: &str) -> Option<Provider> {
    let is = |ending: &str| group == ending || group.strip_suffix(ending).is_some_and(|front| front.ends_with('.'));
    GROUPS.iter().find(|(ending, _)| is(ending)).map(|(_, provider)| *provider)
}

fn dependencies(context: &Context<'_>) -> Vec<Dependency> {
    let architecture = context.architecture;
    let document = &architecture.document;
    let mut all = Vec::new();
    for (name, store) in &document.stores {
        let provider = match store.provider.value {
            StoreProvider::Aws => Provider::Aws,
            StoreProvider::Azure => Provider::Azure,
            StoreProvider::Gcp => Provider::Gcp,
            StoreProvider::Operator | StoreProvider::Statefulset => continue,
        };
        let help = "run it with an operator: remove `provider`, and the class of instance with it";
        let what = format!("the managed store `{name}`");
        all.push(Dependency {
            provider: Some(provider),
            what,
            subject: format!("store.{name}"),
            span: store.provider.span,
            help,
        });
    }
    all.extend(machines(architecture));
    let backend = &document.security.secrets.backend;
    let provider = match backend.value {
        SecretBackend::Aws => Some(Provider::Aws),
        SecretBackend::Azure => Some(Provider::Azure),
        SecretBackend::Gcp => Some(Provider::Gcp),
        SecretBackend::Cluster | SecretBackend::Vault => None,
    };
    if provider.is_some() {
        let help = "keep secrets in `vault` or in the cluster";
        let subject = "security.secrets".to_owned();
        all.push(Dependency { provider, what: "the secret back end".to_owned(), subject, span: backend.span, help });
    }
    if let Some(registry) = &document.platform.registry
        && let Some(provider) = registry_provider(&registry.host)
    {
        let (what, subject) = (format!("the registry `{}`", registry.host), "platform.registry".to_owned());
        let help = "use a registry that runs anywhere, such as Harbor or the one of the code host";
        all.push(Dependency { provider: Some(provider), what, subject, span: registry.host.span, help });
    }
    all.extend(objects(context));
    all
}

fn machines(architecture: &Architecture) -> Vec<Dependency> {
    let region =
        architecture.primary_region().and_then(|(_, region)| region.provider.as_ref()).map(|provider| provider.value);
    let machine = |(name, pool): (String, &landfall_model::NodePool)| {
        let machine = pool.machine.as_ref()?;
        let what = format!("the machine type `{machine}` of the node pool `{name}`");
        let help = "state `cpu` and `memory` alone; whoever makes the cluster chooses the machine";
        Some(Dependency { provider: region, what, subject: format!("pool.{name}"), span: machine.span, help })
    };
    architecture.pools().into_iter().filter_map(machine).collect()
}

fn objects(context: &Context<'_>) -> Vec<Dependency> {
    let raw = RawObjects::new(context.architecture);
    let mut all = Vec::new();
    for object in context.objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let group = text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
        let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
        let annotated = annotations.into_iter().flatten().find_map(|(key, _)| {
            let known = ANNOTATIONS.iter().find(|(prefix, _)| key.starts_with(prefix));
            known.map(|(_, provider)| (*provider, format!(" by its annotation `{key}`")))
        });
        let Some((provider, how)) = group_provider(group).map(|provider| (provider, String::new())).or(annotated)
        else {
            continue;
        };
        let subject = format!("{}/{}", text("/kind"), text("/metadata/name"));
        let span = raw.span(object);
        let help = "replace it by an object that every Kubernetes understands";
        all.push(Dependency { provider: Some(provider), what: format!("`{subject}`{how}"), subject, span, help });
    }
    all
}
