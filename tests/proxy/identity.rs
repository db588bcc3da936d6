//! Who may call, and what becomes of the credentials: keys, tokens and the word of trusted proxies.

use serde_json::json;

use crate::support::{Answer, Proxy, Upstream, config, soon};
use crate::tokens::{self, Issuer};
use crate::versions::{h2_get, h2_on};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const TRUSTING: &str = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";

/// The entry for a key, and the key.
pub fn key(user: &str) -> (String, String) {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"))
        .args(["key", "new", "--user", user, "--team", "search"])
        .output()
        .unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    let key = text.lines().find(|line| line.starts_with("sg-")).unwrap().to_owned();
    (text[text.find("[[identity.key]]").unwrap()..].to_owned(), key)
}

fn bearer(secret: &str) -> String {
    format!("authorization: Bearer {secret}\r\n")
}

/// The refusal has this status, tells so to machines, and says these words.
fn refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(words), "{words:?} is missing in {}", answer.text());
    let challenge = (status == 401).then_some("Bearer");
    assert_eq!(answer.header("www-authenticate"), challenge);
}

#[tokio::test]
async fn a_key_says_who_calls_and_stays_here() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let (entry, key) = key("alice");
    let text = format!("[identity]\nrequired = true\n{entry}\n{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&text).await;
    let mut client = proxy.client().await;
    for (id, header) in
        [("k1", bearer(&key)), ("k2", format!("x-api-key: {key}\r\n")), ("k3", format!("api-key: {key}\r\n"))]
    {
        let more = format!("{header}x-user-id: mallory\r\nx-request-id: {id}\r\n");
        assert_eq!(client.get("/x", &more).await.status, 200, "{id}");
        let request = soon("the request", seen.recv()).await.unwrap();
        assert!(!request.head.contains(&key), "our key is for us alone: {}", request.head);
        assert_eq!(request.all("x-user-id"), ["alice"], "the backend reads whom the key names");
        let record = proxy.record(id).await;
        assert_eq!((&record["user.id"], &record["team"]), (&"alice".into(), &"search".into()));
        let hash = entry.split("sha256:").nth(1).unwrap();
        assert_eq!(record["key"], hash[..12], "the key's public id");
    }
    refused(&client.get("/x", "").await, 401, "Authorization: Bearer");
    refused(&client.get("/x", "x-user-id: alice\r\n").await, 401, "Authorization: Bearer");
    refused(&client.get("/x", &bearer("sk-other")).await, 401, "not taken here");
    refused(&client.get("/x", &bearer(&format!("{key}0"))).await, 401, "not known");
    assert_eq!(upstream.connections(), 1, "no refusal reached the upstream");
    let line = proxy.line("the refusal's record", |line| line["error_type"] == "unauthorized").await;
    assert_eq!(line["outcome"], "rejected");
}

