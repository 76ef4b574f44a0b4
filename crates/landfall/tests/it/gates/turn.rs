//! Whoever promotes with `--wait` waits until what is under way is over, as whoever ships does.

use std::fs::File;
use std::process::Stdio;
use std::time::Instant;

use super::{PATIENCE, Platform};
use crate::running_engine::POLL;

#[test]
fn who_promotes_is_refused_or_waits_while_a_release_is_under_way() {
    let Some(platform) = Platform::start() else { return };
    platform.done(&["signers", "set", "allowed_signers", "--env", "production"]);
    platform.done(&["ship", "--env", "staging", "--image", "web=shop/web:2"]);
    let deadline = Instant::now() + PATIENCE;
    while platform.run(&["promote", "staging", "production", "--plan"]).0 != Some(0) {
        assert!(Instant::now() < deadline, "it never soaks");
        std::thread::sleep(POLL);
    }
    platform.done(&["promote", "staging", "production", "--detach"]);
    let refused = platform.refused(&["promote", "staging", "production", "--detach"]);
    assert!(refused.contains("release `shop-1` is not finished"), "{refused}");

    let log = platform.path("promotion.log");
    let mut waiting = platform
        .command(&["promote", "staging", "production", "--wait", "--detach"])
        .stdout(Stdio::null())
        .stderr(File::create(&log).expect("a file can be made"))
        .spawn()
        .expect("the program can be started");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    while !said().contains("release `shop-1` is not finished") {
        assert!(Instant::now() < deadline + PATIENCE, "it does not say what it waits for: {}", said());
        std::thread::sleep(POLL);
    }
    let ended = waiting.try_wait().expect("a child can be asked");
    assert!(ended.is_none(), "it does not wait: {}", said());

    platform.done(&["rollback", "--env", "production"]);
    let ended = waiting.wait().expect("a child can be waited for");
    assert_eq!(ended.code(), Some(0), "{}", said());
    let release = platform.done(&["release", "show", "shop-2", "--env", "production"]);
    assert_eq!(release["services"][0]["to"], "shop/web:2", "{release:#}");
}
