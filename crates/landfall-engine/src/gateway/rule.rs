//! One rule of a route: which requests it is for, and what is done with them.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode, header, request};
use regex::Regex;

use super::backend::Backends;
use super::limit::Limiter;
use super::registry::Series;

/// A condition and what follows from it.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) condition: Condition,
    pub(crate) work: Arc<Work>,
    /// Between rules with equal conditions: the older route, then its name, then the place in it.
    pub(crate) seniority: Seniority,
}

pub(crate) type Seniority = (Option<jiff::Timestamp>, Arc<str>, usize, usize);

/// What a request must be for a rule to be its rule. Everything that is said must hold.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) path: PathMatch,
    pub(crate) method: Option<Method>,
    pub(crate) headers: Vec<(HeaderName, TextMatch)>,
    pub(crate) query: Vec<(String, TextMatch)>,
}

#[derive(Debug, Clone)]
pub(crate) enum PathMatch {
    Exact(String),
    /// Whole segments; without a slash at the end, so `/` is empty.
    Prefix(String),
    Regex(Regex),
}

#[derive(Debug, Clone)]
pub(crate) enum TextMatch {
    Exact(String),
    Regex(Regex),
}

/// What is done with a request.
#[derive(Debug)]
pub(crate) struct Work {
    /// As figures and faults name it: `HTTPRoute/shop/web`.
    pub(crate) route: Arc<str>,
    pub(crate) request: HeaderEdits,
    pub(crate) response: HeaderEdits,
    pub(crate) rewrite: Rewrite,
    pub(crate) limit: Option<Arc<Limiter>>,
    /// The most bytes that the body of a request may have; `None` is as many as it likes.
    pub(crate) max_body: Option<u64>,
    pub(crate) deadlines: Deadlines,
    pub(crate) action: Action,
    /// Requests that no backend got.
    pub(crate) series: Arc<Series>,
}

#[derive(Debug)]
pub(crate) enum Action {
    Forward(Backends),
    Redirect(Redirect),
    /// The rule cannot be followed.
    Refuse(StatusCode),
}

/// How long a request may take; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// From the first byte in to the head of the response.
    pub(crate) request: Option<Duration>,
    /// For one attempt at a backend.
    pub(crate) attempt: Option<Duration>,
}

impl Default for Deadlines {
    /// As patient with a backend as nginx (`proxy_read_timeout`).
    fn default() -> Self {
        Self { request: None, attempt: Some(Duration::from_mins(1)) }
    }
}

/// Changes of headers, in the order in which the Gateway API applies them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeaderEdits {
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    pub(crate) add: Vec<(HeaderName, HeaderValue)>,
    pub(crate) remove: Vec<HeaderName>,
}

