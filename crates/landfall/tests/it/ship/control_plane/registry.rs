//! A registry that has one image, and says its digest to whoever asks.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(super) const DIGEST: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// It serves `shop/web:2` until it is dropped.
pub(super) struct Registry {
    pub(super) address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Registry {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().route("/v2/", get("{}")).route("/v2/shop/web/manifests/{tag}", get(manifest));
        let mut serving = JoinSet::new();
        serving.spawn(async { axum::serve(listener, router).await.expect("it is served") });
        Self { address, _serving: serving }
    }
}

async fn manifest(Path(tag): Path<String>) -> Response {
    match tag.as_str() {
        "2" => ([("docker-content-digest", DIGEST)], "{}").into_response(),
        _ => {
            let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            (StatusCode::NOT_FOUND, unknown).into_response()
        }
    }
}
