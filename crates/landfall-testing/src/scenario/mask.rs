//! Replaces what differs from run to run by symbols: times, uids, versions, generated names, addresses, tokens.
//!
//! The same value has the same symbol everywhere in a scenario, so that what belongs together is still seen. What the
//! script writes itself stays: a time or an address that was asked for must come back as it was.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Keys whose value is a hash of a template, and part of generated names.
const HASH_LABELS: [&str; 3] = ["pod-template-hash", "controller-revision-hash", "controller.kubernetes.io/hash"];

/// The volume that every pod gets, and a random suffix.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// What stands before a revision inside a text: an object quoted in a message, and how old a watch may be.
const REVISION_MARKERS: [&str; 2] = ["\"resourceVersion\\\":\\\"", "too old resource version: 1 ("];

/// Which values are masked, learnt from all answers of a scenario before any of them is written.
pub(crate) struct Masks<'a> {
    /// The script's text.
    source: &'a str,
    /// The random namespace of this run.
    namespace: &'a str,
    /// Names made by `generateName`, each with its prefix.
    generated: BTreeMap<String, String>,
    hashes: BTreeSet<String>,
    /// By uid: the versions of that object that were seen.
    versions: BTreeMap<String, BTreeSet<u64>>,
    /// Numbers of symbols, by kind and value, in the order of first appearance in what is written.
    symbols: BTreeMap<(&'static str, String), usize>,
    /// While false every symbol has the same number: for sorting.
    numbered: bool,
    keep_managed_fields: bool,
}

impl<'a> Masks<'a> {
    pub(crate) fn new(source: &'a str, namespace: &'a str, keep_managed_fields: bool) -> Self {
        Self {
            source,
            namespace,
            generated: BTreeMap::new(),
            hashes: BTreeSet::new(),
            versions: BTreeMap::new(),
            symbols: BTreeMap::new(),
            numbered: true,
            keep_managed_fields,
        }
    }

    /// Learns from a whole answer, also from what is not recorded of it.
    pub(crate) fn learn(&mut self, value: &Value) {
        match value {
            Value::Array(list) => list.iter().for_each(|element| self.learn(element)),
            Value::Object(map) => {
                let text = |key: &str| map.get(key).and_then(Value::as_str);
                if let (Some(prefix), Some(name)) = (text("generateName"), text("name"))
                    && name.starts_with(prefix)
                    && !self.source.contains(name)
                {
                    self.generated.insert(name.to_owned(), prefix.to_owned());
                }
                if let Some(volume) = text("name").filter(|name| name.starts_with(TOKEN_VOLUME)) {
                    self.generated.insert(volume.to_owned(), TOKEN_VOLUME.to_owned());
                }
                if let (Some(uid), Some(Ok(version))) = (text("uid"), text("resourceVersion").map(str::parse)) {
                    self.versions.entry(uid.to_owned()).or_default().insert(version);
                }
                self.hashes.extend(HASH_LABELS.into_iter().filter_map(text).map(str::to_owned));
                map.values().for_each(|element| self.learn(element));
            }
            _ => {}
        }
    }

