//! Measures the engine beside a real Kubernetes control plane, in one run on one machine, and prints a table: medians over
//! several rounds, how many times better the engine is, and the budget.
//!
//! Both are asked by the same client over TLS, both keep what they acknowledge on the same disk (etcd with its fsync), and
//! where pods only have to be said to run, the same fake kubelet says so. Without a control plane on the machine
//! (`make tools`) its column is empty.
//!
//! A second table is about requests on their way to pods, beside nginx ([`gateway`]).
//!
//! Run it with `make bench`; `cargo bench -p landfall --bench engine -- --rounds 1` is shorter, and `--only mock` or
//! `--only idle,gateway` measures only these parts ([`PARTS`]).

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::print_stderr, reason = "a run takes minutes, and says how far it is")]

mod gateway;
mod measure;
mod release;
mod side;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::TcpListener;

use landfall_testing::{FakeKubelet, FakeNode};

use crate::side::{EngineOptions, Side};

/// How often everything is measured, unless `--rounds` says otherwise.
const ROUNDS: usize = 3;

/// What can be measured alone: names for `--only`, in the order in which they are measured.
const PARTS: [&str; 6] = ["control-plane", "idle", "processes", "mock", "releases", "gateway"];

/// The first argument with which this program becomes the server of a pod.
const SERVE: &str = "--serve";

/// In the order of the table.
const ROWS: [Row; 29] = [
    Row::new("ready to serve", Unit::Milliseconds, Budget::AtMost(100.0)),
    Row::new("idle memory", Unit::Megabytes, Budget::AtMost(50.0)),
    Row::new("create, 1 client", Unit::PerSecond, Budget::Times(2.0)),
    Row::new("create, 16 clients", Unit::PerSecond, Budget::Times(5.0)),
    Row::new("merge patch, 1 client", Unit::PerSecond, Budget::Times(2.0)),
    Row::new("merge patch, 16 clients", Unit::PerSecond, Budget::Times(5.0)),
    Row::new("server-side apply, 1 client", Unit::PerSecond, Budget::Told),
    Row::new("server-side apply, 16 clients", Unit::PerSecond, Budget::Told),
    Row::new("get, 1 client", Unit::PerSecond, Budget::Told),
    Row::new("get, 16 clients", Unit::PerSecond, Budget::Told),
    Row::new("list of 1,000", Unit::Milliseconds, Budget::Told),
    Row::new("a write to 100 watches", Unit::Milliseconds, Budget::Told),
    Row::new("a write to 1,000 watches", Unit::Milliseconds, Budget::Told),
    Row::new("100 Deployments x 3 to ready", Unit::Milliseconds, Budget::Told),
    Row::new("rolling 100 replicas", Unit::Milliseconds, Budget::Told),
    Row::new("memory after that", Unit::Megabytes, Budget::Told),
    Row::new("50 pods as processes, all ready", Unit::Milliseconds, Budget::Told),
    Row::new("50 pods, created to ready, p50", Unit::Milliseconds, Budget::Told),
    Row::new("50 pods, created to ready, p99", Unit::Milliseconds, Budget::AtMost(300.0)),
    Row::new("one pod after another, p50", Unit::Milliseconds, Budget::Told),
    Row::new("10,000 pods, mock runtime", Unit::Milliseconds, Budget::Told),
    Row::new("10,000 pods, peak memory", Unit::Megabytes, Budget::AtMost(1024.0)),
    Row::new("10,000 pods, memory after that", Unit::Megabytes, Budget::Told),
    Row::new("release of 3 services x 3", Unit::Milliseconds, Budget::Told),
    Row::new("  of that, the shipper's", Unit::Milliseconds, Budget::Told),
    Row::new("  its API requests", Unit::Requests, Budget::Told),
    Row::new("release of 100 pods", Unit::Milliseconds, Budget::Told),
    Row::new("  the shipper's part of 100", Unit::Milliseconds, Budget::Told),
    Row::new("  API requests for 100", Unit::Requests, Budget::Told),
];

/// What is measured, in which unit, and how good it must be.
struct Row {
    name: &'static str,
    unit: Unit,
    budget: Budget,
}

