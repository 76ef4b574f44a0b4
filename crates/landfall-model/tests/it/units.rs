//! Quantities: what is written is what is read back, and nonsense is refused in words.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use landfall_model::{
    Bytes, Cpu, Date, Duration, Name, Percent, Port, Range, Rate, Reference, Target, Throughput, TimeOfDay,
};
use proptest::prelude::*;

#[track_caller]
fn check<T: FromStr<Err: Debug> + Display>(text: &str, expected: &str) {
    assert_eq!(text.parse::<T>().expect("the text is a value").to_string(), expected);
}

#[track_caller]
fn refused<T: FromStr<Err: Display> + Debug>(text: &str, words: &str) {
    let error = text.parse::<T>().expect_err("the text is not a value").to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn values_are_written_in_their_shortest_form() {
    check::<Cpu>("0.25", "250m");
    check::<Cpu>("2000m", "2");
    check::<Bytes>("1024Mi", "1Gi");
    check::<Bytes>("10MB", "10M");
    check::<Bytes>("1.5Gi", "1536Mi");
    check::<Duration>("90s", "1m30s");
    check::<Duration>("1h 30m", "1h30m");
    check::<Duration>("2w", "14d");
    check::<Duration>("0", "0s");
    check::<Percent>("99.995%", "99.995%");
    check::<Percent>("5%", "5%");
    check::<Rate>("1200/m", "20/s");
    check::<Rate>("0.5/s", "30/m");
    check::<Throughput>("100MB/s", "100MB/s");
    check::<TimeOfDay>("8:05", "08:05");
    check::<Date>("2027-03-31", "2027-03-31");
    check::<Range<Cpu>>("250m..500m", "250m..500m");
    check::<Range<u32>>("3", "3");
    check::<Target>("events/a.b/c", "events/a.b/c");
    check::<Reference>("db-secret/url", "db-secret/url");
}

#[test]
fn nonsense_is_refused_and_the_form_is_shown() {
    refused::<Cpu>("250Mi", "millicores");
    refused::<Cpu>("-1", "CPU");
    refused::<Bytes>("512mb", "512Mi");
    refused::<Bytes>("lots", "bytes");
    refused::<Duration>("30", "30s");
    refused::<Duration>("5 minutes", "15m");
    refused::<Duration>("", "duration");
    refused::<Percent>("0.999", "99.9%");
    refused::<Rate>("20", "20/s");
    refused::<Port>("0", "65535");
    refused::<Port>("70000", "65535");
    refused::<Name>("Bad_Name", "lower-case");
    refused::<Name>("", "lower-case");
    refused::<Name>(&"a".repeat(64), "at most 63");
    refused::<Date>("2027-02-30", "2027-03-31");
    refused::<TimeOfDay>("25:00", "08:30");
    refused::<Range<Cpu>>("500m..250m", "ends before it begins");
    refused::<Range<Cpu>>("a..b", "CPU");
    refused::<Target>("events/", "target");
    refused::<Reference>("db-secret", "db-secret/url");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(number in 0_u64..1_000_000_000_000) {
        let cpu = Cpu::from_millicores(number);
        prop_assert_eq!(cpu.to_string().parse::<Cpu>().expect("CPU"), cpu);
        let bytes = Bytes::new(number);
        prop_assert_eq!(bytes.to_string().parse::<Bytes>().expect("bytes"), bytes);
        let duration = Duration::from_millis(number);
        prop_assert_eq!(duration.to_string().parse::<Duration>().expect("duration"), duration);
    }

    #[test]
    fn rates_and_percentages_are_read_back(number in 0_u32..10_000_000) {
        let percent: Percent = format!("{}%", f64::from(number) / 10_000.0).parse().expect("percent");
        prop_assert_eq!(percent.millionths(), number);
        prop_assert_eq!(percent.to_string().parse::<Percent>().expect("percent"), percent);
        let rate: Rate = format!("{number}/d").parse().expect("rate");
        prop_assert_eq!(rate.to_string().parse::<Rate>().expect("rate"), rate);
    }

    #[test]
    fn no_text_makes_a_quantity_panic(text in ".{0,20}") {
        let _ = text.parse::<Cpu>();
        let _ = text.parse::<Bytes>();
        let _ = text.parse::<Duration>();
        let _ = text.parse::<Percent>();
        let _ = text.parse::<Rate>();
        let _ = text.parse::<TimeOfDay>();
        let _ = text.parse::<Date>();
        let _ = text.parse::<Range<Cpu>>();
        let _ = text.parse::<landfall_model::Arrow>();
    }
}
