//! `landfall up` where something runs already: a second one takes over, a part runs in the place of the whole, and another project
//! runs beside it.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use landfall_standin::Server;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Folder;
use crate::platform::{Platform, until};
use crate::up::{are_here, ask, is_driven, list, room};
use crate::up_restore::sql;

const SHOP: &str = "
landfall: v1
name: shop
services:
  web:
    port: 8080
    expose: { host: shop.example, tls: letsencrypt }
    probes: { ready: { http: /ready, period: 1s } }
    uses: [{ call: stock }]
  stock:
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
    env: { GREETING: { value: hello } }
flows:
  order: { rate: 10/s, within: 10s, steps: [client -> web, web -> stock] }
environments: { here: {} }
";

fn write(folder: &Path, text: &str) {
    fs::write(folder.join("landfall.yaml"), text).expect("the file can be written");
}

/// The only copy of a service, with the processes of its container.
async fn copy_of(platform: &Platform, service: &str) -> (Pod, Vec<u32>) {
    let pods = Api::<Pod>::namespaced(platform.client().await, "shop");
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/name={service}"));
    let all = pods.list(&labels).await.expect("pods can be listed").items;
    let mut staying = all.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let (Some(pod), None) = (staying.next(), staying.next()) else { panic!("not one copy of {service}") };
    let processes = platform.processes_of(&pod.uid().expect("a pod has a uid"));
    (pod, processes)
}

fn greeting(pod: &Pod) -> Option<String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut variables = containers.flat_map(|container| container.env.iter().flatten());
    variables.find(|variable| variable.name == "GREETING").and_then(|variable| variable.value.clone())
}

#[test]
fn a_second_up_takes_over_and_restarts_only_what_has_changed() {
    let _room = room();
    let runtime = Runtime::new().expect("threads can be started");
    let folder = Folder::with(SHOP);
    let mut first = Platform::start(folder.path(), "shop", Some("here"), &["--duration", "1s"]);
    first.reported();
    let (web, web_processes) = runtime.block_on(copy_of(&first, "web"));
    let (stock, _) = runtime.block_on(copy_of(&first, "stock"));
    assert_eq!(greeting(&stock).as_deref(), Some("hello"));

    let refused = folder.run(&["up", "--once"]);
    assert!(refused.starts_with("exit: 1\n"), "{refused}");
    assert!(refused.contains("`--once` would take it over and stop it"), "{refused}");

    write(folder.path(), &SHOP.replace("hello", "good morning"));
    let mut second = first.another(&["--duration", "1s"]);
    let report = second.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    assert!(second.said().contains("0 objects new, 1 changed,"), "{}", second.said());
    assert_eq!(first.until_ended().code(), Some(0), "{}", first.said());
    assert!(first.said().contains("another `landfall up` has taken over"), "{}", first.said());
    let (web_after, web_processes_after) = runtime.block_on(copy_of(&second, "web"));
    assert_eq!((web_after.uid(), &web_processes_after), (web.uid(), &web_processes), "nothing about it has changed");
    let (stock_after, _) = runtime.block_on(copy_of(&second, "stock"));
    assert_ne!(stock_after.uid(), stock.uid());
    assert_eq!(greeting(&stock_after).as_deref(), Some("good morning"));

    // One that dies before it has taken over leaves the pods to the next.
    let mut third = second.another(&["--duration", "1s"]);
    third.until_said("this one takes over");
    third.kill();
    assert_eq!(second.until_ended().code(), Some(0), "{}", second.said());
    let mut fourth = third.another(&["--duration", "1s"]);
    let report = fourth.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    assert!(fourth.said().contains(" pods run on from before"), "{}", fourth.said());
    let (_, web_processes_after) = runtime.block_on(copy_of(&fourth, "web"));
    assert_eq!(web_processes_after, web_processes);
}

/// Two parts that share nothing but the host; one has a store.
const PARTS: &str = r#"
landfall: v1
name: shop
services:
  web:
    port: 8080
    expose: { host: shop.example, tls: letsencrypt }
    probes: { ready: { http: /ready, period: 1s } }
    env: { DATABASE_URL: { store: rows/url } }
    uses: [{ write: rows/orders }]
  mail:
    port: 8080
    expose: { host: shop.example, path: /mail, tls: letsencrypt }
    probes: { ready: { http: /ready, period: 1s } }
    uses: [{ send: carrier }]
