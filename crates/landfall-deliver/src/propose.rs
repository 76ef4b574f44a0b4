//! From an architecture, its rendered objects and what is in the cluster to a release that could be shipped, and what speaks
//! against it. Nothing is changed.

pub(crate) mod configuration;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use landfall_model::{Architecture, Rollout, ServiceKind};
use serde_json::{Value, json};

use crate::analysis::Work;
use crate::audit::{Action, Author, Fact};
use crate::cluster::figures::{self, Counters};
use crate::cluster::follower::{self, Objection};
use crate::cluster::workload::{self, progress, template_of};
use crate::cluster::{ClusterError, During as _, MANAGER, around, definition, records};
use crate::gate::{self, GateState, Standing, WAITING};
use crate::metric::{Asked, CanaryMetric};
use crate::notify;
use crate::plan::{self, Counted, Live, PrometheusAt, Strategy, Track};
use crate::release::{
    CONFIGURATION, RELEASE, Ran, Release, ReleaseSpec, ServiceRelease, Verification, annotate, image_of, is_same, over,
    plain,
};
use crate::rollout::Phase;
use crate::schema::{self, SchemaUse};

/// What is to be shipped.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The architecture of the environment.
    pub architecture: &'a Architecture,
    /// Its rendered objects, patches applied.
    pub objects: &'a [Value],
    /// Other images than the file's, by service. When there are any, only these services are shipped.
    pub images: &'a BTreeMap<String, String>,
    /// The Prometheus that has counted the requests; without one, that of the cluster.
    pub prometheus: Option<&'a str>,
}

/// A release that could be shipped.
#[derive(Debug)]
pub struct Proposal {
    /// Where it would be kept.
    pub namespace: String,
    /// What would be shipped.
    pub spec: ReleaseSpec,
    /// What a person wants to know of each service, in the order of the services.
    pub lines: Vec<Vec<String>>,
    /// What must hold before it begins, and whether it does.
    pub gates: Vec<GateState>,
    /// What speaks against it; it cannot be shipped unless this is empty.
    pub refusals: Vec<String>,
    /// What is not shipped, and why.
    pub notes: Vec<String>,
}

