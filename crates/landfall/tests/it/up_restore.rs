//! The log and the backups of a database: archived in the object store of the platform, and brought back to a point in time.

use std::fs;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use landfall_standin::{Server, find_server};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

use crate::platform::{Platform, until};
use crate::up::{are_here, room};

const SHOP: &str = r#"
landfall: v1
name: shop
services:
  web:
    image: web:1.0.0
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
    env: { DATABASE_URL: { store: rows/url } }
    uses: [{ write: rows/orders }]
stores:
  rows:
    engine: postgres
    version: "17"
    size: 1Gi
    backup: { full: 24h, log: 1m, keep: 7d, to: archive }
  archive: { engine: s3, size: 1Gi, encryption: { in-transit: true } }
"#;

#[test]
fn a_database_is_brought_back_to_a_point_in_time() {
    let Some(()) = are_here(&[Server::Postgres, Server::S3]) else { return };
    let _room = room();
    Runtime::new().expect("threads can be started").block_on(bring_back());
}

async fn bring_back() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder can be made");
    fs::write(folder.path().join("landfall.yaml"), SHOP).expect("a file can be written");
    let mut platform = Platform::start(folder.path(), "shop", None, &["--duration", "1s"]);
    platform.reported();
    let client = platform.client().await;
    let phase = |kind: &'static str, name: &'static str| {
        let client = client.clone();
        async move { of(&client, "postgresql.cnpg.io", kind).get(name).await.ok().map(|it| it.data["status"].clone()) }
    };
    until("the backup that is declared to be made at once", || async {
        phase("Backup", "rows-1").await.filter(|status| status["phase"] == "completed")
    })
    .await;

    let sql = |pod: &'static str, statement: &'static str| sql(client.clone(), pod, statement);
    sql("rows-1", "create table notes (text text); insert into notes values ('before')").await;
    // The point in time lies between the two, whole seconds away from both.
    sql("rows-1", "select pg_sleep(2)").await;
    let point = sql("rows-1", "select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')").await;
    sql("rows-1", "select pg_sleep(2)").await;
    sql("rows-1", "insert into notes values ('after'); select pg_switch_wal()").await;
    let last = sql("rows-1", "select pg_walfile_name(pg_switch_wal())").await;
    until("the log in the archive", || async {
        let archived = sql("rows-1", "select last_archived_wal from pg_stat_archiver").await;
        (archived >= last).then_some(())
    })
    .await;

    let original = of(&client, "postgresql.cnpg.io", "Cluster").get("rows").await.expect("the cluster is there");
    let plugin = &original.data["spec"]["plugins"][0];
    for object in [restored(plugin, &original.data["spec"]["imageName"], &point), way_to_the_archive(), way_in()] {
        create(&client, &object).await;
    }
    until("the cluster that is brought back", || async {
        phase("Cluster", "restored").await.filter(|status| status["phase"] == "Cluster in healthy state")
    })
    .await;
    assert_eq!(sql("restored-1", "select string_agg(text, ',') from notes").await, "before");
    assert_eq!(sql("rows-1", "select string_agg(text, ',') from notes").await, "before,after");
    assert_eq!(sql("restored-1", "select pg_is_in_recovery()").await, "f");

    create(&client, &often(&of(&client, "postgresql.cnpg.io", "ScheduledBackup").get("rows").await)).await;
    until("a backup that is due by its schedule", || async {
        let backups = of(&client, "postgresql.cnpg.io", "Backup").list(&ListParams::default()).await;
        let of_it = |backup: &&DynamicObject| backup.name_any().starts_with("often-");
        let mut backups = backups.as_ref().expect("backups can be listed").iter().filter(of_it);
        backups.any(|backup| backup.data["status"]["phase"] == "completed").then_some(())
    })
    .await;
}

/// The schedule that is rendered, every ten seconds and not at once.
fn often(rendered: &Result<DynamicObject, kube::Error>) -> Value {
    let mut spec = rendered.as_ref().expect("one is rendered").data["spec"].clone();
    spec["schedule"] = json!("*/10 * * * * *");
    spec["immediate"] = json!(false);
    json!({
        "apiVersion": "postgresql.cnpg.io/v1", "kind": "ScheduledBackup",
        "metadata": { "name": "often", "namespace": "shop" }, "spec": spec,
    })
}

/// A cluster that begins with the backup of another one and its log up to this time, as the operator's documents have it.
fn restored(plugin: &Value, image: &Value, point: &str) -> Value {
    let parameters = json!({ "barmanObjectName": plugin["parameters"]["barmanObjectName"], "serverName": "rows" });
    json!({
        "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster",
        "metadata": { "name": "restored", "namespace": "shop" },
        "spec": {
            "instances": 1,
            "imageName": image,
            "storage": { "size": "1Gi" },
            "bootstrap": {
                "recovery": {
                    "source": "rows", "database": "rows", "owner": "rows", "recoveryTarget": { "targetTime": point },
                },
            },
            "externalClusters": [{ "name": "rows", "plugin": { "name": plugin["name"], "parameters": parameters } }],
        },
    })
}

fn way_to_the_archive() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "restored", "namespace": "shop" },
        "spec": {
            "podSelector": { "matchLabels": { "cnpg.io/cluster": "restored" } },
            "policyTypes": ["Egress"],
            "egress": [{ "to": [{ "podSelector": {} }] }],
        },
    })
}

fn way_in() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "archive-of-restored", "namespace": "shop" },
        "spec": {
            "podSelector": { "matchLabels": { "app.kubernetes.io/name": "archive" } },
            "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "cnpg.io/cluster": "restored" } } }] }],
        },
    })
}

fn of(client: &Client, group: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    Api::namespaced_with(client.clone(), "shop", &resource)
}

async fn create(client: &Client, object: &Value) {
    let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, _) = version.split_once('/').expect("the kinds have a group");
    let parsed = serde_json::from_value(object.clone()).expect("an object has the form of one");
    of(client, group, &kind).create(&PostParams::default(), &parsed).await.expect("an object can be created");
}

/// What the last statement answers, asked by the superuser in the pod of a member.
pub(crate) async fn sql(client: Client, pod: &str, statement: &str) -> String {
    let psql = find_server(Server::Postgres).expect("the test was skipped otherwise").path.join("psql");
    let script = format!(
        "PGPASSWORD=$SUPERUSER_PASSWORD PGSSLMODE=require '{}' -h 127.0.0.1 -U postgres -d rows -qAtc \"$0\" 2>&1",
        psql.display()
    );
    let pods = Api::<Pod>::namespaced(client, "shop");
    let parameters = AttachParams::default().stdout(true).stderr(false).container("postgres");
    let mut process =
        pods.exec(pod, ["sh", "-c", &script, statement], &parameters).await.expect("a command can be run in a pod");
    let mut said = String::new();
    let mut stdout = process.stdout().expect("it was asked for");
    stdout.read_to_string(&mut said).await.expect("what it says can be read");
    let status = process.take_status().expect("it was not taken before").await;
    let succeeded = status.as_ref().and_then(|status| status.status.as_deref()) == Some("Success");
    assert!(succeeded, "{pod}: {statement}: {said}");
    said.trim().lines().last().unwrap_or_default().to_owned()
}
