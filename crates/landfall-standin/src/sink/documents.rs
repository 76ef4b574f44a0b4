//! Lines of logs as documents, of which the newest are kept, and searches for them.

use std::collections::VecDeque;

use serde_json::Value;

/// How many are kept. The oldest go first.
const MOST: usize = 200_000;

/// One line.
pub(super) struct Document {
    /// The index or data stream that it was sent to.
    pub(super) stream: String,
    /// Counts from the first one.
    pub(super) number: u64,
    pub(super) source: Value,
}

#[derive(Default)]
pub(super) struct Documents {
    kept: VecDeque<Document>,
    taken: u64,
}

impl Documents {
    /// Keeps one; returns its number.
    pub(super) fn add(&mut self, stream: &str, source: Value) -> u64 {
        self.taken += 1;
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(Document { stream: stream.to_owned(), number: self.taken, source });
        self.taken
    }

    /// How many there were.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Those that match, the newest first. `streams` is names with `*`, with commas between them; none is all.
    pub(super) fn search<'a>(&'a self, streams: &'a str, query: &'a Query) -> impl Iterator<Item = &'a Document> {
        let wanted = |document: &&Document| is_named(streams, &document.stream) && query.matches(&document.source);
        self.kept.iter().rev().filter(wanted)
    }
}

/// Whether a name fits one of the patterns.
fn is_named(patterns: &str, name: &str) -> bool {
    patterns.is_empty() || patterns.split(',').any(|pattern| pattern == "_all" || fits(pattern, name))
}

/// Whether a text fits a pattern in which `*` is anything.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    true
}

/// What is searched for.
#[derive(Debug, PartialEq)]
pub(super) enum Query {
    Everything,
    /// Every one of these words, in any case, anywhere.
    Anywhere(Vec<String>),
    /// One of these words, in any case, in a field.
    Words(String, Vec<String>),
    /// A text, in any case, in a field.
    Phrase(String, String),
    /// Exactly this.
    Exactly(String, Value),
    Exists(String),
    /// A field that compares so: `gte`, `gt`, `lte` or `lt`.
    Range(String, Vec<(String, Value)>),
    All(Vec<Query>),
    /// At least so many of them.
    Some(usize, Vec<Query>),
    Not(Box<Query>),
}

impl Query {
    /// The words of a query as people type them: words that all have to be there, `"…"` is one.
    pub(super) fn typed(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() || text == "*" {
            return Self::Everything;
        }
        let mut words = Vec::new();
        for (place, part) in text.split('"').enumerate() {
            if place % 2 == 1 {
                words.push(part.to_lowercase());
            } else {
                words.extend(part.split_whitespace().filter(|word| *word != "AND").map(str::to_lowercase));
            }
        }
        Self::Anywhere(words)
    }

    /// Reads the query of a search, as Elasticsearch writes it; `Err` says what of it is not known.
    pub(super) fn read(query: &Value) -> Result<Self, String> {
        let Some(object) = query.as_object() else { return Err("a query is an object".to_owned()) };
        let mut entries = object.iter();
        let (Some((kind, body)), None) = (entries.next(), entries.next()) else {
            return Err("a query has one kind".to_owned());
        };
        let field = || {
            let field = body.as_object().and_then(|fields| fields.iter().next());
            field.ok_or_else(|| format!("`{kind}` names no field"))
        };
        let text = |value: &Value, name: &str| {
            let inner = value.get(name).unwrap_or(value);
            inner.as_str().map_or_else(|| inner.to_string(), ToOwned::to_owned)
        };
        Ok(match kind.as_str() {
            "match_all" => Self::Everything,
            "match" => {
                let (field, value) = field()?;
                let words = text(value, "query").split_whitespace().map(str::to_lowercase).collect();
                Self::Words(field.clone(), words)
            }
            "match_phrase" => {
                let (field, value) = field()?;
                Self::Phrase(field.clone(), text(value, "query").to_lowercase())
            }
            "term" => {
                let (field, value) = field()?;
                Self::Exactly(field.clone(), value.get("value").unwrap_or(value).clone())
            }
            "exists" => Self::Exists(text(body, "field")),
            "query_string" | "simple_query_string" => Self::typed(&text(body, "query")),
            "range" => {
                let (field, value) = field()?;
                let limits = value.as_object().into_iter().flatten();
                let mut kept = Vec::new();
                for (name, limit) in limits.filter(|(name, _)| !["format", "time_zone"].contains(&name.as_str())) {
                    if !["gte", "gt", "lte", "lt"].contains(&name.as_str()) {
                        return Err(format!("the stand-in knows no limit `{name}`"));
                    }
                    if limit.as_str().is_some_and(|limit| limit.starts_with("now")) {
                        return Err("the stand-in knows times, and not `now`".to_owned());
                    }
                    kept.push((name.clone(), limit.clone()));
                }
                Self::Range(field.clone(), kept)
            }
            "bool" => Self::read_bool(body)?,
            other => return Err(format!("the stand-in knows no query `{other}`")),
        })
    }

