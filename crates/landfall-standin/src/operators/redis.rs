//! The `RedisCluster` of Opstree's Redis operator: leaders, followers, and the commands that make a cluster of them.
//!
//! Not handled: failover beyond what Redis does itself, rescaling, and the other kinds of that operator.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{Context, OperatorError, Progress, container_security, is_ready, labels_of, pod_security};

const PORT: u16 = 6379;

/// How a script in a pod of Redis calls the server of that pod: at its address, as others may share the network with it.
pub(super) const CLIENT: &str = "redis-cli -h \"${POD_IP:-127.0.0.1}\"";
pub(super) const CLIENT_BY_TLS: &str = "redis-cli -h \"${POD_IP:-127.0.0.1}\" --tls --cacert /tls/ca.crt";

const BUS_PORT: u16 = 16379;

/// The two roles, with their fields in the resource.
const ROLES: [(&str, &str); 2] = [("leader", "redisLeader"), ("follower", "redisFollower")];

pub(super) async fn reconcile(context: Arc<Context>, cluster: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let mut wanted = 0;
    for (role, field) in ROLES {
        let replicas = replicas(&cluster, field);
        wanted += replicas;
        for service in services(&cluster, &name, role) {
            context.apply(&cluster, service).await?;
        }
        context.apply(&cluster, stateful_set(&cluster, &name, &namespace, role, field, replicas)).await?;
    }
    let mut addresses = Vec::new();
    for (role, _) in ROLES {
        let pods = context.pods(&namespace, &format!("app={name}-{role}")).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod));
        addresses.extend(ready.filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()));
    }
    if u64::try_from(addresses.len()) != Ok(wanted) {
        context.set_status(&cluster, json!({ "state": "Bootstrap" })).await?;
        return Ok(Progress::Again);
    }
    let followers = u32::from(replicas(&cluster, "redisFollower") > 0);
    let tls = cluster.data["spec"]["TLS"].is_object();
    let leader = format!("{name}-leader-0");
    let output = context.run_in(&namespace, &leader, "redis", &form(&addresses, followers, tls)).await?;
    let formed = output.contains("cluster_state:ok");
    let status = json!({
        "state": if formed { "Ready" } else { "Bootstrap" },
        "readyLeaderReplicas": replicas(&cluster, "redisLeader"),
        "readyFollowerReplicas": replicas(&cluster, "redisFollower"),
    });
    context.set_status(&cluster, status).await?;
    Ok(if formed { Progress::Done } else { Progress::Again })
}

fn replicas(cluster: &DynamicObject, field: &str) -> u64 {
    let spec = &cluster.data["spec"];
    spec[field]["replicas"].as_u64().or_else(|| spec["clusterSize"].as_u64()).unwrap_or(3)
}

/// A script that makes a cluster of new members, or tells those that have moved where the others are now.
fn form(addresses: &[String], followers: u32, tls: bool) -> String {
    let client = if tls { CLIENT_BY_TLS } else { CLIENT };
    let members: Vec<_> = addresses.iter().map(|address| format!("{address}:{PORT}")).collect();
    let meet: String = addresses.iter().map(|address| format!("{client} cluster meet {address} {PORT}; ")).collect();
    format!(
        "export REDISCLI_AUTH=\"$REDIS_PASSWORD\"\n\
         if {client} cluster info | grep -q '^cluster_slots_assigned:0'; then\n\
           {client} --cluster create {} --cluster-replicas {followers} --cluster-yes\n\
         elif ! {client} cluster info | grep -q '^cluster_state:ok'; then {meet}fi\n\
         {client} cluster info\n",
        members.join(" ")
    )
}

fn labels(cluster: &DynamicObject, name: &str, role: &str) -> Value {
    labels_of(cluster, &[("app", &format!("{name}-{role}")), ("redis_setup_type", "cluster"), ("role", role)])
}

fn services(cluster: &DynamicObject, name: &str, role: &str) -> Vec<Value> {
    let service = |suffix: &str, more: Value| {
        let mut spec = json!({
            "selector": { "app": format!("{name}-{role}"), "redis_setup_type": "cluster" },
            "ports": [{ "name": "redis-client", "port": PORT, "targetPort": PORT }],
        });
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": format!("{name}-{role}{suffix}"), "labels": labels(cluster, name, role) },
            "spec": spec,
        })
    };
    vec![service("", json!({})), service("-headless", json!({ "clusterIP": "None", "publishNotReadyAddresses": true }))]
}

fn stateful_set(cluster: &DynamicObject, name: &str, namespace: &str, role: &str, field: &str, replicas: u64) -> Value {
    let spec = &cluster.data["spec"];
    let own = &spec[field];
    let kubernetes = &spec["kubernetesConfig"];
    let set = format!("{name}-{role}");
    let labels = labels(cluster, name, role);
    let field_of_pod = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let mut container = json!({
        "name": "redis",
        "image": kubernetes["image"],
        "env": [
            { "name": "POD_NAME", "valueFrom": field_of_pod("metadata.name") },
            { "name": "POD_IP", "valueFrom": field_of_pod("status.podIP") },
            { "name": "LANDFALL_CLUSTER_HOSTNAME", "value": format!("$(POD_NAME).{set}-headless.{namespace}.svc") },
            { "name": "REDIS_PASSWORD", "valueFrom": { "secretKeyRef": kubernetes["redisSecret"] } },
        ],
        "ports": [
            { "name": "redis-client", "containerPort": PORT },
            { "name": "redis-bus", "containerPort": BUS_PORT },
        ],
        "readinessProbe": { "tcpSocket": { "port": PORT }, "periodSeconds": 1 },
        "securityContext": container_security(),
        "volumeMounts": [{ "name": set, "mountPath": "/data" }],
    });
    if kubernetes["resources"].is_object() {
        container["resources"] = kubernetes["resources"].clone();
    }
    let mut volumes = Vec::new();
    let mut mount = |name: &str, path: &str, source: Value| {
        let mut volume = json!({ "name": name });
        if let (Some(volume), Value::Object(source)) = (volume.as_object_mut(), source) {
            volume.extend(source);
        }
        volumes.push(volume);
        if let Some(mounts) = container["volumeMounts"].as_array_mut() {
            mounts.push(json!({ "name": name, "mountPath": path, "readOnly": true }));
        }
    };
    if let Some(secret) = spec["TLS"]["secret"]["secretName"].as_str() {
        mount("tls", "/tls", json!({ "secret": { "secretName": secret } }));
    }
    if let Some(map) = own["redisConfig"]["additionalRedisConfig"].as_str() {
        mount("additional", "/etc/redis/external.conf.d", json!({ "configMap": { "name": map } }));
    }
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": volumes,
    });
    for field in ["affinity", "topologySpreadConstraints"] {
        if !own[field].is_null() {
            pod[field] = own[field].clone();
        }
    }
    let mut claim = spec["storage"]["volumeClaimTemplate"].clone();
    claim["metadata"]["name"] = json!(set);
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": { "name": set, "labels": labels },
        "spec": {
            "serviceName": format!("{set}-headless"),
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": { "app": set, "redis_setup_type": "cluster" } },
            "template": { "metadata": { "labels": labels }, "spec": pod },
            "volumeClaimTemplates": [claim],
        },
    })
}
