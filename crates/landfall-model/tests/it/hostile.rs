//! Files that try to break the reader: each gets a finding, none a panic, a hang or a silent success.

use landfall_model::File;

#[track_caller]
fn check(bytes: &[u8], rule: &str) {
    let file = File::read("hostile.yaml", bytes, &mut |_| Err("not here".to_owned()));
    let findings = file.architecture(None).expect_err("a hostile file is not an architecture");
    let rules: Vec<&str> = findings.iter().map(|finding| finding.rule).collect();
    assert!(rules.contains(&rule), "expected `{rule}`, got {rules:?}");
    // Every place that a finding points at must be in the text, whatever the encoding.
    for finding in &findings {
        file.sources().position(finding.primary.span);
    }
}

#[test]
fn an_empty_file_is_told_so() {
    check(b"", "empty-file");
    check(b"\n\n# only a comment\n", "empty-file");
    check(b"---\n...\n", "empty-file");
}

#[test]
fn latin_1_is_told_apart_from_utf_8() {
    check(b"landfall: v1\nname: caf\xe9\n", "not-utf-8");
}

#[test]
fn utf_16_is_named() {
    check(b"\xff\xfel\0a\0n\0d\0", "not-utf-8");
    check(b"\xfe\xff\0l\0a\0n\0d", "not-utf-8");
}

#[test]
fn a_byte_order_mark_is_taken_and_shifts_nothing() {
    let file = File::read("bom.yaml", "\u{feff}landfall: v1\nname: Bad\n".as_bytes(), &mut |_| Err(String::new()));
    let findings = file.architecture(None).expect_err("`Bad` is not a name");
    let position = file.sources().position(findings[0].primary.span).expect("the name stands somewhere");
    assert_eq!((position.line, position.column), (2, 7));
}

#[test]
fn columns_count_characters_in_texts_that_are_not_ascii() {
    let file = File::read("wide.yaml", "landfall: v1\nname: x\n\"ключ ключ\": 1\n".as_bytes(), &mut |_| {
        Err(String::new())
    });
    let findings = file.architecture(None).expect_err("there is no such key");
    let position = file.sources().position(findings[0].primary.span).expect("the key stands somewhere");
    assert_eq!((position.line, position.column), (3, 1));
}

#[test]
fn tabs_get_their_own_words() {
    let file = File::read("tab.yaml", b"landfall: v1\nservices:\n\tapi: {}\n", &mut |_| Err(String::new()));
    let findings = file.architecture(None).expect_err("tabs do not indent");
    assert!(findings[0].message.contains("tab"), "{}", findings[0].message);
}

#[test]
fn deep_nesting_is_refused_in_every_style() {
    check(format!("a: {}{}", "[".repeat(1_000), "]".repeat(1_000)).as_bytes(), "nested-too-deep");
    check(format!("a: {}", "{a: ".repeat(1_000)).as_bytes(), "nested-too-deep");
    let block: String = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    check(block.as_bytes(), "nested-too-deep");
    check("[".repeat(100_000).as_bytes(), "nested-too-deep");
    check("- ".repeat(100_000).as_bytes(), "nested-too-deep");
}

#[test]
fn an_alias_bomb_never_goes_off() {
    let mut bomb = "a0: &a0 [lol]\n".to_owned();
    for level in 1..30 {
        let references = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{references}]\n");
    }
    check(bomb.as_bytes(), "yaml-anchor");
    check(b"a: &a [*a]\n", "yaml-anchor");
    check(b"<<: *missing\n", "yaml-syntax");
}

#[test]
fn ten_megabytes_are_refused() {
    check("#".repeat(10 << 20).as_bytes(), "file-too-large");
    check("a: b\n".repeat(2 << 20).as_bytes(), "file-too-large");
}

#[test]
fn a_file_just_below_the_limit_is_read_in_one_pass() {
    let keys: String = (0..400_000).map(|index| format!("key{index}: 1\n")).collect();
    check(keys.as_bytes(), "unknown-key");
    check("same: 1\n".repeat(400_000).as_bytes(), "duplicate-key");
}

#[test]
fn duplicate_keys_are_found_at_every_depth() {
    check(b"landfall: v1\nlandfall: v1\nname: x\n", "duplicate-key");
    check(b"landfall: v1\nname: x\nservices: { api: { port: 1, port: 2 } }\n", "duplicate-key");
}

#[test]
fn what_is_no_mapping_is_told_so() {
    check(b"- a\n- b\n", "wrong-value");
    check(b"just words\n", "wrong-value");
    check(b"42\n", "wrong-value");
    check(b"\"\"\n", "wrong-value");
}

#[test]
fn tags_templates_and_second_documents_are_refused() {
    check(b"landfall: !!binary aGk=\n", "yaml-tag");
    check(b"a: !exec rm\n", "yaml-tag");
    check(b"{{ .Values.name }}: x\n", "yaml-syntax");
    check(b"landfall: v1\n---\nlandfall: v1\n", "yaml-syntax");
    check(b"a: [1, 2\nb: }\n", "yaml-syntax");
    check(b"a: \"never closed\n", "yaml-syntax");
    check(b"\x00\x01\x02", "yaml-syntax");
}

#[test]
fn includes_that_are_missing_or_circular_are_found() {
    check(b"landfall: v1\nname: x\ninclude: [gone.yaml]\n", "include");
    let circle = b"landfall: v1\nname: x\ninclude: [hostile.yaml]\n";
    let file = File::read("hostile.yaml", circle, &mut |_| Ok(circle.to_vec()));
    assert_eq!(file.findings()[0].rule, "include");
}

#[test]
fn every_prefix_of_a_real_file_is_survived() {
    let text = crate::overrides::FILE;
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        let file = File::read("prefix.yaml", &text.as_bytes()[..end], &mut |_| Err(String::new()));
        let _ = file.architecture(None);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_at_all_panics(text in "[\\[\\]{}:,\\-\\n \"'#|>&*!%@`a-c0-9é\\t]{0,200}") {
        let file = File::read("random.yaml", text.as_bytes(), &mut |_| Err(String::new()));
        let _ = file.architecture(None);
    }

    #[test]
    fn no_bytes_at_all_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let file = File::read("random.yaml", &bytes, &mut |_| Err(String::new()));
        let _ = file.architecture(None);
    }
}
