//! Resolves the names of a document: from what was written to what is meant.

mod names;
mod values;

use crate::architecture::{Architecture, Connection, Element, Transport, Verb};
use crate::diagnostic::{Finding, unknown_name};
use crate::document::{Document, Edge, Engine, PortProtocol};
use crate::span::{Span, Spanned};
use crate::units::{Name, Target};

/// Resolves `document` as `environment`.
///
/// # Errors
/// Every name that is not declared and every value that contradicts its neighbour.
pub(crate) fn lower(mut document: Document, environment: Option<&str>) -> Result<Architecture, Vec<Finding>> {
    let mut findings = Vec::new();
    if let Some(name) = environment
        && !document.environments.contains_key(name)
    {
        let wanted = Spanned::unwritten(name.to_owned());
        findings.push(unknown_name("environment", &wanted, document.environments.keys().map(|name| name.as_str())));
        return Err(findings);
    }
    names::check(&document, &mut findings);
    values::check(&document, &mut findings);
    let everywhere = Everywhere::of(&document);
    if let Some(name) = environment {
        let here = |only: &[Spanned<Name>]| only.is_empty() || only.iter().any(|allowed| allowed.as_str() == name);
        document.services.retain(|_, service| here(&service.environments));
        document.stores.retain(|_, store| here(&store.environments));
    }
    let environment = environment.map(|name| name.parse().expect("a declared name is a name"));
    let mut architecture = Architecture { document, environment, connections: Vec::new() };
    architecture.connections = connections(&architecture, &everywhere, &mut findings);
    findings.sort_by_key(|finding| finding.primary.span);
    if findings.is_empty() { Ok(architecture) } else { Err(together(findings)) }
}

/// How many further places of one mistake are shown; the rest is counted.
const PLACES: usize = 3;

/// Makes one finding of all that miss the same service, store or external: it is one name that is wrong, however
/// many places use it.
fn together(findings: Vec<Finding>) -> Vec<Finding> {
    let missing = |finding: &Finding| {
        let (what, name) = finding.message.strip_prefix("there is no ")?.split_once(" `")?;
        let is_element =
            matches!(what, "service" | "store" | "external" | "service or store" | "service, store or external");
        (finding.rule == "unknown-name" && is_element).then(|| name.to_owned())
    };
    let mut kept: Vec<(Finding, Vec<Span>)> = Vec::new();
    for finding in findings {
        let name = missing(&finding);
        match kept.iter_mut().find(|(first, _)| name.is_some() && missing(first) == name) {
            Some((_, others)) => others.push(finding.primary.span),
            None => kept.push((finding, Vec::new())),
        }
    }
    let told = |(mut finding, others): (Finding, Vec<Span>)| {
        for span in others.iter().take(PLACES) {
            finding = finding.also(*span, "here too");
        }
        match others.len().saturating_sub(PLACES) {
            0 => finding,
            more => finding.because(format!("{more} more places name it")),
        }
    };
    kept.into_iter().map(told).collect()
}

/// Every name that is declared in any environment: an edge to something that this environment does not have is
/// dropped, an edge to something that no environment has is an error.
struct Everywhere(Vec<String>);

impl Everywhere {
    fn of(document: &Document) -> Self {
        let names = document.services.keys().chain(document.stores.keys()).chain(document.externals.keys());
        Self(names.map(ToString::to_string).collect())
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(String::as_str)
    }
}

fn connections(architecture: &Architecture, everywhere: &Everywhere, findings: &mut Vec<Finding>) -> Vec<Connection> {
    let services = architecture.document.services.iter();
    let externals = architecture.document.externals.iter();
    let sources = services
        .map(|(name, service)| (Element::Service(name.value.clone()), &service.uses))
        .chain(externals.map(|(name, external)| (Element::External(name.value.clone()), &external.uses)));
    let mut connections = Vec::new();
    for (from, uses) in sources {
        for edge in uses {
            match resolve(architecture, everywhere, &from, edge) {
                Ok(Some(connection)) => connections.push(connection),
                Ok(None) => {}
                Err(finding) => findings.push(finding.on(from.to_string())),
            }
        }
    }
    connections
}

