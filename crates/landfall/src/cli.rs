//! The arguments of the command line. Help texts are the doc comments.

mod engine;
mod gates;
mod pipeline;
mod ship;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use landfall_model::{Date, Duration};
use landfall_render::Target;

pub(crate) use self::engine::{ClockCommand, EngineCommand, ImagesArguments, NodeChange, NodeCommand, RunningEngine};
pub(crate) use self::gates::{
    ApproveArguments, AttestArguments, Attested, AuditArguments, AuditCommand, AuditVerifyArguments, FreezeArguments,
    Place, PromoteArguments, ProtectArguments, SignersCommand, SignersSetArguments,
};
pub(crate) use self::pipeline::{PipelineCommand, PipelineRunArguments, PipelineShowArguments};
pub(crate) use self::ship::{
    AbortArguments, ClusterArguments, ReleaseArguments, ReleaseCommand, ReleasesArguments, RollbackArguments,
    ShipArguments, WindowsArguments,
};

/// Makes a deployment architecture executable.
///
/// One typed file, `landfall.yaml`, is checked and proved, and rendered as plain Kubernetes objects.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Examples:\n  landfall check                                 findings and proofs for every environment\n  landfall render kubernetes --env production --out deploy\n  landfall explain service.checkout              every value with its default and its place\n  landfall diff staging production               what differs between two environments\n\nExit codes: 0 done, 1 the answer is no, 2 input not understood, 3 the world failed."
)]
pub(crate) struct Cli {
    /// Whether to use colours; `auto` looks at the terminal and at `NO_COLOR`.
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prove or refute what the file promises.
    Check(CheckArguments),
    /// Write the file as something that other tools read.
    Render(RenderArguments),
    /// Print the ledger: what the document claims, and how far that is shown.
    Claims(ClaimsArguments),
    /// Explain a value of the file, or a rule.
    Explain(ExplainArguments),
    /// Say what differs between two environments, files or revisions.
    Diff(DiffArguments),
    /// Run the architecture on this machine, and try what it promises.
    Up(UpArguments),
    /// Stop what `up` runs.
    Down(DownArguments),
    /// Say how what `up` runs is doing.
    Status(StatusArguments),
    /// Say what each declared edge of a platform that is up has carried.
    Edges(AskArguments),
    /// Drive the flows of a platform that is up anew, and say what they came to.
    Flows(FlowsArguments),
    /// Print the logs of a service, store or external that is up.
    Logs(LogsArguments),
    /// Lead connections from this machine to a service, store or external that is up.
    Open(OpenArguments),
    /// Say how much the pods of a platform that is up use.
    Top(AskArguments),
    /// Try whether copies of a platform that is up follow the load and the time of day.
    Scaling(ScalingArguments),
    /// Try whether a platform that is up follows a Git repository, beside releases.
    Gitops(GitopsArguments),
    /// Say what of this machine `up` can use, and what is missing.
    Doctor(DoctorArguments),
    /// Run the pipeline of the file on this machine, or look at it.
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Release new versions: copy by copy or by canary, judged, and taken back by themselves.
    Ship(ShipArguments),
    /// List the releases.
    Releases(ReleasesArguments),
    /// Look at one release.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Bring the version before a release back.
    Rollback(RollbackArguments),
    /// Stop a release where it is.
    Abort(AbortArguments),
    /// Keep the time windows of services: the bounds of their autoscalers at each time of the day.
    Windows(WindowsArguments),
    /// Bring what runs in one environment to the next, through its gates.
    Promote(PromoteArguments),
    /// Approve a release that waits, with an SSH key.
    Approve(ApproveArguments),
    /// Reject a release that waits, with an SSH key.
    Reject(ApproveArguments),
    /// Say who may approve, or look who may.
    #[command(subcommand)]
    Signers(SignersCommand),
    /// Bring evidence for the gates of an environment.
    Attest(AttestArguments),
    /// Keep releases from an environment.
    Freeze(FreezeArguments),
    /// Let releases into a frozen environment again.
    Thaw(FreezeArguments),
    /// Let only what releases bring into an environment.
    Protect(ProtectArguments),
    /// Print who did what to which digest on what evidence.
    Audit(AuditArguments),
    /// Run a Kubernetes on this machine, in one process; pods are processes.
    Engine(Box<EngineArguments>),
    /// Print the JSON Schema of the file, for editors.
    Schema,
    /// Print completions for a shell.
    Completions(CompletionsArguments),
}

