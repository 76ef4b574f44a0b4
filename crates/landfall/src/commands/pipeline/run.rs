//! `landfall pipeline run`: the stages one after the other, each step written down before and after it runs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use landfall_render::PipelineStage;
use tokio::time::Instant;

use super::cluster::{self, Access};
use super::gateway::Home;
use super::notify;
use super::process::{Ended, Performed, SHELL, perform};
use super::record::{Run, Runs, StageRecord, State, StepRecord, now, reports};
use super::select::{Asked, Picked, pick};
use super::{Declared, folder_of};
use crate::Outcome;
use crate::cli::{Output, PipelineRunArguments};
use crate::commands::ship::holder;
use crate::signals::StopSignals;
use crate::terminal::Terminal;

/// What a rolled back stage's last step is called, as in the runners' files.
const ROLLBACK: &str = "rollback";

/// What runs and rollbacks leave in the folder, which is no change of what is delivered.
const LEFT_BEHIND: [&str; 5] = [".landfall", "digests", "deployed", "images.tar", "ca.crt"];

/// Runs the stages that are asked for. The answer is no when one of them does not pass.
pub(super) fn run(arguments: &PipelineRunArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let environment = arguments.environment.as_deref();
    let declared = match Declared::read(&arguments.file, environment, terminal)? {
        Ok(declared) => declared,
        Err(outcome) => return Ok(outcome),
    };
    let asked = Asked { stages: &arguments.stages, from: arguments.from.as_deref(), environment };
    let folder = folder_of(&arguments.file)?;
    let prepared = pick(&declared.stages, asked).and_then(|picked| {
        let reached = reached_environments(&picked);
        let is_named = arguments.context.is_some() || arguments.kubeconfig.is_some();
        if is_named && reached.len() > 1 {
            return Err(format!(
                "error: one cluster for {}?\nhint: say whose it is with `--env`",
                reached.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
            ));
        }
        Ok(picked)
    });
    let picked = match prepared {
        Ok(picked) => picked,
        Err(why) => {
            terminal.say(&why)?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let runs = Runs::beside(&folder);
    let Some(_occupied) = runs.occupy()? else {
        terminal
            .say("error: the pipeline runs here already\nhint: wait for it, or use another clone of the repository")?;
        return Ok(Outcome::No);
    };
    let revision = revision(&folder);
    let needs_revision =
        |picked: &Picked<'_>| picked.stage.steps.iter().any(|step| step.run.contains("LANDFALL_REVISION"));
    if revision.is_none() && picked.iter().any(needs_revision) {
        terminal.say(&format!(
            "error: images are named by their commit, and `{}` is in no Git repository that has one\nhint: commit first, or leave the stages that build out: `--stage NAME`",
            folder.display()
        ))?;
        return Ok(Outcome::NotUnderstood);
    }
    let mut run = Run::new(&declared.name, revision, holder(), picked.iter().map(planned).collect());
    let last = runs.last().and_then(|last| runs.read(last).ok());
    if arguments.from.is_some() {
        run.continues = last.filter(|last| last.revision == run.revision).map(|last| last.number);
        if run.continues.is_none() {
            terminal.say(
                "note: the last run was of another revision, or there is none: what it did is not what goes on here",
            )?;
        }
    }
    let run = runs.begin(run)?;
    let access = cluster::named(arguments)?;
    let earlier = run.number.checked_sub(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a thread for the steps")?;
    let mut runner = Runner { arguments, declared: &declared, folder, runs, run, access, terminal };
    let ended = runtime.block_on(async {
        notify::send_left(&runner.runs, earlier, &runner.folder, runner.terminal).await?;
        let mut signals = StopSignals::listen()?;
        runner.stages(&picked, &mut signals).await
    });
    let state = match &ended {
        Ok(state) => *state,
        Err(_) => State::Failed,
    };
    runner.run.end(state);
    notify::announce(&declared, &mut runner.run, &runner.folder, runner.terminal)?;
    runner.runs.write(&runner.run)?;
    ended?;
    runner.tell()?;
    runtime.block_on(notify::send(&runner.runs, &mut runner.run, &runner.folder, runner.terminal))?;
    Ok(if state == State::Passed { Outcome::Done } else { Outcome::No })
}

/// The environments whose cluster is talked to.
fn reached_environments(picked: &[Picked<'_>]) -> Vec<String> {
    let reached = picked.iter().filter(|picked| picked.stage.reaches_cluster);
    let mut names: Vec<String> = reached.filter_map(|picked| picked.stage.environment.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// The commit of the folder, with `-uncommitted` behind it when that is not all of it: an image must not be called by a commit
/// that does not have its sources.
fn revision(folder: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(folder).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--verify", "HEAD"])?;
    let but = LEFT_BEHIND.map(|name| format!(":!{name}"));
    let status: Vec<&str> =
        ["status", "--porcelain", "--", "."].into_iter().chain(but.iter().map(String::as_str)).collect();
    Some(if git(&status)?.is_empty() { commit } else { format!("{commit}-uncommitted") })
}

fn planned(picked: &Picked<'_>) -> StageRecord {
    let stage = picked.stage;
    StageRecord {
        name: stage.name.clone(),
        environment: stage.environment.clone(),
        state: State::Planned,
        approved_by: (stage.gated && !picked.waits).then(holder),
        steps: stage.steps.iter().map(|step| step_record(&step.name, &step.run)).collect(),
    }
}

fn step_record(name: &str, command: &str) -> StepRecord {
    StepRecord {
        name: name.to_owned(),
        command: command.to_owned(),
        state: State::Planned,
        started: None,
        seconds: None,
        exit_code: None,
        tail: Vec::new(),
        log: String::new(),
        reports: Vec::new(),
    }
}

struct Runner<'a, 'b> {
    arguments: &'a PipelineRunArguments,
    declared: &'a Declared,
    folder: PathBuf,
    runs: Runs,
    run: Run,
    /// The cluster that was named.
    access: Option<Access>,
    terminal: &'b mut Terminal,
}

impl Runner<'_, '_> {
    async fn stages(&mut self, picked: &[Picked<'_>], signals: &mut StopSignals) -> anyhow::Result<State> {
        for (place, picked) in picked.iter().enumerate() {
            if picked.waits {
                self.run.stages[place].state = State::Waiting;
                return Ok(State::Waiting);
            }
            // A job of a runner begins in a fresh folder: what an earlier deployment left is not this one's.
            match fs::remove_file(self.folder.join("deployed")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context("failed to remove what the last deployment left behind");
                }
                _ => {}
            }
            self.run.stages[place].state = State::Running;
            let state = self.stage(place, picked.stage, signals).await?;
            self.run.stages[place].state = state;
            self.runs.write(&self.run)?;
            if state != State::Passed {
                return Ok(state);
            }
        }
        Ok(State::Passed)
    }

    async fn stage(&mut self, place: usize, stage: &PipelineStage, signals: &mut StopSignals) -> anyhow::Result<State> {
        let own;
        let access = match &self.access {
            _ if !stage.reaches_cluster => None,
            Some(access) => Some(access.path().to_owned()),
            None => match cluster::of_up(&self.arguments.file, &self.declared.name, stage.environment.as_deref()) {
                Ok(access) => {
                    own = access;
                    Some(own.path().to_owned())
                }
                Err(why) => {
                    self.terminal.say(&format!("error: stage `{}`: {why}", stage.name))?;
                    return Ok(State::Failed);
                }
            },
        };
        let variant = self.declared.variants.iter().find(|own| Some(&own.name) == stage.environment.as_ref());
        // Requests go where the deployment goes: to what runs here, unless a cluster was named.
        let home = match variant {
            Some(variant) if self.access.is_none() => Home::of_up(&self.arguments.file, &variant.architecture)?,
            _ => None,
        };
        let mut variables = Vec::new();
        variables.extend(access.as_deref().map(|access| ("KUBECONFIG", access)));
        variables.extend(home.as_ref().map(|home| ("CURL_HOME", home.path())));
        let limit = self.arguments.limit.map_or(stage.limit, landfall_model::Duration::std);
        let deadline = Instant::now() + limit;
        for step in 0..stage.steps.len() {
            let state = self.step(place, step, &variables, deadline, signals).await?;
            if state == State::Passed {
                continue;
            }
            // A runner takes nothing back either when somebody has stopped it.
            if let (Some(rollback), State::Failed | State::TimedOut) = (&stage.rollback, state) {
                let steps = &mut self.run.stages[place].steps;
                steps.push(step_record(ROLLBACK, rollback));
                let last = steps.len() - 1;
                self.step(place, last, &variables, Instant::now() + limit, signals).await?;
            }
            return Ok(state);
        }
        Ok(State::Passed)
    }

    async fn step(
        &mut self,
        place: usize,
        step: usize,
        of_stage: &[(&str, &OsStr)],
        deadline: Instant,
        signals: &mut StopSignals,
    ) -> anyhow::Result<State> {
        let kept = self.runs.folder(self.run.number);
        let stage = &mut self.run.stages[place];
        let name = stage.steps[step].name.clone();
        let label = format!("{} / {name}", stage.name);
        let stem = stem(stage, step);
        let script = kept.join(format!("{stem}.sh"));
        let called = format!("{stem}.reports");
        let record = &mut stage.steps[step];
        record.log = format!("{stem}.log");
        record.state = State::Running;
        record.started = Some(now());
        let log = kept.join(&record.log);
        fs::write(&script, &record.command).with_context(|| format!("failed to write `{}`", script.display()))?;
        fs::create_dir_all(kept.join(&called)).with_context(|| format!("failed to make `{called}`"))?;
        self.runs.write(&self.run)?;
        self.terminal.progress(&format!("{label} …"))?;

        let revision = OsString::from(self.run.revision.as_deref().unwrap_or_default());
        let report_folder = kept.join(&called).into_os_string();
        let mut variables =
            vec![("LANDFALL_REVISION", revision.as_os_str()), ("LANDFALL_REPORTS", report_folder.as_os_str())];
        variables.extend(of_stage.iter().copied());
        let Performed { ended, seconds, tail } =
            perform(&script, &self.folder, &variables, &log, deadline, signals.next()).await?;
        let (state, code) = match ended {
            Ended::ByItself(status) if status.success() => (State::Passed, status.code()),
            Ended::ByItself(status) => (State::Failed, status.code()),
            Ended::TooLate => (State::TimedOut, None),
            Ended::Interrupted => (State::Interrupted, None),
        };
        let found = reports(&kept.join(&called), &called)?;
        for report in &found {
            self.terminal.say(&format!("{label}: {}: {}", report.file, report.says))?;
        }
        if name == "push" && state == State::Passed {
            self.run.images = pushed(&self.folder.join("digests"))?;
        }
        let record = &mut self.run.stages[place].steps[step];
        (record.state, record.exit_code, record.seconds) = (state, code, Some((seconds * 1000.0).round() / 1000.0));
        (record.tail, record.reports) = (tail, found);
        self.runs.write(&self.run)?;
        let code = code.filter(|code| *code != 0).map(|code| format!(", exit code {code}")).unwrap_or_default();
        self.terminal.say(&format!("{label}: {}{code} ({seconds:.1} s)", state.as_str()))?;
        Ok(state)
    }

    /// The arguments that a next run of this file takes, too.
    fn again(&self) -> String {
        let arguments = self.arguments;
        let mut again = String::new();
        if arguments.file != Path::new("landfall.yaml") {
            again += &format!(" {}", arguments.file.display());
        }
        let options = [
            ("env", arguments.environment.clone()),
            ("context", arguments.context.clone()),
            ("kubeconfig", arguments.kubeconfig.as_ref().map(|file| file.display().to_string())),
        ];
        for (name, value) in options {
            again.extend(value.map(|value| format!(" --{name} {value}")));
        }
        again
    }

    /// What came of it, and how to go on.
    fn tell(&mut self) -> anyhow::Result<()> {
        let run = &self.run;
        let kept = self.runs.folder(run.number);
        if self.arguments.output == Output::Json {
            writeln!(self.terminal.data(), "{}", serde_json::to_string_pretty(run)?)?;
        } else {
            let passed = run.stages.iter().filter(|stage| stage.state == State::Passed).count();
            let stages = run.stages.len();
            writeln!(
                self.terminal.data(),
                "run {}: {}; {passed} of {stages} stages passed",
                run.number,
                run.state.as_str()
            )?;
        }
        let stopped = run.stages.iter().find(|stage| !matches!(stage.state, State::Passed | State::Planned));
        if let Some(stage) = stopped {
            let is_bad = |step: &StepRecord| !matches!(step.state, State::Passed | State::Planned);
            let mut said = String::new();
            if let Some((place, step)) = stage.steps.iter().enumerate().find(|(_, step)| is_bad(step)) {
                let code = step.exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
                said +=
                    &format!("error: step `{}` of stage `{}` {}{code}\n", step.name, stage.name, step.state.as_str());
                said.extend(step.tail.iter().map(|line| format!("  | {line}\n")));
                let shell = SHELL.join(" ");
                let stem = stem(stage, place);
                let revision = run.revision.as_deref().unwrap_or_default();
                let kubeconfig = self.arguments.kubeconfig.as_ref();
                let kubeconfig = kubeconfig.map(|file| format!("KUBECONFIG='{}' ", file.display()));
                said += &format!(
                    "hint: run it alone: cd '{}' && LANDFALL_REVISION={revision} LANDFALL_REPORTS='{}' {}{shell} '{}'\n",
                    self.folder.display(),
                    kept.join(format!("{stem}.reports")).display(),
                    kubeconfig.unwrap_or_default(),
                    kept.join(format!("{stem}.sh")).display()
                );
            } else if stage.state == State::Waiting {
                said += &format!("stage `{}` waits for an approval\n", stage.name);
            }
            said += &format!("hint: go on from there: landfall pipeline run{} --from {}", self.again(), stage.name);
            self.terminal.say(&said)?;
        }
        self.terminal.say(&format!("kept in `{}`", kept.join("run.json").display()))?;
        Ok(())
    }
}

/// How the files of a step are called: a stage may have two steps of one name.
fn stem(stage: &StageRecord, step: usize) -> String {
    let name = &stage.steps[step].name;
    let before = stage.steps[..step].iter().filter(|other| other.name == *name).count();
    if before == 0 { format!("{}-{name}", stage.name) } else { format!("{}-{name}-{}", stage.name, before + 1) }
}

/// The images that were pushed, by service: each file has the name of its service, and a line `VALUE=IMAGE`.
fn pushed(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let during = || format!("failed to read `{}`", folder.display());
    let mut images = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(images),
        entries => entries.with_context(during)?,
    };
    for entry in entries {
        let entry = entry.with_context(during)?;
        let text = fs::read_to_string(entry.path()).with_context(during)?;
        if let Some((_, image)) = text.trim().split_once('=') {
            images.insert(entry.file_name().to_string_lossy().into_owned(), image.to_owned());
        }
    }
    Ok(images)
}
