//! Routes into the cluster.

use serde_json::{Value, json};

use crate::architecture::{messages, names, part, render};

const KINDS: [&str; 4] = ["Gateway", "HTTPRoute", "Ingress", "Middleware"];

#[test]
fn a_host_with_tls_has_a_listener_and_a_redirect() {
    let text = "services: { web: { port: 8080, expose: { host: shop.example, path: /a, tls: letsencrypt } } }";
    assert_eq!(names(&render(text), &KINDS), ["Gateway/shop", "HTTPRoute/web-redirect", "HTTPRoute/web"]);
    let same = json!({ "namespaces": { "from": "Same" } });
    assert_eq!(
        part(text, "Gateway/shop", "/spec"),
        json!({
            "gatewayClassName": "traefik",
            "listeners": [
                { "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": same },
                {
                    "name": "https-shop-example",
                    "hostname": "shop.example",
                    "port": 443,
                    "protocol": "HTTPS",
                    "tls": { "mode": "Terminate", "certificateRefs": [{ "kind": "Secret", "name": "web-tls" }] },
                    "allowedRoutes": same,
                },
            ],
        })
    );
    let matches = json!([{ "path": { "type": "PathPrefix", "value": "/a" } }]);
    assert_eq!(
        part(text, "HTTPRoute/web", "/spec"),
        json!({
            "parentRefs": [{ "name": "shop", "sectionName": "https-shop-example" }],
            "hostnames": ["shop.example"],
            "rules": [{ "matches": matches, "backendRefs": [{ "name": "web", "port": 80 }] }],
        })
    );
    let redirect = json!({ "type": "RequestRedirect", "requestRedirect": { "scheme": "https", "statusCode": 301 } });
    assert_eq!(
        part(text, "HTTPRoute/web-redirect", "/spec"),
        json!({
            "parentRefs": [{ "name": "shop", "sectionName": "http" }],
            "hostnames": ["shop.example"],
            "rules": [{ "matches": matches, "filters": [redirect] }],
        })
    );
}

#[test]
fn two_services_share_the_listener_of_their_host() {
    let text = "services:\n  a: { port: 80, expose: { host: x.example, tls: le } }\n  b: { port: 80, expose: { host: x.example, path: /b, tls: le } }\n";
    let listeners = part(text, "Gateway/shop", "/spec/listeners");
    assert_eq!(listeners.as_array().map(Vec::len), Some(2));
    assert_eq!(listeners[1]["tls"]["certificateRefs"], json!([{ "kind": "Secret", "name": "a-tls" }]));
}

#[test]
fn more_hosts_than_a_gateway_takes_get_another_one() {
    let services: String =
        (0..70).map(|n| format!("  s{n:02}: {{ port: 80, expose: {{ host: s{n:02}.example, tls: le }} }}\n")).collect();
    let text = format!("services:\n{services}");
    assert_eq!(part(&text, "Gateway/shop", "/spec/listeners").as_array().map(Vec::len), Some(64));
    assert_eq!(part(&text, "Gateway/shop-2", "/spec/listeners").as_array().map(Vec::len), Some(8));
    assert_eq!(part(&text, "HTTPRoute/s69", "/spec/parentRefs/0/name"), json!("shop-2"));
}

#[test]
fn ingress_is_the_other_way_to_say_it() {
    let text = "platform: { ingress: { api: ingress } }\nservices: { web: { port: 8080, expose: { host: shop.example, tls: letsencrypt, rate-limit: 100/m } } }";
    assert_eq!(names(&render(text), &KINDS), ["Ingress/web", "Middleware/web-rate-limit"]);
    assert_eq!(
        part(text, "Ingress/web", "/metadata/annotations"),
        json!({
            "cert-manager.io/cluster-issuer": "letsencrypt",
            "traefik.ingress.kubernetes.io/router.entrypoints": "websecure",
            "traefik.ingress.kubernetes.io/router.middlewares": "shop-web-rate-limit@kubernetescrd",
        })
    );
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    assert_eq!(
        part(text, "Ingress/web", "/spec"),
        json!({
            "ingressClassName": "traefik",
            "tls": [{ "hosts": ["shop.example"], "secretName": "web-tls" }],
            "rules": [{
                "host": "shop.example",
                "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] },
            }],
        })
    );
}

