//! Stores: each engine by its operator, as a plain `StatefulSet` and as a managed service.

use landfall_render::Rendered;
use landfall_testing::{Schemas, require_or_skip};
use serde_json::{Value, json};

use crate::architecture::{find, messages, names, part, render};

const ENGINES: [&str; 8] = ["postgres", "mongodb", "redis", "kafka", "rabbitmq", "s3", "mqtt", "elasticsearch"];

/// What is said besides the engine and the provider.
const SIZES: [&str; 4] = [
    "members: 1",
    "members: 3, size: 20Gi, resources: { cpu: 500m..1, memory: 1Gi..2Gi }",
    "members: 3, size: 20Gi, persistence: log, commit: synchronous, encryption: { in-transit: true }, storage-class: fast",
    "members: 3, persistence: none, placement: { pool: data, zones: preferred }, zones: [a, b]",
];

const PLATFORM: &str = "platform:
  regions: { primary: { provider: aws, location: eu-central-1, zones: [a, b, c] } }
  pools: { data: { count: 3, cpu: 4, memory: 16Gi, dedicated: true } }
observability: { metrics: prometheus }
";

#[track_caller]
fn check_valid(schemas: &Schemas, what: &str, rendered: &Rendered) {
    let errors: Vec<String> =
        rendered.objects.iter().filter_map(|object| schemas.validate(&object.value).err()).flatten().collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

/// A platform with one store and a service that uses it.
fn with_store(engine: &str, rest: &str) -> String {
    let verb = match engine {
        "kafka" | "rabbitmq" | "mqtt" => "publish: data/orders.placed }, { consume: data/orders.paid",
        "s3" => "store: data/reports",
        _ => "write: data",
    };
    format!(
        "{PLATFORM}services: {{ web: {{ port: 8080, uses: [{{ {verb} }}] }} }}\n\
         stores:\n  data: {{ engine: {engine}, {rest} }}\n  archive: {{ engine: s3, provider: aws }}\n"
    )
}

/// A part of a custom resource or other object of the store `data`.
#[track_caller]
fn of_store(engine: &str, rest: &str, object: &str, pointer: &str) -> Value {
    let rendered = render(&with_store(engine, rest));
    find(&rendered, object).pointer(pointer).cloned().unwrap_or_default()
}

#[test]
fn every_engine_of_every_provider_is_valid() {
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    for engine in ENGINES {
        for provider in ["operator", "statefulset", "aws", "azure", "gcp"] {
            for size in SIZES {
                for backup in ["", ", backup: { full: 24h, log: 5m, keep: 14d, to: archive, encrypted: true }"] {
                    let text = with_store(engine, &format!("provider: {provider}, {size}{backup}"));
                    check_valid(&schemas, &format!("{engine} of {provider}, {size}{backup}"), &render(&text));
                }
            }
        }
    }
}

#[test]
fn a_sharded_cache_is_valid() {
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    let text =
        with_store("redis", "shards: 3, members: 6, persistence: log, size: 8Gi, encryption: { in-transit: true }");
    let rendered = render(&text);
    check_valid(&schemas, "a sharded cache", &rendered);
    let cluster = &find(&rendered, "RedisCluster/data")["spec"];
    assert_eq!(cluster["clusterSize"], 3);
    assert_eq!(cluster["redisFollower"]["replicas"], 3);
}

#[test]
fn two_members_stand_on_two_nodes_and_in_two_zones_without_being_told() {
    for engine in ENGINES {
        let rendered = render(&with_store(engine, "provider: statefulset, members: 3"));
        let pod = find(&rendered, "StatefulSet/data").pointer("/spec/template/spec").cloned().unwrap_or_default();
        let anti_affinity = &pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(anti_affinity[0]["topologyKey"], "kubernetes.io/hostname", "{engine}");
        let spread = &pod["topologySpreadConstraints"][0];
        assert_eq!(spread["whenUnsatisfiable"], "DoNotSchedule", "{engine}");
        assert_eq!(spread["minDomains"], 3, "{engine}");
    }
}

#[test]
fn one_member_has_nothing_to_keep_apart() {
    let pod = of_store("postgres", "provider: statefulset", "StatefulSet/data", "/spec/template/spec");
    assert_eq!(pod.get("affinity"), None);
    assert_eq!(pod.get("topologySpreadConstraints"), None);
}

#[test]
fn machines_of_its_own_are_selected_and_tolerated() {
    let pod = of_store(
        "kafka",
        "own-machines: true, provider: statefulset, members: 3",
        "StatefulSet/data",
        "/spec/template/spec",
    );
    assert_eq!(pod["nodeSelector"], json!({ "landfall.dev/store": "data" }));
    assert_eq!(pod["tolerations"][0]["key"], "landfall.dev/store");
}

#[test]
fn plain_servers_cannot_become_root_or_change_their_image() {
    for engine in ENGINES {
        let rendered = render(&with_store(engine, "provider: statefulset, encryption: { in-transit: true }"));
        let pod = find(&rendered, "StatefulSet/data").pointer("/spec/template/spec").cloned().unwrap_or_default();
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{engine}");
        let before = pod["initContainers"].as_array().into_iter().flatten();
        for container in before.chain(pod["containers"].as_array().into_iter().flatten()) {
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{engine}");
            assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]), "{engine}");
        }
    }
}

