//! Verdicts at their borders, and 10,000 releases that show how often they are wrong.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

fn analyse(judge: &Judge, canary: &Counts, stable: &Counts) -> Analysis {
    super::analyse(judge, Work::Requests, canary, stable)
}

fn counts(bad: u64, good: u64) -> Counts {
    Counts { good, bad, buckets: Vec::new(), timed: 0 }
}

/// All requests at once, in one bucket each.
fn timed(buckets: &[(f64, u64)], slower: u64) -> Counts {
    let mut total = 0;
    let cumulative = buckets.iter().map(|(bound, count)| {
        total += count;
        (*bound, total)
    });
    let buckets: Vec<_> = cumulative.collect();
    Counts { good: total + slower, bad: 0, buckets, timed: total + slower }
}

fn success(limit: f64) -> Judge {
    Judge { failures: Some(limit), p99_ms: None, verdicts: 1, metrics: Vec::new() }
}

fn p99(limit_ms: u64) -> Judge {
    Judge { failures: None, p99_ms: Some(limit_ms), verdicts: 1, metrics: Vec::new() }
}

fn text(judge: &Judge, canary: &Counts, stable: &Counts) -> String {
    let analysis = analyse(judge, canary, stable);
    format!("{}\n{}\n", analysis.verdict.as_str(), analysis.lines.join("\n"))
}

#[test]
fn silence_is_no_data_and_a_few_requests_decide_nothing() {
    assert_eq!(analyse(&success(0.01), &counts(0, 0), &counts(0, 0)).verdict, Verdict::NoData);
    assert_eq!(analyse(&success(0.01), &counts(0, 49), &counts(0, 0)).verdict, Verdict::Inconclusive);
    assert_eq!(analyse(&p99(100), &counts(0, 500), &counts(0, 0)).verdict, Verdict::NoData, "nobody timed them");
    let nothing = Judge { failures: None, p99_ms: None, verdicts: 1, metrics: Vec::new() };
    assert_eq!(analyse(&nothing, &counts(0, 500), &counts(0, 0)).verdict, Verdict::NoData);
}

