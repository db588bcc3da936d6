//! HTTP/1 connections to upstreams that wait for their next request.
//!
//! Not pingora's pool: that watches each connection by a task of its own, which a request that takes the connection races
//! with; who loses opens another, and each request pays for the task. Here a connection is looked at when it is taken, and
//! now and then while it waits.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Peer};
use tokio::io::AsyncReadExt;

/// Waiting connections, bounded.
pub(crate) struct IdlePool {
    idle: Mutex<Idle>,
    max: usize,
    /// How long one waits at most.
    patience: Duration,
}

#[derive(Default)]
struct Idle {
    count: usize,
    /// By [`Peer::reuse_hash`], the one that waits longest first.
    of_peers: HashMap<u64, Vec<Waiting>>,
}

struct Waiting {
    stream: Stream,
    since: Instant,
}

impl IdlePool {
    /// Keeps at most `max` connections, none longer than `patience`.
    pub(crate) fn new(max: usize, patience: Duration) -> Self {
        Self { idle: Mutex::default(), max, patience }
    }

    /// A session over the connection to `peer` that came last.
    pub(crate) fn take(&self, peer: &HttpPeer) -> Option<HttpSession> {
        let key = peer.reuse_hash();
        loop {
            let mut waiting = self.idle().pop(key)?;
            let is_fresh = waiting.since.elapsed() < self.patience;
            if is_fresh && reaches(&waiting.stream, peer) && is_silent(&mut waiting.stream) {
                return Some(HttpSession::new_with_options(waiting.stream, peer));
            }
        }
    }

    /// Keeps the connection of a session that ended, if it can serve another. Where there are too many, the one that waits
    /// longest goes.
    pub(crate) async fn put(&self, mut session: HttpSession, peer: &HttpPeer) {
        session.respect_keepalive();
        let Some(mut stream) = session.reuse().await else { return };
        if is_silent(&mut stream) {
            let waiting = Waiting { stream, since: Instant::now() };
            let gone = self.idle().push(peer.reuse_hash(), waiting, self.max);
            // Closed when nobody waits for the lock.
            drop(gone);
        }
    }

    /// Closes what waits for another request to `peer`: there will be none.
    pub(crate) fn forget(&self, peer: &HttpPeer) {
        let mut idle = self.idle();
        let gone = idle.of_peers.remove(&peer.reuse_hash()).unwrap_or_default();
        idle.count -= gone.len();
        drop(idle);
        // Closed when nobody waits for the lock.
        drop(gone);
    }

    /// Closes what waited too long, and what the upstream closed.
    pub(crate) fn sweep(&self) {
        let mut gone = Vec::new();
        let mut idle = self.idle();
        for waiting in idle.of_peers.values_mut() {
            gone.extend(
                waiting.extract_if(.., |waiting| {
                    waiting.since.elapsed() >= self.patience || !is_silent(&mut waiting.stream)
                }),
            );
        }
        idle.of_peers.retain(|_, waiting| !waiting.is_empty());
        idle.count -= gone.len();
        drop(idle);
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn pop(&mut self, key: u64) -> Option<Waiting> {
        let waiting = self.of_peers.get_mut(&key)?.pop()?;
        self.count -= 1;
        Some(waiting)
    }

    /// Returns the connection that had to go.
    fn push(&mut self, key: u64, waiting: Waiting, max: usize) -> Option<Waiting> {
        self.of_peers.entry(key).or_default().push(waiting);
        self.count += 1;
        if self.count <= max {
            return None;
        }
        let oldest = self.of_peers.values_mut().filter(|waiting| !waiting.is_empty());
        let oldest = oldest.min_by_key(|waiting| waiting.first().map(|waiting| waiting.since))?;
        self.count -= 1;
        Some(oldest.remove(0))
    }
}

/// Whether a connection ends where `peer` is: the system is asked once for each connection.
fn reaches(stream: &Stream, peer: &HttpPeer) -> bool {
    stream.get_socket_digest().is_some_and(|digest| digest.peer_addr() == Some(peer.address()))
}

/// Whether the upstream neither closed the connection nor sent what nobody asked for.
fn is_silent(stream: &mut Stream) -> bool {
    // Unconstrained: a task that has used up its turn would find every connection silent.
    tokio::task::unconstrained(stream.read(&mut [0])).now_or_never().is_none()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::fd::AsRawFd;

    use pingora::protocols::l4::stream::Stream as TcpStream;
    use pingora::protocols::{GetSocketDigest, SocketDigest};
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream as Socket};

