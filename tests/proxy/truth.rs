//! The numbers are true: a clock outside the proxy saw each event sent and received, and what the proxy says of a stream lies
//! between the two.
//!
//! The fake backend stamps an event before it writes and after, the client when it has read it, on one monotonic clock. The
//! proxy saw it in between, so its interval between two events is at least (sent later − received earlier) and at most
//! (received later − sent earlier). A busy machine widens these bounds and cannot break them; over many streams the
//! median must lie within [`SLACK`] of them.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::support::{Client, Proxy, Upstream, config, soon};

/// What the proxy's numbers may be off by, at the median.
const SLACK: f64 = 0.002;

/// Streams of each dialect and version.
const STREAMS: usize = 9;

/// Milliseconds after the request at which each event is sent; what [`Shape::event`] makes of a number.
const SCRIPT: [u64; 7] = [20, 60, 75, 90, 140, 150, 165];

/// The gap that is longest: from the fourth event to the fifth.
const LONGEST: (usize, usize) = (3, 4);

/// A dialect, told by its bytes: the first event of [`SCRIPT`] is a preamble, then come tokens, and last the end.
/// Bare text knows neither: there all are tokens.
struct Shape {
    name: &'static str,
    path: &'static str,
    body: &'static str,
    /// Header lines of the answer, each ended by CRLF.
    head: &'static str,
    preamble: &'static str,
    token: &'static str,
    end: &'static str,
}

const SSE: &str = "content-type: text/event-stream\r\n";

const SHAPES: [Shape; 9] = [
    Shape {
        name: "openai_chat",
        path: "/v1/chat/completions",
        body: r#"{"model":"m","stream":true,"messages":[]}"#,
        head: SSE,
        preamble: "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        token: "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n",
        end: "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    },
    Shape {
        name: "anthropic",
        path: "/v1/messages",
        body: r#"{"model":"m","stream":true,"messages":[]}"#,
        head: SSE,
        preamble: "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"a\",\"model\":\"m\",\"usage\":{\"input_tokens\":1}}}\n\n",
        token: "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n",
        end: "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    },
    Shape {
        name: "ollama",
        path: "/api/chat",
        body: r#"{"model":"m","messages":[]}"#,
        head: "content-type: application/x-ndjson\r\n",
        preamble: "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":false}\n",
        token: "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"x\"},\"done\":false}\n",
        end: "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"eval_count\":5}\n",
    },
    Shape {
        name: "plain",
        path: "/stream",
        body: r#"{"messages":[]}"#,
        head: SSE,
        preamble: ": hello\n\n",
        token: "data: {\"token\":\"x\"}\n\n",
        end: "data: [DONE]\n\n",
    },
    Shape {
        name: "openai_responses",
        path: "/v1/responses",
        body: r#"{"model":"m","stream":true,"input":"hi"}"#,
        head: SSE,
        preamble: "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"object\":\"response\",\"status\":\"in_progress\",\"model\":\"m\"}}\n\n",
        token: "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n",
        end: "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"object\":\"response\",\"status\":\"completed\",\"model\":\"m\",\"usage\":{\"input_tokens\":1,\"output_tokens\":5}}}\n\n",
    },
    Shape {
        name: "gemini",
        path: "/v1beta/models/m:streamGenerateContent?alt=sse",
        body: r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#,
        head: SSE,
        preamble: "data: {\"usageMetadata\":{\"promptTokenCount\":1},\"modelVersion\":\"m\"}\n\n",
        token: "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}],\"role\":\"model\"},\"index\":0}]}\n\n",
        end: "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":1,\"candidatesTokenCount\":5}}\n\n",
    },
    Shape {
        name: "vercel_ui",
        path: "/api/ui",
        body: r#"{"messages":[]}"#,
        head: "content-type: text/event-stream\r\nx-vercel-ai-ui-message-stream: v1\r\n",
        preamble: "data: {\"type\":\"start\",\"messageId\":\"a\"}\n\ndata: {\"type\":\"text-start\",\"id\":\"t\"}\n\n",
        token: "data: {\"type\":\"text-delta\",\"id\":\"t\",\"delta\":\"x\"}\n\n",
        end: "data: {\"type\":\"text-end\",\"id\":\"t\"}\n\ndata: {\"type\":\"finish\"}\n\ndata: [DONE]\n\n",
    },
    Shape {
        name: "vercel_data",
        path: "/api/data",
        body: r#"{"messages":[]}"#,
        head: "content-type: text/plain; charset=utf-8\r\nx-vercel-ai-data-stream: v1\r\n",
        preamble: "f:{\"messageId\":\"a\"}\n",
        token: "0:\"x\"\n",
        end: "e:{\"finishReason\":\"stop\"}\nd:{\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":1,\"completionTokens\":5}}\n",
    },
    Shape {
        name: PLAIN_TEXT,
        path: "/text",
        body: r#"{"messages":[]}"#,
        head: "content-type: text/plain; charset=utf-8\r\n",
        preamble: "Once ",
        token: "again ",
        end: "and over.",
    },
];

const PLAIN_TEXT: &str = "plain_text";

impl Shape {
    /// The numbers of the events that carry tokens.
    fn tokens(&self) -> Range<usize> {
        if self.name == PLAIN_TEXT { 0..SCRIPT.len() } else { 1..SCRIPT.len() - 1 }
    }

    fn event(&self, number: usize) -> &'static str {
        match number {
            0 => self.preamble,
            _ if number + 1 == SCRIPT.len() => self.end,
            _ => self.token,
        }
    }
}

