//! What `Schemas` lets through and what it refuses. Each test is skipped where the schemas are not installed.

use std::fs;
use std::path::{Path, PathBuf};

use landfall_testing::{Schemas, require_or_skip};
use serde_json::{Value, json};

/// Validates `object` and compares the errors, one a line. A macro, because an inline snapshot is a literal.
macro_rules! check {
    ($object:expr, @$expected:literal) => {
        if let Some(schemas) = require_or_skip("the schemas", Schemas::locate()) {
            let errors = schemas.validate(&$object).err().unwrap_or_default();
            insta::assert_snapshot!(errors.join("\n"), @$expected);
        }
    };
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "web", "namespace": "shop", "labels": { "app.kubernetes.io/name": "web" } },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": "25%" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "topology.kubernetes.io/zone",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": { "matchLabels": { "app": "web" } },
                    }],
                    "containers": [{
                        "name": "web",
                        "image": "shop/web@sha256:0f3a",
                        "ports": [{ "containerPort": 3000, "name": "http" }],
                        "resources": { "requests": { "cpu": "250m", "memory": "256Mi" }, "limits": { "cpu": 1 } },
                        "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" }, "periodSeconds": 5 },
                    }],
                },
            },
        },
    })
}

fn cluster() -> Value {
    json!({
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": { "name": "ledger", "namespace": "shop" },
        "spec": {
            "instances": 3,
            "minSyncReplicas": 1,
            "maxSyncReplicas": 1,
            "storage": { "size": "100Gi" },
            "postgresql": { "parameters": { "max_connections": "200" } },
            "affinity": { "topologyKey": "topology.kubernetes.io/zone", "podAntiAffinityType": "required" },
            "backup": { "retentionPolicy": "7d" },
        },
    })
}

/// `object` with the value at `pointer` set, which may be a new field of an object that exists.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer begins with `/`");
    let parent = object.pointer_mut(parent).expect("the parent of the changed field exists");
    match parent {
        Value::Array(items) => items[field.parse::<usize>().expect("items are numbered")] = value,
        parent => parent[field] = value,
    }
    object
}

#[test]
fn a_good_deployment_passes() {
    check!(deployment(), @"");
}

#[test]
fn an_unknown_field_is_refused() {
    check!(with(deployment(), "/spec/replica", json!(3)), @"apps/v1 Deployment web: /spec/replica: unknown field");
}

#[test]
fn an_unknown_field_behind_a_reference_is_refused() {
    check!(with(deployment(), "/spec/template/spec/containers/0/readynessProbe", json!({})), @"apps/v1 Deployment web: /spec/template/spec/containers/0/readynessProbe: unknown field");
}

#[test]
fn a_wrong_type_is_refused() {
    check!(with(deployment(), "/spec/replicas", json!("3")), @r#"apps/v1 Deployment web: /spec/replicas: "3" is not of types "null", "integer""#);
}

#[test]
fn a_missing_field_is_named() {
    check!(with(deployment(), "/spec", json!({ "replicas": 3 })), @"
    apps/v1 Deployment web: /spec/selector: missing
    apps/v1 Deployment web: /spec/template: missing
    ");
}

#[test]
fn every_error_is_reported_in_the_order_of_the_pointers() {
    let object = with(deployment(), "/spec/strategy/kind", json!("Recreate"));
    let object = with(object, "/spec/template/spec/containers/0/ports/0/containerPort", json!("http"));
    check!(with(object, "/metadata/a~b", json!(1)), @r#"
    apps/v1 Deployment web: /metadata/a~0b: unknown field
    apps/v1 Deployment web: /spec/strategy/kind: unknown field
    apps/v1 Deployment web: /spec/template/spec/containers/0/ports/0/containerPort: "http" is not of type "integer"
    "#);
}

#[test]
fn a_good_cluster_passes() {
    check!(cluster(), @"");
}

#[test]
fn an_unknown_field_of_a_custom_resource_is_refused() {
    check!(with(cluster(), "/spec/instance", json!(3)), @"postgresql.cnpg.io/v1 Cluster ledger: /spec/instance: unknown field");
}

#[test]
fn an_unknown_field_deep_in_a_custom_resource_is_refused() {
    check!(with(cluster(), "/spec/storage/sizes", json!("1Gi")), @"postgresql.cnpg.io/v1 Cluster ledger: /spec/storage/sizes: unknown field");
}

#[test]
fn the_top_and_the_metadata_of_a_custom_resource_are_checked_too() {
    let object = with(cluster(), "/metadata/label", json!({}));
    check!(with(object, "/specification", json!({})), @"
    postgresql.cnpg.io/v1 Cluster ledger: /metadata/label: unknown field
    postgresql.cnpg.io/v1 Cluster ledger: /specification: unknown field
    ");
}

#[test]
fn a_custom_resource_keeps_unknown_fields_where_its_schema_says_so() {
    check!(json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": { "name": "shop" },
        "spec": {
            "project": "default",
            "destination": { "namespace": "shop", "server": "https://kubernetes.default.svc" },
            "source": { "repoURL": "https://example.com/shop.git", "helm": { "valuesObject": { "any": { "thing": 1 } } } },
        },
    }), @"");
}

#[test]
fn a_built_in_kind_of_the_core_group_is_found() {
    check!(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }), @"");
}

