//! An API server to talk to, as administrator and as somebody else.

use std::path::Path;

use http::{Request, Response};
use kube::client::{AuthError, Body, ClientBuilder};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::scenario::script::Identity;

/// An API server, reached with the credentials of a kubeconfig.
#[derive(Clone)]
pub struct Endpoint {
    administrator: Client,
    /// Sends no credentials of its own.
    stranger: Client,
}

/// Why an API server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The kubeconfig is missing or wrong.
    #[error("failed to read the kubeconfig")]
    Kubeconfig(#[from] KubeconfigError),
    /// Its credentials or certificates cannot be used.
    #[error("failed to make a client from the kubeconfig")]
    Client(#[from] kube::Error),
    /// The same, for credentials that a program provides.
    #[error("failed to authenticate")]
    Auth(#[from] AuthError),
}

impl Endpoint {
    /// The server of the current context of a kubeconfig.
    pub async fn from_kubeconfig(path: &Path) -> Result<Self, EndpointError> {
        let kubeconfig = Kubeconfig::read_from(path)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // An answer that says "try again" is an answer, and is compared like every other.
        config.default_retry = false;
        let administrator = ClientBuilder::try_from(config.clone())?.build();
        config.auth_info = AuthInfo::default();
        let stranger = ClientBuilder::try_from(config)?.build();
        Ok(Self { administrator, stranger })
    }

    /// The administrator's client, for what goes along with scenarios, such as a kubelet.
    pub fn client(&self) -> Client {
        self.administrator.clone()
    }

    pub(crate) async fn send(&self, identity: &Identity, mut request: Request<Body>) -> kube::Result<Response<Body>> {
        let mut header = |name, value: &str| match http::HeaderValue::from_str(value) {
            Ok(value) => {
                request.headers_mut().insert(http::HeaderName::from_static(name), value);
                Ok(())
            }
            Err(error) => Err(kube::Error::HttpError(error.into())),
        };
        let client = match identity {
            Identity::Administrator => &self.administrator,
            Identity::Impersonated(user) => {
                header("impersonate-user", user)?;
                &self.administrator
            }
            Identity::Bearer(token) => {
                header("authorization", &format!("Bearer {token}"))?;
                &self.stranger
            }
            Identity::Anonymous => &self.stranger,
        };
        client.send(request).await
    }
}
