//! What is rendered for other tools says what the plain objects say: the tools themselves are asked.
//!
//! Everything is compared as Kustomize prints it, so that one real reader of YAML has seen both sides.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate starts nothing and reads no disk, but a test that asks real tools has to"
)]

mod random;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use landfall_model::File;
use landfall_render::{FileTree, Target, Variant, render};
use landfall_testing::{Schemas, Tool, check_tree, require_or_skip};

const EXAMPLES: [&str; 5] = ["water-channels", "balance-alerts", "attendance-monitoring", "composerp", "mindcompute"];

/// The trees that are kept beside the examples, for people to read.
const GOLDEN: [(&str, Target); 6] = [
    ("attendance-monitoring", Target::Github),
    ("balance-alerts", Target::Helm),
    ("balance-alerts", Target::Argocd),
    ("mindcompute", Target::Helm),
    ("mindcompute", Target::Argocd),
    ("mindcompute", Target::Gitlab),
];

fn folder_of(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example)
}

fn read(example: &str) -> File {
    let folder = folder_of(example);
    let bytes = fs::read(folder.join("landfall.yaml")).expect("the example is there");
    File::read("landfall.yaml", &bytes, &mut |path| fs::read(folder.join(path)).map_err(|error| error.to_string()))
}

fn variants(file: &File) -> Vec<Variant> {
    let of = |environment: Option<&str>| {
        let architecture = file.architecture(environment);
        Variant::new(architecture.unwrap_or_else(|findings| panic!("the file is wrong: {findings:#?}")))
    };
    let names = file.environments();
    if names.is_empty() { vec![of(None)] } else { names.iter().map(|name| of(Some(name))).collect() }
}

/// A tree on disk.
fn written(files: &FileTree) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    write(folder.path(), files);
    folder
}

fn write(folder: &Path, files: &FileTree) {
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }
}

/// What a program says when it is content.
#[track_caller]
fn said(program: &Path, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder)
        .output()
        .expect("the program can be started");
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}{}",
        program.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("it prints text")
}

/// The objects in these files, as Kustomize reads them, in an order of its own.
#[track_caller]
fn normal(kubectl: &Path, files: &FileTree) -> String {
    let mut all = files.clone();
    let resources: String = files.keys().map(|path| format!("- \"{path}\"\n")).collect();
    all.insert("kustomization.yaml".to_owned(), format!("sortOptions: {{ order: legacy }}\nresources:\n{resources}"));
    let folder = written(&all);
    sorted(&said(kubectl, &["kustomize", "."], folder.path()))
}

/// The documents of a stream, sorted.
fn sorted(stream: &str) -> String {
    let mut documents: Vec<&str> = stream.split("\n---\n").map(str::trim).collect();
    documents.sort_unstable();
    documents.join("\n---\n")
}

#[track_caller]
fn assert_same(what: &str, plain: &str, other: &str) {
    if plain != other {
        let (plain, other): (Vec<_>, Vec<_>) = (plain.lines().collect(), other.lines().collect());
        let at = plain.iter().zip(&other).position(|(a, b)| a != b).unwrap_or(plain.len().min(other.len()));
        let around = |lines: &[&str]| lines[at.saturating_sub(12)..(at + 4).min(lines.len())].join("\n");
        panic!("{what} differs in line {at}:\n--- plain\n{}\n--- target\n{}", around(&plain), around(&other));
    }
}

/// Every environment by Kustomize is the environment as plain objects.
#[track_caller]
fn kustomize_is_plain(what: &str, file: &File, kubectl: &Path) {
    let variants = variants(file);
    let tree = written(&render(Target::Kustomize, &variants, file.sources()).files);
    for variant in &variants {
        let plain = normal(kubectl, &variant.rendered.files(file.sources()));
        let overlay = format!("overlays/{}", variant.name);
        let built = said(kubectl, &["kustomize", &overlay], tree.path());
        // Read once more, so that both have the same history.
        let built = normal(kubectl, &FileTree::from([("all.yaml".to_owned(), built)]));
        assert_same(&format!("{what}, {} by Kustomize", variant.name), &plain, &built);
    }
}

/// Every environment by Helm is the environment as plain objects.
#[track_caller]
fn helm_is_plain(what: &str, file: &File, kubectl: &Path, helms: &[&Path]) {
    let variants = variants(file);
    let tree = written(&render(Target::Helm, &variants, file.sources()).files);
    for variant in &variants {
        let plain = normal(kubectl, &variant.rendered.files(file.sources()));
        let values = format!("values-{}.yaml", variant.name);
        for helm in helms {
            said(helm, &["lint", ".", "--strict", "-f", &values], tree.path());
            let stream = said(helm, &["template", "x", ".", "-f", &values], tree.path());
            let built = normal(kubectl, &FileTree::from([("all.yaml".to_owned(), stream)]));
            assert_same(&format!("{what}, {} by {}", variant.name, helm.display()), &plain, &built);
        }
    }
}

#[test]
fn kustomize_builds_the_plain_objects_of_every_environment_of_every_example() {
    let Some(kubectl) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    for name in EXAMPLES {
        kustomize_is_plain(name, &read(name), &kubectl);
    }
}