stores:
  rows: { engine: postgres, version: "17", size: 1Gi }
externals:
  carrier: { profile: { latency: 5ms } }
flows:
  greet: { rate: 10/s, within: 30s, steps: [client -> mail, mail -> carrier] }
  order: { rate: 10/s, within: 30s, steps: [client -> web, web -> rows] }
environments: { here: {} }
"#;

/// What must not change of a store while it is left out: its volume, and its password.
async fn kept(platform: &Platform) -> (Option<String>, Option<String>) {
    let client = platform.client().await;
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), "shop");
    let secrets = Api::<Secret>::namespaced(client, "shop");
    let claim = claims.get("rows-1").await.expect("the claim of a member is called so");
    let secret = secrets.get("rows-app").await.expect("the secret of a store is called so");
    let password = secret.data.and_then(|mut data| data.remove("password"));
    (claim.uid(), password.map(|password| String::from_utf8_lossy(&password.0).into_owned()))
}

/// The services and stores that have pods.
async fn running(platform: &Platform) -> Vec<String> {
    let pods = Api::<Pod>::namespaced(platform.client().await, "shop");
    let all = pods.list(&ListParams::default()).await.expect("pods can be listed");
    let named = |pod: &Pod| {
        let labels = pod.labels();
        labels.get("cnpg.io/cluster").or_else(|| labels.get("app.kubernetes.io/name")).cloned()
    };
    let mut names: Vec<_> = all.iter().filter_map(named).collect();
    names.sort();
    names
}

#[test]
fn a_part_runs_in_the_place_of_the_whole_and_what_is_left_out_keeps_its_data() {
    let Some(()) = are_here(&[Server::Postgres]) else { return };
    let _room = room();
    let runtime = Runtime::new().expect("threads can be started");
    let folder = Folder::with(PARTS);
    let mut whole = Platform::start(folder.path(), "shop", Some("here"), &["--duration", "1s"]);
    let report = whole.reported();
    assert_eq!((&report["broken"], &report["part"]), (&json!([]), &Value::Null), "{report:#}");
    let before = runtime.block_on(kept(&whole));

    let mut part = whole.another(&["--duration", "1s", "--only", "mail"]);
    let report = part.reported();
    assert_eq!(whole.until_ended().code(), Some(0), "{}", whole.said());
    assert_eq!(report["broken"], json!([]), "{report:#}");
    let left_out = json!({ "only": ["mail"], "services": ["web"], "stores": ["rows"], "externals": [] });
    assert_eq!(report["part"], left_out, "{report:#}");
    let because = "service `web` is left out, as `--only` says";
    let edge = json!({ "edge": "web write rows/orders", "because": because, "left_out": true });
    assert_eq!(report["edges"]["missing"], json!([edge]), "{report:#}");
    let flows: Vec<_> = list(&report["flows"]).map(|flow| (&flow["left_out"], is_driven(flow))).collect();
    assert_eq!(flows, [(&json!(false), true), (&json!(true), false)], "{report:#}");
    runtime.block_on(until("the others' pods are gone", || async { (running(&part).await == ["mail"]).then_some(()) }));
    assert_eq!(ask(&part, &["status"]).0, Some(0), "all that is to be there is ready");
    assert_eq!(ask(&part, &["edges"]).0, Some(0));
    assert_eq!(ask(&part, &["flows", "--duration", "1s"]).0, Some(0));
    assert_eq!(runtime.block_on(kept(&part)), before);

    let mut again = part.another(&["--duration", "1s"]);
    let report = again.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    assert_eq!(runtime.block_on(kept(&again)), before);
    assert_eq!(runtime.block_on(running(&again)), ["mail", "rows", "web"]);
}

/// How many orders a store has, told to whoever logs in by its Secrets.
async fn orders(platform: &Platform) -> u64 {
    let counted = sql(platform.client().await, "rows-1", "select count(*) from orders").await;
    counted.parse().expect("a count is a number")
}

