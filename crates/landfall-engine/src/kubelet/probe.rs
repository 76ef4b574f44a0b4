//! Probes: asks a container whether it has started, lives and is ready, as often as its pod says, and tells when the answer
//! has changed for good.

mod grpc;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::node_agent::{Command, Output};
use crate::network::Dialer;
use crate::runtime::Sandbox;

/// How much of an answer is read.
const MAX_BODY: usize = 10 * 1024;

/// How long a container that does not listen yet is asked again and again before its answers count: its first probe would
/// mostly come before it listens, and the next one only a period later.
const EAGER: Duration = Duration::from_secs(2);

/// The first wait between those; it doubles up to [`EAGER_MAX`].
const EAGER_MIN: Duration = Duration::from_millis(10);
const EAGER_MAX: Duration = Duration::from_millis(40);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    Startup,
    Liveness,
    Readiness,
}

impl Question {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    pub(super) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What a prober tells its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// One attempt failed: an event says why.
    Failed(String),
    /// The threshold is reached.
    Is(bool),
}

/// A connection from the node: to the pod through its network, to anybody else from this machine. A pod on the network of its host has
/// a loopback address, which is another one in the network of the pods.
pub(super) async fn connect(dialer: &Dialer, pod_ip: &str, host: &str, port: u16) -> io::Result<TcpStream> {
    match pod_ip.parse::<IpAddr>() {
        Ok(ip) if host == pod_ip && !ip.is_loopback() => dialer.dial(SocketAddr::new(ip, port)).await,
        _ => TcpStream::connect((host, port)).await,
    }
}

/// Whom to ask.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) sandbox: Arc<dyn Sandbox>,
    /// Of the running container.
    pub(super) id: String,
    pub(super) pod_ip: String,
    pub(super) container: Container,
    pub(super) dialer: Dialer,
}

/// Asks until dropped, or until there is nothing more to learn: a startup probe that was answered, a liveness probe that
/// failed.
pub(super) async fn ask(question: Question, target: Target, running_since: Instant, tell: impl Fn(News)) {
    let Some(probe) = question.of(&target.container).cloned() else { return };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).filter(|v| *v > 0).unwrap_or(default))
    };
    let count = |value: Option<i32>, default: i32| value.filter(|value| *value > 0).unwrap_or(default);
    let (period, timeout) = (seconds(probe.period_seconds, 10), seconds(probe.timeout_seconds, 1));
    let (failures, successes) = (count(probe.failure_threshold, 3), count(probe.success_threshold, 1));
    // The kubelet asks in the rhythm that began before the container ran, and only what others wait for, whether it has
    // started and is ready, it also asks in between: the first time for liveness is about a period after the start.
    let least = if question == Question::Liveness { period } else { Duration::ZERO };
    let begin = running_since + seconds(probe.initial_delay_seconds, 0).max(least);
    tokio::time::sleep_until(begin).await;

    let mut eager = Some(EAGER_MIN).filter(|_| question != Question::Liveness);
    let (mut last, mut run, mut said) = (None, 0, None);
    loop {
        let asked = Instant::now();
        let answer = match tokio::time::timeout(timeout, attempt(&probe, &target, timeout)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Answered(slow(&probe, &target, timeout))),
        };
        if let (Some(wait), Err(Failure::NotListening(_))) = (eager, &answer)
            && asked < begin + EAGER
        {
            tokio::time::sleep(wait).await;
            eager = Some((wait * 2).min(EAGER_MAX));
            continue;
        }
        eager = None;
        let good = answer.is_ok();
        if let Err(Failure::NotListening(why) | Failure::Answered(why)) = answer {
            tell(News::Failed(why));
        }
        run = if last == Some(good) { run + 1 } else { 1 };
        last = Some(good);
        if run >= if good { successes } else { failures } {
            if said != Some(good) {
                said = Some(good);
                tell(News::Is(good));
            }
            if question == Question::Startup || (question == Question::Liveness && !good) {
                return;
            }
        }
        tokio::time::sleep_until(asked + period).await;
    }
}

enum Failure {
    NotListening(String),
    Answered(String),
}

/// What Kubernetes says of a probe that took too long.
fn slow(probe: &Probe, target: &Target, timeout: Duration) -> String {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default().join(" ");
        return format!("command timed out: \"{command}\" timed out after {}s", timeout.as_secs());
    }
    if let Some(get) = &probe.http_get {
        let url = url(get, target).unwrap_or_default();
        return format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.pod_ip);
        let port = port(&tcp.port, &target.container).unwrap_or_default();
        return format!("dial tcp {host}:{port}: i/o timeout");
    }
    let port = probe.grpc.as_ref().map(|grpc| grpc.port).unwrap_or_default();
    format!(
        "timeout: failed to connect service \"{}:{port}\" within {}s: context deadline exceeded",
        target.pod_ip,
        timeout.as_secs()
    )
}

