//! The defaults of built-in kinds, by type, so that a pod template gets what a pod gets.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/> names them field by field.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::quantity::Quantity;
use super::types::{Shape, Types, Zero};
use super::{Resource, decode};

type Object = Map<String, Value>;

/// Fills in what the user left open.
pub(super) fn default(resource: &Resource, object: &mut Value) {
    default_in(&resource.types, &Shape::Struct(resource.root), object);
    if resource.group == "apiextensions.k8s.io" {
        definition(object);
    }
}

fn default_in(types: &Types, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(index), Value::Object(object)) => {
            let of = types.get(*index);
            default_type(types, &of.name, object);
            for field in &of.fields {
                if let Some(value) = object.get_mut(&field.name) {
                    default_in(types, &field.shape, value);
                } else if let Some(default) = field.default.as_ref().filter(|default| is_meant(default, field.zero)) {
                    object.insert(field.name.clone(), default.clone());
                }
            }
        }
        (Shape::List(item), Value::Array(list)) => list.iter_mut().for_each(|value| default_in(types, item, value)),
        (Shape::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| default_in(types, item, value)),
        _ => {}
    }
}

/// Published schemas name the zero value of a required field as its default; that one is not filled in.
fn is_meant(default: &Value, zero: Zero) -> bool {
    match default {
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Bool(value) => *value || zero == Zero::Distinct,
        _ => false,
    }
}

/// `stringData` is for writing only: it becomes data, and wins over what is there.
fn secret(object: &mut Object) {
    set(object, "type", || json!("Opaque"));
    if let Some(Value::Object(texts)) = object.remove("stringData") {
        let data = object.entry("data").or_insert(Value::Null);
        if data.is_null() {
            *data = json!({});
        }
        for (name, text) in texts {
            data[name] = BASE64_STANDARD.encode(text.as_str().unwrap_or_default()).into();
        }
    }
}

