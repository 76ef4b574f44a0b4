//! `time-window`: bounds on copies at certain times that contradict each other, the clock, or the nodes.

mod calendar;

use std::collections::BTreeSet;

use landfall_model::{Element, Finding, Name, Service, Severity, Span, Spanned, Window};

use super::derivation::{Derivation, Section, Stake, count, len, written};
use super::placement::{Packing, Placement};
use super::zone_loss;
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};
use calendar::{Change, ClockChanges};

const NAME: &str = "time-window";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Rollout,
    severity: Severity::Error,
    summary: "Time windows agree with each other, with the autoscaler, with the clock and with the nodes.",
    explanation: "\
A window bounds the number of copies between two times of the day. Two windows that overlap must leave a number that \
both allow; the rule lays all windows of a service over two weeks, half a year apart, because time zones change their \
clocks on different days. A window's bounds must lie within those of the autoscaler. When clocks go forward, an hour does \
not exist, and when they go back, one comes twice: the rule names each day of the next two years on which a window begins \
or ends there (IANA time zone database). On such a day a time that is skipped moves forward by the jump, and of one that \
comes twice the first counts. The copies that a \
window asks for must fit on the nodes, with everything else at its fewest copies.",
    passing: include_str!("../../tests/it/rules/time-window/ok.yaml"),
    failing: include_str!("../../tests/it/rules/time-window/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let services = || context.architecture.document.services.iter().filter(|(_, service)| !service.windows.is_empty());
    if services().next().is_none() {
        return;
    }
    let mut clocks = ClockChanges::new(context.today.civil());
    let placement = context.placement.as_ref();
    let mut packed = placement.map(|placement| (placement, placement.at_floors()));
    // Nothing is to be learnt about more copies while `capacity` refuses the fewest.
    packed = packed.filter(|(_, (_, unplaced))| unplaced.is_empty());
    for (name, service) in services() {
        let mut derivation = Derivation::default();
        let mut found = Vec::new();
        for window in &service.windows {
            bounds(name, service, window, &mut found);
            clock(context, name, window, clocks.of(&window.time_zone), &mut found);
        }
        overlaps(context, name, &service.windows, &mut found);
        if let Some((placement, (packing, _))) = &mut packed {
            room(context, (name, service), placement, packing, &mut derivation, &mut found);
        }
        derivation.uses(&format!("services.{name}.startup"), &service.startup, Section::Given);
        derivation.line(format!(
            "{}; copies begin to start {} before a window, so that they are ready",
            count(len(&service.windows), "window"),
            service.startup
        ));
        for window in &service.windows {
            let section = Section::from(window.assumed);
            let path = format!("services.{name}.windows.{}", window.name);
            window.min.iter().for_each(|min| derivation.uses(&format!("{path}.min"), min, section));
            window.max.iter().for_each(|max| derivation.uses(&format!("{path}.max"), max, section));
        }
        let refuted = found.iter().any(|finding: &Finding| finding.severity == Severity::Error);
        let verdict = if refuted { Verdict::Refuted } else { Verdict::Proved };
        let subject = format!("service.{name}");
        report.findings.extend(found.into_iter().map(|finding| finding.on(&subject)));
        let statement = format!("the time windows of `{name}` can all be kept");
        let span = service.windows[0].name.span;
        report.proofs.push(derivation.proof(NAME, subject, statement, verdict, span));
    }
}

/// The bounds of one window, and those of the autoscaler.
fn bounds(name: &Spanned<Name>, service: &Service, window: &Window, found: &mut Vec<Finding>) {
    let title = &window.name;
    if window.min.is_none() && window.max.is_none() {
        let finding = Finding::warning(NAME, title.span, format!("window `{title}` of `{name}` bounds nothing"));
        found.push(finding.help("give it `min`, `max` or both"));
    }
    if let (Some(min), Some(max)) = (window.min, window.max)
        && min.value > max.value
    {
        let message = format!("window `{title}` of `{name}` wants at least {min} and at most {max} copies");
        found.push(
            Finding::error(NAME, min.span, message).also(max.span, "less than the minimum").help("exchange them"),
        );
    }
    if let (Some(min), Some(most)) = (window.min, service.replicas.max)
        && min.value > most.value
    {
        let message = format!("window `{title}` of `{name}` wants {min} copies, but its autoscaler may have {most}");
        found.push(
            Finding::error(NAME, min.span, message)
                .also(most.span, "the most")
                .help(format!("raise `replicas.max` to {min}")),
        );
    }
    if let (Some(max), Some(fewest)) = (window.max, service.replicas.min)
        && max.value < fewest.value
    {
        let message = format!("window `{title}` of `{name}` allows {max} copies, but its autoscaler keeps {fewest}");
        found.push(
            Finding::error(NAME, max.span, message)
                .also(fewest.span, "the fewest")
                .help(format!("lower `replicas.min` to {max}")),
        );
    }
    if window.from.value == window.to.value {
        let message = format!("window `{title}` of `{name}` begins when it ends: it lasts a whole day");
        let finding = Finding::warning(NAME, window.to.span, message).also(window.from.span, "the beginning");
        found.push(finding.help("write `00:00` to `24:00` for a whole day, or another end"));
    }
}

