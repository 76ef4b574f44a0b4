//! The client of the platform: drives the flows through the gateway, and counts what arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use landfall_engine::Entrances;
use landfall_standin::{MESSAGE_HEADER, Message, Seen, TlsConfig, send, trust};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::plan::FlowPlan;
use super::report::FlowReport;

/// How long the client waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How often the gateway is tried until it serves.
const POLL: Duration = Duration::from_millis(100);

/// How long the gateway may take until it serves what was applied.
const GATEWAY: Duration = Duration::from_secs(30);

/// Somebody outside of the platform.
#[derive(Clone)]
pub(super) struct Outsider {
    http: SocketAddr,
    https: SocketAddr,
    trusts: Arc<TlsConfig>,
}

/// What the client knows of a flow that it drove.
#[derive(Debug, Default)]
pub(super) struct Driven {
    /// The messages that the platform has taken.
    pub(super) taken: BTreeSet<u64>,
    /// How many it refused.
    pub(super) refused: u64,
    /// Why, the first time.
    pub(super) error: Option<String>,
}

impl Outsider {
    /// A client that comes in by these entrances and trusts this authority.
    pub(super) fn new(entrances: Entrances, authority: &str) -> anyhow::Result<Self> {
        let trusts =
            trust(authority).map_err(|error| anyhow::anyhow!(error)).context("failed to trust our authority")?;
        Ok(Self { http: entrances.http, https: entrances.https, trusts: Arc::new(trusts) })
    }

