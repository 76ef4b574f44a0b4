//! Environments and delivery: how a change gets to production.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default;
use crate::span::Spanned;
use crate::units::{Duration, Name, Percent, Reference, TimeOfDay};

use super::service::Weekday;

/// Where the platform is deployed, and what differs there.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Environment {
    /// What it is for, for people.
    #[serde(default)]
    pub purpose: Option<Spanned<String>>,
    /// What a deployment to it needs.
    #[serde(default)]
    pub deploy: Spanned<DeployPolicy>,
    /// Who approves, for `deploy: approval`.
    #[serde(default)]
    pub approvals: Option<Approvals>,
    /// Which data it holds.
    #[serde(default)]
    pub data: Spanned<DataPolicy>,
    /// The environment from which a release is promoted to this one.
    #[serde(default)]
    pub after: Option<Spanned<Name>>,
    /// How long a release runs there before it may be promoted.
    #[serde(default)]
    pub soak: Option<Spanned<Duration>>,
    /// When deployments are allowed; always when left out.
    #[serde(default)]
    pub deploy_windows: Vec<DeployWindow>,
    /// The namespace, when it is not the platform's.
    #[serde(default)]
    pub namespace: Option<Spanned<Name>>,
    /// Who is told of releases to it, instead of those in `delivery.notify`; `[]` tells nobody.
    #[serde(default)]
    pub notify: Option<Vec<Notify>>,
    /// Whether it serves real users, so that every promise must hold in it.
    #[serde(default)]
    pub production: Spanned<bool>,
    /// What differs in `objectives`: given keys replace, `~` removes.
    #[serde(default)]
    pub objectives: Overrides,
    /// What differs in `platform`.
    #[serde(default)]
    pub platform: Overrides,
    /// What differs in `services`.
    #[serde(default)]
    pub services: Overrides,
    /// What differs in `stores`.
    #[serde(default)]
    pub stores: Overrides,
    /// What differs in `externals`.
    #[serde(default)]
    pub externals: Overrides,
    /// What differs in `flows`.
    #[serde(default)]
    pub flows: Overrides,
    /// What differs in `observability`.
    #[serde(default)]
    pub observability: Overrides,
    /// What differs in `security`.
    #[serde(default)]
    pub security: Overrides,
}

/// Overrides of one section. They are laid over the file before it is read as this environment, so their types are
/// those of the section itself.
#[derive(Debug, Clone, Default)]
pub struct Overrides;

impl<'de> Deserialize<'de> for Overrides {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Serialize for Overrides {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl JsonSchema for Overrides {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Overrides".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["object", "null"] })
    }
}

/// What a deployment needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeployPolicy {
    /// Somebody starts it by hand.
    #[default]
    Manual,
    /// It starts by itself when what comes before has passed.
    Automatic,
    /// It waits for approvals.
    Approval,
}

/// Which data an environment holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DataPolicy {
    /// Made up, from a seed.
    #[default]
    Synthetic,
    /// A part of the real data, masked.
    AnonymisedSubset,
    /// All of the real data, masked.
    AnonymisedFull,
    /// The real data.
    Real,
}

/// Who approves a deployment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Approvals {
    /// The groups or people.
    pub of: Vec<Spanned<String>>,
    /// How many of them.
    #[serde(default = "default::one")]
    pub count: Spanned<u32>,
    /// How long an approval holds.
    #[serde(default = "default::days::<1>")]
    pub expire: Spanned<Duration>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

/// When deployments are allowed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeployWindow {
    /// The days; every day when left out.
    #[serde(default)]
    pub days: Vec<Spanned<Weekday>>,
    /// From when.
    pub from: Spanned<TimeOfDay>,
    /// Until when.
    pub to: Spanned<TimeOfDay>,
    /// The IANA time zone of both.
    pub time_zone: Spanned<String>,
}

/// How a change gets to production.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Delivery {
    /// The pipeline.
    #[serde(default)]
    pub pipeline: Option<Pipeline>,
    /// How a new version replaces the old one.
    #[serde(default)]
    pub rollout: Option<Spanned<Rollout>>,
    /// When and how a release is taken back.
    #[serde(default)]
    pub rollback: Rollback,
    /// What must hold before a deployment to production; each item is a predicate with evidence.
    #[serde(default)]
    pub checklist: Vec<ChecklistItem>,
    /// Who is told of releases and of failed pipelines, and by which means.
    #[serde(default)]
    pub notify: Vec<Notify>,
    /// The GitOps controller, if there is one.
    #[serde(default)]
    pub gitops: Option<Gitops>,
    /// The targets that `landfall render` writes.
    #[serde(default)]
    pub render: Vec<Spanned<RenderTarget>>,
}

