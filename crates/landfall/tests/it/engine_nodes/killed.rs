//! A node that loses power.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::LogParams;
use serde_json::json;

use super::*;

/// Says which process it is, and waits. Two dollars are one, as in any pod.
fn template(app: &str, folder: &Path) -> Value {
    let script = format!("echo $$$$ >> {}/{app}; exec sleep infinity", folder.display());
    let soon = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1 });
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "tolerations": [soon("node.kubernetes.io/not-ready"), soon("node.kubernetes.io/unreachable")],
            "containers": [{ "name": "c", "image": "any", "command": ["sh", "-c", script], "resources": share() }],
        },
    })
}

fn runs(process: &str) -> bool {
    Path::new("/proc").join(process).exists()
}

async fn ready_pod(client: &Client, app: &str) -> Pod {
    let mut found = None;
    eventually(&format!("the pod of {app} is ready"), async || {
        let (there, leaving) = pods_of(client, &format!("app={app}")).await;
        found = there.iter().find(|pod| is_ready(pod)).cloned();
        if found.is_some() { Ok(()) } else { Err((there, leaving)) }
    })
    .await;
    found.expect("it was found")
}

#[tokio::test]
async fn the_pods_of_a_killed_node_die_at_once_and_are_replaced_as_kubernetes_does() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let options = [&GRACE[..], &["--network", "loopback"]].concat();
    let engine = RunningEngine::start(folder.path(), CATALOGUE, &options);
    let client = engine.client().await;
    let selector = |app: &str| json!({ "matchLabels": { "app": app } });
    create::<Deployment>(
        &client,
        json!({ "metadata": { "name": "web" }, "spec": {
            "replicas": 1, "selector": selector("web"), "template": template("web", folder.path()) } }),
    )
    .await;
    let web = ready_pod(&client, "web").await;
    let lost = node_of(&web);
    let mut beside = template("db", folder.path());
    // Where the other one is; it is to be lost with it.
    beside["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([{
        "weight": 100, "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname", "labelSelector": selector("web") },
    }]);
    create::<StatefulSet>(
        &client,
        json!({ "metadata": { "name": "db" }, "spec": {
            "replicas": 1, "serviceName": "db", "selector": selector("db"), "template": beside } }),
    )
    .await;
    let db = ready_pod(&client, "db").await;
    assert_eq!(node_of(&db), lost, "the pod is beside the other one");
    let mut processes = starts(folder.path(), "web", 1).await;
    processes.extend(starts(folder.path(), "db", 1).await);
    assert!(processes.iter().all(|process| runs(process)), "{processes:?}");

    let (code, shown, said) = command(&engine, &["node", "kill", &lost]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{shown}");
    assert!(processes.iter().all(|process| !runs(process)), "they are dead when the command has ended: {processes:?}");
    assert_eq!(node(&client, &lost).await.0, "True", "nobody has said so yet");
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let refused = pods.logs(&web.name_any(), &LogParams::default()).await.expect_err("the node agent is dead, too");
    let refused = refused.to_string();
    assert!(refused.contains("dial tcp 127.0.0.1:10250: connect: no route to host"), "{refused}");

    node_becomes(&client, &lost, "Unknown", &["node.kubernetes.io/unreachable"]).await;
    let replaced = ready_pod(&client, "web").await;
    assert_ne!((node_of(&replaced), replaced.uid()), (lost.clone(), web.uid()));
    // Nobody confirms that the pod of the set has ended, so there is no second one.
    eventually("the pod of the set is to leave", async || {
        let (there, leaving) = pods_of(&client, "app=db").await;
        if there.is_empty() && leaving.len() == 1 && leaving[0].uid() == db.uid() {
            Ok(())
        } else {
            Err((there, leaving))
        }
    })
    .await;
    assert_eq!(lines(folder.path(), "db").len(), 1, "it was started once");

    let (code, _, said) = command(&engine, &["node", "restore", &lost]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    node_becomes(&client, &lost, "True", &[]).await;
    eventually("only the new pods are there", async || {
        let (there, leaving) = pods_of(&client, "app in (web, db)").await;
        let well = there.len() == 2 && leaving.is_empty() && there.iter().all(is_ready);
        if well && there.iter().all(|pod| pod.uid() != db.uid()) { Ok(()) } else { Err((there, leaving)) }
    })
    .await;
    starts(folder.path(), "db", 2).await;
}

#[tokio::test]
async fn a_node_that_is_soon_on_again_starts_its_pods_again() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let engine = RunningEngine::start(folder.path(), CATALOGUE, &["--network", "loopback"]);
    let client = engine.client().await;
    let mut pod = template("web", folder.path());
    pod["metadata"]["name"] = "web".into();
    create::<Pod>(&client, pod).await;
    let before = ready_pod(&client, "web").await;
    starts(folder.path(), "web", 1).await;
    for state in ["kill", "restore"] {
        let (code, _, said) = command(&engine, &["node", state, &node_of(&before)]);
        assert_eq!((code, said.as_str()), (Some(0), ""));
    }
    eventually("the container was restarted", async || {
        let (there, _) = pods_of(&client, "app=web").await;
        let pod = there.into_iter().next().expect("the pod stays");
        let status = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).next().cloned();
        let again = is_ready(&pod)
            && pod.uid() == before.uid()
            && status.as_ref().is_some_and(|status| status.restart_count == 1);
        if again { Ok(()) } else { Err(status) }
    })
    .await;
    starts(folder.path(), "web", 2).await;
}
