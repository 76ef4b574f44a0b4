//! What runs of a platform: all of it, or some services with what they need; what is left out of that, and what takes the place of
//! images.

use std::collections::BTreeSet;

use landfall_engine::Catalogue;
use landfall_model::{Architecture, Element, suggestion};
use serde::{Deserialize, Serialize};

/// What a run is asked to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The services that run, with what they need; none: all do.
    pub(crate) only: Vec<String>,
    /// The stores that do not run, whoever needs them.
    pub(crate) without: Vec<String>,
    /// What images stand for.
    #[serde(default)]
    pub(crate) images: Catalogue,
}

impl Part {
    /// What to tell about the first name that means nothing.
    pub(super) fn unknown(&self, architecture: &Architecture) -> Option<String> {
        self.unknown_store(architecture).or_else(|| self.unknown_service(architecture))
    }

    fn unknown_store(&self, architecture: &Architecture) -> Option<String> {
        let unknown = self.without.iter().find(|name| architecture.store(name).is_none())?;
        let stores: Vec<_> = architecture.document.stores.keys().map(ToString::to_string).collect();
        Some(format!("error: there is no store `{unknown}` to be left out\nhint: there are {}", stores.join(", ")))
    }

    fn unknown_service(&self, architecture: &Architecture) -> Option<String> {
        let unknown = self.only.iter().find(|name| architecture.service(name).is_none())?;
        let services: Vec<&str> = architecture.document.services.keys().map(|name| name.as_str()).collect();
        let hint = match architecture.element(unknown) {
            Some(Element::Store(_)) => format!("`{unknown}` is a store: it runs with each service that uses it"),
            Some(Element::External(_)) => format!("`{unknown}` is an external: it runs with each service that uses it"),
            _ => match suggestion(unknown, services.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                // All words after the option are taken for services.
                None if unknown.contains(['/', '.']) => {
                    format!("the file comes before the services: `landfall up {unknown} --only SERVICE`")
                }
                None if services.is_empty() => "the file declares no services".to_owned(),
                None => format!("there are {}", services.join(", ")),
            },
        };
        Some(format!("error: there is no service `{unknown}` to run\nhint: {hint}"))
    }

    /// What no named service needs, in the order of kinds and names; nothing where all services run.
    pub(super) fn left_out(&self, architecture: &Architecture) -> BTreeSet<Element> {
        if self.only.is_empty() {
            return BTreeSet::new();
        }
        let document = &architecture.document;
        let services = document.services.keys().map(|name| Element::Service(name.value.clone()));
        let stores = document.stores.keys().map(|name| Element::Store(name.value.clone()));
        let externals = document.externals.keys().map(|name| Element::External(name.value.clone()));
        let needed = self.needed(architecture);
        services.chain(stores).chain(externals).filter(|element| !needed.contains(element)).collect()
    }

    /// The named services, and whatever they use, and what that uses.
    fn needed(&self, architecture: &Architecture) -> BTreeSet<Element> {
        let mut needed = BTreeSet::new();
        let mut next: Vec<Element> = self.only.iter().filter_map(|name| architecture.element(name)).collect();
        while let Some(element) = next.pop() {
            if needed.insert(element.clone()) {
                next.extend(uses(architecture, &element));
            }
        }
        needed
    }
}

/// What an element does not work without: what its edges lead to, the stores that its environment names, and where its backups
/// go. Whom an external calls is not among it, as it answers all the same.
fn uses(architecture: &Architecture, element: &Element) -> Vec<Element> {
    match element {
        Element::Service(name) => {
            let environment = architecture.service(name.as_str()).into_iter().flat_map(|service| service.env.values());
            let named = environment.filter_map(|value| architecture.element(value.store.as_ref()?.name.as_str()));
            architecture.from(element).map(|connection| connection.to.clone()).chain(named).collect()
        }
        Element::Store(name) => {
            let backup = architecture.store(name.as_str()).and_then(|store| store.backup.as_ref()?.to.as_ref());
            backup.and_then(|to| architecture.element(to.as_str())).into_iter().collect()
        }
        Element::External(_) | Element::Client => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::up::architecture_of;

    const SHOP: &str = "
landfall: v1
name: shop
services:
  web: { port: 8080, uses: [{ call: stock }, { publish: events/placed }] }
  stock: { port: 8080, uses: [{ write: rows/stock }, { call: web }] }
  mail: { port: 8080, uses: [{ consume: events/placed }, { send: carrier }] }
  back: { port: 8080, expose: back.example }
stores:
  rows: { engine: postgres, version: '17', backup: { full: 24h, to: archive } }
  archive: { engine: s3 }
  events: { engine: rabbitmq, version: '4.2' }
externals:
  carrier: { uses: [{ call: back }] }
";

    fn shop() -> Architecture {
        architecture_of(SHOP)
    }

    fn only(names: &[&str]) -> Part {
        Part { only: names.iter().map(|name| (*name).to_owned()).collect(), ..Part::default() }
    }

    fn left_out(names: &[&str]) -> Vec<String> {
        only(names).left_out(&shop()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_runs_with_what_it_uses_and_what_that_uses() {
        let expected = ["service.back", "service.mail", "external.carrier"];
        assert_eq!(left_out(&["web"]), expected, "who takes what it publishes is not there, its backups' store is");
        assert_eq!(left_out(&["stock"]), expected, "two that call each other are both there");
        let expected = ["service.back", "service.stock", "service.web", "store.archive", "store.rows"];
        assert_eq!(left_out(&["mail"]), expected, "whom the carrier calls is not needed");
        assert_eq!(left_out(&["mail", "web"]), ["service.back"]);
        assert_eq!(left_out(&[]), [""; 0], "all run");
    }

    #[test]
    fn a_name_that_no_service_has_is_told_with_what_may_be_meant() {
        let told = |name: &str| only(&[name]).unknown(&shop()).unwrap_or_default();
        insta::assert_snapshot!(told("sotck"), @"
        error: there is no service `sotck` to run
        hint: did you mean `stock`?
        ");
        insta::assert_snapshot!(told("rows"), @"
        error: there is no service `rows` to run
        hint: `rows` is a store: it runs with each service that uses it
        ");
        insta::assert_snapshot!(told("examples/shop"), @"
        error: there is no service `examples/shop` to run
        hint: the file comes before the services: `landfall up examples/shop --only SERVICE`
        ");
        insta::assert_snapshot!(told("billing"), @"
        error: there is no service `billing` to run
        hint: there are back, mail, stock, web
        ");
        assert_eq!(told("web"), "");
    }
}
