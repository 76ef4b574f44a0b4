//! What clients are told of kinds and fields, in both documents.

use std::collections::BTreeSet;

use super::*;

/// The document of a group and version, as a client reads it.
fn document(scheme: &Scheme, path: &str) -> Value {
    let document = v3(scheme, path).expect("it is served");
    serde_json::from_slice(&document).expect("a document is JSON")
}

fn is_described(schema: &Value) -> bool {
    schema["description"].as_str().is_some_and(|text| !text.trim().is_empty())
}

/// The built-in kinds and a custom one, whose definition has these words for its field `length`.
fn boats(length: &str) -> Scheme {
    let definition = json!({
        "spec": {
            "group": "harbour.example",
            "scope": "Namespaced",
            "names": { "plural": "boats", "kind": "Boat" },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": "A boat at its berth.",
                    "properties": {
                        "spec": {
                            "type": "object",
                            "description": "How it is built.",
                            "properties": { "length": { "type": "integer", "description": length } },
                        },
                    },
                } },
            }],
        },
    });
    Scheme::builtin().with_custom([definition].iter())
}

/// The type `name` of the document at `path`, and these fields of it, are described and say more than that.
fn check_described(path: &str, name: &str, fields: &[&str]) {
    let document = document(&Scheme::builtin(), path);
    let schema = &document["components"]["schemas"][name];
    assert!(is_described(schema), "{name}");
    for field in fields {
        let schema = &schema["properties"][field];
        assert!(is_described(schema), "{name}.{field}: {schema}");
        assert!(schema.as_object().is_some_and(|schema| schema.len() > 1), "{name}.{field}: {schema}");
    }
}

#[test]
fn kinds_and_their_fields_are_described() {
    let core = "io.k8s.api.core.v1";
    check_described("api/v1", &format!("{core}.Pod"), &["apiVersion", "kind", "metadata", "spec", "status"]);
    check_described("api/v1", &format!("{core}.PodSpec"), &["containers", "nodeSelector", "restartPolicy"]);
    check_described("api/v1", &format!("{core}.Container"), &["image", "livenessProbe", "volumeMounts"]);
    check_described("api/v1", &format!("{core}.ResourceRequirements"), &["limits", "requests"]);
    let metadata = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    check_described("api/v1", metadata, &["creationTimestamp", "labels"]);
    let apps = "io.k8s.api.apps.v1";
    check_described("apis/apps/v1", &format!("{apps}.Deployment"), &["metadata", "spec"]);
    check_described("apis/apps/v1", &format!("{apps}.DeploymentStrategy"), &["rollingUpdate", "type"]);
    check_described("apis/apps/v1", &format!("{apps}.RollingUpdateDeployment"), &["maxSurge"]);
    check_described("apis/apps/v1", &format!("{core}.Container"), &["image"]);
    let (path, extensions) =
        ("apis/apiextensions.k8s.io/v1", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1");
    check_described(path, &format!("{extensions}.CustomResourceDefinition"), &["metadata", "spec"]);
    check_described(path, &format!("{extensions}.CustomResourceDefinitionSpec"), &["scope", "versions"]);
}

/// That no kind is missing among those whose descriptions are made, and no field has another name there.
#[test]
fn every_type_is_described_that_kubernetes_describes() {
    let scheme = Scheme::with_unattended();
    let (mut silent, mut partly) = (BTreeSet::new(), BTreeSet::new());
    for path in v3_index(&scheme)["paths"].as_object().expect("an index has paths").keys() {
        let mut document = document(&scheme, path);
        let schemas = document["components"]["schemas"].as_object_mut().expect("a document has schemas");
        // A list has its metadata as an object of any form.
        schemas.retain(|_, schema| schema["properties"]["metadata"] != json!({ "type": "object" }));
        for (name, schema) in schemas {
            let short = name.rsplit('.').next().unwrap_or_default().to_owned();
            let fields = schema["properties"].as_object().expect("every type has fields");
            if !is_described(schema) {
                silent.insert(short);
            } else if !fields.values().all(is_described) {
                partly.insert(short);
            }
        }
    }
    assert_eq!(silent.iter().collect::<Vec<_>>(), ["MetricValue", "NodeMetrics", "PodMetrics"]);
    let expected = ["CertificateSigningRequest", "ExternalDocumentation", "IngressRule", "JSONSchemaProps"];
    assert_eq!(partly.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_custom_resource_is_described_by_its_definition() {
    let scheme = boats("From bow to stern.");
    let document = document(&scheme, "apis/harbour.example/v1");
    let schemas = &document["components"]["schemas"];
    let boat = &schemas["example.harbour.v1.Boat"];
    assert_eq!(boat["description"], "A boat at its berth.");
    assert_eq!(boat["properties"]["spec"]["description"], "How it is built.");
    assert_eq!(boat["properties"]["spec"]["properties"]["length"]["description"], "From bow to stern.");
    for field in ["apiVersion", "kind", "metadata"] {
        assert!(is_described(&boat["properties"][field]), "{field}");
    }
    let labels = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"]["labels"];
    assert!(is_described(labels), "{labels}");
    let older = &v2_json(&scheme)["definitions"]["example.harbour.v1.Boat"]["properties"]["spec"];
    assert_eq!(older["properties"]["length"]["description"], "From bow to stern.");
}

#[test]
fn the_older_document_says_the_same() {
    let scheme = Scheme::builtin();
    let (older, message) = (v2_json(&scheme), v2_protobuf(&scheme));
    for (path, name, field) in [
        ("api/v1", "io.k8s.api.core.v1.PodSpec", "containers"),
        ("api/v1", "io.k8s.api.core.v1.Pod", "spec"),
        ("apis/apps/v1", "io.k8s.api.apps.v1.DeploymentStrategy", "rollingUpdate"),
        ("apis/batch/v1", "io.k8s.api.batch.v1.Job", "metadata"),
    ] {
        let newer = document(&scheme, path);
        let (newer, older) = (&newer["components"]["schemas"][name], &older["definitions"][name]);
        assert!(is_described(older), "{name}");
        assert_eq!(older["description"], newer["description"], "{name}");
        let text = &older["properties"][field]["description"];
        assert_eq!(*text, newer["properties"][field]["description"], "{name}.{field}");
        let text = text.as_str().expect("the field is described").as_bytes();
        assert!(message.windows(text.len()).any(|part| part == text), "{name}.{field}");
    }
}

#[test]
fn a_document_has_another_hash_when_a_definition_has_other_words() {
    let url = |length| {
        v3_index(&boats(length))["paths"]["apis/harbour.example/v1"]["serverRelativeURL"]
            .as_str()
            .expect("the group is in the index")
            .to_owned()
    };
    assert_ne!(url("From bow to stern."), url("In feet."));
    assert_eq!(url("In feet."), url("In feet."));
}
