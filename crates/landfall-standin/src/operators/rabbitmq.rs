//! The RabbitMQ Cluster Operator's `RabbitmqCluster`, with the `Queue` objects of its topology operator.
//!
//! Queues are declared by the definitions that a node reads when it starts, and grown onto the other members when all are there.
//! Not handled: queues that are added later, exchanges, bindings, users and policies.

mod queues;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tracing::debug;

use super::{Context, OperatorError, Progress, container_security, is_ready, labels_of, password, pod_security};

/// The user that the operator makes.
const USER: &str = "default_user_landfall";

/// Where the entry point of the server keeps its files.
const HOME: &str = "/var/lib/rabbitmq/mnesia/home";

const TLS_PORT: u16 = 5671;
const PLAIN_PORT: u16 = 5672;

/// The condition that each quorum queue has the members that it asks for; the real operator has none like it.
const REPLICATED: &str = "QueuesReplicated";

/// The field of the status that says for which pods and queues that was found.
const REPLICATED_FOR: &str = "replicatedFor";

pub(super) async fn reconcile(context: Arc<Context>, cluster: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let spec = &cluster.data["spec"];
    let replicas = spec["replicas"].as_u64().unwrap_or(1);
    let tls = spec["tls"]["secretName"].as_str();
    let port = if tls.is_some() { TLS_PORT } else { PLAIN_PORT };
    let host = format!("{name}.{namespace}.svc");
    context
        .ensure(
            &cluster,
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": format!("{name}-default-user") },
                "stringData": {
                    "username": USER, "password": password(), "host": host, "port": port.to_string(),
                    "provider": "rabbitmq", "type": "rabbitmq",
                },
            }),
        )
        .await?;
    context
        .ensure(
            &cluster,
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": format!("{name}-erlang-cookie") },
                "stringData": { ".erlang.cookie": password() },
            }),
        )
        .await?;
    let secret = format!("{name}-default-user");
    let Some(known) = context.secret_value(&namespace, &secret, "password").await? else {
        return Ok(Progress::Again);
    };
    let queues = queues(&context, &namespace, &name).await?;
    context
        .apply(
            &cluster,
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": format!("{name}-server-conf") },
                "stringData": {
                    "rabbitmq.conf": configuration(&name, &namespace, spec, replicas),
                    "definitions.json": definitions(&known, &queues).to_string(),
                },
            }),
        )
        .await?;
    for service in services(&cluster, &name, port) {
        context.apply(&cluster, service).await?;
    }
    context.apply(&cluster, stateful_set(&cluster, &name, &namespace, replicas, port)).await?;
    let labels = format!("app.kubernetes.io/name={name},app.kubernetes.io/component=rabbitmq");
    let pods = context.pods(&namespace, &labels).await?;
    let ready: Vec<&Pod> = pods.iter().filter(|pod| is_ready(pod)).collect();
    let all = u64::try_from(ready.len()) == Ok(replicas);
    let wanted = queues::wanted(&queues, replicas);
    let mut status = match cluster.data["status"][REPLICATED_FOR].clone() {
        Value::Null => json!({}),
        before => json!({ REPLICATED_FOR: before }),
    };
    let lacking = if all {
        let members = Members { name: &name, namespace: &namespace, replicas, ready: &ready };
        spread(&context, &members, &wanted, &mut status).await
    } else {
        Some("not all members are ready".to_owned())
    };
    let condition = |type_: &str| json!({ "type": type_, "status": if all { "True" } else { "False" } });
    let replicated = json!({
        "type": REPLICATED,
        "status": if lacking.is_none() { "True" } else { "False" },
        "message": lacking.clone().unwrap_or_else(|| "each quorum queue has the members that it asks for".to_owned()),
    });
    status["conditions"] = json!([condition("AllReplicasReady"), condition("ClusterAvailable"), replicated]);
    context.set_status(&cluster, status).await?;
    // Members may come anew, and nobody else tells.
    Ok(if all { Progress::Later } else { Progress::Again })
}

/// The members of a cluster that are all ready.
struct Members<'a> {
    name: &'a str,
    namespace: &'a str,
    replicas: u64,
    ready: &'a [&'a Pod],
}

