//! What all replicas of a fleet show, at whichever of them is asked; and what is told to nobody.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use streamgauge::config::secret::Secret;
use streamgauge::policy::peer_signature::{self, Asked, Question};

use crate::support::{Client, Proxy, Redis, Upstream, config, soon};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbase";

const SECRET: &str = "0123456789abcdef0123456789abcdef-fleet";
const TOKEN: &str = "admin-token-0123456789abcdef";
const ENVIRONMENT: [(&str, &str); 2] = [("FLEET_SECRET", SECRET), ("STREAMGAUGE_ADMIN_TOKEN", TOKEN)];

fn text(upstream: &Upstream, redis: &Redis, fleet: &str) -> String {
    config(upstream.address, &format!("[limits]\nredis = \"{}\"\n[fleet]\nname = \"f\"\n{fleet}\n", redis.url()))
}

const SIGNED: &str = "secret_env = \"FLEET_SECRET\"";

/// Replicas over one Redis that know each other.
struct Fleet {
    upstream: Upstream,
    redis: Redis,
    replicas: Vec<Proxy>,
}

impl Fleet {
    async fn start(replicas: usize) -> Self {
        let mut fleet = Self { upstream: Upstream::fixed(OK).await, redis: Redis::start().await, replicas: Vec::new() };
        for _ in 0..replicas {
            let replica = Proxy::start_with(&text(&fleet.upstream, &fleet.redis, SIGNED), &ENVIRONMENT).await;
            fleet.replicas.push(replica);
        }
        for replica in &fleet.replicas {
            soon("all replicas", async { while rows(&view(replica).await, "replicas").len() < replicas {} }).await;
        }
        fleet
    }

    /// Puts somebody into Redis who says that its admin address is `admin`.
    async fn pretend(&self, owner: &str, admin: &str) {
        let says = format!(r#"{{"version":"9","admin":"{admin}","canaries":{{}}}}"#);
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(format!("{{streamgauge:f}}:replica:{owner}")).arg(says).arg("PX").arg(60_000).ignore();
        pipe.cmd("ZADD").arg("{streamgauge:f}:members").arg(4e12).arg(owner).ignore();
        let () = pipe.query_async(&mut self.redis.connection().await).await.unwrap();
        for replica in &self.replicas {
            let knows = async || names(&view(replica).await).contains(&owner.to_owned());
            soon("the pretender", async { while !knows().await {} }).await;
        }
    }
}

/// `/api/fleet`.
async fn view(proxy: &Proxy) -> Value {
    read(proxy, "/api/fleet").await
}

async fn read(proxy: &Proxy, path: &str) -> Value {
    let (status, text) = proxy.admin_get(path).await;
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn rows<'a>(view: &'a Value, list: &str) -> &'a [Value] {
    view[list].as_array().unwrap_or_else(|| panic!("no {list} in {view}"))
}

fn names(view: &Value) -> Vec<String> {
    rows(view, "replicas").iter().filter_map(|row| row["replica"].as_str()).map(str::to_owned).collect()
}

/// The replicas that the rows of a list are of, each once.
fn tellers(view: &Value, list: &str) -> Vec<String> {
    let mut tellers: Vec<String> =
        rows(view, list).iter().map(|row| row["replica"].as_str().unwrap().to_owned()).collect();
    tellers.sort();
    tellers.dedup();
    tellers
}

async fn own_name(proxy: &Proxy) -> String {
    view(proxy).await["replica"].as_str().unwrap().to_owned()
}

