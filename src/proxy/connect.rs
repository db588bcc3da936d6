//! Connections to upstreams: a kept one where there is one, else a new one.

use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use super::kept::Kept;
use super::state::{IDLE_CONNECTION_TIMEOUT, IDLE_CONNECTIONS_MAX};

/// Connects to upstreams and keeps their connections.
pub(super) struct Connectors {
    /// HTTP/1 connections that wait for their next request.
    kept: Kept,
    /// Makes all others, and shares those of HTTP/2.
    maker: Connector,
}

impl Connectors {
    pub(super) fn new(options: ConnectorOptions) -> Self {
        Self { kept: Kept::new(IDLE_CONNECTIONS_MAX, IDLE_CONNECTION_TIMEOUT), maker: Connector::new(Some(options)) }
    }

    /// A session with `peer`, and whether its connection served another before.
    pub(super) async fn session(&self, peer: &HttpPeer) -> pingora::Result<(HttpSession, bool)> {
        match self.kept.take(peer) {
            Some(session) => Ok((HttpSession::H1(session), true)),
            None => self.fresh(peer).await,
        }
    }

    /// As [`Connectors::session`], over no HTTP/1 connection that was kept.
    pub(super) async fn fresh(&self, peer: &HttpPeer) -> pingora::Result<(HttpSession, bool)> {
        // 9 KiB, most of it for a TLS handshake: few requests need it.
        Box::pin(self.maker.get_http_session(peer)).await
    }

    /// Keeps the connection of a session that ended in order.
    pub(super) async fn release(&self, session: HttpSession, peer: &HttpPeer) {
        match session {
            HttpSession::H1(session) => self.kept.put(session, peer).await,
            shared => self.maker.release_http_session(shared, peer, Some(IDLE_CONNECTION_TIMEOUT)).await,
        }
    }

    /// To be called now and then: closes kept connections that nobody could use.
    pub(super) fn sweep(&self) {
        self.kept.sweep();
    }
}
