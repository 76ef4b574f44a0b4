//! Reading: what does not fit is told all at once, each with its place and what to do.

use insta::assert_snapshot;
use landfall_model::{Element, Span, Verb};

use crate::{architecture, findings};

#[test]
fn the_smallest_file_is_an_architecture() {
    let smallest = architecture("landfall: v1\nname: shop\n");
    assert_eq!(smallest.namespace().as_str(), "shop");
}

#[test]
fn the_first_problem_never_hides_the_second() {
    assert_snapshot!(findings("
landfall: v1
name: shop
servces: {}
services:
  api:
    image: shop/api:1.0
    prot: 3000
    port: http
    kind: wep
    replicas: { min: many }
    resources: { cpu: 250Mi..1 }
    startup: soon
stores:
  ledger: { members: 3 }
"), @"
4:1 unknown-key: unknown key `servces` at the top of the file => did you mean `services`?
8:5 unknown-key: unknown key `prot` in `services.api` => did you mean `port`?
9:11 wrong-value: `services.api.port`: `http` is not a port: a whole number from 1 to 65535
10:11 unknown-value: `wep` is not a value of `services.api.kind` => did you mean `web`? Possible: web, worker, scheduled-job, frontend, webhook, mock
11:22 wrong-value: `services.api.replicas.min`: expected a whole number, found `many`
12:23 wrong-value: `services.api.resources.cpu`: `250Mi` is not an amount of CPU: cores such as `0.5`, or millicores such as `250m`
13:14 wrong-value: `services.api.startup`: `soon` is not a duration such as `500ms`, `30s`, `15m`, `4h` or `7d`
15:11 missing-key: `engine` is missing in `stores.ledger` => add `engine: …`; `landfall explain stores.ledger` shows what belongs there
");
}

#[test]
fn a_language_that_does_not_exist_is_told_apart_from_a_missing_one() {
    assert_snapshot!(findings("landfall: v7\nname: shop\n"), @"1:11 unknown-value: `v7` is not a value of `landfall` => did you mean `v1`? Possible: v1");
    assert_snapshot!(findings("name: shop\n"), @"1:1 missing-key: `landfall` is missing at the top of the file => add `landfall: v1`");
}

#[test]
fn short_forms_are_the_same_as_long_ones() {
    let short = architecture(
        "landfall: v1\nname: a\nservices: { api: { port: 80, replicas: 3, probes: { live: /health } } }\n",
    );
    let long = architecture(
        "landfall: v1\nname: a\nservices: { api: { port: 80, replicas: { count: 3 }, probes: { live: { http: /health } } } }\n",
    );
    let text = |architecture: &landfall_model::Architecture| {
        serde_json::to_string(&architecture.document).expect("a document is plain data")
    };
    assert_eq!(text(&short), text(&long));
}

#[test]
fn numbers_that_look_like_versions_stay_as_written() {
    let file = architecture("landfall: v1\nname: a\nstores: { ledger: { engine: postgres, version: 1.20 } }\n");
    let store = file.store("ledger").expect("there is a ledger");
    assert_eq!(store.version.as_ref().expect("it has a version").as_str(), "1.20");
}

#[test]
fn edges_know_their_port_and_protocol() {
    let file = architecture(
        "
landfall: v1
name: a
services:
  api: { ports: { rpc: { port: 50051, protocol: grpc }, web: 8080 }, uses: [read: ledger/accounts] }
  web: { uses: [ { call: api, port: web } ] }
stores: { ledger: { engine: postgres } }
",
    );
    let edges: Vec<_> = file
        .connections
        .iter()
        .map(|edge| (edge.from.to_string(), edge.verb, edge.to.to_string(), edge.port))
        .collect();
    assert_eq!(
        edges,
        [
            ("service.api".to_owned(), Verb::Read, "store.ledger".to_owned(), 5432),
            ("service.web".to_owned(), Verb::Call, "service.api".to_owned(), 8080),
        ]
    );
    assert_eq!(file.connections[0].detail.as_deref(), Some("accounts"));
    assert!(matches!(file.connections[0].from, Element::Service(_)));
}

#[test]
fn a_default_has_no_place() {
    let file = architecture("landfall: v1\nname: a\nservices: { api: { port: 80 } }\n");
    let api = file.service("api").expect("there is an api");
    assert_eq!(api.grace.span, Span::NONE);
    assert!(api.port.expect("the port is written").span.is_written());
}

#[test]
fn an_include_adds_sections_and_keeps_places() {
    let main = b"landfall: v1\nname: a\ninclude: [stores.yaml]\nservices: { api: { uses: [read: ledger] } }\n";
    let file = landfall_model::File::read("landfall.yaml", main, &mut |path| {
        assert_eq!(path, "stores.yaml");
        Ok(b"stores:\n  ledger: { engine: postgres, membres: 3 }\n".to_vec())
    });
    let findings = file.architecture(None).expect_err("`membres` is no key");
    let sources = file.sources();
    assert_eq!(sources.line_reference(findings[0].primary.span).as_deref(), Some("stores.yaml:2"));
}

#[test]
fn an_include_that_declares_a_thing_again_is_found() {
    let main = b"landfall: v1\nname: a\ninclude: [more.yaml]\nservices: { api: {} }\n";
    let file = landfall_model::File::read("landfall.yaml", main, &mut |_| Ok(b"services: { api: {} }\n".to_vec()));
    assert_eq!(file.findings()[0].message, "`api` is declared twice");
}

#[test]
fn a_single_value_in_place_of_a_mapping_is_told_the_keys() {
    assert_snapshot!(findings("landfall: v1\nname: shop\nservices: { api: { uses: [read ledger], schema: 3 } }\nplatform: { ingress: nginx }\n"), @"
    3:27 wrong-value: `services.api.uses[0]`: expected a mapping, found a single value => known here: call, read, write, cache, publish, consume, store, send, poll, query, rate, timeout, retries, every, ttl, port, from-replica, optional, assumed
    3:49 wrong-value: `services.api.schema`: expected a mapping, found a single value => known here: store, reads, writes
    4:22 wrong-value: `platform.ingress`: expected a mapping, found a single value => known here: api, class, namespace
    ");
}

#[test]
fn what_is_no_yaml_is_told_at_the_mistake() {
    let text = |services: &str| findings(&format!("landfall: v1\nname: shop\nservices:\n{services}stores: {{}}\n"));
    assert_snapshot!(text("  api:\n    port 80\n    kind: web\n"), @"5:5 yaml-syntax: this is not YAML: expected a `:` after the key => write `key: value`");
    assert_snapshot!(text("  api:\n    port:80\n\n    # of the web\n    kind: web\n"), @"5:5 yaml-syntax: this is not YAML: the `:` after the key has no space behind it => write `key: value`");
    assert_snapshot!(text("  api: { port: 80\n  web: { port: 81 }\n"), @"4:8 yaml-syntax: this `{` is not closed => close it on its line");
    assert_snapshot!(text("  api: { uses: [call: web\n  web: { port: 81 }\n"), @"4:16 yaml-syntax: this `[` is not closed => close it on its line");
    assert_snapshot!(text("  api: { title: the web's API: it's {new}, port: 80 }\n"), @"4:30 yaml-syntax: this is not YAML: expected `,` or `}` => separate values with `,`; put a text that holds `: `, `, ` or a bracket in quotes");
    assert_snapshot!(text("  api: { title: \"the API, port: 80 }\n"), @"4:17 yaml-syntax: the quote that opens here does not close => close it on its line");
    assert_snapshot!(text("  api:\n    title: API\n\tport: 80\n"), @"6:1 yaml-syntax: a tab is used for indentation, which YAML does not allow => indent with spaces");
    assert_snapshot!(text("  api:\n    title: API\n     port: 80\n"), @"6:10 yaml-syntax: this is not YAML: no key can stand here => indent it like the keys beside it; put a text that holds `: ` in quotes");
    assert_snapshot!(text("  api:\n    title: API\n   port: 80\n"), @"6:4 yaml-syntax: this is not YAML: expected a key of the mapping that is open here => indent it like the keys beside it; a mapping has no `- `");
    assert_snapshot!(text("  - api\n  web: {}\n"), @"5:3 yaml-syntax: this is not YAML: expected the next item of the list that is open here => begin each item with `- `, or write a mapping without any");
}
