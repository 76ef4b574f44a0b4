//! A service stand-in: serves its ports and probes, performs its edges, passes messages of flows on, and tells what it saw.

mod answer;
mod job;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Failure;
use crate::behaviour::{Action, FAULT_VARIABLE, InvalidSeen, Load, Message, Seen, ServiceBehaviour, Stage};
use crate::edges::{Edges, Membership, Subscription, consume, consume_topic, subscribe};
use crate::fault::{Fault, Faults};
use crate::metrics::{self, Durations, Passed};
use crate::payload::Carried;
use crate::program::{self, LOOK_VARIABLE};
use crate::record::Record;
use crate::trace::{Exporter, Finished, Kind, Span};

/// How often each edge is used when nothing is declared and no flow uses it, so that one without traffic shows within
/// seconds.
const IDLE: Duration = Duration::from_secs(5);

/// How long requests that are under way may take when it is asked to end.
const FINISH: Duration = Duration::from_secs(20);

struct Service {
    behaviour: Arc<ServiceBehaviour>,
    edges: Edges,
    faults: Faults,
    record: Record,
    /// By flow.
    invalid: Mutex<BTreeMap<String, InvalidSeen>>,
    passed: Passed,
    /// How long answers took, by the method and the status.
    answers: Durations,
    /// How long messages took, by where they came from and what went wrong.
    processed: Durations,
    /// For each edge: whether it consumes and has not reached its queue yet.
    detached: Vec<AtomicBool>,
    idle: AtomicU64,
    /// Where its spans go.
    spans: Exporter,
}

/// How long the last spans of a job may take.
const LAST_SPANS: Duration = Duration::from_secs(10);

/// Serves until it is asked to end; a job does its work and ends. `named` is the program that the image catalogue names.
pub(crate) async fn run(file: &str, named: &[&str]) -> Result<(), Failure> {
    if let Ok(told) = std::env::var(LOOK_VARIABLE) {
        return program::look_as_told(&told).await;
    }
    let behaviour = read(file)?;
    if let Some(program) = &behaviour.program {
        return Err(program::become_program(program, named, behaviour.ledger.as_deref()));
    }
    let once = behaviour.runs_once;
    let (exporter, sending) = Exporter::of_environment(&behaviour.service)?;
    let service = Arc::new(Service::new(behaviour, exporter)?);
    let mut works = JoinSet::new();
    if let Some(sending) = sending {
        works.spawn(sending.run());
    }
    if !once {
        return serve(service, works).await;
    }
    let result = job::run(&service).await;
    // Nobody hands over more then, so that those who send come to their end.
    drop(service);
    let sent = async { while works.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_SPANS, sent).await.is_err() {
        warn!("the last spans were not taken");
    }
    result
}

/// Runs the service that the pod is named after.
pub(crate) async fn run_one_of(pod: &str, files: &[&str], named: &[&str]) -> Result<(), Failure> {
    let mut own: Option<(usize, &str)> = None;
    for file in files {
        let service = read(file)?.service;
        let fits = pod.strip_prefix(service.as_str()).is_some_and(|rest| rest.starts_with('-'));
        // `web-admin-1` is of `web-admin` and not of `web`.
        if fits && own.is_none_or(|(length, _)| service.len() > length) {
            own = Some((service.len(), *file));
        }
    }
    let (_, file) = own.ok_or_else(|| format!("no service of this image is called as the pod `{pod}` is"))?;
    run(file, named).await
}

fn read(file: &str) -> Result<ServiceBehaviour, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("failed to read `{file}`: {error}"))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("failed to understand `{file}`: {error}"))?)
}

/// What a stand-in can be told to do beside its work; none of these returns.
type Burden = fn(Arc<Service>) -> BoxFuture<'static, ()>;

const BURDENS: [Burden; 3] = [
    |service| async move { service.faults.leak().await }.boxed(),
    |service| async move { service.faults.be_busy().await }.boxed(),
    |service| async move { service.faults.hold_memory().await }.boxed(),
];