/// Makes a proposal.
///
/// # Panics
///
/// When a rendered Deployment is none.
pub async fn propose(client: &Client, wanted: Wanted<'_>) -> Result<Proposal, ClusterError> {
    let architecture = wanted.architecture;
    let namespace = architecture.namespace().to_string();
    let name = architecture.document.name.to_string();
    let (mut refusals, mut notes) = (Vec::new(), Vec::new());
    let counting = Counting::find(client, wanted.prometheus).await?;
    let chosen = choose(&wanted, &mut refusals, &mut notes);
    let mut found = BTreeMap::new();
    for service in &chosen {
        let Some(object) = deployment_of(wanted.objects, service) else {
            let why = format!("`{service}` is no Deployment; scheduled jobs and others are not shipped yet");
            let into = if wanted.images.is_empty() { &mut notes } else { &mut refusals };
            into.push(why);
            continue;
        };
        match examine(client, &wanted, service, object, &counting).await? {
            Examined::Same => notes.push(format!("`{service}` runs that already")),
            Examined::Missing => refusals.push(format!(
                "there is no Deployment `{service}` in `{}`; bring the platform there first: `landfall render kubernetes --stdout | kubectl apply -f -`",
                object["metadata"]["namespace"].as_str().unwrap_or_default()
            )),
            Examined::Differs(subject) => {
                match &subject.objection {
                    Some(Objection::Refusal(why)) => refusals.push(why.clone()),
                    Some(Objection::Note(why)) => notes.push(why.clone()),
                    None => {}
                }
                found.insert(service.clone(), *subject);
            }
        }
    }
    let changed: BTreeSet<String> = found.keys().cloned().collect();
    let verdicts = plan::verdicts(architecture, changed.iter().filter_map(|name| architecture.service(name)));
    let (mut services, mut lines) = (Vec::new(), Vec::new());
    for service in plan::order(architecture, &changed) {
        let declared = architecture.service(&service).expect("only declared services are chosen");
        let mut subject = found.remove(&service).expect("the order has these services only");
        match plan::plan(architecture, &service, declared, &subject.live, verdicts) {
            Ok(planned) => {
                subject.release.strategy = planned.strategy;
                subject.release.ready_within_seconds = planned.ready_within_seconds;
                subject.release.verified = planned.verified;
                lines.push(planned.lines);
            }
            Err(why) => {
                refusals.push(why);
                lines.push(Vec::new());
            }
        }
        services.push(subject.release);
    }
    let others = list(client, &namespace, &name).await?;
    refusals.extend(others.iter().filter(|release| !phase_of(release).is_terminal()).map(unfinished));
    for service in &mut services {
        service.old_schema = schema::of_image(&others, &service.name, &service.old_image);
    }
    let mut spec = assemble(name, &others, architecture.document.delivery.rollback.automatic.value, services, None);
    spec.verification = plan::is_verified(architecture).then_some(Verification {
        at_least_seconds: plan::VERIFY_AT_LEAST_SECONDS,
        within_seconds: plan::VERIFY_WITHIN_SECONDS,
    });
    spec.environment = architecture.environment.as_ref().map(ToString::to_string);
    spec.gates = gate::required(architecture);
    spec.notify = notify::told(architecture.notify());
    spec.rollback_within_seconds =
        architecture.document.delivery.rollback.within.as_ref().map(|within| within.value.seconds());
    spec.bundle = Some(over(&json!(wanted.objects)));
    spec.digest = spec.computed_digest();
    if architecture.is_production() {
        for note in spec.container_images().values().filter_map(|image| without_digest(image)) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    refusals.extend(schema::forward(&spec, &others, &mut notes));
    let gates = gate::look(client, &namespace, None, &spec).await?;
    Ok(Proposal { namespace, spec, lines, gates, refusals, notes })
}

/// The release that brings back what was there before `release`; before the last one that succeeded when none is named.
pub async fn propose_return(
    client: &Client,
    namespace: &str,
    architecture: &str,
    release: Option<&str>,
) -> Result<Result<Proposal, String>, ClusterError> {
    let others = list(client, namespace, architecture).await?;
    let can_go = |other: &&Release| can_go_back(other, &others);
    let wanted = match release {
        Some(name) => others.iter().find(|other| other.name_any() == name),
        None => others.iter().rfind(can_go),
    };
    let Some(wanted) = wanted else {
        return Ok(Err(match release {
            Some(name) => format!("there is no release `{name}` of `{architecture}`"),
            None => format!("nothing is left of any release of `{architecture}` that could be taken back"),
        }));
    };
    let name = wanted.name_any();
    if !can_go(&wanted) {
        return Ok(Err(format!(
            "release `{name}` has ended as {}: there is nothing to take back",
            phase_of(wanted).name()
        )));
    }
    let is_later = |other: &&Release| other.spec.number > wanted.spec.number && touches(other, wanted);
    let later = others.iter().filter(can_go).find(is_later);
    if let Some(later) = later {
        let later = later.name_any();
        return Ok(Err(format!(
            "release `{later}` came after it and changed the same services: take that one back first"
        )));
    }
    let mut refusals: Vec<String> =
        others.iter().filter(|other| !phase_of(other).is_terminal()).map(unfinished).collect();
    let ran = wanted.status.as_ref().map(|status| status.ran.as_slice()).unwrap_or_default();
    let runs = |ran: &&Ran| ran.end.is_none();
    let since = |service: &str| ran.iter().filter(runs).find(|ran| ran.service == service).map(|ran| ran.begin.clone());
    let (mut services, mut lines) = (Vec::new(), Vec::new());
    // What never got its new version has nothing to go back from.
    let has_run = |service: &&ServiceRelease| ran.iter().any(|ran| ran.service == service.name);
    // Who came last goes first, so that callers are old before those they call.
    for service in wanted.spec.services.iter().rev().filter(has_run) {
        let live = workload::deployment(client, &service.namespace, &service.name).await?;
        let Some(live) = live else {
            refusals.push(format!("the Deployment `{}` is gone", service.name));
            continue;
        };
        let stops_first = replaced_at_once(service, &live);
        let how = if stops_first {
            "all new copies stop before the first old one starts: nobody serves meanwhile"
        } else {
            "copy by copy"
        };
        lines.push(vec![format!("back to `{}`, {how}", service.old_image)]);
        let (old_template, new_template) = (template_of(&live), plain(&service.old_template));
        let image = |template: &Value| image_of(template, &service.name).unwrap_or_default().to_owned();
        services.push(ServiceRelease {
            strategy: if stops_first { Strategy::Recreate } else { Strategy::Rolling },
            old_image: image(&old_template),
            new_image: image(&new_template),
            old_template,
            new_template,
            copies: None,
            route_rules: None,
            mesh_rules: None,
            verified: None,
            autoscaler_floor: None,
            autoscaler_ceiling: None,
            schema: service.old_schema.clone(),
            old_schema: service.schema.clone(),
            old_since: since(&service.name),
            ..service.clone()
        });
    }
    refusals.extend(schema::back(&services, &others, wanted.spec.number));
    let mut spec = assemble(architecture.to_owned(), &others, wanted.spec.automatic, services, Some(name));
    spec.environment.clone_from(&wanted.spec.environment);
    spec.notify.clone_from(&wanted.spec.notify);
    spec.rollback_within_seconds = wanted.spec.rollback_within_seconds;
    spec.digest = spec.computed_digest();
    let (namespace, gates) = (namespace.to_owned(), Vec::new());
    Ok(Ok(Proposal { namespace, spec, lines, gates, refusals, notes: Vec::new() }))
}

/// Whether all copies stop before the first of another version starts: as the release says that Kubernetes replaces them, or else the
/// Deployment.
fn replaced_at_once(service: &ServiceRelease, live: &Deployment) -> bool {
    let live = live.spec.as_ref().and_then(|spec| spec.strategy.as_ref()).and_then(|own| own.type_.as_deref());
    let said = service.replacement.as_ref().map(|own| own["type"].as_str());
    said.unwrap_or(live) == Some("Recreate")
}

/// Whether something of a release can be taken back: it has succeeded and was not taken back yet, or it could not be taken back and
/// nothing has succeeded since.
fn can_go_back(release: &Release, others: &[Release]) -> bool {
    let mut succeeded = others.iter().filter(|other| phase_of(other) == Phase::Succeeded);
    if release.spec.takes_back.is_some() {
        return false;
    }
    match phase_of(release) {
        Phase::Succeeded => !succeeded.any(|other| other.spec.takes_back == Some(release.name_any())),
        Phase::Failed { .. } => {
            !succeeded.any(|other| other.spec.number > release.spec.number && touches(other, release))
        }
        _ => false,
    }
}

/// Whether two releases change the same service.
fn touches(one: &Release, other: &Release) -> bool {
    one.spec.services.iter().any(|own| other.spec.services.iter().any(|service| service.name == own.name))
}

/// Writes a proposal down as a release that has not begun, and that into the audit log first.
pub async fn create(client: &Client, proposal: &Proposal, author: &Author) -> Result<Release, ClusterError> {
    definition::ensure(client).await?;
    let api = Api::<Release>::namespaced(client.clone(), &proposal.namespace);
    let mut spec = proposal.spec.clone();
    loop {
        let name = format!("{}-{}", spec.architecture, spec.number);
        let mut numbered = spec.clone();
        for service in &mut numbered.services {
            annotate(&mut service.new_template, RELEASE, &name);
        }
        author.write(proposed(&name, &numbered)).await?;
        match api.create(&PostParams::default(), &Release::new(&name, numbered)).await {
            // Somebody else has this number.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => spec.number += 1,
            created => return created.during(|| format!("write the release `{name}`")),
        }
    }
}

/// The releases of an architecture, by their numbers.
pub async fn list(client: &Client, namespace: &str, architecture: &str) -> Result<Vec<Release>, ClusterError> {
    let mut releases: Vec<Release> = records::list(client, namespace, architecture, "the releases").await?;
    releases.sort_by_key(|release| release.spec.number);
    Ok(releases)
}

/// What the audit log says of a proposal.
fn proposed(name: &str, spec: &ReleaseSpec) -> Fact {
    let services = spec.services.iter();
    let images = services.map(|own| format!("image {} {} -> {}", own.name, own.old_image, own.new_image));
    let takes_back = spec.takes_back.as_ref().map(|release| format!("takes `{release}` back"));
    Fact {
        action: Action::Propose,
        subject: name.to_owned(),
        digest: Some(spec.digest.clone()),
        says: takes_back.unwrap_or_else(|| format!("ships {} services", spec.services.len())),
        evidence: images.collect(),
    }
}

/// The name of where a release is; `Waiting` when it has not begun because of its gates.
pub fn state_of(release: &Release) -> &'static str {
    let status = release.status.as_ref();
    let waits = status.is_some_and(|status| status.gates.iter().any(|gate| gate.standing != Standing::Open));
    match phase_of(release) {
        Phase::Pending if waits => WAITING,
        phase => phase.name(),
    }
}

