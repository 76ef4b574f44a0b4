//! Which cluster a stage talks to: the kubeconfig that its steps get.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kube::config::Kubeconfig;

use crate::cli::PipelineRunArguments;
use crate::commands::up::Place;

/// A kubeconfig for steps.
pub(super) enum Access {
    /// A file that is there.
    File(PathBuf),
    /// One of ours with the wanted context, which goes with the run: it has credentials.
    Own(tempfile::NamedTempFile),
}

impl Access {
    /// Its file.
    pub(super) fn path(&self) -> &OsStr {
        match self {
            Self::File(path) => path.as_os_str(),
            Self::Own(file) => file.path().as_os_str(),
        }
    }
}

/// The kubeconfig of the cluster that was named, if one was.
pub(super) fn named(arguments: &PipelineRunArguments) -> anyhow::Result<Option<Access>> {
    let mut config = match (&arguments.kubeconfig, &arguments.context) {
        (None, None) => return Ok(None),
        (Some(file), None) => return Ok(Some(Access::File(std::path::absolute(file)?))),
        (Some(file), Some(_)) => {
            Kubeconfig::read_from(file).with_context(|| format!("failed to read `{}`", file.display()))?
        }
        (None, Some(_)) => Kubeconfig::read().context("failed to read the kubeconfig")?,
    };
    config.current_context.clone_from(&arguments.context);
    let mut file = tempfile::NamedTempFile::new().context("failed to make a temporary file")?;
    serde_json::to_writer(&mut file, &config).context("failed to write a kubeconfig")?;
    file.flush().context("failed to write a kubeconfig")?;
    Ok(Some(Access::Own(file)))
}

/// The kubeconfig of what `landfall up` runs for an environment; `Err` is what to tell who runs nothing.
///
/// A cluster that nobody named is never one of the user's kubeconfig: whoever forgets a flag would deploy to production.
pub(super) fn of_up(file: &Path, name: &str, environment: Option<&str>) -> Result<Access, String> {
    let place = Place::of(file, name, environment);
    if place.occupant().is_some() {
        return Ok(Access::File(place.kubeconfig()));
    }
    let flag = environment.map(|name| format!(" --env {name}")).unwrap_or_default();
    Err(format!("which cluster? Add `--context` or `--kubeconfig`, or run it here first: `landfall up{flag}`"))
}
