//! What an `HTTPRoute` says, in the words of the table.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;

use super::{Objection, granted, is_middleware};
use crate::cache::ObjectKey;
use crate::gateway::backend::{Backend, Backends, Protocol, Target};
use crate::gateway::limit::{By, Limit};
use crate::gateway::resources::{
    BackendRef, HTTPRoute, HeaderModifier, HttpRouteSpec, Middleware, NamedMatch, PathModifier, RouteFilter,
    RouteMatch, RouteRule,
};
use crate::gateway::rule::{
    Action, Condition, Deadlines, HeaderEdits, PathEdit, PathMatch, Redirect, Rewrite, Rule, TextMatch, Work,
};
use crate::gateway::table::{PortRef, View};

/// A route in the words of the table, the same for all its parents.
pub(super) struct Translation {
    pub(super) rules: Vec<Arc<Rule>>,
    /// Why the route is not accepted at all.
    pub(super) objection: Option<Objection>,
    /// Why some reference leads nowhere; the rest of the route is served.
    pub(super) unresolved: Option<Objection>,
}

/// The filters of a rule or of a backend.
#[derive(Default)]
struct Filters {
    request: HeaderEdits,
    response: HeaderEdits,
    rewrite: Rewrite,
    redirect: Option<Redirect>,
    limit: Option<Limit>,
    /// A filter that leads nowhere must not be skipped: requests get an error.
    broken: bool,
}

impl Translation {
    pub(super) fn of(view: &View<'_>, key: &ObjectKey, route: &HTTPRoute, spec: &HttpRouteSpec) -> Self {
        let mut translator = Translator { view, key, name: format!("HTTPRoute/{key}").into(), unresolved: None };
        let since = route.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let name: Arc<str> = key.to_string().into();
        let mut rules = Vec::new();
        for (number, rule) in spec.rules.iter().enumerate() {
            let work = match translator.work(rule, number) {
                Ok(work) => Arc::new(work),
                Err(message) => return Self::refused(message),
            };
            let any = [RouteMatch::default()];
            let matches = if rule.matches.is_empty() { &any[..] } else { &rule.matches };
            for (place, wanted) in matches.iter().enumerate() {
                let condition = match condition(wanted) {
                    Ok(condition) => condition,
                    Err(message) => return Self::refused(message),
                };
                let seniority = (since, Arc::clone(&name), number, place);
                rules.push(Arc::new(Rule { condition, work: Arc::clone(&work), seniority }));
            }
        }
        Self { rules, objection: None, unresolved: translator.unresolved }
    }

    fn refused(message: String) -> Self {
        Self { rules: Vec::new(), objection: Some(("UnsupportedValue", message)), unresolved: None }
    }
}

struct Translator<'v> {
    view: &'v View<'v>,
    key: &'v ObjectKey,
    name: Arc<str>,
    unresolved: Option<Objection>,
}

