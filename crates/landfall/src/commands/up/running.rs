//! A platform that runs, seen from outside: its edges are read and its flows driven, by `up` itself and by the commands that
//! ask afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;
use landfall_model::Architecture;
use landfall_standin::{Authority, Seen};
use serde::{Deserialize, Serialize};

use super::client;
use super::cluster::{self, Lines, Snapshot};
use super::place::Place;
use super::plan::{self, Plan};
use super::report::{EdgesReport, FlowReport, MissingEdge, SilentEdge};
use super::scaling::ScalingReport;
use super::traffic::{self, Outsider};
use crate::Outcome;
use crate::cli::Input;
use crate::files::write_whole;
use crate::project::{Project, today};
use crate::terminal::Terminal;

/// How often arrivals are counted while messages are still on their way.
const ARRIVALS: Duration = Duration::from_secs(1);

/// How often each edge is used by itself at least, and once more for a slow machine.
const IDLE_EDGES: Duration = Duration::from_secs(15);

/// When nothing has arrived for so long, what is missing does not come any more.
const QUIET: Duration = Duration::from_secs(45);

/// Where the gateway listens, and the firewall before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entrances {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    #[serde(default)]
    pub(crate) firewall: Option<FirewallEntrance>,
}

/// Where the firewall listens, and for whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FirewallEntrance {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    /// The hosts that are behind it.
    pub(crate) hosts: BTreeSet<String>,
}

impl Entrances {
    /// Those of the platform that is up there.
    pub(crate) fn of(place: &Place) -> anyhow::Result<Self> {
        let file = place.entrances();
        let text = fs::read(&file).with_context(|| format!("failed to read `{}`", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("failed to understand `{}`", file.display()))
    }

    /// Where who asks for this host comes in: without TLS, and with it.
    pub(crate) fn to(&self, host: &str) -> (SocketAddr, SocketAddr) {
        match &self.firewall {
            Some(firewall) if firewall.hosts.contains(host) => (firewall.http, firewall.https),
            _ => (self.http, self.https),
        }
    }
}

/// How to reach a platform and what it should be.
pub(super) struct Running<'a> {
    pub(super) plan: &'a Plan,
    pub(super) client: &'a Client,
    pub(super) lines: &'a Lines,
    pub(super) outsider: &'a Outsider,
}

/// What the flows came to, and what the stand-ins have seen meanwhile.
pub(super) struct Tried {
    pub(super) flows: Vec<FlowReport>,
    pub(super) seen: BTreeMap<String, Vec<Seen>>,
}

