//! The External Secrets Operator's `ExternalSecret`: a Secret with values that are made up here, once.
//!
//! No back end is asked. A value is a password, the same for the same entry of the back end; what is called a user name gets
//! the name of the secret, and `url` the value of another Secret if an annotation says which.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Context, OperatorError, Progress, password};

/// The annotation that says which Secret and key have the value of `url`: `ledger-app/uri`.
pub const URL_OF: &str = "landfall.dev/url-of";

pub(super) async fn reconcile(context: Arc<Context>, secret: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let spec = &secret.data["spec"];
    let own = secret.name_any();
    let name = spec["target"]["name"].as_str().unwrap_or(&own);
    let items = spec["data"].as_array().into_iter().flatten();
    let mut values: BTreeMap<&str, String> = items
        .filter_map(|item| {
            let key = item["secretKey"].as_str()?;
            let value = if key.ends_with("username") { name.to_owned() } else { made_up(&context, &item["remoteRef"]) };
            Some((key, value))
        })
        .collect();
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

/// A password: the same wherever the same value of the back end is asked for, as namespaces share a store's credentials.
/// Nobody knows it who does not have the key of this platform's authority.
fn made_up(context: &Context, remote: &Value) -> String {
    let Some(key) = remote["key"].as_str() else { return password() };
    let property = remote["property"].as_str().unwrap_or_default();
    let digest = Sha256::new()
        .chain_update(&context.authority.own().key)
        .chain_update(format!("\n{key}\n{property}"))
        .finalize();
    digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
