//! The environment variables of a service.
//!
//! A store's address is known when the objects are rendered; its user and password are only in a Secret. A URL has all
//! of them, so it is put together by the kubelet: `$(LEDGER_PASSWORD)` stands for a variable before it.

use std::collections::BTreeMap;

use crate::json::json;
use landfall_model::{Architecture, Element, Finding, Name, Reference, Service, Spanned, TraceSoftware};
use serde_json::Value;

use super::edges::Edges;
use super::stores::{Credentials, StoreAccess, Username};

/// The variables of a service, in the order in which Kubernetes must see them: `$(NAME)` only expands what stands
/// before it. So first come values from elsewhere, then URLs, then what the file says.
pub(super) fn variables(
    architecture: &Architecture,
    edges: &Edges<'_>,
    name: &Spanned<Name>,
    service: &Service,
    findings: &mut Vec<Finding>,
) -> Vec<Value> {
    let mut sources: BTreeMap<String, Value> = BTreeMap::new();
    let (mut composed, mut values) = (Vec::new(), Vec::new());
    for (variable, declared) in &service.env {
        let variable = &variable.value;
        if let Some(secret) = &declared.secret {
            sources.insert(variable.clone(), from_secret(secret.name.as_str(), &secret.key));
        } else if let Some(field) = &declared.field {
            sources.insert(variable.clone(), json!({ "valueFrom": { "fieldRef": { "fieldPath": &field.value } } }));
        } else if let Some(value) = &declared.value {
            values.push((variable.clone(), json!({ "value": &value.value })));
        } else if let Some(reference) = &declared.store {
            let Some(access) = edges.store(reference.name.as_str()) else { continue };
            let credentials = access.credentials(name.as_str());
            let made_there = credentials.as_ref().filter(|credentials| !edges.is_provided(&credentials.secret));
            secret_is_near(architecture, name, reference, made_there, findings);
            match of_store(access, credentials.as_ref(), reference) {
                Some(Answer::Source(value)) => drop(sources.insert(variable.clone(), value)),
                Some(Answer::Url { url, needs }) => {
                    for (variable, value) in needs {
                        sources.entry(variable).or_insert(value);
                    }
                    composed.push((variable.clone(), json!({ "value": url })));
                }
                None => findings.push(
                    Finding::error(
                        "environment-variable",
                        reference.span,
                        format!("`{}` asks for no `{}`", reference.name, reference.key),
                    )
                    .on(format!("service.{name}"))
                    .because("this store has no users")
                    .help(format!("leave `{variable}` out, or use `{}/address`", reference.name)),
                ),
            }
        }
    }
    for (variable, value) in of_traces(architecture, name) {
        if !service.env.keys().any(|own| own.value == variable) {
            values.push((variable.to_owned(), json!({ "value": value })));
        }
    }
    // A variable stands once: what the file says replaces what a URL asked for.
    values.retain(|(variable, value)| match sources.get_mut(variable) {
        Some(asked) => {
            *asked = value.clone();
            false
        }
        None => true,
    });
    let named = |(variable, value): (String, Value)| {
        let mut entry = serde_json::Map::from_iter([("name".to_owned(), Value::String(variable))]);
        entry.extend(value.as_object().cloned().unwrap_or_default());
        Value::Object(entry)
    };
    sources.into_iter().chain(composed).chain(values).map(named).collect()
}

/// Where a service sends its spans, in the variables that the SDKs of OpenTelemetry read. Zipkin's own protocol has none.
fn of_traces(architecture: &Architecture, name: &Spanned<Name>) -> Vec<(&'static str, String)> {
    let observability = &architecture.document.observability;
    match observability.traces.as_ref().map(|traces| traces.stack.value) {
        Some(TraceSoftware::Jaeger | TraceSoftware::Tempo) => vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{COLLECTOR}.{}.svc:4318", observability.namespace)),
            ("OTEL_SERVICE_NAME", name.to_string()),
        ],
        Some(TraceSoftware::Zipkin) | None => Vec::new(),
    }
}

/// The Service of the collector, as its chart names it.
const COLLECTOR: &str = "opentelemetry-collector";

/// What a reference to a store comes to.
enum Answer {
    /// A value, or a key of a Secret.
    Source(Value),
    /// A URL and the variables that it refers to.
    Url { url: String, needs: Vec<(String, Value)> },
}

fn of_store(access: &StoreAccess, credentials: Option<&Credentials>, reference: &Reference) -> Option<Answer> {
    let plain = |text: String| Answer::Source(json!({ "value": text }));
    Some(match reference.key.as_str() {
        "host" => plain(access.host.clone()),
        "port" => plain(access.port.to_string()),
        "username" => Answer::Source(username(credentials?)),
        "password" => Answer::Source(from_secret(&credentials?.secret, &credentials?.password_key)),
        "url" => url(access, credentials, reference.name.as_str()),
        _ => plain(access.address()),
    })
}

fn username(credentials: &Credentials) -> Value {
    match &credentials.username {
        Username::Key(key) => from_secret(&credentials.secret, key),
        Username::Known(name) => json!({ "value": name }),
    }
}

/// The URL with references to the variables that it needs and no others.
fn url(access: &StoreAccess, credentials: Option<&Credentials>, store: &str) -> Answer {
    let Some(credentials) = credentials else { return Answer::Url { url: access.url("", ""), needs: Vec::new() } };
    let prefix = store.to_uppercase().replace('-', "_");
    let (user, password) = (format!("{prefix}_USERNAME"), format!("{prefix}_PASSWORD"));
    let url = access.url(&format!("$({user})"), &format!("$({password})"));
    let variables =
        [(user, username(credentials)), (password, from_secret(&credentials.secret, &credentials.password_key))];
    let needs = variables.into_iter().filter(|(variable, _)| url.contains(&format!("$({variable})"))).collect();
    Answer::Url { url, needs }
}

fn from_secret(secret: &str, key: &str) -> Value {
    json!({ "valueFrom": { "secretKeyRef": { "name": secret, "key": key } } })
}

/// A pod reads Secrets of its own namespace only, and the credentials that an operator makes are in the store's.
fn secret_is_near(
    architecture: &Architecture,
    name: &Spanned<Name>,
    reference: &Spanned<Reference>,
    credentials: Option<&Credentials>,
    findings: &mut Vec<Finding>,
) {
    let here = architecture.namespace_of(&Element::Service(name.value.clone()));
    let there = architecture.namespace_of(&Element::Store(reference.name.clone()));
    let wanted = matches!(reference.key.as_str(), "url" | "username" | "password");
    if let Some(credentials) = credentials.filter(|_| wanted && here != there) {
        findings.push(
            Finding::warning(
                "not-rendered",
                reference.span,
                format!("`{name}` cannot read the credentials of `{}`", reference.name),
            )
            .on(format!("service.{name}"))
            .because(format!(
                "the Secret `{}` is in the namespace `{there}`, and the pods are in `{here}`",
                credentials.secret
            ))
            .help(format!("copy the Secret into `{here}`, or put both into one namespace")),
        );
    }
}
