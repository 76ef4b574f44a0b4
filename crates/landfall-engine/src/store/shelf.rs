//! The objects of one collection in memory, and what lately happened to them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::watch::{Event, EventKind};
use super::{Collection, Expired, Key, Listing, Page, Record, Revision};

/// How many events of a collection are remembered: a watch may be resumed and a list continued as long as its revision
/// is among them.
pub(super) const WINDOW: usize = 16 * 1024;

/// Events are forgotten earlier if their objects take more than this together, so that a few collections with large
/// objects do not fill the memory.
const WINDOW_BYTES: usize = 64 * 1024 * 1024;

/// Of which this many are remembered, however large they are.
const LEAST: usize = 1024;

/// How many of the last events of a collection keep their parsed objects: as many as a watch takes at a time.
const WARM: usize = GULP;

/// How many events a watch takes at a time.
const GULP: usize = 256;

/// All collections, and the revision up to which they can be seen.
#[derive(Debug)]
pub(super) struct Shelves {
    by_collection: RwLock<HashMap<Collection, Arc<Shelf>>>,
    /// Changed only while the shelves that a write concerns are locked. So whoever has locked a shelf and then reads the
    /// revision knows that the shelf is as it was at that revision.
    revision: AtomicU64,
    /// What happened before is not known: the store was opened here.
    opened: Revision,
}

impl Shelves {
    pub(super) fn new(revision: Revision, records: Vec<Record>) -> Self {
        let shelves = Self { by_collection: RwLock::default(), revision: AtomicU64::new(revision.0), opened: revision };
        for record in records {
            let shelf = shelves.shelf(&record.key().collection);
            shelf.write().records.insert(record.key().clone(), Arc::new(record));
        }
        shelves
    }

    pub(super) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// The shelf of a collection; an empty one if nobody has asked for it before.
    pub(super) fn shelf(&self, collection: &Collection) -> Arc<Shelf> {
        let known = self.by_collection.read().unwrap_or_else(PoisonError::into_inner).get(collection).cloned();
        known.unwrap_or_else(|| {
            let mut all = self.by_collection.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(collection.clone()).or_insert_with(|| Arc::new(Shelf::new(self.opened))))
        })
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Record>> {
        self.shelf(&key.collection).read().records.get(key).cloned()
    }

    pub(super) fn collections(&self) -> Vec<Collection> {
        let all = self.by_collection.read().unwrap_or_else(PoisonError::into_inner);
        let mut filled: Vec<_> =
            all.iter().filter(|(_, shelf)| !shelf.read().records.is_empty()).map(|(name, _)| name.clone()).collect();
        filled.sort();
        filled
    }

    /// Makes events visible, all at once. They are in the order of their revisions and follow everything before.
    pub(super) fn apply(&self, events: Vec<Arc<Event>>) {
        let Some(revision) = events.last().map(|event| event.record.revision()) else { return };
        let mut concerned: BTreeMap<Collection, (Arc<Shelf>, Vec<Arc<Event>>)> = BTreeMap::new();
        for event in events {
            let collection = &event.record.key().collection;
            let entry = concerned.entry(collection.clone());
            entry.or_insert_with(|| (self.shelf(collection), Vec::new())).1.push(event);
        }
        let mut locked: Vec<_> = concerned.values().map(|(shelf, _)| shelf.write()).collect();
        for (shelf, (_, events)) in locked.iter_mut().zip(concerned.values()) {
            for event in events {
                shelf.push(Arc::clone(event));
            }
        }
        self.revision.store(revision.0, Ordering::Release);
        drop(locked);
        for (shelf, _) in concerned.values() {
            shelf.changed.send_replace(());
        }
    }

    #[cfg(test)]
    pub(super) fn forget_history(&self) {
        let all: Vec<_> = self.by_collection.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for shelf in all {
            shelf.write().forget();
            // Whoever lags behind is to learn it now.
            shelf.changed.send_replace(());
        }
    }
}

#[derive(Debug)]
pub(super) struct Shelf {
    content: RwLock<Content>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Content {
    records: BTreeMap<Key, Arc<Record>>,
    /// Every event after `since`, oldest first.
    events: VecDeque<Arc<Event>>,
    since: Revision,
    /// The size of the objects in `events`.
    bytes: usize,
}

/// What a watch has missed.
pub(super) struct Missed {
    pub(super) events: Vec<Arc<Event>>,
    /// Nothing is missing up to here when these events are delivered.
    pub(super) upto: Revision,
}

impl Shelf {
    fn new(since: Revision) -> Self {
        let content = Content { records: BTreeMap::new(), events: VecDeque::new(), since, bytes: 0 };
        Self { content: RwLock::new(content), changed: watch::Sender::new(()) }
    }

