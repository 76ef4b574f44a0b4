//! The image catalogue: which program of this machine an image name stands for.
//!
//! ```yaml
//! images:
//! - image: docker.io/library/nginx:1.*          # `*` stands for any text; a missing tag for every tag
//!   program: /usr/sbin/nginx
//!   args: [-g, "daemon off;"]
//!   env: { NGINX_PORT: "{{port:http}}" }
//!   working-dir: /srv
//!   files: { /opt/site: /home/me/site }          # what the image has in it: a file or folder of this machine, to be read
//!   writable: [/home/me/records]                 # folders of this machine that it may change, even where its root is read-only
//!   metrics: { port: http, path: /metrics }      # where it tells metrics, unless the pod has annotations about that
//! - image: busybox                               # no program: the pod names its command
//! ```
//!
//! The first entry that fits is taken. In `args` and `env` these placeholders are filled in, so that programs can be told
//! where to listen when pods share one network: `{{pod_ip}}`, `{{pod_name}}`, `{{namespace}}`, `{{port}}` (the first
//! container port) and `{{port:NAME}}`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter as _};

/// The catalogue, in the order of its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The first that fits is taken.
    pub images: Vec<Entry>,
}

/// What an image stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// A pattern: `registry/repository:tag`, in which `*` stands for any text.
    pub image: String,
    /// What runs unless the pod names a command: the entry point of the image.
    #[serde(default)]
    pub program: Option<String>,
    /// Its arguments unless the pod names a command or arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables; those of the pod win.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it starts unless the pod says otherwise.
    #[serde(default)]
    pub working_dir: Option<PathBuf>,
    /// What the pod says about command and arguments is meant for another program (a script that only the real image
    /// has) and is not heeded.
    #[serde(default)]
    pub ignore_command: bool,
    /// The signal that asks the program to end.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Files and folders of this machine that containers see elsewhere, only to be read: by where.
    #[serde(default)]
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// Folders of this machine, at the same path inside, that containers may change even where the pod asks for a root that is
    /// only to be read. They must be there.
    #[serde(default)]
    pub writable: Vec<PathBuf>,
    /// Where its containers tell metrics. What the annotations of a pod say wins.
    #[serde(default)]
    pub metrics: Option<MetricsPlace>,
}

/// Where a container tells metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsPlace {
    /// Its port, or the name of one that it declares.
    pub port: IntOrString,
    /// `/metrics` unless it says otherwise.
    #[serde(default = "metrics_path")]
    pub path: String,
}

fn metrics_path() -> String {
    "/metrics".to_owned()
}

/// Why a catalogue cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the image catalogue")]
pub struct CatalogueError(#[source] serde_saphyr::Error);

impl CatalogueError {
    /// The bytes of the text that are wrong, where that is known.
    pub fn place(&self) -> Option<Range<usize>> {
        let span = self.0.without_snippet().location()?.span();
        let number = |number: u64| usize::try_from(number).ok();
        let start = number(span.byte_offset()?)?;
        Some(start..start + span.byte_len().and_then(number).unwrap_or_default())
    }

    /// What is wrong there.
    pub fn reason(&self) -> String {
        DefaultMessageFormatter.format_message(self.0.without_snippet()).into_owned()
    }
}

impl Catalogue {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        serde_saphyr::from_str(text).map_err(CatalogueError)
    }

    /// The first entry for this image.
    pub fn find(&self, image: &str) -> Option<&Entry> {
        self.position(image).map(|position| &self.images[position])
    }

    /// Where that stands among all entries.
    pub fn position(&self, image: &str) -> Option<usize> {
        let (full, found) = canonical(image);
        let short = full.strip_prefix("docker.io/").map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
        self.images.iter().position(|entry| {
            let (pattern, tag) = split(&entry.image);
            // What a pattern leaves open is not completed: it is held against the full name and the short one.
            let fits = if pattern.contains('*') {
                matches(pattern, &full) || short.is_some_and(|short| matches(pattern, short))
            } else {
                canonical(pattern).0 == full
            };
            fits && tag.is_none_or(|tag| matches(tag, &found))
        })
    }
}

