//! Who may do what in the namespaces of the platform: a `Role` for each permission, bound to the groups of each role.
//!
//! Groups are written as the claim of the identity provider has them. The API server must put no prefix before them
//! (`--oidc-groups-prefix`, or the mapping of its authentication configuration).
//!
//! A role that is granted just in time is not bound: its `Role` is there, and whoever grants it binds it for a while.

use crate::json::json;
use landfall_model::{Architecture, Permission, Role};
use serde_json::Value;

use super::metadata::Subject;
use super::namespace;
use crate::object::Object;

/// The roles and bindings of every namespace.
pub(super) fn objects(architecture: &Architecture) -> Vec<Object> {
    let security = &architecture.document.security;
    let roles: Vec<_> = security.roles.iter().filter(|(_, role)| counts_here(architecture, role)).collect();
    let on_request = security.just_in_time.as_ref().map(|grant| grant.role.as_str());
    let mut objects = Vec::new();
    for namespace in namespace::all(architecture).into_keys() {
        for permission in [Permission::View, Permission::Deploy, Permission::Admin] {
            let Some((name, _)) = roles.iter().find(|(_, role)| role.can.value == permission) else { continue };
            let origin = format!("security.roles.{name}");
            let subject = Subject::platform(architecture, namespace, "access", origin, name.span).in_folder("access");
            let value = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": subject.metadata(&role_name(architecture, permission)),
                "rules": rules(permission),
            });
            objects.push(subject.object(&format!("role-{}", word(permission)), value));
        }
        for (name, role) in roles.iter().filter(|(name, _)| Some(name.as_str()) != on_request) {
            let origin = format!("security.roles.{name}");
            let subject = Subject::platform(architecture, namespace, "access", origin, name.span).in_folder("access");
            let group =
                |group: &str| json!({ "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group });
            let value = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": subject.metadata(&format!("{}-{name}", architecture.document.name)),
                "subjects": role.groups.iter().map(|name| group(name.as_str())).collect::<Vec<_>>(),
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "Role",
                    "name": role_name(architecture, role.can.value),
                },
            });
            objects.push(subject.object(&format!("rolebinding-{name}"), value));
        }
    }
    objects
}

/// Whether the role is one of this environment; the file as it stands counts as production.
fn counts_here(architecture: &Architecture, role: &Role) -> bool {
    let here = |name: &str| match &architecture.environment {
        Some(environment) => environment.as_str() == name,
        None => architecture.document.environments.get(name).is_some_and(|environment| environment.production.value),
    };
    role.environments.is_empty() || role.environments.iter().any(|name| here(name.as_str()))
}

fn role_name(architecture: &Architecture, permission: Permission) -> String {
    format!("{}-{}", architecture.document.name, word(permission))
}

fn word(permission: Permission) -> &'static str {
    match permission {
        Permission::View => "view",
        Permission::Deploy => "deploy",
        Permission::Admin => "admin",
    }
}

/// What may be read: everything that says how the platform is, and no Secret.
const READABLE: [(&str, &[&str]); 9] = [
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "persistentvolumeclaims",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "resourcequotas",
            "serviceaccounts",
            "services",
        ],
    ),
    ("apps", &["controllerrevisions", "daemonsets", "deployments", "deployments/scale", "replicasets", "statefulsets"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("events.k8s.io", &["events"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("gateway.networking.k8s.io", &["gateways", "httproutes"]),
    ("policy", &["poddisruptionbudgets"]),
];

/// What a deployment changes. Network policies, quotas and roles are not among it: they bound what is deployed.
const DEPLOYABLE: [(&str, &[&str]); 6] = [
    ("", &["configmaps", "services"]),
    ("apps", &["deployments", "deployments/scale", "statefulsets", "statefulsets/scale"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("gateway.networking.k8s.io", &["httproutes"]),
    ("policy", &["poddisruptionbudgets"]),
];

fn rules(permission: Permission) -> Vec<Value> {
    let rule = |verbs: &[&str]| {
        let verbs = json!(verbs);
        move |(group, resources): &(&str, &[&str])| json!({ "apiGroups": [group], "resources": resources, "verbs": &verbs })
    };
    let read = || READABLE.iter().map(rule(&["get", "list", "watch"]));
    match permission {
        Permission::View => read().collect(),
        Permission::Deploy => {
            read().chain(DEPLOYABLE.iter().map(rule(&["create", "update", "patch", "delete"]))).collect()
        }
        Permission::Admin => vec![json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] })],
    }
}
