//! Rollback: the way back that the file promises exists.

use std::collections::BTreeMap;

use landfall_model::{
    Architecture, Engine, Finding, NotifyEvent, Procedure, ProcedureKind, ProcedureMeans, RenderTarget, ServiceKind,
    Severity, Span,
};

use super::mutable_tag::Image;
use super::wording::{count, names, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "rollback",
    subject: Subject::Rollout,
    severity: Severity::Error,
    summary: "What is promised to be taken back can be: images, schema, data and infrastructure.",
    explanation: "Each promise of a rollback rests on something. Going back to previous images needs names that still mean the \
        previous image, which a mutable tag does not. It needs the previous version to read the schema that the new one has \
        migrated to: a service whose `schema.reads` does not hold the version before, or of which another service writes a \
        newer one than it reads, cannot go back or start. An automatic rollback needs readiness probes, because they are what \
        notices a bad release. Taking data back to a point in time needs a shipped log: `backup.log`. Putting the previous \
        Terraform state file back changes no infrastructure at all: it makes Terraform forget what exists, and the next plan \
        makes it again (https://developer.hashicorp.com/terraform/language/state/purpose); the previous configuration has to \
        be planned and applied.",
    passing: include_str!("../../tests/it/rules/rollback/ok.yaml"),
    failing: include_str!("../../tests/it/rules/rollback/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let rollback = &architecture.document.delivery.rollback;
    let mut findings = Vec::new();
    let mut lines = Vec::new();
    for procedure in &rollback.procedures {
        procedure_works(architecture, procedure, &mut findings, &mut lines);
    }
    schemas(architecture, &mut findings, &mut lines);
    let promised = rollback
        .procedures
        .iter()
        .find(|procedure| procedure.of.value == ProcedureKind::Release)
        .map(|procedure| procedure.of.span);
    let automatic = rollback.automatic.value.then_some(rollback.automatic.span);
    if let Some(promise) = automatic.or(promised) {
        images(architecture, promise, &mut findings, &mut lines);
    }
    if let Some(promise) = automatic {
        probes(architecture, promise, &mut findings, &mut lines);
    }
    if lines.is_empty() && findings.is_empty() {
        return;
    }
    let against = findings.iter().filter(|finding: &&Finding| finding.severity == Severity::Error).count();
    let span = automatic.or(promised).unwrap_or(architecture.document.name.span);
    report.proofs.push(proof(
        RULE.name,
        "delivery.rollback",
        "what is promised to be taken back can be",
        verdict(against),
        span,
        lines,
    ));
    report.findings.extend(findings);
}

fn procedure_works(
    architecture: &Architecture,
    procedure: &Procedure,
    findings: &mut Vec<Finding>,
    lines: &mut Vec<String>,
) {
    let document = &architecture.document;
    let at = procedure.by.span;
    let of = match procedure.of.value {
        ProcedureKind::Release => "release",
        ProcedureKind::Database => "database",
        ProcedureKind::Infrastructure => "infrastructure",
        ProcedureKind::Communication => "communication",
    };
    let subject = format!("rollback.{of}");
    let fits = match (procedure.of.value, procedure.by.value) {
        (ProcedureKind::Infrastructure, ProcedureMeans::PreviousState) => {
            let finding =
                Finding::error(RULE.name, at, "putting the previous Terraform state back takes no infrastructure back")
                    .on(subject);
            let finding = finding.because("the state file only records what exists: with an old one, Terraform forgets resources, and the next apply makes them twice or fails");
            findings.push(finding.help("use `by: previous-configuration`: the previous configuration is planned, its destroy list is shown, then it is applied"));
            return;
        }
        (ProcedureKind::Infrastructure, ProcedureMeans::PreviousConfiguration) => {
            if !document.delivery.render.is_empty()
                && !document
                    .delivery
                    .render
                    .iter()
                    .any(|target| matches!(target.value, RenderTarget::Terraform | RenderTarget::Cloudformation))
            {
                let finding = Finding::warning(
                    RULE.name,
                    at,
                    "infrastructure is taken back from a configuration that is not rendered",
                )
                .on(subject.clone());
                findings.push(finding.help("add `terraform` to `delivery.render`"));
            }
            true
        }
        (ProcedureKind::Database, ProcedureMeans::PointInTimeRestore) => {
            let databases = document
                .stores
                .iter()
                .filter(|(_, store)| matches!(store.engine.value, Engine::Postgres | Engine::Mongodb));
            let without: Vec<_> = databases
                .clone()
                .filter(|(_, store)| store.backup.as_ref().is_none_or(|backup| backup.log.is_none()))
                .collect();
            for (name, store) in &without {
                let (span, label) = store
                    .backup
                    .as_ref()
                    .map_or((name.span, "no backup at all"), |backup| (backup.full.span, "full backups only"));
                let message = format!("`{name}` cannot be taken back to a point in time: no log is shipped");
                let finding = Finding::error(RULE.name, span, message)
                    .label(label)
                    .also(at, "the promise")
                    .on(format!("store.{name}"));
                findings.push(finding.help("add `log: 5m` to its `backup`"));
            }
            lines.push(format!(
                "database: point-in-time restore of {}",
                count(databases.count() - without.len(), "store")
            ));
            return;
        }
        (ProcedureKind::Release, ProcedureMeans::PreviousDigests)
        | (ProcedureKind::Communication, ProcedureMeans::Message) => true,
        _ => false,
    };
    if !fits {
        let finding = Finding::error(RULE.name, at, format!("this does not take back the {of}"))
            .also(procedure.of.span, "to be taken back")
            .on(subject);
        findings.push(finding.help("release: `previous-digests`; database: `point-in-time-restore`; infrastructure: `previous-configuration`; communication: `message`"));
        return;
    }
    if procedure.of.value == ProcedureKind::Communication && procedure.tell.is_empty() {
        let finding = Finding::warning(RULE.name, at, "nobody is named who is told of a rollback").on(subject.clone());
        findings.push(finding.help("add `tell: [...]`"));
    }
    if procedure.of.value == ProcedureKind::Communication && procedure.automatic.value {
        let tells = |who: &str| {
            architecture.notify().iter().any(|notify| notify.to.value == who && notify.wants(NotifyEvent::RolledBack))
        };
        for who in procedure.tell.iter().filter(|who| !tells(who)) {
            let finding = Finding::warning(RULE.name, who.span, format!("nothing tells `{who}` of a rollback"))
                .because("who is told by itself, and by which means, stands in `delivery.notify`")
                .on(subject.clone());
            findings.push(finding.help(format!(
                "add `- {{ to: {who}, webhook: …, on: [rolled-back] }}` to `delivery.notify`, or let a person tell them: `automatic: false`"
            )));
        }
    }
    lines.push(format!("{of}: {}", if procedure.automatic.value { "without a person" } else { "started by a person" }));
}

/// A release reads the schema that it finds, and the one before reads what it leaves.
fn schemas(architecture: &Architecture, findings: &mut Vec<Finding>, lines: &mut Vec<String>) {
    let mut written: BTreeMap<&str, (u32, &str, Span)> = BTreeMap::new();
    let services =
        || architecture.document.services.iter().filter_map(|(name, service)| Some((name, service.schema.as_ref()?)));
    for (name, schema) in services() {
        let newest =
            written.entry(schema.store.as_str()).or_insert((schema.writes.value, name.as_str(), schema.writes.span));
        if schema.writes.value > newest.0 {
            *newest = (schema.writes.value, name.as_str(), schema.writes.span);
        }
    }
    for (name, schema) in services() {
        let subject = format!("service.{name}");
        let (low, high, writes) = (schema.reads.low, schema.reads.high, schema.writes.value);
        lines.push(format!("{name}: reads schema {} of {}, migrates to {writes}", schema.reads.value, schema.store));
        if !(low..=high).contains(&writes) {
            let message = format!("`{name}` migrates `{}` to version {writes}, which it cannot read", schema.store);
            let finding = Finding::error(RULE.name, schema.writes.span, message)
                .also(schema.reads.span, "what it reads")
                .on(subject);
            findings.push(finding.help(format!("let it read {}..{}", low.min(writes), high.max(writes))));
            continue;
        }
        if let Some((newest, other, span)) = written.get(schema.store.as_str()).filter(|(newest, _, _)| *newest > high)
        {
            let message =
                format!("`{other}` migrates `{}` to version {newest}, which `{name}` cannot read", schema.store);
            let finding =
                Finding::error(RULE.name, schema.reads.span, message).also(*span, "migrated here").on(subject);
            findings
                .push(finding.help("expand first: release readers of the new version before anybody migrates to it"));
            continue;
        }
        if low == writes && writes > 1 {
            let message = format!(
                "a rollback past version {writes} of the schema of `{}` is not possible for `{name}`",
                schema.store
            );
            let finding = Finding::warning(RULE.name, schema.reads.span, message)
                .also(schema.writes.span, "migrates to")
                .on(subject);
            let finding = finding.because(format!(
                "this release reads {} only, so it cannot start on version {}",
                schema.reads.value,
                writes - 1
            ));
            findings.push(
                finding.help(format!("let it read {}..{high}, and contract the schema one release later", writes - 1)),
            );
        }
    }
}

fn images(architecture: &Architecture, promise: Span, findings: &mut Vec<Finding>, lines: &mut Vec<String>) {
    let moving: Vec<_> = architecture
        .document
        .services
        .iter()
        .filter_map(|(name, service)| {
            let image = service.image.as_ref()?;
            let parsed = Image::parse(image);
            let built = parsed.tag.is_none() && service.build.is_some();
            (parsed.moves() && !built).then_some((name, image))
        })
        .collect();
    let Some((_, image)) = moving.first() else {
        lines.push("release: the previous images can still be named".to_owned());
        return;
    };
    let services = names(moving.iter().map(|(name, _)| *name));
    let finding = Finding::error(
        RULE.name,
        image.span,
        format!("the previous release of {services} cannot be named, so it cannot be deployed again"),
    )
    .label("this tag already means the new image")
    .also(promise, "a way back is promised")
    .on("delivery.rollback");
    findings.push(finding.because("see the rule `mutable-tag`").help("name images by version and digest"));
}

fn probes(architecture: &Architecture, promise: Span, findings: &mut Vec<Finding>, lines: &mut Vec<String>) {
    let serving = architecture
        .document
        .services
        .iter()
        .filter(|(_, service)| service.kind.value.serves() && service.kind.value != ServiceKind::Mock);
    let blind: Vec<_> =
        serving.clone().filter(|(_, service)| service.probes.ready.is_none()).map(|(name, _)| name).collect();
    let Some(first) = blind.first() else {
        lines.push(format!("automatic: {} with readiness probes", count(serving.count(), "service")));
        return;
    };
    let message = format!("a rollback by itself needs readiness probes, which are missing on {}", names(&blind));
    let finding = Finding::error(RULE.name, first.span, message)
        .label("its failure is not noticed")
        .also(promise, "automatic")
        .on("delivery.rollback");
    let finding = finding.because("a pod without a readiness probe counts as ready as soon as its process runs");
    findings.push(finding.help("add `probes: { ready: /ready }`"));
}
