//! What a production environment admits: images that a release has let through, and nothing else.
//!
//! A `ValidatingAdmissionPolicy` looks at everything that starts containers in the namespaces of the environment. Its parameter
//! is an `AdmittedImages`, which names what runs and what the release under way brings; whoever carries a release writes it when
//! the gates are open. An administrator can take the policy away or write the list: [`crate::drift()`] tells.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, CustomResource, Resource};
use landfall_model::{Architecture, Element};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::audit::{Action, Author, Fact};
use crate::cluster::records::{self, Record};
use crate::cluster::{ClusterError, During as _, MANAGER, definition, if_there, is_status};
use crate::release::ReleaseSpec;

/// How the policy refuses an image.
pub(crate) const REFUSAL: &str = "no release has let this image through";

/// The images that an environment admits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "AdmittedImages",
    plural = "admittedimages",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdmittedImagesSpec {
    /// The architecture.
    pub architecture: String,
    /// Each image as pods name it.
    pub images: Vec<String>,
    /// The namespaces in which they are admitted.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// The release that brought the last change.
    #[serde(default)]
    pub releases: Vec<String>,
}

impl Record for AdmittedImages {
    fn architecture(&self) -> &str {
        &self.spec.architecture
    }
}

/// Groups of people who get a role.
#[derive(Debug, Clone, Default)]
pub struct People {
    /// Who ships.
    pub shippers: Vec<String>,
    /// Who approves and brings evidence.
    pub approvers: Vec<String>,
}

/// Everything that protects an environment, without the images that it admits.
pub fn protection(architecture: &Architecture, people: &People) -> Vec<Value> {
    let (name, namespace) = (architecture.document.name.as_str(), architecture.namespace().as_str());
    let mut objects = vec![policy(name, namespace), binding(name, namespace, &namespaces(architecture))];
    objects.push(role("landfall-shipper", namespace, &shipper_rules()));
    objects.push(role("landfall-approver", namespace, &approver_rules()));
    objects.extend(role_binding("landfall-shipper", namespace, &people.shippers));
    objects.extend(role_binding("landfall-approver", namespace, &people.approvers));
    objects
}

/// Protects an environment: from now on it admits what runs there, and what releases bring. The answer is what it admits.
pub async fn protect(
    client: &Client,
    architecture: &Architecture,
    people: &People,
    author: &Author,
) -> Result<Vec<String>, ClusterError> {
    definition::ensure(client).await?;
    let (name, namespace) = (architecture.document.name.as_str(), architecture.namespace().as_str());
    let namespaces = namespaces(architecture);
    let images: Vec<String> = running(client, &namespaces).await?.into_iter().collect();
    author
        .write(Fact {
            action: Action::Protect,
            subject: namespace.to_owned(),
            digest: None,
            says: format!("only what releases bring is admitted to {}, besides what runs there", namespaces.join(", ")),
            evidence: images.clone(),
        })
        .await?;
    let spec =
        AdmittedImagesSpec { architecture: name.to_owned(), images: images.clone(), namespaces, releases: Vec::new() };
    write(client, namespace, spec).await?;
    // The list first: without it the policy would refuse everything.
    for object in protection(architecture, people) {
        match object["kind"].as_str() {
            Some("ValidatingAdmissionPolicy") => {
                apply(&Api::<ValidatingAdmissionPolicy>::all(client.clone()), &object).await?;
            }
            Some("ValidatingAdmissionPolicyBinding") => {
                apply(&Api::<ValidatingAdmissionPolicyBinding>::all(client.clone()), &object).await?;
            }
            Some("Role") => apply(&namespaced::<Role>(client, namespace), &object).await?,
            _ => apply(&namespaced::<RoleBinding>(client, namespace), &object).await?,
        }
    }
    Ok(images)
}

