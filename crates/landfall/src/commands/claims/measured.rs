//! What runs on this machine have shown of the claims, as the last report of each environment says it, the releases that were
//! shipped to what `up` runs, and the runs of the pipeline.
//!
//! It stands beside the state of a claim and does not change it: what holds here, with stand-ins and small operators, is no
//! evidence about a cluster. Not handled: what no run speaks of, see [`can_be_shown`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use landfall_check::LedgerRow;
use landfall_model::Architecture;
use serde::Serialize;
use serde_json::Value;

use super::pipelines;
use crate::commands::pipeline::{self, Run, folder_of};
use crate::commands::up::Place;

/// What evidence of `up` and `ship` may ask for and nothing that runs says anything about. `docs/ship.md` lists it.
const NOBODY_SHOWS: [&str; 9] = [
    "up: access",
    "up: alert",
    "up: data",
    "up: edge-layer cdn",
    "up: edge-layer load-balancer",
    "up: mesh",
    "up: region",
    "up: secrets",
    "up: sizing",
];

/// What no release shows by itself: `landfall gitops` does.
const GITOPS: &str = "ship: gitops";

/// The last report of each environment that has one.
pub(super) struct Runs<'a> {
    architecture: &'a Architecture,
    reports: Vec<Value>,
    releases: Vec<Value>,
    /// By their numbers.
    pipelines: Vec<Run>,
}

/// What one run has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Measured {
    /// What was to be measured, such as `up: edge balance events`.
    pub(crate) what: String,
    /// Whether it held.
    pub(crate) held: bool,
    /// Where it ran.
    pub(crate) environment: Option<String>,
    /// How far pods were kept apart, where that is known.
    pub(crate) isolation: Option<String>,
    /// The run of the pipeline that has shown it, if it was one.
    pub(crate) pipeline_run: Option<u32>,
}

