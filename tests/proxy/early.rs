//! Who is refused whatever the body says is refused before the body is read; nobody else is.

use serde_json::Value;

use crate::limits::{all_ended, chat, limited, stream};
use crate::support::{Client, Proxy, Upstream, config};

/// The head of a POST whose body never comes.
fn head(path: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n"
    )
}

async fn fill(proxy: &Proxy, more: &str) -> u16 {
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(10), more).await;
    let status = client.answer().await.status;
    all_ended(proxy).await;
    status
}

#[tokio::test]
async fn whoever_is_refused_whatever_the_body_says_sends_none() {
    let upstream = Upstream::fixed(stream(1_000, 1_000)).await;
    let prices = "[[price]]\nmodel = \"*\"\ninput = 1000.0\noutput = 1000.0\n";
    for (limit, decision) in [
        ("requests_per_minute = 1", "requests"),
        ("tokens_per_minute = 60\nburst = 1000", "tokens"),
        ("cost_per_day = 1.0", "cost_per_day"),
    ] {
        let proxy = Proxy::start(&config(upstream.address, &format!("{}\n{prices}", limited(limit)))).await;
        assert_eq!(fill(&proxy, "").await, 200, "{limit}");
        for path in ["/v1/chat/completions", "/v1/messages", "/app/chat"] {
            let id = format!("early{}", path.replace('/', "-"));
            let mut client = proxy.client().await;
            client.send(head(path, 1 << 20, &format!("expect: 100-continue\r\nx-request-id: {id}\r\n"))).await;
            let refused = client.next_answer(true).await;
            assert_eq!(refused.status, 429, "before the body, and nobody is asked for it: {limit}");
            assert_eq!(refused.header("connection"), Some("close"), "what is not read must not be the next request");
            assert!(refused.header("retry-after").is_some(), "{}", refused.head);
            let body: Value = serde_json::from_str(&refused.text()).unwrap();
            assert!(
                if path == "/app/chat" { body["detail"].is_string() } else { body["error"]["message"].is_string() },
                "{body}"
            );
            drop(client);
            let record = proxy.record(&id).await;
            assert_eq!((&record["limit"]["decision"], &record["outcome"]), (&decision.into(), &"rejected".into()));
            assert_eq!((&record["route"], &record["bytes_in"]), (&"all".into(), &0.into()), "{record}");
        }
        let (_, text) = proxy.admin_get("/api/limits").await;
        let view: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(view["holders"][0]["refused"]["count"], 3, "it is told as any other: {view}");
    }
}

#[tokio::test]
async fn a_place_that_is_taken_refuses_before_the_body_too() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, &limited("concurrent = 1"))).await;
    let mut first = proxy.client().await;
    first.post("/v1/chat/completions", &chat(10), "").await;
    let mut conn = conns.recv().await.unwrap();
    conn.request().await.unwrap();
    let mut second = proxy.client().await;
    second.send(head("/v1/chat/completions", 1 << 20, "")).await;
    assert_eq!(second.answer().await.status, 429);
    // What fetches an answer takes no place.
    let mut fetching = proxy.client().await;
    fetching.post("/v1/responses/resp_1/cancel", "{}", "").await;
    let mut cancel = conns.recv().await.unwrap();
    cancel.request().await.unwrap();
    cancel.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_eq!(fetching.answer().await.status, 200);
    conn.write(stream(8, 2)).await;
    assert_eq!(first.answer().await.status, 200);
}

#[tokio::test]
async fn after_a_short_body_the_connection_is_kept() {
    let upstream = Upstream::fixed(stream(8, 2)).await;
    let proxy = Proxy::start(&config(upstream.address, &limited("requests_per_minute = 1"))).await;
    assert_eq!(fill(&proxy, "").await, 200);
    let mut client = proxy.client().await;
    for _ in 0..3 {
        client.post("/v1/chat/completions", &chat(10), "").await;
        let refused = client.answer().await;
        assert_eq!((refused.status, refused.header("connection") == Some("close")), (429, false), "{}", refused.head);
    }
    // Of one whose length nobody knows nothing more is waited for.
    client
        .send("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await;
    let refused = client.answer().await;
    assert_eq!((refused.status, refused.header("connection")), (429, Some("close")));
}

#[tokio::test]
async fn where_a_model_decides_the_body_is_read_first() {
    let upstream = Upstream::fixed(stream(8, 2)).await;
    let routes = "[[limit]]\nname = \"l\"\nkey = \"global\"\nrequests_per_minute = 1\n[[route]]\nname = \"large\"\nmodels = [\"large*\"]\n\
                  targets = [{ upstream = \"fake\" }]\nlimits = [\"l\"]\n[[route]]\nname = \"others\"\ntargets = [{ upstream = \"fake\" }]\n";
    let proxy = Proxy::start(&config(upstream.address, routes)).await;
    let ask = async |client: &mut Client, model: &str| {
        client.post("/v1/chat/completions", &chat(10).replace("\"m\"", &format!("\"{model}\"")), "").await;
        client.answer().await.status
    };
    let mut client = proxy.client().await;
    assert_eq!(ask(&mut client, "large-1").await, 200);
    assert_eq!(ask(&mut client, "large-1").await, 429);
    assert_eq!(ask(&mut client, "small").await, 200, "another route takes it, which has no limit");
}
