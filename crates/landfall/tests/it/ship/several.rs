//! One release over two services, of which the second is bad: both go back, the last change first, and nobody but those who were sent
//! to the canary notices.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::{Platform, architecture};

/// The shop, whose `web` asks `stock`.
fn file() -> String {
    let rollout = "{ canary: { steps: [20%, 50%], judge: { success: 99% }, decide-within: 5m } }";
    let stock = "    uses: [{ call: stock, timeout: 300ms, retries: 1 }]
  stock:
    image: shop/stock:1
    port: 8080
    startup: 5s
    replicas: 2
    resources: { cpu: 50m..200m, memory: 32Mi..128Mi }
    probes: { ready: { http: /ready, period: 1s } }
    rollout: { rolling: { max-surge: 1, max-unavailable: 0 } }
flows:
";
    architecture(rollout).replacen("flows:\n", stock, 1)
}

/// The image of each Deployment.
async fn images(client: Client) -> BTreeMap<String, String> {
    let listed = Api::<Deployment>::namespaced(client, "shop").list(&ListParams::default()).await;
    let deployments = listed.expect("they can be listed").items.into_iter();
    let image = |deployment: &Deployment| {
        let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
        pod.containers[0].image.clone()
    };
    deployments.map(|deployment| (deployment.name_any(), image(&deployment).unwrap_or_default())).collect()
}

#[test]
fn a_release_whose_second_service_is_bad_takes_the_first_one_back_after_it() {
    let Some(platform) = Platform::start_with(&file()) else { return };
    let clients = platform.clients();

    // Every twentieth answer of the fourth version of `web` fails; the second of `stock` is good.
    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:4", "--image", "stock=shop/stock:2"]);
    assert_eq!((code, &release["state"]), (Some(1), &json!("RolledBack")), "{release:#}");
    assert_eq!(release["why"]["reason"], "worse", "{release:#}");
    let services: Vec<_> = release["services"].as_array().into_iter().flatten().map(|own| &own["name"]).collect();
    assert_eq!(services, ["stock", "web"], "who is asked comes before who asks");

    let history: Vec<&str> =
        release["history"].as_array().into_iter().flatten().filter_map(|entry| entry["what"].as_str()).collect();
    let at = |what: &str| history.iter().position(|own| own.contains(what)).unwrap_or_else(|| panic!("{history:#?}"));
    let order = [
        "`stock` gets `shop/stock:2`",
        "a canary of `web` starts with `shop/web:4`",
        "`web` goes back to `shop/web:1`",
        "`stock` goes back to `shop/stock:1`",
        "every service runs the old version again",
    ];
    assert!(order.map(at).is_sorted(), "{history:#?}");

    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let images = runtime.block_on(async { images(platform.engine.client().await).await });
    let expected = [("stock", "shop/stock:1"), ("web", "shop/web:1")];
    assert_eq!(images, expected.map(|(name, image)| (name.to_owned(), image.to_owned())).into());

    let answers = clients.stop();
    println!("{answers:?}");
    let failed = answers.failed(&["4 500"]);
    assert_eq!(failed, BTreeMap::new(), "besides the canary's own, of {} requests", answers.total());
    let own = answers.of("4 200") + answers.of("4 500");
    assert!(own > 0 && own * 3 < answers.total(), "the canary got none, or more than its share: {answers:?}");
}
