//! Request bodies: JSON is buffered within its bound, all else streams, and early answers are heard.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use crate::support::{Proxy, Upstream, config, soon};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn json_passes_byte_for_byte_at_any_size() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    for size in [0, 1, 1_000, 65_535, 65_537, 300_000, 5_000_000] {
        let body = format!("{{ \"pad\" : \"{}\" }}", "x".repeat(size));
        client.post("/json", &body, "").await;
        assert_eq!(client.answer().await.text(), "ok");
        let request = soon("the request", seen.recv()).await.unwrap();
        assert!(request.body == body.as_bytes(), "size {size}");
        assert_eq!(request.header("content-length"), Some(body.len().to_string().as_str()));
    }
}

#[tokio::test]
async fn chunked_json_is_sent_on_with_its_length() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client
        .send("POST /j HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n5;x=y\r\n\":1 }\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "ok");
    assert_eq!(soon("the request", seen.recv()).await.unwrap().body, b"{\"a\":1 }");
}

#[tokio::test]
async fn a_chunked_body_may_come_byte_by_byte() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    for media_type in ["text/plain", "application/json"] {
        let mut client = proxy.client().await;
        let head =
            format!("POST /d HTTP/1.1\r\nhost: a\r\ncontent-type: {media_type}\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(head).await;
        for byte in b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n" {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.answer().await.text(), "ok");
        assert_eq!(soon("the request", seen.recv()).await.unwrap().body, b"hello world", "{media_type}");
    }
}

#[tokio::test]
async fn a_broken_chunk_is_the_clients_mistake() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client
        .send(
            "POST /j HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        )
        .await;
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(upstream.connections(), 0, "nothing of it reaches an upstream");
}

#[tokio::test]
async fn uploads_stream_while_they_come() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client
        .send(
            "PUT /up HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\ncontent-length: 10\r\n\r\nhello",
        )
        .await;
    let mut conn = soon("the upload's head", conns.recv()).await.unwrap();
    let head = conn.head().await.unwrap();
    assert!(head.to_lowercase().contains("content-length: 10"), "the head comes before the body is whole: {head}");
    assert_eq!(conn.bytes(5).await, b"hello");
    client.send("world").await;
    assert_eq!(conn.bytes(5).await, b"world");
    conn.write(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test]
