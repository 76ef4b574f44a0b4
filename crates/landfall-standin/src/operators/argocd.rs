//! Argo CD's `Application`: what a Git repository says is in the cluster, and stays there.
//!
//! As documented (<https://argo-cd.readthedocs.io/en/stable/>): objects are compared by what applying them would change
//! (`ServerSideDiff`), applied in the order of their waves, and marked by the annotation `argocd.argoproj.io/tracking-id`. An
//! application without `syncPolicy.automated` waits for an `operation`, which `argocd app sync` writes. Not handled: Helm,
//! several sources, other clusters than this one, hooks, and the limits of projects.

mod difference;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::{Api, Client, ResourceExt as _, discovery};
use landfall_model::ARGOCD_TRACKING;
use serde_json::{Value, json};
use tracing::debug;

use self::difference::{Rule, differs, without_ignored};
use self::source::Source;
use super::{Context, OperatorError, Progress, gvk, request};

/// As whom objects are applied.
const MANAGER: &str = "argocd-controller";

const WAVE: &str = "argocd.argoproj.io/sync-wave";

/// What was read from repositories: by address, revision and path.
#[derive(Default)]
pub(in crate::operators) struct Memory(Mutex<BTreeMap<Source, Arc<Vec<Value>>>>);

/// An object as applications name it: group, kind, namespace and name.
type Key = (String, String, String, String);

pub(super) async fn reconcile(context: Arc<Context>, app: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let application = Application { context: &context, app: &app };
    let status = match application.look().await {
        Ok(status) => status,
        Err(Trouble::Operator(error)) => return Err(error),
        // It may be mended where it is read, so it is looked at again.
        Err(Trouble::Source(message)) => {
            let mut status = app.data["status"].clone();
            status["sync"] = json!({ "status": "Unknown" });
            status["conditions"] = json!([{ "type": "ComparisonError", "message": message }]);
            status
        }
    };
    context.set_status(&app, status).await?;
    if app.data["operation"].is_object() {
        application.end_operation().await?;
    }
    Ok(Progress::Later)
}

enum Trouble {
    /// The repository cannot be read, or has no objects there.
    Source(String),
    Operator(OperatorError),
}

impl From<OperatorError> for Trouble {
    fn from(error: OperatorError) -> Self {
        Self::Operator(error)
    }
}

struct Application<'a> {
    context: &'a Context,
    app: &'a DynamicObject,
}

/// An object of the repository, beside the one in the cluster.
struct Compared {
    key: Key,
    api: Api<DynamicObject>,
    wanted: Value,
    live: Option<DynamicObject>,
    /// Applying it changes something, or makes it.
    differs: bool,
}

