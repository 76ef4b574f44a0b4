//! What the API server answers when it refuses: a `Status` object with Kubernetes' code, reason, message and details.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::scheme::{Cause, Resource};

/// A refusal. `Display` is its message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: StatusCode,
    /// Empty when Kubernetes gives none.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
    /// Where an outdated list can go on.
    pub(crate) continue_token: Option<String>,
}

/// What a failure is about, as `details` names it: the plural of the resource, mostly.
pub(crate) struct Subject<'a> {
    pub(crate) group: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> Subject<'a> {
    pub(crate) fn resource(resource: &'a Resource, name: &'a str) -> Self {
        Self { group: &resource.group, kind: &resource.plural, name }
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        for (key, value) in [("name", self.name), ("group", self.group), ("kind", self.kind)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), value.into());
            }
        }
        details
    }

    /// `deployments.apps "web"`.
    fn text(&self) -> String {
        if self.group.is_empty() {
            format!("{} {:?}", self.kind, self.name)
        } else {
            format!("{}.{} {:?}", self.kind, self.group, self.name)
        }
    }
}

impl Failure {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: None }
    }

    fn with(mut self, details: Map<String, Value>) -> Self {
        self.details = Some(Value::Object(details));
        self
    }

    /// One more cause in the details.
    pub(crate) fn because(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let details = self.details.get_or_insert_with(|| json!({}));
        let mut cause = json!({"message": message.into()});
        if !reason.is_empty() {
            cause["reason"] = reason.into();
        }
        if !field.is_empty() {
            cause["field"] = field.into();
        }
        match details.get_mut("causes").and_then(Value::as_array_mut) {
            Some(causes) => causes.push(cause),
            None => details["causes"] = json!([cause]),
        }
        self
    }

    /// The client may try again after so many seconds.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_with(|| json!({}))["retryAfterSeconds"] = seconds.into();
        self
    }

    pub(crate) fn not_found(subject: &Subject<'_>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} not found", subject.text())).with(subject.details())
    }

    /// The path names no resource.
    pub(crate) fn no_such_resource() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
            .with(Map::new())
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).with(Map::new())
    }

    pub(crate) fn already_exists(subject: &Subject<'_>) -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{} already exists", subject.text()))
            .with(subject.details())
    }

    pub(crate) fn conflict(subject: &Subject<'_>, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {}: {why}", subject.text());
        Self::new(StatusCode::CONFLICT, "Conflict", message).with(subject.details())
    }

    /// The object has another version than the one that the client has read.
    pub(crate) fn modified(subject: &Subject<'_>) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(subject, why)
    }

    /// Others own fields that server-side apply would change: one text and field for each.
    pub(crate) fn apply_conflict(message: impl Into<String>) -> Self {
        let mut failure = Self::new(StatusCode::CONFLICT, "Conflict", message);
        failure.details = Some(json!({}));
        failure
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn forbidden(subject: &Subject<'_>, why: &str) -> Self {
        let text = if subject.kind.is_empty() {
            String::new()
        } else if subject.name.is_empty() {
            let dot = if subject.group.is_empty() { "" } else { "." };
            format!("{}{dot}{} is ", subject.kind, subject.group)
        } else {
            format!("{} is ", subject.text())
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", format!("{text}forbidden: {why}")).with(subject.details())
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn unsupported_media_type() -> Self {
        let message = "415: Unsupported Media Type";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message).with(Map::new())
    }

    /// A body of a type that the server does not read, with those that it does.
    pub(crate) fn unsupported_body(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf, application/json;stream=watch, \
                       application/vnd.kubernetes.protobuf;stream=watch";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message).with(Map::new())
    }

    /// A media type that is given, but not in the form asked for.
    pub(crate) fn unknown_representation() -> Self {
        let message = "only the following media types are accepted: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// A patch that is understood but does not fit the object.
    pub(crate) fn unfit_patch() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(Map::new())
    }

    /// The version that a watch or a list asks for is no longer known.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub(crate) fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        let failure = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        if retry_after == 0 { failure.with(Map::new()) } else { failure.retry_after(retry_after) }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// Nothing can be written until there is room. The reason is not one of Kubernetes', whose store says it in other words.
    pub(crate) fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "InsufficientStorage", message)
    }

    pub(crate) fn timeout(message: impl Into<String>, retry_after: u32) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).retry_after(retry_after)
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        let mut failure = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        failure.details = Some(json!({"causes": [{"message": message.to_string()}]}));
        failure
    }

    /// An answer that Kubernetes gives without a reason.
    pub(crate) fn plain_internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// The object is understood but not valid.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let text = crate::scheme::joined(causes);
        let kind_text = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let subject = Subject { group, kind, name };
        let mut details = subject.details();
        let causes = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason.name(), "message": cause.message, "field": cause.field}))
            .collect();
        details.insert("causes".to_owned(), Value::Array(causes));
        let message = format!("{kind_text} {name:?} is invalid: {text}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details)
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message});
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = token.as_str().into();
        }
        status["code"] = self.code.as_u16().into();
        status
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = super::negotiate::json(self.code, &self.status());
        let seconds =
            self.details.as_ref().and_then(|details| details.get("retryAfterSeconds")).and_then(Value::as_u64);
        if let Some(seconds) = seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
