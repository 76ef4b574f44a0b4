//! Reading of JSON values that may hold anything: every access says where it failed and why, and none panics.
//!
//! An absent field and `null` are one case, as they are for the Kubernetes API server.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde_json::Value;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// What is wrong with a value that Kubernetes would refuse or read differently from what is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Malformed {
    /// The field, as Kubernetes writes it: `spec.ingress[0].from[1].ipBlock.cidr`.
    pub path: String,
    /// What it has to be instead, as the rest of a sentence that begins with the path.
    pub reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path, self.reason)
    }
}

/// A value and the way to it.
///
/// The way is written out only for a message: a set of a thousand policies is read through some hundred thousand
/// fields, and nearly all of them are as they should be.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    /// `None` for the object itself.
    place: Option<Rc<Place<'a>>>,
    value: &'a Value,
}

#[derive(Debug)]
struct Place<'a> {
    within: Option<Rc<Place<'a>>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

impl<'a> Field<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Field { place: None, value }
    }

    /// The named member; absent if this field is.
    pub(super) fn member(&self, name: &'a str) -> Result<Field<'a>, Malformed> {
        match self.value {
            Value::Null => Ok(self.step(Step::Member(name), &Value::Null)),
            Value::Object(members) => Ok(self.step(Step::Member(name), members.get(name).unwrap_or(&Value::Null))),
            _ => Err(self.malformed("must be a mapping")),
        }
    }

    /// The member at the end of a chain of names.
    pub(super) fn at(&self, names: &[&'a str]) -> Result<Field<'a>, Malformed> {
        names.iter().try_fold(self.clone(), |field, name| field.member(name))
    }

    /// The way as Kubernetes writes it; `.` for the object itself.
    pub(super) fn path(&self) -> String {
        let mut steps = Vec::new();
        let mut place = self.place.as_deref();
        while let Some(Place { within, step }) = place {
            steps.push(match step {
                Step::Member(name) if within.is_none() => (*name).to_owned(),
                Step::Member(name) => format!(".{name}"),
                Step::Item(index) => format!("[{index}]"),
            });
            place = within.as_deref();
        }
        if steps.is_empty() { ".".to_owned() } else { steps.into_iter().rev().collect() }
    }

    pub(super) fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// The items of a list; none if absent.
    pub(super) fn items(&self) -> Result<Vec<Field<'a>>, Malformed> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => {
                Ok(items.iter().enumerate().map(|(index, value)| self.step(Step::Item(index), value)).collect())
            }
            _ => Err(self.malformed("must be a list")),
        }
    }

    pub(super) fn text(&self) -> Result<Option<&'a str>, Malformed> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.malformed("must be a string")),
        }
    }

    pub(super) fn required_text(&self) -> Result<&'a str, Malformed> {
        self.text()?.filter(|text| !text.is_empty()).ok_or_else(|| self.malformed("is required"))
    }

    pub(super) fn boolean(&self) -> Result<Option<bool>, Malformed> {
        match self.value {
            Value::Null => Ok(None),
            Value::Bool(value) => Ok(Some(*value)),
            _ => Err(self.malformed("must be true or false")),
        }
    }

    /// A port number from 1 to 65535.
    pub(super) fn port(&self) -> Result<Option<u16>, Malformed> {
        match self.value {
            Value::Null => Ok(None),
            value => value
                .as_u64()
                .and_then(|number| u16::try_from(number).ok())
                .filter(|number| *number != 0)
                .map(Some)
                .ok_or_else(|| self.malformed("must be a port number from 1 to 65535")),
        }
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.is_string()
    }

    /// A mapping of strings to strings; empty if absent.
    pub(super) fn labels(&self) -> Result<Labels, Malformed> {
        self.members()?
            .into_iter()
            .map(|(name, field)| {
                let value = field.text()?.ok_or_else(|| field.malformed("must be a string"))?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect()
    }

    /// The members of a mapping; none if absent.
    pub(super) fn members(&self) -> Result<Vec<(&'a str, Field<'a>)>, Malformed> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Object(members) => {
                Ok(members.iter().map(|(name, value)| (name.as_str(), self.step(Step::Member(name), value))).collect())
            }
            _ => Err(self.malformed("must be a mapping")),
        }
    }

    /// Refuses members other than these.
    ///
    /// A rule whose `from` is spelled `form` allows everybody; `kubectl apply` refuses it, and so do we.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), Malformed> {
        let unknown = match self.value {
            Value::Object(members) => members.keys().find(|name| !names.contains(&name.as_str())),
            Value::Null => None,
            _ => return Err(self.malformed("must be a mapping")),
        };
        match unknown {
            None => Ok(()),
            Some(name) => Err(self.member(name)?.malformed("is not a known field")),
        }
    }

    fn step(&self, step: Step<'a>, value: &'a Value) -> Field<'a> {
        Field { place: Some(Rc::new(Place { within: self.place.clone(), step })), value }
    }

    pub(super) fn malformed(&self, reason: impl Into<String>) -> Malformed {
        Malformed { path: self.path(), reason: reason.into() }
    }
}
