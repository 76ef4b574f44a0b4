//! Who may ship: a `Lease` with an owner and an end. It is renewed while its owner works, and nobody's once it has ended.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use super::{ClusterError, During as _, if_there};

/// How long a lock holds without being renewed.
const HOLDS_SECONDS: i32 = 15;

/// After which time it is renewed.
const RENEW: std::time::Duration = std::time::Duration::from_secs(4);

/// A lock that is held.
#[derive(Debug)]
pub struct Lock {
    api: Api<Lease>,
    name: String,
    holder: String,
    renewed: Instant,
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
    /// The cluster did not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl Lock {
    /// Takes the lock of an architecture, if nobody has it.
    ///
    /// Whether another's lock has ended is read off this machine's clock: clocks that differ by more than the time for
    /// which a lock holds would take it too early.
    pub async fn take(client: &Client, namespace: &str, architecture: &str, holder: &str) -> Result<Self, LockError> {
        let api = Api::<Lease>::namespaced(client.clone(), namespace);
        let lock =
            Self { api, name: format!("landfall-{architecture}"), holder: holder.to_owned(), renewed: Instant::now() };
        let found = if_there(lock.api.get(&lock.name).await).during(|| format!("read the lease `{}`", lock.name))?;
        let written = match found {
            None => {
                let metadata = ObjectMeta { name: Some(lock.name.clone()), ..ObjectMeta::default() };
                let lease = lock.held(Lease { metadata, spec: None });
                lock.api.create(&PostParams::default(), &lease).await
            }
            Some(lease) => {
                if let Some(other) = live_holder(&lease, Timestamp::now())
                    && other != holder
                {
                    return Err(LockError::Held { holder: other });
                }
                lock.api.replace(&lock.name, &PostParams::default(), &lock.held(lease)).await
            }
        };
        if matches!(&written, Err(kube::Error::Api(status)) if status.code == 409) {
            // Somebody was faster.
            return Err(LockError::Held { holder: "somebody else".to_owned() });
        }
        written.during(|| format!("take the lease `{}`", lock.name))?;
        Ok(lock)
    }

    /// Whose it is.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Renews it when it is time. `Held` when another has taken it meanwhile.
    pub(crate) async fn keep(&mut self) -> Result<(), LockError> {
        if self.renewed.elapsed() < RENEW {
            return Ok(());
        }
        let lease = self.api.get(&self.name).await.during(|| format!("read the lease `{}`", self.name))?;
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder != self.holder {
            return Err(LockError::Held { holder });
        }
        let renewed = Instant::now();
        let written = self.api.replace(&self.name, &PostParams::default(), &self.held(lease)).await;
        written.during(|| format!("renew the lease `{}`", self.name))?;
        self.renewed = renewed;
        Ok(())
    }

    /// Gives it back. When that fails it ends by itself.
    pub async fn release(self) {
        if let Ok(mut lease) = self.api.get(&self.name).await
            && let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(self.holder.as_str())
        {
            spec.holder_identity = None;
            let _ended_otherwise = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        }
    }

    fn held(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.holder.as_str()) {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        }
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = Some(HOLDS_SECONDS);
        spec.renew_time = Some(now);
        lease
    }
}

/// Who holds a lease that has not ended.
fn live_holder(lease: &Lease, now: Timestamp) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty())?;
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(HOLDS_SECONDS));
    let ends = spec.renew_time.as_ref()?.0 + SignedDuration::from_secs(seconds);
    (now < ends).then_some(holder)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    #[test]
    fn a_lease_is_nobodys_once_it_has_ended_or_was_given_back() {
        let renewed: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        let lease = |holder: Option<&str>| Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(ToOwned::to_owned),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(renewed)),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let after = |seconds| renewed + SignedDuration::from_secs(seconds);
        assert_eq!(live_holder(&lease(Some("ada")), after(14)), Some("ada".to_owned()));
        assert_eq!(live_holder(&lease(Some("ada")), after(15)), None);
        assert_eq!(live_holder(&lease(None), after(1)), None);
        assert_eq!(live_holder(&lease(Some("")), after(1)), None);
    }
}
