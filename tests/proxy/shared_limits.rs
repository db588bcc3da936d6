//! Limits that several proxies share over Redis.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::limit_edges::money_is_held_and_then_spent;
use crate::limits::{BURST, PER_MINUTE, assert_settled, chat, crowd, limited, metric, stream, tokens};
use crate::support::{Proxy, Redis, Upstream, config, soon};

/// On a busy machine even a Redis next door may need more than the default's 10 ms.
const PATIENT: &str = "deadline = \"5s\"";

fn shared(redis: &Redis, limit: &str, more: &str) -> String {
    format!("{}\n[limits]\nredis = \"{}\"\n{more}\n", limited(limit), redis.url())
}

const CELL: &str = "{streamgauge}:cell:l:global";

/// The cell of everybody in Redis, by field.
async fn cell(redis: &Redis) -> HashMap<String, String> {
    let mut connection = redis.connection().await;
    redis::cmd("HGETALL").arg(CELL).query_async(&mut connection).await.unwrap()
}

/// Tokens spent in Redis and not drained.
async fn spent(redis: &Redis) -> u64 {
    cell(redis).await.get("s").map_or(0, |micro| micro.parse::<f64>().unwrap() as u64 / 1_000_000)
}

async fn mode(proxy: &Proxy) -> String {
    let (_, text) = proxy.admin_get("/api/limits").await;
    serde_json::from_str::<Value>(&text).unwrap()["mode"].as_str().unwrap().to_owned()
}

async fn until_mode(proxy: &Proxy, wanted: &str) {
    soon(wanted, async { while mode(proxy).await != wanted {} }).await;
}

