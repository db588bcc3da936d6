//! Limits hold under concurrency, and whatever happens to a request is settled to the token.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::{Client, Proxy, Upstream, config, soon};

pub fn limited(limit: &str) -> String {
    format!(
        "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{{ upstream = \"fake\" }}]\nlimits = [\"l\"]\n\n[[limit]]\nname = \"l\"\n{limit}\n"
    )
}

/// Of [`chat`]: two words, and three each for the message and the answer's beginning.
const PROMPT_TOKENS: u64 = 8;

pub fn chat(max_tokens: u64) -> String {
    format!(
        r#"{{"model":"m","stream":true,"max_tokens":{max_tokens},"messages":[{{"role":"user","content":"hello there"}}]}}"#
    )
}

/// A stream of `tokens` frames with its usage.
pub fn stream(prompt: u64, tokens: u64) -> String {
    let mut body = String::new();
    for _ in 0..tokens {
        body +=
            "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\n";
    }
    body += "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    body += &format!(
        "data: {{\"id\":\"c\",\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n"
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{body}")
}

pub async fn metric(proxy: &Proxy, series: &str) -> u64 {
    let (_, text) = proxy.admin_get("/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
}

/// Tokens of the limit `l` that were `reserved`; of these, `charged` or `returned`; and `used` in all.
pub async fn tokens(proxy: &Proxy, what: &str) -> u64 {
    let series = match what {
        "charged" | "returned" => format!("streamgauge_limit_settled_tokens_total{{limit=\"l\",result=\"{what}\"}}"),
        _ => format!("streamgauge_limit_{what}_tokens_total{{limit=\"l\"}}"),
    };
    metric(proxy, &series).await
}

/// Every request has ended: a client may read its answer's end before the proxy has settled.
pub async fn all_ended(proxy: &Proxy) {
    let running = async || {
        let (_, text) = proxy.admin_get("/api/limits").await;
        let view: Value = serde_json::from_str(&text).unwrap();
        view["holders"].as_array().unwrap().iter().map(|holder| holder["running"].as_u64().unwrap()).sum::<u64>()
    };
    soon("the end of all requests", async { while running().await > 0 {} }).await;
}

/// Nothing is held any more, and all that was held is accounted for.
pub async fn assert_settled(proxy: &Proxy) {
    all_ended(proxy).await;
    let (_, text) = proxy.admin_get("/api/limits").await;
    let view: Value = serde_json::from_str(&text).unwrap();
    for holder in view["holders"].as_array().unwrap() {
        assert_eq!(holder["tokens_held"], 0, "{holder}");
    }
    let (held, debited, released) =
        (tokens(proxy, "reserved").await, tokens(proxy, "charged").await, tokens(proxy, "returned").await);
    assert_eq!(held, debited + released);
    let used = tokens(proxy, "used").await;
    let logged = || proxy.lines().iter().filter_map(|line| line["limit"]["used"].as_u64()).sum::<u64>();
    proxy.line("all lines", |_| logged() >= used).await;
    assert_eq!(logged(), used, "what the limits charged is what the log says");
}

/// Tokens that a limit for [`crowd`] gives at once, and each minute. What a minute gives takes eight requests a second to
/// use up: a busy machine can do that too.
pub const BURST: u64 = 36_000;
pub const PER_MINUTE: u64 = 36_000;

/// 300 callers ask the proxies, each 80 tokens a time, until nine tenths of what one limit allows are used: refusals that
/// are not needed would make this wait for ever. What was used in all, which is never more than is allowed.
pub async fn crowd(proxies: &[Arc<Proxy>]) -> u64 {
    let used = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let allowed = move || BURST + PER_MINUTE * started.elapsed().as_millis() as u64 / 60_000;
    let callers = (0..300).map(|number| {
        let (listen, used) = (proxies[number % proxies.len()].listen, Arc::clone(&used));
        tokio::spawn(async move {
            let mut client = Client::connect(listen).await;
            while used.load(Ordering::SeqCst) < allowed() * 9 / 10 {
                client.post("/v1/chat/completions", &chat(100), "").await;
                match client.answer().await.status {
                    200 => _ = used.fetch_add(80, Ordering::SeqCst),
                    429 => {}
                    status => panic!("{status}"),
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        soon("a caller", caller).await.unwrap();
    }
    // An answer is read before its caller counts it, so the time is looked at last.
    let used = used.load(Ordering::SeqCst);
    assert!(used <= allowed(), "{used} of {}", allowed());
    used
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_callers_get_what_the_limit_allows_and_no_more() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    let limit = format!("key = \"global\"\ntokens_per_minute = {PER_MINUTE}\nburst = {BURST}");
    let proxy = Arc::new(Proxy::start(&config(upstream.address, &limited(&limit))).await);
    let used = crowd(&[Arc::clone(&proxy)]).await;
    assert_settled(&proxy).await;
    assert_eq!(tokens(&proxy, "used").await, used);
}

#[tokio::test]
async fn a_refusal_tells_what_to_do_in_the_clients_dialect() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    let proxy = Proxy::start(&config(upstream.address, &limited("tokens_per_minute = 600\nburst = 300"))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(200), "x-request-id: first\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("600"));
    let remaining: u64 = answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
    assert!((60..100).contains(&remaining), "{remaining}");
    let first = proxy.record("first").await;
    assert_eq!((&first["limit"]["decision"], &first["limit"]["used"]), (&"admitted".into(), &80.into()));

    client.post("/v1/chat/completions", &chat(250), "x-request-id: openai\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 429);
    let retry: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&retry), "{retry}");
    assert!(answer.header("x-ratelimit-reset-tokens").unwrap().ends_with('s'));
    let body: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&"rate_limit_error".into(), &"rate_limited".into()));
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("600 tokens a minute for each user") && message.contains("Try again in"), "{message}");
    let refused = proxy.record("openai").await;
    assert_eq!((&refused["limit"]["decision"], &refused["limit"]["by"]), (&"tokens".into(), &"l".into()));
    assert_eq!((&refused["outcome"], &refused["error_type"]), (&"rejected".into(), &"rate_limited".into()));

    client.post("/v1/messages", &chat(250), "").await;
    let body: Value = serde_json::from_str(&client.answer().await.text()).unwrap();
    assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &"rate_limit_error".into()));

    client.post("/v1/chat/completions", &chat(601), "").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (413, None));
    assert!(answer.text().contains("lower max_tokens"));
    assert_settled(&proxy).await;
    for (decision, count) in [("admitted", 1), ("tokens", 2), ("too_large", 1)] {
        let series = format!("streamgauge_limit_decisions_total{{limit=\"l\",decision=\"{decision}\"}}");
        assert_eq!(metric(&proxy, &series).await, count, "{decision}");
    }
}

