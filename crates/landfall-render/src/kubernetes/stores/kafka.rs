//! Kafka: Strimzi's `Kafka` without `ZooKeeper`, with its topics and users, or a `StatefulSet` of Apache Kafka.

use std::collections::{BTreeMap, BTreeSet};

use crate::json::json;
use landfall_model::{Duration, Topic};
use serde_json::{Map, Value};

use super::access::client_user;
use super::statefulset::{self, CONFIGURATION, Server, Start, TLS, probe, tcp};
use super::topics::{Access, fingerprint};
use super::{Site, images};
use crate::kubernetes::metadata;
use crate::object::Object;

/// On how many brokers each topic is kept: as declared, otherwise on three of them as far as there are three.
fn replication(site: &Site<'_>) -> u32 {
    site.store.replication.as_ref().map_or(site.members().min(3), |replication| replication.value)
}

/// How many of them must have a message before it is acknowledged: as declared, otherwise all but one.
fn in_sync(site: &Site<'_>) -> u32 {
    let declared = site.store.in_sync.as_ref().map(|in_sync| in_sync.value);
    declared.unwrap_or_else(|| replication(site).saturating_sub(1).max(1))
}

/// The settings of the brokers. Topics only come from the file: a typing error must not make one.
fn settings(site: &Site<'_>) -> Vec<(&'static str, Value)> {
    let (replication, in_sync) = (replication(site), in_sync(site));
    vec![
        ("auto.create.topics.enable", json!(false)),
        ("default.replication.factor", json!(replication)),
        ("min.insync.replicas", json!(in_sync)),
        ("offsets.topic.replication.factor", json!(replication)),
        ("transaction.state.log.replication.factor", json!(replication)),
        ("transaction.state.log.min.isr", json!(in_sync)),
    ]
}

pub(super) fn cluster(site: &Site<'_>) -> Vec<Object> {
    let mut objects = vec![broker_configuration(site), node_pool(site)];
    objects.extend(site.topics().iter().map(|(name, topic)| topic_object(site, name, topic)));
    if site.access.tls {
        objects.extend(site.clients().iter().map(|(service, access)| user(site, service, access)));
    }
    objects
}

fn broker_configuration(site: &Site<'_>) -> Object {
    let peers = peers(site);
    let listener = |name: &str, port: u16, tls: bool, authentication: Value| {
        json!({
            "name": name,
            "port": port,
            "type": "internal",
            "tls": tls,
            "authentication": authentication,
            "networkPolicyPeers": &peers,
        })
    };
    let listeners = if site.access.tls {
        vec![listener("tls", 9093, true, json!({ "type": "scram-sha-512" }))]
    } else {
        vec![listener("plain", 9092, false, Value::Null), listener("tls", 9093, true, Value::Null)]
    };
    let rack = site.zone_spread() != landfall_model::Spread::None;
    let config: Map<String, Value> = settings(site).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let metrics = site.architecture.document.observability.metrics.is_some();
    let value = json!({
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "Kafka",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            "kafka": {
                "version": images::kafka_version(site.store),
                "listeners": listeners,
                "authorization": site.access.tls.then(|| json!({ "type": "simple" })),
                "config": config,
                // Replicas of a partition go to different zones, and readers may ask the one in their own.
                "rack": rack.then(|| json!({ "topologyKey": "topology.kubernetes.io/zone" })),
                "metricsConfig": metrics.then(|| json!({ "type": "strimziMetricsReporter" })),
                "template": { "podDisruptionBudget": { "maxUnavailable": 1 } },
            },
            "entityOperator": {
                "topicOperator": {},
                "userOperator": site.access.tls.then(|| json!({})),
                "template": { "pod": { "metadata": { "labels": site.pod_labels() } } },
            },
        },
    });
    site.object("kafka", value)
}

/// Strimzi writes a network policy of its own, which lets everybody in unless it is told who may: the services with an
/// edge. The store itself stands in the list so that it is never empty, which would mean everybody again.
fn peers(site: &Site<'_>) -> Vec<Value> {
    let own = std::iter::once(site.element());
    let clients = site.architecture.connections.iter().filter(|connection| connection.to == site.element());
    let sources: BTreeSet<_> = own.chain(clients.map(|connection| connection.from.clone())).collect();
    let peer = |element| {
        json!({
            "namespaceSelector": {
                "matchLabels": { "kubernetes.io/metadata.name": site.architecture.namespace_of(element).as_str() },
            },
            "podSelector": { "matchLabels": metadata::selector(site.architecture, element) },
        })
    };
    sources.iter().map(peer).collect()
}

