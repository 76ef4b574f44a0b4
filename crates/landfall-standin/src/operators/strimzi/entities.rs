//! Strimzi's entity operator: `KafkaTopic` and `KafkaUser`.
//!
//! Each is brought to the cluster by a command in the pod of a node; there is no entity-operator pod. Not handled: what is
//! deleted, fewer partitions, another replication, users by certificate, quotas, and passwords that others choose.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, DynamicObject};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{Context, OperatorError, Progress, is_ready, password};
use super::{CLUSTER_LABEL, REPLICATION_PORT, cluster_of, is_marked_ready, not_ready};
use crate::servers::kafka::ADMIN;
use crate::servers::kafka::admin::{Order, Right, Topic, User, Wanted};

/// How long a command in a pod may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(in crate::operators) async fn topic(
    context: Arc<Context>,
    object: Arc<DynamicObject>,
) -> Result<Progress, OperatorError> {
    let Some(cluster) = cluster_of(&context, &object).await? else { return Ok(Progress::Again) };
    if !cluster.data["spec"]["entityOperator"]["topicOperator"].is_object() || is_brought(&object) {
        return Ok(Progress::Done);
    }
    let spec = &object.data["spec"];
    let config = spec["config"].as_object().into_iter().flatten();
    let wanted = Topic {
        name: spec["topicName"].as_str().map_or_else(|| object.name_any(), ToOwned::to_owned),
        partitions: spec["partitions"].as_i64().and_then(|count| count.try_into().ok()),
        replicas: spec["replicas"].as_i64().and_then(|count| count.try_into().ok()),
        config: config.map(|(key, value)| (key.clone(), plain(value))).collect(),
    };
    let status = json!({ "topicName": wanted.name });
    bring(&context, &cluster, &object, Wanted::Topic(wanted), status).await
}

pub(in crate::operators) async fn user(
    context: Arc<Context>,
    object: Arc<DynamicObject>,
) -> Result<Progress, OperatorError> {
    let Some(cluster) = cluster_of(&context, &object).await? else { return Ok(Progress::Again) };
    if !cluster.data["spec"]["entityOperator"]["userOperator"].is_object() {
        return Ok(Progress::Done);
    }
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let authentication = &object.data["spec"]["authentication"];
    if authentication["type"] != "scram-sha-512" || authentication["password"].is_object() {
        let why = "not handled here: users without a password that the operator makes";
        context.set_status(&object, not_ready(&object, why)).await?;
        return Ok(Progress::Done);
    }
    let password = password();
    let login = format!(
        "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{name}\" password=\"{password}\";"
    );
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": { CLUSTER_LABEL: cluster.name_any(), "strimzi.io/kind": "KafkaUser" },
        },
        "stringData": { "password": password, "sasl.jaas.config": login },
    });
    // Before the cluster is ready: the pods of its clients wait for it.
    context.ensure(&object, secret).await?;
    if is_brought(&object) {
        return Ok(Progress::Done);
    }
    let Some(password) = context.secret_value(&namespace, &name, "password").await? else {
        return Ok(Progress::Again);
    };
    let authorization = &object.data["spec"]["authorization"];
    let wanted =
        User { name: name.clone(), password, rights: authorization.is_object().then(|| rights(authorization)) };
    let status = json!({ "username": name, "secret": name });
    bring(&context, &cluster, &object, Wanted::User(wanted), status).await
}

fn rights(authorization: &Value) -> Vec<Right> {
    let mut rights = Vec::new();
    for rule in authorization["acls"].as_array().into_iter().flatten() {
        let resource = &rule["resource"];
        let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
        for operation in rule["operations"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            rights.push(Right {
                resource: text("type"),
                name: text("name"),
                prefix: resource["patternType"] == "prefix",
                operation: operation.to_owned(),
            });
        }
    }
    rights
}

/// A value as Kafka's settings have it: without the quotes of JSON.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// Whether the cluster has it as it is declared now.
fn is_brought(object: &DynamicObject) -> bool {
    is_marked_ready(object) && object.data["status"]["observedGeneration"] == json!(object.metadata.generation)
}

async fn bring(
    context: &Context,
    cluster: &DynamicObject,
    object: &DynamicObject,
    wanted: Wanted,
    mut status: Value,
) -> Result<Progress, OperatorError> {
    if !is_marked_ready(cluster) {
        return Ok(Progress::Again);
    }
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let pods = context.pods(&namespace, &format!("{CLUSTER_LABEL}={name},strimzi.io/kind=Kafka")).await?;
    let Some(pod) = pods.iter().find(|pod| is_ready(pod)).map(kube::ResourceExt::name_any) else {
        return Ok(Progress::Again);
    };
    let node = format!("{pod}.{name}-kafka-brokers.{namespace}.svc:{REPLICATION_PORT}");
    match order(context, &namespace, &pod, &Order { node, wanted }).await {
        Ok(()) => {
            status["observedGeneration"] = json!(object.metadata.generation);
            status["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
            context.set_status(object, status).await?;
            Ok(Progress::Done)
        }
        Err(error) => {
            context.set_status(object, not_ready(object, &error.to_string())).await?;
            Err(error)
        }
    }
}

/// Runs the tool of a node. What it is told has a password in it, so it goes in by the standard input.
async fn order(context: &Context, namespace: &str, pod: &str, order: &Order) -> Result<(), OperatorError> {
    let pods = Api::<Pod>::namespaced(context.client.clone(), namespace);
    let failed = |output: String| OperatorError::Command { pod: pod.to_owned(), output };
    let line = serde_json::to_string(order).map_err(|error| failed(error.to_string()))? + "\n";
    let parameters = AttachParams::default().stdin(true).stdout(true).stderr(false).container("kafka");
    let mut process = pods.exec(pod, [ADMIN], &parameters).await.map_err(|source| OperatorError::Request {
        action: format!("run a command in the pod {pod}"),
        source: Box::new(source),
    })?;
    // A stand-in logs to its standard output, as the containers of pods do.
    let (input, complaints, ended) = (process.stdin(), process.stdout(), process.take_status());
    let (Some(mut input), Some(mut complaints), Some(ended)) = (input, complaints, ended) else {
        return Err(failed("it has no streams".to_owned()));
    };
    let exchange = async {
        input.write_all(line.as_bytes()).await?;
        input.flush().await?;
        let mut said = String::new();
        complaints.read_to_string(&mut said).await?;
        Ok::<_, std::io::Error>((said, ended.await))
    };
    let exchange = tokio::time::timeout(PATIENCE, exchange).await;
    let (said, status) = exchange
        .map_err(|_| failed(format!("no answer after {PATIENCE:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    match status {
        Some(status) if status.status.as_deref() == Some("Success") => Ok(()),
        _ => Err(failed(said.trim().to_owned())),
    }
}