    use super::*;

    /// An upstream that takes connections and leaves the rest to the test.
    struct Upstream {
        listener: TcpListener,
        peer: HttpPeer,
    }

    impl Upstream {
        async fn open() -> Self {
            let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
            let peer = HttpPeer::new(listener.local_addr().unwrap(), false, String::new());
            Self { listener, peer }
        }

        /// A connection that has just served a request, and the upstream's end of it.
        async fn connect(&self) -> (Waiting, Socket) {
            let socket = Socket::connect(self.listener.local_addr().unwrap()).await.unwrap();
            let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
            let mut socket = TcpStream::from(socket);
            socket.set_socket_digest(digest);
            let stream: Stream = Box::new(socket);
            (Waiting { stream, since: Instant::now() }, self.listener.accept().await.unwrap().0)
        }

        fn put(&self, kept: &IdlePool, waiting: Waiting) {
            drop(kept.idle().push(self.peer.reuse_hash(), waiting, kept.max));
        }
    }

    fn kept(max: usize) -> IdlePool {
        IdlePool::new(max, Duration::from_secs(60))
    }

    /// Waits until `socket`'s close has arrived at the other end.
    async fn closed(kept: &IdlePool, socket: Socket, left: usize) {
        drop(socket);
        while kept.idle().count > left {
            kept.sweep();
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_last_connection_serves_first() {
        let (upstream, other, kept) = (Upstream::open().await, Upstream::open().await, kept(8));
        let mut ends = Vec::new();
        for _ in 0..2 {
            let (waiting, end) = upstream.connect().await;
            upstream.put(&kept, waiting);
            ends.push(end);
        }
        assert!(kept.take(&other.peer).is_none());
        for end in ends.iter_mut().rev() {
            drop(kept.take(&upstream.peer).unwrap());
            let read = tokio::time::timeout(Duration::from_secs(5), end.read(&mut [0])).await;
            assert_eq!(read.expect("it was this one").unwrap(), 0);
        }
        assert!(kept.take(&upstream.peer).is_none());
        assert_eq!(kept.idle().count, 0);
    }

    #[tokio::test]
    async fn closed_and_talkative_connections_are_not_reused() {
        let (upstream, kept) = (Upstream::open().await, kept(8));
        let (talks, mut end) = upstream.connect().await;
        upstream.put(&kept, talks);
        end.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        while kept.idle().count > 0 {
            kept.sweep();
            tokio::task::yield_now().await;
        }
        let (stays, _end) = upstream.connect().await;
        let (closes, end) = upstream.connect().await;
        upstream.put(&kept, stays);
        upstream.put(&kept, closes);
        closed(&kept, end, 1).await;
        assert!(kept.take(&upstream.peer).is_some() && kept.take(&upstream.peer).is_none());
    }

    #[tokio::test]
    async fn none_waits_longer_than_it_may() {
        let (upstream, kept) = (Upstream::open().await, kept(8));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let mut ends = Vec::new();
        for since in [long_ago, Instant::now(), long_ago] {
            let (waiting, end) = upstream.connect().await;
            upstream.put(&kept, Waiting { since, ..waiting });
            ends.push(end);
        }
        assert!(kept.take(&upstream.peer).is_some(), "the last is passed over");
        kept.sweep();
        assert!(kept.idle().of_peers.is_empty() && kept.idle().count == 0);
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_goes() {
        let (first, second, kept) = (Upstream::open().await, Upstream::open().await, kept(2));
        let mut ends = Vec::new();
        for upstream in [&first, &second, &second] {
            let (waiting, end) = upstream.connect().await;
            upstream.put(&kept, waiting);
            ends.push(end);
        }
        assert_eq!(kept.idle().count, 2);
        assert!(kept.take(&first.peer).is_none());
        assert!(kept.take(&second.peer).is_some() && kept.take(&second.peer).is_some());
    }
}
