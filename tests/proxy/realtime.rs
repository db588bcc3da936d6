//! WebSockets of models: each response is read, priced and limited as a request of its own; a browser's key goes no further.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::{Proxy, Upstream, config, soon};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const ROUTE: &str = "[[route]]\nname = \"all\"\nupstream = \"fake\"\n";

/// A Realtime server, and the heads of the handshakes that it saw. A response reads 1,000 tokens and writes 100.
async fn realtime() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, seen.clone()));
        }
    });
    (address, heads)
}

async fn serve(stream: TcpStream, seen: mpsc::UnboundedSender<Vec<(String, String)>>) {
    #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
    let note = |request: &Request, mut answer: Response| {
        let fields = request.headers().iter();
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        seen.send(fields.map(|(name, value)| (name.to_string(), text(value))).collect()).unwrap();
        if request.headers().contains_key("sec-websocket-protocol") {
            answer.headers_mut().insert("sec-websocket-protocol", "realtime".parse().unwrap());
        }
        Ok(answer)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, note).await else { return };
    let mut number = 0;
    let say = |value: Value| Message::text(value.to_string());
    let audio = json!({ "input": { "transcription": { "model": "gpt-4o-transcribe" } } });
    let session = json!({ "type": "session.created", "session": { "model": "gpt-realtime", "audio": audio } });
    socket.send(say(session)).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        let has = |word: &str| message.to_text().is_ok_and(|text| text.contains(word));
        if has("input_audio_buffer.commit") {
            socket.send(say(json!({ "type": "input_audio_buffer.committed" }))).await.unwrap();
            let usage = json!({ "type": "tokens", "input_tokens": 13, "output_tokens": 9,
                "input_token_details": { "text_tokens": 3, "audio_tokens": 10 } });
            let kind = "conversation.item.input_audio_transcription.completed";
            socket.send(say(json!({ "type": kind, "transcript": "Hi", "usage": usage }))).await.unwrap();
            continue;
        }
        if has("a long story") {
            socket.send(say(json!({ "type": "response.created", "response": { "id": "resp_long" } }))).await.unwrap();
            continue;
        }
        if !message.to_text().is_ok_and(|text| text.contains("response.create")) {
            continue;
        }
        number += 1;
        let id = format!("resp_{number}");
        for event in [
            json!({ "type": "response.created", "response": { "id": id } }),
            json!({ "type": "response.output_text.delta", "response_id": id, "delta": "Hi" }),
            json!({ "type": "response.done", "response": { "id": id, "status": "completed", "usage": {
                "input_tokens": 1000, "output_tokens": 100, "input_token_details": { "audio_tokens": 500 } } } }),
        ] {
            socket.send(say(event)).await.unwrap();
        }
    }
}

