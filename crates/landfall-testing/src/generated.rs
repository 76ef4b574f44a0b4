//! Files of any size, for the measurements.

use std::fmt::Write as _;

/// An architecture of `count` services in groups of ten: each group has a database, a cache and a topic; each service
/// calls the next one of its group, and the first one of each group is exposed.
pub fn generated(count: usize) -> String {
    let nodes = count.max(3);
    let mut text = format!(
        "landfall: v1\nname: generated\nobjectives: {{ availability: 99.9%, recovery: {{ zone: {{ rto: 10m, rpo: 1m }} }} }}\n\
         platform:\n  regions: {{ main: {{ zones: [a, b, c] }} }}\n  nodes: {{ count: {nodes}, cpu: 8, memory: 32Gi }}\n\
         observability: {{ metrics: prometheus }}\nservices:\n"
    );
    let write = "writing to a string cannot fail";
    for index in 0..count {
        let group = index / 10;
        writeln!(text, "  service-{index}:\n    image: shop/service-{index}:1.{index}\n    port: 8080").expect(write);
        writeln!(text, "    replicas: {{ min: 3, max: 6, cpu: 70% }}").expect(write);
        writeln!(text, "    resources: {{ cpu: 100m..500m, memory: 128Mi..256Mi }}").expect(write);
        writeln!(text, "    probes: {{ live: /health, ready: /ready }}").expect(write);
        if index % 10 == 0 {
            writeln!(text, "    expose: {{ host: g{group}.example.com, tls: letsencrypt }}").expect(write);
        }
        writeln!(
            text,
            "    uses:\n      - write: db-{group}\n      - cache: cache-{group}\n      - read: cache-{group}"
        )
        .expect(write);
        writeln!(
            text,
            "      - publish: events-{}/topic-{group}\n      - consume: events-{}/topic-{group}",
            group / 10,
            group / 10
        )
        .expect(write);
        if index % 10 != 9 && index + 1 < count {
            writeln!(text, "      - call: service-{}", index + 1).expect(write);
        }
    }
    text.push_str("stores:\n");
    for group in 0..count.div_ceil(10) {
        let resources = "resources: { cpu: 500m..1, memory: 1Gi..2Gi }";
        writeln!(
            text,
            "  db-{group}: {{ engine: postgres, members: 3, size: 10Gi, commit: synchronous, {resources} }}"
        )
        .expect(write);
        writeln!(text, "  cache-{group}: {{ engine: redis, members: 3, size: 1Gi, persistence: log, {resources} }}")
            .expect(write);
        if group % 10 == 0 {
            let broker = group / 10;
            writeln!(
                text,
                "  events-{broker}: {{ engine: kafka, members: 3, size: 10Gi, replication: 3, in-sync: 2, {resources} }}"
            )
            .expect(write);
        }
    }
    text
}
