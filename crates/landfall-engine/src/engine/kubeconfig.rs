//! The kubeconfig with which `kubectl`, `helm` and `kube-rs` find the engine.
//! <https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/>

use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::authority::Credentials;

/// The name of the cluster, the user and the context.
const NAME: &str = "landfall";

/// A kubeconfig with everything inside, so that it can be copied anywhere. JSON is YAML, and every reader takes it.
pub(crate) fn kubeconfig(server: SocketAddr, authority: &str, user: &Credentials) -> String {
    let encode = |pem: &str| BASE64_STANDARD.encode(pem);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": NAME,
            "cluster": {"server": format!("https://{server}"), "certificate-authority-data": encode(authority)},
        }],
        "users": [{
            "name": NAME,
            "user": {"client-certificate-data": encode(&user.certificate), "client-key-data": encode(&user.key)},
        }],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "current-context": NAME,
    });
    format!("{config:#}\n")
}
