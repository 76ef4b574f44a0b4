//! Terraform and Dockerfiles: what is written is laid out and named as their readers want it.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate starts nothing and reads no disk, but a test that asks real tools has to"
)]

mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Block, Body};
use landfall_model::File;
use landfall_render::{FileTree, Output, Target, Variant, render};
use landfall_testing::{Tool, check_tree, use_or_skip};

const EXAMPLES: [&str; 5] = ["water-channels", "balance-alerts", "attendance-monitoring", "composerp", "mindcompute"];

/// What every argument of a module's resources is compared with, made by `tools/provider-arguments`.
const ARGUMENTS: &str = include_str!("provider-arguments.txt");

/// What Terraform itself knows in every block of a resource.
const META: [&str; 5] = ["count", "for_each", "depends_on", "provider", "lifecycle"];

fn of_file(file: &File, target: Target) -> Output {
    let of = |environment: Option<&str>| {
        let architecture = file.architecture(environment);
        Variant::new(architecture.unwrap_or_else(|findings| panic!("the file is wrong: {findings:#?}")))
    };
    let names = file.environments();
    let variants: Vec<Variant> =
        if names.is_empty() { vec![of(None)] } else { names.iter().map(|name| of(Some(name))).collect() };
    render(target, &variants, file.sources())
}

fn of_example(example: &str, target: Target) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
    let bytes = fs::read(folder.join("landfall.yaml")).expect("the example is there");
    let include = &mut |path: &str| fs::read(folder.join(path)).map_err(|error| error.to_string());
    of_file(&File::read("landfall.yaml", &bytes, include), target)
}

fn of_text(text: &str) -> Output {
    of_file(&crate::architecture::read(text), Target::Terraform)
}

/// One store of every engine that any cloud runs, with all that is said about stores.
fn everything(provider: &str, private: bool) -> String {
    let store = "members: 3, size: 100Gi, encryption: { at-rest: true, in-transit: true }";
    let location = match provider {
        "aws" => "ap-south-1",
        "azure" => "centralindia",
        _ => "asia-south1",
    };
    format!(
        "platform:
  providers: [{provider}]
  private-api: {private}
  residency: [IN]
  edge: [cdn, waf, load-balancer]
  regions:
    main: {{ provider: {provider}, location: {location}, country: IN, zones: [a, b, c] }}
    copy: {{ provider: {provider}, country: IN, role: archive }}
  nodes: {{ count: 6, cpu: 4, memory: 16Gi }}
  pools: {{ batch: {{ count: 3, cpu: 8, memory: 64Gi, dedicated: true, zones: [b] }} }}
services:
  web: {{ port: 8080, build: src/web, expose: shop.example.com, uses: [{{ write: ledger }}, {{ store: files/pictures }}] }}
stores:
  ledger: {{ engine: postgres, provider: {provider}, {store}, backup: {{ full: 24h, log: 5m, keep: 14d, to: archive, copies: [copy] }} }}
  documents: {{ engine: mongodb, provider: {provider}, {store} }}
  sessions: {{ engine: redis, provider: {provider}, {store} }}
  events: {{ engine: kafka, provider: {provider}, {store}, topics: {{ orders: {{ partitions: 6, retention: 3d }} }} }}
  jobs: {{ engine: rabbitmq, provider: {provider}, {store} }}
  search: {{ engine: elasticsearch, provider: {provider}, {store} }}
  things: {{ engine: mqtt, provider: {provider}, {store} }}
  archive: {{ engine: s3, provider: {provider} }}
  files: {{ engine: s3, provider: {provider} }}
security:
  secrets: {{ backend: {provider}, items: {{ api: {{ keys: [token], rotate: 90d }} }} }}
"
    )
}

/// Every tree that the tests of this file look at.
fn trees() -> Vec<(String, FileTree)> {
    let examples = EXAMPLES.map(|example| (example.to_owned(), of_example(example, Target::Terraform).files));
    let clouds = ["aws", "azure", "gcp"].into_iter().flat_map(|cloud| {
        [true, false].map(|private| (format!("{cloud}, {private}"), of_text(&everything(cloud, private)).files))
    });
    examples.into_iter().chain(clouds).collect()
}

fn parsed(path: &str, text: &str) -> Body {
    text.parse().unwrap_or_else(|error| panic!("`{path}`: {error}"))
}

/// The blocks of a kind in a folder.
fn blocks(files: &FileTree, folder: &str, kind: &str) -> Vec<Block> {
    let files = files.iter().filter(|(path, _)| path.rsplit_once('/').is_some_and(|(its, _)| its == folder));
    let bodies = files.map(|(path, text)| parsed(path, text));
    bodies.flat_map(|body| body.get_blocks(kind).cloned().collect::<Vec<_>>()).collect()
}

