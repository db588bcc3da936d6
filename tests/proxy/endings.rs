//! A dirty end never looks like a clean one, and every time limit ends what it is about.

use crate::support::backend::{refusing, table};
use crate::support::{Proxy, Upstream, config, soon};

fn route(more: &str) -> String {
    format!("[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{{ upstream = \"fake\" }}]\n{more}\n")
}

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\n";

/// An upstream that sends `pieces` as chunks and then is cut off.
async fn cut_after(pieces: Vec<Vec<u8>>, reset: bool) -> Upstream {
    Upstream::start(move |mut conn| {
        let pieces = pieces.clone();
        async move {
            if conn.request().await.is_none() {
                return;
            }
            conn.event_stream().await;
            for piece in pieces {
                conn.chunk(piece).await;
            }
            if reset {
                conn.reset();
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_upstream_cut_at_any_byte_is_no_normal_end() {
    let stream = format!("{TOKEN}{TOKEN}");
    let boundary = TOKEN.len();
    for cut in (0..stream.len()).step_by(9).chain([boundary]) {
        let upstream =
            cut_after(vec![stream.as_bytes()[..cut].to_vec()].into_iter().filter(|p| !p.is_empty()).collect(), false)
                .await;
        // Asked for nothing but what the client wants: else the request would go out twice.
        let text = config(upstream.address, &route("")).replace("url =", "ask_usage = \"never\"\nurl =");
        let proxy = Proxy::start(&text).await;
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, "x-request-id: cut\r\n").await;
        let answer = client.answer().await;
        assert!(!answer.whole, "cut at {cut}: the end must be dirty");
        let text = answer.text();
        assert!(text.starts_with(&stream[..cut]), "cut at {cut}: what came is passed on");
        let rest = &text[cut..];
        if cut == 0 || cut == boundary {
            assert!(
                rest.contains("\"error\"") && rest.starts_with("data: "),
                "cut at {cut}: an error event, got {rest:?}"
            );
        } else {
            assert_eq!(rest, "", "cut at {cut}: nothing may be put inside an event");
        }
        let record = proxy.record("cut").await;
        assert_eq!(record["outcome"], "truncated");
        assert_eq!(record["error_type"], "upstream_body_reset");
    }
}

#[tokio::test]
async fn a_reset_upstream_is_no_normal_end() {
    let upstream = cut_after(vec![TOKEN.into()], true).await;
    let proxy = Proxy::start(&config(upstream.address, &route(""))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: cut\r\n").await;
    assert!(!client.answer().await.whole);
    assert_ne!(proxy.record("cut").await["outcome"], "completed");
}

#[tokio::test]
async fn an_http10_client_sees_a_reset_and_no_orderly_close() {
    let upstream = cut_after(vec![TOKEN.into()], false).await;
    let proxy = Proxy::start(&config(upstream.address, &route(""))).await;
    let mut client = proxy.client().await;
    client.send("GET /v1/x HTTP/1.0\r\nhost: a\r\nx-request-id: old\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.header("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
    assert!(!answer.whole, "the connection's end is the body's: it must be a reset");
    assert_eq!(proxy.record("old").await["outcome"], "truncated");
}

#[tokio::test]
async fn a_short_body_under_a_length_is_a_dirty_end() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"half\":").await;
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &route(""))).await;
    let answer = proxy.client().await.get("/x", "x-request-id: short\r\n").await;
    assert!(!answer.whole);
    assert_eq!(proxy.record("short").await["outcome"], "truncated");
}

#[tokio::test]
async fn a_stream_without_its_end_marker_is_truncated() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.event_stream().await;
        conn.chunk(TOKEN).await;
        conn.chunk("").await;
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &route(""))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: cut\r\n").await;
    assert!(client.answer().await.whole, "the framing's end is passed on as it came");
    let record = proxy.record("cut").await;
    assert_eq!((&record["outcome"], &record["error_type"]), (&"truncated".into(), &"missing_end".into()));
}

#[tokio::test]
async fn an_error_event_is_not_success_though_done_follows() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.event_stream().await;
        conn.chunk(TOKEN).await;
        conn.chunk("data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\ndata: [DONE]\n\n").await;
        conn.chunk("").await;
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &route(""))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: oom\r\n").await;
    client.answer().await;
    assert_eq!(proxy.record("oom").await["outcome"], "error_in_stream");
}

