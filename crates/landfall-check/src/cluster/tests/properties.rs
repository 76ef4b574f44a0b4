//! What holds for all policies. The fast way over sets and the plain way pair by pair are the oracle of each other.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn selector() -> impl Strategy<Value = Value> {
    let value = prop_oneof![Just("a"), Just("b"), Just("c")];
    prop_oneof![
        Just(json!({})),
        value.clone().prop_map(|value| json!({ "matchLabels": { "x": value } })),
        (value.clone(), value.clone()).prop_map(|(x, y)| json!({ "matchLabels": { "x": x, "y": y } })),
        (value.clone(), value, prop_oneof![Just("In"), Just("NotIn")]).prop_map(|(first, second, operator)| {
            json!({ "matchExpressions": [{ "key": "y", "operator": operator, "values": [first, second] }] })
        }),
        prop_oneof![Just("Exists"), Just("DoesNotExist")]
            .prop_map(|operator| json!({ "matchExpressions": [{ "key": "x", "operator": operator }] })),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let block = prop_oneof![Just("0.0.0.0/0"), Just("203.0.113.0/24"), Just("10.0.0.0/8")];
    prop_oneof![
        3 => selector().prop_map(|pods| json!({ "podSelector": pods })),
        2 => selector().prop_map(|namespaces| json!({ "namespaceSelector": namespaces })),
        2 => (selector(), selector())
            .prop_map(|(namespaces, pods)| json!({ "namespaceSelector": namespaces, "podSelector": pods })),
        1 => block.prop_map(|cidr| json!({ "ipBlock": { "cidr": cidr } })),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "port": 1 })),
        Just(json!({ "port": "second" })),
        Just(json!({ "protocol": "UDP" })),
        Just(json!({ "port": 1, "endPort": 2 })),
    ]
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    (proptest::collection::vec(peer(), 0..3), proptest::collection::vec(port(), 0..2))
        .prop_map(move |(list, ports)| json!({ peers: list, "ports": ports }))
}

fn spec() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        Just(json!([])),
        Just(json!(["Ingress"])),
        Just(json!(["Egress"])),
        Just(json!(["Ingress", "Egress"])),
    ];
    let rules = |peers| proptest::collection::vec(rule(peers), 0..3);
    (selector(), types, rules("from"), rules("to")).prop_map(|(pods, types, ingress, egress)| {
        json!({ "podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress })
    })
}

fn namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("one"), Just("two")]
}

fn objects() -> impl Strategy<Value = Vec<Value>> {
    let labels = proptest::collection::btree_map(
        prop_oneof![Just("x"), Just("y")],
        prop_oneof![Just("a"), Just("b"), Just("c")],
        0..3,
    );
    let workloads = proptest::collection::vec((namespace(), labels), 1..8);
    let policies = proptest::collection::vec((namespace(), spec()), 0..6);
    (workloads, policies).prop_map(|(workloads, policies)| {
        let one = json!({ "name": "one", "labels": { "x": "a" } });
        let mut objects = vec![json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": one })];
        for (index, (namespace, labels)) in workloads.into_iter().enumerate() {
            let ports = json!([
                { "containerPort": 1 },
                { "name": "second", "containerPort": 2 },
                { "name": "second", "containerPort": 3, "protocol": "UDP" },
            ]);
            objects.push(deployment(namespace, &format!("w{index}"), &json!(labels), &ports));
        }
        for (index, (namespace, spec)) in policies.into_iter().enumerate() {
            objects.push(policy_in(namespace, &format!("p{index}"), &spec));
        }
        objects
    })
}

fn is_policy(object: &Value) -> bool {
    object["kind"] == "NetworkPolicy"
}

fn analyse(objects: &[Value]) -> Cluster {
    Cluster::from_objects(objects)
}

/// Any JSON, biased towards the words that policies are made of.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("podSelector"),
        Just("matchLabels"),
        Just("matchExpressions"),
        Just("key"),
        Just("operator"),
        Just("In"),
        Just("ingress"),
        Just("egress"),
        Just("from"),
        Just("to"),
        Just("ports"),
        Just("port"),
        Just("endPort"),
        Just("ipBlock"),
        Just("cidr"),
        Just("10.0.0.0/8"),
        Just("except"),
        Just("policyTypes"),
        Just("Egress"),
        Just("selector"),
        Just("template"),
        Just("spec"),
        Just("containers"),
        Just("rules"),
        Just("backendRefs"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(word.clone(), inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

/// The JSON pointers to a value and everything in it.
fn pointers(value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), member)).collect(),
        _ => Vec::new(),
    };
    let below = inner.into_iter().flat_map(|(step, value)| {
        pointers(value).into_iter().map(move |rest| format!("/{step}{rest}")).collect::<Vec<_>>()
    });
    std::iter::once(String::new()).chain(below).collect()
}

