//! The dated table of what is no longer maintained, each row with its source.
//!
//! Where only the month is known, the row has its last day. A row is added when a maintainer has announced a date; a version that is not in the table is taken to be alive.
//! Not handled: Redis and Valkey after 6.2, and Kafka after 3.7, whose projects support the newest releases and name no dates.

/// What a row is about; the words are those of the file or of image names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    Kubernetes,
    Istio,
    Node,
    Python,
    Postgres,
    Mongodb,
    Redis,
    Kafka,
    Rabbitmq,
    Elasticsearch,
    Jaeger,
}

/// Versions of a product from which nothing new comes after a date.
pub(super) struct Row {
    pub(super) product: Product,
    /// Every version below this one that no earlier row of the product covers.
    pub(super) below: (u32, u32),
    /// `2026-04-30`.
    pub(super) ended: &'static str,
    pub(super) replacement: &'static str,
    pub(super) source: &'static str,
}

const fn row(
    product: Product,
    below: (u32, u32),
    ended: &'static str,
    replacement: &'static str,
    source: &'static str,
) -> Row {
    Row { product, below, ended, replacement, source }
}

const KUBERNETES: &str = "https://kubernetes.io/releases/patch-releases/";
const NODE: &str = "https://nodejs.org/en/about/previous-releases";
const PYTHON: &str = "https://devguide.python.org/versions/";
const POSTGRES: &str = "https://www.postgresql.org/support/versioning/";
const MONGODB: &str = "https://www.mongodb.com/legal/support-policy/lifecycles";
const RABBITMQ: &str = "https://www.rabbitmq.com/release-information";
const ISTIO: &str = "https://istio.io/latest/docs/releases/supported-releases/";
const ELASTIC: &str = "https://www.elastic.co/support/eol";

/// By product and version, oldest first.
pub(super) const ROWS: &[Row] = &[
    row(Product::Kubernetes, (1, 29), "2024-10-22", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 30), "2025-02-28", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 31), "2025-07-15", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 32), "2025-11-11", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 33), "2026-02-28", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 34), "2026-06-28", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 35), "2026-10-27", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 36), "2027-02-28", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 37), "2027-06-28", "1.37", KUBERNETES),
    row(Product::Kubernetes, (1, 38), "2027-10-28", "a newer release", KUBERNETES),
    row(Product::Istio, (1, 26), "2025-09-30", "1.30", ISTIO),
    row(Product::Istio, (1, 27), "2025-12-22", "1.30", ISTIO),
    row(Product::Istio, (1, 28), "2026-04-07", "1.30", ISTIO),
    row(Product::Istio, (1, 29), "2026-07-01", "1.30", ISTIO),
    row(Product::Node, (16, 0), "2023-04-30", "24", NODE),
    row(Product::Node, (18, 0), "2023-09-11", "24", NODE),
    row(Product::Node, (20, 0), "2025-04-30", "24", NODE),
    row(Product::Node, (22, 0), "2026-04-30", "24", NODE),
    row(Product::Node, (24, 0), "2027-04-30", "24", NODE),
    row(Product::Node, (26, 0), "2028-04-30", "a newer release", NODE),
    row(Product::Python, (3, 9), "2024-10-07", "3.13", PYTHON),
    row(Product::Python, (3, 10), "2025-10-31", "3.13", PYTHON),
    row(Product::Postgres, (12, 0), "2023-11-09", "18", POSTGRES),
    row(Product::Postgres, (13, 0), "2024-11-21", "18", POSTGRES),
    row(Product::Postgres, (14, 0), "2025-11-13", "18", POSTGRES),
    row(Product::Postgres, (15, 0), "2026-11-12", "18", POSTGRES),
    row(Product::Postgres, (16, 0), "2027-11-11", "18", POSTGRES),
    row(Product::Postgres, (17, 0), "2028-11-09", "18", POSTGRES),
    row(Product::Postgres, (18, 0), "2029-11-08", "18", POSTGRES),
    row(Product::Mongodb, (4, 4), "2023-04-30", "8.0", MONGODB),
    row(Product::Mongodb, (5, 0), "2024-02-29", "8.0", MONGODB),
    row(Product::Mongodb, (6, 0), "2024-10-31", "8.0", MONGODB),
    row(Product::Mongodb, (7, 0), "2025-07-31", "8.0", MONGODB),
    row(Product::Mongodb, (8, 0), "2027-08-31", "8.0", MONGODB),
    row(Product::Mongodb, (8, 1), "2029-10-31", "a newer release", MONGODB),
    // Redis supports the newest release and the last one of the major version before; 7.2 came on this day.
    row(Product::Redis, (6, 2), "2023-08-15", "8, or Valkey 8", "https://github.com/redis/redis/security/policy"),
    // Kafka supports the three newest minor releases; 4.0 came on this day and left 3.8 and 3.9 of the old ones.
    row(
        Product::Kafka,
        (3, 8),
        "2025-03-18",
        "4 with KRaft: ZooKeeper was removed in 4.0",
        "https://kafka.apache.org/downloads",
    ),
    row(Product::Rabbitmq, (3, 13), "2024-02-21", "4.2", RABBITMQ),
    row(Product::Rabbitmq, (4, 0), "2024-09-17", "4.2", RABBITMQ),
    row(Product::Rabbitmq, (4, 1), "2025-04-15", "4.2", RABBITMQ),
    row(Product::Rabbitmq, (4, 2), "2026-01-30", "4.2", RABBITMQ),
    row(Product::Elasticsearch, (8, 0), "2026-01-15", "9", ELASTIC),
    row(Product::Elasticsearch, (9, 0), "2027-07-15", "9", ELASTIC),
    row(
        Product::Jaeger,
        (2, 0),
        "2025-12-31",
        "Jaeger 2, which reads OTLP",
        "https://github.com/jaegertracing/jaeger/issues/6321",
    ),
];

