//! Releases that tests begin with, and change where it matters to them.

use landfall_model::Baseline;
use serde_json::json;

use super::{ReleaseSpec, ServiceRelease};
use crate::analysis::Judge;
use crate::plan::{CanaryPlan, CountedBy, Split, Strategy};

impl ServiceRelease {
    /// Copy by copy from `shop/NAME:1` to `shop/NAME:2`, in the namespace `shop`.
    pub(crate) fn sample(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            old_image: format!("shop/{name}:1"),
            new_image: format!("shop/{name}:2"),
            strategy: Strategy::Rolling,
            replacement: None,
            ready_within_seconds: 30,
            copies: None,
            verified: None,
            old_since: None,
            old_template: json!({}),
            new_template: json!({}),
            route_rules: None,
            mesh_rules: None,
            autoscaler_floor: None,
            autoscaler_ceiling: None,
            schema: None,
            old_schema: None,
        }
    }
}

impl CanaryPlan {
    /// One copy that gets half of the requests by its route, of which one in a hundred may fail, within ten minutes.
    pub(crate) fn sample() -> Self {
        Self {
            declared: vec![500_000],
            steps: vec![500_000],
            split: Split::Route,
            counted_by: CountedBy::Gateway,
            judge: Judge { failures: Some(0.01), p99_ms: None, verdicts: 1, metrics: Vec::new() },
            metrics_at: None,
            decide_within_seconds: 600,
            copies: 1,
            baseline: Baseline::Stable,
            has_baseline: false,
            ceiling: None,
        }
    }
}

impl ReleaseSpec {
    /// The first release of the architecture `shop`, which goes back by itself.
    pub(crate) fn sample(services: Vec<ServiceRelease>) -> Self {
        Self {
            architecture: "shop".to_owned(),
            number: 1,
            digest: "sha256:aa".to_owned(),
            automatic: true,
            takes_back: None,
            verification: None,
            services,
            environment: None,
            gates: Vec::new(),
            notify: Vec::new(),
            bundle: None,
            rollback_within_seconds: None,
        }
    }
}
