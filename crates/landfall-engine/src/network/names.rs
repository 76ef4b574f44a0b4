//! What the names of a cluster mean: a pure function from the caches to the answers of its DNS.
//!
//! <https://github.com/kubernetes/dns/blob/master/docs/specification.md> (DNS-based service discovery, schema 1.1.0) says
//! which records there are. The server that speaks the protocol is elsewhere.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The zone of a cluster that was not given another.
pub(crate) const ZONE: &str = "cluster.local";

/// How many names may stand for each other. More are most likely a circle.
pub(super) const ALIASES: usize = 8;

/// Gives a Service a name outside of the cluster's zone, several by commas: the annotation by which external-dns publishes
/// them (<https://kubernetes-sigs.github.io/external-dns/latest/docs/annotations/annotations/>).
pub(crate) const HOSTNAME: &str = "external-dns.alpha.kubernetes.io/hostname";

/// The version of the schema, which `dns-version` answers.
const SCHEMA: &str = "1.1.0";

/// Where services and their endpoints are looked up.
pub(crate) trait Directory {
    fn service(&self, namespace: &str, name: &str) -> Option<impl AsRef<Service>>;
    fn endpoints(&self, namespace: &str, service: &str) -> Vec<impl AsRef<EndpointSlice>>;
    fn has_namespace(&self, name: &str) -> bool;
    /// The Service that has this name by its annotation [`HOSTNAME`].
    fn published(&self, host: &str) -> Option<impl AsRef<Service>>;
}

/// What is asked for. Everything else has no data in this zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// `A`.
    Address,
    /// `SRV`.
    Service,
    /// `TXT`.
    Text,
    /// Any other type.
    Other,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Addresses(Vec<Ipv4Addr>),
    /// A `CNAME` to a name outside of the cluster.
    Alias(String),
    Services(Vec<Target>),
    Text(&'static str),
    /// The name is there, but has no such record.
    NoData,
    /// There is no such name in the zone.
    NoSuchName,
    /// The name is not in the zone.
    Elsewhere,
}

/// One `SRV` record, and the address of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) port: u16,
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

/// Answers a question about `name`, with or without a dot at its end, in any case.
pub(crate) fn resolve(directory: &impl Directory, name: &str, question: Question) -> Answer {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let Some(labels) = name.strip_suffix(ZONE).map(|rest| rest.trim_end_matches('.')) else {
        return published(directory, &name, question);
    };
    if !labels.is_empty() && name.len() == labels.len() + ZONE.len() {
        // `foocluster.local` ends with the zone's text, not with its labels.
        return published(directory, &name, question);
    }
    let mut labels: Vec<&str> = labels.split('.').filter(|label| !label.is_empty()).collect();
    match labels.pop() {
        None => Answer::NoData,
        Some("dns-version") if labels.is_empty() => match question {
            Question::Text => Answer::Text(SCHEMA),
            _ => Answer::NoData,
        },
        Some("svc") => services(directory, &mut labels, question),
        Some("pod") => pods(directory, &labels, question),
        Some(_) => Answer::NoSuchName,
    }
}

/// A name that a Service has outside of the zone.
fn published(directory: &impl Directory, host: &str, question: Question) -> Answer {
    let Some(service) = directory.published(host) else { return Answer::Elsewhere };
    let address = service.as_ref().spec.as_ref().and_then(|spec| spec.cluster_ip.as_ref()?.parse::<Ipv4Addr>().ok());
    match (address, question) {
        (Some(address), Question::Address) => Answer::Addresses(vec![address]),
        _ => Answer::NoData,
    }
}

/// Whether a Service has this name, by its annotation.
pub(crate) fn is_published_as(service: &Service, host: &str) -> bool {
    published_as(service).any(|name| name.eq_ignore_ascii_case(host))
}

/// The names that a Service has by its annotation.
pub(crate) fn published_as(service: &Service) -> impl Iterator<Item = String> {
    let names = service.metadata.annotations.iter().filter_map(|annotations| annotations.get(HOSTNAME));
    let names = names.flat_map(|names| names.split(',')).map(|name| name.trim().trim_end_matches('.').to_lowercase());
    names.filter(|name| !name.is_empty())
}

