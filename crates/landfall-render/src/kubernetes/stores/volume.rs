//! The volumes of a store.

use crate::json::json;
use landfall_model::{Bytes, Persistence};
use serde_json::Value;

use super::Site;
use crate::object::compact;

/// The volume of a store that declares no size: enough to try it, and small enough to be noticed.
const DEFAULT_SIZE: Bytes = Bytes::new(10 << 30);

impl Site<'_> {
    /// Whether its data survives its pods.
    pub(super) fn is_persistent(&self) -> bool {
        self.store.persistence.as_ref().is_none_or(|persistence| persistence.value != Persistence::None)
    }

    /// The size of each member's volume.
    pub(super) fn volume_size(&self) -> String {
        self.volume().to_string()
    }

    pub(super) fn volume_bytes(&self) -> u64 {
        self.volume().get()
    }

    fn volume(&self) -> Bytes {
        self.store.size.as_ref().map_or(DEFAULT_SIZE, |size| size.value)
    }

    /// The class of the volumes: the store's, otherwise the platform's, otherwise the cluster's default.
    ///
    /// Encryption at rest is a property of the class; nothing else here asks for it.
    pub(super) fn storage_class(&self) -> Option<&str> {
        let platform = self.architecture.document.platform.storage.class.as_ref();
        self.store.storage_class.as_ref().or(platform).map(|class| class.value.as_str())
    }

    /// What a member claims.
    pub(super) fn claim(&self) -> Value {
        compact(json!({
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": self.storage_class(),
            "resources": { "requests": { "storage": self.volume_size() } },
        }))
    }
}
