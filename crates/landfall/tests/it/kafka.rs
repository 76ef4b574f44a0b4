//! `landfall up` with Kafka: three real brokers behind the objects that are rendered for Strimzi, and services that publish
//! and consume through them with the real protocol.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use landfall_standin::Server;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::Folder;
use crate::platform::Platform;
use crate::up::are_here;

/// Two services with a topic between them; everything is encrypted, so that each has a user and rights of its own.
const PARCELS: &str = r#"
landfall: v1
name: parcels
platform:
  regions: { primary: { zones: [a, b, c] } }
  nodes: { count: 3, cpu: 4, memory: 16Gi }
  ingress: { api: gateway, class: traefik }
services:
  intake:
    image: "parcels/intake:1.0.0"
    port: 8080
    replicas: 2
    resources: { cpu: 50m..500m, memory: 64Mi..128Mi }
    probes: { live: { http: /health }, ready: { http: /ready, period: 1s } }
    env:
      KAFKA_BROKERS: { store: events/address }
      KAFKA_USERNAME: { store: events/username }
      KAFKA_PASSWORD: { store: events/password }
    expose: { host: parcels.example.com, tls: letsencrypt }
    uses:
      - { publish: events/parcel.taken }
  ledger:
    image: "parcels/ledger:1.0.0"
    port: 8080
    replicas: 2
    resources: { cpu: 50m..500m, memory: 64Mi..128Mi }
    probes: { live: { http: /health }, ready: { http: /ready, period: 1s } }
    env:
      KAFKA_BROKERS: { store: events/address }
      KAFKA_USERNAME: { store: events/username }
      KAFKA_PASSWORD: { store: events/password }
    uses:
      - { consume: events/parcel.taken }
stores:
  events:
    engine: kafka
    version: "4.1"
    members: 3
    size: 1Gi
    replication: 3
    in-sync: 2
    resources: { cpu: 100m..1, memory: 768Mi..768Mi }
    topics: { parcel.taken: { partitions: 6, retention: 1d } }
    encryption: { in-transit: true }
flows:
  taken:
    rate: 20/s
    within: 60s
    steps: [client -> intake, intake -> events, events -> ledger]
"#;

/// For how long the flow is driven: a broker dies and comes back meanwhile.
const DRIVEN: &str = "40s";

async fn strimzi(client: &Client, kind: &str, name: &str) -> Value {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kafka.strimzi.io", "v1", kind));
    let objects = Api::<DynamicObject>::namespaced_with(client.clone(), "parcels", &resource);
    objects.get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}")).data
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_has_acknowledged_survives_a_broker() {
    let Some(()) = are_here(&[Server::Kafka]) else { return };
    let folder = Folder::with(PARCELS);
    let mut platform = Platform::start(folder.path(), "parcels", None, &["--once", "--duration", DRIVEN]);
    platform.until_said("driving");
    let client = platform.client().await;
    // What the operator has made is called as Strimzi calls it, and says that it is ready.
    for (kind, name) in [
        ("Kafka", "events"),
        ("KafkaTopic", "events-parcel.taken"),
        ("KafkaUser", "events-intake"),
        ("KafkaUser", "events-ledger"),
    ] {
        let object = strimzi(&client, kind, name).await;
        assert_eq!(object["status"]["conditions"][0]["status"], "True", "{kind} {name}: {object:#}");
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), "parcels");
    for (name, key) in [("events-cluster-ca-cert", "ca.crt"), ("events-ledger", "sasl.jaas.config")] {
        let secret = secrets.get(name).await.expect("the operator makes the secret");
        assert!(secret.data.is_some_and(|data| data.contains_key(key)), "{name} has no {key}");
    }
    let pods = Api::<Pod>::namespaced(client, "parcels");
    let killed = pods.get("events-events-1").await.expect("a broker is called so").metadata.uid;
    pods.delete("events-events-1", &DeleteParams::default().grace_period(0)).await.expect("a broker can be killed");

    platform.until("other broker of that name", |_| {
        let broker = tokio::task::block_in_place(|| Handle::current().block_on(pods.get_opt("events-events-1")));
        broker.expect("a pod can be read").filter(|broker| broker.metadata.uid != killed)
    });
    let (_, report) = platform.ended();
    let edges = &report["edges"];
    assert_eq!((&edges["declared"], &edges["carrying"]), (&json!(2), &json!(2)), "{report:#}");
    assert_eq!(edges["reachable"], json!([]), "{report:#}");
    let flow = &report["flows"][0];
    // What was refused while the partitions of the broker had no leader is not lost: its client was told.
    assert!(flow["sent"].as_u64() > Some(400), "{report:#}");
    assert_eq!(flow["lost"], 0, "{report:#}");
}
