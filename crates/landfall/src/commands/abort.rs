//! `landfall abort`: a release goes no further.

use kube::ResourceExt as _;
use landfall_deliver::{Author, Demand, Phase, demand, list, phase_of};

use crate::Outcome;
use crate::cli::AbortArguments;
use crate::commands::ship::{Target, finish, holder, in_a_cluster, wait_or_carry};
use crate::terminal::Terminal;

/// Stops what is under way. The answer is no when nothing is, or when it goes back already.
pub(crate) fn run(arguments: &AbortArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let target = match Target::find(&arguments.input.file, arguments.input.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &arguments.cluster, terminal, async |client, terminal| {
        let releases = list(&client, target.namespace(), target.name()).await?;
        let Some(release) = releases.iter().find(|release| !phase_of(release).is_terminal()) else {
            terminal.say("no release is under way")?;
            return Ok(Outcome::No);
        };
        let author = Author::of(&client, target.namespace(), target.name(), &holder()).await?;
        demand(&client, release, Demand::Abort, &author).await?;
        let ended = wait_or_carry(&client, &target, &release.name_any(), terminal).await?;
        // What had not begun is at its end.
        let nothing_done = phase_of(release) == Phase::Pending;
        finish(&ended, arguments.output, terminal, |phase| {
            matches!(phase, Phase::Held { .. }) || nothing_done && phase.is_terminal()
        })
    })
}
