//! The keys of a control plane: an authority, a certificate that every piece serves with, one for a user who may do
//! everything, and the key that signs tokens of service accounts.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::{Value, json};

use crate::control_plane::StartError;

/// The files, and what is needed of them in memory.
pub(super) struct Certificates {
    pub(super) authority: PathBuf,
    pub(super) authority_der: Vec<u8>,
    pub(super) serving: Pair,
    pub(super) service_accounts: SigningKey,
    user: Pair,
}

/// A certificate and its key.
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

pub(super) struct SigningKey {
    pub(super) private: PathBuf,
    pub(super) public: PathBuf,
}

impl Certificates {
    /// Makes everything anew and writes it into the folder.
    pub(super) fn write(folder: &Path) -> Result<Self, StartError> {
        let file = |name: &str, text: &str| -> Result<PathBuf, StartError> {
            let path = folder.join(name);
            fs::write(&path, text)
                .map_err(|source| StartError::Prepare { action: format!("write `{}`", path.display()), source })?;
            Ok(path)
        };

        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "landfall-testing");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);

        let issue = |name: &str, params: &CertificateParams| -> Result<Pair, StartError> {
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?;
            Ok(Pair {
                certificate: file(&format!("{name}.crt"), &certificate.pem())?,
                key: file(&format!("{name}.key"), &key.serialize_pem())?,
            })
        };

        let mut serving = CertificateParams::new(vec!["localhost".to_owned(), "kubernetes.default.svc".to_owned()])?;
        serving.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        serving.distinguished_name.push(DnType::CommonName, "control-plane");
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

        let mut user = CertificateParams::default();
        user.distinguished_name.push(DnType::CommonName, "admin");
        // The group that may do everything, before any role exists.
        user.distinguished_name.push(DnType::OrganizationName, "system:masters");
        user.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];

        let signing = KeyPair::generate()?;
        Ok(Self {
            authority: file("ca.crt", &authority.pem())?,
            authority_der: authority.der().to_vec(),
            serving: issue("serving", &serving)?,
            user: issue("admin", &user)?,
            service_accounts: SigningKey {
                private: file("service-accounts.key", &signing.serialize_pem())?,
                public: file("service-accounts.pub", &signing.public_key_pem())?,
            },
        })
    }

    /// A kubeconfig with the user who may do everything. JSON is YAML too.
    pub(super) fn kubeconfig(&self, server: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "testing",
                "cluster": { "server": server, "certificate-authority": self.authority },
            }],
            "users": [{
                "name": "admin",
                "user": { "client-certificate": self.user.certificate, "client-key": self.user.key },
            }],
            "contexts": [{ "name": "testing", "context": { "cluster": "testing", "user": "admin" } }],
            "current-context": "testing",
        })
    }
}
