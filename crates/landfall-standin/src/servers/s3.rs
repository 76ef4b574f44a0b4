//! S3: what SeaweedFS's `weed` does for the architecture, done by `s3s-fs` inside of this program.
//!
//! The rendered pod runs its own scripts, and `weed` on its `PATH` leads here: `weed server` with the rendered ports,
//! certificate and members, `weed shell` with the rendered buckets. Requests are signed (signature version 4) with the
//! rendered credentials, and others are refused.
//!
//! Not handled: replication. The first member keeps all objects and the others lead to it, so that the store is away while
//! that one is; versions of objects, life cycles, policies.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::BufRead as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use rusty_s3::actions::{CreateBucket, S3Action as _};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use super::forward::{forward, forward_from};
use super::{Found, setting};
use crate::connect::HttpClient;
use crate::{Failure, address, connect};

/// The variables that name the keys, in pods of the store as in those of its clients.
const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";

/// The signature covers a region, and nobody here cares which.
const REGION: &str = "us-east-1";

/// How long one request of the shell may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// It is always there: a part of this program.
pub(super) fn find() -> Option<Found> {
    Some(Found { path: std::env::current_exe().ok()?, version: "s3s-fs 0.14".to_owned() })
}

/// `weed server …` or `weed shell …`.
pub(super) fn become_program(arguments: &[&str]) -> Result<(), Failure> {
    match arguments {
        ["server", options @ ..] => crate::on_threads(serve(Member::of(options)?)),
        ["shell", options @ ..] => crate::on_threads(shell(&options_of(options))),
        _ => Err("the object store is started by `weed server` and asked by `weed shell`".into()),
    }
}

/// `-name=value`, by name.
fn options_of<'a>(arguments: &[&'a str]) -> BTreeMap<&'a str, &'a str> {
    arguments.iter().filter_map(|argument| argument.trim_start_matches('-').split_once('=')).collect()
}

/// One member of the store, as its start script says it.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    folder: PathBuf,
    s3: u16,
    volume: u16,
    filer: u16,
    /// Certificate and key, as files.
    identity: Option<(PathBuf, PathBuf)>,
    /// The host of the member that keeps the objects, when it is another one.
    keeper: Option<String>,
}

impl Member {
    fn of(arguments: &[&str]) -> Result<Self, Failure> {
        let options = options_of(arguments);
        let text = |name: &str| options.get(name).copied().ok_or_else(|| format!("`-{name}` is missing"));
        let port = |name: &str| text(name)?.parse::<u16>().map_err(|_| format!("`-{name}` is no port"));
        let file = |name: &str| options.get(name).map(PathBuf::from);
        let first = options.get("master.peers").and_then(|peers| peers.split(',').next()?.rsplit_once(':'));
        let keeper = first.map(|(host, _)| host).filter(|host| options.get("ip") != Some(host));
        Ok(Self {
            folder: text("dir")?.into(),
            s3: port("s3.port")?,
            volume: port("volume.port")?,
            filer: port("filer.port")?,
            identity: file("s3.cert.file").zip(file("s3.key.file")),
            keeper: keeper.map(ToOwned::to_owned),
        })
    }
}

/// Serves until it is asked to end. The policies of the architecture let members talk to each other on the ports of volumes
/// and filers and on no others, so that the first serves its objects there too.
async fn serve(member: Member) -> Result<(), Failure> {
    let mut parts = JoinSet::new();
    // The rendered script asks there whether somebody serves. Where members share the network of a machine, whoever comes first
    // answers for all.
    if let Some(own) = address::shared()
        && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, member.filer)).await
    {
        parts.spawn(forward_from(listener, format!("{own}:{}", member.filer)));
    }
    match &member.keeper {
        Some(keeper) => {
            info!(keeper, "another member keeps the objects");
            parts.spawn(forward(member.s3, format!("{keeper}:{}", member.volume)));
            parts.spawn(forward(member.filer, format!("{keeper}:{}", member.filer)));
        }
        None => {
            let store = store(&member.folder)?;
            let identity = member.identity.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
            for (port, identity, door) in [
                (member.s3, identity.clone(), Door::Clients),
                (member.volume, identity, Door::Clients),
                (member.filer, None, Door::Filer),
            ] {
                let listener = TcpListener::bind((address::own(), port)).await?;
                parts.spawn(accept(listener, identity, door, store.clone()));
            }
            info!(port = member.s3, "serving");
        }
    }
    let mut stop = crate::service::asked_to_end()?;
    tokio::select! {
        _ = stop.recv() => Ok(()),
        Some(ended) = parts.join_next() => ended?,
    }
}

