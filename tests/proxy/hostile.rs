//! Hostile HTTP is refused or normalised, never forwarded ambiguously; slow and many clients are bounded.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::support::{Client, Proxy, Upstream, config, soon};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn ambiguous_requests_never_reach_an_upstream() {
    let upstream = Upstream::fixed(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let battery: [(&str, &str); 16] = [
        ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        ("equal lengths twice", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
        ("a list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc"),
        ("a signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
        ("gzip then chunked", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked then gzip", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("no host", "GET / HTTP/1.1\r\nx: y\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("a folded header", "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c\r\n\r\n"),
        ("a NUL", "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n"),
        ("a space before the colon", "GET / HTTP/1.1\r\nhost: a\r\ncontent-length : 3\r\n\r\nabc"),
        ("TRACE", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n"),
        ("two users", "GET / HTTP/1.1\r\nhost: a\r\nx-user-id: a\r\nx-user-id: b\r\n\r\n"),
        ("chunks over HTTP/1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ];
    for (what, bytes) in battery {
        let mut client = proxy.client().await;
        client.send(bytes).await;
        let answer = client.answer().await;
        assert!((400..=405).contains(&answer.status), "{what}: {}", answer.status);
        client.end().await;
    }
    assert_eq!(upstream.connections(), 0);
    let line = proxy.line("the refusals' records", |line| line["error_type"] == "bad_request").await;
    assert_eq!(line["outcome"], "rejected");
}

#[tokio::test]
async fn a_length_beside_chunks_is_refused() {
    let upstream = Upstream::fixed(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    const LENGTH: &str = "Content-Length: 6\r\n";
    const CHUNKED: &str = "transfer-encoding: chunked\r\n";
    for (first, then) in [(LENGTH, CHUNKED), (CHUNKED, LENGTH)] {
        let mut client = proxy.client().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: a\r\n{first}{then}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("contradict each other"), "{}", answer.text());
        client.end().await;
    }
    assert_eq!(upstream.connections(), 0, "neither the request nor what was hidden in it is passed on");
}

#[tokio::test]
async fn a_head_has_one_deadline_from_its_first_byte_on() {
    let upstream = Upstream::fixed(OK).await;
    let text = format!("[server]\nheader_timeout = \"2s\"\n{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&text).await;
    let mut slow = proxy.client().await;
    let begun = Instant::now();
    slow.send("GET").await;
    // The first bytes are waited for before the protocol is known; the rest has what they left of the time.
    tokio::time::sleep_until(begun + Duration::from_millis(1_500)).await;
    slow.send(" / HTTP/1.1\r\n").await;
    slow.end().await;
    let took = begun.elapsed();
    assert!((1_500..3_200).contains(&took.as_millis()), "{took:?}, and not 1.5 s and then 2 s more");
}

#[tokio::test]
async fn heads_that_are_too_large_or_slow_are_ended() {
    let upstream = Upstream::fixed(OK).await;
    let text = format!("[server]\nheader_timeout = \"300ms\"\n{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&text).await;
    let mut large = proxy.client().await;
    large.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(40_000))).await;
    assert_eq!(large.answer().await.status, 431);

    // Slow at the first bytes, and slow after some.
    for (number, start) in ["G", "GET / HTTP/1.1\r\nhost: a\r\n"].into_iter().enumerate() {
        let mut slow = proxy.client().await;
        slow.send(start).await;
        let answer = slow.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{start:?}");
        slow.end().await;
        let id = answer.header("x-request-id").unwrap();
        assert!(answer.text().contains("server.header_timeout") && answer.text().contains(id), "{}", answer.text());
        let record = proxy.record(id).await;
        assert_eq!((&record["outcome"], &record["error_type"]), (&"rejected".into(), &"head_timeout".into()));
        assert_eq!(record["client.address"], "127.0.0.1", "{record}");
        let (_, metrics) = proxy.admin_get("/metrics").await;
        let told = format!("streamgauge_late_heads_total{{received=\"part\"}} {}", number + 1);
        assert!(metrics.contains(&told), "{told}: {metrics}");
    }
    // Whoever sends nothing has not begun to ask: nothing is said to it, and nothing of it.
    let (mut silent, mut heard) = (proxy.client().await, Vec::new());
    soon("the silent client's end", silent.stream.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"");
    let (_, metrics) = proxy.admin_get("/metrics").await;
    assert!(metrics.contains("streamgauge_late_heads_total{received=\"nothing\"} 1"), "{metrics}");
    // Each byte comes in time, the whole does not.
    let mut dribble = proxy.client().await;
    let ended = async {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            let sent = tokio::io::AsyncWriteExt::write_all(&mut dribble.stream, b"x").await;
            if sent.is_err() {
                return;
            }
        }
    };
    soon("the dribbling client's end", ended).await;
    assert_eq!(proxy.client().await.get("/", "").await.status, 200, "others are served");
}

#[tokio::test]
async fn underscored_headers_do_not_pass() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let answer = proxy.client().await.get("/", "x_user_id: root\r\nx_forwarded_for: 1.2.3.4\r\n").await;
    assert_eq!(answer.status, 200);
    let request = seen.recv().await.unwrap();
    assert!(!request.head.contains("x_"), "servers behind CGI-like interfaces take _ for -: {}", request.head);
}

#[tokio::test]
async fn over_the_caps_there_is_503_and_nobody_else_suffers() {
    let (upstream, mut conns) = Upstream::handed().await;
    let text = format!("[server]\nmax_streams = 1\nmax_connections = 3\n{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&text).await;
    let mut first = proxy.client().await;
    first.send("GET /stream HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut conn = soon("the stream", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.event_stream().await;
    conn.chunk("data: 1\n\n").await;
    first.until("data: 1").await;

    let mut second = proxy.client().await;
    let refused = second.get("/v1/chat/completions", "").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    let _third = proxy.client().await;
    let mut fourth = Client::connect(proxy.listen).await;
    fourth.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let refused = fourth.answer().await;
    assert_eq!(refused.status, 503, "over the connection cap");
    assert!(refused.header("retry-after").is_some());

    conn.chunk("data: 2\n\n").await;
    conn.chunk("").await;
    first.until("data: 2").await;
    first.until("\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn upstreams_that_lie_about_their_framing_are_502() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
    ] {
        let upstream = Upstream::fixed(answer).await;
        let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
        let got = proxy.client().await.get("/x", "x-request-id: lie\r\n").await;
        assert_eq!(got.status, 502, "{answer:?}");
        assert_eq!(proxy.record("lie").await["error_type"], "upstream_protocol", "{answer:?}");
    }
}

#[tokio::test]
async fn an_endless_line_passes_in_bounded_memory() {
    const LINE: usize = 64 * 1024 * 1024;
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.event_stream().await;
        conn.chunk("data: ").await;
        let piece = vec![b'x'; 1024 * 1024];
        for _ in 0..LINE / piece.len() {
            conn.chunk(&piece).await;
        }
        conn.chunk("\n\n").await;
        conn.chunk("").await;
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let answer = proxy.client().await.get("/endless", "x-request-id: endless\r\n").await;
    assert!(answer.whole);
    assert_eq!(answer.body.len(), LINE + 8);
    assert_eq!(proxy.record("endless").await["bytes_out"], LINE + 8);
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid)).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak_kib: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kib < 150_000, "{peak}: the line must not be kept");
}
