//! Label selectors and field selectors: parsing with Kubernetes' grammar and errors, and matching.
//!
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api>

use serde_json::{Value, json};

use super::Resource;
use super::validate::names;

/// A selector that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SelectorError(pub(crate) String);

/// What labels must say; all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let fail = |reason: String| Err(SelectorError(format!("unable to parse requirement: {reason}")));
        let mut tokens = tokens(text).into_iter().peekable();
        let mut requirements = Vec::new();
        if tokens.peek().is_none() {
            return Ok(Self::default());
        }
        loop {
            let negated = tokens.next_if(|token| token == "!").is_some();
            let Some(key) = tokens.next() else {
                return fail("found '', expected: !, identifier, or 'end of string'".to_owned());
            };
            if is_operator(&key) {
                return fail(format!("found '{key}', expected: !, identifier, or 'end of string'"));
            }
            if let Some(reason) = names::qualified(&key).into_iter().next() {
                return fail(format!("<nil>: Invalid value: {key:?}: {reason}"));
            }
            let operator = match tokens.peek().map(String::as_str) {
                None | Some(",") => None,
                Some(_) => tokens.next(),
            };
            let test = match operator.as_deref() {
                None => {
                    if negated {
                        Test::Absent
                    } else {
                        Test::Exists
                    }
                }
                Some(other) if negated => {
                    return fail(format!("found '{other}', expected: ',' or 'end of string'"));
                }
                Some(equal @ ("=" | "==" | "!=")) => {
                    let value = match tokens.peek().map(String::as_str) {
                        None | Some(",") => String::new(),
                        Some(_) => tokens.next().unwrap_or_default(),
                    };
                    if equal == "!=" { Test::NotIn(vec![value]) } else { Test::In(vec![value]) }
                }
                Some(set @ ("in" | "notin")) => {
                    if tokens.next().as_deref() != Some("(") {
                        return fail(format!("found '{set}', expected: '('"));
                    }
                    let mut values = Vec::new();
                    let mut current = String::new();
                    loop {
                        match tokens.next().as_deref() {
                            Some(")") => break,
                            Some(",") => values.push(std::mem::take(&mut current)),
                            Some(value) => value.clone_into(&mut current),
                            None => return fail("found '', expected: ',' or ')'".to_owned()),
                        }
                    }
                    values.push(current);
                    if set == "in" { Test::In(values) } else { Test::NotIn(values) }
                }
                Some(order @ (">" | "<")) => {
                    let value = tokens.next().unwrap_or_default();
                    let Ok(number) = value.parse() else {
                        return fail(format!(
                            "values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                        ));
                    };
                    if order == ">" { Test::Above(number) } else { Test::Below(number) }
                }
                Some(other) => {
                    return fail(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
                }
            };
            if let Test::In(values) | Test::NotIn(values) = &test
                && let Some((value, reason)) = values
                    .iter()
                    .find_map(|value| names::label_value(value).into_iter().next().map(|reason| (value, reason)))
            {
                return fail(format!("values[0][{key}]: Invalid value: {value:?}: {reason}"));
            }
            requirements.push(Requirement { key, test });
            match tokens.next().as_deref() {
                None => break,
                Some(",") => {}
                Some(other) => return fail(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        Ok(Self { requirements })
    }

    /// Reads a `LabelSelector` object: `matchLabels` and `matchExpressions`. None: it cannot be read.
    pub(crate) fn of_object(selector: &Value) -> Option<Self> {
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let test = Test::In(vec![value.as_str()?.to_owned()]);
            requirements.push(Requirement { key: key.clone(), test });
        }
        for one in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = one.get("key")?.as_str()?.to_owned();
            let values = one.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.map(|value| value.as_str().map(ToOwned::to_owned)).collect::<Option<Vec<_>>>()?;
            let test = match one.get("operator")?.as_str()? {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::Absent,
                _ => return None,
            };
            requirements.push(Requirement { key, test });
        }
        Some(Self { requirements })
    }

    /// The selector as a `LabelSelector` object; null when it takes everything, or compares numbers, which none can say.
    pub(crate) fn to_object(&self) -> Value {
        let expression = |Requirement { key, test }: &Requirement| {
            Some(match test {
                Test::In(values) => json!({"key": key, "operator": "In", "values": values}),
                Test::NotIn(values) => json!({"key": key, "operator": "NotIn", "values": values}),
                Test::Exists => json!({"key": key, "operator": "Exists"}),
                Test::Absent => json!({"key": key, "operator": "DoesNotExist"}),
                Test::Above(_) | Test::Below(_) => return None,
            })
        };
        let expressions: Option<Vec<Value>> = self.requirements.iter().map(expression).collect();
        match expressions {
            Some(expressions) if !expressions.is_empty() => json!({"matchExpressions": expressions}),
            _ => Value::Null,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Asks an object's labels.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
        self.matches_labels(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
    }

    pub(crate) fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = label(&requirement.key);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::Above(bound) => value.and_then(|value| value.parse::<i64>().ok()).is_some_and(|v| v > *bound),
                Test::Below(bound) => value.and_then(|value| value.parse::<i64>().ok()).is_some_and(|v| v < *bound),
            }
        })
    }
}

