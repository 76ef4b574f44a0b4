//! What `--only` leaves out: services with all their objects, the pods of stores, the stand-ins of externals, and the edges and flows
//! that need any of them.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Architecture, Element};
use serde::Serialize;

use super::{EdgePlan, Part, Plan, edge_name};

/// That a part runs, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::commands::up) struct PartPlan {
    /// The services that were named.
    pub(in crate::commands::up) only: Vec<String>,
    /// What does not run, as none of them needs it.
    pub(in crate::commands::up) services: Vec<String>,
    pub(in crate::commands::up) stores: Vec<String>,
    pub(in crate::commands::up) externals: Vec<String>,
}

impl PartPlan {
    fn leaves_out(&self, name: &str) -> bool {
        [&self.services, &self.stores, &self.externals].into_iter().flatten().any(|left_out| left_out == name)
    }

    /// Two lines for people: what runs, and what does not.
    pub(in crate::commands::up) fn lines(&self) -> [String; 2] {
        let listed = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let kinds = [("services", &self.services), ("stores", &self.stores), ("externals", &self.externals)];
        let kinds = kinds.into_iter().filter(|(_, names)| !names.is_empty());
        let left_out: Vec<_> = kinds.map(|(kind, names)| format!("{kind} {}", listed(names))).collect();
        let left_out = if left_out.is_empty() { "nothing".to_owned() } else { left_out.join("; ") };
        let runs = format!("{} and what is needed for that, as `--only` says", listed(&self.only));
        [runs, format!("left out: {left_out}")]
    }
}

impl Plan {
    /// Takes away what the part leaves out. Stores keep what they have: their custom resources stay, and run nothing.
    pub(super) fn add_part(&mut self, architecture: &Architecture, part: &Part) {
        if part.only.is_empty() {
            return;
        }
        let left_out = part.left_out(architecture);
        let hosts: BTreeSet<&str> = architecture
            .exposed()
            .filter(|(name, ..)| !left_out.contains(&Element::Service(name.value.clone())))
            .map(|(_, _, expose)| expose.host.as_str())
            .collect();
        let mut plan =
            PartPlan { only: part.only.clone(), services: Vec::new(), stores: Vec::new(), externals: Vec::new() };
        for element in &left_out {
            let name = element.name().to_owned();
            let (what, names) = match element {
                Element::Service(_) => ("service", &mut plan.services),
                Element::Store(_) => ("store", &mut plan.stores),
                Element::External(_) => ("external", &mut plan.externals),
                Element::Client => continue,
            };
            self.absent.insert(name.clone(), format!("{what} `{name}` is left out, as `--only` says"));
            match element {
                Element::Service(_) => self.take_away(&name, &hosts),
                Element::Store(_) => self.put_to_rest(&name),
                Element::External(_) | Element::Client => {}
            }
            names.push(name);
        }
        self.part = Some(plan);
    }

    /// Takes all objects of a service away but those that others use, too: the certificate of a host that another service has, and
    /// claims for volumes, as data stays.
    fn take_away(&mut self, service: &str, hosts: &BTreeSet<&str>) {
        // A service may be called like the platform; what it is tells their objects apart.
        let Some(labels) = self.labels_of_workload(service) else { return };
        self.objects.retain(|object| {
            let is_used = match object["kind"].as_str() {
                Some("Certificate") => {
                    let names = object["spec"]["dnsNames"].as_array().into_iter().flatten();
                    names.filter_map(|name| name.as_str()).any(|name| hosts.contains(name))
                }
                Some("PersistentVolumeClaim") => true,
                _ => false,
            };
            let own = &object["metadata"]["labels"];
            is_used || !labels.iter().all(|(key, value)| own[key] == value.as_str())
        });
    }

    /// By which labels the objects of a service are known.
    fn labels_of_workload(&self, service: &str) -> Option<Vec<(&'static str, String)>> {
        let workload = self.objects.iter().find(|object| {
            let is_workload =
                ["Deployment", "StatefulSet", "Rollout", "CronJob"].iter().any(|kind| object["kind"] == *kind);
            is_workload && object["metadata"]["name"] == service
        })?;
        let keys = ["app.kubernetes.io/name", "app.kubernetes.io/part-of", "app.kubernetes.io/component"];
        let label = |key: &'static str| Some((key, workload["metadata"]["labels"][key].as_str()?.to_owned()));
        keys.into_iter().map(label).collect()
    }

