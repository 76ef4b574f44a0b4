//! Small operators: for one machine, they make from custom resources what the real operators make from them — the same
//! names, labels, secrets and services — and know nothing but the Kubernetes API.
//!
//! Evidence from them is evidence about the architecture, not about the real operators: they do not update or
//! rescale. CloudNativePG's and Redis' fail over; the former's also backs up, and brings back. What is marked to be at rest
//! ([`AT_REST`]) has its pods ended, and nothing else is done for it.

mod argocd;
mod certificates;
mod cloudnative_pg;
mod keda;
mod percona_mongodb;
mod rabbitmq;
mod redis;
mod redis_replication;
mod secrets;
mod strimzi;

pub use secrets::URL_OF;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use landfall_model::ENGINE_CLOCK;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use self::strimzi::image as kafka_image;

use crate::authority::{Authority, AuthorityError};

/// How the objects that are applied are marked as ours.
const MANAGER: &str = "landfall-standin";

/// What has this annotation has no pods. The rest of it stays: its volumes, its passwords, its services.
pub const AT_REST: &str = "landfall.dev/at-rest";

/// The label of a Secret that stands where an operator would make one, and in which nobody finds anything.
pub const PLACEHOLDER: &str = "landfall.dev/placeholder";

/// What is not finished is looked at again after this time.
const AGAIN: Duration = Duration::from_millis(500);

/// What may change by itself is looked at again after this time.
const LATER: Duration = Duration::from_secs(2);

/// Why something could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The API server refused, or was not reached.
    #[error("failed to {action}")]
    Request {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// A certificate could not be signed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A command in a pod failed.
    #[error("a command in the pod {pod} failed: {output}")]
    Command {
        /// The pod.
        pod: String,
        /// What it printed.
        output: String,
    },
}

/// Whether all is made, or has to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    Again,
    Later,
}

type Reconcile = fn(Arc<Context>, Arc<DynamicObject>) -> BoxFuture<'static, Result<Progress, OperatorError>>;

/// The kinds that are made into something here.
const OPERATORS: &[(&str, &str, &str, Reconcile)] = &[
    ("argoproj.io", "v1alpha1", "Application", |context, object| Box::pin(argocd::reconcile(context, object))),
    ("cert-manager.io", "v1", "Certificate", |context, object| Box::pin(certificates::reconcile(context, object))),
    ("networking.k8s.io", "v1", "Ingress", |context, object| Box::pin(certificates::of_ingress(context, object))),
    ("kafka.strimzi.io", "v1", "Kafka", |context, object| Box::pin(strimzi::reconcile(context, object))),
    ("kafka.strimzi.io", "v1", "KafkaNodePool", |context, object| Box::pin(strimzi::pool(context, object))),
    ("kafka.strimzi.io", "v1", "KafkaTopic", |context, object| Box::pin(strimzi::topic(context, object))),
    ("kafka.strimzi.io", "v1", "KafkaUser", |context, object| Box::pin(strimzi::user(context, object))),
    ("external-secrets.io", "v1", "ExternalSecret", |context, object| Box::pin(secrets::reconcile(context, object))),
    ("keda.sh", "v1alpha1", "ScaledObject", |context, object| Box::pin(keda::reconcile(context, object))),
    ("postgresql.cnpg.io", "v1", "Backup", |context, object| Box::pin(cloudnative_pg::backup(context, object))),
    ("postgresql.cnpg.io", "v1", "ScheduledBackup", |context, object| {
        Box::pin(cloudnative_pg::schedule(context, object))
    }),
    ("postgresql.cnpg.io", "v1", "Cluster", |context, object| Box::pin(cloudnative_pg::reconcile(context, object))),
    ("rabbitmq.com", "v1beta1", "RabbitmqCluster", |context, object| Box::pin(rabbitmq::reconcile(context, object))),
    ("redis.redis.opstreelabs.in", "v1beta2", "RedisCluster", |context, object| {
        Box::pin(redis::reconcile(context, object))
    }),
    ("redis.redis.opstreelabs.in", "v1beta2", "Redis", |context, object| {
        Box::pin(redis_replication::standalone(context, object))
    }),
    ("redis.redis.opstreelabs.in", "v1beta2", "RedisReplication", |context, object| {
        Box::pin(redis_replication::replication(context, object))
    }),
    ("redis.redis.opstreelabs.in", "v1beta2", "RedisSentinel", |context, object| {
        Box::pin(redis_replication::sentinel(context, object))
    }),
    ("psmdb.percona.com", "v1", "PerconaServerMongoDB", |context, object| {
        Box::pin(percona_mongodb::reconcile(context, object))
    }),
];

