//! Measures `landfall up`: how long an example takes until all is ready, without data and with kept data; how much memory
//! the whole takes; and how many requests a second one flow carries at full speed, and where their time goes.
//!
//! `cargo bench --bench up -- balance-alerts` (several examples one after the other). Nothing else should run meanwhile; it
//! takes some minutes for each, so `make bench` leaves it out: without a name it says so and ends.

#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

mod load;
mod platform;

use std::time::Duration;

use serde_json::Value;

use self::load::{Case, Load};
use self::platform::Platform;

/// The examples, each with the environment that runs here and, where one is measured at full speed, a flow whose services
/// call nobody outside, as externals have declared limits.
const EXAMPLES: [(&str, &str, Option<Case>); 5] = [
    (
        "balance-alerts",
        "development",
        Some(Case {
            flow: "acknowledge",
            host: "api.development.balance-alerts.example",
            path: "/tracking",
            namespace: "balance-alerts-development",
            service: "tracking",
            edge: "tracking write balances/deliveries",
        }),
    ),
    ("attendance-monitoring", "development", None),
    ("composerp", "staging", None),
    ("mindcompute", "development", None),
    ("water-channels", "dev", None),
];

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if names.is_empty() {
        let known: Vec<_> = EXAMPLES.iter().map(|(name, ..)| *name).collect();
        println!("up: not measured, as no example is named; there are {}", known.join(", "));
        return;
    }
    println!(
        "{:24} {:5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11} {:>9} {:>9}",
        "example", "data", "check", "engine", "apply", "ready", "total", "probe delay", "pods", "memory"
    );
    let mut loads = Vec::new();
    for name in names {
        let known = EXAMPLES.iter().find(|(known, ..)| *known == name);
        let Some((name, environment, case)) = known else {
            println!("{name}: there is no such example");
            continue;
        };
        let platform = Platform::new(name, environment);
        let cold = platform.start();
        print(name, "none", &cold.report, None);
        cold.stop();
        let warm = platform.start();
        // What pods use is measured over a while.
        let (memory, delay) = (warm.memory(), warm.probe_delay());
        print(name, "kept", &warm.report, Some((memory, delay)));
        if let Some(case) = case {
            loads.push(warm.load(case));
        }
        warm.stop();
        platform.delete();
    }
    for load in loads {
        tell(&load);
    }
}

fn print(name: &str, data: &str, report: &Value, more: Option<(u64, Duration)>) {
    let times = &report["times"];
    let ms = |field: &str| times[field].as_u64().unwrap_or_default();
    let all = ["check_ms", "engine_ms", "apply_ms", "ready_ms"].map(ms);
    let cells = all.map(|ms| format!("{ms} ms"));
    let [check, engine, apply, ready] = cells;
    let total = format!("{} ms", all.iter().sum::<u64>());
    let (memory, delay) = more.map_or_else(
        || ("-".to_owned(), "-".to_owned()),
        |(memory, delay)| (format!("{} MiB", memory >> 20), format!("{} s", delay.as_secs())),
    );
    let pods = report["pods"]["ready"].as_u64().unwrap_or_default();
    println!(
        "{name:24} {data:5} {check:>9} {engine:>9} {apply:>9} {ready:>9} {total:>9} {delay:>11} {pods:>9} {memory:>9}"
    );
}

fn tell(load: &Load) {
    println!("\nflow `{}` at full speed, {} clients at a time, {:?}:", load.flow, load::CLIENTS, load::DURATION);
    println!("  {:.0} requests a second, {} refused", load.per_second, load.refused);
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    println!(
        "  a request takes {:.1} ms on average, half of them up to {:.1} ms, 99% up to {:.1} ms",
        ms(load.mean),
        ms(load.p50),
        ms(load.p99)
    );
    println!(
        "  of it {:.1} ms between client and service: TLS, the gateway, the network",
        ms(load.mean.saturating_sub(load.service))
    );
    println!("        {:.1} ms in the service itself", ms(load.service.saturating_sub(load.edge)));
    println!("        {:.1} ms in the edge `{}`", ms(load.edge), load.edge_name);
}
