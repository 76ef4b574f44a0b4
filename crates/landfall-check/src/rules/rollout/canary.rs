//! Canaries: shares that grow, shares that copies can have, and traffic enough to decide.

use std::collections::BTreeMap;

use landfall_model::{
    Architecture, Baseline, Canary, CanaryMetric, Element, Evidence, Finding, IngressApi, Name, Percent, Replicas,
    Service, ServiceKind, Span, Spanned, Verb,
};

use super::NAME;
use crate::report::Verdict;
use crate::rule::Context;
use crate::rules::derivation::{Derivation, Section, Share, Stake, count, float, written};

/// How many requests reach each service in a second, or messages each worker, as flows and edges declare.
pub(super) struct Traffic(BTreeMap<Name, (f64, Vec<String>)>);

impl Traffic {
    pub(super) fn of(architecture: &Architecture) -> Self {
        let mut traffic: BTreeMap<Name, (f64, Vec<String>)> = BTreeMap::new();
        for (name, flow) in &architecture.document.flows {
            let Some(rate) = flow.rate else { continue };
            for step in &flow.steps {
                let Some(service) = architecture.service(step.to.as_str()) else { continue };
                let is_message = matches!(architecture.element(step.from.as_str()), Some(Element::Store(_)));
                if is_message || !is_worker(service) {
                    let known = traffic.entry(step.to.clone()).or_default();
                    known.0 += rate.per_second();
                    known.1.push(format!("flow `{name}` {rate}"));
                }
            }
        }
        for connection in &architecture.connections {
            let Some(rate) = connection.edge.rate else { continue };
            let ((Element::Service(to), from, Verb::Consume) | (from, Element::Service(to), _)) =
                (&connection.from, &connection.to, connection.verb)
            else {
                continue;
            };
            // What comes from a store is a message.
            if matches!(from, Element::Store(_)) != architecture.service(to.as_str()).is_some_and(is_worker) {
                continue;
            }
            let known = traffic.entry(to.clone()).or_default();
            known.0 += rate.per_second();
            known.1.push(format!("{from} {rate}"));
        }
        Self(traffic)
    }
}

/// Whether a service takes messages from queues, to which no share of requests leads.
pub(super) fn is_worker(service: &Service) -> bool {
    service.kind.value == ServiceKind::Worker
}

/// How many copies the canary adds at its largest share below the whole, those of a baseline among them.
pub(super) fn copies(canary: &Canary, replicas: &Replicas) -> u32 {
    let (floor, ceiling) = (replicas.floor(), replicas.ceiling());
    let largest =
        canary.steps.iter().map(|step| step.millionths()).filter(|share| *share < 1_000_000).max().unwrap_or(0);
    let copies = (u64::from(floor) * u64::from(largest)).div_ceil(1_000_000);
    let copies = u32::try_from(copies).unwrap_or(u32::MAX).max(u32::from(largest > 0));
    let with_baseline = match canary.baseline.value {
        Baseline::Fresh => true,
        own => own.may_be_fresh(true, replicas.scales()) && floor + Canary::added(copies, true) <= ceiling,
    };
    Canary::added(copies, with_baseline)
}

/// Whether the shares grow, and something is judged. Said once for each declaration.
pub(super) fn shares(
    context: &Context<'_>,
    service: &Service,
    canary: &Canary,
    span: Span,
    first: bool,
    found: &mut Vec<Finding>,
) -> Verdict {
    let mut wrong = Vec::new();
    if canary.steps.is_empty() {
        wrong.push(
            Finding::error(NAME, span, "the canary has no steps")
                .help("give it growing shares: `steps: [5%, 25%, 50%]`"),
        );
    }
    for step in &canary.steps {
        if step.millionths() == 0 || step.millionths() > 1_000_000 {
            let message = format!("{step} is no share of the traffic");
            wrong.push(Finding::error(NAME, step.span, message).help("write shares above 0 % and up to 100 %"));
        }
    }
    for pair in canary.steps.windows(2) {
        if pair[1].value <= pair[0].value {
            let message = format!("the canary goes from {} to {}: shares must grow", pair[0], pair[1]);
            wrong.push(
                Finding::error(NAME, pair[1].span, message)
                    .also(pair[0].span, "the step before")
                    .help("sort the steps"),
            );
        }
    }
    let verdict = if wrong.is_empty() { Verdict::Proved } else { Verdict::Refuted };
    // A worker whose messages nobody counts has nothing but metrics of its own.
    let may_have_metrics_alone = is_worker(service) && service.rollout.is_some() && !canary.judge.metrics.is_empty();
    if canary.judge.success.is_none() && canary.judge.p99.is_none() && !may_have_metrics_alone {
        let said = if canary.judge.metrics.is_empty() {
            "the canary is judged by nothing"
        } else {
            "the canary is judged by no answers: one that nobody calls keeps every bound"
        };
        let finding = Finding::new(NAME, Stake::Risk.severity(context), span, said);
        wrong.push(finding.help("say what it must reach: `judge: { success: 99.5%, p99: 300ms }`"));
    }
    if first {
        found.append(&mut wrong);
    }
    verdict
}