/// Grows the queues, unless the status says that this was done for the same pods and queues. What is lacking, in words.
async fn spread(
    context: &Context,
    members: &Members<'_>,
    wanted: &BTreeMap<String, u64>,
    status: &mut Value,
) -> Option<String> {
    let mut pods: Vec<String> = members.ready.iter().filter_map(|pod| pod.uid()).collect();
    pods.sort();
    let now = json!({ "pods": pods, "queues": wanted });
    // The only member of a cluster has every queue.
    if members.replicas > 1 && !wanted.is_empty() && status[REPLICATED_FOR] != now {
        let nodes: Vec<String> = (0..members.replicas)
            .map(|number| format!("rabbit@{}", node(members.name, members.namespace, number)))
            .collect();
        let pod = members.ready.first()?.name_any();
        match queues::spread(context, members.namespace, &pod, wanted, &nodes).await {
            Ok(lacking) if lacking.is_empty() => {}
            Ok(lacking) => return Some(lacking.join("; ")),
            Err(error) => {
                debug!(pod, %error, "the queues are not grown yet");
                return Some("the tools of a member do not answer".to_owned());
            }
        }
    }
    status[REPLICATED_FOR] = now;
    None
}

async fn queues(context: &Context, namespace: &str, cluster: &str) -> Result<Vec<Value>, OperatorError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("rabbitmq.com", "v1beta1", "Queue"));
    let queues = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &resource);
    let listed = match queues.list(&ListParams::default()).await {
        // No queue is declared anywhere, so that nobody has defined the kind.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        listed => listed.map_err(|source| OperatorError::Request {
            action: "list the queues".to_owned(),
            source: Box::new(source),
        })?,
    };
    let of_cluster = listed
        .items
        .into_iter()
        .map(|queue| queue.data["spec"].clone())
        .filter(|spec| spec["rabbitmqClusterReference"]["name"] == json!(cluster));
    Ok(of_cluster.collect())
}

fn node(name: &str, namespace: &str, number: u64) -> String {
    format!("{name}-server-{number}.{name}-nodes.{namespace}.svc.cluster.local")
}

fn configuration(name: &str, namespace: &str, spec: &Value, replicas: u64) -> String {
    let mut lines = vec![format!("load_definitions = {HOME}/definitions.json")];
    if spec["tls"]["secretName"].is_string() {
        lines.extend([
            format!("listeners.ssl.default = {TLS_PORT}"),
            format!("ssl_options.cacertfile = {HOME}/ca.crt"),
            format!("ssl_options.certfile = {HOME}/tls.crt"),
            format!("ssl_options.keyfile = {HOME}/tls.key"),
            "ssl_options.verify = verify_none".to_owned(),
            "ssl_options.fail_if_no_peer_cert = false".to_owned(),
        ]);
    }
    if spec["tls"]["disableNonTLSListeners"] == json!(true) {
        lines.push("listeners.tcp = none".to_owned());
    }
    // Otherwise a node counts with the memory of the whole machine.
    let memory = spec["resources"]["limits"]["memory"].as_str().filter(|memory| memory.ends_with('i'));
    lines.extend(memory.map(|memory| format!("total_memory_available_override_value = {memory}B")));
    if replicas > 1 {
        lines.push("cluster_formation.peer_discovery_backend = classic_config".to_owned());
        for number in 0..replicas {
            let node = node(name, namespace, number);
            lines.push(format!("cluster_formation.classic_config.nodes.{} = rabbit@{node}", number + 1));
        }
    }
    let additional = spec["rabbitmq"]["additionalConfig"].as_str().unwrap_or_default();
    lines.join("\n") + "\n" + additional
}

/// What a node declares when it starts: <https://www.rabbitmq.com/docs/definitions>.
fn definitions(password: &str, queues: &[Value]) -> Value {
    let queues: Vec<Value> = queues
        .iter()
        .map(|queue| {
            let mut arguments = queue["arguments"].as_object().cloned().unwrap_or_default();
            if let Some(type_) = queue["type"].as_str() {
                arguments.insert("x-queue-type".to_owned(), json!(type_));
            }
            json!({
                "name": queue["name"],
                "vhost": queue["vhost"].as_str().unwrap_or("/"),
                "durable": queue["durable"].as_bool().unwrap_or(true),
                "auto_delete": queue["autoDelete"].as_bool().unwrap_or(false),
                "arguments": arguments,
            })
        })
        .collect();
    json!({
        "users": [{
            "name": USER,
            "password_hash": password_hash(password),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["administrator"],
        }],
        "vhosts": [{ "name": "/" }],
        "permissions": [{ "user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" }],
        "queues": queues,
    })
}

