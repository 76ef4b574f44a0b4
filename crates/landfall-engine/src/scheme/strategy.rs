//! What the server decides when an object is written: which part a request may change, and when the generation grows.

use serde_json::{Map, Value, json};

use super::Resource;

/// Which part of an object a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status, where the status is a subresource.
    Main,
    Status,
    /// Like [`Part::Main`] for what a subresource changes: a pod's containers, a namespace's finalizers.
    Other,
}

/// Identity and times, which a client cannot change.
const KEPT: [&str; 8] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "name",
    "namespace",
    "selfLink",
    "generateName",
];

/// Kinds whose generation is not counted although they have a spec.
fn counts_generation(resource: &Resource) -> bool {
    match resource.group.as_str() {
        _ if resource.custom => true,
        "" => matches!(resource.kind.as_str(), "Pod" | "PodTemplate" | "ReplicationController"),
        "apps" => resource.kind != "ControllerRevision",
        "networking.k8s.io" => matches!(resource.kind.as_str(), "Ingress" | "NetworkPolicy" | "IngressClass"),
        "batch"
        | "policy"
        | "discovery.k8s.io"
        | "admissionregistration.k8s.io"
        | "apiextensions.k8s.io"
        | "scheduling.k8s.io" => true,
        _ => false,
    }
}

/// Kinds that count a change of anything but metadata, having no `spec`.
fn counts_everything(resource: &Resource) -> bool {
    resource.group == "discovery.k8s.io"
        || resource.custom && !resource.has_status()
        || resource.kind.ends_with("WebhookConfiguration")
        || matches!(resource.kind.as_str(), "PriorityClass" | "PodTemplate")
}

/// A job selects pods by its own uid, unless it says that it selects them itself. The uid must have been given already.
fn job_selector(job: &mut Value) {
    if !job["spec"].is_object() || job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    // Defaults gave a job without labels those of its template.
    let shared = job["metadata"]["labels"].as_object().is_none_or(Map::is_empty)
        || job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"];
    let template = &mut job["spec"]["template"]["metadata"];
    if !template["labels"].is_object() {
        template["labels"] = json!({});
    }
    for (label, value) in [("controller-uid", &uid), ("job-name", &name)] {
        template["labels"][label] = value.clone();
        template["labels"][format!("batch.kubernetes.io/{label}")] = value.clone();
    }
    let labels = template["labels"].clone();
    job["spec"]["selector"] = json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } });
    if shared {
        job["metadata"]["labels"] = labels;
    }
}

pub(super) fn prepare_create(resource: &Resource, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    if resource.has_status() {
        reset_status(resource, fields);
    }
    if resource.group == "batch" && resource.kind == "Job" {
        job_selector(object);
    }
    let Some(fields) = object.as_object_mut() else { return };
    if let Some(metadata) = fields.entry("metadata").or_insert_with(|| json!({})).as_object_mut() {
        metadata.remove("selfLink");
        metadata.remove("deletionTimestamp");
        metadata.remove("deletionGracePeriodSeconds");
        if counts_generation(resource) {
            metadata.insert("generation".to_owned(), json!(1));
        }
    }
    if resource.group.is_empty() && resource.kind == "Namespace" {
        hold_namespace(fields);
    }
    if resource.group == "apps" && resource.kind == "DaemonSet" {
        count_templates(fields, 1);
    }
}

/// A namespace stays until a controller has emptied it and takes this away, by the subresource `finalize`.
fn hold_namespace(fields: &mut Map<String, Value>) {
    let spec = fields.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else { return };
    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.contains(&json!("kubernetes"))
    {
        finalizers.push(json!("kubernetes"));
    }
}

/// Kubernetes still counts the templates of a daemon set in an annotation.
fn count_templates(fields: &mut Map<String, Value>, count: i64) {
    let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
    let annotations = metadata.map(|metadata| metadata.entry("annotations").or_insert_with(|| json!({})));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.insert(TEMPLATES.to_owned(), json!(count.to_string()));
    }
}

const TEMPLATES: &str = "deprecated.daemonset.template.generation";

