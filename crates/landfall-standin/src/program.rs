//! A program of this machine in the place of a service's stand-in: how it begins, and what can be seen of its pod from
//! inside without its help.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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

/// Becomes the program. It has the environment of its pod, and beside that only what a cluster's network would give: the
/// certificates that the platform's externals and stores have are trusted here as public ones are there.
pub(crate) fn become_program(program: &Program, ledger: Option<&str>) -> Failure {
    let Some((path, arguments)) = program.argv.split_first() else { return "there is no program".into() };
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

/// Whether each of these addresses accepts a connection.
pub(crate) async fn reached(targets: impl Iterator<Item = impl tokio::net::ToSocketAddrs>) -> Vec<bool> {
    let attempts = targets.map(|target| async move {
        let attempt = tokio::time::timeout(PROBE, TcpStream::connect(target)).await;
        attempt.is_ok_and(|connected| connected.is_ok())
    });
    futures::future::join_all(attempts).await
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
