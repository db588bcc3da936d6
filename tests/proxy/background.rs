//! Responses that are made in the background: priced once, when their end is first seen, for who asked for them.

use serde_json::{Value, json};

use crate::limits::{all_ended, limited, tokens};
use crate::support::{Answer, Conn, Proxy, Upstream, config};

/// A limit for each user, who is believed, and a price. What is spent hardly drains while the test runs.
const LIMIT: &str = "key = \"user\"\ntokens_per_minute = 6\nburst = 1000\nconcurrent = 1\n\n\
    [[price]]\nmodel = \"*\"\ninput = 1\noutput = 2\n\n[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// The same for everybody together, and any number at a time.
const WIDE: &str = "key = \"global\"\ntokens_per_minute = 100000\n\n[[price]]\nmodel = \"*\"\ninput = 1\noutput = 2\n";

const ASK: &str = r#"{"model":"gpt-5","input":"write a novel","background":true,"max_output_tokens":600}"#;

fn response(id: &str, status: &str) -> Value {
    let usage = matches!(status, "completed" | "cancelled").then(|| json!({"input_tokens": 70, "output_tokens": 30}));
    json!({"id": id, "object": "response", "status": status, "background": true, "model": "gpt-5", "usage": usage})
}

/// A response in the background as a stream.
fn events(id: &str) -> [Value; 5] {
    [
        json!({"type": "response.created", "sequence_number": 0, "response": response(id, "queued")}),
        json!({"type": "response.in_progress", "sequence_number": 1, "response": response(id, "in_progress")}),
        json!({"type": "response.output_text.delta", "sequence_number": 2, "delta": "Once"}),
        json!({"type": "response.output_text.delta", "sequence_number": 3, "delta": " upon"}),
        json!({"type": "response.completed", "sequence_number": 4, "response": response(id, "completed")}),
    ]
}

async fn stream(conn: &mut Conn, events: &[Value]) {
    conn.event_stream().await;
    for event in events {
        conn.chunk(format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())).await;
    }
}

async fn answer(conn: &mut Conn, value: &Value) {
    let (text, head) = (value.to_string(), "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length");
    conn.write(format!("{head}: {}\r\n\r\n{text}", text.len())).await;
}

/// A server whose response has the id and the status that the request's headers name. Streamed it goes on for as long as the
/// client stays after its first word where it says `x-leaves`.
async fn server() -> Upstream {
    Upstream::start(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            let line = seen.head.lines().next().unwrap().to_owned();
            let id = seen.header("x-id").unwrap().to_owned();
            let status = seen.header("x-status").unwrap_or("queued").to_owned();
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            if line.contains("stream=true") {
                stream(&mut conn, &events(&id)[3..]).await;
                conn.chunk("").await;
            } else if body.contains("\"stream\":true") && seen.header("x-leaves").is_some() {
                stream(&mut conn, &events(&id)[..3]).await;
                return conn.closed().await;
            } else if body.contains("\"stream\":true") {
                stream(&mut conn, &events(&id)).await;
                conn.chunk("").await;
            } else if line.contains("/interactions") {
                let usage = json!({"total_input_tokens": 70, "total_output_tokens": 30});
                let usage = if status == "completed" { usage } else { Value::Null };
                let value = json!({"id": id, "object": "interaction", "status": status, "model": "g", "usage": usage});
                answer(&mut conn, &value).await;
            } else {
                let mut value = response(&id, &status);
                value["background"] = (!id.contains("plain")).into();
                answer(&mut conn, &value).await;
            }
        }
    })
    .await
}

async fn post(proxy: &Proxy, request_id: &str, body: &str, more: &str) -> (Answer, Value) {
    let mut client = proxy.client().await;
    client.post("/v1/responses", body, &format!("x-request-id: {request_id}\r\n{more}")).await;
    let answer = client.answer().await;
    (answer, proxy.record(request_id).await)
}

async fn get(proxy: &Proxy, request_id: &str, path: &str, more: &str) -> Value {
    let answer = proxy.client().await.get(path, &format!("x-request-id: {request_id}\r\n{more}")).await;
    assert_eq!((answer.status, answer.whole), (200, true), "{request_id}: {}", answer.text());
    proxy.record(request_id).await
}

async fn holder(proxy: &Proxy, user: &str) -> Value {
    let (_, text) = proxy.admin_get(&format!("/api/limits?user={user}")).await;
    let view: Value = serde_json::from_str(&text).unwrap();
    view["holders"][0].clone()
}

fn told(record: &Value) -> (&str, &Value, &Value, &Value) {
    let usage = ["input", "output"].map(|kind| &record[format!("gen_ai.usage.{kind}_tokens")]);
    (record["usage_source"].as_str().unwrap_or_default(), usage[0], usage[1], &record["cost_usd"])
}

const NOTHING: Value = Value::Null;