proptest! {
    #[test]
    fn the_relation_is_what_single_questions_say(objects in objects()) {
        assert_consistent(&analyse(&objects));
    }

    #[test]
    fn the_relation_is_found_on_every_way(objects in objects(), narrow in 0..6_usize) {
        let cluster = analyse(&objects);
        prop_assert_eq!(cluster.relation(), cluster.relation_following(narrow));
    }

    #[test]
    fn an_additional_rule_never_removes_a_connection(
        mut objects in objects(), chosen in any::<prop::sample::Index>(), from in rule("from"), to in rule("to"),
    ) {
        objects.push(policy_in("one", "one-more", &json!({ "ingress": [], "egress": [] })));
        let policies: Vec<usize> = (0..objects.len()).filter(|index| is_policy(&objects[*index])).collect();
        let chosen = policies[chosen.index(policies.len())];
        if objects[chosen]["spec"]["policyTypes"].as_array().is_none_or(Vec::is_empty) {
            // Without types, a first egress rule would make the policy isolate egress.
            objects[chosen]["spec"]["policyTypes"] = json!(["Ingress", "Egress"]);
        }
        let mut more = objects.clone();
        let spec = &mut more[chosen]["spec"];
        spec["ingress"].as_array_mut().expect("a list").push(from);
        spec["egress"].as_array_mut().expect("a list").push(to);
        let (before, after) = (analyse(&objects).relation().pairs(), analyse(&more).relation().pairs());
        prop_assert!(before.is_subset(&after));
    }

    #[test]
    fn an_additional_policy_takes_away_only_where_it_isolates_first(objects in objects(), spec in spec()) {
        let closed = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
        let mut before = objects;
        before.push(policy_in("one", "deny", &closed));
        before.push(policy_in("two", "deny", &closed));
        let mut after = before.clone();
        after.push(policy_in("one", "more", &spec));
        prop_assert!(analyse(&before).relation().pairs().is_subset(&analyse(&after).relation().pairs()));
    }

    #[test]
    fn the_order_of_policies_does_not_matter(objects in objects()) {
        let (mut policies, rest): (Vec<Value>, Vec<Value>) = objects.iter().cloned().partition(is_policy);
        policies.reverse();
        let reversed: Vec<Value> = rest.into_iter().chain(policies).collect();
        prop_assert_eq!(analyse(&objects).relation(), analyse(&reversed).relation());
    }

    #[test]
    fn no_replaced_value_makes_it_panic(
        mut objects in objects(), chosen in any::<prop::sample::Index>(), value in anything(),
    ) {
        let mut object = json!(objects);
        let pointers = pointers(&object);
        if let Some(place) = object.pointer_mut(&pointers[chosen.index(pointers.len())]) {
            *place = value;
        }
        objects = object.as_array().cloned().unwrap_or_default();
        assert_consistent(&analyse(&objects));
    }

    #[test]
    fn no_object_makes_it_panic(value in anything(), kind in 0..KINDS.len(), in_template in any::<bool>()) {
        let (version, kind) = KINDS[kind];
        let spec = if in_template { json!({ "template": { "spec": value } }) } else { value };
        let metadata = json!({ "name": "broken", "namespace": "shop" });
        let object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec });
        let cluster = cluster(&[object], Surroundings::default());
        cluster.relation();
        for (id, _) in cluster.workloads() {
            cluster.dns(id);
            cluster.exits(id);
        }
    }
}

const KINDS: [(&str, &str); 10] = [
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("networking.k8s.io/v1", "Ingress"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("apps/v1", "Deployment"),
    ("batch/v1", "CronJob"),
    ("v1", "Service"),
];
