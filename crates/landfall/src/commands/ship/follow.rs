//! Carries a release out, or follows whoever does, and tells what happens.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use kube::{Client, ResourceExt as _};
use landfall_deliver::{Contender, Lock, LockError, Phase, Release, Took, carry, phase_of, read, state_of, tells};

use super::{Target, view};
use crate::Outcome;
use crate::cli::Output;
use crate::output::{ReleaseOutput, VERSION};
use crate::terminal::Terminal;

/// How often a release is looked at that somebody else carries.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// How a release stands when nobody carries it on here.
pub(crate) struct Ended {
    pub(crate) release: Release,
    /// Whether the user has stopped looking.
    interrupted: bool,
}

impl Ended {
    pub(crate) fn of(release: &Release) -> Self {
        Self { release: release.clone(), interrupted: false }
    }

    /// Whether the user has stopped looking.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}

/// Whose lock it is, for people.
pub(crate) fn holder() -> String {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("landfall on {host}, process {}", std::process::id())
}

/// What has been told of a release: on a terminal as a picture that changes, elsewhere line by line.
#[derive(Default)]
pub(crate) struct Told {
    entries: usize,
    /// What was said last of each message, by its id.
    notices: BTreeMap<String, String>,
}

impl Told {
    /// Of what happened before, only the last is told.
    pub(crate) fn from_now_on(release: &Release, terminal: &mut Terminal) -> anyhow::Result<Self> {
        let before = release.status.as_ref().map_or(0, |status| status.history.len()).saturating_sub(1);
        if before > 0 {
            terminal
                .say(&format!("{before} things happened before: `landfall release show {}`", release.name_any()))?;
        }
        let notices = release.status.iter().flat_map(|status| &status.notices).filter(|notice| !notice.is_open());
        let notices = notices.map(|notice| (notice.message.id.clone(), notice.summary())).collect();
        Ok(Self { entries: before, notices })
    }

    fn tell(&mut self, release: &Release, terminal: &mut Terminal) {
        let Some(status) = &release.status else { return };
        // A terminal that is gone keeps no release from going on.
        for entry in status.history.iter().skip(self.entries) {
            let _gone = terminal.say(&format!("{}: {}", entry.at.get(11..19).unwrap_or_default(), entry.what));
        }
        self.entries = status.history.len().max(self.entries);
        for notice in &status.notices {
            let (id, said) = (&notice.message.id, notice.summary());
            if self.notices.insert(id.clone(), said.clone()).is_none_or(|before| before != said) {
                let _gone = terminal.say(&said);
            }
        }
        if terminal.is_live() {
            let (columns, colored) = (terminal.columns(), terminal.colored_progress());
            let _gone = terminal.show(view::picture(release, Timestamp::now(), columns, colored));
        }
    }
}

/// Carries a release to its end. Ctrl-C leaves it as it is.
pub(crate) async fn carry_out(
    client: &Client,
    target: &Target,
    name: &str,
    lock: Lock,
    told: &mut Told,
    terminal: &mut Terminal,
) -> anyhow::Result<Ended> {
    let namespace = target.namespace();
    let carried = {
        let telling = target.telling();
        let carrying = carry(client, namespace, name, &lock, telling, |release| told.tell(release, terminal));
        // What was written down is done by whoever goes on with it.
        tokio::select! {
            carried = carrying => Some(carried),
            _ = tokio::signal::ctrl_c() => None,
        }
    };
    terminal.show(Vec::new())?;
    lock.release().await;
    match carried {
        Some(Ok(release)) => {
            target.keep(&release)?;
            Ok(Ended { release, interrupted: false })
        }
        Some(Err(error)) => {
            terminal
                .say(&format!("hint: release `{name}` is not finished; `landfall ship --watch` goes on with it"))?;
            Err(error).with_context(|| format!("failed to carry release `{name}` to its end"))
        }
        None => {
            terminal.say(&format!("release `{name}` stays as it is; `landfall ship --watch` goes on with it"))?;
            let release = read(client, namespace, name).await?.context("the release is gone")?;
            Ok(Ended { release, interrupted: true })
        }
    }
}

/// Follows a release while somebody else carries it, and carries it when nobody does.
pub(crate) async fn wait_or_carry(
    client: &Client,
    target: &Target,
    name: &str,
    terminal: &mut Terminal,
) -> anyhow::Result<Ended> {
    let find = async || {
        let release = read(client, target.namespace(), name).await?;
        release.with_context(|| format!("the release `{name}` is gone"))
    };
    let mut told = Told::from_now_on(&find().await?, terminal)?;
    let mut contender = Contender::new(client, target.namespace(), target.name(), &holder());
    loop {
        match contender.attempt().await {
            Ok(lock) => return carry_out(client, target, name, lock, &mut told, terminal).await,
            Err(LockError::Held { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let release = find().await?;
        told.tell(&release, terminal);
        // Whoever was killed may have left something to do: that is known when nobody is seen to work.
        let is_over = match phase_of(&release) {
            Phase::Held { .. } => contender.sees_work(),
            phase => phase.is_terminal() && (contender.sees_work() || !tells(&release)),
        };
        let interrupted = if is_over {
            Some(false)
        } else {
            tokio::select! {
                () = tokio::time::sleep(POLL) => None,
                _ = tokio::signal::ctrl_c() => Some(true),
            }
        };
        if let Some(interrupted) = interrupted {
            terminal.show(Vec::new())?;
            return Ok(Ended { release, interrupted });
        }
    }
}

/// Prints how a release has ended; `good` says which ends are what was wanted. A way back that took longer than is promised is
/// never good.
pub(crate) fn finish(
    ended: &Ended,
    output: Output,
    terminal: &mut Terminal,
    good: impl Fn(&Phase) -> bool,
) -> anyhow::Result<Outcome> {
    let phase = phase_of(&ended.release);
    match output {
        Output::Json => {
            let document = ReleaseOutput::new(VERSION, &ended.release);
            writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        }
        Output::Text => writeln!(terminal.data(), "{}: {}", ended.release.name_any(), state_of(&ended.release))?,
    }
    terminal.flush()?;
    let late = ended.release.way_back().filter(Took::is_late);
    if let Some(late) = &late {
        terminal.say(&format!("warning: {late}"))?;
    }
    if tells(&ended.release) {
        terminal.say("hint: `landfall ship --watch` sends the messages that are left")?;
    }
    if let Phase::Held { .. } = phase {
        terminal.say(&format!("hint: `landfall rollback {}` takes it back", ended.release.name_any()))?;
    }
    Ok(if good(&phase) && late.is_none() && !ended.interrupted { Outcome::Done } else { Outcome::No })
}
