//! The first minutes of a user, replayed: the commands of a transcript, in a fresh copy of its example.
//!
//! Run it with `cargo xtask journey`, which builds the binary first.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use landfall_testing::{check_text, replay};

#[test]
fn the_journey_through_balance_alerts_reads_as_recorded() {
    check("balance-alerts");
}

/// Replays the transcript `name` in a copy of the example `name`.
fn check(name: &str) {
    let programs = env::var_os("LANDFALL_PROGRAMS").map(PathBuf::from).expect("run it with `cargo xtask journey`");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let transcript = root.join("tests/journey").join(format!("{name}.transcript"));
    let recorded = fs::read_to_string(&transcript)
        .unwrap_or_else(|error| panic!("failed to read `{}`: {error}", transcript.display()));

    let directory = tempfile::tempdir().expect("a temporary folder can be made");
    let example = root.join("examples").join(name);
    copy(&example, directory.path()).unwrap_or_else(|error| panic!("failed to copy `{}`: {error}", example.display()));
    let replayed = replay(&recorded, directory.path(), &programs).expect("the transcript can be replayed");
    check_text(&transcript, &replayed);
}

/// Copies what a user writes. `rendered` stays behind: the journey renders it anew.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), target)?;
        } else if entry.file_name() != "rendered" {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}
