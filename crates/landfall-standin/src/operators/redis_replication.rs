//! Opstree's `Redis`, `RedisReplication` and `RedisSentinel`: one server, or a primary with replicas and the Sentinels that
//! promote one when it is lost.
//!
//! Redis' own Sentinel decides who is the primary; here its answer becomes the label that the service `NAME-master` selects.
//! Not handled: rescaling, and a replication whose primary is lost where no Sentinel is declared.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::redis::{CLIENT, CLIENT_BY_TLS};
use super::{Context, OperatorError, Progress, container_security, is_ready, labels_of, pod_security};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Says what a pod of a replication is, in the operator's word for the primary.
const ROLE: &str = "redis-role";
const PRIMARY: &str = "master";
const REPLICA: &str = "slave";

/// What the operator calls the primary and its replicas together, unless it is told otherwise.
const GROUP: &str = "myMaster";

pub(super) async fn standalone(context: Arc<Context>, redis: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let set = Set::of(&redis, "standalone");
    for service in [set.service("", &[], false), set.service("-headless", &[], true)] {
        context.apply(&redis, service).await?;
    }
    context.apply(&redis, set.stateful_set(1, set.server())).await?;
    Ok(Progress::Done)
}

pub(super) async fn replication(context: Arc<Context>, redis: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let set = Set::of(&redis, "replication");
    for service in [
        set.service("", &[], false),
        set.service("-headless", &[], true),
        set.service("-master", &[(ROLE, PRIMARY)], false),
        set.service("-replica", &[(ROLE, REPLICA)], false),
    ] {
        context.apply(&redis, service).await?;
    }
    context.apply(&redis, set.stateful_set(set.size(3), set.server())).await?;
    let pods = context.pods(&set.namespace, &set.selector_text()).await?;
    let primary = pods.iter().find(|pod| role(pod) == Some(PRIMARY)).map(ResourceExt::name_any);
    let first = format!("{}-0", set.pods);
    // Who starts as the primary; from then on the Sentinels say who it is.
    if primary.is_none() && pods.iter().all(|pod| role(pod).is_none()) {
        for pod in pods.iter().filter(|pod| is_ready(pod)) {
            let name = pod.name_any();
            context.label(&set.namespace, &name, ROLE, if name == first { PRIMARY } else { REPLICA }).await?;
        }
    }
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let whole = primary.is_some() && u64::try_from(ready) == Ok(set.size(3));
    let state = if whole { "Ready" } else { "Bootstrap" };
    context.set_status(&redis, json!({ "state": state, "masterNode": primary.unwrap_or_default() })).await?;
    // Pods that are made again have no role yet, and nobody else tells.
    Ok(Progress::Later)
}

pub(super) async fn sentinel(context: Arc<Context>, redis: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let set = Set::of(&redis, "sentinel");
    for service in [set.service("", &[], false), set.service("-headless", &[], true)] {
        context.apply(&redis, service).await?;
    }
    context.apply(&redis, set.stateful_set(set.size(3), set.sentinel())).await?;
    let watchers = context.pods(&set.namespace, &set.selector_text()).await?;
    let Some(watcher) = watchers.iter().find(|pod| is_ready(pod)) else { return Ok(Progress::Again) };
    let client = if set.tls() { CLIENT_BY_TLS } else { CLIENT };
    let ask = format!(
        "export REDISCLI_AUTH=\"$REDIS_PASSWORD\"\n\
         {client} -p {SENTINEL_PORT} sentinel get-master-addr-by-name {GROUP}\n"
    );
    let answer = context.run_in(&set.namespace, &watcher.name_any(), "redis", &ask).await?;
    // `redis-1.redis-headless.shop.svc`, then the port.
    let primary = answer.split(['.', '\n']).next().unwrap_or_default();
    let watched = set.spec["redisSentinelConfig"]["redisReplicationName"].as_str().unwrap_or_default();
    let members = context.pods(&set.namespace, &format!("app={watched},redis_setup_type=replication")).await?;
    if members.iter().any(|pod| pod.name_any() == primary) {
        for pod in &members {
            let wanted = if pod.name_any() == primary { PRIMARY } else { REPLICA };
            if role(pod) != Some(wanted) {
                context.label(&set.namespace, &pod.name_any(), ROLE, wanted).await?;
            }
        }
    }
    Ok(Progress::Later)
}

fn role(pod: &Pod) -> Option<&str> {
    pod.labels().get(ROLE).map(String::as_str)
}

/// A `StatefulSet` of one kind of servers.
struct Set<'a> {
    object: &'a DynamicObject,
    spec: &'a Value,
    namespace: String,
    /// The name of the resource.
    name: String,
    /// The name of the set, and what its pods' names begin with.
    pods: String,
    /// The operator's word for what it is.
    kind: &'static str,
}

impl<'a> Set<'a> {
    fn of(object: &'a DynamicObject, kind: &'static str) -> Self {
        let name = object.name_any();
        let pods = if kind == "sentinel" { format!("{name}-sentinel") } else { name.clone() };
        let namespace = object.namespace().unwrap_or_default();
        Self { object, spec: &object.data["spec"], namespace, name, pods, kind }
    }

    fn size(&self, default: u64) -> u64 {
        self.spec["clusterSize"].as_u64().unwrap_or(default)
    }

