//! Measures reading, rendering and checking of the examples and of generated architectures against the budget, and
//! prints a table: medians over several runs, and the peak memory of a process that does it once.
//!
//! Run it with `make bench`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use landfall_model::File;
use landfall_testing::generated;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often each case is measured; the median is printed.
const RUNS: usize = 11;

/// The largest example: check and render.
const EXAMPLE_BUDGET: Duration = Duration::from_millis(50);

/// A thousand services: check and render.
const THOUSAND_BUDGET: Duration = Duration::from_millis(400);

const EXAMPLES: [&str; 5] = ["water-channels", "balance-alerts", "attendance-monitoring", "composerp", "mindcompute"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(position) = arguments.iter().position(|argument| argument == "--once") {
        once(&arguments[position + 1]);
        return;
    }
    println!(
        "{:24} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}  within",
        "architecture", "services", "objects", "read", "render", "check", "total", "p. memory", "budget"
    );
    let cases = EXAMPLES.iter().map(ToString::to_string).chain(["10", "100", "1000", "3000"].map(ToOwned::to_owned));
    for case in cases {
        row(&case);
    }
    println!(
        "\nmedians of {RUNS} runs in one thread, one environment, includes read from memory; peak memory of one process"
    );
}

/// The text of a case: an example by name, or so many generated services.
fn input(case: &str) -> Input {
    if let Ok(count) = case.parse() {
        return Input { text: generated(count), includes: Vec::new(), environment: None };
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(case);
    let text = std::fs::read_to_string(folder.join("landfall.yaml")).expect("the example is there");
    let mut includes = Vec::new();
    File::read("landfall.yaml", text.as_bytes(), &mut |path| {
        let bytes = std::fs::read(folder.join(path)).map_err(|error| error.to_string())?;
        includes.push((path.to_owned(), bytes.clone()));
        Ok(bytes)
    });
    Input { text, includes, environment: Some("production".to_owned()) }
}

/// What a case reads: the file, its includes by path, and the environment, where it has that one.
struct Input {
    text: String,
    includes: Vec<(String, Vec<u8>)>,
    environment: Option<String>,
}

struct Run {
    services: usize,
    objects: usize,
    read: Duration,
    render: Duration,
    check: Duration,
}

fn run(input: &Input) -> Run {
    let Input { text, includes, environment } = input;
    let began = Instant::now();
    let file = File::read("landfall.yaml", text.as_bytes(), &mut |path| {
        includes.iter().find(|(name, _)| name == path).map(|(_, bytes)| bytes.clone()).ok_or_else(String::new)
    });
    let environment = environment.as_deref().filter(|name| file.environments().iter().any(|known| known == name));
    let architecture = match file.architecture(environment) {
        Ok(architecture) => architecture,
        Err(findings) => panic!("the case is not an architecture: {:?}", findings.first()),
    };
    let read = began.elapsed();
    let began = Instant::now();
    let mut rendered = landfall_render::kubernetes(&architecture);
    let files = rendered.files(file.sources());
    let render = began.elapsed();
    let began = Instant::now();
    let findings = std::mem::take(&mut rendered.findings);
    let values = rendered.into_values();
    let rendering = landfall_check::Rendering { objects: &values, findings: &findings };
    let report = landfall_check::check(&architecture, rendering, "2026-11-21".parse().expect("the date is a date"));
    let check = began.elapsed();
    std::hint::black_box((&report, &files));
    Run { services: architecture.document.services.len(), objects: files.len(), read, render, check }
}

fn row(case: &str) {
    let input = input(case);
    let runs: Vec<Run> = (0..RUNS).map(|_| run(&input)).collect();
    let median = |part: fn(&Run) -> Duration| {
        let mut times: Vec<Duration> = runs.iter().map(part).collect();
        times.sort();
        times[RUNS / 2]
    };
    let total = median(|run| run.read + run.render + run.check);
    let budget = match case.parse::<usize>() {
        Err(_) => Some(EXAMPLE_BUDGET),
        Ok(1000) => Some(THOUSAND_BUDGET),
        Ok(_) => None,
    };
    let name = if case.parse::<usize>().is_ok() { format!("generated {case}") } else { case.to_owned() };
    println!(
        "{name:24} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}  {}",
        runs[0].services,
        runs[0].objects,
        milliseconds(median(|run| run.read)),
        milliseconds(median(|run| run.render)),
        milliseconds(median(|run| run.check)),
        milliseconds(total),
        peak_memory(case),
        budget.map_or_else(|| "-".to_owned(), milliseconds),
        budget.map_or("-", |budget| if total <= budget { "yes" } else { "NO" }),
    );
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// The peak resident memory of a process that handles the case once, where the system tells it.
fn peak_memory(case: &str) -> String {
    let this = std::env::current_exe().expect("a process knows its program");
    let output = Command::new(this).args(["--once", case]).output().expect("this program can be started again");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn once(case: &str) {
    run(&input(case));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    println!("{}", peak.map_or_else(|| "unknown".to_owned(), |kilobytes| format!("{:.1} MB", kilobytes / 1024.0)));
}
