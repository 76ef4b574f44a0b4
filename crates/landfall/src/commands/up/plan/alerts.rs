//! Alertmanager: the real one, beside Prometheus, with the rendered `AlertmanagerConfig`s put together as the Prometheus operator
//! does it: each takes the alerts of its own namespace, and its receivers have its name before theirs.
//!
//! Every receiver is a stand-in, so that no alert leaves this machine: addresses, keys and messages of their own are not tried.
//! It starts with a configuration that tells nobody, and is handed the rendered one when it runs: so it can say why it refuses one.
//! Not handled: times in which a route is mute.

use std::collections::BTreeSet;
use std::path::Path;

use landfall_model::{Architecture, Route};
use landfall_standin::{ALERTS_PORT, Server, find_server};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Plan;
use super::externals::deployment;
use super::observability::{SINK, SINK_LABEL};

/// Made up here, as no architecture names one.
const IMAGE: &str = "landfall/alertmanager";

/// What its objects are called, and the label by which they are known.
pub(in crate::commands::up) const ALERTMANAGER: &str = "alertmanager-on-this-machine";
pub(in crate::commands::up) const ALERTMANAGER_LABEL: &str = "landfall.dev/alertmanager";
pub(in crate::commands::up) const ALERTMANAGER_PORT: u16 = 9093;

/// The key of its `ConfigMap` with the configuration.
pub(in crate::commands::up) const CONFIGURATION: &str = "alertmanager.yml";

/// The Service of the stand-in of all receivers.
const RECEIVERS: &str = "alert-receivers-on-this-machine";

/// Where its pod has its configuration and its data.
const FOLDER: &str = "/etc/alertmanager";
const DATA: &str = "/alertmanager";

/// The receiver of what nobody takes, as the operator calls it.
const NOBODY: &str = "null";

/// Alerts are gathered so long here, whatever is declared: a run takes seconds.
const SOON: &str = "1s";

/// The label with the number of the step of an escalation, as the rendered rules have it.
pub(in crate::commands::up) const STEP: &str = "escalation";

/// Who tells whom of alerts.
pub(in crate::commands::up) struct AlertsPlan {
    /// The namespace of its pod.
    pub(in crate::commands::up) namespace: String,
    /// What runs here, such as `Alertmanager 0.25.0`.
    pub(in crate::commands::up) server: String,
    /// What it is handed when it runs.
    pub(in crate::commands::up) configuration: String,
    /// A name in the configuration that no other one has.
    pub(in crate::commands::up) mark: String,
    /// The receivers that lead to somebody.
    pub(in crate::commands::up) leading: BTreeSet<String>,
    /// What the file declares.
    pub(in crate::commands::up) paths: Vec<AlertPath>,
}

/// Whom the file declares to be told of alerts of a severity.
pub(in crate::commands::up) struct AlertPath {
    pub(in crate::commands::up) severity: &'static str,
    /// The step of the escalation; none: the alert itself.
    pub(in crate::commands::up) step: Option<usize>,
    /// Where the alert is from.
    pub(in crate::commands::up) namespace: String,
    /// The receiver, as the configuration names it.
    pub(in crate::commands::up) to: String,
}

