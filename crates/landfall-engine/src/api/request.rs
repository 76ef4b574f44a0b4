//! What a request asks for: the resource, the name, the verb, and the options of its query.

use http::{HeaderMap, Method, Uri, header};

use super::failure::Failure;
use crate::scheme::{Cause, Reason};

/// The parts of a path below `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    /// Empty: cluster-scoped, or all namespaces.
    pub(crate) namespace: String,
    /// Empty: the collection.
    pub(crate) name: String,
    /// Empty: the object itself. The rest of the path follows in `rest`, for proxies.
    pub(crate) subresource: String,
    /// As RBAC names it.
    pub(crate) verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

impl Target {
    /// `None`: not a path of a resource.
    pub(crate) fn parse(method: &Method, uri: &Uri, query: &Query) -> Option<Self> {
        let decoded: Vec<String> = uri.path().split('/').filter(|part| !part.is_empty()).map(percent_decode).collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let (group, version, mut rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let mut watch = query.flag("watch");
        if let ["watch", more @ ..] = rest {
            (watch, rest) = (true, more);
        }
        let (namespace, plural, name, subresource) = match rest {
            // The subresources of a namespace look like collections inside it.
            ["namespaces", name, subresource @ ("status" | "finalize")] if group.is_empty() => {
                ("", "namespaces", *name, (*subresource).to_owned())
            }
            ["namespaces", namespace, plural, rest @ ..] => {
                let (name, subresource) = name_and_subresource(rest);
                (*namespace, *plural, name, subresource)
            }
            [plural, rest @ ..] => {
                let (name, subresource) = name_and_subresource(rest);
                ("", *plural, name, subresource)
            }
            [] => return None,
        };
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if name.is_empty() => Verb::DeleteCollection,
            Method::DELETE => Verb::Delete,
            // The query of what is led on to a pod is that pod's.
            _ if watch && subresource.is_empty() => Verb::Watch,
            _ if name.is_empty() => Verb::List,
            _ => Verb::Get,
        };
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource,
            verb,
        })
    }
}

fn name_and_subresource<'a>(rest: &[&'a str]) -> (&'a str, String) {
    match rest {
        [] => ("", String::new()),
        [name, rest @ ..] => (name, rest.join("/")),
    }
}

/// Bytes that are no UTF-8 are replaced: no name has any.
fn percent_decode(text: &str) -> String {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes[at] == b'%').then(|| Some((hex(*bytes.get(at + 1)?)?, hex(*bytes.get(at + 2)?)?))).flatten();
        if let Some((high, low)) = pair {
            decoded.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits are a byte"));
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The query of a request, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(uri: &Uri) -> Self {
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        Self(query.map(|axum::extract::Query(pairs)| pairs).unwrap_or_default())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The only name that the field selector lets through, if it asks for one.
    pub(crate) fn selected_name(&self) -> Option<&str> {
        let mut terms = self.text("fieldSelector").split(',');
        let name = terms.find_map(|term| {
            let value = term.strip_prefix("metadata.name=")?;
            Some(value.strip_prefix('=').unwrap_or(value))
        })?;
        (!matches!(name, "." | "..") && !name.contains(['/', '%'])).then_some(name)
    }

    /// Kubernetes takes anything but these for a yes.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, Failure> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        }
    }

    /// Whether the write is only to be tried. `options` is how Kubernetes calls the options of the request.
    pub(crate) fn dry_run(&self, options: &str) -> Result<bool, Failure> {
        let mut dry = false;
        for value in self.all("dryRun") {
            match value {
                "All" => dry = true,
                "" => {}
                other => return Err(unsupported_dry_run(options, other)),
            }
        }
        Ok(dry)
    }

    pub(crate) fn field_validation(&self) -> Result<FieldValidation, Failure> {
        match self.text("fieldValidation") {
            "Ignore" => Ok(FieldValidation::Ignore),
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Strict" => Ok(FieldValidation::Strict),
            other => Err(Failure::invalid(
                "meta.k8s.io",
                "CreateOptions",
                "",
                &[super::cause::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"])],
            )),
        }
    }
}

pub(crate) fn unsupported_dry_run(options: &str, value: &str) -> Failure {
    let message = format!("Unsupported value: [{value:?}]: supported values: \"All\"");
    let cause = Cause { reason: Reason::NotSupported, field: "dryRun".to_owned(), message };
    Failure::invalid("meta.k8s.io", options, "", &[cause])
}

/// What happens to fields that the kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Who manages the fields that a request writes: said by the client, or the first word of its user agent.
pub(crate) fn field_manager(query: &Query, headers: &HeaderMap) -> String {
    if let Some(manager) = query.get("fieldManager").filter(|manager| !manager.is_empty()) {
        return manager.to_owned();
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    if name.is_empty() { "unknown".to_owned() } else { name.chars().take(128).collect() }
}