#[test]
fn a_store_that_comes_back_has_its_rows_and_its_password() {
    let Some(()) = are_here(&[Server::Postgres]) else { return };
    let _room = room();
    let runtime = Runtime::new().expect("threads can be started");
    let folder = Folder::with(PARTS);
    // Its first run has something in the place of the password that nobody has made yet.
    let without = ["--duration", "1s", "--without", "rows"];
    let mut first = Platform::start(folder.path(), "shop", Some("here"), &without);
    let because = "store `rows` was left out, as `--without` says";
    let broken = [
        format!("edge `web write rows/orders` is not tried: {because}"),
        format!("flow `order` is not tried: edge `web write rows/orders`: {because}"),
    ];
    assert_eq!(first.reported()["broken"], json!(broken));

    let mut whole = first.another(&["--duration", "1s"]);
    let report = whole.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    let before = runtime.block_on(kept(&whole));
    let orders_before = runtime.block_on(orders(&whole));
    assert!(orders_before > 0);

    let mut part = whole.another(&without);
    assert_eq!(part.reported()["broken"], json!(broken));
    assert_eq!(runtime.block_on(kept(&part)), before);

    let mut again = part.another(&["--duration", "1s"]);
    let report = again.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    assert_eq!(runtime.block_on(kept(&again)), before);
    assert!(runtime.block_on(orders(&again)) > orders_before);
}

#[test]
fn a_service_that_there_is_not_cannot_be_run_alone() {
    let folder = Folder::with(PARTS);
    insta::assert_snapshot!(folder.run(&["up", "--only", "mail", "wbe"]), @"
    exit: 2
    --- stderr
    error: there is no service `wbe` to run
    hint: did you mean `web`?
    ");
}

/// It has a job that has ended when the report is there.
const OFFICE: &str = r#"
landfall: v1
name: office
services:
  desk:
    port: 8080
    expose: { host: office.example, tls: letsencrypt }
    probes: { ready: { http: /ready, period: 1s } }
  archive:
    kind: scheduled-job
    schedule: { cron: "0 0 1 1 *", deadline: 1h }
    uses: [{ call: desk }]
environments: { here: {} }
"#;

#[test]
fn two_projects_run_beside_each_other_and_a_job_that_has_ended_is_well() {
    let _room = room();
    let folders = [Folder::with(SHOP), Folder::with(OFFICE)];
    let mut shop = Platform::start(folders[0].path(), "shop", Some("here"), &["--duration", "1s"]);
    let mut office = Platform::start(folders[1].path(), "office", Some("here"), &["--duration", "1s"]);
    for platform in [&mut shop, &mut office] {
        let report = platform.reported();
        assert_eq!(report["broken"], json!([]), "{report:#}");
    }
    let namespaces = |status: &Value| -> Vec<String> {
        let pods = list(&status["environments"][0]["pods"]);
        let mut all: Vec<_> = pods.filter_map(|pod| pod["namespace"].as_str().map(ToOwned::to_owned)).collect();
        all.dedup();
        all
    };
    let (code, status) = ask(&shop, &["status"]);
    assert_eq!((code, namespaces(&status)), (Some(0), vec!["shop".to_owned()]), "{status:#}");
    let (code, status) = ask(&office, &["status"]);
    assert_eq!((code, namespaces(&status)), (Some(0), vec!["office".to_owned()]), "{status:#}");
    let finished = list(&status["environments"][0]["pods"]).filter(|pod| pod["finished"] == true).count();
    assert!(finished > 0, "the job has run: {status:#}");

    let down = shop.command(&["down"]).status().expect("the program can be started");
    assert!(down.success());
    let carried = || {
        let (code, edges) = ask(&office, &["edges"]);
        (code, list(&edges["edges"]).count())
    };
    assert_eq!(ask(&office, &["status"]).0, Some(0), "the other one runs on");
    assert_eq!(carried(), (Some(0), 1));
    assert_eq!(ask(&shop, &["status"]).0, Some(1));
}
