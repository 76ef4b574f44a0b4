//! Label selectors, as `metav1.LabelSelector` defines them.

use std::collections::BTreeSet;

use super::field::{Field, Labels, Malformed};

/// A conjunction of requirements; without any it matches everything.
///
/// Requirements are sorted, so that equal selectors are equal keys however they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Requirement {
    In(String, BTreeSet<String>),
    /// Also met by an object without the label.
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    /// Every object whose labels include these.
    pub(super) fn labels(labels: Labels) -> Self {
        Selector::new(labels.into_iter().map(|(key, value)| Requirement::In(key, BTreeSet::from([value]))).collect())
    }

    /// A selector that is present; the caller decides what an absent one means, as that differs from field to field.
    pub(super) fn parse(field: &Field<'_>) -> Result<Self, Malformed> {
        field.only(&["matchLabels", "matchExpressions"])?;
        let mut requirements = Selector::labels(field.member("matchLabels")?.labels()?).requirements;
        for expression in field.member("matchExpressions")?.items()? {
            requirements.push(Requirement::parse(&expression)?);
        }
        Ok(Selector::new(requirements))
    }

    fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        requirements.dedup();
        Selector { requirements }
    }

    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.is_met_by(labels))
    }

    pub(super) fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    fn parse(field: &Field<'_>) -> Result<Self, Malformed> {
        field.only(&["key", "operator", "values"])?;
        let key = field.member("key")?.required_text()?.to_owned();
        let operator = field.member("operator")?;
        let list = field.member("values")?;
        let values = list
            .items()?
            .into_iter()
            .map(|item| item.text()?.map(str::to_owned).ok_or_else(|| item.malformed("must be a string")))
            .collect::<Result<BTreeSet<String>, Malformed>>()?;
        match (operator.required_text()?, values.is_empty()) {
            ("In" | "NotIn", true) => Err(list.malformed("must hold at least one value")),
            ("Exists" | "DoesNotExist", false) => Err(list.malformed("must be empty with `Exists` and `DoesNotExist`")),
            ("In", _) => Ok(Requirement::In(key, values)),
            ("NotIn", _) => Ok(Requirement::NotIn(key, values)),
            ("Exists", _) => Ok(Requirement::Exists(key)),
            ("DoesNotExist", _) => Ok(Requirement::DoesNotExist(key)),
            _ => Err(operator.malformed("must be `In`, `NotIn`, `Exists` or `DoesNotExist`")),
        }
    }

    fn is_met_by(&self, labels: &Labels) -> bool {
        match self {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}