#[tokio::test]
async fn whoever_is_refused_whatever_the_prompt_is_costs_no_count() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    for (limit, decision) in [
        ("tokens_per_minute = 60\nburst = 100\ndebt = 0", "tokens"),
        ("tokens_per_minute = 1_000_000\nrequests_per_minute = 1", "requests"),
        ("tokens_per_minute = 60\nburst = 59\ndebt = 0", "too_large"),
    ] {
        let proxy = Proxy::start(&config(upstream.address, &limited(limit))).await;
        let mut client = proxy.client().await;
        if decision != "too_large" {
            client.post("/v1/chat/completions", &chat(60), "x-request-id: first\r\n").await;
            assert_eq!(client.answer().await.status, 200, "{limit}");
            let first = proxy.record("first").await;
            assert_eq!(first["limit"]["prompt"], "counted", "{first}");
        }
        client.post("/v1/chat/completions", &chat(60), "x-request-id: refused\r\n").await;
        let status = if decision == "too_large" { 413 } else { 429 };
        assert_eq!(client.answer().await.status, status, "{limit}");
        let refused = proxy.record("refused").await;
        assert_eq!(refused["limit"]["decision"], decision, "{refused}");
        assert_eq!(refused["limit"]["prompt"], "estimated", "{refused}");
    }
    // What only the prompt makes too much is counted.
    let proxy = Proxy::start(&config(upstream.address, &limited("tokens_per_minute = 60\nburst = 60\ndebt = 0"))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(59), "x-request-id: refused\r\n").await;
    assert_eq!(client.answer().await.status, 413);
    assert_eq!(proxy.record("refused").await["limit"]["prompt"], "counted");
}

