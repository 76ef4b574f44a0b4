//! Writes the steps of a scenario from a seed.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::scenario::random::kind::{Kind, pick};

/// Few names, so that requests meet what earlier ones made.
const NAMES: [&str; 3] = ["one", "two", "three"];

/// The managers of fields. Two are enough for every conflict.
const MANAGERS: [&str; 2] = ["left", "right"];

/// What lists and watches ask for. All of them fit [`marker`], which ends a watch.
const SELECTORS: [&str; 6] = ["", "", "app=a", "app in (a, b)", "tier=front", "app=a,tier!=back"];

/// What may be done, each with its weight.
const ACTIONS: [(u32, Action); 10] = [
    (20, Author::create),
    (12, Author::update),
    (10, Author::patch_json),
    (12, Author::patch_merge),
    (12, Author::patch_strategic),
    (22, Author::apply),
    (8, Author::delete),
    (2, Author::delete_collection),
    (10, Author::read),
    (6, Author::subresource),
];

type Action = fn(&mut Author, &Kind, &str);

/// The steps of a seed, as they are written in a file, and how many at the beginning are definitions.
pub(super) fn write(kinds: &[Kind], seed: u64, length: usize) -> (Vec<Value>, usize) {
    let mut author = Author { random: StdRng::seed_from_u64(seed), steps: Vec::new(), watches: Vec::new(), count: 0 };
    // Two kinds at a time, so that a short scenario comes back to the same objects.
    let chosen: Vec<_> = kinds.choose_multiple(&mut author.random, 2).collect();
    for kind in &chosen {
        if let Some(definition) = &kind.definition {
            author.define(kind, definition);
        }
    }
    let definitions = author.steps.len();
    for _ in 0..length {
        let kind = *pick(&mut author.random, &chosen);
        let name = *pick(&mut author.random, &NAMES);
        let (_, act) =
            ACTIONS.choose_weighted(&mut author.random, |(weight, _)| *weight).expect("weights are positive");
        act(&mut author, kind, name);
        if author.random.random_bool(0.1) {
            author.end_watch(kinds);
        }
    }
    while !author.watches.is_empty() {
        author.end_watch(kinds);
    }
    (author.steps, definitions)
}

struct Author {
    random: StdRng,
    steps: Vec<Value>,
    watches: Vec<Watch>,
    /// How many steps were written: their names and variables are numbered.
    count: usize,
}

/// A watch that goes on from a list, and is looked at later.
struct Watch {
    kind: String,
    selector: &'static str,
    variable: String,
}

/// What an answer holds.
#[derive(Clone, Copy)]
enum Answer {
    Object,
    List,
    Events,
}

impl Author {
    fn define(&mut self, kind: &Kind, definition: &Value) {
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let defined = format!("{definitions}/{name}");
        self.push("define", json!({"request": format!("POST {definitions}"), "body": definition, "select": ["kind"]}));
        let established = json!({"status.conditions[type=Established].status": "True"});
        self.push("defined", json!({"request": format!("GET {defined}"), "until": established, "select": ["kind"]}));
        let served = json!({"kind": format!("{}List", kind.name)});
        self.push(
            "served",
            json!({"request": format!("GET {}", kind.collection), "until": served, "select": ["kind"]}),
        );
    }

    fn create(&mut self, kind: &Kind, name: &str) {
        let body = kind.object(&mut self.random, name);
        let request = format!("POST {}", kind.collection);
        self.write(kind, &format!("create {} {name}", kind.name), &request, &body, None);
    }

    /// With the version that was read, which may be an old one by then, or with none.
    fn update(&mut self, kind: &Kind, name: &str) {
        let mut body = kind.object(&mut self.random, name);
        let address = format!("{}/{name}", kind.collection);
        // A controller might write between the two.
        if !kind.controlled && self.random.random_bool(0.6) {
            let variable = format!("version-{}", self.count);
            let step = json!({"request": format!("GET {address}"), "keep": {&variable: "metadata.resourceVersion"}});
            self.answered(kind, &format!("get {} {name} to update it", kind.name), step, Answer::Object);
            if self.random.random_bool(0.3) {
                self.patch_merge(kind, name);
            }
            body["metadata"]["resourceVersion"] = format!("${{{variable}}}").into();
        }
        self.write(kind, &format!("update {} {name}", kind.name), &format!("PUT {address}"), &body, None);
    }

