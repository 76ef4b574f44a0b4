//! The rows of the other kinds, and the columns that a definition asks for by path.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{duration, pod, since};
use crate::scheme::Resource;
use crate::scheme::selector::LabelSelector;
use crate::scheme::validate::Fields as _;

pub(super) fn row(resource: &Resource, object: &Value, name: Value, age: &str, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let number = |value: &Value| json!(value.as_i64().unwrap_or(0));
    let count = |field: &str| object.at(field).as_object().map_or(0, serde_json::Map::len);
    let mut row = vec![name];
    let rest = match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::row(object, age, now),
        ("", "Node") => node(object, age),
        ("", "Service") => service(object, age),
        (_, "Event") => return event(resource, object, now),
        ("", "Endpoints") => vec![json!(endpoints(object)), json!(age)],
        ("", "Namespace") => vec![json!(status.text("phase")), json!(age)],
        ("", "Secret") => vec![json!(object.text("type")), json!(count("data")), json!(age)],
        ("", "ConfigMap") => vec![json!(count("data") + count("binaryData")), json!(age)],
        ("", "ServiceAccount") => vec![json!(age)],
        ("", "ResourceQuota") => quota(status, age),
        ("", "PersistentVolume") => volume(object, age),
        ("", "PersistentVolumeClaim") => claim(object, age),
        ("apps", "Deployment") => {
            let ready = format!("{}/{}", number(status.at("readyReplicas")), number(spec.at("replicas")));
            let mut row = vec![
                json!(ready),
                number(status.at("updatedReplicas")),
                number(status.at("availableReplicas")),
                json!(age),
            ];
            row.extend(containers(object));
            row
        }
        ("apps", "ReplicaSet") => {
            let mut row = vec![
                number(spec.at("replicas")),
                number(status.at("replicas")),
                number(status.at("readyReplicas")),
                json!(age),
            ];
            row.extend(containers(object));
            row
        }
        ("apps", "StatefulSet") => {
            let ready = format!("{}/{}", number(status.at("readyReplicas")), number(spec.at("replicas")));
            let mut row = vec![json!(ready), json!(age)];
            row.extend(containers(object).into_iter().take(2));
            row
        }
        ("apps", "DaemonSet") => {
            let mut row: Vec<_> = [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ]
            .map(|field| number(status.at(field)))
            .to_vec();
            row.push(json!(pairs(spec.at("template.spec.nodeSelector"))));
            row.push(json!(age));
            row.extend(containers(object));
            row
        }
        ("apps", "ControllerRevision") => {
            let owners = object.items("metadata.ownerReferences");
            let owner = owners.iter().find(|owner| owner.at("controller") == &json!(true));
            let owner = owner.map_or_else(
                || "<none>".to_owned(),
                |owner| {
                    let group = owner.text("apiVersion").rsplit_once('/').map(|(group, _)| format!(".{group}"));
                    let kind = owner.text("kind").to_lowercase();
                    format!("{kind}{}/{}", group.unwrap_or_default(), owner.text("name"))
                },
            );
            vec![json!(owner), number(object.at("revision")), json!(age)]
        }
        ("batch", "Job") => job(object, age, now),
        ("batch", "CronJob") => {
            let last = match status.at("lastScheduleTime") {
                Value::Null => "<none>".to_owned(),
                time => since(Some(time), now),
            };
            let zone = spec.at("timeZone").as_str().unwrap_or("<none>");
            let mut row = vec![
                json!(spec.text("schedule")),
                json!(zone),
                json!(if spec.at("suspend") == &json!(true) { "True" } else { "False" }),
                json!(status.items("active").len()),
                json!(last),
                json!(age),
            ];
            row.extend(containers_of(spec.at("jobTemplate.spec.template.spec")));
            row.push(json!(selector(spec.at("jobTemplate.spec.selector"))));
            row
        }
        ("autoscaling", _) => autoscaler(object, age),
        ("policy", "PodDisruptionBudget") => {
            let amount = |field: &str| match spec.at(field) {
                Value::Null => json!("N/A"),
                Value::String(text) => json!(text),
                other => json!(other.to_string()),
            };
            vec![amount("minAvailable"), amount("maxUnavailable"), number(status.at("disruptionsAllowed")), json!(age)]
        }
        ("networking.k8s.io", "Ingress") => ingress(object, age),
        ("networking.k8s.io", "IngressClass") => {
            let parameters = spec.at("parameters");
            let text = if parameters.is_null() {
                "<none>".to_owned()
            } else {
                let group = match parameters.text("apiGroup") {
                    "" => String::new(),
                    group => format!(".{group}"),
                };
                format!("{}{group}/{}", parameters.text("kind"), parameters.text("name"))
            };
            vec![json!(spec.text("controller")), json!(text), json!(age)]
        }
        ("networking.k8s.io", "NetworkPolicy") => vec![json!(selector(spec.at("podSelector"))), json!(age)],
        ("discovery.k8s.io", "EndpointSlice") => {
            let ports = object.items("ports").iter().map(|port| match port.at("port") {
                Value::Null => port.at("name").as_str().unwrap_or("*").to_owned(),
                number => number.to_string(),
            });
            let addresses = object.items("endpoints").iter().flat_map(|one| one.items("addresses"));
            let addresses = addresses.filter_map(Value::as_str).map(ToOwned::to_owned);
            let none = |text: String| if text.is_empty() { "<unset>".to_owned() } else { text };
            vec![
                json!(object.text("addressType")),
                json!(none(first_three(ports.collect()))),
                json!(none(first_three(addresses.collect()))),
                json!(age),
            ]
        }
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole")
        | ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            vec![object.at("metadata.creationTimestamp").clone()]
        }
        ("rbac.authorization.k8s.io", _) => binding(object, age),
        ("storage.k8s.io", "StorageClass") => {
            let default = object.at("metadata.annotations").get("storageclass.kubernetes.io/is-default-class");
            if default == Some(&json!("true")) {
                row = vec![json!(format!("{} (default)", object.text("metadata.name")))];
            }
            vec![
                json!(object.text("provisioner")),
                json!(object.at("reclaimPolicy").as_str().unwrap_or("Delete")),
                json!(object.at("volumeBindingMode").as_str().unwrap_or("Immediate")),
                json!(object.at("allowVolumeExpansion").as_bool().unwrap_or(false)),
                json!(age),
            ]
        }
        ("scheduling.k8s.io", "PriorityClass") => vec![
            number(object.at("value")),
            json!(object.at("globalDefault").as_bool().unwrap_or(false)),
            json!(age),
            json!(object.text("preemptionPolicy")),
        ],
        ("coordination.k8s.io", "Lease") => vec![json!(spec.text("holderIdentity")), json!(age)],
        ("node.k8s.io", "RuntimeClass") => vec![json!(object.text("handler")), json!(age)],
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            let kind = spec.at("paramKind");
            let kind = if kind.is_null() {
                "<unset>".to_owned()
            } else {
                format!("{}/{}", kind.text("apiVersion"), kind.text("kind"))
            };
            vec![json!(spec.items("validations").len()), json!(kind), json!(age)]
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            let parameters = spec.at("paramRef");
            let parameters = match (parameters.text("namespace"), parameters.text("name")) {
                _ if parameters.is_null() => "<unset>".to_owned(),
                ("", "") => "*".to_owned(),
                ("", name) => name.to_owned(),
                (namespace, name) => format!("{namespace}/{name}"),
            };
            vec![json!(spec.text("policyName")), json!(parameters), json!(age)]
        }
        ("admissionregistration.k8s.io", _) => vec![json!(object.items("webhooks").len()), json!(age)],
        _ => vec![object.at("metadata.creationTimestamp").clone()],
    };
    row.extend(rest);
    row
}

