//! What differs between the cluster and a repository, without what somebody else decides. Pure.

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kube::core::GroupVersionKind;
use serde_json::{Map, Value, json};

/// One of `ignoreDifferences`.
#[derive(Debug, Clone)]
pub(super) struct Rule(pub(super) Value);

impl Rule {
    /// Whether it is about this object.
    pub(super) fn is_about(&self, kind: &GroupVersionKind, namespace: &str, name: &str) -> bool {
        let takes = |field: &str, own: &str| match self.0[field].as_str() {
            None => true,
            Some("*") => matches!(field, "group" | "kind"),
            Some(wanted) => wanted == own,
        };
        // The core group is the empty one, and has to be written down.
        let group = self.0["group"].as_str().unwrap_or_default();
        (group == "*" || group == kind.group)
            && takes("kind", &kind.kind)
            && takes("namespace", namespace)
            && takes("name", name)
    }

    fn texts(&self, field: &str) -> impl Iterator<Item = &str> {
        self.0[field].as_array().into_iter().flatten().filter_map(Value::as_str)
    }
}

/// The object without what the rules leave to somebody else: fields at a pointer are as in the cluster, and those of a manager
/// are left out.
pub(super) fn without_ignored(wanted: &Value, live: &DynamicObject, rules: &[Rule]) -> Value {
    let (mut wanted, now) = (wanted.clone(), serde_json::to_value(live).expect("an object is JSON"));
    for rule in rules {
        for pointer in rule.texts("jsonPointers") {
            let (parent, field) = pointer.rsplit_once('/').unwrap_or(("", pointer));
            let Some(Value::Object(fields)) = wanted.pointer_mut(parent) else { continue };
            match now.pointer(pointer) {
                Some(value) => drop(fields.insert(field.to_owned(), value.clone())),
                None => drop(fields.shift_remove(field)),
            }
        }
        for manager in rule.texts("managedFieldsManagers") {
            let own = live.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some(manager));
            for fields in own.filter_map(|entry| entry.fields_v1.as_ref()?.0.as_object()) {
                remove(&mut wanted, fields);
            }
        }
    }
    wanted
}

/// Removes the fields of a manager (`FieldsV1`: `f:name` for a field, `k:{…}` for an item by its keys).
fn remove(value: &mut Value, fields: &Map<String, Value>) {
    for (path, below) in fields {
        let Some(below) = below.as_object() else { continue };
        let is_leaf = below.keys().all(|path| path == ".");
        if let Some(name) = path.strip_prefix("f:") {
            let Value::Object(own) = value else { continue };
            if is_leaf {
                own.shift_remove(name);
            } else if let Some(field) = own.get_mut(name) {
                remove(field, below);
            }
        } else if let Some(keys) =
            path.strip_prefix("k:").and_then(|keys| serde_json::from_str::<Map<String, Value>>(keys).ok())
        {
            let Value::Array(items) = value else { continue };
            let is_it = |item: &&mut Value| keys.iter().all(|(key, value)| item.get(key) == Some(value));
            if let Some(item) = items.iter_mut().find(is_it) {
                // What makes it that item stays.
                let rest = below
                    .iter()
                    .filter(|(path, _)| path.strip_prefix("f:").is_none_or(|name| !keys.contains_key(name)));
                remove(item, &rest.map(|(path, below)| (path.clone(), below.clone())).collect());
            }
        }
    }
}

/// Whether an object is another one after it was applied.
pub(super) fn differs(live: &DynamicObject, predicted: &DynamicObject) -> bool {
    let content = |object: &DynamicObject| {
        let mut value = serde_json::to_value(object).expect("an object is JSON");
        for field in ["managedFields", "resourceVersion", "generation"] {
            if let Some(metadata) = value["metadata"].as_object_mut() {
                metadata.remove(field);
            }
        }
        value["status"] = json!(null);
        value
    };
    content(live) != content(predicted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(managers: Value) -> DynamicObject {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "namespace": "shop", "managedFields": managers },
            "spec": { "replicas": 5, "template": { "spec": { "containers": [{ "name": "web", "image": "web:2" }] } } },
        });
        serde_json::from_value(object).expect("an object")
    }

    fn wanted() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": {
                "replicas": 2, "strategy": { "type": "Recreate" }, "minReadySeconds": 3,
                "template": { "spec": { "containers": [{ "name": "web", "image": "web:1", "tty": true }] } },
            },
        })
    }

    #[test]
    fn a_pointer_leaves_a_field_as_it_is_in_the_cluster() {
        let rule = Rule(
            json!({ "group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/template", "/spec/strategy"] }),
        );
        let left = without_ignored(&wanted(), &live(json!([])), &[rule]);
        let spec = json!({
            "replicas": 2, "minReadySeconds": 3,
            "template": { "spec": { "containers": [{ "name": "web", "image": "web:2" }] } },
        });
        assert_eq!(left["spec"], spec);
    }

    #[test]
    fn the_fields_of_a_manager_are_not_the_repositorys() {
        let fields = json!({ "f:spec": {
            "f:replicas": {},
            "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"web\"}": { ".": {}, "f:name": {}, "f:image": {} } } } },
        } });
        let entry = |manager: &str| json!([{ "manager": manager, "operation": "Update", "fieldsV1": fields }]);
        let rule = || Rule(json!({ "group": "*", "kind": "*", "managedFieldsManagers": ["landfall-ship"] }));
        let left = without_ignored(&wanted(), &live(entry("landfall-ship")), &[rule()]);
        let spec = json!({
            "strategy": { "type": "Recreate" }, "minReadySeconds": 3,
            "template": { "spec": { "containers": [{ "name": "web", "tty": true }] } },
        });
        assert_eq!(left["spec"], spec);
        assert_eq!(without_ignored(&wanted(), &live(entry("kubectl-edit")), &[rule()]), wanted());
    }

    #[test]
    fn a_rule_is_about_the_objects_that_it_names() {
        let kind = |group: &str, kind: &str| GroupVersionKind::gvk(group, "v1", kind);
        let about = |rule: Value, group: &str, of: &str| Rule(rule).is_about(&kind(group, of), "shop", "web");
        assert!(about(json!({ "group": "*", "kind": "*" }), "apps", "Deployment"));
        assert!(about(json!({ "kind": "Service" }), "", "Service"));
        assert!(!about(json!({ "kind": "Deployment" }), "apps", "Deployment"), "that would be of the core group");
        assert!(about(json!({ "group": "apps", "kind": "Deployment", "name": "web" }), "apps", "Deployment"));
        assert!(!about(json!({ "group": "apps", "kind": "Deployment", "name": "*" }), "apps", "Deployment"));
        assert!(!about(json!({ "group": "apps", "kind": "Deployment", "namespace": "other" }), "apps", "Deployment"));
    }
}
