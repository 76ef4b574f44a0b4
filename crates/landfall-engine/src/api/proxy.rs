//! Requests that are led on to a pod: `services/NAME/proxy/PATH` and `pods/NAME/proxy/PATH`
//! (<https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/>).
//!
//! Not handled: pods that speak TLS (`https:NAME:PORT`), protocols that are switched to, and links in pages, which Kubernetes
//! rewrites.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::endpoint::{self, Nobody, ServicePort};
use super::failure::Failure;
use super::{Call, read};

/// What belongs to one connection (RFC 9110, section 7.6.1), and who has asked.
const NOT_LED_ON: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The subresource, before the path that is led on.
pub(super) const NAME: &str = "proxy";

/// Whether the request is to be led on.
pub(super) fn is_proxied(call: &Call<'_>) -> bool {
    call.resource.group.is_empty()
        && matches!(call.resource.plural.as_str(), "services" | "pods")
        && call.target.subresource.split('/').next() == Some(NAME)
}

/// Leads a request on, and its answer back, as it comes.
pub(super) async fn serve(call: &Call<'_>, parts: &Parts, body: Body) -> Result<Response, Failure> {
    if parts.headers.contains_key(header::UPGRADE) {
        return Err(Failure::bad_request("the proxy of this server does not switch protocols"));
    }
    let address = address(call)?;
    let Some(path) = path(parts.uri.path(), &call.target.plural) else { return Ok(with_slash(&parts.uri)) };
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::builder().method(&parts.method).uri(format!("{path}{query}"));
    for (name, value) in parts.headers.iter().filter(|(name, _)| !NOT_LED_ON.contains(name)) {
        request = request.header(name, value);
    }
    let request = request.header(header::HOST, address.to_string()).body(body);
    let request = request.map_err(|error| Failure::bad_request(error.to_string()))?;

    let unreachable = |error: String| Failure::unavailable(format!("error trying to reach service: {error}"));
    let stream = endpoint::dial(call.state, address).await.map_err(unreachable)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(error.to_string()))?;
    let stop = call.state.stop.clone();
    call.state.streams.spawn(async move {
        tokio::select! {
            // The request, and the body of its answer, tell of errors.
            _ = connection => {}
            () = stop.cancelled() => {}
        }
    });
    let answer = sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))?;
    let mut answer = answer.map(Body::new);
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        answer.headers_mut().remove(name);
    }
    Ok(answer)
}

/// What comes behind `…/proxy`, as it was written; nothing where not even a slash does.
fn path<'a>(path: &'a str, plural: &str) -> Option<&'a str> {
    let behind = path.split_once(&format!("/{plural}/"))?.1;
    let (_, behind) = behind.split_once(&format!("/{NAME}"))?;
    (!behind.is_empty()).then_some(behind)
}

/// Relative links of what is at the root of a server lead elsewhere without a slash.
fn with_slash(uri: &Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::try_from(format!("{}/{query}", uri.path())) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// Whom the name leads to.
fn address(call: &Call<'_>) -> Result<SocketAddr, Failure> {
    let (namespace, plural) = (&call.target.namespace, call.target.plural.as_str());
    let kind = plural.trim_end_matches('s');
    let asked = &call.target.name;
    let (scheme, name, port) =
        split(asked).ok_or_else(|| Failure::bad_request(format!("invalid {kind} request {asked:?}")))?;
    if scheme == "https" {
        return Err(Failure::bad_request("the proxy of this server speaks no TLS to pods"));
    }
    let key = call.key_of(namespace, name);
    let found = call.state.store.get(&key).ok_or_else(|| read::missing(call, name))?.value();
    if plural == "services" {
        let wanted = port.parse().map_or(ServicePort::Name(port), ServicePort::Number);
        return endpoint::of(call.state, namespace, name, wanted).map_err(|nobody| match nobody {
            Nobody::NoService(_) | Nobody::NoEndpoints(_) => read::missing(call, name),
            nobody => Failure::unavailable(nobody.to_string()),
        });
    }
    let first = || found.pointer("/spec/containers/0/ports/0/containerPort").and_then(Value::as_u64);
    let number = if port.is_empty() { first().and_then(|port| u16::try_from(port).ok()) } else { port.parse().ok() };
    let ip = found["status"]["podIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
    let ip = ip.ok_or_else(|| Failure::bad_request("address not allowed"))?;
    Ok(SocketAddr::new(ip, number.unwrap_or(80)))
}

/// `[SCHEME:]NAME[:PORT]`.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme @ ("http" | "https" | ""), name, port] => (scheme, name, port),
        _ => return None,
    };
    (!name.is_empty()).then_some((scheme, name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_scheme_and_a_port() {
        assert_eq!(split("web"), Some(("", "web", "")));
        assert_eq!(split("web:http"), Some(("", "web", "http")));
        assert_eq!(split("https:web:443"), Some(("https", "web", "443")));
        assert_eq!(split("ftp:web:21"), None);
        assert_eq!(split(":80"), None);
    }

    #[test]
    fn what_is_led_on_is_the_path_as_it_was_written() {
        let below = |rest: &str| format!("/api/v1/namespaces/proxy/services/web:80/proxy{rest}");
        assert_eq!(path(&below("/a%2Fb/"), "services"), Some("/a%2Fb/"));
        assert_eq!(path(&below("/proxy"), "services"), Some("/proxy"));
        assert_eq!(path(&below("/"), "services"), Some("/"));
        assert_eq!(path(&below(""), "services"), None);
    }
}
