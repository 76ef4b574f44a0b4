//! Whether alerts reach those whom the file names: Alertmanager is handed the rendered configuration, an alert of each severity and of each
//! step of an escalation is raised, and what the stand-in of the receivers was told is compared with what was raised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use landfall_standin::{AlertSeen, CONTROL_PORT, SEEN_PATH, SinkSeen};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::{Lines, Snapshot, body, is_ready};
use super::plan::{
    ALERTMANAGER, ALERTMANAGER_LABEL, ALERTMANAGER_PORT, AlertPath, AlertsPlan, CONFIGURATION, PROMETHEUS_LABEL,
    PROMETHEUS_PORT, Plan, STEP,
};
use super::report::{AlertRouteReport, AlertsReport, RaisedReport};
use super::shipping;

/// How long an alert may be on its way, and a configuration.
const PATIENCE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(250);

/// How long Alertmanager may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The name of the alerts that `up` raises itself.
const TEST: &str = "LandfallPathTest";

/// The label that tells those of one run from those of others.
const RUN: &str = "landfall_run";

/// After this time an alert of `up` ends by itself.
const LASTS: Duration = Duration::from_mins(2);

/// What was begun: alerts are on their way.
pub(super) struct Begun {
    /// The run, as the label of its alerts says.
    run: String,
    /// Why the configuration was refused; then there are none.
    refused: Option<String>,
}

type Labels = BTreeMap<String, String>;

/// An alert as Prometheus tells of it.
#[derive(Deserialize)]
struct Raised {
    labels: Labels,
    state: String,
}

/// An alert as Alertmanager tells of it.
#[derive(Deserialize)]
struct Taken {
    labels: Labels,
    receivers: Vec<Receiver>,
    status: Status,
}

#[derive(Deserialize)]
struct Receiver {
    name: String,
}

#[derive(Deserialize)]
struct Status {
    state: String,
}

/// Hands Alertmanager its configuration, and raises an alert for everybody whom the file names. `None` where there is no Alertmanager.
pub(super) async fn begin(client: &Client, lines: &Lines, plan: &Plan) -> anyhow::Result<Option<Begun>> {
    let Some(alerts) = &plan.alerts else { return Ok(None) };
    let asked = Asked { lines, pods: Snapshot::take(client, plan).await? };
    let run = Timestamp::now().as_nanosecond().to_string();
    let refused = asked.hand_over(client, alerts).await?;
    if refused.is_none() {
        let until = (Timestamp::now() + LASTS).to_string();
        let tests: Vec<Value> = alerts
            .paths
            .iter()
            .map(|path| {
                let annotations = json!({ "summary": "`landfall up` tries whether alerts reach their receivers." });
                json!({ "labels": labels(path, &run), "annotations": annotations, "endsAt": until })
            })
            .collect();
        let request = Request::post("/api/v2/alerts").header(header::CONTENT_TYPE, "application/json");
        let (status, said) = asked.send(request.body(body(&tests)?)?).await?;
        anyhow::ensure!(status.is_success(), "Alertmanager does not take the alerts of `up`: {status} {said}");
    }
    Ok(Some(Begun { run, refused }))
}

