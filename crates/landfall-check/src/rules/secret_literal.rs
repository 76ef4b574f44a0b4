//! Secrets that stand in the file as text.

use std::collections::BTreeMap;

use landfall_model::{Finding, Severity, Span};
use serde_json::Value;

use super::raw::RawObjects;
use super::wording::{count, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "secret-literal",
    subject: Subject::Security,
    severity: Severity::Error,
    summary: "No secret stands in the file as text, and no placeholder stands for one.",
    explanation: "What stands in the file is in Git for good, in every clone and in every rendered object. The rule looks at \
        environment variables, at configuration files and at raw objects of kind Secret: at names that end in words such as \
        PASSWORD, TOKEN, SECRET or KEY, at URLs with a password, at private keys, and at values that look random. A \
        placeholder such as `<base64-encoded>` or `changeme` is reported too, because it is deployed as it stands: base64 is \
        an encoding, no protection. The finding never repeats the value. Not handled: secrets in images and in the prose of \
        titles.",
    passing: include_str!("../../tests/it/rules/secret-literal/ok.yaml"),
    failing: include_str!("../../tests/it/rules/secret-literal/bad.yaml"),
    run: Some(run),
};

/// Words at the end of the name of something secret.
const SECRET_WORDS: [&str; 13] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PWD",
    "SECRET",
    "TOKEN",
    "APIKEY",
    "API_KEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "SECRET_KEY",
    "CREDENTIALS",
    "DSN",
];

/// Values that stand for a secret that somebody forgot to put in.
const PLACEHOLDERS: [&str; 12] = [
    "changeme",
    "change-me",
    "change_me",
    "todo",
    "tbd",
    "xxx",
    "placeholder",
    "replace-me",
    "replaceme",
    "your-password",
    "password",
    "secret",
];

/// The fewest characters of a value that is judged by its randomness.
const MIN_RANDOM: usize = 24;

/// Bits for each character above which a text without spaces is hardly a word or a path: hexadecimal keys have up to
/// 4, base64 keys about 5, English identifiers less than 3.5.
const MIN_ENTROPY: f64 = 3.7;

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Secret,
    UrlWithPassword,
    PrivateKey,
    Placeholder,
    LooksRandom,
}

fn run(context: &Context<'_>, report: &mut Report) {
    let document = &context.architecture.document;
    let mut looked = 0;
    let mut findings = Vec::new();
    for (name, service) in &document.services {
        let subject = format!("service.{name}");
        for (variable, value) in &service.env {
            let Some(text) = &value.value else { continue };
            looked += 1;
            if let Some(problem) = judge(variable, text) {
                let key = variable.to_ascii_lowercase().replace('_', "-");
                let help = format!(
                    "put it into the secret back end, declare it under `security.secrets.items`, and write `{variable}: {{ secret: {name}/{key} }}`"
                );
                findings.push(
                    tell(problem, &format!("the variable `{variable}` of `{name}`"), text, text.span, &subject)
                        .help(help),
                );
            }
        }
        for (file, content) in &service.config {
            looked += 1;
            let found = content.lines().enumerate().find_map(|(index, line)| Some((index, line, judge_line(line)?)));
            if let Some((index, line, problem)) = found {
                let what = format!("line {} of the file `{file}` of `{name}`", index + 1);
                let help = "let the program read it from an environment variable with `secret: …`";
                findings.push(tell(problem, &what, line, content.span, &subject).help(help));
            }
        }
    }
    let raw = RawObjects::new(context.architecture);
    for object in context.objects.iter().filter(|object| object.get("kind").and_then(Value::as_str) == Some("Secret")) {
        looked += 1;
        let holds = |field: &str| object.get(field).and_then(Value::as_object).is_some_and(|data| !data.is_empty());
        if holds("data") || holds("stringData") {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let span = raw.span(object);
            let placeholder =
                ["data", "stringData"].iter().filter_map(|field| object.get(*field)?.as_object()).flatten();
            let placeholder = placeholder.filter_map(|(_, value)| value.as_str()).any(is_placeholder);
            let what = if placeholder { "placeholders" } else { "values" };
            let message = format!("the Secret `{name}` stands in the file with its {what}");
            let finding = Finding::error(RULE.name, span, message).on(format!("Secret/{name}"));
            let finding = finding.because("base64 is an encoding: whoever reads the repository reads the secret");
            findings
                .push(finding.help(format!("remove it, and declare `security.secrets.items.{name}` with its keys")));
        }
    }
    let against = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let derivation = vec![format!("{} looked at", count(looked, "value"))];
    report.proofs.push(proof(
        RULE.name,
        "secrets",
        "no secret stands in the file",
        verdict(against),
        document.name.span,
        derivation,
    ));
    report.findings.extend(findings);
}

fn tell(problem: Problem, what: &str, value: &str, span: Span, subject: &str) -> Finding {
    let (severity, says, label) = match problem {
        Problem::Secret => (Severity::Error, "is a secret in plain text", "in Git for good".to_owned()),
        Problem::UrlWithPassword => {
            (Severity::Error, "holds a URL with a password", "the password is before the `@`".to_owned())
        }
        Problem::PrivateKey => (Severity::Error, "holds a private key", "in Git for good".to_owned()),
        Problem::Placeholder => {
            (Severity::Error, "is a placeholder that would be deployed as it stands", "no real value".to_owned())
        }
        Problem::LooksRandom => (
            Severity::Warning,
            "looks like a key or token",
            format!("{} characters that look random", value.trim().chars().count()),
        ),
    };
    Finding::new(RULE.name, severity, span, format!("{what} {says}")).label(label).on(subject)
}

