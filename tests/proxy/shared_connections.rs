//! HTTP/2 connections to upstreams, which many requests share: a dead one serves nobody, and a slow reader starves nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::{Proxy, soon};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// An answer that nobody took a byte of for so long is held up.
const HELD_UP: Duration = Duration::from_millis(500);

/// An HTTP/2 upstream. It answers `/big` with bytes for as long as anybody takes them, and tells when that one is held up; all
/// else it answers with a MiB.
async fn upstream(held_up: Arc<Semaphore>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let held_up = Arc::clone(&held_up);
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond, Arc::clone(&held_up)));
                }
            });
        }
    });
    address
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    held_up: Arc<Semaphore>,
) {
    let endless = request.uri().path() == "/big";
    let mut left = if endless { usize::MAX } else { 1 << 20 };
    let Ok(mut body) = respond.send_response(http::Response::new(()), false) else { return };
    while left > 0 {
        body.reserve_capacity(left.min(16 << 10));
        let mut room = tokio::time::timeout(HELD_UP, std::future::poll_fn(|cx| body.poll_capacity(cx))).await;
        if room.is_err() {
            held_up.add_permits(usize::from(endless));
            room = Ok(std::future::poll_fn(|cx| body.poll_capacity(cx)).await);
        }
        let Ok(Some(Ok(room))) = room else { return };
        let piece = room.min(left);
        left -= piece;
        if body.send_data(Bytes::from(vec![b'x'; piece]), left == 0).is_err() {
            return;
        }
    }
}

/// Where nothing is held up.
fn no_one() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

/// A way to `to` whose first connection dies silently when told so: both ends stay open, and nothing passes any more.
struct Hole {
    address: SocketAddr,
    dead: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    /// The proxy has closed the dead connection.
    closed: Arc<Semaphore>,
}

impl Hole {
    async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hole = Self {
            address: listener.local_addr().unwrap(),
            dead: Arc::default(),
            connections: Arc::default(),
            closed: Arc::new(Semaphore::new(0)),
        };
        let (dead, connections, closed) = (hole.dead.clone(), hole.connections.clone(), hole.closed.clone());
        tokio::spawn(async move {
            loop {
                let (ours, _) = listener.accept().await.unwrap();
                let theirs = TcpStream::connect(to).await.unwrap();
                let is_first = connections.fetch_add(1, Ordering::SeqCst) == 0;
                let dead = if is_first { Arc::clone(&dead) } else { Arc::default() };
                let closed = Arc::clone(&closed);
                tokio::spawn(async move {
                    let (mut from_proxy, mut to_proxy) = ours.into_split();
                    let (mut from_upstream, mut to_upstream) = theirs.into_split();
                    let back = async {
                        swallow(&mut from_upstream, &mut to_proxy, &dead).await;
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        () = swallow(&mut from_proxy, &mut to_upstream, &dead) => {}
                        () = back => {}
                    }
                    if is_first {
                        closed.add_permits(1);
                    }
                });
            }
        });
        hole
    }

    fn opens(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }
}

/// Passes bytes on until `dead`, and swallows them from then on; until the end.
async fn swallow(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), dead: &AtomicBool) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if !dead.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn config(address: SocketAddr, upstream: &str, route: &str) -> String {
    format!(
        "[[upstream]]\nname = \"h2\"\nurl = \"http://{address}\"\nprotocol = \"http2\"\n{upstream}\n\
         [[route]]\npath = \"*\"\nupstream = \"h2\"\n{route}\n"
    )
}

#[tokio::test]
async fn a_connection_on_which_an_attempt_timed_out_serves_nobody_any_more() {
    let hole = Hole::before(upstream(no_one()).await).await;
    let times = "timeouts = { first_token = \"500ms\" }";
    let proxy = Proxy::start(&config(hole.address, "ping_interval = \"0s\"", times)).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/warm", "").await.status, 200);
    hole.opens();
    client.post("/v1/chat/completions", CHAT, "").await;
    assert_eq!(client.answer().await.status, 504);
    for _ in 0..2 {
        client.post("/v1/chat/completions", CHAT, "").await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(hole.connections.load(Ordering::SeqCst), 2, "the new one is shared again");
}

#[tokio::test]
async fn pings_find_a_connection_that_died() {
    let hole = Hole::before(upstream(no_one()).await).await;
    let proxy = Proxy::start(&config(hole.address, "ping_interval = \"200ms\"", "")).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/warm", "").await.status, 200);
    hole.opens();
    drop(soon("the dead connection's end", hole.closed.acquire()).await.unwrap());
    assert_eq!(client.get("/again", "").await.status, 200);
    assert_eq!(hole.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_slow_reader_starves_no_other_of_its_connection() {
    let held_up = Arc::new(Semaphore::new(0));
    let hole = Hole::before(upstream(Arc::clone(&held_up)).await).await;
    let proxy = Proxy::start(&config(hole.address, "", "")).await;
    // It asks for much, and reads nothing of it.
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.client().await;
        client.send("GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.until("200 OK").await;
        slow.push(client);
    }
    drop(soon("all three to be held up", held_up.acquire_many(3)).await.unwrap());
    let answer = proxy.client().await.get("/quick", "").await;
    assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
    assert_eq!(hole.connections.load(Ordering::SeqCst), 1, "over the same connection");
}
