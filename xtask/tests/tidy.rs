//! Rules of the workspace that neither the compiler nor clippy can check: layers, files, words.
//!
//! The rules look at text, line by line, and know no more Rust than they need: a line that begins with `//` is a comment,
//! `mod name;` stands on one line. Every failure says file, line and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Which crates of the workspace each crate may depend on. An edge that a design does not need stays out; a new one is a
/// decision that is explained in the commit.
const LAYERS: &[(&str, &[&str])] = &[
    ("landfall-model", &[]),
    ("landfall-engine", &[]),
    ("landfall-check", &["landfall-model"]),
    ("landfall-render", &["landfall-model"]),
    ("landfall-deliver", &["landfall-model"]),
    ("landfall-standin", &["landfall-model"]),
    ("landfall-drill", &["landfall-model", "landfall-deliver"]),
    ("landfall-web", &["landfall-model", "landfall-deliver"]),
    (
        "landfall",
        &[
            "landfall-model",
            "landfall-engine",
            "landfall-check",
            "landfall-render",
            "landfall-deliver",
            "landfall-standin",
            "landfall-drill",
            "landfall-web",
        ],
    ),
    ("landfall-testing", &[]),
    // What a platform runs knows nothing of what runs it.
    ("example-kit", &[]),
    ("balance-alerts", &[]),
    ("water-channels", &[]),
    ("xtask", &[]),
];

/// The one crate that tests of every other may use.
const FOR_TESTS: &str = "landfall-testing";

/// The crates that are functions: a value in, a value out.
const PURE: [&str; 3] = ["landfall-model", "landfall-check", "landfall-render"];

const MAX_LINES: usize = 800;

/// Files that may be longer than [`MAX_LINES`], each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "managers", "mod"];

/// Texts that no Rust line may have, and what to write instead. In pieces, as this file is checked too.
const FORBIDDEN_CODE: &[(&str, &str)] = &[
    (concat!("#[", "ignore"), "say why it cannot run through `landfall_testing::require_or_skip`"),
    (concat!("#[", "allow("), "write `#[expect(…, reason = \"…\")]`, which says when it is no longer needed"),
    (concat!("#![", "allow("), "write `#![expect(…, reason = \"…\")]`, which says when it is no longer needed"),
    (concat!("to", "do!("), "finish it, or leave it out and write `Not handled:`"),
    (concat!("unimpl", "emented!("), "finish it, or leave it out and write `Not handled:`"),
    (concat!("un", "safe {"), "find the safe way; the workspace has no exception yet"),
    (concat!("un", "safe fn"), "find the safe way; the workspace has no exception yet"),
    (concat!("un", "safe impl"), "find the safe way; the workspace has no exception yet"),
    (concat!("un", "safe trait"), "find the safe way; the workspace has no exception yet"),
    (concat!("un", "safe extern"), "find the safe way; the workspace has no exception yet"),
    (concat!("#[un", "safe("), "find the safe way; the workspace has no exception yet"),
    (concat!("#[", "path"), "put the file where `mod` looks for it"),
];

/// Texts that no line of a pure crate may have. Its `clippy.toml` knows the calls; this sees the imports, and async code.
const FORBIDDEN_IN_PURE: &[(&str, &str)] = &[
    ("print!(", "return the text; the binary prints it"),
    ("println!(", "return the text; the binary prints it"),
    ("eprint!(", "return a finding; the binary prints it"),
    ("eprintln!(", "return a finding; the binary prints it"),
    ("dbg!(", "remove it"),
    ("std::env", "take the value as an argument; the binary reads the environment"),
    ("std::fs", "take the text as an argument; the binary reads files (`landfall_testing` does for tests)"),
    ("std::process", "a pure crate starts nothing and does not exit"),
    ("std::thread", "a pure crate has no threads"),
    ("SystemTime", "take the time as an argument"),
    ("std::time::Instant", "take the time as an argument"),
    ("async fn", "a pure crate does not wait"),
    (".await", "a pure crate does not wait"),
    ("tokio", "a pure crate does not wait"),
];

/// Texts that belong to a place where the project was made, not to the project.
const FORBIDDEN_WORDS: [&str; 4] =
    [concat!("/work", "/main"), concat!("/work", "/shared"), concat!("/ro", "ot/"), concat!("sub", "agent")];

