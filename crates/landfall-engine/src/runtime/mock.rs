//! Containers that are only said to run: for ten thousand pods in one process, and for faults that real programs do not
//! have at the right moment (`faulty`, in tests).

#[cfg(test)]
pub(crate) mod faulty;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
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

/// Remembers nothing after the engine has gone.
pub(crate) struct MockRuntime {
    /// The volumes of pods are made, whoever reads them.
    folder: PathBuf,
    pods: Arc<Pods>,
}

/// By uid.
type Pods = Mutex<HashMap<String, Arc<MockSandbox>>>;

impl MockRuntime {
    /// A runtime whose pods have their files in `folder`. What an earlier one has left there is deleted.
    pub(crate) fn start(folder: &Path) -> Result<Self, RuntimeError> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RuntimeError::file("remove the folder", folder)(error));
            }
            _ => fs::create_dir_all(folder).map_err(RuntimeError::file("create the folder", folder))?,
        }
        Ok(Self { folder: folder.to_path_buf(), pods: Arc::default() })
    }

    fn sandbox(&self, sandbox: PodSandbox) -> Arc<MockSandbox> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = pods.entry(sandbox.uid).or_insert_with_key(|uid| {
            let records = watch::Sender::new(Arc::from([]));
            Arc::new(MockSandbox {
                uid: uid.clone(),
                folder: self.directory(uid),
                records,
                pods: Arc::clone(&self.pods),
            })
        });
        Arc::clone(opened)
    }
}

impl Runtime for MockRuntime {
    fn isolation(&self) -> Isolation {
        Isolation { mounts: MountIsolation::None, limits: LimitIsolation::None }
    }

    fn left_behind(&self) -> Result<Vec<PodSandbox>, RuntimeError> {
        Ok(Vec::new())
    }

    fn runs(&self, uid: &str) -> bool {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).contains_key(uid)
    }

    fn open(&self, sandbox: PodSandbox) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, RuntimeError>> {
        let opened: Arc<dyn Sandbox> = self.sandbox(sandbox);
        std::future::ready(Ok(opened)).boxed()
    }

    fn directory(&self, uid: &str) -> PathBuf {
        self.folder.join(uid)
    }

    fn run_directory(&self, uid: &str) -> PathBuf {
        // The memory of ten thousand pods that do nothing is better used.
        self.directory(uid)
    }
}

struct MockSandbox {
    uid: String,
    folder: PathBuf,
    records: watch::Sender<Records>,
    /// It is one of these until it is removed.
    pods: Arc<Pods>,
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

    fn run(&self, spec: ContainerSpec) -> ContainerRecord {
        let record = ContainerRecord {
            name: spec.name,
            attempt: spec.attempt,
            id: spec.id,
            image: spec.image,
            state: ContainerState::Running { pid: 0, ticks: 0, started_at: Timestamp::now() },
            earlier: false,
        };
        self.change(|records| {
            records.retain(|other| other.name != record.name || other.attempt + 1 == record.attempt);
            records.push(record.clone());
        });
        record
    }
}

impl Sandbox for MockSandbox {
    fn start(&self, container: ContainerSpec) -> BoxFuture<'_, Result<ContainerRecord, RuntimeError>> {
        std::future::ready(Ok(self.run(container))).boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, _signal: &'a str, _grace: Duration) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.end(|record| record.id == id, 143);
        std::future::ready(Ok(())).boxed()
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
        async {
            self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.uid);
            match tokio::fs::remove_dir_all(&self.folder).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(RuntimeError::file("remove the folder", &self.folder)(error))
                }
                _ => Ok(()),
            }
        }
        .boxed()
    }
}