/// `timeout` is only told: it is kept by the caller.
async fn attempt(probe: &Probe, target: &Target, timeout: Duration) -> Result<(), Failure> {
    if let Some(exec) = &probe.exec {
        let (code, output) = run(target, exec.command.clone().unwrap_or_default()).await.map_err(Failure::Answered)?;
        return if code == 0 { Ok(()) } else { Err(Failure::Answered(output)) };
    }
    if let Some(get) = &probe.http_get {
        let url = url(get, target).map_err(Failure::Answered)?;
        let failed = |error: HttpError| match error {
            HttpError::Connect(error) => Failure::NotListening(format!("Get \"{url}\": dial tcp {error}")),
            HttpError::Other(error) => Failure::Answered(format!("Get \"{url}\": {error}")),
        };
        let status = http_get(get, target).await.map_err(failed)?;
        return if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(Failure::Answered(format!("HTTP probe failed with statuscode: {status}")))
        };
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.pod_ip.clone());
        let port = port(&tcp.port, &target.container).map_err(Failure::Answered)?;
        return match connect(&target.dialer, &target.pod_ip, &host, port).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::NotListening(format!("dial tcp {host}:{port}: connect: {}", words(&error)))),
        };
    }
    if let Some(health) = &probe.grpc {
        let port = u16::try_from(health.port).map_err(|error| Failure::Answered(error.to_string()))?;
        let authority = format!("{}:{port}", target.pod_ip);
        let stream = connect(&target.dialer, &target.pod_ip, &target.pod_ip, port).await.map_err(|error| {
            let (within, why) = (timeout.as_secs(), words(&error));
            Failure::NotListening(format!("timeout: failed to connect service \"{authority}\" within {within}s: {why}"))
        })?;
        let service = health.service.as_deref().unwrap_or_default();
        return grpc::check(stream, &authority, service).await.map_err(Failure::Answered);
    }
    Err(Failure::Answered("missing probe handler".to_owned()))
}

/// Runs a command in the container and collects what it says.
pub(super) async fn run(target: &Target, argv: Vec<String>) -> Result<(i32, String), String> {
    let command = Command { argv: Some(argv), stdin: false, stdout: true, stderr: true, tty: false };
    let mut session = target.sandbox.exec(&target.id, command).await.map_err(|error| error.to_string())?;
    let mut said = Vec::new();
    while let Some(output) = session.output.recv().await {
        match output {
            Output::Stdout(bytes) | Output::Stderr(bytes) => {
                let room = MAX_BODY.saturating_sub(said.len());
                said.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Output::Ended(result) => return Ok((result?, String::from_utf8_lossy(&said).into_owned())),
        }
    }
    Err("the command was cut off".to_owned())
}

/// Why no answer came.
pub(super) enum HttpError {
    Connect(String),
    Other(String),
}

/// One request as a probe or a hook makes it; the status of its answer.
pub(super) async fn http_get(get: &HTTPGetAction, target: &Target) -> Result<u16, HttpError> {
    let other = |error: String| HttpError::Other(error);
    let port = port(&get.port, &target.container).map_err(other)?;
    let host = get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.pod_ip.clone());
    let stream = connect(&target.dialer, &target.pod_ip, &host, port)
        .await
        .map_err(|error| HttpError::Connect(format!("{host}:{port}: connect: {}", words(&error))))?;
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = http::Request::get(path)
        .header("user-agent", "kube-probe/1.36")
        .header("accept", "*/*")
        .header("connection", "close");
    let named = get.http_headers.iter().flatten();
    let mut host_header = format!("{host}:{port}");
    for header in named {
        if header.name.eq_ignore_ascii_case("host") {
            host_header.clone_from(&header.value);
        } else {
            request = request.header(&header.name, &header.value);
        }
    }
    let request =
        request.header("host", host_header).body(Full::new(Bytes::new())).map_err(|e| other(e.to_string()))?;
    // An answer that is longer than anybody reads is an answer too.
    let answer = if get.scheme.as_deref() == Some("HTTPS") {
        let stream = tls::connect(stream, &host).await.map_err(|error| other(error.to_string()))?;
        send(stream, request, MAX_BODY).await
    } else {
        send(stream, request, MAX_BODY).await
    };
    answer.map(|answer| answer.status)
}

/// An answer whose status came; its body may have been cut off, or too long.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Result<Bytes, String>,
}

/// Sends the only request of a connection, and reads as much of the answer as is said.
pub(super) async fn send(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    request: http::Request<Full<Bytes>>,
    most: usize,
) -> Result<Answer, HttpError> {
    let other = |error: hyper::Error| HttpError::Other(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // The request tells of errors of its connection.
        let _ = connection.await;
    });
    let answer = sender.send_request(request).await.map_err(other)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), most).collect().await;
    Ok(Answer { status, body: body.map(Collected::to_bytes).map_err(|error| error.to_string()) })
}

/// A port by number, or by the name that the container gave it.
pub(super) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| format!("invalid port: {port:?}"))
}

fn url(get: &HTTPGetAction, target: &Target) -> Result<String, String> {
    let host = get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.pod_ip.clone());
    let path = get.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    Ok(format!("{scheme}://{host}:{}{slash}{path}", port(&get.port, &target.container)?))
}

/// As Go says it, since that is what users search for.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// A probe over TLS trusts whatever the container shows (Kubernetes, "HTTP probes": certificates are not checked).
mod tls {
    use std::io;

    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, ring};
    use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    #[derive(Debug)]
    struct TrustAll(Arc<CryptoProvider>);

    pub(super) async fn connect(stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    impl ServerCertVerifier for TrustAll {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::future::BoxFuture;
    use tokio::net::TcpListener;

    use super::*;
    use crate::network::Dial;

    /// The network of the pods, in which nobody listens.
    struct Deserted;

    impl Dial for Deserted {
        fn dial(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }
    }

    #[tokio::test]
    async fn a_pod_on_the_network_of_its_host_is_asked_there() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("there is a free port");
        let port = listener.local_addr().expect("it listens").port();
        let dialer: Dialer = Arc::new(Deserted);
        assert!(connect(&dialer, "127.0.0.1", "127.0.0.1", port).await.is_ok());
        assert!(
            connect(&dialer, "10.0.0.1", "10.0.0.1", port).await.is_err(),
            "that one is in the network of the pods"
        );
    }
}
