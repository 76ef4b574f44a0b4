//! Tells people of a stage that failed: those of `delivery.notify`, with the author of the commit in the message.
//!
//! What is told is kept in the record of the run before it is sent, and the receipt after: whoever runs the pipeline next in this
//! folder sends what a run that was killed has left.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use landfall_deliver::{
    CommitAuthor, Means, Message, Notice, PipelineNews, Told, append, digest_of, pause, post, told,
};
use landfall_model::NotifyEvent;
use landfall_render::{PipelineStage, Variant};
use tokio::time::Instant;

use super::Declared;
use super::record::{Run, Runs, State, StepRecord};
use crate::terminal::Terminal;

/// How long it is tried to send what a run has to tell.
const LINGER: Duration = Duration::from_secs(10);

/// How many lines of what a step said are told.
const LINES: usize = 10;

/// Who is told that a stage failed.
fn list(declared: &Declared, stage: &PipelineStage) -> Vec<Told> {
    let named = |variant: &&Variant| Some(&variant.name) == stage.environment.as_ref();
    let list = match declared.variants.iter().find(named) {
        Some(variant) => variant.architecture.notify(),
        None => &declared.variants[0].architecture.document.delivery.notify,
    };
    let mut list = told(list);
    list.retain(|told| told.wants(NotifyEvent::Failed));
    list
}

/// Writes into the record whom to tell that a stage failed, if one did.
pub(super) fn announce(
    declared: &Declared,
    run: &mut Run,
    folder: &Path,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let has_failed = |state: State| matches!(state, State::Failed | State::TimedOut);
    let Some(place) = run.stages.iter().position(|stage| has_failed(stage.state)) else { return Ok(()) };
    let record = &run.stages[place];
    let Some(stage) = declared.stages.iter().find(|stage| stage.name == record.name) else { return Ok(()) };
    let list = list(declared, stage);
    if list.is_empty() {
        if stage.tells_author {
            terminal.say(&format!(
                "note: stage `{}` says `on-failure: [notify-author]`, and nobody is told here\nhint: declare `delivery.notify`",
                stage.name
            ))?;
        }
        return Ok(());
    }
    let step = record.steps.iter().find(|step| has_failed(step.state));
    let said = step.map(|step: &StepRecord| &step.tail[step.tail.len().saturating_sub(LINES)..]);
    let news = PipelineNews {
        run: run.number,
        by: run.by.clone(),
        revision: run.revision.clone(),
        author: author(folder),
        stage: record.name.clone(),
        step: step.map(|step| step.name.clone()),
        state: step.map_or(record.state, |step| step.state).as_str().to_owned(),
        exit_code: step.and_then(|step| step.exit_code),
        said: said.unwrap_or_default().to_vec(),
    };
    let origin = digest_of(&run.by);
    let origin = origin.rsplit(':').next().and_then(|hash| hash.get(..12)).unwrap_or_default();
    for (place, told) in list.into_iter().enumerate() {
        let id = format!("{}/run-{}/{}/{origin}/{place}", run.name, run.number, run.started);
        let environment = record.environment.as_deref();
        let message = Message::of_pipeline(&run.name, environment, news.clone(), &told.to, id, Timestamp::now());
        run.notices.push(Notice::new(told.by, message));
    }
    Ok(())
}

/// Who has made the commit of a folder.
fn author(folder: &Path) -> Option<CommitAuthor> {
    let output = Command::new("git").args(["log", "-1", "--format=%an%n%ae"]).current_dir(folder).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    let (name, email) = text.trim_end().split_once('\n')?;
    Some(CommitAuthor { name: name.to_owned(), email: email.to_owned() })
}

/// Sends what the last run in this folder has left, once.
pub(super) async fn send_left(
    runs: &Runs,
    last: Option<u32>,
    folder: &Path,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let Some(mut run) = last.and_then(|last| runs.read(last).ok()) else { return Ok(()) };
    if run.notices.iter().any(Notice::is_open) {
        attempt(&mut run, folder, terminal).await?;
        runs.write(&run)?;
    }
    Ok(())
}

/// Sends what a run has to tell. What nobody takes in time is left to the next run.
pub(super) async fn send(runs: &Runs, run: &mut Run, folder: &Path, terminal: &mut Terminal) -> anyhow::Result<()> {
    let deadline = Instant::now() + LINGER;
    loop {
        attempt(run, folder, terminal).await?;
        runs.write(run)?;
        let left = run.notices.iter().filter(|notice| notice.is_open());
        let Some(next) = left.map(|notice| Instant::now() + pause(notice.attempts)).min() else { return Ok(()) };
        if next > deadline {
            terminal.say("hint: the next run of the pipeline sends the messages that are left")?;
            return Ok(());
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Tries each message that is to be sent.
async fn attempt(run: &mut Run, folder: &Path, terminal: &mut Terminal) -> anyhow::Result<()> {
    for notice in run.notices.iter_mut().filter(|notice| notice.is_open()) {
        let outcome = match &notice.by {
            Means::Webhook(url) => post(url, &notice.message).await,
            Means::SecretWebhook { secret, key } => match address(secret, key) {
                Ok(url) => post(&url, &notice.message).await,
                Err(why) => Err(why),
            },
            Means::File(file) => append(&folder.join(file), &notice.message),
        };
        notice.settle(&outcome, Timestamp::now());
        terminal.say(&notice.summary())?;
    }
    Ok(())
}

/// The URL that a secret holds: a pipeline has its secrets in variables.
fn address(secret: &str, key: &str) -> Result<String, String> {
    let name = landfall_render::secret_variable(secret, key);
    let value = std::env::var(&name).ok().filter(|value| !value.is_empty());
    value
        .ok_or_else(|| format!("the variable `{name}` is not set, which has the secret `{secret}/{key}` in a pipeline"))
}
