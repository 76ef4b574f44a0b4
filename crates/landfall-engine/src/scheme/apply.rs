//! Server-side apply: who owns which field, and what an applied configuration changes.
//!
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/>

pub(crate) mod fields;
#[cfg(test)]
mod laws;
mod typed;

use serde_json::{Map, Value, json};

use self::fields::{Nature, Set, Step};
pub(crate) use self::typed::untyped;
use super::Resource;
use super::types::{Field, Shape, Types};

/// Fields that somebody else owns and that the applied configuration would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflicts {
    pub(crate) conflicts: Vec<Conflict>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// `"helm" using apps/v1`, as messages name it.
    pub(crate) manager: String,
    /// `.spec.replicas`
    pub(crate) field: String,
}

impl Conflicts {
    /// The message of the status.
    pub(crate) fn message(&self) -> String {
        if let [one] = &self.conflicts[..] {
            return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.field);
        }
        let mut managers: Vec<_> = self.conflicts.iter().map(|one| &one.manager).collect();
        managers.sort();
        managers.dedup();
        let mut lines = Vec::new();
        for manager in managers {
            lines.push(format!("conflicts with {manager}:"));
            let own = self.conflicts.iter().filter(|one| one.manager == *manager);
            lines.extend(own.map(|one| format!("- {}", one.field)));
        }
        format!("Apply failed with {} conflicts: {}", self.conflicts.len(), lines.join("\n"))
    }
}

/// One entry of `metadata.managedFields`.
#[derive(Debug, Clone)]
struct Entry {
    manager: String,
    operation: String,
    version: String,
    subresource: String,
    time: String,
    set: Set,
}

impl Entry {
    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = text("operation");
        matches!(operation.as_str(), "Apply" | "Update").then(|| Self {
            manager: text("manager"),
            operation,
            version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            set: Set::parse(value.get("fieldsV1").unwrap_or(&Value::Null)),
        })
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.set.encode(),
        });
        if !self.time.is_empty() {
            entry["time"] = json!(self.time);
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }

    fn is(&self, manager: &str, operation: &str, version: &str, subresource: &str) -> bool {
        self.manager == manager
            && self.operation == operation
            && self.subresource == subresource
            // One applier has one entry, whatever version it writes.
            && (operation == "Apply" || self.version == version)
    }

    fn name(&self) -> String {
        let mut name = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            name = format!("{name} with subresource {:?}", self.subresource);
        }
        if self.operation == "Update" { format!("{name} using {}", self.version) } else { name }
    }
}

/// Whether a list that a request brings says who owns fields, as the API server understands it.
pub(crate) fn are_owners(list: &[Value]) -> bool {
    let is_one = |entry: &Value| {
        matches!(entry["operation"].as_str(), Some("Apply" | "Update"))
            && entry["fieldsType"] == "FieldsV1"
            && are_paths(&entry["fieldsV1"])
    };
    !list.is_empty() && list.iter().all(is_one)
}

fn are_paths(fields: &Value) -> bool {
    let is_path = |step: &str| step == "." || ["f:", "k:", "v:", "i:"].iter().any(|kind| step.starts_with(kind));
    fields.as_object().is_some_and(|fields| fields.iter().all(|(step, below)| is_path(step) && are_paths(below)))
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Entry::read).collect()
}

fn store(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.set.is_empty());
    entries.sort_by(|a, b| {
        (&a.operation, &a.time, &a.manager, &a.version, &a.subresource).cmp(&(
            &b.operation,
            &b.time,
            &b.manager,
            &b.version,
            &b.subresource,
        ))
    });
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        if entries.is_empty() {
            metadata.shift_remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries.iter().map(Entry::write).collect()));
        }
    }
}

/// Metadata that nobody owns.
const NOT_OWNED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Takes away what cannot be owned: identity, and the part that a request cannot change.
fn strip(resource: &Resource, set: &mut Set, subresource: &str) {
    let field = |name: &str| Step::Field(name.to_owned());
    for name in ["apiVersion", "kind"] {
        set.children.remove(&field(name));
    }
    if let Some(metadata) = set.children.get_mut(&field("metadata")) {
        metadata.member = false;
        for name in NOT_OWNED {
            metadata.children.remove(&field(name));
        }
        if metadata.children.is_empty() {
            set.children.remove(&field("metadata"));
        }
    }
    match subresource {
        "status" => {
            set.children.remove(&field("spec"));
        }
        "" if resource.has_status() => {
            set.children.remove(&field("status"));
        }
        _ => {}
    }
}

fn fields_of(resource: &Resource, object: &Value, subresource: &str) -> Set {
    let mut set = fields::collect(&resource.types, Some(&Shape::Struct(resource.root)), None, object);
    strip(resource, &mut set, subresource);
    set
}