async fn a_large_upload_arrives_whole_in_both_framings() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut client = proxy.client().await;
    client.send(format!("POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    assert_eq!(client.answer().await.text(), "ok");
    assert!(soon("the upload", seen.recv()).await.unwrap().body == body);

    client.send("POST /up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for piece in body.chunks(70_000) {
        client.send(format!("{:x}\r\n", piece.len())).await;
        client.send(piece).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "ok");
    let request = soon("the upload", seen.recv()).await.unwrap();
    let at = request.body.iter().zip(&body).position(|(a, b)| a != b);
    assert!(request.body == body, "{} of {} bytes, first difference at {at:?}", request.body.len(), body.len());
    assert_eq!(request.header("transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn all_bodies_together_are_bounded_and_room_is_given_back() {
    let (upstream, mut conns) = Upstream::handed().await;
    let bounds = "[server]\nmax_body = \"4KiB\"\nmax_buffered = \"6KiB\"\n";
    let proxy = Proxy::start(&format!("{bounds}{}", config(upstream.address, ROUTE))).await;
    const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let chat = |bytes: usize| format!("{{\"model\":\"m\",\"messages\":[],\"x\":\"{}\"}}", "x".repeat(bytes));
    let path = "/v1/chat/completions";
    let mut first = proxy.client().await;
    first.post(path, &chat(4_000), "x-request-id: first\r\n").await;
    let mut conn = soon("the first request", conns.recv()).await.unwrap();
    conn.request().await.unwrap();

    // The first body is kept while its answer is awaited.
    let mut other = proxy.client().await;
    other.post(path, &chat(3_000), "").await;
    let refused = other.answer().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    let error: serde_json::Value = serde_json::from_str(&refused.text()).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("max_buffered"), "{error}");
    let mut small = proxy.client().await;
    small.post(path, &chat(1_000), "").await;
    let mut beside = soon("a small one", conns.recv()).await.unwrap();
    beside.request().await.unwrap();
    beside.write(LAST).await;
    assert_eq!(small.answer().await.status, 200, "what fits is served");

    conn.write(LAST).await;
    assert_eq!(first.answer().await.status, 200);
    proxy.record("first").await;
    let mut again = proxy.client().await;
    again.post(path, &chat(3_000), "").await;
    let mut conn = soon("the body that was refused before", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.write(LAST).await;
    assert_eq!(again.answer().await.status, 200);
}

#[tokio::test]
async fn what_is_too_large_is_413_before_anything_is_sent() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let bounds = format!("[server]\nmax_body = \"1KiB\"\nmax_upload = \"2KiB\"\n{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&bounds).await;
    let declared = ["application/json\r\ncontent-length: 1025", "image/png\r\ncontent-length: 2049"];
    for head in declared {
        let mut client = proxy.client().await;
        client.send(format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: {head}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 413, "{head}");
        assert!(answer.text().contains("max_"), "says which bound: {}", answer.text());
    }
    // A chunked body has no length to refuse it by.
    let mut client = proxy.client().await;
    let chunk = "x".repeat(1100);
    client
        .send(format!("POST /j HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n", chunk.len()))
        .await;
    assert_eq!(client.answer().await.status, 413);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn an_upload_that_stops_is_408() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let bounds = format!("[server]\nbody_timeout = \"200ms\"\n{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&bounds).await;
    for media_type in ["application/json", "image/png"] {
        let mut client = proxy.client().await;
        client
            .send(format!(
                "POST /up HTTP/1.1\r\nhost: a\r\ncontent-type: {media_type}\r\ncontent-length: 10\r\n\r\n123"
            ))
            .await;
        assert_eq!(client.answer().await.status, 408, "{media_type}");
    }
}

#[tokio::test]
async fn continue_is_said_when_expected() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    for media_type in ["application/json", "text/csv"] {
        let mut client = proxy.client().await;
        client
            .send(format!("POST /e HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-type: {media_type}\r\ncontent-length: 2\r\n\r\n"))
            .await;
        assert_eq!(client.next_answer(true).await.status, 100, "{media_type}");
        client.send("{}").await;
        assert_eq!(client.answer().await.text(), "ok");
        let request = soon("the request", seen.recv()).await.unwrap();
        assert_eq!(request.header("expect"), None, "answered by us");
    }
}

#[tokio::test]
async fn a_request_that_is_answered_before_it_is_whole_leaves_its_connection_to_nobody() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-type: audio/wav\r\ncontent-length: 1000\r\n\r\nhalf").await;
    let mut conn = soon("the upload", conns.recv()).await.unwrap();
    conn.head().await.unwrap();
    assert_eq!(conn.bytes(4).await, b"half");
    conn.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.status, 200);
    // There it would be read as the rest of that body.
    let mut next = proxy.client().await;
    next.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut own = soon("a connection of its own", conns.recv()).await.unwrap();
    assert!(own.head().await.unwrap().starts_with("GET /next "));
    soon("the first connection's end", conn.closed()).await;
    // The client has some time for the rest of its body, and no more.
    client.end().await;
}

#[tokio::test]
async fn an_early_refusal_is_heard_while_uploading() {
    for json in [false, true] {
        let upstream = Upstream::start(|mut conn| async move {
            conn.head().await;
            // Answers, and never reads the body.
            conn.write("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 9\r\nconnection: close\r\n\r\ntoo large")
                .await;
            std::future::pending::<()>().await;
        })
        .await;
        let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
        let client = proxy.client().await;
        let (mut read, mut write) = client.stream.into_split();
        let media_type = if json { "application/json" } else { "application/octet-stream" };
        let writer = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let length = 30_000_000;
            let head = format!(
                "POST /big HTTP/1.1\r\nhost: a\r\nx-request-id: big\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n"
            );
            write.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b' '; 100_000];
            for _ in 0..length / piece.len() {
                if write.write_all(&piece).await.is_err() {
                    break;
                }
            }
            // A closed writing half would mean that the client gave up.
            std::future::pending::<()>().await;
        });
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&answer).contains("too large") {
            let count = soon("the early answer", tokio::io::AsyncReadExt::read(&mut read, &mut piece)).await.unwrap();
            assert!(count > 0, "json {json}: ended before the answer");
            answer.extend_from_slice(&piece[..count]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 413"));
        writer.abort();
    }
}

