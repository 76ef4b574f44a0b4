//! Who may ship: a `Lease` that its owner renews for as long as it has it.
//!
//! Whether another's has ended is told as Kubernetes' own leader election tells it. The times in a lease are those of another
//! machine's clock and are compared with nothing: whoever wants it counts from when it was last *seen* to change.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, warn};

use super::{ClusterError, During as _, if_there, is_status};

/// How long a lock holds without being renewed, in seconds.
const HOLDS_SECONDS: i32 = 15;

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(4);

/// After how long without being renewed its owner does nothing more: well before another may have it.
const SURE: Duration = Duration::from_secs(10);

/// How often it is looked at by whoever wants to know whether its owner still works.
const LOOK: Duration = Duration::from_secs(1);

/// A lock that is held, and renewed until it is released or dropped.
#[derive(Debug)]
pub struct Lock {
    lease: Leased,
    holder: String,
    tenure: watch::Receiver<Tenure>,
    /// Tells the renewal to stop.
    stop: oneshot::Sender<()>,
    renewal: JoinSet<()>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else is at work.
    #[error("`{holder}` is at work on it")]
    Held {
        /// Who.
        holder: String,
    },
    /// Another may have it soon.
    #[error("the lock could not be renewed for {} s", SURE.as_secs())]
    NotRenewed,
    /// The cluster did not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Somebody who wants the lock of an architecture, and remembers what they have seen of it.
#[derive(Debug)]
pub struct Contender {
    lease: Leased,
    holder: String,
    seen: Option<Seen>,
}

/// How an owner knows that the lock is theirs.
#[derive(Debug, Clone)]
enum Tenure {
    /// It was renewed at that time.
    Since(Instant),
    /// Somebody else has it.
    Lost(String),
}

impl Contender {
    /// `holder` says to people who it is. What tells one from all others, on every machine, is added.
    pub fn new(client: &Client, namespace: &str, architecture: &str, holder: &str) -> Self {
        let lease = Leased {
            api: Api::namespaced(client.clone(), namespace),
            name: format!("landfall-{architecture}"),
            identity: format!("{holder}, {:08x}", rand::random::<u32>()),
        };
        Self { lease, holder: holder.to_owned(), seen: None }
    }

    /// Takes the lock, if nobody has it. Another's has ended when no change of it was seen for as long as it holds; so it takes
    /// several attempts to take it from somebody who is gone.
    pub async fn attempt(&mut self) -> Result<Lock, LockError> {
        let found = self.lease.read().await?;
        match &found {
            Some(lease) => {
                if let Some(holder) = owner(&mut self.seen, lease, Instant::now()) {
                    return Err(LockError::Held { holder });
                }
            }
            None => self.seen = None,
        }
        let asked = Instant::now();
        match self.lease.write(found).await {
            Err(error) if is_status(&error, 409) => Err(LockError::Held { holder: "somebody else".to_owned() }),
            written => {
                written.during(|| format!("take the lease `{}`", self.lease.name))?;
                Ok(Lock::held(self.lease.clone(), self.holder.clone(), asked))
            }
        }
    }

    /// Whether the owner was seen to renew it, and so is at work.
    pub fn sees_work(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.changed)
    }
}

impl Lock {
    /// Takes the lock of an architecture. `Held` when its owner is seen to work; whether that is so takes as long as a lock holds at
    /// most.
    pub async fn take(client: &Client, namespace: &str, architecture: &str, holder: &str) -> Result<Self, LockError> {
        let mut contender = Contender::new(client, namespace, architecture, holder);
        loop {
            match contender.attempt().await {
                Err(LockError::Held { holder }) if !contender.sees_work() => {
                    debug!(holder, "it is not known yet whether somebody still works");
                    sleep(LOOK).await;
                }
                ended => return ended,
            }
        }
    }

