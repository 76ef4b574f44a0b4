//! Kubernetes quantities as whole numbers: `250m`, `1.5Gi`, `2e3`.
//!
//! Everything is read in thousandths, rounded up, as Kubernetes rounds what it cannot represent.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The thousandths of a quantity. None when it is not one.
pub(crate) fn millis(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 24 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let tens = i32::try_from(fraction.len()).ok()?;
    // The value is digits × binary × 10^power, in thousandths.
    let (binary, power): (i128, i32) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let power = power + 3 - tens;
    let scaled = digits.checked_mul(binary)?;
    let scale = 10_i128.checked_pow(power.unsigned_abs())?;
    let magnitude = if power >= 0 { scaled.checked_mul(scale)? } else { (scaled + scale - 1) / scale };
    let bounded = i64::try_from(magnitude).unwrap_or(i64::MAX);
    Some(if negative { -bounded } else { bounded })
}

/// The whole units of a quantity, rounded up.
///
/// Not by way of [`millis`], in which more than nine petabytes would not fit.
pub(crate) fn units(quantity: &Quantity) -> Option<i64> {
    if let Some(whole) = quantity.0.strip_suffix("Ei").or_else(|| quantity.0.strip_suffix("Pi")) {
        let shift = if quantity.0.ends_with("Ei") { 60 } else { 50 };
        if let Ok(number) = whole.parse::<i128>() {
            return Some(i64::try_from(number << shift).unwrap_or(i64::MAX));
        }
    }
    millis(quantity).map(|millis| millis.div_euclid(1000) + i64::from(millis.rem_euclid(1000) > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(millis(&Quantity(text.to_owned())), expected, "{text}");
    }

    #[test]
    fn quantities_are_read_in_thousandths_and_rounded_up() {
        check("250m", Some(250));
        check("1", Some(1000));
        check("0.1", Some(100));
        check(".5", Some(500));
        check("1.5Ki", Some(1_536_000));
        check("2e3", Some(2_000_000));
        check("1E", Some(i64::MAX));
        check("100u", Some(1));
        check("-1", Some(-1000));
        check("", None);
        check("1x", None);
        check("1e", None);
    }

    #[test]
    fn large_binary_quantities_keep_their_value() {
        assert_eq!(units(&Quantity("5Pi".to_owned())), Some(5 << 50));
        assert_eq!(units(&Quantity("100m".to_owned())), Some(1));
    }
}
