//! The External Secrets Operator's `ExternalSecret`: a Secret with values that are made up here, once.
//!
//! No back end is asked. A value is a random password; what is called a user name gets the name of the secret, and `url` the
//! value of another Secret if an annotation says which.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::json;

use super::{Context, OperatorError, Progress, password};

/// The annotation that says which Secret and key have the value of `url`: `ledger-app/uri`.
pub const URL_OF: &str = "landfall.dev/url-of";

pub(super) async fn reconcile(context: Arc<Context>, secret: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let spec = &secret.data["spec"];
    let own = secret.name_any();
    let name = spec["target"]["name"].as_str().unwrap_or(&own);
    let keys = spec["data"].as_array().into_iter().flatten().filter_map(|item| item["secretKey"].as_str());
    let mut values: BTreeMap<&str, String> =
        keys.map(|key| (key, if key.ends_with("username") { name.to_owned() } else { password() })).collect();
    if let (Some((other, key)), Some(url)) =
        (secret.annotations().get(URL_OF).and_then(|of| of.split_once('/')), values.get_mut("url"))
    {
        let namespace = secret.namespace().unwrap_or_default();
        let Some(value) = context.secret_value(&namespace, other, key).await? else { return Ok(Progress::Again) };
        *url = value;
    }
    let made = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name },
        "type": "Opaque",
        "stringData": values,
    });
    context.ensure(&secret, made).await?;
    let ready =
        json!({ "type": "Ready", "status": "True", "reason": "SecretSynced", "message": "made up on this machine" });
    context.set_status(&secret, json!({ "conditions": [ready] })).await?;
    Ok(Progress::Done)
}
