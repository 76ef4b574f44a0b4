//! What expressions do with texts, lists and the formats of names.

use std::cmp::Ordering;

use cel::Value;
use regex::Regex;

use super::MISFIT;
use super::extra::{Extra, optional};
use crate::scheme::validate::{format, names};

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("Illegal regex: {error}"))
}

pub(super) fn find(values: &[Value]) -> Result<Value, String> {
    let [Value::String(text), Value::String(wanted)] = values else { return Err(MISFIT.to_owned()) };
    Ok(pattern(wanted)?.find(text).map_or("", |found| found.as_str()).into())
}

/// Everything that a pattern finds, or the first of it.
pub(super) fn find_all(values: &[Value]) -> Result<Value, String> {
    let (text, wanted, most) = match values {
        [Value::String(text), Value::String(wanted)] => (text, wanted, -1),
        [Value::String(text), Value::String(wanted), Value::Int(most)] => (text, wanted, *most),
        _ => return Err(MISFIT.to_owned()),
    };
    let pattern = pattern(wanted)?;
    let found = pattern.find_iter(text).map(|found| found.as_str());
    // A limit below zero is none.
    Ok(found.take(usize::try_from(most).unwrap_or(usize::MAX)).collect::<Vec<_>>().into())
}

fn items(values: &[Value]) -> Result<&[Value], String> {
    match values.first() {
        Some(Value::List(items)) => Ok(items),
        _ => Err(MISFIT.to_owned()),
    }
}

/// A place in a list, or -1.
fn place(found: Option<usize>) -> Value {
    found.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1).into()
}

pub(super) fn index_of(values: &[Value]) -> Result<Value, String> {
    let wanted = values.get(1).ok_or(MISFIT)?;
    Ok(place(items(values)?.iter().position(|item| item == wanted)))
}

pub(super) fn last_index_of(values: &[Value]) -> Result<Value, String> {
    let wanted = values.get(1).ok_or(MISFIT)?;
    Ok(place(items(values)?.iter().rposition(|item| item == wanted)))
}

pub(super) fn first(values: &[Value]) -> Result<Value, String> {
    Ok(optional(items(values)?.first().cloned()))
}

pub(super) fn last(values: &[Value]) -> Result<Value, String> {
    Ok(optional(items(values)?.last().cloned()))
}

pub(super) fn is_sorted(values: &[Value]) -> Result<Value, String> {
    Ok(items(values)?.is_sorted().into())
}

/// The item that is before all others, or after them.
fn extreme(values: &[Value], wanted: Ordering) -> Result<Value, String> {
    let mut items = items(values)?.iter();
    let mut found = items.next().ok_or("min/max called on empty list")?;
    for item in items {
        match item.partial_cmp(found) {
            Some(order) if order == wanted => found = item,
            Some(_) => {}
            None => return Err("the items cannot be compared".to_owned()),
        }
    }
    Ok(found.clone())
}

pub(super) fn most(values: &[Value]) -> Result<Value, String> {
    extreme(values, Ordering::Greater)
}

pub(super) fn least(values: &[Value]) -> Result<Value, String> {
    extreme(values, Ordering::Less)
}

pub(super) fn sum(values: &[Value]) -> Result<Value, String> {
    let mut items = items(values)?.iter().cloned();
    let Some(mut total) = items.next() else { return Ok(0_i64.into()) };
    for item in items {
        total = (total + item).map_err(|error| error.to_string())?;
    }
    Ok(total)
}

fn two_sets(values: &[Value]) -> Result<(&[Value], &[Value]), String> {
    match values {
        [Value::List(left), Value::List(right)] => Ok((left, right)),
        _ => Err(MISFIT.to_owned()),
    }
}

fn has_all(of: &[Value], wanted: &[Value]) -> bool {
    wanted.iter().all(|item| of.contains(item))
}

pub(super) fn set_contains(values: &[Value]) -> Result<Value, String> {
    let (left, right) = two_sets(values)?;
    Ok(has_all(left, right).into())
}

pub(super) fn set_equivalent(values: &[Value]) -> Result<Value, String> {
    let (left, right) = two_sets(values)?;
    Ok((has_all(left, right) && has_all(right, left)).into())
}

pub(super) fn set_intersects(values: &[Value]) -> Result<Value, String> {
    let (left, right) = two_sets(values)?;
    Ok(left.iter().any(|item| right.contains(item)).into())
}

/// What is wrong with a text.
type Judge = fn(&str) -> Vec<String>;

/// The formats that texts can be asked for.
static FORMATS: [(&str, Judge); 13] = [
    ("dns1123Label", names::label),
    ("dns1123Subdomain", names::subdomain),
    ("dns1035Label", names::label_1035),
    ("dns1123LabelPrefix", |text| names::label(&names::as_prefix(text))),
    ("dns1123SubdomainPrefix", |text| names::subdomain(&names::as_prefix(text))),
    ("dns1035LabelPrefix", |text| names::label_1035(&names::as_prefix(text))),
    ("qualifiedName", names::qualified),
    ("labelValue", names::label_value),
    ("uri", |text| of_schema("uri", text)),
    ("uuid", |text| of_schema("uuid", text)),
    ("byte", |text| of_schema("byte", text)),
    ("date", |text| of_schema("date", text)),
    ("datetime", |text| of_schema("datetime", text)),
];

/// A format that schemas know too.
fn of_schema(name: &str, text: &str) -> Vec<String> {
    if format::fits(name, text) { Vec::new() } else { vec![format!("must be of the format {name}")] }
}

fn format_named(name: &str) -> Option<Value> {
    let (name, _) = *FORMATS.iter().find(|(known, _)| *known == name)?;
    Some(Extra::Format(name).into_value())
}

pub(super) fn named(values: &[Value]) -> Result<Value, String> {
    let [Value::String(name)] = values else { return Err(MISFIT.to_owned()) };
    Ok(optional(format_named(name)))
}

/// The reasons for which a text has not the format, if there are any.
pub(super) fn validate(values: &[Value]) -> Result<Value, String> {
    let [format, Value::String(text)] = values else { return Err(MISFIT.to_owned()) };
    let Some(Extra::Format(name)) = Extra::of(format) else { return Err(MISFIT.to_owned()) };
    let (_, judge) = FORMATS.iter().find(|(known, _)| known == name).ok_or(MISFIT)?;
    let reasons = judge(text);
    Ok(optional((!reasons.is_empty()).then(|| reasons.into())))
}

/// Functions that give the format of their name.
macro_rules! formats {
    ($($function:ident: $name:literal,)*) => {
        $(pub(super) fn $function(_: &[Value]) -> Result<Value, String> {
            format_named($name).ok_or_else(|| MISFIT.to_owned())
        })*
    };
}

formats! {
    dns1123_label: "dns1123Label",
    dns1123_subdomain: "dns1123Subdomain",
    dns1035_label: "dns1035Label",
    dns1123_label_prefix: "dns1123LabelPrefix",
    dns1123_subdomain_prefix: "dns1123SubdomainPrefix",
    dns1035_label_prefix: "dns1035LabelPrefix",
    qualified_name: "qualifiedName",
    label_value: "labelValue",
    uri: "uri",
    uuid: "uuid",
    byte: "byte",
    date: "date",
    datetime: "datetime",
}
