//! Evidence in rendered files: `TARGET FILE > LINE > LINE`.
//!
//! Every target lays its files out by indentation, YAML as well as HCL and JSON, so one way to name a line serves all of
//! them: each line of the evidence stands inside of the one before it. It is compared without its indentation and with one
//! space for several, because alignment says nothing. `*` stands for anything, in the name of the file and in a line.

use std::collections::BTreeMap;

/// The files of each target of `landfall render`, by the name of the target.
pub type Trees = BTreeMap<String, BTreeMap<String, String>>;

/// What the evidence names.
struct Place<'a> {
    target: &'a str,
    /// The pattern of the file's path; nothing when any file will do.
    file: Option<&'a str>,
    lines: Vec<&'a str>,
}

/// The target of a piece of evidence: its first word.
pub(crate) fn target_of(evidence: &str) -> &str {
    evidence.split_whitespace().next().unwrap_or_default()
}

impl<'a> Place<'a> {
    fn of(evidence: &'a str) -> Self {
        let target = target_of(evidence);
        let rest = evidence.trim_start()[target.len()..].trim();
        let mut parts = rest.split(" > ").map(str::trim);
        let file = parts.next().filter(|file| !file.is_empty());
        Self { target, file, lines: parts.collect() }
    }
}

/// What rendered files say of a piece of evidence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is there.
    There,
    /// The target is rendered, and this is missing in it.
    Missing(String),
    /// Nothing is rendered for the target.
    NothingRendered,
}

/// Looks for the evidence.
pub(crate) fn look(trees: &Trees, evidence: &str) -> Seen {
    let place = Place::of(evidence);
    let Some(files) = trees.get(place.target).filter(|files| !files.is_empty()) else { return Seen::NothingRendered };
    let Some(pattern) = place.file else { return Seen::There };
    let mut furthest = None;
    for (_, text) in files.iter().filter(|(path, _)| matches(pattern, path)) {
        let lines: Vec<Line<'_>> = text.lines().filter_map(Line::of).collect();
        let found = reached(&lines, &place.lines);
        if found == place.lines.len() {
            return Seen::There;
        }
        furthest = furthest.max(Some(found));
    }
    Seen::Missing(match furthest {
        None => format!("no file `{pattern}`"),
        Some(0) => format!("no line `{}` in it", place.lines[0]),
        Some(found) => format!("no line `{}` inside of `{}`", place.lines[found], place.lines[found - 1]),
    })
}

/// A line that is not blank.
struct Line<'a> {
    /// How far it is indented, in half spaces: an item of a YAML list belongs to the key above it, which may be as far left.
    depth: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let text = line.trim_start();
        let depth = 2 * (line.len() - text.len()) + usize::from(text.starts_with("- "));
        (!text.is_empty()).then_some(Self { depth, text: text.trim_end() })
    }
}

/// How many of the patterns can be followed, each inside of the line before it.
fn reached(lines: &[Line<'_>], patterns: &[&str]) -> usize {
    let Some((first, rest)) = patterns.split_first() else { return 0 };
    let mut furthest = 0;
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_line(first, line.text)) {
        let after = &lines[index + 1..];
        let end = after.iter().position(|other| other.depth <= line.depth).unwrap_or(after.len());
        furthest = furthest.max(1 + reached(&after[..end], rest));
        if furthest == patterns.len() {
            break;
        }
    }
    furthest
}

fn is_line(pattern: &str, line: &str) -> bool {
    matches(&single_spaced(pattern), &single_spaced(line))
}

fn single_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a text is what a pattern says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(begin) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place is the best one: what follows has the most left to choose from.
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HCL: &str = "module \"ledger\" {\n  source  = \"../postgres\"\n  members = 3\n\n  backup = {\n    days = 7\n  }\n}\n\nmodule \"sessions\" {\n  members = 1\n}\n";
    const YAML: &str = "jobs:\n  test:\n    steps:\n    - name: unit\n      run: |\n        ci/unit-test\n    - name: smoke\n  deploy:\n    steps:\n    - name: deploy\n";

    #[track_caller]
    fn check(evidence: &str, expected: &str) {
        let files = [("aws/main.tf", HCL), ("ci.yml", YAML)].map(|(path, text)| (path.to_owned(), text.to_owned()));
        let trees = Trees::from([("things".to_owned(), files.into()), ("nothing".to_owned(), BTreeMap::new())]);
        let said = match look(&trees, evidence) {
            Seen::There => "there".to_owned(),
            Seen::Missing(what) => what,
            Seen::NothingRendered => "nothing rendered".to_owned(),
        };
        assert_eq!(said, expected, "{evidence}");
    }

    #[test]
    fn a_target_is_there_when_it_has_a_file() {
        check("things", "there");
        check("nothing", "nothing rendered");
        check("others aws/main.tf", "nothing rendered");
    }

    #[test]
    fn a_file_is_named_by_its_path_or_a_pattern_of_it() {
        check("things aws/main.tf", "there");
        check("things *.tf", "there");
        check("things a*m*n.tf", "there");
        check("things main.tf", "no file `main.tf`");
        check("things *.json", "no file `*.json`");
    }

    #[test]
    fn a_line_stands_inside_of_the_line_before_it() {
        check("things *.tf > module \"ledger\" { > members = 3", "there");
        check("things *.tf > module \"ledger\" * > backup = { > days = 7", "there");
        check("things *.tf > module \"sessions\" * > days = 7", "no line `days = 7` inside of `module \"sessions\" *`");
        check(
            "things *.tf > module \"ledger\" * > members = 1",
            "no line `members = 1` inside of `module \"ledger\" *`",
        );
        check("things *.tf > module \"other\" *", "no line `module \"other\" *` in it");
    }

    #[test]
    fn alignment_says_nothing() {
        check("things *.tf > source = \"../postgres\"", "there");
        check("things *.tf > source   =  \"../postgres\"", "there");
    }

    #[test]
    fn a_line_is_meant_whole() {
        check("things *.tf > members = 3", "there");
        check("things *.tf > members =", "no line `members =` in it");
        check("things *.tf > members*", "there");
    }

    #[test]
    fn an_item_of_a_list_belongs_to_the_key_above_it() {
        check("things ci.yml > test: > steps: > - name: unit > run: | > ci/unit-test", "there");
        check("things ci.yml > test: > - name: smoke", "there");
        check("things ci.yml > deploy: > - name: smoke", "no line `- name: smoke` inside of `deploy:`");
        check("things ci.yml > - name: smoke > ci/unit-test", "no line `ci/unit-test` inside of `- name: smoke`");
    }
}
