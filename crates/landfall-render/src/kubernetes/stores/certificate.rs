//! The certificate of a store that has no operator to make one.
//!
//! It comes from an authority of the platform's own, which cert-manager keeps in the namespace: names inside a cluster
//! are not for a public authority to certify. Clients verify with `ca.crt` of the same Secret.

use crate::json::json;
use landfall_model::Engine;

use super::Site;
use crate::object::Object;

/// The issuer of a platform's own certificates, in each namespace that needs one.
pub(in crate::kubernetes) fn authority(platform: &str) -> String {
    format!("{platform}-authority")
}

/// The Secret with the certificate of a store.
pub(super) fn secret_of(store: &str) -> String {
    format!("{store}-tls")
}

impl Site<'_> {
    /// Whether its certificate comes from the platform's own authority; most operators have one of their own.
    pub(super) fn has_own_certificate(&self) -> bool {
        let engine = self.store.engine.value;
        let made_by_operator = !self.is_plain() && !matches!(engine, Engine::Rabbitmq | Engine::Redis);
        if self.store.provider.value.is_managed() || made_by_operator {
            return false;
        }
        // Members of Elasticsearch only talk to each other over TLS once users have passwords.
        self.access.tls || (engine == Engine::Elasticsearch && self.members() > 1)
    }

    /// The Secret with that certificate.
    pub(super) fn certificate_secret(&self) -> String {
        secret_of(self.name())
    }

    pub(super) fn certificate(&self) -> Object {
        let value = json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": self.subject.metadata(&self.certificate_secret()),
            "spec": {
                "secretName": self.certificate_secret(),
                "issuerRef": { "kind": "Issuer", "name": authority(self.platform()) },
                "dnsNames": self.certified_names(),
                "usages": ["server auth", "client auth"],
                "privateKey": { "algorithm": "ECDSA", "size": 256, "encoding": "PKCS8", "rotationPolicy": "Always" },
                // Key and certificate in one file, as Kafka and MongoDB read them.
                "additionalOutputFormats": [{ "type": "CombinedPEM" }],
            },
        });
        self.object("certificate", value)
    }

    /// Every Service of the store, and every member behind it.
    fn certified_names(&self) -> Vec<String> {
        let (name, namespace) = (self.name(), self.subject.namespace);
        let client = self.access.host.split('.').next().filter(|service| *service != name);
        let members = match self.store.engine.value {
            _ if self.is_plain() => vec![self.members_service()],
            Engine::Rabbitmq => vec![format!("{name}-nodes")],
            _ if self.store.shards.is_some() => {
                vec![format!("{name}-leader-headless"), format!("{name}-follower-headless")]
            }
            _ => vec![format!("{name}-headless")],
        };
        let services = std::iter::once(name.to_owned())
            .chain(client.map(str::to_owned))
            .chain(members.into_iter().map(|service| format!("*.{service}")));
        let suffixes =
            ["", &format!(".{namespace}"), &format!(".{namespace}.svc"), &format!(".{namespace}.svc.cluster.local")];
        services.flat_map(|service| suffixes.map(|suffix| format!("{service}{suffix}"))).collect()
    }
}