/// Runs the operators of those kinds that have one, until `stop`. The kinds must be served.
pub async fn run_operators(
    client: Client,
    authority: Authority,
    kinds: Vec<GroupVersionKind>,
    stop: CancellationToken,
) {
    let (primaries, repositories) = (cloudnative_pg::Memory::default(), argocd::Memory::default());
    let context = Arc::new(Context { client, authority, primaries, repositories });
    let mut running = JoinSet::new();
    for (group, version, kind, reconcile) in OPERATORS {
        let kind = GroupVersionKind::gvk(group, version, kind);
        if kinds.contains(&kind) {
            running.spawn(run(Arc::clone(&context), kind, *reconcile, stop.clone()));
        }
    }
    running.join_all().await;
}

async fn run(context: Arc<Context>, kind: GroupVersionKind, reconcile: Reconcile, stop: CancellationToken) {
    let resource = ApiResource::from_gvk(&kind);
    let all = Api::<DynamicObject>::all_with(context.client.clone(), &resource);
    let one = move |object: Arc<DynamicObject>, context: Arc<Context>| async move {
        let progress = if object.annotations().contains_key(AT_REST) {
            context.rest(&object).await
        } else {
            reconcile(context, object).await
        };
        progress.map(|progress| match progress {
            Progress::Done => Action::await_change(),
            Progress::Again => Action::requeue(AGAIN),
            Progress::Later => Action::requeue(LATER),
        })
    };
    let failed = |object: Arc<DynamicObject>, error: &OperatorError, _: Arc<Context>| {
        // What is needed first is often not there yet.
        let reason = std::error::Error::source(error).map(ToString::to_string);
        debug!(object = object.name_any(), %error, reason, "trying again");
        Action::requeue(AGAIN)
    };
    Controller::new_with(all, watcher::Config::default(), resource)
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(one, failed, context)
        .for_each(|result| async move {
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
                warn!(%error, "a kind is not watched");
            }
        })
        .await;
}

/// What all operators work with.
struct Context {
    client: Client,
    authority: Authority,
    primaries: cloudnative_pg::Memory,
    repositories: argocd::Memory,
}

impl Context {
    /// Brings an object to this state; it ends with `owner`.
    async fn apply(&self, owner: &DynamicObject, mut object: Value) -> Result<(), OperatorError> {
        object["metadata"]["ownerReferences"] = json!([owner_reference(owner)]);
        object["metadata"]["namespace"] = json!(owner.namespace());
        let (api, name) = self.api_of(&object);
        let parameters = PatchParams::apply(MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await.map_err(request("apply", &object))?;
        Ok(())
    }

    /// Makes an object unless it is there: for what must not change any more, such as passwords and pods.
    async fn ensure(&self, owner: &DynamicObject, mut object: Value) -> Result<(), OperatorError> {
        object["metadata"]["ownerReferences"] = json!([owner_reference(owner)]);
        object["metadata"]["namespace"] = json!(owner.namespace());
        let (api, name) = self.api_of(&object);
        if api.get_opt(&name).await.map_err(request("read", &object))?.is_some() {
            return Ok(());
        }
        let parsed: DynamicObject = serde_json::from_value(object.clone()).expect("an object has the form of one");
        match api.create(&PostParams::default(), &parsed).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            made => made.map(drop).map_err(request("make", &object)),
        }
    }

    /// Ends the pods that were made for an object.
    async fn rest(&self, owner: &DynamicObject) -> Result<Progress, OperatorError> {
        let namespace = owner.namespace().unwrap_or_default();
        // Whoever would make the pods again goes first.
        end_all(&Api::<StatefulSet>::namespaced(self.client.clone(), &namespace), owner).await?;
        end_all(&Api::<Pod>::namespaced(self.client.clone(), &namespace), owner).await?;
        Ok(Progress::Done)
    }

    /// The clock of the engine; that of this machine where there is none.
    async fn now(&self) -> Timestamp {
        let request = Request::get(ENGINE_CLOCK).body(Vec::new()).expect("a plain request");
        let told = self.client.request::<Value>(request).await;
        let told = told.ok().and_then(|told| told["time"].as_str()?.parse().ok());
        told.unwrap_or_else(Timestamp::now)
    }

    /// A value of a Secret, once it is there and no placeholder.
    async fn secret_value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, OperatorError> {
        let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(self.client.clone(), namespace);
        let secret = secrets.get_opt(name).await.map_err(|source| OperatorError::Request {
            action: format!("read the Secret {name}"),
            source: Box::new(source),
        })?;
        let made = secret.filter(|secret| !secret.labels().contains_key(PLACEHOLDER));
        let value = made.and_then(|secret| secret.data?.remove(key));
        Ok(value.and_then(|value| String::from_utf8(value.0).ok()))
    }

