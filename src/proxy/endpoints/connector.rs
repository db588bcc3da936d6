//! Connections to upstreams: a kept one where there is one, else a new one, to the first address that answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Peer};

use super::dial::{Dialled, Unconnected, dial};
use super::idle_pool::IdlePool;
use super::shared_h2::SharedConnections;
use super::tls::Handshakes;
use crate::telemetry::record::ErrorType;
use crate::telemetry::throttle::{Rule, Throttle};

/// Idle connections kept per process towards all upstreams.
const IDLE_CONNECTIONS_MAX: usize = 1024;

/// How long an idle upstream connection is kept. Shorter than common server defaults would be safest, but uvicorn closes
/// after 5 s: the race with a closing server is handled by a retry on a fresh connection.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an address may take before the next is tried beside it (RFC 8305, section 5).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried for one connection.
pub(crate) const ADDRESSES_MAX: usize = 6;

/// When the log hears of an address's TLS failures.
const TLS_FAILED: Rule =
    Rule { after: 1, every: Duration::from_secs(60), memory: Duration::from_secs(60), things_max: 1024 };

/// Connects to upstreams and keeps their connections.
pub(crate) struct Connectors {
    /// HTTP/1 connections that wait for their next request.
    kept: IdlePool,
    shared: SharedConnections,
    handshakes: Handshakes,
    /// By an address's hash.
    tls_failed: Throttle<u64>,
}

/// A connection to one of several addresses.
pub(crate) struct First {
    pub(crate) session: HttpSession,
    /// Which of them answered.
    pub(crate) at: usize,
    /// Those that failed, or were asked before and had not answered by then.
    pub(crate) behind: Vec<usize>,
}

impl Connectors {
    pub(crate) fn new() -> Self {
        Self {
            kept: IdlePool::new(IDLE_CONNECTIONS_MAX, IDLE_CONNECTION_TIMEOUT),
            shared: SharedConnections::new(IDLE_CONNECTION_TIMEOUT),
            handshakes: Handshakes::new(),
            tls_failed: Throttle::new(TLS_FAILED),
        }
    }

    /// A session over a connection to `peer` that is there already.
    pub(crate) async fn reused(&self, peer: &HttpPeer) -> Option<HttpSession> {
        if let Some(session) = self.kept.take(peer) {
            return Some(HttpSession::H1(session));
        }
        if peer.options.alpn.get_max_http_version() < 2 {
            return None;
        }
        self.shared.take(peer).await.map(HttpSession::H2)
    }

    /// A session over a new connection.
    pub(crate) async fn fresh(&self, peer: &HttpPeer) -> Result<HttpSession, Unconnected> {
        // Some KiB, most of it for a TLS handshake: few requests need it.
        let dialled = Box::pin(dial(peer, &self.handshakes, peer.h2_ping_interval())).await;
        let connection = match dialled {
            Ok(Dialled::Http1(session)) => return Ok(HttpSession::H1(*session)),
            Ok(Dialled::Http2(connection)) => connection,
            Err(unconnected) => {
                self.say(peer, &unconnected);
                return Err(unconnected);
            }
        };
        let refused = |cause: &str| Unconnected { error: ErrorType::ConnectFailed, cause: cause.to_owned() };
        let session = self.shared.add(connection, peer).await.map_err(|error| refused(error.etype().as_str()))?;
        session.map(HttpSession::H2).ok_or_else(|| refused("it takes no HTTP/2 stream"))
    }