/// Where a release is.
pub fn phase_of(release: &Release) -> Phase {
    release.status.as_ref().map(|status| status.phase.clone()).unwrap_or_default()
}

fn unfinished(release: &Release) -> String {
    let name = release.name_any();
    format!(
        "release `{name}` is not finished ({}): `landfall ship --watch` goes on with it, `landfall rollback {name}` takes it back",
        state_of(release)
    )
}

fn assemble(
    architecture: String,
    others: &[Release],
    automatic: bool,
    services: Vec<ServiceRelease>,
    takes_back: Option<String>,
) -> ReleaseSpec {
    let number = others.iter().map(|release| release.spec.number).max().unwrap_or(0) + 1;
    ReleaseSpec {
        architecture,
        number,
        // It follows when the rest is there.
        digest: String::new(),
        automatic,
        takes_back,
        verification: None,
        services,
        environment: None,
        gates: Vec::new(),
        notify: Vec::new(),
        bundle: None,
        rollback_within_seconds: None,
    }
}

/// The services that are wanted.
fn choose(wanted: &Wanted<'_>, refusals: &mut Vec<String>, notes: &mut Vec<String>) -> BTreeSet<String> {
    let declared = &wanted.architecture.document.services;
    if wanted.images.is_empty() {
        return declared.keys().map(ToString::to_string).collect();
    }
    let mut chosen = BTreeSet::new();
    for (service, image) in wanted.images {
        if declared.get(service.as_str()).is_none() {
            let names: Vec<String> = declared.keys().map(ToString::to_string).collect();
            refusals.push(format!("there is no service `{service}`; there are {}", names.join(", ")));
            continue;
        }
        notes.extend(without_digest(image));
        chosen.insert(service.clone());
    }
    chosen
}

