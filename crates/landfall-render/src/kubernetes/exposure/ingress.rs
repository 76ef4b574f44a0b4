//! Routes as `Ingress` of networking.k8s.io/v1.

use crate::json::json;
use landfall_model::Architecture;

use super::{Exposed, RateLimiter, body_mebibytes, count_and_period, limiter, tls_secret};
use crate::object::Object;

pub(super) fn ingress(
    architecture: &Architecture,
    exposed: Exposed<'_>,
    port: u16,
    limit: Option<RateLimiter>,
) -> Object {
    let Exposed { subject, expose, .. } = exposed;
    let class = &architecture.document.platform.ingress.class.value;
    let mut annotations = exposed.annotations();
    let mut annotate = |key: &str, value: String| annotations.insert(key.to_owned(), json!(value));
    if let Some(issuer) = &expose.tls {
        annotate("cert-manager.io/cluster-issuer", issuer.value.clone());
        // Traefik serves a route on all its entry points, plain text included, unless it is told.
        if class == "traefik" {
            annotate("traefik.ingress.kubernetes.io/router.entrypoints", "websecure".to_owned());
        }
    }
    match limit {
        Some(RateLimiter::Traefik(_)) => {
            let name = format!("{}-{}@kubernetescrd", subject.namespace, limiter(subject.name));
            annotate("traefik.ingress.kubernetes.io/router.middlewares", name);
        }
        Some(RateLimiter::Nginx(rate)) => {
            // ingress-nginx counts by the second or by the minute.
            let (count, period) = count_and_period(rate);
            let (key, count) = match period {
                "1s" => ("limit-rps", count),
                "1m" => ("limit-rpm", count),
                "1h" => ("limit-rpm", count.div_ceil(60)),
                _ => ("limit-rpm", count.div_ceil(24 * 60)),
            };
            annotate(&format!("nginx.ingress.kubernetes.io/{key}"), count.to_string());
        }
        None => {}
    }
    if class == "nginx"
        && let Some(size) = body_mebibytes(architecture, subject.name)
    {
        annotate("nginx.ingress.kubernetes.io/proxy-body-size", format!("{size}m"));
    }
    let tls =
        expose.tls.as_ref().map(|_| json!([{ "hosts": [&expose.host.value], "secretName": tls_secret(subject.name) }]));
    let backend = json!({ "service": { "name": subject.name, "port": { "number": port } } });
    let value = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": subject.metadata_with(subject.name, annotations.into()),
        "spec": {
            "ingressClassName": class,
            "tls": tls,
            "rules": [{
                "host": &expose.host.value,
                "http": { "paths": [{ "path": &expose.path.value, "pathType": "Prefix", "backend": backend }] },
            }],
        },
    });
    subject.object("ingress", value)
}
