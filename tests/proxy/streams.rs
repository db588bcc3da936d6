//! Event streams that are no LLM's belong to their two sides; and an answer whose dialect has ended is whole.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Conn, Proxy, Upstream, config, soon};

const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\n";

const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

const DONE: &str = "data: [DONE]\n\n";

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// A comment of the proxy's own, as a chunk.
const COMMENT: &str = "E\r\n: keep-alive";

/// Longer than the short times below.
const LONG: Duration = Duration::from_millis(700);

const SHORT: &str = "timeouts = { first_token = \"200ms\", stall = \"200ms\", total = \"400ms\" }";

/// An answer's events, the route's keys, head and body of the request; the record's event, and what its first token rests on.
type Told<'a> = (&'a [&'a str], &'a str, &'a str, &'a str, &'a str, Option<&'a str>);

fn route(more: &str) -> String {
    format!("[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{{ upstream = \"fake\" }}]\n{more}\n")
}

/// One request over a proxy with this route: its connection at the upstream, whose request was read, and the client.
async fn asked(more: &str, head: &str, body: &str) -> (Proxy, crate::support::Client, Conn, Upstream) {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, &route(more))).await;
    let mut client = proxy.client().await;
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
    };
    client.send(format!("{head} HTTP/1.1\r\nhost: a\r\nx-request-id: it\r\n{content}\r\n{body}")).await;
    let mut conn = soon("the upstream's connection", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    (proxy, client, conn, upstream)
}

async fn passed(answer: &[&str], more: &str, head: &str, body: &str) -> Value {
    let (proxy, mut client, mut conn, _upstream) = asked(more, head, body).await;
    conn.event_stream().await;
    for piece in answer {
        conn.chunk(piece).await;
    }
    conn.chunk("").await;
    let got = client.answer().await;
    assert!(got.whole);
    assert_eq!(got.text(), answer.concat());
    proxy.record("it").await
}

#[tokio::test]
async fn nothing_ends_a_stream_that_is_no_llms() {
    for pieces in [
        [": ping\n\n", ": ping\n\n", "data: {\"kind\":\"order\",\"id\":1}\n\n"],
        ["data: {\"kind\":\"order\",\"id\":1}\n\n", "", "data: {\"kind\":\"order\",\"id\":2}\n\n"],
        ["", "", "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n"],
    ] {
        let (proxy, mut client, mut conn, _upstream) = asked(SHORT, "GET /events", "").await;
        conn.event_stream().await;
        for piece in pieces {
            tokio::time::sleep(LONG).await;
            if !piece.is_empty() {
                conn.chunk(piece).await;
            }
        }
        conn.chunk("").await;
        let answer = client.answer().await;
        assert!(answer.whole, "{pieces:?}");
        assert_eq!(answer.text(), pieces.concat());
        let record = proxy.record("it").await;
        assert_eq!((&record["event"], &record["outcome"]), (&"stream.request".into(), &"completed".into()));
        assert!(record["first_event_s"].as_f64().unwrap() > 0.5, "{record}");
        assert!(record["events"].as_u64().unwrap() > 0 && record["ttft_s"].is_null(), "{record}");
        let (_, metrics) = proxy.admin_get("/metrics").await;
        assert!(metrics.contains("streamgauge_non_llm_stream_duration_seconds_count{"), "{metrics}");
        assert!(!metrics.contains("gen_ai_server_request_duration_seconds_count{"), "it is in no LLM's metric");
        assert!(!metrics.contains("streamgauge_llm_calls_total{"), "nor is its usage missing");
    }
}

#[tokio::test]
async fn a_head_that_takes_its_time_is_waited_for_where_a_stream_may_come() {
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"report","arguments":{}}}"#;
    let (proxy, mut client, mut conn, _upstream) = asked(SHORT, "POST /mcp", call).await;
    tokio::time::sleep(LONG).await;
    conn.event_stream().await;
    conn.chunk("event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}\n\n").await;
    conn.chunk("").await;
    assert!(client.answer().await.whole);
    let record = proxy.record("it").await;
    assert_eq!(record["outcome"], "completed");
    assert_eq!((&record["mcp.method.name"], &record["gen_ai.tool.name"]), (&"tools/call".into(), &"report".into()));
    assert_eq!((&record["protocol"], &record["usage_source"]), (&"mcp".into(), &Value::Null));
}

