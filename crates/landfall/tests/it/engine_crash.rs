//! `kill -9` of the engine under write load: what was acknowledged is there afterwards, nothing is there by half.
//!
//! `LANDFALL_SEED` repeats a run, `LANDFALL_ROUNDS` makes it longer than the rounds of a commit.
#![expect(clippy::print_stdout, reason = "a random test says how to repeat it")]

mod hostile;
mod load;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::client::Body;
use kube::{Api, Client};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::load::{Follower, Writer};
use crate::running_engine::{POLL, RunningEngine};

/// How many clients write at the same time.
const WRITERS: u64 = 16;

/// How often the engine is killed unless `LANDFALL_ROUNDS` says otherwise.
const ROUNDS: u64 = 30;

/// The longest time that it is left alone for.
const LONGEST_LIFE: Duration = Duration::from_millis(400);

/// How long anything may take that has to happen after a restart.
const PATIENCE: Duration = Duration::from_secs(30);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("`{name}` is a number, not `{text}`")))
}

#[test]
fn no_acknowledged_write_is_lost_when_the_engine_is_killed() {
    let seed = setting("LANDFALL_SEED").unwrap_or_else(rand::random);
    let rounds = setting("LANDFALL_ROUNDS").unwrap_or(ROUNDS);
    println!("LANDFALL_SEED={seed} LANDFALL_ROUNDS={rounds}");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let nodes = folder.path().join("nodes.yaml");
    std::fs::write(&nodes, "nodes: []\n").expect("a file can be written");
    let nodes = nodes.to_str().expect("temporary folders have plain names");
    let start = || RunningEngine::start(folder.path(), "images: []", &["--nodes", nodes, "--network", "loopback"]);

    let mut random = StdRng::seed_from_u64(seed);
    let mut writers: Vec<_> =
        (0..WRITERS).map(|number| Writer::new(number, StdRng::seed_from_u64(seed.wrapping_add(number)))).collect();
    let mut written = 0;
    tokio::runtime::Runtime::new().expect("threads can be started").block_on(async {
        let mut engine = start();
        let mut client = engine.client().await;
        let deployment = serde_json::from_value(load::deployment()).expect("it is one");
        let deployments = Api::<Deployment>::default_namespaced(client.clone());
        deployments.create(&PostParams::default(), &deployment).await.expect("it is made");
        let mut follower = Follower::start(&client).await;
        for round in 0..rounds {
            let mut load = JoinSet::new();
            for writer in writers.drain(..) {
                load.spawn(writer.write_until_it_fails(client.clone()));
            }
            // The moment is what is random: it falls anywhere in the life of a write.
            let life = LONGEST_LIFE.mul_f64(random.random());
            let followed = tokio::select! {
                () = follower.follow() => panic!("{round}: the watch ended before the engine did"),
                () = sleep(life) => follower,
            };
            engine.kill();
            follower = followed;
            writers = load.join_all().await;

            engine = start();
            client = engine.client().await;
            let maps = Api::<ConfigMap>::default_namespaced(client.clone());
            let found = maps.list(&ListParams::default()).await.expect("they can be listed");
            let found: BTreeMap<_, _> = found.items.into_iter().map(|map| (load::name(&map), map)).collect();
            for writer in &mut writers {
                written += writer.compare(&found).unwrap_or_else(|why| panic!("round {round}: {why}"));
            }
            follower.catch_up(&client, round).await.unwrap_or_else(|why| panic!("round {round}: {why}"));
            timeout(PATIENCE, controllers_converge(&client))
                .await
                .unwrap_or_else(|_| panic!("round {round}: the Deployment has not the pods that it asks for"));
        }
    });
    println!("{written} acknowledged writes were there");
    assert!(written > rounds, "the load was no load: {written} writes in {rounds} rounds");
}

