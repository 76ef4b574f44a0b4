//! `delivery.pipeline` as what a runner of pipelines reads.
//!
//! Both runners perform the same shell commands, which are here, and so does `landfall pipeline run` ([`local`]). What only the owner of the code can know (how to lint,
//! how to test) is a program of theirs, `ci/<step>`. A deployment is the rendered chart in `deploy/helm`, or `landfall ship`, with the
//! digests that this pipeline has pushed.

pub(crate) mod github;
pub(crate) mod gitlab;
pub(crate) mod local;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use landfall_model::{
    DeployBy, FailureAction, Finding, Notify, NotifyEvent, Pipeline, Reference, Rollout, Service, Stage, Step,
};
use serde_json::Value;

use crate::helm::image_value;
use crate::object::FileTree;
use crate::target::{Output, Variant};

/// The scanners, by version: a tag of an image that its owners do not move.
const SEMGREP: &str = "semgrep/semgrep:1.131.0";
const TRIVY: &str = "aquasec/trivy:0.65.0";
const ZAP: &str = "ghcr.io/zaproxy/zaproxy:2.16.1";

/// How long a release may take when the file does not say it.
const WITHIN: &str = "10m";

/// Minutes that a job may take, without and with a deployment.
const MINUTES: (u32, u32) = (30, 90);

/// A pipeline in its file.
pub(crate) struct Plan<'a> {
    /// The environments.
    pub(crate) variants: &'a [Variant],
    /// The pipeline.
    pub(crate) pipeline: &'a Pipeline,
    /// The file's name.
    pub(crate) name: &'a str,
}

/// A job of the runner.
pub(crate) struct Job<'a> {
    /// Its name.
    pub(crate) name: String,
    /// The stage that it is of.
    pub(crate) stage: &'a Stage,
    /// What it does, in order.
    pub(crate) steps: Vec<Step>,
    /// Whether it waits for approvals first.
    pub(crate) gated: bool,
    /// The environment that it is about.
    pub(crate) variant: Option<&'a Variant>,
}

impl Job<'_> {
    /// Whether it performs any of the steps.
    pub(crate) fn has(&self, steps: &[Step]) -> bool {
        self.steps.iter().any(|step| steps.contains(step))
    }

    /// Whether it works with images.
    pub(crate) fn has_images(&self) -> bool {
        self.has(&[Step::Build, Step::ImageScan, Step::Push])
    }

    /// Whether it talks to a cluster.
    pub(crate) fn reaches_cluster(&self) -> bool {
        self.has(&[Step::Deploy, Step::Verify])
    }

    /// How many minutes it may take: with a canary, as long as each of its steps may take to be decided.
    pub(crate) fn minutes(&self) -> u32 {
        if self.reaches_cluster() { MINUTES.1.max(MINUTES.0 + self.canary_minutes()) } else { MINUTES.0 }
    }

    fn canary_minutes(&self) -> u32 {
        let ships = self.has(&[Step::Deploy]) && self.stage.deploy_by.value == DeployBy::Ship;
        let Some(variant) = self.variant.filter(|_| ships) else { return 0 };
        let architecture = &variant.architecture;
        let services = architecture.document.services.iter();
        let shipped = services.filter(|(name, _)| is_deployment(variant, name.as_str()));
        let seconds: u64 = shipped
            .map(|(_, service)| match &architecture.rollout(service).value {
                Rollout::Canary(canary) => canary.steps.len() as u64 * canary.decide_within.value.seconds(),
                Rollout::Rolling(_) | Rollout::Recreate => 0,
            })
            .sum();
        u32::try_from(seconds.div_ceil(60)).unwrap_or(u32::MAX)
    }

    /// What a person has to know where a runner ends jobs before this one may have to end.
    pub(crate) fn too_long(&self, most: u32, runner: &str, help: &str) -> Option<Finding> {
        (self.minutes() > most).then(|| {
            let (name, minutes) = (&self.name, self.minutes());
            let what = format!("`{name}` may take {minutes} minutes, and {runner} ends a job after {most}");
            Finding::note("not-rendered", self.stage.name.span, what)
                .because("that is how long the steps of its canaries may take to be decided, one after the other")
                .help(help)
        })
    }

    /// Whether it takes its deployment back when a later step fails.
    pub(crate) fn takes_back(&self) -> bool {
        self.on_failure(FailureAction::Rollback) && self.has(&[Step::Deploy])
    }

    /// Whether the author of a commit is told when it fails.
    pub(crate) fn tells_author(&self) -> bool {
        self.on_failure(FailureAction::NotifyAuthor)
    }

    fn on_failure(&self, wanted: FailureAction) -> bool {
        self.stage.on_failure.iter().any(|action| action.value == wanted)
    }

    /// What its runner calls the environment. A job that only waits has one of its own, so that nobody is asked twice.
    pub(crate) fn environment(&self) -> Option<String> {
        let environment = self.variant.map(|variant| variant.name.clone());
        if self.gated && self.steps.is_empty() {
            return Some(format!("{}-approval", environment.unwrap_or_else(|| self.name.clone())));
        }
        environment
    }
}