#[tokio::test]
async fn aborts_failures_and_refusals_settle_to_the_token() {
    // The path says what the upstream does.
    let upstream = Upstream::start(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            match seen.head.split(' ').nth(1).unwrap_or("") {
                path if path.starts_with("/fails") => {
                    conn.write("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno").await;
                }
                path if path.starts_with("/dies") => return conn.reset(),
                path if path.starts_with("/hangs") => {
                    conn.event_stream().await;
                    conn.chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n").await;
                    return conn.closed().await;
                }
                path if path.starts_with("/breaks") => {
                    conn.event_stream().await;
                    conn.chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n").await;
                    // Closed and not reset: a reset may overtake the token.
                    return;
                }
                _ => conn.write(stream(9, 30)).await,
            }
        }
    })
    .await;
    let proxy = Arc::new(Proxy::start(&config(upstream.address, &limited("tokens_per_minute = 1_000_000"))).await);
    let paths = ["/ok", "/fails", "/dies", "/hangs", "/breaks"];
    let calls = (0..50).map(|number| {
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let path = paths[number % paths.len()];
            let mut client = proxy.client().await;
            let id = format!("x-request-id: r{number}\r\n");
            client.post(&format!("{path}/v1/chat/completions"), &chat(100), &id).await;
            match path {
                "/hangs" => _ = client.until("delta").await,
                "/breaks" => _ = client.end().await,
                _ => _ = client.answer().await,
            }
            drop(client);
            let record = proxy.record(&format!("r{number}")).await;
            let used = record["limit"]["used"].as_u64().unwrap();
            match path {
                "/ok" => assert_eq!(used, 39),
                "/fails" | "/dies" => assert_eq!(used, 0, "{record}"),
                // The prompt as it was counted, and the one token that came.
                _ => assert_eq!(used, PROMPT_TOKENS + 1, "{record}"),
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        soon("a call", call).await.unwrap();
    }
    assert_settled(&proxy).await;
}

#[tokio::test]
async fn a_whole_answer_whose_client_goes_is_charged_what_such_answers_took() {
    // The path says what the upstream does.
    let hanging = Arc::new(Semaphore::new(0));
    let seen_by_upstream = Arc::clone(&hanging);
    let upstream = Upstream::start(move |mut conn| {
        let hanging = Arc::clone(&seen_by_upstream);
        async move {
        while let Some(seen) = conn.request().await {
            if seen.head.starts_with("POST /hangs") {
                hanging.add_permits(1);
                return conn.closed().await;
            }
            let body = r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":300}}"#;
            let length = body.len();
            conn.write(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            ))
            .await;
        }
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &limited("tokens_per_minute = 1_000_000"))).await;
    let whole = |max_tokens| chat(max_tokens).replace("\"stream\":true", "\"stream\":false");
    let aborted = async |max_tokens: u64, id: &str| {
        let mut client = proxy.client().await;
        client.post("/hangs/v1/chat/completions", &whole(max_tokens), &format!("x-request-id: {id}\r\n")).await;
        soon("the request at the upstream", hanging.acquire()).await.unwrap().forget();
        drop(client);
        proxy.record(id).await["limit"].clone()
    };
    // Nothing is known yet of such answers: it may have been all that was held.
    let limit = aborted(900, "unknown").await;
    assert_eq!((&limit["used"], &limit["reserved"]), (&(PROMPT_TOKENS + 900).into(), &limit["used"]), "{limit}");
    for number in 0..5 {
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", &whole(900), &format!("x-request-id: whole{number}\r\n")).await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(proxy.record(&format!("whole{number}")).await["limit"]["used"], 308);
    }
    assert_eq!(aborted(900, "known").await["used"], PROMPT_TOKENS + 300);
    assert_eq!(aborted(100, "bounded").await["used"], PROMPT_TOKENS + 100);
    assert_settled(&proxy).await;
}

#[tokio::test]
async fn requests_and_streams_are_limited_for_every_kind_of_request() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy =
        Proxy::start(&config(upstream.address, &limited("key = \"ip\"\nconcurrent = 1\nrequests_per_minute = 3")))
            .await;
    let mut first = proxy.client().await;
    first.send("GET /page HTTP/1.1\r\nhost: a\r\nx-request-id: first\r\n\r\n").await;
    let mut conn = soon("the first request", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    let refused = proxy.client().await.get("/other", "x-request-id: refused\r\n").await;
    assert_eq!(refused.status, 429);
    let body: Value = serde_json::from_str(&refused.text()).unwrap();
    assert!(body["detail"].as_str().unwrap().contains("1 requests at one time for each address"), "{body}");
    let record = proxy.record("refused").await;
    assert_eq!((&record["outcome"], &record["attempts"]), (&"rejected".into(), &serde_json::json!([])));
    assert!(record["upstream"].is_null() && record["written"].is_string(), "nobody was asked: {record}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("2"), "a refusal takes nothing");
    conn.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(first.answer().await.text(), "ok");
    proxy.record("first").await;
    tokio::spawn(async move {
        let mut conn = conn;
        while conn.request().await.is_some() {
            conn.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    });
    for left in ["1", "0"] {
        let answer = first.get("/page", &format!("x-request-id: left{left}\r\n")).await;
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, Some(left)));
        proxy.record(&format!("left{left}")).await;
    }
    let refused = first.get("/page", "").await;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=23).contains(&wait), "{wait}");
}

