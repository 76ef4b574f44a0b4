//! `Ingress` of networking.k8s.io/v1 (<https://kubernetes.io/docs/concepts/services-networking/ingress/>).
//!
//! The gateway stands in for whatever controller an `Ingress` names by its class, so it also reads the annotations of
//! Traefik and ingress-nginx that decide whether a request is served at all: entry points, redirects, rate limits, and how
//! large a body may be.
//!
//! Not handled: backends that are not services (`resource`), and all other annotations. Without `proxy-body-size` a body may
//! be as large as it likes, where ingress-nginx allows 1 MiB.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};

use super::backend::{Backend, Backends, Protocol, Target};
use super::gateway_api;
use super::host::{Depth, Pattern};
use super::limit::{By, Limit};
use super::rule::{Action, Condition, Deadlines, HeaderEdits, PathMatch, Redirect, Rewrite, Rule, Work};
use super::table::{Attachment, CertificateSource, Draft, Listener, PortRef, Scheme, View};
use super::{CONTROLLER, HTTP, HTTPS, tls};
use crate::cache::ObjectKey;

/// The class of an ingress before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";

const NGINX: &str = "nginx.ingress.kubernetes.io";
const TRAEFIK: &str = "traefik.ingress.kubernetes.io";

/// How many times its rate ingress-nginx lets through at once (`limit-burst-multiplier`).
const NGINX_BURST: u64 = 5;

pub(super) fn build(view: &View<'_>, draft: &mut Draft) {
    let ours: Vec<&Ingress> =
        view.world.ingresses.iter().map(|ingress| &**ingress).filter(|i| is_ours(view, i)).collect();
    // The two ports are open whether or not there is an ingress, so that they can be told to the user at once.
    let mut certificates = vec![(Pattern::Any, CertificateSource::Own)];
    for ingress in ours {
        let read = Reader { view, ingress, key: ObjectKey::of(ingress) };
        certificates.extend(read.certificates());
        draft.attachments.extend(read.attachments());
        draft.report.ingresses.push(read.key);
    }
    let listener =
        |port, scheme, certificates| Listener { port, scheme, gateway: None, host: Pattern::Any, certificates };
    draft.listeners.push(listener(HTTP, Scheme::Http, Vec::new()));
    draft.listeners.push(listener(HTTPS, Scheme::Https, certificates));
}

/// An ingress is ours unless its class names another controller. A class that nobody has made is the one of a controller
/// that is not here, which the gateway stands in for.
fn is_ours(view: &View<'_>, ingress: &Ingress) -> bool {
    if ingress.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let class = class_of(ingress);
    let known = view.world.ingress_classes.iter().find(|known| known.metadata.name.as_deref() == class);
    let controller = known.and_then(|known| known.spec.as_ref()?.controller.as_deref());
    controller.is_none_or(|controller| controller == CONTROLLER)
}

fn class_of(ingress: &Ingress) -> Option<&str> {
    let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    field.or_else(|| annotation(ingress, CLASS))
}

fn annotation<'i>(ingress: &'i Ingress, name: &str) -> Option<&'i str> {
    ingress.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

struct Reader<'v> {
    view: &'v View<'v>,
    ingress: &'v Ingress,
    key: ObjectKey,
}