/// Applies a configuration. The answer is neither defaulted nor validated; its `managedFields` are right.
///
/// `now` is RFC 3339 in whole seconds.
pub(crate) fn apply(
    resource: &Resource,
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    subresource: &str,
    force: bool,
    now: &str,
) -> Result<Value, Conflicts> {
    let types = &resource.types;
    let root = Shape::Struct(resource.root);
    let version = resource.api_version();
    let mut applied = applied.clone();
    if let Some(metadata) = applied.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    let set = fields_of(resource, &applied, subresource);
    let Some(live) = live else {
        let mut object = applied;
        let entry = Entry {
            manager: manager.to_owned(),
            operation: "Apply".to_owned(),
            version,
            subresource: subresource.to_owned(),
            time: now.to_owned(),
            set,
        };
        store(&mut object, vec![entry]);
        return Ok(object);
    };
    let mut owners = entries(live);
    if owners.is_empty() {
        // What was there before anybody was asked belongs to nobody in particular.
        let mut set = fields::collect(types, Some(&root), None, live);
        set.member_throughout();
        set.member = false;
        strip(resource, &mut set, "");
        owners.push(Entry {
            manager: "before-first-apply".to_owned(),
            operation: "Update".to_owned(),
            version: version.clone(),
            subresource: String::new(),
            time: now.to_owned(),
            set,
        });
    }
    let mut merged = merge(types, Some(&root), None, live, &applied);
    let changed = fields::compare(types, Some(&root), None, live, &merged).changed;
    let taken_over = client_side(resource, live, manager);
    let mut conflicts = Vec::new();
    for owner in owners.iter_mut().filter(|owner| !owner.is(manager, "Apply", &version, subresource)) {
        let taken = owner.set.intersect(&changed).intersect(&set);
        let mut refused = taken.clone();
        refused.subtract(&taken_over);
        if force || refused.is_empty() {
            owner.set.subtract(&taken);
        } else {
            let name = owner.name();
            conflicts.extend(taken.paths().into_iter().map(|field| Conflict { manager: name.clone(), field }));
        }
    }
    if !conflicts.is_empty() {
        return Err(Conflicts { conflicts });
    }
    let own = owners.iter().position(|owner| owner.is(manager, "Apply", &version, subresource));
    let mut kept = set.clone();
    for (index, owner) in owners.iter().enumerate() {
        if Some(index) != own {
            kept.add(&owner.set);
        }
    }
    if let Some(own) = own {
        remove(types, Some(&root), None, &mut merged, &owners[own].set, &kept);
    }
    // What is gone belongs to nobody.
    let present = fields::collect(types, Some(&root), None, &merged);
    let gone = fields::compare(types, Some(&root), None, live, &merged).removed;
    for (index, owner) in owners.iter_mut().enumerate() {
        if Some(index) != own {
            owner.set.subtract_below(&gone_members(&gone, &present));
        }
    }
    let same_object = without_owners(&merged) == without_owners(live);
    match own {
        Some(index) => {
            let entry = &mut owners[index];
            if !same_object {
                now.clone_into(&mut entry.time);
            }
            entry.set = set;
            entry.version = version;
        }
        None => owners.push(Entry {
            manager: manager.to_owned(),
            operation: "Apply".to_owned(),
            version,
            subresource: subresource.to_owned(),
            // Kubernetes gives no time to an entry that comes with no change.
            time: if same_object { String::new() } else { now.to_owned() },
            set,
        }),
    }
    if manager == KUBECTL
        && let Some(last) = merged.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED))
    {
        // An older kubectl that applies on its side again must find what was applied last.
        *last = Value::String(format!("{}\n", fields::canonical(&applied)));
    }
    store(&mut merged, owners);
    Ok(merged)
}

/// The manager that goes over from applying on the client's side.
const KUBECTL: &str = "kubectl";

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What kubectl has applied on its side before: its own fields, whoever the owner is called.
fn client_side(resource: &Resource, live: &Value, manager: &str) -> Set {
    let annotation = live.pointer("/metadata/annotations").and_then(|all| all.get(LAST_APPLIED));
    let last = annotation.filter(|_| manager == KUBECTL).and_then(Value::as_str);
    match last.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        Some(last) => fields_of(resource, &last, ""),
        None => Set::default(),
    }
}

/// The removed fields that are really absent: an item may have been removed and another put in its place.
fn gone_members(gone: &Set, present: &Set) -> Set {
    let mut set = gone.clone();
    set.subtract(present);
    set
}

fn without_owners(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    object
}

