//! The first minutes of a user, replayed: the commands of a transcript, in a fresh copy of its example.
//!
//! Run it with `cargo xtask journey`, which builds the binary first.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use landfall_testing::{Tool, check_text, replay, require_or_skip};

/// What a user exports once: each command of a transcript has a shell of its own. The cache of the user who runs the test
/// stays as it is.
const ON_THE_ENGINE: &str = "KUBECONFIG=landfall-engine/kubeconfig HOME=.";

/// The same, for what `up` runs.
const ON_THE_PLATFORM: &str = "KUBECONFIG=.landfall/balance-alerts-development/kubeconfig HOME=.";

#[test]
fn the_journey_through_balance_alerts_reads_as_recorded() {
    let programs = tempfile::tempdir().expect("a temporary folder can be made");
    link(&landfall(), programs.path(), "landfall");
    check("balance-alerts", "balance-alerts", programs.path());
}

#[test]
fn the_journey_goes_on_with_kubectl_on_the_engine() {
    let Some(programs) = with_kubectl(ON_THE_ENGINE) else { return };
    // One that every user may run: pods have users of their own.
    let python = Path::new("/usr/bin/python3");
    let python = if python.is_file() { Ok(python) } else { Err("there is no `/usr/bin/python3`") };
    if require_or_skip("python3", python).is_none() {
        return;
    }
    check("balance-alerts-on-the-engine", "balance-alerts", programs.path());
}

#[test]
fn the_journey_ends_with_the_whole_platform_on_this_machine() {
    for program in ["/usr/lib/postgresql", "/usr/bin/redis-server", "/usr/lib/rabbitmq/bin/rabbitmq-server"] {
        let found = if Path::new(program).exists() { Ok(()) } else { Err("`landfall doctor --install` gets it") };
        if require_or_skip(program, found).is_none() {
            return;
        }
    }
    let Some(programs) = with_kubectl(ON_THE_PLATFORM) else { return };
    check("balance-alerts-up", "balance-alerts", programs.path());
}

/// A folder with the program, and with `kubectl` in this environment.
fn with_kubectl(environment: &str) -> Option<tempfile::TempDir> {
    let kubectl = require_or_skip("kubectl", Tool::Kubectl.locate())?;
    let programs = tempfile::tempdir().expect("a temporary folder can be made");
    link(&landfall(), programs.path(), "landfall");
    let script = programs.path().join("kubectl");
    fs::write(&script, format!("#!/bin/sh\n{environment} exec '{}' \"$@\"\n", kubectl.display()))
        .expect("a file can be written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
    Some(programs)
}

/// The built program.
fn landfall() -> PathBuf {
    let programs = env::var_os("LANDFALL_PROGRAMS").expect("run it with `cargo xtask journey`");
    PathBuf::from(programs).join("landfall")
}

fn link(program: &Path, folder: &Path, name: &str) {
    std::os::unix::fs::symlink(program, folder.join(name)).expect("a link can be made");
}

/// How long an engine may take to end.
const STOP: Duration = Duration::from_mins(2);

/// Stops, however the test ends, the engine whose process id a transcript has left in a file.
struct StopEngine(PathBuf);

impl Drop for StopEngine {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            let _gone_already = Command::new("kill").arg(pid.trim()).status();
            // Its pods end before it does, and need their folder until then.
            let deadline = Instant::now() + STOP;
            while Path::new("/proc").join(pid.trim()).exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Replays the transcript `name` in a copy of an example, with these programs.
fn check(name: &str, example: &str, programs: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let transcript = root.join("tests/journey").join(format!("{name}.transcript"));
    let recorded = fs::read_to_string(&transcript)
        .unwrap_or_else(|error| panic!("failed to read `{}`: {error}", transcript.display()));

    let directory = tempfile::tempdir().expect("a temporary folder can be made");
    let _engine = StopEngine(directory.path().join("engine.pid"));
    let example = root.join("examples").join(example);
    copy(&example, directory.path()).unwrap_or_else(|error| panic!("failed to copy `{}`: {error}", example.display()));
    let replayed = replay(&recorded, directory.path(), programs).expect("the transcript can be replayed");
    check_text(&transcript, &replayed);
}

/// Copies what a user writes. `rendered` stays behind, as the journey renders it anew, and so does what the services are built
/// to, as the journey shows stand-ins, and what `landfall up` has left.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), target)?;
        } else if !["rendered", "bin", ".landfall"].iter().any(|made| entry.file_name() == *made) {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}
