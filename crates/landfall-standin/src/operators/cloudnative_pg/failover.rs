//! Who is the primary of a cluster: another member takes over when it is lost, or when somebody asks for it by the field
//! `status.targetPrimary`, as `kubectl cnpg promote` does.
//!
//! ```text
//!            the primary is lost, and no member hears from it
//!  current ───────────────────────────────────────────────────▶ target = pending
//!     ▲  └── somebody asks for another ──▶ target = that one ──┐     │
//!     │                                                        ▼     ▼
//!     └── current = target ◀── the best is promoted ◀── the old one is stopped, and no member hears from it
//! ```
//!
//! Each state is in the status before it is acted on, so that another operator goes on where this one has ended. The old
//! primary is stopped before another is promoted, and its pod, which is made again, follows: at no time do two members take
//! writes. Not handled: a member that nobody has heard of meanwhile and that has more of the old history than the new primary
//! has of it; it must be deleted with its volume. Where commits wait for replicas, as many must be heard of that one which has every commit is among them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::member::{Session, Standing};
use super::{PRIMARY, REPLICA, ROLE, Wanted};
use crate::operators::{Context, OperatorError, is_ready};

/// What stands in `targetPrimary` until it is known who it will be.
const PENDING: &str = "pending";

/// How long a primary that this operator has not seen ready yet may take: everything is starting, then.
const START: Duration = Duration::from_mins(1);

/// How long the pod of a primary that is gone is not made again, as another member may take over.
const HOLD: Duration = Duration::from_secs(20);

/// How long a primary that is asked to stop may take until it is killed, in seconds.
const GRACE: u32 = 10;

/// What the operator remembers of primaries: when each was ready last.
#[derive(Default)]
pub(in crate::operators) struct Memory(Mutex<BTreeMap<String, Sight>>);

struct Sight {
    first: Instant,
    ready: Option<Instant>,
}

impl Memory {
    /// Takes note of a primary, and says for how long it has been lost: not at all while everything is starting.
    fn lost_for(&self, cluster: &str, ready: bool) -> Option<Duration> {
        let now = Instant::now();
        let mut sights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sight = sights.entry(cluster.to_owned()).or_insert(Sight { first: now, ready: None });
        if ready {
            sight.ready = Some(now);
            return None;
        }
        match sight.ready {
            Some(last) => Some(now - last),
            None => (now - sight.first).checked_sub(START),
        }
    }

    /// Another one is the primary, and may take its time to be ready.
    fn forget(&self, cluster: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster);
    }
}

/// Who is the primary, and who is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) current: String,
    pub(super) target: String,
}

impl Roles {
    pub(super) fn of(status: &Value, first: String) -> Self {
        let named = |field: &str| status[field].as_str().filter(|name| !name.is_empty()).map(ToOwned::to_owned);
        let current = named("currentPrimary").unwrap_or(first);
        let target = named("targetPrimary").unwrap_or_else(|| current.clone());
        Self { current, target }
    }

    pub(super) fn settled(&self) -> bool {
        self.current == self.target
    }

    /// As what a pod of this name starts now: nobody does as the primary while that changes.
    pub(super) fn is_primary(&self, pod: &str) -> bool {
        self.settled() && pod == self.current
    }
}

/// What has come of looking after the primary.
pub(super) enum Outlook {
    /// Who it is and is to be; nothing has changed.
    Same,
    /// It is lost. Its pod is not made again yet.
    Lost,
    /// These are the roles from now on.
    Changed(Roles),
}

/// Looks after the primary, and takes the next step of a change.
pub(super) async fn look_after(
    context: &Context,
    wanted: &Wanted<'_>,
    pods: &[Pod],
    roles: &Roles,
) -> Result<Outlook, OperatorError> {
    let named = |name: &str| pods.iter().find(|pod| pod.name_any() == name);
    let ready = named(&roles.current).is_some_and(is_ready);
    if roles.settled() {
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let role = if roles.is_primary(&pod.name_any()) { PRIMARY } else { REPLICA };
            if role_of(pod) == Some(role) || (role == PRIMARY && !is_ready(pod)) {
                continue;
            }
            if role == PRIMARY {
                // It may have been started again before it had the label, and follow once more.
                session(context, wanted, pod).await?.promote().await?;
            }
            context.label(&wanted.namespace, &pod.name_any(), ROLE, role).await?;
            context.label(&wanted.namespace, &pod.name_any(), "role", role).await?;
        }
        let Some(lost) = context.primaries.lost_for(&wanted.uid, ready) else { return Ok(Outlook::Same) };
        if lost < wanted.failover_delay() {
            return Ok(Outlook::Same);
        }
        let others = ask(context, wanted, pods, &roles.current).await?;
        if !wanted.may_promote(&others) {
            // Without anybody who could take over it is missed all the more.
            return Ok(if others.is_empty() || lost > HOLD { Outlook::Same } else { Outlook::Lost });
        }
        warn!(cluster = wanted.name, primary = roles.current, "the primary is lost");
        return Ok(Outlook::Changed(Roles { target: PENDING.to_owned(), ..roles.clone() }));
    }
    // While it ends, the members hear from it. One on a machine that is lost stays, and nobody hears from it.
    if let Some(old) = named(&roles.current)
        && role_of(old) == Some(PRIMARY)
        && old.metadata.deletion_timestamp.is_none()
    {
        let all = Api::<Pod>::namespaced(context.client.clone(), &wanted.namespace);
        let deleted = all.delete(&roles.current, &DeleteParams::default().grace_period(GRACE)).await;
        deleted.map_err(|source| OperatorError::Request {
            action: format!("delete the pod {}", roles.current),
            source: Box::new(source),
        })?;
        return Ok(Outlook::Same);
    }
    let others = ask(context, wanted, pods, &roles.current).await?;
    if !wanted.may_promote(&others) {
        return Ok(Outlook::Same);
    }
    let Some(best) = best(&others, &roles.target) else { return Ok(Outlook::Same) };
    if best.name != roles.target {
        return Ok(Outlook::Changed(Roles { target: best.name.clone(), ..roles.clone() }));
    }
    let Some(pod) = named(&best.name) else { return Ok(Outlook::Same) };
    session(context, wanted, pod).await?.promote().await?;
    context.primaries.forget(&wanted.uid);
    info!(cluster = wanted.name, from = roles.current, to = best.name, "another member is the primary");
    Ok(Outlook::Changed(Roles { current: best.name.clone(), target: best.name.clone() }))
}

