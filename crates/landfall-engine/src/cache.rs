//! What a component knows of the cluster: one cache for each kind, filled by a watch through `kube::Client`, with the
//! indexes that reconcilers ask for.
//!
//! A cache may lag behind what its owner has just written. [`Cache::reached`] waits until it has seen a write, so that a
//! reconciler that waits after each write decides on its own work and creates nothing twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How many changes a subscriber may lag behind before it is told to look at everything again.
const PENDING_CHANGES: usize = 4096;

/// How long [`Cache::reached`] waits before it gives up: the watch is then behind by far more than a round trip, and the
/// reconciler is better retried.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a cache needs of a kind.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Kind for K where K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl ObjectKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self::new(
            object.meta().namespace.as_deref().unwrap_or_default(),
            object.meta().name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A change that a cache has taken in, with what it knew before.
#[derive(Debug)]
pub(crate) enum Change<K> {
    Applied { old: Option<Arc<K>>, new: Arc<K> },
    Deleted { old: Arc<K> },
}

impl<K: Kind> Change<K> {
    /// The newest state of the object that is known.
    pub(crate) fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Deleted { old } => old,
        }
    }
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied { old, new } => Self::Applied { old: old.clone(), new: new.clone() },
            Self::Deleted { old } => Self::Deleted { old: old.clone() },
        }
    }
}

/// All objects of one kind, as last seen. Cheap to clone.
pub(crate) struct Cache<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<K> {
    objects: RwLock<Objects<K>>,
    changes: broadcast::Sender<Change<K>>,
    progress: watch::Sender<Progress>,
    /// Who waits for a revision, by it: hundreds at once when many objects are made, of whom each change concerns one.
    waiting: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
}

/// How far a cache has come.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The first list is complete.
    synced: bool,
    /// The newest revision seen.
    revision: u64,
}

struct Objects<K> {
    by_key: BTreeMap<ObjectKey, Arc<K>>,
    by_owner: HashMap<String, BTreeSet<ObjectKey>>,
    by_index: HashMap<String, BTreeSet<ObjectKey>>,
    index: fn(&K) -> Vec<String>,
}

impl<K: Kind> Cache<K> {
    pub(crate) fn new() -> Self {
        Self::indexed(|_| Vec::new())
    }

    /// A cache with one more index, asked by [`Cache::indexed_by`]: pods by node, say. An object may be found by several values.
    pub(crate) fn indexed(index: fn(&K) -> Vec<String>) -> Self {
        let objects = Objects { by_key: BTreeMap::new(), by_owner: HashMap::new(), by_index: HashMap::new(), index };
        Self {
            shared: Arc::new(Shared {
                objects: RwLock::new(objects),
                changes: broadcast::Sender::new(PENDING_CHANGES),
                progress: watch::Sender::new(Progress::default()),
                waiting: Mutex::default(),
            }),
        }
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read(|objects| objects.by_key.get(key).cloned())
    }

    /// Every object, by namespace and name.
    pub(crate) fn list(&self) -> Vec<Arc<K>> {
        self.read(|objects| objects.by_key.values().cloned().collect())
    }

