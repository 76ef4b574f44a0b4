//! `availability`: what users of each exposed service can count on, through everything that it needs.

mod graph;
mod parts;

use landfall_model::{Finding, Percent, Severity, Spanned};

use super::derivation::{Derivation, Share, Stake, count, list, written};
use crate::facts;
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};
use graph::Graph;
use parts::{Assessor, Part};

const NAME: &str = "availability";

/// How many of the costliest parts a derivation shows.
const SHOWN: usize = 8;

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Recovery,
    severity: Severity::Error,
    summary: "Every exposed service can reach its availability through everything that it needs.",
    explanation: "\
A request succeeds if the service works and everything that it needs while it answers: required edges in series, so that \
their availabilities multiply. Edges that are `optional`, polls and consumed topics do not count: the answer does not wait \
for them. Copies stand in parallel: all must be away at once, and besides that the copies on a dead node swallow their \
share of the requests until it counts as silent. A store is away while another member takes over. What stands in one zone \
shares its fate, and all share the region's: each is counted once. Providers' and externals' numbers are as declared \
(`availability`), else those of common agreements (https://aws.amazon.com/compute/sla/, https://aws.amazon.com/rds/sla/).

How often nodes and zones fail is assumed: a node once a year and drained twelve times, a zone for one hour a year. \
Software that is wrong is not counted: the result is what the deployment allows at best. An external that declares no \
availability is left out, and then nothing is proved.",
    passing: include_str!("../../tests/it/rules/availability/ok.yaml"),
    failing: include_str!("../../tests/it/rules/availability/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let platform = architecture.document.objectives.availability;
    let own = |name: &str| {
        let service = architecture.service(name)?;
        service.objective.as_ref()?.availability
    };
    let graph = Graph::of(architecture);
    let roots: Vec<(usize, Spanned<Percent>)> = graph
        .roots(architecture)
        .into_iter()
        .filter_map(|root| Some((root, own(graph.elements[root].name()).or(platform)?)))
        .collect();
    if roots.is_empty() {
        return;
    }
    let assessor = Assessor::new(context);
    let parts: Vec<Part> = graph.elements.iter().map(|element| assessor.assess(element)).collect();
    let mut visited = graph.visited();
    for (root, objective) in roots {
        judge(context, &graph, &parts, &assessor, (root, objective), &mut visited, report);
    }
}

fn judge(
    context: &Context<'_>,
    graph: &Graph,
    parts: &[Part],
    assessor: &Assessor<'_>,
    (root, objective): (usize, Spanned<Percent>),
    visited: &mut graph::Visited,
    report: &mut Report,
) {
    let needed = graph.needed(root, visited);
    let mut composite = 1.0;
    let mut in_one_zone = 0;
    let mut unknown = Vec::new();
    let mut derivation = Derivation::default();
    for index in &needed {
        let part = &parts[*index];
        composite *= 1.0 - part.away;
        in_one_zone += usize::from(part.in_one_zone);
        if part.is_unknown {
            unknown.push(&graph.elements[*index]);
        }
    }
    let zone = assessor.zone_fate(in_one_zone);
    let region = 1.0 - f64::from(facts::REGION_AVAILABILITY_MILLIONTHS) / 1e6;
    composite *= (1.0 - zone) * (1.0 - region);
    let costliest = costliest(&needed, parts);
    for index in &costliest {
        let part = &parts[*index];
        derivation.line(format!("{}: {} away: {}", graph.elements[*index], Share(part.away), part.why));
        derivation.append(part.assumed.clone());
    }
    if needed.len() > costliest.len() {
        derivation.line(format!("and {} that cost less", count((needed.len() - costliest.len()) as u64, "part")));
    }
    if zone > 0.0 {
        derivation.line(format!(
            "shared fate: {} in one zone each: {} away",
            count(in_one_zone as u64, "part"),
            Share(zone)
        ));
        derivation.assumes(format!("a zone is lost for {} a year (assumed)", facts::ZONE_OUTAGE_PER_YEAR));
    }
    derivation.line(format!("shared fate: the region: {} away", Share(region)));
    derivation.assumes(format!("the region is available {} (common agreement)", Share(1.0 - region)));
    super::single_replica::assume_rates(&mut derivation);
    let holds = composite >= objective.fraction();
    let sign = if holds { "≥" } else { "<" };
    derivation.line(format!("in series: {} {sign} {objective}", Share(composite)));
    if !unknown.is_empty() {
        derivation.line(format!("left out, because they declare no availability: {}", list(&unknown)));
    }
    let name = graph.elements[root].name();
    let subject = graph.elements[root].to_string();
    if !holds {
        let most = costliest.first().copied().unwrap_or(root);
        let shared = zone > parts[most].away;
        let culprit = if shared { "sharing one zone".to_owned() } else { graph.elements[most].to_string() };
        let message =
            format!("`{name}` reaches {} at best, but {objective} is promised; {culprit} costs most", Share(composite));
        let span = written([parts[most].span, context.architecture.span_of(&graph.elements[root])]);
        let mut finding = Finding::new(NAME, Stake::Promised.severity(context), span, message).on(&subject);
        finding = finding.also(objective.span, "the promise");
        finding.why = derivation.lines().to_vec();
        report.findings.push(finding.help(if shared { "spread it over zones" } else { parts[most].help }));
    }
    let verdict = match (holds, unknown.is_empty()) {
        (false, _) => Verdict::Refuted,
        (true, true) => Verdict::Proved,
        (true, false) => Verdict::Undecided,
    };
    let statement = format!("`{name}` is available {objective} of the time");
    report.proofs.push(derivation.proof(NAME, subject, statement, verdict, objective.span));
}

/// The parts that cost most, the worst first, without sorting all of them.
fn costliest(needed: &[usize], parts: &[Part]) -> Vec<usize> {
    let mut most: Vec<usize> = Vec::with_capacity(SHOWN + 1);
    for index in needed {
        let at = most.partition_point(|known| parts[*known].away >= parts[*index].away);
        if at < SHOWN {
            most.insert(at, *index);
            most.truncate(SHOWN);
        }
    }
    most
}

#[cfg(test)]
mod tests;
