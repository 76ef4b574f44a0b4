//! `quorum`: members, replicas and zones that cannot form the majority that an engine needs.

use landfall_model::{Duration, Engine, Finding, Name, Severity, Span, Spanned, Store};

use super::derivation::{Derivation, Section, Stake, count, written};
use super::redundancy;
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "quorum";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Recovery,
    severity: Severity::Error,
    summary: "Members, replicas and zones of every store add up to a majority that survives a loss.",
    explanation: "\
MongoDB, RabbitMQ's quorum queues, Elasticsearch and Kafka's controllers decide by a majority of their members. Of two \
members both are needed, so two are worse than one; an even number survives no more losses than one fewer. A topic with \
more replicas than there are brokers cannot be made. A write to Kafka with `acks=all` is refused while fewer replicas \
than `min.insync.replicas` are in sync: when all of them must be, the first loss stops writes; when one suffices, a \
message that was acknowledged can exist once and be lost. A commit of PostgreSQL that waits for a replica needs one left \
after a loss, so three members. A Redis cluster elects by a majority of its primaries, so it needs three shards, each \
with a replica. A majority survives the loss of any one zone only if its members stand in three. \
Sources: https://www.rabbitmq.com/docs/quorum-queues, \
https://kafka.apache.org/documentation/#brokerconfigs_min.insync.replicas, \
https://www.mongodb.com/docs/manual/core/replica-set-architectures/, \
https://redis.io/docs/latest/operate/oss_and_stack/management/scaling/, \
https://cloudnative-pg.io/documentation/current/replication/#synchronous-replication.",
    passing: include_str!("../../tests/it/rules/quorum/ok.yaml"),
    failing: include_str!("../../tests/it/rules/quorum/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    for (name, store) in &context.architecture.document.stores {
        let mut judged = Judged {
            context,
            name,
            store,
            derivation: Derivation::default(),
            found: Vec::new(),
            told_elsewhere: false,
        };
        judged.members();
        judged.replicas();
        judged.commits();
        judged.shards();
        judged.zones();
        let Judged { mut derivation, found, told_elsewhere, .. } = judged;
        derivation.uses(&format!("stores.{name}.members"), &store.members, Section::from(store.assumed));
        let subject = format!("store.{name}");
        let verdict = if found.is_empty() && !told_elsewhere { Verdict::Proved } else { Verdict::Refuted };
        report.findings.extend(found.into_iter().map(|finding| finding.on(&subject)));
        let statement = format!("the members and replicas of `{name}` form a majority that survives a loss");
        report.proofs.push(derivation.proof(NAME, subject, statement, verdict, name.span));
    }
}

struct Judged<'a, 'c> {
    context: &'a Context<'c>,
    name: &'a Spanned<Name>,
    store: &'a Store,
    derivation: Derivation,
    found: Vec<Finding>,
    /// Whether the majority is lost for a reason that another rule tells of.
    told_elsewhere: bool,
}

impl Judged<'_, '_> {
    /// How many members, and how many of them decide.
    fn members(&mut self) {
        let (name, members) = (self.name, self.store.members.value);
        let at = written([self.store.members.span, name.span]);
        if !redundancy::elects_by_majority(self.store.engine.value) || self.store.provider.is_managed() {
            self.derivation.line(format!("{members} members"));
            return;
        }
        let majority = members / 2 + 1;
        self.derivation.line(format!(
            "{members} members, a majority is {majority}: {} may be lost",
            members - majority.min(members)
        ));
        if members >= 2 && members.is_multiple_of(2) {
            let message = if members == 2 {
                format!("`{name}` has two members and needs both: two are worse than one")
            } else {
                format!("`{name}` has {members} members, which survive no more losses than {}", members - 1)
            };
            let finding = Finding::new(NAME, Stake::Risk.severity(self.context), at, message);
            let line = format!("a majority of {members} is {majority}, so {} may be lost", members - majority);
            self.found.push(finding.because(line).help(format!("take {} members", members + 1)));
        }
    }

