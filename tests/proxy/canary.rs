//! Canaries: promoted or rolled back by the real proxy, steered by people, kept over reloads and restarts.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Client, Proxy, Upstream, soon};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbase";
const NEXT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext";
const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\nnext";

/// Requests after which a decision must have come.
const REQUESTS_MAX: usize = 2_000;

/// Two fake backends, and the configuration of a canary between them.
struct Setup {
    base: Upstream,
    next: Upstream,
    state: tempfile::TempDir,
}

impl Setup {
    async fn new(next: &'static str) -> Self {
        let (base, next) = (Upstream::fixed(OK).await, Upstream::fixed(next).await);
        Self { base, next, state: tempfile::tempdir().unwrap() }
    }

    fn config(&self, steps: &str, sticky: &str) -> String {
        config(self.base.address, self.next.address, self.state.path(), steps, sticky)
    }
}

fn config(base: SocketAddr, next: SocketAddr, state: &Path, steps: &str, sticky: &str) -> String {
    format!(
        r#"
[server]
state_dir = "{}"
trusted_proxies = ["127.0.0.1"]
[[upstream]]
name = "base"
url = "http://{base}"
[[upstream]]
name = "next"
url = "http://{next}"
[[route]]
name = "chat/v1"
targets = [{{ upstream = "base" }}, {{ upstream = "next" }}]
sticky = "{sticky}"
canary = {{ target = "next", steps = {steps}, step_time = "0s", min_requests = 10 }}
"#,
        state.display()
    )
}

fn decisions(proxy: &Proxy) -> Vec<Value> {
    proxy.lines().iter().filter(|line| line["event"] == "canary.decision").cloned().collect()
}

/// Sends requests until a decision of the kind was made.
async fn drive(proxy: &Proxy, decision: &str) -> Value {
    let mut client = proxy.client().await;
    for _ in 0..REQUESTS_MAX {
        client.get("/x", "").await;
        if let Some(line) = decisions(proxy).into_iter().find(|line| line["decision"] == decision) {
            return line;
        }
    }
    panic!("no {decision} within {REQUESTS_MAX} requests: {:#?}", decisions(proxy));
}

async fn view(proxy: &Proxy) -> Value {
    let (status, body) = proxy.admin_get("/api/canaries").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["canaries"][0].clone()
}

async fn post(proxy: &Proxy, path: &str, more: &str) -> (u16, String) {
    let mut client = Client::connect(proxy.admin).await;
    let admin = proxy.admin;
    client.send(format!("POST {path} HTTP/1.1\r\nhost: {admin}\r\n{more}content-length: 0\r\n\r\n")).await;
    let answer = client.answer().await;
    (answer.status, answer.text())
}

