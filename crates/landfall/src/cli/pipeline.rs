//! The arguments of the pipeline on this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use landfall_model::Duration;

use super::{Input, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum PipelineCommand {
    /// Run the stages of the file's pipeline on this machine, with the commands that `render github` and `gitlab` write.
    Run(PipelineRunArguments),
    /// Print the stages, their steps and their gates.
    Show(PipelineShowArguments),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall pipeline run --stage lint --stage test\n  landfall pipeline run --from build                     go on after a failure\n  landfall pipeline run --env staging --context stage    stages without an environment, and those of staging\n\nStages and steps run one after the other, in the file's order. A stage behind an approval waits until `--stage` or `--from`\nnames it. Steps write reports (JUnit, SARIF, Trivy, Grype) into `$LANDFALL_REPORTS`; `landfall attest --run N` brings them\nto the gates. Everything is kept in `.landfall/pipeline/N/`.\n\nIt exits with 1 when a step fails, takes too long or is interrupted, and when a stage waits for an approval."
)]
pub(crate) struct PipelineRunArguments {
    /// The file, or the folder that has a `landfall.yaml`. Steps run in its folder.
    #[arg(default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only this stage; may be given for several.
    #[arg(long = "stage", value_name = "STAGE", conflicts_with = "from")]
    pub(crate) stages: Vec<String>,
    /// This stage and those after it.
    #[arg(long, value_name = "STAGE")]
    pub(crate) from: Option<String>,
    /// Leave the stages of other environments out.
    #[arg(long = "env", short, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// The context of the cluster that is deployed to. Without a cluster it is what `landfall up` runs.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// The kubeconfig; with `--context` alone, the one that `kubectl` takes.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How long each stage may take; as in the rendered pipelines when left out: 30 min, 90 min with a deployment.
    #[arg(long, value_name = "DURATION")]
    pub(crate) limit: Option<Duration>,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  landfall pipeline show\n  landfall pipeline show --env production --output json")]
pub(crate) struct PipelineShowArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}