/// A silent upstream under `timeouts`, after `pieces`: answer and record.
async fn silent(
    timeouts: &str,
    head: bool,
    pieces: &'static [&'static str],
) -> (crate::support::Answer, serde_json::Value) {
    let upstream = Upstream::start(move |mut conn| async move {
        conn.request().await;
        if head {
            conn.event_stream().await;
        }
        for piece in pieces {
            conn.chunk(piece).await;
        }
        conn.closed().await;
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &route(timeouts))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: slow\r\n").await;
    let answer = client.answer().await;
    (answer, proxy.record("slow").await)
}

#[tokio::test]
async fn no_head_in_time_is_504_in_the_dialect() {
    let (answer, record) = silent("timeouts = { first_token = \"200ms\" }", false, &[]).await;
    assert_eq!(answer.status, 504);
    let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(error["error"]["code"], "first_token_timeout");
    assert!(error["error"]["message"].as_str().unwrap().contains("`fake`"));
    assert_eq!(record["outcome"], "timeout");
}

#[tokio::test]
async fn an_answer_in_one_piece_has_no_first_token_to_wait_for() {
    let upstream = Upstream::start(|mut conn| async move {
        while conn.request().await.is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
            conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").await;
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &route("timeouts = { first_token = \"100ms\" }"))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#, "x-request-id: whole\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(proxy.record("whole").await["outcome"], "completed");
}

#[tokio::test]
async fn a_head_without_a_token_in_time_is_a_timeout() {
    let role: &[&str] =
        &["data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", ": ping\n\n"];
    let (answer, record) = silent("timeouts = { first_token = \"200ms\" }", true, role).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.whole);
    assert!(answer.text().contains("first_token_timeout"), "{}", answer.text());
    assert_eq!((&record["outcome"], &record["error_type"]), (&"timeout".into(), &"first_token_timeout".into()));
}

#[tokio::test]
async fn silence_after_a_token_is_a_stall() {
    let (answer, record) = silent("timeouts = { stall = \"200ms\" }", true, &[TOKEN]).await;
    assert!(!answer.whole);
    assert!(answer.text().contains("\"stall\""), "{}", answer.text());
    assert_eq!(record["outcome"], "stalled");
}

/// The first token sets a shorter time than the one that ran until then.
#[tokio::test]
async fn a_stall_is_noticed_in_time_when_the_first_token_came_late() {
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let (hand, mut conns) = tokio::sync::mpsc::channel(1);
    let upstream = Upstream::start(move |mut conn| {
        let hand = hand.clone();
        async move {
            conn.request().await;
            conn.event_stream().await;
            conn.chunk(role).await;
            hand.send(conn).await.unwrap();
        }
    })
    .await;
    let times = "failover = \"never\"\ntimeouts = { stall = \"200ms\" }";
    let proxy = Proxy::start(&config(upstream.address, &route(times))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: late\r\n").await;
    client.until("assistant").await;
    let mut conn = conns.recv().await.unwrap();
    conn.chunk(TOKEN).await;
    client.until("\"stall\"").await;
    let record = proxy.record("late").await;
    assert_eq!(record["outcome"], "stalled");
    assert!(record["duration_s"].as_f64().unwrap() < 5.0, "{}", record["duration_s"]);
}

#[tokio::test]
async fn the_total_time_ends_a_stream_that_flows() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.event_stream().await;
        let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            every.tick().await;
            conn.chunk(TOKEN).await;
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &route("timeouts = { total = \"300ms\" }"))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: long\r\n").await;
    let answer = client.answer().await;
    assert!(!answer.whole && answer.text().contains("total_timeout"), "{}", answer.text());
    assert_eq!(proxy.record("long").await["outcome"], "timeout");
}

#[tokio::test]
async fn comments_keep_a_silent_stream_alive_between_events_only() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.event_stream().await;
        conn.chunk(TOKEN).await;
        conn.closed().await;
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &route("keepalive = \"100ms\""))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    let text = client.until(": keep-alive\n\n\r\n").await;
    assert!(text.contains(TOKEN.trim_end()));
    client.until(": keep-alive\n\n\r\n").await;

    let within = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.event_stream().await;
        conn.chunk("data: half an ev").await;
        conn.closed().await;
    })
    .await;
    let proxy =
        Proxy::start(&config(within.address, &route("keepalive = \"50ms\"\ntimeouts = { total = \"400ms\" }"))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), "data: half an ev");
}

#[tokio::test]
async fn comments_come_too_where_the_bytes_that_were_held_ended_inside_an_event() {
    let (upstream, mut conns) = Upstream::handed().await;
    // The answer is held, since another could take its place.
    let spare = table("spare", refusing().await, "");
    let more = route("keepalive = \"100ms\"\nfallback = [{ upstream = \"spare\" }]");
    let proxy = Proxy::start(&config(upstream.address, &format!("{spare}{more}"))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    let mut conn = soon("the request", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.event_stream().await;
    // The first token lets the client have it all, and the second has only begun.
    let (begun, rest) = TOKEN.split_at(TOKEN.len() / 2);
    conn.chunk(format!("{TOKEN}{begun}")).await;
    client.until("\"x\"").await;
    conn.chunk(rest).await;
    let text = client.until(": keep-alive\n\n\r\n").await;
    assert!(text.rfind(": keep-alive") > text.rfind("data: "), "between two events: {text}");
}

#[tokio::test]
async fn comments_may_come_before_the_head_when_asked_for() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.closed().await;
    })
    .await;
    let more = route("keepalive = \"50ms\"\nkeepalive_before_headers = true\ntimeouts = { first_token = \"300ms\" }");
    let proxy = Proxy::start(&config(upstream.address, &more)).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: early\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with(": keep-alive\n\n"));
    assert!(answer.text().contains("first_token_timeout"), "{}", answer.text());
    assert!(!answer.whole);
    assert_eq!(proxy.record("early").await["outcome"], "timeout");
}

#[tokio::test]
async fn an_unreachable_upstream_is_502_and_named() {
    let gone = Upstream::fixed("").await;
    let address = gone.address;
    drop(gone);
    let proxy = Proxy::start(&config(address, &route(""))).await;
    let mut client = proxy.client().await;
    client.post("/v1/messages", CHAT, "x-request-id: down\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 502);
    let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(error["type"], "error", "Anthropic's shape on Anthropic's path");
    assert!(error["error"]["message"].as_str().unwrap().contains("refused the connection"));
    assert_eq!(proxy.record("down").await["error_type"], "connect_refused");
}

#[tokio::test]
async fn an_upstream_that_always_has_something_is_ended_in_time_too() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await.unwrap();
        conn.event_stream().await;
        let event = format!("data: {}\n\n", "x".repeat(60_000));
        loop {
            conn.chunk(&event).await;
            if conn.is_gone() {
                return;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &route("timeouts = { total = \"1s\" }"))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: flood\r\n").await;
    client.drain().await;
    let record = proxy.record("flood").await;
    assert_eq!((&record["outcome"], &record["error_type"]), (&"timeout".into(), &"total_timeout".into()));
    assert!(record["duration_s"].as_f64().unwrap() < 5.0, "{}", record["duration_s"]);
}
