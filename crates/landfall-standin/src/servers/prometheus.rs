//! Prometheus with the configuration that its pod brings, as its own account.

use std::path::Path;

use super::{Account, Found, exec, first_of, says, setting};
use crate::Failure;

pub(super) fn find() -> Option<Found> {
    let path = first_of(&["/usr/bin/prometheus", "/usr/local/bin/prometheus"])?;
    // `prometheus, version 2.42.0+ds (branch: …`
    let text = says(&path, &["--version"])?;
    let version = text.strip_prefix("prometheus, version ")?.split([' ', '+']).next()?.to_owned();
    Some(Found { path, version: format!("Prometheus {version}") })
}

/// `prometheus` with `PROMETHEUS_CONFIG` and `PROMETHEUS_DATA`, whose folder becomes its account's own.
pub(super) fn become_server(found: &Found) -> Result<(), Failure> {
    let (configuration, data) = (setting("PROMETHEUS_CONFIG")?, setting("PROMETHEUS_DATA")?);
    let account = Account::of("prometheus")?;
    account.own(Path::new(&data))?;
    let mut server = account.command(&found.path);
    server
        .arg(format!("--config.file={configuration}"))
        .arg(format!("--storage.tsdb.path={data}"))
        .arg(format!("--web.listen-address={}:9090", crate::address::own()))
        // An alert that Alertmanager was not there for comes again soon.
        .arg("--rules.alert.resend-delay=10s")
        .current_dir(&data);
    Err(exec(server))
}
