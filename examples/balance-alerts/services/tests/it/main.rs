//! The program from outside. What its services do is tried by `landfall up`, with real stores.

use std::process::Command;

fn ended(service: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_balance-alerts")).args(service).env_clear().output();
    let output = output.expect("the program can be started");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_service_that_there_is_not_is_told() {
    let (code, said) = ended(&["balances"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no service is called `balances`"), "{said}");
}

#[test]
fn what_is_missing_in_the_environment_is_told() {
    let empty = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-certificates.pem");
    std::fs::write(&empty, "").expect("a file can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_balance-alerts"))
        .arg("notification")
        .env_clear()
        .env("SSL_CERT_FILE", &empty)
        .output()
        .expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("the environment variable BROKER_URL is missing"), "{said}");
}
