//! Token usage: asked for where the client did not, counted where nobody reports it, and priced.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Answer, Proxy, Seen, Upstream, config, soon};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const PRICE: &str = "[[price]]\nmodel = \"gpt-*\"\ninput = 2.5\ncached_input = 1.25\noutput = 10\n";

/// Before a limit holds tokens the vocabulary is there.
const LIMITED: &str = "limits = [\"wide\"]\n[[limit]]\nname = \"wide\"\ntokens_per_minute = 1000000\n";

const CHAT: &str = r#"{"model":"gpt-4o", "stream" : true,"messages":[{"role":"user","content":"hi"}]}"#;

const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":200,\"prompt_tokens_details\":{\"cached_tokens\":400}}}";

fn content(text: &str) -> String {
    format!("data: {}", json!({ "id": "c", "choices": [{ "index": 0, "delta": { "content": text } }], "usage": null }))
}

const FINISH: &str = r#"data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#;

/// Whether a request asks for usage.
fn asks(seen: &Seen) -> bool {
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    body["stream_options"]["include_usage"] == true
}

/// An upstream that streams `words`, and its usage where it is asked for; with `size` bytes a chunk.
async fn chatting(words: &'static [&'static str], end: &'static str, size: usize) -> Upstream {
    Upstream::start(move |mut conn| async move {
        while let Some(seen) = conn.request().await {
            let mut events: Vec<String> = words.iter().map(|word| content(word)).collect();
            events.push(FINISH.to_owned());
            events.extend(asks(&seen).then(|| USAGE.to_owned()));
            events.push("data: [DONE]".to_owned());
            let stream: String = events.iter().map(|event| format!("{event}{end}{end}")).collect();
            conn.event_stream().await;
            for piece in stream.as_bytes().chunks(size) {
                conn.chunk(piece).await;
            }
            conn.chunk("").await;
        }
    })
    .await
}

async fn ask(proxy: &Proxy, id: &str, body: &str) -> (Answer, Value) {
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", body, &format!("x-request-id: {id}\r\n")).await;
    let answer = client.answer().await;
    (answer, proxy.record(id).await)
}

async fn metrics(proxy: &Proxy) -> String {
    proxy.admin_get("/metrics").await.1
}

#[tokio::test]
async fn the_usage_chunk_is_asked_for_and_taken_out() {
    for end in ["\n", "\r\n"] {
        for size in [1, 2, 3, 7, 64, 4_096] {
            let upstream = chatting(&["The river", " is high."], end, size).await;
            let proxy = Proxy::start(&config(upstream.address, &format!("{ROUTE}{PRICE}"))).await;
            let (answer, record) = ask(&proxy, "r", CHAT).await;
            let events = [content("The river"), content(" is high."), FINISH.into(), "data: [DONE]".into()];
            let expected: String = events.iter().map(|event| format!("{event}{end}{end}")).collect();
            assert!(answer.whole);
            assert_eq!(answer.text(), expected, "{end:?} {size}");
            assert_eq!(record["gen_ai.usage.input_tokens"], 1000);
            assert_eq!(record["gen_ai.usage.output_tokens"], 200);
            assert_eq!(record["usage_source"], "reported");
            assert_eq!(record["outcome"], "completed");
            assert_eq!(record["bytes_out"], expected.len());
            // 600 x 2.5 + 400 x 1.25 + 200 x 10 dollars per million.
            assert_eq!(record["cost_usd"], 0.004);
        }
    }
}

/// The proxy's memory in MiB, by its own account.
async fn memory(proxy: &Proxy) -> f64 {
    let metrics = metrics(proxy).await;
    let line = metrics.lines().find(|line| line.starts_with("process_resident_memory_bytes ")).unwrap();
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() / 1048576.0
}

#[tokio::test]
async fn the_vocabulary_is_loaded_only_where_something_is_counted() {
    let upstream = chatting(&["The river is high, and it rises still. "; 200], "\n", 4_096).await;
    let reports = config(upstream.address, ROUTE);
    for (config, source) in
        [(reports.replace("url =", "ask_usage = \"never\"\nurl ="), "counted"), (reports, "reported")]
    {
        let proxy = Proxy::start(&config).await;
        let before = memory(&proxy).await;
        let (_, first) = ask(&proxy, "first", CHAT).await;
        let at_once = if source == "counted" { "estimated" } else { source };
        assert_eq!(first["usage_source"], at_once, "nobody waits for the vocabulary");
        soon("the vocabulary", async {
            for number in 0.. {
                let (_, record) = ask(&proxy, &format!("r{number}"), CHAT).await;
                if record["usage_source"] == source {
                    return;
                }
            }
        })
        .await;
        let grown = memory(&proxy).await - before;
        assert_eq!(grown > 30.0, source == "counted", "{source}: {grown} MiB");
    }
}

