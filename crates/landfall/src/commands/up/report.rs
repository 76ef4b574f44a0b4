//! What `up` found out: as JSON for programs, as tables for people.

use std::collections::BTreeSet;
use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::plan::{ProgramPlan, missing_programs};
use crate::output::VERSION;

/// The whole report. The names of its fields are a contract.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) version: u32,
    pub(crate) project: String,
    pub(crate) environment: Option<String>,
    /// How far pods are kept apart: evidence is as good as that.
    pub(crate) isolation: &'static str,
    pub(crate) pods: PodsReport,
    pub(crate) stores: Vec<StoreReport>,
    /// The services that the file has run by programs of their own.
    pub(crate) programs: Vec<ProgramPlan>,
    pub(crate) edges: EdgesReport,
    pub(crate) flows: Vec<FlowReport>,
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
pub(crate) struct StoreReport {
    pub(crate) name: String,
    pub(crate) engine: &'static str,
    pub(crate) server: String,
    /// The version that the file asks for.
    pub(crate) declared: Option<String>,
    /// Who made its pods: a small operator's evidence says nothing about the real one.
    pub(crate) operator: &'static str,
    pub(crate) ready: usize,
    pub(crate) members: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct EdgesReport {
    pub(crate) declared: usize,
    pub(crate) carrying: usize,
    pub(crate) silent: Vec<SilentEdge>,
    /// Those of programs that tell nothing of them, while there is a connection: what it carries nobody knows.
    pub(crate) connected: Vec<String>,
    /// Those that nobody can perform here.
    pub(crate) missing: Vec<MissingEdge>,
    /// Pairs without an edge that were tried from inside a pod; none where policies are not enforced.
    pub(crate) undeclared: Option<usize>,
    /// Those of them that accepted a connection.
    pub(crate) reachable: Vec<String>,
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
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct FlowReport {
    pub(crate) name: String,
    /// Messages that the platform has taken.
    pub(crate) sent: usize,
    /// Messages that it refused, which the client knows.
    pub(crate) refused: u64,
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
    /// Why the flow cannot run here.
    pub(crate) missing: Option<String>,
    /// Why the flow does not keep its promise.
    pub(crate) problem: Option<String>,
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
    /// Why lines were still on their way.
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
            isolation,
            pods: PodsReport { ready: 0, total: 0 },
            stores: Vec::new(),
            programs: Vec::new(),
            edges: EdgesReport {
                declared: 0,
                carrying: 0,
                silent: Vec::new(),
                connected: Vec::new(),
                missing: Vec::new(),
                undeclared: None,
                reachable: Vec::new(),
            },
            flows: Vec::new(),
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
        let missing =
            self.edges.missing.iter().map(|edge| format!("edge `{}` is not tried: {}", edge.edge, edge.because));
        let reachable = self.edges.reachable.iter().map(|pair| format!("`{pair}` is open, and no edge declares it"));
        let flows = self.flows.iter().filter_map(|flow| match (&flow.missing, &flow.problem) {
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
        let observed = lines.chain(traced).chain(calls);
        self.broken = missing.chain(silent).chain(reachable).chain(flows).chain(observed).collect();
    }

    /// For people.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut stores = table(&["STORE", "RUNS", "DECLARED", "READY"]);
        for store in &self.stores {
            stores.add_row([
                store.name.clone(),
                store.server.clone(),
                format!("{} {}", store.engine, store.declared.as_deref().unwrap_or("")).trim().to_owned(),
                format!("{}/{}", store.ready, store.members),
            ]);
        }
        let flows = flow_table(&self.flows);
        let edges = &self.edges;
        writeln!(out, "{stores}\n\n{flows}\n")?;
        writeln!(out, "pods   {} of {} ready", self.pods.ready, self.pods.total)?;
        writeln!(out, "edges  {} of {} declared ones carry", edges.carrying, edges.declared)?;
        if !edges.connected.is_empty() {
            let connected = edges.connected.len();
            writeln!(out, "       {connected} have a connection; what it carries their programs do not tell")?;
        }
        match edges.undeclared {
            Some(undeclared) => {
                let closed = undeclared - edges.reachable.len();
                writeln!(out, "       {closed} of {undeclared} undeclared ones are closed")?;
            }
            None => writeln!(out, "       undeclared ones are not tried: policies are not enforced here")?,
        }
        if let Some(logs) = &self.logs {
            let asked: Vec<_> = logs.services.iter().filter_map(|service| service.found).collect();
            let (found, asked) = (asked.iter().filter(|found| **found).count(), asked.len());
            writeln!(
                out,
                "logs   {} lines in a stand-in of {}; a word of {found} of {asked} services is there",
                logs.lines, logs.store
            )?;
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
}

/// The flows for people.
pub(crate) fn flow_table(reports: &[FlowReport]) -> Table {
    let mut flows = table(&["FLOW", "SENT", "ARRIVED", "LOST", "TWICE", "P50", "P99", "WITHIN"]);
    let time = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    for flow in reports.iter().filter(|flow| flow.missing.is_none()) {
        flows.add_row([
            flow.name.clone(),
            flow.sent.to_string(),
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

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    table
}
