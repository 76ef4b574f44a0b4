//! Backups and encryption: data that can be brought back, and that nobody else can read.

use std::collections::BTreeSet;

use landfall_model::{
    Architecture, Element, Engine, Finding, MutualTls, Name, Persistence, Severity, Span, Spanned, Store,
};

use super::wording::{count, names, proof, verdict};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

pub(super) const BACKUP: Rule = Rule {
    name: "backup",
    subject: Subject::Recovery,
    severity: Severity::Error,
    summary: "Every store with data of its own has a backup that survives what it is for, and that somebody has restored.",
    explanation: "Replicas carry a wrong DELETE along within milliseconds; only a backup brings data back. In production every \
        database needs one, and it is an error when recovery from corruption or the loss of a region is promised. A backup \
        needs a place outside the store (`to`), one that does not die with the region when that is promised, and the \
        encryption that the file promises for data at rest. A backup that was never restored is a hope: `tested` says how \
        often a restore is tried, or a drill of the kind `restore` does. A bucket can be the place of backups and needs none \
        itself; a cache and a broker are exempt unless they keep what cannot be made again.",
    passing: include_str!("../../tests/it/rules/backup/ok.yaml"),
    failing: include_str!("../../tests/it/rules/backup/bad.yaml"),
    run: Some(backup),
};

pub(super) const ENCRYPTION: Rule = Rule {
    name: "encryption",
    subject: Subject::Security,
    severity: Severity::Error,
    summary: "What is promised to be encrypted is, at rest and in transit.",
    explanation: "`security.encryption` promises for the whole platform. At rest it needs volumes that are encrypted \
        (`platform.storage.encrypted`, or a managed store that says so), and backups that are. In transit it needs TLS at each \
        store, TLS at each exposed host, and between services a mesh with `mtls: strict`: `permissive` accepts plain text, so \
        it is a setting for the day of the migration. A store or backup that says the contrary refutes the promise; one that \
        says nothing inherits it. Not handled: whether the keys are kept well.",
    passing: include_str!("../../tests/it/rules/encryption/ok.yaml"),
    failing: include_str!("../../tests/it/rules/encryption/bad.yaml"),
    run: Some(encryption),
};

/// Whether losing it loses what cannot be made again.
fn keeps_data(store: &Store) -> bool {
    match store.engine.value {
        Engine::Postgres | Engine::Mongodb => true,
        Engine::Elasticsearch => store.backup.is_some(),
        Engine::Redis => {
            store.backup.is_some()
                && !matches!(store.persistence.as_ref().map(|kept| kept.value), Some(Persistence::None))
        }
        Engine::Kafka | Engine::Rabbitmq | Engine::Mqtt | Engine::S3 => false,
    }
}

/// Who writes to it at all: a store that is only read gets its data from elsewhere.
fn is_written(architecture: &Architecture) -> BTreeSet<&Element> {
    architecture
        .connections
        .iter()
        .filter(|connection| connection.verb.writes())
        .map(|connection| &connection.to)
        .collect()
}

