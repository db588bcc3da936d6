//! What is fuzzed, in one place: `fuzz_targets` hand these functions to libFuzzer, and `tests/fuzz.rs` runs them over
//! mutations of the corpus. Each takes any bytes, and panics where a promise is broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod memory;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use streamgauge::llm::dialect::shape;
use streamgauge::llm::ndjson::LineScanner;
use streamgauge::llm::request::form::{Form, FormKind};
use streamgauge::llm::request::lenient_json;
use streamgauge::llm::sse::{EVENT_LIMIT, Frame, SseScanner};
use streamgauge::llm::token_count::count_prompt;
use streamgauge::llm::usage_injection::{UsageFilter, with_usage};
use streamgauge::llm::{Dialect, Framing, Gauge, Reading, RequestFacts, StreamEnd, StreamRules};

/// A function that is fuzzed.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 5] =
    [("scanner", scanner), ("gauge", gauge), ("filter", filter), ("request", request), ("json", json)];

/// Most that a reader may hold of a stream: an event up to its limit, in buffers that grow by doubling (while one grows,
/// the old and the new exist), and little beside.
pub const HELD_MAX: usize = 3 * EVENT_LIMIT + (64 << 10);

/// Bytes asked for per byte fed, and at most so many for nothing: a generous line that no square stays under for long.
const TOTAL_PER_BYTE: usize = 64;
const TOTAL_AT_REST: usize = 64 << 10;

const FRAMINGS: [Framing; 5] = [Framing::Sse, Framing::JsonLines, Framing::Json, Framing::Opaque, Framing::JsonValues];

const PATHS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/responses",
    "/api/chat",
    "/api/generate",
    "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
    "/v1/completions",
    "/ask",
];

/// A stream as `target` takes it: behind the bytes that choose how it is read.
pub fn seed(target: &str, dialect: Dialect, framing: Framing, stream: &[u8]) -> Vec<u8> {
    let place = |at: Option<usize>| u8::try_from(at.unwrap_or_default()).unwrap_or_default();
    let dialect = place(Dialect::ALL.iter().position(|other| *other == dialect));
    let framing = place(FRAMINGS.iter().position(|other| *other == framing));
    let choices: &[u8] = match target {
        "gauge" => &[dialect, framing, 7],
        "json" => &[],
        _ => &[7],
    };
    [choices, stream].concat()
}

/// Both scanners: any pieces give the same events and the same boundary, and little is held.
pub fn scanner(data: &[u8]) {
    let Some((cuts, stream)) = data.split_first() else { return };
    let (whole, at_once) = sse_events(&[stream]);
    let (cut, in_pieces) = sse_events(&pieces(stream, *cuts));
    assert_eq!(whole, cut, "events");
    assert_eq!(at_once, in_pieces, "boundary");
    let (whole, at_once) = lines(&[stream]);
    let (cut, in_pieces) = lines(&pieces(stream, *cuts));
    assert_eq!(whole, cut, "lines");
    assert_eq!(at_once, in_pieces, "boundary");
    let pieces = pieces(stream, *cuts);
    hold("scanner", stream.len(), || {
        let (mut scanner, mut lines) = (SseScanner::default(), LineScanner::default());
        for piece in &pieces {
            scanner.feed(piece, |_| {});
            lines.feed(piece, |_| {});
        }
        scanner.finish(|_| {});
        lines.finish(|_| {});
    });
}

