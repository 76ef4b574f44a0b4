//! Deletes the data of volumes that have gone, where their policy says so.
//!
//! Not handled: a volume that goes in the moment in which the engine is killed. Nobody knows its policy afterwards, so that
//! its data stays.

use std::collections::BTreeSet;
use std::io;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Shared, volumes};
use crate::cache::Change;

/// Looks after the data of volumes until cancelled.
pub(super) async fn reclaim(shared: &Shared, cancel: &CancellationToken) {
    let cache = &shared.context.caches.persistent_volumes;
    let mut changes = cache.subscribe();
    let mut ours = named(cache.list().iter().map(AsRef::as_ref));
    loop {
        let change = tokio::select! {
            () = cancel.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(Change::Applied { new, .. }) => {
                ours.remove(&new.name_any());
                ours.append(&mut named([&*new]));
            }
            Ok(Change::Deleted { old }) => {
                if ours.remove(&old.name_any()) {
                    delete(shared, &old.name_any()).await;
                }
            }
            Err(RecvError::Lagged(_)) => {
                let all = cache.list();
                for gone in ours.iter().filter(|name| !all.iter().any(|volume| volume.name_any() == **name)) {
                    delete(shared, gone).await;
                }
                ours = named(all.iter().map(AsRef::as_ref));
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The volumes whose data is ours and goes with them.
fn named<'a>(volumes: impl IntoIterator<Item = &'a PersistentVolume>) -> BTreeSet<String> {
    let goes = |volume: &&PersistentVolume| {
        let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        policy == Some("Delete") && volumes::path_of(volume).is_none()
    };
    volumes.into_iter().filter(goes).map(kube::ResourceExt::name_any).collect()
}

async fn delete(shared: &Shared, volume: &str) {
    let folder = shared.persistent.join(volume);
    match tokio::fs::remove_dir_all(&folder).await {
        Ok(()) => info!(volume, "the data of a volume is deleted"),
        // Nobody has used it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(volume, folder = %folder.display(), %error, "the data of a volume is not deleted"),
    }
}
