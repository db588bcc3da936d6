//! Several replicas over one Redis that act as one: one judge for their canaries, whatever becomes of replicas and Redis.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Answer, Proxy, Redis, Relay, Upstream, config, soon};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbase";
const NEXT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext";
const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\nnext";

/// A replica that is connected follows a decision within this.
pub const FOLLOWED_WITHIN: Duration = Duration::from_secs(2);

/// Requests after which a decision must have come.
const REQUESTS_MAX: usize = 20_000;

/// No replica.
const NONE: usize = usize::MAX;

/// Backends, a Redis and replicas before and over them.
pub struct Fleet {
    base: Upstream,
    next: Upstream,
    /// The canary answers with errors.
    pub broken: Arc<AtomicBool>,
    /// It does so what comes by way of this replica.
    pub broken_by_way_of: Arc<AtomicUsize>,
    pub redis: Redis,
    pub replicas: Vec<Proxy>,
}

impl Fleet {
    pub async fn start(replicas: usize, canary: &str) -> Self {
        let mut fleet = Self::without_replicas().await;
        for _ in 0..replicas {
            fleet.join(canary).await;
        }
        fleet.settled().await;
        fleet
    }

    /// As [`Fleet::start`], with a way to Redis that all replicas take.
    pub async fn start_over_relay(replicas: usize, canary: &str) -> (Self, Relay) {
        let mut fleet = Self::without_replicas().await;
        let relay = Relay::start(fleet.redis.socket()).await;
        for _ in 0..replicas {
            fleet.join_over(&relay, canary).await;
        }
        fleet.settled().await;
        (fleet, relay)
    }