fn default_type(types: &Types, name: &str, object: &mut Object) {
    let Some(name) = name.strip_prefix("io.k8s.api.") else { return };
    match name {
        "core.v1.Pod" => pod(object),
        "core.v1.PodSpec" => pod_spec(types, object),
        "core.v1.Container" | "core.v1.EphemeralContainer" => container(object),
        "core.v1.Probe" => set_all(
            object,
            &[("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)],
        ),
        "core.v1.GRPCAction" => set(object, "service", || json!("")),
        "core.v1.HTTPGetAction" => {
            set(object, "path", || json!("/"));
            set(object, "scheme", || json!("HTTP"));
        }
        "core.v1.Volume" => volume(object),
        "core.v1.SecretVolumeSource"
        | "core.v1.ConfigMapVolumeSource"
        | "core.v1.DownwardAPIVolumeSource"
        | "core.v1.ProjectedVolumeSource" => set(object, "defaultMode", || json!(420)),
        "core.v1.ServiceAccountTokenProjection" => set(object, "expirationSeconds", || json!(3600)),
        "core.v1.HostPathVolumeSource" => set(object, "type", || json!("")),
        "core.v1.ObjectFieldSelector" => set(object, "apiVersion", || json!("v1")),
        "core.v1.Service" => within(object, "spec", service_spec),
        "core.v1.Secret" => secret(object),
        "core.v1.Namespace" => {
            within(object, "status", |status| set(status, "phase", || json!("Active")));
            namespace_label(object);
        }
        "core.v1.PersistentVolume" => {
            within(object, "status", |status| set(status, "phase", || json!("Pending")));
            within(object, "spec", |spec| {
                set(spec, "persistentVolumeReclaimPolicy", || json!("Retain"));
                set(spec, "volumeMode", || json!("Filesystem"));
            });
        }
        "core.v1.PersistentVolumeClaim" => {
            within(object, "status", |status| set(status, "phase", || json!("Pending")));
        }
        "core.v1.PersistentVolumeClaimSpec" => set(object, "volumeMode", || json!("Filesystem")),
        "core.v1.NodeStatus" => {
            if let Some(capacity) = object.get("capacity").cloned() {
                set(object, "allocatable", || capacity);
            }
        }
        "core.v1.ReplicationController" => replication_controller(object),
        "core.v1.LimitRangeItem" => limit_range_item(object),
        "core.v1.EndpointPort" => set(object, "protocol", || json!("TCP")),
        "discovery.v1.EndpointPort" => {
            set(object, "name", || json!(""));
            set(object, "protocol", || json!("TCP"));
        }
        "apps.v1.Deployment" => within(object, "spec", deployment_spec),
        "apps.v1.DaemonSet" => within(object, "spec", daemon_set_spec),
        "apps.v1.StatefulSet" => within(object, "spec", stateful_set_spec),
        "apps.v1.ReplicaSet" => within(object, "spec", |spec| set(spec, "replicas", || json!(1))),
        "storage.v1.CSIDriver" => within(object, "spec", csi_driver_spec),
        "batch.v1.Job" => job(object),
        "batch.v1.CronJob" => within(object, "spec", |spec| {
            set(spec, "concurrencyPolicy", || json!("Allow"));
            set(spec, "suspend", || json!(false));
            set(spec, "successfulJobsHistoryLimit", || json!(3));
            set(spec, "failedJobsHistoryLimit", || json!(1));
        }),
        "batch.v1.PodFailurePolicyOnPodConditionsPattern" => set(object, "status", || json!("True")),
        "autoscaling.v1.HorizontalPodAutoscaler" => {
            within(object, "spec", |spec| set(spec, "minReplicas", || json!(1)));
        }
        "autoscaling.v2.HorizontalPodAutoscaler" => within(object, "spec", autoscaler_spec),
        "networking.v1.NetworkPolicyPort" => set(object, "protocol", || json!("TCP")),
        "networking.v1.NetworkPolicy" => within(object, "spec", |spec| {
            let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
            set(spec, "policyTypes", || if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }),
        "networking.v1.IngressClass" => within(object, "spec", |spec| {
            within(spec, "parameters", |parameters| set(parameters, "scope", || json!("Cluster")));
        }),
        "rbac.v1.ClusterRoleBinding" | "rbac.v1.RoleBinding" => {
            within(object, "roleRef", |role| set(role, "apiGroup", || json!("rbac.authorization.k8s.io")));
        }
        "rbac.v1.Subject" => {
            if matches!(text(object, "kind"), "User" | "Group") {
                set(object, "apiGroup", || json!("rbac.authorization.k8s.io"));
            }
        }
        "storage.v1.StorageClass" => {
            set(object, "reclaimPolicy", || json!("Delete"));
            set(object, "volumeBindingMode", || json!("Immediate"));
        }
        "scheduling.v1.PriorityClass" => set(object, "preemptionPolicy", || json!("PreemptLowerPriority")),
        "admissionregistration.v1.ValidatingWebhook" => webhook(object),
        "admissionregistration.v1.MutatingWebhook" => {
            webhook(object);
            set(object, "reinvocationPolicy", || json!("Never"));
        }
        "admissionregistration.v1.RuleWithOperations" | "admissionregistration.v1.NamedRuleWithOperations" => {
            set(object, "scope", || json!("*"));
        }
        "admissionregistration.v1.ServiceReference" => set(object, "port", || json!(443)),
        "admissionregistration.v1.ValidatingAdmissionPolicySpec"
        | "admissionregistration.v1.MutatingAdmissionPolicySpec" => set(object, "failurePolicy", || json!("Fail")),
        "admissionregistration.v1.MatchResources" => {
            set(object, "matchPolicy", || json!("Equivalent"));
            set(object, "namespaceSelector", || json!({}));
            set(object, "objectSelector", || json!({}));
        }
        "authentication.v1.TokenRequest" => {
            within(object, "spec", |spec| set(spec, "expirationSeconds", || json!(3600)));
        }
        _ => {}
    }
    if name.starts_with("core.v1.ResourceRequirements") || name == "core.v1.VolumeResourceRequirements" {
        for list in ["limits", "requests"] {
            within(object, list, in_millis);
        }
    }
}

/// The schema of custom resource definitions lives outside `io.k8s.api`.
fn definition(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    set(spec, "conversion", || json!({ "strategy": "None" }));
    within(spec, "names", |names| {
        let kind = text(names, "kind").to_owned();
        set(names, "singular", || json!(kind.to_lowercase()));
        set(names, "listKind", || json!(format!("{kind}List")));
    });
}

fn set(object: &mut Object, name: &str, default: impl FnOnce() -> Value) {
    if object.get(name).is_none_or(|value| value.is_null() || *value == json!("") || is_empty_list(value)) {
        object.insert(name.to_owned(), default());
    }
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// Numbers whose zero means the default.
fn set_all(object: &mut Object, defaults: &[(&str, i64)]) {
    for (name, default) in defaults {
        if object.get(*name).is_none_or(|value| value.is_null() || value.as_i64() == Some(0)) {
            object.insert((*name).to_owned(), json!(default));
        }
    }
}

fn within(object: &mut Object, name: &str, change: impl FnOnce(&mut Object)) {
    if let Some(inner) = object.get_mut(name).and_then(Value::as_object_mut) {
        change(inner);
    }
}

fn each(object: &mut Object, name: &str, mut change: impl FnMut(&mut Object)) {
    if let Some(list) = object.get_mut(name).and_then(Value::as_array_mut) {
        list.iter_mut().filter_map(Value::as_object_mut).for_each(&mut change);
    }
}

fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn in_millis(list: &mut Object) {
    for value in list.values_mut() {
        if let Some(quantity) = value.as_str().and_then(Quantity::parse) {
            *value = json!(quantity.in_millis().canonical());
        }
    }
}

fn pod(object: &mut Object) {
    within(object, "spec", |spec| {
        for containers in ["containers", "initContainers"] {
            each(spec, containers, |container| {
                within(container, "resources", |resources| {
                    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
                    let requests = resources.entry("requests").or_insert_with(|| json!({}));
                    if let Some(requests) = requests.as_object_mut() {
                        for (name, limit) in limits {
                            requests.entry(name).or_insert(limit);
                        }
                    }
                });
            });
        }
        set(spec, "enableServiceLinks", || json!(true));
        if spec.get("hostNetwork") == Some(&json!(true)) {
            for containers in ["containers", "initContainers"] {
                each(spec, containers, |container| {
                    each(container, "ports", |port| {
                        let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or_default();
                        set_all(port, &[("hostPort", number)]);
                    });
                });
            }
        }
    });
    within(object, "status", |status| set(status, "phase", || json!("Pending")));
}

fn pod_spec(types: &Types, spec: &mut Object) {
    set(spec, "dnsPolicy", || json!("ClusterFirst"));
    set(spec, "restartPolicy", || json!("Always"));
    set(spec, "securityContext", || json!({}));
    set(spec, "terminationGracePeriodSeconds", || json!(30));
    set(spec, "schedulerName", || json!("default-scheduler"));
    // Each of two names says the same.
    let names = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")];
    let account = names.into_iter().find(|name| !name.is_empty()).map(ToOwned::to_owned);
    if let Some(account) = account {
        spec.insert("serviceAccountName".to_owned(), json!(account));
        spec.insert("serviceAccount".to_owned(), json!(account));
    }
    if let Some(index) = types.index_of("io.k8s.api.core.v1.PodSecurityContext")
        && let Some(context) = spec.get_mut("securityContext")
    {
        decode::normalize_in(types, &Shape::Struct(index), context);
    }
}

fn container(object: &mut Object) {
    let image = text(object, "image");
    let policy = pull_policy(image);
    set(object, "imagePullPolicy", || json!(policy));
    set(object, "terminationMessagePath", || json!("/dev/termination-log"));
    set(object, "terminationMessagePolicy", || json!("File"));
}

/// `Always` for images whose tag is, or is taken to be, `latest`.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = match last.split_once('@') {
        Some((name, _)) => name.ends_with(":latest"),
        None => last.split_once(':').is_none_or(|(_, tag)| tag == "latest"),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn volume(object: &mut Object) {
    if object.keys().all(|name| name == "name") {
        object.insert("emptyDir".to_owned(), json!({}));
    }
    within(object, "image", |image| {
        let policy = pull_policy(text(image, "reference"));
        set(image, "pullPolicy", || json!(policy));
    });
    within(object, "ephemeral", |ephemeral| {
        within(ephemeral, "volumeClaimTemplate", |template| {
            within(template, "spec", |spec| set(spec, "volumeMode", || json!("Filesystem")));
        });
    });
}

fn service_spec(spec: &mut Object) {
    set(spec, "sessionAffinity", || json!("None"));
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let config = spec.entry("sessionAffinityConfig").or_insert_with(|| json!({}));
            if config.pointer("/clientIP/timeoutSeconds").is_none() {
                *config = json!({ "clientIP": { "timeoutSeconds": 10800 } });
            }
        }
        _ => {}
    }
    set(spec, "type", || json!("ClusterIP"));
    each(spec, "ports", |port| {
        set(port, "protocol", || json!("TCP"));
        let number = port.get("port").cloned().unwrap_or(json!(0));
        if port.get("targetPort").is_none_or(|target| *target == json!(0) || *target == json!("")) {
            port.insert("targetPort".to_owned(), number);
        }
    });
    let kind = text(spec, "type").to_owned();
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || kind == "ClusterIP" && external {
        set(spec, "externalTrafficPolicy", || json!("Cluster"));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set(spec, "internalTrafficPolicy", || json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", || json!(true));
    }
}

fn namespace_label(object: &mut Object) {
    within(object, "metadata", |metadata| {
        let name = text(metadata, "name").to_owned();
        if !name.is_empty()
            && let Some(labels) = metadata.entry("labels").or_insert_with(|| json!({})).as_object_mut()
        {
            labels.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
        }
    });
}

fn limit_range_item(object: &mut Object) {
    if text(object, "type") != "Container" {
        return;
    }
    let map = |object: &Object, name: &str| object.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let (maximum, minimum) = (map(object, "max"), map(object, "min"));
    let mut limits = map(object, "default");
    for (name, value) in maximum {
        limits.entry(name).or_insert(value);
    }
    let mut requests = map(object, "defaultRequest");
    for (name, value) in limits.clone().into_iter().chain(minimum) {
        requests.entry(name).or_insert(value);
    }
    for (name, list) in [("default", limits), ("defaultRequest", requests)] {
        if !list.is_empty() {
            object.insert(name.to_owned(), Value::Object(list));
        }
    }
}

fn deployment_spec(spec: &mut Object) {
    set(spec, "replicas", || json!(1));
    set(spec, "strategy", || json!({}));
    within(spec, "strategy", |strategy| {
        set(strategy, "type", || json!("RollingUpdate"));
        if text(strategy, "type") == "RollingUpdate" {
            set(strategy, "rollingUpdate", || json!({}));
            within(strategy, "rollingUpdate", |rolling| {
                set(rolling, "maxUnavailable", || json!("25%"));
                set(rolling, "maxSurge", || json!("25%"));
            });
        }
    });
    set(spec, "revisionHistoryLimit", || json!(10));
    set(spec, "progressDeadlineSeconds", || json!(600));
}

/// It selects what its template makes, and is labelled so.
fn replication_controller(object: &mut Object) {
    let labels = object.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels")).cloned();
    within(object, "spec", |spec| set(spec, "replicas", || json!(1)));
    let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty())) else {
        return;
    };
    let given = |value: Option<&Value>| value.and_then(Value::as_object).is_some_and(|labels| !labels.is_empty());
    within(object, "spec", |spec| {
        if !given(spec.get("selector")) {
            spec.insert("selector".to_owned(), labels.clone());
        }
    });
    within(object, "metadata", |metadata| {
        if !given(metadata.get("labels")) {
            metadata.insert("labels".to_owned(), labels.clone());
        }
    });
}

fn csi_driver_spec(spec: &mut Object) {
    set(spec, "attachRequired", || json!(true));
    for name in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
        set(spec, name, || json!(false));
    }
    set(spec, "fsGroupPolicy", || json!("ReadWriteOnceWithFSType"));
    set(spec, "volumeLifecycleModes", || json!(["Persistent"]));
}