/// The gauge in any dialect and framing: any pieces give the same reading, and what it says holds together.
pub fn gauge(data: &[u8]) {
    let [dialect, setup, cuts, stream @ ..] = data else { return };
    let dialect = Dialect::ALL[usize::from(*dialect) % Dialect::ALL.len()];
    let framing = FRAMINGS[usize::from(setup & 7) % FRAMINGS.len()];
    let rules = if setup & 8 == 0 {
        StreamRules::default()
    } else {
        StreamRules::read("text = '/choices/0/token'\nerror = '/fault'\nusage = '/usage'\ndone = '<end>'").unwrap()
    };
    let end = if setup & 16 == 0 { StreamEnd::Clean } else { StreamEnd::Cut };
    let new = || Gauge::new(dialect, framing, Arc::new(rules.clone()), Duration::ZERO);
    let pieces = pieces(stream, *cuts);
    let (mut whole, mut cut) = (new(), new());
    whole.feed(stream, Duration::ZERO);
    hold("gauge", stream.len(), || {
        for piece in &pieces {
            cut.feed(piece, Duration::ZERO);
        }
    });
    assert_eq!(whole.at_boundary(), cut.at_boundary(), "boundary");
    whole.finish(end, Duration::ZERO);
    cut.finish(end, Duration::ZERO);
    let (expected, read) = (whole.reading(), cut.reading());
    assert_eq!((whole.dialect(), whole.framing()), (cut.dialect(), cut.framing()));
    assert_eq!(read.bytes, stream.len() as u64);
    if whole.framing() != Framing::Opaque {
        assert_eq!(expected, read, "reading");
    }
    is_sound(read);
}

/// The filter that takes usage chunks out: what it lets pass and what it takes are all there was, in any pieces.
pub fn filter(data: &[u8]) {
    let Some((cuts, stream)) = data.split_first() else { return };
    let pass = |pieces: &[&[u8]]| {
        let (mut filter, mut out) = (UsageFilter::default(), Vec::new());
        let mut gauge = Gauge::new(Dialect::OpenAiChat, Framing::Sse, Arc::default(), Duration::ZERO);
        for piece in pieces {
            let only_tokens = !gauge.feed(piece, Duration::ZERO).other && gauge.dialect() == Dialect::OpenAiChat;
            filter.pass(Bytes::copy_from_slice(piece), only_tokens, &mut out);
        }
        filter.finish(&mut out);
        (out.concat(), filter.taken())
    };
    let (whole, taken) = pass(&[stream]);
    assert_eq!(whole.len() as u64 + taken, stream.len() as u64, "bytes out and taken are bytes in");
    assert!(taken > 0 || whole == stream, "nothing taken, nothing changed");
    assert_eq!(pass(&pieces(stream, *cuts)), (whole, taken), "in pieces");
}

/// What is read of a request's body, against a reader of whole JSON; and the wish for usage put into it.
pub fn request(data: &[u8]) {
    let Some((path, body)) = data.split_first() else { return };
    let path = PATHS[usize::from(*path) % PATHS.len()];
    let facts = RequestFacts::read(path, Some(body));
    assert!(facts.model.as_ref().is_none_or(|model| model.len() <= 256), "a model name is bounded");
    for dialect in Dialect::ALL {
        let _ = count_prompt(dialect, facts.model.as_deref(), body);
    }
    let is_read = RequestFacts::read_json(path, body).is_some();
    assert!(is_read || serde_json::from_slice::<Value>(body).is_err(), "who forgives reads all JSON");
    disguised(path, body);
    let Ok(Value::Object(read)) = serde_json::from_slice::<Value>(body) else { return };
    if let Some(Value::String(model)) = read.get("model")
        && facts.repeated.is_none()
        && !model.is_empty()
        && model.len() <= 256
        && !path.contains("/models/")
    {
        assert_eq!(facts.model.as_ref(), Some(model), "{path}");
    }
    if let Some(Value::Bool(stream)) = read.get("stream")
        && facts.repeated.is_none()
    {
        assert_eq!(facts.stream, Some(*stream), "{path}");
    }
    if let Some(asking) = with_usage(body) {
        let asks: Value = serde_json::from_slice(&asking).expect("JSON stays JSON");
        assert_eq!(asks["stream_options"]["include_usage"], Value::Bool(true));
        let Value::Object(mut asks) = asks else { panic!("an object stays one") };
        asks.remove("stream_options");
        let rest: serde_json::Map<_, _> = read.into_iter().filter(|(key, _)| key != "stream_options").collect();
        assert_eq!(asks, rest, "nothing else changes");
    }
}

