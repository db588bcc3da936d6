//! Work that goes on after its answer: batches, trainings and evaluations, and what is done past the proxy, whose usage nobody
//! sees, are refused by limits that count it; runs of assistants hold until their end is first seen.

use serde_json::{Value, json};

use crate::limits::all_ended;
use crate::support::{Answer, Proxy, Upstream, config};

/// A limit on tokens, one on dollars, and one on neither; each for whoever names it, and a route that has none.
const ROUTES: &str = r#"
[[limit]]
name = "tokens"
key = "global"
tokens_per_minute = 100_000
[[limit]]
name = "money"
key = "global"
cost_per_day = 1.0
[[limit]]
name = "pace"
key = "global"
requests_per_minute = 1000
concurrent = 100
[[price]]
model = "*"
input = 1.0
output = 2.0
[[route]]
name = "tokens"
headers = { x-limit = "tokens" }
targets = [{ upstream = "fake" }]
limits = ["tokens"]
[[route]]
name = "money"
headers = { x-limit = "money" }
targets = [{ upstream = "fake" }]
limits = ["money", "pace"]
[[route]]
name = "pace"
headers = { x-limit = "pace" }
targets = [{ upstream = "fake" }]
limits = ["pace"]
[[route]]
name = "free"
targets = [{ upstream = "fake" }]
"#;

/// Where each dialect has its words and its kind of error.
const OPENAI: (&str, &str, &str) = ("/error/message", "/error/type", "permission_error");
const ANTHROPIC: (&str, &str, &str) = ("/error/message", "/error/type", "permission_error");
const GEMINI: (&str, &str, &str) = ("/error/message", "/error/status", "PERMISSION_DENIED");
const PLAIN: (&str, &str, &str) = ("/detail", "/code", "forbidden");

async fn post(proxy: &Proxy, path: &str, more: &str, body: &str) -> Answer {
    let mut client = proxy.client().await;
    client.post(path, body, more).await;
    client.answer().await
}

