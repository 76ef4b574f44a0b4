//! Whether the tables are whole and true, and what a client is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::scheme::Scheme;
use crate::scheme::types::TableKind;

/// What is said of each field of a type.
fn classes(types: &Types, index: usize) -> BTreeMap<String, Vec<&'static str>> {
    let of = types.get(index);
    let mut classes: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    let names: &[&str] = if is_kind(of) { &["*", short(&of.name)] } else { &[short(&of.name)] };
    for entry in names.iter().filter_map(|name| entry(name)) {
        let mut say = |fields: &[String], class| {
            for field in fields {
                let said = classes.entry(field.clone()).or_default();
                if !said.contains(&class) {
                    said.push(class);
                }
            }
        };
        entry.acted.values().for_each(|fields| say(fields, "acted"));
        entry.ignored.iter().for_each(|one| say(&one.fields, "ignored"));
        entry.refused.iter().for_each(|one| say(&one.fields, "refused"));
        say(&entry.status, "status");
    }
    classes
}

/// The types that a client can say something of, with a path to each: those of all kinds and of their subresources, but
/// nothing below what is ignored, refused or the server's own.
fn reached() -> BTreeMap<usize, String> {
    let (table, scheme) = (Table::get(), Scheme::builtin());
    let mut reached = BTreeMap::new();
    let mut pending: Vec<(usize, String)> = Vec::new();
    let served = |kind: &&TableKind| scheme.resource(&kind.group, &kind.version, &kind.plural).is_some();
    for kind in table.kinds.iter().filter(served) {
        pending.extend(kind.root.map(|root| (root, kind.kind.clone())));
        let subresources = kind.subresources.iter();
        pending.extend(subresources.filter_map(|sub| Some((sub.root?, format!("{}/{}", kind.kind, sub.subresource)))));
    }
    while let Some((index, path)) = pending.pop() {
        if reached.contains_key(&index) {
            continue;
        }
        let classes = classes(&table.types, index);
        for field in &table.types.get(index).fields {
            if classes.get(&field.name).is_some_and(|classes| classes.contains(&"acted")) {
                pending.extend(objects_in(&field.shape).map(|below| (below, format!("{path}.{}", field.name))));
            }
        }
        reached.insert(index, path);
    }
    reached
}

#[test]
fn every_path_of_every_served_kind_is_classified() {
    let types = &Table::get().types;
    let mut unclassified = Vec::new();
    for (index, path) in reached() {
        let classes = classes(types, index);
        let fields = types.get(index).fields.iter().filter(|field| !classes.contains_key(&field.name));
        unclassified.extend(fields.map(|field| format!("{} ({path}.{})", types.get(index).name, field.name)));
    }
    assert_eq!(unclassified, Vec::<String>::new(), "say in `scheme/fields` what becomes of these");
}

#[test]
fn every_entry_speaks_of_fields_that_clients_can_set() {
    let types = &Table::get().types;
    let reached: BTreeMap<_, _> =
        reached().keys().map(|index| (short(&types.get(*index).name).to_owned(), *index)).collect();
    let mut wrong = Vec::new();
    for (name, entry) in chapters().iter().flat_map(|(_, chapter)| chapter) {
        let exceptions = || entry.ignored.iter().chain(&entry.refused);
        wrong.extend(exceptions().filter(|one| one.why.is_empty()).map(|one| format!("{name}: no reason: {one:?}")));
        let fields: Vec<_> = exceptions().flat_map(|one| &one.fields).collect();
        let once: BTreeSet<_> = fields.iter().collect();
        if once.len() < fields.len() {
            wrong.push(format!("{name}: a field has two exceptions"));
        }
        for exception in exceptions() {
            let both = exception.fields.iter().filter(|field| entry.acts_on(field));
            wrong.extend(both.filter(|_| exception.unless.is_empty()).map(|field| format!("{name}.{field}: acted?")));
        }
        let Some(index) = reached.get(name) else {
            wrong.extend((name != "*").then(|| format!("{name}: nobody can set it")));
            continue;
        };
        let unknown = classes(types, *index).into_keys().filter(|field| types.get(*index).field(field).is_none());
        wrong.extend(unknown.filter(|field| field != "status").map(|field| format!("{name}.{field}: no such field")));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

impl Actor {
    /// Where its code is. `None`: it has none.
    fn sources(self) -> Option<&'static [&'static str]> {
        Some(match self {
            Self::Api => &["api", "scheme"],
            Self::Kubelet => &["kubelet", "runtime"],
            Self::Scheduler => &["scheduler"],
            Self::Network => &["network"],
            Self::Gateway => &["gateway"],
            Self::Autoscaler => &["controller/horizontal_pod_autoscaler"],
            Self::CronJobController => &["controller/cron_job"],
            Self::DaemonSetController => &["controller/daemon_set", "controller/revision"],
            Self::DeploymentController => &["controller/deployment"],
            Self::DisruptionController => &["controller/disruption"],
            Self::EndpointSliceController => &["controller/endpoint_slice"],
            Self::GarbageCollector => &["controller/garbage_collector", "api/delete"],
            Self::JobController => &["controller/job"],
            Self::NamespaceController => &["controller/namespace"],
            Self::NodeLifecycleController => &["controller/node_lifecycle"],
            Self::QuotaController => &["controller/resource_quota"],
            Self::ReplicaSetController => &["controller/replica_set"],
            Self::StatefulSetController => &["controller/stateful_set", "controller/revision"],
            Self::VolumeController => &["controller/persistent_volume"],
            Self::Clients => return None,
        })
    }
}

/// The words of the code in `src/<part>.rs` and below `src/<part>`, tests and the tables' own code left out.
fn words(part: &str) -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.join(format!("{part}.rs"))];
    let mut folders = vec![source.join(part)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("the sources can be read").path();
            let of = if path.is_dir() { &mut folders } else { &mut files };
            of.push(path);
        }
    }
    let counts = |path: &PathBuf| {
        let path = path.strip_prefix(&source).expect("it was found there");
        path.extension().is_some_and(|extension| extension == "rs")
            && !path.iter().any(|part| ["tests", "tests.rs", "fields.rs", "openapi.rs"].iter().any(|out| part == *out))
    };
    let mut words = BTreeSet::new();
    for file in files.iter().filter(|path| counts(path)) {
        let text = fs::read_to_string(file).expect("the sources can be read");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let letters = |letter: char| letter.is_alphanumeric() || "_-$".contains(letter);
        words.extend(code.split(|letter: char| !letters(letter)).map(ToOwned::to_owned));
    }
    words
}

