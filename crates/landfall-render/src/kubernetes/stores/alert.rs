//! One alert, of a store or of a service, and the rule of Prometheus that raises it.

use crate::json::json;
use serde_json::Value;

/// One alert.
#[derive(Debug, Clone)]
pub(in crate::kubernetes) struct Alert {
    pub(in crate::kubernetes) name: &'static str,
    pub(in crate::kubernetes) expression: String,
    /// How long it must hold, as Prometheus writes durations.
    pub(in crate::kubernetes) lasting: &'static str,
    /// The severity by which it is routed.
    pub(in crate::kubernetes) severity: &'static str,
    /// One sentence for whoever is woken.
    pub(in crate::kubernetes) summary: String,
}

impl Alert {
    /// The rule; `label` says what sort of thing `name` is. The namespace is named although most series have it: the operator
    /// routes by it, and a sum over nothing has no label.
    pub(in crate::kubernetes) fn rule(self, namespace: &str, label: &str, name: &str) -> Value {
        json!({
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasting,
            "labels": { "severity": self.severity, "namespace": namespace, label: name },
            "annotations": { "summary": self.summary },
        })
    }
}
