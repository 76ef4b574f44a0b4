//! A value that fits a JSON Schema, as far as that can be read off it: the smallest one, by the id of a message.
//!
//! Whether it fits is for a validator to say. Not handled: what needs a search (`not`, `if`, `contains`, `minProperties`,
//! `dependentRequired`), and references to other files; a schema with `examples` needs none of this.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind};
use serde_json::{Map, Value};

/// Where a schema refers to itself it has to come to an end.
const DEEPEST: usize = 32;

/// Lists and texts are not made longer than this.
const LONGEST: u64 = 1_000_000;

/// What is not described may be anything.
const ANYTHING: &Value = &Value::Bool(true);

/// A value for the message of this id. Each attempt takes other alternatives of `oneOf` and `anyOf`.
pub(super) fn sample(schema: &Value, id: u64, attempt: usize) -> Option<Value> {
    Sample { root: schema, id, attempt }.of(schema, 0)
}

#[derive(Clone, Copy)]
struct Sample<'a> {
    root: &'a Value,
    id: u64,
    attempt: usize,
}

impl Sample<'_> {
    fn of(&self, schema: &Value, depth: usize) -> Option<Value> {
        let schema = Value::Object(self.whole(schema, depth)?);
        if let Some(only) = schema.get("const") {
            return Some(only.clone());
        }
        for listed in ["examples", "enum"] {
            if let Some(one) = schema[listed].as_array().and_then(|some| self.pick(some)) {
                return Some(one.clone());
            }
        }
        let kind = match &schema["type"] {
            Value::String(kind) => kind.as_str(),
            Value::Array(kinds) => {
                kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null")
            }
            _ => kind_of(&schema),
        };
        match kind {
            "object" => self.object(&schema, depth),
            "array" => self.list(&schema, depth),
            "string" => self.text(&schema).map(Value::String),
            "number" | "integer" => Some(self.number(&schema, kind)),
            "boolean" => Some(Value::Bool(self.id.is_multiple_of(2))),
            "null" => Some(Value::Null),
            _ => None,
        }
    }

    /// A schema with what it refers to, with all of `allOf`, and with one of the alternatives.
    fn whole(&self, schema: &Value, depth: usize) -> Option<Map<String, Value>> {
        let mut whole = match schema {
            Value::Object(fields) if depth <= DEEPEST => fields.clone(),
            Value::Bool(true) => return Some(Map::new()),
            _ => return None,
        };
        let mut parts = Vec::new();
        if let Some(Value::String(place)) = whole.remove("$ref") {
            parts.push(self.root.pointer(place.strip_prefix('#')?)?.clone());
        }
        if let Some(Value::Array(all)) = whole.remove("allOf") {
            parts.extend(all);
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(Value::Array(ways)) = whole.remove(keyword)
                && let Some(way) = ways.get(self.attempt % ways.len().max(1))
            {
                parts.push(way.clone());
            }
        }
        for part in parts {
            merge(&mut whole, self.whole(&part, depth + 1)?);
        }
        Some(whole)
    }

    fn pick<'v>(&self, some: &'v [Value]) -> Option<&'v Value> {
        some.get(usize::try_from(self.id).unwrap_or_default() % some.len().max(1))
    }

    /// What has to be there, and nothing else.
    fn object(&self, schema: &Value, depth: usize) -> Option<Value> {
        let mut fields = Map::new();
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let declared = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            fields.insert(name.to_owned(), self.of(declared.unwrap_or(ANYTHING), depth + 1)?);
        }
        Some(Value::Object(fields))
    }

    fn list(&self, schema: &Value, depth: usize) -> Option<Value> {
        let least = usize::try_from(schema["minItems"].as_u64().unwrap_or_default().min(LONGEST)).ok()?;
        let first = schema["prefixItems"].as_array();
        let items = (0..least).map(|at| {
            let id = self.id.wrapping_add(u64::try_from(at).unwrap_or_default());
            let own = first.and_then(|first| first.get(at)).or_else(|| schema.get("items"));
            Sample { id, ..*self }.of(own.unwrap_or(ANYTHING), depth + 1)
        });
        items.collect::<Option<Vec<_>>>().map(Value::Array)
    }

    fn text(&self, schema: &Value) -> Option<String> {
        if let Some(pattern) = schema["pattern"].as_str() {
            return matching(pattern, self.id);
        }
        if let Some(text) = schema["format"].as_str().and_then(|format| self.formatted(format)) {
            return Some(text);
        }
        let mut text = format!("made-up-{}", self.id);
        let length = |keyword: &str| usize::try_from(schema[keyword].as_u64()?.min(LONGEST)).ok();
        if let Some(over) = length("maxLength").and_then(|most| text.len().checked_sub(most)) {
            // The end is what tells one from another.
            text.drain(..over);
        }
        let missing = length("minLength").unwrap_or_default().saturating_sub(text.len());
        text.push_str(&"x".repeat(missing));
        Some(text)
    }

    /// A text of one of the formats that the standard lists.
    fn formatted(&self, format: &str) -> Option<String> {
        let id = self.id;
        Some(match format {
            // Version 4 by its digits.
            "uuid" => {
                format!("{:08x}-{:04x}-4000-8000-{:012x}", id >> 32, (id >> 16) & 0xffff, id & 0xffff_ffff_ffff)
            }
            "date-time" => self.moment()?,
            "date" => self.moment()?.chars().take("1970-01-01".len()).collect(),
            "time" => "12:00:00Z".to_owned(),
            "duration" => format!("PT{}S", id % 3600),
            "email" | "idn-email" => format!("somebody-{id}@example.com"),
            "hostname" | "idn-hostname" => format!("host-{id}.example.com"),
            "ipv4" => format!("192.0.2.{}", id % 256),
            "ipv6" => format!("2001:db8::{:x}", id % 0x1_0000),
            "uri" | "uri-reference" | "iri" | "iri-reference" => format!("https://example.com/{id}"),
            _ => return None,
        })
    }

    /// The ids of flows count microseconds.
    fn moment(&self) -> Option<String> {
        // Before the year 2100.
        let seconds = self.id / 1_000_000 % 4_102_444_800;
        Some(jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?.to_string())
    }

    fn number(&self, schema: &Value, kind: &str) -> Value {
        let bound = |keyword: &str| schema[keyword].as_f64();
        let (least, above) = (bound("minimum"), bound("exclusiveMinimum"));
        let (most, below) = (bound("maximum"), bound("exclusiveMaximum"));
        let is_within = |number: &f64| {
            least.is_none_or(|least| *number >= least)
                && above.is_none_or(|above| *number > above)
                && most.is_none_or(|most| *number <= most)
                && below.is_none_or(|below| *number < below)
        };
        let step = bound("multipleOf").filter(|step| *step > 0.0).unwrap_or(1.0);
        let (lowest, highest) = (least.or(above), most.or(below));
        let begin = match (lowest, highest) {
            (Some(lowest), _) => (lowest / step).ceil() * step,
            (None, Some(highest)) => (highest / step).floor() * step - 100.0 * step,
            (None, None) => 0.0,
        };
        let spread = f64::from(u32::try_from(self.id % 100).unwrap_or_default()) * step;
        let middle = lowest.zip(highest).filter(|_| kind == "number").map(|(low, high)| f64::midpoint(low, high));
        let mut tries = [begin + spread, begin, begin + step].into_iter().chain(middle);
        written(tries.find(is_within).unwrap_or(begin))
    }
}

