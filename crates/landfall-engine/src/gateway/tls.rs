//! Certificates: those in Secrets, and those that the gateway makes itself where cert-manager would have.
//!
//! The gateway's own are signed by an authority that lives as long as the gateway; its certificate is told to the user, who
//! may trust it. They are never written into Secrets: to keep that promise is cert-manager's business.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::warn;

use super::host::{HostIndex, Pattern};
use super::table::{CertificateSource, RouteTable, World};
use crate::cache::ObjectKey;

/// How many certificates of its own the gateway keeps. Clients choose the names, so there must be an end.
const KEPT: usize = 1024;

/// Who is shown to a client that names nobody.
const NOBODY: &str = "localhost";

/// The certificate and key of a Secret of type `kubernetes.io/tls`.
pub(super) fn key_of(secret: &Secret) -> Result<Arc<CertifiedKey>, String> {
    let part = |name: &str| {
        let part = secret.data.as_ref().and_then(|data| data.get(name));
        part.ok_or_else(|| format!("it has no `{name}`"))
    };
    let chain = CertificateDer::pem_slice_iter(&part("tls.crt")?.0).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("`tls.crt` is not PEM: {error}"))?;
    let key =
        PrivateKeyDer::from_pem_slice(&part("tls.key")?.0).map_err(|error| format!("`tls.key` is not PEM: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| error.to_string())?;
    Ok(Arc::new(certified))
}

/// Which certificate is shown on which port to whom.
pub(crate) struct Certificates {
    by_port: ArcSwap<BTreeMap<u16, HostIndex<Shown>>>,
    authority: Authority,
}

#[derive(Clone)]
enum Shown {
    Kept(Arc<CertifiedKey>),
    Own,
    Nothing,
}

struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Certificates {
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        Ok(Self { by_port: ArcSwap::default(), authority: Authority::new()? })
    }

    /// The certificate of the gateway's authority, as PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.authority.pem
    }

    /// Shows what a table says from now on.
    pub(crate) fn update(&self, table: &RouteTable, world: &World) {
        let secrets: HashMap<ObjectKey, &Secret> =
            world.secrets.iter().map(|secret| (ObjectKey::of(&**secret), &**secret)).collect();
        let ports = table.ports().map(|(port, _)| {
            let known: Vec<(&Pattern, Shown)> = table
                .certificates(port)
                .map(|(host, source)| match source {
                    CertificateSource::Own => (host, Shown::Own),
                    CertificateSource::Secret(key) => {
                        let kept = secrets.get(key).and_then(|secret| key_of(secret).ok());
                        (host, kept.map_or(Shown::Nothing, Shown::Kept))
                    }
                })
                .collect();
            let index = HostIndex::build(known.iter().map(|(host, _)| *host), |class| {
                let covering = known.iter().filter(|(host, _)| host.covers(class));
                let best = covering.max_by_key(|(host, _)| host.specificity());
                best.map_or(Shown::Nothing, |(_, shown)| shown.clone())
            });
            (port, index)
        });
        self.by_port.store(Arc::new(ports.collect()));
    }

    /// How TLS is spoken on a port.
    pub(crate) fn config(self: &Arc<Self>, port: u16) -> Arc<ServerConfig> {
        let resolver = Resolver { certificates: Arc::clone(self), port };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

struct Resolver {
    certificates: Arc<Certificates>,
    port: u16,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("port", &self.port).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands names over in lower case.
        let host = hello.server_name();
        let by_port = self.certificates.by_port.load();
        match by_port.get(&self.port)?.get(host.unwrap_or_default()) {
            Shown::Kept(key) => Some(Arc::clone(key)),
            Shown::Own => self.certificates.authority.certificate_for(host.unwrap_or(NOBODY)),
            Shown::Nothing => None,
        }
    }
}

impl Authority {
    fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "landfall gateway");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            made: Mutex::default(),
        })
    }

    fn certificate_for(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        if let Some(known) = self.made().get(host) {
            return Some(Arc::clone(known));
        }
        match self.issue(host) {
            Ok(made) => {
                let mut kept = self.made();
                if kept.len() >= KEPT {
                    kept.clear();
                }
                kept.insert(host.to_owned(), Arc::clone(&made));
                Some(made)
            }
            Err(error) => {
                warn!(host, error, "no certificate could be made");
                None
            }
        }
    }

    fn issue(&self, host: &str) -> Result<Arc<CertifiedKey>, String> {
        let told = |error: rcgen::Error| error.to_string();
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(told)?;
        params.distinguished_name.push(DnType::CommonName, host);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(told)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(told)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map(Arc::new).map_err(|error| error.to_string())
    }

    fn made(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
