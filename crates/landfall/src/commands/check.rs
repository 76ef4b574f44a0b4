//! `landfall check`: findings and proofs for every environment.

use std::io::Write;

use landfall_check::{Report, Verdict, merge};
use landfall_model::{Finding, Severity};

use crate::Outcome;
use crate::cli::{CheckArguments, Deny, Output};
use crate::output::{CheckOutput, verdict};
use crate::project::{Project, today};
use crate::terminal::Terminal;

/// Checks the file and prints what was found.
pub(crate) fn run(arguments: &CheckArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let project = Project::read(&arguments.input.file)?;
    let (report, understood) = report(&project, arguments);
    if arguments.output == Output::Json {
        let document = CheckOutput::new(&report, project.file.sources());
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
    } else {
        terminal.findings(&report.findings, project.file.sources())?;
        if arguments.explain {
            proofs(&report, terminal)?;
        }
        terminal.say(&summary(&report, &project, arguments.input.environment.as_deref()))?;
    }
    let denied = match arguments.deny {
        None => report.count(Severity::Error),
        Some(Deny::Warnings) => report.count(Severity::Error) + report.count(Severity::Warning),
        Some(Deny::Notes) => report.findings.len(),
    };
    Ok(if !understood {
        Outcome::NotUnderstood
    } else if denied > 0 {
        Outcome::No
    } else {
        Outcome::Done
    })
}

/// The report on every wanted environment, and whether the file could be read at all.
fn report(project: &Project, arguments: &CheckArguments) -> (Report, bool) {
    let today = today(arguments.today);
    let mut reports = Vec::new();
    let mut unread: Vec<Finding> = Vec::new();
    for environment in project.environments(arguments.input.environment.as_deref()) {
        match project.check(environment.as_deref(), today) {
            Ok(checked) => reports.push((environment, checked.report)),
            // What keeps one environment from being read usually keeps all of them: it is said once.
            Err(findings) => {
                unread.extend(findings.into_iter().filter(|finding| !unread.contains(finding)).collect::<Vec<_>>());
            }
        }
    }
    if !unread.is_empty() {
        return (Report { findings: unread, ..Report::default() }, false);
    }
    let named: Vec<(String, Report)> =
        reports.into_iter().map(|(name, report)| (name.unwrap_or_default(), report)).collect();
    let all = named.len();
    let mut merged = merge(named);
    // An environment is worth naming only when a finding does not hold in all of them.
    let findings = merged.findings.iter_mut().chain(&mut merged.waived).map(|finding| &mut finding.environments);
    let proofs = merged.proofs.iter_mut().map(|proof| &mut proof.environments);
    findings.chain(proofs).filter(|environments| environments.len() == all).for_each(Vec::clear);
    (merged, true)
}

fn proofs(report: &Report, terminal: &mut Terminal) -> anyhow::Result<()> {
    let colored = terminal.colored();
    let out = terminal.data();
    for proof in &report.proofs {
        let code = match proof.verdict {
            Verdict::Proved => "32",
            Verdict::Refuted => "31",
            Verdict::Undecided => "33",
        };
        let word = verdict(proof.verdict);
        let word = if colored { format!("\u{1b}[1;{code}m{word}\u{1b}[0m") } else { word.to_owned() };
        let environments =
            if proof.environments.is_empty() { String::new() } else { format!(" ({})", proof.environments.join(", ")) };
        writeln!(out, "{word}[{}] {}: {}{environments}", proof.rule, proof.subject, proof.statement)?;
        for line in &proof.derivation {
            writeln!(out, "    {line}")?;
        }
        for line in &proof.assumed {
            writeln!(out, "    assumed: {line}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// `balance-alerts: 0 errors, 2 warnings; 14 proved, 1 refuted, 2 undecided (development, production)`.
fn summary(report: &Report, project: &Project, wanted: Option<&str>) -> String {
    let count = |severity, word: &str| {
        let count = report.count(severity);
        format!("{count} {word}{}", if count == 1 { "" } else { "s" })
    };
    let mut parts =
        vec![count(Severity::Error, "error"), count(Severity::Warning, "warning"), count(Severity::Note, "note")];
    if !report.waived.is_empty() {
        parts.push(format!("{} waived", report.waived.len()));
    }
    let verdicts = |wanted| report.proofs.iter().filter(|proof| proof.verdict == wanted).count();
    let mut line = parts.join(", ");
    if !report.proofs.is_empty() {
        line += &format!(
            "; {} proved, {} refuted, {} undecided",
            verdicts(Verdict::Proved),
            verdicts(Verdict::Refuted),
            verdicts(Verdict::Undecided)
        );
    }
    let environments: Vec<String> = project.environments(wanted).into_iter().flatten().collect();
    if environments.is_empty() { line } else { format!("{line} ({})", environments.join(", ")) }
}