#[tokio::test]
async fn it_is_priced_once_for_who_asked_when_its_end_is_first_seen() {
    let upstream = server().await;
    let proxy = Proxy::start(&config(upstream.address, &limited(LIMIT))).await;
    let (alice, bob) = ("x-user-id: alice\r\nx-id: resp_1\r\n", "x-user-id: bob\r\nx-id: resp_1\r\n");

    let (_, asked) = post(&proxy, "ask", ASK, alice).await;
    assert_eq!(told(&asked), ("pending", &NOTHING, &NOTHING, &NOTHING), "{asked}");
    assert!(asked["limit"]["reserved"].as_u64().unwrap() > 600 && asked["limit"]["used"] == 0, "{asked}");
    // What it holds it holds on: its tokens, and its place.
    assert!(holder(&proxy, "alice").await["tokens_held"].as_u64().unwrap() > 600);
    assert_eq!(post(&proxy, "too-many", ASK, alice).await.0.status, 429);

    // Polling takes no place, and tells nothing while it runs.
    let polled = get(&proxy, "poll", "/v1/responses/resp_1", &format!("{alice}x-status: in_progress\r\n")).await;
    assert_eq!(told(&polled), ("pending", &NOTHING, &NOTHING, &NOTHING), "{polled}");
    assert_eq!(
        (&polled["limit"]["reserved"], &polled["gen_ai.operation.name"]),
        (&0.into(), &"retrieve_response".into())
    );

    let end = get(&proxy, "end", "/v1/responses/resp_1", &format!("{bob}x-status: completed\r\n")).await;
    assert_eq!(told(&end), ("reported", &70.into(), &30.into(), &0.00013.into()), "{end}");
    assert_eq!(
        (&end["asked_by"]["request_id"], &end["asked_by"]["user.id"], &end["gen_ai.request.model"]),
        (&"ask".into(), &"alice".into(), &"gpt-5".into()),
        "{end}"
    );
    assert_eq!((&end["limit"]["used"], &end["outcome"]), (&0.into(), &"completed".into()), "bob pays nothing: {end}");
    all_ended(&proxy).await;
    let (alice_has, bob_has) = (holder(&proxy, "alice").await, holder(&proxy, "bob").await);
    let spent = alice_has["tokens_spent"].as_u64().unwrap();
    assert!(alice_has["tokens_held"] == 0 && spent > 80 && spent <= 100, "{alice_has}");
    assert_eq!(bob_has["tokens_spent"].as_u64().unwrap_or(0), 0, "{bob_has}");

    for (again, path) in
        [("again", "/v1/responses/resp_1"), ("resumed", "/v1/responses/resp_1?stream=true&starting_after=2")]
    {
        let record = get(&proxy, again, path, &format!("{bob}x-status: completed\r\n")).await;
        assert_eq!(told(&record), ("delivery", &NOTHING, &NOTHING, &NOTHING), "{record}");
        assert!(record["asked_by"].is_null() && record["limit"]["used"] == 0, "{record}");
    }
    let (_, metrics) = proxy.admin_get("/metrics").await;
    for series in [
        "streamgauge_tokens_total{route=\"all\",upstream=\"fake\",model=\"gpt-5\",type=\"output\"} 30",
        "streamgauge_cost_usd_total{route=\"all\",model=\"gpt-5\",team=\"none\"} 0.00013",
        "streamgauge_llm_calls_total{route=\"all\",upstream=\"fake\",usage_source=\"pending\"} 2",
        "streamgauge_llm_calls_total{route=\"all\",upstream=\"fake\",usage_source=\"delivery\"} 2",
        "streamgauge_llm_calls_total{route=\"all\",upstream=\"fake\",usage_source=\"reported\"} 1",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }
    let first_tokens = metrics.lines().find(|line| line.starts_with("gen_ai_server_time_to_first_token_seconds_count"));
    assert_eq!(first_tokens, None, "a stream that is resumed says nothing of the model's pace");
    let usages: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("gen_ai_client_token_usage") && line.contains("_count{"))
        .collect();
    assert!(usages.iter().all(|line| line.ends_with(" 1")), "{usages:?}");
}

#[tokio::test]
async fn a_stream_that_its_client_left_is_priced_when_it_is_resumed() {
    let upstream = server().await;
    let proxy = Proxy::start(&config(upstream.address, &limited(WIDE))).await;
    let ask = ASK.replacen('{', "{\"stream\":true,", 1);
    let mut client = proxy.client().await;
    client.post("/v1/responses", &ask, "x-request-id: left\r\nx-id: resp_2\r\nx-leaves: 1\r\n").await;
    client.until("Once").await;
    drop(client);
    let left = proxy.record("left").await;
    assert_eq!((left["outcome"].as_str(), told(&left).0), (Some("client_cancelled"), "pending"), "{left}");
    let resume = "/v1/responses/resp_2?stream=true&starting_after=2";
    let resumed = get(&proxy, "resumed", resume, "x-id: resp_2\r\n").await;
    assert_eq!(told(&resumed), ("reported", &70.into(), &30.into(), &0.00013.into()), "{resumed}");
    assert_eq!(resumed["asked_by"]["request_id"], "left");
    assert_eq!(told(&get(&proxy, "again", resume, "x-id: resp_2\r\n").await).0, "delivery");

    // One that was streamed to its end was priced there.
    let (_, whole) = post(&proxy, "whole", &ask, "x-id: resp_3\r\n").await;
    assert_eq!((told(&whole).0, told(&whole).2), ("reported", &30.into()), "{whole}");
    let resume = "/v1/responses/resp_3?stream=true&starting_after=2";
    assert_eq!(told(&get(&proxy, "handed-out", resume, "x-id: resp_3\r\n").await).0, "delivery");
    all_ended(&proxy).await;
    assert_eq!(tokens(&proxy, "used").await, 200);
    assert_eq!(tokens(&proxy, "reserved").await, tokens(&proxy, "charged").await + tokens(&proxy, "returned").await);
}

