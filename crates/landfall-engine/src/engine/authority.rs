//! The engine's own certificate authority: who the server is, and who its first user is.
//!
//! Keys live in the data folder, readable by their owner only. The authority is made once and kept, so that a kubeconfig
//! stays good when the engine is started again; the server's certificate is issued at each start, for the address of
//! that start.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The names by which pods and clients know an API server (the `kubernetes` service in `default`).
const SERVER_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// The group that may do everything: RBAC cannot take it away.
/// <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#user-facing-roles>
const ADMINISTRATORS: &str = "system:masters";

/// Why certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the authority could not be read or written.
    #[error("failed to keep the engine's keys in `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A kept certificate or key is not what was written.
    #[error("`{}` is not a usable certificate or key: delete the folder to have a new authority", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// A kept secret is not what was written.
    #[error("`{}` is damaged: delete the folder to have a new authority", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A certificate could not be issued.
    #[error("failed to issue a certificate")]
    Issue(#[source] rcgen::Error),
    /// The TLS library refused what was issued.
    #[error("failed to set up TLS")]
    Tls(#[source] rustls::Error),
}

/// A certificate with its key, as PEM.
pub(crate) struct Credentials {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// An authority whose key is kept in a folder.
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    /// Signs the tokens of service accounts.
    token_key: [u8; 32],
}

impl Authority {
    /// The authority kept in `folder`; a new one if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, AuthorityError> {
        fs::create_dir_all(folder).map_err(|source| AuthorityError::File { path: folder.to_owned(), source })?;
        let key_path = folder.join("ca.key");
        let certificate_path = folder.join("ca.crt");
        let key = kept_key(&key_path)?;
        let certificate = match read(&certificate_path)? {
            Some(certificate) => certificate,
            None => {
                let certificate = root().self_signed(&key).map_err(AuthorityError::Issue)?.pem();
                write(&certificate_path, &certificate)?;
                certificate
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .map_err(|source| AuthorityError::Unusable { path: certificate_path, source })?;
        let token_key = kept_secret(&folder.join("service-account.key"))?;
        Ok(Self { certificate, issuer, token_key })
    }

    /// The certificate that clients trust, as PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The key that signs tokens of service accounts.
    pub(crate) fn token_key(&self) -> [u8; 32] {
        self.token_key
    }

    /// A certificate of an administrator with this name.
    pub(crate) fn administrator(&self, name: &str) -> Result<Credentials, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, ADMINISTRATORS);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// What a server at `address` needs to speak TLS and to know its clients by their certificates. A client without
    /// one is let in to show a token.
    pub(crate) fn server(&self, addresses: &[IpAddr]) -> Result<Arc<ServerConfig>, AuthorityError> {
        let names = SERVER_NAMES.into_iter().map(ToOwned::to_owned).chain(addresses.iter().map(ToString::to_string));
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).map_err(AuthorityError::Issue)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issued = self.issue(params)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut trusted = RootCertStore::empty();
        trusted.add(certificate_der(&self.certificate)).map_err(AuthorityError::Tls)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .expect("one root is enough for a verifier");
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("it was written by us");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(AuthorityError::Tls)?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate_der(&issued.certificate)], key)
            .map_err(AuthorityError::Tls)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Credentials, AuthorityError> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(AuthorityError::Issue)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(AuthorityError::Issue)?.pem();
        Ok(Credentials { certificate, key: key.serialize_pem() })
    }
}

fn root() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "landfall engine");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn certificate_der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("it was written by us and has been read as one")
}

/// The key in a file; a new one, kept there, if there is none.
fn kept_key(path: &Path) -> Result<KeyPair, AuthorityError> {
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem).map_err(|source| AuthorityError::Unusable { path: path.to_owned(), source });
    }
    let key = KeyPair::generate().map_err(AuthorityError::Issue)?;
    write(path, &key.serialize_pem())?;
    Ok(key)
}

/// The secret in a file, as base64; a new one, kept there, if there is none.
fn kept_secret(path: &Path) -> Result<[u8; 32], AuthorityError> {
    let Some(text) = read(path)? else {
        let secret: [u8; 32] = rand::random();
        write(path, &BASE64_STANDARD.encode(secret))?;
        return Ok(secret);
    };
    let decoded = BASE64_STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    decoded.ok_or_else(|| AuthorityError::Damaged { path: path.to_owned() })
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), AuthorityError> {
    write_private(path, text).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

/// Writes a file whole or not at all, readable by its owner only.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
