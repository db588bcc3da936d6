//! A client that says exactly what it is told, and reads what really comes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{soon, values};

/// One client connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    ended: Option<End>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Orderly,
    Reset,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The framing said that this is all.
    pub whole: bool,
}

impl Answer {
    /// The values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.head, name)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(to)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), ended: None }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A proxy that has answered early may have closed already: what it said is what counts.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Sends; false once the other side has closed.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads to the end, and keeps nothing.
    pub async fn drain(&mut self) {
        soon("the end", async {
            while self.fill().await {
                self.buffer.clear();
            }
        })
        .await;
    }

    /// A GET, with more header lines (each ended by CRLF).
    pub async fn get(&mut self, path: &str, more: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: app.test\r\n{more}\r\n")).await;
        self.answer().await
    }

    /// A JSON POST.
    pub async fn post(&mut self, path: &str, body: &str, more: &str) {
        let length = body.len();
        self.send(format!(
            "POST {path} HTTP/1.1\r\nhost: app.test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n{body}"
        ))
        .await;
    }

    /// Reads until `bytes` have come; everything read so far.
    pub async fn until(&mut self, bytes: &str) -> String {
        soon(&format!("{bytes:?}"), async {
            loop {
                let text = String::from_utf8_lossy(&self.buffer).into_owned();
                if text.contains(bytes) {
                    return text;
                }
                assert!(self.fill().await, "ended before {bytes:?}; got {text:?}");
            }
        })
        .await
    }

    /// Reads so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await, "ended after {} bytes", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Waits for more bytes; everything read so far.
    pub async fn read_more(&mut self) -> String {
        assert!(self.fill().await, "ended; got {:?}", String::from_utf8_lossy(&self.buffer));
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Reads one head.
    pub async fn head(&mut self) -> String {
        soon("a head", async {
            loop {
                if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                    return String::from_utf8(head).unwrap();
                }
                assert!(self.fill().await, "ended within a head: {:?}", String::from_utf8_lossy(&self.buffer));
            }
        })
        .await
    }

    /// Reads one answer to a request that may have a body, interim answers skipped.
    pub async fn answer(&mut self) -> Answer {
        loop {
            let answer = self.next_answer(true).await;
            if answer.status >= 200 || answer.status == 101 {
                return answer;
            }
        }
    }

    /// Reads the next answer, interim ones too.
    pub async fn next_answer(&mut self, has_body: bool) -> Answer {
        let head = self.head().await;
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new(), whole: false };
        if !has_body || status < 200 || status == 204 || status == 304 {
            answer.whole = true;
        } else if answer.header("transfer-encoding").is_some() {
            answer.whole = self.chunks(&mut answer.body).await;
        } else if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length && self.fill_soon().await {}
            answer.whole = self.buffer.len() >= length;
            answer.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else {
            while self.fill_soon().await {}
            answer.whole = self.ended == Some(End::Orderly);
            answer.body = std::mem::take(&mut self.buffer);
        }
        answer
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") else {
                if !self.fill_soon().await {
                    return false;
                }
                continue;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..end]).unwrap(), 16).unwrap();
            while self.buffer.len() < end + 2 + size + 2 {
                if !self.fill_soon().await {
                    return false;
                }
            }
            body.extend_from_slice(&self.buffer[end + 2..end + 2 + size]);
            self.buffer.drain(..end + 2 + size + 2);
            if size == 0 {
                return true;
            }
        }
    }

    async fn fill_soon(&mut self) -> bool {
        soon("bytes or an end", self.fill()).await
    }

    /// Reads some bytes; false at the end.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => {
                self.ended = Some(End::Orderly);
                false
            }
            Err(_) => {
                self.ended = Some(End::Reset);
                false
            }
            Ok(_) => true,
        }
    }

    /// Reads to the connection's end; how it ended.
    pub async fn end(&mut self) -> End {
        while self.fill_soon().await {}
        self.ended.unwrap()
    }
}
