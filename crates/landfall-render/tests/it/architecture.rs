//! Small architectures to render, and ways to look at the result.

use landfall_model::{Architecture, File};
use landfall_render::{Rendered, kubernetes};
use serde_json::Value;

/// Reads `text` after a header with a name; `text` must be right.
pub(crate) fn read(text: &str) -> File {
    let text = format!("landfall: v1\nname: shop\n{text}");
    File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(format!("no test includes `{path}`")))
}

/// The architecture of `text` in an environment.
pub(crate) fn architecture(text: &str, environment: Option<&str>) -> Architecture {
    read(text).architecture(environment).unwrap_or_else(|findings| panic!("the test's file is wrong: {findings:#?}"))
}

/// Renders `text`.
pub(crate) fn render(text: &str) -> Rendered {
    kubernetes(&architecture(text, None))
}

/// Renders `text`, in which nothing may be wrong, and returns the part of an object at a pointer; null when it is not
/// there. `object` is its kind and name: `Deployment/web`.
#[track_caller]
pub(crate) fn part(text: &str, object: &str, pointer: &str) -> Value {
    let rendered = render(text);
    assert_eq!(messages(&rendered), [""; 0], "nothing is wrong with the file");
    find(&rendered, object).pointer(pointer).cloned().unwrap_or_default()
}

/// The object of that kind and name.
#[track_caller]
pub(crate) fn find<'a>(rendered: &'a Rendered, object: &str) -> &'a Value {
    let known = |object: &&landfall_render::Object| format!("{}/{}", object.kind(), object.name());
    let found = rendered.objects.iter().find(|candidate| known(candidate) == object);
    let all: Vec<String> = rendered.objects.iter().map(|object| known(&object)).collect();
    &found.unwrap_or_else(|| panic!("there is no {object} among {all:#?}")).value
}

/// `Deployment/web` and so on: every object of the named kinds, sorted by path.
pub(crate) fn names(rendered: &Rendered, kinds: &[&str]) -> Vec<String> {
    let objects = rendered.objects.iter().filter(|object| kinds.contains(&object.kind()));
    objects.map(|object| format!("{}/{}", object.kind(), object.name())).collect()
}

/// The messages of the findings.
pub(crate) fn messages(rendered: &Rendered) -> Vec<&str> {
    rendered.findings.iter().map(|finding| finding.message.as_str()).collect()
}
