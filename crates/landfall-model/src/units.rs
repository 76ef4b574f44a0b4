//! Quantities and names as types, each with its text form.
//!
//! A text form is what a person writes in the file; `Display` writes the same form back, so that parsing what was
//! printed gives the same value. All of them implement `FromStr`, `Display`, serde and the JSON Schema.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration as StdDuration;

mod range;
mod text;

pub use range::{Range, RangeError};
pub use text::{Arrow, Reference, Target};

/// Why a text is not the quantity or name that is wanted there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct UnitError {
    text: String,
    wanted: &'static str,
}

impl UnitError {
    pub(crate) fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.to_owned(), wanted }
    }
}

/// Serde and JSON Schema through the text form.
macro_rules! text_form {
    ($($type:ty, $name:literal, $pattern:literal, $example:literal;)*) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a value such as `", $example, "`"))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": ["string", "number"], "pattern": $pattern, "examples": [$example] })
            }
        }
    )*};
}
pub(crate) use text_form;

text_form! {
    Name, "Name", r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", "inventory-ledger";
    Cpu, "Cpu", r"^[0-9]+(\.[0-9]+)?m?$", "250m";
    Bytes, "Bytes", r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?B?$", "256Mi";
    Throughput, "Throughput", r"^[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?B?/s$", "100MB/s";
    Duration, "Duration", r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d|w|y)?( ?[0-9]+(ms|s|m|h|d))*$", "30s";
    Percent, "Percent", r"^[0-9]+(\.[0-9]+)?%?$", "99.9%";
    Rate, "Rate", r"^[0-9]+(\.[0-9]+)?/(s|m|h|d)$", "20/s";
    Port, "Port", r"^[0-9]{1,5}$", "8080";
    Date, "Date", r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "2027-03-31";
    TimeOfDay, "TimeOfDay", r"^[0-2][0-9]:[0-5][0-9]$", "08:30";
}

