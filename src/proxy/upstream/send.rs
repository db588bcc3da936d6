//! Sends a request body to an upstream, without hanging on one that has answered already and stopped reading.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::UniqueIDType;
use pingora::protocols::http::client::HttpSession;

use crate::proxy::endpoints::socket;

/// Largest piece written at once.
const PIECE: usize = 64 * 1024;

/// How often a write that does not go on looks for an answer.
const LOOK: Duration = Duration::from_millis(20);

/// How a body went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Whole,
    /// The upstream answers while the client still sends, or while nothing more is taken: the rest of the body goes on beside the
    /// answer.
    Answering,
    /// The upstream takes no more: its answer, if any, is to be read next, and the rest of the body goes nowhere.
    Early,
}

/// Sends a body that is in hand.
pub(crate) async fn buffered(upstream: &mut HttpSession, body: &Bytes, patience: Duration) -> pingora::Result<Sent> {
    let mut rest = body.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(PIECE.min(rest.len()));
        if write(upstream, piece, patience).await? == Sent::Early {
            return Ok(Sent::Early);
        }
    }
    upstream.finish_request_body().await?;
    Ok(Sent::Whole)
}

/// Writes one chunk; gives up when an answer waits to be read while the upstream does not take it.
pub(crate) async fn write(upstream: &mut HttpSession, chunk: Bytes, patience: Duration) -> pingora::Result<Sent> {
    let socket = watched(upstream);
    let write = upstream.write_request_body(chunk, false);
    tokio::select! {
        biased;
        written = write => written.map(|()| Sent::Whole),
        () = answered(socket) => Ok(Sent::Early),
        () = tokio::time::sleep(patience) => Ok(Sent::Early),
    }
}

/// The socket whose readability means an answer. Over TLS it may mean session tickets, and over HTTP/2 anything: there, an
/// upstream that stops reading ends the write by a reset.
pub(super) fn watched(upstream: &HttpSession) -> Option<UniqueIDType> {
    let plain = upstream.digest().is_some_and(|digest| digest.ssl_digest.is_none());
    upstream.stream().filter(|_| plain).map(|stream| stream.id())
}

pub(super) async fn answered(socket: Option<UniqueIDType>) {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        if socket::has_something_to_read(socket) {
            return;
        }
    }
}