    /// A session over a new connection to the first of `peers` that answers: one after the other is tried, each as soon as
    /// the one before has failed or taken [`STAGGER`], and none is given up for that (RFC 8305). The order is the caller's.
    ///
    /// # Errors
    /// Why the first address failed: none answered.
    pub(crate) async fn first(&self, peers: &[Arc<HttpPeer>]) -> Result<First, Unconnected> {
        let mut waiting = peers.iter().take(ADDRESSES_MAX).enumerate();
        let mut trying = FuturesUnordered::new();
        let (mut failed, mut failure) = (Vec::new(), None);
        let (mut begin, mut begun) = (true, 0);
        loop {
            if std::mem::take(&mut begin)
                && let Some((at, peer)) = waiting.next()
            {
                begun = at + 1;
                trying.push(async move { (at, self.fresh(peer).await) });
            }
            let more = waiting.len() > 0;
            tokio::select! {
                biased;
                ended = trying.next() => match ended {
                    Some((at, Ok(session))) => {
                        let behind = (0..begun).filter(|other| *other < at || failed.contains(other)).collect();
                        return Ok(First { session, at, behind });
                    }
                    Some((at, Err(unconnected))) => {
                        failed.push(at);
                        failure.get_or_insert(unconnected);
                        begin = true;
                    }
                    None => {
                        let none = || Unconnected { error: ErrorType::DnsFailed, cause: "it has no address".to_owned() };
                        return Err(failure.unwrap_or_else(none));
                    }
                },
                () = tokio::time::sleep(STAGGER), if more => begin = true,
            }
        }
    }

    /// Keeps the connection of a session that ended in order.
    pub(crate) async fn release(&self, session: HttpSession, peer: &HttpPeer) {
        match session {
            HttpSession::H1(session) => self.kept.put(session, peer).await,
            // The connection is shared as long as it lives: dropping the session gives its stream back.
            shared => drop(shared),
        }
    }

    /// Nobody is to use a kept connection to `peer` any more: those that are idle are closed.
    pub(crate) fn forget(&self, peer: &HttpPeer) {
        self.kept.forget(peer);
        self.shared.forget(peer);
    }

    /// To be called now and then: closes kept connections that nobody could use.
    pub(crate) fn sweep(&self) {
        self.kept.sweep();
        self.shared.sweep();
    }

    /// Operators mend certificates, so they hear what is wrong with them.
    fn say(&self, peer: &HttpPeer, unconnected: &Unconnected) {
        let failed = unconnected.error == ErrorType::TlsFailed;
        if failed && self.tls_failed.came_up(peer.reuse_hash(), SystemTime::now()).is_some() {
            let (address, name, cause) = (peer.address().to_string(), &*peer.sni, &*unconnected.cause);
            tracing::warn!(
                event = "upstream.tls_failed",
                address,
                name,
                cause,
                "TLS handshake with an upstream failed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;

    fn peer(address: SocketAddr) -> Arc<HttpPeer> {
        Arc::new(HttpPeer::new(address, false, String::new()))
    }

    /// An address that lets connection attempts wait: its queue is full, and nobody accepts.
    struct Silent {
        peer: Arc<HttpPeer>,
        _listener: TcpListener,
        _queued: Vec<TcpStream>,
    }

    impl Silent {
        async fn open() -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let listener = socket.listen(1).unwrap();
            let address = listener.local_addr().unwrap();
            let mut queued = Vec::new();
            while let Ok(one) = tokio::time::timeout(STAGGER, TcpStream::connect(address)).await {
                queued.push(one.unwrap());
            }
            Self { peer: peer(address), _listener: listener, _queued: queued }
        }
    }

    #[tokio::test]
    async fn a_dead_address_costs_a_moment_and_no_more() {
        let dead = Silent::open().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lives = peer(listener.local_addr().unwrap());
        let began = Instant::now();
        let first = Connectors::new().first(&[Arc::clone(&dead.peer), Arc::clone(&dead.peer), lives]).await.unwrap();
        assert_eq!((first.at, first.behind), (2, vec![0, 1]));
        assert!(began.elapsed() >= 2 * STAGGER && began.elapsed() < 10 * STAGGER, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over_at_once() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lives = peer(listener.local_addr().unwrap());
        let first = Connectors::new().first(&[peer(gone), lives]).await.unwrap();
        assert_eq!((first.at, first.behind), (1, vec![0]));
        let failed = Connectors::new().first(&[peer(gone)]).await.err().unwrap();
        assert_eq!(failed.error, ErrorType::ConnectRefused);
        let none = Connectors::new().first(&[]).await.err().unwrap();
        assert_eq!(none.error, ErrorType::DnsFailed);
    }
}
