//! A failed attempt is replaced until the first token, by the route's rule, and never after it.

use std::time::Duration;

use serde_json::Value;

use crate::support::backend::{Act, Backend, ERROR_EVENT, ROLE, STOP, refusing, table, token};
use crate::support::{Answer, Proxy, Upstream};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// A route to `first`, and to `second` when that fails.
fn route(more: &str) -> String {
    format!(
        "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{{ upstream = \"first\" }}]\n\
         fallback = [{{ upstream = \"second\" }}]\n{more}\n"
    )
}

/// A proxy in front of two backends.
async fn between(first: &Backend, second: &Backend, more: &str) -> Proxy {
    Proxy::start(&format!("{}{}{}", first.table(""), second.table(""), route(more))).await
}

async fn chat(proxy: &Proxy) -> (Answer, Value) {
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: one\r\n").await;
    (client.answer().await, proxy.record("one").await)
}

/// What was wrong with each attempt.
fn errors(record: &Value) -> Vec<&str> {
    record["attempts"].as_array().unwrap().iter().map(|attempt| attempt["error_type"].as_str().unwrap_or("")).collect()
}

#[tokio::test]
async fn whatever_fails_before_the_first_token_is_replaced() {
    let acts = [
        (Act::Status(429, "retry-after: 7\r\n"), "upstream_status"),
        (Act::Status(500, ""), "upstream_status"),
        (Act::Status(502, ""), "upstream_status"),
        (Act::Status(503, ""), "upstream_status"),
        (Act::Status(504, ""), "upstream_status"),
        (Act::Status(529, ""), "upstream_status"),
        (Act::Reset, "upstream_reset"),
        (Act::Close, "upstream_reset"),
        (Act::HalfHead, "upstream_reset"),
        (Act::Pieces(vec![ERROR_EVENT.into(), STOP.into()]), "error_event"),
        (Act::Pieces(vec![ROLE.into(), ERROR_EVENT.into()]), "error_event"),
        (Act::Pieces(vec![ROLE.into()]), "missing_end"),
        (Act::Pieces(vec![]), "missing_end"),
        (Act::Dies(vec![]), "upstream_body_reset"),
        (Act::Dies(vec![ROLE.into(), ROLE.into()]), "upstream_body_reset"),
        (Act::Dies(vec![token("half")[..20].to_owned()]), "upstream_body_reset"),
        (Act::Silent(vec![]), "first_token_timeout"),
        (Act::Silent(vec![ROLE.into(), ": ping\n\n".into()]), "first_token_timeout"),
        (Act::Mute, "first_token_timeout"),
    ];
    for (act, error) in acts {
        let told = format!("{act:?}");
        let first = Backend::start("first", vec![act]).await;
        let second = Backend::start("second", vec![Act::Stream]).await;
        let proxy = between(&first, &second, "timeouts = { first_token = \"300ms\" }").await;
        let (answer, record) = chat(&proxy).await;
        assert_eq!((answer.status, answer.whole), (200, true), "{told}");
        assert_eq!(answer.text(), format!("{ROLE}{}{STOP}", token("second")), "{told}: not a byte of the first");
        assert_eq!((first.log.count(), second.log.count()), (1, 1), "{told}");
        assert_eq!((&record["outcome"], &record["upstream"]), (&"completed".into(), &"second".into()), "{told}");
        assert_eq!(errors(&record), [error, ""], "{told}");
        assert!(record["phases"]["failed_attempts"].as_f64().unwrap() > 0.0, "{told}: {record}");
        let phases: f64 = record["phases"].as_object().unwrap().values().map(|time| time.as_f64().unwrap()).sum();
        assert!((phases - record["duration_s"].as_f64().unwrap()).abs() < 1e-4, "{told}: phases add up: {record}");
    }
}

#[tokio::test]
async fn an_event_that_nobody_knows_is_passed_on_at_once() {
    let cases = [
        ("/v1/chat/completions", CHAT, "data: {\"object\":\"search.results\",\"results\":[1]}\n\n"),
        ("/v1/messages", CHAT, "event: citation\ndata: {\"type\":\"citation\"}\n\n"),
        ("/v1/responses", CHAT, "data: {\"type\":\"response.canvas.drawn\"}\n\n"),
        ("/v1beta/models/m:streamGenerateContent?alt=sse", CHAT, "data: {\"picture\":1}\n\n"),
    ];
    for (path, body, event) in cases {
        let first = Backend::start("first", vec![Act::Silent(vec![event.into()])]).await;
        let second = Backend::start("second", vec![Act::Stream]).await;
        let proxy = between(&first, &second, "timeouts = { first_token = \"500ms\" }").await;
        let mut client = proxy.client().await;
        client.post(path, body, "x-request-id: one\r\n").await;
        client.until(event.trim_end()).await;
        let record = proxy.record("one").await;
        assert_eq!(record["error_type"], "first_token_timeout", "{path}: what came was no token: {record}");
        assert_eq!((errors(&record).len(), second.log.count()), (1, 0), "{path}: and nobody else is asked: {record}");
    }
}

