//! What became of alerts: whether routes lead to their receivers, and who has got what was raised.

use std::collections::BTreeSet;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct AlertsReport {
    /// What it is here.
    pub(crate) by: String,
    /// What all receivers are here.
    pub(crate) receivers: &'static str,
    /// Why it does not run with what is rendered.
    pub(crate) refused: Option<String>,
    /// Whom the file declares to be told, each tried by an alert that `up` has raised for it.
    pub(crate) routes: Vec<AlertRouteReport>,
    /// What Prometheus has raised.
    pub(crate) raised: Vec<RaisedReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct AlertRouteReport {
    pub(crate) severity: &'static str,
    /// The step of the escalation; none: the alert itself.
    pub(crate) step: Option<usize>,
    /// The receiver: namespace, configuration, name.
    pub(crate) to: String,
    /// Who has got the alert.
    pub(crate) arrived: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RaisedReport {
    pub(crate) alert: String,
    pub(crate) namespace: Option<String>,
    pub(crate) severity: Option<String>,
    /// Whether Alertmanager has it.
    pub(crate) taken: bool,
    /// Whether it is kept back, as something heavier is raised for the same.
    pub(crate) suppressed: bool,
    /// The receivers that it is for; none: no route takes it.
    pub(crate) to: BTreeSet<String>,
    /// Those of them that have not got it.
    pub(crate) missing: BTreeSet<String>,
}

impl AlertRouteReport {
    /// Whether its receiver has got the alert, and nobody else.
    pub(crate) fn leads(&self) -> bool {
        self.arrived.iter().eq([&self.to])
    }
}

impl RaisedReport {
    fn delivered(&self) -> bool {
        self.taken && !self.suppressed && !self.to.is_empty() && self.missing.is_empty()
    }
}

impl AlertsReport {
    /// What does not hold. What no route takes is for nobody, as the file says.
    pub(crate) fn problems(&self) -> Vec<String> {
        if let Some(refused) = &self.refused {
            return vec![format!("Alertmanager does not take the rendered configuration: {refused}")];
        }
        let astray = self.routes.iter().filter(|route| !route.leads()).map(|route| {
            let step = route.step.map(|step| format!(", step {step} of its escalation,")).unwrap_or_default();
            let (severity, to) = (route.severity, short(&route.to));
            match route.arrived.iter().filter(|arrived| **arrived != route.to).collect::<Vec<_>>()[..] {
                [] => format!("an alert of severity `{severity}`{step} does not reach `{to}`"),
                [other, ..] => {
                    format!("an alert of severity `{severity}`{step} is for `{to}`, and reaches `{}`", short(other))
                }
            }
        });
        let lost = self.raised.iter().filter_map(|raised| {
            let alert = &raised.alert;
            if !raised.taken {
                return Some(format!("the alert `{alert}` was raised and has not reached Alertmanager"));
            }
            let missing = raised.missing.iter().next().filter(|_| !raised.suppressed)?;
            Some(format!("the alert `{alert}` was raised and has not reached `{}`", short(missing)))
        });
        astray.chain(lost).collect()
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        if self.refused.is_some() {
            return format!("alerts {} does not run with what is rendered", self.by);
        }
        let delivered: Vec<&RaisedReport> = self.raised.iter().filter(|raised| raised.delivered()).collect();
        let to: BTreeSet<&str> = delivered.iter().flat_map(|raised| &raised.to).map(|to| short(to)).collect();
        let to: Vec<&str> = to.into_iter().collect();
        let to = if to.is_empty() { String::new() } else { format!(", to {}", to.join(", ")) };
        let (all, led) = (self.routes.len(), self.routes.iter().filter(|route| route.leads()).count());
        format!(
            "alerts raised {}, delivered {}{to}; {} leads {led} of {all} test alerts to stand-ins of their receivers",
            self.raised.len(),
            delivered.len(),
            self.by
        )
    }
}

/// The receiver as the file calls it.
fn short(receiver: &str) -> &str {
    receiver.rsplit('/').next().unwrap_or(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| format!("shop/shop/{name}")).collect()
    }

    fn route(severity: &'static str, step: Option<usize>, to: &str, arrived: &[&str]) -> AlertRouteReport {
        AlertRouteReport { severity, step, to: format!("shop/shop/{to}"), arrived: set(arrived) }
    }

    fn raised(alert: &str, to: &[&str], missing: &[&str]) -> RaisedReport {
        RaisedReport {
            alert: alert.to_owned(),
            namespace: None,
            severity: None,
            taken: true,
            suppressed: false,
            to: set(to),
            missing: set(missing),
        }
    }

    fn report(routes: Vec<AlertRouteReport>, raised: Vec<RaisedReport>) -> AlertsReport {
        let by = "Alertmanager 0.25.0".to_owned();
        AlertsReport { by, receivers: "stand-in", refused: None, routes, raised }
    }

    #[test]
    fn a_healthy_run_raises_nothing_and_its_routes_lead_to_their_receivers() {
        let routes = vec![route("critical", None, "pager", &["pager"]), route("critical", Some(1), "chat", &["chat"])];
        let report = report(routes, Vec::new());
        assert_eq!(report.problems(), [""; 0]);
        let expected = "alerts raised 0, delivered 0; Alertmanager 0.25.0 leads 2 of 2 test alerts to stand-ins of their receivers";
        assert_eq!(report.line(), expected);
    }

    #[test]
    fn what_reaches_nobody_or_somebody_else_breaks_a_promise() {
        let routes = vec![
            route("critical", None, "pager", &[]),
            route("critical", Some(1), "chat", &["pager"]),
            route("warning", None, "chat", &["chat", "pager"]),
        ];
        let mut away = raised("Away", &["pager"], &["pager"]);
        away.taken = false;
        let mut inhibited = raised("Inhibited", &["chat"], &["chat"]);
        inhibited.suppressed = true;
        let raised = vec![
            raised("Down", &["pager"], &[]),
            raised("Slow", &["chat"], &["chat"]),
            raised("Unrouted", &[], &[]),
            inhibited,
            away,
        ];
        let report = report(routes, raised);
        assert_eq!(
            report.problems(),
            [
                "an alert of severity `critical` does not reach `pager`",
                "an alert of severity `critical`, step 1 of its escalation, is for `chat`, and reaches `pager`",
                "an alert of severity `warning` is for `chat`, and reaches `pager`",
                "the alert `Slow` was raised and has not reached `chat`",
                "the alert `Away` was raised and has not reached Alertmanager",
            ]
        );
        let expected = "alerts raised 5, delivered 1, to pager; Alertmanager 0.25.0 leads 0 of 3 test alerts to stand-ins of their receivers";
        assert_eq!(report.line(), expected);
    }

    #[test]
    fn a_configuration_that_is_refused_breaks_a_promise() {
        let mut report = report(Vec::new(), Vec::new());
        report.refused = Some("undefined receiver \"x\" used in route".to_owned());
        let expected = "Alertmanager does not take the rendered configuration: undefined receiver \"x\" used in route";
        assert_eq!(report.problems(), [expected]);
        assert_eq!(report.line(), "alerts Alertmanager 0.25.0 does not run with what is rendered");
    }
}
