//! A root module: calls of modules, the variables and outputs that they need, and the files of it all.

use std::collections::{BTreeMap, BTreeSet};

use super::cloud::Cloud;
use super::hcl::{self, Block, Value, raw};
use super::modules;
use super::needs::Site;
use crate::object::FileTree;

/// A root module while it is written.
#[derive(Default)]
pub(super) struct Root {
    calls: Vec<Block>,
    variables: BTreeMap<&'static str, Block>,
    outputs: BTreeMap<String, Block>,
    /// The stores that get a name in the network, each with where it leads.
    pub(super) named: Vec<(String, Value)>,
    /// The modules that it calls, by their file names.
    pub(super) used: BTreeSet<&'static str>,
}

/// The identifier of a call: `store_composerp-db` is `store_composerp_db`.
pub(super) fn identifier(kind: &str, name: &str) -> String {
    format!("{kind}_{}", name.replace(['-', '.'], "_"))
}

impl Root {
    /// Adds a call of a module.
    pub(super) fn call(&mut self, site: &Site<'_>, module: &'static str, name: &str, arguments: Vec<(&str, Value)>) {
        self.used.insert(module);
        // `<cloud>/<environment>/<region>` stands three folders below the modules' parent.
        let source = format!("../../../modules/{}/{}", site.cloud.folder(), module.replace('_', "-"));
        let call = Block::new("module", &[name]).with("source", source);
        self.calls.push(arguments.into_iter().fold(call, |call, (name, value)| call.with(name, value)));
    }

    /// Adds a variable that somebody sets, and gives the expression for it.
    pub(super) fn variable(
        &mut self,
        name: &'static str,
        kind: &str,
        description: &str,
        default: Option<Value>,
    ) -> Value {
        let block = Block::new("variable", &[name]).with("type", raw(kind)).with("description", description);
        let block = match default {
            Some(default) => block.with("default", default),
            None if name.ends_with("_password") => block.with("sensitive", true),
            None => block,
        };
        self.variables.insert(name, block);
        raw(format!("var.{name}"))
    }

    /// Adds an output.
    pub(super) fn output(&mut self, name: &str, description: impl Into<String>, value: impl Into<String>) {
        let block = Block::new("output", &[name]).with("description", description.into()).with("value", raw(value));
        self.outputs.insert(name.to_owned(), block);
    }

    /// The files of the root, below its folder.
    pub(super) fn files(mut self, site: &Site<'_>, origin: &str) -> FileTree {
        let settings = settings(&mut self, site);
        let mut files = FileTree::new();
        let mut add = |name: &str, blocks: Vec<Block>| {
            if !blocks.is_empty() {
                files.insert(name.to_owned(), format!("# From {origin}\n\n{}", hcl::file(&blocks)));
            }
        };
        add("main.tf", self.calls);
        add("providers.tf", settings);
        add("variables.tf", self.variables.into_values().collect());
        add("outputs.tf", self.outputs.into_values().collect());
        files
    }
}

/// The labels of everything: the platform, the environment, and who made it.
pub(super) fn tags(site: &Site<'_>) -> Value {
    let document = &site.architecture.document;
    let environment = site.architecture.environment.as_ref().map_or("default", |name| name.as_str());
    Value::object([
        ("platform", document.name.value.as_str().into()),
        ("environment", environment.into()),
        ("managed-by", "landfall".into()),
    ])
}

/// The providers, and where the state is.
fn settings(root: &mut Root, site: &Site<'_>) -> Vec<Block> {
    let environment = site.architecture.environment.as_ref().map_or("default", |name| name.as_str());
    let platform = &site.architecture.document.name.value;
    let key = format!("{environment}/{}", site.key.value);
    let state = format!("{platform}-terraform-state");
    let (backend, providers) = match site.cloud {
        Cloud::Aws => {
            let backend = Block::new("backend", &["s3"])
                .with("bucket", state)
                .with("key", format!("{key}.tfstate"))
                .with("region", site.location.as_str())
                .with("encrypt", true)
                .with("use_lockfile", true);
            let tags = Block::new("default_tags", &[]).with("tags", tags(site));
            let provider = Block::new("provider", &["aws"]).with("region", site.location.as_str()).block(tags);
            (backend, vec![provider])
        }
        Cloud::Gcp => {
            let project = root.variable("project", "string", "The project.", None);
            let backend = Block::new("backend", &["gcs"]).with("bucket", state).with("prefix", key);
            let of = |name: &str| {
                Block::new("provider", &[name])
                    .with("project", project.clone())
                    .with("region", site.location.as_str())
                    .with("default_labels", tags(site))
            };
            (backend, vec![of("google"), of("google-beta")])
        }
        Cloud::Azure => {
            let subscription = root.variable("subscription_id", "string", "The subscription.", None);
            let account: String = state.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
            let backend = Block::new("backend", &["azurerm"])
                .with("resource_group_name", state)
                .with("storage_account_name", account)
                .with("container_name", "state")
                .with("key", format!("{key}.tfstate"))
                .with("use_azuread_auth", true);
            let provider = Block::new("provider", &["azurerm"])
                .with("subscription_id", subscription)
                .with("storage_use_azuread", true)
                .block(Block::new("features", &[]));
            (backend, vec![provider])
        }
        Cloud::None => {
            let context = root.variable(
                "kube_context",
                "string",
                "The context of the kubeconfig that leads to the cluster.",
                None,
            );
            let backend = Block::new("backend", &["kubernetes"])
                .with("secret_suffix", format!("{environment}-{}", site.key.value))
                .with("namespace", site.architecture.namespace().as_str());
            let path =
                root.variable("kube_config", "string", "The path of the kubeconfig.", Some("~/.kube/config".into()));
            let provider =
                Block::new("provider", &["kubernetes"]).with("config_path", path).with("config_context", context);
            (backend, vec![provider])
        }
    };
    let versions =
        modules::providers(site.cloud).iter().fold(Block::new("required_providers", &[]), |block, (name, version)| {
            block.with(
                name,
                Value::object([("source", format!("hashicorp/{name}").into()), ("version", (*version).into())]),
            )
        });
    let backend = backend.comment("Made once, before the first run; a run holds a lock on the state.");
    let terraform =
        Block::new("terraform", &[]).with("required_version", modules::REQUIRED_VERSION).block(backend).block(versions);
    std::iter::once(terraform).chain(providers).collect()
}