#[tokio::test]
async fn a_route_of_streams_is_bound_by_the_times_that_it_writes() {
    let (proxy, mut client, mut conn, _upstream) =
        asked("kind = \"stream\"\ntimeouts = { stall = \"200ms\" }", "GET /events", "").await;
    conn.event_stream().await;
    conn.chunk("data: 1\n\n").await;
    let answer = client.answer().await;
    assert!(!answer.whole);
    assert_eq!(answer.text(), "data: 1\n\n", "nothing is added to a stream of others");
    let record = proxy.record("it").await;
    assert_eq!((&record["event"], &record["outcome"]), (&"stream.request".into(), &"stalled".into()));
}

#[tokio::test]
async fn whose_a_stream_is_its_request_its_events_or_its_route_tell() {
    let bare = ["data: Hello\n\n", "data:  you\n\n"];
    let progress = ["data: {\"progress\":10}\n\n"];
    let keyed = ["data: {\"token\":\"a\"}\n\n"];
    let openai = [
        "data: {\"n\":1}\n\n",
        "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n",
        DONE,
    ];
    let agent = ["data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"kind\":\"message\",\"parts\":[]}}\n\n"];
    let ask = r#"{"message":"hi"}"#;
    let stray = r#"{"jsonrpc":"2.0","method":"tools/call","model":"m","stream":true,"messages":[]}"#;
    let vectors: [Told<'_>; 11] = [
        (&bare, "", "POST /chat", ask, "llm.request", Some("guess")),
        (&keyed, "", "POST /chat", ask, "llm.request", Some("guess")),
        (&progress, "", "POST /jobs", ask, "stream.request", None),
        (&bare, "", "GET /feed", "", "stream.request", None),
        (&openai, "", "GET /feed", "", "llm.request", None),
        (&agent, "", "GET /feed", "", "llm.request", None),
        (&bare, "kind = \"llm\"", "GET /feed", "", "llm.request", Some("guess")),
        (&bare, "kind = \"stream\"", "POST /chat", ask, "stream.request", None),
        (&[TOKEN, STOP, DONE], "kind = \"stream\"", "POST /v1/chat/completions", CHAT, "stream.request", None),
        (&[TOKEN, STOP, DONE], "", "POST /v1/chat/completions", stray, "llm.request", None),
        (
            &keyed,
            "",
            "POST /agent",
            r#"{"jsonrpc":"2.0","id":1,"method":"message/stream"}"#,
            "llm.request",
            Some("guess"),
        ),
    ];
    for (answer, more, head, body, event, basis) in vectors {
        let record = passed(answer, more, head, body).await;
        assert_eq!(record["event"], event, "{head} {more} {answer:?}: {record}");
        assert_eq!(record["outcome"], "completed", "{record}");
        assert_eq!(record["ttft_basis"].as_str().filter(|told| *told == "guess"), basis, "{record}");
        assert_eq!(record["mcp.method.name"], Value::Null, "{record}");
    }
}

#[tokio::test]
async fn work_resets_the_clocks_of_an_llms_stream() {
    let body = r#"{"model":"m","stream":true,"input":"x"}"#;
    // The proxy's own comments tell that the time has passed.
    let more = "timeouts = { first_token = \"500ms\", stall = \"500ms\" }\nkeepalive = \"150ms\"";
    let (proxy, mut client, mut conn, _upstream) = asked(more, "POST /v1/responses", body).await;
    conn.event_stream().await;
    for number in 0..8 {
        conn.chunk(format!(
            "data: {{\"type\":\"response.web_search_call.searching\",\"sequence_number\":{number}}}\n\n"
        ))
        .await;
        client.until(&format!("{number}}}\n\n\r\n{COMMENT}")).await;
    }
    conn.chunk("data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n").await;
    conn.chunk("data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"status\":\"completed\"}}\n\n")
        .await;
    conn.chunk("").await;
    assert!(client.answer().await.whole);
    let record = proxy.record("it").await;
    assert_eq!(record["outcome"], "completed");
    assert!(record["ttft_s"].as_f64().unwrap() > 1.0, "{record}");
}