    fn tls(&self) -> bool {
        self.spec["TLS"].is_object()
    }

    fn selector(&self) -> Value {
        json!({ "app": self.pods, "redis_setup_type": self.kind })
    }

    fn selector_text(&self) -> String {
        format!("app={},redis_setup_type={}", self.pods, self.kind)
    }

    fn labels(&self) -> Value {
        labels_of(self.object, &[("app", &self.pods), ("redis_setup_type", self.kind), ("role", self.kind)])
    }

    fn host(&self, pod: &str) -> String {
        format!("{pod}.{}-headless.{}.svc", self.pods, self.namespace)
    }

    fn port(&self) -> u16 {
        if self.kind == "sentinel" { SENTINEL_PORT } else { PORT }
    }

    fn service(&self, suffix: &str, more: &[(&str, &str)], headless: bool) -> Value {
        let mut selector = self.selector();
        for (key, value) in more {
            selector[*key] = json!(value);
        }
        let port = self.port();
        let name = if self.kind == "sentinel" { "sentinel-client" } else { "redis-client" };
        let mut spec = json!({ "selector": selector, "ports": [{ "name": name, "port": port, "targetPort": port }] });
        if headless {
            spec["clusterIP"] = json!("None");
            spec["publishNotReadyAddresses"] = json!(true);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": format!("{}{suffix}", self.pods), "labels": self.labels() },
            "spec": spec,
        })
    }

    /// What a server is told: for one of a replication who it is, and who begins as the primary.
    fn server(&self) -> Vec<Value> {
        if self.kind != "replication" {
            return Vec::new();
        }
        vec![
            json!({ "name": "LANDFALL_REPLICA_HOSTNAME", "value": self.host("$(POD_NAME)") }),
            json!({ "name": "LANDFALL_PRIMARY", "value": self.host(&format!("{}-0", self.pods)) }),
        ]
    }

    fn sentinel(&self) -> Vec<Value> {
        let declared = &self.spec["redisSentinelConfig"];
        let text = |key: &str, default: &str| declared[key].as_str().unwrap_or(default).to_owned();
        let watched = text("redisReplicationName", &self.name);
        let primary = format!("{watched}-0.{watched}-headless.{}.svc", self.namespace);
        vec![
            json!({ "name": "LANDFALL_REPLICA_HOSTNAME", "value": self.host("$(POD_NAME)") }),
            json!({ "name": "LANDFALL_SENTINEL_OF", "value": primary }),
            json!({ "name": "LANDFALL_GROUP", "value": GROUP }),
            json!({ "name": "LANDFALL_QUORUM", "value": text("quorum", "2") }),
            json!({ "name": "LANDFALL_DOWN_AFTER_MS", "value": text("downAfterMilliseconds", "5000") }),
        ]
    }

    fn stateful_set(&self, replicas: u64, told: Vec<Value>) -> Value {
        let kubernetes = &self.spec["kubernetesConfig"];
        let mut env = vec![
            json!({ "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }),
            json!({ "name": "REDIS_PASSWORD", "valueFrom": { "secretKeyRef": kubernetes["redisSecret"] } }),
        ];
        env.extend(told);
        let mut mounts = vec![json!({ "name": "data", "mountPath": "/data" })];
        let mut volumes = Vec::new();
        let claim = &self.spec["storage"]["volumeClaimTemplate"];
        if !claim.is_object() {
            volumes.push(json!({ "name": "data", "emptyDir": {} }));
        }
        if let Some(secret) = self.spec["TLS"]["secret"]["secretName"].as_str() {
            volumes.push(json!({ "name": "tls", "secret": { "secretName": secret } }));
            mounts.push(json!({ "name": "tls", "mountPath": "/tls", "readOnly": true }));
        }
        if let Some(map) = self.spec["redisConfig"]["additionalRedisConfig"].as_str() {
            volumes.push(json!({ "name": "additional", "configMap": { "name": map } }));
            mounts.push(json!({ "name": "additional", "mountPath": "/etc/redis/external.conf.d", "readOnly": true }));
        }
        let mut container = json!({
            "name": "redis",
            "image": kubernetes["image"],
            "env": env,
            "ports": [{ "name": "redis", "containerPort": self.port() }],
            "readinessProbe": { "tcpSocket": { "port": self.port() }, "periodSeconds": 1 },
            "securityContext": container_security(),
            "volumeMounts": mounts,
        });
        if kubernetes["resources"].is_object() {
            container["resources"] = kubernetes["resources"].clone();
        }
        let mut pod = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": pod_security(),
            "containers": [container],
            "volumes": volumes,
        });
        for field in ["affinity", "topologySpreadConstraints", "nodeSelector", "tolerations"] {
            if !self.spec[field].is_null() {
                pod[field] = self.spec[field].clone();
            }
        }
        let mut spec = json!({
            "serviceName": format!("{}-headless", self.pods),
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": self.selector() },
            "template": { "metadata": { "labels": self.labels() }, "spec": pod },
        });
        if claim.is_object() {
            let mut claim = claim.clone();
            claim["metadata"]["name"] = json!("data");
            spec["volumeClaimTemplates"] = json!([claim]);
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": { "name": self.pods, "labels": self.labels() },
            "spec": spec,
        })
    }
}