/// When something began and when it was surely over, on the clock that backend and client share.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    from: Instant,
    to: Instant,
}

/// What the backend saw of one stream: when it had the request, and each event's write.
#[derive(Debug, Clone)]
struct Sent {
    asked: Instant,
    events: Vec<Stamp>,
}

type Book = Arc<Mutex<Option<Sent>>>;

async fn backend(shape: &'static Shape) -> (Upstream, Book) {
    let sent = Book::default();
    let book = Arc::clone(&sent);
    let upstream = Upstream::start(move |mut conn| {
        let book = Arc::clone(&book);
        async move {
            while conn.request().await.is_some() {
                let start = Instant::now();
                let mut events = Vec::new();
                conn.write(format!("HTTP/1.1 200 OK\r\n{}transfer-encoding: chunked\r\n\r\n", shape.head)).await;
                for (number, at) in SCRIPT.iter().enumerate() {
                    // The script is what is measured: its times come from the clock that stamps.
                    sleep_until(start + Duration::from_millis(*at)).await;
                    let from = Instant::now();
                    conn.chunk(shape.event(number)).await;
                    events.push(Stamp { from, to: Instant::now() });
                }
                *book.lock().unwrap() = Some(Sent { asked: start, events });
                conn.chunk("").await;
            }
        }
    })
    .await;
    (upstream, sent)
}

/// What the client saw of one stream: when it began to ask, and when it had each event and the end.
struct Got {
    asked: Instant,
    events: Vec<Instant>,
    end: Instant,
}

/// Reads whole events as they come, by their known texts.
struct Events {
    shape: &'static Shape,
    text: String,
    times: Vec<Instant>,
    at: usize,
}

impl Events {
    fn of(shape: &'static Shape) -> Self {
        Self { shape, text: String::new(), times: Vec::new(), at: 0 }
    }

    /// `text` is everything so far.
    fn take(&mut self, now: Instant) {
        while self.times.len() < SCRIPT.len() {
            let wanted = self.shape.event(self.times.len());
            let Some(found) = self.text[self.at..].find(wanted) else { return };
            self.at += found + wanted.len();
            self.times.push(now);
        }
    }
}

async fn ask_h1(proxy: &Proxy, shape: &'static Shape, id: &str) -> Got {
    let mut client = Client::connect(proxy.listen).await;
    let asked = Instant::now();
    client.post(shape.path, shape.body, &format!("x-request-id: {id}\r\n")).await;
    let mut events = Events::of(shape);
    while events.times.len() < SCRIPT.len() {
        let wanted = events.times.len();
        events.text = soon("an event", client.read_more()).await;
        events.take(Instant::now());
        assert!(events.times.len() >= wanted);
    }
    client.until("\r\n0\r\n\r\n").await;
    Got { asked, events: events.times, end: Instant::now() }
}

