//! What counting tokens costs: of a prompt, and of each event that passes.
//!
//! `cargo bench --no-default-features --bench count`. The mark: a prompt of `PROMPT_MAX` bytes within 1 ms.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use streamgauge::llm::Dialect;
use streamgauge::llm::sse::Event;
use streamgauge::llm::token_count::{AnswerCounter, Encoding, PROMPT_MAX, count_prompt};

const PROSE: &str = "The gauge stood two metres above the mean, and the river carried 1,840 m³/s past the old bridge. ";
const CODE: &str = "    if let Some(level) = gauge.read(&now)? {\n        levels.push((station_id, level));\n    }\n";
const CHINESE: &str = "水文站的水位计显示河水比平均水位高出两米，老桥下的流量正在增加。";

/// As most of a stream is.
const CHUNK: &str = concat!(
    r#"{"id":"chatcmpl-C9aXb1","object":"chat.completion.chunk","created":1761000000,"model":"gpt-4o-mini","#,
    r#""choices":[{"index":0,"delta":{"content":" river"},"logprobs":null,"finish_reason":null}]}"#,
);

const PLAIN: &str = "{\"token\": \" river\", \"index\": 17}";

fn chat(text: &str, bytes: usize) -> String {
    let mut content = String::new();
    while serde_json::to_string(&content).unwrap_or_default().len() + 2 * text.len() + 100 < bytes {
        content.push_str(text);
    }
    serde_json::json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": content }] }).to_string()
}

/// Texts that a tokenizer takes longest for: a request that is refused must not cost more than one that is served.
const HOSTILE: [(&str, &str); 8] = [
    ("dashes", "-"),
    ("equals", "="),
    ("spaces", " "),
    (
        "spaces_between",
        concat!(
            "                                ",
            "                                ",
            "                                ",
            "x"
        ),
    ),
    (
        "dashes_between",
        "----------------------------------------------------------------------------------------------------a",
    ),
    ("letters", "a"),
    ("mixed_case", "aA"),
    ("joined", "👨‍👩‍👧"),
];

fn prompts(c: &mut Criterion) {
    Encoding::O200k.prepare();
    let mut group = c.benchmark_group("prompt");
    let bodies = [
        ("prose", PROSE, 4 << 10),
        ("prose", PROSE, PROMPT_MAX),
        ("code", CODE, PROMPT_MAX),
        ("chinese", CHINESE, PROMPT_MAX),
    ];
    let hostile = HOSTILE.map(|(name, text)| (name, text, PROMPT_MAX));
    for (name, text, bytes) in bodies.into_iter().chain(hostile) {
        let body = chat(text, bytes);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{name}_{}_kb", bytes >> 10), |b| {
            b.iter(|| count_prompt(Dialect::OpenAiChat, Some("gpt-4o"), black_box(body.as_bytes())));
        });
    }
}

fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("answer");
    for (name, data) in [("openai_chat", CHUNK), ("plain_json", PLAIN), ("plain", " river")] {
        group.throughput(Throughput::Bytes(data.len() as u64));
        let mut counter = AnswerCounter::new(Some("gpt-4o"));
        group.bench_function(name, |b| b.iter(|| counter.event(Event::of(black_box(data.as_bytes())))));
        assert!(counter.total() > 0);
    }
}

criterion_group!(benches, prompts, answers);
criterion_main!(benches);