/// Admits the images of a release whose gates are open, where the environment is protected.
pub(crate) async fn admit(
    client: &Client,
    namespace: &str,
    name: &str,
    spec: &ReleaseSpec,
    author: &Author,
) -> Result<(), ClusterError> {
    let Some(admitted) = read(client, namespace, &spec.architecture).await? else { return Ok(()) };
    let mut images = running(client, &admitted.namespaces).await?;
    if admitted.namespaces.is_empty() {
        // It does not say where: nobody knows what else runs there, so nothing is taken away.
        images.extend(admitted.images.iter().cloned());
    }
    for service in &spec.services {
        images.extend(images_in(&service.new_template));
        images.extend(images_in(&service.old_template));
    }
    let images: Vec<String> = images.into_iter().collect();
    if images == admitted.images && admitted.releases == [name] {
        return Ok(());
    }
    author
        .write(Fact {
            action: Action::Admit,
            subject: name.to_owned(),
            digest: Some(spec.digest.clone()),
            says: format!("{} images are admitted", images.len()),
            evidence: images.clone(),
        })
        .await?;
    write(client, namespace, AdmittedImagesSpec { images, releases: vec![name.to_owned()], ..admitted }).await
}

/// What the environment admits, where it is protected.
pub(crate) async fn read(
    client: &Client,
    namespace: &str,
    architecture: &str,
) -> Result<Option<AdmittedImagesSpec>, ClusterError> {
    let found = Api::<AdmittedImages>::namespaced(client.clone(), namespace).get(architecture).await;
    let found = if_there(found).during(|| format!("read what `{namespace}` admits"))?;
    Ok(found.map(|admitted| admitted.spec))
}

/// Whether the policy and its binding are as they were made.
pub(crate) async fn is_guarded(
    client: &Client,
    architecture: &Architecture,
) -> Result<Result<(), String>, ClusterError> {
    let name = architecture.document.name.as_str();
    let namespace = architecture.namespace().as_str();
    let object = policy_name(name, namespace);
    let policy = Api::<ValidatingAdmissionPolicy>::all(client.clone()).get(&object).await;
    let binding = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone()).get(&object).await;
    if policy.as_ref().is_err_and(|error| is_status(error, 403))
        || binding.as_ref().is_err_and(|error| is_status(error, 403))
    {
        return Ok(Err(format!(
            "whether the ValidatingAdmissionPolicy `{object}` is there is not known: you may not read it"
        )));
    }
    let policy = if_there(policy).during(|| format!("read the ValidatingAdmissionPolicy `{object}`"))?;
    let binding = if_there(binding).during(|| format!("read the ValidatingAdmissionPolicyBinding `{object}`"))?;
    let wanted = [self::policy(name, namespace), self::binding(name, namespace, &namespaces(architecture))];
    let there = [policy.map(|policy| json!(policy)), binding.map(|binding| json!(binding))];
    for (wanted, there) in wanted.iter().zip(there) {
        let kind = wanted["kind"].as_str().unwrap_or_default();
        match there {
            None => return Ok(Err(format!("the {kind} `{object}` is gone: any image can be started"))),
            Some(there) if !contains(&there["spec"], &wanted["spec"]) => {
                return Ok(Err(format!("the {kind} `{object}` is not as `landfall protect` made it")));
            }
            Some(_) => {}
        }
    }
    Ok(Ok(()))
}

/// Whether a value has everything of another; the API server adds defaults.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        (whole, part) => whole == part,
    }
}