/// Whether an image is named by its digest, so that nobody can put another in its place.
pub fn has_digest(image: &str) -> bool {
    image.contains("@sha256:")
}

/// That whoever pushes an image decides what runs under its name.
fn without_digest(image: &str) -> Option<String> {
    (!has_digest(image)).then(|| format!("`{image}` has no digest: whoever moves the tag changes what runs"))
}

/// The rendered Deployment of a service.
fn deployment_of<'a>(objects: &'a [Value], service: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == service)
}

/// What there is of a service.
enum Examined {
    /// What runs is what is wanted.
    Same,
    /// It is not deployed.
    Missing,
    Differs(Box<Subject>),
}

struct Subject {
    /// Its strategy is not decided yet.
    release: ServiceRelease,
    live: Live,
    /// What somebody who applies it from Git would do to the release.
    objection: Option<Objection>,
}

async fn examine(
    client: &Client,
    wanted: &Wanted<'_>,
    service: &str,
    object: &Value,
    counting: &Counting,
) -> Result<Examined, ClusterError> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let Some(live) = workload::deployment(client, &namespace, service).await? else { return Ok(Examined::Missing) };
    let mut object = object.clone();
    if let Some(image) = wanted.images.get(service) {
        let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
        let own = containers.and_then(|list| list.iter_mut().find(|container| container["name"] == service));
        if let Some(container) = own {
            container["image"] = json!(image);
        }
    }
    let old_template = template_of(&live);
    let replacement = object["spec"].get("strategy").cloned();
    let mut new_template = defaulted(client, &namespace, object).await?;
    let configuration = configuration::hash(client, &namespace, &new_template).await?;
    if let Some(configuration) = configuration {
        annotate(&mut new_template, CONFIGURATION, &configuration);
    }
    if is_same(&old_template, &new_template) {
        return Ok(Examined::Same);
    }
    let objection = follower::objection(client, &live).await?;
    let route_rules = around::route_rules(client, &namespace, service).await?;
    let (meshed, mesh_rules) = match wanted.architecture.document.platform.mesh {
        Some(_) => around::mesh_rules(client, &namespace, service).await?,
        None => (false, None),
    };
    let ports = wanted.architecture.service(service).map_or(0, |service| service.all_ports().len());
    let settles = live.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let bounds = around::bounds(client, &namespace, service).await?;
    let state = progress(&live);
    let copies = u32::try_from(state.wanted).unwrap_or_default();
    let ready = live.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    let image = |template: &Value| image_of(template, service).unwrap_or_default().to_owned();
    let live = Live {
        copies,
        ready: u32::try_from(ready).unwrap_or_default(),
        settled: state.settled,
        autoscaler: bounds,
        routed: route_rules.is_some(),
        meshed: meshed && (mesh_rules.is_some() || ports == 1),
        counted: counting.of(Work::Requests, &namespace, service).await,
        processed: if could_work_as_canary(wanted.architecture, service) {
            counting.of(Work::Messages, &namespace, service).await
        } else {
            Counted::default()
        },
        asked: counting.asked(&own_metrics(wanted.architecture, service), &namespace, service).await,
        settles_seconds: u64::try_from(settles).unwrap_or_default(),
    };
    let release = ServiceRelease {
        name: service.to_owned(),
        namespace,
        old_image: image(&old_template),
        new_image: image(&new_template),
        strategy: Strategy::Rolling,
        replacement,
        ready_within_seconds: 0,
        copies: Some(copies),
        verified: None,
        old_template,
        new_template,
        route_rules,
        mesh_rules,
        autoscaler_floor: bounds.map(|bounds| bounds.floor),
        autoscaler_ceiling: bounds.map(|bounds| bounds.ceiling),
        schema: wanted.architecture.service(service).and_then(SchemaUse::of),
        old_schema: None,
        old_since: None,
    };
    Ok(Examined::Differs(Box::new(Subject { release, live, objection })))
}