    /// Every object of a namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = ObjectKey::new(namespace, "");
        self.read(|objects| {
            let of_namespace = objects.by_key.range(&first..).take_while(|(key, _)| key.namespace == first.namespace);
            of_namespace.map(|(_, object)| Arc::clone(object)).collect()
        })
    }

    /// The objects whose controller is the owner with this uid, by name.
    pub(crate) fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.read(|objects| objects.resolve(objects.by_owner.get(uid)))
    }

    /// The objects of a namespace that no controller manages, by name.
    pub(crate) fn orphans_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read(|objects| objects.resolve(objects.by_owner.get(&orphans_key(namespace))))
    }

    /// The objects with this value of the extra index, by key.
    pub(crate) fn indexed_by(&self, value: &str) -> Vec<Arc<K>> {
        self.read(|objects| objects.resolve(objects.by_index.get(value)))
    }

    /// Changes from now on. A receiver that has lagged looks at everything again.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change<K>> {
        self.shared.changes.subscribe()
    }

    /// Waits for the first complete list.
    pub(crate) async fn synced(&self) {
        let mut progress = self.shared.progress.subscribe();
        progress.wait_for(|progress| progress.synced).await.expect("the cache owns the sender");
    }

    /// Waits until the cache has seen the write that `object` is the answer to. False when it took too long.
    ///
    /// Resource versions are ordered numbers (KEP-5504: comparable resource versions).
    pub(crate) async fn reached<R: Resource>(&self, object: &R) -> bool {
        let Some(revision) = revision_of(object.meta().resource_version.as_deref()) else { return true };
        let seen = async {
            self.synced().await;
            match self.wait_for(revision) {
                Some(seen) => seen.await.is_ok(),
                None => true,
            }
        };
        tokio::time::timeout(PATIENCE, seen).await == Ok(true)
    }

    /// Fires when a revision has been seen; `None`: it has been already.
    fn wait_for(&self, revision: u64) -> Option<oneshot::Receiver<()>> {
        let mut waiting = self.waiting();
        // Looked at under the lock: who advances does so first and takes the lock then.
        if self.shared.progress.borrow().revision >= revision {
            return None;
        }
        let (tell, seen) = oneshot::channel();
        waiting.entry(revision).or_default().push(tell);
        Some(seen)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<oneshot::Sender<()>>>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the cache has seen that this very object is gone or on its way. False when it took too long.
    pub(crate) async fn seen_deleted(&self, key: &ObjectKey, object: &K) -> bool {
        let mut progress = self.shared.progress.subscribe();
        let seen = progress.wait_for(|_| {
            self.get(key)
                .is_none_or(|known| known.meta().uid != object.meta().uid || known.meta().deletion_timestamp.is_some())
        });
        matches!(tokio::time::timeout(PATIENCE, seen).await, Ok(Ok(_)))
    }

    /// Fills the cache until cancelled. The watch is resumed and, when it must be, listed again.
    pub(crate) async fn fill(&self, client: Client, cancel: CancellationToken)
    where
        K: serde::Serialize,
    {
        let events = watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff();
        let mut listed = None;
        let mut events = std::pin::pin!(events);
        loop {
            let event = tokio::select! {
                () = cancel.cancelled() => return,
                event = events.try_next() => event,
            };
            match event {
                Ok(Some(watcher::Event::Init)) => listed = Some(BTreeSet::new()),
                Ok(Some(watcher::Event::InitApply(object))) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(ObjectKey::of(&object));
                    }
                    self.apply(object);
                }
                Ok(Some(watcher::Event::InitDone)) => self.end_list(&listed.take().unwrap_or_default()),
                Ok(Some(watcher::Event::Apply(object))) => self.apply(object),
                Ok(Some(watcher::Event::Delete(object))) => self.delete(&object),
                Ok(None) => return,
                Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch failed, trying again"),
            }
        }
    }

    fn apply(&self, mut object: K) {
        // Nobody here asks who owns which field, and to say it takes more memory than all the rest of an object.
        object.meta_mut().managed_fields = None;
        let key = ObjectKey::of(&object);
        let revision = revision_of(object.meta().resource_version.as_deref());
        // A clone has no room to spare, as lists have that were read item by item.
        let new = Arc::new(object.clone());
        drop(object);
        let old = self.write(|objects| objects.insert(key, Arc::clone(&new)));
        // Nobody may be listening yet.
        let _ = self.shared.changes.send(Change::Applied { old, new });
        self.advance(revision);
    }

    fn delete(&self, object: &K) {
        let key = ObjectKey::of(object);
        let revision = revision_of(object.meta().resource_version.as_deref());
        if let Some(old) = self.write(|objects| objects.remove(&key)) {
            let _ = self.shared.changes.send(Change::Deleted { old });
        }
        self.advance(revision);
    }

    fn end_list(&self, listed: &BTreeSet<ObjectKey>) {
        let gone: Vec<_> =
            self.read(|objects| objects.by_key.keys().filter(|key| !listed.contains(key)).cloned().collect());
        for key in gone {
            if let Some(old) = self.write(|objects| objects.remove(&key)) {
                let _ = self.shared.changes.send(Change::Deleted { old });
            }
        }
        self.shared.progress.send_modify(|progress| progress.synced = true);
    }

    fn advance(&self, revision: Option<u64>) {
        let Some(revision) = revision else { return };
        self.shared.progress.send_if_modified(|progress| {
            let newer = revision > progress.revision;
            progress.revision = progress.revision.max(revision);
            newer
        });
        let mut waiting = self.waiting();
        while let Some(first) = waiting.first_entry().filter(|first| *first.key() <= revision) {
            for tell in first.remove() {
                // Who has given up does not listen.
                let _ = tell.send(());
            }
        }
    }

    fn read<T>(&self, f: impl FnOnce(&Objects<K>) -> T) -> T {
        f(&self.shared.objects.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut Objects<K>) -> T) -> T {
        f(&mut self.shared.objects.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Kind> Objects<K> {
    fn insert(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.remove(&key);
        self.by_owner.entry(owner_key(&*object)).or_default().insert(key.clone());
        for value in (self.index)(&object) {
            self.by_index.entry(value).or_default().insert(key.clone());
        }
        self.by_key.insert(key, object);
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.by_key.remove(key)?;
        unlink(&mut self.by_owner, &owner_key(&*old), key);
        for value in (self.index)(&old) {
            unlink(&mut self.by_index, &value, key);
        }
        Some(old)
    }

    fn resolve(&self, keys: Option<&BTreeSet<ObjectKey>>) -> Vec<Arc<K>> {
        keys.into_iter().flatten().filter_map(|key| self.by_key.get(key).cloned()).collect()
    }
}

fn unlink(index: &mut HashMap<String, BTreeSet<ObjectKey>>, value: &str, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

/// The owner that manages an object, if any: the one owner reference with `controller: true`.
pub(crate) fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Under what an object is found by its owner: the uid of its controller, or its namespace when it has none.
fn owner_key<K: Resource>(object: &K) -> String {
    match controller_of(object) {
        Some(owner) => owner.uid.clone(),
        None => orphans_key(object.meta().namespace.as_deref().unwrap_or_default()),
    }
}

/// No uid has a slash.
fn orphans_key(namespace: &str) -> String {
    format!("{namespace}/")
}

fn revision_of(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, owner: Option<&str>, version: u64) -> Pod {
        let owners = owner
            .map(|uid| json!([{ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": uid, "controller": true }]));
        let metadata = json!({
            "namespace": "shop", "name": name, "uid": name,
            "resourceVersion": version.to_string(), "ownerReferences": owners,
        });
        serde_json::from_value(json!({ "metadata": metadata })).expect("a pod")
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<String> {
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn an_object_is_found_by_its_owner_until_that_changes() {
        let cache = Cache::<Pod>::new();
        cache.apply(pod("a", Some("x"), 1));
        cache.apply(pod("b", None, 2));
        assert_eq!(names(&cache.owned_by("x")), ["a"]);
        assert_eq!(names(&cache.orphans_in("shop")), ["b"]);
        cache.apply(pod("a", None, 3));
        assert_eq!(names(&cache.owned_by("x")), <[String; 0]>::default());
        assert_eq!(names(&cache.orphans_in("shop")), ["a", "b"]);
        cache.delete(&pod("a", None, 4));
        assert_eq!(names(&cache.orphans_in("shop")), ["b"]);
        assert_eq!(names(&cache.orphans_in("other")), <[String; 0]>::default());
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let cache = Cache::<Pod>::new();
        cache.apply(pod("a", None, 1));
        cache.apply(pod("b", None, 2));
        let mut changes = cache.subscribe();
        cache.end_list(&BTreeSet::from([ObjectKey::new("shop", "b")]));
        assert_eq!(names(&cache.list()), ["b"]);
        let change = changes.try_recv().expect("a change");
        assert!(matches!(&change, Change::Deleted { old } if old.name_any() == "a"), "{change:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_reached_when_its_revision_was_seen_after_the_first_list() {
        let cache = Cache::<Pod>::new();
        cache.apply(pod("a", None, 5));
        assert!(!cache.reached(&pod("a", None, 5)).await, "the first list is not complete");
        cache.end_list(&BTreeSet::from([ObjectKey::new("shop", "a")]));
        assert!(cache.reached(&pod("a", None, 5)).await);
        assert!(!cache.reached(&pod("a", None, 6)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_write_is_told_when_it_or_a_later_one_is_seen() {
        let cache = Cache::<Pod>::new();
        cache.end_list(&BTreeSet::new());
        let writes = [5, 6, 8].map(|version| pod("a", None, version));
        let all = futures::future::join_all(writes.iter().map(|written| cache.reached(written)));
        let (seen, ()) = futures::join!(all, async { cache.apply(pod("b", None, 6)) });
        assert_eq!(seen, [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_is_seen_when_the_object_is_gone_replaced_or_on_its_way() {
        let cache = Cache::<Pod>::new();
        let key = ObjectKey::new("shop", "a");
        cache.apply(pod("a", None, 1));
        assert!(!cache.seen_deleted(&key, &pod("a", None, 1)).await);
        let deleted = pod("a", None, 1);
        let (seen, ()) = futures::join!(cache.seen_deleted(&key, &deleted), async {
            cache.delete(&pod("a", None, 2));
        });
        assert!(seen);
        let mut successor = pod("a", None, 3);
        successor.metadata.uid = Some("another".to_owned());
        cache.apply(successor);
        assert!(cache.seen_deleted(&key, &pod("a", None, 1)).await);
    }
}