async fn ask_h2(proxy: &Proxy, shape: &'static Shape, id: &str) -> Got {
    let stream = TcpStream::connect(proxy.listen).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = http::Request::post(format!("http://app.test{}", shape.path))
        .header("content-type", "application/json")
        .header("x-request-id", id)
        .body(())
        .unwrap();
    let asked = Instant::now();
    let (answer, mut body) = send.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(shape.body.as_bytes()), true).unwrap();
    let mut incoming = soon("an answer", answer).await.unwrap().into_body();
    let mut events = Events::of(shape);
    while let Some(piece) = soon("data", incoming.data()).await {
        let piece = piece.unwrap();
        incoming.flow_control().release_capacity(piece.len()).unwrap();
        events.text.push_str(std::str::from_utf8(&piece).unwrap());
        events.take(Instant::now());
    }
    let end = Instant::now();
    driver.abort();
    Got { asked, events: events.times, end }
}

/// How far the proxy's number lies outside of what the clock allows, in seconds: zero inside, negative below.
fn off(told: f64, least: Duration, most: Duration) -> f64 {
    let (least, most) = (least.as_secs_f64(), most.as_secs_f64());
    if told < least { told - least } else { (told - most).max(0.0) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The errors of one stream's numbers: first token, longest gap, all gaps, total.
fn errors(shape: &Shape, record: &Value, backend: &Sent, got: &Got) -> [f64; 3] {
    let told = |key: &str| record[key].as_f64().unwrap_or_else(|| panic!("{key} is missing in {record}"));
    let sent = &backend.events;
    let between = |first: usize, then: usize| {
        let least = sent[then].from.saturating_duration_since(got.events[first]);
        (least, got.events[then].saturating_duration_since(sent[first].from))
    };
    // The proxy's zero is after the client began to ask, and before the backend had the request.
    let first = shape.tokens().start;
    let first_token = off(
        told("ttft_s"),
        sent[first].from.saturating_duration_since(backend.asked),
        got.events[first].saturating_duration_since(got.asked),
    );
    let (least, most) = between(LONGEST.0, LONGEST.1);
    let gap = off(told("max_gap_s"), least, most.max(widest(shape, sent, got)));
    let last = sent.last().unwrap().from;
    let total = off(
        told("duration_s"),
        last.saturating_duration_since(backend.asked),
        got.end.saturating_duration_since(got.asked),
    );
    [first_token, gap, total]
}

/// The longest gap that any two neighbouring tokens may have had: a stalled machine makes another the longest.
fn widest(shape: &Shape, sent: &[Stamp], got: &Got) -> Duration {
    shape.tokens().skip(1).map(|then| got.events[then].saturating_duration_since(sent[then - 1].from)).max().unwrap()
}

async fn measure(shape: &'static Shape, h2: bool) {
    let (upstream, sent) = backend(shape).await;
    let proxy = Proxy::start(&config(
        upstream.address,
        "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n",
    ))
    .await;
    let mut all = Vec::new();
    for number in 0..STREAMS {
        let id = format!("{}-{number}", shape.name);
        let got = if h2 { ask_h2(&proxy, shape, &id).await } else { ask_h1(&proxy, shape, &id).await };
        let record = proxy.record(&id).await;
        assert_eq!(record["outcome"], "completed", "{record}");
        let sent = sent.lock().unwrap().take().unwrap();
        assert_eq!((sent.events.len(), got.events.len()), (SCRIPT.len(), SCRIPT.len()), "{}", shape.name);
        assert!(sent.events.iter().all(|stamp| stamp.from <= stamp.to));
        all.push(errors(shape, &record, &sent, &got));
    }
    for (number, what) in ["time to first token", "longest gap", "total"].into_iter().enumerate() {
        let off = median(all.iter().map(|errors| errors[number]).collect());
        let version = if h2 { "HTTP/2" } else { "HTTP/1.1" };
        assert!(off.abs() <= SLACK, "{}, {version}: {what} is off by {off} s: {all:?}", shape.name);
    }
}

async fn measure_all(h2: bool) {
    // Side by side: each has a proxy of its own, and they mostly wait.
    let tasks: Vec<_> = SHAPES.iter().map(|shape| tokio::spawn(measure(shape, h2))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_agree_with_an_independent_clock_over_http1() {
    measure_all(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_agree_with_an_independent_clock_over_http2() {
    measure_all(true).await;
}
