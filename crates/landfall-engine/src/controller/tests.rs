//! The controllers together, against a real API server, with a fake kubelet.
//!
//! Each scenario is a snapshot of what is there in the end: objects, conditions, annotations, events. The same
//! snapshots hold for Kubernetes' own controllers: with `LANDFALL_TEST_CONTROLLERS=real` ours are not started.

mod cluster;
mod kubelet;
mod queue;
mod workloads;
mod world;