/// `[hostname.|_port._protocol.]service.namespace.svc`.
fn services(directory: &impl Directory, labels: &mut Vec<&str>, question: Question) -> Answer {
    let Some(namespace) = labels.pop() else { return Answer::NoData };
    let Some(name) = labels.pop() else {
        return if directory.has_namespace(namespace) { Answer::NoData } else { Answer::NoSuchName };
    };
    let Some(service) = directory.service(namespace, name) else { return Answer::NoSuchName };
    let Some(spec) = &service.as_ref().spec else { return Answer::NoSuchName };

    if spec.type_.as_deref() == Some("ExternalName") {
        return match (labels.is_empty(), &spec.external_name) {
            (true, Some(target)) => Answer::Alias(target.trim_end_matches('.').to_owned()),
            _ => Answer::NoSuchName,
        };
    }
    let full = format!("{name}.{namespace}.svc.{ZONE}");
    let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let slices = directory.endpoints(namespace, name);
    let slices: Vec<&EndpointSlice> = slices.iter().map(AsRef::as_ref).collect();
    match (labels.as_slice(), cluster_ip) {
        ([], Some(address)) => match question {
            Question::Address => Answer::Addresses(vec![address]),
            _ => Answer::NoData,
        },
        ([], None) => addresses(&slices, None, question),
        ([hostname], None) if !hostname.starts_with('_') => addresses(&slices, Some(hostname), question),
        ([port, protocol], _) if port.starts_with('_') && protocol.starts_with('_') => {
            let (port, protocol) = (&port[1..], &protocol[1..]);
            let targets: Vec<Target> = match cluster_ip {
                Some(address) => spec
                    .ports
                    .iter()
                    .flatten()
                    .filter(|known| known.name.as_deref() == Some(port))
                    .filter(|known| known.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol))
                    .filter_map(|known| u16::try_from(known.port).ok())
                    .map(|port| Target { port, name: full.clone(), address })
                    .collect(),
                None => targets(&slices, port, protocol, &full),
            };
            match (targets.is_empty(), question) {
                (true, _) => Answer::NoSuchName,
                (false, Question::Service) => Answer::Services(targets),
                (false, _) => Answer::NoData,
            }
        }
        _ => Answer::NoSuchName,
    }
}

/// The addresses behind a headless service, or of the one endpoint with this host name.
fn addresses(slices: &[&EndpointSlice], hostname: Option<&str>, question: Question) -> Answer {
    let found: BTreeSet<Ipv4Addr> = ready(slices)
        .filter(|(_, endpoint)| {
            hostname.is_none_or(|wanted| {
                endpoint.hostname.as_deref() == Some(wanted)
                    || address(endpoint).is_some_and(|address| label(address) == wanted)
            })
        })
        .filter_map(|(_, endpoint)| address(endpoint))
        .collect();
    match (found.is_empty(), question) {
        // A headless service without endpoints is there; an endpoint that is gone is not.
        (true, _) if hostname.is_some() => Answer::NoSuchName,
        (false, Question::Address) => Answer::Addresses(found.into_iter().collect()),
        _ => Answer::NoData,
    }
}

fn targets(slices: &[&EndpointSlice], port: &str, protocol: &str, service: &str) -> Vec<Target> {
    let mut found = Vec::new();
    for (slice, endpoint) in ready(slices) {
        let Some(address) = address(endpoint) else { continue };
        let named = slice.ports.iter().flatten().filter(|known| {
            known.name.as_deref() == Some(port)
                && known.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol)
        });
        for number in named.filter_map(|known| u16::try_from(known.port?).ok()) {
            let host = endpoint.hostname.clone().unwrap_or_else(|| label(address));
            found.push(Target { port: number, name: format!("{host}.{service}"), address });
        }
    }
    found.sort_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
    found
}

/// `a-b-c-d.namespace.pod`: the address is in the name. As the specification allows, it is not looked up.
fn pods(directory: &impl Directory, labels: &[&str], question: Question) -> Answer {
    let &[address, namespace] = labels else { return Answer::NoSuchName };
    match address.replace('-', ".").parse() {
        Ok(address) if directory.has_namespace(namespace) => match question {
            Question::Address => Answer::Addresses(vec![address]),
            _ => Answer::NoData,
        },
        _ => Answer::NoSuchName,
    }
}

/// Endpoints that take traffic; one whose readiness is not told counts as ready.
fn ready<'s>(slices: &'s [&'s EndpointSlice]) -> impl Iterator<Item = (&'s EndpointSlice, &'s Endpoint)> {
    slices.iter().filter(|slice| slice.address_type == "IPv4").flat_map(|slice| {
        let ready =
            slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
            });
        ready.map(|endpoint| (*slice, endpoint))
    })
}

fn address(endpoint: &Endpoint) -> Option<Ipv4Addr> {
    endpoint.addresses.first()?.parse().ok()
}

