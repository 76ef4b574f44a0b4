//! Reports of tests and scanners: `JUnit`'s XML, SARIF 2.1, and the JSON of Trivy and Grype. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

/// How many findings are told by name.
const TOLD: usize = 5;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nobody says.
    Unknown,
    /// Low, or negligible.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The format, for people.
    pub format: &'static str,
    /// Whether what it looked at is good: no test failed, and no finding is critical or high.
    pub passed: bool,
    /// Whether it is of tests, and not of a scan.
    pub tests: bool,
    /// What it says, in short.
    pub says: String,
    /// The images that it names.
    pub images: Vec<String>,
    /// When it was made, if it says.
    pub at: Option<Timestamp>,
}

/// Why a report says nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReportError(String);

/// Reads a report in whichever of the formats it is.
pub fn read_report(text: &str) -> Result<Report, ReportError> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('<') {
        return junit(text);
    }
    let report: Value =
        serde_json::from_str(text).map_err(|error| ReportError(format!("it is neither XML nor JSON: {error}")))?;
    if report["runs"].is_array() && report["version"].is_string() {
        sarif(&report)
    } else if report["SchemaVersion"].is_number()
        && (report["ArtifactName"].is_string() || report["Results"].is_array())
    {
        Ok(trivy(&report))
    } else if report["matches"].is_array() && report["descriptor"].is_object() {
        Ok(grype(&report))
    } else {
        Err(ReportError("it is no report that is known: JUnit, SARIF, Trivy's JSON, or Grype's".to_owned()))
    }
}

fn junit(text: &str) -> Result<Report, ReportError> {
    let options = roxmltree::ParsingOptions { allow_dtd: false, ..roxmltree::ParsingOptions::default() };
    let document = roxmltree::Document::parse_with_options(text, options)
        .map_err(|error| ReportError(format!("it is no XML: {error}")))?;
    let root = document.root_element();
    if !["testsuites", "testsuite"].contains(&root.tag_name().name()) {
        return Err(ReportError(format!("`{}` is no report of tests in JUnit's format", root.tag_name().name())));
    }
    let (mut passed, mut skipped, mut failed) = (0_usize, 0_usize, Vec::new());
    for case in root.descendants().filter(|node| node.has_tag_name("testcase")) {
        let has = |name: &str| case.children().any(|child| child.has_tag_name(name));
        if has("failure") || has("error") {
            failed.push(case.attribute("name").unwrap_or("a test without a name").to_owned());
        } else if has("skipped") {
            skipped += 1;
        } else {
            passed += 1;
        }
    }
    // A suite that broke before its first test has none that failed.
    let attribute = |name: &str| {
        let suites =
            root.descendants().filter(|node| node.has_tag_name("testsuite") || node.has_tag_name("testsuites"));
        suites.filter_map(|suite| suite.attribute(name)?.parse::<usize>().ok()).max().unwrap_or(0)
    };
    let told = attribute("failures").max(attribute("errors"));
    if failed.is_empty() && told > 0 {
        failed.push(format!("{told} that the suite tells of"));
    }
    let mut says = format!("{passed} tests passed, {} failed, {skipped} were skipped", failed.len());
    if passed == 0 && failed.is_empty() {
        "no test has run".clone_into(&mut says);
    } else if !failed.is_empty() {
        says += &format!(": {}", failed.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", "));
    }
    let at = root.descendants().find_map(|node| node.attribute("timestamp"));
    Ok(Report {
        format: "JUnit",
        passed: failed.is_empty() && passed > 0,
        tests: true,
        says,
        images: Vec::new(),
        at: at.and_then(|at| at.parse().ok()),
    })
}

/// What a scanner has found.
#[derive(Default)]
struct Findings(Vec<(Severity, String)>);

impl Findings {
    fn report(mut self, format: &'static str, images: Vec<String>, at: Option<Timestamp>) -> Report {
        self.0.sort_by(|a, b| b.cmp(a));
        let mut counts: BTreeMap<Severity, usize> = BTreeMap::new();
        for (severity, _) in &self.0 {
            *counts.entry(*severity).or_default() += 1;
        }
        let counted: Vec<String> = counts
            .iter()
            .rev()
            .map(|(severity, count)| format!("{count} {}", format!("{severity:?}").to_lowercase()))
            .collect();
        let grave: Vec<&str> =
            self.0.iter().filter(|(severity, _)| *severity >= Severity::High).map(|(_, name)| name.as_str()).collect();
        let mut says =
            if counted.is_empty() { "no finding".to_owned() } else { format!("findings: {}", counted.join(", ")) };
        if !grave.is_empty() {
            says += &format!("; {}", grave.iter().take(TOLD).copied().collect::<Vec<_>>().join(", "));
        }
        Report { format, passed: grave.is_empty(), tests: false, says, images, at }
    }
}

