//! Composite availability, with the numbers that the derivation shows.

use crate::report::Verdict;
use crate::rules::testing::{proof, report};

const SHOP: &str = "
landfall: v1
name: shop
objectives: { availability: 99.9% }
platform: { regions: { primary: { zones: [a, b, c] } } }
services:
  checkout:
    port: 80
    replicas: 3
    expose: shop.example.com
    uses: [{ write: orders }, { call: bank }, { poll: bank }, { call: stock }]
  stock: { port: 80, replicas: 3, uses: [{ read: orders }, { call: checkout }] }
stores: { orders: { engine: postgres, members: 3, size: 1Gi } }
externals: { bank: { availability: 99.95% } }
";

#[test]
fn parts_in_series_multiply_and_shared_ones_count_once() {
    let (verdict, derivation) = proof("availability", "service.checkout", SHOP);
    assert_eq!(verdict, Verdict::Proved);
    // bank 0.05 %, region 0.01 %, two services of 100 s and a store of 60 s a year.
    assert_eq!(
        derivation,
        [
            "external.bank: 0.05 % away: 99.95% declared",
            "service.checkout: 0.0003 % away: 3 copies in parallel",
            "service.stock: 0.0003 % away: 3 copies in parallel",
            "store.orders: 0.0002 % away: 3 members, another takes over in 30s",
            "shared fate: the region: 0.01 % away",
            "in series: 99.9392 % ≥ 99.9%",
        ]
    );
}

#[test]
fn what_costs_most_is_named() {
    let found = report("availability", &SHOP.replace("99.95%", "99.5%")).findings;
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].message,
        "`checkout` reaches 99.4892 % at best, but 99.9% is promised; external.bank costs most"
    );
}

#[test]
fn optional_edges_are_not_waited_for() {
    let text = SHOP.replace("{ call: bank }", "{ call: bank, optional: true }").replace("99.95%", "90%");
    assert_eq!(proof("availability", "service.checkout", &text).0, Verdict::Proved);
}

#[test]
fn an_external_that_declares_nothing_leaves_it_open() {
    let text = SHOP.replace("{ availability: 99.95% }", "{}");
    assert_eq!(proof("availability", "service.checkout", &text).0, Verdict::Undecided);
}
