//! An ordinary user, for what somebody can do who is not root.

use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use landfall_testing::require_or_skip;

/// `nobody`.
const USER: u32 = 65534;

/// A command that runs a program as that user.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups", "--"]).arg(program);
    command
}

/// Gives files and folders to that user. Where we may not, the test is reported as skipped.
pub(crate) fn owns<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Option<()> {
    let given = paths.into_iter().try_for_each(|path| chown(path, Some(USER), Some(USER)));
    require_or_skip("the right to act as another user", given)
}
