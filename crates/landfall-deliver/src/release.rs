//! A release as it is kept in the cluster: what is shipped in `spec`, which never changes, and how far it is in `status`.

mod compare;
mod identity;
mod replanned;
#[cfg(test)]
mod sample;
mod story;
mod way_back;

use jiff::Timestamp;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::analysis::{Analysis, Counts, Judge};
use crate::cluster::records::Record;
use crate::gate::{Gate, GateState};
use crate::metric::Samples;
use crate::notify::{Notice, Told};
use crate::plan::{CountedBy, Strategy, Track};
use crate::rollout::{Effect, Event, Phase, Plan, Return, Stage};
use crate::schema::SchemaUse;

pub(crate) use self::compare::differing;
pub use self::replanned::Replanned;
pub use self::way_back::{Took, WayBack};

/// The annotation of a pod template that says to which release it belongs.
pub(crate) const RELEASE: &str = "landfall.dev/release";

/// The annotation of a pod template with a hash of the configuration and secrets that its pods read.
pub(crate) const CONFIGURATION: &str = "landfall.dev/configuration";

/// The annotation of a release by which a person stops it or takes it back.
pub(crate) const REQUEST: &str = "landfall.dev/request";

/// What is shipped. It is not changed once it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "Release",
    namespaced,
    status = "ReleaseStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseSpec {
    /// The name of the architecture.
    pub architecture: String,
    /// Counts the releases of the architecture in its namespace.
    pub number: u32,
    /// Over what people sign: see [`ReleaseSpec::computed_digest`].
    pub digest: String,
    /// Whether what goes wrong is taken back without a person.
    pub automatic: bool,
    /// The release that this one takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_back: Option<String>,
    /// How long all services are watched when the last of them has its new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// The services in their order.
    pub services: Vec<ServiceRelease>,
    /// The environment; nothing for a file that declares none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What must hold before it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// Who is told of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Told>,
    /// The digest of all objects that were rendered for the environment: the pod templates are taken from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// How long the way back may take, as the file promises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_within_seconds: Option<u64>,
}

/// How long the services of a release are watched after the last has its new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// At least.
    pub at_least_seconds: u64,
    /// Until when it must be decided.
    pub within_seconds: u64,
}

/// One service of a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRelease {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The image before.
    pub old_image: String,
    /// The image of the release.
    pub new_image: String,
    /// How it gets it.
    pub strategy: Strategy,
    /// How Kubernetes replaces its copies: `spec.strategy` of the rendered Deployment. What the Deployment has, where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Value>,
    /// How long a copy may take to become ready.
    pub ready_within_seconds: u64,
    /// How many copies were wanted when it was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// By what it is judged when the release is verified, and who counts; nothing but crashes when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<(Judge, CountedBy)>,
    /// What the new version does with the schema of a store, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaUse>,
    /// What the version before does with it, if a release has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_schema: Option<SchemaUse>,
    /// Since when the version before runs, if it is one that is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_since: Option<String>,
    /// The pod template before, whole.
    pub old_template: Value,
    /// The pod template of the release, whole.
    pub new_template: Value,
    /// The rules of its `HTTPRoute` before, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_rules: Option<Value>,
    /// The rules of its `VirtualService` before, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_rules: Option<Value>,
    /// The fewest copies that its autoscaler may have, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler_floor: Option<u32>,
    /// The most copies that its autoscaler may have, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler_ceiling: Option<u32>,
}

/// How far a release is: written before each effect, so that whoever goes on knows what may have been done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// Where it is.
    #[serde(default)]
    pub phase: Phase,
    /// The name of the phase, for people.
    #[serde(default)]
    pub state: String,
    /// What it is doing, or why it ended, for people.
    #[serde(default)]
    pub message: String,
    /// What is not surely done yet.
    #[serde(default)]
    pub pending: Vec<Effect>,
    /// Since when the phase, or its last progress, is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The most copies of the new version that were ready in this phase.
    #[serde(default)]
    pub ready_copies: i32,
    /// What had been counted when the step began: of the service that is judged, or of each that is verified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// The samples of the own metrics of the canary that is judged, in this step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Samples>,
    /// How often containers of the new version had crashed when the stage began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashes: Option<i32>,
    /// What the versions before the release had answered when it began, by service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Counts>,
    /// What must hold before it begins, and whether it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateState>,
    /// The canaries that were planned again when it began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replanned: Vec<Replanned>,
    /// The last verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// Since when, and until when, services run the new version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ran: Vec<Ran>,
    /// What the new version has answered while it was judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<Answered>,
    /// The way back, if it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<WayBack>,
    /// What people are told, and the receipts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// What has happened.
    #[serde(default)]
    pub history: Vec<Entry>,
}

