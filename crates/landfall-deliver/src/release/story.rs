//! What happens to a release, in words.

use super::{ReleaseSpec, ServiceRelease};
use crate::analysis::Work;
use crate::plan::{Strategy, Track, percent};
use crate::rollout::{Event, Phase, Return, Stage};

/// What a release brings to a service.
fn new(service: &ServiceRelease) -> String {
    if service.keeps_image() { "its new configuration".to_owned() } else { format!("`{}`", service.new_image) }
}

/// What it takes from it.
fn old(service: &ServiceRelease) -> String {
    if service.keeps_image() { "its old configuration".to_owned() } else { format!("`{}`", service.old_image) }
}

/// What its canary gets a share of.
fn many(service: &ServiceRelease) -> &'static str {
    match &service.strategy {
        Strategy::Canary(canary) => canary.work().many(),
        Strategy::Rolling | Strategy::Recreate => Work::Requests.many(),
    }
}

/// What has happened, and what is done about it, in words.
pub(super) fn describe(spec: &ReleaseSpec, event: &Event, before: &Phase, phase: &Phase) -> String {
    let seen = match event {
        Event::Begin | Event::Ready => String::new(),
        Event::Judged(_, why)
        | Event::Broken(why)
        | Event::DeadlinePassed(why)
        | Event::Abort(why)
        | Event::RollBack(why) => format!("{why}; "),
    };
    let name = |service: &usize| spec.services.get(*service).map(|service| service.name.as_str()).unwrap_or_default();
    let follows = match phase {
        Phase::Pending => String::new(),
        Phase::Progressing { service, stage } => {
            let of = &spec.services[*service];
            match (stage, &of.strategy) {
                (Stage::Updating, _) => format!("`{}` gets {}", of.name, new(of)),
                (Stage::Starting, _) => {
                    let baseline = of.tracks().contains(&Track::Baseline);
                    let beside = if baseline {
                        format!(", beside as many fresh copies with {}", old(of))
                    } else {
                        String::new()
                    };
                    format!("a canary of `{}` starts with {}{beside}", of.name, new(of))
                }
                (Stage::Judging { step }, Strategy::Canary(canary)) => {
                    let share = canary.steps.get(*step).copied().unwrap_or_default();
                    format!("the canary of `{}` gets {} of the {}", of.name, percent(share), many(of))
                }
                (Stage::Judging { .. }, _) => String::new(),
                (Stage::Promoting, _) => format!("all copies of `{}` get {}", of.name, new(of)),
                (Stage::Verifying, _) => "every service runs the new version, and all are watched".to_owned(),
                (Stage::Draining, _) => format!("the canary of `{}` gets no more {}", of.name, many(of)),
            }
        }
        Phase::Held { service, .. } => format!("held at `{}` until somebody takes it back", name(service)),
        Phase::RollingBack { service, stage: Return::Draining, .. } => {
            let many = spec.services.get(*service).map(many).unwrap_or_default();
            format!("the canary of `{}` gets no more {many}", name(service))
        }
        Phase::RollingBack { service, stage: Return::Restoring, .. } => {
            let old = spec.services.get(*service).map(old).unwrap_or_default();
            format!("`{}` goes back to {old}", name(service))
        }
        Phase::Succeeded => "every service runs the new version".to_owned(),
        Phase::RolledBack { .. } if *before == Phase::Pending => "it never begins, and has changed nothing".to_owned(),
        Phase::RolledBack { cause } => format!("every service runs the old version again, because: {}", cause.why),
        Phase::Failed { cause, why } => {
            format!(
                "every service has its old template again, and not all of it is ready: {why}; it went back because: {}",
                cause.why
            )
        }
    };
    format!("{seen}{follows}")
}
