//! One `up` after the other: whoever comes second asks the first to end without its pods, and goes on with them.
//!
//! The first is asked by a signal. It ends as if it were killed, but in order, so that whatever becomes of the second meanwhile, the
//! pods run on, and the next `up` finds them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::{Occupied, Place, Stay};
use crate::Outcome;
use crate::cli::UpArguments;
use crate::terminal::Terminal;

/// How long the first may take to end; if somebody has stopped it just before, its pods have half a minute.
const PATIENCE: Duration = Duration::from_secs(90);

const POLL: Duration = Duration::from_millis(50);

/// Occupies the place, if need be after another `up`. `Err`: that cannot be, and the terminal has been told why.
pub(super) fn enter(
    place: &Place,
    arguments: &UpArguments,
    terminal: &mut Terminal,
) -> anyhow::Result<Result<Occupied, Outcome>> {
    let stay = if arguments.once { Stay::UntilReported } else { Stay::UntilStopped };
    let deadline = Instant::now() + PATIENCE;
    let mut asked = None;
    loop {
        match (place.occupant(), asked) {
            (None, _) => {
                if let Some(occupied) = place.occupy(stay)? {
                    return Ok(Ok(occupied));
                }
            }
            (Some(occupant), None) if arguments.once || occupant.stay != Stay::UntilStopped => {
                terminal.say(&refusal(occupant.process, arguments.once))?;
                return Ok(Err(Outcome::No));
            }
            (Some(occupant), None) => {
                let process = occupant.process;
                terminal.say(&format!("it is up already, in the process {process}: this one takes over"))?;
                match kill(Pid::from_raw(i32::try_from(process)?), Signal::SIGUSR1) {
                    // It has just ended.
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => {
                        return Err(error).with_context(|| format!("failed to ask the process {process} to let go"));
                    }
                }
                asked = Some(process);
            }
            (Some(occupant), Some(asked)) => {
                let other = occupant.process;
                anyhow::ensure!(other == asked, "another `landfall up` came first, in the process {other}");
            }
        }
        let seconds = PATIENCE.as_secs();
        anyhow::ensure!(
            Instant::now() < deadline,
            "whoever runs it has not let go within {seconds} s\nhint: `landfall down` stops it, its data stays"
        );
        thread::sleep(POLL);
    }
}

/// Why one of the two cannot go on for the other.
fn refusal(process: u32, once: bool) -> String {
    let why = if once {
        "`--once` would take it over and stop it"
    } else {
        "it was started with `--once`, and stops by itself"
    };
    format!(
        "error: it is up already, in the process {process}: {why}\nhint: `landfall status` says how it is, `landfall down` stops it"
    )
}