/// The full repository and the tag or digest of an image, as Docker fills them in.
pub(crate) fn canonical(image: &str) -> (String, String) {
    let (repository, tag) = split(image);
    let host = repository.split_once('/').map(|(host, _)| host);
    let full = match host {
        Some(host) if host.contains(['.', ':']) || host == "localhost" => repository.to_owned(),
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    };
    (full, tag.unwrap_or("latest").to_owned())
}

/// Repository, and tag or digest. A colon before the last slash belongs to a port.
fn split(image: &str) -> (&str, Option<&str>) {
    if let Some((repository, digest)) = image.split_once('@') {
        return (split(repository).0, Some(digest));
    }
    match image.rfind(':') {
        Some(at) if !image[at..].contains('/') => (&image[..at], Some(&image[at + 1..])),
        _ => (image, None),
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any text, even none.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(patterns: &[&str], image: &str) -> Option<String> {
        let images = patterns.iter().map(|pattern| Entry { image: (*pattern).to_owned(), ..Entry::default() });
        Catalogue { images: images.collect() }.find(image).map(|entry| entry.image.clone())
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        assert_eq!(canonical("nginx"), ("docker.io/library/nginx".into(), "latest".into()));
        assert_eq!(canonical("acme/web:2"), ("docker.io/acme/web".into(), "2".into()));
        assert_eq!(canonical("localhost:5000/web"), ("localhost:5000/web".into(), "latest".into()));
        assert_eq!(canonical("ghcr.io/a/b:1@sha256:ab"), ("ghcr.io/a/b".into(), "sha256:ab".into()));
    }

    #[test]
    fn a_pattern_without_a_tag_fits_every_tag() {
        assert!(found(&["nginx"], "docker.io/library/nginx:1.27").is_some());
        assert!(found(&["nginx:1.*"], "nginx:1.27").is_some());
        assert!(found(&["nginx:1.*"], "nginx:2.0").is_none());
        assert!(found(&["nginx"], "nginx-extra").is_none());
    }

    #[test]
    fn the_first_entry_that_fits_is_taken() {
        assert_eq!(found(&["ghcr.io/acme/*", "*"], "ghcr.io/acme/web:1"), Some("ghcr.io/acme/*".into()));
        assert_eq!(found(&["ghcr.io/acme/*", "*"], "web"), Some("*".into()));
    }

    #[test]
    fn a_pattern_fits_the_short_name_and_the_full_one() {
        for pattern in ["acme/*", "docker.io/acme/*", "acme/w*:2"] {
            assert!(found(&[pattern], "acme/web:2").is_some(), "{pattern}");
            assert!(found(&[pattern], "docker.io/acme/web:2").is_some(), "{pattern}");
            assert!(found(&[pattern], "ghcr.io/acme/web:2").is_none(), "{pattern}");
        }
        assert!(found(&["ngin*"], "nginx").is_some());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(Catalogue::parse("images: [{image: a, progam: b}]").is_err());
        assert!(Catalogue::parse("images: [{image: a, program: b, args: [c], ignore-command: true}]").is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let text = "images:\n- image: a\n  progam: b\n";
        let error = Catalogue::parse(text).expect_err("there is no such key");
        assert_eq!(error.place().map(|place| &text[place]), Some("progam"));
        assert!(error.reason().starts_with("unknown field `progam`"), "{}", error.reason());
    }

    #[test]
    fn where_metrics_are_told_is_a_port_or_its_name() {
        let metrics = |text: &str| {
            let images = Catalogue::parse(&format!("images: [{{image: a, metrics: {text}}}]")).map(|all| all.images);
            images.map(|mut images| images.remove(0).metrics)
        };
        let place = |port, path: &str| Some(MetricsPlace { port, path: path.to_owned() });
        assert_eq!(metrics("{port: 8080}").ok(), Some(place(IntOrString::Int(8080), "/metrics")));
        let named = place(IntOrString::String("http".to_owned()), "/stats");
        assert_eq!(metrics("{port: http, path: /stats}").ok(), Some(named));
        assert!(metrics("{path: /stats}").is_err());
        assert!(metrics("{port: 1, scheme: http}").is_err());
    }
}
