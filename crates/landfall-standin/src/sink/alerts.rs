//! The receivers of alerts: a webhook of Alertmanager in the place of the pagers, channels and addresses that it would tell.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Sink;

/// How many are kept.
const MOST: usize = 10_000;

/// That a receiver was told of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertSeen {
    /// The receiver, as the configuration of Alertmanager names it.
    pub receiver: String,
    /// `firing` or `resolved`.
    pub status: String,
    /// The labels of the alert.
    pub labels: BTreeMap<String, String>,
}

/// What Alertmanager sends, as far as it is kept: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.
#[derive(Deserialize)]
struct Told {
    receiver: String,
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    status: String,
    labels: BTreeMap<String, String>,
}

/// The newest.
#[derive(Default)]
pub(super) struct Alerts(VecDeque<AlertSeen>);

impl Alerts {
    fn add(&mut self, told: Told) {
        for Alert { status, labels } in told.alerts {
            if self.0.len() == MOST {
                self.0.pop_front();
            }
            self.0.push_back(AlertSeen { receiver: told.receiver.clone(), status, labels });
        }
    }

    pub(super) fn seen(&self) -> Vec<AlertSeen> {
        self.0.iter().cloned().collect()
    }
}

pub(super) fn router(sink: Arc<Sink>) -> Router {
    Router::new().route("/", post(take)).with_state(sink)
}

async fn take(State(sink): State<Arc<Sink>>, Json(told): Json<Told>) -> StatusCode {
    sink.alerts().add(told);
    StatusCode::OK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_alertmanager_sends_is_kept_for_each_alert_and_the_oldest_is_let_go() {
        // As Alertmanager 0.25 sends it.
        let sent = r#"{
            "receiver": "shop/shop/pager", "status": "firing",
            "alerts": [
                {
                    "status": "firing", "labels": { "alertname": "Down", "severity": "critical" },
                    "annotations": { "summary": "x" }, "startsAt": "2026-11-29T16:50:23.090697838Z",
                    "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "7151fe8c9f77675f"
                },
                { "status": "resolved", "labels": { "alertname": "Slow" }, "annotations": {} }
            ],
            "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://vm:9093",
            "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0
        }"#;
        let told = || serde_json::from_str::<Told>(sent).expect("it is understood");
        let mut alerts = Alerts::default();
        alerts.add(told());
        let short = |alerts: &Alerts| -> Vec<(String, String, String)> {
            let one = |alert: AlertSeen| (alert.receiver, alert.status, alert.labels["alertname"].clone());
            alerts.seen().into_iter().map(one).collect()
        };
        let expected = [("firing", "Down"), ("resolved", "Slow")]
            .map(|(status, name)| ("shop/shop/pager".to_owned(), status.to_owned(), name.to_owned()));
        assert_eq!(short(&alerts), expected);
        for _ in 0..MOST / 2 {
            alerts.add(told());
        }
        assert_eq!(alerts.seen().len(), MOST);
    }
}