/// Windows that begin or end at a time that a clock skips or repeats.
fn clock(context: &Context<'_>, name: &Spanned<Name>, window: &Window, changes: &[Change], found: &mut Vec<Finding>) {
    for (verb, time, ends) in [("begins", &window.from, false), ("ends", &window.to, true)] {
        for kind in [calendar::Kind::Skipped, calendar::Kind::Repeated] {
            let hits: Vec<String> = changes
                .iter()
                .filter(|change| change.kind == kind)
                .filter_map(|change| Some(change.day_of(window, time.value, ends)?.to_string()))
                .collect();
            let Some(first) = hits.first() else { continue };
            let what = match kind {
                calendar::Kind::Skipped => "does not exist",
                calendar::Kind::Repeated => "comes twice",
            };
            let message = format!("window `{}` of `{name}` {verb} at {time}, which {what} on {first}", window.name);
            let at = written([time.span, window.name.span]);
            let finding = Finding::new(NAME, Stake::Risk.severity(context), at, message)
                .also(window.time_zone.span, "this zone changes its clocks")
                .because(format!("in the next two years: {}", hits.join(", ")));
            found.push(finding.help(match kind {
                calendar::Kind::Skipped => "on such a day it moves forward by the jump; choose another hour to be sure",
                calendar::Kind::Repeated => "on such a day the first of the two counts; choose another hour to be sure",
            }));
        }
    }
}

/// Two windows that want different things at the same minute.
fn overlaps(context: &Context<'_>, name: &Spanned<Name>, windows: &[Window], found: &mut Vec<Finding>) {
    let mut said = BTreeSet::new();
    for weeks in [0, 26] {
        let mut events: BTreeSet<(i64, bool, usize, usize)> = BTreeSet::new();
        for (index, window) in windows.iter().enumerate() {
            for (nth, (begin, end)) in calendar::week_of(window, context.today.civil(), weeks).into_iter().enumerate() {
                // At one moment, ends sort before beginnings: a window may begin when another ends.
                events.insert((end, false, index, nth));
                events.insert((begin, true, index, nth));
            }
        }
        let mut fewest: BTreeSet<(u32, usize, usize)> = BTreeSet::new();
        let mut most: BTreeSet<(u32, usize, usize)> = BTreeSet::new();
        for (_, begins, index, nth) in events {
            let window = &windows[index];
            let (min, max) = (window.min.map(|min| min.value), window.max.map(|max| max.value));
            if !begins {
                min.map(|min| fewest.remove(&(min, index, nth)));
                max.map(|max| most.remove(&(max, index, nth)));
                continue;
            }
            let too_few = most
                .first()
                .filter(|(most, ..)| min.is_some_and(|min| min > *most))
                .map(|(_, other, _)| (index, *other));
            let too_many = fewest
                .last()
                .filter(|(fewest, ..)| max.is_some_and(|max| max < *fewest))
                .map(|(_, other, _)| (*other, index));
            for (wants, allows) in [too_few, too_many].into_iter().flatten() {
                if wants != allows && said.insert((wants, allows)) {
                    contradiction(name, &windows[wants], &windows[allows], found);
                }
            }
            min.map(|min| fewest.insert((min, index, nth)));
            max.map(|max| most.insert((max, index, nth)));
        }
    }
}

fn contradiction(name: &Spanned<Name>, wants: &Window, allows: &Window, found: &mut Vec<Finding>) {
    let (Some(min), Some(max)) = (wants.min, allows.max) else { return };
    let message =
        format!("windows `{}` and `{}` of `{name}` overlap and contradict each other", wants.name, allows.name);
    let times = |window: &Window| format!("{} to {} {}", window.from, window.to, window.time_zone);
    let finding = Finding::error(NAME, min.span, message)
        .label(format!("at least {min}, {}", times(wants)))
        .also(max.span, format!("at most {max}, {}", times(allows)));
    found.push(
        finding.help(format!("let `{}` end before `{}` begins, or give bounds that meet", allows.name, wants.name)),
    );
}

/// Whether the copies of each window fit.
fn room(
    context: &Context<'_>,
    (name, service): (&Spanned<Name>, &Service),
    placement: &Placement<'_>,
    packing: &mut Packing<'_>,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) {
    let Some(group) = placement.pods.position(&Element::Service(name.value.clone())) else { return };
    let floor = service.replicas.floor();
    for window in &service.windows {
        let Some(min) = window.min.filter(|min| min.value > floor) else { continue };
        let before = packing.copies(group);
        let unplaced = packing.add(group, min.value - floor);
        packing.take_back(group, before);
        match unplaced {
            None => derivation
                .line(format!("window `{}`: {min} copies fit, with everything else at its fewest", window.name)),
            Some(unplaced) => {
                let message = format!(
                    "window `{}` of `{name}` wants {min} copies, but {} fit",
                    window.name,
                    min.value - unplaced.copies
                );
                let severity = Stake::Promised.severity(context);
                let nodes = placement.nodes.pools.first().map_or(Span::NONE, |pool| pool.declared.count.span);
                let finding = Finding::new(NAME, severity, min.span, message).also(nodes, "the nodes");
                found.push(
                    finding.because(zone_loss::describe(placement, &unplaced)).help("add nodes, or ask for less"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