#[tokio::test]
async fn holders_keep_what_they_took_over_a_reload() {
    let upstream = Upstream::fixed(stream(50, 50)).await;
    let text =
        |per_minute: u64| config(upstream.address, &limited(&format!("tokens_per_minute = {per_minute}\ndebt = 0")));
    let proxy = Proxy::start(&text(150)).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(100), "x-request-id: one\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    proxy.record("one").await;
    proxy.write_config(&text(300));
    proxy.signal("HUP");
    proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    client.post("/v1/chat/completions", &chat(100), "x-request-id: two\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let remaining: u64 = answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
    assert!(remaining < 110, "300 less the 100 of before and what this one holds: {remaining}");
    proxy.record("two").await;
    let (status, text) = proxy.admin_get("/api/limits?ip=127.0.0.1").await;
    let view: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &view["holders"][0]["limit"]), (200, &"l".into()), "{text}");
    let spent = view["holders"][0]["tokens_spent"].as_u64().unwrap();
    assert!((150..=200).contains(&spent), "{spent}");
}

#[tokio::test]
async fn a_drain_settles_before_it_ends() {
    let (upstream, mut conns) = Upstream::handed().await;
    let more = format!("[server]\ndrain_timeout = \"300ms\"\n\n{}", limited("tokens_per_minute = 100_000"));
    let mut proxy = Proxy::start(&config(upstream.address, &more)).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(100), "x-request-id: cut\r\n").await;
    let mut conn = soon("the stream", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.event_stream().await;
    conn.chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n").await;
    client.until("delta").await;
    let started = Instant::now();
    proxy.signal("TERM");
    let record = proxy.record("cut").await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(record["limit"]["used"], record["limit"]["reserved"].as_u64().unwrap() - 100 + 1);
    proxy.exited().await;
}
