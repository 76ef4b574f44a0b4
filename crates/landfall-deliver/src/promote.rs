//! Promotion: the images that run in one environment, and have run there long enough, are what the next one is to get.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Client, ResourceExt as _};
use landfall_model::{Architecture, Element};

use crate::cluster::{ClusterError, workload};
use crate::gate::{EvidenceKind, EvidenceSpec};
use crate::propose::{list, phase_of};
use crate::rollout::Phase;

/// What runs in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The images, by service.
    pub images: BTreeMap<String, String>,
    /// Since when all of them run, and every copy is ready.
    pub since: Timestamp,
    /// The releases that brought them, for people.
    pub by: Vec<String>,
}

/// What runs, or what speaks against taking it elsewhere. Reads only.
pub async fn what_runs(
    client: &Client,
    architecture: &Architecture,
) -> Result<Result<Running, Vec<String>>, ClusterError> {
    let (name, namespace) = (architecture.document.name.as_str(), architecture.namespace().as_str());
    let releases = list(client, namespace, name).await?;
    let mut problems = Vec::new();
    for release in &releases {
        let phase = phase_of(release);
        // What waits for its gates has changed nothing yet.
        if !phase.is_terminal() && phase != Phase::Pending {
            problems.push(format!("release `{}` is not finished ({})", release.name_any(), phase.name()));
        }
    }
    let (mut images, mut since, mut by) = (BTreeMap::new(), None, Vec::new());
    for service in architecture.document.services.keys() {
        let own = architecture.namespace_of(&Element::Service(service.value.clone())).as_str();
        // Scheduled jobs and others are not shipped, and so not promoted.
        let Some(deployment) = workload::deployment(client, own, service.as_str()).await? else { continue };
        let Some(image) = workload::image(&deployment, service.as_str()) else { continue };
        if !workload::progress(&deployment).done {
            problems.push(format!("not every copy of `{service}` is ready"));
            continue;
        }
        match complete_since(&deployment) {
            Some(time) => since = since.max(Some(time)),
            None => problems.push(format!("`{service}` does not say since when it runs")),
        }
        let shipped = releases.iter().rfind(|release| {
            phase_of(release) == Phase::Succeeded
                && release.spec.services.iter().any(|own| own.name == service.as_str())
        });
        if let Some(release) = shipped {
            let own = release.spec.services.iter().find(|own| own.name == service.as_str());
            if let Some(own) = own.filter(|own| own.new_image != image) {
                problems.push(format!(
                    "`{service}` runs `{image}`, and release `{}` brought `{}`: somebody changed it past Landfall",
                    release.name_any(),
                    own.new_image
                ));
            }
            let ended = release.status.as_ref().and_then(|status| status.since.as_deref()?.parse().ok());
            since = since.max(ended);
            by.push(release.name_any());
        }
        images.insert(service.to_string(), image);
    }
    by.sort();
    by.dedup();
    let Some(since) = since.filter(|_| problems.is_empty()) else {
        if problems.is_empty() {
            problems.push(format!("nothing of `{name}` runs in `{namespace}`"));
        }
        return Ok(Err(problems));
    };
    Ok(Ok(Running { images, since, by }))
}

impl Running {
    /// That it has run, as evidence for the gates of the next environment.
    pub fn evidence(&self, architecture: &str, environment: &str, by: &str, now: Timestamp) -> EvidenceSpec {
        let from = if self.by.is_empty() { String::new() } else { format!(", brought by {}", self.by.join(", ")) };
        EvidenceSpec {
            architecture: architecture.to_owned(),
            kind: EvidenceKind::Ran,
            environment: environment.to_owned(),
            images: self.images.clone(),
            since: Some(self.since.to_string()),
            at: now.to_string(),
            passed: true,
            says: format!("{} services run since {}{from}", self.images.len(), self.since),
            report: None,
            by: by.to_owned(),
            statement: None,
            signature: None,
        }
    }
}

/// Since when every copy is of the version that runs.
fn complete_since(deployment: &Deployment) -> Option<Timestamp> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let progressing = conditions.iter().find(|condition| condition.type_ == "Progressing")?;
    (progressing.reason.as_deref() == Some("NewReplicaSetAvailable"))
        .then(|| progressing.last_update_time.as_ref().map(|time| time.0))
        .flatten()
}