/// The pipeline.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pipeline {
    /// Who runs it.
    pub runner: Spanned<Runner>,
    /// The branch whose commits are delivered.
    #[serde(default)]
    pub branch: Option<Spanned<String>>,
    /// The stages in their order.
    pub stages: Vec<Stage>,
    /// When security scans run besides, as five fields of cron.
    #[serde(default)]
    pub scan_schedule: Option<Spanned<String>>,
}

/// Who runs a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Runner {
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
}

/// A stage of the pipeline.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stage {
    /// Its name.
    pub name: Spanned<Name>,
    /// What it does, in order.
    pub steps: Vec<Spanned<Step>>,
    /// The environment that it deploys to or tests in.
    #[serde(default)]
    pub environment: Option<Spanned<Name>>,
    /// What its step `deploy` calls.
    #[serde(default)]
    pub deploy_by: Spanned<DeployBy>,
    /// What happens when a step fails.
    #[serde(default)]
    pub on_failure: Vec<Spanned<FailureAction>>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// What brings a release to an environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeployBy {
    /// Helm, with the rendered chart: every object, copy by copy. It knows no canary.
    #[default]
    Helm,
    /// `landfall ship`: the images, as the declared rollout says, judged and taken back by itself. Other objects have to be there.
    Ship,
}

/// A step of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Checks style.
    Lint,
    /// Checks types.
    TypeCheck,
    /// Compiles.
    Compile,
    /// Runs unit tests.
    UnitTest,
    /// Runs integration tests.
    IntegrationTest,
    /// Checks payloads against their schemas.
    ContractTest,
    /// Builds the images.
    Build,
    /// Scans the sources.
    Sast,
    /// Scans the images.
    ImageScan,
    /// Pushes the images by digest.
    Push,
    /// Deploys to the stage's environment.
    Deploy,
    /// Sends one request to each public route.
    Smoke,
    /// Scans the running platform.
    Dast,
    /// Runs the flows.
    EndToEndTest,
    /// Runs the flows at their rates, with thresholds.
    PerformanceTest,
    /// Waits for approvals.
    Approval,
    /// Judges the release by its metrics.
    Verify,
    /// Tells people.
    Notify,
}

impl Step {
    /// Whether it needs something that runs.
    pub fn needs_deployment(self) -> bool {
        matches!(self, Self::Smoke | Self::Dast | Self::EndToEndTest | Self::PerformanceTest | Self::Verify)
    }
}

/// What happens when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureAction {
    /// The author of the change is told.
    NotifyAuthor,
    /// The release is taken back.
    Rollback,
}

/// How a new version replaces the old one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rollout {
    /// Copy by copy.
    Rolling(Rolling),
    /// A small share first, judged by its metrics, then more.
    Canary(Canary),
    /// All old copies stop before the first new one starts.
    Recreate,
}

/// Copy by copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rolling {
    /// How many copies may run above the wanted number.
    #[serde(default = "default::one")]
    pub max_surge: Spanned<u32>,
    /// How many copies may be missing from the wanted number.
    #[serde(default)]
    pub max_unavailable: Spanned<u32>,
}

impl Default for Rolling {
    fn default() -> Self {
        Self { max_surge: default::one(), max_unavailable: Spanned::default() }
    }
}

/// A small share first, judged by its metrics, then more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Canary {
    /// The shares of the traffic, growing; of a worker, of its consumers.
    pub steps: Vec<Spanned<Percent>>,
    /// What the new version must reach to go on.
    #[serde(default)]
    pub judge: Judge,
    /// Which copies of the old version it is compared with.
    #[serde(default)]
    pub baseline: Spanned<Baseline>,
    /// How long a step may take to be decided; then it is rolled back.
    #[serde(default = "default::seconds::<900>")]
    pub decide_within: Spanned<Duration>,
}

impl Canary {
    /// The number of copies whose share beside `stable` ones is nearest to `share`, in millionths; at least one, and no more than
    /// there are stable ones, as more would ask for twice the room and say no more. With a baseline as many fresh copies of the old
    /// version are beside them.
    pub fn copies_for(share: u32, stable: u32, with_baseline: bool) -> u32 {
        let off = |copies: &u32| Self::share_of(*copies, stable, with_baseline).abs_diff(share);
        (1..=stable).min_by_key(off).unwrap_or(1)
    }

