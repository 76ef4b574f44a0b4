//! What is lost when something dies under the flows of a platform: nothing that it has taken. Services, the broker, the
//! primary of the database and the engine itself are killed while the flows are driven at their declared rates.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, DeleteParams, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::platform::{Platform, copy, until};
use crate::up::{ask, everything_is_here, is_driven, list, room};

pub(crate) const NAMESPACE: &str = "balance-alerts-development";

pub(crate) const SERVICES: [&str; 5] = ["balance", "notification", "qualification", "reporting", "tracking"];

/// How many members the broker has, each with a queue of each service that consumes.
const BROKERS: usize = 3;

/// Where the pod of a broker has its tools.
const TOOL: &str = "/var/lib/rabbitmq/mnesia/tool";

/// How often the first broker is killed to see what happens before it is back.
const ATTEMPTS: usize = 3;

/// How long the flows run before something dies, and between two deaths.
const PAUSE: Duration = Duration::from_secs(4);

#[test]
fn nothing_that_was_taken_is_lost_whatever_is_killed() {
    let Some(()) = everything_is_here() else { return };
    let _room = room();
    Runtime::new().expect("threads can be started").block_on(kill_one_after_the_other());
}

async fn kill_one_after_the_other() {
    let folder = copy("balance-alerts");
    let up = || Platform::start(folder.path(), "balance-alerts", Some("development"), &["--duration", "1s"]);
    let mut platform = up();
    platform.reported();
    let client = platform.client().await;
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);

    kill_a_copy_of_each(&platform, &pods).await;

    let queues = ["notification", "qualification", "reporting", "tracking"];
    let queues = queues.map(|service| (format!("balance.changed.{service}"), BROKERS));
    assert_eq!(members_of_queues(&pods).await, BTreeMap::from(queues));
    let flows = Driven::start(&platform, "40s");
    sleep(PAUSE).await;
    consumed_without_the_first_broker(&platform, &pods).await;
    flows.lost_nothing("the broker that had the queues first");

    let before = primary(&client).await.expect("there is a primary");
    let flows = Driven::start(&platform, "30s");
    sleep(PAUSE).await;
    let victim = pods.get(&before).await.expect("the primary has a pod");
    platform.kill_container(&victim.uid().expect("a pod has a uid"));
    // Its container alone would be back within a second, before anybody has to take over.
    let _ = pods.delete(&before, &DeleteParams::default().grace_period(0)).await.expect("a pod can be deleted");
    let after =
        until("another primary, and all members", || async { primary(&client).await.filter(|now| *now != before) })
            .await;
    flows.lost_nothing("the primary of the database");
    let role = |pod: &Pod| pod.labels().get("cnpg.io/instanceRole").cloned();
    assert_eq!(role(&pods.get(&before).await.expect("it is back")).as_deref(), Some("replica"));
    assert_eq!(role(&pods.get(&after).await.expect("it is there")).as_deref(), Some("primary"));

    let containers = containers(&pods).await;
    let flows = Driven::start(&platform, "60s");
    sleep(PAUSE).await;
    platform.kill();
    let mut again = up();
    let report = again.reported();
    // How long the flows take beside the other ones is not asked.
    assert_eq!(report["edges"]["silent"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["pods"]["ready"], report["pods"]["total"], "{report:#}");
    flows.lost_nothing("the engine");
    let pods = Api::<Pod>::namespaced(again.client().await, NAMESPACE);
    assert_eq!(self::containers(&pods).await, containers, "what it ran has run on");
}

/// One copy of each service dies under the flows, one after the other, and nothing is lost.
pub(crate) async fn kill_a_copy_of_each(platform: &Platform, pods: &Api<Pod>) {
    let flows = Driven::start(platform, "40s");
    for service in SERVICES {
        sleep(PAUSE).await;
        let all = pods.list(&ListParams::default().labels(&format!("app.kubernetes.io/name={service}"))).await;
        let victim = all.expect("pods can be listed").items.into_iter().find(is_ready).expect("a copy is ready");
        platform.kill_container(&victim.uid().expect("a pod has a uid"));
        until_started_again(pods, &victim).await;
    }
    flows.lost_nothing("a copy of each service");
}