#[tokio::test]
async fn pings_alone_are_silence_on_an_llms_stream() {
    let more = "timeouts = { first_token = \"400ms\" }\nkeepalive = \"50ms\"";
    let (proxy, mut client, mut conn, _upstream) = asked(more, "POST /v1/messages", CHAT).await;
    conn.event_stream().await;
    for number in 0.. {
        conn.chunk(format!("event: ping\ndata: {{\"type\": \"ping\"}}\n\n: ping {number}\n\n")).await;
        // The proxy's comment after it tells that the time between two pings has passed.
        let passed = format!(": ping {number}\n\n\r\n{COMMENT}");
        tokio::select! {
            biased;
            () = conn.closed() => break,
            _ = client.until(&passed) => {}
        }
    }
    assert!(!client.answer().await.whole);
    assert_eq!(proxy.record("it").await["error_type"], "first_token_timeout");
}

#[tokio::test]
async fn an_answer_in_one_piece_has_no_first_token_that_could_be_late() {
    for (head, body) in [
        ("POST /v1/chat/completions", r#"{"model":"m","messages":[]}"#),
        ("POST /v1/embeddings", r#"{"model":"m","input":"x"}"#),
        ("POST /api/report", r#"{"a":1}"#),
        ("POST /upload", ""),
    ] {
        let more = "timeouts = { first_token = \"200ms\" }";
        let (proxy, mut client, mut conn, _upstream) = asked(more, head, body).await;
        tokio::time::sleep(LONG).await;
        conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.whole), (200, true), "{head}");
        assert_eq!(proxy.record("it").await["outcome"], "completed", "{head}");
    }
}

#[tokio::test]
async fn after_its_dialects_end_an_answer_is_whole_whatever_the_connection_does() {
    let responses = [
        "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"status\":\"completed\"}}\n\n",
    ];
    let anthropic = [
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ];
    // Without a finish reason, but with usage.
    let unreasoned =
        [TOKEN, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n", DONE];
    let input = r#"{"model":"m","stream":true,"input":"x","stream_options":{"include_usage":true}}"#;
    let asks_usage = r#"{"model":"m","stream":true,"messages":[],"stream_options":{"include_usage":true}}"#;
    let vectors: [(&str, &str, &[&str]); 4] = [
        ("/v1/chat/completions", asks_usage, &[TOKEN, STOP, DONE]),
        ("/v1/chat/completions", asks_usage, &unreasoned),
        ("/v1/responses", input, &responses),
        ("/v1/messages", CHAT, &anthropic),
    ];
    for (path, body, events) in vectors {
        for reset in [false, true] {
            let (proxy, mut client, mut conn, _upstream) = asked("", &format!("POST {path}"), body).await;
            conn.event_stream().await;
            for event in events {
                conn.chunk(event).await;
            }
            client.until(events.last().unwrap().trim()).await;
            if reset {
                conn.reset()
            } else {
                drop(conn)
            }
            client.until("\r\n0\r\n\r\n").await;
            let record = proxy.record("it").await;
            assert_eq!(record["outcome"], "completed", "{path} {reset} {record}");
            assert!(record["attempts"][0]["error_type"].is_null(), "nobody is blamed: {record}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_after_the_end_has_a_whole_answer() {
    let (proxy, mut client, mut conn, _upstream) = asked("", "POST /v1/chat/completions", CHAT).await;
    conn.event_stream().await;
    for event in [TOKEN, STOP, DONE] {
        conn.chunk(event).await;
    }
    client.until("[DONE]").await;
    drop(client);
    assert_eq!(proxy.record("it").await["outcome"], "completed");
    conn.chunk(": the app still works\n\n").await;
    assert!(!conn.is_gone(), "its backend is read on");
}

#[tokio::test]
async fn a_client_that_takes_nothing_after_the_end_has_a_whole_answer() {
    let (upstream, mut conns) = Upstream::handed().await;
    let bounds = format!("[server]\nwrite_timeout = \"300ms\"\n{}", config(upstream.address, &route("")));
    let proxy = Proxy::start(&bounds).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: it\r\n").await;
    let mut conn = soon("the request", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.event_stream().await;
    for event in [TOKEN, STOP, DONE] {
        conn.chunk(event).await;
    }
    client.until("[DONE]").await;
    // More than all buffers between take.
    let comment = format!(": {}\n\n", "x".repeat(1 << 20));
    let flood = async {
        while !conn.is_gone() {
            conn.chunk(&comment).await;
        }
    };
    let record = tokio::select! {
        record = proxy.record("it") => record,
        () = flood => proxy.record("it").await,
    };
    assert_eq!((&record["outcome"], &record["error_type"]), (&"completed".into(), &Value::Null), "{record}");
    drop(client);
}

#[tokio::test]
async fn a_backend_that_holds_on_after_the_end_is_read_on_while_the_client_has_its_answer() {
    let more = "timeouts = { stall = \"200ms\", total = \"1s\" }";
    let (proxy, mut client, mut conn, _upstream) = asked(more, "POST /v1/chat/completions", CHAT).await;
    conn.event_stream().await;
    for event in [TOKEN, STOP, DONE] {
        conn.chunk(event).await;
    }
    client.until("[DONE]").await;
    let ended = std::time::Instant::now();
    conn.chunk(": ping\n\n").await;
    client.until(": ping").await;
    client.until("\r\n0\r\n\r\n").await;
    assert!(ended.elapsed() > Duration::from_secs(4), "later bytes pass for as long as they may come");
    let record = proxy.record("it").await;
    assert_eq!((&record["outcome"], &record["error_type"]), (&"completed".into(), &Value::Null));
    conn.chunk(": the app still works\n\n").await;
    assert!(!conn.is_gone(), "its backend is read on");
}

#[tokio::test]
async fn a_second_signal_is_the_operators_doing_and_records_keep_what_was_measured() {
    let (mut proxy, mut client, mut conn, _upstream) = asked("", "POST /v1/chat/completions", CHAT).await;
    conn.event_stream().await;
    conn.chunk(TOKEN).await;
    client.until("\"x\"").await;
    proxy.signal("INT");
    proxy.line("the drain", |line| line["event"] == "drain.started").await;
    proxy.signal("INT");
    proxy.exited().await;
    let record = proxy.record("it").await;
    assert_eq!((&record["outcome"], &record["error_type"]), (&"stopped".into(), &"forced_stop".into()));
    assert_eq!((&record["frames"], &record["usage_source"].is_string()), (&json!(1), &true));
    assert!(record["ttft_s"].is_number(), "{record}");
}

/// What `/api/streams` says of the one stream that runs.
async fn running(proxy: &Proxy) -> Value {
    let (_, text) = proxy.admin_get("/api/streams").await;
    let streams: Value = serde_json::from_str(&text).unwrap();
    streams["live"][0].clone()
}

#[tokio::test]
async fn a_running_stream_tells_what_it_speaks() {
    const RUN: &str = "data: {\"type\":\"RUN_STARTED\",\"threadId\":\"t\",\"runId\":\"r\"}\n\n";
    let (proxy, mut client, mut conn, _upstream) = asked("", "POST /agent", r#"{"q":"x"}"#).await;
    conn.event_stream().await;
    conn.chunk(": hello\n\n").await;
    client.until("hello").await;
    let row = running(&proxy).await;
    assert!(row["dialect"].is_null() && row["framing"].is_null(), "nothing that is an LLM's has come: {row}");
    conn.chunk(RUN).await;
    client.until("RUN_STARTED").await;
    let row = running(&proxy).await;
    assert_eq!((&row["dialect"], &row["framing"]), (&"ag-ui".into(), &"sse".into()), "{row}");
    conn.chunk("").await;
    assert_eq!(proxy.record("it").await["dialect"], "ag-ui");
}
