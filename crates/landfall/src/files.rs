//! Files that are there whole or not at all.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

/// Writes a file, whole or not at all, in a folder that is made if it is not there.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().expect("a file stands in a folder");
    fs::create_dir_all(folder).with_context(|| format!("failed to make the folder `{}`", folder.display()))?;
    let mut file = tempfile::Builder::new()
        .prefix(".landfall-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(|| format!("failed to write in `{}`", folder.display()))?;
    file.write_all(content).with_context(|| format!("failed to write `{}`", path.display()))?;
    file.persist(path).with_context(|| format!("failed to write `{}`", path.display()))?;
    Ok(())
}