#[test]
fn crates_depend_only_on_the_layers_below_them() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut problems = Problems::default();
    for manifest in manifests() {
        let name = manifest.name();
        let Some(below) = layers.get(name) else {
            problems.add(&manifest.path, 1, format!("`{name}` is not in the table of layers"), "add it to LAYERS");
            continue;
        };
        for (section, dependency) in manifest.dependencies() {
            let dev = section == "dev-dependencies";
            let sibling = dependency.starts_with("landfall") || dependency == "xtask";
            if sibling && !below.contains(&dependency.as_str()) && !(dev && dependency == FOR_TESTS) {
                problems.add(
                    &manifest.path,
                    manifest.line_of(&dependency),
                    format!("`{name}` may not depend on `{dependency}` ({section})"),
                    "move the code to the crate that may, or hand the value over as plain data; LAYERS is the table",
                );
            }
        }
    }
    problems.report();
}

#[test]
fn every_crate_inherits_the_lints_of_the_workspace() {
    let mut problems = Problems::default();
    for manifest in manifests() {
        let inherited = manifest.table.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        if inherited != Some(true) {
            problems.add(
                &manifest.path,
                manifest.line_of("[lints"),
                "its lints are not those of the workspace",
                "write `[lints]` with `workspace = true`",
            );
        }
    }
    problems.report();
}

#[test]
fn the_pure_crates_share_one_clippy_toml() {
    let mut problems = Problems::default();
    let [first, others @ ..] = PURE.map(|name| PathBuf::from(format!("crates/{name}/clippy.toml")));
    let text = read(&first);
    assert!(text.is_some(), "{} is missing: it says what a pure crate may not call", first.display());
    for other in others {
        if read(&other) != text {
            problems.add(&other, 1, format!("it is not the same as {}", first.display()), "copy the file");
        }
    }
    problems.report();
}

#[test]
fn every_source_file_is_part_of_a_module_tree() {
    let mut problems = Problems::default();
    for manifest in manifests() {
        let folder = manifest.path.parent().expect("a manifest is in the folder of its crate");
        let in_folder = |sub: &str| files().into_iter().filter(|file| file.starts_with(folder.join(sub))).collect();
        let sources: BTreeSet<PathBuf> = in_folder("src");
        let roots: Vec<_> = sources
            .iter()
            .filter(|file| {
                let place = file.strip_prefix(folder).expect("it is in the folder");
                place == Path::new("src/lib.rs")
                    || place == Path::new("src/main.rs")
                    || place.parent() == Some(Path::new("src/bin"))
            })
            .cloned()
            .collect();
        for orphan in orphans(&sources, &roots) {
            problems.add(&orphan, 1, "no `mod` leads to this file, so it is never compiled", "declare it or delete it");
        }

        // The tests of `xtask` are chores with their own targets.
        let tests: BTreeSet<PathBuf> = if manifest.name() == "xtask" { BTreeSet::new() } else { in_folder("tests") };
        for orphan in orphans(&tests, &[folder.join("tests/it/main.rs")]) {
            let remedy = "one integration binary per crate: move it below `tests/it/` and declare it in its `main.rs`";
            problems.add(&orphan, 1, "it is not part of `tests/it/main.rs`", remedy);
        }
        for stray in tests.iter().filter(|file| !file.starts_with(folder.join("tests/it"))) {
            if !is_rust(stray) {
                problems.add(stray, 1, "it is outside of `tests/it/`", "move it beside the test that reads it");
            }
        }
    }
    problems.report();
}

#[test]
fn names_say_what_is_inside() {
    let mut problems = Problems::default();
    let remedy = "name it after what it holds; a module is `foo.rs` with `foo/`";
    for file in rust_files() {
        for part in file.iter().filter_map(|part| part.to_str()) {
            let name = part.strip_suffix(".rs").unwrap_or(part);
            if EMPTY_NAMES.contains(&name) {
                problems.add(&file, 1, format!("`{part}` is not a name for code"), remedy);
            }
        }
        for (number, line) in code_lines(&text(&file)) {
            if let Some(name) = module(line).filter(|name| EMPTY_NAMES.contains(name)) {
                problems.add(&file, number, format!("`{name}` is not a name for a module"), remedy);
            }
        }
    }
    problems.report();
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let mut problems = Problems::default();
    for file in rust_files() {
        let lines = text(&file).lines().count();
        let excused = LONG_FILES.iter().any(|(path, _reason)| file == Path::new(path));
        if lines > MAX_LINES && !excused {
            let what = format!("{lines} lines, at most {MAX_LINES}");
            problems.add(
                &file,
                MAX_LINES + 1,
                what,
                "split it by what it is about, or list it in LONG_FILES with a reason",
            );
        }
        if lines <= MAX_LINES && excused {
            problems.add(&file, 1, "it is short enough by now", "remove it from LONG_FILES");
        }
    }
    problems.report();
}