impl Application<'_> {
    fn spec(&self, pointer: &str) -> &Value {
        self.app.data["spec"].pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Compares, and applies where it is to: the status of the application.
    async fn look(&self) -> Result<Value, Trouble> {
        let destination = self.spec("/destination");
        let here = destination["name"] == "in-cluster" || destination["server"] == "https://kubernetes.default.svc";
        if !here {
            return Err(Trouble::Source(format!("the cluster {destination} is not known here")));
        }
        let source = Source::of(self.spec("/source")).await.map_err(Trouble::Source)?;
        let objects = self.objects(&source).await?;
        let kinds = self.kinds(&objects).await?;
        let mut compared = Vec::new();
        let mut conditions = Vec::new();
        for object in objects.iter() {
            match self.compare(object, &kinds).await? {
                Some(one) => compared.push(one),
                None => conditions.push(json!({
                    "type": "SyncError",
                    "message": format!("the cluster does not know the kind {}", gvk(object).kind),
                })),
            }
        }
        let before = self.before();
        let wanted: BTreeSet<&Key> = compared.iter().map(|one| &one.key).collect();
        let stale: Vec<Key> = before.into_iter().filter(|key| !wanted.contains(key)).collect();
        let all_known = conditions.is_empty();
        let mut is_synced = all_known && compared.iter().all(|one| !one.differs) && stale.is_empty();

        let automated = self.spec("/syncPolicy/automated");
        let is_new = self.app.data["status"]["operationState"]["syncResult"]["revision"] != *source.revision;
        let by_itself = automated.is_object() && (is_new || automated["selfHeal"] == true);
        let asked = &self.app.data["operation"]["sync"];
        let mut operation = self.app.data["status"]["operationState"].clone();
        let mut kept = Vec::new();
        if !is_synced && (by_itself || asked.is_object()) {
            let failures = self.sync(&mut compared).await?;
            let prune = automated["prune"] == true || asked["prune"] == true;
            if prune && failures.is_empty() {
                self.prune(&stale, &kinds).await?;
            } else {
                kept = stale;
            }
            is_synced = all_known && failures.is_empty() && kept.is_empty();
            conditions.extend(failures.iter().map(|why| json!({ "type": "SyncError", "message": why })));
            let phase = if failures.is_empty() { "Succeeded" } else { "Failed" };
            operation = json!({ "phase": phase, "syncResult": { "revision": *source.revision } });
        } else {
            kept = stale;
        }
        let tracked = compared.iter().map(|one| &one.key).chain(&kept).map(
            |(group, kind, namespace, name)| json!({ "group": group, "kind": kind, "namespace": namespace, "name": name }),
        );
        Ok(json!({
            "sync": { "status": if is_synced { "Synced" } else { "OutOfSync" }, "revision": *source.revision },
            "health": { "status": health(&compared) },
            "operationState": operation,
            "resources": tracked.collect::<Vec<_>>(),
            "conditions": conditions,
        }))
    }

    async fn objects(&self, source: &Source) -> Result<Arc<Vec<Value>>, Trouble> {
        let known = &self.context.repositories.0;
        let found = known.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        let mut objects = source.objects().await.map_err(Trouble::Source)?;
        // `sort_by_key` keeps the order within a wave.
        objects.sort_by_key(|object| {
            let wave = object.pointer("/metadata/annotations").and_then(|all| all[WAVE].as_str());
            wave.and_then(|wave| wave.parse::<i32>().ok()).unwrap_or(0)
        });
        let objects = Arc::new(objects);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other, _| (&other.repository, &other.path) != (&source.repository, &source.path));
        known.insert(source.clone(), Arc::clone(&objects));
        Ok(objects)
    }

    /// The kinds of these objects, and of those that were applied before, as far as the cluster knows them.
    async fn kinds(
        &self,
        objects: &[Value],
    ) -> Result<BTreeMap<(String, String), (ApiResource, ApiCapabilities)>, OperatorError> {
        let mut groups: BTreeSet<String> = objects.iter().map(|object| gvk(object).group).collect();
        groups.extend(self.before().into_iter().map(|(group, ..)| group));
        let mut kinds = BTreeMap::new();
        for group in groups {
            let found = match discovery::group(&self.context.client, &group).await {
                Ok(found) => found,
                Err(kube::Error::Api(status)) if status.code == 404 => continue,
                Err(kube::Error::Discovery(_)) => continue,
                Err(source) => {
                    return Err(OperatorError::Request {
                        action: format!("look for the group {group}"),
                        source: Box::new(source),
                    });
                }
            };
            let all = found.resources_by_stability().into_iter();
            kinds.extend(all.map(|(resource, can)| ((group.clone(), resource.kind.clone()), (resource, can))));
        }
        Ok(kinds)
    }

    async fn compare(
        &self,
        object: &Value,
        kinds: &BTreeMap<(String, String), (ApiResource, ApiCapabilities)>,
    ) -> Result<Option<Compared>, OperatorError> {
        let kind = gvk(object);
        let Some((_, can)) = kinds.get(&(kind.group.clone(), kind.kind.clone())) else { return Ok(None) };
        let mut wanted = object.clone();
        let mut namespace = String::new();
        if can.scope == Scope::Namespaced {
            let own = &mut wanted["metadata"]["namespace"];
            if own.is_null() {
                *own = self.spec("/destination/namespace").clone();
            }
            own.as_str().unwrap_or_default().clone_into(&mut namespace);
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let tracking = format!("{}:{}/{}:{namespace}/{name}", self.app.name_any(), kind.group, kind.kind);
        wanted["metadata"]["annotations"][ARGOCD_TRACKING] = json!(tracking);
        let api = api(&self.context.client, &ApiResource::from_gvk(&kind), &namespace);
        let live = api.get_opt(&name).await.map_err(request("read", &wanted))?;
        let rules: Vec<Rule> = self.app.data["spec"]["ignoreDifferences"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|rule| Rule(rule.clone()))
            .filter(|rule| rule.is_about(&kind, &namespace, &name))
            .collect();
        let options = self.spec("/syncPolicy/syncOptions").as_array();
        let respects = options.into_iter().flatten().any(|option| option == "RespectIgnoreDifferences=true");
        let mut differing = live.is_none();
        if let Some(live) = &live {
            let compared = without_ignored(&wanted, live, &rules);
            let parameters = PatchParams::apply(MANAGER).force().dry_run();
            let predicted = api.patch(&name, &parameters, &Patch::Apply(&compared)).await;
            differing = differs(live, &predicted.map_err(request("compare", &wanted))?);
            if respects {
                wanted = compared;
            }
        }
        Ok(Some(Compared { key: (kind.group, kind.kind, namespace, name), api, wanted, live, differs: differing }))
    }

    /// What was applied before.
    fn before(&self) -> BTreeSet<Key> {
        let resources = self.app.data["status"]["resources"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        resources
            .map(|one| (text(&one["group"]), text(&one["kind"]), text(&one["namespace"]), text(&one["name"])))
            .collect()
    }

    /// Applies what differs, wave after wave; why some could not be applied.
    async fn sync(&self, compared: &mut [Compared]) -> Result<Vec<String>, OperatorError> {
        let mut failures = Vec::new();
        for one in compared.iter_mut().filter(|one| one.differs) {
            let name = &one.key.3;
            let parameters = PatchParams::apply(MANAGER).force();
            match one.api.patch(name, &parameters, &Patch::Apply(&one.wanted)).await {
                Ok(applied) => {
                    debug!(application = self.app.name_any(), kind = one.key.1, name, "applied");
                    (one.live, one.differs) = (Some(applied), false);
                }
                Err(kube::Error::Api(status)) => failures.push(format!("{} `{name}`: {}", one.key.1, status.message)),
                Err(error) => return Err(request("apply", &one.wanted)(error)),
            }
        }
        Ok(failures)
    }

    /// Deletes what the repository has no more, if it is still this application's.
    async fn prune(
        &self,
        stale: &[Key],
        kinds: &BTreeMap<(String, String), (ApiResource, ApiCapabilities)>,
    ) -> Result<(), OperatorError> {
        let own = format!("{}:", self.app.name_any());
        for (group, kind, namespace, name) in stale {
            let Some((resource, _)) = kinds.get(&(group.clone(), kind.clone())) else { continue };
            let (api, object) =
                (api(&self.context.client, resource, namespace), json!({ "metadata": { "name": name } }));
            let Some(live) = api.get_opt(name).await.map_err(request("read", &object))? else { continue };
            if live.annotations().get(ARGOCD_TRACKING).is_some_and(|tracking| tracking.starts_with(&own)) {
                match api.delete(name, &DeleteParams::background()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    deleted => drop(deleted.map_err(request("delete", &object))?),
                }
            }
        }
        Ok(())
    }

    /// Somebody's wish was looked at.
    async fn end_operation(&self) -> Result<(), OperatorError> {
        let value = serde_json::to_value(self.app).expect("an object is JSON");
        let (api, name) = self.context.api_of(&value);
        let patch = Patch::Merge(json!({ "operation": null }));
        api.patch(&name, &PatchParams::default(), &patch)
            .await
            .map(drop)
            .map_err(request("end the operation of", &value))
    }
}

/// The worst of the objects that have a health: those whose copies take their time.
fn health(compared: &[Compared]) -> &'static str {
    let progressing = |one: &Compared| {
        let Some(live) = &one.live else { return true };
        let value = || serde_json::to_value(live).unwrap_or_default();
        match (one.key.0.as_str(), one.key.1.as_str()) {
            ("apps", "Deployment") => {
                let Ok(found) = serde_json::from_value::<Deployment>(value()) else { return false };
                let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let ready = found.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
                ready < wanted
            }
            ("apps", "StatefulSet") => {
                let Ok(found) = serde_json::from_value::<StatefulSet>(value()) else { return false };
                let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                found.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) < wanted
            }
            _ => false,
        }
    };
    if compared.iter().any(|one| one.live.is_none()) {
        "Missing"
    } else if compared.iter().any(progressing) {
        "Progressing"
    } else {
        "Healthy"
    }
}

fn api(client: &Client, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    match namespace {
        "" => Api::all_with(client.clone(), resource),
        namespace => Api::namespaced_with(client.clone(), namespace, resource),
    }
}
