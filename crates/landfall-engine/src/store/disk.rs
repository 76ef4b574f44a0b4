//! The file of a store: one table of objects, and the revision of the last write.
//!
//! It is read once, when the store is opened. Each batch of writes is one transaction with one sync.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::de::IgnoredAny;

use super::watch::{Event, EventKind};
use super::{Collection, Key, OpenError, Record, Revision, StorageError};

/// Changes when an older version could not read the file any more.
pub(super) const FORMAT: u64 = 1;

const FILE: &str = "store.redb";

/// By [`stored_key`]: the revision, the place in the JSON where it stands, the JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";

/// Length of what precedes the JSON: a revision and a gap, both little-endian.
const HEADER: usize = size_of::<u64>() + size_of::<u32>();

/// Pages are read once at the start, and later only to be changed.
const CACHE: usize = 16 * 1024 * 1024;

/// A file is made smaller when it is this large, and [`SPARSE`] times as large as what is in it. Below, nobody minds.
const COMPACT_ABOVE: u64 = 32 * 1024 * 1024;
const SPARSE: u64 = 4;

/// After how many transactions the size of the file is looked at.
const LOOK_AT_SIZE: u32 = 1024;

/// Where a database is kept: a file, or in tests something that fails like one.
pub(super) trait Medium: Send + 'static {
    fn path(&self) -> &Path;

    fn open(&self) -> Result<Database, DatabaseError>;

    fn size(&self) -> io::Result<u64>;
}

/// A file in a folder.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
}

impl File {
    /// The folder is made if it is not there.
    pub(super) fn in_folder(folder: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(folder).map_err(|source| OpenError::Folder { path: folder.to_owned(), source })?;
        Ok(Self { path: folder.join(FILE) })
    }
}

impl Medium for File {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Database, DatabaseError> {
        builder().create(&self.path)
    }

    fn size(&self) -> io::Result<u64> {
        fs::metadata(&self.path).map(|file| file.len())
    }
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

pub(super) struct Disk {
    medium: Box<dyn Medium>,
    /// `None` after a failure: the database refuses everything then, until it is opened again.
    database: Option<Database>,
    /// The size of all objects.
    live: u64,
    transactions: u32,
}

/// What was on the disk.
pub(super) struct Loaded {
    pub(super) revision: Revision,
    pub(super) records: Vec<Record>,
}

impl Disk {
    pub(super) fn open(medium: impl Medium) -> Result<(Self, Loaded), OpenError> {
        let path = medium.path();
        let mut database = medium.open().map_err(|error| open_error(path, error))?;
        let loaded = load(&database).map_err(|error| error.at(path))?;
        let live = loaded.records.iter().map(|record| record.json().len() as u64).sum();
        if is_sparse(medium.size().unwrap_or_default(), live) {
            database.compact().map_err(|error| Unreadable::from(redb::Error::from(error)).at(path))?;
        }
        Ok((Self { medium: Box::new(medium), database: Some(database), live, transactions: 0 }, loaded))
    }

    /// Makes events durable: all of them or none. After an error it is open which, until [`Disk::reopen`].
    pub(super) fn write(&mut self, events: &[Arc<Event>]) -> Result<(), StorageError> {
        let database = self.database.as_ref().ok_or(StorageError::Closed)?;
        if let Err(error) = write(database, events) {
            self.database = None;
            return Err(storage_error(self.medium.path(), error));
        }
        for event in events {
            self.live -= event.previous.as_ref().map_or(0, |record| record.json().len() as u64);
            self.live += if event.kind == EventKind::Deleted { 0 } else { event.record.json().len() as u64 };
        }
        self.transactions += 1;
        if self.transactions.is_multiple_of(LOOK_AT_SIZE) {
            self.compact_if_sparse();
        }
        Ok(())
    }

    /// Opens the file again if a write has failed, and says then which revision it has come to.
    pub(super) fn reopen(&mut self) -> Result<Option<Revision>, StorageError> {
        if self.database.is_some() {
            return Ok(None);
        }
        let path = self.medium.path();
        let database = self.medium.open().map_err(|error| storage_error(path, error.into()))?;
        let revision = revision(&database).map_err(|error| storage_error(path, error))?;
        self.database = Some(database);
        Ok(Some(revision))
    }

