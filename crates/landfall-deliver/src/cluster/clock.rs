//! The clock that schedules of the cluster go by: that of this machine, unless the cluster is Landfall's engine, whose clock can be
//! set.

use http::Request;
use jiff::Timestamp;
use kube::Client;
use landfall_model::ENGINE_CLOCK;
use serde::Deserialize;

use super::{ClusterError, During as _, is_status};
use crate::windows::Clock;

#[derive(Deserialize)]
struct Reading {
    time: Timestamp,
    speed: f64,
}

/// What it shows.
pub(crate) async fn read(client: &Client) -> Result<Clock, ClusterError> {
    let request = Request::get(ENGINE_CLOCK).body(Vec::new()).expect("a plain request");
    match client.request::<Reading>(request).await {
        Ok(Reading { time, speed }) => Ok(Clock { now: time, speed }),
        // Nobody else has one, or lets everybody look.
        Err(error) if is_status(&error, 404) || is_status(&error, 403) => {
            Ok(Clock { now: Timestamp::now(), speed: 1.0 })
        }
        Err(error) => Err(error).during(|| "read the clock of the cluster".to_owned()),
    }
}