    /// The masked value, keys in order.
    pub(crate) fn apply(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(list) => list.iter().map(|element| self.apply(element)).collect(),
            Value::Object(map) => self.object(map),
            other => other.clone(),
        }
    }

    /// Something to sort by that does not depend on what the values happened to be.
    pub(crate) fn sort_key(&mut self, value: &Value) -> String {
        self.numbered = false;
        let key = self.apply(value).to_string();
        self.numbered = true;
        key
    }

    fn object(&mut self, map: &Map<String, Value>) -> Value {
        let uid = map.get("uid").and_then(Value::as_str);
        let sorted: BTreeMap<_, _> = map.iter().collect();
        let mut masked = Map::new();
        for (key, value) in sorted {
            if key == "managedFields" && !self.keep_managed_fields {
                continue;
            }
            let value = match (key.as_str(), value) {
                ("resourceVersion", Value::String(version)) if !version.is_empty() && version != "0" => {
                    self.version(uid, version).into()
                }
                ("continue", Value::String(token)) if !token.is_empty() => Value::from("<continue>"),
                ("nodePort" | "healthCheckNodePort", Value::Number(port)) if self.is_foreign(&port.to_string()) => {
                    self.symbol("port", &port.to_string()).into()
                }
                (_, value) => self.apply(value),
            };
            masked.insert(self.text(key), value);
        }
        Value::Object(masked)
    }

    /// An object's version is its place among those that were seen of this object; a list's says nothing, as others
    /// write at the same time.
    fn version(&self, uid: Option<&str>, version: &str) -> String {
        let rank = uid.and_then(|uid| self.versions.get(uid)).and_then(|seen| {
            let version: u64 = version.parse().ok()?;
            seen.iter().position(|other| *other == version)
        });
        rank.map_or_else(|| "<revision>".to_owned(), |rank| format!("<version-{}>", rank + 1))
    }

    fn text(&mut self, text: &str) -> String {
        let mut text = text.replace(self.namespace, "<namespace>");
        // Longest first: the name of a pod holds that of its replica set.
        let mut generated: Vec<_> = self
            .generated
            .iter()
            .filter(|(name, _)| text.contains(name.as_str()))
            .map(|(n, p)| (n.clone(), p.clone()))
            .collect();
        generated.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, prefix) in generated {
            let symbol = format!("{prefix}{}", self.symbol("generated", &name));
            text = text.replace(&name, &symbol);
        }
        // Shortest first: some labels hold a hash behind the name of its owner, which is to be seen.
        let mut hashes: Vec<_> = self.hashes.iter().filter(|hash| text.contains(hash.as_str())).cloned().collect();
        hashes.sort_by_key(String::len);
        for hash in hashes {
            if text.contains(&hash) {
                let symbol = self.symbol("hash", &hash);
                text = text.replace(&hash, &symbol);
            }
        }
        let mut masked = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find(is_token) {
            let length = rest[start..].find(|letter| !is_token(letter)).unwrap_or(rest.len() - start);
            masked += &rest[..start];
            masked += &self.token(&rest[start..start + length]);
            rest = &rest[start + length..];
        }
        masked += rest;
        for marker in REVISION_MARKERS {
            masked = mask_digits_after(&masked, marker);
        }
        masked
    }

    /// Masks a run of letters, digits and the signs that times, uids and addresses have.
    fn token(&mut self, token: &str) -> String {
        let bare = token.trim_end_matches(['.', ':', '-']);
        let tail = &token[bare.len()..];
        if is_time(bare) && self.is_foreign(bare) {
            return format!("<{}>{tail}", if bare.contains('.') { "microtime" } else { "time" });
        }
        if bare.starts_with("eyJ") && bare.matches('.').count() == 2 {
            return format!("<token>{tail}");
        }
        let pieces: Vec<_> = bare.split(':').map(|piece| self.piece(piece)).collect();
        pieces.join(":") + tail
    }

    fn piece(&mut self, piece: &str) -> String {
        if is_address(piece) && self.is_foreign(piece) {
            return self.symbol("ip", piece);
        }
        // A uid may be a part of a name.
        let start = (0..piece.len().saturating_sub(35)).find(|start| piece.get(*start..start + 36).is_some_and(is_uid));
        match start {
            Some(start) if self.is_foreign(&piece[start..start + 36]) => {
                let symbol = self.symbol("uid", &piece[start..start + 36]);
                format!("{}{symbol}{}", &piece[..start], &piece[start + 36..])
            }
            _ => piece.to_owned(),
        }
    }

    /// Whether the script does not write this itself.
    fn is_foreign(&self, text: &str) -> bool {
        !self.source.contains(text)
    }

    fn symbol(&mut self, kind: &'static str, value: &str) -> String {
        if !self.numbered {
            return format!("<{kind}>");
        }
        let next = self.symbols.keys().filter(|(of, _)| *of == kind).count() + 1;
        let number = *self.symbols.entry((kind, value.to_owned())).or_insert(next);
        format!("<{kind}-{number}>")
    }
}

fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, ':' | '.' | '-' | '+' | '_')
}

