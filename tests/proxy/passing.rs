//! Streams pass unbuffered and unchanged, and are measured.

use crate::support::{Proxy, Upstream, config, soon};
use tokio::sync::mpsc;

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const CHAT: &str = r#"{"model":"gpt-test","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

fn chat_chunk(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-test-1\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

#[tokio::test]
async fn each_event_reaches_the_client_before_the_next_is_sent() {
    // The upstream sends an event only when the client has told that it got the one before.
    let (got, mut told) = mpsc::channel::<()>(1);
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let server = tokio::spawn(async move {
        let mut conn = conns.recv().await.unwrap();
        conn.request().await.unwrap();
        conn.event_stream().await;
        for number in 0..20 {
            conn.chunk(format!("data: event-{number};\n\n")).await;
            told.recv().await.unwrap();
        }
        conn.chunk("").await;
        assert!(conn.request().await.is_none());
    });
    let mut client = proxy.client().await;
    client.send("GET /stream HTTP/1.1\r\nhost: app.test\r\nx-request-id: r1\r\n\r\n").await;
    for number in 0..20 {
        client.until(&format!("event-{number};")).await;
        got.send(()).await.unwrap();
    }
    client.until("\r\n0\r\n\r\n").await;
    let record = proxy.record("r1").await;
    assert_eq!(record["outcome"], "completed");
    assert_eq!(record["events"], 20);
    drop(client);
    drop(proxy);
    soon("the fake", server).await.unwrap();
}

#[tokio::test]
async fn bytes_out_equal_bytes_in_whatever_the_pieces() {
    // Every byte value, line ends of all kinds, and multi-byte characters cut apart.
    let mut stream =
        b"\xef\xbb\xbf: hello\r\ndata: a\r\rdata: \xf0\x9f\x8c\x8a\n\nevent: odd\ndata: {\"x\": 1}\n\n".to_vec();
    stream.extend(0..=255);
    stream.extend(b"\n\ndata: [DONE]\n\n");
    for size in [1, 2, 3, 7, 64, 1000] {
        let body = stream.clone();
        let upstream = Upstream::start(move |mut conn| {
            let body = body.clone();
            async move {
                conn.request().await.unwrap();
                conn.event_stream().await;
                for piece in body.chunks(size) {
                    conn.chunk(piece).await;
                }
                conn.chunk("").await;
            }
        })
        .await;
        let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
        let answer = proxy.client().await.get("/bytes", "").await;
        assert!(answer.whole);
        assert_eq!(answer.body, stream, "in pieces of {size}");
    }
}

#[tokio::test]
async fn what_came_at_once_goes_at_once() {
    let chunked = |body: &str| format!("{:X}\r\n{body}\r\n", body.len());
    let events = ["one", "two", "three"].map(|text| format!("data: {text}\n\n"));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = format!("{head}{}0\r\n\r\n", events.each_ref().map(|event| chunked(event)).concat());
    let upstream = Upstream::fixed(answer).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.send("GET /events HTTP/1.1\r\nhost: a\r\nx-request-id: r1\r\n\r\n").await;
    let got = client.until("\r\n0\r\n\r\n").await;
    assert!(got.contains(&chunked(&events.concat())), "{got}");
    assert_eq!(proxy.record("r1").await["outcome"], "completed");
}

#[tokio::test]
async fn a_chat_stream_is_measured_by_its_tokens() {
    let body = [
        chat_chunk(r#"{"role":"assistant","content":""}"#, "null"),
        ": ping\n\n".to_owned(),
        chat_chunk(r#"{"content":"Hel"}"#, "null"),
        chat_chunk(r#"{"content":"lo"}"#, "null"),
        chat_chunk("{}", "\"stop\""),
        "data: [DONE]\n\n".to_owned(),
    ];
    let upstream = Upstream::start(move |mut conn| {
        let body = body.clone();
        async move {
            conn.request().await.unwrap();
            conn.event_stream().await;
            for piece in &body {
                conn.chunk(piece).await;
            }
            conn.chunk("").await;
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: r1\r\n").await;
    let answer = client.answer().await;
    assert!(answer.whole);
    assert_eq!(answer.header("x-request-id"), Some("r1"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"));
    assert!(answer.header("server-timing").unwrap().contains("upstream;dur="));

    let record = proxy.record("r1").await;
    assert_eq!(record["event"], "llm.request");
    assert_eq!(record["outcome"], "completed");
    assert_eq!(record["gen_ai.request.model"], "gpt-test");
    assert_eq!(record["gen_ai.response.model"], "gpt-test-1");
    assert_eq!(record["gen_ai.response.finish_reasons"][0], "stop");
    assert_eq!(record["upstream"], "fake");
    assert_eq!(record["route"], "all");
    assert!(record["ttft_s"].as_f64().unwrap() > 0.0);
    let phases: f64 = record["phases"].as_object().unwrap().values().map(|value| value.as_f64().unwrap()).sum();
    let duration = record["duration_s"].as_f64().unwrap();
    assert!((phases - duration).abs() < 1e-5, "phases {phases} must add up to {duration}");

    let (status, metrics) = proxy.admin_get("/metrics").await;
    assert_eq!(status, 200);
    let ttft = metrics
        .lines()
        .find(|line| line.starts_with("gen_ai_server_time_to_first_token_seconds_count"))
        .expect("the time to first token is a metric");
    assert!(ttft.ends_with(" 1"), "{ttft}");
}

#[tokio::test]
async fn a_connection_serves_many_requests_on_both_sides() {
    let upstream =
        Upstream::fixed("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    for number in 0..50 {
        client.post(&format!("/n/{number}"), "{\"a\":1}", "").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    }
    assert_eq!(upstream.connections(), 1, "kept alive towards the upstream");
}

#[tokio::test]
async fn no_config_file_is_needed() {
    let upstream = Upstream::fixed("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let mut proxy = std::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"))
        .args(["run", "--upstream", &format!("http://{}", upstream.address)])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = std::io::BufReader::new(proxy.stdout.take().unwrap());
    let listen = tokio::task::spawn_blocking(move || {
        std::io::BufRead::lines(stdout)
            .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
            .find(|line| line["event"] == "started")
            .map(|line| line["listen"].as_str().unwrap().parse().unwrap())
    });
    let listen = soon("the start line", listen).await.unwrap().unwrap();
    let answer = crate::support::Client::connect(listen).await.get("/any", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    proxy.kill().unwrap();
    proxy.wait().unwrap();
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_end_no_stream() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.send("GET /first HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut conn = soon("the first request", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.event_stream().await;
    conn.chunk("data: 1\n\n").await;
    client.until("data: 1").await;
    // Comes while the first answer streams.
    client.send("GET /second HTTP/1.1\r\nhost: a\r\n\r\nGET /third HTTP/1.1\r\nhost: a\r\n\r\n").await;
    conn.chunk("data: 2\n\n").await;
    client.until("data: 2").await;
    conn.chunk("").await;
    assert!(client.answer().await.whole);
    for path in ["/second", "/third"] {
        let seen = soon("the next request", conn.request()).await.unwrap();
        assert!(seen.head.starts_with(&format!("GET {path} ")), "{}", seen.head);
        conn.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())).await;
        assert_eq!(client.answer().await.text(), path);
    }
}