impl Reader<'_> {
    /// A certificate for each host with TLS: that of the Secret, or one of our own until there is one.
    fn certificates(&self) -> Vec<(Pattern, CertificateSource)> {
        let entries = self.ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        let entries = entries.flat_map(|tls| {
            let secret = tls.secret_name.as_ref().map(|name| ObjectKey::new(&self.key.namespace, name));
            let usable = secret.filter(|key| self.view.secret(key).is_some_and(|secret| tls::key_of(secret).is_ok()));
            let source = usable.map_or(CertificateSource::Own, CertificateSource::Secret);
            let hosts = tls.hosts.iter().flatten();
            hosts.map(move |host| (Pattern::parse(Some(host), Depth::One), source.clone()))
        });
        entries.collect()
    }

    fn has_tls(&self, host: &Pattern) -> bool {
        let entries = self.ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        let mut hosts = entries.flat_map(|tls| tls.hosts.iter().flatten());
        hosts.any(|name| Pattern::parse(Some(name), Depth::One).covers(host))
    }

    fn attachments(&self) -> Vec<Attachment> {
        let Some(spec) = &self.ingress.spec else { return Vec::new() };
        let mut attachments = Vec::new();
        for (number, rule) in spec.rules.iter().flatten().enumerate() {
            let host = Pattern::parse(rule.host.as_deref(), Depth::One);
            let paths = rule.http.iter().flat_map(|http| &http.paths);
            let rules: Vec<(Condition, Arc<Work>)> = paths
                .enumerate()
                .map(|(place, path)| (condition(path), self.work(&path.backend, &format!("{number}.{place}"))))
                .collect();
            attachments.extend(self.attach(number, &host, &rules));
        }
        if let Some(backend) = &spec.default_backend {
            // For what no rule of any ingress is for: as little specific as can be.
            let rules = [(Condition::prefix("/"), self.work(backend, "default"))];
            attachments.extend(self.attach(usize::MAX, &Pattern::Any, &rules));
        }
        attachments
    }

    /// The same rules on the two ports, as far as the annotations allow.
    fn attach(&self, number: usize, host: &Pattern, rules: &[(Condition, Arc<Work>)]) -> Vec<Attachment> {
        let name: Arc<str> = self.key.to_string().into();
        let since = self.ingress.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let attachment = |port, work: &dyn Fn(&Arc<Work>) -> Arc<Work>| {
            let rules = rules.iter().enumerate().map(|(place, (condition, own))| {
                let seniority = (since, Arc::clone(&name), number, place);
                Arc::new(Rule { condition: condition.clone(), work: work(own), seniority })
            });
            let (listener, hosts) = (Pattern::Any, vec![host.clone()]);
            Attachment { port, gateway: None, listener, hosts, rules: rules.collect() }
        };
        let entry_points = annotation(self.ingress, &format!("{TRAEFIK}/router.entrypoints"));
        let serves =
            |entry_point| entry_points.is_none_or(|names| names.split(',').any(|name| name.trim() == entry_point));
        let mut attachments = Vec::new();
        if serves("web") {
            attachments.push(if self.redirects(host) {
                attachment(HTTP, &|own| self.to_https(&own.route))
            } else {
                attachment(HTTP, &Arc::clone)
            });
        }
        if serves("websecure") {
            attachments.push(attachment(HTTPS, &Arc::clone));
        }
        attachments
    }

    /// ingress-nginx sends plain HTTP away from hosts with TLS unless it is told otherwise.
    fn redirects(&self, host: &Pattern) -> bool {
        let asked = |name: &str| annotation(self.ingress, &format!("{NGINX}/{name}"));
        let by_class = class_of(self.ingress) == Some("nginx");
        by_class
            && (asked("force-ssl-redirect") == Some("true")
                || self.has_tls(host) && asked("ssl-redirect") != Some("false"))
    }

    fn to_https(&self, route: &Arc<str>) -> Arc<Work> {
        let redirect = Redirect {
            status: StatusCode::PERMANENT_REDIRECT,
            scheme: Some("https".to_owned()),
            host: None,
            port: None,
            path: None,
        };
        Arc::new(Work {
            route: Arc::clone(route),
            request: HeaderEdits::default(),
            response: HeaderEdits::default(),
            rewrite: Rewrite::default(),
            limit: None,
            max_body: None,
            deadlines: Deadlines::default(),
            action: Action::Redirect(redirect),
            series: self.view.registry.series(route, &"".into()),
        })
    }

    fn work(&self, backend: &IngressBackend, place: &str) -> Arc<Work> {
        let registry = self.view.registry;
        let route: Arc<str> = format!("Ingress/{}", self.key).into();
        let (target, protocol, name) = self.backend(backend);
        let backend = Backend {
            series: registry.series(&route, &name),
            name,
            target,
            protocol,
            request: HeaderEdits::default(),
            response: HeaderEdits::default(),
        };
        Arc::new(Work {
            request: HeaderEdits::default(),
            response: HeaderEdits::default(),
            rewrite: Rewrite::default(),
            limit: self.limit().map(|limit| registry.limiter(&route, &limit)),
            max_body: annotation(self.ingress, &format!("{NGINX}/proxy-body-size")).and_then(bytes),
            deadlines: Deadlines::default(),
            action: Action::Forward(Backends::new(vec![(backend, 1)], registry.turn(format!("{route}#{place}")))),
            series: registry.series(&route, &"".into()),
            route,
        })
    }

    fn backend(&self, backend: &IngressBackend) -> (Target, Protocol, Arc<str>) {
        let Some(service) = &backend.service else { return (Target::Nowhere, Protocol::Http1, "resource".into()) };
        let key = ObjectKey::new(&self.key.namespace, &service.name);
        let port = service.port.as_ref();
        let wanted = match port.and_then(|port| port.name.as_deref()) {
            Some(name) => PortRef::Name(name),
            None => PortRef::Number(port.and_then(|port| port.number).unwrap_or_default()),
        };
        let (target, protocol, number) = self.view.target(&key, &wanted);
        // Controllers of ingresses answer 503 for a service that is not there, as for one without endpoints.
        let target = if target == Target::Nowhere { Target::Endpoints(Vec::new()) } else { target };
        let name = number.map_or_else(|| key.to_string(), |number| format!("{key}:{number}"));
        (target, protocol, name.into())
    }

    /// Refused requests get 429 whoever counts; ingress-nginx itself would say 503 unless it is configured.
    fn limit(&self) -> Option<Limit> {
        if let Some(names) = annotation(self.ingress, &format!("{TRAEFIK}/router.middlewares")) {
            let mut found = self.view.world.middlewares.iter().filter(|middleware| {
                let meta = &middleware.metadata;
                let own = format!(
                    "{}-{}@kubernetescrd",
                    meta.namespace.as_deref().unwrap_or_default(),
                    meta.name.as_deref().unwrap_or_default()
                );
                names.split(',').any(|name| name.trim() == own)
            });
            return found.find_map(|middleware| gateway_api::limit_of(middleware));
        }
        let number = |name: &str| annotation(self.ingress, &format!("{NGINX}/{name}"))?.parse::<u64>().ok();
        let factor = number("limit-burst-multiplier").unwrap_or(NGINX_BURST);
        let limit = |count: u64, period| {
            let burst = count.saturating_mul(factor).max(1);
            Limit { count, period: Duration::from_secs(period), burst, by: By::Client }
        };
        let by_second = number("limit-rps").map(|count| limit(count, 1));
        by_second.or_else(|| number("limit-rpm").map(|count| limit(count, 60)))
    }
}

/// `53m`, as nginx reads a size. 0 is no limit, and so is here what nginx would not take.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

fn condition(path: &HTTPIngressPath) -> Condition {
    let value = path.path.as_deref().unwrap_or("/");
    match path.path_type.as_str() {
        "Exact" => Condition { path: PathMatch::Exact(value.to_owned()), ..Condition::prefix("/") },
        // What is specific to the implementation is a prefix here, as it is for Traefik and nginx without expressions.
        _ => Condition::prefix(value),
    }
}