#[tokio::test]
async fn a_client_that_asks_itself_gets_everything() {
    let upstream = chatting(&["x"], "\n", 4_096).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let asking = CHAT.replacen('{', r#"{"stream_options":{"include_usage":true},"#, 1);
    let (answer, record) = ask(&proxy, "r", &asking).await;
    assert!(answer.text().contains(USAGE));
    assert_eq!(record["usage_source"], "reported");
}

#[tokio::test]
async fn all_else_of_the_request_stays_as_it_was() {
    let (upstream, mut seen) = Upstream::recording("HTTP/1.1 204 No Content\r\n\r\n").await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    ask(&proxy, "streamed", CHAT).await;
    let request = soon("the request", seen.recv()).await.unwrap();
    let expected = CHAT.replacen('{', r#"{"stream_options":{"include_usage":true},"#, 1);
    assert_eq!(String::from_utf8(request.body.clone()).unwrap(), expected);
    assert_eq!(request.header("content-length"), Some(expected.len().to_string().as_str()));
    let whole = CHAT.replace("true", "false");
    ask(&proxy, "whole", &whole).await;
    assert_eq!(soon("the request", seen.recv()).await.unwrap().body, whole.as_bytes());

    let never = config(upstream.address, ROUTE).replace("url =", "ask_usage = \"never\"\nurl =");
    let proxy = Proxy::start(&never).await;
    ask(&proxy, "never", CHAT).await;
    assert_eq!(soon("the request", seen.recv()).await.unwrap().body, CHAT.as_bytes());
}

/// An upstream that refuses whoever asks for usage; and how many requests it has seen.
async fn strict(status: &'static str) -> (Upstream, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let upstream = Upstream::start(move |mut conn| {
        let counter = Arc::clone(&counter);
        async move {
            while let Some(seen) = conn.request().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let refuses = asks(&seen) || seen.body.windows(6).any(|window| window == b"broken");
                if refuses {
                    conn.write(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno")).await;
                    continue;
                }
                conn.event_stream().await;
                conn.chunk(format!("{}\n\n{FINISH}\n\ndata: [DONE]\n\n", content("The river is high."))).await;
                conn.chunk("").await;
            }
        }
    })
    .await;
    (upstream, requests)
}