/// The images of the pods in some namespaces, and of the pods that are to come of what makes them.
async fn running(client: &Client, namespaces: &[String]) -> Result<BTreeSet<String>, ClusterError> {
    let mut images = BTreeSet::new();
    for namespace in namespaces {
        let pods = listed::<Pod>(client, namespace, "pods").await?;
        images.extend(pods.iter().flat_map(|pod| pod.spec.iter()).flat_map(images_of));
        let own = listed::<Deployment>(client, namespace, "Deployments").await?;
        images.extend(own.iter().filter_map(|own| own.spec.as_ref()?.template.spec.as_ref()).flat_map(images_of));
        let own = listed::<StatefulSet>(client, namespace, "StatefulSets").await?;
        images.extend(own.iter().filter_map(|own| own.spec.as_ref()?.template.spec.as_ref()).flat_map(images_of));
        let own = listed::<DaemonSet>(client, namespace, "DaemonSets").await?;
        images.extend(own.iter().filter_map(|own| own.spec.as_ref()?.template.spec.as_ref()).flat_map(images_of));
        let jobs = listed::<CronJob>(client, namespace, "CronJobs").await?;
        let templates = jobs.iter().filter_map(|own| own.spec.job_template.spec.as_ref()?.template.spec.as_ref());
        images.extend(templates.flat_map(images_of));
    }
    Ok(images)
}

async fn listed<K>(client: &Client, namespace: &str, what: &str) -> Result<Vec<K>, ClusterError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let listed = namespaced::<K>(client, namespace).list(&ListParams::default()).await;
    listed.map(|list| list.items).during(|| format!("list the {what} in `{namespace}`"))
}

/// The images that a pod template starts.
fn images_in(template: &Value) -> Vec<String> {
    let pod: Option<PodSpec> = serde_json::from_value(template["spec"].clone()).ok();
    pod.iter().flat_map(images_of).collect()
}

fn images_of(pod: &PodSpec) -> impl Iterator<Item = String> {
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    containers.filter_map(|container| container.image.clone()).collect::<Vec<_>>().into_iter()
}

async fn write(client: &Client, namespace: &str, spec: AdmittedImagesSpec) -> Result<(), ClusterError> {
    let api = Api::<AdmittedImages>::namespaced(client.clone(), namespace);
    let name = spec.architecture.clone();
    let during = || format!("write what `{namespace}` admits");
    let written = match if_there(api.get(&name).await).during(during)? {
        Some(mut there) => {
            there.spec = spec;
            api.replace(&name, &PostParams::default(), &there).await
        }
        None => records::create(client, namespace, AdmittedImages::new(&name, spec)).await,
    };
    written.during(during).map(drop)
}

async fn apply<K: Resource + Clone + DeserializeOwned + std::fmt::Debug>(
    api: &Api<K>,
    object: &Value,
) -> Result<(), ClusterError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await;
    applied.during(|| format!("apply the {kind} `{name}`")).map(drop)
}

fn namespaced<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
    client: &Client,
    namespace: &str,
) -> Api<K> {
    Api::namespaced(client.clone(), namespace)
}

/// Where the environment has workloads.
fn namespaces(architecture: &Architecture) -> Vec<String> {
    let services = architecture.document.services.keys().map(|name| Element::Service(name.value.clone()));
    let namespaces = services.map(|service| architecture.namespace_of(&service).to_string());
    let namespaces: BTreeSet<String> = namespaces.chain([architecture.namespace().to_string()]).collect();
    namespaces.into_iter().collect()
}

fn policy_name(name: &str, namespace: &str) -> String {
    format!("landfall-{name}.{namespace}")
}

