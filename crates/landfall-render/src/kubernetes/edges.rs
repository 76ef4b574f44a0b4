//! The declared edges by their ends, looked up once: an architecture has as many edges as it has services.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Architecture, Connection, Element};

use super::stores::{self, StoreAccess};

/// The declared edges by their ends, and how each store is reached.
pub(super) struct Edges<'a> {
    from: BTreeMap<&'a Element, Vec<&'a Connection>>,
    to: BTreeMap<&'a Element, Vec<&'a Connection>>,
    stores: BTreeMap<&'a str, StoreAccess>,
    /// The Secrets that are provided in the namespace of each of their readers.
    provided: BTreeSet<String>,
    /// The stores whose backups go to a store.
    backups: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Edges<'a> {
    /// Looks at every edge and store once.
    pub(super) fn of(architecture: &'a Architecture) -> Self {
        let mut edges = Self {
            from: BTreeMap::new(),
            to: BTreeMap::new(),
            stores: BTreeMap::new(),
            provided: stores::needed_secrets(architecture).into_iter().map(|secret| secret.name).collect(),
            backups: BTreeMap::new(),
        };
        for connection in &architecture.connections {
            edges.from.entry(&connection.from).or_default().push(connection);
            edges.to.entry(&connection.to).or_default().push(connection);
        }
        let access = |name: &'a str| Some((name, stores::access(architecture, name)?));
        edges.stores = architecture.document.stores.keys().filter_map(|name| access(name.as_str())).collect();
        for (name, store) in &architecture.document.stores {
            if let Some(to) = store.backup.as_ref().and_then(|backup| backup.to.as_ref()) {
                edges.backups.entry(to.as_str()).or_default().push(name.as_str());
            }
        }
        edges
    }

    /// The edges that begin at `element`.
    pub(super) fn from(&self, element: &Element) -> impl Iterator<Item = &'a Connection> {
        self.from.get(element).into_iter().flatten().copied()
    }

    /// The edges that end at `element`.
    pub(super) fn to(&self, element: &Element) -> impl Iterator<Item = &'a Connection> {
        self.to.get(element).into_iter().flatten().copied()
    }

    /// How the store of that name is reached.
    pub(super) fn store(&self, name: &str) -> Option<&StoreAccess> {
        self.stores.get(name)
    }

    /// Whether a Secret of a store is provided wherever it is read, as opposed to one that an operator makes beside the
    /// store.
    pub(super) fn is_provided(&self, secret: &str) -> bool {
        self.provided.contains(secret)
    }

    /// How the stores are reached whose backups go to the store of that name.
    pub(super) fn backed_up_to(&self, archive: &str) -> impl Iterator<Item = &StoreAccess> {
        self.backups.get(archive).into_iter().flatten().filter_map(|name| self.stores.get(name))
    }
}
