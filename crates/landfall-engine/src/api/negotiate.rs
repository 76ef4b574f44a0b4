//! Media types: which form an answer has, and how a body is read.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object as it is.
    Whole,
    /// Rows and columns, as `kubectl get` prints them.
    Table,
    /// Metadata only.
    Metadata,
}

/// What the client accepts, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) form: Form,
    pub(crate) yaml: bool,
}

/// The parts of one media type in an `Accept` header.
pub(crate) struct MediaType<'a> {
    pub(crate) essence: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let parameters =
            parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key.trim(), value.trim())).collect();
        Self { essence, parameters }
    }

    pub(crate) fn parameter(&self, key: &str) -> &'a str {
        self.parameters.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value)
    }
}

/// The media types of the `Accept` headers, in the order in which the client wrote them.
pub(crate) fn accepted_types(headers: &HeaderMap) -> impl Iterator<Item = MediaType<'_>> {
    headers
        .get_all(header::ACCEPT)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(MediaType::parse)
}

/// The first form that the server can give.
pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Accepted, Failure> {
    let (mut any, mut known) = (false, false);
    for media in accepted_types(headers) {
        any = true;
        let yaml = match media.essence {
            "application/json" | "*/*" | "application/*" | "" => false,
            "application/yaml" => true,
            _ => continue,
        };
        known = true;
        let form = match media.parameter("as") {
            "" => Form::Whole,
            "Table" if media.parameter("g") == "meta.k8s.io" && media.parameter("v") == "v1" => Form::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" if media.parameter("v") == "v1" => Form::Metadata,
            _ => continue,
        };
        return Ok(Accepted { form, yaml });
    }
    if known {
        return Err(Failure::unknown_representation());
    }
    if any { Err(Failure::not_acceptable()) } else { Ok(Accepted { form: Form::Whole, yaml: false }) }
}

/// How the body of a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyType {
    Json,
    Yaml,
    Protobuf,
    JsonPatch,
    MergePatch,
    StrategicMergePatch,
    ApplyPatch,
    Unknown,
}

pub(crate) fn body_type(headers: &HeaderMap) -> BodyType {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return BodyType::Json;
    };
    match MediaType::parse(text).essence {
        "application/json" | "" => BodyType::Json,
        "application/yaml" => BodyType::Yaml,
        "application/vnd.kubernetes.protobuf" => BodyType::Protobuf,
        "application/json-patch+json" => BodyType::JsonPatch,
        "application/merge-patch+json" => BodyType::MergePatch,
        "application/strategic-merge-patch+json" => BodyType::StrategicMergePatch,
        "application/apply-patch+yaml" => BodyType::ApplyPatch,
        _ => BodyType::Unknown,
    }
}

/// An answer with a JSON body.
pub(crate) fn json(code: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("what the server answers has string keys only");
    json_bytes(code, bytes.into())
}

/// An answer whose JSON is written already.
pub(crate) fn json_bytes(code: StatusCode, body: Bytes) -> Response {
    with_type(code, "application/json", body)
}

pub(crate) fn with_type(code: StatusCode, media_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// An answer as JSON or YAML, as the client wants it.
pub(crate) fn object(code: StatusCode, accepted: Accepted, body: Bytes) -> Result<Response, Failure> {
    if !accepted.yaml {
        return Ok(json_bytes(code, body));
    }
    let value: Value = serde_json::from_slice(&body).map_err(Failure::internal)?;
    let text = serde_saphyr::to_string(&value).map_err(Failure::internal)?;
    Ok(with_type(code, "application/yaml", text.into()))
}
