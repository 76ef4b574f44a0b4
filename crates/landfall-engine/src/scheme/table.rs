//! Tables: what `kubectl get` prints, row by row.
//!
//! `kubectl` asks the server for the columns and cells of a kind and prints them; `-o wide` shows those of priority 1.

mod cells;
mod pod;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Resource;

/// A column: name, type, format, priority.
type Column = (&'static str, &'static str, u8);

/// Columns of the kinds that have more than a name and an age; `Name` comes first unless the kind is an event.
fn builtin(resource: &Resource) -> Option<&'static [Column]> {
    const S: &str = "string";
    const I: &str = "integer";
    const AGE: Column = ("Age", S, 0);
    Some(match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => &[
            ("Ready", S, 0),
            ("Status", S, 0),
            ("Restarts", S, 0),
            AGE,
            ("IP", S, 1),
            ("Node", S, 1),
            ("Nominated Node", S, 1),
            ("Readiness Gates", S, 1),
        ],
        ("", "Node") => &[
            ("Status", S, 0),
            ("Roles", S, 0),
            AGE,
            ("Version", S, 0),
            ("Internal-IP", S, 1),
            ("External-IP", S, 1),
            ("OS-Image", S, 1),
            ("Kernel-Version", S, 1),
            ("Container-Runtime", S, 1),
        ],
        ("", "Service") => {
            &[("Type", S, 0), ("Cluster-IP", S, 0), ("External-IP", S, 0), ("Port(s)", S, 0), AGE, ("Selector", S, 1)]
        }
        ("" | "events.k8s.io", "Event") => &[
            ("Last Seen", S, 0),
            ("Type", S, 0),
            ("Reason", S, 0),
            ("Object", S, 0),
            ("Subobject", S, 1),
            ("Source", S, 1),
            ("Message", S, 0),
            ("First Seen", S, 1),
            ("Count", S, 1),
            ("Name", S, 1),
        ],
        ("", "Endpoints") => &[("Endpoints", S, 0), AGE],
        ("", "Namespace") => &[("Status", S, 0), AGE],
        ("", "Secret") => &[("Type", S, 0), ("Data", S, 0), AGE],
        ("", "ConfigMap") => &[("Data", S, 0), AGE],
        ("", "ResourceQuota") => &[("Request", S, 0), ("Limit", S, 0), AGE],
        ("", "PersistentVolume") => &[
            ("Capacity", S, 0),
            ("Access Modes", S, 0),
            ("Reclaim Policy", S, 0),
            ("Status", S, 0),
            ("Claim", S, 0),
            ("StorageClass", S, 0),
            ("VolumeAttributesClass", S, 0),
            ("Reason", S, 0),
            AGE,
            ("VolumeMode", S, 1),
        ],
        ("", "PersistentVolumeClaim") => &[
            ("Status", S, 0),
            ("Volume", S, 0),
            ("Capacity", S, 0),
            ("Access Modes", S, 0),
            ("StorageClass", S, 0),
            ("VolumeAttributesClass", S, 0),
            AGE,
            ("VolumeMode", S, 1),
        ],
        ("apps", "Deployment") => &[
            ("Ready", S, 0),
            ("Up-to-date", S, 0),
            ("Available", S, 0),
            AGE,
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        ("apps", "ReplicaSet") => &[
            ("Desired", I, 0),
            ("Current", I, 0),
            ("Ready", I, 0),
            AGE,
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        ("apps", "StatefulSet") => &[("Ready", S, 0), AGE, ("Containers", S, 1), ("Images", S, 1)],
        ("apps", "DaemonSet") => &[
            ("Desired", I, 0),
            ("Current", I, 0),
            ("Ready", I, 0),
            ("Up-to-date", I, 0),
            ("Available", I, 0),
            ("Node Selector", S, 0),
            AGE,
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        ("apps", "ControllerRevision") => &[("Controller", S, 0), ("Revision", S, 0), AGE],
        ("batch", "Job") => &[
            ("Status", S, 0),
            ("Completions", S, 0),
            ("Duration", S, 0),
            AGE,
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        ("batch", "CronJob") => &[
            ("Schedule", S, 0),
            ("Timezone", S, 0),
            ("Suspend", "boolean", 0),
            ("Active", I, 0),
            ("Last Schedule", S, 0),
            AGE,
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        ("autoscaling", "HorizontalPodAutoscaler") => {
            &[("Reference", S, 0), ("Targets", S, 0), ("MinPods", S, 0), ("MaxPods", S, 0), ("Replicas", S, 0), AGE]
        }
        ("policy", "PodDisruptionBudget") => {
            &[("Min Available", S, 0), ("Max Unavailable", S, 0), ("Allowed Disruptions", I, 0), AGE]
        }
        ("networking.k8s.io", "Ingress") => {
            &[("Class", S, 0), ("Hosts", S, 0), ("Address", S, 0), ("Ports", S, 0), AGE]
        }
        ("networking.k8s.io", "IngressClass") => &[("Controller", S, 0), ("Parameters", S, 0), AGE],
        ("networking.k8s.io", "NetworkPolicy") => &[("Pod-Selector", S, 0), AGE],
        ("discovery.k8s.io", "EndpointSlice") => &[("AddressType", S, 0), ("Ports", S, 0), ("Endpoints", S, 0), AGE],
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => &[("Created At", "date", 0)],
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &[("Created At", "date", 0)],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            &[("Role", S, 0), AGE, ("Users", S, 1), ("Groups", S, 1), ("ServiceAccounts", S, 1)]
        }
        ("storage.k8s.io", "StorageClass") => &[
            ("Provisioner", S, 0),
            ("ReclaimPolicy", S, 0),
            ("VolumeBindingMode", S, 0),
            ("AllowVolumeExpansion", S, 0),
            AGE,
        ],
        ("scheduling.k8s.io", "PriorityClass") => {
            &[("Value", I, 0), ("Global-Default", "boolean", 0), AGE, ("PreemptionPolicy", S, 0)]
        }
        ("coordination.k8s.io", "Lease") => &[("Holder", S, 0), AGE],
        ("node.k8s.io", "RuntimeClass") => &[("Handler", S, 0), AGE],
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            &[("Validations", I, 0), ("ParamKind", S, 0), AGE]
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            &[("PolicyName", S, 0), ("ParamRef", S, 0), AGE]
        }
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            &[("Webhooks", I, 0), AGE]
        }
        ("", "ServiceAccount") => &[AGE],
        _ => return None,
    })
}

