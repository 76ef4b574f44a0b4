//! A `landfall.yaml` on disk, and what every command does with it first.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landfall_check::{LedgerRow, Rendering, Report, Trees, ledger, targets_of_claims};
use landfall_model::{Architecture, Date, File, Finding};
use landfall_render::{Target, Variant};
use serde_json::Value;

/// The file on disk could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read `{}`", path.display())]
pub(crate) struct ReadError {
    path: PathBuf,
    source: io::Error,
}

impl ReadError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        (self.source.kind() == io::ErrorKind::NotFound)
            .then_some("name a file or a folder that has one; a new file begins with `landfall: v1` and `name: …`, and `landfall schema` has the rest")
    }
}

/// A file that was read.
pub(crate) struct Project {
    /// The file with its includes.
    pub(crate) file: File,
}

/// One environment of a project, rendered and checked.
pub(crate) struct Checked {
    /// The architecture.
    pub(crate) architecture: Architecture,
    /// The rendered objects as plain values, patches applied.
    pub(crate) objects: Vec<Value>,
    /// Findings and proofs.
    pub(crate) report: Report,
}

impl Project {
    /// Reads `path`, or the `landfall.yaml` in the folder `path`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let path = if path.is_dir() { path.join("landfall.yaml") } else { path.to_owned() };
        let bytes = fs::read(&path).map_err(|source| ReadError { path: path.clone(), source })?;
        Ok(Self::from_bytes(&path, &bytes))
    }

    /// Takes `bytes` for the content of `path`; includes are read beside it.
    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut include = |relative: &str| fs::read(folder.join(relative)).map_err(|error| error.to_string());
        Self { file: File::read(&path.to_string_lossy(), bytes, &mut include) }
    }

    /// The environments to work on: the wanted one, or all, or the file as it stands when it declares none.
    pub(crate) fn environments(&self, wanted: Option<&str>) -> Vec<Option<String>> {
        match wanted {
            Some(wanted) => vec![Some(wanted.to_owned())],
            None => {
                let declared = self.file.environments();
                if declared.is_empty() { vec![None] } else { declared.into_iter().map(Some).collect() }
            }
        }
    }

    /// The environment that is meant: the only one, or the one that is named. `Err` is what to tell who named none.
    pub(crate) fn one_environment(&self, wanted: Option<&str>) -> Result<Option<String>, String> {
        match (wanted, self.file.environments().as_slice()) {
            (Some(wanted), _) => Ok(Some(wanted.to_owned())),
            (None, []) => Ok(None),
            (None, [only]) => Ok(Some(only.clone())),
            (None, several) => Err(format!(
                "error: which environment?\nhint: add `--env {}`; there are {}",
                several[0],
                several.join(", ")
            )),
        }
    }

    /// The environment that has to keep the promises: the wanted one, or the first that is production.
    pub(crate) fn production(&self, wanted: Option<&str>) -> Option<String> {
        let is_production = |name: &String| {
            let architecture = self.file.architecture(Some(name));
            architecture.is_ok_and(|architecture| architecture.is_production())
        };
        wanted.map(ToOwned::to_owned).or_else(|| self.file.environments().into_iter().find(is_production))
    }

    /// Renders and checks one environment.
    pub(crate) fn check(&self, environment: Option<&str>, today: Date) -> Result<Checked, Vec<Finding>> {
        let architecture = self.file.architecture(environment)?;
        let mut rendered = landfall_render::kubernetes(&architecture);
        let findings = std::mem::take(&mut rendered.findings);
        let objects = rendered.into_values();
        let rendering = Rendering { objects: &objects, findings: &findings };
        let report = landfall_check::check(&architecture, rendering, today);
        Ok(Checked { architecture, objects, report })
    }

    /// The ledger of a checked environment.
    pub(crate) fn ledger(&self, checked: &Checked) -> Vec<LedgerRow> {
        let declared = |path: &str| self.file.written(path).is_some();
        let trees = self.trees(&targets_of_claims(&checked.architecture));
        ledger(&checked.architecture, &checked.objects, &checked.report, &declared, &trees)
    }

    /// What `landfall render` writes for these targets, of all environments: a pipeline leads through several.
    fn trees(&self, wanted: &BTreeSet<&str>) -> Trees {
        let architectures = self.environments(None).into_iter();
        let variants: Vec<Variant> = architectures
            .filter_map(|environment| self.file.architecture(environment.as_deref()).ok())
            .map(Variant::new)
            .collect();
        let targets = Target::ALL.iter().filter(|target| wanted.contains(target.as_str()) && !variants.is_empty());
        let render = |target: &Target| {
            (target.as_str().to_owned(), landfall_render::render(*target, &variants, self.file.sources()).files)
        };
        targets.map(render).collect()
    }
}

/// Today in the time zone of the machine, unless the user says otherwise.
pub(crate) fn today(wanted: Option<Date>) -> Date {
    wanted.unwrap_or_else(|| Date::from(jiff::Zoned::now().date()))
}