/// The file and the environment.
#[derive(Debug, Args)]
pub(crate) struct Input {
    /// The file, or the folder that has a `landfall.yaml`.
    #[arg(default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only this environment; when left out every one, for `explain` the file as it stands.
    #[arg(long = "env", short, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs; it has a `version`.
    Json,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall check\n  landfall check examples/balance-alerts --env production --explain\n  landfall check --deny warnings --output json"
)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Findings of this severity make the answer no, as errors do.
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub(crate) deny: Option<Deny>,
    /// Print each proof with its derivation.
    #[arg(long)]
    pub(crate) explain: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
    /// Check as of this day, such as `2027-03-31`: what has reached its end of life, which waivers count.
    #[arg(long, value_name = "DATE")]
    pub(crate) today: Option<Date>,
}

/// What makes the answer no besides errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deny {
    /// Warnings.
    Warnings,
    /// Warnings and notes.
    Notes,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall render kubernetes --env production --out deploy\n  landfall render kubernetes --env staging --stdout | kubectl apply -f -\n  landfall render kubernetes --out deploy --check    exit 1 when the files differ\n  landfall render helm argocd examples/mindcompute --out deploy\n  landfall render docs --out docs"
)]
pub(crate) struct RenderArguments {
    /// What to write (`kubernetes`, `helm`, `kustomize`, `argocd`, `github`, `gitlab`, `terraform`, `dockerfile`, `monitoring`, `docs`), and the file or its folder after that.
    #[arg(required = true, value_name = "TARGET… [FILE]", value_parser = RenderWord::parse)]
    pub(crate) words: Vec<RenderWord>,
    /// Only this environment; when left out every one.
    #[arg(long = "env", short, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// The folder to write to; several targets get a folder each, and so do several environments of plain objects.
    #[arg(long, value_name = "DIR", default_value = "rendered", conflicts_with = "stdout")]
    pub(crate) out: PathBuf,
    /// Print one stream of YAML documents instead.
    #[arg(long, conflicts_with = "check")]
    pub(crate) stdout: bool,
    /// Write nothing; say how the folder differs from what would be written.
    #[arg(long)]
    pub(crate) check: bool,
    /// For `docs`: state the claims as of this day, such as `2027-03-31`.
    #[arg(long, value_name = "DATE")]
    pub(crate) today: Option<Date>,
}

/// A word behind `render`: something to write, or the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RenderWord {
    /// Something to write.
    Target(Target),
    /// The file, or the folder that has a `landfall.yaml`.
    File(PathBuf),
}

impl RenderWord {
    /// A target by its name; anything else that can be a path is one.
    fn parse(word: &str) -> Result<Self, String> {
        if let Some(target) = Target::ALL.iter().find(|target| target.as_str() == word) {
            return Ok(Self::Target(*target));
        }
        if word.contains(['/', '.']) || Path::new(word).exists() {
            return Ok(Self::File(PathBuf::from(word)));
        }
        let names: Vec<&str> = Target::ALL.iter().map(|target| target.as_str()).collect();
        Err(format!("there is neither such a target nor such a file; the targets are {}", names.join(", ")))
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall claims examples/composerp --explain\n  landfall claims --state refuted --output json\n\nWhere `landfall up`, `ship` or `pipeline run` have run, HELD HERE says how much of what is to be measured has held;\n`docs/ship.md` lists what no run shows yet."
)]
pub(crate) struct ClaimsArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Print each claim with its evidence.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Only claims in this state.
    #[arg(long, value_enum, value_name = "STATE")]
    pub(crate) state: Option<State>,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
    /// As of this day, such as `2027-03-31`.
    #[arg(long, value_name = "DATE")]
    pub(crate) today: Option<Date>,
}

