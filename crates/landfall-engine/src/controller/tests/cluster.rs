//! What keeps a cluster in order: endpoints, garbage, namespaces, service accounts.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::kubelet::NODE;
use super::world::{World, eventually};

macro_rules! world {
    ($name:expr) => {
        match World::new($name).await {
            Some(world) => world,
            None => return,
        }
    };
}

fn parse<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of its kind")
}

fn api(world: &World, group: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
}

async fn get(api: &Api<DynamicObject>, name: &str) -> Value {
    serde_json::to_value(api.get_opt(name).await.expect("an answer")).expect("JSON")
}

async fn wait_for(what: &str, api: &Api<DynamicObject>, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let seen = eventually(async || Some(get(api, name).await).filter(|object| wanted(object))).await;
    match seen {
        Some(object) => object,
        None => panic!("{what}: {:#}", get(api, name).await),
    }
}

/// A config map with owners, and what it answers.
async fn owned(world: &World, name: &str, owners: &[&DynamicObject]) -> DynamicObject {
    let owners: Vec<_> = owners
        .iter()
        .map(|owner| {
            let kind = owner.types.as_ref().map_or("ConfigMap", |types| types.kind.as_str());
            let version = owner.types.as_ref().map_or("v1", |types| types.api_version.as_str());
            json!({ "apiVersion": version, "kind": kind, "name": owner.name_any(), "uid": owner.uid(),
                "blockOwnerDeletion": true })
        })
        .collect();
    let object = parse(json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "ownerReferences": owners } }));
    api(world, "", "ConfigMap").create(&PostParams::default(), &object).await.expect("it is accepted")
}

#[tokio::test]
async fn what_lost_its_owner_is_collected_as_the_deletion_says() {
    let world = world!("garbage");
    let maps = api(&world, "", "ConfigMap");
    for (how, params) in [
        ("background", DeleteParams::background()),
        ("foreground", DeleteParams::foreground()),
        ("orphan", DeleteParams::orphan()),
    ] {
        let name = |part: &str| format!("{how}-{part}");
        let root = owned(&world, &name("root"), &[]).await;
        let other = owned(&world, &name("other"), &[]).await;
        let child = owned(&world, &name("child"), &[&root]).await;
        owned(&world, &name("grandchild"), &[&child]).await;
        owned(&world, &name("shared"), &[&root, &other]).await;
        maps.delete(&name("root"), &params).await.expect("it is there");
        wait_for("the root goes", &maps, &name("root"), Value::is_null).await;
        wait_for("the shared one lives on", &maps, &name("shared"), |shared| {
            shared["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.len() == 1)
        })
        .await;
        if how == "orphan" {
            let orphaned = |child: &Value| child["metadata"]["ownerReferences"].is_null();
            wait_for("the child lives on", &maps, &name("child"), orphaned).await;
            assert!(!get(&maps, &name("grandchild")).await.is_null());
        } else {
            wait_for("the child goes", &maps, &name("child"), Value::is_null).await;
            wait_for("the grandchild goes", &maps, &name("grandchild"), Value::is_null).await;
        }
    }
    let mut stranger = owned(&world, "stranger", &[]).await;
    stranger.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    owned(&world, "dangling", &[&stranger]).await;
    wait_for("nobody has this uid", &maps, "dangling", Value::is_null).await;
    world.end().await;
}

#[tokio::test]
async fn a_custom_resource_owns_like_any_other() {
    let world = world!("custom");
    let group = format!("{}.example.com", world.namespace);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("widgets.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": { "plural": "widgets", "singular": "widget", "kind": "Widget" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }],
        },
    });
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions = Api::<DynamicObject>::all_with(world.client.clone(), &ApiResource::from_gvk(&kind));
    definitions.create(&PostParams::default(), &parse(definition)).await.expect("it is accepted");
    let widgets = api(&world, &group, "Widget");
    let widget: DynamicObject =
        parse(json!({ "apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": { "name": "w" } }));
    let widget = eventually(async || widgets.create(&PostParams::default(), &widget).await.ok()).await;
    owned(&world, "part", &[&widget.expect("the kind is served in time")]).await;
    let maps = api(&world, "", "ConfigMap");
    widgets.delete("w", &DeleteParams::foreground()).await.expect("it is there");
    wait_for("the part goes", &maps, "part", Value::is_null).await;
    wait_for("the widget goes", &widgets, "w", Value::is_null).await;
    definitions.delete(&format!("widgets.{group}"), &DeleteParams::default()).await.expect("it is there");
    world.end().await;
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_empty_and_says_what_keeps_it() {
    let world = world!("going");
    let maps = Api::<ConfigMap>::namespaced(world.client.clone(), &world.namespace);
    let kept = json!({ "metadata": { "name": "kept", "finalizers": ["example.com/keep"] } });
    maps.create(&PostParams::default(), &parse(kept)).await.expect("it is accepted");
    owned(&world, "free", &[]).await;
    let namespaces = Api::<Namespace>::all(world.client.clone());
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.expect("it is there");
    let stuck = eventually(async || {
        let namespace = namespaces.get(&world.namespace).await.expect("it is kept");
        let mut conditions = namespace.status?.conditions?;
        let remains = |condition: &k8s_openapi::api::core::v1::NamespaceCondition| {
            condition.type_ == "NamespaceFinalizersRemaining" && condition.status == "True"
        };
        conditions.iter().any(remains).then_some(())?;
        for condition in &mut conditions {
            condition.last_transition_time = None;
        }
        let only_kept = maps.list(&ListParams::default()).await.expect("a list").items.len() == 1;
        only_kept.then_some(conditions)
    });
    let conditions = stuck.await.expect("the namespace says what keeps it");
    insta::assert_snapshot!(serde_saphyr::to_string(&conditions).expect("YAML"));
    let released = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("kept", &PatchParams::default(), &released).await.expect("it is there");
    let gone =
        eventually(async || namespaces.get_opt(&world.namespace).await.expect("an answer").is_none().then_some(()));
    gone.await.expect("nothing keeps it any more");
    world.end().await;
}