    /// The share that so many copies have beside the stable ones, and beside as many of a baseline if there is one, in millionths.
    pub fn share_of(copies: u32, stable: u32, with_baseline: bool) -> u32 {
        let all = u64::from(stable) + u64::from(Self::added(copies, with_baseline));
        u32::try_from(u64::from(copies) * 1_000_000 / all.max(1)).unwrap_or(1_000_000)
    }

    /// How many copies a canary of so many adds beside the stable ones, those of a baseline among them.
    pub fn added(copies: u32, with_baseline: bool) -> u32 {
        if with_baseline { copies.saturating_mul(2) } else { copies }
    }

    /// The most copies that it adds beside `stable` ones, those of a baseline among them, where its share is that of its copies.
    /// Where weights lead requests to it, it needs no more.
    pub fn most_copies(&self, stable: u32) -> u32 {
        let with_baseline = self.baseline.value == Baseline::Fresh;
        let most = self.steps.iter().map(|step| Self::copies_for(step.millionths(), stable, with_baseline)).max();
        Self::added(most.unwrap_or_default(), with_baseline)
    }
}

/// Which copies of the old version a canary is compared with. Those that run are warm: their caches are full, and what leaks has
/// leaked. Fresh ones are as old as the canary, as many, and have the same share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// Fresh ones where weights share the requests and the autoscaler's maximum leaves room for both; otherwise those that run.
    #[default]
    Auto,
    /// Fresh ones. A release for which there is no room is refused.
    Fresh,
    /// Those that run.
    Stable,
}

impl Baseline {
    /// Whether fresh copies are wanted, if there is room for them.
    pub fn may_be_fresh(self, by_weights: bool, scales: bool) -> bool {
        match self {
            Self::Auto => by_weights && scales,
            Self::Fresh => true,
            Self::Stable => false,
        }
    }
}

/// What a new version must reach.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Judge {
    /// The smallest share of requests that succeed; of a worker, of the messages that it processes.
    #[serde(default)]
    pub success: Option<Spanned<Percent>>,
    /// The slowest answer that 99 of 100 requests may get; of a worker, the longest that 99 of 100 messages may take.
    #[serde(default)]
    pub p99: Option<Spanned<Duration>>,
    /// Further figures that a Prometheus has, each with its bound; beside `success` or `p99`, but for a worker whose messages nobody counts.
    #[serde(default)]
    pub metrics: Vec<CanaryMetric>,
}

/// A figure that a Prometheus has, and its bound. Three samples in a row beyond it fail a canary, three within it pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CanaryMetric {
    /// What it is called in plans and verdicts.
    pub name: Spanned<Name>,
    /// What the Prometheus is asked, in its own language; the answer is one number. `{{pods}}` stands for a regular expression of the names of
    /// the canary's pods, or of those it is compared with where a bound is relative to them, `{{namespace}}` for their namespace, `{{window}}` for the time
    /// since the canary has its share.
    pub query: Spanned<String>,
    /// The highest value that it may have.
    #[serde(default)]
    pub at_most: Option<Spanned<f64>>,
    /// The lowest value that it may have.
    #[serde(default)]
    pub at_least: Option<Spanned<f64>>,
    /// The highest value that it may have, as a multiple of what the old version has at the same time, in the copies that it is compared with.
    #[serde(default)]
    pub at_most_of_stable: Option<Spanned<f64>>,
    /// The lowest value that it may have, as a share of what the old version has at the same time, in the copies that it is compared with.
    #[serde(default)]
    pub at_least_of_stable: Option<Spanned<f64>>,
    /// The time between two samples; no shorter than that between two scrapes, or the same value counts twice.
    #[serde(default = "default::seconds::<15>")]
    pub every: Spanned<Duration>,
}

impl CanaryMetric {
    /// What a query may have between double braces.
    pub const PLACES: [&str; 3] = ["{{pods}}", "{{namespace}}", "{{window}}"];

    /// So many samples in a row on one side of the bound decide.
    pub const SAMPLES: u32 = 3;

    /// How many seconds it takes at least until it is decided.
    pub fn least_seconds(&self) -> u64 {
        u64::from(Self::SAMPLES) * self.every.seconds()
    }
}

/// When and how a release is taken back.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rollback {
    /// Whether failed health checks or a failed verdict take it back without a person.
    #[serde(default)]
    pub automatic: Spanned<bool>,
    /// How long that may take.
    #[serde(default)]
    pub within: Option<Spanned<Duration>>,
    /// The procedures for what cannot be taken back by images alone.
    #[serde(default)]
    pub procedures: Vec<Procedure>,
}

