//! Latency and errors that somebody asks for, to see how the callers bear them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// What is done to a share of the requests of a route, of a backend, or of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Fault {
    /// `HTTPRoute/shop/web`; every route when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// `shop/web:80`; every backend when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    /// How many of a hundred requests; all when it is not said.
    #[serde(default = "all")]
    pub(crate) percent: f64,
    /// Held back so long before anything else.
    #[serde(default)]
    pub(crate) delay_millis: u64,
    /// At most so much longer, evenly spread.
    #[serde(default)]
    pub(crate) jitter_millis: u64,
    /// Answered with this status instead of by the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
}

fn all() -> f64 {
    100.0
}

impl Fault {
    /// Why it makes no sense.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        if !(0.0..=100.0).contains(&self.percent) {
            Some("`percent` is between 0 and 100")
        } else if self.status.is_some_and(|status| !(200..600).contains(&status)) {
            Some("`status` is between 200 and 599")
        } else {
            None
        }
    }

    fn concerns(&self, route: &str, backend: &str) -> bool {
        self.route.as_deref().is_none_or(|wanted| wanted == route)
            && self.backend.as_deref().is_none_or(|wanted| wanted == backend)
    }
}

/// The faults in force, by name.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    active: ArcSwap<Vec<(String, Fault)>>,
}

impl Faults {
    pub(crate) fn list(&self) -> Arc<Vec<(String, Fault)>> {
        self.active.load_full()
    }

    pub(crate) fn put(&self, name: &str, fault: &Fault) {
        self.active.rcu(|active| {
            let others = active.iter().filter(|(other, _)| other != name).cloned();
            others.chain([(name.to_owned(), fault.clone())]).collect::<Vec<_>>()
        });
    }

    /// False when there was none.
    pub(crate) fn remove(&self, name: &str) -> bool {
        let before =
            self.active.rcu(|active| active.iter().filter(|(other, _)| other != name).cloned().collect::<Vec<_>>());
        before.iter().any(|(other, _)| other == name)
    }

    /// Draws what happens to one request: how long it is held back, and with what it is answered.
    pub(crate) fn draw(&self, route: &str, backend: &str) -> (Duration, Option<StatusCode>) {
        let active = self.active.load();
        let (mut delay, mut status) = (Duration::ZERO, None);
        for (_, fault) in active.iter().filter(|(_, fault)| fault.concerns(route, backend)) {
            if rand::random::<f64>() * 100.0 < fault.percent {
                let jitter = if fault.jitter_millis > 0 { rand::random_range(0..=fault.jitter_millis) } else { 0 };
                delay += Duration::from_millis(fault.delay_millis + jitter);
                status = status.or_else(|| StatusCode::from_u16(fault.status?).ok());
            }
        }
        (delay, status)
    }
}
