//! The scheme against objects whose answers a real API server gave: `tests/it/scheme/recorded/*.json`, each a list of
//! `{ "sent": …, "answered": … }` from `kubectl create --dry-run=server` or, where it was refused, `{ "sent", "causes" }`.

use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn recorded(name: &str) -> Vec<Value> {
    serde_json::from_value(recording(name)).expect("this recording is a list")
}

fn recording(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/scheme").join(name);
    let text = std::fs::read_to_string(&path).expect("the recording is in the repository");
    serde_json::from_str(&text).expect("a recording is JSON")
}

fn resource_of<'a>(scheme: &'a Scheme, object: &Value) -> &'a Arc<Resource> {
    let version = object["apiVersion"].as_str().expect("an object names its version");
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    scheme.by_kind(group, version, object["kind"].as_str().expect("an object names its kind")).expect("it is served")
}

/// Without what differs between two runs, or belongs to admission and allocation.
fn masked(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for name in ["uid", "creationTimestamp", "managedFields", "resourceVersion"] {
            metadata.remove(name);
        }
        // Admission protects volumes and claims, and taints new nodes.
        metadata.remove("finalizers");
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "taints"] {
            spec.remove(name);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("lastPhaseTransitionTime");
    }
    object
}

#[test]
fn new_objects_get_the_defaults_that_kubernetes_gives_them() {
    let scheme = Scheme::builtin();
    let mut wrong = Vec::new();
    for one in recorded("defaults.json") {
        let mut object = one["sent"].clone();
        let resource = resource_of(&scheme, &object);
        scheme.default(resource, &mut object);
        scheme.prepare_create(resource, &mut object);
        let causes = scheme.validate(resource, &object, None, Part::Main);
        if !causes.is_empty() {
            wrong.push(format!("{} refused: {}", object["kind"], validate::joined(&causes)));
        }
        let (ours, theirs) = (masked(object), masked(one["answered"].clone()));
        if ours != theirs {
            let lines = differences("", &theirs, &ours).join("\n  ");
            wrong.push(format!("{} {}:\n  {lines}", theirs["kind"], theirs["metadata"]["name"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_refusal_names_what_kubernetes_names() {
    let scheme = Scheme::builtin();
    let mut wrong = Vec::new();
    for one in recorded("refused.json").into_iter().chain(recorded("refused-by-field.json")) {
        let mut object = one["sent"].clone();
        let resource = resource_of(&scheme, &object);
        let causes = match scheme.check_types(resource, &object) {
            Err(message) => json!([message]),
            Ok(()) => {
                scheme.default(resource, &mut object);
                scheme.prepare_create(resource, &mut object);
                let causes = scheme.validate(resource, &object, None, Part::Main);
                let cause = |cause: &Cause| json!({ "reason": cause.reason.name(), "field": cause.field, "message": cause.message });
                causes.iter().map(cause).collect()
            }
        };
        if causes != one["causes"] {
            wrong.push(format!("{}\n  theirs {}\n  ours   {causes}", one["sent"], one["causes"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn server_side_apply_goes_as_it_went_on_the_real_one() {
    let scheme = Scheme::builtin();
    let mut wrong = Vec::new();
    for one in recorded("applied.json") {
        let mut live: Option<Value> = None;
        for (index, step) in one["steps"].as_array().expect("a recording has steps").iter().enumerate() {
            let applied = &step["applied"];
            let resource = resource_of(&scheme, applied);
            let manager = step["manager"].as_str().expect("each step has a manager");
            let force = step["force"] == json!(true);
            let answer = apply::apply(resource, live.as_ref(), applied, manager, "", force, "2026-01-01T00:00:00Z");
            match answer {
                Err(conflicts) => {
                    if json!(conflicts.message()) != step["conflict"] {
                        wrong.push(format!(
                            "{} step {index}: {} instead of {}",
                            one["name"],
                            conflicts.message(),
                            step["conflict"]
                        ));
                    }
                }
                Ok(mut object) => {
                    scheme.default(resource, &mut object);
                    match &live {
                        Some(old) => scheme.prepare_update(resource, &mut object, old, Part::Main),
                        None => scheme.prepare_create(resource, &mut object),
                    }
                    let owners = |object: &Value| {
                        let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
                        let mut list: Vec<_> = list
                            .iter()
                            .map(|entry| {
                                format!("{} {} {}", entry["manager"], entry["operation"], sorted(&entry["fieldsV1"]))
                            })
                            .collect();
                        list.sort();
                        list
                    };
                    let (ours, theirs) = (owners(&object), owners(&step["answered"]));
                    if ours != theirs {
                        wrong.push(format!("{} step {index}:\n  theirs {theirs:?}\n  ours   {ours:?}", one["name"]));
                    }
                    let (ours, theirs) = (masked(object.clone()), masked(step["answered"].clone()));
                    if ours != theirs {
                        wrong.push(format!("{} step {index}: {:?}", one["name"], differences("", &theirs, &ours)));
                    }
                    live = Some(object);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// JSON with the keys of objects in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let ordered: std::collections::BTreeMap<_, _> =
                object.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            json!(ordered)
        }
        other => other.clone(),
    }
}

/// Where two values differ, theirs first.
fn differences(path: &str, theirs: &Value, ours: &Value) -> Vec<String> {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let inner = |name: &String| {
                let side = |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or(json!("(absent)"));
                differences(&format!("{path}.{name}"), &side(a), &side(b))
            };
            names.into_iter().flat_map(inner).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.flat_map(|(index, (a, b))| differences(&format!("{path}[{index}]"), a, b)).collect()
        }
        _ if theirs == ours => Vec::new(),
        _ => vec![format!("{path}: {theirs} / {ours}")],
    }
}

#[test]
fn strategic_patches_and_their_owners_go_as_on_the_real_one() {
    let scheme = Scheme::builtin();
    let one = &recording("patched.json");
    let resource = resource_of(&scheme, &one["sent"]);
    let mut live = one["sent"].clone();
    scheme.default(resource, &mut live);
    scheme.prepare_create(resource, &mut live);
    apply::track_update(resource, None, &mut live, "creator", "", "2026-01-01T00:00:00Z");
    let mut wrong = Vec::new();
    let owners = |object: &Value| {
        let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let mut list: Vec<_> =
            list.iter().map(|entry| (entry["manager"].clone(), sorted(&entry["fieldsV1"]))).collect();
        list.sort_by_key(|(manager, _)| manager.to_string());
        json!(list)
    };
    let mut check = |name: String, ours: &Value, theirs: &Value| {
        for line in differences("", &masked(theirs.clone()), &masked(ours.clone())).into_iter().chain(differences(
            "",
            &owners(theirs),
            &owners(ours),
        )) {
            wrong.push(format!("{name}: {line}"));
        }
    };
    check("created".to_owned(), &live, &one["created"]);
    for step in one["steps"].as_array().expect("a recording has steps") {
        let mut new = live.clone();
        merge::strategic(resource, &mut new, &step["patch"]).expect("the real one took it");
        scheme.default(resource, &mut new);
        scheme.prepare_update(resource, &mut new, &live, Part::Main);
        apply::track_update(resource, Some(&live), &mut new, "editor", "", "2026-01-01T00:00:00Z");
        check(step["patch"].to_string(), &new, &step["answered"]);
        live = new;
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn protobuf_says_what_json_says() {
    use base64::Engine as _;
    let scheme = Scheme::builtin();
    let mut wrong = Vec::new();
    for one in recorded("protobuf.json") {
        let bytes = base64::engine::general_purpose::STANDARD.decode(one["bytes"].as_str().expect("bytes are text"));
        let bytes = bytes.expect("it was encoded by the recorder");
        let mut ours = protobuf::decode(&scheme, &bytes).expect("the real one wrote it");
        let resource = resource_of(&scheme, &one["object"]);
        let mut theirs = one["object"].clone();
        scheme.default(resource, &mut ours);
        scheme.default(resource, &mut theirs);
        for line in differences("", &masked(theirs), &masked(ours)) {
            wrong.push(format!("{}: {line}", one["object"]["kind"]));
        }
        // What is cut off is refused or read in part, never a panic.
        for end in 0..bytes.len() {
            drop(protobuf::decode(&scheme, &bytes[..end]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn tables_show_what_kubernetes_shows() {
    let scheme = Scheme::builtin();
    let mut wrong = Vec::new();
    for one in recorded("tables.json") {
        let object = &one["object"];
        let resource = resource_of(&scheme, object);
        let columns: Vec<_> = table::columns(resource)
            .as_array()
            .expect("columns are a list")
            .iter()
            .map(|column| json!([column["name"], column["type"], column["format"], column["priority"]]))
            .collect();
        // The recorder asked within a second of the creation, so ages are taken as they are written.
        let now = object["metadata"]["creationTimestamp"].as_str().expect("it was created");
        let now = now.parse().expect("the server writes times");
        let cells = table::cells(resource, object, now);
        let age = |cells: &Value| {
            let list = cells.as_array().cloned().unwrap_or_default();
            list.into_iter().map(|cell| if cell == json!("1s") { json!("0s") } else { cell }).collect::<Value>()
        };
        for line in differences("columns", &one["columns"], &json!(columns)).into_iter().chain(differences(
            "cells",
            &age(&one["cells"]),
            &age(&json!(cells)),
        )) {
            wrong.push(format!("{}: {line}", object["kind"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn gadgets() -> Scheme {
    let definition = json!({
        "spec": {
            "group": "things.example.com",
            "scope": "Namespaced",
            "names": { "plural": "gadgets", "kind": "Gadget", "shortNames": ["gd"] },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size" } },
                "additionalPrinterColumns": [{ "name": "Size", "type": "integer", "jsonPath": ".spec.size" }],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "spec": {
                            "type": "object",
                            "required": ["colour"],
                            "properties": {
                                "size": { "type": "integer", "default": 3, "minimum": 1 },
                                "colour": { "type": "string", "pattern": "^[a-z]+$" },
                                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                            },
                            "x-kubernetes-validations": [{ "rule": "self.size < 10", "message": "too big" }],
                        },
                        "status": { "type": "object", "properties": { "size": { "type": "integer" } } },
                    },
                } },
            }],
        },
    });
    Scheme::builtin().with_custom([definition].iter())
}

fn gadget(spec: &Value) -> Value {
    json!({
        "apiVersion": "things.example.com/v1",
        "kind": "Gadget",
        "metadata": { "name": "g", "namespace": "default" },
        "spec": spec,
    })
}

#[test]
fn a_custom_resource_is_pruned_and_defaulted_by_its_schema() {
    let scheme = gadgets();
    let resource = scheme.resource("things.example.com", "v1", "gadgets").expect("it was defined");
    let mut object = gadget(&json!({ "colour": "red", "odd": 1, "free": { "any": { "thing": 1 } } }));
    assert_eq!(scheme.unknown_fields(resource, &object), ["unknown field \"spec.odd\""]);
    scheme.default(resource, &mut object);
    assert_eq!(object["spec"], json!({ "colour": "red", "free": { "any": { "thing": 1 } }, "size": 3 }));
    assert_eq!(scheme.validate(resource, &object, None, Part::Main), []);
    assert_eq!(table::cells(resource, &object, jiff::Timestamp::UNIX_EPOCH), [json!("g"), json!(3)]);
}

/// Said when rules were not asked about values that their expressions could not read.
const UNCHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked because the object was \
                         invalid; correct the existing errors to complete validation";

#[test]
fn a_custom_resource_is_refused_by_its_schema_and_its_rules() {
    let scheme = gadgets();
    let resource = scheme.resource("things.example.com", "v1", "gadgets").expect("it was defined");
    let check = |spec: Value, expected: &[&str]| {
        let causes = scheme.validate(resource, &gadget(&spec), None, Part::Main);
        assert_eq!(causes.iter().map(Cause::text).collect::<Vec<_>>(), expected, "{spec}");
    };
    check(json!({ "size": 3 }), &["spec.colour: Required value", UNCHECKED]);
    check(
        json!({ "colour": "Red", "size": 3 }),
        &[r#"spec.colour: Invalid value: "Red": spec.colour in body should match '^[a-z]+$'"#],
    );
    check(
        json!({ "colour": "red", "size": 0 }),
        &["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"],
    );
    check(json!({ "colour": "red", "size": 11 }), &["spec: Invalid value: too big"]);
}

#[test]
fn each_document_tells_clients_that_the_server_validates_fields() {
    let scheme = gadgets();
    for path in openapi::v3_index(&scheme)["paths"].as_object().expect("an index has paths").keys() {
        let document = openapi::v3(&scheme, path).expect("the index names it");
        let document: Value = serde_json::from_slice(&document).expect("a document is JSON");
        for (path, item) in document["paths"].as_object().expect("a document has paths") {
            let Some(patch) = item.get("patch") else { continue };
            assert_eq!(patch["parameters"][2]["name"], "fieldValidation", "{path}");
            assert!(patch["x-kubernetes-group-version-kind"]["kind"].is_string(), "{path}");
        }
    }
    assert!(
        openapi::v2_protobuf(&scheme).starts_with(b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.0\x42\x00\x4a")
    );
}

#[test]
fn the_older_document_names_every_kind_and_refers_to_nothing_else() {
    let document = openapi::v2_json(&Scheme::builtin());
    let definitions = document["definitions"].as_object().expect("it has definitions");
    let deployment = &definitions["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{ "group": "apps", "version": "v1", "kind": "Deployment" }])
    );
    let containers = &definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["parameters"][4]["in"], "body");
    let text = document.to_string();
    for target in text.split("\"#/definitions/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(definitions.contains_key(target), "nothing defines {target}");
    }
    assert!(!text.contains("#/components/"));
}

#[test]
fn a_job_selects_pods_by_its_uid_and_tells_its_pods() {
    let scheme = Scheme::builtin();
    let job = scheme.by_kind("batch", "v1", "Job").expect("jobs are built in");
    let mut object = json!({
        "metadata": { "name": "once", "uid": "u" },
        "spec": { "template": { "spec": { "containers": [{ "name": "a", "image": "a" }], "restartPolicy": "Never" } } },
    });
    scheme.default(job, &mut object);
    scheme.prepare_create(job, &mut object);
    let labels = json!({
        "controller-uid": "u",
        "batch.kubernetes.io/controller-uid": "u",
        "job-name": "once",
        "batch.kubernetes.io/job-name": "once",
    });
    assert_eq!(object["spec"]["selector"], json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": "u" } }));
    assert_eq!(object["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(object["metadata"]["labels"], labels);
}

#[test]
fn texts_of_a_secret_become_data_and_win() {
    let scheme = Scheme::builtin();
    let secret = scheme.by_kind("", "v1", "Secret").expect("secrets are built in");
    let mut object = json!({ "metadata": {}, "data": { "a": "b2xk", "b": "Yg==" }, "stringData": { "a": "hello" } });
    scheme.default(secret, &mut object);
    assert_eq!(object, json!({ "type": "Opaque", "metadata": {}, "data": { "a": "aGVsbG8=", "b": "Yg==" } }));
}

#[test]
fn a_stateful_set_mounts_what_its_claims_become() {
    let scheme = Scheme::builtin();
    let sets = scheme.by_kind("apps", "v1", "StatefulSet").expect("stateful sets are built in");
    let mut object = json!({
        "metadata": { "name": "db", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "db" } },
            "serviceName": "db",
            "template": {
                "metadata": { "labels": { "app": "db" } },
                "spec": { "containers": [{
                    "name": "a", "image": "a", "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }] },
            },
            "volumeClaimTemplates": [{
                "metadata": { "name": "data" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
            }],
        },
    });
    scheme.default(sets, &mut object);
    scheme.prepare_create(sets, &mut object);
    assert_eq!(scheme.validate(sets, &object, None, Part::Main), Vec::new());
}

#[test]
fn a_deprecated_version_says_which_one_to_use() {
    let version = |name: &str, deprecated: bool| json!({ "name": name, "served": true, "deprecated": deprecated });
    let definition = |versions: Value| json!({ "spec": { "group": "example.com", "names": { "kind": "Widget", "plural": "widgets" }, "versions": versions } });
    let warning = |versions: Value, of: &str| {
        let definition = definition(versions);
        let scheme = Scheme::builtin().with_custom(std::iter::once(&definition));
        scheme.resource("example.com", of, "widgets").expect("it is served").deprecation.clone()
    };
    let both = json!([version("v1beta1", true), version("v1", false), version("v1alpha1", false)]);
    assert_eq!(
        warning(both.clone(), "v1beta1").as_deref(),
        Some("example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget")
    );
    assert_eq!(warning(both, "v1"), None);
    let newest = json!([version("v1beta1", false), version("v1", true)]);
    assert_eq!(warning(newest, "v1").as_deref(), Some("example.com/v1 Widget is deprecated"));
    let mut own = json!([version("v1", true)]);
    own[0]["deprecationWarning"] = json!("gone soon");
    assert_eq!(warning(own, "v1").as_deref(), Some("gone soon"));
}

#[test]
fn rules_are_asked_only_about_values_of_the_right_types() {
    let schema = json!({ "type": "object", "properties": { "spec": {
        "type": "object",
        "required": ["engine"],
        "x-kubernetes-validations": [{ "rule": "self.members <= 5", "message": "too many" }],
        "properties": {
            "engine": { "type": "string", "enum": ["a", "b"] },
            "members": { "type": "integer", "maximum": 9 },
        },
    } } });
    let definition = json!({ "spec": { "group": "example.com", "scope": "Namespaced",
        "names": { "kind": "Widget", "plural": "widgets" },
        "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
            "subresources": { "scale": { "specReplicasPath": ".spec.members", "statusReplicasPath": ".status.n" } } }],
    } });
    let scheme = Scheme::builtin().with_custom(std::iter::once(&definition));
    let resource = scheme.resource("example.com", "v1", "widgets").expect("it is served");
    let check = |spec: Value, expected: &[&str]| {
        let object = json!({ "apiVersion": "example.com/v1", "kind": "Widget",
            "metadata": { "name": "w", "namespace": "default" }, "spec": spec });
        let causes = scheme.validate(resource, &object, None, Part::Main);
        assert_eq!(causes.iter().map(Cause::text).collect::<Vec<_>>(), expected);
    };
    check(
        json!({ "engine": "a", "members": 10 }),
        &[
            "spec.members: Invalid value: 10: spec.members in body should be less than or equal to 9",
            "spec: Invalid value: too many",
        ],
    );
    check(json!({ "members": 1 }), &["spec.engine: Required value", UNCHECKED]);
    check(
        json!({ "engine": 1, "members": "3" }),
        &[
            r#"spec.engine: Invalid value: "integer": spec.engine in body must be of type string: "integer""#,
            r#"spec.engine: Unsupported value: 1: supported values: "a", "b""#,
            r#"spec.members: Invalid value: "string": spec.members in body must be of type integer: "string""#,
            ".spec.members: Invalid value: 0: .spec.members accessor error: 3 is of the type string, expected int64",
            UNCHECKED,
        ],
    );
}

#[test]
fn what_only_a_load_balancer_has_goes_when_a_service_is_none_any_more() {
    let scheme = Scheme::builtin();
    let services = scheme.by_kind("", "v1", "Service").expect("services are built in");
    let of = |kind: &str| {
        json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "type": kind, "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true },
        })
    };
    let mut new = of("ClusterIP");
    scheme.prepare_update(services, &mut new, &of("LoadBalancer"), Part::Main);
    assert_eq!(new["spec"], json!({ "type": "ClusterIP" }));
}
