//! Where Landfall's engine serves what is no part of Kubernetes' API, for those who speak to a cluster that may be one.

/// Its clock: a `GET` answers with its `time` and its `speed`.
pub const ENGINE_CLOCK: &str = "/landfall.dev/v1/clock";
