//! Where a request's time went: each party's slowness shows as its own, and the parts add up.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::support::{Client, Conn, Proxy, Upstream, config, soon};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const CHAT: &str = r#"{"model":"gpt-test","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

fn token(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n")
}

const END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// A fake model: so long until its head, until its first token, between tokens. Its pace is what is measured, so it keeps
/// time by a clock.
async fn answer(conn: &mut Conn, head: u64, first: u64, pace: u64, tokens: u64) {
    let pause = |millis: u64| sleep_until(Instant::now() + Duration::from_millis(millis));
    pause(head).await;
    conn.event_stream().await;
    for number in 0..tokens {
        pause(if number == 0 { first } else { pace }).await;
        conn.chunk(token("x")).await;
    }
    conn.chunk(END).await;
    conn.chunk("").await;
}

async fn model(head: u64, first: u64, pace: u64, tokens: u64) -> Upstream {
    Upstream::start(move |mut conn| async move {
        while conn.request().await.is_some() {
            answer(&mut conn, head, first, pace, tokens).await;
        }
    })
    .await
}

/// Streams one chat to its end; its record.
async fn chat(proxy: &Proxy, id: &str) -> Value {
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, &format!("x-request-id: {id}\r\n")).await;
    assert!(client.answer().await.whole);
    proxy.record(id).await
}

fn phases(record: &Value) -> HashMap<String, f64> {
    let phases: HashMap<_, _> = record["phases"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(phase, seconds)| (phase.clone(), seconds.as_f64().unwrap()))
        .collect();
    let (sum, duration) = (phases.values().sum::<f64>(), record["duration_s"].as_f64().unwrap());
    assert!((sum - duration).abs() < 2e-5, "the phases add up to {sum}, and the request took {duration}: {record}");
    phases
}

fn of(phases: &HashMap<String, f64>, phase: &str) -> f64 {
    phases.get(phase).copied().unwrap_or(0.0)
}

