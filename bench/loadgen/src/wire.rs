//! As much HTTP/1.1 as the bench needs: heads, and bodies by length, chunked, or to the end of the connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Error;

/// Most bytes that are held of one head, or of one chunk's size line.
const HELD_MAX: usize = 64 * 1024;
const READ_SIZE: usize = 4 * 1024;

/// One connection and what was read of it ahead.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    held: Vec<u8>,
}

/// What matters of a head.
#[derive(Debug)]
pub struct Head {
    /// Request or status line.
    pub first_line: String,
    pub body: Body,
    /// `connection: close` was said.
    pub close: bool,
    /// A WebSocket is asked for.
    pub upgrade: bool,
}

/// How much of a body is still to come.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    Done,
    Bytes(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    ToClose,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Result<Self, Error> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, held: Vec::new() })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The next head, or `None` where the peer closed between messages.
    ///
    /// # Errors
    /// A broken or endless head, or the connection's own.
    pub async fn head(&mut self) -> Result<Option<Head>, Error> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.held, b"\r\n\r\n") {
                let head = Head::parse(self.held.get(..end).unwrap_or_default())?;
                self.held.drain(..end + 4);
                return Ok(Some(head));
            }
            if self.held.len() > HELD_MAX {
                return Err("a head without end".into());
            }
            if self.fill().await? == 0 {
                return if self.held.is_empty() { Ok(None) } else { Err("closed inside a head".into()) };
            }
        }
    }

    /// Appends what comes next of the body to `out`; `false` at its end.
    ///
    /// # Errors
    /// Broken chunks, an early close, or the connection's own.
    pub async fn piece(&mut self, body: &mut Body, out: &mut Vec<u8>) -> Result<bool, Error> {
        let before = out.len();
        loop {
            let used = body.decode(&self.held, out)?;
            self.held.drain(..used);
            if out.len() > before {
                return Ok(true);
            }
            if *body == Body::Done {
                return Ok(false);
            }
            if self.held.len() > HELD_MAX {
                return Err("a chunk size without end".into());
            }
            if self.fill().await? == 0 {
                return if *body == Body::ToClose { Ok(false) } else { Err("closed inside a body".into()) };
            }
        }
    }

    /// Reads a WebSocket's next text message, which must be short; what else comes on it is passed over.
    ///
    /// # Errors
    /// A long message, a close, or the connection's own.
    pub async fn message(&mut self) -> Result<(), Error> {
        loop {
            let (opcode, length) = loop {
                if let Some(whole) = frame(&self.held)? {
                    break whole;
                }
                if self.fill().await? == 0 {
                    return Err("closed inside a WebSocket".into());
                }
            };
            self.held.drain(..length);
            match opcode {
                1 => return Ok(()),
                8 => return Err("the WebSocket was closed".into()),
                _ => {}
            }
        }
    }

    /// Ends when the peer closes; bytes that come before are held.
    pub async fn closed(&mut self) {
        while self.held.len() <= HELD_MAX && self.fill().await.is_ok_and(|bytes| bytes > 0) {}
    }

    async fn fill(&mut self) -> Result<usize, Error> {
        self.held.reserve(READ_SIZE);
        Ok(self.stream.read_buf(&mut self.held).await?)
    }
}

/// Opcode and length of the frame that `bytes` begin with, if it has come whole.
fn frame(bytes: &[u8]) -> Result<Option<(u8, usize)>, Error> {
    let [first, second, ..] = bytes else { return Ok(None) };
    let (masked, payload) = (second & 0x80 != 0, usize::from(second & 0x7f));
    if payload > 125 {
        return Err("a WebSocket's message is longer than was sent".into());
    }
    let length = 2 + if masked { 4 } else { 0 } + payload;
    Ok((bytes.len() >= length).then_some((first & 0x0f, length)))
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes)?;
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        // An answer without a length goes on to the close; a request without one has no body.
        let mut body = if first_line.starts_with("HTTP/") { Body::ToClose } else { Body::Done };
        let (mut close, mut upgrade) = (false, false);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                body = Body::Bytes(value.parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
                body = Body::ChunkSize;
            } else if name.eq_ignore_ascii_case("connection") {
                close = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("upgrade") {
                upgrade = value.eq_ignore_ascii_case("websocket");
            }
        }
        Ok(Self { first_line, body, close, upgrade })
    }
}

