//! The README shows what the program really says.

use crate::{Folder, TODAY};

/// The blocks of `language` in the README, without their fences.
fn blocks(language: &str) -> Vec<String> {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).expect("there is a README");
    let fence = format!("```{language}\n");
    readme.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).map(ToOwned::to_owned).collect()
}

#[test]
fn the_example_of_the_readme_holds_and_is_proved_as_shown() {
    let folder = Folder::with(&blocks("yaml")[0]);
    let text = folder.run(&["check", "--explain", "--today", TODAY]);
    assert!(text.starts_with("exit: 0\n") && text.contains("\n0 errors, 0 warnings, "), "{text}");
    let proof =
        blocks("text").into_iter().find(|block| block.starts_with("proved[")).expect("the README shows a proof");
    assert!(text.contains(&proof), "the README says\n{proof}\nand the program says\n{text}");
}

#[test]
fn the_finding_of_the_readme_is_as_shown() {
    let folder = Folder::with(&blocks("yaml")[0].replace("commit: synchronous", "commit: asynchronous"));
    let text = folder.run(&["check", "--today", TODAY]);
    let finding =
        blocks("text").into_iter().find(|block| block.starts_with("error[")).expect("the README shows a finding");
    assert!(
        text.starts_with("exit: 1\n") && text.contains(&finding),
        "the README says\n{finding}\nand the program says\n{text}"
    );
}
