//! Freezes: somebody says that nothing is to be shipped to an environment, and why. Releases wait until it is thawed; what goes
//! back goes back all the same.

use jiff::Timestamp;
use kube::api::DeleteParams;
use kube::{Api, Client, CustomResource};
use serde::{Deserialize, Serialize};

use crate::audit::{Action, Author, Fact};
use crate::cluster::records::{self, Record};
use crate::cluster::{ClusterError, During as _, if_there, is_status};

/// That nothing is to be shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource)]
#[kube(group = "landfall.dev", version = "v1alpha1", kind = "Freeze", namespaced, schema = "disabled")]
#[serde(rename_all = "camelCase")]
pub struct FreezeSpec {
    /// The architecture.
    pub architecture: String,
    /// Why.
    pub because: String,
    /// Who says so.
    pub by: String,
    /// Since when.
    pub at: String,
}

impl Record for Freeze {
    fn architecture(&self) -> &str {
        &self.spec.architecture
    }
}

/// The freeze of an architecture, if there is one.
pub async fn read(client: &Client, namespace: &str, architecture: &str) -> Result<Option<FreezeSpec>, ClusterError> {
    let found = Api::<Freeze>::namespaced(client.clone(), namespace).get(architecture).await;
    let found = if_there(found).during(|| format!("read the freeze in `{namespace}`"))?;
    Ok(found.map(|freeze| freeze.spec))
}

/// Freezes; the freeze that is there already is the answer when there is one.
pub async fn freeze(
    client: &Client,
    namespace: &str,
    architecture: &str,
    because: &str,
    author: &Author,
) -> Result<Option<FreezeSpec>, ClusterError> {
    if let Some(there) = read(client, namespace, architecture).await? {
        return Ok(Some(there));
    }
    author.write(fact(Action::Freeze, namespace, because)).await?;
    let spec = FreezeSpec {
        architecture: architecture.to_owned(),
        because: because.to_owned(),
        by: author.who().to_owned(),
        at: Timestamp::now().to_string(),
    };
    match records::create(client, namespace, Freeze::new(architecture, spec)).await {
        Err(error) if is_status(&error, 409) => read(client, namespace, architecture).await,
        created => created.during(|| format!("freeze `{namespace}`")).map(|_| None),
    }
}

/// Thaws; what was thawed is the answer, if there was something.
pub async fn thaw(
    client: &Client,
    namespace: &str,
    architecture: &str,
    because: &str,
    author: &Author,
) -> Result<Option<FreezeSpec>, ClusterError> {
    let Some(there) = read(client, namespace, architecture).await? else { return Ok(None) };
    author.write(fact(Action::Thaw, namespace, because)).await?;
    let deleted =
        Api::<Freeze>::namespaced(client.clone(), namespace).delete(architecture, &DeleteParams::default()).await;
    if_there(deleted).during(|| format!("thaw `{namespace}`"))?;
    Ok(Some(there))
}

fn fact(action: Action, namespace: &str, because: &str) -> Fact {
    Fact { action, subject: namespace.to_owned(), digest: None, says: because.to_owned(), evidence: Vec::new() }
}