    /// The pods with these labels.
    async fn pods(&self, namespace: &str, labels: &str) -> Result<Vec<Pod>, OperatorError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let listed = pods.list(&ListParams::default().labels(labels)).await;
        listed.map(|list| list.items).map_err(|source| OperatorError::Request {
            action: format!("list the pods {labels}"),
            source: Box::new(source),
        })
    }

    /// Runs a script in a container, and gives what it has printed.
    async fn run_in(&self, namespace: &str, pod: &str, container: &str, script: &str) -> Result<String, OperatorError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let failed = |output: String| OperatorError::Command { pod: pod.to_owned(), output };
        let parameters = AttachParams::default().stdout(true).stderr(true).container(container);
        let mut process = pods.exec(pod, ["sh", "-c", script], &parameters).await.map_err(|source| {
            OperatorError::Request { action: format!("run a command in the pod {pod}"), source: Box::new(source) }
        })?;
        let (mut output, mut complaints) = (String::new(), String::new());
        let (mut stdout, mut stderr) = (process.stdout(), process.stderr());
        let read_output = async {
            match &mut stdout {
                Some(stream) => stream.read_to_string(&mut output).await.map(drop),
                None => Ok(()),
            }
        };
        let read_complaints = async {
            match &mut stderr {
                Some(stream) => stream.read_to_string(&mut complaints).await.map(drop),
                None => Ok(()),
            }
        };
        futures::try_join!(read_output, read_complaints).map_err(|error| failed(error.to_string()))?;
        process.join().await.map_err(|error| failed(format!("{error}: {complaints}")))?;
        debug!(pod, output, complaints, "ran a command");
        Ok(output)
    }

    /// Gives a pod a label.
    async fn label(&self, namespace: &str, pod: &str, key: &str, value: &str) -> Result<(), OperatorError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(json!({ "metadata": { "labels": { key: value } } }));
        pods.patch(pod, &PatchParams::default(), &patch).await.map(drop).map_err(|source| OperatorError::Request {
            action: format!("label the pod {pod}"),
            source: Box::new(source),
        })
    }

    /// Writes the status of a custom resource.
    async fn set_status(&self, object: &DynamicObject, status: Value) -> Result<(), OperatorError> {
        if object.data["status"] == status {
            return Ok(());
        }
        let value = serde_json::to_value(object).expect("an object is JSON");
        let (api, name) = self.api_of(&value);
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&name, &PatchParams::default(), &patch)
            .await
            .map(drop)
            .map_err(request("write the status of", &value))
    }

    fn api_of(&self, object: &Value) -> (Api<DynamicObject>, String) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = ApiResource::from_gvk(&gvk(object));
        let namespace = text(&object["metadata"]["namespace"]);
        let api = Api::namespaced_with(self.client.clone(), &namespace, &resource);
        (api, text(&object["metadata"]["name"]))
    }
}

/// Deletes the objects of a kind that end with `owner`.
async fn end_all<K>(all: &Api<K>, owner: &DynamicObject) -> Result<(), OperatorError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let failed = |what: &str| {
        let action = format!("{what} for {}, which is at rest", owner.name_any());
        move |source: kube::Error| OperatorError::Request { action, source: Box::new(source) }
    };
    let listed = all.list(&ListParams::default()).await.map_err(failed("list what runs"))?;
    let is_own = |object: &&K| {
        let mut owners = object.owner_references().iter();
        object.meta().deletion_timestamp.is_none()
            && owners.any(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
    };
    for object in listed.iter().filter(is_own) {
        match all.delete(&object.name_any(), &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            ended => drop(ended.map_err(failed("end what runs"))?),
        }
    }
    Ok(())
}

fn gvk(object: &Value) -> GroupVersionKind {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    GroupVersionKind::gvk(group, version, text("kind"))
}

fn request<'a>(action: &'a str, object: &'a Value) -> impl FnOnce(kube::Error) -> OperatorError + 'a {
    move |source| OperatorError::Request {
        action: format!(
            "{action} the {} {}",
            object["kind"].as_str().unwrap_or_default(),
            object["metadata"]["name"].as_str().unwrap_or_default()
        ),
        source: Box::new(source),
    }
}

fn owner_reference(owner: &DynamicObject) -> Value {
    let types = owner.types.clone().unwrap_or_default();
    json!({
        "apiVersion": types.api_version,
        "kind": types.kind,
        "name": owner.name_any(),
        "uid": owner.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The context that pods of a namespace with restricted pod security must have.
pub fn pod_security() -> Value {
    json!({ "runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": { "type": "RuntimeDefault" } })
}

/// The context that their containers must have.
pub fn container_security() -> Value {
    json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })
}

/// The labels of an object, with others on top.
fn labels_of(object: &DynamicObject, more: &[(&str, &str)]) -> Value {
    let mut labels = object.labels().clone();
    labels.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    json!(labels)
}

/// A password of 24 letters and digits, which needs no escaping in URLs and configuration files.
fn password() -> String {
    use rand::Rng as _;
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(24).map(char::from).collect()
}