/// How many members each queue has. Each broker is asked for those that it leads: it opens no port to the tools of others.
async fn members_of_queues(pods: &Api<Pod>) -> BTreeMap<String, usize> {
    let mut queues = BTreeMap::new();
    for number in 0..BROKERS {
        let script = format!("{TOOL} rabbitmqctl list_queues --silent --local --formatter json name members");
        let parameters = AttachParams::default().stdout(true).stderr(false).container("rabbitmq");
        let broker = format!("events-server-{number}");
        let process = pods.exec(&broker, ["sh", "-c", script.as_str()], &parameters).await;
        let mut process = process.expect("a command can be run in a pod");
        let mut said = String::new();
        let mut stdout = process.stdout().expect("it was asked for");
        stdout.read_to_string(&mut said).await.expect("what it says can be read");
        let listed = said.find('[').and_then(|from| said.get(from..=said.rfind(']')?));
        let listed: Value = serde_json::from_str(listed.unwrap_or_default()).unwrap_or_else(|_| panic!("{said}"));
        for queue in list(&listed) {
            queues.insert(queue["name"].as_str().expect("it has a name").to_owned(), list(&queue["members"]).count());
        }
    }
    queues
}

/// Kills the first broker, and sees that messages are published and consumed before it is back: the others are the majority.
async fn consumed_without_the_first_broker(platform: &Platform, pods: &Api<Pod>) {
    let carried = || {
        let (_, edges) = ask(platform, &["edges"]);
        let of = |verb: &str| {
            let is_own = |edge: &&Value| edge["edge"].as_str().is_some_and(|name| name.contains(verb));
            let own = list(&edges["edges"]).filter(is_own);
            own.filter_map(|edge| edge["carried"].as_u64()).sum::<u64>()
        };
        (of(" publish events/"), of(" consume events/"))
    };
    let first = || async { pods.get("events-server-0").await.expect("a broker is called so") };
    for _ in 0..ATTEMPTS {
        let broker = first().await;
        platform.kill_container(&broker.uid().expect("a pod has a uid"));
        until("the death of a broker", || async { (!is_ready(&first().await)).then_some(()) }).await;
        // What was on its way already does not count.
        sleep(Duration::from_secs(2)).await;
        let before = carried();
        let mut went_on = false;
        while !went_on && !is_ready(&first().await) {
            let now = carried();
            went_on = now.0 > before.0 && now.1 > before.1 && !is_ready(&first().await);
        }
        until_started_again(pods, &broker).await;
        if went_on {
            return;
        }
    }
    panic!("nothing was published and consumed while the first broker was away");
}

/// The flows, driven by a process that is no part of the platform.
struct Driven(Child);

impl Driven {
    fn start(platform: &Platform, duration: &str) -> Self {
        let mut command = platform.command(&["flows", "--duration", duration, "--output", "json"]);
        Self(command.stdout(Stdio::piped()).spawn().expect("the program can be started"))
    }

    fn lost_nothing(self, killed: &str) {
        let output = self.0.wait_with_output().expect("a child can be waited for");
        let report: Value = serde_json::from_slice(&output.stdout).expect("flows are told as JSON");
        let flows = report["flows"].as_array().expect("flows are a list");
        assert_eq!(flows.len(), 7, "{report:#}");
        for flow in flows {
            assert!(is_driven(flow), "{killed} was killed: {flow:#}");
            assert_eq!(flow["lost"], 0, "{killed} was killed: {flow:#}");
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

/// The containers of all pods that stay.
async fn containers(pods: &Api<Pod>) -> Vec<String> {
    let all = pods.list(&ListParams::default()).await.expect("pods can be listed");
    let statuses = all.into_iter().filter_map(|pod| pod.status?.container_statuses).flatten();
    let mut ids: Vec<_> = statuses.filter_map(|status| status.container_id).collect();
    ids.sort();
    ids
}

async fn until_started_again(pods: &Api<Pod>, before: &Pod) {
    let name = before.name_any();
    until(&name, || async {
        let pod = pods.get_opt(&name).await.expect("a pod can be read")?;
        (is_ready(&pod) && restarts(&pod) > restarts(before)).then_some(())
    })
    .await;
}

/// The primary of a cluster of which all members are ready.
async fn primary(client: &Client) -> Option<String> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("postgresql.cnpg.io", "v1", "Cluster"));
    let clusters = Api::<DynamicObject>::namespaced_with(client.clone(), NAMESPACE, &resource);
    let status = clusters.get("balances").await.expect("the cluster can be read").data["status"].clone();
    let healthy = status["phase"] == "Cluster in healthy state";
    status["currentPrimary"].as_str().filter(|_| healthy).map(ToOwned::to_owned)
}