/// A rollback procedure.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Procedure {
    /// What is taken back.
    pub of: Spanned<ProcedureKind>,
    /// How.
    pub by: Spanned<ProcedureMeans>,
    /// Whether it runs without a person.
    #[serde(default)]
    pub automatic: Spanned<bool>,
    /// Who is told.
    #[serde(default)]
    pub tell: Vec<Spanned<String>>,
}

/// What a procedure takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProcedureKind {
    /// Images and configuration.
    Release,
    /// Data.
    Database,
    /// Clusters, networks and managed services.
    Infrastructure,
    /// Nothing: it tells people.
    Communication,
}

/// How a procedure takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProcedureMeans {
    /// The previous digests are deployed again.
    PreviousDigests,
    /// The data is restored beside the live one to a point in time, compared, and switched.
    PointInTimeRestore,
    /// The previous configuration is planned and applied.
    PreviousConfiguration,
    /// The previous Terraform state file is put back.
    PreviousState,
    /// Messages with the impact are sent.
    Message,
}

/// Something that must hold before a deployment to production.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ChecklistItem {
    /// What must hold, for people.
    pub says: Spanned<String>,
    /// The predicate that shows it; without one a person has to say so.
    #[serde(default)]
    pub shown_by: Option<Spanned<Predicate>>,
    /// How old the evidence may be.
    #[serde(default)]
    pub fresh: Option<Spanned<Duration>>,
    /// The environment from which the evidence comes.
    #[serde(default)]
    pub environment: Option<Spanned<Name>>,
}

/// A predicate with evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Predicate {
    /// The tests passed on these digests.
    TestsPassed,
    /// The scan reports of these digests have no critical or high finding.
    NoVulnerabilities,
    /// Everything fits on the live nodes.
    CapacityFits,
    /// A restore and a rollback were drilled.
    RestoreDrilled,
    /// The person on call has confirmed.
    OnCallConfirmed,
    /// Somebody says so by hand.
    Attested,
}

/// Somebody who is told of releases and of failed pipelines: by a webhook or by a file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Notify {
    /// Who: the name of a person or a team.
    pub to: Spanned<String>,
    /// The URL to which each message is posted as JSON, or the secret that holds it: `release-mail/url`. Chats that take Slack's
    /// messages show its `text`.
    #[serde(default)]
    pub webhook: Option<Spanned<String>>,
    /// The file to whose end each message is added as a line of JSON: on the machine of whoever ships, from the folder of this
    /// file on.
    #[serde(default)]
    pub file: Option<Spanned<String>>,
    /// Of what; of everything when left out.
    #[serde(default)]
    pub on: Vec<Spanned<NotifyEvent>>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

impl Notify {
    /// The secret that holds the URL, if one does.
    pub fn secret(&self) -> Option<Reference> {
        self.webhook.as_ref().filter(|webhook| !webhook.contains("://")).and_then(|webhook| webhook.parse().ok())
    }

    /// Whether it is told of this.
    pub fn wants(&self, event: NotifyEvent) -> bool {
        self.on.is_empty() || self.on.iter().any(|on| on.value == event)
    }
}

/// What somebody is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyEvent {
    /// A release waits for what must hold before it begins.
    Waiting,
    /// A stage of the pipeline has failed, or a release goes no further until a person decides.
    Failed,
    /// A release was taken back; the message has its impact.
    RolledBack,
    /// A release has succeeded.
    Succeeded,
}

impl NotifyEvent {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Succeeded => "succeeded",
        }
    }
}

/// The GitOps controller.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Gitops|tool", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Gitops", extend("x-short" = "tool"))]
pub struct Gitops {
    /// Which one.
    pub tool: Spanned<GitopsTool>,
    /// The repository with the rendered files.
    #[serde(default)]
    pub repository: Option<Spanned<String>>,
}

/// A GitOps controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GitopsTool {
    /// Argo CD.
    Argocd,
}

/// What `landfall render` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RenderTarget {
    /// Plain Kubernetes objects.
    Kubernetes,
    /// A Helm chart.
    Helm,
    /// A Kustomize base with overlays.
    Kustomize,
    /// Argo CD applications.
    Argocd,
    /// Terraform modules.
    Terraform,
    /// CloudFormation templates.
    Cloudformation,
    /// GitHub Actions workflows.
    Github,
    /// GitLab CI pipelines.
    Gitlab,
    /// Dockerfiles.
    Dockerfile,
    /// Prometheus, Alertmanager and Grafana.
    Monitoring,
    /// The document, with its diagrams.
    Docs,
}
