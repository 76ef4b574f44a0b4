//! What happened to the objects of a collection, in order.
//!
//! A watch has no queue of its own: it reads the events that the collection remembers, and is told that it has expired
//! when those it would need next are forgotten. So a slow watcher costs nothing and holds nobody up.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

use super::shelf::{Shelf, Shelves};
use super::{Expired, Record, Revision};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// One write, as a watcher sees it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// The object after the write; for a deletion its last state, with the revision of the deletion.
    pub(crate) record: Arc<Record>,
    /// The object before the write.
    pub(crate) previous: Option<Arc<Record>>,
}

/// Every event of a collection after a revision: no gap, no double. It ends after an [`Expired`], otherwise never.
pub(crate) struct Watch {
    shelves: Arc<Shelves>,
    shelf: Arc<Shelf>,
    ready: VecDeque<Arc<Event>>,
    /// Where to read on once `ready` is delivered.
    after: Revision,
    changed: ReusableBoxFuture<'static, watch::Receiver<()>>,
    expired: bool,
}

impl Watch {
    pub(super) fn new(shelves: Arc<Shelves>, shelf: Arc<Shelf>, after: Revision) -> Result<Self, Expired> {
        // Subscribed before the first look, so that nothing falls in between.
        let changed = ReusableBoxFuture::new(change(shelf.changes()));
        let missed = shelf.missed(&shelves, after)?;
        Ok(Self { shelves, shelf, ready: missed.events.into(), after: missed.upto, changed, expired: false })
    }

    /// The newest revision up to which everything has been delivered: what a bookmark may say.
    pub(crate) fn position(&self) -> Revision {
        match self.ready.front() {
            None => self.after,
            Some(next) => Revision(next.record.revision().0 - 1),
        }
    }
}

async fn change(mut changes: watch::Receiver<()>) -> watch::Receiver<()> {
    // It fails only when the shelf is gone, and the watch holds the shelf.
    let _ = changes.changed().await;
    changes
}

impl Stream for Watch {
    type Item = Result<Arc<Event>, Expired>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watch = self.get_mut();
        loop {
            if watch.expired {
                return Poll::Ready(None);
            }
            if let Some(event) = watch.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match watch.shelf.missed(&watch.shelves, watch.after) {
                Err(expired) => {
                    watch.expired = true;
                    return Poll::Ready(Some(Err(expired)));
                }
                Ok(missed) => {
                    watch.after = missed.upto;
                    watch.ready.extend(missed.events);
                }
            }
            if watch.ready.is_empty() {
                let changes = ready!(watch.changed.poll(cx));
                watch.changed.set(change(changes));
            }
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("position", &self.position()).finish_non_exhaustive()
    }
}