/// The name of an endpoint that has no host name of its own.
fn label(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    pub(crate) struct Cluster {
        pub(crate) services: Vec<Arc<Service>>,
        pub(crate) slices: Vec<Arc<EndpointSlice>>,
    }

    impl Directory for Cluster {
        fn service(&self, namespace: &str, name: &str) -> Option<impl AsRef<Service>> {
            let named = |service: &&Arc<Service>| service.metadata.name.as_deref() == Some(name);
            (namespace == "shop").then(|| self.services.iter().find(named).cloned())?
        }

        fn endpoints(&self, _: &str, service: &str) -> Vec<impl AsRef<EndpointSlice>> {
            let of = |slice: &&Arc<EndpointSlice>| slice.metadata.name.as_deref() == Some(service);
            self.slices.iter().filter(of).cloned().collect()
        }

        fn has_namespace(&self, name: &str) -> bool {
            name == "shop"
        }

        fn published(&self, host: &str) -> Option<impl AsRef<Service>> {
            self.services.iter().find(|service| is_published_as(service, host)).cloned()
        }
    }

    pub(crate) fn cluster() -> Cluster {
        let service = |name: &str, spec| {
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
                    .expect("a service"),
            )
        };
        let named = json!({
            "metadata": {"name": "carrier", "namespace": "shop", "annotations": {HOSTNAME: "api.carrier.example, carrier.example."}},
            "spec": {"clusterIP": "10.96.0.9"},
        });
        let slice = json!({
            "metadata": {"name": "store", "namespace": "shop", "labels": {"kubernetes.io/service-name": "store"}},
            "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.0.7"], "hostname": "store-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.8"], "conditions": {}},
                {"addresses": ["10.244.0.9"], "hostname": "store-2", "conditions": {"ready": false}},
            ],
        });
        Cluster {
            services: vec![
                service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]})),
                service("store", json!({"clusterIP": "None"})),
                service("empty", json!({"clusterIP": "None"})),
                service("bank", json!({"type": "ExternalName", "externalName": "api.bank.example.com."})),
                Arc::new(serde_json::from_value(named).expect("a service")),
            ],
            slices: vec![Arc::new(serde_json::from_value(slice).expect("a slice"))],
        }
    }

    fn check(name: &str, question: Question, expected: Answer) {
        assert_eq!(resolve(&cluster(), name, question), expected, "{name} {question:?}");
    }

    #[test]
    fn a_service_has_the_address_of_the_cluster() {
        let address = Answer::Addresses(vec![Ipv4Addr::new(10, 96, 0, 5)]);
        check("web.shop.svc.cluster.local", Question::Address, address.clone());
        check("WEB.Shop.svc.Cluster.Local.", Question::Address, address);
        check("web.shop.svc.cluster.local", Question::Text, Answer::NoData);
        check("absent.shop.svc.cluster.local", Question::Address, Answer::NoSuchName);
        check("web-0.web.shop.svc.cluster.local", Question::Address, Answer::NoSuchName);
    }

    #[test]
    fn a_headless_service_has_the_addresses_of_its_ready_pods() {
        let both = vec![Ipv4Addr::new(10, 244, 0, 7), Ipv4Addr::new(10, 244, 0, 8)];
        check("store.shop.svc.cluster.local", Question::Address, Answer::Addresses(both.clone()));
        check("store-0.store.shop.svc.cluster.local", Question::Address, Answer::Addresses(both[..1].to_vec()));
        check("10-244-0-8.store.shop.svc.cluster.local", Question::Address, Answer::Addresses(both[1..].to_vec()));
        check("store-2.store.shop.svc.cluster.local", Question::Address, Answer::NoSuchName);
        check("empty.shop.svc.cluster.local", Question::Address, Answer::NoData);
    }

    #[test]
    fn named_ports_are_services() {
        let target = Target { port: 80, name: "web.shop.svc.cluster.local".to_owned(), address: [10, 96, 0, 5].into() };
        check("_http._tcp.web.shop.svc.cluster.local", Question::Service, Answer::Services(vec![target]));
        check("_http._udp.web.shop.svc.cluster.local", Question::Service, Answer::NoSuchName);
        let pods = ["10-244-0-8", "store-0"].into_iter().zip([8, 7]).map(|(host, last)| Target {
            port: 5432,
            name: format!("{host}.store.shop.svc.cluster.local"),
            address: [10, 244, 0, last].into(),
        });
        check("_sql._tcp.store.shop.svc.cluster.local", Question::Service, Answer::Services(pods.collect()));
    }

    #[test]
    fn an_external_name_is_an_alias() {
        let alias = Answer::Alias("api.bank.example.com".to_owned());
        check("bank.shop.svc.cluster.local", Question::Address, alias);
    }

    #[test]
    fn a_service_has_the_names_that_it_is_published_by() {
        let address = Answer::Addresses(vec![Ipv4Addr::new(10, 96, 0, 9)]);
        check("API.carrier.example.", Question::Address, address.clone());
        check("carrier.example", Question::Address, address);
        check("carrier.example", Question::Text, Answer::NoData);
        check("other.carrier.example", Question::Address, Answer::Elsewhere);
    }

    #[test]
    fn a_pod_has_its_address_in_its_name() {
        let address = Answer::Addresses(vec![Ipv4Addr::new(10, 244, 0, 7)]);
        check("10-244-0-7.shop.pod.cluster.local", Question::Address, address);
        check("10-244-0-7.nowhere.pod.cluster.local", Question::Address, Answer::NoSuchName);
        check("seven.shop.pod.cluster.local", Question::Address, Answer::NoSuchName);
    }

    #[test]
    fn what_is_between_names_is_there_and_what_is_outside_is_elsewhere() {
        check("shop.svc.cluster.local", Question::Address, Answer::NoData);
        check("nowhere.svc.cluster.local", Question::Address, Answer::NoSuchName);
        check("dns-version.cluster.local", Question::Text, Answer::Text("1.1.0"));
        check("example.com", Question::Address, Answer::Elsewhere);
        check("foocluster.local", Question::Address, Answer::Elsewhere);
    }
}
