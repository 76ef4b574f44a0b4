//! End of life: software that gets no fixes any more, or soon will not.

mod table;

use landfall_model::{Date, Engine, Finding, LogShipper, MeshKind, Severity, Span, TraceSoftware};
use serde_json::Value;

use super::mutable_tag::Image;
use super::raw::{RawObjects, text};
use super::wording::{count, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};
use table::{
    BITNAMI, CONTAINER_REGISTRY, INGRESS_NGINX, MINIO, PROMTAIL, Product, REMOVED_APIS, ROWS, Retired, STRIMZI_V1BETA2,
    ZOOKEEPER,
};

pub(super) const RULE: Rule = Rule {
    name: "end-of-life",
    subject: Subject::Delivery,
    severity: Severity::Error,
    summary: "Nothing runs that gets no security fixes any more.",
    explanation: "Components die under a document: a version that was current when it was written gets no fixes today. The \
        rule holds a table with a date, a replacement and a source for each row, and looks at the versions of stores, \
        Kubernetes and Istio, at base images and images of services, at the ingress class, the log shipper, the trace store, \
        the registry, and at the API versions of rendered and raw objects. What has ended is an error in production and a \
        warning elsewhere; what ends within 180 days is a warning, because an upgrade of a database takes a quarter. A \
        version that is not in the table is taken to be alive. Managed stores are judged by the same versions: providers \
        charge extra, or upgrade by force.",
    passing: include_str!("../../tests/it/rules/end-of-life/ok.yaml"),
    failing: include_str!("../../tests/it/rules/end-of-life/bad.yaml"),
    run: Some(run),
};

/// How long before the end it is told.
const NOTICE_DAYS: i32 = 180;

/// The word that the rows of the table are looked up by, as in image names.
const IMAGES: [(&str, Product); 10] = [
    ("node", Product::Node),
    ("python", Product::Python),
    ("postgres", Product::Postgres),
    ("postgresql", Product::Postgres),
    ("mongo", Product::Mongodb),
    ("redis", Product::Redis),
    ("kafka", Product::Kafka),
    ("rabbitmq", Product::Rabbitmq),
    ("elasticsearch", Product::Elasticsearch),
    ("kindest", Product::Kubernetes),
];

impl Product {
    fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "Kubernetes",
            Self::Istio => "Istio",
            Self::Node => "Node.js",
            Self::Python => "Python",
            Self::Postgres => "PostgreSQL",
            Self::Mongodb => "MongoDB",
            Self::Redis => "Redis",
            Self::Kafka => "Kafka",
            Self::Rabbitmq => "RabbitMQ",
            Self::Elasticsearch => "Elasticsearch",
            Self::Jaeger => "Jaeger",
        }
    }
}

struct Judge<'a> {
    context: &'a Context<'a>,
    looked: usize,
    alive: Vec<String>,
    findings: Vec<Finding>,
}

fn run(context: &Context<'_>, report: &mut Report) {
    let mut judge = Judge { context, looked: 0, alive: Vec::new(), findings: Vec::new() };
    judge.platform();
    judge.stores();
    judge.services();
    judge.observability();
    judge.objects();
    let against = judge.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let mut derivation = vec![format!("{} looked at, on {}", count(judge.looked, "component"), context.today)];
    derivation.append(&mut judge.alive);
    let span = context.architecture.document.name.span;
    report.proofs.push(proof(
        RULE.name,
        "components",
        "nothing has reached its end of life",
        verdict(against),
        span,
        derivation,
    ));
    report.findings.append(&mut judge.findings);
}