/// Something without versions that has come to its end.
pub(super) struct Retired {
    pub(super) ended: &'static str,
    pub(super) what: &'static str,
    pub(super) replacement: &'static str,
    pub(super) source: &'static str,
}

pub(super) const INGRESS_NGINX: Retired = Retired {
    ended: "2026-03-31",
    what: "ingress-nginx, the controller of the class `nginx`, is retired: no releases and no security fixes",
    replacement: "use `api: gateway`, or an Ingress controller that is maintained such as `class: traefik`; both are rendered",
    source: "https://kubernetes.io/blog/2025/11/11/ingress-nginx-retirement/",
};

pub(super) const PROMTAIL: Retired = Retired {
    ended: "2026-03-02",
    what: "Promtail has reached its end of life",
    replacement: "ship logs with `alloy` or `fluent-bit`",
    source: "https://grafana.com/docs/loki/latest/send-data/promtail/",
};

pub(super) const CONTAINER_REGISTRY: Retired = Retired {
    ended: "2025-03-18",
    what: "Google Container Registry was shut down",
    replacement: "use Artifact Registry: `<region>-docker.pkg.dev/<project>/<repository>`",
    source: "https://cloud.google.com/artifact-registry/docs/transition/transition-from-gcr",
};

pub(super) const BITNAMI: Retired = Retired {
    ended: "2025-08-28",
    what: "the free images of Bitnami were moved to `bitnamilegacy` and get no updates",
    replacement: "use the image of the project itself, or an operator",
    source: "https://github.com/bitnami/charts/issues/35164",
};

pub(super) const MINIO: Retired = Retired {
    ended: "2026-02-14",
    what: "the repository of MinIO is archived, and no images are published",
    replacement: "use an S3 store that is maintained, such as SeaweedFS, Garage or RustFS",
    source: "https://github.com/awesome-selfhosted/awesome-selfhosted-data/pull/2015",
};

pub(super) const STRIMZI_V1BETA2: Retired = Retired {
    ended: "2026-04-30",
    what: "the API `kafka.strimzi.io/v1beta2` was removed in Strimzi 1.0",
    replacement: "use `kafka.strimzi.io/v1`, with KafkaNodePools",
    source: "https://github.com/strimzi/strimzi-kafka-operator/releases",
};

