//! What the tags of images name: their registry is asked for the digest that a tag has at this moment, so that a release ships what it
//! was planned with, whoever moves the tag later.
//!
//! Credentials are those of Docker's configuration. Not handled: its credential helpers and identity tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, ParseError, Reference, RegistryOperation};
use serde::Deserialize;

/// How long a registry may take to take a connection, and to go on with an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an image is not shipped by a digest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// It cannot be read.
    #[error("`{image}` is no name of an image")]
    Malformed {
        /// As it was given.
        image: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The registry does not know it.
    #[error("`{registry}` has no `{tag}` of `{repository}`")]
    NoSuchTag {
        /// The host of the registry.
        registry: String,
        /// The repository in it.
        repository: String,
        /// The tag.
        tag: String,
    },
    /// The registry lets others read it.
    #[error("`{registry}` does not let {} read `{repository}`", who(login.as_deref()))]
    NotAuthorised {
        /// The host of the registry.
        registry: String,
        /// The repository in it.
        repository: String,
        /// Who asked; nobody in particular when there is none.
        login: Option<String>,
        /// The helper that has the credentials for it, if Docker's configuration names one.
        helper: Option<String>,
    },
    /// The registry does not answer, or not as one does.
    #[error("failed to ask `{registry}` for the digest of `{image}`")]
    Unanswered {
        /// The host of the registry.
        registry: String,
        /// As it was given.
        image: String,
        /// What went wrong.
        source: Box<OciDistributionError>,
    },
}

fn who(login: Option<&str>) -> String {
    login.map_or_else(|| "somebody without credentials".to_owned(), |login| format!("`{login}`"))
}

impl RegistryError {
    /// What to do.
    pub(crate) fn hint(&self) -> String {
        const OTHERWISE: &str = "`--allow-tags` ships the tag as it is";
        match self {
            Self::Malformed { .. } => "write `registry/repository:tag` or `registry/repository@sha256:…`".to_owned(),
            Self::NoSuchTag { .. } => format!("push it first; where the cluster has it by other means, {OTHERWISE}"),
            Self::NotAuthorised { helper: Some(helper), .. } => format!(
                "its credentials are left to `{helper}`, which is not asked: ship it by its digest, or {OTHERWISE}"
            ),
            Self::NotAuthorised { registry, helper: None, .. } => {
                format!("`docker login {registry}` writes credentials down; or ship it by its digest, or {OTHERWISE}")
            }
            Self::Unanswered { .. } => format!("ship it by its digest, or {OTHERWISE}"),
        }
    }
}

/// Whoever knows the digests of images.
pub(crate) struct Registries {
    client: Client,
    logins: Logins,
}

