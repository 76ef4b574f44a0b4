//! `landfall doctor`: what is there, what is missing, and what it says to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use landfall_standin::{Server, find_server};
use landfall_testing::require_or_skip;
use serde_json::{Value, json};

use crate::{example, nobody};

struct Said {
    code: Option<i32>,
    data: String,
    notes: String,
}

/// Tools are looked for in a folder that has none, unless the test puts some there.
fn doctor(folder: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .arg("doctor")
        .args(arguments)
        .current_dir(folder)
        .env("LANDFALL_TOOLS", folder.join("tools"))
        .output()
        .expect("the program can be started");
    Said {
        code: output.status.code(),
        data: String::from_utf8_lossy(&output.stdout).into_owned(),
        notes: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn item(said: &Said, name: &str) -> Value {
    let diagnosis: Value = serde_json::from_str(&said.data).unwrap_or_else(|_| panic!("no JSON:\n{}", said.notes));
    let items = diagnosis["items"].as_array().expect("items are a list").clone();
    items.into_iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no item {name}:\n{}", said.data))
}

#[test]
fn what_is_missing_is_named_with_its_store_and_its_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mindcompute = example("mindcompute");
    let file = mindcompute.to_str().expect("it has a plain name");
    let said = doctor(folder.path(), &[file, "--output", "json"]);
    assert_eq!(said.code, Some(1), "{}", said.notes);
    let mongodb = item(&said, "mongodb");
    assert_eq!(
        (&mongodb["stores"], &mongodb["needed"], &mongodb["found"]),
        (&json!(["mongodb"]), &json!(true), &json!(null))
    );
    assert_eq!(mongodb["remedy"], "tools/install-ferretdb");
    let unused = item(&said, "mqtt");
    assert_eq!((&unused["stores"], &unused["needed"]), (&json!([]), &json!(false)), "no store of the file speaks MQTT");
    // The file declares metrics, whom to tell, and a firewall; it runs without.
    let extras =
        [("prometheus", "metrics and rules"), ("alertmanager", "alerts"), ("modsecurity", "web application firewalls")];
    for (name, purpose) in extras {
        let extra = item(&said, name);
        let expected = (&json!(purpose), &json!(true), &json!(false));
        assert_eq!((&extra["purpose"], &extra["wanted"], &extra["needed"]), expected, "{name}");
    }
    let said = doctor(folder.path(), &[file]);
    let line = "missing    mongodb: tools/install-ferretdb; until then: `up` leaves out what needs it, edges and flows too, and says so; all else runs";
    assert!(said.data.lines().any(|own| own == line), "{}", said.data);
}

#[test]
fn what_is_there_is_told_with_its_version_and_its_path() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let text = "landfall: v1\nname: shop\nstores:\n  objects: { engine: s3 }\n";
    fs::write(folder.path().join("landfall.yaml"), text).expect("a file can be written");
    let said = doctor(folder.path(), &["--output", "json"]);
    let objects = item(&said, "s3");
    assert_eq!((&objects["stores"], &objects["remedy"]), (&json!(["objects"]), &json!(null)));
    let found = find_server(Server::S3).expect("it is a part of this program");
    assert_eq!(objects["found"], found.version);
    let unwatched = item(&said, "alertmanager");
    let no = json!(false);
    assert_eq!((&unwatched["wanted"], &unwatched["needed"]), (&no, &no), "nobody is told of alerts");
    assert_eq!(objects["path"], env!("CARGO_BIN_EXE_landfall"));
    let diagnosis: Value = serde_json::from_str(&said.data).expect("it is JSON");
    assert_eq!(diagnosis["healthy"], json!(said.code == Some(0)));
    for part in ["mounts", "limits"] {
        assert!(diagnosis["containers"][part].is_string(), "{}", said.data);
    }
}

#[test]
fn a_file_that_is_not_understood_is_told_so() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::write(folder.path().join("landfall.yaml"), "landfall: v1\nname: shop\nstores: 3\n").expect("it can be written");
    assert_eq!(doctor(folder.path(), &[]).code, Some(2));
}

#[test]
fn what_is_unpacked_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // No package manager has this one, so that it is not installed.
    let program = folder.path().join("tools/packages/usr/bin/ferretdb");
    fs::create_dir_all(program.parent().expect("it is in a folder")).expect("folders can be made");
    fs::write(&program, "#!/bin/sh\necho 'version: v1.24.2'\n").expect("a file can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
    let mongodb = item(&doctor(folder.path(), &["--output", "json"]), "mongodb");
    assert_eq!((&mongodb["found"], &mongodb["path"]), (&json!("FerretDB 1.24.2 for MongoDB"), &json!(program)));
}

#[test]
fn an_ordinary_user_gets_packages_unpacked_and_they_run() {
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    // A checkout may be closed to others.
    for (name, text) in [
        ("cache.bash", include_str!("../../../../tools/cache.bash")),
        ("install-packages", include_str!("../../../../tools/install-packages")),
    ] {
        fs::write(home.path().join(name), text).expect("a file can be written");
    }
    let Some(()) = nobody::owns([home.path()]) else { return };
    let tools = home.path().join("tools");
    let as_user = |program: &Path, arguments: &[&str]| -> Result<String, String> {
        let mut command = nobody::command(program);
        command.args(arguments).current_dir(home.path()).env("HOME", home.path());
        command.env("LANDFALL_TOOLS", &tools).env("LANDFALL_UNPACK", "1");
        let libraries = tools.join(format!("packages/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        command.env("LD_LIBRARY_PATH", libraries);
        let output = command.output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let reached = as_user(Path::new("apt-get"), &["-qq", "download", "nftables"]);
    if require_or_skip("the archive of packages", reached).is_none() {
        return;
    }

    let install = || as_user(Path::new("bash"), &["install-packages", "redis-server", "wget", "rsync"]);
    let said = install().unwrap_or_else(|error| panic!("{error}"));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "packages: rsync is of use only when it is installed: apt-get install rsync");
    assert!(lines[1].starts_with("packages: unpacked ") && lines.len() == 2, "{said}");

    // Its program is a link to one of another package.
    let programs = tools.join("packages/usr/bin");
    let version = as_user(&programs.join("redis-server"), &["--version"]).unwrap_or_else(|error| panic!("{error}"));
    assert!(version.starts_with("Redis server v="), "{version}");
    let version = as_user(&programs.join("wget"), &["--version"]).unwrap_or_else(|error| panic!("{error}"));
    assert!(version.starts_with("GNU Wget "), "{version}");

    let mut left: Vec<_> =
        fs::read_dir(&tools).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, [".packages.lock", "packages"], "nothing else stays");
    let again = as_user(Path::new("bash"), &["install-packages", "redis-server", "wget"]);
    assert_eq!(again.as_deref(), Ok("packages: all are there: redis-server wget\n"), "nothing is downloaded twice");
}
