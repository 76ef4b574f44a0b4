//! `landfall render`: writes the file as something that other tools read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context as _;
use landfall_model::{Finding, Severity};
use landfall_render::{ClaimRow, DOCUMENT, Output, Target, Variant};

use crate::Outcome;
use crate::cli::{RenderArguments, RenderWord};
use crate::files::write_whole;
use crate::project::{Project, today};
use crate::terminal::Terminal;

/// The file that marks a folder as ours, and lists what was written: only those files are ever removed.
const MANIFEST: &str = ".landfall-files";

/// Renders every wanted environment for every wanted target.
pub(crate) fn run(arguments: &RenderArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let Some((targets, path)) = words(&arguments.words) else {
        terminal.say("error: `render` takes one target or more, and then at most one file\nhint: `landfall render helm kustomize landfall.yaml`")?;
        return Ok(Outcome::NotUnderstood);
    };
    if arguments.stdout && targets != [Target::Kubernetes] {
        terminal.say(
            "error: only plain objects can be one stream\nhint: leave out `--stdout`, or render `kubernetes` alone",
        )?;
        return Ok(Outcome::NotUnderstood);
    }
    let project = Project::read(path)?;
    let sources = project.file.sources();
    let mut variants = Vec::new();
    for environment in project.environments(arguments.environment.as_deref()) {
        let variant = match project.file.architecture(environment.as_deref()) {
            Ok(architecture) => Variant::new(architecture),
            Err(findings) => {
                terminal.findings(&findings, sources)?;
                return Ok(Outcome::NotUnderstood);
            }
        };
        terminal.findings(&variant.rendered.findings, sources)?;
        if has_errors(&variant.rendered.findings) {
            return Ok(Outcome::NotUnderstood);
        }
        variants.push(variant);
    }
    let mut files = BTreeMap::new();
    for target in &targets {
        let folder = if targets.len() > 1 { arguments.out.join(target.as_str()) } else { arguments.out.clone() };
        let output = match target {
            Target::Docs => match document(arguments, &project, &variants, &folder)? {
                Ok(output) => output,
                Err(findings) => {
                    terminal.findings(&findings, sources)?;
                    return Ok(Outcome::NotUnderstood);
                }
            },
            target => landfall_render::render(*target, &variants, sources),
        };
        terminal.findings(&output.findings, sources)?;
        if has_errors(&output.findings) {
            return Ok(Outcome::NotUnderstood);
        }
        let place = |path: String| if targets.len() > 1 { format!("{}/{path}", target.as_str()) } else { path };
        files.extend(output.files.into_iter().map(|(path, text)| (place(path), text)));
    }
    if arguments.stdout {
        // The reader may be `kubectl apply -f -`, which takes one object after the other.
        for variant in &variants {
            for path in variant.rendered.apply_order() {
                let path = if variants.len() > 1 { format!("{}/{path}", variant.name) } else { path };
                writeln!(terminal.data(), "---\n# Source: {path}\n{}", files[&path])?;
            }
        }
        return Ok(Outcome::Done);
    }
    if arguments.check {
        return compare(&files, &arguments.out, terminal);
    }
    let removed = write(&files, &arguments.out)?;
    let mut line = format!("wrote {} files to `{}`", files.len(), arguments.out.display());
    if removed > 0 {
        line += &format!(", removed {removed} that are no longer rendered");
    }
    terminal.say(&line)?;
    Ok(Outcome::Done)
}

/// Renders the document in `folder` around what its author has written, with the claims of the production environment.
fn document(
    arguments: &RenderArguments,
    project: &Project,
    variants: &[Variant],
    folder: &Path,
) -> anyhow::Result<Result<Output, Vec<Finding>>> {
    let path = folder.join(DOCUMENT);
    let existing = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    };
    let environment = project.production(arguments.environment.as_deref());
    let checked = match project.check(environment.as_deref(), today(arguments.today)) {
        Ok(checked) => checked,
        Err(findings) => return Ok(Err(findings)),
    };
    let rows = project.ledger(&checked);
    let claims: Vec<ClaimRow> = rows
        .into_iter()
        .map(|row| ClaimRow {
            id: row.id,
            says: row.says,
            line: row.line,
            state: row.state.as_str().to_owned(),
            to_measure: row.to_measure.len(),
        })
        .collect();
    let architectures = variants.iter().map(|variant| &variant.architecture);
    Ok(Ok(landfall_render::docs(architectures, &claims, existing.as_deref())))
}

