//! The program from outside. What its services do is tried by `landfall up`, with real stores.

use std::process::Command;

#[test]
fn a_service_or_an_address_that_is_missing_is_told() {
    let ended = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_water-channels")).args(arguments).env_clear().output();
        let output = output.expect("the program can be started");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = ended(&["field-operations"]);
    assert!(said.contains("no service is called `field-operations`"), "{said}");
    let said = ended(&["messaging"]);
    assert!(said.contains("`--field-ops URL` is missing"), "{said}");
}
