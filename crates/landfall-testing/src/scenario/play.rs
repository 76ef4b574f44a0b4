//! Plays a scenario against a server: its namespace, its steps, its removal.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body as ClientBody;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use crate::scenario::endpoint::Endpoint;
use crate::scenario::path::Path;
use crate::scenario::script::{Action, Body, End, Identity, Scenario, Step};
use crate::scenario::transcript::{RawAnswer, Transcript};

/// How long one step may take. Generous, as the machine may be busy; nothing waits for it when all is well.
const DEADLINE: Duration = Duration::from_secs(30);

/// The pause between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(25);

/// Headers of an answer that are compared. A `Content-Type` of JSON is the rule and left out.
const HEADERS: [&str; 4] = ["content-type", "warning", "allow", "location"];

/// Plays the steps one after the other, whatever they answer.
///
/// `trace` is told every request and answer.
pub(crate) async fn play(
    scenario: &Scenario,
    endpoint: &Endpoint,
    namespace: &str,
    trace: &dyn Fn(&str),
) -> Transcript {
    let mut player = Player { endpoint, trace, variables: BTreeMap::new() };
    player.variables.insert("namespace".to_owned(), namespace.into());
    player.prepare(namespace).await;
    let mut answers = Vec::new();
    for step in &scenario.script.steps {
        trace(&format!("── {}", step.name));
        let answer = player
            .step(step)
            .await
            .unwrap_or_else(|failure| RawAnswer { failure: Some(failure), ..RawAnswer::default() });
        answers.push(player.keep(step, answer));
    }
    player.remove(scenario, namespace).await;
    Transcript::mask(scenario, namespace, &answers)
}

struct Player<'a> {
    endpoint: &'a Endpoint,
    trace: &'a dyn Fn(&str),
    variables: BTreeMap<String, Value>,
}

