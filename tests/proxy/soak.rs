//! Churn leaves nothing behind: after many requests, aborts, failovers and reloads the process is as large as it was.
//!
//! A short run by default; with STREAMGAUGE_SOAK_S one of that many seconds (`make soak`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, interval};

use crate::support::{Client, Proxy, Upstream, soon};

/// Requests until all that is bounded is full: the last records, labels, buffers, connections.
const WARM_UP: usize = 1_500;

/// Requests of a short run after that.
const CHURN: usize = 2_500;

/// Requests between two reloads.
const ROUND: usize = 500;

const CLIENTS: usize = 8;

/// Of so many requests of a client one is left in the middle, and one fails over.
const EVERY: usize = 20;

/// The largest growth that is no leak.
const GROWTH: f64 = 1.1;

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"how high is the river?"}]}"#;
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"high \"}}]}\n\n";
const END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// A backend that does as the request's `x-do` says.
async fn backend(may_fail: bool) -> Upstream {
    Upstream::start(move |mut conn| async move {
        while let Some(request) = conn.request().await {
            match request.header("x-do") {
                Some("fail") if may_fail => {
                    conn.write("HTTP/1.1 503 Full\r\ncontent-length: 0\r\n\r\n").await;
                }
                Some("wait") => {
                    conn.write(HEAD).await;
                    conn.chunk(TOKEN).await;
                    conn.closed().await;
                    return;
                }
                _ => {
                    conn.write(HEAD).await;
                    for piece in [TOKEN, TOKEN, TOKEN, END, ""] {
                        conn.chunk(piece).await;
                    }
                }
            }
        }
    })
    .await
}

fn configuration(first: &Upstream, second: &Upstream, round: usize) -> String {
    let upstream =
        |name: &str, at: &Upstream| format!("[[upstream]]\nname = \"{name}\"\nurl = \"http://{}\"\n", at.address);
    format!(
        "[telemetry]\nslow_gap = \"{}s\"\n{}{}[[route]]\nname = \"all\"\npath = \"*\"\n\
         targets = [{{ upstream = \"first\" }}]\nfallback = [{{ upstream = \"second\" }}]\n",
        2 + round % 2,
        upstream("first", first),
        upstream("second", second),
    )
}

/// Asks until `left` is used up.
async fn churn(to: std::net::SocketAddr, left: Arc<AtomicUsize>) {
    let mut kept = Client::connect(to).await;
    let path = "/v1/chat/completions";
    while let Ok(number) = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)) {
        match number % EVERY {
            0 => {
                let mut leaving = Client::connect(to).await;
                leaving.post(path, CHAT, "x-do: wait\r\n").await;
                leaving.until("high").await;
            }
            kind => {
                kept.post(path, CHAT, if kind == 1 { "x-do: fail\r\n" } else { "" }).await;
                let answer = kept.answer().await;
                assert!(answer.whole && answer.status == 200, "{answer:?}");
            }
        }
    }
}

async fn round(proxy: &Proxy) {
    let left = Arc::new(AtomicUsize::new(ROUND));
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(churn(proxy.listen, Arc::clone(&left)))).collect();
    for client in clients {
        client.await.unwrap();
    }
}

/// Bytes of memory, once no request is left.
async fn resident(proxy: &Proxy) -> f64 {
    let idle = async {
        let mut again = interval(Duration::from_millis(20));
        loop {
            again.tick().await;
            let (_, streams) = proxy.admin_get("/api/streams").await;
            let streams: Value = serde_json::from_str(&streams).unwrap();
            if streams["live"].as_array().unwrap().is_empty() {
                return;
            }
        }
    };
    soon("the end of all requests", idle).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_under_churn() {
    let wanted = std::env::var("STREAMGAUGE_SOAK_S").ok().map(|text| Duration::from_secs(text.parse().unwrap()));
    let (first, second) = (backend(true).await, backend(false).await);
    let proxy = Proxy::start_for_many(&configuration(&first, &second, 0)).await;
    let mut rounds = 0;
    let mut before = 0.0;
    let begun = Instant::now();
    loop {
        if rounds * ROUND == WARM_UP {
            before = resident(&proxy).await;
        }
        let over = wanted.map_or(rounds * ROUND >= WARM_UP + CHURN, |wanted| begun.elapsed() >= wanted);
        if over && before > 0.0 {
            break;
        }
        round(&proxy).await;
        rounds += 1;
        proxy.write_config(&configuration(&first, &second, rounds));
        let generation = rounds as u64 + 1;
        proxy.line("a reload", |line| line["event"] == "config.reloaded" && line["generation"] == generation).await;
    }
    let after = resident(&proxy).await;
    let (_, metrics) = proxy.admin_get("/metrics").await;
    assert!(metrics.contains("streamgauge_failovers_total{from=\"first\",to=\"second\""), "{metrics}");
    println!("{} requests: {:.1} MB, then {:.1} MB", rounds * ROUND, before / 1e6, after / 1e6);
    assert!(after <= before * GROWTH, "{before} bytes after the warm-up, {after} after {} requests", rounds * ROUND);
}
