//! Every object that the API server serves: revisions, compare-and-swap, lists at a revision, watches, durability.
//!
//! All of it lives in memory for readers; the disk is for restarts. One thread writes: it takes whatever has queued up,
//! makes it durable with one sync, and only then shows it to readers and watchers and acknowledges it. So an
//! acknowledged write survives a crash, and nobody ever sees a write that would not.
//!
//! The store knows no kind: an object is JSON, and all that it puts in is `metadata.resourceVersion`.

mod disk;
mod record;
mod shelf;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::cmp::Ordering;
use std::fmt;
use std::io;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

pub(crate) use record::{Draft, Record};
pub(crate) use watch::{Event, EventKind, Watch};

use disk::Disk;
use shelf::Shelves;
use writer::Writer;

/// A point in the history of the store: each write has its own, later ones are greater. `metadata.resourceVersion` is
/// this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Revision(u64);

impl Revision {
    /// Before the first write.
    pub(crate) const ZERO: Self = Self(0);

    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// A kind of object without its version: `pods`, `deployments.apps`, `widgets.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Collection(Arc<str>);

impl Collection {
    /// The plural name, then a dot and the group unless it is the core group.
    pub(crate) fn new(group: &str, plural: &str) -> Self {
        if group.is_empty() { Self(plural.into()) } else { Self(format!("{plural}.{group}").into()) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Collection {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What names an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) collection: Collection,
    /// Empty for an object that is cluster-scoped.
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Key {
    pub(crate) fn new(collection: &Collection, namespace: &str, name: &str) -> Self {
        Self { collection: collection.clone(), namespace: namespace.into(), name: name.into() }
    }

    /// `namespace/name`, as bytes.
    fn path(&self) -> impl Iterator<Item = u8> {
        self.namespace.bytes().chain([b'/']).chain(self.name.bytes())
    }
}

/// Keys are ordered as Kubernetes lists them: by `namespace/name` as one text, so that `a-b/x` precedes `a/x`.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let place =
            if self.namespace == other.namespace { self.name.cmp(&other.name) } else { self.path().cmp(other.path()) };
        place.then_with(|| self.collection.cmp(&other.collection))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.collection)?;
        if !self.namespace.is_empty() {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

/// What a writer takes for granted; the write fails if it is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Nothing has this key.
    Absent,
    /// The object with this key was last written at this revision.
    Exactly(Revision),
}

/// One of the writes of a [`Store::commit`].
#[derive(Debug)]
pub(crate) enum Write {
    Put { key: Key, expect: Expect, draft: Draft },
    Delete { key: Key, expect: Expect, last: Draft },
}

impl Write {
    fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } => *expect,
        }
    }
}

/// Why a write was not made. Nothing of it is visible, unless the storage failed in a way that leaves open what was
/// written: then it may become visible once the storage is back.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CommitError {
    /// The object is not as the writer expected.
    #[error("the object has been changed meanwhile")]
    Conflict { current: Option<Arc<Record>> },
    /// The disk is full, or gone.
    #[error("the store cannot be written")]
    Storage(#[source] StorageError),
}

/// Why the storage failed. Later writes are tried again.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("failed to write `{}`", path.display())]
    Io { path: PathBuf, source: Arc<io::Error> },
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder could not be made or read.
    #[error("failed to open the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be opened.
    #[error("failed to open `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another engine has it open.
    #[error("`{}` is in use by another engine", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("`{}` is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Another version wrote it.
    #[error("`{}` was written by another version: its format is {found}, this version reads {}", path.display(), disk::FORMAT)]
    Format {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        found: u64,
    },
}

/// The revision is too old: what happened since is no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {requested} ({oldest})")]
pub(crate) struct Expired {
    pub(crate) requested: Revision,
    /// The oldest revision that can be asked for.
    pub(crate) oldest: Revision,
}

/// Objects, by key, as they were at `revision`.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) revision: Revision,
}

/// A part of a listing.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) revision: Revision,
    /// How many objects follow.
    pub(crate) remaining: usize,
}

/// All objects. Cheap to clone; the last clone that is dropped finishes the writes under way and closes the file.
#[derive(Clone)]
pub(crate) struct Store {
    shelves: Arc<Shelves>,
    writer: Arc<Writer>,
}

impl Store {
    /// Opens the store in a folder, which is created if it is not there. Without a folder the store is in memory only.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, OpenError> {
        let Some(folder) = folder else {
            let shelves = Arc::new(Shelves::new(Revision::ZERO, Vec::new()));
            return Ok(Self { writer: Arc::new(Writer::memory(Arc::clone(&shelves))), shelves });
        };
        Self::open_on(disk::File::in_folder(folder)?)
    }

    fn open_on(file: impl disk::Medium) -> Result<Self, OpenError> {
        let (disk, loaded) = Disk::open(file)?;
        let shelves = Arc::new(Shelves::new(loaded.revision, loaded.records));
        let writer = Writer::durable(Arc::clone(&shelves), disk);
        Ok(Self { shelves, writer: Arc::new(writer) })
    }

    /// Everything up to here can be seen.
    pub(crate) fn revision(&self) -> Revision {
        self.shelves.revision()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Record>> {
        self.shelves.get(key)
    }

    /// The objects of a namespace, or of all of them, as they are now.
    pub(crate) fn list(&self, collection: &Collection, namespace: Option<&str>) -> Listing {
        self.shelves.shelf(collection).list(&self.shelves, namespace)
    }

    /// At most `limit` objects that follow `after`, as they were at `revision`. A revision of the future means now.
    pub(crate) fn list_at(
        &self,
        revision: Revision,
        collection: &Collection,
        namespace: Option<&str>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, Expired> {
        self.shelves.shelf(collection).list_at(&self.shelves, revision, namespace, after, limit)
    }

    /// How many objects a namespace has, or all of them.
    pub(crate) fn count(&self, collection: &Collection, namespace: Option<&str>) -> usize {
        self.shelves.shelf(collection).count(namespace)
    }

    /// The collections that have an object.
    pub(crate) fn collections(&self) -> Vec<Collection> {
        self.shelves.collections()
    }

    /// Every change of a collection after a revision, in order.
    pub(crate) fn watch(&self, collection: &Collection, after: Revision) -> Result<Watch, Expired> {
        Watch::new(Arc::clone(&self.shelves), self.shelves.shelf(collection), after)
    }

    /// Creates or replaces an object. Once sent, the write is made even if the future is dropped.
    pub(crate) async fn put(&self, key: Key, expect: Expect, draft: Draft) -> Result<Arc<Record>, CommitError> {
        self.one(Write::Put { key, expect, draft }).await
    }

    /// Deletes an object. The answer is `last` with the revision of the deletion, which is what watchers get.
    pub(crate) async fn delete(&self, key: &Key, expect: Expect, last: Draft) -> Result<Arc<Record>, CommitError> {
        self.one(Write::Delete { key: key.clone(), expect, last }).await
    }

    /// Several writes: all of them or none. The answers are in their order.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Arc<Record>>, CommitError> {
        self.writer.commit(writes).await
    }

    async fn one(&self, write: Write) -> Result<Arc<Record>, CommitError> {
        let mut records = self.commit(vec![write]).await?;
        Ok(records.pop().expect("one write has one answer"))
    }

    #[cfg(test)]
    /// Forgets how objects came to be as they are now: older revisions are expired from here on.
    pub(crate) fn compact(&self) {
        self.shelves.forget_history();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("revision", &self.revision()).finish_non_exhaustive()
    }
}
