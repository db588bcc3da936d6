//! Replicas of a fleet tell each other of endpoints: limits that belong to an account cost at all of them, trouble has health checked at once,
//! and nothing that they tell ejects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::fleet::{chat, endpoint, pool};
use crate::fleet_canary::members;
use crate::limits::metric;
use crate::support::backend::{Act, Backend};
use crate::support::{Proxy, Redis, soon};

/// So many replicas of one configuration, which know each other.
async fn replicas(count: usize, redis: &Redis, text: &str) -> Vec<Proxy> {
    let text = format!("{text}[limits]\nredis = \"{}\"\n[fleet]\nname = \"f\"\n", redis.url());
    let mut replicas = Vec::new();
    for _ in 0..count {
        replicas.push(Proxy::start(&text).await);
    }
    for replica in &replicas {
        soon("all members", async { while members(replica).await.len() < count {} }).await;
    }
    replicas
}

/// Whether a replica counts the endpoint as overloaded since another was told so.
async fn is_told(replica: &Proxy, address: SocketAddr) -> bool {
    endpoint(replica, address).await["penalty"]["by"] == "fleet"
}

async fn ask_until_asked(replica: &Proxy, backend: &Backend) {
    for request in 0..100 {
        chat(replica, &format!("{}{request}", backend.name)).await;
        if backend.log.count() > 0 {
            return;
        }
    }
    panic!("{} was never asked", backend.name);
}

#[tokio::test]
async fn a_limit_that_one_replica_met_costs_at_the_others_and_ejects_nothing() {
    let redis = Redis::start().await;
    let full = Backend::start("full", vec![Act::Status(429, "retry-after: 30\r\n")]).await;
    let bare = Backend::start("bare", vec![Act::Status(429, "")]).await;
    let well = Backend::start("well", vec![Act::Stream]).await;
    let all = [full.address(), bare.address(), well.address()];
    let fleet = replicas(3, &redis, &pool(&all, "")).await;
    ask_until_asked(&fleet[0], &bare).await;
    ask_until_asked(&fleet[0], &full).await;
    for other in &fleet[1..] {
        soon("the hint", async { while !is_told(other, full.address()).await {} }).await;
        let told = endpoint(other, full.address()).await;
        assert_eq!((&told["up"], &told["state"]), (&true.into(), &"up".into()), "{told}");
        let line = other.line("it to say so", |line| line["event"] == "upstream.overloaded_elsewhere").await;
        assert_eq!(line["endpoint"], full.address().to_string(), "{line}");
        let seconds = line["seconds"].as_f64().unwrap();
        assert!(seconds > 25.0 && seconds <= 30.0, "{line}");
        // Whatever has no time in it is no word of an account's limit.
        assert_eq!(endpoint(other, bare.address()).await["penalty"], Value::Null);
        for request in 0..20 {
            chat(other, &format!("after{request}")).await;
        }
    }
    assert_eq!(full.log.count(), 1, "it was asked once, by one replica");
    let own = endpoint(&fleet[0], full.address()).await;
    assert_eq!(own["penalty"]["by"], "this_replica", "its own hints are no news: {own}");
}

#[tokio::test]
async fn trouble_at_one_replica_has_the_others_look_for_themselves() {
    let redis = Redis::start().await;
    let dead = Backend::start("dead", vec![Act::Status(200, "")]).await;
    let well = Backend::start("well", vec![Act::Stream]).await;
    let (died, lives) = (dead.address(), well.address());
    // Each checks once when it starts, and never again by itself while this test runs.
    let fleet = replicas(3, &redis, &pool(&[died, lives], "health = { path = \"/\", interval = \"1h\" }")).await;
    let checks = async |replica: &Proxy, address: SocketAddr, result: &str| {
        let labels = format!("{{upstream=\"pool\",endpoint=\"{address}\",result=\"{result}\"}}");
        metric(replica, &format!("streamgauge_health_checks_total{labels}")).await
    };
    for replica in &fleet {
        soon("the first checks", async { while checks(replica, died, "healthy").await < 1 {} }).await;
    }
    drop(dead);
    let mut sent = 0;
    while endpoint(&fleet[0], died).await["state"] != "ejected" {
        sent += 1;
        assert!(sent < 200, "a dead endpoint must be found out");
        chat(&fleet[0], &format!("r{sent}")).await;
    }
    for other in &fleet[1..] {
        soon("a check", async { while checks(other, died, "unreachable").await < 1 {} }).await;
        assert_eq!(checks(other, lives, "healthy").await, 1, "of that endpoint only");
        let told = endpoint(other, died).await;
        assert!(told["measured"]["attempts"] == 0, "nobody was sent there to find out: {told}");
    }
    // What cannot be trusted: two hundred hints that an endpoint is in trouble that is well.
    let machine = machine(&redis).await;
    let (since, before) = (Instant::now(), checks(&fleet[1], lives, "healthy").await);
    for _ in 0..200 {
        lie(&redis, &machine, ["check", "pool", &lives.to_string(), &lives.to_string(), "5000"]).await;
    }
    soon("a check", async { while checks(&fleet[1], lives, "healthy").await == before {} }).await;
    let told = endpoint(&fleet[1], lives).await;
    assert_eq!((&told["state"], &told["failures"]), (&"up".into(), &Value::Null), "{told}");
    let made = checks(&fleet[1], lives, "healthy").await - before;
    assert!(made <= since.elapsed().as_secs() + 1, "{made} checks in {:?}", since.elapsed());
}

