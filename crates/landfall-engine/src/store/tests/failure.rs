//! A disk that fills up, and has room again.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};
use serde_json::json;

use super::super::disk::{Medium, builder};
use super::{draft, key, put};
use crate::store::{CommitError, Expect, Store};

/// A file that fails when it is told to.
#[derive(Debug, Clone)]
struct Fragile {
    path: PathBuf,
    full: Arc<AtomicBool>,
    /// Counted down by each write; the disk is full when it comes to zero.
    writes_left: Arc<AtomicU32>,
}

#[derive(Debug)]
struct FragileBackend {
    file: FileBackend,
    fragile: Fragile,
}

impl Fragile {
    fn check(&self) -> io::Result<()> {
        let left = self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left == Ok(1) {
            self.full.store(true, Ordering::SeqCst);
        }
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Medium for Fragile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        builder().create_with_backend(FragileBackend { file: FileBackend::new(file)?, fragile: self.clone() })
    }

    fn size(&self) -> io::Result<u64> {
        std::fs::metadata(&self.path).map(|file| file.len())
    }
}

impl StorageBackend for FragileBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fragile.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fragile.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fragile.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_is_lost_when_it_has_room_again() {
    // The disk fills up at each point of a commit in turn: at its first write, its second, and so on past its end.
    for after in 1..40 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fragile = Fragile {
            path: folder.path().join("store.redb"),
            full: Arc::new(AtomicBool::new(false)),
            writes_left: Arc::new(AtomicU32::new(0)),
        };
        let store = Store::open_on(fragile.clone()).expect("the disk has room");
        put(&store, &key("before"), &json!(null)).await;

        fragile.writes_left.store(after, Ordering::SeqCst);
        let doubtful = store.put(key("doubtful"), Expect::Absent, draft(&key("doubtful"), &json!(null))).await;
        fragile.full.store(true, Ordering::SeqCst);
        let refused = store.put(key("refused"), Expect::Absent, draft(&key("refused"), &json!(null))).await;
        assert!(matches!(refused, Err(CommitError::Storage(_))), "{after}: {refused:?}");
        assert!(store.get(&key("before")).is_some(), "{after}: a full disk can be read");
        assert_eq!(store.get(&key("doubtful")).is_some(), doubtful.is_ok(), "{after}");

        fragile.writes_left.store(0, Ordering::SeqCst);
        fragile.full.store(false, Ordering::SeqCst);
        put(&store, &key("after"), &json!(null)).await;
        let now: Vec<_> = store.list(&"pods".into(), None).records.iter().map(|record| record.json().clone()).collect();
        let revision = store.revision();
        if doubtful.is_ok() {
            assert!(store.get(&key("doubtful")).is_some(), "{after}: it was acknowledged");
        }
        drop(store);

        let store = Store::open_on(fragile).expect("the disk has room");
        let then: Vec<_> =
            store.list(&"pods".into(), None).records.iter().map(|record| record.json().clone()).collect();
        assert_eq!((then, store.revision()), (now, revision), "{after}: memory and disk agree");
    }
}
