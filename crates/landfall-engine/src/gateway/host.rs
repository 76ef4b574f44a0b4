//! Host names of requests, listeners and routes: which patterns match which hosts, and which is the most specific.

use std::borrow::Cow;
use std::collections::HashMap;

/// A host name or a pattern of host names, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Pattern {
    Any,
    /// What is after the `*` of `*.example.com`, dot included.
    Below(String, Depth),
    Exact(String),
}

/// How many labels a wildcard stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// One or more: the Gateway API (<https://gateway-api.sigs.k8s.io/reference/spec/#hostname>).
    Many,
    /// One: `Ingress` (<https://kubernetes.io/docs/concepts/services-networking/ingress/#hostname-wildcards>).
    One,
}

impl Pattern {
    /// Nothing or an empty name is any host.
    pub(crate) fn parse(name: Option<&str>, depth: Depth) -> Self {
        match name {
            None | Some("" | "*") => Self::Any,
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => Self::Below(suffix.to_ascii_lowercase(), depth),
                None => Self::Exact(name.to_ascii_lowercase()),
            },
        }
    }

    /// Whether every host that `other` matches is matched by this one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Below(suffix, depth), Self::Exact(host)) => below(host, suffix, *depth),
            (Self::Below(own, own_depth), Self::Below(other, depth)) => match own_depth {
                Depth::Many => own == other || other.ends_with(own.as_str()),
                Depth::One => own == other && *depth == Depth::One,
            },
            (_, Self::Any) | (Self::Exact(_), Self::Below(..)) => false,
        }
    }

    /// What both match; of two patterns one covers the other, or they have nothing in common.
    pub(crate) fn intersect(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            Some(other.clone())
        } else if other.covers(self) {
            Some(self.clone())
        } else {
            None
        }
    }

    /// Larger is more specific: exact names, then wildcards, by length
    /// (<https://gateway-api.sigs.k8s.io/reference/spec/#httproutespec>, `hostnames`).
    pub(crate) fn specificity(&self) -> (u8, usize, Depth) {
        match self {
            Self::Any => (0, 0, Depth::Many),
            Self::Below(suffix, depth) => (1, suffix.len(), *depth),
            Self::Exact(host) => (2, host.len(), Depth::One),
        }
    }
}

fn below(host: &str, suffix: &str, depth: Depth) -> bool {
    host.strip_suffix(suffix).is_some_and(|first| !first.is_empty() && (depth == Depth::Many || !first.contains('.')))
}

/// For each host that patterns tell apart, what holds for it; asked once or a few times per request.
#[derive(Debug)]
pub(crate) struct HostIndex<T> {
    exact: HashMap<String, T>,
    /// By the suffix that is left when the first label is taken away.
    child: HashMap<String, T>,
    /// By a suffix further up.
    deeper: HashMap<String, T>,
    any: T,
}

impl<T> HostIndex<T> {
    /// `of` says what holds for the hosts that are covered by exactly those of `patterns` that cover its argument.
    pub(crate) fn build<'p>(patterns: impl IntoIterator<Item = &'p Pattern>, of: impl Fn(&Pattern) -> T) -> Self {
        let mut index =
            Self { exact: HashMap::new(), child: HashMap::new(), deeper: HashMap::new(), any: of(&Pattern::Any) };
        for pattern in patterns {
            match pattern {
                Pattern::Any => {}
                Pattern::Exact(host) => {
                    index.exact.entry(host.clone()).or_insert_with(|| of(pattern));
                }
                Pattern::Below(suffix, _) => {
                    let one = || of(&Pattern::Below(suffix.clone(), Depth::One));
                    index.child.entry(suffix.clone()).or_insert_with(one);
                    let many = || of(&Pattern::Below(suffix.clone(), Depth::Many));
                    index.deeper.entry(suffix.clone()).or_insert_with(many);
                }
            }
        }
        index
    }

    /// `host` is in lower case, without a port.
    pub(crate) fn get(&self, host: &str) -> &T {
        if let Some(found) = self.exact.get(host) {
            return found;
        }
        if !self.child.is_empty() {
            let mut suffixes = host.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &host[at..]);
            if let Some(first) = suffixes.next() {
                if let Some(found) = self.child.get(first) {
                    return found;
                }
                if let Some(found) = suffixes.find_map(|suffix| self.deeper.get(suffix)) {
                    return found;
                }
            }
        }
        &self.any
    }
}

/// The host that a request names: without a port, in lower case.
pub(crate) fn normalized(authority: &str) -> Cow<'_, str> {
    let host = match authority.rfind(':') {
        // The colons of an IPv6 address are inside brackets.
        Some(at) if !authority[at..].contains(']') => &authority[..at],
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(name: &str) -> Pattern {
        Pattern::parse(Some(name), Depth::Many)
    }

    fn one(name: &str) -> Pattern {
        Pattern::parse(Some(name), Depth::One)
    }

    #[test]
    fn a_wildcard_of_the_gateway_api_stands_for_many_labels_and_one_of_ingress_for_one() {
        assert!(many("*.example.com").covers(&many("a.b.example.com")));
        assert!(one("*.example.com").covers(&one("a.example.com")));
        assert!(!one("*.example.com").covers(&one("a.b.example.com")));
        for wildcard in [many("*.example.com"), one("*.example.com")] {
            assert!(!wildcard.covers(&many("example.com")));
            assert!(!wildcard.covers(&many(".example.com")));
            assert!(!wildcard.covers(&many("badexample.com")));
        }
    }

    #[test]
    fn an_intersection_is_the_more_specific_of_the_two() {
        assert_eq!(many("*.example.com").intersect(&many("a.example.com")), Some(many("a.example.com")));
        assert_eq!(many("a.example.com").intersect(&Pattern::Any), Some(many("a.example.com")));
        assert_eq!(many("*.example.com").intersect(&many("*.b.example.com")), Some(many("*.b.example.com")));
        assert_eq!(many("*.example.com").intersect(&many("*.example.org")), None);
        assert_eq!(many("a.example.com").intersect(&many("b.example.com")), None);
    }

    #[test]
    fn the_index_agrees_with_the_patterns() {
        let patterns = [many("a.example.com"), many("*.example.com"), one("*.example.com"), many("*.b.example.com")];
        let index = HostIndex::build(&patterns, |class| {
            let covering = patterns.iter().chain([&Pattern::Any]).filter(|pattern| pattern.covers(class));
            covering.max_by_key(|pattern| pattern.specificity()).cloned().expect("any host is covered")
        });
        for host in [
            "a.example.com",
            "x.example.com",
            "x.y.example.com",
            "x.b.example.com",
            "b.example.com",
            "example.com",
            "a",
            "",
        ] {
            let exact = Pattern::Exact(host.to_owned());
            let covering = patterns.iter().chain([&Pattern::Any]).filter(|pattern| pattern.covers(&exact));
            let expected = covering.max_by_key(|pattern| pattern.specificity()).expect("any host is covered");
            assert_eq!(index.get(host), expected, "{host}");
        }
    }

    #[test]
    fn a_port_a_final_dot_and_capitals_do_not_matter() {
        assert_eq!(normalized("Shop.Example.com.:8443"), "shop.example.com");
        assert_eq!(normalized("[::1]:80"), "[::1]");
        assert_eq!(normalized("[::1]"), "[::1]");
    }
}
