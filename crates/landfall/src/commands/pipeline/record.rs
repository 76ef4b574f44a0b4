//! What is kept of a run: `.landfall/pipeline/N/run.json`, written whole before and after each step, beside the script and
//! the log of each.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use landfall_deliver::{Notice, digest_of, read_report};
use serde::{Deserialize, Serialize};

use crate::output::VERSION;

/// The longest report that is read.
const LONGEST_REPORT: u64 = 64 << 20;

/// A run of the pipeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) version: u32,
    /// Counts the runs in this folder.
    pub(crate) number: u32,
    /// The name of the architecture.
    pub(crate) name: String,
    /// The commit; one that has `-uncommitted` behind it had changes besides.
    pub(crate) revision: Option<String>,
    /// The run of the same revision that this one goes on from.
    pub(crate) continues: Option<u32>,
    /// Who ran it, and where.
    pub(crate) by: String,
    pub(crate) state: State,
    pub(crate) started: String,
    pub(crate) ended: Option<String>,
    pub(crate) stages: Vec<StageRecord>,
    /// By which digest each service was pushed.
    pub(crate) images: BTreeMap<String, String>,
    /// Who was told that it failed, and who is still to be.
    #[serde(default)]
    pub(crate) notices: Vec<Notice>,
}

/// A stage of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StageRecord {
    pub(crate) name: String,
    pub(crate) environment: Option<String>,
    pub(crate) state: State,
    /// Who let it run by naming it, where it waits for an approval.
    pub(crate) approved_by: Option<String>,
    pub(crate) steps: Vec<StepRecord>,
}

/// A step of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) state: State,
    pub(crate) started: Option<String>,
    pub(crate) seconds: Option<f64>,
    /// Nothing for one that a signal has ended.
    pub(crate) exit_code: Option<i32>,
    /// The end of what it said.
    pub(crate) tail: Vec<String>,
    /// Everything that it said, beside this file.
    pub(crate) log: String,
    /// The reports that it has written.
    pub(crate) reports: Vec<ReportRecord>,
}

/// A report that a step has written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReportRecord {
    /// Where it is, beside this file.
    pub(crate) file: String,
    /// Its digest.
    pub(crate) digest: String,
    /// Its format; nothing for one that is not understood.
    pub(crate) format: Option<String>,
    /// Whether it is of tests, and not of a scan.
    pub(crate) tests: bool,
    /// Whether what it looked at is good.
    pub(crate) passed: bool,
    /// What it says, or why it is not understood.
    pub(crate) says: String,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Not begun.
    Planned,
    /// Begun.
    Running,
    /// It is good.
    Passed,
    /// It is not.
    Failed,
    /// It has taken longer than it may.
    TimedOut,
    /// Somebody has stopped it.
    Interrupted,
    /// It waits for an approval.
    Waiting,
}

impl State {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Interrupted => "interrupted",
            Self::Waiting => "waiting",
        }
    }
}

/// The runs of one folder.
pub(crate) struct Runs(PathBuf);

