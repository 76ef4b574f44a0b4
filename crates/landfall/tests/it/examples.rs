//! The five examples: they read, prove and render, and the documents taken at their word do not.

use std::collections::BTreeMap;
use std::path::Path;

use landfall_check::Rendering;
use landfall_model::{File, Severity};
use landfall_testing::{Schemas, check_text, check_tree, require_or_skip};

use crate::platform::copy;
use crate::{TODAY, example, run_in};

const EXAMPLES: [(&str, char, usize); 5] = [
    ("water-channels", 'A', 39),
    ("balance-alerts", 'B', 29),
    ("attendance-monitoring", 'C', 44),
    ("composerp", 'D', 46),
    ("mindcompute", 'E', 62),
];

pub(crate) fn read(folder: &Path) -> File {
    let bytes = std::fs::read(folder.join("landfall.yaml")).expect("the example is there");
    File::read("landfall.yaml", &bytes, &mut |path| std::fs::read(folder.join(path)).map_err(|error| error.to_string()))
}

#[test]
fn every_environment_of_every_example_renders_to_its_golden_tree() {
    for (name, ..) in EXAMPLES {
        let folder = example(name);
        let file = read(&folder);
        for environment in file.environments() {
            let architecture = file.architecture(Some(&environment)).expect("the example is an architecture");
            let rendered = landfall_render::kubernetes(&architecture);
            check_tree(&folder.join("rendered").join(&environment), &rendered.files(file.sources()));
        }
    }
}

#[test]
fn every_rendered_object_is_valid_by_its_strict_schema() {
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    let mut wrong = Vec::new();
    for (name, ..) in EXAMPLES {
        let file = read(&example(name));
        for environment in file.environments() {
            let architecture = file.architecture(Some(&environment)).expect("the example is an architecture");
            for object in landfall_render::kubernetes(&architecture).into_values() {
                if let Err(errors) = schemas.validate(&object) {
                    wrong.extend(errors.into_iter().map(|error| format!("{name}, {environment}: {error}")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_example_has_an_error_in_any_environment() {
    for (name, ..) in EXAMPLES {
        let file = read(&example(name));
        for environment in file.environments() {
            let architecture = file.architecture(Some(&environment)).expect("the example is an architecture");
            let mut rendered = landfall_render::kubernetes(&architecture);
            let findings = std::mem::take(&mut rendered.findings);
            let objects = rendered.into_values();
            let rendering = Rendering { objects: &objects, findings: &findings };
            let report = landfall_check::check(&architecture, rendering, TODAY.parse().expect("the date is a date"));
            let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
            let errors: Vec<String> = errors.map(|finding| format!("{}: {}", finding.rule, finding.message)).collect();
            assert!(errors.is_empty(), "{name}, {environment}:\n{}", errors.join("\n"));
        }
    }
}

#[test]
fn every_requirement_is_a_claim() {
    for (name, letter, count) in EXAMPLES {
        let file = read(&example(name));
        let architecture = file.architecture(None).expect("the example is an architecture");
        let mut lines: BTreeMap<String, bool> = BTreeMap::new();
        // What no line of the document says is assumed, and no requirement.
        for claim in architecture.document.claims.iter().filter(|claim| claim.line.is_some()) {
            lines.insert(claim.id.value.clone(), !claim.shown_by.is_empty());
        }
        let wanted: BTreeMap<String, bool> = (1..=count).map(|number| (format!("{letter}{number:02}"), true)).collect();
        assert_eq!(lines, wanted, "{name}: each claim once, with a line of the document and with what shows it");
    }
}

#[test]
fn the_ledger_of_every_example_is_as_committed() {
    for (name, ..) in EXAMPLES {
        // In a copy, as what has run beside the file would be told too.
        let text = run_in(copy(name).path(), &["claims", "--today", TODAY]);
        check_text(&example(name).join("claims.txt"), &text);
    }
}

#[test]
fn the_findings_on_every_example_are_as_committed() {
    for (name, ..) in EXAMPLES {
        let text = run_in(&example(name), &["check", "--today", TODAY]);
        check_text(&example(name).join("findings.txt"), &text);
    }
}

#[test]
fn a_document_taken_at_its_word_contradicts_itself() {
    for (name, ..) in EXAMPLES {
        let text = run_in(&example(name), &["check", "as-written.landfall.yaml", "--today", TODAY]);
        assert!(text.starts_with("exit: 1\n"), "{name} must be read, and refuted:\n{text}");
        check_text(&example(name).join("as-written.findings.txt"), &text);
    }
}