/// Four bytes of salt, then the hash of salt and password: <https://www.rabbitmq.com/docs/passwords#computing-password-hash>.
fn password_hash(password: &str) -> String {
    // The same for the same password, so that nothing changes when it is made again.
    let salt = Sha256::digest(format!("salt of {password}"));
    let salt = &salt[..4];
    let hash = Sha256::new().chain_update(salt).chain_update(password).finalize();
    STANDARD.encode([salt, &hash].concat())
}

fn selector(name: &str) -> Value {
    json!({ "app.kubernetes.io/name": name, "app.kubernetes.io/component": "rabbitmq" })
}

fn services(cluster: &DynamicObject, name: &str, port: u16) -> Vec<Value> {
    let labels = labels_of(cluster, &[("app.kubernetes.io/component", "rabbitmq")]);
    let port_name = if port == TLS_PORT { "amqps" } else { "amqp" };
    let ports = json!([{ "name": port_name, "port": port, "targetPort": port }]);
    let nodes = json!([{ "name": "epmd", "port": 4369 }, { "name": "cluster-rpc", "port": 25672 }]);
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "labels": labels },
            "spec": { "selector": selector(name), "ports": ports },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": format!("{name}-nodes"), "labels": labels },
            "spec": {
                "clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector(name), "ports": nodes,
            },
        }),
    ]
}

fn stateful_set(cluster: &DynamicObject, name: &str, namespace: &str, replicas: u64, port: u16) -> Value {
    let spec = &cluster.data["spec"];
    let labels =
        labels_of(cluster, &[("app.kubernetes.io/component", "rabbitmq"), ("app.kubernetes.io/part-of", "rabbitmq")]);
    let mut container = json!({
        "name": "rabbitmq",
        "image": spec["image"],
        "env": [
            { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            { "name": "LANDFALL_NODE_HOST", "value": format!("$(POD_NAME).{name}-nodes.{namespace}.svc.cluster.local") },
            { "name": "RABBITMQ_COOKIE", "valueFrom": { "secretKeyRef": {
                "name": format!("{name}-erlang-cookie"), "key": ".erlang.cookie",
            } } },
        ],
        "ports": [{ "name": if port == TLS_PORT { "amqps" } else { "amqp" }, "containerPort": port }],
        "readinessProbe": { "tcpSocket": { "port": port }, "periodSeconds": 1 },
        "securityContext": container_security(),
        "volumeMounts": [
            { "name": "persistence", "mountPath": "/var/lib/rabbitmq/mnesia" },
            { "name": "configuration", "mountPath": "/etc/landfall", "readOnly": true },
        ],
    });
    if spec["resources"].is_object() {
        container["resources"] = spec["resources"].clone();
    }
    let mut volumes =
        vec![json!({ "name": "configuration", "secret": { "secretName": format!("{name}-server-conf") } })];
    if let Some(secret) = spec["tls"]["secretName"].as_str() {
        volumes.push(json!({ "name": "tls", "secret": { "secretName": secret } }));
        if let Some(mounts) = container["volumeMounts"].as_array_mut() {
            mounts.push(json!({ "name": "tls", "mountPath": "/etc/rabbitmq-tls", "readOnly": true }));
        }
    }
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": volumes,
    });
    if spec["affinity"].is_object() {
        pod["affinity"] = spec["affinity"].clone();
    }
    let over = &spec["override"]["statefulSet"]["spec"]["template"]["spec"]["topologySpreadConstraints"];
    if over.is_array() {
        pod["topologySpreadConstraints"] = over.clone();
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": { "name": format!("{name}-server"), "labels": labels },
        "spec": {
            "serviceName": format!("{name}-nodes"),
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": selector(name) },
            "template": { "metadata": { "labels": labels }, "spec": pod },
            "volumeClaimTemplates": [{
                "metadata": { "name": "persistence" },
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": { "requests": { "storage": spec["persistence"]["storage"].as_str().unwrap_or("10Gi") } },
                },
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hashed_with_its_salt_in_front() {
        let hash = STANDARD.decode(password_hash("secret")).expect("it is base64");
        let (salt, rest) = hash.split_at(4);
        assert_eq!(rest, &Sha256::digest([salt, b"secret"].concat())[..]);
    }
}
