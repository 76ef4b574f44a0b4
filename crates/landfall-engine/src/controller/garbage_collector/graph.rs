//! Who owns whom, and what follows from it for one object.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;
use kube::core::ApiResource;

use super::{FOREGROUND, ORPHAN};

/// An object, as far as ownership goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) uid: String,
    pub(super) kind: Arc<ApiResource>,
    /// `None` for an object that is cluster-scoped.
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) is_going: bool,
}

impl Node {
    pub(super) fn new(kind: &Arc<ApiResource>, metadata: ObjectMeta) -> Option<Self> {
        Some(Self {
            uid: metadata.uid?,
            kind: Arc::clone(kind),
            namespace: metadata.namespace.filter(|namespace| !namespace.is_empty()),
            name: metadata.name?,
            version: metadata.resource_version,
            owners: metadata.owner_references.unwrap_or_default(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            is_going: metadata.deletion_timestamp.is_some(),
        })
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|has| has == finalizer)
    }

    /// It goes once those that it owns and that hold it back are gone.
    fn awaits_dependents(&self) -> bool {
        self.is_going && self.has(FOREGROUND)
    }
}

/// What is to be done about an object.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    Nothing,
    Delete(PropagationPolicy),
    /// It lives on, without the owners with these uids.
    Disown(Vec<String>),
    /// These live on without it, and then it may go.
    Orphan(Vec<Node>),
    /// Nobody holds it back any more.
    Release,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    /// By the uid of an owner, which need not be known itself.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<Node> {
        self.nodes.get(uid).cloned()
    }

    /// Takes in a node, and gives the uids of those that are to be looked at again.
    pub(super) fn insert(&mut self, node: Node) -> Vec<String> {
        let old = self.unlink(&node.uid);
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(node.uid.clone());
        }
        let mut concerned = Vec::new();
        // An owner that was held back by this one may be so no longer.
        let former = old.iter().flat_map(|old| &old.owners);
        concerned.extend(former.filter(|owner| !node.owners.contains(owner)).map(|owner| owner.uid.clone()));
        if node.awaits_dependents() {
            concerned.extend(self.dependents.get(&node.uid).into_iter().flatten().cloned());
        }
        if !node.owners.is_empty() || node.is_going {
            concerned.push(node.uid.clone());
        }
        if node.owners.iter().any(|owner| self.nodes.get(&owner.uid).is_some_and(Node::awaits_dependents)) {
            concerned.extend(node.owners.iter().map(|owner| owner.uid.clone()));
        }
        self.nodes.insert(node.uid.clone(), node);
        concerned
    }

    /// Forgets a node: its dependents may have to go as well, and its owners may go now.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let old = self.unlink(uid);
        let owners = old.into_iter().flat_map(|old| old.owners).map(|owner| owner.uid);
        owners.chain(self.dependents.get(uid).into_iter().flatten().cloned()).collect()
    }

    fn unlink(&mut self, uid: &str) -> Option<Node> {
        let old = self.nodes.remove(uid)?;
        for owner in &old.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        Some(old)
    }

    /// The uids of all nodes of a kind.
    pub(super) fn of_kind(&self, kind: &ApiResource) -> BTreeSet<String> {
        let of_kind = self.nodes.values().filter(|node| *node.kind == *kind);
        of_kind.map(|node| node.uid.clone()).collect()
    }

    /// The owners of a node that may be gone, or have never been.
    pub(super) fn unseen_owners(&self, node: &Node) -> Vec<OwnerReference> {
        let relevant = !node.is_going;
        let unseen = node.owners.iter().filter(|owner| relevant && !self.is_there(node, owner));
        unseen.cloned().collect()
    }

    /// An owner of the same uid in another namespace is none.
    fn is_there(&self, node: &Node, owner: &OwnerReference) -> bool {
        self.nodes.get(&owner.uid).is_some_and(|found| {
            found.name == owner.name && (found.namespace.is_none() || found.namespace == node.namespace)
        })
    }

    fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid))
    }

    /// `absent`: the uids of owners that are known not to be there.
    pub(super) fn plan(&self, node: &Node, absent: &[String]) -> Plan {
        if node.is_going && node.has(ORPHAN) {
            return Plan::Orphan(self.dependents(&node.uid).cloned().collect());
        }
        if node.awaits_dependents() {
            let mut holding = self.dependents(&node.uid).filter(|dependent| holds(dependent, &node.uid));
            return if holding.next().is_some() { Plan::Nothing } else { Plan::Release };
        }
        if node.is_going || node.owners.is_empty() {
            return Plan::Nothing;
        }
        let awaiting = |owner: &&OwnerReference| self.nodes.get(&owner.uid).is_some_and(Node::awaits_dependents);
        let is_absent = |owner: &&OwnerReference| absent.contains(&owner.uid);
        let leaving: Vec<_> = node.owners.iter().filter(|owner| awaiting(owner) || is_absent(owner)).collect();
        if leaving.is_empty() {
            return Plan::Nothing;
        }
        if leaving.len() < node.owners.len() {
            return Plan::Disown(leaving.into_iter().map(|owner| owner.uid.clone()).collect());
        }
        let foreground = leaving.iter().any(awaiting) && self.dependents(&node.uid).next().is_some();
        Plan::Delete(if node.has(ORPHAN) {
            PropagationPolicy::Orphan
        } else if node.has(FOREGROUND) || (foreground && !self.is_circular(node)) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        })
    }

    /// Something that it owns waits for its own dependents already: two that wait for each other never go.
    fn is_circular(&self, node: &Node) -> bool {
        self.dependents(&node.uid).any(Node::awaits_dependents)
    }
}

