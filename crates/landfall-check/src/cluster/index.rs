//! Workloads found by selector: one posting list per label and namespace, and every answer kept.
//!
//! A set of policies repeats few selectors many times, and most of them name one label that few workloads have. Both
//! together keep the cost near the size of the answers instead of policies times workloads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::field::Labels;
use super::selector::{Requirement, Selector};
use super::workload::{PodNetwork, Workload, WorkloadId};

/// The label that every namespace has, with its own name as the value.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Workloads in ascending order.
pub(super) type WorkloadSet = Arc<[WorkloadId]>;

/// The labels of all namespaces that anything mentions.
#[derive(Debug, Default)]
pub(super) struct Namespaces(BTreeMap<String, Labels>);

#[derive(Debug)]
pub(super) struct Index<'a> {
    workloads: &'a [Workload],
    namespaces: &'a Namespaces,
    buckets: HashMap<&'a str, Bucket<'a>>,
    found: HashMap<String, HashMap<Selector, WorkloadSet>>,
    found_across: HashMap<Selector, HashMap<Selector, WorkloadSet>>,
    matching_namespaces: HashMap<Selector, Arc<[String]>>,
}

/// The workloads of one namespace.
#[derive(Debug, Default)]
struct Bucket<'a> {
    all: Vec<WorkloadId>,
    by_label: HashMap<&'a str, HashMap<&'a str, Vec<WorkloadId>>>,
}

impl Namespaces {
    /// Adds labels to a namespace. Its name label stays what the API server makes it.
    pub(super) fn add(&mut self, name: &str, labels: Labels) {
        let known = self.0.entry(name.to_owned()).or_default();
        known.extend(labels);
        known.insert(NAMESPACE_NAME.to_owned(), name.to_owned());
    }

    pub(super) fn mention(&mut self, name: &str) {
        if !self.0.contains_key(name) {
            self.add(name, Labels::new());
        }
    }

    /// # Panics
    ///
    /// If the namespace was never mentioned: the workloads that are asked about are all known before.
    pub(super) fn labels(&self, name: &str) -> &Labels {
        self.0.get(name).expect("every namespace of a workload is mentioned when the cluster is read")
    }

    fn matching(&self, selector: &Selector) -> Arc<[String]> {
        let by_name = selector.requirements().iter().find_map(|requirement| match requirement {
            Requirement::In(key, names) if key == NAMESPACE_NAME => Some(names),
            _ => None,
        });
        match by_name {
            Some(names) => names
                .iter()
                .filter(|name| self.0.get(*name).is_some_and(|labels| selector.matches(labels)))
                .cloned()
                .collect(),
            None => {
                self.0.iter().filter(|(_, labels)| selector.matches(labels)).map(|(name, _)| name.clone()).collect()
            }
        }
    }
}

impl<'a> Index<'a> {
    /// Pods on the network of their node are left out: selectors of policies do not find them.
    pub(super) fn new(workloads: &'a [Workload], namespaces: &'a Namespaces) -> Self {
        Index::over(workloads, namespaces, |workload| workload.network == PodNetwork::Own)
    }

    /// All pods, as a Service or a `PodDisruptionBudget` finds them.
    pub(super) fn with_host_network(workloads: &'a [Workload], namespaces: &'a Namespaces) -> Self {
        Index::over(workloads, namespaces, |_| true)
    }

    fn over(workloads: &'a [Workload], namespaces: &'a Namespaces, visible: impl Fn(&Workload) -> bool) -> Self {
        let mut buckets: HashMap<&str, Bucket<'_>> = HashMap::new();
        for (id, workload) in (0..).map(WorkloadId).zip(workloads).filter(|(_, workload)| visible(workload)) {
            let bucket = buckets.entry(workload.key.namespace.as_str()).or_default();
            bucket.all.push(id);
            for (key, value) in &workload.labels {
                bucket.by_label.entry(key).or_default().entry(value).or_default().push(id);
            }
        }
        Index {
            workloads,
            namespaces,
            buckets,
            found: HashMap::new(),
            found_across: HashMap::new(),
            matching_namespaces: HashMap::new(),
        }
    }

    /// The workloads of one namespace that the selector matches.
    pub(super) fn select(&mut self, namespace: &str, selector: &Selector) -> WorkloadSet {
        if let Some(set) = self.found.get(namespace).and_then(|found| found.get(selector)) {
            return Arc::clone(set);
        }
        let set: WorkloadSet = match self.buckets.get(namespace) {
            None => Arc::new([]),
            Some(bucket) => bucket.select(selector, self.workloads),
        };
        self.found.entry(namespace.to_owned()).or_default().insert(selector.clone(), Arc::clone(&set));
        set
    }

    /// The workloads that the selector matches in all namespaces that the other one matches.
    pub(super) fn select_across(&mut self, namespaces: &Selector, pods: &Selector) -> WorkloadSet {
        if let Some(set) = self.found_across.get(namespaces).and_then(|found| found.get(pods)) {
            return Arc::clone(set);
        }
        let names = if let Some(names) = self.matching_namespaces.get(namespaces) {
            Arc::clone(names)
        } else {
            let names = self.namespaces.matching(namespaces);
            self.matching_namespaces.insert(namespaces.clone(), Arc::clone(&names));
            names
        };
        let set = match &*names {
            [name] => self.select(name, pods),
            names => union(names.iter().map(|name| self.select(name, pods)).collect()),
        };
        self.found_across.entry(namespaces.clone()).or_default().insert(pods.clone(), Arc::clone(&set));
        set
    }
}

impl Bucket<'_> {
    fn select(&self, selector: &Selector, workloads: &[Workload]) -> WorkloadSet {
        let narrowest = selector
            .requirements()
            .iter()
            .filter_map(|requirement| self.postings(requirement))
            .min_by_key(|postings| postings.iter().map(|posting| posting.len()).sum::<usize>());
        let matches = |id: &WorkloadId| selector.matches(&workloads[id.0 as usize].labels);
        match narrowest {
            None => self.all.iter().copied().filter(matches).collect(),
            Some(postings) => {
                let ids: BTreeSet<WorkloadId> = postings.into_iter().flatten().copied().filter(matches).collect();
                ids.into_iter().collect()
            }
        }
    }

    /// The lists that together hold every workload that meets the requirement; `None` if no list says so.
    fn postings(&self, requirement: &Requirement) -> Option<Vec<&Vec<WorkloadId>>> {
        match requirement {
            Requirement::In(key, values) => {
                let by_value = self.by_label.get(key.as_str());
                let posting = |value: &String| by_value.and_then(|by_value| by_value.get(value.as_str()));
                Some(values.iter().filter_map(posting).collect())
            }
            Requirement::Exists(key) => {
                Some(self.by_label.get(key.as_str()).map(|by_value| by_value.values().collect()).unwrap_or_default())
            }
            Requirement::NotIn(..) | Requirement::DoesNotExist(_) => None,
        }
    }
}

/// One sorted set of several.
pub(super) fn union(mut sets: Vec<WorkloadSet>) -> WorkloadSet {
    if sets.len() == 1 {
        return sets.swap_remove(0);
    }
    let ids: BTreeSet<WorkloadId> = sets.iter().flat_map(|set| set.iter().copied()).collect();
    ids.into_iter().collect()
}