    /// Whether `--only` leaves that service, store or external out.
    pub(super) fn is_left_out(&self, name: &str) -> bool {
        self.part.as_ref().is_some_and(|part| part.leaves_out(name))
    }

    /// Everything that `--only` leaves out by name, with what to tell of it.
    pub(super) fn all_left_out(&self) -> BTreeMap<String, String> {
        let absent = self.absent.iter().filter(|(name, _)| self.is_left_out(name));
        absent.map(|(name, why)| (name.clone(), why.clone())).collect()
    }

    /// The architecture without what `--only` leaves out of its services and flows.
    pub(super) fn here(&self, architecture: &Architecture) -> Architecture {
        let mut here = architecture.clone();
        if self.part.is_some() {
            here.document.services.retain(|name, _| !self.is_left_out(name.as_str()));
            here.document.flows.retain(|_, flow| {
                let mut ends = flow.steps.iter().flat_map(|step| [step.from.as_str(), step.to.as_str()]);
                !ends.any(|end| self.is_left_out(end))
            });
        }
        here
    }

    /// Writes down that none of the edges of an element that is left out is tried.
    pub(super) fn leave_out_edges(&mut self, architecture: &Architecture, element: &Element) {
        for connection in architecture.from(element) {
            let (from, to) = (element.name().to_owned(), connection.to.name().to_owned());
            let missing = self.absent.get(&from).cloned();
            self.edges.push(EdgePlan { name: edge_name(connection), from, to, missing, left_out: true });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::planned;
    use super::*;
    use crate::commands::up::apply::Placeholders;
    use crate::commands::up::architecture_of;

    const SHOP: &str = "
landfall: v1
name: web
services:
  admin: { port: 8080, expose: { host: shop.example, path: /admin, tls: letsencrypt } }
  web: { port: 8080, expose: { host: shop.example, tls: letsencrypt }, uses: [{ call: mail }] }
  mail:
    port: 8080
    expose: { host: shop.example, path: /mail, tls: letsencrypt }
    uses: [{ send: carrier }]
  orders:
    port: 8080
    env: { DATABASE_URL: { store: rows/url } }
    uses: [{ write: rows/orders }, { call: mail }]
stores:
  rows: { engine: postgres, version: '17', size: 1Gi }
externals:
  carrier: { uses: [{ call: web }] }
flows:
  greet: { steps: [client -> mail, mail -> carrier] }
  look: { steps: [client -> web, web -> mail] }
";

    fn plan(only: &[&str]) -> Plan {
        let architecture = architecture_of(SHOP);
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        planned(&architecture, &Part { only, ..Part::default() })
    }

    /// The objects of a kind by name.
    fn named<'a>(plan: &'a Plan, kind: &str) -> Vec<&'a str> {
        let objects = plan.objects.iter().filter(|object| object["kind"] == kind);
        objects.filter_map(|object| object["metadata"]["name"].as_str()).collect()
    }

    #[test]
    fn services_that_are_left_out_have_no_objects_and_the_platform_keeps_its_own() {
        let (all, part) = (plan(&[]), plan(&["mail"]));
        assert_eq!(named(&all, "Deployment"), ["admin", "mail", "orders", "web"]);
        for kind in ["Deployment", "Service", "ServiceAccount"] {
            let others = named(&part, kind).into_iter().filter(|name| ["admin", "orders", "web"].contains(name));
            assert_eq!(others.collect::<Vec<_>>(), [""; 0], "{kind}");
        }
        assert_eq!(named(&part, "Namespace"), named(&all, "Namespace"), "the platform is called like a service");
        assert_eq!(named(&part, "Gateway"), named(&all, "Gateway"));
        assert!(named(&all, "Certificate").contains(&"admin-tls"));
        assert_eq!(named(&part, "Certificate"), named(&all, "Certificate"), "the services share a host");
        let lines = part.part.as_ref().expect("it is a part").lines();
        insta::assert_snapshot!(lines.join("\n"), @"
        `mail` and what is needed for that, as `--only` says
        left out: services `admin`, `orders`, `web`; stores `rows`
        ");
    }

    #[test]
    fn a_store_that_is_left_out_stays_and_runs_nothing() {
        let resting = |plan: &Plan| {
            let cluster = plan.objects.iter().find(|object| object["kind"] == "Cluster").expect("it is rendered");
            cluster["metadata"]["annotations"][landfall_standin::AT_REST].is_string()
        };
        assert!(resting(&plan(&["mail"])));
        assert!(!plan(&["orders"]).is_left_out("rows"), "it is used");
    }

    /// What a run without a store makes up, and where it puts something in the place of what nobody makes.
    fn made_up(text: &str, only: &[&str], without: &[&str]) -> (Vec<Value>, Placeholders) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let plan =
            planned(&architecture_of(text), &Part { only: list(only), without: list(without), ..Part::default() });
        let secrets = plan.additions.into_iter().filter(|object| object["kind"] == "ExternalSecret");
        (secrets.collect(), plan.placeholders)
    }

