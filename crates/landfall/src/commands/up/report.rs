//! What `up` found out: as JSON for programs, as tables for people.

mod alerts;
mod firewall;
mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

pub(crate) use self::alerts::{AlertRouteReport, AlertsReport, RaisedReport};
pub(crate) use self::firewall::{AttackReport, FirewallReport, GuardedReport, OrdinaryReport};
pub(crate) use self::jobs::{JobOutcome, JobReport};
use super::isolation::Origin;
use super::plan::{PartPlan, ProgramPlan, missing_programs};
use crate::output::VERSION;

/// The whole report. The names of its fields are a contract.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) version: u32,
    pub(crate) project: String,
    pub(crate) environment: Option<String>,
    /// Of what a part ran, where that was asked for; none: it was the whole platform.
    pub(crate) part: Option<PartPlan>,
    /// How far pods are kept apart: evidence is as good as that.
    pub(crate) isolation: &'static str,
    pub(crate) pods: PodsReport,
    pub(crate) services: Vec<ServiceReport>,
    pub(crate) stores: Vec<StoreReport>,
    /// The services that the file has run by programs of their own.
    pub(crate) programs: Vec<ProgramPlan>,
    pub(crate) edges: EdgesReport,
    pub(crate) flows: Vec<FlowReport>,
    /// The jobs that ran meanwhile, and those that the file itself has run once.
    pub(crate) jobs: Vec<JobReport>,
    /// The ways in from outside.
    pub(crate) routes: Vec<RouteReport>,
    /// What the firewall before the gateway does, where one is declared and this machine has it.
    pub(crate) firewall: Option<FirewallReport>,
    /// What Prometheus says, where it is declared and this machine has it.
    pub(crate) metrics: Option<MetricsReport>,
    /// What became of alerts, where somebody is declared to be told of them and this machine has an Alertmanager.
    pub(crate) alerts: Option<AlertsReport>,
    /// What has reached the log store, where one is declared.
    pub(crate) logs: Option<LogsReport>,
    /// What the spans of the flows show, where a store of traces is declared.
    pub(crate) traces: Option<TracesReport>,
    /// What of the architecture does not run here.
    pub(crate) left_out: Vec<String>,
    /// The promises that did not hold; none: all that can be shown here did.
    pub(crate) broken: Vec<String>,
    pub(crate) times: Times,
}