    pub async fn without_replicas() -> Self {
        let (broken, broken_by_way_of) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(NONE)));
        let (is_broken, way) = (Arc::clone(&broken), Arc::clone(&broken_by_way_of));
        let next = Upstream::start(move |mut conn| {
            let (is_broken, way) = (Arc::clone(&is_broken), Arc::clone(&way));
            async move {
                while let Some(seen) = conn.request().await {
                    let by_way_of = seen.header("x-by-way-of").and_then(|place| place.parse().ok());
                    let breaks = is_broken.load(Ordering::SeqCst) || by_way_of == Some(way.load(Ordering::SeqCst));
                    conn.write(if breaks { BROKEN } else { NEXT }).await;
                }
            }
        })
        .await;
        let (base, redis) = (Upstream::fixed(OK).await, Redis::start().await);
        Self { base, next, broken, broken_by_way_of, redis, replicas: Vec::new() }
    }

    /// One more replica.
    pub async fn join(&mut self, canary: &str) {
        let replica = Proxy::start(&self.text(&self.redis.url(), canary, None)).await;
        self.replicas.push(replica);
    }

    /// One more, with a way of its own to Redis.
    pub async fn join_over(&mut self, relay: &Relay, canary: &str) {
        let replica = Proxy::start(&self.text(&format!("redis://{}", relay.address), canary, None)).await;
        self.replicas.push(replica);
    }

    fn text(&self, redis: &str, canary: &str, state: Option<&Path>) -> String {
        let state = state.map_or(String::new(), |state| format!("[server]\nstate_dir = \"{}\"\n", state.display()));
        format!(
            "{state}[[upstream]]\nname = \"base\"\nurl = \"http://{}\"\n[[upstream]]\nname = \"next\"\nurl = \"http://{}\"\n\
             [limits]\nredis = \"{redis}\"\n[fleet]\nname = \"f\"\n\
             [[route]]\nname = \"chat\"\ntargets = [{{ upstream = \"base\" }}, {{ upstream = \"next\" }}]\nsticky = \"none\"\n\
             canary = {{ target = \"next\", {canary} }}\n",
            self.base.address, self.next.address
        )
    }

    /// All replicas know each other and follow the same state.
    pub async fn settled(&self) {
        for replica in &self.replicas {
            soon("all members", async { while members(replica).await.len() < self.replicas.len() {} }).await;
            soon("a state to follow", async { while view(replica).await["fleet"]["reach"] != "together" {} }).await;
        }
    }

    /// Asks all replicas in turn until `is_done`; all requests must be answered, by the canary perhaps with an error.
    pub async fn ask_until(&self, what: &str, mut is_done: impl AsyncFnMut() -> bool) {
        for _ in 0..REQUESTS_MAX / 50 {
            self.ask(50).await;
            if is_done().await {
                return;
            }
        }
        panic!("no {what} within {REQUESTS_MAX} requests: {:#?}", self.decisions());
    }

    /// Asks so many times, all replicas in turn that run.
    pub async fn ask(&self, times: usize) {
        let mut clients = Vec::new();
        for replica in &self.replicas {
            clients.push(replica.client().await);
        }
        for time in 0..times {
            let turn = time % clients.len();
            let answer = clients[turn].get("/x", &format!("x-by-way-of: {turn}\r\n")).await;
            assert!(is_answer(&answer), "{} {}", answer.status, answer.text());
        }
    }

    /// All decisions that any replica told of.
    pub fn decisions(&self) -> Vec<Value> {
        let lines = self.replicas.iter().flat_map(|replica| replica.lines().iter().cloned().collect::<Vec<_>>());
        lines.filter(|line| line["event"] == "canary.decision").collect()
    }

    pub fn decided(&self, kind: &str) -> usize {
        self.decisions().iter().filter(|line| line["decision"] == kind).count()
    }

    /// All replicas give the canary so much, and how long it took.
    pub async fn agreed(&self, percent: u64) -> Duration {
        let since = Instant::now();
        for replica in &self.replicas {
            soon("agreement", async { while view(replica).await["percent"] != percent {} }).await;
        }
        since.elapsed()
    }

    /// Of each canary that the Redis knows of: which replicas told its judge of requests.
    async fn tellers(&self) -> Vec<BTreeSet<String>> {
        let mut connection = self.redis.connection().await;
        let streams: Vec<String> =
            redis::cmd("KEYS").arg("{streamgauge:f}:samples:*").query_async(&mut connection).await.unwrap();
        let mut tellers = Vec::new();
        for stream in streams {
            let told: Vec<(String, Vec<Vec<u8>>)> =
                redis::cmd("XRANGE").arg(&[&stream, "-", "+"]).query_async(&mut connection).await.unwrap();
            let owners = told.iter().map(|(_, fields)| {
                let at = fields.iter().position(|field| field == b"o").unwrap();
                String::from_utf8(fields[at + 1].clone()).unwrap()
            });
            tellers.push(owners.collect());
        }
        tellers
    }

    /// The judge has read all that was told.
    async fn all_is_read(&self) {
        let mut connection = self.redis.connection().await;
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("{streamgauge:f}:canary:*").query_async(&mut connection).await.unwrap();
        let samples = keys[0].replace(":canary:", ":samples:");
        soon("all to be read", async {
            loop {
                let last: Vec<(String, Vec<Vec<u8>>)> = redis::cmd("XREVRANGE")
                    .arg(&samples)
                    .arg(&["+", "-", "COUNT", "1"])
                    .query_async(&mut connection)
                    .await
                    .unwrap();
                let cursor: String =
                    redis::cmd("HGET").arg(&keys[0]).arg("cursor").query_async(&mut connection).await.unwrap();
                if last.first().is_none_or(|(id, _)| *id == cursor) {
                    return;
                }
            }
        })
        .await;
    }

    /// The replica that judges.
    pub async fn judge(&self) -> usize {
        soon("a judge", async {
            loop {
                for (place, replica) in self.replicas.iter().enumerate() {
                    if view(replica).await["fleet"]["judges"] == true {
                        return place;
                    }
                }
            }
        })
        .await
    }
}

fn is_answer(answer: &Answer) -> bool {
    matches!((answer.status, answer.text().as_str()), (200, "base" | "next") | (500, "next"))
}

pub async fn view(proxy: &Proxy) -> Value {
    told(proxy).await["canaries"][0].clone()
}

