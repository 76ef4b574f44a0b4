//! Whether a platform that is up follows a Git repository: what is committed arrives, what somebody changes by hand is put back, what
//! is no more in the repository goes, and the versions that releases have brought stay.
//!
//! The repository is one on this machine, with what `landfall render argocd` writes, and a small operator stands in for Argo CD.
//! In the end nothing of it is left in the cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use landfall_model::{ARGOCD_NAMESPACE as NAMESPACE, ARGOCD_TRACKING, Sources};
use landfall_render::{Target, Variant};
use landfall_standin::{Authority, run_operators};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::apply;
use super::running::Found;
use crate::files::write_whole;

/// How long each step may take: the operator looks every two seconds, and applies all objects at first.
const PATIENCE: Duration = Duration::from_mins(2);

const POLL: Duration = Duration::from_millis(250);

/// As whom the operator applies objects.
const MANAGER: &str = "argocd-controller";

/// The object with which it is tried.
const TRIED: &str = "landfall-gitops-tried";

/// What was seen.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GitopsReport {
    /// The application, as Argo CD calls it.
    pub(crate) application: String,
    /// Whether commits arrive by themselves; otherwise somebody starts each sync.
    pub(crate) automatic: bool,
    /// How many objects it has.
    pub(crate) objects: usize,
    pub(crate) steps: Vec<GitopsStep>,
}

/// One thing that was tried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GitopsStep {
    pub(crate) says: String,
    /// How long it took.
    pub(crate) seconds: Option<f64>,
    /// What is not as it should be.
    pub(crate) problem: Option<String>,
}

impl GitopsReport {
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        self.steps.iter().filter_map(|step| Some(format!("{}: {}", step.says, step.problem.as_ref()?)))
    }
}

/// A repository with what is rendered, and the application that follows it.
pub(crate) struct Followed<'a> {
    found: &'a Found,
    repository: PathBuf,
    /// `environments/production`.
    path: String,
    application: DynamicObject,
    resource: ApiResource,
    /// What was committed last.
    revision: String,
    /// The namespace of applications was not there before.
    made_namespace: bool,
    stop: CancellationToken,
    operator: tokio::task::JoinHandle<()>,
}

impl Found {
    /// Makes the repository, and has it followed.
    pub(crate) async fn follow(&self, sources: &Sources) -> anyhow::Result<Followed<'_>> {
        let variant = Variant::new(self.architecture.clone());
        let rendered = landfall_render::render(Target::Argocd, std::slice::from_ref(&variant), sources);
        let repository = self.place.repository();
        if repository.exists() {
            fs::remove_dir_all(&repository).with_context(|| format!("failed to remove `{}`", repository.display()))?;
        }
        fs::create_dir_all(&repository).with_context(|| format!("failed to make `{}`", repository.display()))?;
        for (path, text) in &rendered.files {
            write_whole(&repository.join(path), text.as_bytes())?;
        }
        git(&repository, &["init", "--quiet"]).await?;
        let revision = commit(&repository, "what is rendered").await?;

        let own = &variant.name;
        let set = &rendered.files[&format!("argocd/applications/{own}.yaml")];
        let set: Value = serde_saphyr::from_str(set).context("failed to read what was rendered")?;
        let application = application(&set, &repository);
        let application: DynamicObject = serde_json::from_value(application)?;
        let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application");
        apply::define(&self.client, std::slice::from_ref(&kind)).await?;
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let made_namespace = namespaces.get_opt(NAMESPACE).await?.is_none();
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        apply::apply_all(&self.client, &[&namespace]).await?;
        let stop = CancellationToken::new();
        let authority = Authority::open(&self.place.authority()).context("failed to open the authority")?;
        let operator = run_operators(self.client.clone(), authority, vec![kind.clone()], stop.clone());
        let followed = Followed {
            found: self,
            repository,
            path: format!("environments/{own}"),
            application,
            resource: ApiResource::from_gvk(&kind),
            revision,
            made_namespace,
            stop,
            operator: tokio::spawn(operator),
        };
        // One of an earlier run that was killed begins anew.
        let name = followed.application.name_any();
        let api = followed.applications();
        if api.get_opt(&name).await?.is_some() {
            api.delete(&name, &DeleteParams::default()).await?;
        }
        api.create(&PostParams::default(), &followed.application).await.context("failed to make the application")?;
        Ok(followed)
    }

    /// Keeps what was seen.
    pub(crate) fn keep_gitops(&self, seen: &GitopsReport) -> anyhow::Result<()> {
        write_whole(&self.place.gitops(), &serde_json::to_vec_pretty(seen)?)
    }
}

