//! What can be done to the machine that plays the cluster: faults of its nodes, its clock, its images; and what its gateway
//! has counted, as whoever has only the Kubernetes API does not reach the gateway's own endpoint.
//!
//! No part of Kubernetes' API: paths below `/landfall.dev/v1`. Who asks is identified and authorized as for any path that
//! names no resource: members of `system:masters` may do everything, others need a role with `nonResourceURLs`, such as
//! `/landfall.dev/v1/nodes/*` for the verb `put`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::failure::{Failure, Subject};
use super::{State, decode, discovery, negotiate};
use crate::clock::{Clock, SPEEDS};
use crate::images::Catalogue;

/// Where all of this is.
const ROOT: &str = "/landfall.dev/v1/";

/// Where the clock is, for those who are no part of this program.
pub const CLOCK_PATH: &str = "/landfall.dev/v1/clock";

/// What is wrong with a node on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeFault {
    /// Nothing.
    #[default]
    #[serde(rename = "running")]
    None,
    /// Nobody reaches it over the network, nor does it reach anybody; its pods run on.
    #[serde(rename = "cut")]
    Cut,
    /// It is off; its pods are dead.
    #[serde(rename = "killed")]
    Killed,
}

/// A node that the machine plays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PlayedNode {
    pub(crate) name: String,
    pub(crate) zone: Option<String>,
    pub(crate) state: NodeFault,
    /// How many pods are bound to it and not at their end.
    pub(crate) pods: usize,
}

/// The machine, as far as the API server needs it.
pub(crate) trait Machine: Send + Sync + 'static {
    /// In the order of their names.
    fn nodes(&self) -> Vec<PlayedNode>;

    /// Makes nodes faulty, or well again, all at one moment. When it answers, the traffic of cut nodes is stopped and the
    /// processes of killed ones are dead. Otherwise it says why that cannot be done.
    fn set_faults(&self, nodes: BTreeSet<String>, fault: NodeFault) -> BoxFuture<'_, Result<(), String>>;

    /// Whether the traffic of a faulty node is stopped. Where pods share the network of the machine it cannot be.
    fn stops_traffic(&self) -> bool;

    /// Takes another image catalogue, for containers that start from now on.
    fn set_images(&self, images: Catalogue);

    /// Whether pods are only said to run. Nothing real then goes on while the clock stands still.
    fn is_mock(&self) -> bool;
}

/// Whether a path is one of these.
pub(crate) fn is_about(path: &str) -> bool {
    path.starts_with(ROOT)
}

/// Answers a request that is authorized.
pub(crate) async fn answer(state: &Arc<State>, parts: &Parts, body: Body) -> Result<Response, Failure> {
    let Some(machine) = state.machine.get() else {
        return Err(Failure::unavailable("the engine is still starting"));
    };
    if parts.uri.path() == CLOCK_PATH {
        return match parts.method {
            Method::GET => Ok(clock(&state.clock)),
            Method::PUT => {
                let setting: Setting = read(parts, body).await?;
                set_clock(&state.clock, &setting, machine.is_mock())?;
                Ok(clock(&state.clock))
            }
            _ => Err(Failure::method_not_allowed()),
        };
    }
    let path: Vec<&str> = parts.uri.path().strip_prefix(ROOT).unwrap_or_default().split('/').collect();
    match (&parts.method, path.as_slice()) {
        (&Method::GET, ["nodes"]) => Ok(nodes(&**machine, |_| true)),
        (&Method::PUT, ["nodes", name]) => {
            let wanted: Wanted = read(parts, body).await?;
            let named = machine.nodes().into_iter().filter(|node| node.name == *name).collect();
            let subject = Subject { group: "", kind: "nodes", name };
            set(&**machine, named, wanted.state, || Failure::not_found(&subject)).await
        }
        (&Method::PUT, ["zones", zone]) => {
            let wanted: Wanted = read(parts, body).await?;
            let inside = machine.nodes().into_iter().filter(|node| node.zone.as_deref() == Some(zone)).collect();
            let subject = Subject { group: "", kind: "zones", name: zone };
            set(&**machine, inside, wanted.state, || Failure::not_found(&subject)).await
        }
        (&Method::PUT, ["images"]) => {
            let bytes = decode::body(&parts.headers, body).await?;
            let text = str::from_utf8(&bytes).map_err(|_| Failure::bad_request("the catalogue is no UTF-8"))?;
            let images = Catalogue::parse(text).map_err(|error| {
                let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                Failure::bad_request(format!("{error}: {why}"))
            })?;
            let entries = images.images.len();
            machine.set_images(images);
            Ok(negotiate::json(StatusCode::OK, &json!({ "entries": entries })))
        }
        (&Method::GET, ["gateway", "figures"]) => match state.gateway.get() {
            Some(figures) => Ok(negotiate::with_type(StatusCode::OK, "text/plain; version=0.0.4", figures().into())),
            None => Err(Failure::unavailable("the engine is still starting")),
        },
        (_, ["nodes" | "images"] | ["nodes" | "zones", _] | ["gateway", "figures"]) => {
            Err(Failure::method_not_allowed())
        }
        _ => Ok(discovery::no_such_page()),
    }
}

