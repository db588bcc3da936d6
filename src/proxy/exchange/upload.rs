//! The rest of the client's body, on its way to the upstream while the answer flows already.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;

use crate::proxy::client::body_pace::BodyPace;
use crate::proxy::client::client_side;
use crate::proxy::request::outcome::Stop;
use crate::proxy::upstream::send::{self, Sent};

/// Where the rest of the client's body goes.
pub(crate) enum Rest {
    /// There is none.
    Done,
    /// To the upstream; first what was read already.
    Forward(Vec<Bytes>),
    /// Nowhere: the upstream has stopped listening.
    Discard,
}

impl Rest {
    /// What is left of `upload`, of a body that `is_done` if it was read to its end; `early`: the upstream answered before it
    /// had read all.
    pub(crate) fn of(upload: client_side::Upload, is_done: bool, early: bool) -> Self {
        match upload {
            _ if is_done && !early => Self::Done,
            Some(mut chunks) if !early => {
                let mut waiting = Vec::new();
                while let Ok(chunk) = chunks.try_recv() {
                    waiting.push(chunk);
                }
                Self::Forward(waiting)
            }
            _ if is_done => Self::Done,
            _ => Self::Discard,
        }
    }

    /// Whether the upstream has all of the body.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Reads the client's side: more of its body, or the sign that it went. A body of a length that was told keeps its pace to the
    /// end, as does one that nobody takes any more. One without a length may be half of a conversation, in which the client has
    /// nothing to say for a while: each of its turns keeps the pace.
    pub(crate) async fn read(
        &self,
        client: &mut ServerSession,
        pace: &mut BodyPace,
        has_length: bool,
    ) -> Result<Option<Bytes>, Stop> {
        match self {
            Self::Done => match client.read_body_or_idle(true).await {
                Ok(_) | Err(_) => Err(Stop::ClientGone),
            },
            Self::Forward(_) if !has_length => pace.read_turn(client).await,
            Self::Forward(_) | Self::Discard => pace.read_chunk(client).await,
        }
    }

    /// The upstream said something: what the client says next is another turn, where they may be talking.
    pub(crate) fn answered(&self, pace: &mut BodyPace, has_length: bool) {
        if matches!(self, Self::Forward(_)) && !has_length {
            pace.answered();
        }
    }

    /// Sends what the client sent of its body before the head of the answer came.
    pub(crate) async fn forward_waiting(&mut self, source: &mut HttpSession, patience: Duration) {
        let Self::Forward(waiting) = self else { return };
        for piece in std::mem::take(waiting) {
            // An empty piece is the end of the body.
            self.forward(source, Some(piece).filter(|piece| !piece.is_empty()), patience).await;
        }
    }

    /// Sends one more piece on; `None` is the end.
    pub(crate) async fn forward(&mut self, source: &mut HttpSession, chunk: Option<Bytes>, patience: Duration) {
        let forwards = matches!(self, Self::Forward(_));
        match chunk {
            None => {
                if forwards {
                    // A failure shows at the next read.
                    let _ = source.finish_request_body().await;
                }
                *self = Self::Done;
            }
            Some(chunk) if forwards => {
                if !matches!(send::write(source, chunk, patience).await, Ok(Sent::Whole)) {
                    *self = Self::Discard;
                }
            }
            Some(_) => {}
        }
    }
}
