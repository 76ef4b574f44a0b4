//! The exposure of one copy, in seconds.

use crate::rules::testing::proof;

#[test]
fn one_copy_is_away_for_380_seconds() {
    let text = "
landfall: v1
name: shop
services: { checkout: { replicas: 1 } }
";
    let (_, derivation) = proof("single-replica", "service.checkout", text);
    assert_eq!(derivation[0], "node dies: 50s (silent) + 300s (tolerated) + 30s (start) = 380s (6m20s)");
    // 380 s once and 60 s twelve times.
    assert_eq!(derivation[2], "in a year: 1 × 6m20s + 12 × 1m = 1100s (18m20s), so 99.9965 % at best");
}

#[test]
fn older_clusters_notice_ten_seconds_earlier() {
    let text = "
landfall: v1
name: shop
platform: { kubernetes: \"1.31\" }
services: { checkout: { replicas: 1, startup: 10s } }
";
    let (_, derivation) = proof("single-replica", "service.checkout", text);
    assert_eq!(derivation[0], "node dies: 40s (silent) + 300s (tolerated) + 10s (start) = 350s (5m50s)");
}
