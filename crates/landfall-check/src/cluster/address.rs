//! Address ranges and the `ipBlock` of policies.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::field::{Field, Malformed};

/// A range of addresses in CIDR notation, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    /// The first address, as a number.
    first: u128,
    /// The number of leading bits that all addresses share.
    prefix: u8,
}

/// An `ipBlock` of a policy: a range without some ranges inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressBlock {
    /// The `cidr`.
    pub range: AddressRange,
    /// The `except` list; each is smaller than the range.
    pub except: Vec<AddressRange>,
}

/// A text that is not an address range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRangeError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Family {
    V4,
    V6,
}

impl fmt::Display for AddressRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be an address range such as `10.0.0.0/8`")
    }
}

impl std::error::Error for AddressRangeError {}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let (address, prefix) = text.split_once('/').ok_or(AddressRangeError)?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressRangeError);
        }
        let address: IpAddr = address.parse().map_err(|_| AddressRangeError)?;
        let prefix: u8 = prefix.parse().map_err(|_| AddressRangeError)?;
        AddressRange::new(address, prefix).ok_or(AddressRangeError)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            // A V4 range is built from 32 bits and only ever halved.
            Family::V4 => write!(f, "{}", Ipv4Addr::from_bits(u32::try_from(self.first).unwrap_or(u32::MAX)))?,
            Family::V6 => write!(f, "{}", Ipv6Addr::from_bits(self.first))?,
        }
        write!(f, "/{}", self.prefix)
    }
}

impl AddressRange {
    /// The range of the addresses that share the first `prefix` bits with this one; `None` if it has fewer bits.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let (family, bits) = number(address);
        if prefix > family.width() {
            return None;
        }
        Some(AddressRange { family, first: bits & !tail(family, prefix), prefix })
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, bits) = number(address);
        family == self.family && bits & !tail(family, self.prefix) == self.first
    }

    /// Whether every address of `other` lies in the range.
    pub fn covers(&self, other: &AddressRange) -> bool {
        self.family == other.family
            && self.prefix <= other.prefix
            && other.first & !tail(self.family, self.prefix) == self.first
    }

    /// Two ranges are disjoint or one covers the other.
    fn intersection(&self, other: &AddressRange) -> Option<AddressRange> {
        if self.covers(other) {
            Some(*other)
        } else if other.covers(self) {
            Some(*self)
        } else {
            None
        }
    }

    /// Whether an address of the range lies in none of the others.
    fn exceeds(&self, others: &[AddressRange]) -> bool {
        let inside: Vec<AddressRange> = others.iter().filter_map(|other| self.intersection(other)).collect();
        if inside.is_empty() {
            return true;
        }
        // Each halving moves strictly towards a smaller range inside, so that this ends at its prefix.
        !inside.contains(self) && self.halves().iter().any(|half| half.exceeds(&inside))
    }

    fn halves(&self) -> [AddressRange; 2] {
        let prefix = self.prefix + 1;
        let upper = self.first | (tail(self.family, self.prefix) & !tail(self.family, prefix));
        [AddressRange { prefix, ..*self }, AddressRange { prefix, first: upper, ..*self }]
    }
}

impl AddressBlock {
    pub(super) fn parse(field: &Field<'_>) -> Result<Self, Malformed> {
        field.only(&["cidr", "except"])?;
        let range = parse_range(&field.member("cidr")?)?;
        let mut except = Vec::new();
        for item in field.member("except")?.items()? {
            let excluded = parse_range(&item)?;
            if !range.covers(&excluded) || range == excluded {
                return Err(item.malformed(format!("must be a smaller range inside `{range}`")));
            }
            except.push(excluded);
        }
        Ok(AddressBlock { range, except })
    }

    /// Whether the block admits the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.range.contains(address) && !self.except.iter().any(|except| except.contains(address))
    }

    /// Whether the block admits some address of the range.
    pub fn touches(&self, range: &AddressRange) -> bool {
        self.range.intersection(range).is_some_and(|shared| shared.exceeds(&self.except))
    }

    /// Whether the block admits some address outside these ranges.
    pub fn leaves(&self, ranges: &[AddressRange]) -> bool {
        let excluded: Vec<AddressRange> = self.except.iter().chain(ranges).copied().collect();
        self.range.exceeds(&excluded)
    }
}

impl Family {
    fn width(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

fn number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(address) => (Family::V4, u128::from(address.to_bits())),
        IpAddr::V6(address) => (Family::V6, address.to_bits()),
    }
}

/// The bits after the prefix.
fn tail(family: Family, prefix: u8) -> u128 {
    match family.width() - prefix {
        128 => u128::MAX,
        free => (1 << free) - 1,
    }
}

fn parse_range(field: &Field<'_>) -> Result<AddressRange, Malformed> {
    field.required_text()?.parse().map_err(|error: AddressRangeError| field.malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().expect("a range")
    }

    #[track_caller]
    fn check_touches(block: &str, except: &[&str], other: &str, expected: bool) {
        let block = AddressBlock { range: range(block), except: except.iter().map(|text| range(text)).collect() };
        assert_eq!(block.touches(&range(other)), expected);
    }

    #[test]
    fn a_range_is_written_with_its_first_address() {
        assert_eq!(range("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(range("2001:db8::1/32").to_string(), "2001:db8::/32");
        assert_eq!(range("0.0.0.0/0").to_string(), "0.0.0.0/0");
        assert_eq!(range("::/0").to_string(), "::/0");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "010.0.0.0/8", "/"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_whole_of_a_family_does_not_hold_the_other() {
        assert!(!range("::/0").contains("10.0.0.1".parse().expect("an address")));
        assert!(!range("0.0.0.0/0").covers(&range("::/0")));
    }

    #[test]
    fn exceptions_that_cover_a_range_together_leave_nothing_of_it() {
        check_touches("0.0.0.0/0", &["10.0.0.0/9", "10.128.0.0/9"], "10.0.0.0/8", false);
        check_touches("0.0.0.0/0", &["10.0.0.0/9", "10.128.0.0/10"], "10.0.0.0/8", true);
        check_touches("0.0.0.0/0", &["10.0.0.0/7"], "10.0.0.0/8", false);
        check_touches("::/0", &["fc00::/7"], "fd00::/8", false);
    }

    #[test]
    fn disjoint_ranges_do_not_touch() {
        check_touches("203.0.113.0/24", &[], "10.0.0.0/8", false);
        check_touches("10.3.0.0/16", &[], "10.0.0.0/8", true);
    }
}
