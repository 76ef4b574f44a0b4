//! A program of this machine in the place of a service's stand-in: how it begins, and what can be seen of its pod from
//! inside without its help.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::Failure;
use crate::behaviour::{LEDGER_VARIABLE, Program};
use crate::record::Record;

/// The variables by which OpenSSL (and with it Python and Ruby), Go and rustls, then Node, then Python's `requests`, then
/// curl find the certificates that they trust.
const TRUST_VARIABLES: [&str; 4] = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// How long a probed address may take to accept: what a policy closes answers nothing at all.
const PROBE: Duration = Duration::from_millis(1500);

/// What accepts and may not is tried again so much later: policies may come a moment after the pods that they are for.
const SETTLE: Duration = Duration::from_secs(3);

/// How long a pod may take until it gets to whom it may.
const NETWORK: Duration = Duration::from_mins(1);

/// Between two tries to get there.
const RETRY: Duration = Duration::from_millis(250);

/// The environment variable of a pod that is only to look around: a JSON list of addresses. It waits until the first accepts, which
/// the pod may get to, and prints what [`Looked`] says of the others. Whatever its program is does not run.
pub const LOOK_VARIABLE: &str = "LANDFALL_LOOK";

/// In the place of the address that is waited for: there is none, and some seconds have to do.
pub const NOBODY: &str = "nobody";

/// Becomes the program. It has the environment of its pod, and beside that only what a cluster's network would give: the
/// certificates that the platform's externals and stores have are trusted here as public ones are there.
/// Where the image catalogue says which program it is, it is `named`.
pub(crate) fn become_program(program: &Program, named: &[&str], ledger: Option<&str>) -> Failure {
    let own: Vec<&str> = program.argv.iter().map(String::as_str).collect();
    let argv = if program.of_catalogue { named } else { &own };
    let Some((path, arguments)) = argv.split_first() else { return "there is no program".into() };
    let mut command = Command::new(path);
    command.args(arguments).current_dir(&program.folder);
    for variable in TRUST_VARIABLES.iter().filter(|variable| std::env::var_os(variable).is_none()) {
        command.env(variable, &program.trust);
    }
    if let (Some(folder), Ok(pod)) = (ledger, std::env::var("HOSTNAME")) {
        let file = Path::new(folder).join(pod);
        // Opened once, so that the folder is there and the file does not grow with every start.
        if let Err(error) = Record::kept_in(&file) {
            return format!("failed to open `{}`: {error}", file.display()).into();
        }
        command.env(LEDGER_VARIABLE, file);
    }
    let error = command.exec();
    format!("failed to start `{path}`: {error}").into()
}

/// What can be seen from inside of a pod, whatever runs in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Whether each address that was asked for accepted a connection, in the same order.
    pub open: Vec<bool>,
    /// The other sides of the connections that the pod has made, those included that were closed within the last minute.
    pub connections: BTreeSet<SocketAddrV4>,
}

/// Prints what can be seen.
pub(crate) async fn look(targets: &[&str]) -> Result<(), Failure> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    // Before the targets are tried, as that makes connections too.
    let connections = connections(&tables.concat());
    let looked = Looked { open: reached(targets.iter()).await, connections };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&looked)?)?;
    Ok(())
}

/// The same in a pod that came for this, by [`LOOK_VARIABLE`]: until it has a network everything would seem closed.
pub(crate) async fn look_as_told(told: &str) -> Result<(), Failure> {
    let told: Vec<&str> = serde_json::from_str(told).map_err(|error| format!("{LOOK_VARIABLE}: {error}"))?;
    let Some((open, targets)) = told.split_first() else { return Err(format!("{LOOK_VARIABLE} is empty").into()) };
    if *open == NOBODY {
        tokio::time::sleep(SETTLE).await;
        return look(targets).await;
    }
    let begin = Instant::now();
    while !accepts(open).await {
        if begin.elapsed() >= NETWORK {
            return Err(format!("{open} does not accept, which this pod may get to").into());
        }
        tokio::time::sleep(RETRY).await;
    }
    look(targets).await
}

/// Whether each of these addresses accepts a connection.
pub(crate) async fn reached(targets: impl Iterator<Item = impl AsRef<str>>) -> Vec<bool> {
    let attempts = targets.map(|target| async move {
        if !accepts(target.as_ref()).await {
            return false;
        }
        tokio::time::sleep(SETTLE).await;
        accepts(target.as_ref()).await
    });
    futures::future::join_all(attempts).await
}

async fn accepts(target: &str) -> bool {
    let attempt = tokio::time::timeout(PROBE, TcpStream::connect(target)).await;
    attempt.is_ok_and(|connected| connected.is_ok())
}

/// The other sides of connections that were made here, in the text of `/proc/net/tcp` (`proc_net_tcp` in the kernel's
/// documentation): those that came in are at a port that is listened to.
fn connections(table: &str) -> BTreeSet<SocketAddrV4> {
    const LISTEN: u8 = 0x0A;
    /// Established, and what follows until the end of `TIME_WAIT`: all of them were accepted.
    const ACCEPTED: [u8; 7] = [0x01, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0B];
    let mut by_state = BTreeMap::<u8, Vec<(SocketAddrV4, SocketAddrV4)>>::new();
    for line in table.lines() {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let Ok(state) = u8::from_str_radix(state, 16) else { continue };
        if let (Some(local), Some(remote)) = (address(local), address(remote)) {
            by_state.entry(state).or_default().push((local, remote));
        }
    }
    let listened: BTreeSet<u16> = by_state.get(&LISTEN).into_iter().flatten().map(|(local, _)| local.port()).collect();
    let made = ACCEPTED.iter().filter_map(|state| by_state.get(state)).flatten();
    made.filter(|(local, _)| !listened.contains(&local.port())).map(|(_, remote)| *remote).collect()
}

/// `0100007F:1F90`, the address in the order of the machine's bytes; in the table of IPv6 its last four bytes.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address.get(address.len().checked_sub(8)?..)?, 16).ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(address.to_ne_bytes()), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn connections_that_were_made_are_told_from_those_that_came_in() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   1: 0700F40A:1F90 0800F40A:D431 01 00000000:00000000 00:00000000 00000000
   2: 0700F40A:A001 0500600A:1538 01 00000000:00000000 00:00000000 00000000
   3: 0700F40A:A002 0600600A:01BB 06 00000000:00000000 00:00000000 00000000
   4: 0700F40A:A003 0700600A:01BB 02 00000000:00000000 00:00000000 00000000
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 0000000000000000FFFF00000700F40A:A004 0000000000000000FFFF00000800600A:18EB 01 00000000:00000000 00:00000000
";
        let made: Vec<_> = connections(table).into_iter().map(|address| address.to_string()).collect();
        assert_eq!(made, ["10.96.0.5:5432", "10.96.0.6:443", "10.96.0.8:6379"]);
    }
}
