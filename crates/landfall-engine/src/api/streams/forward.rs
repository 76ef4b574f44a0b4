//! Ports of pods, forwarded to clients.
//!
//! `kubectl` speaks SPDY: since 1.31 inside a WebSocket, before that as it is. It opens two streams for each connection,
//! one for its data and one for what goes wrong. Other clients speak WebSocket with one byte that names the channel.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use http::request::Parts;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::spdy;
use super::upgrade::{self, Upgrade, goodbye};
use crate::api::Call;
use crate::api::failure::Failure;
use crate::api::node_agent::{Connection, NodeAgent, PodRef};
use crate::tasks;

/// Above SPDY.
const STREAMS: &str = "portforward.k8s.io";
/// SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Channels of a WebSocket.
const CHANNELS: &str = "v4.channel.k8s.io";

/// How much of a forwarded port is read at once.
const PIECE: usize = 32 * 1024;

/// How much of a tunnel may be under way.
const TUNNELED: usize = 64 * 1024;

pub(super) async fn serve(
    call: &Call<'_>,
    parts: &Parts,
    pod: PodRef,
    agent: Arc<dyn NodeAgent>,
) -> Result<Response, Failure> {
    let stop = call.state.stop.clone();
    let upgrade = match Upgrade::of(parts, STREAMS).await? {
        Upgrade::Spdy(upgrade) => {
            return Ok(upgrade.on_upgrade(call.state, move |transport| over_streams(transport, agent, pod, stop)));
        }
        Upgrade::WebSocket(upgrade) => upgrade.protocols([TUNNEL, CHANNELS]),
    };
    let tracked = call.state.streams.token();
    if upgrade.selected_protocol().is_some_and(|protocol| protocol == TUNNEL) {
        return Ok(upgrade.on_upgrade(move |socket| async move {
            let (near, far) = tokio::io::duplex(TUNNELED);
            tokio::join!(tunnel(socket, near), over_streams(far, agent, pod, stop));
            drop(tracked);
        }));
    }
    let ports: Option<Vec<u16>> = call
        .query
        .all("ports")
        .flat_map(|ports| ports.split(','))
        .map(|port| port.parse().ok().filter(|port| *port > 0))
        .collect();
    let ports = ports.filter(|ports| !ports.is_empty());
    let ports = ports.ok_or_else(|| Failure::bad_request("query parameter \"ports\" is required"))?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        over_channels(socket, agent, pod, ports, stop).await;
        drop(tracked);
    }))
}

/// Carries bytes between the messages of a WebSocket and a connection, until either ends.
async fn tunnel(socket: WebSocket, connection: DuplexStream) {
    let (mut sender, mut receiver) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(connection);
    let inward = async {
        while let Some(Ok(message)) = receiver.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                _ => continue,
            };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let outward = async {
        let mut buffer = BytesMut::with_capacity(PIECE);
        while reader.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
            if sender.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                break;
            }
            buffer.reserve(PIECE);
        }
        // A client that has gone already is not told so.
        drop(sender.send(goodbye()).await);
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

/// Carries the connections that a client opens, until it has gone.
async fn over_streams<T>(transport: T, agent: Arc<dyn NodeAgent>, pod: PodRef, stop: CancellationToken)
where
    T: AsyncRead + AsyncWrite,
{
    let (sender, mut opened) = mpsc::channel(8);
    let mut serving = pin!(spdy::serve(transport, sender));
    // Streams whose other half is not there yet, by the number that the client has given to both.
    let mut halves: HashMap<String, spdy::Stream> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        // Every arm may be dropped half-way: a stream is received whole or not at all, and `serving` goes on.
        tokio::select! {
            () = stop.cancelled() => break,
            _ = &mut serving => break,
            Some(stream) = opened.recv() => {
                let request = stream.headers.get("requestid").cloned().unwrap_or_default();
                let Some(other) = halves.remove(&request) else {
                    halves.insert(request, stream);
                    continue;
                };
                let is_error = |stream: &spdy::Stream| stream.headers.get("streamtype").is_some_and(|kind| kind == "error");
                let (error, data) = if is_error(&stream) { (stream, other) } else { (other, stream) };
                connections.spawn(connect(Arc::clone(&agent), pod.clone(), error, data));
            }
            Some(ended) = connections.join_next() => { tasks::result(ended); }
        }
    }
    connections.shutdown().await;
}

