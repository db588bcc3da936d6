//! Where a route hedges, a second place is asked while the first is silent: the first token wins, and nobody hears of the
//! other.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::backend::{Act, Backend, ROLE, STOP, token};
use crate::support::{Proxy, soon};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

async fn hedged(first: &Backend, second: &Backend, more: &str) -> Proxy {
    hedged_after("50ms", first, second, more).await
}

async fn hedged_after(time: &str, first: &Backend, second: &Backend, more: &str) -> Proxy {
    let route = format!(
        "[[route]]\nname = \"all\"\ntargets = [{{ upstream = \"first\" }}]\nfallback = [{{ upstream = \"second\" }}]\n\
         hedge_after = \"{time}\"\n{more}\n"
    );
    Proxy::start(&format!("{}{}{route}", first.table(""), second.table(""))).await
}

async fn asked(backend: &Backend) {
    soon("a request at the backend", async {
        while backend.log.count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn errors(record: &Value) -> Vec<&str> {
    record["attempts"].as_array().unwrap().iter().map(|attempt| attempt["error_type"].as_str().unwrap_or("")).collect()
}

async fn counted(proxy: &Proxy, result: &str) {
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let series = format!("streamgauge_hedges_total{{route=\"all\",result=\"{result}\"}} 1");
    assert!(metrics.contains(&series), "{metrics}");
    assert!(!metrics.contains("streamgauge_failovers_total{"), "a hedge is no failover");
}

#[tokio::test]
async fn a_silent_first_loses_against_the_second() {
    for silent in [Act::Mute, Act::Silent(vec![ROLE.into(), ROLE.into()])] {
        let first = Backend::start("first", vec![silent]).await;
        let second = Backend::start("second", vec![Act::Stream]).await;
        let proxy = hedged(&first, &second, "").await;
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, "x-request-id: one\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.text(), format!("{ROLE}{}{STOP}", token("second")), "not a byte of the first");
        let record = proxy.record("one").await;
        assert_eq!((errors(&record), &record["upstream"]), (vec!["hedge_lost", ""], &"second".into()));
        counted(&proxy, "won").await;
        first.released().await;
    }
}

#[tokio::test]
async fn both_are_paid_for() {
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":50,\"completion_tokens\":3,\"total_tokens\":53}}\n\n";
    let end = STOP.replace("data: [DONE]\n\n", "");
    let answer = vec![token("second"), end, usage.to_owned(), "data: [DONE]\n\n".to_owned()];
    let first = Backend::start("first", vec![Act::Mute]).await;
    let second = Backend::start("second", vec![Act::Pieces(answer)]).await;
    let more = "limits = [\"budget\"]\n[[limit]]\nname = \"budget\"\nkey = \"global\"\ncost_per_day = 1.0\ntokens_per_minute = 10000\n\
                [[price]]\nmodel = \"*\"\ninput = 1.0\noutput = 10.0";
    let proxy = hedged(&first, &second, more).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: one\r\n").await;
    client.answer().await;
    let record = proxy.record("one").await;
    // Two prompts of 50 tokens, and three tokens of one answer.
    assert_eq!(record["cost_usd"].as_f64().unwrap(), 130e-6, "{record}");
    assert_eq!(record["limit"]["used"], 53, "that it was asked twice is not the caller's doing: {record}");
    let (_, metrics) = proxy.admin_get("/metrics").await;
    for (upstream, kind, tokens) in [("first", "input", 50), ("second", "input", 50), ("second", "output", 3)] {
        let series = format!(
            "streamgauge_tokens_total{{route=\"all\",upstream=\"{upstream}\",model=\"m\",type=\"{kind}\"}} {tokens}\n"
        );
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
    let (_, limits) = proxy.admin_get("/api/limits").await;
    assert!(limits.contains("0.00013"), "the budget pays for both: {limits}");
}

#[tokio::test]
async fn a_first_that_comes_around_wins() {
    let gate = Arc::new(Semaphore::new(0));
    let first = Backend::start("first", vec![Act::Gated(Arc::clone(&gate))]).await;
    let second = Backend::start("second", vec![Act::Mute]).await;
    let proxy = hedged(&first, &second, "").await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: one\r\n").await;
    asked(&second).await;
    gate.add_permits(1);
    assert_eq!(client.answer().await.text(), format!("{}{STOP}", token("first")));
    let record = proxy.record("one").await;
    assert_eq!((errors(&record), &record["upstream"]), (vec!["", "hedge_lost"], &"first".into()));
    counted(&proxy, "lost").await;
    second.released().await;
}

#[tokio::test]
async fn one_that_fails_leaves_it_to_the_other() {
    let gate = Arc::new(Semaphore::new(0));
    let first = Backend::start("first", vec![Act::Gated(Arc::clone(&gate))]).await;
    let second = Backend::start("second", vec![Act::Reset]).await;
    let proxy = hedged(&first, &second, "").await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: one\r\n").await;
    asked(&second).await;
    let in_flight = async || {
        let (_, text) = proxy.admin_get("/api/upstreams").await;
        let told: Value = serde_json::from_str(&text).unwrap();
        told["upstreams"][1]["endpoints"][0]["in_flight"].as_u64().unwrap()
    };
    soon("the second one's failure", async { while in_flight().await > 0 {} }).await;
    gate.add_permits(1);
    assert!(client.answer().await.text().contains("first"));
    assert_eq!(errors(&proxy.record("one").await), ["", "upstream_reset"]);
}

#[tokio::test]
async fn when_both_fail_the_more_telling_answer_is_passed_on() {
    let first = Backend::start("first", vec![Act::Mute]).await;
    let second = Backend::start("second", vec![Act::Status(429, "retry-after: 9\r\n")]).await;
    let proxy = hedged(&first, &second, "timeouts = { first_token = \"400ms\" }").await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: one\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("9")));
    assert_eq!(errors(&proxy.record("one").await), ["first_token_timeout", "upstream_status"]);
    counted(&proxy, "failed").await;
}

#[tokio::test]
async fn a_failure_before_the_time_is_a_failover() {
    let first = Backend::start("first", vec![Act::Status(503, "")]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let proxy = hedged_after("10s", &first, &second, "").await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: one\r\n").await;
    assert!(client.answer().await.text().contains("second"));
    proxy.record("one").await;
    let (_, metrics) = proxy.admin_get("/metrics").await;
    assert!(metrics.contains("streamgauge_failovers_total{from=\"first\",to=\"second\",reason=\"upstream_status\"} 1"));
    assert!(!metrics.contains("streamgauge_hedges_total{"));
}

#[tokio::test]
async fn other_requests_are_never_asked_twice() {
    let gate = Arc::new(Semaphore::new(0));
    let first = Backend::start("first", vec![Act::Gated(Arc::clone(&gate))]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let proxy = hedged(&first, &second, "timeouts = { total = \"300ms\" }").await;
    let mut client = proxy.client().await;
    client.post("/orders", r#"{"buy":1}"#, "").await;
    assert_eq!(client.answer().await.status, 504, "the timeout is far behind the time to hedge");
    assert_eq!((first.log.count(), second.log.count()), (1, 0));

    // Nor is one whose answer comes in one piece: it has no first token that could be late.
    let slow = Backend::start("first", vec![Act::Mute]).await;
    let proxy = hedged(&slow, &second, "timeouts = { total = \"300ms\" }").await;
    client = proxy.client().await;
    client.post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#, "").await;
    assert_eq!(client.answer().await.status, 504);
    assert_eq!((slow.log.count(), second.log.count()), (1, 0));
}
