//! The admin address over real connections.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::apps::ServerApp;
use pingora::protocols::l4::stream::Stream;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::control::{Reload, ReloadRequest, ReloadStatus};
use super::{AdminApp, Control};
use crate::config;
use crate::config::settings::Secret;
use crate::proxy::Shared;

const CANARY: &str = "canary-5f2a";

/// An admin address that serves until the test ends.
struct Admin {
    address: SocketAddr,
    shared: Arc<Shared>,
    reloads: mpsc::Receiver<ReloadRequest>,
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
        tokio::spawn(async move {
            let (_stop, shutdown) = watch::channel(false);
            while let Ok((stream, _)) = listener.accept().await {
                let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
                tokio::spawn(async move { app.process_new(Box::new(Stream::from(stream)), &shutdown).await });
            }
        });
        Self { address, shared, reloads }
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

const JSON_PAGES: [&str; 6] = ["/healthz", "/readyz", "/api/streams", "/api/upstreams", "/api/canaries", "/api/config"];

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
