//! One caller cannot take everything: shares of connections and streams, the pace of bodies, and files that are nobody else's.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Proxy, Upstream, config, soon};
use crate::versions::h2_on;

const ROUTE: &str = "[[route]]\nname = \"all\"\ntargets = [{ upstream = \"fake\" }]\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn connect_from(local: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{local}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Asks once, keeps the connection open, and returns what came.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") {
        assert_ne!(soon("an answer", stream.read_buf(&mut answer)).await.unwrap(), 0);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn one_address_takes_its_share_of_connections_and_no_more() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let limits = "[server]\nmax_connections = 4\naddress_share = 0.5\n";
    let proxy = Proxy::start(&config(upstream.address, &format!("{limits}{ROUTE}"))).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect_from("127.0.0.1", proxy.listen).await;
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    let mut third = connect_from("127.0.0.1", proxy.listen).await;
    let mut refused = String::new();
    soon("a refusal", third.read_to_string(&mut refused)).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("server.address_share"), "{refused}");
    let mut other = connect_from("127.0.0.2", proxy.listen).await;
    assert!(ask(&mut other).await.starts_with("HTTP/1.1 200"), "others are let in");
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("retry-after: 1") && head.contains(&format!("content-length: {}", body.len())), "{refused}");
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["code"], "overloaded", "as all answers of the proxy's own");
    let line = proxy.line("the refusal", |line| line["event"] == "connection.refused").await;
    assert_eq!((&line["reason"], &line["peer"]), (&"address_share".into(), &"127.0.0.1".into()), "{line}");
    let (_, metrics) = proxy.admin_get("/metrics").await;
    for told in
        ["connections_refused_total{reason=\"address_share\"} 1", "connections_open 3", "connections_opened_total 3"]
    {
        assert!(metrics.contains(&format!("\nstreamgauge_{told}\n")), "{told}: {metrics}");
    }
    let (_, streams) = proxy.admin_get("/api/streams").await;
    let trouble = &serde_json::from_str::<Value>(&streams).unwrap()["troubles"][0];
    assert_eq!(
        (&trouble["kind"], &trouble["what"], &trouble["who"], &trouble["count"]),
        (&"refusal".into(), &"address_share".into(), &"ip:127.0.0.1".into(), &1.into()),
        "{trouble}"
    );
    drop(held);
    // Its places are free as soon as the proxy has seen the end of the connections.
    loop {
        let mut again = connect_from("127.0.0.1", proxy.listen).await;
        let mut start = [0; 12];
        again.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        soon("an answer", again.read_exact(&mut start)).await.unwrap();
        if start == *b"HTTP/1.1 200" {
            break;
        }
    }
}

#[tokio::test]
async fn a_flood_of_connections_is_counted_and_said_once() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, &format!("[server]\nmax_connections = 1\n{ROUTE}"))).await;
    let mut held = connect_from("127.0.0.1", proxy.listen).await;
    assert!(ask(&mut held).await.starts_with("HTTP/1.1 200"));
    for number in 0..20 {
        let mut more = connect_from(&format!("127.0.0.{}", 2 + number % 2), proxy.listen).await;
        let mut refused = String::new();
        soon("a refusal", more.read_to_string(&mut refused)).await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("server.max_connections"), "{refused}");
    }
    let (_, metrics) = proxy.admin_get("/metrics").await;
    assert!(metrics.contains("streamgauge_connections_refused_total{reason=\"max_connections\"} 20"), "{metrics}");
    let (_, streams) = proxy.admin_get("/api/streams").await;
    let streams: Value = serde_json::from_str(&streams).unwrap();
    let troubles = streams["troubles"].as_array().unwrap();
    assert_eq!((troubles.len(), &troubles[0]["count"]), (1, &20.into()), "{streams}");
    assert_eq!((&troubles[0]["what"], &troubles[0]["who"]), (&"max_connections".into(), &Value::Null), "several");
    let said = |lines: &[Value]| lines.iter().filter(|line| line["event"] == "connection.refused").count();
    proxy.line("the refusals", |line| line["event"] == "connection.refused").await;
    assert_eq!(said(&proxy.lines()), 1);
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_many_and_is_not_bound() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let limits = "[server]\nmax_connections = 8\naddress_share = 0.25\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let proxy = Proxy::start(&config(upstream.address, &format!("{limits}{ROUTE}"))).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut stream = connect_from("127.0.0.1", proxy.listen).await;
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
}

