//! What an answer waits for: services, stores and externals, and the required edges between them.

use std::collections::HashMap;

use landfall_model::{Architecture, Element, Verb};

/// The elements and, for each, what it needs while it answers.
pub(super) struct Graph {
    pub(super) elements: Vec<Element>,
    needs: Vec<Vec<usize>>,
    /// Whether any element waits for it.
    is_needed: Vec<bool>,
}

/// In which walk each element was seen last.
pub(super) struct Visited {
    walk: u32,
    seen: Vec<u32>,
}

impl Graph {
    pub(super) fn of(architecture: &Architecture) -> Self {
        let document = &architecture.document;
        let services = document.services.keys().map(|name| Element::Service(name.value.clone()));
        let stores = document.stores.keys().map(|name| Element::Store(name.value.clone()));
        let externals = document.externals.keys().map(|name| Element::External(name.value.clone()));
        let elements: Vec<Element> = services.chain(stores).chain(externals).collect();
        let index: HashMap<&Element, usize> = elements.iter().zip(0..).collect();
        let mut needs = vec![Vec::new(); elements.len()];
        let mut is_needed = vec![false; elements.len()];
        for connection in &architecture.connections {
            // Work that is fetched is done by and by; nobody waits for it.
            let waits = !matches!(connection.verb, Verb::Poll | Verb::Consume) && !connection.edge.optional.value;
            if let (true, Some(from), Some(to)) = (waits, index.get(&connection.from), index.get(&connection.to)) {
                needs[*from].push(*to);
                is_needed[*to] = true;
            }
        }
        Self { elements, needs, is_needed }
    }

    pub(super) fn visited(&self) -> Visited {
        Visited { walk: 0, seen: vec![0; self.elements.len()] }
    }

    /// Where users come in: what is exposed or promises something by itself; without any, what serves and is not called.
    pub(super) fn roots(&self, architecture: &Architecture) -> Vec<usize> {
        let services = || {
            (0..self.elements.len())
                .filter_map(|index| Some((index, architecture.service(service_name(&self.elements[index])?)?)))
        };
        let promising = services().filter(|(_, service)| service.expose.is_some() || service.objective.is_some());
        let promising: Vec<usize> = promising.map(|(index, _)| index).collect();
        if !promising.is_empty() {
            return promising;
        }
        services()
            .filter(|(index, service)| service.kind.serves() && !self.is_needed[*index])
            .map(|(index, _)| index)
            .collect()
    }

    /// The element itself and everything that its answers wait for.
    pub(super) fn needed(&self, root: usize, visited: &mut Visited) -> Vec<usize> {
        visited.walk += 1;
        visited.seen[root] = visited.walk;
        let mut found = vec![root];
        let mut next = 0;
        while let Some(element) = found.get(next).copied() {
            for needed in &self.needs[element] {
                if visited.seen[*needed] != visited.walk {
                    visited.seen[*needed] = visited.walk;
                    found.push(*needed);
                }
            }
            next += 1;
        }
        found
    }
}

fn service_name(element: &Element) -> Option<&str> {
    match element {
        Element::Service(name) => Some(name.as_str()),
        _ => None,
    }
}
