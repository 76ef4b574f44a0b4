//! `landfall engine node`: the nodes of a running engine, and what is wrong with them on purpose.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Deserialize;
use serde_json::json;

use super::endpoint::{Endpoint, RequestError};
use crate::cli::{NodeChange, NodeCommand, Output};
use crate::output::{NodeOutput, NodesOutput, VERSION};
use crate::terminal::Terminal;

/// What the engine answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Nodes {
    nodes: Vec<NodeOutput>,
    stops_traffic: bool,
}

/// Lists nodes or changes them; what was changed is listed, too.
pub(crate) async fn run(command: &NodeCommand, terminal: &mut Terminal) -> anyhow::Result<()> {
    let (nodes, output) = match command {
        NodeCommand::List { engine } => {
            let nodes: Nodes = Endpoint::find(engine).await?.get("nodes").await?;
            (nodes, engine.output)
        }
        NodeCommand::Kill(change) => (set(change, "killed").await?, change.engine.output),
        NodeCommand::Restore(change) => (set(change, "running").await?, change.engine.output),
        NodeCommand::Cut(change) => {
            let nodes = set(change, "cut").await?;
            if !nodes.stops_traffic {
                terminal.say(
                    "warning: pods have loopback addresses here; only the node agent is cut off, their traffic is not",
                )?;
            }
            (nodes, change.engine.output)
        }
    };
    if output == Output::Json {
        let document = NodesOutput { version: VERSION, stops_traffic: nodes.stops_traffic, nodes: &nodes.nodes };
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["NODE", "ZONE", "STATE", "PODS"]);
    for node in &nodes.nodes {
        let zone = node.zone.as_deref().unwrap_or("-");
        table.add_row([&node.name, zone, &node.state, &node.pods.to_string()]);
    }
    for line in table.lines() {
        writeln!(terminal.data(), "{}", line.trim())?;
    }
    Ok(())
}

/// Sets the state of nodes, one after the other, or of a zone at once.
async fn set(change: &NodeChange, state: &str) -> Result<Nodes, RequestError> {
    let endpoint = Endpoint::find(&change.engine).await?;
    let body = json!({ "state": state }).to_string().into_bytes();
    if let Some(zone) = &change.zone {
        return endpoint.put(&format!("zones/{zone}"), body).await;
    }
    let all: Nodes = endpoint.get("nodes").await?;
    // All names are known before anything is done to one of them.
    if let Some(unknown) = change.names.iter().find(|name| all.nodes.iter().all(|node| node.name != **name)) {
        let known: Vec<_> = all.nodes.iter().map(|node| format!("`{}`", node.name)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(RequestError::Refused(format!("no node is called `{unknown}`\nhint: the engine has {known}")));
    }
    let mut changed = Vec::new();
    for name in &change.names {
        let answer: Nodes = endpoint.put(&format!("nodes/{name}"), body.clone()).await?;
        changed.extend(answer.nodes);
    }
    Ok(Nodes { nodes: changed, stops_traffic: all.stops_traffic })
}
