//! Quantities as Kubernetes writes them: `500m`, `1Gi`, `1e3`.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>

use std::cmp::Ordering;

/// An amount, in billionths (the smallest step that Kubernetes keeps), with the suffix family that it is written in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantity {
    nanos: i128,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    Decimal,
    Exponent,
}

const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

impl Quantity {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits_end = text
            .char_indices()
            .find(|(index, c)| !(c.is_ascii_digit() || *c == '.' || (*index == 0 && (*c == '-' || *c == '+'))))
            .map_or(text.len(), |(index, _)| index);
        let (number, suffix) = text.split_at(digits_end);
        let (power, form, binary) = if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            (0, Form::Binary, *power)
        } else if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            (*power, Form::Decimal, 0)
        } else {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            (exponent.parse::<i32>().ok().filter(|power| power.abs() <= 18)?, Form::Exponent, 0)
        };
        let negative = number.starts_with('-');
        let number = number.trim_start_matches(['-', '+']);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 30 {
            return None;
        }
        let mut nanos =
            whole.parse::<i128>().or_else(|error| if whole.is_empty() { Ok(0) } else { Err(error) }).ok()?;
        let mut scale = power + 9;
        for digit in fraction.bytes().take(18) {
            nanos = nanos.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
            scale -= 1;
        }
        // Fractions of a binary multiple are multiplied first, so that nothing is lost.
        nanos = nanos.checked_mul(1_i128 << binary)?;
        nanos = if scale >= 0 {
            nanos.checked_mul(10_i128.checked_pow(scale.unsigned_abs())?)?
        } else {
            let divisor = 10_i128.checked_pow(scale.unsigned_abs())?;
            // Kubernetes rounds up what is finer than a billionth.
            (nanos + divisor - 1) / divisor
        };
        Some(Self { nanos: if negative { -nanos } else { nanos }, form })
    }

    /// The sum, written as this one is.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos), ..self }
    }

    /// The difference, written as this one is.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos), ..self }
    }

    /// The amount in billionths.
    pub(crate) fn nanos(self) -> i128 {
        self.nanos
    }

    /// The amount in thousandths, rounded up.
    pub(crate) fn millis(self) -> i128 {
        self.nanos.div_euclid(NANO / 1000) + i128::from(self.nanos.rem_euclid(NANO / 1000) != 0)
    }

    /// The amount in whole units, rounded up.
    pub(crate) fn units(self) -> i128 {
        self.nanos.div_euclid(NANO) + i128::from(self.nanos.rem_euclid(NANO) != 0)
    }

    pub(crate) fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub(crate) fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// Rounded up to thousandths, as resource lists are kept.
    pub(crate) fn in_millis(self) -> Self {
        Self { nanos: self.millis() * (NANO / 1000), ..self }
    }

    /// The way in which Kubernetes writes the amount: the largest suffix without a fraction.
    pub(crate) fn canonical(self) -> String {
        if self.nanos == 0 {
            return "0".to_owned();
        }
        // Less than 1024, and fractions, are written in decimal.
        if self.form == Form::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANO {
            let mut value = self.nanos / NANO;
            let mut suffix = "";
            for (name, _) in BINARY {
                if value % 1024 != 0 {
                    break;
                }
                value /= 1024;
                suffix = name;
            }
            return format!("{value}{suffix}");
        }
        let (mut value, mut power) = (self.nanos, -9);
        while value % 1000 == 0 && power < 18 {
            value /= 1000;
            power += 3;
        }
        match self.form {
            Form::Exponent if power != 0 => format!("{value}e{power}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, of)| *of == power).map_or("", |(name, _)| name);
                format!("{value}{suffix}")
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(Quantity::parse(text).map(Quantity::canonical).as_deref(), expected, "{text}");
    }

    #[test]
    fn quantities_are_written_with_the_largest_suffix_that_fits() {
        check("0.5", Some("500m"));
        check("1000m", Some("1"));
        check("1024Mi", Some("1Gi"));
        check("1.5Gi", Some("1536Mi"));
        check("100Ki", Some("100Ki"));
        check("1e3", Some("1e3"));
        check("2000", Some("2k"));
        check("0", Some("0"));
        check("512", Some("512"));
        check("-1", Some("-1"));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "Gi", "1.2.3", "1GiB", "a", "1 Gi", "--1"] {
            check(text, None);
        }
    }
}