#[test]
fn a_synchronous_commit_waits_for_one_replica() {
    let rest = "members: 3, commit: synchronous";
    let expected = json!({ "method": "any", "number": 1, "dataDurability": "required", "failoverQuorum": true });
    assert_eq!(of_store("postgres", rest, "Cluster/data", "/spec/postgresql/synchronous"), expected);
    let rest = format!("provider: statefulset, {rest}");
    let script = of_store("postgres", &rest, "ConfigMap/data-configuration", "/data/start.sh");
    let script = script.as_str().unwrap_or_default();
    let (made, waits) = (script.find("docker-ensure-initdb.sh"), script.find("synchronous_standby_names=ANY 1 (*)"));
    assert!(made.is_some() && made < waits, "the first start has nobody to wait for: {script}");
}

#[test]
fn backups_of_postgres_ship_the_log_and_keep_what_was_asked() {
    let rest = "backup: { full: 24h, log: 5m, keep: 14d, to: archive }";
    let parameter = of_store("postgres", rest, "Cluster/data", "/spec/postgresql/parameters/archive_timeout");
    assert_eq!(parameter, "300s");
    let plugin = of_store("postgres", rest, "Cluster/data", "/spec/plugins/0");
    assert_eq!(plugin["parameters"]["barmanObjectName"], "data-archive");
    let archive = of_store("postgres", rest, "ObjectStore/data-archive", "/spec");
    assert_eq!(archive["retentionPolicy"], "14d");
    assert_eq!(archive["configuration"]["destinationPath"], "s3://shop-data-backups/");
    assert_eq!(archive["configuration"]["endpointURL"], "https://s3.eu-central-1.amazonaws.com");
    assert_eq!(archive["configuration"]["s3Credentials"]["accessKeyId"]["name"], "archive-credentials");
    assert_eq!(of_store("postgres", rest, "ScheduledBackup/data", "/spec/schedule"), "0 0 2 * * *");
}

#[test]
fn backups_of_mongodb_ship_the_oplog() {
    let rest = "members: 3, backup: { full: 12h, log: 10m, keep: 7d, to: archive }";
    let backup = of_store("mongodb", rest, "PerconaServerMongoDB/data", "/spec/backup");
    assert_eq!(backup["pitr"], json!({ "enabled": true, "oplogSpanMin": 10.0 }));
    assert_eq!(backup["tasks"][0]["schedule"], "0 */12 * * *");
    assert_eq!(backup["tasks"][0]["retention"]["count"], 14);
}

