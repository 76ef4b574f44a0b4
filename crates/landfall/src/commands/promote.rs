//! `landfall promote FROM TO`: what runs in one environment goes to the next, through its gates.

use std::collections::BTreeMap;

use jiff::Timestamp;
use landfall_deliver::{Author, Running, Wanted, attest, propose, what_runs};

use crate::Outcome;
use crate::cli::{ClusterArguments, PromoteArguments};
use crate::commands::ship::{How, Shipping, Target, holder, in_a_cluster, ship, show_plan, take, understood};
use crate::terminal::Terminal;

/// Promotes, or says what would be promoted.
pub(crate) fn run(arguments: &PromoteArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let from = match Target::find(&arguments.file, Some(&arguments.from), terminal)? {
        Ok(from) => from,
        Err(outcome) => return Ok(outcome),
    };
    let to = match Target::find(&arguments.file, Some(&arguments.to), terminal)? {
        Ok(to) => to,
        Err(outcome) => return Ok(outcome),
    };
    let after = to.architecture.environment().and_then(|environment| environment.after.as_ref());
    if let Some(after) = after
        && after.as_str() != arguments.from
    {
        terminal.say(&format!(
            "error: `{}` gets what has run in `{after}`, and not in `{}`",
            arguments.to, arguments.from
        ))?;
        return Ok(Outcome::NotUnderstood);
    }
    let checked = match understood(&to, terminal)? {
        Ok(checked) => checked,
        Err(outcome) => return Ok(outcome),
    };
    let running = match look(arguments, &from, terminal)? {
        Ok(running) => running,
        Err(outcome) => return Ok(outcome),
    };
    // What the next environment does not have stays behind.
    let images: BTreeMap<String, String> = running
        .images
        .iter()
        .filter(|(service, _)| to.architecture.service(service).is_some())
        .map(|(service, image)| (service.clone(), image.clone()))
        .collect();
    in_a_cluster(&to, &arguments.cluster, terminal, async |client, terminal| {
        let author = Author::of(&client, to.namespace(), to.name(), &holder()).await?;
        let seen = running.evidence(to.name(), &arguments.from, author.who(), Timestamp::now());
        attest(&client, to.namespace(), &author, seen).await?;
        let wanted = Wanted {
            architecture: &checked.architecture,
            objects: &checked.objects,
            images: &images,
            prometheus: arguments.prometheus.as_deref(),
        };
        if arguments.plan {
            let proposal = propose(&client, wanted).await?;
            return show_plan(&proposal, arguments.output, terminal);
        }
        let Some(lock) = take(&client, &to, terminal).await? else { return Ok(Outcome::No) };
        let how = if arguments.detach { How::Detached } else { How::Followed };
        let shipping = Shipping { target: &to, author: &author, how, output: arguments.output };
        ship(&client, wanted, lock, &shipping, terminal).await
    })
}

/// What runs in FROM, if it has run there long enough.
fn look(
    arguments: &PromoteArguments,
    from: &Target,
    terminal: &mut Terminal,
) -> anyhow::Result<Result<Running, Outcome>> {
    let named = arguments.from_context.is_some() || arguments.from_kubeconfig.is_some();
    let cluster = if named {
        ClusterArguments { context: arguments.from_context.clone(), kubeconfig: arguments.from_kubeconfig.clone() }
    } else {
        arguments.cluster.clone()
    };
    let soak = from.architecture.environment().and_then(|environment| environment.soak.as_ref());
    let soak = soak.map_or(0, |soak| soak.seconds());
    let mut found = None;
    let outcome = in_a_cluster(from, &cluster, terminal, async |client, terminal| {
        match what_runs(&client, &from.architecture).await? {
            Ok(running) => {
                let ran = Timestamp::now().duration_since(running.since).as_secs();
                let left = i64::try_from(soak).unwrap_or(i64::MAX).saturating_sub(ran);
                if left > 0 {
                    terminal.say(&format!(
                        "error: what runs in `{0}` has run since {1}, and soaks for {soak} s: {left} s are left\nhint: `soak` of `{0}` says how long",
                        arguments.from, running.since
                    ))?;
                    return Ok(Outcome::No);
                }
                found = Some(running);
                Ok(Outcome::Done)
            }
            Err(problems) => {
                for problem in problems {
                    terminal.say(&format!("error: in `{}`: {problem}", arguments.from))?;
                }
                Ok(Outcome::No)
            }
        }
    })?;
    Ok(found.ok_or(outcome))
}