#[tokio::test]
async fn a_server_that_refuses_to_be_asked_is_asked_no_more() {
    for status in ["422 Unprocessable Entity", "400 Bad Request"] {
        let (upstream, requests) = strict(status).await;
        let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
        let (answer, record) = ask(&proxy, "first", CHAT).await;
        assert_eq!((answer.status, record["outcome"].as_str()), (200, Some("completed")), "{}", answer.text());
        assert_eq!(requests.load(Ordering::SeqCst), 2);
        assert_eq!(record["usage_source"], "estimated");
        let (answer, _) = ask(&proxy, "second", CHAT).await;
        assert_eq!(answer.status, 200);
        assert_eq!(requests.load(Ordering::SeqCst), 3, "the refusal was forgotten");
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_by_itself_is_refused_and_teaches_nothing() {
    let (upstream, requests) = strict("400 Bad Request").await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let (answer, _) = ask(&proxy, "broken", &CHAT.replace("hi", "broken")).await;
    assert_eq!((answer.status, answer.text().as_str()), (400, "no"));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    ask(&proxy, "good", CHAT).await;
    assert_eq!(requests.load(Ordering::SeqCst), 4, "it was asked again");

    let always = config(upstream.address, ROUTE).replace("url =", "ask_usage = \"always\"\nurl =");
    let proxy = Proxy::start(&always).await;
    let (answer, _) = ask(&proxy, "always", CHAT).await;
    assert_eq!(answer.status, 400, "always means always");
}

#[tokio::test]
async fn events_are_not_held_for_the_ones_after_them() {
    let (got, mut told) = mpsc::channel::<()>(1);
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let server = tokio::spawn(async move {
        let mut conn = conns.recv().await.unwrap();
        assert!(asks(&conn.request().await.unwrap()));
        conn.event_stream().await;
        for number in 0..20 {
            conn.chunk(format!("{}\n\n", content(&format!("event-{number};")))).await;
            told.recv().await.unwrap();
        }
        conn.chunk(format!("{FINISH}\n\n{USAGE}\n\ndata: [DONE]\n\n")).await;
        conn.chunk("").await;
        assert!(conn.request().await.is_none());
    });
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    for number in 0..20 {
        client.until(&format!("event-{number};")).await;
        got.send(()).await.unwrap();
    }
    let all = client.until("\r\n0\r\n\r\n").await;
    assert!(all.contains("[DONE]") && !all.contains("prompt_tokens"));
    drop(client);
    drop(proxy);
    soon("the fake", server).await.unwrap();
}

#[tokio::test]
async fn what_nobody_reports_is_counted() {
    let answer = "data: The river\n\ndata:  is high.\n\n";
    let length = answer.len();
    let upstream = Upstream::fixed(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{answer}"
    ))
    .await;
    let proxy = Proxy::start(&config(upstream.address, &format!("{ROUTE}{LIMITED}{PRICE}"))).await;
    let mut client = proxy.client().await;
    client.post("/ask", r#"{"model":"gpt-4o","prompt":"How high is the river?"}"#, "x-request-id: r\r\n").await;
    assert_eq!(client.answer().await.text(), answer);
    let record = proxy.record("r").await;
    assert_eq!(record["usage_source"], "counted");
    assert_eq!(record["gen_ai.usage.input_tokens"], 6);
    assert_eq!(record["gen_ai.usage.output_tokens"], 5);
    assert_eq!(record["cost_usd"], 0.000065);
    let metrics = metrics(&proxy).await;
    for series in [
        "streamgauge_llm_calls_total{route=\"all\",upstream=\"fake\",usage_source=\"counted\"} 1",
        "streamgauge_cost_usd_total{route=\"all\",model=\"gpt-4o\",team=\"none\"} 0.000065",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }
}

/// Streams until the client has seen `until`, then leaves; the record.
async fn leave(proxy: &Proxy, id: &str, until: &str) -> Value {
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, &format!("x-request-id: {id}\r\n")).await;
    client.until(until).await;
    drop(client);
    proxy.record(id).await
}

#[tokio::test]
async fn a_client_that_leaves_before_the_usage_is_not_free() {
    // The first request gets its usage; the others never come that far.
    let first = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |mut conn| {
        let first = Arc::clone(&first);
        async move {
            while conn.request().await.is_some() {
                conn.event_stream().await;
                for word in ["The", " river", " is", " high", "."] {
                    conn.chunk(format!("{}\n\n", content(word))).await;
                }
                if first.fetch_add(1, Ordering::SeqCst) != 1 {
                    conn.closed().await;
                    return;
                }
                conn.chunk(format!("{FINISH}\n\n{USAGE}\n\ndata: [DONE]\n\n")).await;
                conn.chunk("").await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &format!("{ROUTE}{LIMITED}{PRICE}"))).await;
    let record = leave(&proxy, "counted", "\".\"").await;
    assert_eq!(
        (record["outcome"].as_str(), record["usage_source"].as_str()),
        (Some("client_cancelled"), Some("counted"))
    );
    assert_eq!(record["gen_ai.usage.output_tokens"], 5);
    assert_eq!(record["gen_ai.usage.input_tokens"], 7);
    let (_, record) = ask(&proxy, "whole", CHAT).await;
    assert_eq!(record["usage_source"], "reported");
    // From here on frames are not counted any more, but their number and what was learned of them tell.
    let record = leave(&proxy, "estimated", "\".\"").await;
    assert_eq!(record["usage_source"], "estimated");
    // One of ten parts of the way from 1 to the 40 tokens a frame that were reported.
    assert_eq!(record["gen_ai.usage.output_tokens"], 25);
    assert!(record["cost_usd"].as_f64().unwrap() > 0.0);
    let metrics = metrics(&proxy).await;
    for source in ["counted", "reported", "estimated"] {
        let series =
            format!("streamgauge_llm_calls_total{{route=\"all\",upstream=\"fake\",usage_source=\"{source}\"}} 1");
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
}