fn backup(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    if !architecture.is_production() {
        return;
    }
    let written = is_written(architecture);
    let recovery = &architecture.document.objectives.recovery;
    let corruption = recovery
        .corruption
        .as_ref()
        .and_then(|objective| objective.rpo.as_ref().or(objective.rto.as_ref()))
        .map(|objective| objective.span);
    let region = recovery
        .region
        .as_ref()
        .and_then(|objective| objective.rpo.as_ref().or(objective.rto.as_ref()))
        .map(|objective| objective.span);
    for (name, store) in architecture.document.stores.iter().filter(|(_, store)| keeps_data(store)) {
        let subject = format!("store.{name}");
        let Some(backup) = &store.backup else {
            let promised = corruption.or(region.filter(|_| !is_replicated(architecture, name)));
            let severity = if promised.is_some() { Severity::Error } else { Severity::Warning };
            let mut finding =
                Finding::new(BACKUP.name, severity, name.span, format!("the store `{name}` has no backup"))
                    .on(subject.clone());
            if let Some(promise) = promised {
                finding = finding.also(promise, "recovery is promised");
            }
            if written.contains(&Element::Store(name.value.clone())) {
                finding = finding.because("services write to it, and its replicas repeat every mistake");
            }
            report.findings.push(finding.help("add `backup: { full: 24h, log: 5m, keep: 7d, to: <bucket> }`"));
            report.proofs.push(proof(
                BACKUP.name,
                subject,
                format!("the data of `{name}` can be brought back"),
                Verdict::Refuted,
                name.span,
                Vec::new(),
            ));
            continue;
        };
        let before = report.findings.len();
        place(architecture, name, store, region, report);
        if backup.tested.is_none() && !is_drilled(architecture, name) {
            let finding =
                Finding::warning(BACKUP.name, backup.full.span, format!("no restore of `{name}` is ever tried"))
                    .on(subject.clone());
            report.findings.push(finding.help("add `tested: 30d`, or a drill `{ of: restore, on: …, every: 30d }`"));
        }
        let promise = &architecture.document.security.encryption.at_rest;
        if promise.value && !backup.encrypted.value && !bucket_encrypted(architecture, store) {
            let span = if backup.encrypted.span.is_written() { backup.encrypted.span } else { backup.full.span };
            let message = format!("the backup of `{name}` is not encrypted");
            let finding = Finding::error(BACKUP.name, span, message)
                .also(promise.span, "encryption at rest is promised")
                .on(subject.clone());
            report.findings.push(finding.help("add `encrypted: true`"));
        }
        let against = report.findings[before..].iter().filter(|finding| finding.severity == Severity::Error).count();
        let mut derivation = vec![format!("a full backup every {}, kept for {}", backup.full, backup.keep)];
        derivation.push(backup.log.as_ref().map_or_else(
            || "no log is shipped: back to full backups only".to_owned(),
            |log| format!("the log is shipped every {log}: back to any moment"),
        ));
        if let Some(to) = &backup.to {
            derivation.push(format!(
                "in `{to}`{}",
                if backup.copies.is_empty() {
                    String::new()
                } else {
                    format!(", with copies in {}", names(&backup.copies))
                }
            ));
        }
        derivation.push(backup.tested.as_ref().map_or_else(
            || "restores: by drills only".to_owned(),
            |tested| format!("a restore is tried every {tested}"),
        ));
        report.proofs.push(proof(
            BACKUP.name,
            subject,
            format!("the data of `{name}` can be brought back"),
            verdict(against),
            name.span,
            derivation,
        ));
    }
}

fn is_replicated(architecture: &Architecture, store: &Name) -> bool {
    architecture.document.recovery.replication.iter().any(|replication| replication.store.value == *store)
}

fn is_drilled(architecture: &Architecture, store: &Name) -> bool {
    let restores = |drill: &&landfall_model::Drill| drill.of.value == landfall_model::DrillKind::Restore;
    architecture
        .document
        .recovery
        .drills
        .iter()
        .filter(restores)
        .any(|drill| drill.on.as_ref().is_none_or(|on| on.value == *store))
}

fn bucket_encrypted(architecture: &Architecture, store: &Store) -> bool {
    let bucket =
        store.backup.as_ref().and_then(|backup| backup.to.as_ref()).and_then(|to| architecture.store(to.as_str()));
    bucket.is_some_and(|bucket| bucket.encryption.at_rest.as_ref().is_some_and(|at_rest| at_rest.value))
}

/// Where the backup is, and whether it is still there when it is needed.
fn place(architecture: &Architecture, name: &Spanned<Name>, store: &Store, region: Option<Span>, report: &mut Report) {
    let Some(backup) = &store.backup else { return };
    let subject = format!("store.{name}");
    let Some(to) = &backup.to else {
        if !store.provider.value.is_managed() {
            let finding = Finding::error(BACKUP.name, backup.full.span, format!("the backup of `{name}` goes nowhere"))
                .on(subject);
            report.findings.push(
                finding
                    .because("without `to` it has no place outside the store")
                    .help("declare a store of the engine `s3`, and add `to:` with its name"),
            );
        }
        return;
    };
    let home = store
        .region
        .as_ref()
        .map(|region| &region.value)
        .or_else(|| architecture.primary_region().map(|(name, _)| &name.value));
    let bucket = architecture.store(to.as_str()).and_then(|bucket| bucket.region.as_ref()).map(|region| &region.value);
    let bucket = bucket.or_else(|| architecture.primary_region().map(|(name, _)| &name.value));
    let elsewhere = bucket != home || backup.copies.iter().any(|copy| Some(&copy.value) != home);
    if elsewhere || home.is_none() {
        return;
    }
    // Replication is the way of the data to the other region; the backup may then stay.
    let (severity, text) = match region {
        Some(_) if !is_replicated(architecture, name) => (Severity::Error, "is lost together with the region"),
        Some(_) => (Severity::Warning, "is lost with the region, and after a failover there is none to go back to"),
        None => (Severity::Note, "stands in the same region as the store"),
    };
    let mut finding =
        Finding::new(BACKUP.name, severity, to.span, format!("the backup of `{name}` {text}")).on(subject);
    if let Some(promise) = region {
        finding = finding.also(promise, "recovery from the loss of a region is promised");
    }
    report.findings.push(finding.help("add `copies: [<another region>]`, or a bucket with another `region`"));
}

