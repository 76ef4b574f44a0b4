//! Scenarios: requests to an API server whose masked answers are compared with those of Kubernetes.
//!
//! A scenario is data: `tests/conformance/README.md` says how one is written. This runs them; it starts no server.

mod endpoint;
mod known;
mod mask;
mod path;
mod play;
mod random;
mod script;
mod suite;
mod transcript;

pub use endpoint::{Endpoint, EndpointError};
pub use known::KnownDifference;
pub use random::{Alphabet, RandomScenario, check_random};
pub use script::LoadError;
pub use suite::{Against, Outcome, Suite, SuiteError};
