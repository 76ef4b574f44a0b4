//! Which rule a request is for: the precedence of the Gateway API, hosts, paths, and what `Ingress` says otherwise.

use http::Request;
use serde_json::{Value, json};

use super::{GATEWAY, route, service, world};
use crate::gateway::registry::Registry;
use crate::gateway::rule::{self, Action};
use crate::gateway::table::{RouteTable, World};
use crate::gateway::{HTTP, HTTPS, host};

/// Who gets a request: the backend's name, or what the gateway answers itself.
fn asked(world: &World, port: u16, request: &str) -> String {
    let (table, _) = RouteTable::build(world, &Registry::default());
    let mut lines = request.lines();
    let mut first = lines.next().expect("a request line").split(' ');
    let (method, url) = (first.next().expect("a method"), first.next().expect("a URL"));
    let mut builder = Request::builder().method(method).uri(url);
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        builder = builder.header(name, value);
    }
    let (head, ()) = builder.body(()).expect("a request").into_parts();
    let host = host::normalized(head.uri.host().unwrap_or_default()).into_owned();
    let path = rule::normalized(head.uri.path()).into_owned();
    match table.route(port, &host, &path, &head) {
        None => "nobody".to_owned(),
        Some(rule) => match &rule.work.action {
            Action::Forward(backends) => backends.next().expect("a backend").name.to_string(),
            Action::Redirect(redirect) => {
                let scheme = if port == HTTPS { "https" } else { "http" };
                format!("{} {}", redirect.status.as_u16(), redirect.location(&head, &path, scheme, port, rule))
            }
            Action::Refuse(status) => status.as_u16().to_string(),
        },
    }
}

fn check(world: &World, cases: &[(&str, &str)]) {
    for (request, expected) in cases {
        assert_eq!(asked(world, HTTP, request), *expected, "{request}");
    }
}

/// A world with the gateway and a service for each name.
fn gateway(services: &[&str]) -> World {
    let mut world = world(GATEWAY);
    for name in services {
        service(&mut world, name, &[]);
    }
    world
}

fn rule_for(condition: Value, backend: &str) -> Value {
    json!({ "matches": [condition], "backendRefs": [{ "name": backend, "port": 80 }] })
}

fn path(type_: &str, value: &str) -> Value {
    json!({ "path": { "type": type_, "value": value } })
}

#[test]
fn an_exact_path_goes_before_the_longest_prefix_and_that_before_shorter_ones() {
    let mut world = gateway(&["all", "api", "v1", "exact"]);
    let rules = json!([
        rule_for(path("PathPrefix", "/"), "all"),
        rule_for(path("PathPrefix", "/api"), "api"),
        rule_for(path("PathPrefix", "/api/v1/"), "v1"),
        rule_for(path("Exact", "/api"), "exact"),
    ]);
    route(&mut world, "web", &[], rules);
    check(
        &world,
        &[
            ("GET http://a/", "shop/all:80"),
            ("GET http://a/apis", "shop/all:80"),
            ("GET http://a/api", "shop/exact:80"),
            ("GET http://a/api?x=1", "shop/exact:80"),
            ("GET http://a/api/", "shop/api:80"),
            ("GET http://a/api/v1", "shop/v1:80"),
            ("GET http://a/api/v1/x", "shop/v1:80"),
            ("GET http://a/api/v10", "shop/api:80"),
        ],
    );
}

#[test]
fn with_the_same_path_a_method_goes_before_headers_and_headers_before_parameters() {
    let mut world = gateway(&["plain", "method", "one", "two", "query"]);
    let header = |name: &str| json!({ "name": name, "value": "1" });
    let rules = json!([
        rule_for(json!({}), "plain"),
        rule_for(json!({ "queryParams": [{ "name": "q", "value": "1" }] }), "query"),
        rule_for(json!({ "headers": [header("A")] }), "one"),
        rule_for(json!({ "headers": [header("a"), header("b")] }), "two"),
        rule_for(json!({ "method": "POST" }), "method"),
    ]);
    route(&mut world, "web", &[], rules);
    check(
        &world,
        &[
            ("GET http://x/", "shop/plain:80"),
            ("GET http://x/?q=1", "shop/query:80"),
            ("GET http://x/?q=2", "shop/plain:80"),
            ("GET http://x/?q=2&q=1", "shop/plain:80"),
            ("GET http://x/?q=1\na: 1", "shop/one:80"),
            ("GET http://x/\na: 1\nB: 1", "shop/two:80"),
            ("POST http://x/?q=1\na: 1\nb: 1", "shop/method:80"),
        ],
    );
}

