//! What a server answered to a scenario, masked: the recording, and the comparison with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use similar::TextDiff;

use crate::scenario::mask::Masks;
use crate::scenario::path::Path;
use crate::scenario::script::{Scenario, Step};

/// The answer to one step as it came.
#[derive(Debug, Default)]
pub(crate) struct RawAnswer {
    pub(crate) code: Option<u16>,
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    pub(crate) body: Option<Value>,
    pub(crate) events: Option<Vec<Value>>,
    /// Why the step did not end as it should: a deadline passed, a variable is missing, the connection broke.
    pub(crate) failure: Option<String>,
}

/// The answer to one step as it is written and compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    pub(crate) step: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u16>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) events: Option<Vec<Value>>,
}

/// All answers of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Transcript(pub(crate) Vec<Answer>);

impl Transcript {
    /// Masks what was answered.
    pub(crate) fn mask(scenario: &Scenario, namespace: &str, raw: &[RawAnswer]) -> Self {
        let mut masks = Masks::new(&scenario.source, namespace, scenario.script.managed_fields);
        for answer in raw {
            answer.body.iter().chain(answer.events.iter().flatten()).for_each(|value| masks.learn(value));
        }
        let answers = scenario.script.steps.iter().zip(raw).map(|(step, raw)| {
            let headers = raw.headers.iter().map(|(name, values)| {
                let values = values.iter().map(|value| mask_text(&mut masks, value)).collect();
                (name.clone(), values)
            });
            let headers = headers.collect();
            let mut failure = raw.failure.as_deref().map(|failure| mask_text(&mut masks, failure));
            let mut shape = |value| shape(&mut masks, step, value, &mut failure);
            let body = raw.body.as_ref().map(&mut shape);
            let mut events: Option<Vec<_>> = raw.events.as_ref().map(|events| events.iter().map(shape).collect());
            if step.unordered.iter().any(Path::is_empty)
                && let Some(events) = &mut events
            {
                events.sort_by_cached_key(ToString::to_string);
            }
            Answer { step: step.name.clone(), failure, code: raw.code, headers, body, events }
        });
        Self(answers.collect())
    }

    /// The recording's text.
    pub(crate) fn to_yaml(&self, scenario: &str) -> Result<String, serde_saphyr::SerializeError> {
        let head = format!(
            "# What Kubernetes answers to `{scenario}`. Written by `LANDFALL_BLESS=1 cargo xtask conformance`.\n"
        );
        Ok(head + &serde_saphyr::to_string(&self.0)?)
    }

    pub(crate) fn from_yaml(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str(text).map(Self)
    }

    /// The steps that failed to run, whatever was answered.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|answer| Some((answer.step.as_str(), answer.failure.as_deref()?)))
    }

    /// The steps whose answers are others than in `expected`.
    pub(crate) fn differences(&self, expected: &Self) -> Vec<Difference> {
        let find = |transcript: &Self, step: &str| transcript.0.iter().find(|answer| answer.step == step).cloned();
        let mut steps: Vec<_> = expected.0.iter().map(|answer| &answer.step).collect();
        steps.extend(self.0.iter().map(|answer| &answer.step).filter(|step| find(expected, step).is_none()));
        let differences = steps.into_iter().filter_map(|step| {
            let (expected, actual) = (find(expected, step), find(self, step));
            (expected != actual).then(|| Difference { step: step.clone(), expected, actual })
        });
        differences.collect()
    }
}

/// One step that was answered differently.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) step: String,
    pub(crate) expected: Option<Answer>,
    pub(crate) actual: Option<Answer>,
}

impl Difference {
    /// The answers as a diff, from what is recorded to what came.
    pub(crate) fn diff(&self) -> String {
        let text = |answer: &Option<Answer>| {
            answer.as_ref().map_or_else(String::new, |answer| {
                serde_saphyr::to_string(answer).unwrap_or_else(|error| format!("{answer:?}\n({error})\n"))
            })
        };
        let (expected, actual) = (text(&self.expected), text(&self.actual));
        TextDiff::from_lines(&expected, &actual)
            .unified_diff()
            .context_radius(4)
            .header("kubernetes", "here")
            .to_string()
    }
}

fn mask_text(masks: &mut Masks<'_>, text: &str) -> String {
    match masks.apply(&text.into()) {
        Value::String(masked) => masked,
        other => other.to_string(),
    }
}

/// Leaves out, selects, orders and masks. An `unordered` that meets no list fails the step: it would order nothing.
fn shape(masks: &mut Masks<'_>, step: &Step, value: &Value, failure: &mut Option<String>) -> Value {
    let mut value = value.clone();
    step.ignore.iter().for_each(|path| path.remove(&mut value));
    // The empty one is the list of a watch's events, of which this is one.
    for path in step.unordered.iter().filter(|path| !path.is_empty()) {
        path.change(&mut value, &mut |list| {
            if let Value::Array(list) = list {
                list.sort_by_cached_key(|element| masks.sort_key(element));
            } else {
                *failure = Some(format!("unordered: {path} is no list"));
            }
        });
    }
    if step.select.is_empty() {
        return masks.apply(&value);
    }
    let selected = step.select.iter().map(|path| (path.to_string(), masks.apply(&path.of(&value))));
    Value::Object(selected.collect())
}
