//! Monitoring: what is scraped, what raises an alert, who is told.

use std::collections::BTreeSet;

use landfall_render::Rendered;
use serde_json::{Value, json};

use crate::architecture::{find, messages, names, part, render};

const HEADER: &str = "objectives: { availability: 99.9%, p99: 300ms }\nobservability: { metrics: { stack: prometheus, interval: 15s } }\n";

/// The alerts of a rule object: name, severity and expression.
fn raised(text: &str, object: &str) -> Vec<(String, String, String)> {
    let groups = part(text, &format!("PrometheusRule/{object}"), "/spec/groups");
    let rules = groups.as_array().into_iter().flatten().filter_map(|group| group["rules"].as_array()).flatten();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rules
        .filter(|rule| rule.get("alert").is_some())
        .map(|rule| (word(&rule["alert"]), word(&rule["labels"]["severity"]), word(&rule["expr"])))
        .collect()
}

#[test]
fn nothing_is_watched_unless_metrics_are_declared() {
    let rendered = render("services: { web: { port: 80 } }\nstores: { db: { engine: postgres } }");
    assert_eq!(names(&rendered, &["ServiceMonitor", "PodMonitor", "PrometheusRule", "AlertmanagerConfig"]), [""; 0]);
}

#[test]
fn services_are_scraped_on_the_port_that_they_name() {
    let text = format!(
        "{HEADER}services:
  web: {{ ports: {{ http: 80, admin: 9000 }}, metrics: {{ port: admin, path: /stats }} }}
  silent: {{ port: 80, metrics: {{ scrape: false }} }}
  nightly: {{ kind: scheduled-job, schedule: '0 2 * * *' }}"
    );
    assert_eq!(names(&render(&text), &["ServiceMonitor"]), ["ServiceMonitor/web"]);
    let endpoint = part(&text, "ServiceMonitor/web", "/spec/endpoints/0");
    assert_eq!(endpoint, json!({ "port": "admin", "path": "/stats", "interval": "15s" }));
    let ports = part(&text, "Service/web", "/spec/ports");
    assert!(ports.as_array().into_iter().flatten().any(|port| port["name"] == "admin"), "{ports}");
}

#[test]
fn an_availability_objective_watches_how_fast_its_budget_burns() {
    let text = format!("{HEADER}services: {{ web: {{ port: 80 }} }}");
    let which = "{namespace=\"shop\",service=\"web\"}";
    let ratio = |window: &str| format!("service:http_request_errors:ratio_rate{window}{which}");
    let burns: Vec<_> =
        raised(&text, "web").into_iter().filter(|(name, _, _)| name.starts_with("ErrorBudgetBurns")).collect();
    let expected: Vec<_> = [
        ("1h", "5m", "14.4", "critical"),
        ("6h", "30m", "6", "critical"),
        ("1d", "2h", "3", "warning"),
        ("3d", "6h", "1", "warning"),
    ]
    .into_iter()
    .map(|(long, short, factor, severity)| {
        let limit = format!("({factor} * 0.001)");
        let expression = format!("{} > {limit} and {} > {limit}", ratio(long), ratio(short));
        (format!("ErrorBudgetBurns{long}"), severity.to_owned(), expression)
    })
    .collect();
    assert_eq!(burns, expected);
}

#[test]
fn every_ratio_that_an_alert_asks_for_is_recorded() {
    let text = format!("{HEADER}services: {{ web: {{ port: 80 }} }}");
    let recorded: Vec<String> = part(&text, "PrometheusRule/web", "/spec/groups/0/rules")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["record"].as_str().map(str::to_owned))
        .collect();
    for (alert, _, expression) in raised(&text, "web") {
        for word in expression.split_whitespace().filter(|word| word.starts_with("service:")) {
            let series = word.split('{').next().unwrap_or_default();
            assert!(recorded.iter().any(|known| known == series), "{alert} asks for {series}: {recorded:?}");
        }
    }
}

