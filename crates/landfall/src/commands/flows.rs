//! `landfall flows`: drives the flows of a platform that is up anew.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use super::up::{FlowReport, Found, flow_table};
use crate::Outcome;
use crate::cli::{FlowsArguments, Output};
use crate::output::VERSION;
use crate::terminal::Terminal;

/// Prints what the flows came to. The answer is no when one does not keep its promise, or cannot run here.
pub(crate) fn run(arguments: &FlowsArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    super::up::block_on(async {
        let found = match Found::find(&arguments.input, terminal).await? {
            Ok(found) => found,
            Err(outcome) => return Ok(outcome),
        };
        let seconds = arguments.duration.as_secs_f64();
        terminal.progress(&format!("driving the flows for {seconds} s"))?;
        let flows = found.flows(Duration::from_secs_f64(seconds)).await?;
        match arguments.output {
            Output::Json => {
                let text = serde_json::to_string_pretty(&json!({ "version": VERSION, "flows": flows }))?;
                writeln!(terminal.data(), "{text}")?;
            }
            Output::Text => {
                writeln!(terminal.data(), "{}", flow_table(&flows))?;
                for flow in &flows {
                    if let Some(why) = why(flow) {
                        writeln!(terminal.data(), "no     flow `{}`: {why}", flow.name)?;
                    }
                }
            }
        }
        let kept = flows.iter().all(|flow| why(flow).is_none());
        Ok(if kept { Outcome::Done } else { Outcome::No })
    })
}

/// Why a flow is not as promised. One that is left out as its user asked promises nothing.
fn why(flow: &FlowReport) -> Option<&String> {
    flow.missing.as_ref().filter(|_| !flow.left_out).or(flow.problem.as_ref())
}