impl Measured {
    /// Where it was, for people: `development, isolated by namespace, with stand-ins`.
    pub(super) fn place(&self) -> String {
        let run = self.pipeline_run.map(|run| format!("run {run} of the pipeline"));
        let stand_ins = run.is_none().then(|| "with stand-ins".to_owned());
        let isolation = self.isolation.as_ref().map(|isolation| format!("isolated by {isolation}"));
        let parts = [self.environment.clone(), run, isolation, stand_ins];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl<'a> Runs<'a> {
    /// Reads what `up` has left beside the file. What is no report is passed over: the next run writes another.
    pub(super) fn read(file: &Path, architecture: &'a Architecture, environments: &[Option<String>]) -> Self {
        let place =
            |environment: &Option<String>| Place::of(file, architecture.document.name.as_str(), environment.as_deref());
        let read = |path: PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
        let mut releases: Vec<PathBuf> = environments
            .iter()
            .filter_map(|environment| fs::read_dir(place(environment).releases()).ok())
            .flat_map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())))
            .collect();
        releases.sort();
        Self {
            architecture,
            reports: environments
                .iter()
                .filter_map(|environment| {
                    let mut report: Value = read(place(environment).report())?;
                    report["scaling"] = read(place(environment).scaling()).unwrap_or_default();
                    report["gitops"] = read(place(environment).gitops()).unwrap_or_default();
                    Some(report)
                })
                .collect(),
            releases: releases.into_iter().filter_map(read).collect(),
            pipelines: pipelines_of(file, architecture.document.name.as_str()),
        }
    }

    pub(super) fn are_there(&self) -> bool {
        !self.reports.is_empty() || !self.releases.is_empty() || !self.pipelines.is_empty()
    }

    /// What was measured of a claim, an item for each run that speaks of it.
    pub(super) fn of(&self, row: &LedgerRow) -> Vec<Measured> {
        let mut measured = Vec::new();
        for what in &row.to_measure {
            measured.extend(self.shipped(what));
            measured.extend(self.piped(what));
            let words = match what.strip_prefix("up: ") {
                Some(words) => words,
                None if what == GITOPS => what,
                None => continue,
            };
            let words: Vec<_> = words.split_whitespace().collect();
            measured.extend(self.reports.iter().filter_map(|report| {
                Some(Measured {
                    what: what.clone(),
                    held: self.held(report, &words)?,
                    environment: report["environment"].as_str().map(ToOwned::to_owned),
                    isolation: report["isolation"].as_str().map(ToOwned::to_owned),
                    pipeline_run: None,
                })
            }));
        }
        measured
    }

    /// What releases have shown: of each environment the last that speaks of it.
    fn shipped(&self, what: &str) -> Vec<Measured> {
        let Some(wanted) = what.strip_prefix("ship: ") else { return Vec::new() };
        let checklist: Vec<&str> =
            self.architecture.document.delivery.checklist.iter().map(|item| item.says.as_str()).collect();
        let mut last: BTreeMap<Option<String>, (u64, bool, Option<String>)> = BTreeMap::new();
        for kept in &self.releases {
            let release = &kept["release"];
            let environment = kept["environment"].as_str().map(ToOwned::to_owned);
            let words: Vec<&str> = wanted.split_whitespace().collect();
            let Some(held) = has_shown(release, environment.as_deref(), &words, &checklist) else { continue };
            let number = release["name"].as_str().and_then(|name| name.rsplit('-').next()?.parse().ok()).unwrap_or(0);
            let shown = (number, held, kept["isolation"].as_str().map(ToOwned::to_owned));
            match last.get(&environment) {
                Some(known) if known.0 > number => {}
                _ => drop(last.insert(environment, shown)),
            }
        }
        let measured = |(environment, (_, held, isolation))| Measured {
            what: what.to_owned(),
            held,
            environment,
            isolation,
            pipeline_run: None,
        };
        last.into_iter().map(measured).collect()
    }

    /// What runs of the pipeline have shown: of each environment the last that speaks of it.
    fn piped(&self, what: &str) -> Vec<Measured> {
        let Some(wanted) = what.strip_prefix("ship: ") else { return Vec::new() };
        let words: Vec<&str> = wanted.split_whitespace().collect();
        let mut last: BTreeMap<Option<String>, (u32, bool)> = BTreeMap::new();
        for run in &self.pipelines {
            let shown = pipelines::shown(run, &words).into_iter();
            last.extend(shown.map(|(environment, held)| (environment, (run.number, held))));
        }
        let measured = |(environment, (run, held))| Measured {
            what: what.to_owned(),
            held,
            environment,
            isolation: None,
            pipeline_run: Some(run),
        };
        last.into_iter().map(measured).collect()
    }

    /// Whether it held; `None` when the run has not tried it.
    fn held(&self, report: &Value, words: &[&str]) -> Option<bool> {
        // A part of the platform shows nothing of the whole.
        let of_one = matches!(*words, ["edge", _, _] | ["flow" | "store" | "route", _]);
        if !report["part"].is_null() && !of_one {
            return None;
        }
        let list = |pointer: &str| report.pointer(pointer).and_then(Value::as_array);
        let named = |pointer: &str, name: &str| list(pointer)?.iter().find(|item| item["name"] == name);
        match *words {
            ["edge", from, to] => {
                let between = |edge: &Value| is_between(edge["edge"].as_str().unwrap_or_default(), from, to);
                let mut connections = self.architecture.connections.iter();
                let declared = connections.any(|edge| edge.from.name() == from && edge.to.name() == to);
                let tried = declared && !list("/edges/missing")?.iter().any(between);
                // A mere connection says nothing of what it carries.
                let connected = list("/edges/connected")?.iter();
                let unknown = connected.filter_map(Value::as_str).any(|edge| is_between(edge, from, to));
                let silent = list("/edges/silent")?.iter().any(between);
                (tried && !unknown).then_some(!silent)
            }
            ["flow", name] => {
                let flow = named("/flows", name)?;
                // All of a few messages may be refused by accident: nobody knows of it then.
                let is_known = flow["missing"].is_null() && (flow["sent"] != 0 || !flow["problem"].is_null());
                is_known.then(|| flow["problem"].is_null())
            }
            ["store", name] => {
                let store = named("/stores", name)?;
                Some(store["ready"] == store["members"])
            }
            ["isolation"] => {
                let tried = report.pointer("/edges/undeclared").and_then(Value::as_u64) > Some(0);
                // What nothing closes was not tried: then nobody knows of the whole.
                let all = report.pointer("/edges/not_enforceable").and_then(Value::as_u64).is_none_or(|open| open == 0);
                (tried && all).then(|| list("/edges/reachable").is_some_and(Vec::is_empty))
            }
            ["service", name] => {
                let ready = named("/services", name)?["ready"].as_u64() > Some(0);
                let open = list("/edges/reachable")?.iter().filter_map(Value::as_str);
                let is_open =
                    open.filter_map(|pair| pair.split_once(" -> ")).any(|(from, to)| from == name || to == name);
                Some(ready && !is_open)
            }
            ["contracts"] => {
                let flows: Vec<u64> = list("/flows")?
                    .iter()
                    .filter(|flow| flow["schema"].is_string() && flow["missing"].is_null())
                    .filter_map(|flow| flow["invalid"].as_u64())
                    .collect();
                (!flows.is_empty()).then(|| flows.iter().all(|invalid| *invalid == 0))
            }
            ["routes"] => all_hold(list("/routes")?.iter()),
            ["route", name] => {
                let own = || list("/routes").into_iter().flatten().filter(|route| route["service"] == name);
                let undecided = own().any(|route| route["limit"]["undecided"] == true);
                all_hold(own()).filter(|_| !undecided)
            }
            ["waf"] | ["edge-layer", "waf"] => {
                // Of the others nobody knows.
                let all = list("/firewall/passed_over")?.is_empty();
                refused(list("/firewall/hosts")?).filter(|_| all)
            }
            ["tls"] => all_hold(list("/routes")?.iter().filter(|route| route["tls"] == true)),
            ["metrics"] => scraped(list("/metrics/targets")?.iter()),
            ["metrics", "business"] => {
                let metrics = list("/metrics/business")?;
                (!metrics.is_empty()).then(|| metrics.iter().all(|metric| metric["found"] == true))
            }
            ["metrics", namespace] => {
                scraped(list("/metrics/targets")?.iter().filter(|target| target["namespace"] == namespace))
            }
            ["observability"] => {
                let [metrics, logs] = [["metrics"], ["logs"]].map(|words| self.held(report, &words));
                Some(metrics? && logs?)
            }
            ["logs"] => {
                let services = list("/logs/services")?;
                let lost = services.iter().any(|service| service["found"] == false);
                Some(!lost && services.iter().any(|service| service["lines"].as_u64() > Some(0)))
            }
            ["logs", "json"] => {
                let plain: Vec<u64> =
                    list("/logs/services")?.iter().filter_map(|one| one["not_json"].as_u64()).collect();
                (!plain.is_empty()).then(|| plain.iter().all(|lines| *lines == 0))
            }
            ["traces", "latency"] => list("/traces/edges").map(|edges| !edges.is_empty()),
            ["traces", flow] => {
                let flow = named("/traces/flows", flow)?;
                Some(flow["trace"].is_string() && flow["missing"].as_array().is_some_and(Vec::is_empty))
            }
            ["scaling", service] => {
                let own: Vec<&Value> =
                    list("/scaling/services")?.iter().filter(|own| own["service"] == service).collect();
                // By what was not tried it may not scale.
                let all = !own.is_empty() && own.iter().all(|own| own["missing"].is_null());
                all_hold(own.into_iter()).filter(|_| all)
            }
            ["ship:", "gitops"] => all_hold(list("/gitops/steps")?.iter()),
            ["window", name] => all_hold(list("/scaling/windows")?.iter().filter(|own| own["window"] == name)),
            ["graph"] => {
                let calls = list("/traces/calls")?;
                (!calls.is_empty()).then(|| calls.iter().all(|call| call["declared"] == true))
            }
            ["environment", name] | [name @ ("production" | "development")] => {
                (report["environment"] == name).then(|| report["pods"]["ready"] == report["pods"]["total"])
            }
            ["all"] => Some(list("/broken")?.is_empty() && report["pods"]["ready"] == report["pods"]["total"]),
            _ => None,
        }
    }
}

