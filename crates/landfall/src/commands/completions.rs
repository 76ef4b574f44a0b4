//! `landfall completions`: completions for a shell.

use clap::CommandFactory;

use crate::Outcome;
use crate::cli::{Cli, CompletionsArguments};
use crate::terminal::Terminal;

/// Prints the completions.
pub(crate) fn run(arguments: &CompletionsArguments, terminal: &mut Terminal) -> Outcome {
    clap_complete::generate(arguments.shell, &mut Cli::command(), "landfall", terminal.data());
    Outcome::Done
}
