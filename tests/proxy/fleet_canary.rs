//! Several replicas over one Redis that act as one.

use serde_json::Value;

use crate::support::{Proxy, Redis, Upstream, config, soon};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbase";

fn fleet(redis: &Redis, name: &str) -> String {
    format!("[limits]\nredis = \"{}\"\n[fleet]\nname = \"{name}\"\n", redis.url())
}

/// The replicas that a proxy knows of.
async fn members(proxy: &Proxy) -> Vec<String> {
    let (_, text) = proxy.admin_get("/api/canaries").await;
    let told: Value = serde_json::from_str(&text).unwrap();
    let mut members: Vec<String> = told["fleet"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["replica"].as_str().unwrap().to_owned())
        .collect();
    members.sort();
    members
}

#[tokio::test]
async fn replicas_of_a_fleet_know_each_other_and_no_other_fleet() {
    let (upstream, redis) = (Upstream::fixed(OK).await, Redis::start().await);
    let text = |name: &str| config(upstream.address, &fleet(&redis, name));
    let mut one = Proxy::start(&text("a")).await;
    let two = Proxy::start(&text("a")).await;
    let other = Proxy::start(&text("b")).await;
    soon("two members", async { while members(&one).await.len() < 2 {} }).await;
    soon("two members", async { while members(&two).await.len() < 2 {} }).await;
    soon("one member", async { while members(&other).await.is_empty() {} }).await;
    assert_eq!(members(&one).await, members(&two).await);
    assert_eq!(members(&other).await.len(), 1);
    one.signal("TERM");
    assert_eq!(one.exited().await, Some(0));
    soon("one to be gone", async { while members(&two).await.len() > 1 {} }).await;
}
