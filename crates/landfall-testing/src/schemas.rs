//! The schemas of Kubernetes objects: what an API server would refuse, found without one.
//!
//! Built-in kinds come from the strict schemas that `tools/install-schemas` unpacks, custom resources from a folder laid
//! out as `group/kind_version.json`. Both are made stricter than an API server, which drops an unknown field with a
//! warning at most: here an unknown field is an error, because in rendered output it is a typing error.
//!
//! Not handled: the rules of a kind that are not in its schema, such as CEL validations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, fs, io};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Registry, ValidationError, Validator};
use serde_json::{Value, json};

use crate::tools::tools_folder;

/// The folder that `tools/install-schemas` makes.
const KUBERNETES_SCHEMAS: &str = "kubernetes-validate-1.37.0";

/// The document to which the built-in schemas refer, with the identifier that they use for it. It is loaded from the
/// folder, never from the network.
const DEFINITIONS: &str = "https://kubernetes.io/api/_definitions.json";

const OBJECT_META: &str =
    "https://kubernetes.io/api/_definitions.json#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The schemas of built-in kinds and custom resources, compiled once per kind.
pub struct Schemas {
    built_in: PathBuf,
    custom: PathBuf,
    definitions: Registry<'static>,
    /// `None` for a kind without a schema.
    compiled: Mutex<BTreeMap<Kind, Option<Arc<Validator>>>>,
}

/// Schemas that are not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("no schemas of {what} in `{}`; {remedy}", path.display())]
pub struct Missing {
    what: &'static str,
    path: PathBuf,
    remedy: &'static str,
}

impl Schemas {
    /// Finds the schemas.
    ///
    /// Built-in kinds: the folder `LANDFALL_K8S_SCHEMAS`, else the one that `tools/install-schemas` fills. Custom
    /// resources: the folder `LANDFALL_CRD_SCHEMAS`, else `shared/schemas` beside the checkout.
    ///
    /// # Panics
    ///
    /// If the definitions of the built-in kinds are there but cannot be read.
    pub fn locate() -> Result<Self, Missing> {
        let folder = |variable, default: fn() -> PathBuf| env::var_os(variable).map_or_else(default, PathBuf::from);
        Self::open(
            folder("LANDFALL_K8S_SCHEMAS", || tools_folder().join(KUBERNETES_SCHEMAS)),
            folder("LANDFALL_CRD_SCHEMAS", || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/schemas")),
        )
    }

    fn open(built_in: PathBuf, custom: PathBuf) -> Result<Self, Missing> {
        let Some(definitions) = load(&built_in.join("_definitions.json")) else {
            return Err(Missing {
                what: "built-in kinds",
                path: built_in,
                remedy: "run `make tools`, or set LANDFALL_K8S_SCHEMAS",
            });
        };
        if !custom.is_dir() {
            return Err(Missing { what: "custom resources", path: custom, remedy: "set LANDFALL_CRD_SCHEMAS" });
        }
        let definitions = Registry::new()
            .add(DEFINITIONS, definitions)
            .and_then(jsonschema::RegistryBuilder::prepare)
            .unwrap_or_else(|error| panic!("`{}` has broken definitions: {error}", built_in.display()));
        Ok(Self { built_in, custom, definitions, compiled: Mutex::default() })
    }

    /// Validates an object against the schema of its kind.
    ///
    /// Each error names the object and the JSON pointer of the value: `apps/v1 Deployment web: /spec/replica: unknown
    /// field`. An object without a kind or a name, and a kind without a schema, are errors.
    ///
    /// # Panics
    ///
    /// If the schema of the kind cannot be read or compiled.
    pub fn validate(&self, object: &Value) -> Result<(), Vec<String>> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (Some(api_version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
            return Err(vec![format!("an object needs `apiVersion` and `kind`: {}", summary(object))]);
        };
        let Some(name) = text("/metadata/name").or_else(|| text("/metadata/generateName")) else {
            return Err(vec![format!("{api_version} {kind}: /metadata/name: missing")]);
        };
        let subject = format!("{api_version} {kind} {name}");

        let Some(validator) = self.validator(&Kind::new(api_version, kind)) else {
            return Err(vec![format!(
                "{subject}: no schema of this kind; a custom resource needs one in the schema folder"
            )]);
        };
        let mut errors: Vec<_> = validator.iter_errors(object).flat_map(|error| explain(&error)).collect();
        // Sorted by pointer: the order in which a schema lists its keywords means nothing to a reader.
        errors.sort();
        if errors.is_empty() {
            return Ok(());
        }
        Err(errors.into_iter().map(|error| format!("{subject}: {error}")).collect())
    }

    /// The schema of a custom resource as its authors wrote it.
    #[cfg(feature = "control-plane")]
    pub(crate) fn custom(&self, api_version: &str, kind: &str) -> Option<Value> {
        let kind = Kind::new(api_version, kind);
        if kind.is_plain() { load(&self.custom.join(kind.custom_file())) } else { None }
    }

    fn validator(&self, kind: &Kind) -> Option<Arc<Validator>> {
        // A panic while a schema is compiled leaves the cache as it was.
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = compiled.get(kind) {
            return validator.clone();
        }
        let validator = self.schema(kind).map(|schema| {
            let compiled = jsonschema::options().with_registry(&self.definitions).build(&schema);
            Arc::new(compiled.unwrap_or_else(|error| panic!("the schema of {kind:?} does not compile: {error}")))
        });
        compiled.insert(kind.clone(), validator.clone());
        validator
    }

    fn schema(&self, kind: &Kind) -> Option<Value> {
        if !kind.is_plain() {
            return None;
        }
        // Custom resources first: the file names of built-in kinds hold only the first label of the group, and Istio's
        // `networking.istio.io` would read as `networking.k8s.io`.
        if let Some(schema) = load(&self.custom.join(kind.custom_file())) {
            return Some(custom_resource(kind, schema));
        }
        let schema = load(&self.built_in.join(kind.built_in_file()))?;
        // The folder has a file for each part of an object as well; only whole objects say which kind they are.
        let kinds = schema.get("x-kubernetes-group-version-kind")?.as_array()?;
        kinds.contains(&json!({ "group": kind.group, "kind": kind.name, "version": kind.version })).then_some(schema)
    }
}

/// What the type of an object is called, in parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    /// Empty for the core group.
    group: String,
    version: String,
    name: String,
}

