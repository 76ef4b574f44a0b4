//! RabbitMQ: the operator's `RabbitmqCluster` with quorum queues, or a `StatefulSet` that forms a cluster by itself.

use crate::json::json;
use landfall_model::Topic;
use serde_json::{Map, Value};

use super::access::{PASSWORD_KEY, USERNAME_KEY};
use super::statefulset::{self, CONFIGURATION, Server, Start, TLS, exec, probe};
use super::{Site, from_secret, images};
use crate::object::Object;

/// The key of the secret that the members of a `StatefulSet` share.
pub(super) const COOKIE: &str = "erlang-cookie";

/// A minority stops taking work, so that it cannot accept what the majority never sees. Queues of clients that ask for
/// no type are quorum queues: classic queues live on one member only.
const SETTINGS: &str = "cluster_partition_handling = pause_minority\ndefault_queue_type = quorum\n";

pub(super) fn cluster(site: &Site<'_>) -> Vec<Object> {
    // The operator labels its pods by the cluster's name and itself.
    let selector = json!({ "app.kubernetes.io/name": site.name(), "app.kubernetes.io/component": "rabbitmq" });
    let spread = site.topology_spread(&selector);
    let overridden = (!spread.is_null()).then(|| {
        json!({
            "statefulSet": {
                "spec": {
                    // Merged by the names of containers; the schema of a pod wants the list.
                    "template": { "spec": { "containers": [], "topologySpreadConstraints": spread } },
                },
            },
        })
    });
    let volume = if site.is_persistent() { site.volume_size() } else { "0".to_owned() };
    let value = json!({
        "apiVersion": "rabbitmq.com/v1beta1",
        "kind": "RabbitmqCluster",
        // The operator puts the labels of the resource on its pods.
        "metadata": site.metadata_of_pods(),
        "spec": {
            "replicas": site.members(),
            "image": images::rabbitmq(site.store),
            "persistence": {
                "storageClassName": site.storage_class(),
                // A size of zero is the operator's way to say that nothing is kept.
                "storage": volume,
            },
            "resources": site.resources(),
            "affinity": site.affinity_with_selector(&selector),
            "tolerations": site.tolerations(),
            "rabbitmq": { "additionalConfig": SETTINGS },
            "tls": site.access.tls.then(|| json!({
                "secretName": site.certificate_secret(),
                "caSecretName": site.certificate_secret(),
                "disableNonTLSListeners": true,
            })),
            "override": overridden,
        },
    });
    let mut objects = vec![site.object("rabbitmqcluster", value)];
    if site.members() > 1 {
        objects.push(disruption_budget(site, &selector));
    }
    for (name, topic) in site.topics() {
        objects.extend(site.queues(&name).iter().map(|name| queue(site, name, &topic)));
    }
    objects
}

/// The operator makes none.
fn disruption_budget(site: &Site<'_>, selector: &Value) -> Object {
    let value = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": site.subject.metadata(site.name()),
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": selector } },
    });
    site.object("pdb", value)
}

fn queue(site: &Site<'_>, name: &str, topic: &Topic) -> Object {
    let object = site.topic_object(name);
    let replication = topic.replication.as_ref().or(site.store.replication.as_ref());
    let mut arguments = Map::new();
    if let Some(replication) = replication {
        arguments.insert("x-quorum-initial-group-size".to_owned(), json!(replication.value));
    }
    if let Some(retention) = &topic.retention {
        arguments.insert("x-message-ttl".to_owned(), json!(retention.millis()));
    }
    let value = json!({
        "apiVersion": "rabbitmq.com/v1beta1",
        "kind": "Queue",
        "metadata": site.subject.metadata(&object),
        "spec": {
            "name": name,
            "vhost": "/",
            "type": "quorum",
            "durable": true,
            "autoDelete": false,
            "arguments": (!arguments.is_empty()).then_some(arguments),
            "rabbitmqClusterReference": { "name": site.name() },
        },
    });
    site.object(&format!("queue-{object}"), value)
}