async fn serve(service: Arc<Service>, mut works: JoinSet<()>) -> Result<(), Failure> {
    let ending = CancellationToken::new();
    let mut servers: JoinSet<Result<(), Failure>> = JoinSet::new();
    for port in &service.behaviour.ports {
        let listener = TcpListener::bind((crate::address::own(), *port)).await?;
        let router = answer::router(Arc::clone(&service));
        let ended = ending.clone().cancelled_owned();
        servers.spawn(async move { Ok(axum::serve(listener, router).with_graceful_shutdown(ended).await?) });
    }
    for place in 0..service.behaviour.edges.len() {
        works.spawn(work(Arc::clone(&service), place));
    }
    for burden in BURDENS {
        works.spawn(burden(Arc::clone(&service)));
    }
    info!(service = service.behaviour.service, ports = ?service.behaviour.ports, "serving");
    let mut stop = asked_to_end()?;
    tokio::select! {
        _ = stop.recv() => {}
        crash = service.faults.crash() => return Err(crash),
        Some(ended) = servers.join_next() => return ended?,
        Some(ended) = works.join_next() => return Ok(ended?),
    }
    // What a queue has brought and is not acknowledged comes again, to another copy; answers are given to the end.
    ending.cancel();
    service.edges.leave().await;
    let finished = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH, finished).await.is_err() {
        warn!("requests were still under way");
    }
    Ok(())
}

/// The signal with which a pod is asked to end.
pub(crate) fn asked_to_end() -> Result<Signal, Failure> {
    Ok(signal(SignalKind::terminate())?)
}

/// What an edge does by itself, all the time.
async fn work(service: Arc<Service>, place: usize) {
    let edge = &service.behaviour.edges[place];
    if let Action::Consume { url, exchange, queue } = &edge.action {
        let attached = || service.detached[place].store(false, Ordering::Relaxed);
        let subscription = Subscription { url, exchange, queue };
        consume(&service.edges, subscription, attached, |carried| take(&service, place, carried)).await;
        return;
    }
    if let Action::KafkaConsume { kafka: access, topic, group } = &edge.action {
        let attached = || service.detached[place].store(false, Ordering::Relaxed);
        let membership = Membership { access, topic, group };
        consume_topic(&service.edges, membership, attached, |carried| take(&service, place, carried)).await;
        return;
    }
    if let Action::MqttSubscribe { url, topic } = &edge.action {
        let attached = || service.detached[place].store(false, Ordering::Relaxed);
        let work = |carried| take(&service, place, carried);
        subscribe(&service.edges, url, topic, &service.behaviour.service, attached, work).await;
        return;
    }
    let mut tick =
        tokio::time::interval(edge.every_ms.map_or(IDLE, Duration::from_millis).max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        service.faults.hold().await;
        let result = service.edges.perform(place, &service.of_no_flow(), Load::Whole).await;
        if let Err(error) = &result
            && !failing
        {
            warn!(edge = edge.name, %error, "an edge carries nothing");
        }
        failing = result.is_err();
    }
}

/// A message that a queue has brought.
async fn take(service: &Service, place: usize, carried: Carried) -> Result<(), Failure> {
    let begin = Instant::now();
    let Carried { message, payload } = carried;
    service.faults.hold().await;
    if let (Some(declared), Some(payload)) = (service.edges.payload(&message), &payload)
        && let Err(error) = declared.check_value(payload)
    {
        service.refuse(&message, &error);
        service.note_processed(place, Some("invalid_payload"), begin.elapsed());
        service.edges.count(place, &Err(error), begin.elapsed());
        // It would come back for ever.
        return Ok(());
    }
    let result = if service.faults.strikes() {
        Err("it was told to fail".into())
    } else {
        service.pass(&message, Some(&service.behaviour.edges[place].name)).await
    };
    // What OpenTelemetry calls an error of which nobody knows the kind.
    service.note_processed(place, result.as_ref().err().map(|_| "_OTHER"), begin.elapsed());
    service.edges.count(place, &result, begin.elapsed());
    result
}

impl Service {
    fn new(behaviour: ServiceBehaviour, spans: Exporter) -> Result<Self, Failure> {
        let behaviour = Arc::new(behaviour);
        let detached = behaviour.edges.iter().map(|edge| AtomicBool::new(edge.action.comes_by_itself()));
        let fault = match std::env::var(FAULT_VARIABLE) {
            Ok(text) => Fault::parse(text.as_bytes()).map_err(|error| format!("{FAULT_VARIABLE}: {error}"))?,
            Err(_) => Fault::default(),
        };
        let record = match (&behaviour.ledger, std::env::var("HOSTNAME")) {
            (Some(folder), Ok(pod)) => {
                let file = Path::new(folder).join(pod);
                Record::kept_in(&file).map_err(|error| format!("failed to open `{}`: {error}", file.display()))?
            }
            _ => Record::default(),
        };
        Ok(Self {
            edges: Edges::new(Arc::clone(&behaviour))?,
            faults: Faults::new(fault),
            record,
            invalid: Mutex::default(),
            passed: Passed::default(),
            answers: Durations::default(),
            processed: Durations::default(),
            detached: detached.collect(),
            idle: AtomicU64::new(0),
            spans,
            behaviour,
        })
    }

