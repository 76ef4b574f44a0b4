//! Who moves the number of copies.

use serde_json::{Value, json};

use crate::architecture::{messages, names, part, render};

const SCALERS: [&str; 2] = ["HorizontalPodAutoscaler", "ScaledObject"];

#[test]
fn an_autoscaler_owns_the_number_of_copies() {
    let text = "services: { web: { replicas: { min: 3, max: 10, cpu: 70%, memory: 80%, custom: { active_requests: 40 }, calm: 10m } } }";
    assert_eq!(part(text, "Deployment/web", "/spec/replicas"), Value::Null);
    let spec = part(text, "HorizontalPodAutoscaler/web", "/spec");
    assert_eq!([&spec["minReplicas"], &spec["maxReplicas"]], [&json!(3), &json!(10)]);
    let resource = |name: &str, share: u32| json!({ "type": "Resource", "resource": { "name": name, "target": { "type": "Utilization", "averageUtilization": share } } });
    let pods = json!({
        "type": "Pods",
        "pods": { "metric": { "name": "active_requests" }, "target": { "type": "AverageValue", "averageValue": "40" } },
    });
    assert_eq!(spec["metrics"], json!([resource("cpu", 70), resource("memory", 80), pods]));
    assert_eq!(spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"], json!(600));
}

#[test]
fn in_a_mesh_only_the_program_counts() {
    let text = "platform: { mesh: { kind: istio } }\nservices: { web: { replicas: { min: 1, max: 2, cpu: 70% } } }";
    let metric = part(text, "HorizontalPodAutoscaler/web", "/spec/metrics/0");
    assert_eq!(metric["containerResource"]["container"], json!("web"));
}

fn with_window(replicas: &str, window: &str) -> String {
    format!("services:\n  web:\n    startup: 90s\n    replicas: {replicas}\n    windows:\n      - {window}\n")
}

/// The beginning and the end of the first trigger that is a schedule.
fn schedule(window: &str) -> (String, String) {
    let triggers = part(&with_window("2", window), "ScaledObject/web", "/spec/triggers");
    let metadata =
        &triggers.as_array().expect("there are triggers").last().expect("the last one is the window")["metadata"];
    let text = |key: &str| metadata[key].as_str().expect("it is a text").to_owned();
    (text("start"), text("end"))
}

#[test]
fn a_service_with_a_window_has_one_autoscaler() {
    let text = with_window(
        "{ min: 2, max: 8, cpu: 70% }",
        "{ name: day, days: [mon, fri], from: 08:00, to: 18:00, time-zone: Asia/Kolkata, min: 12 }",
    );
    assert_eq!(names(&render(&text), &SCALERS), ["ScaledObject/web"]);
    assert_eq!(part(&text, "Deployment/web", "/spec/replicas"), Value::Null);
    let spec = part(&text, "ScaledObject/web", "/spec");
    assert_eq!([&spec["minReplicaCount"], &spec["maxReplicaCount"]], [&json!(2), &json!(12)]);
    assert_eq!(
        spec["triggers"],
        json!([
            { "type": "cpu", "metricType": "Utilization", "metadata": { "value": "70" } },
            {
                "type": "cron",
                "metadata": {
                    "timezone": "Asia/Kolkata",
                    "start": "57 7 * * 1,5",
                    "end": "0 18 * * 1,5",
                    "desiredReplicas": "12",
                },
            },
        ])
    );
}

#[test]
fn copies_are_ready_when_the_window_begins() {
    // 90 s to start and 60 s until KEDA and its autoscaler react: 3 minutes.
    let pair = |start: &str, end: &str| (start.to_owned(), end.to_owned());
    let zone = "time-zone: UTC, min: 4";
    assert_eq!(schedule(&format!("{{ name: w, from: 08:00, to: 18:00, {zone} }}")), pair("57 7 * * *", "0 18 * * *"));
    assert_eq!(
        schedule(&format!("{{ name: w, days: [mon], from: 00:01, to: 02:00, {zone} }}")),
        pair("58 23 * * 0", "0 2 * * 1")
    );
    assert_eq!(
        schedule(&format!("{{ name: w, days: [sat], from: 22:00, to: 06:00, {zone} }}")),
        pair("57 21 * * 6", "0 6 * * 0")
    );
}

#[test]
fn windows_that_touch_are_one() {
    let zone = "time-zone: UTC, min: 4";
    assert_eq!(
        schedule(&format!("{{ name: w, days: [sat, sun], from: 00:00, to: 24:00, {zone} }}")),
        ("57 23 * * 5".to_owned(), "0 0 * * 1".to_owned())
    );
    let always = with_window("2", &format!("{{ name: w, from: 00:00, to: 24:00, {zone} }}"));
    assert_eq!(part(&always, "ScaledObject/web", "/spec/minReplicaCount"), json!(4));
}

#[test]
fn the_upper_bound_of_a_window_is_a_note() {
    let text =
        with_window("{ min: 2, max: 8, cpu: 70% }", "{ name: night, from: 22:00, to: 06:00, time-zone: UTC, max: 3 }");
    let rendered = render(&text);
    assert_eq!(messages(&rendered), ["the upper bound of the window `night` of `web` is not rendered"]);
    assert_eq!(names(&rendered, &SCALERS), ["HorizontalPodAutoscaler/web"]);
}
