//! Copies follow the load and the time of day, by each of the triggers that a file may declare.

use std::process::Command;

use landfall_standin::Server;
use serde_json::{Value, json};

use crate::Folder;
use crate::platform::Platform;
use crate::up::{are_here, ask, list, room};

/// One that scales by the time of day and a figure of its own, by KEDA, and one that scales by its processor and its memory.
const SHOP: &str = "
landfall: v1
name: shop
observability: { metrics: { stack: prometheus } }
services:
  web:
    port: 8080
    startup: 2s
    replicas: { min: 1, max: 3, custom: { baskets_open: 40 }, calm: 2m }
    resources: { cpu: 50m..200m, memory: 64Mi..256Mi }
    windows: [{ name: office-hours, days: [mon, tue, wed, thu, fri], from: \"09:00\", to: \"19:00\", time-zone: Asia/Kolkata, min: 2 }]
    probes: { ready: { http: /ready, period: 1s } }
    uses: [{ call: stock }]
  stock:
    port: 8080
    startup: 2s
    replicas: { min: 1, max: 2, cpu: 70%, memory: 80%, calm: 2m }
    resources: { cpu: 100m..400m, memory: 256Mi..512Mi }
    probes: { ready: { http: /ready, period: 1s } }
  fixed:
    port: 8080
    probes: { ready: { http: /ready, period: 1s } }
claims:
  - { id: A1, says: It scales by a figure of its own, shown-by: [up: scaling web] }
  - { id: A2, says: It scales by its load, shown-by: [up: scaling stock] }
  - { id: A3, says: It is there when people come, shown-by: [up: window office-hours] }
";

#[test]
fn copies_follow_the_load_and_the_time_of_day() {
    let Some(()) = are_here(&[Server::Prometheus]) else { return };
    let (_room, folder) = (room(), Folder::with(SHOP));
    let mut platform = Platform::start(folder.path(), "shop", None, &["--duration", "1s"]);
    let report = platform.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");

    let refused = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .args(["scaling", "--service", "fixed"])
        .current_dir(folder.path())
        .output()
        .expect("the program can be started");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("`fixed` has no autoscaler and no windows") && said.contains("stock, web"), "{said}");

    // Its Prometheus is found and asked as that of any cluster, through the proxy of the API server.
    let by_proxy = tokio::runtime::Runtime::new().expect("threads can be started").block_on(async {
        let path = "/api/v1/namespaces/monitoring/services/prometheus-operated:9090/proxy/api/v1/query?query=up";
        let request = http::Request::get(path).body(Vec::new()).expect("a plain request");
        platform.client().await.request::<Value>(request).await.expect("Prometheus answers")
    });
    assert_eq!(by_proxy["data"]["resultType"], "vector", "{by_proxy:#}");

    let clock = || ask(&platform, &["engine", "clock", "show", "--kubeconfig", ".landfall/shop/kubeconfig"]).1;
    let (code, seen) = ask(&platform, &["scaling"]);
    assert_eq!(code, Some(0), "{seen:#}");
    let by: Vec<_> = list(&seen["services"]).map(|own| [&own["service"], &own["by"], &own["reached"]]).collect();
    let expected = [("stock", "cpu", 2), ("stock", "memory", 2), ("web", "baskets_open", 3)];
    let expected: Vec<[Value; 3]> = expected.map(|(service, by, most)| [json!(service), json!(by), json!(most)]).into();
    assert_eq!(by, expected.iter().map(|own| [&own[0], &own[1], &own[2]]).collect::<Vec<_>>(), "{seen:#}");
    assert!(list(&seen["services"]).all(|own| own["calm"] == 1 && own["missing"].is_null()), "{seen:#}");
    let window = &seen["windows"][0];
    assert_eq!([&window["window"], &window["least"], &window["after"]], [&json!("office-hours"), &json!(2), &json!(1)]);
    let clock = clock();
    let offset = clock["offset_seconds"].as_f64().expect("it is a number");
    assert!(offset.abs() < 0.1 && clock["speed"] == 1.0, "the clock is not as it was: {clock:#}");

    let (code, claims) = ask(&platform, &["claims"]);
    let held: Vec<_> = list(&claims["claims"]).map(|claim| claim["measured_here"][0]["held"].clone()).collect();
    assert_eq!((code, held), (Some(0), vec![json!(true); 3]), "{claims:#}");
}