    /// Notes how long a message took that a consuming edge has brought, and the kind of its error if it has failed.
    fn note_processed(&self, place: usize, error: Option<&str>, duration: Duration) {
        let Some((system, destination)) = self.behaviour.edges[place].action.brings() else { return };
        self.processed.observe(metrics::processed(system, destination, error), duration);
    }

    fn is_ready(&self) -> bool {
        self.detached.iter().all(|detached| !detached.load(Ordering::Relaxed))
    }

    fn of_no_flow(&self) -> Message {
        Message { id: self.idle.fetch_add(1, Ordering::Relaxed), sent_us: now_us(), ..Message::default() }
    }

    fn seen(&self) -> Seen {
        let (arrivals, suppressed) = self.record.told();
        Seen { edges: self.edges.seen(), arrivals, suppressed, invalid: self.invalid().clone() }
    }

    fn invalid(&self) -> MutexGuard<'_, BTreeMap<String, InvalidSeen>> {
        self.invalid.lock().expect("nothing panics while it counts")
    }

    /// Writes down that a message does not carry what its flow declares.
    fn refuse(&self, message: &Message, error: &Failure) {
        let flow = message.flow.as_deref().unwrap_or_default();
        warn!(flow, id = message.id, hop = message.hop, %error, "a message is not as its flow declares");
        let mut invalid = self.invalid();
        let seen =
            invalid.entry(flow.to_owned()).or_insert_with(|| InvalidSeen { count: 0, reason: error.to_string() });
        seen.count += 1;
    }

    /// Does this service's part of the flow for a message that a consuming edge or a request has brought. What was done before
    /// is not done again.
    async fn pass(&self, message: &Message, edge: Option<&str>) -> Result<(), Failure> {
        // Of no flow, or of one that goes elsewhere: to receive it is all.
        let Some(flow) = &message.flow else { return Ok(()) };
        let Some(part) = self.behaviour.flows.get(flow) else { return Ok(()) };
        let hop = part.stage_of(message.hop, edge);
        let Some(stage) = part.stages.get(&hop) else { return Ok(()) };
        let message = &Message { hop, ..message.clone() };
        if self.record.knows(flow, message) {
            return Ok(());
        }
        let (span, begin, begin_us) = (Span::within(message.trace.as_deref()), Instant::now(), now_us());
        self.passed.begin();
        let result = self.take_steps(stage, message, &span, flow).await;
        let name = edge.map_or_else(|| format!("flow {flow}"), ToOwned::to_owned);
        self.finish(&span, &name, Kind::Consumes, begin_us, flow, &result);
        self.passed.end(result.is_ok());
        let (trace_id, span_id, parent_id) = (span.trace_id(), span.span_id(), span.parent_id());
        let duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (id, hop) = (message.id, message.hop);
        match &result {
            Ok(()) => {
                let after_us = stage.ends.then(|| now_us().saturating_sub(message.sent_us));
                self.record.deal(flow, message, after_us)?;
                info!(flow, id, hop, trace_id, span_id, parent_id, duration_ms, "passed a message on");
            }
            Err(error) => {
                warn!(flow, id, hop, trace_id, span_id, parent_id, duration_ms, %error, "failed to pass a message on");
            }
        }
        result
    }

    async fn take_steps(&self, stage: &Stage, message: &Message, span: &Span, flow: &str) -> Result<(), Failure> {
        for step in &stage.steps {
            let (asks, begin_us) = (Span::within(Some(&span.header())), now_us());
            let next = Message { hop: step.hop, trace: Some(asks.header()), ..message.clone() };
            let done = self.edges.perform(step.edge, &next, step.load).await;
            self.finish(&asks, &self.behaviour.edges[step.edge].name, Kind::Asks, begin_us, flow, &done);
            if !self.behaviour.edges[step.edge].optional {
                done?;
            }
        }
        Ok(())
    }
}

impl Service {
    /// Sends a span that is over on its way.
    fn finish(&self, span: &Span, name: &str, kind: Kind, begin_us: u64, flow: &str, result: &Result<(), Failure>) {
        let error = result.as_ref().err().map(ToString::to_string);
        self.spans.take(&Finished { span, name, kind, begin_us, end_us: now_us(), flow, error });
    }
}

pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
