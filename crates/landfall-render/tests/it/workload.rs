//! What runs a service.

use serde_json::{Value, json};

use crate::architecture::{messages, names, part, render};

const WEB: &str = "
services:
  web:
    image: shop/web:1.20
    port: 8080
    replicas: 3
    resources: { cpu: 250m..500m, memory: 256Mi..512Mi, storage: 1Gi..2Gi }
    grace: 20s
";

fn check(addition: &str, pointer: &str, expected: &Value) {
    let found = part(&format!("{WEB}{addition}"), "Deployment/web", &format!("/spec{pointer}"));
    assert_eq!(found, *expected, "{pointer}");
}

#[test]
fn a_fixed_number_of_copies_is_in_the_deployment() {
    check("", "/replicas", &json!(3));
}

#[test]
fn requests_and_limits_are_the_ends_of_the_ranges() {
    check(
        "",
        "/template/spec/containers/0/resources",
        &json!({
            "requests": { "cpu": "250m", "memory": "256Mi", "ephemeral-storage": "1Gi" },
            "limits": { "cpu": "500m", "memory": "512Mi", "ephemeral-storage": "2Gi" },
        }),
    );
}

#[test]
fn pods_keep_to_the_restricted_standard() {
    check(
        "",
        "/template/spec/securityContext",
        &json!({
            "runAsNonRoot": true,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": { "type": "RuntimeDefault" },
        }),
    );
    check(
        "",
        "/template/spec/containers/0/securityContext",
        &json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        }),
    );
    check("", "/template/spec/automountServiceAccountToken", &json!(false));
}

#[test]
fn a_port_below_1024_is_opened_to_programs_that_are_not_root() {
    let sysctls = |port: &str| {
        part(
            &format!("services: {{ web: {{ port: {port} }} }}"),
            "Deployment/web",
            "/spec/template/spec/securityContext/sysctls",
        )
    };
    assert_eq!(sysctls("80"), json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }]));
    assert_eq!(sysctls("1024"), Value::Null);
}

#[test]
fn a_copy_that_serves_answers_on_while_it_is_taken_out_of_the_service() {
    let drain = "/template/spec/containers/0/lifecycle";
    check("", drain, &json!({ "preStop": { "sleep": { "seconds": 5 } } }));
    check("    kind: worker\n", drain, &Value::Null);
}

#[test]
fn the_pause_leaves_a_second_of_the_grace() {
    let seconds = |grace: &str| {
        let text = format!("services: {{ web: {{ port: 80, grace: {grace} }} }}");
        part(&text, "Deployment/web", "/spec/template/spec/containers/0/lifecycle/preStop/sleep/seconds")
    };
    assert_eq!(seconds("3s"), json!(2));
    assert_eq!(seconds("1s"), Value::Null);
    assert_eq!(seconds("0s"), Value::Null);
}

#[test]
fn images_get_the_registry_and_a_pull_policy_by_their_tag() {
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (registry, image, expected, policy) in [
        ("", "shop/web:1.20", "shop/web:1.20".to_owned(), "IfNotPresent"),
        ("", "shop/web", "shop/web".to_owned(), "Always"),
        ("", "shop/web:latest", "shop/web:latest".to_owned(), "Always"),
        ("ghcr.io/acme", "web:2", "ghcr.io/acme/web:2".to_owned(), "IfNotPresent"),
        ("ghcr.io/acme", "localhost:5000/web", "localhost:5000/web".to_owned(), "Always"),
        ("ghcr.io/acme", "quay.io/acme/web:3", "quay.io/acme/web:3".to_owned(), "IfNotPresent"),
        ("ghcr.io", &format!("web@{digest}"), format!("ghcr.io/web@{digest}"), "IfNotPresent"),
    ] {
        let registry =
            if registry.is_empty() { String::new() } else { format!("platform: {{ registry: {registry} }}\n") };
        let text = format!("{registry}services: {{ web: {{ image: \"{image}\" }} }}");
        let container = part(&text, "Deployment/web", "/spec/template/spec/containers/0");
        assert_eq!([&container["image"], &container["imagePullPolicy"]], [&json!(expected), &json!(policy)]);
    }
}

#[test]
fn a_service_without_an_image_is_called_after_the_platform() {
    let image = |platform: &str| {
        part(
            &format!("{platform}services: {{ web: {{}} }}"),
            "Deployment/web",
            "/spec/template/spec/containers/0/image",
        )
    };
    assert_eq!(image(""), json!("shop/web"));
    assert_eq!(image("platform: { registry: { host: ghcr.io/acme, pull-secret: pull } }\n"), json!("ghcr.io/acme/web"));
}

