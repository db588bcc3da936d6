//! Backends die and come back, configurations change, all under load: nobody notices who need not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::support::backend::{Act, Backend, Log, STOP, table, token};
use crate::support::{Proxy, Upstream, soon};
use crate::traces::{attribute, http_collector};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// What one request of the load came to.
#[derive(Debug)]
struct Told {
    id: String,
    status: u16,
    whole: bool,
    text: String,
}

/// Sends requests one after the other until told to stop.
async fn load(proxy: &Proxy, client: usize, stop: &AtomicBool, ended: &AtomicUsize) -> Vec<Told> {
    let mut told = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let id = format!("c{client}-{}", told.len());
        let mut connection = proxy.client().await;
        connection.post("/v1/chat/completions", CHAT, &format!("x-request-id: {id}\r\nconnection: close\r\n")).await;
        let answer = connection.answer().await;
        told.push(Told { id, status: answer.status, whole: answer.whole, text: answer.text() });
        ended.fetch_add(1, Ordering::SeqCst);
    }
    told
}

/// Three tokens, slowly enough to be killed between any two bytes.
fn paced() -> Vec<Act> {
    vec![Act::Paced { first: Duration::from_millis(4), then: Duration::from_millis(2), tokens: 3 }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_killed_and_restarted_under_load_costs_only_the_streams_that_it_had_begun() {
    const CLIENTS: usize = 12;
    const KILLS: usize = 8;
    let (log, steady) = (Log::default(), Backend::start("steady", paced()).await);
    let listener = Backend::listener().await;
    let address = listener.local_addr().unwrap();
    let text = format!(
        "{}{}[[route]]\ntargets = [{{ upstream = \"mortal\" }}, {{ upstream = \"steady\" }}]\n\
         sticky = \"none\"\nretries = {{ attempts = 3, budget = 1.0 }}\n",
        table("mortal", address, "health = { path = \"/\", interval = \"20ms\" }"),
        steady.table("")
    );
    let proxy = Proxy::start(&text).await;
    let (stop, ended) = (AtomicBool::new(false), AtomicUsize::new(0));
    let more = |than: usize| {
        let ended = &ended;
        soon("the load to go on", async move {
            while ended.load(Ordering::SeqCst) < than {
                tokio::task::yield_now().await;
            }
        })
    };
    let clients = join_all((0..CLIENTS).map(|client| load(&proxy, client, &stop, &ended)));
    let kills = async {
        let mut mortal = Some(Backend::play("mortal", listener, log.clone(), paced()));
        for _ in 0..KILLS {
            more(ended.load(Ordering::SeqCst) + 2 * CLIENTS).await;
            // Its listener and its connections go at once, as with SIGKILL.
            drop(mortal.take());
            more(ended.load(Ordering::SeqCst) + 2 * CLIENTS).await;
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            mortal = Some(Backend::play("mortal", listener, log.clone(), paced()));
            // Five cut streams in a row take it out for ten seconds, which is longer than this load: each kill is to find it
            // in use again.
            for command in ["drain", "enable"] {
                let (status, said) = proxy.admin_post(&format!("/api/levers/{command}?what=mortal")).await;
                assert_eq!(status, 200, "{said}");
            }
            let asked = log.count();
            soon("the restarted one to be in use", async {
                while log.count() == asked {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        more(ended.load(Ordering::SeqCst) + 2 * CLIENTS).await;
        stop.store(true, Ordering::SeqCst);
        mortal
    };
    let (told, mortal) = tokio::join!(clients, kills);
    drop(mortal);

    let told: Vec<Told> = told.into_iter().flatten().collect();
    let (mut cut, mut replaced) = (0, 0);
    let (at_mortal, at_steady) = (log.by_id(), steady.log.by_id());
    for request in &told {
        assert_eq!(request.status, 200, "{request:?}");
        let (mortal, steady) = (request.text.contains("\"mortal\""), request.text.contains("\"steady\""));
        assert!(!(mortal && steady), "two backends in one answer: {request:?}");
        if request.whole {
            assert!(request.text.ends_with(STOP) && request.text.matches("content").count() == 3, "{request:?}");
        } else {
            assert!(mortal, "only a stream that the killed one had begun may be cut: {request:?}");
            cut += 1;
        }
        let record = proxy.record(&request.id).await;
        let attempts = record["attempts"].as_array().unwrap();
        let seen = [&at_mortal, &at_steady].map(|log| log.get(&request.id).copied().unwrap_or(0));
        assert!(seen.iter().sum::<usize>() <= attempts.len(), "asked without an attempt: {record} {seen:?}");
        assert!(seen.iter().all(|times| *times <= 1), "asked twice at one place: {record} {seen:?}");
        assert!(attempts.len() <= 3 && (attempts.len() > 1 || seen.iter().sum::<usize>() <= 1), "{record}");
        if attempts.len() > 1 {
            replaced += 1;
            assert!(attempts[0]["error_type"].is_string(), "each replacement has its reason: {record}");
            assert!(record["phases"]["failed_attempts"].as_f64().unwrap() > 0.0, "{record}");
        }
    }
    println!("{} requests, {replaced} replaced, {cut} cut after their first token", told.len());
    assert!(told.len() >= 4 * KILLS * CLIENTS && replaced > 0, "{} requests, {replaced} replaced", told.len());
}

#[tokio::test]
async fn a_failover_is_explained_in_one_span_tree() {
    let (collector, mut spans) = http_collector().await;
    let first = Backend::start("first", vec![Act::Status(503, "")]).await;
    let second = Backend::start("second", vec![Act::Stream]).await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1.0\n{}{}[[route]]\n\
         targets = [{{ upstream = \"first\" }}]\nfallback = [{{ upstream = \"second\" }}]\n",
        collector.address,
        first.table(""),
        second.table("")
    );
    let proxy = Proxy::start_with(&text, &[("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    assert_eq!(client.answer().await.status, 200);
    let mut got = Vec::new();
    while got.len() < 4 {
        got.push(soon("a span", spans.recv()).await.unwrap());
    }
    let server = got.iter().find(|span| span.kind == 2).unwrap();
    let logical = got.iter().find(|span| span.parent_span_id == server.span_id).unwrap();
    let mut attempts: Vec<_> = got.iter().filter(|span| span.parent_span_id == logical.span_id).collect();
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    let [lost, won] = attempts[..] else { panic!("{attempts:?}") };
    assert!(got.iter().all(|span| span.trace_id == server.trace_id));
    assert_eq!(attribute(lost, "streamgauge.upstream"), "first");
    assert_eq!(attribute(lost, "error.type"), "upstream_status");
    assert_eq!(attribute(lost, "http.response.status_code"), "503");
    assert_eq!(attribute(won, "streamgauge.upstream"), "second");
    assert_eq!(attribute(won, "http.request.resend_count"), "1");
    let failover = logical.events.iter().find(|event| event.name == "streamgauge.failover").unwrap();
    assert_eq!(failover.time_unix_nano, won.start_time_unix_nano);
    for (seen, span) in [(&first.log.all()[0], lost), (&second.log.all()[0], won)] {
        let id: String = span.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(seen.header("traceparent").unwrap().contains(&id), "what went out names its own attempt");
    }
}

/// A WebSocket backend that says "end" and closes when the gate opens.
async fn sockets(gate: Arc<Semaphore>) -> Upstream {
    Upstream::start(move |mut conn| {
        let gate = Arc::clone(&gate);
        async move {
            conn.head().await;
            conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
            drop(gate.acquire().await.unwrap());
            conn.write(b"\x81\x03end\x88\x02\x03\xe8").await;
            conn.closed().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_live_streams_cut_none() {
    const STREAMS: usize = 250;
    const RELOADS: u64 = 1_000;
    let gate = Arc::new(Semaphore::new(0));
    let backend = Backend::start("sse", vec![Act::Held(token("begun"), Arc::clone(&gate))]).await;
    let sockets = sockets(Arc::clone(&gate)).await;
    let other = Backend::start("other", vec![Act::Stream]).await;
    let config = |turn: u64| {
        // Endpoints come and go, timeouts change: upstreams are rebuilt under the streams.
        let more = if turn.is_multiple_of(2) { format!(", \"http://{}\"", other.address()) } else { String::new() };
        format!(
            "[[upstream]]\nname = \"sse\"\nurls = [\"http://{}\"{more}]\n{}[[route]]\npath = \"/ws\"\nupstream = \"ws\"\n\
             [[route]]\nname = \"rest\"\nupstream = \"sse\"\ntimeouts = {{ stall = \"{}s\" }}\n",
            backend.address(),
            table("ws", sockets.address, ""),
            600 + turn
        )
    };
    let proxy = Proxy::start(&config(1)).await;
    let mut streams = Vec::new();
    for stream in 0..STREAMS {
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, &format!("x-request-id: sse{stream}\r\n")).await;
        client.until("begun").await;
        let mut socket = proxy.client().await;
        socket
            .send(format!(
                "GET /ws HTTP/1.1\r\nhost: a\r\nx-request-id: ws{stream}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .await;
        assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
        streams.push((client, socket));
    }
    let mut generation = 0;
    let mut turn = 1;
    while generation <= RELOADS {
        turn += 1;
        proxy.write_config(&config(turn));
        let (status, told) = proxy.admin_post("/api/reload").await;
        assert!(status == 200 || status == 503, "{told}");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        generation = told["generation"].as_u64().unwrap_or(generation);
    }
    gate.add_permits(1);
    for (stream, (client, socket)) in streams.iter_mut().enumerate() {
        let answer = client.answer().await;
        assert!(answer.whole && answer.text().ends_with(STOP), "sse{stream}: {}", answer.text());
        socket.until("end").await;
    }
    let records = futures_util::stream::iter(0..STREAMS).then(|stream| {
        let proxy = &proxy;
        async move { proxy.record(&format!("sse{stream}")).await }
    });
    let records: Vec<_> = records.collect().await;
    for record in &records {
        assert_eq!((&record["outcome"], &record["config_generation"]), (&"completed".into(), &1.into()), "{record}");
    }
}
