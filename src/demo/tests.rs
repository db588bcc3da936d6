use super::*;
use crate::llm::{Dialect, Framing, Gauge, StreamEnd};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn started() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, "", std::future::pending()));
    address
}

/// Head and raw body of one request; the connection is read to its end.
async fn ask(address: SocketAddr, target: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-request-id: t\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    let (head, rest) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), rest.to_owned())
}

/// The payload of a chunked body.
fn unchunked(mut raw: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = raw.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        text.push_str(&rest[..size]);
        raw = &rest[size + 2..];
    }
    text
}

#[tokio::test]
async fn every_dialect_is_read_by_the_gauge_as_it_was_meant() {
    let address = started().await;
    let stream = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
    for (target, dialect, framing) in [
        ("/v1/chat/completions", Dialect::OpenAiChat, Framing::Sse),
        ("/v1/messages", Dialect::Anthropic, Framing::Sse),
        ("/api/chat", Dialect::Ollama, Framing::JsonLines),
        ("/api/generate", Dialect::Ollama, Framing::JsonLines),
        ("/api/v1/chat", Dialect::PlainSse, Framing::Sse),
    ] {
        let (_, raw) = ask(address, &format!("{target}?ttft_ms=0&gap_ms=0&tokens=5&pings=2"), stream).await;
        let mut gauge = Gauge::new(dialect, framing, Default::default(), Duration::from_secs(1));
        gauge.feed(unchunked(&raw).as_bytes(), Duration::from_millis(5));
        gauge.finish(StreamEnd::Clean, Duration::from_millis(6));
        let reading = gauge.reading();
        assert_eq!(reading.token_frames, 5, "{target}: {raw}");
        assert!(reading.normal_end, "{target}");
        if dialect != Dialect::PlainSse {
            assert_eq!((reading.usage.input, reading.usage.output), (Some(9), Some(5)), "{target}");
        }
    }
}

#[tokio::test]
async fn knobs_break_answers_as_asked() {
    let address = started().await;
    let (head, _) = ask(address, "/v1/models?status=429&retry_after=7", "").await;
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 7"), "{head}");
    let (_, raw) = ask(address, "/api/v1/stream?ttft_ms=0&gap_ms=0&cut_at=2", "").await;
    assert!(!raw.ends_with("0\r\n\r\n") && raw.matches("token").count() == 2, "{raw}");
    let (_, raw) = ask(address, "/api/v1/stream?ttft_ms=0&gap_ms=0&error_at=1", "").await;
    assert!(raw.contains("asked for") && raw.ends_with("0\r\n\r\n"), "{raw}");
    let (_, stats) = ask(address, "/__stats", "").await;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!((&stats["requests"]["t"], &stats["open"]), (&4.into(), &1.into()));
    assert_eq!(stats["aborted"], 1, "the one that was cut");
}

#[test]
fn typed_knobs_are_looked_over() {
    assert_eq!(super::script::check("ttft_ms=300&no_done&fail_percent=5"), Ok(()));
    assert!(super::script::check("ttfb=1").unwrap_err().contains("ttft_ms"));
    assert!(super::script::check("ttft_ms=fast").unwrap_err().contains("ttft_ms=20"));
}
