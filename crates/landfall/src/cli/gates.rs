//! The arguments of approvals, evidence, promotion and the audit log.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use landfall_deliver::EvidenceKind;

use super::{ClusterArguments, Output};

/// The file, the environment and the cluster, for commands that name something first.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The file, or the folder that has a `landfall.yaml`.
    #[arg(long, default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The environment; needed when there are several.
    #[arg(long = "env", short, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  landfall audit --env production --context prod\n  landfall audit export --env production > audit.jsonl\n  landfall audit verify --env production --against audit.jsonl\n  landfall audit verify --exported audit.jsonl                an export, without a cluster"
)]
pub(crate) struct AuditArguments {
    #[command(subcommand)]
    pub(crate) command: Option<AuditCommand>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Find entries that were changed, removed or inserted.
    Verify(AuditVerifyArguments),
    /// Print the entries as lines of JSON, to be kept elsewhere.
    Export(Place),
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Compare with an earlier export: who can write everything in the cluster can write another log.
    #[arg(long, value_name = "EXPORT")]
    pub(crate) against: Option<PathBuf>,
    /// Verify an export instead of the log in the cluster.
    #[arg(long, value_name = "EXPORT", conflicts_with = "against")]
    pub(crate) exported: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall approve shop-7 --env production --key ~/.ssh/id_ed25519\n  landfall approve shop-7 --env production                   with a key of the ssh-agent\n  landfall reject shop-7 --env production --because 'the backup is running'\n  landfall approve shop-signers-2 --env production           a change of who may approve\n\nWith `ssh-keygen`, for keys that only it can use:\n  landfall approve shop-7 --env production --print > statement\n  ssh-keygen -Y sign -f ~/.ssh/id_ed25519_sk -n landfall statement\n  landfall approve shop-7 --env production --statement statement --signature statement.sig"
)]
pub(crate) struct ApproveArguments {
    /// The release, as `landfall releases` names it, or a proposed list of signers.
    #[arg(value_name = "RELEASE")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) key: Key,
    /// Why, for those who read it later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) because: Option<String>,
    /// Print what is to be signed, and sign nothing.
    #[arg(long, conflicts_with_all = ["key", "statement"])]
    pub(crate) print: bool,
    /// What was signed elsewhere.
    #[arg(long, value_name = "FILE", requires = "signature", conflicts_with = "key")]
    pub(crate) statement: Option<PathBuf>,
    /// Its signature, as `ssh-keygen -Y sign -n landfall` makes it.
    #[arg(long, value_name = "FILE", requires = "statement")]
    pub(crate) signature: Option<PathBuf>,
}

/// With which key to sign.
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// A private key, or the public half of a key in the ssh-agent; without it, whichever key of the agent counts here.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SignersCommand {
    /// Print who may approve, and what is proposed to change it.
    Show(Place),
    /// Say who may approve: at once when nobody may yet, else when those have approved it who may now.
    Set(SignersSetArguments),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall signers set allowed_signers --env production\n\nThe file is that of ssh-keygen(1), ALLOWED SIGNERS. The first name is the person, the others are groups:\n  ada,platform-leads ssh-ed25519 AAAAC3Nza… ada@laptop\n  bob,platform-leads,on-call ssh-ed25519 AAAAC3Nza…\n\nHow many of whom approve, and for how long, is what the file declares for the environment."
)]
pub(crate) struct SignersSetArguments {
    /// The list.
    #[arg(value_name = "ALLOWED_SIGNERS")]
    pub(crate) list: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall attest tests-passed --env production --seen-in staging --image web=shop/web:2 --report junit.xml\n  landfall attest no-vulnerabilities --env production --seen-in staging --report web=trivy.json\n  landfall attest tests-passed --env production --seen-in staging --run 7\n  landfall attest restore-drilled --env production --because 'ledger restored in 41 min'\n  landfall attest on-call-confirmed --env production --because 'ada until Monday'\n\nReports are JUnit's XML, SARIF, Trivy's JSON and Grype's. What only a person says is signed where signers are known."
)]
pub(crate) struct AttestArguments {
    /// Of what.
    #[arg(value_enum, value_name = "WHAT")]
    pub(crate) what: Attested,
    #[command(flatten)]
    pub(crate) place: Place,
    /// The environment in which it was seen, when it is another.
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) seen_in: Option<String>,
    /// An image that it is about; may be given for several. Without it, what the file has.
    #[arg(long = "image", value_name = "SERVICE=IMAGE", value_parser = super::ship::image)]
    pub(crate) images: Vec<(String, String)>,
    /// The report, or `SERVICE=FILE` for that of one service; may be given for several.
    #[arg(long = "report", value_name = "[SERVICE=]FILE")]
    pub(crate) reports: Vec<String>,
    /// The reports of this run of `landfall pipeline run`, about the images that it has pushed.
    #[arg(long, value_name = "NUMBER", conflicts_with = "reports")]
    pub(crate) run: Option<u32>,
    /// What a person says about it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) because: Option<String>,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// What can be attested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attested {
    /// Tests passed on these images.
    TestsPassed,
    /// A scan of these images has no critical or high finding.
    NoVulnerabilities,
    /// A restore was drilled.
    RestoreDrilled,
    /// The person on call has confirmed.
    OnCallConfirmed,
    /// An item of the checklist holds that nothing else shows; `--because` repeats it word for word.
    #[value(name = "attested")]
    Said,
}

