//! Brings one container to run: image, configuration, process, `postStart` hook, with the events that tell of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, LifecycleHandler, ObjectReference, Pod, Secret};
use tokio::time::Instant;

use super::Shared;
use super::environment::{self, Place, Sources};
use super::probe::{self, Target};
use super::volumes::{self, Volumes};
use crate::event::{EventType, Recorder, reference_to};
use crate::images::{Entry, canonical};
use crate::network::Level;
use crate::runtime::{ContainerRecord, ContainerSpec, Limits, Mount, START_ERROR, Sandbox, Stdin};
use crate::scheme::quantity::Quantity;

/// What `PATH` is when neither pod nor catalogue names one: as container images have it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long the record of a container that was started or stopped may take to arrive.
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Why a container does not run, as its status says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Everything that starting a container needs.
pub(super) struct Launch {
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) is_init: bool,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) volumes: Volumes,
    pub(super) place: Place,
    pub(super) attempt: u32,
    pub(super) id: String,
}

/// Records an event about a container.
pub(super) fn tell(
    recorder: &Recorder,
    pod: &Pod,
    name: &str,
    is_init: bool,
    type_: EventType,
    reason: &str,
    text: &str,
) {
    let list = if is_init { "initContainers" } else { "containers" };
    let about = ObjectReference { field_path: Some(format!("spec.{list}{{{name}}}")), ..reference_to(pod) };
    recorder.record(about, type_, reason, text.to_owned());
}

/// The image as the status shows it once it is there.
pub(super) fn image_id(image: &str) -> String {
    let (repository, tag) = canonical(image);
    format!("{repository}:{tag}")
}

impl Launch {
    /// Starts the container. The image was found before: see [`Launch::image`].
    pub(super) async fn run(self, entry: Entry) -> Result<(), Refusal> {
        let failed = |reason: &'static str, message: String| {
            self.tell(EventType::Warning, "Failed", &format!("Error: {message}"));
            Refusal { reason, message }
        };
        let spec = self.spec(&entry).await.map_err(|message| failed("CreateContainerConfigError", message))?;
        self.tell(EventType::Normal, "Created", "Container created");
        let mut records = self.sandbox.records();
        let started = self.sandbox.start(spec).await;
        let started = started.map_err(|error| failed("RunContainerError", error.to_string()))?;
        // The worker plans by the records: it must not see this container as one that was never started, or one that never
        // ran as one that runs.
        let is_this = |record: &ContainerRecord| record.id == self.id && (started.is_running() || !record.is_running());
        let recorded = records.wait_for(|records| records.iter().any(is_this));
        if !matches!(tokio::time::timeout(PATIENCE, recorded).await, Ok(Ok(_))) {
            return Err(failed("RunContainerError", "the pod's shim says nothing of the container".to_owned()));
        }
        if let Some(exit) = started.exit().filter(|exit| exit.reason == START_ERROR) {
            return Err(failed("RunContainerError", exit.message.clone().unwrap_or_default()));
        }
        self.tell(EventType::Normal, "Started", "Container started");
        let hook = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        if let Some(hook) = hook
            && let Err(error) = run_hook(hook, &self.target()).await
        {
            tracing::info!(container = self.container.name, %error, "the postStart hook failed");
            self.tell(EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
            self.tell(EventType::Normal, "Killing", "FailedPostStartHook");
            let grace = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
            let grace = std::time::Duration::from_secs(u64::try_from(grace).unwrap_or_default());
            let stopped = self.sandbox.stop(&self.id, "SIGTERM", grace).await;
            let has_ended =
                records.wait_for(|records| !records.iter().any(|record| record.id == self.id && record.is_running()));
            // Otherwise the worker would see a container that runs and whose hook is over. One that never ends is stopped
            // again by whatever comes next.
            drop(tokio::time::timeout(PATIENCE, has_ended).await);
            let message = stopped.err().map_or_else(String::new, |error| error.to_string());
            return Err(Refusal { reason: "PostStartHookError", message });
        }
        Ok(())
    }

