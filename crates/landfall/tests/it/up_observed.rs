//! What runs is seen where the file says: lines of logs in the store of logs, spans in that of traces.

use std::collections::BTreeSet;
use std::process::Command;

use landfall_standin::Server;
use landfall_testing::{Tool, require_or_skip, use_or_skip};
use serde_json::{Value, json};

use crate::platform::Platform;
use crate::up::{are_here, ask, list, room, up};
use crate::{Folder, example};

/// Two services, one of which calls the other.
fn shop(observability: &str) -> String {
    format!(
        "landfall: v1
name: shop
observability: {{ {observability} }}
services:
  web:
    port: 8080
    replicas: 2
    expose: {{ host: shop.example, tls: letsencrypt, rate-limit: 100/s }}
    probes: {{ ready: {{ http: /ready, period: 1s }} }}
    uses: [{{ call: stock }}, {{ send: carrier }}]
  stock:
    port: 8080
    probes: {{ ready: {{ http: /ready, period: 1s }} }}
externals:
  carrier: {{ profile: {{ latency: 5ms }} }}
flows:
  order: {{ rate: 20/s, within: 10s, steps: [client -> web, web -> stock, web -> carrier] }}
claims:
  - {{ id: A1, says: All logs are in one place, shown-by: [up: logs] }}
  - {{ id: A2, says: A line is JSON, shown-by: [up: logs json] }}
  - {{ id: A3, says: A request can be followed, shown-by: [up: traces order] }}
  - {{ id: A4, says: What depends on what can be seen, shown-by: [up: graph] }}
  - {{ id: A5, says: Prometheus gets to every service, shown-by: [up: metrics] }}
  - {{ id: A6, says: Orders are counted, shown-by: [up: metrics business] }}
  - {{ id: A7, says: The way in is by TLS and limited, shown-by: [up: route web] }}
"
    )
}

/// Whom to tell, and a rule whose alert is always raised.
const TOLD: &str = "alerts: { receivers: { hook: { by: webhook, to: 'https://pager.example/hook' }, mail: { by: email, to: team@shop.example } }, \
     routes: { critical: { to: hook, escalate: [{ after: 15m, to: mail }] }, warning: { to: mail } } }";

const ALWAYS: &str = "
objects:
  - apiVersion: monitoring.coreos.com/v1
    kind: PrometheusRule
    metadata: { name: always, namespace: shop }
    spec:
      groups:
        - name: always
          rules: [{ alert: Always, expr: vector(1), labels: { severity: warning, namespace: shop } }]
";

/// Of each service, whether its word was found, and how many of its lines are no JSON.
fn found(report: &Value) -> Vec<(Option<&str>, &Value, &Value)> {
    list(&report["logs"]["services"]).map(|one| (one["service"].as_str(), &one["found"], &one["not_json"])).collect()
}

#[test]
fn metrics_logs_and_traces_of_each_service_are_in_their_stores() {
    let Some(()) = are_here(&[Server::Prometheus, Server::Alertmanager]) else { return };
    let _room = room();
    let business = "metrics: prometheus, business: { orders: { from: web, kind: counter } }";
    let folder = Folder::with(&(shop(&format!("{business}, {TOLD}, logs: elasticsearch, traces: jaeger")) + ALWAYS));
    let mut platform = Platform::start(folder.path(), "shop", None, &["--duration", "2s"]);
    let report = platform.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    let (yes, none) = (json!(true), json!(0));
    assert_eq!(found(&report), [(Some("stock"), &yes, &none), (Some("web"), &yes, &none)], "{report:#}");
    assert_eq!((&report["logs"]["store"], &report["logs"]["by"]), (&json!("elasticsearch"), &json!("stand-in")));

    let traces = &report["traces"];
    let flow = json!(["stock", "web"]);
    assert_eq!((&traces["flows"][0]["services"], &traces["flows"][0]["missing"]), (&flow, &json!([])), "{traces:#}");
    let call = |call: &Value| (call["from"].as_str() == Some("web"), call["to"].clone(), call["declared"].clone());
    let calls: Vec<_> = list(&traces["calls"]).map(call).collect();
    assert_eq!(calls, [(true, json!("stock"), json!(true))], "{traces:#}");
    let edges: BTreeSet<_> = list(&traces["edges"]).filter_map(|edge| edge["edge"].as_str()).collect();
    assert_eq!(edges, BTreeSet::from(["web call stock", "web send carrier"]), "{traces:#}");
    // The external takes 5 ms for every answer.
    let sends = list(&traces["edges"]).find(|edge| edge["edge"] == "web send carrier").expect("it was just there");
    assert!(sends["p50_ms"].as_f64() >= Some(5.0), "{sends:#}");

    let copies =
        |field: &str| list(&report["metrics"]["targets"]).filter_map(|target| target[field].as_u64()).sum::<u64>();
    assert_eq!((copies("copies"), copies("scraped")), (3, 3), "{report:#}");
    assert_eq!(report["metrics"]["business"][0]["found"], json!(true), "{report:#}");
    let alerts = &report["alerts"];
    let led: Vec<_> = list(&alerts["routes"])
        .map(|route| (route["severity"].as_str(), route["step"].as_u64(), &route["to"], &route["arrived"]))
        .collect();
    let (hook, mail) = (json!("shop/shop/hook"), json!("shop/shop/mail"));
    let (to_hook, to_mail) = (json!([hook]), json!([mail]));
    let expected = [
        (Some("critical"), None, &hook, &to_hook),
        (Some("critical"), Some(1), &mail, &to_mail),
        (Some("warning"), None, &mail, &to_mail),
    ];
    assert_eq!(led, expected, "{alerts:#}");
    let raised = list(&alerts["raised"]).find(|raised| raised["alert"] == "Always").expect("it is always raised");
    let became = (&raised["taken"], &raised["to"], &raised["missing"]);
    assert_eq!(became, (&json!(true), &to_mail, &json!([])), "{alerts:#}");

    let route = &report["routes"][0];
    assert_eq!((&route["answer"], &route["limit"]["declared"]), (&json!(200), &json!("100/s")), "{route:#}");
    assert!(route["limit"]["refused_after"].as_u64() >= Some(90), "{route:#}");

    // What the file claims is held against this report.
    let (code, claims) = ask(&platform, &["claims"]);
    let held: Vec<_> = list(&claims["claims"]).map(|claim| claim["measured_here"][0]["held"].clone()).collect();
    assert_eq!((code, held), (Some(0), vec![json!(true); 7]), "{claims:#}");
}

