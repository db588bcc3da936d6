//! An answer that an attempt has brought.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::upstreams::peer::HttpPeer;

use super::outlet::Outlet;
use super::response_reader::ResponseReader;
use crate::proxy::endpoints::lease::Lease;
use crate::proxy::request::client_progress::Upload;

/// An upstream's answer that may be passed on: its head, and what was held back.
pub(crate) struct UpstreamResponse {
    /// Has brought what was held back.
    pub(crate) reader: Box<ResponseReader>,
    pub(crate) peer: Arc<HttpPeer>,
    pub(crate) head: ResponseHeader,
    pub(crate) held: Held,
    /// The rest of a streamed body that the upstream has not got yet.
    pub(crate) upload: Upload,
    /// Its way there.
    pub(crate) outlet: Option<Outlet>,
    /// The upstream answered before it had read the whole request: the connection serves nothing more.
    pub(crate) early: bool,
    pub(crate) ticket: Lease,
    pub(crate) upstream: Arc<str>,
    pub(crate) variant: Arc<str>,
    /// Of the attempt.
    pub(crate) number: usize,
    pub(crate) started: Duration,
}

/// What of an opened answer is needed until its end.
pub(crate) struct Source {
    pub(crate) reader: Box<ResponseReader>,
    pub(crate) peer: Arc<HttpPeer>,
    pub(crate) status: StatusCode,
    pub(crate) upload: Upload,
    pub(crate) outlet: Option<Outlet>,
    /// See [`UpstreamResponse::early`].
    pub(crate) early: bool,
    pub(crate) ticket: Lease,
}

impl UpstreamResponse {
    /// Not in the relay itself, which would keep the room of all the rest for the minutes of a stream.
    pub(crate) fn take_apart(self: Box<Self>) -> (Source, ResponseHeader, Held) {
        let Self { reader, peer, head, held, upload, outlet, early, ticket, .. } = *self;
        (Source { reader, peer, status: head.status, upload, outlet, early, ticket }, head, held)
    }
}

/// The beginning of a body, read while it was open whether it would be passed on.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) chunks: Vec<Bytes>,
    /// This was all of it.
    pub(crate) whole: bool,
}
