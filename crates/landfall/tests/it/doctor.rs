//! `landfall doctor`: what is there, what is missing, and what it says to do.

use std::fs;
use std::path::Path;
use std::process::Command;

use landfall_standin::{Server, find_server};
use serde_json::{Value, json};

use crate::example;

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
    let said = doctor(folder.path(), &[file]);
    let line = "missing    mongodb: tools/install-ferretdb; until then: nothing; what needs it does not start";
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
    assert_eq!(objects["path"], env!("CARGO_BIN_EXE_landfall"));
    let diagnosis: Value = serde_json::from_str(&said.data).expect("it is JSON");
    assert_eq!(diagnosis["healthy"], json!(said.code == Some(0)));
}

#[test]
fn a_file_that_is_not_understood_is_told_so() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::write(folder.path().join("landfall.yaml"), "landfall: v1\nname: shop\nstores: 3\n").expect("it can be written");
    assert_eq!(doctor(folder.path(), &[]).code, Some(2));
}
