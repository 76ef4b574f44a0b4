//! The route table: built as a whole from the objects, read by every request, never changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use http::request;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::backend::{Protocol, Target};
use super::host::{HostIndex, Pattern};
use super::registry::Registry;
use super::report::Report;
use super::resources::{Certificate, Gateway, GatewayClass, HTTPRoute, Middleware, ReferenceGrant};
use super::rule::{Action, Rule};
use super::{gateway_api, ingress};
use crate::cache::ObjectKey;
use crate::network::endpoints;

/// Every object that says something about routes.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) ingresses: Vec<Arc<Ingress>>,
    pub(crate) ingress_classes: Vec<Arc<IngressClass>>,
    pub(crate) gateway_classes: Vec<Arc<GatewayClass>>,
    pub(crate) gateways: Vec<Arc<Gateway>>,
    pub(crate) routes: Vec<Arc<HTTPRoute>>,
    pub(crate) grants: Vec<Arc<ReferenceGrant>>,
    pub(crate) middlewares: Vec<Arc<Middleware>>,
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) namespaces: Vec<Arc<Namespace>>,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    pub(crate) secrets: Vec<Arc<Secret>>,
}

/// What the builders ask: the objects by their names.
pub(super) struct View<'w> {
    pub(super) world: &'w World,
    pub(super) registry: &'w Registry,
    services: BTreeMap<ObjectKey, &'w Service>,
    secrets: BTreeMap<ObjectKey, &'w Secret>,
    slices: endpoints::ByService<'w>,
    /// Secrets that cert-manager would fill.
    promised: BTreeSet<ObjectKey>,
}

/// How a port of a service is named.
pub(super) enum PortRef<'a> {
    Number(i32),
    Name(&'a str),
}

/// Which ports are open, and what happens on each.
#[derive(Debug)]
pub(crate) struct RouteTable {
    ports: BTreeMap<u16, Port>,
    /// By the name of the backend.
    endpoints: HashMap<Arc<str>, Vec<SocketAddr>>,
    /// Who is there at all, those that end included.
    known: BTreeSet<SocketAddr>,
    rules: usize,
}

#[derive(Debug)]
struct Port {
    scheme: Scheme,
    hosts: HostIndex<Arc<[Arc<Rule>]>>,
    certificates: BTreeMap<Pattern, CertificateSource>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Where the certificate of a host is from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CertificateSource {
    Secret(ObjectKey),
    /// The engine makes one, because cert-manager would have, or because an ingress controller shows one of its own where
    /// there is none.
    Own,
}

/// The rules of one route behind one listener.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) port: u16,
    /// Routes of one gateway see its listeners only; all ingresses are one gateway.
    pub(super) gateway: Option<ObjectKey>,
    /// The host of the listener.
    pub(super) listener: Pattern,
    /// The hosts of the route that are hosts of the listener.
    pub(super) hosts: Vec<Pattern>,
    pub(super) rules: Vec<Arc<Rule>>,
}

/// A place where requests come in.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) port: u16,
    pub(super) scheme: Scheme,
    pub(super) gateway: Option<ObjectKey>,
    pub(super) host: Pattern,
    /// By host: one listener of all ingresses has many.
    pub(super) certificates: Vec<(Pattern, CertificateSource)>,
}

/// What the builders collect.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) listeners: Vec<Listener>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) report: Report,
}

impl RouteTable {
    /// A table in which nothing is.
    pub(crate) fn empty() -> Self {
        Self { ports: BTreeMap::new(), endpoints: HashMap::new(), known: BTreeSet::new(), rules: 0 }
    }

    /// The table, and what the objects' status should say.
    pub(crate) fn build(world: &World, registry: &Registry) -> (Self, Report) {
        let view = View::new(world, registry);
        let mut draft = Draft::default();
        ingress::build(&view, &mut draft);
        gateway_api::build(&view, &mut draft);

        let mut ports = BTreeMap::new();
        for listener in &draft.listeners {
            ports.entry(listener.port).or_insert(listener.scheme);
        }
        let ports = ports.into_iter().map(|(number, scheme)| (number, Port::build(number, scheme, &draft))).collect();
        let rules = draft.attachments.iter().map(|attachment| attachment.rules.len()).sum();
        let mut endpoints = HashMap::new();
        for rule in draft.attachments.iter().flat_map(|attachment| &attachment.rules) {
            let Action::Forward(backends) = &rule.work.action else { continue };
            for backend in backends.iter() {
                if let Target::Endpoints(known) = &backend.target {
                    endpoints.entry(Arc::clone(&backend.name)).or_insert_with(|| known.clone());
                }
            }
        }
        let known = self::endpoints::all(&world.slices).into_iter().map(SocketAddr::from).collect();
        (Self { ports, endpoints, known, rules }, draft.report)
    }

    pub(crate) fn ports(&self) -> impl Iterator<Item = (u16, Scheme)> {
        self.ports.iter().map(|(number, port)| (*number, port.scheme))
    }

