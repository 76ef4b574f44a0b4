//! The roles that a new cluster has, and who has them from the start.

use serde_json::{Value, json};

use crate::api::rbac::Rule;

/// One role in a line, its rules in the indented lines after it.
const ROLES: &str = include_str!("roles.txt");

const GROUP: &str = "rbac.authorization.k8s.io";

/// Those who show who they are, and those who do not.
const EVERYBODY: &str = "system:authenticated system:unauthenticated";

/// Who has which role from the start: `(role, kind, names)`.
const BINDINGS: [(&str, &str, &str); 11] = [
    ("cluster-admin", "Group", "system:masters"),
    ("system:basic-user", "Group", "system:authenticated"),
    ("system:discovery", "Group", "system:authenticated"),
    ("system:kube-controller-manager", "User", "system:kube-controller-manager"),
    ("system:kube-scheduler", "User", "system:kube-scheduler"),
    ("system:monitoring", "Group", "system:monitoring"),
    ("system:node", "Group", "system:nodes"),
    ("system:node-proxier", "User", "system:kube-proxy"),
    ("system:public-info-viewer", "Group", EVERYBODY),
    ("system:service-account-issuer-discovery", "Group", "system:serviceaccounts"),
    ("system:volume-scheduler", "User", "system:kube-scheduler"),
];

/// The objects, each with the plural of its resource.
pub(super) fn objects() -> Vec<(&'static str, Value)> {
    let mut objects: Vec<(&str, Value)> = roles().into_iter().map(|role| ("clusterroles", role)).collect();
    let controllers: Vec<Value> = objects.iter().filter_map(|(_, role)| controller_binding(role)).collect();
    objects.extend(BINDINGS.map(|(role, kind, names)| ("clusterrolebindings", binding(role, kind, names))));
    objects.extend(controllers.into_iter().map(|binding| ("clusterrolebindings", binding)));
    objects
}

fn roles() -> Vec<Value> {
    let mut roles: Vec<Value> = Vec::new();
    for line in ROLES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            let role = roles.last_mut().expect("a rule stands below its role");
            let rules = role["rules"].as_array_mut().expect("a role begins with an empty list of rules");
            rules.push(rule(line).to_value());
        } else {
            roles.push(role(line));
        }
    }
    roles
}

fn role(line: &str) -> Value {
    let mut words = line.split(' ');
    let name = words.next().expect("a line has a word");
    let mut role = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole",
        "metadata": {
            "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "rules": [],
    });
    for word in words {
        match word.split_once('=') {
            Some(("to", above)) => role["metadata"]["labels"][format!("{GROUP}/aggregate-to-{above}")] = "true".into(),
            Some(("of", label)) => {
                let labels = json!({format!("{GROUP}/aggregate-to-{label}"): "true"});
                role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            }
            _ => panic!("`{word}` says nothing about a role"),
        }
    }
    role
}

fn rule(line: &str) -> Rule {
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(|item| if item == "-" { String::new() } else { item.to_owned() }).collect()
    };
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [verbs, "path", paths] => Rule { verbs: list(verbs), paths: list(paths), ..Rule::default() },
        [verbs, groups, resources, names @ ..] => Rule {
            verbs: list(verbs),
            groups: list(groups),
            resources: list(resources),
            names: names.first().map(|names| list(names)).unwrap_or_default(),
            paths: Vec::new(),
        },
        _ => panic!("`{line}` is no rule"),
    }
}

fn binding(role: &str, kind: &str, names: &str) -> Value {
    let subject = |name: &str| json!({"apiGroup": GROUP, "kind": kind, "name": name});
    binding_to(role, &names.split(' ').map(subject).collect::<Vec<_>>())
}

/// Each controller of Kubernetes has a service account and a role that has its name.
fn controller_binding(role: &Value) -> Option<Value> {
    let role = role["metadata"]["name"].as_str()?;
    let name = role.strip_prefix("system:controller:")?;
    Some(binding_to(role, &[json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"})]))
}

fn binding_to(role: &str, subjects: &[Value]) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {
            "name": role, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}