/// Puts into the stream of hints what no replica said.
async fn lie(redis: &Redis, machine: &str, [kind, upstream, endpoint, address, ms]: [&str; 5]) {
    let mut connection = redis.connection().await;
    let mut say = redis::cmd("XADD");
    say.arg(&["{streamgauge:f}:hints", "*", "o", "liar", "h", machine, "k", kind, "u", upstream, "e", endpoint]);
    say.arg(&["a", address, "l", ms, "t", "99999999999999"]);
    let _: String = say.query_async(&mut connection).await.unwrap();
}

#[tokio::test]
async fn hints_that_lie_are_bounded_and_unknown_names_ignored() {
    let redis = Redis::start().await;
    let (one, two) = (Backend::start("one", vec![Act::Stream]).await, Backend::start("two", vec![Act::Stream]).await);
    let full = Backend::start("full", vec![Act::Status(429, "retry-after: 30\r\n")]).await;
    let mut connection = redis.connection().await;
    let () = redis::cmd("SET").arg(&["{streamgauge:f}:hints", "no stream"]).query_async(&mut connection).await.unwrap();
    let fleet = replicas(1, &redis, &pool(&[one.address(), two.address(), full.address()], "")).await;
    let (here, there) = (one.address().to_string(), two.address().to_string());
    let is_stream = async || {
        let kind: String =
            redis::cmd("TYPE").arg("{streamgauge:f}:hints").query_async(&mut redis.connection().await).await.unwrap();
        kind != "string"
    };
    soon("room for the stream", async { while !is_stream().await {} }).await;
    // After that id no other can come.
    let last = format!("{0}-{0}", u64::MAX);
    let _: String =
        redis::cmd("XADD").arg(&["{streamgauge:f}:hints", &last, "x", "y"]).query_async(&mut connection).await.unwrap();
    let long = "x".repeat(1 << 20);
    ask_until_asked(&fleet[0], &full).await;
    let machine = machine(&redis).await;
    for lies in [
        ["overloaded", "nobody", &here, &here, "30000"],
        ["overloaded", "pool", "h:1", "h:1", "30000"],
        ["overloaded", &long, &long, &long, &long],
        ["eject", "pool", &there, &there, "30000"],
        ["check", "pool", &there, &there, "30000"],
        ["overloaded", "pool", &there, &there, "-1"],
        ["overloaded", "pool", &there, &there, "soon"],
    ] {
        lie(&redis, &machine, lies).await;
    }
    // Another machine's 127.0.0.1 is another place.
    lie(&redis, "0123456789abcdef", ["overloaded", "pool", &there, &there, "30000"]).await;
    lie(&redis, &machine, ["overloaded", "pool", &here, "10.9.8.7:1", "99999999999999"]).await;
    soon("the one that is plausible", async { while !is_told(&fleet[0], one.address()).await {} }).await;
    fleet[0].line("it to say so", |line| line["event"] == "upstream.overloaded_elsewhere").await;
    let lines = fleet[0].lines();
    let told: Vec<&Value> = lines.iter().filter(|line| line["event"] == "upstream.overloaded_elsewhere").collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!((told[0]["seconds"].as_f64(), &told[0]["endpoint"]), (Some(60.0), &here.into()), "a minute at most");
    assert_eq!(endpoint(&fleet[0], two.address()).await["penalty"], Value::Null);
    assert!(!lines.iter().any(|line| line["event"] == "fleet.refused"), "{lines:#?}");
    for request in 0..10 {
        chat(&fleet[0], &format!("r{request}")).await;
    }
}

/// What replicas on this machine call it, by the first hint that one of them gave.
async fn machine(redis: &Redis) -> String {
    let mut connection = redis.connection().await;
    let machine = soon("a hint", async {
        loop {
            let told: Vec<(String, Vec<(String, String)>)> = redis::cmd("XRANGE")
                .arg(&["{streamgauge:f}:hints", "-", "+"])
                .query_async(&mut connection)
                .await
                .unwrap();
            let mut fields = told.into_iter().flat_map(|(_, fields)| fields);
            if let Some((_, machine)) = fields.find(|(name, _)| name == "h") {
                return machine;
            }
        }
    })
    .await;
    assert_eq!(machine.len(), 16, "{machine}");
    machine
}

/// Of requests at a route whose first target refuses, all at once, so many are asked of the second, which holds them; all others are refused.
async fn retried(proxy: &Proxy, second: &Backend, asked: usize, refused: usize) {
    let before = second.log.count();
    let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..asked + refused {
        let mut client = proxy.client().await;
        waiting.spawn(async move {
            client.post("/v1/chat/completions", body, "").await;
            client.answer().await.status
        });
    }
    for _ in 0..refused {
        let status = soon("one without a retry", waiting.join_next()).await.unwrap().unwrap();
        assert_eq!(status, 429);
    }
    soon("the retries", async {
        while second.log.count() < before + asked {
            tokio::task::yield_now().await
        }
    })
    .await;
}

#[tokio::test]
async fn replicas_share_the_floor_of_the_retry_budget() {
    let redis = Redis::start().await;
    let gate = Arc::new(Semaphore::new(0));
    // What refuses is asked again and again: it is no failure that would take it out.
    let first = Backend::start("first", vec![Act::Status(429, "")]).await;
    let second = Backend::start("second", vec![Act::Gated(Arc::clone(&gate))]).await;
    let route = "[[route]]\ntargets = [{ upstream = \"first\" }]\nfallback = [{ upstream = \"second\" }]\n";
    let text = format!("{}{}{route}", first.table(""), second.table(""));
    let fleet = replicas(3, &redis, &text).await;
    retried(&fleet[0], &second, 4, 6).await;
    let alone = Proxy::start(&text).await;
    retried(&alone, &second, 10, 2).await;
}
