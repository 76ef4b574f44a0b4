//! The same product on the engine: every rendered object of the five examples is taken, and the workloads run.
//!
//! What operators would make from custom resources is missing here: the test makes the secrets that pods ask for, and
//! what a store's operator would run does not run. Every container is a small program that answers each request; the
//! programs that pods name themselves in an image of their own ([`PROGRAMS`]) do what their pods need of them besides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kube::Client;
use landfall_model::File;
use landfall_testing::{Applier, Apply, Schemas, require_or_skip};
use serde_json::{Map, Value, json};

use crate::example;
use crate::examples::read;
use crate::kubernetes::workloads_become_ready;
use crate::running_engine::RunningEngine;

/// Answers 200 to every request on the address and port of its arguments, and ends when asked to.
const PROGRAM: &str = r"
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = socket.create_server((sys.argv[1], int(sys.argv[2] or 0)), backlog=64)
while True:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(1)
        try:
            connection.recv(4096)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok')
        except OSError:
            pass
";

/// Programs that pods name: the image that they are in, their name, and a script that does what is needed of them. The
/// broker begins only with the passwords that the one before it has left in a volume, and its configuration.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("eclipse-mosquitto", "mosquitto_passwd", r#"[ "$1 $2" = "-b -c" ] && echo "$4:$5" > "$3""#),
    (
        "eclipse-mosquitto",
        "mosquitto",
        r#"test -s /run/passwords/passwords && grep -q listener "$2" && exec "$PYTHON" -S -c "$PROGRAM" "$ADDRESS" "$PORT""#,
    ),
];

/// Applies every environment, each to an engine of its own, and waits for its workloads.
fn check(name: &str) {
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    // One that every user may run comes first: pods have users of their own.
    let python = which("/usr/bin/python3").or_else(|| which("python3"));
    let Some(python) = require_or_skip("python3", python.ok_or("it is not on PATH")) else { return };
    let file = read(&example(name));
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    for environment in file.environments() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let nodes = folder.path().join("nodes.yaml");
        std::fs::write(&nodes, nodes_file(&file)).expect("a file can be written");
        let nodes = nodes.to_str().expect("temporary folders have plain names");
        let images = catalogue(&python, folder.path());
        let engine = RunningEngine::start(folder.path(), &images, &["--nodes", nodes]);
        runtime.block_on(async {
            let client = engine.client().await;
            apply(&client, &schemas, &file, &environment).await;
            workloads_become_ready(&client, &environment).await;
        });
    }
}

/// The program behind a name, not a script that looks for it.
pub(crate) fn which(program: &str) -> Option<String> {
    let output = std::process::Command::new(program).args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !path.is_empty()).then_some(path)
}

/// What images stand for; `folder` takes the programs that pods name.
pub(crate) fn catalogue(python: &str, folder: &Path) -> String {
    let mut entries = BTreeMap::new();
    for (image, name, script) in PROGRAMS {
        let program = folder.join(image).join(name);
        std::fs::create_dir_all(folder.join(image)).expect("a folder can be made");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a file can be written");
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it is ours");
        let env = json!({
            "PATH": format!("{}:/usr/bin:/bin", folder.join(image).display()),
            "PYTHON": python,
            "PROGRAM": PROGRAM,
            "ADDRESS": "{{pod_ip}}",
            "PORT": "{{port}}",
        });
        entries.insert(image, json!({ "image": image, "env": env }));
    }
    let others = json!({
        "image": "*",
        "program": python,
        "args": ["-S", "-c", PROGRAM, "{{pod_ip}}", "{{port}}"],
        "ignore-command": true,
    });
    json!({ "images": entries.into_values().chain([others]).collect::<Vec<_>>() }).to_string()
}

/// Two large nodes in each zone: whether everything fits on the nodes of the file is proved by `check`.
pub(crate) fn nodes_file(file: &File) -> String {
    let architecture = file.architecture(None).expect("the example is an architecture");
    let regions = architecture.document.platform.regions.values();
    let mut zones: Vec<_> = regions.flat_map(|region| region.zones.iter()).map(ToString::to_string).collect();
    if zones.is_empty() {
        zones.push("only".to_owned());
    }
    let mut text = "nodes:\n".to_owned();
    for zone in zones {
        for number in 1..=2 {
            writeln!(text, "- {{ name: {zone}-{number}, zone: {zone}, cpu: \"64\", memory: 256Gi }}")
                .expect("a string takes every text");
        }
    }
    text
}

