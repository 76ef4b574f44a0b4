//! The rollout of a release: which phase follows which, and what has to be done on the way. Pure; [`crate::carry()`] performs
//! the effects and tells the events.
//!
//! ```text
//! Pending ─Begin─▶ Progressing ──last service is ready──▶ Succeeded
//!                   │      ▲ │           └─if it is to be verified─▶ Verifying ─▶ Succeeded
//!                   │      └─┘ service by service: Updating
//!                   │                              or Starting ─▶ Judging(0) ─▶ … ─▶ Draining ─▶ Promoting
//!                   │
//!                   ├─broken, worse, too late─▶ RollingBack (if automatic) ──first service is back──▶ RolledBack
//!                   │                              ▲      └─the same, and one of them was too late─▶ Failed
//!                   └─abort, or not automatic─▶ Held ─roll back─┘
//! ```

use serde::{Deserialize, Serialize};

use crate::analysis::Verdict;

/// What a rollout needs to know of a release: its services in their order, and whether it goes back without a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How each service gets its new version, in the order in which they get it.
    pub services: Vec<Path>,
    /// Whether what goes wrong is taken back without a person.
    pub automatic: bool,
    /// Whether all services are watched once more when the last has its new version.
    pub verify: bool,
}

/// How one service gets its new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Its workload is changed at once, and Kubernetes replaces the copies.
    Direct,
    /// It first gets so many growing shares of the traffic, each judged.
    Canary {
        /// At least one.
        steps: usize,
    },
}

/// Where a release is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Nothing has been changed yet.
    #[default]
    Pending,
    /// It goes forward.
    Progressing {
        /// The service whose turn it is.
        service: usize,
        /// What it is doing.
        stage: Stage,
    },
    /// It goes nowhere until a person says so.
    Held {
        /// The service whose turn it was.
        service: usize,
        /// Why.
        cause: Cause,
    },
    /// What has been changed is taken back, the last change first.
    RollingBack {
        /// The service whose turn it is.
        service: usize,
        /// What it is doing.
        stage: Return,
        /// Why.
        cause: Cause,
        /// What of it was not done in time. The others go back all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        late: Option<String>,
    },
    /// Every service runs the new version.
    Succeeded,
    /// Every service runs the old version again.
    RolledBack {
        /// Why.
        cause: Cause,
    },
    /// Every service has its old template again, and not all of their copies became ready in time: a person has to look.
    Failed {
        /// Why it went back.
        cause: Cause,
        /// What was not done in time.
        why: String,
    },
}

/// What a service is doing on the way forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Its copies are being replaced.
    Updating,
    /// Its canary starts; nobody is sent to it.
    Starting,
    /// Its canary has the share of this step, and is judged.
    Judging {
        /// The step, from zero.
        step: usize,
    },
    /// The canary was good. Nobody is sent to it any more; what is under way is finished.
    Draining,
    /// The canary has gone, and all copies are being replaced. Beside it there might be no room for one more copy.
    Promoting,
    /// Every service has its new version, this one as the last, and all are watched and judged.
    Verifying,
}

/// What a service is doing on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Return {
    /// Nobody is sent to the canary any more; what is under way is finished.
    Draining,
    /// Its copies are being replaced by old ones, as far as they are new.
    Restoring,
}

/// Why a release does not go on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// What kind of reason it is.
    pub reason: Reason,
    /// What was seen, in words.
    pub why: String,
}

/// What kind of reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The new version does not become ready in time.
    NotReady,
    /// The new version crashes, or cannot be started.
    Broken,
    /// The canary was judged and failed.
    Worse,
    /// The canary could not be judged in time.
    Undecided,
    /// A person stopped it.
    Aborted,
    /// A person wants the old version back.
    Requested,
}

/// What happens to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It may begin.
    Begin,
    /// What the stage waits for has come.
    Ready,
    /// The canary of this step has been judged.
    Judged(Verdict, String),
    /// The new version crashes, or cannot be started.
    Broken(String),
    /// The stage has taken too long.
    DeadlinePassed(String),
    /// A person stops it.
    Abort(String),
    /// A person wants the old version back.
    RollBack(String),
}

/// Which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Version {
    /// The one before the release.
    Old,
    /// The one of the release.
    New,
}

