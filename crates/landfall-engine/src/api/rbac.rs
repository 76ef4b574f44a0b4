//! Who may do what: roles and bindings, compiled once and compiled again when one of them changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use super::State;
use super::failure::{Failure, Subject};
use super::identity::Identity;
use super::request::{Query, Target, Verb};
use crate::scheme::selector::LabelSelector;
use crate::store::{Collection, Store};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Set for requests that are about no resource; the others are then empty.
    pub(crate) path: &'a str,
}

impl<'a> Attributes<'a> {
    pub(crate) fn of(target: &'a Target, query: &'a Query) -> Self {
        let name = match target.verb {
            // A list or a watch of one name is about the object of that name.
            Verb::List | Verb::Watch if target.name.is_empty() => query.selected_name().unwrap_or_default(),
            _ => target.name.as_str(),
        };
        Self {
            verb: target.verb.name(),
            group: &target.group,
            resource: &target.plural,
            subresource: target.subresource.split('/').next().unwrap_or_default(),
            namespace: &target.namespace,
            name,
            path: "",
        }
    }

    /// `reason` is what else there is to say; mostly nothing.
    fn refusal(&self, identity: &Identity, reason: &str) -> Failure {
        let user = &identity.user;
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        if !self.path.is_empty() {
            let why = format!("User {user:?} cannot {} path {:?}{reason}", self.verb, self.path);
            return Failure::forbidden(&Subject { group: "", kind: "", name: "" }, &why);
        }
        let resource = if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        let scope = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        let why = format!(
            "User {user:?} cannot {} resource {resource:?} in API group {:?} {scope}{reason}",
            self.verb, self.group
        );
        Failure::forbidden(&Subject { group: self.group, kind: self.resource, name: self.name }, &why)
    }
}

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) paths: Vec<String>,
}

impl Rule {
    pub(crate) fn read(rule: &Value) -> Self {
        let list = |key: &str| -> Vec<String> {
            rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    fn read_all(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn allows(&self, wanted: &Attributes<'_>) -> bool {
        let has = |list: &[String], item: &str| list.iter().any(|known| known == "*" || known == item);
        if !has(&self.verbs, wanted.verb) {
            return false;
        }
        if !wanted.path.is_empty() {
            return self.paths.iter().any(|path| match path.strip_suffix('*') {
                Some(prefix) => wanted.path.starts_with(prefix),
                None => path == wanted.path,
            });
        }
        has(&self.groups, wanted.group)
            && self.resources.iter().any(|resource| resource_matches(resource, wanted))
            && (self.names.is_empty() || self.names.iter().any(|name| name == wanted.name))
    }

    /// The rule, taken apart into rules for one verb on one thing each.
    fn atoms(&self) -> Vec<Self> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for path in &self.paths {
                atoms.push(Self { verbs: vec![verb.clone()], paths: vec![path.clone()], ..Self::default() });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    let names: Vec<Vec<String>> = if self.names.is_empty() {
                        vec![Vec::new()]
                    } else {
                        self.names.iter().map(|name| vec![name.clone()]).collect()
                    };
                    atoms.extend(names.into_iter().map(|names| Self {
                        verbs: vec![verb.clone()],
                        groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        names,
                        paths: Vec::new(),
                    }));
                }
            }
        }
        atoms
    }

    /// Whether this rule grants all that an atom does.
    fn covers(&self, atom: &Self) -> bool {
        let has = |list: &[String], items: &[String]| {
            items.iter().all(|item| list.iter().any(|known| known == "*" || known == item))
        };
        if !atom.paths.is_empty() {
            return has(&self.verbs, &atom.verbs)
                && atom.paths.iter().all(|path| {
                    self.paths.iter().any(|known| {
                        known == path || known.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
                    })
                });
        }
        has(&self.verbs, &atom.verbs)
            && has(&self.groups, &atom.groups)
            && atom.resources.iter().all(|resource| {
                self.resources.iter().any(|known| {
                    known == "*"
                        || known == resource
                        || (known.starts_with("*/")
                            && resource.split_once('/').is_some_and(|(_, sub)| Some(sub) == known.strip_prefix("*/")))
                })
            })
            && (self.names.is_empty()
                || (!atom.names.is_empty() && atom.names.iter().all(|name| self.names.contains(name))))
    }

