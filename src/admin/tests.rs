//! The admin address over real connections.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::ServerApp;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{GetSocketDigest as _, SocketDigest};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::control::{Reload, ReloadRequest, ReloadStatus};
use super::{AdminApp, Control};
use crate::config;
use crate::config::secret::Secret;
use crate::proxy::Shared;
use crate::telemetry::event::Event;
use crate::telemetry::live::feed::VIEWERS_MAX;

const CANARY: &str = "canary-5f2a";

/// An admin address that serves until the test ends.
struct Admin {
    address: SocketAddr,
    shared: Arc<Shared>,
    reloads: mpsc::Receiver<ReloadRequest>,
    /// True: the process exits.
    stop: watch::Sender<bool>,
}

impl Admin {
    async fn start(local: bool) -> Self {
        let mut settings = config::for_upstream("http://127.0.0.1:8000").unwrap();
        settings.server.admin_token = Some(Secret::new(CANARY.to_owned()));
        settings.telemetry.otlp_endpoint = Some(format!("http://user:{CANARY}@127.0.0.1:4318/?key={CANARY}"));
        if let Some(upstream) = settings.upstreams.first_mut() {
            Arc::make_mut(upstream).api_key = Some(Secret::new(CANARY.to_owned()));
        }
        let shared = Shared::new(settings, crate::telemetry::Telemetry::for_tests());
        let (sender, reloads) = mpsc::channel(1);
        let control = Control { reloads: sender, status: Arc::new(ArcSwap::from_pointee(ReloadStatus::default())) };
        let app = Arc::new(AdminApp::new(Arc::clone(&shared), control, local));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, shutdown) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
                let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
                let mut stream = Stream::from(stream);
                stream.set_socket_digest(digest);
                tokio::spawn(async move { app.process_new(Box::new(stream), &shutdown).await });
            }
        });
        Self { address, shared, reloads, stop }
    }

    /// Sends a whole request and returns status, head and body.
    async fn ask(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream, request.starts_with("HEAD")).await
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await
    }
}

async fn read_answer(stream: &mut TcpStream, head_only: bool) -> (u16, String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; if head_only { 0 } else { length }];
    stream.read_exact(&mut body).await.unwrap();
    (status, head, String::from_utf8(body).unwrap())
}

const JSON_PAGES: [&str; 7] =
    ["/healthz", "/readyz", "/api/streams", "/api/history", "/api/upstreams", "/api/canaries", "/api/config"];

#[tokio::test]
async fn who_reads_no_html_gets_a_list_of_what_there_is() {
    let admin = Admin::start(true).await;
    let asks = |accept: &str| format!("GET / HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n");
    let (status, head, list) = admin.ask(&asks("*/*")).await;
    assert_eq!((status, head.contains("content-type: text/plain")), (200, true), "{head}");
    let paths: Vec<&str> =
        list.lines().filter_map(|line| line.split(' ').next()).filter(|path| path.starts_with('/')).collect();
    assert!(paths.len() > 10, "{list}");
    for path in JSON_PAGES.iter().chain(&["/metrics"]) {
        assert!(paths.contains(path), "{path} in {list}");
    }
    for path in paths.into_iter().filter(|path| *path != "/api/streams/events" && *path != "/readyz") {
        assert_eq!(admin.get(path).await.0, 200, "{path}");
    }
    let (_, head, _) = admin.ask(&asks("text/html,application/xhtml+xml,*/*;q=0.8")).await;
    assert!(head.contains("content-type: text/html"), "{head}");
    let guarded = Admin::start(false).await;
    let (status, head, body) = guarded.ask(&asks("*/*")).await;
    assert_eq!((status, head.contains("application/json")), (401, true), "no form for curl: {head}\n{body}");
}