#[test]
fn the_first_word_of_the_command_is_the_program() {
    check("    command: [node, server.js, --port=8080]\n", "/template/spec/containers/0/command", &json!(["node"]));
    check(
        "    command: [node, server.js, --port=8080]\n",
        "/template/spec/containers/0/args",
        &json!(["server.js", "--port=8080"]),
    );
}

#[test]
fn probes_have_four_forms() {
    let probe = |probe: &str| {
        let text = format!(
            "services:\n  web:\n    ports: {{ http: 8080, grpc: {{ port: 9000, protocol: grpc }} }}\n    probes: {{ live: {probe} }}\n"
        );
        part(&text, "Deployment/web", "/spec/template/spec/containers/0/livenessProbe")
    };
    let times = |form: Value| {
        let mut probe = form;
        probe["periodSeconds"] = json!(10);
        probe["timeoutSeconds"] = json!(1);
        probe["failureThreshold"] = json!(3);
        probe
    };
    // `ports` is sorted by name: the first one is `grpc`.
    assert_eq!(
        probe("{ http: /health, port: 8080 }"),
        times(json!({ "httpGet": { "path": "/health", "port": "http" } }))
    );
    assert_eq!(
        probe("{ http: /health, port: 8081 }"),
        times(json!({ "httpGet": { "path": "/health", "port": 8081 } }))
    );
    assert_eq!(probe("{ tcp: http }"), times(json!({ "tcpSocket": { "port": "http" } })));
    assert_eq!(probe("{ tcp: 9000 }"), times(json!({ "tcpSocket": { "port": "grpc" } })));
    assert_eq!(probe("{ grpc: \"\" }"), times(json!({ "grpc": { "port": 9000 } })));
    assert_eq!(probe("{ grpc: shop.Web }"), times(json!({ "grpc": { "port": 9000, "service": "shop.Web" } })));
    assert_eq!(probe("{ exec: [/bin/check, -q] }"), times(json!({ "exec": { "command": ["/bin/check", "-q"] } })));
    assert_eq!(
        probe("{ http: /health, port: 8080, delay: 30s, period: 5s, timeout: 1500ms, failures: 2 }"),
        json!({
            "httpGet": { "path": "/health", "port": "http" },
            "initialDelaySeconds": 30,
            "periodSeconds": 5,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        })
    );
}

#[test]
fn a_probe_without_a_port_is_a_finding() {
    let rendered = render("services: { web: { kind: worker, probes: { live: /health } } }");
    assert_eq!(messages(&rendered), ["the `live` probe of `web` has no port to ask, so it is not rendered"]);
}

#[test]
fn rollouts_are_strategies() {
    let strategy = |rollout: &str| part(&format!("{WEB}    rollout: {rollout}\n"), "Deployment/web", "/spec/strategy");
    let rolling = |surge: u32, unavailable: u32| json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
    check("", "/strategy", &rolling(1, 0));
    assert_eq!(strategy("{ rolling: { max-surge: 2, max-unavailable: 1 } }"), rolling(2, 1));
    assert_eq!(strategy("{ canary: { steps: [5%, 50%] } }"), rolling(1, 0));
    assert_eq!(strategy("recreate"), json!({ "type": "Recreate" }));
}

#[test]
fn copies_are_spread_over_zones_and_nodes() {
    let zones = "platform: { regions: { primary: { zones: [a, b, c] } } }\n";
    let spread = |placement: &str, pointer: &str| {
        part(
            &format!("{zones}{WEB}    placement: {placement}\n"),
            "Deployment/web",
            &format!("/spec/template/spec{pointer}"),
        )
    };
    let required = spread("{ zones: required, nodes: required }", "/topologySpreadConstraints/0");
    assert_eq!([&required["whenUnsatisfiable"], &required["minDomains"]], [&json!("DoNotSchedule"), &json!(3)]);
    let preferred = spread("{}", "/topologySpreadConstraints/0");
    assert_eq!([&preferred["whenUnsatisfiable"], &preferred["minDomains"]], [&json!("ScheduleAnyway"), &Value::Null]);
    let term = json!({
        "labelSelector": {
            "matchLabels": { "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop" },
        },
        "topologyKey": "kubernetes.io/hostname",
        "matchLabelKeys": ["pod-template-hash"],
    });
    assert_eq!(
        spread("{ nodes: required }", "/affinity"),
        json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } })
    );
    assert_eq!(spread("{ zones: none, nodes: none }", "/affinity"), Value::Null);
    assert_eq!(spread("{ zones: none, nodes: none }", "/topologySpreadConstraints"), Value::Null);
}

#[test]
fn one_copy_is_not_spread() {
    assert_eq!(
        part("services: { web: {} }", "Deployment/web", "/spec/template/spec/topologySpreadConstraints"),
        Value::Null
    );
}