    pub(crate) fn to_value(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs});
        for (key, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                rule[key] = json!(list);
            }
        }
        rule
    }

    /// As the refusal of an escalation shows it.
    fn text(&self) -> String {
        let quote = |list: &[String]| list.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(" ");
        let mut parts = Vec::new();
        for (name, list) in [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                parts.push(format!("{name}:[{}]", quote(list)));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }
}

fn resource_matches(resource: &str, wanted: &Attributes<'_>) -> bool {
    match resource.split_once('/') {
        None => resource == "*" || (wanted.subresource.is_empty() && resource == wanted.resource),
        Some((owner, sub)) => sub == wanted.subresource && (owner == "*" || owner == wanted.resource),
    }
}

/// Every grant, by who has it.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    /// How many changes of roles and bindings this takes into account.
    pub(crate) as_of: u64,
    /// Keys are `u:NAME` and `g:NAME`.
    by_subject: HashMap<String, Vec<Grant>>,
}

#[derive(Clone, Debug)]
struct Grant {
    /// `None`: everywhere.
    namespace: Option<Arc<str>>,
    rules: Arc<[Rule]>,
    source: Source,
}

/// Which subject of which binding a grant comes from. The first of several is the one that is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    /// Bindings of the cluster come before those of a namespace.
    binding: usize,
    subject: usize,
    /// As reviews show it.
    text: String,
    /// The role that the binding names, if it is not there.
    missing: Option<String>,
}

/// What the roles say of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    /// Why, or what is wrong with the bindings; mostly empty for a refusal.
    pub(crate) reason: String,
}

impl Grants {
    pub(crate) fn compile(store: &Store, as_of: u64) -> Self {
        let all = |plural: &str| store.list(&Collection::new(GROUP, plural), None).records;
        let cluster_roles = cluster_roles(store);
        let cluster_rules: HashMap<&str, Arc<[Rule]>> =
            cluster_roles.iter().map(|(name, role)| (name.as_str(), aggregate(role, &cluster_roles).into())).collect();
        let roles: HashMap<(String, String), Arc<[Rule]>> = all("roles")
            .iter()
            .map(|record| {
                let key = (record.key().namespace.to_string(), record.key().name.to_string());
                (key, Rule::read_all(&record.value()).into())
            })
            .collect();
        let mut grants = Self { as_of, ..Self::default() };
        let bindings = all("clusterrolebindings").into_iter().chain(all("rolebindings"));
        for (place, record) in bindings.enumerate() {
            let (namespace, binding) = (&record.key().namespace, record.value());
            let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
            let rules = if binding["roleRef"]["kind"] == "ClusterRole" {
                cluster_rules.get(name)
            } else {
                roles.get(&(namespace.to_string(), name.to_owned()))
            };
            grants.bind(place, &binding, (!namespace.is_empty()).then_some(namespace), rules);
        }
        grants
    }

