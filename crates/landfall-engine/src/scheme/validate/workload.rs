//! Deployments, replica sets, stateful sets, daemon sets, jobs and cron jobs.

use serde_json::{Value, json};

use super::{Fields as _, Findings, metadata, pod};
use crate::scheme::Resource;
use crate::scheme::selector::LabelSelector;

pub(super) fn check(resource: &Resource, new: &Value, _old: Option<&Value>, findings: &mut Findings) {
    let spec = new.at("spec");
    match resource.kind.as_str() {
        "ControllerRevision" => {}
        "CronJob" => cron_job(new, findings),
        "Job" => job(spec, "spec", findings),
        kind => {
            if kind == "StatefulSet" {
                stateful_set(spec, findings);
            }
            counts(spec, "spec", &["replicas"], findings);
            selector(spec, findings);
            if kind == "StatefulSet" {
                pod::check_template(&with_claims(spec), "spec.template", findings);
            } else {
                pod::check_template(spec.at("template"), "spec.template", findings);
            }
            let policy = spec.at("template.spec.restartPolicy");
            if policy != &json!("Always") {
                findings.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
            }
            match kind {
                "Deployment" => strategy(spec, findings),
                "DaemonSet" => daemon_set(spec, findings),
                _ => {}
            }
            counts(spec, "spec", &["minReadySeconds", "revisionHistoryLimit"], findings);
            if kind == "Deployment" {
                deadline(spec, findings);
            }
        }
    }
}

fn counts(spec: &Value, field: &str, names: &[&str], findings: &mut Findings) {
    for name in names {
        if let Some(number) = spec.integer(name).filter(|number| *number < 0) {
            findings.invalid(&format!("{field}.{name}"), &json!(number), "must be greater than or equal to 0");
        }
    }
}

fn selector(spec: &Value, findings: &mut Findings) {
    let selector = spec.at("selector");
    if selector.is_null() {
        findings.required("spec.selector", "");
        findings.invalid("spec.template.metadata.labels", &template_labels(spec), MISMATCH);
        return;
    }
    metadata::selector(selector, "spec.selector", findings);
    let parsed = LabelSelector::of_object(selector);
    if parsed.as_ref().is_some_and(LabelSelector::is_empty) {
        findings.invalid("spec.selector", selector, "empty selector is invalid for deployment");
        return;
    }
    if parsed.is_some_and(|parsed| !parsed.matches(spec.at("template"))) {
        findings.invalid("spec.template.metadata.labels", &template_labels(spec), MISMATCH);
    }
}

const MISMATCH: &str = "`selector` does not match template `labels`";

fn template_labels(spec: &Value) -> Value {
    spec.at("template.metadata.labels").clone()
}

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
    let field = "spec.updateStrategy.rollingUpdate";
    counts(spec.at("updateStrategy.rollingUpdate"), field, &["partition"], findings);
}

/// The template with the volumes that its claims become.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec.at("template").clone();
    let names: Vec<&str> = spec.items("volumeClaimTemplates").iter().map(|claim| claim.text("metadata.name")).collect();
    let given = template.items("spec.volumes").iter().filter(|volume| !names.contains(&volume.text("name"))).cloned();
    let claimed = names.iter().map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
    let volumes: Vec<Value> = given.chain(claimed).collect();
    if template.at("spec").is_object() {
        template["spec"]["volumes"] = volumes.into();
    }
    template
}

fn daemon_set(spec: &Value, findings: &mut Findings) {
    if !spec.at("template.spec.activeDeadlineSeconds").is_null() {
        let detail = "activeDeadlineSeconds in DaemonSet is not Supported";
        findings.forbidden("spec.template.spec.activeDeadlineSeconds", detail);
    }
    let strategy = spec.at("updateStrategy");
    if !matches!(strategy.text("type"), "RollingUpdate" | "OnDelete") {
        let value = json!({ "Type": strategy.at("type"), "RollingUpdate": strategy.at("rollingUpdate") });
        findings.not_supported("spec.updateStrategy", &value, &["RollingUpdate", "OnDelete"]);
    }
}

fn strategy(spec: &Value, findings: &mut Findings) {
    let rolling = spec.at("strategy.rollingUpdate");
    let kind = spec.text("strategy.type");
    if !matches!(kind, "Recreate" | "RollingUpdate") {
        let value = json!({ "Type": kind, "RollingUpdate": rolling });
        findings.not_supported("spec.strategy", &value, &["Recreate", "RollingUpdate"]);
        return;
    }
    if spec.text("strategy.type") == "Recreate" && !rolling.is_null() {
        findings.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'");
        return;
    }
    let mut zero = true;
    for name in ["maxUnavailable", "maxSurge"] {
        let value = rolling.at(name);
        zero &= matches!(value.as_str(), Some("0%")) || value.as_i64() == Some(0);
        number_or_percent(value, &format!("spec.strategy.rollingUpdate.{name}"), findings);
    }
    if zero && rolling.is_object() {
        findings.invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            rolling.at("maxUnavailable"),
            "may not be 0 when `maxSurge` is 0",
        );
    }
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
        Value::String(text) => {
            let digits = text.strip_suffix('%').filter(|digits| !digits.is_empty());
            match digits.and_then(|digits| digits.parse::<u32>().ok()) {
                None => findings.invalid(
                    field,
                    value,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                     regex used for validation is '[0-9]+%')",
                ),
                Some(percent) if percent > 100 && field.ends_with("maxUnavailable") => {
                    findings.invalid(field, value, "must not be greater than 100%");
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

fn job(spec: &Value, field: &str, findings: &mut Findings) {
    counts(
        spec,
        field,
        &["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"],
        findings,
    );
    if spec.text("completionMode") == "Indexed" && spec.at("completions").is_null() {
        findings.required(&format!("{field}.completions"), "when completion mode is Indexed");
    }
    let mode = spec.text("completionMode");
    if !matches!(mode, "" | "NonIndexed" | "Indexed") {
        let field = format!("{field}.completionMode");
        findings.not_supported(&field, spec.at("completionMode"), &["NonIndexed", "Indexed"]);
    }
    pod::check_template(spec.at("template"), &format!("{field}.template"), findings);
    let policy = spec.at("template.spec.restartPolicy");
    match policy.as_str() {
        Some("OnFailure" | "Never") => {}
        Some("Always") => {
            findings
                .required(&format!("{field}.template.spec.restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
        }
        _ => findings.not_supported(&format!("{field}.template.spec.restartPolicy"), policy, &["OnFailure", "Never"]),
    }
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
    job(spec.at("jobTemplate.spec"), "spec.jobTemplate.spec", findings);
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