impl Running<'_> {
    /// Drives the flows for so long, and waits until every message has arrived and every edge has carried, or the time for
    /// that is over.
    pub(super) async fn try_flows(&self, duration: Duration) -> anyhow::Result<Tried> {
        let begin = Instant::now();
        let pods = Snapshot::take(self.client, self.plan).await?;
        let driven = self.outsider.drive(self.client, self.lines, self.plan, &pods, duration).await?;
        let longest = self.plan.flows.iter().map(|flow| flow.within).max().unwrap_or_default();
        let deadline = Instant::now() + longest.max(IDLE_EDGES.saturating_sub(begin.elapsed()));
        let (mut fewest, mut progress) = (usize::MAX, Instant::now());
        let seen = loop {
            let seen = match self.seen().await {
                Ok(seen) => seen,
                // A pod has just died, or the engine is being started again.
                Err(_) if Instant::now() < deadline && progress.elapsed() < QUIET => {
                    tokio::time::sleep(ARRIVALS).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let missing = traffic::missing(&self.plan.flows, &driven, &seen);
            if missing < fewest {
                (fewest, progress) = (missing, Instant::now());
            }
            let complete = missing == 0 && self.plan.edges(&seen).silent.is_empty();
            if complete || Instant::now() >= deadline || progress.elapsed() >= QUIET {
                break seen;
            }
            tokio::time::sleep(ARRIVALS).await;
        };
        let flows = self.plan.flows.iter();
        let flows = flows.map(|flow| traffic::report(flow, driven.get(&flow.name), &seen)).collect();
        Ok(Tried { flows, seen })
    }

    async fn seen(&self) -> anyhow::Result<BTreeMap<String, Vec<Seen>>> {
        let pods = Snapshot::take(self.client, self.plan).await?;
        cluster::seen(self.lines, self.plan, &pods).await
    }
}

impl Plan {
    /// Which edges have carried.
    pub(super) fn edges(&self, seen: &BTreeMap<String, Vec<Seen>>) -> EdgesReport {
        let (mut silent, mut connected, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for edge in &self.edges {
            if let Some(because) = &edge.missing {
                let (because, left_out) = (because.clone(), edge.left_out);
                missing.push(MissingEdge { edge: edge.name.clone(), because, left_out });
                continue;
            }
            let counts = seen.get(&edge.from).into_iter().flatten().filter_map(|seen| seen.edges.get(&edge.name));
            let counts: Vec<_> = counts.collect();
            if counts.iter().any(|count| count.carried > 0) {
                continue;
            }
            if counts.iter().any(|count| count.connected) {
                connected.push(edge.name.clone());
            } else {
                let error = counts.iter().find_map(|count| count.error.clone());
                silent.push(SilentEdge { edge: edge.name.clone(), error });
            }
        }
        let declared = self.edges.len();
        let carrying = declared - silent.len() - connected.len() - missing.len();
        EdgesReport { declared, carrying, silent, connected, missing, ..EdgesReport::default() }
    }
}

/// A platform that another process runs.
pub(crate) struct Found {
    pub(super) architecture: Architecture,
    pub(super) plan: Plan,
    pub(super) place: Place,
    pub(super) client: Client,
    authority: String,
}

/// What an edge has carried in all copies of the one that it begins at.
#[derive(Debug, Serialize)]
pub(crate) struct EdgeState {
    pub(crate) edge: String,
    pub(crate) carried: u64,
    pub(crate) failed: u64,
    /// There is a connection, and the program at its beginning tells nothing of what it carries.
    pub(crate) connected: bool,
    /// Why it failed the last time.
    pub(crate) error: Option<String>,
    /// Why it cannot be tried here.
    pub(crate) missing: Option<String>,
    /// Whether that is so because `--only` leaves out where it begins or ends.
    pub(crate) left_out: bool,
}

impl Found {
    /// The one environment that is meant and up; otherwise the terminal has been told why there is none.
    pub(crate) async fn find(input: &Input, terminal: &mut Terminal) -> anyhow::Result<Result<Self, Outcome>> {
        let project = Project::read(&input.file)?;
        let environment = match project.one_environment(input.environment.as_deref()) {
            Ok(environment) => environment,
            Err(hint) => {
                terminal.say(&hint)?;
                return Ok(Err(Outcome::NotUnderstood));
            }
        };
        let checked = match project.check(environment.as_deref(), today(None)) {
            Ok(checked) => checked,
            Err(findings) => {
                terminal.findings(&findings, project.file.sources())?;
                return Ok(Err(Outcome::NotUnderstood));
            }
        };
        let place = Place::of(&input.file, checked.architecture.document.name.as_str(), environment.as_deref());
        if place.occupant().is_none() {
            let named = environment.as_deref().unwrap_or("it");
            terminal.say(&format!("{named}: not up\nhint: `landfall up` runs it"))?;
            return Ok(Err(Outcome::No));
        }
        let program = std::env::current_exe().context("failed to find this program")?;
        let authority = Authority::open(&place.authority()).context("failed to open the authority")?;
        let authority = authority.certificate().to_owned();
        let (architecture, long_ago) = (&checked.architecture, Timestamp::UNIX_EPOCH);
        let part = place.part();
        let plan = plan::plan(architecture, checked.objects, &program, &place, &authority, &part, long_ago);
        let client = client(&place).await?;
        Ok(Ok(Self { architecture: checked.architecture, plan, place, client, authority }))
    }

    /// Keeps what was seen of the scaling, beside what was seen of other services before.
    pub(crate) fn keep_scaling(&self, seen: ScalingReport) -> anyhow::Result<()> {
        let file = self.place.scaling();
        let before: ScalingReport =
            fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        write_whole(&file, &serde_json::to_vec_pretty(&before.renewed(seen))?)
    }

    /// A client of its API.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The namespaces that its pods are in.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        self.plan.namespaces().into_iter().map(ToOwned::to_owned).collect()
    }

    /// Where requests of users for a service come in, if that is by a firewall: its host, and the address for TLS.
    pub(crate) fn firewall_before(&self, service: &str) -> anyhow::Result<Option<(String, SocketAddr)>> {
        let Some(planned) = &self.plan.firewall else { return Ok(None) };
        let Some((host, _)) = planned.hosts.iter().find(|(_, services)| services.contains_key(service)) else {
            return Ok(None);
        };
        let (_, https) = Entrances::of(&self.place)?.to(host);
        Ok(Some((host.clone(), https)))
    }

    /// What every declared edge has carried since the copies that are there have started.
    pub(crate) async fn edges(&self) -> anyhow::Result<Vec<EdgeState>> {
        let lines = Lines::new(self.client.clone());
        let pods = Snapshot::take(&self.client, &self.plan).await?;
        let seen = cluster::seen(&lines, &self.plan, &pods).await?;
        let state = |edge: &plan::EdgePlan| {
            let counts = seen.get(&edge.from).into_iter().flatten().filter_map(|seen| seen.edges.get(&edge.name));
            let mut state = EdgeState {
                edge: edge.name.clone(),
                carried: 0,
                failed: 0,
                connected: false,
                error: None,
                missing: edge.missing.clone(),
                left_out: edge.left_out,
            };
            for count in counts {
                state.carried += count.carried;
                state.failed += count.failed;
                state.connected |= count.connected;
                state.error = state.error.take().or_else(|| count.error.clone());
            }
            state
        };
        Ok(self.plan.edges.iter().map(state).collect())
    }

    /// Drives every flow anew for so long.
    pub(crate) async fn flows(&self, duration: Duration) -> anyhow::Result<Vec<FlowReport>> {
        let outsider = Outsider::new(Entrances::of(&self.place)?, &self.authority)?;
        let lines = Lines::new(self.client.clone());
        let running = Running { plan: &self.plan, client: &self.client, lines: &lines, outsider: &outsider };
        Ok(running.try_flows(duration).await?.flows)
    }
}
