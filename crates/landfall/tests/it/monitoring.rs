//! What is rendered for Prometheus, Alertmanager, Grafana and Mermaid, read by their own programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use landfall_model::Architecture;
use landfall_render::{FileTree, Output, docs, monitoring};
use landfall_testing::{Tool, check_text, check_tree, require_or_skip, use_or_skip};
use serde_json::Value;

use crate::examples::read;
use crate::{Folder, TODAY, example, run_in};

const EXAMPLES: [&str; 5] = ["water-channels", "balance-alerts", "attendance-monitoring", "composerp", "mindcompute"];

fn architectures(name: &str) -> Vec<Architecture> {
    let file = read(&example(name));
    let environments = file.environments();
    let one = |environment: &String| file.architecture(Some(environment)).expect("the example is an architecture");
    environments.iter().map(one).collect()
}

fn rendered(name: &str) -> Output {
    monitoring(&architectures(name))
}

/// The files in a temporary folder.
fn written(files: &FileTree) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file stands in a folder")).expect("a folder can be made in it");
        std::fs::write(path, text).expect("a file can be written to it");
    }
    folder
}

/// The paths that end so.
fn ending<'a>(files: &'a FileTree, part: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    files.keys().map(String::as_str).filter(move |path| path.contains(part) && path.ends_with(end))
}

#[track_caller]
fn succeeds(program: &Path, arguments: &[&str], paths: impl IntoIterator<Item = PathBuf>) {
    let output = Command::new(program).args(arguments).args(paths).output().expect("the tool can be started");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{} {arguments:?}: {}\n{said}", program.display(), output.status);
}

#[test]
fn the_monitoring_of_production_is_as_committed() {
    let production: Vec<Architecture> =
        architectures("mindcompute").into_iter().filter(Architecture::is_production).collect();
    assert_eq!(production.len(), 1, "the example has one production");
    check_tree(&example("mindcompute").join("monitoring"), &monitoring(&production).files);
}

