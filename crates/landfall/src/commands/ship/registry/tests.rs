//! A small registry, which speaks the requests of the distribution specification that are made of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Whom it lets read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lets {
    Anybody,
    /// Who has got a token with the name and the password.
    WithToken,
    /// Who sends the name and the password.
    WithPassword,
}

struct Served {
    lets: Lets,
    address: SocketAddr,
}

/// It serves `shop/web:2` until it is dropped.
struct Registry {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Registry {
    async fn start(lets: Lets) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new()
            .route("/v2/", get(version))
            .route("/v2/{owner}/{name}/manifests/{tag}", get(manifest))
            .route("/token", get(token))
            .with_state(Arc::new(Served { lets, address }));
        let mut serving = JoinSet::new();
        serving.spawn(async { axum::serve(listener, router).await.expect("it is served") });
        Self { address, _serving: serving }
    }

    /// The host in the names of images.
    fn host(&self) -> String {
        self.address.to_string()
    }

    async fn ask(&self, image: &str, folder: Option<&Path>) -> Result<String, RegistryError> {
        let image = format!("{}/{image}", self.host());
        let registries = Registries::of([image.as_str()].into_iter(), folder).expect("a client can be made");
        let pinned = registries.pinned(&image).await?;
        Ok(pinned.replace(&self.host(), "registry"))
    }

    /// The error with its hint.
    async fn refuses(&self, image: &str, folder: Option<&Path>) -> String {
        let error = self.ask(image, folder).await.expect_err("it does not say");
        format!("{error}\n{}", error.hint()).replace(&self.host(), "registry")
    }
}

impl Served {
    /// Whether a request comes with what the registry wants; otherwise, how it asks for it.
    fn lets(&self, headers: &HeaderMap) -> Result<(), Response> {
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (wanted, challenge) = match self.lets {
            Lets::Anybody => return Ok(()),
            Lets::WithToken => {
                ("Bearer let-in".to_owned(), format!("Bearer realm=\"http://{}/token\",service=\"shop\"", self.address))
            }
            Lets::WithPassword => (basic(), "Basic realm=\"shop\"".to_owned()),
        };
        if sent == Some(wanted.as_str()) {
            return Ok(());
        }
        Err((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], "who is it?").into_response())
    }
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode("ada:lovelace"))
}

async fn version(State(served): State<Arc<Served>>, headers: HeaderMap) -> Response {
    served.lets(&headers).err().unwrap_or_else(|| "{}".into_response())
}

