//! Whether copies follow the load and the time of day: stand-ins are told to have load until their autoscaler adds copies, and then
//! none until it takes them away; the clock of the engine is set to before each window begins, and ends.
//!
//! The clock runs faster where nothing but calm is waited for. Whatever happens, load and clock are as before in the end.
//!
//! Not handled: programs of one's own, which take no such words.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use http::Request;
use http_body_util::Full;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use landfall_deliver::next_window;
use landfall_model::{ENGINE_CLOCK, Element, Percent, Service, Window};
use landfall_standin::{FAULT_PATH, Fault, ServiceBehaviour};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::{Lines, ready_pods};
use super::running::Found;
use crate::commands::engine::Reading;

/// How long the first copy may take: autoscalers look every 15 s, at what is measured every 15 s.
const RISE: Duration = Duration::from_mins(3);

/// After so long without another copy there will be none.
const NO_MORE: Duration = Duration::from_mins(1);

/// How long copies may take to go when the load was low for as long as is declared.
const FALL: Duration = Duration::from_mins(3);

const POLL: Duration = Duration::from_secs(1);

/// How much faster the clock runs while calm is waited for.
const CALM_SPEED: f64 = 20.0;

/// How much faster it runs while copies start for a window. They start in the time of this machine.
const WINDOW_SPEED: f64 = 4.0;

/// How long before a window begins one looks: earlier than whoever keeps it begins to start copies.
const BEFORE: SignedDuration = SignedDuration::from_secs(300);

/// The default of Kubernetes, which is rendered where nothing else is declared.
const DEFAULT_CPU: u64 = 80;

/// What a stand-in needs for itself, about.
const OWN_MEMORY: u64 = 24 << 20;

/// What was seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ScalingReport {
    pub(crate) services: Vec<ServiceScaling>,
    pub(crate) windows: Vec<WindowScaling>,
}

/// A service under a load of one kind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceScaling {
    pub(crate) service: String,
    /// `cpu`, `memory`, or the name of a metric of its own.
    pub(crate) by: String,
    /// Copies without load.
    pub(crate) at_rest: u32,
    /// The most that are declared.
    pub(crate) most: u32,
    /// The most copies under load, and how many seconds after it began they were ready.
    pub(crate) reached: Option<u32>,
    pub(crate) reached_after_s: Option<f64>,
    /// Copies without load again, and how many seconds later by the clock of the engine.
    pub(crate) calm: Option<u32>,
    pub(crate) calm_after_s: Option<f64>,
    /// Why it was not tried.
    pub(crate) missing: Option<String>,
    /// What is not as declared.
    pub(crate) problem: Option<String>,
}

/// A window of a service that was played.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WindowScaling {
    pub(crate) service: String,
    pub(crate) window: String,
    /// The fewest copies in it.
    pub(crate) least: u32,
    pub(crate) begins: String,
    /// Copies before anybody thought of it.
    pub(crate) before: u32,
    /// How many seconds before it began, by the clock of the engine, as many copies were ready.
    pub(crate) ready_before_s: Option<f64>,
    /// Copies when it had ended.
    pub(crate) after: u32,
    /// What is not as declared.
    pub(crate) problem: Option<String>,
}

impl ScalingReport {
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        let services = self.services.iter().filter_map(|own| {
            let why = own.problem.as_ref()?;
            Some(format!("`{}` by {}: {why}", own.service, own.by))
        });
        let windows = self.windows.iter().filter_map(|own| {
            let why = own.problem.as_ref()?;
            Some(format!("`{}`, window `{}`: {why}", own.service, own.window))
        });
        services.chain(windows)
    }

    /// The same with what was seen again, of which the last counts.
    pub(crate) fn renewed(mut self, by: Self) -> Self {
        self.services.retain(|own| !by.services.iter().any(|new| (&new.service, &new.by) == (&own.service, &own.by)));
        self.windows
            .retain(|own| !by.windows.iter().any(|new| (&new.service, &new.window) == (&own.service, &own.window)));
        self.services.extend(by.services);
        self.windows.extend(by.windows);
        self
    }
}

