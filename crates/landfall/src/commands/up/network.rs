//! How far the pods of a platform are kept apart on the network, and what `up` makes of less than it would like.
//!
//! Not handled: a system without mount namespaces, on which volumes are not at the paths that programs read, and data that is
//! kept from another level, as each has a range of addresses for services.

use std::io::ErrorKind::PermissionDenied;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{anyhow, bail};
use landfall_engine::{LAST_PRIVILEGED_PORT, Level, MachineReport, MountIsolation, RAISED_BY};

use super::Place;
use super::plan::Plan;
use crate::cli::NetworkLevel;
use crate::namespaces;

/// The word of reports and of the command line.
pub(crate) fn name(level: Level) -> &'static str {
    match level {
        Level::Namespace => "namespace",
        Level::Loopback => "loopback",
    }
}

/// What to ask of the engine: where nobody says otherwise, what the data was made with that is kept. To be called before another
/// `up` is asked to let go, as it says why this one cannot go on with that data.
pub(super) fn asked(asked: NetworkLevel, place: &Place) -> anyhow::Result<NetworkLevel> {
    let kept = place.network();
    match (asked, kept.as_deref()) {
        (NetworkLevel::Auto, Some("loopback")) => Ok(NetworkLevel::Loopback),
        (NetworkLevel::Namespace, Some(kept @ "loopback")) => Err(another(kept, "namespace", "")),
        (NetworkLevel::Loopback, Some(kept @ "namespace")) => Err(another(kept, "loopback", "")),
        (asked, _) => Ok(asked),
    }
}

fn another(kept: &str, level: &str, why: &str) -> anyhow::Error {
    anyhow!(
        "the data that is kept was made with `--network {kept}`, and services keep their addresses; this one has `{level}`{why}\n\
         hint: go on with `--network {kept}`, or delete it with `landfall down --delete-data`"
    )
}

/// Says why the platform cannot run on this machine, or keeps for the next `up` how it does.
pub(super) fn accept(asked: NetworkLevel, machine: &MachineReport, place: &Place) -> anyhow::Result<()> {
    let level = name(machine.network);
    let why = machine.refused.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    if asked == NetworkLevel::Namespace && machine.network != Level::Namespace {
        bail!(
            "no network for pods{why}\nhint: `landfall doctor` says what it takes; `--network loopback` does without"
        );
    }
    if machine.network == Level::Loopback && machine.isolation.mounts == MountIsolation::Linked {
        bail!(
            "this system lets nobody make namespaces{why}; without mounts of their own containers do not find their volumes, \
             which `up` does not handle yet\nhint: what lets them: {}",
            namespaces::remedy()
        );
    }
    if let Some(kept) = place.network().filter(|kept| kept != level) {
        return Err(another(&kept, level, &why));
    }
    place.keep_network(level)
}

/// What a person is told before anything runs.
pub(super) fn warnings(machine: &MachineReport, plan: &Plan) -> Vec<String> {
    if machine.network == Level::Namespace {
        return Vec::new();
    }
    let why = machine.refused.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let mut lines = vec![format!("pods share the network of this machine{why}: no policy is enforced")];
    let programs = plan.own_programs.iter().filter(|program| program.runs);
    let programs: Vec<String> = programs.map(|program| format!("`{}`", program.service)).collect();
    if !programs.is_empty() {
        lines.push(format!(
            "{} have to listen at the address in `POD_IP`, as every other one is that of their neighbours, too",
            programs.join(", ")
        ));
        if TcpListener::bind((Ipv4Addr::LOCALHOST, LAST_PRIVILEGED_PORT))
            .is_err_and(|error| error.kind() == PermissionDenied)
        {
            lines.push(format!(
                "this user may not open ports up to {LAST_PRIVILEGED_PORT}: programs find those of services {RAISED_BY} higher\n\
                 hint: `sysctl -w net.ipv4.ip_unprivileged_port_start=80`, as root, lets every user open them"
            ));
        }
    }
    lines
}
