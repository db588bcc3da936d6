//! Usage where it is hard to come by: backends that dislike to be asked, chunks that others shape, long answers, and
//! operations beside the chat.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Answer, Proxy, Seen, Upstream, config};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const PRICE: &str = "[[price]]\nmodel = \"*\"\ninput = 1\noutput = 2\n";

const CHAT: &str = r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

const ANSWER: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"high\"}}]}\n\n\
    data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

const DONE: &str = "data: [DONE]\n\n";

fn asks(seen: &Seen) -> bool {
    seen.body.windows(13).any(|window| window == b"include_usage")
}

async fn post(proxy: &Proxy, id: &str, path: &str, body: &str) -> (Answer, Value) {
    let mut client = proxy.client().await;
    client.post(path, body, &format!("x-request-id: {id}\r\n")).await;
    let answer = client.answer().await;
    (answer, proxy.record(id).await)
}

async fn ask(proxy: &Proxy, id: &str) -> (Answer, Value) {
    post(proxy, id, "/v1/chat/completions", CHAT).await
}

/// What a backend does to who asks for usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dislike {
    Status(&'static str),
    /// The connection goes down before a head, or after one.
    Close,
    CloseStream,
    EmptyStream,
    ErrorEvent,
    ErrorUnder200,
}

/// An upstream that dislikes to be asked for usage, and whatever it is asked where it is `broken`; and how many requests it
/// has seen.
async fn disliking(dislike: Dislike, broken: bool) -> (Upstream, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let error = r#"{"error":{"message":"unknown field"}}"#;
    let upstream = Upstream::start(move |mut conn| {
        let counter = Arc::clone(&counter);
        async move {
            while let Some(seen) = conn.request().await {
                counter.fetch_add(1, Ordering::SeqCst);
                if !asks(&seen) && !broken {
                    conn.event_stream().await;
                    conn.chunk(format!("{ANSWER}{DONE}")).await;
                    conn.chunk("").await;
                    continue;
                }
                match dislike {
                    Dislike::Status(status) => {
                        let length = error.len();
                        conn.write(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{error}")).await;
                    }
                    Dislike::Close => return,
                    Dislike::CloseStream => return conn.event_stream().await,
                    Dislike::EmptyStream => {
                        conn.event_stream().await;
                        conn.chunk("").await;
                    }
                    Dislike::ErrorEvent => {
                        conn.event_stream().await;
                        conn.chunk(format!("data: {error}\n\n")).await;
                        conn.chunk("").await;
                    }
                    Dislike::ErrorUnder200 => {
                        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
                        conn.write(format!("{head}: {}\r\n\r\n{error}", error.len())).await;
                    }
                }
            }
        }
    })
    .await;
    (upstream, requests)
}

#[tokio::test]
async fn a_backend_that_dislikes_to_be_asked_in_any_way_is_asked_once_without() {
    for dislike in [
        Dislike::Status("403 Forbidden"),
        Dislike::Status("404 Not Found"),
        Dislike::Status("500 Internal Server Error"),
        Dislike::Status("501 Not Implemented"),
        Dislike::Close,
        Dislike::CloseStream,
        Dislike::EmptyStream,
        Dislike::ErrorEvent,
        Dislike::ErrorUnder200,
    ] {
        let (upstream, requests) = disliking(dislike, false).await;
        let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
        let (answer, record) = ask(&proxy, "first").await;
        assert_eq!((answer.status, answer.text()), (200, format!("{ANSWER}{DONE}")), "{dislike:?}");
        assert_eq!(
            (record["outcome"].as_str(), requests.load(Ordering::SeqCst)),
            (Some("completed"), 2),
            "{dislike:?}"
        );
        let (answer, _) = ask(&proxy, "second").await;
        assert_eq!((answer.status, requests.load(Ordering::SeqCst)), (200, 3), "{dislike:?}: it is remembered");
    }
}

#[tokio::test]
async fn a_backend_that_fails_whatever_it_is_asked_is_asked_twice_once() {
    for (dislike, status) in [(Dislike::Status("403 Forbidden"), 403), (Dislike::ErrorUnder200, 200)] {
        let (upstream, requests) = disliking(dislike, true).await;
        let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
        for (id, expected) in [("first", 2), ("second", 3), ("third", 4)] {
            let (answer, _) = ask(&proxy, id).await;
            assert_eq!((answer.status, requests.load(Ordering::SeqCst)), (status, expected), "{dislike:?} {id}");
            assert_eq!(answer.text(), r#"{"error":{"message":"unknown field"}}"#);
        }
    }
    // Who may not ask at all is not asked again for it.
    let (upstream, requests) = disliking(Dislike::Status("401 Unauthorized"), true).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    assert_eq!((ask(&proxy, "r").await.0.status, requests.load(Ordering::SeqCst)), (401, 1));
}

#[tokio::test]
async fn an_edited_body_keeps_its_byte_order_mark() {
    let (upstream, mut seen) = Upstream::recording("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let renamed = ROUTE.replace("upstream = \"fake\"", "upstream = \"fake\", model = \"own\"");
    for (route, model) in [(ROUTE, "gpt-4o"), (&*renamed, "own")] {
        let proxy = Proxy::start(&config(upstream.address, route)).await;
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", &format!("\u{feff}{CHAT}"), "").await;
        assert_eq!(client.answer().await.status, 200);
        let body = String::from_utf8(seen.recv().await.unwrap().body).unwrap();
        let asking = CHAT.replacen('{', r#"{"stream_options":{"include_usage":true},"#, 1);
        assert_eq!(body, format!("\u{feff}{}", asking.replacen("gpt-4o", model, 1)));
    }
}

#[tokio::test]
async fn what_was_asked_for_is_taken_out_whoever_shapes_it() {
    let litellm = json!({"id": "c", "choices": [{"index": 0, "delta": {}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}});
    let llama = json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}, "timings": {"prompt_ms": 2.5}});
    let upstream = Upstream::start(move |mut conn| {
        let chunks = [litellm.to_string(), llama.to_string()];
        async move {
            while let Some(seen) = conn.request().await {
                let chunk = &chunks[usize::from(seen.header("x-shape") == Some("llama"))];
                conn.event_stream().await;
                conn.chunk(format!("{ANSWER}data: {chunk}\n\n{DONE}")).await;
                conn.chunk("").await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let with_timings = CHAT.replacen('{', r#"{"timings_per_token":true,"#, 1);
    for (id, shape, body, passes) in
        [("a", "litellm", CHAT, false), ("b", "llama", CHAT, false), ("c", "llama", with_timings.as_str(), true)]
    {
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", body, &format!("x-request-id: {id}\r\nx-shape: {shape}\r\n")).await;
        let text = client.answer().await.text();
        assert_eq!(text.contains("\"usage\""), passes, "{shape}: {text}");
        assert!(text.starts_with(ANSWER) && text.ends_with(DONE), "{shape}: {text}");
        let record = proxy.record(id).await;
        assert_eq!(
            (&record["gen_ai.usage.input_tokens"], &record["gen_ai.usage.output_tokens"]),
            (&json!(7), &json!(3))
        );
    }
}

/// An upstream that answers every request with this JSON.
async fn answering(json: String) -> Upstream {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
    Upstream::fixed(format!("{head}: {}\r\n\r\n{json}", json.len())).await
}

#[tokio::test]
async fn usage_of_pictures_is_read_however_large_they_are() {
    let picture = "A".repeat(5 << 20);
    let usage = json!({"input_tokens": 50, "output_tokens": 1_000, "total_tokens": 1_050});
    let upstream = answering(json!({"created": 1, "data": [{"b64_json": picture}], "usage": usage}).to_string()).await;
    let proxy = Proxy::start(&config(upstream.address, &format!("{ROUTE}{PRICE}"))).await;
    let body = r#"{"model":"gpt-image-1","prompt":"a river"}"#;
    let (answer, record) = post(&proxy, "r", "/v1/images/generations", body).await;
    assert!(answer.status == 200 && answer.body.len() > 5 << 20);
    assert_eq!(record["gen_ai.operation.name"], "image_generation");
    assert_eq!(
        (&record["gen_ai.usage.input_tokens"], &record["gen_ai.usage.output_tokens"]),
        (&json!(50), &json!(1_000))
    );
    assert_eq!((record["usage_source"].as_str(), &record["cost_usd"]), (Some("reported"), &json!(0.00205)));
}

#[tokio::test]
async fn operations_beside_the_chat_have_their_names_and_usage() {
    let upstream = answering(json!({"usage": {"total_tokens": 26}, "results": []}).to_string()).await;
    let proxy = Proxy::start(&config(upstream.address, &format!("{ROUTE}{PRICE}"))).await;
    for (path, operation, body) in [
        ("/v1/rerank", "rerank", r#"{"model":"m","query":"q","documents":["d"]}"#),
        ("/v1/moderations", "moderation", r#"{"model":"m","input":"x"}"#),
        ("/v1/embeddings", "embeddings", r#"{"model":"m","input":"x"}"#),
        ("/v1/audio/transcriptions", "transcription", r#"{"model":"m"}"#),
        ("/v1/responses/compact", "compaction", r#"{"model":"m","input":"x"}"#),
    ] {
        let (_, record) = post(&proxy, operation, path, body).await;
        assert_eq!(record["gen_ai.operation.name"], operation);
        assert_eq!((&record["gen_ai.usage.input_tokens"], &record["ttft_s"]), (&json!(26), &Value::Null), "{path}");
    }
}

#[tokio::test]
async fn counting_tokens_runs_no_model() {
    let upstream = answering(json!({"input_tokens": 1_000}).to_string()).await;
    let limit = "[[limit]]\nname = \"few\"\nkey = \"global\"\ntokens_per_minute = 1\nburst = 1\n";
    let route = format!("{ROUTE}limits = [\"few\"]\n\n");
    let proxy = Proxy::start(&config(upstream.address, &format!("{route}{limit}{PRICE}"))).await;
    let body = r#"{"model":"m","input":"x","prompt":"x","messages":[{"role":"user","content":"a long and winding question"}]}"#;
    for (id, path) in [
        ("a", "/v1/messages/count_tokens"),
        ("b", "/v1/responses/input_tokens"),
        ("c", "/v1beta/models/g:countTokens"),
        ("d", "/tokenize"),
    ] {
        let (answer, record) = post(&proxy, id, path, body).await;
        assert_eq!((answer.status, record["event"].as_str()), (200, Some("http.request")), "{path}");
        assert!(record["gen_ai.usage.input_tokens"].is_null() && record["cost_usd"].is_null(), "{record}");
    }
}

#[tokio::test]
async fn a_tool_named_without_input_is_an_answer() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let serve = move |mut conn: crate::support::Conn| {
        let counter = Arc::clone(&counter);
        async move {
            while conn.request().await.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                conn.event_stream().await;
                for event in [
                    json!({"type": "message_start", "message": {"id": "m", "model": "m", "usage": {"input_tokens": 5}}}),
                    json!({"type": "content_block_start", "index": 0,
                        "content_block": {"type": "tool_use", "id": "t", "name": "now", "input": {}}}),
                    json!({"type": "content_block_stop", "index": 0}),
                    json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
                    json!({"type": "message_stop"}),
                ] {
                    let name = event["type"].as_str().unwrap();
                    conn.chunk(format!("event: {name}\ndata: {event}\n\n")).await;
                }
                conn.chunk("").await;
            }
        }
    };
    let (one, other) = (Upstream::start(serve.clone()).await, Upstream::start(serve).await);
    let text = format!(
        "[[upstream]]\nname = \"fake\"\nurls = [\"http://{}\", \"http://{}\"]\n\n{ROUTE}",
        one.address, other.address
    );
    let proxy = Proxy::start(&text).await;
    let body = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let (answer, record) = post(&proxy, "r", "/v1/messages", body).await;
    assert!(answer.whole && answer.text().ends_with("{\"type\":\"message_stop\"}\n\n"));
    assert_eq!((record["outcome"].as_str(), requests.load(Ordering::SeqCst)), (Some("completed"), 1));
    assert!(!record["ttft_s"].is_null());
}
