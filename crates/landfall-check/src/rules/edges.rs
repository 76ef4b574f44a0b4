//! Completeness of edges: what is declared but cannot work, because nobody stands at the other end.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{
    Architecture, Connection, Element, Engine, Finding, Name, ServiceKind, Severity, Span, Verb, suggestion,
};

use super::wording::{count, either, names, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const STORE_WITHOUT_EDGE: Rule = Rule {
    name: "store-without-edge",
    subject: Subject::Completeness,
    severity: Severity::Warning,
    summary: "Every store is used by a service, or keeps the backups of another.",
    explanation: "A store without an edge is paid for, patched and backed up for nobody; more often the diagram lost an arrow, \
        and then the rendered policies close the store to the service that needs it. The bucket of a backup counts as used.",
    passing: include_str!("../../tests/it/rules/store-without-edge/ok.yaml"),
    failing: include_str!("../../tests/it/rules/store-without-edge/bad.yaml"),
    run: Some(store_without_edge),
};

pub(super) const CONSUMER_WITHOUT_PUBLISHER: Rule = Rule {
    name: "consumer-without-publisher",
    subject: Subject::Completeness,
    severity: Severity::Warning,
    summary: "Somebody publishes to each topic that is consumed.",
    explanation: "A consumer of a topic to which nobody publishes waits for ever. Topics are compared by the detail of the edge, \
        as in `events/inventory.changed`; an edge to the broker without a detail stands for any topic of it.",
    passing: include_str!("../../tests/it/rules/consumer-without-publisher/ok.yaml"),
    failing: include_str!("../../tests/it/rules/consumer-without-publisher/bad.yaml"),
    run: Some(consumer_without_publisher),
};

pub(super) const PUBLISHER_WITHOUT_CONSUMER: Rule = Rule {
    name: "publisher-without-consumer",
    subject: Subject::Completeness,
    severity: Severity::Warning,
    summary: "Somebody consumes each topic that is published to.",
    explanation: "Messages to a topic that nobody consumes pile up until the retention deletes them: in Kafka they fill the disk, \
        in RabbitMQ an unconsumed queue stops its publishers when the memory alarm goes off \
        (https://www.rabbitmq.com/docs/memory). Topics are compared as in `consumer-without-publisher`.",
    passing: include_str!("../../tests/it/rules/publisher-without-consumer/ok.yaml"),
    failing: include_str!("../../tests/it/rules/publisher-without-consumer/bad.yaml"),
    run: Some(publisher_without_consumer),
};

pub(super) const CACHE_WITHOUT_WRITER: Rule = Rule {
    name: "cache-without-writer",
    subject: Subject::Completeness,
    severity: Severity::Warning,
    summary: "Whatever is read from a cache is written to it by somebody.",
    explanation: "A read from a cache that nobody fills misses every time, and the load goes to the store behind it. The rule \
        looks at stores of the engine Redis: a `read` needs a `write`, `cache` or `publish` of any service to the same store \
        and, where both edges name one, the same key, as in `cache/sessions`. A reader that does not write itself depends on \
        others to warm the cache, which is told as a note unless the keys are named.",
    passing: include_str!("../../tests/it/rules/cache-without-writer/ok.yaml"),
    failing: include_str!("../../tests/it/rules/cache-without-writer/bad.yaml"),
    run: Some(cache_without_writer),
};

pub(super) const READ_FROM_PRIMARY: Rule = Rule {
    name: "read-from-primary",
    subject: Subject::Completeness,
    severity: Severity::Note,
    summary: "Services that only read a replicated database may read from a replica.",
    explanation: "A replica that nobody reads is only insurance. A service that reads and never writes, such as reporting, can be \
        moved off the primary with `from-replica: true`, if it can live with data that is a few seconds old. The rule looks \
        at PostgreSQL and MongoDB with more than one member.",
    passing: include_str!("../../tests/it/rules/read-from-primary/ok.yaml"),
    failing: include_str!("../../tests/it/rules/read-from-primary/bad.yaml"),
    run: Some(read_from_primary),
};

pub(super) const FLOW_WITHOUT_EDGE: Rule = Rule {
    name: "flow-without-edge",
    subject: Subject::Completeness,
    severity: Severity::Error,
    summary: "Every step of a flow goes along a declared edge.",
    explanation: "Flows are the acceptance test, and policies open declared edges only: a step without an edge cannot happen. A \
        step follows the data. `client -> x` needs `x` to be exposed, and an answer back to the client or to a caller needs \
        no edge of its own. `x -> broker` is a `publish`, `broker -> x` a `consume` of `x`, `store -> x` a read. A store or \
        broker calls nobody: a step from one to an external needs a service between them, which consumes and calls.",
    passing: include_str!("../../tests/it/rules/flow-without-edge/ok.yaml"),
    failing: include_str!("../../tests/it/rules/flow-without-edge/bad.yaml"),
    run: Some(flow_without_edge),
};

pub(super) const UNREACHABLE_SERVICE: Rule = Rule {
    name: "unreachable-service",
    subject: Subject::Completeness,
    severity: Severity::Warning,
    summary: "Somebody can call each service that answers requests.",
    explanation: "A service that nobody calls and that is not exposed never gets a request. Workers and scheduled jobs find their \
        work themselves, and so does a service that consumes from a broker or polls; a mock calls others.",
    passing: include_str!("../../tests/it/rules/unreachable-service/ok.yaml"),
    failing: include_str!("../../tests/it/rules/unreachable-service/bad.yaml"),
    run: Some(unreachable_service),
};

fn prove(report: &mut Report, rule: &'static str, statement: &str, looked: String) {
    let against =
        report.findings.iter().filter(|finding| finding.rule == rule && finding.severity < Severity::Note).count();
    report.proofs.push(proof(rule, "edges", statement, verdict(against), Span::NONE, vec![looked]));
}

fn store_without_edge(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let stores = &architecture.document.stores;
    let mut used: BTreeSet<&str> = architecture.connections.iter().map(|connection| connection.to.name()).collect();
    used.extend(stores.values().filter_map(|store| store.backup.as_ref()?.to.as_ref()).map(|name| name.as_str()));
    for (name, store) in stores.iter().filter(|(name, _)| !used.contains(name.as_str())) {
        let message = format!("nothing uses the store `{name}`");
        let verb = match store.engine.value {
            engine if engine.is_broker() => "publish",
            Engine::S3 => "store",
            _ => "read",
        };
        let finding = Finding::warning(STORE_WITHOUT_EDGE.name, name.span, message).on(format!("store.{name}"));
        let finding = finding
            .because("no `uses` names it, and no backup goes to it: the rendered policies close it to everybody");
        report.findings.push(finding.help(format!(
            "add `- {verb}: {name}` under the `uses` of the service that needs it, or remove the store"
        )));
    }
    if !stores.is_empty() {
        prove(report, STORE_WITHOUT_EDGE.name, "every store is used", count(stores.len(), "store"));
    }
}

/// Who publishes to and who consumes from each topic of a store; `None` is any topic.
#[derive(Default)]
struct Topics<'a> {
    publishers: BTreeMap<Option<&'a str>, Vec<&'a Connection>>,
    consumers: BTreeMap<Option<&'a str>, Vec<&'a Connection>>,
}

