//! Containers that are only said to run: for ten thousand pods in one process, and for faults that real programs do not
//! have at the right moment.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::{
    Consumption, ContainerRecord, ContainerSpec, ContainerState, Exit, Isolation, LimitIsolation, MountIsolation,
    PodSandbox, Records, Runtime, RuntimeError, Sandbox,
};
use crate::api::node_agent::{Command, Output, Session};

/// What a container does instead of what it should.
#[expect(dead_code, reason = "drills plan faults, and are not there yet")]
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

/// Remembers nothing after the engine has gone.
#[derive(Debug, Default)]
pub(crate) struct MockRuntime {
    pods: Mutex<HashMap<String, Arc<MockSandbox>>>,
    script: Arc<Script>,
}

/// The faults to come, by pod (`namespace/name`) and container.
#[derive(Debug, Default)]
struct Script(Mutex<HashMap<(String, String), VecDeque<Fault>>>);

impl Script {
    fn next(&self, pod: &str, container: &str) -> Option<Fault> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.get_mut(&(pod.to_owned(), container.to_owned()))?.pop_front()
    }
}

#[expect(dead_code, reason = "drills plan faults, and are not there yet")]
impl MockRuntime {
    /// The next start of this container, of those that no earlier call spoke of, has this fault.
    pub(crate) fn plan(&self, pod: &str, container: &str, fault: Fault) {
        let mut faults = self.script.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.entry((pod.to_owned(), container.to_owned())).or_default().push_back(fault);
    }

    /// A running container ends by itself. False when there is none.
    pub(crate) fn end(&self, uid: &str, container: &str, code: i32) -> bool {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).is_some_and(|sandbox| sandbox.end(|record| record.name == container, code))
    }
}

impl Runtime for MockRuntime {
    fn isolation(&self) -> Isolation {
        Isolation { mounts: MountIsolation::None, limits: LimitIsolation::None }
    }

    fn left_behind(&self) -> Result<Vec<PodSandbox>, RuntimeError> {
        Ok(Vec::new())
    }

    fn open(&self, sandbox: PodSandbox) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, RuntimeError>> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = pods.entry(sandbox.uid).or_insert_with(|| {
            Arc::new(MockSandbox {
                pod: format!("{}/{}", sandbox.namespace, sandbox.name),
                records: watch::Sender::new(Arc::from([])),
                leaking: Mutex::default(),
                script: Arc::clone(&self.script),
            })
        });
        let opened: Arc<dyn Sandbox> = Arc::clone(opened) as Arc<dyn Sandbox>;
        std::future::ready(Ok(opened)).boxed()
    }

    fn directory(&self, uid: &str) -> PathBuf {
        std::env::temp_dir().join("landfall-mock").join(uid)
    }
}

#[derive(Debug)]
struct MockSandbox {
    pod: String,
    records: watch::Sender<Records>,
    /// Ids of containers that heed no signal.
    leaking: Mutex<Vec<String>>,
    script: Arc<Script>,
}

impl MockSandbox {
    fn change(&self, change: impl FnOnce(&mut Vec<ContainerRecord>)) {
        self.records.send_modify(|records| {
            let mut new = records.to_vec();
            change(&mut new);
            *records = new.into();
        });
    }

    fn end(&self, which: impl Fn(&ContainerRecord) -> bool, code: i32) -> bool {
        let mut found = false;
        self.change(|records| {
            for record in records.iter_mut().filter(|record| which(record)) {
                if let ContainerState::Running { started_at, .. } = record.state {
                    found = true;
                    let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
                    record.state = ContainerState::Exited(Exit {
                        started_at,
                        finished_at: Timestamp::now(),
                        code,
                        reason,
                        message: None,
                    });
                }
            }
        });
        found
    }

    async fn run(&self, spec: ContainerSpec) -> Result<(), RuntimeError> {
        let fault = self.script.next(&self.pod, &spec.name);
        match &fault {
            Some(Fault::Fail(why)) => return Err(RuntimeError::Refused(why.clone())),
            Some(Fault::Block) => std::future::pending().await,
            Some(Fault::Leak) => {
                self.leaking.lock().unwrap_or_else(PoisonError::into_inner).push(spec.id.clone());
            }
            Some(Fault::Exit(_)) | None => {}
        }
        let id = spec.id.clone();
        self.change(|records| {
            records.retain(|record| record.name != spec.name || record.attempt + 1 == spec.attempt);
            let state = ContainerState::Running { pid: 0, ticks: 0, started_at: Timestamp::now() };
            records.push(ContainerRecord {
                name: spec.name,
                attempt: spec.attempt,
                id: spec.id,
                image: spec.image,
                state,
            });
        });
        if let Some(Fault::Exit(code)) = fault {
            self.end(|record| record.id == id, code);
        }
        Ok(())
    }
}

impl Sandbox for MockSandbox {
    fn start(&self, container: ContainerSpec) -> BoxFuture<'_, Result<(), RuntimeError>> {
        self.run(container).boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, _signal: &'a str, grace: Duration) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let leaks = self.leaking.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|leaking| leaking == id);
            if leaks {
                tokio::time::sleep(grace).await;
            }
            self.end(|record| record.id == id, if leaks { 137 } else { 143 });
            Ok(())
        }
        .boxed()
    }

    fn records(&self) -> watch::Receiver<Records> {
        self.records.subscribe()
    }

    fn exec<'a>(&'a self, _id: &'a str, _command: Command) -> BoxFuture<'a, Result<Session, RuntimeError>> {
        // Every command of a container that does nothing succeeds and says nothing.
        async {
            let (input, _) = mpsc::channel(1);
            let (told, output) = mpsc::channel(1);
            // There is room for one.
            let _ = told.try_send(Output::Ended(Ok(0)));
            Ok(Session { input, output })
        }
        .boxed()
    }

    fn usage(&self, id: &str) -> Option<Consumption> {
        let records = self.records.borrow();
        let running = records.iter().any(|record| record.id == id && record.is_running());
        running.then_some(Consumption::default())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end(|_| true, 137);
        std::future::ready(()).boxed()
    }

    fn remove(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        std::future::ready(Ok(())).boxed()
    }
}
