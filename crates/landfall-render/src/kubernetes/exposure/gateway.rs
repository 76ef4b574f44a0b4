//! Routes of the Gateway API: one `Gateway` in each namespace that exposes something, and an `HTTPRoute` per service.
//!
//! The listeners have the ports of the internet, 80 and 443. Traefik matches listeners to its own entry points by their
//! ports, so its entry points must listen there too (`ports.web.port` and `ports.websecure.port` of its chart).

use std::collections::BTreeMap;

use crate::json::json;
use landfall_model::{Architecture, Finding, Span};
use serde_json::Value;

use super::super::metadata::Subject;
use super::{Exposed, RateLimiter, limiter, tls_secret};
use crate::object::{Object, unless_empty};

/// The class whose controller starts the pods of a gateway beside the `Gateway` object, wherever that is.
const BESIDE: &str = "istio";

/// How many hosts with TLS a `Gateway` takes: the Gateway API allows 64 listeners, and one is for plain HTTP.
const HOSTS: usize = 63;

/// The listener for plain HTTP.
const PLAIN: &str = "http";

/// The gateways of every namespace that exposes something.
pub(in crate::kubernetes) struct Gateways<'a> {
    platform: &'a str,
    namespaces: BTreeMap<&'a str, Namespace<'a>>,
}

/// What a namespace exposes.
struct Namespace<'a> {
    /// Where its first exposed service is declared.
    span: Span,
    /// Hosts with TLS, each with the first service that has a certificate for it.
    hosts: BTreeMap<&'a str, &'a str>,
}

impl<'a> Gateways<'a> {
    /// Looks at every exposed service once.
    pub(in crate::kubernetes) fn of(architecture: &'a Architecture) -> Self {
        let mut namespaces: BTreeMap<&str, Namespace<'_>> = BTreeMap::new();
        for (name, service, expose) in architecture.exposed() {
            let own = service.namespace.as_ref().map_or_else(|| architecture.namespace(), |own| &own.value);
            let entry = || Namespace { span: name.span, hosts: BTreeMap::new() };
            let namespace = namespaces.entry(own.as_str()).or_insert_with(entry);
            if expose.tls.is_some() {
                namespace.hosts.entry(expose.host.as_str()).or_insert(name.as_str());
            }
        }
        Self { platform: architecture.document.name.as_str(), namespaces }
    }

    /// The name of the gateway with that number, from 0.
    fn name(&self, number: usize) -> String {
        if number == 0 { self.platform.to_owned() } else { format!("{}-{}", self.platform, number + 1) }
    }

    /// The name of the gateway that has a host. Plain HTTP is served by the first one.
    fn with_host(&self, namespace: &str, host: &str) -> String {
        let hosts = self.namespaces.get(namespace).map(|namespace| &namespace.hosts);
        let before = hosts.filter(|hosts| hosts.contains_key(host)).map_or(0, |hosts| hosts.range(..host).count());
        self.name(before / HOSTS)
    }
}

/// The name of the listener of a host: `https-inventory-composerp-com`.
fn listener(host: &str) -> String {
    format!("https-{}", host.replace("*.", "any.").replace('.', "-").to_ascii_lowercase())
}

pub(super) fn objects(architecture: &Architecture, gateways: &Gateways<'_>) -> Vec<Object> {
    let mut objects = Vec::new();
    for (namespace, exposed) in &gateways.namespaces {
        let subject = Subject::platform(architecture, namespace, "gateway", "platform.ingress", exposed.span);
        let hosts: Vec<(&str, &str)> = exposed.hosts.iter().map(|(host, service)| (*host, *service)).collect();
        let groups: Vec<&[(&str, &str)]> = if hosts.is_empty() { vec![&[]] } else { hosts.chunks(HOSTS).collect() };
        for (number, group) in groups.into_iter().enumerate() {
            let file = if number == 0 { "gateway".to_owned() } else { format!("gateway-{}", number + 1) };
            objects.push(subject.object(&file, gateway(architecture, &subject, &gateways.name(number), group)));
        }
    }
    objects
}

/// Not handled: a controller that starts the pods of a gateway in the namespace of the platform. Policies let in the
/// declared namespace of the controller only.
pub(super) fn unsayable(architecture: &Architecture, findings: &mut Vec<Finding>) {
    let ingress = &architecture.document.platform.ingress;
    if ingress.class.value == BESIDE && architecture.exposed().next().is_some() {
        let namespace = &ingress.namespace;
        findings.push(
            Finding::note(
                "not-rendered",
                ingress.class.span,
                format!("the class `{BESIDE}` starts gateways outside `{namespace}`"),
            )
            .on("platform.ingress")
            .because("it starts the pods of a Gateway in the namespace of the Gateway, where policies close them")
            .also(namespace.span, "only pods of this namespace are let in")
            .help(format!(
                "run a gateway in `{namespace}`, and bind to it by a patch of `spec.addresses` of the Gateway"
            )),
        );
    }
}

fn gateway(architecture: &Architecture, subject: &Subject<'_>, name: &str, hosts: &[(&str, &str)]) -> Value {
    let same = json!({ "namespaces": { "from": "Same" } });
    let mut listeners = vec![json!({ "name": PLAIN, "port": 80, "protocol": "HTTP", "allowedRoutes": &same })];
    listeners.extend(hosts.iter().map(|(host, service)| {
        json!({
            "name": listener(host),
            "hostname": host,
            "port": 443,
            "protocol": "HTTPS",
            "tls": { "mode": "Terminate", "certificateRefs": [{ "kind": "Secret", "name": tls_secret(service) }] },
            "allowedRoutes": &same,
        })
    }));
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": subject.metadata(name),
        "spec": { "gatewayClassName": &architecture.document.platform.ingress.class.value, "listeners": listeners },
    })
}

/// The route of a service, and with TLS one that sends plain HTTP there.
pub(super) fn routes(
    gateways: &Gateways<'_>,
    exposed: Exposed<'_>,
    port: u16,
    limit: Option<RateLimiter>,
) -> Vec<Object> {
    let Exposed { subject, expose, .. } = exposed;
    let host = expose.host.as_str();
    let gateway = gateways.with_host(subject.namespace, host);
    let parent = |section: &str| json!([{ "name": &gateway, "sectionName": section }]);
    let matches = json!([{ "path": { "type": "PathPrefix", "value": &expose.path.value } }]);

    let limit = matches!(limit, Some(RateLimiter::Traefik(_))).then(|| {
        let reference = json!({ "group": "traefik.io", "kind": "Middleware", "name": limiter(subject.name) });
        json!({ "type": "ExtensionRef", "extensionRef": reference })
    });
    let section = if expose.tls.is_some() { listener(host) } else { PLAIN.to_owned() };
    let route = |name: &str, annotations: Value, section: &str, rule: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": subject.metadata_with(name, annotations),
            "spec": { "parentRefs": parent(section), "hostnames": [&host], "rules": [rule] },
        })
    };
    let rule = json!({
        "matches": &matches,
        "filters": unless_empty(limit.into_iter().collect()),
        "backendRefs": [{ "name": subject.name, "port": port }],
    });
    let mut objects =
        vec![subject.object("httproute", route(subject.name, exposed.annotations().into(), &section, rule))];
    if expose.tls.is_some() {
        let redirect =
            json!({ "type": "RequestRedirect", "requestRedirect": { "scheme": "https", "statusCode": 301 } });
        let rule = json!({ "matches": matches, "filters": [redirect] });
        let name = format!("{}-redirect", subject.name);
        objects.push(subject.object("httproute-redirect", route(&name, Value::Null, PLAIN, rule)));
    }
    objects
}