fn resolve(
    architecture: &Architecture,
    everywhere: &Everywhere,
    from: &Element,
    edge: &Edge,
) -> Result<Option<Connection>, Finding> {
    let mut verbs = edge.verbs();
    let Some((verb, target)) = verbs.next() else {
        return Err(Finding::error(
            "edge-verb",
            architecture.span_of(from),
            format!("an edge of `{from}` has no verb"),
        )
        .help("write what it does and to what, such as `- read: ledger`"));
    };
    if let Some((second, other)) = verbs.next() {
        return Err(Finding::error("edge-verb", other.span, format!("an edge has two verbs, `{verb}` and `{second}`"))
            .also(target.span, "the first one")
            .help("write one edge for each verb"));
    }
    let Some(to) = architecture.element(target.name.as_str()).filter(|to| *to != Element::Client) else {
        let name = Spanned::new(target.name.to_string(), target.span);
        if everywhere.names().any(|known| known == name.value) {
            return Ok(None);
        }
        return Err(unknown_name("service, store or external", &name, everywhere.names()));
    };
    fits(architecture, from, verb, target, &to)?;
    let (port, transport) = port(architecture, edge, target.span, &to)?;
    Ok(Some(Connection {
        from: from.clone(),
        to,
        verb,
        detail: target.detail.clone(),
        port,
        transport,
        edge: edge.clone(),
        span: target.span,
    }))
}

/// Whether the verb can be done to the target.
fn fits(
    architecture: &Architecture,
    from: &Element,
    verb: Verb,
    target: &Spanned<Target>,
    to: &Element,
) -> Result<(), Finding> {
    use Verb::{Cache, Call, Consume, Poll, Publish, Query, Read, Send, Store, Write};
    let allowed: &[Verb] = match to {
        Element::Service(_) => &[Call, Send, Query, Poll],
        Element::External(_) => &[Call, Send, Query, Poll, Publish, Consume],
        Element::Store(name) => match architecture.store(name.as_str()).map(|store| store.engine.value) {
            Some(Engine::Redis) => &[Read, Write, Cache, Publish, Consume],
            Some(Engine::Kafka | Engine::Rabbitmq | Engine::Mqtt) => &[Publish, Consume],
            Some(Engine::S3) => &[Read, Write, Store],
            _ => &[Read, Write, Store, Query],
        },
        Element::Client => &[],
    };
    if matches!(from, Element::External(_)) && !matches!(to, Element::Service(_)) {
        return Err(Finding::error("edge-verb", target.span, format!("`{from}` cannot reach `{to}` from outside"))
            .help("an external can only call exposed services"));
    }
    if allowed.contains(&verb) {
        return Ok(());
    }
    let words: Vec<&str> = allowed.iter().map(|verb| verb.as_str()).collect();
    Err(Finding::error("edge-verb", target.span, format!("one cannot `{verb}` `{to}`"))
        .also(architecture.span_of(to), "declared here")
        .help(format!("use one of: {}", words.join(", "))))
}

fn port(architecture: &Architecture, edge: &Edge, at: Span, to: &Element) -> Result<(u16, Transport), Finding> {
    match to {
        Element::Service(name) => {
            let service = architecture.service(name.as_str()).expect("the element is a service");
            let wanted = edge.port.as_ref();
            match service.port_named(wanted.map(|port| &port.value)) {
                Some((_, port)) => {
                    let transport =
                        if port.protocol.value == PortProtocol::Udp { Transport::Udp } else { Transport::Tcp };
                    Ok((port.port.get(), transport))
                }
                None if service.all_ports().is_empty() => {
                    Err(Finding::error("no-port", at, format!("`{name}` serves no port, so nothing can call it"))
                        .also(architecture.span_of(to), "declared here")
                        .help(format!("give it one: `services.{name}.port: 8080`")))
                }
                None => {
                    let wanted = wanted.expect("only a named port can be missing");
                    let known: Vec<String> = service.all_ports().into_iter().map(|(name, _)| name).collect();
                    let name = Spanned::new(wanted.to_string(), wanted.span);
                    Err(unknown_name("port", &name, known.iter().map(String::as_str)))
                }
            }
        }
        Element::Store(name) => {
            let store = architecture.store(name.as_str()).expect("the element is a store");
            Ok((architecture.store_port(store), Transport::Tcp))
        }
        Element::External(name) => {
            let external = architecture.external(name.as_str()).expect("the element is an external");
            Ok((external.port.map_or(443, |port| port.get()), Transport::Tcp))
        }
        Element::Client => unreachable!("`resolve` filters the client out"),
    }
}