async fn connect(proxy: &Proxy, id: &str, headers: &[(&'static str, &str)]) -> Socket {
    let mut request = format!("ws://{}/v1/realtime?model=gpt-realtime", proxy.listen).into_client_request().unwrap();
    request.headers_mut().insert("x-request-id", id.parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    soon("the handshake", tokio_tungstenite::connect_async(request)).await.unwrap().0
}

/// Asks for a response, and hears it to its end: the last message.
async fn ask(socket: &mut Socket) -> Value {
    socket.send(Message::text(r#"{"type":"response.create","response":{"max_output_tokens":100}}"#)).await.unwrap();
    loop {
        let message = soon("a message", socket.next()).await.unwrap().unwrap();
        let Ok(event) = serde_json::from_str::<Value>(message.to_text().unwrap()) else { continue };
        if event["type"] == "response.done" || event["type"] == "error" {
            return event;
        }
    }
}

#[tokio::test]
async fn each_response_is_told_with_its_tokens_and_cost() {
    let (address, _heads) = realtime().await;
    let proxy = Proxy::start(&config(address, ROUTE)).await;
    let mut socket = connect(&proxy, "ws", &[]).await;
    assert_eq!(ask(&mut socket).await["type"], "response.done");
    let first = proxy.line("the first response", |line| line["event"] == "llm.response").await;
    assert_eq!((&first["request_id"], &first["outcome"]), (&"ws".into(), &"completed".into()));
    assert_eq!(first["gen_ai.request.model"], "gpt-realtime");
    assert_eq!(
        (&first["gen_ai.usage.input_tokens"], &first["gen_ai.usage.output_tokens"]),
        (&1000.into(), &100.into())
    );
    // 500 x 4 + 500 of sound x 32 + 100 x 16 dollars per million.
    assert_eq!((&first["cost_usd"], &first["price_source"]), (&0.0196.into(), &"catalogue".into()), "{first}");
    assert!(first["ttft_s"].as_f64().is_some() && first["ttft_s"].as_f64() <= first["duration_s"].as_f64(), "{first}");
    ask(&mut socket).await;
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    let connection = proxy.line("the connection", |line| line["event"] == "http.request").await;
    let said = &connection["websocket"];
    assert_eq!(
        (&said["responses"], &said["input_tokens"], &said["cost_usd"]),
        (&2.into(), &2000.into(), &0.0392.into())
    );
    let (_, metrics) = proxy.admin_get("/metrics").await;
    for series in [
        "streamgauge_tokens_total{route=\"all\",upstream=\"fake\",model=\"gpt-realtime\",type=\"output\"} 200",
        "streamgauge_cost_usd_total{route=\"all\",model=\"gpt-realtime\",team=\"none\"} 0.0392",
        "gen_ai_server_time_to_first_token_seconds_count{route=\"all\",upstream=\"fake\",variant=\"fake\",gen_ai_request_model=\"gpt-realtime\",gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\"} 2",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }
    let requests = metrics.lines().filter(|line| line.starts_with("streamgauge_requests_total{")).collect::<Vec<_>>();
    assert!(requests.len() == 1 && requests[0].ends_with(" 1"), "the connection is one request: {requests:?}");
}

#[tokio::test]
async fn a_transcript_is_told_and_charged_and_what_runs_on_a_connection_takes_no_second_place() {
    let (address, _heads) = realtime().await;
    let limit =
        "limits = [\"l\"]\n[[limit]]\nname = \"l\"\nkey = \"global\"\ntokens_per_minute = 100000\nconcurrent = 2\n";
    let proxy = Proxy::start(&config(address, &format!("{ROUTE}{limit}"))).await;
    let mut socket = connect(&proxy, "ws", &[]).await;
    socket.send(Message::text(r#"{"type":"input_audio_buffer.commit"}"#)).await.unwrap();
    let told = proxy.line("the transcript", |line| line["event"] == "llm.response").await;
    assert_eq!(
        (&told["gen_ai.operation.name"], &told["gen_ai.request.model"], &told["outcome"]),
        (&"transcription".into(), &"gpt-4o-transcribe".into(), &"completed".into())
    );
    // 3 x 2.5 + 10 of sound x 6 + 9 x 10 dollars per million.
    assert_eq!((&told["gen_ai.usage.input_tokens"], &told["cost_usd"]), (&13.into(), &0.0001575.into()), "{told}");
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let used = "streamgauge_limit_used_tokens_total{limit=\"l\"} 22";
    assert!(metrics.contains(used), "{used} in {metrics}");

    socket.send(Message::text(r#"{"type":"response.create","instructions":"a long story"}"#)).await.unwrap();
    loop {
        let message = soon("a message", socket.next()).await.unwrap().unwrap();
        if message.to_text().unwrap().contains("resp_long") {
            break;
        }
    }
    connect(&proxy, "another", &[]).await;
}

#[tokio::test]
async fn responses_take_of_limits_until_one_refuses() {
    let (address, _heads) = realtime().await;
    let limit =
        "limits = [\"l\"]\n[[limit]]\nname = \"l\"\nkey = \"global\"\ntokens_per_minute = 2000\nconcurrent = 1\n";
    let proxy = Proxy::start(&config(address, &format!("{ROUTE}{limit}"))).await;
    let mut socket = connect(&proxy, "ws", &[]).await;
    assert_eq!(ask(&mut socket).await["type"], "response.done");
    let first = proxy.line("the first response", |line| line["event"] == "llm.response").await;
    assert_eq!((&first["limit"]["decision"], &first["limit"]["used"]), (&"admitted".into(), &1100.into()), "{first}");
    // The next one reads the first again: 1,100 tokens, and 100 for its answer.
    let refused = ask(&mut socket).await;
    assert_eq!((&refused["type"], &refused["error"]["code"]), (&"error".into(), &"rate_limit_exceeded".into()));
    let Some(Ok(Message::Close(Some(close)))) = soon("the close", socket.next()).await else { panic!("no close") };
    assert_eq!(u16::from(close.code), 1008);
    let second = proxy
        .line("the second response", |line| line["event"] == "llm.response" && line["outcome"] == "rejected")
        .await;
    assert_eq!((&second["limit"]["by"], &second["error_type"]), (&"l".into(), &"rate_limited".into()), "{second}");
    let connection = proxy.line("the connection", |line| line["event"] == "http.request").await;
    assert_eq!((&connection["outcome"], &connection["error_type"]), (&"truncated".into(), &"rate_limited".into()));
}

/// What a client can send so that a backend which forgives starts a response.
fn disguises() -> Vec<(&'static str, Vec<Message>)> {
    let create = r#"{"type":"response.create","response":{"max_output_tokens":100}}"#;
    let piece = |text: &str, opcode, is_last| {
        Message::Frame(Frame::message(text.as_bytes().to_vec(), OpCode::Data(opcode), is_last))
    };
    let strange = (0..40).map(|_| Message::text("x"));
    vec![
        ("plain", vec![Message::text(create)]),
        ("binary", vec![Message::binary(create.as_bytes().to_vec())]),
        ("binary, with spaces before it", vec![Message::binary(format!(" \r\n{create}").into_bytes())]),
        ("in pieces", vec![piece(&create[..9], Data::Text, false), piece(&create[9..], Data::Continue, true)]),
        ("binary in pieces", vec![piece(&create[..9], Data::Binary, false), piece(&create[9..], Data::Continue, true)]),
        ("after much that nobody knows", strange.chain([Message::text(create)]).collect()),
        ("long", vec![Message::text(create.replace('{', &format!("{{{}", " ".repeat(3 << 20))))]),
        ("of two kinds", vec![Message::text(create.replace("{\"type\"", "{\"type\":\"session.update\",\"type\""))]),
        ("in another case", vec![Message::text(create.replace("type", "Type"))]),
        ("with a mark before it", vec![Message::text(format!("\u{feff}{create}"))]),
        ("with NaN", vec![Message::text(create.replace("100", "100,\"temperature\":NaN"))]),
    ]
}

#[tokio::test]
async fn no_message_gets_around_a_limit_by_what_it_looks_like() {
    let (address, _heads) = realtime().await;
    let limit = "limits = [\"l\"]\n[[limit]]\nname = \"l\"\nkey = \"global\"\ntokens_per_minute = 20\n";
    let proxy = Proxy::start(&config(address, &format!("{ROUTE}{limit}"))).await;
    for (name, messages) in disguises() {
        let mut socket = connect(&proxy, "ws", &[]).await;
        for message in messages {
            // The proxy may have closed already.
            let _ = socket.send(message).await;
        }
        let mut closed = None;
        while let Some(Ok(message)) = soon(name, socket.next()).await {
            assert!(!message.to_text().is_ok_and(|text| text.contains("response.created")), "{name}: {message}");
            if let Message::Close(frame) = message {
                closed = frame.map(|frame| u16::from(frame.code));
            }
        }
        assert_eq!(closed, Some(1008), "{name}");
    }
}

#[tokio::test]
async fn a_binary_message_is_counted_as_a_text() {
    let (address, _heads) = realtime().await;
    let limit = "limits = [\"l\"]\n[[limit]]\nname = \"l\"\nkey = \"global\"\ntokens_per_minute = 20_000\n";
    let proxy = Proxy::start(&config(address, &format!("{ROUTE}{limit}"))).await;
    let mut socket = connect(&proxy, "ws", &[]).await;
    // Sound goes by.
    socket.send(Message::binary(vec![0, 1, 2, b'{'])).await.unwrap();
    socket.send(Message::binary(br#"{"type":"response.create"}"#.to_vec())).await.unwrap();
    let response = proxy.line("the response", |line| line["event"] == "llm.response").await;
    assert_eq!(response["limit"]["used"], 1100, "{response}");
}

#[tokio::test]
async fn a_browsers_key_is_identity_and_goes_no_further() {
    let (address, mut heads) = realtime().await;
    let (entry, key) = crate::identity::key("alice");
    let text = config(address, &format!("[identity]\nrequired = true\n{entry}\n{ROUTE}"));
    let own = text.replace("url =", "api_key_env = \"THE_KEY\"\nurl =");
    let offer = format!("realtime, openai-insecure-api-key.{key}, openai-beta.realtime-v1");
    for (text, authorization) in [(text, None), (own, Some("Bearer upstream-secret"))] {
        let proxy = Proxy::start_with(&text, &[("THE_KEY", "upstream-secret")]).await;
        let mut socket = connect(&proxy, "ws", &[("sec-websocket-protocol", &offer)]).await;
        let head = soon("the handshake", heads.recv()).await.unwrap();
        let field = |name: &str| head.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(field("sec-websocket-protocol"), Some("realtime, openai-beta.realtime-v1"));
        assert_eq!(field("authorization"), authorization);
        assert!(!head.iter().any(|(_, value)| value.contains(&key)), "{head:?}");
        socket.close(None).await.unwrap();
        let record = proxy.line("the connection", |line| line["http.response.status_code"] == 101).await;
        assert_eq!(record["user.id"], "alice");
    }
}

#[tokio::test]
async fn a_backends_own_key_passes_unless_there_is_another_for_it() {
    let (address, mut heads) = realtime().await;
    let text = config(address, ROUTE);
    let own = text.replace("url =", "api_key_env = \"THE_KEY\"\nurl =");
    let offer = "realtime, openai-insecure-api-key.of-the-backend";
    for (text, passes) in [(text, offer), (own, "realtime")] {
        let proxy = Proxy::start_with(&text, &[("THE_KEY", "upstream-secret")]).await;
        let mut socket = connect(&proxy, "ws", &[("sec-websocket-protocol", offer)]).await;
        let head = soon("the handshake", heads.recv()).await.unwrap();
        let offered = head.iter().find(|(name, _)| name == "sec-websocket-protocol").map(|(_, value)| value.as_str());
        assert_eq!(offered, Some(passes));
        socket.close(None).await.unwrap();
    }
}

/// A frame with a mask of zeros, so that its payload stands as it is.
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 126 | if masked { 0x80 } else { 0 }];
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(if masked { &[0; 4][..] } else { &[] });
    bytes.extend(payload);
    bytes
}

/// Deflates messages, each with what came before it.
fn deflated(stream: &mut flate2::Compress, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 1_024);
    stream.compress_vec(text.as_bytes(), &mut out, flate2::FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

#[tokio::test]
async fn deflated_messages_pass_unchanged_and_are_read() {
    let mut stream = flate2::Compress::new(flate2::Compression::default(), false);
    let events = [
        r#"{"type":"response.created","response":{"id":"r1","model":"gpt-realtime"}}"#,
        r#"{"type":"response.output_text.delta","response_id":"r1","delta":"Hi"}"#,
        r#"{"type":"response.done","response":{"id":"r1","model":"gpt-realtime","status":"completed","usage":{"input_tokens":7,"output_tokens":3}}}"#,
    ];
    let answer: Vec<u8> = events.iter().flat_map(|event| frame(0xc1, false, &deflated(&mut stream, event))).collect();
    let sent = answer.clone();
    let upstream = Upstream::start(move |mut conn| {
        let answer = answer.clone();
        async move {
            conn.head().await.unwrap();
            conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n").await;
            // In pieces that end inside frames.
            for piece in answer.chunks(11) {
                conn.write(piece).await;
            }
            conn.closed().await;
        }
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.send("GET /ws HTTP/1.1\r\nhost: a\r\nx-request-id: ws\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n").await;
    client.head().await;
    let received = soon("the frames", client.exactly(sent.len())).await;
    assert_eq!(received, sent);
    let response = proxy.line("the response", |line| line["event"] == "llm.response").await;
    assert_eq!(response["gen_ai.usage.input_tokens"], 7, "{response}");
}
