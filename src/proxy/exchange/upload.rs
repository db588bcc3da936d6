//! The rest of the client's body, on its way to the upstream while the answer flows already.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;

use crate::proxy::client::body_pace::BodyPace;
use crate::proxy::request::client_progress::Upload;
use crate::proxy::request::outcome::Stop;
use crate::proxy::upstream::outlet::Outlet;
use crate::proxy::upstream::send::Sent;

/// Where the rest of the client's body goes.
pub(crate) enum Rest {
    /// There is none.
    Done,
    /// To the upstream.
    Forward(Box<Outlet>),
    /// Nowhere: the upstream has stopped listening.
    Discard,
}

/// What there is to do for the body.
pub(crate) enum Turn {
    /// The client sent more of it; `None` is the end.
    Chunk(Option<Bytes>),
    /// So many bytes of what it sent may go to the upstream; `None`: it takes no more.
    Room(Option<usize>),
}

impl Rest {
    /// What is left of `upload`, of a body that `is_done` if it was read to its end; `early`: the upstream takes no more.
    pub(crate) fn of(upload: Upload, outlet: Option<Outlet>, is_done: bool, early: bool) -> Self {
        match (upload, outlet) {
            (Some(mut chunks), Some(mut outlet)) if !early && !outlet.is_over() => {
                while let Ok(chunk) = chunks.try_recv() {
                    outlet.take(chunk);
                }
                Self::Forward(Box::new(outlet))
            }
            _ if is_done => Self::Done,
            _ => Self::Discard,
        }
    }

    /// Whether the upstream has all of the body.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Waits for what is next: room for what the client sent, or else more of its body, or the sign that it went. Nothing is read
    /// of the client before all that it sent has gone out.
    ///
    /// A body of a length that was told keeps its pace to the end, as does one that nobody takes any more. One without a length
    /// may be half of a conversation, in which the client has nothing to say for a while: each of its turns keeps the pace.
    pub(crate) async fn next(
        &mut self,
        client: &mut ServerSession,
        pace: &mut BodyPace,
        has_length: bool,
    ) -> Result<Turn, Stop> {
        let chunk = match self {
            Self::Done => match client.read_body_or_idle(true).await {
                Ok(_) | Err(_) => Err(Stop::ClientGone),
            },
            Self::Forward(outlet) if !outlet.is_clear() => return Ok(Turn::Room(outlet.room().await)),
            Self::Forward(_) if !has_length => pace.read_turn(client).await,
            Self::Forward(_) | Self::Discard => pace.read_chunk(client).await,
        };
        chunk.map(Turn::Chunk)
    }

    /// The upstream said something: what the client says next is another turn, where they may be talking.
    pub(crate) fn answered(&self, pace: &mut BodyPace, has_length: bool) {
        if matches!(self, Self::Forward(_)) && !has_length {
            pace.answered();
        }
    }

    /// Does what [`Rest::next`] told.
    pub(crate) async fn take(&mut self, session: &mut HttpSession, turn: Turn, patience: Duration) {
        match (&mut *self, turn) {
            // To an outlet an empty chunk is the end.
            (Self::Forward(_), Turn::Chunk(Some(chunk))) if chunk.is_empty() => {}
            (Self::Forward(outlet), Turn::Chunk(chunk)) => outlet.take(chunk.unwrap_or_default()),
            (Self::Forward(outlet), Turn::Room(Some(room))) => {
                let sent = outlet.write(session, room, patience).await;
                if outlet.is_over() {
                    // Where it failed, the next read shows it.
                    *self = Self::Done;
                } else if !matches!(sent, Ok(Sent::Whole)) {
                    *self = Self::Discard;
                }
            }
            (Self::Forward(_), Turn::Room(None)) => *self = Self::Discard,
            (_, Turn::Chunk(None)) => *self = Self::Done,
            (Self::Done | Self::Discard, _) => {}
        }
    }
}
