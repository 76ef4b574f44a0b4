//! The architecture document around its author's words.

use landfall_render::{ClaimRow, DOCUMENT, Output, docs};

use crate::architecture::architecture;

const SHOP: &str = "services:
  web: { port: 80, expose: { host: shop.example }, uses: [{ write: db/orders }, { publish: bus/ordered }] }
  mailer: { kind: worker, uses: [{ consume: bus/ordered }, { send: mail }] }
stores: { db: { engine: postgres }, bus: { engine: rabbitmq } }
externals: { mail: {} }
flows: { order: { steps: [client -> web, web -> db, web -> bus, bus -> mailer, mailer -> mail] } }
";

fn render(existing: Option<&str>) -> Output {
    let claims = [ClaimRow {
        id: "A1".to_owned(),
        says: "It holds | always".to_owned(),
        line: Some("7".to_owned()),
        state: "proved".to_owned(),
        to_measure: 1,
    }];
    docs(&[architecture(SHOP, None)], &claims, existing)
}

fn document(existing: Option<&str>) -> String {
    let rendered = render(existing);
    assert!(rendered.findings.is_empty(), "{:#?}", rendered.findings);
    rendered.files[DOCUMENT].clone()
}

fn messages(existing: &str) -> Vec<String> {
    let rendered = render(Some(existing));
    assert!(rendered.files.is_empty(), "nothing is written over a document that is not understood");
    rendered.findings.into_iter().map(|finding| finding.message).collect()
}

#[test]
fn a_new_document_is_its_own_rendering() {
    let new = document(None);
    assert_eq!(document(Some(&new)), new);
}

#[test]
fn only_what_stands_between_markers_is_changed() {
    let around = |inside: &str| {
        format!(
            "# Ours\r\n  text\n<!-- landfall:begin claims -->\n{inside}<!-- landfall:end claims -->\nno line break at the end"
        )
    };
    let once = document(Some(&around("old\n")));
    let table = "| id | line | claim | state | to be measured |\n|---|---|---|---|---|\n| A1 | 7 | It holds \\| always | proved | by a run |\n";
    assert_eq!(once, around(&format!("\n1 claims: 1 proved.\n\n{table}\n")));
    assert_eq!(document(Some(&once)), once);
}

#[test]
fn a_journey_is_a_sequence_in_which_a_broker_delivers() {
    let text = document(None);
    let sequence = "sequenceDiagram
    actor client as client
    participant service_web as web
    participant store_db as db
    participant store_bus as bus
    participant service_mailer as mailer
    participant external_mail as mail
    client->>service_web: request
    service_web->>store_db: write orders
    service_web->>store_bus: publish ordered
    store_bus-->>service_mailer: deliver ordered
    service_mailer->>external_mail: send
";
    assert!(text.contains(sequence), "{text}");
}

#[test]
fn wrong_markers_are_told_by_their_lines() {
    assert_eq!(messages("# Ours\n"), ["architecture.md has no place for a part"]);
    assert_eq!(
        messages("<!-- landfall:begin service -->\n<!-- landfall:end service -->\n"),
        ["architecture.md, line 1: there is no part `service`"]
    );
    assert_eq!(
        messages("x\n<!-- landfall:begin edges -->\n"),
        ["architecture.md, line 2: `edges` begins and does not end"]
    );
    assert_eq!(messages("<!-- landfall:end edges -->\n"), ["architecture.md, line 1: `edges` ends and has not begun"]);
    assert_eq!(
        messages("<!-- landfall:begin edges -->\n<!-- landfall:begin flows -->\n<!-- landfall:end flows -->\n"),
        ["architecture.md, line 2: `flows` begins inside of `edges`"]
    );
}
