//! Whose turn it is: of two who ship to one environment the second is refused, or waits.

use kube::{Client, ResourceExt as _};
use landfall_deliver::{Contender, Lock, LockError, Phase, list, phase_of, state_of};

use super::follow::POLL;
use super::{Target, holder};
use crate::terminal::Terminal;

/// The lock; nothing when somebody else is at work, which is said. Of somebody who is gone it is taken after a while.
pub(crate) async fn take(client: &Client, target: &Target, terminal: &mut Terminal) -> anyhow::Result<Option<Lock>> {
    let mut contender = contender(client, target);
    let mut is_told = false;
    loop {
        match contender.attempt().await {
            Ok(lock) => return Ok(Some(lock)),
            Err(LockError::Held { holder }) if contender.sees_work() => {
                terminal.say(&format!(
                    "error: `{holder}` ships `{}` at this moment\nhint: `landfall ship --watch` follows it, `landfall ship --wait` ships when it is over",
                    target.name()
                ))?;
                return Ok(None);
            }
            Err(LockError::Held { holder }) if !is_told => {
                is_told = true;
                terminal
                    .progress(&format!("`{holder}` has begun to ship; whether it still works shows within seconds"))?;
            }
            Err(LockError::Held { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The lock, once nobody else ships and no release is under way; nothing when the user waits no longer.
pub(crate) async fn wait(client: &Client, target: &Target, terminal: &mut Terminal) -> anyhow::Result<Option<Lock>> {
    let mut contender = contender(client, target);
    let mut told: Option<String> = None;
    loop {
        let ahead = match ahead(client, target, &mut contender).await? {
            Ok(lock) => return Ok(Some(lock)),
            Err(ahead) => ahead,
        };
        if told.is_none() {
            terminal.say("it waits; when nobody goes on with what is under way, `landfall ship --watch` does")?;
        }
        if told.as_ref() != Some(&ahead) {
            terminal.say(&ahead)?;
            told = Some(ahead);
        }
        // What is taken while nobody waits any more ends by itself.
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = tokio::signal::ctrl_c() => {
                terminal.say("nothing was shipped")?;
                return Ok(None);
            }
        }
    }
}

/// The lock, or who comes first. Looked at before it is taken, as whoever goes on with a release needs it, and once more after.
async fn ahead(client: &Client, target: &Target, contender: &mut Contender) -> anyhow::Result<Result<Lock, String>> {
    if let Some(ahead) = under_way(client, target).await? {
        return Ok(Err(ahead));
    }
    let lock = match contender.attempt().await {
        Ok(lock) => lock,
        Err(LockError::Held { holder }) => return Ok(Err(format!("`{holder}` is at work"))),
        Err(error) => return Err(error.into()),
    };
    match under_way(client, target).await {
        Ok(None) => Ok(Ok(lock)),
        Ok(Some(ahead)) => {
            lock.release().await;
            Ok(Err(ahead))
        }
        Err(error) => {
            lock.release().await;
            Err(error)
        }
    }
}

/// What is not finished.
async fn under_way(client: &Client, target: &Target) -> anyhow::Result<Option<String>> {
    let releases = list(client, target.namespace(), target.name()).await?;
    let under_way = releases.iter().find(|release| !phase_of(release).is_terminal());
    Ok(under_way.map(|release| {
        let name = release.name_any();
        match phase_of(release) {
            Phase::Held { .. } => format!("release `{name}` is held until `landfall rollback {name}` takes it back"),
            _ => format!("release `{name}` is not finished ({})", state_of(release)),
        }
    }))
}

fn contender(client: &Client, target: &Target) -> Contender {
    Contender::new(client, target.namespace(), target.name(), &holder())
}