/// The runs of the pipeline that were kept beside the file. What cannot be read is passed over.
fn pipelines_of(file: &Path, name: &str) -> Vec<Run> {
    let Ok(folder) = folder_of(file) else { return Vec::new() };
    let runs = pipeline::Runs::beside(&folder);
    let all = (1..=runs.last().unwrap_or(0)).filter_map(|number| runs.read(number).ok());
    all.filter(|run| run.name == name).collect()
}

/// Whether there is a run that could show it. There are no drills yet.
pub(super) fn can_be_shown(what: &str) -> bool {
    let is_word = |word: &&str| what.strip_prefix(*word).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    !what.starts_with("drill: ") && !NOBODY_SHOWS.iter().any(is_word)
}

/// Whether none of these has a problem; `None` when there are none.
fn all_hold<'a>(items: impl Iterator<Item = &'a Value>) -> Option<bool> {
    let mut items = items.peekable();
    items.peek().is_some().then(|| items.all(|item| item["problem"].is_null()))
}

/// Whether the firewall refuses every attack on these hosts, and no ordinary request; `None` when there are none.
fn refused(hosts: &[Value]) -> Option<bool> {
    let all = |list: &Value, refused: bool| {
        list.as_array().is_some_and(|list| list.iter().all(|one| !one["answer"].is_null() && one["refused"] == refused))
    };
    (!hosts.is_empty()).then(|| hosts.iter().all(|host| all(&host["attacks"], true) && all(&host["ordinary"], false)))
}

