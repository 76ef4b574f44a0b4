//! cert-manager's `Certificate`: a Secret with a certificate and its key. An `Ingress` whose annotation names an issuer gets
//! the certificates of its hosts, as cert-manager's ingress-shim makes them.
//!
//! Whatever issuer is named, the certificate is signed by the authority of this machine. Not handled: renewal, as a run is
//! shorter than a certificate lives; usages and algorithms other than those of an ordinary server.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::json;

use super::{Context, OperatorError, Progress};

/// The annotations of an `Ingress` that name an issuer, with the kind of each
/// (<https://cert-manager.io/docs/usage/ingress/#supported-annotations>).
const ISSUERS: [(&str, &str); 2] =
    [("cert-manager.io/cluster-issuer", "ClusterIssuer"), ("cert-manager.io/issuer", "Issuer")];

/// Makes a `Certificate` for each Secret that the `Ingress` names; it is called as the Secret is.
pub(super) async fn of_ingress(context: Arc<Context>, ingress: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let issuer = ISSUERS.iter().find_map(|(key, kind)| Some((ingress.annotations().get(*key)?, *kind)));
    let Some((issuer, kind)) = issuer else { return Ok(Progress::Done) };
    for tls in ingress.data["spec"]["tls"].as_array().into_iter().flatten() {
        let certificate = json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": { "name": tls["secretName"] },
            "spec": {
                "secretName": tls["secretName"],
                "dnsNames": tls["hosts"],
                "issuerRef": { "group": "cert-manager.io", "kind": kind, "name": issuer },
            },
        });
        context.apply(&ingress, certificate).await?;
    }
    Ok(Progress::Done)
}

pub(super) async fn reconcile(
    context: Arc<Context>,
    certificate: Arc<DynamicObject>,
) -> Result<Progress, OperatorError> {
    let spec = &certificate.data["spec"];
    let namespace = certificate.namespace().unwrap_or_default();
    let Some(secret) = spec["secretName"].as_str() else { return Ok(Progress::Done) };
    if context.secret_value(&namespace, secret, "tls.crt").await?.is_none() {
        let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
        let mut names: Vec<String> = spec["dnsNames"].as_array().into_iter().flatten().filter_map(text).collect();
        names.extend(text(&spec["commonName"]).filter(|_| names.is_empty()));
        let identity = match spec["isCA"].as_bool() {
            Some(true) => context.authority.own().clone(),
            _ => context.authority.sign(&names)?,
        };
        let made = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": secret,
                "annotations": { "cert-manager.io/certificate-name": certificate.name_any() },
            },
            "type": "kubernetes.io/tls",
            "stringData": {
                "tls.crt": identity.certificate,
                "tls.key": identity.key,
                "ca.crt": context.authority.certificate(),
                "tls-combined.pem": format!("{}{}", identity.key, identity.certificate),
            },
        });
        context.ensure(&certificate, made).await?;
    }
    let ready = json!({ "type": "Ready", "status": "True", "reason": "Ready", "message": "signed on this machine" });
    context.set_status(&certificate, json!({ "conditions": [ready] })).await?;
    Ok(Progress::Done)
}
