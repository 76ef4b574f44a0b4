//! Helm: one chart for all environments.
//!
//! A template is the object itself, as it is everywhere; only what differs between environments is a value, and besides
//! what a delivery changes (images, replicas, resources). `values.yaml` holds the values of the environment that the
//! others differ from, and `values-<environment>.yaml` what differs from those. So a chart with the values of an
//! environment gives that environment's objects by the way in which it is made, not by care.

mod names;
mod shared;
mod template;
mod values;

use landfall_model::Sources;

use crate::json::json;
use crate::layers::Layers;
use crate::object::FileTree;
use crate::target::Variant;
use crate::yaml;
use names::Names;
use shared::Shared;
use template::Templates;
use values::Values;

/// The chart.
pub(crate) fn chart(variants: &[Variant], sources: &Sources) -> FileTree {
    let layers = Layers::of(variants);
    let mut values = Values::new(layers.base);
    let mut names = Names::default();
    let shared = Shared::of(&layers, &mut names, &mut values);
    let mut templates = Templates::new(&layers, sources, &shared, names, values);
    let main = variants[layers.base].architecture.namespace().as_str();
    let mut files = FileTree::new();
    for object in &layers.objects {
        let folder = if object.group == main { String::new() } else { format!("{}/", object.group) };
        // Helm takes a file that begins with `_` for a part of others.
        let path = format!("{folder}{}", object.path).replace("/_", "/object_");
        let path = path.strip_prefix('_').map_or(path.clone(), |rest| format!("object_{rest}"));
        files.insert(format!("templates/{path}"), templates.object(object));
    }
    let values = templates.into_values();
    let mut writer = yaml::Writer::default();
    let name = variants[layers.base].architecture.document.name.as_str();
    let chart = json!({
        "apiVersion": "v2",
        "name": name,
        "description": format!("{name}, rendered from landfall.yaml"),
        "type": "application",
        "version": "0.1.0",
    });
    files.insert("Chart.yaml".to_owned(), writer.write(&chart));
    let base = &variants[layers.base].name;
    let head = format!("# What differs between environments, as it is in {base}.\n");
    files.insert("values.yaml".to_owned(), head + &writer.write(&values.defaults()));
    for (index, variant) in variants.iter().enumerate() {
        let own = values.overrides(index);
        let same = own.as_object().is_some_and(serde_json::Map::is_empty);
        let head = format!(
            "# What {} has otherwise than `values.yaml`{}\n",
            variant.name,
            if same { ": nothing." } else { "." }
        );
        files.insert(format!("values-{}.yaml", variant.name), head + &writer.write(&own));
    }
    let schema = serde_json::to_string_pretty(&values.schema()).expect("a schema is plain data");
    files.insert("values.schema.json".to_owned(), schema + "\n");
    files.insert("templates/NOTES.txt".to_owned(), notes(variants, name));
    files.insert(".helmignore".to_owned(), ".git/\n*.orig\n*.swp\n".to_owned());
    files
}

/// The value with the image of a service.
pub(crate) fn image_value(service: &str) -> String {
    format!("{}.image", names::word(service))
}

/// What Helm says after an installation.
fn notes(variants: &[Variant], name: &str) -> String {
    let files: String = variants
        .iter()
        .map(|variant| format!("  helm upgrade --install {name} . -f values-{}.yaml\n", variant.name))
        .collect();
    format!(
        "{{{{ .Chart.Name }}}} is installed as {{{{ .Release.Name }}}}.\n\nEach environment has a file of values, and names its own namespaces:\n\n{files}\nThe pods:\n\n  kubectl get pods --all-namespaces -l app.kubernetes.io/part-of={name}\n"
    )
}
