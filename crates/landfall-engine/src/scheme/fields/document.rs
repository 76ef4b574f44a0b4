//! The tables as people read them in `docs/engine.md`.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Actor, Entry, Exception, chapters};

/// The generated part of the page.
pub(super) fn markdown() -> String {
    let mut page = String::new();
    for (title, chapter) in chapters() {
        let _ = writeln!(page, "### {title}\n");
        let mut whole = Vec::new();
        for (name, entry) in chapter {
            if entry.ignored.is_empty() && entry.refused.is_empty() {
                let actors: Vec<_> = entry.acted.keys().map(|actor| actor.text()).collect();
                let name = if name == "*" { "every kind".to_owned() } else { format!("`{name}`") };
                whole.push(format!("{name} ({})", actors.join(", ")));
                continue;
            }
            let _ = writeln!(page, "#### `{name}`\n");
            if !entry.acted.is_empty() {
                let _ = writeln!(page, "Acted on by {}.\n", acted(entry));
            }
            page.push_str("| field | becomes | because |\n| --- | --- | --- |\n");
            for (list, outcome) in [(&entry.refused, "refused"), (&entry.ignored, "ignored")] {
                for exception in list {
                    let _ = writeln!(page, "| {} | {outcome} | {} |", fields(exception), exception.why);
                }
            }
            page.push('\n');
        }
        if !whole.is_empty() {
            let _ = writeln!(page, "Acted on as a whole: {}.\n", whole.join(", "));
        }
    }
    page
}

impl Actor {
    fn text(self) -> &'static str {
        match self {
            Self::Api => "the API",
            Self::Kubelet => "the kubelet",
            Self::Scheduler => "the scheduler",
            Self::Network => "the network",
            Self::Gateway => "the gateway",
            Self::Autoscaler => "the autoscaler",
            Self::CronJobController => "the CronJob controller",
            Self::DaemonSetController => "the DaemonSet controller",
            Self::DeploymentController => "the Deployment controller",
            Self::DisruptionController => "the disruption controller",
            Self::EndpointSliceController => "the EndpointSlice controller",
            Self::GarbageCollector => "the garbage collector",
            Self::JobController => "the Job controller",
            Self::NamespaceController => "the namespace controller",
            Self::NodeLifecycleController => "the node lifecycle controller",
            Self::QuotaController => "the quota controller",
            Self::ReplicaSetController => "the ReplicaSet controller",
            Self::StatefulSetController => "the StatefulSet controller",
            Self::VolumeController => "the volume controller",
            Self::Clients => "clients",
        }
    }
}

fn acted(entry: &Entry) -> String {
    let one = |(actor, fields): (&Actor, &Vec<String>)| {
        let fields: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
        format!("{}: {}", actor.text(), fields.join(", "))
    };
    entry.acted.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn fields(exception: &Exception) -> String {
    let fields: Vec<_> = exception.fields.iter().map(|field| format!("`{field}`")).collect();
    let values: Vec<_> = exception.unless.iter().map(value).collect();
    let unless = if values.is_empty() { String::new() } else { format!(" other than {}", values.join(" or ")) };
    format!("{}{unless}", fields.join(", "))
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Object(object) => {
            let fields: Vec<_> = object.iter().map(|(name, value)| format!("{name}: {}", plain(value))).collect();
            format!("`{}`", fields.join(", "))
        }
        other => format!("`{other}`"),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}