impl Translator<'_> {
    fn work(&mut self, rule: &RouteRule, number: usize) -> Result<Work, String> {
        let registry = self.view.registry;
        let filters = self.filters(&rule.filters)?;
        let mut choices = Vec::new();
        for reference in &rule.backend_refs {
            choices.push((self.backend(reference)?, reference.weight.unwrap_or(1)));
        }
        let defaults = Deadlines::default();
        let deadline = |text: &Option<String>, default| match text {
            None => Ok::<_, String>(default),
            Some(text) => {
                let period = duration(text).ok_or_else(|| format!("`{text}` is not a duration"))?;
                // Zero is for ever.
                Ok(Some(period).filter(|period| !period.is_zero()))
            }
        };
        let deadlines = Deadlines {
            request: deadline(&rule.timeouts.request, defaults.request)?,
            attempt: deadline(&rule.timeouts.backend_request, defaults.attempt)?,
        };
        let action = if filters.broken {
            Action::Refuse(StatusCode::INTERNAL_SERVER_ERROR)
        } else if let Some(redirect) = filters.redirect {
            Action::Redirect(redirect)
        } else if choices.is_empty() || choices.iter().all(|(_, weight)| *weight == 0) {
            // <https://gateway-api.sigs.k8s.io/reference/spec/#httprouterule>, `backendRefs`.
            Action::Refuse(StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            Action::Forward(Backends::new(choices, registry.turn(format!("{}#{number}", self.name))))
        };
        Ok(Work {
            request: filters.request,
            response: filters.response,
            rewrite: filters.rewrite,
            limit: filters.limit.map(|limit| registry.limiter(&self.name, &limit)),
            max_body: None,
            deadlines,
            action,
            series: registry.series(&self.name, &"".into()),
            route: Arc::clone(&self.name),
        })
    }

    fn backend(&mut self, reference: &BackendRef) -> Result<Backend, String> {
        let registry = self.view.registry;
        let namespace = reference.namespace.as_deref().unwrap_or(&self.key.namespace);
        let key = ObjectKey::new(namespace, &reference.name);
        let filters = self.filters(&reference.filters)?;
        if filters.redirect.is_some() || filters.limit.is_some() || filters.rewrite != Rewrite::default() {
            return Err("a backend's filters may change headers only".to_owned());
        }
        let is_service = reference.group.as_deref().unwrap_or_default().is_empty()
            && reference.kind.as_deref().unwrap_or("Service") == "Service";
        let (target, protocol, number) = match reference.port {
            Some(port) if is_service => self.view.target(&key, &PortRef::Number(port.into())),
            _ => (Target::Nowhere, Protocol::Http1, None),
        };
        let objection = if !is_service {
            Some(("InvalidKind", format!("the backend {key} is not a Service")))
        } else if !granted(self.view, ("HTTPRoute", &self.key.namespace), ("", "Service"), &key) {
            Some(("RefNotPermitted", format!("no ReferenceGrant lets it use the Service {key}")))
        } else if target == Target::Nowhere {
            Some(("BackendNotFound", format!("there is no Service {key} with this port")))
        } else {
            None
        };
        let target = if objection.is_some() || filters.broken { Target::Nowhere } else { target };
        self.unresolved = self.unresolved.take().or(objection);
        let name: Arc<str> = number.map_or_else(|| key.to_string(), |number| format!("{key}:{number}")).into();
        let series = registry.series(&self.name, &name);
        Ok(Backend { name, target, protocol, request: filters.request, response: filters.response, series })
    }

    fn filters(&mut self, filters: &[RouteFilter]) -> Result<Filters, String> {
        let mut read = Filters::default();
        let missing = |type_: &str| format!("the filter {type_} says nothing");
        for filter in filters {
            let type_ = filter.type_.as_str();
            match type_ {
                "RequestHeaderModifier" => {
                    read.request = edits(filter.request_header_modifier.as_ref().ok_or_else(|| missing(type_))?)?;
                }
                "ResponseHeaderModifier" => {
                    read.response = edits(filter.response_header_modifier.as_ref().ok_or_else(|| missing(type_))?)?;
                }
                "RequestRedirect" => {
                    let told = filter.request_redirect.as_ref().ok_or_else(|| missing(type_))?;
                    let status = StatusCode::from_u16(told.status_code.unwrap_or(302));
                    read.redirect = Some(Redirect {
                        status: status.map_err(|_| "a redirect needs a status code".to_owned())?,
                        scheme: told.scheme.clone(),
                        host: told.hostname.clone(),
                        port: told.port,
                        path: told.path.as_ref().map(path_edit).transpose()?,
                    });
                }
                "URLRewrite" => {
                    let told = filter.url_rewrite.as_ref().ok_or_else(|| missing(type_))?;
                    read.rewrite = Rewrite {
                        host: told.hostname.as_deref().map(header_value).transpose()?,
                        path: told.path.as_ref().map(path_edit).transpose()?,
                    };
                }
                "ExtensionRef" => {
                    let reference = filter.extension_ref.as_ref().ok_or_else(|| missing(type_))?;
                    let known = self.view.world.middlewares.iter().find(|middleware| {
                        middleware.metadata.name.as_ref() == Some(&reference.name)
                            && middleware.metadata.namespace.as_deref() == Some(&self.key.namespace)
                    });
                    let limit = known.filter(|_| is_middleware(reference)).and_then(|middleware| limit_of(middleware));
                    if limit.is_none() {
                        let message =
                            format!("the filter `{}` is not there, or not one that limits rates", reference.name);
                        self.unresolved = self.unresolved.take().or(Some(("BackendNotFound", message)));
                        read.broken = true;
                    }
                    read.limit = limit;
                }
                _ => return Err(format!("the filter {type_} is not served")),
            }
        }
        Ok(read)
    }
}

