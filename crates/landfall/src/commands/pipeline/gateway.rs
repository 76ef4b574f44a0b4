//! The way from a step to what `landfall up` runs: `curl` is told where the gateway is and whom to trust, so that the commands of
//! the rendered pipelines reach the hosts of the file here as they do elsewhere.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use landfall_model::{Architecture, Name};

use crate::commands::up::{Entrances, Place};

/// Where systems keep the certificates of public authorities.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A home for `curl` (`CURL_HOME`), with its `.curlrc`. It goes with the stage.
pub(super) struct Home(tempfile::TempDir);

impl Home {
    /// The home for the hosts of an architecture that is up; nothing when it is not.
    pub(super) fn of_up(file: &Path, architecture: &Architecture) -> anyhow::Result<Option<Self>> {
        let environment = architecture.environment.as_ref().map(Name::as_str);
        let place = Place::of(file, architecture.document.name.as_str(), environment);
        if place.occupant().is_none() {
            return Ok(None);
        }
        let entrances = Entrances::of(&place)?;
        let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
        let mut trusted = BUNDLES.iter().find_map(|bundle| fs::read(bundle).ok()).unwrap_or_default();
        if !trusted.ends_with(b"\n") {
            trusted.push(b'\n');
        }
        let authority = place.trust();
        trusted.extend(fs::read(&authority).with_context(|| format!("failed to read `{}`", authority.display()))?);
        let bundle = folder.path().join("trusted.pem");
        fs::write(&bundle, trusted).context("failed to write the certificates that curl trusts")?;
        let mut text = format!("cacert = \"{}\"\n", bundle.display());
        for (_, _, expose) in architecture.exposed() {
            let host = &expose.host.value;
            let (http, https) = entrances.to(host);
            for (port, address) in [(80, http), (443, https)] {
                text += &format!("connect-to = \"{host}:{port}:{address}\"\n");
            }
        }
        fs::write(folder.path().join(".curlrc"), text).context("failed to write a `.curlrc`")?;
        Ok(Some(Self(folder)))
    }

    pub(super) fn path(&self) -> &OsStr {
        self.0.path().as_os_str()
    }
}
