//! A mock whose containers have faults that were planned for them.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{MockRuntime, MockSandbox};
use crate::api::node_agent::{Command, Session};
use crate::runtime::{
    Consumption, ContainerRecord, ContainerSpec, Isolation, PodSandbox, Records, Runtime, RuntimeError, Sandbox,
};

/// What a container does instead of what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It cannot be started.
    Fail(String),
    /// Starting it takes for ever.
    Block,
    /// It ends right after its start with this code.
    Exit(i32),
    /// It does not heed the signal to end.
    Leak,
}

/// The faults to come, by pod (`namespace/name`) and container.
type Script = Mutex<HashMap<(String, String), VecDeque<Fault>>>;

pub(crate) struct FaultyRuntime {
    mock: MockRuntime,
    script: Arc<Script>,
}

impl FaultyRuntime {
    pub(crate) fn start(folder: &Path) -> Result<Self, RuntimeError> {
        Ok(Self { mock: MockRuntime::start(folder)?, script: Arc::default() })
    }

    /// The next start of this container, of those that no earlier call spoke of, has this fault.
    pub(crate) fn plan(&self, pod: &str, container: &str, fault: Fault) {
        let mut faults = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        faults.entry((pod.to_owned(), container.to_owned())).or_default().push_back(fault);
    }

    /// A running container ends by itself. False when there is none.
    pub(crate) fn end(&self, uid: &str, container: &str, code: i32) -> bool {
        let pods = self.mock.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).is_some_and(|sandbox| sandbox.end(|record| record.name == container, code))
    }
}

impl Runtime for FaultyRuntime {
    fn isolation(&self) -> Isolation {
        self.mock.isolation()
    }

    fn left_behind(&self) -> Result<Vec<PodSandbox>, RuntimeError> {
        self.mock.left_behind()
    }

    fn runs(&self, uid: &str) -> bool {
        self.mock.runs(uid)
    }

    fn open(&self, sandbox: PodSandbox) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, RuntimeError>> {
        let pod = format!("{}/{}", sandbox.namespace, sandbox.name);
        let opened: Arc<dyn Sandbox> = Arc::new(FaultySandbox {
            pod,
            mock: self.mock.sandbox(sandbox),
            leaking: Mutex::default(),
            script: Arc::clone(&self.script),
        });
        std::future::ready(Ok(opened)).boxed()
    }

    fn directory(&self, uid: &str) -> PathBuf {
        self.mock.directory(uid)
    }

    fn run_directory(&self, uid: &str) -> PathBuf {
        self.mock.run_directory(uid)
    }
}

struct FaultySandbox {
    pod: String,
    mock: Arc<MockSandbox>,
    /// Ids of containers that heed no signal.
    leaking: Mutex<Vec<String>>,
    script: Arc<Script>,
}

impl FaultySandbox {
    fn next_fault(&self, container: &str) -> Option<Fault> {
        let mut faults = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        faults.get_mut(&(self.pod.clone(), container.to_owned()))?.pop_front()
    }
}

impl Sandbox for FaultySandbox {
    fn start(&self, container: ContainerSpec) -> BoxFuture<'_, Result<ContainerRecord, RuntimeError>> {
        async move {
            let id = container.id.clone();
            Ok(match self.next_fault(&container.name) {
                None => self.mock.run(container),
                Some(Fault::Fail(why)) => return Err(RuntimeError::Refused(why)),
                Some(Fault::Block) => std::future::pending().await,
                Some(Fault::Exit(code)) => {
                    let record = self.mock.run(container);
                    self.mock.end(|record| record.id == id, code);
                    record
                }
                Some(Fault::Leak) => {
                    self.leaking.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                    self.mock.run(container)
                }
            })
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, signal: &'a str, grace: Duration) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let leaks = self.leaking.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|leaking| leaking == id);
            if leaks {
                tokio::time::sleep(grace).await;
                self.mock.end(|record| record.id == id, 137);
            }
            self.mock.stop(id, signal, grace).await
        }
        .boxed()
    }

    fn records(&self) -> watch::Receiver<Records> {
        self.mock.records()
    }

    fn exec<'a>(&'a self, id: &'a str, command: Command) -> BoxFuture<'a, Result<Session, RuntimeError>> {
        self.mock.exec(id, command)
    }

    fn usage(&self, id: &str) -> Option<Consumption> {
        self.mock.usage(id)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.mock.close()
    }

    fn remove(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        self.mock.remove()
    }
}
