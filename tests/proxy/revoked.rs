//! A key that is revoked: what runs with it ends within two seconds, and nothing of anybody else's.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::identity::key;
use crate::support::websocket::echo;
use crate::support::{Client, Conn, Proxy, Upstream, config, soon};

const ROUTES: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";
const TOKEN: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n";

/// What is promised of a revocation.
const SOON: Duration = Duration::from_secs(2);

struct Keys {
    text: String,
    stolen: String,
    other: String,
}

fn keys() -> Keys {
    let ((alices, stolen), (bobs, other)) = (key("alice"), key("bob"));
    Keys { text: format!("[identity]\nrequired = true\n{alices}\n{bobs}\n{ROUTES}"), stolen, other }
}

async fn revoke(proxy: &Proxy) -> Instant {
    let revoked = Instant::now();
    let (status, said) = proxy.admin_post("/api/levers/revoke?what=alice&reason=stolen").await;
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("what runs with it ends within two seconds"), "{said}");
    revoked
}

/// A streamed answer that has begun, and the upstream's side of it.
async fn streaming(
    proxy: &Proxy,
    conns: &mut tokio::sync::mpsc::Receiver<Conn>,
    secret: &str,
    id: &str,
) -> (Client, Conn) {
    let mut client = proxy.client().await;
    let more = format!("authorization: Bearer {secret}\r\nx-request-id: {id}\r\n");
    client.post("/v1/chat/completions", r#"{"model":"m","stream":true,"messages":[]}"#, &more).await;
    let mut conn = soon("the request", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.event_stream().await;
    conn.chunk(TOKEN).await;
    client.until("hi").await;
    (client, conn)
}

#[tokio::test]
async fn its_streams_and_what_waits_end_and_nobody_elses() {
    let Keys { text, stolen, other } = keys();
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, &text)).await;
    let (mut stream, mut upstreams) = streaming(&proxy, &mut conns, &stolen, "stream").await;
    let (mut bobs, mut for_bob) = streaming(&proxy, &mut conns, &other, "bobs").await;
    // An answer in one piece that has not come, and a stream that is no model's.
    let bearer = format!("authorization: Bearer {stolen}\r\n");
    let mut waits = proxy.client().await;
    waits
        .post(
            "/v1/messages",
            r#"{"model":"m","max_tokens":9,"messages":[]}"#,
            &format!("{bearer}x-request-id: waits\r\n"),
        )
        .await;
    let mut asked = soon("the request", conns.recv()).await.unwrap();
    asked.request().await.unwrap();
    let mut events = proxy.client().await;
    events.send(format!("GET /news HTTP/1.1\r\nhost: a\r\n{bearer}x-request-id: events\r\n\r\n")).await;
    let mut news = soon("the request", conns.recv()).await.unwrap();
    news.request().await.unwrap();
    news.event_stream().await;
    news.chunk("event: news\ndata: 1\n\n").await;
    events.until("news").await;

    let revoked = revoke(&proxy).await;
    let (ended, refused, news_end) = (stream.answer().await, waits.answer().await, events.answer().await);
    assert!(revoked.elapsed() < SOON, "{:?}", revoked.elapsed());
    let said: Value = ended.text().lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap().parse().unwrap();
    assert_eq!(
        (&said["error"]["code"], &said["error"]["type"]),
        (&"key_revoked".into(), &"authentication_error".into())
    );
    assert!(!ended.whole && !news_end.whole, "none looks complete");
    let said: Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!((refused.status, &said["error"]["type"]), (401, &"authentication_error".into()), "{said}");
    // Nothing is generated for nobody.
    for conn in [&mut upstreams, &mut asked, &mut news] {
        soon("the end of what was asked for", conn.closed()).await;
    }
    for id in ["stream", "waits", "events"] {
        let record = proxy.record(id).await;
        assert_eq!((&record["outcome"], &record["error_type"]), (&"stopped".into(), &"key_revoked".into()), "{record}");
    }
    let attempts = proxy.record("stream").await["attempts"].clone();
    assert!(attempts[0]["error_type"].is_null(), "the upstream did nothing wrong: {attempts}");
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let counted = |line: &&str| line.starts_with("streamgauge_requests_total") && line.contains("outcome=\"stopped\"");
    let stopped: u64 =
        metrics.lines().filter(counted).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(stopped, 3, "{metrics}");

    for_bob.chunk(TOKEN).await;
    for_bob.chunk("data: [DONE]\n\n").await;
    for_bob.chunk("").await;
    assert!(bobs.answer().await.whole);
    assert_eq!(proxy.client().await.get("/x", &bearer).await.status, 401);
}

/// A client that reads nothing must not hold what runs for it.
#[tokio::test]
async fn a_client_that_reads_nothing_holds_nothing() {
    let Keys { text, stolen, .. } = keys();
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, &text)).await;
    let (_client, mut conn) = streaming(&proxy, &mut conns, &stolen, "stuck").await;
    // Until nothing more goes anywhere.
    let flood = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(500), conn.chunk(&flood)).await.is_ok() {
        sent += 1;
        assert!(sent < 200, "it reads on");
    }
    let revoked = revoke(&proxy).await;
    let record = proxy.record("stuck").await;
    assert!(revoked.elapsed() < SOON, "{:?}", revoked.elapsed());
    assert_eq!((&record["outcome"], &record["error_type"]), (&"stopped".into(), &"key_revoked".into()), "{record}");
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(proxy: &Proxy, path: &str, secret: &str, id: &str) -> Socket {
    let mut request = format!("ws://{}{path}", proxy.listen).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    request.headers_mut().insert("x-request-id", id.parse().unwrap());
    soon("the handshake", tokio_tungstenite::connect_async(request)).await.unwrap().0
}

#[tokio::test]
async fn its_websockets_are_closed_with_1008() {
    use futures_util::SinkExt;
    // A chat of an app's own is told nothing that it would not understand; OpenAI's API hears its own kind of error first.
    for (said, path, is_openai) in [
        ("welcome", "/ws", false),
        (r#"{"type":"session.created","session":{"model":"m"}}"#, "/v1/realtime?model=m", true),
    ] {
        let Keys { text, stolen, other } = keys();
        let proxy = Proxy::start(&config(echo(Some(said)).await, &text)).await;
        let mut socket = connect(&proxy, path, &stolen, "ws").await;
        let mut bobs = connect(&proxy, path, &other, "bobs").await;
        for socket in [&mut socket, &mut bobs] {
            assert_eq!(soon("a word", socket.next()).await.unwrap().unwrap(), Message::text(said));
        }
        let revoked = revoke(&proxy).await;
        if is_openai {
            let error = soon("the error", socket.next()).await.unwrap().unwrap();
            let error: Value = serde_json::from_str(error.to_text().unwrap()).unwrap();
            assert_eq!((&error["type"], &error["error"]["code"]), (&"error".into(), &"key_revoked".into()), "{error}");
        }
        let Message::Close(Some(frame)) = soon("the close", socket.next()).await.unwrap().unwrap() else {
            panic!("no close")
        };
        assert_eq!(u16::from(frame.code), 1008);
        assert!(revoked.elapsed() < SOON, "{:?}", revoked.elapsed());
        let record = proxy.record("ws").await;
        assert_eq!((&record["outcome"], &record["error_type"]), (&"stopped".into(), &"key_revoked".into()), "{record}");
        bobs.send(Message::text("still here")).await.unwrap();
        assert_eq!(soon("the echo", bobs.next()).await.unwrap().unwrap(), Message::text("still here"));
    }
}