    /// Looks the image up, with the events of a pull.
    pub(super) fn image(&self) -> Result<Entry, Refusal> {
        let image = self.container.image.as_deref().unwrap_or_default();
        let policy = self.container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let found = self.shared.images.load().find(image).cloned();
        match (found, policy) {
            (Some(entry), "Always") => {
                let begun = Instant::now();
                self.tell(EventType::Normal, "Pulling", &format!("Pulling image \"{image}\""));
                let took = begun.elapsed().as_millis();
                self.tell(
                    EventType::Normal,
                    "Pulled",
                    &format!("Successfully pulled image \"{image}\" in {took}ms ({took}ms including waiting). Image size: 0 bytes."),
                );
                Ok(entry)
            }
            (Some(entry), _) => {
                let text =
                    format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
                self.tell(EventType::Normal, "Pulled", &text);
                Ok(entry)
            }
            (None, "Never") => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                self.tell(EventType::Warning, "ErrImageNeverPull", &message);
                self.tell(EventType::Warning, "Failed", "Error: ErrImageNeverPull");
                Err(Refusal { reason: "ErrImageNeverPull", message })
            }
            (None, _) => {
                let (repository, _) = canonical(image);
                let message = format!(
                    "no entry of the image catalogue fits {image}; add one, such as \
                     `- {{ image: \"{repository}\", program: /path/to/program }}`, to the file given by --images"
                );
                self.tell(EventType::Normal, "Pulling", &format!("Pulling image \"{image}\""));
                self.tell(EventType::Warning, "Failed", &format!("Failed to pull image \"{image}\": {message}"));
                self.tell(EventType::Warning, "Failed", "Error: ErrImagePull");
                Err(Refusal { reason: "ErrImagePull", message })
            }
        }
    }

    fn tell(&self, type_: EventType, reason: &str, text: &str) {
        tell(&self.recorder, &self.pod, &self.container.name, self.is_init, type_, reason, text);
    }

    fn target(&self) -> Target {
        Target {
            sandbox: Arc::clone(&self.sandbox),
            id: self.id.clone(),
            pod_ip: self.place.pod_ip.clone(),
            container: self.container.clone(),
            dialer: self.shared.network.node_dialer(),
        }
    }

    async fn spec(&self, entry: &Entry) -> Result<ContainerSpec, String> {
        let (pod, container) = (&*self.pod, &self.container);
        let pod_spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let caches = &self.shared.context.caches;
        let links = pod_spec.enable_service_links != Some(false);
        let mut services = caches.services.in_namespace(namespace);
        if namespace != "default" {
            services.extend(caches.services.get(&crate::cache::ObjectKey::new("default", "kubernetes")));
        }
        let services = environment::service_variables(services.iter().map(AsRef::as_ref), namespace, links);
        let sources = Fetched::new(&self.shared, namespace, container).await;
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
            ("HOSTNAME".to_owned(), super::hostname(pod)),
        ]);
        // On the network of the machine a program that listens everywhere takes the port from all others.
        if self.shared.network.level() == Level::Loopback {
            env.insert("POD_IP".to_owned(), self.place.pod_ip.clone());
        }
        let fill = |text: &str| self.fill(text);
        env.extend(entry.env.iter().map(|(name, value)| (name.clone(), fill(value))));
        let own = environment::variables(pod, container, services, &sources, &self.place)?;
        let expand = |text: &str| environment::expand(text, |name| own.get(name).cloned());

        let command: Vec<_> = container.command.iter().flatten().map(|text| expand(text)).collect();
        let args: Vec<_> = container.args.iter().flatten().map(|text| expand(text)).collect();
        let image_args = || entry.args.iter().map(|text| fill(text)).collect::<Vec<_>>();
        let program = entry.program.as_deref().map(fill);
        let argv = match program {
            Some(program) if entry.ignore_command || (command.is_empty() && args.is_empty()) => {
                [vec![program], image_args()].concat()
            }
            Some(program) if command.is_empty() => [vec![program], args].concat(),
            None if command.is_empty() && args.is_empty() => return Err("no command specified".to_owned()),
            _ => [command, args].concat(),
        };
        let mut mounts = volumes::mounts(container, &self.volumes, expand)?;
        let of_image = |(target, source): (&PathBuf, &PathBuf)| Mount {
            source: source.clone(),
            target: target.clone(),
            read_only: true,
        };
        mounts.extend(entry.files.iter().map(of_image));
        let writable = |folder: &PathBuf| Mount { source: folder.clone(), target: folder.clone(), read_only: false };
        mounts.extend(entry.writable.iter().map(writable));
        env.extend(own);
        let limit = |list: Option<&BTreeMap<String, _>>, name: &str, read: fn(Quantity) -> i128| {
            let quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> = list?.get(name);
            u64::try_from(read(Quantity::parse(&quantity?.0)?)).ok().filter(|value| *value > 0)
        };
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let security = container.security_context.as_ref();
        let message_policy = container.termination_message_policy.as_deref();
        Ok(ContainerSpec {
            name: container.name.clone(),
            attempt: self.attempt,
            id: self.id.clone(),
            image: container.image.clone().unwrap_or_default(),
            argv,
            env,
            working_dir: container
                .working_dir
                .as_ref()
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
                .or_else(|| entry.working_dir.clone()),
            mounts,
            limits: Limits {
                memory_bytes: limit(limits, "memory", Quantity::units),
                cpu_millis: limit(limits, "cpu", Quantity::millis),
                cpu_request_millis: limit(requests, "cpu", Quantity::millis),
            },
            stdin: match (container.stdin, container.stdin_once) {
                (Some(true), Some(true)) => Stdin::Once,
                (Some(true), _) => Stdin::Open,
                _ => Stdin::Closed,
            },
            tty: container.tty == Some(true),
            termination_message_path: container
                .termination_message_path
                .clone()
                .unwrap_or_else(|| "/dev/termination-log".to_owned())
                .into(),
            termination_message_from_log: message_policy == Some("FallbackToLogsOnError"),
            no_new_privileges: security.is_some_and(|security| security.allow_privilege_escalation == Some(false)),
            read_only_root: security.is_some_and(|security| security.read_only_root_filesystem == Some(true)),
        })
    }

    /// Fills in the placeholders of the image catalogue.
    fn fill(&self, text: &str) -> String {
        let ports: Vec<_> = self.container.ports.iter().flatten().collect();
        let mut filled = text
            .replace("{{pod_ip}}", &self.place.pod_ip)
            .replace("{{pod_name}}", self.pod.metadata.name.as_deref().unwrap_or_default())
            .replace("{{namespace}}", self.pod.metadata.namespace.as_deref().unwrap_or_default());
        if let Some(first) = ports.first() {
            filled = filled.replace("{{port}}", &first.container_port.to_string());
        }
        for port in ports {
            let name = port.name.as_deref().unwrap_or_default();
            filled = filled.replace(&format!("{{{{port:{name}}}}}"), &port.container_port.to_string());
        }
        filled
    }
}