#[tokio::test]
async fn a_namespace_has_an_account_and_knows_who_signs() {
    let world = world!("account");
    let accounts = api(&world, "", "ServiceAccount");
    wait_for("the account is made", &accounts, "default", |account| !account.is_null()).await;
    let maps = api(&world, "", "ConfigMap");
    let authority = wait_for("the map is made", &maps, "kube-root-ca.crt", |map| !map.is_null()).await;
    assert!(authority["data"]["ca.crt"].is_string());
    accounts.delete("default", &DeleteParams::default()).await.expect("it is there");
    wait_for("the account is made again", &accounts, "default", |account| !account.is_null()).await;
    world.end().await;
}

#[tokio::test]
async fn a_service_knows_where_its_pods_are() {
    let world = world!("endpoints");
    let nodes = Api::<Node>::all(world.client.clone());
    let labels = json!({ "topology.kubernetes.io/zone": "a" });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE, "labels": labels } });
    nodes.patch(NODE, &PatchParams::apply("test"), &Patch::Apply(node)).await.expect("it is accepted");
    let service = json!({ "metadata": { "name": "web" }, "spec": { "clusterIP": "None", "selector": { "app": "web" },
        "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] } });
    api(&world, "", "Service").create(&PostParams::default(), &parse(service)).await.expect("it is accepted");
    let pods = api(&world, "", "Pod");
    for (number, image) in ["fine", "broken"].into_iter().enumerate() {
        let pod = json!({
            "metadata": { "name": format!("web-{number}"), "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "main", "image": image,
                "ports": [{ "name": "http", "containerPort": 8080 }] }] },
        });
        pods.create(&PostParams::default(), &parse(pod)).await.expect("it is accepted");
        let name = format!("web-{number}");
        wait_for("the pod runs", &pods, &name, |pod| pod["status"]["phase"] == "Running").await;
        let ip = format!("10.1.0.{number}");
        let status = json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } });
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.expect("it is there");
    }
    let all = api(&world, "", "Endpoints");
    let both = |endpoints: &Value| {
        let subset = &endpoints["subsets"][0];
        subset["addresses"].is_array() && subset["notReadyAddresses"].is_array()
    };
    let endpoints = wait_for("both are listed", &all, "web", both).await;
    let slices = api(&world, "discovery.k8s.io", "EndpointSlice");
    let slice = eventually(async || {
        let slice = slices.list(&ListParams::default()).await.expect("a list").items.pop()?;
        (slice.data["endpoints"].as_array()?.len() == 2).then_some(slice)
    });
    let mut slice = serde_json::to_value(slice.await.expect("both are in the slice")).expect("JSON");
    // Their order means nothing.
    let listed = slice["endpoints"].as_array_mut().expect("a list");
    listed.sort_by_key(|endpoint| endpoint["targetRef"]["name"].to_string());
    let shown = [
        &endpoints["metadata"]["labels"],
        &endpoints["subsets"],
        &slice["metadata"]["labels"],
        &slice["metadata"]["ownerReferences"],
        &slice["endpoints"],
        &slice["ports"],
        &slice["addressType"],
    ];
    let mut shown = json!(shown);
    mask(&mut shown);
    insta::assert_snapshot!(serde_saphyr::to_string(&shown).expect("YAML").replace(&world.namespace, "NAMESPACE"));
    // The next tests' pods would get its zone.
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    nodes.patch(NODE, &PatchParams::apply("test"), &Patch::Apply(node)).await.expect("it is accepted");
    world.end().await;
}

