//! What `up` found out: as JSON for programs, as tables for people.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::output::VERSION;

/// The whole report. The names of its fields are a contract.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: u32,
    pub(super) project: String,
    pub(super) environment: Option<String>,
    /// How far pods are kept apart: evidence is as good as that.
    pub(super) isolation: &'static str,
    pub(super) pods: PodsReport,
    pub(super) stores: Vec<StoreReport>,
    pub(super) edges: EdgesReport,
    pub(super) flows: Vec<FlowReport>,
    /// What of the architecture does not run here.
    pub(super) left_out: Vec<String>,
    /// The promises that did not hold; none: all that can be shown here did.
    pub(super) broken: Vec<String>,
    pub(super) times: Times,
}

#[derive(Debug, Serialize)]
pub(super) struct PodsReport {
    pub(super) ready: usize,
    pub(super) total: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct StoreReport {
    pub(super) name: String,
    pub(super) engine: &'static str,
    pub(super) server: String,
    /// The version that the file asks for.
    pub(super) declared: Option<String>,
    /// Who made its pods: a small operator's evidence says nothing about the real one.
    pub(super) operator: &'static str,
    pub(super) ready: usize,
    pub(super) members: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct EdgesReport {
    pub(super) declared: usize,
    pub(super) carrying: usize,
    pub(super) silent: Vec<SilentEdge>,
    /// Pairs without an edge that were tried from inside a pod; none where policies are not enforced.
    pub(super) undeclared: Option<usize>,
    /// Those of them that accepted a connection.
    pub(super) reachable: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct SilentEdge {
    pub(super) edge: String,
    pub(super) error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct FlowReport {
    pub(super) name: String,
    /// Messages that the platform has taken.
    pub(super) sent: usize,
    /// Messages that it refused, which the client knows.
    pub(super) refused: u64,
    pub(super) refusal: Option<String>,
    pub(super) arrived: usize,
    pub(super) lost: usize,
    pub(super) duplicated: u64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) within_ms: u64,
    /// Why the flow does not keep its promise.
    pub(super) problem: Option<String>,
}

/// In milliseconds.
#[expect(clippy::struct_field_names, reason = "the fields are the names in the JSON, which say their unit")]
#[derive(Debug, Default, Serialize)]
pub(super) struct Times {
    /// Reading, rendering and checking.
    pub(super) check_ms: u64,
    /// Until the engine served.
    pub(super) engine_ms: u64,
    /// From then until every object was applied.
    pub(super) apply_ms: u64,
    /// From then until every pod was ready, the delays of declared probes included.
    pub(super) ready_ms: u64,
    /// How long the flows were driven and waited for.
    pub(super) flows_ms: u64,
}

impl Report {
    /// A new report on nothing yet.
    pub(super) fn new(project: String, environment: Option<String>, isolation: &'static str) -> Self {
        Self {
            version: VERSION,
            project,
            environment,
            isolation,
            pods: PodsReport { ready: 0, total: 0 },
            stores: Vec::new(),
            edges: EdgesReport {
                declared: 0,
                carrying: 0,
                silent: Vec::new(),
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
    pub(super) fn judge(&mut self) {
        let silent = self.edges.silent.iter().map(|silent| {
            let why = silent.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            format!("edge `{}` carries nothing{why}", silent.edge)
        });
        let reachable = self.edges.reachable.iter().map(|pair| format!("`{pair}` is open, and no edge declares it"));
        let flows =
            self.flows.iter().filter_map(|flow| Some(format!("flow `{}`: {}", flow.name, flow.problem.as_ref()?)));
        self.broken = silent.chain(reachable).chain(flows).collect();
    }

    /// For people.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut stores = table(&["STORE", "RUNS", "DECLARED", "READY"]);
        for store in &self.stores {
            stores.add_row([
                store.name.clone(),
                store.server.clone(),
                format!("{} {}", store.engine, store.declared.as_deref().unwrap_or("")).trim().to_owned(),
                format!("{}/{}", store.ready, store.members),
            ]);
        }
        let mut flows = table(&["FLOW", "SENT", "ARRIVED", "LOST", "TWICE", "P50", "P99", "WITHIN"]);
        let time = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        for flow in &self.flows {
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
        let edges = &self.edges;
        writeln!(out, "{stores}\n\n{flows}\n")?;
        writeln!(out, "pods   {} of {} ready", self.pods.ready, self.pods.total)?;
        writeln!(out, "edges  {} of {} declared ones carry", edges.carrying, edges.declared)?;
        match edges.undeclared {
            Some(undeclared) => {
                let closed = undeclared - edges.reachable.len();
                writeln!(out, "       {closed} of {undeclared} undeclared ones are closed")?;
            }
            None => writeln!(out, "       undeclared ones are not tried: policies are not enforced here")?,
        }
        for line in &self.left_out {
            writeln!(out, "note   {line}")?;
        }
        for line in &self.broken {
            writeln!(out, "no     {line}")?;
        }
        Ok(())
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    table
}