    /// Where a backend is now.
    pub(crate) fn endpoints(&self, backend: &str) -> &[SocketAddr] {
        self.endpoints.get(backend).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn all_endpoints(&self) -> BTreeSet<SocketAddr> {
        self.endpoints.values().flatten().copied().collect()
    }

    /// Whether an endpoint is there still, be it only until it has ended.
    pub(crate) fn knows(&self, endpoint: &SocketAddr) -> bool {
        self.known.contains(endpoint)
    }

    pub(crate) fn rules(&self) -> usize {
        self.rules
    }

    /// Which hosts of a port have which certificate.
    pub(crate) fn certificates(&self, port: u16) -> impl Iterator<Item = (&Pattern, &CertificateSource)> {
        self.ports.get(&port).into_iter().flat_map(|port| &port.certificates)
    }

    /// The rule for a request that came in on a port (as declared, not as bound); `host` and `path` are normalized.
    pub(crate) fn route(&self, port: u16, host: &str, path: &str, request: &request::Parts) -> Option<&Arc<Rule>> {
        let rules = self.ports.get(&port)?.hosts.get(host);
        rules.iter().find(|rule| rule.condition.holds(path, request))
    }
}

impl Port {
    fn build(number: u16, scheme: Scheme, draft: &Draft) -> Self {
        let listeners: Vec<&Listener> =
            draft.listeners.iter().filter(|listener| listener.port == number && listener.scheme == scheme).collect();
        let attachments: Vec<&Attachment> =
            draft.attachments.iter().filter(|attachment| attachment.port == number).collect();
        let patterns: BTreeSet<&Pattern> = listeners
            .iter()
            .map(|listener| &listener.host)
            .chain(attachments.iter().flat_map(|attachment| &attachment.hosts))
            .collect();
        let hosts = HostIndex::build(patterns, |class| rules_for(class, &listeners, &attachments));
        let mut certificates: BTreeMap<Pattern, CertificateSource> = BTreeMap::new();
        for (host, source) in listeners.iter().flat_map(|listener| &listener.certificates) {
            // Of several for one host, that of a Secret.
            let kept = certificates.entry(host.clone()).or_insert_with(|| source.clone());
            *kept = kept.clone().min(source.clone());
        }
        Self { scheme, hosts, certificates }
    }
}

/// The rules for hosts that `class` covers and nothing narrower does, the first to try first.
fn rules_for(class: &Pattern, listeners: &[&Listener], attachments: &[&Attachment]) -> Arc<[Arc<Rule>]> {
    let mut found: Vec<(&Pattern, &Arc<Rule>)> = Vec::new();
    for attachment in attachments {
        // A gateway hands a request to its most specific listener, and to no other
        // (<https://gateway-api.sigs.k8s.io/reference/spec/#listener>, `hostname`).
        let chosen = listeners
            .iter()
            .filter(|listener| listener.gateway == attachment.gateway && listener.host.covers(class))
            .map(|listener| &listener.host)
            .max_by_key(|host| host.specificity());
        if chosen != Some(&attachment.listener) {
            continue;
        }
        let best = attachment.hosts.iter().filter(|host| host.covers(class)).max_by_key(|host| host.specificity());
        if let Some(host) = best {
            found.extend(attachment.rules.iter().map(|rule| (host, rule)));
        }
    }
    found.sort_by(|(a_host, a), (b_host, b)| {
        let by_host = b_host.specificity().cmp(&a_host.specificity());
        by_host.then_with(|| a.condition.rank().cmp(&b.condition.rank())).then_with(|| a.seniority.cmp(&b.seniority))
    });
    found.into_iter().map(|(_, rule)| Arc::clone(rule)).collect()
}

impl<'w> View<'w> {
    fn new(world: &'w World, registry: &'w Registry) -> Self {
        let promised = world.certificates.iter().filter_map(|certificate| {
            let namespace = certificate.metadata.namespace.as_deref()?;
            Some(ObjectKey::new(namespace, &certificate.spec.get()?.secret_name))
        });
        Self {
            world,
            registry,
            services: world.services.iter().map(|service| (ObjectKey::of(&**service), &**service)).collect(),
            secrets: world.secrets.iter().map(|secret| (ObjectKey::of(&**secret), &**secret)).collect(),
            slices: endpoints::by_service(&world.slices),
            promised: promised.collect(),
        }
    }

    pub(super) fn service(&self, key: &ObjectKey) -> Option<&'w Service> {
        self.services.get(key).copied()
    }

    pub(super) fn secret(&self, key: &ObjectKey) -> Option<&'w Secret> {
        self.secrets.get(key).copied()
    }

    pub(super) fn promised(&self, secret: &ObjectKey) -> bool {
        self.promised.contains(secret)
    }

    /// Where requests for a port of a service go; the number of the port as well.
    ///
    /// Not handled: services of type `ExternalName`, which have no endpoints.
    pub(super) fn target(&self, service: &ObjectKey, port: &PortRef<'_>) -> (Target, Protocol, Option<i32>) {
        let found = self.service(service).and_then(|service| {
            let ports = service.spec.as_ref()?.ports.as_deref()?;
            let port = ports.iter().find(|candidate| match port {
                PortRef::Number(number) => candidate.port == *number,
                PortRef::Name(name) => candidate.name.as_deref() == Some(*name),
            })?;
            Some((service, port))
        });
        let Some((service, port)) = found else { return (Target::Nowhere, Protocol::Http1, None) };
        let to = endpoints::for_port(endpoints::of(service, &self.slices), port);
        let protocol = match port.app_protocol.as_deref() {
            Some("kubernetes.io/h2c") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        (Target::Endpoints(to.into_iter().map(SocketAddr::from).collect()), protocol, Some(port.port))
    }
}
