//! OpenAPI 2, for clients that read no later one: what version 3 says, in older words.
//!
//! The form of protocol buffers has the definitions and no paths, and of a schema only what its readers look at: types,
//! references, descriptions, defaults and the extensions of Kubernetes. The numbers are those of
//! `openapiv2/OpenAPIv2.proto` of gnostic.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::JSON;

type Members = Map<String, Value>;

pub(super) fn document(paths: &Members, schemas: Members) -> Value {
    let paths: Members = paths.iter().map(|(path, item)| (path.clone(), older_path(item))).collect();
    let mut document = json!({ "swagger": "2.0", "info": { "title": "Kubernetes", "version": "v1.36.0" } });
    // Moved in, where the macro would copy.
    document["paths"] = paths.into();
    document["definitions"] = each_older(schemas).into();
    document
}

fn each_older(schemas: Members) -> Members {
    schemas.into_iter().map(|(name, schema)| (name, older(schema))).collect()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A schema without what came with version 3. Its texts are moved, as there are many.
fn older(schema: Value) -> Value {
    let schema = match schema {
        Value::Object(schema) => schema,
        other => return other,
    };
    let mut found = Map::new();
    for (name, mut value) in schema {
        match name.as_str() {
            "$ref" => {
                let target = value.as_str().unwrap_or_default();
                found.insert(name, target.replace("#/components/schemas/", "#/definitions/").into());
            }
            // One schema alone stands for itself.
            "allOf" if value.as_array().is_some_and(|all| all.len() == 1) => {
                if let Value::Object(one) = older(value[0].take()) {
                    found.extend(one);
                }
            }
            "allOf" | "anyOf" | "not" | "nullable" => {}
            "oneOf" => {
                found.entry("type").or_insert_with(|| "string".into());
            }
            "properties" => {
                if let Value::Object(properties) = value {
                    found.insert(name, each_older(properties).into());
                }
            }
            "items" | "additionalProperties" => {
                found.insert(name, older(value));
            }
            _ => {
                found.insert(name, value);
            }
        }
    }
    found.into()
}

/// What can be done at a path.
fn older_path(item: &Value) -> Value {
    let operations = members(item).map(|(method, of)| {
        let older = match method.as_str() {
            "parameters" => of.as_array().into_iter().flatten().map(older_parameter).collect(),
            _ => older_operation(of),
        };
        (method.clone(), older)
    });
    operations.collect::<Members>().into()
}

fn older_parameter(parameter: &Value) -> Value {
    let kept = members(parameter).filter(|(name, _)| *name != "schema");
    let of_schema = members(&parameter["schema"]);
    kept.chain(of_schema).map(|(name, value)| (name.clone(), value.clone())).collect::<Members>().into()
}

fn older_operation(operation: &Value) -> Value {
    let body = &operation["requestBody"];
    let mut parameters: Vec<_> =
        operation["parameters"].as_array().into_iter().flatten().map(older_parameter).collect();
    let mut found: Members = members(operation)
        .filter(|(name, _)| !matches!(name.as_str(), "parameters" | "requestBody" | "responses"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some((_, content)) = members(&body["content"]).next() {
        let schema = older(content["schema"].clone());
        parameters.push(json!({ "name": "body", "in": "body", "required": true, "schema": schema }));
        found.insert("consumes".to_owned(), members(&body["content"]).map(|(media, _)| media.as_str()).collect());
    }
    found.insert("produces".to_owned(), json!([JSON]));
    found.insert("parameters".to_owned(), parameters.into());
    let responses: Members = members(&operation["responses"])
        .map(|(code, response)| {
            let schema = older(response["content"][JSON]["schema"].clone());
            (code.clone(), json!({ "description": response["description"], "schema": schema }))
        })
        .collect();
    found.insert("responses".to_owned(), responses.into());
    found.into()
}

/// The definitions as a `openapi.v2.Document` message.
pub(super) fn protobuf(schemas: Members) -> Bytes {
    let info = [field(1, b"Kubernetes"), field(2, b"v1.36.0")].concat();
    let all = each_older(schemas);
    let all: Vec<_> = all.iter().flat_map(|(name, of)| field(1, &named(name, &schema(of)))).collect();
    [field(1, b"2.0"), field(2, &info), field(8, b""), field(9, &all)].concat().into()
}

/// A field with a length: a text or a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = varint(usize::from(number) << 3 | 2);
    field.extend(varint(content.len()));
    field.extend(content);
    field
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits are less than a byte");
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn named(name: &str, content: &[u8]) -> Vec<u8> {
    [field(1, name.as_bytes()), field(2, content)].concat()
}

/// Any value, as YAML, which JSON is.
fn any(value: &Value) -> Vec<u8> {
    field(2, value.to_string().as_bytes())
}

fn schema(of: &Value) -> Vec<u8> {
    let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let one = |(name, value): (&String, &Value)| match name.as_str() {
        "$ref" => field(1, &text(value)),
        "format" => field(2, &text(value)),
        "title" => field(3, &text(value)),
        "description" => field(4, &text(value)),
        "default" => field(5, &any(value)),
        "required" => each(value).iter().flat_map(|name| field(19, &text(name))).collect(),
        "enum" => each(value).iter().flat_map(|choice| field(20, &any(choice))).collect(),
        "additionalProperties" => match value {
            // The number of the field, its kind, and the truth.
            Value::Bool(yes) => field(21, &[2 << 3, u8::from(*yes)]),
            of => field(21, &field(1, &schema(of))),
        },
        "type" => field(22, &field(1, &text(value))),
        "items" => field(23, &field(1, &schema(value))),
        "properties" => {
            let properties: Vec<_> =
                members(value).flat_map(|(name, of)| field(1, &named(name, &schema(of)))).collect();
            field(25, &properties)
        }
        extension if extension.starts_with("x-") => field(31, &named(extension, &any(value))),
        _ => Vec::new(),
    };
    members(of).flat_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_later_is_said_in_older_words() {
        let schema = json!({
            "type": "object",
            "properties": {
                "allOf": { "type": "string", "nullable": true },
                "spec": {
                    "allOf": [{ "$ref": "#/components/schemas/a.Spec" }],
                    "description": "What is wanted.",
                    "x-kubernetes-patch-strategy": "merge",
                },
                "port": { "oneOf": [{ "type": "integer" }, { "type": "string" }], "format": "int-or-string" },
            },
        });
        let expected = json!({
            "type": "object",
            "properties": {
                "allOf": { "type": "string" },
                "spec": {
                    "$ref": "#/definitions/a.Spec",
                    "description": "What is wanted.",
                    "x-kubernetes-patch-strategy": "merge",
                },
                "port": { "type": "string", "format": "int-or-string" },
            },
        });
        assert_eq!(older(schema), expected);
    }

    #[test]
    fn a_schema_has_the_numbers_of_its_message() {
        let of = json!({ "type": "array", "items": { "$ref": "#/definitions/a" }, "x-k": [1] });
        let items = field(1, &field(1, b"#/definitions/a"));
        let extension = [field(1, b"x-k"), field(2, &field(2, b"[1]"))].concat();
        assert_eq!(schema(&of), [field(22, &field(1, b"array")), field(23, &items), field(31, &extension)].concat());
        assert_eq!(field(31, &[0; 300])[..4], [0xfa, 0x01, 0xac, 0x02]);
    }
}