fn mask_digits_after(text: &str, marker: &str) -> String {
    let mut pieces = text.split(marker);
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |masked, piece| {
        let rest = piece.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let revision = if rest.len() < piece.len() { "<revision>" } else { "" };
        masked + marker + revision + rest
    })
}

/// `2026-01-31T10:00:00Z`, with or without a fraction or an offset.
fn is_time(text: &str) -> bool {
    matches_form(text, "dddd-dd-ddTdd:dd:dd") && (text.ends_with('Z') || text.len() > 19)
}

fn is_uid(text: &str) -> bool {
    matches_form(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
}

fn is_address(text: &str) -> bool {
    text.split('.').count() == 4 && text.split('.').all(|part| part.len() <= 3 && part.parse::<u8>().is_ok())
}

/// Whether a text begins like a form: `d` is a digit, `x` a hexadecimal one, everything else is itself.
fn matches_form(text: &str, form: &str) -> bool {
    text.len() >= form.len()
        && text.bytes().zip(form.bytes()).all(|(letter, wanted)| match wanted {
            b'd' => letter.is_ascii_digit(),
            b'x' => letter.is_ascii_hexdigit(),
            wanted => letter == wanted,
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(input: &Value, expected: &Value) {
        let mut masks = Masks::new("asked: 2020-01-01T00:00:00Z, 10.96.0.9", "conf-abc", false);
        masks.learn(input);
        assert_eq!(&masks.apply(input), expected);
    }

    #[test]
    fn the_same_uid_has_the_same_symbol_also_inside_texts() {
        let (one, two) = ("3b9d3b0e-93a5-4b4b-8b1c-0f5f2c1d7a11", "4b9d3b0e-93a5-4b4b-8b1c-0f5f2c1d7a11");
        check(
            &json!({"uid": one, "message": format!("not {two}, {one}: pvc-{one}")}),
            &json!({"message": "not <uid-1>, <uid-2>: pvc-<uid-2>", "uid": "<uid-2>"}),
        );
    }

    #[test]
    fn what_the_script_asks_for_stays() {
        check(
            &json!([
                "2020-01-01T00:00:00Z",
                "2026-01-01T00:00:00Z",
                "10.96.0.9",
                "10.96.0.10:80",
                "2026-01-01T00:00:00.123456Z"
            ]),
            &json!(["2020-01-01T00:00:00Z", "<time>", "10.96.0.9", "<ip-1>:80", "<microtime>"]),
        );
    }

    #[test]
    fn versions_are_ranked_by_object() {
        let uid = "3b9d3b0e-93a5-4b4b-8b1c-0f5f2c1d7a11";
        check(
            &json!([{"uid": uid, "resourceVersion": "90"}, {"uid": uid, "resourceVersion": "100"}, {"resourceVersion": "7"}]),
            &json!([
                {"resourceVersion": "<version-1>", "uid": "<uid-1>"},
                {"resourceVersion": "<version-2>", "uid": "<uid-1>"},
                {"resourceVersion": "<revision>"},
            ]),
        );
    }

    #[test]
    fn generated_names_and_hashes_are_masked_wherever_they_appear() {
        check(
            &json!([
                {"generateName": "web-6f7c-", "name": "web-6f7c-x2x2x", "labels": {"pod-template-hash": "6f7c"}},
                "created pod: web-6f7c-x2x2x in conf-abc",
            ]),
            &json!([
                {"generateName": "web-<hash-1>-", "labels": {"pod-template-hash": "<hash-1>"}, "name": "web-<hash-1>-<generated-1>"},
                "created pod: web-<hash-1>-<generated-1> in <namespace>",
            ]),
        );
    }

    #[test]
    fn a_hash_behind_the_name_of_its_owner_leaves_the_name_to_be_seen() {
        check(
            &json!([
                {"labels": {"controller-revision-hash": "db-x7d9"}},
                {"labels": {"controller.kubernetes.io/hash": "x7d9"}},
            ]),
            &json!([
                {"labels": {"controller-revision-hash": "db-<hash-1>"}},
                {"labels": {"controller.kubernetes.io/hash": "<hash-1>"}},
            ]),
        );
    }
}