/// Whether a service is a worker whose rollout is a canary.
fn could_work_as_canary(architecture: &Architecture, service: &str) -> bool {
    architecture.service(service).is_some_and(|own| {
        own.kind.value == ServiceKind::Worker && matches!(architecture.rollout(own).value, Rollout::Canary(_))
    })
}

/// The own metrics by which a canary of a service is judged.
fn own_metrics(architecture: &Architecture, service: &str) -> Vec<CanaryMetric> {
    match architecture.service(service).map(|own| architecture.rollout(own).value) {
        Some(Rollout::Canary(canary)) => canary.judge.metrics.iter().map(CanaryMetric::of).collect(),
        _ => Vec::new(),
    }
}

/// Who may count requests here.
struct Counting {
    counters: Counters,
    by_gateway: bool,
    prometheus: Option<PrometheusAt>,
}

impl Counting {
    async fn find(client: &Client, prometheus: Option<&str>) -> Result<Self, ClusterError> {
        let by_gateway = figures::read(client).await?.is_some();
        let prometheus = prometheus.map(|url| PrometheusAt::Url(url.to_owned()));
        Ok(Self { counters: Counters::new(client.clone()), by_gateway, prometheus })
    }

    async fn asked(&self, metrics: &[CanaryMetric], namespace: &str, service: &str) -> Asked {
        self.counters.asked(metrics, namespace, service, self.prometheus.as_ref()).await
    }

    async fn of(&self, work: Work, namespace: &str, service: &str) -> Counted {
        // The gateway sees requests alone.
        let by_gateway = work == Work::Requests && self.by_gateway;
        self.counters.of(work, namespace, service, by_gateway, self.prometheus.as_ref()).await
    }
}

/// The template as the cluster completes it: by a creation under another name that is only tried. Were it tried as a
/// change, fields that only an earlier version had would stay.
async fn defaulted(client: &Client, namespace: &str, mut object: Value) -> Result<Value, ClusterError> {
    let name = Track::Canary.name(object["metadata"]["name"].as_str().unwrap_or_default());
    object["metadata"] = json!({ "generateName": format!("{name}-"), "namespace": namespace });
    let tried: Deployment = serde_json::from_value(object).expect("rendered Deployments are Deployments");
    let parameters = PostParams { dry_run: true, field_manager: Some(MANAGER.to_owned()) };
    let created = Api::<Deployment>::namespaced(client.clone(), namespace).create(&parameters, &tried).await;
    Ok(template_of(&created.during(|| format!("try the Deployment `{name}`"))?))
}