#[tokio::test]
async fn streams_of_one_http2_connection_are_judged_one_by_one() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let (entry, key) = key("alice");
    let text = |keys: &str| format!("[identity]\nrequired = true\n{keys}\n{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&text(&entry)).await;
    let mut send = h2_on(tokio::net::TcpStream::connect(proxy.listen).await.unwrap()).await;
    let known = || {
        let get = http::Request::get("http://app.test/x");
        get.header("authorization", format!("Bearer {key}")).header("x-user-id", "mallory").body(()).unwrap()
    };
    let (answer, _, _) = h2_get(&mut send, known(), None).await.unwrap();
    assert_eq!(answer.status, 200);
    let request = soon("the request", seen.recv()).await.unwrap();
    assert!(request.header("authorization").is_none() && request.all("x-user-id") == ["alice"], "{}", request.head);
    let stranger = http::Request::get("http://app.test/x").body(()).unwrap();
    let (answer, _, _) = h2_get(&mut send, stranger, None).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.headers["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
    proxy.write_config(&text(""));
    proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    let (answer, text, _) = h2_get(&mut send, known(), None).await.unwrap();
    assert_eq!(answer.status, 401, "{text}");
}

#[tokio::test]
async fn refusals_are_in_the_clients_dialect_and_reach_browsers() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let text = format!(
        "[cors]\norigins = [\"https://app.example\"]\n[identity]\nrequired = true\n{}\n{}",
        key("alice").0,
        config(upstream.address, ROUTE)
    );
    let proxy = Proxy::start(&text).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", "{}", "origin: https://app.example\r\n").await;
    let answer = client.answer().await;
    refused(&answer, 401, "Authorization: Bearer");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"]["type"], "authentication_error");
    let mut client = proxy.client().await;
    client.post("/v1/messages", "{}", "anthropic-version: 2023-06-01\r\n").await;
    let body: serde_json::Value = serde_json::from_slice(&client.answer().await.body).unwrap();
    assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &"authentication_error".into()));
    let mut client = proxy.client().await;
    client
        .send("OPTIONS /x HTTP/1.1\r\nhost: a\r\norigin: https://app.example\r\naccess-control-request-method: POST\r\n\r\n")
        .await;
    assert_eq!(client.next_answer(false).await.status, 204, "preflights come before identity");
}

#[tokio::test]
async fn without_cors_rules_the_backend_answers_preflights() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let text = format!("[identity]\nrequired = true\n{}\n{}", key("alice").0, config(upstream.address, ROUTE));
    let proxy = Proxy::start(&text).await;
    let preflight = "OPTIONS /x HTTP/1.1\r\nhost: a\r\norigin: https://a\r\nx-user-id: root\r\naccess-control-request-method: GET\r\n";
    let mut client = proxy.client().await;
    client.send(format!("{preflight}\r\n")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(soon("the preflight", seen.recv()).await.unwrap().header("x-user-id"), None);
    client.send(format!("{preflight}{}\r\n", bearer("sg-guess"))).await;
    refused(&client.answer().await, 401, "not known");
    // No browser's question has a body: what brings one is a request as any other.
    let mut brings = proxy.client().await;
    brings.send(format!("{preflight}content-length: 2\r\n\r\n{{}}")).await;
    assert_eq!(brings.answer().await.status, 401);
    client.send("OPTIONS /x HTTP/1.1\r\nhost: a\r\norigin: https://a\r\n\r\n").await;
    refused(&client.answer().await, 401, "Authorization: Bearer");
}

#[tokio::test]
async fn an_apps_own_credentials_pass_untouched() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let (entry, _) = key("alice");
    for identity in ["".to_owned(), "[identity]\n".to_owned(), format!("[identity]\n{entry}")] {
        let proxy = Proxy::start(&format!("{identity}\n{}", config(upstream.address, ROUTE))).await;
        let token = Issuer::hmac("nobody here knows this secret, the app does").sign(&json!({ "sub": "a", "exp": 1 }));
        for credential in [
            bearer(&token),
            bearer("sk-proj-1"),
            "authorization: Basic YTpi\r\nx-api-key: own\r\ncookie: s=1\r\n".into(),
        ] {
            assert_eq!(proxy.client().await.get("/x?token=abc", &credential).await.status, 200);
            let request = soon("the request", seen.recv()).await.unwrap();
            assert!(request.head.contains(credential.trim_end()), "{}", request.head);
        }
    }
}