/// Notes who changed what in a create, an update or a patch that is no apply. Call it when `new` is what will be stored.
pub(crate) fn track_update(
    resource: &Resource,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    now: &str,
) {
    let types = &resource.types;
    let root = Shape::Struct(resource.root);
    let version = resource.api_version();
    let given = new.pointer("/metadata/managedFields").and_then(Value::as_array);
    // An empty list or an empty entry resets the owners; without a list the old ones stay.
    let reset = given.is_some_and(|list| list.iter().all(|entry| entry.as_object().is_some_and(Map::is_empty)));
    let mut owners = match (given, old) {
        _ if reset => Vec::new(),
        (Some(_), _) => entries(new),
        (None, Some(old)) => entries(old),
        (None, None) => Vec::new(),
    };
    if reset && old.is_some() {
        store(new, Vec::new());
        return;
    }
    // A new object is compared with one of its kind that says nothing.
    let mut empty = json!({});
    if !resource.custom {
        super::decode::normalize(resource, &mut empty);
    }
    // Who owned what before may differ as well, and is not owned itself.
    let difference = fields::compare(types, Some(&root), None, old.unwrap_or(&empty), new);
    let mut changed = difference.changed;
    let mut removed = difference.removed;
    strip(resource, &mut changed, subresource);
    strip(resource, &mut removed, subresource);
    for owner in owners.iter_mut().filter(|owner| !owner.is(manager, "Update", &version, subresource)) {
        owner.set.subtract(&changed);
        owner.set.subtract_below(&removed);
    }
    // Kubernetes looks for the time of who scales among those of the object, where a new one has none.
    let is_scale = subresource == "scale";
    match owners.iter_mut().find(|owner| owner.is(manager, "Update", &version, subresource)) {
        Some(own) => {
            let before = own.set.clone();
            own.set.subtract_below(&removed);
            own.set.add(&changed);
            if (own.set != before || !changed.is_empty()) && !is_scale {
                now.clone_into(&mut own.time);
            }
        }
        None if !changed.is_empty() => owners.push(Entry {
            manager: manager.to_owned(),
            operation: "Update".to_owned(),
            version,
            subresource: subresource.to_owned(),
            time: if is_scale { String::new() } else { now.to_owned() },
            set: changed,
        }),
        None => {}
    }
    store(new, owners);
}

/// Puts `applied` over `live`.
fn merge(types: &Types, shape: Option<&Shape>, field: Option<&Field>, live: &Value, applied: &Value) -> Value {
    match (fields::nature(types, shape, field, applied), live, applied) {
        (Nature::Fields, Value::Object(live), Value::Object(applied)) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let (shape, field) = fields::inner(types, shape, name);
                let value = match live.get(name) {
                    Some(live) => merge(types, shape, field, live, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Nature::Keyed(field, item), Value::Array(live), Value::Array(applied)) => {
            let key = |value: &Value| fields::key_of(types, field, item, value);
            merge_list(live, applied, key, |live, applied| merge(types, Some(item), None, live, applied))
        }
        (Nature::Items, Value::Array(live), Value::Array(applied)) => {
            merge_list(live, applied, fields::item_of, |_, applied| applied.clone())
        }
        _ => applied.clone(),
    }
}

/// The applied order, with the items that only `live` has where they stood.
fn merge_list(
    live: &[Value],
    applied: &[Value],
    key: impl Fn(&Value) -> Step,
    merge: impl Fn(&Value, &Value) -> Value,
) -> Value {
    let live: Vec<_> = live.iter().map(|item| (key(item), item)).collect();
    let applied: Vec<_> = applied.iter().map(|item| (key(item), item)).collect();
    let shared = |step: &Step| applied.iter().any(|(other, _)| other == step);
    let mut merged = Vec::new();
    let (mut next_live, mut next_applied) = (0, 0);
    while next_live < live.len() || next_applied < applied.len() {
        if let Some((step, value)) = live.get(next_live) {
            if !shared(step) {
                merged.push((*value).clone());
                next_live += 1;
                continue;
            }
            if applied[..next_applied].iter().any(|(other, _)| other == step) {
                next_live += 1;
                continue;
            }
        }
        let Some((step, value)) = applied.get(next_applied) else { break };
        let existing = live.iter().find(|(other, _)| other == step);
        merged.push(existing.map_or_else(|| (*value).clone(), |(_, live)| merge(live, value)));
        next_applied += 1;
    }
    Value::Array(merged)
}

/// Removes from `value` what `owned` names and nobody keeps.
fn remove(types: &Types, shape: Option<&Shape>, field: Option<&Field>, value: &mut Value, owned: &Set, kept: &Set) {
    let nothing = Set::default();
    match (fields::nature(types, shape, field, value), value) {
        (Nature::Fields, Value::Object(object)) => {
            for (step, owned) in &owned.children {
                let Step::Field(name) = step else { continue };
                match kept.children.get(step) {
                    None => {
                        object.shift_remove(name);
                    }
                    Some(kept) => {
                        let (shape, field) = fields::inner(types, shape, name);
                        if let Some(value) = object.get_mut(name) {
                            remove(types, shape, field, value, owned, kept);
                        }
                    }
                }
            }
        }
        (Nature::Keyed(field, item), Value::Array(list)) => {
            // Who owns fields of an item only does not keep it.
            let is_gone = |value: &Value| {
                let step = fields::key_of(types, field, item, value);
                let has = |set: &Set| set.children.get(&step).is_some_and(|item| item.member);
                has(owned) && !has(kept)
            };
            list.retain(|value| !is_gone(value));
            for value in list {
                let step = fields::key_of(types, field, item, value);
                if let Some(owned) = owned.children.get(&step) {
                    remove(types, Some(item), None, value, owned, kept.children.get(&step).unwrap_or(&nothing));
                }
            }
        }
        (Nature::Items, Value::Array(list)) => list.retain(|value| {
            let step = fields::item_of(value);
            !owned.children.contains_key(&step) || kept.children.contains_key(&step)
        }),
        _ => {}
    }
}
