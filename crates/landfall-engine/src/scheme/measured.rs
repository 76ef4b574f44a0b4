//! The kinds of `metrics.k8s.io`: measured when they are asked for, never stored, so that no table of kinds has them.

use std::sync::Arc;

use super::Resource;
use super::types::{Type, Types};

const GROUP: &str = "metrics.k8s.io";

pub(super) fn resources() -> [Arc<Resource>; 2] {
    [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)]
}

fn resource(plural: &str, kind: &str, namespaced: bool) -> Arc<Resource> {
    // Nobody sends such an object, so that its fields need not be known.
    let mut root = Type::new(format!("io.k8s.metrics.pkg.apis.metrics.v1beta1.{kind}"), Vec::new());
    root.preserve = true;
    Arc::new(Resource {
        group: GROUP.to_owned(),
        version: "v1beta1".to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced,
        verbs: ["get", "list"].map(str::to_owned).into(),
        collection: format!("{plural}.{GROUP}"),
        storage: (GROUP.to_owned(), "v1beta1".to_owned()),
        subresources: Vec::new(),
        custom: false,
        printer_columns: Vec::new(),
        selectable_fields: Vec::new(),
        deprecation: None,
        schema: None,
        types: Arc::new(Types { list: vec![root] }),
        root: 0,
    })
}
