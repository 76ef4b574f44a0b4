//! What the messages of a flow carry: its schema is a file beside that of the architecture.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use landfall_model::Flow;
use landfall_standin::{Payload, PayloadShape};

use super::FlowPlan;

/// The payload of a flow that declares one.
#[derive(Debug)]
pub(in crate::commands::up) struct PayloadPlan {
    /// The file with the schema, as the flow names it.
    pub(in crate::commands::up) schema: Option<String>,
    /// The declared size.
    pub(in crate::commands::up) bytes: Option<u64>,
    pub(in crate::commands::up) payload: Payload,
    /// As stand-ins are told it.
    pub(super) shape: PayloadShape,
}

/// Reads what a flow declares. An error says why its messages cannot be made.
pub(super) fn payload(flow: &Flow, folder: &Path) -> Result<Option<Arc<PayloadPlan>>, String> {
    let (file, bytes) = (&flow.payload.schema, flow.payload.size.as_ref().map(|size| size.value.get()));
    let schema = match file {
        None if bytes.is_none() => return Ok(None),
        None => None,
        Some(file) => {
            let file = file.value.as_str();
            let text = fs::read(folder.join(file));
            let text = text.map_err(|error| format!("failed to read the schema `{file}` of its payload: {error}"))?;
            let schema = serde_json::from_slice(&text);
            Some(schema.map_err(|error| format!("the schema `{file}` of its payload is no JSON: {error}"))?)
        }
    };
    let shape = PayloadShape { schema, bytes };
    let schema = file.as_ref().map(|file| file.value.clone());
    let payload = Payload::new(&shape)
        .map_err(|error| format!("the schema `{}` of its payload: {error}", schema.as_deref().unwrap_or_default()))?;
    Ok(Some(Arc::new(PayloadPlan { schema, bytes, payload, shape })))
}

impl FlowPlan {
    /// That its requests are smaller than declared, if they are.
    pub(in crate::commands::up) fn too_small(&self) -> Option<String> {
        let plan = self.payload.as_ref()?;
        let (schema, declared, bytes) = (plan.schema.as_ref()?, plan.bytes?, plan.payload.bytes()?);
        let is_smaller = u64::try_from(bytes).is_ok_and(|bytes| bytes < declared);
        is_smaller.then(|| {
            let name = &self.name;
            format!(
                "requests of flow `{name}` have {bytes} bytes and not the declared {declared}: `{schema}` leaves no room for more"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::up::architecture_of;

    /// What becomes of a declared payload, where the folder has one schema.
    fn told(declared: &str) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let schema = r#"{ "type": "object", "required": ["on"], "properties": { "on": { "type": "boolean" } }, "additionalProperties": false }"#;
        fs::write(folder.path().join("switch.json"), schema).expect("a file can be written");
        fs::write(folder.path().join("broken.json"), "{").expect("a file can be written");
        let text = format!(
            "landfall: v1\nname: shop\nservices:\n  web: {{ port: 8080, expose: shop.example }}\nflows:\n  order: {{ steps: [client -> web]{declared} }}\n"
        );
        let architecture = architecture_of(&text);
        let flow = architecture.document.flows.values().next().expect("there is one");
        match payload(flow, folder.path()) {
            Ok(plan) => format!("{:?}", plan.map(|plan| (plan.schema.clone(), plan.payload.bytes()))),
            Err(problem) => problem,
        }
    }

    #[test]
    fn a_payload_is_made_by_its_schema_and_its_size_or_told_why_not() {
        assert_eq!(told(""), "None");
        assert_eq!(told(", payload: { size: 5kB }"), "Some((None, Some(5000)))");
        assert_eq!(told(", payload: { schema: switch.json }"), r#"Some((Some("switch.json"), None))"#);
        assert_eq!(
            told(", payload: { schema: switch.json, size: 5kB }"),
            r#"Some((Some("switch.json"), Some(11)))"#,
            "there is no room for more"
        );
        assert!(
            told(", payload: { schema: none.json }")
                .starts_with("failed to read the schema `none.json` of its payload: ")
        );
        assert!(
            told(", payload: { schema: broken.json }")
                .starts_with("the schema `broken.json` of its payload is no JSON: ")
        );
    }
}