impl Found {
    /// Tries each of these services, or each that has an autoscaler; `tell` hears what is tried.
    pub(crate) async fn scaling(
        &self,
        services: &[String],
        mut tell: impl FnMut(&str),
        stopped: impl Future<Output = ()>,
    ) -> anyhow::Result<ScalingReport> {
        let meter = Meter { found: self, lines: Lines::new(self.client.clone()) };
        let clock = meter.clock().await?;
        let measured = tokio::select! {
            measured = meter.all(services, &mut tell) => measured,
            () = stopped => Err(anyhow::anyhow!("it was stopped")),
        };
        // As it was, whatever has happened.
        let before = json!({ "offsetSeconds": clock.offset_seconds, "speed": clock.speed });
        let restored = meter.set_clock(&before).await;
        for service in services {
            meter.relieve(service).await;
        }
        let measured = measured?;
        restored?;
        Ok(measured)
    }

    /// The services whose copies follow something.
    pub(crate) fn scaled(&self) -> Vec<String> {
        let services = self.architecture.document.services.iter();
        let scaled = services.filter(|(_, service)| service.replicas.scales() || !service.windows.is_empty());
        // A part has not all of them.
        let runs = |name: &str| self.plan.services.iter().any(|own| own.service == name);
        scaled.map(|(name, _)| name.to_string()).filter(|name| runs(name)).collect()
    }
}

/// A load of one kind.
struct Load {
    by: String,
    fault: Result<Fault, String>,
}

struct Meter<'a> {
    found: &'a Found,
    lines: Lines,
}