    /// Two namespaces ask for the credentials of one store.
    const KEPT: &str = "
landfall: v1
name: shop
services:
  web:
    port: 8080
    env: { KEY: { store: objects/username }, SECRET: { store: objects/password } }
    uses: [{ store: objects/images }]
  stock:
    port: 8080
    namespace: warehouse
    env: { KEY: { store: objects/username }, SECRET: { store: objects/password } }
    uses: [{ read: objects/images }]
  mail: { port: 8080 }
stores:
  objects: { engine: s3, size: 1Gi }
";

    #[test]
    fn the_credentials_of_a_store_are_made_up_whether_it_runs_or_not() {
        let (whole, _) = made_up(KEPT, &[], &[]);
        let of = |secret: &Value| [&secret["metadata"]["namespace"], &secret["metadata"]["name"]].map(Value::to_string);
        let expected =
            ["shop", "warehouse"].map(|namespace| [format!("\"{namespace}\""), "\"objects-credentials\"".into()]);
        assert_eq!(whole.iter().map(of).collect::<Vec<_>>(), expected);
        assert_eq!(whole[0]["spec"], whole[1]["spec"], "both namespaces get the same");
        assert_eq!(made_up(KEPT, &["mail"], &[]).0, whole);
        assert_eq!(made_up(KEPT, &[], &["objects"]), (whole, Placeholders::new()));
    }

    #[test]
    fn what_the_operator_of_a_store_makes_has_placeholders_only_where_the_store_is_left_out_and_needed() {
        let named = |placeholders: Placeholders| placeholders.into_keys().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(named(made_up(SHOP, &[], &["rows"]).1), ["rows-app"]);
        assert_eq!(named(made_up(SHOP, &["mail"], &["rows"]).1), [""; 0], "who needs it is not there");
        // One that a secret with a URL waits for.
        let secrets = "security: { secrets: { backend: aws, items: { rows-secret: { keys: [url] } } } }\n";
        let own = SHOP.replace("{ store: rows/url }", "{ secret: rows-secret/url }") + secrets;
        assert_eq!(named(made_up(&own, &[], &["rows"]).1), ["rows-secret"]);
    }

    #[test]
    fn edges_and_flows_of_what_is_left_out_are_told_apart_from_those_that_cannot_be_had() {
        let part = plan(&["mail"]);
        let edges: Vec<_> = part.edges.iter().map(|edge| (edge.name.as_str(), edge.left_out)).collect();
        let expected = [
            ("carrier call web", true),
            ("mail send carrier", false),
            ("orders write rows/orders", true),
            ("orders call mail", true),
            ("web call mail", true),
        ];
        assert_eq!(edges, expected);
        assert!(part.edges.iter().all(|edge| edge.missing.is_some() == edge.left_out));
        let flows: Vec<_> =
            part.flows.iter().map(|flow| (flow.name.as_str(), flow.left_out, flow.missing.as_deref())).collect();
        let because = "service `web` is left out, as `--only` says";
        assert_eq!(flows, [("greet", false, None), ("look", true, Some(because))]);
        assert!(plan(&[]).edges.iter().all(|edge| !edge.left_out));
    }
}
