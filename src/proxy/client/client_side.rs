//! The client's side while an upstream is asked: takes in the rest of the body, passes interim answers on, keeps the
//! client's patience with comments, and notices when it goes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use tokio::sync::{Notify, mpsc};

use super::body_pace::BodyPace;
use super::client_body;
use super::headers;
use crate::llm::{Dialect, RequestFacts};
use crate::policy::limits::Standing;
use crate::proxy::process::request_body::RequestBody;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::outcome::Stop;
use crate::proxy::request::route::Routed;

/// An SSE comment: every client ignores it, and every hop between sees that the stream lives.
pub(crate) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Interim answers (103 Early Hints) kept for the client at once; more are dropped.
const INTERIM_MAX: usize = 8;

/// What both sides know of each other while the client's side is held.
pub(crate) struct Line {
    pub(crate) interim: Interim,
    /// Where chunks of a streamed body go.
    chunks: Option<mpsc::Sender<Bytes>>,
    /// The head told how long a streamed body is.
    has_length: bool,
    /// A head was sent to the client before there was an upstream's.
    committed: AtomicBool,
    received: AtomicU64,
    body_done: AtomicBool,
}

/// Chunks of a streamed body, for the upstream; `None` where the body is in hand.
pub(crate) type Upload = Option<mpsc::Receiver<Bytes>>;

/// Interim answers on their way to the client.
#[derive(Default)]
pub(crate) struct Interim {
    heads: Mutex<Vec<ResponseHeader>>,
    came: Notify,
}

impl Interim {
    pub(crate) fn put(&self, head: ResponseHeader) {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() < INTERIM_MAX {
            heads.push(head);
            self.came.notify_one();
        }
    }

    fn take(&self) -> Vec<ResponseHeader> {
        std::mem::take(&mut *self.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Line {
    pub(crate) fn new(body: &RequestBody) -> (Self, Upload) {
        let (mut read, mut has_length) = (0, false);
        let (chunks, upload) = match body {
            RequestBody::Streamed { first, length } => {
                has_length = length.is_some();
                // One place for the chunk that is passed on, and one for what was read before.
                let (sender, receiver) = mpsc::channel(1 + usize::from(!first.is_empty()));
                if !first.is_empty() {
                    // There is room.
                    let _ = sender.try_send(first.clone());
                }
                read = first.len() as u64;
                (Some(sender), Some(receiver))
            }
            RequestBody::None | RequestBody::Buffered(_) | RequestBody::Edited(_) => (None, None),
        };
        let line = Self {
            interim: Interim::default(),
            body_done: AtomicBool::new(chunks.is_none()),
            chunks,
            has_length,
            committed: AtomicBool::new(false),
            received: AtomicU64::new(read),
        };
        (line, upload)
    }

    /// Whether the client has a head already.
    pub(crate) fn is_committed(&self) -> bool {
        self.committed.load(Ordering::Relaxed)
    }

    /// Whether the client's body was read to its end.
    pub(crate) fn is_body_done(&self) -> bool {
        self.body_done.load(Ordering::Relaxed)
    }

    /// Whether a streamed body is as long as its head told.
    pub(crate) fn has_length(&self) -> bool {
        self.has_length
    }

    /// Bytes of the streamed body read so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// The client's side of a request that has a place to go.
pub(crate) struct ClientSide<'a> {
    pub(crate) visit: &'a RequestContext<'a>,
    pub(crate) routed: &'a Routed,
    pub(crate) facts: &'a Arc<RequestFacts>,
    pub(crate) line: &'a Line,
    /// Where the caller stands under its limits.
    pub(crate) standing: Standing,
}

impl ClientSide<'_> {
    /// Holds until there is a reason to stop: the client went, or its body broke a rule. Otherwise for ever.
    pub(crate) async fn wait(&self, session: &mut ServerSession) -> Stop {
        match self.hold(session).await {
            Err(stop) => stop,
            Ok(never) => match never {},
        }
    }

    async fn hold(&self, session: &mut ServerSession) -> Result<std::convert::Infallible, Stop> {
        if !self.line.is_body_done() {
            client_body::answer_expectation(session).await?;
            self.take_body(session).await?;
        }
        let every = self.comment_interval(session);
        let mut next_comment = tokio::time::Instant::now() + every.unwrap_or(Duration::MAX / 4);
        loop {
            tokio::select! {
                biased;
                () = self.line.interim.came.notified() => self.pass_interim(session).await?,
                // Any byte, an end or an error here means that the client has given up on this answer.
                _ = session.read_body_or_idle(true) => return Err(Stop::ClientGone),
                () = tokio::time::sleep_until(next_comment), if every.is_some() => {
                    self.comment(session).await?;
                    next_comment += every.unwrap_or(Duration::MAX / 4);
                }
            }
        }
    }

    async fn take_body(&self, session: &mut ServerSession) -> Result<(), Stop> {
        let server = &self.visit.settings().server;
        let Some(chunks) = &self.line.chunks else { return Ok(()) };
        let mut pace = BodyPace::new(server);
        loop {
            // The place is taken before the chunk is read, so that no chunk is in hand when this future is dropped. Without
            // a place, the upstream has stopped listening: then the rest is read and thrown away.
            let read = async { (chunks.reserve().await.ok(), pace.read_chunk(session).await) };
            let (place, chunk) = tokio::select! {
                biased;
                () = self.line.interim.came.notified() => { self.pass_interim(session).await?; continue }
                read = read => read,
            };
            let Some(chunk) = chunk? else {
                // An empty chunk is the end of the body.
                if let Some(place) = place {
                    place.send(Bytes::new());
                }
                break;
            };
            let received = self.line.received.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
            client_body::within(Some(received), server.max_upload, "max_upload")?;
            if let Some(place) = place {
                place.send(chunk);
            }
        }
        self.line.body_done.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Passes interim answers on that have come so far.
    pub(crate) async fn pass_interim(&self, session: &mut ServerSession) -> Result<(), Stop> {
        // RFC 9110, section 15.2: never to an HTTP/1.0 client.
        let understands = session.req_header().version != Version::HTTP_10;
        for head in self.line.interim.take() {
            if understands && !self.line.is_committed() {
                session.write_response_header(Box::new(head)).await.map_err(|_| Stop::ClientGone)?;
            }
        }
        Ok(())
    }

    /// How often to send a comment before the upstream's head came; `None`: never.
    fn comment_interval(&self, session: &ServerSession) -> Option<Duration> {
        let route = &self.routed.route;
        let accept = session.req_header().headers.get("accept").map_or(&b""[..], |value| value.as_bytes());
        let streams_events = !matches!(self.facts.dialect, Some(Dialect::Ollama | Dialect::VercelData))
            && (self.facts.stream == Some(true) || accept.starts_with(b"text/event-stream"));
        let wanted = route.keepalive_before_headers && !route.keepalive.is_zero() && streams_events;
        wanted.then_some(route.keepalive)
    }

    async fn comment(&self, session: &mut ServerSession) -> Result<(), Stop> {
        if !self.line.is_committed() {
            let head = headers::early_event_stream(session.req_header(), self.visit)
                .map_err(|_| Stop::Reject(crate::proxy::request::rejection::Rejection::internal()))?;
            session.write_response_header(Box::new(head)).await.map_err(|_| Stop::ClientGone)?;
            self.line.committed.store(true, Ordering::Relaxed);
        }
        session.write_response_body(KEEP_ALIVE, false).await.map_err(|_| Stop::ClientGone)
    }
}
