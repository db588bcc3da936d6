//! `[cors]`: preflights, anchored patterns, our own errors, and the backend's headers where it is absent.

use crate::support::{Proxy, Upstream, config};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"/api/*\"\nmethods = [\"POST\", \"GET\"]\ntargets = [{ upstream = \"fake\" }]\n";

const CORS: &str =
    "[cors]\norigins = [\"https://app.example.com\"]\norigin_patterns = ['https://my-app-[a-z0-9-]+\\.vercel\\.app']\n";

const BACKENDS: &str = "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn preflights_are_answered_before_methods_are_looked_at() {
    let upstream = Upstream::fixed(BACKENDS).await;
    let proxy = Proxy::start(&format!("{CORS}{}", config(upstream.address, ROUTE))).await;
    let mut client = proxy.client().await;
    for (origin, allowed) in [
        ("https://app.example.com", true),
        ("https://my-app-git-main-x1.vercel.app", true),
        ("https://my-app-x.vercel.app.evil.com", false),
        ("https://evil.com/https://my-app-x.vercel.app", false),
        ("http://app.example.com", false),
        ("null", false),
    ] {
        client
            .send(format!("OPTIONS /api/v1/chat HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: content-type, x-mine\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 204, "{origin}");
        let said = answer.header("access-control-allow-origin");
        assert_eq!(said, allowed.then_some(origin), "{origin}");
        assert!(answer.header("vary").unwrap_or("").to_lowercase().contains("origin"), "{origin}: {}", answer.head);
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn our_rules_replace_the_backends_and_cover_our_errors() {
    let upstream = Upstream::fixed(BACKENDS).await;
    let proxy = Proxy::start(&format!("{CORS}{}", config(upstream.address, ROUTE))).await;
    let mut client = proxy.client().await;
    let passed = client.get("/api/x", "origin: https://app.example.com\r\n").await;
    assert_eq!(passed.all("access-control-allow-origin"), ["https://app.example.com"]);
    let stranger = client.get("/api/x", "origin: https://evil.com\r\n").await;
    assert_eq!(stranger.all("access-control-allow-origin"), Vec::<&str>::new());
    let error = client.get("/none", "origin: https://app.example.com\r\n").await;
    assert_eq!((error.status, error.all("access-control-allow-origin")), (404, vec!["https://app.example.com"]));
}

#[tokio::test]
async fn without_rules_the_backends_own_pass() {
    let upstream = Upstream::fixed(BACKENDS).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let answer = proxy.client().await.get("/api/x", "origin: https://evil.com\r\n").await;
    assert_eq!(answer.all("access-control-allow-origin"), ["*"]);
}
