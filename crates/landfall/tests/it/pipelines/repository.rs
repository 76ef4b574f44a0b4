//! The repository that a pipeline is of, and the programs that its steps find.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `docker` does besides writing down how it was called: it wants the folder that it builds, gives images a file to be
/// saved in and a digest that follows from the name, and its scanners find what the test wants.
const DOCKER: &str = r#"
case "$1" in
login) cat >/dev/null ;;
build) for last; do :; done; test -d "$last" ;;
save) echo images >"$3" ;;
load) test -s "$3" ;;
inspect) echo "${4%:*}@sha256:$(printf %s "$4" | sha256sum | cut -d' ' -f1)" ;;
run) case "$*" in *zap-baseline.py*) test ! -e "$FOLDER/attack-succeeds" ;; esac ;;
esac
"#;

/// A repository with a clone for each job, and a folder of programs before those of the machine.
pub(super) struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    /// An empty repository; `real` are the programs of the steps that are not this machine's own.
    pub(super) fn new(real: &[(&str, &Path)]) -> Self {
        let repository = Self { folder: tempfile::tempdir().expect("a temporary folder can be made") };
        for name in ["programs", "repository", "runs"] {
            fs::create_dir(repository.folder.path().join(name)).expect("a folder can be made");
        }
        for (name, program) in real {
            symlink(program, repository.folder.path().join("programs").join(name)).expect("a link can be made");
        }
        repository.record("docker", DOCKER);
        repository.record("gh", "");
        repository.git(&["init", "--quiet", "--initial-branch=main", "."]);
        repository
    }

    /// Makes a program that writes down how it was called, and then does what the script says.
    pub(super) fn record(&self, name: &str, script: &str) {
        let text = self.recording(name, script);
        write_program(&self.folder.path().join("programs").join(name), &text);
    }

    /// Makes `ci/NAME`, which writes down how it was called.
    pub(super) fn program_of_the_owner(&self, name: &str, script: &str) {
        let path = format!("ci/{name}");
        let text = self.recording(&path, script);
        write_program(&self.path().join(path), &text);
    }

    fn recording(&self, name: &str, script: &str) -> String {
        let folder = self.folder.path().display();
        format!("#!/bin/sh\nFOLDER='{folder}'\necho \"{name} $*\" >>\"$FOLDER/calls\"\n{script}\n")
    }

    pub(super) fn write(&self, files: &BTreeMap<String, String>, below: &Path) {
        for (path, text) in files {
            self.write_file(&below.join(path).to_string_lossy(), text);
        }
    }

    pub(super) fn write_file(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    /// Commits everything; the hash.
    pub(super) fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&[
            "-c",
            "user.name=author",
            "-c",
            "user.email=author@shop.example",
            "commit",
            "--quiet",
            "-m",
            message,
        ]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(super) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.path())
            // Nothing of the user who runs the test.
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git can be started");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The repository itself.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// A folder of its own for what runs.
    pub(super) fn run_folder(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.folder.path().join("runs")).expect("a temporary folder can be made")
    }

    /// `PATH` of the steps.
    pub(super) fn search_path(&self) -> String {
        format!("{}:/usr/local/bin:/usr/bin:/bin", self.folder.path().join("programs").display())
    }

    /// How the recording programs were called, in order.
    pub(super) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(super) fn forget_calls(&self) {
        fs::write(self.folder.path().join("calls"), "").expect("a file can be written");
    }

    /// Whether the scanner of what runs finds something.
    pub(super) fn let_the_attack_succeed(&self, succeeds: bool) {
        let path = self.folder.path().join("attack-succeeds");
        if succeeds { fs::write(path, "") } else { fs::remove_file(path) }.expect("a file can be made and removed");
    }
}

fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
    fs::write(path, text).expect("a file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}