/// Its route leads to a receiver that there is not, as only Alertmanager sees.
const ASTRAY: &str = "
objects:
  - apiVersion: monitoring.coreos.com/v1alpha1
    kind: AlertmanagerConfig
    metadata: { name: odd, namespace: shop }
    spec: { route: { receiver: somebody }, receivers: [{ name: nobody }] }
";

#[test]
fn a_configuration_that_alertmanager_refuses_breaks_a_promise() {
    let Some(()) = are_here(&[Server::Prometheus, Server::Alertmanager]) else { return };
    let _room = room();
    let folder = Folder::with(&(shop(&format!("metrics: prometheus, {TOLD}")) + ASTRAY));
    let ended = up(folder.path(), &["--once", "--duration", "1s", "--timeout", "10m", "--output", "json"]);
    let report = ended.report.unwrap_or_else(|| panic!("no report:\n{}", ended.said));
    let refused = "undefined receiver \"shop/odd/somebody\" used in route";
    assert_eq!(report["alerts"]["refused"], refused, "{report:#}");
    let broken = format!("Alertmanager does not take the rendered configuration: {refused}");
    assert!(list(&report["broken"]).any(|line| *line == broken), "{report:#}");
    assert_eq!(ended.code, Some(1), "{}", ended.said);
}

#[test]
fn loki_and_tempo_are_played_too() {
    let _room = room();
    let folder = Folder::with(&shop("logs: { stack: loki, format: text }, traces: tempo"));
    let ended = up(folder.path(), &["--once", "--duration", "1s", "--timeout", "10m", "--output", "json"]);
    let report = ended.report.unwrap_or_else(|| panic!("no report:\n{}", ended.said));
    assert_eq!(report["broken"], json!([]), "{report:#}");
    let (yes, untold) = (json!(true), Value::Null);
    assert_eq!(found(&report), [(Some("stock"), &yes, &untold), (Some("web"), &yes, &untold)], "{report:#}");
    assert_eq!((&report["logs"]["store"], &report["traces"]["store"]), (&json!("loki"), &json!("tempo")));
    assert_eq!(report["traces"]["flows"][0]["missing"], json!([]), "{report:#}");
}

/// The sink and the real collector in a network of their own, as their ports are fixed. The collector gets a span by HTTP and
/// hands it on by gRPC; then what Jaeger would answer is printed.
const COLLECT: &str = r#"
ip link set lo up
"$SINK" __standin sink >&2 &
"$COLLECTOR" --config="file:$CONFIGURATION" >&2 &
trap 'kill $(jobs -p); wait' EXIT
trace=0af7651916cd43dd8448eb211c80319c
span="{\"traceId\":\"$trace\",\"spanId\":\"b7ad6b7169203331\",\"name\":\"GET /\",\"kind\":2,\"startTimeUnixNano\":\"1700000000000000000\",\"endTimeUnixNano\":\"1700000000005000000\"}"
for _ in $(seq 600); do
    curl --silent --header 'content-type: application/json' 127.0.0.1:14318/v1/traces \
        --data "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[$span]}]}]}" >&2 && break
    sleep 0.1
done
for _ in $(seq 600); do
    curl --silent --fail 127.0.0.1:16686/api/traces/$trace && break
    sleep 0.1
done
"#;

#[test]
fn the_real_collector_hands_spans_on_as_it_is_configured() {
    let Some(collector) = use_or_skip("otelcol", Tool::Collector.locate()) else { return };
    let unshare = Command::new("unshare").args(["-rn", "true"]).output().map_err(|error| error.to_string());
    let unshare = unshare.and_then(|output| output.status.success().then_some(()).ok_or("it may not".to_owned()));
    let Some(()) = require_or_skip("unshare", unshare) else { return };
    let rendered = std::fs::read_to_string(example("mindcompute").join("monitoring/opentelemetry/collector.yaml"));
    // What is rendered, with the addresses of this test, and without leaving traces out.
    let configuration = [
        ("0.0.0.0:4317", "127.0.0.1:14317"),
        ("0.0.0.0:4318", "127.0.0.1:14318"),
        ("jaeger.monitoring.svc:4317", "127.0.0.1:4317"),
        ("sampling_percentage: 10.0", "sampling_percentage: 100"),
    ]
    .iter()
    .fold(rendered.expect("the example is there"), |text, (rendered, here)| {
        assert!(text.contains(rendered), "{rendered} is in {text}");
        text.replace(rendered, here)
    });
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(file.path(), configuration).expect("it can be written");
    let output = Command::new("unshare")
        .args(["-rn", "bash", "-c", COLLECT])
        .env("SINK", env!("CARGO_BIN_EXE_landfall"))
        .env("COLLECTOR", collector)
        .env("CONFIGURATION", file.path())
        .output()
        .expect("bash can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no trace:\n{said}"));
    let span = &answer["data"][0]["spans"][0];
    assert_eq!((&span["operationName"], &span["duration"]), (&json!("GET /"), &json!(5000)), "{answer:#}");
}