/// Every hold in Redis has ended.
async fn nothing_held(redis: &Redis) {
    soon("the last report", async {
        while cell(redis).await.keys().any(|field| field.starts_with("h:") || field.starts_with("n:")) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_proxies_keep_one_limit() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    let redis = Redis::start().await;
    let limit = format!("key = \"global\"\ntokens_per_minute = {PER_MINUTE}\nburst = {BURST}");
    let text = config(upstream.address, &shared(&redis, &limit, PATIENT));
    let proxies = [Arc::new(Proxy::start(&text).await), Arc::new(Proxy::start(&text).await)];
    let used = crowd(&proxies).await;
    nothing_held(&redis).await;
    let mut told = 0;
    for proxy in &proxies {
        assert_settled(proxy).await;
        told += tokens(proxy, "used").await;
        assert_eq!(metric(proxy, "streamgauge_limiter_mode{mode=\"shared\"}").await, 1);
    }
    assert_eq!(told, used);
}

#[tokio::test]
async fn what_is_held_of_a_shared_budget_is_not_spent() {
    let redis = Redis::start().await;
    money_is_held_and_then_spent(&format!("[limits]\nredis = \"{}\"\n{PATIENT}\n", redis.url())).await;
}

#[tokio::test]
async fn without_redis_each_keeps_its_share_and_tells_what_it_used_on_return() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    let mut redis = Redis::start().await;
    let limit = "key = \"global\"\ntokens_per_minute = 600\nburst = 400\ndebt = 0";
    let proxy = Proxy::start(&config(upstream.address, &shared(&redis, limit, PATIENT))).await;
    let mut client = proxy.client().await;
    let mut ask = async |id: &str| {
        client.post("/v1/chat/completions", &chat(100), &format!("x-request-id: {id}\r\n")).await;
        let status = client.answer().await.status;
        proxy.record(id).await;
        status
    };
    assert_eq!(ask("before").await, 200);
    nothing_held(&redis).await;
    assert!((70..=80).contains(&spent(&redis).await));

    redis.kill().await;
    let mut statuses = Vec::new();
    for number in 0..6 {
        statuses.push(ask(&format!("away{number}")).await);
    }
    assert_eq!(mode(&proxy).await, "local");
    assert!(statuses.starts_with(&[200, 200]), "its share is all that was left, for it is alone: {statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(metric(&proxy, "streamgauge_limiter_mode{mode=\"local\"}").await, 1);

    redis.restart().await;
    until_mode(&proxy, "shared").await;
    let passed = statuses.iter().filter(|status| **status == 200).count() as u64;
    // A new Redis: it knows what was used while it was away, and what has drained since.
    soon("what was used meanwhile", async { while spent(&redis).await < passed * 80 - 60 {} }).await;
    assert!(spent(&redis).await <= passed * 80);
    assert_settled(&proxy).await;
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    let redis = Redis::start().await;
    let text = config(upstream.address, &shared(&redis, "key = \"global\"\ntokens_per_minute = 100_000", ""));
    let proxy = Proxy::start(&text).await;
    let mut client = proxy.client().await;
    redis.pause(true);
    for number in 0..20 {
        client.post("/v1/chat/completions", &chat(100), &format!("x-request-id: r{number}\r\n")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let (mut slow, mut admission) = (0, 0.0);
    for number in 0..20 {
        let record = proxy.record(&format!("r{number}")).await;
        let admit = record["phases"]["admit"].as_f64().unwrap();
        slow += u32::from(admit > 0.009);
        admission += admit + record["phases"]["proxy"].as_f64().unwrap_or(0.0);
    }
    // Three failures open the breaker, and once a second one request tries again.
    assert!((3..=8).contains(&slow), "{slow} of 20 waited for the store");
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let sum = metrics.lines().find_map(|line| line.strip_prefix("streamgauge_overhead_seconds_sum{route=\"all\"} "));
    let overhead: f64 = sum.expect("the proxy's own time").parse().unwrap();
    assert!(
        admission - overhead > 0.009 * f64::from(slow),
        "what Redis took is not the proxy's: {admission} {overhead}"
    );
    redis.pause(false);
    until_mode(&proxy, "shared").await;
    soon("what was used meanwhile", async { while spent(&redis).await < 20 * 80 / 2 {} }).await;
    nothing_held(&redis).await;
}

#[tokio::test]
async fn reject_refuses_while_redis_is_away() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    let mut redis = Redis::start().await;
    let text =
        shared(&redis, "key = \"global\"\ntokens_per_minute = 100_000", "on_failure = \"reject\"\ndeadline = \"5s\"");
    let proxy = Proxy::start(&config(upstream.address, &text)).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(100), "").await;
    assert_eq!(client.answer().await.status, 200);
    redis.kill().await;
    client.post("/v1/chat/completions", &chat(100), "x-request-id: away\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("The limits cannot be looked up at the moment. Try again in 1 s."));
    assert_eq!(proxy.record("away").await["error_type"], "limit_store");
    assert_eq!(mode(&proxy).await, "reject");
    redis.restart().await;
    until_mode(&proxy, "shared").await;
    client.post("/v1/chat/completions", &chat(100), "").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn what_a_dead_proxy_holds_ends_with_its_lease() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await.unwrap();
        conn.event_stream().await;
        conn.chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n").await;
        conn.closed().await;
    })
    .await;
    let redis = Redis::start().await;
    let text =
        config(upstream.address, &shared(&redis, "key = \"global\"\ntokens_per_minute = 200\nconcurrent = 1", PATIENT));
    let dying = Proxy::start(&text).await;
    let mut client = dying.client().await;
    client.post("/v1/chat/completions", &chat(100), "").await;
    client.until("delta").await;
    let living = Proxy::start(&text).await;
    let mut other = living.client().await;
    other.post("/v1/chat/completions", &chat(100), "").await;
    assert_eq!(other.answer().await.status, 429);
    dying.signal("KILL");
    let _ = client.end().await;
    // The lease as it runs out: the score of the dead one lies in the past.
    let mut connection = redis.connection().await;
    let owner = cell(&redis).await.keys().find_map(|field| field.strip_prefix("n:").map(str::to_owned)).unwrap();
    let () =
        redis::cmd("ZADD").arg("{streamgauge}:owners").arg(1).arg(&owner).query_async(&mut connection).await.unwrap();
    other.post("/v1/chat/completions", &chat(100), "").await;
    other.until("delta").await;
    assert!(!cell(&redis).await.contains_key(&format!("h:{owner}")));
}