#[test]
fn every_source_file_opens_with_what_it_owns() {
    let mut problems = Problems::default();
    for file in rust_files() {
        if !text(&file).starts_with("//!") {
            problems.add(&file, 1, "it does not open with `//!`", "say what it owns and what it leaves to others");
        }
    }
    problems.report();
}

#[test]
fn no_code_is_switched_off_or_left_unfinished() {
    let mut problems = Problems::default();
    for file in rust_files() {
        problems.search(&file, FORBIDDEN_CODE);
    }
    problems.report();
}

#[test]
fn the_pure_crates_touch_nothing_outside_of_them() {
    let mut problems = Problems::default();
    for file in rust_files() {
        if PURE.iter().any(|name| file.starts_with(format!("crates/{name}/src"))) {
            problems.search(&file, FORBIDDEN_IN_PURE);
        }
    }
    problems.report();
}

#[test]
fn only_the_api_server_touches_the_store() {
    let engine = Path::new("crates/landfall-engine/src");
    // The one who starts the engine opens the store and hands it on.
    let may =
        ["api", "api.rs", "store", "store.rs", "engine.rs", "engine/front.rs", "lib.rs"].map(|name| engine.join(name));
    let mut problems = Problems::default();
    for file in rust_files().filter(|file| file.starts_with(engine)) {
        if !may.iter().any(|place| file.starts_with(place)) {
            let remedy = "ask the API server through `kube::Client`, so that the part also works beside a real one";
            problems.search(&file, &[("crate::store", remedy)]);
        }
    }
    problems.report();
}

#[test]
fn no_file_names_a_place_where_the_project_was_made() {
    let mut problems = Problems::default();
    for file in files() {
        let Some(text) = read(&file) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.to_lowercase();
            for word in FORBIDDEN_WORDS.iter().filter(|word| line.contains(*word)) {
                problems.add(
                    &file,
                    number,
                    format!("`{word}` means nothing to a reader"),
                    "use a relative path, or leave it out",
                );
            }
        }
    }
    problems.report();
}

#[test]
fn the_tests_that_a_document_names_are_there() {
    let code: String = rust_files().map(|file| text(&file)).collect();
    let mut problems = Problems::default();
    for file in files().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        for (number, line) in (1..).zip(text(&file).lines()) {
            // What else is written so, such as a metric, has fewer words.
            let named = line.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 5);
            let named =
                named.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
            for name in named.filter(|name| !code.contains(&format!("fn {name}("))) {
                problems.add(&file, number, format!("there is no test `{name}`"), "name the one that shows it now");
            }
        }
    }
    problems.report();
}

#[test]
fn the_rules_find_what_they_look_for() {
    assert_eq!(module("pub(crate) mod one;"), Some("one"));
    assert_eq!(module("#[cfg(test)] mod tests;"), Some("tests"));
    assert_eq!(module("mod inline {"), Some("inline"));
    assert_eq!(module("modest;"), None);
    let code: Vec<_> = code_lines("a\n  // b\n/// c\nd // e\n").collect();
    assert_eq!(code, [(1, "a"), (4, "d // e")]);
}

/// What is wrong, one line each; a test reports all of it at once.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, file: &Path, line: usize, what: impl AsRef<str>, remedy: &str) {
        self.0.push(format!("{}:{line}: {}; {remedy}", file.display(), what.as_ref()));
    }

    /// Adds each code line of `file` that has one of the texts.
    fn search(&mut self, file: &Path, texts: &[(&str, &str)]) {
        for (number, line) in code_lines(&text(file)) {
            for (forbidden, remedy) in texts {
                let word = forbidden.starts_with(char::is_alphabetic);
                let inside_a_word = |at| word && line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                let hit = line.match_indices(forbidden).any(|(at, _)| !inside_a_word(at));
                if hit {
                    self.add(file, number, format!("`{forbidden}` is not used here"), remedy);
                }
            }
        }
    }

    fn report(self) {
        let mut report = String::new();
        for problem in &self.0 {
            let _ = writeln!(report, "{problem}");
        }
        assert!(self.0.is_empty(), "{} problems\n{report}", self.0.len());
    }
}

