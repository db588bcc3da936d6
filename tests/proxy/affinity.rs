//! Session affinity: the requests of a session go to one endpoint, in every replica, and leave it only when they must.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use streamgauge::demo;
use tokio::net::TcpListener;

use crate::limits::metric;
use crate::support::Proxy;
use crate::support::backend::{Act, Backend};

/// One upstream at several addresses, with these keys beside.
fn pool(addresses: &[SocketAddr], more: &str) -> String {
    let urls: Vec<String> = addresses.iter().map(|address| format!("\"http://{address}\"")).collect();
    format!("[[upstream]]\nname = \"pool\"\nurls = [{}]\n{more}\n", urls.join(", "))
}

const BY_HEADER: &str = "affinity = { headers = [\"x-session-id\"] }";
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Asks in the name of a session; the port of the endpoint that was asked.
async fn home(proxy: &Proxy, session: usize, turn: &str, more: &str) -> u64 {
    let id = format!("s{session}-{turn}");
    let mut client = proxy.client().await;
    let _ = client.get("/x", &format!("x-session-id: s{session}\r\nx-request-id: {id}\r\n{more}")).await;
    proxy.record(&id).await["server.port"].as_u64().unwrap()
}

async fn backends(acts: [Act; 3]) -> Vec<Backend> {
    let [one, two, three] = acts;
    vec![
        Backend::start("one", vec![one]).await,
        Backend::start("two", vec![two]).await,
        Backend::start("three", vec![three]).await,
    ]
}

const SESSIONS: usize = 24;

#[tokio::test]
async fn a_session_stays_in_every_replica_and_when_another_endpoint_goes() {
    let backends = backends([Act::Json, Act::Json, Act::Json]).await;
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let turned: Vec<SocketAddr> = addresses.iter().rev().copied().collect();
    let (first, second) =
        (Proxy::start(&pool(&addresses, BY_HEADER)).await, Proxy::start(&pool(&turned, BY_HEADER)).await);
    let mut homes = Vec::new();
    for session in 0..SESSIONS {
        homes.push(home(&first, session, "a", "").await);
        assert_eq!(
            home(&second, session, "b", "").await,
            homes[session],
            "another replica, which lists them otherwise"
        );
        assert_eq!(home(&first, session, "ws", UPGRADE).await, homes[session], "a WebSocket's handshake");
    }
    let lost = addresses[0];
    assert!(homes.iter().any(|port| *port == u64::from(lost.port())), "3 ^ 24 to 2 ^ 24: {homes:?}");
    assert_eq!(
        metric(&first, "streamgauge_affinity_total{upstream=\"pool\",result=\"home\"}").await,
        2 * SESSIONS as u64
    );
    first.write_config(&pool(&addresses[1..], BY_HEADER));
    first.line("the reload", |line| line["event"] == "config.reloaded").await;
    for (session, before) in homes.iter().enumerate() {
        let after = home(&first, session, "c", "").await;
        assert!(after == *before || *before == u64::from(lost.port()), "only the sessions of the lost one move");
    }
}

#[tokio::test]
async fn what_names_no_session_goes_anywhere_and_an_upstream_without_affinity_counts_nothing() {
    let backends = backends([Act::Json, Act::Json, Act::Json]).await;
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let proxy = Proxy::start(&pool(&addresses, BY_HEADER)).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/x", "x-request-id: none\r\n").await.status, 200);
    proxy.record("none").await;
    assert_eq!(metric(&proxy, "streamgauge_affinity_total{upstream=\"pool\",result=\"none\"}").await, 1);
    let plain = Proxy::start(&pool(&addresses, "")).await;
    home(&plain, 1, "plain", "").await;
    assert!(!plain.admin_get("/metrics").await.1.contains("streamgauge_affinity_total{"));
}

#[tokio::test]
async fn a_home_that_refuses_is_left_for_a_while_and_explain_says_so() {
    let full = Act::Status(429, "retry-after: 60\r\n");
    let backends = backends([full, Act::Json, Act::Json]).await;
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let text = format!("{}[[route]]\nname = \"all\"\nfailover = \"never\"\n", pool(&addresses, BY_HEADER));
    let proxy = Proxy::start(&text).await;
    let full = u64::from(addresses[0].port());
    let mut session = 0;
    while home(&proxy, session, "a", "").await != full {
        session += 1;
        assert!(session < 200, "a third of all sessions live there");
    }
    let away = home(&proxy, session, "b", "").await;
    assert_ne!(away, full);
    assert_eq!(home(&proxy, session, "c", "").await, away, "one stands in for it, not any");
    assert_eq!(metric(&proxy, "streamgauge_affinity_total{upstream=\"pool\",result=\"second\"}").await, 2);
    let file = proxy.directory.path().join("explained.toml");
    std::fs::write(&file, &text).unwrap();
    let told = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"))
        .args([
            "explain",
            "--config",
            file.to_str().unwrap(),
            "--path",
            "/x",
            "--admin",
            &format!("http://{}", proxy.admin),
        ])
        .args(["--header", &format!("x-session-id: s{session}")])
        .output()
        .await
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let words = format!(
        "lives at 127.0.0.1:{full}, and goes to 127.0.0.1:{away} now: its home is down, or refused requests lately"
    );
    assert!(told.contains(&words), "{words}: {told}");
}

