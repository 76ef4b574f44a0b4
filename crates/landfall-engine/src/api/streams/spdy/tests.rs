//! A client's frames go in; streams, and the frames that answer them, come out.

use super::*;

/// A client's end of a connection that is served.
struct Client {
    wire: tokio::io::DuplexStream,
    headers: headers::Writer,
}

impl Client {
    async fn send(&mut self, kind: u16, flags: u8, body: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u16(CONTROL | VERSION);
        frame.put_u16(kind);
        frame.put_u32(flagged(flags, body.len()));
        frame.put(body);
        self.wire.write_all(&frame).await.expect("the server reads");
    }

    async fn open(&mut self, id: u32, flags: u8, headers: &[(&str, &str)]) {
        let mut body = BytesMut::new();
        body.put_u32(id);
        body.put_bytes(0, 6);
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        body.put(&self.headers.write(&headers).expect("headers can be written")[..]);
        self.send(SYN_STREAM, flags, &body).await;
    }

    async fn data(&mut self, id: u32, flags: u8, bytes: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u32(id);
        frame.put_u32(flagged(flags, bytes.len()));
        frame.put(bytes);
        self.wire.write_all(&frame).await.expect("the server reads");
    }

    /// The next frame: its first word, its flags and its body.
    async fn next(&mut self) -> (u32, u8, Vec<u8>) {
        let first = self.wire.read_u32().await.expect("the server writes");
        let rest = self.wire.read_u32().await.expect("the server writes");
        let mut body = vec![0; (rest & 0x00ff_ffff) as usize];
        self.wire.read_exact(&mut body).await.expect("the server writes whole frames");
        (first, (rest >> 24) as u8, body)
    }
}

fn connection() -> (Client, mpsc::Receiver<Stream>, impl Future<Output = io::Result<()>>) {
    let (wire, server) = tokio::io::duplex(1 << 16);
    let (sender, streams) = mpsc::channel(4);
    (Client { wire, headers: headers::Writer::new() }, streams, serve(server, sender))
}

#[tokio::test]
async fn a_stream_carries_both_directions_until_each_has_ended() {
    let (mut client, mut streams, serving) = connection();
    let talk = async {
        client.open(1, 0, &[("streamType", "data"), ("port", "80")]).await;
        client.data(1, 0, b"hello").await;
        client.data(1, FIN, b" there").await;
        let mut stream = streams.recv().await.expect("a stream was opened");
        assert_eq!(stream.headers["streamtype"], "data");
        assert_eq!(stream.headers["port"], "80");
        let mut heard = Vec::new();
        while let Some(piece) = stream.input.recv().await {
            heard.extend_from_slice(&piece);
        }
        assert_eq!(heard, b"hello there");
        assert!(stream.output.say(Bytes::from_static(b"welcome")).await);
        stream.output.finish().await;

        let (kind, _, body) = client.next().await;
        assert_eq!((kind & 0xffff, &body[..4]), (u32::from(SYN_REPLY), &[0, 0, 0, 1][..]));
        assert_eq!(client.next().await, (1, 0, b"welcome".to_vec()));
        assert_eq!(client.next().await, (1, FIN, Vec::new()));
        drop(client);
    };
    let (served, ()) = tokio::join!(serving, talk);
    served.expect("the client has left in good order");
}

#[tokio::test]
async fn a_ping_is_answered_and_a_reset_is_told() {
    let (mut client, mut streams, serving) = connection();
    let talk = async {
        client.send(PING, 0, &7_u32.to_be_bytes()).await;
        let (kind, _, body) = client.next().await;
        assert_eq!((kind & 0xffff, body), (u32::from(PING), 7_u32.to_be_bytes().to_vec()));

        client.open(1, FIN, &[]).await;
        let mut stream = streams.recv().await.expect("a stream was opened");
        assert_eq!(stream.input.recv().await, None);
        client.send(RST_STREAM, 0, &[0, 0, 0, 1, 0, 0, 0, 5]).await;
        stream.reset.cancelled().await;
        client.send(GOAWAY, 0, &[0; 8]).await;
    };
    let (served, ()) = tokio::join!(serving, talk);
    served.expect("the client has left in good order");
}

#[tokio::test]
async fn what_is_not_the_protocol_ends_the_connection() {
    let (mut client, _streams, serving) = connection();
    let talk = async {
        client.wire.write_all(b"\xff\xffGET / HTTP/1.1\r\n\r\n").await.expect("the server reads");
        client.wire.shutdown().await.expect("the connection can be closed");
    };
    let (served, ()) = tokio::join!(serving, talk);
    assert!(served.is_err());
}
