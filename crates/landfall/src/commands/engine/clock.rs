//! `landfall engine clock`: the clock by which the schedules of a running engine run.

use std::io::Write as _;

use jiff::{SignedDuration, SignedDurationRound, Timestamp, Unit};
use serde::Deserialize;
use serde_json::Map;

use super::endpoint::Endpoint;
use crate::cli::{ClockCommand, Output, RunningEngine};
use crate::output::{ClockOutput, VERSION};
use crate::terminal::Terminal;

/// What the engine answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reading {
    pub(crate) time: Timestamp,
    machine: Timestamp,
    pub(crate) offset_seconds: f64,
    pub(crate) speed: f64,
}

/// Shows the clock, after it was set if that is wanted.
pub(crate) async fn run(
    command: Option<&ClockCommand>,
    engine: &RunningEngine,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let (reading, output): (Reading, Output) = match command {
        None => (Endpoint::find(engine).await?.get("clock").await?, engine.output),
        Some(ClockCommand::Show { engine }) => (Endpoint::find(engine).await?.get("clock").await?, engine.output),
        Some(ClockCommand::Set { time, offset, speed, engine }) => {
            let mut setting = Map::new();
            if let Some(time) = time {
                setting.insert("time".to_owned(), time.to_string().into());
            }
            if let Some(offset) = offset {
                setting.insert("offsetSeconds".to_owned(), (*offset).into());
            }
            if let Some(speed) = speed {
                setting.insert("speed".to_owned(), (*speed).into());
            }
            let endpoint = Endpoint::find(engine).await?;
            (endpoint.put("clock", serde_json::to_vec(&setting)?).await?, engine.output)
        }
    };
    if output == Output::Json {
        let document = ClockOutput {
            version: VERSION,
            time: reading.time.to_string(),
            machine: reading.machine.to_string(),
            offset_seconds: reading.offset_seconds,
            speed: reading.speed,
        };
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(());
    }
    let shown = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let offset = SignedDuration::from_secs_f64(reading.offset_seconds);
    let offset = offset.round(SignedDurationRound::new().smallest(Unit::Second)).unwrap_or(offset);
    let out = terminal.data();
    writeln!(out, "time     {}", shown(reading.time))?;
    writeln!(out, "machine  {}", shown(reading.machine))?;
    writeln!(out, "offset   {offset:#}")?;
    writeln!(out, "speed    {}", reading.speed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn who_asks_a_cluster_for_its_clock_asks_where_the_engine_has_it() {
        assert_eq!(landfall_model::ENGINE_CLOCK, landfall_engine::CLOCK_PATH);
    }
}
