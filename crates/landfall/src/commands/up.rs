//! `landfall up`: the architecture runs on this machine, and what it promises is tried.

mod alerts;
mod apply;
mod cluster;
mod firewall;
mod gitops;
mod handover;
mod images;
mod isolation;
mod jobs;
mod metrics;
mod network;
mod observe;
mod part;
mod place;
mod plan;
mod programs;
mod relay;
mod report;
mod routes;
mod running;
mod scaling;
mod shipping;
mod traffic;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use landfall_deliver::keep;
use landfall_engine::{
    Config, Engine, GatewayConfig, Handle, NODE_MONITOR_GRACE_PERIOD, PodRuntime, Pods, Report as Served, Shim,
};
use landfall_model::{Architecture, Severity, WindowKeeper};
use landfall_standin::{Authority, run_operators};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::cluster::{is_ready, says_ready};
pub(crate) use self::gitops::GitopsReport;
pub(crate) use self::network::name as network_name;
pub(crate) use self::place::Place;
pub(crate) use self::plan::{STANDIN, server_of};
pub(crate) use self::report::{FlowReport, flow_table, table};
pub(crate) use self::running::{EdgeState, Entrances, Found};
pub(crate) use self::scaling::ScalingReport;

use self::apply::Applied;
use self::cluster::{Lines, Snapshot};
use self::jobs::Jobs;
use self::part::Part;
use self::plan::{PROGRAM, Plan};
use self::report::{PodsReport, Report, ServiceReport, StoreReport};
use self::running::Running;
use self::traffic::Outsider;
use crate::Outcome;
use crate::cli::{NetworkLevel, Output, UpArguments};
use crate::commands::engine::{NETWORK, POD};
use crate::files::write_whole;
use crate::project::{Project, today};
use crate::signals::{HandoverRequests, StopSignals};
use crate::terminal::Terminal;

/// How often the cluster is looked at while it comes up.
const POLL: Duration = Duration::from_millis(250);

