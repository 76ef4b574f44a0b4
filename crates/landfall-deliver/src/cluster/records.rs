//! The objects of Landfall's own kinds: each belongs to an architecture, which its spec names.

use std::fmt::Debug;

use kube::api::{ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ClusterError, During as _, if_there};

/// The label of everything that belongs to an architecture.
const ARCHITECTURE: &str = "landfall.dev/architecture";

/// An object that belongs to an architecture.
pub(crate) trait Record:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned
{
    /// The architecture, as the spec names it.
    fn architecture(&self) -> &str;
}

/// The objects of an architecture; nothing where nobody has defined their kind. `what` says what they are.
///
/// By their field and not by their label: one whose label was taken away is one still.
pub(crate) async fn list<K: Record>(
    client: &Client,
    namespace: &str,
    architecture: &str,
    what: &str,
) -> Result<Vec<K>, ClusterError> {
    let listed = if_there(Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default()).await);
    let listed = listed.during(|| format!("list {what} in `{namespace}`"))?;
    let items = listed.map(|list| list.items).unwrap_or_default().into_iter();
    Ok(items.filter(|object| object.architecture() == architecture).collect())
}

/// Writes an object that is not there yet, with the label of its architecture.
pub(crate) async fn create<K: Record>(client: &Client, namespace: &str, mut object: K) -> Result<K, kube::Error> {
    let architecture = object.architecture().to_owned();
    object.labels_mut().insert(ARCHITECTURE.to_owned(), architecture);
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &object).await
}
