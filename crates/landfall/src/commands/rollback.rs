//! `landfall rollback`: the version before a release comes back.

use kube::ResourceExt as _;
use landfall_deliver::{Author, Demand, Phase, create, demand, list, phase_of, propose_return};

use crate::Outcome;
use crate::cli::RollbackArguments;
use crate::commands::ship::{Target, Told, carry_out, finish, holder, in_a_cluster, say, take, wait_or_carry};
use crate::terminal::Terminal;

/// Takes back what is under way, or else what has succeeded.
pub(crate) fn run(arguments: &RollbackArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let target = match Target::find(&arguments.place.file, arguments.place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &arguments.place.cluster, terminal, async |client, terminal| {
        let releases = list(&client, target.namespace(), target.name()).await?;
        let author = Author::of(&client, target.namespace(), target.name(), &holder()).await?;
        let wanted = arguments.release.as_deref();
        let under_way = releases.iter().find(|release| {
            !phase_of(release).is_terminal() && wanted.is_none_or(|wanted| wanted == release.name_any())
        });
        if let Some(release) = under_way {
            demand(&client, release, Demand::RollBack, &author).await?;
            let ended = wait_or_carry(&client, &target, &release.name_any(), terminal).await?;
            return finish(&ended, arguments.place.output, terminal, |phase| matches!(phase, Phase::RolledBack { .. }));
        }
        let Some(lock) = take(&client, &target, terminal).await? else { return Ok(Outcome::No) };
        let proposal = propose_return(&client, target.namespace(), target.name(), wanted).await;
        let refused = match &proposal {
            Ok(Ok(proposal)) => proposal.refusals.first().cloned(),
            Ok(Err(why)) => Some(why.clone()),
            Err(_) => None,
        };
        if let Some(why) = refused {
            lock.release().await;
            terminal.say(&format!("error: {why}\nhint: `landfall releases` lists them"))?;
            return Ok(Outcome::No);
        }
        let Ok(proposal) = proposal? else { return Ok(Outcome::No) };
        say(&proposal, terminal)?;
        let release = create(&client, &proposal, &author).await?;
        let name = release.name_any();
        terminal.say(&format!("release `{name}`"))?;
        let ended = carry_out(&client, &target, &name, lock, &mut Told::default(), terminal).await?;
        finish(&ended, arguments.place.output, terminal, |phase| *phase == Phase::Succeeded)
    })
}
