//! The names of values: `checkout.resources.requests.cpu` for what stands at a pointer in an object.

use std::collections::BTreeSet;

/// Gives names, each once, none of them a part of another.
#[derive(Default)]
pub(crate) struct Names {
    leaves: BTreeSet<Vec<String>>,
    folders: BTreeSet<Vec<String>>,
}

impl Names {
    /// The wanted name, or one like it that is free.
    pub(crate) fn take(&mut self, wanted: Vec<String>) -> Vec<String> {
        let last = wanted.last().cloned().expect("a name has a part");
        let stem = &wanted[..wanted.len() - 1];
        // A part of the way may be a value already; then the parts of it are joined, which makes it longer.
        let clash = (1..=stem.len()).any(|length| self.leaves.contains(&stem[..length]));
        let stem = if clash { vec![format!("{}Values", stem.join("_"))] } else { stem.to_vec() };
        let numbered = (2..).map(|number| format!("{last}{number}"));
        let name = std::iter::once(last.clone()).chain(numbered).map(|last| [stem.clone(), vec![last]].concat());
        let free = |name: &Vec<String>| !self.leaves.contains(name) && !self.folders.contains(name);
        let name = name.into_iter().find(free).expect("there is always another number");
        for length in 1..name.len() {
            self.folders.insert(name[..length].to_vec());
        }
        self.leaves.insert(name.clone());
        name
    }
}

/// The kinds whose values belong to the service itself.
const WORKLOADS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job"];

/// Whether objects of the kind run pods.
pub(crate) fn is_workload(kind: &str) -> bool {
    WORKLOADS.contains(&kind)
}

/// The parts of a name under which the values of an object stand.
pub(crate) fn prefix(kind: &str, path: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let file = match file.strip_suffix(".yaml").unwrap_or(file) {
        "hpa" => "autoscaling",
        "pdb" => "disruptionBudget",
        file => file,
    };
    let parts = if is_workload(kind) && !folder.is_empty() { vec![folder] } else { vec![folder, file] };
    parts.into_iter().filter(|part| !part.is_empty()).map(word).collect()
}

/// The name for what stands at a pointer: what every reader of Kubernetes knows is left out.
pub(crate) fn of_pointer(prefix: &[String], kind: &str, pointer: &[String]) -> Vec<String> {
    let mut parts: &[String] = pointer;
    let known: &[&str] =
        if is_workload(kind) { &["spec", "jobTemplate", "spec", "template", "spec", "containers"] } else { &["spec"] };
    for known in known {
        if parts.len() > 1 && parts[0] == *known {
            parts = &parts[1..];
        }
    }
    let mut name = prefix.to_vec();
    for (index, part) in parts.iter().enumerate() {
        let word = word(part);
        let repeats = name.last() == Some(&word);
        let is_last = index + 1 == parts.len();
        let of_list = is_last && index > 0 && part == "value";
        if !(part.is_empty() || repeats && !is_last || of_list || part == "metadata" && !is_last) {
            name.push(word);
        }
    }
    name
}

/// A key as a word that a template can say after a dot: `cpu-limit` is `cpuLimit`, `LOG_LEVEL` stays.
pub(crate) fn word(text: &str) -> String {
    let mut word = String::new();
    for part in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|part| !part.is_empty()) {
        let mut letters = part.chars();
        match letters.next() {
            Some(first) if !word.is_empty() => word.push(first.to_ascii_uppercase()),
            Some(first) => word.push(first),
            None => {}
        }
        word.extend(letters);
    }
    if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) { format!("v{word}") } else { word }
}
