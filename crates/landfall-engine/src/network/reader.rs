//! For tests: the real reader of the rules.

use std::io::Write as _;
use std::process::{Command, Stdio};

use landfall_testing::require_or_skip;

/// Gives rules to `nft` in a network of its own, where the system has both.
pub(super) fn accepted_by_nft(rules: &str) {
    let nft = |rules: &str| -> Result<(), String> {
        let mut child = Command::new("unshare")
            .args(["--map-root-user", "--net", "nft", "-f", "-"])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().expect("its standard input is a pipe");
        stdin.write_all(rules.as_bytes()).map_err(|error| error.to_string())?;
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    if require_or_skip("nft in a network namespace", nft("")).is_some() {
        nft(rules).unwrap_or_else(|error| panic!("{error}\n{rules}"));
    }
}