/// The state of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// The contrary follows from the file.
    Refuted,
    /// Nothing that would show it has been run or built yet.
    NotYetShown,
    /// The file says it, and that is all the evidence.
    Claimed,
    /// It follows from the file or from the objects rendered from it.
    Proved,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall explain service.checkout\n  landfall explain services.checkout.probes --env staging\n  landfall explain zone-loss\n  landfall explain rules"
)]
pub(crate) struct ExplainArguments {
    /// A path in the file such as `service.checkout`, a rule such as `zone-loss`, or `rules` for all of them.
    #[arg(value_name = "PATH|RULE")]
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) input: Input,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall diff staging production\n  landfall diff old/landfall.yaml landfall.yaml\n  landfall diff HEAD~1 landfall.yaml --env production"
)]
pub(crate) struct DiffArguments {
    /// An environment, a file, or a Git revision.
    #[arg(value_name = "A")]
    pub(crate) a: String,
    /// An environment, a file, or a Git revision.
    #[arg(value_name = "B")]
    pub(crate) b: String,
    /// The file whose environments or revisions are meant.
    #[arg(long, default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Compare files or revisions as this environment.
    #[arg(long = "env", short, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall completions bash > ~/.local/share/bash-completion/completions/landfall\n  landfall completions zsh > \"${fpath[1]}/_landfall\""
)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  landfall engine --images images.yaml\n  kubectl --kubeconfig landfall-engine/kubeconfig get nodes\n  landfall engine --data /tmp/e --listen 127.0.0.1:6443 --nodes nodes.yaml --keep-pods\n  landfall engine --images images.yaml --egress 10.20.0.0/16 --egress 192.0.2.7/32\n  landfall engine node kill --zone b               what is done to a running engine\n  landfall engine clock set --speed 3600\n  landfall engine --join admin.conf --images images.yaml\n\nImages are programs of this machine. images.yaml:\n  images:\n  - image: docker.io/library/nginx:*     # `*` stands for any text\n    program: /usr/sbin/nginx\n    args: [-g, \"daemon off;\"]\n\nNodes share this machine and have the capacity that they are given. nodes.yaml:\n  nodes:\n  - { name: a-1, zone: a, cpu: \"4\", memory: 16Gi }"
)]
pub(crate) struct EngineArguments {
    /// What to do to a running engine; without it, one is run.
    #[command(subcommand)]
    pub(crate) command: Option<EngineCommand>,
    /// Where objects, keys, volumes and logs are kept; an engine that is started again goes on from there.
    #[arg(long, value_name = "DIR", default_value = "landfall-engine")]
    pub(crate) data: PathBuf,
    /// Where to listen; with port 0 the port of the last time, or a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) listen: std::net::SocketAddr,
    /// Where to write the kubeconfig; in the data folder when left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The nodes that this machine plays; three, in the zones a, b and c, when left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) nodes: Option<PathBuf>,
    /// Which program each image stands for.
    #[arg(long, value_name = "FILE")]
    pub(crate) images: Option<PathBuf>,
    /// How far pods are kept apart on the network; `auto` takes the best that this system allows.
    #[arg(long, value_enum, default_value = "auto", value_name = "LEVEL")]
    pub(crate) network: NetworkLevel,
    /// Let pods open TCP connections to these addresses outside of the cluster, as far as policies allow it; may be given several
    /// times. `0.0.0.0/0` is everything that this machine reaches, except for link-local addresses, which a block opens only if it
    /// lies in 169.254.0.0/16, and loopback, which nothing opens. Names outside of the cluster then mean what they mean on this machine.
    /// UDP and ICMP stay closed. Where pods have loopback addresses nothing is closed, and this has no effect.
    #[arg(long, value_name = "CIDR")]
    pub(crate) egress: Vec<landfall_engine::EgressBlock>,
    /// How pods run.
    #[arg(long, value_enum, default_value = "processes", value_name = "KIND")]
    pub(crate) runtime: RuntimeKind,
    /// How long a node may be silent before it counts as lost, as for kube-controller-manager; 50 s when left out.
    #[arg(long, value_name = "DURATION", value_parser = engine::grace_period)]
    pub(crate) node_monitor_grace_period: Option<std::time::Duration>,
    /// Leave the pods running when the engine stops; the next engine on the same data finds them.
    #[arg(long)]
    pub(crate) keep_pods: bool,
    /// Serve the API and nothing else: without controllers, scheduler, nodes and network, for those of somebody else, such
    /// as the kube-controller-manager and kube-scheduler of Kubernetes.
    #[arg(long, conflicts_with_all = ["nodes", "images", "network", "egress", "runtime", "keep_pods"])]
    pub(crate) api_only: bool,
    /// Run the pods of another control plane, which this kubeconfig leads to, and serve nothing: its services must have
    /// addresses of 10.96.0.0/16, and only this machine may run its pods. `kubectl logs` and `exec` do not reach them.
    #[arg(long, value_name = "KUBECONFIG", conflicts_with_all = ["api_only", "listen", "kubeconfig", "node_monitor_grace_period"])]
    pub(crate) join: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall up                                    the only environment, until Ctrl-C\n  landfall up examples/balance-alerts --env development\n  landfall up --env development --once --duration 30s --output json\n  landfall up --env development --only web       `web`, and what it needs\n  landfall up --images images.yaml               programs of this machine for the images that the file lists\n  landfall up --network loopback                 without network namespaces, so that no policy is enforced\n\nWhere it is up already this one takes over: what has not changed runs on.\nIt exits with 1 when a promise that can be tried here does not hold."
)]
pub(crate) struct UpArguments {
    /// The file, or the folder that has a `landfall.yaml`.
    #[arg(default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The environment; needed when there are several.
    #[arg(long = "env", short, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// Run only these services and what they need: whatever their edges lead to, and what that needs. The other services are not
    /// there, and what needs them is not tried. Names the services after the file, apart by blanks or commas.
    #[arg(long, value_name = "SERVICE", num_args = 1.., value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Leave this store out, and what only works with it; everything else runs. May be given several times.
    #[arg(long, value_name = "STORE")]
    pub(crate) without: Vec<String>,
    /// A catalogue of images, as for `landfall engine --images`: a service whose image an entry fits is the program that it names, in
    /// the place of a stand-in and of what `run` says. Pods of `objects` find their programs there, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) images: Option<PathBuf>,
    /// How far pods are kept apart on the network; `auto` takes what the data that is kept was made with, otherwise the best that
    /// this system allows. On `loopback` declared edges are tried, and undeclared ways are open: the report counts them as not
    /// enforceable here.
    #[arg(long, value_enum, default_value = "auto", value_name = "LEVEL")]
    pub(crate) network: NetworkLevel,
    /// How long the flows are driven at their declared rates. The default says soon whether everything carries and arrives; for
    /// the p99, and for rare errors, longer is better: a flow of 5/s sends 50 messages in 10 s, and the slowest is their p99.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub(crate) duration: Duration,
    /// How long everything may take to become ready.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub(crate) timeout: Duration,
    /// Stop after the report instead of staying up.
    #[arg(long)]
    pub(crate) once: bool,
    /// How to print the report.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DownArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Delete its data, too: the databases, the passwords, the objects.
    #[arg(long)]
    pub(crate) delete_data: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

/// The platform that is up, and how to print.
#[derive(Debug, Args)]
pub(crate) struct AskArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "It exits with 1 when a flow does not keep its promise, or cannot run here.")]
pub(crate) struct FlowsArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// How long the flows are driven at their declared rates.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub(crate) duration: Duration,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall scaling --env production                                            every service with an autoscaler or windows\n  landfall scaling examples/attendance-monitoring --env staging --service geo\n\nStand-ins are told to be busy, to hold memory, or to tell a figure, until copies are added; then to stop. The clock of the engine is set to before\neach window begins, and to its end, and runs faster while nothing but calm is waited for; it is as before in the end. It exits with 1 when copies\ndo not follow. `landfall claims` knows what was seen."
)]
pub(crate) struct ScalingArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// A service; all that have an autoscaler or windows when left out. May be given several times.
    #[arg(long = "service", value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall gitops --env production\n  landfall gitops examples/mindcompute --env qa --follow      and then, beside it: landfall ship --env qa --image interview=…\n\nA Git repository on this machine gets what `landfall render argocd` writes, and a small operator stands in for Argo CD: a commit arrives, what is\nchanged by hand is put back, what a commit removes goes, and the versions that releases have brought stay. Where the environment is not deployed\nautomatically somebody starts each sync, which this command does. It needs `git`, and `kubectl` or `kustomize`. In the end nothing of it is left in\nthe cluster. It exits with 1 when something does not follow. `landfall claims` knows what was seen."
)]
pub(crate) struct GitopsArguments {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Have the repository followed until Ctrl-C, after it was tried.
    #[arg(long)]
    pub(crate) follow: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall logs notification --file examples/balance-alerts --env development\n  landfall logs                                  of everything, each line with its pod"
)]
pub(crate) struct LogsArguments {
    /// The service, store or external; all of them when left out.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The file, or the folder that has a `landfall.yaml`.
    #[arg(long, default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The environment; needed when there are several.
    #[arg(long = "env", short, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// How many lines of each container, from the end.
    #[arg(long, value_name = "LINES", default_value_t = 100)]
    pub(crate) tail: u32,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall open reporting --env development              its page, in a browser\n  landfall open balances --listen 5432 --env development  a database, for the tools of this machine\n  landfall open events --port 15672                       another port than the first\n\nPasswords are in Secrets: `kubectl get secrets` with the kubeconfig of `landfall up`."
)]
pub(crate) struct OpenArguments {
    /// The service, store or external. Of a store it is the member that takes writes.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The file, or the folder that has a `landfall.yaml`.
    #[arg(long, default_value = "landfall.yaml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The environment; needed when there are several.
    #[arg(long = "env", short, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// The port there, by its number or name; the first when left out.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<String>,
    /// The port here; any free one when left out.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) listen: u16,
    /// Open no browser.
    #[arg(long)]
    pub(crate) no_browser: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall doctor                               every server and program that can be used\n  landfall doctor examples/balance-alerts       what its stores need\n  landfall doctor --install --output json\n\nIt exits with 1 when something is missing that is needed."
)]
pub(crate) struct DoctorArguments {
    /// The file whose stores are looked at; without one, and none in this folder, everything counts as needed.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Install what is missing and needed: packages of the system (unpacked in the cache where they may not be installed),
    /// and what is built from Go modules.
    #[arg(long)]
    pub(crate) install: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

/// How pods run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeKind {
    /// As processes of this machine.
    Processes,
    /// Not at all, but they are said to: for trying out thousands.
    Mock,
}

/// How far pods are kept apart on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkLevel {
    /// The best that this system allows.
    Auto,
    /// A network namespace for each pod, policies enforced.
    Namespace,
    /// A loopback address for each pod, policies not enforced.
    Loopback,
}