fn daemon_set_spec(spec: &mut Object) {
    set(spec, "updateStrategy", || json!({}));
    within(spec, "updateStrategy", |strategy| {
        set(strategy, "type", || json!("RollingUpdate"));
        if text(strategy, "type") == "RollingUpdate" {
            set(strategy, "rollingUpdate", || json!({}));
            within(strategy, "rollingUpdate", |rolling| {
                set(rolling, "maxUnavailable", || json!(1));
                set(rolling, "maxSurge", || json!(0));
            });
        }
    });
    set(spec, "revisionHistoryLimit", || json!(10));
}

fn stateful_set_spec(spec: &mut Object) {
    set(spec, "podManagementPolicy", || json!("OrderedReady"));
    set(spec, "updateStrategy", || json!({}));
    within(spec, "updateStrategy", |strategy| {
        if text(strategy, "type").is_empty() {
            strategy.insert("type".to_owned(), json!("RollingUpdate"));
            set(strategy, "rollingUpdate", || json!({}));
        }
        if text(strategy, "type") == "RollingUpdate" {
            within(strategy, "rollingUpdate", |rolling| {
                set(rolling, "partition", || json!(0));
            });
        }
    });
    set(spec, "persistentVolumeClaimRetentionPolicy", || json!({}));
    within(spec, "persistentVolumeClaimRetentionPolicy", |policy| {
        set(policy, "whenDeleted", || json!("Retain"));
        set(policy, "whenScaled", || json!("Retain"));
    });
    set(spec, "replicas", || json!(1));
    set(spec, "revisionHistoryLimit", || json!(10));
    // Claims of a template are written with their kind.
    each(spec, "volumeClaimTemplates", |claim| {
        set(claim, "apiVersion", || json!("v1"));
        set(claim, "kind", || json!("PersistentVolumeClaim"));
    });
}

