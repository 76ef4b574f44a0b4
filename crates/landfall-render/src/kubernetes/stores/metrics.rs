//! How a store is watched: where it is scraped, and what is worth an alert.

use crate::json::json;
use landfall_model::{Architecture, Element, Engine, StoreProvider};

use super::access::Place;
use super::alert::Alert;
use super::backup::makes_backups;
use super::{Site, sites};
use crate::object::Object;

/// The monitors and alerts of every store in the cluster.
pub(in crate::kubernetes) fn monitoring(architecture: &Architecture) -> Vec<Object> {
    let watched = sites(architecture).filter(Site::is_watched);
    watched.flat_map(|site| site.monitor().into_iter().chain([site.rules()]).collect::<Vec<_>>()).collect()
}

/// The stores that alerts are rendered for.
pub(in crate::kubernetes) fn watched(architecture: &Architecture) -> impl Iterator<Item = Element> {
    sites(architecture).filter(Site::is_watched).map(|site| site.element())
}

impl Site<'_> {
    /// Its provider watches a managed one.
    fn is_watched(&self) -> bool {
        !self.store.provider.value.is_managed()
    }

    fn by_operator(&self) -> bool {
        self.store.provider.value == StoreProvider::Operator && !self.is_plain()
    }

    /// CloudNativePG and the RabbitMQ operator could make such objects themselves, but the first has deprecated that,
    /// and the second never did.
    fn monitor(&self) -> Option<Object> {
        let Place::Pods(pods) = &self.access.place else { return None };
        let port = pods.metrics_port?;
        let interval = self.architecture.document.observability.metrics.as_ref()?.interval.seconds().max(1);
        let encrypted = self.store.engine.value == Engine::Rabbitmq && self.by_operator() && self.access.tls;
        let tls = encrypted.then(|| {
            json!({
                "ca": { "secret": { "name": self.certificate_secret(), "key": "ca.crt" } },
                "serverName": format!("{}.{}.svc", self.name(), self.subject.namespace),
            })
        });
        let value = json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": self.subject.metadata(self.name()),
            "spec": {
                "selector": { "matchLabels": &pods.match_labels },
                "podMetricsEndpoints": [{
                    "portNumber": port,
                    "path": "/metrics",
                    "scheme": encrypted.then_some("https"),
                    "interval": format!("{interval}s"),
                    "tlsConfig": tls,
                }],
            },
        });
        Some(self.object("podmonitor", value))
    }

    /// The names of the members' pods, as a regular expression: metrics of the cluster know pods by name only.
    fn pods(&self) -> String {
        let name = self.name();
        if !self.by_operator() {
            return format!("{name}-[0-9]+");
        }
        match self.store.engine.value {
            Engine::Kafka => format!("{name}-{name}-[0-9]+"),
            Engine::Rabbitmq => format!("{name}-server-[0-9]+"),
            Engine::Mongodb => format!("{name}-rs0-[0-9]+"),
            Engine::Redis if self.store.shards.is_some() => format!("{name}-(leader|follower)-[0-9]+"),
            Engine::Elasticsearch => format!("{name}-es-default-[0-9]+"),
            Engine::Postgres | Engine::Redis | Engine::S3 | Engine::Mqtt => format!("{name}-[0-9]+"),
        }
    }

    /// The names of the members' volume claims.
    fn claims(&self) -> String {
        let (name, pods) = (self.name(), self.pods());
        if !self.by_operator() {
            return format!("data-{pods}");
        }
        match self.store.engine.value {
            Engine::Kafka => format!("data-{pods}"),
            Engine::Rabbitmq => format!("persistence-{pods}"),
            Engine::Mongodb => format!("mongod-data-{pods}"),
            Engine::Redis if self.store.shards.is_some() => format!("{name}-(leader|follower)-{pods}"),
            Engine::Redis => format!("{name}-{pods}"),
            Engine::Elasticsearch => format!("elasticsearch-data-{pods}"),
            Engine::Postgres | Engine::S3 | Engine::Mqtt => pods,
        }
    }

    fn rules(&self) -> Object {
        let mut rules = self.common_alerts();
        match self.store.engine.value {
            Engine::Postgres if self.by_operator() => rules.extend(self.postgres_alerts()),
            Engine::Rabbitmq => rules.push(self.rabbitmq_alert()),
            _ => {}
        }
        let rules: Vec<_> =
            rules.into_iter().map(|alert| alert.rule(self.subject.namespace, "store", self.name())).collect();
        let group = json!({ "name": format!("{}.store", self.name()), "rules": rules });
        let value = json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": self.subject.metadata(self.name()),
            "spec": { "groups": [group] },
        });
        self.object("prometheusrule", value)
    }

    fn common_alerts(&self) -> Vec<Alert> {
        let (namespace, name) = (self.subject.namespace, self.name());
        let ready = format!(
            "(sum(kube_pod_status_ready{{namespace=\"{namespace}\",pod=~\"{}\",condition=\"true\"}}) or vector(0))",
            self.pods()
        );
        let mut alerts = vec![Alert {
            name: "StoreDown",
            expression: format!("{ready} == 0"),
            lasting: "1m",
            severity: "critical",
            summary: format!("No member of {name} is ready."),
        }];
        if self.members() > 1 {
            alerts.push(Alert {
                name: "StoreMemberMissing",
                expression: format!("{ready} < {}", self.members()),
                lasting: "10m",
                severity: "warning",
                summary: format!("{name} has {{{{ $value }}}} of {} members.", self.members()),
            });
        }
        if self.is_persistent() {
            let volumes = format!("{{namespace=\"{namespace}\",persistentvolumeclaim=~\"{}\"}}", self.claims());
            let share =
                format!("kubelet_volume_stats_available_bytes{volumes} / kubelet_volume_stats_capacity_bytes{volumes}");
            alerts.push(Alert {
                name: "StoreVolumeFull",
                expression: format!("{share} < 0.05"),
                lasting: "5m",
                severity: "critical",
                summary: format!("A volume of {name} has less than 5 % left."),
            });
            alerts.push(Alert {
                name: "StoreVolumeFillsUp",
                expression: format!(
                    "{share} < 0.3 and predict_linear(kubelet_volume_stats_available_bytes{volumes}[6h], 4 * 86400) < 0"
                ),
                lasting: "1h",
                severity: "warning",
                summary: format!("A volume of {name} will be full within four days."),
            });
        }
        alerts
    }

    fn postgres_alerts(&self) -> Vec<Alert> {
        let (namespace, name) = (self.subject.namespace, self.name());
        let pods = format!("{{namespace=\"{namespace}\",pod=~\"{}\"}}", self.pods());
        let mut alerts = Vec::new();
        if self.members() > 1 {
            let lag = self.store.lag.as_secs_f64();
            alerts.push(Alert {
                name: "ReplicaLag",
                expression: format!("max(cnpg_pg_replication_lag{pods}) > {lag}"),
                lasting: "5m",
                severity: "warning",
                summary: format!("A replica of {name} is more than {} behind.", self.store.lag),
            });
        }
        let Some(backup) =
            self.store.backup.as_ref().filter(|_| makes_backups(self.store) && self.destination().is_some())
        else {
            return alerts;
        };
        // A day may be missed by minutes; a backup that is half a period late has failed.
        let oldest = backup.full.seconds() * 3 / 2;
        alerts.push(Alert {
            name: "BackupMissing",
            expression: format!(
                "time() - max(barman_cloud_cloudnative_pg_io_last_available_backup_timestamp{pods}) > {oldest}"
            ),
            lasting: "10m",
            severity: "critical",
            summary: format!("The last backup of {name} is older than it may be."),
        });
        if let Some(log) = &backup.log {
            alerts.push(Alert {
                name: "LogShippingLate",
                expression: format!(
                    "max(cnpg_pg_stat_archiver_seconds_since_last_archival{pods}) > {}",
                    log.seconds() * 2
                ),
                lasting: "5m",
                severity: "critical",
                summary: format!("{name} has not shipped its log for twice as long as it may."),
            });
        }
        alerts
    }

    fn rabbitmq_alert(&self) -> Alert {
        let pods = format!("{{namespace=\"{}\",pod=~\"{}\"}}", self.subject.namespace, self.pods());
        Alert {
            name: "PublishersBlocked",
            expression: format!(
                "max(rabbitmq_alarms_memory_used_watermark{pods}) == 1 or max(rabbitmq_alarms_free_disk_space_watermark{pods}) == 1"
            ),
            lasting: "1m",
            severity: "critical",
            summary: format!("{} takes no more messages: it is out of memory or disk.", self.name()),
        }
    }
}
