//! Everything that the language can say about services, and every example: all that is rendered from it must be what an
//! API server takes.

use std::fs;
use std::path::Path;

use landfall_model::File;
use landfall_render::{Rendered, kubernetes};
use landfall_testing::{Schemas, require_or_skip};

use crate::architecture::architecture;

#[track_caller]
fn check(what: &str, rendered: &Rendered) {
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    let errors: Vec<String> =
        rendered.objects.iter().filter_map(|object| schemas.validate(&object.value).err()).flatten().collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

const EVERYTHING: &str = include_str!("everything.yaml");

#[test]
fn everything_that_can_be_said_is_valid() {
    for environment in [None, Some("development"), Some("production")] {
        check(&format!("everything in {environment:?}"), &kubernetes(&architecture(EVERYTHING, environment)));
    }
}

#[test]
fn everything_is_valid_with_ingress_and_without_a_mesh() {
    let text = EVERYTHING.replace("api: gateway", "api: ingress").replace("  mesh: ", "  #mesh: ");
    check("everything with ingress", &kubernetes(&architecture(&text, None)));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the crate does not read the disk, but a test of the examples has to")]
fn every_example_is_valid_in_all_its_environments() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let Ok(folders) = fs::read_dir(&examples) else { return };
    for folder in folders.filter_map(Result::ok) {
        let path = folder.path().join("landfall.yaml");
        let Ok(bytes) = fs::read(&path) else { continue };
        let mut include = |name: &str| fs::read(folder.path().join(name)).map_err(|error| error.to_string());
        let file = File::read("landfall.yaml", &bytes, &mut include);
        let environments = file.environments();
        for environment in std::iter::once(None).chain(environments.iter().map(|name| Some(name.as_str()))) {
            let architecture =
                file.architecture(environment).unwrap_or_else(|findings| panic!("{}: {findings:#?}", path.display()));
            check(&format!("{} in {environment:?}", path.display()), &kubernetes(&architecture));
        }
    }
}