/// Whether each step can be had, and decided in time.
pub(super) fn decides(
    context: &Context<'_>,
    (name, service): (&Spanned<Name>, &Service),
    canary: &Canary,
    traffic: &Traffic,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) -> Verdict {
    let Some(smallest) = canary.steps.iter().min_by_key(|step| step.value).filter(|step| step.millionths() > 0) else {
        return Verdict::Refuted;
    };
    let share = if is_weighted(context.architecture, service) {
        smallest.value.fraction()
    } else {
        by_copies(context, (name, service), canary, smallest, derivation, found)
    };
    let work = if is_worker(service) { "message" } else { "request" };
    // As the canary is judged when it is shipped.
    let by_success =
        canary.judge.success.and_then(|success| Some((success, Evidence::of_success(success.value, 1)?.least())));
    let by_latency = canary.judge.p99.and(Evidence::of_limit(Evidence::SLOWER_THAN_P99, 1)).map(Evidence::least);
    if let Some((success, needed)) = by_success {
        derivation.line(format!(
            "a success of {success} is believed after {} in a row",
            count(needed, &format!("good {work}"))
        ));
    }
    if let Some(needed) = by_latency {
        derivation.line(format!("a p99 is believed after {}", count(needed, work)));
    }
    // As many samples in a row of each own metric.
    let by_metrics = canary.judge.metrics.iter().map(CanaryMetric::least_seconds).max();
    if let Some(slowest) = by_metrics {
        derivation.line(format!(
            "metrics of its own are believed after {} samples in a row: {slowest} s",
            CanaryMetric::SAMPLES
        ));
        if slowest > canary.decide_within.seconds() {
            let at = written([canary.decide_within.span, smallest.span, name.span]);
            let message =
                format!("a canary of `{name}` can never be decided: the samples of its metrics take {slowest} s");
            let finding = Finding::error(NAME, at, message);
            found.push(finding.help(format!("give each step {slowest} s, or ask for the metrics more often")));
            return Verdict::Refuted;
        }
    }
    let Some(needed) = by_success.map(|(_, needed)| needed).max(by_latency) else {
        derivation.line("nothing is judged by counts");
        return Verdict::Undecided;
    };
    let Some((rate, sources)) = traffic.0.get(name.as_str()).filter(|(rate, _)| *rate > 0.0) else {
        derivation.line(format!("no flow or edge declares how many {work}s reach `{name}`"));
        return Verdict::Undecided;
    };
    let seconds = float(needed) / (rate * share);
    let own = if service.rollout.is_some() { format!("services.{name}") } else { "delivery".to_owned() };
    derivation.uses(&format!("{own}.rollout.canary.decide-within"), &canary.decide_within, Section::Given);
    derivation.line(format!("{rate:.2}/s reach `{name}`: {}", sources.join(", ")));
    let line = format!(
        "{needed} {work}s ÷ ({rate:.2}/s × {}) = {:.0} s for the first step; {} s are allowed",
        Share(share),
        seconds.ceil(),
        canary.decide_within.seconds()
    );
    derivation.line(line);
    if seconds <= canary.decide_within.as_secs_f64() {
        return Verdict::Proved;
    }
    let enough = float(needed) / (rate * canary.decide_within.as_secs_f64());
    let at = written([canary.decide_within.span, smallest.span, name.span]);
    let message = format!("a canary of `{name}` can never be decided: the declared traffic is too little");
    let mut finding = Finding::error(NAME, at, message).also(smallest.span, "the first step");
    finding.why = derivation.lines().to_vec();
    let first_step = if enough <= 1.0 {
        format!("begin with a step of at least {:.0}%, or ", (enough * 100.0).ceil())
    } else {
        String::new()
    };
    found.push(finding.help(format!("{first_step}give each step {:.0} s, or send it synthetic load", seconds.ceil())));
    Verdict::Refuted
}

/// Whether a gateway or a mesh splits the service's traffic by weight.
fn is_weighted(architecture: &Architecture, service: &Service) -> bool {
    let platform = &architecture.document.platform;
    let serves = !service.all_ports().is_empty();
    serves
        && !is_worker(service)
        && (platform.mesh.is_some() || (service.expose.is_some() && platform.ingress.api.value == IngressApi::Gateway))
}

/// The share that copies can have; says so when the first step is smaller.
fn by_copies(
    context: &Context<'_>,
    (name, service): (&Spanned<Name>, &Service),
    canary: &Canary,
    smallest: &Spanned<Percent>,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) -> f64 {
    let floor = service.replicas.floor().max(1);
    let with_baseline = canary.baseline.value == Baseline::Fresh;
    let of = |own: u32| floor + Canary::added(own, with_baseline);
    let share = |own: u32| f64::from(own) / f64::from(of(own));
    let own = Canary::copies_for(smallest.millionths(), floor, with_baseline);
    let real = share(own);
    let line = format!("without weights the share is that of the copies: {own} of {} = {}", of(own), Share(real));
    derivation.line(line.clone());
    // A share that is at most half as large again as declared still means what was written.
    if real > smallest.value.fraction() * 1.5 {
        let of = if is_worker(service) { "messages" } else { "traffic" };
        let message =
            format!("a canary of `{name}` cannot have {smallest} of the {of}: its smallest share is {}", Share(real));
        let at = written([smallest.span, name.span]);
        let achievable: Vec<String> = (1..=floor.min(4)).map(|own| format!("{:.0}%", share(own) * 100.0)).collect();
        let finding = Finding::new(NAME, Stake::Risk.severity(context), at, message).because(line);
        let finding =
            finding.because(format!("with {} the shares are {}", count(floor, "copy"), achievable.join(", ")));
        let beside = if with_baseline { 2 } else { 1 };
        let needed = 1_000_000_u32.div_ceil(smallest.millionths().max(1)).saturating_sub(beside);
        // No mesh leads messages anywhere.
        let mesh = if is_worker(service) { "" } else { "declare a mesh, " };
        found.push(finding.help(format!("{mesh}begin with {}, or run {needed} copies", achievable[0])));
    }
    real
}