fn node_pool(site: &Site<'_>) -> Object {
    // Strimzi says by this label which of the cluster's pods are brokers.
    let selector = json!({ "strimzi.io/cluster": site.name(), "strimzi.io/name": format!("{}-kafka", site.name()) });
    let mut metadata = site.subject.metadata(site.name());
    metadata["labels"]["strimzi.io/cluster"] = json!(site.name());
    let storage = if site.is_persistent() {
        json!({
            "type": "persistent-claim",
            "size": site.volume_size(),
            "class": site.storage_class(),
            "deleteClaim": false,
            "kraftMetadata": "shared",
        })
    } else {
        json!({ "type": "ephemeral", "sizeLimit": site.volume_size(), "kraftMetadata": "shared" })
    };
    let value = json!({
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaNodePool",
        "metadata": metadata,
        "spec": {
            "replicas": site.members(),
            "roles": ["controller", "broker"],
            "storage": storage,
            "resources": site.resources(),
            "template": {
                "pod": {
                    "metadata": { "labels": site.pod_labels() },
                    "affinity": site.affinity_with_selector(&selector),
                    "tolerations": site.tolerations(),
                    "topologySpreadConstraints": site.topology_spread(&selector),
                },
            },
        },
    });
    site.object("kafkanodepool", value)
}

fn topic_object(site: &Site<'_>, name: &str, topic: &Topic) -> Object {
    let object = site.topic_object(name);
    let mut metadata = site.subject.metadata(&object);
    metadata["labels"]["strimzi.io/cluster"] = json!(site.name());
    let replicas = topic.replication.as_ref().map_or_else(|| replication(site), |replication| replication.value);
    let value = json!({
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaTopic",
        "metadata": metadata,
        "spec": {
            "topicName": name,
            "partitions": topic.partitions.as_ref().map_or(1, |partitions| partitions.value),
            "replicas": replicas,
            "config": {
                "min.insync.replicas": in_sync(site).min(replicas),
                "retention.ms": topic.retention.as_ref().map(|retention| retention.millis()),
            },
        },
    });
    site.object(&format!("topic-{object}"), value)
}

fn user(site: &Site<'_>, service: &str, access: &Access) -> Object {
    let name = client_user(site.name(), service);
    let mut metadata = site.subject.metadata(&name);
    metadata["labels"]["strimzi.io/cluster"] = json!(site.name());
    let mut topics: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (names, operations) in [(&access.publishes, ["Describe", "Write"]), (&access.consumes, ["Describe", "Read"])] {
        for name in names {
            topics.entry(name.as_deref().unwrap_or("*")).or_default().extend(operations);
        }
    }
    let mut rules: Vec<Value> = topics
        .into_iter()
        .map(|(topic, operations)| {
            json!({ "resource": { "type": "topic", "name": topic, "patternType": "literal" }, "operations": operations })
        })
        .collect();
    if !access.consumes.is_empty() {
        // A service names its consumer groups after itself.
        rules.push(json!({
            "resource": { "type": "group", "name": service, "patternType": "prefix" },
            "operations": ["Describe", "Read"],
        }));
    }
    let value = json!({
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": metadata,
        "spec": {
            "authentication": { "type": "scram-sha-512" },
            "authorization": { "type": "simple", "acls": rules },
        },
    });
    site.object(&format!("user-{name}"), value)
}

/// The ports of the controllers and of the replication between brokers.
const CONTROLLER: u16 = 9090;
const REPLICATION: u16 = 9091;

