//! The diagram of services as SVG, for readers that draw no Mermaid.
//!
//! Not handled: segments, for which the layout has no boxes. Each segment has a colour instead.

use std::collections::BTreeMap;

use landfall_model::{Architecture, Element};
use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::color::Color;
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element as Shape, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::diagrams::pairs;

/// The colours of segments in their order, as RGBA; pale, so that black text can be read on each.
const COLOURS: [u32; 6] = [0xdce9_f9ff, 0xdff3_e3ff, 0xfbec_d3ff, 0xf3df_f1ff, 0xe4e4_e4ff, 0xfbdd_ddff];

/// What stands in no segment.
const WHITE: u32 = 0xffff_ffff;

const FONT_SIZE: usize = 14;

/// Services and stores with their edges, and systems of others.
pub(super) fn services(architecture: &Architecture) -> String {
    let document = &architecture.document;
    let pairs = pairs(architecture);
    let segments: BTreeMap<&str, u32> = document
        .segments
        .keys()
        .enumerate()
        .map(|(place, name)| (name.as_str(), COLOURS[place % COLOURS.len()]))
        .collect();
    let colour = |segment: Option<&str>| segment.and_then(|name| segments.get(name).copied()).unwrap_or(WHITE);
    let mut graph = VisualGraph::new(Orientation::LeftToRight);
    let mut handles = BTreeMap::new();
    let mut add = |graph: &mut VisualGraph, element: Element, colour: u32| {
        let name = element.name().to_owned();
        let width = 9.0 * f64::from(u32::try_from(name.len()).unwrap_or(u32::MAX)) + 30.0;
        let shape = match element {
            Element::Store(_) => ShapeKind::new_double_circle(&name),
            Element::Client | Element::External(_) => ShapeKind::new_circle(&name),
            Element::Service(_) => ShapeKind::new_box(&name),
        };
        let size = Point::new(width, 40.0);
        let look = StyleAttr::new(Color::fast("black"), 1, Some(Color::new(colour)), 5, FONT_SIZE);
        handles.insert(element, graph.add_node(Shape::create(shape, look, Orientation::LeftToRight, size)));
    };
    if pairs.keys().any(|(from, _)| *from == Element::Client) {
        add(&mut graph, Element::Client, WHITE);
    }
    for (name, service) in &document.services {
        let segment = service.segment.as_ref().map(|segment| segment.as_str());
        add(&mut graph, Element::Service(name.value.clone()), colour(segment));
    }
    for (name, store) in &document.stores {
        let segment = store.segment.as_ref().map(|segment| segment.as_str());
        add(&mut graph, Element::Store(name.value.clone()), colour(segment));
    }
    for name in document.externals.keys() {
        add(&mut graph, Element::External(name.value.clone()), WHITE);
    }
    for ((from, to), verbs) in &pairs {
        let verbs: Vec<&str> = verbs.iter().copied().collect();
        if let (Some(from), Some(to)) = (handles.get(from), handles.get(to)) {
            graph.add_edge(Arrow::simple(&verbs.join(", ")), *from, *to);
        }
    }
    let mut picture = SVGWriter::new();
    graph.do_it(false, false, false, &mut picture);
    in_one_order(&picture.finalize())
}

/// The writer keeps the classes of its fonts in a hash map, so that they come in any order.
fn in_one_order(svg: &str) -> String {
    let (mut lines, mut classes) = (Vec::new(), Vec::new());
    for line in svg.lines() {
        if line.starts_with(".a") {
            classes.push(line);
            continue;
        }
        classes.sort_unstable();
        lines.append(&mut classes);
        lines.push(line);
    }
    lines.append(&mut classes);
    lines.join("\n") + "\n"
}
