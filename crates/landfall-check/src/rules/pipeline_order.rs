//! The pipeline: each step comes after what it needs.

use landfall_model::{
    Architecture, DeployPolicy, Environment, FailureAction, Finding, Name, Pipeline, Severity, Span, Spanned, Stage,
    Step,
};

use super::wording::{count, names, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "pipeline-order",
    subject: Subject::Delivery,
    severity: Severity::Error,
    summary: "Each step of the pipeline comes after what it needs, and no gate is missing.",
    explanation: "The rule walks the steps of all stages in their order. A dynamic scan, smoke, end-to-end or performance test \
        and a verdict need something that runs, so they come after a deployment. What is deployed was built and pushed \
        before. Some test comes before the first deployment. Where an environment says `deploy: approval`, an approval stands \
        before its deployment; where it says `deploy: manual`, the pipeline does not deploy. An image scan needs an image. \
        With `rollback.automatic`, production is verified after its deployment, because nothing else decides that a release \
        is bad: Kubernetes itself never rolls back (https://github.com/kubernetes/kubernetes/issues/23211). A stage that can \
        fail tells somebody, once any stage promises to. Environments are deployed in the order of `after`.",
    passing: include_str!("../../tests/it/rules/pipeline-order/ok.yaml"),
    failing: include_str!("../../tests/it/rules/pipeline-order/bad.yaml"),
    run: Some(run),
};

/// A step with its place in the walk.
struct Walked<'a> {
    stage: &'a Stage,
    step: &'a Spanned<Step>,
}

fn run(context: &Context<'_>, report: &mut Report) {
    let Some(pipeline) = &context.architecture.document.delivery.pipeline else { return };
    let walk: Vec<Walked<'_>> =
        pipeline.stages.iter().flat_map(|stage| stage.steps.iter().map(move |step| Walked { stage, step })).collect();
    let mut findings = Vec::new();
    running_targets(&walk, &mut findings);
    building(&walk, &mut findings);
    testing(&walk, &mut findings);
    approvals(context.architecture, &walk, &mut findings);
    promotion(context.architecture, &walk, &mut findings);
    verification(context.architecture, &walk, &mut findings);
    notification(pipeline, &mut findings);
    let against = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let order: Vec<String> = pipeline
        .stages
        .iter()
        .map(|stage| {
            let steps: Vec<&str> = stage.steps.iter().map(|step| word(step.value)).collect();
            let place = stage.environment.as_ref().map_or(String::new(), |environment| format!(" ({environment})"));
            format!("{}{place}: {}", stage.name, steps.join(", "))
        })
        .collect();
    let statement = format!("the {} come in an order that works", count(walk.len(), "step"));
    let span = pipeline.stages.first().map_or(Span::NONE, |stage| stage.name.span);
    report.proofs.push(proof(RULE.name, "delivery.pipeline", statement, verdict(against), span, order));
    report.findings.extend(findings);
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Lint => "lint",
        Step::TypeCheck => "type-check",
        Step::Compile => "compile",
        Step::UnitTest => "unit-test",
        Step::IntegrationTest => "integration-test",
        Step::ContractTest => "contract-test",
        Step::Build => "build",
        Step::Sast => "sast",
        Step::ImageScan => "image-scan",
        Step::Push => "push",
        Step::Deploy => "deploy",
        Step::Smoke => "smoke",
        Step::Dast => "dast",
        Step::EndToEndTest => "end-to-end-test",
        Step::PerformanceTest => "performance-test",
        Step::Approval => "approval",
        Step::Verify => "verify",
        Step::Notify => "notify",
    }
}

fn subject(stage: &Stage) -> String {
    format!("stage.{}", stage.name)
}

