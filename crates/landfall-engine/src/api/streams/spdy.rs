//! The server's side of SPDY/3.1, as far as Kubernetes' clients speak it: streams that the client opens, with headers.
//!
//! Frames are laid out as in <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>. What is not needed
//! here is read over: windows (these clients send and expect none), priorities, settings, later headers.

mod headers;

use std::collections::HashMap;
use std::io;
use std::pin::pin;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) use self::headers::Headers;

/// With what a client asks for the protocol.
pub(super) const NAME: &str = "SPDY/3.1";

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// The flag of the last frame of one direction of a stream.
const FIN: u8 = 1;

/// How many frames, and how many pieces of a stream, may wait for the other side.
const BACKLOG: usize = 16;

/// The longest piece that is sent in one frame; a frame has room for 16 MiB.
const PIECE: usize = 1 << 20;

/// A stream that the client has opened.
pub(super) struct Stream {
    pub(super) headers: Headers,
    /// What the client says; it ends when the client has nothing more to say.
    pub(super) input: mpsc::Receiver<Bytes>,
    /// Cancelled when the client wants nothing more to do with the stream.
    pub(super) reset: CancellationToken,
    pub(super) output: Output,
}

/// What the client is told on a stream.
#[derive(Clone)]
pub(super) struct Output {
    id: u32,
    frames: mpsc::Sender<Frame>,
}

impl Output {
    /// False: the client is gone.
    pub(super) async fn say(&self, bytes: Bytes) -> bool {
        self.frames.send(Frame::Data { id: self.id, bytes, last: false }).await.is_ok()
    }

    /// Nothing more will be said.
    pub(super) async fn finish(&self) {
        // A client that has gone need not be told.
        drop(self.frames.send(Frame::Data { id: self.id, bytes: Bytes::new(), last: true }).await);
    }
}

/// What is sent.
enum Frame {
    Accept { id: u32 },
    Data { id: u32, bytes: Bytes, last: bool },
    Pong { id: u32 },
}

/// The part of an open stream that the connection keeps.
struct Open {
    /// None: the client has nothing more to say.
    input: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
}

/// Serves a connection until one side closes it. Streams are handed over in the order in which they were opened.
///
/// A stream whose reader is slow holds up the others: these clients know no windows by which to hold up only one.
pub(super) async fn serve<T>(transport: T, streams: mpsc::Sender<Stream>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite,
{
    let (mut reader, mut writer) = tokio::io::split(transport);
    let (frames, mut waiting) = mpsc::channel(BACKLOG);
    let hear = pin!(hear(&mut reader, &frames, &streams));
    let say = pin!(async {
        let mut headers = headers::Writer::new();
        while let Some(frame) = waiting.recv().await {
            writer.write_all(&frame.encode(&mut headers)?).await?;
            if waiting.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    });
    // Whichever ends first ends the connection; the other is of no use without it.
    tokio::select! {
        ended = hear => ended,
        ended = say => ended,
    }
}

async fn hear(
    reader: &mut (impl AsyncRead + Unpin),
    frames: &mpsc::Sender<Frame>,
    streams: &mpsc::Sender<Stream>,
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let mut headers = headers::Reader::new();
    let mut open: HashMap<u32, Open> = HashMap::new();
    loop {
        let first = match reader.read_u32().await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            first => first?,
        };
        let rest = reader.read_u32().await?;
        let (flags, length) = ((rest >> 24) as u8, (rest & 0x00ff_ffff) as usize);
        let mut body = BytesMut::zeroed(length);
        reader.read_exact(&mut body).await?;
        let mut body = body.freeze();
        let (version, kind) = ((first >> 16) as u16, (first & 0xffff) as u16);
        if version & CONTROL == 0 {
            let Some(stream) = open.get_mut(&first) else { continue };
            if let Some(input) = &stream.input
                && !body.is_empty()
                && input.send(body).await.is_err()
            {
                stream.input = None;
            }
            if flags & FIN != 0 {
                stream.input = None;
            }
            continue;
        }
        if version != CONTROL | VERSION {
            return Err(malformed("a frame of another version"));
        }
        match kind {
            SYN_STREAM => {
                if body.len() < 10 {
                    return Err(malformed("a short SYN_STREAM"));
                }
                let id = body.get_u32() & !(1 << 31);
                // The stream that it belongs to, its priority and a slot that nothing uses.
                body.advance(6);
                let headers = headers.read(&body)?;
                let (sender, input) = mpsc::channel(BACKLOG);
                let reset = CancellationToken::new();
                open.retain(|_, stream| !stream.reset.is_cancelled());
                open.insert(id, Open { input: (flags & FIN == 0).then_some(sender), reset: reset.clone() });
                frames.send(Frame::Accept { id }).await.map_err(gone)?;
                let output = Output { id, frames: frames.clone() };
                if streams.send(Stream { headers, input, reset, output }).await.is_err() {
                    return Ok(());
                }
            }
            RST_STREAM if body.len() >= 4 => {
                if let Some(stream) = open.remove(&(body.get_u32() & !(1 << 31))) {
                    stream.reset.cancel();
                }
            }
            PING if body.len() >= 4 => frames.send(Frame::Pong { id: body.get_u32() }).await.map_err(gone)?,
            GOAWAY => return Ok(()),
            _ => {}
        }
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Frame {
    fn encode(self, headers: &mut headers::Writer) -> io::Result<Bytes> {
        let mut frame = BytesMut::new();
        match self {
            Self::Accept { id } => {
                let block = headers.write(&Headers::default())?;
                control(&mut frame, SYN_REPLY, 4 + block.len());
                frame.put_u32(id);
                frame.put(&block[..]);
            }
            Self::Pong { id } => {
                control(&mut frame, PING, 4);
                frame.put_u32(id);
            }
            Self::Data { id, mut bytes, last } => loop {
                let piece = bytes.split_to(bytes.len().min(PIECE));
                frame.put_u32(id);
                frame.put_u32(flagged(if last && bytes.is_empty() { FIN } else { 0 }, piece.len()));
                frame.put(piece);
                if bytes.is_empty() {
                    break;
                }
            },
        }
        Ok(frame.freeze())
    }
}

fn control(frame: &mut BytesMut, kind: u16, length: usize) {
    frame.put_u16(CONTROL | VERSION);
    frame.put_u16(kind);
    frame.put_u32(flagged(0, length));
}

fn flagged(flags: u8, length: usize) -> u32 {
    let length = u32::try_from(length).expect("a frame is much shorter than 16 MiB");
    u32::from(flags) << 24 | length
}

#[cfg(test)]
mod tests;
