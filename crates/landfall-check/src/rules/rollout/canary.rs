//! Canaries: shares that grow, shares that copies can have, and traffic enough to decide.

use std::collections::BTreeMap;

use landfall_model::{
    Architecture, Canary, Element, Evidence, Finding, IngressApi, Name, Percent, Service, Span, Spanned,
};

use super::NAME;
use crate::report::Verdict;
use crate::rule::Context;
use crate::rules::derivation::{Derivation, Section, Share, Stake, count, float, written};

/// How many requests reach each service in a second, as flows and edges declare.
pub(super) struct Traffic(BTreeMap<Name, (f64, Vec<String>)>);

impl Traffic {
    pub(super) fn of(architecture: &Architecture) -> Self {
        let mut traffic: BTreeMap<Name, (f64, Vec<String>)> = BTreeMap::new();
        for (name, flow) in &architecture.document.flows {
            let Some(rate) = flow.rate else { continue };
            for step in &flow.steps {
                if architecture.service(step.to.as_str()).is_some() {
                    let known = traffic.entry(step.to.clone()).or_default();
                    known.0 += rate.per_second();
                    known.1.push(format!("flow `{name}` {rate}"));
                }
            }
        }
        for connection in &architecture.connections {
            if let (Element::Service(to), Some(rate)) = (&connection.to, connection.edge.rate) {
                let known = traffic.entry(to.clone()).or_default();
                known.0 += rate.per_second();
                known.1.push(format!("{} {rate}", connection.from));
            }
        }
        Self(traffic)
    }
}

/// How many copies the canary adds at its largest share below the whole.
pub(super) fn copies(canary: &Canary, floor: u32) -> u32 {
    let largest =
        canary.steps.iter().map(|step| step.millionths()).filter(|share| *share < 1_000_000).max().unwrap_or(0);
    let copies = (u64::from(floor) * u64::from(largest)).div_ceil(1_000_000);
    u32::try_from(copies).unwrap_or(u32::MAX).max(u32::from(largest > 0))
}

/// Whether the shares grow, and something is judged. Said once for each declaration.
pub(super) fn shares(
    context: &Context<'_>,
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
    if canary.judge.success.is_none() && canary.judge.p99.is_none() {
        let finding = Finding::new(NAME, Stake::Risk.severity(context), span, "the canary is judged by nothing");
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
        by_copies(context, (name, service), smallest, derivation, found)
    };
    // As the canary is judged when it is shipped.
    let by_success =
        canary.judge.success.and_then(|success| Some((success, Evidence::of_success(success.value, 1)?.least())));
    let by_latency = canary.judge.p99.and(Evidence::of_limit(Evidence::SLOWER_THAN_P99, 1)).map(Evidence::least);
    if let Some((success, needed)) = by_success {
        derivation.line(format!("a success of {success} is believed after {} in a row", count(needed, "good request")));
    }
    if let Some(needed) = by_latency {
        derivation.line(format!("a p99 is believed after {}", count(needed, "request")));
    }
    let Some(needed) = by_success.map(|(_, needed)| needed).max(by_latency) else {
        derivation.line("nothing is judged by counts");
        return Verdict::Undecided;
    };
    let Some((rate, sources)) = traffic.0.get(name.as_str()).filter(|(rate, _)| *rate > 0.0) else {
        derivation.line(format!("no flow or edge declares how many requests reach `{name}`"));
        return Verdict::Undecided;
    };
    let seconds = float(needed) / (rate * share);
    let own = if service.rollout.is_some() { format!("services.{name}") } else { "delivery".to_owned() };
    derivation.uses(&format!("{own}.rollout.canary.decide-within"), &canary.decide_within, Section::Given);
    derivation.line(format!("{rate:.2}/s reach `{name}`: {}", sources.join(", ")));
    let line = format!(
        "{needed} requests ÷ ({rate:.2}/s × {}) = {:.0} s for the first step; {} s are allowed",
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
        && (platform.mesh.is_some() || (service.expose.is_some() && platform.ingress.api.value == IngressApi::Gateway))
}

/// The share that copies can have; says so when the first step is smaller.
fn by_copies(
    context: &Context<'_>,
    (name, service): (&Spanned<Name>, &Service),
    smallest: &Spanned<Percent>,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) -> f64 {
    let floor = u64::from(service.replicas.floor().max(1));
    let wanted = u64::from(smallest.millionths());
    // k canaries beside n stable copies take k of n + k.
    let canaries = ((floor * wanted).div_ceil(1_000_000 - wanted.min(999_999))).max(1);
    let real = float(canaries) / float(floor + canaries);
    let line = format!(
        "without weights the share is that of the copies: {canaries} of {} = {}",
        floor + canaries,
        Share(real)
    );
    derivation.line(line.clone());
    // A share that is at most half as large again as declared still means what was written.
    if real > smallest.value.fraction() * 1.5 {
        let message = format!(
            "a canary of `{name}` cannot have {smallest} of the traffic: its smallest share is {}",
            Share(real)
        );
        let at = written([smallest.span, name.span]);
        let achievable: Vec<String> =
            (1..=floor.min(4)).map(|k| format!("{:.0}%", float(k) * 100.0 / float(floor + k))).collect();
        let finding = Finding::new(NAME, Stake::Risk.severity(context), at, message).because(line);
        let finding =
            finding.because(format!("with {} the shares are {}", count(floor, "copy"), achievable.join(", ")));
        let needed = (1_000_000u64).div_ceil(wanted.max(1)) - 1;
        found.push(finding.help(format!("declare a mesh, begin with {}, or run {needed} copies", achievable[0])));
    }
    real
}
