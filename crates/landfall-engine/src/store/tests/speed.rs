//! Figures for a person who asks for them: `LANDFALL_BENCH=1 cargo test --release … speed -- --nocapture`.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{key, next, put};
use crate::store::{Draft, Expect, Revision, Store};

fn say(what: &str, figure: &str) {
    writeln!(std::io::stdout(), "{what:<44}{figure:>16}").expect("stdout is open");
}

fn rate(count: usize, elapsed: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = count as f64 / elapsed.as_secs_f64();
    format!("{rate:.0}/s")
}

/// About as large as a pod.
fn payload() -> Value {
    json!({"containers": (0..8).map(|n| json!({"name": n, "image": "x".repeat(400)})).collect::<Vec<_>>()})
}

async fn creates(store: &Store, clients: usize, each: usize) -> Duration {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        running.spawn(async move {
            let payload = payload();
            for n in 0..each {
                put(&store, &key(&format!("{clients}-{client}-{n}")), &payload).await;
            }
        });
    }
    running.join_all().await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_answers_under_load() {
    let scale = if std::env::var_os("LANDFALL_BENCH").is_some() { 10_000 } else { 64 };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let killed = tempfile::tempdir().expect("a temporary folder");
    for (name, path) in [("memory", None), ("disk", Some(folder.path()))] {
        let store = Store::open(path).expect("the folder is free");
        for clients in [1, 16, 64] {
            let each = scale / clients / if clients == 1 { 4 } else { 1 };
            let elapsed = creates(&store, clients, each).await;
            say(&format!("put, {name}, {clients} clients"), &rate(clients * each, elapsed));
        }
        if path.is_some() {
            // What somebody who is killed now leaves behind.
            for file in std::fs::read_dir(folder.path()).expect("the folder is there").flatten() {
                std::fs::copy(file.path(), killed.path().join(file.file_name())).expect("the file can be copied");
            }
        }
    }
    let open = |what: &str, folder: &Path| {
        let start = Instant::now();
        let store = Store::open(Some(folder)).expect("nobody else has the folder");
        say(
            &format!("open with {} objects{what}", store.count(&"pods".into(), None)),
            &format!("{:?}", start.elapsed()),
        );
        store
    };
    drop(open(", after a kill", killed.path()));
    let store = open("", folder.path());

    let start = Instant::now();
    for n in 0..scale {
        assert!(store.get(&key(&format!("64-0-{}", n % (scale / 64)))).is_some());
    }
    say("get", &rate(scale, start.elapsed()));
    let start = Instant::now();
    let listed = store.list(&"pods".into(), None).records.len();
    say(&format!("list {listed}"), &format!("{:?}", start.elapsed()));
    let start = Instant::now();
    let page = store.list_at(Revision(u64::MAX), &"pods".into(), None, None, 500).expect("now is known");
    say(&format!("page of {}", page.records.len()), &format!("{:?}", start.elapsed()));

    for watchers in [100, 1_000] {
        fan_out(watchers, scale / 10).await;
    }
}

async fn fan_out(watchers: usize, writes: usize) {
    let store = Store::open(None).expect("a store in memory needs nothing");
    let mut running = JoinSet::new();
    for _ in 0..watchers {
        let mut watch = store.watch(&"pods".into(), Revision::ZERO).expect("nothing is forgotten");
        running.spawn(async move {
            for _ in 0..writes {
                next(&mut watch).await.expect("the window is larger");
            }
            assert!(watch.next().now_or_never().is_none(), "there is nothing more");
        });
    }
    let start = Instant::now();
    for n in 0..writes {
        let key = key(&n.to_string());
        store.put(key, Expect::Absent, Draft::new(&json!({"spec": n}))).await.expect("nobody else writes");
    }
    running.join_all().await;
    say(&format!("fan-out, {watchers} watchers"), &rate(watchers * writes, start.elapsed()));
}