#[derive(Debug, Serialize)]
pub(crate) struct PodsReport {
    pub(crate) ready: usize,
    pub(crate) total: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct ServiceReport {
    pub(crate) name: String,
    /// How many copies are ready; those of jobs come and go.
    pub(crate) ready: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct StoreReport {
    pub(crate) name: String,
    pub(crate) engine: &'static str,
    pub(crate) server: String,
    /// The version that the file asks for.
    pub(crate) declared: Option<String>,
    /// Who made its pods: `stand-in` is a small operator, whose evidence says nothing about the real one. None: it is a plain
    /// `StatefulSet`, here as on a cluster.
    pub(crate) operator: Option<&'static str>,
    /// The operator that makes them on a cluster.
    pub(crate) in_place_of: Option<&'static str>,
    pub(crate) ready: usize,
    pub(crate) members: usize,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct EdgesReport {
    pub(crate) declared: usize,
    pub(crate) carrying: usize,
    pub(crate) silent: Vec<SilentEdge>,
    /// Those of programs that tell nothing of them, while there is a connection: what it carries nobody knows.
    pub(crate) connected: Vec<String>,
    /// Those that nobody can perform here.
    pub(crate) missing: Vec<MissingEdge>,
    /// Pairs without an edge that were tried.
    pub(crate) undeclared: Option<usize>,
    /// How many of them begin where.
    pub(crate) undeclared_from: BTreeMap<Origin, usize>,
    /// Pairs without an edge that nothing closes on this machine, as no policy is enforced. They are not tried.
    pub(crate) not_enforceable: usize,
    /// How many of them begin where.
    pub(crate) not_enforceable_from: BTreeMap<Origin, usize>,
    /// Of the tried, those that accepted a connection.
    pub(crate) reachable: Vec<String>,
    /// Where pairs begin that could not be tried, and why.
    pub(crate) untried: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SilentEdge {
    pub(crate) edge: String,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct MissingEdge {
    pub(crate) edge: String,
    pub(crate) because: String,
    /// Whether that is so because `--only` leaves out where it begins or ends: then it breaks no promise.
    pub(crate) left_out: bool,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct FlowReport {
    pub(crate) name: String,
    /// Messages that the platform has taken.
    pub(crate) sent: usize,
    /// Messages that it refused, which the client knows.
    pub(crate) refused: u64,
    /// The share of all messages that may be refused, from 0 to 1.
    pub(crate) may_refuse: f64,
    /// Why the first of them was.
    pub(crate) refusal: Option<String>,
    pub(crate) arrived: usize,
    pub(crate) lost: usize,
    /// How often two copies of an end have dealt with the same message.
    pub(crate) duplicated: u64,
    /// How often a message came to a copy of an end that had dealt with it, since that copy started.
    pub(crate) suppressed: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) within_ms: u64,
    /// The file with the JSON Schema that its messages keep to, where one is declared.
    pub(crate) schema: Option<String>,
    /// How many bytes a request of it has, where a size is declared.
    pub(crate) payload_bytes: Option<usize>,
    /// How many messages stand-ins were sent that do not keep to the schema.
    pub(crate) invalid: u64,
    /// Why the flow cannot run here.
    pub(crate) missing: Option<String>,
    /// Whether that is so because `--only` leaves out something on its way: then it breaks no promise.
    pub(crate) left_out: bool,
    /// Why the flow does not keep its promise.
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RouteReport {
    pub(crate) service: String,
    pub(crate) host: String,
    pub(crate) path: String,
    /// Whether TLS is declared: then requests without are kept away.
    pub(crate) tls: bool,
    /// The status of an answer.
    pub(crate) answer: Option<u16>,
    pub(crate) limit: Option<LimitReport>,
    /// Why the route does not keep its promise.
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LimitReport {
    /// How often one client may ask.
    pub(crate) declared: String,
    /// How many requests of one client were answered as fast as they came.
    pub(crate) requests: usize,
    /// After how many the gateway answered 429; none: it never did.
    pub(crate) refused_after: Option<usize>,
    /// Whether this machine asks too slowly to come to the limit.
    pub(crate) undecided: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct MetricsReport {
    /// What it is here.
    pub(crate) by: String,
    pub(crate) targets: Vec<TargetReport>,
    pub(crate) business: Vec<BusinessReport>,
    pub(crate) rules: RulesReport,
}

#[derive(Debug, Serialize)]
pub(crate) struct TargetReport {
    pub(crate) service: String,
    pub(crate) namespace: String,
    pub(crate) copies: usize,
    /// How many of them have answered Prometheus.
    pub(crate) scraped: usize,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BusinessReport {
    pub(crate) metric: String,
    pub(crate) service: String,
    pub(crate) found: bool,
    /// Whether it is there before anything has happened.
    pub(crate) expected: bool,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct RulesReport {
    pub(crate) evaluated: usize,
    /// Those that were not evaluated yet.
    pub(crate) waiting: usize,
    /// Those that cannot be evaluated, and why.
    pub(crate) failing: Vec<String>,
    /// The alerts that were raised.
    pub(crate) firing: BTreeSet<String>,
}

impl MetricsReport {
    /// What does not hold.
    pub(crate) fn problems(&self) -> Vec<String> {
        let away = self.targets.iter().filter(|target| target.scraped < target.copies).map(|target| {
            let why = target.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            format!("Prometheus gets to {} of {} copies of `{}`{why}", target.scraped, target.copies, target.service)
        });
        let lacking = self.business.iter().filter(|metric| metric.expected && !metric.found);
        let lacking = lacking.map(|metric| format!("`{}` does not report `{}`", metric.service, metric.metric));
        let failing = self.rules.failing.iter().map(|rule| format!("a rule cannot be evaluated: {rule}"));
        let waiting = (self.rules.waiting > 0).then(|| format!("{} rules were not evaluated", self.rules.waiting));
        away.chain(lacking).chain(failing).chain(waiting).collect()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct LogsReport {
    /// What the file declares.
    pub(crate) store: &'static str,
    /// What it is here.
    pub(crate) by: &'static str,
    /// Who has shipped the lines.
    pub(crate) shipper: &'static str,
    /// All that were shipped, those of stores included.
    pub(crate) lines: u64,
    pub(crate) services: Vec<ServiceLogsReport>,
    /// Why lines were still on their way, or that some were refused.
    pub(crate) trouble: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ServiceLogsReport {
    pub(crate) service: String,
    pub(crate) lines: u64,
    /// Those that are no JSON, where the file promises JSON and the store tells.
    pub(crate) not_json: Option<u64>,
    /// Whether a word that each of its copies was asked to write is in the store; nobody can ask a program of one's own.
    pub(crate) found: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TracesReport {
    /// What the file declares.
    pub(crate) store: &'static str,
    /// What it is here.
    pub(crate) by: &'static str,
    pub(crate) spans: u64,
    pub(crate) traces: usize,
    /// How long edges take that flows use.
    pub(crate) edges: Vec<EdgeTraceReport>,
    /// Who has caused work in whom, as spans show it.
    pub(crate) calls: Vec<CallReport>,
    pub(crate) flows: Vec<FlowTraceReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct EdgeTraceReport {
    pub(crate) edge: String,
    pub(crate) count: usize,
    pub(crate) failed: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct CallReport {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) count: usize,
    /// Whether declared edges lead from one to the other.
    pub(crate) declared: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct FlowTraceReport {
    pub(crate) name: String,
    /// The stand-ins that it passes; none where it begins in several places, as each has traces of its own.
    pub(crate) services: BTreeSet<String>,
    /// A trace that most of them took part in.
    pub(crate) trace: Option<String>,
    /// Those that took no part in it.
    pub(crate) missing: BTreeSet<String>,
}

/// In milliseconds.
#[expect(clippy::struct_field_names, reason = "the fields are the names in the JSON, which say their unit")]
#[derive(Debug, Default, Serialize)]
pub(crate) struct Times {
    /// Reading, rendering and checking.
    pub(crate) check_ms: u64,
    /// Until the engine served.
    pub(crate) engine_ms: u64,
    /// From then until every object was applied.
    pub(crate) apply_ms: u64,
    /// From then until every pod was ready, the delays of declared probes included.
    pub(crate) ready_ms: u64,
    /// How long the flows were driven and waited for.
    pub(crate) flows_ms: u64,
}

impl Report {
    /// A new report on nothing yet.
    pub(crate) fn new(project: String, environment: Option<String>, isolation: &'static str) -> Self {
        Self {
            version: VERSION,
            project,
            environment,
            part: None,
            isolation,
            pods: PodsReport { ready: 0, total: 0 },
            services: Vec::new(),
            stores: Vec::new(),
            programs: Vec::new(),
            edges: EdgesReport::default(),
            flows: Vec::new(),
            jobs: Vec::new(),
            routes: Vec::new(),
            firewall: None,
            metrics: None,
            alerts: None,
            logs: None,
            traces: None,
            left_out: Vec::new(),
            broken: Vec::new(),
            times: Times::default(),
        }
    }

    /// Writes down which promises did not hold.
    pub(crate) fn judge(&mut self) {
        let silent = self.edges.silent.iter().map(|silent| {
            let why = silent.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            format!("edge `{}` carries nothing{why}", silent.edge)
        });
        let missing = self.edges.missing.iter().filter(|edge| !edge.left_out);
        let missing = missing.map(|edge| format!("edge `{}` is not tried: {}", edge.edge, edge.because));
        let reachable = self.edges.reachable.iter().map(|pair| format!("`{pair}` is open, and no edge declares it"));
        let untried = self.edges.untried.iter();
        let untried = untried.map(|from| format!("whether undeclared ways are closed is not tried from {from}"));
        let reachable = reachable.chain(untried);
        let flows = self.flows.iter().filter_map(|flow| match (&flow.missing, &flow.problem) {
            (Some(_), _) if flow.left_out => None,
            (Some(missing), _) => Some(format!("flow `{}` is not tried: {missing}", flow.name)),
            (None, Some(problem)) => Some(format!("flow `{}`: {problem}", flow.name)),
            (None, None) => None,
        });
        let trouble = self.logs.as_ref().and_then(|logs| logs.trouble.as_ref());
        let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
        let lines = self.logs.iter().flat_map(|logs| &logs.services).filter(|service| service.found == Some(false));
        let lines =
            lines.map(|service| format!("what `{}` logs does not reach the log store{trouble}", service.service));
        let traced = self.traces.iter().flat_map(|traces| &traces.flows).filter(|flow| !flow.missing.is_empty());
        let traced = traced.map(|flow| {
            let missing: Vec<_> = flow.missing.iter().map(String::as_str).collect();
            format!("no trace of flow `{}` has {}", flow.name, missing.join(", "))
        });
        let calls = self.traces.iter().flat_map(|traces| &traces.calls).filter(|call| !call.declared);
        let calls = calls.map(|call| format!("`{}` causes work in `{}`, and no edges lead there", call.from, call.to));
        let metrics = self.metrics.iter().flat_map(MetricsReport::problems);
        let metrics = metrics.chain(self.alerts.iter().flat_map(AlertsReport::problems));
        let observed = metrics.chain(lines).chain(traced).chain(calls);
        let routes = self.routes.iter().filter_map(|route| {
            let problem = route.problem.as_ref()?;
            Some(format!("route `{}{}` to `{}`: {problem}", route.host, route.path, route.service))
        });
        let jobs = self.jobs.iter().filter_map(|job| Some(format!("job `{}`: {}", job.name, job.problem.as_ref()?)));
        let firewall = self.firewall.iter().flat_map(FirewallReport::problems);
        let flows = flows.chain(jobs).chain(routes).chain(firewall);
        self.broken = missing.chain(silent).chain(reachable).chain(flows).chain(observed).collect();
    }

    /// For people.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut stores = table(&["STORE", "RUNS", "DECLARED", "READY", "BY"]);
        for store in &self.stores {
            stores.add_row([
                store.name.clone(),
                store.server.clone(),
                format!("{} {}", store.engine, store.declared.as_deref().unwrap_or("")).trim().to_owned(),
                format!("{}/{}", store.ready, store.members),
                store.in_place_of.map_or_else(
                    || "a plain StatefulSet".to_owned(),
                    |operator| format!("a small operator in place of {operator}"),
                ),
            ]);
        }
        let flows = flow_table(&self.flows);
        let edges = &self.edges;
        writeln!(out, "{stores}\n\n{flows}\n")?;
        self.print_part(out)?;
        writeln!(out, "pods   {} of {} ready", self.pods.ready, self.pods.total)?;
        writeln!(out, "       isolation `{}`: {}", self.isolation, kept_apart(self.isolation))?;
        writeln!(out, "edges  {} of {} declared ones carry", edges.carrying, edges.declared)?;
        if !edges.connected.is_empty() {
            let connected = edges.connected.len();
            writeln!(out, "       {connected} have a connection; what it carries their programs do not tell")?;
        }
        match edges.undeclared {
            Some(undeclared) => {
                let closed = undeclared - edges.reachable.len();
                let from = told_by_origin(&edges.undeclared_from);
                writeln!(out, "       {closed} of {undeclared} undeclared ones are closed: {from}")?;
            }
            None => writeln!(out, "       undeclared ones are not tried")?,
        }
        if edges.not_enforceable > 0 {
            let (count, from) = (edges.not_enforceable, told_by_origin(&edges.not_enforceable_from));
            writeln!(out, "       {count} undeclared ones are not enforceable here, and are open: {from}")?;
        }
        if let Some(line) = jobs::line(&self.jobs) {
            writeln!(out, "{line}")?;
        }
        if !self.routes.is_empty() {
            let (all, kept) = (self.routes.len(), self.routes.iter().filter(|route| route.problem.is_none()).count());
            let limited = self.routes.iter().filter_map(|route| route.limit.as_ref()?.refused_after);
            write!(out, "routes {kept} of {all} answer, by TLS alone where it is declared")?;
            for after in limited {
                write!(out, "; a client was refused after {after} requests")?;
            }
            let undecided = |route: &&RouteReport| route.limit.as_ref().is_some_and(|limit| limit.undecided);
            match self.routes.iter().filter(undecided).count() {
                0 => {}
                count => write!(out, "; this machine asks too slowly to come to the limit of {count}")?,
            }
            writeln!(out)?;
        }
        for line in self.firewall.iter().flat_map(FirewallReport::lines) {
            writeln!(out, "{line}")?;
        }
        if let Some(metrics) = &self.metrics {
            let copies: usize = metrics.targets.iter().map(|target| target.copies).sum();
            let scraped: usize = metrics.targets.iter().map(|target| target.scraped).sum();
            let by = &metrics.by;
            writeln!(
                out,
                "metrics {by} gets to {scraped} of {copies} copies, and evaluates {} rules",
                metrics.rules.evaluated
            )?;
            let (all, found) = (metrics.business.len(), metrics.business.iter().filter(|metric| metric.found).count());
            if all > 0 {
                writeln!(out, "       {found} of {all} business metrics are there")?;
            }
            if !metrics.rules.firing.is_empty() {
                let firing: Vec<_> = metrics.rules.firing.iter().map(String::as_str).collect();
                writeln!(out, "       alerts are raised: {}", firing.join(", "))?;
            }
        }
        if let Some(alerts) = &self.alerts {
            writeln!(out, "{}", alerts.line())?;
        }
        if let Some(logs) = &self.logs {
            let asked: Vec<_> = logs.services.iter().filter_map(|service| service.found).collect();
            let (found, asked) = (asked.iter().filter(|found| **found).count(), asked.len());
            write!(out, "logs   {} lines in a stand-in of {}", logs.lines, logs.store)?;
            match asked {
                // Programs of one's own are not asked to write one.
                0 => writeln!(out)?,
                _ => writeln!(out, "; a word of {found} of {asked} services is there")?,
            }
            let plain: u64 = logs.services.iter().filter_map(|service| service.not_json).sum();
            if plain > 0 {
                writeln!(out, "       {plain} lines of services are no JSON")?;
            }
        }
        if let Some(traces) = &self.traces {
            let whole = traces.flows.iter().filter(|flow| flow.missing.is_empty()).count();
            let all = traces.flows.len();
            writeln!(
                out,
                "traces {} spans in a stand-in of {}; {whole} of {all} flows are traced whole",
                traces.spans, traces.store
            )?;
        }
        let programs: Vec<_> = self.programs.iter().filter(|program| program.runs).collect();
        if !programs.is_empty() {
            let services: Vec<_> = programs.iter().map(|program| program.service.as_str()).collect();
            writeln!(out, "note   programs of their own: {}; the other services are stand-ins", services.join(", "))?;
        }
        for line in missing_programs(&self.programs).iter().chain(&self.left_out) {
            writeln!(out, "note   {line}")?;
        }
        for line in &self.broken {
            writeln!(out, "no     {line}")?;
        }
        Ok(())
    }

    /// That this speaks of a part, and of which.
    fn print_part(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(part) = &self.part else { return Ok(()) };
        let [runs, left_out] = part.lines();
        writeln!(out, "part   {runs}")?;
        writeln!(out, "       {left_out}")?;
        let (edges, all) = (self.edges.missing.iter().filter(|edge| edge.left_out).count(), self.edges.declared);
        let flows = self.flows.iter().filter(|flow| flow.left_out);
        let flows: Vec<_> = flows.map(|flow| format!("`{}`", flow.name)).collect();
        match flows.as_slice() {
            [] => writeln!(out, "       not tried therefore: {edges} of {all} edges"),
            flows => {
                writeln!(out, "       not tried therefore: {edges} of {all} edges, and the flows {}", flows.join(", "))
            }
        }
    }
}

/// The flows for people.
pub(crate) fn flow_table(reports: &[FlowReport]) -> Table {
    let mut flows = table(&["FLOW", "SENT", "REFUSED", "ARRIVED", "LOST", "TWICE", "P50", "P99", "WITHIN"]);
    let time = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    for flow in reports.iter().filter(|flow| flow.missing.is_none()) {
        flows.add_row([
            flow.name.clone(),
            flow.sent.to_string(),
            flow.refused.to_string(),
            flow.arrived.to_string(),
            flow.lost.to_string(),
            flow.duplicated.to_string(),
            time(flow.p50_ms),
            time(flow.p99_ms),
            format!("{} ms", flow.within_ms),
        ]);
    }
    flows
}

/// Where ways begin, for people.
fn begins(origin: Origin) -> &'static str {
    match origin {
        Origin::Services => "from services",
        Origin::Stores => "from stores",
        Origin::Externals => "from externals past the gateway",
        Origin::Jobs => "from jobs",
        Origin::ForeignNamespaces => "from a foreign namespace",
        Origin::Outside => "from outside",
    }
}

/// `33 from services, 39 from stores`.
fn told_by_origin(counts: &BTreeMap<Origin, usize>) -> String {
    let counts = counts.iter().filter(|(_, count)| **count > 0);
    counts.map(|(origin, count)| format!("{count} {}", begins(*origin))).collect::<Vec<_>>().join(", ")
}

/// What evidence from pods that are kept apart so is worth.
fn kept_apart(isolation: &str) -> &'static str {
    match isolation {
        "namespace" => "each has a network of its own, and policies are enforced",
        _ => "they share the addresses of this machine, and policies are not enforced",
    }
}

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(name: &str, refused: u64, problem: Option<&str>) -> FlowReport {
        FlowReport {
            name: name.to_owned(),
            sent: 200,
            refused,
            arrived: 200,
            p50_ms: Some(12.5),
            p99_ms: Some(80.0),
            within_ms: 1000,
            problem: problem.map(ToOwned::to_owned),
            ..FlowReport::default()
        }
    }

    fn store(name: &str, engine: &'static str, server: &str, in_place_of: Option<&'static str>) -> StoreReport {
        StoreReport {
            name: name.to_owned(),
            engine,
            server: server.to_owned(),
            declared: in_place_of.map(|_| "17".to_owned()),
            operator: in_place_of.map(|_| "stand-in"),
            in_place_of,
            ready: 3,
            members: 3,
        }
    }

    /// The lines for people, without the blanks at their ends.
    fn lines(report: &Report) -> Vec<String> {
        let mut text = Vec::new();
        report.print(&mut text).expect("memory takes everything");
        let text = String::from_utf8(text).expect("it is text");
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn what_was_refused_is_a_column_and_breaks_the_promise_when_it_is_too_much() {
        let mut report = Report::new("shop".to_owned(), None, "namespace");
        let problem = "20 of 220 were refused, where none may be; the first time: 503 Service Unavailable";
        report.flows = vec![flow("look", 1, None), flow("order", 20, Some(problem))];
        report.judge();
        assert_eq!(report.broken, [format!("flow `order`: {problem}")]);
        let table = flow_table(&report.flows).to_string();
        assert_eq!(
            table.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                " FLOW   SENT  REFUSED  ARRIVED  LOST  TWICE  P50      P99    WITHIN",
                " look   200   1        200      0     0      12.5 ms  80 ms  1000 ms",
                " order  200   20       200      0     0      12.5 ms  80 ms  1000 ms",
            ]
        );
    }

    #[test]
    fn what_was_left_out_on_request_is_told_and_breaks_no_promise() {
        let mut report = Report::new("shop".to_owned(), None, "namespace");
        let list = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let (services, stores) = (list(&["mail", "web"]), list(&["rows"]));
        report.part = Some(PartPlan { only: list(&["stock"]), services, stores, externals: Vec::new() });
        let edge = |edge: &str, left_out| MissingEdge { edge: edge.to_owned(), because: "so".to_owned(), left_out };
        report.edges.declared = 2;
        report.edges.missing = vec![edge("web call stock", true), edge("stock write rows", false)];
        let flow =
            |name: &str, left_out| FlowReport { missing: Some("so".to_owned()), left_out, ..flow(name, 0, None) };
        report.flows = vec![flow("order", true), flow("look", false)];
        report.judge();
        assert_eq!(report.broken, ["edge `stock write rows` is not tried: so", "flow `look` is not tried: so"]);
        let lines = lines(&report);
        let part = lines.iter().position(|line| line.starts_with("part ")).expect("it is told");
        assert_eq!(
            lines[part..part + 3],
            [
                "part   `stock` and what is needed for that, as `--only` says",
                "       left out: services `mail`, `web`; stores `rows`",
                "       not tried therefore: 1 of 2 edges, and the flows `order`",
            ]
        );
    }

    #[test]
    fn jobs_are_told_and_one_that_failed_for_good_breaks_a_promise() {
        let job = |name: &str, failed, last, problem: Option<&str>| JobReport {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            runs: 2,
            failed,
            last,
            problem: problem.map(ToOwned::to_owned),
        };
        let mut report = Report::new("shop".to_owned(), None, "namespace");
        report.jobs = vec![
            job("nightly", 1, JobOutcome::Succeeded, Some("1 of 2 runs failed")),
            job("tidy", 0, JobOutcome::Running, None),
        ];
        report.judge();
        assert_eq!(report.broken, ["job `nightly`: 1 of 2 runs failed"]);
        let line = "jobs   4 runs of `nightly`, `tidy`, 1 failed; not at their end: `tidy`";
        assert!(lines(&report).iter().any(|told| told == line), "{:#?}", lines(&report));
        assert_eq!(serde_json::to_value(report.jobs[1].last).expect("it is JSON"), "running");
    }

    #[test]
    fn undeclared_ways_are_counted_by_where_they_begin_and_an_open_one_is_told_with_both_ends() {
        let mut report = Report::new("shop".to_owned(), None, "namespace");
        report.edges.undeclared = Some(12);
        report.edges.undeclared_from =
            [(Origin::Services, 7), (Origin::Stores, 5), (Origin::Jobs, 0)].into_iter().collect();
        report.edges.reachable = vec!["rows -> web".to_owned()];
        report.edges.untried = vec!["nightly: no room".to_owned()];
        report.judge();
        assert_eq!(
            report.broken,
            [
                "`rows -> web` is open, and no edge declares it",
                "whether undeclared ways are closed is not tried from nightly: no room",
            ]
        );
        let line = "       11 of 12 undeclared ones are closed: 7 from services, 5 from stores";
        assert!(lines(&report).iter().any(|told| told == line), "{:#?}", lines(&report));
    }

    #[test]
    fn what_nothing_closes_here_is_counted_and_breaks_no_promise() {
        let mut report = Report::new("shop".to_owned(), None, "loopback");
        report.edges.undeclared = Some(4);
        report.edges.undeclared_from = [(Origin::Outside, 4)].into_iter().collect();
        report.edges.not_enforceable = 12;
        report.edges.not_enforceable_from = [(Origin::Services, 7), (Origin::Stores, 5)].into_iter().collect();
        report.judge();
        assert_eq!(report.broken, Vec::<String>::new());
        let lines = lines(&report);
        for line in [
            "       isolation `loopback`: they share the addresses of this machine, and policies are not enforced",
            "       4 of 4 undeclared ones are closed: 4 from outside",
            "       12 undeclared ones are not enforceable here, and are open: 7 from services, 5 from stores",
        ] {
            assert!(lines.iter().any(|told| told == line), "{lines:#?}");
        }
    }

    #[test]
    fn people_are_told_who_made_the_pods_of_a_store_and_how_pods_are_kept_apart() {
        let mut report = Report::new("shop".to_owned(), None, "namespace");
        report.stores = vec![
            store("ledger", "postgres", "PostgreSQL 15.18", Some("CloudNativePG")),
            store("objects", "s3", "s3s-fs 0.14", None),
        ];
        let lines = lines(&report);
        assert_eq!(
            lines[..3],
            [
                " STORE    RUNS              DECLARED     READY  BY",
                " ledger   PostgreSQL 15.18  postgres 17  3/3    a small operator in place of CloudNativePG",
                " objects  s3s-fs 0.14       s3           3/3    a plain StatefulSet",
            ]
        );
        let apart = "       isolation `namespace`: each has a network of its own, and policies are enforced";
        assert_eq!(lines.iter().filter(|line| *line == apart).count(), 1, "{lines:#?}");
    }
}
