//! One request to a webhook and its answer, over HTTPS: to a service of the cluster, or to a URL.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::api::Call;
use crate::api::endpoint::{self, ServicePort};

/// The longest answer that is read.
const LIMIT: usize = 3 * 1024 * 1024;

/// Where a webhook is.
#[derive(Debug)]
struct Place {
    /// The name in its certificate.
    host: String,
    port: u16,
    path: String,
    service: Option<(String, String)>,
}

impl Place {
    fn of(client: &Value) -> Result<Self, String> {
        let service = &client["service"];
        if service.is_object() {
            let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            return Ok(Self {
                host: format!("{name}.{namespace}.svc"),
                port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
                path: format!("/{}", text("path").trim_start_matches('/')),
                service: Some((namespace, name)),
            });
        }
        let url = client["url"].as_str().unwrap_or_default();
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or_else(|| format!("{url:?} is no https URL"))?;
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(443),
            path: uri.path().to_owned(),
            service: None,
        })
    }
}

/// Sends a review and answers the one that comes back, in the time that the webhook has.
pub(super) async fn post(call: &Call<'_>, webhook: &Value, review: &Value) -> Result<Value, String> {
    let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10);
    let place = Place::of(&webhook["clientConfig"])?;
    let target = format!("{}?timeout={seconds}s", place.path);
    let shown = format!("Post \"https://{}:{}{target}\"", place.host, place.port);
    let exchanged = exchange(call, &place, webhook, &target, review);
    match tokio::time::timeout(Duration::from_secs(seconds), exchanged).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(format!("{shown}: {why}")),
        Err(_) => Err(format!("{shown}: context deadline exceeded")),
    }
}

async fn exchange(
    call: &Call<'_>,
    place: &Place,
    webhook: &Value,
    target: &str,
    review: &Value,
) -> Result<Value, String> {
    let stream = connect(call, place).await?;
    let name = ServerName::try_from(place.host.clone()).map_err(|error| error.to_string())?;
    let trusted = trust(webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default())?;
    let stream = TlsConnector::from(Arc::new(trusted)).connect(name, stream).await;
    let stream = stream.map_err(|error| format!("tls: {error}"))?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // The request tells of errors of its connection.
        let _ = connection.await;
    });
    let request = http::Request::post(target)
        .header("host", format!("{}:{}", place.host, place.port))
        .header("user-agent", "kube-apiserver-admission")
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(text)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LIMIT).collect().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("its answer is no JSON: {error}"))
}

/// A bundle of certificates that the webhook's own must come from.
///
/// Not handled: without one, Kubernetes trusts the authorities that its machine trusts.
fn trust(bundle: &str) -> Result<ClientConfig, String> {
    let pem = BASE64_STANDARD.decode(bundle).map_err(|error| format!("`caBundle` is no base64: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("`caBundle` is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("`caBundle` has a bad certificate: {error}"))?;
    }
    if roots.is_empty() {
        return Err("`caBundle` has no certificate, and no others are trusted here".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn connect(call: &Call<'_>, place: &Place) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("dial tcp {}:{}: {error}", place.host, place.port);
    let Some((namespace, name)) = &place.service else {
        return TcpStream::connect((place.host.as_str(), place.port)).await.map_err(failed);
    };
    let address = endpoint::of(call.state, namespace, name, ServicePort::Number(place.port));
    let address = address.map_err(|nobody| nobody.to_string())?;
    endpoint::dial(call.state, address).await
}
