//! All old copies stop before the first new one starts, also where somebody has set the Deployment to go copy by copy.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Platform, architecture};

#[test]
fn recreate_is_done_whatever_the_deployment_would_do_by_itself() {
    let Some(platform) = Platform::start_with(&architecture("recreate")) else { return };
    assert_eq!(platform.web()["spec"]["strategy"], json!({ "type": "Recreate" }));
    let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    platform.with_client(async |client| {
        let patch = Patch::Merge(json!({ "spec": { "strategy": rolling } }));
        let deployments = Api::<Deployment>::namespaced(client, "shop");
        deployments.patch("web", &PatchParams::default(), &patch).await.expect("an administrator may do that");
    });
    assert_eq!(platform.web()["spec"]["strategy"]["type"], "RollingUpdate");

    let clients = platform.clients();
    let (code, planned, _) = platform.run(&["ship", "--plan", "--image", "web=shop/web:2"]);
    assert_eq!((code, &planned["services"][0]["by"]), (Some(0), &json!("recreate")), "{planned:#}");
    assert_eq!(platform.web()["spec"]["strategy"]["type"], "RollingUpdate", "a plan changes nothing");
    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:2"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    assert_eq!(platform.web()["spec"]["strategy"], json!({ "type": "Recreate" }));

    let answers = clients.stop();
    println!("{answers:?}");
    // The way back says, and is, the same.
    let (code, release, said) = platform.run(&["rollback"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    assert_eq!((&release["services"][0]["by"], platform.image()), (&json!("recreate"), json!("shop/web:1")));
    assert!(said.contains("all new copies stop before the first old one starts"), "{said}");
    assert!(answers.come_before("1 200", "2 200"), "both versions have served at once: {answers:?}");
}