#[tokio::test]
async fn a_stream_that_is_no_llms_is_passed_on_and_nobody_else_is_asked() {
    let lost = [(Act::Dies(vec![": ping\n\n".into()]), false), (Act::Pieces(vec![ERROR_EVENT.into()]), true)];
    for (act, whole) in lost {
        let told = format!("{act:?}");
        let first = Backend::start("first", vec![act]).await;
        let second = Backend::start("second", vec![Act::Stream]).await;
        let proxy = between(&first, &second, "timeouts = { first_token = \"300ms\" }").await;
        let answer = proxy.client().await.get("/stream", "accept: text/event-stream\r\n").await;
        assert_eq!((answer.whole, second.log.count()), (whole, 0), "{told}: {}", answer.text());
    }
    // Nor where nothing was streamed: it may have acted.
    let first = Backend::start("first", vec![Act::Reset]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let proxy = between(&first, &second, "").await;
    assert_eq!(proxy.client().await.get("/stream", "").await.status, 502);
    assert_eq!(second.log.count(), 0);
}

#[tokio::test]
async fn answers_in_one_piece_are_replaced_too() {
    for act in [Act::Status(500, ""), Act::Reset, Act::HalfHead] {
        let told = format!("{act:?}");
        let first = Backend::start("first", vec![act]).await;
        let second = Backend::start("second", vec![Act::Json]).await;
        let proxy = between(&first, &second, "").await;
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#, "").await;
        let answer = client.answer().await;
        assert!(answer.status == 200 && answer.text().contains("second"), "{told}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_client_that_goes_while_attempts_are_made_frees_them_all() {
    let first = Backend::start("first", vec![Act::Silent(vec![ROLE.into()])]).await;
    let second = Backend::start("second", vec![Act::Mute]).await;
    let proxy = between(&first, &second, "hedge_after = \"30ms\"").await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: gone\r\n").await;
    crate::support::soon("both to be asked", async {
        while second.log.count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(client);
    first.released().await;
    second.released().await;
    let record = proxy.record("gone").await;
    assert_eq!((&record["outcome"], errors(&record)), (&"client_cancelled".into(), vec!["", ""]));
}

#[tokio::test]
async fn a_refused_connection_is_replaced_for_every_request() {
    let second = Backend::start("second", vec![Act::Status(200, "")]).await;
    let text = format!("{}{}{}", table("first", refusing().await, ""), second.table(""), route(""));
    let proxy = Proxy::start(&text).await;
    for (path, body) in [("/v1/chat/completions", CHAT), ("/orders", r#"{"buy":1}"#)] {
        let mut client = proxy.client().await;
        client.post(path, body, "").await;
        assert_eq!(client.answer().await.status, 200);
    }
    let mut client = proxy.client().await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\nx-request-id: last\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!(client.answer().await.status, 200, "nothing of a streamed upload was sent, so that it can go elsewhere");
    assert_eq!(second.log.all().last().unwrap().body, b"hello");
    proxy.record("last").await;
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let failovers = "streamgauge_failovers_total{from=\"first\",to=\"second\",reason=\"connect_refused\"} 3";
    assert!(metrics.contains(failovers), "{metrics}");
}

#[tokio::test]
async fn other_requests_are_not_sent_twice() {
    for (rule, expected) in [("llm", 1), ("unsent", 1), ("never", 1), ("always", 2)] {
        let first = Backend::start("first", vec![Act::Status(503, "")]).await;
        let second = Backend::start("second", vec![Act::Status(200, "")]).await;
        let proxy = between(&first, &second, &format!("failover = \"{rule}\"")).await;
        let mut client = proxy.client().await;
        client.post("/orders", r#"{"buy":1}"#, "").await;
        let answer = client.answer().await;
        assert_eq!(first.log.count() + second.log.count(), expected, "{rule}");
        assert_eq!(answer.status, if expected == 2 { 200 } else { 503 }, "{rule}");
        assert!(expected == 2 || answer.text().contains("first says 503"), "{rule}: the upstream's own words");
    }
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_replaced() {
    let silent = Upstream::start(|mut conn| async move { conn.closed().await }).await;
    let rude = Upstream::start(|mut conn| async move { conn.write("HTTP/1.1 400 X\r\n\r\n").await }).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    for (first, error) in [(&silent, "connect_timeout"), (&rude, "tls_failed")] {
        let tls = format!("[[upstream]]\nname = \"first\"\nurl = \"https://{}\"\n", first.address);
        let times = "timeouts = { connect = \"200ms\" }";
        let proxy = Proxy::start(&format!("{tls}{}{}", second.table(""), route(times))).await;
        let (answer, record) = chat(&proxy).await;
        assert_eq!((answer.status, errors(&record)), (200, vec![error, ""]));
    }
}

#[tokio::test]
async fn slow_is_not_failed() {
    let whole = format!("{ROLE}{}{STOP}", token("first"));
    let drips = whole.as_bytes().chunks(7).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect();
    let late = Act::Paced { first: Duration::from_millis(200), then: Duration::from_millis(1), tokens: 3 };
    for act in [Act::Pieces(drips), late] {
        let first = Backend::start("first", vec![act]).await;
        let second = Backend::start("second", vec![Act::Stream]).await;
        let proxy = between(&first, &second, "timeouts = { first_token = \"5s\" }").await;
        let (answer, record) = chat(&proxy).await;
        assert!(answer.whole && answer.text().contains("first") && answer.text().ends_with(STOP));
        assert_eq!((errors(&record), second.log.count()), (vec![""], 0));
    }
}

#[tokio::test]
async fn the_rules_hold_for_llm_requests_too() {
    for (rule, expected) in [("llm", 200), ("always", 200), ("unsent", 503), ("never", 503)] {
        let first = Backend::start("first", vec![Act::Status(503, "")]).await;
        let second = Backend::start("second", vec![Act::Stream]).await;
        let proxy = between(&first, &second, &format!("failover = \"{rule}\"")).await;
        assert_eq!(chat(&proxy).await.0.status, expected, "{rule}");
    }
}

#[tokio::test]
async fn a_streamed_upload_is_never_sent_twice() {
    let first = Backend::start("first", vec![Act::Status(503, "")]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let proxy = between(&first, &second, "failover = \"always\"").await;
    let mut client = proxy.client().await;
    client.send("POST /v1/audio HTTP/1.1\r\nhost: a\r\ncontent-type: audio/wav\r\ncontent-length: 4\r\n\r\nRIFF").await;
    assert_eq!(client.answer().await.status, 503);
    assert_eq!(second.log.count(), 0);
}

#[tokio::test]
async fn after_the_first_token_nothing_is_replaced() {
    for act in [Act::Dies(vec![token("first")]), Act::Silent(vec![token("first")])] {
        let first = Backend::start("first", vec![act]).await;
        let second = Backend::start("second", vec![Act::Stream]).await;
        let proxy = between(&first, &second, "timeouts = { first_token = \"2s\", stall = \"200ms\" }").await;
        let (answer, record) = chat(&proxy).await;
        assert!(!answer.whole, "the end is dirty");
        let text = answer.text();
        assert!(text.starts_with(&token("first")) && !text.contains("second"), "two tokens are never mixed: {text}");
        assert_eq!(second.log.count(), 0);
        assert_eq!(record["upstream"], "first");
    }
}

#[tokio::test]
async fn the_answer_that_tells_most_is_passed_on_when_all_fail() {
    let first = Backend::start("first", vec![Act::Status(429, "retry-after: 7\r\nx-own: kept\r\n")]).await;
    let second = Backend::start("second", vec![Act::Status(502, "")]).await;
    let proxy = between(&first, &second, "").await;
    let (answer, record) = chat(&proxy).await;
    assert_eq!((answer.status, answer.header("retry-after"), answer.header("x-own")), (429, Some("7"), Some("kept")));
    assert!(answer.text().contains("first says 429"), "{}", answer.text());
    assert_eq!((&record["outcome"], &record["status"]), (&"upstream_error".into(), &Value::Null));
    assert_eq!(errors(&record), ["upstream_status", "upstream_status"]);
    assert_eq!(record["upstream"], "first", "the one whose answer it is");
}

#[tokio::test]
async fn an_answer_is_worth_more_than_none() {
    let first = Backend::start("first", vec![Act::Pieces(vec![ERROR_EVENT.into()])]).await;
    let second = Backend::start("second", vec![Act::Reset]).await;
    let proxy = between(&first, &second, "").await;
    let (answer, record) = chat(&proxy).await;
    assert_eq!((answer.status, answer.text()), (200, ERROR_EVENT.to_owned()));
    assert_eq!(record["outcome"], "error_in_stream");

    let first = Backend::start("first", vec![Act::Reset]).await;
    let second = Backend::start("second", vec![Act::Reset]).await;
    let proxy = between(&first, &second, "").await;
    let (answer, _) = chat(&proxy).await;
    assert_eq!(answer.status, 502, "nobody said anything: our own words");
    assert!(answer.text().contains("closed the connection without an answer"), "{}", answer.text());
}

#[tokio::test]
async fn attempts_are_bounded() {
    for attempts in [1, 2] {
        let first = Backend::start("first", vec![Act::Status(503, "")]).await;
        let second = Backend::start("second", vec![Act::Status(503, "")]).await;
        let third = Backend::start("third", vec![Act::Stream]).await;
        let text = format!(
            "{}{}{}[[route]]\ntargets = [{{ upstream = \"first\" }}]\nfallback = [{{ upstream = \"second\" }}, \
             {{ upstream = \"third\" }}]\nretries = {{ attempts = {attempts} }}\n",
            first.table(""),
            second.table(""),
            third.table("")
        );
        let proxy = Proxy::start(&text).await;
        assert_eq!(chat(&proxy).await.0.status, 503);
        assert_eq!((first.log.count() + second.log.count(), third.log.count()), (attempts, 0));
    }
}

#[tokio::test]
async fn the_budget_bounds_what_is_sent_again_and_passes_the_rest_on() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    // A 429 ejects nobody: what is sent again is not sent again for that.
    let first = Backend::start("first", vec![Act::Status(429, "retry-after: 3\r\n")]).await;
    let second = Backend::start("second", vec![Act::Gated(std::sync::Arc::clone(&gate))]).await;
    let proxy = between(&first, &second, "retries = { attempts = 2, budget = 0.0 }").await;
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, "").await;
        waiting.push(client);
    }
    // All ten that the floor allows are at the second backend before the next comes.
    crate::support::soon("ten requests at the second backend", async {
        while second.log.count() < 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (answer, _) = chat(&proxy).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3")));
    assert_eq!(second.log.count(), 10);
    gate.add_permits(1);
    for client in &mut waiting {
        assert!(client.answer().await.text().contains("second"));
    }
}

#[tokio::test]
async fn a_target_can_have_its_own_model_and_path() {
    let first = Backend::start("first", vec![Act::Status(503, "")]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let text = format!(
        "{}{}[[route]]\npath = \"/api/*\"\ntargets = [{{ upstream = \"first\", model = \"m1\" }}]\n\
         fallback = [{{ upstream = \"second\", model = \"m\\\"2\", path = \"/v2\" }}]\n",
        first.table("ask_usage = \"never\""),
        second.table("ask_usage = \"never\"")
    );
    let proxy = Proxy::start(&text).await;
    let mut client = proxy.client().await;
    let body = "{ \"messages\":[{\"model\":\"inner\"}],  \"model\" : \"m\" , \"stream\":true, \"n\": 1.0 }";
    client.post("/api/chat/completions?q=1", body, "").await;
    assert_eq!(client.answer().await.status, 200);
    let (asked, again) = (&first.log.all()[0], &second.log.all()[0]);
    assert_eq!(String::from_utf8_lossy(&asked.body), body.replace("\"m\"", "\"m1\""));
    assert_eq!(String::from_utf8_lossy(&again.body), body.replace("\"m\"", "\"m\\\"2\""));
    assert!(asked.head.starts_with("POST /api/chat/completions?q=1 "), "{}", asked.head);
    assert!(again.head.starts_with("POST /v2/chat/completions?q=1 "), "{}", again.head);
    assert_eq!(asked.header("x-request-id"), again.header("x-request-id"));
    assert_ne!(asked.header("traceparent"), again.header("traceparent"), "each attempt has its span");
}

#[tokio::test]
async fn with_nobody_left_to_ask_nothing_is_held_back() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let only = Backend::start("only", vec![Act::Silent(vec![ROLE.into()])]).await;
    let proxy = Proxy::start(&only.table("")).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    client.until("\"role\"").await;
    drop(gate);
}

#[tokio::test]
async fn a_preamble_is_held_back_within_bounds() {
    let long = format!(": {}\n\n", "x".repeat(70 * 1024));
    let first = Backend::start("first", vec![Act::Silent(vec![long])]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let proxy = between(&first, &second, "").await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    client.until("xxxx").await;
    assert_eq!(second.log.count(), 0);
}

#[tokio::test]
async fn after_an_early_head_only_a_stream_may_follow() {
    let early = "keepalive = \"50ms\"\nkeepalive_before_headers = true\ntimeouts = { first_token = \"400ms\" }";
    let first = Backend::start("first", vec![Act::Mute]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let proxy = between(&first, &second, early).await;
    let (answer, _) = chat(&proxy).await;
    let text = answer.text();
    assert!(answer.whole && text.starts_with(": keep-alive\n\n") && text.ends_with(STOP), "{text}");

    let first = Backend::start("first", vec![Act::Mute]).await;
    let second = Backend::start("second", vec![Act::Status(404, "")]).await;
    let proxy = between(&first, &second, early).await;
    let (answer, _) = chat(&proxy).await;
    let text = answer.text();
    assert_eq!(answer.status, 200);
    assert!(!answer.whole && text.contains("\"error\"") && !text.contains("second says"), "{text}");
}