#[tokio::test]
async fn a_trusted_proxys_user_is_believed_and_a_strangers_is_not() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let (entry, key) = key("alice");
    let identity = format!("[identity]\nrequired = true\nuser_header = \"x-remote-user\"\n{entry}\n");
    let trusting = Proxy::start(&format!("{TRUSTING}{identity}{}", config(upstream.address, ROUTE))).await;
    let mut client = trusting.client().await;
    assert_eq!(client.get("/x", "x-remote-user: bob\r\nx-request-id: h1\r\n").await.status, 200);
    assert_eq!(soon("the request", seen.recv()).await.unwrap().header("x-remote-user"), Some("bob"));
    assert_eq!(trusting.record("h1").await["user.id"], "bob");
    let both = format!("x-remote-user: bob\r\n{}", bearer(&key));
    assert_eq!(client.get("/x", &both).await.status, 200);
    assert_eq!(
        soon("the request", seen.recv()).await.unwrap().all("x-remote-user"),
        ["alice"],
        "the key's word counts"
    );
    refused(&client.get("/x", "x-user-id: bob\r\n").await, 401, "Authorization: Bearer");
    let twice = "x-remote-user: bob\r\nx-remote-user: root\r\n";
    refused(&client.get("/x", twice).await, 400, "more than once");

    let open = "[identity]\nuser_header = \"x-remote-user\"\n";
    let strict = Proxy::start(&format!("{open}{}", config(upstream.address, ROUTE))).await;
    let answer =
        strict.client().await.get("/x", "x-remote-user: root\r\nx-user-id: root\r\nx-request-id: h2\r\n").await;
    assert_eq!(answer.status, 200);
    let request = soon("the request", seen.recv()).await.unwrap();
    assert_eq!((request.header("x-remote-user"), request.header("x-user-id")), (None, None));
    assert!(strict.record("h2").await["user.id"].is_null());
}

#[tokio::test]
async fn a_key_in_the_query_is_refused_and_kept_nowhere() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let (entry, key) = key("alice");
    let proxy = Proxy::start(&format!("[identity]\n{entry}\n{}", config(upstream.address, ROUTE))).await;
    let answer = proxy.client().await.get(&format!("/x?api_key={key}"), "x-request-id: query\r\n").await;
    refused(&answer, 400, "does not belong in a URL");
    assert!(!answer.text().contains(&key));
    proxy.record("query").await;
    assert!(!format!("{:?}", proxy.lines()).contains(&key[3..]));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_revoked_key_is_refused_from_the_next_request_on() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let ((alices, alice), (bobs, bob)) = (key("alice"), key("bob"));
    let text = |keys: &str| format!("[identity]\nrequired = true\n{keys}\n{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&text(&format!("{alices}\n{bobs}"))).await;
    let mut kept_alive = proxy.client().await;
    assert_eq!(kept_alive.get("/x", &bearer(&alice)).await.status, 200);
    for (generation, keys) in [(2, bobs.as_str()), (3, "")] {
        proxy.write_config(&text(keys));
        proxy.line("the reload", |line| line["event"] == "config.reloaded" && line["generation"] == generation).await;
        refused(&kept_alive.get("/x", &bearer(&alice)).await, 401, "not any more");
        let expected = if generation == 2 { 200 } else { 401 };
        assert_eq!(kept_alive.get("/x", &bearer(&bob)).await.status, expected, "generation {generation}");
    }
}

#[tokio::test]
async fn websockets_are_asked_before_their_upgrade() {
    let (upstream, mut seen) =
        Upstream::recording("HTTP/1.1 403 Forbidden\r\ncontent-length: 12\r\n\r\nthe backends").await;
    let (entry, key) = key("alice");
    let proxy =
        Proxy::start(&format!("[identity]\nrequired = true\n{entry}\n{}", config(upstream.address, ROUTE))).await;
    let handshake = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut stranger = proxy.client().await;
    stranger.send(format!("{handshake}\r\n")).await;
    refused(&stranger.answer().await, 401, "Authorization: Bearer");
    assert_eq!(upstream.connections(), 0);
    let mut known = proxy.client().await;
    known.send(format!("{handshake}{}\r\n", bearer(&key))).await;
    assert_eq!(known.answer().await.text(), "the backends");
    let request = soon("the handshake", seen.recv()).await.unwrap();
    assert_eq!(request.header("upgrade"), Some("websocket"));
    assert!(!request.head.contains(&key) && request.header("x-user-id") == Some("alice"), "{}", request.head);
}