/// The cluster that kubectl and Helm take, for `landfall`, which takes none that nobody names.
const CLUSTER: &str = "--kubeconfig \"${KUBECONFIG:-$HOME/.kube/config}\"";

/// Tells kubectl and Helm of the cluster; `$token` is the job's own identity.
const SIGN_IN: &str = "echo \"$CLUSTER_CA\" > ca.crt
kubectl config set-cluster target --server \"$CLUSTER_SERVER\" --certificate-authority ca.crt --embed-certs
kubectl config set-credentials pipeline --token \"$token\"
kubectl config set-context pipeline --cluster target --user pipeline
kubectl config use-context pipeline
";

impl<'a> Plan<'a> {
    /// The pipeline of a file, if it has one.
    pub(crate) fn of(variants: &'a [Variant]) -> Option<Self> {
        let document = &variants[0].architecture.document;
        let pipeline = document.delivery.pipeline.as_ref()?;
        Some(Self { variants, pipeline, name: document.name.as_str() })
    }

    /// The branch that is delivered.
    pub(crate) fn branch(&self) -> &str {
        self.pipeline.branch.as_ref().map_or("main", |branch| &branch.value)
    }

    /// The services that are built here, of any environment.
    pub(crate) fn built(&self) -> Vec<(&'a str, &'a Service)> {
        let mut built: Vec<(&str, &Service)> = Vec::new();
        for variant in self.variants {
            for (name, service) in &variant.architecture.document.services {
                if service.build.is_some() && built.iter().all(|(known, _)| *known != name.as_str()) {
                    built.push((name.as_str(), service));
                }
            }
        }
        built
    }

