//! Argo CD: a repository that it applies.
//!
//! `root.yaml` is the one object that a person applies. It applies the projects and application sets in `argocd/`; these
//! apply `environments/<environment>` to the cluster of each region. What is applied are the overlays of Kustomize, with
//! the order in which objects are applied as waves.
//!
//! Which version runs is what `landfall ship` decides: the pod templates of Deployments are those of the repository when they
//! are made, and afterwards those of releases. What a release holds while it is under way, such as the weights of a route, is
//! nobody else's for so long ([`SHIP_MANAGER`]).

use std::collections::BTreeSet;

use landfall_model::{
    ARGOCD_NAMESPACE as NAMESPACE, DeployPolicy, DeployWindow, Finding, RegionRole, SHIP_MANAGER, Sources,
};
use serde_json::Value;

use crate::json::json;
use crate::kubernetes::{FIRST, day_of_week};
use crate::kustomize;
use crate::object::{compact, unless_empty};
use crate::target::{Output, Variant};
use crate::yaml;

const API: &str = "argoproj.io/v1alpha1";

/// The repository.
pub(crate) fn repository(variants: &[Variant], sources: &Sources) -> Output {
    let mut output = Output { files: kustomize::tree(variants, sources), findings: Vec::new() };
    let mut writer = yaml::Writer::default();
    let document = &variants[0].architecture.document;
    let name = document.name.as_str();
    let declared = document.delivery.gitops.as_ref().and_then(|gitops| gitops.repository.as_ref());
    if declared.is_none() {
        output.findings.push(
            Finding::warning("not-rendered", document.name.span, "Argo CD is not told where its repository is")
                .because("`delivery.gitops.repository` is not declared; a name that leads nowhere stands in its place")
                .help("write `gitops: { tool: argocd, repository: … }` below `delivery`"),
        );
    }
    let repository = declared.map_or_else(|| format!("https://{name}.invalid/deployment.git"), |url| url.value.clone());
    let pipeline = document.delivery.pipeline.as_ref();
    let branch = pipeline.and_then(|pipeline| pipeline.branch.as_ref()).map_or("HEAD", |branch| &branch.value);
    let source = |path: String| json!({ "repoURL": repository.clone(), "targetRevision": branch, "path": path });
    let root = json!({
        "apiVersion": API,
        "kind": "Application",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "project": "default",
            "source": compact(json!({
                "repoURL": repository.clone(),
                "targetRevision": branch,
                "path": "argocd",
                "directory": { "recurse": true },
            })),
            "destination": { "name": "in-cluster", "namespace": NAMESPACE },
            "syncPolicy": { "automated": { "prune": true, "selfHeal": true } },
        },
    });
    output.files.insert("root.yaml".to_owned(), writer.write(&root));
    for variant in variants {
        let own = &variant.name;
        let project = project(variant, name, &repository);
        output.files.insert(format!("argocd/projects/{own}.yaml"), writer.write(&project));
        let set = application_set(variant, name, source(format!("environments/{own}")));
        output.files.insert(format!("argocd/applications/{own}.yaml"), writer.write(&set));
        let waves = waves(variant);
        output.files.insert(format!("environments/{own}/kustomization.yaml"), writer.write(&waves));
    }
    output
}

/// The regions that run the environment, with the name of the cluster of each.
fn clusters(variant: &Variant, name: &str) -> Vec<(String, String)> {
    let regions = variant.architecture.document.platform.regions.iter();
    let running = regions.filter(|(_, region)| region.role.value != RegionRole::Archive);
    let clusters = running.map(|(region, _)| (region.to_string(), format!("{name}-{}-{}", variant.name, region.value)));
    let mut clusters: Vec<_> = clusters.collect();
    if clusters.is_empty() {
        clusters.push(("local".to_owned(), "in-cluster".to_owned()));
    }
    clusters
}

/// What may be applied where: the kinds and namespaces that the environment has, and no others.
fn project(variant: &Variant, name: &str, repository: &str) -> Value {
    let objects = &variant.rendered.objects;
    let namespaces: BTreeSet<&str> = objects.iter().filter_map(|object| object.namespace()).collect();
    let kinds = |of_cluster: bool| {
        let objects = objects.iter().filter(|object| object.namespace().is_none() == of_cluster);
        let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let kinds: BTreeSet<_> = objects.map(|object| (group(object.api_version()), object.kind())).collect();
        kinds.into_iter().map(|(group, kind)| json!({ "group": group, "kind": kind })).collect::<Vec<_>>()
    };
    let destinations = clusters(variant, name).into_iter().flat_map(|(_, cluster)| {
        namespaces.iter().map(move |namespace| json!({ "name": cluster.clone(), "namespace": *namespace }))
    });
    let environment = variant.architecture.environment();
    let windows = environment.into_iter().flat_map(|environment| &environment.deploy_windows).map(window).collect();
    json!({
        "apiVersion": API,
        "kind": "AppProject",
        "metadata": {
            "name": format!("{name}-{}", variant.name),
            "namespace": NAMESPACE,
            "annotations": { "argocd.argoproj.io/sync-wave": "-1" },
        },
        "spec": compact(json!({
            "description": environment.and_then(|environment| environment.purpose.as_ref()).map(|purpose| purpose.value.clone()),
            "sourceRepos": [repository],
            "destinations": destinations.collect::<Vec<_>>(),
            "clusterResourceWhitelist": unless_empty(kinds(true)),
            "namespaceResourceWhitelist": kinds(false),
            "syncWindows": unless_empty(windows),
        })),
    })
}

