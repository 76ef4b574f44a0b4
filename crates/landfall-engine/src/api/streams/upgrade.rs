//! How a connection becomes one of streams: the client asks for WebSocket or for SPDY.

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::spdy;
use crate::api::State;
use crate::api::failure::Failure;

/// The protocols above SPDY that a client knows; the answer names one of them.
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// What the client wants to speak.
pub(super) enum Upgrade {
    WebSocket(WebSocketUpgrade),
    Spdy(SpdyUpgrade),
}

/// A connection that can be taken over for SPDY.
pub(super) struct SpdyUpgrade {
    connection: OnUpgrade,
    protocol: &'static str,
}

impl Upgrade {
    /// `protocol` is the one that is spoken above SPDY. A WebSocket is told its protocols by who takes it over.
    pub(super) async fn of(parts: &Parts, protocol: &'static str) -> Result<Self, Failure> {
        let wanted = parts.headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let required = || Failure::bad_request("Upgrade request required");
        if wanted.eq_ignore_ascii_case(spdy::NAME) {
            let connection = parts.extensions.get::<OnUpgrade>().ok_or_else(required)?.clone();
            if !offers(&parts.headers, protocol) {
                let message = format!("unable to upgrade: unable to negotiate protocol: server accepts [{protocol}]");
                return Err(Failure {
                    code: StatusCode::FORBIDDEN,
                    reason: "Forbidden",
                    ..Failure::bad_request(message)
                });
            }
            return Ok(Self::Spdy(SpdyUpgrade { connection, protocol }));
        }
        let mut parts = parts.clone();
        let socket = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
        socket.map(Self::WebSocket).map_err(|_| required())
    }
}

impl SpdyUpgrade {
    /// Takes the connection over; the answer is the switch of protocols.
    pub(super) fn on_upgrade<F>(
        self,
        state: &State,
        talk: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let connection = self.connection;
        state.streams.spawn(async move {
            match connection.await {
                Ok(connection) => talk(TokioIo::new(connection)).await,
                Err(error) => debug!(%error, "a client left before its streams began"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(spdy::NAME));
        headers.insert(PROTOCOL, HeaderValue::from_static(self.protocol));
        response
    }
}

fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    let values = headers.get_all(PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|offered| offered.trim() == protocol)
}

/// Says goodbye: a client takes a connection that ends otherwise for a broken one.
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))
}

/// Closes a WebSocket in good order: what was sent is read by the client before the connection ends.
pub(super) async fn close(mut socket: WebSocket) {
    // A client that has gone already is not told so.
    if socket.send(goodbye()).await.is_ok() {
        let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
        drop(tokio::time::timeout(FAREWELL, answered).await);
    }
}

/// How long a client may take to read the last that it is told.
pub(super) const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);