#[test]
fn a_verdict_can_be_checked_by_hand() {
    insta::assert_snapshot!(text(&success(0.01), &counts(12, 228), &counts(0, 2000)), @"
    fail
    failed: 12 of 240 (5%, at most 1%): 12·ln(1%/0.5%) + 228·ln(99%/99.5%) = 7.17 ≥ 3.00 = ln(1/0.0500): fail
    ");
    insta::assert_snapshot!(text(&success(0.01), &counts(0, 600), &counts(0, 2000)), @"
    pass
    failed: 0 of 600 (0%, at most 1%): 0·ln(1%/0.5%) + 600·ln(99%/99.5%) = -3.02 ≤ -3.00 = ln(0.05): pass
    ");
    insta::assert_snapshot!(text(&success(0.01), &counts(2, 598), &counts(0, 2000)), @"
    inconclusive
    failed: 2 of 600 (0.33%, at most 1%): 2·ln(1%/0.5%) + 598·ln(99%/99.5%) = -1.63 between -3.00 (pass) and 3.00 (fail): inconclusive
    ");
    insta::assert_snapshot!(text(&success(0.01), &counts(10, 0), &counts(0, 2000)), @"
    fail
    success: not one of 10 requests; 10 without a success are a failure
    ");
}

#[test]
fn messages_are_judged_by_the_same_tests() {
    let text = |judge: &Judge, canary: &Counts| {
        let analysis = super::analyse(judge, Work::Messages, canary, &counts(0, 0));
        format!("{}\n{}\n", analysis.verdict.as_str(), analysis.lines.join("\n"))
    };
    insta::assert_snapshot!(text(&success(0.01), &counts(12, 228)), @"
    fail
    failed: 12 of 240 (5%, at most 1%): 12·ln(1%/0.5%) + 228·ln(99%/99.5%) = 7.17 ≥ 3.00 = ln(1/0.0500): fail
    ");
    insta::assert_snapshot!(text(&success(0.01), &counts(0, 12)), @"
    inconclusive
    failed: 0 of 12 (0%, at most 1%): 0·ln(1%/0.5%) + 12·ln(99%/99.5%) = -0.06 fewer than 50 messages
    ");
    insta::assert_snapshot!(text(&success(0.01), &counts(10, 0)), @"
    fail
    success: not one of 10 messages; 10 without a success are a failure
    ");
    insta::assert_snapshot!(text(&p99(200), &counts(0, 0)), @"
    no data
    slower than 200 ms: no message
    ");
}

#[test]
fn what_is_judged_besides_counts_too_and_alone_where_nothing_is_counted() {
    let nothing = Judge { failures: None, p99_ms: None, verdicts: 0, metrics: Vec::new() };
    let beside = |judge: &Judge, verdict| {
        let more = [(verdict, "another".to_owned())];
        analyse(judge, &counts(0, 600), &counts(0, 0)).beside(more).verdict
    };
    for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive, Verdict::NoData] {
        assert_eq!(beside(&success(0.01), verdict), verdict);
        assert_eq!(beside(&nothing, verdict), verdict);
    }
    assert_eq!(analyse(&nothing, &counts(0, 600), &counts(0, 0)).beside([]).verdict, Verdict::NoData);
}

#[test]
fn so_many_good_requests_in_a_row_pass_and_one_less_does_not() {
    for limit in [0.001, 0.005, 0.01, 0.05, 0.5] {
        let least = Evidence::of_limit(limit, 4).expect("it can be shown").least();
        assert_eq!(analyse(&success(limit), &counts(0, least), &counts(0, 0)).verdict, Verdict::Pass, "{limit}");
        if least > Evidence::FEWEST {
            let verdict = analyse(&success(limit), &counts(0, least - 1), &counts(0, 0)).verdict;
            assert_eq!(verdict, Verdict::Inconclusive, "{limit}");
        }
    }
}

#[test]
fn a_canary_that_shares_the_trouble_of_the_old_version_is_not_to_blame() {
    insta::assert_snapshot!(text(&success(0.01), &counts(12, 228), &counts(110, 1890)), @"
    inconclusive
    failed: 12 of 240 (5%, at most 1%): 12·ln(1%/0.5%) + 228·ln(99%/99.5%) = 7.17 ≥ 3.00 = ln(1/0.0500): fail
    the old version beside it: 110 of 2000; that the canary is twice as bad: 12·ln(2/(1+q)) − 110·ln(1+q) = -4.10 < 3.00, q = 240/2240: inconclusive
    ");
    insta::assert_snapshot!(text(&success(0.01), &counts(60, 180), &counts(110, 1890)), @"
    fail
    failed: 60 of 240 (25%, at most 1%): 60·ln(1%/0.5%) + 180·ln(99%/99.5%) = 40.68 ≥ 3.00 = ln(1/0.0500): fail
    the old version beside it: 110 of 2000; that the canary is twice as bad: 60·ln(2/(1+q)) − 110·ln(1+q) = 24.29 ≥ 3.00, q = 240/2240: fail
    ");
}

#[test]
fn a_p99_is_judged_by_the_buckets_that_surely_lie_on_one_side() {
    let slow = timed(&[(0.1, 900), (0.2, 50), (0.3, 40)], 10);
    insta::assert_snapshot!(text(&p99(200), &slow, &counts(0, 0)), @"
    fail
    slower than 200 ms: 50 of 1000 (5%, at most 1%): 50·ln(1%/0.5%) + 950·ln(99%/99.5%) = 29.87 ≥ 3.00 = ln(1/0.0500): fail; the p99 is between 200 ms and 300 ms
    ");
    let fast = timed(&[(0.1, 2000), (0.2, 0), (0.3, 0)], 0);
    insta::assert_snapshot!(text(&p99(200), &fast, &counts(0, 0)), @"
    pass
    slower than 200 ms: 0 of 2000 (0%, at most 1%): 0·ln(1%/0.5%) + 2000·ln(99%/99.5%) = -10.08 ≤ -3.00 = ln(0.05): pass; the p99 is between 0 ms and 100 ms
    ");
    // The limit is inside a bucket that has everything: on which side is not known.
    let unknown = timed(&[(0.1, 0), (0.2, 2000)], 0);
    insta::assert_snapshot!(text(&p99(150), &unknown, &counts(0, 0)), @"
    inconclusive
    slower than 150 ms: 2000 of 2000 (100%, at most 1%): 2000·ln(1%/0.5%) + 0·ln(99%/99.5%) = 1386.29 ≥ 3.00 = ln(1/0.0500): fail; the p99 is between 100 ms and 200 ms
    no bucket ends at 150 ms: 2000 requests may be on either side, and count against either verdict
    ");
    let above_all = timed(&[(0.1, 0)], 2000);
    assert_eq!(analyse(&p99(50), &above_all, &counts(0, 0)).verdict, Verdict::Fail);
}

#[test]
fn counters_that_begin_anew_are_noticed() {
    let earlier = counts(3, 100);
    assert_eq!(counts(5, 150).since(&earlier), Some(counts(2, 50)));
    assert_eq!(counts(0, 20).since(&earlier), None);
}

#[test]
fn a_canary_is_worse_than_the_old_version_only_when_it_is_shown() {
    let even = |canary: u64, old: u64| twice_as_bad((canary, 1000 - canary), (old, 1000 - old));
    assert!((even(10, 0) - 10.0 * (4.0_f64 / 3.0).ln()).abs() < 1e-9);
    assert!(even(50, 50) < 0.0 && even(100, 50) > 3.0, "{} {}", even(50, 50), even(100, 50));
    assert!(twice_as_bad((0, 0), (0, 0)).abs() < 1e-9);
}

/// Releases of this many requests a look, judged at each look until decided or out of time.
struct Simulation {
    releases: u32,
    steps: u32,
    /// Requests to the canary between two looks.
    batch: u32,
    looks: u32,
}

/// How releases ended.
#[derive(Debug, Default)]
struct Ends {
    passed: u32,
    failed: u32,
    undecided: u32,
    requests: u64,
}

impl Simulation {
    /// `judge` sees all requests of the step and those of the last look.
    fn run(&self, failures: f64, seed: u64, judge: impl Fn(&Counts, &Counts) -> Verdict) -> Ends {
        let mut random = StdRng::seed_from_u64(seed);
        let mut ends = Ends::default();
        'release: for _ in 0..self.releases {
            for _ in 0..self.steps {
                let mut all = Counts::default();
                let mut verdict = Verdict::NoData;
                for _ in 0..self.looks {
                    let bad = failing(&mut random, failures, self.batch);
                    let last = counts(bad, u64::from(self.batch) - bad);
                    all = counts(all.bad + last.bad, all.good + last.good);
                    verdict = judge(&all, &last);
                    if matches!(verdict, Verdict::Pass | Verdict::Fail) {
                        break;
                    }
                }
                ends.requests += all.total();
                match verdict {
                    Verdict::Pass => {}
                    Verdict::Fail => {
                        ends.failed += 1;
                        continue 'release;
                    }
                    Verdict::Inconclusive | Verdict::NoData => {
                        ends.undecided += 1;
                        continue 'release;
                    }
                }
            }
            ends.passed += 1;
        }
        ends
    }
}

/// How many of `requests` fail: the good ones between two failures are drawn at once, as a geometric number.
fn failing(random: &mut StdRng, failures: f64, requests: u32) -> u64 {
    let (mut place, mut bad) = (0.0, 0);
    loop {
        place += (1.0 - random.random::<f64>()).log(1.0 - failures).floor() + 1.0;
        if place > f64::from(requests) {
            return bad;
        }
        bad += 1;
    }
}

/// A judge that most tools are set up with: the success of each minute against a threshold; a minute below it fails, ten
/// good ones in a row pass.
fn fixed_threshold(limit: f64, minutes: u32, batch: u32) -> impl Fn(&Counts, &Counts) -> Verdict {
    each_minute(minutes, batch, move |last| float(last.bad) > limit * float(last.total()))
}

fn each_minute(minutes: u32, batch: u32, is_beyond: impl Fn(&Counts) -> bool) -> impl Fn(&Counts, &Counts) -> Verdict {
    move |all, last| {
        if is_beyond(last) {
            Verdict::Fail
        } else if all.total() >= u64::from(minutes * batch) {
            Verdict::Pass
        } else {
            Verdict::Inconclusive
        }
    }
}

/// So many requests of which some take longer than 300 ms: how many took at most as long as each bound.
fn times(slow: u64, fast: u64) -> Counts {
    let most = fast - fast / 10;
    timed(&[(0.1, most), (0.2, 0), (0.3, fast - most), (0.5, slow / 2)], slow - slow / 2)
}

/// The p99 of a histogram as `histogram_quantile` of Prometheus makes it: in the bucket in which it is, as if that were filled evenly.
fn interpolated_p99(counts: &Counts) -> f64 {
    let rank = 0.99 * float(counts.timed);
    let (mut below, mut under) = (0.0, 0);
    for (bound, count) in &counts.buckets {
        if float(*count) >= rank {
            return below + (bound - below) * (rank - float(under)) / float(count - under);
        }
        (below, under) = (*bound, *count);
    }
    below
}

/// A judge that most tools are set up with: the p99 of each minute against its limit; a minute above it fails, ten good ones in a
/// row pass.
fn fixed_p99(limit: f64, minutes: u32, batch: u32) -> impl Fn(&Counts, &Counts) -> Verdict {
    each_minute(minutes, batch, move |last| interpolated_p99(&times(last.bad, last.good)) > limit)
}

#[test]
fn a_p99_is_interpolated_as_prometheus_does_it() {
    assert!((interpolated_p99(&times(0, 100)) - 0.29).abs() < 1e-9, "nine tenths of the last bucket are fast");
    assert!(interpolated_p99(&times(2, 98)) > 0.3);
}

/// Two judges of the same releases, with 1 request a second to the canary, looked at each minute, for as long as it takes: the table of
/// how they ended. `ours` has to keep the declared error rates. `bad` says what the share of the requests is that the rows are about.
fn compared(
    bad: &str,
    seed: u64,
    ours: impl Fn(&Counts, &Counts) -> Verdict,
    fixed: impl Fn(&Counts, &Counts) -> Verdict,
) -> String {
    let simulation = Simulation { releases: 10_000, steps: 2, batch: 60, looks: 200 };
    let mut table = format!("{bad:<8}  judge      passed  failed  undecided  requests/release\n");
    let mut row = |share: f64, name: &str, ends: &Ends| {
        table += &format!(
            "{:<8}  {name:<9} {:>7} {:>7} {:>10} {:>17}\n",
            percent(share),
            ends.passed,
            ends.failed,
            ends.undecided,
            ends.requests / u64::from(simulation.releases)
        );
    };
    for share in [0.001, 0.005, 0.01, 0.02, 0.05] {
        let ends = simulation.run(share, seed, &ours);
        row(share, "counts", &ends);
        row(share, "threshold", &simulation.run(share, seed, &fixed));
        if share <= 0.005 {
            let wrong = f64::from(ends.failed) / f64::from(simulation.releases);
            assert!(wrong <= Evidence::FALSE_ROLLBACK, "seed {seed}: {wrong} of good releases fail at {share}");
        }
        if share >= 0.01 {
            let wrong = f64::from(ends.passed) / f64::from(simulation.releases);
            assert!(wrong <= Evidence::MISSED_REGRESSION, "seed {seed}: {wrong} of bad releases pass at {share}");
        }
    }
    table
}

fn seed_or(otherwise: u64) -> u64 {
    std::env::var("LANDFALL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(otherwise)
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is for people")]
fn ten_thousand_releases_keep_the_declared_error_rates_of_slowness_too() {
    let judge = Judge { failures: None, p99_ms: Some(300), verdicts: 2, metrics: Vec::new() };
    // What is bad is a request that takes longer than the limit.
    let ours = |all: &Counts, _: &Counts| analyse(&judge, &times(all.bad, all.good), &counts(0, 0)).verdict;
    println!("{}", compared("slower", seed_or(5), ours, fixed_p99(0.3, 10, 60)));
}

#[test]
fn ten_thousand_releases_keep_the_declared_error_rates() {
    let seed = seed_or(4);
    let judge = Judge { failures: Some(0.01), p99_ms: None, verdicts: 2, metrics: Vec::new() };
    let ours = |all: &Counts, _: &Counts| analyse(&judge, all, &counts(0, 0)).verdict;
    let table = compared("failures", seed, ours, fixed_threshold(0.01, 10, 60));
    if seed == 4 {
        insta::assert_snapshot!(table, @"
        failures  judge      passed  failed  undecided  requests/release
        0.1%      counts      10000       0          0              1428
        0.1%      threshold    3008    6992          0               721
        0.5%      counts       9685     315          0              3854
        0.5%      threshold      24    9976          0               230
        1%        counts         22    9976          2              2048
        1%        threshold       0   10000          0               131
        2%        counts          0   10000          0               487
        2%        threshold       0   10000          0                85
        5%        counts          0   10000          0               168
        5%        threshold       0   10000          0                62
        ");
    }
}

/// A trouble that both versions share, for as long as a step may take: the old version gets `old` requests between two looks, the
/// canary 60, and so many of each fail. How many of 10,000 canaries are called worse.
fn called_worse(canary: f64, old: f64, requests: u32, seed: u64) -> f64 {
    let judge = success(0.01);
    let mut random = StdRng::seed_from_u64(seed);
    let mut worse = 0;
    for _ in 0..10_000 {
        let (mut of_canary, mut of_old) = (Counts::default(), Counts::default());
        let mut draw = |counts_so_far: &mut Counts, failures: f64, requests: u32| {
            let bad = failing(&mut random, failures, requests);
            *counts_so_far = counts(counts_so_far.bad + bad, counts_so_far.good + u64::from(requests) - bad);
        };
        for _ in 0..60 {
            draw(&mut of_canary, canary, 60);
            draw(&mut of_old, old, requests);
            if analyse(&judge, &of_canary, &of_old).verdict == Verdict::Fail {
                worse += 1;
                break;
            }
        }
    }
    f64::from(worse) / 10_000.0
}

#[test]
fn ten_thousand_canaries_are_seldom_blamed_for_what_is_wrong_with_both_versions() {
    let seed = seed_or(7);
    // A baseline of equal size, and stable copies that have four fifths.
    for requests in [60, 240] {
        for failures in [0.02, 0.05] {
            let blamed = called_worse(failures, failures, requests, seed);
            assert!(blamed <= Evidence::FALSE_ROLLBACK, "seed {seed}: {blamed} at {failures} beside {requests}");
        }
        let found = called_worse(0.2, 0.05, requests, seed);
        assert!(found > 0.99, "seed {seed}: {found} of those four times as bad beside {requests}");
    }
}
