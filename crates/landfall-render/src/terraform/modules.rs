//! The modules: plain files, one for each concern of each cloud, which are rendered as they stand.
//!
//! A module is one file here and three where it is rendered, as people of the field expect: `main.tf`, `variables.tf`,
//! `outputs.tf`. Every argument of theirs is compared with the schemas of the providers in the tests.

use super::cloud::Cloud;
use super::hcl::{self, Block, Value};
use crate::object::FileTree;

/// The first version of Terraform that locks a state in a bucket without a table beside it; `OpenTofu` has it too.
pub(super) const REQUIRED_VERSION: &str = ">= 1.10.0";

macro_rules! modules {
    ($($cloud:ident / $name:literal),* $(,)?) => {
        &[$((Cloud::$cloud, $name, include_str!(concat!("modules/", modules!(@$cloud), "/", $name, ".tf")))),*]
    };
    (@Aws) => { "aws" };
    (@Gcp) => { "gcp" };
    (@Azure) => { "azure" };
    (@None) => { "none" };
}

const MODULES: &[(Cloud, &str, &str)] = modules![
    Aws / "bucket",
    Aws / "cluster",
    Aws / "copy_key",
    Aws / "edge",
    Aws / "elasticsearch",
    Aws / "identity",
    Aws / "kafka",
    Aws / "mongodb",
    Aws / "names",
    Aws / "network",
    Aws / "postgres",
    Aws / "rabbitmq",
    Aws / "redis",
    Aws / "registry",
    Aws / "secrets",
    Gcp / "bucket",
    Gcp / "cluster",
    Gcp / "edge",
    Gcp / "identity",
    Gcp / "kafka",
    Gcp / "names",
    Gcp / "network",
    Gcp / "postgres",
    Gcp / "redis",
    Gcp / "registry",
    Gcp / "secrets",
    Azure / "bucket",
    Azure / "cluster",
    Azure / "edge",
    Azure / "identity",
    Azure / "kafka",
    Azure / "names",
    Azure / "network",
    Azure / "postgres",
    Azure / "redis",
    Azure / "registry",
    Azure / "secrets",
    None / "cluster",
];

/// The providers of a cloud, each with the versions that the modules are written for.
pub(super) fn providers(cloud: Cloud) -> &'static [(&'static str, &'static str)] {
    match cloud {
        Cloud::Aws => &[("aws", "~> 6.25")],
        Cloud::Azure => &[("azurerm", "~> 4.55")],
        Cloud::Gcp => &[("google", ">= 6.50.0, < 8.0.0"), ("google-beta", ">= 6.50.0, < 8.0.0")],
        Cloud::None => &[("kubernetes", ">= 2.38.0, < 4.0.0")],
    }
}

/// Whether the cloud has a module of that name.
pub(super) fn exists(cloud: Cloud, name: &str) -> bool {
    MODULES.iter().any(|(of, known, _)| (*of, *known) == (cloud, name))
}

/// The files of a module.
///
/// # Panics
///
/// If there is no such module.
pub(super) fn files(cloud: Cloud, name: &str) -> FileTree {
    let (_, _, text) =
        MODULES.iter().find(|(of, known, _)| (*of, *known) == (cloud, name)).expect("roots call modules that exist");
    let folder = format!("modules/{}/{}", cloud.folder(), name.replace('_', "-"));
    let mut parts = [("main.tf", String::new()), ("variables.tf", String::new()), ("outputs.tf", String::new())];
    for block in blocks(text) {
        let first = block.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
        let part = match first {
            _ if first.starts_with("variable ") => 1,
            _ if first.starts_with("output ") => 2,
            _ => 0,
        };
        let text = &mut parts[part].1;
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&block);
    }
    let versions = providers(cloud).iter().fold(Block::new("required_providers", &[]), |block, (name, version)| {
        block
            .with(name, Value::object([("source", format!("hashicorp/{name}").into()), ("version", (*version).into())]))
    });
    let versions = Block::new("terraform", &[]).with("required_version", REQUIRED_VERSION).block(versions);
    let versions = ("versions.tf", hcl::file(&[versions]));
    let written = parts.into_iter().filter(|(_, text)| !text.is_empty()).chain([versions]);
    written.map(|(file, text)| (format!("{folder}/{file}"), text)).collect()
}

/// The blocks of a file, each with the lines of comment above it.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block = String::new();
    for line in text.lines() {
        if block.is_empty() && line.is_empty() {
            continue;
        }
        block.push_str(line);
        block.push('\n');
        if line == "}" || line.ends_with("{}") && !line.starts_with(' ') {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks
}
