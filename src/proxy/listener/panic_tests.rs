//! A panic in a stage ends its own request, with one record, and no other.

use std::sync::Arc;

use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::config;
use crate::proxy::Shared;
use crate::proxy::listener::request_head;
use crate::telemetry::Telemetry;

/// What a client sees of a request that panics at `place`, and what is told of it.
async fn served(place: &str) -> (String, Arc<Shared>) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "[[upstream]]\nurl = \"http://{}\"\n[[limit]]\nname = \"l\"\ntokens_per_minute = 1000\n[[route]]\nlimits = [\"l\"]\n",
        upstream.local_addr().unwrap()
    );
    let settings = config::parse(&text, "t.toml", &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = upstream.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    let shared = Shared::new(settings, Telemetry::for_tests());
    let text = exchange(&shared, place).await;
    (text, shared)
}

async fn exchange(shared: &Arc<Shared>, place: &str) -> String {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(door.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = door.accept().await.unwrap();
    let body = r#"{"model":"m","stream":true,"messages":[],"max_tokens":50}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nx-panic: {place}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let session = ServerSession::new_http1(Box::new(Stream::from(accepted)));
    assert!(request_head::serve(shared, Box::new(session)).await.is_none(), "the connection is not used again");
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

async fn assert_told_once_and_others_unharmed(shared: &Arc<Shared>) {
    let (count, records) = shared.telemetry.live().since(0);
    assert_eq!((count, records[0].outcome.as_str()), (1, "internal_error"));
    assert_eq!(records[0].error.map(|error| error.as_str()), Some("panic"));
    assert_eq!((shared.drain.in_flight(), shared.telemetry.live().running()), (0, 0), "nothing is left behind");
    for view in shared.limiter.view(None, 10) {
        assert_eq!((view.standing.taken.tokens_held, view.running), (0, 0), "a panic settles what was held");
    }
    for (_, totals, _) in shared.limiter.usage() {
        assert_eq!(totals.held, totals.debited + totals.released);
    }
    let next = exchange(shared, "nowhere").await;
    assert!(next.starts_with("HTTP/1.1 200") && next.contains("hello"), "{next}");
}

#[tokio::test]
async fn before_the_head_it_is_a_500() {
    let (text, shared) = served("before the head").await;
    assert!(text.starts_with("HTTP/1.1 500"), "{text}");
    let id = shared.telemetry.live().since(0).1[0].request_id.to_string();
    assert!(text.contains(&format!("x-request-id: {id}\r\n")), "the id to report it with: {text}");
    assert!(text.ends_with(&format!("\"request_id\":\"{id}\"}}")), "{text}");
    assert_told_once_and_others_unharmed(&shared).await;
}

#[tokio::test]
async fn after_the_head_it_is_an_abort() {
    let (text, shared) = served("after the head").await;
    assert!(text.starts_with("HTTP/1.1 200") && !text.ends_with("0\r\n\r\n"), "no normal end: {text}");
    assert_told_once_and_others_unharmed(&shared).await;
}