fn topics(architecture: &Architecture) -> BTreeMap<&Element, Topics<'_>> {
    let mut topics: BTreeMap<&Element, Topics<'_>> = BTreeMap::new();
    for connection in architecture.connections.iter().filter(|connection| matches!(connection.to, Element::Store(_))) {
        let side = match connection.verb {
            Verb::Publish => &mut topics.entry(&connection.to).or_default().publishers,
            Verb::Consume => &mut topics.entry(&connection.to).or_default().consumers,
            _ => continue,
        };
        side.entry(connection.detail.as_deref()).or_default().push(connection);
    }
    topics
}

/// Those on one side of a topic without anybody on the other.
fn alone<'a>(
    side: &BTreeMap<Option<&'a str>, Vec<&'a Connection>>,
    other: &BTreeMap<Option<&'a str>, Vec<&'a Connection>>,
) -> Vec<(Option<&'a str>, Vec<&'a Connection>)> {
    let lonely = |topic: Option<&'a str>| match topic {
        None => other.is_empty(),
        Some(_) => !other.contains_key(&topic) && !other.contains_key(&None),
    };
    side.iter().filter(|(topic, _)| lonely(**topic)).map(|(topic, edges)| (*topic, edges.clone())).collect()
}

fn consumer_without_publisher(context: &Context<'_>, report: &mut Report) {
    let rule = CONSUMER_WITHOUT_PUBLISHER.name;
    let topics = topics(context.architecture);
    for (store, sides) in &topics {
        for (topic, consumers) in alone(&sides.consumers, &sides.publishers) {
            let what = topic.map_or_else(|| format!("`{store}`"), |topic| format!("the topic `{topic}` of `{store}`"));
            let message = format!(
                "nobody publishes to {what}, which is consumed by {}",
                names(consumers.iter().map(|edge| edge.from.name()))
            );
            let finding = Finding::warning(rule, consumers[0].span, message)
                .label("waits for ever")
                .on(consumers[0].from.to_string());
            let finding = elsewhere(finding, &sides.publishers, "what is published");
            if let Some(near) = misspelt(topic, &alone(&sides.publishers, &sides.consumers)) {
                let meant = format!("did you mean `{}/{near}`? Otherwise", store.name());
                let target = topic.unwrap_or_default();
                let other = format!("add `- publish: {}/{target}` to the service that produces it", store.name());
                report.findings.push(finding.help(format!("{meant} {other}")));
                continue;
            }
            let target = topic.map_or_else(|| store.name().to_owned(), |topic| format!("{}/{topic}", store.name()));
            report.findings.push(finding.help(format!(
                "add `- publish: {target}` to the service that produces it, or mend the name of the topic"
            )));
        }
    }
    if !topics.is_empty() {
        prove(report, rule, "somebody publishes to every topic that is consumed", count(topics.len(), "broker"));
    }
}