#[tokio::test]
async fn what_runs_later_is_refused_where_it_would_have_to_be_counted() {
    let (upstream, mut seen) = Upstream::recording("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let proxy = Proxy::start(&config(upstream.address, ROUTES)).await;
    for (path, (words, place, kind)) in [
        ("/v1/batches", OPENAI),
        ("/v1//batches/", OPENAI),
        ("/openai/batches?api-version=1", OPENAI),
        ("/v1/fine_tuning/jobs", OPENAI),
        ("/v1/evals/eval_1/runs", OPENAI),
        ("/v1/messages/batches", ANTHROPIC),
        ("/v1beta/models/gemini:batchGenerateContent", GEMINI),
        ("/v1beta/models/gemini%3AbatchGenerate%43ontent", GEMINI),
        ("/v1beta/models/gemini:asyncBatchEmbedContent", GEMINI),
        ("/v1/realtime/client_secrets", OPENAI),
        ("/v1/realtime/calls", OPENAI),
        ("/v1alpha/auth_tokens", GEMINI),
        ("/v1/batch/jobs", PLAIN),
        ("/model-customization-jobs", PLAIN),
    ] {
        for limit in ["tokens", "money"] {
            let id = format!("{limit}{}", path.replace(['/', ':', '%', '?', '='], "-"));
            let more = format!("x-limit: {limit}\r\nx-request-id: {id}\r\n");
            let refused = post(&proxy, path, &more, r#"{"input_file_id":"file-1"}"#).await;
            assert_eq!(refused.status, 403, "{path}: {}", refused.text());
            let body: Value = serde_json::from_str(&refused.text()).unwrap();
            let said = body.pointer(words).and_then(Value::as_str).unwrap_or_default();
            assert!(said.contains("no answer tells what it t") && said.contains(limit), "{path}: {body}");
            assert_eq!(body.pointer(place), Some(&kind.into()), "{path}: {body}");
            let record = proxy.record(&id).await;
            let elsewhere = ["realtime", "auth_tokens"].iter().any(|part| path.contains(part));
            let decision = if elsewhere { "elsewhere" } else { "batch" };
            assert_eq!((&record["limit"]["decision"], &record["outcome"]), (&decision.into(), &"rejected".into()));
        }
        assert!(seen.try_recv().is_err(), "nobody was asked: {path}");
        for limit in ["pace", "none"] {
            let passed = post(&proxy, path, &format!("x-limit: {limit}\r\n"), r#"{"input_file_id":"file-1"}"#).await;
            assert_eq!(passed.status, 200, "{path}: {}", passed.text());
            seen.recv().await.unwrap();
        }
    }
    // A WebSocket on which a model is talked with in words that are not read here.
    let live = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = proxy.client().await.get(live, &format!("x-limit: tokens\r\n{upgrade}")).await;
    let body: Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!((refused.status, &body["error"]["status"]), (403, &"PERMISSION_DENIED".into()), "{body}");
    assert!(seen.try_recv().is_err());
    assert_eq!(proxy.client().await.get(live, &format!("x-limit: pace\r\n{upgrade}")).await.status, 200);
    seen.recv().await.unwrap();
    // To see what there is asks for nothing.
    for path in ["/v1/batches", "/v1/fine_tuning/jobs"] {
        assert_eq!(proxy.client().await.get(path, "x-limit: tokens\r\n").await.status, 200);
        seen.recv().await.unwrap();
    }
}

/// For each user, who is believed; what is spent hardly drains while the test runs.
const RUNS: &str = r#"
[server]
trusted_proxies = ["127.0.0.1"]
[[limit]]
name = "each"
key = "user"
tokens_per_minute = 6
burst = 1000
concurrent = 1
[[price]]
model = "*"
input = 1.0
output = 2.0
[[route]]
name = "all"
targets = [{ upstream = "fake" }]
limits = ["each"]
"#;

fn run(id: &str, status: &str) -> Value {
    let usage = json!({"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100});
    let usage = if status == "completed" { usage } else { Value::Null };
    json!({"id": id, "object": "thread.run", "thread_id": "t", "status": status, "model": "gpt-5", "usage": usage})
}

/// OpenAI's Assistants, as far as runs go. The request's headers name the run and its status.
async fn assistants() -> Upstream {
    Upstream::start(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            let line = seen.head.lines().next().unwrap().to_owned();
            let id = seen.header("x-id").unwrap_or("run_1").to_owned();
            let status = seen.header("x-status").unwrap_or("queued").to_owned();
            if seen.body.windows(13).any(|piece| piece == b"\"stream\":true") {
                conn.event_stream().await;
                let delta = json!({"id": "msg", "object": "thread.message.delta",
                    "delta": {"content": [{"index": 0, "type": "text", "text": {"value": "Hello"}}]}});
                for (name, data) in [
                    ("thread.run.created", run(&id, "queued")),
                    ("thread.run.in_progress", run(&id, "in_progress")),
                    ("thread.message.delta", delta),
                    ("thread.run.completed", run(&id, "completed")),
                ] {
                    conn.chunk(format!("event: {name}\ndata: {data}\n\n")).await;
                }
                conn.chunk("event: done\ndata: [DONE]\n\n").await;
                conn.chunk("").await;
                continue;
            }
            let value = match () {
                () if line.contains("/steps/") => {
                    json!({"id": "step_1", "object": "thread.run.step", "status": "completed",
                        "usage": {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}})
                }
                () if line.starts_with("GET") && line.contains("/runs ") => {
                    json!({"object": "list", "data": [run(&id, "completed")], "first_id": id})
                }
                () => run(&id, &status),
            };
            let text = value.to_string();
            let length = text.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
            conn.write(format!("{head}{text}")).await;
        }
    })
    .await
}

/// What the record of a request tells of usage, and of what it was charged.
async fn told(proxy: &Proxy, id: &str) -> (String, Value, Value) {
    let record = proxy.record(id).await;
    assert_eq!(record["outcome"], "completed", "{record}");
    let source = record["usage_source"].as_str().unwrap_or("none").to_owned();
    (source, record["gen_ai.usage.output_tokens"].clone(), record["limit"]["used"].clone())
}

#[tokio::test]
async fn a_run_of_an_assistant_is_priced_once_and_polls_cost_nothing() {
    let upstream = assistants().await;
    let proxy = Proxy::start(&config(upstream.address, RUNS)).await;
    let ask = r#"{"assistant_id":"asst_1","model":"gpt-5","max_completion_tokens":600}"#;
    let runs = "/v1/threads/t/runs";
    let send = async |id: &str, path: &str, more: &str, body: &str| {
        let answer = post(&proxy, path, &format!("x-request-id: {id}\r\n{more}"), body).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        told(&proxy, id).await
    };
    let get = async |id: &str, path: &str, more: &str| {
        let answer = proxy.client().await.get(path, &format!("x-request-id: {id}\r\n{more}")).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        told(&proxy, id).await
    };
    let holder = async |user: &str| {
        let (_, text) = proxy.admin_get(&format!("/api/limits?user={user}")).await;
        serde_json::from_str::<Value>(&text).unwrap()["holders"][0].clone()
    };
    let pending = ("pending".to_owned(), Value::Null, Value::from(0));
    let delivery = ("delivery".to_owned(), Value::Null, Value::from(0));
    let (alice, bob) = ("x-user-id: alice\r\n", "x-user-id: bob\r\n");

    assert_eq!(send("ask", runs, alice, ask).await, pending);
    let held = holder("alice").await;
    assert!(held["tokens_held"].as_u64().unwrap() >= 600 && held["running"] == 1, "it holds on: {held}");
    assert_eq!(post(&proxy, runs, alice, ask).await.status, 429, "and keeps its place");
    for status in ["in_progress", "requires_action"] {
        let more = format!("{alice}x-status: {status}\r\n");
        assert_eq!(get(&format!("poll-{status}"), "/v1/threads/t/runs/run_1", &more).await, pending);
    }
    let outputs = r#"{"tool_outputs":[{"tool_call_id":"call_1","output":"42"}]}"#;
    let submit = "/v1/threads/t/runs/run_1/submit_tool_outputs";
    assert_eq!(send("submit", submit, alice, outputs).await, pending);
    let still = holder("alice").await;
    assert_eq!(still["tokens_held"], held["tokens_held"], "it goes on with what it held: {still}");

    let done = format!("{bob}x-status: completed\r\n");
    let end = get("end", "/v1/threads/t/runs/run_1", &done).await;
    assert_eq!(end, ("reported".to_owned(), 30.into(), 0.into()), "bob sees it first, and alice asked for it");
    let record = proxy.record("end").await;
    assert_eq!((&record["asked_by"]["user.id"], &record["cost_usd"]), (&"alice".into(), &0.00013.into()));
    assert_eq!(get("again", "/v1/threads/t/runs/run_1", &done).await, delivery);
    assert_eq!(get("step", "/v1/threads/t/runs/run_1/steps/step_1", &done).await.2, Value::from(0));
    assert_eq!(get("list", runs, &done).await.2, Value::from(0));
    assert_eq!(send("rename", "/v1/threads/t/runs/run_1", &done, r#"{"metadata":{}}"#).await, delivery);

    // One that was asked for elsewhere is paid by who sees its end first.
    let found = format!("{done}x-id: run_2\r\n");
    assert_eq!(get("found", "/v1/threads/t/runs/run_2", &found).await, ("reported".to_owned(), 30.into(), 100.into()));
    assert_eq!(get("found-again", "/v1/threads/t/runs/run_2", &found).await, delivery);
    // One that was streamed to its end was paid there.
    let carol = "x-user-id: carol\r\nx-id: run_3\r\nx-status: completed\r\n";
    let streamed = ask.replacen('{', "{\"stream\":true,", 1);
    assert_eq!(send("stream", runs, carol, &streamed).await, ("reported".to_owned(), 30.into(), 100.into()));
    assert_eq!(get("streamed", "/v1/threads/t/runs/run_3", carol).await, delivery);

    all_ended(&proxy).await;
    let alice_has = holder("alice").await;
    let spent = alice_has["tokens_spent"].as_u64().unwrap();
    assert!(alice_has["tokens_held"] == 0 && spent > 80 && spent <= 100, "{alice_has}");
}
