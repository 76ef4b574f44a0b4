//! Header blocks of SPDY/3: names and values, compressed by zlib with a dictionary that both sides know.
//!
//! zlib's dictionary is nothing but text that counts as already seen. A block of it, stored uncompressed, that is put
//! before the client's blocks has the same effect on a decompressor that knows no dictionaries; and who compresses may
//! name a dictionary and not refer to it.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf as _, BufMut as _};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::malformed;

/// By name, in lower case.
pub(in super::super) type Headers = BTreeMap<String, String>;

/// How long the headers of one stream may be: a client sends a few short ones.
const LIMIT: usize = 64 * 1024;

/// The dictionary begins with these words, each after its length.
const WORDS: &str = "\
    options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow \
    authorization cache-control connection content-base content-encoding content-language content-length \
    content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// And ends with this text.
const TEXT: &str = "\
    100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
    Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The Adler-32 checksum by which zlib names the dictionary.
const CHECKSUM: u32 = 0xe3c6_a7c2;

/// zlib's first two bytes: deflate with a window of 32 KiB, and a dictionary.
const ZLIB: [u8; 2] = [0x78, 0xbb];

/// The flag of zlib's second byte.
const HAS_DICTIONARY: u8 = 0x20;

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    for word in WORDS.split(' ') {
        dictionary.put_u32(u32::try_from(word.len()).expect("a word is short"));
        dictionary.extend_from_slice(word.replace('_', " ").as_bytes());
    }
    dictionary.extend_from_slice(TEXT.as_bytes());
    dictionary
}

/// Reads the blocks of one direction of a connection, which are one compressed text.
pub(super) struct Reader {
    inflate: Decompress,
    begun: bool,
}

impl Reader {
    pub(super) fn new() -> Self {
        let mut reader = Self { inflate: Decompress::new(false), begun: false };
        let dictionary = dictionary();
        let length = u16::try_from(dictionary.len()).expect("the dictionary is shorter than a stored block may be");
        // Not the last block, stored; its length, and the complement of that.
        let mut stored = vec![0];
        stored.put_u16_le(length);
        stored.put_u16_le(!length);
        stored.extend(dictionary);
        reader.inflate(&stored).expect("a stored block can be read");
        reader
    }

    pub(super) fn read(&mut self, mut block: &[u8]) -> io::Result<Headers> {
        if !self.begun {
            if block.len() < 6 || block[1] & HAS_DICTIONARY == 0 {
                return Err(malformed("headers without the dictionary"));
            }
            block.advance(2);
            if block.get_u32() != CHECKSUM {
                return Err(malformed("headers with another dictionary"));
            }
            self.begun = true;
        }
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let (before, after) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(block, &mut piece, FlushDecompress::Sync).map_err(io::Error::other)?;
            let read = usize::try_from(self.inflate.total_in() - before).map_err(io::Error::other)?;
            let written = usize::try_from(self.inflate.total_out() - after).map_err(io::Error::other)?;
            block.advance(read);
            text.extend_from_slice(&piece[..written]);
            if text.len() > LIMIT {
                return Err(malformed("too many headers"));
            }
            if status == Status::StreamEnd || read + written == 0 || (block.is_empty() && written < piece.len()) {
                return Ok(text);
            }
        }
    }
}

/// Writes the blocks of one direction of a connection.
pub(super) struct Writer {
    deflate: Compress,
    begun: bool,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { deflate: Compress::new(Compression::fast(), false), begun: false }
    }

    pub(super) fn write(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let count = |length: usize| u32::try_from(length).expect("headers are short");
        text.put_u32(count(headers.len()));
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            text.put_u32(count(part.len()));
            text.extend_from_slice(part.as_bytes());
        }
        let mut block = Vec::new();
        if !self.begun {
            self.begun = true;
            block.extend(ZLIB);
            block.put_u32(CHECKSUM);
        }
        // Text that does not shrink needs its own length and a few bytes for each block.
        block.reserve(text.len() + 1024);
        self.deflate.compress_vec(&text, &mut block, FlushCompress::Sync).map_err(io::Error::other)?;
        Ok(block)
    }
}

fn parse(mut text: &[u8]) -> io::Result<Headers> {
    let short = || malformed("headers that are cut off");
    let mut headers = Headers::new();
    for _ in 0..text.try_get_u32().map_err(|_| short())? {
        let mut part = || {
            let length = text.try_get_u32().map_err(|_| short())? as usize;
            let (part, rest) = text.split_at_checked(length).ok_or_else(short)?;
            text = rest;
            Ok::<_, io::Error>(String::from_utf8_lossy(part).into_owned())
        };
        let (name, value) = (part()?, part()?);
        headers.insert(name.to_ascii_lowercase(), value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adler32(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(adler32(&dictionary()), CHECKSUM);
        assert_eq!(u16::from_be_bytes(ZLIB) % 31, 0, "zlib's own check of its first two bytes");
    }

    #[test]
    fn one_block_after_the_other_is_read_back() {
        let (mut writer, mut reader) = (Writer::new(), Reader::new());
        for number in 0..100 {
            let headers = Headers::from([
                ("streamtype".to_owned(), "data".to_owned()),
                ("requestid".to_owned(), number.to_string()),
                ("padding".to_owned(), "x".repeat(number * 100)),
            ]);
            let block = writer.write(&headers).expect("headers can be written");
            assert_eq!(reader.read(&block).expect("they can be read"), headers);
        }
    }

    /// What zlib itself, with its `deflateSetDictionary`, makes of `{"streamtype": "data", "accept-charset": "utf-8"}`.
    #[test]
    fn a_block_that_refers_to_the_dictionary_is_read() {
        let headers = Reader::new().read(ZLIB_BLOCK).expect("the block is whole");
        assert_eq!(
            headers,
            Headers::from([
                ("accept-charset".to_owned(), "utf-8".to_owned()),
                ("streamtype".to_owned(), "data".to_owned()),
            ])
        );
    }

    #[test]
    fn headers_that_are_cut_off_are_refused() {
        let block = Writer::new().write(&Headers::from([("a".to_owned(), "b".to_owned())])).expect("it can be written");
        for length in 0..block.len() - 5 {
            assert!(Reader::new().read(&block[..length]).is_err(), "{length}");
        }
    }

    const ZLIB_BLOCK: &[u8] = &[
        0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xe5, 0x0e, 0xac, 0x65, 0x2a, 0x2b, 0x58, 0x3b, 0x38, 0x09, 0x96,
        0x14, 0xa5, 0x26, 0xe6, 0x22, 0x95, 0x32, 0x89, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff,
    ];
}
