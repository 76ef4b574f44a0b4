//! The arguments of releases.

use std::path::PathBuf;

use clap::Args;

use super::{Input, Output, Place};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall ship --env development --image web=ghcr.io/shop/web@sha256:…\n  landfall ship --env production --context prod --image web=ghcr.io/shop/web:1.4     by the digest that the tag has now\n  landfall ship --env production --context prod --plan      what would happen, how long it takes\n  landfall ship --env production --context prod             everything that differs from the file\n  landfall ship --env production --context prod --watch     go on with a release that is not finished\n  landfall ship --env production --context prod --wait      after the release that is under way\n\nIt exits with 1 when the release is refused, held or taken back. Ctrl-C leaves it as it is; `--watch` goes on."
)]
pub(crate) struct ShipArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// Ship this image for a service; may be given for several. Without it every service gets what the file says. To a cluster a tag
    /// goes as the digest that its registry has for it now.
    #[arg(long = "image", value_name = "SERVICE=IMAGE", value_parser = image)]
    pub(crate) images: Vec<(String, String)>,
    /// Ship tags as they are, and ask no registry: what runs may change when somebody moves a tag.
    #[arg(long, requires = "images")]
    pub(crate) allow_tags: bool,
    /// The Prometheus that has counted the requests of each version; the one of the cluster's operator when left out.
    #[arg(long, value_name = "URL", conflicts_with = "watch")]
    pub(crate) prometheus: Option<String>,
    /// Say what would be done, and change nothing.
    #[arg(long, conflicts_with_all = ["watch", "detach"])]
    pub(crate) plan: bool,
    /// Follow the release that is not finished, and carry it on when nobody else does.
    #[arg(long, conflicts_with_all = ["detach", "images"])]
    pub(crate) watch: bool,
    /// Wait while somebody else ships to the environment, and ship when that is over; without it that is refused.
    #[arg(long, conflicts_with_all = ["watch", "plan"])]
    pub(crate) wait: bool,
    /// Write the release down and leave; whoever watches it carries it out.
    #[arg(long)]
    pub(crate) detach: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

/// Which cluster. Without either option it is what `landfall up` runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArguments {
    /// A context of the kubeconfig.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// The kubeconfig; with `--context` alone, the one that `kubectl` takes.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall releases --env development\n  landfall releases --env production --context prod --output json"
)]
pub(crate) struct ReleasesArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Print one release: what it ships, what has happened, the last verdict with its numbers.
    Show(ReleaseArguments),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall release show shop-7 --env development\n  landfall release show shop-7 --env production --context prod --file ../shop/landfall.yaml"
)]
pub(crate) struct ReleaseArguments {
    /// The release, as `landfall releases` names it.
    #[arg(value_name = "RELEASE")]
    pub(crate) release: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall rollback --env development               the one under way, or else the last that succeeded\n  landfall rollback shop-7 --env production --context prod\n\nA release that is under way goes back by itself; of one that has succeeded, another release brings the old version back."
)]
pub(crate) struct RollbackArguments {
    /// The release; the one under way, or else the last that succeeded, when left out.
    #[arg(value_name = "RELEASE")]
    pub(crate) release: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall abort --env development               whichever is under way\n  landfall abort shop-7 --env production --context prod\n\nThe release goes no further, and its canary gets no more requests. `landfall rollback` takes it back."
)]
pub(crate) struct AbortArguments {
    /// The release that is meant; another one that is under way is left alone. The one under way when left out.
    #[arg(value_name = "RELEASE")]
    pub(crate) release: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall windows --env production --context prod         until it is stopped\n  landfall windows --env production --context prod --once  the bounds of this moment, for a schedule of your own\n\nIt is for `platform.windows: landfall`; what `landfall up` runs does it by itself. Several may run: they set the same bounds."
)]
pub(crate) struct WindowsArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// Set the bounds of this moment, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// How to print what was set; without `--once`, `json` is a document on each line.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

pub(super) fn image(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((service, image)) if !service.is_empty() && !image.is_empty() => {
            Ok((service.to_owned(), image.to_owned()))
        }
        _ => Err("write the service and the image: `web=ghcr.io/shop/web@sha256:…`".to_owned()),
    }
}
