//! Variables, files and writable folders.

use serde_json::{Value, json};

use crate::architecture::{messages, part, render};

fn variables(text: &str) -> Vec<String> {
    let variables = part(text, "Deployment/web", "/spec/template/spec/containers/0/env");
    let line = |variable: &Value| {
        let source = &variable["valueFrom"];
        let from = match (&variable["value"], &source["secretKeyRef"], &source["fieldRef"]) {
            (Value::String(value), _, _) => format!("={value}"),
            (_, Value::Object(secret), _) => format!(" from {}/{}", secret["name"], secret["key"]).replace('"', ""),
            (_, _, field) => format!(" is {}", field["fieldPath"]).replace('"', ""),
        };
        format!("{}{from}", variable["name"].as_str().unwrap_or("?"))
    };
    variables.as_array().map(|variables| variables.iter().map(line).collect()).unwrap_or_default()
}

#[test]
fn a_variable_has_one_of_four_sources() {
    let text = "
services:
  web:
    env:
      MODE: fast
      TOKEN: { secret: api/token }
      POD: { field: metadata.name }
      DATABASE: { store: ledger/address }
stores: { ledger: { engine: postgres } }
security: { secrets: { items: { api: { keys: [token] } } } }
";
    assert_eq!(
        variables(text),
        ["DATABASE=ledger-rw.shop.svc:5432", "POD is metadata.name", "TOKEN from api/token", "MODE=fast"]
    );
}

#[test]
fn a_url_is_put_together_after_the_variables_that_it_needs() {
    let text = "
services: { web: { env: { A_URL: { store: order-ledger/url } } } }
stores: { order-ledger: { engine: postgres } }
";
    assert_eq!(
        variables(text),
        [
            "ORDER_LEDGER_PASSWORD from order-ledger-app/password",
            "ORDER_LEDGER_USERNAME from order-ledger-app/username",
            "A_URL=postgresql://$(ORDER_LEDGER_USERNAME):$(ORDER_LEDGER_PASSWORD)@order-ledger-rw.shop.svc:5432/order_ledger",
        ]
    );
}

#[test]
fn a_variable_stands_once() {
    let text = "
services: { web: { env: { DB_PASSWORD: { store: db/password }, DB_USERNAME: somebody, URL: { store: db/url } } } }
stores: { db: { engine: postgres } }
";
    assert_eq!(
        variables(text),
        [
            "DB_PASSWORD from db-app/password",
            "DB_USERNAME=somebody",
            "URL=postgresql://$(DB_USERNAME):$(DB_PASSWORD)@db-rw.shop.svc:5432/db",
        ]
    );
}

#[test]
fn a_store_without_users_has_no_password() {
    let rendered =
        render("services: { web: { env: { P: { store: events/password } } } }\nstores: { events: { engine: kafka } }");
    assert_eq!(messages(&rendered), ["`events` asks for no `password`"]);
}

const FILES: &str = "
services:
  web:
    config:
      app.ini: |
        [app]
        mode = fast
      rules/a.json: '{}'
    scratch: { /tmp: 64Mi, /var/cache/nginx: 128Mi, /Odd-Path: 1Mi }
";

#[test]
fn files_are_a_config_map_that_is_mounted_in_folders() {
    assert_eq!(
        part(FILES, "ConfigMap/web", "/data"),
        json!({ "app.ini": "[app]\nmode = fast\n", "rules_a.json": "{}" })
    );
    assert_eq!(
        part(FILES, "Deployment/web", "/spec/template/spec/volumes/0/configMap/items"),
        json!([{ "key": "app.ini", "path": "app.ini" }, { "key": "rules_a.json", "path": "rules/a.json" }])
    );
}

#[test]
fn writable_folders_are_volumes_with_a_limit() {
    let mounts = part(FILES, "Deployment/web", "/spec/template/spec/containers/0/volumeMounts");
    assert_eq!(
        mounts,
        json!([
            { "name": "config", "mountPath": "/etc/web", "readOnly": true },
            { "name": "scratch-5aef69df0f079d89", "mountPath": "/Odd-Path" },
            { "name": "scratch-tmp", "mountPath": "/tmp" },
            { "name": "scratch-var-cache-nginx", "mountPath": "/var/cache/nginx" },
        ])
    );
    assert_eq!(
        part(FILES, "Deployment/web", "/spec/template/spec/volumes/2"),
        json!({ "name": "scratch-tmp", "emptyDir": { "sizeLimit": "64Mi" } })
    );
}

#[test]
fn a_change_of_a_file_changes_the_pods() {
    let hash =
        |text: &str| part(text, "Deployment/web", "/spec/template/metadata/annotations/landfall.dev~1config-hash");
    assert_eq!(hash(FILES), hash(FILES));
    assert_ne!(hash(FILES), hash(&FILES.replace("fast", "slow")));
    assert_eq!(hash("services: { web: {} }"), Value::Null);
}

#[test]
fn credentials_that_an_operator_makes_are_read_in_their_own_namespace() {
    let with = |store: &str| {
        let text = format!(
            "services: {{ web: {{ namespace: front, env: {{ URL: {{ store: db/url }} }} }} }}\nstores: {{ db: {store} }}"
        );
        messages(&render(&text)).join("\n")
    };
    assert_eq!(with("{ engine: postgres }"), "`web` cannot read the credentials of `db`");
    assert_eq!(with("{ engine: postgres, provider: statefulset }"), "");
}

#[test]
fn services_are_told_where_spans_go_and_may_say_otherwise() {
    let text = |traces: &str, env: &str| {
        format!("observability: {{ traces: {traces} }}\nservices: {{ web: {{ port: 80{env} }} }}\n")
    };
    let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://opentelemetry-collector.monitoring.svc:4318";
    assert_eq!(variables(&text("jaeger", "")), [endpoint, "OTEL_SERVICE_NAME=web"]);
    let own = ", env: { OTEL_SERVICE_NAME: shop-web }";
    assert_eq!(variables(&text("tempo", own)), ["OTEL_SERVICE_NAME=shop-web", endpoint]);
    assert_eq!(variables(&text("zipkin", "")), [""; 0]);
}