/// `15`, `15.3`, `v1.34.2` and `18-alpine` are all versions.
fn version(text: &str) -> Option<(u32, u32)> {
    let text = text.trim().trim_start_matches('v');
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let mut parts = text[..end].split('.');
    let major = parts.next()?.parse().ok()?;
    Some((major, parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
}

impl Judge<'_> {
    fn version(&mut self, product: Product, text: &str, span: Span, subject: &str) {
        let Some(version) = version(text) else { return };
        self.looked += 1;
        let Some(row) = ROWS.iter().find(|row| row.product == product && version < row.below) else {
            self.alive.push(format!("{subject}: {} {text}, no end announced", product.name()));
            return;
        };
        let what = format!("{} {text}", product.name());
        let help = format!("move to {}", row.replacement);
        if !self.judge(&what, row.ended, &help, row.source, span, subject) {
            self.alive.push(format!("{subject}: {what}, maintained until {}", row.ended));
        }
    }

    /// Whether there is something to tell.
    fn judge(&mut self, what: &str, ended: &str, help: &str, source: &str, span: Span, subject: &str) -> bool {
        let end: Date = ended.parse().expect("a test reads every date of the table");
        let days = (end.civil() - self.context.today.civil()).get_days();
        let finding = if days < 0 {
            let severity = if self.context.architecture.is_production() { Severity::Error } else { Severity::Warning };
            Finding::new(RULE.name, severity, span, format!("{what} reached its end of life on {ended}"))
        } else if days <= NOTICE_DAYS {
            Finding::warning(RULE.name, span, format!("{what} reaches its end of life on {ended}, in {days} days"))
        } else {
            return false;
        };
        self.findings.push(finding.on(subject).because(format!("source: {source}")).help(help));
        true
    }

    fn retired(&mut self, retired: &Retired, span: Span, subject: &str) {
        self.looked += 1;
        let end: Date = retired.ended.parse().expect("a test reads every date of the table");
        if end < self.context.today {
            let severity = if self.context.architecture.is_production() { Severity::Error } else { Severity::Warning };
            let finding =
                Finding::new(RULE.name, severity, span, format!("{} ({})", retired.what, retired.ended)).on(subject);
            self.findings.push(finding.because(format!("source: {}", retired.source)).help(retired.replacement));
        }
    }

    fn platform(&mut self) {
        let platform = &self.context.architecture.document.platform;
        if let Some(kubernetes) = &platform.kubernetes {
            self.version(Product::Kubernetes, kubernetes, kubernetes.span, "platform.kubernetes");
        }
        if let Some((mesh, version)) = platform.mesh.as_ref().and_then(|mesh| Some((mesh, mesh.version.as_ref()?))) {
            let product = match mesh.kind.value {
                MeshKind::Istio => Product::Istio,
            };
            self.version(product, version, version.span, "platform.mesh");
        }
        if platform.ingress.class.as_str() == "nginx" {
            self.retired(&INGRESS_NGINX, platform.ingress.class.span, "platform.ingress");
        }
        if let Some(registry) = &platform.registry {
            let host = registry.host.split('/').next().unwrap_or_default();
            if host == "gcr.io" || host.ends_with(".gcr.io") {
                self.retired(&CONTAINER_REGISTRY, registry.host.span, "platform.registry");
            }
            self.bitnami(&registry.host, registry.host.span, "platform.registry");
        }
    }

    fn bitnami(&mut self, repository: &str, span: Span, subject: &str) {
        if repository.split('/').any(|part| part == "bitnami" || part == "bitnamilegacy") {
            self.retired(&BITNAMI, span, subject);
        }
    }

    fn stores(&mut self) {
        for (name, store) in &self.context.architecture.document.stores {
            let subject = format!("store.{name}");
            // A title may name a distribution that is gone.
            if let Some(title) = &store.title {
                let words = title.to_lowercase();
                for (word, retired) in [("minio", &MINIO), ("bitnami", &BITNAMI)] {
                    if words.contains(word) {
                        self.retired(retired, title.span, &subject);
                    }
                }
            }
            let product = match store.engine.value {
                Engine::Postgres => Product::Postgres,
                Engine::Mongodb => Product::Mongodb,
                Engine::Redis => Product::Redis,
                Engine::Kafka => Product::Kafka,
                Engine::Rabbitmq => Product::Rabbitmq,
                Engine::Elasticsearch => Product::Elasticsearch,
                Engine::S3 | Engine::Mqtt => continue,
            };
            if let Some(version) = &store.version {
                self.version(product, version, version.span, &subject);
            }
        }
    }

    fn services(&mut self) {
        for (name, service) in &self.context.architecture.document.services {
            let base = service.build.as_ref().and_then(|build| build.base.as_ref());
            for image in service.image.iter().chain(base) {
                self.image(image, image.span, &format!("service.{name}"));
            }
        }
    }

    fn image(&mut self, text: &str, span: Span, subject: &str) {
        let image = Image::parse(text);
        let name = image.repository.rsplit('/').next().unwrap_or_default();
        self.bitnami(image.repository, span, subject);
        if image.repository.split('/').any(|part| part == "minio") {
            self.retired(&MINIO, span, subject);
        }
        if name == "promtail" {
            self.retired(&PROMTAIL, span, subject);
        }
        if image.repository.starts_with("gcr.io/")
            || image.repository.split('/').next().is_some_and(|host| host.ends_with(".gcr.io"))
        {
            self.retired(&CONTAINER_REGISTRY, span, subject);
        }
        // Only images of the projects themselves have the versions of the table: `shop/node:3` is a service.
        let official = !image.repository.contains('/') || image.repository.contains("/library/");
        let product = IMAGES.iter().find(|(known, _)| official && *known == name).map(|(_, product)| *product);
        if let (Some(product), Some(tag)) = (product, image.tag) {
            self.version(product, tag, span, subject);
        }
    }

    fn observability(&mut self) {
        let observability = &self.context.architecture.document.observability;
        if let Some(logs) = observability.logs.as_ref().filter(|logs| logs.shipper.value == LogShipper::Promtail) {
            self.retired(&PROMTAIL, logs.shipper.span, "observability.logs");
        }
        if let Some(traces) = observability.traces.as_ref().filter(|traces| traces.stack.value == TraceSoftware::Jaeger)
            && let Some(version) = &traces.version
        {
            self.version(Product::Jaeger, version, version.span, "observability.traces");
        }
    }

    /// Rendered and raw objects: removed APIs, `ZooKeeper`, and the images of raw pods.
    fn objects(&mut self) {
        let document = &self.context.architecture.document;
        let release =
            document.platform.kubernetes.as_ref().and_then(|release| version(release)).map(|(_, minor)| minor);
        let raw = RawObjects::new(self.context.architecture);
        for object in self.context.objects {
            let (version, kind) = (text(object, "apiVersion"), text(object, "kind"));
            let written = raw.written(object);
            let span = written.unwrap_or(Span::NONE);
            let subject = || format!("{kind}/{}", object.get("metadata").map_or("", |metadata| text(metadata, "name")));
            if let Some(api) =
                REMOVED_APIS.iter().find(|api| api.version == version && (api.kind.is_empty() || api.kind == kind))
                && release.is_none_or(|release| release >= api.removed_in)
            {
                let message =
                    format!("`{}` uses the API `{version}`, which Kubernetes 1.{} removed", subject(), api.removed_in);
                let finding = Finding::error(RULE.name, span, message).on(subject());
                let source = "source: https://kubernetes.io/docs/reference/using-api/deprecation-guide/";
                self.findings.push(finding.because(source).help(format!("use {}", api.replacement)));
            }
            if version == "kafka.strimzi.io/v1beta2" || version == "kafka.strimzi.io/v1beta1" {
                self.retired(&STRIMZI_V1BETA2, span, &subject());
            }
            if kind == "Kafka"
                && version.starts_with("kafka.strimzi.io/")
                && object.pointer("/spec/zookeeper").is_some()
            {
                self.retired(&ZOOKEEPER, span, &subject());
            }
            if kind == "Ingress"
                && object.get("spec").map_or("", |spec| text(spec, "ingressClassName")) == "nginx"
                && written.is_some()
            {
                self.retired(&INGRESS_NGINX, span, &subject());
            }
            if written.is_some() {
                let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
                for image in containers.into_iter().flatten().filter_map(|container| container.get("image")?.as_str()) {
                    self.image(image, span, &subject());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_read_from_what_people_write() {
        assert_eq!(version("15"), Some((15, 0)));
        assert_eq!(version("v1.34.2"), Some((1, 34)));
        assert_eq!(version("18-alpine"), Some((18, 0)));
        assert_eq!(version("3.13.7-management"), Some((3, 13)));
        assert_eq!(version("lts-alpine"), None);
    }
}
