//! What a test does when a tool that it needs is not on this machine.

use std::fmt::Display;

/// Passes on what was found; reports `what` as skipped if it was not.
///
/// A laptop without every tool still runs the other tests. Where nothing may be left out, such as in CI,
/// `LANDFALL_REQUIRE_TOOLS=1` turns the skip into a failure.
///
/// # Panics
///
/// If it was not found and `LANDFALL_REQUIRE_TOOLS` is `1` or `all`.
#[track_caller]
pub fn require_or_skip<T, E: Display>(what: &str, found: Result<T, E>) -> Option<T> {
    found_or(what, found, required(&["1", "all"]))
}

/// The same for a tool that `make tools` leaves to `make tools-all`: only `LANDFALL_REQUIRE_TOOLS=all` turns the skip into a
/// failure.
///
/// # Panics
///
/// If it was not found and `LANDFALL_REQUIRE_TOOLS` is `all`.
#[track_caller]
pub fn use_or_skip<T, E: Display>(what: &str, found: Result<T, E>) -> Option<T> {
    found_or(what, found, required(&["all"]))
}

fn required(values: &[&str]) -> bool {
    std::env::var("LANDFALL_REQUIRE_TOOLS").is_ok_and(|value| values.contains(&value.as_str()))
}

#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test has no other way to say so")]
fn found_or<T, E: Display>(what: &str, found: Result<T, E>, required: bool) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) if required => panic!("LANDFALL_REQUIRE_TOOLS asks for {what}: {reason}"),
        Err(reason) => {
            eprintln!("skipped: {what}: {reason}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::found_or;

    #[test]
    fn what_was_found_is_passed_on() {
        assert_eq!(found_or("helm", Ok::<_, &str>(7), true), Some(7));
    }

    #[test]
    fn what_is_missing_is_skipped() {
        assert_eq!(found_or("helm", Err::<(), _>("not on PATH"), false), None);
    }

    #[test]
    #[should_panic(expected = "LANDFALL_REQUIRE_TOOLS asks for helm: not on PATH")]
    fn what_is_missing_fails_where_tools_are_required() {
        found_or("helm", Err::<(), _>("not on PATH"), true);
    }
}
