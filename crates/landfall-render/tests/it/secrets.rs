//! Secrets: where their values come from, for each back end, and who can read them.

use landfall_testing::{Schemas, require_or_skip};
use serde_json::{Value, json};

use crate::architecture::{architecture, find, messages, names, render};

fn with_backend(backend: &str) -> String {
    format!(
        "platform: {{ regions: {{ primary: {{ location: eu-central-1, zones: [a] }} }} }}
security:
  secrets: {{ {backend}, refresh: 2h, items: {{ mail: {{ keys: [user, password], path: team/mail }}, api: {{ keys: [token] }}, unread: {{}} }} }}
services:
  web: {{ uses: [{{ write: cache }}], env: {{ TOKEN: {{ secret: api/token }}, MAIL: {{ secret: mail/user }} }} }}
  batch: {{ kind: worker, namespace: night, uses: [{{ read: cache }}], env: {{ TOKEN: {{ secret: api/token }} }} }}
stores:
  cache: {{ engine: redis, provider: statefulset }}
"
    )
}

const VAULT: &str = "backend: vault, address: 'https://vault.example.com'";

#[test]
fn without_a_back_end_nothing_is_rendered() {
    let rendered = render(&with_backend("backend: cluster"));
    assert_eq!(names(&rendered, &["ExternalSecret", "SecretStore", "Secret"]), [""; 0]);
}

#[test]
fn each_reader_has_the_secret_in_its_namespace() {
    let rendered = render(&with_backend(VAULT));
    let found: Vec<String> = rendered
        .objects
        .iter()
        .filter(|object| object.kind() == "ExternalSecret")
        .map(|object| format!("{}/{}", object.namespace().unwrap_or_default(), object.name()))
        .collect();
    assert_eq!(
        found,
        ["night/api", "night/cache-credentials", "shop/api", "shop/cache-credentials", "shop/mail", "shop/unread"]
    );
    assert_eq!(names(&rendered, &["SecretStore"]), ["SecretStore/secrets", "SecretStore/secrets"]);
}

#[test]
fn a_secret_is_fetched_key_by_key_from_its_path() {
    let rendered = render(&with_backend(VAULT));
    let spec = &find(&rendered, "ExternalSecret/mail")["spec"];
    assert_eq!(spec["refreshInterval"], "2h");
    assert_eq!(
        spec["data"],
        json!([
            { "secretKey": "password", "remoteRef": { "key": "team/mail", "property": "password" } },
            { "secretKey": "user", "remoteRef": { "key": "team/mail", "property": "user" } },
        ])
    );
    let everything = &find(&rendered, "ExternalSecret/unread")["spec"]["dataFrom"];
    assert_eq!(*everything, json!([{ "extract": { "key": "shop/unread" } }]));
}

#[test]
fn the_path_names_the_environment() {
    let text = format!("{}environments: {{ staging: {{}} }}\n", with_backend(VAULT));
    let rendered = landfall_render::kubernetes(&architecture(&text, Some("staging")));
    let key = |object: &str| find(&rendered, object)["spec"]["data"][0]["remoteRef"]["key"].clone();
    assert_eq!(key("ExternalSecret/cache-credentials"), "shop/staging/cache-credentials");
    assert_eq!(key("ExternalSecret/mail"), "team/mail");
}

#[test]
fn every_back_end_is_valid() {
    for backend in [VAULT, "backend: aws", "backend: azure, address: 'https://shop.vault.azure.net'", "backend: gcp"] {
        let rendered = render(&with_backend(backend));
        let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
        let errors: Vec<_> =
            rendered.objects.iter().filter_map(|object| schemas.validate(&object.value).err()).collect();
        assert!(errors.is_empty(), "{backend}: {errors:#?}");
    }
}

#[test]
fn a_back_end_without_an_address_is_found() {
    let found = messages_of(&with_backend("backend: vault"));
    assert_eq!(found, ["the secret back end has no address"]);
}

fn messages_of(text: &str) -> Vec<String> {
    messages(&render(text)).into_iter().map(str::to_owned).collect()
}

#[test]
fn a_host_has_one_certificate_however_many_services_it_has() {
    let text = "services:
  a: { port: 80, expose: { host: shop.example.com, path: /a, tls: letsencrypt-prod } }
  b: { port: 80, expose: { host: shop.example.com, path: /b, tls: letsencrypt-prod } }
  c: { port: 80, expose: { host: own.example.com, tls: company-ca } }";
    let rendered = render(text);
    assert_eq!(names(&rendered, &["Certificate"]), ["Certificate/a-tls", "Certificate/c-tls"]);
    assert_eq!(names(&rendered, &["ClusterIssuer"]), ["ClusterIssuer/letsencrypt-prod"]);
    let issuer = &find(&rendered, "ClusterIssuer/letsencrypt-prod")["spec"]["acme"];
    assert_eq!(issuer["server"], "https://acme-v02.api.letsencrypt.org/directory");
    let parent = &issuer["solvers"][0]["http01"]["gatewayHTTPRoute"]["parentRefs"][0];
    let gateway = find(&rendered, "Gateway/shop");
    assert_eq!(parent["name"], gateway["metadata"]["name"]);
    let listeners = gateway["spec"]["listeners"].as_array().cloned().unwrap_or_default();
    assert!(listeners.iter().any(|listener| listener["name"] == parent["sectionName"]), "{listeners:?}");
}

#[test]
fn ingress_routes_get_their_certificates_from_annotations() {
    let text = "platform: { ingress: { api: ingress, class: nginx } }
services: { web: { port: 80, expose: { host: shop.example.com, tls: letsencrypt-staging } } }";
    let rendered = render(text);
    assert_eq!(names(&rendered, &["Certificate"]), [""; 0]);
    let acme = &find(&rendered, "ClusterIssuer/letsencrypt-staging")["spec"]["acme"];
    assert_eq!(acme["server"], "https://acme-staging-v02.api.letsencrypt.org/directory");
    let solvers: &Value = &acme["solvers"];
    assert_eq!(*solvers, json!([{ "http01": { "ingress": { "ingressClassName": "nginx" } } }]));
}