fn publisher_without_consumer(context: &Context<'_>, report: &mut Report) {
    let rule = PUBLISHER_WITHOUT_CONSUMER.name;
    let topics = topics(context.architecture);
    let mut lonely = 0;
    for (store, sides) in &topics {
        for (topic, publishers) in alone(&sides.publishers, &sides.consumers) {
            lonely += 1;
            // One misspelt name is told once, where it is consumed.
            if misspelt(topic, &alone(&sides.consumers, &sides.publishers)).is_some() {
                continue;
            }
            let what = topic.map_or_else(|| format!("`{store}`"), |topic| format!("the topic `{topic}` of `{store}`"));
            let message = format!(
                "nobody consumes {what}, which is published to by {}",
                names(publishers.iter().map(|edge| edge.from.name()))
            );
            let finding = Finding::warning(rule, publishers[0].span, message)
                .label("piles up")
                .on(publishers[0].from.to_string());
            let finding = elsewhere(finding, &sides.consumers, "what is consumed");
            let target = topic.map_or_else(|| store.name().to_owned(), |topic| format!("{}/{topic}", store.name()));
            report.findings.push(
                finding.help(format!("add `- consume: {target}` to the service that needs it, or stop publishing")),
            );
        }
    }
    if !topics.is_empty() {
        let looked = vec![count(topics.len(), "broker")];
        let statement = "somebody consumes every topic that is published to";
        report.proofs.push(proof(rule, "edges", statement, verdict(lonely), Span::NONE, looked));
    }
}

fn elsewhere(finding: Finding, others: &BTreeMap<Option<&str>, Vec<&Connection>>, what: &str) -> Finding {
    let known: Vec<&str> = others.keys().flatten().copied().collect();
    if known.is_empty() { finding } else { finding.because(format!("{what}: {}", names(known))) }
}

/// The lonely topic of the other side that this one was probably meant to be.
fn misspelt<'a>(topic: Option<&str>, others: &[(Option<&'a str>, Vec<&Connection>)]) -> Option<&'a str> {
    suggestion(topic?, others.iter().filter_map(|(other, _)| *other))
}

