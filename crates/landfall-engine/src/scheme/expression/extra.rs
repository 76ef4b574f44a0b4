//! Values that Kubernetes adds to the language, and how values of JSON become values of an expression.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Opaque, OptionalValue};

use crate::scheme::quantity::Quantity;

/// A value of a type that is not of the language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Extra {
    Quantity(Quantity),
    Url(Url),
    Address(IpAddr),
    Network(Network),
    Version(Version),
    /// The name of a format of texts.
    Format(&'static str),
}

impl Extra {
    pub(super) const QUANTITY: &str = "kubernetes.Quantity";
    pub(super) const URL: &str = "kubernetes.URL";
    pub(super) const ADDRESS: &str = "net.IP";
    pub(super) const NETWORK: &str = "net.CIDR";
    pub(super) const VERSION: &str = "kubernetes.Semver";
    pub(super) const FORMAT: &str = "kubernetes.NamedFormat";

    pub(super) fn into_value(self) -> Value {
        Value::Opaque(Arc::new(self))
    }

    /// The value, if it is one of these.
    pub(super) fn of(value: &Value) -> Option<&Self> {
        match value {
            Value::Opaque(value) => value.downcast_ref(),
            _ => None,
        }
    }
}

impl Opaque for Extra {
    fn runtime_type_name(&self) -> &str {
        match self {
            Self::Quantity(_) => Self::QUANTITY,
            Self::Url(_) => Self::URL,
            Self::Address(_) => Self::ADDRESS,
            Self::Network(_) => Self::NETWORK,
            Self::Version(_) => Self::VERSION,
            Self::Format(_) => Self::FORMAT,
        }
    }
}

/// The parts of a URL, as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: String,
    /// With its port.
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: String,
}

/// An address and how many of its bits name the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) address: IpAddr,
    pub(super) length: u8,
}

/// A semantic version, without what it says of its build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// Major, minor and patch.
    pub(super) numbers: [u64; 3],
    pub(super) before: Vec<Identifier>,
}

/// A part of what follows the hyphen of a version; numbers come before texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identifier {
    Number(u64),
    Text(String),
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        // What comes before a version has identifiers, the version itself has none.
        let key = |version: &Self| (version.numbers, version.before.is_empty());
        key(self).cmp(&key(other)).then_with(|| self.before.cmp(&other.before))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A value that may be absent.
pub(super) fn optional(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// A value of JSON. Whole numbers are of the type `int`, as in Kubernetes.
pub(crate) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(yes) => Value::Bool(*yes),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(list) => Value::from(list.iter().map(from_json).collect::<Vec<_>>()),
        serde_json::Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), from_json(value)));
            Value::from(fields.collect::<HashMap<_, _>>())
        }
    }
}