fn encryption(context: &Context<'_>, report: &mut Report) {
    let promises = &context.architecture.document.security.encryption;
    if promises.at_rest.value {
        at_rest(context.architecture, promises.at_rest.span, report);
    }
    if promises.in_transit.value {
        in_transit(context.architecture, promises.in_transit.span, report);
    }
}

fn at_rest(architecture: &Architecture, promise: Span, report: &mut Report) {
    let document = &architecture.document;
    let storage = &document.platform.storage.encrypted;
    let mut findings = Vec::new();
    let (mut by_volume, mut by_itself) = (0, 0);
    let mut plain = Vec::new();
    for (name, store) in &document.stores {
        match &store.encryption.at_rest {
            Some(own) if own.value => by_itself += 1,
            Some(own) => {
                let finding = Finding::error(ENCRYPTION.name, own.span, format!("`{name}` is not encrypted at rest"))
                    .also(promise, "promised here");
                findings.push(finding.on(format!("store.{name}")).help("remove this line, or take the promise back"));
            }
            // Managed stores of the three providers are rendered with encryption when it is promised.
            None if store.provider.value.is_managed() => by_itself += 1,
            None if storage.value => by_volume += 1,
            None => plain.push(name),
        }
    }
    if let Some(first) = plain.first() {
        let span = if storage.span.is_written() { storage.span } else { promise };
        let message = format!("encryption at rest is promised, but the volumes of {} are not encrypted", names(&plain));
        let finding = Finding::error(ENCRYPTION.name, span, message)
            .also(first.span, "keeps its data on a volume")
            .on("platform.storage");
        findings.push(
            finding.help("add `platform.storage: { encrypted: true, class: … }` with a StorageClass that encrypts"),
        );
    }
    let derivation = vec![
        format!("{} on encrypted volumes", count(by_volume, "store")),
        format!("{} encrypted by itself or its provider", count(by_itself, "store")),
    ];
    let statement = "every store is encrypted at rest";
    report.proofs.push(proof(
        ENCRYPTION.name,
        "encryption.at-rest",
        statement,
        verdict(findings.len()),
        promise,
        derivation,
    ));
    report.findings.extend(findings);
}

fn in_transit(architecture: &Architecture, promise: Span, report: &mut Report) {
    let document = &architecture.document;
    let mut findings = Vec::new();
    let mut derivation = Vec::new();
    for (name, store) in &document.stores {
        if let Some(own) = store.encryption.in_transit.as_ref().filter(|own| !own.value) {
            let finding =
                Finding::error(ENCRYPTION.name, own.span, format!("connections to `{name}` are not encrypted"))
                    .also(promise, "promised here");
            findings.push(finding.on(format!("store.{name}")).help("remove this line, or take the promise back"));
        }
    }
    derivation.push(format!("{} with TLS", count(document.stores.len() - findings.len(), "store")));
    let between = architecture
        .connections
        .iter()
        .filter(|edge| matches!((&edge.from, &edge.to), (Element::Service(_), Element::Service(_))))
        .count();
    match &document.platform.mesh {
        Some(mesh) if mesh.mtls.value == MutualTls::Permissive => {
            let finding = Finding::error(ENCRYPTION.name, mesh.mtls.span, "the mesh also accepts plain text")
                .also(promise, "promised here")
                .on("platform.mesh");
            findings.push(finding.help("say `mtls: strict`"));
        }
        Some(_) => {
            derivation.push(format!("{} between services, in the mesh with strict mutual TLS", count(between, "edge")));
        }
        None if between > 0 => {
            let message = format!("{} between services in plain text: there is no mesh", count(between, "edge"));
            let finding = Finding::error(ENCRYPTION.name, promise, message).on("platform.mesh");
            let finding = finding.because("ports of the protocols `http` and `grpc` are plain text inside the cluster");
            findings.push(finding.help("add `platform.mesh: { kind: istio, mtls: strict }`, or take the promise back"));
        }
        None => derivation.push("no edges between services".to_owned()),
    }
    let open: Vec<_> =
        architecture.exposed().filter(|(_, _, expose)| expose.tls.is_none()).map(|(name, _, _)| name).collect();
    derivation.push(format!("{} exposed without TLS (see the rule `exposure`)", count(open.len(), "service")));
    let statement = "every connection is encrypted";
    report.proofs.push(proof(
        ENCRYPTION.name,
        "encryption.in-transit",
        statement,
        verdict(findings.len() + open.len()),
        promise,
        derivation,
    ));
    report.findings.extend(findings);
}