/// Whether Prometheus gets to every copy of these; `None` when there are none.
fn scraped<'a>(targets: impl Iterator<Item = &'a Value>) -> Option<bool> {
    let mut targets = targets.peekable();
    let all = |target: &Value| target["copies"].as_u64() > Some(0) && target["scraped"] == target["copies"];
    targets.peek().is_some().then(|| targets.all(all))
}

/// Whether a release has shown what is wanted of releases; `None` when it says nothing about that.
fn has_shown(release: &Value, environment: Option<&str>, words: &[&str], checklist: &[&str]) -> Option<bool> {
    let list = |key: &str| release[key].as_array().into_iter().flatten();
    let state = release["state"].as_str()?;
    let by = |strategy: &str| list("services").any(|service| service["by"] == strategy);
    let gate = |wanted: &dyn Fn(&str) -> bool| {
        list("gates").any(|gate| gate["standing"] == "open" && gate["gate"].as_str().is_some_and(wanted))
    };
    // Later than is promised is not what was promised.
    let in_time = release["way_back"]["kept"] != false;
    let went_back = match state {
        // What never began has not gone back.
        "RolledBack" => release["way_back"].is_object().then_some(in_time),
        "Failed" => Some(false),
        "Succeeded" if release["takes_back"].is_string() => Some(in_time),
        _ => None,
    };
    match *words {
        ["rolling"] => (state == "Succeeded" && by("rolling")).then_some(true),
        // Judged to either end.
        ["canary"] => {
            let judged = state == "Succeeded" || release["last_verdict"]["verdict"] == "fail";
            (by("canary") && judged).then_some(true)
        }
        ["rollback"] => went_back,
        ["rollback", place] if environment == Some(place) => went_back,
        ["digests"] => {
            let has_one = |service: &Value| service["to"].as_str().is_some_and(|image| image.contains("@sha256:"));
            (state == "Succeeded" && list("services").all(has_one)).then_some(true)
        }
        ["approval"] => gate(&|name| name.starts_with("approved by ")).then_some(true),
        ["promotion"] => gate(&|name| name.starts_with("has run in ")).then_some(true),
        ["checklist"] if !checklist.is_empty() => {
            checklist.iter().all(|item| gate(&|name| name == *item)).then_some(true)
        }
        _ => None,
    }
}

/// `balance publish events/balance.changed` is between `balance` and `events`.
fn is_between(edge: &str, from: &str, to: &str) -> bool {
    let mut words = edge.split(' ');
    let begins = words.next() == Some(from);
    let end = words.nth(1).and_then(|end| end.split('/').next());
    begins && end == Some(to)
}

