//! Gates: what must hold before a release begins. Each is a predicate that is shown by evidence, and each refusal says what is
//! missing and how to bring it.
//!
//! A release keeps its gates with itself, so whoever carries it on asks for the same. Two gates are there whatever it says: a
//! freeze closes every environment, and an environment with a list of signers asks them. A release that takes another one back has
//! no gates: what it brings was let through before, and whoever waits for a signature meanwhile serves what is broken. That it brings
//! nothing else is looked at (`identity`), as is that a release is what was signed.

mod capacity;
mod decide;
mod evidence;
mod identity;
mod report;
mod window;

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use landfall_model::{Architecture, DeployPolicy, Predicate};
use serde::{Deserialize, Serialize};

pub use self::evidence::{EvidenceKind, EvidenceSpec, attest, evidence};
pub use self::report::{Report, ReportError, Severity, read_report};
pub use self::window::Window;

use crate::approval::{ApprovalSpec, SignersState};
use crate::cluster::{ClusterError, During as _, workload};
use crate::freeze::{self, FreezeSpec};
use crate::release::ReleaseSpec;

/// The state of a release that has not begun because of its gates.
pub(crate) const WAITING: &str = "Waiting";

/// What must hold before a release begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Gate {
    /// People approve it.
    Approval {
        /// The groups or people who are asked.
        of: Vec<String>,
        /// How many people of them.
        count: u32,
        /// How long their approval counts.
        expire_seconds: u64,
    },
    /// The same images have run elsewhere for a while.
    After {
        /// Where.
        environment: String,
        /// For how long.
        soak_seconds: u64,
    },
    /// It is one of these times.
    Window {
        /// When it may begin.
        windows: Vec<Window>,
    },
    /// An item of the checklist holds.
    Check {
        /// What holds, for people.
        says: String,
        /// What shows it.
        shown_by: EvidenceKind,
        /// Where it was seen.
        environment: String,
        /// How old the evidence may be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fresh_seconds: Option<u64>,
    },
    /// Nobody has said that nothing is to be shipped.
    Thawed,
}

/// Whether a gate is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// What it asks for holds.
    Open,
    /// It does not, yet.
    Closed,
    /// Somebody who may has said no.
    Rejected,
}

/// A gate, and whether it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateState {
    /// What must hold.
    pub gate: String,
    /// Whether it does.
    pub standing: Standing,
    /// Why, or why not.
    pub why: String,
    /// What opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bring: Option<String>,
    /// What shows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approval { of, count, .. } => write!(f, "approved by {count} of {}", of.join(", ")),
            Self::After { environment, soak_seconds } => write!(f, "has run in {environment} for {soak_seconds} s"),
            Self::Window { windows } => {
                let windows: Vec<String> = windows.iter().map(ToString::to_string).collect();
                write!(f, "it is {}", windows.join(" or "))
            }
            Self::Check { says, .. } => f.write_str(says),
            Self::Thawed => f.write_str("nothing is frozen"),
        }
    }
}

impl Standing {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Rejected => "rejected",
        }
    }
}

impl GateState {
    /// What shows it, or why it is as it is, in one line.
    pub(crate) fn shown(&self) -> String {
        if self.evidence.is_empty() { self.why.clone() } else { self.evidence.join("; ") }
    }
}

/// What is known when gates are decided.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) now: Timestamp,
    pub(crate) namespace: String,
    pub(crate) signers: SignersState,
    pub(crate) approvals: Vec<ApprovalSpec>,
    pub(crate) evidence: Vec<EvidenceSpec>,
    pub(crate) freeze: Option<FreezeSpec>,
    /// The nodes and what is on them, where somebody asks whether there is room.
    pub(crate) room: Option<Room>,
}

/// The nodes, their pods, and the Deployments of the release.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) nodes: Vec<Node>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) deployments: Vec<Deployment>,
}

