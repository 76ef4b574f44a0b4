//! What every object says about itself: its name, namespace and labels, and where it comes from.

use crate::json::json;
use landfall_model::{Architecture, Element, Name, Service, ServiceKind, Span, Spanned, Store};
use serde_json::Value;

use crate::object::{Object, compact};

/// The part of the architecture that an object belongs to.
#[derive(Debug, Clone)]
pub(super) struct Subject<'a> {
    /// The name of the service or store; of the platform for what belongs to a whole namespace or cluster.
    pub(super) name: &'a str,
    /// The namespace; empty for objects of the whole cluster.
    pub(super) namespace: &'a str,
    platform: &'a str,
    component: &'a str,
    segment: Option<&'a str>,
    origin: String,
    span: Span,
    folder: &'a str,
}

impl<'a> Subject<'a> {
    /// A service.
    pub(super) fn service(architecture: &'a Architecture, name: &'a Spanned<Name>, service: &'a Service) -> Self {
        Self {
            name: name.as_str(),
            namespace: service.namespace.as_ref().map_or_else(|| architecture.namespace(), |own| &own.value).as_str(),
            platform: architecture.document.name.as_str(),
            component: kind(service.kind.value),
            segment: service.segment.as_ref().map(|segment| segment.as_str()),
            origin: format!("services.{name}"),
            span: name.span,
            folder: name.as_str(),
        }
    }

    /// A store.
    pub(super) fn store(architecture: &'a Architecture, name: &'a Spanned<Name>, store: &'a Store) -> Self {
        Self {
            name: name.as_str(),
            namespace: store.namespace.as_ref().map_or_else(|| architecture.namespace(), |own| &own.value).as_str(),
            platform: architecture.document.name.as_str(),
            component: "store",
            segment: store.segment.as_ref().map(|segment| segment.as_str()),
            origin: format!("stores.{name}"),
            span: name.span,
            folder: name.as_str(),
        }
    }

    /// A whole namespace, or the whole cluster when `namespace` is empty. `component` says what it is about, and `origin`
    /// and `span` which part of the file asks for it.
    pub(super) fn platform(
        architecture: &'a Architecture,
        namespace: &'a str,
        component: &'a str,
        origin: impl Into<String>,
        span: Span,
    ) -> Self {
        let name = architecture.document.name.as_str();
        Self { name, namespace, platform: name, component, segment: None, origin: origin.into(), span, folder: "" }
    }

    /// The same subject, its objects in a folder of their own.
    #[must_use]
    pub(super) fn in_folder(self, folder: &'a str) -> Self {
        Self { folder, ..self }
    }

    /// The labels of its objects and pods.
    pub(super) fn labels(&self) -> Value {
        compact(json!({
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/part-of": self.platform,
            "app.kubernetes.io/component": self.component,
            "app.kubernetes.io/managed-by": "landfall",
            "landfall.dev/segment": self.segment,
        }))
    }

    /// The labels by which its pods are found. They never change, as selectors of workloads cannot.
    pub(super) fn selector(&self) -> Value {
        json!({
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/part-of": self.platform,
        })
    }

    /// `metadata` of an object with that name.
    pub(super) fn metadata(&self, name: &str) -> Value {
        self.metadata_with(name, Value::Null)
    }

    /// `metadata` with annotations; none when they are null or empty.
    pub(super) fn metadata_with(&self, name: &str, annotations: Value) -> Value {
        let annotations =
            if annotations.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { annotations };
        json!({
            "name": name,
            "namespace": (!self.namespace.is_empty()).then_some(self.namespace),
            "labels": self.labels(),
            "annotations": annotations,
        })
    }

    /// The object of this subject in the file of that name; fields that are null are left out of it.
    pub(super) fn object(&self, file: &str, value: Value) -> Object {
        Object {
            value: compact(value),
            origin: self.origin.clone(),
            span: self.span,
            folder: self.folder.to_owned(),
            file: file.to_owned(),
        }
    }
}

/// The labels by which the pods of a service or store are found; see [`Subject::selector`].
pub(super) fn selector(architecture: &Architecture, element: &Element) -> Value {
    json!({
        "app.kubernetes.io/name": element.name(),
        "app.kubernetes.io/part-of": architecture.document.name.as_str(),
    })
}

/// The kind as the label says it.
fn kind(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Web => "web",
        ServiceKind::Worker => "worker",
        ServiceKind::ScheduledJob => "scheduled-job",
        ServiceKind::Frontend => "frontend",
        ServiceKind::Webhook => "webhook",
        ServiceKind::Mock => "mock",
    }
}
