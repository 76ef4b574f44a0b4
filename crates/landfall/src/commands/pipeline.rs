//! `landfall pipeline`: the stages of the file's pipeline on this machine, and what they are.

mod cluster;
mod gateway;
mod notify;
mod process;
mod record;
mod run;
mod select;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use landfall_render::{PipelineStage, Variant, pipeline};
use serde::Serialize;

pub(crate) use self::record::{Run, Runs, StageRecord, State, StepRecord};
use self::select::{Asked, pick};

use super::up::table;
use crate::Outcome;
use crate::cli::{Output, PipelineCommand, PipelineShowArguments};
use crate::output::VERSION;
use crate::project::Project;
use crate::terminal::Terminal;

/// Runs the pipeline, or shows it.
pub(crate) fn run(command: &PipelineCommand, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    match command {
        PipelineCommand::Run(arguments) => run::run(arguments, terminal),
        PipelineCommand::Show(arguments) => show(arguments, terminal),
    }
}

/// The folder of the file, in which steps run.
pub(crate) fn folder_of(file: &Path) -> anyhow::Result<PathBuf> {
    let beside = if file.is_dir() { Some(file) } else { file.parent() };
    let beside = beside.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::canonicalize(beside).with_context(|| format!("failed to find `{}`", beside.display()))
}

/// A file with its pipeline.
struct Declared {
    /// The name of the architecture.
    name: String,
    stages: Vec<PipelineStage>,
    variants: Vec<Variant>,
}

impl Declared {
    /// Reads the file; `Err` when that has been answered already.
    fn read(file: &Path, environment: Option<&str>, terminal: &mut Terminal) -> anyhow::Result<Result<Self, Outcome>> {
        let project = Project::read(file)?;
        if let Some(wanted) = environment
            && let Err(findings) = project.file.architecture(Some(wanted))
        {
            terminal.findings(&findings, project.file.sources())?;
            return Ok(Err(Outcome::NotUnderstood));
        }
        let mut variants = Vec::new();
        for environment in project.environments(None) {
            match project.file.architecture(environment.as_deref()) {
                Ok(architecture) => variants.push(Variant::new(architecture)),
                Err(findings) => {
                    terminal.findings(&findings, project.file.sources())?;
                    return Ok(Err(Outcome::NotUnderstood));
                }
            }
        }
        let Some(stages) = pipeline(&variants) else {
            terminal.say("error: the file has no pipeline\nhint: declare `delivery.pipeline` with its stages")?;
            return Ok(Err(Outcome::NotUnderstood));
        };
        let name = variants[0].architecture.document.name.to_string();
        Ok(Ok(Self { name, stages, variants }))
    }

    /// What a stage waits for.
    fn gates(&self, stage: &PipelineStage) -> Vec<String> {
        let mut gates = Vec::new();
        if stage.gated {
            gates.push("an approval: `--stage` or `--from` names it".to_owned());
        }
        if stage.steps.iter().any(|step| step.name == "deploy")
            && let Some(variant) =
                self.variants.iter().find(|variant| Some(&variant.name) == stage.environment.as_ref())
        {
            // The chart is no release: nothing but a policy of admission keeps it out of a protected environment.
            let required = landfall_deliver::required(&variant.architecture);
            gates.extend(required.iter().map(|gate| format!("of `landfall ship`: {gate}")));
        }
        gates
    }
}

/// What `pipeline show` prints.
#[derive(Serialize)]
struct Shown<'a> {
    version: u32,
    name: &'a str,
    stages: Vec<ShownStage<'a>>,
}

#[derive(Serialize)]
struct ShownStage<'a> {
    name: &'a str,
    environment: Option<&'a str>,
    limit_seconds: u64,
    gates: Vec<String>,
    steps: Vec<ShownStep<'a>>,
    rollback: Option<&'a str>,
    notifies_author: bool,
}

#[derive(Serialize)]
struct ShownStep<'a> {
    name: &'a str,
    command: &'a str,
}

fn show(arguments: &PipelineShowArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let environment = arguments.input.environment.as_deref();
    let declared = match Declared::read(&arguments.input.file, environment, terminal)? {
        Ok(declared) => declared,
        Err(outcome) => return Ok(outcome),
    };
    let picked = match pick(&declared.stages, Asked { stages: &[], from: None, environment }) {
        Ok(picked) => picked,
        Err(why) => {
            terminal.say(&why)?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let stages = picked.iter().map(|picked| picked.stage);
    if arguments.output == Output::Json {
        let shown = |stage| shown(&declared, stage);
        let document = Shown { version: VERSION, name: &declared.name, stages: stages.map(shown).collect() };
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(Outcome::Done);
    }
    let mut lines = table(&["STAGE", "ENVIRONMENT", "STEP", "COMMAND"]);
    for stage in stages {
        let mut first = [stage.name.as_str(), stage.environment.as_deref().unwrap_or_default()];
        for gate in declared.gates(stage) {
            lines.add_row([first[0], first[1], "gate", &gate]);
            first = ["", ""];
        }
        let rollback = stage.rollback.as_ref().map(|run| ("rollback", run.as_str()));
        let steps = stage.steps.iter().map(|step| (step.name.as_str(), step.run.as_str()));
        for (name, command) in steps.chain(rollback) {
            lines.add_row([first[0], first[1], name, &in_short(command)]);
            first = ["", ""];
        }
    }
    writeln!(terminal.data(), "{lines}")?;
    Ok(Outcome::Done)
}

fn shown<'a>(declared: &Declared, stage: &'a PipelineStage) -> ShownStage<'a> {
    ShownStage {
        name: &stage.name,
        environment: stage.environment.as_deref(),
        limit_seconds: stage.limit.as_secs(),
        gates: declared.gates(stage),
        steps: stage.steps.iter().map(|step| ShownStep { name: &step.name, command: &step.run }).collect(),
        rollback: stage.rollback.as_deref(),
        notifies_author: stage.tells_author,
    }
}

/// The first line of a command, and how many follow.
fn in_short(command: &str) -> String {
    /// What a table has room for.
    const LONGEST: usize = 100;
    let mut lines = command.lines();
    let first = lines.next().unwrap_or_default();
    let cut: String = first.chars().take(LONGEST).collect();
    let dots = if cut.len() < first.len() { "…" } else { "" };
    match lines.count() {
        0 => format!("{cut}{dots}"),
        more => format!("{cut}{dots} (and {more} more lines)"),
    }
}
