//! Monitoring by the Prometheus operator: where services are scraped, what raises an alert, and who is told.
//!
//! Services are judged by the HTTP server metric of OpenTelemetry's semantic conventions,
//! `http_server_request_duration_seconds` with the label `http_response_status_code`: the one that most instrumentation
//! libraries write and that names no framework. Prometheus adds `namespace` and `service` when it scrapes.
//!
//! An availability objective raises alerts by the speed at which its error budget burns, over two windows each: the long
//! one so that it matters, the short one so that it is still going on (Google, "The Site Reliability Workbook",
//! chapter 5, "Multiwindow, Multi-Burn-Rate Alerts").

use std::collections::{BTreeMap, BTreeSet};

use crate::json::json;
use landfall_model::{
    AlertSource, Architecture, Duration, Element, Finding, Name, Percent, PortProtocol, Receiver, ReceiverMeans,
    Reference, Route, Service, ServiceKind, Span,
};
use serde_json::Value;

use super::metadata::Subject;
use super::stores::{self, Alert};
use crate::object::{Object, unless_empty};

/// Everything; nothing when no metrics are declared.
pub(super) fn objects(architecture: &Architecture) -> Vec<Object> {
    let Some(metrics) = &architecture.document.observability.metrics else { return Vec::new() };
    let interval = format!("{}s", metrics.interval.seconds().max(1));
    let mut objects = Vec::new();
    for (name, service) in &architecture.document.services {
        let Some(port) = scraped_port(service) else { continue };
        let subject = Subject::service(architecture, name, service);
        objects.push(service_monitor(&subject, service, &port, &interval));
        objects.push(service_rules(architecture, &subject, service));
    }
    objects.extend(stores::monitoring(architecture));
    objects.extend(escalation(architecture, &objects));
    objects.extend(alertmanagers(architecture));
    objects
}

/// The name of the port that is scraped. A scheduled job is gone before it would be found: what it has to say has to
/// be asked of its store.
pub(crate) fn scraped_port(service: &Service) -> Option<String> {
    if !service.metrics.scrape.value || service.kind.value == ServiceKind::ScheduledJob {
        return None;
    }
    service.port_named(service.metrics.port.as_ref().map(|port| &port.value)).map(|(name, _)| name)
}

/// By the Kubernetes Service, which every service with a port has.
fn service_monitor(subject: &Subject<'_>, service: &Service, port: &str, interval: &str) -> Object {
    let value = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "selector": { "matchLabels": subject.selector() },
            "endpoints": [{ "port": port, "path": &service.metrics.path.value, "interval": interval }],
        },
    });
    subject.object("servicemonitor", value)
}

/// The windows over which the share of failed requests is recorded, once for all alerts that ask for it.
const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

/// One speed at which a budget may burn: a share of it within a window.
struct BurnRate {
    /// The name of its alert.
    alert: &'static str,
    /// The share of the budget that is gone at the end of the long window, in hundredths.
    share: f64,
    long: &'static str,
    hours: f64,
    /// A twelfth of the long one.
    short: &'static str,
    lasting: &'static str,
    severity: &'static str,
}

/// For a budget of 30 days these are the factors 14.4, 6, 3 and 1 of the workbook's table 5-8.
const BURN_RATES: [BurnRate; 4] = [
    BurnRate {
        alert: "ErrorBudgetBurns1h",
        share: 2.0,
        long: "1h",
        hours: 1.0,
        short: "5m",
        lasting: "2m",
        severity: "critical",
    },
    BurnRate {
        alert: "ErrorBudgetBurns6h",
        share: 5.0,
        long: "6h",
        hours: 6.0,
        short: "30m",
        lasting: "15m",
        severity: "critical",
    },
    BurnRate {
        alert: "ErrorBudgetBurns1d",
        share: 10.0,
        long: "1d",
        hours: 24.0,
        short: "2h",
        lasting: "1h",
        severity: "warning",
    },
    BurnRate {
        alert: "ErrorBudgetBurns3d",
        share: 10.0,
        long: "3d",
        hours: 72.0,
        short: "6h",
        lasting: "1h",
        severity: "warning",
    },
];