fn reset_status(resource: &Resource, fields: &mut Map<String, Value>) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        // A node may say at once what it has.
        ("", "Node") => {}
        ("", "Pod") => {
            let mut status = json!({ "phase": "Pending" });
            if let Some(class) = quality_of_service(fields) {
                status["qosClass"] = json!(class);
            }
            fields.insert("status".to_owned(), status);
        }
        ("", "Namespace") => {
            fields.insert("status".to_owned(), json!({ "phase": "Active" }));
        }
        ("", "PersistentVolume" | "PersistentVolumeClaim") => {
            fields.insert("status".to_owned(), json!({ "phase": "Pending" }));
        }
        ("", "Service") | ("networking.k8s.io", "Ingress") => {
            fields.insert("status".to_owned(), json!({ "loadBalancer": {} }));
        }
        ("apps", "ReplicaSet" | "StatefulSet") => {
            fields.insert("status".to_owned(), empty_status(resource));
        }
        ("apiextensions.k8s.io", _) => {
            let stored: Vec<_> = fields
                .get("spec")
                .and_then(|spec| spec.get("versions"))
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter(|version| version.get("storage") == Some(&json!(true)))
                .filter_map(|version| version.get("name").cloned())
                .take(1)
                .collect();
            fields.insert("status".to_owned(), json!({ "storedVersions": stored }));
        }
        _ if resource.custom => {
            fields.shift_remove("status");
        }
        _ => {
            fields.insert("status".to_owned(), empty_status(resource));
        }
    }
}

/// The status of a new object: the numbers that are always written, at zero.
fn empty_status(resource: &Resource) -> Value {
    let mut status = Map::new();
    if let Some(super::Shape::Struct(index)) = resource.root().field("status").map(|field| &field.shape) {
        for field in &resource.types.get(*index).fields {
            let zero = match (field.zero, &field.shape) {
                (super::Zero::Kept, super::Shape::Int32 | super::Shape::Int64) => json!(0),
                (super::Zero::Always, _) => json!({}),
                (super::Zero::Kept, _) => Value::Null,
                _ => continue,
            };
            status.insert(field.name.clone(), zero);
        }
    }
    Value::Object(status)
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the requests and limits for processor and memory.
pub(crate) fn quality_of_service(pod: &Map<String, Value>) -> Option<&'static str> {
    let spec = pod.get("spec")?;
    let containers = ["containers", "initContainers"]
        .into_iter()
        .filter_map(|name| spec.get(name).and_then(Value::as_array))
        .flatten();
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let amount = |list: &str, name: &str| {
            let text = container.get("resources")?.get(list)?.get(name)?.as_str()?;
            super::quantity::Quantity::parse(text).filter(|quantity| quantity.nanos() != 0)
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", name), amount("limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    Some(match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    })
}

