//! Patches and raw objects.

use serde_json::{Value, json};

use crate::architecture::{find, messages, part, render};

fn patched(patch: &str) -> String {
    format!("services: {{ web: {{ port: 8080, replicas: 2 }} }}\npatches:\n  - {patch}\n")
}

#[test]
fn a_merge_patch_replaces_and_removes() {
    let text = patched(
        "{ target: { kind: Deployment, name: web }, merge: { spec: { replicas: 7, minReadySeconds: ~ } }, because: a test }",
    );
    let spec = part(&text, "Deployment/web", "/spec");
    assert_eq!([&spec["replicas"], &spec["minReadySeconds"]], [&json!(7), &Value::Null]);
}

#[test]
fn operations_change_one_place() {
    let text = patched(
        "{ target: { kind: Deployment }, operations: [{ op: replace, path: /spec/template/spec/securityContext/runAsUser, value: 999 }], because: a test }",
    );
    assert_eq!(part(&text, "Deployment/web", "/spec/template/spec/securityContext/runAsUser"), json!(999));
}

#[test]
fn a_patch_that_fits_nothing_is_a_finding_with_a_suggestion() {
    for (target, message, help) in [
        ("{ kind: Deploymnet }", "the patch fits no object: there is no Deploymnet", "did you mean `Deployment`?"),
        (
            "{ kind: Deployment, name: wbe }",
            "the patch fits no object: there is no Deployment `wbe`",
            "did you mean `web`?",
        ),
        (
            "{ kind: Deployment, name: something-else }",
            "the patch fits no object: there is no Deployment `something-else`",
            "`landfall render kubernetes` shows what there is",
        ),
    ] {
        let rendered = render(&patched(&format!("{{ target: {target}, merge: {{ a: 1 }}, because: a test }}")));
        assert_eq!(messages(&rendered), [message]);
        assert_eq!(rendered.findings[0].help.as_deref(), Some(help));
        assert!(rendered.findings[0].primary.span.is_written());
    }
}

#[test]
fn operations_that_fail_leave_the_object_as_it_was() {
    let text = patched(
        "{ target: { kind: Service }, operations: [{ op: replace, path: /spec/type, value: NodePort }, { op: test, path: /kind, value: Pod }], because: a test }",
    );
    let rendered = render(&text);
    assert_eq!(messages(&rendered), ["the patch does not apply to Service `web`"]);
    assert_eq!(find(&rendered, "Service/web")["spec"]["type"], json!("ClusterIP"));
}

#[test]
fn what_is_no_json_patch_is_a_finding() {
    let text = patched("{ target: { kind: Service }, operations: [{ op: frobnicate, path: /spec }], because: a test }");
    assert_eq!(messages(&render(&text)), ["these are not operations of a JSON Patch"]);
}

#[test]
fn raw_objects_are_rendered_as_they_stand() {
    let text = "
objects:
  - apiVersion: example.com/v1
    kind: Widget
    metadata: { name: one, namespace: shop }
    spec: { value: ~, list: [] }
";
    let rendered = render(text);
    assert_eq!(find(&rendered, "Widget/one")["spec"], json!({ "value": null, "list": [] }));
    let widget = rendered.objects.iter().find(|object| object.kind() == "Widget").expect("it was rendered");
    assert_eq!([widget.path(), widget.origin.clone()], ["shop/objects/widget-one.yaml", "objects[0]"]);
}

#[test]
fn the_name_of_a_raw_object_cannot_leave_its_folder() {
    let text = "
objects:
  - { apiVersion: v1, kind: ../Kind, metadata: { name: ../../etc/x, namespace: .. } }
";
    let paths: Vec<String> = render(text).objects.iter().map(landfall_render::Object::path).collect();
    assert!(paths.contains(&"_../objects/_.._kind-.._.._etc_x.yaml".to_owned()), "{paths:#?}");
}

#[test]
fn an_object_that_is_there_twice_is_a_finding() {
    let text = "
services: { web: { port: 8080 } }
objects:
  - { apiVersion: v1, kind: Service, metadata: { name: web, namespace: shop } }
";
    let rendered = render(text);
    assert_eq!(messages(&rendered), ["Service `web` is there twice"]);
    assert_eq!(rendered.findings[0].why, ["one comes from `services.web`, one from `objects[0]`"]);
    assert_eq!(find(&rendered, "Service/web")["spec"]["type"], json!("ClusterIP"));
}
