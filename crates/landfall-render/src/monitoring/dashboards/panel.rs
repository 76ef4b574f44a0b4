//! Dashboards as Grafana reads them: panels on a grid of 24 columns.

use serde_json::Value;

use super::list;
use crate::json::json;

/// The version of the dashboard model that is written; Grafana migrates older ones by itself.
const SCHEMA: u32 = 39;

/// Grafana takes unique ids of at most so many characters.
const LONGEST_ID: usize = 40;

/// What the numbers of a panel are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    PerSecond,
    Share,
    Seconds,
    Number,
    Days,
}

impl Unit {
    fn as_grafana(self) -> &'static str {
        match self {
            Self::PerSecond => "ops",
            Self::Share => "percentunit",
            Self::Seconds => "s",
            Self::Number => "short",
            Self::Days => "d",
        }
    }
}

/// A question to Prometheus, and how its answer is called.
#[derive(Debug, Clone)]
pub(super) struct Query {
    expression: String,
    legend: String,
}

impl Query {
    pub(super) fn new(expression: String, legend: &str) -> Self {
        Self { expression, legend: legend.to_owned() }
    }
}

/// A dashboard while it is put together.
pub(super) struct Dashboard {
    id: String,
    title: String,
    platform: String,
    panels: Vec<Value>,
    /// Where the next panel stands.
    x: u32,
    y: u32,
}

impl Dashboard {
    pub(super) fn new(platform: &str, name: &str, title: &str) -> Self {
        Self {
            id: unique_id(&format!("{platform}-{name}")),
            title: title.to_owned(),
            platform: platform.to_owned(),
            panels: Vec::new(),
            x: 0,
            y: 0,
        }
    }

    /// A heading.
    pub(super) fn row(&mut self, title: &str) {
        self.new_line();
        let panel = json!({ "type": "row", "title": title, "collapsed": false, "panels": [] });
        self.add(panel, 24, 1);
        self.new_line();
    }

    /// Lines over time.
    pub(super) fn graph(&mut self, title: &str, unit: Unit, queries: Vec<Query>) {
        let options = json!({
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
            "tooltip": { "mode": "multi", "sort": "desc" },
        });
        self.panel("timeseries", title, unit, options, queries, 12, 8);
    }

    /// The last number.
    pub(super) fn stat(&mut self, title: &str, unit: Unit, queries: Vec<Query>) {
        let options = json!({ "reduceOptions": { "calcs": ["lastNotNull"] }, "textMode": "auto" });
        self.panel("stat", title, unit, options, queries, 12, 8);
    }

    /// The last numbers with their labels.
    pub(super) fn table(&mut self, title: &str, queries: Vec<Query>) {
        self.panel("table", title, Unit::Number, json!({ "showHeader": true }), queries, 12, 8);
    }

    #[expect(clippy::too_many_arguments, reason = "private, and each is a field of the panel")]
    fn panel(
        &mut self,
        kind: &str,
        title: &str,
        unit: Unit,
        options: Value,
        queries: Vec<Query>,
        width: u32,
        height: u32,
    ) {
        let targets = queries.into_iter().enumerate().map(|(place, query)| {
            json!({
                "refId": reference(place),
                "datasource": { "type": "prometheus", "uid": "${datasource}" },
                "expr": query.expression,
                "legendFormat": query.legend,
                "instant": kind == "table",
                "format": if kind == "table" { "table" } else { "time_series" },
            })
        });
        let panel = json!({
            "type": kind,
            "title": title,
            "datasource": { "type": "prometheus", "uid": "${datasource}" },
            "fieldConfig": { "defaults": { "unit": unit.as_grafana(), "min": 0 }, "overrides": [] },
            "options": options,
            "targets": targets.collect::<Vec<Value>>(),
        });
        self.add(panel, width, height);
    }

    fn new_line(&mut self) {
        if self.x > 0 {
            self.x = 0;
            self.y += 8;
        }
    }

    fn add(&mut self, mut panel: Value, width: u32, height: u32) {
        if self.x + width > 24 {
            self.new_line();
        }
        panel["id"] = json!(self.panels.len() + 1);
        panel["gridPos"] = json!({ "x": self.x, "y": self.y, "w": width, "h": height });
        self.x += width;
        if self.x >= 24 {
            self.x = 0;
            self.y += height;
        }
        self.panels.push(panel);
    }

    /// As a file that Grafana loads.
    pub(super) fn render(self) -> Value {
        json!({
            "uid": self.id,
            "title": self.title,
            "tags": ["landfall", self.platform],
            "schemaVersion": SCHEMA,
            "editable": false,
            "refresh": "30s",
            "time": { "from": "now-6h", "to": "now" },
            "templating": { "list": [{
                "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus",
                "current": { "text": "Prometheus", "value": "prometheus" },
            }] },
            "panels": list(self.panels),
        })
    }
}

/// `A` to `Z`, then `A1` and so on.
fn reference(place: usize) -> String {
    let letter = char::from(b'A' + u8::try_from(place % 26).expect("a remainder of 26 is small"));
    if place < 26 { letter.to_string() } else { format!("{letter}{}", place / 26) }
}

/// The name as it is when it is short enough; otherwise its beginning and a hash of all of it.
fn unique_id(name: &str) -> String {
    if name.len() <= LONGEST_ID {
        return name.to_owned();
    }
    // FNV-1a: short, and the same on every machine.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}-{hash:08x}", &name[..LONGEST_ID - 9])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_becomes_an_id_that_grafana_takes() {
        let (one, two) = (unique_id(&format!("{}one", "x".repeat(60))), unique_id(&format!("{}two", "x".repeat(60))));
        assert_eq!((one.len(), two.len()), (LONGEST_ID, LONGEST_ID));
        assert_ne!(one, two);
    }

    #[test]
    fn panels_do_not_overlap() {
        let mut dashboard = Dashboard::new("shop", "x", "X");
        dashboard.graph("a", Unit::Number, vec![]);
        dashboard.row("b");
        (0..5).for_each(|_| dashboard.graph("c", Unit::Number, vec![]));
        dashboard.row("d");
        dashboard.stat("e", Unit::Number, vec![]);
        let rendered = dashboard.render();
        let mut taken = std::collections::BTreeSet::new();
        for panel in rendered["panels"].as_array().into_iter().flatten() {
            let part = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_default();
            for x in part("x")..part("x") + part("w") {
                for y in part("y")..part("y") + part("h") {
                    assert!(x < 24 && taken.insert((x, y)), "{panel}");
                }
            }
        }
    }
}