impl Meter<'_> {
    async fn all(&self, services: &[String], tell: &mut impl FnMut(&str)) -> anyhow::Result<ScalingReport> {
        let mut report = ScalingReport::default();
        for name in services {
            let service =
                self.found.architecture.service(name).context("whoever asks has looked whether it is there")?;
            if service.replicas.scales() {
                for load in loads(service) {
                    tell(&format!("`{name}` under load, by {}", load.by));
                    report.services.push(self.under(name, service, load).await?);
                }
            }
            for window in service.windows.iter().filter(|window| window.min.is_some()) {
                tell(&format!("`{name}` at the beginning and end of `{}`", window.name));
                report.windows.push(self.play(name, service, window).await?);
            }
        }
        Ok(report)
    }

    async fn under(&self, name: &str, service: &Service, load: Load) -> anyhow::Result<ServiceScaling> {
        let (at_rest, most) = (self.copies(name).await?, service.replicas.ceiling());
        let mut seen = ServiceScaling {
            service: name.to_owned(),
            by: load.by,
            at_rest,
            most,
            reached: None,
            reached_after_s: None,
            calm: None,
            calm_after_s: None,
            missing: None,
            problem: None,
        };
        let fault = match load.fault {
            _ if self.stand_in(name).is_none() => {
                Err("a program of your own runs it, which nobody can tell to have load".to_owned())
            }
            _ if at_rest >= most => Err(format!("{at_rest} copies run, and more are not declared")),
            fault => fault,
        };
        let fault = match fault {
            Ok(fault) => fault,
            Err(why) => {
                seen.missing = Some(why);
                return Ok(seen);
            }
        };
        let (begin, mut reached, mut at) = (Instant::now(), at_rest, Instant::now());
        while reached < most && at.elapsed() < if reached > at_rest { NO_MORE } else { RISE } {
            // Copies that have come meanwhile have as much to do as the others.
            self.burden(name, &fault).await;
            tokio::time::sleep(POLL).await;
            let now = self.copies(name).await?;
            if now > reached {
                (reached, at) = (now, Instant::now());
            }
        }
        seen.reached = Some(reached);
        seen.reached_after_s = (reached > at_rest).then(|| (at - begin).as_secs_f64());
        self.burden(name, &idle(service)).await;
        let (calm, after) = self.until_calm(name, at_rest).await?;
        self.relieve(name).await;
        (seen.calm, seen.calm_after_s) = (Some(calm), Some(after.as_secs_f64()));
        seen.problem = if reached == at_rest {
            Some(format!("no copy was added within {} s", RISE.as_secs()))
        } else if calm > at_rest {
            Some(format!("{calm} copies are there {} s after the load, and {at_rest} before it", after.as_secs()))
        } else {
            None
        };
        Ok(seen)
    }

    async fn play(&self, name: &str, service: &Service, window: &Window) -> anyhow::Result<WindowScaling> {
        let least = window.min.as_ref().map_or(1, |min| min.value);
        // The one after the next, where the next begins before somebody can look.
        let soon = self.clock().await?.time + BEFORE;
        let (begins, ends) = next_window(window, soon).context("a window that was checked begins some day")?;
        self.set_clock(&json!({ "time": begins - BEFORE, "speed": WINDOW_SPEED })).await?;
        let before = self.copies(name).await?;
        let (mut ready_at, mut now) = (None, begins - BEFORE);
        let idle = idle(service);
        let mut ready = before;
        while now < begins {
            self.burden(name, &idle).await;
            tokio::time::sleep(POLL).await;
            now = self.clock().await?.time;
            ready = self.copies(name).await?;
            ready_at = if ready >= least { ready_at.or(Some(now)) } else { None };
        }
        let ready_before_s = ready_at.map(|at| (begins - at).total(jiff::Unit::Second)).transpose()?;
        let ready_before_s = ready_before_s.filter(|seconds| *seconds >= 0.0);
        self.set_clock(&json!({ "time": ends, "speed": WINDOW_SPEED })).await?;
        let (after, _) = self.until_calm(name, service.replicas.floor().max(1)).await?;
        self.relieve(name).await;
        let problem = if ready_before_s.is_none() {
            Some(format!("{ready} copies were ready when it began, and not {least}"))
        } else if after >= least && least > service.replicas.floor() {
            Some(format!("{after} copies are there after its end"))
        } else {
            None
        };
        Ok(WindowScaling {
            service: name.to_owned(),
            window: window.name.to_string(),
            least,
            begins: begins.to_string(),
            before,
            ready_before_s,
            after,
            problem,
        })
    }

    /// Waits on a fast clock until no more copies are there than this: how many there are, and how long it took on that clock.
    async fn until_calm(&self, name: &str, wanted: u32) -> anyhow::Result<(u32, SignedDuration)> {
        let (begin, deadline) = (self.clock().await?.time, Instant::now() + FALL);
        self.set_clock(&json!({ "speed": CALM_SPEED })).await?;
        let mut copies = self.copies(name).await?;
        while copies > wanted && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
            copies = self.copies(name).await?;
        }
        let after = self.clock().await?.time.duration_since(begin);
        self.set_clock(&json!({ "speed": 1.0 })).await?;
        Ok((copies, after))
    }

    fn namespace(&self, name: &str) -> anyhow::Result<String> {
        let service = Element::Service(name.parse().map_err(|error| anyhow::anyhow!("`{name}`: {error}"))?);
        Ok(self.found.architecture.namespace_of(&service).to_string())
    }

    /// The stand-in of a service, if it is run by one.
    fn stand_in(&self, name: &str) -> Option<&ServiceBehaviour> {
        self.found.plan.services.iter().find(|own| own.service == name && own.program.is_none())
    }

    /// How many copies are ready.
    async fn copies(&self, name: &str) -> anyhow::Result<u32> {
        let deployments = Api::<Deployment>::namespaced(self.found.client.clone(), &self.namespace(name)?);
        let deployment =
            deployments.get(name).await.with_context(|| format!("failed to read the Deployment `{name}`"))?;
        let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        Ok(u32::try_from(ready).unwrap_or_default())
    }

    /// Tells all copies of a service what to do. One that goes meanwhile has nothing to do.
    async fn burden(&self, name: &str, fault: &Fault) {
        let text = serde_json::to_string(fault).expect("a fault is JSON");
        self.tell(name, |path| Request::post(path).body(Full::from(text.clone()))).await;
    }

    async fn relieve(&self, name: &str) {
        self.tell(name, |path| Request::delete(path).body(Full::default())).await;
    }

    async fn tell(&self, name: &str, request: impl Fn(&str) -> Result<Request<Full<hyper::body::Bytes>>, http::Error>) {
        let Some(port) = self.stand_in(name).and_then(|own| own.ports.first()) else { return };
        let Ok(namespace) = self.namespace(name) else { return };
        let Ok(pods) = ready_pods(&self.found.client, &namespace, name).await else { return };
        for pod in &pods {
            let request = request(FAULT_PATH).expect("a constant path makes a request");
            let _gone_or_told = self.lines.ask::<Value>(pod, *port, request).await;
        }
    }

    async fn clock(&self) -> anyhow::Result<Reading> {
        let request = Request::get(ENGINE_CLOCK).body(Vec::new())?;
        self.found.client.request::<Reading>(request).await.context("failed to read the clock of the engine")
    }

    async fn set_clock(&self, setting: &Value) -> anyhow::Result<()> {
        let request = Request::put(ENGINE_CLOCK).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(setting.to_string().into_bytes())?;
        let set = self.found.client.request::<Reading>(request).await;
        set.map(drop).context("failed to set the clock of the engine")
    }
}