/// A number without needless zeros.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn service_rules(architecture: &Architecture, subject: &Subject<'_>, service: &Service) -> Object {
    let mut groups = Vec::new();
    let mut raised = vec![down(subject)];
    if speaks_http(service) {
        groups.push(json!({ "name": format!("{}.requests", subject.name), "rules": recorded(subject) }));
        let objective = Objective::of(architecture, service);
        raised.extend(burning(subject, &objective));
        raised.extend(objective.p99.map(|p99| slow(subject, p99)));
    }
    groups.push(json!({
        "name": format!("{}.alerts", subject.name),
        "rules": raised.into_iter().map(|alert| alert.rule(subject.namespace, "service", subject.name)).collect::<Vec<_>>(),
    }));
    let value = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": subject.metadata(subject.name),
        "spec": { "groups": groups },
    });
    subject.object("prometheusrule", value)
}

/// Whether requests to it are counted.
pub(crate) fn speaks_http(service: &Service) -> bool {
    service.all_ports().iter().any(|(_, port)| port.protocol.value == PortProtocol::Http)
}

/// What a service promises: by itself, otherwise as the platform does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objective {
    pub(crate) availability: Option<Percent>,
    /// The period over which the availability is counted.
    pub(crate) window: Duration,
    pub(crate) p99: Option<Duration>,
}

impl Objective {
    pub(crate) fn of(architecture: &Architecture, service: &Service) -> Self {
        let objectives = &architecture.document.objectives;
        let own = service.objective.as_ref();
        let availability = own.and_then(|own| own.availability.as_ref()).or(objectives.availability.as_ref());
        let p99 = own.and_then(|own| own.p99.as_ref()).or(objectives.p99.as_ref());
        Self {
            availability: availability.map(|availability| availability.value),
            window: objectives.window.value,
            p99: p99.map(|p99| p99.value),
        }
    }

    /// The share of requests that may fail, if anything is promised.
    pub(crate) fn budget(&self) -> Option<f64> {
        Some(f64::from(1_000_000_u32.saturating_sub(self.availability?.millionths())) / 1e6)
    }

    /// The speeds at which the budget may burn, each with its factor. Without a budget there is nothing to burn, a window
    /// longer than the period says nothing about it, and a limit of more than every request is never passed.
    fn burn_rates(&self) -> Vec<(&'static BurnRate, f64, f64)> {
        let budget = self.budget().unwrap_or_default();
        let period = self.window.as_secs_f64() / 3600.0;
        let factor = |rate: &BurnRate| rate.share / 100.0 * period / rate.hours;
        let fits = |rate: &&BurnRate| budget > 0.0 && rate.hours < period && factor(rate) * budget < 1.0;
        BURN_RATES.iter().filter(fits).map(|rate| (rate, factor(rate), budget)).collect()
    }

    /// The share of failed requests above which each alert on the budget is raised, by the name of the alert.
    pub(crate) fn burn_limits(&self) -> Vec<(&'static str, f64)> {
        self.burn_rates().into_iter().map(|(rate, factor, budget)| (rate.alert, factor * budget)).collect()
    }
}

fn selector(subject: &Subject<'_>) -> String {
    format!("namespace=\"{}\",service=\"{}\"", subject.namespace, subject.name)
}

fn recorded(subject: &Subject<'_>) -> Vec<Value> {
    let which = selector(subject);
    let count = "http_server_request_duration_seconds_count";
    let mut rules: Vec<Value> = WINDOWS
        .iter()
        .map(|window| {
            let all = format!("sum by (namespace, service) (rate({count}{{{which}}}[{window}]))");
            let failed = format!(
                "sum by (namespace, service) (rate({count}{{{which},http_response_status_code=~\"5..\"}}[{window}]))"
            );
            json!({
                "record": format!("service:http_request_errors:ratio_rate{window}"),
                // A service that has never failed has no series of failures, and still a share of them: none.
                "expr": format!("({failed} or {all} * 0) / {all}"),
            })
        })
        .collect();
    rules.push(json!({
        "record": "service:http_request_duration_seconds:p99_rate5m",
        "expr": format!(
            "histogram_quantile(0.99, sum by (namespace, service, le) \
             (rate(http_server_request_duration_seconds_bucket{{{which}}}[5m])))"
        ),
    }));
    rules
}

