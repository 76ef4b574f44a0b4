//! `landfall attest`: evidence for the gates of an environment.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use landfall_deliver::{
    Author, Decision, EvidenceKind, EvidenceSpec, Policy, SignersState, Statement, attest, digest_of, read_report,
};

use crate::Outcome;
use crate::cli::{AttestArguments, Attested, Output};
use crate::commands::pipeline::{Runs, State, folder_of};
use crate::commands::ship::{Target, holder, in_a_cluster};
use crate::commands::sign::sign;
use crate::output::{AttestOutput, AttestedOutput, VERSION};
use crate::terminal::Terminal;

/// Brings evidence. The answer is no when it shows that something does not hold; it is kept all the same.
pub(crate) fn run(arguments: &AttestArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let place = &arguments.place;
    let target = match Target::find(&place.file, place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    let reported = match of_run(arguments)? {
        Ok(reported) => reported,
        Err(why) => {
            terminal.say(&format!("error: {why}"))?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let pieces = match collect(arguments, &reported, &target)? {
        Ok(pieces) => pieces,
        Err(why) => {
            terminal.say(&format!("error: {why}"))?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    in_a_cluster(&target, &place.cluster, terminal, async |client, terminal| {
        let author = Author::of(&client, target.namespace(), target.name(), &holder()).await?;
        let (signers, _) = SignersState::read(&client, target.namespace(), target.name()).await?;
        let mut kept = Vec::new();
        for mut piece in pieces {
            author.who().clone_into(&mut piece.by);
            if let (Some(policy), true) = (&signers.policy, piece.kind.is_said_by_a_person() && piece.report.is_none())
            {
                confirm(&mut piece, &target, policy, arguments.key.key.as_deref(), terminal)?;
            }
            let name = attest(&client, target.namespace(), &author, piece.clone()).await?;
            kept.push((name, piece));
        }
        if place.output == Output::Json {
            let evidence =
                kept.iter().map(|(name, evidence)| AttestedOutput { name: name.clone(), evidence }).collect();
            let document = AttestOutput { version: VERSION, evidence };
            writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        } else {
            for (name, piece) in &kept {
                let held = if piece.passed { "holds" } else { "does not hold" };
                writeln!(terminal.data(), "{name}: {} {held}: {}", piece.kind.as_str(), piece.says)?;
            }
        }
        Ok(if kept.iter().all(|(_, piece)| piece.passed) { Outcome::Done } else { Outcome::No })
    })
}

/// Reports, and the images that they are about.
struct Reported {
    reports: Vec<String>,
    images: Vec<(String, String)>,
}

/// The reports and images that are named, or those of a run of the pipeline; or what is not understood.
fn of_run(arguments: &AttestArguments) -> anyhow::Result<Result<Reported, String>> {
    let named = Reported { reports: arguments.reports.clone(), images: arguments.images.clone() };
    let Some(number) = arguments.run else { return Ok(Ok(named)) };
    let runs = Runs::beside(&folder_of(&arguments.place.file)?);
    let run = runs.read(number)?;
    let tests = arguments.what == Attested::TestsPassed;
    let mut reported = named;
    for (step, report) in run.reports(tests) {
        if step.state != State::Passed {
            return Ok(Err(format!(
                "`{}` of run {number} {}, whatever its reports say",
                step.name,
                step.state.as_str()
            )));
        }
        let path = runs.folder(number).join(&report.file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        if digest_of(&text) != report.digest {
            return Ok(Err(format!("`{}` is not what the run has kept: its digest is another", path.display())));
        }
        reported.reports.push(path.to_string_lossy().into_owned());
    }
    if reported.reports.is_empty() {
        let kind = if tests { "tests" } else { "a scan" };
        return Ok(Err(format!("run {number} has no report of {kind}: its steps write them into `$LANDFALL_REPORTS`")));
    }
    if reported.images.is_empty() {
        reported.images = run.images.into_iter().collect();
    }
    Ok(Ok(reported))
}

/// The pieces of evidence, one for each report; or what is not understood.
fn collect(
    arguments: &AttestArguments,
    reported: &Reported,
    target: &Target,
) -> anyhow::Result<Result<Vec<EvidenceSpec>, String>> {
    let kind = EvidenceKind::from(arguments.what);
    let environments = target.project.file.environments();
    let own = target.environment.clone().unwrap_or_default();
    let environment = arguments.seen_in.clone().unwrap_or(own);
    if let Some(seen_in) = &arguments.seen_in
        && !environments.contains(seen_in)
    {
        return Ok(Err(format!("there is no environment `{seen_in}`; there are {}", environments.join(", "))));
    }
    let services: Vec<String> = target.architecture.document.services.keys().map(ToString::to_string).collect();
    let unknown = |service: &str| format!("there is no service `{service}`; there are {}", services.join(", "));
    if let Some((service, _)) = reported.images.iter().find(|(service, _)| !services.contains(service)) {
        return Ok(Err(unknown(service)));
    }
    // What the file has, unless images are named.
    let images: BTreeMap<String, String> = match reported.images.as_slice() {
        [] => {
            let declared = target.architecture.document.services.iter();
            declared.filter_map(|(name, own)| Some((name.to_string(), own.image.as_ref()?.to_string()))).collect()
        }
        named => named.iter().cloned().collect(),
    };
    let blank = EvidenceSpec {
        architecture: target.name().to_owned(),
        kind,
        environment,
        images: BTreeMap::new(),
        since: None,
        at: Timestamp::from_second(Timestamp::now().as_second()).context("the clock is far from its time")?.to_string(),
        passed: true,
        says: arguments.because.clone().unwrap_or_default(),
        report: None,
        by: String::new(),
        statement: None,
        signature: None,
    };
    if reported.reports.is_empty() {
        return Ok(match (arguments.what, &arguments.because) {
            (Attested::TestsPassed | Attested::NoVulnerabilities, _) => {
                Err(format!("`{}` is shown by a report: add `--report FILE` or `--run NUMBER`", kind.as_str()))
            }
            (_, None) => Err(format!("`{}` is said by a person: add `--because TEXT`", kind.as_str())),
            (_, Some(_)) => Ok(vec![blank]),
        });
    }
    if !kind.is_about_images() {
        return Ok(Err(format!(
            "`{}` is said by a person: no report shows it yet, so leave `--report` out",
            kind.as_str()
        )));
    }
    let mut pieces = Vec::new();
    for report in &reported.reports {
        let (service, file) = match report.split_once('=') {
            Some((service, _)) if !services.iter().any(|own| own == service) => return Ok(Err(unknown(service))),
            Some((service, file)) => (Some(service), file),
            None => (None, report.as_str()),
        };
        let text = std::fs::read_to_string(Path::new(file)).with_context(|| format!("failed to read `{file}`"))?;
        let read = match read_report(&text) {
            Ok(read) => read,
            Err(why) => return Ok(Err(format!("`{file}`: {why}"))),
        };
        if read.tests != (kind == EvidenceKind::TestsPassed) {
            return Ok(Err(format!(
                "`{file}` is a report of {}, which does not show `{}`",
                read.format,
                kind.as_str()
            )));
        }
        let about: BTreeMap<String, String> = images
            .iter()
            .filter(|(name, _)| service.is_none_or(|own| own == *name))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect();
        if about.is_empty() {
            return Ok(Err(format!("`{file}` is about no image: add `--image SERVICE=IMAGE`")));
        }
        // A report that names another image says nothing of this one.
        if !read.images.is_empty() && about.values().any(|image| !read.images.iter().any(|named| is_same(named, image)))
        {
            return Ok(Err(format!(
                "`{file}` is about {}, and not about {}; name its service: `--report SERVICE={file}`",
                read.images.join(", "),
                about.values().cloned().collect::<Vec<_>>().join(", ")
            )));
        }
        let mut piece = EvidenceSpec {
            images: about,
            passed: read.passed,
            says: format!("{}: {}", read.format, read.says),
            report: Some(digest_of(&text)),
            ..blank.clone()
        };
        // A report is as old as it says, and not as its arrival.
        if let Some(at) = read.at.filter(|at| *at < Timestamp::now()) {
            piece.at = at.to_string();
        }
        pieces.push(piece);
    }
    Ok(Ok(pieces))
}

/// Whether two names are of one image: scanners leave out the registry of Docker, or name the digest alone.
fn is_same(named: &str, image: &str) -> bool {
    let plain = |name: &str| {
        let name = name.trim_start_matches("docker.io/").trim_start_matches("library/");
        name.to_owned()
    };
    let digest = |name: &str| name.split_once('@').map(|(_, digest)| digest.to_owned());
    plain(named) == plain(image) || digest(named).is_some() && digest(named) == digest(image)
}

/// A person signs what they say.
fn confirm(
    piece: &mut EvidenceSpec,
    target: &Target,
    policy: &Policy,
    key: Option<&Path>,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let at: Timestamp = piece.at.parse().context("a time that was just written can be read")?;
    let statement = Statement {
        decision: Decision::Confirm,
        architecture: target.name().to_owned(),
        namespace: target.namespace().to_owned(),
        subject: piece.kind.as_str().to_owned(),
        digest: digest_of(&piece.says),
        images: BTreeMap::new(),
        at,
        until: at + policy.expire(),
        because: Some(piece.says.clone()),
    };
    let text = statement.text();
    text.lines().try_for_each(|line| terminal.say(line))?;
    piece.signature = Some(sign(&text, key, policy)?);
    piece.statement = Some(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn scanners_name_images_in_their_own_ways() {
        assert!(is_same("nginx:1", "docker.io/library/nginx:1"));
        assert!(is_same("shop/web@sha256:aa", "ghcr.io/shop/web:2@sha256:aa"));
        assert!(!is_same("shop/web:1", "shop/web:2"));
        assert!(!is_same("shop/web@sha256:aa", "shop/web@sha256:bb"));
    }
}