    fn bind(&mut self, place: usize, binding: &Value, namespace: Option<&Arc<str>>, rules: Option<&Arc<[Rule]>>) {
        let (kind, role) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
        let name = binding["metadata"]["name"].as_str().unwrap_or_default();
        let bound = match namespace {
            Some(namespace) => format!("RoleBinding {:?}", format!("{name}/{namespace}")),
            None => format!("ClusterRoleBinding {name:?}"),
        };
        let missing = rules
            .is_none()
            .then(|| format!("{}.{GROUP} {role} not found", kind.as_str().unwrap_or_default().to_ascii_lowercase()));
        for (index, subject) in binding["subjects"].as_array().into_iter().flatten().enumerate() {
            let name = subject["name"].as_str().unwrap_or_default();
            let mut shown = name.to_owned();
            let key = match subject["kind"].as_str() {
                Some("User") => format!("u:{name}"),
                Some("Group") => format!("g:{name}"),
                Some("ServiceAccount") => {
                    let default = namespace.map(ToString::to_string).unwrap_or_default();
                    let namespace = subject["namespace"].as_str().filter(|named| !named.is_empty()).unwrap_or(&default);
                    shown = format!("{name}/{namespace}");
                    format!("u:system:serviceaccount:{namespace}:{name}")
                }
                _ => continue,
            };
            let subject_kind = subject["kind"].as_str().unwrap_or_default();
            let role_kind = kind.as_str().unwrap_or_default();
            let source = Source {
                binding: place,
                subject: index,
                text: format!("{bound} of {role_kind} {role} to {subject_kind} {shown:?}"),
                missing: missing.clone(),
            };
            let rules = rules.map_or_else(|| Arc::from([]), Arc::clone);
            self.by_subject.entry(key).or_default().push(Grant { namespace: namespace.cloned(), rules, source });
        }
    }

    fn of<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = &'a Grant> {
        let keys = std::iter::once(format!("u:{}", identity.user))
            .chain(identity.groups.iter().map(|group| format!("g:{group}")));
        keys.filter_map(|key| self.by_subject.get(&key)).flatten()
    }

    /// All rules that hold for somebody in a namespace.
    pub(crate) fn rules(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let mut rules: Vec<Rule> =
            self.within(identity, namespace).flat_map(|grant| grant.rules.iter().cloned()).collect();
        if identity.is_master() {
            let all = vec!["*".to_owned()];
            rules.push(Rule { verbs: all.clone(), groups: all.clone(), resources: all.clone(), ..Rule::default() });
            rules.push(Rule { verbs: all.clone(), paths: all, ..Rule::default() });
        }
        rules
    }

    pub(crate) fn allow(&self, identity: &Identity, wanted: &Attributes<'_>) -> bool {
        identity.is_master() || self.granting(identity, wanted).next().is_some()
    }

    /// As [`Grants::allow`], with the reason.
    pub(crate) fn judge(&self, identity: &Identity, wanted: &Attributes<'_>) -> Verdict {
        if identity.is_master() {
            return Verdict { allowed: true, reason: String::new() };
        }
        if let Some(source) = self.granting(identity, wanted).map(|grant| &grant.source).min() {
            return Verdict { allowed: true, reason: format!("RBAC: allowed by {}", source.text) };
        }
        let missing: Vec<&str> = self
            .within(identity, wanted.namespace)
            .map(|grant| &grant.source)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter_map(|source| source.missing.as_deref())
            .collect();
        let reason = match *missing {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            _ => format!("RBAC: [{}]", missing.join(", ")),
        };
        Verdict { allowed: false, reason }
    }

    fn granting<'a>(&'a self, identity: &'a Identity, wanted: &'a Attributes<'a>) -> impl Iterator<Item = &'a Grant> {
        self.within(identity, wanted.namespace).filter(|grant| grant.rules.iter().any(|rule| rule.allows(wanted)))
    }

    /// What somebody has been given, in a namespace and everywhere.
    fn within<'a>(&'a self, identity: &'a Identity, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        self.of(identity).filter(move |grant| grant.namespace.as_deref().is_none_or(|bound| bound == namespace))
    }
}

fn cluster_roles(store: &Store) -> BTreeMap<String, Arc<Value>> {
    let all = store.list(&Collection::new(GROUP, "clusterroles"), None).records;
    all.iter().map(|record| (record.key().name.to_string(), record.value())).collect()
}

/// The rules of a cluster role, with those of the roles that it collects, and of the ones that those collect.
fn aggregate(role: &Value, all: &BTreeMap<String, Arc<Value>>) -> Vec<Rule> {
    let mut visited = BTreeSet::new();
    let mut rules = Vec::new();
    collect(role, all, &mut visited, &mut rules);
    let mut seen = BTreeSet::new();
    rules.retain(|rule: &Rule| seen.insert(rule.clone()));
    rules
}