/// The gates that the file puts before an environment.
pub fn required(architecture: &Architecture) -> Vec<Gate> {
    let Some(environment) = architecture.environment() else { return Vec::new() };
    let own = architecture.environment.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut gates = Vec::new();
    if let Some(after) = &environment.after {
        let soak = architecture.document.environments.get(after.as_str()).and_then(|from| from.soak.as_ref());
        gates.push(Gate::After { environment: after.to_string(), soak_seconds: soak.map_or(0, |soak| soak.seconds()) });
    }
    if architecture.is_production() {
        gates.extend(architecture.document.delivery.checklist.iter().map(|item| Gate::Check {
            says: item.says.to_string(),
            shown_by: item.shown_by.as_ref().map_or(Predicate::Attested, |shown_by| shown_by.value).into(),
            environment: item.environment.as_ref().map_or_else(|| own.clone(), ToString::to_string),
            fresh_seconds: item.fresh.as_ref().map(|fresh| fresh.seconds()),
        }));
    }
    if !environment.deploy_windows.is_empty() {
        gates.push(Gate::Window { windows: environment.deploy_windows.iter().map(Window::from).collect() });
    }
    if environment.deploy.value == DeployPolicy::Approval {
        let approvals = environment.approvals.as_ref();
        gates.push(Gate::Approval {
            of: approvals.map(|who| who.of.iter().map(ToString::to_string).collect()).unwrap_or_default(),
            count: approvals.map_or(1, |who| who.count.value),
            expire_seconds: approvals.map_or(86_400, |who| who.expire.seconds()),
        });
    }
    gates
}

/// How the gates of a release stand. Without a name it is not written down yet.
pub(crate) async fn look(
    client: &Client,
    namespace: &str,
    name: Option<&str>,
    spec: &ReleaseSpec,
) -> Result<Vec<GateState>, ClusterError> {
    if let Some(why) = spec.contradiction().filter(|_| name.is_some()) {
        return Ok(vec![identity::refused(why)]);
    }
    if let Some(taken) = &spec.takes_back {
        let why = identity::no_return(client, namespace, taken, spec).await?;
        return Ok(why.into_iter().map(identity::refused).collect());
    }
    let (signers, approvals) = SignersState::read(client, namespace, &spec.architecture).await?;
    let mut gates = spec.gates.clone();
    let asked = gates.iter().any(|gate| matches!(gate, Gate::Approval { .. }));
    if let Some(policy) = signers.policy.as_ref().filter(|_| !asked) {
        gates.push(Gate::Approval {
            of: policy.of.clone(),
            count: policy.count,
            expire_seconds: policy.expire_seconds,
        });
    }
    let wants_room = |gate: &Gate| matches!(gate, Gate::Check { shown_by: EvidenceKind::CapacityFits, .. });
    let facts = Facts {
        now: Timestamp::now(),
        namespace: namespace.to_owned(),
        evidence: evidence(client, namespace, &spec.architecture).await?,
        freeze: freeze::read(client, namespace, &spec.architecture).await?,
        room: if gates.iter().any(wants_room) { Some(room(client, spec).await?) } else { None },
        signers,
        approvals,
    };
    gates.push(Gate::Thawed);
    Ok(gates.iter().map(|gate| decide::decide(gate, name, spec, &facts)).collect())
}

async fn room(client: &Client, spec: &ReleaseSpec) -> Result<Room, ClusterError> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.during(|| "list the nodes".to_owned())?;
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await;
    let pods = pods.during(|| "list the pods of all namespaces".to_owned())?;
    let mut deployments = Vec::new();
    for service in &spec.services {
        deployments.extend(workload::deployment(client, &service.namespace, &service.name).await?);
    }
    Ok(Room { nodes: nodes.items, pods: pods.items, deployments })
}

/// What a release waits for, in one line.
pub(crate) fn waits_for(gates: &[GateState]) -> String {
    let closed: Vec<String> = gates
        .iter()
        .filter(|gate| gate.standing != Standing::Open)
        .map(|gate| format!("{} ({})", gate.gate, gate.why))
        .collect();
    format!("waits for: {}", closed.join("; "))
}
