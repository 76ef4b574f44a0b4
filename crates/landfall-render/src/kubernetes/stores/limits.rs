//! What a file declares for a store and the rendered objects do not do: said, so that nobody counts on it.

use landfall_model::{Architecture, Commit, Engine, Finding, Span};

use super::backup::makes_backups;
use super::{Site, sites};

/// The name of the rule in every finding here.
const RULE: &str = "not-rendered";

/// What is declared for stores and not rendered.
pub(in crate::kubernetes) fn findings(architecture: &Architecture) -> Vec<Finding> {
    let mut findings: Vec<Finding> = sites(architecture).flat_map(|site| site.limits()).collect();
    for replication in &architecture.document.recovery.replication {
        let store = &replication.store;
        // A provider copies a managed store by itself, which the infrastructure sets up.
        if architecture.store(store.as_str()).is_some_and(|store| !store.provider.value.is_managed()) {
            findings.push(
                Finding::warning(
                    RULE,
                    store.span,
                    format!("the copy of `{store}` in `{}` is not rendered", replication.to),
                )
                .on(format!("store.{store}"))
                .because(format!("`{}` is another cluster, and the objects here are those of one", replication.to))
                .help(format!(
                    "set up the copy in `{}` by hand: {}",
                    replication.to,
                    by_hand(architecture, store.as_str())
                )),
            );
        }
    }
    findings
}

/// What copies a store to another cluster.
fn by_hand(architecture: &Architecture, store: &str) -> &'static str {
    match architecture.store(store).map(|store| store.engine.value) {
        Some(Engine::Kafka) => "Strimzi's `KafkaMirrorMaker2` there copies topics",
        Some(Engine::Postgres) => "a CloudNativePG replica cluster there reads the backups and the log of this one",
        Some(Engine::Mongodb) => "members of the replica set can stand there",
        _ => "by what the engine has for it",
    }
}

impl Site<'_> {
    fn limits(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut say = |span: Span, message: String, help: &str| {
            let span = if span.is_written() { span } else { self.key.span };
            findings.push(Finding::warning(RULE, span, message).on(format!("store.{}", self.key)).help(help));
        };
        let (name, engine) = (self.name(), self.store.engine.value);
        let managed = self.store.provider.value.is_managed();
        if let Some(backup) = self.store.backup.as_ref().filter(|_| !managed) {
            if !makes_backups(self.store) {
                say(
                    backup.full.span,
                    format!("backups of `{name}` are not rendered"),
                    "the operators of PostgreSQL and MongoDB make backups; for this store make them by other means",
                );
            } else if self.destination().is_none() {
                say(
                    backup.full.span,
                    format!("the backups of `{name}` have no place to go to"),
                    "add `to:` with a store of engine `s3`",
                );
            }
            // The buckets of a provider are infrastructure, their copies and their encryption too.
            let in_cluster = self.destination().is_some_and(|destination| !destination.is_managed);
            if let Some(copy) = backup.copies.first().filter(|_| in_cluster) {
                say(
                    copy.span,
                    format!("the copies of the backups of `{name}` are not rendered"),
                    "copy the bucket to the other region by hand, or let backups go to a provider's bucket",
                );
            }
            if backup.encrypted.value && in_cluster && !self.architecture.document.platform.storage.encrypted.value {
                say(
                    backup.encrypted.span,
                    format!("nothing rendered encrypts the backups of `{name}`"),
                    "use a storage class that encrypts, and say so: `platform.storage.encrypted: true`",
                );
            }
        }
        if managed {
            return findings;
        }
        let members = &self.store.members;
        if engine == Engine::Mqtt && members.value > 1 {
            say(
                members.span,
                format!("`{name}` has {members} members, but Mosquitto does not form clusters"),
                "set `members: 1`; for more, let another broker stand in `objects`",
            );
        }
        if engine == Engine::S3 && members.value.is_multiple_of(2) {
            say(
                members.span,
                format!("the {members} members of `{name}` cannot elect a master"),
                "use an odd number: SeaweedFS's masters need a majority",
            );
        }
        if let Some(shards) = self.store.shards.as_ref().filter(|_| engine != Engine::Redis || self.is_plain()) {
            say(
                shards.span,
                format!("the shards of `{name}` are not rendered"),
                "only Redis by its operator is sharded",
            );
        }
        self.topic_limits(&mut say);
        if let Some(commit) = self.store.commit.as_ref().filter(|commit| {
            // MongoDB waits for a majority by default.
            commit.value == Commit::Synchronous && !matches!(engine, Engine::Postgres | Engine::Mongodb)
        }) {
            say(
                commit.span,
                format!("commits of `{name}` are not made to wait for a replica"),
                "leave `commit` out; a broker has `replication` and `in-sync`, a cache is asynchronous",
            );
        }
        if let Some(version) = self.store.version.as_ref().filter(|_| engine == Engine::Redis && self.is_plain()) {
            say(
                version.span,
                format!("the version of `{name}` is one of Redis, but Valkey is rendered"),
                "leave `version` out, or take the operator, which runs Redis",
            );
        }
        let elsewhere = self.architecture.primary_region().map(|(region, _)| region.as_str());
        if let Some(region) = self.store.region.as_ref().filter(|region| Some(region.as_str()) != elsewhere) {
            say(
                region.span,
                format!("`{name}` stands in `{region}`, but is rendered into this cluster"),
                "render it for the cluster of that region, as an environment of its own",
            );
        }
        if engine == Engine::Rabbitmq && !self.is_plain() {
            findings.extend(self.topics().keys().filter_map(|topic| self.unbound_queues(topic)));
        }
        findings
    }

    /// Several queues of one topic fill only when somebody binds them to its exchange.
    fn unbound_queues(&self, topic: &str) -> Option<Finding> {
        let queues = self.queues(topic);
        if queues.len() < 2 {
            return None;
        }
        let span = self.store.topics.get_key_value(topic).map_or(self.key.span, |(name, _)| name.span);
        let finding = Finding::note(RULE, span, format!("the exchange of `{topic}` and its bindings are not rendered"))
            .on(format!("store.{}", self.key))
            .because(format!("{} queues, one for each service that consumes it", queues.len()));
        Some(finding.help(
            "let the publishers declare the exchange and bind the queues to it, as AMQP clients do at their start",
        ))
    }

    /// What topics say and the engine does not know.
    fn topic_limits(&self, say: &mut impl FnMut(Span, String, &str)) {
        let (name, engine) = (self.name(), self.store.engine.value);
        let plain_rabbit = engine == Engine::Rabbitmq && self.is_plain();
        for (topic, settings) in &self.store.topics {
            if plain_rabbit {
                say(
                    topic.span,
                    format!("the queue `{topic}` of `{name}` is not rendered"),
                    "let its clients declare it, or take the operator, which does",
                );
            }
            let partitions = settings.partitions.as_ref().filter(|_| engine != Engine::Kafka).map(|of| of.span);
            let kept =
                settings.replication.as_ref().map(|of| of.span).or(settings.retention.as_ref().map(|of| of.span));
            let kept = kept.filter(|_| !matches!(engine, Engine::Kafka | Engine::Rabbitmq));
            if let Some(span) = partitions.or(kept) {
                say(
                    span,
                    format!("`{name}` has no setting like this for `{topic}`"),
                    "partitions are Kafka's; retention and replication of one topic are those of Kafka and RabbitMQ",
                );
            }
        }
    }
}
