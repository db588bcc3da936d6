//! What goes on and what does not: hosts, forwarding, hop-by-hop headers, identities, statuses without bodies.

use crate::support::{Proxy, Seen, Upstream, config, soon};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What the upstream sees of a GET with these header lines.
async fn seen_with(server: &str, more: &str) -> Seen {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&format!("{server}\n{}", config(upstream.address, ROUTE))).await;
    let answer = proxy.client().await.get("/a%2Fb/.c..d?q=%20x&&y", more).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    soon("the request", seen.recv()).await.unwrap()
}

const TRUSTING: &str = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]";

#[tokio::test]
async fn target_and_host_stay_as_they_came() {
    let request = seen_with("", "X-Odd-Case: kept\r\n").await;
    assert!(request.head.starts_with("GET /a%2Fb/.c..d?q=%20x&&y HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("host"), Some("app.test"), "so that FastAPI's redirects are right");
    assert!(request.head.contains("X-Odd-Case: kept"));
}

#[tokio::test]
async fn forwarding_headers_of_strangers_are_replaced() {
    let spoofed = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-host: evil\r\nx-forwarded-proto: https\r\nx-forwarded-prefix: /p\r\n\
        forwarded: for=6.6.6.6\r\nx-real-ip: 6.6.6.6\r\nx-user-id: root\r\nbaggage: a=b\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: v=1\r\n";
    let request = seen_with("", spoofed).await;
    assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.all("x-forwarded-host"), ["app.test"]);
    assert_eq!(request.all("x-forwarded-proto"), ["http"]);
    for name in ["x-forwarded-prefix", "forwarded", "x-real-ip", "x-user-id", "baggage", "tracestate"] {
        assert_eq!(request.header(name), None, "{name} of a stranger is not believed");
    }
    let trace = request.header("traceparent").unwrap();
    assert!(!trace.contains("0af7651916cd43dd8448eb211c80319c"), "a stranger's trace is not continued: {trace}");
}

#[tokio::test]
async fn trusted_proxies_are_believed_and_appended_to() {
    let said = "x-forwarded-for: 10.1.1.1\r\nx-forwarded-host: shop.example\r\nx-forwarded-proto: https\r\nx-user-id: alice\r\nbaggage: a=b\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: v=1\r\n";
    let request = seen_with(TRUSTING, said).await;
    assert_eq!(request.all("x-forwarded-for"), ["10.1.1.1, 127.0.0.1"]);
    assert_eq!(request.all("x-forwarded-host"), ["shop.example"]);
    assert_eq!(request.all("x-forwarded-proto"), ["https"]);
    assert_eq!(request.header("x-user-id"), Some("alice"));
    assert_eq!(request.header("baggage"), Some("a=b"));
    assert_eq!(request.header("tracestate"), Some("v=1"));
    let trace = request.header("traceparent").unwrap();
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && trace.ends_with("-01"), "{trace}");
    assert!(!trace.contains("b7ad6b7169203331"), "our own span is the parent: {trace}");
}

#[tokio::test]
async fn headers_of_one_connection_stay_there() {
    let request = seen_with(
        "",
        "connection: keep-alive, x-secret-hop\r\nx-secret-hop: 1\r\nkeep-alive: timeout=5\r\nte: trailers\r\nproxy-authorization: x\r\ntrailer: a\r\nupgrade-insecure-requests: 1\r\n",
    )
    .await;
    for name in ["x-secret-hop", "keep-alive", "te", "proxy-authorization", "trailer"] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("upgrade-insecure-requests"), Some("1"));
}

#[tokio::test]
async fn request_ids_are_kept_or_made_and_always_answered() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    let answer = client.get("/", "x-request-id: my-id-1\r\n").await;
    assert_eq!(answer.all("x-request-id"), ["my-id-1"]);
    assert_eq!(seen.recv().await.unwrap().all("x-request-id"), ["my-id-1"]);
    let hostile = "x".repeat(500);
    for line in ["", "x-request-id: \r\n", "x-request-id: a b\r\n", &format!("x-request-id: {hostile}\r\n")] {
        let answer = client.get("/", line).await;
        let made = answer.header("x-request-id").unwrap().to_owned();
        assert!(made.len() >= 16 && made.len() <= 64, "{made}");
        assert_eq!(seen.recv().await.unwrap().all("x-request-id"), [made.as_str()]);
    }
}

#[tokio::test]
async fn the_upstreams_key_replaces_the_clients_credentials() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let text = format!(
        "[[upstream]]\nname = \"fake\"\nurl = \"http://{}\"\napi_key_env = \"FAKE_KEY\"\n{ROUTE}",
        upstream.address
    );
    let proxy = Proxy::start_with(&text, &[("FAKE_KEY", "sk-canary-123")]).await;
    let answer =
        proxy.client().await.get("/x", "authorization: Bearer mine\r\nx-api-key: mine\r\ncookie: a=b\r\n").await;
    let request = soon("the request", seen.recv()).await.unwrap();
    assert_eq!(request.all("authorization"), ["Bearer sk-canary-123"]);
    assert!(request.header("x-api-key").is_none() && request.header("cookie").is_none());
    assert!(!answer.head.contains("sk-canary"));
    let (_, shown) = proxy.admin_get("/api/config").await;
    assert!(!shown.contains("sk-canary") && shown.contains("fake"), "{shown}");
    assert!(!format!("{:?}", proxy.lines()).contains("sk-canary"));
}

