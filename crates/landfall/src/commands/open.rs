//! `landfall open`: a way from this machine to a service, store or external of a platform that is up.

use std::io::IsTerminal as _;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::up::{Found, is_of, is_ready};
use crate::Outcome;
use crate::cli::{Input, OpenArguments};
use crate::signals::StopSignals;
use crate::terminal::Terminal;

/// By these names of ports browsers are of use.
const FOR_BROWSERS: [&str; 4] = ["http", "web", "console", "management"];

/// Where members of a store say what they are, and who of them takes writes.
const ROLES: [&str; 3] = ["cnpg.io/instanceRole", "redis-role", "role"];
const WRITES: [&str; 2] = ["primary", "master"];

/// Leads connections to a pod until it is told to stop. The answer is no when there is none.
pub(crate) fn run(arguments: &OpenArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let input = Input { file: arguments.file.clone(), environment: arguments.environment.clone() };
    super::up::block_on(async {
        let found = match Found::find(&input, terminal).await? {
            Ok(found) => found,
            Err(outcome) => return Ok(outcome),
        };
        let ways =
            Ways { client: found.client().clone(), namespaces: found.namespaces(), name: arguments.name.clone() };
        let Some(pod) = ways.pod().await? else {
            let name = &arguments.name;
            terminal.say(&format!("no pod of `{name}` is ready\nhint: `landfall status` lists the pods"))?;
            return Ok(Outcome::No);
        };
        let Some(port) = choose(&ports(&pod), arguments.port.as_deref()) else {
            let declared = ports(&pod).iter().map(|port| port.container_port.to_string()).collect::<Vec<_>>();
            let has = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
            terminal.say(&format!("pod `{}` has no such port; it declares {has}", pod.name_any()))?;
            return Ok(Outcome::No);
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.listen)).await;
        let listener = listener.with_context(|| format!("failed to listen on port {}", arguments.listen))?;
        let address = listener.local_addr().context("failed to listen")?;
        let is_for_browsers =
            port.name.as_deref().is_some_and(|name| FOR_BROWSERS.iter().any(|known| name.contains(known)));
        let shown = if is_for_browsers { format!("http://{address}") } else { address.to_string() };
        let number = port.container_port;
        terminal.say(&format!("{shown} leads to port {number} of `{}`; Ctrl-C ends it", arguments.name))?;
        if let Some((host, address)) = found.firewall_before(&arguments.name)? {
            terminal.say(&format!("note: it goes past the firewall; users come to `{host}` by {address}"))?;
        }
        if is_for_browsers
            && !arguments.no_browser
            && std::io::stdout().is_terminal()
            && let Err(error) = ::open::that_detached(&shown)
        {
            terminal.say(&format!("note: no browser was opened: {error}"))?;
        }
        let port = u16::try_from(number).context("it is no port")?;
        let mut signals = StopSignals::listen()?;
        tokio::select! {
            led = lead(listener, &ways, port) => led?,
            () = signals.next() => {}
        }
        Ok(Outcome::Done)
    })
}

/// Takes connections, each to a pod that is ready then: pods come and go.
async fn lead(listener: TcpListener, ways: &Ways, port: u16) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("failed to take a connection")?;
                connections.spawn(ways.clone().connect(stream, port));
            }
            // One that failed is closed, and its client sees that.
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// What leads somewhere.
#[derive(Clone)]
struct Ways {
    client: Client,
    namespaces: Vec<String>,
    name: String,
}

impl Ways {
    /// A pod that is ready: of a store, the one that takes writes if one says so.
    async fn pod(&self) -> anyhow::Result<Option<Pod>> {
        let mut ready = Vec::new();
        for namespace in &self.namespaces {
            let listed = Api::<Pod>::namespaced(self.client.clone(), namespace).list(&ListParams::default()).await;
            let listed = listed.with_context(|| format!("failed to list the pods in {namespace}"))?;
            ready.extend(listed.into_iter().filter(|pod| is_of(pod, &self.name) && is_ready(pod)));
        }
        ready.sort_by_key(|pod| (!takes_writes(pod), pod.name_any()));
        Ok(ready.into_iter().next())
    }

    async fn connect(self, mut from: TcpStream, port: u16) -> anyhow::Result<()> {
        let pod = self.pod().await?.with_context(|| format!("no pod of `{}` is ready", self.name))?;
        let namespace = pod.namespace().unwrap_or_default();
        let pods = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let mut forwarder = pods.portforward(&pod.name_any(), &[port]).await?;
        let mut to = forwarder.take_stream(port).context("no stream was opened")?;
        copy_bidirectional(&mut from, &mut to).await?;
        drop(to);
        forwarder.join().await?;
        Ok(())
    }
}

fn takes_writes(pod: &Pod) -> bool {
    ROLES.iter().filter_map(|role| pod.labels().get(*role)).any(|role| WRITES.contains(&role.as_str()))
}

fn ports(pod: &Pod) -> Vec<ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.ports.clone().unwrap_or_default()).collect()
}

/// The one that is asked for, by number or name; otherwise the first.
fn choose(ports: &[ContainerPort], asked: Option<&str>) -> Option<ContainerPort> {
    let Some(asked) = asked else { return ports.first().cloned() };
    let declared =
        ports.iter().find(|port| port.name.as_deref() == Some(asked) || port.container_port.to_string() == asked);
    // A number that nobody declares may have a listener all the same.
    declared.cloned().or_else(|| {
        let number = asked.parse::<u16>().ok()?;
        Some(ContainerPort { container_port: number.into(), ..ContainerPort::default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: i32, name: &str) -> ContainerPort {
        ContainerPort { container_port: number, name: Some(name.to_owned()), ..ContainerPort::default() }
    }

    #[test]
    fn a_port_is_chosen_by_number_or_name_or_is_the_first() {
        let ports = [port(5432, "postgresql"), port(9187, "metrics")];
        let chosen = |asked: Option<&str>| choose(&ports, asked).map(|port| port.container_port);
        assert_eq!(chosen(None), Some(5432));
        assert_eq!(chosen(Some("metrics")), Some(9187));
        assert_eq!(chosen(Some("9187")), Some(9187));
        assert_eq!(chosen(Some("8080")), Some(8080), "not all that listens is declared");
        assert_eq!(chosen(Some("http")), None);
        assert_eq!(choose(&[], None), None);
    }
}