    /// What a stage is about.
    fn variant(&self, stage: &Stage) -> Option<&'a Variant> {
        let environment = stage.environment.as_ref()?;
        self.variants.iter().find(|variant| variant.name == environment.value.as_str())
    }

    /// The jobs, in their order. A stage is one job; an approval begins another one, because it is a job that waits.
    pub(crate) fn jobs(&self) -> Vec<Job<'a>> {
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for stage in &self.pipeline.stages {
            let steps: Vec<Step> = stage.steps.iter().map(|step| step.value).collect();
            for (index, part) in steps.split(|step| *step == Step::Approval).enumerate() {
                let gated = index > 0;
                if part.is_empty() && !gated {
                    continue;
                }
                let is_first = jobs.last().is_none_or(|job| job.stage.name.value != stage.name.value);
                let name =
                    if is_first { stage.name.value.to_string() } else { format!("{}-approved", stage.name.value) };
                jobs.push(Job { name, stage, steps: part.to_vec(), gated, variant: self.variant(stage) });
            }
        }
        jobs
    }

    /// What a step runs; nothing for one that the runner itself performs. `revision` is how the runner names the commit.
    pub(crate) fn commands(&self, step: Step, job: &Job<'_>, revision: &str) -> Option<String> {
        let variant = job.variant;
        match step {
            own if is_own(own) => {
                let environment = job.stage.environment.as_ref().map_or(String::new(), |name| format!(" {}", name.value));
                Some(format!("ci/{}{environment}\n", name_of(own)))
            }
            Step::Sast => Some(format!("docker run --rm -v \"$PWD:/src\" -w /src {SEMGREP} semgrep scan --config auto --error\n")),
            Step::Build => Some(self.of_images(|image, service| build(&image, service, revision))),
            Step::Push => Some(self.push(revision)),
            Step::ImageScan => Some(self.of_images(|image, _| {
                format!(
                    "docker run --rm -v /var/run/docker.sock:/var/run/docker.sock {TRIVY} image --exit-code 1 --severity HIGH,CRITICAL {image}:{revision}\n"
                )
            })),
            Step::Deploy => variant.map(|variant| self.deploy(job, variant)),
            Step::Smoke => variant.map(smoke),
            Step::Dast => variant.map(dast),
            Step::Verify => variant.map(|variant| self.verify(variant)),
            Step::Notify => {
                let text = format!("{}: the pipeline has got to {}, revision {revision}", self.name, job.name);
                Some(self.tell(NotifyEvent::Succeeded, &text, &format!("{}/{}/{revision}", self.name, job.name)))
            }
            _ => None,
        }
    }

    /// The steps of a job that run something, with it.
    pub(crate) fn performed(&self, job: &Job<'_>, revision: &str) -> impl Iterator<Item = (Step, String)> {
        let run = |step: &Step| Some((*step, self.commands(*step, job, revision).filter(|run| !run.is_empty())?));
        job.steps.iter().filter_map(run)
    }

    /// What is delivered when it changes: the sources of the services, the chart, and the pipeline itself, which is in
    /// `file`. Everything, when a service is built from the whole repository or none is.
    pub(crate) fn paths(&self, file: &str) -> Vec<Value> {
        let built = self.built();
        let contexts = built.iter().filter_map(|(_, service)| service.build.as_ref());
        let contexts: Vec<&str> =
            contexts.map(|build| build.context.value.trim_start_matches("./").trim_end_matches('/')).collect();
        if contexts.is_empty() || contexts.iter().any(|context| context.is_empty() || *context == ".") {
            return Vec::new();
        }
        let folders = contexts.into_iter().chain(["ci", "deploy/helm"]).map(|folder| format!("{folder}/**"));
        folders.chain([file.to_owned()]).map(Value::String).collect()
    }

    /// The scans by the name of their step, for when nobody pushes: what is known of weaknesses grows by itself. Images are
    /// built for it.
    pub(crate) fn scans(&self, jobs: &[Job<'_>], revision: &str) -> BTreeMap<String, String> {
        let steps = jobs.iter().flat_map(|job| job.steps.iter().map(move |step| (job, *step)));
        let scans = steps.filter(|(_, step)| matches!(step, Step::Sast | Step::Dast | Step::ImageScan));
        let run = |(job, step): (&Job<'_>, Step)| {
            let run = self.commands(step, job, revision).filter(|run| !run.is_empty())?;
            let built = (step == Step::ImageScan).then(|| self.commands(Step::Build, job, revision)).flatten();
            Some((name_of(step), built.unwrap_or_default() + &run))
        };
        scans.filter_map(run).collect()
    }

    /// What takes a release back, if this job made one: a deployment that fails has taken itself back.
    pub(crate) fn rollback(&self, job: &Job<'_>) -> String {
        let back = match (job.stage.deploy_by.value, job.variant) {
            (DeployBy::Ship, Some(variant)) => format!("landfall rollback --env {} {CLUSTER}", variant.name),
            _ => format!("helm rollback {} --namespace default --wait --timeout {}", self.name, self.within()),
        };
        format!("[ ! -f deployed ] || {back}\n")
    }

    /// Whether an earlier job performs a step.
    pub(crate) fn before(&self, job: &Job<'_>, step: Step) -> bool {
        self.jobs().iter().take_while(|earlier| earlier.name != job.name).any(|earlier| earlier.has(&[step]))
    }

    /// Whether a later job works with the images that this one builds.
    pub(crate) fn hands_images_on(&self, job: &Job<'_>) -> bool {
        let jobs = self.jobs();
        let later = jobs.iter().skip_while(|other| other.name != job.name).skip(1);
        let waits = later.take_while(|other| !other.has(&[Step::Build])).any(Job::has_images);
        !self.built().is_empty() && job.has(&[Step::Build]) && waits
    }

    /// Whether what is built here has been pushed when a job deploys.
    fn has_pushed(&self, job: &Job<'_>) -> bool {
        let place = |wanted| job.steps.iter().position(|step| *step == wanted);
        let here = place(Step::Push).is_some_and(|push| place(Step::Deploy).is_some_and(|deploy| push < deploy));
        !self.built().is_empty() && (here || self.before(job, Step::Push))
    }

    /// Saves what was built for the jobs that come later.
    pub(crate) fn save(&self, revision: &str) -> String {
        let images: Vec<String> =
            self.built().iter().map(|(name, service)| format!("{}:{revision}", self.image(name, service))).collect();
        format!("docker save --output images.tar {}\n", images.join(" "))
    }

    /// The host of the registry that images are pushed to.
    pub(crate) fn registry(&self) -> Option<String> {
        let (name, service) = *self.built().first()?;
        let image = self.image(name, service);
        let host = image.split_once('/').map(|(host, _)| host).filter(|host| host.contains(['.', ':']));
        Some(host.unwrap_or("docker.io").to_owned())
    }

    /// What the file does not say and somebody has to add. `own_registry` is the one that takes the token of a job.
    pub(crate) fn findings(&self, own_registry: &str) -> Vec<Finding> {
        let mut own: Vec<String> = self
            .jobs()
            .iter()
            .flat_map(|job| &job.steps)
            .filter(|step| is_own(**step))
            .map(|step| format!("`ci/{}`", name_of(*step)))
            .collect();
        own.sort();
        own.dedup();
        let span = self.pipeline.runner.span;
        let mut findings = Vec::new();
        if !own.is_empty() {
            findings.push(
                Finding::note("not-rendered", span, "the programs that the pipeline starts in `ci/` are not rendered")
                    .because("only the owner of the code knows how it is linted, compiled and tested")
                    .help(format!("write {}", own.join(", "))),
            );
        }
        if let Some(registry) = self.registry().filter(|registry| registry != own_registry) {
            findings.push(
                Finding::warning(
                    "not-rendered",
                    span,
                    format!("the pipeline has nothing to sign in to `{registry}` with"),
                )
                .because(format!("the token of a job is taken by `{own_registry}` alone, and no key is stored"))
                .help(format!(
                    "push to `{own_registry}` (`platform.registry`), or let `{registry}` trust the identity of the job"
                )),
            );
        }
        findings.extend(self.jobs().iter().filter(|job| job.has(&[Step::Deploy])).flat_map(|job| self.deploys(job)));
        let document = &self.variants[0].architecture.document;
        for notify in &document.delivery.notify {
            let Some(file) = notify.file.as_ref().filter(|_| notify.wants(NotifyEvent::Failed)) else { continue };
            findings.push(
                Finding::note(
                    "not-rendered",
                    file.span,
                    format!("the rendered pipeline does not tell `{}` that it failed", notify.to),
                )
                .because("the machine of a runner keeps no file")
                .help("`landfall pipeline run` and `landfall ship` write it; a webhook is told by all of them"),
            );
        }
        let builds = self.jobs().iter().any(|job| job.steps.contains(&Step::Build));
        if builds && self.built().is_empty() {
            findings.push(
                Finding::note("not-rendered", span, "the pipeline builds no image")
                    .because("no service says where its sources are")
                    .help("write `build: { context: … }` for each service that is built here"),
            );
        }
        findings
    }

    /// What a person has to know of a stage that deploys.
    fn deploys(&self, job: &Job<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(variant) = job.variant else { return findings };
        let (stage, span) = (&job.stage.name.value, job.stage.name.span);
        if !self.built().is_empty() && !self.has_pushed(job) {
            findings.push(
                Finding::warning(
                    "not-rendered",
                    span,
                    format!("`{stage}` deploys no image that this pipeline has built"),
                )
                .because("no step before it pushes one, so that the images of the file are deployed")
                .help("put `push` into a stage before it, or before `deploy`"),
            );
        }
        if job.stage.deploy_by.value == DeployBy::Ship {
            findings.push(
                Finding::note(
                    "not-rendered",
                    span,
                    format!("`{stage}` needs `landfall` where it runs, which is not rendered"),
                )
                .because("no runner has it, and `deploy-by: ship` calls it")
                .help("put it into the image of the jobs, or on the PATH of the machine that runs them"),
            );
            return findings;
        }
        let architecture = &variant.architecture;
        let services = architecture.document.services.iter();
        let canaries: Vec<String> = services
            .filter(|(name, service)| {
                matches!(architecture.rollout(service).value, Rollout::Canary(_))
                    && is_deployment(variant, name.as_str())
            })
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if architecture.is_production() && !canaries.is_empty() {
            findings.push(
                Finding::warning(
                    "not-rendered",
                    span,
                    format!("`{stage}` deploys {} copy by copy and not by canary", canaries.join(", ")),
                )
                .because("Helm knows no canary")
                .help("write `deploy-by: ship` in the stage"),
            );
        }
        findings
    }

    /// Who is told of an event by a webhook.
    fn told(&self, event: NotifyEvent) -> impl Iterator<Item = (&'a Notify, &'a str)> {
        let list: &'a [Notify] = &self.variants[0].architecture.document.delivery.notify;
        list.iter()
            .filter(move |notify| notify.wants(event))
            .filter_map(|notify| Some((notify, notify.webhook.as_ref()?.value.as_str())))
    }

    /// Whether somebody is told of an event by a webhook.
    pub(crate) fn tells(&self, event: NotifyEvent) -> bool {
        self.told(event).next().is_some()
    }

    /// The variables with the URLs of those who are told of an event, with the secrets that they have.
    pub(crate) fn urls(&self, event: NotifyEvent) -> BTreeMap<String, Reference> {
        let secrets = self.told(event).filter_map(|(notify, _)| notify.secret());
        secrets.map(|secret| (secret_variable(secret.name.as_str(), &secret.key), secret)).collect()
    }

    /// Posts a message to everybody who is told of an event, whether the others have taken it or not: of the form that releases have, as far as a pipeline knows it. In `text`
    /// and `id` may be variables of the shell, whose values have neither quotes nor backslashes.
    pub(crate) fn tell(&self, event: NotifyEvent, text: &str, id: &str) -> String {
        let post = |(place, (notify, webhook)): (usize, (&Notify, &str))| {
            let url = match notify.secret() {
                Some(secret) => format!("\"${}\"", secret_variable(secret.name.as_str(), &secret.key)),
                None => format!("'{}'", webhook.replace('\'', "'\\''")),
            };
            let (id, to) = (format!("{id}/{}/{place}", event.as_str()), quoted(&notify.to.value));
            format!(
                "curl --silent --show-error --fail --output /dev/null --retry 5 --retry-connrefused --max-time 10 \\\n  --header 'Content-Type: application/json' --header \"Idempotency-Key: {id}\" \\\n  --data \"{{\\\"version\\\":1,\\\"id\\\":\\\"{id}\\\",\\\"event\\\":\\\"{}\\\",\\\"to\\\":\\\"{to}\\\",\\\"architecture\\\":\\\"{}\\\",\\\"text\\\":\\\"{text}\\\"}}\" \\\n  {url} || echo \"not told: {to}\" >&2\n",
                event.as_str(),
                self.name
            )
        };
        self.told(event).enumerate().map(post).collect()
    }

    fn within(&self) -> String {
        let within = self.variants[0].architecture.document.delivery.rollback.within.as_ref();
        within.map_or(WITHIN.to_owned(), |within| format!("{}s", within.value.as_secs_f64().ceil()))
    }

    /// The variables that a person has to fill, which `place` keeps.
    pub(crate) fn secret_findings(&self, place: &str) -> Option<Finding> {
        let steps = self.pipeline.stages.iter().flat_map(|stage| &stage.steps);
        let notifies = steps.into_iter().any(|step| step.value == Step::Notify);
        let mut urls = self.urls(NotifyEvent::Failed);
        if notifies {
            urls.extend(self.urls(NotifyEvent::Succeeded));
        }
        if urls.is_empty() {
            return None;
        }
        let finding = Finding::note(
            "not-rendered",
            self.pipeline.runner.span,
            "the URLs by which people are told are not in the rendered pipeline",
        );
        let named: Vec<String> = urls.iter().map(|(name, secret)| format!("`{name}` (`{secret}`)")).collect();
        Some(finding.because("they are secrets").help(format!("keep each in a {place}: {}", named.join(", "))))
    }

    fn of_images(&self, command: impl Fn(String, &Service) -> String) -> String {
        self.built().iter().map(|(name, service)| command(self.image(name, service), service)).collect()
    }

    /// The image of a service without a tag.
    fn image(&self, name: &str, service: &Service) -> String {
        let objects = self.variants.iter().flat_map(|variant| &variant.rendered.objects);
        let mut containers = objects.filter(|object| object.folder == name).filter_map(|object| {
            let pod =
                ["/spec", "/spec/jobTemplate/spec"].map(|spec| format!("{spec}/template/spec/containers/0/image"));
            pod.iter().find_map(|path| object.value.pointer(path)?.as_str())
        });
        let image = containers.next().map(ToOwned::to_owned);
        let image = image.or_else(|| service.image.as_ref().map(|image| image.value.clone()));
        let image = image.unwrap_or_else(|| name.to_owned());
        let image = image.split('@').next().unwrap_or_default();
        match image.rsplit_once(':') {
            Some((stem, tag)) if !tag.contains('/') => stem.to_owned(),
            _ => image.to_owned(),
        }
    }

    /// Pushes what was built, and writes down by which digest: one file for each value of the chart.
    fn push(&self, revision: &str) -> String {
        let mut text = "mkdir -p digests\n".to_owned();
        for (name, service) in self.built() {
            let image = self.image(name, service);
            let value = image_value(name);
            writeln!(text, "docker push {image}:{revision}").expect("a text takes more");
            writeln!(
                text,
                "echo \"{value}=$(docker inspect --format '{{{{index .RepoDigests 0}}}}' {image}:{revision})\" > digests/{name}"
            )
            .expect("a text takes more");
        }
        text + &self.push_chart(revision).unwrap_or_default()
    }

    /// Pushes the chart as an OCI artifact beside the images, and writes down by which digest. Its version names the commit.
    fn push_chart(&self, revision: &str) -> Option<String> {
        let registry = self.variants[0].architecture.document.platform.registry.as_ref()?;
        let (name, host) = (self.name, &registry.host.value);
        let version = format!("0.1.0-g{revision}");
        registry.charts.value.then(|| {
            format!(
                "helm package deploy/helm --version {version} --destination digests\npushed=$(helm push digests/{name}-{version}.tgz oci://{host}/charts 2>&1) || {{ echo \"$pushed\" >&2; exit 1; }}\nsed --quiet 's/^Digest: //p' <<< \"$pushed\" > digests/chart\n[ -s digests/chart ] || {{ echo \"the registry has not said the digest of the chart\" >&2; exit 1; }}\n"
            )
        })
    }

    /// What the file says with the digests of this pipeline. It waits until everything is ready, and takes itself back
    /// otherwise. A digest that is missing ends it before anything changes.
    fn deploy(&self, job: &Job<'_>, variant: &Variant) -> String {
        let ships = job.stage.deploy_by.value == DeployBy::Ship;
        let mut services: Vec<&str> = self.built().into_iter().map(|(name, _)| name).collect();
        if ships {
            services.retain(|name| is_deployment(variant, name));
        }
        let (mut text, mut images) = (String::new(), "");
        if self.has_pushed(job) && !services.is_empty() {
            let argument = if ships {
                "--image \"$service=$(cut --delimiter = --fields 2- \"digests/$service\")\""
            } else {
                "--set-string \"$(cat \"digests/$service\")\""
            };
            text = format!(
                "images=()\nfor service in {}; do\n  if [ ! -f \"digests/$service\" ]; then\n    echo \"no digest of $service: a stage with the step push has to run first\" >&2\n    exit 1\n  fi\n  images+=({argument})\ndone\n",
                services.join(" ")
            );
            images = " \\\n  \"${images[@]}\"";
        }
        let environment = &variant.name;
        text += &if ships {
            format!("landfall ship --env {environment} {CLUSTER}{images}\n")
        } else {
            format!(
                "helm upgrade --install {} deploy/helm --namespace default --values deploy/helm/values-{environment}.yaml{images} \\\n  --atomic --wait --timeout {}\n",
                self.name,
                self.within()
            )
        };
        text + "touch deployed\n"
    }

    /// Waits for every workload. `kubectl` says which does not get ready.
    fn verify(&self, variant: &Variant) -> String {
        let kinds = ["Deployment", "StatefulSet", "DaemonSet"];
        let objects = variant.rendered.objects.iter().filter(|object| kinds.contains(&object.kind()));
        let within = self.within();
        let wait = |object: &crate::Object| {
            let (kind, name) = (object.kind().to_lowercase(), object.name());
            let namespace = object.namespace().unwrap_or("default");
            format!("kubectl rollout status {kind}/{name} --namespace {namespace} --timeout {within}\n")
        };
        objects.map(wait).collect()
    }
}

