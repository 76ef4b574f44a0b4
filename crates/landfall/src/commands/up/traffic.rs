//! The client of the platform: drives the flows at their entrances, and counts what arrived.

mod job;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use hyper::body::Bytes;
use kube::Client;
use landfall_standin::{
    CONTROL_PORT, HttpClient, InvalidSeen, LEDGER_VARIABLE, Load, MESSAGE_HEADER, Message, Seen, TlsConfig, trust,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::job::JobRuns;
use super::cluster::{Lines, Snapshot};
use super::plan::{Entrance, FlowPlan, PayloadPlan, Plan};
use super::report::FlowReport;
use super::running::Entrances;

/// How long the client waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How often the gateway is tried until it serves.
const POLL: Duration = Duration::from_millis(100);

/// How long the gateway may take until it serves what was applied.
const GATEWAY: Duration = Duration::from_secs(30);

/// When it is no accident that more was refused than may be: of a thousand runs of a platform that refuses as much as it may,
/// less than one shows as much. A run asks this of each of its flows, so that one in a hundred would be told too often.
const ACCIDENT: f64 = 0.001;

/// Somebody outside of the platform.
#[derive(Clone)]
pub(super) struct Outsider {
    entrances: Entrances,
    trusts: Arc<TlsConfig>,
    /// By host, so that connections are kept.
    gateways: Arc<Mutex<BTreeMap<(String, bool), HttpClient>>>,
}

/// The client of one flow.
#[derive(Clone)]
struct Driver {
    flow: FlowPlan,
    /// Where its messages go, with the step that this is.
    ways: Vec<(u32, Way)>,
}

/// How a message gets to where its flow begins.
#[derive(Clone)]
enum Way {
    /// As a request.
    Request {
        client: Box<HttpClient>,
        path: String,
        /// Whether a program answers, which may refuse what is no message of a flow.
        to_program: bool,
        /// What it has in its body.
        payload: Option<Arc<PayloadPlan>>,
    },
    /// In a run of a job.
    Job(JobRuns),
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
        Ok(Self { entrances, trusts: Arc::new(trusts), gateways: Arc::default() })
    }

    /// Where it comes in.
    pub(super) fn entrances(&self) -> &Entrances {
        &self.entrances
    }

    /// A client of a host behind the gateway, and behind the firewall where that stands before the host.
    pub(super) fn gateway(&self, host: &str, tls: bool) -> anyhow::Result<HttpClient> {
        let mut gateways = self.gateways.lock().expect("nothing panics with a connection");
        if let Some(client) = gateways.get(&(host.to_owned(), tls)) {
            return Ok(client.clone());
        }
        let (http, https) = self.entrances.to(host);
        let address = if tls { https } else { http }.to_string();
        let client =
            if tls { HttpClient::to(&address, Some(host), &self.trusts) } else { HttpClient::to_host(&address, host) };
        let client = client.map_err(|error| anyhow::anyhow!(error)).with_context(|| format!("`{host}` is no host"))?;
        gateways.insert((host.to_owned(), tls), client.clone());
        Ok(client)
    }

    /// Sends the messages of all flows at their rates for so long. Before that it waits until the gateway leads them all
    /// somewhere.
    pub(super) async fn drive(
        &self,
        client: &Client,
        lines: &Lines,
        plan: &Plan,
        pods: &Snapshot,
        duration: Duration,
    ) -> anyhow::Result<BTreeMap<String, Driven>> {
        let mut drivers = Vec::new();
        for flow in plan.flows.iter().filter(|flow| flow.missing.is_none()) {
            let ways = flow.entrances.iter().map(|(hop, entrance)| {
                let way = self.way(client, lines, plan, pods, (flow, entrance));
                anyhow::Ok((*hop, way.with_context(|| format!("flow `{}` cannot begin", flow.name))?))
            });
            drivers.push(Driver { flow: flow.clone(), ways: ways.collect::<anyhow::Result<_>>()? });
        }
        for driver in &drivers {
            driver.enter().await?;
        }
        // A schedule may be hours away, and its edges are to be tried now.
        let begun = |name: &str| {
            let entrances = drivers.iter().flat_map(|driver| &driver.flow.entrances);
            entrances.into_iter().any(|(_, entrance)| *entrance == Entrance::Job(name.to_owned()))
        };
        let idle = plan.services.iter().filter(|service| service.runs_once && !begun(&service.service));
        let mut jobs = JoinSet::new();
        for service in idle {
            let runs = JobRuns::new(client.clone(), plan, &service.service)?;
            // Which of its edges fail is in its log.
            jobs.spawn(async move { drop(runs.run(&[]).await) });
        }
        let mut all = JoinSet::new();
        for driver in drivers {
            all.spawn(async move {
                let driven = driver.drive(duration).await;
                (driver.flow.name, driven)
            });
        }
        let driven = all.join_all().await.into_iter().collect();
        jobs.join_all().await;
        Ok(driven)
    }

    fn way(
        &self,
        client: &Client,
        lines: &Lines,
        plan: &Plan,
        pods: &Snapshot,
        (flow, entrance): (&FlowPlan, &Entrance),
    ) -> anyhow::Result<Way> {
        // Whoever is told to begin makes up the payload alone, and what an external is sent no flow declares.
        let payload = flow.payload.clone().filter(|_| matches!(entrance, Entrance::Gateway { .. }));
        let request = |client: HttpClient, path: &str, to: &str| {
            let to_program = plan.services.iter().any(|service| service.service == to && service.program.is_some());
            Way::Request { client: Box::new(client), path: path.to_owned(), to_program, payload }
        };
        match entrance {
            Entrance::Gateway { service, host, path, tls } => Ok(request(self.gateway(host, *tls)?, path, service)),
            Entrance::External(name) => {
                let pod = pods.external(name).with_context(|| format!("no pod of `{name}` is ready"))?;
                Ok(request(lines.to(pod, CONTROL_PORT)?, "/", name))
            }
            Entrance::Service(name) => {
                let declared = plan.services.iter().find(|service| service.service == *name);
                let port = declared.and_then(|service| service.ports.first());
                let port = port.with_context(|| format!("`{name}` has no port at which its stand-in could be told"))?;
                let pod = pods.ready_of(name).next().with_context(|| format!("no pod of `{name}` is ready"))?;
                Ok(request(lines.to(pod, *port)?, "/", name))
            }
            Entrance::Job(name) => Ok(Way::Job(JobRuns::new(client.clone(), plan, name)?)),
        }
    }
}

