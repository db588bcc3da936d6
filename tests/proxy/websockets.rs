//! WebSockets pass both ways and are measured.

use std::time::Duration;

use crate::support::websocket::echo;
use crate::support::{Client, Conn, Proxy, Upstream, config, soon};
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

async fn connect(
    proxy: &Proxy,
    id: &str,
) -> tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>> {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let mut request = format!("ws://{}/ws/chat?x=1", proxy.listen).into_client_request().unwrap();
    request.headers_mut().insert("x-request-id", id.parse().unwrap());
    soon("the handshake", tokio_tungstenite::connect_async(request)).await.unwrap().0
}

#[tokio::test]
async fn messages_of_all_kinds_pass_and_are_counted() {
    let proxy = Proxy::start(&config(echo(None).await, ROUTE)).await;
    let mut socket = connect(&proxy, "ws1").await;
    let large = "x".repeat(200_000);
    for message in [Message::text("hello"), Message::binary(vec![0, 255, 7]), Message::text(large)] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(soon("the pong", socket.next()).await.unwrap().unwrap(), Message::Pong("p".into()));
    socket.send(Message::text("bye")).await.unwrap();
    let Message::Close(Some(frame)) = soon("the close", socket.next()).await.unwrap().unwrap() else {
        panic!("no close")
    };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4321, "told so"));
    // Answers the close, and waits for the connection's end.
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    let record = proxy.record("ws1").await;
    assert_eq!(record["http.response.status_code"], 101);
    assert_eq!(record["websocket"]["messages_in"], 4);
    assert_eq!(record["websocket"]["messages_out"], 3);
    assert_eq!(record["websocket"]["close_code"], 4321);
    assert!(record["websocket"]["first_message_s"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn an_orderly_close_is_completed() {
    let proxy = Proxy::start(&config(echo(None).await, ROUTE)).await;
    let mut socket = connect(&proxy, "ws2").await;
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await.unwrap();
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    assert_eq!(proxy.record("ws2").await["outcome"], "completed");
}

#[tokio::test]
async fn a_refused_handshake_is_passed_on() {
    let upstream = Upstream::fixed("HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope").await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client
        .send("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "nope"));
}

#[tokio::test]
async fn going_down_closes_websockets_with_1001() {
    let text = format!("[server]\ndrain_websockets = \"200ms\"\n{}", config(echo(None).await, ROUTE));
    let mut proxy = Proxy::start(&text).await;
    let mut socket = connect(&proxy, "ws3").await;
    socket.send(Message::text("hello")).await.unwrap();
    soon("the echo", socket.next()).await.unwrap().unwrap();
    proxy.signal("TERM");
    let Message::Close(Some(frame)) = soon("the close", socket.next()).await.unwrap().unwrap() else {
        panic!("no close")
    };
    assert_eq!(u16::from(frame.code), 1001);
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    assert_eq!(proxy.exited().await, Some(0));
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nx-request-id: ws\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A close frame with 1001, of a server.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// A client's close frame with 1001, masked with zeros.
const GONE_AWAY: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// A WebSocket on raw bytes over a proxy of its own: both ends of it.
async fn raw(more: &str) -> (Proxy, Client, Conn, Upstream) {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&format!("[server]\n{more}\n{}", config(upstream.address, ROUTE))).await;
    let mut client = proxy.client().await;
    client.send(HANDSHAKE).await;
    let mut conn = soon("the handshake", conns.recv()).await.unwrap();
    conn.head().await.unwrap();
    conn.write(SWITCHED).await;
    client.head().await;
    (proxy, client, conn, upstream)
}

/// The close code of a client's frame, whatever its mask.
fn masked_code(frame: &[u8]) -> u16 {
    assert_eq!(&frame[..2], [0x88, 0x82], "a close frame with a code: {frame:x?}");
    u16::from_be_bytes([frame[6] ^ frame[2], frame[7] ^ frame[3]])
}

#[tokio::test]
async fn going_down_waits_for_an_upstreams_frame_and_closes_after_it() {
    let (mut proxy, mut client, mut conn, _upstream) = raw("drain_websockets = \"200ms\"").await;
    // Half of the first fragment of a message.
    conn.write([0x01, 4, b'f', b'r']).await;
    assert_eq!(client.exactly(4).await, [0x01, 4, b'f', b'r']);
    proxy.signal("TERM");
    assert_eq!(masked_code(&conn.bytes(8).await), 1001, "nothing is under way to the upstream");
    // The fragment ends, and the next one begins at once: the close frame stands between the two.
    conn.write([b'a', b'g', 0x80, 4, b'm']).await;
    assert_eq!(client.exactly(6).await, [&b"ag"[..], &GOING_AWAY].concat());
    // Both have closed: nobody has to wait for the other.
    client.send(GONE_AWAY).await;
    conn.write([&b"ent"[..], &GOING_AWAY].concat()).await;
    client.end().await;
    soon("the upstream's end", conn.closed()).await;
    let record = proxy.record("ws").await;
    assert_eq!((&record["outcome"], &record["websocket"]["close_code"]), (&"completed".into(), &1001.into()));
    assert_eq!(proxy.exited().await, Some(0));
}

#[tokio::test]
async fn going_down_waits_for_a_clients_frame_and_closes_after_it() {
    let (mut proxy, mut client, mut conn, _upstream) = raw("drain_websockets = \"200ms\"").await;
    client.send([0x81, 0x84, 0, 0, 0, 0, b'w', b'h']).await;
    assert_eq!(conn.bytes(8).await, [0x81, 0x84, 0, 0, 0, 0, b'w', b'h']);
    proxy.signal("TERM");
    assert_eq!(client.exactly(4).await, GOING_AWAY);
    client.send(b"at").await;
    assert_eq!(conn.bytes(2).await, b"at");
    assert_eq!(masked_code(&conn.bytes(8).await), 1001);
    // Goes without a close frame of its own.
    drop(client);
    soon("the upstream's end", conn.closed()).await;
    let record = proxy.record("ws").await;
    assert_eq!((&record["outcome"], &record["websocket"]["close_code"]), (&"completed".into(), &1001.into()));
    assert_eq!(record["websocket"]["messages_in"], 1);
    assert_eq!(proxy.exited().await, Some(0));
}

#[tokio::test]
async fn one_side_inside_a_frame_does_not_keep_the_other_from_its_close() {
    let (mut proxy, mut client, mut conn, _upstream) = raw("drain_websockets = \"0s\"\ndrain_timeout = \"1s\"").await;
    // A message that never ends: what came of it must not be taken for whole.
    conn.write([0x81, 9, b'h']).await;
    assert_eq!(client.exactly(3).await, [0x81, 9, b'h']);
    proxy.signal("TERM");
    assert_eq!(masked_code(&conn.bytes(8).await), 1001);
    let mut rest = Vec::new();
    let _ = soon("the cut", client.stream.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"", "no end that looks like one");
    assert_eq!(proxy.record("ws").await["outcome"], "stopped");
    proxy.exited().await;
}

#[tokio::test]
async fn a_fragment_that_never_ends_is_ended_before_the_cut_and_its_message_is_not() {
    let (mut proxy, mut client, mut conn, _upstream) = raw("drain_websockets = \"0s\"\ndrain_timeout = \"1s\"").await;
    conn.write([0x01, 4, b'h']).await;
    assert_eq!(client.exactly(3).await, [0x01, 4, b'h']);
    client.send([0x01, 0x83, 1, 2, 3, 4, b'w' ^ 1]).await;
    conn.bytes(7).await;
    proxy.signal("TERM");
    assert_eq!(client.exactly(7).await, [&b"   "[..], &GOING_AWAY].concat());
    assert_eq!(conn.bytes(2).await, [b' ' ^ 2, b' ' ^ 3]);
    assert_eq!(masked_code(&conn.bytes(8).await), 1001);
    assert_eq!(proxy.record("ws").await["outcome"], "stopped", "nobody has closed");
    proxy.exited().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_does_not_hold_the_end_of_the_process() {
    let (mut proxy, client, mut conn, _upstream) = raw("drain_websockets = \"0s\"\ndrain_timeout = \"1s\"").await;
    let frame = [&[0x82, 126, 0xff, 0xff][..], &[0; 0xffff]].concat();
    // Until all buffers between are full.
    while tokio::time::timeout(Duration::from_millis(300), conn.write(&frame)).await.is_ok() {}
    proxy.signal("TERM");
    let record = proxy.record("ws").await;
    assert_eq!((&record["outcome"], &record["error_type"]), (&"stopped".into(), &"draining".into()));
    assert!(record["websocket"]["messages_out"].as_u64().unwrap() > 0, "what was measured is told: {record}");
    proxy.exited().await;
    drop(client);
}

#[tokio::test]
async fn a_response_that_runs_when_the_process_goes_is_stopped() {
    let (mut proxy, mut client, mut conn, _upstream) = raw("drain_websockets = \"0s\"").await;
    let ask = br#"{"type":"response.create"}"#;
    client.send([&[0x81, 0x80 | ask.len() as u8, 0, 0, 0, 0][..], ask].concat()).await;
    conn.bytes(6 + ask.len()).await;
    proxy.signal("TERM");
    assert_eq!(client.exactly(4).await, GOING_AWAY);
    assert_eq!(masked_code(&conn.bytes(8).await), 1001);
    client.send(GONE_AWAY).await;
    conn.write(GOING_AWAY).await;
    let response = proxy.line("the response", |line| line["event"] == "llm.response").await;
    assert_eq!((&response["outcome"], &response["error_type"]), (&"stopped".into(), &"draining".into()));
    let connection = proxy.line("the connection", |line| line["event"] == "http.request").await;
    assert_eq!(connection["outcome"], "completed");
    proxy.exited().await;
}

#[tokio::test]
async fn a_close_without_a_code_is_an_orderly_one() {
    let proxy = Proxy::start(&config(echo(None).await, ROUTE)).await;
    let mut socket = connect(&proxy, "bare").await;
    // As a browser's `close()`.
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    let record = proxy.record("bare").await;
    assert_eq!((&record["outcome"], &record["error_type"]), (&"completed".into(), &serde_json::Value::Null));
    assert!(record["attempts"][0]["error_type"].is_null(), "nobody is blamed: {record}");
}

#[tokio::test]
async fn a_client_that_leaves_a_refusal_that_never_ends_frees_the_upstream() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.send(HANDSHAKE).await;
    let mut conn = soon("the handshake", conns.recv()).await.unwrap();
    conn.head().await.unwrap();
    conn.write("HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nno").await;
    drop(client);
    soon("the upstream's end", conn.closed()).await;
    assert_eq!(proxy.record("ws").await["outcome"], "client_cancelled");
}

#[tokio::test]
async fn an_upstream_that_reads_nothing_is_given_up() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write(SWITCHED).await;
        // Held open, and never read from.
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&format!("[server]\nwrite_timeout = \"1s\"\n\n{}", config(upstream.address, ROUTE))).await;
    let mut client = proxy.client().await;
    client.send(HANDSHAKE).await;
    client.head().await;
    let frame = [&[0x82, 0xfe, 0xff, 0xff, 0, 0, 0, 0][..], &[0; 0xffff]].concat();
    // Ends when the proxy has given up.
    soon("the end", async { while client.try_send(&frame).await {} }).await;
    assert_eq!(proxy.record("ws").await["outcome"], "truncated");
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_frees_the_upstream() {
    let (told, mut freed) = tokio::sync::mpsc::channel(2);
    let upstream = Upstream::start(move |mut conn| {
        let told = told.clone();
        async move {
            conn.head().await.unwrap();
            told.send(()).await.unwrap();
            conn.closed().await;
            told.send(()).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.send(HANDSHAKE).await;
    soon("the handshake", freed.recv()).await.unwrap();
    drop(client);
    soon("the upstream's end", freed.recv()).await.unwrap();
    assert_eq!(proxy.record("ws").await["outcome"], "client_cancelled");
}

#[tokio::test]
async fn a_handshake_goes_to_where_a_connection_can_be_made() {
    let dead = crate::support::backend::refusing().await;
    let table =
        |name: &str, at: std::net::SocketAddr| format!("[[upstream]]\nname = \"{name}\"\nurl = \"http://{at}\"\n");
    let route = "[[route]]\nupstream = \"dead\"\nfallback = [{ upstream = \"well\" }]\n";
    let upstreams = format!("{}{}", table("dead", dead), table("well", echo(None).await));
    let proxy = Proxy::start(&format!("{upstreams}{route}")).await;
    let mut socket = connect(&proxy, "ws").await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), Message::text("hello"));
    drop(socket);
    let record = proxy.record("ws").await;
    assert_eq!(
        (&record["upstream"], &record["attempts"][0]["error_type"]),
        (&"well".into(), &"connect_refused".into())
    );

    let proxy = Proxy::start(&format!("{upstreams}{route}failover = \"never\"\n")).await;
    let answer = proxy
        .client()
        .await
        .get(
            "/ws",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        )
        .await;
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn a_handshake_that_fails_is_an_attempt_as_any_other() {
    let broken = Upstream::fixed("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nfull").await;
    let table =
        |name: &str, at: std::net::SocketAddr| format!("[[upstream]]\nname = \"{name}\"\nurl = \"http://{at}\"\n");
    let route = "[[route]]\nupstream = \"full\"\nfallback = [{ upstream = \"well\" }]\nfailover = \"always\"\n";
    let text = format!("{}{}{route}", table("full", broken.address), table("well", echo(None).await));
    let proxy = Proxy::start(&text).await;
    let mut socket = connect(&proxy, "ws").await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), Message::text("hello"));
    drop(socket);
    let record = proxy.record("ws").await;
    assert_eq!((&record["upstream"], &record["attempts"][0]["status"]), (&"well".into(), &503.into()), "{record}");

    // By default a request that has side effects for all we know is asked once: who declined is heard.
    let proxy = Proxy::start(&text.replace("failover = \"always\"\n", "")).await;
    let mut client = proxy.client().await;
    client.send(HANDSHAKE).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "full"));
    assert_eq!(proxy.record("ws").await["outcome"], "upstream_error");
}

#[tokio::test]
async fn a_declined_handshake_whose_answer_never_ends_is_ended_by_the_routes_times() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 403 Forbidden\r\ncontent-length: 100\r\n\r\nno").await;
        std::future::pending::<()>().await;
    })
    .await;
    let route = format!("{ROUTE}timeouts = {{ stall = \"200ms\" }}\n");
    let proxy = Proxy::start(&config(upstream.address, &route)).await;
    let mut client = proxy.client().await;
    client.send(HANDSHAKE).await;
    client.head().await;
    assert_eq!(proxy.record("ws").await["outcome"], "stalled");
}