/// Members that know each other by name.
///
/// Not handled: queues. The operator declares them; here clients do, as quorum queues by default.
pub(super) fn statefulset(site: &Site<'_>) -> Vec<Object> {
    let credentials = site.credentials();
    let suffix = format!("{}.{}.svc.cluster.local", site.members_service(), site.subject.namespace);
    let image = images::rabbitmq(site.store);
    let mut ports = vec![
        ("amqp", site.access.port),
        ("epmd", 4369),
        ("distribution", 25672),
        ("management", 15672),
        ("metrics", 15692),
    ];
    if site.access.tls {
        ports[0].0 = "amqps";
    }
    let server = Server {
        user: 999,
        command: vec!["rabbitmq-server".to_owned()],
        environment: vec![
            json!({ "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }),
            json!({ "name": "RABBITMQ_USE_LONGNAME", "value": "true" }),
            json!({ "name": "RABBITMQ_NODENAME", "value": format!("rabbit@$(POD_NAME).{suffix}") }),
            json!({ "name": "RABBITMQ_CONFIG_FILE", "value": format!("{CONFIGURATION}/rabbitmq.conf") }),
            json!({ "name": "RABBITMQ_ENABLED_PLUGINS_FILE", "value": format!("{CONFIGURATION}/enabled_plugins") }),
            // Everything to standard output.
            json!({ "name": "RABBITMQ_LOGS", "value": "-" }),
            from_secret("RABBITMQ_DEFAULT_USER", &credentials.secret, USERNAME_KEY),
            from_secret("RABBITMQ_DEFAULT_PASS", &credentials.secret, PASSWORD_KEY),
        ],
        ports,
        data: "/var/lib/rabbitmq",
        keeps_data: site.is_persistent(),
        scratch: vec!["/tmp", "/var/log/rabbitmq"],
        files: vec![
            ("rabbitmq.conf", configuration(site)),
            ("enabled_plugins", "[rabbitmq_management, rabbitmq_prometheus].\n".to_owned()),
        ],
        startup: probe(&exec(&["rabbitmq-diagnostics", "--quiet", "ping"]), 10, 60),
        // Checks that run a program of their own are dear: a slow pace, and a port for what has to be quick.
        ready: probe(&statefulset::tcp(if site.access.tls { "amqps" } else { "amqp" }), 10, 3),
        live: probe(&exec(&["rabbitmq-diagnostics", "--quiet", "ping"]), 60, 3),
        // Erlang only takes a cookie that nobody but its user can read, which a mounted Secret is not.
        before: vec![json!({
            "name": "cookie",
            "image": &image,
            "command": ["sh", "-c", format!("umask 0377; cp -f /cookie/{COOKIE} /var/lib/rabbitmq/.erlang.cookie")],
            "volumeMounts": [
                { "name": "data", "mountPath": "/var/lib/rabbitmq" },
                { "name": "cookie", "mountPath": "/cookie", "readOnly": true },
            ],
        })],
        volumes: vec![json!({
            "name": "cookie",
            "secret": { "secretName": credentials.secret, "items": [{ "key": COOKIE, "path": COOKIE }] },
        })],
        image: image.clone(),
        start: Start::Together,
        grace: 120,
        ..Server::default()
    };
    statefulset::objects(site, server)
}

fn configuration(site: &Site<'_>) -> String {
    let mut lines = vec!["cluster_formation.peer_discovery_backend = classic_config".to_owned()];
    for (n, host) in site.member_hosts().iter().enumerate() {
        lines.push(format!("cluster_formation.classic_config.nodes.{} = rabbit@{host}", n + 1));
    }
    if site.access.tls {
        lines.push("listeners.tcp = none".to_owned());
        lines.push(format!("listeners.ssl.default = {}", site.access.port));
        lines.push(format!("ssl_options.cacertfile = {TLS}/ca.crt"));
        lines.push(format!("ssl_options.certfile = {TLS}/tls.crt"));
        lines.push(format!("ssl_options.keyfile = {TLS}/tls.key"));
    }
    lines.join("\n") + "\n" + SETTINGS
}
