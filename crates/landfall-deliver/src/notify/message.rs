//! A message: JSON of a form that does not change within a version, with a `text` for people and for chats.

use jiff::Timestamp;
use landfall_model::NotifyEvent;
use serde::{Deserialize, Serialize};

use super::impact::{Impact, impact};
use super::{Subject, Told};
use crate::gate::{Standing, WAITING};
use crate::release::ReleaseStatus;
use crate::rollout::{Cause, Phase};

/// The version of the form.
const VERSION: u32 = 1;

/// What somebody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The version of this form.
    pub version: u32,
    /// The same for every attempt to send it: also the header `Idempotency-Key`.
    pub id: String,
    /// What has happened.
    pub event: NotifyEvent,
    /// What has happened, for people.
    pub text: String,
    /// Who is told.
    pub to: String,
    /// When it happened.
    pub at: String,
    /// The name of the architecture.
    pub architecture: String,
    /// The environment; nothing for a file that declares none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The release that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseNews>,
    /// The run of the pipeline that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<PipelineNews>,
}

/// How a release is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseNews {
    /// Its name.
    pub name: String,
    /// Where it is kept.
    pub namespace: String,
    /// Over everything that makes its pods.
    pub digest: String,
    /// Where it is, as `landfall releases` says it.
    pub state: String,
    /// The release that it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_back: Option<String>,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Cause>,
    /// What must hold before it begins, and does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// What it ships, in its order.
    pub services: Vec<ShippedService>,
    /// What the version that did not stay has cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact: Option<Impact>,
}

/// A service of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippedService {
    /// Its name.
    pub name: String,
    /// The image before.
    pub from: String,
    /// The image of the release.
    pub to: String,
}

/// How a run of the pipeline went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineNews {
    /// The number of the run, on the machine that it ran on.
    pub run: u32,
    /// Who ran it, and where.
    pub by: String,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Who has made the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// The stage.
    pub stage: String,
    /// The step of it that failed; nothing when the stage did not get to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// How it ended.
    pub state: String,
    /// With which exit code, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The end of what it said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
}

/// Who has made a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Their name.
    pub name: String,
    /// Their address.
    pub email: String,
}

/// `shop in production`, or `shop`.
fn place(architecture: &str, environment: Option<&str>) -> String {
    environment.map_or_else(|| architecture.to_owned(), |environment| format!("{architecture} in {environment}"))
}

/// What `told` is told of a release.
pub(super) fn of_release(
    subject: Subject<'_>,
    status: &ReleaseStatus,
    event: NotifyEvent,
    told: &Told,
    id: String,
    now: Timestamp,
) -> Message {
    let spec = subject.spec;
    let did_not_stay = spec.takes_back.is_some() || !matches!(status.phase, Phase::Pending | Phase::Succeeded);
    let waits = status.phase == Phase::Pending;
    let closed = status.gates.iter().filter(|gate| waits && gate.standing != Standing::Open);
    let shipped = spec.services.iter().map(|service| ShippedService {
        name: service.name.clone(),
        from: service.old_image.clone(),
        to: service.new_image.clone(),
    });
    let news = ReleaseNews {
        name: subject.name.to_owned(),
        namespace: subject.namespace.to_owned(),
        digest: spec.digest.clone(),
        state: if waits { WAITING.to_owned() } else { status.phase.name().to_owned() },
        takes_back: spec.takes_back.clone(),
        why: status.phase.cause().cloned(),
        waits_for: closed.map(|gate| format!("{}: {}", gate.gate, gate.why)).collect(),
        services: shipped.collect(),
        impact: did_not_stay.then(|| impact(spec, status, now)).flatten(),
    };
    let mut text = format!("{}: {}", place(&spec.architecture, spec.environment.as_deref()), headline(&news, status));
    if let Some(impact) = &news.impact {
        text += &format!("\n{}", cost(impact));
    } else {
        let images = news.services.iter().map(|own| format!("{} {} -> {}", own.name, own.from, own.to));
        text += &format!("\n{}", images.collect::<Vec<_>>().join(", "));
    }
    Message {
        version: VERSION,
        id,
        event,
        text,
        to: told.to.clone(),
        at: now.to_string(),
        architecture: spec.architecture.clone(),
        environment: spec.environment.clone(),
        release: Some(news),
        pipeline: None,
    }
}

fn headline(news: &ReleaseNews, status: &ReleaseStatus) -> String {
    let name = &news.name;
    let why = news.why.as_ref().map(|cause| format!(", because: {}", cause.why)).unwrap_or_default();
    match (&status.phase, &news.takes_back) {
        (Phase::Pending, _) => format!("release {name} waits for: {}", news.waits_for.join("; ")),
        (Phase::Succeeded, Some(back)) => format!("release {back} was taken back by {name}"),
        (Phase::Succeeded, None) => format!("release {name} has succeeded"),
        (Phase::RolledBack { .. }, _) if status.ran.is_empty() => format!("release {name} never began{why}"),
        (Phase::RolledBack { .. }, _) => format!("release {name} was taken back{why}"),
        (Phase::Held { .. }, _) => {
            format!("release {name} is held until somebody decides{why}; `landfall rollback {name}` takes it back")
        }
        (Phase::Failed { why: stuck, .. }, _) => {
            format!(
                "release {name} was taken back, and not all of it is ready: {stuck}{why}; `landfall rollback {name}` tries once more"
            )
        }
        (Phase::Progressing { .. } | Phase::RollingBack { .. }, _) => format!("release {name} is under way"),
    }
}

/// The impact in words.
fn cost(impact: &Impact) -> String {
    let images = impact.services.iter().map(|own| format!("{} {} -> {}", own.name, own.from, own.to));
    let images = images.collect::<Vec<_>>().join(", ");
    let ran = match &impact.end {
        Some(end) => format!("It ran from {} to {end}, {} s.", impact.begin, impact.seconds),
        None => format!("It runs since {}, {} s so far.", impact.begin, impact.seconds),
    };
    let requests = match (impact.failed, impact.requests) {
        (Some(failed), Some(requests)) => format!("{failed} of {requests} counted requests to it failed."),
        _ => "Nobody has counted its requests.".to_owned(),
    };
    let stays = match impact.stays.as_slice() {
        [] => "No migration is left behind.".to_owned(),
        stays => format!("What stays: {}.", stays.join("; ")),
    };
    format!("{images}\n{ran} {requests} {stays}")
}

impl Message {
    /// What `to` is told of a stage of the pipeline that failed.
    pub fn of_pipeline(
        architecture: &str,
        environment: Option<&str>,
        news: PipelineNews,
        to: &str,
        id: String,
        now: Timestamp,
    ) -> Self {
        let step = news.step.as_ref().map(|step| format!(", step {step}")).unwrap_or_default();
        let code = news.exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
        let revision = news.revision.as_ref().map(|revision| format!("\nrevision {revision}")).unwrap_or_default();
        let author = news.author.as_ref().map(|author| format!(" by {} <{}>", author.name, author.email));
        let mut text = format!(
            "{}: pipeline run {}: stage {}{step} {}{code}{revision}{}",
            place(architecture, environment),
            news.run,
            news.stage,
            news.state,
            author.unwrap_or_default()
        );
        text.extend(news.said.last().map(|line| format!("\n{line}")));
        Self {
            version: VERSION,
            id,
            event: NotifyEvent::Failed,
            text,
            to: to.to_owned(),
            at: now.to_string(),
            architecture: architecture.to_owned(),
            environment: environment.map(ToOwned::to_owned),
            release: None,
            pipeline: Some(news),
        }
    }
}