#[tokio::test]
async fn answers_keep_their_headers_but_for_the_connections() {
    let answer = "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nconnection: x-hop\r\nx-hop: 1\r\nserver: fake/1\r\ncontent-range: bytes 0-1/9\r\nlocation: http://app.test/x\r\ncontent-length: 2\r\n\r\nok";
    let (upstream, _seen) = Upstream::recording(answer).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let answer = proxy.client().await.get("/x", "range: bytes=0-1\r\n").await;
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("server"), Some("fake/1"));
    assert_eq!(answer.header("location"), Some("http://app.test/x"));
    assert_eq!(answer.header("content-range"), Some("bytes 0-1/9"));
    assert_eq!(answer.header("x-hop"), None);
}

#[tokio::test]
async fn answers_without_bodies_leave_the_connection_usable() {
    for (answer, method, status) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", "GET", 204),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", "GET", 204),
        ("HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n", "GET", 304),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 55\r\n\r\n", "GET", 304),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n", "HEAD", 200),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "HEAD", 200),
    ] {
        let (upstream, _seen) = Upstream::recording(answer).await;
        let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
        let mut client = proxy.client().await;
        for _ in 0..3 {
            client.send(format!("{method} /x HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            let got = client.next_answer(false).await;
            assert_eq!(got.status, status, "{answer:?}");
            if answer.contains("1234") {
                assert_eq!(got.header("content-length"), Some("1234"), "a HEAD tells the length");
            }
        }
        assert_eq!(upstream.connections(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn interim_answers_are_passed_on() {
    let (upstream, _seen) = Upstream::recording(
        "HTTP/1.1 103 Early Hints\r\nlink: </s.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let hint = client.next_answer(true).await;
    assert_eq!((hint.status, hint.header("link")), (103, Some("</s.css>; rel=preload")));
    assert_eq!(client.answer().await.text(), "ok");
    let mut old = proxy.client().await;
    old.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let first = old.next_answer(true).await;
    assert_eq!(first.status, 200, "an HTTP/1.0 client never gets an interim answer");
}

#[tokio::test]
async fn no_route_says_which_there_are() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let route =
        "[[route]]\nname = \"chat\"\npath = \"/api/v1/*\"\nmethods = [\"POST\"]\ntargets = [{ upstream = \"fake\" }]\n";
    let proxy = Proxy::start(&config(upstream.address, route)).await;
    let answer = proxy.client().await.get("/elsewhere", "").await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("/api/v1/*"), "{}", answer.text());
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["detail"].is_string() || body["detail"].is_object(), "FastAPI's shape: {body}");
}

#[tokio::test]
async fn an_upgrade_that_is_not_taken_is_as_if_it_were_not_there() {
    let (upstream, mut seen) = Upstream::recording("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let proxy = Proxy::start(&config(upstream.address, "")).await;
    let h2c = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n";
    let offers = [
        h2c,
        "connection: Upgrade\r\nupgrade: foo/2\r\n",
        "connection: Upgrade\r\nupgrade: TLS/1.0\r\n",
        "upgrade: h2c\r\n",
        "upgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: websocket/13\r\n",
    ];
    let mut client = proxy.client().await;
    for offer in offers {
        let answer = client.get("/x", offer).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{offer}");
        assert_ne!(answer.header("connection"), Some("close"), "{offer}: the connection goes on");
        let got = seen.recv().await.unwrap();
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(got.header(name), None, "{offer}: {name} was for us");
        }
    }
    // With a body, in one piece and in chunks, also where a WebSocket is asked for in a way that is none.
    for offer in [h2c, "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"] {
        client.post("/v1/chat/completions", "{\"messages\":[]}", offer).await;
        assert_eq!(client.answer().await.status, 200, "{offer}");
        assert_eq!(seen.recv().await.unwrap().body, b"{\"messages\":[]}");
        client
            .send(format!(
                "POST /x HTTP/1.1\r\nhost: a\r\n{offer}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.status, 200, "{offer}");
        assert_eq!(seen.recv().await.unwrap().body, b"abc");
    }
    let mut old = proxy.client().await;
    old.send("GET /x HTTP/1.0\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n").await;
    assert_eq!(old.answer().await.status, 200);
}

#[tokio::test]
async fn locations_lead_to_where_the_client_finds_them() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{own}/base/v2/items/?q=1\r\n\
         content-location: /base/v2/items\r\ncontent-length: 0\r\n\r\n"
    );
    let _upstream = Upstream::on(listener, move |mut conn| {
        let answer = answer.clone();
        async move {
            while conn.request().await.is_some() {
                conn.write(&answer).await;
            }
        }
    });
    let text = format!(
        "[[upstream]]\nname = \"own\"\nurl = \"http://{own}/base\"\nhost = \"own\"\n\
         [[route]]\npath = \"/api/*\"\ntargets = [{{ upstream = \"own\", path = \"/v2\" }}]\n"
    );
    let proxy = Proxy::start(&text).await;
    let answer = proxy.client().await.get("/api/items?q=1", "").await;
    assert_eq!(answer.status, 307);
    assert_eq!(answer.header("location"), Some("/api/items/?q=1"));
    assert_eq!(answer.header("content-location"), Some("/api/items"));
}

#[tokio::test]
async fn every_event_stream_tells_those_on_the_way_not_to_collect_it() {
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 10\r\n\r\ndata: hi\n\n";
    let upstream = Upstream::fixed(events).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    // A page's EventSource, of which nothing says that it is an LLM's.
    let answer = client.get("/notifications", "").await;
    assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
}