    /// Waits until the gateway leads every flow somewhere.
    pub(super) async fn enter(&self, flows: &[FlowPlan]) -> anyhow::Result<()> {
        let deadline = Instant::now() + GATEWAY;
        for flow in flows.iter().filter(|flow| flow.entry.is_some()) {
            let message = Message { flow: None, id: 0, sent_us: now_us() };
            while let Err(error) = self.send(flow, &message).await {
                anyhow::ensure!(Instant::now() < deadline, "the gateway does not serve `{}`: {error}", flow.name);
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Sends the messages of all flows at their rates for so long.
    pub(super) async fn drive(&self, flows: &[FlowPlan], duration: Duration) -> BTreeMap<String, Driven> {
        let mut all = JoinSet::new();
        for flow in flows.iter().filter(|flow| flow.entry.is_some()) {
            let (outsider, flow) = (self.clone(), flow.clone());
            all.spawn(async move {
                let driven = outsider.drive_one(&flow, duration).await;
                (flow.name, driven)
            });
        }
        all.join_all().await.into_iter().collect()
    }

    async fn drive_one(&self, flow: &FlowPlan, duration: Duration) -> Driven {
        let mut tick = interval(Duration::from_secs_f64(1.0 / flow.per_second.max(0.001)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let end = Instant::now() + duration;
        // Rows and keys of earlier runs are still there.
        let mut id = now_us();
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                () = sleep_until(end) => break,
                _ = tick.tick() => {
                    id += 1;
                    let (outsider, flow, id) = (self.clone(), flow.clone(), id);
                    under_way.spawn(async move {
                        let message = Message { flow: Some(flow.name.clone()), id, sent_us: now_us() };
                        (id, outsider.send(&flow, &message).await)
                    });
                }
            }
        }
        let mut driven = Driven::default();
        for (id, answer) in under_way.join_all().await {
            match answer {
                Ok(()) => drop(driven.taken.insert(id)),
                Err(error) => {
                    driven.refused += 1;
                    driven.error.get_or_insert(error);
                }
            }
        }
        driven
    }

    async fn send(&self, flow: &FlowPlan, message: &Message) -> Result<(), String> {
        let entry = flow.entry.as_ref().ok_or("it has no entry")?;
        let message = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        let request = Request::post(&entry.path)
            .header(http::header::HOST, &entry.host)
            .header(MESSAGE_HEADER, message)
            .body(Full::<Bytes>::default())
            .map_err(|error| error.to_string())?;
        let (address, name) = if entry.tls { (self.https, Some(entry.host.as_str())) } else { (self.http, None) };
        let answer = send(&address.to_string(), name, &self.trusts, request, ANSWER).await;
        let (status, body) = answer.map_err(|error| error.to_string())?;
        if status.is_success() {
            return Ok(());
        }
        Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()))
    }
}

/// How many messages that were taken have not been everywhere yet.
pub(super) fn missing(
    flows: &[FlowPlan],
    driven: &BTreeMap<String, Driven>,
    seen: &BTreeMap<String, Vec<Seen>>,
) -> usize {
    let of_flow = |flow: &FlowPlan| {
        let driven = driven.get(&flow.name)?;
        Some(driven.taken.len() - arrived(flow, driven, seen).after_us.len())
    };
    flows.iter().filter_map(of_flow).sum()
}

/// The messages of a flow that have been at all of its ends.
struct Arrived {
    /// After how long each was at the last of its ends.
    after_us: Vec<u64>,
    duplicated: u64,
}

fn arrived(flow: &FlowPlan, driven: &Driven, seen: &BTreeMap<String, Vec<Seen>>) -> Arrived {
    let mut duplicated = 0;
    let mut whole: Option<BTreeMap<u64, u64>> = None;
    for end in &flow.ends {
        let mut here = BTreeMap::<u64, u64>::new();
        let arrivals = seen.get(end).into_iter().flatten().filter_map(|seen| seen.arrivals.get(&flow.name)).flatten();
        for arrival in arrivals.filter(|arrival| driven.taken.contains(&arrival.id)) {
            match here.get_mut(&arrival.id) {
                None => drop(here.insert(arrival.id, arrival.after_us)),
                Some(first) => {
                    duplicated += 1;
                    *first = (*first).min(arrival.after_us);
                }
            }
        }
        whole = Some(match whole {
            None => here,
            Some(before) => {
                before.into_iter().filter_map(|(id, after)| Some((id, after.max(*here.get(&id)?)))).collect()
            }
        });
    }
    let mut after_us: Vec<u64> = whole.unwrap_or_default().into_values().collect();
    after_us.sort_unstable();
    Arrived { after_us, duplicated }
}

/// What a flow came to.
pub(super) fn report(flow: &FlowPlan, driven: Option<&Driven>, seen: &BTreeMap<String, Vec<Seen>>) -> FlowReport {
    let within_ms = u64::try_from(flow.within.as_millis()).unwrap_or(u64::MAX);
    let Some(driven) = driven else {
        return FlowReport {
            name: flow.name.clone(),
            within_ms,
            problem: flow.problem.clone(),
            ..FlowReport::default()
        };
    };
    let Arrived { after_us, duplicated } = arrived(flow, driven, seen);
    let lost = driven.taken.len() - after_us.len();
    let p99_ms = quantile(&after_us, 0.99);
    #[expect(clippy::cast_precision_loss, reason = "counts of messages are far below 2^52")]
    let lost_too_many = lost as f64 > flow.loss * driven.taken.len() as f64;
    let problem = if driven.taken.is_empty() {
        Some(driven.error.clone().unwrap_or_else(|| "nothing was sent".to_owned()))
    } else if lost_too_many {
        Some(format!("{lost} were taken and did not arrive"))
    } else {
        p99_ms
            .filter(|p99| *p99 > flow.within.as_secs_f64() * 1000.0)
            .map(|_| "it takes longer than declared".to_owned())
    };
    FlowReport {
        name: flow.name.clone(),
        sent: driven.taken.len(),
        refused: driven.refused,
        refusal: driven.error.clone(),
        arrived: after_us.len(),
        lost,
        duplicated,
        p50_ms: quantile(&after_us, 0.5),
        p99_ms,
        within_ms,
        problem,
    }
}

/// The nearest rank, in milliseconds.
fn quantile(sorted_us: &[u64], share: f64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the length of a list is a place in it"
    )]
    let rank = ((sorted_us.len() as f64 * share).ceil() as usize).max(1);
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run are far below 2^52")]
    sorted_us.get(rank - 1).map(|us| (*us as f64 / 100.0).round() / 10.0)
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use landfall_standin::Arrival;

    use super::*;

    fn flow(ends: &[&str]) -> FlowPlan {
        FlowPlan {
            name: "order".to_owned(),
            entry: None,
            problem: None,
            per_second: 1.0,
            within: Duration::from_secs(1),
            loss: 0.0,
            ends: ends.iter().map(|end| (*end).to_owned()).collect(),
        }
    }

    fn seen(arrivals: &[(u64, u64)]) -> Seen {
        let arrivals = arrivals.iter().map(|(id, after_us)| Arrival { id: *id, after_us: *after_us }).collect();
        Seen { arrivals: [("order".to_owned(), arrivals)].into(), ..Seen::default() }
    }

    fn driven(taken: &[u64]) -> Driven {
        Driven { taken: taken.iter().copied().collect(), ..Driven::default() }
    }

    #[test]
    fn a_message_has_arrived_when_it_was_at_every_end() {
        let everywhere = BTreeMap::from([
            ("mail".to_owned(), vec![seen(&[(1, 2000)]), seen(&[(2, 3000)])]),
            ("ledger".to_owned(), vec![seen(&[(1, 5000)])]),
        ]);
        let report = report(&flow(&["mail", "ledger"]), Some(&driven(&[1, 2])), &everywhere);
        assert_eq!((report.sent, report.arrived, report.lost), (2, 1, 1));
        assert_eq!(report.p99_ms, Some(5.0), "as long as to the last end");
        assert_eq!(report.problem.as_deref(), Some("1 were taken and did not arrive"));
    }

    #[test]
    fn the_same_message_on_two_copies_is_a_duplicate() {
        let twice = BTreeMap::from([("mail".to_owned(), vec![seen(&[(1, 2000)]), seen(&[(1, 9000)])])]);
        let report = report(&flow(&["mail"]), Some(&driven(&[1])), &twice);
        assert_eq!((report.arrived, report.lost, report.duplicated, report.p99_ms), (1, 0, 1, Some(2.0)));
    }

    #[test]
    fn a_message_that_was_refused_cannot_be_lost() {
        let one = BTreeMap::from([("mail".to_owned(), vec![seen(&[(1, 2000), (7, 1)])])]);
        let report = report(&flow(&["mail"]), Some(&driven(&[1])), &one);
        assert_eq!((report.sent, report.arrived, report.problem), (1, 1, None));
    }

    #[test]
    fn a_flow_that_is_slower_than_declared_breaks_its_promise() {
        let slow = BTreeMap::from([("mail".to_owned(), vec![seen(&[(1, 1_500_000)])])]);
        let report = report(&flow(&["mail"]), Some(&driven(&[1])), &slow);
        assert_eq!(report.problem.as_deref(), Some("it takes longer than declared"));
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let hundred: Vec<u64> = (1..=100).map(|ms| ms * 1000).collect();
        assert_eq!((quantile(&hundred, 0.5), quantile(&hundred, 0.99)), (Some(50.0), Some(99.0)));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