/// Silence is not health: a service that cannot be scraped raises an alert of its own.
fn down(subject: &Subject<'_>) -> Alert {
    let which = selector(subject);
    Alert {
        name: "ServiceDown",
        expression: format!("(sum(up{{{which}}}) or vector(0)) == 0"),
        lasting: "2m",
        severity: "critical",
        summary: format!("No copy of {} answers.", subject.name),
    }
}

fn burning(subject: &Subject<'_>, objective: &Objective) -> Vec<Alert> {
    let which = selector(subject);
    let alert = |(rate, factor, budget): (&BurnRate, f64, f64)| {
        let limit = format!("({} * {})", number(factor), number(budget));
        let over = |window: &str| format!("service:http_request_errors:ratio_rate{window}{{{which}}} > {limit}");
        Alert {
            name: rate.alert,
            expression: format!("{} and {}", over(rate.long), over(rate.short)),
            lasting: rate.lasting,
            severity: rate.severity,
            summary: format!(
                "{} uses up {} % of its error budget in {}: {{{{ $value | humanizePercentage }}}} of requests fail.",
                subject.name,
                number(rate.share),
                rate.long
            ),
        }
    };
    objective.burn_rates().into_iter().map(alert).collect()
}

fn slow(subject: &Subject<'_>, p99: Duration) -> Alert {
    let limit = number(p99.as_secs_f64());
    Alert {
        name: "RequestsSlow",
        expression: format!("service:http_request_duration_seconds:p99_rate5m{{{}}} > {limit}", selector(subject)),
        lasting: "10m",
        severity: "warning",
        summary: format!("One request in a hundred to {} takes longer than {p99}.", subject.name),
    }
}

/// The routes in their order, with the severity that alerts carry.
pub(crate) fn routes(architecture: &Architecture) -> impl Iterator<Item = (&'static str, &Route)> {
    let routes = &architecture.document.observability.alerts.routes;
    let declared = [("critical", &routes.critical), ("warning", &routes.warning), ("info", &routes.info)];
    declared.into_iter().filter_map(|(severity, route)| Some((severity, route.as_ref()?)))
}

/// The secret that holds a receiver's address, if it is one: `alerting/slack-url`. A URL and a mail address are not.
pub(crate) fn secret(receiver: &Receiver) -> Option<Reference> {
    let is_address = receiver.by.value == ReceiverMeans::Email || receiver.to.contains("://");
    if is_address { None } else { receiver.to.parse().ok() }
}

/// The receivers that a route or an escalation leads to.
fn used(architecture: &Architecture) -> BTreeMap<&str, &Receiver> {
    let declared = &architecture.document.observability.alerts.receivers;
    routes(architecture)
        .flat_map(|(_, route)| std::iter::once(&route.to).chain(route.escalate.iter().map(|step| &step.to)))
        .filter_map(|to| Some((to.as_str(), declared.get(to.as_str())?)))
        .collect()
}

/// The namespaces from which rendered alerts rise, and the platform's.
///
/// Not handled: one in which only rules stand that the file brings as objects of its own.
fn alerting(architecture: &Architecture) -> BTreeSet<&str> {
    let services = architecture.document.services.iter().filter(|(_, service)| scraped_port(service).is_some());
    let services = services.map(|(name, _)| Element::Service(name.value.clone()));
    let namespaces = services.chain(stores::watched(architecture)).map(|of| architecture.namespace_of(&of));
    std::iter::once(architecture.namespace()).chain(namespaces).map(Name::as_str).collect()
}

