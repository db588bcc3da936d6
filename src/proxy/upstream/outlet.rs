//! The way of a live upload to an upstream. A piece goes out only where there is room for it, so that whoever waits for room can
//! read the answer meanwhile: a backend may answer before it has read all, and read on only while its answer is taken.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use pingora::protocols::http::client::HttpSession;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::send::{self, Sent};
use crate::proxy::endpoints::socket;

/// The largest piece. A TCP socket that has room at all has a third of its buffer, which is more.
const PIECE: usize = 16 * 1024;

/// What is on its way to an upstream, and the way.
pub(crate) struct Outlet {
    way: Way,
    /// Taken in, and not sent yet; an empty chunk is the end of the body.
    waiting: VecDeque<Bytes>,
    is_over: bool,
    /// Why there will be no answer, where that was found on the way.
    pub(crate) fault: Option<Box<pingora::Error>>,
}

enum Way {
    /// A second descriptor of the socket tells when there is room; without one a write waits for it.
    Http1(Option<AsyncFd<OwnedFd>>),
    Http2(SendStream<Bytes>),
}

impl Outlet {
    /// The way to the upstream of `session`, whose body nothing else sends from now on. `None`: it has none.
    pub(crate) fn of(session: &mut HttpSession) -> Option<Self> {
        let way = match session {
            HttpSession::H2(session) => Way::Http2(session.take_request_body_writer()?),
            HttpSession::H1(_) => Way::Http1(session.stream().and_then(|stream| socket::writable(stream.id()))),
            HttpSession::Custom(()) => return None,
        };
        Some(Self { way, waiting: VecDeque::new(), is_over: false, fault: None })
    }

    /// Sends chunks as they come, until the empty one; stops when the upstream begins to answer, or takes nothing for `patience`.
    ///
    /// # Errors
    /// The upstream takes no more.
    pub(crate) async fn send(
        &mut self,
        session: &mut HttpSession,
        chunks: &mut mpsc::Receiver<Bytes>,
        patience: Duration,
    ) -> pingora::Result<Sent> {
        while !self.is_over {
            if self.is_clear() {
                let chunk = tokio::select! {
                    biased;
                    chunk = chunks.recv() => chunk,
                    head = answered(session) => return Ok(self.answering(head)),
                };
                match chunk {
                    Some(chunk) => self.take(chunk),
                    // The client's side is gone; whoever holds it says so.
                    None => std::future::pending().await,
                }
            }
            let room = tokio::select! {
                biased;
                room = self.room() => room,
                head = answered(session) => return Ok(self.answering(head)),
                () = tokio::time::sleep(patience) => None,
            };
            let Some(room) = room else { return Ok(Sent::Early) };
            if self.write(session, room, patience).await? == Sent::Early {
                return Ok(Sent::Early);
            }
        }
        Ok(Sent::Whole)
    }

    fn answering(&mut self, head: Result<(), h2::Error>) -> Sent {
        self.fault = head
            .err()
            .map(|error| pingora::Error::because(pingora::ErrorType::H2Error, "while a body was sent", error));
        Sent::Answering
    }

    /// Takes a chunk in, to be sent next; an empty one is the end of the body.
    pub(crate) fn take(&mut self, chunk: Bytes) {
        self.waiting.push_back(chunk);
    }

    /// Whether all that was taken in has gone out.
    pub(crate) fn is_clear(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the body has gone out, with its end.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Waits until some of what was taken in can go out, and tells how many bytes. `None`: the upstream takes no more. Nothing is
    /// lost where the future is dropped.
    pub(crate) async fn room(&mut self) -> Option<usize> {
        let wanted = self.waiting.front().map_or(0, |chunk| chunk.len().min(PIECE));
        match &mut self.way {
            Way::Http1(None) => Some(wanted),
            Way::Http1(Some(second)) => loop {
                let mut ready = second.writable().await.ok()?;
                if socket::has_room(second.get_ref()) {
                    return Some(wanted);
                }
                ready.clear_ready();
            },
            // The end of a body needs no room.
            Way::Http2(_) if wanted == 0 => Some(0),
            Way::Http2(stream) if stream.capacity() > 0 => Some(stream.capacity().min(wanted)),
            Way::Http2(stream) => {
                stream.reserve_capacity(wanted);
                let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
                Some(room.min(wanted))
            }
        }
    }

    /// Sends what there is room for: of an empty chunk the end of the body.
    ///
    /// # Errors
    /// The upstream takes no more.
    pub(crate) async fn write(
        &mut self,
        session: &mut HttpSession,
        room: usize,
        patience: Duration,
    ) -> pingora::Result<Sent> {
        let Some(chunk) = self.waiting.front_mut() else { return Ok(Sent::Whole) };
        self.is_over = chunk.is_empty();
        if room == 0 && !self.is_over {
            return Ok(Sent::Whole);
        }
        let piece = chunk.split_to(room.min(chunk.len()));
        if chunk.is_empty() {
            self.waiting.pop_front();
        }
        match &mut self.way {
            Way::Http1(_) if self.is_over => session.finish_request_body().await.map(|()| Sent::Whole),
            Way::Http1(_) => send::write(session, piece, patience).await,
            Way::Http2(stream) => {
                let sent = stream.send_data(piece, self.is_over);
                sent.map_err(|error| {
                    pingora::Error::because(pingora::ErrorType::WriteError, "while writing a body", error)
                })?;
                Ok(Sent::Whole)
            }
        }
    }
}

/// Waits until the upstream answers. Over HTTP/2 its head is read then.
async fn answered(session: &mut HttpSession) -> Result<(), h2::Error> {
    match session {
        HttpSession::H2(session) => std::future::poll_fn(|context| session.poll_read_response_header(context)).await,
        _ => {
            send::answered(send::watched(session)).await;
            Ok(())
        }
    }
}