/// Apache Kafka as one quorum of brokers that are controllers too.
///
/// The first member makes the topics once the cluster answers. Not handled: users and their rights. The operator has
/// both; here whoever the network lets in may use every topic.
pub(super) fn statefulset(site: &Site<'_>) -> Vec<Object> {
    let hosts = site.member_hosts();
    let port = site.access.port;
    let suffix = hosts[0].split_once('.').map_or("", |(_, suffix)| suffix);
    let client_options =
        if site.access.tls { format!(" --command-config {CONFIGURATION}/client.properties") } else { String::new() };
    let topics: String = site
        .topics()
        .iter()
        .map(|(name, topic)| {
            let partitions = topic.partitions.as_ref().map_or(1, |partitions| partitions.value);
            let replicas =
                topic.replication.as_ref().map_or_else(|| replication(site), |replication| replication.value);
            let retention = topic
                .retention
                .as_ref()
                .map(|of: &landfall_model::Spanned<Duration>| format!(" --config retention.ms={}", of.millis()));
            format!(
                "  create --topic '{name}' --partitions {partitions} --replication-factor {replicas}{}\n",
                retention.unwrap_or_default()
            )
        })
        .collect();
    let make_topics = if topics.is_empty() {
        String::new()
    } else {
        format!(
            "create() {{\n\
             \x20 until /opt/kafka/bin/kafka-topics.sh --bootstrap-server \"$host:{REPLICATION}\"{client_options} \\\n\
             \x20   --create --if-not-exists \"$@\"; do sleep 5; done\n\
             }}\n\
             if [ \"$member\" = 0 ]; then (\n{topics}) & fi\n",
        )
    };
    let start = format!(
        "#!/bin/bash\n\
         set -eu\n\
         member=\"${{HOSTNAME##*-}}\"\n\
         host=\"$HOSTNAME.{suffix}\"\n\
         {{\n\
         \x20 cat {CONFIGURATION}/server.properties\n\
         \x20 echo \"node.id=$member\"\n\
         \x20 echo \"advertised.listeners=CLIENT://$host:{port},REPLICATION://$host:{REPLICATION}\"\n\
         }} > /tmp/server.properties\n\
         /opt/kafka/bin/kafka-storage.sh format --ignore-formatted --cluster-id {} \\\n\
         \x20 --config /tmp/server.properties\n\
         {make_topics}\
         exec /opt/kafka/bin/kafka-server-start.sh /tmp/server.properties\n",
        cluster_id(site)
    );
    let mut files = vec![("start.sh", start), ("server.properties", properties(site))];
    if site.access.tls {
        let client = format!("security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={TLS}/ca.crt\n");
        files.push(("client.properties", client));
    }
    let server = Server {
        image: images::kafka(site.store),
        user: 1000,
        command: vec!["bash".to_owned(), format!("{CONFIGURATION}/start.sh")],
        // The logs go to standard output; only the log of the garbage collector wants a folder.
        environment: vec![
            json!({ "name": "LOG_DIR", "value": "/tmp" }),
            json!({ "name": "KAFKA_HEAP_OPTS", "value": heap(site) }),
        ],
        ports: vec![("kafka", port), ("controller", CONTROLLER), ("replication", REPLICATION)],
        data: "/var/lib/kafka",
        keeps_data: site.is_persistent(),
        scratch: vec!["/tmp"],
        files,
        startup: probe(&tcp("kafka"), 5, 120),
        ready: probe(&tcp("kafka"), 10, 3),
        live: probe(&tcp("kafka"), 20, 6),
        // A quorum of controllers answers before any broker is ready.
        start: Start::Together,
        grace: 120,
        ..Server::default()
    };
    statefulset::objects(site, server)
}

/// Half of the memory that is requested; the other half caches the log, which is what makes Kafka fast.
fn heap(site: &Site<'_>) -> String {
    let half = site.store.resources.memory.as_ref().map_or(1 << 30, |memory| memory.low.get() / 2) >> 20;
    format!("-Xms{half}m -Xmx{half}m")
}

fn properties(site: &Site<'_>) -> String {
    let port = site.access.port;
    let voters: Vec<String> =
        site.member_hosts().iter().enumerate().map(|(n, host)| format!("{n}@{host}:{CONTROLLER}")).collect();
    let protocol = if site.access.tls { "SSL" } else { "PLAINTEXT" };
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        format!("controller.quorum.voters={}", voters.join(",")),
        "controller.listener.names=CONTROLLER".to_owned(),
        "inter.broker.listener.name=REPLICATION".to_owned(),
        format!("listeners=CLIENT://:{port},REPLICATION://:{REPLICATION},CONTROLLER://:{CONTROLLER}"),
        format!("listener.security.protocol.map=CLIENT:{protocol},REPLICATION:{protocol},CONTROLLER:{protocol}"),
        // The root of a volume holds `lost+found`, which Kafka would take for a topic.
        "log.dirs=/var/lib/kafka/data".to_owned(),
    ];
    lines.extend(settings(site).into_iter().map(|(key, value)| format!("{key}={value}")));
    if site.access.tls {
        lines.push("ssl.keystore.type=PEM".to_owned());
        lines.push(format!("ssl.keystore.location={TLS}/tls-combined.pem"));
        lines.push("ssl.truststore.type=PEM".to_owned());
        lines.push(format!("ssl.truststore.location={TLS}/ca.crt"));
    }
    lines.join("\n") + "\n"
}

/// The cluster's id: 16 bytes in the URL form of Base64, made from the names of the platform and the store.
fn cluster_id(site: &Site<'_>) -> String {
    let seed = format!("{}/{}", site.platform(), site.name());
    // 21 hexadecimal digits are Base64 too; the last character may only carry two bits, and `A` carries none.
    let digits = format!(
        "{:08x}{:08x}{:08x}",
        fingerprint(&seed),
        fingerprint(&(seed.clone() + "1")),
        fingerprint(&(seed + "2"))
    );
    format!("{}A", &digits[..21])
}