fn store(folder: &Path) -> Result<S3Service, Failure> {
    let objects = folder.join("objects");
    fs::create_dir_all(&objects).map_err(|error| super::told("make", &objects, &error))?;
    let files = FileSystem::new(&objects).map_err(|error| format!("failed to open the objects: {error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(setting(ACCESS_KEY)?, setting(SECRET_KEY)?));
    Ok(builder.build())
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Failure> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let configuration =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(configuration)))
}

/// Who is expected at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Those who sign their requests.
    Clients,
    /// Those as well, and scripts that ask whether somebody is there.
    Filer,
}

async fn accept(
    listener: TcpListener,
    identity: Option<TlsAcceptor>,
    door: Door,
    store: S3Service,
) -> Result<(), Failure> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (identity, store) = (identity.clone(), store.clone());
                connections.spawn(async move {
                    match identity {
                        Some(identity) => match identity.accept(stream).await {
                            Ok(stream) => talk(stream, door, store).await,
                            Err(error) => debug!(%error, "a client without a handshake"),
                        },
                        None => talk(stream, door, store).await,
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, door: Door, store: S3Service) {
    let answer = move |request: Request<Incoming>| -> BoxFuture<'static, Result<Response<s3s::Body>, Infallible>> {
        let store = store.clone();
        Box::pin(async move {
            let asks_who_is_there = request.uri().path() == "/"
                && request.uri().query().is_none()
                && !request.headers().contains_key(http::header::AUTHORIZATION);
            if door == Door::Filer && asks_who_is_there {
                return Ok(Response::new(s3s::Body::from("a stand-in for the filer\n".to_owned())));
            }
            Ok(store.call(request.map(s3s::Body::from)).await.unwrap_or_else(|error| {
                debug!(?error, "an answer could not be made");
                let mut broken = Response::new(s3s::Body::empty());
                *broken.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                broken
            }))
        })
    };
    // How a connection ends is the client's affair.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

/// Does what the lines of the standard input say: `s3.bucket.create -name NAME`.
async fn shell(options: &BTreeMap<&str, &str>) -> Result<(), Failure> {
    let filer = options.get("filer").copied().ok_or("`-filer` is missing")?;
    // At the address that the script names may be the filer of another store.
    let own = address::shared().zip(filer.strip_prefix("127.0.0.1:")).map(|(own, port)| format!("{own}:{port}"));
    let filer = own.as_deref().unwrap_or(filer);
    let credentials = Credentials::new(setting(ACCESS_KEY)?, setting(SECRET_KEY)?);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [] => {}
            ["s3.bucket.create", "-name", name] => create(filer, &credentials, name).await?,
            _ => return Err(format!("not handled: `{line}`").into()),
        }
    }
    Ok(())
}

async fn create(filer: &str, credentials: &Credentials, name: &str) -> Result<(), Failure> {
    let bucket = Bucket::new(format!("http://{filer}").parse()?, UrlStyle::Path, name.to_owned(), REGION)?;
    let url = CreateBucket::new(&bucket, credentials).sign(PATIENCE);
    let request = Request::put(&url[url::Position::BeforePath..])
        .header(http::header::HOST, filer)
        .body(Full::from(Bytes::new()))?;
    let (status, body) = HttpClient::to(filer, None, &Arc::new(connect::tls("")?))?.send(request, PATIENCE).await?;
    match status {
        StatusCode::OK => info!(bucket = name, "made"),
        StatusCode::CONFLICT => info!(bucket = name, "it is there"),
        _ => return Err(format!("bucket `{name}`: {status}: {}", String::from_utf8_lossy(&body)).into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: [&str; 9] = [
        "-dir=/data",
        "-ip=archive-1.archive-members.shop.svc.cluster.local",
        "-volume.port=8080",
        "-filer",
        "-filer.port=8888",
        "-s3.port=8333",
        "-s3.cert.file=/tls/tls.crt",
        "-s3.key.file=/tls/tls.key",
        "-master.peers=archive-0.archive-members.shop.svc.cluster.local:9333,archive-1.archive-members.shop.svc.cluster.local:9333",
    ];

    #[test]
    fn every_member_but_the_first_leads_to_the_first() {
        let second = Member::of(&SECOND).expect("it is what is rendered");
        assert_eq!(second.keeper.as_deref(), Some("archive-0.archive-members.shop.svc.cluster.local"));
        assert_eq!(second.identity, Some(("/tls/tls.crt".into(), "/tls/tls.key".into())));
        let mut first = SECOND;
        first[1] = "-ip=archive-0.archive-members.shop.svc.cluster.local";
        assert_eq!(Member::of(&first).expect("it is what is rendered").keeper, None);
    }

    #[test]
    fn a_missing_option_is_named() {
        let error = Member::of(&SECOND[1..]).expect_err("no folder is named");
        assert_eq!(error.to_string(), "`-dir` is missing");
    }
}
