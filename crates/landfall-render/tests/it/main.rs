//! Tests of what is rendered, by what a reader of the objects sees.

mod architecture;
mod docs;
mod environment;
mod everything;
mod exposure;
mod files;
mod monitoring;
mod namespaces;
mod network;
mod patches;
mod pipeline;
mod scaling;
mod secrets;
mod stores;
mod targets;
mod terraform;
mod workload;
