//! WebSockets pass both ways and are measured.

use crate::support::{Proxy, Upstream, config, soon};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

/// A WebSocket server that echoes, and closes with 4321 when told "bye".
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message == Message::text("bye") {
                        let frame = CloseFrame { code: CloseCode::from(4321), reason: "told so".into() };
                        let _ = socket.close(Some(frame)).await;
                    } else if message.is_text() || message.is_binary() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

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
    let proxy = Proxy::start(&config(echo().await, ROUTE)).await;
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
    let proxy = Proxy::start(&config(echo().await, ROUTE)).await;
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
    let text = format!("[server]\ndrain_websockets = \"200ms\"\n{}", config(echo().await, ROUTE));
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

#[tokio::test]
async fn an_upstream_that_reads_nothing_is_given_up() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n").await;
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
    let upstreams = format!("{}{}", table("dead", dead), table("well", echo().await));
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
    let text = format!("{}{}{route}", table("full", broken.address), table("well", echo().await));
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
