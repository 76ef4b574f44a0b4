//! The modes are arguments here: `LANDFALL_BLESS` belongs to the run of the tests, not to one of them.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{Mode, check_text_in, check_tree_in};

fn tree<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<String, String> {
    files.into_iter().map(|(name, content)| (name.to_owned(), content.to_owned())).collect()
}

/// A golden folder `golden` in a fresh folder, which has a file beside it that nobody may touch.
fn fixture<const N: usize>(files: [(&str, &str); N]) -> tempfile::TempDir {
    let outside = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, content) in files {
        let path = outside.path().join("golden").join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder is writable");
        fs::write(path, content).expect("the folder is writable");
    }
    fs::write(outside.path().join("neighbour"), "untouched").expect("the folder is writable");
    outside
}

/// The report of a comparison that must fail, with the name of the temporary folder replaced.
fn report(outside: &Path, compare: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(compare)).expect_err("the comparison must fail");
    panic
        .downcast_ref::<String>()
        .expect("the panic has a formatted message")
        .replace(&outside.display().to_string(), "<tmp>")
}

#[test]
fn an_equal_folder_passes() {
    let outside = fixture([("a.yaml", "a: 1\n"), ("sub/b.yaml", "b: 1\n")]);
    check_tree_in(
        Mode::Compare,
        &outside.path().join("golden"),
        &tree([("a.yaml", "a: 1\n"), ("sub/b.yaml", "b: 1\n")]),
    );
}

#[test]
fn a_mismatch_names_missing_extra_and_different_files() {
    let outside = fixture([("a.yaml", "a: 1\n"), ("old/gone.yaml", "")]);
    let files = tree([("a.yaml", "a: 2\n"), ("new.yaml", "")]);
    insta::assert_snapshot!(report(outside.path(), || check_tree_in(Mode::Compare, &outside.path().join("golden"), &files)), @"
    the golden folder `<tmp>/golden` is not what the test produced

    missing in the folder (1):
      new.yaml

    extra in the folder (1):
      old/gone.yaml

    different (1):
      a.yaml

    --- a.yaml (golden)
    +++ a.yaml (actual)
    @@ -1 +1 @@
    -a: 1
    +a: 2

    if the change is meant, run `cargo xtask bless` and read it with `git diff`
    ");
}

#[test]
fn a_folder_that_does_not_exist_lacks_every_file() {
    let outside = fixture([]);
    let files = tree([("new.yaml", "a: 1\n")]);
    insta::assert_snapshot!(report(outside.path(), || check_tree_in(Mode::Compare, &outside.path().join("golden"), &files)), @"
    the golden folder `<tmp>/golden` is not what the test produced

    missing in the folder (1):
      new.yaml

    if the change is meant, run `cargo xtask bless` and read it with `git diff`
    ");
}

#[test]
fn a_long_diff_is_cut_and_counted() {
    let outside = fixture([("a.yaml", &"old\n".repeat(500))]);
    let files = tree([("a.yaml", &"new\n".repeat(500))]);
    let report = report(outside.path(), || check_tree_in(Mode::Compare, &outside.path().join("golden"), &files));
    let tail: Vec<_> = report.lines().rev().take(3).collect();
    insta::assert_debug_snapshot!((report.lines().count(), tail), @r#"
    (
        128,
        [
            "if the change is meant, run `cargo xtask bless` and read it with `git diff`",
            "",
            "… and 883 more lines",
        ],
    )
    "#);
}

#[test]
fn bless_makes_the_folder_equal_and_touches_nothing_else() {
    let outside = fixture([("a.yaml", "a: 1\n"), ("old/deep/gone.yaml", ""), ("kind", "was a file\n")]);
    let golden = outside.path().join("golden");
    let files = tree([("a.yaml", "a: 2\n"), ("kind/now-a-folder.yaml", "b: 1\n")]);
    check_tree_in(Mode::Bless, &golden, &files);
    check_tree_in(Mode::Compare, &golden, &files);
    assert!(!golden.join("old").exists(), "a folder without files is removed");
    assert_eq!(fs::read_to_string(outside.path().join("neighbour")).expect("it was not removed"), "untouched");
}

#[cfg(unix)]
#[test]
fn bless_does_not_follow_a_link_out_of_the_folder() {
    let outside = fixture([("a.yaml", "a: 1\n")]);
    let golden = outside.path().join("golden");
    std::os::unix::fs::symlink(outside.path(), golden.join("linked")).expect("links can be made");
    check_tree_in(Mode::Bless, &golden, &tree([("linked/neighbour", "changed")]));
    assert_eq!(fs::read_to_string(outside.path().join("neighbour")).expect("it was not removed"), "untouched");
    assert_eq!(fs::read_to_string(golden.join("linked/neighbour")).expect("it was written"), "changed");
}

#[test]
#[should_panic(expected = "`../neighbour` is not a plain relative path")]
fn a_path_out_of_the_folder_is_refused() {
    let outside = fixture([]);
    check_tree_in(Mode::Bless, &outside.path().join("golden"), &tree([("../neighbour", "changed")]));
}

#[test]
fn a_text_is_compared_and_blessed_like_a_tree_of_one_file() {
    let outside = fixture([("a.txt", "one\ntwo\n")]);
    let path = outside.path().join("golden/a.txt");
    insta::assert_snapshot!(report(outside.path(), || check_text_in(Mode::Compare, &path, "one\nthree\n")), @"
    the golden file `<tmp>/golden/a.txt` is not what the test produced

    --- <tmp>/golden/a.txt (golden)
    +++ <tmp>/golden/a.txt (actual)
    @@ -1,2 +1,2 @@
     one
    -two
    +three

    if the change is meant, run `cargo xtask bless` and read it with `git diff`
    ");
    check_text_in(Mode::Bless, &path, "one\nthree\n");
    check_text_in(Mode::Compare, &path, "one\nthree\n");
}