fn cache_without_writer(context: &Context<'_>, report: &mut Report) {
    let rule = CACHE_WITHOUT_WRITER.name;
    let architecture = context.architecture;
    let is_cache =
        |name: &Name| architecture.store(name.as_str()).is_some_and(|store| store.engine.value == Engine::Redis);
    let mut readers: BTreeMap<&Element, Vec<&Connection>> = BTreeMap::new();
    let mut writers: BTreeMap<&Element, Vec<&Connection>> = BTreeMap::new();
    for connection in &architecture.connections {
        if !matches!(&connection.to, Element::Store(name) if is_cache(name)) {
            continue;
        }
        match connection.verb {
            Verb::Read => readers.entry(&connection.to).or_default().push(connection),
            verb if verb.writes() => writers.entry(&connection.to).or_default().push(connection),
            _ => {}
        }
    }
    for (cache, reads) in &readers {
        let filled = writers.get(cache).map_or(&[][..], Vec::as_slice);
        for read in reads {
            report.findings.extend(unfilled(cache, read, filled).map(|finding| finding.on(read.from.to_string())));
        }
    }
    if !readers.is_empty() {
        prove(report, rule, "somebody fills every cache that is read", count(readers.len(), "cache"));
    }
}

/// What is wrong with a read from a cache, given who writes to that cache.
fn unfilled(cache: &Element, read: &Connection, filled: &[&Connection]) -> Option<Finding> {
    let rule = CACHE_WITHOUT_WRITER.name;
    let reader = read.from.name();
    let fills = |write: &Connection| read.detail.is_none() || write.detail.is_none() || write.detail == read.detail;
    let target = read.detail.as_ref().map_or_else(|| cache.name().to_owned(), |key| format!("{}/{key}", cache.name()));
    let help = format!("add `- cache: {target}` to `{reader}`, or to the service that warms it");
    if filled.is_empty() {
        let message = format!("`{reader}` reads from `{cache}`, which nobody fills");
        return Some(Finding::warning(rule, read.span, message).label("misses every time").help(help));
    }
    if !filled.iter().any(|write| fills(write)) {
        let key = read.detail.as_deref().unwrap_or_default();
        let keys: BTreeSet<&str> = filled.iter().filter_map(|write| write.detail.as_deref()).collect();
        let message = format!("`{reader}` reads `{key}` from `{cache}`, which nobody puts there");
        let finding = Finding::warning(rule, read.span, message).label("misses every time");
        let help = match suggestion(key, keys.iter().copied()) {
            Some(near) => format!("did you mean `{}/{near}`?", cache.name()),
            None => help,
        };
        return Some(finding.because(format!("what is put there: {}", names(keys))).help(help));
    }
    // A named key that somebody fills is an answer; without names nobody can tell.
    let told = read.detail.is_some() && filled.iter().any(|write| write.detail == read.detail);
    if told || filled.iter().any(|write| write.from == read.from && fills(write)) {
        return None;
    }
    let others: BTreeSet<&str> = filled.iter().map(|write| write.from.name()).collect();
    let put = if others.len() == 1 { "puts" } else { "put" };
    let message = format!("`{reader}` reads from `{cache}` what only {} {put} there", names(others));
    let help = "name the keys on both sides, such as `cache/sessions`, or let it cache what it missed";
    Some(Finding::note(rule, read.span, message).help(help))
}

