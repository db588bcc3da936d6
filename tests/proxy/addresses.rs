//! A name with an IPv6 and an IPv4 address of which one does not answer: no request fails, and none waits long (RFC 8305).

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::{Proxy, Upstream};

/// How long an address may take before the next is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);

/// Far less than a connection may take, and than the first answer would if one address had to fail before the next is tried.
const SOON: Duration = Duration::from_secs(3);

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// A library that lets `two.test` have two addresses.
fn names(directory: &tempfile::TempDir) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/support/two_addresses.c");
    let library = directory.path().join("two_addresses.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.unwrap().success(), "the linker's C compiler builds it");
    library
}

/// A port at which both loopback addresses are free: a listener on 127.0.0.1, and a socket that is bound to ::1.
async fn both() -> (TcpListener, TcpSocket) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = TcpSocket::new_v6().unwrap();
        if socket.bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).is_ok() {
            return (listener, socket);
        }
    }
}

fn serve(listener: TcpListener) -> Upstream {
    Upstream::on(listener, |mut conn| async move {
        while conn.request().await.is_some() {
            conn.write(OK).await;
        }
    })
}

/// Lets connection attempts at ::1 wait: its queue is full, and nobody accepts.
async fn fill(socket: TcpSocket) -> (TcpListener, Vec<TcpStream>) {
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(one) = tokio::time::timeout(STAGGER, TcpStream::connect(address)).await {
        queued.push(one.unwrap());
    }
    (listener, queued)
}

/// Asks until ::1 has been taken out; how long the slowest request took.
async fn ask_until_it_is_found_out(port: u16) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let library = names(&directory);
    let text = format!("[[upstream]]\nname = \"two\"\nurl = \"http://two.test:{port}\"\n");
    let proxy = Proxy::start_with(&text, &[("LD_PRELOAD", library.to_str().unwrap())]).await;
    let mut slowest = Duration::ZERO;
    for request in 0..100 {
        let began = Instant::now();
        let answer = proxy.client().await.get("/", &format!("x-request-id: {request}\r\n")).await;
        let took = began.elapsed();
        assert_eq!(answer.status, 200, "{request}: {}", answer.text());
        assert!(took < SOON, "{request}: {took:?}");
        slowest = slowest.max(took);
        let record = proxy.record(&request.to_string()).await;
        assert_eq!(
            record["attempts"].as_array().unwrap().len(),
            1,
            "to reach another address is no failover: {record}"
        );
        let (_, view) = proxy.admin_get("/api/upstreams").await;
        let view: Value = serde_json::from_str(&view).unwrap();
        if view["upstreams"][0]["endpoints"][0]["ejected_addresses"] == 1 {
            return slowest;
        }
    }
    panic!("::1 was never found out");
}

#[tokio::test]
async fn an_address_that_swallows_connections_costs_a_moment() {
    let (listener, socket) = both().await;
    let _black_hole = fill(socket).await;
    let port = listener.local_addr().unwrap().port();
    let _upstream = serve(listener);
    let slowest = ask_until_it_is_found_out(port).await;
    assert!(slowest >= STAGGER, "::1 is waited for before 127.0.0.1 is tried beside it: {slowest:?}");
}

#[tokio::test]
async fn an_address_at_which_nobody_listens_costs_nothing() {
    // Bound and not listening: it refuses, and nobody else can take the port.
    let (listener, _bound) = both().await;
    let port = listener.local_addr().unwrap().port();
    let _upstream = serve(listener);
    ask_until_it_is_found_out(port).await;
}
