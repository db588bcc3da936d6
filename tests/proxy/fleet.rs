//! Several endpoints of one upstream: the fast one is preferred, the failing one taken out, the recovered one brought back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::limits::metric;
use crate::support::backend::{Act, Backend, refusing, token};
use crate::support::{Proxy, Upstream, soon};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// One upstream at several addresses.
pub fn pool(addresses: &[std::net::SocketAddr], more: &str) -> String {
    let urls: Vec<String> = addresses.iter().map(|address| format!("\"http://{address}\"")).collect();
    format!("[[upstream]]\nname = \"pool\"\nurls = [{}]\n{more}\n", urls.join(", "))
}

pub async fn chat(proxy: &Proxy, id: &str) -> Value {
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, &format!("x-request-id: {id}\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.whole), (200, true), "{id}: {}", answer.text());
    proxy.record(id).await
}

/// What `/api/upstreams` says of the endpoint.
pub async fn endpoint(proxy: &Proxy, address: impl ToString) -> Value {
    let (_, text) = proxy.admin_get("/api/upstreams").await;
    let told: Value = serde_json::from_str(&text).unwrap();
    let endpoints = told["upstreams"][0]["endpoints"].as_array().unwrap().clone();
    endpoints.into_iter().find(|endpoint| endpoint["endpoint"] == address.to_string()).unwrap()
}

#[tokio::test]
async fn what_cannot_be_reached_is_taken_out_and_no_request_fails() {
    let (dead, well) = (refusing().await, Backend::start("well", vec![Act::Stream]).await);
    let text = pool(&[dead, well.address()], "");
    let proxy = Proxy::start(&text).await;
    let mut sent = 0;
    while endpoint(&proxy, dead).await["up"] == true {
        sent += 1;
        assert!(sent < 100, "a dead endpoint must be found out");
        chat(&proxy, &format!("r{sent}")).await;
    }
    for after in 0..10 {
        let record = chat(&proxy, &format!("after{after}")).await;
        assert_eq!(record["attempts"].as_array().unwrap().len(), 1, "{record}");
    }
    let told = endpoint(&proxy, dead).await;
    assert_eq!((&told["reason"], &told["ejected_addresses"]), (&"unreachable".into(), &1.into()));
    let (_, metrics) = proxy.admin_get("/metrics").await;
    for series in [
        format!("streamgauge_endpoint_up{{upstream=\"pool\",endpoint=\"{dead}\"}} 0"),
        format!("streamgauge_endpoint_up{{upstream=\"pool\",endpoint=\"{}\"}} 1", well.address()),
        format!("streamgauge_endpoint_ejections_total{{upstream=\"pool\",endpoint=\"{dead}\"}} 1"),
        "streamgauge_attempts_total{upstream=\"pool\",result=\"connect_refused\"} 5".to_owned(),
    ] {
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
    // What is known of an endpoint outlives a reload, also one that rebuilds its upstream.
    let third = Backend::start("third", vec![Act::Stream]).await;
    proxy.write_config(&pool(&[dead, well.address(), third.address()], ""));
    soon("the new endpoint", async {
        while !proxy.admin_get("/api/upstreams").await.1.contains(&third.address().to_string()) {}
    })
    .await;
    assert_eq!(endpoint(&proxy, dead).await["up"], false);
}

#[tokio::test]
async fn the_last_endpoint_is_never_taken_out() {
    let only = Backend::start("only", vec![Act::Status(500, "")]).await;
    let proxy = Proxy::start(&only.table("")).await;
    for request in 0..20 {
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, &format!("x-request-id: {request}\r\n")).await;
        assert_eq!(client.answer().await.status, 500, "the upstream's own answer, each time");
    }
    // The wish for usage was taken back once, with another request; from then on nobody doubts that it fails anyway.
    assert_eq!(only.log.count(), 21);
    let told = endpoint(&proxy, only.address()).await;
    assert_eq!(
        (&told["up"], &told["reason"], &told["ejected_addresses"]),
        (&false.into(), &"faulty".into(), &0.into())
    );
}

#[tokio::test]
async fn one_that_says_it_is_overloaded_is_left_alone_for_a_while() {
    let full = Backend::start("full", vec![Act::Status(429, "retry-after: 30\r\n")]).await;
    let well = Backend::start("well", vec![Act::Stream]).await;
    let proxy = Proxy::start(&pool(&[full.address(), well.address()], "")).await;
    for request in 0..30 {
        chat(&proxy, &request.to_string()).await;
    }
    assert!(full.log.count() <= 1, "asked {} times", full.log.count());
    assert_eq!(endpoint(&proxy, full.address()).await["up"], true, "a limit is no fault");
}

#[tokio::test]
async fn the_faster_endpoint_gets_more() {
    let pace = |first| Act::Paced { first: Duration::from_millis(first), then: Duration::ZERO, tokens: 1 };
    let slow = Backend::start("slow", vec![pace(150)]).await;
    let fast = Backend::start("fast", vec![pace(0)]).await;
    let proxy = Proxy::start(&pool(&[slow.address(), fast.address()], "")).await;
    for request in 0..40 {
        chat(&proxy, &request.to_string()).await;
    }
    assert!(slow.log.count() <= 4, "the slow one got {} of 40", slow.log.count());
    let told = endpoint(&proxy, slow.address()).await;
    let (p50, count) =
        (told["measured"]["p50_s"].as_f64().unwrap(), told["measured"]["first_tokens"].as_u64().unwrap());
    assert!(p50 >= 0.14, "what was measured does not fade: {told}");
    assert_eq!(count, slow.log.count() as u64, "{told}");
    assert!(told.get("first_token_s").is_none(), "the balancer's score is called a score: {told}");
}

#[tokio::test]
async fn one_that_truncates_every_answer_is_taken_out_after_five() {
    // It is the faster one, so that it is asked.
    let torn = Backend::start("torn", vec![Act::Dies(vec![token("torn")])]).await;
    let pace = Act::Paced { first: Duration::from_millis(60), then: Duration::ZERO, tokens: 1 };
    let well = Backend::start("well", vec![pace]).await;
    let proxy = Proxy::start(&pool(&[torn.address(), well.address()], "")).await;
    let mut sent = 0;
    while endpoint(&proxy, torn.address()).await["state"] != "ejected" {
        sent += 1;
        assert!(sent < 100, "a truncating endpoint must be found out, and was asked {} times", torn.log.count());
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, &format!("x-request-id: t{sent}\r\n")).await;
        client.answer().await;
        proxy.record(&format!("t{sent}")).await;
    }
    assert_eq!(torn.log.count(), 5, "five in a row");
    let told = endpoint(&proxy, torn.address()).await;
    assert_eq!((&told["reason"], &told["failures"]["count"]), (&"faulty".into(), &5.into()), "{told}");
    assert!(told["down_since"].as_str().is_some_and(|since| since.ends_with('Z')), "{told}");
    assert_eq!((&told["measured"]["failed"], &told["measured"]["first_tokens"]), (&5.into(), &5.into()), "{told}");
    // Which one it was is on each record, and says it in one line.
    let record = (1..=sent).map(|number| format!("t{number}"));
    let mut guilty = 0;
    for id in record {
        let record = proxy.record(&id).await;
        let port = record["server.port"].as_u64().unwrap();
        assert_eq!(record["attempts"][0]["server.port"].as_u64(), Some(port), "{record}");
        if record["outcome"] == "truncated" {
            assert_eq!((&record["server.address"], port), (&"127.0.0.1".into(), u64::from(torn.address().port())));
            guilty += 1;
        }
    }
    assert_eq!(guilty, 5);
    let (_, text) = proxy.admin_get("/api/streams").await;
    let streams: Value = serde_json::from_str(&text).unwrap();
    let trouble = &streams["troubles"][0];
    assert_eq!(
        (&trouble["what"], &trouble["endpoint"], &trouble["count"]),
        (&"upstream_body_reset".into(), &torn.address().to_string().into(), &5.into()),
        "{trouble}"
    );
    let (_, metrics) = proxy.admin_get("/metrics").await;
    for series in [
        format!(
            "streamgauge_endpoint_attempts_total{{upstream=\"pool\",endpoint=\"{}\",result=\"upstream_body_reset\"}} 5",
            torn.address()
        ),
        format!(
            "streamgauge_endpoint_first_token_seconds_count{{upstream=\"pool\",endpoint=\"{}\"}} 5",
            torn.address()
        ),
        format!(
            "streamgauge_endpoint_attempt_duration_seconds_count{{upstream=\"pool\",endpoint=\"{}\"}} 5",
            torn.address()
        ),
    ] {
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
}

#[tokio::test]
async fn checks_take_an_upstream_down_and_bring_it_back() {
    let ill = Arc::new(AtomicBool::new(false));
    let act = Act::Switch(Arc::clone(&ill), Box::new(Act::Status(503, "")), Box::new(Act::Status(204, "")));
    let backend = Backend::start("checked", vec![act]).await;
    let check = "health = { path = \"/alive?deep=1\", interval = \"20ms\" }";
    let proxy = Proxy::start(&backend.table(check)).await;
    let ready = async |wanted: u16| {
        soon("readiness to change", async { while proxy.admin_get("/readyz").await.0 != wanted {} }).await;
    };
    ready(200).await;
    ill.store(true, Ordering::SeqCst);
    ready(503).await;
    assert_eq!(endpoint(&proxy, backend.address()).await["reason"], "unreachable");
    let down = proxy.line("it to be down", |line| line["event"] == "upstream.down").await;
    assert_eq!(down["endpoint"], backend.address().to_string(), "{down}");
    assert!(down["serving"].as_str().is_some_and(|who| who.contains("other targets")), "who serves meanwhile: {down}");
    ill.store(false, Ordering::SeqCst);
    ready(200).await;
    let up = proxy.line("it to be back", |line| line["event"] == "upstream.up").await;
    assert_eq!(up["endpoint"], backend.address().to_string(), "{up}");
    assert!(up["away_s"].as_f64().is_some_and(|away| away > 0.0 && away < 60.0), "{up}");
    assert_eq!(endpoint(&proxy, backend.address()).await["down_since"], Value::Null);
    let seen = &backend.log.all()[0];
    assert!(seen.head.starts_with("GET /alive?deep=1 HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("host"), Some(backend.address().to_string().as_str()));
}

#[tokio::test]
async fn each_check_is_counted_by_what_came_of_it() {
    let dead = refusing().await;
    let well = Backend::start("well", vec![Act::Status(204, "")]).await;
    let ill = Backend::start("ill", vec![Act::Status(503, "")]).await;
    let (silent, _kept) = Upstream::handed().await;
    let places = [dead, well.address(), ill.address(), silent.address];
    let proxy = Proxy::start(&pool(&places, "health = { path = \"/\", interval = \"200ms\" }")).await;
    let count = async |place: &dyn ToString, result: &str| {
        let place = place.to_string();
        let series =
            format!("streamgauge_health_checks_total{{upstream=\"pool\",endpoint=\"{place}\",result=\"{result}\"}}");
        metric(&proxy, &series).await
    };
    let expected =
        [(dead, "unreachable"), (well.address(), "healthy"), (ill.address(), "status"), (silent.address, "timeout")];
    for (place, result) in expected {
        soon("two checks", async { while count(&place, result).await < 2 {} }).await;
    }
    // A busy machine may make any check late, but none can succeed that had no answer.
    for (place, never) in [
        (dead, "healthy"),
        (dead, "status"),
        (ill.address(), "healthy"),
        (silent.address, "healthy"),
        (silent.address, "status"),
    ] {
        assert_eq!(count(&place, never).await, 0, "{place} {never}");
    }
}

#[tokio::test]
async fn a_target_that_is_down_is_passed_over() {
    let second = Backend::start("second", vec![Act::Stream]).await;
    let text = format!(
        "{}{}[[route]]\ntargets = [{{ upstream = \"first\" }}]\nfallback = [{{ upstream = \"second\" }}]\n",
        crate::support::backend::table("first", refusing().await, ""),
        second.table("")
    );
    let proxy = Proxy::start(&text).await;
    let mut attempts = Vec::new();
    for request in 0..10 {
        attempts.push(chat(&proxy, &request.to_string()).await["attempts"].as_array().unwrap().len());
    }
    assert_eq!(attempts, [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
}