fn read_from_primary(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let replicated = |name: &Name| {
        let store = architecture.store(name.as_str())?;
        let database = matches!(store.engine.value, Engine::Postgres | Engine::Mongodb);
        (database && store.members.value > 1).then_some(store)
    };
    let mut reads: BTreeMap<(&Element, &Element), Vec<&Connection>> = BTreeMap::new();
    let mut writes: BTreeSet<(&Element, &Element)> = BTreeSet::new();
    for connection in &architecture.connections {
        let pair = (&connection.from, &connection.to);
        match connection.verb {
            Verb::Read | Verb::Query => reads.entry(pair).or_default().push(connection),
            _ => {
                writes.insert(pair);
            }
        }
    }
    let (mut looked, mut told) = (0, 0);
    for ((from, to), edges) in reads {
        let Element::Store(name) = to else { continue };
        let Some(store) = replicated(name) else { continue };
        looked += 1;
        if writes.contains(&(from, to)) || edges.iter().any(|edge| edge.edge.from_replica.value) {
            continue;
        }
        let message = format!("`{}` only reads `{name}`, and reads the primary", from.name());
        let finding = Finding::note(READ_FROM_PRIMARY.name, edges[0].span, message)
            .also(store.members.span, "replicas")
            .on(from.to_string())
            .because(format!("`{name}` has {} members, and a replica lags by {} at most", store.members, store.lag));
        report.findings.push(
            finding.help(format!("add `from-replica: true` to this edge if data that is {} old will do", store.lag)),
        );
        told += 1;
    }
    if looked > 0 {
        let derivation = vec![format!(
            "{} of a replicated database, {told} that only read and read the primary",
            count(looked, "reader")
        )];
        let statement = "whoever only reads a replicated database reads a replica";
        report.proofs.push(proof(READ_FROM_PRIMARY.name, "edges", statement, verdict(told), Span::NONE, derivation));
    }
}

fn flow_without_edge(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let edges = Edges::new(architecture);
    let mut steps = 0;
    for (name, flow) in &architecture.document.flows {
        let mut walked: BTreeSet<(&str, &str)> = BTreeSet::new();
        for step in &flow.steps {
            let (Some(from), Some(to)) =
                (architecture.element(step.from.as_str()), architecture.element(step.to.as_str()))
            else {
                // The environment does not have it.
                continue;
            };
            steps += 1;
            // An answer goes back along the connection of its request.
            let answer = walked.contains(&(step.to.as_str(), step.from.as_str()));
            walked.insert((step.from.as_str(), step.to.as_str()));
            if answer || edges.carry(architecture, &from, &to) {
                continue;
            }
            let message =
                format!("the step `{from} -> {to}` of the flow `{name}` has no edge", from = step.from, to = step.to);
            let finding = Finding::error(FLOW_WITHOUT_EDGE.name, step.span, message)
                .label("nothing carries it")
                .on(format!("flow.{name}"));
            let (why, help) = missing_edge(architecture, &from, &to);
            report.findings.push(finding.because(why).help(help));
        }
    }
    if steps > 0 {
        let flows = architecture.document.flows.len();
        prove(
            report,
            FLOW_WITHOUT_EDGE.name,
            "every step of every flow goes along a declared edge",
            format!("{} of {}", count(steps, "step"), count(flows, "flow")),
        );
    }
}

struct Edges<'a> {
    between: BTreeMap<(&'a Element, &'a Element), Vec<Verb>>,
}

impl<'a> Edges<'a> {
    fn new(architecture: &'a Architecture) -> Self {
        let mut between: BTreeMap<(&Element, &Element), Vec<Verb>> = BTreeMap::new();
        for connection in &architecture.connections {
            between.entry((&connection.from, &connection.to)).or_default().push(connection.verb);
        }
        Self { between }
    }

    fn carry(&self, architecture: &Architecture, from: &Element, to: &Element) -> bool {
        let forward = self.between.get(&(from, to)).map_or(&[][..], Vec::as_slice);
        let backward = self.between.get(&(to, from)).map_or(&[][..], Vec::as_slice);
        match (from, to) {
            (Element::Client, Element::Service(name)) => {
                architecture.service(name.as_str()).is_some_and(|service| service.expose.is_some())
            }
            // What a client gets is pushed or fetched through something exposed.
            (Element::Service(name), Element::Client) => {
                architecture.service(name.as_str()).is_some_and(|service| service.expose.is_some())
            }
            (Element::External(_), Element::Client) | (Element::Client, Element::External(_)) => true,
            (Element::Client, _) | (_, Element::Client) => false,
            (_, Element::Store(_)) => forward.iter().any(|verb| *verb != Verb::Consume),
            (Element::Store(_), _) => {
                backward.iter().any(|verb| matches!(verb, Verb::Consume | Verb::Read | Verb::Query))
            }
            // Polling and querying bring data back.
            _ => {
                !forward.is_empty()
                    || backward.iter().any(|verb| matches!(verb, Verb::Poll | Verb::Query | Verb::Call | Verb::Consume))
            }
        }
    }
}

