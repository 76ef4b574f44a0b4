//! Alertmanager with the configuration that its pod brings, as the account of Prometheus.

use std::path::{Path, PathBuf};

use super::{Account, Found, exec, first_in, says, setting};
use crate::Failure;

/// Debian's name, and its own.
const PROGRAMS: &[&str] = &["/usr/bin/prometheus-alertmanager", "/usr/local/bin/alertmanager"];

/// Only an installed one: Debian's reads its templates from below `/usr/share`, wherever it is itself, and does not run without.
pub(super) fn find() -> Option<Found> {
    let path = first_in(&[PathBuf::from("/")], PROGRAMS)?;
    // `alertmanager, version 0.25.0 (branch: …`
    let text = says(&path, &["--version"])?;
    let version = text.strip_prefix("alertmanager, version ")?.split([' ', '+']).next()?.to_owned();
    Some(Found { path, version: format!("Alertmanager {version}") })
}

/// `alertmanager` with `ALERTMANAGER_CONFIG` and `ALERTMANAGER_DATA`, whose folder becomes its account's own. It is alone, so that
/// it needs no address for others of its kind.
pub(super) fn become_server(found: &Found) -> Result<(), Failure> {
    let (configuration, data) = (setting("ALERTMANAGER_CONFIG")?, setting("ALERTMANAGER_DATA")?);
    let account = Account::of("prometheus")?;
    account.own(Path::new(&data))?;
    let mut server = account.command(&found.path);
    server
        .arg(format!("--config.file={configuration}"))
        .arg(format!("--storage.path={data}"))
        .arg(format!("--web.listen-address={}:9093", crate::address::own()))
        .arg("--cluster.listen-address=")
        .current_dir(&data);
    Err(exec(server))
}