/// The secrets that receivers refer to, each with its namespace: those of all receivers in the platform's, and in another
/// one from which alerts rise those of the receivers that are told of them.
pub(super) fn secrets(architecture: &Architecture) -> Vec<(&str, Reference, Span)> {
    let observability = &architecture.document.observability;
    if observability.metrics.is_none() {
        return Vec::new();
    }
    let (platform, used) = (architecture.namespace().as_str(), used(architecture));
    let mut secrets = Vec::new();
    for namespace in alerting(architecture) {
        for (name, receiver) in &observability.alerts.receivers {
            if namespace == platform || used.contains_key(name.as_str()) {
                secrets.extend(secret(receiver).map(|of| (namespace, of, receiver.to.span)));
            }
        }
    }
    secrets
}

/// The label with the number of the step of an escalation; empty on an alert that is not escalated.
pub(crate) const STEP: &str = "escalation";

/// The name of the rules by which alerts go on to the next in line.
pub(crate) const ESCALATION: &str = "escalation";

/// A rule for each alert of the rendered rules and each step after it.
///
/// Alertmanager does not know whether anybody has answered, but it knows silences. An alert that has fired for the declared
/// time is raised once more, for the next in line, under its own name: a silence of the alert covers this one too, so it
/// reaches them only if nobody has answered. Only alerts of the platform's namespaces: a Prometheus may watch others.
///
/// Not handled: the alerts of rules that the file brings as objects of its own.
fn escalation(architecture: &Architecture, rules: &[Object]) -> Option<Object> {
    let alerts = rules.iter().filter(|object| object.kind() == "PrometheusRule").flat_map(|object| {
        let groups = object.value["spec"]["groups"].as_array().into_iter().flatten();
        groups.flat_map(|group| group["rules"].as_array().into_iter().flatten())
    });
    let alerts: BTreeSet<(&str, &str)> =
        alerts.filter_map(|rule| Some((rule["labels"]["severity"].as_str()?, rule["alert"].as_str()?))).collect();
    let namespaces: BTreeSet<&str> = rules.iter().filter_map(Object::namespace).collect();
    let namespaces = namespaces.into_iter().collect::<Vec<_>>().join("|");
    let mut raised = Vec::new();
    let mut span = None;
    for (severity, route) in routes(architecture) {
        for (place, step) in route.escalate.iter().enumerate() {
            span.get_or_insert(step.to.span);
            for (_, alert) in alerts.iter().filter(|(of, _)| *of == severity) {
                raised.push(json!({
                    "alert": alert,
                    "expr": format!(
                        "ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",severity=\"{severity}\",namespace=~\"{namespaces}\",{STEP}=\"\"}}"
                    ),
                    "for": step.after.to_string(),
                    "labels": {
                        STEP: (place + 1).to_string(),
                        // Of the series that the alert is made from; an alert has its own.
                        "alertstate": "",
                    },
                    "annotations": {
                        "summary": format!("{alert} has fired for {} and nobody has silenced it.", step.after.value),
                    },
                }));
            }
        }
    }
    if raised.is_empty() {
        return None;
    }
    let namespace = architecture.namespace().as_str();
    let subject = Subject::platform(architecture, namespace, "monitoring", "observability.alerts.routes", span?);
    let value = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": subject.metadata(ESCALATION),
        "spec": { "groups": [{ "name": ESCALATION, "rules": raised }] },
    });
    Some(subject.object("prometheusrule-escalation", value))
}

/// The receiver of alerts that no route takes.
pub(crate) const NOBODY: &str = "nobody";

/// A configuration in each namespace from which alerts rise: by default the Prometheus operator gives one only alerts whose
/// label `namespace` is its own (`alertmanagerConfigMatcherStrategy: OnNamespace`).
fn alertmanagers(architecture: &Architecture) -> Vec<Object> {
    let Some((_, first)) = routes(architecture).next() else { return Vec::new() };
    let spec = configuration(architecture);
    let object = |namespace: &str| {
        let origin = "observability.alerts";
        let subject = Subject::platform(architecture, namespace, "monitoring", origin, first.to.span);
        let value = json!({
            "apiVersion": "monitoring.coreos.com/v1alpha1",
            "kind": "AlertmanagerConfig",
            "metadata": subject.metadata(architecture.document.name.as_str()),
            "spec": &spec,
        });
        subject.object("alertmanagerconfig", value)
    };
    alerting(architecture).into_iter().map(object).collect()
}