fn missing_edge(architecture: &Architecture, from: &Element, to: &Element) -> (String, String) {
    let (source, target) = (from.name(), to.name());
    match (from, to) {
        (Element::Client, Element::Service(_)) => (
            format!("`{target}` is not exposed"),
            format!("add `expose:` to `services.{target}`, or begin at the service that is exposed"),
        ),
        (Element::Service(_), Element::Client) => (
            format!("`{source}` is not exposed, so it answers no client"),
            "end the flow at the service that is exposed".to_owned(),
        ),
        (Element::Client, _) | (_, Element::Client) => {
            (format!("`{source}` and `{target}` do not meet"), "go through an exposed service".to_owned())
        }
        (Element::Store(name), Element::External(_) | Element::Store(_)) => {
            let broker = architecture.store(name.as_str()).is_some_and(|store| store.engine.value.is_broker());
            let verb = if broker { "consume" } else { "read" };
            (
                format!("a store opens no connection: `{source}` cannot call `{target}`"),
                format!("put a service between them, with `- {verb}: {source}` and an edge to `{target}`"),
            )
        }
        (Element::Store(name), Element::Service(_)) => {
            let broker = architecture.store(name.as_str()).is_some_and(|store| store.engine.value.is_broker());
            let verb = if broker { "consume" } else { "read" };
            (
                format!("`{target}` has no edge that takes data from `{source}`"),
                format!("add `- {verb}: {source}` under `services.{target}.uses`"),
            )
        }
        (_, Element::Store(name)) => {
            let broker = architecture.store(name.as_str()).is_some_and(|store| store.engine.value.is_broker());
            let verbs: &[&str] = if broker { &["publish"] } else { &["write", "store", "read"] };
            (
                format!("`{source}` has no edge to `{target}`"),
                format!("add one of {} with `{target}` under `services.{source}.uses`", either(verbs)),
            )
        }
        (Element::External(_), Element::Service(_)) => (
            format!("`{source}` has no edge to `{target}`"),
            format!("add `- call: {target}` under `externals.{source}.uses`, and expose `{target}`"),
        ),
        _ => (
            format!("`{source}` has no edge to `{target}`"),
            format!("add `- call: {target}` under `services.{source}.uses`"),
        ),
    }
}

fn unreachable_service(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let called: BTreeSet<&str> = architecture
        .connections
        .iter()
        .filter(|connection| connection.from != connection.to)
        .map(|connection| connection.to.name())
        .collect();
    let mut busy: BTreeSet<&str> = BTreeSet::new();
    for connection in &architecture.connections {
        if matches!(connection.verb, Verb::Consume | Verb::Poll) {
            busy.insert(connection.from.name());
        }
    }
    let services = &architecture.document.services;
    for (name, service) in services {
        let finds_work =
            matches!(service.kind.value, ServiceKind::Worker | ServiceKind::ScheduledJob | ServiceKind::Mock);
        let known = called.contains(name.as_str()) || busy.contains(name.as_str());
        // `exposure` tells of frontends and webhooks.
        let told = matches!(service.kind.value, ServiceKind::Frontend | ServiceKind::Webhook);
        if finds_work || known || told || service.expose.is_some() {
            continue;
        }
        let finding = Finding::warning(UNREACHABLE_SERVICE.name, name.span, format!("nothing can call `{name}`"))
            .on(format!("service.{name}"));
        let finding = finding
            .because("it is not exposed, no service or external has an edge to it, and it consumes from no broker");
        report
            .findings
            .push(finding.help(format!("add `- call: {name}` to its caller, or `expose:`, or `kind: worker`")));
    }
    if !services.is_empty() {
        prove(
            report,
            UNREACHABLE_SERVICE.name,
            "every service gets its work from somewhere",
            count(services.len(), "service"),
        );
    }
}