fn label(block: &Block, index: usize) -> String {
    block.labels.get(index).map_or_else(String::new, |label| label.as_str().to_owned())
}

#[test]
fn what_is_rendered_is_laid_out_as_the_formatter_wants() {
    let Some(tofu) = use_or_skip("tofu", Tool::Tofu.locate()) else { return };
    for (name, files) in trees() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (path, text) in &files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        let output = Command::new(&tofu)
            .args(["fmt", "-check", "-diff", "-recursive", "."])
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .output()
            .expect("the program can be started");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn roots_give_each_module_what_it_takes_and_nothing_else() {
    for (name, files) in trees() {
        let folders: BTreeSet<&str> = files.keys().filter_map(|path| Some(path.rsplit_once('/')?.0)).collect();
        let roots = folders.iter().filter(|folder| !folder.starts_with("modules/"));
        let mut calls = 0;
        for root in roots {
            let declared: BTreeSet<String> =
                blocks(&files, root, "variable").iter().map(|variable| label(variable, 0)).collect();
            let called: BTreeSet<String> = blocks(&files, root, "module").iter().map(|call| label(call, 0)).collect();
            for call in blocks(&files, root, "module") {
                calls += 1;
                let place = format!("{name}: {root}, module {}", label(&call, 0));
                let source = call.body.get_attribute("source").expect("a call has a source").value.as_str();
                let folder = source.expect("a source is a text").trim_start_matches("../../../").to_owned();
                let variables: BTreeMap<String, bool> = blocks(&files, &folder, "variable")
                    .iter()
                    .map(|variable| (label(variable, 0), variable.body.get_attribute("default").is_none()))
                    .collect();
                assert!(!variables.is_empty(), "{place}: there is no `{folder}`");
                let given: BTreeSet<&str> = call.body.attributes().map(|attribute| attribute.key.as_str()).collect();
                for argument in given.iter().filter(|argument| **argument != "source") {
                    assert!(variables.contains_key(*argument), "{place} has no variable `{argument}`");
                }
                for (variable, _) in variables.iter().filter(|(_, required)| **required) {
                    assert!(given.contains(variable.as_str()), "{place} needs `{variable}`");
                }
                for attribute in call.body.attributes() {
                    for (kind, rest) in references(attribute) {
                        let known = if kind == "var" { &declared } else { &called };
                        let first = rest.split('.').next().unwrap_or_default();
                        assert!(known.contains(first), "{place}: `{kind}.{rest}` leads nowhere");
                        if kind == "module" {
                            let output = rest.split('.').nth(1).unwrap_or_default();
                            let outputs = outputs_of(&files, root, first);
                            assert!(outputs.contains(output), "{place}: no output `{rest}` among {outputs:?}");
                        }
                    }
                }
            }
        }
        assert!(calls > 0, "{name} has a root");
    }
}

/// `module.network.id` as (`module`, `network.id`): every such word in an attribute.
fn references(attribute: &Attribute) -> Vec<(&'static str, String)> {
    let text = attribute.value.to_string();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '"')));
    let known = |word: &str| {
        ["var", "module"]
            .into_iter()
            .find_map(|kind| Some((kind, word.strip_prefix(kind)?.strip_prefix('.')?.to_owned())))
    };
    words.filter_map(known).collect()
}

fn outputs_of(files: &FileTree, root: &str, call: &str) -> BTreeSet<String> {
    let calls = blocks(files, root, "module");
    let call = calls.iter().find(|block| label(block, 0) == call).expect("the call is there");
    let source = call.body.get_attribute("source").and_then(|source| source.value.as_str()).unwrap_or_default();
    blocks(files, source.trim_start_matches("../../../"), "output").iter().map(|output| label(output, 0)).collect()
}

/// The lines of the table: by resource and path, whether it is a block and whether it must be there.
fn table() -> BTreeMap<(String, String), (&'static str, bool)> {
    let lines = ARGUMENTS.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let words: Vec<&'static str> = line.split(' ').collect();
            let [kind, resource, path, sort, needed] = words[..] else { return None };
            Some(((format!("{kind} {resource}"), path.to_owned()), (sort, needed == "required")))
        })
        .collect()
}

#[test]
fn every_argument_of_a_module_is_one_that_the_provider_knows() {
    let table = table();
    let known: BTreeSet<&str> = table.keys().map(|(resource, _)| resource.as_str()).collect();
    let mut seen = BTreeSet::new();
    for (_, files) in trees() {
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with("modules/")) {
            let body = parsed(path, text);
            for block in body.blocks().filter(|block| matches!(block.ident.as_str(), "resource" | "data")) {
                let resource = format!("{} {}", block.ident.as_str(), label(block, 0));
                let whole = format!("{path}, {resource}");
                if block.body.attributes().next().is_some() {
                    assert!(known.contains(resource.as_str()), "{whole} is not in the table");
                }
                compare(&table, &whole, &resource, "", &block.body);
                seen.insert(resource);
            }
        }
    }
    assert!(seen.len() > 100, "the clouds together have {} kinds", seen.len());
}

