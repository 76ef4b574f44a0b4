//! The history of a StatefulSet or a `DaemonSet`: one `ControllerRevision` for each pod template that it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch};
use kube::core::{NamespaceResourceScope, Selector};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::claim::{claim, owner_reference};
use super::pod_control::{api, post_params};
use super::status::patch_params;
use super::{ReconcileError, hash};
use crate::cache::{Kind, controller_of};
use crate::context::Context;

/// What a workload says to its history.
pub(super) struct Present<'a, O> {
    pub(super) owner: &'a O,
    pub(super) selector: &'a Selector,
    pub(super) template: &'a PodTemplateSpec,
    /// The label of a revision that carries its hash.
    pub(super) hash_label: &'static str,
    pub(super) collisions: Option<i32>,
}

/// The revisions of a workload, oldest first, and which of them is of the present template.
pub(super) struct History {
    pub(super) revisions: Vec<Arc<ControllerRevision>>,
    pub(super) update: Arc<ControllerRevision>,
}

/// What became of asking for the history.
pub(super) enum Synced {
    History(History),
    /// Another template has the hash of this one: try again with this many collisions.
    Collision(i32),
}

impl<O: Kind + Resource<Scope = NamespaceResourceScope>> Present<'_, O> {
    /// Makes sure that the present template has the newest revision.
    pub(super) async fn sync(&self, context: &Context) -> Result<Synced, ReconcileError> {
        let cache = &context.caches.controller_revisions;
        let mut revisions = claim(context, self.owner, self.selector, cache, &|_| true).await?;
        revisions.sort_by_key(|revision| (revision.revision, revision.creation_timestamp(), revision.name_any()));
        let newest = revisions.last().map_or(0, |revision| revision.revision);
        let wanted = hash::canonical(&data(self.template));
        let same = |revision: &&Arc<ControllerRevision>| {
            revision.data.as_ref().is_some_and(|data| hash::canonical(&data.0) == wanted)
        };
        let equal = revisions.iter().rfind(same).cloned();
        let api: Api<ControllerRevision> = api(context, self.owner);

        let update = match equal {
            Some(equal) if equal.revision == newest => equal,
            // An undo: the old revision becomes the newest.
            Some(equal) => {
                let patch = json!({ "revision": newest + 1 });
                let patched = api.patch(&equal.name_any(), &patch_params(), &Patch::Merge(patch)).await;
                Arc::new(patched.map_err(ReconcileError::request("renew a revision"))?)
            }
            None => {
                let revision = self.revision(&wanted, newest + 1);
                match api.create(&post_params(), &revision).await {
                    Ok(created) => Arc::new(created),
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                        let present = api.get(&revision.name_any()).await;
                        let present = present.map_err(ReconcileError::request("read a revision"))?;
                        let ours =
                            controller_of(&present).map(|owner| Some(&owner.uid) == self.owner.meta().uid.as_ref());
                        if ours != Some(true) || !same(&&Arc::new(present.clone())) {
                            return Ok(Synced::Collision(self.collisions.unwrap_or_default() + 1));
                        }
                        Arc::new(present)
                    }
                    Err(source) => return Err(ReconcileError::Request { operation: "create a revision", source }),
                }
            }
        };
        if !cache.reached(&*update).await {
            return Err(ReconcileError::Behind);
        }
        revisions.retain(|revision| revision.name_any() != update.name_any());
        revisions.push(Arc::clone(&update));
        Ok(Synced::History(History { revisions, update }))
    }

    fn revision(&self, canonical: &Value, number: i64) -> ControllerRevision {
        let hash = hash::of(canonical, self.collisions);
        let name = self.owner.name_any();
        let labels = self.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
        let mut labels: BTreeMap<_, _> = labels.unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                // As long as the longest that leaves room for the hash in 253 characters.
                name: Some(format!("{}-{hash}", &name[..name.len().min(223)])),
                namespace: self.owner.namespace(),
                labels: Some(labels),
                annotations: self.owner.meta().annotations.clone(),
                owner_references: Some(vec![owner_reference(self.owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data(self.template))),
            revision: number,
        }
    }
}

impl History {
    /// Deletes the oldest revisions past the limit that nothing uses any more.
    pub(super) async fn truncate<O>(
        &self,
        context: &Context,
        owner: &O,
        limit: Option<i32>,
        in_use: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), ReconcileError>
    where
        O: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or_default();
        let unused: Vec<_> =
            self.revisions.iter().filter(|one| one.name_any() != self.update.name_any() && !in_use(one)).collect();
        let surplus = unused.len().saturating_sub(limit);
        let api: Api<ControllerRevision> = api(context, owner);
        for revision in unused.into_iter().take(surplus) {
            match api.delete(&revision.name_any(), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(source) => return Err(ReconcileError::Request { operation: "delete an old revision", source }),
            }
        }
        Ok(())
    }
}

/// The form in which `kubectl rollout undo` reads it: a strategic merge patch that replaces the template.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("types of the API are JSON");
    template["$patch"] = Value::from("replace");
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps.
pub(super) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}