/// Whether a service is rendered as a Deployment, which is what `landfall ship` replaces.
fn is_deployment(variant: &Variant, service: &str) -> bool {
    variant.rendered.objects.iter().any(|object| object.kind() == "Deployment" && object.name() == service)
}

/// Whether only the owner of the code knows how the step is done.
fn is_own(step: Step) -> bool {
    use Step::{Compile, ContractTest, EndToEndTest, IntegrationTest, Lint, PerformanceTest, TypeCheck, UnitTest};
    matches!(
        step,
        Lint | TypeCheck | Compile | UnitTest | IntegrationTest | ContractTest | EndToEndTest | PerformanceTest
    )
}

/// What a runner gets when the file has no pipeline.
fn without_pipeline(variants: &[Variant]) -> Output {
    let span = variants[0].architecture.document.name.span;
    let finding = Finding::error("not-rendered", span, "there is no pipeline to render")
        .help("declare `delivery.pipeline` with its stages");
    Output { files: FileTree::new(), findings: vec![finding] }
}

fn build(image: &str, service: &Service, revision: &str) -> String {
    let Some(build) = &service.build else { return String::new() };
    let file = build.dockerfile.as_ref().map_or(String::new(), |file| format!(" --file {}", file.value));
    format!("docker build --tag {image}:{revision}{file} {}\n", build.context.value)
}