impl Plan {
    /// Alertmanager, where something is rendered for it and this machine has it: where Prometheus finds it.
    pub(super) fn add_alerts(&mut self, architecture: &Architecture, program: &Path) -> Option<String> {
        let rendered: Vec<Value> = of_kind(&self.objects, "AlertmanagerConfig").cloned().collect();
        if rendered.is_empty() {
            return None;
        }
        let Some(found) = find_server(Server::Alertmanager) else {
            let remedy = Server::Alertmanager.remedy();
            self.left_out.push(format!("no Alertmanager on this machine: alerts reach nobody; try: {remedy}"));
            return None;
        };
        let namespace = architecture.document.observability.namespace.to_string();
        let merged = merged(&rendered, &format!("http://{RECEIVERS}.{namespace}.svc:{ALERTS_PORT}/"));
        self.left_out.extend(merged.refused);
        self.left_out.extend(unheard(&self.objects));
        self.server(IMAGE.to_owned(), program, Server::Alertmanager, &found);
        self.additions.extend(objects(&namespace));
        self.ensure_namespace(&namespace);
        let address = format!("{ALERTMANAGER}.{namespace}.svc:{ALERTMANAGER_PORT}");
        self.alerts = Some(AlertsPlan {
            namespace,
            server: found.version,
            configuration: merged.configuration.to_string(),
            mark: merged.mark,
            leading: merged.leading,
            paths: paths(architecture, &rendered),
        });
        Some(address)
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The routes of the file, in each namespace that has a configuration of them.
fn paths(architecture: &Architecture, configurations: &[Value]) -> Vec<AlertPath> {
    let routes = &architecture.document.observability.alerts.routes;
    let declared: [(&'static str, &Option<Route>); 3] =
        [("critical", &routes.critical), ("warning", &routes.warning), ("info", &routes.info)];
    let mut paths = Vec::new();
    // Others are objects of the file, with routes of their own.
    let metadata = configurations.iter().map(|object| &object["metadata"]);
    for metadata in metadata.filter(|metadata| metadata["labels"]["app.kubernetes.io/managed-by"] == "landfall") {
        let [namespace, name] = ["namespace", "name"].map(|field| metadata[field].as_str().unwrap_or_default());
        for (severity, route) in declared {
            let Some(route) = route else { continue };
            let first = (None, route.to.as_str());
            let next = route.escalate.iter().enumerate().map(|(place, step)| (Some(place + 1), step.to.as_str()));
            for (step, to) in std::iter::once(first).chain(next) {
                let to = qualified(namespace, name, to);
                paths.push(AlertPath { severity, step, namespace: namespace.to_owned(), to });
            }
        }
    }
    paths
}

/// A receiver of an `AlertmanagerConfig`, as the operator calls it.
fn qualified(namespace: &str, configuration: &str, receiver: &str) -> String {
    format!("{namespace}/{configuration}/{receiver}")
}

/// The namespaces whose alerts no `AlertmanagerConfig` takes, in words.
fn unheard(objects: &[Value]) -> Option<String> {
    let namespace = |object: &Value| object["metadata"]["namespace"].as_str().map(ToOwned::to_owned);
    let heard: BTreeSet<String> = of_kind(objects, "AlertmanagerConfig").filter_map(namespace).collect();
    let raises = |object: &&Value| {
        let groups = list(&object["spec"]["groups"]);
        groups.flat_map(|group| list(&group["rules"])).any(|rule| rule["alert"].is_string())
    };
    let raising: BTreeSet<String> = of_kind(objects, "PrometheusRule").filter(raises).filter_map(namespace).collect();
    let unheard: Vec<String> = raising.difference(&heard).map(|namespace| format!("`{namespace}`")).collect();
    let heard: Vec<String> = heard.iter().map(|namespace| format!("`{namespace}`")).collect();
    (!unheard.is_empty()).then(|| {
        format!(
            "alerts from {} reach nobody: the Prometheus operator gives an `AlertmanagerConfig` those of its own namespace, which is {}",
            unheard.join(", "),
            heard.join(", ")
        )
    })
}

/// What Alertmanager is handed.
struct Merged {
    configuration: Value,
    mark: String,
    leading: BTreeSet<String>,
    /// What of it is not handled, in words.
    refused: Vec<String>,
}

/// One configuration of all `AlertmanagerConfig`s, whose receivers lead to `sink`.
fn merged(rendered: &[Value], sink: &str) -> Merged {
    let (mut routes, mut inhibitions, mut receivers) = (Vec::new(), Vec::new(), vec![json!({ "name": NOBODY })]);
    let (mut leading, mut refused) = (BTreeSet::new(), Vec::new());
    for object in rendered {
        let metadata = &object["metadata"];
        let [namespace, name] = ["namespace", "name"].map(|field| metadata[field].as_str().unwrap_or_default());
        match Translated::of(namespace, name, &object["spec"], sink) {
            Ok(translated) => {
                routes.extend(translated.route);
                inhibitions.extend(translated.inhibitions);
                receivers.extend(translated.receivers);
                leading.extend(translated.leading);
            }
            Err(what) => refused.push(format!(
                "not handled yet: {what} of the AlertmanagerConfig `{name}`, so that nobody is told of alerts from `{namespace}`"
            )),
        }
    }
    let mut configuration = json!({
        "route": { "receiver": NOBODY, "group_wait": SOON, "group_interval": SOON, "routes": routes },
        "inhibit_rules": inhibitions,
        "receivers": receivers,
    });
    let digest = format!("{:x}", Sha256::digest(configuration.to_string()));
    let mark = format!("configuration-{}", &digest[..16]);
    if let Some(receivers) = configuration["receivers"].as_array_mut() {
        receivers.push(json!({ "name": mark }));
    }
    Merged { configuration, mark, leading, refused }
}

/// An `AlertmanagerConfig` in the words of Alertmanager's own configuration
/// (<https://prometheus.io/docs/alerting/latest/configuration/>).
struct Translated {
    route: Option<Value>,
    inhibitions: Vec<Value>,
    receivers: Vec<Value>,
    leading: BTreeSet<String>,
}

impl Translated {
    /// `Err` names a field that is not handled.
    fn of(namespace: &str, name: &str, spec: &Value, sink: &str) -> Result<Self, String> {
        only(spec, &["route", "inhibitRules", "receivers"])?;
        let qualify = |receiver: &str| qualified(namespace, name, receiver);
        let own = matcher(&json!({ "name": "namespace", "value": namespace }))?;
        let mut route = None;
        if spec["route"].is_object() {
            let mut first = self::route(&spec["route"], &qualify)?;
            if let Some(matchers) = first["matchers"].as_array_mut() {
                matchers.insert(0, own.clone());
            }
            // Others may take the same alert.
            first["continue"] = json!(true);
            route = Some(first);
        }
        let inhibitions = list(&spec["inhibitRules"]).map(|rule| inhibition(rule, &own)).collect::<Result<_, _>>()?;
        let (mut receivers, mut leading) = (Vec::new(), BTreeSet::new());
        for declared in list(&spec["receivers"]) {
            let name = qualify(declared["name"].as_str().unwrap_or_default());
            let hooks = hooks(declared, sink);
            let mut receiver = json!({ "name": name });
            if !hooks.is_empty() {
                receiver["webhook_configs"] = hooks.into();
                leading.insert(name);
            }
            receivers.push(receiver);
        }
        Ok(Self { route, inhibitions, receivers, leading })
    }
}

/// A route and those below it.
fn route(declared: &Value, qualify: &dyn Fn(&str) -> String) -> Result<Value, String> {
    let fields =
        ["receiver", "groupBy", "groupWait", "groupInterval", "repeatInterval", "matchers", "continue", "routes"];
    only(declared, &fields)?;
    let mut route = Map::new();
    if let Some(receiver) = declared["receiver"].as_str() {
        route.insert("receiver".to_owned(), qualify(receiver).into());
    }
    for (field, name) in [("groupBy", "group_by"), ("repeatInterval", "repeat_interval"), ("continue", "continue")] {
        if !declared[field].is_null() {
            route.insert(name.to_owned(), declared[field].clone());
        }
    }
    for (field, name) in [("groupWait", "group_wait"), ("groupInterval", "group_interval")] {
        if !declared[field].is_null() {
            route.insert(name.to_owned(), SOON.into());
        }
    }
    let matchers: Vec<Value> = list(&declared["matchers"]).map(matcher).collect::<Result<_, _>>()?;
    route.insert("matchers".to_owned(), matchers.into());
    let below: Vec<Value> =
        list(&declared["routes"]).map(|below| self::route(below, qualify)).collect::<Result<_, _>>()?;
    if !below.is_empty() {
        route.insert("routes".to_owned(), below.into());
    }
    Ok(route.into())
}

/// What is kept back while something heavier is raised; only among the alerts of its namespace.
fn inhibition(declared: &Value, own: &Value) -> Result<Value, String> {
    only(declared, &["sourceMatch", "targetMatch", "equal"])?;
    let side = |field: &str| -> Result<Vec<Value>, String> {
        let own = std::iter::once(Ok(own.clone()));
        own.chain(list(&declared[field]).map(matcher)).collect()
    };
    Ok(json!({
        "source_matchers": side("sourceMatch")?,
        "target_matchers": side("targetMatch")?,
        "equal": list(&declared["equal"]).collect::<Vec<_>>(),
    }))
}

/// `severity="critical"`.
fn matcher(declared: &Value) -> Result<Value, String> {
    only(declared, &["name", "value", "matchType", "regex"])?;
    // From before a match had a type.
    let usual = if declared["regex"] == json!(true) { "=~" } else { "=" };
    let type_ = declared["matchType"].as_str().unwrap_or(usual);
    let name = declared["name"].as_str().unwrap_or_default();
    let value = declared["value"].as_str().unwrap_or_default();
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    Ok(format!("{name}{type_}\"{value}\"").into())
}

/// A webhook to the stand-in in the place of each way in which a receiver is told.
fn hooks(receiver: &Value, sink: &str) -> Vec<Value> {
    let fields = receiver.as_object().into_iter().flatten().filter(|(field, _)| field.ends_with("Configs"));
    let ways = fields.flat_map(|(_, ways)| list(ways));
    ways.map(|way| json!({ "url": sink, "send_resolved": way["sendResolved"] == json!(true) })).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether there are no other fields; otherwise the first of them.
fn only(declared: &Value, fields: &[&str]) -> Result<(), String> {
    let mut others = declared.as_object().into_iter().flatten().filter(|(field, _)| !fields.contains(&field.as_str()));
    others.next().map_or(Ok(()), |(field, _)| Err(format!("`{field}`")))
}

/// Its pod, what it starts with, and the Service of its receivers. YAML is a superset of JSON (YAML 1.2.2, section 1.3).
fn objects(namespace: &str) -> Vec<Value> {
    let labels = json!({ ALERTMANAGER_LABEL: ALERTMANAGER });
    let metadata = |name: &str| json!({ "name": name, "namespace": namespace, "labels": labels });
    let service = |name: &str, selector: Value, port: u16| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
            "spec": { "selector": selector, "ports": [{ "name": "http", "port": port }] },
        })
    };
    let start = json!({ "route": { "receiver": NOBODY }, "receivers": [{ "name": NOBODY }] });
    let container = json!({
        "name": "alertmanager",
        "image": IMAGE,
        "env": [
            { "name": "ALERTMANAGER_CONFIG", "value": format!("{FOLDER}/{CONFIGURATION}") },
            { "name": "ALERTMANAGER_DATA", "value": DATA },
        ],
        "readinessProbe": { "httpGet": { "port": ALERTMANAGER_PORT, "path": "/-/ready" }, "periodSeconds": 1 },
        "volumeMounts": [
            { "name": "configuration", "mountPath": FOLDER },
            { "name": "data", "mountPath": DATA },
        ],
    });
    let volumes = json!([
        { "name": "configuration", "configMap": { "name": ALERTMANAGER } },
        { "name": "data", "emptyDir": {} },
    ]);
    let mut alertmanager = deployment(&metadata(ALERTMANAGER), &labels, container, &volumes);
    alertmanager["spec"]["strategy"] = json!({ "type": "Recreate" });
    vec![
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(ALERTMANAGER),
            "data": { CONFIGURATION: start.to_string() },
        }),
        alertmanager,
        service(ALERTMANAGER, labels.clone(), ALERTMANAGER_PORT),
        service(RECEIVERS, json!({ SINK_LABEL: SINK }), ALERTS_PORT),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::up::architecture_of;

    fn configuration() -> Value {
        let is = |name: &str, value: &str| json!({ "name": name, "matchType": "=", "value": value });
        json!({
            "apiVersion": "monitoring.coreos.com/v1alpha1", "kind": "AlertmanagerConfig",
            "metadata": { "name": "shop", "namespace": "shop-here" },
            "spec": {
                "route": {
                    "receiver": "nobody", "groupBy": ["alertname"], "groupWait": "30s", "groupInterval": "5m",
                    "repeatInterval": "12h",
                    "routes": [
                        { "receiver": "chat", "matchers": [is("severity", "critical"), is("escalation", "1")] },
                        { "receiver": "pager", "matchers": [is("severity", "critical")], "repeatInterval": "1h" },
                    ],
                },
                "inhibitRules": [{
                    "sourceMatch": [is("severity", "critical")], "targetMatch": [is("severity", "warning")],
                    "equal": ["service"],
                }],
                "receivers": [
                    { "name": "nobody" },
                    { "name": "chat", "slackConfigs": [{ "apiURL": { "name": "a", "key": "b" }, "sendResolved": true }] },
                    { "name": "pager", "pagerdutyConfigs": [{}], "webhookConfigs": [{ "url": "https://pager.example" }] },
                ],
            },
        })
    }

    #[test]
    fn a_configuration_takes_its_own_namespace_and_leads_to_the_stand_in_alone() {
        let merged = merged(&[configuration()], "http://sink:1/");
        assert_eq!(merged.refused, [""; 0]);
        let leading = BTreeSet::from(["shop-here/shop/chat".to_owned(), "shop-here/shop/pager".to_owned()]);
        assert_eq!(merged.leading, leading);
        let hook = |resolved: bool| json!({ "url": "http://sink:1/", "send_resolved": resolved });
        let expected = json!({
            "route": {
                "receiver": "null", "group_wait": "1s", "group_interval": "1s",
                "routes": [{
                    "receiver": "shop-here/shop/nobody", "group_by": ["alertname"], "repeat_interval": "12h",
                    "group_wait": "1s", "group_interval": "1s",
                    "matchers": ["namespace=\"shop-here\""],
                    "routes": [
                        {
                            "receiver": "shop-here/shop/chat",
                            "matchers": ["severity=\"critical\"", "escalation=\"1\""],
                        },
                        {
                            "receiver": "shop-here/shop/pager", "repeat_interval": "1h",
                            "matchers": ["severity=\"critical\""],
                        },
                    ],
                    "continue": true,
                }],
            },
            "inhibit_rules": [{
                "source_matchers": ["namespace=\"shop-here\"", "severity=\"critical\""],
                "target_matchers": ["namespace=\"shop-here\"", "severity=\"warning\""],
                "equal": ["service"],
            }],
            "receivers": [
                { "name": "null" },
                { "name": "shop-here/shop/nobody" },
                { "name": "shop-here/shop/chat", "webhook_configs": [hook(true)] },
                { "name": "shop-here/shop/pager", "webhook_configs": [hook(false), hook(false)] },
                { "name": merged.mark },
            ],
        });
        assert_eq!(merged.configuration, expected, "{:#}", merged.configuration);
    }

    #[test]
    fn another_configuration_has_another_mark() {
        let mut other = configuration();
        other["spec"]["route"]["receiver"] = json!("pager");
        let mark = |configuration: Value| merged(&[configuration], "http://sink:1/").mark;
        assert_eq!(mark(configuration()), mark(configuration()));
        assert_ne!(mark(configuration()), mark(other));
        assert_eq!(mark(configuration()).len(), "configuration-".len() + 16);
    }

    #[test]
    fn what_is_not_handled_is_told_and_the_others_are_taken() {
        let mut muted = configuration();
        muted["metadata"]["namespace"] = json!("night");
        muted["spec"]["route"]["routes"][0]["muteTimeIntervals"] = json!(["night"]);
        let merged = merged(&[muted, configuration()], "http://sink:1/");
        let expected = "not handled yet: `muteTimeIntervals` of the AlertmanagerConfig `shop`, so that nobody is told of alerts from `night`";
        assert_eq!(merged.refused, [expected]);
        assert_eq!(list(&merged.configuration["route"]["routes"]).count(), 1);
    }

    #[test]
    fn values_of_matches_are_quoted() {
        let text = |declared: Value| matcher(&declared).map(|matcher| matcher.as_str().unwrap_or_default().to_owned());
        let quoted = json!({ "name": "path", "value": "a\"b\\c", "matchType": "!=" });
        assert_eq!(text(quoted).as_deref(), Ok(r#"path!="a\"b\\c""#));
        assert_eq!(text(json!({ "name": "path", "value": "a.*", "regex": true })).as_deref(), Ok("path=~\"a.*\""));
    }

    #[test]
    fn every_namespace_with_a_rendered_configuration_has_the_routes_of_the_file() {
        let text = "{landfall: v1, name: shop, observability: {metrics: prometheus, alerts: {receivers: {hook: {by: webhook, to: 'https://hook.example'}}, routes: {critical: {to: hook, escalate: [{after: 5m, to: hook}]}}}}}";
        let architecture = architecture_of(text);
        let rendered = |namespace: &str| {
            let labels = json!({ "app.kubernetes.io/managed-by": "landfall" });
            json!({ "metadata": { "name": "shop", "namespace": namespace, "labels": labels } })
        };
        let own = json!({ "metadata": { "name": "odd", "namespace": "mocks" } });
        let found = paths(&architecture, &[rendered("mocks"), own, rendered("shop")]);
        let found: Vec<_> = found.iter().map(|path| (path.namespace.as_str(), path.step, path.to.as_str())).collect();
        let (there, here) = ("mocks/shop/hook", "shop/shop/hook");
        assert_eq!(
            found,
            [("mocks", None, there), ("mocks", Some(1), there), ("shop", None, here), ("shop", Some(1), here)]
        );
    }

    #[test]
    fn namespaces_whose_alerts_nobody_takes_are_told() {
        let rule = |namespace: &str, rule: Value| {
            json!({
                "kind": "PrometheusRule", "metadata": { "name": "web", "namespace": namespace },
                "spec": { "groups": [{ "name": "web", "rules": [rule] }] },
            })
        };
        let alert = || json!({ "alert": "Down", "expr": "up == 0" });
        let records = rule("figures", json!({ "record": "a", "expr": "b" }));
        let mut objects = vec![configuration(), rule("shop-here", alert()), records];
        assert_eq!(unheard(&objects), None);
        objects.push(rule("mocks", alert()));
        let expected = "alerts from `mocks` reach nobody: the Prometheus operator gives an `AlertmanagerConfig` those of its own namespace, which is `shop-here`";
        assert_eq!(unheard(&objects).as_deref(), Some(expected));
    }
}