/// A service that has got its new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ran {
    /// Its name.
    pub service: String,
    /// When its first copy was started.
    pub begin: String,
    /// When every copy had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// When no copy had it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

/// What the new version of a service has answered in one step of a canary, or while all were verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// Its name.
    pub service: String,
    /// The step, from zero; nothing for the verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// How many requests.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
}

/// What had been counted when a step began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Of the canary.
    pub canary: Counts,
    /// Of the old version: of the baseline if there is one, otherwise of the stable copies.
    pub stable: Counts,
}

/// Something that has happened to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When.
    pub at: String,
    /// What.
    pub what: String,
}

impl ServiceRelease {
    /// What runs beside its stable copies while it has a canary.
    pub(crate) fn tracks(&self) -> &'static [Track] {
        match &self.strategy {
            Strategy::Canary(canary) => canary.tracks(),
            Strategy::Rolling | Strategy::Recreate => &[],
        }
    }
}

impl Record for Release {
    fn architecture(&self) -> &str {
        &self.spec.architecture
    }
}

impl ServiceRelease {
    /// Whether something else than the image is new: what the pods are told, or how they are made.
    pub fn keeps_image(&self) -> bool {
        self.old_image == self.new_image
    }
}

impl ReleaseSpec {
    /// What the state machine needs to know.
    pub fn plan(&self) -> Plan {
        let services = self.services.iter().map(|service| service.strategy.path()).collect();
        Plan { services, automatic: self.automatic, verify: self.verification.is_some() }
    }
}

impl ReleaseStatus {
    /// How long the phase, or its last progress, is there.
    pub(crate) fn age_seconds(&self, now: Timestamp) -> u64 {
        let since = self.since.as_deref().and_then(|since| since.parse::<Timestamp>().ok()).unwrap_or(now);
        u64::try_from(now.duration_since(since).as_secs()).unwrap_or_default()
    }

    /// Whether only what is for people is another.
    pub(crate) fn differs_in_words_only(&self, other: &Self) -> bool {
        let words = |of: &Self| Self { message: String::new(), analysis: None, answered: Vec::new(), ..of.clone() };
        words(self) == words(other)
    }

    /// What follows from an event, written down; whether anything does.
    pub(crate) fn follow(&mut self, spec: &ReleaseSpec, event: &Event, now: Timestamp) -> bool {
        let Some((phase, effects)) = self.phase.next(event, &spec.plan()) else { return false };
        let mut what = story::describe(spec, event, &self.phase, &phase);
        self.note_versions(spec, &phase, now);
        what.extend(self.note_way_back(spec, &phase, now).map(|late| format!("; {late}")));
        self.enter(phase, effects, what, now);
        true
    }

    /// Notes which services get and lose the new version when `next` begins.
    fn note_versions(&mut self, spec: &ReleaseSpec, next: &Phase, now: Timestamp) {
        let name = |service: usize| spec.services.get(service).map(|service| service.name.clone()).unwrap_or_default();
        let ran = |status: &mut Self, service: usize| status.ran.iter().position(|ran| ran.service == name(service));
        match (self.phase.clone(), next) {
            (
                Phase::Progressing { service, stage: Stage::Updating | Stage::Promoting },
                Phase::Progressing { .. } | Phase::Succeeded,
            ) => {
                if let Some(place) = ran(self, service) {
                    self.ran[place].done = Some(now.to_string());
                }
            }
            // Of one that was too late nobody knows when its last new copy went.
            (
                Phase::RollingBack { service, stage: Return::Restoring, late, .. },
                Phase::RollingBack { .. } | Phase::RolledBack { .. } | Phase::Failed { .. },
            ) if late.as_deref() == next.late() => {
                if let Some(place) = ran(self, service) {
                    self.ran[place].end = Some(now.to_string());
                }
            }
            _ => {}
        }
        if let Phase::Progressing { service, stage: Stage::Updating | Stage::Starting } = next {
            self.ran.push(Ran { service: name(*service), begin: now.to_string(), done: None, end: None });
        }
    }