impl Registries {
    /// For these images, with the credentials of Docker's configuration in this folder, if there is one.
    pub(crate) fn of<'a>(images: impl Iterator<Item = &'a str>, folder: Option<&Path>) -> anyhow::Result<Self> {
        // Several libraries here speak TLS; an error says that a cryptography is chosen already.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let registries =
            images.filter_map(|image| Some(image.parse::<Reference>().ok()?.resolve_registry().to_owned()));
        let configuration = ClientConfig {
            // As Docker does, so that a registry of this machine needs no certificate.
            protocol: ClientProtocol::HttpsExcept(registries.filter(|registry| is_here(registry)).collect()),
            connect_timeout: Some(PATIENCE),
            read_timeout: Some(PATIENCE),
            user_agent: "landfall",
            ..ClientConfig::default()
        };
        let client = Client::try_from(configuration).context("failed to make a client of registries")?;
        let logins = folder.map(Logins::read).transpose()?.unwrap_or_default();
        Ok(Self { client, logins })
    }

    /// The image by the digest that its tag has now.
    pub(crate) async fn pinned(&self, image: &str) -> Result<String, RegistryError> {
        let reference: Reference =
            image.parse().map_err(|source| RegistryError::Malformed { image: image.to_owned(), source })?;
        let auth = self.logins.of(&reference);
        let asked = async {
            self.client.auth(&reference, &auth, RegistryOperation::Pull).await?;
            self.client.fetch_manifest_digest(&reference, &auth).await
        };
        let digest = asked.await.map_err(|error| self.told(image, &reference, &auth, error))?;
        // As the user wrote it: a registry that is left out is the one that the cluster takes.
        let tag = reference.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
        Ok(format!("{}@{digest}", image.strip_suffix(&tag).unwrap_or(image)))
    }

    fn told(
        &self,
        image: &str,
        reference: &Reference,
        auth: &RegistryAuth,
        error: OciDistributionError,
    ) -> RegistryError {
        use OciErrorCode::{Denied, ManifestUnknown, NameUnknown, NotFound, Unauthorized};
        let registry = reference.registry().to_owned();
        let repository = reference.repository().to_owned();
        let says = |codes: &[OciErrorCode]| match &error {
            OciDistributionError::RegistryError { envelope, .. } => {
                envelope.errors.iter().any(|error| codes.contains(&error.code))
            }
            _ => false,
        };
        let status = match &error {
            OciDistributionError::ServerError { code, .. } => Some(*code),
            _ => None,
        };
        let refuses = matches!(
            error,
            OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. }
        );
        if refuses || says(&[Unauthorized, Denied]) || matches!(status, Some(401 | 403)) {
            let login = match auth {
                RegistryAuth::Basic(name, _) => Some(name.clone()),
                RegistryAuth::Anonymous | RegistryAuth::Bearer(_) => None,
            };
            let helper = self.logins.helper(reference);
            return RegistryError::NotAuthorised { registry, repository, login, helper };
        }
        let is_missing = matches!(error, OciDistributionError::ImageManifestNotFoundError(_));
        if is_missing || says(&[ManifestUnknown, NameUnknown, NotFound]) || status == Some(404) {
            let tag = reference.tag().unwrap_or_default().to_owned();
            return RegistryError::NoSuchTag { registry, repository, tag };
        }
        RegistryError::Unanswered { registry, image: image.to_owned(), source: Box::new(error) }
    }
}

/// Whether a registry is one of this machine.
fn is_here(registry: &str) -> bool {
    let host = registry.split_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Where Docker keeps its configuration.
pub(crate) fn docker_folder() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))
}

/// Who reads which registry: `config.json` of Docker.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Logins {
    auths: BTreeMap<String, Login>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Login {
    /// Name and password with a colon between them, in Base64.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Logins {
    /// Nobody where there is no such file.
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join("config.json");
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", file.display())),
        };
        serde_json::from_slice(&text).with_context(|| format!("failed to understand `{}`", file.display()))
    }

    /// As whom a registry is asked.
    fn of(&self, reference: &Reference) -> RegistryAuth {
        let login = self.auths.iter().find(|(key, _)| names(key, reference)).and_then(|(_, login)| login.read());
        login.map_or(RegistryAuth::Anonymous, |(name, password)| RegistryAuth::Basic(name, password))
    }

    /// The program that has the credentials of a registry.
    fn helper(&self, reference: &Reference) -> Option<String> {
        let own = self.helpers.iter().find(|(key, _)| names(key, reference)).map(|(_, helper)| helper);
        own.or(self.store.as_ref()).map(|helper| format!("docker-credential-{helper}"))
    }
}

impl Login {
    fn read(&self) -> Option<(String, String)> {
        if let Some((name, password)) = self.username.clone().zip(self.password.clone()) {
            return Some((name, password));
        }
        let decoded = String::from_utf8(STANDARD.decode(self.auth.as_deref()?).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some((name.to_owned(), password.to_owned()))
    }
}

/// Whether a key of the configuration means the registry of an image: `ghcr.io`, or an address such as `https://index.docker.io/v1/`.
fn names(key: &str, reference: &Reference) -> bool {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = host.split('/').next().unwrap_or(host);
    host == reference.registry() || host == reference.resolve_registry()
}

#[cfg(test)]
mod tests;
