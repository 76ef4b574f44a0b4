//! The node agent with containers that are only said to run, and fail when they are told to. Time is paused: grace periods
//! and back-off pass as soon as nothing else is to be done.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::api::machine::Machine as _;
use crate::api::node_agent::MetricsSource as _;
use crate::clock::Clock;
use crate::context::Caches;
use crate::event::{self, Lost};
use crate::images::Entry;
use crate::network::ClusterNetwork;
use crate::runtime::mock::faulty::{Fault, FaultyRuntime};

const NODE: &str = "node-a";

/// How long anything may take, in the time of the test.
const PATIENCE: Duration = Duration::from_mins(10);

/// An agent with one node, on an API server of its own.
struct Kubelet {
    client: Client,
    runtime: Arc<FaultyRuntime>,
    agent: Agent,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Kubelet {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let client = crate::api::tests::client().await;
        let account: ServiceAccount =
            serde_json::from_value(json!({ "metadata": { "name": "default" } })).expect("one");
        let accounts = Api::<ServiceAccount>::default_namespaced(client.clone());
        accounts.create(&PostParams::default(), &account).await.expect("an account for the pods");
        let (cancel, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let caches = Caches::new();
        caches.fill(&client, &cancel, &mut tasks).await;
        let (recorder, events) = event::queue(client.clone(), Clock::wall(), &Lost::default(), "kubelet");
        tasks.spawn(events.run_until(cancel.clone()));
        let runtime = Arc::new(FaultyRuntime::start(&folder.path().join("pods")).expect("a folder for pods"));
        let agent = Agent::new(Parts {
            context: Context {
                client: client.clone(),
                caches,
                clock: Clock::wall(),
                lost: Lost::default(),
                authority: "".into(),
            },
            recorder,
            runtime: Arc::clone(&runtime) as Arc<dyn Runtime>,
            network: Arc::new(PodNetwork::new(ClusterNetwork::loopback(&folder.path().join("network")))),
            images: Catalogue {
                images: vec![Entry { image: "*".to_owned(), program: Some("any".to_owned()), ..Entry::default() }],
            },
            nodes: vec![NodeSpec { address: "192.0.2.7".to_owned(), ..NodeSpec::new(NODE, "4", "16Gi") }],
            persistent: folder.path().join("volumes"),
            back_off: BackOff::default(),
        });
        {
            let (agent, cancel) = (agent.clone(), cancel.clone());
            tasks.spawn(async move { agent.run(cancel).await.expect("an agent of nothing real runs") });
        }
        Self { client, runtime, agent, cancel, tasks, _folder: folder }
    }

    async fn end(mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no task panics");
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// A pod with one container, bound to the node.
    async fn run(&self) -> Pod {
        let pod = json!({ "metadata": { "name": "web" }, "spec": {
            "nodeName": NODE, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 20,
            "containers": [{ "name": "c", "image": "any" }],
        } });
        let pod = serde_json::from_value(pod).expect("a pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("a pod is taken")
    }

    /// Waits until the container's status is as wanted.
    async fn container(&self, what: &str, wanted: impl Fn(&ContainerStatus) -> bool) {
        let mut changes = self.agent.shared.context.caches.pods.subscribe();
        let seen = async {
            loop {
                let pod = self.pods().get_opt("web").await.expect("pods are read");
                let statuses = pod.and_then(|pod| pod.status?.container_statuses).unwrap_or_default();
                if statuses.first().is_some_and(&wanted) {
                    return;
                }
                changes.recv().await.expect("the cache is there");
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("the container is never {what}"));
    }

    async fn gone(&self) {
        let mut changes = self.agent.shared.context.caches.pods.subscribe();
        let seen = async {
            while self.pods().get_opt("web").await.expect("pods are read").is_some() {
                changes.recv().await.expect("the cache is there");
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the pod ends");
    }

    async fn set(&self, fault: NodeFault) {
        self.agent.set_faults([NODE.to_owned()].into(), fault).await.expect("the network of the mock has no rules");
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn waits_with<'a>(reason: &'a str, message: &'a str) -> impl Fn(&ContainerStatus) -> bool + 'a {
    move |status| {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting.is_some_and(|waiting| {
            waiting.reason.as_deref() == Some(reason)
                && waiting.message.as_deref().unwrap_or_default().contains(message)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_started_says_why_and_is_tried_again() {
    let kubelet = Kubelet::start().await;
    kubelet.runtime.plan("default/web", "c", Fault::Fail("no such program".to_owned()));
    kubelet.run().await;
    kubelet.container("refused", waits_with("RunContainerError", "no such program")).await;
    kubelet.container("running", is_running).await;
    kubelet.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_has_come_true_does_not_say_why_it_was_false() {
    let kubelet = Kubelet::start().await;
    kubelet.runtime.plan("default/web", "c", Fault::Fail("no such program".to_owned()));
    kubelet.run().await;
    let ready = async || {
        let conditions = kubelet.pods().get("web").await.expect("a pod").status.and_then(|status| status.conditions);
        conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready")
    };
    kubelet.container("refused", waits_with("RunContainerError", "no such program")).await;
    let message = ready().await.and_then(|condition| condition.message);
    assert_eq!(message.as_deref(), Some("containers with unready status: [c]"));
    kubelet.container("ready", |status| status.ready).await;
    let ready = ready().await.expect("the condition is there");
    assert_eq!((ready.status.as_str(), ready.reason, ready.message), ("True", None, None));
    kubelet.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_again_and_again_is_restarted_after_growing_waits() {
    let kubelet = Kubelet::start().await;
    for code in [0, 3, 4] {
        kubelet.runtime.plan("default/web", "c", Fault::Exit(code));
    }
    let begun = Instant::now();
    kubelet.run().await;
    kubelet.container("backing off", waits_with("CrashLoopBackOff", "back-off 10s restarting")).await;
    kubelet.container("backing off longer", waits_with("CrashLoopBackOff", "back-off 20s restarting")).await;
    kubelet.container("running", |status| is_running(status) && status.restart_count == 3).await;
    // The first restart is at once, the others after 10 and 20 s.
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
    kubelet.end().await;
}

/// The program of the pod, which only says to run, is played by this test: so its sockets are real, and so is the time.
#[tokio::test]
async fn a_pod_that_asks_for_it_is_scraped_as_soon_as_somebody_asks_for_its_metrics() {
    let kubelet = Kubelet::start().await;
    let uid = kubelet.run().await.uid().expect("an object has one");
    kubelet.container("running", is_running).await;
    let ip = kubelet.pods().get("web").await.expect("it is there").status.and_then(|status| status.pod_ip);
    let ip = ip.expect("a pod that runs has an address");
    let listener = tokio::net::TcpListener::bind((ip.as_str(), 0)).await.expect("loopback addresses are free");
    let port = listener.local_addr().expect("it is bound").port().to_string();
    let figures = || async { "# TYPE waiting gauge\nwaiting{queue=\"a\"} 2\nwaiting{queue=\"b\"} 3\n" };
    let router = axum::Router::new().route("/figures", axum::routing::get(figures));
    let mut program = JoinSet::new();
    program.spawn(async move { axum::serve(listener, router).await });
    let annotations = json!({
        "prometheus.io/scrape": "true", "prometheus.io/port": port, "prometheus.io/path": "/figures",
    });
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    kubelet.pods().patch("web", &PatchParams::default(), &patch).await.expect("a pod can be annotated");
    let handle = kubelet.agent.shared.handle(&uid).expect("it runs");
    let annotated = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| !pod.annotations().is_empty());
    handle.pod.subscribe().wait_for(annotated).await.expect("the pod stays");

    let told = kubelet.agent.series(&[uid.as_str().into(), "other".into()], "waiting").await;
    let [told, other] = <[_; 2]>::try_from(told).expect("an answer for each");
    let values: Vec<f64> = told.expect("it tells of them").series.into_iter().map(|(_, value)| value).collect();
    assert_eq!((values, other), (vec![2.0, 3.0], Err("it does not run".to_owned())));
    assert_eq!(kubelet.agent.metric_names(), BTreeSet::from(["waiting".to_owned()]));
    kubelet.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_by_itself_is_restarted() {
    let kubelet = Kubelet::start().await;
    let pod = kubelet.run().await;
    kubelet.container("running", is_running).await;
    assert!(kubelet.runtime.end(&pod.uid().unwrap_or_default(), "c", 7));
    kubelet
        .container("running again", |status| {
            let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            is_running(status) && status.restart_count == 1 && last.is_some_and(|last| last.exit_code == 7)
        })
        .await;
    kubelet.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_heeds_no_signal_is_given_its_grace_period_and_no_more() {
    let kubelet = Kubelet::start().await;
    kubelet.runtime.plan("default/web", "c", Fault::Leak);
    kubelet.run().await;
    kubelet.container("running", is_running).await;
    let begun = Instant::now();
    kubelet.pods().delete("web", &DeleteParams::default()).await.expect("the pod is to end");
    kubelet.gone().await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(20) && took < Duration::from_secs(25), "{took:?}");
    kubelet.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_ends_with_the_power_of_its_node() {
    let kubelet = Kubelet::start().await;
    kubelet.runtime.plan("default/web", "c", Fault::Block);
    kubelet.run().await;
    kubelet.container("being made", waits_with("ContainerCreating", "")).await;
    kubelet.set(NodeFault::Killed).await;
    kubelet.set(NodeFault::None).await;
    kubelet.container("running", is_running).await;
    kubelet.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_restarts_containers_and_tells_when_it_is_back() {
    let kubelet = Kubelet::start().await;
    let pod = kubelet.run().await;
    let uid = pod.uid().unwrap_or_default();
    kubelet.container("running", is_running).await;
    kubelet.set(NodeFault::Cut).await;
    let sandbox = kubelet.agent.shared.handle(&uid).and_then(|handle| handle.sandbox()).expect("it runs");
    let mut records = sandbox.records();
    assert!(kubelet.runtime.end(&uid, "c", 1));
    records
        .wait_for(|records| records.len() == 2 && records[1].is_running())
        .await
        .expect("the node agent starts it again although nobody hears of it");
    let status = kubelet.pods().get("web").await.expect("the pod is there").status.unwrap_or_default();
    assert_eq!(status.container_statuses.unwrap_or_default()[0].restart_count, 0, "nothing has been told");
    kubelet.pods().delete("web", &DeleteParams::default()).await.expect("the pod is to end");
    kubelet.set(NodeFault::None).await;
    kubelet.gone().await;
    kubelet.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_says_the_address_that_its_node_has() {
    let kubelet = Kubelet::start().await;
    kubelet.run().await;
    kubelet.container("running", is_running).await;
    let status = kubelet.pods().get("web").await.expect("it is there").status.expect("it runs");
    let node = Api::<k8s_openapi::api::core::v1::Node>::all(kubelet.client.clone()).get(NODE).await.expect("a node");
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let internal = addresses.into_iter().find(|address| address.type_ == "InternalIP").map(|address| address.address);
    assert_eq!(internal.as_deref(), Some("192.0.2.7"));
    assert_eq!(status.host_ip, internal);
    assert_eq!(status.host_ips.and_then(|all| all.into_iter().next()).map(|host| host.ip), internal);
    kubelet.end().await;
}
