//! `kube-rs`: watchers in both modes, a controller that owns what it makes, server-side apply with a conflict.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use super::IMAGES;
use crate::running_engine::RunningEngine;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `test` against an engine of its own.
fn with_engine<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let engine = RunningEngine::start(folder.path(), IMAGES, &["--network", "loopback"]);
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let client = engine.client().await;
        tokio::time::timeout(PATIENCE, test(client)).await.expect("it ends in time");
    });
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "of": "test" } } })).expect("it is one")
}

/// What a watcher says of an object that is there, one that comes and one that goes.
async fn a_watcher_sees_everything(client: Client, config: Config) {
    let maps = Api::<ConfigMap>::default_namespaced(client);
    maps.create(&PostParams::default(), &config_map("before")).await.expect("it is made");
    let mut events = std::pin::pin!(watcher(maps.clone(), config.labels("of=test")));
    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await.expect("the watch goes on") {
        match event {
            Event::Init => seen.push("init".to_owned()),
            Event::InitApply(map) => seen.push(format!("there {}", map.name_any())),
            Event::InitDone => {
                seen.push("done".to_owned());
                maps.create(&PostParams::default(), &config_map("after")).await.expect("it is made");
            }
            Event::Apply(map) => {
                seen.push(format!("apply {}", map.name_any()));
                maps.delete("before", &DeleteParams::default()).await.expect("it is deleted");
            }
            Event::Delete(map) => {
                seen.push(format!("delete {}", map.name_any()));
                break;
            }
        }
    }
    assert_eq!(seen, ["init", "there before", "done", "apply after", "delete before"]);
}

#[test]
fn a_watcher_that_lists_first_sees_everything_once() {
    with_engine(|client| a_watcher_sees_everything(client, Config::default()));
}

#[test]
fn a_watcher_that_streams_its_list_sees_everything_once() {
    with_engine(|client| a_watcher_sees_everything(client, Config::default().streaming_lists()));
}

/// Makes the secret that belongs to a map.
async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let owner = map.controller_owner_ref(&()).expect("what was read has a name and a uid");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": map.name_any(), "ownerReferences": [owner] },
        "stringData": { "from": map.name_any() },
    });
    let secrets = Api::<Secret>::default_namespaced(client.as_ref().clone());
    secrets.patch(&map.name_any(), &PatchParams::apply("controller"), &Patch::Apply(secret)).await?;
    Ok(Action::await_change())
}

#[test]
fn a_controller_makes_again_what_it_owns_and_the_collector_takes_it_away() {
    with_engine(|client| async move {
        let maps = Api::<ConfigMap>::default_namespaced(client.clone());
        let secrets = Api::<Secret>::default_namespaced(client.clone());
        maps.create(&PostParams::default(), &config_map("owner")).await.expect("it is made");
        let controller = Controller::new(maps.clone(), Config::default().labels("of=test"))
            .owns(secrets.clone(), Config::default())
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(client))
            .for_each(|_| std::future::ready(()));
        let drive = async {
            let mut uids = BTreeSet::new();
            let mut live = std::pin::pin!(watcher(secrets.clone(), Config::default()).applied_objects());
            while let Some(secret) = live.try_next().await.expect("the watch goes on") {
                if secret.name_any() != "owner" || !uids.insert(secret.uid()) {
                    continue;
                }
                if uids.len() == 2 {
                    break;
                }
                secrets.delete("owner", &DeleteParams::default()).await.expect("it is deleted");
            }
        };
        tokio::select! {
            () = controller => panic!("a controller runs until it is stopped"),
            () = drive => {}
        }
        maps.delete("owner", &DeleteParams::background()).await.expect("it is deleted");
        let gone = kube::runtime::wait::await_condition(secrets, "owner", |secret: Option<&Secret>| secret.is_none());
        gone.await.expect("the watch goes on");
    });
}

#[test]
fn two_appliers_of_one_field_conflict_until_one_of_them_forces_it() {
    with_engine(|client| async move {
        let maps = Api::<ConfigMap>::default_namespaced(client);
        let apply = |manager: &'static str, force: bool, value: &'static str| {
            let mut parameters = PatchParams::apply(manager);
            parameters.force = force;
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "shared" }, "data": { "key": value },
            });
            let maps = maps.clone();
            async move { maps.patch("shared", &parameters, &Patch::Apply(object)).await }
        };
        apply("one", false, "1").await.expect("nobody else has it");
        let refused = apply("two", false, "2").await.expect_err("it belongs to another");
        let kube::Error::Api(status) = refused else { panic!("not an answer: {refused}") };
        let causes = serde_json::to_value(&status.details).expect("it is plain data")["causes"].clone();
        insta::assert_snapshot!(
            format!("{} {}: {}", status.code, status.reason, status.message),
            @r#"409 Conflict: Apply failed with 1 conflict: conflict with "one": .data.key"#
        );
        assert_eq!(causes[0]["field"], Value::from(".data.key"));
        let shared = apply("two", true, "2").await.expect("it is forced");
        assert_eq!(shared.data.expect("it has data")["key"], "2");
    });
}