fn policy(name: &str, namespace: &str) -> Value {
    // Whatever has a pod in it.
    let pod = |of: &str| {
        format!(
            "has({of}.spec.jobTemplate) ? {of}.spec.jobTemplate.spec.template.spec : has({of}.spec.template) ? {of}.spec.template.spec : {of}.spec"
        )
    };
    let images = |of: &str| {
        let list = |field: &str| format!("(has({of}.{field}) ? {of}.{field}.map(c, c.image) : [])");
        format!("{} + {} + {}", list("containers"), list("initContainers"), list("ephemeralContainers"))
    };
    let rule = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": resources });
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": policy_name(name, namespace) },
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": { "apiVersion": "landfall.dev/v1alpha1", "kind": "AdmittedImages" },
            "matchConstraints": { "resourceRules": [
                rule("apps", &["deployments", "replicasets", "statefulsets", "daemonsets"]),
                rule("batch", &["jobs", "cronjobs"]),
                rule("", &["pods", "pods/ephemeralcontainers", "replicationcontrollers"]),
            ] },
            // What is only tried starts nothing; a plan is tried.
            "matchConditions": [{ "name": "for-real", "expression": "!has(request.dryRun) || !request.dryRun" }],
            "variables": [
                { "name": "pod", "expression": pod("object") },
                { "name": "images", "expression": images("variables.pod") },
                { "name": "before", "expression": "oldObject == null ? object : oldObject" },
                { "name": "podBefore", "expression": pod("variables.before") },
                { "name": "imagesBefore", "expression": format!("oldObject == null ? [] : {}", images("variables.podBefore")) },
                { "name": "unknown", "expression": "variables.images.filter(i, !(i in params.spec.images) && !(i in variables.imagesBefore))" },
            ],
            "validations": [{
                "expression": "size(variables.unknown) == 0",
                "message": "no release has let an image of these through; `landfall ship` or `landfall promote` brings it",
                "messageExpression": format!("'{REFUSAL}: ' + variables.unknown[0] + '; `landfall ship` or `landfall promote` brings it'"),
            }],
        },
    })
}

fn binding(name: &str, namespace: &str, namespaces: &[String]) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": policy_name(name, namespace) },
        "spec": {
            "policyName": policy_name(name, namespace),
            "paramRef": { "name": name, "namespace": namespace, "parameterNotFoundAction": "Deny" },
            "matchResources": { "namespaceSelector": { "matchExpressions": [
                { "key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces },
            ] } },
            "validationActions": ["Deny"],
        },
    })
}

fn rules(rules: &[(&str, &[&str], &[&str])]) -> Value {
    let rule = |(group, resources, verbs): &(&str, &[&str], &[&str])| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    rules.iter().map(rule).collect()
}

const READ: &[&str] = &["get", "list", "watch"];
const ADD: &[&str] = &["get", "list", "watch", "create"];
const CHANGE: &[&str] = &["get", "list", "watch", "create", "update", "patch"];
const ALL: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];

/// What carrying releases needs.
fn shipper_rules() -> Value {
    rules(&[
        ("landfall.dev", &["releases", "releases/status", "admittedimages"], CHANGE),
        ("landfall.dev", &["auditentries", "evidence"], ADD),
        ("landfall.dev", &["approvals", "signers", "freezes"], READ),
        ("coordination.k8s.io", &["leases"], CHANGE),
        ("apps", &["deployments"], ALL),
        ("apps", &["replicasets", "statefulsets", "daemonsets"], READ),
        ("batch", &["cronjobs"], READ),
        ("autoscaling", &["horizontalpodautoscalers"], CHANGE),
        ("keda.sh", &["scaledobjects"], CHANGE),
        ("gateway.networking.k8s.io", &["httproutes"], CHANGE),
        ("networking.istio.io", &["virtualservices"], ALL),
        ("", &["services"], ALL),
        ("", &["configmaps"], CHANGE),
        ("", &["pods", "secrets"], READ),
    ])
}

/// What approving, bringing evidence and freezing need: nothing that starts a container.
fn approver_rules() -> Value {
    rules(&[
        ("landfall.dev", &["releases", "admittedimages"], READ),
        ("landfall.dev", &["approvals", "evidence", "auditentries", "signers"], ADD),
        ("landfall.dev", &["freezes"], &["get", "list", "watch", "create", "delete"]),
        ("", &["configmaps"], CHANGE),
    ])
}

fn role(name: &str, namespace: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": { "name": name, "namespace": namespace },
        "rules": rules,
    })
}

fn role_binding(name: &str, namespace: &str, groups: &[String]) -> Option<Value> {
    let subject = |group: &String| json!({ "kind": "Group", "name": group, "apiGroup": "rbac.authorization.k8s.io" });
    (!groups.is_empty()).then(|| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": { "name": name, "namespace": namespace },
            "subjects": groups.iter().map(subject).collect::<Vec<_>>(),
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        })
    })
}
