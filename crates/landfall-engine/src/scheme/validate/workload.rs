//! Deployments, replica sets, stateful sets, daemon sets and cron jobs.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::{Fields as _, Findings, job, metadata, names, pod, storage};
use crate::scheme::Resource;
use crate::scheme::selector::LabelSelector;

pub(super) fn check(resource: &Resource, new: &Value, findings: &mut Findings) {
    let spec = new.at("spec");
    match resource.kind.as_str() {
        "ControllerRevision" => {}
        "CronJob" => cron_job(new, findings),
        "Job" => job::check(spec, "spec", findings),
        "Deployment" => deployment(spec, findings),
        "ReplicaSet" => {
            counts(spec, "spec", &["replicas", "minReadySeconds"], findings);
            if selector(spec, "deployment", UNREADABLE, findings).is_continue() {
                replicated(spec, findings);
            }
        }
        "StatefulSet" => stateful_set(spec, findings),
        "DaemonSet" => daemon_set(spec, findings),
        _ => {}
    }
}

fn deployment(spec: &Value, findings: &mut Findings) {
    counts(spec, "spec", &["replicas"], findings);
    if selector(spec, "deployment", UNREADABLE, findings).is_continue() {
        replicated(spec, findings);
    }
    strategy(spec, findings);
    counts(spec, "spec", &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], findings);
    deadline(spec, findings);
}

/// The template of what replica sets run.
fn replicated(spec: &Value, findings: &mut Findings) {
    pod::check_template(spec.at("template"), "spec.template", findings);
    runs_on(spec, "ReplicaSet", findings);
}

/// Pods that are kept running have no end.
fn runs_on(spec: &Value, kind: &str, findings: &mut Findings) {
    let policy = spec.at("template.spec.restartPolicy");
    if policy != &json!("Always") {
        findings.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if !spec.at("template.spec.activeDeadlineSeconds").is_null() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        findings.forbidden("spec.template.spec.activeDeadlineSeconds", &detail);
    }
}

pub(super) fn counts(spec: &Value, field: &str, names: &[&str], findings: &mut Findings) {
    for name in names {
        if let Some(number) = spec.integer(name).filter(|number| *number < 0) {
            findings.invalid(&format!("{field}.{name}"), &json!(number), "must be greater than or equal to 0");
        }
    }
}

/// The selector of a workload, which must be that of its template. `kind` is how messages call the workload, `refused`
/// what they say of a selector that cannot be read; then the template is not looked at.
fn selector(spec: &Value, kind: &str, refused: &str, findings: &mut Findings) -> ControlFlow<()> {
    let selector = spec.at("selector");
    if selector.is_null() {
        findings.required("spec.selector", "");
    }
    let before = findings.causes.len();
    metadata::selector(selector, "spec.selector", findings);
    let readable = findings.causes.len() == before;
    not_empty(spec, kind, findings);
    if readable {
        matches_template(spec, findings);
        return ControlFlow::Continue(());
    }
    findings.invalid("spec.selector", selector, refused);
    ControlFlow::Break(())
}

fn not_empty(spec: &Value, kind: &str, findings: &mut Findings) {
    let selector = spec.at("selector");
    if LabelSelector::of_object(selector).as_ref().is_some_and(LabelSelector::is_empty) && !selector.is_null() {
        findings.invalid("spec.selector", selector, &format!("empty selector is invalid for {kind}"));
    }
}

fn matches_template(spec: &Value, findings: &mut Findings) {
    let selector = spec.at("selector");
    let fits = !selector.is_null()
        && LabelSelector::of_object(selector).is_none_or(|selector| selector.matches(spec.at("template")));
    if !fits {
        let labels = spec.at("template.metadata.labels");
        findings.invalid("spec.template.metadata.labels", labels, MISMATCH);
    }
}

const UNREADABLE: &str = "invalid label selector";

const MISMATCH: &str = "`selector` does not match template `labels`";

