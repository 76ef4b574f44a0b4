//! Autoscalers that do nothing, and what undoes them.

use crate::rules::testing::messages;

fn said(service: &str) -> Vec<String> {
    messages("autoscaling", &format!("landfall: v1\nname: shop\nservices: {{ checkout: {{ {service} }} }}\n"))
}

#[test]
fn a_target_above_the_limit_is_never_exceeded() {
    // 110 % of 91 % is 100 %, all that a copy without room above its request can use.
    let resources = "resources: { cpu: 500m, memory: 256Mi }";
    assert_eq!(said(&format!("replicas: {{ min: 2, max: 4, cpu: 90% }}, {resources}")), [""; 0]);
    assert_eq!(
        said(&format!("replicas: {{ min: 2, max: 4, cpu: 91% }}, {resources}")),
        ["error: `checkout` can never use more than its cpu target, so it never grows"]
    );
    assert_eq!(said("replicas: { min: 2, max: 4, cpu: 91% }, resources: { cpu: 250m..500m, memory: 256Mi }"), [""; 0]);
}

#[test]
fn bounds_without_a_metric_are_asked_about_unless_windows_move_them() {
    let replicas = "replicas: { min: 2, max: 4 }";
    assert_eq!(said(replicas), ["warning: `checkout` may have up to 4 copies, but nothing says when"]);
    let window = "windows: [{ name: day, from: \"08:00\", to: \"18:00\", time-zone: UTC, min: 4 }]";
    assert_eq!(said(&format!("{replicas}, {window}")), [""; 0]);
}

#[test]
fn equal_bounds_cannot_scale() {
    assert_eq!(
        said("replicas: { min: 2, max: 2, cpu: 70% }, resources: { cpu: 250m..500m, memory: 256Mi }"),
        ["warning: `checkout` has at least and at most 2 copies: it cannot scale"]
    );
}

#[test]
fn memory_and_custom_metrics_are_noted() {
    let found = said(
        "replicas: { min: 2, max: 4, memory: 80%, custom: { lag: 100 } }, resources: { cpu: 1, memory: 256Mi..512Mi }",
    );
    assert_eq!(
        found,
        [
            "note: `checkout` scales by `lag`, which Kubernetes does not measure by itself",
            "note: `checkout` scales by memory: most runtimes do not give memory back",
        ]
        .into_iter()
        .rev()
        .collect::<Vec<_>>()
    );
}

#[test]
fn a_number_in_the_deployment_undoes_the_autoscaler() {
    let text = "
landfall: v1
name: shop
objects:
  - apiVersion: apps/v1
    kind: Deployment
    metadata: { name: checkout, namespace: shop }
    spec: { replicas: 3 }
  - apiVersion: autoscaling/v2
    kind: HorizontalPodAutoscaler
    metadata: { name: checkout, namespace: shop }
    spec: { minReplicas: 3, maxReplicas: 10, scaleTargetRef: { kind: Deployment, name: checkout } }
";
    assert_eq!(
        messages("autoscaling", text),
        ["warning: `checkout` is scaled, but says `replicas: 3`: every apply sets it back"]
    );
}