    /// Replicas of topics and queues.
    fn replicas(&mut self) {
        let (name, store) = (self.name, self.store);
        if !matches!(store.engine.value, Engine::Kafka | Engine::Rabbitmq) {
            return;
        }
        let members = store.members;
        let topics = store
            .topics
            .iter()
            .filter_map(|(topic, declared)| Some((format!("topic `{topic}`"), declared.replication?)));
        let all: Vec<_> =
            store.replication.map(|replication| ("it".to_owned(), replication)).into_iter().chain(topics).collect();
        for (what, replication) in &all {
            if replication.value > members.value {
                let of = if what == "it" { "keeps each message".to_owned() } else { format!("keeps {what}") };
                let message = format!("`{name}` {of} on {replication} members, but has {members}");
                let at = written([replication.span, name.span]);
                let finding = Finding::error(NAME, at, message).also(members.span, "the members");
                self.found.push(finding.help(format!("add members, or keep it on {members}")));
            }
        }
        if store.replication.is_none() && members.value > 1 {
            let message = format!("`{name}` has {members} members, but nothing says on how many a message is kept");
            let at = written([members.span, name.span]);
            let finding = Finding::new(NAME, Stake::Risk.severity(self.context), at, message);
            let default = if store.engine.value == Engine::Kafka {
                "Kafka's default is one: the loss of a member loses messages"
            } else {
                "a classic queue is kept on one: the loss of a member loses messages"
            };
            self.found.push(finding.because(default).help("say `replication: 3` and `in-sync: 2`"));
        }
        self.in_sync();
    }

    fn in_sync(&mut self) {
        let (name, store) = (self.name, self.store);
        if store.engine.value != Engine::Kafka {
            return;
        }
        let (Some(replication), in_sync) = (store.replication, store.in_sync) else { return };
        let needed = in_sync.map_or(1, |in_sync| in_sync.value);
        let stays = replication.value.saturating_sub(needed);
        self.derivation.line(format!(
            "replication {replication}, in sync {needed}: writes survive {stays} losses, messages {}",
            needed.saturating_sub(1)
        ));
        if in_sync.is_none() {
            self.derivation.assumes(format!("`stores.{name}.in-sync` is 1 (default of Kafka)"));
        }
        let at = written([in_sync.map_or(Span::NONE, |in_sync| in_sync.span), replication.span, name.span]);
        if replication.value > 1 && needed >= replication.value {
            let message = if needed > replication.value {
                format!("`{name}` accepts no write: {needed} replicas must be in sync, but there are {replication}")
            } else {
                format!("the loss of one member of `{name}` stops writes: all {replication} replicas must be in sync")
            };
            let severity =
                if needed > replication.value { Severity::Error } else { self.loss_stake().severity(self.context) };
            let finding = Finding::new(NAME, severity, at, message).also(replication.span, "the replicas");
            self.found.push(finding.help(format!("set `in-sync: {}`", replication.value - 1)));
        }
        if needed == 1
            && let Some((span, what)) = self.nothing_lost()
        {
            let message = format!("`{name}` acknowledges a message that one member has: its loss loses it");
            let finding = Finding::new(NAME, Stake::Promised.severity(self.context), at, message).also(span, what);
            self.found.push(finding.help("set `in-sync: 2` and `replication: 3`"));
        }
    }

    /// Commits that wait for a replica.
    fn commits(&mut self) {
        let (name, store) = (self.name, self.store);
        if store.engine.value != Engine::Postgres
            || store.provider.is_managed()
            || !redundancy::commits_synchronously(store)
        {
            return;
        }
        let at = written([store.commit.map_or(Span::NONE, |commit| commit.span), name.span]);
        let members = store.members;
        match members.value {
            1 => {
                let message = format!("a commit to `{name}` waits for a replica, but there is none");
                let finding = Finding::error(NAME, at, message).also(members.span, "one member");
                self.found.push(finding.help("add members: `members: 3`, or commit without waiting"));
            }
            2 => {
                let message =
                    format!("the loss of either member of `{name}` stops writes: a commit waits for the other one");
                let finding = Finding::new(NAME, self.loss_stake().severity(self.context), at, message)
                    .also(members.span, "two members");
                self.found.push(finding.help("add a third member: `members: 3`"));
            }
            _ => self.derivation.line("a commit waits for one replica, and another is left after a loss"),
        }
    }

