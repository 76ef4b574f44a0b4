//! Joins a cluster as simulated nodes, so that its pods run as processes of this machine.
//!
//! `node-agent DATA IMAGES NODE...` with `KUBECONFIG` set: each `NODE` is a name, or `NAME@ZONE`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use landfall_engine::{Catalogue, JoinConfig, NodeSpec, Shim, join, shim_main};
use tokio_util::sync::CancellationToken;

const SHIM: &str = "__pod-shim";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == SHIM
    {
        return shim_main(rest);
    }
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let [data, images, nodes @ ..] = arguments.as_slice() else { return ExitCode::from(2) };
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    runtime.block_on(run(data, images, nodes))
}

async fn run(data: &str, images: &str, nodes: &[String]) -> ExitCode {
    let node = |name: &String| {
        let (name, zone) = name.split_once('@').map_or((name.as_str(), None), |(name, zone)| (name, Some(zone)));
        NodeSpec {
            name: name.to_owned(),
            zone: zone.map(ToOwned::to_owned),
            region: None,
            cpu: "16".to_owned(),
            memory: "32Gi".to_owned(),
            pods: 500,
            labels: std::collections::BTreeMap::default(),
            address: "127.0.0.1".to_owned(),
        }
    };
    let text = std::fs::read_to_string(images).expect("the image catalogue can be read");
    let config = JoinConfig {
        nodes: nodes.iter().map(node).collect(),
        data: data.into(),
        images: Catalogue::parse(&text).expect("the image catalogue is well-formed"),
        shim: Shim {
            program: std::env::current_exe().expect("this program has a path"),
            arguments: vec![SHIM.to_owned()],
        },
        first_back_off: Duration::from_secs(10),
    };
    let client = kube::Client::try_default().await.expect("KUBECONFIG names a cluster");
    let cancel = CancellationToken::new();
    let interrupted = cancel.clone();
    let wait = async move {
        // Without a handler the signal ends the process, which is as good.
        let _ = tokio::signal::ctrl_c().await;
        interrupted.cancel();
    };
    let (result, ()) = tokio::join!(join(client, config, cancel), wait);
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
