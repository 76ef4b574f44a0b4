//! Transcripts: commands and what they printed, as a person would paste them into an issue, run again by a test.
//!
//! ```text
//! $ landfall check landfall.yaml
//! error[…]: …
//! [exit 1]
//!
//! $ ls
//! landfall.yaml
//! ```
//!
//! A line that begins with `$ ` is a command for `bash -c`; the lines below it are its standard output and standard
//! error as they came; `[exit N]` follows when `N` is not zero. Lines above the first command are kept as they are.
//! Each command starts in the same folder with no standard input; a `cd` does not reach the next one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io, iter};

/// The units in which a measured time is printed; see [`mask_times`].
const UNITS: [&str; 6] = ["ns", "µs", "us", "ms", "s", "min"];

/// Why a transcript could not be replayed. A command that exits with a code is none of these: that is its answer.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The shell did not start.
    #[error("failed to start `{command}`")]
    Start {
        /// The command of the transcript.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// `PATH` cannot hold the folder of the programs.
    #[error("failed to put `{}` on PATH", programs.display())]
    Path {
        /// The folder of the programs.
        programs: PathBuf,
        /// What forbids it, such as a colon in the name.
        source: env::JoinPathsError,
    },
    /// The output has a line that would be read as a command when the transcript is replayed.
    #[error("`{command}` printed a line that reads like a command of a transcript: `{line}`")]
    Ambiguous {
        /// The command of the transcript.
        command: String,
        /// The line.
        line: String,
    },
}

/// Runs the commands of `transcript` in `directory`, with the programs of the folder `programs` before those of `PATH`,
/// and returns the transcript of this run, measured times masked. Equal texts mean that nothing changed.
pub fn replay(transcript: &str, directory: &Path, programs: &Path) -> Result<String, ReplayError> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(iter::once(programs.to_owned()).chain(env::split_paths(&inherited)))
        .map_err(|source| ReplayError::Path { programs: programs.to_owned(), source })?;

    let preamble = transcript.lines().take_while(|line| !line.starts_with("$ ")).collect::<Vec<_>>().join("\n");
    let mut sections = Vec::new();
    if !preamble.trim().is_empty() {
        sections.push(format!("{}\n", preamble.trim_end()));
    }
    for command in transcript.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let output = Command::new("bash")
            // One pipe for both streams, so that they come in the order in which they were written.
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .current_dir(directory)
            .stdin(Stdio::null())
            .env("PATH", &path)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("NO_COLOR", "1")
            .env_remove("RUST_BACKTRACE")
            .env_remove("LANDFALL_BLESS")
            .output()
            .map_err(|source| ReplayError::Start { command: command.to_owned(), source })?;
        let printed = mask_times(&String::from_utf8_lossy(&output.stdout));
        if let Some(line) = printed.lines().find(|line| line.starts_with("$ ")) {
            return Err(ReplayError::Ambiguous { command: command.to_owned(), line: line.to_owned() });
        }
        let mut section = format!("$ {command}\n{printed}");
        if !section.ends_with('\n') {
            section.push('\n');
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => writeln!(section, "[exit {code}]").expect("a string takes every text"),
            None => writeln!(section, "[{}]", output.status).expect("a string takes every text"),
        }
        sections.push(section);
    }
    Ok(sections.join("\n"))
}

/// Replaces measured times, such as `12.3 ms` or `4 s`, by `<time>`.
///
/// The space is what tells them apart: a measured time is printed with one, and a declared duration (`30s`) without, as
/// in the file that declares it. So declared ones stay in the golden text.
pub fn mask_times(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        masked.push_str(before);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let stands_alone = !masked.ends_with(|c: char| c.is_alphanumeric() || ".-_".contains(c));
        if let Some(length) = unit_after(&number[end..]).filter(|_| stands_alone) {
            masked.push_str("<time>");
            rest = &number[end + length..];
        } else {
            masked.push_str(&number[..end]);
            rest = &number[end..];
        }
    }
    masked + rest
}

/// The length of ` ms` or the like at the beginning of `text`.
fn unit_after(text: &str) -> Option<usize> {
    let word = text.strip_prefix(' ')?;
    let unit = &word[..word.find(|c: char| !c.is_alphanumeric()).unwrap_or(word.len())];
    UNITS.contains(&unit).then_some(1 + unit.len())
}

#[cfg(test)]
mod tests {
    use super::{mask_times, replay};
    use std::path::Path;

    fn check(transcript: &str, expected: &str) {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let replayed = replay(transcript, directory.path(), Path::new("/usr/bin")).expect("bash starts");
        assert_eq!(replayed, expected);
    }

    #[test]
    fn output_of_both_streams_comes_in_order() {
        check(
            "$ echo one; echo two >&2; echo three\nstale\n",
            "$ echo one; echo two >&2; echo three\none\ntwo\nthree\n",
        );
    }

    #[test]
    fn an_exit_code_is_written_unless_it_is_zero() {
        check("$ exit 3\n$ true", "$ exit 3\n[exit 3]\n\n$ true\n");
    }

    #[test]
    fn commands_share_a_folder_and_the_text_above_them_is_kept() {
        check("# Why.\n\n$ echo -n hi > f\n$ cat f\n", "# Why.\n\n$ echo -n hi > f\n\n$ cat f\nhi\n");
    }

    #[test]
    fn a_replayed_transcript_is_its_own_replay() {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let once =
            replay("# Why.\n$ pwd | wc -l\n$ false\n", directory.path(), Path::new("/usr/bin")).expect("bash starts");
        check(&once, &once);
    }

    #[test]
    fn output_that_reads_like_a_command_is_refused() {
        let error = replay("$ echo '$ ls'", Path::new("."), Path::new("/usr/bin")).expect_err("it is ambiguous");
        insta::assert_snapshot!(error, @"`echo '$ ls'` printed a line that reads like a command of a transcript: `$ ls`");
    }

    #[test]
    fn measured_times_are_masked_and_declared_ones_stay() {
        for (text, masked) in [
            ("checked in 12.3 ms", "checked in <time>"),
            ("took 4 s.", "took <time>."),
            ("(850 µs, 3 files)", "(<time>, 3 files)"),
            ("rto 60s, measured 7.25 s", "rto 60s, measured <time>"),
            ("3 services", "3 services"),
            ("v1.2 s3 10 msgs", "v1.2 s3 10 msgs"),
            ("no number", "no number"),
            ("ends in 5", "ends in 5"),
        ] {
            assert_eq!(mask_times(text), masked);
        }
    }
}