    pub(super) fn list(&self, shelves: &Shelves, namespace: Option<&str>) -> Listing {
        let content = self.read();
        let revision = shelves.revision();
        let records = match namespace {
            None => content.records.values().cloned().collect(),
            Some(_) => content.range(namespace, None).map(|(_, record)| Arc::clone(record)).collect(),
        };
        Listing { records, revision }
    }

    pub(super) fn count(&self, namespace: Option<&str>) -> usize {
        let content = self.read();
        match namespace {
            None => content.records.len(),
            Some(_) => content.range(namespace, None).count(),
        }
    }

    /// What a list at an older revision would have found: the objects of now, with all that happened since undone.
    pub(super) fn list_at(
        &self,
        shelves: &Shelves,
        revision: Revision,
        namespace: Option<&str>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, Expired> {
        let content = self.read();
        let revision = revision.min(shelves.revision());
        let since = content.events_after(revision)?;
        if since == content.events.len() {
            let mut rest = content.range(namespace, after);
            let records = rest.by_ref().take(limit).map(|(_, record)| Arc::clone(record)).collect();
            return Ok(Page { records, revision, remaining: rest.count() });
        }
        // The oldest event of a key says how it was before all of them, so the newest are looked at first.
        let mut before: BTreeMap<&Key, Option<&Arc<Record>>> = BTreeMap::new();
        for event in content.events.range(since..).rev() {
            before.insert(event.record.key(), event.previous.as_ref());
        }
        let untouched = content.range(namespace, after).filter(|(key, _)| !before.contains_key(key));
        let in_range = |key: &Key| {
            namespace.is_none_or(|namespace| *key.namespace == *namespace) && after.is_none_or(|after| key > after)
        };
        let restored = before.iter().filter(|(key, _)| in_range(key));
        let restored = restored.filter_map(|(key, record)| record.map(|record| (*key, record)));
        let mut all: Vec<_> = untouched.chain(restored).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        let remaining = all.len().saturating_sub(limit);
        let records = all.into_iter().take(limit).map(|(_, record)| Arc::clone(record)).collect();
        Ok(Page { records, revision, remaining })
    }

    /// The next events after a revision; none if there are none yet.
    pub(super) fn missed(&self, shelves: &Shelves, after: Revision) -> Result<Missed, Expired> {
        let content = self.read();
        let first = content.events_after(after)?;
        let last = content.events.len().min(first + GULP);
        let events: Vec<_> = content.events.range(first..last).cloned().collect();
        let upto = if last == content.events.len() { shelves.revision() } else { events[GULP - 1].record.revision() };
        Ok(Missed { events, upto: upto.max(after) })
    }

    /// Marked whenever events were added.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn push(&mut self, event: Arc<Event>) {
        let record = &event.record;
        match event.kind {
            EventKind::Added | EventKind::Modified => {
                self.records.insert(record.key().clone(), Arc::clone(record));
            }
            EventKind::Deleted => {
                self.records.remove(record.key());
            }
        }
        self.bytes += record.json().len();
        self.events.push_back(event);
        if let Some(cold) = self.events.len().checked_sub(WARM + 1) {
            let event = &self.events[cold];
            event.record.cool();
            event.previous.iter().for_each(|previous| previous.cool());
        }
        while self.events.len() > WINDOW || (self.bytes > WINDOW_BYTES && self.events.len() > LEAST) {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.record.json().len();
            self.since = oldest.record.revision();
        }
    }

    #[cfg(test)]
    fn forget(&mut self) {
        for event in &self.events {
            event.record.cool();
        }
        self.since = self.events.back().map_or(self.since, |newest| newest.record.revision());
        self.events.clear();
        self.bytes = 0;
    }

    /// The index of the first event after a revision.
    fn events_after(&self, revision: Revision) -> Result<usize, Expired> {
        if revision < self.since {
            return Err(Expired { requested: revision, oldest: self.since });
        }
        Ok(self.events.partition_point(|event| event.record.revision() <= revision))
    }

    fn range(&self, namespace: Option<&str>, after: Option<&Key>) -> impl Iterator<Item = (&Key, &Arc<Record>)> {
        let first = namespace.map(|namespace| Key::new(&Collection::from(""), namespace, ""));
        let start = match (after, &first) {
            (Some(after), Some(first)) if after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        let namespace = namespace.map(str::to_owned);
        let from = self.records.range::<Key, _>((start, Bound::Unbounded));
        from.take_while(move |(key, _)| namespace.as_deref().is_none_or(|namespace| *key.namespace == *namespace))
    }
}
