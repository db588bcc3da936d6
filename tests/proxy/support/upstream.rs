//! A fake upstream on raw sockets, so that it can break every rule.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::{soon, values};

/// A listening fake; ends with its owner.
pub struct Upstream {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Runs `serve` for each connection.
    pub async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), serve)
    }

    /// As [`Upstream::start`], on a listener that was bound before.
    pub fn on<F, Fut>(listener: TcpListener, serve: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            // The connections end with the listener, as when a process is killed.
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                serving.spawn(serve(Conn { stream, buffer: Vec::new(), gone: false }));
                while serving.try_join_next().is_some() {}
            }
        });
        Self { address, connections, task }
    }

    /// Hands each connection to the test.
    pub async fn handed() -> (Self, mpsc::Receiver<Conn>) {
        let (hand, conns) = mpsc::channel(16);
        let upstream = Self::start(move |conn| {
            let hand = hand.clone();
            async move { hand.send(conn).await.unwrap() }
        })
        .await;
        (upstream, conns)
    }

    /// Answers as [`Upstream::fixed`], and tells what it got.
    pub async fn recording(answer: impl Into<Vec<u8>>) -> (Self, mpsc::Receiver<Seen>) {
        let (tell, seen) = mpsc::channel(64);
        let answer = Arc::new(answer.into());
        let upstream = Self::start(move |mut conn| {
            let (tell, answer) = (tell.clone(), Arc::clone(&answer));
            async move {
                while let Some(request) = conn.request().await {
                    tell.send(request).await.unwrap();
                    conn.write(&answer[..]).await;
                }
            }
        })
        .await;
        (upstream, seen)
    }

    /// Answers each request on each connection with the same bytes.
    pub async fn fixed(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |mut conn| {
            let answer = Arc::clone(&answer);
            async move {
                while conn.request().await.is_some() {
                    conn.write(&answer[..]).await;
                }
            }
        })
        .await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection of the fake.
pub struct Conn {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    gone: bool,
}

/// A request as the upstream got it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    /// The values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.head, name)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

impl Conn {
    /// Reads one whole request; `None` when the connection ended before one.
    pub async fn request(&mut self) -> Option<Seen> {
        let head = self.head().await?;
        let mut seen = Seen { head, body: Vec::new() };
        if let Some(length) = seen.header("content-length").and_then(|text| text.parse::<usize>().ok()) {
            while self.buffer.len() < length {
                self.fill().await?;
            }
            seen.body = self.buffer.drain(..length).collect();
        } else if seen.header("transfer-encoding").is_some() {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                while self.buffer.len() < size + 2 {
                    self.fill().await?;
                }
                seen.body.extend(self.buffer.drain(..size));
                self.buffer.drain(..2);
                if size == 0 {
                    break;
                }
            }
        }
        Some(seen)
    }

    /// Reads a request's head alone.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            self.fill().await?;
        }
    }

    /// Reads so many bytes of a body, framing and all.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        soon("bytes of a body", async {
            while self.buffer.len() < count {
                self.fill().await.expect("the body's bytes before the connection's end");
            }
        })
        .await;
        self.buffer.drain(..count).collect()
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Option<()> {
        self.buffer.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }

    /// Whether the last write found nobody.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Writes; a proxy that is gone is no failure of the fake.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.gone = self.stream.write_all(bytes.as_ref()).await.is_err();
    }

    /// One chunk of a chunked answer.
    pub async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.write(framed).await;
    }

    /// The head of an event stream.
    pub async fn event_stream(&mut self) {
        self.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    }

    /// Waits until the other end has closed or reset.
    pub async fn closed(&mut self) {
        soon("the upstream connection's end", async { while self.fill().await.is_some() {} }).await;
    }

    /// Resets the connection.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}