/// The `columnDefinitions` of a table.
pub(crate) fn columns(resource: &Resource) -> Value {
    let column = |name: &str, kind: &str, format: &str, priority: i64, description: &str| json!({ "name": name, "type": kind, "format": format, "description": description, "priority": priority });
    let mut columns = vec![];
    let is_event = resource.kind == "Event" && !resource.custom;
    if !is_event {
        columns.push(column("Name", "string", "name", 0, "Name of the object."));
    }
    if resource.custom {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if resource.printer_columns.is_empty() {
            columns.push(column("Age", "date", "", 0, "Time since the object was created."));
        }
        for one in &resource.printer_columns {
            columns.push(column(
                &text(one, "name"),
                &text(one, "type"),
                &text(one, "format"),
                one.get("priority").and_then(Value::as_i64).unwrap_or_default(),
                &text(one, "description"),
            ));
        }
        return Value::Array(columns);
    }
    for (name, kind, priority) in builtin(resource).unwrap_or(&[("Created At", "date", 0)]) {
        let format = if *name == "Name" { "name" } else { "" };
        columns.push(column(name, kind, format, i64::from(*priority), ""));
    }
    Value::Array(columns)
}

/// The cells of an object's row, one for each column.
pub(crate) fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = object.pointer("/metadata/name").cloned().unwrap_or(json!(""));
    let age = since(object.pointer("/metadata/creationTimestamp"), now);
    if resource.custom {
        let mut row = vec![name];
        if resource.printer_columns.is_empty() {
            row.push(object.pointer("/metadata/creationTimestamp").map_or(json!("<unknown>"), |_| json!(age)));
        }
        row.extend(resource.printer_columns.iter().map(|column| cells::printed(column, object, now)));
        return row;
    }
    cells::row(resource, object, name, &age, now)
}

/// How long ago a time was, for people: `5s`, `3m20s`, `2d4h`.
pub(super) fn since(time: Option<&Value>, now: Timestamp) -> String {
    let time = time.and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
    time.map_or_else(|| "<unknown>".to_owned(), |time| duration(now.as_second() - time.as_second()))
}

/// As `kubectl` shortens durations: the longer, the coarser.
pub(crate) fn duration(seconds: i64) -> String {
    let pair = |first: i64, a: &str, second: i64, b: &str| {
        if second == 0 { format!("{first}{a}") } else { format!("{first}{a}{second}{b}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 8 * 365 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_grow_coarser() {
        let check = |seconds, expected: &str| assert_eq!(duration(seconds), expected);
        check(-5, "<invalid>");
        check(0, "0s");
        check(119, "119s");
        check(120, "2m");
        check(200, "3m20s");
        check(3600, "60m");
        check(4 * 3600 + 60, "4h1m");
        check(9 * 3600, "9h");
        check(50 * 3600, "2d2h");
        check(30 * 86400, "30d");
        check(800 * 86400, "2y70d");
    }
}
