//! An answer that an attempt has brought.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use super::hold::Upload;
use super::tap::Tap;
use super::ticket::Ticket;
use crate::policy::deadlines::Deadlines;

/// An upstream's answer that may be passed on: its head, and what was held back.
pub(super) struct Opened {
    pub(super) session: HttpSession,
    pub(super) peer: Arc<HttpPeer>,
    pub(super) head: ResponseHeader,
    /// Has seen what was held back.
    pub(super) tap: Tap,
    pub(super) held: Held,
    /// The rest of a streamed body that the upstream has not got yet.
    pub(super) upload: Upload,
    /// The upstream answered before it had read the whole request: the connection serves nothing more.
    pub(super) early: bool,
    pub(super) ticket: Ticket,
    pub(super) upstream: Arc<str>,
    pub(super) variant: Arc<str>,
    /// Of the attempt.
    pub(super) number: usize,
    pub(super) started: Duration,
    /// The clocks that run on it.
    pub(super) deadlines: Deadlines,
}

/// What of an opened answer is needed until its end.
pub(super) struct Source {
    pub(super) session: HttpSession,
    pub(super) peer: Arc<HttpPeer>,
    pub(super) status: StatusCode,
    pub(super) tap: Tap,
    pub(super) upload: Upload,
    /// See [`Opened::early`].
    pub(super) early: bool,
    pub(super) ticket: Ticket,
}

impl Opened {
    /// Not in the relay itself, which would keep the room of all the rest for the minutes of a stream.
    pub(super) fn take_apart(self: Box<Self>) -> (Source, ResponseHeader, Held) {
        let Self { session, peer, head, tap, held, upload, early, ticket, .. } = *self;
        (Source { session, peer, status: head.status, tap, upload, early, ticket }, head, held)
    }
}

/// The beginning of a body, read while it was open whether it would be passed on.
#[derive(Default)]
pub(super) struct Held {
    pub(super) chunks: Vec<Bytes>,
    /// This was all of it.
    pub(super) whole: bool,
}
