//! The OpenAPI documents that clients read: `kubectl apply` and Helm look here for server-side field validation,
//! `kubectl explain` for fields.
//!
//! Made from the table when they are asked for, and not kept. What kinds and fields mean is added from `descriptions`.

mod descriptions;
mod v2;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha512};

use self::descriptions::Descriptions;
use super::types::{Field, ListKind, Shape, Types};
use super::{Resource, Scheme, Subresource};

/// The index: for each group and version, where its document is. The hash changes when the document does.
///
/// `kubectl apply` asks for it each time. So the descriptions of built-in kinds, most of the text, are not made for it:
/// they change with the program alone, and its version stands for them.
pub(crate) fn v3_index(scheme: &Scheme) -> Value {
    let mut paths = Map::new();
    for group in scheme.groups() {
        for version in &group.versions {
            let path = document_path(&group.name, version);
            let document = v3_document(&resources_at(scheme, &path), Descriptions::none());
            let hash = Sha512::new().chain_update(env!("CARGO_PKG_VERSION")).chain_update(document).finalize();
            let hash: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of `api/v1` or `apis/apps/v1`. None: no such group and version is served.
pub(crate) fn v3(scheme: &Scheme, path: &str) -> Option<Bytes> {
    let resources = resources_at(scheme, path);
    (!resources.is_empty()).then(|| v3_document(&resources, Descriptions::of(&resources)).into())
}

fn resources_at<'a>(scheme: &'a Scheme, path: &str) -> Vec<&'a Resource> {
    scheme.resources().filter(|one| document_path(&one.group, &one.version) == path).map(AsRef::as_ref).collect()
}

fn v3_document(resources: &[&Resource], descriptions: Descriptions) -> String {
    let (paths, schemas) = paths_and_schemas(resources, descriptions);
    let mut document = json!({ "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "v1.36.0" } });
    // Moved in, where the macro would copy.
    document["paths"] = paths.into();
    document["components"]["schemas"] = schemas.into();
    document.to_string()
}

/// Everything in one document of OpenAPI 2, as JSON.
pub(crate) fn v2_json(scheme: &Scheme) -> Value {
    let (paths, schemas) = everything(scheme);
    v2::document(&paths, schemas)
}

/// The definitions of that as an `openapi.v2.Document` message.
pub(crate) fn v2_protobuf(scheme: &Scheme) -> Bytes {
    v2::protobuf(everything(scheme).1)
}

fn everything(scheme: &Scheme) -> (Map<String, Value>, Map<String, Value>) {
    let resources: Vec<&Resource> = scheme.resources().map(AsRef::as_ref).collect();
    paths_and_schemas(&resources, Descriptions::of(&resources))
}

fn paths_and_schemas(
    resources: &[&Resource],
    mut descriptions: Descriptions,
) -> (Map<String, Value>, Map<String, Value>) {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in resources {
        add_paths(resource, &mut paths);
        add_schemas(resource, &mut descriptions, &mut schemas);
    }
    (paths, schemas)
}

const JSON: &str = "application/json";

fn add_paths(resource: &Resource, paths: &mut Map<String, Value>) {
    let base = format!("/{}", document_path(&resource.group, &resource.version));
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{base}/{}", resource.plural)
    };
    let own = Subresource {
        name: String::new(),
        verbs: resource.verbs.clone(),
        group: resource.group.clone(),
        version: resource.version.clone(),
        kind: resource.kind.clone(),
        scale: None,
    };
    let schema = reference(resource, &resource.types.get(resource.root).name);
    let list = reference(resource, &format!("{}List", resource.types.get(resource.root).name));
    let mut of_collection = Map::new();
    if can(&own, "list") {
        of_collection.insert("get".to_owned(), operation(&own, "list", &list, &[]));
    }
    if can(&own, "create") {
        of_collection.insert("post".to_owned(), operation(&own, "post", &schema, &WRITE));
    }
    if can(&own, "deletecollection") {
        of_collection.insert("delete".to_owned(), operation(&own, "deletecollection", &schema, &[]));
    }
    if !of_collection.is_empty() {
        if resource.namespaced && can(&own, "list") {
            paths.insert(
                format!("{base}/{}", resource.plural),
                json!({ "get": operation(&own, "list", &list, &[]), "parameters": [] }),
            );
        }
        let parameters = if resource.namespaced { json!([path_parameter("namespace")]) } else { json!([]) };
        of_collection.insert("parameters".to_owned(), parameters);
        paths.insert(collection.clone(), Value::Object(of_collection));
    }
    for sub in std::iter::once(&own).chain(&resource.subresources) {
        let mut item = Map::new();
        for (verb, method, query) in [
            ("get", "get", &[][..]),
            ("update", "put", &WRITE[..]),
            ("patch", "patch", &PATCH[..]),
            ("delete", "delete", &[][..]),
            ("create", "post", &WRITE[..]),
        ] {
            if can(sub, verb) && (verb != "create" || !sub.name.is_empty()) {
                item.insert(method.to_owned(), operation(sub, method, &schema, query));
            }
        }
        if item.is_empty() {
            continue;
        }
        let mut parameters = vec![path_parameter("name")];
        if resource.namespaced {
            parameters.push(path_parameter("namespace"));
        }
        item.insert("parameters".to_owned(), json!(parameters));
        let suffix = if sub.name.is_empty() { String::new() } else { format!("/{}", sub.name) };
        paths.insert(format!("{collection}/{{name}}{suffix}"), Value::Object(item));
    }
}

fn can(sub: &Subresource, verb: &str) -> bool {
    sub.verbs.iter().any(|one| one == verb)
}

/// Query parameters of requests that write: `fieldValidation` tells clients that the server checks fields.
const WRITE: [(&str, &str); 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: [(&str, &str); 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } })
}