fn role_of(pod: &Pod) -> Option<&str> {
    pod.labels().get(ROLE).map(String::as_str)
}

/// What the other members that can be asked say of themselves.
async fn ask(
    context: &Context,
    wanted: &Wanted<'_>,
    pods: &[Pod],
    primary: &str,
) -> Result<Vec<Standing>, OperatorError> {
    let others = pods.iter().filter(|pod| is_ready(pod) && pod.name_any() != primary);
    let standings = futures::future::join_all(others.map(|pod| async move {
        let asked = async { session(context, wanted, pod).await?.standing().await };
        asked.await.inspect_err(|error| info!(pod = pod.name_any(), %error, "a member does not answer"))
    }));
    Ok(standings.await.into_iter().flatten().collect())
}

async fn session(context: &Context, wanted: &Wanted<'_>, pod: &Pod) -> Result<Session, OperatorError> {
    let secret = format!("{}-superuser", wanted.name);
    let password = context.secret_value(&wanted.namespace, &secret, "password").await?.unwrap_or_default();
    Session::open(context, pod, &wanted.host("rw"), &password).await
}

/// The member that has most of the log; of several the one that is wished for, or the first.
fn best<'a>(members: &'a [Standing], wished: &str) -> Option<&'a Standing> {
    let most = members.iter().map(|member| member.position).max()?;
    let mut equals = members.iter().filter(|member| member.position == most);
    equals.clone().find(|member| member.name == wished).or_else(|| equals.next())
}

impl Wanted<'_> {
    /// How long a primary may be away, as the real operator waits: not at all unless that is declared.
    fn failover_delay(&self) -> Duration {
        Duration::from_secs(self.spec["failoverDelay"].as_u64().unwrap_or(0))
    }

    /// Whether one of these members can be promoted: none of them hears from the primary, and as many are heard of that
    /// each commit that was acknowledged is at one of them
    /// (<https://cloudnative-pg.io/documentation/current/failover/#failover-quorum-quorum-based-failover>).
    fn may_promote(&self, others: &[Standing]) -> bool {
        let synchronous = &self.spec["postgresql"]["synchronous"];
        let waits_for = synchronous["number"].as_u64().filter(|_| synchronous["failoverQuorum"] == json!(true));
        let heard = u64::try_from(others.len()).unwrap_or(u64::MAX);
        let enough = match waits_for {
            Some(number) => heard + number > self.instances.saturating_sub(1),
            None => heard > 0,
        };
        enough && others.iter().all(|member| !member.receives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, position: i64) -> Standing {
        Standing { name: name.to_owned(), follows: true, receives: false, position }
    }

    fn wanted(spec: &Value) -> Wanted<'_> {
        Wanted {
            name: "db".to_owned(),
            uid: "1".to_owned(),
            namespace: "shop".to_owned(),
            spec,
            instances: 3,
            database: "db",
            owner: "db",
        }
    }

    #[test]
    fn the_member_with_most_of_the_log_takes_over() {
        let members = [member("db-1", 400), member("db-2", 500), member("db-3", 500)];
        assert_eq!(best(&members, "db-3").map(|member| member.name.as_str()), Some("db-3"));
        assert_eq!(best(&members, "db-1").map(|member| member.name.as_str()), Some("db-2"));
        assert_eq!(best(&[], "db-1"), None);
    }

    #[test]
    fn a_commit_that_was_acknowledged_must_be_among_those_that_are_heard_of() {
        let spec = json!({ "postgresql": { "synchronous": { "number": 1, "failoverQuorum": true } } });
        let (one, two) = (member("db-2", 5), member("db-3", 7));
        assert!(wanted(&spec).may_promote(&[one.clone(), two.clone()]));
        assert!(!wanted(&spec).may_promote(std::slice::from_ref(&one)), "the other one may have more");
        assert!(!wanted(&spec).may_promote(&[one, Standing { receives: true, ..two }]), "the primary is there");
    }

    #[test]
    fn without_a_quorum_whoever_is_there_takes_over() {
        let spec = json!({});
        assert!(wanted(&spec).may_promote(&[member("db-2", 5)]));
        assert!(!wanted(&spec).may_promote(&[]));
    }

    #[test]
    fn a_primary_that_has_not_started_yet_is_not_lost() {
        let memory = Memory::default();
        assert_eq!(memory.lost_for("1", false), None);
        assert_eq!(memory.lost_for("1", true), None);
        assert!(memory.lost_for("1", false).is_some());
        memory.forget("1");
        assert_eq!(memory.lost_for("1", false), None);
    }

    #[test]
    fn nobody_starts_as_the_primary_while_that_changes() {
        let roles = |status: &Value| Roles::of(status, "db-1".to_owned());
        assert!(roles(&json!({})).is_primary("db-1"));
        let changing = roles(&json!({ "currentPrimary": "db-1", "targetPrimary": "pending" }));
        assert!(!changing.settled() && !changing.is_primary("db-1"));
    }
}