async fn token(State(_): State<Arc<Served>>, headers: HeaderMap) -> Response {
    match headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        Some(sent) if sent == basic() => r#"{"token":"let-in"}"#.into_response(),
        // Whoever says nothing gets a token that lets them in nowhere, as public registries do it.
        None => r#"{"token":"nobody"}"#.into_response(),
        Some(_) => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn manifest(
    State(served): State<Arc<Served>>,
    UrlPath((owner, name, tag)): UrlPath<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = served.lets(&headers) {
        return refusal;
    }
    if (owner.as_str(), name.as_str(), tag.as_str()) == ("shop", "web", "2") {
        return ([("docker-content-digest", DIGEST)], "{}").into_response();
    }
    (StatusCode::NOT_FOUND, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#).into_response()
}

/// Docker's configuration, with one that names nobody for this registry.
fn configuration(text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::write(folder.path().join("config.json"), text).expect("a file can be written");
    folder
}

fn login(host: &str, password: &str) -> TempDir {
    let auth = STANDARD.encode(format!("ada:{password}"));
    configuration(&format!(r#"{{ "auths": {{ "https://{host}/v2/": {{ "auth": "{auth}" }} }} }}"#))
}

#[tokio::test]
async fn a_tag_is_the_digest_that_its_registry_has_for_it() {
    let registry = Registry::start(Lets::Anybody).await;
    let pinned = registry.ask("shop/web:2", None).await.expect("it is there");
    assert_eq!(pinned, format!("registry/shop/web@{DIGEST}"));
    // Without a tag it is the latest, which nobody has pushed.
    insta::assert_snapshot!(registry.refuses("shop/web", None).await, @"
    `registry` has no `latest` of `shop/web`
    push it first; where the cluster has it by other means, `--allow-tags` ships the tag as it is
    ");
    insta::assert_snapshot!(registry.refuses("shop/web:9", None).await, @"
    `registry` has no `9` of `shop/web`
    push it first; where the cluster has it by other means, `--allow-tags` ships the tag as it is
    ");
    insta::assert_snapshot!(registry.refuses("Shop/Web:2", None).await, @"
    `registry/Shop/Web:2` is no name of an image
    write `registry/repository:tag` or `registry/repository@sha256:…`
    ");
}

#[tokio::test]
async fn who_may_read_is_who_has_logged_in_to_docker() {
    for lets in [Lets::WithToken, Lets::WithPassword] {
        let registry = Registry::start(lets).await;
        let known = login(&registry.host(), "lovelace");
        let pinned = registry.ask("shop/web:2", Some(known.path())).await;
        assert_eq!(pinned.ok(), Some(format!("registry/shop/web@{DIGEST}")), "{lets:?}");
    }
    let registry = Registry::start(Lets::WithToken).await;
    insta::assert_snapshot!(registry.refuses("shop/web:2", None).await, @"
    `registry` does not let somebody without credentials read `shop/web`
    `docker login registry` writes credentials down; or ship it by its digest, or `--allow-tags` ships the tag as it is
    ");
    let wrong = login(&registry.host(), "byron");
    insta::assert_snapshot!(registry.refuses("shop/web:2", Some(wrong.path())).await, @"
    `registry` does not let `ada` read `shop/web`
    `docker login registry` writes credentials down; or ship it by its digest, or `--allow-tags` ships the tag as it is
    ");
    let helped = configuration(r#"{ "auths": {}, "credsStore": "desktop" }"#);
    insta::assert_snapshot!(registry.refuses("shop/web:2", Some(helped.path())).await, @"
    `registry` does not let somebody without credentials read `shop/web`
    its credentials are left to `docker-credential-desktop`, which is not asked: ship it by its digest, or `--allow-tags` ships the tag as it is
    ");
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_told_with_what_went_wrong() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let image = format!("{address}/shop/web:2");
    let registries = Registries::of([image.as_str()].into_iter(), None).expect("a client can be made");
    let error = registries.pinned(&image).await.expect_err("nobody is there");
    let told = format!("{:#}", anyhow::Error::from(error)).replace(&address, "registry");
    assert!(told.starts_with("failed to ask `registry` for the digest of `registry/shop/web:2`: "), "{told}");
    assert!(told.to_lowercase().contains("connection refused"), "{told}");
}

#[test]
fn a_configuration_of_docker_names_registries_in_several_ways() {
    let reference = |image: &str| image.parse::<Reference>().expect("it is one");
    assert!(names("ghcr.io", &reference("ghcr.io/shop/web:1")));
    assert!(names("https://index.docker.io/v1/", &reference("shop/web:1")));
    assert!(names("https://registry.example:5000", &reference("registry.example:5000/web:1")));
    assert!(!names("ghcr.io", &reference("quay.io/shop/web:1")));
    let nobody = Logins::read(Path::new("/there/is/no/such/folder")).expect("it may be missing");
    assert!(matches!(nobody.of(&reference("shop/web:1")), RegistryAuth::Anonymous));
    let broken = configuration("{");
    assert!(Logins::read(broken.path()).is_err_and(|error| error.to_string().starts_with("failed to understand")));
}

#[test]
fn registries_of_this_machine_need_no_certificate() {
    assert!(["localhost:5000", "127.0.0.1:5000", "localhost"].into_iter().all(is_here));
    assert!(["ghcr.io", "10.0.0.1:5000", "localhost.example"].into_iter().all(|registry| !is_here(registry)));
}
