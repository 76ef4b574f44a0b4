//! What a cluster keeps of an object of each kind: all of it.

use super::*;
use crate::admission::AdmittedImagesSpec;
use crate::approval::{ApprovalSpec, SignersSpec};
use crate::audit::{Action, AuditEntrySpec};
use crate::freeze::FreezeSpec;
use crate::gate::{EvidenceKind, EvidenceSpec, Gate};
use crate::metric::{Bound, CanaryMetric};
use crate::notify::{Means, Told};
use crate::plan::{CanaryPlan, CountedBy, PrometheusAt, Split, Strategy};
use crate::release::{ReleaseSpec, ServiceRelease, Verification};

/// What an API server keeps of a value: it drops every field that the schema does not name.
fn pruned(value: &Value, schema: &Value) -> Value {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return value.clone();
    }
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter_map(|(key, value)| {
                let schema = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"))?;
                Some((key.clone(), pruned(value, schema)))
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) => items.iter().map(|item| pruned(item, &schema["items"])).collect(),
        other => other.clone(),
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// A service with everything that can be said of one.
fn service() -> ServiceRelease {
    let lag =
        CanaryMetric { name: text("lag"), query: text("max(lag)"), bound: Bound::AtMost(10.0), every_seconds: 15 };
    let canary = CanaryPlan {
        declared: vec![100_000],
        steps: vec![250_000],
        split: Split::Copies(vec![1]),
        counted_by: CountedBy::Gateway,
        judge: crate::analysis::Judge { failures: Some(0.01), p99_ms: Some(300), verdicts: 2, metrics: vec![lag] },
        metrics_at: Some(PrometheusAt::Url(text("http://prometheus:9090"))),
        decide_within_seconds: 600,
        copies: 1,
        baseline: landfall_model::Baseline::Fresh,
        has_baseline: true,
        ceiling: Some(3),
    };
    let rules = || Some(json!([{ "backendRefs": [{ "name": "web", "port": 80 }] }]));
    ServiceRelease {
        strategy: Strategy::Canary(canary),
        copies: Some(3),
        old_since: Some(text("2026-11-28T12:00:00Z")),
        old_template: json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [] } }),
        new_template: json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [] } }),
        route_rules: rules(),
        mesh_rules: rules(),
        autoscaler_ceiling: Some(4),
        autoscaler_floor: Some(2),
        ..ServiceRelease::sample("web")
    }
}

/// An object of each kind, in which every field says something. Written out whole, so that who adds a field comes by here.
fn whole() -> Vec<(&'static str, Value)> {
    let release = ReleaseSpec {
        architecture: text("shop"),
        number: 2,
        digest: text("sha256:aa"),
        automatic: true,
        takes_back: Some(text("shop-1")),
        verification: Some(Verification { at_least_seconds: 180, within_seconds: 900 }),
        services: vec![service()],
        environment: Some(text("production")),
        gates: vec![Gate::After { environment: text("staging"), soak_seconds: 60 }],
        notify: vec![Told { to: text("ops"), by: Means::File(text("told.jsonl")), on: Vec::new() }],
        bundle: Some(text("sha256:bb")),
        rollback_within_seconds: Some(300),
    };
    let entry = AuditEntrySpec {
        architecture: text("shop"),
        number: 2,
        previous: text("sha256:aa"),
        at: text("2026-11-28T12:00:00Z"),
        who: text("ada"),
        action: Action::Begin,
        subject: text("shop-2"),
        digest: Some(text("sha256:bb")),
        says: text("it begins"),
        evidence: vec![text("nothing is frozen")],
        hash: text("sha256:cc"),
    };
    let approval =
        ApprovalSpec { architecture: text("shop"), statement: text("a statement"), signature: text("a signature") };
    let signers = SignersSpec {
        architecture: text("shop"),
        number: 2,
        previous: text("sha256:aa"),
        of: vec![text("leads")],
        count: 2,
        expire_seconds: 3600,
        list: text("ada,leads ssh-ed25519 AAAA"),
    };
    let evidence = EvidenceSpec {
        architecture: text("shop"),
        kind: EvidenceKind::Ran,
        environment: text("staging"),
        images: [(text("web"), text("shop/web:2"))].into(),
        since: Some(text("2026-11-28T11:00:00Z")),
        at: text("2026-11-28T12:00:00Z"),
        passed: true,
        says: text("it ran"),
        report: Some(text("sha256:aa")),
        by: text("ci"),
        statement: Some(text("a statement")),
        signature: Some(text("a signature")),
    };
    let freeze = FreezeSpec {
        architecture: text("shop"),
        because: text("the books are open"),
        by: text("ada"),
        at: text("2026-11-28T12:00:00Z"),
    };
    let admitted = AdmittedImagesSpec {
        architecture: text("shop"),
        images: vec![text("shop/web:2")],
        namespaces: vec![text("shop"), text("shop-data")],
        releases: vec![text("shop-2")],
    };
    vec![
        ("Release", json!(release)),
        ("AuditEntry", json!(entry)),
        ("Approval", json!(approval)),
        ("Signers", json!(signers)),
        ("Evidence", json!(evidence)),
        ("Freeze", json!(freeze)),
        ("AdmittedImages", json!(admitted)),
    ]
}

#[test]
fn whatever_an_object_says_is_kept_by_its_definition() {
    let (kinds, whole) = (kinds(), whole());
    let names = |of: Vec<&str>| of.join(", ");
    assert_eq!(
        names(kinds.iter().map(|kind| kind.name).collect()),
        names(whole.iter().map(|(name, _)| *name).collect()),
        "every kind has an object here"
    );
    for (kind, (name, spec)) in kinds.iter().zip(&whole) {
        let (_, definition) = definition(kind);
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(pruned(spec, schema), *spec, "the cluster drops something of a {name}");
        for field in kind.required {
            assert!(spec.get(field).is_some(), "a {name} has no `{field}`");
        }
    }
}