/// More than the systems between client and upstream take in by themselves.
const MUCH: usize = 32 << 20;

/// Uploads so much, until its end; tells once when nobody takes it for a while.
async fn upload_much(mut to: OwnedWriteHalf, held_up: Arc<Notify>) {
    let head = format!(
        "POST /talk HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\ncontent-length: {MUCH}\r\n\r\n"
    );
    to.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..MUCH / piece.len() {
        let mut written = std::pin::pin!(to.write_all(&piece));
        if tokio::time::timeout(Duration::from_millis(500), &mut written).await.is_err() {
            held_up.notify_one();
            written.await.unwrap();
        }
    }
    // A closed writing half would mean that the client gave up.
    std::future::pending::<()>().await;
}

async fn read_until(from: &mut OwnedReadHalf, word: &str) {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&read).contains(word) {
        let count = soon(word, from.read(&mut piece)).await.unwrap();
        assert!(count > 0, "it ended before {word:?}");
        read.extend_from_slice(&piece[..count]);
    }
}

#[tokio::test]
async fn an_upload_that_is_held_up_goes_on_beside_the_answer() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let (mut read, write) = proxy.client().await.stream.into_split();
    let held_up = Arc::new(Notify::new());
    let writer = tokio::spawn(upload_much(write, Arc::clone(&held_up)));
    let mut conn = soon("the request", conns.recv()).await.unwrap();
    conn.head().await.unwrap();
    soon("the upload to be held up", held_up.notified()).await;
    conn.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    conn.chunk("hello").await;
    read_until(&mut read, "hello").await;
    // Only now it reads on.
    assert_eq!(soon("all of the body", conn.bytes(MUCH)).await.len(), MUCH);
    conn.chunk("goodbye").await;
    conn.write("0\r\n\r\n").await;
    read_until(&mut read, "goodbye").await;
    writer.abort();
}

#[tokio::test]
async fn over_http_2_too_an_upload_that_is_held_up_goes_on_beside_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let may_read = Arc::clone(&go_on);
    let upstream = tokio::spawn(async move {
        let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let connection = tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let mut body = request.into_body();
        // As much as it may send unasked: then it is held up.
        let mut count = 0;
        while count < 65_535 {
            count += soon("the first window", body.data()).await.unwrap().unwrap().len();
        }
        let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
        answer.send_data("hello".into(), false).unwrap();
        may_read.notified().await;
        body.flow_control().release_capacity(count).unwrap();
        while let Some(piece) = soon("the rest", body.data()).await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            count += piece.len();
        }
        answer.send_data("goodbye".into(), true).unwrap();
        (count, connection)
    });
    let text = config(address, ROUTE).replacen("[[upstream]]", "[[upstream]]\nprotocol = \"http2\"", 1);
    let proxy = Proxy::start(&text).await;
    let (mut read, write) = proxy.client().await.stream.into_split();
    let writer = tokio::spawn(upload_much(write, heard));
    read_until(&mut read, "hello").await;
    go_on.notify_one();
    read_until(&mut read, "goodbye").await;
    let (count, connection) = soon("the upstream", upstream).await.unwrap();
    assert_eq!(count, MUCH);
    connection.abort();
    writer.abort();
}

#[tokio::test]
async fn an_answer_may_begin_before_the_upload_ends() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        // Echoes what comes of the chunked upload, as it comes.
        for _ in 0..3 {
            let chunk = String::from_utf8(conn.bytes("3\r\none\r\n".len()).await).unwrap();
            let word = chunk.split("\r\n").nth(1).unwrap().to_owned();
            conn.chunk(format!("<{word}>")).await;
        }
        conn.chunk("").await;
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client
        .send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.until("\r\n\r\n").await;
    for word in ["one", "two", "six"] {
        client.send(format!("3\r\n{word}\r\n")).await;
        client.until(&format!("<{word}>")).await;
    }
    client.send("0\r\n\r\n").await;
    client.until("\r\n0\r\n\r\n").await;
}
