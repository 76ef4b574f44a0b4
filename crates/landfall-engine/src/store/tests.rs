//! The store from outside: against a simple model, under watchers, on failing disks, and killed at random points.

mod crash;
mod failure;
mod model;
mod speed;

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::{CommitError, Draft, Event, EventKind, Expect, Expired, Key, OpenError, Record, Store, Watch, Write};

fn store() -> Store {
    Store::open(None).expect("a store in memory needs nothing")
}

fn key(name: &str) -> Key {
    in_namespace("default", name)
}

fn in_namespace(namespace: &str, name: &str) -> Key {
    Key::new(&"pods".into(), namespace, name)
}

fn draft(key: &Key, content: &Value) -> Draft {
    let metadata = json!({"name": &*key.name, "namespace": &*key.namespace, "resourceVersion": "17", "uid": "u"});
    Draft::new(&json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": content}))
}

/// Writes whatever is there.
async fn put(store: &Store, key: &Key, content: &Value) -> std::sync::Arc<Record> {
    let expect = store.get(key).map_or(Expect::Absent, |record| Expect::Exactly(record.revision()));
    store.put(key.clone(), expect, draft(key, content)).await.expect("nobody else writes")
}

async fn delete(store: &Store, key: &Key) -> std::sync::Arc<Record> {
    let record = store.get(key).expect("the object is there");
    store.delete(key, Expect::Exactly(record.revision()), Draft::of(&record)).await.expect("nobody else writes")
}

async fn next(watch: &mut Watch) -> Result<std::sync::Arc<Event>, Expired> {
    let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    next.expect("the event comes").expect("a watch does not end")
}

#[tokio::test]
async fn the_revision_is_put_into_the_object_and_nothing_else_changes() {
    let store = store();
    let record = put(&store, &key("a"), &json!({"b": 1, "a": [2.5, "x\"y"]})).await;
    insta::assert_snapshot!(
        std::str::from_utf8(record.json()).expect("JSON is UTF-8"),
        @r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"default","resourceVersion":"1","uid":"u"},"spec":{"b":1,"a":[2.5,"x\"y"]}}"#
    );
    assert_eq!(record.value()["metadata"]["resourceVersion"], "1");
}

