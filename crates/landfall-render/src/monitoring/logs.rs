//! Logs: what ships them, and how long they are kept.

use landfall_model::{Finding, LogFormat, LogShipper, LogSoftware, Logs};
use serde_json::Value;

use super::Stack;
use crate::json::json;
use crate::object::compact;

/// Where the log store is: the name of its Service in the namespace of the monitoring stack.
fn address(stack: &Stack<'_>, service: &str) -> String {
    format!("{service}.{}.svc", stack.namespace())
}

pub(super) fn write(stack: &mut Stack<'_>) {
    let Some(logs) = &stack.architecture.document.observability.logs else { return };
    match logs.shipper.value {
        LogShipper::FluentBit => {
            let configuration = fluent_bit(stack, logs);
            stack.yaml("fluent-bit/fluent-bit.yaml", "From observability.logs.", &configuration);
        }
        LogShipper::Fluentd => stack.text("fluentd/fluent.conf", fluentd(stack, logs)),
        LogShipper::Logstash if logs.stack.value == LogSoftware::Elasticsearch => {
            stack.text("logstash/pipeline.conf", logstash(stack, logs));
        }
        LogShipper::Alloy if logs.stack.value == LogSoftware::Loki => {
            stack.text("alloy/config.alloy", alloy(stack, logs));
        }
        LogShipper::Promtail => {
            stack.rendered.findings.push(
                Finding::warning(
                    "not-rendered",
                    logs.shipper.span,
                    "Promtail is not rendered: it has reached its end of life",
                )
                .because("the configuration of Grafana Alloy, which takes its place, is rendered instead")
                .help("write `shipper: alloy`"),
            );
            stack.text("alloy/config.alloy", alloy(stack, logs));
        }
        LogShipper::Alloy | LogShipper::Logstash => {
            stack.rendered.findings.push(
                Finding::warning("not-rendered", logs.shipper.span, "this shipper has no output for this log store")
                    .because("Fluent Bit, which has both, is rendered instead")
                    .help("write `shipper: fluent-bit`, `alloy` with `loki`, or `logstash` with `elasticsearch`"),
            );
            let configuration = fluent_bit(stack, logs);
            stack.yaml("fluent-bit/fluent-bit.yaml", "From observability.logs.", &configuration);
        }
    }
    match logs.stack.value {
        LogSoftware::Elasticsearch => elasticsearch(stack, logs),
        LogSoftware::Loki => {
            let configuration = loki(logs);
            stack.yaml("loki/loki.yaml", "From observability.logs.", &configuration);
        }
    }
}

/// Every namespace that something of the platform stands in, as `a` or `a|b`.
fn namespaces(stack: &Stack<'_>, separator: &str) -> String {
    let document = &stack.architecture.document;
    let own = document.services.values().filter_map(|service| service.namespace.as_ref());
    let of_stores = document.stores.values().filter_map(|store| store.namespace.as_ref());
    let mut all: Vec<&str> = own.chain(of_stores).map(|name| name.as_str()).collect();
    all.push(stack.architecture.namespace().as_str());
    all.sort_unstable();
    all.dedup();
    all.join(separator)
}

/// Reads what the kubelet writes, adds what Kubernetes knows of the pod, and sends it on. What cannot be sent stays on
/// disk.
fn fluent_bit(stack: &Stack<'_>, logs: &Logs) -> Value {
    let json_lines = logs.format.value == LogFormat::Json;
    let paths: Vec<String> =
        namespaces(stack, "|").split('|').map(|name| format!("/var/log/containers/*_{name}_*.log")).collect();
    let output = match logs.stack.value {
        LogSoftware::Elasticsearch => json!({
            "name": "es",
            "match": "kube.*",
            "host": address(stack, "elasticsearch"),
            "port": 9200,
            "index": data_stream(stack),
            // A data stream takes new documents only.
            "write_operation": "create",
            "suppress_type_name": "on",
            "time_key": "@timestamp",
            "http_user": "${ELASTICSEARCH_USER}",
            "http_passwd": "${ELASTICSEARCH_PASSWORD}",
            "tls": "on",
            "tls.ca_file": format!("{}/elasticsearch-es-http-certs-public/ca.crt", super::prometheus::SECRETS),
            "storage.total_limit_size": "1G",
            "retry_limit": "no_limits",
        }),
        LogSoftware::Loki => json!({
            "name": "loki",
            "match": "kube.*",
            "host": address(stack, "loki"),
            "port": 3100,
            "labels": "job=fluent-bit",
            "label_keys": "$kubernetes['namespace_name'],$kubernetes['container_name']",
            "line_format": "json",
            "storage.total_limit_size": "1G",
            "retry_limit": "no_limits",
        }),
    };
    compact(json!({
        "service": {
            "flush": 1,
            "log_level": "info",
            "http_server": "on",
            "http_port": 2020,
            "storage.path": "/var/lib/fluent-bit/storage",
        },
        "pipeline": {
            "inputs": [{
                "name": "tail",
                "tag": "kube.*",
                "path": paths.join(","),
                "multiline.parser": "cri",
                "db": "/var/lib/fluent-bit/tail.db",
                "storage.type": "filesystem",
                "skip_long_lines": "on",
            }],
            "filters": [{
                "name": "kubernetes",
                "match": "kube.*",
                "merge_log": if json_lines { "on" } else { "off" },
                "keep_log": if json_lines { "off" } else { "on" },
                "labels": "on",
                "annotations": "off",
            }],
            "outputs": [output],
        },
    }))
}