#[test]
fn the_objective_of_a_service_goes_before_that_of_the_platform() {
    let text = format!("{HEADER}services: {{ web: {{ port: 80, objective: {{ availability: 99.5%, p99: 1s }} }} }}");
    let raised = raised(&text, "web");
    let burning = raised.iter().filter(|(name, _, _)| name.starts_with("ErrorBudgetBurns"));
    burning.for_each(|(_, _, expression)| assert!(expression.contains("* 0.005)"), "{expression}"));
    let slow = raised.iter().find(|(name, _, _)| name == "RequestsSlow").map(|(_, _, expression)| expression.as_str());
    assert!(slow.is_some_and(|expression| expression.ends_with("> 1")), "{slow:?}");
}

#[test]
fn a_perfect_objective_has_no_budget_to_burn() {
    let text =
        "objectives: { availability: 100% }\nobservability: { metrics: prometheus }\nservices: { web: { port: 80 } }";
    assert!(raised(text, "web").iter().all(|(name, _, _)| !name.starts_with("ErrorBudgetBurns")));
}

#[test]
fn stores_are_watched_by_the_names_of_their_pods() {
    let text = format!(
        "{HEADER}stores:
  ledger: {{ engine: postgres, members: 3, backup: {{ full: 24h, log: 5m, to: archive }} }}
  archive: {{ engine: s3, provider: aws }}"
    );
    let names: Vec<String> = raised(&text, "ledger").into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(
        names,
        [
            "StoreDown",
            "StoreMemberMissing",
            "StoreVolumeFull",
            "StoreVolumeFillsUp",
            "ReplicaLag",
            "BackupMissing",
            "LogShippingLate",
        ]
    );
    assert_eq!(part(&text, "PodMonitor/ledger", "/spec/podMetricsEndpoints/0/portNumber"), 9187);
}

const ALERTS: &str = "observability:
  metrics: prometheus
  alerts:
    receivers:
      on-call: { by: pager, to: alerting/pager-key }
      channel: { by: slack, to: alerting/slack-url }
      hook: { by: webhook, to: 'https://example.com/hook' }
      mail: { by: email, to: team@example.com }
    routes:
      critical: { to: on-call, escalate: [{ after: 15m, to: mail }] }
      warning: { to: channel }
      info: { to: hook }
";

#[test]
fn alerts_go_to_the_receiver_of_their_severity() {
    let rendered = render(ALERTS);
    let spec = &find(&rendered, "AlertmanagerConfig/shop")["spec"];
    let routes: Vec<(&Value, &Value, &Value)> = spec["route"]["routes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|route| (&route["matchers"][0]["value"], &route["matchers"][1]["value"], &route["receiver"]))
        .collect();
    assert_eq!(
        routes,
        [
            (&json!("critical"), &json!("1"), &json!("mail")),
            (&json!("critical"), &Value::Null, &json!("on-call")),
            (&json!("warning"), &Value::Null, &json!("channel")),
            (&json!("info"), &Value::Null, &json!("hook"))
        ]
    );
    let receiver = |name: &str| {
        let receivers = spec["receivers"].as_array().cloned().unwrap_or_default();
        receivers.into_iter().find(|receiver| receiver["name"] == name).unwrap_or_default()
    };
    assert_eq!(receiver("channel")["slackConfigs"][0]["apiURL"], json!({ "name": "alerting", "key": "slack-url" }));
    assert_eq!(
        receiver("on-call")["pagerdutyConfigs"][0]["routingKey"],
        json!({ "name": "alerting", "key": "pager-key" })
    );
    assert_eq!(receiver("hook")["webhookConfigs"][0]["url"], "https://example.com/hook");
}

#[test]
fn an_alert_that_goes_on_keeps_its_name_and_stays_among_the_namespaces_of_the_platform() {
    let text = format!("objectives: {{ availability: 99.9% }}\n{ALERTS}services: {{ web: {{ port: 80 }} }}\n");
    assert_eq!(messages(&render(&text)), [""; 0]);
    let rules = raised(&text, "escalation");
    let names: Vec<&str> = rules.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(names, ["ErrorBudgetBurns1h", "ErrorBudgetBurns6h", "ServiceDown"]);
    assert_eq!(
        rules[2].2,
        "ALERTS{alertname=\"ServiceDown\",alertstate=\"firing\",severity=\"critical\",namespace=~\"shop\",escalation=\"\"}"
    );
}

#[test]
fn a_channel_whose_address_is_no_secret_is_found() {
    let text = ALERTS
        .replace("alerting/slack-url", "https://hooks.example.com/services/1")
        .replace(", escalate: [{ after: 15m, to: mail }]", "");
    assert_eq!(messages(&render(&text)), ["the receiver `channel` names no secret"]);
}

#[test]
fn what_alerts_are_sent_with_comes_from_the_secret_back_end() {
    let text = format!("{ALERTS}security: {{ secrets: {{ backend: vault, address: 'https://vault.example.com' }} }}\n");
    let data = find(&render(&text), "ExternalSecret/alerting")["spec"]["data"].clone();
    let keys: Vec<&Value> = data.as_array().into_iter().flatten().map(|entry| &entry["secretKey"]).collect();
    assert_eq!(keys, ["pager-key", "slack-url"]);
}

/// The namespace and the name of every object of these kinds, sorted by path.
fn places<'a>(rendered: &'a Rendered, kinds: &[&str]) -> Vec<(&'a str, &'a str)> {
    let objects = rendered.objects.iter().filter(|object| kinds.contains(&object.kind()));
    objects.map(|object| (object.namespace().unwrap_or_default(), object.name())).collect()
}

