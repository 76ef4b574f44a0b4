//! The command line: it reads files, prints, and decides the exit code. What things mean is left to the other crates.
//!
//! Exit codes are a contract: 0 done · 1 the answer is no · 2 arguments or input not understood · 3 the world failed.

mod cli;
mod commands;
mod files;
mod namespaces;
mod output;
mod project;
mod signals;
mod terminal;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use landfall_deliver::Decision;

use crate::cli::{Cli, Command, ReleaseCommand};
use crate::commands::freeze::Wanted;
use crate::terminal::Terminal;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a command ended, when nothing in the world failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Done.
    Done,
    /// The answer is no: a promise is refuted, files differ.
    No,
    /// The input was not understood; findings say why.
    NotUnderstood,
}

fn main() -> ExitCode {
    // The engine starts this program again for the parts of it that need a process with one thread.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(mode) if mode == commands::engine::POD => {
            return landfall_engine::shim_main(&arguments.collect::<Vec<_>>());
        }
        Some(mode) if mode == commands::engine::NETWORK => {
            return landfall_engine::network_main(&arguments.collect::<Vec<_>>(), commands::engine::nft);
        }
        Some(mode) if mode == commands::up::STANDIN => return standin(arguments),
        _ => {}
    }
    let cli = Cli::parse();
    if matches!(cli.command, Command::Engine(_) | Command::Up(_)) {
        without_huge_pages();
    }
    let mut terminal = Terminal::new(cli.color);
    let result = match cli.command {
        Command::Check(arguments) => commands::check::run(&arguments, &mut terminal),
        Command::Render(arguments) => commands::render::run(&arguments, &mut terminal),
        Command::Claims(arguments) => commands::claims::run(&arguments, &mut terminal),
        Command::Explain(arguments) => commands::explain::run(&arguments, &mut terminal),
        Command::Diff(arguments) => commands::diff::run(&arguments, &mut terminal),
        Command::Up(arguments) => commands::up::run(&arguments, &mut terminal),
        Command::Down(arguments) => commands::down::run(&arguments, &mut terminal),
        Command::Status(arguments) => commands::status::run(&arguments, &mut terminal),
        Command::Edges(arguments) => commands::edges::run(&arguments, &mut terminal),
        Command::Flows(arguments) => commands::flows::run(&arguments, &mut terminal),
        Command::Logs(arguments) => commands::logs::run(&arguments, &mut terminal),
        Command::Open(arguments) => commands::open::run(&arguments, &mut terminal),
        Command::Gitops(arguments) => commands::gitops::run(&arguments, &mut terminal),
        Command::Scaling(arguments) => commands::scaling::run(&arguments, &mut terminal),
        Command::Top(arguments) => commands::top::run(&arguments, &mut terminal),
        Command::Doctor(arguments) => commands::doctor::run(&arguments, &mut terminal),
        Command::Pipeline(command) => commands::pipeline::run(&command, &mut terminal),
        Command::Ship(arguments) => commands::ship::run(&arguments, &mut terminal),
        Command::Releases(arguments) => commands::releases::run(&arguments, &mut terminal),
        Command::Release(ReleaseCommand::Show(arguments)) => commands::release::show(&arguments, &mut terminal),
        Command::Rollback(arguments) => commands::rollback::run(&arguments, &mut terminal),
        Command::Abort(arguments) => commands::abort::run(&arguments, &mut terminal),
        Command::Windows(arguments) => commands::windows::run(&arguments, &mut terminal),
        Command::Promote(arguments) => commands::promote::run(&arguments, &mut terminal),
        Command::Approve(arguments) => commands::approve::run(&arguments, Decision::Approve, &mut terminal),
        Command::Reject(arguments) => commands::approve::run(&arguments, Decision::Reject, &mut terminal),
        Command::Signers(command) => commands::signers::run(&command, &mut terminal),
        Command::Attest(arguments) => commands::attest::run(&arguments, &mut terminal),
        Command::Freeze(arguments) => commands::freeze::run(&arguments, Wanted::Frozen, &mut terminal),
        Command::Thaw(arguments) => commands::freeze::run(&arguments, Wanted::Thawed, &mut terminal),
        Command::Protect(arguments) => commands::protect::run(&arguments, &mut terminal),
        Command::Audit(arguments) => commands::audit::run(&arguments, &mut terminal),
        Command::Engine(arguments) => commands::engine::run(*arguments, &mut terminal),
        Command::Schema => commands::schema::run(&mut terminal),
        Command::Completions(arguments) => Ok(commands::completions::run(&arguments, &mut terminal)),
    };
    match result.and_then(|outcome| terminal.flush().map(|()| outcome).map_err(anyhow::Error::from)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Ok(Outcome::NotUnderstood) => ExitCode::from(2),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.error(&error);
            ExitCode::from(3)
        }
    }
}

/// The allocator asks for huge pages of 2 MB (madvise(2)), which hurry large computations; a process that waits has them nearly
/// empty. The shims and the network of an engine inherit this (prctl(2), `PR_SET_THP_DISABLE`); programs of containers get the default
/// back.
fn without_huge_pages() {
    // A kernel without huge pages has none to leave out.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// This program as the program of a pod; its log is that of the pod.
fn standin(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    without_huge_pages();
    tracing_subscriber::fmt().json().with_env_filter("warn,landfall_standin=info").init();
    let arguments: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    landfall_standin::main(&arguments)
}

/// The reader of our output has seen enough, as `landfall claims | head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
