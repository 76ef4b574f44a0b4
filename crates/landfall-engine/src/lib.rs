//! A Kubernetes in one process: API server, store, controllers, scheduler and node agent.
//!
//! It knows no type of Landfall. It runs anybody's manifests; `kubectl`, `helm` and `kube-rs` are its users. Only `api`
//! touches the store: everything else speaks through `kube::Client` and reflector caches, so that each part can be
//! exchanged for the real one, and each can join a real control plane.

mod api;
mod cache;
mod clock;
mod context;
mod controller;
mod engine;
mod event;
mod gateway;
mod images;
mod kubelet;
mod network;
mod runtime;
mod scheduler;
mod scheme;
mod store;
mod tasks;

pub use api::machine::CLOCK_PATH;
pub use engine::{
    ApiServer, ApiServerConfig, AuthorityError, Config, Engine, Entrances, Handle, JoinConfig, Joined, MachineReport,
    NODE_MONITOR_GRACE_PERIOD, PodRuntime, Pods, Report, StartError,
};
pub use gateway::GatewayConfig;
pub use images::{Catalogue, CatalogueError, Entry, MetricsPlace};
pub use kubelet::NodeSpec;
pub use network::{EgressBlock, EgressBlockError, LAST_PRIVILEGED_PORT, Level, NetworkError, RAISED_BY, network_main};
pub use runtime::process::Shim;
pub use runtime::shim::shim_main;
pub use runtime::{Isolation, LimitIsolation, MountIsolation};
pub use store::OpenError;