    /// Notes what the new version of a service has answered since the step began.
    pub(crate) fn note_answers(&mut self, service: &str, step: Option<usize>, counts: &Counts) {
        let answered = Answered { service: service.to_owned(), step, requests: counts.total(), failed: counts.bad };
        let known = self.answered.iter_mut().find(|known| known.service == answered.service && known.step == step);
        match known {
            Some(known) => *known = answered,
            None => self.answered.push(answered),
        }
    }

    /// The phase begins.
    fn enter(&mut self, phase: Phase, pending: Vec<Effect>, what: String, now: Timestamp) {
        self.state = phase.name().to_owned();
        self.phase = phase;
        self.pending = pending;
        self.since = Some(now.to_string());
        self.ready_copies = 0;
        self.windows.clear();
        self.metrics.clear();
        self.crashes = None;
        self.message.clone_from(&what);
        self.history.push(Entry { at: now.to_string(), what });
    }
}

/// Whether a message about a release is still to be sent.
pub fn tells(release: &Release) -> bool {
    release.status.as_ref().is_some_and(|status| status.notices.iter().any(Notice::is_open))
}

/// The digest of a value, whatever the order of its keys.
pub(crate) fn over(value: &Value) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(sorted(value).to_string())))
}

/// The same value whatever the order of its keys.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text, cut where it is longer than so many bytes.
pub(crate) fn shortened(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let mut end = longest - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// The template without what says to which release it belongs, and what people leave behind who restart by hand.
pub(crate) fn plain(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| key != RELEASE && key != "kubectl.kubernetes.io/restartedAt");
        }
        let empty = metadata.get("annotations").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty);
        if empty {
            metadata.remove("annotations");
        }
        metadata.remove("creationTimestamp");
    }
    template
}

/// Whether a service already runs what a template says. Pods that nobody shipped say nothing of their configuration.
pub(crate) fn is_same(live: &Value, new: &Value) -> bool {
    let (live, mut new) = (plain(live), plain(new));
    if live["metadata"]["annotations"][CONFIGURATION].is_null()
        && let Some(metadata) = new["metadata"].as_object_mut()
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(CONFIGURATION);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    sorted(&live) == sorted(&new)
}

/// Sets an annotation of a template.
pub(crate) fn annotate(template: &mut Value, key: &str, value: &str) {
    if !template["metadata"]["annotations"].is_object() {
        template["metadata"]["annotations"] = json!({});
    }
    template["metadata"]["annotations"][key] = json!(value);
}

/// The image of the container that has the name of the service, or of the first one.
pub(crate) fn image_of<'a>(template: &'a Value, service: &str) -> Option<&'a str> {
    let containers = template["spec"]["containers"].as_array()?;
    let own = containers.iter().find(|container| container["name"] == service).or_else(|| containers.first())?;
    own["image"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_same_whatever_the_order_of_keys() {
        assert_eq!(over(&json!({ "x": 1, "y": [2] })), over(&json!({ "y": [2], "x": 1 })));
        assert_ne!(over(&json!({ "x": 1, "y": [2] })), over(&json!({ "x": 1, "y": [3] })));
    }

    #[test]
    fn a_service_is_changed_when_its_configuration_is() {
        let template = |annotations: Value| json!({ "metadata": { "annotations": annotations }, "spec": {} });
        let shipped = template(json!({ RELEASE: "shop-1", CONFIGURATION: "aa" }));
        assert!(is_same(&shipped, &template(json!({ CONFIGURATION: "aa" }))));
        assert!(!is_same(&shipped, &template(json!({ CONFIGURATION: "bb" }))));
        assert!(is_same(&json!({ "metadata": {}, "spec": {} }), &template(json!({ CONFIGURATION: "aa" }))));
    }
}
