//! Programs of packages, where the package manager installs them or where `tools/install-packages` unpacks them for somebody
//! who may not install any, in the same order of folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that names the folder of tools, for those who keep it elsewhere and for pods, which have no home.
pub const TOOLS: &str = "LANDFALL_TOOLS";

/// The variable that names folders in which a program's libraries are looked for first (ld.so(8)).
const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// Where the installers of `tools/` put what they make.
pub fn tools() -> Option<PathBuf> {
    let named = std::env::var_os(TOOLS).map(PathBuf::from);
    named.or_else(|| Some(std::env::home_dir()?.join(".cache/landfall/tools")))
}

/// Where packages are unpacked.
pub(super) fn unpacked() -> Option<PathBuf> {
    tools().map(|tools| tools.join("packages"))
}

/// Where the folders of packages begin: what is installed, then what is unpacked.
pub(super) fn roots() -> Vec<PathBuf> {
    std::iter::once(PathBuf::from("/")).chain(unpacked()).collect()
}

/// The first of these programs that is there, installed or unpacked. The paths are those of installed ones.
pub fn first_of(paths: &[&str]) -> Option<PathBuf> {
    first_in(&roots(), paths)
}

/// The same below these roots.
pub(super) fn first_in(roots: &[PathBuf], paths: &[&str]) -> Option<PathBuf> {
    let below = |root: &PathBuf| {
        let mut places = paths.iter().map(|path| root.join(path.trim_start_matches('/')));
        places.find(|path| path.is_file())
    };
    roots.iter().find_map(below)
}

/// A command for a program; one of an unpacked package finds its libraries beside it.
pub fn program_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    find_libraries_of(&mut command, program);
    command
}

/// Has a command find the libraries of a file that it loads, where the file's package is unpacked.
pub(super) fn find_libraries_of(command: &mut Command, file: &Path) {
    if let Some(root) = unpacked().filter(|root| file.starts_with(root)) {
        command.env(LIBRARIES, libraries(&root));
    }
}

/// What a program prints, trimmed.
pub(super) fn says(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = program_command(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The environment of a pod whose commands call programs of packages by their names: those on `path` are found first.
pub fn pod_environment(path: &str) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([("PATH".to_owned(), path.to_owned())]);
    // Pods have no home in which to look for it.
    environment.extend(tools().map(|tools| (TOOLS.to_owned(), tools.display().to_string())));
    if let Some(root) = unpacked().filter(|root| root.is_dir()) {
        let root_name = root.display();
        environment.insert("PATH".to_owned(), format!("{path}:{root_name}/usr/sbin:{root_name}/usr/bin"));
        environment.insert(LIBRARIES.to_owned(), libraries(&root));
    }
    environment
}

/// The folders of libraries below a root: `usr/lib`, and what is named after a kind of machine there and in `lib`.
fn libraries(root: &Path) -> String {
    let entries = ["usr/lib", "lib"].map(|folder| fs::read_dir(root.join(folder)).into_iter().flatten().flatten());
    let mut folders: Vec<_> = entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("-linux-gnu"))
        .map(|entry| entry.path().display().to_string())
        .collect();
    folders.push(root.join("usr/lib").display().to_string());
    folders.sort();
    folders.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_taken_before_what_is_unpacked() {
        let (installed, unpacked) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let roots = [installed.path().to_owned(), unpacked.path().to_owned()];
        let paths = ["/usr/sbin/nft", "/usr/bin/nft"];
        assert_eq!(first_in(&roots, &paths), None);
        let put = |root: &Path, path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("folders can be made");
            fs::write(&path, "").expect("a file can be written");
            path
        };
        let second = put(unpacked.path(), "usr/sbin/nft");
        assert_eq!(first_in(&roots, &paths), Some(second));
        let first = put(installed.path(), "usr/bin/nft");
        assert_eq!(first_in(&roots, &paths), Some(first));
    }

    #[test]
    fn libraries_are_looked_for_in_the_folders_of_the_machine() {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["usr/lib/x86_64-linux-gnu", "usr/lib/jvm", "lib/x86_64-linux-gnu"] {
            fs::create_dir_all(root.path().join(folder)).expect("folders can be made");
        }
        let name = root.path().display();
        let expected = format!("{name}/lib/x86_64-linux-gnu:{name}/usr/lib:{name}/usr/lib/x86_64-linux-gnu");
        assert_eq!(libraries(root.path()), expected);
    }
}
