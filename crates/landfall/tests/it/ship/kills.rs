//! Shippers that are killed at random points, again and again: whoever comes next goes on, and in the end there is what an
//! undisturbed shipper leaves.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use landfall_deliver::{Phase, list, phase_of};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::{PATIENCE, Platform, soak};
use crate::running_engine::POLL;

/// How often a shipper is killed in all; `LANDFALL_SOAK=3` makes it three times as often.
const KILLS: usize = 30;

/// A shipper lives at most so long. A release takes several times as long, so that it is met everywhere.
const LIFE: Duration = Duration::from_millis(2500);

#[test]
fn a_shipper_killed_at_thirty_points_leaves_what_an_undisturbed_one_does() {
    let rollout = "{ canary: { steps: [20%, 50%], judge: { success: 99% }, decide-within: 5m } }";
    let Some(platform) = Platform::start(rollout) else { return };
    let seed = std::env::var("LANDFALL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(6);
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let clients = platform.clients();
    let before = what_is_there(&platform);

    let (mut kills, wanted) = (0, KILLS * soak::rounds().unwrap_or(1));
    let mut rounds = (0..).map(|round| ["shop/web:2", "shop/web:4", "shop/web:1"][round % 3]);
    let mut runs = "shop/web:1".to_owned();
    while kills < wanted {
        let image = rounds.next().expect("they do not end");
        // Every twentieth answer of the fourth fails.
        let is_good = image != "shop/web:4";
        if image == runs {
            continue;
        }
        let ended = ship(&platform, image, &mut random, &mut kills, wanted);
        println!("{image}: {ended:?} after {kills} kills");
        match ended {
            Phase::Succeeded => assert!(is_good, "seed {seed}: {image} succeeded"),
            Phase::RolledBack { cause } => assert!(!is_good, "seed {seed}: {image} went back: {cause:?}"),
            other => panic!("seed {seed}: {image} ended as {other:?}"),
        }
        if is_good {
            image.clone_into(&mut runs);
        }
        let mut expected = before.clone();
        expected["deployments"]["web"]["image"] = json!(runs);
        assert_eq!(what_is_there(&platform), expected, "seed {seed}, after {image}");
    }

    let answers = clients.stop();
    println!("{answers:?}");
    let failed = answers.failed(&["4 500"]);
    assert_eq!(failed, BTreeMap::new(), "seed {seed}: besides the canary's own, of {} requests", answers.total());
}

/// Ships an image, by as many shippers as it takes.
fn ship(platform: &Platform, image: &str, random: &mut StdRng, kills: &mut usize, wanted: usize) -> Phase {
    let deadline = Instant::now() + 2 * PATIENCE;
    let known = releases(platform).len();
    loop {
        assert!(Instant::now() < deadline, "{image} gets nowhere");
        let releases = releases(platform);
        let own = releases.get(known);
        if let Some(phase) = own.filter(|phase| phase.is_terminal()) {
            return phase.clone();
        }
        // Who is killed before the release is written down leaves nothing.
        let image = format!("web={image}");
        let arguments = if own.is_none() { vec!["ship", "--image", &image] } else { vec!["ship", "--watch"] };
        let mut command = platform.command(&arguments);
        command.args(["--env", "development", "--kubeconfig"]).arg(platform.engine.kubeconfig());
        let mut shipper = command.spawn().expect("the program can be started");
        if *kills == wanted {
            shipper.wait().expect("a child can be waited for");
        } else if !ends_within(&mut shipper, random.random_range(Duration::ZERO..LIFE)) {
            shipper.kill().expect("a child can be killed");
            shipper.wait().expect("a child can be waited for");
            *kills += 1;
        }
        forget_the_lock(platform);
    }
}

fn ends_within(child: &mut Child, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if child.try_wait().expect("a child can be asked").is_some() {
            return true;
        }
        std::thread::sleep(POLL);
    }
    false
}

/// The lock of a dead shipper ends by itself after a while, which another test waits for.
fn forget_the_lock(platform: &Platform) {
    platform.with_client(async |client| {
        let leases = Api::<Lease>::namespaced(client, "shop");
        let _may_not_be_there = leases.delete("landfall-shop", &DeleteParams::default()).await;
    });
}

fn releases(platform: &Platform) -> Vec<Phase> {
    platform.with_client(async |client| {
        let listed = list(&client, "shop", "shop").await.expect("releases can be listed");
        listed.iter().map(phase_of).collect()
    })
}

/// What runs, who is sent where, and which share he gets.
fn what_is_there(platform: &Platform) -> Value {
    platform.with_client(async |client| {
        let everything = ListParams::default();
        let deployments = Api::<Deployment>::namespaced(client.clone(), "shop").list(&everything).await;
        let deployments: BTreeMap<String, Value> = deployments
            .expect("they can be listed")
            .iter()
            .map(|deployment| {
                let spec = deployment.spec.as_ref().expect("it has one");
                let containers = spec.template.spec.as_ref().map(|spec| &spec.containers).expect("it has some");
                (deployment.name_any(), json!({ "replicas": spec.replicas, "image": containers[0].image }))
            })
            .collect();
        let services = Api::<Service>::namespaced(client.clone(), "shop").list(&everything).await;
        let services: BTreeMap<String, Value> = services
            .expect("they can be listed")
            .iter()
            .map(|service| (service.name_any(), json!(service.spec.as_ref().map(|spec| &spec.selector))))
            .collect();
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
        let routes = Api::<DynamicObject>::namespaced_with(client, "shop", &kind).list(&everything).await;
        let routes: BTreeMap<String, Value> = routes
            .expect("they can be listed")
            .iter()
            .map(|route| (route.name_any(), route.data["spec"]["rules"].clone()))
            .collect();
        json!({ "deployments": deployments, "services": services, "routes": routes })
    })
}