/// Prefixes that one backend keeps: those of the sessions that live there, and not of all.
const KEPT: usize = 800;
const CONVERSATIONS: usize = 200;
const TURNS: usize = 5;
/// Requests in flight at one time.
const WORKERS: usize = 12;

/// Four backends with a cache each.
async fn caches() -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for _ in 0..4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let knobs = format!("cache={KEPT}&headers_ms=10&tokens=4");
        tokio::spawn(async move { demo::serve(listener, &knobs, std::future::pending()).await });
    }
    addresses
}

/// What conversations got, over so many proxies.
struct Got {
    /// The share of the input that was cached.
    cached: f64,
    /// Requests that each backend had in flight on average, the most by the mean: all take the same time.
    most_by_mean: f64,
}

/// Has conversations over `replicas` proxies in turn, each turn repeating all that was said before.
async fn converse(replicas: usize, affinity: &str) -> Got {
    let addresses = caches().await;
    let mut proxies = Vec::new();
    for _ in 0..replicas {
        proxies.push(Proxy::start_for_many(&pool(&addresses, affinity)).await);
    }
    let proxies = Arc::new(proxies);
    let turns: VecDeque<(usize, usize)> = (0..CONVERSATIONS).map(|conversation| (conversation, 0)).collect();
    let (turns, sums) = (Arc::new(Mutex::new((turns, 0_usize))), Arc::new(Mutex::new((0_u64, 0_u64))));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (proxies, turns, sums) = (Arc::clone(&proxies), Arc::clone(&turns), Arc::clone(&sums));
            tokio::spawn(async move {
                let mut clients = Vec::new();
                for proxy in proxies.iter() {
                    clients.push(proxy.client().await);
                }
                loop {
                    let (conversation, turn, at) = {
                        let mut turns = turns.lock().unwrap();
                        turns.1 += 1;
                        let Some((conversation, turn)) = turns.0.pop_front() else { return };
                        (conversation, turn, turns.1 % proxies.len())
                    };
                    clients[at].post("/v1/chat/completions", &said(conversation, turn).to_string(), "").await;
                    let answer = clients[at].answer().await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let answer: Value = serde_json::from_str(&answer.text()).unwrap();
                    let count = |at: &str| answer.pointer(at).and_then(Value::as_u64).unwrap();
                    {
                        let mut sums = sums.lock().unwrap();
                        sums.0 += count("/usage/prompt_tokens_details/cached_tokens");
                        sums.1 += count("/usage/prompt_tokens");
                    }
                    if turn + 1 < TURNS {
                        turns.lock().unwrap().0.push_back((conversation, turn + 1));
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let (cached, input) = *sums.lock().unwrap();
    let mut asked: BTreeMap<String, u64> = BTreeMap::new();
    for proxy in proxies.iter() {
        for address in &addresses {
            let series = format!(
                "streamgauge_endpoint_attempts_total{{upstream=\"pool\",endpoint=\"{address}\",result=\"ok\"}}"
            );
            *asked.entry(address.to_string()).or_default() += metric(proxy, &series).await;
        }
    }
    let (all, most) = (asked.values().sum::<u64>(), asked.values().copied().max().unwrap());
    assert_eq!(all as usize, CONVERSATIONS * TURNS);
    let (all, most) = (all as f64, most as f64);
    Got { cached: cached as f64 / input as f64, most_by_mean: most / (all / addresses.len() as f64) }
}

/// A turn of a conversation, with all that went before it.
fn said(conversation: usize, turn: usize) -> Value {
    let text = |what: &str, turn: usize| {
        format!("{what} {turn} of conversation {conversation}: {}", "how high is the water? ".repeat(8))
    };
    let mut messages = vec![json!({ "role": "system", "content": "Be brief." })];
    for earlier in 0..turn {
        messages.push(json!({ "role": "user", "content": text("question", earlier) }));
        messages.push(json!({ "role": "assistant", "content": text("answer", earlier) }));
    }
    messages.push(json!({ "role": "user", "content": text("question", turn) }));
    json!({ "model": "m", "messages": messages })
}

#[tokio::test]
async fn three_replicas_find_as_much_in_the_backends_caches_as_one() {
    let one = converse(1, "affinity = {}").await;
    let three = converse(3, "affinity = {}").await;
    let without = converse(3, "").await;
    println!(
        "cached: one proxy {:.3}, three {:.3}, three without affinity {:.3}; in flight, most by mean: {:.3} and {:.3}",
        one.cached, three.cached, without.cached, one.most_by_mean, three.most_by_mean
    );
    assert!(three.cached >= 0.95 * one.cached, "{:.3} of {:.3}", three.cached, one.cached);
    assert!(
        one.most_by_mean <= 1.35 && three.most_by_mean <= 1.35,
        "{:.3} {:.3}",
        one.most_by_mean,
        three.most_by_mean
    );
    assert!(without.cached < 0.8 * three.cached, "{:.3} without affinity, {:.3} with", without.cached, three.cached);
}
