//! Small structured texts: the target of an edge, a reference to a key, a step of a flow.

use std::fmt;
use std::str::FromStr;

use super::{Name, UnitError};

super::text_form! {
    Target, "Target", r"^[a-z0-9][-a-z0-9]*(/.+)?$", "events/inventory.changed";
    Reference, "Reference", r"^[a-z0-9][-a-z0-9]*/[-._a-zA-Z0-9]+$", "db-secret/url";
    Arrow, "Arrow", r"^[a-z0-9][-a-z0-9]* *(->|→) *[a-z0-9][-a-z0-9]*$", "client -> inventory-ledger";
}

/// What an edge ends at: a service, store or external, and a detail in it (topic, queue, bucket, table, path).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The name of the service, store or external.
    pub name: Name,
    /// The topic, queue, bucket, table or path.
    pub detail: Option<String>,
}

impl FromStr for Target {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (name, detail) = match text.split_once('/') {
            Some((name, detail)) => (name, Some(detail.to_owned())),
            None => (text, None),
        };
        match (name.parse(), &detail) {
            (Ok(name), None) => Ok(Self { name, detail: None }),
            (Ok(name), Some(text)) if !text.is_empty() => Ok(Self { name, detail }),
            _ => Err(UnitError::new(
                text,
                "a target: a name such as `ledger`, or with a detail, `events/inventory.changed`",
            )),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}/{detail}", self.name),
            None => self.name.fmt(f),
        }
    }
}

/// A key inside a named thing: `db-secret/url`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The secret, config or store.
    pub name: Name,
    /// The key in it.
    pub key: String,
}

impl FromStr for Reference {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, "a reference such as `db-secret/url`");
        let (name, key) = text.split_once('/').ok_or_else(error)?;
        let valid = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
        match name.parse() {
            Ok(name) if valid => Ok(Self { name, key: key.to_owned() }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.key)
    }
}

/// One step of a flow: from a service, store, external or `client` to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Arrow {
    /// Where the step begins.
    pub from: Name,
    /// Where it ends.
    pub to: Name,
}

impl FromStr for Arrow {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, "a step such as `client -> inventory-ledger`");
        let (from, to) = text.split_once("->").or_else(|| text.split_once('→')).ok_or_else(error)?;
        match (from.trim().parse(), to.trim().parse()) {
            (Ok(from), Ok(to)) => Ok(Self { from, to }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}