    /// Shards of a cache.
    fn shards(&mut self) {
        let (name, store) = (self.name, self.store);
        let Some(shards) = store.shards.filter(|_| store.engine.value == Engine::Redis) else { return };
        let members = store.members;
        self.derivation.line(format!("{members} members in {shards} shards"));
        let at = written([shards.span, name.span]);
        if shards.value == 2 {
            let message = format!("`{name}` has two shards, which elect nothing when one primary is lost");
            let finding = Finding::new(NAME, self.loss_stake().severity(self.context), at, message);
            self.found.push(finding.because("a majority of two primaries is two").help("take three shards"));
        }
        if shards.value == 0 || !members.value.is_multiple_of(shards.value.max(1)) || members.value < shards.value {
            let message =
                format!("{} of `{name}` cannot be dealt out to {shards} shards", count(members.value, "member"));
            let finding = Finding::error(NAME, at, message).also(members.span, "the members");
            self.found.push(finding.help("take as many members as shards times copies, such as 6 for 3 shards"));
        } else if members.value == shards.value && shards.value > 1 {
            let message = format!("each shard of `{name}` has one copy: losing a member loses a part of the keys");
            let finding =
                Finding::new(NAME, self.loss_stake().severity(self.context), written([members.span, at]), message);
            self.found.push(finding.also(shards.span, "the shards").help(format!("take {} members", shards.value * 2)));
        }
    }

    /// Zones for the majority.
    fn zones(&mut self) {
        let (name, store) = (self.name, self.store);
        let Some(promise) = &self.context.architecture.document.objectives.recovery.zone else { return };
        let counts = redundancy::elects_by_majority(store.engine.value) && store.members.value >= 3;
        if store.provider.is_managed() || !counts {
            return;
        }
        let zones = redundancy::zones_used(self.context.architecture, store);
        let most = redundancy::most_in_one_zone(self.context.architecture, store);
        let left = store.members.value - most;
        let majority = store.members.value / 2 + 1;
        self.derivation.line(format!(
            "{}, at most {most} members in one: {left} left of {}, {majority} needed",
            count(zones, "zone"),
            store.members
        ));
        // `zone-loss` tells of a platform without another zone.
        self.told_elsewhere = left < majority && self.context.architecture.zones().len() < 2;
        if left < majority && !self.told_elsewhere {
            let span = store.zones.first().map_or(name.span, |zone| zone.span);
            let message = format!("losing one zone loses the majority of `{name}`");
            let finding = Finding::new(NAME, Stake::Promised.severity(self.context), span, message);
            let promised = promise.rto.map(|rto| rto.span).or(promise.rpo.map(|rpo| rpo.span)).unwrap_or(Span::NONE);
            let line = format!(
                "{} members in {}: {most} in the fullest, {left} left, {majority} needed",
                store.members,
                count(zones, "zone")
            );
            self.found.push(finding.also(promised, "the promise").because(line).help("spread it over three zones"));
        }
    }

    /// Whether the loss of a node or zone is promised to be survived.
    fn loss_stake(&self) -> Stake {
        let recovery = &self.context.architecture.document.objectives.recovery;
        Stake::of(recovery.node.as_ref().or(recovery.zone.as_ref()))
    }

    /// A promise that nothing is lost with a node or zone, or on the way of a flow through this store.
    fn nothing_lost(&self) -> Option<(Span, &'static str)> {
        let document = &self.context.architecture.document;
        let recovery = &document.objectives.recovery;
        let zero = [&recovery.node, &recovery.zone].into_iter().flatten().filter_map(|objective| objective.rpo);
        let zero = zero.filter(|rpo| rpo.value == Duration::ZERO).map(|rpo| (rpo.span, "nothing may be lost")).next();
        let passes =
            |flow: &&landfall_model::Flow| flow.steps.iter().any(|step| step.to.as_str() == self.name.as_str());
        let lossless = document.flows.values().filter(passes).filter_map(|flow| flow.loss);
        let lossless = lossless
            .filter(|loss| loss.0.millionths() == 0)
            .map(|loss| (loss.span, "nothing may be lost on this flow"));
        zero.or_else(|| { lossless }.next())
    }
}

#[cfg(test)]
mod tests;
