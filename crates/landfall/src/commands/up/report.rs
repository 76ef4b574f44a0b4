//! What `up` found out: as JSON for programs, as tables for people.

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
        self.broken = missing.chain(silent).chain(reachable).chain(flows).collect();
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