pub(super) fn prepare_update(resource: &Resource, new: &mut Value, old: &Value, part: Part) {
    let Some(fields) = new.as_object_mut() else { return };
    keep_metadata(resource, fields, old, part);
    match part {
        Part::Main | Part::Other if resource.has_status() => replace(fields, old, "status"),
        Part::Status => {
            let kept: Vec<String> = old
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
                .chain(fields.keys())
                .filter(|name| !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
                .cloned()
                .collect();
            for name in kept {
                replace(fields, old, &name);
            }
        }
        Part::Main | Part::Other => {}
    }
    if part == Part::Main && resource.kind == "Namespace" && resource.group.is_empty() {
        replace(fields, old, "spec");
    }
    if part == Part::Main && resource.kind == "Service" && resource.group.is_empty() {
        drop_unfit(fields, old);
        keep_service_addresses(fields, old);
    }
    if part == Part::Main && resource.group == "apps" && resource.kind == "DaemonSet" {
        let count = old.pointer("/metadata/annotations").and_then(|all| all.get(TEMPLATES)).and_then(Value::as_str);
        let count = count.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let changed = fields.get("spec").and_then(|spec| spec.get("template")) != old.pointer("/spec/template");
        count_templates(fields, count + i64::from(changed));
    }
    count_generation(resource, fields, old, part);
}

fn replace(fields: &mut Map<String, Value>, old: &Value, name: &str) {
    match old.get(name) {
        Some(value) => {
            fields.insert(name.to_owned(), value.clone());
        }
        None => {
            fields.shift_remove(name);
        }
    }
}

fn keep_metadata(resource: &Resource, fields: &mut Map<String, Value>, old: &Value, part: Part) {
    let old = old.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let Some(metadata) = fields.entry("metadata").or_insert_with(|| json!({})).as_object_mut() else { return };
    for name in KEPT.iter().chain(&["generation"]) {
        // What names another object is left for validation to refuse.
        if matches!(*name, "uid" | "name" | "namespace") && metadata.contains_key(*name) {
            continue;
        }
        match old.get(*name) {
            Some(value) => {
                metadata.insert((*name).to_owned(), value.clone());
            }
            None => {
                metadata.shift_remove(*name);
            }
        }
    }
    // A status request of a custom resource changes no metadata but the managed fields; labels and annotations of
    // built-in kinds may be changed by it.
    if part == Part::Status && resource.custom {
        let managed = metadata.get("managedFields").cloned();
        let version = metadata.get("resourceVersion").cloned();
        *metadata = old;
        for (name, value) in [("managedFields", managed), ("resourceVersion", version)] {
            if let Some(value) = value {
                metadata.insert(name.to_owned(), value);
            }
        }
    }
}

/// What only services of the old type have goes with the type, unless the client has changed it.
fn drop_unfit(fields: &mut Map<String, Value>, old: &Value) {
    let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let is = |kind: &str| spec.get("type").and_then(Value::as_str) == Some(kind);
    let mut unfit = Vec::new();
    if !is("LoadBalancer") {
        unfit.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if !is("LoadBalancer") && !is("NodePort") && spec.get("externalIPs").is_none() {
        unfit.push("externalTrafficPolicy");
    }
    for name in unfit {
        if spec.get(name) == old.get("spec").and_then(|old| old.get(name)) {
            spec.shift_remove(name);
        }
    }
}

/// Addresses that the server chose stay when a client, which may not know them, leaves them out.
fn keep_service_addresses(fields: &mut Map<String, Value>, old: &Value) {
    let Some(old) = old.get("spec") else { return };
    let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let external = json!("ExternalName");
    if spec.get("type") == Some(&external) || old.get("type") == Some(&external) {
        return;
    }
    for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
        if !spec.contains_key(name)
            && let Some(value) = old.get(name)
        {
            spec.insert(name.to_owned(), value.clone());
        }
    }
    if !matches!(spec.get("type").and_then(Value::as_str), Some("NodePort" | "LoadBalancer")) {
        return;
    }
    let old_ports = old.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port.get("nodePort").is_some() {
            continue;
        }
        let same = old_ports
            .iter()
            .find(|one| one.get("port") == port.get("port") && one.get("protocol") == port.get("protocol"));
        if let Some(number) = same.and_then(|one| one.get("nodePort")) {
            port["nodePort"] = number.clone();
        }
    }
}

fn count_generation(resource: &Resource, fields: &mut Map<String, Value>, old: &Value, part: Part) {
    if !counts_generation(resource) || part == Part::Status {
        return;
    }
    let changed = if counts_everything(resource) {
        let wanted = |object: &Map<String, Value>| {
            let mut object = object.clone();
            object.retain(|name, _| !matches!(name.as_str(), "metadata" | "apiVersion" | "kind"));
            object
        };
        old.as_object().is_none_or(|old| wanted(old) != wanted(fields))
    } else if resource.custom {
        let wanted = |object: &Map<String, Value>| {
            let mut object = object.clone();
            object.retain(|name, _| !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind"));
            object
        };
        old.as_object().is_none_or(|old| wanted(old) != wanted(fields))
    } else {
        fields.get("spec") != old.get("spec")
    };
    if changed && let Some(metadata) = fields.get_mut("metadata") {
        let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
        metadata["generation"] = json!(generation + 1);
    }
}