#[test]
fn a_group_of_another_project_is_not_taken_for_a_built_in_one() {
    check!(json!({ "apiVersion": "apps.example.com/v1", "kind": "Deployment", "metadata": { "name": "web" } }), @"apps.example.com/v1 Deployment web: no schema of this kind; a custom resource needs one in the schema folder");
}

#[test]
fn a_kind_without_a_schema_is_an_error() {
    check!(json!({ "apiVersion": "v1", "kind": "Pods", "metadata": { "name": "web" } }), @"v1 Pods web: no schema of this kind; a custom resource needs one in the schema folder");
}

#[test]
fn a_part_of_an_object_is_not_a_kind() {
    check!(json!({ "apiVersion": "apps/v1", "kind": "DeploymentSpec", "metadata": { "name": "web" } }), @"apps/v1 DeploymentSpec web: no schema of this kind; a custom resource needs one in the schema folder");
}

#[test]
fn a_kind_in_the_wrong_case_is_refused() {
    check!(json!({ "apiVersion": "postgresql.cnpg.io/v1", "kind": "cluster", "metadata": { "name": "ledger" } }), @"postgresql.cnpg.io/v1 cluster ledger: no schema of this kind; a custom resource needs one in the schema folder");
}

#[test]
fn a_kind_cannot_lead_out_of_the_schema_folder() {
    check!(json!({ "apiVersion": "../apps/v1", "kind": "Deployment", "metadata": { "name": "web" } }), @"../apps/v1 Deployment web: no schema of this kind; a custom resource needs one in the schema folder");
}

#[test]
fn an_object_without_a_kind_is_an_error() {
    check!(json!({ "image": { "tag": "1.20" } }), @r#"an object needs `apiVersion` and `kind`: {"image":{"tag":"1.20"}}"#);
}

#[test]
fn an_object_without_a_name_is_an_error() {
    check!(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {} }), @"v1 ConfigMap: /metadata/name: missing");
}

#[test]
fn the_schema_of_every_custom_resource_compiles() {
    let Some(schemas) = require_or_skip("the schemas", Schemas::locate()) else { return };
    let folder = std::env::var_os("LANDFALL_CRD_SCHEMAS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/schemas"), PathBuf::from);
    let mut kinds = 0;
    for group in fs::read_dir(folder).expect("`locate` found the folder") {
        let group = group.expect("the folder is readable");
        if !group.file_type().expect("the folder is readable").is_dir() {
            continue;
        }
        for file in fs::read_dir(group.path()).expect("the folder is readable") {
            let file = file.expect("the folder is readable").path();
            let (kind, version) = file
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.split_once('_'))
                .expect("a schema is called `kind_version.json`");
            let group = group.file_name().into_string().expect("a group is ASCII");
            // An empty object is refused; a schema that does not compile panics.
            let (first, others) = kind.split_at(1);
            let object = json!({
                "apiVersion": format!("{group}/{version}"),
                "kind": format!("{}{others}", first.to_uppercase()),
                "metadata": { "name": "any" },
            });
            let errors = schemas.validate(&object).err().unwrap_or_default();
            assert!(errors.iter().all(|error| !error.contains("no schema")), "{errors:?}");
            kinds += 1;
        }
    }
    assert!(kinds > 0, "the folder holds no schema");
}