/// `a=b,c=d` in order, or `<none>`.
fn pairs(map: &Value) -> String {
    let mut texts: Vec<_> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    texts.sort();
    if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") }
}

fn selector(object: &Value) -> String {
    match LabelSelector::of_object(object) {
        Some(selector) if !selector.is_empty() => selector.to_string(),
        Some(_) => "<none>".to_owned(),
        None => "<error>".to_owned(),
    }
}

/// Names, images and selector of a workload.
fn containers(object: &Value) -> Vec<Value> {
    let mut row = containers_of(object.at("spec.template.spec"));
    row.push(json!(selector(object.at("spec.selector"))));
    row
}

fn containers_of(pod: &Value) -> Vec<Value> {
    let join = |field: &str| {
        let texts: Vec<_> = pod.items("containers").iter().map(|one| one.text(field)).collect();
        json!(texts.join(","))
    };
    vec![join("name"), join("image")]
}

fn first_three(list: Vec<String>) -> String {
    let count = list.len();
    let shown = list.into_iter().take(3).collect::<Vec<_>>().join(",");
    if count > 3 { format!("{shown} + {} more...", count - 3) } else { shown }
}

fn node(node: &Value, age: &str) -> Vec<Value> {
    let status = node.at("status");
    let ready = status.items("conditions").iter().find(|one| one.text("type") == "Ready");
    let mut words = vec![match ready {
        Some(one) if one.text("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node.at("spec.unschedulable") == &json!(true) {
        words.push("SchedulingDisabled");
    }
    let mut roles = BTreeSet::new();
    for (key, value) in node.at("metadata.labels").as_object().into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|role| !role.is_empty()) {
            roles.insert(role.to_owned());
        } else if key == "kubernetes.io/role" {
            roles.extend(value.as_str().filter(|role| !role.is_empty()).map(ToOwned::to_owned));
        }
    }
    let roles = roles.into_iter().collect::<Vec<_>>().join(",");
    let address = |kind: &str| {
        let found = status.items("addresses").iter().find(|one| one.text("type") == kind);
        json!(found.map_or("<none>", |one| one.text("address")))
    };
    let info = |field: &str| match status.at("nodeInfo").text(field) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    let kernel = match status.text("nodeInfo.architecture") {
        "" => info("kernelVersion"),
        architecture => format!("{} ({architecture})", info("kernelVersion")),
    };
    vec![
        json!(words.join(",")),
        json!(if roles.is_empty() { "<none>".to_owned() } else { roles }),
        json!(age),
        json!(status.text("nodeInfo.kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        json!(info("osImage")),
        json!(kernel),
        json!(info("containerRuntimeVersion")),
    ]
}

fn addresses(balancer: &Value) -> String {
    let texts = balancer.items("ingress").iter().map(|one| match one.text("ip") {
        "" => one.text("hostname"),
        ip => ip,
    });
    texts.filter(|text| !text.is_empty()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
}

/// Cut to the width of its column, unless the whole width is asked for, which the server cannot know of one row alone.
fn narrow(text: String) -> String {
    if text.len() > 16 { format!("{}...", text.chars().take(13).collect::<String>()) } else { text }
}

fn service(service: &Value, age: &str) -> Vec<Value> {
    let spec = service.at("spec");
    let own: Vec<_> = spec.items("externalIPs").iter().filter_map(Value::as_str).collect();
    let external = match spec.text("type") {
        "ClusterIP" | "NodePort" if own.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => own.join(","),
        "LoadBalancer" => {
            let balanced = narrow(addresses(service.at("status.loadBalancer")));
            let all: Vec<_> = std::iter::once(balanced.as_str()).filter(|one| !one.is_empty()).chain(own).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    };
    let port = |port: &Value| match port.integer("nodePort") {
        Some(node) if node > 0 => format!("{}:{node}/{}", port.at("port"), port.text("protocol")),
        _ => format!("{}/{}", port.at("port"), port.text("protocol")),
    };
    let ports = spec.items("ports").iter().map(port).collect::<Vec<_>>().join(",");
    let address = spec.items("clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
    vec![
        json!(spec.text("type")),
        json!(address),
        json!(external),
        json!(if ports.is_empty() { "<none>".to_owned() } else { ports }),
        json!(age),
        json!(pairs(spec.at("selector"))),
    ]
}

fn event(resource: &Resource, event: &Value, now: Timestamp) -> Vec<Value> {
    let core = resource.group.is_empty();
    let pick = |of_core: &'static str, of_group: &'static str| event.at(if core { of_core } else { of_group });
    let time = |value: &Value| (!value.is_null()).then(|| since(Some(value), now));
    let first = time(pick("firstTimestamp", "deprecatedFirstTimestamp"))
        .or_else(|| time(event.at("eventTime")))
        .unwrap_or_else(|| "<unknown>".to_owned());
    let mut last = time(pick("lastTimestamp", "deprecatedLastTimestamp")).unwrap_or_else(|| first.clone());
    let mut count = pick("count", "deprecatedCount").as_i64().unwrap_or(0).max(1);
    let series = event.at("series");
    if !series.is_null() {
        last = since(Some(series.at("lastObservedTime")), now);
        count = series.integer("count").unwrap_or(0);
    }
    let about = pick("involvedObject", "regarding");
    let target = match (about.text("kind").to_lowercase(), about.text("name")) {
        (kind, "") => kind,
        (kind, name) => format!("{kind}/{name}"),
    };
    let source = pick("source", "deprecatedSource");
    let first_of = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { a.to_owned() };
    let component = first_of(
        source.text("component"),
        pick("reportingComponent", "reportingController").as_str().unwrap_or_default(),
    );
    let instance = first_of(source.text("host"), event.text("reportingInstance"));
    let source = if instance.is_empty() { component } else { format!("{component}, {instance}") };
    vec![
        json!(last),
        json!(event.text("type")),
        json!(event.text("reason")),
        json!(target),
        json!(about.text("fieldPath")),
        json!(source),
        json!(pick("message", "note").as_str().unwrap_or_default().trim()),
        json!(first),
        json!(count),
        json!(event.text("metadata.name")),
    ]
}

fn endpoints(endpoints: &Value) -> String {
    let subsets = endpoints.items("subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut list = Vec::new();
    for subset in subsets {
        let addresses = subset.items("addresses").iter().map(|one| one.text("ip"));
        match subset.items("ports") {
            [] => list.extend(addresses.map(ToOwned::to_owned)),
            ports => {
                for port in ports {
                    let number = port.at("port");
                    list.extend(addresses.clone().map(|address| {
                        if address.contains(':') {
                            format!("[{address}]:{number}")
                        } else {
                            format!("{address}:{number}")
                        }
                    }));
                }
            }
        }
    }
    first_three(list)
}

fn quota(status: &Value, age: &str) -> Vec<Value> {
    let mut columns = [Vec::new(), Vec::new()];
    let mut names: Vec<_> = status.at("hard").as_object().into_iter().flatten().collect();
    names.sort_by_key(|(name, _)| name.as_str());
    for (name, hard) in names {
        let used = status.at("used").get(name).and_then(Value::as_str).unwrap_or("0");
        let text = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
        columns[usize::from(name.starts_with("limits."))].push(text);
    }
    let [requests, limits] = columns;
    vec![json!(requests.join(", ")), json!(limits.join(", ")), json!(age)]
}

fn access_modes(modes: &[Value]) -> String {
    let short =
        |name: &'static str, mode: &'static str| modes.iter().any(|one| one.as_str() == Some(mode)).then_some(name);
    let all = [
        short("RWO", "ReadWriteOnce"),
        short("ROX", "ReadOnlyMany"),
        short("RWX", "ReadWriteMany"),
        short("RWOP", "ReadWriteOncePod"),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(",")
}

fn storage_class(object: &Value) -> String {
    let annotations = object.at("metadata.annotations");
    match annotations.get("volume.beta.kubernetes.io/storage-class").and_then(Value::as_str) {
        Some(class) => class.to_owned(),
        None => object.text("spec.storageClassName").to_owned(),
    }
}

fn phase(object: &Value) -> &str {
    if object.text("metadata.deletionTimestamp").is_empty() { object.text("status.phase") } else { "Terminating" }
}

fn unset(text: &str) -> Value {
    json!(if text.is_empty() { "<unset>" } else { text })
}

fn volume(volume: &Value, age: &str) -> Vec<Value> {
    let spec = volume.at("spec");
    let claim = match spec.at("claimRef") {
        Value::Null => String::new(),
        claim => format!("{}/{}", claim.text("namespace"), claim.text("name")),
    };
    vec![
        json!(spec.text("capacity.storage")),
        json!(access_modes(spec.items("accessModes"))),
        json!(spec.text("persistentVolumeReclaimPolicy")),
        json!(phase(volume)),
        json!(claim),
        json!(storage_class(volume)),
        unset(spec.text("volumeAttributesClassName")),
        json!(volume.text("status.reason")),
        json!(age),
        unset(spec.text("volumeMode")),
    ]
}

fn claim(claim: &Value, age: &str) -> Vec<Value> {
    let bound = !claim.text("spec.volumeName").is_empty();
    let capacity = if bound { claim.text("status.capacity.storage") } else { "" };
    let modes = if bound { access_modes(claim.items("status.accessModes")) } else { String::new() };
    vec![
        json!(phase(claim)),
        json!(claim.text("spec.volumeName")),
        json!(capacity),
        json!(modes),
        json!(storage_class(claim)),
        unset(claim.text("spec.volumeAttributesClassName")),
        json!(age),
        unset(claim.text("spec.volumeMode")),
    ]
}

fn job(job: &Value, age: &str, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (job.at("spec"), job.at("status"));
    let succeeded = status.integer("succeeded").unwrap_or(0);
    let completions = match (spec.integer("completions"), spec.integer("parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let second = |field: &str| Some(status.at(field).as_str()?.parse::<Timestamp>().ok()?.as_second());
    let took = second("startTime").map(|start| second("completionTime").unwrap_or_else(|| now.as_second()) - start);
    let holds = |name: &str| {
        status.items("conditions").iter().any(|one| one.text("type") == name && one.text("status") == "True")
    };
    let deleted = !job.text("metadata.deletionTimestamp").is_empty();
    let word = match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if deleted => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let mut row = vec![json!(word), json!(completions), json!(took.map(duration).unwrap_or_default()), json!(age)];
    row.extend(containers(job));
    row
}

fn autoscaler(autoscaler: &Value, age: &str) -> Vec<Value> {
    let number = |value: &Value| json!(value.as_i64().unwrap_or(0));
    let (spec, status) = (autoscaler.at("spec"), autoscaler.at("status"));
    let reference = format!("{}/{}", spec.text("scaleTargetRef.kind"), spec.text("scaleTargetRef.name"));
    let targets = if spec.at("metrics").is_null() && !spec.at("targetCPUUtilizationPercentage").is_null() {
        let current = status.integer("currentCPUUtilizationPercentage");
        let current = current.map_or_else(|| "<unknown>".to_owned(), |percent| format!("{percent}%"));
        format!("cpu: {current}/{}%", spec.at("targetCPUUtilizationPercentage"))
    } else {
        metrics(spec.items("metrics"), status.items("currentMetrics"))
    };
    let minimum = spec.integer("minReplicas").map_or_else(|| "<unset>".to_owned(), |number| number.to_string());
    vec![
        json!(reference),
        json!(targets),
        json!(minimum),
        number(spec.at("maxReplicas")),
        number(status.at("currentReplicas")),
        json!(age),
    ]
}

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let mut list = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let (source, named) = match spec.text("type") {
            "Resource" => ("resource", true),
            "ContainerResource" => ("containerResource", true),
            "Pods" => ("pods", false),
            "Object" => ("object", false),
            "External" => ("external", false),
            _ => {
                list.push("<unknown type>".to_owned());
                continue;
            }
        };
        let target = spec.at(source).at("target");
        let current = statuses.get(index).map_or(&Value::Null, |status| status.at(source).at("current"));
        let value = |field: &str| match current.at(field) {
            Value::Null => "<unknown>".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let text = if let Some(average) = target.at("averageValue").as_str() {
            let suffix = if matches!(source, "object" | "external") { " (avg)" } else { "" };
            format!("{}/{average}{suffix}", value("averageValue"))
        } else if named {
            let wanted = target.integer("averageUtilization");
            let wanted = wanted.map_or_else(|| "<auto>".to_owned(), |percent| format!("{percent}%"));
            let current = current.integer("averageUtilization");
            let current = current.map_or_else(|| "<unknown>".to_owned(), |percent| format!("{percent}%"));
            format!("{current}/{wanted}")
        } else {
            format!("{}/{}", value("value"), target.text("value"))
        };
        list.push(if named { format!("{}: {text}", spec.at(source).text("name")) } else { text });
    }
    let count = list.len();
    list.truncate(2);
    let shown = list.join(", ");
    if count > 2 { format!("{shown} + {} more...", count - 2) } else { shown }
}

fn ingress(ingress: &Value, age: &str) -> Vec<Value> {
    let spec = ingress.at("spec");
    let rules = spec.items("rules");
    let hosts: Vec<_> = rules.iter().take(3).map(|rule| rule.text("host")).filter(|host| !host.is_empty()).collect();
    let hosts = match (hosts.is_empty(), rules.len() > 3 && hosts.len() == 3) {
        (true, _) => "*".to_owned(),
        (false, true) => format!("{} + {} more...", hosts.join(","), rules.len() - 3),
        (false, false) => hosts.join(","),
    };
    vec![
        json!(spec.at("ingressClassName").as_str().unwrap_or("<none>")),
        json!(hosts),
        json!(narrow(addresses(ingress.at("status.loadBalancer")))),
        json!(if spec.items("tls").is_empty() { "80" } else { "80, 443" }),
        json!(age),
    ]
}

fn binding(binding: &Value, age: &str) -> Vec<Value> {
    let role = binding.at("roleRef");
    let of = |kind: &str| {
        let names = binding.items("subjects").iter().filter(|one| one.text("kind") == kind);
        let names = names.map(|one| match one.text("namespace") {
            namespace if kind == "ServiceAccount" => format!("{namespace}/{}", one.text("name")),
            _ => one.text("name").to_owned(),
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        json!(format!("{}/{}", role.text("kind"), role.text("name"))),
        json!(age),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

/// The value at the path of a printer column.
pub(super) fn printed(column: &Value, object: &Value, now: Timestamp) -> Value {
    let values = at_path(object, column.text("jsonPath"));
    let Some(first) = values.first() else { return Value::Null };
    match (column.text("type"), first) {
        ("date", time @ Value::String(_)) => json!(since(Some(time), now)),
        ("integer", Value::Number(number)) => json!(number.as_i64()),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
        ("string", _) => {
            let texts = values.iter().map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            json!(texts.collect::<Vec<_>>().join(","))
        }
        _ => Value::Null,
    }
}

/// The part of `JSONPath` that definitions use: names, quoted names, indexes, `*`, and `[?(@.name=="value")]`.
fn at_path<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut values = vec![object];
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((step, after)) = inner.split_once(']') else { return Vec::new() };
            rest = after;
            values = values.into_iter().flat_map(|value| bracket(value, step)).collect();
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        // A dot in a name is written `\.`.
        let mut name = String::new();
        let mut end = rest.len();
        let mut characters = rest.char_indices();
        while let Some((index, c)) = characters.next() {
            match c {
                '\\' => name.extend(characters.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = index;
                    break;
                }
                _ => name.push(c),
            }
        }
        rest = &rest[end..];
        if !name.is_empty() {
            values = values.into_iter().filter_map(|value| value.get(&name)).collect();
        }
    }
    values
}

fn bracket<'a>(value: &'a Value, step: &str) -> Vec<&'a Value> {
    if step == "*" {
        return value.as_array().map(|list| list.iter().collect()).unwrap_or_default();
    }
    if let Some(filter) = step.strip_prefix("?(").and_then(|step| step.strip_suffix(')')) {
        let Some((path, wanted)) = filter.split_once("==") else { return Vec::new() };
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        let path = path.trim().trim_start_matches("@.");
        let matches = |item: &&Value| item.at(path).as_str() == Some(wanted) || *item.at(path) == wanted;
        return value.as_array().map(|list| list.iter().filter(matches).collect()).unwrap_or_default();
    }
    if let Ok(index) = step.parse::<usize>() {
        return value.get(index).into_iter().collect();
    }
    value.get(step.trim_matches(['"', '\''])).into_iter().collect()
}