#[tokio::test]
async fn an_object_without_metadata_gets_one() {
    let store = store();
    let record = store.put(key("a"), Expect::Absent, Draft::new(&json!({}))).await.expect("nothing is there");
    assert_eq!(&record.json()[..], br#"{"metadata":{"resourceVersion":"1"}}"#);
    assert_eq!(record.metadata(), r#"{"resourceVersion":"1"}"#);
}

#[tokio::test]
async fn a_writer_who_expected_something_else_is_told_what_is_there() {
    let store = store();
    let first = put(&store, &key("a"), &json!(1)).await;
    let second = put(&store, &key("a"), &json!(2)).await;
    let stale = store.put(key("a"), Expect::Exactly(first.revision()), draft(&key("a"), &json!(3))).await;
    let Err(CommitError::Conflict { current: Some(current) }) = stale else { panic!("{stale:?}") };
    assert_eq!(current.revision(), second.revision());
    let existing = store.put(key("a"), Expect::Absent, draft(&key("a"), &json!(3))).await;
    assert!(matches!(existing, Err(CommitError::Conflict { current: Some(_) })), "{existing:?}");
    let missing = store.delete(&key("b"), Expect::Exactly(first.revision()), draft(&key("b"), &json!(3))).await;
    assert!(matches!(missing, Err(CommitError::Conflict { current: None })), "{missing:?}");
}

#[tokio::test]
async fn a_commit_is_made_as_a_whole_or_not_at_all() {
    let store = store();
    put(&store, &key("taken"), &json!(1)).await;
    let write = |name: &str| Write::Put { key: key(name), expect: Expect::Absent, draft: draft(&key(name), &json!(1)) };
    let refused = store.commit(vec![write("a"), write("taken"), write("b")]).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
    assert_eq!(store.count(&"pods".into(), None), 1);
    let revision = store.revision();
    store.commit(vec![write("a"), write("b")]).await.expect("neither is there");
    assert_eq!(store.count(&"pods".into(), None), 3);
    let mut watch = store.watch(&"pods".into(), revision).expect("nothing is forgotten");
    assert_eq!(&*next(&mut watch).await.expect("not expired").record.key().name, "a");
    assert_eq!(&*next(&mut watch).await.expect("not expired").record.key().name, "b");
}

#[tokio::test]
async fn objects_are_listed_in_the_order_of_kubernetes() {
    let store = store();
    for (namespace, name) in [("a", "x"), ("a-b", "y"), ("a", "b"), ("b", "a"), ("", "c")] {
        put(&store, &in_namespace(namespace, name), &json!(null)).await;
    }
    let names = |records: &[std::sync::Arc<Record>]| {
        records.iter().map(|record| record.key().to_string()).collect::<Vec<_>>().join(" ")
    };
    let all = store.list(&"pods".into(), None);
    insta::assert_snapshot!(names(&all.records), @"pods/c pods/a-b/y pods/a/b pods/a/x pods/b/a");
    insta::assert_snapshot!(names(&store.list(&"pods".into(), Some("a")).records), @"pods/a/b pods/a/x");
}

#[tokio::test]
async fn pages_of_a_list_show_one_moment() {
    let store = store();
    let pods = "pods".into();
    for name in ["a", "b", "c", "d"] {
        put(&store, &key(name), &json!(null)).await;
    }
    let then = store.revision();
    let first = store.list_at(then, &pods, Some("default"), None, 2).expect("nothing is forgotten");
    assert_eq!((first.records.len(), first.remaining), (2, 2));
    delete(&store, &key("c")).await;
    put(&store, &key("d"), &json!("changed")).await;
    put(&store, &key("e"), &json!(null)).await;
    let rest = store.list_at(then, &pods, Some("default"), Some(&key("b")), 10).expect("nothing is forgotten");
    let seen: Vec<_> =
        rest.records.iter().map(|record| (&*record.key().name, record.value()["spec"].clone())).collect();
    assert_eq!(seen, [("c", Value::Null), ("d", Value::Null)]);
    assert_eq!((rest.revision, rest.remaining), (then, 0));
    store.compact();
    assert!(store.list_at(then, &pods, None, None, 10).is_err());
}

#[tokio::test]
async fn a_watch_sees_each_change_with_what_was_before() {
    let store = store();
    let mut watch = store.watch(&"pods".into(), store.revision()).expect("nothing is forgotten");
    put(&store, &Key::new(&"services".into(), "default", "a"), &json!(null)).await;
    put(&store, &key("a"), &json!(1)).await;
    put(&store, &key("a"), &json!(2)).await;
    let deleted = delete(&store, &key("a")).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = next(&mut watch).await.expect("not expired");
        seen.push((event.kind, event.record.revision().0, event.previous.as_ref().map(|record| record.revision().0)));
    }
    let expected = [(EventKind::Added, 2, None), (EventKind::Modified, 3, Some(2)), (EventKind::Deleted, 4, Some(3))];
    assert_eq!(seen, expected);
    assert_eq!(watch.position(), deleted.revision());
}

#[tokio::test]
async fn a_watcher_that_sleeps_is_told_and_holds_nobody_up() {
    let store = store();
    let mut watch = store.watch(&"pods".into(), store.revision()).expect("nothing is forgotten");
    for round in 0..=super::shelf::WINDOW {
        put(&store, &key("a"), &json!(round)).await;
    }
    let expired = next(&mut watch).await.expect_err("the first event is forgotten");
    insta::assert_snapshot!(expired, @"too old resource version: 0 (1)");
    assert!(watch.next().await.is_none());
    assert!(store.watch(&"pods".into(), super::Revision::ZERO).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_sees_every_write_once_and_in_order() {
    const WATCHERS: usize = 64;
    const WRITES: usize = 500;
    let store = store();
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let mut watch = store.watch(&"pods".into(), super::Revision::ZERO).expect("nothing is forgotten");
        watchers.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 2 * WRITES {
                seen.push(next(&mut watch).await.expect("the window is larger").record.revision().0);
            }
            seen
        });
    }
    let write = |writer: &'static str| {
        let store = store.clone();
        async move {
            for _ in 0..WRITES {
                put(&store, &key(writer), &json!(null)).await;
            }
        }
    };
    let mut writers = tokio::task::JoinSet::new();
    writers.spawn(write("a"));
    writers.spawn(write("b"));
    writers.join_all().await;
    let expected: Vec<u64> = (1..=2 * WRITES as u64).collect();
    for seen in watchers.join_all().await {
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn a_store_on_disk_is_as_it_was_when_it_is_opened_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(Some(folder.path())).expect("the folder is free");
    let kept = put(&store, &key("kept"), &json!({"a": 1})).await;
    put(&store, &key("gone"), &json!(null)).await;
    let last = delete(&store, &key("gone")).await;
    drop(store);

    let store = Store::open(Some(folder.path())).expect("the folder is free again");
    assert_eq!(store.revision(), last.revision());
    let found = store.get(&key("kept")).expect("it was written");
    assert_eq!((found.json(), found.revision()), (kept.json(), kept.revision()));
    assert_eq!(store.list(&"pods".into(), None).records.len(), 1);
    // What happened before the restart is not known any more.
    assert!(store.watch(&"pods".into(), kept.revision()).is_err());
    assert!(store.watch(&"pods".into(), last.revision()).is_ok());
    assert!(put(&store, &key("new"), &json!(null)).await.revision() > last.revision());
}

#[test]
fn two_engines_on_one_folder_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let _first = Store::open(Some(folder.path())).expect("the folder is free");
    let second = Store::open(Some(folder.path())).expect_err("the folder is taken");
    assert!(matches!(second, OpenError::InUse { .. }), "{second:?}");
}

#[test]
fn a_file_that_is_no_store_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let check = |content: &[u8]| {
        std::fs::write(folder.path().join("store.redb"), content).expect("the folder is writable");
        let error = Store::open(Some(folder.path())).expect_err("this is no store").to_string();
        error.replace(&folder.path().display().to_string(), "…")
    };
    insta::assert_snapshot!(check(&[7; 10_000]), @"`…/store.redb` is damaged: Not a redb database: magic number mismatch");
    let cut = check(b"x");
    assert!(cut.starts_with("`…/store.redb` is damaged: "), "{cut}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let error = Store::open(Some(&file.path().join("data"))).expect_err("a file is no folder");
    assert!(matches!(&error, OpenError::Folder { path, .. } if path.starts_with(file.path())), "{error:?}");
    assert!(Store::open(Some(Path::new("/proc/landfall"))).is_err());
}
