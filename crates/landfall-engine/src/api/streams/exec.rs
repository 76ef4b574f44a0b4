//! Commands in containers, and attaching to their processes.
//!
//! Over WebSocket the first byte of a message names its channel (`v4.channel.k8s.io`, and `v5.channel.k8s.io`, which can
//! close one of them); over SPDY, which `kubectl` before 1.31 speaks, each channel is a stream.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::request::Parts;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::refusal;
use super::spdy;
use super::upgrade::{self, FAREWELL, Upgrade};
use crate::api::Call;
use crate::api::failure::Failure;
use crate::api::node_agent::{Command, ContainerRef, Input, NodeAgent, Output, Session};

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Says, in the fifth version, which channel the client has closed.
const CLOSE: u8 = 255;

/// How long a client may take to open its streams: as long as the kubelet gives it.
const OPENING: Duration = Duration::from_secs(30);

pub(super) async fn serve(
    call: &Call<'_>,
    parts: &Parts,
    container: ContainerRef,
    agent: &dyn NodeAgent,
) -> Result<Response, Failure> {
    let query = call.query;
    let attach = call.target.subresource == "attach";
    let command = Command {
        argv: (!attach).then(|| query.all("command").map(str::to_owned).collect()),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
    };
    if command.argv.as_ref().is_some_and(Vec::is_empty) {
        return Err(Failure::bad_request("you must specify at least one command for the container"));
    }
    let upgrade = Upgrade::of(parts, V4).await?;
    let streams = Streams::of(&command);
    let session = agent.exec(container, command).await.map_err(refusal)?;
    let stop = call.state.stop.clone();
    Ok(match upgrade {
        Upgrade::WebSocket(upgrade) => {
            let tracked = call.state.streams.token();
            upgrade.protocols([V5, V4]).on_upgrade(move |socket| async move {
                over_channels(socket, session, stop).await;
                drop(tracked);
            })
        }
        Upgrade::Spdy(upgrade) => {
            upgrade.on_upgrade(call.state, move |transport| over_spdy(transport, session, streams, stop))
        }
    })
}

/// Carries a command's streams until it has ended or the client has gone.
async fn over_channels(mut socket: WebSocket, session: Session, stop: CancellationToken) {
    let Session { input, mut output } = session;
    let mut input = Some(input);
    loop {
        // Every arm may be dropped half-way: a message is received whole or not at all.
        tokio::select! {
            () = stop.cancelled() => break,
            said = output.recv() => match said {
                Some(Output::Stdout(bytes)) => if !say(&mut socket, STDOUT, &bytes).await { break },
                Some(Output::Stderr(bytes)) => if !say(&mut socket, STDERR, &bytes).await { break },
                Some(Output::Ended(result)) => {
                    say(&mut socket, ERROR, ending(&result).to_string().as_bytes()).await;
                    break;
                }
                None => break,
            },
            heard = socket.recv() => {
                let Some(Ok(message)) = heard else { break };
                let understood = match &message {
                    Message::Binary(bytes) => hear(bytes),
                    Message::Close(_) => break,
                    _ => None,
                };
                if let Some(understood) = understood
                    && let Some(sender) = &input
                    && sender.send(understood).await.is_err()
                {
                    // The command reads no more; it may still speak.
                    input = None;
                }
            }
        }
    }
    upgrade::close(socket).await;
}

async fn say(socket: &mut WebSocket, channel: u8, bytes: &[u8]) -> bool {
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(channel);
    message.put(bytes);
    socket.send(Message::Binary(message.freeze())).await.is_ok()
}

fn hear(message: &Bytes) -> Option<Input> {
    match *message.first()? {
        STDIN => Some(Input::Stdin(message.slice(1..))),
        RESIZE => size(&message[1..]),
        CLOSE if message.get(1) == Some(&STDIN) => Some(Input::CloseStdin),
        _ => None,
    }
}

/// The size of the client's terminal.
fn size(text: &[u8]) -> Option<Input> {
    let size: Value = serde_json::from_slice(text).ok()?;
    let number = |key: &str| size[key].as_u64().and_then(|number| u16::try_from(number).ok());
    Some(Input::Resize { columns: number("Width")?, rows: number("Height")? })
}

/// The last message of a command: how it has ended.
fn ending(result: &Result<i32, String>) -> Value {
    match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(message) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500,
        }),
    }
}

/// The streams that a client opens for a command.
#[derive(Debug, Clone, Copy)]
struct Streams(usize);

impl Streams {
    /// One for how it ends, one for each that is asked for; a terminal has one for its size, and none for errors.
    fn of(command: &Command) -> Self {
        let asked = [command.stdin, command.stdout, command.stderr && !command.tty, command.tty];
        Self(1 + asked.into_iter().filter(|asked| *asked).count())
    }
}

async fn over_spdy<T>(transport: T, session: Session, streams: Streams, stop: CancellationToken)
where
    T: AsyncRead + AsyncWrite,
{
    let (sender, opened) = mpsc::channel(8);
    let mut serving = pin!(spdy::serve(transport, sender));
    tokio::select! {
        () = stop.cancelled() => return,
        // The client has gone, for whatever reason.
        _ = &mut serving => return,
        () = talk(session, streams, opened) => {}
    }
    // The client reads what is left, and closes the connection.
    drop(tokio::time::timeout(FAREWELL, serving).await);
}

async fn talk(session: Session, Streams(expected): Streams, mut opened: mpsc::Receiver<spdy::Stream>) {
    let mut streams = HashMap::new();
    let opening = async {
        while streams.len() < expected {
            let Some(stream) = opened.recv().await else { return };
            streams.insert(stream.headers.get("streamtype").cloned().unwrap_or_default(), stream);
        }
    };
    // A client that opens too few of them gets what it has opened.
    drop(tokio::time::timeout(OPENING, opening).await);

    let Session { input, mut output } = session;
    let (stdin, resize) = (streams.remove("stdin"), streams.remove("resize"));
    let outputs: Vec<_> =
        stdin.iter().chain(&resize).chain(streams.values()).map(|stream| stream.output.clone()).collect();
    let listening = async {
        tokio::join!(read_stdin(stdin, &input), read_sizes(resize, &input));
        // What the client has to say is said; the command goes on.
        std::future::pending::<()>().await;
    };
    let speaking = async {
        while let Some(said) = output.recv().await {
            let (name, bytes) = match said {
                Output::Stdout(bytes) => ("stdout", bytes),
                Output::Stderr(bytes) => ("stderr", bytes),
                Output::Ended(result) => ("error", Bytes::from(ending(&result).to_string())),
            };
            if let Some(stream) = streams.get(name) {
                stream.output.say(bytes).await;
            }
        }
    };
    tokio::select! {
        () = speaking => {}
        () = listening => {}
    }
    for output in outputs {
        output.finish().await;
    }
}

async fn read_stdin(stream: Option<spdy::Stream>, input: &mpsc::Sender<Input>) {
    let Some(mut stream) = stream else { return };
    while let Some(bytes) = stream.input.recv().await {
        if input.send(Input::Stdin(bytes)).await.is_err() {
            return;
        }
    }
    // A command that reads no more need not know that nothing more comes.
    drop(input.send(Input::CloseStdin).await);
}

async fn read_sizes(stream: Option<spdy::Stream>, input: &mpsc::Sender<Input>) {
    let Some(mut stream) = stream else { return };
    let mut text = BytesMut::new();
    while let Some(bytes) = stream.input.recv().await {
        text.put(bytes);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            if let Some(size) = size(&text.split_to(end + 1))
                && input.send(size).await.is_err()
            {
                return;
            }
        }
    }
}
