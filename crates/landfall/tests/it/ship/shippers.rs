//! Shippers that go on beside a test, and what is in the cluster meanwhile.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{PATIENCE, Platform};
use crate::running_engine::POLL;

impl Platform {
    /// A shipper that goes on beside the test. What it says is in `NAME.log`, and its document in `NAME.json`.
    pub(super) fn shipper(&self, name: &str, arguments: &[&str]) -> Shipper {
        let [log, document] = ["log", "json"].map(|end| self.folder.path().join(format!("{name}.{end}")));
        let file = |path: &PathBuf| File::create(path).expect("a file can be made");
        let mut command = self.command(arguments);
        command.args(["--env", "development", "--output", "json", "--kubeconfig"]).arg(self.engine.kubeconfig());
        let child = command.stdout(file(&document)).stderr(file(&log)).spawn().expect("the program can be started");
        Shipper { name: name.to_owned(), child, log, document }
    }

    /// A release, once it is in this state.
    pub(super) fn release_becomes(&self, name: &str, state: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, release, _) = self.run(&["release", "show", name]);
            if release["state"] == state {
                return release;
            }
            assert!(Instant::now() < deadline, "it does not become {state}: {release:#}");
            std::thread::sleep(POLL);
        }
    }

    /// Another file of the architecture in the place of the one before.
    pub(super) fn write(&self, text: &str) {
        fs::write(self.folder.path().join("landfall.yaml"), text).expect("a file can be written");
    }

    /// Asks the cluster itself.
    pub(super) fn with_client<T>(&self, work: impl AsyncFnOnce(Client) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async { work(self.engine.client().await).await })
    }

    /// The Deployment of `web`.
    pub(super) fn web(&self) -> Value {
        self.with_client(async |client| {
            let web = Api::<Deployment>::namespaced(client, "shop").get("web").await;
            json!(web.expect("it is there"))
        })
    }

    /// The image that its copies are to run.
    pub(super) fn image(&self) -> Value {
        self.web()["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    }
}

/// A shipper; it is killed when the test is over.
pub(super) struct Shipper {
    name: String,
    child: Child,
    log: PathBuf,
    document: PathBuf,
}

impl Shipper {
    /// Waits until it has said this.
    pub(super) fn says(&self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            if said.contains(wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{} does not say `{wanted}`: {said}", self.name);
            std::thread::sleep(POLL);
        }
    }

    /// How it ends: its exit code, its document and what it said.
    pub(super) fn ends(mut self) -> (Option<i32>, Value, String) {
        let status = self.child.wait().expect("a child can be waited for");
        let said = fs::read_to_string(&self.log).expect("it was written");
        let document = fs::read_to_string(&self.document).expect("it was written");
        println!("{}: {:?}\n{said}", self.name, status.code());
        (status.code(), serde_json::from_str(&document).unwrap_or_default(), said)
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