/// Runs the platform until it is told to stop.
pub(crate) fn run(arguments: &UpArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let project = Project::read(&arguments.file)?;
    let environment = match project.one_environment(arguments.environment.as_deref()) {
        Ok(environment) => environment,
        Err(hint) => {
            terminal.say(&hint)?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let checked = match project.check(environment.as_deref(), today(None)) {
        Ok(checked) => checked,
        Err(findings) => {
            terminal.findings(&findings, project.file.sources())?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let (errors, _): (Vec<_>, Vec<_>) =
        checked.report.findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    if !errors.is_empty() {
        terminal.findings(&errors, project.file.sources())?;
        terminal.say("the architecture does not keep what it promises; `landfall check` has the whole report")?;
        return Ok(Outcome::No);
    }
    let place = Place::of(&arguments.file, checked.architecture.document.name.as_str(), environment.as_deref());
    let Some(images) = images::read(arguments.images.as_deref(), terminal)? else {
        return Ok(Outcome::NotUnderstood);
    };
    let part = Part { only: arguments.only.clone(), without: arguments.without.clone(), images };
    if let Some(unknown) = part.unknown(&checked.architecture) {
        terminal.say(&unknown)?;
        return Ok(Outcome::NotUnderstood);
    }
    let network = network::asked(arguments.network, &place)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the threads of the engine")?;
    // Before anybody can know of this process, as who asks before it listens would end it.
    let handover = runtime.block_on(async { HandoverRequests::listen() })?;
    let occupied = match handover::enter(&place, arguments, terminal)? {
        Ok(occupied) => occupied,
        Err(outcome) => return Ok(outcome),
    };
    place.keep_part(&part)?;
    let authority = Authority::open(&place.authority()).context("failed to make the authority")?;
    let program = std::env::current_exe().context("failed to find this program")?;
    let now =
        Timestamp::from_second(Timestamp::now().as_second()).context("the clock of the machine is out of range")?;
    let (architecture, authority_pem) = (&checked.architecture, authority.certificate());
    let mut plan = plan::plan(architecture, checked.objects, &program, &place, authority_pem, &part, now);
    let changed = write_behaviours(&plan, &place)?;
    write_programs(&plan, &place)?;
    fs::write(place.trust(), authority_pem)
        .with_context(|| format!("failed to write `{}`", place.trust().display()))?;
    for line in plan::missing_programs(&plan.own_programs) {
        terminal.say(&format!("warning: {line}"))?;
    }
    let check_ms = millis(begin.elapsed());
    terminal.say(&format!("checked and rendered: {} objects, {check_ms} ms", plan.objects.len()))?;
    if let Some(part) = &plan.part {
        let [runs, left_out] = part.lines();
        terminal.say(&format!("a part: {runs}\n{left_out}"))?;
    }

    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("LANDFALL_LOG").unwrap_or_else(|_| "error".into()))
        .with_writer(std::io::stderr)
        .init();
    let ended = runtime.block_on(async {
        // What the engine has begun when it is to stop must be ended, too.
        let signals = StopSignals::listen()?;
        let engine = Engine::start(engine(&plan, &place, &program, network)).await?;
        plan.left_running.clone_from(&engine.report().machine.left_running);
        let gateway = engine.report().machine.gateway;
        let entrances = match firewall::open(&mut plan, &place, gateway.http, gateway.https) {
            Ok(entrances) => entrances,
            Err(error) => {
                engine.stop(Pods::Stop).await;
                return Err(error);
            }
        };
        let architecture = &checked.architecture;
        let jobs = Jobs::new(&plan);
        let plan = &plan;
        let run = Run { arguments, architecture, plan, place: &place, entrances, changed, authority, check_ms, jobs };
        run.whole(engine, signals, handover, terminal).await
    });
    // Whoever takes over finds nothing of this one at work.
    drop(runtime);
    drop(occupied);
    ended
}

/// This program in one of its other uses.
fn again(program: &Path, mode: &str) -> Shim {
    Shim { program: program.to_owned(), arguments: vec![mode.to_owned()] }
}

/// Ends what is left of a platform whose process was killed; how many pods that were.
pub(crate) fn end_left_running(place: &Place) -> anyhow::Result<usize> {
    if !place.engine().exists() {
        return Ok(0);
    }
    let program = std::env::current_exe().context("failed to find this program")?;
    block_on(async {
        let (pods, network) = (again(&program, POD), again(&program, NETWORK));
        Ok(Engine::end_left_running(&place.engine(), pods, &network).await?)
    })
}

fn engine(plan: &Plan, place: &Place, program: &Path, network: NetworkLevel) -> Config {
    Config {
        data: place.engine(),
        listen: ([127, 0, 0, 1], 0).into(),
        kubeconfig: Some(place.kubeconfig()),
        nodes: plan.nodes.clone(),
        images: plan.images.clone(),
        runtime: PodRuntime::Processes(again(program, POD)),
        network: (network != NetworkLevel::Loopback).then(|| again(program, NETWORK)),
        // What is outside is played here.
        egress: Vec::new(),
        gateway: GatewayConfig::default(),
        node_monitor_grace_period: NODE_MONITOR_GRACE_PERIOD,
    }
}

/// Returns the services and externals whose behaviour is another one than that of their pods which run on.
fn write_behaviours(plan: &Plan, place: &Place) -> anyhow::Result<BTreeSet<String>> {
    let services = plan
        .services
        .iter()
        .map(|service| (&service.service, service.service.clone(), serde_json::to_vec_pretty(service)));
    let externals = plan.externals.iter().map(|external| {
        (&external.external, format!("external-{}", external.external), serde_json::to_vec_pretty(external))
    });
    for folder in plan.services.iter().map(|service| place.ledger(&service.service)) {
        fs::create_dir_all(&folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
    }
    let (mut changed, mut texts) = (place.to_renew(), Vec::new());
    for (name, file, text) in services.chain(externals) {
        let (file, text) = (place.behaviour(&file), text?);
        if fs::read(&file).is_ok_and(|before| before == text) {
            continue;
        }
        changed.insert(name.clone());
        texts.push((file, text));
    }
    // Before they are written: whoever comes after a process that ends here knows of them all the same.
    place.keep_to_renew(&changed)?;
    for (file, text) in texts {
        fs::write(&file, text).with_context(|| format!("failed to write `{}`", file.display()))?;
    }
    Ok(changed)
}

/// Writes the programs that pods find before those of the machine.
fn write_programs(plan: &Plan, place: &Place) -> anyhow::Result<()> {
    let folder = place.programs();
    fs::create_dir_all(&folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
    for (called, server) in &plan.programs {
        let file = folder.join(called);
        let script = format!("#!/bin/sh\nexec {PROGRAM} {STANDIN} server {} \"$@\"\n", server.as_str());
        fs::write(&file, script).with_context(|| format!("failed to write `{}`", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("failed to make `{}` a program", file.display()))?;
    }
    Ok(())
}

/// Why a run ends.
enum End {
    /// It has reported.
    Worked(Outcome),
    /// Somebody has stopped it, or a part of the engine has failed.
    Stopped,
    /// Another `up` goes on.
    HandedOver,
}

/// What one `up` works with.
struct Run<'a> {
    arguments: &'a UpArguments,
    architecture: &'a Architecture,
    plan: &'a Plan,
    place: &'a Place,
    /// Where who is outside comes in.
    entrances: Entrances,
    /// The services and externals that are told something else than the last time.
    changed: BTreeSet<String>,
    authority: Authority,
    check_ms: u64,
    jobs: Jobs,
}

impl Run<'_> {
    async fn whole(
        &self,
        mut engine: Handle,
        mut signals: StopSignals,
        mut handover: HandoverRequests,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Outcome> {
        if let Err(refusal) = network::accept(self.arguments.network, &engine.report().machine, self.place) {
            engine.stop(Pods::Stop).await;
            return Err(refusal);
        }
        terminal.say(&format!("engine serves: {} ms", engine.report().serving.as_millis()))?;
        for line in network::warnings(&engine.report().machine, self.plan) {
            terminal.say(&format!("warning: {line}"))?;
        }
        terminal.say(&format!("try: kubectl --kubeconfig {} get pods -A", self.place.kubeconfig().display()))?;

        // By the socket, as anybody: `exec` and `port-forward` need one.
        let (client, served) = (client(self.place).await?, engine.report().clone());
        write_whole(&self.place.entrances(), &serde_json::to_vec(&self.entrances)?)?;
        let outsider = Outsider::new(self.entrances.clone(), self.authority.certificate())?;
        // Externals call for as long as the platform is up.
        let mut relay = std::pin::pin!(relay::carry(outsider.clone(), client.clone(), self.plan));
        let mut shipping = Box::pin(self.ship(&client));
        let mut watching = Box::pin(self.jobs.watch(&client));
        let stop = CancellationToken::new();
        let mut operators = JoinSet::new();
        let mut end = tokio::select! {
            () = signals.next() => Ok(End::Stopped),
            () = handover.next() => Ok(End::HandedOver),
            () = engine.failed() => Ok(End::Stopped),
            never = &mut relay => match never {},
            never = &mut shipping => match never {},
            never = &mut watching => match never {},
            done = self.work(client.clone(), &served, &outsider, &stop, &mut operators, terminal) => done.map(End::Worked),
        };
        if matches!(end, Ok(End::Worked(_))) && !self.arguments.once {
            terminal.say("it stays up; Ctrl-C or `landfall down` stops it, its data stays")?;
            tokio::select! {
                () = signals.next() => {}
                () = handover.next() => end = Ok(End::HandedOver),
                () = engine.failed() => {}
                never = &mut relay => match never {},
                never = &mut shipping => match never {},
                never = &mut watching => match never {},
            }
        }
        let (pods, outcome) = match end {
            Ok(End::HandedOver) => (Pods::Keep, Ok(Outcome::Done)),
            Ok(End::Worked(outcome)) => (Pods::Stop, Ok(outcome)),
            Ok(End::Stopped) => (Pods::Stop, Ok(Outcome::No)),
            Err(error) => (Pods::Stop, Err(error)),
        };
        // Nobody may be there any more to be told.
        let told = terminal.say(match pods {
            Pods::Stop => "stopping",
            Pods::Keep => "another `landfall up` has taken over; the pods run on",
        });
        stop.cancel();
        // What they have made is in the API; nothing is lost when they end in the middle.
        operators.shutdown().await;
        engine.stop(pods).await;
        told?;
        outcome
    }

    /// Ships logs for as long as the platform is up, where a store for them is declared.
    async fn ship(&self, client: &Client) -> std::convert::Infallible {
        match self.plan.sink.as_ref().filter(|sink| sink.logs.is_some()) {
            Some(sink) => {
                let all = self.plan.namespaces().into_iter().filter(|namespace| *namespace != self.plan.outside);
                shipping::ship(client, sink, all.map(ToOwned::to_owned).collect()).await
            }
            None => std::future::pending().await,
        }
    }

    /// Everything from the first object to the report.
    async fn work(
        &self,
        client: Client,
        served: &Served,
        outsider: &Outsider,
        stop: &CancellationToken,
        operators: &mut JoinSet<()>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Outcome> {
        let mut report = Report::new(
            self.architecture.document.name.to_string(),
            self.architecture.environment.as_ref().map(ToString::to_string),
            network::name(served.machine.network),
        );
        report.left_out.clone_from(&self.plan.left_out);
        report.part.clone_from(&self.plan.part);
        report.programs.clone_from(&self.plan.own_programs);
        report.times.check_ms = self.check_ms;
        report.times.engine_ms = millis(served.serving);

        let begin = Instant::now();
        let (namespaces, others): (Vec<_>, Vec<_>) =
            self.plan.objects.iter().chain(&self.plan.additions).partition(|object| object["kind"] == "Namespace");
        let mut kinds = apply::custom_kinds(&others);
        // The externals have certificates even where the platform has none.
        let certificate = GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate");
        if !kinds.contains(&certificate) {
            kinds.push(certificate);
        }
        // What is scheduled becomes one.
        let backups = GroupVersionKind::gvk("postgresql.cnpg.io", "v1", "Backup");
        if kinds.iter().any(|kind| kind.kind == "ScheduledBackup") && !kinds.contains(&backups) {
            kinds.push(backups);
        }
        apply::define(&client, &kinds).await?;
        apply::remove_placeholders(&client, &self.plan.placeholders).await?;
        // One of Kubernetes' own, of which cert-manager takes notice.
        kinds.push(GroupVersionKind::gvk("networking.k8s.io", "v1", "Ingress"));
        operators.spawn(run_operators(client.clone(), self.authority.clone(), kinds, stop.clone()));
        if self.architecture.document.platform.windows.value == WindowKeeper::Landfall {
            let client = client.clone();
            operators.spawn(async move { keep(&client, None, |_| ()).await });
        }
        self.apply(&client, &namespaces, &others, terminal).await?;
        if !self.plan.left_running.is_empty() {
            terminal.say(&format!("{} pods run on from before", self.plan.left_running.len()))?;
            cluster::renew(&client, &Snapshot::take(&client, self.plan).await?, &self.changed).await?;
        }
        self.place.keep_to_renew(&BTreeSet::new())?;
        report.times.apply_ms = millis(begin.elapsed());
        terminal.say(&format!("applied: {} ms", report.times.apply_ms))?;

        let begin = Instant::now();
        let pods = match self.ready(&client, terminal).await? {
            Ok(pods) => pods,
            Err(pods) => {
                for trouble in pods.troubles() {
                    terminal.say(&format!("error: {trouble}"))?;
                }
                terminal.say(&format!(
                    "not ready after {} s: {}",
                    self.arguments.timeout.as_secs_f64(),
                    pods.waiting.join(", ")
                ))?;
                return Ok(Outcome::No);
            }
        };
        report.times.ready_ms = millis(begin.elapsed());
        self.jobs.begin(Timestamp::now());
        cluster::forget_gone(self.plan, &pods)?;
        let (ready, total) = pods.ready();
        report.pods = PodsReport { ready, total };
        terminal.say(&format!("ready: {ready} pods, {} ms", report.times.ready_ms))?;
        report.stores = self.stores(&pods);

        let begin = Instant::now();
        let seconds = self.arguments.duration.as_secs_f64();
        let driven = self.plan.flows.iter().filter(|flow| flow.missing.is_none()).count();
        terminal.say(&format!("driving {driven} flows for {seconds} s"))?;
        metrics::tell(&client, self.plan, &pods).await?;
        let lines = Lines::new(client.clone());
        let running = Running { plan: self.plan, client: &client, lines: &lines, outsider };
        // Alerts are on their way while the flows are driven.
        let driving = Box::pin(running.try_flows(Duration::from_secs_f64(seconds)));
        let (tried, alerts) = tokio::try_join!(driving, Box::pin(alerts::begin(&client, &lines, self.plan)))?;
        report.flows = tried.flows;
        report.times.flows_ms = millis(begin.elapsed());
        report.edges = self.plan.edges(&tried.seen);
        let pods = Snapshot::take(&client, self.plan).await?;
        let tried =
            isolation::try_all(&lines, outsider, self.architecture, self.plan, &pods, served.machine.network).await?;
        report.edges.undeclared = Some(tried.undeclared.values().sum());
        report.edges.undeclared_from = tried.undeclared;
        report.edges.not_enforceable = tried.not_enforceable.values().sum();
        report.edges.not_enforceable_from = tried.not_enforceable;
        report.edges.reachable = tried.reachable;
        report.edges.untried = tried.untried;
        report.services = self.services(&pods);
        report.metrics = metrics::try_all(&client, &lines, self.plan).await?;
        report.alerts = alerts::try_all(&client, &lines, self.plan, alerts).await?;
        report.firewall = firewall::try_all(outsider, self.plan).await?;
        // Last of what needs the gateway: whoever came too often has to wait.
        report.routes = routes::try_all(outsider, self.architecture, self.plan).await?;
        let observed = observe::try_all(&client, &lines, self.architecture, self.plan).await?;
        (report.logs, report.traces) = (observed.logs, observed.traces);
        report.jobs = self.jobs.ended().await;
        report.judge();
        if let Some(measured) = self.plan.metrics.clone() {
            operators.spawn(metrics::follow(client.clone(), measured));
        }

        let text = serde_json::to_string_pretty(&report)?;
        write_whole(&self.place.report(), text.as_bytes())?;
        match self.arguments.output {
            Output::Json => writeln!(terminal.data(), "{text}")?,
            Output::Text => report.print(terminal.data())?,
        }
        terminal.flush()?;
        Ok(if report.broken.is_empty() { Outcome::Done } else { Outcome::No })
    }

    /// Brings the objects to what is rendered now, whatever an earlier `up` has left.
    async fn apply(
        &self,
        client: &Client,
        namespaces: &[&Value],
        others: &[&Value],
        terminal: &mut Terminal,
    ) -> anyhow::Result<()> {
        let file = self.place.applied();
        let (before, now) = (Applied::read(&file), Applied::of(namespaces.iter().chain(others).copied()));
        let changes = now.since(&before);
        if before != Applied::default() {
            terminal.say(&format!(
                "since the last time: {} objects new, {} changed, {} as they were, {} to be removed",
                changes.new,
                changes.changed,
                changes.unchanged,
                changes.stale.len()
            ))?;
        }
        now.with(&before).keep(&file)?;
        apply::apply_all(client, namespaces).await?;
        apply::make_placeholders(client, &self.plan.placeholders).await?;
        apply::apply_all(client, others).await?;
        apply::remove(client, &changes.stale).await?;
        now.keep(&file)
    }

    /// Waits until everything is ready; `Err` when it takes too long.
    async fn ready(&self, client: &Client, terminal: &mut Terminal) -> anyhow::Result<Result<Snapshot, Snapshot>> {
        let deadline = Instant::now() + Duration::from_secs_f64(self.arguments.timeout.as_secs_f64());
        let mut told = String::new();
        loop {
            let mut snapshot = Snapshot::take(client, self.plan).await?;
            if snapshot.waiting.is_empty() {
                let nowhere = cluster::leading_nowhere(client, self.plan, &snapshot).await?;
                snapshot.waiting = nowhere.iter().map(|service| format!("{service} to lead to its pods")).collect();
            }
            if snapshot.waiting.is_empty() {
                return Ok(Ok(snapshot));
            }
            if Instant::now() >= deadline {
                return Ok(Err(snapshot));
            }
            let line = format!("waiting for {}", snapshot.waiting.join(", "));
            if line != told {
                terminal.progress(&line)?;
                told = line;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn services(&self, pods: &Snapshot) -> Vec<ServiceReport> {
        let services = self.plan.services.iter().filter(|service| !service.runs_once);
        let report = |name: &String| ServiceReport { name: name.clone(), ready: pods.ready_of(name).count() };
        services.map(|service| report(&service.service)).collect()
    }

    fn stores(&self, pods: &Snapshot) -> Vec<StoreReport> {
        let stores = self.plan.stores.iter();
        stores
            .map(|store| StoreReport {
                name: store.name.clone(),
                engine: store.engine.as_str(),
                server: store.server.clone(),
                declared: store.declared.clone(),
                operator: store.operator.map(|_| "stand-in"),
                in_place_of: store.operator,
                ready: pods.members(store),
                members: store.members,
            })
            .collect()
    }
}

/// Whether a pod belongs to the service, store or external of that name.
pub(crate) fn is_of(pod: &Pod, name: &str) -> bool {
    let labels = pod.metadata.labels.iter().flatten();
    labels.into_iter().any(|(key, value)| (key == cluster::NAME || key == plan::EXTERNAL_LABEL) && value == name)
}

/// Waits for what a command asks a platform that is up.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("failed to start a thread for requests")?.block_on(work)
}

/// A client as anybody has one who was given the kubeconfig.
pub(crate) async fn client(place: &Place) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(place.kubeconfig()).context("failed to read the kubeconfig")?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("failed to make a client")
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// What a text declares, without any other file.
#[cfg(test)]
fn architecture_of(text: &str) -> Architecture {
    let file =
        landfall_model::File::read("landfall.yaml", text.as_bytes(), &mut |_| Err("nothing is included".to_owned()));
    file.architecture(None).unwrap_or_else(|findings| panic!("{findings:#?}"))
}
