//! The gRPC health checking protocol: one call with one small message each way.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::MAX_BODY;

/// What stands before each message: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks `grpc.health.v1.Health/Check` whether a service serves; `authority` is the server at the other end. The error is what
/// Kubernetes says of it.
pub(super) async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(|error| error.to_string())?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // The request tells of errors of its connection.
        let _ = connection.await;
    });
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(framed(&Request { service: service.to_owned() })))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let early = answer.headers().get("grpc-status").cloned();
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await.map_err(|error| error.to_string())?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()).or(early);
    match status.as_ref().and_then(|status| status.to_str().ok()) {
        Some("0") => {}
        Some("12") => {
            return Err(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()
            );
        }
        code => {
            let code = code.unwrap_or("unknown");
            return Err(format!("error: health rpc probe failed with status code {code}"));
        }
    }
    let answer = body.to_bytes().get(PREFIX..).and_then(|message| Answer::decode(message).ok()).unwrap_or_default();
    match answer.status {
        1 => Ok(()),
        2 => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
        3 => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".to_owned()),
        _ => Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
    }
}

/// A message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let length = u32::try_from(message.encoded_len()).expect("the names of services are short");
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(message.encode_to_vec());
    frame.into()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{HeaderMap, HeaderValue, Response};
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;

    use super::*;

    /// Answers by the name that it is asked for: `down`, `old`, one that it does not know, or one of many letters.
    async fn answer(
        request: http::Request<Incoming>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let body = request.into_body().collect().await.expect("the whole request").to_bytes();
        let length = u32::from_be_bytes(body[1..PREFIX].try_into().expect("four bytes"));
        assert_eq!(usize::try_from(length), Ok(body.len() - PREFIX));
        let service = Request::decode(&body[PREFIX..]).expect("a message").service;
        let (code, status): (i32, i32) = match service.as_str() {
            "down" => (0, 2),
            "old" => (12, 0),
            "unknown" => (5, 0),
            _ => {
                assert!(service.chars().all(|letter| letter == 'n'), "{service}");
                (0, 1)
            }
        };
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from(code))]);
        let message = framed(&Answer { status });
        Ok(Response::new(Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))))))
    }

    /// What a probe of each of these services learns.
    async fn asked<const N: usize>(services: [&str; N]) -> [Result<(), String>; N] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                // A client that has its answer goes.
                let _ = serving.await;
            }
        });
        let mut answers = Vec::new();
        for service in services {
            let stream = TcpStream::connect(address).await.expect("somebody listens");
            answers.push(check(stream, &address.to_string(), service).await);
        }
        answers.try_into().expect("one answer each")
    }

    #[tokio::test]
    async fn a_service_is_asked_for_by_its_whole_name() {
        let names = [0, 1, 127, 128, 255, 256, 4000].map(|length| "n".repeat(length));
        for (name, answer) in names.iter().zip(asked(names.each_ref().map(String::as_str)).await) {
            assert_eq!(answer, Ok(()), "a name of {} letters", name.len());
        }
    }

    #[tokio::test]
    async fn a_service_that_does_not_serve_is_told_apart_from_one_that_cannot_say() {
        let answers = asked(["down", "old", "unknown"]).await.map(|answer| answer.expect_err("none of them serves"));
        insta::assert_snapshot!(answers.join("\n"), @r#"
        service unhealthy (responded with "NOT_SERVING")
        error: this server does not implement the grpc health protocol (grpc.health.v1.Health)
        error: health rpc probe failed with status code 5
        "#);
    }
}
