//! What belongs to a whole namespace: the namespace itself, quotas, roles and the mesh.

use landfall_render::kubernetes;
use serde_json::{Value, json};

use crate::architecture::{architecture, names, part, render};

#[test]
fn namespaces_hold_restricted_pods_only() {
    let text = "services: { web: {}, fake: { kind: mock, namespace: mocks } }";
    assert_eq!(names(&render(text), &["Namespace"]), ["Namespace/mocks", "Namespace/shop"]);
    let labels = part(text, "Namespace/mocks", "/metadata/labels");
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], json!("restricted"));
    assert_eq!(labels["istio-injection"], Value::Null);
    let mesh = format!("platform: {{ mesh: {{ kind: istio }} }}\n{text}");
    assert_eq!(part(&mesh, "Namespace/shop", "/metadata/labels/istio-injection"), json!("enabled"));
}

#[test]
fn a_quota_has_room_for_every_copy_and_a_rollout_of_all() {
    let text = "
services:
  web: { replicas: { min: 2, max: 4 }, resources: { cpu: 500m..1, memory: 256Mi } }
  job: { kind: scheduled-job, schedule: \"0 2 * * *\", resources: { cpu: 500m, memory: 256Mi } }
";
    // Four copies, one more during a rollout, and the job: 6, and a fifth on top.
    assert_eq!(
        part(text, "ResourceQuota/shop", "/spec/hard"),
        json!({ "requests.cpu": "3600m", "requests.memory": "1844Mi", "pods": "8" })
    );
}

#[test]
fn a_quota_has_room_for_the_copies_of_a_canary_at_its_largest_share() {
    let text = "
services:
  web:
    replicas: 3
    resources: { cpu: 500m..1, memory: 256Mi }
    rollout: { canary: { steps: [25%, 50%], judge: { success: 99% } } }
";
    // Three beside three, and a fifth on top.
    assert_eq!(part(text, "ResourceQuota/shop", "/spec/hard/requests.cpu"), json!("3600m"));
    // An autoscaler leaves the canary room below its most; there is one more when it has gone.
    let scaled = text.replace("replicas: 3", "replicas: { min: 2, max: 5, cpu: 70% }");
    assert_eq!(part(&scaled, "ResourceQuota/shop", "/spec/hard/requests.cpu"), json!("3600m"));
}

#[test]
fn a_namespace_in_which_something_declares_no_resources_has_no_quota() {
    let text = "services: { web: { resources: { cpu: 1, memory: 1Gi } }, other: {} }";
    assert_eq!(names(&render(text), &["ResourceQuota", "LimitRange"]), [""; 0]);
}

#[test]
fn operators_are_lent_a_request_for_their_own_containers() {
    let text = "stores: { ledger: { engine: postgres, resources: { cpu: 1, memory: 1Gi } } }";
    assert_eq!(
        part(text, "LimitRange/shop", "/spec/limits"),
        json!([{ "type": "Container", "defaultRequest": { "cpu": "50m", "memory": "128Mi" } }])
    );
}

const ROLES: &str = "
services: { web: {} }
environments: { development: {}, production: { production: true } }
security:
  roles:
    support: { groups: [helpdesk, sales], can: view }
    developer: { groups: [dev], can: deploy, environments: [development] }
    operator: { groups: [ops], can: admin, environments: [production] }
    chief: { groups: [ops], can: admin }
  just-in-time: { role: chief }
";

#[test]
fn roles_are_bound_in_their_environments() {
    let kinds = ["Role", "RoleBinding"];
    let of = |environment| names(&kubernetes(&architecture(ROLES, environment)), &kinds);
    let production = ["Role/shop-admin", "Role/shop-view", "RoleBinding/shop-operator", "RoleBinding/shop-support"];
    assert_eq!(of(None), production);
    assert_eq!(of(Some("production")), production);
    assert_eq!(
        of(Some("development")),
        [
            "Role/shop-admin",
            "Role/shop-deploy",
            "Role/shop-view",
            "RoleBinding/shop-developer",
            "RoleBinding/shop-support",
        ]
    );
    let group = |name: &str| json!({ "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name });
    assert_eq!(part(ROLES, "RoleBinding/shop-support", "/subjects"), json!([group("helpdesk"), group("sales")]));
}

#[test]
fn nobody_reads_secrets_by_the_role_to_view() {
    let rules = part(ROLES, "Role/shop-view", "/rules");
    let resources: Vec<&str> = rules
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|rule| rule["resources"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    assert!(resources.contains(&"pods") && !resources.contains(&"secrets") && !resources.contains(&"*"));
}

#[test]
fn the_mesh_asks_for_mutual_tls() {
    let mode = |mesh: &str| {
        part(
            &format!("platform: {{ mesh: {mesh} }}\nservices: {{ web: {{}} }}"),
            "PeerAuthentication/default",
            "/spec/mtls/mode",
        )
    };
    assert_eq!(mode("{ kind: istio }"), json!("STRICT"));
    assert_eq!(mode("{ kind: istio, mtls: permissive }"), json!("PERMISSIVE"));
}

#[test]
fn the_mesh_keeps_the_timeouts_and_retries_of_edges() {
    let text = "
platform: { mesh: { kind: istio } }
services:
  web: { uses: [{ call: api, timeout: 1500ms, retries: 1 }] }
  other: { uses: [{ call: api }] }
  api: { port: 8080 }
";
    let route = json!([{ "destination": { "host": "api.shop.svc.cluster.local", "port": { "number": 80 } } }]);
    let web = json!({ "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop" });
    assert_eq!(
        part(text, "VirtualService/api", "/spec/http"),
        json!([
            {
                "match": [{ "port": 80, "sourceLabels": web }],
                "route": route,
                "timeout": "3s",
                "retries": {
                    "attempts": 1,
                    "perTryTimeout": "1500ms",
                    "retryOn": "connect-failure,refused-stream,unavailable,gateway-error",
                },
            },
            { "match": [{ "port": 80 }], "route": route },
        ])
    );
}
