//! HTTP/2 connections to upstreams, each shared by many requests.
//!
//! A connection on which an attempt timed out serves nobody any more: it may be the connection that is dead, and a request
//! that asks the next place over it would wait for nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pingora::connectors::http::v2::ConnectionRef;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::upstreams::peer::{HttpPeer, Peer};

/// Connections that turn out to take no stream after all, before a new one is made.
const MISSES_MAX: usize = 4;

/// The connections that are open, by [`Peer::reuse_hash`].
pub(crate) struct SharedConnections {
    open: Mutex<HashMap<u64, Vec<Open>>>,
    /// How long one without a request is kept.
    patience: Duration,
}

struct Open {
    connection: ConnectionRef,
    idle_since: Option<Instant>,
}

impl Open {
    fn is_usable(&self) -> bool {
        let connection = &self.connection;
        !connection.is_closed() && !connection.is_shutting_down() && !connection.ping_timedout()
    }
}

impl SharedConnections {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { open: Mutex::default(), patience }
    }

    /// A stream of a connection to `peer` that is open already.
    pub(crate) async fn take(&self, peer: &HttpPeer) -> Option<Http2Session> {
        let key = peer.reuse_hash();
        for _ in 0..MISSES_MAX {
            let connection = self.choose(key)?;
            match connection.spawn_stream().await {
                Ok(Some(session)) => return Some(session),
                // Another request was faster, or the upstream lets it go.
                Ok(None) => {}
                Err(_) => connection.mark_shutdown(),
            }
        }
        None
    }

    /// A first stream of a new connection, which others may share from now on.
    pub(crate) async fn add(
        &self,
        connection: ConnectionRef,
        peer: &HttpPeer,
    ) -> pingora::Result<Option<Http2Session>> {
        let session = connection.spawn_stream().await?;
        if session.is_some() {
            self.open().entry(peer.reuse_hash()).or_default().push(Open { connection, idle_since: None });
        }
        Ok(session)
    }

    /// Lets go of connections that are over, and of those that nobody needed for too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut gone = Vec::new();
        let mut open = self.open();
        for connections in open.values_mut() {
            gone.extend(connections.extract_if(.., |one| {
                one.idle_since = one.connection.is_idle().then(|| one.idle_since.unwrap_or(now));
                !one.is_usable() || one.idle_since.is_some_and(|since| now.duration_since(since) >= self.patience)
            }));
        }
        open.retain(|_, connections| !connections.is_empty());
        drop(open);
        // Closed when nobody waits for the lock; those that still have streams end with them.
        drop(gone);
    }

    /// Opens no more streams on the connections to `peer`; each ends with its last stream.
    pub(crate) fn forget(&self, peer: &HttpPeer) {
        let gone = self.open().remove(&peer.reuse_hash());
        drop(gone);
    }

    fn choose(&self, key: u64) -> Option<ConnectionRef> {
        let mut open = self.open();
        let connections = open.get_mut(&key)?;
        connections.retain(Open::is_usable);
        let one = connections.iter_mut().find(|one| one.connection.more_streams_allowed())?;
        one.idle_since = None;
        Some(one.connection.clone())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Vec<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt timed out: where others share its connection, no more will.
pub(crate) fn retire(session: &HttpSession) {
    if let Some(session) = session.as_http2() {
        session.conn.mark_shutdown();
    }
}