/// What has to be done. Doing it twice does what doing it once does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// The workload of the service gets the template of this version.
    SetTemplate {
        /// Which service.
        service: usize,
        /// Which version.
        version: Version,
    },
    /// A second workload of the new version is started beside it, to which nobody is sent.
    StartCanary {
        /// Which service.
        service: usize,
    },
    /// The canary gets the share of this step, or nothing.
    Weigh {
        /// Which service.
        service: usize,
        /// Which step; nothing when there is none.
        step: Option<usize>,
    },
    /// The second workload goes, and everything around it is as it was before.
    RemoveCanary {
        /// Which service.
        service: usize,
    },
}

impl Phase {
    /// Whether nothing can happen to it any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::RolledBack { .. } | Self::Failed { .. })
    }

    /// Its name, as `kubectl get releases` shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Progressing { .. } => "Progressing",
            Self::Held { .. } => "Held",
            Self::RollingBack { .. } => "RollingBack",
            Self::Succeeded => "Succeeded",
            Self::RolledBack { .. } => "RolledBack",
            Self::Failed { .. } => "Failed",
        }
    }

    /// Why it does not go on, if it does not.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Held { cause, .. }
            | Self::RollingBack { cause, .. }
            | Self::RolledBack { cause }
            | Self::Failed { cause, .. } => Some(cause),
            Self::Pending | Self::Progressing { .. } | Self::Succeeded => None,
        }
    }

    /// What of the way back was not done in time.
    pub(crate) fn late(&self) -> Option<&str> {
        match self {
            Self::RollingBack { late, .. } => late.as_deref(),
            Self::Failed { why, .. } => Some(why),
            _ => None,
        }
    }

    /// The phase that follows, and what has to be done in it. Pure: the caller performs the effects, in their order, after it
    /// has written both down. `None`: the event means nothing in this phase.
    pub fn next(&self, event: &Event, plan: &Plan) -> Option<(Self, Vec<Effect>)> {
        match self {
            Self::Pending => match event {
                Event::Begin => Some(enter(0, plan)),
                Event::Abort(why) => Some((Self::RolledBack { cause: cause(Reason::Aborted, why) }, Vec::new())),
                Event::RollBack(why) => Some((Self::RolledBack { cause: cause(Reason::Requested, why) }, Vec::new())),
                _ => None,
            },
            Self::Progressing { service, stage } => forward(*service, *stage, event, plan),
            Self::Held { service, .. } => match event {
                Event::RollBack(why) => Some(back(*service, cause(Reason::Requested, why), plan)),
                _ => None,
            },
            Self::RollingBack { service, stage, cause, late } => {
                returning(*service, *stage, cause, late.as_deref(), event)
            }
            Self::Succeeded | Self::RolledBack { .. } | Self::Failed { .. } => None,
        }
    }
}

fn cause(reason: Reason, why: &str) -> Cause {
    Cause { reason, why: why.to_owned() }
}

/// The turn of this service; when there is none, all of them are verified, or it is the end.
fn enter(service: usize, plan: &Plan) -> (Phase, Vec<Effect>) {
    let Some(path) = plan.services.get(service) else {
        let last = service.checked_sub(1).filter(|_| plan.verify);
        let verifying = last.map(|service| Phase::Progressing { service, stage: Stage::Verifying });
        return (verifying.unwrap_or(Phase::Succeeded), Vec::new());
    };
    let (stage, effect) = match path {
        Path::Direct => (Stage::Updating, Effect::SetTemplate { service, version: Version::New }),
        Path::Canary { .. } => (Stage::Starting, Effect::StartCanary { service }),
    };
    (Phase::Progressing { service, stage }, vec![effect])
}