#[test]
fn whoever_is_told_is_told_of_alerts_from_every_namespace() {
    let text =
        ALERTS.replace("      info: { to: hook }\n", "").replace("critical: { to: on-call", "critical: { to: mail");
    let text = format!(
        "{text}security: {{ secrets: {{ backend: vault, address: 'https://vault.example.com' }} }}
services:
  web: {{ port: 80 }}
  mock: {{ port: 80, namespace: mocks }}
  silent: {{ port: 80, namespace: silence, metrics: {{ scrape: false }} }}
stores:
  db: {{ engine: postgres, namespace: data }}
"
    );
    let rendered = render(&text);
    assert_eq!(messages(&rendered), [""; 0]);
    let namespaces = ["data", "mocks", "shop"];
    let rules = places(&rendered, &["PrometheusRule"]);
    assert_eq!(rules.into_iter().map(|(namespace, _)| namespace).collect::<BTreeSet<_>>(), BTreeSet::from(namespaces));
    let configurations = places(&rendered, &["AlertmanagerConfig"]);
    assert_eq!(configurations, namespaces.map(|namespace| (namespace, "shop")));
    let specs: Vec<&Value> = rendered
        .objects
        .iter()
        .filter(|object| object.kind() == "AlertmanagerConfig")
        .map(|object| &object.value["spec"])
        .collect();
    assert!(specs.iter().all(|spec| *spec == specs[0]), "{specs:#?}");

    let keys: Vec<(&str, Vec<&str>)> = rendered
        .objects
        .iter()
        .filter(|object| object.kind() == "ExternalSecret" && object.name() == "alerting")
        .map(|object| {
            let data = object.value["spec"]["data"].as_array().into_iter().flatten();
            let keys = data.filter_map(|entry| entry["secretKey"].as_str());
            (object.namespace().unwrap_or_default(), keys.collect())
        })
        .collect();
    // No route leads to the pager.
    let expected =
        [("data", vec!["slack-url"]), ("mocks", vec!["slack-url"]), ("shop", vec!["pager-key", "slack-url"])];
    assert_eq!(keys, expected);
    assert_eq!(
        places(&rendered, &["SecretStore"]).into_iter().map(|(namespace, _)| namespace).collect::<Vec<_>>(),
        namespaces
    );
}
