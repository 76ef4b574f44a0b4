//! Stores that a cloud provider runs: nothing of them is in the cluster but their name.
//!
//! The Service `<store>` leads to `<store>.<platform>.internal`, a record of the platform's private DNS zone. The zone,
//! the record and the store itself are made by the Terraform target. Credentials come from a
//! Secret like those of any store that makes none itself.
//!
//! Not handled: the provider's certificates name its own endpoint, so clients that compare names have to be given that
//! one; object stores are reached by the provider's endpoint already.

use crate::json::json;

use super::{Site, access};
use crate::object::Object;

pub(super) fn objects(site: &Site<'_>) -> Vec<Object> {
    if access::provider_endpoint(site.architecture, site.store).is_some() {
        return Vec::new();
    }
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            "type": "ExternalName",
            "externalName": format!("{}.{}", site.name(), private_zone(site.platform())),
        },
    });
    vec![site.object("service", service)]
}

/// The zone of the platform's own names, which its network alone sees.
pub(crate) fn private_zone(platform: &str) -> String {
    format!("{platform}.internal")
}
