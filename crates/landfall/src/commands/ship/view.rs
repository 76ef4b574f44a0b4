//! A release as a picture that changes while one looks: services with their stages, weights, verdict and time left. Pure.

use jiff::Timestamp;
use kube::ResourceExt as _;
use landfall_deliver::{Phase, Release, Return, ServiceRelease, Stage, Strategy, Verdict, phase_of, time_left};

const BOLD: &str = "\u{1b}[1m";
const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const DIM: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";

/// The lines; none for a release that goes nowhere any more. Each has at most so many characters.
pub(super) fn picture(release: &Release, now: Timestamp, columns: usize, colored: bool) -> Vec<String> {
    let phase = phase_of(release);
    let carried = release.carried();
    let services = &carried.services;
    let (at, doing) = match &phase {
        Phase::Progressing { service, stage } => (*service, forward(*stage)),
        Phase::RollingBack { service, stage, .. } => (*service, back(*stage)),
        Phase::Pending | Phase::Held { .. } => (0, ""),
        Phase::Succeeded | Phase::RolledBack { .. } | Phase::Failed { .. } => return Vec::new(),
    };
    let wide = services.iter().map(|service| service.name.chars().count()).max().unwrap_or(0);
    let paint = |style: &str, text: String| {
        let text = fit(&text, columns);
        if colored { format!("{style}{text}{PLAIN}") } else { text }
    };
    let left = time_left(release, now).map(|left| format!(", {} left", clock(left.as_secs()))).unwrap_or_default();
    let mut lines = vec![paint(BOLD, format!("{} {}", release.name_any(), phase.name()))];
    for (place, service) in services.iter().enumerate() {
        let (word, style) = word(&phase, place, at);
        let row = format!("  {word:<5} {:<wide$}  {}", service.name, how(service, &phase, place));
        let is_now = place == at && !doing.is_empty();
        lines.push(paint(style, if is_now { format!("{row}  {doing}{left}") } else { row }));
    }
    let judged = matches!(phase, Phase::Progressing { stage: Stage::Judging { .. } | Stage::Verifying, .. });
    let analysis = release.status.as_ref().and_then(|status| status.analysis.as_ref()).filter(|_| judged);
    if let Some(analysis) = analysis {
        let style = match analysis.verdict {
            Verdict::Pass => GREEN,
            Verdict::Fail => RED,
            Verdict::Inconclusive | Verdict::NoData => DIM,
        };
        lines.push(paint(style, format!("  {} after {} requests", analysis.verdict.as_str(), analysis.requests)));
        lines.extend(analysis.lines.iter().map(|line| paint(DIM, format!("    {line}"))));
    } else if let Some(message) = release.status.as_ref().map(|status| &status.message).filter(|text| !text.is_empty())
    {
        lines.push(paint(DIM, format!("  {message}")));
    }
    lines
}

/// Where a service is; the word says it without the colour.
fn word(phase: &Phase, place: usize, at: usize) -> (&'static str, &'static str) {
    match phase {
        Phase::Progressing { stage: Stage::Verifying, .. } => ("new", GREEN),
        Phase::Progressing { .. } if place < at => ("new", GREEN),
        Phase::RollingBack { .. } if place > at => ("old", PLAIN),
        Phase::RollingBack { .. } if place < at => ("new", GREEN),
        Phase::Progressing { .. } | Phase::RollingBack { .. } if place == at => ("now", BOLD),
        _ => ("then", DIM),
    }
}

fn forward(stage: Stage) -> &'static str {
    match stage {
        Stage::Updating | Stage::Promoting => "copies are replaced",
        Stage::Starting => "the canary starts",
        Stage::Judging { .. } => "judged",
        Stage::Draining => "the canary is drained",
        Stage::Verifying => "all are watched",
    }
}

fn back(stage: Return) -> &'static str {
    match stage {
        Return::Draining => "the canary is drained",
        Return::Restoring => "old copies come back",
    }
}

/// `canary 10% [25%] 50%`: the step that is judged stands in brackets.
fn how(service: &ServiceRelease, phase: &Phase, place: usize) -> String {
    let Strategy::Canary(canary) = &service.strategy else { return service.strategy.as_str().to_owned() };
    let judged = match phase {
        Phase::Progressing { service, stage: Stage::Judging { step } } if *service == place => Some(*step),
        _ => None,
    };
    let steps = canary.steps.iter().enumerate().map(|(step, share)| {
        let share = format!("{}%", (f64::from(*share) / 1_000.0).round() / 10.0);
        if judged == Some(step) { format!("[{share}]") } else { share }
    });
    format!("canary {}", steps.collect::<Vec<_>>().join(" "))
}

fn clock(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The text, cut where the terminal ends: a line that goes on in the next could not be taken back.
fn fit(text: &str, columns: usize) -> String {
    if text.chars().count() < columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(2)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release(phase: serde_json::Value, analysis: serde_json::Value) -> Release {
        let canary = json!({ "canary": {
            "steps": [100_000, 250_000], "judge": { "failures": 0.01, "verdicts": 1 },
            "decideWithinSeconds": 900, "copies": 1,
        } });
        let service = |name: &str, strategy: serde_json::Value| {
            json!({
                "name": name, "namespace": "shop", "oldImage": "1", "newImage": "2", "strategy": strategy,
                "readyWithinSeconds": 30, "oldTemplate": {}, "newTemplate": {},
            })
        };
        let release = json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "Release", "metadata": { "name": "shop-7", "namespace": "shop" },
            "spec": {
                "architecture": "shop", "number": 7, "digest": "", "automatic": true,
                "services": [service("stock", json!("rolling")), service("web", canary), service("mail", json!("rolling"))],
            },
            "status": { "phase": phase, "since": "2026-11-28T12:00:00Z", "message": "`stock`: 1 of 2", "analysis": analysis },
        });
        serde_json::from_value(release).expect("it is a release")
    }

    fn text(release: &Release, columns: usize) -> String {
        let now = "2026-11-28T12:02:20Z".parse().expect("a time");
        picture(release, now, columns, false).join("\n")
    }

    #[test]
    fn a_canary_shows_its_step_its_verdict_and_the_time_that_is_left() {
        let judging = json!({ "progressing": { "service": 1, "stage": { "judging": { "step": 1 } } } });
        let analysis =
            json!({ "verdict": "inconclusive", "requests": 310, "lines": ["failed: 2 of 310 (0.65%, at most 1%)"] });
        insta::assert_snapshot!(text(&release(judging.clone(), analysis.clone()), 80), @"
        shop-7 Progressing
          new   stock  rolling
          now   web    canary 10% [25%]  judged, 12:40 left
          then  mail   rolling
          inconclusive after 310 requests
            failed: 2 of 310 (0.65%, at most 1%)
        ");
        insta::assert_snapshot!(text(&release(judging, analysis), 24), @"
        shop-7 Progressing
          new   stock  rolling
          now   web    canary …
          then  mail   rolling
          inconclusive after 3…
            failed: 2 of 310 (…
        ");
    }

    #[test]
    fn the_way_back_shows_who_is_old_again() {
        let cause = json!({ "reason": "worse", "why": "5 %" });
        let back = json!({ "rollingBack": { "service": 1, "stage": "restoring", "cause": cause } });
        insta::assert_snapshot!(text(&release(back, json!(null)), 80), @"
        shop-7 RollingBack
          new   stock  rolling
          now   web    canary 10% 25%  old copies come back, 0:00 left
          old   mail   rolling
          `stock`: 1 of 2
        ");
        assert_eq!(text(&release(json!("succeeded"), json!(null)), 80), "");
    }
}
