//! The one that writes: checks what writers expect, makes it durable, shows it, acknowledges it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::shelf::Shelves;
use super::watch::{Event, EventKind};
use super::{CommitError, Expect, Key, Record, Revision, StorageError, Write};

/// How many requests may wait for the writer before the next one waits for a place.
const QUEUE: usize = 1024;

/// How many requests are made durable together at most: what one sync costs is then shared widely enough, and the first
/// of them does not wait for too many others.
const BATCH: usize = 512;

type Answer = Result<Vec<Arc<Record>>, CommitError>;

pub(super) struct Request {
    writes: Vec<Write>,
    answer: oneshot::Sender<Answer>,
}

pub(super) enum Writer {
    /// Writes are made by whoever asks for them, one at a time.
    Memory {
        shelves: Arc<Shelves>,
        turn: Mutex<()>,
    },
    Durable {
        requests: Option<mpsc::Sender<Request>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl Writer {
    pub(super) fn memory(shelves: Arc<Shelves>) -> Self {
        Self::Memory { shelves, turn: Mutex::new(()) }
    }

    /// A thread of its own, as a sync blocks for as long as the disk likes.
    pub(super) fn durable(shelves: Arc<Shelves>, disk: Disk) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("store".into());
        let thread = thread.spawn(move || Group { shelves, disk, unresolved: Vec::new() }.serve(queue));
        Self::Durable {
            requests: Some(requests),
            thread: Some(thread.expect("the system has room for one more thread")),
        }
    }

    pub(super) async fn commit(&self, writes: Vec<Write>) -> Answer {
        match self {
            Self::Memory { shelves, turn } => {
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                let mut stage = Stage::new(shelves);
                let answer = stage.add(writes);
                shelves.apply(stage.events);
                answer
            }
            Self::Durable { requests, .. } => {
                let closed = || CommitError::Storage(StorageError::Closed);
                let requests = requests.as_ref().ok_or_else(closed)?;
                let (answer, answered) = oneshot::channel();
                requests.send(Request { writes, answer }).await.map_err(|_| closed())?;
                answered.await.map_err(|_| closed())?
            }
        }
    }
}

impl Drop for Writer {
    /// Waits for the last batch, so that the file is free for the next one who opens it.
    fn drop(&mut self) {
        if let Self::Durable { requests, thread } = self {
            drop(requests.take());
            if let Some(Err(panic)) = thread.take().map(JoinHandle::join)
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// The group commit.
struct Group {
    shelves: Arc<Shelves>,
    disk: Disk,
    /// Events of a batch that failed in a way that leaves open whether it is on the disk.
    unresolved: Vec<Arc<Event>>,
}

impl Group {
    fn serve(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.commit(batch.drain(..));
        }
    }

    fn commit(&mut self, requests: impl Iterator<Item = Request>) {
        if let Err(error) = self.resolve() {
            return requests.for_each(|request| reply(request.answer, Err(CommitError::Storage(error.clone()))));
        }
        let mut stage = Stage::new(&self.shelves);
        let answers: Vec<_> = requests.map(|Request { writes, answer }| (answer, stage.add(writes))).collect();
        let events = stage.events;
        let stored = if events.is_empty() { Ok(()) } else { self.disk.write(&events) };
        match stored {
            Ok(()) => {
                self.shelves.apply(events);
                for (to, answer) in answers {
                    reply(to, answer);
                }
            }
            // Even a conflict may be one with a write that has now failed.
            Err(error) => {
                self.unresolved = events;
                for (to, _) in answers {
                    reply(to, Err(CommitError::Storage(error.clone())));
                }
            }
        }
    }

    /// After a failure: opens the file again and learns from it whether the failed batch was written after all.
    fn resolve(&mut self) -> Result<(), StorageError> {
        if let Some(revision) = self.disk.reopen()? {
            let events = std::mem::take(&mut self.unresolved);
            if events.last().is_some_and(|event| event.record.revision() == revision) {
                self.shelves.apply(events);
            }
        }
        Ok(())
    }
}

fn reply(to: oneshot::Sender<Answer>, answer: Answer) {
    // Whoever asked may be gone; the write stands.
    let _ = to.send(answer);
}

/// Writes that are accepted but not yet visible.
struct Stage<'s> {
    shelves: &'s Shelves,
    revision: Revision,
    events: Vec<Arc<Event>>,
    /// What the events leave under each key.
    after: HashMap<Key, Option<Arc<Record>>>,
}

impl<'s> Stage<'s> {
    fn new(shelves: &'s Shelves) -> Self {
        Self { shelves, revision: shelves.revision(), events: Vec::new(), after: HashMap::new() }
    }

    /// All of the writes, or none.
    fn add(&mut self, writes: Vec<Write>) -> Answer {
        let (revision, first) = (self.revision, self.events.len());
        let mut records = Vec::with_capacity(writes.len());
        for write in writes {
            match self.add_one(write) {
                Ok(record) => records.push(record),
                Err(error) => {
                    for event in self.events.drain(first..).rev() {
                        self.after.insert(event.record.key().clone(), event.previous.clone());
                    }
                    self.revision = revision;
                    return Err(error);
                }
            }
        }
        Ok(records)
    }

    fn add_one(&mut self, write: Write) -> Result<Arc<Record>, CommitError> {
        let previous = match self.after.get(write.key()) {
            Some(staged) => staged.clone(),
            None => self.shelves.get(write.key()),
        };
        let as_expected = match (write.expect(), &previous) {
            (Expect::Absent, None) => true,
            (Expect::Exactly(revision), Some(record)) => record.revision() == revision,
            (Expect::Absent, Some(_)) | (Expect::Exactly(_), None) => false,
        };
        if !as_expected {
            return Err(CommitError::Conflict { current: previous });
        }
        self.revision = self.revision.next();
        let (kind, record) = match write {
            Write::Put { key, draft, .. } if previous.is_none() => (EventKind::Added, draft.commit(key, self.revision)),
            Write::Put { key, draft, .. } => (EventKind::Modified, draft.commit(key, self.revision)),
            Write::Delete { key, last, .. } => (EventKind::Deleted, last.commit(key, self.revision)),
        };
        let record = Arc::new(record);
        let left = (kind != EventKind::Deleted).then(|| Arc::clone(&record));
        self.after.insert(record.key().clone(), left);
        self.events.push(Arc::new(Event { kind, record: Arc::clone(&record), previous }));
        Ok(record)
    }
}
