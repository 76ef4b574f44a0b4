//! Numbers that may be written as a share: `maxSurge: 25%`. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    Up,
    Down,
}

/// The number, or the share of `total`. `None`: it is not there, or it is neither.
pub(super) fn of_total(part: Option<&IntOrString>, total: i32, round: Round) -> Option<i32> {
    match part? {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let hundredths = percent * i64::from(total);
            let share = match round {
                Round::Up => hundredths.div_euclid(100) + i64::from(hundredths.rem_euclid(100) != 0),
                Round::Down => hundredths.div_euclid(100),
            };
            i32::try_from(share).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_as_asked() {
        let quarter = IntOrString::String("25%".to_owned());
        assert_eq!(of_total(Some(&quarter), 10, Round::Up), Some(3));
        assert_eq!(of_total(Some(&quarter), 10, Round::Down), Some(2));
        assert_eq!(of_total(Some(&quarter), 8, Round::Up), Some(2));
        assert_eq!(of_total(Some(&IntOrString::Int(4)), 8, Round::Up), Some(4));
        assert_eq!(of_total(Some(&IntOrString::String("4".to_owned())), 8, Round::Up), None);
    }
}
