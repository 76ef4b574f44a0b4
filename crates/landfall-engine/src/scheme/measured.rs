//! The kinds of `metrics.k8s.io` and `custom.metrics.k8s.io`: measured when they are asked for, never stored, so that no
//! table of kinds has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::types::{Type, Types};
use super::{Resource, Subresource};

/// The group of what pods tell of themselves.
pub(crate) const CUSTOM_METRICS: &str = "custom.metrics.k8s.io";

/// A group of metrics, and where Kubernetes has its types.
struct Package {
    group: &'static str,
    version: &'static str,
    name: &'static str,
}

const RESOURCE: Package = Package { group: "metrics.k8s.io", version: "v1beta1", name: "metrics" };
const CUSTOM: Package = Package { group: CUSTOM_METRICS, version: "v1beta2", name: "custom_metrics" };

pub(super) fn resources() -> [Arc<Resource>; 3] {
    let verbs = || vec!["get".to_owned(), "list".to_owned()];
    let nodes = Resource { verbs: verbs(), ..resource(&RESOURCE, "nodes", "NodeMetrics", false) };
    let pods = Resource { verbs: verbs(), ..resource(&RESOURCE, "pods", "PodMetrics", true) };
    [Arc::new(nodes), Arc::new(pods), pod_metrics(&BTreeSet::new())]
}

/// The pods of `custom.metrics.k8s.io`: nothing is served of them but these metrics, each as a subresource.
pub(super) fn pod_metrics(names: &BTreeSet<String>) -> Arc<Resource> {
    let subresource = |name: &String| Subresource {
        name: name.clone(),
        verbs: vec!["get".to_owned()],
        group: CUSTOM.group.to_owned(),
        version: CUSTOM.version.to_owned(),
        kind: "MetricValueList".to_owned(),
        scale: None,
    };
    let subresources = names.iter().map(subresource).collect();
    Arc::new(Resource { subresources, ..resource(&CUSTOM, "pods", "MetricValue", true) })
}

fn resource(package: &Package, plural: &str, kind: &str, namespaced: bool) -> Resource {
    let Package { group, version, name } = *package;
    // Nobody sends such an object, so that its fields need not be known.
    let mut root = Type::new(format!("io.k8s.metrics.pkg.apis.{name}.{version}.{kind}"), Vec::new());
    root.preserve = true;
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced,
        verbs: Vec::new(),
        collection: format!("{plural}.{group}"),
        storage: (group.to_owned(), version.to_owned()),
        subresources: Vec::new(),
        custom: false,
        printer_columns: Vec::new(),
        selectable_fields: Vec::new(),
        deprecation: None,
        schema: None,
        types: Arc::new(Types { list: vec![root] }),
        root: 0,
    }
}