/// The value of the one series that begins so.
async fn metric(proxy: &Proxy, series: &str) -> f64 {
    let (_, text) = proxy.admin_get("/metrics").await;
    let mut found = text.lines().filter(|line| line.starts_with(series));
    let line = found.next().unwrap_or_else(|| panic!("{series} is missing in {text}"));
    assert!(found.next().is_none(), "{series} is there more than once");
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn a_slow_model_shows_where_it_was_slow() {
    // Head, first token and each further one late by times that cannot be confused.
    let upstream = model(100, 200, 75, 5).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    // A stall of a busy machine moves time from one phase into another: the median of some requests counts.
    let mut records = Vec::new();
    for id in ["m1", "m2", "m3", "m4", "m5"] {
        records.push(chat(&proxy, id).await);
    }
    let all: Vec<_> = records.iter().map(phases).collect();
    let median = |of: &dyn Fn(&HashMap<String, f64>) -> f64| {
        let mut values: Vec<_> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (phase, expected) in [("upstream_wait", 0.1), ("preamble", 0.2), ("generation", 0.3)] {
        let took = median(&|phases| of(phases, phase));
        assert!(took > expected - 0.04 && took < expected + 0.15, "{phase} took {took}, not {expected}: {all:?}");
    }
    let ours = median(&|phases| of(phases, "client_blocked") + of(phases, "proxy") + of(phases, "admit"));
    assert!(ours < 0.1, "{all:?}");
    assert!(records.iter().all(|record| record.get("buffered").is_none()), "{records:?}");
    // Five token frames make four gaps, and each of them counts.
    assert_eq!(metric(&proxy, "streamgauge_token_frame_gap_seconds_count").await, 20.0);
}

#[tokio::test]
async fn a_slow_reader_shows_as_the_client() {
    let (told, mut tell) = mpsc::channel::<()>(1);
    let upstream = Upstream::start(move |mut conn| {
        let told = told.clone();
        async move {
            conn.request().await.unwrap();
            conn.event_stream().await;
            // More than all buffers between here and the client hold.
            let big = token(&"x".repeat(64 * 1024));
            for _ in 0..400 {
                conn.chunk(&big).await;
            }
            conn.chunk(END).await;
            conn.chunk("").await;
            told.send(()).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: slow-reader\r\n").await;
    client.until("data: ").await;
    // The client's pause is the very thing that is measured.
    sleep_until(Instant::now() + Duration::from_millis(1_500)).await;
    assert!(tell.try_recv().is_err(), "the upstream is held back too");
    assert!(client.answer().await.whole);
    soon("the upstream's end", tell.recv()).await.unwrap();
    let record = proxy.record("slow-reader").await;
    let phases = phases(&record);
    assert!(of(&phases, "client_blocked") > 0.5, "{record}");
    assert!(of(&phases, "client_blocked") > of(&phases, "generation"), "{record}");
    let own = metric(&proxy, "streamgauge_overhead_seconds_sum{route=\"all\"}").await;
    let expected = of(&phases, "admit") + of(&phases, "proxy");
    assert!((own - expected).abs() < 1e-4, "the client's time is not ours: {own}, {record}");
    assert!(record.get("buffered").is_none(), "what queued for the client was not held by the upstream: {record}");
}

#[tokio::test]
async fn what_the_proxy_takes_shows_as_its_own() {
    // Nobody can make the proxy slow from outside but by giving it much to do: a body of many small values to look
    // through. The same size as one text is little work, so the difference is the proxy's own.
    let upstream = model(0, 0, 0, 1).await;
    let proxy = Proxy::start(&config(upstream.address, &format!("[server]\nmax_body = \"64MiB\"\n{ROUTE}"))).await;
    let mut own = Vec::new();
    for (id, filler) in
        [("light", format!("\"{}\"", "x".repeat(6_000_000))), ("heavy", format!("[{}0]", "[0],".repeat(1_500_000)))]
    {
        let mut client = proxy.client().await;
        let body = CHAT.replacen('{', &format!("{{\"filler\":{filler},"), 1);
        client.post("/v1/chat/completions", &body, &format!("x-request-id: {id}\r\n")).await;
        assert!(client.answer().await.whole, "{id}");
        let record = proxy.record(id).await;
        let phases = phases(&record);
        own.push(of(&phases, "admit") + of(&phases, "proxy"));
        let sum = metric(&proxy, "streamgauge_overhead_seconds_sum{route=\"all\"}").await;
        assert!((sum - own.iter().sum::<f64>()).abs() < 1e-4, "overhead is admission and the proxy's own: {record}");
    }
    assert!(own[1] > own[0] && own[1] > 0.01, "the work shows: {own:?}");
}

#[tokio::test]
async fn the_parts_add_up_however_a_request_ends() {
    let upstream = Upstream::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            match request.head.split(' ').nth(1).unwrap() {
                "/cut" => {
                    conn.event_stream().await;
                    conn.chunk(token("x")).await;
                    return;
                }
                "/reset" => return conn.reset(),
                "/error" => conn.write("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy").await,
                "/silent" => return conn.closed().await,
                _ => answer(&mut conn, 5, 5, 5, 3).await,
            }
        }
    })
    .await;
    let timeouts = "timeouts = { first_token = \"300ms\" }\n";
    let proxy = Proxy::start(&config(upstream.address, &format!("{ROUTE}{timeouts}"))).await;
    for (path, outcome) in [
        ("/ok", "completed"),
        ("/cut", "truncated"),
        ("/reset", "upstream_error"),
        ("/error", "upstream_error"),
        ("/silent", "timeout"),
    ] {
        let mut client = proxy.client().await;
        client.post(path, CHAT, &format!("x-request-id: r{}\r\n", &path[1..])).await;
        client.answer().await;
        let record = proxy.record(&format!("r{}", &path[1..])).await;
        assert_eq!(record["outcome"], outcome, "{record}");
        phases(&record);
    }
    let mut gone = proxy.client().await;
    gone.post("/silent", CHAT, "x-request-id: gone\r\n").await;
    drop(gone);
    phases(&proxy.record("gone").await);
    let mut bad = proxy.client().await;
    bad.send("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-request-id: bad\r\ncontent-length: 5\r\n\r\nab").await;
    drop(bad);
    phases(&proxy.record("bad").await);
}

#[tokio::test]
async fn a_stream_that_was_collected_on_the_way_is_called_so() {
    let upstream = Upstream::start(|mut conn| async move {
        while conn.request().await.is_some() {
            // As a buffering proxy does: silent while the model works, then all of it.
            sleep_until(Instant::now() + Duration::from_millis(400)).await;
            conn.event_stream().await;
            conn.chunk(token("x").repeat(40)).await;
            conn.chunk(END).await;
            conn.chunk("").await;
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    for number in 0..3 {
        let record = chat(&proxy, &format!("b{number}")).await;
        assert_eq!(record["buffered"], true, "{record}");
    }
    assert_eq!(metric(&proxy, "streamgauge_buffered_streams_total{upstream=\"fake\"}").await, 3.0);
    let warning = proxy.line("a warning", |line| line["event"] == "upstream.buffered").await;
    assert_eq!(warning["upstream"], "fake");
    assert!(warning["message"].as_str().unwrap().contains("proxy_buffering"), "{warning}");
    let (_, streams) = proxy.admin_get("/api/streams").await;
    let streams: Value = serde_json::from_str(&streams).unwrap();
    assert_eq!(streams["hints"][0]["upstream"], "fake", "{streams}");
    let said = proxy.lines().iter().filter(|line| line["event"] == "upstream.buffered").count();
    assert_eq!(said, 1, "once, and not for each stream");
}

/// Fast servers and short answers are no buffering.
#[tokio::test]
async fn what_only_looks_like_it_is_not_called_so() {
    let upstream = Upstream::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            match request.head.split(' ').nth(1).unwrap() {
                // A cached answer: all at once, but at once.
                "/v1/cached/chat/completions" => {
                    conn.event_stream().await;
                    conn.chunk(token("x").repeat(100)).await;
                    conn.chunk(END).await;
                    conn.chunk("").await;
                }
                // One long frame after a long silence.
                "/v1/one/chat/completions" => answer(&mut conn, 300, 0, 0, 1).await,
                _ => answer(&mut conn, 300, 0, 2, 300).await,
            }
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    for kind in ["cached", "one", "fast"] {
        let mut client: Client = proxy.client().await;
        client.post(&format!("/v1/{kind}/chat/completions"), CHAT, &format!("x-request-id: {kind}\r\n")).await;
        assert!(client.answer().await.whole);
        let record = proxy.record(kind).await;
        assert!(record.get("buffered").is_none(), "{record}");
    }
}