impl From<Attested> for EvidenceKind {
    fn from(what: Attested) -> Self {
        match what {
            Attested::TestsPassed => Self::TestsPassed,
            Attested::NoVulnerabilities => Self::NoVulnerabilities,
            Attested::RestoreDrilled => Self::RestoreDrilled,
            Attested::OnCallConfirmed => Self::OnCallConfirmed,
            Attested::Said => Self::Attested,
        }
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall freeze production --because 'end of the quarter'\n  landfall thaw production --because 'the books are closed'\n\nReleases wait while an environment is frozen; what goes back goes back all the same."
)]
pub(crate) struct FreezeArguments {
    /// The environment.
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
    /// Why, for those who wait.
    #[arg(long, value_name = "TEXT")]
    pub(crate) because: String,
    /// The file, or the folder that has a `landfall.yaml`.
    #[arg(long, default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall promote staging production --from-context stage --context prod\n  landfall promote staging production --context prod --plan\n\nWhat runs in FROM, and has run there for its `soak`, goes to TO through the gates of TO."
)]
pub(crate) struct PromoteArguments {
    /// The environment that runs it.
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// The environment that gets it.
    #[arg(value_name = "TO")]
    pub(crate) to: String,
    /// The file, or the folder that has a `landfall.yaml`.
    #[arg(long, default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The context of FROM's cluster, when it is another than TO's.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) from_context: Option<String>,
    /// The kubeconfig of FROM's cluster, when it is another than TO's.
    #[arg(long, value_name = "FILE")]
    pub(crate) from_kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// The Prometheus that has counted the requests of each version; the one of the cluster's operator when left out.
    #[arg(long, value_name = "URL")]
    pub(crate) prometheus: Option<String>,
    /// Say what would be done, and change nothing but the evidence that it has run.
    #[arg(long)]
    pub(crate) plan: bool,
    /// Wait while somebody else ships to TO, and promote what runs in FROM when that is over; without it that is refused.
    #[arg(long, conflicts_with = "plan")]
    pub(crate) wait: bool,
    /// Write the release down and leave; `landfall ship --watch` carries it out.
    #[arg(long, conflicts_with = "plan")]
    pub(crate) detach: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall protect --env production --context prod --shippers deployers --approvers platform-leads\n  landfall protect --env production --print | kubectl diff -f -\n\nWhat runs there now is admitted, and what releases bring. `landfall releases` tells who went around it."
)]
pub(crate) struct ProtectArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// A group of the cluster that may carry releases; may be given several times.
    #[arg(long, value_name = "GROUP")]
    pub(crate) shippers: Vec<String>,
    /// A group of the cluster that may approve, freeze and bring evidence; may be given several times.
    #[arg(long, value_name = "GROUP")]
    pub(crate) approvers: Vec<String>,
    /// Print the objects, and change nothing.
    #[arg(long)]
    pub(crate) print: bool,
}
