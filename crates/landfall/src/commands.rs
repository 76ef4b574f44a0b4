//! One file for each command.

pub(crate) mod abort;
pub(crate) mod check;
pub(crate) mod claims;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod edges;
pub(crate) mod engine;
pub(crate) mod explain;
pub(crate) mod flows;
pub(crate) mod logs;
pub(crate) mod release;
pub(crate) mod releases;
pub(crate) mod render;
pub(crate) mod rollback;
pub(crate) mod schema;
pub(crate) mod ship;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod up;
