//! `landfall promote FROM TO`: what runs in one environment goes to the next, through its gates.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::Client;
use landfall_deliver::{Author, Running, Wanted, attest, has_digest, propose, what_runs};

use crate::Outcome;
use crate::cli::{ClusterArguments, PromoteArguments};
use crate::commands::ship::{
    How, Shipping, Target, connect, holder, in_a_cluster, is_engine, ship, show_plan, take, understood, wait,
};
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
    in_a_cluster(&to, &arguments.cluster, terminal, async |client, terminal| {
        let mut running = match look(arguments, &from, terminal).await? {
            Ok(running) => running,
            Err(outcome) => return Ok(outcome),
        };
        let mut lock = None;
        if arguments.wait {
            let Some(waited) = wait(&client, &to, terminal).await? else { return Ok(Outcome::No) };
            // Another version may run there by now.
            running = match look(arguments, &from, terminal).await {
                Ok(Ok(running)) => running,
                other => {
                    waited.release().await;
                    return other.map(|looked| looked.err().unwrap_or(Outcome::No));
                }
            };
            lock = Some(waited);
        }
        // What the next environment does not have stays behind.
        let images: BTreeMap<String, String> = running
            .images
            .iter()
            .filter(|(service, _)| to.architecture.service(service).is_some())
            .map(|(service, image)| (service.clone(), image.clone()))
            .collect();
        let are_refused = are_refused(&client, &images, arguments, terminal).await;
        if !matches!(are_refused, Ok(false)) {
            if let Some(waited) = lock {
                waited.release().await;
            }
            return are_refused.map(|_| Outcome::No);
        }
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
        let lock = match lock {
            Some(lock) => lock,
            None => match take(&client, &to, terminal).await? {
                Some(lock) => lock,
                None => return Ok(Outcome::No),
            },
        };
        let how = if arguments.detach { How::Detached } else { How::Followed };
        let shipping = Shipping { target: &to, author: &author, how, output: arguments.output };
        ship(&client, wanted, lock, &shipping, terminal).await
    })
}

/// Whether one of the images is a tag, which is told: nobody knows whether what it names by now is what has run. An engine has its
/// images from a catalogue, which knows no digests.
async fn are_refused(
    client: &Client,
    images: &BTreeMap<String, String>,
    arguments: &PromoteArguments,
    terminal: &mut Terminal,
) -> anyhow::Result<bool> {
    let mut tagged = images.iter().filter(|(_, image)| !has_digest(image)).peekable();
    if tagged.peek().is_none() || is_engine(client).await? {
        return Ok(false);
    }
    let from = &arguments.from;
    for (service, image) in tagged {
        terminal.say(&format!(
            "error: in `{from}`, `{service}` runs `{image}`, which is a tag: what it names may be another by now\nhint: `landfall ship --env {from} --image {service}={image}` ships what it names now by its digest"
        ))?;
    }
    Ok(true)
}

/// What runs in FROM, if it has run there long enough.
async fn look(
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
    let Some(client) = connect(from, &cluster, terminal).await? else { return Ok(Err(Outcome::NotUnderstood)) };
    match what_runs(&client, &from.architecture).await? {
        Ok(running) => {
            let ran = Timestamp::now().duration_since(running.since).as_secs();
            let left = i64::try_from(soak).unwrap_or(i64::MAX).saturating_sub(ran);
            if left > 0 {
                terminal.say(&format!(
                    "error: what runs in `{0}` has run since {1}, and soaks for {soak} s: {left} s are left\nhint: `soak` of `{0}` says how long",
                    arguments.from, running.since
                ))?;
                return Ok(Err(Outcome::No));
            }
            Ok(Ok(running))
        }
        Err(problems) => {
            for problem in problems {
                terminal.say(&format!("error: in `{}`: {problem}", arguments.from))?;
            }
            Ok(Err(Outcome::No))
        }
    }
}
