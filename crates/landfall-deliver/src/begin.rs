//! Whether what a release was planned on is still there when it begins. It may have waited for hours, and what somebody has changed
//! meanwhile would be undone by it, or by its way back: then it does not begin. Copies that an autoscaler has changed are no such
//! thing: the canary beside them is planned again.

use kube::Client;
use serde_json::Value;

use crate::cluster::workload::{self, progress, template_of};
use crate::cluster::{ClusterError, around};
use crate::gate::{GateState, Standing};
use crate::plan::{Bounds, CanaryPlan, Split, Strategy};
use crate::propose::configuration;
use crate::release::{CONFIGURATION, ReleaseSpec, Replanned, ServiceRelease, differing, plain, sorted};

/// How many changed fields of a template are named.
const NAMED: usize = 5;

/// What stands against the beginning of a release, and which canaries were planned again.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    /// Nothing when it may begin.
    pub(crate) gates: Vec<GateState>,
    pub(crate) replanned: Vec<Replanned>,
}

/// What is there of a service.
#[derive(Debug, Clone)]
struct Found {
    template: Value,
    copies: u32,
    /// Whether all copies are of one version.
    settled: bool,
    autoscaler: Option<Bounds>,
    route_rules: Option<Value>,
    mesh_rules: Option<Value>,
    /// The hash of what the new version would read.
    configuration: Option<String>,
}

/// What follows from what is there of a service.
#[derive(Debug, PartialEq)]
enum Finding {
    /// It is as it was.
    Same,
    /// It is as it was, but for the size of the canary.
    Replanned(Replanned),
    /// Somebody has changed this.
    Changed(Vec<String>),
    /// This passes by itself.
    Waits(String),
}

/// Looks whether everything is as it was when the release was planned.
pub(crate) async fn look(client: &Client, spec: &ReleaseSpec) -> Result<Ground, ClusterError> {
    let (mut ground, mut changed) = (Ground::default(), Vec::new());
    for service in &spec.services {
        let found = find(client, service).await?;
        match compare(service, found.as_ref(), spec.takes_back.is_some()) {
            Finding::Same => {}
            Finding::Replanned(replanned) => ground.replanned.push(replanned),
            Finding::Changed(what) => changed.extend(what),
            Finding::Waits(why) => ground.gates.push(GateState {
                gate: format!("a canary of `{}` fits", service.name),
                standing: Standing::Closed,
                why,
                bring: Some("wait: it begins by itself".to_owned()),
                evidence: Vec::new(),
            }),
        }
    }
    if !changed.is_empty() {
        ground.gates.push(outdated(&changed, spec.takes_back.is_some()));
    }
    Ok(ground)
}

fn outdated(changed: &[String], takes_back: bool) -> GateState {
    let again = if takes_back { "landfall rollback" } else { "landfall ship" };
    GateState {
        gate: "everything is as it was when it was planned".to_owned(),
        standing: Standing::Rejected,
        why: format!(
            "since it was planned, {}; it would undo that, so it does not begin: `{again}` plans it anew",
            changed.join("; ")
        ),
        bring: Some(again.to_owned()),
        evidence: Vec::new(),
    }
}

async fn find(client: &Client, service: &ServiceRelease) -> Result<Option<Found>, ClusterError> {
    let (namespace, name) = (service.namespace.as_str(), service.name.as_str());
    let Some(live) = workload::deployment(client, namespace, name).await? else { return Ok(None) };
    let state = progress(&live);
    let mut found = Found {
        template: template_of(&live),
        copies: u32::try_from(state.wanted).unwrap_or_default(),
        settled: state.settled,
        autoscaler: None,
        route_rules: None,
        mesh_rules: None,
        configuration: configuration::hash(client, namespace, &service.new_template).await?,
    };
    let Strategy::Canary(canary) = &service.strategy else { return Ok(Some(found)) };
    found.autoscaler = around::bounds(client, namespace, name).await?;
    match canary.split {
        Split::Route => found.route_rules = around::route_rules(client, namespace, name).await?,
        Split::Mesh => found.mesh_rules = around::mesh_rules(client, namespace, name).await?.1,
        Split::Copies(_) | Split::Consumers(_) => {}
    }
    Ok(Some(found))
}

/// Compares a service with what is there of it. What goes back reads the configuration of today, and says so.
fn compare(service: &ServiceRelease, found: Option<&Found>, takes_back: bool) -> Finding {
    let name = &service.name;
    let Some(found) = found else { return Finding::Changed(vec![format!("the Deployment `{name}` has gone")]) };
    let mut changed = Vec::new();
    let (before, now) = (sorted(&plain(&service.old_template)), sorted(&plain(&found.template)));
    if before != now {
        let fields = differing(&before, &now);
        let more = if fields.len() > NAMED { ", …" } else { "" };
        let fields: Vec<&str> = fields.iter().take(NAMED).map(String::as_str).collect();
        changed.push(format!("somebody has changed the pods of `{name}` ({}{more})", fields.join(", ")));
    }
    let read = service.new_template["metadata"]["annotations"][CONFIGURATION].as_str();
    if !takes_back && read != found.configuration.as_deref() {
        changed.push(format!("somebody has changed a ConfigMap or Secret that `{name}` reads"));
    }
    let Strategy::Canary(canary) = &service.strategy else { return of(changed, Finding::Same) };
    if canary.split == Split::Route && service.route_rules != found.route_rules {
        changed.push(format!("somebody has changed the rules of the HTTPRoute `{name}`"));
    }
    if canary.split == Split::Mesh && service.mesh_rules != found.mesh_rules {
        changed.push(format!("somebody has changed the rules of the VirtualService `{name}`"));
    }
    let size = size(service, canary, found);
    match size {
        Ok(finding) => of(changed, finding),
        Err(what) => {
            changed.push(what);
            Finding::Changed(changed)
        }
    }
}

fn of(changed: Vec<String>, otherwise: Finding) -> Finding {
    if changed.is_empty() { otherwise } else { Finding::Changed(changed) }
}

/// What becomes of the canary beside the copies that are there now; `Err` where a person has changed them.
fn size(service: &ServiceRelease, canary: &CanaryPlan, found: &Found) -> Result<Finding, String> {
    let name = &service.name;
    if !found.settled {
        return Ok(Finding::Waits(format!("copies of `{name}` are being replaced at this moment")));
    }
    let ceiling = found.autoscaler.map(|bounds| bounds.ceiling);
    let before = service.copies.unwrap_or(found.copies);
    if (before, service.autoscaler_ceiling) == (found.copies, ceiling) || canary.declared.is_empty() {
        return Ok(Finding::Same);
    }
    if found.autoscaler.is_none() {
        return Err(match service.autoscaler_ceiling {
            Some(_) => format!("somebody has taken away the autoscaler of `{name}`"),
            None => format!("somebody has changed the copies of `{name}` from {before} to {}", found.copies),
        });
    }
    // Not handled: a share that fewer copies make smaller may not be decided in time; then it goes back.
    Ok(match canary.size_beside(found.copies, found.autoscaler) {
        Ok(size) => Finding::Replanned(Replanned {
            service: name.clone(),
            beside: found.copies,
            size,
            autoscaler_floor: found.autoscaler.map(|bounds| bounds.floor),
            autoscaler_ceiling: ceiling,
        }),
        Err(why) => Finding::Waits(why),
    })
}

#[cfg(test)]
mod tests;