/// What a replica answers.
fn answer_of(owner: &str, body: &str) -> String {
    let head = format!("HTTP/1.1 200 OK\r\nx-streamgauge-replica: {owner}\r\ncontent-type: application/json\r\n");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

/// Asks an admin address with an `Authorization` header.
async fn ask_with(proxy: &Proxy, method: &str, path: &str, authorization: &str) -> (u16, String) {
    let mut client = Client::connect(proxy.admin).await;
    client
        .send(format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: {authorization}\r\ncontent-length: 0\r\n\r\n",
            proxy.admin
        ))
        .await;
    let answer = client.answer().await;
    (answer.status, answer.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_replica_shows_what_all_of_them_do() {
    let fleet = Fleet::start(3).await;
    let mut owners = Vec::new();
    for replica in &fleet.replicas {
        owners.push(own_name(replica).await);
        let mut client = replica.client().await;
        assert_eq!(client.get("/x", "").await.status, 200);
    }
    owners.sort();
    for replica in &fleet.replicas {
        let fleet_view = view(replica).await;
        assert_eq!((fleet_view["name"].as_str(), rows(&fleet_view, "absent").len()), (Some("f"), 0), "{fleet_view}");
        for row in rows(&fleet_view, "replicas") {
            assert_eq!((&row["answered"], &row["draining"]), (&true.into(), &false.into()), "{fleet_view}");
            assert_eq!(row["version"], env!("CARGO_PKG_VERSION"));
        }
        let mut known = names(&fleet_view);
        known.sort();
        assert_eq!(known, owners);
        let admin: Vec<&str> = rows(&fleet_view, "replicas").iter().map(|row| row["admin"].as_str().unwrap()).collect();
        assert!(fleet.replicas.iter().all(|one| admin.contains(&&*format!("http://{}", one.admin))), "{admin:?}");
        soon("the requests of all", async {
            while tellers(&read(replica, "/api/streams?fleet").await, "recent") != owners {}
        })
        .await;
        for (path, list) in [("/api/upstreams?fleet", "upstreams"), ("/api/history?by=route&fleet", "series")] {
            let merged = read(replica, path).await;
            assert_eq!(tellers(&merged, list), owners, "{merged}");
            assert_eq!(rows(&merged["fleet"], "replicas").len(), 3);
        }
        assert_eq!(read(replica, "/api/streams").await["recent"].as_array().unwrap().len(), 1, "its own alone");
    }
    for path in ["/api/canaries?fleet", "/api/levers?fleet", "/api/limits?fleet"] {
        assert_eq!(rows(&read(&fleet.replicas[0], path).await["fleet"], "absent").len(), 0);
    }
    let (status, said) = fleet.replicas[0].admin_get("/api/config?fleet").await;
    assert_eq!((status, said.contains("`?fleet` is for")), (400, true), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_killed_or_hangs_is_named_and_the_others_are_shown() {
    let mut fleet = Fleet::start(3).await;
    let (dead, hung) = (fleet.replicas.pop().unwrap(), fleet.replicas.pop().unwrap());
    let (dead_name, hung_name) = (own_name(&dead).await, own_name(&hung).await);
    dead.signal("KILL");
    // Its socket still takes connections, and nobody reads from them.
    hung.signal("STOP");
    let asked = &fleet.replicas[0];
    let both_are_absent = async || rows(&read(asked, "/api/streams?fleet").await["fleet"], "absent").len() == 2;
    soon("both to be absent", async { while !both_are_absent().await {} }).await;
    let merged = read(asked, "/api/streams?fleet").await;
    let row = |name: &str| {
        let rows = rows(&merged["fleet"], "replicas");
        rows.iter().find(|row| row["replica"] == name).unwrap_or_else(|| panic!("{name} in {merged}")).clone()
    };
    assert_eq!(row(&hung_name)["trouble"], "it did not answer within 1 s", "{merged}");
    assert!(row(&dead_name)["trouble"].as_str().unwrap().starts_with("it cannot be reached"), "{merged}");
    for name in [&hung_name, &dead_name] {
        assert!(row(name)["absent_since"].is_string() && row(name)["answered"] == false, "{merged}");
    }
    hung.signal("CONT");
    soon("it to answer again", async { while rows(&view(asked).await, "absent").len() != 1 {} }).await;
    // Redis forgets the dead one; it is named all the same.
    soon("Redis to forget it", async {
        while !rows(&view(asked).await, "replicas").iter().any(|row| row["trouble"] == "it was not heard of any more") {
        }
    })
    .await;
    assert_eq!(view(asked).await["absent"], serde_json::json!([dead_name]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_in_order_is_absent_from_nothing() {
    let mut fleet = Fleet::start(2).await;
    let mut leaves = fleet.replicas.pop().unwrap();
    leaves.signal("TERM");
    assert_eq!(leaves.exited().await, Some(0));
    let asked = &fleet.replicas[0];
    soon("it to be gone", async { while rows(&view(asked).await, "replicas").len() > 1 {} }).await;
    assert_eq!(view(asked).await["absent"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_out_of_redis_gets_no_token_and_no_secret() {
    let fleet = Fleet::start(1).await;
    let answer = answer_of("00000000000000aa", "{\"live\":[{\"id\":7}],\"recent\":[]}");
    let (liar, mut seen) = Upstream::recording(answer).await;
    fleet.pretend("00000000000000aa", &format!("http://{}", liar.address)).await;
    let (status, text) = ask_with(&fleet.replicas[0], "GET", "/api/streams?fleet", &format!("Bearer {TOKEN}")).await;
    assert_eq!((status, text.contains("00000000000000aa")), (200, true), "{text}");
    let mut asked = 0;
    while let Ok(request) = seen.try_recv() {
        asked += 1;
        let sent = request.head.to_lowercase();
        assert!(sent.contains("authorization: streamgauge-fleet minute="), "{sent}");
        assert!(!sent.contains(TOKEN) && !sent.contains(SECRET) && !sent.contains("cookie"), "{sent}");
        assert!(sent.starts_with("get /api/") && !sent.contains("?fleet"), "one hop: {sent}");
        // What it got opens nothing elsewhere.
        let path = request.head.split(' ').nth(1).unwrap().to_owned();
        let signature = request.all("authorization")[0].to_owned();
        let (status, said) = ask_with(&fleet.replicas[0], "GET", &path, &signature).await;
        assert_eq!((status, said.contains("for another address")), (401, true), "{said}");
    }
    assert!(asked > 0);
    let (_, shown) = fleet.replicas[0].admin_get("/api/config").await;
    assert!(shown.contains("secret") && !shown.contains(SECRET) && !shown.contains(TOKEN));
    assert!(!format!("{:?}", fleet.replicas[0].lines()).contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_too_much_or_as_somebody_else_is_cut_and_named() {
    let fleet = Fleet::start(1).await;
    let endless = format!("{{\"live\":[\"{}\"]}}", "x".repeat(1 << 20));
    let endless = Upstream::fixed(answer_of("00000000000000aa", &endless)).await;
    fleet.pretend("00000000000000aa", &format!("http://{}", endless.address)).await;
    let other = Upstream::fixed(answer_of("00000000000000cc", "{\"live\":[1]}")).await;
    fleet.pretend("00000000000000bb", &format!("http://{}", other.address)).await;
    let page = Upstream::fixed("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>").await;
    fleet.pretend("00000000000000dd", &format!("http://{}", page.address)).await;
    fleet.pretend("00000000000000ee", "file:///etc/passwd").await;
    let merged = read(&fleet.replicas[0], "/api/streams?fleet").await;
    let trouble = |name: &str| {
        let rows = rows(&merged["fleet"], "replicas");
        let row = rows.iter().find(|row| row["replica"] == name).unwrap_or_else(|| panic!("{name} in {merged}"));
        row["trouble"].as_str().unwrap().to_owned()
    };
    assert_eq!(trouble("00000000000000aa"), "its answer is longer than 256 KiB");
    assert_eq!(trouble("00000000000000bb"), "replica 00000000000000cc answers at its address");
    assert_eq!(trouble("00000000000000dd"), "what answers at its address is no replica of Streamgauge");
    assert_eq!(trouble("00000000000000ee"), "it tells no address: give it `advertise` in [fleet]");
    assert_eq!(rows(&merged["fleet"], "absent").len(), 4);
    assert_eq!(rows(&merged, "live").len(), 0, "nothing of them is shown: {merged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_that_is_wrong_old_or_missing_is_refused_and_opens_views_alone() {
    let fleet = Fleet::start(1).await;
    let replica = &fleet.replicas[0];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let admin = replica.admin.to_string();
    let asked = Asked { by_name: &admin, by_address: &admin };
    let signed = |secret: &str, path: &str, at: Duration| {
        let question = Question { fleet: "f", path };
        peer_signature::header(&Secret::new(secret.to_owned()), question, asked, at).unwrap()
    };
    let good = |path: &str| signed(SECRET, path, now);
    let (status, said) = ask_with(replica, "GET", "/api/streams", &good("/api/streams")).await;
    assert_eq!(status, 200, "{said}");
    let minutes = Duration::from_secs(180);
    let cases = [
        (
            "/api/streams",
            signed("another secret of thirty-two bytes", "/api/streams", now),
            "not signed with the secret",
        ),
        ("/api/streams", good("/api/upstreams"), "not signed with the secret"),
        ("/api/streams", good("/api/streams").replace("signature=", "signature=A"), "not signed with the secret"),
        ("/api/streams", "Streamgauge-Fleet nothing".to_owned(), "not signed with the secret"),
        ("/api/streams", signed(SECRET, "/api/streams", now - minutes), "of another minute"),
    ];
    for (path, authorization, words) in cases {
        let (status, said) = ask_with(replica, "GET", path, &authorization).await;
        assert_eq!((status, said.contains(words)), (401, true), "{authorization}: {said}");
    }
    // It opens what replicas show, for reading.
    for (method, path) in
        [("GET", "/api/config"), ("GET", "/"), ("POST", "/api/reload"), ("POST", "/api/levers/drain?what=fake")]
    {
        let (status, said) = ask_with(replica, method, path, &good(path)).await;
        assert_eq!((status, said.contains("and nothing else")), (403, true), "{method} {path}: {said}");
    }
    let (status, said) = ask_with(replica, "GET", "/api/streams?fleet", &good("/api/streams?fleet")).await;
    assert_eq!((status, said.contains("answers for itself")), (400, true), "{said}");
    // One that has no secret knows no signature, and says what it needs where a person asks.
    let plain = Proxy::start(&text(&fleet.upstream, &fleet.redis, "")).await;
    let (status, said) = ask_with(&plain, "GET", "/api/streams", &good("/api/streams")).await;
    assert_eq!((status, said.contains("no `secret_env` in [fleet]")), (401, true), "{said}");
    let (status, said) = plain.admin_get("/api/streams?fleet").await;
    assert_eq!((status, said.contains("`secret_env` in [fleet]")), (409, true), "{said}");
    let seen = async || view(&plain).await;
    soon("the other to be seen", async { while rows(&seen().await, "replicas").len() < 2 {} }).await;
    let seen = seen().await;
    assert!(seen["hint"].as_str().unwrap().contains("`secret_env` in [fleet]"), "{seen}");
    let alone = Proxy::start(&config(fleet.upstream.address, "")).await;
    let (status, said) = alone.admin_get("/api/streams?fleet").await;
    assert_eq!((status, said.contains("of no fleet")), (409, true), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_without_redis_are_found_by_their_addresses() {
    let upstream = Upstream::fixed(OK).await;
    let fleet = |peers: &str| {
        let canary = "[[upstream]]\nname = \"next\"\nurl = \"http://127.0.0.1:1\"\n[[route]]\nname = \"chat\"\n\
             targets = [{ upstream = \"fake\" }, { upstream = \"next\" }]\ncanary = { target = \"next\", steps = [50] }\n";
        config(upstream.address, &format!("[fleet]\nname = \"f\"\n{SIGNED}\npeers = {peers}\n{canary}"))
    };
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Proxy::start_with(&fleet("[]"), &ENVIRONMENT).await);
    }
    let hung = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung = format!("http://{}", hung.local_addr().unwrap());
    let urls = replicas.iter().map(|replica| format!("\"http://{}\"", replica.admin)).chain([format!("\"{hung}\"")]);
    let urls = format!("[{}]", urls.collect::<Vec<_>>().join(", "));
    let mut owners = Vec::new();
    for replica in &replicas {
        replica.write_config(&fleet(&urls));
        let (status, said) = replica.admin_post("/api/reload").await;
        assert_eq!(status, 200, "{said}");
        owners.push(own_name(replica).await);
    }
    owners.sort();
    for replica in &replicas {
        let merged = read(replica, "/api/upstreams?fleet").await;
        assert_eq!(tellers(&merged, "upstreams"), owners);
        assert_eq!(merged["fleet"]["absent"], serde_json::json!([hung]), "{merged}");
        assert_eq!(rows(&merged["fleet"], "replicas").len(), 4, "itself is not asked as another: {merged}");
        // There is nothing to judge over: each judges its own requests, from its first step on.
        assert_eq!(read(replica, "/api/canaries").await["canaries"][0]["percent"], 50);
    }
    let by_name = fleet(&format!("\"dns:localhost:{}\"", replicas[1].admin.port()));
    replicas[0].write_config(&by_name);
    assert_eq!(replicas[0].admin_post("/api/reload").await.0, 200);
    let merged = read(&replicas[0], "/api/upstreams?fleet").await;
    assert_eq!(tellers(&merged, "upstreams").len(), 2, "{merged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_much_to_show_shows_what_another_one_reads() {
    let fleet = Fleet::start(2).await;
    let mut client = fleet.replicas[1].client().await;
    let path: Arc<str> = format!("/{}", "x".repeat(1_500)).into();
    for _ in 0..300 {
        assert_eq!(client.get(&path, "").await.status, 200);
    }
    let all = async || read(&fleet.replicas[1], "/api/streams").await["recent"].as_array().unwrap().len();
    soon("all records", async { while all().await < 300 {} }).await;
    // A busy machine may make one answer late; one that is too long never comes.
    let merged = soon("an answer of both", async {
        loop {
            let merged = read(&fleet.replicas[0], "/api/streams?fleet").await;
            if rows(&merged["fleet"], "absent").is_empty() {
                return merged;
            }
        }
    })
    .await;
    let shown = rows(&merged, "recent").len();
    assert!((50..300).contains(&shown), "{shown}");
}

/// A viewer of the feed of all replicas.
struct Viewer {
    client: Client,
    /// All that has come, and how much of it was looked at.
    read: String,
    seen: usize,
}

impl Viewer {
    async fn of(proxy: &Proxy) -> Self {
        let mut client = Client::connect(proxy.admin).await;
        client.send(format!("GET /api/streams/events?fleet HTTP/1.0\r\nhost: {}\r\n\r\n", proxy.admin)).await;
        let head = client.head().await;
        assert!(head.contains(" 200 "), "{head}");
        Self { client, read: String::new(), seen: 0 }
    }

    /// The next event: its name and what it tells.
    async fn event(&mut self) -> (String, Value) {
        loop {
            if let Some((event, _)) = self.read[self.seen..].split_once("\n\n") {
                let (name, data) = event.split_once("\ndata: ").unwrap();
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                let told = serde_json::from_str(data).unwrap();
                self.seen += event.len() + 2;
                return (name, told);
            }
            self.read = self.client.read_more().await;
        }
    }

    /// The first event of a name that is as wanted.
    async fn until(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let wanted = async {
            loop {
                let (event, told) = self.event().await;
                if event == name && wanted(&told) {
                    return told;
                }
            }
        };
        soon("an event", wanted).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_of_any_replica_shows_the_streams_of_all() {
    let fleet = Fleet::start(3).await;
    let mut owners = Vec::new();
    for replica in &fleet.replicas {
        owners.push(own_name(replica).await);
    }
    let mut viewer = Viewer::of(&fleet.replicas[0]).await;
    let first = viewer.until("overview", |_| true).await;
    assert_eq!(rows(&first["fleet"], "absent").len(), 0, "{first}");
    let all = viewer
        .until("overview", |told| told["proxy"]["upstreams"].as_array().is_some_and(|rows| rows.len() == 3))
        .await;
    assert!(rows(&all["fleet"], "replicas").iter().all(|row| row["answered"] == true), "{all}");
    assert_eq!(tellers(&all["proxy"], "upstreams").len(), 3);
    // An ended request of each, whoever served it; and of one that comes later.
    let mut later = Viewer::of(&fleet.replicas[0]).await;
    for (replica, owner) in fleet.replicas.iter().zip(&owners) {
        let mut client = replica.client().await;
        assert_eq!(client.get("/x", "").await.status, 200);
        for viewer in [&mut viewer, &mut later] {
            let has_it = |told: &Value| rows(told, "ended").iter().any(|ended| ended["record"]["replica"] == **owner);
            let frame = viewer.until("streams", has_it).await;
            assert_eq!(frame["replica"], **owner);
        }
    }
    // One that hangs is named, and the others are shown.
    fleet.replicas[2].signal("STOP");
    let hangs = |told: &Value| told["fleet"]["absent"] == serde_json::json!([owners[2]]);
    let without = viewer.until("overview", hangs).await;
    assert_eq!(tellers(&without["proxy"], "upstreams").len(), 2);
    let mut new = Viewer::of(&fleet.replicas[1]).await;
    let first = new.until("overview", |_| true).await;
    assert_eq!(first["fleet"]["absent"], serde_json::json!([owners[2]]), "the first overview names it: {first}");
    fleet.replicas[2].signal("CONT");
    viewer.until("overview", |told| rows(&told["fleet"], "absent").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_tells_its_feed_endlessly_or_wrongly_is_named() {
    let fleet = Fleet::start(1).await;
    let head = |owner: &str| {
        format!("HTTP/1.1 200 OK\r\nx-streamgauge-replica: {owner}\r\ncontent-type: text/event-stream\r\n\r\n")
    };
    let endless = head("00000000000000aa") + "event: streams\ndata: " + &"x".repeat(1 << 20);
    let wrong = head("00000000000000bb") + "event: streams\ndata: {\"rows\":[{\"id\":1}]}\n\n";
    let (endless, wrong) = (Upstream::fixed(endless).await, Upstream::fixed(wrong).await);
    fleet.pretend("00000000000000aa", &format!("http://{}", endless.address)).await;
    fleet.pretend("00000000000000bb", &format!("http://{}", wrong.address)).await;
    let mut viewer = Viewer::of(&fleet.replicas[0]).await;
    let both = |told: &Value| rows(&told["fleet"], "absent").len() == 2;
    let told = viewer.until("overview", both).await;
    let troubles: Vec<&str> =
        rows(&told["fleet"], "replicas").iter().filter_map(|row| row["trouble"].as_str()).collect();
    assert_eq!(
        troubles,
        ["its answer is longer than 256 KiB", "what answers at its address is no replica of Streamgauge"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_all_replicas_and_names_one_that_hangs() {
    let fleet = Fleet::start(3).await;
    let hung = own_name(&fleet.replicas[2]).await;
    let mut client = fleet.replicas[1].client().await;
    assert_eq!(client.get("/x", "").await.status, 200);
    let other = own_name(&fleet.replicas[1]).await;
    fleet.replicas[2].signal("STOP");
    let admin = format!("http://{}", fleet.replicas[0].admin);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["top", "--fleet", "--once", "--admin", &admin]).stdin(std::process::Stdio::null());
    let out = soon("the picture", command.output()).await.unwrap();
    fleet.replicas[2].signal("CONT");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let absent = format!("Replica {hung} (http://{}) is not shown since", fleet.replicas[2].admin);
    assert!(said.contains(&absent) && said.contains("did not answer within 1 s"), "{said}");
    assert!(said.contains(&format!("@{}", &other[..8])), "{said}");
    // Where nothing is signed it says what is missing.
    let plain = Proxy::start(&text(&fleet.upstream, &fleet.redis, "")).await;
    let admin = format!("http://{}", plain.admin);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["top", "--fleet", "--once", "--admin", &admin]).stdin(std::process::Stdio::null());
    let out = soon("the refusal", command.output()).await.unwrap();
    assert_eq!((out.status.success(), String::from_utf8_lossy(&out.stderr).contains("`secret_env`")), (false, true));
}