/// What became of the alerts of `up`, and of those that Prometheus has raised. `None` where there is no Alertmanager.
pub(super) async fn try_all(
    client: &Client,
    lines: &Lines,
    plan: &Plan,
    begun: Option<Begun>,
) -> anyhow::Result<Option<AlertsReport>> {
    let (Some(alerts), Some(begun)) = (&plan.alerts, begun) else { return Ok(None) };
    let asked = Asked { lines, pods: Snapshot::take(client, plan).await? };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = asked.report(client, plan, alerts, &begun).await?;
        if begun.refused.is_some() || report.problems().is_empty() || Instant::now() >= deadline {
            return Ok(Some(report));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The labels of the alert that is raised for somebody. Each has a service of its own: a heavier one keeps back those of its service.
fn labels(path: &AlertPath, run: &str) -> Labels {
    let step = path.step.map(|step| (STEP, step.to_string()));
    let all = [
        ("alertname", TEST.to_owned()),
        ("severity", path.severity.to_owned()),
        ("namespace", path.namespace.clone()),
        ("service", format!("landfall-path-test-{}", path.severity)),
        (RUN, run.to_owned()),
    ];
    all.into_iter().chain(step).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Who is asked about alerts.
struct Asked<'a> {
    lines: &'a Lines,
    pods: Snapshot,
}

impl Asked<'_> {
    fn pod(&self, label: &str) -> anyhow::Result<&Pod> {
        let pod = self.pods.pods.iter().find(|pod| pod.labels().contains_key(label) && is_ready(pod));
        pod.with_context(|| format!("the pod with the label {label} is not ready"))
    }

    /// Sends Alertmanager a request whose answer is no JSON.
    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, String)> {
        let answer = self.lines.to(self.pod(ALERTMANAGER_LABEL)?, ALERTMANAGER_PORT)?.send(request, ANSWER).await;
        let answer = answer.map_err(|error| anyhow::anyhow!(error)).context("failed to ask Alertmanager")?;
        Ok((answer.0, String::from_utf8_lossy(&answer.1).trim().to_owned()))
    }

    async fn get<A: DeserializeOwned>(&self, label: &str, port: u16, path: &str) -> anyhow::Result<A> {
        self.lines.ask(self.pod(label)?, port, Request::get(path).body(Full::default())?).await
    }

    /// Gives Alertmanager the rendered configuration. `Some` is why it does not take it.
    async fn hand_over(&self, client: &Client, alerts: &AlertsPlan) -> anyhow::Result<Option<String>> {
        let maps = Api::<ConfigMap>::namespaced(client.clone(), &alerts.namespace);
        let patch = json!({ "data": { CONFIGURATION: alerts.configuration } });
        let patched = maps.patch(ALERTMANAGER, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.context("failed to give Alertmanager its configuration")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // It reads what it has until the new one is in its volume.
            let (status, said) = self.send(Request::post("/-/reload").body(Full::default())?).await?;
            if !status.is_success() {
                return Ok(Some(said.trim_start_matches("failed to reload config: ").to_owned()));
            }
            let told: Value = self.get(ALERTMANAGER_LABEL, ALERTMANAGER_PORT, "/api/v2/status").await?;
            if told["config"]["original"].as_str().is_some_and(|text| text.contains(&alerts.mark)) {
                return Ok(None);
            }
            anyhow::ensure!(Instant::now() < deadline, "Alertmanager does not see its configuration");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn report(
        &self,
        client: &Client,
        plan: &Plan,
        alerts: &AlertsPlan,
        begun: &Begun,
    ) -> anyhow::Result<AlertsReport> {
        let mut report = AlertsReport {
            by: alerts.server.clone(),
            receivers: "stand-in",
            refused: begun.refused.clone(),
            routes: Vec::new(),
            raised: Vec::new(),
        };
        if begun.refused.is_some() {
            return Ok(report);
        }
        let told = self.told(client, plan).await?;
        report.routes = alerts.paths.iter().map(|path| tried(path, &begun.run, &told)).collect();
        let found: Value = self.get(PROMETHEUS_LABEL, PROMETHEUS_PORT, "/api/v1/alerts").await?;
        let raised: Vec<Raised> = serde_json::from_value(found["data"]["alerts"].clone())
            .context("failed to understand the alerts of Prometheus")?;
        let taken: Vec<Taken> = self.get(ALERTMANAGER_LABEL, ALERTMANAGER_PORT, "/api/v2/alerts").await?;
        let firing = raised.into_iter().filter(|raised| raised.state == "firing");
        report.raised = firing.map(|raised| became(raised.labels, &taken, &told, &alerts.leading)).collect();
        Ok(report)
    }

    /// What the stand-in of the receivers was told.
    async fn told(&self, client: &Client, plan: &Plan) -> anyhow::Result<Vec<AlertSeen>> {
        let sink = plan.sink.as_ref().context("the receivers of alerts have no stand-in")?;
        let pod =
            shipping::find(client, sink).await?.context("the stand-in of the receivers of alerts is not ready")?;
        let seen: SinkSeen = self.lines.ask(&pod, CONTROL_PORT, Request::get(SEEN_PATH).body(Full::default())?).await?;
        Ok(seen.alerts)
    }
}

/// Who has got the alert that was raised for somebody.
fn tried(path: &AlertPath, run: &str, told: &[AlertSeen]) -> AlertRouteReport {
    let labels = labels(path, run);
    let arrived = told.iter().filter(|seen| seen.labels == labels).map(|seen| seen.receiver.clone());
    AlertRouteReport { severity: path.severity, step: path.step, to: path.to.clone(), arrived: arrived.collect() }
}

/// What became of an alert with these labels. `leading` are the receivers that are told at all.
fn became(labels: Labels, taken: &[Taken], told: &[AlertSeen], leading: &BTreeSet<String>) -> RaisedReport {
    let own = taken.iter().find(|taken| taken.labels == labels);
    let receivers = own.into_iter().flat_map(|taken| &taken.receivers).map(|receiver| receiver.name.clone());
    let to: BTreeSet<String> = receivers.filter(|name| leading.contains(name)).collect();
    let lacks = |name: &&String| !told.iter().any(|seen| seen.receiver == **name && seen.labels == labels);
    let missing = to.iter().filter(lacks).cloned().collect();
    let label = |name: &str| labels.get(name).cloned();
    RaisedReport {
        alert: label("alertname").unwrap_or_default(),
        namespace: label("namespace"),
        severity: label("severity"),
        taken: own.is_some(),
        suppressed: own.is_some_and(|taken| taken.status.state == "suppressed"),
        to,
        missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(severity: &'static str, step: Option<usize>, to: &str) -> AlertPath {
        AlertPath { severity, step, namespace: "shop".to_owned(), to: to.to_owned() }
    }

    fn seen(receiver: &str, labels: &Labels) -> AlertSeen {
        AlertSeen { receiver: receiver.to_owned(), status: "firing".to_owned(), labels: labels.clone() }
    }

    #[test]
    fn an_alert_of_up_is_found_by_its_severity_step_and_run() {
        let (pager, chat) = (path("critical", None, "pager"), path("critical", Some(1), "chat"));
        let told = [
            seen("pager", &labels(&pager, "1")),
            seen("chat", &labels(&pager, "0")),
            seen("pager", &labels(&chat, "1")),
        ];
        assert_eq!(tried(&pager, "1", &told).arrived, BTreeSet::from(["pager".to_owned()]));
        assert!(tried(&pager, "1", &told).leads());
        assert_eq!(tried(&chat, "1", &told).arrived, BTreeSet::from(["pager".to_owned()]));
        assert!(!tried(&chat, "1", &told).leads(), "somebody else has got it");
        assert!(!tried(&pager, "2", &told).leads(), "those are of other runs");
    }

    #[test]
    fn a_raised_alert_is_held_against_those_it_is_for() {
        let alert = |name: &str| Labels::from([("alertname".to_owned(), name.to_owned())]);
        let taken = |name: &str, state: &str, receivers: &[&str]| {
            let receivers: Vec<Value> = receivers.iter().map(|name| json!({ "name": name })).collect();
            json!({ "labels": alert(name), "receivers": receivers, "status": { "state": state, "silencedBy": [] } })
        };
        let taken: Vec<Taken> = serde_json::from_value(json!([
            taken("Down", "active", &["pager", "nobody"]),
            taken("Slow", "active", &["chat"]),
            taken("Odd", "active", &["nobody"]),
            taken("Lesser", "suppressed", &["chat"]),
        ]))
        .expect("it is what Alertmanager answers");
        let told = [seen("pager", &alert("Down"))];
        let leading = BTreeSet::from(["pager".to_owned(), "chat".to_owned()]);
        let short = |name: &str| {
            let report = became(alert(name), &taken, &told, &leading);
            (report.taken, report.suppressed, report.to.len(), report.missing.len())
        };
        assert_eq!(short("Down"), (true, false, 1, 0));
        assert_eq!(short("Slow"), (true, false, 1, 1));
        assert_eq!(short("Odd"), (true, false, 0, 0));
        assert_eq!(short("Lesser"), (true, true, 1, 1));
        assert_eq!(short("Away"), (false, false, 0, 0));
    }
}
