//! What people take out of service by hand: endpoints, upstreams, targets and keys; and that it stays so over a reload, a
//! restart and a hand-over to a new process.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::identity::key;
use crate::support::backend::{Act, Backend, refusing, table, token};
use crate::support::{Client, Proxy, Upstream, config, soon};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const ALL: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

/// One upstream at several addresses.
fn pool(backends: &[&Backend], more: &str) -> String {
    let urls: Vec<String> = backends.iter().map(|backend| format!("\"http://{}\"", backend.address())).collect();
    format!("[[upstream]]\nname = \"pool\"\nurls = [{}]\n{more}\n", urls.join(", "))
}

fn state_dir(directory: &Path) -> String {
    format!("[server]\nstate_dir = \"{}\"\n", directory.display())
}

async fn chat(client: &mut Client) -> String {
    client.post("/v1/chat/completions", CHAT, "").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

async fn pull(proxy: &Proxy, query: &str) -> Value {
    let (status, body) = proxy.admin_post(&format!("/api/levers/{query}")).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn refusal(proxy: &Proxy, query: &str) -> (u16, String) {
    let (status, body) = proxy.admin_post(&format!("/api/levers/{query}")).await;
    (status, serde_json::from_str::<Value>(&body).unwrap()["error"].as_str().unwrap().to_owned())
}

async fn levers(proxy: &Proxy) -> Value {
    let (status, body) = proxy.admin_get("/api/levers").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// What `/api/upstreams` says of the endpoint.
async fn endpoint(proxy: &Proxy, address: impl ToString) -> Value {
    let (_, text) = proxy.admin_get("/api/upstreams").await;
    let told: Value = serde_json::from_str(&text).unwrap();
    let upstreams = told["upstreams"].as_array().unwrap().clone();
    let mut endpoints = upstreams.iter().flat_map(|upstream| upstream["endpoints"].as_array().unwrap().clone());
    endpoints.find(|endpoint| endpoint["endpoint"] == address.to_string()).unwrap()
}

/// The command line, as typed.
async fn typed(proxy: &Proxy, args: &[&str]) -> (Option<i32>, String) {
    let admin = format!("http://{}", proxy.admin);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(args).args(["--admin", &admin]).stdin(Stdio::null());
    let out = soon("the command's end", command.output()).await.unwrap();
    (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[tokio::test]
async fn a_drained_endpoint_gets_nothing_new_and_its_stream_goes_on() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Act::Held(token("a"), Arc::clone(&gate));
    let (a, b) = (Backend::start("a", vec![held.clone()]).await, Backend::start("b", vec![Act::Stream]).await);
    let proxy = Proxy::start(&pool(&[&a, &b], "")).await;
    let mut running = Vec::new();
    while a.log.count() == 0 {
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, "").await;
        client.until("content").await;
        running.push(client);
    }
    let mut running = running.pop().unwrap();
    let told = pull(&proxy, &format!("drain?what=pool/{}&reason=slow+since+three", a.address())).await;
    assert_eq!((&told["in_flight"], &told["others"][0]), (&1.into(), &b.address().to_string().into()), "{told}");
    assert_eq!(told["routes"][0]["served_by"][0], "pool", "{told}");
    let line = proxy.line("the event", |line| line["event"] == "lever.drained").await;
    assert_eq!(
        (&line["by"], &line["reason"]),
        (&"127.0.0.1, without a token".into(), &"slow since three".into()),
        "{line}"
    );
    assert_eq!((&line["lever"], &line["what"]), (&"endpoint".into(), &format!("pool/{}", a.address()).into()));

    let mut client = proxy.client().await;
    for _ in 0..30 {
        assert!(chat(&mut client).await.contains(&token("b")));
    }
    assert_eq!(a.log.count(), 1);
    let at = endpoint(&proxy, a.address()).await;
    assert_eq!(
        (&at["state"], &at["health"], &at["up"], &at["in_flight"]),
        (&"drained".into(), &"up".into(), &true.into(), &1.into()),
        "{at}"
    );
    assert_eq!(
        (&at["lever"]["setting"], &at["lever"]["reason"]),
        (&"drained".into(), &"slow since three".into()),
        "{at}"
    );
    let (_, metrics) = proxy.admin_get("/metrics").await;
    for series in [
        format!("streamgauge_endpoint_in_service{{upstream=\"pool\",endpoint=\"{}\"}} 0\n", a.address()),
        format!("streamgauge_endpoint_in_service{{upstream=\"pool\",endpoint=\"{}\"}} 1\n", b.address()),
        format!("streamgauge_endpoint_up{{upstream=\"pool\",endpoint=\"{}\"}} 1\n", a.address()),
        "streamgauge_levers_set{lever=\"endpoint\"} 1\n".to_owned(),
    ] {
        assert!(metrics.contains(&series), "{series} in\n{metrics}");
    }
    gate.add_permits(100);
    running.until("[DONE]").await;

    let (code, said) = typed(&proxy, &["drain"]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains(&format!("endpoint `{}` of upstream `pool` is drained since 2", a.address())), "{said}");
    let (code, said) = typed(&proxy, &["enable", &format!("pool/{}", a.address())]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("in service again"), "{said}");
    for _ in 0.. {
        if chat(&mut client).await.contains(&token("a")) {
            break;
        }
    }
    assert_eq!(levers(&proxy).await["levers"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn kept_connections_to_a_drained_endpoint_are_closed() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ALL)).await;
    let mut client = proxy.client().await;
    client.send("GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut conn = soon("the connection", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.write(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
    pull(&proxy, "drain?what=fake").await;
    soon("the connection's end", conn.closed()).await;
}

#[tokio::test]
async fn the_last_one_may_go_and_clients_are_told_in_their_dialect() {
    let a = Backend::start("a", vec![Act::Stream]).await;
    let proxy =
        Proxy::start(&format!("{}[[route]]\nname = \"chat\"\ntargets = [{{ upstream = \"a\" }}]\n", a.table(""))).await;
    let (code, said) = typed(&proxy, &["disable", "a", "--reason", "it writes nonsense"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("NOBODY serves route `chat` now") && said.contains("streamgauge enable a"), "{said}");
    let line = proxy.line("the event", |line| line["event"] == "lever.nobody_serves").await;
    assert_eq!((&line["level"], &line["route"]), (&"error".into(), &"chat".into()));
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "x-request-id: r1\r\n").await;
    let answer = client.answer().await;
    let error = serde_json::from_str::<Value>(&answer.text()).unwrap()["error"].clone();
    assert_eq!((answer.status, &error["code"]), (503, &"out_of_service".into()), "{}", answer.text());
    assert!(error["message"].as_str().unwrap().contains("`a` is disabled"), "{error}");
    assert!(!answer.text().contains("nonsense"), "the reason is the operators'");
    assert!(answer.header("retry-after").is_some());
    client.post("/v1/messages", CHAT, "").await;
    assert_eq!(serde_json::from_str::<Value>(&client.answer().await.text()).unwrap()["type"], "error");
    let record = proxy.record("r1").await;
    assert_eq!((&record["outcome"], &record["error_type"]), (&"rejected".into(), &"out_of_service".into()), "{record}");
    let websocket = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(proxy.client().await.get("/ws", websocket).await.status, 503);
    assert_eq!(a.log.count(), 0, "nobody asked it");
    assert_eq!(proxy.admin_get("/readyz").await.0, 503);
    assert_eq!(levers(&proxy).await["unserved_routes"][0], "chat");
    pull(&proxy, "enable?what=a").await;
    assert!(chat(&mut client).await.contains(&token("a")));
}

#[tokio::test]
async fn a_fallback_serves_while_a_target_is_out() {
    let (a, b) = (Backend::start("a", vec![Act::Stream]).await, Backend::start("b", vec![Act::Stream]).await);
    let routes = "[[route]]\nname = \"chat\"\npath = \"/v1/*\"\ntargets = [{ name = \"main\", upstream = \"a\" }]\n\
                  fallback = [{ upstream = \"b\" }]\n[[route]]\nname = \"rest\"\ntargets = [{ upstream = \"a\" }]\n";
    let proxy = Proxy::start(&format!("{}{}{routes}", a.table(""), b.table(""))).await;
    let (code, said) = typed(&proxy, &["drain", "main", "--route", "chat"]).await;
    assert_eq!((code, said.contains("Route `chat` is served by b.")), (Some(0), true), "{said}");
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert!(chat(&mut client).await.contains(&token("b")));
    }
    assert_eq!(client.get("/other", "").await.status, 200);
    assert_eq!(a.log.count(), 1, "the other route's target is in service");
    pull(&proxy, "enable?what=main&route=chat").await;
    assert!(chat(&mut client).await.contains(&token("a")));
}

#[tokio::test]
async fn names_that_are_not_there_are_told_with_those_that_are() {
    let upstream = Upstream::fixed(OK).await;
    let (entry, secret) = key("alice");
    let proxy = Proxy::start(&format!("[identity]\n{entry}\n{}", config(upstream.address, ALL))).await;
    let address = upstream.address;
    for (query, status, words) in [
        ("drain?what=fka", 404, "upstreams: fake"),
        ("drain?what=fake/10.0.0.1:1", 404, &*format!("its endpoints: {address}")),
        ("disable?what=fake&route=none", 404, "routes: all"),
        ("disable?what=x&route=all", 404, "it has: fake"),
        ("revoke?what=bob", 404, "alice"),
        ("enable?what=fake", 409, "nobody took it out by hand"),
        ("restore?what=alice", 409, "not revoked by hand"),
        ("drain", 400, "?what="),
        ("drain?what=fake&reason=a%0Ab", 400, "control characters"),
        (&*format!("revoke?what={secret}"), 400, "not repeated"),
    ] {
        let (told, error) = refusal(&proxy, query).await;
        assert_eq!(told, status, "{query}: {error}");
        assert!(error.contains(words) && !error.contains(&secret), "{query}: {error}");
    }
    let (code, said) = typed(&proxy, &["drain", "fka"]).await;
    assert_eq!((code, said.contains("upstreams: fake")), (Some(1), true), "{said}");
    pull(&proxy, "drain?what=fake").await;
    assert_eq!(refusal(&proxy, "drain?what=fake").await.0, 409, "already");
    let (_, error) = refusal(&proxy, &format!("enable?what=fake/{address}")).await;
    assert!(error.contains("streamgauge enable fake"), "{error}");
}

#[tokio::test]
async fn other_pages_and_other_methods_pull_no_lever() {
    let upstream = Upstream::fixed(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ALL)).await;
    assert_eq!(proxy.admin_get("/api/levers/drain?what=fake").await.0, 405);
    for (host, more) in [
        ("evil.test", ""),
        ("localhost", "origin: http://evil.test\r\n"),
        ("localhost", "sec-fetch-site: cross-site\r\n"),
    ] {
        let mut client = Client::connect(proxy.admin).await;
        client
            .send(format!(
                "POST /api/levers/drain?what=fake HTTP/1.1\r\nhost: {host}\r\n{more}content-length: 0\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.status, 403, "{host} {more}");
    }
    assert_eq!(levers(&proxy).await["levers"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_lever_holds_over_reloads_and_a_restart() {
    let (a, b) = (Backend::start("a", vec![Act::Stream]).await, Backend::start("b", vec![Act::Stream]).await);
    let state = tempfile::tempdir().unwrap();
    let text = |more: &str| format!("{}{}", state_dir(state.path()), pool(&[&a, &b], more));
    let mut proxy = Proxy::start(&text("")).await;
    pull(&proxy, &format!("drain?what=pool/{}&reason=slow", a.address())).await;
    // Another pool is made for it: the endpoints are asked in another way.
    for (generation, more) in [(2, "protocol = \"http1\""), (3, "protocol = \"http1\"\nhost = \"own\"")] {
        proxy.write_config(&text(more));
        let (status, body) = proxy.admin_post("/api/reload").await;
        // The watch of the file may have been first.
        let installed = body.contains(&format!("\"generation\":{generation},"));
        assert_eq!((status, installed), (200, true), "{body}");
        let mut client = proxy.client().await;
        for _ in 0..10 {
            assert!(chat(&mut client).await.contains(&token("b")));
        }
    }
    let file = state.path().join("levers.json");
    proxy.signal("TERM");
    proxy.exited().await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let mut proxy = Proxy::start(&text("")).await;
    let line = proxy.line("the lever's line", |line| line["event"] == "lever.kept").await;
    assert_eq!((&line["setting"], &line["reason"]), (&"drained".into(), &"slow".into()), "{line}");
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert!(chat(&mut client).await.contains(&token("b")));
    }
    assert_eq!(a.log.count(), 0);
    pull(&proxy, "enable?what=pool").await;
    proxy.signal("TERM");
    proxy.exited().await;
    let proxy = Proxy::start(&text("")).await;
    assert_eq!(levers(&proxy).await["levers"].as_array().unwrap().len(), 0, "what was put back stays so");

    drop(proxy);
    std::fs::write(&file, "{\"version\":1,\"levers\":[{}]}").unwrap();
    let proxy = Proxy::start(&text("")).await;
    let line = proxy.line("the complaint", |line| line["event"] == "levers.unreadable").await;
    assert_eq!((&line["level"], &line["set_aside"]), (&"error".into(), &true.into()), "{line}");
}

#[tokio::test]
async fn a_crash_forgets_no_lever() {
    let upstream = Upstream::fixed(OK).await;
    let state = tempfile::tempdir().unwrap();
    let text = format!("{}{}", state_dir(state.path()), config(upstream.address, ALL));
    let mut proxy = Proxy::start(&text).await;
    pull(&proxy, "disable?what=fake").await;
    let file = state.path().join("levers.json");
    soon("the file", async {
        while !file.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    proxy.signal("KILL");
    proxy.exited().await;
    let proxy = Proxy::start(&text).await;
    assert_eq!(proxy.client().await.get("/x", "").await.status, 503);
}

#[tokio::test]
async fn a_lever_goes_to_the_process_that_takes_over() {
    let upstream = Upstream::fixed(OK).await;
    let state = tempfile::tempdir().unwrap();
    let text = format!("{}{}", state_dir(state.path()), config(upstream.address, ALL));
    let mut old = Proxy::start(&text).await;
    pull(&old, "drain?what=fake&reason=before").await;
    let new = Proxy::taking_over(&old, &text, state.path()).await;
    // From here on the old process takes no lever, and the new one has what was set.
    let told = levers(&new).await;
    assert_eq!(told["levers"][0]["reason"], "before", "{told}");
    assert_eq!(new.client().await.get("/x", "").await.status, 503);
    old.exited().await;
    pull(&new, "enable?what=fake").await;
    assert_eq!(new.client().await.get("/x", "").await.status, 200);
    assert_eq!(levers(&new).await["levers"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_revoked_key_lets_nobody_in_until_it_is_restored() {
    let upstream = Upstream::fixed(OK).await;
    let ((alices, secret), (bobs, other)) = (key("alice"), key("bob"));
    let text = format!("[identity]\nrequired = true\n{alices}\n{bobs}\n{}", config(upstream.address, ALL));
    let proxy = Proxy::start(&text).await;
    let bearer = |secret: &str| format!("authorization: Bearer {secret}\r\n");
    let mut client = proxy.client().await;
    assert_eq!(client.get("/x", &bearer(&secret)).await.status, 200);
    let (code, said) = typed(&proxy, &["key", "revoke", "alice", "--reason", "it leaked"]).await;
    assert_eq!(code, Some(0), "{said}");
    let id = &alices.split("sha256:").nth(1).unwrap()[..12];
    assert!(said.contains(id) && said.contains(&format!("streamgauge key restore {id}")), "{said}");
    let answer = client.get("/x", &bearer(&secret)).await;
    assert_eq!(
        (answer.status, answer.text().contains("revoked")),
        (401, true),
        "on an open connection too: {}",
        answer.text()
    );
    assert_eq!(client.get("/x", &bearer(&other)).await.status, 200, "another's key");
    proxy.write_config(&format!("{text}\n[telemetry]\nslow_gap = \"3s\"\n"));
    assert_eq!(proxy.admin_post("/api/reload").await.0, 200);
    assert_eq!(proxy.client().await.get("/x", &bearer(&secret)).await.status, 401, "over a reload");
    let told = levers(&proxy).await;
    assert_eq!((&told["levers"][0]["lever"], &told["levers"][0]["key"]), (&"key".into(), &id.into()), "{told}");
    assert_eq!(typed(&proxy, &["key", "restore", id]).await.0, Some(0));
    assert_eq!(proxy.client().await.get("/x", &bearer(&secret)).await.status, 200);
    // A key that leaked is at hand itself: its hash is taken here, and it is sent to nobody.
    let (code, said) = typed(&proxy, &["key", "revoke", &secret]).await;
    assert_eq!((code, said.contains(id), said.contains(&secret)), (Some(0), true, false), "{said}");
    let logged = serde_json::to_string(&*proxy.lines()).unwrap();
    assert!(!logged.contains(&secret) && logged.contains("lever.revoked"));
}

#[tokio::test]
async fn health_checks_go_on_while_drained_and_not_while_disabled() {
    let (a, b) = (Backend::start("a", vec![Act::Json]).await, Backend::start("b", vec![Act::Json]).await);
    let proxy = Proxy::start(&pool(&[&a, &b], "health = { path = \"/\", interval = \"20ms\" }")).await;
    let more = async |backend: &Backend, count: usize| {
        let until = backend.log.count() + count;
        soon("health checks", async {
            while backend.log.count() < until {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    pull(&proxy, &format!("drain?what=pool/{}", a.address())).await;
    more(&a, 3).await;
    pull(&proxy, &format!("disable?what=pool/{}", a.address())).await;
    // One may be on its way.
    more(&b, 2).await;
    let asked = a.log.count();
    more(&b, 5).await;
    assert_eq!(a.log.count(), asked);
    pull(&proxy, "enable?what=pool").await;
    more(&a, 2).await;
}

#[tokio::test]
async fn what_fails_while_it_is_drained_takes_nobody_out() {
    let (dead, well) = (refusing().await, Backend::start("well", vec![Act::Json]).await);
    let text = format!(
        "[[upstream]]\nname = \"pool\"\nurls = [\"http://{dead}\", \"http://{}\"]\nhealth = {{ path = \"/\", interval = \"20ms\" }}\n",
        well.address()
    );
    let proxy = Proxy::start(&text).await;
    pull(&proxy, &format!("drain?what=pool/{dead}")).await;
    soon("a failed check", async {
        while endpoint(&proxy, dead).await["health"] == "up" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let at = endpoint(&proxy, dead).await;
    assert_eq!((&at["state"], at["health"] != "ejected"), (&"drained".into(), true), "{at}");
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let series = format!("streamgauge_endpoint_ejections_total{{upstream=\"pool\",endpoint=\"{dead}\"}} 0\n");
    assert!(metrics.contains(&series), "{metrics}");
    pull(&proxy, "enable?what=pool").await;
}

#[tokio::test]
async fn a_drained_canary_holds_its_rollout_and_its_users_move_on() {
    let (base, next) = (Upstream::fixed(OK).await, Upstream::fixed(OK.replace("ok", "nx")).await);
    let state = tempfile::tempdir().unwrap();
    let text = format!(
        "{}{}{}[[route]]\nname = \"chat\"\ntargets = [{{ upstream = \"base\" }}, {{ upstream = \"next\" }}]\nsticky = \"none\"\n\
         canary = {{ target = \"next\", steps = [40, 100], step_time = \"0s\", min_requests = 30 }}\n",
        state_dir(state.path()),
        table("base", base.address, ""),
        table("next", next.address, "")
    );
    let proxy = Proxy::start(&text).await;
    let view = async || {
        let (_, body) = proxy.admin_get("/api/canaries").await;
        serde_json::from_str::<Value>(&body).unwrap()["canaries"][0].clone()
    };
    pull(&proxy, "drain?what=next&route=chat").await;
    let mut client = proxy.client().await;
    for _ in 0..300 {
        assert_eq!(client.get("/x", "").await.text(), "ok");
    }
    let told = view().await;
    assert_eq!(
        (&told["state"], &told["percent"], &told["step_requests"]),
        (&"running".into(), &40.into(), &0.into()),
        "{told}"
    );
    let words = told["on_hold"].as_str().unwrap();
    assert!(words.contains("its target `next` is drained by hand"), "{told}");
    assert!(told["next"].as_str().unwrap().contains("its target `next` is drained by hand"), "{told}");
    let (_, said) = typed(&proxy, &["canary", "list"]).await;
    assert!(said.contains("is drained by hand"), "{said}");
    pull(&proxy, "enable?what=next&route=chat").await;
    assert!(view().await["on_hold"].is_null());
    let is_promoted = |line: &Value| line["event"] == "canary.decision" && line["decision"] == "promote";
    for sent in 0.. {
        assert!(sent < 2_000, "no promotion: {}", view().await);
        client.get("/x", "").await;
        if proxy.lines().iter().any(is_promoted) {
            break;
        }
    }
    assert!(!proxy.lines().iter().any(|line| line["decision"] == "roll_back" || line["decision"] == "hold"));
}

#[tokio::test]
async fn explain_tells_what_is_out_of_service_by_hand() {
    let upstream = Upstream::fixed(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ALL)).await;
    let file = proxy.directory.path().join("streamgauge.toml");
    let explain = ["explain", "--config", file.to_str().unwrap(), "--path", "/x"];
    let (_, before) = typed(&proxy, &explain).await;
    pull(&proxy, "drain?what=fake&reason=slow").await;
    let (code, after) = typed(&proxy, &explain).await;
    assert_eq!(code, Some(0), "{after}");
    assert!(!before.contains("by hand"), "{before}");
    assert!(
        after.contains("upstream `fake` is drained since 2") && after.contains("NOBODY serves this route"),
        "{after}"
    );
}
