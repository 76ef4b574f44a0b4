//! The same thousand services as one stream of objects: as `landfall render kubernetes --stdout` makes it, by `helm template`
//! from the rendered chart, and by `kubectl kustomize` from the rendered overlay. Time and peak memory of each process, in one
//! run, and how many objects each stream has.
//!
//! Run it with `make bench`, after `make tools`, or alone: `cargo bench -p landfall-render --bench targets`. Each measurement is told when it is
//! there; with `-- --old` also those of the older versions of the same programs. They are pinned by `tools/install-clients`.

#![expect(clippy::disallowed_macros, reason = "it is a program: it prints a table, and reads the clock")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::print_stderr, reason = "a measurement takes seconds, and there are some")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate starts nothing and reads no disk, but what measures programs has to"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use landfall_model::File;
use landfall_render::{Target, Variant, render};
use landfall_testing::{MissingTool, Tool, generated};
use nix::sys::resource::{UsageWho, getrusage};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICES: usize = 1000;

/// How often each is measured, by turns; the median is printed.
const RUNS: usize = 3;

/// What takes longer than this is measured once: no run is unlucky by that much.
const LONG: std::time::Duration = std::time::Duration::from_mins(1);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(position) = arguments.iter().position(|argument| argument == "--measure") {
        measure(&arguments[position + 1..]);
        return;
    }
    if arguments.iter().any(|argument| argument == "--stream") {
        stream();
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let text = generated(SERVICES);
    let (file, variant) = read(&text);
    for target in [Target::Helm, Target::Kustomize] {
        eprintln!("rendering {SERVICES} services for {}", target.as_str());
        for (path, text) in render(target, std::slice::from_ref(&variant), file.sources()).files {
            let path = folder.path().join(target.as_str()).join(path);
            fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
    }
    fs::write(folder.path().join("landfall.yaml"), text).expect("a file can be written");
    drop((file, variant));
    let ours = std::env::current_exe().expect("a process knows its program");

    let mut contenders = vec![
        Contender::new("landfall render", Ok(ours), &["--stream"]),
        Contender::new(
            "helm 4 template",
            Tool::Helm.locate(),
            &["template", "generated", "helm", "-f", "helm/values-default.yaml"],
        ),
        Contender::new("kubectl kustomize", Tool::Kubectl.locate(), &["kustomize", "kustomize/overlays/default"]),
    ];
    if arguments.iter().any(|argument| argument == "--old") {
        contenders.push(Contender::new(
            "helm 3 template",
            Tool::OldHelm.locate(),
            &["template", "generated", "helm", "-f", "helm/values-default.yaml"],
        ));
        contenders.push(Contender::new(
            "kubectl 1.31 kustomize",
            Tool::OldKubectl.locate(),
            &["kustomize", "kustomize/overlays/default"],
        ));
    }
    let mut figures: BTreeMap<usize, Vec<Figure>> = BTreeMap::new();
    for run in 1..=RUNS {
        for (place, contender) in contenders.iter().enumerate() {
            let is_long = figures.get(&place).is_some_and(|known| known.iter().any(|figure| figure.time > LONG));
            if let Ok(program) = contender.program.as_ref()
                && !is_long
            {
                let figure = contender.run(program, folder.path());
                eprintln!("run {run} of {RUNS}: {}: {:.2} s", contender.name, figure.time.as_secs_f64());
                figures.entry(place).or_default().push(figure);
            }
        }
    }
    println!(
        "{:24} {:>9} {:>7} {:>10} {:>7} {:>9} {:>9}",
        "program", "time", "times", "p. memory", "times", "objects", "stream"
    );
    let mut first: Option<Figure> = None;
    for (place, contender) in contenders.iter().enumerate() {
        match (&contender.program, figures.get_mut(&place)) {
            (Ok(_), Some(figures)) => {
                figures.sort_by_key(|figure| figure.time);
                let middle = figures.swap_remove(figures.len() / 2);
                let of = first.as_ref().unwrap_or(&middle);
                let whole = |bytes: u64| f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX));
                println!(
                    "{:24} {:>9} {:>7} {:>10} {:>7} {:>9} {:>9}",
                    contender.name,
                    format!("{:.2} s", middle.time.as_secs_f64()),
                    format!("{:.1}", middle.time.as_secs_f64() / of.time.as_secs_f64()),
                    format!("{} MB", middle.peak >> 20),
                    format!("{:.1}", whole(middle.peak) / whole(of.peak)),
                    middle.objects,
                    format!("{:.1} MB", f64::from(u32::try_from(middle.bytes).unwrap_or(u32::MAX)) / 1e6),
                );
                first.get_or_insert(middle);
            }
            (Err(missing), _) => println!("{:24} {missing}", contender.name),
            (Ok(_), None) => {}
        }
    }
    println!(
        "\n{SERVICES} services of one environment as one stream on stdout; median of {RUNS} runs by turns, or one that takes over a minute, a \
         process each, files in the cache.\nlandfall reads `landfall.yaml`, the others read what it has rendered for them; `times` is beside the first line."
    );
}