#[test]
fn backups_into_the_cluster_have_their_bucket_there() {
    let text = "stores:
  data: { engine: postgres, backup: { full: 24h, to: archive } }
  archive: { engine: s3, topics: { reports: {} } }";
    let rendered = render(text);
    let script = &find(&rendered, "ConfigMap/archive-configuration")["data"]["buckets.sh"];
    let commands = script.as_str().unwrap_or_default();
    assert!(commands.contains("-name reports\\ns3.bucket.create -name shop-data-backups\\n"), "{commands}");
    let endpoint = &find(&rendered, "ObjectStore/data-archive")["spec"]["configuration"]["endpointURL"];
    assert_eq!(endpoint, "http://archive.shop.svc:8333");
}

#[test]
fn topics_come_from_the_file_and_from_the_edges() {
    let rest = "members: 3, replication: 3, in-sync: 2, topics: { orders.placed: { partitions: 12, retention: 7d } }";
    let rendered = render(&with_store("kafka", rest));
    assert_eq!(names(&rendered, &["KafkaTopic"]), ["KafkaTopic/data-orders.paid", "KafkaTopic/data-orders.placed"]);
    let topic = &find(&rendered, "KafkaTopic/data-orders.placed")["spec"];
    assert_eq!(topic["topicName"], "orders.placed");
    assert_eq!(topic["partitions"], 12);
    assert_eq!(topic["config"], json!({ "min.insync.replicas": 2, "retention.ms": 604_800_000_u64 }));
}

#[test]
fn each_consumer_of_a_rabbitmq_topic_has_a_queue_of_its_own() {
    let stores =
        "stores: { data: { engine: rabbitmq, members: 3 } }\nservices:\n  shop: { uses: [publish: data/order] }\n";
    let one = format!("{stores}  mail: {{ uses: [consume: data/order] }}\n");
    assert_eq!(names(&render(&one), &["Queue"]), ["Queue/data-order"]);
    let two = format!("{one}  stock: {{ uses: [consume: data/order] }}\n");
    let rendered = render(&two);
    assert_eq!(names(&rendered, &["Queue"]), ["Queue/data-order.mail", "Queue/data-order.stock"]);
    assert_eq!(rendered.findings[0].message, "the exchange of `order` and its bindings are not rendered");
}

#[test]
fn topics_whose_names_kubernetes_does_not_take_stay_two() {
    let text = "stores: { data: { engine: kafka, topics: { orders_placed: {}, orders-placed: {} } } }";
    let topics = names(&render(text), &["KafkaTopic"]);
    assert_eq!(topics, ["KafkaTopic/data-orders-placed-a6522594", "KafkaTopic/data-orders-placed"]);
}

#[test]
fn a_client_of_kafka_may_do_what_its_edges_say() {
    let rest = "members: 3, encryption: { in-transit: true }";
    let rules = of_store("kafka", rest, "KafkaUser/data-web", "/spec/authorization/acls");
    assert_eq!(
        rules,
        json!([
            { "resource": { "type": "topic", "name": "orders.paid", "patternType": "literal" }, "operations": ["Describe", "Read"] },
            { "resource": { "type": "topic", "name": "orders.placed", "patternType": "literal" }, "operations": ["Describe", "Write"] },
            { "resource": { "type": "group", "name": "web", "patternType": "prefix" }, "operations": ["Describe", "Read"] },
        ])
    );
    let listeners = of_store("kafka", rest, "Kafka/data", "/spec/kafka/listeners");
    assert_eq!(listeners.as_array().map(Vec::len), Some(1));
    assert_eq!(listeners[0]["port"], 9093);
}