/// As Kubernetes writes a selector in a status or a table: `a=b,c in (d,e)`.
impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted: Vec<_> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let texts: Vec<_> = sorted
            .into_iter()
            .map(|Requirement { key, test }| {
                let set = |values: &[String]| {
                    let mut values = values.to_vec();
                    values.sort();
                    values.join(",")
                };
                match test {
                    Test::In(values) if values.len() == 1 => format!("{key}={}", values[0]),
                    Test::In(values) => format!("{key} in ({})", set(values)),
                    Test::NotIn(values) => format!("{key} notin ({})", set(values)),
                    Test::Exists => key.clone(),
                    Test::Absent => format!("!{key}"),
                    Test::Above(bound) => format!("{key}>{bound}"),
                    Test::Below(bound) => format!("{key}<{bound}"),
                }
            })
            .collect();
        f.write_str(&texts.join(","))
    }
}

fn is_operator(token: &str) -> bool {
    matches!(token, "=" | "==" | "!=" | "," | "(" | ")" | ">" | "<" | "!")
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(first) = characters.next() {
        match first {
            c if c.is_whitespace() => {}
            ',' | '(' | ')' | '<' | '>' => tokens.push(first.to_string()),
            '=' | '!' => {
                let double = characters.next_if_eq(&'=').is_some();
                tokens.push(if double { format!("{first}=") } else { first.to_string() });
            }
            _ => {
                let mut word = first.to_string();
                while let Some(next) =
                    characters.next_if(|c| !c.is_whitespace() && !matches!(c, ',' | '(' | ')' | '=' | '!' | '<' | '>'))
                {
                    word.push(next);
                }
                tokens.push(word);
            }
        }
    }
    tokens
}

/// What fields must be; all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FieldSelector {
    terms: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads `metadata.name=a,status.phase!=Running`; fields that the kind cannot be selected by are refused.
    pub(crate) fn parse(resource: &Resource, text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|term| !term.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = term.split_once("==") {
                (field, value, true)
            } else if let Some((field, value)) = term.split_once('=') {
                (field, value, true)
            } else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            let known = field == "metadata.name"
                || field == "metadata.namespace" && (resource.namespaced || !resource.custom)
                || resource.selectable_fields.iter().any(|one| one == field);
            if !known {
                return Err(SelectorError(match resource.custom {
                    true => format!("field label not supported: {field}"),
                    false if resource.selectable_fields.is_empty() => {
                        format!(
                            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                        )
                    }
                    false => format!("field label not supported: {field}"),
                }));
            }
            terms.push(FieldTerm { field: field.to_owned(), value: value.to_owned(), equal });
        }
        Ok(Self { terms })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| (field_value(object, &term.field) == term.value) == term.equal)
    }
}

fn field_value(object: &Value, field: &str) -> String {
    let value = field.split('.').try_fold(object, |value, name| value.get(name));
    match (value, field) {
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Array(list)), _) => list.first().and_then(Value::as_str).unwrap_or_default().to_owned(),
        (Some(Value::Null) | None, "spec.unschedulable" | "spec.hostNetwork") => "false".to_owned(),
        (None, "status.successful") => "0".to_owned(),
        (None, "source") => object.pointer("/source/component").and_then(Value::as_str).unwrap_or_default().to_owned(),
        (Some(Value::Object(source)), "source") => {
            source.get("component").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        (Some(Value::Null) | None, _) => String::new(),
        (Some(other), _) => other.to_string(),
    }
}

/// Fields that a built-in kind can be selected by, beside its name and namespace.
pub(super) fn selectable_fields(group: &str, kind: &str) -> Vec<String> {
    let fields: &[&str] = match (group, kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("batch", "Job") => &["status.successful"],
        _ => &[],
    };
    fields.iter().map(|field| (*field).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(selector: &str, labels: Value, expected: bool) {
        let object = json!({ "metadata": { "labels": labels } });
        let parsed = LabelSelector::parse(selector).expect("the selector is well-formed");
        assert_eq!(parsed.matches(&object), expected, "{selector} on {object}");
    }

    #[test]
    fn each_operator_asks_what_it_says() {
        check("a=b", json!({"a": "b"}), true);
        check("a==c", json!({"a": "b"}), false);
        check("a!=b", json!({}), true);
        check("a in (b, c)", json!({"a": "c"}), true);
        check("a notin (b,c)", json!({"a": "c"}), false);
        check("a,!b", json!({"a": ""}), true);
        check("!a", json!({"a": ""}), false);
        check("a>5", json!({"a": "6"}), true);
        check("x.io/a=,b", json!({"x.io/a": "", "b": "1"}), true);
        check("", json!({}), true);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["a=b=c", "a in b", "=b", "a in (b", "a b", "-a=b", "a>b"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fields_are_selected_by_only_where_the_kind_says_so() {
        let scheme = super::super::Scheme::builtin();
        let pods = scheme.resource("", "v1", "pods").expect("pods are served");
        let selector = FieldSelector::parse(pods, "spec.nodeName=a,status.phase!=Failed").expect("both are known");
        assert!(selector.matches(&json!({"spec": {"nodeName": "a"}, "status": {"phase": "Running"}})));
        assert!(!selector.matches(&json!({"spec": {"nodeName": "a"}, "status": {"phase": "Failed"}})));
        let error = FieldSelector::parse(pods, "spec.dnsPolicy=Default").expect_err("nobody selects by it");
        assert_eq!(error.to_string(), "field label not supported: spec.dnsPolicy");
    }
}