/// Compares one block with the table, and the blocks in it.
fn compare(
    table: &BTreeMap<(String, String), (&'static str, bool)>,
    place: &str,
    resource: &str,
    prefix: &str,
    body: &Body,
) {
    let path_of = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    let look_up = |name: &str| table.get(&(resource.to_owned(), path_of(name))).copied();
    let meta = |name: &str| prefix.is_empty() && META.contains(&name);
    let mut given = BTreeSet::new();
    for attribute in body.attributes().filter(|attribute| !meta(attribute.key.as_str())) {
        let name = attribute.key.as_str();
        let (sort, _) = look_up(name).unwrap_or_else(|| panic!("{place} has no argument `{}`", path_of(name)));
        assert_ne!(sort, "block", "{place}: `{}` is a block", path_of(name));
        given.insert(name.to_owned());
    }
    for block in body.blocks().filter(|block| !meta(block.ident.as_str())) {
        let dynamic = block.ident.as_str() == "dynamic";
        let name = if dynamic { label(block, 0) } else { block.ident.as_str().to_owned() };
        let inner = if dynamic {
            &block.body.get_blocks("content").next().expect("a dynamic block has content").body
        } else {
            &block.body
        };
        let (sort, _) = look_up(&name).unwrap_or_else(|| panic!("{place} has no block `{}`", path_of(&name)));
        assert_ne!(sort, "argument", "{place}: `{}` is an argument", path_of(&name));
        compare(table, place, resource, &path_of(&name), inner);
        given.insert(name);
    }
    for ((of, path), (_, required)) in table {
        let direct = match path.rsplit_once('.') {
            Some((parent, name)) => (parent == prefix).then_some(name),
            None => prefix.is_empty().then_some(path.as_str()),
        };
        if let Some(name) = direct.filter(|_| of == resource && *required) {
            assert!(given.contains(name), "{place} needs `{path}`");
        }
    }
}

#[test]
fn data_cannot_be_destroyed_by_a_plan() {
    let kept = [
        "aws_db_instance",
        "aws_docdb_cluster",
        "aws_msk_cluster",
        "aws_s3_bucket",
        "aws_kms_key",
        "azurerm_postgresql_flexible_server",
        "azurerm_storage_account",
        "azurerm_eventhub_namespace",
        "google_sql_database_instance",
        "google_storage_bucket",
        "google_managed_kafka_cluster",
        "google_kms_crypto_key",
    ];
    let mut found = BTreeSet::new();
    for (_, files) in trees() {
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with("modules/")) {
            for block in parsed(path, text).get_blocks("resource") {
                // A replica is a copy.
                if !kept.contains(&label(block, 0).as_str()) || label(block, 1) == "replica" {
                    continue;
                }
                let lifecycle = block.body.get_blocks("lifecycle").next().expect("data has a life cycle");
                let prevented = lifecycle.body.get_attribute("prevent_destroy").map(|attribute| &attribute.value);
                assert!(matches!(prevented, Some(Expression::Bool(value)) if *value.value()), "{path}");
                found.insert(label(block, 0));
            }
        }
    }
    assert_eq!(found.len(), kept.len(), "{found:?}");
}

#[test]
fn a_region_stays_in_its_country_on_every_cloud() {
    let text = "platform:
  providers: [aws, gcp, azure]
  regions:
    one: { provider: aws, location: ap-south-1, country: IN, zones: [a, b, c] }
    two: { provider: aws, location: eu-west-1, country: IN, role: standby }
  nodes: { count: 3, cpu: 4, memory: 16Gi }
services: { web: { port: 8080 } }
";
    let output = of_text(text);
    let locations: BTreeSet<&str> = output
        .files
        .iter()
        .filter(|(path, _)| path.ends_with("providers.tf"))
        .filter_map(|(_, text)| text.lines().find_map(|line| line.trim().strip_prefix("region ")?.split('"').nth(1)))
        .collect();
    assert_eq!(locations, BTreeSet::from(["ap-south-1", "asia-south1", "asia-south2"]));
    let azure = &output.files["azure/default/one/main.tf"];
    assert!(azure.contains("\"centralindia\""), "{azure}");
    let messages: Vec<&str> = output.findings.iter().map(|finding| finding.message.as_str()).collect();
    assert!(messages.contains(&"region `two` is not rendered for aws"), "{messages:?}");
}

