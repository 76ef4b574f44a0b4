//! Golden files: what a test produced, compared with plain files in the repository.
//!
//! A person reads these files in review, so a mismatch is shown as a diff and the files are rewritten on request only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Component, Path};
use std::{env, fs, io};

use similar::TextDiff;

/// How many lines of diff a report shows. More than a screen or two is not read; the rest is counted.
const MAX_DIFF_LINES: usize = 120;

/// How many names a report lists of each kind of difference.
const MAX_NAMES: usize = 20;

const HINT: &str = "\nif the change is meant, run `cargo xtask bless` and read it with `git diff`\n";

/// Compares a tree (relative path → content) with the files under `dir`.
///
/// With `LANDFALL_BLESS=1` it makes the folder equal to the tree instead: changed files are written, files that are no
/// longer in the tree are removed. Nothing outside `dir` is touched, not even through a symbolic link in it.
///
/// # Panics
///
/// If the folder and the tree differ, with a diff; if a path of the tree leads out of the folder; if a file cannot be
/// read or written.
#[track_caller]
pub fn check_tree(dir: &Path, files: &BTreeMap<String, String>) {
    check_tree_in(Mode::from_environment(), dir, files);
}

/// Compares a text with the file at `path`; [`check_tree`] for one file.
///
/// # Panics
///
/// As [`check_tree`].
#[track_caller]
pub fn check_text(path: &Path, actual: &str) {
    check_text_in(Mode::from_environment(), path, actual);
}

#[derive(Clone, Copy)]
enum Mode {
    Compare,
    Bless,
}

impl Mode {
    fn from_environment() -> Self {
        if env::var_os("LANDFALL_BLESS").is_some_and(|value| value == "1") { Self::Bless } else { Self::Compare }
    }
}

/// How a golden folder differs from the tree that a test produced.
#[derive(Default)]
struct Differences {
    /// In the tree, not in the folder.
    missing: Vec<String>,
    /// In the folder, not in the tree.
    extra: Vec<String>,
    /// In both, with the diff from the folder to the tree.
    different: BTreeMap<String, String>,
}

impl Differences {
    fn between(dir: &Path, files: &BTreeMap<String, String>) -> Self {
        let golden = list(dir);
        let mut differences = Self {
            extra: golden.iter().filter(|name| !files.contains_key(*name)).cloned().collect(),
            ..Self::default()
        };
        for (name, actual) in files {
            if !golden.contains(name) {
                differences.missing.push(name.clone());
            } else if let Some(diff) = diff(&dir.join(name), name, actual) {
                differences.different.insert(name.clone(), diff);
            }
        }
        differences
    }

    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.different.is_empty()
    }

    fn report(&self, dir: &Path) -> String {
        let mut report = format!("the golden folder `{}` is not what the test produced\n", dir.display());
        let different: Vec<_> = self.different.keys().cloned().collect();
        for (title, names) in
            [("missing in the folder", &self.missing), ("extra in the folder", &self.extra), ("different", &different)]
        {
            if names.is_empty() {
                continue;
            }
            let _ = writeln!(report, "\n{title} ({}):", names.len());
            for name in names.iter().take(MAX_NAMES) {
                let _ = writeln!(report, "  {name}");
            }
            if let Some(more) = names.len().checked_sub(MAX_NAMES).filter(|more| *more > 0) {
                let _ = writeln!(report, "  … and {more} more");
            }
        }
        if !self.different.is_empty() {
            let _ = write!(report, "\n{}", shorten(&self.different.values().cloned().collect::<String>()));
        }
        report + HINT
    }
}

#[track_caller]
fn check_tree_in(mode: Mode, dir: &Path, files: &BTreeMap<String, String>) {
    for name in files.keys() {
        let stays = !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        assert!(stays, "`{name}` is not a plain relative path, so it may lead out of `{}`", dir.display());
    }
    match mode {
        Mode::Compare => {
            let differences = Differences::between(dir, files);
            assert!(differences.is_empty(), "{}", differences.report(dir));
        }
        Mode::Bless => bless_tree(dir, files),
    }
}

#[track_caller]
fn check_text_in(mode: Mode, path: &Path, actual: &str) {
    match mode {
        Mode::Compare => {
            if let Some(diff) = diff(path, &path.display().to_string(), actual) {
                panic!(
                    "the golden file `{}` is not what the test produced\n\n{}{HINT}",
                    path.display(),
                    shorten(&diff)
                );
            }
        }
        Mode::Bless => write(path, actual),
    }
}

fn bless_tree(dir: &Path, files: &BTreeMap<String, String>) {
    // Remove first: a file may have become a folder, and a link out of the folder must be gone before anything is
    // written below its name.
    for name in list(dir).iter().filter(|name| !files.contains_key(*name)) {
        let path = dir.join(name);
        fs::remove_file(&path).unwrap_or_else(|error| panic!("failed to remove `{}`: {error}", path.display()));
        remove_empty_parents(&path, dir);
    }
    for (name, actual) in files {
        write(&dir.join(name), actual);
    }
}

/// Removes the folders between `path` and `dir` that became empty, so that a blessed folder equals a fresh checkout.
fn remove_empty_parents(path: &Path, dir: &Path) {
    let mut parent = path.parent();
    while let Some(folder) = parent.filter(|folder| *folder != dir && folder.starts_with(dir)) {
        if fs::remove_dir(folder).is_err() {
            break; // Not empty: it stays.
        }
        parent = folder.parent();
    }
}

/// Writes a golden file if its content is another one, so that the times of untouched files stay.
fn write(path: &Path, content: &str) {
    let linked = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    assert!(!linked, "the golden file `{}` is a symbolic link; replace it by a plain file", path.display());
    if fs::read(path).is_ok_and(|golden| golden == content.as_bytes()) {
        return;
    }
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, content));
    written.unwrap_or_else(|error| panic!("failed to write `{}`: {error}", path.display()));
}

/// The paths of all files under `dir`, relative to it. A link counts as a file: it is never followed.
fn list(dir: &Path) -> BTreeSet<String> {
    fn walk(dir: &Path, prefix: &str, names: &mut BTreeSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), &format!("{name}/"), names)?;
            } else {
                names.insert(name);
            }
        }
        Ok(())
    }
    let mut names = BTreeSet::new();
    match walk(dir, "", &mut names) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("failed to list `{}`: {error}", dir.display()),
        _ => names,
    }
}

/// The diff from the file at `path` to `actual`; `None` if they are equal. No file is an empty one.
fn diff(path: &Path, name: &str, actual: &str) -> Option<String> {
    let golden = match fs::read(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("failed to read `{}`: {error}", path.display()),
        Err(_) => None,
        Ok(golden) => Some(golden),
    };
    if golden.as_deref() == Some(actual.as_bytes()) {
        return None;
    }
    let golden = golden.unwrap_or_default();
    let golden = String::from_utf8_lossy(&golden);
    let diff = TextDiff::from_lines(golden.as_ref(), actual);
    Some(
        diff.unified_diff()
            .context_radius(3)
            .header(&format!("{name} (golden)"), &format!("{name} (actual)"))
            .to_string(),
    )
}

fn shorten(diff: &str) -> String {
    let more = diff.lines().count().saturating_sub(MAX_DIFF_LINES);
    if more == 0 {
        return diff.to_owned();
    }
    let mut short: String = diff.split_inclusive('\n').take(MAX_DIFF_LINES).collect();
    let _ = writeln!(short, "… and {more} more lines");
    short
}

#[cfg(test)]
mod tests;
