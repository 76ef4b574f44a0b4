//! Certificates: of exposed hosts from a public authority, and of stores from the platform's own.
//!
//! An issuer whose name begins with `letsencrypt` is rendered; one of any other name is somebody's own and is only
//! referred to. Where routes are `Ingress` objects, cert-manager makes the certificates from their annotations; a
//! `Gateway` needs each as an object.

use std::collections::{BTreeMap, BTreeSet};

use crate::json::json;
use landfall_model::{Architecture, Expose, IngressApi, Span};
use serde_json::Value;

use super::metadata::Subject;
use super::stores;
use crate::object::Object;

/// The public authority, and the one that is asked while one tries: its certificates are trusted by nobody, and its
/// limits are wide. <https://letsencrypt.org/docs/staging-environment/>.
const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// The listener of the platform's `Gateway` for plain HTTP, on which the authority asks.
const PLAIN_LISTENER: &str = "http";

/// How cert-manager labels the pods that answer the authority, and where they listen.
const SOLVER_LABEL: &str = "acme.cert-manager.io/http01-solver";
const SOLVER_PORT: u16 = 8089;

pub(super) fn objects(architecture: &Architecture) -> Vec<Object> {
    let mut objects = issuers(architecture);
    if architecture.document.platform.ingress.api.value == IngressApi::Gateway {
        objects.extend(of_hosts(architecture));
    }
    objects.extend(solver_policies(architecture));
    for namespace in stores::namespaces_with_certificates(architecture) {
        objects.extend(own_authority(architecture, namespace.as_str()));
    }
    objects
}

/// The exposed services with TLS from an issuer that is rendered, with their namespaces.
fn rendered(architecture: &Architecture) -> impl Iterator<Item = (&str, &str, &Expose)> {
    architecture.exposed().filter_map(|(_, service, expose)| {
        let issuer = expose.tls.as_ref().filter(|issuer| issuer.starts_with("letsencrypt"))?;
        let namespace = service.namespace.as_ref().map_or_else(|| architecture.namespace(), |own| &own.value);
        Some((issuer.as_str(), namespace.as_str(), expose))
    })
}

fn issuers(architecture: &Architecture) -> Vec<Object> {
    let mut issuers: BTreeMap<&str, (Span, BTreeMap<&str, BTreeSet<&str>>)> = BTreeMap::new();
    for (issuer, namespace, expose) in rendered(architecture) {
        let span = expose.tls.as_ref().map_or(Span::NONE, |issuer| issuer.span);
        let (_, hosts) = issuers.entry(issuer).or_insert((span, BTreeMap::new()));
        hosts.entry(namespace).or_default().insert(expose.host.as_str());
    }
    issuers.into_iter().map(|(name, (span, hosts))| issuer(architecture, name, span, &hosts)).collect()
}

fn issuer(architecture: &Architecture, name: &str, span: Span, hosts: &BTreeMap<&str, BTreeSet<&str>>) -> Object {
    let ingress = &architecture.document.platform.ingress;
    let solvers: Vec<Value> = match ingress.api.value {
        IngressApi::Ingress => vec![json!({ "http01": { "ingress": { "ingressClassName": &ingress.class.value } } })],
        // The authority is answered through the gateway of the namespace that asks.
        IngressApi::Gateway => hosts
            .iter()
            .map(|(namespace, hosts)| {
                let parent = json!({
                    "kind": "Gateway",
                    "namespace": namespace,
                    "name": architecture.document.name.as_str(),
                    "sectionName": PLAIN_LISTENER,
                });
                json!({
                    "selector": { "dnsNames": hosts },
                    "http01": { "gatewayHTTPRoute": { "parentRefs": [parent] } },
                })
            })
            .collect(),
    };
    let value = json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "ClusterIssuer",
        "metadata": { "name": name, "labels": Subject::platform(architecture, "", "certificates", "", span).labels() },
        "spec": {
            "acme": {
                "server": if name.contains("staging") { STAGING } else { PRODUCTION },
                "privateKeySecretRef": { "name": format!("{name}-account") },
                "solvers": solvers,
            },
        },
    });
    Subject::platform(architecture, "", "certificates", "expose.tls", span)
        .object(&format!("clusterissuer-{name}"), value)
}

/// One certificate for each host, under the name of the first service that has it: public authorities count what they
/// issue.
fn of_hosts(architecture: &Architecture) -> Vec<Object> {
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    for (name, service, expose) in architecture.exposed() {
        let subject = Subject::service(architecture, name, service);
        let Some(issuer) = &expose.tls else { continue };
        if !seen.insert((subject.namespace, expose.host.as_str())) {
            continue;
        }
        let secret = format!("{name}-tls");
        let value = json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": subject.metadata(&secret),
            "spec": {
                "secretName": secret,
                "issuerRef": { "kind": "ClusterIssuer", "name": &issuer.value },
                "dnsNames": [&expose.host.value],
                "privateKey": { "rotationPolicy": "Always" },
            },
        });
        objects.push(subject.object("certificate", value));
    }
    objects
}

/// The ingress controller may reach the pods that answer the authority; without this the default of the namespace
/// closes them, and no certificate is ever issued.
fn solver_policies(architecture: &Architecture) -> Vec<Object> {
    let namespaces: BTreeMap<&str, Span> = rendered(architecture)
        .map(|(_, namespace, expose)| (namespace, expose.tls.as_ref().map_or(Span::NONE, |issuer| issuer.span)))
        .collect();
    let controller = architecture.document.platform.ingress.namespace.as_str();
    let policy = |(namespace, span): (&str, Span)| {
        let subject = Subject::platform(architecture, namespace, "certificates", "expose.tls", span);
        let value = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": subject.metadata("certificate-solver"),
            "spec": {
                "podSelector": { "matchLabels": { SOLVER_LABEL: "true" } },
                "policyTypes": ["Ingress"],
                "ingress": [{
                    "from": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": controller } } }],
                    "ports": [{ "protocol": "TCP", "port": SOLVER_PORT }],
                }],
            },
        });
        subject.object("networkpolicy-certificate-solver", value)
    };
    namespaces.into_iter().map(policy).collect()
}

/// An authority that signs itself, and an issuer that signs with it.
fn own_authority(architecture: &Architecture, namespace: &str) -> [Object; 3] {
    let platform = architecture.document.name.as_str();
    let (root, authority) = (format!("{platform}-root"), stores::authority(platform));
    let subject = Subject::platform(architecture, namespace, "certificates", "security.encryption", Span::NONE);
    let issuer = |name: &str, spec: Value| json!({ "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": subject.metadata(name), "spec": spec });
    let certificate = json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": subject.metadata(&authority),
        "spec": {
            "isCA": true,
            "commonName": &authority,
            "secretName": &authority,
            // Ten years: whoever trusts the authority has to be told when it changes.
            "duration": "87600h",
            "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never" },
            "issuerRef": { "kind": "Issuer", "name": &root },
        },
    });
    [
        subject.object("issuer-root", issuer(&root, json!({ "selfSigned": {} }))),
        subject.object("certificate-authority", certificate),
        subject.object("issuer-authority", issuer(&authority, json!({ "ca": { "secretName": &authority } }))),
    ]
}