/// `volume_mounts` for `volumeMounts`, `cluster_ips` for `clusterIPs`, as the typed objects call their fields.
fn in_rust(field: &str) -> String {
    let mut name = String::new();
    let letters: Vec<_> = field.replace("IPs", "Ips").replace("URLs", "Urls").chars().collect();
    for (position, letter) in letters.iter().enumerate() {
        let begins = letter.is_uppercase()
            && position > 0
            && (letters[position - 1].is_lowercase()
                || letters.get(position + 1).is_some_and(|next| next.is_lowercase()));
        name.push_str(if begins { "_" } else { "" });
        name.extend(letter.to_lowercase());
    }
    name
}

/// Names are few, so that this finds only fields that nobody speaks of; but those it does find.
#[test]
fn whoever_is_said_to_act_on_a_field_names_it_in_the_code() {
    let mut known: BTreeMap<Actor, BTreeSet<String>> = BTreeMap::new();
    let mut unread = Vec::new();
    for (name, entry) in chapters().iter().flat_map(|(_, chapter)| chapter) {
        for (actor, fields) in &entry.acted {
            let Some(sources) = actor.sources() else { continue };
            let words = known.entry(*actor).or_insert_with(|| sources.iter().flat_map(|part| words(part)).collect());
            let rust = |field: &str| [field.to_owned(), in_rust(field), format!("{}_", in_rust(field))];
            let silent = fields.iter().filter(|field| !rust(field).iter().any(|name| words.contains(name)));
            unread.extend(silent.map(|field| format!("{actor:?}: {name}.{field}")));
        }
    }
    assert_eq!(unread, Vec::<String>::new());
}

#[test]
fn the_page_shows_the_tables() {
    const START: &str = "<!-- fields -->\n";
    const END: &str = "<!-- end of fields -->";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/engine.md");
    let page = fs::read_to_string(&file).expect("the page is in the repository");
    let (before, rest) = page.split_once(START).expect("the page marks where the tables begin");
    let (shown, after) = rest.split_once(END).expect("the page marks where the tables end");
    let expected = document::markdown();
    if std::env::var_os("LANDFALL_BLESS").is_some_and(|value| value == "1") {
        fs::write(&file, format!("{before}{START}{expected}{END}{after}")).expect("the page can be written");
    } else {
        assert_eq!(shown, expected, "run the test with `LANDFALL_BLESS=1`");
    }
}

fn resource(version: &str, kind: &str) -> std::sync::Arc<Resource> {
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    Scheme::builtin().by_kind(group, version, kind).expect("it is served").clone()
}

/// The names of what is not heeded in a pod with this spec, which replaces one with the other; refused ones with a mark.
fn check(new: Value, old: Option<Value>) -> Vec<String> {
    let pod = |spec| {
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": spec });
        Scheme::builtin().default(&resource("v1", "Pod"), &mut pod);
        pod
    };
    let found = unheeded(&resource("v1", "Pod"), &pod(new), old.map(pod).as_ref());
    let path = |text: &String| text.split_once(':').expect("a path comes first").0.to_owned();
    let refused = found.refused.iter().map(|cause| format!("{}!", cause.field));
    found.ignored.iter().map(path).chain(refused).collect()
}

