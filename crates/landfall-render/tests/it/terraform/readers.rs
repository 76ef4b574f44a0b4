//! The scanners of Terraform and of Dockerfiles find nothing that is not waived beside the line, with a reason.

use std::fs;
use std::path::Path;
use std::process::Command;

use landfall_render::{FileTree, Target};
use landfall_testing::{Tool, require_or_skip, use_or_skip};

use super::{everything, of_example, of_file, of_text};

/// Every language that a Dockerfile is rendered for.
const LANGUAGES: [&str; 5] = ["go", "java", "node", "python", "rust"];

fn written(files: &FileTree) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }
    folder
}

/// What checkov says of the trees, which it must be content with.
#[track_caller]
fn scan(checkov: &Path, name: &str, files: &FileTree) {
    let folder = written(files);
    let output = Command::new(checkov)
        // Nothing is downloaded, so that what it says follows from its version.
        .args(["--framework", "terraform", "--compact", "--quiet", "--skip-download", "--directory"])
        .arg(folder.path())
        .env("HOME", folder.path())
        .output()
        .expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = said.lines().find_map(|line| line.strip_prefix("Passed checks: ")?.split(',').next()?.parse().ok());
    assert!(output.status.success() && passed > Some(40), "{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn checkov_finds_nothing_in_a_platform_with_every_module_of_each_cloud() {
    let Some(checkov) = use_or_skip("checkov", Tool::Checkov.locate()) else { return };
    for cloud in ["aws", "azure", "gcp"] {
        scan(&checkov, cloud, &of_text(&everything(cloud, true)).files);
    }
}

#[test]
fn checkov_finds_nothing_in_the_terraform_of_an_example_on_three_clouds() {
    let Some(checkov) = use_or_skip("checkov", Tool::Checkov.locate()) else { return };
    let files = of_example("composerp", Target::Terraform).files;
    for cloud in ["aws/", "azure/", "gcp/"] {
        assert!(files.keys().any(|path| path.starts_with(cloud)), "the example is rendered for {cloud}");
    }
    scan(&checkov, "composerp", &files);
}

#[test]
fn hadolint_finds_nothing_in_a_dockerfile_of_any_language() {
    let Some(hadolint) = require_or_skip("hadolint", Tool::Hadolint.locate()) else { return };
    let of_language = |language: &str| {
        let text =
            format!("services: {{ web: {{ port: 8080, build: {{ context: {language}, language: {language} }} }} }}\n");
        of_file(&crate::architecture::read(&text), Target::Dockerfile).files
    };
    let mut files: FileTree = LANGUAGES.iter().flat_map(|language| of_language(language)).collect();
    files.extend(of_example("composerp", Target::Dockerfile).files);
    files.extend(of_example("attendance-monitoring", Target::Dockerfile).files);
    let folder = written(&files);
    let dockerfiles: Vec<&String> = files.keys().filter(|path| path.ends_with("/Dockerfile")).collect();
    assert!(dockerfiles.len() >= LANGUAGES.len() + 9, "{dockerfiles:?}");
    let output = Command::new(&hadolint)
        .args(["--no-color", "--failure-threshold", "style"])
        .args(&dockerfiles)
        .current_dir(folder.path())
        .output()
        .expect("the program can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