/// One connection to a port: ends when the pod has no more to say, or the client wants no more.
async fn connect(agent: Arc<dyn NodeAgent>, pod: PodRef, error: spdy::Stream, mut data: spdy::Stream) {
    let port = data.headers.get("port").map_or("", String::as_str).to_owned();
    let connection = match port.parse() {
        Ok(port) if port > 0 => agent.connect(pod.clone(), port).await.map_err(|error| error.to_string()),
        _ => Err("it is no port".to_owned()),
    };
    match connection {
        Ok(connection) => {
            let (mut reader, mut writer) = tokio::io::split(connection);
            let inward = async {
                while let Some(bytes) = data.input.recv().await {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                // A pod that has closed its end need not be told.
                drop(writer.shutdown().await);
            };
            let outward = async {
                let mut buffer = BytesMut::with_capacity(PIECE);
                // An error ends the connection as its end does: the client sees that nothing more comes.
                while reader.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                    if !data.output.say(buffer.split().freeze()).await {
                        break;
                    }
                    buffer.reserve(PIECE);
                }
            };
            let inward = async {
                inward.await;
                // The pod may still answer.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = data.reset.cancelled() => {}
                () = inward => {}
                () = outward => {}
            }
        }
        Err(why) => {
            let message = format!("error forwarding port {port} to pod {}, uid {}: {why}", pod.name, pod.uid);
            error.output.say(message.into()).await;
        }
    }
    data.output.finish().await;
    error.output.finish().await;
}

/// Carries the connections to some ports: port number `i` has channel `2i` for its data and `2i + 1` for its errors.
async fn over_channels(
    mut socket: WebSocket,
    agent: Arc<dyn NodeAgent>,
    pod: PodRef,
    ports: Vec<u16>,
    stop: CancellationToken,
) {
    let (said, mut saying) = mpsc::channel::<(u8, Bytes)>(16);
    let mut writers: Vec<Option<WriteHalf<Box<dyn Connection>>>> = Vec::new();
    let mut readers = JoinSet::new();
    for (index, port) in ports.iter().enumerate() {
        let Ok(channel) = u8::try_from(index * 2) else { break };
        for channel in [channel, channel + 1] {
            say(&mut socket, channel, &port.to_le_bytes()).await;
        }
        match agent.connect(pod.clone(), *port).await {
            Ok(connection) => {
                let (reader, writer) = tokio::io::split(connection);
                readers.spawn(read_port(reader, channel, said.clone()));
                writers.push(Some(writer));
            }
            Err(error) => {
                say(&mut socket, channel + 1, error.to_string().as_bytes()).await;
                writers.push(None);
            }
        }
    }
    drop(said);
    loop {
        // Every arm may be dropped half-way: a message is received whole or not at all.
        tokio::select! {
            () = stop.cancelled() => break,
            piece = saying.recv() => match piece {
                Some((channel, bytes)) => if !say(&mut socket, channel, &bytes).await { break },
                None => break,
            },
            heard = socket.recv() => {
                let Some(Ok(message)) = heard else { break };
                let Message::Binary(bytes) = message else { continue };
                let Some(channel) = bytes.first().copied().filter(|channel| channel % 2 == 0) else { continue };
                let place = writers.get_mut(usize::from(channel / 2));
                if let Some(place) = place
                    && let Some(writer) = place
                    && writer.write_all(&bytes[1..]).await.is_err()
                {
                    *place = None;
                }
            }
        }
    }
    readers.shutdown().await;
    upgrade::close(socket).await;
}

async fn read_port(mut reader: ReadHalf<Box<dyn Connection>>, channel: u8, said: mpsc::Sender<(u8, Bytes)>) {
    let mut buffer = BytesMut::with_capacity(PIECE);
    // An error ends the connection as its end does: the client sees that nothing more comes.
    while reader.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
        if said.send((channel, buffer.split().freeze())).await.is_err() {
            break;
        }
        buffer.reserve(PIECE);
    }
}

async fn say(socket: &mut WebSocket, channel: u8, bytes: &[u8]) -> bool {
    let message = Bytes::from([&[channel], bytes].concat());
    socket.send(Message::Binary(message)).await.is_ok()
}