/// The configuration without the discovery of targets in Kubernetes, which Debian builds its promtool without. The one that
/// `make tools-all` builds reads all of it.
fn without_discovery(configuration: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in configuration.lines() {
        let is_field = line.starts_with("  ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_lowercase);
        if is_field || line.starts_with("- ") {
            inside = line.trim_end() == "  kubernetes_sd_configs:";
        }
        if !inside {
            kept += line;
            kept += "\n";
        }
    }
    kept
}

#[test]
fn promtool_takes_every_configuration_and_rule() {
    let Some(promtool) = require_or_skip("promtool", Tool::Promtool.locate()) else { return };
    for name in EXAMPLES {
        let mut files = rendered(name).files;
        if promtool.starts_with("/usr") {
            let configurations = files.iter_mut().filter(|(path, _)| path.ends_with("prometheus.yaml"));
            configurations.for_each(|(_, text)| *text = without_discovery(text));
        }
        let folder = written(&files);
        let at = |path: &str| folder.path().join(path);
        for path in ending(&files, "prometheus/", "prometheus.yaml") {
            // Certificates and tokens that it names are on a cluster only.
            succeeds(&promtool, &["check", "config", "--syntax-only"], [at(path)]);
        }
        let rules: Vec<PathBuf> = ending(&files, "prometheus/rules/", ".yaml").map(at).collect();
        assert!(!rules.is_empty(), "{name} has rules");
        succeeds(&promtool, &["check", "rules"], rules);
    }
}

/// The tests of alerts in the files. Those that differ from another by their namespace alone are left out, with rules that do: to
/// play all environments takes minutes.
fn different_alerts(files: &FileTree) -> impl Iterator<Item = &str> {
    let mut known = BTreeSet::new();
    ending(files, "prometheus/tests/", ".yaml").filter(move |path| {
        let mut of = path.rsplit('/');
        let (name, namespace) = (of.next(), of.next().expect("tests stand in the folder of their namespace"));
        let [test, rules] = [*path, &path.replace("/tests/", "/rules/")]
            .map(|path| files.get(path).map(|text| text.replace(namespace, "namespace")));
        assert!(rules.is_some(), "{path} tests the rules of the same name");
        known.insert((name.map(str::to_owned), test, rules))
    })
}

#[test]
fn every_alert_is_raised_when_it_should_be_and_only_then() {
    let Some(promtool) = require_or_skip("promtool", Tool::Promtool.locate()) else { return };
    for name in EXAMPLES {
        let files = rendered(name).files;
        let folder = written(&files);
        let tests: Vec<PathBuf> = different_alerts(&files).map(|path| folder.path().join(path)).collect();
        assert!(!tests.is_empty(), "{name} has tests of its alerts");
        succeeds(&promtool, &["test", "rules"], tests);
    }
}

#[test]
fn a_test_fails_when_its_alert_has_another_limit() {
    let Some(promtool) = require_or_skip("promtool", Tool::Promtool.locate()) else { return };
    let mut files = rendered("mindcompute").files;
    let rules = files.get_mut("production/prometheus/rules/mindcompute/interview.yaml").expect("the service has rules");
    *rules = rules.replace("(175.2 * 0.005)", "(200 * 0.005)");
    let folder = written(&files);
    let test = folder.path().join("production/prometheus/tests/mindcompute/interview.yaml");
    let output = Command::new(promtool).args(["test", "rules"]).arg(test).output().expect("the tool can be started");
    assert!(!output.status.success(), "an alert that is never raised passes its test");
}

/// What somebody would be told of, in order, when an alert fires for an hour and nobody answers.
#[test]
fn an_alert_that_nobody_silences_goes_to_the_next_in_line() {
    let Some(promtool) = require_or_skip("promtool", Tool::Promtool.locate()) else { return };
    let files = rendered("mindcompute").files;
    let folder = written(&files);
    let itself = "      - exp_labels: { severity: critical, namespace: mindcompute, service: interview }\n        exp_annotations: { summary: 'No copy of interview answers.' }\n".to_owned();
    let escalated = |step: &str, to: &str| {
        format!(
            "      - exp_labels: {{ escalation: '{step}', severity: critical, namespace: mindcompute, service: interview }}\n        exp_annotations: {{ summary: 'ServiceDown has fired for {to} and nobody has silenced it.' }}\n"
        )
    };
    let at = |time: &str, alerts: &[String]| {
        format!(
            "    - eval_time: {time}\n      alertname: ServiceDown\n      exp_alerts:\n{}{}",
            itself,
            alerts.concat()
        )
    };
    let first = escalated("1", "10m");
    let text = format!(
        "rule_files: [rules/mindcompute/interview.yaml, rules/mindcompute/escalation.yaml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n  - {{ series: 'up{{namespace=\"mindcompute\",service=\"interview\"}}', values: '0x60' }}\n  alert_rule_test:\n{}{}{}",
        at("10m", &[]),
        at("20m", std::slice::from_ref(&first)),
        at("40m", &[first.clone(), escalated("2", "30m")]),
    );
    let path = folder.path().join("production/prometheus/escalation-test.yaml");
    std::fs::write(&path, text).expect("a file can be written");
    succeeds(&promtool, &["test", "rules"], [path]);
}

/// Kubernetes' own labels have dots, which are objects inside of objects to Elasticsearch unless the field is flattened.
#[test]
fn labels_with_and_without_dots_get_along_in_the_log_store() {
    let files = rendered("balance-alerts").files;
    let path = ending(&files, "elasticsearch/", "index-template.json").next().expect("logs go to Elasticsearch");
    let template: Value = serde_json::from_str(&files[path]).expect("it is JSON");
    let labels = "/template/mappings/properties/kubernetes/properties/labels/type";
    assert_eq!(template.pointer(labels), Some(&Value::from("flattened")));
}

/// Whether the collector takes a configuration, and what it says otherwise.
fn collector_takes(collector: &Path, path: &Path) -> Result<(), String> {
    let configuration = format!("--config=file:{}", path.display());
    let output = Command::new(collector).args(["validate", &configuration]).output().expect("it can be started");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn the_collector_takes_its_configuration_for_every_store_of_traces() {
    let Some(collector) = use_or_skip("otelcol", Tool::Collector.locate()) else { return };
    let examples = ["composerp", "mindcompute"].map(|name| (name.to_owned(), rendered(name).files));
    let of_store = |store: &str| {
        let text = format!("landfall: v1\nname: shop\nobservability: {{ traces: {store} }}\n");
        let file = landfall_model::File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(path.to_owned()));
        (store.to_owned(), monitoring(&[file.architecture(None).expect("it is an architecture")]).files)
    };
    let of_stores = ["jaeger", "tempo", "zipkin"].map(of_store);
    for (name, files) in examples.into_iter().chain(of_stores) {
        let folder = written(&files);
        let paths: Vec<&str> = ending(&files, "opentelemetry/", "collector.yaml").collect();
        assert!(!paths.is_empty(), "{name} has a collector");
        for path in paths {
            let path = folder.path().join(path);
            assert_eq!(collector_takes(&collector, &path), Ok(()), "{name}");
            // It reads what it is given: another name of a setting, or of a part, is refused.
            let text = std::fs::read_to_string(&path).expect("the file is there");
            for (right, wrong) in [("sampling_percentage", "sampled_percentage"), ("- forward\n", "- backward\n")] {
                std::fs::write(&path, text.replace(right, wrong)).expect("a file can be written");
                assert!(collector_takes(&collector, &path).is_err(), "{name}: {wrong} is taken");
            }
        }
    }
}

#[test]
fn amtool_leads_every_alert_to_whom_it_must_reach() {
    let Some(amtool) = require_or_skip("amtool", Tool::Amtool.locate()) else { return };
    for name in EXAMPLES {
        let files = rendered(name).files;
        let folder = written(&files);
        for path in ending(&files, "alertmanager/", "alertmanager.yaml") {
            let configuration = folder.path().join(path);
            succeeds(&amtool, &["check-config"], [configuration.clone()]);
            let tests = &files[&path.replace("alertmanager.yaml", "routes.test")];
            let lines: Vec<&str> = tests.lines().filter(|line| !line.starts_with('#')).collect();
            assert!(!lines.is_empty(), "{name}: {path} has tests");
            for line in lines {
                let (receiver, labels) = line.split_once(' ').expect("a receiver and labels");
                let flags =
                    [format!("--config.file={}", configuration.display()), format!("--verify.receivers={receiver}")];
                let mut arguments = vec!["config", "routes", "test", &flags[0], &flags[1]];
                arguments.extend(labels.split(' '));
                succeeds(&amtool, &arguments, []);
            }
        }
    }
}

/// Each query of the dashboards as a recording rule, which promtool reads with Prometheus' own parser.
#[test]
fn every_query_of_every_dashboard_is_a_query() {
    let Some(promtool) = require_or_skip("promtool", Tool::Promtool.locate()) else { return };
    for name in EXAMPLES {
        let files = rendered(name).files;
        let mut queries: BTreeSet<String> = BTreeSet::new();
        for path in ending(&files, "grafana/dashboards/", ".json") {
            let dashboard: Value = serde_json::from_str(&files[path]).expect("a dashboard is JSON");
            for panel in dashboard["panels"].as_array().into_iter().flatten() {
                let targets = panel["targets"].as_array().into_iter().flatten();
                queries.extend(
                    targets
                        .filter_map(|target| target["expr"].as_str())
                        .map(|query| query.replace("$__rate_interval", "5m")),
                );
                assert!(
                    panel["type"] == "row" || panel["targets"][0]["expr"].is_string(),
                    "{path}: a panel asks nothing: {panel}"
                );
            }
        }
        let rules: Vec<Value> = queries
            .iter()
            .enumerate()
            .map(|(place, query)| serde_json::json!({ "record": format!("query:{place}"), "expr": query }))
            .collect();
        assert!(rules.len() > 20, "{name} has {} queries", rules.len());
        let text = serde_json::json!({ "groups": [{ "name": "queries", "rules": rules }] }).to_string();
        let folder = written(&FileTree::from([("queries.yaml".to_owned(), text)]));
        succeeds(&promtool, &["check", "rules"], [folder.path().join("queries.yaml")]);
    }
}

#[test]
fn ids_of_dashboards_are_unique() {
    for name in EXAMPLES {
        for architecture in architectures(name) {
            let files = monitoring(std::slice::from_ref(&architecture)).files;
            let ids = ending(&files, "grafana/dashboards/", ".json").map(|path| {
                let dashboard: Value = serde_json::from_str(&files[path]).expect("a dashboard is JSON");
                dashboard["uid"].as_str().map(str::to_owned)
            });
            let ids: Vec<Option<String>> = ids.collect();
            let unique: BTreeSet<&Option<String>> = ids.iter().collect();
            assert_eq!(unique.len(), ids.len(), "{name}: {ids:?}");
        }
    }
}

#[test]
fn the_document_is_as_committed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let out = folder.path().to_str().expect("the path of a temporary folder is text");
    let said = run_in(&example("mindcompute"), &["render", "docs", "--out", out, "--today", TODAY]);
    assert!(said.starts_with("exit: 0\n"), "{said}");
    for path in ["architecture.md", "architecture.svg"] {
        let text = std::fs::read_to_string(folder.path().join(path)).expect("the document is written");
        check_text(&example("mindcompute").join("docs").join(path), &text);
    }
}

