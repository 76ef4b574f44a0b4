//! The real clients against a running engine: a transcript is replayed by an old and by a current one of each.
//!
//! Both must print what is recorded: where two versions word a thing differently, the transcript asks for it in a form
//! that they share.

mod kube_rs;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use landfall_testing::{Tool, check_text, replay, require_or_skip};

use crate::running_engine::RunningEngine;

/// Pods name their own command; any image will do.
const IMAGES: &str = "images: [{ image: '*' }]";

/// Replays `tests/it/engine_clients/NAME.transcript` with these programs against an engine of its own.
fn check(name: &str, programs: &[(&str, Tool)]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let programs_folder = folder.path().join("programs");
    let work = folder.path().join("work");
    for made in [&programs_folder, &work] {
        fs::create_dir(made).expect("a folder can be made");
    }
    let kubeconfig = folder.path().join("data/kubeconfig");
    for (program, tool) in programs {
        let Some(path) = require_or_skip(program, tool.locate()) else { return };
        install(&programs_folder.join(program), &path, &kubeconfig, &work);
    }
    let _engine = RunningEngine::start(folder.path(), IMAGES, &[]);
    let transcript = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/engine_clients/{name}.transcript"));
    let recorded = fs::read_to_string(&transcript).expect("the transcript is there");
    let replayed = replay(&recorded, &work, &programs_folder).expect("the transcript can be replayed");
    check_text(&transcript, &replayed);
}

/// A script that runs the client on this engine, with nothing of the user who runs the test.
fn install(script: &Path, client: &Path, kubeconfig: &Path, home: &Path) {
    let (client, kubeconfig, home) = (client.display(), kubeconfig.display(), home.display());
    let text = format!("#!/bin/sh\nHOME='{home}' KUBECONFIG='{kubeconfig}' exec '{client}' \"$@\"\n");
    fs::write(script, text).expect("a file can be written");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
}

#[test]
fn an_old_kubectl_gets_the_recorded_answers() {
    check("kubectl", &[("kubectl", Tool::OldKubectl)]);
}

#[test]
fn a_current_kubectl_gets_the_recorded_answers() {
    check("kubectl", &[("kubectl", Tool::Kubectl)]);
}

#[test]
fn an_old_helm_gets_the_recorded_answers() {
    check("helm", &[("helm", Tool::OldHelm), ("kubectl", Tool::OldKubectl)]);
}

#[test]
fn a_current_helm_gets_the_recorded_answers() {
    check("helm", &[("helm", Tool::Helm), ("kubectl", Tool::Kubectl)]);
}