/// When it may be applied. Argo CD takes the begin as cron and a duration.
fn window(window: &DeployWindow) -> Value {
    let (from, to) = (window.from.value.minutes(), window.to.value.minutes());
    let length = (to + 24 * 60 - from) % (24 * 60);
    let length = if length == 0 { 24 * 60 } else { length };
    let days: BTreeSet<String> = window.days.iter().map(|day| day_of_week(day.value).to_string()).collect();
    let days = if days.is_empty() { "*".to_owned() } else { days.into_iter().collect::<Vec<_>>().join(",") };
    json!({
        "kind": "allow",
        "schedule": format!("{} {} * * {days}", from % 60, from / 60),
        "duration": format!("{length}m"),
        "timeZone": window.time_zone.value.clone(),
        "applications": ["*"],
    })
}

/// One application for each region. What is deployed by hand or after approvals waits for somebody to start it.
fn application_set(variant: &Variant, name: &str, source: Value) -> Value {
    let own = &variant.name;
    let environment = variant.architecture.environment();
    let automatic = environment.is_some_and(|environment| environment.deploy.value == DeployPolicy::Automatic);
    let clusters = clusters(variant, name).into_iter();
    let elements: Vec<Value> =
        clusters.map(|(region, cluster)| json!({ "region": region, "cluster": cluster })).collect();
    let automated = automatic.then(|| json!({ "prune": true, "selfHeal": true }));
    json!({
        "apiVersion": API,
        "kind": "ApplicationSet",
        "metadata": { "name": format!("{name}-{own}"), "namespace": NAMESPACE },
        "spec": {
            "goTemplate": true,
            "goTemplateOptions": ["missingkey=error"],
            "generators": [{ "list": { "elements": elements } }],
            // Without it, taking a region out of the list would delete everything that runs there.
            "syncPolicy": { "preserveResourcesOnDeletion": true },
            "template": {
                "metadata": {
                    "name": format!("{name}-{own}-{{{{ .region }}}}"),
                    "labels": { "landfall.dev/environment": own.clone(), "landfall.dev/region": "{{ .region }}" },
                },
                "spec": {
                    "project": format!("{name}-{own}"),
                    "source": source,
                    "destination": {
                        "name": "{{ .cluster }}",
                        "namespace": variant.architecture.namespace().as_str(),
                    },
                    "ignoreDifferences": ignored(variant),
                    "syncPolicy": compact(json!({
                        "automated": automated,
                        "syncOptions": ["ServerSideApply=true", "RespectIgnoreDifferences=true", "PruneLast=true"],
                        "retry": { "limit": 3, "backoff": { "duration": "10s", "factor": 2, "maxDuration": "3m" } },
                    })),
                },
            },
        },
    })
}

/// What the repository does not decide (<https://argo-cd.readthedocs.io/en/stable/user-guide/diffing/>).
fn ignored(variant: &Variant) -> Value {
    let ships = variant.rendered.objects.iter().any(|object| object.kind() == "Deployment");
    let templates = ships.then(
        || json!({ "group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/template", "/spec/strategy"] }),
    );
    let held = json!({ "group": "*", "kind": "*", "managedFieldsManagers": [SHIP_MANAGER] });
    json!(templates.into_iter().chain([held]).collect::<Vec<_>>())
}

/// The overlay of the environment, with the kinds that are applied first in waves before the others.
fn waves(variant: &Variant) -> Value {
    let count = FIRST.len();
    let present = |kind: &&&str| variant.rendered.objects.iter().any(|object| object.kind() == **kind);
    let patches: Vec<Value> = FIRST
        .iter()
        .filter(present)
        .map(|kind| {
            let place = FIRST.iter().position(|first| first == kind).unwrap_or(count);
            let wave = format!("-{}", count - place);
            let version = variant.rendered.objects.iter().find(|object| object.kind() == *kind);
            let version = version.map_or("v1", |object| object.api_version());
            let patch = format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: every\n  annotations:\n    argocd.argoproj.io/sync-wave: \"{wave}\"\n"
            );
            json!({ "target": { "kind": *kind }, "patch": patch })
        })
        .collect();
    compact(json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [format!("../../overlays/{}", variant.name)],
        "patches": unless_empty(patches),
    }))
}
