//! Writes what the gateway has understood into the status of the objects.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::report::{GatewayReport, ParentReport, Report, Verdict};
use super::resources::{Gateway, GatewayClass, HTTPRoute};
use super::sources::Sources;
use super::{CONTROLLER, gateway_api};
use crate::cache::ObjectKey;
use crate::context::Context;

/// In whose name the status is written.
const FIELD_MANAGER: &str = "landfall-gateway";

/// The address at which everything is served; the ports are the gateway's own.
const ADDRESS: &str = "127.0.0.1";

/// A status that could not be written is written again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// Writes each report until cancelled.
pub(super) async fn run(
    context: Context,
    sources: Sources,
    mut reports: watch::Receiver<Arc<Report>>,
    cancel: CancellationToken,
) {
    let writer = Writer { client: context.client.clone(), context, sources };
    loop {
        let report = Arc::clone(&reports.borrow_and_update());
        let complete = writer.write(&report).await;
        let wait = if complete { Duration::MAX } else { RETRY };
        // The newest report is kept by the channel.
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            changed = reports.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

struct Writer {
    client: Client,
    context: Context,
    sources: Sources,
}

impl Writer {
    /// False when something is left to write.
    async fn write(&self, report: &Report) -> bool {
        let now = self.context.clock.now();
        let mut complete = true;
        for key in &report.ingresses {
            let Some(ingress) = self.context.caches.ingresses.get(key) else { continue };
            let wanted = json!([{ "ip": ADDRESS }]);
            let current = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let current = current.map(|balancer| json!(balancer.ingress)).unwrap_or_default();
            if current != wanted {
                complete &= self.patch::<Ingress>(key, json!({ "loadBalancer": { "ingress": wanted } })).await;
            }
        }
        for key in &report.classes {
            let Some(class) = self.sources.gateway_classes.get(key) else { continue };
            let generation = class.metadata.generation;
            let accepted = [Verdict::yes("Accepted")];
            let conditions = conditions(&class.status["conditions"], &accepted, generation, now);
            if class.status["conditions"] != conditions {
                let api = Api::<GatewayClass>::all(self.client.clone());
                complete &= send(&api, key, json!({ "conditions": conditions })).await;
            }
        }
        for (key, report) in &report.gateways {
            let Some(gateway) = self.sources.gateways.get(key) else { continue };
            let wanted = gateway_status(&gateway, report, now);
            if ["addresses", "conditions", "listeners"].iter().any(|part| gateway.status[part] != wanted[part]) {
                complete &= self.patch::<Gateway>(key, wanted).await;
            }
        }
        for (key, parents) in &report.routes {
            let Some(route) = self.sources.routes.get(key) else { continue };
            let wanted = route_parents(&route, parents, now);
            if route.status["parents"] != wanted {
                complete &= self.patch::<HTTPRoute>(key, json!({ "parents": wanted })).await;
            }
        }
        // A route that has left our gateways has nothing more from us.
        for route in self.sources.routes.list() {
            let key = ObjectKey::of(&*route);
            let told = route.status["parents"].as_array().into_iter().flatten();
            let ours = told.filter(|parent| parent["controllerName"] == CONTROLLER).count();
            if ours > 0 && !report.routes.contains_key(&key) {
                complete &= self.patch::<HTTPRoute>(&key, json!({ "parents": route_parents(&route, &[], now) })).await;
            }
        }
        complete
    }

    async fn patch<K>(&self, key: &ObjectKey, status: Value) -> bool
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        send(&Api::<K>::namespaced(self.client.clone(), &key.namespace), key, status).await
    }
}

async fn send<K: Clone + DeserializeOwned + std::fmt::Debug>(api: &Api<K>, key: &ObjectKey, status: Value) -> bool {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_status(&key.name, &params, &Patch::Merge(json!({ "status": status }))).await {
        Ok(_) => true,
        // Gone meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => true,
        Err(error) => {
            debug!(%key, %error, "a status was not written");
            false
        }
    }
}

fn gateway_status(gateway: &Gateway, report: &GatewayReport, now: Timestamp) -> Value {
    let generation = gateway.metadata.generation;
    let listeners = report.listeners.iter().map(|listener| {
        let mut known = gateway.status["listeners"].as_array().into_iter().flatten();
        let known = known.find(|known| known["name"] == listener.name.as_str());
        let known = known.map_or(&Value::Null, |known| &known["conditions"]);
        let kinds = json!([{ "group": gateway_api::GROUP, "kind": "HTTPRoute" }]);
        json!({
            "name": listener.name,
            "supportedKinds": if listener.supported { kinds } else { json!([]) },
            "attachedRoutes": listener.attached,
            "conditions": conditions(known, &listener.conditions, generation, now),
        })
    });
    json!({
        "addresses": [{ "type": "IPAddress", "value": ADDRESS }],
        "conditions": conditions(&gateway.status["conditions"], &report.conditions, generation, now),
        "listeners": listeners.collect::<Vec<_>>(),
    })
}

/// Our parents as we see them, and those of other controllers as they are.
fn route_parents(route: &HTTPRoute, reports: &[ParentReport], now: Timestamp) -> Value {
    let known: Vec<&Value> = route.status["parents"].as_array().into_iter().flatten().collect();
    let others = known.iter().filter(|parent| parent["controllerName"] != CONTROLLER).map(|parent| (*parent).clone());
    let ours = reports.iter().map(|report| {
        let parent = json!(report.parent);
        let before =
            known.iter().find(|known| known["controllerName"] == CONTROLLER && same(&known["parentRef"], &parent));
        let before = before.map_or(&Value::Null, |before| &before["conditions"]);
        let parent = before_or(&known, &parent);
        let conditions = conditions(before, &report.conditions, route.metadata.generation, now);
        json!({ "parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions })
    });
    others.chain(ours.collect::<Vec<_>>()).collect()
}

/// Whether two references are the same once the server has filled in the defaults of one.
fn same(known: &Value, ours: &Value) -> bool {
    ["name", "namespace", "sectionName", "port"].iter().all(|part| known[part] == ours[part])
}

/// The reference as the server has it, if it has it.
fn before_or(known: &[&Value], ours: &Value) -> Value {
    let found = known.iter().find(|known| known["controllerName"] == CONTROLLER && same(&known["parentRef"], ours));
    found.map_or_else(|| ours.clone(), |found| found["parentRef"].clone())
}

/// Conditions with their times: a condition that says what it said keeps its time.
fn conditions(known: &Value, verdicts: &[Verdict], generation: Option<i64>, now: Timestamp) -> Value {
    let conditions = verdicts.iter().map(|verdict| {
        let status = if verdict.status { "True" } else { "False" };
        let mut known = known.as_array().into_iter().flatten();
        let before = known.find(|known| known["type"] == verdict.type_ && known["status"] == status);
        let now = || json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        json!({
            "type": verdict.type_,
            "status": status,
            "observedGeneration": generation.unwrap_or_default(),
            "lastTransitionTime": before.map_or_else(now, |before| before["lastTransitionTime"].clone()),
            "reason": verdict.reason,
            "message": verdict.message,
        })
    });
    conditions.collect()
}
