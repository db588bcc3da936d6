//! A fake LLM backend that plays a part: it answers each request as it was told, and remembers which it got.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Conn, Seen, Upstream};

/// The end of a stream in OpenAI's dialect.
pub const STOP: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// The event that most streams begin with: no token yet.
pub const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";

pub const ERROR_EVENT: &str = "data: {\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\"}}\n\n";

/// One token frame that says `text`.
pub fn token(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n")
}

/// What a backend does with a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// Streams its own name as a token, in order.
    Stream,
    /// A whole answer with this status and these header lines, each ended by CRLF.
    Status(u16, &'static str),
    /// Resets before any byte of an answer.
    Reset,
    /// Resets in the middle of a head.
    HalfHead,
    /// A whole JSON answer that says its name.
    Json,
    /// Closes before any byte of an answer.
    Close,
    /// A stream that sends these pieces and then ends in order.
    Pieces(Vec<String>),
    /// A stream that sends these pieces and is then reset.
    Dies(Vec<String>),
    /// A stream that sends these pieces and then nothing.
    Silent(Vec<String>),
    /// Nothing at all, not even a head.
    Mute,
    /// A stream that begins when the gate opens.
    Gated(Arc<Semaphore>),
    /// A stream that sends this, and ends in order when the gate opens.
    Held(String, Arc<Semaphore>),
    /// A stream whose first token takes so long, and then one every so long.
    Paced { first: Duration, then: Duration, tokens: usize },
    /// This act, when the gate opens.
    After(Arc<Semaphore>, Box<Act>),
    /// One of two acts: the first while the switch is on.
    Switch(Arc<AtomicBool>, Box<Act>, Box<Act>),
}

/// A backend; ends with its owner.
pub struct Backend {
    pub name: &'static str,
    pub upstream: Upstream,
    pub log: Log,
    /// Counts connections that ended while they were being answered by silence.
    released: Arc<Semaphore>,
}

/// What a backend was asked.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How often each request id was asked.
    pub fn by_id(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for seen in self.all() {
            *counts.entry(seen.header("x-request-id").unwrap_or_default().to_owned()).or_default() += 1;
        }
        counts
    }
}

impl Backend {
    /// A backend that plays `acts` one after the other, and the last one for ever.
    pub async fn start(name: &'static str, acts: Vec<Act>) -> Self {
        Self::play(name, Self::listener().await, Log::default(), acts)
    }

    /// As [`Backend::start`], on a listener that was bound before, writing into a log of before.
    pub fn play(name: &'static str, listener: TcpListener, log: Log, acts: Vec<Act>) -> Self {
        let (turn, written) = (Arc::new(Mutex::new(0)), log.clone());
        let released = Arc::new(Semaphore::new(0));
        let freed = Arc::clone(&released);
        let upstream = Upstream::on(listener, move |mut conn| {
            let (acts, turn, log) = (acts.clone(), Arc::clone(&turn), written.clone());
            let freed = Arc::clone(&freed);
            async move {
                while let Some(seen) = conn.request().await {
                    log.0.lock().unwrap().push(seen);
                    let at = {
                        let mut turn = turn.lock().unwrap();
                        *turn += 1;
                        *turn - 1
                    };
                    let act = acts[at.min(acts.len() - 1)].clone();
                    match perform(conn, name, act).await {
                        Some(again) => conn = again,
                        None => {
                            freed.add_permits(1);
                            return;
                        }
                    }
                }
            }
        });
        Self { name, upstream, log, released }
    }

    /// Waits until a connection has ended before its answer did.
    pub async fn released(&self) {
        drop(super::soon("the connection's end", self.released.acquire()).await.unwrap());
    }

    pub async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// Its `[[upstream]]` table, with more keys.
    pub fn table(&self, more: &str) -> String {
        table(self.name, self.address(), more)
    }
}

/// An `[[upstream]]` table.
pub fn table(name: &str, address: SocketAddr, more: &str) -> String {
    format!("[[upstream]]\nname = \"{name}\"\nurl = \"http://{address}\"\n{more}\n")
}

/// An address where nobody listens.
pub async fn refusing() -> SocketAddr {
    let listener = Backend::listener().await;
    listener.local_addr().unwrap()
}

/// Answers one request; the connection, where it can take another.
async fn perform(mut conn: Conn, name: &str, act: Act) -> Option<Conn> {
    match act {
        Act::Stream => stream(&mut conn, &[ROLE.to_owned(), token(name), STOP.to_owned()]).await,
        Act::Pieces(pieces) => stream(&mut conn, &pieces).await,
        Act::Gated(gate) => {
            let opened = gate.acquire().await;
            drop(opened);
            stream(&mut conn, &[token(name), STOP.to_owned()]).await;
        }
        Act::Status(status, headers) => {
            let body = format!("{{\"error\":{{\"message\":\"{name} says {status}\"}}}}");
            let length = body.len();
            conn.write(format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
            ))
            .await;
        }
        Act::Held(piece, gate) => {
            conn.event_stream().await;
            conn.chunk(piece).await;
            drop(gate.acquire().await);
            conn.chunk(STOP).await;
            conn.chunk("").await;
        }
        Act::Paced { first, then, tokens } => {
            conn.event_stream().await;
            tokio::time::sleep(first).await;
            for _ in 0..tokens {
                conn.chunk(token(name)).await;
                tokio::time::sleep(then).await;
            }
            conn.chunk(STOP).await;
            conn.chunk("").await;
        }
        Act::Switch(on, first, second) => {
            let act = if on.load(Ordering::SeqCst) { *first } else { *second };
            return Box::pin(perform(conn, name, act)).await;
        }
        Act::After(gate, act) => {
            drop(gate.acquire().await);
            return Box::pin(perform(conn, name, *act)).await;
        }
        Act::Reset => {
            conn.reset();
            return None;
        }
        Act::HalfHead => {
            conn.write("HTTP/1.1 200 OK\r\ncontent-ty").await;
            conn.reset();
            return None;
        }
        Act::Json => {
            let body =
                format!("{{\"choices\":[{{\"message\":{{\"content\":\"{name}\"}},\"finish_reason\":\"stop\"}}]}}");
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
            conn.write(format!("{head} {length}\r\n\r\n{body}")).await;
        }
        Act::Close => return None,
        Act::Dies(pieces) => {
            conn.event_stream().await;
            for piece in pieces {
                conn.chunk(piece).await;
            }
            conn.reset();
            return None;
        }
        Act::Silent(pieces) => {
            conn.event_stream().await;
            for piece in pieces {
                conn.chunk(piece).await;
            }
            conn.closed().await;
            return None;
        }
        Act::Mute => {
            conn.closed().await;
            return None;
        }
    }
    Some(conn)
}

async fn stream(conn: &mut Conn, pieces: &[String]) {
    conn.event_stream().await;
    for piece in pieces {
        conn.chunk(piece).await;
    }
    conn.chunk("").await;
}
