//! A way to a Redis that can be cut, slow, or lead nowhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Connections end.
    Cut,
    /// Nothing arrives until the way is another; nobody is told. As on a network that loses packets, nothing is lost by it.
    Nowhere,
    /// Each piece arrives so much later.
    Late(Duration),
}

/// Passes connections on to a unix socket, as far as its way goes.
pub struct Relay {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    trap: watch::Sender<Option<String>>,
}

/// What both directions of all connections look at.
#[derive(Clone)]
struct Ways {
    way: watch::Sender<Way>,
    trap: watch::Sender<Option<String>>,
}

impl Relay {
    pub async fn start(to: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, trap) = (watch::Sender::new(Way::Open), watch::Sender::new(None));
        let ways = Arc::new(Ways { way: way.clone(), trap: trap.clone() });
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (ways, to) = (Arc::clone(&ways), to.clone());
                tokio::spawn(async move {
                    if *ways.way.borrow() == Way::Cut {
                        return;
                    }
                    let Ok(redis) = UnixStream::connect(to).await else { return };
                    let ((from_client, to_client), (from_redis, to_redis)) = (client.into_split(), redis.into_split());
                    let mut way = ways.way.subscribe();
                    tokio::select! {
                        () = ways.pass(from_client, to_redis, true) => {}
                        () = ways.pass(from_redis, to_client, false) => {}
                        _ = way.wait_for(|way| *way == Way::Cut) => {}
                    }
                });
            }
        });
        Self { address, way, trap }
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    pub fn cut(&self, is_cut: bool) {
        self.set(if is_cut { Way::Cut } else { Way::Open });
    }

    /// From the next piece on in which a client says this, the way leads nowhere, that piece included.
    pub fn trap(&self, said: &str) {
        self.trap.send_replace(Some(said.to_owned()));
    }

    /// Resolves once the trap has closed.
    pub async fn trapped(&self) {
        let mut way = self.way.subscribe();
        way.wait_for(|way| *way == Way::Nowhere).await.unwrap();
    }
}

impl Ways {
    async fn pass(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, is_client: bool) {
        let (mut piece, mut way) = (vec![0; 64 << 10], self.way.subscribe());
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let is_trapped = |said: &mut Option<String>| {
                let wanted = said
                    .as_ref()
                    .is_some_and(|said| piece[..length].windows(said.len()).any(|window| window == said.as_bytes()));
                wanted.then(|| said.take()).is_some()
            };
            let is_set = self.trap.borrow().is_some();
            if is_client && is_set && self.trap.send_if_modified(is_trapped) {
                self.way.send_replace(Way::Nowhere);
            }
            let Ok(way) = way.wait_for(|way| *way != Way::Nowhere).await.map(|way| *way) else { return };
            if let Way::Late(time) = way {
                tokio::time::sleep(time).await;
            }
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    }
}