pub(super) const ZOOKEEPER: Retired = Retired {
    ended: "2025-03-18",
    what: "ZooKeeper was removed from Kafka in 4.0 and from Strimzi in 0.46",
    replacement: "use KRaft: remove `spec.zookeeper` and declare KafkaNodePools with the role `controller`",
    source: "https://strimzi.io/blog/2025/05/14/kraft-migration/",
};

/// An API of Kubernetes that a release no longer serves.
pub(super) struct RemovedApi {
    pub(super) version: &'static str,
    /// Empty for every kind.
    pub(super) kind: &'static str,
    /// The minor release of Kubernetes 1 that removed it.
    pub(super) removed_in: u32,
    pub(super) replacement: &'static str,
}

const fn removed(version: &'static str, kind: &'static str, removed_in: u32, replacement: &'static str) -> RemovedApi {
    RemovedApi { version, kind, removed_in, replacement }
}

/// <https://kubernetes.io/docs/reference/using-api/deprecation-guide/>
pub(super) const REMOVED_APIS: &[RemovedApi] = &[
    removed("extensions/v1beta1", "Ingress", 22, "networking.k8s.io/v1"),
    removed("extensions/v1beta1", "", 16, "apps/v1, networking.k8s.io/v1 or policy/v1"),
    removed("apps/v1beta1", "", 16, "apps/v1"),
    removed("apps/v1beta2", "", 16, "apps/v1"),
    removed("networking.k8s.io/v1beta1", "", 22, "networking.k8s.io/v1"),
    removed("rbac.authorization.k8s.io/v1beta1", "", 22, "rbac.authorization.k8s.io/v1"),
    removed("apiextensions.k8s.io/v1beta1", "", 22, "apiextensions.k8s.io/v1"),
    removed(
        "admissionregistration.k8s.io/v1beta1",
        "MutatingWebhookConfiguration",
        22,
        "admissionregistration.k8s.io/v1",
    ),
    removed(
        "admissionregistration.k8s.io/v1beta1",
        "ValidatingWebhookConfiguration",
        22,
        "admissionregistration.k8s.io/v1",
    ),
    removed("scheduling.k8s.io/v1beta1", "", 22, "scheduling.k8s.io/v1"),
    removed("batch/v1beta1", "CronJob", 25, "batch/v1"),
    removed("policy/v1beta1", "PodDisruptionBudget", 25, "policy/v1"),
    removed("policy/v1beta1", "PodSecurityPolicy", 25, "Pod Security admission"),
    removed("autoscaling/v2beta1", "", 25, "autoscaling/v2"),
    removed("discovery.k8s.io/v1beta1", "", 25, "discovery.k8s.io/v1"),
    removed("autoscaling/v2beta2", "", 26, "autoscaling/v2"),
    removed("flowcontrol.apiserver.k8s.io/v1beta2", "", 29, "flowcontrol.apiserver.k8s.io/v1"),
    removed("flowcontrol.apiserver.k8s.io/v1beta3", "", 32, "flowcontrol.apiserver.k8s.io/v1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_date_is_a_date() {
        let retired = [INGRESS_NGINX, PROMTAIL, CONTAINER_REGISTRY, BITNAMI, MINIO, STRIMZI_V1BETA2, ZOOKEEPER];
        let dates = ROWS.iter().map(|row| row.ended).chain(retired.iter().map(|retired| retired.ended));
        for date in dates {
            assert!(date.parse::<landfall_model::Date>().is_ok(), "{date}");
        }
    }

    #[test]
    fn the_rows_of_a_product_are_sorted_by_version_and_by_date() {
        for pair in ROWS.windows(2).filter(|pair| pair[0].product == pair[1].product) {
            assert!(pair[0].below < pair[1].below && pair[0].ended < pair[1].ended, "{}", pair[1].ended);
        }
    }
}