#[tokio::test]
async fn a_claim_gets_a_volume_when_its_pod_has_a_node_and_both_go_again() {
    let world = world!("claim");
    let class = format!("class-{}", world.namespace);
    let kind = GroupVersionKind::gvk("storage.k8s.io", "v1", "StorageClass");
    let classes = Api::<DynamicObject>::all_with(world.client.clone(), &ApiResource::from_gvk(&kind));
    let object = json!({ "metadata": { "name": class }, "provisioner": "local.example.com",
        "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true });
    classes.create(&PostParams::default(), &parse(object)).await.expect("it is accepted");
    let claims = api(&world, "", "PersistentVolumeClaim");
    let claim = json!({ "metadata": { "name": "data" }, "spec": { "storageClassName": class,
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    claims.create(&PostParams::default(), &parse(claim)).await.expect("it is accepted");
    world.wait_event("WaitForFirstConsumer", 1).await;
    let pods = api(&world, "", "Pod");
    let pod = json!({ "metadata": { "name": "user" }, "spec": {
        "containers": [{ "name": "main", "image": "fine" }],
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }] } });
    pods.create(&PostParams::default(), &parse(pod)).await.expect("it is accepted");
    let claim = wait_for("the claim is bound", &claims, "data", |claim| claim["status"]["phase"] == "Bound").await;
    assert_eq!(claim["status"]["capacity"]["storage"], "1Gi");
    let larger = json!({ "spec": { "resources": { "requests": { "storage": "2Gi" } } } });
    claims.patch("data", &PatchParams::default(), &Patch::Merge(larger)).await.expect("the class allows it");
    wait_for("it grows", &claims, "data", |claim| claim["status"]["capacity"]["storage"] == "2Gi").await;
    let kind = GroupVersionKind::gvk("", "v1", "PersistentVolume");
    let volumes = Api::<DynamicObject>::all_with(world.client.clone(), &ApiResource::from_gvk(&kind));
    let volume = claim["spec"]["volumeName"].as_str().expect("a bound claim names its volume").to_owned();
    wait_for("the volume is bound", &volumes, &volume, |volume| volume["status"]["phase"] == "Bound").await;
    claims.delete("data", &DeleteParams::default()).await.expect("it is there");
    let kept = get(&claims, "data").await;
    assert!(kept["metadata"]["deletionTimestamp"].is_string(), "a claim in use is protected: {kept:#}");
    pods.delete("user", &DeleteParams::default()).await.expect("it is there");
    wait_for("the claim goes with its user", &claims, "data", Value::is_null).await;
    wait_for("the volume goes with its claim", &volumes, &volume, Value::is_null).await;
    world.end().await;
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(object) => object.iter_mut().for_each(|(name, value)| match name.as_str() {
            "uid" => *value = "MASKED".into(),
            _ => mask(value),
        }),
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
    // A map of labels has no order.
    if let Value::Object(object) = value {
        object.sort_keys();
    }
}
