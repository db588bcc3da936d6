//! Copies of requests: measured, compared and dropped, within their caps, and never in a client's way.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::backend::{Act, Backend, ERROR_EVENT, ROLE, STOP, refusing, table, token};
use crate::support::{Answer, Proxy, soon};
use crate::traces::http_collector;

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8}}\n\n";

/// A route to `first` whose requests are all copied to `second`.
fn route(more: &str) -> String {
    format!(
        "[[route]]\nname = \"chat\"\npath = \"*\"\nupstream = \"first\"\n\
         shadow = {{ upstream = \"second\", percent = 100, model = \"m2\"{more} }}\n"
    )
}

async fn between(first: &Backend, second: &Backend, more: &str) -> Proxy {
    Proxy::start(&format!("{}{}{}", first.table(""), second.table(""), route(more))).await
}

async fn chat(proxy: &Proxy, id: &str) -> Answer {
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, &format!("x-request-id: {id}\r\n")).await;
    client.answer().await
}

/// The line that tells of the copy of a request.
async fn compared(proxy: &Proxy, id: &str) -> Value {
    proxy.line("the comparison", |line| line["event"] == "llm.shadow" && line["request_id"] == id).await
}

/// Waits until so many copies have come to this.
async fn counted(proxy: &Proxy, result: &str, times: u64) -> String {
    let wanted = format!("streamgauge_shadow_requests_total{{route=\"chat\",result=\"{result}\"}} {times}\n");
    soon(&wanted, async {
        loop {
            let (_, metrics) = proxy.admin_get("/metrics").await;
            if metrics.contains(&wanted) {
                return metrics;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_copy_goes_to_the_other_upstream_and_is_told_apart() {
    let first = Backend::start("first", vec![Act::Stream]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let proxy = between(&first, &second, "").await;
    let answer = chat(&proxy, "one").await;
    assert_eq!(answer.text(), format!("{ROLE}{}{STOP}", token("first")), "the client's own, and nothing else");
    let line = compared(&proxy, "one").await;
    assert_eq!((&line["result"], &line["differences"]), (&"same".into(), &"".into()), "{line}");
    assert_eq!((&line["status"], &line["client_status"]), (&200.into(), &200.into()));
    assert!(line["ttft_s"].as_f64().unwrap() > 0.0 && line["client_ttft_s"].as_f64().unwrap() > 0.0, "{line}");
    let [original, copy] = [&first.log.all()[0], &second.log.all()[0]];
    assert_eq!(copy.header("x-streamgauge-shadow"), Some("true"));
    assert_eq!(copy.header("x-request-id"), Some("one-shadow"));
    assert_eq!((original.header("x-streamgauge-shadow"), original.header("x-request-id")), (None, Some("one")));
    let model = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["model"].clone();
    assert_eq!((model(&original.body), model(&copy.body)), ("m".into(), "m2".into()));
    let trace = |seen: &crate::support::Seen| seen.header("traceparent").unwrap()[3..35].to_owned();
    assert_eq!(trace(original), trace(copy), "one trace");
}

#[tokio::test]
async fn nothing_of_a_copy_is_in_the_numbers_of_requests() {
    let pieces = |count: usize| {
        let words = (0..count).map(|_| token("word")).chain([STOP.replace("data: [DONE]\n\n", ""), USAGE.into()]);
        Act::Pieces(words.chain(["data: [DONE]\n\n".to_owned()]).collect())
    };
    let first = Backend::start("first", vec![pieces(3)]).await;
    let second = Backend::start("second", vec![pieces(3)]).await;
    let (collector, mut spans) = http_collector().await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1.0\n[[price]]\nmodel = \"m*\"\ninput = 1.0\noutput = 2.0\n{}{}{}",
        collector.address,
        first.table(""),
        second.table(""),
        route("")
    );
    let proxy = Proxy::start(&text).await;
    chat(&proxy, "one").await;
    compared(&proxy, "one").await;
    let metrics = counted(&proxy, "same", 1).await;
    let total = |name: &str| -> f64 {
        let values = metrics.lines().filter(|line| line.starts_with(name)).map(|line| line.rsplit_once(' ').unwrap().1);
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    };
    assert_eq!(total("streamgauge_requests_total"), 1.0);
    assert_eq!(total("streamgauge_attempts_total"), 1.0);
    assert_eq!(total("gen_ai_server_time_to_first_token_seconds_count"), 1.0);
    assert_eq!(total("streamgauge_tokens_total"), 8.0, "five in, three out, once");
    assert!((total("streamgauge_cost_usd_total") - 11e-6).abs() < 1e-12, "{metrics}");
    assert!((total("streamgauge_shadow_cost_usd_total") - 11e-6).abs() < 1e-12, "{metrics}");
    assert_eq!(total("streamgauge_shadow_compared_output_tokens_total{route=\"chat\",side=\"shadow\"}"), 3.0);
    for side in ["primary", "shadow"] {
        let count = format!("streamgauge_shadow_compared_first_token_seconds_count{{route=\"chat\",side=\"{side}\"}}");
        assert_eq!(total(&count), 1.0, "{side}");
    }
    let mut all = Vec::new();
    while all.len() < 4 {
        all.push(soon("a span", spans.recv()).await.unwrap());
    }
    let has = |span: &opentelemetry_proto::tonic::trace::v1::Span, prefix: &str| {
        span.attributes.iter().any(|attribute| attribute.key.starts_with(prefix))
    };
    let copy = all.iter().find(|span| has(span, "streamgauge.shadow")).expect("a span of the copy");
    let server = all.iter().find(|span| span.name.starts_with("POST /v1")).expect("the request's span");
    assert_eq!((&copy.trace_id, &copy.parent_span_id), (&server.trace_id, &server.span_id));
    assert!(!has(copy, "gen_ai."), "backends would add it up: {copy:?}");
    assert_eq!(all.iter().filter(|span| has(span, "gen_ai.usage")).count(), 1);
}

#[tokio::test]
async fn differences_are_told_by_what_users_would_notice() {
    let long = (0..60).map(|at| token(&format!("word{at} "))).chain([STOP.to_owned()]).collect();
    let cut = STOP.replace("\"stop\"", "\"length\"");
    let cases = [
        (Act::Status(404, ""), "differs", "status"),
        (Act::Status(503, ""), "differs", "status"),
        (Act::Pieces(long), "differs", "length"),
        (Act::Pieces(vec![token("first"), cut]), "differs", "finish_reason"),
        (Act::Reset, "failed", ""),
        (Act::Dies(vec![token("half")]), "failed", ""),
        (Act::Pieces(vec![token("half")]), "failed", ""),
        (Act::Pieces(vec![token("half"), ERROR_EVENT.into()]), "failed", ""),
        (Act::Silent(vec![ROLE.into()]), "failed", ""),
        (Act::Silent(vec![token("half")]), "failed", ""),
        (Act::Mute, "failed", ""),
    ];
    for (act, result, differences) in cases {
        let told = format!("{act:?}");
        let first = Backend::start("first", vec![Act::Stream]).await;
        let second = Backend::start("second", vec![act]).await;
        let times = "timeouts = { first_token = \"400ms\", stall = \"400ms\" }\n";
        let proxy = Proxy::start(&format!("{}{}{}{times}", first.table(""), second.table(""), route(""))).await;
        assert_eq!(chat(&proxy, "one").await.text(), format!("{ROLE}{}{STOP}", token("first")), "{told}");
        let line = compared(&proxy, "one").await;
        assert_eq!((&line["result"], &line["differences"]), (&result.into(), &differences.into()), "{told}: {line}");
        let shown: Value = serde_json::from_str(&proxy.admin_get("/api/streams").await.1).unwrap();
        let shown = &shown["shadows"][0];
        assert_eq!((&shown["route"], &shown[result]), (&"chat".into(), &1.into()), "{told}: {shown}");
        if !differences.is_empty() {
            assert_eq!(shown["differences"][differences]["count"], 1, "{told}: {shown}");
        }
    }
}

#[tokio::test]
async fn a_late_first_token_and_a_refused_connection_are_told() {
    let late = Act::Paced { first: std::time::Duration::from_millis(400), then: std::time::Duration::ZERO, tokens: 1 };
    let first = Backend::start("first", vec![Act::Stream]).await;
    let second = Backend::start("second", vec![late]).await;
    let proxy = between(&first, &second, "").await;
    chat(&proxy, "one").await;
    assert_eq!(compared(&proxy, "one").await["differences"], "first_token");

    let proxy =
        Proxy::start(&format!("{}{}{}", first.table(""), table("second", refusing().await, ""), route(""))).await;
    for id in 0..8 {
        chat(&proxy, &format!("refused-{id}")).await;
        assert_eq!(compared(&proxy, &format!("refused-{id}")).await["result"], "failed");
    }
    let (_, upstreams) = proxy.admin_get("/api/upstreams").await;
    assert!(!upstreams.contains("\"up\":false"), "what copies find out tells nothing of an upstream: {upstreams}");
}

#[tokio::test]
async fn a_client_never_waits_for_a_copy() {
    let first = Backend::start("first", vec![Act::Stream]).await;
    let second = Backend::start("second", vec![Act::Mute]).await;
    let mut proxy = between(&first, &second, ", concurrent = 3").await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        client.post("/v1/chat/completions", CHAT, "").await;
        assert!(client.answer().await.whole);
    }
    counted(&proxy, "skipped", 7).await;
    assert_eq!(second.log.count(), 3, "no more at one time");
    // Nor does anybody who takes the proxy down.
    proxy.signal("TERM");
    assert_eq!(soon("the end", proxy.exited()).await, Some(0));
    second.released().await;
}

#[tokio::test]
async fn tokens_a_minute_are_bounded() {
    let first = Backend::start("first", vec![Act::Stream]).await;
    let second = Backend::start("second", vec![Act::Pieces(vec![token("a"), STOP.into(), USAGE.into()])]).await;
    // Each takes eight of the hundred, and holds more than that until it has ended.
    let proxy = between(&first, &second, ", tokens_per_minute = 100").await;
    let mut copied = 0;
    for id in 0..40 {
        chat(&proxy, &format!("r{id}")).await;
        let before = copied;
        soon("a copy, or none", async {
            loop {
                let (_, metrics) = proxy.admin_get("/metrics").await;
                let count = |result: &str| {
                    let name = format!("streamgauge_shadow_requests_total{{route=\"chat\",result=\"{result}\"}} ");
                    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok()).unwrap_or(0)
                };
                let skipped = count("skipped");
                copied = count("same") + count("differs") + count("failed");
                if copied + skipped == id + 1 {
                    return;
                }
            }
        })
        .await;
        assert!(copied >= before);
    }
    // A minute's worth may drain meanwhile, and no more: 100 + 100 tokens make 25 copies.
    assert!((5..=25).contains(&copied), "{copied} copies");
    assert_eq!(second.log.count(), copied);
}

#[tokio::test]
async fn a_client_that_goes_takes_its_copy_along() {
    let gate = Arc::new(Semaphore::new(0));
    let first = Backend::start("first", vec![Act::Held(token("first"), Arc::clone(&gate))]).await;
    let second = Backend::start("second", vec![Act::Silent(vec![token("second")])]).await;
    let proxy = between(&first, &second, "").await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    client.until("first").await;
    soon("the copy", async {
        while second.log.count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(client);
    second.released().await;
    counted(&proxy, "skipped", 1).await;
    gate.add_permits(1);
}

#[tokio::test]
async fn only_what_can_be_done_twice_is_copied() {
    let first = Backend::start("first", vec![Act::Json]).await;
    let second = Backend::start("second", vec![Act::Json]).await;
    let proxy = between(&first, &second, "").await;
    let mut client = proxy.client().await;
    client.post("/orders", r#"{"buy":1}"#, "").await;
    assert_eq!(client.answer().await.status, 200);
    client.get("/v1/models", "").await;
    // An answer in one piece is compared like any other.
    client.post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#, "x-request-id: one\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let line = compared(&proxy, "one").await;
    assert_eq!((&line["result"], line.get("ttft_s")), (&"same".into(), None), "{line}");
    assert_eq!((first.log.count(), second.log.count()), (3, 1));
}

#[tokio::test]
async fn a_client_cannot_pretend_to_be_a_copy() {
    let first = Backend::start("first", vec![Act::Stream]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let proxy = between(&first, &second, "").await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-streamgauge-shadow: true\r\n").await;
    client.answer().await;
    assert_eq!(first.log.all()[0].header("x-streamgauge-shadow"), None);
}

#[tokio::test]
async fn caps_outlive_a_reload_and_a_removed_shadow_ends() {
    let first = Backend::start("first", vec![Act::Stream]).await;
    let second = Backend::start("second", vec![Act::Mute]).await;
    let text = format!("{}{}{}", first.table(""), second.table(""), route(", concurrent = 1"));
    let proxy = Proxy::start(&text).await;
    chat(&proxy, "one").await;
    soon("the copy", async {
        while second.log.count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    proxy.write_config(&text.replace("concurrent = 1", "concurrent = 1, tokens_per_minute = 99_999"));
    proxy.signal("HUP");
    proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    chat(&proxy, "two").await;
    counted(&proxy, "skipped", 1).await;
    assert_eq!(second.log.count(), 1, "the one place is still taken");
    let without = text.lines().filter(|line| !line.starts_with("shadow")).collect::<Vec<_>>().join("\n");
    proxy.write_config(&without);
    proxy.signal("HUP");
    proxy.line("the second reload", |line| line["event"] == "config.reloaded" && line["generation"] == 3).await;
    chat(&proxy, "three").await;
    proxy.record("three").await;
    let (_, metrics) = proxy.admin_get("/metrics").await;
    assert!(metrics.contains("streamgauge_shadow_requests_total{route=\"chat\",result=\"skipped\"} 1\n"), "{metrics}");
}
