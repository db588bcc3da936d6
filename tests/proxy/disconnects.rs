//! Client gone, upstream freed; and the other way round nothing is made worse.

use std::time::{Duration, Instant};

use crate::support::backend::{STOP, token};
use crate::support::{Proxy, Upstream, config, soon};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

/// How soon an upstream is to be freed.
const FREED: Duration = Duration::from_millis(50);

/// Leaves `rounds` times in the given way; the median time until the upstream saw it.
async fn median_release(mid_stream: bool, reset: bool) -> Duration {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut times = Vec::new();
    for round in 0..9 {
        let mut client = proxy.client().await;
        client.send(format!("GET /s HTTP/1.1\r\nhost: a\r\nx-request-id: gone-{round}\r\n\r\n")).await;
        let mut conn = soon("the request", conns.recv()).await.unwrap();
        conn.request().await.unwrap();
        if mid_stream {
            conn.event_stream().await;
            conn.chunk("data: one\n\n").await;
            client.until("data: one").await;
        }
        if reset {
            client.stream.set_zero_linger().unwrap();
        }
        let left = Instant::now();
        drop(client);
        conn.closed().await;
        times.push(left.elapsed());
        let record = proxy.record(&format!("gone-{round}")).await;
        assert_eq!(record["outcome"], "client_cancelled");
        assert_eq!(record["error_type"], "client_gone");
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn leaving_before_the_answer_frees_the_upstream() {
    let median = median_release(false, false).await;
    assert!(median < FREED, "{median:?}");
}

#[tokio::test]
async fn leaving_mid_stream_frees_the_upstream() {
    let median = median_release(true, false).await;
    assert!(median < FREED, "{median:?}");
}

#[tokio::test]
async fn a_reset_frees_the_upstream_too() {
    let median = median_release(true, true).await;
    assert!(median < FREED, "{median:?}");
}

#[tokio::test]
async fn a_client_that_goes_after_the_end_had_the_whole_answer() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let body = r#"{"model":"m","stream":true,"messages":[]}"#;
    let mut outcomes = std::collections::BTreeMap::new();
    // Where the proxy sees the upstream's end first, its last write to the client fails: not in each round, but in many.
    for round in 0..150 {
        let id = format!("end-{round}");
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", body, &format!("x-request-id: {id}\r\n")).await;
        let mut conn = soon("the request", conns.recv()).await.unwrap();
        conn.request().await.unwrap();
        conn.event_stream().await;
        conn.chunk([token("hi"), STOP.to_owned()].concat()).await;
        client.until("[DONE]").await;
        client.stream.set_zero_linger().unwrap();
        if round % 2 == 0 {
            assert_eq!(conn.stream.try_write(b"0\r\n\r\n").unwrap(), 5);
            drop(client);
        } else {
            drop(client);
            assert_eq!(conn.stream.try_write(b"0\r\n\r\n").unwrap(), 5);
        }
        let record = proxy.record(&id).await;
        *outcomes.entry(record["outcome"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [("\"completed\"".to_owned(), 150)]);
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_without_a_word() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    let fake = tokio::spawn(async move {
        let mut first = conns.recv().await.unwrap();
        first.request().await.unwrap();
        first.write("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1").await;
        // The second request comes on the kept connection, which is then closed without a byte: as in the usual race.
        first.request().await.unwrap();
        drop(first);
        let mut second = conns.recv().await.unwrap();
        let seen = second.request().await.unwrap();
        second.write("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2").await;
        seen
    });
    assert_eq!(client.get("/1", "").await.text(), "1");
    client.post("/v1/chat/completions", "{\"messages\":[]}", "x-request-id: again\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "2"));
    let seen = soon("the second connection", fake).await.unwrap();
    assert_eq!(seen.body, b"{\"messages\":[]}");
    let record = proxy.record("again").await;
    assert_eq!(record["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(record["outcome"], "completed");
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_not_asked_twice() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.post("/once", "{}", "x-request-id: once\r\n").await;
    let mut conn = soon("the request", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    drop(conn);
    let answer = client.answer().await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("`fake`"), "says which upstream: {}", answer.text());
    assert_eq!(upstream.connections(), 1);
    assert_eq!(proxy.record("once").await["error_type"], "upstream_reset");
}
