//! Which objects belong to a controller: those that it owns and selects. Orphans that it selects are adopted; owned
//! ones that it no longer selects are let go.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::api::Patch;
use kube::core::{Selector, SelectorExt as _};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::ReconcileError;
use super::pod_control::api;
use super::status::patch_params;
use crate::cache::{Cache, Kind};
use crate::context::Context;

/// The reference with which a controller owns what it makes.
pub(super) fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Reads a selector. One that cannot be read selects nothing, and neither does an empty one: the API refuses both.
pub(super) fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    let selector = Selector::try_from(selector?.clone()).ok()?;
    (!selector.selects_all()).then_some(selector)
}

pub(super) fn selects<K: Resource>(selector: &Selector, object: &K) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(object.meta().labels.as_ref().unwrap_or(&NONE))
}

/// What is to be done so that ownership and selection agree.
#[derive(Debug)]
struct Claims<K> {
    adopt: Vec<Arc<K>>,
    release: Vec<Arc<K>>,
}

fn plan<K: Kind>(
    deleting: bool,
    selector: &Selector,
    owned: Vec<Arc<K>>,
    orphans: Vec<Arc<K>>,
    counts: &(dyn Fn(&K) -> bool + Sync),
) -> Claims<K> {
    if deleting {
        return Claims { adopt: Vec::new(), release: Vec::new() };
    }
    let adoptable =
        |object: &Arc<K>| object.meta().deletion_timestamp.is_none() && selects(selector, &**object) && counts(object);
    Claims {
        adopt: orphans.into_iter().filter(adoptable).collect(),
        release: owned.into_iter().filter(|object| !selects(selector, &**object) && counts(object)).collect(),
    }
}

/// Adopts and releases, and gives what the owner then has, by name. Only objects that `counts` holds for change owners.
pub(super) async fn claim<O, K>(
    context: &Context,
    owner: &O,
    selector: &Selector,
    cache: &Cache<K>,
    counts: &(dyn Fn(&K) -> bool + Sync),
) -> Result<Vec<Arc<K>>, ReconcileError>
where
    O: Kind + Resource<Scope = kube::core::NamespaceResourceScope>,
    K: Kind + Resource<Scope = kube::core::NamespaceResourceScope>,
{
    let reference = owner_reference(owner);
    let namespace = owner.namespace().unwrap_or_default();
    let deleting = owner.meta().deletion_timestamp.is_some();
    let claims = plan(deleting, selector, cache.owned_by(&reference.uid), cache.orphans_in(&namespace), counts);
    if !claims.adopt.is_empty() {
        may_adopt(context, owner).await?;
    }
    let objects = api::<K, _>(context, owner);
    let adopted = join_all(claims.adopt.iter().map(|object| {
        let patch = json!({ "metadata": { "ownerReferences": [reference], "uid": object.uid() } });
        change_owner(&objects, cache, &**object, patch)
    }));
    let released = join_all(claims.release.iter().map(|object| {
        let gone = json!({ "$patch": "delete", "uid": reference.uid });
        let patch = json!({ "metadata": { "ownerReferences": [gone], "uid": object.uid() } });
        change_owner(&objects, cache, &**object, patch)
    }));
    let (adopted, released) = futures::future::join(adopted, released).await;
    adopted.into_iter().chain(released).collect::<Result<(), _>>()?;

    let mut claimed = cache.owned_by(&reference.uid);
    claimed.retain(|object| selects(selector, &**object));
    Ok(claimed)
}

/// Asks the API server itself: an owner that is being deleted must not adopt, or what was orphaned with intent would be
/// deleted with it.
async fn may_adopt<O>(context: &Context, owner: &O) -> Result<(), ReconcileError>
where
    O: Kind + Resource<Scope = kube::core::NamespaceResourceScope>,
{
    let fresh = api::<O, _>(context, owner).get(&owner.name_any()).await;
    let fresh = fresh.map_err(ReconcileError::request("read the adopting owner"))?;
    if fresh.uid() == owner.uid() && fresh.meta().deletion_timestamp.is_none() {
        Ok(())
    } else {
        Err(ReconcileError::Behind)
    }
}

/// The uid in the patch is a precondition. An object that is gone has no owner to change.
async fn change_owner<K: Kind>(
    objects: &Api<K>,
    cache: &Cache<K>,
    object: &K,
    patch: Value,
) -> Result<(), ReconcileError> {
    match objects.patch(&object.name_any(), &patch_params(), &Patch::Strategic(patch)).await {
        Ok(patched) if cache.reached(&patched).await => Ok(()),
        Ok(_) => Err(ReconcileError::Behind),
        // Upstream takes an unprocessable patch for an object that has another uid or no such owner any more.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 422 => Ok(()),
        Err(source) => Err(ReconcileError::Request { operation: "change the owner of an object", source }),
    }
}
