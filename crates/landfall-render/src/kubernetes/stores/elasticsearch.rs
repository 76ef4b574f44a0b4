//! Elasticsearch: ECK's `Elasticsearch`, or a `StatefulSet` whose members elect a master.

use crate::json::json;
use serde_json::Value;

use super::access::PASSWORD_KEY;
use super::statefulset::{self, CONFIGURATION, Server, Start, TLS, probe, tcp};
use super::{Site, from_secret, images};
use crate::object::{Object, compact};

/// Memory-mapped files need a kernel setting that only a privileged container could change.
const MEMORY_MAPS: &str = "node.store.allow_mmap";

pub(super) fn cluster(site: &Site<'_>) -> Vec<Object> {
    let selector = json!({ "elasticsearch.k8s.elastic.co/cluster-name": site.name() });
    let claim = if site.is_persistent() {
        // This name replaces the volume that ECK would make.
        json!([{ "metadata": { "name": "elasticsearch-data" }, "spec": site.claim() }])
    } else {
        Value::Null
    };
    let value = json!({
        "apiVersion": "elasticsearch.k8s.elastic.co/v1",
        "kind": "Elasticsearch",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            "version": images::elasticsearch_version(site.store),
            "http": {
                "tls": (!site.access.tls).then(|| json!({ "selfSignedCertificate": { "disabled": true } })),
            },
            "nodeSets": [{
                "name": "default",
                "count": site.members(),
                "config": { MEMORY_MAPS: false },
                "podTemplate": {
                    "metadata": { "labels": site.pod_labels() },
                    "spec": {
                        "nodeSelector": site.node_selector(),
                        "affinity": site.affinity(&selector),
                        "tolerations": site.tolerations(),
                        "topologySpreadConstraints": site.topology_spread(&selector),
                        "containers": [{ "name": "elasticsearch", "resources": site.resources() }],
                        "volumes": (!site.is_persistent())
                            .then(|| json!([{ "name": "elasticsearch-data", "emptyDir": { "sizeLimit": site.volume_size() } }])),
                    },
                },
                "volumeClaimTemplates": claim,
            }],
        },
    });
    vec![site.object("elasticsearch", compact(value))]
}

pub(super) fn statefulset(site: &Site<'_>) -> Vec<Object> {
    let credentials = site.credentials();
    let image = images::elasticsearch(site.store);
    let home = "/usr/share/elasticsearch";
    // The server keeps its key store beside its configuration, so that the folder has to be a writable copy. It only
    // takes certificates from below that folder.
    let certificates = if site.has_own_certificate() {
        format!(
            " && mkdir -p /config/certificates && cp {TLS}/ca.crt {TLS}/tls.crt {TLS}/tls.key /config/certificates/"
        )
    } else {
        String::new()
    };
    let mut copied = vec![
        json!({ "name": "config", "mountPath": "/config" }),
        json!({ "name": "configuration", "mountPath": CONFIGURATION, "readOnly": true }),
    ];
    if site.has_own_certificate() {
        copied.push(json!({ "name": "tls", "mountPath": TLS, "readOnly": true }));
    }
    let server = Server {
        user: 1000,
        command: vec!["/usr/local/bin/docker-entrypoint.sh".to_owned(), "eswrapper".to_owned()],
        environment: vec![
            json!({ "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }),
            from_secret("ELASTIC_PASSWORD", &credentials.secret, PASSWORD_KEY),
        ],
        ports: vec![("http", site.access.port), ("transport", 9300)],
        data: "/usr/share/elasticsearch/data",
        keeps_data: site.is_persistent(),
        scratch: vec!["/tmp", "/usr/share/elasticsearch/logs"],
        files: vec![("elasticsearch.yml", configuration(site))],
        startup: probe(&tcp("http"), 10, 60),
        ready: probe(&tcp("http"), 10, 3),
        live: probe(&tcp("transport"), 20, 6),
        before: vec![json!({
            "name": "config",
            "image": &image,
            "command": ["sh", "-c", format!("cp -r {home}/config/. /config/ && cp {CONFIGURATION}/elasticsearch.yml /config/{certificates}")],
            "volumeMounts": copied,
        })],
        volumes: vec![json!({ "name": "config", "emptyDir": { "sizeLimit": "16Mi" } })],
        mounts: vec![json!({ "name": "config", "mountPath": "/usr/share/elasticsearch/config" })],
        image: image.clone(),
        // A master is elected before any member is ready.
        start: Start::Together,
        grace: 120,
        ..Server::default()
    };
    statefulset::objects(site, server)
}

fn configuration(site: &Site<'_>) -> String {
    let mut lines = vec![
        format!("cluster.name: {}", site.name()),
        "node.name: ${POD_NAME}".to_owned(),
        "network.host: 0.0.0.0".to_owned(),
        format!("{MEMORY_MAPS}: false"),
        "xpack.security.enabled: true".to_owned(),
    ];
    if site.members() == 1 {
        lines.push("discovery.type: single-node".to_owned());
    } else {
        lines.push(format!("discovery.seed_hosts: [{}]", site.member_hosts().join(", ")));
        let names: Vec<String> = (0..site.members()).map(|n| format!("{}-{n}", site.name())).collect();
        lines.push(format!("cluster.initial_master_nodes: [{}]", names.join(", ")));
        lines.push("xpack.security.transport.ssl.enabled: true".to_owned());
        lines.extend(certificate("xpack.security.transport.ssl"));
    }
    if site.access.tls {
        lines.push("xpack.security.http.ssl.enabled: true".to_owned());
        lines.extend(certificate("xpack.security.http.ssl"));
    }
    lines.join("\n") + "\n"
}

fn certificate(prefix: &str) -> [String; 3] {
    [("key", "tls.key"), ("certificate", "tls.crt"), ("certificate_authorities", "ca.crt")]
        .map(|(field, file)| format!("{prefix}.{field}: certificates/{file}"))
}