#[tokio::test]
async fn each_page_is_there_and_guarded_against_embedding() {
    let admin = Admin::start(true).await;
    let mut pages = vec![("/", "text/html"), ("/live.js", "text/javascript"), ("/live.css", "text/css")];
    pages.push(("/metrics", "text/plain"));
    pages.extend(JSON_PAGES.map(|path| (path, "application/json")));
    for (path, content_type) in pages {
        let (status, head, body) = admin.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert!(head.contains(&format!("content-type: {content_type}")), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        assert!(!body.is_empty(), "{path}");
        if content_type == "application/json" {
            serde_json::from_str::<Value>(&body).unwrap();
        }
    }
}

#[tokio::test]
async fn no_page_tells_a_secret() {
    let admin = Admin::start(true).await;
    for path in JSON_PAGES.iter().chain(&["/", "/metrics"]) {
        let (_, _, body) = admin.get(&format!("{path}?key={CANARY}")).await;
        assert!(!body.contains(CANARY), "{path}: {body}");
    }
    let (_, _, body) = admin.get("/api/config").await;
    let config: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(config["settings"]["server"]["admin_token"], "***");
    assert_eq!(config["settings"]["upstream"][0]["api_key"], "***");
    assert_eq!(config["settings"]["telemetry"]["otlp_endpoint"], "http://127.0.0.1:4318/");
    assert_eq!(config["settings"]["telemetry"]["signals"], serde_json::json!(["traces"]));
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told() {
    let admin = Admin::start(true).await;
    let (status, _, body) = admin.get("/api/nothing").await;
    assert_eq!((status, body.contains("error")), (404, true));
    let (status, head, _) = admin.get("/api/reload").await;
    assert_eq!((status, head.contains("allow: post\r\n")), (405, true));
    let (status, head, _) = admin.ask("DELETE /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!((status, head.contains("allow: get, head\r\n")), (405, true));
    let (status, _, _) = admin.ask("GET /healthz HTTP/1.1\r\nbroken header\r\n\r\n").await;
    assert_eq!(status, 400);
    let body = "x".repeat(100_000);
    let request = format!("POST /api/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n{body}");
    assert_eq!(admin.ask(&request).await.0, 413);
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_head_has_no_body() {
    let admin = Admin::start(true).await;
    let mut stream = TcpStream::connect(admin.address).await.unwrap();
    for method in ["HEAD", "GET", "HEAD", "GET"] {
        stream.write_all(format!("{method} /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let (status, head, body) = read_answer(&mut stream, method == "HEAD").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-length: 16"), "{head}");
        assert_eq!(body.is_empty(), method == "HEAD");
    }
}

#[tokio::test]
async fn a_draining_server_is_healthy_but_not_ready() {
    let admin = Admin::start(true).await;
    assert_eq!(admin.get("/readyz").await.0, 200);
    admin.shared.drain.begin();
    let (status, _, body) = admin.get("/readyz").await;
    assert_eq!((status, body.contains("draining")), (503, true));
    assert_eq!(admin.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn off_loopback_only_monitoring_needs_no_token() {
    let admin = Admin::start(false).await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(admin.get(path).await.0, 200, "{path}");
    }
    for path in ["/", "/api/streams", "/api/upstreams", "/api/config"] {
        let (status, head, _) = admin.get(path).await;
        assert_eq!((status, head.contains("www-authenticate: bearer")), (401, true), "{path}");
        let asked = format!("GET {path} HTTP/1.1\r\nhost: gauge.example\r\nauthorization: Bearer {CANARY}\r\n\r\n");
        assert_eq!(admin.ask(&asked).await.0, 200, "{path}");
    }
    assert_eq!(admin.ask("POST /api/reload HTTP/1.1\r\nhost: gauge.example\r\n\r\n").await.0, 401);
}

/// The next events of a feed, each with its name and data.
async fn events(stream: &mut tokio::io::BufReader<TcpStream>, most: usize) -> Vec<(String, Value)> {
    let (mut events, mut name) = (Vec::new(), String::new());
    while events.len() < most {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap() == 0 {
            break;
        }
        if let Some(word) = line.strip_prefix("event: ") {
            name = word.trim().to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            events.push((std::mem::take(&mut name), serde_json::from_str(data).unwrap()));
        }
    }
    events
}

impl Admin {
    /// A feed over HTTP/1.0, which has no chunks, with these headers more.
    async fn feed(&self, headers: &str) -> tokio::io::BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET /api/streams/events HTTP/1.0\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::io::BufReader::new(stream)
    }
}

#[tokio::test]
async fn the_feed_tells_what_runs_and_what_ended() {
    let admin = Admin::start(true).await;
    let live = Arc::clone(admin.shared.telemetry.live());
    let stream = live.enter(&"POST".into(), &"/v1/chat".into());
    stream.apply(&Event::Routed { route: &"chat".into(), target: None });
    let mut feed = admin.feed("").await;
    let told = events(&mut feed, 3).await;
    assert_eq!(told.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["hello", "overview", "streams"]);
    assert_eq!(told[1].1["proxy"]["upstreams"][0]["endpoints"][0]["up"], true);
    assert_eq!(told[2].1["facts"][0]["route"], "chat");
    stream.progress(1, 10, Some(Duration::from_millis(40)));
    loop {
        let (name, data) = events(&mut feed, 1).await.remove(0);
        if name == "streams" && data["rows"][0]["ticks"][0] == 40 {
            break;
        }
    }
    drop(stream);
    loop {
        let (name, data) = events(&mut feed, 1).await.remove(0);
        if name == "streams" && data["running"] == 0 {
            assert_eq!(data["gone"][0], 0);
            break;
        }
    }
    admin.stop.send_replace(true);
    let rest = events(&mut feed, 100).await;
    assert_eq!(rest.last().unwrap().0, "end", "it ends with the process, in order");
}

#[tokio::test]
async fn viewers_are_bounded_and_free_their_place() {
    let admin = Admin::start(true).await;
    let mut feeds = Vec::new();
    for _ in 0..VIEWERS_MAX {
        let mut feed = admin.feed("").await;
        assert_eq!(events(&mut feed, 1).await[0].0, "hello");
        feeds.push(feed);
    }
    let (status, head, body) = admin.get("/api/streams/events").await;
    assert_eq!((status, head.contains("retry-after")), (503, true), "{body}");
    feeds.pop();
    // It is noticed at once that one went: no write has to fail first.
    while events(&mut admin.feed("").await, 1).await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn off_loopback_a_browser_logs_in_and_out() {
    let admin = Admin::start(false).await;
    let post = |path: &str, more: &str, body: &str| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nhost: gauge.example\r\n{more}content-length: {length}\r\n\r\n{body}")
    };
    let (status, _, page) = admin.get("/").await;
    assert_eq!((status, page.contains("<form method=\"post\" action=\"/login\">")), (401, true));
    assert_eq!(admin.get("/login.css").await.0, 200);
    assert_eq!(admin.get("/live.js").await.0, 401);
    let ours = "origin: http://gauge.example\r\n";
    let (status, head, page) = admin.ask(&post("/login", ours, "token=wrong")).await;
    assert_eq!((status, head.contains("set-cookie"), page.contains("not the admin token")), (401, false, true));
    let sent = format!("token={CANARY}");
    assert_eq!(admin.ask(&post("/login", "origin: https://evil.example\r\n", &sent)).await.0, 403);
    let (status, head, _) = admin.ask(&post("/login", ours, &sent)).await;
    assert_eq!((status, head.contains("location: /\r\n")), (303, true));
    let cookie = head.split("set-cookie: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!(cookie.ends_with("; path=/; max-age=43200; httponly; samesite=strict"), "{cookie}");
    assert!(!cookie.contains(CANARY));
    let (_, tls, _) = admin.ask(&post("/login", "origin: https://gauge.example\r\n", &sent)).await;
    assert!(tls.contains("; samesite=strict; secure"), "{tls}");
    let pair = cookie.split(';').next().unwrap();
    let with = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: gauge.example\r\ncookie: {pair}\r\n\r\n");
    let (status, _, page) = admin.ask(&with("/")).await;
    assert_eq!((status, page.contains("action=\"/logout\"")), (200, true));
    assert_eq!(admin.ask(&with("/api/config")).await.0, 200);
    let mut feed = admin.feed(&format!("cookie: {pair}\r\n")).await;
    assert_eq!(events(&mut feed, 1).await[0].0, "hello");
    let jar = format!("cookie: {pair}\r\n");
    assert_eq!(admin.ask(&post("/api/reload", &jar, "")).await.0, 403, "browsers name the page that changes something");
    let (status, head, _) = admin.ask(&post("/logout", &format!("{ours}{jar}"), "")).await;
    assert_eq!((status, head.contains("max-age=0")), (303, true));
    assert_eq!(admin.ask(&with("/api/config")).await.0, 401);
    assert_eq!(events(&mut feed, 100).await.last().unwrap().0, "end", "the feed ends with the session");
}

#[tokio::test]
async fn who_guesses_tokens_is_slowed_down_counted_and_let_in_by_none() {
    let admin = Admin::start(false).await;
    let ask = |token: &'static str| {
        let request = format!("GET /api/upstreams HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
        let admin = &admin;
        async move { admin.ask(&request).await }
    };
    assert_eq!(ask(CANARY).await.0, 200);
    for _ in 0..5 {
        assert_eq!(ask("guess").await.0, 401);
    }
    let (status, head, body) = ask(CANARY).await;
    assert_eq!(status, 429, "the right token tells a guesser nothing either: {body}");
    assert!(head.contains("retry-after: "), "{head}");
    let form = "POST /login HTTP/1.1\r\nhost: a\r\norigin: http://a\r\ncontent-length: 11\r\n\r\ntoken=guess";
    assert_eq!(admin.ask(form).await.0, 429, "the form is no other way");
    assert_eq!(admin.get("/healthz").await.0, 200);
    let (_, _, metrics) = admin.get("/metrics").await;
    assert!(metrics.contains("streamgauge_admin_login_failures_total 5"), "{metrics}");
}

#[tokio::test]
async fn idle_strangers_do_not_make_the_process_look_dead() {
    let admin = Admin::start(true).await;
    let mut strangers = Vec::new();
    for _ in 0..256 {
        strangers.push(TcpStream::connect(admin.address).await.unwrap());
    }
    // One that is served says that those before it have their places.
    let (status, head, body) = admin.get("/api/upstreams").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("only health and metrics"), "{body}");
    assert!(head.contains("retry-after"), "{head}");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(admin.get(path).await.0, 200, "{path}");
    }
    // Those who say nothing lose their places, long before the 30 s that they would have else.
    let stranger = strangers.first_mut().unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(15), stranger.read_u8()).await.unwrap();
    assert!(closed.is_err(), "closed without a word");
}

#[tokio::test]
async fn pages_of_other_sites_load_nothing() {
    let admin = Admin::start(true).await;
    let ask = |more: &'static str| {
        let request = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
        let admin = &admin;
        async move { admin.ask(&request).await }
    };
    let (status, head, _) = ask("sec-fetch-site: same-origin\r\n").await;
    assert_eq!(status, 200);
    assert!(head.contains("cross-origin-resource-policy: same-origin"), "{head}");
    assert_eq!(ask("sec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\nsec-fetch-dest: image\r\n").await.0, 403);
    let link = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n";
    assert_eq!(ask(link).await.0, 200, "a link from a dashboard");
    let frame = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: iframe\r\n";
    assert_eq!(ask(frame).await.0, 403);
}

#[tokio::test]
async fn a_reload_is_asked_for_once_at_a_time_and_its_end_is_told() {
    let mut admin = Admin::start(true).await;
    let address = admin.address;
    let ask = move |path: &'static str| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        read_answer(&mut stream, false).await
    };
    let ends = [
        (Reload::Installed { generation: 2 }, 200, "installed"),
        (Reload::Unchanged { generation: 2 }, 200, "unchanged"),
        (Reload::Failed { problems: vec!["a.toml:1:1: no".to_owned()] }, 422, "a.toml:1:1: no"),
        (Reload::Refused { reason: "every route would go".to_owned() }, 409, "force=true"),
        (Reload::NoFile, 409, "--upstream"),
    ];
    for (end, status, words) in ends {
        let asked = tokio::spawn(ask("/api/reload"));
        let request = admin.reloads.recv().await.unwrap();
        assert!(!request.force);
        request.answer.send(end).unwrap();
        let (got, _, body) = asked.await.unwrap();
        assert_eq!(got, status);
        assert!(body.contains(words), "{body}");
    }
    let forced = tokio::spawn(ask("/api/reload?force=true"));
    let under_way = admin.reloads.recv().await.unwrap();
    assert!(under_way.force);
    let waiting = tokio::spawn(ask("/api/reload"));
    // The queue has one place: whoever finds it taken is told so.
    while admin.reloads.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask("/api/reload").await.0, 503);
    under_way.answer.send(Reload::NoFile).unwrap();
    admin.reloads.recv().await.unwrap().answer.send(Reload::NoFile).unwrap();
    assert_eq!((forced.await.unwrap().0, waiting.await.unwrap().0), (409, 409));
}

#[tokio::test]
async fn the_last_24_hours_are_added_up_as_asked() {
    let admin = Admin::start(true).await;
    for by in ["", "?by=route", "?by=upstream", "?by=all"] {
        let (status, _, body) = admin.get(&format!("/api/history{by}")).await;
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &told["step_s"], &told["series"]), (200, &300.into(), &serde_json::json!([])), "{by}");
    }
    let (status, _, body) = admin.get("/api/history?by=user").await;
    assert_eq!(status, 400);
    assert!(body.contains("route, upstream, all"), "{body}");
}
