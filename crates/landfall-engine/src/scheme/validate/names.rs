//! The grammars of names, labels and keys, with the texts that Kubernetes answers.
//!
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>; each function returns what is wrong.

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn example(message: &str, expression: &str, examples: &[&str]) -> String {
    let examples: Vec<_> = examples.iter().map(|one| format!("'{one}'")).collect();
    format!("{message} (e.g. {}, regex used for validation is '{expression}')", examples.join(",  or "))
}

/// Kubernetes counts bytes, and says so of labels only.
fn too_long(text: &str, limit: usize, found: &mut Vec<String>) {
    if text.len() > limit {
        found.push(format!("must be no more than {limit} characters"));
    }
}

fn is_label(text: &str) -> bool {
    text.starts_with(lower) && text.ends_with(lower) && text.chars().all(|c| lower(c) || c == '-')
}

/// RFC 1123 label.
pub(crate) fn label(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    too_long(text, 63, &mut found);
    if !is_label(text) && text.split('.').all(is_label) {
        found.push("must not contain dots".to_owned());
    } else if !is_label(text) {
        found.push(example(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character",
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "123-abc"],
        ));
    }
    found
}

/// RFC 1123 subdomain.
pub(crate) fn subdomain(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    too_long(text, 253, &mut found);
    if !text.split('.').all(is_label) {
        found.push(example(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    found
}

/// RFC 1035 label: it begins with a letter.
pub(crate) fn label_1035(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    too_long(text, 63, &mut found);
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        found.push(example(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    found
}

fn is_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(inner)
}

/// The key of a label: a name with an optional DNS prefix.
pub(crate) fn qualified(text: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                           alphanumeric character";
    const EXPRESSION: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let mut found = Vec::new();
    let parts: Vec<_> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                found.push("prefix part must be non-empty".to_owned());
            } else {
                found.extend(
                    subdomain(prefix)
                        .into_iter()
                        .map(|reason| format!("prefix part {}", reason.replace("253 characters", "253 bytes"))),
                );
            }
            name
        }
        _ => {
            let text = example(MESSAGE, EXPRESSION, &EXAMPLES);
            found.push(format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return found;
        }
    };
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        found.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_part(name) {
        found.push(format!("name part {}", example(MESSAGE, EXPRESSION, &EXAMPLES)));
    }
    found
}

pub(crate) fn label_value(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > 63 {
        found.push("must be no more than 63 bytes".to_owned());
    }
    if !text.is_empty() && !is_part(text) {
        found.push(example(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    found
}

/// The name of a port: 15 letters, digits and single hyphens, with a letter among them.
pub(crate) fn port_name(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > 15 {
        found.push("must be no more than 15 characters".to_owned());
    }
    if !text.chars().all(|c| lower(c) || c == '-') {
        found.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.contains(|c: char| c.is_ascii_lowercase()) {
        found.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        found.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        found.push("must not begin or end with a hyphen".to_owned());
    }
    found
}

/// A key of a config map or a secret.
pub(crate) fn config_key(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > 253 {
        found.push("must be no more than 253 characters".to_owned());
    }
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        found.push(example(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if text == "." {
        found.push("must not be '.'".to_owned());
    } else if text == ".." {
        found.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        found.push("must not start with '..'".to_owned());
    }
    found
}

/// The name of an environment variable.
pub(crate) fn environment(text: &str) -> Vec<String> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic() && c != '=' || c == ' ') {
        let reason = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        return vec![reason.to_owned()];
    }
    Vec::new()
}

/// The name of a header of HTTP.
pub(crate) fn header(text: &str) -> Vec<String> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return vec![example(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )];
    }
    Vec::new()
}

/// A subdomain whose first label may be a star.
pub(crate) fn wildcard(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    too_long(text, 253, &mut found);
    if !text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label)) {
        found.push(example(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        ));
    }
    found
}

/// A name that becomes one segment of a path: roles and bindings.
pub(crate) fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let bad = text.chars().filter(|c| matches!(c, '/' | '%'));
    bad.take(1).map(|c| format!("may not contain '{c}'")).collect()
}

/// What a name in `generateName` may be: the letters that are added to it make the end right. Of a prefix that ends with
/// a hyphen, Kubernetes does not look at the letter before that either.
pub(crate) fn as_prefix(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{}a", &rest[..rest.floor_char_boundary(rest.len() - 1)]),
        _ => prefix.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_may_end_with_a_hyphen() {
        for (prefix, looked_at) in [("web-", "wea"), ("A-", "a"), ("-", "-"), ("web", "web"), ("ü-", "a")] {
            assert_eq!(as_prefix(prefix), looked_at, "{prefix}");
        }
    }

    #[test]
    fn a_label_has_no_dots_and_a_wildcard_begins_with_a_star() {
        assert_eq!(label("a.b"), ["must not contain dots"]);
        assert!(label("a-b").is_empty());
        assert!(wildcard("*.example.com").is_empty());
        for bad in ["*", "a.*.b", "*.*.b", "example.com"] {
            assert_eq!(wildcard(bad).len(), 1, "{bad}");
        }
    }
}