impl Kind {
    fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self { group: group.to_owned(), version: version.to_owned(), name: kind.to_owned() }
    }

    /// Whether the parts can be parts of a file name. The schema of a custom resource does not hold the kind, and its
    /// file name has no capitals, so the one capital that every kind has is asked for here.
    fn is_plain(&self) -> bool {
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
        plain(&self.group) && plain(&self.version) && plain(&self.name) && self.name.starts_with(char::is_uppercase)
    }

    fn custom_file(&self) -> PathBuf {
        Path::new(&self.group).join(format!("{}_{}.json", self.name.to_lowercase(), self.version))
    }

    fn built_in_file(&self) -> String {
        let kind = self.name.to_lowercase();
        match self.group.split('.').next() {
            Some("") | None => format!("{kind}-{}.json", self.version),
            Some(group) => format!("{kind}-{group}-{}.json", self.version),
        }
    }
}

/// Reads a JSON file; `None` if there is none.
fn load(path: &Path) -> Option<Value> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => panic!("failed to read `{}`: {error}", path.display()),
    };
    Some(serde_json::from_slice(&text).unwrap_or_else(|error| panic!("failed to parse `{}`: {error}", path.display())))
}

/// Completes the schema of a custom resource, which leaves the type and the metadata open because the API server checks
/// those itself.
fn custom_resource(kind: &Kind, mut schema: Value) -> Value {
    refuse_unknown_fields(&mut schema);
    schema["properties"]["apiVersion"] = json!({ "const": format!("{}/{}", kind.group, kind.version) });
    schema["properties"]["kind"] = json!({ "const": kind.name });
    schema["properties"]["metadata"] = json!({ "$ref": OBJECT_META });
    schema
}

/// Closes each object of a structural schema that lists its properties, and opens each that says it keeps others.
///
/// It goes down through properties, items and maps only. A branch of `oneOf`, `anyOf`, `allOf` or `not` repeats some
/// properties of the object around it; closed, it would refuse the others.
fn refuse_unknown_fields(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
            schema.remove("additionalProperties");
        }
    } else if schema.contains_key("properties") {
        schema.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(refuse_unknown_fields);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword) {
            refuse_unknown_fields(inner);
        }
    }
}

/// One line per problem, the JSON pointer first; several if one error is about several fields.
fn explain(error: &ValidationError<'_>) -> Vec<String> {
    let pointer = error.instance_path().as_str();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let token = |field: &String| field.replace('~', "~0").replace('/', "~1");
            unexpected.iter().map(|field| format!("{pointer}/{}: unknown field", token(field))).collect()
        }
        ValidationErrorKind::Required { property } => {
            let field = property.as_str().unwrap_or_default();
            vec![format!("{pointer}/{field}: missing")]
        }
        _ => vec![format!("{pointer}: {}", error.masked_with(summary(error.instance())))],
    }
}

/// A value as JSON, short enough for one line of a report.
fn summary(value: &Value) -> String {
    const MAX_CHARS: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
