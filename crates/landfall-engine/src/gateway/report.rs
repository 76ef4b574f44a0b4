//! What the gateway has understood of each object: its status, as controllers of the two APIs write it.

use std::collections::BTreeMap;

use super::resources::ParentRef;
use crate::cache::ObjectKey;

/// By object; who is not in it is not ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) ingresses: Vec<ObjectKey>,
    pub(crate) classes: Vec<ObjectKey>,
    pub(crate) gateways: BTreeMap<ObjectKey, GatewayReport>,
    pub(crate) routes: BTreeMap<ObjectKey, Vec<ParentReport>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct GatewayReport {
    pub(crate) conditions: Vec<Verdict>,
    pub(crate) listeners: Vec<ListenerReport>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListenerReport {
    pub(crate) name: String,
    pub(crate) attached: usize,
    pub(crate) supported: bool,
    pub(crate) conditions: Vec<Verdict>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParentReport {
    pub(crate) parent: ParentRef,
    pub(crate) conditions: Vec<Verdict>,
}

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) type_: &'static str,
    pub(crate) status: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Verdict {
    /// True, for the reason that has the name of the condition.
    pub(crate) fn yes(type_: &'static str) -> Self {
        Self { type_, status: true, reason: type_, message: String::new() }
    }

    pub(crate) fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: false, reason, message: message.into() }
    }

    /// True if there is nothing to say against it.
    pub(crate) fn unless(type_: &'static str, objection: Option<(&'static str, String)>) -> Self {
        match objection {
            None => Self::yes(type_),
            Some((reason, message)) => Self::no(type_, reason, message),
        }
    }
}
