//! Evictions: deletions of pods that a disruption budget may refuse.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::delete::{self, Options};
use super::failure::{Failure, Subject};
use super::{Call, Warnings, read, subresource, write};
use crate::scheme::selector::LabelSelector;
use crate::store::{Collection, CommitError, Draft, Expect, Record};

/// How long a client should wait for a budget that is not up to date.
const RETRY_SECONDS: u32 = 10;

/// How many evictions a budget may have under way; more mean that nobody looks after it.
const MOST_DISRUPTED: usize = 2000;

/// How often an eviction starts over when its budget changes under it.
const ATTEMPTS: usize = 20;

pub(crate) async fn evict(call: &Call<'_>, eviction: &Value, warnings: &mut Warnings) -> Result<Response, Failure> {
    let name = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != call.target.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = Options::of(call, &eviction["deleteOptions"])?;
    for _ in 0..ATTEMPTS {
        let record = read::existing(call)?;
        let pod = record.value();
        if is_free(&pod) {
            break;
        }
        let budgets = budgets_of(call, &pod);
        let budget = match budgets.as_slice() {
            [] => break,
            [budget] => budget,
            _ => {
                return Err(Failure::plain_internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let value = budget.value();
        if !is_ready(&pod) && may_take_unhealthy(&value) {
            break;
        }
        let charged = charge(call, &value)?;
        if options.tries_only() {
            break;
        }
        let expect = Expect::Exactly(budget.revision());
        match call.state.store.put(budget.key().clone(), expect, Draft::new(&charged)).await {
            Ok(_) => break,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(write::storage(&error)),
        }
    }
    delete::delete_named(call, &call.target.name, &options, warnings).await?;
    Ok(subresource::success(StatusCode::CREATED))
}

/// A pod that has ended, is ending or has not begun disrupts nothing.
fn is_free(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        || pod["metadata"]["deletionTimestamp"].is_string()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn budgets_of(call: &Call<'_>, pod: &Value) -> Vec<std::sync::Arc<Record>> {
    let collection = Collection::new("policy", "poddisruptionbudgets");
    let listing = call.state.store.list(&collection, Some(&call.target.namespace));
    let selects = |record: &std::sync::Arc<Record>| {
        let selector = &record.value()["spec"]["selector"];
        !selector.is_null() && LabelSelector::of_object(selector).is_some_and(|selector| selector.matches(pod))
    };
    listing.records.into_iter().filter(selects).collect()
}

/// A pod that is not ready may go if the budget says so, or if the ready ones are enough.
fn may_take_unhealthy(budget: &Value) -> bool {
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0)
}

/// The budget with one disruption less.
fn charge(call: &Call<'_>, budget: &Value) -> Result<Value, Failure> {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    let refuse =
        |retry: u32, why: String| {
            Failure::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", retry)
                .because("DisruptionBudget", why, "")
        };
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refuse(RETRY_SECONDS, why));
    }
    let forbid = |why: &str| {
        let subject = Subject { group: "policy", kind: "poddisruptionbudget", name };
        Failure::forbidden(&subject, why)
    };
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(forbid("pdb disruptions allowed is negative"));
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        return Err(forbid("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return Err(refuse(0, why));
    }
    let mut charged = budget.clone();
    charged["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if !charged["status"]["disruptedPods"].is_object() {
        charged["status"]["disruptedPods"] = json!({});
    }
    charged["status"]["disruptedPods"][call.target.name.as_str()] = call.now().into();
    Ok(charged)
}