/// That of the cluster of the first region, which is the one here, for the repository here.
fn application(set: &Value, repository: &Path) -> Value {
    let template = set["spec"]["template"].to_string();
    let region = set.pointer("/spec/generators/0/list/elements/0/region").and_then(Value::as_str).unwrap_or("local");
    let template: Value = serde_json::from_str(&template.replace("{{ .region }}", region)).expect("a region is a name");
    let mut metadata = template["metadata"].clone();
    metadata["namespace"] = json!(NAMESPACE);
    let mut spec = template["spec"].clone();
    spec["source"]["repoURL"] = json!(repository);
    spec["source"]["targetRevision"] = json!("HEAD");
    let namespace = &spec["destination"]["namespace"];
    spec["destination"] = json!({ "name": "in-cluster", "namespace": namespace });
    json!({ "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec })
}

impl Followed<'_> {
    fn applications(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.found.client.clone(), NAMESPACE, &self.resource)
    }

    fn namespace(&self) -> &str {
        self.application.data["spec"]["destination"]["namespace"].as_str().unwrap_or_default()
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.found.client.clone(), self.namespace())
    }

    fn is_automatic(&self) -> bool {
        self.application.data["spec"].pointer("/syncPolicy/automated").is_some_and(Value::is_object)
    }

    /// Tries it; `tell` hears what is tried.
    pub(crate) async fn try_all(&mut self, mut tell: impl FnMut(&str)) -> anyhow::Result<GitopsReport> {
        let versions = self.templates().await?;
        tell("what is committed arrives");
        let first = self.synced("what is rendered arrives from the repository").await?;
        let mut steps = vec![first];
        if steps[0].problem.is_none() {
            tell("a commit arrives");
            self.write(Some("first")).await?;
            steps.push(self.synced("a commit arrives").await?);
            tell("what is changed by hand");
            steps.push(self.by_hand().await?);
            tell("what is removed");
            self.write(None).await?;
            let mut removed = self.synced("what a commit removes goes").await?;
            if self.config_maps().get_opt(TRIED).await?.is_some_and(|found| found.metadata.deletion_timestamp.is_none())
            {
                removed.problem.get_or_insert_with(|| format!("the ConfigMap `{TRIED}` is still there"));
            }
            steps.push(removed);
        }
        steps.push(self.versions_stay(&versions).await?);
        let live = self.applications().get(&self.application.name_any()).await?;
        Ok(GitopsReport {
            application: self.application.name_any(),
            automatic: self.is_automatic(),
            objects: live.data["status"]["resources"].as_array().map_or(0, Vec::len),
            steps,
        })
    }

    /// The pod templates of the services.
    async fn templates(&self) -> anyhow::Result<BTreeMap<String, Value>> {
        let all = Api::<Deployment>::namespaced(self.found.client.clone(), self.namespace());
        let all = all.list(&ListParams::default()).await.context("failed to list the deployments")?;
        let template =
            |deployment: Deployment| (deployment.name_any(), json!(deployment.spec.map(|spec| spec.template)));
        Ok(all.items.into_iter().map(template).collect())
    }

    /// Nothing that was committed has started other pods.
    async fn versions_stay(&self, before: &BTreeMap<String, Value>) -> anyhow::Result<GitopsStep> {
        let now = self.templates().await?;
        let changed: Vec<&str> = before
            .iter()
            .filter(|(name, template)| now.get(*name) != Some(template))
            .map(|(name, _)| name.as_str())
            .collect();
        let problem = (!changed.is_empty()).then(|| format!("the pods of {} were replaced", changed.join(", ")));
        let says = "the versions that run are those that ran".to_owned();
        Ok(GitopsStep { says, seconds: None, problem })
    }

    /// Writes the object with which it is tried, or removes it, and commits that.
    async fn write(&mut self, word: Option<&str>) -> anyhow::Result<()> {
        let folder = self.repository.join(&self.path);
        let kustomization = folder.join("kustomization.yaml");
        let text = fs::read_to_string(&kustomization).context("failed to read what was rendered")?;
        let mut content: Value = serde_saphyr::from_str(&text).context("failed to read what was rendered")?;
        let resources = content["resources"].as_array_mut().context("a kustomization has resources")?;
        resources.retain(|resource| resource != "tried.yaml");
        if let Some(word) = word {
            resources.push(json!("tried.yaml"));
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": TRIED, "namespace": self.namespace() }, "data": { "word": word },
            });
            write_whole(&folder.join("tried.yaml"), object.to_string().as_bytes())?;
        }
        // JSON is YAML, too.
        write_whole(&kustomization, content.to_string().as_bytes())?;
        self.revision = commit(&self.repository, word.unwrap_or("nothing")).await?;
        Ok(())
    }

    /// Waits until the cluster is as the last commit says; where that does not happen by itself it is asked for.
    async fn synced(&self, says: &str) -> anyhow::Result<GitopsStep> {
        let begin = Instant::now();
        let mut asked = self.is_automatic();
        loop {
            let live = self.applications().get(&self.application.name_any()).await?;
            let status = &live.data["status"];
            let is_seen = status["sync"]["revision"] == *self.revision;
            let failed = status["operationState"]["phase"] == "Failed";
            if is_seen && status["sync"]["status"] == "Synced" {
                let seconds = Some(begin.elapsed().as_secs_f64());
                return Ok(GitopsStep { says: says.to_owned(), seconds, problem: None });
            }
            if is_seen && !asked {
                self.start_sync().await?;
                asked = true;
            }
            if begin.elapsed() >= PATIENCE || is_seen && failed && begin.elapsed() > PATIENCE / 4 {
                let conditions = status["conditions"].as_array().into_iter().flatten();
                let why: Vec<&str> = conditions.filter_map(|condition| condition["message"].as_str()).collect();
                let why = if why.is_empty() { status["sync"].to_string() } else { why.join("; ") };
                return Ok(GitopsStep { says: says.to_owned(), seconds: None, problem: Some(why) });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// As `argocd app sync --prune` does.
    async fn start_sync(&self) -> anyhow::Result<()> {
        let operation =
            json!({ "sync": { "revision": self.revision, "prune": true }, "initiatedBy": { "username": "landfall" } });
        let patch = Patch::Merge(json!({ "operation": operation }));
        let patched = self.applications().patch(&self.application.name_any(), &PatchParams::default(), &patch).await;
        patched.map(drop).context("failed to start a sync")
    }

    /// Changes an object of the repository, and one that is rendered, as somebody would with `kubectl`.
    async fn by_hand(&self) -> anyhow::Result<GitopsStep> {
        const LABEL: &str = "app.kubernetes.io/managed-by";
        let begin = Instant::now();
        let hand = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "data": { "word": "by hand" } }));
        self.config_maps().patch(TRIED, &hand, &patch).await.context("failed to change what was committed")?;
        let services = Api::<Service>::namespaced(self.found.client.clone(), self.namespace());
        let all = services.list(&ListParams::default()).await.context("failed to list the services")?;
        let tracked = |service: &&Service| service.annotations().contains_key(ARGOCD_TRACKING);
        let labelled = all
            .iter()
            .filter(tracked)
            .find_map(|service| Some((service.name_any(), service.labels().get(LABEL)?.clone())));
        if let Some((name, _)) = &labelled {
            let patch = Patch::Merge(json!({ "metadata": { "labels": { LABEL: "somebody" } } }));
            services
                .patch(name, &hand, &patch)
                .await
                .with_context(|| format!("failed to change the Service `{name}`"))?;
        }
        let mut asked = self.is_automatic();
        let says = if asked {
            "what is changed by hand is put back"
        } else {
            "what is changed by hand is seen, and put back by a sync"
        };
        loop {
            let word = self.config_maps().get(TRIED).await?.data.and_then(|mut data| data.remove("word"));
            let label = match &labelled {
                Some((name, before)) => services.get(name).await?.labels().get(LABEL) == Some(before),
                None => true,
            };
            if word.as_deref() == Some("first") && label {
                let seconds = Some(begin.elapsed().as_secs_f64());
                return Ok(GitopsStep { says: says.to_owned(), seconds, problem: None });
            }
            let live = self.applications().get(&self.application.name_any()).await?;
            if !asked && live.data["status"]["sync"]["status"] == "OutOfSync" {
                self.start_sync().await?;
                asked = true;
            }
            if begin.elapsed() >= PATIENCE {
                let problem = if asked { "it is still so" } else { "nobody sees it" };
                return Ok(GitopsStep { says: says.to_owned(), seconds: None, problem: Some(problem.to_owned()) });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Nobody follows the repository any more, and nothing in the cluster is marked as its own.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        (&mut self.operator).await.context("the operator has panicked")?;
        // Where it was stopped in the middle somebody else owns a part of it.
        match self.config_maps().delete(TRIED, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            removed => drop(removed.with_context(|| format!("failed to remove the ConfigMap `{TRIED}`"))?),
        }
        let name = self.application.name_any();
        let live = self.applications().get(&name).await?;
        for one in live.data["status"]["resources"].as_array().into_iter().flatten() {
            self.let_go(one).await?;
        }
        self.applications()
            .delete(&name, &DeleteParams::default())
            .await
            .context("failed to remove the application")?;
        if self.made_namespace {
            let namespaces = Api::<Namespace>::all(self.found.client.clone());
            let removed = namespaces.delete(NAMESPACE, &DeleteParams::background()).await;
            removed.with_context(|| format!("failed to remove the namespace `{NAMESPACE}`"))?;
        }
        Ok(())
    }

    /// What only it has made goes; of others it owns nothing any more.
    async fn let_go(&self, one: &Value) -> anyhow::Result<()> {
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        let (kind, name) = (text("kind"), text("name"));
        let group = kube::discovery::group(&self.found.client, text("group")).await;
        let group = group.with_context(|| format!("failed to look for the kind {kind}"))?;
        // Of several versions of a group not each has all kinds.
        let Some((resource, _)) = group.resources_by_stability().into_iter().find(|(own, _)| own.kind == kind) else {
            return Ok(());
        };
        let api: Api<DynamicObject> = match text("namespace") {
            "" => Api::all_with(self.found.client.clone(), &resource),
            namespace => Api::namespaced_with(self.found.client.clone(), namespace, &resource),
        };
        let Some(live) = api.get_opt(name).await.with_context(|| format!("failed to read {kind} `{name}`"))? else {
            return Ok(());
        };
        let writers =
            live.managed_fields().iter().filter(|entry| entry.subresource.as_deref().is_none_or(str::is_empty));
        if writers.into_iter().all(|entry| entry.manager.as_deref() == Some(MANAGER)) {
            let deleted = api.delete(name, &DeleteParams::background()).await;
            return deleted.map(drop).with_context(|| format!("failed to remove {kind} `{name}`"));
        }
        let nothing = json!({
            "apiVersion": resource.api_version, "kind": kind,
            "metadata": { "name": name, "namespace": live.namespace() },
        });
        let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(nothing)).await;
        applied.map(drop).with_context(|| format!("failed to let go of {kind} `{name}`"))
    }
}

async fn git(repository: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    // Whatever somebody has set for repositories of theirs.
    command.args(["-c", "user.name=Landfall", "-c", "user.email=landfall@localhost", "-c", "commit.gpgsign=false"]);
    command.args(["-c", "core.hooksPath=/dev/null"]).args(arguments).current_dir(repository);
    let output = command.output().await.context("failed to run `git`, which reads and writes the repository")?;
    anyhow::ensure!(
        output.status.success(),
        "`git {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Commits all that is there: the commit.
async fn commit(repository: &Path, message: &str) -> anyhow::Result<String> {
    git(repository, &["add", "--all"]).await?;
    git(repository, &["commit", "--quiet", "--message", message]).await?;
    git(repository, &["rev-parse", "HEAD"]).await
}