#[test]
fn a_dedicated_pool_is_asked_for_and_tolerated() {
    let pools = "platform:\n  pools:\n    gpu: { count: 2, cpu: 8, memory: 32Gi, dedicated: true }\n    big: { count: 2, cpu: 8, memory: 32Gi }\n";
    let pod = |pool: &str| {
        part(&format!("{pools}{WEB}    placement: {{ pool: {pool} }}\n"), "Deployment/web", "/spec/template/spec")
    };
    assert_eq!(pod("gpu")["nodeSelector"], json!({ "landfall.dev/pool": "gpu" }));
    assert_eq!(
        pod("gpu")["tolerations"],
        json!([{ "key": "landfall.dev/pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule" }])
    );
    assert_eq!(pod("big")["nodeSelector"], json!({ "landfall.dev/pool": "big" }));
    assert_eq!(pod("big")["tolerations"], Value::Null);
}

#[test]
fn a_scheduled_job_is_a_cron_job() {
    let text = "services: { report: { kind: scheduled-job, schedule: { cron: \"0 2 * * *\", time-zone: Asia/Kolkata, overlap: replace, deadline: 1h, retries: 1 } } }";
    let spec = part(text, "CronJob/report", "/spec");
    assert_eq!(spec["schedule"], json!("0 2 * * *"));
    assert_eq!(spec["timeZone"], json!("Asia/Kolkata"));
    assert_eq!(spec["concurrencyPolicy"], json!("Replace"));
    let job = &spec["jobTemplate"]["spec"];
    assert_eq!([&job["backoffLimit"], &job["activeDeadlineSeconds"]], [&json!(1), &json!(3600)]);
    assert_eq!(job["template"]["spec"]["restartPolicy"], json!("Never"));
    let kinds = ["CronJob", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"];
    assert_eq!(names(&render(text), &kinds), ["CronJob/report"]);
}

#[test]
fn a_schedule_without_a_time_zone_is_in_utc() {
    let text = "services: { report: { kind: scheduled-job, schedule: \"0 2 * * *\" } }";
    assert_eq!(part(text, "CronJob/report", "/spec/timeZone"), json!("Etc/UTC"));
}

#[test]
fn only_two_copies_or_more_have_a_disruption_budget() {
    let budgets =
        |service: &str| names(&render(&format!("services: {{ web: {service} }}")), &["PodDisruptionBudget"]).len();
    assert_eq!(budgets("{ replicas: 1 }"), 0);
    assert_eq!(budgets("{ replicas: 2 }"), 1);
    assert_eq!(budgets("{ replicas: { min: 1, max: 9 } }"), 0);
    assert_eq!(budgets("{ kind: mock, replicas: 2 }"), 0);
    assert_eq!(
        part(WEB, "PodDisruptionBudget/web", "/spec"),
        json!({
            "maxUnavailable": 1,
            "selector": { "matchLabels": { "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop" } },
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        })
    );
}

#[test]
fn a_service_has_each_port_once() {
    let ports = |ports: &str| {
        let text = format!("services: {{ web: {{ ports: {ports} }} }}");
        let spec = part(&text, "Service/web", "/spec/ports");
        let port =
            |port: &Value| format!("{} {}>{}", port["name"].as_str().unwrap_or("?"), port["port"], port["targetPort"]);
        spec.as_array().expect("there are ports").iter().map(port).collect::<Vec<_>>()
    };
    assert_eq!(ports("{ http: 8080 }"), ["http 80>\"http\""]);
    assert_eq!(ports("{ admin: 9090, http: 8080 }"), ["admin 80>\"admin\"", "http 8080>\"http\""]);
    assert_eq!(ports("{ grpc: { port: 9000, protocol: grpc } }"), ["grpc 9000>\"grpc\""]);
    assert_eq!(
        ports("{ a-name-that-is-too-long-for-kubernetes: 8080 }"),
        ["a-name-that-is-too-long-for-kubernetes 80>8080"]
    );
}

#[test]
fn priorities_are_classes_of_the_cluster() {
    let text = "services: { web: { priority: 1000 }, batch: { priority: -5 }, other: { priority: 1000 } }";
    let rendered = render(text);
    assert_eq!(names(&rendered, &["PriorityClass"]), ["PriorityClass/shop-1000", "PriorityClass/shop-minus-5"]);
    assert_eq!(part(text, "PriorityClass/shop-1000", "/description"), json!("For other, web."));
    assert_eq!(part(text, "Deployment/web", "/spec/template/spec/priorityClassName"), json!("shop-1000"));
    let refused = render("services: { web: { priority: 1000000001 } }");
    assert_eq!(messages(&refused), ["`web` has a priority above 1000000000"]);
}