#[tokio::test]
async fn a_drain_tells_redis_before_it_ends() {
    let (upstream, mut conns) = Upstream::handed().await;
    let redis = Redis::start().await;
    // One token a second comes back: what was spent can still be seen on a slow machine.
    let more = shared(&redis, "key = \"global\"\ntokens_per_minute = 60\nburst = 1000", PATIENT);
    let mut proxy =
        Proxy::start(&config(upstream.address, &format!("[server]\ndrain_timeout = \"300ms\"\n\n{more}"))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(100), "x-request-id: cut\r\n").await;
    let mut conn = soon("the stream", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.event_stream().await;
    conn.chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n").await;
    client.until("delta").await;
    proxy.signal("TERM");
    let used = proxy.record("cut").await["limit"]["used"].as_u64().unwrap();
    proxy.exited().await;
    let fields = cell(&redis).await;
    assert!(!fields.keys().any(|field| field.starts_with("h:") || field.starts_with("n:")), "{fields:?}");
    assert!((used.saturating_sub(20)..=used).contains(&spent(&redis).await));
}

#[tokio::test]
async fn credentials_and_tls_are_the_addresss_business() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    let (_redis, port, trusted) = Redis::start_tls("canary-redis-password").await;
    let store = |url: &str, more: &str| {
        let limit = "key = \"global\"\ntokens_per_minute = 100_000";
        config(upstream.address, &format!("{}\n[limits]\nredis = \"{url}\"\n{PATIENT}\n{more}\n", limited(limit)))
    };
    let cert = trusted.to_str().unwrap();
    for (url, more) in [
        (format!("rediss://:canary-redis-password@localhost:{port}"), ""),
        (format!("rediss://localhost:{port}"), "redis_password_env = \"REDIS_PASSWORD\""),
    ] {
        let environment = [("SSL_CERT_FILE", cert), ("REDIS_PASSWORD", "canary-redis-password")];
        let proxy = Proxy::start_with(&store(&url, more), &environment).await;
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", &chat(100), "x-request-id: tls\r\n").await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(proxy.record("tls").await["limit"]["mode"], "shared");
        let (_, shown) = proxy.admin_get("/api/config").await;
        assert!(!shown.contains("canary-redis") && !format!("{:?}", proxy.lines()).contains("canary-redis"), "{shown}");
    }
    let wrong =
        Proxy::start_with(&store(&format!("rediss://:wrong@localhost:{port}"), ""), &[("SSL_CERT_FILE", cert)]).await;
    let mut client = wrong.client().await;
    client.post("/v1/chat/completions", &chat(100), "x-request-id: wrong\r\n").await;
    assert_eq!(client.answer().await.status, 200, "a wrong password is a store that is away");
    assert_eq!(wrong.record("wrong").await["limit"]["mode"], "local");
}

#[tokio::test]
async fn of_who_was_refused_lately_nothing_is_counted_while_the_store_refuses() {
    let (upstream, mut conns) = Upstream::handed().await;
    let redis = Redis::start().await;
    let text = shared(&redis, "key = \"global\"\nconcurrent = 1\ntokens_per_minute = 100_000", PATIENT);
    let proxy = Proxy::start(&config(upstream.address, &text)).await;
    let mut first = proxy.client().await;
    first.post("/v1/chat/completions", &chat(100), "x-request-id: first\r\n").await;
    let mut conn = soon("the first", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    let mut client = proxy.client().await;
    for (id, prompt) in [("unknown", "counted"), ("known", "estimated"), ("still", "estimated")] {
        client.post("/v1/chat/completions", &chat(100), &format!("x-request-id: {id}\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().contains("1 requests at one time")), (429, true), "{}", answer.text());
        assert_eq!(proxy.record(id).await["limit"]["prompt"], prompt, "{id}");
    }
    // What the store says counts, not what is remembered of it.
    conn.write(stream(20, 60)).await;
    assert_eq!(first.answer().await.status, 200);
    nothing_held(&redis).await;
    client.post("/v1/chat/completions", &chat(100), "x-request-id: last\r\n").await;
    conn.request().await.unwrap();
    conn.write(stream(20, 60)).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(proxy.record("last").await["limit"]["prompt"], "counted");
}

#[tokio::test]
async fn a_decision_is_one_round_trip() {
    let upstream = Upstream::fixed("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let redis = Redis::start().await;
    let text = shared(&redis, "key = \"global\"\nrequests_per_minute = 1000", PATIENT);
    let proxy = Proxy::start(&config(upstream.address, &text)).await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/x", "").await.status, 200);
    }
    nothing_held(&redis).await;
    let mut connection = redis.connection().await;
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let calls = |command: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    // A call to admit and one to settle, each; the script is loaded once, and the lease renewed now and then.
    assert!((40..=50).contains(&calls("evalsha")), "{stats}");
}
