//! The store beside the simplest thing that could be one.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use futures::StreamExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{draft, in_namespace};
use crate::store::{Draft, EventKind, Expect, Key, Revision, Store};

#[derive(Debug, Clone)]
enum Step {
    Put { key: Key, content: u8, stale: bool },
    Delete { key: Key },
    Restart,
}

/// Everything at each revision.
#[derive(Default)]
struct Model {
    history: BTreeMap<u64, BTreeMap<Key, (u64, u8)>>,
    opened: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.history.keys().next_back().copied().unwrap_or_default()
    }

    fn now(&self) -> BTreeMap<Key, (u64, u8)> {
        self.history.values().next_back().cloned().unwrap_or_default()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || (prop::sample::select(vec!["a", "a-b", "b"]), prop::sample::select(vec!["x", "y", "z"]));
    let key = move || key().prop_map(|(namespace, name)| in_namespace(namespace, name));
    let step = prop_oneof![
        8 => (key(), any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|(key, content, stale)| Step::Put { key, content, stale }),
        4 => key().prop_map(|key| Step::Delete { key }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

async fn perform(store: &Store, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    let mut now = model.now();
    let next = model.revision() + 1;
    match step {
        Step::Restart => return Ok(()),
        Step::Put { key, content, stale } => {
            let expect = match now.get(key) {
                Some((revision, _)) => Expect::Exactly(Revision(if *stale { revision + 1 } else { *revision })),
                None if *stale => Expect::Exactly(Revision(next)),
                None => Expect::Absent,
            };
            let written = store.put(key.clone(), expect, draft(key, &json!(content))).await;
            prop_assert_eq!(written.is_err(), *stale);
            if *stale {
                return Ok(());
            }
            now.insert(key.clone(), (next, *content));
        }
        Step::Delete { key } => {
            let Some((revision, _)) = now.remove(key) else { return Ok(()) };
            let last = Draft::of(&store.get(key).expect("the model has it"));
            let deleted = store.delete(key, Expect::Exactly(Revision(revision)), last).await;
            prop_assert_eq!(deleted.expect("the model has it").revision(), Revision(next));
        }
    }
    model.history.insert(next, now);
    Ok(())
}

/// What a list shows.
fn shown<'r>(records: impl IntoIterator<Item = &'r std::sync::Arc<crate::store::Record>>) -> Vec<(Key, u64, Value)> {
    records
        .into_iter()
        .map(|record| (record.key().clone(), record.revision().0, record.value()["spec"].clone()))
        .collect()
}

fn expected(objects: &BTreeMap<Key, (u64, u8)>, namespace: Option<&str>) -> Vec<(Key, u64, Value)> {
    let wanted = objects.iter().filter(|(key, _)| namespace.is_none_or(|namespace| *key.namespace == *namespace));
    wanted.map(|(key, (revision, content))| (key.clone(), *revision, json!(content))).collect()
}

/// Lists at each revision that is still known, in pages of two, and a watch from each.
fn compare(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    let pods = "pods".into();
    prop_assert_eq!(store.revision(), Revision(model.revision()));
    for namespace in [None, Some("a"), Some("a-b"), Some("c")] {
        let listed = store.list(&pods, namespace);
        prop_assert_eq!(shown(&listed.records), expected(&model.now(), namespace));
    }
    let empty = BTreeMap::new();
    for revision in 0..=model.revision() {
        let then = model.history.get(&revision).unwrap_or(&empty);
        if revision < model.opened {
            prop_assert!(store.list_at(Revision(revision), &pods, None, None, 2).is_err());
            prop_assert!(store.watch(&pods, Revision(revision)).is_err());
            continue;
        }
        for namespace in [None, Some("a")] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = store.list_at(Revision(revision), &pods, namespace, after.as_ref(), 2);
                let page = page.expect("nothing is forgotten since the start");
                found.extend(shown(&page.records));
                prop_assert_eq!(found.len() + page.remaining, expected(then, namespace).len());
                let Some(last) = page.records.last() else { break };
                after = Some(last.key().clone());
            }
            prop_assert_eq!(found, expected(then, namespace));
        }
        let mut watch = store.watch(&pods, Revision(revision)).expect("nothing is forgotten since the start");
        let mut replayed = then.clone();
        while let Some(event) = watch.next().now_or_never() {
            let event = event.expect("a watch does not end").expect("nothing is forgotten since the start");
            let before = replayed.get(event.record.key()).map(|(revision, _)| *revision);
            prop_assert_eq!(event.previous.as_ref().map(|record| record.revision().0), before);
            prop_assert_eq!(event.kind == EventKind::Added, before.is_none());
            let content = event.record.value()["spec"].as_u64().expect("a number");
            let content = u8::try_from(content).expect("it was one byte");
            match event.kind {
                EventKind::Deleted => replayed.remove(event.record.key()),
                _ => replayed.insert(event.record.key().clone(), (event.record.revision().0, content)),
            };
        }
        prop_assert_eq!(&replayed, &model.now());
        prop_assert_eq!(watch.position(), store.revision());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_behaves_like_its_model(steps in steps(), on_disk in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let open = || Store::open(on_disk.then_some(folder.path())).expect("the folder is free");
            let (mut store, mut model) = (open(), Model::default());
            for step in &steps {
                if matches!(step, Step::Restart) && on_disk {
                    drop(store);
                    store = open();
                    model.opened = model.revision();
                }
                perform(&store, &mut model, step).await?;
            }
            compare(&store, &model)
        })?;
    }
}
