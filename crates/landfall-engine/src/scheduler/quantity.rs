//! Kubernetes quantities in the numbers that are compared here: thousandths, and whole units.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::scheme::quantity::Quantity as Amount;

/// The thousandths of a quantity, rounded up. None when it is not one.
pub(crate) fn millis(quantity: &Quantity) -> Option<i64> {
    Amount::parse(&quantity.0).map(|amount| saturated(amount.millis()))
}

/// The whole units of a quantity, rounded up. None when it is not one.
pub(crate) fn units(quantity: &Quantity) -> Option<i64> {
    Amount::parse(&quantity.0).map(|amount| saturated(amount.units()))
}

fn saturated(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
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