#[test]
fn among_equals_the_older_route_wins_then_the_name_then_the_order() {
    let mut world = gateway(&["a", "b", "c"]);
    route(&mut world, "b", &[], json!([rule_for(json!({}), "b"), rule_for(json!({}), "c")]));
    route(&mut world, "a", &[], json!([rule_for(json!({}), "a")]));
    check(&world, &[("GET http://x/", "shop/a:80")]);
    let aged = |world: &mut World, place: usize, time: &str| {
        let mut aged = (*world.routes[place]).clone();
        aged.metadata.creation_timestamp = Some(serde_json::from_value(json!(time)).expect("a time"));
        world.routes[place] = std::sync::Arc::new(aged);
    };
    aged(&mut world, 0, "2024-01-01T00:00:00Z");
    aged(&mut world, 1, "2025-01-01T00:00:00Z");
    check(&world, &[("GET http://x/", "shop/b:80")]);
}

#[test]
fn the_more_specific_host_goes_first_and_what_it_lacks_is_asked_of_the_next() {
    let mut world = gateway(&["exact", "wild", "deep", "any"]);
    route(&mut world, "any", &[], json!([rule_for(json!({}), "any")]));
    route(&mut world, "wild", &["*.example.com"], json!([rule_for(json!({}), "wild")]));
    route(&mut world, "deep", &["*.b.example.com"], json!([rule_for(path("PathPrefix", "/deep"), "deep")]));
    route(&mut world, "exact", &["a.example.com"], json!([rule_for(path("PathPrefix", "/only"), "exact")]));
    check(
        &world,
        &[
            ("GET http://a.example.com/only", "shop/exact:80"),
            ("GET http://A.Example.COM:8080/only", "shop/exact:80"),
            ("GET http://a.example.com/", "shop/wild:80"),
            ("GET http://x.y.example.com/", "shop/wild:80"),
            ("GET http://x.b.example.com/deep", "shop/deep:80"),
            ("GET http://x.b.example.com/", "shop/wild:80"),
            ("GET http://b.example.com/deep", "shop/wild:80"),
            ("GET http://example.com/", "shop/any:80"),
        ],
    );
}

#[test]
fn a_request_belongs_to_the_most_specific_listener_of_a_gateway_only() {
    let mut world = world(
        "
kind: Gateway
metadata: { name: edge }
spec:
  gatewayClassName: traefik
  listeners:
  - { name: all, port: 80, protocol: HTTP }
  - { name: own, port: 80, protocol: HTTP, hostname: '*.example.com' }
",
    );
    service(&mut world, "web", &[]);
    super::put(
        &mut world,
        json!({
            "kind": "HTTPRoute",
            "metadata": { "name": "web" },
            "spec": {
                "parentRefs": [{ "name": "edge", "sectionName": "all" }],
                "rules": [rule_for(json!({}), "web")],
            },
        }),
    );
    check(&world, &[("GET http://elsewhere.org/", "shop/web:80"), ("GET http://a.example.com/", "nobody")]);
}

#[test]
fn expressions_match_the_whole_text() {
    let mut world = gateway(&["web"]);
    let condition = json!({
        "path": { "type": "RegularExpression", "value": "/v[0-9]+" },
        "headers": [{ "type": "RegularExpression", "name": "x", "value": "a|b" }],
    });
    route(&mut world, "web", &[], json!([rule_for(condition, "web")]));
    check(
        &world,
        &[
            ("GET http://x/v12\nx: b", "shop/web:80"),
            ("GET http://x/v12/more\nx: b", "nobody"),
            ("GET http://x/v12\nx: ab", "nobody"),
        ],
    );
}

#[test]
fn nobody_walks_out_of_a_prefix_with_dots() {
    let mut world = gateway(&["public", "admin"]);
    let rules =
        json!([rule_for(path("PathPrefix", "/public"), "public"), rule_for(path("PathPrefix", "/admin"), "admin"),]);
    route(&mut world, "web", &[], rules);
    check(
        &world,
        &[
            ("GET http://x/public/../admin", "shop/admin:80"),
            ("GET http://x/public/%2e%2E/admin", "shop/admin:80"),
            ("GET http://x/public/./a", "shop/public:80"),
            ("GET http://x/public/..", "nobody"),
            ("GET http://x/../../public", "shop/public:80"),
            ("GET http://x/public/..data", "shop/public:80"),
        ],
    );
}