impl Player<'_> {
    /// Makes the namespace and waits for what Kubernetes puts into each. If that does not come the scenario shows it.
    async fn prepare(&self, namespace: &str) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string();
        let _ = self.exchange(&Identity::Administrator, "POST", "/api/v1/namespaces", &[], body.into_bytes()).await;
        let deadline = Instant::now() + DEADLINE / 3;
        for object in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
            let address = format!("/api/v1/namespaces/{namespace}/{object}");
            while Instant::now() < deadline {
                match self.exchange(&Identity::Administrator, "GET", &address, &[], Vec::new()).await {
                    Ok(answer) if answer.code == Some(200) => break,
                    _ => sleep(POLL).await,
                }
            }
        }
    }

    /// Removes what the scenario made. Nobody waits for it, and nothing else has these names.
    async fn remove(&self, scenario: &Scenario, namespace: &str) {
        let mut addresses: Vec<_> =
            scenario.script.cleanup.iter().filter_map(|path| self.substitute(path).ok()).collect();
        addresses.push(format!("/api/v1/namespaces/{namespace}"));
        for address in addresses {
            if let Err(error) = self.exchange(&Identity::Administrator, "DELETE", &address, &[], Vec::new()).await {
                (self.trace)(&format!("failed to remove {address}: {error}"));
            }
        }
    }

    async fn step(&self, step: &Step) -> Result<RawAnswer, String> {
        let identity = match &step.identity {
            Identity::Administrator => Identity::Administrator,
            Identity::Impersonated(user) => Identity::Impersonated(self.substitute(user)?),
            Identity::Bearer(token) => Identity::Bearer(self.substitute(token)?),
            Identity::Anonymous => Identity::Anonymous,
        };
        let mut headers = Vec::new();
        for (name, value) in &step.headers {
            headers.push((name.clone(), self.substitute(value)?));
        }
        match &step.action {
            Action::Request { method, address, body, until } => {
                let address = self.address(address, &step.query)?;
                let has = |name: &str| step.headers.keys().any(|key| key.eq_ignore_ascii_case(name));
                if matches!(body, Body::Json(_)) && !has("Content-Type") {
                    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
                }
                let body = match body {
                    Body::None => Vec::new(),
                    Body::Json(value) => self.fill(value)?.to_string().into_bytes(),
                    Body::Text(text) => self.substitute(text)?.into_bytes(),
                    Body::Bytes(bytes) => bytes.clone(),
                };
                self.request(&identity, method.as_str(), &address, &headers, body, until).await
            }
            Action::Watch { address, end } => {
                let mut query = step.query.clone();
                query.insert("watch".to_owned(), "true".to_owned());
                let address = self.address(address, &query)?;
                self.watch(&identity, &address, &headers, end).await
            }
        }
    }

    /// Asks until the answer is what the step waits for.
    async fn request(
        &self,
        identity: &Identity,
        method: &str,
        address: &str,
        headers: &[(String, String)],
        body: Vec<u8>,
        until: &BTreeMap<Path, Value>,
    ) -> Result<RawAnswer, String> {
        let mut wanted = BTreeMap::new();
        for (path, value) in until {
            wanted.insert(path.clone(), self.fill(value)?);
        }
        let deadline = Instant::now() + DEADLINE;
        let mut last = None;
        while let Ok(answer) =
            timeout_at(deadline, self.exchange(identity, method, address, headers, body.clone())).await
        {
            let answer = answer?;
            if unmet(&wanted, answer.body.as_ref().unwrap_or(&Value::Null)).is_none() {
                return Ok(answer);
            }
            last = Some(answer);
            sleep(POLL).await;
        }
        let mut answer = last.ok_or("no answer in time")?;
        answer.failure = unmet(&wanted, answer.body.as_ref().unwrap_or(&Value::Null))
            .map(|unmet| format!("waited in vain for {unmet}"));
        Ok(answer)
    }

    async fn exchange(
        &self,
        identity: &Identity,
        method: &str,
        address: &str,
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> Result<RawAnswer, String> {
        (self.trace)(&format!("{method} {address}\n{}", brief(&String::from_utf8_lossy(&body))));
        let response = self.send(identity, method, address, headers, body).await?;
        let (code, headers) = (response.status().as_u16(), answer_headers(response.headers()));
        let bytes = response.into_body().collect().await.map_err(|error| describe(&error))?.to_bytes();
        (self.trace)(&format!("{code} {}", brief(&String::from_utf8_lossy(&bytes))));
        let body = (!bytes.is_empty()).then(|| {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
        });
        Ok(RawAnswer { code: Some(code), headers, body, ..RawAnswer::default() })
    }

    async fn send(
        &self,
        identity: &Identity,
        method: &str,
        address: &str,
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> Result<http::Response<ClientBody>, String> {
        let mut request = Request::builder().method(method).uri(address);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(ClientBody::from(body)).map_err(|error| describe(&error))?;
        self.endpoint.send(identity, request).await.map_err(|error| describe(&error))
    }

    async fn watch(
        &self,
        identity: &Identity,
        address: &str,
        headers: &[(String, String)],
        end: &End,
    ) -> Result<RawAnswer, String> {
        (self.trace)(&format!("WATCH {address}"));
        let deadline = Instant::now() + DEADLINE;
        let response = self.send(identity, "GET", address, headers, Vec::new()).await?;
        let mut answer = RawAnswer {
            code: Some(response.status().as_u16()),
            headers: answer_headers(response.headers()),
            ..RawAnswer::default()
        };
        if !response.status().is_success() {
            let bytes = response.into_body().collect().await.map_err(|error| describe(&error))?.to_bytes();
            answer.body = serde_json::from_slice(&bytes).ok();
            return Ok(answer);
        }
        let until = match end {
            End::Until(until) => until
                .iter()
                .map(|(path, value)| Ok((path.clone(), self.fill(value)?)))
                .collect::<Result<_, String>>()?,
            End::Events(_) | End::Closed => BTreeMap::new(),
        };
        let stream = response.into_body().into_data_stream().map_err(std::io::Error::other);
        let mut lines = stream.into_async_read().lines();
        let mut events: Vec<Value> = Vec::new();
        let done = |events: &[Value]| match end {
            End::Events(count) => events.len() >= *count,
            End::Until(_) => events.last().is_some_and(|event| unmet(&until, event).is_none()),
            End::Closed => false,
        };
        while !done(&events) {
            match timeout_at(deadline, lines.next()).await {
                Ok(Some(Ok(line))) => {
                    (self.trace)(&brief(&line));
                    events.push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
                }
                Ok(Some(Err(error))) => {
                    answer.failure = Some(describe(&error));
                    break;
                }
                Ok(None) => {
                    if !matches!(end, End::Closed) {
                        answer.failure = Some("the server ended the watch".to_owned());
                    }
                    break;
                }
                Err(_) => {
                    answer.failure = Some("waited in vain for an event".to_owned());
                    break;
                }
            }
        }
        answer.events = Some(events);
        Ok(answer)
    }

    /// Takes the variables of a step from its answer.
    fn keep(&mut self, step: &Step, mut answer: RawAnswer) -> RawAnswer {
        let last = answer.events.as_ref().and_then(|events| events.last()).or(answer.body.as_ref());
        let last = last.unwrap_or(&Value::Null);
        for (name, path) in &step.keep {
            match path.of(last) {
                Value::Null => {
                    let missing = format!("there is no `{path}` for `{name}` in the answer");
                    answer.failure.get_or_insert(missing);
                }
                value => {
                    self.variables.insert(name.clone(), value);
                }
            }
        }
        answer
    }

    fn address(&self, address: &str, query: &BTreeMap<String, String>) -> Result<String, String> {
        let mut address = self.substitute(address)?;
        for (name, value) in query {
            let separator = if address.contains('?') { '&' } else { '?' };
            address = format!("{address}{separator}{name}={}", percent_encode(&self.substitute(value)?));
        }
        Ok(address)
    }

    /// Replaces variables in every text of a value. A text that is nothing but a variable becomes its value.
    fn fill(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => {
                let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
                match whole.and_then(|name| self.variables.get(name)) {
                    Some(value) => value.clone(),
                    None => self.substitute(text)?.into(),
                }
            }
            Value::Array(list) => list.iter().map(|element| self.fill(element)).collect::<Result<_, _>>()?,
            Value::Object(map) => {
                let entries = map.iter().map(|(key, value)| Ok((self.substitute(key)?, self.fill(value)?)));
                Value::Object(entries.collect::<Result<_, String>>()?)
            }
            other => other.clone(),
        })
    }

    /// Replaces `${name}` by a variable and `${filler 100}` by so many letters.
    fn substitute(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("a `${{` without its `}}` in `{text}`"))?;
            filled += before;
            match (self.variables.get(name), name.strip_prefix("filler ").map(str::parse)) {
                (Some(Value::String(value)), _) => filled += value,
                (Some(value), _) => filled += &value.to_string(),
                (None, Some(Ok(count))) => filled += &"x".repeat(count),
                _ => return Err(format!("there is no variable `{name}`")),
            }
            rest = after;
        }
        Ok(filled + rest)
    }
}

/// The first condition that does not hold.
fn unmet(wanted: &BTreeMap<Path, Value>, answer: &Value) -> Option<String> {
    wanted.iter().find_map(|(path, wanted)| {
        let found = path.of(answer);
        let holds = if wanted == "*" { !found.is_null() } else { found == *wanted };
        (!holds).then(|| format!("`{path}` to be {wanted}, it is {found}"))
    })
}

fn answer_headers(headers: &http::HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut compared = BTreeMap::new();
    for name in HEADERS {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        // What the engine says of itself: `docs/engine.md` lists every field that it ignores.
        let told = |value: &String| name == "warning" && value.contains(": accepted and ignored: ");
        let values: Vec<_> = values.filter(|value| value != "application/json" && !told(value)).collect();
        if !values.is_empty() {
            compared.insert(name.to_owned(), values);
        }
    }
    compared
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// An error with its causes.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The beginning of a text, enough to understand what went wrong.
fn brief(text: &str) -> String {
    const LENGTH: usize = 4_000;
    let mut end = text.len().min(LENGTH);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if end < text.len() { format!("{}… ({} bytes)", &text[..end], text.len()) } else { text.to_owned() }
}
