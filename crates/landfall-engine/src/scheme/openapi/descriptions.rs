//! What kinds and fields mean, in Kubernetes' own words: `k8s-openapi` has them in the schemas of its types.
//!
//! They are made for one document and moved into it. So the types that validation reads are free of them, and between
//! two requests only the program's file holds them. Custom resources bring their own.
//!
//! Not handled: lists, of which `apiVersion` and `kind` alone are described, and `metrics.k8s.io`. The crate is silent
//! about them.

use std::borrow::Cow;

use k8s_openapi::api;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

use super::Resource;

/// What can be said in one document.
pub(super) struct Descriptions {
    /// The crate's schemas by the names of their types, without those whose words are taken.
    schemas: Map<String, Value>,
    /// The schemas of the fields that every object has, and of some others.
    of_every_object: Value,
}

impl Descriptions {
    /// For a document about these kinds.
    pub(super) fn of(resources: &[&Resource]) -> Self {
        let mut generator = SchemaGenerator::default();
        // It is small, and says of the fields of every object what each kind does. Custom resources need it for those.
        add::<ConfigMap>(&mut generator);
        for resource in resources.iter().filter(|resource| !resource.custom) {
            let name = &resource.root().name;
            if let Some(kind) = KINDS.iter().find(|kind| (kind.name)() == name.as_str()) {
                (kind.add)(&mut generator);
            }
        }
        let schemas = generator.take_definitions(false);
        let of_every_object = schemas.get(&*ConfigMap::schema_name()).map(|schema| schema["properties"].clone());
        Self { schemas, of_every_object: of_every_object.unwrap_or_default() }
    }

    /// For a document without descriptions of built-in kinds.
    pub(super) fn none() -> Self {
        Self { schemas: Map::new(), of_every_object: Value::Null }
    }

    /// Puts what is said of the type `name` and of its fields into its schema. The words are moved: once for each type.
    pub(super) fn describe(&mut self, name: &str, schema: &mut Value) {
        let Some(mut said) = self.schemas.remove(name) else { return };
        move_description(&mut said, schema);
        let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
        for (field, schema) in fields.into_iter().flatten() {
            if let Some(said) = said.get_mut("properties").and_then(|said| said.get_mut(field)) {
                move_description(said, schema);
            }
        }
    }

    /// The schema of a field that every object has, `apiVersion`, `kind` or `metadata`, with what is said of it.
    pub(super) fn of_every_object(&self, field: &str, mut schema: Value) -> Value {
        if let Some(said) = self.of_every_object.get(field) {
            move_description(&mut said.clone(), &mut schema);
        }
        schema
    }
}

fn move_description(from: &mut Value, to: &mut Value) {
    if let (Some(text), Some(to)) = (from.get_mut("description"), to.as_object_mut()) {
        to.insert("description".to_owned(), text.take());
    }
}

/// A kind that the crate describes.
struct Kind {
    /// What OpenAPI calls it: `io.k8s.api.apps.v1.Deployment`.
    name: fn() -> Cow<'static, str>,
    /// Makes its schema and those of the types below it.
    add: fn(&mut SchemaGenerator),
}

const fn kind<T: JsonSchema>() -> Kind {
    Kind { name: T::schema_name, add: add::<T> }
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// Every kind of the table, in the order of these names.
const KINDS: &[Kind] = &[
    kind::<api::admissionregistration::v1::MutatingAdmissionPolicy>(),
    kind::<api::admissionregistration::v1::MutatingAdmissionPolicyBinding>(),
    kind::<api::admissionregistration::v1::MutatingWebhookConfiguration>(),
    kind::<api::admissionregistration::v1::ValidatingAdmissionPolicy>(),
    kind::<api::admissionregistration::v1::ValidatingAdmissionPolicyBinding>(),
    kind::<api::admissionregistration::v1::ValidatingWebhookConfiguration>(),
    kind::<api::apps::v1::ControllerRevision>(),
    kind::<api::apps::v1::DaemonSet>(),
    kind::<api::apps::v1::Deployment>(),
    kind::<api::apps::v1::ReplicaSet>(),
    kind::<api::apps::v1::StatefulSet>(),
    kind::<api::authentication::v1::SelfSubjectReview>(),
    kind::<api::authentication::v1::TokenReview>(),
    kind::<api::authorization::v1::LocalSubjectAccessReview>(),
    kind::<api::authorization::v1::SelfSubjectAccessReview>(),
    kind::<api::authorization::v1::SelfSubjectRulesReview>(),
    kind::<api::authorization::v1::SubjectAccessReview>(),
    kind::<api::autoscaling::v1::HorizontalPodAutoscaler>(),
    kind::<api::autoscaling::v2::HorizontalPodAutoscaler>(),
    kind::<api::batch::v1::CronJob>(),
    kind::<api::batch::v1::Job>(),
    kind::<api::certificates::v1::CertificateSigningRequest>(),
    kind::<api::coordination::v1::Lease>(),
    kind::<api::core::v1::Binding>(),
    kind::<api::core::v1::ConfigMap>(),
    kind::<api::core::v1::Endpoints>(),
    kind::<api::core::v1::Event>(),
    kind::<api::core::v1::LimitRange>(),
    kind::<api::core::v1::Namespace>(),
    kind::<api::core::v1::Node>(),
    kind::<api::core::v1::PersistentVolume>(),
    kind::<api::core::v1::PersistentVolumeClaim>(),
    kind::<api::core::v1::Pod>(),
    kind::<api::core::v1::PodTemplate>(),
    kind::<api::core::v1::ReplicationController>(),
    kind::<api::core::v1::ResourceQuota>(),
    kind::<api::core::v1::Secret>(),
    kind::<api::core::v1::Service>(),
    kind::<api::core::v1::ServiceAccount>(),
    kind::<api::discovery::v1::EndpointSlice>(),
    kind::<api::events::v1::Event>(),
    kind::<api::networking::v1::IPAddress>(),
    kind::<api::networking::v1::Ingress>(),
    kind::<api::networking::v1::IngressClass>(),
    kind::<api::networking::v1::NetworkPolicy>(),
    kind::<api::networking::v1::ServiceCIDR>(),
    kind::<api::node::v1::RuntimeClass>(),
    kind::<api::policy::v1::PodDisruptionBudget>(),
    kind::<api::rbac::v1::ClusterRole>(),
    kind::<api::rbac::v1::ClusterRoleBinding>(),
    kind::<api::rbac::v1::Role>(),
    kind::<api::rbac::v1::RoleBinding>(),
    kind::<api::resource::v1::DeviceClass>(),
    kind::<api::resource::v1::ResourceClaim>(),
    kind::<api::resource::v1::ResourceClaimTemplate>(),
    kind::<api::resource::v1::ResourceSlice>(),
    kind::<api::scheduling::v1::PriorityClass>(),
    kind::<api::storage::v1::CSIDriver>(),
    kind::<api::storage::v1::CSINode>(),
    kind::<api::storage::v1::CSIStorageCapacity>(),
    kind::<api::storage::v1::StorageClass>(),
    kind::<api::storage::v1::VolumeAttachment>(),
    kind::<api::storage::v1::VolumeAttributesClass>(),
    kind::<CustomResourceDefinition>(),
];