#[test]
fn an_ignored_field_is_named_with_its_path_and_the_reason() {
    let deployment = json!({ "spec": { "template": { "spec": { "containers": [
        { "name": "a" },
        { "name": "b", "securityContext": { "privileged": true, "runAsUser": 0, "runAsGroup": 7 } },
    ] } } } });
    let found = unheeded(&resource("apps/v1", "Deployment"), &deployment, None);
    insta::assert_snapshot!(found.ignored.join("\n"), @r"
    spec.template.spec.containers[1].securityContext.privileged: accepted and ignored: programs may do what the user who runs the engine may do, and no more
    spec.template.spec.containers[1].securityContext.{runAsUser,runAsGroup}: accepted and ignored: programs run as the user who runs the engine, whose folders another user could not enter
    ");
}

#[test]
fn what_asks_for_nothing_special_is_not_named() {
    let spec = json!({
        "dnsPolicy": "ClusterFirst", "hostPID": true, "securityContext": {}, "os": { "name": "linux" },
        "containers": [{ "name": "a", "securityContext": { "privileged": false, "seccompProfile": null } }],
    });
    assert_eq!(check(spec, None), Vec::<String>::new());
    let spec = json!({ "dnsPolicy": "None", "hostUsers": false, "containers": [{ "name": "a" }] });
    let mut found = check(spec, None);
    found.sort();
    assert_eq!(found, ["spec.dnsPolicy", "spec.hostUsers"]);
}

#[test]
fn what_was_there_before_is_not_named_again() {
    let context = json!({ "seLinuxOptions": { "level": "s0" } });
    let with = |name: &str| json!({ "name": name, "securityContext": context });
    let old = json!({ "containers": [with("a"), { "name": "b" }], "dnsPolicy": "None" });
    let new = json!({ "containers": [with("b"), with("a")], "dnsPolicy": "None" });
    assert_eq!(check(new, Some(old)), ["spec.containers[0].securityContext.seLinuxOptions"]);
}

#[test]
fn what_a_pod_means_nothing_without_is_refused() {
    let spec = json!({
        "containers": [{ "name": "a", "volumeDevices": [{ "name": "v", "devicePath": "/dev/x" }] }],
        "volumes": [{ "name": "v", "nfs": { "server": "s", "path": "/" } }, { "name": "w", "emptyDir": {} }],
        "os": { "name": "windows" },
    });
    let mut found = check(spec, None);
    found.sort();
    assert_eq!(found, ["spec.containers[0].volumeDevices!", "spec.os.name!", "spec.volumes[0].nfs!"]);
}

/// The objects whose defaults were recorded, some of which set fields that are not heeded.
#[test]
fn defaults_are_not_held_against_the_client() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/scheme/defaults.json");
    let recorded: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(file).expect("it is in the repository")).expect("it is JSON");
    for one in recorded {
        let mut object = one["sent"].clone();
        let text = |key: &str| object[key].as_str().expect("an object says what it is").to_owned();
        let resource = resource(&text("apiVersion"), &text("kind"));
        let before = unheeded(&resource, &object, None);
        Scheme::builtin().default(&resource, &mut object);
        assert_eq!(unheeded(&resource, &object, None).ignored, before.ignored, "{object}");
    }
}

#[test]
fn fields_of_custom_resources_are_their_own() {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": { "type": "object", "properties": {
                    "dnsPolicy": { "type": "string" } } } } } } }] },
    });
    let scheme = Scheme::builtin().with_custom(std::iter::once(&definition));
    let things = scheme.by_kind("example.com", "v1", "Thing").expect("it is defined");
    let thing = json!({ "metadata": { "name": "t" }, "spec": { "dnsPolicy": "None" } });
    assert_eq!(scheme.unheeded(things, &thing, None), Unheeded::default());
}

/// A figure for a person who asks for it: `LANDFALL_BENCH=1 cargo test --release -p landfall-engine
/// scheme::fields::tests::the_walk -- --nocapture`. It also holds that the tables can be laid beside the types at all.
#[test]
fn the_walk_of_a_deployment_is_cheap_beside_its_defaults() {
    use std::io::Write as _;
    const ROUNDS: u32 = 10_000;
    let deployments = resource("apps/v1", "Deployment");
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{
                "name": "web", "image": "web:1", "ports": [{ "containerPort": 80 }],
                "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
                "resources": { "limits": { "cpu": "1", "memory": "1Gi" } },
                "readinessProbe": { "httpGet": { "path": "/", "port": 80 } },
            }] },
        } },
    });
    Scheme::builtin().default(&deployments, &mut object);
    assert_eq!(unheeded(&deployments, &object, None), Unheeded::default());
    if std::env::var_os("LANDFALL_BENCH").is_none() {
        return;
    }
    let time = |work: &mut dyn FnMut()| {
        let begun = std::time::Instant::now();
        (0..ROUNDS).for_each(|_| work());
        begun.elapsed() / ROUNDS
    };
    let begun = std::time::Instant::now();
    let fates = Fates::of(&Table::get().types);
    let (laid, types) = (begun.elapsed(), fates.watched.len());
    let walk = time(&mut || drop(std::hint::black_box(unheeded(&deployments, &object, None))));
    let defaults = time(&mut || Scheme::builtin().default(&deployments, &mut object.clone()));
    let text = format!("tables beside {types} types: {laid:?}; walk: {walk:?}; copy and defaults: {defaults:?}");
    writeln!(std::io::stdout(), "{text}").expect("stdout is open");
}
