//! `landfall signers`: who may approve.

use std::io::Write as _;

use anyhow::Context as _;
use landfall_deliver::{Author, SignersState, Tally, propose_signers};

use crate::Outcome;
use crate::cli::{Output, Place, SignersCommand, SignersSetArguments};
use crate::commands::ship::{Target, holder, in_a_cluster};
use crate::output::SignersOutput;
use crate::terminal::Terminal;

/// Prints who may approve, or says who may.
pub(crate) fn run(command: &SignersCommand, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    match command {
        SignersCommand::Show(place) => show(place, terminal),
        SignersCommand::Set(arguments) => set(arguments, terminal),
    }
}

fn show(place: &Place, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let target = match Target::find(&place.file, place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &place.cluster, terminal, async |client, terminal| {
        let (state, _) = SignersState::read(&client, target.namespace(), target.name()).await?;
        print(&state, place.output, terminal)?;
        Ok(if state.problems.is_empty() { Outcome::Done } else { Outcome::No })
    })
}

fn print(state: &SignersState, output: Output, terminal: &mut Terminal) -> anyhow::Result<()> {
    if output == Output::Json {
        let document = SignersOutput::new(state.policy.as_ref(), state.proposed.as_ref(), &state.problems);
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
    } else {
        match &state.policy {
            None => terminal.say("nobody may approve yet")?,
            Some(policy) => {
                writeln!(
                    terminal.data(),
                    "list {}: {} of {} approve, for {} s",
                    policy.number,
                    policy.count,
                    policy.of.join(", "),
                    policy.expire_seconds
                )?;
                for signer in &policy.signers {
                    let groups =
                        if signer.groups.is_empty() { "no group".to_owned() } else { signer.groups.join(", ") };
                    writeln!(terminal.data(), "  {} ({groups}) {}", signer.person, signer.fingerprint())?;
                }
            }
        }
        if let Some((list, tally)) = &state.proposed {
            let name = list.name();
            let names = Tally::names(&tally.approved);
            let needed = state.policy.as_ref().map_or(0, |policy| policy.count);
            writeln!(
                terminal.data(),
                "proposed as `{name}`, {}: {} of {} approve; {} of {needed} have signed it",
                list.digest(),
                list.count,
                list.of.join(", "),
                names.len()
            )?;
            for line in list.list.lines() {
                writeln!(terminal.data(), "  {line}")?;
            }
            for name in names {
                writeln!(terminal.data(), "  signed by {name}")?;
            }
        }
    }
    terminal.flush()?;
    for problem in &state.problems {
        terminal.say(&format!("error: {problem}"))?;
    }
    Ok(())
}

fn set(arguments: &SignersSetArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let place = &arguments.place;
    let target = match Target::find(&place.file, place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    let declared = target.architecture.environment().and_then(|environment| environment.approvals.as_ref());
    let Some(declared) = declared else {
        terminal.say(&format!(
            "error: the file does not say how many approve{}\nhint: declare `approvals: {{ of: [platform-leads], count: 2 }}` there, and `deploy: approval`",
            target.flag()
        ))?;
        return Ok(Outcome::NotUnderstood);
    };
    let list = std::fs::read_to_string(&arguments.list)
        .with_context(|| format!("failed to read `{}`", arguments.list.display()))?;
    let of: Vec<String> = declared.of.iter().map(ToString::to_string).collect();
    let (count, expire) = (declared.count.value, declared.expire.seconds());
    in_a_cluster(&target, &place.cluster, terminal, async |client, terminal| {
        let author = Author::of(&client, target.namespace(), target.name(), &holder()).await?;
        let (state, _) = SignersState::read(&client, target.namespace(), target.name()).await?;
        if let Some((proposed, _)) = &state.proposed {
            terminal.say(&format!(
                "error: `{0}` is proposed already\nhint: `landfall approve {0}{1}` approves it; whoever wrote it may take it away: `kubectl delete signers {0} -n {2}`",
                proposed.name(),
                target.flag(),
                target.namespace()
            ))?;
            return Ok(Outcome::No);
        }
        let next = state.next(target.name(), of, count, expire, list);
        if let Err(why) = next.policy() {
            terminal.say(&format!("error: `{}`: {why}", arguments.list.display()))?;
            return Ok(Outcome::NotUnderstood);
        }
        let name = next.name();
        propose_signers(&client, target.namespace(), &author, next).await?;
        let (state, _) = SignersState::read(&client, target.namespace(), target.name()).await?;
        print(&state, place.output, terminal)?;
        if state.proposed.is_some() {
            terminal.say(&format!("hint: it counts when it is signed: `landfall approve {name}{}`", target.flag()))?;
        }
        Ok(Outcome::Done)
    })
}