/// The command line, as typed.
async fn canary(proxy: &Proxy, args: &[&str]) -> (Option<i32>, String) {
    let admin = format!("http://{}", proxy.admin);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.arg("canary").args(args).args(["--admin", &admin]).stdin(Stdio::null());
    let out = soon("the command's end", command.output()).await.unwrap();
    (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[tokio::test]
async fn a_good_canary_is_promoted_step_by_step() {
    let setup = Setup::new(NEXT).await;
    let proxy = Proxy::start(&setup.config("[20, 60, 100]", "none")).await;
    let promoted = drive(&proxy, "promote").await;
    assert_eq!((&promoted["from_percent"], &promoted["to_percent"]), (&60.into(), &100.into()));
    assert_eq!(
        (&promoted["route"], &promoted["variant"], &promoted["by"]),
        (&"chat/v1".into(), &"next".into(), &"judge".into())
    );
    let kinds: Vec<String> =
        decisions(&proxy).iter().map(|line| line["decision"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["start", "step", "promote"]);
    let mut client = proxy.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/x", "").await.text(), "next");
    }
    let view = view(&proxy).await;
    assert_eq!((&view["state"], &view["percent"]), (&"promoted".into(), &100.into()));
    assert_eq!(view["decisions"].as_array().unwrap().len(), 3);
    let (_, metrics) = proxy.admin_get("/metrics").await;
    for series in [
        "streamgauge_canary_traffic_ratio{route=\"chat/v1\",variant=\"next\"} 1\n",
        "streamgauge_canary_traffic_ratio{route=\"chat/v1\",variant=\"base\"} 0\n",
        "streamgauge_canary_decisions_total{route=\"chat/v1\",decision=\"promote\"} 1\n",
        "streamgauge_canary_harm_e_value{route=\"chat/v1\",fact=\"failed\"} ",
    ] {
        assert!(metrics.contains(series), "{series} in\n{metrics}");
    }
    let (code, said) = canary(&proxy, &["list"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("chat/v1: canary `next` at 100 %, promoted\n"), "{said}");
}

#[tokio::test]
async fn a_bad_canary_is_rolled_back_and_says_why() {
    let setup = Setup::new(BROKEN).await;
    let proxy = Proxy::start(&setup.config("[10, 50, 100]", "none")).await;
    let back = drive(&proxy, "roll_back").await;
    assert_eq!((&back["to_percent"], &back["level"]), (&0.into(), &"error".into()), "{back}");
    let asked = setup.next.connections();
    let mut client = proxy.client().await;
    for _ in 0..100 {
        assert_eq!(client.get("/x", "").await.text(), "base");
    }
    assert_eq!(setup.next.connections(), asked, "nobody asks it any more");
    let view = view(&proxy).await;
    assert_eq!((&view["state"], &view["percent"]), (&"rolled back".into(), &0.into()));
    let words = view["decisions"][0]["words"].as_str().unwrap();
    assert!(words.starts_with("rolled back from 10 % to 0 %: it "), "{words}");
    let failed = &view["facts"][0];
    assert!(failed["canary"]["yes"].as_u64().unwrap() <= 20, "{failed}");
    let seen = &failed["seen"];
    assert!(seen["count"].as_u64() >= failed["canary"]["yes"].as_u64(), "a user counts once a block there: {failed}");
    assert!(seen["count"].as_u64().unwrap() >= 3, "nobody rolls back for less: {failed}");
    assert!(seen["first"].as_str().unwrap() <= seen["last"].as_str().unwrap(), "{failed}");
    assert!(view["facts"][1]["seen"].is_null(), "it never stalled: {view}");
    let (_, said) = canary(&proxy, &["list"]).await;
    assert!(said.contains("  failed: ") && said.contains(" times from 2"), "{said}");
    // What was seen outlives a restart, as the evidence does.
    let mut proxy = proxy;
    proxy.signal("TERM");
    proxy.exited().await;
    let proxy = Proxy::start(&setup.config("[10, 50, 100]", "none")).await;
    assert_eq!(&self::view(&proxy).await["facts"][0]["seen"], seen);
}

#[tokio::test]
async fn people_steer_by_words() {
    let setup = Setup::new(NEXT).await;
    let proxy = Proxy::start(&setup.config("[20, 100]", "none")).await;
    let (code, said) = canary(&proxy, &["pause"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("paused") && said.contains("It stays at 20 % until `resume`"), "{said}");
    let mut client = proxy.client().await;
    for _ in 0..200 {
        client.get("/x", "").await;
    }
    assert_eq!(view(&proxy).await["percent"], 20, "a pause holds");
    let (code, said) = canary(&proxy, &["pause", "chat/v1"]).await;
    assert_eq!((code, said.trim()), (Some(1), "the rollout is paused already; `resume` goes on"));
    let (code, said) = canary(&proxy, &["resume", "other"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no canary on a route \"other\"") && said.contains("chat/v1"), "{said}");
    assert_eq!(canary(&proxy, &["resume", "chat/v1"]).await.0, Some(0));
    drive(&proxy, "promote").await;
    let (code, said) = canary(&proxy, &["rollback"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("at 0 %, rolled back") && said.contains("asked for by an operator"), "{said}");
    for _ in 0..20 {
        assert_eq!(client.get("/x", "").await.text(), "base");
    }
    assert_eq!(canary(&proxy, &["promote"]).await.0, Some(0));
    assert_eq!(client.get("/x", "").await.text(), "next");
}

#[tokio::test]
async fn commands_are_guarded_and_refused_in_words() {
    let setup = Setup::new(NEXT).await;
    let proxy = Proxy::start(&setup.config("[20, 100]", "none")).await;
    let pause = "/api/canaries/chat%2Fv1/pause";
    assert_eq!(post(&proxy, pause, "origin: http://evil.example\r\n").await.0, 403);
    assert_eq!(view(&proxy).await["state"], "running");
    assert_eq!(proxy.admin_get(pause).await.0, 405);
    assert_eq!(post(&proxy, "/api/canaries/chat%2Fv1/explode", "").await.0, 404);
    let (status, said) = post(&proxy, "/api/canaries/nobody/pause", "").await;
    assert_eq!(status, 404);
    assert!(said.contains("chat/v1"), "{said}");
    assert_eq!(post(&proxy, "/api/canaries/%ff/pause", "").await.0, 400);
    assert_eq!(post(&proxy, "/api/canaries/chat%2Fv1/resume", "").await.0, 409);
    assert_eq!(post(&proxy, pause, "").await.0, 200);
}

#[tokio::test]
async fn a_rollout_outlives_reloads_and_restarts_until_its_steps_change() {
    let setup = Setup::new(NEXT).await;
    // So many requests of the canary leave counts that must outlast the step.
    let text = setup.config("[20, 60]", "none").replace("min_requests = 10", "min_requests = 20");
    let mut proxy = Proxy::start(&text).await;
    drive(&proxy, "step").await;

    proxy.write_config(&text.replace("min_requests = 20", "min_requests = 50"));
    proxy.signal("HUP");
    proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    let before = view(&proxy).await;
    assert_eq!((&before["percent"], &before["min_requests"]), (&60.into(), &50.into()));
    assert!(before["facts"][0]["canary"]["of"].as_u64().unwrap() > 0, "the evidence stays: {before}");
    proxy.signal("TERM");
    assert_eq!(proxy.exited().await, Some(0));

    let again = Proxy::start(&text).await;
    let after = view(&again).await;
    assert_eq!((&after["percent"], &after["facts"]), (&60.into(), &before["facts"]));
    assert!(decisions(&again).is_empty(), "nothing was decided: {:?}", decisions(&again));

    again.write_config(&setup.config("[30, 60]", "none"));
    again.signal("HUP");
    let anew = again.line("a new rollout", |line| line["decision"] == "start").await;
    assert_eq!(anew["to_percent"], 30);
    let view = view(&again).await;
    assert_eq!((&view["percent"], &view["facts"][0]["canary"]["of"]), (&30.into(), &0.into()));
}

#[tokio::test]
async fn a_decision_outlives_a_crash_and_a_broken_file_is_set_aside() {
    let setup = Setup::new(BROKEN).await;
    let text = setup.config("[20, 60]", "none");
    let mut proxy = Proxy::start(&text).await;
    drive(&proxy, "roll_back").await;
    let file = setup.state.path().join("canaries.json");
    soon("the decision in the file", async {
        while !std::fs::read_to_string(&file).unwrap_or_default().contains("roll_back") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    proxy.signal("KILL");
    proxy.exited().await;
    let again = Proxy::start(&text).await;
    assert_eq!(view(&again).await["state"], "rolled back");
    drop(again);

    std::fs::write(&file, "{\"version\":1,\"rollouts\":{\"chat/v1\":").unwrap();
    let third = Proxy::start(&text).await;
    third.line("a warning", |line| line["event"] == "canaries.unreadable").await;
    assert_eq!(view(&third).await["percent"], 20);
    assert!(setup.state.path().join("canaries.json.broken").exists());
}

#[tokio::test]
async fn a_user_stays_in_its_cohort() {
    let setup = Setup::new(NEXT).await;
    let proxy = Proxy::start(&setup.config("[50]", "user")).await;
    let mut client = proxy.client().await;
    let mut on_canary = 0;
    for user in 0..40 {
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(client.get("/x", &format!("x-user-id: user-{user}\r\n")).await.text());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "user {user}: {answers:?}");
        on_canary += usize::from(answers[0] == "next");
    }
    assert!((8..=32).contains(&on_canary), "{on_canary} of 40");
}

/// A backend that streams; where it is `broken`, every third answer breaks off before the end. More, and it would count as
/// down, and not be asked.
async fn streaming(broken: bool) -> Upstream {
    let asked = Arc::new(AtomicUsize::new(0));
    Upstream::start(move |mut conn| {
        let asked = Arc::clone(&asked);
        async move {
            while conn.request().await.is_some() {
                conn.event_stream().await;
                conn.chunk("data: {\"token\": \"a\"}\n\n").await;
                if broken && asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                    return;
                }
                conn.chunk("data: {\"token\": \"b\"}\n\n").await;
                conn.chunk("").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn streams_that_break_off_speak_against_a_canary() {
    let (base, next, state) = (streaming(false).await, streaming(true).await, tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&config(base.address, next.address, state.path(), "[30]", "none")).await;
    let mut back = None;
    for _ in 0..REQUESTS_MAX {
        // A broken stream takes its connection along.
        let mut client = proxy.client().await;
        client.get("/api/v1/stream", "").await;
        back = decisions(&proxy).into_iter().find(|line| line["decision"] == "roll_back");
        if back.is_some() {
            break;
        }
    }
    let back = back.expect("a rollback");
    assert_eq!((&back["fact"], &back["to_percent"]), (&"truncated".into(), &0.into()), "{back}");
    let failed = &view(&proxy).await["facts"][0];
    assert_eq!(failed["canary"]["yes"], 0, "an answer that broke off did not fail: {failed}");
}

/// A backend that fails seven of ten requests at once, and takes a moment for the others, as answers do.
async fn failing_most() -> Upstream {
    let asked = Arc::new(AtomicUsize::new(0));
    Upstream::start(move |mut conn| {
        let asked = Arc::clone(&asked);
        async move {
            while conn.request().await.is_some() {
                if asked.fetch_add(1, Ordering::Relaxed) % 10 < 7 {
                    conn.write(BROKEN).await;
                } else {
                    tokio::time::sleep(LATENCY).await;
                    conn.write(NEXT).await;
                }
            }
        }
    })
    .await
}

/// A backend that always answers, after the same moment.
async fn steady() -> Upstream {
    Upstream::start(|mut conn| async move {
        while conn.request().await.is_some() {
            tokio::time::sleep(LATENCY).await;
            conn.write(OK).await;
        }
    })
    .await
}

/// How long a good answer takes.
const LATENCY: Duration = Duration::from_millis(10);

#[tokio::test]
async fn a_canary_that_fails_most_requests_is_held_and_never_promoted() {
    let (base, next, state) = (steady().await, failing_most().await, tempfile::tempdir().unwrap());
    let text = config(base.address, next.address, state.path(), "[50, 100]", "none");
    let proxy = Proxy::start(&text.replace("min_requests = 10", "min_requests = 20")).await;
    let proxy = Arc::new(proxy);
    let decided = |kind: &str| decisions(&proxy).iter().any(|line| line["decision"] == kind);
    let mut asked = 0;
    while !decided("roll_back") {
        // In bursts: the failures of each are known before its successes.
        let burst: Vec<_> = (0..30)
            .map(|_| {
                let proxy = Arc::clone(&proxy);
                tokio::spawn(async move { proxy.client().await.get("/x", "").await })
            })
            .collect();
        for one in burst {
            one.await.unwrap();
        }
        asked += 30;
        assert!(asked <= REQUESTS_MAX, "{:#?}", decisions(&proxy));
    }
    let all = decisions(&proxy);
    let kinds: Vec<&str> = all.iter().map(|line| line["decision"].as_str().unwrap()).collect();
    assert!(matches!(kinds[..], ["start", "roll_back"] | ["start", "hold", "roll_back"]), "{all:#?}");
    for hold in all.iter().filter(|line| line["decision"] == "hold") {
        let words = hold["message"].as_str().unwrap();
        assert!(words.contains("held at 50 %: ") && words.contains(" failed, "), "{words}");
        assert_eq!(hold["fact"], "failed");
    }
    let failed = &view(&proxy).await["facts"][0];
    assert!(failed["step"]["chance"].is_number() && failed["step"]["canary"]["of"].is_number(), "{failed}");
}