/// Waits until the deployment has as many pods as it asks for; no node runs them.
async fn controllers_converge(client: &Client) {
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    let pods = Api::<Pod>::default_namespaced(client.clone());
    loop {
        let deployment = deployments.get("web").await.expect("it is there");
        let pods = pods.list(&ListParams::default().labels("app=web")).await.expect("they can be listed");
        let living = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
        let (spec, status) = (deployment.spec.unwrap_or_default(), deployment.status.unwrap_or_default());
        if usize::try_from(spec.replicas.unwrap_or(1)) == Ok(living)
            && status.replicas == spec.replicas
            && status.observed_generation == deployment.metadata.generation
        {
            return;
        }
        sleep(POLL).await;
    }
}

#[test]
fn the_ports_of_a_killed_engine_are_taken_again() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let start = || RunningEngine::start(folder.path(), "images: []", &["--network", "loopback"]);
    let kubeconfig = |engine: &RunningEngine| std::fs::read_to_string(engine.kubeconfig()).expect("it is written");
    let gateway = || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(folder.path().join("engine.log")).expect("the engine has a log");
            if let Some(line) = log.lines().find(|line| line.contains("gateway:")) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "it does not say where the gateway is:\n{log}");
            std::thread::sleep(POLL);
        }
    };
    let engine = start();
    let before = kubeconfig(&engine);
    let gateway_before = gateway();
    engine.kill();
    let server = |text: &str| text.lines().find(|line| line.contains("server:")).map(str::to_owned);
    let engine = start();
    assert_eq!(server(&kubeconfig(&engine)), server(&before), "{}", json!(before));
    assert_eq!(gateway(), gateway_before);
}

/// The code and the body of what is answered to a `GET`.
async fn get(client: &Client, path: &str) -> (u16, Value) {
    let request = http::Request::get(path).body(Body::empty()).expect("it is a request");
    let answer = client.send(request).await.expect("there is an answer");
    let code = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await.expect("it has a body");
    (code, serde_json::from_slice(&body).expect("it is JSON"))
}

#[test]
fn who_goes_on_from_before_a_restart_is_told_that_it_is_too_long_ago() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let create = async |client: &Client, name: &str| {
        let map = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("it is one");
        let maps = Api::<ConfigMap>::default_namespaced(client.clone());
        maps.create(&PostParams::default(), &map).await.expect("it is made");
    };
    let engine = RunningEngine::api_only(folder.path());
    let page = runtime.block_on(async {
        let client = engine.client().await;
        for name in ["a", "b", "c"] {
            create(&client, name).await;
        }
        let (code, page) = get(&client, &format!("{MAPS}?limit=1")).await;
        assert_eq!((code, &page["items"][0]["metadata"]["name"]), (200, &json!("a")), "{page}");
        create(&client, "d").await;
        page["metadata"].clone()
    });
    drop(engine);

    let engine = RunningEngine::api_only(folder.path());
    runtime.block_on(async {
        let client = engine.client().await;
        let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
        let (code, refused) = get(&client, &format!("{MAPS}?limit=1&continue={}", text(&page["continue"]))).await;
        assert_eq!((code, &refused["reason"]), (410, &json!("Expired")), "{refused}");
        // The answer says how to go on with what is there by now.
        let onward = text(&refused["metadata"]["continue"]);
        let (code, rest) = get(&client, &format!("{MAPS}?continue={onward}")).await;
        let names = rest["items"].as_array().into_iter().flatten().map(|map| text(&map["metadata"]["name"]));
        assert_eq!((code, names.collect::<Vec<_>>()), (200, ["b", "c", "d"].map(str::to_owned).to_vec()));

        let maps = Api::<ConfigMap>::default_namespaced(client);
        let events = maps.watch(&WatchParams::default(), &text(&page["resourceVersion"])).await;
        let mut events = std::pin::pin!(events.expect("the watch begins"));
        let first = timeout(PATIENCE, events.try_next()).await.expect("in time").expect("an event");
        let Some(WatchEvent::Error(status)) = first else { panic!("{first:?}") };
        assert_eq!((status.code, status.reason.as_str()), (410, "Expired"), "{}", status.message);
        assert!(timeout(PATIENCE, events.try_next()).await.expect("in time").expect("an end").is_none());
    });
}
