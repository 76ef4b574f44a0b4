//! `landfall abort`: a release goes no further.

use kube::ResourceExt;
use landfall_deliver::{Author, Demand, Phase, Release, demand, list, phase_of};

use crate::Outcome;
use crate::cli::AbortArguments;
use crate::commands::ship::{Target, finish, holder, in_a_cluster, wait_or_carry};
use crate::terminal::Terminal;

/// Stops what is under way, if it is what is meant. The answer is no when nothing is, or another one, or when it goes back already.
pub(crate) fn run(arguments: &AbortArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let place = &arguments.place;
    let target = match Target::find(&place.file, place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &place.cluster, terminal, async |client, terminal| {
        let releases = list(&client, target.namespace(), target.name()).await?;
        let under_way = releases.iter().find(|release| !phase_of(release).is_terminal());
        if let Some(why) = not_meant(arguments.release.as_deref(), under_way, &releases) {
            terminal.say(&format!("error: {why}\nhint: `landfall releases` lists them"))?;
            return Ok(Outcome::No);
        }
        let Some(release) = under_way else {
            terminal.say("no release is under way")?;
            return Ok(Outcome::No);
        };
        let author = Author::of(&client, target.namespace(), target.name(), &holder()).await?;
        demand(&client, release, Demand::Abort, &author).await?;
        let ended = wait_or_carry(&client, &target, &release.name_any(), terminal).await?;
        // What had not begun is at its end.
        let nothing_done = phase_of(release) == Phase::Pending;
        finish(&ended, place.output, terminal, |phase| {
            matches!(phase, Phase::Held { .. }) || nothing_done && phase.is_terminal()
        })
    })
}

/// Why the release that is meant is not the one that is under way; nothing when it is, or when whichever is under way is meant.
fn not_meant(meant: Option<&str>, under_way: Option<&Release>, releases: &[Release]) -> Option<String> {
    let meant = meant?;
    let name = under_way.map(ResourceExt::name_any);
    if name.as_deref() == Some(meant) {
        return None;
    }
    let state = match releases.iter().find(|release| release.name_any() == meant) {
        Some(release) => format!("release `{meant}` has ended ({})", phase_of(release).name()),
        None => format!("there is no release `{meant}`"),
    };
    Some(match name {
        Some(other) => format!("{state}; `{other}` is under way, and goes on"),
        None => format!("{state}, and none is under way"),
    })
}
