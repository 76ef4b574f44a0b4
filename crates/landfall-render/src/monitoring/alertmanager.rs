//! Alertmanager: who is told of what, and the test that they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use landfall_model::{Finding, Receiver, ReceiverMeans};
use serde_json::Value;

use super::Stack;
use super::prometheus::SECRETS;
use crate::json::json;
use crate::kubernetes::monitoring::{ESCALATION, NOBODY, STEP, routes, secret};
use crate::object::compact;

pub(super) fn write(stack: &mut Stack<'_>) {
    let Some(configuration) = configuration(stack) else { return };
    stack.yaml("alertmanager/alertmanager.yaml", "From observability.alerts.", &configuration);
    let tests = route_tests(stack);
    stack.text("alertmanager/routes.test", tests);
    let declared = &stack.architecture.document.observability.alerts.receivers;
    let mail = used(stack).into_iter().filter_map(|name| declared.get(name.as_str()));
    if let Some(receiver) = mail.into_iter().find(|receiver| receiver.by.value == ReceiverMeans::Email) {
        stack.rendered.findings.push(
            Finding::note("not-rendered", receiver.to.span, "the server that takes the mail is not declared")
                .because("`alertmanager.yaml` hands mail to `localhost:25`")
                .help("run a relay beside Alertmanager, or set `global.smtp_smarthost`"),
        );
    }
}

/// The names of the receivers that a route or an escalation leads to.
fn used(stack: &Stack<'_>) -> BTreeSet<String> {
    let lead = |route: &landfall_model::Route| -> Vec<String> {
        let next = route.escalate.iter().map(|step| step.to.as_str());
        [route.to.as_str()].into_iter().chain(next).map(str::to_owned).collect()
    };
    routes(stack.architecture).flat_map(|(_, route)| lead(route)).collect()
}

fn configuration(stack: &Stack<'_>) -> Option<Value> {
    routes(stack.architecture).next()?;
    let declared = &stack.architecture.document.observability.alerts.receivers;
    let mut branches = Vec::new();
    for (severity, route) in routes(stack.architecture) {
        let is = format!("severity=\"{severity}\"");
        for (place, step) in route.escalate.iter().enumerate() {
            branches.push(json!({
                "receiver": step.to.as_str(),
                "matchers": [&is, format!("{STEP}=\"{}\"", place + 1)],
                "repeat_interval": "1h",
            }));
        }
        branches.push(json!({
            "receiver": route.to.as_str(),
            "matchers": [&is, format!("{STEP}=\"\"")],
            // What hurts is repeated until somebody does something about it.
            "repeat_interval": if severity == "critical" { "1h" } else { "12h" },
        }));
    }
    let receivers: BTreeMap<String, &Receiver> = used(stack)
        .into_iter()
        .filter_map(|name| declared.get(name.as_str()).map(|receiver| (name, receiver)))
        .collect();
    let mail = receivers.values().find(|receiver| receiver.by.value == ReceiverMeans::Email);
    let sender = mail.map(|receiver| {
        let domain = receiver.to.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
        format!("alertmanager@{domain}")
    });
    let global =
        sender.map(|from| json!({ "smtp_smarthost": "localhost:25", "smtp_from": from, "smtp_require_tls": false }));
    let mut rendered = vec![json!({ "name": NOBODY })];
    rendered.extend(receivers.iter().map(|(name, receiver)| render_receiver(name, receiver)));
    Some(compact(json!({
        "global": global,
        "route": {
            "receiver": NOBODY,
            "group_by": ["namespace", "alertname", "service", "store"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": branches,
        },
        // Whoever is called for the outage need not hear of its beginnings as well.
        "inhibit_rules": [{
            "source_matchers": ["severity=\"critical\""],
            "target_matchers": ["severity=\"warning\""],
            "equal": ["namespace", "service", "store"],
        }],
        "receivers": rendered,
    })))
}

fn render_receiver(name: &str, receiver: &Receiver) -> Value {
    let to = receiver.to.as_str();
    // A file, so that the configuration holds no secret.
    let file = secret(receiver).map(|of| format!("{SECRETS}/{}/{}", of.name, of.key));
    let (field, configuration) = match receiver.by.value {
        ReceiverMeans::Email => ("email_configs", json!({ "to": to, "send_resolved": true })),
        ReceiverMeans::Slack => ("slack_configs", json!({ "api_url_file": file, "send_resolved": true })),
        ReceiverMeans::Pager => ("pagerduty_configs", json!({ "routing_key_file": file, "send_resolved": true })),
        ReceiverMeans::Webhook => {
            let url = file.is_none().then_some(to);
            ("webhook_configs", json!({ "url": url, "url_file": file, "send_resolved": true }))
        }
    };
    json!({ "name": name, field: [configuration] })
}

/// A line for each alert and each step after it: who must be told, and the labels that the alert carries.
fn route_tests(stack: &Stack<'_>) -> String {
    let by_severity: BTreeMap<&str, _> = routes(stack.architecture).collect();
    // Escalation is tested as a step of the alert that it is of.
    let rules = stack.of_kind("PrometheusRule").filter(|object| object.name() != ESCALATION).flat_map(|object| {
        let groups = object.value["spec"]["groups"].as_array().into_iter().flatten();
        groups.flat_map(|group| group["rules"].as_array().into_iter().flatten())
    });
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let raised: BTreeSet<(String, String)> = rules
        .filter(|rule| rule.get("alert").is_some())
        .map(|rule| (word(&rule["labels"]["severity"]), word(&rule["alert"])))
        .collect();
    let mut text = String::from(
        "# RECEIVER LABELS: `amtool config routes test --verify.receivers=RECEIVER LABELS`, a line each.\n",
    );
    let mut line = |receiver: &str, labels: &str| writeln!(text, "{receiver} {labels}").expect("text takes everything");
    for (severity, alert) in &raised {
        let labels = format!("alertname={alert} severity={severity}");
        let Some(route) = by_severity.get(severity.as_str()) else {
            line(NOBODY, &labels);
            continue;
        };
        line(route.to.as_str(), &labels);
        for (place, step) in route.escalate.iter().enumerate() {
            line(step.to.as_str(), &format!("{labels} {STEP}={}", place + 1));
        }
    }
    text
}