    fn patch_json(&mut self, kind: &Kind, name: &str) {
        let patch = kind.json_patch(&mut self.random);
        self.patch(kind, name, "json-patch+json", &patch);
    }

    fn patch_merge(&mut self, kind: &Kind, name: &str) {
        let patch = kind.merge_patch(&mut self.random);
        self.patch(kind, name, "merge-patch+json", &patch);
    }

    fn patch_strategic(&mut self, kind: &Kind, name: &str) {
        let patch = kind.strategic_patch(&mut self.random);
        self.patch(kind, name, "strategic-merge-patch+json", &patch);
    }

    fn patch(&mut self, kind: &Kind, name: &str, media: &str, patch: &Value) {
        let how = media.split('-').next().unwrap_or_default();
        let request = format!("PATCH {}/{name}", kind.collection);
        self.write(kind, &format!("patch ({how}) {} {name}", kind.name), &request, patch, Some(media));
    }

    fn apply(&mut self, kind: &Kind, name: &str) {
        let manager = *pick(&mut self.random, &MANAGERS);
        let mut query = json!({"fieldManager": manager});
        if self.random.random_bool(0.4) {
            query["force"] = "true".into();
        }
        if self.random.random_bool(0.08) {
            query["dryRun"] = "All".into();
        }
        let step = json!({
            "request": format!("PATCH {}/{name}", kind.collection),
            "type": "application/apply-patch+yaml",
            "query": query,
            "body": kind.configuration(&mut self.random, name),
        });
        self.answered(kind, &format!("{manager} applies {} {name}", kind.name), step, Answer::Object);
    }

    fn delete(&mut self, kind: &Kind, name: &str) {
        let mut step = json!({"request": format!("DELETE {}/{name}", kind.collection)});
        if self.random.random_bool(0.1) {
            step["query"] = json!({"dryRun": "All"});
        }
        self.answered(kind, &format!("delete {} {name}", kind.name), step, Answer::Object);
    }

    /// Only what is labelled: there are objects that every namespace has.
    fn delete_collection(&mut self, kind: &Kind, _name: &str) {
        let step = json!({"request": format!("DELETE {}", kind.collection), "query": {"labelSelector": "app=a"}});
        self.answered(kind, &format!("delete each {}", kind.name), step, Answer::List);
    }

    fn read(&mut self, kind: &Kind, name: &str) {
        let selector = *pick(&mut self.random, &SELECTORS);
        let list = format!("GET {}", kind.collection);
        match self.random.random_range(0..6) {
            0 => {
                let step = json!({"request": format!("{list}/{name}")});
                self.answered(kind, &format!("get {} {name}", kind.name), step, Answer::Object);
            }
            1 => {
                let media = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=1";
                let step = json!({"request": format!("{list}/{name}"), "accept": media});
                self.answered(kind, &format!("get metadata of {} {name}", kind.name), step, Answer::Object);
            }
            2 => {
                let variable = format!("continue-{}", self.count);
                let mut query = json!({"labelSelector": selector, "limit": "1"});
                let step = json!({"request": list, "query": query, "keep": {&variable: "metadata.continue"}});
                self.answered(kind, &format!("list one {}", kind.name), step, Answer::List);
                query["continue"] = format!("${{{variable}}}").into();
                let step = json!({"request": list, "query": query});
                self.answered(kind, &format!("list the next {}", kind.name), step, Answer::List);
            }
            3 => {
                let query = json!({"fieldSelector": format!("metadata.name={name}"), "labelSelector": selector});
                let step = json!({"request": list, "query": query});
                self.answered(kind, &format!("list {} of one name", kind.name), step, Answer::List);
            }
            _ => {
                let mut step = json!({"request": list, "query": {"labelSelector": selector}});
                if !kind.controlled {
                    let variable = format!("start-{}", self.count);
                    step["keep"] = json!({&variable: "metadata.resourceVersion"});
                    self.watches.push(Watch { kind: kind.name.clone(), selector, variable });
                }
                self.answered(kind, &format!("list {}", kind.name), step, Answer::List);
            }
        }
    }

