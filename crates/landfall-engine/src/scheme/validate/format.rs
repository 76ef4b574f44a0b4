//! Formats of texts, as schemas of custom resources name them.
//!
//! Not handled: `isbn` and its kin, `creditcard`, `ssn`, `rgbcolor`, `bsonobjectid` and the names of Kubernetes
//! (`k8s-short-name`, `k8s-long-name`): a text fits each of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;

use super::names;

/// A span of time as Go writes it, or as a number with a word (`strfmt.ParseDuration` of kube-openapi).
static DURATION: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"(?:\d+(?:\.\d*)?|\.\d+)";
    let words = "nanos?|nanoseconds?|micros?|microseconds?|millis?|milliseconds?|secs?|seconds?|mins?|minutes?|hrs?|hours?\
                 |d|days?|w|wks?|weeks?";
    let pattern =
        format!(r"^(?:[+-]?(?:0|(?:{number}(?:ns|us|µs|μs|ms|s|m|h))+)|\d+\s*(?:ns|us|µs|ms|s|m|h|{words}))$");
    Regex::new(&pattern).expect("the pattern is a constant")
});

static COLOR: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})$").expect("the pattern is a constant"));

static MAC: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}$|^[0-9a-fA-F]{4}(?:\\.[0-9a-fA-F]{4}){2}$")
        .expect("the pattern is a constant")
});

static EMAIL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?:.*<)?[^\s@<>]+@[^\s@<>]+>?$").expect("the pattern is a constant"));

/// Whether a text has a format. A format that Kubernetes does not know says nothing.
pub(in crate::scheme) fn fits(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "byte" => BASE64_STANDARD.decode(text).is_ok(),
        "cidr" => is_network(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok(),
        "duration" => DURATION.is_match(text),
        "email" => EMAIL.is_match(text),
        "hexcolor" => COLOR.is_match(text),
        "hostname" => text.len() < 254 && text.trim_end_matches('.').split('.').all(is_label),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "mac" => MAC.is_match(text),
        "uri" => text.starts_with('/') || text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some()),
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        version @ ("uuid3" | "uuid4" | "uuid5") => {
            uuid::Uuid::try_parse(text).is_ok_and(|uuid| version.ends_with(&uuid.get_version_num().to_string()))
        }
        _ => true,
    }
}

fn is_label(label: &str) -> bool {
    names::label(&label.to_ascii_lowercase()).is_empty()
}

fn is_network(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_fits_its_format_or_not() {
        for (format, good, bad) in [
            ("byte", "aGk=", "a"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("date", "2026-02-28", "2026-02-30"),
            ("date-time", "2026-02-28T10:00:00.5Z", "2026-02-28 10:00:00"),
            ("duration", "1h30m", "1 fortnight"),
            ("duration", "10 seconds", "ten"),
            ("email", "a@example.com", "a.example.com"),
            ("hexcolor", "#ff0000", "red"),
            ("hostname", "a-b.example.com", "a_b"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("mac", "00:00:5e:00:53:01", "00:00"),
            ("uri", "https://example.com/a", "example"),
            ("uuid", "6f9619ff-8b86-d011-b42d-00c04fc964ff", "6f9619ff"),
            ("uuid4", "0b5cde3a-6f1c-4b7e-9a43-0d5f3f0c2a11", "6f9619ff-8b86-3011-b42d-00c04fc964ff"),
        ] {
            assert!(fits(format, good), "{good} is a {format}");
            assert!(!fits(format, bad), "{bad} is no {format}");
        }
        assert!(fits("password", "") && fits("int32", "x") && fits("of-my-own", "x"));
    }
}
