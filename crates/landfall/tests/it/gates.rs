//! Gates, approvals, promotion, admission and the audit log, on an engine with real processes: staging and production are two
//! namespaces of one cluster.
#![expect(clippy::print_stdout, reason = "what a command said is for people who read a failure")]

mod past;
mod turn;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use landfall_deliver::{Action, AuditLog, Author, Fact};
use landfall_testing::{Schemas, require_or_skip};
use serde_json::{Value, json};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use crate::examples::read;
use crate::kubernetes::set_up;
use crate::running_engine::{POLL, RunningEngine};
use crate::ship::PROGRAM;

/// How long anything may take that has to come. Debug builds on a busy machine are slow.
const PATIENCE: Duration = Duration::from_mins(3);

const ARCHITECTURE: &str = "landfall: v1
name: shop
platform:
  regions: { here: { zones: [a, b, c] } }
  nodes: { count: 3, cpu: 4, memory: 16Gi }
services:
  web:
    image: shop/web:1
    port: 8080
    replicas: 2
    resources: { cpu: 50m..200m, memory: 32Mi..128Mi }
    probes: { live: { http: /live, period: 10s }, ready: { http: /ready, period: 1s } }
environments:
  staging: { deploy: automatic, namespace: shop-staging, soak: 1s }
  production:
    production: true
    deploy: approval
    approvals: { of: [leads], count: 2, expire: 1h }
    after: staging
    namespace: shop-production
delivery:
  rollout: { rolling: { max-surge: 1, max-unavailable: 0 } }
  rollback: { automatic: true }
  checklist:
    - { says: The tests have passed, shown-by: tests-passed, environment: staging, fresh: 24h }
    - { says: Everything fits on the nodes, shown-by: capacity-fits }
";

/// A second service, which asks nobody and is asked by nobody.
const STOCK: &str = "  stock:
    image: shop/stock:1
    port: 8080
    replicas: 2
    resources: { cpu: 50m..200m, memory: 32Mi..128Mi }
    probes: { live: { http: /live, period: 10s }, ready: { http: /ready, period: 1s } }
environments:
";

/// A cluster with both environments, and the keys of some people.
struct Platform {
    engine: RunningEngine,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Platform {
    fn start() -> Option<Self> {
        Self::start_with(ARCHITECTURE)
    }

    /// The same, with another architecture.
    fn start_with(text: &str) -> Option<Self> {
        let schemas = require_or_skip("the schemas of Kubernetes", Schemas::locate())?;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let program = folder.path().join("server.py");
        std::fs::write(&program, PROGRAM).expect("a file can be written");
        let entry = |image: &str| {
            format!(
                "- {{ image: \"{image}\", program: /usr/bin/python3, args: [\"{}\", \"{{{{pod_ip}}}}\", \"{{{{port}}}}\", any, none] }}\n",
                program.display()
            )
        };
        let catalogue = format!("images:\n{}{}", entry("shop/web:*"), entry("shop/stock:*"));
        std::fs::write(folder.path().join("landfall.yaml"), text).expect("a file can be written");
        let mut list = String::new();
        for (person, groups) in [("ada", ",leads"), ("bob", ",leads"), ("eve", "")] {
            let mut seed = [7; 32];
            seed[..3].copy_from_slice(person.as_bytes());
            let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
            let file = folder.path().join(person);
            key.write_openssh_file(&file, LineEnding::LF).expect("a file can be written");
            list += &format!("{person}{groups} {}\n", key.public_key().to_openssh().expect("a key can be written"));
        }
        std::fs::write(folder.path().join("allowed_signers"), list).expect("a file can be written");
        let engine = RunningEngine::start(folder.path(), &catalogue, &[]);
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        let client = runtime.block_on(async {
            let client = engine.client().await;
            let file = read(folder.path());
            for environment in ["staging", "production"] {
                set_up(&client, &schemas, &file, environment).await;
            }
            client
        });
        Some(Self { engine, folder, runtime, client })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).env_remove("SSH_AUTH_SOCK");
        command.arg("--kubeconfig").arg(self.engine.kubeconfig());
        command
    }

