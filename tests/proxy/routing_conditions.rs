//! Routes that ask what a request is: how long its prompt is, what is in it, and who sends it.

use serde_json::{Value, json};

use crate::identity::key;
use crate::support::backend::{Act, Backend, token};
use crate::support::{Proxy, Upstream, config};

/// What is small and plain goes to one backend, sound that is to be streamed too; all else to the other.
const ROUTES: &str = r#"
[[route]]
name = "small"
path = "/v1/*"
prompt_tokens = "<100"
tools = false
images = false
audio = false
upstream = "cheap"
[[route]]
name = "spoken"
path = "/v1/*"
audio = true
stream = true
upstream = "cheap"
[[route]]
name = "large"
path = "/v1/*"
upstream = "long"
[[route]]
name = "rest"
upstream = "long"
"#;

struct Setup {
    cheap: Backend,
    long: Backend,
    proxy: Proxy,
}

async fn setup(more: &str) -> Setup {
    let (cheap, long) =
        (Backend::start("cheap", vec![Act::Stream]).await, Backend::start("long", vec![Act::Stream]).await);
    let proxy = Proxy::start(&format!("{more}{}{}{ROUTES}", cheap.table(""), long.table(""))).await;
    Setup { cheap, long, proxy }
}

/// Asks, and tells which route took it and which backend answered.
async fn route_of(setup: &Setup, id: &str, body: &Value, more: &str) -> String {
    let mut client = setup.proxy.client().await;
    client.post("/v1/chat/completions", &body.to_string(), &format!("x-request-id: {id}\r\n{more}")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.whole), (200, true), "{id}: {}", answer.text());
    let record = setup.proxy.record(id).await;
    let by = if answer.text().contains(&token("cheap")) { "cheap" } else { "long" };
    assert_eq!(record["upstream"], by, "{record}");
    record["route"].as_str().unwrap().to_owned()
}

fn chat(content: impl Into<Value>) -> Value {
    json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": content.into() }] })
}