fn collect(role: &Value, all: &BTreeMap<String, Arc<Value>>, visited: &mut BTreeSet<String>, rules: &mut Vec<Rule>) {
    if !visited.insert(role["metadata"]["name"].as_str().unwrap_or_default().to_owned()) {
        return;
    }
    rules.extend(Rule::read_all(role));
    for wanted in role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
        for other in all.values().filter(|other| selects(wanted, other)) {
            collect(other, all, visited, rules);
        }
    }
}

fn selects(selector: &Value, object: &Value) -> bool {
    LabelSelector::of_object(selector).is_some_and(|selector| selector.matches(object))
}

/// Refuses what the sender may not do.
pub(crate) fn authorize(state: &State, identity: &Identity, wanted: &Attributes<'_>) -> Result<(), Failure> {
    if identity.is_master() {
        return Ok(());
    }
    let grants = state.grants();
    if grants.allow(identity, wanted) {
        return Ok(());
    }
    Err(wanted.refusal(identity, &grants.judge(identity, wanted).reason))
}

/// Nobody may give rights away that they do not have, unless they may `escalate` (roles) or `bind` (bindings).
pub(crate) fn check_escalation(
    state: &State,
    identity: &Identity,
    resource: &str,
    object: &Value,
) -> Result<(), Failure> {
    if identity.is_master() {
        return Ok(());
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let grants = state.grants();
    let (verb, role_resource, role_name, rules) = match resource {
        "roles" | "clusterroles" => ("escalate", resource, name, Rule::read_all(object)),
        "rolebindings" | "clusterrolebindings" => {
            let (plural, role_namespace) =
                if object["roleRef"]["kind"] == "ClusterRole" { ("clusterroles", "") } else { ("roles", namespace) };
            let role_name = object["roleRef"]["name"].as_str().unwrap_or_default();
            let key = crate::store::Key::new(&Collection::new(GROUP, plural), role_namespace, role_name);
            let role = state.store.get(&key).map(|record| record.value());
            let rules = role.map(|role| aggregate(&role, &cluster_roles(&state.store)));
            let Some(rules) = rules else {
                let allowed = Attributes {
                    verb: "bind",
                    group: GROUP,
                    resource: plural,
                    namespace,
                    name: role_name,
                    ..Attributes::default()
                };
                return if grants.allow(identity, &allowed) {
                    Ok(())
                } else {
                    Err(Failure::not_found(&Subject { group: GROUP, kind: plural, name: role_name }))
                };
            };
            ("bind", plural, role_name, rules)
        }
        _ => return Ok(()),
    };
    let allowed =
        Attributes { verb, group: GROUP, resource: role_resource, namespace, name: role_name, ..Attributes::default() };
    if grants.allow(identity, &allowed) {
        return Ok(());
    }
    let own = grants.rules(identity, namespace);
    let missing: Vec<Rule> =
        rules.iter().flat_map(Rule::atoms).filter(|atom| !own.iter().any(|rule| rule.covers(atom))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(Rule::text).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let groups: Vec<String> = identity.groups.iter().map(|group| format!("{group:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        identity.user,
        groups.join(" "),
        lines.join("\n")
    );
    Err(Failure::forbidden(&Subject { group: GROUP, kind: resource, name }, &why))
}

/// Joins the verbs of rules that are about the same resource.
fn compact(atoms: Vec<Rule>) -> Vec<Rule> {
    let mut joined: Vec<Rule> = Vec::new();
    for mut atom in atoms {
        let same = joined.iter_mut().find(|rule| {
            atom.paths.is_empty()
                && (&rule.groups, &rule.resources, &rule.names, &rule.paths)
                    == (&atom.groups, &atom.resources, &atom.names, &atom.paths)
        });
        match same {
            Some(rule) => rule.verbs.append(&mut atom.verbs),
            None => joined.push(atom),
        }
    }
    joined
}
