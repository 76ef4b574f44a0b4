//! `landfall ship`: a release from its plan to its end.

mod follow;
mod registry;
mod target;
mod turn;
mod view;

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use kube::{Client, ResourceExt as _};
use landfall_deliver::{
    Author, Lock, Proposal, Release, Wanted, create, drift, has_digest, list, phase_of, propose, tell_waiting, tells,
};
use landfall_model::Severity;

pub(crate) use self::follow::{Ended, Told, carry_out, finish, holder, wait_or_carry};
use self::registry::{Registries, RegistryError, docker_folder};
pub(crate) use self::target::{Target, connect, in_a_cluster, is_engine};
pub(crate) use self::turn::{take, wait};

use crate::Outcome;
use crate::cli::{Output, ShipArguments};
use crate::output::{ProposalOutput, VERSION};
use crate::project::{Checked, today};
use crate::terminal::Terminal;

/// Whether somebody stays until a release has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It is carried out, and told.
    Followed,
    /// It is written down for somebody else.
    Detached,
}

/// Who ships, and how.
pub(crate) struct Shipping<'a> {
    pub(crate) target: &'a Target,
    pub(crate) author: &'a Author,
    pub(crate) how: How,
    pub(crate) output: Output,
}

/// Ships, or says what would be shipped, or goes on with what is not finished.
pub(crate) fn run(arguments: &ShipArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let target = Target::find(&arguments.input.file, arguments.input.environment.as_deref(), terminal)?;
    let target = match target {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    if arguments.watch {
        return in_a_cluster(&target, &arguments.cluster, terminal, async |client, terminal| {
            watch(&client, &target, arguments, terminal).await
        });
    }
    let checked = match understood(&target, terminal)? {
        Ok(checked) => checked,
        Err(outcome) => return Ok(outcome),
    };
    let images: BTreeMap<String, String> = arguments.images.iter().cloned().collect();
    if images.len() != arguments.images.len() {
        terminal.say("error: a service has two images\nhint: give `--image` once for each service")?;
        return Ok(Outcome::NotUnderstood);
    }
    in_a_cluster(&target, &arguments.cluster, terminal, async |client, terminal| {
        let wanted = |images| Wanted {
            architecture: &checked.architecture,
            objects: &checked.objects,
            images,
            prometheus: arguments.prometheus.as_deref(),
        };
        if arguments.plan {
            let images = match by_digest(&client, &images, arguments, terminal).await? {
                Ok(images) => images,
                Err(outcome) => return Ok(outcome),
            };
            let wanted = wanted(&images);
            let mut proposal = propose(&client, wanted).await?;
            proposal.notes.extend(drift(&client, &target.architecture).await?.into_iter().map(drifted));
            return show_plan(&proposal, arguments.output, terminal);
        }
        let author = Author::of(&client, target.namespace(), target.name(), &holder()).await?;
        let lock = if arguments.wait {
            wait(&client, &target, terminal).await?
        } else {
            take(&client, &target, terminal).await?
        };
        let Some(lock) = lock else { return Ok(Outcome::No) };
        // Whoever has waited ships what a tag names now.
        let images = match by_digest(&client, &images, arguments, terminal).await {
            Ok(Ok(images)) => images,
            other => {
                lock.release().await;
                return other.map(|asked| asked.err().unwrap_or(Outcome::No));
            }
        };
        let how = if arguments.detach { How::Detached } else { How::Followed };
        let shipping = Shipping { target: &target, author: &author, how, output: arguments.output };
        ship(&client, wanted(&images), lock, &shipping, terminal).await
    })
}

/// The images with the digests of now in the place of tags. An engine has its images from a catalogue, which knows no digests.
async fn by_digest(
    client: &Client,
    images: &BTreeMap<String, String>,
    arguments: &ShipArguments,
    terminal: &mut Terminal,
) -> anyhow::Result<Result<BTreeMap<String, String>, Outcome>> {
    let tagged = || images.values().map(String::as_str).filter(|image| !has_digest(image));
    if arguments.allow_tags || tagged().next().is_none() || is_engine(client).await? {
        return Ok(Ok(images.clone()));
    }
    let registries = Registries::of(tagged(), docker_folder().as_deref())?;
    let mut pinned = images.clone();
    for (service, image) in pinned.iter_mut().filter(|(_, image)| !has_digest(image)) {
        match registries.pinned(image).await {
            Ok(digest) => {
                terminal.say(&format!("`{service}`: `{image}` is `{digest}` now"))?;
                *image = digest;
            }
            Err(error) => {
                let (hint, outcome) = (error.hint(), outcome_of(&error));
                let told = format!("{:#}\nhint: {hint}", anyhow::Error::from(error));
                let Some(outcome) = outcome else { anyhow::bail!(told) };
                terminal.say(&format!("error: {told}"))?;
                return Ok(Err(outcome));
            }
        }
    }
    Ok(Ok(pinned))
}

/// How a command ends that asked a registry; nothing where the world has failed.
fn outcome_of(error: &RegistryError) -> Option<Outcome> {
    match error {
        RegistryError::Malformed { .. } => Some(Outcome::NotUnderstood),
        RegistryError::NoSuchTag { .. } => Some(Outcome::No),
        RegistryError::NotAuthorised { .. } | RegistryError::Unanswered { .. } => None,
    }
}

/// The architecture with its objects, if nothing in it is wrong.
pub(crate) fn understood(target: &Target, terminal: &mut Terminal) -> anyhow::Result<Result<Checked, Outcome>> {
    let mut checked = match target.project.check(target.environment.as_deref(), today(None)) {
        Ok(checked) => checked,
        Err(findings) => {
            terminal.findings(&findings, target.project.file.sources())?;
            return Ok(Err(Outcome::NotUnderstood));
        }
    };
    let findings = std::mem::take(&mut checked.report.findings);
    let errors: Vec<_> = findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    if !errors.is_empty() {
        terminal.findings(&errors, target.project.file.sources())?;
        terminal.say("the architecture does not keep what it promises; `landfall check` has the whole report")?;
        return Ok(Err(Outcome::No));
    }
    Ok(Ok(checked))
}

/// Prints a plan. The answer is no when something but its gates speaks against it.
pub(crate) fn show_plan(proposal: &Proposal, output: Output, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    show(proposal, output, terminal)?;
    Ok(if proposal.refusals.is_empty() { Outcome::Done } else { Outcome::No })
}

fn drifted(what: String) -> String {
    format!("drift: {what}")
}

/// Writes a release down, and carries it out when that is wanted.
pub(crate) async fn ship(
    client: &Client,
    wanted: Wanted<'_>,
    lock: Lock,
    shipping: &Shipping<'_>,
    terminal: &mut Terminal,
) -> anyhow::Result<Outcome> {
    let proposed = async {
        let mut proposal = propose(client, wanted).await?;
        let drift = drift(client, wanted.architecture).await?;
        proposal.notes.extend(drift.into_iter().map(drifted));
        Ok::<_, landfall_deliver::ClusterError>(proposal)
    };
    let proposal = match proposed.await {
        Ok(proposal) => proposal,
        Err(error) => {
            lock.release().await;
            return Err(error.into());
        }
    };
    if !proposal.refusals.is_empty() || proposal.spec.services.is_empty() {
        lock.release().await;
        if !proposal.refusals.is_empty() {
            show(&proposal, shipping.output, terminal)?;
            return Ok(Outcome::No);
        }
        for note in &proposal.notes {
            terminal.say(&format!("note: {note}"))?;
        }
        terminal.say("there is nothing to ship")?;
        return Ok(Outcome::Done);
    }
    say(&proposal, terminal)?;
    let release = match create(client, &proposal, shipping.author).await {
        Ok(release) => release,
        Err(error) => {
            lock.release().await;
            return Err(error).context("failed to begin");
        }
    };
    let name = release.name_any();
    if shipping.how == How::Detached {
        let namespace = shipping.target.namespace();
        let told = if release.spec.notify.is_empty() {
            Ok(release)
        } else {
            tell_waiting(client, namespace, &name, &lock, shipping.target.telling()).await
        };
        lock.release().await;
        let release = told.with_context(|| format!("failed to tell of the release `{name}`"))?;
        let flag = shipping.target.flag();
        terminal.say(&format!("release `{name}` is written down; `landfall ship --watch{flag}` carries it out"))?;
        return finish(&Ended::of(&release), shipping.output, terminal, |_| true);
    }
    terminal.say(&format!("release `{name}`"))?;
    let ended = carry_out(client, shipping.target, &name, lock, &mut Told::default(), terminal).await?;
    finish(&ended, shipping.output, terminal, |phase| *phase == landfall_deliver::Phase::Succeeded)
}

async fn watch(
    client: &Client,
    target: &Target,
    arguments: &ShipArguments,
    terminal: &mut Terminal,
) -> anyhow::Result<Outcome> {
    let releases = list(client, target.namespace(), target.name()).await?;
    let under_way = releases.iter().find(|release| !phase_of(release).is_terminal());
    // What has ended may have left messages to whoever comes next.
    let wanted: Vec<&Release> = match under_way {
        Some(release) => vec![release],
        None => releases.iter().filter(|release| tells(release)).collect(),
    };
    let mut last = None;
    for release in wanted {
        let name = release.name_any();
        terminal.say(&format!("release `{name}`"))?;
        let ended = wait_or_carry(client, target, &name, terminal).await?;
        if ended.is_interrupted() {
            return finish(&ended, arguments.output, terminal, |_| false);
        }
        last = Some(ended);
    }
    let Some(ended) = last else {
        terminal.say("no release is under way")?;
        return Ok(Outcome::Done);
    };
    finish(&ended, arguments.output, terminal, |phase| *phase == landfall_deliver::Phase::Succeeded)
}

/// Prints a proposal as the answer.
fn show(proposal: &Proposal, output: Output, terminal: &mut Terminal) -> anyhow::Result<()> {
    match output {
        Output::Json => {
            let document = ProposalOutput::new(VERSION, proposal);
            writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        }
        Output::Text => {
            for line in text(proposal) {
                writeln!(terminal.data(), "{line}")?;
            }
        }
    }
    terminal.flush()?;
    for refusal in &proposal.refusals {
        terminal.say(&format!("error: {refusal}"))?;
    }
    Ok(())
}

/// Tells a proposal on the way.
pub(crate) fn say(proposal: &Proposal, terminal: &mut Terminal) -> anyhow::Result<()> {
    for line in text(proposal) {
        terminal.say(&line)?;
    }
    Ok(())
}

fn text(proposal: &Proposal) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["SERVICE", "FROM", "TO", "BY"]);
    for service in &proposal.spec.services {
        let by = service.strategy.as_str();
        let to = if service.keeps_image() { "the same, with another configuration" } else { &service.new_image };
        table.add_row([service.name.as_str(), &service.old_image, to, by]);
    }
    let mut lines: Vec<String> = Vec::new();
    if !proposal.spec.services.is_empty() {
        lines.extend(table.to_string().lines().map(|line| line.trim_end().to_owned()));
    }
    for (service, own) in proposal.spec.services.iter().zip(&proposal.lines) {
        lines.extend(own.iter().map(|line| format!("  {}: {line}", service.name)));
    }
    for gate in &proposal.gates {
        lines.push(format!("gate {}: {}: {}", gate.standing.as_str(), gate.gate, gate.why));
        lines.extend(gate.evidence.iter().map(|piece| format!("  shown by: {piece}")));
        lines.extend(gate.bring.iter().map(|bring| format!("  bring it: {bring}")));
    }
    lines.extend(proposal.notes.iter().map(|note| format!("note: {note}")));
    if proposal.spec.services.is_empty() && proposal.refusals.is_empty() {
        lines.push("there is nothing to ship".to_owned());
    } else {
        let automatic = if proposal.spec.automatic {
            "what goes wrong is taken back by itself"
        } else {
            "what goes wrong is held until a person decides: `delivery.rollback.automatic` is not set"
        };
        lines.push(automatic.to_owned());
    }
    lines
}