fn job(object: &mut Object) {
    let labels = object.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels")).cloned();
    if let Some(labels) = labels {
        within(object, "metadata", |metadata| {
            if metadata.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty) {
                metadata.insert("labels".to_owned(), labels);
            }
        });
    }
    within(object, "spec", |spec| {
        if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
            spec.insert("completions".to_owned(), json!(1));
        }
        set(spec, "parallelism", || json!(1));
        let per_index = spec.contains_key("backoffLimitPerIndex");
        set(spec, "backoffLimit", || if per_index { json!(i32::MAX) } else { json!(6) });
        set(spec, "completionMode", || json!("NonIndexed"));
        set(spec, "suspend", || json!(false));
        let failing = spec.contains_key("podFailurePolicy");
        set(spec, "podReplacementPolicy", || if failing { json!("Failed") } else { json!("TerminatingOrFailed") });
        set(spec, "manualSelector", || json!(false));
    });
}

fn autoscaler_spec(spec: &mut Object) {
    set(spec, "minReplicas", || json!(1));
    set(spec, "metrics", || {
        json!([{
            "type": "Resource",
            "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } },
        }])
    });
    within(spec, "behavior", |behavior| {
        set(behavior, "scaleUp", || json!({}));
        set(behavior, "scaleDown", || json!({}));
        within(behavior, "scaleUp", |rules| {
            set(rules, "stabilizationWindowSeconds", || json!(0));
            set(rules, "selectPolicy", || json!("Max"));
            set(rules, "policies", || {
                json!([
                    { "type": "Pods", "value": 4, "periodSeconds": 15 },
                    { "type": "Percent", "value": 100, "periodSeconds": 15 },
                ])
            });
        });
        within(behavior, "scaleDown", |rules| {
            set(rules, "selectPolicy", || json!("Max"));
            set(rules, "policies", || json!([{ "type": "Percent", "value": 100, "periodSeconds": 15 }]));
        });
    });
}

fn webhook(object: &mut Object) {
    set(object, "failurePolicy", || json!("Fail"));
    set(object, "matchPolicy", || json!("Equivalent"));
    set(object, "namespaceSelector", || json!({}));
    set(object, "objectSelector", || json!({}));
    set(object, "timeoutSeconds", || json!(10));
}