/// One request to each public route; then it fails if one of them did, and says which.
fn smoke(variant: &Variant) -> String {
    let routes = variant.architecture.exposed().map(|(_, _, expose)| {
        let scheme = if expose.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", expose.host.value, expose.path.value)
    });
    let routes: BTreeSet<String> = routes.collect();
    if routes.is_empty() {
        return String::new();
    }
    let requests: String = routes.iter().map(|url| format!("request '{url}'\n")).collect();
    format!(
        "{REQUEST}{requests}[ -z \"$failed\" ] || {{ printf 'no answer, or one that says the server failed:%b\\n' \"$failed\" >&2; exit 1; }}\n"
    )
}

/// A server that answers is there, whatever it thinks of a request without credentials; an error of its own is none.
const REQUEST: &str = "failed=
request() {
  status=$(curl --silent --output /dev/null --write-out '%{http_code}' --retry 5 --retry-connrefused --max-time 10 \"$1\") || status=000
  echo \"$status $1\"
  if [ \"$status\" = 000 ] || [ \"$status\" -ge 500 ]; then failed=\"$failed\\n  $status $1\"; fi
}
";

/// Attacks each public host, passively.
fn dast(variant: &Variant) -> String {
    let hosts: BTreeSet<&str> =
        variant.architecture.exposed().map(|(_, _, expose)| expose.host.value.as_str()).collect();
    hosts.iter().map(|host| format!("docker run --rm {ZAP} zap-baseline.py -t https://{host}\n")).collect()
}

/// A text inside of JSON inside of double quotes of the shell.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let inner = json.trim_start_matches('"').trim_end_matches('"');
    inner.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`")
}

/// The variable that has a key of a secret in a pipeline: `RELEASE_MAIL_URL` for `release-mail/url`.
pub fn secret_variable(secret: &str, key: &str) -> String {
    let name = format!("{secret}_{key}");
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The name of a step in the file.
pub(crate) fn name_of(step: Step) -> String {
    serde_json::to_value(step).ok().and_then(|name| name.as_str().map(ToOwned::to_owned)).expect("a step has a name")
}
