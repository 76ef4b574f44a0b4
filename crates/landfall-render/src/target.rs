//! The targets: one value for each tool that reads what is rendered, and one function that renders for it.

use landfall_model::{Architecture, Finding, Sources};

use crate::dockerfile::dockerfile;
use crate::docs::docs;
use crate::kubernetes::{Rendered, kubernetes};
use crate::monitoring::monitoring;
use crate::object::FileTree;
use crate::pipeline::{github, gitlab};
use crate::terraform::terraform;
use crate::{argocd, helm, kustomize};

/// Who reads what is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Whoever takes plain objects, one file each.
    Kubernetes,
    /// Helm: one chart, and a file of values for each environment.
    Helm,
    /// Kustomize: a base, components and an overlay for each environment.
    Kustomize,
    /// Argo CD: a repository with applications, projects and the overlays they apply.
    Argocd,
    /// GitHub Actions: the pipeline as workflows.
    Github,
    /// GitLab CI: the pipeline as `.gitlab-ci.yml`.
    Gitlab,
    /// Terraform and `OpenTofu`: a root for each environment and region, and the modules that they call.
    Terraform,
    /// Builders of images: a Dockerfile for each service that is built here.
    Dockerfile,
    /// Prometheus, Alertmanager, Grafana, a log shipper and the OpenTelemetry collector, without an operator.
    Monitoring,
    /// People: the architecture document.
    Docs,
}

impl Target {
    /// Every target.
    pub const ALL: &'static [Self] = &[
        Self::Kubernetes,
        Self::Helm,
        Self::Kustomize,
        Self::Argocd,
        Self::Github,
        Self::Gitlab,
        Self::Terraform,
        Self::Dockerfile,
        Self::Monitoring,
        Self::Docs,
    ];

    /// How it is written in `delivery.render` and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Helm => "helm",
            Self::Kustomize => "kustomize",
            Self::Argocd => "argocd",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Terraform => "terraform",
            Self::Dockerfile => "dockerfile",
            Self::Monitoring => "monitoring",
            Self::Docs => "docs",
        }
    }
}

/// A file in one of its environments, with its objects.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The environment's name; `default` for a file that declares none.
    pub name: String,
    /// What the environment consists of.
    pub architecture: Architecture,
    /// Its objects.
    pub rendered: Rendered,
}

/// What a target reads, and what it cannot be told.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// The files, relative to the target's folder.
    pub files: FileTree,
    /// What of the file the target cannot say. The findings about objects are in [`Rendered::findings`].
    pub findings: Vec<Finding>,
}

impl Variant {
    /// Renders the objects of an environment.
    pub fn new(architecture: Architecture) -> Self {
        let name = architecture.environment.as_ref().map_or("default", |name| name.as_str()).to_owned();
        let rendered = kubernetes(&architecture);
        Self { name, architecture, rendered }
    }
}

/// Renders the environments of one file, in the order in which the file declares them, for a target.
///
/// The document of [`Target::Docs`] is a new one, and states no claims; [`docs()`] is handed both.
///
/// # Panics
///
/// If there is no environment at all.
pub fn render(target: Target, variants: &[Variant], sources: &Sources) -> Output {
    assert!(!variants.is_empty(), "a file has at least the environment that it stands for");
    match target {
        Target::Kubernetes => plain(variants, sources),
        Target::Helm => Output { files: helm::chart(variants, sources), findings: Vec::new() },
        Target::Kustomize => Output { files: kustomize::tree(variants, sources), findings: Vec::new() },
        Target::Argocd => argocd::repository(variants, sources),
        Target::Github => github::workflows(variants),
        Target::Gitlab => gitlab::pipeline(variants),
        Target::Terraform => plainly(terraform(architectures(variants))),
        Target::Dockerfile => plainly(dockerfile(architectures(variants))),
        Target::Monitoring => monitoring(architectures(variants)),
        Target::Docs => docs(architectures(variants), &[], None),
    }
}

fn architectures(variants: &[Variant]) -> impl Iterator<Item = &Architecture> {
    variants.iter().map(|variant| &variant.architecture)
}

fn plainly((files, findings): (FileTree, Vec<Finding>)) -> Output {
    Output { files, findings }
}

/// The objects as they are; several environments get a folder each.
fn plain(variants: &[Variant], sources: &Sources) -> Output {
    let mut files = FileTree::new();
    for variant in variants {
        let place = |path: String| if variants.len() > 1 { format!("{}/{path}", variant.name) } else { path };
        files.extend(variant.rendered.files(sources).into_iter().map(|(path, text)| (place(path), text)));
    }
    Output { files, findings: Vec::new() }
}