pub async fn told(proxy: &Proxy) -> Value {
    let (status, text) = proxy.admin_get("/api/canaries").await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The replicas that a proxy knows of.
pub async fn members(proxy: &Proxy) -> Vec<String> {
    let told = told(proxy).await;
    let members = told["fleet"]["members"].as_array().unwrap().iter();
    let mut members: Vec<String> = members.map(|member| member["replica"].as_str().unwrap().to_owned()).collect();
    members.sort();
    members
}

pub async fn command(proxy: &Proxy, command: &str) -> (u16, Value) {
    let (status, text) = proxy.admin_post(&format!("/api/canaries/chat/{command}")).await;
    (status, serde_json::from_str(&text).unwrap())
}

/// Steps that are due at once.
pub const AT_ONCE: &str = "steps = [20, 60], step_time = \"0s\", min_requests = 30";

/// One step that lasts.
pub const STAYS: &str = "steps = [50], step_time = \"0s\", min_requests = 30";

#[tokio::test]
async fn replicas_of_a_fleet_know_each_other_and_no_other_fleet() {
    let (upstream, redis) = (Upstream::fixed(OK).await, Redis::start().await);
    let text = |name: &str| {
        config(upstream.address, &format!("[limits]\nredis = \"{}\"\n[fleet]\nname = \"{name}\"\n", redis.url()))
    };
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_replicas_take_one_step_that_one_of_them_decides() {
    let fleet = Fleet::start(3, AT_ONCE).await;
    assert_eq!(fleet.agreed(20).await.as_secs(), 0);
    fleet.ask_until("step", async || fleet.decided("step") > 0).await;
    let took = fleet.agreed(60).await;
    assert!(took <= FOLLOWED_WITHIN, "{took:?}");
    let kinds: Vec<Value> = fleet.decisions().iter().map(|line| line["decision"].clone()).collect();
    let (starts, steps) = (fleet.decided("start"), fleet.decided("step"));
    assert_eq!((starts, steps, kinds.len()), (1, 1, 2), "one decides, and it alone tells: {kinds:?}");
    // No replica alone had the requests that the step needs by its own count only: they are counted together.
    let step = fleet.decisions().into_iter().find(|line| line["decision"] == "step").unwrap();
    assert_eq!((&step["from_percent"], &step["to_percent"]), (&20.into(), &60.into()), "{step}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_judge_that_is_killed_has_a_successor_that_goes_on() {
    let undisturbed = {
        let fleet = Fleet::start(3, STAYS).await;
        fleet.ask(60).await;
        fleet.broken.store(true, Ordering::SeqCst);
        let since = Instant::now();
        fleet.ask_until("rollback", async || fleet.decided("roll_back") > 0).await;
        since.elapsed()
    };
    let mut fleet = Fleet::start(3, STAYS).await;
    let judge = fleet.judge().await;
    fleet.ask(60).await;
    fleet.broken.store(true, Ordering::SeqCst);
    let dead = fleet.replicas.swap_remove(judge);
    dead.signal("KILL");
    let since = Instant::now();
    fleet.ask_until("rollback", async || fleet.decided("roll_back") > 0).await;
    // Its lease is 3 s, and a look every 200 ms.
    let took = since.elapsed();
    assert!(took <= undisturbed + Duration::from_secs(5), "{took:?}, undisturbed {undisturbed:?}");
    let took = fleet.agreed(0).await;
    assert!(took <= FOLLOWED_WITHIN, "{took:?}");
    assert_eq!(fleet.decided("roll_back"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_judge_that_slept_decides_nothing_again() {
    let mut fleet = Fleet::start(3, AT_ONCE).await;
    let judge = fleet.judge().await;
    let asleep = fleet.replicas.swap_remove(judge);
    asleep.signal("STOP");
    fleet.ask_until("step", async || fleet.decided("step") > 0).await;
    fleet.agreed(60).await;
    asleep.signal("CONT");
    soon("the sleeper to follow", async { while view(&asleep).await["percent"] != 60 {} }).await;
    fleet.replicas.push(asleep);
    fleet.ask(200).await;
    assert_eq!(fleet.decided("step"), 1, "{:#?}", fleet.decisions());
    assert_eq!(fleet.decisions().len(), 2, "{:#?}", fleet.decisions());
}

/// The fence itself, with the script that replicas commit by.
#[tokio::test]
async fn a_commit_to_a_state_that_another_wrote_meanwhile_is_refused() {
    let redis = Redis::start().await;
    let mut connection = redis.connection().await;
    let commit = redis::Script::new(include_str!("../../src/proxy/process/fleet/commit.lua"));
    let mut write = async |version: u64, share: u64| -> bool {
        let mut call = commit.prepare_invoke();
        call.key("k").arg(version).arg(60_000).arg("share").arg(share);
        call.invoke_async(&mut connection).await.unwrap()
    };
    assert!(write(0, 20).await);
    assert!(!write(0, 60).await, "it had read nothing, and there is something");
    assert!(write(1, 60).await);
    assert!(!write(1, 0).await);
    let mut connection = redis.connection().await;
    let share: u64 = redis::cmd("HGET").arg("k").arg("share").query_async(&mut connection).await.unwrap();
    assert_eq!(share, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_nothing_fails_no_step_is_taken_and_a_dead_canary_gets_nothing() {
    let mut fleet = Fleet::start(3, &AT_ONCE.replace("[20, 60]", "[50, 60]")).await;
    fleet.redis.kill().await;
    for replica in &fleet.replicas {
        replica.line("that Redis is away", |line| line["event"] == "fleet.away").await;
        soon("it to judge by itself", async { while view(replica).await["fleet"]["reach"] != "apart" {} }).await;
    }
    fleet.ask(600).await;
    assert_eq!((fleet.decided("step"), fleet.decided("hold")), (0, 0), "no step without the others");
    fleet.agreed(50).await;
    fleet.broken.store(true, Ordering::SeqCst);
    let rolled_back = |replica: &Proxy| replica.lines().iter().any(|line| line["event"] == "canary.rolled_back_here");
    fleet.ask_until("rollbacks", async || fleet.replicas.iter().all(rolled_back)).await;
    assert_eq!(fleet.agreed(0).await.as_secs(), 0);
    let asked = fleet.next.connections();
    fleet.ask(60).await;
    assert_eq!(fleet.next.connections(), asked);
    assert_eq!(fleet.decided("roll_back"), 0, "that is each one's own");
    // Back, and empty: what the replicas kept and what they saw makes the fleet's judge roll back as well.
    fleet.redis.restart().await;
    let since = Instant::now();
    for replica in &fleet.replicas {
        soon("the fleet", async { while view(replica).await["fleet"]["reach"] != "together" {} }).await;
    }
    fleet.ask_until("rollback", async || fleet.decided("roll_back") > 0).await;
    fleet.agreed(0).await;
    assert!(since.elapsed() <= Duration::from_secs(10), "{:?}", since.elapsed());
    // One that had rolled back by itself has the share before it has the fleet's decision.
    for replica in &fleet.replicas {
        soon("the decision", async { while view(replica).await["state"] != "rolled back" {} }).await;
    }
    assert_eq!(fleet.decided("roll_back"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgets_a_rollback_is_told_of_it() {
    let fleet = Fleet::start(3, STAYS).await;
    assert_eq!(command(&fleet.replicas[0], "rollback").await.0, 200);
    fleet.agreed(0).await;
    let mut connection = fleet.redis.connection().await;
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    let offered = |replica: &Proxy| replica.lines().iter().any(|line| line["event"] == "canary.offered");
    soon("the state to be offered", async {
        while !fleet.replicas.iter().any(offered) {
            fleet.ask(10).await;
            for replica in &fleet.replicas {
                assert_eq!(view(replica).await["percent"], 0);
            }
        }
    })
    .await;
    fleet.ask(100).await;
    for replica in &fleet.replicas {
        let view = view(replica).await;
        assert_eq!((&view["percent"], &view["state"]), (&0.into(), &"rolled back".into()), "{view}");
    }
    assert_eq!(fleet.decided("start"), 1, "it did not start anew: {:#?}", fleet.decisions());
    // Who comes later learns of it from the store.
    let mut fleet = fleet;
    fleet.join(STAYS).await;
    fleet.settled().await;
    assert_eq!(view(&fleet.replicas[3]).await["state"], "rolled back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_over_a_step_follows_and_its_requests_do_not_count() {
    let mut fleet = Fleet::start(2, AT_ONCE).await;
    let relay = Relay::start(fleet.redis.socket()).await;
    fleet.join_over(&relay, AT_ONCE).await;
    fleet.settled().await;
    relay.cut(true);
    let cut_off = fleet.replicas.pop().unwrap();
    // What it has to tell was assigned by the share of before.
    let mut client = cut_off.client().await;
    for _ in 0..200 {
        assert!(is_answer(&client.get("/x", "").await));
    }
    fleet.ask_until("step", async || fleet.decided("step") > 0).await;
    fleet.agreed(60).await;
    assert_eq!(view(&cut_off).await["percent"], 20, "it cannot know");
    let counted = async || view(&fleet.replicas[0]).await["step_baseline_requests"].as_u64().unwrap();
    let before = counted().await;
    relay.cut(false);
    let since = Instant::now();
    soon("the one that was cut off to follow", async { while view(&cut_off).await["percent"] != 60 {} }).await;
    assert!(since.elapsed() <= Duration::from_secs(3), "{:?}", since.elapsed());
    fleet.all_is_read().await;
    // Of its 200 requests some 160 were the baseline's; the others had told all but their last 50.
    let after = counted().await;
    assert!(after <= before + 50, "requests of the step before count in none after it: {before}, {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_plans_differ_no_step_is_taken_and_another_canary_is_judged_apart() {
    let mut fleet = Fleet::start(2, AT_ONCE).await;
    fleet.join(&AT_ONCE.replace("= 30", "= 31")).await;
    fleet.settled().await;
    for replica in &fleet.replicas {
        soon("the difference", async { while view(replica).await["fleet"]["plans_differ"] != true {} }).await;
    }
    fleet.ask(900).await;
    assert_eq!(fleet.decided("step"), 0);
    let words = view(&fleet.replicas[0]).await["next"].as_str().unwrap().to_owned();
    assert!(words.contains("while replicas have different plans"), "{words}");
    // Harm still rolls back.
    fleet.broken.store(true, Ordering::SeqCst);
    fleet.ask_until("rollback", async || fleet.decided("roll_back") > 0).await;
    fleet.agreed(0).await;
    // Other steps are another canary, which starts by itself.
    fleet.broken.store(false, Ordering::SeqCst);
    fleet.join(&AT_ONCE.replace("[20, 60]", "[30, 60]")).await;
    let other = &fleet.replicas[3];
    soon("its start", async { while view(other).await["percent"] != 30 {} }).await;
    assert_eq!(view(&fleet.replicas[0]).await["percent"], 0);
    // No judge reads the requests of both.
    fleet.ask(40).await;
    let name = told(other).await["fleet"]["replica"].as_str().unwrap().to_owned();
    let is_told = async || fleet.tellers().await.iter().any(|tellers| tellers.contains(&name));
    soon("its requests", async { while !is_told().await {} }).await;
    let tellers = fleet.tellers().await;
    assert_eq!(tellers.len(), 2, "{tellers:?}");
    assert!(tellers.contains(&BTreeSet::from([name.clone()])), "{name} tells another judge than {tellers:?}");
    assert!(tellers.iter().any(|tellers| tellers.len() == 3 && !tellers.contains(&name)), "{tellers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_at_all_replicas_at_once_is_one_decision() {
    let fleet = Fleet::start(3, STAYS).await;
    let since = Instant::now();
    let [one, two, three] = &fleet.replicas[..] else { panic!("three") };
    let answers = tokio::join!(command(one, "promote"), command(two, "promote"), command(three, "promote"));
    let statuses = [answers.0.0, answers.1.0, answers.2.0];
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 2, "{answers:?}");
    let done = [&answers.0, &answers.1, &answers.2].into_iter().find(|(status, _)| *status == 200).unwrap();
    assert_eq!(done.1["replicas"]["followed"].as_array().unwrap().len(), 3, "{}", done.1);
    assert_eq!(done.1["replicas"]["missing"], Value::Array(Vec::new()), "{}", done.1);
    fleet.agreed(100).await;
    assert!(since.elapsed() <= FOLLOWED_WITHIN + Duration::from_secs(1), "{:?}", since.elapsed());
    assert_eq!(fleet.decided("promote"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_people_can_stop_a_canary_here_and_nothing_else() {
    let mut fleet = Fleet::start(2, STAYS).await;
    fleet.redis.pause(true);
    let (status, said) = command(&fleet.replicas[0], "promote").await;
    assert_eq!((status, said["error"].as_str().unwrap().contains("Redis")), (503, true), "{said}");
    assert_eq!(command(&fleet.replicas[0], "rollback").await.0, 200);
    assert_eq!(view(&fleet.replicas[0]).await["percent"], 0);
    assert_eq!(view(&fleet.replicas[1]).await["percent"], 50, "it cannot know");
    fleet.redis.pause(false);
    fleet.agreed(0).await;
    assert_eq!(view(&fleet.replicas[1]).await["state"], "rolled back");
    assert_eq!(fleet.decided("roll_back"), 1);
    fleet.redis.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_starts_without_redis_goes_on_where_it_stood_or_gives_the_canary_nothing() {
    let fleet = Fleet::start(1, STAYS).await;
    let state = tempfile::tempdir().unwrap();
    let text = |state: &Path| fleet.text(&fleet.redis.url(), STAYS, Some(state));
    let mut known = Proxy::start(&text(state.path())).await;
    soon("a state to follow", async { while view(&known).await["percent"] != 50 {} }).await;
    known.signal("TERM");
    assert_eq!(known.exited().await, Some(0));
    fleet.redis.pause(true);
    let known = Proxy::start(&text(state.path())).await;
    let empty = tempfile::tempdir().unwrap();
    let new = Proxy::start(&text(empty.path())).await;
    assert_eq!((&view(&known).await["percent"], &view(&new).await["percent"]), (&50.into(), &0.into()));
    let mut client = new.client().await;
    for _ in 0..40 {
        assert_eq!(client.get("/x", "").await.text(), "base");
    }
    fleet.redis.pause(false);
    soon("the new one to follow", async { while view(&new).await["percent"] != 50 {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_takes_no_writes_is_said_and_nothing_else_comes_of_it() {
    let fleet = Fleet::start(2, AT_ONCE).await;
    let mut connection = fleet.redis.connection().await;
    let mut set = async |key: &str, value: &str| {
        let () = redis::cmd("CONFIG").arg("SET").arg(key).arg(value).query_async(&mut connection).await.unwrap();
    };
    set("maxmemory", "1").await;
    for replica in &fleet.replicas {
        let said = replica.line("that Redis refuses", |line| line["event"] == "fleet.refused").await;
        assert!(said["message"].as_str().unwrap().contains("it refuses (OOM)"), "{said}");
    }
    fleet.ask(300).await;
    assert_eq!(fleet.decided("step"), 0);
    set("maxmemory", "0").await;
    fleet.ask_until("step", async || fleet.decided("step") > 0).await;
    fleet.agreed(60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_under_the_fleets_keys_harms_nobody() {
    let fleet = Fleet::start(2, AT_ONCE).await;
    let mut connection = fleet.redis.connection().await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("{streamgauge:f}:canary:*").query_async(&mut connection).await.unwrap();
    let [state] = &keys[..] else { panic!("{keys:?}") };
    let samples = state.replace(":canary:", ":samples:");
    let mut pipe = redis::pipe();
    pipe.cmd("XADD").arg(&samples).arg("*").arg("o").arg("zz").arg("p").arg("\u{9}").ignore();
    pipe.cmd("SET").arg("{streamgauge:f}:replica:liar").arg("{\"canaries\":7}").arg("PX").arg(60_000).ignore();
    pipe.cmd("ZADD").arg("{streamgauge:f}:members").arg(4e12).arg("liar").ignore();
    let () = pipe.query_async(&mut connection).await.unwrap();
    fleet.ask_until("step", async || fleet.decided("step") > 0).await;
    fleet.agreed(60).await;
    let passed_over = |replica: &Proxy| replica.lines().iter().any(|line| line["event"] == "canary.unreadable");
    assert!(fleet.replicas.iter().any(passed_over), "who judges says so");
    assert!(members(&fleet.replicas[0]).await.contains(&"liar".to_owned()), "whoever it is, it is there");
    // A state that cannot be read: replicas stay, and the judge writes it anew.
    let () = redis::cmd("HSET")
        .arg(state)
        .arg("judge")
        .arg("{}")
        .arg("version")
        .arg(900)
        .query_async(&mut connection)
        .await
        .unwrap();
    let complains = |replica: &Proxy| replica.lines().iter().any(|line| line["event"] == "canary.state_unreadable");
    // Others may see it only when it is written anew.
    fleet.ask_until("complaint", async || fleet.replicas.iter().any(complains)).await;
    let version = async || view(&fleet.replicas[0]).await["fleet"]["version"].as_u64().unwrap();
    fleet.ask_until("state that can be read", async || version().await > 900).await;
    assert_eq!(fleet.agreed(60).await.as_secs(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_names_replicas_that_do_not_follow() {
    let fleet = Fleet::start(2, STAYS).await;
    let typed = async |action: &str| {
        let admin = format!("http://{}", fleet.replicas[0].admin);
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args(["canary", action, "--admin", &admin]).stdin(std::process::Stdio::null());
        let out = soon("the command's end", command.output()).await.unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (code, said) = typed("pause").await;
    assert_eq!((code, said.contains("  replicas  2 follow\n")), (Some(0), true), "{said}");
    let missing = told(&fleet.replicas[1]).await["fleet"]["replica"].as_str().unwrap().to_owned();
    fleet.replicas[1].signal("STOP");
    let (code, said) = typed("rollback").await;
    fleet.replicas[1].signal("CONT");
    assert_eq!((code, said.contains(&format!("1 follow, not yet: {missing}"))), (Some(3), true), "{said}");
    fleet.agreed(0).await;
}
