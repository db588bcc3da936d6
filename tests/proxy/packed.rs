//! Compressed answers: read as any other, and passed on to the byte.

use std::io::Write;

use crate::support::backend::{STOP, token};
use crate::support::{Proxy, Upstream, config};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// What each event adds to the compressed stream.
fn packed(coding: &str, events: &[String]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut take = |all: &[u8], from: usize| {
        pieces.push(all[from..].to_vec());
        all.len()
    };
    let mut from = 0;
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            for event in events {
                encoder.write_all(event.as_bytes()).unwrap();
                encoder.flush().unwrap();
                from = take(encoder.get_ref(), from);
            }
            take(&encoder.finish().unwrap(), from);
        }
        _ => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            for event in events {
                encoder.write_all(event.as_bytes()).unwrap();
                encoder.flush().unwrap();
                from = take(encoder.get_ref(), from);
            }
            take(&encoder.finish().unwrap(), from);
        }
    }
    pieces
}

async fn upstream(coding: &'static str, content: &'static str, pieces: Vec<Vec<u8>>) -> Upstream {
    Upstream::start(move |mut conn| {
        let pieces = pieces.clone();
        async move {
            while conn.request().await.is_some() {
                conn.write(format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: {content}\r\ncontent-encoding: {coding}\r\ntransfer-encoding: chunked\r\n\r\n"
                ))
                .await;
                for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                    conn.chunk(piece).await;
                }
                conn.chunk("").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn compressed_streams_are_read_and_pass_unchanged() {
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":2,\"total_tokens\":13}}\n\n";
    let events = [token("one"), token("two"), usage.to_owned(), STOP.to_owned()];
    for coding in ["gzip", "zstd"] {
        let pieces = packed(coding, &events);
        let upstream = upstream(coding, "text/event-stream", pieces.clone()).await;
        let proxy = Proxy::start(&config(upstream.address, "")).await;
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, "x-request-id: packed\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some(coding)));
        assert!(answer.whole && answer.body == pieces.concat(), "{coding}: not a byte is another");
        let record = proxy.record("packed").await;
        let input = &record["gen_ai.usage.input_tokens"];
        assert_eq!((&record["outcome"], input), (&"completed".into(), &11.into()), "{record}");
    }
}

#[tokio::test]
async fn nothing_is_put_into_a_compressed_stream() {
    let pieces = packed("gzip", &[token("one")]);
    let begun = pieces[0].clone();
    let upstream = Upstream::start(move |mut conn| {
        let begun = begun.clone();
        async move {
            conn.request().await;
            conn.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n").await;
            conn.chunk(begun).await;
            // Longer than the interval of comments.
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        }
    })
    .await;
    let route = "[[route]]\npath = \"*\"\nupstream = \"fake\"\nkeepalive = \"50ms\"\n";
    let proxy = Proxy::start(&config(upstream.address, route)).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    let answer = client.answer().await;
    assert!(!answer.whole, "it broke off");
    assert_eq!(answer.body, pieces[0], "neither a comment nor an error event");
}

#[tokio::test]
async fn what_is_not_what_its_coding_says_passes_all_the_same() {
    let upstream = upstream("gzip", "text/event-stream", vec![b"data: not gzip\n\n".to_vec()]).await;
    let proxy = Proxy::start(&config(upstream.address, "")).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    let answer = client.answer().await;
    assert_eq!((answer.whole, answer.text().as_str()), (true, "data: not gzip\n\n"));
}