fn word(severity: &str) -> Severity {
    match severity.to_ascii_lowercase().as_str() {
        "critical" => Severity::Critical,
        "high" => Severity::High,
        "medium" => Severity::Medium,
        "low" | "negligible" => Severity::Low,
        _ => Severity::Unknown,
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn trivy(report: &Value) -> Report {
    let mut findings = Findings::default();
    for result in items(&report["Results"]) {
        for found in items(&result["Vulnerabilities"]) {
            let name = format!(
                "{} in {} {}",
                text_of(&found["VulnerabilityID"]),
                text_of(&found["PkgName"]),
                text_of(&found["InstalledVersion"])
            );
            findings.0.push((word(text_of(&found["Severity"])), name));
        }
        for found in items(&result["Misconfigurations"]).filter(|found| found["Status"] != "PASS") {
            findings.0.push((
                word(text_of(&found["Severity"])),
                format!("{} {}", text_of(&found["ID"]), text_of(&found["Title"])),
            ));
        }
        for found in items(&result["Secrets"]) {
            let name = format!("a secret in {}: {}", text_of(&result["Target"]), text_of(&found["RuleID"]));
            findings.0.push((word(text_of(&found["Severity"])), name));
        }
    }
    let mut images: Vec<String> =
        items(&report["Metadata"]["RepoDigests"]).map(|image| text_of(image).to_owned()).collect();
    images.extend(report["ArtifactName"].as_str().map(ToOwned::to_owned));
    findings.report("Trivy", images, text_of(&report["CreatedAt"]).parse().ok())
}

fn grype(report: &Value) -> Report {
    let mut findings = Findings::default();
    for found in items(&report["matches"]) {
        let (weakness, artifact) = (&found["vulnerability"], &found["artifact"]);
        let name =
            format!("{} in {} {}", text_of(&weakness["id"]), text_of(&artifact["name"]), text_of(&artifact["version"]));
        findings.0.push((word(text_of(&weakness["severity"])), name));
    }
    let target = &report["source"]["target"];
    let mut images: Vec<String> = items(&target["repoDigests"]).map(|image| text_of(image).to_owned()).collect();
    images.extend(target["userInput"].as_str().map(ToOwned::to_owned));
    findings.report("Grype", images, text_of(&report["descriptor"]["timestamp"]).parse().ok())
}

/// The severity of a result is its number by the CVSS, which GitHub's readers take too, or else its level.
fn sarif(report: &Value) -> Result<Report, ReportError> {
    let mut findings = Findings::default();
    if items(&report["runs"]).next().is_none() {
        return Err(ReportError("no tool has run: the SARIF has no `runs`".to_owned()));
    }
    let mut at = None;
    for run in items(&report["runs"]) {
        let rules: Vec<&Value> = items(&run["tool"]["driver"]["rules"]).collect();
        for invocation in items(&run["invocations"]) {
            if invocation["executionSuccessful"] == false {
                return Err(ReportError("the tool says that it has not succeeded (`executionSuccessful`)".to_owned()));
            }
            at = text_of(&invocation["endTimeUtc"]).parse().ok();
        }
        for result in items(&run["results"]) {
            let kind = result["kind"].as_str().unwrap_or("fail");
            let suppressed =
                items(&result["suppressions"]).any(|one| matches!(one["status"].as_str(), None | Some("accepted")));
            if !["fail", "review", "open"].contains(&kind) || suppressed {
                continue;
            }
            let id = result["ruleId"].as_str().or_else(|| result["rule"]["id"].as_str()).unwrap_or("a rule");
            let by_index =
                result["ruleIndex"].as_u64().and_then(|index| rules.get(usize::try_from(index).ok()?).copied());
            let rule = by_index.or_else(|| rules.iter().find(|rule| rule["id"] == id).copied()).unwrap_or(&Value::Null);
            let number = |value: &Value| {
                let number = &value["properties"]["security-severity"];
                number.as_f64().or_else(|| number.as_str()?.parse().ok())
            };
            let level = result["level"].as_str().or_else(|| rule["defaultConfiguration"]["level"].as_str());
            let severity = match (number(result).or_else(|| number(rule)), level.unwrap_or("warning")) {
                (Some(number), _) if number >= 9.0 => Severity::Critical,
                (Some(number), _) if number >= 7.0 => Severity::High,
                (Some(number), _) if number >= 4.0 => Severity::Medium,
                (Some(_), _) => Severity::Low,
                (None, "error") => Severity::High,
                (None, "warning") => Severity::Medium,
                (None, _) => Severity::Low,
            };
            let place = text_of(&result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]);
            findings.0.push((severity, format!("{id} in {place}").trim_end_matches(" in ").to_owned()));
        }
    }
    Ok(findings.report("SARIF", Vec::new(), at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> String {
        match read_report(text) {
            Ok(report) => format!(
                "{} {}: {} {:?} {}",
                report.format,
                if report.passed { "passed" } else { "failed" },
                report.says,
                report.images,
                report.at.map(|at| at.to_string()).unwrap_or_default()
            ),
            Err(error) => format!("refused: {error}"),
        }
    }

    #[test]
    fn tests_pass_when_some_ran_and_none_failed() {
        insta::assert_snapshot!(read(r#"<?xml version="1.0"?><testsuites><testsuite name="s" timestamp="2026-11-28T12:00:00Z"><testcase name="a"/><testcase name="b"><skipped/></testcase></testsuite></testsuites>"#), @"JUnit passed: 1 tests passed, 0 failed, 1 were skipped [] 2026-11-28T12:00:00Z");
        insta::assert_snapshot!(read(r#"<testsuite><testcase name="a"/><testcase name="b"><failure message="no"/></testcase></testsuite>"#), @"JUnit failed: 1 tests passed, 1 failed, 0 were skipped: b []");
        insta::assert_snapshot!(read(r#"<testsuite errors="1" tests="0"></testsuite>"#), @"JUnit failed: 0 tests passed, 1 failed, 0 were skipped: 1 that the suite tells of []");
        insta::assert_snapshot!(read("<testsuites/>"), @"JUnit failed: no test has run []");
        insta::assert_snapshot!(read("<html/>"), @"refused: `html` is no report of tests in JUnit's format");
    }

    #[test]
    fn a_planted_high_finding_fails_the_report_of_every_scanner() {
        let trivy = |severity: &str| {
            json!({ "SchemaVersion": 2, "ArtifactName": "shop/web:2", "CreatedAt": "2026-11-28T12:00:00Z",
                "Metadata": { "RepoDigests": ["shop/web@sha256:aa"] },
                "Results": [{ "Target": "os", "Vulnerabilities": [
                    { "VulnerabilityID": "CVE-1", "PkgName": "zlib", "InstalledVersion": "1.2", "Severity": severity },
                    { "VulnerabilityID": "CVE-2", "PkgName": "tar", "InstalledVersion": "1", "Severity": "LOW" },
                ] }] })
            .to_string()
        };
        insta::assert_snapshot!(read(&trivy("HIGH")), @r#"Trivy failed: findings: 1 high, 1 low; CVE-1 in zlib 1.2 ["shop/web@sha256:aa", "shop/web:2"] 2026-11-28T12:00:00Z"#);
        insta::assert_snapshot!(read(&trivy("MEDIUM")), @r#"Trivy passed: findings: 1 medium, 1 low ["shop/web@sha256:aa", "shop/web:2"] 2026-11-28T12:00:00Z"#);
        let grype = |severity: &str| {
            json!({ "matches": [{ "vulnerability": { "id": "CVE-3", "severity": severity }, "artifact": { "name": "curl", "version": "8" } }],
                "source": { "target": { "userInput": "shop/web:2", "repoDigests": [] } }, "descriptor": { "name": "grype" } })
            .to_string()
        };
        insta::assert_snapshot!(read(&grype("Critical")), @r#"Grype failed: findings: 1 critical; CVE-3 in curl 8 ["shop/web:2"]"#);
        insta::assert_snapshot!(read(&grype("Negligible")), @r#"Grype passed: findings: 1 low ["shop/web:2"]"#);
        let sarif = |result: Value| {
            json!({ "version": "2.1.0", "runs": [{ "tool": { "driver": { "rules": [
                { "id": "sql", "properties": { "security-severity": "9.1" } }, { "id": "style" },
            ] } }, "results": [result] }] })
            .to_string()
        };
        insta::assert_snapshot!(read(&sarif(json!({ "ruleId": "sql", "level": "note" }))), @"SARIF failed: findings: 1 critical; sql []");
        insta::assert_snapshot!(read(&sarif(json!({ "ruleId": "style" }))), @"SARIF passed: findings: 1 medium []");
        insta::assert_snapshot!(read(&sarif(json!({ "ruleId": "style", "level": "error" }))), @"SARIF failed: findings: 1 high; style []");
        insta::assert_snapshot!(read(&sarif(json!({ "ruleId": "sql", "suppressions": [{ "status": "accepted" }] }))), @"SARIF passed: no finding []");
    }

    #[test]
    fn what_says_nothing_is_refused() {
        insta::assert_snapshot!(read("{}"), @"refused: it is no report that is known: JUnit, SARIF, Trivy's JSON, or Grype's");
        insta::assert_snapshot!(read("hello"), @"refused: it is neither XML nor JSON: expected value at line 1 column 1");
        insta::assert_snapshot!(read(r#"{ "version": "2.1.0", "runs": [] }"#), @"refused: no tool has run: the SARIF has no `runs`");
        insta::assert_snapshot!(read(r#"{ "version": "2.1.0", "runs": [{ "invocations": [{ "executionSuccessful": false }] }] }"#), @"refused: the tool says that it has not succeeded (`executionSuccessful`)");
    }
}