/// `2 of 3`, or `1 of 3, 1 broke`: how much of what can be measured was.
pub(super) fn summary(row: &LedgerRow, measured: &[Measured]) -> String {
    let held = |what: &String| {
        let mut of_it = measured.iter().filter(|item| item.what == *what).peekable();
        of_it.peek().is_some().then(|| of_it.all(|item| item.held))
    };
    let count = |wanted: bool| row.to_measure.iter().filter(|what| held(what) == Some(wanted)).count();
    let can_be = row.to_measure.iter().filter(|what| can_be_shown(what)).count();
    match (can_be, count(true), count(false)) {
        (0, ..) if row.to_measure.is_empty() => "-".to_owned(),
        (0, ..) => "no run shows this yet".to_owned(),
        (all, held, 0) => format!("{held} of {all}"),
        (all, held, broke) => format!("{held} of {all}, {broke} broke"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_shows_how_it_went_and_which_gates_it_passed() {
        let release = serde_json::json!({
            "name": "shop-3", "state": "Succeeded", "takes_back": null, "services": [{ "name": "web", "by": "canary" }],
            "last_verdict": { "verdict": "pass" },
            "gates": [
                { "gate": "approved by 2 of leads", "standing": "open" },
                { "gate": "The tests have passed", "standing": "open" },
                { "gate": "Somebody is on call", "standing": "closed" },
            ],
        });
        let shows = |release: &Value, words: &str, checklist: &[&str]| {
            has_shown(release, Some("staging"), &words.split(' ').collect::<Vec<_>>(), checklist)
        };
        assert_eq!(shows(&release, "canary", &[]), Some(true));
        assert_eq!(shows(&release, "rolling", &[]), None, "nothing went copy by copy");
        assert_eq!(shows(&release, "rollback", &[]), None, "it did not go back");
        assert_eq!(shows(&release, "approval", &[]), Some(true));
        assert_eq!(shows(&release, "promotion", &[]), None);
        assert_eq!(shows(&release, "checklist", &["The tests have passed"]), Some(true));
        assert_eq!(shows(&release, "checklist", &["The tests have passed", "Somebody is on call"]), None);
        let mut bad = release;
        bad["state"] = "RolledBack".into();
        bad["last_verdict"]["verdict"] = "fail".into();
        assert_eq!(shows(&bad, "canary", &[]), Some(true), "it was judged");
        assert_eq!(shows(&bad, "rollback", &[]), None, "it has not begun");
        bad["way_back"] = serde_json::json!({ "seconds": 12, "promised_seconds": null, "kept": null });
        assert_eq!((shows(&bad, "rollback staging", &[]), shows(&bad, "rollback production", &[])), (Some(true), None));
        bad["way_back"] = serde_json::json!({ "seconds": 301, "promised_seconds": 300, "kept": false });
        assert_eq!(shows(&bad, "rollback", &[]), Some(false), "it went back, and later than is promised");
        bad["state"] = "Failed".into();
        assert_eq!(shows(&bad, "rollback", &[]), Some(false), "it did not get back");
    }

    #[test]
    fn a_release_has_digests_when_each_of_its_images_has_one() {
        let shows = |images: &[&str]| {
            let services: Vec<_> =
                images.iter().map(|image| serde_json::json!({ "name": "web", "to": image })).collect();
            let release = serde_json::json!({ "name": "shop-1", "state": "Succeeded", "services": services });
            has_shown(&release, None, &["digests"], &[])
        };
        assert_eq!(shows(&["shop/web@sha256:aa", "shop/api:2@sha256:bb"]), Some(true));
        assert_eq!(shows(&["shop/web@sha256:aa", "shop/api:2"]), None);
    }

    #[test]
    fn a_firewall_holds_that_refuses_every_attack_and_no_ordinary_request() {
        let host = |attack: bool, ordinary: bool| {
            serde_json::json!({
                "attacks": [{ "answer": 403, "refused": true }, { "answer": 403, "refused": attack }],
                "ordinary": [{ "answer": 200, "refused": ordinary }],
            })
        };
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[host(true, false)]), Some(true));
        assert_eq!(refused(&[host(true, false), host(false, false)]), Some(false));
        assert_eq!(refused(&[host(true, true)]), Some(false));
        let silent = serde_json::json!({ "attacks": [], "ordinary": [{ "answer": null, "refused": false }] });
        assert_eq!(refused(&[silent]), Some(false), "nobody answers");
    }

    #[test]
    fn what_no_run_speaks_of_is_not_counted() {
        let row = |to_measure: &[&str]| LedgerRow {
            id: "A01".to_owned(),
            says: "It is promised".to_owned(),
            line: None,
            state: landfall_check::ClaimState::Proved,
            evidence: Vec::new(),
            to_measure: to_measure.iter().map(|what| (*what).to_owned()).collect(),
            span: landfall_model::Span::NONE,
        };
        let measured = |what: &str, held| Measured {
            what: what.to_owned(),
            held,
            environment: None,
            isolation: None,
            pipeline_run: Some(7),
        };
        let check = |to_measure: &[&str], all: &[Measured], expected: &str| {
            assert_eq!(summary(&row(to_measure), all), expected, "{to_measure:?}");
        };
        check(&[], &[], "-");
        check(&["drill: pod cache", "up: edge-layer cdn", "up: mesh"], &[], "no run shows this yet");
        check(&["up: edge a b", "drill: pod a"], &[measured("up: edge a b", true)], "1 of 1");
        check(&["ship: smoke", "ship: scan"], &[measured("ship: smoke", false)], "0 of 2, 1 broke");
        assert_eq!(measured("ship: smoke", true).place(), "run 7 of the pipeline");
    }

    #[test]
    fn an_edge_is_between_the_one_that_begins_it_and_its_target() {
        assert!(is_between("balance publish events/balance.changed", "balance", "events"));
        assert!(is_between("web call stock", "web", "stock"));
        assert!(!is_between("web call stock", "stock", "web"));
        assert!(!is_between("web call stock-room", "web", "stock"));
    }
}