#[test]
fn what_no_module_can_say_is_said() {
    let output = of_text(&everything("gcp", true));
    let messages: BTreeSet<&str> = output.findings.iter().map(|finding| finding.message.as_str()).collect();
    for store in ["documents", "jobs", "search", "things"] {
        let expected = format!("no Terraform makes the store `{store}` on gcp");
        assert!(messages.contains(expected.as_str()), "{messages:#?}");
    }
}

#[test]
fn the_cluster_is_told_who_says_who_somebody_is_where_the_cloud_takes_it() {
    let identity = "security: { identity: { issuer: \"https://id.shop.example\", groups: teams } }\n";
    let base = |cloud: &str| {
        let text = everything(cloud, true);
        text.split_once("security:").map_or_else(String::new, |(text, _)| format!("{text}{identity}"))
    };
    let aws = &of_text(&base("aws")).files["aws/default/main/main.tf"];
    let expected = "  identity = {\n    issuer_url   = \"https://id.shop.example\"\n    client_id    = var.identity_client_id\n    groups_claim = \"teams\"\n  }\n";
    assert!(aws.contains(expected), "{aws}");
    for cloud in ["azure", "gcp"] {
        let findings = of_text(&base(cloud)).findings;
        let expected = format!("no Terraform tells the cluster on {cloud} of `https://id.shop.example`");
        assert!(findings.iter().any(|finding| finding.message == expected), "{findings:#?}");
    }
}

#[test]
fn the_firewall_of_amazon_stands_at_what_users_reach() {
    let root = |edge: &str| {
        let text = everything("aws", true).replace("[cdn, waf, load-balancer]", edge);
        of_text(&text).files["aws/default/main/main.tf"].clone()
    };
    let (behind, alone) = (root("[cdn, waf, load-balancer]"), root("[waf, load-balancer]"));
    assert!(behind.contains("var.origin") && !behind.contains("var.ingress_node_port"), "{behind}");
    assert!(alone.contains("var.ingress_node_port") && !alone.contains("var.origin"), "{alone}");
}

#[test]
fn every_managed_store_but_buckets_has_the_name_that_its_service_leads_to() {
    for (cloud, expected) in [
        ("aws", &["documents", "events", "jobs", "ledger", "search", "sessions"][..]),
        ("azure", &["events", "ledger", "sessions"]),
        ("gcp", &["events", "ledger", "sessions"]),
    ] {
        let files = of_text(&everything(cloud, true)).files;
        let root = format!("{cloud}/default/main");
        let calls = blocks(&files, &root, "module");
        let names = calls.iter().find(|call| label(call, 0) == "names").expect("the stores have names");
        assert_eq!(names.body.get_attribute("name").and_then(|name| name.value.as_str()), Some("shop.internal"));
        let stores = names.body.get_attribute("stores").and_then(|stores| stores.value.as_object());
        let stores = stores.expect("it has stores").iter().map(|(key, _)| key.as_ident().map(ToString::to_string));
        let stores: BTreeSet<String> = stores.flatten().collect();
        assert_eq!(stores, expected.iter().map(|name| (*name).to_owned()).collect(), "{cloud}");
    }
}

#[test]
fn the_same_file_gives_the_same_bytes() {
    assert_eq!(of_text(&everything("aws", true)).files, of_text(&everything("aws", true)).files);
}

#[test]
fn the_trees_beside_the_examples_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/composerp");
    check_tree(&folder.join("terraform"), &of_example("composerp", Target::Terraform).files);
    check_tree(&folder.join("dockerfile"), &of_example("composerp", Target::Dockerfile).files);
}

#[test]
fn a_dockerfile_has_two_stages_pinned_tags_and_a_user_without_rights() {
    for language in ["go", "java", "node", "python", "rust"] {
        let text =
            format!("services: {{ web: {{ port: 8080, build: {{ context: src/web, language: {language} }} }} }}\n");
        let output = of_file(&crate::architecture::read(&text), Target::Dockerfile);
        assert!(output.findings.is_empty(), "{:#?}", output.findings);
        let file = &output.files["src/web/Dockerfile"];
        let images: Vec<&str> = file.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next()).collect();
        assert_eq!(images.len(), 2, "{file}");
        assert!(images.iter().all(|image| image.contains(':') && !image.ends_with(":latest")), "{file}");
        assert!(file.contains("\nUSER 65532:65532\n") && file.contains("\nEXPOSE 8080\n"), "{file}");
        assert!(output.files["src/web/.dockerignore"].contains(".env*\n"));
    }
}

#[test]
fn a_service_whose_language_nobody_knows_is_said() {
    let text = "services: { web: { build: { context: a, language: nodee } }, job: { build: b } }\n";
    let output = of_file(&crate::architecture::read(text), Target::Dockerfile);
    assert!(output.files.is_empty());
    let messages: Vec<&str> = output.findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(messages, ["`job` gets no Dockerfile", "`web` gets no Dockerfile"]);
}