    fn held(lease: Leased, holder: String, since: Instant) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (told, tenure) = watch::channel(Tenure::Since(since));
        let mut renewal = JoinSet::new();
        renewal.spawn(lease.clone().keep(stopped, told));
        Self { lease, holder, tenure, stop, renewal }
    }

    /// Whose it is, for people.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Whether it is still ours, beyond doubt.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        match &*self.tenure.borrow() {
            Tenure::Since(renewed) if renewed.elapsed() < SURE => Ok(()),
            Tenure::Since(_) => Err(LockError::NotRenewed),
            Tenure::Lost(holder) => Err(LockError::Held { holder: holder.clone() }),
        }
    }

    /// Returns when it is no longer ours beyond doubt. May be dropped anywhere.
    pub(crate) async fn lost(&self) -> LockError {
        let mut tenure = self.tenure.clone();
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            let ends = match &*tenure.borrow_and_update() {
                Tenure::Since(renewed) => *renewed + SURE,
                Tenure::Lost(_) => Instant::now(),
            };
            // Without anybody who renews it, it ends.
            if let Ok(Err(_)) = timeout_at(ends, tenure.changed()).await {
                sleep_until(ends).await;
            }
        }
    }

    /// Gives it back. When that fails it ends by itself.
    pub async fn release(self) {
        let Self { lease, stop, renewal, .. } = self;
        let _ended_by_itself = stop.send(());
        renewal.join_all().await;
        if let Ok(Some(mut found)) = lease.read().await
            && let Some(spec) = &mut found.spec
            && spec.holder_identity.as_deref() == Some(lease.identity.as_str())
        {
            spec.holder_identity = None;
            let _ended_otherwise = lease.api.replace(&lease.name, &PostParams::default(), &found).await;
        }
    }
}

/// A lease, and as whom it is taken.
#[derive(Debug, Clone)]
struct Leased {
    api: Api<Lease>,
    name: String,
    identity: String,
}

impl Leased {
    async fn read(&self) -> Result<Option<Lease>, ClusterError> {
        if_there(self.api.get(&self.name).await).during(|| format!("read the lease `{}`", self.name))
    }

    /// Writes that it is ours into what was found; a conflict when somebody was faster.
    async fn write(&self, found: Option<Lease>) -> Result<(), kube::Error> {
        let written = match found {
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = self.ours(Lease { metadata, spec: None });
                self.api.create(&PostParams::default(), &lease).await
            }
            Some(lease) => self.api.replace(&self.name, &PostParams::default(), &self.ours(lease)).await,
        };
        written.map(drop)
    }

    fn ours(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(HOLDS_SECONDS);
        spec.renew_time = Some(now);
        lease
    }

    /// Renews it until it is told to stop or somebody else has it.
    async fn keep(self, mut stop: oneshot::Receiver<()>, told: watch::Sender<Tenure>) {
        loop {
            tokio::select! {
                _ = &mut stop => return,
                () = sleep(RENEW) => {}
            }
            let asked = Instant::now();
            match timeout(RENEW, self.renew()).await {
                Ok(Ok(None)) => drop(told.send_replace(Tenure::Since(asked))),
                Ok(Ok(Some(other))) => {
                    told.send_replace(Tenure::Lost(other));
                    return;
                }
                Ok(Err(error)) => warn!(%error, "the lock is not renewed"),
                Err(_) => warn!("the lock is not renewed: nobody answers"),
            }
        }
    }

    /// Renews it once; whose it is when it is not ours any more. One that was deleted is made anew.
    async fn renew(&self) -> Result<Option<String>, ClusterError> {
        let found = self.read().await?;
        if let Some(lease) = &found {
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
            if holder != self.identity {
                let given_back = holder.is_empty();
                return Ok(Some(if given_back { "somebody else" } else { holder }.to_owned()));
            }
        }
        self.write(found).await.during(|| format!("renew the lease `{}`", self.name))?;
        Ok(None)
    }
}

/// What was seen of a lease.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    spec: LeaseSpec,
    /// Since when it is so, by the clock of whoever looks.
    since: Instant,
    /// Whether it was otherwise before.
    changed: bool,
}

/// Whose a lease is, when it is looked at at `now`: nobody's when it was given back, or has not changed for as long as it holds.
fn owner(seen: &mut Option<Seen>, lease: &Lease, now: Instant) -> Option<String> {
    let spec = lease.spec.clone().unwrap_or_default();
    let last = match seen.take() {
        Some(last) if last.spec == spec => last,
        last => Seen { spec, since: now, changed: last.is_some() },
    };
    let seconds = u64::try_from(last.spec.lease_duration_seconds.unwrap_or(HOLDS_SECONDS)).unwrap_or_default();
    let holder = last.spec.holder_identity.clone().filter(|holder| !holder.is_empty());
    let ended = now.duration_since(last.since) >= Duration::from_secs(seconds);
    *seen = Some(last);
    holder.filter(|_| !ended)
}

#[cfg(test)]
mod tests;