/// The same bytes as a form, in another encoding and under each coding: nothing of it panics, and a form that was renamed is
/// still one.
fn disguised(path: &str, body: &[u8]) {
    let _ = lenient_json::in_utf8(body);
    let boundary = body.iter().copied().take_while(u8::is_ascii_alphanumeric).take(8).collect();
    for kind in [FormKind::UrlEncoded, FormKind::Multipart(boundary)] {
        let Some(form) = kind.read(body) else { continue };
        let _ = RequestFacts::read_form(path, &form);
        if let Some(renamed) = kind.with_model(body, "m") {
            let models = |form: &Form<'_>| form.fields.iter().filter(|field| field.name == "model").count();
            let again = kind.read(&renamed).expect("a form stays one");
            assert_eq!((again.fields.len(), models(&again)), (form.fields.len(), models(&form)));
        }
    }
}

/// The forgiving JSON readers against a reader of whole JSON: where a pointer points, what is filled, what is an error.
pub fn json(data: &[u8]) {
    let one_line: Vec<u8> = data.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    let Ok(value) = serde_json::from_slice::<Value>(&one_line) else { return };
    let event = [b"data: ".as_slice(), &one_line, b"\n\n"].concat();
    for pointer in ["/choices/0/delta/content", "/message/content", "/delta", "/0/a~1b", "/type"] {
        let rules = StreamRules::read(&format!("text = '{pointer}'\nerror = '/never/there'")).unwrap();
        let mut gauge = Gauge::new(Dialect::PlainSse, Framing::Sse, Arc::new(rules), Duration::ZERO);
        gauge.feed(&event, Duration::ZERO);
        let Some(found) = value.pointer(pointer).filter(|found| !found.is_array() && !found.is_object()) else {
            continue;
        };
        let filled = is_filled(found);
        assert_eq!(gauge.reading().token_frames > 0, filled, "{pointer} in {value}");
    }
    let mut chat = Gauge::new(Dialect::OpenAiChat, Framing::Sse, Arc::default(), Duration::ZERO);
    chat.feed(&event, Duration::ZERO);
    if chat.dialect() != Dialect::OpenAiChat {
        // The event showed that the stream is another one's.
        return;
    }
    let reading = chat.reading();
    let Value::Object(chunk) = &value else { return };
    // Groq tells errors, and usage, in an object of its own.
    let groq = chunk.get("x_groq").and_then(Value::as_object);
    let fault = |object: &Map<String, Value>| object.get("error").is_some_and(is_fault);
    assert_eq!(reading.error.is_some(), fault(chunk) || groq.is_some_and(fault), "error of {value}");
    let tokens = chunk.get("choices").and_then(Value::as_array).into_iter().flatten().any(has_token);
    assert_eq!(reading.token_frames > 0, tokens, "token of {value}");
    let prompt = chunk.get("usage").and_then(|usage| usage.get("prompt_tokens")).and_then(Value::as_u64);
    // Where sound stands beside the prompt, the prompt is what the total says.
    let sound =
        |usage: &Value| usage.as_object().is_some_and(|usage| usage.keys().any(|key| key.starts_with("prompt_audio")));
    let has_sound = chunk.get("usage").is_some_and(sound);
    if let Some(prompt) = prompt.filter(|prompt| *prompt < 1 << 53 && !has_sound) {
        assert_eq!(reading.usage.input, Some(prompt), "usage of {value}");
    }
}

/// Feeds `pieces` to a gauge and checks what that takes. For streams too long to be told apart byte by byte.
pub fn hold_gauge(dialect: Dialect, framing: Framing, pieces: &[&[u8]]) {
    let fed = pieces.iter().map(|piece| piece.len()).sum();
    let mut gauge = Gauge::new(dialect, framing, Arc::default(), Duration::ZERO);
    hold(dialect.as_str(), fed, || {
        for piece in pieces {
            gauge.feed(piece, Duration::ZERO);
        }
        gauge.finish(StreamEnd::Clean, Duration::ZERO);
    });
    assert_eq!(gauge.reading().bytes, fed as u64);
    is_sound(gauge.reading());
}