/// The dependent keeps this owner from going.
fn holds(dependent: &Node, owner: &str) -> bool {
    dependent.owners.iter().any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
}

#[cfg(test)]
mod tests {
    use kube::core::GroupVersionKind;
    use serde_json::json;

    use super::*;

    /// `uid`, its owners (with `!` those that it holds back), and what else is in its metadata.
    fn node(uid: &str, owners: &[&str], finalizers: &[&str], is_going: bool) -> Node {
        let owners: Vec<_> = owners
            .iter()
            .map(|owner| {
                let uid = owner.trim_end_matches('!');
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid,
                    "blockOwnerDeletion": owner.ends_with('!') })
            })
            .collect();
        let mut metadata = json!({ "name": uid, "uid": uid, "namespace": "n", "ownerReferences": owners,
            "finalizers": finalizers });
        if is_going {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
        Node::new(&Arc::new(kind), serde_json::from_value(metadata).expect("metadata")).expect("uid and name")
    }

    fn graph(nodes: &[Node]) -> Graph {
        let mut graph = Graph::default();
        for node in nodes {
            graph.insert(node.clone());
        }
        graph
    }

    fn plan(nodes: &[Node], uid: &str, absent: &[&str]) -> Plan {
        let graph = graph(nodes);
        let node = graph.get(uid).expect("it is one of them");
        graph.plan(&node, &absent.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_lost_its_only_owner_is_deleted() {
        assert_eq!(
            plan(&[node("a", &["gone"], &[], false)], "a", &["gone"]),
            Plan::Delete(PropagationPolicy::Background)
        );
    }

    #[test]
    fn what_has_another_owner_lives_on_without_the_lost_one() {
        let nodes = [node("owner", &[], &[], false), node("a", &["gone", "owner"], &[], false)];
        assert_eq!(plan(&nodes, "a", &["gone"]), Plan::Disown(vec!["gone".to_owned()]));
        assert_eq!(plan(&nodes, "a", &[]), Plan::Nothing);
    }

    #[test]
    fn an_owner_waits_in_the_foreground_for_those_that_hold_it_back() {
        let owner = node("owner", &[], &[FOREGROUND], true);
        let held = [owner.clone(), node("a", &["owner!"], &[], false)];
        assert_eq!(plan(&held, "owner", &[]), Plan::Nothing);
        assert_eq!(plan(&held, "a", &[]), Plan::Delete(PropagationPolicy::Background));
        assert_eq!(plan(&[owner.clone(), node("a", &["owner"], &[], true)], "owner", &[]), Plan::Release);
        let deep = [owner, node("a", &["owner!"], &[], false), node("b", &["a!"], &[], false)];
        assert_eq!(plan(&deep, "a", &[]), Plan::Delete(PropagationPolicy::Foreground));
    }

    #[test]
    fn dependents_of_an_orphaning_owner_stay() {
        let child = node("a", &["owner"], &[], false);
        let nodes = [node("owner", &[], &[ORPHAN], true), child.clone()];
        assert_eq!(plan(&nodes, "owner", &[]), Plan::Orphan(vec![child]));
        assert_eq!(plan(&nodes, "a", &[]), Plan::Nothing);
    }

    #[test]
    fn who_is_concerned_is_looked_at_again() {
        let mut graph = graph(&[node("owner", &[], &[FOREGROUND], true), node("a", &["owner!"], &[], false)]);
        assert_eq!(graph.remove("a"), ["owner"]);
        graph.insert(node("b", &["owner"], &[], false));
        assert_eq!(graph.remove("owner"), ["b"]);
        assert_eq!(graph.unseen_owners(&node("b", &["owner"], &[], false)).len(), 1);
    }
}