impl Row {
    const fn new(name: &'static str, unit: Unit, budget: Budget) -> Self {
        Self { name, unit, budget }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Megabytes,
    PerSecond,
    Requests,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Megabytes => format!("{value:.0} MB"),
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Requests => format!("{value:.0}"),
        }
    }

    /// How many times better the first is.
    fn times(self, this: f64, other: f64) -> f64 {
        if self == Self::PerSecond { this / other } else { other / this }
    }
}

#[derive(Clone, Copy)]
enum Budget {
    /// In the row's unit.
    AtMost(f64),
    /// This many times better than the real one.
    Times(f64),
    /// None: the number is only told.
    Told,
}

/// What was measured of one side, by the name of the row.
type Figures = BTreeMap<&'static str, Vec<f64>>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, address, ..] = arguments.as_slice()
        && mode == SERVE
    {
        serve(address);
    }
    let after = |name: &str| arguments.get(arguments.iter().position(|argument| argument == name)? + 1);
    let rounds = after("--rounds").and_then(|count| count.parse().ok()).unwrap_or(ROUNDS);
    let only: Option<Vec<&str>> = after("--only").map(|names| names.split(',').collect());
    if let Some(unknown) = only.iter().flatten().find(|name| !PARTS.contains(name)) {
        eprintln!("error: there is no part `{unknown}`\nhint: parts are {}", PARTS.join(", "));
        std::process::exit(2);
    }
    let wanted = |part: &str| only.as_ref().is_none_or(|only| only.contains(&part));
    let runtime = tokio::runtime::Runtime::new().expect("the threads of the bench start");
    let (mut engine, mut kubernetes) = (Figures::new(), Figures::new());
    for round in 1..=rounds {
        let begin = |what: &str| eprintln!("round {round} of {rounds}: {what}");
        if wanted("control-plane") {
            begin("engine");
            runtime.block_on(control_plane(|| Side::engine(EngineOptions::without_nodes()), &mut engine));
        }
        if wanted("idle") {
            begin("an idle engine");
            runtime.block_on(idle(&mut engine));
        }
        if wanted("processes") {
            begin("pods as processes");
            runtime.block_on(processes(&mut engine));
        }
        if wanted("mock") {
            begin("10,000 pods");
            runtime.block_on(mock(&mut engine));
        }
        if wanted("releases") {
            begin("releases");
            runtime.block_on(releases(&mut engine));
        }
        if wanted("control-plane") && Side::has_kubernetes() {
            begin("Kubernetes");
            runtime.block_on(control_plane(Side::kubernetes, &mut kubernetes));
        }
    }
    print(&engine, &kubernetes, rounds);
    if wanted("gateway") {
        runtime.block_on(gateway::run());
    }
}

/// A pod's program: takes connections, and says nothing.
fn serve(address: &str) -> ! {
    let listener = TcpListener::bind(address).expect("the address of the pod is free");
    loop {
        if let Ok((mut connection, _)) = listener.accept() {
            // It ends when the client ends it.
            let _ = connection.read(&mut [0; 1]);
        }
    }
}

/// What both sides are asked.
async fn control_plane<F: Future<Output = Side>>(start: impl FnOnce() -> F, figures: &mut Figures) {
    let mut note = |name: &'static str, value: f64| {
        eprintln!("  {name}: {value:.1}");
        figures.entry(name).or_default().push(value);
    };
    let side = start().await;
    note("ready to serve", side.ready.as_secs_f64() * 1e3);
    if side.is_kubernetes() {
        tokio::time::sleep(measure::SETTLE).await;
        note("idle memory", side.memory());
    }
    let client = side.client().await;
    measure::wait_for_default_account(&client).await;
    let clients = side.clients(16).await;
    for (name_of_one, name_of_many, write) in [
        ("create, 1 client", "create, 16 clients", measure::Request::Create),
        ("merge patch, 1 client", "merge patch, 16 clients", measure::Request::Patch),
        ("server-side apply, 1 client", "server-side apply, 16 clients", measure::Request::Apply),
        ("get, 1 client", "get, 16 clients", measure::Request::Get),
    ] {
        note(name_of_one, measure::rate(&clients[..1], write).await);
        note(name_of_many, measure::rate(&clients, write).await);
    }
    note("list of 1,000", measure::list(&client).await);
    note("a write to 100 watches", measure::fan_out(&side, 100).await);
    note("a write to 1,000 watches", measure::fan_out(&side, 1000).await);

    let nodes = ["a", "b", "c"]
        .map(|zone| FakeNode::new(&format!("node-{zone}"), zone).with_capacity("1000", "1000Gi").with_pods(1000));
    let kubelet = FakeKubelet::start(side.client().await, nodes).await.expect("nodes can be registered");
    note("100 Deployments x 3 to ready", measure::deployments(&client, "three", 100, 3).await);
    note("rolling 100 replicas", measure::rolling(&client, 100).await);
    note("memory after that", side.memory());
    drop(kubelet);
    side.stop().await;
}