fn stateful_set(spec: &Value, findings: &mut Findings) {
    match spec.text("podManagementPolicy") {
        "" => findings.required("spec.podManagementPolicy", ""),
        "OrderedReady" | "Parallel" => {}
        _ => findings.invalid(
            "spec.podManagementPolicy",
            spec.at("podManagementPolicy"),
            "must be 'OrderedReady' or 'Parallel'",
        ),
    }
    let (rolling, field) = (spec.at("updateStrategy.rollingUpdate"), "spec.updateStrategy.rollingUpdate");
    match spec.text("updateStrategy.type") {
        "" => findings.required("spec.updateStrategy", ""),
        "OnDelete" if !rolling.is_null() => {
            let value = json!({ "Partition": rolling.at("partition"), "MaxUnavailable": rolling.at("maxUnavailable") });
            findings.invalid(field, &value, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            counts(rolling, field, &["partition"], findings);
            let (most, field) = (rolling.at("maxUnavailable"), format!("{field}.maxUnavailable"));
            number_or_percent(most, &field, findings);
            if !most.is_null() && amount(most) == 0 {
                findings.invalid(&field, most, "cannot be 0");
            }
            at_most_all(most, &field, findings);
        }
        kind => {
            let value = json!({ "Type": kind, "RollingUpdate": rolling });
            findings.invalid("spec.updateStrategy", &value, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
    for (index, claim) in spec.items("volumeClaimTemplates").iter().enumerate() {
        storage::claim(claim.at("spec"), &format!("spec.volumeClaimTemplates[{index}].spec"), findings);
    }
    counts(spec, "spec", &["replicas", "minReadySeconds"], findings);
    counts(spec.at("ordinals"), "spec.ordinals", &["start"], findings);
    let service = spec.text("serviceName");
    if !service.is_empty() {
        findings.names("spec.serviceName", service, names::label(service));
    }
    if selector(spec, "statefulset", "", findings).is_continue() {
        pod::check_template(&as_run(spec), "spec.template", findings);
        let metadata = spec.at("template.metadata");
        // Kubernetes looks at them twice.
        metadata::labels(metadata.at("labels"), "spec.template.labels", findings);
        metadata::annotations(metadata.at("annotations"), "spec.template.annotations", findings);
    }
    runs_on(spec, "StatefulSet", findings);
}

/// The template with the volumes that its claims become, and without the names that each pod gets of its own.
fn as_run(spec: &Value) -> Value {
    let mut template = spec.at("template").clone();
    let names: Vec<&str> = spec.items("volumeClaimTemplates").iter().map(|claim| claim.text("metadata.name")).collect();
    let given = template.items("spec.volumes").iter().filter(|volume| !names.contains(&volume.text("name"))).cloned();
    let claimed = names.iter().map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
    let volumes: Vec<Value> = given.chain(claimed).collect();
    if template.at("spec").is_object() {
        template["spec"]["volumes"] = volumes.into();
        for name in ["hostname", "subdomain"] {
            template["spec"].as_object_mut().map(|spec| spec.remove(name));
        }
    }
    template
}

fn daemon_set(spec: &Value, findings: &mut Findings) {
    let before = findings.causes.len();
    metadata::selector(spec.at("selector"), "spec.selector", findings);
    if findings.causes.len() == before {
        matches_template(spec, findings);
    }
    not_empty(spec, "daemonset", findings);
    pod::check_template(spec.at("template"), "spec.template", findings);
    runs_on(spec, "DaemonSet", findings);
    counts(spec, "spec", &["minReadySeconds"], findings);
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_null() => findings.required("spec.updateStrategy.rollingUpdate", ""),
        "RollingUpdate" => {
            let [unavailable, surge] = shares(rolling, "spec.updateStrategy.rollingUpdate", findings);
            for name in ["maxUnavailable", "maxSurge"] {
                at_most_all(rolling.at(name), &format!("spec.updateStrategy.rollingUpdate.{name}"), findings);
            }
            if unavailable != 0 && surge != 0 {
                let detail = "may not be set when maxUnavailable is non-zero";
                findings.invalid("spec.updateStrategy.rollingUpdate.maxSurge", rolling.at("maxSurge"), detail);
            } else if unavailable == 0 && surge == 0 {
                let detail = "cannot be 0 when maxSurge is 0";
                findings.required("spec.updateStrategy.rollingUpdate.maxUnavailable", detail);
            }
        }
        kind => {
            let value = json!({ "Type": kind, "RollingUpdate": rolling });
            findings.not_supported("spec.updateStrategy", &value, &["RollingUpdate", "OnDelete"]);
        }
    }
    counts(spec, "spec", &["revisionHistoryLimit"], findings);
}

/// How many pods may be missing and how many more there may be, checked one after the other.
fn shares(rolling: &Value, field: &str, findings: &mut Findings) -> [i64; 2] {
    ["maxUnavailable", "maxSurge"].map(|name| {
        number_or_percent(rolling.at(name), &format!("{field}.{name}"), findings);
        amount(rolling.at(name))
    })
}

fn strategy(spec: &Value, findings: &mut Findings) {
    let rolling = spec.at("strategy.rollingUpdate");
    let kind = spec.text("strategy.type");
    if !matches!(kind, "Recreate" | "RollingUpdate") {
        let value = json!({ "Type": kind, "RollingUpdate": rolling });
        findings.not_supported("spec.strategy", &value, &["Recreate", "RollingUpdate"]);
        return;
    }
    if kind == "Recreate" {
        if !rolling.is_null() {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            findings.forbidden("spec.strategy.rollingUpdate", detail);
        }
        return;
    }
    if !rolling.is_object() {
        findings.required("spec.strategy.rollingUpdate", "this should be defaulted and never be nil");
        return;
    }
    let field = "spec.strategy.rollingUpdate.maxUnavailable";
    if shares(rolling, "spec.strategy.rollingUpdate", findings) == [0, 0] {
        findings.invalid(field, rolling.at("maxUnavailable"), "may not be 0 when `maxSurge` is 0");
    }
    at_most_all(rolling.at("maxUnavailable"), field, findings);
}

fn deadline(spec: &Value, findings: &mut Findings) {
    let (deadline, ready) = (spec.integer("progressDeadlineSeconds"), spec.integer("minReadySeconds").unwrap_or(0));
    if let Some(deadline) = deadline.filter(|deadline| *deadline <= ready) {
        findings.invalid("spec.progressDeadlineSeconds", &json!(deadline), "must be greater than minReadySeconds");
    }
}

/// A count, or a share such as `25%`.
pub(super) fn number_or_percent(value: &Value, field: &str, findings: &mut Findings) {
    match value {
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            findings.invalid(field, value, "must be greater than or equal to 0");
        }
        Value::String(text) if percent(text).is_none() => findings.invalid(
            field,
            value,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used \
             for validation is '[0-9]+%')",
        ),
        _ => {}
    }
}

/// A share of more than everything is none.
pub(super) fn at_most_all(value: &Value, field: &str, findings: &mut Findings) {
    if value.as_str().and_then(percent).is_some_and(|percent| percent > 100) {
        findings.invalid(field, value, "must not be greater than 100%");
    }
}

fn percent(text: &str) -> Option<i64> {
    text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// The number of a count or of a share; what is neither counts as none.
fn amount(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str().and_then(percent)).unwrap_or(0)
}

fn cron_job(object: &Value, findings: &mut Findings) {
    let spec = object.at("spec");
    let schedule = spec.text("schedule");
    if schedule.is_empty() {
        findings.required("spec.schedule", "");
    } else if schedule.contains("TZ") {
        findings.invalid(
            "spec.schedule",
            &json!(schedule),
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
    } else if let Err(detail) = readable(schedule) {
        findings.invalid("spec.schedule", &json!(schedule), &detail);
    }
    counts(spec, "spec", &["startingDeadlineSeconds"], findings);
    if let Some(zone) = spec.at("timeZone").as_str() {
        if zone.is_empty() {
            findings.invalid("spec.timeZone", &json!(zone), "timeZone must be nil or non-empty string");
        } else if zone.eq_ignore_ascii_case("local") {
            findings.invalid(
                "spec.timeZone",
                &json!(zone),
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        } else if jiff::tz::TimeZone::get(zone).is_err() {
            findings.invalid("spec.timeZone", &json!(zone), &format!("unknown time zone {zone}"));
        }
    }
    if !matches!(spec.text("concurrencyPolicy"), "Allow" | "Forbid" | "Replace") {
        let policy = spec.at("concurrencyPolicy");
        findings.not_supported("spec.concurrencyPolicy", policy, &["Allow", "Forbid", "Replace"]);
    }
    counts(spec, "spec", &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], findings);
    if object.text("metadata.name").len() > 52 {
        findings.invalid("metadata.name", object.at("metadata.name"), "must be no more than 52 characters");
    }
    job::check(spec.at("jobTemplate.spec"), "spec.jobTemplate.spec", findings);
}

fn readable(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        return Ok(());
    }
    let fields: Vec<_> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    schedule.parse::<croner::Cron>().map(drop).map_err(|error| error.to_string())
}