/// Keeps other runs out of the folder: steps share its files. The system ends it with its process.
pub(crate) struct Occupied(#[expect(dead_code, reason = "it is held, and not used")] File);

impl Runs {
    /// The runs beside the file of the architecture, whose folder is `folder`.
    pub(crate) fn beside(folder: &Path) -> Self {
        Self(folder.join(".landfall").join("pipeline"))
    }

    /// Occupies the folder; nothing when somebody else has.
    pub(crate) fn occupy(&self) -> anyhow::Result<Option<Occupied>> {
        fs::create_dir_all(&self.0).with_context(|| format!("failed to make `{}`", self.0.display()))?;
        let ignore = self.0.with_file_name(".gitignore");
        fs::write(&ignore, "*\n").with_context(|| format!("failed to write `{}`", ignore.display()))?;
        let path = self.0.join("lock");
        let lock = File::create(&path).with_context(|| format!("failed to make `{}`", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Occupied(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("failed to lock `{}`", path.display()))
            }
        }
    }

    /// The number of the last run.
    pub(crate) fn last(&self) -> Option<u32> {
        let folders = fs::read_dir(&self.0).ok()?;
        folders.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
    }

    /// The folder of a run.
    pub(crate) fn folder(&self, run: u32) -> PathBuf {
        self.0.join(run.to_string())
    }

    /// A run that was kept.
    pub(crate) fn read(&self, run: u32) -> anyhow::Result<Run> {
        let path = self.folder(run).join("run.json");
        let text = fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("failed to understand `{}`", path.display()))
    }

    /// Writes the record, whole or not at all.
    pub(crate) fn write(&self, run: &Run) -> anyhow::Result<()> {
        let folder = self.folder(run.number);
        let path = folder.join("run.json");
        let write = || -> anyhow::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            serde_json::to_writer_pretty(&mut file, run)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("failed to write `{}`", path.display()))
    }

    /// Begins a run. One before it that was killed is told to have been: nobody else is here.
    pub(crate) fn begin(&self, mut run: Run) -> anyhow::Result<Run> {
        let last = self.last();
        if let Some(mut killed) = last.and_then(|last| self.read(last).ok()).filter(|run| run.state == State::Running) {
            killed.end(State::Interrupted);
            self.write(&killed)?;
        }
        run.number = last.unwrap_or(0) + 1;
        let folder = self.folder(run.number);
        fs::create_dir_all(&folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
        self.write(&run)?;
        Ok(run)
    }
}

impl Run {
    /// A run that has not begun.
    pub(crate) fn new(name: &str, revision: Option<String>, by: String, stages: Vec<StageRecord>) -> Self {
        Self {
            version: VERSION,
            number: 0,
            name: name.to_owned(),
            revision,
            continues: None,
            by,
            state: State::Running,
            started: now(),
            ended: None,
            stages,
            images: BTreeMap::new(),
            notices: Vec::new(),
        }
    }

    /// Ends it, and what of it is still running.
    pub(crate) fn end(&mut self, state: State) {
        self.state = state;
        self.ended = Some(now());
        for stage in &mut self.stages {
            let steps = stage.steps.iter_mut().map(|step| &mut step.state);
            for inner in steps.chain([&mut stage.state]).filter(|inner| **inner == State::Running) {
                *inner = state;
            }
        }
    }

    /// The reports of tests, or of scans, with the step that has written each.
    pub(crate) fn reports(&self, tests: bool) -> impl Iterator<Item = (&StepRecord, &ReportRecord)> {
        let steps = self.stages.iter().flat_map(|stage| &stage.steps);
        let reports = steps.flat_map(|step| step.reports.iter().map(move |report| (step, report)));
        reports.filter(move |(_, report)| report.format.is_some() && report.tests == tests)
    }
}

/// Now, to the second.
pub(crate) fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// The reports in `folder`, which is beside the record under the name `called`.
pub(super) fn reports(folder: &Path, called: &str) -> anyhow::Result<Vec<ReportRecord>> {
    let during = || format!("failed to read `{}`", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(during)? {
        let entry = entry.with_context(during)?;
        let metadata = entry.metadata().with_context(during)?;
        if !metadata.is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut record = ReportRecord {
            file: format!("{called}/{name}"),
            digest: String::new(),
            format: None,
            tests: false,
            passed: false,
            says: String::new(),
        };
        if metadata.len() > LONGEST_REPORT {
            record.says = format!("it is longer than {} MiB", LONGEST_REPORT >> 20);
            found.push(record);
            continue;
        }
        let bytes = fs::read(entry.path()).with_context(|| format!("failed to read `{}`", entry.path().display()))?;
        let text = String::from_utf8_lossy(&bytes);
        record.digest = digest_of(&text);
        match read_report(&text) {
            Ok(report) => {
                record.format = Some(report.format.to_owned());
                (record.tests, record.passed, record.says) = (report.tests, report.passed, report.says);
            }
            Err(why) => record.says = why.to_string(),
        }
        found.push(record);
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}