fn first(walk: &[Walked<'_>], wanted: Step) -> Option<usize> {
    walk.iter().position(|walked| walked.step.value == wanted)
}

/// Tests and scans of something that runs come after its deployment.
fn running_targets(walk: &[Walked<'_>], findings: &mut Vec<Finding>) {
    for (index, walked) in walk.iter().enumerate().filter(|(_, walked)| walked.step.needs_deployment()) {
        let target = walked.stage.environment.as_ref();
        let deployed = |earlier: &&Walked<'_>| {
            let to = earlier.stage.environment.as_ref();
            earlier.step.value == Step::Deploy && (target.is_none() || to.is_none() || to == target)
        };
        if walk[..index].iter().any(|earlier| deployed(&earlier)) {
            continue;
        }
        let step = word(walked.step.value);
        let place = target.map_or_else(String::new, |target| format!(" to `{target}`"));
        let mut finding = Finding::error(
            RULE.name,
            walked.step.span,
            format!("`{step}` needs something that runs, but stands before any deployment{place}"),
        )
        .label("nothing runs yet")
        .on(subject(walked.stage));
        if let Some(deploy) = walk[index..].iter().find(deployed) {
            finding = finding
                .also(deploy.step.span, "the first deployment")
                .help(format!("move `{step}` behind it, to the stage `{}` or a later one", deploy.stage.name));
        } else {
            finding = finding.help(format!("add a `deploy` before `{step}`"));
        }
        findings.push(finding);
    }
}

/// What is deployed was pushed, what is pushed was built, what is scanned exists.
fn building(walk: &[Walked<'_>], findings: &mut Vec<Finding>) {
    for (later, earlier, why) in [
        (Step::Deploy, Step::Push, "a cluster pulls what was pushed"),
        (Step::Push, Step::Build, "there is no image to push yet"),
        (Step::ImageScan, Step::Build, "there is no image to scan yet"),
    ] {
        let (Some(at), needed) = (first(walk, later), first(walk, earlier)) else { continue };
        let missing = needed.is_none();
        // A pipeline may deploy images that another one builds.
        if needed.is_some_and(|needed| needed < at)
            || (missing && later == Step::Deploy && first(walk, Step::Build).is_none())
        {
            continue;
        }
        let walked = &walk[at];
        let (later, earlier) = (word(later), word(earlier));
        let message = if missing {
            format!("`{later}` without `{earlier}`")
        } else {
            format!("`{later}` stands before `{earlier}`")
        };
        let finding = Finding::error(RULE.name, walked.step.span, message).label(why).on(subject(walked.stage));
        let finding = match needed {
            Some(needed) => finding.also(walk[needed].step.span, format!("`{earlier}` comes here")),
            None => finding,
        };
        findings.push(finding.help(format!("put `{earlier}` before `{later}`")));
    }
}

fn testing(walk: &[Walked<'_>], findings: &mut Vec<Finding>) {
    let Some(deploy) = first(walk, Step::Deploy) else { return };
    let tests = [Step::UnitTest, Step::IntegrationTest, Step::ContractTest];
    if walk[..deploy].iter().any(|walked| tests.contains(&walked.step.value)) {
        return;
    }
    let walked = &walk[deploy];
    let finding = Finding::warning(RULE.name, walked.step.span, "no test comes before the first deployment")
        .on(subject(walked.stage));
    findings.push(finding.help("add `unit-test`, `integration-test` or `contract-test` to an earlier stage"));
}

fn environment<'a>(architecture: &'a Architecture, stage: &Stage) -> Option<(&'a Spanned<Name>, &'a Environment)> {
    architecture.document.environments.get_key_value(stage.environment.as_ref()?.as_str())
}

fn approvals(architecture: &Architecture, walk: &[Walked<'_>], findings: &mut Vec<Finding>) {
    for (index, walked) in walk.iter().enumerate().filter(|(_, walked)| walked.step.value == Step::Deploy) {
        let Some((name, environment)) = environment(architecture, walked.stage) else {
            let finding = Finding::warning(
                RULE.name,
                walked.step.span,
                format!("the stage `{}` does not say where it deploys to", walked.stage.name),
            );
            findings.push(finding.on(subject(walked.stage)).help("add `environment:` to the stage"));
            continue;
        };
        // An approval counts for the next deployment only.
        let since =
            walk[..index].iter().rposition(|earlier| earlier.step.value == Step::Deploy).map_or(0, |last| last + 1);
        let approval = walk[since..index].iter().any(|earlier| earlier.step.value == Step::Approval);
        match environment.deploy.value {
            DeployPolicy::Approval if !approval => {
                let message = format!("`{}` deploys to `{name}` without an approval", walked.stage.name);
                let finding = Finding::error(RULE.name, walked.step.span, message)
                    .also(environment.deploy.span, "an approval is promised")
                    .on(subject(walked.stage));
                findings.push(finding.help("put `approval` before this `deploy`"));
            }
            DeployPolicy::Manual if environment.deploy.span.is_written() && !approval => {
                let message = format!("`{}` deploys to `{name}`, which is deployed by hand", walked.stage.name);
                let finding = Finding::warning(RULE.name, walked.step.span, message)
                    .also(environment.deploy.span, "somebody starts it")
                    .on(subject(walked.stage));
                findings.push(finding.help("remove the step, or say `deploy: automatic`"));
            }
            DeployPolicy::Approval | DeployPolicy::Manual | DeployPolicy::Automatic => {}
        }
    }
    for (name, environment) in &architecture.document.environments {
        let deploys = walk.iter().any(|walked| {
            walked.step.value == Step::Deploy
                && walked.stage.environment.as_ref().is_some_and(|to| to.value == name.value)
        });
        if environment.deploy.value == DeployPolicy::Automatic && !deploys {
            let finding = Finding::warning(
                RULE.name,
                environment.deploy.span,
                format!("`{name}` is deployed automatically, but no stage deploys to it"),
            );
            findings.push(
                finding
                    .on(format!("environment.{name}"))
                    .help(format!("add a stage with `environment: {name}` and `deploy`")),
            );
        }
        if environment.deploy.value == DeployPolicy::Approval && environment.approvals.is_none() {
            let finding = Finding::warning(
                RULE.name,
                environment.deploy.span,
                format!("`{name}` needs an approval, and nobody is named who gives it"),
            );
            findings
                .push(finding.on(format!("environment.{name}")).help("add `approvals: { of: [release-managers] }`"));
        }
    }
}

/// An environment is deployed after the one that it is promoted from.
fn promotion(architecture: &Architecture, walk: &[Walked<'_>], findings: &mut Vec<Finding>) {
    let deployed = |name: &Name| {
        walk.iter().position(|walked| {
            walked.step.value == Step::Deploy && walked.stage.environment.as_ref().is_some_and(|to| to.value == *name)
        })
    };
    for (name, environment) in &architecture.document.environments {
        let Some(after) = &environment.after else { continue };
        if let (Some(here), Some(there)) = (deployed(&name.value), deployed(&after.value))
            && here < there
        {
            let message = format!("`{name}` is deployed before `{after}`, from which it is promoted");
            let finding = Finding::error(RULE.name, walk[here].step.span, message)
                .also(after.span, "promoted from here")
                .also(walk[there].step.span, "deployed later");
            findings.push(finding.on(subject(walk[here].stage)).help("exchange the stages"));
        }
    }
}

/// A release that is rolled back by itself is judged first.
fn verification(architecture: &Architecture, walk: &[Walked<'_>], findings: &mut Vec<Finding>) {
    let automatic = &architecture.document.delivery.rollback.automatic;
    for (index, walked) in walk.iter().enumerate().filter(|(_, walked)| walked.step.value == Step::Deploy) {
        let production =
            environment(architecture, walked.stage).is_some_and(|(_, environment)| environment.production.value);
        let judged = walk[index..].iter().any(|later| {
            matches!(later.step.value, Step::Verify | Step::Smoke)
                && later.stage.environment == walked.stage.environment
        });
        let rolls_back = walked.stage.on_failure.iter().any(|action| action.value == FailureAction::Rollback);
        if !production || judged {
            continue;
        }
        if automatic.value || rolls_back {
            let promise = if automatic.value { automatic.span } else { walked.stage.on_failure[0].span };
            let message = format!("`{}` deploys to production and nothing judges the release", walked.stage.name);
            let finding = Finding::error(RULE.name, walked.step.span, message)
                .also(promise, "a bad release is promised to be taken back");
            findings.push(
                finding
                    .on(subject(walked.stage))
                    .help("add `verify` after `deploy`; it waits for the rollout and judges its metrics"),
            );
        } else {
            let message = format!("`{}` deploys to production without a verdict or a way back", walked.stage.name);
            let finding = Finding::warning(RULE.name, walked.step.span, message).on(subject(walked.stage));
            findings.push(finding.help("add `verify` after `deploy`, and `on-failure: [rollback]`"));
        }
    }
}

/// Once any stage tells somebody of its failure, each stage that can fail does.
fn notification(pipeline: &Pipeline, findings: &mut Vec<Finding>) {
    let tells = |stage: &Stage| stage.on_failure.iter().any(|action| action.value == FailureAction::NotifyAuthor);
    let Some(promise) = pipeline.stages.iter().find(|stage| tells(stage)) else { return };
    let promised = promise
        .on_failure
        .iter()
        .find(|action| action.value == FailureAction::NotifyAuthor)
        .map_or(Span::NONE, |action| action.span);
    let silent: Vec<&Stage> = pipeline
        .stages
        .iter()
        .filter(|stage| {
            !tells(stage) && stage.steps.iter().any(|step| !matches!(step.value, Step::Approval | Step::Notify))
        })
        .collect();
    let Some(first) = silent.first() else { return };
    let message = format!("nobody is told of a failure of {}", names(silent.iter().map(|stage| &stage.name)));
    let finding =
        Finding::note(RULE.name, first.name.span, message).also(promised, "here the author is told").on(subject(first));
    findings.push(finding.help("add `on-failure: [notify-author]`"));
}