/// A file in its only environment.
fn read(text: &str) -> (File, Variant) {
    let file = File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(path.to_owned()));
    let architecture = file.architecture(None).unwrap_or_else(|findings| panic!("it is wrong: {:?}", findings.first()));
    (file, Variant::new(architecture))
}

/// Does what `landfall render kubernetes landfall.yaml --stdout` does.
fn stream() {
    let text = fs::read_to_string("landfall.yaml").expect("the file is there");
    let (file, variant) = read(&text);
    let files = render(Target::Kubernetes, std::slice::from_ref(&variant), file.sources()).files;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for path in variant.rendered.apply_order() {
        writeln!(out, "---\n# Source: {path}\n{}", files[&path]).expect("the stream takes it");
    }
    out.flush().expect("the stream takes it");
}

struct Contender {
    name: &'static str,
    program: Result<PathBuf, MissingTool>,
    arguments: Vec<&'static str>,
}

/// What one run took.
struct Figure {
    time: Duration,
    /// In bytes.
    peak: u64,
    objects: usize,
    bytes: usize,
}

impl Contender {
    fn new(name: &'static str, program: Result<PathBuf, MissingTool>, arguments: &[&'static str]) -> Self {
        Self { name, program, arguments: arguments.to_vec() }
    }

    /// Runs it by a process that has no other child, so that what the system says of its children is about this one.
    fn run(&self, program: &Path, folder: &Path) -> Figure {
        let this = std::env::current_exe().expect("a process knows its program");
        let stream = folder.join("stream.yaml");
        let output = Command::new(this)
            .arg("--measure")
            .arg(&stream)
            .arg(program)
            .args(&self.arguments)
            .current_dir(folder)
            .env("HOME", folder)
            .output()
            .expect("this program can be started again");
        let said = String::from_utf8_lossy(&output.stdout);
        let figures: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [micros, peak] = figures[..] else { panic!("{} failed: {said}", self.name) };
        let text = fs::read_to_string(&stream).expect("the stream is there");
        let objects = text.lines().filter(|line| line.starts_with("kind: ")).count();
        Figure { time: Duration::from_micros(micros), peak, objects, bytes: text.len() }
    }
}

/// Runs a program with its stdout in a file, and prints how long it took in µs and its peak memory in bytes.
fn measure(arguments: &[String]) {
    let [stream, program, arguments @ ..] = arguments else { panic!("a stream, a program and its arguments") };
    let stream = fs::File::create(stream).expect("a file can be made");
    let began = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(stream)
        .stderr(Stdio::null())
        .status()
        .expect("the program can be started");
    let time = began.elapsed();
    assert!(status.success(), "{program}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the system counts what processes use");
    // Linux counts in KiB.
    println!("{} {}", time.as_micros(), u64::try_from(usage.max_rss()).unwrap_or_default() << 10);
}
