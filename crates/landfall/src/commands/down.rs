//! `landfall down`: stops a platform that is up.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Outcome;
use crate::cli::DownArguments;
use crate::commands::up::{self, Place};
use crate::project::Project;
use crate::terminal::Terminal;

/// How long it may take until all pods have ended; their grace is half a minute.
const PATIENCE: Duration = Duration::from_secs(90);

const POLL: Duration = Duration::from_millis(50);

/// Stops every wanted environment that is up.
pub(crate) fn run(arguments: &DownArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let project = Project::read(&arguments.input.file)?;
    for environment in project.environments(arguments.input.environment.as_deref()) {
        let architecture = match project.file.architecture(environment.as_deref()) {
            Ok(architecture) => architecture,
            Err(findings) => {
                terminal.findings(&findings, project.file.sources())?;
                return Ok(Outcome::NotUnderstood);
            }
        };
        let place = Place::of(&arguments.input.file, architecture.document.name.as_str(), environment.as_deref());
        let named = environment.as_deref().unwrap_or("it");
        match place.occupant() {
            Some(occupant) => {
                let process = Pid::from_raw(i32::try_from(occupant.process)?);
                kill(process, Signal::SIGTERM)?;
                let deadline = Instant::now() + PATIENCE;
                while place.occupant().is_some() {
                    anyhow::ensure!(Instant::now() < deadline, "the process {process} does not end");
                    std::thread::sleep(POLL);
                }
                terminal.say(&format!("{named}: stopped"))?;
            }
            None => match up::end_left_running(&place)? {
                0 => terminal.say(&format!("{named}: not up"))?,
                pods => terminal.say(&format!("{named}: not up; {pods} pods that were left running are stopped"))?,
            },
        }
        if arguments.delete_data && place.root.exists() {
            place.delete()?;
            terminal.say(&format!("{named}: data deleted"))?;
        }
    }
    Ok(Outcome::Done)
}