/// A `Cargo.toml` of a member of the workspace.
struct Manifest {
    path: PathBuf,
    text: String,
    table: Table,
}

impl Manifest {
    fn name(&self) -> &str {
        let name = self.table.get("package").and_then(|package| package.get("name")?.as_str());
        name.unwrap_or_else(|| panic!("{}: no package name", self.path.display()))
    }

    /// Each dependency with the section that names it, under its own name if it was renamed.
    fn dependencies(&self) -> Vec<(&'static str, String)> {
        let platforms = self.table.get("target").and_then(toml::Value::as_table).into_iter().flat_map(Table::values);
        let tables = platforms.filter_map(toml::Value::as_table).chain([&self.table]);
        let mut dependencies = Vec::new();
        for table in tables {
            for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
                for (key, value) in table.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                    let name = value.get("package").and_then(toml::Value::as_str).unwrap_or(key);
                    dependencies.push((section, name.to_owned()));
                }
            }
        }
        dependencies
    }

    fn line_of(&self, needle: &str) -> usize {
        self.text.lines().position(|line| line.trim_start().starts_with(needle)).map_or(1, |index| index + 1)
    }
}

fn manifests() -> Vec<Manifest> {
    let paths = files().into_iter().filter(|file| {
        let parts: Vec<_> = file.iter().filter_map(|part| part.to_str()).collect();
        matches!(
            parts[..],
            ["crates", _, "Cargo.toml"]
                | ["examples", "kit", "Cargo.toml"]
                | ["examples", _, "services", "Cargo.toml"]
                | ["xtask", "Cargo.toml"]
        )
    });
    paths
        .map(|path| {
            let text = text(&path);
            let table = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Manifest { path, text, table }
        })
        .collect()
}

/// The Rust files of `all` that no `mod` reaches from `roots`.
fn orphans(all: &BTreeSet<PathBuf>, roots: &[PathBuf]) -> Vec<PathBuf> {
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    let mut next: Vec<PathBuf> = roots.iter().filter(|root| all.contains(*root)).cloned().collect();
    while let Some(file) = next.pop() {
        let folder = if roots.contains(&file) { file.with_file_name("") } else { file.with_extension("") };
        for (_, line) in code_lines(&text(&file)) {
            if let Some(name) = module(line).filter(|_| line.trim_end().ends_with(';')) {
                next.extend(Some(folder.join(format!("{name}.rs"))).filter(|child| all.contains(child)));
            }
        }
        reached.insert(file);
    }
    all.iter().filter(|file| is_rust(file) && !reached.contains(*file)).cloned().collect()
}

/// The name of the module that a line declares.
fn module(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("mod ")?;
    let declares = before.is_empty() || before.ends_with(char::is_whitespace);
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    let rest = after[name.len()..].trim_start();
    (declares && !name.is_empty() && (rest.starts_with(';') || rest.starts_with('{'))).then_some(name)
}

/// The lines that are not comments, numbered from one.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

fn rust_files() -> impl Iterator<Item = PathBuf> {
    files().into_iter().filter(|file| is_rust(file))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file of the checkout, relative to its root, but not what git or cargo keep there.
fn files() -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(root().join(folder)).expect("the checkout is readable");
        for entry in entries {
            let entry = entry.expect("the checkout is readable");
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().expect("the checkout is readable");
            if kind.is_dir() {
                // What `landfall up` leaves beside an example is nobody's source.
                let skipped =
                    path.ends_with(".landfall") || [".git", "target"].map(Path::new).contains(&path.as_path());
                if !skipped {
                    walk(&path, files);
                }
            } else if kind.is_file() {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(Path::new(""), &mut files);
    files.sort();
    files
}

/// The text of a file of the checkout; `None` if there is none or it is not a text.
fn read(file: &Path) -> Option<String> {
    fs::read_to_string(root().join(file)).ok()
}

fn text(file: &Path) -> String {
    read(file).unwrap_or_else(|| panic!("{}: not readable as UTF-8 text", file.display()))
}