/// A whole number has no fraction, as an integer is to be written.
fn written(number: f64) -> Value {
    /// Up to here every whole number is one of these.
    const EXACT: f64 = 9e15;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and far below 2^63")]
        let whole = number as i64;
        return Value::from(whole);
    }
    Value::from(number)
}

fn merge(whole: &mut Map<String, Value>, part: Map<String, Value>) {
    for (keyword, value) in part {
        match value {
            Value::Object(more) if keyword == "properties" => {
                let known = whole.entry(keyword).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(known) = known {
                    known.extend(more);
                }
            }
            Value::Array(more) if keyword == "required" => {
                if let Value::Array(known) = whole.entry(keyword).or_insert_with(|| Value::Array(Vec::new())) {
                    known.extend(more);
                }
            }
            value => drop(whole.insert(keyword, value)),
        }
    }
}

/// What a schema without a type is about, by its keywords.
fn kind_of(schema: &Value) -> &'static str {
    let has = |keywords: &[&str]| keywords.iter().any(|keyword| schema.get(*keyword).is_some());
    if has(&["properties", "required", "additionalProperties"]) {
        "object"
    } else if has(&["items", "prefixItems", "minItems"]) {
        "array"
    } else if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) {
        "number"
    } else {
        "string"
    }
}

/// The shortest text that a regular expression takes, with other letters for each id.
fn matching(pattern: &str, id: u64) -> Option<String> {
    let (mut text, mut seed) = (String::new(), id);
    spell(&regex_syntax::parse(pattern).ok()?, &mut seed, &mut text)?;
    Some(text)
}