#[test]
fn an_old_kubectl_builds_them_too() {
    let Some(kubectl) = require_or_skip("an old kubectl", Tool::OldKubectl.locate()) else { return };
    kustomize_is_plain("mindcompute", &read("mindcompute"), &kubectl);
}

#[test]
fn helm_old_and_new_templates_the_plain_objects_of_every_environment_of_every_example() {
    let Some(kubectl) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let Some(helm) = require_or_skip("helm", Tool::Helm.locate()) else { return };
    let Some(old) = require_or_skip("an old helm", Tool::OldHelm.locate()) else { return };
    for name in EXAMPLES {
        helm_is_plain(name, &read(name), &kubectl, &[&helm, &old]);
    }
}

#[test]
fn what_argo_cd_reads_is_valid_and_builds_the_plain_objects_with_waves() {
    let Some(kubectl) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let schemas = require_or_skip("the schemas of Argo CD", Schemas::locate());
    for name in EXAMPLES {
        let file = read(name);
        let variants = variants(&file);
        let files = render(Target::Argocd, &variants, file.sources()).files;
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with("argocd/") || *path == "root.yaml") {
            let object = serde_saphyr::from_str::<serde_json::Value>(text).expect("it is YAML");
            if let Some(schemas) = &schemas {
                assert_eq!(schemas.validate(&object), Ok(()), "{name}: {path}");
            }
        }
        let tree = written(&files);
        for variant in &variants {
            let plain = normal(&kubectl, &variant.rendered.files(file.sources()));
            let built = said(&kubectl, &["kustomize", &format!("environments/{}", variant.name)], tree.path());
            let waves = built.matches("argocd.argoproj.io/sync-wave").count();
            assert!(waves > 0, "{name}, {}: nothing comes first", variant.name);
            let kinds = |text: &str| text.lines().filter(|line| line.starts_with("kind: ")).count();
            assert_eq!(kinds(&plain), kinds(&built), "{name}, {}", variant.name);
        }
    }
}

#[test]
fn actionlint_accepts_the_workflows_of_every_example_with_a_pipeline() {
    let Some(actionlint) = require_or_skip("actionlint", Tool::Actionlint.locate()) else { return };
    for name in EXAMPLES.iter().filter(|name| **name != "water-channels") {
        let file = read(name);
        let files = render(Target::Github, &variants(&file), file.sources()).files;
        let tree = written(&files);
        for path in files.keys() {
            said(&actionlint, &["-no-color", path], tree.path());
        }
    }
}

#[test]
fn the_jobs_of_a_pipeline_come_in_the_order_of_its_stages() {
    let file = read("attendance-monitoring");
    let files = render(Target::Github, &variants(&file), file.sources()).files;
    let workflow: serde_json::Value =
        serde_saphyr::from_str(&files[".github/workflows/delivery.yml"]).expect("it is YAML");
    let mut order = vec!["production"];
    while let Some(before) = workflow["jobs"][order[order.len() - 1]]["needs"].as_str() {
        order.push(before);
    }
    order.reverse();
    assert_eq!(order, ["lint", "test", "build", "scan", "push", "staging", "approval", "production"]);
    let steps = |job: &str| -> Vec<&str> {
        let steps = workflow["jobs"][job]["steps"].as_array().into_iter().flatten();
        steps.filter_map(|step| step["name"].as_str()).collect()
    };
    assert_eq!(steps("staging"), ["sign in", "deploy", "smoke", "dast", "rollback"]);
    assert_eq!(workflow["jobs"]["approval"]["environment"], "production-approval");
}

#[test]
fn the_jobs_of_a_gitlab_pipeline_have_one_stage_each_and_wait_where_somebody_approves() {
    let file = read("mindcompute");
    let files = render(Target::Gitlab, &variants(&file), file.sources()).files;
    let pipeline: serde_json::Value = serde_saphyr::from_str(&files[".gitlab-ci.yml"]).expect("it is YAML");
    let stages =
        ["build", "development", "test", "validation", "pre-production", "pre-production-approved", "production"];
    assert_eq!(pipeline["stages"], serde_json::json!(stages));
    for stage in stages {
        let waits = pipeline[stage]["when"] == "manual";
        assert_eq!(waits, stage == "pre-production-approved", "{stage}");
    }
}

#[test]
fn a_namespace_that_production_does_not_have_is_one_in_the_others() {
    let file = read("water-channels");
    let values = &render(Target::Helm, &variants(&file), file.sources()).files["values.yaml"];
    assert!(values.contains("mockIotAdapter:") && !values.contains("image2:"), "{values}");
}

#[test]
fn a_file_without_a_pipeline_has_none_to_render() {
    let file = read("water-channels");
    for target in [Target::Github, Target::Gitlab] {
        let output = render(target, &variants(&file), file.sources());
        assert_eq!(output.findings[0].message, "there is no pipeline to render");
    }
}

#[test]
fn the_trees_beside_the_examples_are_what_is_rendered() {
    for (name, target) in GOLDEN {
        let file = read(name);
        let files = render(target, &variants(&file), file.sources()).files;
        check_tree(&folder_of(name).join("targets").join(target.as_str()), &files);
    }
}