/// Nothing to do. A figure that nobody tells says nothing, and copies would stay.
fn idle(service: &Service) -> Fault {
    let gauges = service.replicas.custom.keys().map(|name| (name.value.clone(), 0.0)).collect();
    Fault { gauges, ..Fault::default() }
}

/// The loads that the autoscaler of a service should follow: of each kind so much that it takes twice as many copies, or why not.
fn loads(service: &Service) -> Vec<Load> {
    let replicas = &service.replicas;
    let twice = |share: &Percent| 2 * u64::from(share.whole());
    let cpu = match &replicas.cpu {
        Some(share) => Some(twice(&share.value)),
        None => (replicas.memory.is_none() && replicas.custom.is_empty()).then_some(2 * DEFAULT_CPU),
    };
    let cpu = cpu.map(|percent| {
        let asked =
            service.resources.cpu.as_ref().ok_or("it requests no processor time, of which a share could be used");
        let fault = asked.map(|asked| {
            let wanted = (asked.low.millicores() * percent / 100).min(asked.high.millicores());
            Fault { busy_millicores: u32::try_from(wanted).unwrap_or(u32::MAX), ..Fault::default() }
        });
        Load { by: "cpu".to_owned(), fault: fault.map_err(ToOwned::to_owned) }
    });
    let memory = replicas.memory.as_ref().map(|share| {
        let asked = service.resources.memory.as_ref().ok_or("it requests no memory, of which a share could be used");
        let fault = asked.map(|asked| {
            // Near its limit a copy is killed.
            let wanted = (asked.low.get() * twice(&share.value) / 100).min(asked.high.get() * 9 / 10);
            Fault { hold_bytes: wanted.saturating_sub(OWN_MEMORY), ..Fault::default() }
        });
        Load { by: "memory".to_owned(), fault: fault.map_err(ToOwned::to_owned) }
    });
    let custom = replicas.custom.iter().map(|(name, each)| {
        let gauges = BTreeMap::from([(name.value.clone(), f64::from(2 * each.value))]);
        Load { by: name.value.clone(), fault: Ok(Fault { gauges, ..Fault::default() }) }
    });
    cpu.into_iter().chain(memory).chain(custom).collect()
}