    fn read_bool(body: &Value) -> Result<Self, String> {
        let list = |name: &str| -> Result<Vec<Self>, String> {
            match body.get(name) {
                None => Ok(Vec::new()),
                Some(Value::Array(items)) => items.iter().map(Self::read).collect(),
                Some(one) => Ok(vec![Self::read(one)?]),
            }
        };
        let mut all = list("must")?;
        all.extend(list("filter")?);
        all.extend(list("must_not")?.into_iter().map(|query| Self::Not(Box::new(query))));
        let some = list("should")?;
        if !some.is_empty() {
            // Beside others that have to match it only counts for the order.
            let least = body["minimum_should_match"].as_u64().unwrap_or(u64::from(all.is_empty()));
            all.push(Self::Some(usize::try_from(least).unwrap_or(usize::MAX), some));
        }
        Ok(Self::All(all))
    }

    fn matches(&self, source: &Value) -> bool {
        match self {
            Self::Everything => true,
            Self::Anywhere(words) => words.iter().all(|word| has_text(source, word)),
            Self::Words(field, words) => {
                found(source, field).is_some_and(|value| words.iter().any(|word| has_text(value, word)))
            }
            Self::Phrase(field, phrase) => found(source, field).is_some_and(|value| has_text(value, phrase)),
            Self::Exactly(field, wanted) => found(source, field).is_some_and(|value| is_same(value, wanted)),
            Self::Exists(field) => found(source, field).is_some_and(|value| !value.is_null()),
            Self::Range(field, limits) => found(source, field).is_some_and(|value| {
                limits.iter().all(|(name, limit)| match (compared(value, limit), name.as_str()) {
                    (Some(order), "gte") => order.is_ge(),
                    (Some(order), "gt") => order.is_gt(),
                    (Some(order), "lte") => order.is_le(),
                    (Some(order), _) => order.is_lt(),
                    (None, _) => false,
                })
            }),
            Self::All(queries) => queries.iter().all(|query| query.matches(source)),
            Self::Some(least, queries) => queries.iter().filter(|query| query.matches(source)).count() >= *least,
            Self::Not(query) => !query.matches(source),
        }
    }
}

/// The value of a field by its path. The keys of labels have dots as well; `.keyword` names the same value once more.
fn found<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.strip_suffix(".keyword").unwrap_or(path);
    if let Some(value) = value.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| found(value.get(&path[..dot])?, &path[dot + 1..]))
}

fn has_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own.to_lowercase().contains(text),
        Value::Array(items) => items.iter().any(|item| has_text(item, text)),
        Value::Object(fields) => fields.values().any(|field| has_text(field, text)),
        Value::Null => false,
        other => serde_json::to_string(other).is_ok_and(|own| own == text),
    }
}

fn is_same(value: &Value, wanted: &Value) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    match value {
        Value::Array(items) => items.iter().any(|item| is_same(item, wanted)),
        value => text(value) == text(wanted),
    }
}

