//! A canary beside fresh copies of the old version: every copy of the service fails some of its first requests, which is no fault of
//! the new version.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{PATIENCE, Platform, architecture};
use crate::running_engine::POLL;

fn file(baseline: &str) -> String {
    let judge = format!("judge: {{ success: 99% }}, baseline: {baseline}");
    let text = architecture(&format!("{{ canary: {{ steps: [50%], {judge}, decide-within: 5m }} }}"));
    text.replace("image: shop/web:1", "image: shop/web:8")
}

#[test]
fn what_fresh_copies_of_either_version_do_takes_no_canary_back_that_has_a_baseline() {
    let Some(platform) = Platform::start_with(&file("stable")) else { return };
    let clients = platform.clients();
    let deadline = Instant::now() + PATIENCE;
    while clients.so_far().of("8 200") < 1000 {
        assert!(Instant::now() < deadline, "the stable copies do not get warm: {:?}", clients.so_far());
        std::thread::sleep(POLL);
    }

    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:9"]);
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["why"]["reason"], "worse", "the stable copies are warm: {release:#}");
    let warm = clients.so_far();

    let text = file("fresh");
    std::fs::write(platform.folder.path().join("landfall.yaml"), text).expect("a file can be written");
    let (code, plan, _) = platform.run(&["ship", "--plan", "--image", "web=shop/web:9"]);
    let lines = plan["services"][0]["plan"].to_string();
    assert_eq!(code, Some(0), "{plan:#}");
    assert!(lines.contains("canary of 1, and as many fresh copies of the old version to compare it with,"), "{plan:#}");
    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:9"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    let answers = clients.stop();
    println!("{answers:?}");
    assert!(answers.of("8 500") > warm.of("8 500"), "the baseline got no request: {warm:?}, {answers:?}");
    assert_eq!(answers.failed(&["8 500", "9 500"]), BTreeMap::new(), "of {} requests", answers.total());

    tokio::runtime::Runtime::new().expect("threads can be started").block_on(async {
        let client = platform.engine.client().await;
        let names =
            |objects: Vec<String>| objects.into_iter().filter(|name| name.starts_with("web")).collect::<Vec<_>>();
        let deployments = Api::<Deployment>::namespaced(client.clone(), "shop").list(&ListParams::default()).await;
        let deployments = deployments.expect("they can be listed").iter().map(ResourceExt::name_any).collect();
        let services = Api::<Service>::namespaced(client, "shop").list(&ListParams::default()).await;
        let services = services.expect("they can be listed").iter().map(ResourceExt::name_any).collect();
        assert_eq!((names(deployments), names(services)), (vec!["web".to_owned()], vec!["web".to_owned()]));
    });
}