#[tokio::test]
async fn the_size_of_a_prompt_and_what_is_in_it_decide_its_route() {
    let setup = setup("").await;
    let route = async |id: &str, body: Value| route_of(&setup, id, &body, "").await;
    assert_eq!(route("short", chat("hello")).await, "small");
    assert_eq!(route("long", chat("river ".repeat(100))).await, "large");
    // Too long to be counted: its text is estimated.
    assert_eq!(route("longest", chat("river ".repeat(20_000))).await, "large");
    let mut tools = chat("hello");
    tools["tools"] = json!([{ "type": "function", "function": { "name": "depth" } }]);
    assert_eq!(route("tools", tools.clone()).await, "large");
    tools["tools"] = json!([]);
    assert_eq!(route("no-tools", tools).await, "small");
    let picture = json!([{ "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } }]);
    assert_eq!(route("picture", chat(picture)).await, "large");
    let sound = json!([{ "type": "input_audio", "input_audio": { "data": "QUJD", "format": "wav" } }]);
    let mut sound = chat(sound);
    assert_eq!(route("streamed-sound", sound.clone()).await, "spoken");
    sound["stream"] = json!(false);
    assert_eq!(route("sound", sound).await, "large");
    assert_eq!((setup.cheap.log.count(), setup.long.log.count()), (3, 5));
}

#[tokio::test]
async fn a_body_is_only_read_where_a_route_asks_for_it() {
    let setup = setup("").await;
    // Half a document, which cannot be read as JSON.
    for (path, status) in [("/v1/chat/completions", 400), ("/other", 200)] {
        let mut client = setup.proxy.client().await;
        client.post(path, "{\"messages\": [", "").await;
        assert_eq!(client.answer().await.status, status, "{path}");
    }
    // What has no body has no prompt, which is not a short one.
    let mut client = setup.proxy.client().await;
    assert_eq!(client.get("/v1/models", "x-request-id: models\r\n").await.status, 200);
    assert_eq!(setup.proxy.record("models").await["route"], "large");
}

#[tokio::test]
async fn who_sends_a_request_decides_its_route() {
    let (cheap, long) =
        (Backend::start("cheap", vec![Act::Stream]).await, Backend::start("long", vec![Act::Stream]).await);
    let (entry, key) = key("batch-7");
    let routes = "[[route]]\nname = \"batch\"\nusers = [\"batch-*\"]\nupstream = \"cheap\"\n[[route]]\nname = \"team\"\nteams = [\"search\"]\n\
                  upstream = \"cheap\"\n[[route]]\nname = \"rest\"\nupstream = \"long\"\n";
    let trust = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let proxy = Proxy::start(&format!("{trust}{entry}\n{}{}{routes}", cheap.table(""), long.table(""))).await;
    let setup = Setup { cheap, long, proxy };
    let route = async |id: &str, more: &str| route_of(&setup, id, &chat("hello"), more).await;
    assert_eq!(route("user", "x-user-id: batch-1\r\n").await, "batch");
    assert_eq!(route("key", &format!("authorization: Bearer {key}\r\n")).await, "batch");
    assert_eq!(route("other", "x-user-id: alice\r\n").await, "rest");
    assert_eq!(route("nobody", "").await, "rest");
    let other = entry.replace("batch-7", "alice");
    setup.proxy.write_config(&format!("{trust}{other}\n{}{}{routes}", setup.cheap.table(""), setup.long.table("")));
    setup.proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    assert_eq!(route("team", &format!("authorization: Bearer {key}\r\n")).await, "team");
}

#[tokio::test]
async fn canary_and_limits_hold_for_those_whom_the_route_takes() {
    let setup = setup("").await;
    let more =
        "canary = { target = \"next\", steps = [100], step_time = \"0s\", min_requests = 1000 }\nlimits = [\"one\"]\n";
    let targets = format!("targets = [{{ upstream = \"cheap\" }}, {{ name = \"next\", upstream = \"long\" }}]\n{more}");
    let routes = ROUTES.replacen("upstream = \"cheap\"\n", &targets, 1);
    let limit = "[[limit]]\nname = \"one\"\nkey = \"global\"\nrequests_per_minute = 1\n";
    let proxy = Proxy::start(&format!("{limit}{}{}{routes}", setup.cheap.table(""), setup.long.table(""))).await;
    let ask = async |id: &str, text: &str| {
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", &chat(text).to_string(), &format!("x-request-id: {id}\r\n")).await;
        (client.answer().await.status, proxy.record(id).await)
    };
    let (status, record) = ask("first", "hello").await;
    assert_eq!((status, &record["route"], &record["variant"]), (200, &json!("small"), &json!("next")), "{record}");
    assert_eq!(ask("second", "hello").await.0, 429, "its limit");
    let long = "river ".repeat(200);
    for id in ["third", "fourth"] {
        let (status, record) = ask(id, &long).await;
        assert_eq!((status, &record["route"]), (200, &json!("large")), "{record}");
    }
}

#[tokio::test]
async fn what_routing_saves_is_compared_with_the_first_target() {
    let upstream = Upstream::start(async |mut conn| {
        while let Some(seen) = conn.request().await {
            let asked: Value = serde_json::from_slice(&seen.body).unwrap();
            let message =
                json!({ "index": 0, "message": { "role": "assistant", "content": "hi" }, "finish_reason": "stop" });
            let body = json!({ "id": "c", "object": "chat.completion", "model": asked["model"], "choices": [message],
                "usage": { "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100 } })
            .to_string();
            let length = body.len();
            conn.write(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            ))
            .await;
        }
    })
    .await;
    let price = |model: &str, input: f64| format!("[[price]]\nmodel = \"{model}\"\ninput = {input:?}\noutput = 0.0\n");
    let route = |name: &str, condition: &str, model: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\n{condition}\ntargets = [{{ upstream = \"fake\", model = \"{model}\" }}]\n"
        )
    };
    let routes = [
        route("unpriced", "tools = true", "mystery"),
        route("small", "prompt_tokens = \"<50\"", "mini"),
        route("pictures", "images = true", "dear"),
        route("usual", "", "usual"),
        price("mini", 1.0),
        price("usual", 10.0),
        price("dear", 100.0),
    ];
    let proxy = Proxy::start(&config(upstream.address, &routes.concat())).await;
    let picture = json!([{ "type": "image_url", "image_url": { "url": "x" } }]);
    let mut tools = chat("hello");
    tools["tools"] = json!([{ "type": "function" }]);
    for (id, mut body) in [
        ("a", chat("hello")),
        ("b", chat("hello you")),
        ("c", chat(picture)),
        ("d", chat("river ".repeat(100))),
        ("e", tools),
    ] {
        body["stream"] = json!(false);
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", &body.to_string(), &format!("x-request-id: {id}\r\n")).await;
        assert_eq!(client.answer().await.status, 200, "{id}");
        proxy.record(id).await;
    }
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let told: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("streamgauge_cost_saved") || line.starts_with("streamgauge_cost_added"))
        .collect();
    // 1,000 tokens, twice, at $1 in place of $10 a million; once at $100.
    let expected = [
        "streamgauge_cost_saved_usd_total{route=\"small\"} 0.018",
        "streamgauge_cost_added_usd_total{route=\"pictures\"} 0.09",
    ];
    assert_eq!(told, expected, "a route without conditions saves nothing, and what has no price is not counted");
}
