//! Who gives jobs the token of their identity, as GitHub does: asked for an audience, with the job's own credential.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

/// The credential of a job.
pub(super) const CREDENTIAL: &str = "credential-of-the-job";

/// The address, and the thread that answers until it is asked to end.
pub(super) struct Issuer {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    /// Gives out these tokens, by audience.
    pub(super) fn start(tokens: BTreeMap<String, String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if !answer(stream, &tokens) {
                    return;
                }
            }
        });
        Self { address, thread: Some(thread) }
    }

    /// What a job asks; it adds the audience.
    pub(super) fn url(&self) -> String {
        format!("http://{}/token?api-version=2.0", self.address)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let asked = TcpStream::connect(self.address).and_then(|mut stream| stream.write_all(b"END / HTTP/1.1\r\n\r\n"));
        if let (Ok(()), Some(thread)) = (asked, self.thread.take()) {
            let _answered = thread.join();
        }
    }
}

/// Answers one request; whether to go on.
fn answer(mut stream: TcpStream, tokens: &BTreeMap<String, String>) -> bool {
    let Ok(reader) = stream.try_clone() else { return true };
    let lines = BufReader::new(reader).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(first) = lines.first() else { return true };
    let knows = lines.iter().any(|line| line.eq_ignore_ascii_case(&format!("authorization: bearer {CREDENTIAL}")));
    let audience =
        first.split(' ').nth(1).and_then(|path| path.rsplit_once("&audience=")).map(|(_, audience)| audience);
    let (status, body) = match audience.and_then(|audience| tokens.get(audience)) {
        Some(token) if knows => ("200 OK", serde_json::json!({ "value": token }).to_string()),
        _ => ("401 Unauthorized", "{}".to_owned()),
    };
    let length = body.len();
    let _gone = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    !first.starts_with("END ")
}
