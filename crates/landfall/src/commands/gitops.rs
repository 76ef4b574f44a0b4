//! `landfall gitops`: whether a platform that is up follows a Git repository, beside releases.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::json;

use super::up::{Found, GitopsReport, table};
use crate::Outcome;
use crate::cli::{GitopsArguments, Output};
use crate::output::VERSION;
use crate::project::Project;
use crate::signals::StopSignals;
use crate::terminal::Terminal;

/// Prints what was seen, and keeps it for `landfall claims`. The answer is no when something did not follow.
pub(crate) fn run(arguments: &GitopsArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    super::up::block_on(async {
        let found = match Found::find(&arguments.input, terminal).await? {
            Ok(found) => found,
            Err(outcome) => return Ok(outcome),
        };
        let project = Project::read(&arguments.input.file)?;
        let mut signals = StopSignals::listen()?;
        let mut followed = found.follow(project.file.sources()).await?;
        let mut said = Ok(());
        let tell = |what: &str| {
            if said.is_ok() {
                said = terminal.progress(what);
            }
        };
        let seen = tokio::select! {
            seen = followed.try_all(tell) => seen,
            () = signals.next() => Err(anyhow::anyhow!("it was stopped")),
        };
        let told = match (&seen, said) {
            (Ok(seen), Ok(())) => print(seen, arguments.output, terminal),
            (_, said) => said.map_err(Into::into),
        };
        if arguments.follow && seen.is_ok() && told.is_ok() {
            terminal.say("the repository is followed; Ctrl-C ends that")?;
            signals.next().await;
        }
        // Whatever has happened, nothing is left of it.
        followed.end().await?;
        told?;
        let seen = seen?;
        found.keep_gitops(&seen).context("failed to keep what was seen")?;
        Ok(if seen.problems().next().is_none() { Outcome::Done } else { Outcome::No })
    })
}

fn print(seen: &GitopsReport, output: Output, terminal: &mut Terminal) -> anyhow::Result<()> {
    if output == Output::Json {
        let mut text = json!(seen);
        text["version"] = json!(VERSION);
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&text)?)?;
        return Ok(terminal.flush()?);
    }
    let policy = if seen.automatic { "by itself" } else { "when somebody starts a sync" };
    writeln!(terminal.data(), "{}: {} objects, {policy}", seen.application, seen.objects)?;
    let mut lines = table(&["WHAT", "HOLDS", "AFTER"]);
    for step in &seen.steps {
        let after = step.seconds.map_or_else(String::new, |seconds| format!("{seconds:.1} s"));
        let holds = if step.problem.is_none() { "yes" } else { "no" };
        lines.add_row([step.says.clone(), holds.to_owned(), after]);
    }
    writeln!(terminal.data(), "{lines}")?;
    for problem in seen.problems() {
        writeln!(terminal.data(), "no     {problem}")?;
    }
    Ok(terminal.flush()?)
}