/// The rate limit of a Traefik middleware (<https://doc.traefik.io/traefik/reference/routing-configuration/http/middlewares/ratelimit/>):
/// `average` requests in each `period`, `burst` at once. An average of zero is no limit.
pub(in crate::gateway) fn limit_of(middleware: &Middleware) -> Option<Limit> {
    let spec = middleware.spec.get()?.rate_limit.as_ref()?;
    let period = match &spec.period {
        None => Some(Duration::from_secs(1)),
        Some(serde_json::Value::String(text)) => duration(text),
        // Traefik reads whole numbers as seconds.
        Some(number) => number.as_u64().map(Duration::from_secs),
    };
    let by = match &spec.source_criterion {
        Some(by) if by.request_host == Some(true) => By::Host,
        Some(by) => match by.request_header_name.as_ref().and_then(|name| name.parse().ok()) {
            Some(name) => By::Header(name),
            None => By::Client,
        },
        None => By::Client,
    };
    let count = spec.average.filter(|count| *count > 0)?;
    Some(Limit { count, period: period?, burst: spec.burst.unwrap_or(1).max(1), by })
}

fn condition(told: &RouteMatch) -> Result<Condition, String> {
    let path = told.path.as_ref();
    let value = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    let path = match path.and_then(|path| path.type_.as_deref()).unwrap_or("PathPrefix") {
        "Exact" => PathMatch::Exact(value.to_owned()),
        "PathPrefix" => PathMatch::Prefix(value.trim_end_matches('/').to_owned()),
        "RegularExpression" => PathMatch::Regex(regex(value)?),
        other => return Err(format!("paths are not matched by {other}")),
    };
    let method = told.method.as_deref().map(|method| Method::from_bytes(method.as_bytes()));
    let method = method.transpose().map_err(|error| error.to_string())?;
    let mut headers: Vec<(HeaderName, TextMatch)> = Vec::new();
    for header in &told.headers {
        let name: HeaderName = header.name.parse().map_err(|_| format!("`{}` is not a header", header.name))?;
        // Of two with the same name the first one counts, whatever its case.
        if !headers.iter().any(|(known, _)| *known == name) {
            headers.push((name, text(header)?));
        }
    }
    let mut query: Vec<(String, TextMatch)> = Vec::new();
    for parameter in &told.query_params {
        if !query.iter().any(|(known, _)| *known == parameter.name) {
            query.push((parameter.name.clone(), text(parameter)?));
        }
    }
    Ok(Condition { path, method, headers, query })
}

fn text(told: &NamedMatch) -> Result<TextMatch, String> {
    match told.type_.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(TextMatch::Exact(told.value.clone())),
        "RegularExpression" => regex(&told.value).map(TextMatch::Regex),
        other => Err(format!("values are not matched by {other}")),
    }
}

/// An expression for the whole text, as in Envoy's implementations.
fn regex(expression: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{expression})$")).map_err(|_| format!("`{expression}` is not a regular expression"))
}

fn edits(told: &HeaderModifier) -> Result<HeaderEdits, String> {
    let name = |name: &str| name.parse::<HeaderName>().map_err(|_| format!("`{name}` is not a header"));
    let pairs = |pairs: &[super::super::resources::NamedValue]| {
        let pairs = pairs.iter().map(|pair| Ok((name(&pair.name)?, header_value(&pair.value)?)));
        pairs.collect::<Result<Vec<_>, String>>()
    };
    let remove = told.remove.iter().map(|removed| name(removed)).collect::<Result<_, _>>()?;
    Ok(HeaderEdits { set: pairs(&told.set)?, add: pairs(&told.add)?, remove })
}

fn header_value(value: &str) -> Result<HeaderValue, String> {
    value.parse().map_err(|_| format!("`{value}` is not the value of a header"))
}

fn path_edit(told: &PathModifier) -> Result<PathEdit, String> {
    match (told.type_.as_str(), &told.replace_full_path, &told.replace_prefix_match) {
        ("ReplaceFullPath", Some(path), _) => Ok(PathEdit::Full(path.clone())),
        ("ReplacePrefixMatch", _, Some(path)) => Ok(PathEdit::Prefix(path.clone())),
        (other, ..) => Err(format!("paths are not changed by {other}")),
    }
}

/// A duration as Go writes it, in whole units: `1h30m`, `500ms` (GEP-2257). A number alone is seconds, as Traefik has it.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let one = match &rest[..unit] {
            "h" => Duration::from_hours(1),
            "m" => Duration::from_mins(1),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            "us" | "µs" => Duration::from_micros(1),
            "ns" => Duration::from_nanos(1),
            _ => return None,
        };
        total += one.checked_mul(u32::try_from(count).ok()?)?;
        rest = &rest[unit..];
    }
    Some(total)
}