#[test]
fn strimzi_lets_in_only_who_has_an_edge() {
    let peers = of_store("kafka", "members: 3", "Kafka/data", "/spec/kafka/listeners/0/networkPolicyPeers");
    let names: Vec<&Value> = peers
        .as_array()
        .into_iter()
        .flatten()
        .map(|peer| &peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"])
        .collect();
    assert_eq!(names, ["web", "data"]);
}

#[test]
fn queues_are_quorum_queues() {
    let rest = "members: 3, replication: 3, topics: { orders.placed: { retention: 1h } }";
    let queue = of_store("rabbitmq", rest, "Queue/data-orders.placed", "/spec");
    assert_eq!(queue["type"], "quorum");
    assert_eq!(queue["arguments"], json!({ "x-quorum-initial-group-size": 3, "x-message-ttl": 3_600_000 }));
}

#[test]
fn a_cache_survives_as_declared() {
    for (persistence, expected) in [
        ("none", "appendonly no\nsave \"\"\n"),
        ("snapshot", "appendonly no\nsave 900 1 300 10 60 10000\n"),
        ("log", "appendonly yes\nappendfsync everysec\n"),
        ("durable", "appendonly yes\nappendfsync always\n"),
    ] {
        let rest = format!("members: 3, persistence: {persistence}");
        let settings = of_store("redis", &rest, "ConfigMap/data-configuration", "/data/redis-additional.conf");
        assert_eq!(settings, expected);
        let rest = format!("provider: statefulset, {rest}");
        let settings = of_store("redis", &rest, "ConfigMap/data-configuration", "/data/valkey.conf");
        assert!(settings.as_str().is_some_and(|text| text.ends_with(expected)), "{settings}");
    }
}

#[test]
fn a_managed_store_is_a_name() {
    for provider in ["aws", "azure", "gcp"] {
        let rendered = render(&with_store("postgres", &format!("provider: {provider}, members: 3")));
        let service = find(&rendered, "Service/data");
        assert_eq!(service["spec"], json!({ "type": "ExternalName", "externalName": "data.shop.internal" }));
        assert_eq!(names(&rendered, &["Cluster", "StatefulSet"]), [""; 0]);
    }
}

#[test]
fn the_url_of_a_store_leads_to_what_is_rendered() {
    let url = |engine: &str, rest: &str| {
        let text = with_store(engine, rest).replace("port: 8080,", "port: 8080, env: { URL: { store: data/url } },");
        let environment = part(&text, "Deployment/web", "/spec/template/spec/containers/0/env");
        let variables = environment.as_array().cloned().unwrap_or_default();
        let url = variables.iter().find(|variable| variable["name"] == "URL").cloned().unwrap_or_default();
        url["value"].as_str().unwrap_or_default().to_owned()
    };
    let (user, password) = ("$(DATA_USERNAME)", "$(DATA_PASSWORD)");
    assert_eq!(url("postgres", "members: 3"), format!("postgresql://{user}:{password}@data-rw.shop.svc:5432/data"));
    assert_eq!(url("redis", "members: 3"), format!("redis://:{password}@data-master.shop.svc:6379/0"));
    assert_eq!(
        url("rabbitmq", "encryption: { in-transit: true }"),
        format!("amqps://{user}:{password}@data.shop.svc:5671")
    );
    assert_eq!(url("kafka", "members: 3"), "kafka://data-kafka-bootstrap.shop.svc:9092");
    assert_eq!(
        url("mongodb", "members: 3"),
        format!("mongodb://{user}:{password}@data-rs0.shop.svc:27017/data?authSource=admin&replicaSet=rs0")
    );
    assert_eq!(url("s3", "members: 1"), "http://data.shop.svc:8333");
    assert_eq!(
        url("postgres", "provider: statefulset, encryption: { in-transit: true }"),
        format!("postgresql://{user}:{password}@data.shop.svc:5432/data?sslmode=require")
    );
}

#[test]
fn a_plain_store_answers_where_its_clients_are_sent() {
    for engine in ENGINES {
        for encryption in ["", ", encryption: { in-transit: true }"] {
            let rendered = render(&with_store(engine, &format!("provider: statefulset{encryption}")));
            let service = &find(&rendered, "Service/data")["spec"];
            let container = &find(&rendered, "StatefulSet/data")["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(service["ports"][0]["port"], container["ports"][0]["containerPort"], "{engine}{encryption}");
            let policy = &find(&rendered, "NetworkPolicy/data")["spec"]["ingress"];
            let opened = policy.as_array().into_iter().flatten().filter_map(|rule| rule["ports"].as_array()).flatten();
            assert!(
                opened.into_iter().any(|port| port["port"] == service["ports"][0]["port"]),
                "{engine}{encryption}: {policy}"
            );
        }
    }
}

#[test]
fn encrypted_stores_without_an_operator_have_a_certificate() {
    let rendered = render(&with_store("mqtt", "encryption: { in-transit: true }"));
    assert_eq!(names(&rendered, &["Issuer"]), ["Issuer/shop-authority", "Issuer/shop-root"]);
    let certificate = &find(&rendered, "Certificate/data-tls")["spec"];
    assert_eq!(certificate["issuerRef"], json!({ "kind": "Issuer", "name": "shop-authority" }));
    let names = certificate["dnsNames"].as_array().cloned().unwrap_or_default();
    assert!(names.contains(&json!("data.shop.svc")) && names.contains(&json!("*.data-members.shop.svc")), "{names:?}");
    let plain = render(&with_store("mqtt", "members: 1"));
    assert_eq!(crate::architecture::names(&plain, &["Issuer", "Certificate"]), [""; 0]);
}

#[test]
fn stores_keep_out_of_the_mesh() {
    let text = "platform: { mesh: { kind: istio } }\nstores:
  a: { engine: postgres }
  b: { engine: kafka }
  c: { engine: redis, provider: statefulset }";
    let rendered = render(text);
    for (object, pointer) in [
        ("Cluster/a", "/spec/inheritedMetadata/labels"),
        ("KafkaNodePool/b", "/spec/template/pod/metadata/labels"),
        ("StatefulSet/c", "/spec/template/metadata/labels"),
    ] {
        let labels = find(&rendered, object).pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(labels["sidecar.istio.io/inject"], "false", "{object}");
    }
}

#[test]
fn no_password_is_ever_written() {
    for engine in ENGINES {
        for provider in ["operator", "statefulset", "aws"] {
            let rendered = render(&with_store(engine, &format!("provider: {provider}, members: 3")));
            assert_eq!(names(&rendered, &["Secret"]), [""; 0], "{engine} of {provider}");
        }
    }
}

#[test]
fn what_is_not_rendered_is_said() {
    #[track_caller]
    fn check(engine: &str, rest: &str, expected: &[&str]) {
        assert_eq!(messages(&render(&with_store(engine, rest))), expected);
    }
    check("mqtt", "members: 3", &["`data` has 3 members, but Mosquitto does not form clusters"]);
    check("s3", "members: 2", &["the 2 members of `data` cannot elect a master"]);
    check("redis", "provider: statefulset, shards: 3, members: 6", &["the shards of `data` are not rendered"]);
    check(
        "rabbitmq",
        "topics: { orders.placed: { partitions: 3 } }",
        &["`data` has no setting like this for `orders.placed`"],
    );
    check("kafka", "backup: { full: 24h, to: archive }", &["backups of `data` are not rendered"]);
    check(
        "rabbitmq",
        "provider: statefulset, topics: { orders.placed: {} }",
        &["the queue `orders.placed` of `data` is not rendered"],
    );
    check("redis", "commit: synchronous", &["commits of `data` are not made to wait for a replica"]);
    check(
        "redis",
        "provider: statefulset, version: '8'",
        &["the version of `data` is one of Redis, but Valkey is rendered"],
    );
    check("postgres", "backup: { full: 24h }", &["the backups of `data` have no place to go to"]);
    check("postgres", "members: 3, backup: { full: 24h, to: archive }", &[]);
}