#[tokio::test]
async fn what_nobody_asked_for_here_is_its_callers_and_what_was_no_job_is_nobodys() {
    let upstream = server().await;
    let proxy = Proxy::start(&config(upstream.address, &limited(WIDE))).await;
    let done = "x-status: completed\r\n";
    // Asked for through another proxy, or before a restart.
    let path = "/openai/responses/resp_4?api-version=1";
    let found = get(&proxy, "found", path, &format!("x-id: resp_4\r\n{done}")).await;
    assert_eq!((told(&found).0, &found["limit"]["used"]), ("reported", &100.into()), "{found}");
    assert_eq!(told(&get(&proxy, "found-again", path, &format!("x-id: resp_4\r\n{done}")).await).0, "delivery");
    // It was priced by the answer to who asked for it.
    let plain = get(&proxy, "plain", "/v1/responses/resp_plain", &format!("x-id: resp_plain\r\n{done}")).await;
    assert_eq!((told(&plain).0, &plain["limit"]["used"]), ("delivery", &0.into()), "{plain}");
    // The end may come by being cancelled.
    post(&proxy, "ask", ASK, "x-id: resp_5\r\n").await;
    let mut client = proxy.client().await;
    client
        .post("/v1/responses/resp_5/cancel", "", "x-request-id: cancel\r\nx-id: resp_5\r\nx-status: cancelled\r\n")
        .await;
    assert_eq!(client.answer().await.status, 200);
    let cancelled = proxy.record("cancel").await;
    assert_eq!((told(&cancelled).2, &cancelled["asked_by"]["request_id"]), (&30.into(), &"ask".into()), "{cancelled}");
    // Gemini's interactions are made in the background too.
    let mut client = proxy.client().await;
    let ask = r#"{"model":"g","input":"research","background":true}"#;
    client.post("/v1beta/interactions", ask, "x-request-id: g\r\nx-id: int_1\r\nx-status: in_progress\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(told(&proxy.record("g").await).0, "pending");
    let end = get(&proxy, "g-end", "/v1beta/interactions/int_1", &format!("x-id: int_1\r\n{done}")).await;
    assert_eq!((told(&end).2, &end["asked_by"]["request_id"]), (&30.into(), &"g".into()), "{end}");
    let again = get(&proxy, "g-again", "/v1beta/interactions/int_1", &format!("x-id: int_1\r\n{done}")).await;
    assert_eq!(told(&again).0, "delivery");
    all_ended(&proxy).await;
    assert_eq!(tokens(&proxy, "used").await, 300);
}

#[tokio::test]
async fn what_is_delivered_tells_nothing_of_how_fast_a_place_is() {
    let upstream = server().await;
    let proxy = Proxy::start(&config(upstream.address, &limited(WIDE))).await;
    let score = async || {
        let (_, text) = proxy.admin_get("/api/upstreams").await;
        let view: Value = serde_json::from_str(&text).unwrap();
        let (_, metrics) = proxy.admin_get("/metrics").await;
        let timed = metrics.contains("gen_ai_server_time_to_first_token_seconds_count");
        (view["upstreams"][0]["endpoints"][0]["balancer_score_s"].clone(), timed)
    };
    let done = "x-id: resp_6\r\nx-status: completed\r\n";
    get(&proxy, "fetched", "/v1/responses/resp_6", done).await;
    get(&proxy, "resumed", "/v1/responses/resp_6?stream=true&starting_after=2", done).await;
    let goes_on = "x-id: resp_8\r\nlast-event-id: 7\r\n";
    let resumed = get(&proxy, "goes-on", "/app/answers/8?stream=true", goes_on).await;
    assert_eq!(resumed["gen_ai.usage.output_tokens"], 30, "an app may well have it made anew: {resumed}");
    assert_eq!(score().await, (Value::Null, false));
    post(&proxy, "made", r#"{"model":"gpt-5","input":"hi","stream":true}"#, "x-id: resp_7\r\n").await;
    let (seconds, timed) = score().await;
    assert!(seconds.is_f64() && timed, "{seconds}");
}
