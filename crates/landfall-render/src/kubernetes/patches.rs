//! The escape hatches: objects that the file gives as they stand, and changes to objects that were rendered.

use landfall_model::{Architecture, Finding, Patch, PatchTarget, Spanned};
use serde_json::Value;

use crate::object::Object;

/// The objects that the file gives as they stand.
pub(super) fn raw(architecture: &Architecture) -> Vec<Object> {
    let object = |(index, raw): (usize, &Spanned<Value>)| {
        let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Object {
            file: format!("{}-{}", text("/kind").to_lowercase(), text("/metadata/name")),
            value: raw.value.clone(),
            origin: format!("objects[{index}]"),
            span: raw.span,
            folder: "objects".to_owned(),
        }
    };
    architecture.document.objects.iter().enumerate().map(object).collect()
}

/// Lays the patches of the file over the objects, in their order. One that fits no object, or fails on one, is a
/// finding, and that object stays as it was.
pub(super) fn apply(architecture: &Architecture, objects: &mut [Object], findings: &mut Vec<Finding>) {
    for patch in &architecture.document.patches {
        let mut matched = false;
        for object in objects.iter_mut().filter(|object| fits(&patch.target, object)) {
            matched = true;
            if let Some(merge) = &patch.merge {
                json_patch::merge(&mut object.value, merge);
            }
            if let Some(operations) = &patch.operations {
                run(patch, operations, object, findings);
            }
        }
        if !matched {
            findings.push(nothing_fits(&patch.target, objects));
        }
    }
}

fn fits(target: &PatchTarget, object: &Object) -> bool {
    let is = |wanted: Option<&str>, value: Option<&str>| wanted.is_none_or(|wanted| Some(wanted) == value);
    object.kind() == target.kind.value
        && is(target.name.as_ref().map(|name| name.as_str()), Some(object.name()))
        && is(target.namespace.as_ref().map(|namespace| namespace.as_str()), object.namespace())
}

fn run(patch: &Patch, operations: &Spanned<Value>, object: &mut Object, findings: &mut Vec<Finding>) {
    let failed = |message: String| {
        Finding::error("patch", operations.span, message).also(patch.target.kind.span, "the objects to change")
    };
    match serde_json::from_value::<json_patch::Patch>(operations.value.clone()) {
        Err(error) => {
            let finding = failed("these are not operations of a JSON Patch".to_owned()).because(error.to_string());
            findings.push(finding.help("write a list such as `- { op: replace, path: /spec/replicas, value: 3 }`"));
        }
        // Operations that fail leave the object as it was.
        Ok(operations) => {
            if let Err(error) = json_patch::patch(&mut object.value, &operations) {
                let at = format!("{} `{}`", object.kind(), object.name());
                let finding = failed(format!("the patch does not apply to {at}")).because(error.to_string());
                findings.push(finding.help(format!("`landfall render kubernetes` writes it to `{}`", object.path())));
            }
        }
    }
}

fn nothing_fits(target: &PatchTarget, objects: &[Object]) -> Finding {
    let span = target.name.as_ref().map_or(target.kind.span, |name| name.span);
    let name = target.name.as_ref().map_or_else(String::new, |name| format!(" `{name}`"));
    let finding = Finding::error("patch", span, format!("the patch fits no object: there is no {}{name}", target.kind));
    let names: Vec<&str> =
        objects.iter().filter(|object| object.kind() == target.kind.value).map(Object::name).collect();
    let wanted = target.name.as_ref().map_or("", |name| name.as_str());
    if names.is_empty() {
        let mut kinds: Vec<&str> = objects.iter().map(Object::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        match landfall_model::suggestion(&target.kind, kinds.iter().copied()) {
            Some(near) => finding.help(format!("did you mean `{near}`?")),
            None => finding.help(format!("kinds that are rendered: {}", kinds.join(", "))),
        }
    } else if let Some(near) = landfall_model::suggestion(wanted, names.iter().copied()) {
        finding.help(format!("did you mean `{near}`?"))
    } else {
        finding.help("`landfall render kubernetes` shows what there is")
    }
}