    /// Runs a command; its exit code, its document and what it said.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, Value, String) {
        let mut command = self.command(arguments);
        let output = command.args(["--output", "json"]).output().expect("the program can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{arguments:?}: {:?}\n{said}", output.status.code());
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
    }

    /// Runs a command that has to succeed.
    fn done(&self, arguments: &[&str]) -> Value {
        let (code, document, said) = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        document
    }

    /// Runs a command whose answer is no, and what it said.
    fn refused(&self, arguments: &[&str]) -> String {
        let (code, _, said) = self.run(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        said
    }

    fn watch(&self) -> Child {
        let mut command = self.command(&["ship", "--watch", "--env", "production", "--output", "json"]);
        command.stdout(Stdio::piped()).spawn().expect("the program can be started")
    }

    /// A release of production, once it is as wanted.
    fn release_becomes(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let release = self.done(&["release", "show", name, "--env", "production"]);
            if wanted(&release) {
                return release;
            }
            assert!(Instant::now() < deadline, "it does not become so: {release:#}");
            std::thread::sleep(POLL);
        }
    }

    /// An image that an administrator puts into production past everything.
    fn set_image(&self, image: &str) -> Result<(), String> {
        self.patch(&pods_with(&json!({ "image": image })))
    }

    /// Waits until an image that nobody let through is refused in a namespace; what it says then. A policy takes a moment until it is
    /// in force.
    fn refuses_images(&self, namespace: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.patch_in(namespace, &pods_with(&json!({ "image": "shop/web:evil" }))) {
                Err(refused) => return refused,
                Ok(()) => assert!(Instant::now() < deadline, "the image is admitted"),
            }
            let back = self.patch_in(namespace, &pods_with(&json!({ "image": "shop/web:1" })));
            back.expect("that one is admitted");
            std::thread::sleep(POLL);
        }
    }

    fn patch(&self, patch: &Value) -> Result<(), String> {
        self.patch_in("shop-production", patch)
    }

    /// Changes `web` in a namespace, as an administrator does.
    fn patch_in(&self, namespace: &str, patch: &Value) -> Result<(), String> {
        self.runtime.block_on(async {
            let deployments = Api::<Deployment>::namespaced(self.client.clone(), namespace);
            let patched = deployments.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await;
            patched.map(drop).map_err(|error| error.to_string())
        })
    }

    fn delete_record(&self, kind: &str, plural: &str, name: &str) {
        let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk("landfall.dev", "v1alpha1", kind));
        plural.clone_into(&mut resource.plural);
        self.runtime.block_on(async {
            let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), "shop-production", &resource);
            api.delete(name, &DeleteParams::default()).await.expect("an administrator may delete it");
        });
    }
}

/// The container of `web` with other fields, as a patch.
fn pods_with(fields: &Value) -> Value {
    let mut container = json!({ "name": "web" });
    for (key, value) in fields.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    json!({ "spec": { "template": { "spec": { "containers": [container] } } } })
}