/// The engine as users start it, with nothing to do.
async fn idle(figures: &mut Figures) {
    let side = Side::engine(EngineOptions::default()).await;
    tokio::time::sleep(measure::SETTLE).await;
    figures.entry("idle memory").or_default().push(side.memory());
    side.stop().await;
}

async fn processes(figures: &mut Figures) {
    let mut note = |name: &'static str, value: f64| figures.entry(name).or_default().push(value);
    let side = Side::engine(EngineOptions::default()).await;
    let client = side.client().await;
    measure::wait_for_default_account(&client).await;
    measure::wait_for_nodes(&client, 3).await;
    note("one pod after another, p50", measure::one_by_one(&client, 10).await);
    let times = measure::pods(&client, 50).await;
    note("50 pods as processes, all ready", times.all);
    note("50 pods, created to ready, p50", times.percentile(50));
    note("50 pods, created to ready, p99", times.percentile(99));
    side.stop().await;
}

async fn mock(figures: &mut Figures) {
    let mut note = |name: &'static str, value: f64| figures.entry(name).or_default().push(value);
    let side = Side::engine(EngineOptions::mock(20, 600)).await;
    let client = side.client().await;
    measure::wait_for_default_account(&client).await;
    measure::wait_for_nodes(&client, 20).await;
    note("10,000 pods, mock runtime", measure::deployments(&client, "many", 100, 100).await);
    note("10,000 pods, peak memory", side.peak_memory());
    tokio::time::sleep(measure::SETTLE).await;
    note("10,000 pods, memory after that", side.memory());
    side.stop().await;
}

async fn releases(figures: &mut Figures) {
    let mut note = |name: &'static str, value: f64| figures.entry(name).or_default().push(value);
    let cost = release::rolling(3, 3).await;
    note("release of 3 services x 3", cost.milliseconds);
    note("  of that, the shipper's", cost.milliseconds - cost.by_patch);
    note("  its API requests", cost.requests);
    let cost = release::rolling(1, 100).await;
    note("release of 100 pods", cost.milliseconds);
    note("  the shipper's part of 100", cost.milliseconds - cost.by_patch);
    note("  API requests for 100", cost.requests);
}

fn print(engine: &Figures, kubernetes: &Figures, rounds: usize) {
    println!("{:33} {:>12} {:>12} {:>8} {:>14}  within", "", "engine", "Kubernetes", "times", "budget");
    // What was not measured has no line.
    for row in ROWS.iter().filter(|row| engine.contains_key(row.name) || kubernetes.contains_key(row.name)) {
        let (this, real) = (median(engine.get(row.name)), median(kubernetes.get(row.name)));
        let times = this.zip(real).map(|(this, real)| row.unit.times(this, real));
        let (budget, kept) = match row.budget {
            Budget::AtMost(most) => (row.unit.show(most), this.map(|this| this <= most)),
            Budget::Times(least) => (format!("{least}x"), times.map(|times| times >= least)),
            Budget::Told => ("-".to_owned(), None),
        };
        let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| row.unit.show(value));
        println!(
            "{:33} {:>12} {:>12} {:>8} {budget:>14}  {}",
            row.name,
            show(this),
            show(real),
            times.map_or_else(|| "-".to_owned(), |times| format!("{times:.1}x")),
            kept.map_or("-", |kept| if kept { "yes" } else { "NO" }),
        );
    }
    println!("\nmedians of {rounds} rounds; memory is resident, of all processes of a side");
}

fn median(values: Option<&Vec<f64>>) -> Option<f64> {
    let mut values = values?.clone();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
