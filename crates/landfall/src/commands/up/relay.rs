//! Carries what externals send into the platform: they stand outside and come in through the gateway, as `up` does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use kube::Client;
use landfall_standin::{CONTROL_PORT, HttpClient, Message, OUTBOX_PATH, OUTCOME_PATH, Outcome, Parcel};
use tokio::task::JoinSet;

use super::cluster::{Lines, Snapshot, body};
use super::plan::{PayloadPlan, Plan};
use super::traffic::{Outsider, posted};

/// How long the question for parcels may stay open; the stand-in answers earlier.
const OPEN: Duration = Duration::from_secs(30);

/// After the stand-in could not be reached.
const RETRY: Duration = Duration::from_secs(2);

/// Carries for all externals that call, for as long as it is polled.
pub(super) async fn carry(outsider: Outsider, client: Client, plan: &Plan) -> Infallible {
    let lines = Lines::new(client.clone());
    let all = plan.externals.iter().filter(|external| !external.callbacks.is_empty()).map(|external| {
        let (outsider, client, lines, name) = (&outsider, &client, &lines, external.external.as_str());
        async move {
            loop {
                // A pod may be replaced: then its successor is asked. What waits there meanwhile fails and is told so.
                let carried = async {
                    let pods = Snapshot::take(client, plan).await?;
                    let Some(pod) = pods.external(name) else { anyhow::bail!("no pod is ready") };
                    carry_for(outsider, plan, lines.to(pod, CONTROL_PORT)?).await
                };
                let _: anyhow::Result<()> = carried.await;
                tokio::time::sleep(RETRY).await;
            }
        }
    });
    futures::future::join_all(all).await;
    std::future::pending().await
}

async fn carry_for(outsider: &Outsider, plan: &Plan, line: HttpClient) -> anyhow::Result<()> {
    let line = Arc::new(line);
    let mut under_way = JoinSet::new();
    loop {
        let asked = line.send(Request::get(OUTBOX_PATH).body(Full::default())?, OPEN).await;
        let (_, parcels) = asked.map_err(|error| anyhow::anyhow!(error))?;
        for parcel in serde_json::from_slice::<Vec<Parcel>>(&parcels)? {
            let (outsider, line, payload) = (outsider.clone(), Arc::clone(&line), payload_of(plan, &parcel.message));
            under_way.spawn(async move { deliver(&outsider, &line, parcel, payload).await });
        }
        while under_way.try_join_next().is_some() {}
    }
}

/// What the flow of a message carries, where that is declared.
fn payload_of(plan: &Plan, message: &Message) -> Option<Arc<PayloadPlan>> {
    let flow = message.flow.as_ref()?;
    plan.flows.iter().find(|planned| planned.name == *flow)?.payload.clone()
}

async fn deliver(
    outsider: &Outsider,
    line: &HttpClient,
    parcel: Parcel,
    payload: Option<Arc<PayloadPlan>>,
) -> anyhow::Result<()> {
    let timeout = Duration::from_millis(parcel.callback.timeout_ms);
    let sent = async {
        let client = outsider.gateway(&parcel.callback.host, parcel.callback.tls)?;
        let body = payload.map(|plan| plan.payload.request(&parcel.message, parcel.load)).transpose();
        let body = body.map_err(|error| anyhow::anyhow!(error))?.unwrap_or_default();
        let request = posted(&parcel.callback.path, serde_json::to_vec(&parcel.message)?, body)?;
        let (status, body) = client.send(request, timeout).await.map_err(|error| anyhow::anyhow!(error))?;
        anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body).trim());
        anyhow::Ok(())
    };
    let error = sent.await.err().map(|error| format!("{}: {error:#}", parcel.callback.host));
    let request = Request::post(OUTCOME_PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body(&Outcome { number: parcel.number, error })?)?;
    line.send(request, timeout).await.map_err(|error| anyhow::anyhow!(error))?;
    Ok(())
}