fn operation(sub: &Subresource, action: &str, schema: &Value, query: &[(&str, &str)]) -> Value {
    let parameters: Vec<_> = query
        .iter()
        .map(|(name, kind)| json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } }))
        .collect();
    let content = json!({ JSON: { "schema": schema } });
    let mut operation = json!({
        "parameters": parameters,
        "responses": { "200": { "description": "OK", "content": content } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": { "group": sub.group, "version": sub.version, "kind": sub.kind },
    });
    match action {
        "post" | "put" => operation["requestBody"] = json!({ "content": content, "required": true }),
        "patch" => {
            let any = json!({ "schema": { "type": "object" } });
            operation["requestBody"] = json!({
                "required": true,
                "content": {
                    "application/apply-patch+yaml": any,
                    "application/json-patch+json": any,
                    "application/merge-patch+json": any,
                    "application/strategic-merge-patch+json": any,
                },
            });
        }
        _ => {}
    }
    operation
}

fn reference(_resource: &Resource, name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn add_schemas(resource: &Resource, descriptions: &mut Descriptions, schemas: &mut Map<String, Value>) {
    let kinds = |suffix: &str| {
        json!([{
            "group": resource.group,
            "version": resource.version,
            "kind": format!("{}{suffix}", resource.kind),
        }])
    };
    let root = &resource.types.get(resource.root).name;
    let mut pending = vec![resource.root];
    while let Some(index) = pending.pop() {
        let name = &resource.types.get(index).name;
        // It may be there already, as a part of another kind.
        if !schemas.contains_key(name) {
            let mut schema = type_schema(&resource.types, index, &mut pending);
            descriptions.describe(name, &mut schema);
            schemas.insert(name.clone(), schema);
        }
    }
    let text = |field: &str| descriptions.of_every_object(field, json!({ "type": "string" }));
    if resource.custom
        && let Some(Value::Object(schema)) = &resource.schema
    {
        // Definitions bring their own schema, which says more, and their own descriptions in it.
        let mut schema = schema.clone();
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            let metadata = reference(resource, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
            let metadata = descriptions.of_every_object("metadata", json!({ "allOf": [metadata] }));
            properties.insert("apiVersion".to_owned(), text("apiVersion"));
            properties.insert("kind".to_owned(), text("kind"));
            properties.insert("metadata".to_owned(), metadata);
        }
        schemas.insert(root.clone(), Value::Object(schema));
    }
    schemas[root.as_str()]["x-kubernetes-group-version-kind"] = kinds("");
    schemas.insert(
        format!("{root}List"),
        json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text("apiVersion"),
                "kind": text("kind"),
                "metadata": { "type": "object" },
                "items": { "type": "array", "items": { "allOf": [reference(resource, root)] } },
            },
            "x-kubernetes-group-version-kind": kinds("List"),
        }),
    );
}

fn type_schema(types: &Types, index: usize, pending: &mut Vec<usize>) -> Value {
    let of = types.get(index);
    let properties: Map<_, _> =
        of.fields.iter().map(|field| (field.name.clone(), field_schema(types, field, pending))).collect();
    let required: Vec<_> = of.fields.iter().filter(|field| field.required).map(|field| &field.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if of.atomic {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    if of.preserve {
        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    schema
}

fn field_schema(types: &Types, field: &Field, pending: &mut Vec<usize>) -> Value {
    let mut schema = shape_schema(types, &field.shape, pending);
    if let Some(default) = &field.default {
        schema["default"] = default.clone();
    }
    if !field.choices.is_empty() {
        let target = if schema.get("items").is_some() { &mut schema["items"] } else { &mut schema };
        target["enum"] = json!(field.choices);
    }
    if matches!(field.shape, Shape::List(_)) {
        let kind = match field.list {
            ListKind::Atomic => "atomic",
            ListKind::Set => "set",
            ListKind::Map => "map",
        };
        schema["x-kubernetes-list-type"] = json!(kind);
        if !field.keys.is_empty() {
            schema["x-kubernetes-list-map-keys"] = json!(field.keys);
        }
    }
    if let Some(key) = &field.merge_key {
        schema["x-kubernetes-patch-merge-key"] = json!(key);
    }
    let strategies: Vec<_> = [(field.merge, "merge"), (field.retain_keys, "retainKeys")]
        .iter()
        .filter(|one| one.0)
        .map(|one| one.1)
        .collect();
    if !strategies.is_empty() {
        schema["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
    }
    if field.atomic {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    schema
}

fn shape_schema(types: &Types, shape: &Shape, pending: &mut Vec<usize>) -> Value {
    match shape {
        Shape::String | Shape::Duration => json!({ "type": "string" }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Int32 => json!({ "type": "integer", "format": "int32" }),
        Shape::Int64 => json!({ "type": "integer", "format": "int64" }),
        Shape::Number => json!({ "type": "number", "format": "double" }),
        Shape::Bytes => json!({ "type": "string", "format": "byte" }),
        Shape::Quantity => json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
        Shape::IntOrString => {
            json!({ "oneOf": [{ "type": "integer" }, { "type": "string" }], "format": "int-or-string" })
        }
        Shape::Time | Shape::MicroTime => json!({ "type": "string", "format": "date-time" }),
        Shape::Raw | Shape::FieldSet => json!({ "type": "object" }),
        Shape::Json => json!({}),
        Shape::Struct(index) => {
            pending.push(*index);
            json!({ "allOf": [{ "$ref": format!("#/components/schemas/{}", types.get(*index).name) }] })
        }
        Shape::List(item) => json!({ "type": "array", "items": shape_schema(types, item, pending) }),
        Shape::Map(item) => json!({ "type": "object", "additionalProperties": shape_schema(types, item, pending) }),
    }
}

#[cfg(test)]
mod tests;