fn spell(part: &Hir, seed: &mut u64, text: &mut String) -> Option<()> {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(Class::Unicode(class)) => text.push(letter(class, seed)?),
        HirKind::Class(Class::Bytes(_)) => return None,
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                spell(&repetition.sub, seed, text)?;
            }
        }
        HirKind::Capture(capture) => spell(&capture.sub, seed, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| spell(part, seed, text))?,
        HirKind::Alternation(ways) => spell(ways.first()?, seed, text)?,
    }
    Some(())
}

/// One that everybody can read, if the class has any.
fn letter(class: &ClassUnicode, seed: &mut u64) -> Option<char> {
    let within = |letter: &char| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(letter));
    let plain: Vec<char> = ('0'..='9').chain('a'..='z').chain('A'..='Z').filter(within).collect();
    let count = u64::try_from(plain.len().max(1)).unwrap_or(1);
    let at = usize::try_from(*seed % count).unwrap_or_default();
    *seed /= count;
    plain.get(at).copied().or_else(|| class.ranges().first().map(ClassUnicodeRange::start))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is made up for a few ids must be valid.
    fn check(schema: Value) {
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("it is a schema");
        for id in [0, 1, 99, 1_760_000_000_000_000, u64::MAX] {
            let value = sample(&schema, id, 0).unwrap_or_else(|| panic!("{schema}: nothing was made up"));
            let error = validator.iter_errors(&value).next().map(|error| error.to_string());
            assert_eq!(error, None, "{schema}: {value}");
        }
    }

    #[test]
    fn texts_have_the_length_the_format_or_the_pattern_that_is_asked_for() {
        check(json!({ "type": "string", "minLength": 100 }));
        check(json!({ "type": "string", "maxLength": 3 }));
        for format in ["uuid", "date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri"] {
            check(json!({ "type": "string", "format": format }));
        }
        check(json!({ "type": "string", "pattern": "^[A-Z]{2}-[0-9]{4,}(?:/(?:a|b)c?)?$" }));
        check(json!({ "type": "string", "pattern": "^\\+\\d{10,15}$" }));
        assert_eq!(matching("^[0-9]{4}$", 1234).as_deref(), Some("4321"), "another for each id");
    }

    #[test]
    fn numbers_are_within_their_bounds() {
        check(json!({ "type": "integer", "minimum": 5, "maximum": 7 }));
        check(json!({ "type": "integer", "exclusiveMinimum": 5 }));
        check(json!({ "type": "integer", "maximum": -3 }));
        check(json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5 }));
        check(json!({ "type": "number", "multipleOf": 0.5, "minimum": 0.2 }));
        assert_eq!(sample(&json!({ "type": "integer" }), 7, 0), Some(json!(7)));
    }

    #[test]
    fn objects_have_what_is_required_wherever_the_schema_says_it() {
        let schema = json!({
            "$defs": { "money": { "type": "object", "required": ["amount"], "properties": { "amount": { "type": "integer" } } } },
            "allOf": [
                { "required": ["price"], "properties": { "price": { "$ref": "#/$defs/money" } } },
                { "required": ["kind"], "properties": { "kind": { "const": "order" } } },
            ],
            "required": ["lines"],
            "properties": {
                "lines": { "type": "array", "minItems": 2, "uniqueItems": true, "items": { "type": "string" } },
            },
        });
        check(schema.clone());
        let value = sample(&schema, 7, 0).expect("it can be made up");
        assert_eq!(value, json!({ "lines": ["made-up-7", "made-up-8"], "price": { "amount": 7 }, "kind": "order" }));
    }

    #[test]
    fn alternatives_are_taken_in_turn_and_examples_first() {
        let schema = json!({ "oneOf": [{ "const": 1 }, { "const": 2 }] });
        assert_eq!((sample(&schema, 7, 0), sample(&schema, 7, 1)), (Some(json!(1)), Some(json!(2))));
        let schema = json!({ "type": "string", "examples": ["a", "b"] });
        assert_eq!((sample(&schema, 0, 0), sample(&schema, 1, 0)), (Some(json!("a")), Some(json!("b"))));
    }

    #[test]
    fn a_schema_that_never_ends_is_given_up() {
        let endless = json!({ "type": "object", "required": ["next"], "properties": { "next": { "$ref": "#" } } });
        assert_eq!(sample(&endless, 7, 0), None);
    }
}