/// The state that nodes are to have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: NodeFault,
}

async fn read<T: DeserializeOwned>(parts: &Parts, body: Body) -> Result<T, Failure> {
    let bytes = decode::body(&parts.headers, body).await?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::bad_request(format!("the body is not understood: {error}")))
}

fn nodes(machine: &dyn Machine, wanted: impl Fn(&PlayedNode) -> bool) -> Response {
    let nodes: Vec<PlayedNode> = machine.nodes().into_iter().filter(|node| wanted(node)).collect();
    negotiate::json(StatusCode::OK, &json!({ "nodes": nodes, "stopsTraffic": machine.stops_traffic() }))
}

/// Sets the state of `which` and answers with them.
async fn set(
    machine: &dyn Machine,
    which: Vec<PlayedNode>,
    fault: NodeFault,
    nobody: impl FnOnce() -> Failure,
) -> Result<Response, Failure> {
    if which.is_empty() {
        return Err(nobody());
    }
    if fault == NodeFault::Cut
        && let Some(off) = which.iter().find(|node| node.state == NodeFault::Killed)
    {
        let subject = Subject { group: "", kind: "nodes", name: &off.name };
        return Err(Failure::conflict(&subject, "the node is killed, and only one that runs can be cut off"));
    }
    let names: BTreeSet<String> = which.into_iter().map(|node| node.name).collect();
    machine.set_faults(names.clone(), fault).await.map_err(Failure::internal)?;
    Ok(nodes(machine, |node| names.contains(&node.name)))
}

/// How the clock is to be set. What is left out stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Setting {
    #[serde(default)]
    time: Option<Timestamp>,
    /// Relative to the clock of the machine.
    #[serde(default)]
    offset_seconds: Option<f64>,
    /// How many times as fast as the clock of the machine it runs.
    #[serde(default)]
    speed: Option<f64>,
}

fn clock(clock: &Clock) -> Response {
    let (time, machine) = (clock.now(), Timestamp::now());
    let offset = time.duration_since(machine).as_secs_f64();
    let reading = json!({ "time": time, "machine": machine, "offsetSeconds": offset, "speed": clock.speed() });
    negotiate::json(StatusCode::OK, &reading)
}

fn set_clock(clock: &Clock, setting: &Setting, is_mock: bool) -> Result<(), Failure> {
    let time = match (setting.time, setting.offset_seconds) {
        (Some(_), Some(_)) => return Err(Failure::bad_request("`time` and `offsetSeconds` exclude each other")),
        (Some(time), None) => time,
        (None, None) => clock.now(),
        (None, Some(offset)) => {
            let offset = Duration::try_from_secs_f64(offset.abs())
                .ok()
                .and_then(|magnitude| SignedDuration::try_from(magnitude).ok())
                .map(|magnitude| if offset < 0.0 { -magnitude } else { magnitude });
            let time = offset.and_then(|offset| Timestamp::now().checked_add(offset).ok());
            time.ok_or_else(|| Failure::bad_request("`offsetSeconds` leads to no time"))?
        }
    };
    let speed = setting.speed.unwrap_or_else(|| clock.speed());
    if speed == 0.0 && !is_mock {
        let message = "`speed` is 0, and the clock stands still only where pods are a mock: real processes would go on";
        return Err(Failure::bad_request(message));
    }
    if speed != 0.0 && !SPEEDS.contains(&speed) {
        let message = format!("`speed` is {speed}, and must be between {} and {}", SPEEDS.start(), SPEEDS.end());
        return Err(Failure::bad_request(message));
    }
    clock.set(time, speed);
    Ok(())
}

#[cfg(test)]
mod tests;