/// Whether somebody writes in the file besides: such a file is never removed.
fn is_shared(path: &str) -> bool {
    path.rsplit('/').next() == Some(DOCUMENT)
}

/// The targets, each once and in a fixed order, and the file behind them.
fn words(words: &[RenderWord]) -> Option<(Vec<Target>, &Path)> {
    let mut targets = BTreeSet::new();
    let mut path = None;
    for word in words {
        match word {
            RenderWord::Target(target) if path.is_none() => {
                targets.insert(*target);
            }
            RenderWord::File(file) if path.is_none() => path = Some(file.as_path()),
            RenderWord::Target(_) | RenderWord::File(_) => return None,
        }
    }
    let path = path.unwrap_or(Path::new("landfall.yaml"));
    (!targets.is_empty()).then(|| (targets.into_iter().collect(), path))
}

fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// The files that an earlier render wrote to `folder`.
fn written_before(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let path = folder.join(MANIFEST);
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
    Ok(text.lines().filter(|line| is_inside(line)).map(ToOwned::to_owned).collect())
}

/// Whether a path of the manifest stays in the folder: somebody may have edited the manifest.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// Writes the files, each of them whole or not at all, and removes what an earlier render wrote and this one does not.
/// Files of others in the folder stay.
fn write(files: &BTreeMap<String, String>, folder: &Path) -> anyhow::Result<usize> {
    let before = written_before(folder)?;
    let ours = || files.keys().map(String::as_str).filter(|path| !is_shared(path));
    let mut manifest: BTreeSet<&str> = ours().collect();
    manifest.extend(before.iter().map(String::as_str));
    // The manifest names the union first, so that a crash half-way forgets no file.
    write_whole(&folder.join(MANIFEST), lines(&manifest).as_bytes())?;
    for (path, text) in files {
        let path = folder.join(path);
        if fs::read_to_string(&path).is_ok_and(|existing| existing == *text) {
            continue;
        }
        write_whole(&path, text.as_bytes())?;
    }
    let mut removed = 0;
    for path in before.iter().filter(|path| !files.contains_key(*path)) {
        let path = folder.join(path);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("failed to remove `{}`", path.display()))?;
            removed += 1;
        }
        // A folder that still has something in it is somebody's.
        path.ancestors().skip(1).take_while(|parent| *parent != folder).for_each(|parent| {
            let _ = fs::remove_dir(parent);
        });
    }
    write_whole(&folder.join(MANIFEST), lines(&ours().collect()).as_bytes())?;
    Ok(removed)
}

fn lines(paths: &BTreeSet<&str>) -> String {
    paths.iter().map(|path| format!("{path}\n")).collect()
}

/// Says how the folder differs from what would be written.
fn compare(files: &BTreeMap<String, String>, folder: &Path, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let mut differences = Vec::new();
    for (path, text) in files {
        match fs::read_to_string(folder.join(path)) {
            Ok(existing) if existing == *text => {}
            Ok(existing) => differences.push(format!("changed  {path}\n{}", unified(&existing, text))),
            Err(_) => differences.push(format!("missing  {path}")),
        }
    }
    for path in written_before(folder)?.iter().filter(|path| !files.contains_key(*path)) {
        differences.push(format!("extra    {path}"));
    }
    for difference in &differences {
        writeln!(terminal.data(), "{difference}")?;
    }
    let count = differences.len();
    if count == 0 {
        terminal.say(&format!("`{}` is up to date: {} files", folder.display(), files.len()))?;
        return Ok(Outcome::Done);
    }
    terminal.say(&format!(
        "`{}` differs in {count} of {} files\nhint: run the same command without `--check` to write them",
        folder.display(),
        files.len()
    ))?;
    Ok(Outcome::No)
}

fn unified(before: &str, after: &str) -> String {
    let diff = similar::TextDiff::from_lines(before, after);
    diff.unified_diff().context_radius(2).to_string()
}