/// What is told to whom, the same in each namespace.
fn configuration(architecture: &Architecture) -> Value {
    let matcher = |name: &str, value: &str| json!({ "name": name, "matchType": "=", "value": value });
    let mut by_severity = Vec::new();
    for (severity, route) in routes(architecture) {
        // The first route that fits takes an alert, so those of the steps come before the one of the alert itself.
        for (place, step) in route.escalate.iter().enumerate() {
            by_severity.push(json!({
                "receiver": step.to.as_str(),
                "matchers": [matcher("severity", severity), matcher(STEP, &(place + 1).to_string())],
                "repeatInterval": "1h",
            }));
        }
        by_severity.push(json!({
            "receiver": route.to.as_str(),
            "matchers": [matcher("severity", severity)],
            // What hurts is repeated until somebody does something about it.
            "repeatInterval": if severity == "critical" { "1h" } else { "12h" },
        }));
    }
    let mut receivers = vec![json!({ "name": NOBODY })];
    receivers.extend(used(architecture).into_iter().map(|(name, receiver)| render_receiver(name, receiver)));
    json!({
        "route": {
            "receiver": NOBODY,
            "groupBy": ["namespace", "alertname", "service", "store"],
            "groupWait": "30s",
            "groupInterval": "5m",
            "repeatInterval": "12h",
            "routes": by_severity,
        },
        // Whoever is called for the outage need not hear of its beginnings as well.
        "inhibitRules": [{
            "sourceMatch": [{ "name": "severity", "matchType": "=", "value": "critical" }],
            "targetMatch": [{ "name": "severity", "matchType": "=", "value": "warning" }],
            "equal": ["namespace", "service", "store"],
        }],
        "receivers": receivers,
    })
}

fn render_receiver(name: &str, receiver: &Receiver) -> Value {
    let to = receiver.to.as_str();
    let reference = secret(receiver).map(|of| json!({ "name": of.name.as_str(), "key": of.key }));
    let (field, configuration) = match receiver.by.value {
        // How mail is sent (`smarthost`, `from`) is the Alertmanager's own configuration.
        ReceiverMeans::Email => ("emailConfigs", json!({ "to": to, "sendResolved": true })),
        ReceiverMeans::Slack => ("slackConfigs", json!({ "apiURL": reference, "sendResolved": true })),
        ReceiverMeans::Pager => ("pagerdutyConfigs", json!({ "routingKey": reference, "sendResolved": true })),
        ReceiverMeans::Webhook => {
            let url = reference.is_none().then_some(to);
            ("webhookConfigs", json!({ "url": url, "urlSecret": reference, "sendResolved": true }))
        }
    };
    json!({ "name": name, field: unless_empty(vec![configuration]) })
}

/// What is declared for alerts and is not rendered.
pub(super) fn findings(architecture: &Architecture) -> Vec<Finding> {
    let observability = &architecture.document.observability;
    let mut findings = Vec::new();
    if observability.metrics.is_none() {
        return findings;
    }
    for (name, receiver) in &observability.alerts.receivers {
        let needs_secret = matches!(receiver.by.value, ReceiverMeans::Slack | ReceiverMeans::Pager);
        if needs_secret && secret(receiver).is_none() {
            findings.push(
                Finding::error("secret-literal", receiver.to.span, format!("the receiver `{name}` names no secret"))
                    .because("the address of a channel and the key of a pager let anybody write there")
                    .help("put it into a secret and name it here: `to: alerting/slack-url`"),
            );
        }
    }
    if let Some(source) = observability.alerts.from.iter().find(|source| source.value == AlertSource::Logs) {
        findings.push(
            Finding::note("not-rendered", source.span, "alerts from logs are not rendered")
                .help("count what matters as a metric, or declare the rules of the log store in `objects`"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{BURN_RATES, number};

    #[test]
    fn thirty_days_give_the_factors_of_the_workbook() {
        let factors: Vec<String> =
            BURN_RATES.iter().map(|rate| number(rate.share / 100.0 * 720.0 / rate.hours)).collect();
        assert_eq!(factors, ["14.4", "6", "3", "1"]);
    }
}
