//! What a Git repository has at a revision: read with `git`, and put together as Kustomize does where there is a kustomization.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{fs, io};

use serde_json::Value;
use tokio::process::Command;

const KUSTOMIZATION: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// A folder of a repository, at one commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    pub(super) repository: String,
    /// The commit.
    pub(super) revision: String,
    pub(super) path: String,
    /// Folders below it count, too, where it is a folder of plain files.
    recurses: bool,
}

impl Source {
    /// The `source` of an application, with the commit that its `targetRevision` is now.
    pub(super) async fn of(source: &Value) -> Result<Self, String> {
        let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
        let (repository, wanted) = (text("repoURL"), text("targetRevision"));
        let wanted = if wanted.is_empty() { "HEAD".to_owned() } else { wanted };
        let listed = git(&["ls-remote", &repository], None).await?;
        let revision = commit(&listed, &wanted);
        let revision = revision.ok_or_else(|| format!("`{repository}` has no branch, tag or commit `{wanted}`"))?;
        Ok(Self { repository, revision, path: text("path"), recurses: source["directory"]["recurse"] == true })
    }

    /// The objects there.
    pub(super) async fn objects(&self) -> Result<Vec<Value>, String> {
        let failed = |error: io::Error| format!("`{}` cannot be read: {error}", self.repository);
        let folder = tempfile::tempdir().map_err(failed)?;
        git(&["clone", "--quiet", "--no-checkout", &self.repository, "."], Some(folder.path())).await?;
        git(&["checkout", "--quiet", &self.revision], Some(folder.path())).await?;
        let place = folder.path().join(&self.path);
        if KUSTOMIZATION.iter().any(|name| place.join(name).is_file()) {
            return documents(&built(&place).await?).map_err(|why| format!("`{}`: {why}", self.path));
        }
        let mut files = Vec::new();
        collect(&place, self.recurses, &mut files).map_err(failed)?;
        let mut objects = Vec::new();
        for file in files {
            let text = fs::read_to_string(&file).map_err(failed)?;
            objects.extend(documents(&text).map_err(|why| format!("`{}`: {why}", file.display()))?);
        }
        Ok(objects)
    }
}

/// The commit of a branch, a tag, `HEAD` or itself, of what `git ls-remote` has listed.
fn commit(listed: &str, wanted: &str) -> Option<String> {
    let named = [
        wanted.to_owned(),
        format!("refs/heads/{wanted}"),
        format!("refs/tags/{wanted}^{{}}"),
        format!("refs/tags/{wanted}"),
    ];
    let references: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let found = named.iter().find_map(|name| references.iter().find(|(_, reference)| reference == name));
    let is_commit = wanted.len() == 40 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    found.map(|(commit, _)| (*commit).to_owned()).or_else(|| is_commit.then(|| wanted.to_owned()))
}

async fn git(arguments: &[&str], folder: Option<&Path>) -> Result<String, String> {
    let mut command = Command::new("git");
    // Nobody is there to be asked for a password.
    command.args(arguments).env("GIT_TERMINAL_PROMPT", "0");
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    said("git", command).await
}

/// What `kubectl kustomize` makes of a folder, or `kustomize build`.
async fn built(folder: &Path) -> Result<String, String> {
    for (program, word) in [("kubectl", "kustomize"), ("kustomize", "build")] {
        let mut command = Command::new(program);
        command.arg(word).arg(folder);
        match said(program, command).await {
            Err(why) if why.ends_with(NOT_HERE) => {}
            built => return built,
        }
    }
    Err("there is a kustomization, and neither `kubectl` nor `kustomize` is here to build it".to_owned())
}

const NOT_HERE: &str = "is not on this machine";

async fn said(program: &str, mut command: Command) -> Result<String, String> {
    let output =
        command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("`{program}` {NOT_HERE}"),
            _ => format!("`{program}` cannot be started: {error}"),
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program}`: {}", complaint.trim()))
}

/// The files with objects in a folder, by their names.
fn collect(folder: &Path, recurses: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        let extension = entry.extension().and_then(|extension| extension.to_str());
        if entry.is_dir() && recurses {
            collect(&entry, recurses, files)?;
        } else if entry.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(entry);
        }
    }
    Ok(())
}

fn documents(text: &str) -> Result<Vec<Value>, String> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    Ok(all.into_iter().filter(Value::is_object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_branch_a_tag_a_commit_or_the_head() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let listed = format!(
            "{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/heads/old/main\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n"
        );
        assert_eq!(commit(&listed, "HEAD"), Some(a.clone()));
        assert_eq!(commit(&listed, "main"), Some(a));
        assert_eq!(commit(&listed, "old/main"), Some(b.clone()));
        assert_eq!(commit(&listed, "v1"), Some(c), "the commit that the tag is of");
        assert_eq!(commit(&listed, &b), Some(b));
        assert_eq!(commit(&listed, "v2"), None);
    }
}
