//! `landfall approve`, `landfall reject`: a person says whether a release may go on, and signs it.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;
use landfall_deliver::{
    ApprovalError, ApprovalSpec, Author, Decision, Expiry, Phase, Policy, ReleaseSpec, SignersState, Statement,
    Subject, approvals, phase_of, read, state_of, submit,
};

use crate::Outcome;
use crate::cli::{ApproveArguments, Output};
use crate::commands::ship::{Target, holder, in_a_cluster};
use crate::commands::sign::sign;
use crate::output::ApprovalOutput;
use crate::terminal::Terminal;

/// What is approved.
struct Approved {
    digest: String,
    images: std::collections::BTreeMap<String, String>,
    /// What the digest is about, for people.
    covers: Vec<String>,
    expiry: Expiry,
}

/// Approves or rejects.
pub(crate) fn run(
    arguments: &ApproveArguments,
    decision: Decision,
    terminal: &mut Terminal,
) -> anyhow::Result<Outcome> {
    let place = &arguments.place;
    let target = match Target::find(&place.file, place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &place.cluster, terminal, async |client, terminal| {
        let (signers, _) = SignersState::read(&client, target.namespace(), target.name()).await?;
        let Some(policy) = &signers.policy else {
            terminal.say(&format!(
                "error: nobody may approve in `{}` yet\nhint: `landfall signers set ALLOWED_SIGNERS{}` says who may",
                target.namespace(),
                target.flag()
            ))?;
            return Ok(Outcome::No);
        };
        let now = Timestamp::from_second(Timestamp::now().as_second()).context("the clock is far from its time")?;
        let approved = match find(&client, &target, &signers, &arguments.name, now).await? {
            Ok(approved) => approved,
            Err(why) => {
                terminal.say(&format!("error: {why}"))?;
                return Ok(Outcome::No);
            }
        };
        let statement = Statement {
            decision,
            architecture: target.name().to_owned(),
            namespace: target.namespace().to_owned(),
            subject: arguments.name.clone(),
            digest: approved.digest.clone(),
            images: approved.images.clone(),
            at: now,
            until: now + policy.expire(),
            because: arguments.because.clone(),
        };
        approved.covers.iter().try_for_each(|line| terminal.say(line))?;
        if arguments.print {
            write!(terminal.data(), "{}", statement.text())?;
            return Ok(Outcome::Done);
        }
        let approval = match (&arguments.statement, &arguments.signature) {
            (Some(statement), Some(signature)) => given(target.name(), statement, signature)?,
            _ => {
                let text = statement.text();
                text.lines().try_for_each(|line| terminal.say(line))?;
                let signature = sign(&text, arguments.key.key.as_deref(), policy)?;
                ApprovalSpec { architecture: target.name().to_owned(), statement: text, signature }
            }
        };
        // What was signed elsewhere says itself whether it approves.
        if Statement::parse(&approval.statement).is_ok_and(|given| given.decision != decision) {
            terminal.say(&format!("error: the statement does not {} it", decision.as_str()))?;
            return Ok(Outcome::No);
        }
        keep(&client, &target, policy, arguments, &approved, approval, terminal).await
    })
}

/// What has the name, if it waits to be approved.
async fn find(
    client: &Client,
    target: &Target,
    signers: &SignersState,
    name: &str,
    now: Timestamp,
) -> anyhow::Result<Result<Approved, String>> {
    if let Some((list, _)) = &signers.proposed
        && list.name() == name
    {
        let images = std::collections::BTreeMap::new();
        return Ok(Ok(Approved { digest: list.digest(), images, covers: Vec::new(), expiry: Expiry::Never }));
    }
    let Some(release) = read(client, target.namespace(), name).await? else {
        return Ok(Err(format!(
            "there is no release `{name}` in `{}`, nor such a list of signers\nhint: `landfall releases` and `landfall signers show` list them",
            target.namespace()
        )));
    };
    if phase_of(&release) != Phase::Pending {
        return Ok(Err(format!("release `{name}` is not waiting for anybody: it is {}", state_of(&release))));
    }
    let spec = &release.spec;
    // What is signed is what was computed here, and not what the object says of itself.
    if let Some(why) = spec.contradiction() {
        return Ok(Err(format!("release `{name}` is not what it says: {why}")));
    }
    let (digest, images) = (spec.computed_digest(), spec.container_images());
    Ok(Ok(Approved { digest, images, covers: covers(spec), expiry: Expiry::At(now) }))
}

/// What the digest of a release is about: of each service its containers, and what is made otherwise than before.
fn covers(spec: &ReleaseSpec) -> Vec<String> {
    let mut lines = Vec::new();
    let images = spec.container_images();
    for service in &spec.services {
        let (name, by) = (&service.name, service.strategy.as_str());
        lines.push(format!("{name} in {}, {by}: {} -> {}", service.namespace, service.old_image, service.new_image));
        let others = images.iter().filter(|(key, _)| key.starts_with(&format!("{name}/")));
        lines.extend(others.map(|(key, image)| format!("  container {key}: {image}")));
        lines.extend(service.changes().iter().map(|field| format!("  changed: {field}")));
    }
    lines.extend(spec.gates.iter().map(|gate| format!("gate: {gate}")));
    lines.extend(spec.bundle.iter().map(|bundle| format!("rendered objects: {bundle}")));
    lines
}

fn given(architecture: &str, statement: &Path, signature: &Path) -> anyhow::Result<ApprovalSpec> {
    let read = |file: &Path| fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()));
    Ok(ApprovalSpec { architecture: architecture.to_owned(), statement: read(statement)?, signature: read(signature)? })
}

async fn keep(
    client: &Client,
    target: &Target,
    policy: &Policy,
    arguments: &ApproveArguments,
    approved: &Approved,
    approval: ApprovalSpec,
    terminal: &mut Terminal,
) -> anyhow::Result<Outcome> {
    let author = Author::of(client, target.namespace(), target.name(), &holder()).await?;
    let subject = Subject {
        architecture: target.name(),
        namespace: target.namespace(),
        name: &arguments.name,
        digest: &approved.digest,
    };
    // The statement says its time in seconds; a moment later it is surely not in the future.
    let expiry = match approved.expiry {
        Expiry::At(_) => Expiry::At(Timestamp::now()),
        Expiry::Never => Expiry::Never,
    };
    let counted = match submit(client, &author, policy, subject, approval, expiry).await {
        Ok(counted) => counted,
        Err(ApprovalError::NotValid(why)) => {
            terminal.say(&format!(
                "error: it would not count: {why}\nhint: `landfall signers show{}` lists who may",
                target.flag()
            ))?;
            return Ok(Outcome::No);
        }
        Err(error) => return Err(error.into()),
    };
    let signed = approvals(client, target.namespace(), target.name()).await?;
    let tally = policy.tally(subject, &signed, expiry);
    if arguments.place.output == Output::Json {
        let document = ApprovalOutput::new(subject.name, subject.digest, &counted, &tally, policy.count);
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(Outcome::Done);
    }
    let said = if counted.statement.decision == Decision::Reject { "rejected" } else { "approved" };
    writeln!(
        terminal.data(),
        "{} {said} by {}: {} of {} approvals",
        subject.name,
        counted.person,
        tally.approved.len(),
        policy.count
    )?;
    if counted.statement.decision == Decision::Approve && tally.is_enough(policy.count) {
        terminal.flush()?;
        terminal.say(&format!(
            "hint: whoever watches it goes on; if nobody does: `landfall ship --watch{}`",
            target.flag()
        ))?;
    }
    Ok(Outcome::Done)
}