fn gates(document: &Value) -> Vec<(String, String)> {
    let gates = document["gates"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    gates.iter().map(|gate| (text(&gate["gate"]), text(&gate["standing"]))).collect()
}

fn standing(document: &Value, gate: &str) -> String {
    let found = gates(document).into_iter().find(|(name, _)| name.starts_with(gate));
    found.unwrap_or_else(|| panic!("there is no gate `{gate}`: {document:#}")).1
}

#[test]
fn what_soaked_in_staging_reaches_production_when_its_gates_are_open_and_not_before() {
    let Some(platform) = Platform::start() else { return };
    platform.done(&["ship", "--env", "staging", "--image", "web=shop/web:2"]);

    // The plan lists the gates, and what opens them.
    let (code, plan, _) = platform.run(&["ship", "--env", "production", "--image", "web=shop/web:2", "--plan"]);
    assert_eq!(code, Some(0), "{plan:#}");
    for gate in ["has run in staging", "The tests have passed", "approved by 2 of leads"] {
        assert_eq!(standing(&plan, gate), "closed", "{plan:#}");
    }
    assert_eq!(standing(&plan, "Everything fits"), "open", "{plan:#}");
    assert_eq!(standing(&plan, "nothing is frozen"), "open");

    platform.done(&["signers", "set", "allowed_signers", "--env", "production"]);
    // What has run for a moment only has to soak.
    let deadline = Instant::now() + PATIENCE;
    while platform.run(&["promote", "staging", "production", "--plan"]).0 != Some(0) {
        assert!(Instant::now() < deadline, "it never soaks");
        std::thread::sleep(POLL);
    }
    let release = platform.done(&["promote", "staging", "production", "--detach"]);
    assert_eq!(release["services"][0]["to"], "shop/web:2", "{release:#}");
    let mut watcher = platform.watch();
    let release = platform.release_becomes("shop-1", |release| release["state"] == "Waiting");
    assert_eq!(standing(&release, "has run in staging"), "open", "{release:#}");
    assert_eq!(standing(&release, "The tests have passed"), "closed", "{release:#}");
    assert!(platform.set_image("shop/web:1").is_ok(), "nothing is protected yet, and nothing has begun");

    let report = r#"<testsuite><testcase name="buys"/></testsuite>"#;
    std::fs::write(platform.path("junit.xml"), report).expect("a file can be written");
    let tests = ["attest", "tests-passed", "--env", "production", "--seen-in", "staging", "--report", "junit.xml"];
    platform.done(&[&tests[..], &["--image", "web=shop/web:2"]].concat());

    // Who is in no group that is asked does not count, nor does the same person twice.
    let approve = |person: &str| ["approve", "shop-1", "--env", "production", "--key", person].map(ToOwned::to_owned);
    let run = |person: &str| platform.run(&approve(person).each_ref().map(String::as_str));
    assert_eq!(run("eve").0, Some(1));
    let (code, approved, _) = run("ada");
    assert_eq!((code, &approved["approved"]), (Some(0), &json!(["ada"])), "{approved:#}");
    let (_, approved, _) = run("ada");
    assert_eq!(approved["approved"], json!(["ada"]), "{approved:#}");
    platform.release_becomes("shop-1", |release| standing(release, "The tests have passed") == "open");
    let release = platform.done(&["release", "show", "shop-1", "--env", "production"]);
    assert_eq!((&release["state"], standing(&release, "approved by 2").as_str()), (&json!("Waiting"), "closed"));

    // The second one signs with OpenSSH's own program.
    match sign_elsewhere(&platform) {
        Some(arguments) => drop(platform.done(&arguments.each_ref().map(String::as_str))),
        None => assert_eq!(run("bob").0, Some(0)),
    }
    let ended = watcher.wait().expect("a child can be waited for");
    let release = platform.release_becomes("shop-1", |release| release["state"] == "Succeeded");
    assert_eq!((ended.code(), standing(&release, "approved by 2").as_str()), (Some(0), "open"), "{release:#}");

    // Everything is in the log, in its order, before it was done.
    let audit = platform.done(&["audit", "--env", "production"]);
    let actions: Vec<&str> =
        audit["entries"].as_array().expect("a list").iter().filter_map(|entry| entry["action"].as_str()).collect();
    let first = |action: &str| actions.iter().position(|own| *own == action).unwrap_or_else(|| panic!("{actions:?}"));
    assert!(first("change-signers") < first("propose") && first("propose") < first("approve"), "{actions:?}");
    assert!(first("approve") < first("begin") && first("begin") < first("succeed"), "{actions:?}");
    assert_eq!(actions.iter().filter(|action| **action == "approve").count(), 3, "{actions:?}");
    platform.done(&["audit", "verify", "--env", "production"]);
}

/// Bob's approval, by `ssh-keygen`; the arguments that hand it in.
fn sign_elsewhere(platform: &Platform) -> Option<[String; 8]> {
    require_or_skip("ssh-keygen", Command::new("ssh-keygen").arg("-?").output().map_err(|error| error.to_string()))?;
    let printed = platform.command(&["approve", "shop-1", "--env", "production", "--print"]).output();
    let printed = printed.expect("the program can be started");
    std::fs::write(platform.path("statement"), &printed.stdout).expect("a file can be written");
    let key = platform.path("bob");
    let signed = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", "landfall", "-f"])
        .arg(&key)
        .arg(platform.path("statement"))
        .stdin(Stdio::null())
        .output()
        .expect("ssh-keygen can be started");
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    Some(
        ["approve", "shop-1", "--env", "production", "--statement", "statement", "--signature", "statement.sig"]
            .map(ToOwned::to_owned),
    )
}

#[test]
fn who_goes_around_the_gates_is_refused_or_seen() {
    let Some(platform) = Platform::start() else { return };
    platform.done(&["signers", "set", "allowed_signers", "--env", "production"]);
    let protected = platform.done(&["protect", "--env", "production", "--shippers", "deployers"]);
    assert_eq!(protected["images"], json!(["shop/web:1"]));
    let drift = |platform: &Platform| platform.done(&["releases", "--env", "production"])["drift"].clone();
    assert_eq!(drift(&platform), json!([]));

    let refused = platform.refuses_images("shop-production");
    assert!(refused.contains("no release has let"), "{refused}");
    platform.patch(&json!({ "spec": { "replicas": 3 } })).expect("copies are nobody's business");

    // A rejected release ends, and has changed nothing.
    let mut watcher = {
        platform.done(&["ship", "--env", "production", "--image", "web=shop/web:2", "--detach"]);
        platform.watch()
    };
    platform.release_becomes("shop-1", |release| release["state"] == "Waiting");
    platform.done(&["reject", "shop-1", "--env", "production", "--key", "ada", "--because", "the books are open"]);
    assert_eq!(watcher.wait().expect("a child can be waited for").code(), Some(1));
    let release = platform.done(&["release", "show", "shop-1", "--env", "production"]);
    assert_eq!(
        (&release["state"], &release["why"]["reason"]),
        (&json!("RolledBack"), &json!("aborted")),
        "{release:#}"
    );
    let late = platform.refused(&["approve", "shop-1", "--env", "production", "--key", "ada"]);
    assert!(late.contains("is not waiting for anybody"), "{late}");

    // A freeze is told, and is not taken away unseen.
    platform.done(&["freeze", "production", "--because", "end of the quarter"]);
    let again = platform.refused(&["freeze", "production", "--because", "again"]);
    assert!(again.contains("end of the quarter"), "{again}");
    let plan = platform.done(&["ship", "--env", "production", "--image", "web=shop/web:2", "--plan"]);
    assert_eq!(standing(&plan, "nothing is frozen"), "closed");
    platform.delete_record("Freeze", "freezes", "shop");
    let seen = drift(&platform).to_string();
    assert!(seen.contains("somebody has taken the freeze away"), "{seen}");
    platform.done(&["freeze", "production", "--because", "end of the quarter"]);
    platform.done(&["thaw", "production", "--because", "the books are closed"]);
    assert_eq!(drift(&platform), json!([]));

    // An administrator opens the gate, goes through it, and is seen.
    platform.runtime.block_on(async {
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(platform.client.clone());
        bindings.delete("landfall-shop.shop-production", &DeleteParams::default()).await.expect("it may be deleted");
    });
    let deadline = Instant::now() + PATIENCE;
    while platform.set_image("shop/web:evil").is_err() {
        assert!(Instant::now() < deadline, "the policy stays in force without its binding");
        std::thread::sleep(POLL);
    }
    let seen = drift(&platform).to_string();
    assert!(seen.contains("is gone: any image can be started"), "{seen}");
    assert!(seen.contains("`web` runs `shop/web:evil`"), "{seen}");

    // So is whoever cleans up the log.
    let export =
        platform.command(&["audit", "export", "--env", "production"]).output().expect("the program can be started");
    std::fs::write(platform.path("audit.jsonl"), &export.stdout).expect("a file can be written");
    platform.done(&["audit", "verify", "--exported", "audit.jsonl"]);
    platform.delete_record("AuditEntry", "auditentries", "shop-00000003");
    let broken = platform.refused(&["audit", "verify", "--env", "production"]);
    assert!(broken.contains("entry 3 was removed"), "{broken}");
    let broken = platform.refused(&["audit", "verify", "--env", "production", "--against", "audit.jsonl"]);
    assert!(broken.contains("entry 3 of the export is not in the log any more"), "{broken}");
}

#[test]
fn who_may_approve_is_changed_by_those_who_may() {
    let Some(platform) = Platform::start() else { return };
    let nobody = platform.refused(&["approve", "shop-1", "--env", "production", "--key", "ada"]);
    assert!(nobody.contains("nobody may approve"), "{nobody}");
    let signers = platform.done(&["signers", "set", "allowed_signers", "--env", "production"]);
    assert_eq!((&signers["number"], &signers["proposed"]), (&json!(1), &Value::Null));

    let text = std::fs::read_to_string(platform.path("allowed_signers")).expect("it was written");
    let more = text.replace("eve ", "eve,leads ");
    std::fs::write(platform.path("more"), more).expect("a file can be written");
    let signers = platform.done(&["signers", "set", "more", "--env", "production"]);
    assert_eq!((&signers["number"], &signers["proposed"]["name"]), (&json!(1), &json!("shop-signers-2")));
    platform.refused(&["approve", "shop-signers-2", "--env", "production", "--key", "eve"]);
    platform.done(&["approve", "shop-signers-2", "--env", "production", "--key", "ada"]);
    let signers = platform.done(&["signers", "show", "--env", "production"]);
    assert_eq!(signers["proposed"]["approved"], json!(["ada"]), "{signers:#}");
    platform.done(&["approve", "shop-signers-2", "--env", "production", "--key", "bob"]);
    let signers = platform.done(&["signers", "show", "--env", "production"]);
    assert_eq!((&signers["number"], &signers["proposed"]), (&json!(2), &Value::Null), "{signers:#}");
    platform.done(&["audit", "verify", "--env", "production"]);
}

#[test]
fn writers_at_the_same_time_do_not_fork_the_log() {
    const WRITERS: usize = 8;
    const EACH: usize = 10;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let engine = RunningEngine::api_only(folder.path());
    tokio::runtime::Runtime::new().expect("threads can be started").block_on(async {
        let client = engine.client().await;
        let first = Author::of(&client, "default", "shop", "here").await.expect("the engine knows who asks");
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let author = first.clone();
            writers.spawn(async move {
                for number in 0..EACH {
                    let fact = Fact {
                        action: Action::Attest,
                        subject: format!("{writer}-{number}"),
                        digest: None,
                        says: "something".to_owned(),
                        evidence: Vec::new(),
                    };
                    author.write(fact).await.expect("an entry can be written");
                }
            });
        }
        writers.join_all().await;
        let log = AuditLog::read(&client, "default", "shop").await.expect("the log can be read");
        assert_eq!((log.entries.len(), log.verify()), (WRITERS * EACH, Vec::new()));
        let subjects: std::collections::BTreeSet<&str> =
            log.entries.iter().map(|entry| entry.subject.as_str()).collect();
        assert_eq!(subjects.len(), WRITERS * EACH, "an entry is there twice");
    });
}