#[tokio::test]
async fn no_secret_shows_anywhere() {
    const UPSTREAMS: &str = "sk-upstream-canary-7d1f";
    const JWTS: &str = "jwt-canary-0123456789-0123456789-0123456789";
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let (entry, key) = key("alice");
    let (collector, mut exported) =
        Upstream::recording("HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
            .await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1.0\n[identity]\nrequired = true\n[identity.jwt]\nsecret_env = \"JWT_SECRET\"\n{entry}\n[[upstream]]\nname = \"fake\"\n\
         url = \"http://{}\"\napi_key_env = \"UPSTREAM_KEY\"\n{ROUTE}",
        collector.address, upstream.address
    );
    let environment = [("UPSTREAM_KEY", UPSTREAMS), ("JWT_SECRET", JWTS), ("RUST_LOG", "trace")];
    let mut proxy = Proxy::start_with(&text, &environment).await;
    let token = Issuer::hmac(JWTS).sign(&json!({ "sub": "alice", "exp": tokens::now() + 600 }));
    let credentials = [
        bearer(&key),
        bearer(&token),
        format!("x-api-key: {key}\r\n{}cookie: session={token}\r\n", bearer("app-canary")),
        format!("x-goog-api-key: {key}\r\n"),
    ];
    for credential in &credentials {
        let answer = proxy.client().await.get("/x", credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!answer.head.contains(UPSTREAMS));
        let head = soon("the request", seen.recv()).await.unwrap().head;
        assert!(head.contains(&format!("Bearer {UPSTREAMS}")), "{head}");
        for secret in [&key, &token, "app-canary", "alice"] {
            assert!(!head.contains(secret), "no client's credential goes to a hosted API: {head}");
        }
    }
    let wrong =
        [bearer(&format!("{token}x")), bearer(&format!("{key}x")), format!("{}{}", bearer(&key), bearer(&token))];
    for (number, credential) in wrong.iter().enumerate() {
        let answer = proxy.client().await.get("/x", &format!("{credential}x-request-id: w{number}\r\n")).await;
        assert!([400, 401].contains(&answer.status));
        assert!(!answer.text().contains(&key[3..]) && !answer.text().contains(&token[..20]));
        proxy.record(&format!("w{number}")).await;
    }
    let mut shown = String::new();
    for path in ["/api/config", "/api/streams", "/metrics", "/api/upstreams"] {
        shown += &proxy.admin_get(path).await.1;
    }
    assert!(shown.contains("x-user-id") && shown.contains("streamgauge_"), "there was something to look at");
    assert!(!proxy.admin_get("/metrics").await.1.contains("alice"), "users are no metric's label");
    proxy.signal("TERM");
    proxy.exited().await;
    let mut spans = String::new();
    while let Ok(export) = exported.try_recv() {
        spans += &String::from_utf8_lossy(&export.body);
    }
    assert!(spans.contains("user.id") && spans.contains("alice"), "the spans came");
    shown += &format!("{spans}{:?}", proxy.lines());
    for secret in [&key[3..], UPSTREAMS, JWTS, token.rsplit('.').next().unwrap(), "app-canary"] {
        assert!(!shown.contains(secret), "{secret} shows");
    }
}

#[tokio::test]
async fn a_front_end_that_nobody_listed_is_named() {
    let upstream = Upstream::fixed(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    for user in ["alice", "bob", "carol"] {
        proxy.client().await.get("/", &format!("x-user-id: {user}\r\n")).await;
    }
    let line = proxy.line("the hint", |line| line["event"] == "identity.users_ignored").await;
    assert_eq!(line["peer"], "127.0.0.1");
    let (_, streams) = proxy.admin_get("/api/streams").await;
    assert!(streams.contains("\"kind\":\"ignored_users\"") && streams.contains("trusted_proxies"), "{streams}");
}