#[test]
fn rates_are_limited_by_what_the_class_has() {
    let service = "services: { web: { port: 8080, expose: { host: shop.example, rate-limit: 100/m } } }";
    assert_eq!(
        part(service, "Middleware/web-rate-limit", "/spec/rateLimit"),
        json!({ "average": 100, "period": "1m", "burst": 100 })
    );
    assert_eq!(
        part(service, "HTTPRoute/web", "/spec/rules/0/filters"),
        json!([{ "type": "ExtensionRef", "extensionRef": { "group": "traefik.io", "kind": "Middleware", "name": "web-rate-limit" } }])
    );
    let nginx = format!("platform: {{ ingress: {{ api: ingress, class: nginx }} }}\n{service}");
    assert_eq!(
        part(&nginx, "Ingress/web", "/metadata/annotations"),
        json!({ "nginx.ingress.kubernetes.io/limit-rpm": "100" })
    );
    let other = format!("platform: {{ ingress: {{ class: cilium }} }}\n{service}");
    assert_eq!(messages(&render(&other)), ["the rate limit of `web` is not rendered"]);
}

#[test]
fn ingress_nginx_lets_the_payloads_of_flows_in() {
    let sized = |class: &str, size: &str| {
        let text = format!(
            "platform: {{ ingress: {{ api: ingress, class: {class} }} }}
services:
  web: {{ port: 8080, expose: {{ host: shop.example }}, uses: [{{ call: stock }}] }}
  stock: {{ port: 8080, expose: {{ host: stock.example }} }}
externals: {{ office: {{ host: office.example }} }}
flows:
  look: {{ payload: {{ size: 2kB }}, steps: [client -> web] }}
  upload: {{ payload: {{ size: {size} }}, steps: [office -> web, web -> stock] }}"
        );
        let limit = "/metadata/annotations/nginx.ingress.kubernetes.io~1proxy-body-size";
        assert_eq!(
            part(&text, "Ingress/stock", limit),
            Value::Null,
            "what comes from within does not pass the controller"
        );
        part(&text, "Ingress/web", limit)
    };
    // A tenth more, in whole MiB.
    assert_eq!(sized("nginx", "50MB"), json!("53m"));
    assert_eq!(sized("nginx", "10Mi"), json!("11m"));
    assert_eq!(sized("nginx", "1MB"), json!("2m"));
    assert_eq!(sized("nginx", "900kB"), Value::Null);
    assert_eq!(sized("traefik", "50MB"), Value::Null);
}

#[test]
fn a_firewall_is_a_note_unless_one_stands_in_front() {
    let service = "services: { web: { port: 8080, expose: { host: shop.example, waf: true } } }";
    assert_eq!(messages(&render(service)), ["nothing rendered is the firewall of `web`"]);
    let edge = format!("platform: {{ edge: [waf] }}\n{service}");
    assert_eq!(part(&edge, "HTTPRoute/web", "/metadata/annotations"), json!({ "landfall.dev/waf": "required" }));
}

#[test]
fn an_exposed_service_without_a_port_is_a_finding() {
    let rendered = render("services: { web: { expose: shop.example } }");
    assert_eq!(messages(&rendered), ["`web` is exposed but serves no port"]);
    assert_eq!(names(&rendered, &["HTTPRoute"]), [""; 0]);
}

#[test]
fn a_path_of_plain_http_has_no_redirect() {
    let text = "services: { web: { port: 8080, expose: shop.example } }";
    assert_eq!(names(&render(text), &KINDS), ["Gateway/shop", "HTTPRoute/web"]);
    assert_eq!(part(text, "HTTPRoute/web", "/spec/parentRefs/0/sectionName"), json!("http"));
    assert_eq!(part(text, "HTTPRoute/web", "/metadata/annotations"), Value::Null);
}
