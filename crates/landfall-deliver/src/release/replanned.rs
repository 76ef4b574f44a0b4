//! Canaries whose size was planned again when their release began, as an autoscaler had changed the copies beside them.

use serde::{Deserialize, Serialize};

use super::{Release, ReleaseSpec};
use crate::plan::{CanarySize, Strategy};

/// The canary of a service, planned again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replanned {
    /// The service.
    pub service: String,
    /// How many copies were wanted when the release began.
    pub beside: u32,
    /// The canary beside them.
    pub size: CanarySize,
    /// The fewest copies that its autoscaler may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler_floor: Option<u32>,
    /// The most copies that its autoscaler may have without a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler_ceiling: Option<u32>,
}

impl Release {
    /// What is carried out: what was written down, with the canaries as they were planned when it began.
    pub fn carried(&self) -> ReleaseSpec {
        let mut spec = self.spec.clone();
        for again in self.status.iter().flat_map(|status| &status.replanned) {
            let own = spec.services.iter_mut().find(|own| own.name == again.service);
            let Some(own) = own else { continue };
            if let Strategy::Canary(canary) = &mut own.strategy {
                canary.resize(&again.size);
                (own.autoscaler_floor, own.autoscaler_ceiling) = (again.autoscaler_floor, again.autoscaler_ceiling);
            }
        }
        spec
    }
}