fn judge(name: &str, value: &str) -> Option<Problem> {
    let value = value.trim();
    if value.is_empty() {
        return None;
    }
    if value.contains("-----BEGIN ") && value.contains("PRIVATE KEY") {
        return Some(Problem::PrivateKey);
    }
    if has_password(value) {
        return Some(Problem::UrlWithPassword);
    }
    // A reference to something else, such as `$(OTHER)` or the path of a mounted file, is no secret.
    let refers = value.starts_with("$(") || value.starts_with("${") || value.starts_with('/');
    let switch = matches!(value.to_ascii_lowercase().as_str(), "true" | "false" | "0" | "1" | "none" | "yes" | "no");
    if is_bracketed(value) || (is_secret_name(name) && is_placeholder(value)) {
        return Some(Problem::Placeholder);
    }
    if is_secret_name(name) && !refers && !switch {
        return Some(Problem::Secret);
    }
    looks_random(value).then_some(Problem::LooksRandom)
}

/// `key = value` or `key: value` of a configuration file.
fn judge_line(line: &str) -> Option<Problem> {
    let line = line.trim();
    if line.starts_with('#') || line.starts_with("//") {
        return None;
    }
    let (key, value) = line.split_once(['=', ':']).unwrap_or(("", line));
    let trim = |text: &str| text.trim().trim_matches(|c| matches!(c, '"' | '\'' | ',')).to_owned();
    let key = trim(key).replace(['-', '.'], "_").to_ascii_uppercase();
    if has_password(line) { Some(Problem::UrlWithPassword) } else { judge(&key, &trim(value)) }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_WORDS.iter().any(|word| {
        name == *word || name.strip_suffix(word).is_some_and(|front| front.ends_with('_') || *word != "PWD")
    })
}

fn is_bracketed(value: &str) -> bool {
    value.len() > 2 && value.starts_with('<') && value.ends_with('>') && !value.contains(' ')
}

fn is_placeholder(value: &str) -> bool {
    let lower = value.trim().to_ascii_lowercase();
    is_bracketed(&lower) || PLACEHOLDERS.contains(&lower.as_str()) || lower.chars().all(|c| c == '*' || c == 'x')
}

/// `scheme://user:password@host`, where the password is no reference.
fn has_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#', ' ', '"', '\'']).next().unwrap_or(rest);
    let Some((user, _)) = authority.rsplit_once('@') else { return false };
    user.split_once(':')
        .is_some_and(|(_, password)| !password.is_empty() && !password.starts_with('$') && !is_bracketed(password))
}

fn looks_random(value: &str) -> bool {
    let token = value.len() >= MIN_RANDOM
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-'));
    let mixed = value.chars().any(|c| c.is_ascii_digit()) && value.chars().any(|c| c.is_ascii_alphabetic());
    // Words joined by separators are names, not keys.
    let wordy = value.split(['-', '_', '/']).filter(|part| part.len() < 12).count() > 2;
    token && mixed && !wordy && entropy(value) >= MIN_ENTROPY
}

/// Shannon's entropy in bits for each character.
fn entropy(text: &str) -> f64 {
    let mut counts: BTreeMap<char, u32> = BTreeMap::new();
    text.chars().for_each(|c| *counts.entry(c).or_default() += 1);
    let total = f64::from(counts.values().sum::<u32>());
    counts.values().map(|count| f64::from(*count) / total).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::{Problem, judge, judge_line};

    #[track_caller]
    fn check(name: &str, value: &str, expected: Option<Problem>) {
        assert_eq!(judge(name, value), expected, "{name}={value}");
    }

    #[test]
    fn names_of_secrets_give_them_away() {
        check("DB_PASSWORD", "hunter2", Some(Problem::Secret));
        check("STRIPE_API_KEY", "live-1", Some(Problem::Secret));
        check("PASSWORD_MIN_LENGTH", "12", None);
        check("TOKEN_TTL", "15m", None);
        check("CWD", "here", None);
        check("REQUIRE_TOKEN", "true", None);
        check("TLS_PRIVATE_KEY", "/etc/tls/key.pem", None);
    }

    #[test]
    fn urls_with_a_password_are_found_under_any_name() {
        check("DATABASE_URL", "postgres://app:s3cret@db:5432/app", Some(Problem::UrlWithPassword));
        check("DATABASE_URL", "postgres://app:$(DB_PASSWORD)@db:5432/app", None);
        check("DATABASE_URL", "postgres://app@db:5432/app", None);
        check("MAIL", "someone@example.org", None);
    }

    #[test]
    fn placeholders_are_no_secrets_but_no_better() {
        check("ANYTHING", "<base64-encoded>", Some(Problem::Placeholder));
        check("DB_PASSWORD", "changeme", Some(Problem::Placeholder));
        check("GREETING", "todo", None);
    }

    #[test]
    fn random_values_are_suspicious_and_names_are_not() {
        check("SEED", "q8Zr3vX0pLm7Tn2sYb5Kc9Wd", Some(Problem::LooksRandom));
        check("HOST", "inventory-ledger-primary-1-eu-west", None);
        check("TOPIC", "inventory.changed.v1.production.eu", None);
    }

    #[test]
    fn configuration_is_read_line_by_line() {
        assert_eq!(judge_line("  db.password = hunter2"), Some(Problem::Secret));
        assert_eq!(judge_line("# db.password = hunter2"), None);
        assert_eq!(judge_line("url: \"amqp://guest:guest@broker:5672\""), Some(Problem::UrlWithPassword));
        assert_eq!(judge_line("-----BEGIN RSA PRIVATE KEY-----"), Some(Problem::PrivateKey));
        assert_eq!(judge_line("listen: 8080"), None);
    }
}
