//! Keeps the windows: looks at the clock and at the autoscalers that have windows, and sets the bounds that are not as they should be.

use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tracing::{debug, warn};

use super::Limits;
use crate::cluster::autoscaler::{Autoscaler, Trouble};
use crate::cluster::{ClusterError, clock};

/// How often it is looked where time goes as everywhere.
const PERIOD: Duration = Duration::from_secs(10);

/// How often it is looked where the clock is set.
const OFTEN: Duration = Duration::from_millis(500);

/// An autoscaler whose bounds were set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// When, on the clock that windows go by.
    pub at: Timestamp,
    /// Where.
    pub namespace: String,
    /// Which one.
    pub name: String,
    /// The bounds before.
    pub before: Limits,
    /// The bounds now.
    pub now: Limits,
}

/// Keeps the windows of all autoscalers in a namespace, or in all, for ever; `tell` hears of each that was set, and of what went
/// wrong. What the cluster does not take is tried again.
pub async fn keep(client: &Client, namespace: Option<&str>, mut tell: impl FnMut(Result<Kept, ClusterError>)) {
    let mut said = false;
    loop {
        let pause = match look(client, namespace).await {
            Ok((all, speed)) => {
                said = false;
                for kept in all {
                    tell(Ok(kept));
                }
                #[expect(clippy::float_cmp, reason = "it is one exactly unless somebody has set it")]
                if speed == 1.0 { PERIOD } else { OFTEN }
            }
            Err(error) => {
                // Once, and not at every look.
                if !said {
                    tell(Err(error));
                }
                said = true;
                OFTEN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Sets the bounds that are not as they should be at this moment.
pub async fn keep_once(client: &Client, namespace: Option<&str>) -> Result<Vec<Kept>, ClusterError> {
    look(client, namespace).await.map(|(kept, _)| kept)
}

async fn look(client: &Client, namespace: Option<&str>) -> Result<(Vec<Kept>, f64), ClusterError> {
    let clock = clock::read(client).await?;
    let all = Autoscaler::list(client, namespace).await?;
    let mut set = Vec::new();
    for own in all.iter().filter(|own| own.has_windows()) {
        let (name, namespace) = (own.name(), own.namespace());
        match own.settle(client, clock).await {
            Ok(Some((before, now))) => {
                debug!(name, namespace, ?before, ?now, "bounds were set");
                set.push(Kept { at: clock.now, namespace, name, before, now });
            }
            Ok(None) => {}
            // It is looked at again soon.
            Err(Trouble::Cluster(error)) if error.is_conflict() => {}
            Err(Trouble::Cluster(error)) => return Err(error),
            Err(Trouble::Annotation(why)) => warn!(name, namespace, why, "the annotation says nothing"),
        }
    }
    Ok((set, clock.speed))
}
