//! The one request that is written here by hand: `CreateAcls`, version 2.
//!
//! krafka 0.28 numbers the kinds of patterns one too low: its `Literal` is Kafka's `MATCH`, which no right may have, and
//! `PREFIXED` cannot be said. The numbers are those of <https://kafka.apache.org/41/design/protocol/>.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;

const CREATE_ACLS: i16 = 30;
const VERSION: i16 = 2;

/// An answer may be as long as this; rights are few and an error is a sentence.
const LONGEST: usize = 1 << 20;

const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const ALLOW: i8 = 3;

/// Something that a user may do, in Kafka's numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Granted {
    pub(super) resource: i8,
    pub(super) name: String,
    pub(super) prefix: bool,
    pub(super) operation: i8,
}

/// Allows it from everywhere. Any node takes the request to the controller.
pub(super) async fn create(node: &str, tls: ClientConfig, principal: &str, rights: &[Granted]) -> Result<(), Failure> {
    let host = node.rsplit_once(':').map_or(node, |(host, _)| host);
    let stream = TcpStream::connect(node).await?;
    let connector = TlsConnector::from(Arc::new(tls));
    let mut stream = connector.connect(ServerName::try_from(host.to_owned())?, stream).await?;
    let request = request(principal, rights);
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes()).await?;
    stream.write_all(&request).await?;
    stream.flush().await?;
    let length = usize::try_from(stream.read_i32().await?)?;
    if length > LONGEST {
        return Err(format!("an answer of {length} bytes").into());
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    check(&answer, rights.len()).ok_or("the answer is cut off")?
}

fn request(principal: &str, rights: &[Granted]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(CREATE_ACLS.to_be_bytes());
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(1_i32.to_be_bytes()); // The number of the request.
    bytes.extend(b"\x00\x08landfall"); // Who asks.
    bytes.push(0); // No tagged fields, here and below.
    put_length(&mut bytes, rights.len());
    for right in rights {
        bytes.push(right.resource.cast_unsigned());
        put_text(&mut bytes, &right.name);
        bytes.push(if right.prefix { PREFIXED } else { LITERAL }.cast_unsigned());
        put_text(&mut bytes, principal);
        put_text(&mut bytes, "*");
        bytes.push(right.operation.cast_unsigned());
        bytes.push(ALLOW.cast_unsigned());
        bytes.push(0);
    }
    bytes.push(0);
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_length(bytes, text.len());
    bytes.extend(text.as_bytes());
}

/// One more than the length, seven bits at a time: zero would say that nothing is there.
fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let mut rest = length + 1;
    while rest > 0x7f {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
}

/// Whether every right was taken; `None` when the answer ends too early.
fn check(answer: &[u8], rights: usize) -> Option<Result<(), Failure>> {
    let mut reader = Reader(answer);
    reader.take(4)?; // The number of the request.
    reader.take(1)?; // No tagged fields.
    reader.take(4)?; // For how long the client was slowed down.
    let results = reader.number()?.checked_sub(1)?;
    if results != rights {
        return Some(Err(format!("{results} answers to {rights} rights").into()));
    }
    for _ in 0..results {
        let code = i16::from_be_bytes(reader.take(2)?.try_into().ok()?);
        let length = reader.number()?.saturating_sub(1);
        let message = String::from_utf8_lossy(reader.take(length)?).into_owned();
        reader.take(1)?;
        if code != 0 {
            return Some(Err(format!("a right was refused, error {code}: {message}").into()));
        }
    }
    Some(Ok(()))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        let (mut number, mut shift) = (0, 0_u32);
        loop {
            let byte = *self.take(1)?.first()?;
            number |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_on_a_prefix_is_written_as_kafka_numbers_it() {
        let right = Granted { resource: 3, name: "ledger".to_owned(), prefix: true, operation: 8 };
        let bytes = request("User:x", &[right]);
        let body = b"\x02\x03\x07ledger\x04\x07User:x\x02*\x08\x03\x00\x00";
        assert_eq!(bytes.strip_prefix(b"\x00\x1e\x00\x02\x00\x00\x00\x01\x00\x08landfall\x00"), Some(body.as_slice()));
    }

    #[test]
    fn a_refusal_is_told_and_a_cut_answer_is_none() {
        let refused = b"\0\0\0\x01\0\0\0\0\0\x02\0\x1f\x03no\0\0";
        let told = check(refused, 1).expect("it is whole").expect_err("it is a refusal").to_string();
        assert_eq!(told, "a right was refused, error 31: no");
        assert!(check(&refused[..12], 1).is_none());
        assert!(check(b"\0\0\0\x01\0\0\0\0\0\x02\0\0\0\0\0", 1).is_some_and(|answer| answer.is_ok()));
    }

    #[test]
    fn long_texts_have_long_lengths() {
        let mut bytes = Vec::new();
        put_length(&mut bytes, 299);
        assert_eq!((bytes.as_slice(), Reader(&bytes).number()), ([0xac, 0x02].as_slice(), Some(300)));
    }
}
