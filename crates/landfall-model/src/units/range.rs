//! Ranges such as `250m..500m`, a request and a limit, and `3..5`, the schema versions that a release reads.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::{Bytes, Cpu};

/// From a low to a high value, both included; `250m` alone is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range<T> {
    /// The low end.
    pub low: T,
    /// The high end.
    pub high: T,
}

/// Why a text is not a range.
#[derive(Debug, thiserror::Error)]
pub enum RangeError<E> {
    /// An end is not a value.
    #[error("{0}")]
    End(E),
    /// The ends are the wrong way around.
    #[error("the range `{0}` ends before it begins")]
    Reversed(String),
}

impl<T: FromStr + PartialOrd + Copy> FromStr for Range<T> {
    type Err = RangeError<T::Err>;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        let low = low.trim().parse().map_err(RangeError::End)?;
        let high = high.trim().parse().map_err(RangeError::End)?;
        if low > high { Err(RangeError::Reversed(text.to_owned())) } else { Ok(Self { low, high }) }
    }
}

impl<T: Display + PartialEq> Display for Range<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high { self.low.fmt(f) } else { write!(f, "{}..{}", self.low, self.high) }
    }
}

super::text_form! {
    Range<Cpu>, "CpuRange", r"^[0-9.]+m?(\.\.[0-9.]+m?)?$", "250m..500m";
    Range<Bytes>, "BytesRange", r"^[0-9.]+[kMGTPi]*B?(\.\.[0-9.]+[kMGTPi]*B?)?$", "256Mi..512Mi";
    Range<u32>, "NumberRange", r"^[0-9]+(\.\.[0-9]+)?$", "3..5";
}