fn fluentd(stack: &Stack<'_>, logs: &Logs) -> String {
    let paths: Vec<String> =
        namespaces(stack, "|").split('|').map(|name| format!("/var/log/containers/*_{name}_*.log")).collect();
    let parse = match logs.format.value {
        LogFormat::Json => {
            "\n<filter kubernetes.**>\n  @type parser\n  key_name log\n  reserve_data true\n  remove_key_name_field true\n  # A line that is no JSON is kept as it is.\n  emit_invalid_record_to_error false\n  <parse>\n    @type json\n  </parse>\n</filter>\n"
        }
        LogFormat::Text => "",
    };
    let output = match logs.stack.value {
        LogSoftware::Elasticsearch => format!(
            "  @type elasticsearch_data_stream\n  host {}\n  port 9200\n  scheme https\n  ca_file {}/elasticsearch-es-http-certs-public/ca.crt\n  user \"#{{ENV['ELASTICSEARCH_USER']}}\"\n  password \"#{{ENV['ELASTICSEARCH_PASSWORD']}}\"\n  data_stream_name {}\n",
            address(stack, "elasticsearch"),
            super::prometheus::SECRETS,
            data_stream(stack)
        ),
        LogSoftware::Loki => format!(
            "  @type loki\n  url http://{}:3100\n  extra_labels {{\"job\":\"fluentd\"}}\n",
            address(stack, "loki")
        ),
    };
    format!(
        "# From observability.logs.\n<source>\n  @type tail\n  path {}\n  pos_file /var/lib/fluentd/containers.pos\n  tag kubernetes.*\n  read_from_head true\n  <parse>\n    @type cri\n  </parse>\n</source>\n\n<filter kubernetes.**>\n  @type kubernetes_metadata\n</filter>\n{parse}\n<match kubernetes.**>\n{output}  <buffer>\n    @type file\n    path /var/lib/fluentd/buffer\n    flush_interval 1s\n    retry_forever true\n    total_limit_size 1g\n  </buffer>\n</match>\n",
        paths.join(",")
    )
}

fn logstash(stack: &Stack<'_>, logs: &Logs) -> String {
    let paths: Vec<String> =
        namespaces(stack, "|").split('|').map(|name| format!("\"/var/log/containers/*_{name}_*.log\"")).collect();
    let stream = data_stream(stack);
    let mut parts = stream.splitn(3, '-');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let (kind, dataset, namespace) = (part(), part(), part());
    let parse = match logs.format.value {
        LogFormat::Json => "  json { source => \"message\" skip_on_invalid_json => true }\n",
        LogFormat::Text => "",
    };
    format!(
        "# From observability.logs. The container runtime writes `TIME STREAM FLAG MESSAGE`, and the name of a file is\n# `POD_NAMESPACE_CONTAINER-ID.log`.\ninput {{\n  file {{\n    path => [{}]\n    sincedb_path => \"/var/lib/logstash/containers.sincedb\"\n    start_position => \"beginning\"\n  }}\n}}\n\nfilter {{\n  grok {{\n    match => {{\n      \"[log][file][path]\" => \"/%{{DATA:[kubernetes][pod_name]}}_%{{DATA:[kubernetes][namespace_name]}}_%{{DATA:[kubernetes][container_name]}}-[0-9a-f]+\\.log$\"\n    }}\n  }}\n  grok {{\n    match => {{ \"message\" => \"^%{{TIMESTAMP_ISO8601:time}} %{{WORD:stream}} [FP] %{{GREEDYDATA:message}}\" }}\n    overwrite => [\"message\"]\n  }}\n  date {{ match => [\"time\", \"ISO8601\"] remove_field => [\"time\"] }}\n{parse}}}\n\noutput {{\n  elasticsearch {{\n    hosts => [\"https://{}:9200\"]\n    user => \"${{ELASTICSEARCH_USER}}\"\n    password => \"${{ELASTICSEARCH_PASSWORD}}\"\n    ssl_certificate_authorities => [\"{}/elasticsearch-es-http-certs-public/ca.crt\"]\n    data_stream => true\n    data_stream_type => \"{kind}\"\n    data_stream_dataset => \"{dataset}\"\n    data_stream_namespace => \"{namespace}\"\n  }}\n}}\n",
        paths.join(", "),
        address(stack, "elasticsearch"),
        super::prometheus::SECRETS
    )
}

