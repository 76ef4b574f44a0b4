//! The definition of the kind `Release`.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{ClusterError, During as _, MANAGER, if_there};

const NAME: &str = "releases.landfall.dev";

/// How long a new kind may take until it is served.
const PATIENCE: Duration = Duration::from_secs(30);

/// Defines the kind where it is not known yet.
pub(crate) async fn ensure(client: &Client) -> Result<(), ClusterError> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    if if_there(definitions.get(NAME).await).during(|| format!("read the definition `{NAME}`"))?.is_none() {
        let apply = PatchParams::apply(MANAGER).force();
        definitions.patch(NAME, &apply, &Patch::Apply(definition())).await.during(|| format!("define `{NAME}`"))?;
    }
    let established = await_condition(definitions, NAME, conditions::is_crd_established());
    // Who is not served in time says so at the first request.
    let _waited = tokio::time::timeout(PATIENCE, established).await;
    Ok(())
}

fn definition() -> Value {
    let column = |name: &str, type_: &str, path: &str| json!({ "name": name, "type": type_, "jsonPath": path });
    let text = json!({ "type": "string" });
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": NAME },
        "spec": {
            "group": "landfall.dev",
            "scope": "Namespaced",
            "names": { "kind": "Release", "listKind": "ReleaseList", "singular": "release", "plural": "releases" },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": [
                    column("State", "string", ".status.state"),
                    column("Message", "string", ".status.message"),
                    column("Age", "date", ".metadata.creationTimestamp"),
                ],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "spec": {
                            "type": "object",
                            "description": "What is shipped.",
                            "required": ["architecture", "number", "digest", "automatic", "services"],
                            "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "what is shipped does not change" }],
                            "properties": {
                                "architecture": text, "digest": text, "takesBack": text,
                                "number": { "type": "integer", "minimum": 1 },
                                "automatic": { "type": "boolean" },
                                "services": { "type": "array", "items": anything },
                            },
                        },
                        "status": anything,
                    },
                } },
            }],
        },
    })
}