/// Runs a hook in or against a running container.
pub(super) async fn run_hook(hook: &LifecycleHandler, target: &Target) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let (code, output) = probe::run(target, exec.command.clone().unwrap_or_default()).await?;
        return if code == 0 { Ok(()) } else { Err(format!("command exited with {code}: {output}")) };
    }
    if let Some(get) = &hook.http_get {
        return match probe::http_get(get, target).await {
            Ok(status) if (200..400).contains(&status) => Ok(()),
            Ok(status) => Err(format!("the answer has status {status}")),
            Err(probe::HttpError::Connect(error) | probe::HttpError::Other(error)) => Err(error),
        };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(std::time::Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())).await;
    }
    Ok(())
}

/// The config maps and secrets that a container names.
struct Fetched {
    config_maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
}

impl Fetched {
    async fn new(shared: &Shared, namespace: &str, container: &Container) -> Self {
        let mut fetched = Self { config_maps: BTreeMap::new(), secrets: BTreeMap::new() };
        let from = || container.env_from.iter().flatten();
        let value_from = || container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
        let maps = from().filter_map(|from| from.config_map_ref.as_ref().map(|map| &map.name));
        let maps = maps.chain(value_from().filter_map(|from| from.config_map_key_ref.as_ref().map(|key| &key.name)));
        let context = &shared.context;
        for name in maps {
            if let Some(map) = volumes::find(context, &context.caches.config_maps, namespace, name).await {
                fetched.config_maps.insert(name.clone(), map);
            }
        }
        let secrets = from().filter_map(|from| from.secret_ref.as_ref().map(|secret| &secret.name));
        let secrets = secrets.chain(value_from().filter_map(|from| from.secret_key_ref.as_ref().map(|key| &key.name)));
        for name in secrets {
            if let Some(secret) = volumes::find(context, &context.caches.secrets, namespace, name).await {
                fetched.secrets.insert(name.clone(), secret);
            }
        }
        fetched
    }
}

impl Sources for Fetched {
    fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.config_maps.get(name)
    }

    fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)
    }
}