#[test]
fn a_redirect_keeps_what_it_does_not_say() {
    let redirect = |told: Value| {
        let mut world = gateway(&[]);
        let filters = json!([{ "type": "RequestRedirect", "requestRedirect": told }]);
        let rules = json!([{ "matches": [path("PathPrefix", "/old")], "filters": filters }]);
        route(&mut world, "web", &[], rules);
        asked(&world, HTTP, "GET http://a.example.com:8080/old/x?q=1")
    };
    assert_eq!(redirect(json!({ "scheme": "https", "statusCode": 301 })), "301 https://a.example.com/old/x?q=1");
    assert_eq!(redirect(json!({ "hostname": "b.org" })), "302 http://b.org:8080/old/x?q=1");
    assert_eq!(redirect(json!({ "port": 80 })), "302 http://a.example.com/old/x?q=1");
    let to = json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new/" } });
    assert_eq!(redirect(to), "302 http://a.example.com:8080/new/x?q=1");
    let to = json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } });
    assert_eq!(redirect(to), "302 http://a.example.com:8080/x?q=1");
    let to = json!({ "path": { "type": "ReplaceFullPath", "replaceFullPath": "/there" } });
    assert_eq!(redirect(to), "302 http://a.example.com:8080/there?q=1");
}

#[test]
fn a_backend_that_is_not_there_is_an_error_and_weights_of_zero_too() {
    let mut world = gateway(&["web"]);
    let none = json!({ "backendRefs": [{ "name": "web", "port": 80, "weight": 0 }] });
    route(&mut world, "zero", &["zero"], json!([none]));
    route(&mut world, "empty", &["empty"], json!([{}]));
    check(&world, &[("GET http://zero/", "500"), ("GET http://empty/", "500")]);
}

const INGRESS: &str = "
kind: Ingress
metadata: { name: web }
spec:
  ingressClassName: traefik
  defaultBackend: { service: { name: fallback, port: { number: 80 } } }
  rules:
  - host: '*.example.com'
    http:
      paths:
      - { path: /foo/, pathType: Prefix, backend: { service: { name: prefix, port: { number: 80 } } } }
      - { path: /foo, pathType: Exact, backend: { service: { name: exact, port: { number: 80 } } } }
      - { path: /i, pathType: ImplementationSpecific, backend: { service: { name: prefix, port: { number: 80 } } } }
";

#[test]
fn an_ingress_matches_paths_by_segments_and_a_wildcard_by_one_label() {
    let mut world = world(INGRESS);
    for name in ["fallback", "prefix", "exact"] {
        service(&mut world, name, &[]);
    }
    // As in the table of examples at <https://kubernetes.io/docs/concepts/services-networking/ingress/#examples>.
    let cases = [
        ("GET http://a.example.com/foo", "shop/exact:80"),
        ("GET http://a.example.com/foo/", "shop/prefix:80"),
        ("GET http://a.example.com/foo/bar", "shop/prefix:80"),
        ("GET http://a.example.com/foobar", "shop/fallback:80"),
        ("GET http://a.example.com/i/x", "shop/prefix:80"),
        ("GET http://a.b.example.com/foo", "shop/fallback:80"),
        ("GET http://example.com/foo", "shop/fallback:80"),
    ];
    check(&world, &cases);
    assert_eq!(asked(&world, HTTPS, cases[0].0), cases[0].1);
}

#[test]
fn an_ingress_of_another_controller_is_left_to_it() {
    let mut world = world(INGRESS);
    service(&mut world, "fallback", &[]);
    let class = |controller: &str| json!({ "kind": "IngressClass", "metadata": { "name": "traefik" }, "spec": { "controller": controller } });
    super::put(&mut world, class("traefik.io/ingress-controller"));
    check(&world, &[("GET http://x/", "nobody")]);
    world.ingress_classes.clear();
    super::put(&mut world, class("landfall.dev/gateway"));
    check(&world, &[("GET http://x/", "shop/fallback:80")]);
}

#[test]
fn annotations_say_which_entry_points_an_ingress_has() {
    let ingress = |class: &str, annotations: Value| {
        let mut world = World::default();
        service(&mut world, "web", &[]);
        super::put(
            &mut world,
            json!({
                "kind": "Ingress",
                "metadata": { "name": "web", "annotations": annotations },
                "spec": {
                    "ingressClassName": class,
                    "tls": [{ "hosts": ["a.example.com"], "secretName": "a" }],
                    "rules": [{ "host": "a.example.com", "http": { "paths": [
                        { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "web", "port": { "number": 80 } } } },
                    ] } }],
                },
            }),
        );
        [HTTP, HTTPS].map(|port| asked(&world, port, "GET http://a.example.com/x"))
    };
    let backend = "shop/web:80".to_owned();
    assert_eq!(ingress("traefik", json!({})), [backend.clone(), backend.clone()]);
    let secure = json!({ "traefik.ingress.kubernetes.io/router.entrypoints": "websecure" });
    assert_eq!(ingress("traefik", secure), ["nobody".to_owned(), backend.clone()]);
    assert_eq!(ingress("nginx", json!({})), ["308 https://a.example.com/x".to_owned(), backend.clone()]);
    let plain = json!({ "nginx.ingress.kubernetes.io/ssl-redirect": "false" });
    assert_eq!(ingress("nginx", plain), [backend.clone(), backend]);
}
