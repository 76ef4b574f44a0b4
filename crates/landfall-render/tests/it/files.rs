//! Objects as files of YAML.

use landfall_render::{FileTree, kubernetes};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::architecture::{architecture, read};

fn files(text: &str) -> FileTree {
    let file = read(text);
    let architecture =
        file.architecture(None).unwrap_or_else(|findings| panic!("the test's file is wrong: {findings:#?}"));
    kubernetes(&architecture).files(file.sources())
}

/// The file of a raw object with this value at `spec`.
fn written(spec: &Value) -> String {
    let object = json!({ "apiVersion": "v1", "kind": "Thing", "metadata": { "name": "x" }, "spec": spec });
    let files = files(&format!("objects:\n  - {object}\n"));
    files["cluster/objects/thing-x.yaml"].clone()
}

/// What is read from a file of one object: by the project's own reader, which knows YAML 1.2.
fn read_back(text: &str) -> Value {
    let indented: Vec<String> = text.split('\n').map(|line| format!("    {line}")).collect();
    let raw = format!("objects:\n  -\n{}\n", indented.join("\n"));
    architecture(&raw, None).document.objects[0].value["spec"].clone()
}

#[test]
fn the_first_line_says_where_an_object_comes_from() {
    let files = files("services:\n  web:\n    port: 8080\n");
    let first = |path: &str| files[path].lines().next().map(str::to_owned);
    assert_eq!(first("shop/web/service.yaml").as_deref(), Some("# From landfall.yaml:4, services.web"));
    assert_eq!(first("shop/default-deny.yaml").as_deref(), Some("# From landfall.yaml:2, services"));
}

#[test]
fn one_object_is_one_file() {
    let files = files("services: { web: { port: 8080, priority: 7, expose: { host: shop.example, tls: le } } }");
    let paths: Vec<&str> = files.keys().map(String::as_str).collect();
    for path in [
        "cluster/priority/shop-7.yaml",
        "shop/allow-dns.yaml",
        "shop/default-deny.yaml",
        "shop/gateway.yaml",
        "shop/namespace.yaml",
        "shop/web/deployment.yaml",
        "shop/web/httproute-redirect.yaml",
        "shop/web/httproute.yaml",
        "shop/web/networkpolicy.yaml",
        "shop/web/service.yaml",
        "shop/web/serviceaccount.yaml",
    ] {
        assert!(paths.contains(&path), "{path} is not among {paths:#?}");
    }
}

#[test]
fn texts_that_older_readers_take_for_something_else_are_quoted() {
    for text in [
        "yes",
        "no",
        "on",
        "Off",
        "y",
        "1.20",
        "0777",
        "0o17",
        "1_000",
        "12:30",
        "null",
        "~",
        "1e3",
        ".5",
        "2027-03-31",
        "",
        "- x",
        "a: b",
        "#",
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "`x",
    ] {
        let line = written(&json!({ "value": text })).lines().last().map(str::to_owned).unwrap_or_default();
        let quoted = ["'", "\""].map(|quote| format!("  value: {quote}{text}{quote}"));
        assert!(quoted.contains(&line), "{text} became {line}");
    }
}

#[test]
fn a_text_of_several_lines_is_a_block_and_a_long_one_stays_on_its_line() {
    let long = "word ".repeat(60).trim_end().to_owned();
    let text = written(&json!({ "file": "[app]\n  mode = fast\n\nlast\n", "long": long }));
    let expected = format!("spec:\n  file: |\n    [app]\n      mode = fast\n\n    last\n  long: {long}\n");
    assert!(text.ends_with(&expected), "{text}");
}

#[test]
fn what_is_written_is_what_is_read() {
    for value in [
        json!("trailing space \nnext"),
        json!("\n\nleading breaks"),
        json!("  indented first line\nnext\n"),
        json!("no break at the end\nsecond"),
        json!("two breaks at the end\n\n"),
        json!("tab\tinside\n\tand first\n"),
        json!("carriage\r\nreturn\r\n"),
        json!("quote ' \" backslash \\ é ü 漢 🚀"),
        json!("\u{7f}\u{85}\u{2028}\u{feff}"),
        json!([[], {}, [[1, 2], [3]], { "a": [] }, null, true, 1.5, -7, 1e300]),
        json!({ "": 1, "a b": 2, "yes": 3, "1": 4, "a: b": 5, "\n": 6 }),
    ] {
        assert_eq!(read_back(&written(&value)), value, "{value:?} became {}", written(&value));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_as_it_was(text in "([ a-z:#'\"\\\\\n\t-]|[0-9.]){0,40}") {
        prop_assert_eq!(read_back(&written(&json!({ "value": &text }))), json!({ "value": &text }));
    }
}

const ORDERED: &str = "
services:
  alpha:
    port: 8080
    env: { A: one, B: two }
    config: { a.ini: x, b.ini: y }
    scratch: { /tmp: 1Mi, /var: 1Mi }
    uses: [{ call: beta }, { write: ledger }]
  beta:
    port: 8080
    priority: 5
stores:
  events: { engine: kafka }
  ledger: { engine: postgres }
";

const SHUFFLED: &str = "
stores:
  ledger: { engine: postgres }
  events: { engine: kafka }
services:
  beta:
    priority: 5
    port: 8080
  alpha:
    uses: [{ write: ledger }, { call: beta }]
    scratch: { /var: 1Mi, /tmp: 1Mi }
    config: { b.ini: y, a.ini: x }
    env: { B: two, A: one }
    port: 8080
";

/// The files without the line numbers of their first lines.
fn without_lines(text: &str) -> FileTree {
    let body = |content: &str| content.split_once('\n').map_or("", |(_, body)| body).to_owned();
    files(text).into_iter().map(|(path, content)| (path, body(&content))).collect()
}

#[test]
fn the_same_file_gives_the_same_bytes() {
    assert_eq!(files(ORDERED), files(ORDERED));
}

#[test]
fn the_order_of_the_file_does_not_matter() {
    assert_eq!(without_lines(ORDERED), without_lines(SHUFFLED));
}
