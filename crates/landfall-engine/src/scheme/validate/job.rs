//! Jobs: how many pods, which failures and successes end them.

use serde_json::{Value, json};

use super::workload::counts;
use super::{Fields as _, Findings, names, pod};

/// The most indexes for which each may fail by itself without a limit of how many do.
const MANY_COMPLETIONS: i64 = 100_000;

/// The most rules of a policy, and conditions of a rule.
const RULES: usize = 20;

/// The most exit codes of a rule.
const EXIT_CODES: usize = 255;

/// The longest list of indexes, in bytes.
const INDEXES_LENGTH: usize = 64 * 1024;

pub(super) fn check(spec: &Value, field: &str, findings: &mut Findings) {
    let limits = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    counts(spec, field, &limits, findings);
    if !spec.at("maxFailedIndexes").is_null() && spec.at("backoffLimitPerIndex").is_null() {
        findings.required(&format!("{field}.backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    let mode = spec.text("completionMode");
    match mode {
        "Indexed" => indexed(spec, field, findings),
        "" | "NonIndexed" => {}
        _ => {
            let field = format!("{field}.completionMode");
            findings.not_supported(&field, spec.at("completionMode"), &["NonIndexed", "Indexed"]);
        }
    }
    if matches!(mode, "" | "NonIndexed") {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if !spec.at(name).is_null() {
                findings.invalid(&format!("{field}.{name}"), spec.at(name), "requires indexed completion mode");
            }
        }
    }
    let failing = spec.at("podFailurePolicy").is_object();
    if failing {
        failure_policy(spec, &format!("{field}.podFailurePolicy.rules"), findings);
    }
    if spec.at("successPolicy").is_object() {
        let field = format!("{field}.successPolicy");
        if mode == "Indexed" {
            success_policy(spec, &format!("{field}.rules"), findings);
        } else {
            findings.invalid(&field, spec.at("successPolicy"), "requires indexed completion mode");
        }
    }
    let replacement: &[&str] = if failing { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    findings.choice(&format!("{field}.podReplacementPolicy"), spec.at("podReplacementPolicy"), replacement);
    pod::check_template(spec.at("template"), &format!("{field}.template"), findings);
    restarts(spec, &format!("{field}.template.spec.restartPolicy"), failing, findings);
}

fn restarts(spec: &Value, field: &str, failing: bool, findings: &mut Findings) {
    let policy = spec.at("template.spec.restartPolicy");
    match policy.as_str() {
        Some("OnFailure") if failing => {
            findings.invalid(field, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        Some("OnFailure" | "Never") => {}
        Some("Always") => findings.required(field, "valid values: \"OnFailure\", \"Never\""),
        _ => findings.not_supported(field, policy, &["OnFailure", "Never"]),
    }
}

fn indexed(spec: &Value, field: &str, findings: &mut Findings) {
    if spec.at("completions").is_null() {
        findings.required(&format!("{field}.completions"), "when completion mode is Indexed");
    }
    let completions = spec.integer("completions");
    let most = |name: &str, limit: i64, why: &str, findings: &mut Findings| {
        if spec.integer(name).is_some_and(|number| number > limit) {
            let why = format!("must be less than or equal to {limit}{why}");
            findings.invalid(&format!("{field}.{name}"), spec.at(name), &why);
        }
    };
    most("parallelism", 100_000, " when completion mode is Indexed", findings);
    if completions.zip(spec.integer("maxFailedIndexes")).is_some_and(|(completions, most)| most > completions) {
        let field = format!("{field}.maxFailedIndexes");
        findings.invalid(&field, spec.at("maxFailedIndexes"), "must be less than or equal to completions");
    }
    most("maxFailedIndexes", 100_000, "", findings);
    if completions.is_some_and(|completions| completions > MANY_COMPLETIONS)
        && !spec.at("backoffLimitPerIndex").is_null()
    {
        if spec.at("maxFailedIndexes").is_null() {
            let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            findings.required(&format!("{field}.maxFailedIndexes"), &detail);
        }
        let why = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        for name in ["parallelism", "maxFailedIndexes"] {
            most(name, 10_000, &why, findings);
        }
    }
}

fn failure_policy(spec: &Value, field: &str, findings: &mut Findings) {
    let rules = spec.items("podFailurePolicy.rules");
    if rules.len() > RULES {
        findings.too_many(field, rules.len(), RULES);
    }
    for (index, rule) in rules.iter().enumerate() {
        failure_rule(spec, rule, &format!("{field}[{index}]"), findings);
    }
}

fn failure_rule(spec: &Value, rule: &Value, field: &str, findings: &mut Findings) {
    let action = format!("{field}.action");
    match rule.text("action") {
        "" => findings.required(&action, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
        "FailIndex" if spec.at("backoffLimitPerIndex").is_null() => {
            findings.invalid(&action, rule.at("action"), "requires the backoffLimitPerIndex to be set");
        }
        "Count" | "FailIndex" | "FailJob" | "Ignore" => {}
        _ => findings.not_supported(&action, rule.at("action"), &["Count", "FailIndex", "FailJob", "Ignore"]),
    }
    let (codes, conditions) = (rule.at("onExitCodes"), rule.items("onPodConditions"));
    if codes.is_object() {
        exit_codes(spec, codes, &format!("{field}.onExitCodes"), findings);
    }
    let of_conditions = format!("{field}.onPodConditions");
    if conditions.len() > RULES {
        findings.too_many(&of_conditions, conditions.len(), RULES);
    }
    for (index, condition) in conditions.iter().enumerate() {
        let field = format!("{of_conditions}[{index}]");
        let kind = condition.text("type");
        findings.names(&format!("{field}.type"), kind, names::qualified(kind));
        let field = format!("{field}.status");
        match condition.text("status") {
            "" => findings.required(&field, "valid values: [\"False\" \"True\" \"Unknown\"]"),
            "False" | "True" | "Unknown" => {}
            _ => findings.not_supported(&field, condition.at("status"), &["False", "True", "Unknown"]),
        }
    }
    match (codes.is_object(), !conditions.is_empty()) {
        (true, true) => {
            findings.invalid_as_whole(field, "specifying both OnExitCodes and OnPodConditions is not supported");
        }
        (false, false) => {
            findings.invalid_as_whole(field, "specifying one of OnExitCodes and OnPodConditions is required");
        }
        _ => {}
    }
}

fn exit_codes(spec: &Value, codes: &Value, field: &str, findings: &mut Findings) {
    let operator = format!("{field}.operator");
    match codes.text("operator") {
        "" => findings.required(&operator, "valid values: [\"In\" \"NotIn\"]"),
        "In" | "NotIn" => {}
        _ => findings.not_supported(&operator, codes.at("operator"), &["In", "NotIn"]),
    }
    if let Some(name) = codes.at("containerName").as_str() {
        let pod = spec.at("template.spec");
        let known = ["containers", "initContainers"].iter().flat_map(|list| pod.items(list));
        if !known.into_iter().any(|container| container.text("name") == name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            findings.invalid(&format!("{field}.containerName"), codes.at("containerName"), detail);
        }
    }
    let of_values = format!("{field}.values");
    let values: Vec<i64> = codes.items("values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        findings.invalid(&of_values, codes.at("values"), "at least one value is required");
    } else if values.len() > EXIT_CODES {
        findings.too_many(&of_values, values.len(), EXIT_CODES);
    }
    for (index, value) in values.iter().enumerate() {
        let field = format!("{of_values}[{index}]");
        if codes.text("operator") == "In" && *value == 0 {
            findings.invalid(&field, &json!(value), "must not be 0 for the In operator");
        }
        if values[..index].contains(value) {
            findings.duplicate(&field, &json!(value));
        }
    }
    if !values.is_sorted() {
        findings.invalid(&of_values, codes.at("values"), "must be ordered");
    }
}

fn success_policy(spec: &Value, field: &str, findings: &mut Findings) {
    let rules = spec.items("successPolicy.rules");
    if rules.is_empty() {
        findings.required(field, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > RULES {
        findings.too_many(field, rules.len(), RULES);
    }
    let completions = spec.integer("completions").unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, &format!("{field}[{index}]"), findings);
    }
}

fn success_rule(rule: &Value, completions: i64, field: &str, findings: &mut Findings) {
    let (indexes, number) = (rule.at("succeededIndexes").as_str(), rule.integer("succeededCount"));
    if indexes.is_none() && number.is_none() {
        findings.required(field, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut named = 0;
    if let Some(indexes) = indexes {
        let field = format!("{field}.succeededIndexes");
        if indexes.len() > INDEXES_LENGTH {
            findings.too_long(&field, INDEXES_LENGTH);
        }
        match number_of_indexes(indexes, completions) {
            Ok(number) => named = number,
            Err(why) => {
                findings.invalid(&field, &json!(indexes), &format!("error parsing succeededIndexes: {why}"));
            }
        }
    }
    let Some(number) = number else { return };
    let value = rule.at("succeededCount");
    let field = format!("{field}.succeededCount");
    findings.not_negative(&field, value);
    if number > completions {
        let why = format!("must be less than or equal to {completions} (the number of specified completions)");
        findings.invalid(&field, value, &why);
    }
    if indexes.is_some() && number > named {
        let why = format!(
            "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
        );
        findings.invalid(&field, value, &why);
    }
}

/// How many indexes `0-2,5` names, each below `completions` and above those before it.
fn number_of_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let number = |text: &str| {
        let number = text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number >= completions { Err(format!("too large index: {text:?}")) } else { Ok(number) }
    };
    let disordered =
        |previous: i64, current: i64| Err(format!("non-increasing order, previous: {previous}, current: {current}"));
    let (mut total, mut before) = (0, None);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let mut ends = interval.split('-');
        let first = number(ends.next().unwrap_or_default())?;
        let last = ends.next().map(number).transpose()?.unwrap_or(first);
        if ends.next().is_some() {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts \
                 separated by '-'"
            ));
        }
        if interval.contains('-') && first >= last {
            return disordered(first, last);
        }
        if let Some(before) = before.filter(|before| *before >= first) {
            return disordered(before, first);
        }
        total += last - first + 1;
        before = Some(last);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_of_a_rule_are_counted_or_refused_in_the_words_of_kubernetes() {
        assert_eq!(number_of_indexes("0-2,5", 6), Ok(4));
        assert_eq!(number_of_indexes("", 6), Ok(0));
        let why = |text| number_of_indexes(text, 6).expect_err("it is refused");
        assert_eq!(why("6"), "too large index: \"6\"");
        assert_eq!(why("3,1"), "non-increasing order, previous: 3, current: 1");
        assert_eq!(why("3-3"), "non-increasing order, previous: 3, current: 3");
        assert_eq!(why("a"), "cannot convert string to integer for index: \"a\"");
    }
}