fn compared(value: &Value, limit: &Value) -> Option<std::cmp::Ordering> {
    let time = |value: &Value| value.as_str()?.parse::<jiff::Timestamp>().ok();
    if let (Some(value), Some(limit)) = (time(value), time(limit)) {
        return Some(value.cmp(&limit));
    }
    value.as_f64()?.partial_cmp(&limit.as_f64()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line() -> Value {
        json!({
            "@timestamp": "2026-01-02T03:04:05.5Z", "message": "Order 17 was paid", "level": "INFO", "ms": 12,
            "kubernetes": { "pod_name": "web-1", "labels": { "app.kubernetes.io/name": "web" } },
        })
    }

    fn finds(query: Value) -> bool {
        Query::read(&query).expect("the query is known").matches(&line())
    }

    #[test]
    fn a_search_finds_what_it_asks_for_and_nothing_else() {
        assert!(finds(json!({ "match_all": {} })));
        assert!(finds(json!({ "match": { "message": "order refund" } })));
        assert!(!finds(json!({ "match_phrase": { "message": "order paid" } })));
        assert!(finds(json!({ "match_phrase": { "message": "Was Paid" } })));
        assert!(finds(json!({ "term": { "kubernetes.pod_name": "web-1" } })));
        assert!(!finds(json!({ "term": { "kubernetes.pod_name": "web" } })));
        assert!(finds(json!({ "term": { "kubernetes.labels.app.kubernetes.io/name": { "value": "web" } } })));
        assert!(finds(json!({ "query_string": { "query": "paid AND info" } })));
        assert!(!finds(json!({ "query_string": { "query": "\"17 paid\"" } })));
        assert!(finds(json!({ "exists": { "field": "level.keyword" } })));
        assert!(!finds(json!({ "exists": { "field": "trace_id" } })));
    }

    #[test]
    fn a_search_puts_conditions_together() {
        let paid = json!({ "match": { "message": "paid" } });
        let other = json!({ "match": { "message": "refund" } });
        assert!(finds(json!({ "bool": { "must": [&paid], "must_not": [&other] } })));
        assert!(!finds(json!({ "bool": { "must": &paid, "filter": [&other] } })));
        assert!(finds(json!({ "bool": { "should": [&paid, &other] } })));
        assert!(!finds(json!({ "bool": { "should": [&other] } })));
        assert!(finds(json!({ "bool": { "must": &paid, "should": [&other] } })));
        assert!(!finds(json!({ "bool": { "should": [&paid, &other], "minimum_should_match": 2 } })));
    }

    #[test]
    fn times_and_numbers_compare() {
        let at = |limit: &str, time: &str| finds(json!({ "range": { "@timestamp": { limit: time } } }));
        assert!(at("gte", "2026-01-02T03:04:05Z") && at("lt", "2026-01-02T03:04:06Z"));
        assert!(!at("gt", "2026-01-02T03:04:05.5Z") && at("gte", "2026-01-02T03:04:05.5Z"));
        assert!(finds(json!({ "range": { "ms": { "gte": 12, "lt": 13 } } })));
        assert!(!finds(json!({ "range": { "level": { "gte": 12 } } })));
    }

    #[test]
    fn what_is_not_known_is_said() {
        let said = |query: Value| Query::read(&query).expect_err("it is not known");
        assert_eq!(said(json!({ "fuzzy": { "message": "paid" } })), "the stand-in knows no query `fuzzy`");
        assert_eq!(
            said(json!({ "range": { "@timestamp": { "gte": "now-15m" } } })),
            "the stand-in knows times, and not `now`"
        );
    }

    #[test]
    fn a_pattern_names_streams() {
        for (patterns, fits) in [
            ("", true),
            ("_all", true),
            ("logs-*", true),
            ("*", true),
            ("logs-*-production", true),
            ("other,logs-shop-*", true),
            ("logs-shop", false),
            ("*-staging", false),
            ("logs-*-staging,other", false),
        ] {
            assert_eq!(is_named(patterns, "logs-shop-production"), fits, "{patterns}");
        }
    }

    #[test]
    fn the_newest_are_kept_and_found_first() {
        let mut documents = Documents::default();
        for number in 0..=MOST {
            documents.add("logs", json!({ "number": number }));
        }
        let numbers: Vec<u64> = documents.search("logs", &Query::Everything).map(|document| document.number).collect();
        assert_eq!((numbers.len(), numbers[0], numbers[MOST - 1]), (MOST, MOST as u64 + 1, 2));
    }
}
