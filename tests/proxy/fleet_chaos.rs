//! A fleet whose Redis is stopped, cut off, slow, silent or read-only, and whose replicas see different things.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fleet_canary::{AT_ONCE, FOLLOWED_WITHIN, Fleet, STAYS, command, told, view};
use crate::support::{Proxy, Relay, Way, soon};

/// After an outage all replicas agree within this.
const AGREED_WITHIN: Duration = Duration::from_secs(3);

/// How long Redis is away at least, in s: longer than the 3 s after which replicas act for themselves. `make outage` says 30.
fn outage() -> Duration {
    let seconds = std::env::var("STREAMGAUGE_OUTAGE_S").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

/// What befalls the Redis of three replicas, and what has to come of it: no request fails, no step is taken, what is asked for at one of them is
/// done there, and everywhere once it is over.
async fn outlives(fleet: Fleet, relay: &Relay, befalls: impl AsyncFn(bool)) -> Fleet {
    let since = Instant::now();
    befalls(true).await;
    for replica in &fleet.replicas {
        replica.line("that Redis is away", |line| line["event"] == "fleet.away").await;
        soon("it to judge by itself", async { while view(replica).await["fleet"]["reach"] != "apart" {} }).await;
    }
    // More than a step needs.
    fleet.ask(600).await;
    let (status, said) = command(&fleet.replicas[0], "promote").await;
    assert_eq!((status, said["error"].as_str().unwrap().contains("Redis")), (503, true), "{said}");
    assert_eq!(command(&fleet.replicas[0], "rollback").await.0, 200);
    while since.elapsed() < outage() {
        fleet.ask(60).await;
    }
    let percents = async || {
        let mut percents = Vec::new();
        for replica in &fleet.replicas {
            percents.push(view(replica).await["percent"].as_u64().unwrap());
        }
        percents
    };
    assert_eq!(percents().await, [0, 50, 50], "the others cannot know");
    assert_eq!((fleet.decided("step"), fleet.decided("promote")), (0, 0));
    befalls(false).await;
    let since = Instant::now();
    fleet.agreed(0).await;
    assert!(since.elapsed() <= AGREED_WITHIN, "{:?}", since.elapsed());
    for replica in &fleet.replicas {
        soon("the decision", async { while view(replica).await["state"] != "rolled back" {} }).await;
    }
    assert_eq!(fleet.decided("roll_back"), 1, "{:#?}", fleet.decisions());
    relay.set(Way::Open);
    fleet.ask(60).await;
    fleet
}

/// The step that lasts is the last but one.
fn half() -> String {
    AT_ONCE.replace("[20, 60]", "[50, 60]")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_stopped() {
    let (fleet, relay) = Fleet::start_over_relay(3, &half()).await;
    let redis = fleet.redis.pid();
    outlives(fleet, &relay, async |stopped| signal(redis, if stopped { "-STOP" } else { "-CONT" })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_behind_a_network_that_leads_nowhere() {
    let (fleet, relay) = Fleet::start_over_relay(3, &half()).await;
    outlives(fleet, &relay, async |lost| relay.set(if lost { Way::Nowhere } else { Way::Open })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_connections_are_cut() {
    let (fleet, relay) = Fleet::start_over_relay(3, &half()).await;
    outlives(fleet, &relay, async |cut| relay.cut(cut)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_has_become_read_only() {
    let (fleet, relay) = Fleet::start_over_relay(3, &half()).await;
    let url = fleet.redis.url();
    let befalls = async |read_only: bool| {
        let client = redis::Client::open(url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        // As after a failover: this one is a replica now, whose master cannot be reached.
        let of = if read_only { ["127.0.0.1", "1"] } else { ["NO", "ONE"] };
        let () = redis::cmd("REPLICAOF").arg(&of).query_async(&mut connection).await.unwrap();
    };
    let fleet = outlives(fleet, &relay, befalls).await;
    for replica in &fleet.replicas {
        let refused = replica.line("why", |line| line["event"] == "fleet.refused").await;
        assert!(refused["message"].as_str().unwrap().contains("READONLY"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_slow_delays_no_request_and_steps_are_taken() {
    let late = Duration::from_millis(60);
    let (fleet, relay) = Fleet::start_over_relay(3, AT_ONCE).await;
    relay.set(Way::Late(late));
    let since = Instant::now();
    fleet.ask(300).await;
    // Each would take two of these if it waited for Redis once.
    assert!(since.elapsed() < late * 300, "{:?}", since.elapsed());
    fleet.ask_until("step", async || fleet.decided("step") > 0).await;
    let took = fleet.agreed(60).await;
    assert!(took <= FOLLOWED_WITHIN + Duration::from_secs(1), "{took:?}");
    assert_eq!(fleet.decided("step"), 1);
    let away = |replica: &Proxy| replica.lines().iter().any(|line| line["event"] == "fleet.away");
    assert!(!fleet.replicas.iter().any(away), "slow is not away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_after_a_successor_has_judged_is_refused() {
    let mut fleet = Fleet::without_replicas().await;
    let relay = Relay::start(fleet.redis.socket()).await;
    // The first has the lease.
    fleet.join_over(&relay, AT_ONCE).await;
    assert_eq!(fleet.judge().await, 0);
    fleet.join(AT_ONCE).await;
    fleet.join(AT_ONCE).await;
    fleet.settled().await;
    let commit = redis::Script::new(include_str!("../../src/proxy/process/fleet/commit.lua"));
    relay.trap(commit.get_hash());
    fleet.ask(30).await;
    soon("a commit to be on its way", relay.trapped()).await;
    let slow = fleet.replicas.remove(0);
    fleet.ask_until("step of another judge", async || fleet.decided("step") > 0).await;
    fleet.agreed(60).await;
    relay.set(Way::Open);
    soon("the slow one to follow", async { while view(&slow).await["percent"] != 60 {} }).await;
    fleet.replicas.insert(0, slow);
    fleet.ask(100).await;
    fleet.agreed(60).await;
    assert_eq!((fleet.decided("step"), fleet.decisions().len()), (1, 2), "{:#?}", fleet.decisions());
    // A commit that was taken would have put the state back, which the others would have mended.
    let mended = |replica: &Proxy| replica.lines().iter().any(|line| line["event"] == "canary.offered");
    assert!(!fleet.replicas.iter().any(mended));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn harm_that_one_replica_alone_sees_holds_and_names_it() {
    let fleet = Fleet::start(3, STAYS).await;
    let name = told(&fleet.replicas[1]).await["fleet"]["replica"].as_str().unwrap().to_owned();
    // Each of them has had its 20 canary requests.
    fleet.ask(240).await;
    fleet.broken_by_way_of.store(1, Ordering::SeqCst);
    fleet.ask_until("hold", async || fleet.decided("hold") > 0).await;
    let hold = fleet.decisions().into_iter().find(|line| line["decision"] == "hold").unwrap();
    let words = format!("replica {name} alone sees harm");
    assert!(hold["message"].as_str().is_some_and(|message| message.contains(&words)), "{hold}");
    fleet.ask(300).await;
    fleet.agreed(50).await;
    for replica in &fleet.replicas {
        soon("the reason", async { while !view(replica).await["next"].to_string().contains(&words) {} }).await;
    }
    let explained = explain(&fleet.replicas[2]).await;
    assert!(explained.contains("has it at 50 %") && explained.contains(&words), "{explained}");
    assert_eq!((fleet.decided("roll_back"), fleet.decided("hold")), (0, 1), "{:#?}", fleet.decisions());
    // Once another sees it too it is the canary's.
    fleet.broken.store(true, Ordering::SeqCst);
    fleet.ask_until("rollback", async || fleet.decided("roll_back") > 0).await;
    fleet.agreed(0).await;
}

/// What `explain` says of the canary's route.
async fn explain(proxy: &Proxy) -> String {
    let admin = format!("http://{}", proxy.admin);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command
        .args(["explain", "--path", "/x", "--admin", &admin, "--config"])
        .arg(proxy.directory.path().join("streamgauge.toml"));
    let out = soon("the command's end", command.stdin(std::process::Stdio::null()).output()).await.unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn signal(pid: u32, signal: &str) {
    let done = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(done.success());
}