#[test]
fn what_its_author_writes_in_the_document_is_never_lost() {
    let folder = Folder::with("landfall: v1\nname: shop\nservices: { web: { port: 80 } }\n");
    let part = "<!-- landfall:begin services -->\nold\n<!-- landfall:end services -->";
    std::fs::create_dir(folder.path().join("docs")).expect("a folder can be made");
    let document = folder.path().join("docs/architecture.md");
    std::fs::write(&document, format!("# My words\n\n{part}\n\nMore of them.\n")).expect("a file can be written");
    let said = folder.run(&["render", "docs", "--out", "docs"]);
    assert!(said.starts_with("exit: 0\n"), "{said}");
    let text = std::fs::read_to_string(&document).expect("the document is there");
    assert!(text.starts_with("# My words\n\n<!-- landfall:begin services -->\n\n| service |"), "{text}");
    assert!(text.ends_with("<!-- landfall:end services -->\n\nMore of them.\n") && !text.contains("old"), "{text}");
    let said = folder.run(&["render", "docs", "--out", "docs", "--check"]);
    assert!(said.starts_with("exit: 0\n"), "{said}");
    // Another target in the same folder removes what `docs` wrote, and not what somebody else writes in.
    folder.run(&["render", "kubernetes", "--out", "docs"]);
    assert!(document.exists() && !folder.path().join("docs/architecture.svg").exists());
}

#[test]
fn mermaid_takes_every_diagram() {
    let Some(parser) = require_or_skip("Mermaid's parser", Tool::Mermaid.locate()) else { return };
    for name in EXAMPLES {
        let files = docs(&architectures(name), &[], None).files;
        let folder = written(&files);
        succeeds(Path::new("node"), &[], [parser.clone(), folder.path().join("architecture.md")]);
    }
}
