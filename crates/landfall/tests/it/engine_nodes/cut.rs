//! A node that is cut off from the network.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use landfall_testing::require_or_skip;
use serde_json::json;

use super::*;

/// Asks for a page again and again, and writes down how the last try has ended.
const CLIENT: &str = r"
import os, sys, time, urllib.request
name, url = sys.argv[1], sys.argv[2]
while True:
    try:
        said = str(urllib.request.urlopen(url, timeout=1).status)
    except Exception as error:
        said = str(error)
    with open(name + '.new', 'w') as file:
        file.write(said)
    os.rename(name + '.new', name)
    time.sleep(0.05)
";

fn server(folder: &Path) -> Value {
    let soon = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1 });
    let script = format!("echo $$$$ >> {}/server; exec python3 -m http.server 8080", folder.display());
    json!({
        "metadata": { "labels": { "app": "server" } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "tolerations": [soon("node.kubernetes.io/not-ready"), soon("node.kubernetes.io/unreachable")],
            "containers": [{
                "name": "server", "image": "any", "command": ["sh", "-c", script], "resources": share(),
                "ports": [{ "containerPort": 8080 }],
                "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
                "livenessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1, "initialDelaySeconds": 5, "timeoutSeconds": 5 },
            }],
        },
    })
}

async fn client_on(client: &Client, name: &str, node: &str, folder: &Path, url: &str) {
    let file = folder.join(name).display().to_string();
    create::<Pod>(
        client,
        json!({ "metadata": { "name": name, "labels": { "app": name } }, "spec": {
            "nodeSelector": { "kubernetes.io/hostname": node },
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "c", "image": "any", "command": ["python3", "-c", CLIENT, file, url], "resources": share() }],
        } }),
    )
    .await;
}

/// Waits until the last try of a client has ended like this.
async fn client_says(folder: &Path, name: &str, expected: &str) {
    eventually(&format!("{name} says {expected}"), async || {
        let said = lines(folder, name).concat();
        if said.contains(expected) { Ok(()) } else { Err(said) }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_goes_on_alone_and_gives_way_when_it_comes_back() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let engine = RunningEngine::start(folder.path(), CATALOGUE, &GRACE);
    let log = std::fs::read_to_string(folder.path().join("engine.log")).expect("the engine has a log");
    let namespaces = if log.contains("its own network") { Ok(()) } else { Err(log) };
    if require_or_skip("network namespaces", namespaces).is_none() {
        return;
    }
    let client = engine.client().await;
    create::<Service>(
        &client,
        json!({ "metadata": { "name": "server" }, "spec": {
            "selector": { "app": "server" }, "ports": [{ "port": 80, "targetPort": 8080 }] } }),
    )
    .await;
    create::<Deployment>(
        &client,
        json!({ "metadata": { "name": "server" }, "spec": {
            "replicas": 1, "selector": { "matchLabels": { "app": "server" } }, "template": server(folder.path()) } }),
    )
    .await;
    let mut first = None;
    eventually("the server is ready", async || {
        let (there, _) = pods_of(&client, "app=server").await;
        first = there.iter().find(|pod| is_ready(pod)).cloned();
        if first.is_some() { Ok(()) } else { Err(there) }
    })
    .await;
    let first = first.expect("it was found");
    let address = first.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("a ready pod has an address");
    let cut = node_of(&first);
    let other = if cut == "node-a" { "node-b" } else { "node-a" };
    let by_address = format!("http://{address}:8080/");
    client_on(&client, "neighbour", &cut, folder.path(), &by_address).await;
    client_on(&client, "stranger", other, folder.path(), &by_address).await;
    client_on(&client, "customer", other, folder.path(), "http://server/").await;
    client_on(&client, "inside", &cut, folder.path(), "http://server/").await;
    for name in ["neighbour", "stranger", "customer", "inside"] {
        client_says(folder.path(), name, "200").await;
    }

    let (code, shown, said) = command(&engine, &["node", "cut", &cut]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{shown}");
    for name in ["stranger", "customer"] {
        client_says(folder.path(), name, "timed out").await;
    }
    // It asks the DNS server, which is not on the node.
    client_says(folder.path(), "inside", "failure in name resolution").await;
    node_becomes(&client, &cut, "Unknown", &["node.kubernetes.io/unreachable"]).await;
    client_says(folder.path(), "customer", "200").await;
    client_says(folder.path(), "stranger", "timed out").await;
    // The node does not know that it is lost: what it ran it runs on, and its pods are probed.
    std::fs::remove_file(folder.path().join("neighbour")).expect("the client has written it");
    client_says(folder.path(), "neighbour", "200").await;
    let servers = starts(folder.path(), "server", 2).await;
    assert!(Path::new("/proc").join(&servers[0]).exists(), "{servers:?}");
    let (_, leaving) = pods_of(&client, "app=server").await;
    assert_eq!(leaving.iter().map(kube::ResourceExt::uid).collect::<Vec<_>>(), [first.uid()]);

    let (code, _, said) = command(&engine, &["node", "restore", &cut]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    node_becomes(&client, &cut, "True", &[]).await;
    eventually("the server that was replaced has ended", async || {
        let seen = pods_of(&client, "app=server").await;
        if seen.0.len() == 1 && seen.1.is_empty() && !Path::new("/proc").join(&servers[0]).exists() {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    // The clients were there all the time, and are ready again without having been restarted.
    eventually("the clients of the node are ready again", async || {
        let (there, leaving) = pods_of(&client, "app in (neighbour, inside)").await;
        let restarted = |pod: &Pod| {
            let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            statuses.any(|status| status.restart_count > 0)
        };
        let well = there.len() == 2 && there.iter().all(|pod| is_ready(pod) && !restarted(pod));
        if well { Ok(()) } else { Err((there, leaving)) }
    })
    .await;
    client_says(folder.path(), "inside", "200").await;
}