impl Driver {
    /// Waits until the gateway leads the flow somewhere.
    async fn enter(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + GATEWAY;
        for (_, way) in self.ways.iter().filter(|(_, way)| matches!(way, Way::Request { .. })) {
            let message = Message { sent_us: now_us(), ..Message::default() };
            while let Err(error) = way.send(&message).await {
                if matches!(way, Way::Request { to_program: true, .. }) && Instant::now() >= deadline {
                    break;
                }
                anyhow::ensure!(Instant::now() < deadline, "flow `{}` cannot begin: {error}", self.flow.name);
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    async fn drive(&self, duration: Duration) -> Driven {
        let mut tick = interval(Duration::from_secs_f64(1.0 / self.flow.per_second.max(0.001)));
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
                    let (driver, id) = (self.clone(), id);
                    under_way.spawn(async move { (id, driver.send(id).await) });
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

    /// A client may have several requests to make.
    async fn send(&self, id: u64) -> Result<(), String> {
        let message = Message { flow: Some(self.flow.name.clone()), id, sent_us: now_us(), ..Message::default() };
        for (hop, way) in &self.ways {
            way.send(&Message { hop: *hop, ..message.clone() }).await?;
        }
        Ok(())
    }
}

impl Way {
    async fn send(&self, message: &Message) -> Result<(), String> {
        let (client, path, payload) = match self {
            Self::Request { client, path, payload, .. } => (client, path, payload),
            Self::Job(runs) => {
                return runs.run(std::slice::from_ref(message)).await.map_err(|error| format!("{error:#}"));
            }
        };
        // What only asks whether somebody is there is of no flow.
        let payload = payload.as_ref().map(|plan| &plan.payload).filter(|_| message.flow.is_some());
        let body = payload.map(|payload| payload.request(message, Load::Whole)).transpose();
        let body = body.map_err(|error| error.to_string())?.unwrap_or_default();
        let patience = ANSWER + payload.map(|payload| payload.patience(Load::Whole)).unwrap_or_default();
        let message = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        let request = posted(path, message, body).map_err(|error| error.to_string())?;
        let (status, body) = client.send(request, patience).await.map_err(|error| error.to_string())?;
        if status.is_success() {
            return Ok(());
        }
        Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()))
    }
}

/// A request that brings a message. Payloads are JSON, and firewalls look into what says what it is.
pub(super) fn posted(path: &str, message: Vec<u8>, payload: Vec<u8>) -> http::Result<Request<Full<Bytes>>> {
    let request = Request::post(path).header(MESSAGE_HEADER, message);
    let request = if payload.is_empty() { request } else { request.header(CONTENT_TYPE, "application/json") };
    request.body(Full::from(payload))
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
    let all = |end: &String| seen.get(end).into_iter().flatten();
    let mut duplicated = 0;
    let mut whole: Option<BTreeMap<u64, u64>> = None;
    for (end, hop) in &flow.ends {
        let mut here = BTreeMap::<u64, u64>::new();
        let arrivals = all(end).filter_map(|seen| seen.arrivals.get(&flow.name)).flatten();
        for arrival in arrivals.filter(|arrival| arrival.hop == *hop && driven.taken.contains(&arrival.id)) {
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
            missing: flow.missing.clone(),
            left_out: flow.left_out,
            ..FlowReport::default()
        };
    };
    let Arrived { after_us, duplicated } = arrived(flow, driven, seen);
    let ends: BTreeSet<&String> = flow.ends.iter().map(|(end, _)| end).collect();
    let at_ends = ends.into_iter().flat_map(|end| seen.get(end).into_iter().flatten());
    let suppressed: u64 = at_ends.filter_map(|seen| seen.suppressed.get(&flow.name)).sum();
    let lost = driven.taken.len() - after_us.len();
    let p99_ms = quantile(&after_us, 0.99);
    #[expect(clippy::cast_precision_loss, reason = "counts of messages are far below 2^52")]
    let lost_too_many = lost as f64 > flow.loss * driven.taken.len() as f64;
    let told = |end: &&String| seen.get(*end).into_iter().flatten().any(|seen| seen.arrivals.contains_key(&flow.name));
    let mut problems = Vec::new();
    if driven.taken.is_empty() && driven.refused == 0 {
        problems.push(driven.error.clone().unwrap_or_else(|| "nothing was sent".to_owned()));
    } else {
        if lost_too_many {
            problems.push(match flow.programs.iter().find(|end| !told(end)) {
                Some(end) => format!(
                    "whether anything arrives cannot be seen: the program of `{end}` writes nothing of it to the file that {LEDGER_VARIABLE} names"
                ),
                None => format!("{lost} were taken and did not arrive"),
            });
        }
        problems.extend(refusals(flow, driven));
        if p99_ms.is_some_and(|p99| p99 > flow.within.as_secs_f64() * 1000.0) {
            problems.push("it takes longer than declared".to_owned());
        }
    }
    problems.extend(mismatch(flow, seen));
    FlowReport {
        name: flow.name.clone(),
        sent: driven.taken.len(),
        refused: driven.refused,
        may_refuse: rounded(flow.refusals, 1e6),
        refusal: driven.error.clone(),
        arrived: after_us.len(),
        lost,
        duplicated,
        suppressed,
        p50_ms: quantile(&after_us, 0.5),
        p99_ms,
        within_ms,
        schema: flow.payload.as_ref().and_then(|plan| plan.schema.clone()),
        payload_bytes: flow.payload.as_ref().and_then(|plan| plan.payload.bytes()),
        invalid: invalid(flow, seen).map(|(_, seen)| seen.count).sum(),
        missing: None,
        left_out: false,
        problem: (!problems.is_empty()).then(|| problems.join("; ")),
    }
}

/// The stand-ins that were sent what does not keep to the schema of a flow.
fn invalid<'a>(
    flow: &'a FlowPlan,
    seen: &'a BTreeMap<String, Vec<Seen>>,
) -> impl Iterator<Item = (&'a str, &'a InvalidSeen)> {
    let all = seen.iter().flat_map(|(name, all)| all.iter().map(move |seen| (name.as_str(), seen)));
    all.filter_map(move |(name, seen)| Some((name, seen.invalid.get(&flow.name)?)))
}

/// That messages were not as the schema of the flow says, if any were.
fn mismatch(flow: &FlowPlan, seen: &BTreeMap<String, Vec<Seen>>) -> Option<String> {
    let count: u64 = invalid(flow, seen).map(|(_, seen)| seen.count).sum();
    let (name, first) = invalid(flow, seen).next()?;
    let schema = flow.payload.as_ref().and_then(|plan| plan.schema.as_deref()).unwrap_or("its schema");
    let verb = if count == 1 { "message was" } else { "messages were" };
    Some(format!("{count} {verb} not as `{schema}` says; the first at `{name}`: {}", first.reason))
}

/// That more was refused than may be, if it was.
fn refusals(flow: &FlowPlan, driven: &Driven) -> Option<String> {
    let (refused, taken) = (driven.refused, u64::try_from(driven.taken.len()).unwrap_or(u64::MAX));
    let all = refused.saturating_add(taken);
    is_no_accident(refused, all, flow.refusals).then(|| {
        let verb = if refused == 1 { "was" } else { "were" };
        let percent = rounded(flow.refusals * 100.0, 1e2);
        let allowed = if percent > 0.0 { format!("{percent}% may be") } else { "none may be".to_owned() };
        let why = driven.error.as_deref().unwrap_or("nobody knows why");
        format!("{refused} of {all} {verb} refused, where {allowed}; the first time: {why}")
    })
}

/// Whether so many refused of all are too many for a platform that may refuse this share.
#[expect(clippy::cast_precision_loss, reason = "counts of messages are far below 2^52")]
fn is_no_accident(refused: u64, all: u64, share: f64) -> bool {
    if refused == 0 || share >= 1.0 {
        return false;
    }
    if share <= 0.0 {
        return true;
    }
    let (all, odds) = (all as f64, (share / (1.0 - share)).ln());
    // The logarithm of the chance that so many are refused and no more, as the chance itself is too small a number in a long run.
    let mut exactly = all * (-share).ln_1p();
    let mut fewer = 0.0;
    for number in 0..refused {
        fewer += exactly.exp();
        let number = number as f64;
        exactly += ((all - number) / (number + 1.0)).ln() + odds;
    }
    1.0 - fewer < ACCIDENT
}

/// To so many parts of one.
fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
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
            entrances: Vec::new(),
            missing: None,
            left_out: false,
            per_second: 1.0,
            within: Duration::from_secs(1),
            loss: 0.0,
            refusals: 0.0,
            ends: ends.iter().map(|end| ((*end).to_owned(), 1)).collect(),
            programs: BTreeSet::new(),
            payload: None,
        }
    }

    fn seen(arrivals: &[(u64, u64)]) -> Seen {
        let arrivals = arrivals.iter().map(|(id, after_us)| Arrival { id: *id, hop: 1, after_us: *after_us }).collect();
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

    /// What is said of a flow of which so many of all were refused, where this share may be.
    fn refused(refused: u64, all: u64, refusals: f64) -> Option<String> {
        let ids: Vec<u64> = (refused..all).collect();
        let arrived: Vec<(u64, u64)> = ids.iter().map(|id| (*id, 2000)).collect();
        let error = (refused > 0).then(|| "503 Service Unavailable".to_owned());
        let driven = Driven { refused, error, ..driven(&ids) };
        let flow = FlowPlan { refusals, ..flow(&["mail"]) };
        report(&flow, Some(&driven), &BTreeMap::from([("mail".to_owned(), vec![seen(&arrived)])])).problem
    }

    #[test]
    fn where_nothing_may_be_refused_one_refusal_breaks_the_promise() {
        assert_eq!(refused(0, 50, 0.0), None);
        assert_eq!(
            refused(1, 50, 0.0).as_deref(),
            Some("1 of 50 was refused, where none may be; the first time: 503 Service Unavailable")
        );
    }

    #[test]
    fn a_refusal_too_many_may_be_an_accident_and_a_flood_is_none() {
        // Of a flow that hardly ever sends, all may be refused.
        assert_eq!(refused(1, 1, 0.01), None);
        // Where 1% may be, a run with 7 of 200 comes once in 230, and one with 9 once in 4,700.
        assert_eq!(refused(7, 200, 0.01), None);
        assert_eq!(
            refused(9, 200, 0.01).as_deref(),
            Some("9 of 200 were refused, where 1% may be; the first time: 503 Service Unavailable")
        );
    }

    #[test]
    fn the_longer_the_run_the_smaller_the_excess_that_shows() {
        assert!(!is_no_accident(2_000, 100_000, 0.02));
        assert!(is_no_accident(2_200, 100_000, 0.02));
        assert!(!is_no_accident(22, 1_000, 0.02));
    }

    #[test]
    fn what_does_not_keep_to_the_schema_is_told_with_the_place() {
        let invalid = InvalidSeen { count: 2, reason: "/value: -1 is less than the minimum of 0".to_owned() };
        let refused = Seen { invalid: [("order".to_owned(), invalid)].into(), ..seen(&[(1, 2000)]) };
        let told = report(&flow(&["mail"]), Some(&driven(&[1])), &BTreeMap::from([("mail".to_owned(), vec![refused])]));
        let problem =
            "2 messages were not as `its schema` says; the first at `mail`: /value: -1 is less than the minimum of 0";
        assert_eq!((told.invalid, told.problem.as_deref()), (2, Some(problem)));
    }

    #[test]
    fn one_problem_does_not_hide_another() {
        let driven = Driven { refused: 1, error: Some("502 Bad Gateway".to_owned()), ..driven(&[1, 2]) };
        let slow = BTreeMap::from([("mail".to_owned(), vec![seen(&[(1, 1_500_000)])])]);
        let report = report(&flow(&["mail"]), Some(&driven), &slow);
        let lost = "1 were taken and did not arrive";
        let refused = "1 of 3 was refused, where none may be; the first time: 502 Bad Gateway";
        let problem = format!("{lost}; {refused}; it takes longer than declared");
        assert_eq!(report.problem, Some(problem));
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let hundred: Vec<u64> = (1..=100).map(|ms| ms * 1000).collect();
        assert_eq!((quantile(&hundred, 0.5), quantile(&hundred, 0.99)), (Some(50.0), Some(99.0)));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