fn hold(what: &str, fed: usize, work: impl FnOnce()) {
    // Once for all streams of a process.
    shape::load();
    let taken = memory::measure(work);
    assert!(taken.peak <= HELD_MAX, "{what}: {} bytes held of {fed}", taken.peak);
    let bound = TOTAL_AT_REST + TOTAL_PER_BYTE * fed;
    assert!(taken.total <= bound, "{what}: {} bytes asked for over {fed}", taken.total);
}

fn is_sound(reading: &Reading) {
    assert!(reading.error.is_none() || !reading.normal_end, "an error is no normal end");
    assert!(reading.token_frames <= reading.frames);
    assert_eq!(reading.first_token.is_some(), reading.token_frames > 0);
    assert!(reading.first_answer.is_none() || reading.first_token.is_some());
    assert!(reading.finish_reasons.len() <= 8 && reading.slow_gaps.len() <= 16);
    let texts = [&reading.response_id, &reading.response_model, &reading.error];
    assert!(texts.into_iter().flatten().all(|text| text.len() <= 256));
}

/// The stream in pieces whose sizes `cuts` chooses: bytewise, all of one size, or of many.
fn pieces(stream: &[u8], cuts: u8) -> Vec<&[u8]> {
    let (mut found, mut rest, mut state) = (Vec::new(), stream, u32::from(cuts));
    while !rest.is_empty() {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let size = match cuts {
            0 => 1,
            1..=63 => usize::from(cuts),
            _ => 1 + (state >> 16) as usize % (usize::from(cuts) * 4),
        };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        found.push(piece);
        rest = after;
    }
    found
}

type Events = Vec<Option<(Vec<u8>, Vec<u8>, Vec<u8>)>>;

fn own(frame: Frame<'_>) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let Frame::Event(event) = frame else { return None };
    Some((event.name.to_vec(), event.data.to_vec(), event.id.to_vec()))
}

fn sse_events(pieces: &[&[u8]]) -> (Events, bool) {
    let (mut scanner, mut events) = (SseScanner::default(), Vec::new());
    for piece in pieces {
        scanner.feed(piece, |frame| events.push(own(frame)));
    }
    let boundary = scanner.at_boundary();
    scanner.finish(|frame| events.push(own(frame)));
    (events, boundary)
}

fn lines(pieces: &[&[u8]]) -> (Events, bool) {
    let (mut scanner, mut events) = (LineScanner::default(), Vec::new());
    for piece in pieces {
        scanner.feed(piece, |frame| events.push(own(frame)));
    }
    let boundary = scanner.at_boundary();
    scanner.finish(|frame| events.push(own(frame)));
    (events, boundary)
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn is_fault(value: &Value) -> bool {
    is_filled(value) && *value != Value::Bool(false)
}

fn has_token(choice: &Value) -> bool {
    let in_delta = ["refusal", "tool_calls", "function_call", "reasoning_content", "reasoning"];
    let delta = choice.get("delta").filter(|delta| delta.is_object());
    let told = |key: &str| delta.and_then(|delta| delta.get(key)).is_some_and(is_filled);
    let content = delta.and_then(|delta| delta.get("content")).is_some_and(is_content);
    let details = delta.and_then(|delta| delta.get("reasoning_details")).and_then(Value::as_array);
    let shows = |detail: &Value| ["text", "summary"].iter().any(|key| detail.get(key).is_some_and(is_filled));
    let content = content || details.is_some_and(|details| details.iter().any(shows));
    choice.is_object() && (content || choice.get("text").is_some_and(is_filled) || in_delta.into_iter().any(told))
}

/// Content is text, or a list of parts as Mistral has them.
fn is_content(content: &Value) -> bool {
    let is_part = |part: &Value| match part.get("type").and_then(Value::as_str) {
        Some(kind @ ("text" | "thinking")) => part.get(kind).is_some_and(is_filled),
        _ => part.is_object(),
    };
    match content {
        Value::Array(parts) => parts.iter().any(is_part),
        Value::String(_) | Value::Number(_) => is_filled(content),
        _ => false,
    }
}