fn forward(service: usize, stage: Stage, event: &Event, plan: &Plan) -> Option<(Phase, Vec<Effect>)> {
    let to = |stage| Phase::Progressing { service, stage };
    let weigh = |step| Effect::Weigh { service, step };
    match (stage, event) {
        (_, Event::RollBack(why)) => Some(back(service, cause(Reason::Requested, why), plan)),
        (_, Event::Abort(why)) => Some(hold(service, stage, cause(Reason::Aborted, why))),
        (_, Event::Broken(why)) => Some(stop(service, stage, cause(Reason::Broken, why), plan)),
        (Stage::Judging { .. } | Stage::Verifying, Event::DeadlinePassed(why)) => {
            Some(stop(service, stage, cause(Reason::Undecided, why), plan))
        }
        (_, Event::DeadlinePassed(why)) => Some(stop(service, stage, cause(Reason::NotReady, why), plan)),
        (Stage::Updating | Stage::Promoting, Event::Ready) => Some(enter(service + 1, plan)),
        (Stage::Starting, Event::Ready) => Some((to(Stage::Judging { step: 0 }), vec![weigh(Some(0))])),
        (Stage::Judging { step }, Event::Judged(Verdict::Pass, _)) => {
            let Some(Path::Canary { steps }) = plan.services.get(service) else { return None };
            let following = step + 1;
            Some(if following < *steps {
                (to(Stage::Judging { step: following }), vec![weigh(Some(following))])
            } else {
                (to(Stage::Draining), vec![weigh(None)])
            })
        }
        (Stage::Verifying, Event::Ready) => Some((Phase::Succeeded, Vec::new())),
        (Stage::Judging { .. } | Stage::Verifying, Event::Judged(Verdict::Fail, why)) => {
            Some(stop(service, stage, cause(Reason::Worse, why), plan))
        }
        // It stays where it is: more requests may decide it, and the deadline will.
        (Stage::Judging { .. }, Event::Judged(Verdict::Inconclusive | Verdict::NoData, _)) => None,
        (Stage::Draining, Event::Ready) => {
            let replace = Effect::SetTemplate { service, version: Version::New };
            Some((to(Stage::Promoting), vec![Effect::RemoveCanary { service }, replace]))
        }
        (Stage::Judging { .. }, Event::Ready) | (_, Event::Begin | Event::Judged(..)) => None,
    }
}

/// What went wrong by itself is taken back by itself, if that is wanted.
fn stop(service: usize, stage: Stage, cause: Cause, plan: &Plan) -> (Phase, Vec<Effect>) {
    if plan.automatic { back(service, cause, plan) } else { hold(service, stage, cause) }
}

/// Nobody is sent any more to a canary of which nobody says that it is good. One that takes messages from queues does so as soon as
/// it runs.
fn hold(service: usize, stage: Stage, cause: Cause) -> (Phase, Vec<Effect>) {
    let is_there = matches!(stage, Stage::Starting | Stage::Judging { .. });
    let effects = is_there.then_some(Effect::Weigh { service, step: None });
    (Phase::Held { service, cause }, effects.into_iter().collect())
}

/// The way back begins with the service whose turn it is.
fn back(service: usize, cause: Cause, plan: &Plan) -> (Phase, Vec<Effect>) {
    let (stage, effect) = match plan.services.get(service) {
        Some(Path::Canary { .. }) => (Return::Draining, Effect::Weigh { service, step: None }),
        Some(Path::Direct) | None => (Return::Restoring, Effect::SetTemplate { service, version: Version::Old }),
    };
    (Phase::RollingBack { service, stage, cause, late: None }, vec![effect])
}

fn returning(
    service: usize,
    stage: Return,
    cause: &Cause,
    late: Option<&str>,
    event: &Event,
) -> Option<(Phase, Vec<Effect>)> {
    match (stage, event) {
        // A canary that is not drained in time goes all the same.
        (Return::Draining, Event::Ready | Event::DeadlinePassed(_)) => {
            let late = late.map(ToOwned::to_owned);
            let restoring = Phase::RollingBack { service, stage: Return::Restoring, cause: cause.clone(), late };
            let restore = Effect::SetTemplate { service, version: Version::Old };
            Some((restoring, vec![Effect::RemoveCanary { service }, restore]))
        }
        (Return::Restoring, Event::Ready) => Some(restored(service, cause, late.map(ToOwned::to_owned))),
        // Whoever comes before it must not stay on the new version for that.
        (Return::Restoring, Event::DeadlinePassed(why) | Event::Broken(why)) => {
            let late: Vec<&str> = late.into_iter().chain([why.as_str()]).collect();
            Some(restored(service, cause, Some(late.join("; "))))
        }
        _ => None,
    }
}

/// The turn of the service before; when there is none, it is the end.
fn restored(service: usize, cause: &Cause, late: Option<String>) -> (Phase, Vec<Effect>) {
    let cause = cause.clone();
    match (service.checked_sub(1), late) {
        (Some(service), late) => {
            let restore = Effect::SetTemplate { service, version: Version::Old };
            (Phase::RollingBack { service, stage: Return::Restoring, cause, late }, vec![restore])
        }
        (None, Some(why)) => (Phase::Failed { cause, why }, Vec::new()),
        (None, None) => (Phase::RolledBack { cause }, Vec::new()),
    }
}

#[cfg(test)]
mod tests;
