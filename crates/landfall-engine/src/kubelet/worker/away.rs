//! A pod whose node is cut off or killed.

use std::sync::PoisonError;

use super::Worker;
use crate::api::machine::NodeFault;

impl Worker {
    /// Whether the node agent does anything about the pod now.
    pub(super) async fn node_acts(&mut self) -> bool {
        let boot = self.shared.boots(&self.node);
        if self.boot != boot {
            // It may be on again by now; what ran before is dead all the same.
            self.boot = boot;
            self.away = true;
            self.power_off().await;
        }
        match self.shared.fault(&self.node) {
            NodeFault::Killed => false,
            // It goes on with the pods that it knows: it restarts and probes their containers, and tells nobody.
            NodeFault::Cut => {
                self.away = true;
                self.heard_of
            }
            NodeFault::None => {
                self.heard_of = true;
                if std::mem::take(&mut self.away) {
                    // Others have written to the status meanwhile.
                    self.written = None;
                }
                true
            }
        }
    }

    /// Whether nothing that the API knows gets to the node.
    pub(super) fn is_cut_off(&self) -> bool {
        self.shared.fault(&self.node) == NodeFault::Cut
    }

    /// The machine of this node is off: everything is dead, nobody says so.
    async fn power_off(&mut self) {
        *self.handle.sandbox.write().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.close().await;
        }
        for slot in self.slots.values_mut() {
            slot.stop_probing();
        }
        self.jobs.abort_all();
        while self.jobs.join_next().await.is_some() {}
        self.slots.clear();
        // What was in memory has gone.
        self.volumes = None;
        self.opening = false;
        self.making = false;
    }
}