    fn compact_if_sparse(&mut self) {
        if is_sparse(self.medium.size().unwrap_or_default(), self.live)
            && let Some(database) = &mut self.database
            && let Err(error) = database.compact()
        {
            // Nothing is lost by a large file; what ails the disk shows at the next write.
            tracing::warn!(path = %self.medium.path().display(), %error, "failed to make the store smaller");
        }
    }
}

fn is_sparse(size: u64, live: u64) -> bool {
    size > COMPACT_ABOVE && size > live.saturating_mul(SPARSE)
}

fn write(database: &Database, events: &[Arc<Event>]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for event in events {
            let record = &event.record;
            let key = stored_key(record.key());
            if event.kind == EventKind::Deleted {
                objects.remove(key.as_str())?;
                continue;
            }
            let gap = u32::try_from(record.gap()).expect("metadata is smaller than 4 GiB");
            let mut value = objects.insert_reserve(key.as_str(), HEADER + record.json().len())?;
            let (header, json) = value.as_mut().split_at_mut(HEADER);
            header[..8].copy_from_slice(&record.revision().0.to_le_bytes());
            header[8..].copy_from_slice(&gap.to_le_bytes());
            json.copy_from_slice(record.json());
        }
        if let Some(last) = events.last() {
            transaction.open_table(META)?.insert(META_REVISION, last.record.revision().0)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn load(database: &Database) -> Result<Loaded, Unreadable> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    let found = {
        let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
        let found = meta.get(META_FORMAT).map_err(redb::Error::from)?.map(|format| format.value());
        if found.is_none() {
            meta.insert(META_FORMAT, FORMAT).map_err(redb::Error::from)?;
            meta.insert(META_REVISION, 0).map_err(redb::Error::from)?;
        }
        transaction.open_table(OBJECTS).map_err(redb::Error::from)?;
        found
    };
    match found {
        None => transaction.commit().map_err(redb::Error::from)?,
        Some(FORMAT) => transaction.abort().map_err(redb::Error::from)?,
        Some(found) => return Err(Unreadable::Format(found)),
    }
    let revision = revision(database)?;
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let objects = transaction.open_table(OBJECTS).map_err(redb::Error::from)?;
    let mut records = Vec::new();
    let mut last: Option<Collection> = None;
    for entry in objects.iter().map_err(redb::Error::from)? {
        let (key, value) = entry.map_err(redb::Error::from)?;
        let record = restore(key.value(), value.value(), &mut last);
        records.push(record.ok_or_else(|| Unreadable::Object(key.value().replace('\0', "/")))?);
    }
    Ok(Loaded { revision, records })
}

fn revision(database: &Database) -> Result<Revision, redb::Error> {
    let transaction = database.begin_read()?;
    let revision = transaction.open_table(META)?.get(META_REVISION)?.map_or(0, |revision| revision.value());
    Ok(Revision(revision))
}

/// `None` if it is not what [`write()`] writes. Objects of a collection follow each other and share its name.
fn restore(key: &str, value: &[u8], last: &mut Option<Collection>) -> Option<Record> {
    let mut parts = key.split('\0');
    let (collection, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let collection = match last {
        Some(last) if last.as_str() == collection => last.clone(),
        _ => last.insert(collection.into()).clone(),
    };
    let (revision, value) = value.split_first_chunk()?;
    let (gap, json) = value.split_first_chunk()?;
    serde_json::from_slice::<IgnoredAny>(json).ok()?;
    Record::restored(
        Key::new(&collection, namespace, name),
        Revision(u64::from_le_bytes(*revision)),
        Bytes::copy_from_slice(json),
        u32::from_le_bytes(*gap) as usize,
    )
}

/// Collection, namespace and name; none of them can contain a zero byte.
fn stored_key(key: &Key) -> String {
    [key.collection.as_str(), "\0", &key.namespace, "\0", &key.name].concat()
}

/// Why the content of a file could not be read.
enum Unreadable {
    Database(redb::Error),
    Format(u64),
    Object(String),
}

impl From<redb::Error> for Unreadable {
    fn from(error: redb::Error) -> Self {
        Self::Database(error)
    }
}

impl Unreadable {
    fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Database(redb::Error::Io(source)) => OpenError::File { path, source },
            Self::Database(error) => OpenError::Damaged { path, detail: error.to_string() },
            Self::Format(found) => OpenError::Format { path, found },
            Self::Object(key) => OpenError::Damaged { path, detail: format!("`{key}` cannot be read") },
        }
    }
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        // The file is not a database at all.
        DatabaseError::Storage(redb::StorageError::Io(source)) if source.kind() == io::ErrorKind::InvalidData => {
            OpenError::Damaged { path, detail: source.to_string() }
        }
        DatabaseError::Storage(redb::StorageError::Io(source)) => OpenError::File { path, source },
        other => OpenError::Damaged { path, detail: other.to_string() },
    }
}

fn storage_error(path: &Path, error: redb::Error) -> StorageError {
    let source = match error {
        redb::Error::Io(source) => source,
        other => io::Error::other(other),
    };
    StorageError::Io { path: path.to_owned(), source: Arc::new(source) }
}