impl Body {
    /// Moves body bytes from `input` to `out` and returns how many bytes of `input` were used up.
    fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Error> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            match self {
                Self::Done => return Ok(at),
                Self::Bytes(0) => *self = Self::Done,
                Self::ChunkData(0) => *self = Self::ChunkEnd,
                _ if rest.is_empty() => return Ok(at),
                Self::Bytes(left) | Self::ChunkData(left) => {
                    let piece = rest.get(..usize::try_from(*left)?).unwrap_or(rest);
                    out.extend_from_slice(piece);
                    *left -= piece.len() as u64;
                    at += piece.len();
                }
                Self::ToClose => {
                    out.extend_from_slice(rest);
                    at = input.len();
                }
                Self::ChunkSize | Self::ChunkEnd | Self::Trailers => {
                    let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(at) };
                    self.line(rest.get(..end).unwrap_or_default())?;
                    at += end + 1;
                }
            }
        }
    }

    /// Takes a line that stands around chunks.
    fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        let line = std::str::from_utf8(line)?.trim_end();
        *self = match (&*self, line) {
            (Self::ChunkSize, line) => {
                let size = line.split(';').next().unwrap_or_default().trim();
                match u64::from_str_radix(size, 16)? {
                    0 => Self::Trailers,
                    size => Self::ChunkData(size),
                }
            }
            (Self::ChunkEnd, "") => Self::ChunkSize,
            (Self::Trailers, "") => Self::Done,
            (Self::Trailers, _) => Self::Trailers,
            _ => return Err("a chunk longer than its size".into()),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(mut body: Body, text: &str, step: usize) -> Result<(String, Body), Error> {
        let (mut out, mut held) = (Vec::new(), Vec::new());
        for piece in text.as_bytes().chunks(step) {
            held.extend_from_slice(piece);
            let used = body.decode(&held, &mut out)?;
            held.drain(..used);
        }
        Ok((String::from_utf8(out)?, body))
    }

    #[test]
    fn bodies_are_read_in_any_pieces() {
        for step in 1..30 {
            let chunked = "5;x=y\r\nriver\r\n1\r\n!\r\n0\r\nx-end: 1\r\n\r\n";
            assert_eq!(decode(Body::ChunkSize, chunked, step).unwrap(), ("river!".to_owned(), Body::Done));
            assert_eq!(decode(Body::Bytes(5), "river", step).unwrap(), ("river".to_owned(), Body::Done));
            assert_eq!(decode(Body::ToClose, "river", step).unwrap(), ("river".to_owned(), Body::ToClose));
        }
    }

    #[test]
    fn broken_chunks_are_errors() {
        for text in ["xx\r\n", "3\r\nriver\r\n"] {
            assert!(decode(Body::ChunkSize, text, 100).is_err(), "{text:?}");
        }
    }

    #[test]
    fn heads_tell_how_the_body_comes() {
        let body = |text: &str| Head::parse(text.as_bytes()).unwrap().body;
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 7"), Body::Bytes(7));
        assert_eq!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"), Body::ChunkSize);
        assert_eq!(body("HTTP/1.1 200 OK"), Body::ToClose);
        assert_eq!(body("GET / HTTP/1.1"), Body::Done);
        assert!(Head::parse(b"GET / HTTP/1.1\r\nConnection: close").unwrap().close);
        assert!(Head::parse(b"GET / HTTP/1.1\r\nUpgrade: websocket").unwrap().upgrade);
    }

    #[test]
    fn frames_are_whole_or_waited_for() {
        for (bytes, opcode) in
            [(crate::payload::MESSAGE_OF_CLIENT, 1), (crate::payload::MESSAGE_OF_SERVER, 1), (b"\x88\0", 8)]
        {
            assert_eq!(frame(bytes).unwrap(), Some((opcode, bytes.len())));
            assert_eq!(frame(&bytes[..bytes.len() - 1]).unwrap(), None);
        }
        assert!(frame(b"\x81\x7e\x01\0").is_err());
    }
}