async fn apply(client: &Client, schemas: &Schemas, file: &File, environment: &str) {
    let architecture = file.architecture(Some(environment)).expect("the example is an architecture");
    let mut objects = landfall_render::kubernetes(&architecture).into_values();
    objects.extend(secrets_of_operators(&objects));
    objects.extend(classes_of_providers(&objects));
    let applier = Applier::prepare(client.clone(), schemas, &objects).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(applier.loose().is_empty(), "schemas that the engine refuses:\n{}", applier.loose().join("\n"));

    // Nothing can be tried in a namespace that is not there.
    let (namespaces, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object["kind"] == "Namespace");
    let mut problems = BTreeSet::new();
    for (objects, mode) in [(&namespaces, Apply::ForReal), (&others, Apply::DryRun), (&others, Apply::ForReal)] {
        for object in objects {
            match applier.apply(object, mode).await {
                Ok(applied) => {
                    let subject = format!("{} {}", object["kind"], object["metadata"]["name"]);
                    let unexpected = applied.warnings.iter().filter(|warning| !is_known(warning));
                    problems.extend(unexpected.map(|warning| format!("{subject}: warning: {warning}")));
                }
                Err(error) => drop(problems.insert(error.to_string())),
            }
        }
    }
    let problems: Vec<_> = problems.into_iter().collect();
    assert!(problems.is_empty(), "{environment}: the engine objects to\n{}", problems.join("\n"));
}

/// Why the engine ignores what the examples ask for: what takes another user, or another kernel, than that of this machine.
const IGNORED: [&str; 7] = [
    "programs run as the user who runs the engine, whose folders another user could not enter",
    "the files of volumes belong to the user who runs the engine, as whom programs run",
    "programs have the capabilities of the user who runs the engine",
    "system calls are not filtered",
    "images stand for programs of this machine, so that nothing is pulled",
    "the volume is a folder on the disk of the machine",
    "nothing but the disk or the memory of the machine limits the volume",
];

fn is_known(warning: &str) -> bool {
    warning.split_once(": accepted and ignored: ").is_some_and(|(_, why)| IGNORED.contains(&why.trim_end_matches('"')))
}

/// The storage classes that claims name: a provider's cluster comes with its own.
pub(crate) fn classes_of_providers(objects: &[Value]) -> Vec<Value> {
    let claims = |object: &Value| object["spec"]["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
    let named = objects
        .iter()
        .flat_map(claims)
        .filter_map(|claim| Some(claim["spec"]["storageClassName"].as_str()?.to_owned()));
    let class = |name: String| {
        json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": { "name": name },
            "provisioner": "landfall.dev/folder",
            "volumeBindingMode": "WaitForFirstConsumer",
        })
    };
    named.collect::<BTreeSet<_>>().into_iter().map(class).collect()
}

/// The secrets that pods ask for and that no object here is: operators would make them.
pub(crate) fn secrets_of_operators(objects: &[Value]) -> Vec<Value> {
    let mut wanted = BTreeMap::<(String, String), BTreeSet<String>>::new();
    for object in objects {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        for path in ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec"] {
            let Some(pod) = object.pointer(path) else { continue };
            references(pod, &mut |name, keys| {
                wanted.entry((namespace.to_owned(), name.to_owned())).or_default().extend(keys);
            });
        }
    }
    for object in objects.iter().filter(|object| object["kind"] == "Secret") {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        wanted.remove(&(text("namespace"), text("name")));
    }
    let secret = |((namespace, name), keys): ((String, String), BTreeSet<String>)| {
        let data: Map<_, _> = keys.into_iter().map(|key| (key, json!("made by the test"))).collect();
        let metadata = json!({ "name": name, "namespace": namespace });
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data })
    };
    wanted.into_iter().map(secret).collect()
}

/// Calls `found` with each secret below `value` and the keys that are asked of it.
fn references(value: &Value, found: &mut dyn FnMut(&str, Vec<String>)) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let items = || value["items"].as_array().into_iter().flatten().filter_map(|item| text(&item["key"]));
                match (field.as_str(), text(&value["name"]), text(&value["secretName"])) {
                    ("secretKeyRef", Some(name), _) => found(&name, text(&value["key"]).into_iter().collect()),
                    ("secretRef", Some(name), _) => found(&name, Vec::new()),
                    ("secret", Some(name), _) | ("secret", _, Some(name)) => found(&name, items().collect()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_engine_runs_water_channels() {
    check("water-channels");
}

#[test]
fn the_engine_runs_balance_alerts() {
    check("balance-alerts");
}

#[test]
fn the_engine_runs_attendance_monitoring() {
    check("attendance-monitoring");
}

#[test]
fn the_engine_runs_composerp() {
    check("composerp");
}

#[test]
fn the_engine_runs_mindcompute() {
    check("mindcompute");
}