fn alloy(stack: &Stack<'_>, logs: &Logs) -> String {
    let names: Vec<String> = namespaces(stack, "|").split('|').map(|name| format!("\"{name}\"")).collect();
    let parse = match logs.format.value {
        LogFormat::Json => {
            "\n  // The level is worth a label; everything else of the line stays in the line.\n  stage.json {\n    expressions = { level = \"level\" }\n  }\n\n  stage.labels {\n    values = { level = \"\" }\n  }\n"
        }
        LogFormat::Text => "",
    };
    format!(
        "// From observability.logs.\ndiscovery.kubernetes \"pods\" {{\n  role = \"pod\"\n\n  namespaces {{\n    names = [{}]\n  }}\n}}\n\ndiscovery.relabel \"pods\" {{\n  targets = discovery.kubernetes.pods.targets\n\n  rule {{\n    source_labels = [\"__meta_kubernetes_namespace\"]\n    target_label  = \"namespace\"\n  }}\n\n  rule {{\n    source_labels = [\"__meta_kubernetes_pod_name\"]\n    target_label  = \"pod\"\n  }}\n\n  rule {{\n    source_labels = [\"__meta_kubernetes_pod_container_name\"]\n    target_label  = \"container\"\n  }}\n\n  rule {{\n    source_labels = [\"__meta_kubernetes_pod_label_app_kubernetes_io_name\"]\n    target_label  = \"service\"\n  }}\n}}\n\nloki.source.kubernetes \"pods\" {{\n  targets    = discovery.relabel.pods.output\n  forward_to = [loki.process.pods.receiver]\n}}\n\nloki.process \"pods\" {{\n  forward_to = [loki.write.loki.receiver]\n{parse}}}\n\nloki.write \"loki\" {{\n  endpoint {{\n    url = \"http://{}:3100/loki/api/v1/push\"\n  }}\n}}\n",
        names.join(", "),
        address(stack, "loki")
    )
}

/// `logs-NAME-ENVIRONMENT`, by Elastic's scheme for names of data streams.
fn data_stream(stack: &Stack<'_>) -> String {
    let environment = stack.architecture.environment.as_ref().map_or("default", |name| name.as_str());
    // A hyphen would end a part of the name.
    let plain = |name: &str| name.replace('-', "_");
    format!("logs-{}-{}", plain(stack.architecture.document.name.as_str()), plain(environment))
}

/// A new index each day, which is deleted when all of it is older than the declared time: the age of an index counts from
/// its last line, so that no line goes early and none stays for more than a day longer.
fn elasticsearch(stack: &mut Stack<'_>, logs: &Logs) {
    let name = data_stream(stack);
    let policy = json!({
        "policy": {
            "phases": {
                "hot": { "actions": { "rollover": { "max_age": "1d", "max_primary_shard_size": "50gb" } } },
                "delete": { "min_age": format!("{}s", logs.retention.seconds()), "actions": { "delete": {} } },
            },
        },
    });
    let template = json!({
        "index_patterns": [&name],
        "data_stream": {},
        "priority": 200,
        "template": {
            "settings": { "index.lifecycle.name": name },
            "mappings": {
                "properties": {
                    "@timestamp": { "type": "date" },
                    "level": { "type": "keyword" },
                    "trace_id": { "type": "keyword" },
                    "kubernetes": {
                        "properties": {
                            "namespace_name": { "type": "keyword" },
                            "pod_name": { "type": "keyword" },
                            "container_name": { "type": "keyword" },
                            // `app` is a text and `app.kubernetes.io/name` would make it an object: a pod with both would be
                            // refused.
                            "labels": { "type": "flattened" },
                        },
                    },
                },
            },
        },
    });
    stack.json("elasticsearch/lifecycle-policy.json", &policy);
    stack.json("elasticsearch/index-template.json", &template);
}

/// One process with its files on a volume. The compactor deletes what is older than the declared time.
fn loki(logs: &Logs) -> Value {
    json!({
        "auth_enabled": false,
        "server": { "http_listen_port": 3100 },
        "common": {
            "path_prefix": "/var/loki",
            "replication_factor": 1,
            "ring": { "kvstore": { "store": "inmemory" } },
            "storage": {
                "filesystem": { "chunks_directory": "/var/loki/chunks", "rules_directory": "/var/loki/rules" },
            },
        },
        "schema_config": {
            "configs": [{
                "from": "2024-04-01",
                "store": "tsdb",
                "object_store": "filesystem",
                "schema": "v13",
                "index": { "prefix": "index_", "period": "24h" },
            }],
        },
        "limits_config": { "retention_period": format!("{}s", logs.retention.seconds()) },
        "compactor": {
            "working_directory": "/var/loki/compactor",
            "retention_enabled": true,
            "delete_request_store": "filesystem",
        },
    })
}

/// How Grafana asks the log store.
pub(super) fn data_source(stack: LogSoftware) -> Value {
    match stack {
        LogSoftware::Loki => json!({
            "name": "Loki", "uid": "loki", "type": "loki", "access": "proxy", "url": "http://loki:3100",
        }),
        LogSoftware::Elasticsearch => json!({
            "name": "Elasticsearch", "uid": "elasticsearch", "type": "elasticsearch", "access": "proxy",
            "url": "https://elasticsearch:9200",
            "jsonData": { "index": "logs-*", "timeField": "@timestamp", "logLevelField": "level" },
        }),
    }
}