impl HeaderEdits {
    pub(crate) fn apply(&self, headers: &mut http::HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rewrite {
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: Option<PathEdit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathEdit {
    Full(String),
    /// Instead of the prefix that matched.
    Prefix(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) status: StatusCode,
    pub(crate) scheme: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<PathEdit>,
}

impl Condition {
    /// Every request for paths below this one.
    pub(crate) fn prefix(path: &str) -> Self {
        let path = PathMatch::Prefix(path.trim_end_matches('/').to_owned());
        Self { path, method: None, headers: Vec::new(), query: Vec::new() }
    }

    /// `path` is that of the request, normalized.
    pub(crate) fn holds(&self, path: &str, request: &request::Parts) -> bool {
        self.path.holds(path)
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && self.headers.iter().all(|(name, wanted)| {
                let mut values = request.headers.get_all(name).iter().map(HeaderValue::to_str);
                match (values.next(), values.next()) {
                    (Some(Ok(value)), None) => wanted.holds(value),
                    (Some(Ok(first)), Some(_)) => {
                        // Several fields of a name are one with commas (RFC 9110, section 5.3).
                        let rest = request.headers.get_all(name).iter().skip(1).filter_map(|value| value.to_str().ok());
                        wanted.holds(&rest.fold(first.to_owned(), |all, value| all + "," + value))
                    }
                    _ => false,
                }
            })
            && (self.query.is_empty() || self.query_holds(request.uri.query().unwrap_or_default()))
    }

    fn query_holds(&self, query: &str) -> bool {
        self.query.iter().all(|(name, wanted)| {
            // Of a parameter that is given twice the first one counts.
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let mut found = pairs.filter(|(key, _)| decoded(key) == *name);
            found.next().is_some_and(|(_, value)| wanted.holds(&decoded(value)))
        })
    }

    /// Smaller goes first: exact paths, the longest prefix, a method, most headers, most query parameters
    /// (<https://gateway-api.sigs.k8s.io/reference/spec/#httprouterule>, `matches`). Regular expressions have no place
    /// there; by their length they stand among the prefixes.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        let path = match &self.path {
            PathMatch::Exact(path) => (0, Reverse(path.len())),
            PathMatch::Regex(regex) => (1, Reverse(regex.as_str().len())),
            PathMatch::Prefix(path) => (1, Reverse(path.len())),
        };
        (path, self.method.is_none(), Reverse(self.headers.len()), Reverse(self.query.len()))
    }
}

impl PathMatch {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => path == wanted,
            Self::Prefix(_) => self.rest(path).is_some(),
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// What follows the prefix: nothing, or something that begins with a slash.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Self::Prefix(prefix) = self else { return None };
        path.strip_prefix(prefix.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl TextMatch {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl PathEdit {
    /// The new path, without a query. `condition` is what matched.
    pub(crate) fn apply(&self, path: &str, condition: &Condition) -> String {
        match self {
            Self::Full(path) => path.clone(),
            Self::Prefix(replacement) => {
                let rest = condition.path.rest(path).unwrap_or_default();
                let edited = replacement.trim_end_matches('/').to_owned() + rest;
                if edited.is_empty() { "/".to_owned() } else { edited }
            }
        }
    }
}

impl Redirect {
    /// Where to: what is not said stays (<https://gateway-api.sigs.k8s.io/reference/spec/#httprequestredirectfilter>).
    /// `scheme` and `port` are those of the listener.
    pub(crate) fn location(
        &self,
        request: &request::Parts,
        path: &str,
        scheme: &str,
        port: u16,
        rule: &Rule,
    ) -> String {
        let asked = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let asked = request.uri.authority().map(http::uri::Authority::as_str).or(asked).unwrap_or_default();
        let (asked_host, asked_port) = match asked.rfind(':') {
            Some(at) if !asked[at..].contains(']') => (&asked[..at], asked[at + 1..].parse().ok()),
            _ => (asked, None),
        };
        let target = self.scheme.as_deref().unwrap_or(scheme);
        let well_known = |scheme: &str| if scheme == "https" { 443 } else { 80 };
        let port = match (self.port, &self.scheme) {
            (Some(port), _) => port,
            // Another scheme is on another port: its own.
            (None, Some(to)) if to != scheme => well_known(to),
            (None, _) => asked_port.unwrap_or(port),
        };
        let host = self.host.as_deref().unwrap_or(asked_host);
        let port = if port == well_known(target) { String::new() } else { format!(":{port}") };
        let edited = self.path.as_ref().map(|edit| edit.apply(path, &rule.condition));
        let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{target}://{host}{port}{}{query}", edited.as_deref().unwrap_or(path))
    }
}

/// The path without `.` and `..`, so that nobody walks out of the prefix that a rule opens (RFC 3986, section 5.2.4).
pub(crate) fn normalized(path: &str) -> std::borrow::Cow<'_, str> {
    let suspicious =
        path.contains("/.") || path.as_bytes().windows(4).any(|window| window.eq_ignore_ascii_case(b"/%2e"));
    if !suspicious {
        return path.into();
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let dots = segment.replace("%2e", ".").replace("%2E", ".");
        match dots.as_str() {
            "." | ".." => {
                if dots == ".." {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/")).into()
}

/// A component of a query, with `+` and `%xx` resolved.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let hex = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                bytes.push(hex(high).unwrap_or_default() * 16 + hex(low).unwrap_or_default());
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
