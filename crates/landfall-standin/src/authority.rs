//! The authority whose certificates everything here has: it takes the place of cert-manager's issuers, public ones too.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Keys could not be made, read or kept.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action}")]
pub struct AuthorityError {
    action: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Signs certificates; kept in a folder, so that what was signed stays good.
#[derive(Clone)]
pub struct Authority {
    own: Identity,
}

impl Authority {
    /// Opens the authority of this folder, or makes it.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        if certificate.exists() && key.exists() {
            return Ok(Self { own: Identity { certificate: read(&certificate)?, key: read(&key)? } });
        }
        fs::create_dir_all(folder).map_err(failed(format!("make `{}`", folder.display())))?;
        let own = make().map_err(failed("make an authority"))?;
        for (path, text) in [(&key, &own.key), (&certificate, &own.certificate)] {
            let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(failed(format!("write `{}`", path.display())))?;
        }
        Ok(Self { own })
    }

    /// Its certificate, as PEM: whoever trusts it trusts all that it signed.
    pub fn certificate(&self) -> &str {
        &self.own.certificate
    }

    /// Its own certificate and key.
    pub(crate) fn own(&self) -> &Identity {
        &self.own
    }

    /// Signs a certificate for these names.
    pub(crate) fn sign(&self, names: &[String]) -> Result<Identity, AuthorityError> {
        let sign = || {
            let issuer = Issuer::from_ca_cert_pem(&self.own.certificate, KeyPair::from_pem(&self.own.key)?)?;
            let mut parameters = CertificateParams::new(names)?;
            if let Some(first) = names.first() {
                // A common name is at most 64 characters long (RFC 5280, ub-common-name).
                parameters.distinguished_name.push(DnType::CommonName, first.chars().take(64).collect::<String>());
            }
            parameters.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            parameters.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            let certificate = parameters.signed_by(&key, &issuer)?;
            Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
        };
        sign().map_err(|error: rcgen::Error| AuthorityError {
            action: format!("sign a certificate for {}", names.join(", ")),
            source: Box::new(error),
        })
    }
}

fn make() -> Result<Identity, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "Landfall on this machine");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok(Identity { certificate: parameters.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

fn read(path: &PathBuf) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(failed(format!("read `{}`", path.display())))
}

fn failed<E: std::error::Error + Send + Sync + 'static>(action: impl Into<String>) -> impl FnOnce(E) -> AuthorityError {
    let action = action.into();
    move |source| AuthorityError { action, source: Box::new(source) }
}
