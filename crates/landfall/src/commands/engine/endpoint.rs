//! The way to a running engine: its kubeconfig, and what it serves beside Kubernetes' API.

use std::path::PathBuf;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::de::DeserializeOwned;

use crate::cli::RunningEngine;

/// The data folder of an engine that is started without `--data`.
const DEFAULT_DATA: &str = "landfall-engine";

/// Where the engine takes faults, times and images.
const ROOT: &str = "/landfall.dev/v1";

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// It says that the request makes no sense: there is no such node, or the value is out of range.
    #[error("{0}")]
    Refused(String),
    /// It does not do that now, or not for this user.
    #[error("{0}")]
    Denied(String),
    /// There is no kubeconfig.
    #[error("failed to read `{}`: {why}\nhint: `--data` or `--kubeconfig` names the engine", path.display())]
    Kubeconfig {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers, or somebody else.
    #[error("{what} at {address}{}", why.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    World {
        /// What is the matter.
        what: &'static str,
        /// The address in the kubeconfig.
        address: String,
        /// What the system said.
        why: Option<String>,
    },
}

/// A running engine.
pub(crate) struct Endpoint {
    client: Client,
    address: String,
}

impl Endpoint {
    /// The engine that the user means.
    pub(crate) async fn find(engine: &RunningEngine) -> Result<Self, RequestError> {
        let (path, kubeconfig) = match (&engine.kubeconfig, &engine.data, std::env::var_os("KUBECONFIG")) {
            (Some(file), ..) => (file.clone(), Kubeconfig::read_from(file)),
            (None, Some(folder), _) => {
                let file = folder.join("kubeconfig");
                let read = Kubeconfig::read_from(&file);
                (file, read)
            }
            // A list of files counts as one, as for kubectl.
            (None, None, Some(files)) if !files.is_empty() => {
                let read = Kubeconfig::from_env().map(Option::unwrap_or_default);
                (PathBuf::from(files), read)
            }
            (None, None, _) => {
                let file = PathBuf::from(DEFAULT_DATA).join("kubeconfig");
                let read = Kubeconfig::read_from(&file);
                (file, read)
            }
        };
        let unusable = |error: &dyn std::error::Error| RequestError::Kubeconfig {
            path: path.clone(),
            why: error.source().map_or_else(|| error.to_string(), ToString::to_string),
        };
        let kubeconfig = kubeconfig.map_err(|error| unusable(&error))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let config = config.map_err(|error| unusable(&error))?;
        let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Self { client, address })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.ask("GET", path, Vec::new()).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, RequestError> {
        self.ask("PUT", path, body).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: Vec<u8>) -> Result<T, RequestError> {
        let request = Request::builder().method(method).uri(format!("{ROOT}/{path}"));
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|_| RequestError::Refused(format!("`{path}` is no name")))?;
        let world = |what, why| RequestError::World { what, address: self.address.clone(), why };
        match self.client.request(request).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => Err(match (status.code, status.reason.as_str()) {
                (400, _) | (404, "NotFound") => RequestError::Refused(status.message),
                (404, _) => world("the server is no engine of Landfall", None),
                _ => RequestError::Denied(status.message),
            }),
            Err(error) => Err(world("no engine answers", Some(anyhow::Error::from(error).root_cause().to_string()))),
        }
    }
}