#[tokio::test]
async fn one_connection_with_many_streams_takes_its_share_and_no_more() {
    let (upstream, mut connections) = Upstream::handed().await;
    let limits = "[server]\nmax_streams = 4\naddress_share = 0.5\n";
    let proxy = Proxy::start(&config(upstream.address, &format!("{limits}{ROUTE}"))).await;
    let mut send = h2_on(TcpStream::connect(proxy.listen).await.unwrap()).await;
    let request = || http::Request::get("http://app.test/").body(()).unwrap();
    // They are served side by side: any of the three may come last.
    let waiting: Vec<_> = (0..3).map(|_| send.send_request(request(), true).unwrap().0).collect();
    let (answer, _, _waiting) = soon("a refusal", futures_util::future::select_all(waiting)).await;
    assert_eq!(answer.unwrap().status(), 503);
    let mut other = connect_from("127.0.0.2", proxy.listen).await;
    other.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-request-id: other\r\n\r\n").await.unwrap();
    // The upstream never answers: that it is asked says that the stream was let in.
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(soon("a connection to the upstream", connections.recv()).await.unwrap());
    }
}

#[tokio::test]
async fn a_body_that_dribbles_is_given_up() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let limits = "[server]\nmin_body_rate = \"1MiB\"\nbody_timeout = \"1h\"\n";
    let proxy = Proxy::start(&config(upstream.address, &format!("{limits}{ROUTE}"))).await;
    for media_type in ["application/json", "application/octet-stream"] {
        let mut client = proxy.client().await;
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-type: {media_type}\r\ncontent-length: 100\r\n\r\n{{");
        client.send(head).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 408, "{media_type}");
        assert!(answer.text().contains("min_body_rate"), "{}", answer.text());
    }
}

#[tokio::test]
async fn an_upload_keeps_its_pace_after_the_answer_began_and_a_conversation_need_not() {
    let (upstream, mut conns) = Upstream::handed().await;
    let limits = "[server]\nmin_body_rate = \"1MiB\"\nbody_timeout = \"1h\"\n";
    let proxy = Proxy::start(&config(upstream.address, &format!("{limits}{ROUTE}"))).await;
    let mut begun = Vec::new();
    for framing in ["transfer-encoding: chunked", "content-length: 100"] {
        let mut client = proxy.client().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-type: audio/wav\r\n{framing}\r\n\r\n")).await;
        let mut conn = soon("the upload", conns.recv()).await.unwrap();
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nlisten\r\n").await;
        client.until("listen").await;
        begun.push((client, conn));
    }
    let (mut upload, _conn) = begun.pop().unwrap();
    assert!(!upload.answer().await.whole, "ten seconds without a byte are too slow");
    let (mut talk, mut conn) = begun.pop().unwrap();
    talk.send("2\r\nhi\r\n").await;
    assert_eq!(conn.bytes(7).await, b"2\r\nhi\r\n");
    conn.write("3\r\nbye\r\n0\r\n\r\n").await;
    talk.until("bye").await;
}

#[tokio::test]
async fn an_upload_without_a_length_that_dribbles_is_given_up_too() {
    let (upstream, mut conns) = Upstream::handed().await;
    let limits = "[server]\nmin_body_rate = \"1MiB\"\nbody_timeout = \"1h\"\n";
    let proxy = Proxy::start(&config(upstream.address, &format!("{limits}{ROUTE}"))).await;
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-type: audio/wav\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        .await;
    let mut conn = soon("the upload", conns.recv()).await.unwrap();
    conn.head().await.unwrap();
    conn.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nlisten\r\n").await;
    client.until("listen").await;
    // A byte a second, and nobody says anything to it.
    let dribble = async {
        let mut second = tokio::time::interval(std::time::Duration::from_secs(1));
        while client.try_send("1\r\nx\r\n").await {
            second.tick().await;
        }
    };
    soon("the end of the upload", dribble).await;
}

#[tokio::test]
async fn what_is_kept_is_nobody_elses() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let sockets = tempfile::tempdir().unwrap();
    let data = sockets.path().join("data.sock");
    let more = format!(
        "[server]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\nsocket_mode = \"0660\"\n[[limit]]\nname = \"spend\"\nkey = \"global\"\n\
         cost_per_day = 1.0\n[[price]]\nmodel = \"*\"\ninput = 1.0\noutput = 1.0\n{ROUTE}limits = [\"spend\"]\n",
        data.display()
    );
    let mut proxy = Proxy::start_listening(&config(upstream.address, &more)).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o660);
    // Who answers has taken the signals over, too.
    assert_eq!(proxy.client().await.get("/", "").await.status, 200);
    proxy.signal("TERM");
    proxy.exited().await;
    let state = proxy.directory.path().join("streamgauge");
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("budgets.json")), 0o600);
}
