//! Logs, commands and ports of running pods: what the node agent has, in the protocols of Kubernetes' clients.

mod exec;
mod forward;
mod spdy;
mod upgrade;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::failure::Failure;
use super::node_agent::{AgentError, ContainerRef, LogOptions, LogSource, NodeAgent, PodRef};
use super::{Call, cause, read};

/// Whether the request is for one of the subresources of this module.
pub(crate) fn is_stream(call: &Call<'_>) -> bool {
    call.resource.group.is_empty()
        && call.resource.plural == "pods"
        && matches!(call.target.subresource.as_str(), "log" | "exec" | "attach" | "portforward")
}

pub(crate) async fn serve(call: &Call<'_>, parts: &Parts) -> Result<Response, Failure> {
    let pod = read::existing(call)?.value();
    let agent = call.state.agent.get().ok_or_else(|| Failure::unavailable("no node agent serves this cluster"))?;
    let reference = pod_reference(call, &pod)?;
    match call.target.subresource.as_str() {
        "log" => log(call, &pod, reference, agent.as_ref()).await,
        "portforward" => forward::serve(call, parts, reference, Arc::clone(agent)).await,
        _ => exec::serve(call, parts, container(call, &pod, reference)?, agent.as_ref()).await,
    }
}

fn pod_reference(call: &Call<'_>, pod: &Value) -> Result<PodRef, Failure> {
    let name = &call.target.name;
    let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| Failure::bad_request(format!("pod {name} does not have a host assigned")))?;
    Ok(PodRef {
        namespace: call.target.namespace.as_str().into(),
        name: name.as_str().into(),
        uid: pod["metadata"]["uid"].as_str().unwrap_or_default().into(),
        node: node.into(),
    })
}

fn refusal(error: AgentError) -> Failure {
    match error {
        AgentError::BadRequest(message) => Failure::bad_request(message),
        AgentError::NotFound(message) => {
            Failure { code: StatusCode::NOT_FOUND, reason: "NotFound", ..Failure::bad_request(message) }
        }
        AgentError::Internal(message) => Failure::internal(message),
        AgentError::Unreachable(message) => Failure::plain_internal(message),
    }
}

/// The container that is asked for; a pod with one container need not name it.
fn container(call: &Call<'_>, pod: &Value, reference: PodRef) -> Result<ContainerRef, Failure> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect()
    };
    let (ordinary, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let wanted = call.query.text("container");
    let name = &call.target.name;
    let found = if wanted.is_empty() {
        if ordinary.len() != 1 {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", ordinary.join(" "));
            if !init.is_empty() {
                message += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            return Err(Failure::bad_request(message));
        }
        ordinary[0].clone()
    } else {
        wanted.to_owned()
    };
    if ![ordinary, init, ephemeral].concat().contains(&found) {
        return Err(Failure::bad_request(format!("container {found} is not valid for pod {name}")));
    }
    Ok(ContainerRef { pod: reference, container: found.into() })
}

async fn log(call: &Call<'_>, pod: &Value, reference: PodRef, agent: &dyn NodeAgent) -> Result<Response, Failure> {
    let options = log_options(call)?;
    let container = container(call, pod, reference)?;
    let stream = agent.log(container, options).await.map_err(refusal)?;
    let stop = call.state.stop.clone();
    let stream = futures::StreamExt::take_until(stream, stop.cancelled_owned());
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn log_options(call: &Call<'_>) -> Result<LogOptions, Failure> {
    let query = call.query;
    let invalid = |field: &str, value: Value, why: &str| {
        Failure::invalid("", "PodLogOptions", &call.target.name, &[cause::invalid(field, &value, why)])
    };
    let positive = |field: &str, least: i64, why: &str| match query.number(field)? {
        Some(number) if number < least => Err(invalid(field, number.into(), why)),
        number => Ok(number.and_then(|number| u64::try_from(number).ok())),
    };
    let tail = positive("tailLines", 0, "must be greater than or equal to 0")?;
    let limit = positive("limitBytes", 1, "must be greater than 0")?;
    let seconds = positive("sinceSeconds", 1, "must be greater than 0")?;
    let time = query.get("sinceTime").map(str::parse::<Timestamp>).transpose();
    let time = time.map_err(|error| Failure::bad_request(format!("sinceTime: {error}")))?;
    let since = match (seconds, time) {
        (Some(_), Some(_)) => {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            let cause = cause::forbidden("", why);
            return Err(Failure::invalid("", "PodLogOptions", &call.target.name, &[cause]));
        }
        (Some(seconds), None) => {
            let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(Timestamp::now().saturating_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH))
        }
        (None, time) => time,
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since,
        tail,
        limit,
        stream: match query.text("stream") {
            "Stdout" => Some(LogSource::Stdout),
            "Stderr" => Some(LogSource::Stderr),
            _ => None,
        },
    })
}