    fn subresource(&mut self, kind: &Kind, name: &str) {
        let subresources: Vec<_> = kind.subresources.iter().collect();
        let Some((subresource, patches)) = subresources.choose(&mut self.random) else { return self.read(kind, name) };
        let what = format!("{subresource} of {} {name}", kind.name);
        let address = format!("{}/{name}/{subresource}", kind.collection);
        if self.random.random_bool(0.3) {
            let step = json!({"request": format!("GET {address}")});
            return self.answered(kind, &format!("get {what}"), step, Answer::Object);
        }
        let patch = pick(&mut self.random, patches);
        self.write(kind, &format!("patch {what}"), &format!("PATCH {address}"), patch, Some("merge-patch+json"));
    }

    /// Looks at everything that the oldest watch has seen: an object is made that ends it.
    fn end_watch(&mut self, kinds: &[Kind]) {
        if self.watches.is_empty() {
            return;
        }
        let watch = self.watches.remove(0);
        let kind = kinds.iter().find(|kind| kind.name == watch.kind).expect("it was chosen from these");
        let name = format!("marker-{}", self.count);
        let mut marker = kind.object(&mut self.random, &name);
        marker["metadata"]["labels"] = json!({"app": "a", "tier": "front"});
        let step = json!({"request": format!("POST {}", kind.collection), "body": marker});
        self.answered(kind, &format!("create {name}"), step, Answer::Object);
        let step = json!({
            "watch": kind.collection,
            "query": {"labelSelector": watch.selector, "resourceVersion": format!("${{{}}}", watch.variable)},
            "until": {"object.metadata.name": name},
        });
        self.answered(kind, &format!("watch {}", kind.name), step, Answer::Events);
    }

    /// A step that writes, sometimes only for show, and sometimes by a manager with a name.
    fn write(&mut self, kind: &Kind, what: &str, request: &str, body: &Value, media: Option<&str>) {
        let mut query = json!({});
        if self.random.random_bool(0.5) {
            query["fieldManager"] = (*pick(&mut self.random, &MANAGERS)).into();
        }
        if self.random.random_bool(0.08) {
            query["dryRun"] = "All".into();
        }
        let mut step = json!({"request": request, "query": query, "body": body});
        if let Some(media) = media {
            step["type"] = format!("application/{media}").into();
        }
        self.answered(kind, what, step, Answer::Object);
    }

    /// Adds a step, with what cannot be compared of its answer.
    fn answered(&mut self, kind: &Kind, what: &str, mut step: Value, answer: Answer) {
        let place = match answer {
            Answer::Object => "",
            Answer::List => "items[*].",
            Answer::Events => "object.",
        };
        let mut ignored = BTreeSet::new();
        if matches!(answer, Answer::List) {
            // Its certificate is another one everywhere.
            ignored.insert("items[metadata.name=kube-root-ca.crt]".to_owned());
        }
        if kind.controlled {
            let written = ["status", "metadata.resourceVersion", "metadata.managedFields[subresource=status]"];
            ignored.extend(written.map(|path| format!("{place}{path}")));
        }
        step["ignore"] = ignored.into_iter().collect();
        // The first are sorted by the second in which they were written, and conflicts come in the order of a map.
        step["unordered"] = json!([format!("{place}metadata.managedFields"), "details.causes"]);
        self.push(what, step);
    }

    fn push(&mut self, what: &str, step: Value) {
        let mut named = json!({"step": format!("{} {what}", self.count)});
        let parts = step.as_object().cloned().unwrap_or_default().into_iter();
        let nothing = |value: &Value| *value == json!({}) || *value == json!([]);
        let parts = parts.filter(|(key, value)| key == "body" || !nothing(value));
        named.as_object_mut().expect("it is one").extend(parts);
        self.steps.push(named);
        self.count += 1;
    }
}
