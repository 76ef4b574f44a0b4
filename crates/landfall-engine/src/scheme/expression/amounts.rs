//! What expressions do with quantities and versions.

use std::cmp::Ordering;

use cel::Value;

use super::MISFIT;
use super::extra::{Extra, Identifier, Version};
use crate::scheme::quantity::Quantity;

const UNITS: i128 = 1_000_000_000;

fn one(values: &[Value]) -> Result<Quantity, String> {
    match values.first().and_then(Extra::of) {
        Some(Extra::Quantity(quantity)) => Ok(*quantity),
        _ => Err(MISFIT.to_owned()),
    }
}

pub(super) fn quantity(values: &[Value]) -> Result<Value, String> {
    let [Value::String(text)] = values else { return Err(MISFIT.to_owned()) };
    let quantity = Quantity::parse(text).ok_or_else(|| {
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_owned()
    })?;
    Ok(Extra::Quantity(quantity).into_value())
}

pub(super) fn is_quantity(values: &[Value]) -> Result<Value, String> {
    let [Value::String(text)] = values else { return Err(MISFIT.to_owned()) };
    Ok(Quantity::parse(text).is_some().into())
}

/// Whether an amount is whole and small enough for an integer.
fn integer(quantity: Quantity) -> Option<i64> {
    quantity.is_whole().then(|| i64::try_from(quantity.nanos() / UNITS).ok()).flatten()
}

pub(super) fn is_integer(values: &[Value]) -> Result<Value, String> {
    Ok(integer(one(values)?).is_some().into())
}

pub(super) fn as_integer(values: &[Value]) -> Result<Value, String> {
    let whole = integer(one(values)?).ok_or("cannot convert value to integer")?;
    Ok(whole.into())
}

#[expect(clippy::cast_precision_loss, reason = "the result is an approximation by its name")]
pub(super) fn as_float(values: &[Value]) -> Result<Value, String> {
    Ok((one(values)?.nanos() as f64 / UNITS as f64).into())
}

pub(super) fn sign(values: &[Value]) -> Result<Value, String> {
    let sign = one(values)?.nanos().signum();
    Ok(i64::try_from(sign).unwrap_or_default().into())
}

/// The second of two values, which may be an integer.
fn other(values: &[Value]) -> Result<Quantity, String> {
    match values {
        [_, Value::Int(number)] => Quantity::parse(&number.to_string()).ok_or_else(|| MISFIT.to_owned()),
        [_, rest @ ..] => one(rest),
        [] => Err(MISFIT.to_owned()),
    }
}

pub(super) fn add(values: &[Value]) -> Result<Value, String> {
    Ok(Extra::Quantity(one(values)?.plus(other(values)?)).into_value())
}

pub(super) fn sub(values: &[Value]) -> Result<Value, String> {
    Ok(Extra::Quantity(one(values)?.minus(other(values)?)).into_value())
}

/// How two quantities or two versions compare.
fn ordering(values: &[Value]) -> Result<Ordering, String> {
    let [left, right] = values else { return Err(MISFIT.to_owned()) };
    match (Extra::of(left), Extra::of(right)) {
        (Some(Extra::Quantity(left)), Some(Extra::Quantity(right))) => Ok(left.cmp(right)),
        (Some(Extra::Version(left)), Some(Extra::Version(right))) => Ok(left.cmp(right)),
        _ => Err(MISFIT.to_owned()),
    }
}

pub(super) fn compare(values: &[Value]) -> Result<Value, String> {
    Ok((ordering(values)? as i64).into())
}

pub(super) fn is_greater(values: &[Value]) -> Result<Value, String> {
    Ok(ordering(values)?.is_gt().into())
}

pub(super) fn is_less(values: &[Value]) -> Result<Value, String> {
    Ok(ordering(values)?.is_lt().into())
}

/// Reads a version; `lenient` adds what is missing, and takes away a `v` and zeros in front.
fn parse(text: &str, lenient: bool) -> Option<Version> {
    let text = if lenient { text.strip_prefix(['v', 'V']).unwrap_or(text) } else { text };
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, before) = text.split_once('-').map_or((text, None), |(core, before)| (core, Some(before)));
    let mut numbers: Vec<_> = core.split('.').collect();
    if lenient {
        numbers.resize(numbers.len().max(3), "0");
    }
    let numbers = numbers.into_iter().map(|digits| number(digits, lenient)).collect::<Option<Vec<_>>>()?;
    let before = before.into_iter().flat_map(|before| before.split('.')).map(identifier);
    let known = build.into_iter().flat_map(|build| build.split('.')).all(is_identifier);
    known.then_some(Version { numbers: numbers.try_into().ok()?, before: before.collect::<Option<_>>()? })
}

fn number(digits: &str, lenient: bool) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let padded = digits.len() > 1 && digits.starts_with('0');
    if plain && (lenient || !padded) { digits.parse().ok() } else { None }
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn identifier(text: &str) -> Option<Identifier> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text, false).map(Identifier::Number);
    }
    is_identifier(text).then(|| Identifier::Text(text.to_owned()))
}

/// The version that a text is, if it is one; with `true` beside it, it is read leniently.
fn parsed(values: &[Value]) -> Result<Option<Version>, String> {
    match values {
        [Value::String(text)] => Ok(parse(text, false)),
        [Value::String(text), Value::Bool(lenient)] => Ok(parse(text, *lenient)),
        _ => Err(MISFIT.to_owned()),
    }
}

pub(super) fn version(values: &[Value]) -> Result<Value, String> {
    let version = parsed(values)?.ok_or("the text is no semantic version")?;
    Ok(Extra::Version(version).into_value())
}

pub(super) fn is_version(values: &[Value]) -> Result<Value, String> {
    Ok(parsed(values)?.is_some().into())
}

/// One of the three numbers of a version.
fn part(values: &[Value], index: usize) -> Result<Value, String> {
    match values.first().and_then(Extra::of) {
        Some(Extra::Version(version)) => Ok(i64::try_from(version.numbers[index]).unwrap_or(i64::MAX).into()),
        _ => Err(MISFIT.to_owned()),
    }
}

pub(super) fn major(values: &[Value]) -> Result<Value, String> {
    part(values, 0)
}

pub(super) fn minor(values: &[Value]) -> Result<Value, String> {
    part(values, 1)
}

pub(super) fn patch(values: &[Value]) -> Result<Value, String> {
    part(values, 2)
}
