//! One attempt to tell somebody. Nothing is retried here; an error is a text without the URL, which may be a secret.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{Request, Uri};
use kube::client::Body;
use kube::{Client, Config};

use super::Message;

/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The header by which a receiver knows a message that it has had before.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Posts a message as JSON. What was answered, or why it was not taken: only an answer with 2xx is a receipt.
pub async fn post(url: &str, message: &Message) -> Result<String, String> {
    let sent = tokio::time::timeout(PATIENCE, send(url.trim(), message)).await;
    sent.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

async fn send(url: &str, message: &Message) -> Result<String, String> {
    let no_url = || "it is no URL".to_owned();
    let uri: Uri = url.parse().map_err(|_| no_url())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(no_url()) };
    let server: Uri = format!("{scheme}://{authority}/").parse().map_err(|_| no_url())?;
    let mut config = Config::new(server);
    // When it is tried again is decided elsewhere, and written down.
    config.default_retry = false;
    (config.connect_timeout, config.read_timeout) = (Some(PATIENCE), Some(PATIENCE));
    let client = Client::try_from(config).map_err(|error| innermost(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let body = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    let request = Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .header(IDEMPOTENCY_KEY, &message.id)
        .body(Body::from(body))
        .map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| innermost(&error))?;
    let status = answer.status();
    if status.is_success() { Ok(format!("HTTP {}", status.as_u16())) } else { Err(format!("HTTP {}", status.as_u16())) }
}

/// Adds a message to the end of a file, as a line of JSON that is on the disk when this returns.
pub fn append(file: &Path, message: &Message) -> Result<String, String> {
    let mut line = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let mut write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(file)?;
        // Whoever was killed in the middle of a line has left half of it: it must not take this one along.
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                line.insert(0, b'\n');
            }
        }
        file.write_all(&line)?;
        file.sync_data()
    };
    write().map(|()| "written".to_owned()).map_err(|error| error.to_string())
}

/// The cause of all causes: what the system said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
