//! Random files: whatever environments differ in, Helm and Kustomize give what the plain objects are.

use std::fmt::Write as _;

use landfall_testing::{Tool, require_or_skip};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Texts that YAML, templates and merges like to get wrong.
const TEXTS: [&str; 14] = [
    "yes",
    "0777",
    "1.20",
    "12:30",
    "null",
    "",
    "a: b",
    "{{ .Values.x }}",
    "}}{{`",
    "line\nnext\n",
    "é 漢 \" \\ '",
    "# no comment",
    "1e6",
    "<&>",
];

/// One service in one environment.
#[derive(Debug, Clone)]
struct Service {
    present: bool,
    replicas: u32,
    port: u16,
    env: Vec<(u8, usize)>,
    limits: Option<u32>,
    host: Option<u8>,
    scaled: bool,
}

fn service() -> impl Strategy<Value = Service> {
    (
        prop::bool::weighted(0.85),
        1u32..5,
        prop::sample::select(vec![80u16, 8080, 9090]),
        prop::collection::vec((0u8..5, 0..TEXTS.len()), 0..4),
        prop::option::of(1u32..4),
        prop::option::of(0u8..3),
        any::<bool>(),
    )
        .prop_map(|(present, replicas, port, env, limits, host, scaled)| Service {
            present,
            replicas,
            port,
            env,
            limits,
            host,
            scaled,
        })
}

/// The file: each environment has its own namespace, or the one of the platform.
fn text(environments: &[(bool, Vec<Service>)]) -> String {
    let mut text = String::from("landfall: v1\nname: shop\nservices:\n");
    for index in 0..environments[0].1.len() {
        writeln!(text, "  s{index}: {{ port: 8080 }}").expect("a text takes more");
    }
    text += "environments:\n";
    for (place, (own_namespace, services)) in environments.iter().enumerate() {
        writeln!(text, "  e{place}:").expect("a text takes more");
        if *own_namespace {
            writeln!(text, "    namespace: shop-e{place}").expect("a text takes more");
        }
        text += "    services:\n";
        for (index, service) in services.iter().enumerate() {
            // One of them is always there, so that there is something.
            if !service.present && index > 0 {
                writeln!(text, "      s{index}: ~").expect("a text takes more");
                continue;
            }
            let replicas = if service.scaled {
                format!("{{ min: {0}, max: {1} }}", service.replicas, service.replicas + 3)
            } else {
                service.replicas.to_string()
            };
            write!(text, "      s{index}: {{ port: {}, replicas: {replicas}", service.port).expect("a text takes more");
            if let Some(limit) = service.limits {
                write!(text, ", resources: {{ cpu: 100m..{limit}, memory: {limit}Gi..{limit}Gi }}")
                    .expect("a text takes more");
            }
            if let Some(host) = service.host {
                write!(text, ", expose: {{ host: h{host}.e{place}.example, path: /s{index}, tls: le }}")
                    .expect("a text takes more");
            }
            let env: std::collections::BTreeMap<_, _> = service.env.iter().copied().collect();
            let env: Vec<String> =
                env.iter().map(|(key, value)| format!("K{key}: {}", serde_json::json!(TEXTS[*value]))).collect();
            writeln!(text, ", env: {{ {} }} }}", env.join(", ")).expect("a text takes more");
        }
    }
    text
}

/// Few, as each starts a dozen processes; `PROPTEST_CASES` asks for more.
#[test]
fn random_files_are_the_same_by_helm_by_kustomize_and_as_plain_objects() {
    let Some(kubectl) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let Some(helm) = require_or_skip("helm", Tool::Helm.locate()) else { return };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 12 };
    let mut runner =
        TestRunner::new(Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() });
    let environment = |services| (any::<bool>(), prop::collection::vec(service(), services));
    let file = (1usize..4, 1usize..4)
        .prop_flat_map(move |(environments, services)| prop::collection::vec(environment(services), environments));
    let ran = runner.run(&file, |environments| {
        let text = text(&environments);
        let file = landfall_model::File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(path.to_owned()));
        super::kustomize_is_plain(&text, &file, &kubectl);
        super::helm_is_plain(&text, &file, &kubectl, &[&helm]);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}
