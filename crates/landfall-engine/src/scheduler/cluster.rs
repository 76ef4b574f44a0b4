//! The nodes and what runs on them, kept up to date pod by pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use k8s_openapi::api::core::v1::{Node, Pod};

use super::matching::Labels;
use super::pod::{PodClass, PodInfo};
use super::requests::Resources;
use crate::cache::ObjectKey;

/// The pods of one class on a node.
#[derive(Debug)]
pub(crate) struct Classmates {
    pub(crate) class: Arc<PodClass>,
    pub(crate) pods: i64,
    /// Of these, the ones that are being deleted: spreading no longer counts them.
    pub(crate) terminating: i64,
}

#[derive(Debug)]
pub(crate) struct NodeView {
    pub(crate) node: Arc<Node>,
    pub(crate) labels: Labels,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    pub(crate) scoring: Resources,
    pub(crate) pods: BTreeMap<ObjectKey, Arc<PodInfo>>,
    pub(crate) classes: HashMap<Arc<str>, Classmates>,
}

impl NodeView {
    fn new(node: Arc<Node>) -> Self {
        let mut view = Self {
            node: Arc::clone(&node),
            labels: Labels::new(),
            allocatable: Resources::default(),
            requested: Resources::default(),
            scoring: Resources::default(),
            pods: BTreeMap::new(),
            classes: HashMap::new(),
        };
        view.update(node);
        view
    }

    fn update(&mut self, node: Arc<Node>) {
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.allocatable = Resources::read(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        self.node = node;
    }

    pub(crate) fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scoring.add(&pod.scoring);
        let mates = self.classes.entry(Arc::clone(&pod.class.identity)).or_insert_with(|| Classmates {
            class: Arc::clone(&pod.class),
            pods: 0,
            terminating: 0,
        });
        mates.pods += 1;
        mates.terminating += i64::from(pod.terminating);
        self.pods.insert(pod.key.clone(), pod);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(key)?;
        self.requested.subtract(&pod.requests);
        self.scoring.subtract(&pod.scoring);
        if let Some(mates) = self.classes.get_mut(&pod.class.identity) {
            mates.pods -= 1;
            mates.terminating -= i64::from(pod.terminating);
            if mates.pods == 0 {
                self.classes.remove(&pod.class.identity);
            }
        }
        Some(pod)
    }
}

/// What placing looks at.
#[derive(Debug, Default)]
pub(crate) struct ClusterView {
    nodes: BTreeMap<String, NodeView>,
    /// Where each placed pod is.
    placed: HashMap<ObjectKey, String>,
    /// Pods on nodes that are not known yet.
    homeless: HashMap<String, BTreeMap<ObjectKey, Arc<PodInfo>>>,
    /// Pods for which room was made on a node, and which are not there yet.
    nominated: HashMap<String, BTreeMap<ObjectKey, Arc<PodInfo>>>,
    /// Where room was made for each of these.
    nominations: HashMap<ObjectKey, String>,
    namespaces: HashMap<String, Labels>,
    classes: Classes,
}

/// The classes of pods, by identity, so that all pods of one share it.
#[derive(Debug, Default)]
struct Classes {
    known: HashMap<Arc<str>, Weak<PodClass>>,
    /// With how many of them those are forgotten that no pod has any more.
    crowded: usize,
}

impl Classes {
    /// Few classes cost nothing worth forgetting.
    const FEW: usize = 64;

    fn share(&mut self, class: &mut Arc<PodClass>) {
        if let Some(known) = self.known.get(&class.identity).and_then(Weak::upgrade) {
            *class = known;
            return;
        }
        if self.known.len() >= self.crowded {
            self.known.retain(|_, class| class.strong_count() > 0);
            self.crowded = Self::FEW.max(self.known.len() * 2);
        }
        self.known.insert(Arc::clone(&class.identity), Arc::downgrade(class));
    }
}

impl ClusterView {
    pub(crate) fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeView> {
        self.nodes.values()
    }

    pub(crate) fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    pub(crate) fn node_mut(&mut self, name: &str) -> Option<&mut NodeView> {
        self.nodes.get_mut(name)
    }

    pub(crate) fn namespace_labels(&self, namespace: &str) -> &Labels {
        const NONE: &Labels = &Labels::new();
        self.namespaces.get(namespace).unwrap_or(NONE)
    }

    pub(crate) fn nominated(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nominated.get(node).into_iter().flat_map(BTreeMap::values)
    }

    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    pub(crate) fn set_node(&mut self, node: &Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(view) = self.nodes.get_mut(&name) {
            view.update(Arc::clone(node));
        } else {
            let mut view = NodeView::new(Arc::clone(node));
            for pod in self.homeless.remove(&name).into_iter().flat_map(BTreeMap::into_values) {
                view.add(pod);
            }
            self.nodes.insert(name, view);
        }
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(view) = self.nodes.remove(name)
            && !view.pods.is_empty()
        {
            self.homeless.insert(name.to_owned(), view.pods);
        }
    }

    /// What a pod says, with the class that pods like it have already.
    pub(crate) fn read(&mut self, pod: &Arc<Pod>) -> PodInfo {
        let mut info = PodInfo::read(pod);
        self.classes.share(&mut info.class);
        info
    }

    /// Puts a pod on a node, or replaces what is known of it there.
    pub(crate) fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key);
        self.placed.insert(pod.key.clone(), node.to_owned());
        match self.nodes.get_mut(node) {
            Some(view) => view.add(pod),
            None => {
                self.homeless.entry(node.to_owned()).or_default().insert(pod.key.clone(), pod);
            }
        }
    }

    pub(crate) fn remove_pod(&mut self, key: &ObjectKey) {
        self.nominate(key, None);
        let Some(node) = self.placed.remove(key) else { return };
        if let Some(view) = self.nodes.get_mut(&node) {
            view.remove(key);
        }
        if let Some(pods) = self.homeless.get_mut(&node) {
            pods.remove(key);
        }
    }

    /// Keeps room for a pod on a node, or gives it up.
    pub(crate) fn nominate(&mut self, key: &ObjectKey, to: Option<(&str, Arc<PodInfo>)>) {
        if let Some(node) = self.nominations.remove(key)
            && let Some(pods) = self.nominated.get_mut(&node)
        {
            pods.remove(key);
            if pods.is_empty() {
                self.nominated.remove(&node);
            }
        }
        if let Some((node, pod)) = to {
            self.nominations.insert(key.clone(), node.to_owned());
            self.nominated.entry(node.to_owned()).or_default().insert(key.clone(), pod);
        }
    }

    pub(crate) fn has_nominated(&self, key: &ObjectKey) -> bool {
        self.nominations.contains_key(key)
    }

    pub(crate) fn is_placed(&self, key: &ObjectKey) -> bool {
        self.placed.contains_key(key)
    }
}
