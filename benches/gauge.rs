//! What the gauge costs for each event that passes.
//!
//! `cargo bench --no-default-features --bench gauge`. The mark: under 1 µs for a 200-byte OpenAI chunk.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use streamgauge::llm::request::RequestFacts;
use streamgauge::llm::{Dialect, Framing, Gauge, StreamRules};

/// 200 bytes with the blank line.
const OPENAI: &str = concat!(
    r#"data: {"id":"chatcmpl-C9aXb1","object":"chat.completion.chunk","created":1761000000,"model":"gpt-4o-mini","#,
    r#""choices":[{"index":0,"delta":{"content":" river"},"logprobs":null,"finish_reason":null}]}"#,
    "\r\n\r\n"
);

const ANTHROPIC: &str = concat!(
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" river"}}"#,
    "\n\n"
);

const OLLAMA: &str = concat!(
    r#"{"model":"llama3.2","created_at":"2025-10-20T12:00:00.000000Z","message":"#,
    r#"{"role":"assistant","content":" river"},"done":false}"#,
    "\n"
);

const RESPONSES: &str = concat!(
    "event: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","sequence_number":9,"item_id":"msg_68c1","output_index":0,"#,
    r#""content_index":0,"delta":" river","logprobs":[],"obfuscation":"kq8R2xPz"}"#,
    "\n\n"
);

const GEMINI: &str = concat!(
    r#"data: {"candidates": [{"content": {"parts": [{"text": " river"}],"role": "model"},"index": 0}],"#,
    r#""usageMetadata": {"promptTokenCount": 8,"totalTokenCount": 9},"modelVersion": "gemini-2.5-flash"}"#,
    "\r\n\r\n"
);

const VERCEL_UI: &str = "data: {\"type\":\"text-delta\",\"id\":\"txt-0\",\"delta\":\" river\"}\n\n";

const PLAIN: &str = "data: {\"token\": \" river\", \"index\": 17}\n\n";

fn gauge(dialect: Dialect, framing: Framing, rules: StreamRules) -> Gauge {
    Gauge::new(dialect, framing, Arc::new(rules), Duration::from_secs(2))
}

/// An event as it comes in a stream: each time with another text.
fn texts(event: &str) -> Vec<String> {
    [" river", " is", ".", " high"].map(|text| event.replace(" river", text)).into()
}

/// Feeds events in turn, again and again, in `pieces` reads each.
fn event(c: &mut Criterion, name: &str, mut gauge: Gauge, events: &[String], pieces: usize) {
    let mut group = c.benchmark_group("event");
    let mut now = Duration::ZERO;
    let mut turn = events.iter().cycle();
    group.bench_function(name, |b| {
        b.iter(|| {
            now += Duration::from_millis(1);
            let event = turn.next().map(String::as_bytes).unwrap_or_default();
            for piece in event.chunks(event.len().div_ceil(pieces)) {
                black_box(gauge.feed(black_box(piece), now));
            }
        });
    });
    assert!(gauge.reading().token_frames > 0 && gauge.reading().token_frames == gauge.reading().frames);
}

fn events(c: &mut Criterion) {
    assert_eq!(OPENAI.len(), 200);
    let plain = StreamRules::default;
    let token = StreamRules::read("text = '/token'").unwrap_or_default();
    let chat = || gauge(Dialect::OpenAiChat, Framing::Sse, plain());
    // No two in turn are alike but for their text: each is read in full.
    let unlike: Vec<_> = (0..4).map(|n| OPENAI.replace("1761000000", &format!("176100000{n}"))).collect();
    event(c, "openai_chat", chat(), &texts(OPENAI), 1);
    event(c, "openai_chat_in_two_reads", chat(), &texts(OPENAI), 2);
    event(c, "openai_chat_unlike", chat(), &unlike, 1);
    let mut counted = chat();
    counted.count(Some("gpt-4o"));
    event(c, "openai_chat_counted", counted, &texts(OPENAI), 1);
    event(c, "anthropic", gauge(Dialect::Anthropic, Framing::Sse, plain()), &texts(ANTHROPIC), 1);
    event(c, "openai_responses", gauge(Dialect::OpenAiResponses, Framing::Sse, plain()), &texts(RESPONSES), 1);
    event(c, "gemini", gauge(Dialect::Gemini, Framing::Sse, plain()), &texts(GEMINI), 1);
    event(c, "vercel_ui", gauge(Dialect::VercelUi, Framing::Sse, plain()), &texts(VERCEL_UI), 1);
    event(c, "vercel_data", gauge(Dialect::VercelData, Framing::JsonLines, plain()), &texts("0:\" river\"\n"), 1);
    event(c, "ollama", gauge(Dialect::Ollama, Framing::JsonLines, plain()), &texts(OLLAMA), 1);
    event(c, "plain", gauge(Dialect::PlainSse, Framing::Sse, plain()), &texts(PLAIN), 1);
    event(c, "plain_pointer", gauge(Dialect::PlainSse, Framing::Sse, token), &texts(PLAIN), 1);
    event(c, "text", gauge(Dialect::PlainText, Framing::Opaque, plain()), &texts(" river"), 1);
}

fn start(c: &mut Criterion) {
    let rules = Arc::new(StreamRules::default());
    c.bench_function("new_gauge", |b| {
        b.iter_batched(
            || Arc::clone(&rules),
            |rules| Gauge::new(Dialect::OpenAiChat, Framing::Sse, rules, Duration::from_secs(2)),
            BatchSize::SmallInput,
        );
    });
    let words = "water ".repeat(1_000);
    let body = format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{words}"}}],"stream":true,"temperature":0.2}}"#
    );
    assert!(RequestFacts::read("/v1/chat/completions", Some(body.as_bytes())).stream == Some(true));
    let mut group = c.benchmark_group("request");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("facts_of_6_kb", |b| {
        b.iter(|| RequestFacts::read("/v1/chat/completions", Some(black_box(body.as_bytes()))));
    });
}

criterion_group!(benches, events, start);
criterion_main!(benches);