/// A DNS label as RFC 1123 defines it: what Kubernetes takes as the name of nearly everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty()
            || text.len() > 63
            || !text.chars().all(inner)
            || text.starts_with('-')
            || text.ends_with('-')
        {
            return Err(UnitError::new(text, "a name: lower-case letters, digits and `-` between them, at most 63"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Splits `100MB/s` into its number and its unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number = text[..split].parse().ok().filter(|number: &f64| number.is_finite())?;
    Some((number, text[split..].trim_start()))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float-to-integer cast saturates, and text has no sign"
)]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "quantities of an architecture stay far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Processor time, in thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cpu(u64);

impl Cpu {
    /// Thousandths of a core.
    pub const fn from_millicores(millicores: u64) -> Self {
        Self(millicores)
    }
    /// Thousandths of a core.
    pub const fn millicores(self) -> u64 {
        self.0
    }
}

impl FromStr for Cpu {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        match number_and_unit(text) {
            Some((number, "")) => Ok(Self(rounded(number * 1000.0))),
            Some((number, "m")) => Ok(Self(rounded(number))),
            _ => Err(UnitError::new(text, "an amount of CPU: cores such as `0.5`, or millicores such as `250m`")),
        }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

/// An amount of memory or storage, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(u64);

const BINARY: [(&str, u64); 5] = [("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const DECIMAL: [(&str, u64); 5] =
    [("P", 1_000_000_000_000_000), ("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];

impl Bytes {
    /// The amount in bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }
    /// The amount in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, "an amount of bytes such as `512Mi`, `100Gi` or `10MB`");
        let (number, unit) = number_and_unit(text).ok_or_else(error)?;
        let unit = unit.strip_suffix('B').unwrap_or(unit);
        let factor = match unit {
            "" => 1,
            "K" => 1_000,
            _ => BINARY.iter().chain(&DECIMAL).find(|(name, _)| *name == unit).ok_or_else(error)?.1,
        };
        Ok(Self(rounded(number * float(factor))))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |units: &[(&'static str, u64)]| {
            units.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)).copied()
        };
        match exact(&BINARY).or_else(|| exact(&DECIMAL)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Bytes in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Throughput(u64);

impl Throughput {
    /// Bytes in a second.
    pub const fn new(bytes_per_second: u64) -> Self {
        Self(bytes_per_second)
    }
    /// Bytes in a second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0
    }
    /// How long `amount` takes; a year for no throughput at all.
    pub fn time_for(self, amount: Bytes) -> StdDuration {
        if self.0 == 0 { StdDuration::from_hours(365 * 24) } else { StdDuration::from_secs(amount.0.div_ceil(self.0)) }
    }
}

impl FromStr for Throughput {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let amount = text.strip_suffix("/s").and_then(|amount| amount.parse::<Bytes>().ok());
        amount.map(|bytes| Self(bytes.0)).ok_or_else(|| UnitError::new(text, "a throughput such as `100MB/s`"))
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B/s", Bytes(self.0))
    }
}

/// A length of time, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(u64);

const DURATION_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// A year as SRE counts it for error budgets: 365 days.
const YEAR: u64 = 31_536_000_000;

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }
    /// So many thousandths of a second.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }
    /// Whole seconds, rounded up: Kubernetes' fields take no fractions.
    pub const fn seconds(self) -> u64 {
        self.0.div_ceil(1000)
    }
    /// Thousandths of a second.
    pub const fn millis(self) -> u64 {
        self.0
    }
    /// Seconds, with their fraction.
    pub fn as_secs_f64(self) -> f64 {
        float(self.0) / 1000.0
    }
    /// The standard library's type.
    pub const fn std(self) -> StdDuration {
        StdDuration::from_millis(self.0)
    }
}

impl From<StdDuration> for Duration {
    fn from(duration: StdDuration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl std::ops::Add for Duration {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for Duration {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, std::ops::Add::add)
    }
}

impl std::ops::Mul<u64> for Duration {
    type Output = Self;
    fn mul(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

impl FromStr for Duration {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, "a duration such as `500ms`, `30s`, `15m`, `4h` or `7d`");
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let mut rest = text.trim();
        let mut total = 0.0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(error)?;
            let number: f64 = rest[..digits].parse().map_err(|_| error())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let factor = match &rest[..letters] {
                "y" => YEAR,
                unit => DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1,
            };
            total += number * float(factor);
            rest = rest[letters..].trim_start();
        }
        if text.trim().is_empty() { Err(error()) } else { Ok(Self(rounded(total))) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let mut rest = self.0;
        let mut parts = Vec::new();
        // Weeks are read but not written: `14d` is clearer than `2w`.
        for (unit, factor) in &DURATION_UNITS[1..] {
            if rest >= *factor {
                parts.push(format!("{}{unit}", rest / factor));
                rest %= factor;
            }
        }
        f.pad(&parts.concat())
    }
}

/// A share of a whole, in millionths, so that `99.995%` is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Percent(u32);

impl Percent {
    /// So many hundredths.
    pub const fn new(percent: u32) -> Self {
        Self(percent * 10_000)
    }
    /// Between 0 and 1 for a share; utilisation targets may exceed 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }
    /// Hundredths, rounded to the nearest whole one.
    pub const fn whole(self) -> u32 {
        (self.0 + 5_000) / 10_000
    }
    /// Millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

impl FromStr for Percent {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, "a percentage such as `99.9%`");
        let number = text.strip_suffix('%').ok_or_else(error)?.trim_end();
        let (number, unit) = number_and_unit(number).ok_or_else(error)?;
        if !unit.is_empty() || number > 1000.0 {
            return Err(error());
        }
        Ok(Self(u32::try_from(rounded(number * 10_000.0)).map_err(|_| error())?))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        write!(f, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Events in a time; kept in events per day, so that `1/d` and `20/s` are both exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    per_day: u64,
}

impl Rate {
    /// Events in a second.
    pub fn per_second(self) -> f64 {
        float(self.per_day) / 86_400.0
    }

    /// The whole count of events and the shortest unit of time, `s`, `m`, `h` or `d`, that say it exactly.
    pub fn count_and_unit(self) -> (u64, &'static str) {
        let fits = |(_, factor): &&(&str, u64)| self.per_day >= *factor && self.per_day.is_multiple_of(*factor);
        let (unit, factor) = RATE_UNITS.iter().find(fits).unwrap_or(&("d", 1));
        (self.per_day / factor, unit)
    }
}

const RATE_UNITS: [(&str, u64); 4] = [("s", 86_400), ("m", 1_440), ("h", 24), ("d", 1)];

impl FromStr for Rate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, "a rate such as `20/s`, `100/m` or `1/d`");
        let (number, unit) = text.split_once('/').ok_or_else(error)?;
        let (number, rest) = number_and_unit(number.trim()).ok_or_else(error)?;
        let (_, factor) = RATE_UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(error)?;
        if rest.is_empty() { Ok(Self { per_day: rounded(number * float(*factor)) }) } else { Err(error()) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = self.count_and_unit();
        write!(f, "{count}/{unit}")
    }
}

/// A TCP or UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

impl Port {
    /// A port that is known to be valid.
    ///
    /// # Panics
    /// For port 0.
    pub const fn new(port: u16) -> Self {
        assert!(port != 0, "port 0 is never listened on");
        Self(port)
    }
    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl FromStr for Port {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let port = text.parse().ok().filter(|port| *port != 0);
        port.map(Self).ok_or_else(|| UnitError::new(text, "a port: a whole number from 1 to 65535"))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(jiff::civil::Date);

impl Date {
    /// The civil date.
    pub fn civil(self) -> jiff::civil::Date {
        self.0
    }
}

impl From<jiff::civil::Date> for Date {
    fn from(date: jiff::civil::Date) -> Self {
        Self(date)
    }
}

impl FromStr for Date {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let shaped = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let date = text.parse().ok().filter(|_| shaped);
        date.map(Self).ok_or_else(|| UnitError::new(text, "a date such as `2027-03-31`"))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A time of the day on a wall clock, to the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay {
    minutes: u16,
}

impl TimeOfDay {
    /// Minutes since midnight.
    pub const fn minutes(self) -> u16 {
        self.minutes
    }
}

impl FromStr for TimeOfDay {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, "a time of day such as `08:30`");
        let (hours, minutes) = text.split_once(':').ok_or_else(error)?;
        match (hours.parse::<u16>(), minutes.parse::<u16>()) {
            (Ok(hours), Ok(minutes)) if (hours < 24 && minutes < 60) || (hours == 24 && minutes == 0) => {
                Ok(Self { minutes: hours * 60 + minutes })
            }
            _ => Err(error()),
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}
