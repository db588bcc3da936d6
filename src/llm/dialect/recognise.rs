//! Recognises dialect and framing by an answer's headers and its first bytes, since `Content-Type` is often wrong.

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess};

use super::shape::{Recogniser, built_in_recogniser};
use super::stream_rules::StreamRules;
use super::vercel_data::coded;
use crate::llm::format::{Dialect, Framing};
use crate::llm::json::{Filled, Flag, Loose, Maybe, Word, each, loose, read_object};
use crate::llm::sse::Event;

/// What the first bytes of an answer tell of its framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::llm) enum Look {
    Is(Framing),
    /// They may still become either; at most [`LONGEST_LOOK`] bytes say so.
    TooShort,
}

/// More bytes than this always settle the framing.
const LONGEST_LOOK: usize = 16;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// How an event stream can begin. A colon alone would take `:)` for a comment.
const SSE_STARTS: [&[u8]; 7] = [b"data:", b"event:", b"id:", b"retry:", b": ", b":\n", b":\r"];

/// What an answer's head says of its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnswerLabels<'a> {
    pub content_type: Option<&'a str>,
    /// `x-vercel-ai-ui-message-stream`
    pub vercel_ui: Option<&'a str>,
    /// `x-vercel-ai-data-stream`
    pub vercel_data: Option<&'a str>,
}

impl<'a> AnswerLabels<'a> {
    /// Reads the labels from a head, in which `header` finds a value by its name in lower case.
    pub fn read(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        Self {
            content_type: header("content-type"),
            vercel_ui: header("x-vercel-ai-ui-message-stream"),
            vercel_data: header("x-vercel-ai-data-stream"),
        }
    }

    /// Whether the label is one of a stream of events or lines.
    pub fn streams(&self) -> bool {
        let essence = essence(self.content_type);
        matches!(&*essence, "text/event-stream" | "application/vnd.amazon.eventstream") || is_json_lines(&essence)
    }

    /// The one dialect that names itself.
    fn dialect(&self) -> Option<Dialect> {
        let is_v1 = |label: Option<&str>| label.is_some_and(|label| label.trim().eq_ignore_ascii_case("v1"));
        if is_v1(self.vercel_ui) {
            Some(Dialect::VercelUi)
        } else {
            is_v1(self.vercel_data).then_some(Dialect::VercelData)
        }
    }
}

/// What an answer speaks, by the request's guess, its head and its first bytes (as far as they came; often none).
/// `None`: not LLM-shaped, and no stream either. What streams events or JSON lines is read, even if its request says nothing
/// of an LLM: its events may show that it is one's ([`Gauge::unclaimed`](crate::llm::Gauge::unclaimed)).
///
/// The [`Gauge`](crate::llm::Gauge) looks again when bytes come, and settles both for good.
pub fn recognise_answer(
    request: Option<Dialect>,
    labels: AnswerLabels<'_>,
    first: &[u8],
) -> Option<(Dialect, Framing)> {
    let request = labels.dialect().or(request);
    let declared = match essence(labels.content_type).as_str() {
        "text/event-stream" => Framing::Sse,
        lines if is_json_lines(lines) => Framing::JsonLines,
        "application/vnd.amazon.eventstream" => Framing::AwsEvents,
        json if json == "application/json" || json == "text/json" || json.ends_with("+json") => Framing::Json,
        "" | "text/plain" | "application/octet-stream" => Framing::Opaque,
        _ => return None,
    };
    let declared = match (labels.dialect(), declared) {
        // Its lines go under `text/plain`, and often under the label of events.
        (Some(Dialect::VercelData), Framing::Opaque | Framing::Sse) => Framing::JsonLines,
        _ => declared,
    };
    let streams = matches!(declared, Framing::Sse | Framing::JsonLines | Framing::AwsEvents);
    let guess = if streams { request.unwrap_or(Dialect::PlainSse) } else { request? };
    let framing = match framing_of_bytes(declared, guess, first) {
        Look::Is(framing) => framing,
        Look::TooShort => declared,
    };
    Some((dialect_in(guess, framing), framing))
}

/// The framing that the first bytes show, where `declared` is what the answer's head says.
pub(in crate::llm) fn framing_of_bytes(declared: Framing, dialect: Dialect, first: &[u8]) -> Look {
    if declared == Framing::AwsEvents {
        return Look::Is(declared);
    }
    let is_sse = declared == Framing::Sse;
    let Some(byte) = first.first() else { return Look::TooShort };
    if dialect == Dialect::Gemini {
        match byte {
            b'[' => return Look::Is(Framing::JsonValues),
            b'{' if matches!(declared, Framing::Sse | Framing::Opaque) => return Look::Is(Framing::JsonValues),
            _ => {}
        }
    }
    if is_sse || declared == Framing::Opaque {
        match is_data_stream(dialect, first) {
            Some(true) => return Look::Is(Framing::JsonLines),
            None => return Look::TooShort,
            Some(false) => {}
        }
    }
    if is_sse {
        // An event stream's lines never begin so: JSON lines under the wrong label.
        return Look::Is(if *byte == b'{' { Framing::JsonLines } else { Framing::Sse });
    }
    if declared == Framing::Opaque && dialect == Dialect::Ollama && *byte == b'{' {
        return Look::Is(Framing::JsonLines);
    }
    let text = first.strip_prefix(BOM).unwrap_or(first);
    if SSE_STARTS.iter().any(|start| text.starts_with(start)) {
        return Look::Is(Framing::Sse);
    }
    let may_be = SSE_STARTS.iter().any(|start| start.starts_with(text)) || BOM.starts_with(first);
    if may_be && first.len() < LONGEST_LOOK { Look::TooShort } else { Look::Is(declared) }
}

/// Whether an answer begins with a line of Vercel's data stream; `None`: it may. Where nothing else says that it is one, it
/// has to begin as all do: with a message's id, or text.
fn is_data_stream(dialect: Dialect, first: &[u8]) -> Option<bool> {
    let is_known = dialect == Dialect::VercelData;
    if !is_known && dialect != Dialect::PlainSse {
        return Some(false);
    }
    match *first {
        [b'0' | b'f'] => None,
        [b'0', b':'] | [b'f', b':'] => None,
        [b'0', b':', b'"', ..] | [b'f', b':', b'{', ..] => Some(true),
        [b'1'..=b'9' | b'a'..=b'z'] if is_known => None,
        [b'1'..=b'9' | b'a'..=b'z', b':'] if is_known => None,
        [b'1'..=b'9' | b'a'..=b'z', b':', b'"' | b'{' | b'[', ..] => Some(is_known),
        _ => Some(false),
    }
}

/// The dialect whose shape an event has, where the guess does not bind: an app's own path may pass on what OpenAI,
/// Anthropic, Google, Ollama or Vercel's SDK sent, or speak as a framework does.
pub(in crate::llm) fn dialect_of_event(guess: Dialect, event: Event<'_>, rules: &StreamRules) -> Dialect {
    let shape = |known: &Recogniser| Some(Dialect::Shape(known.recognise(guess.as_str(), event)?.name()));
    if let Some(own) = shape(&rules.own) {
        return own;
    }
    match guess {
        // A shape first: frameworks pass on what they got, with keys of their own beside it.
        Dialect::PlainSse | Dialect::Ollama | Dialect::Shape(_) => {
            shape(built_in_recogniser()).unwrap_or_else(|| code_of_event(guess, event))
        }
        _ => guess,
    }
}

/// What an event that the dialect does not have shows, of a stream whose request spoke that dialect.
pub(in crate::llm) fn dialect_instead(guess: Dialect, event: Event<'_>, rules: &StreamRules) -> Dialect {
    let plain = if matches!(guess, Dialect::Shape(_)) { Dialect::PlainSse } else { guess };
    match code_of_event(plain, event) {
        code if code != plain => code,
        _ => {
            let known = [&*rules.own, built_in_recogniser()];
            let shape = known.into_iter().find_map(|known| known.recognise(guess.as_str(), event));
            shape.map_or(guess, |shape| Dialect::Shape(shape.name()))
        }
    }
}

/// As [`dialect_of_event`], of the dialects that are code.
fn code_of_event(guess: Dialect, event: Event<'_>) -> Dialect {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Shape<'a> {
        object: Word<'a>,
        #[serde(borrow, rename = "type")]
        kind: Word<'a>,
        role: Filled,
        done: Flag,
        model: Filled,
        message: Filled,
        response: Filled,
        done_reason: Filled,
        candidates: Filled,
        choices: Deltas,
        #[serde(rename = "modelVersion")]
        model_version: Filled,
        #[serde(rename = "usageMetadata")]
        usage_metadata: Filled,
        id: Filled,
        #[serde(rename = "messageId")]
        message_id: Filled,
        data: Vectors,
    }
    let Some(shape) = read_object::<Shape<'_>>(event.data) else {
        let is_data_stream = guess == Dialect::PlainSse
            && is_data_stream(guess, event.data) == Some(true)
            && coded(event.data).is_some_and(|(_, json)| serde_json::from_slice::<IgnoredAny>(json).is_ok());
        return if is_data_stream { Dialect::VercelData } else { guess };
    };
    // Some leave `object` out, as Copilot does.
    if shape.choices.0 && shape.id.0 && shape.model.0 {
        return Dialect::OpenAiChat;
    }
    // Together writes the last one with a dot.
    if let Some("chat.completion" | "chat.completion.chunk" | "text_completion" | "text.completion") =
        shape.object.filled()
    {
        return Dialect::OpenAiChat;
    }
    if shape.object.is("list") && shape.data.0 && shape.model.0 {
        return Dialect::OpenAiChat;
    }
    let kind = shape.kind.filled().unwrap_or_default();
    if (shape.object.is("response") && shape.id.0) || (kind.starts_with("response.") && shape.response.0) {
        return Dialect::OpenAiResponses;
    }
    if shape.usage_metadata.0 || (shape.candidates.0 && shape.model_version.0) {
        return Dialect::Gemini;
    }
    let is_ui = match kind {
        "start" => shape.message_id.0,
        "text-start" | "reasoning-start" => shape.id.0,
        "start-step" => true,
        _ => false,
    };
    if is_ui {
        return Dialect::VercelUi;
    }
    if shape.kind.is("message_start") || (shape.kind.is("message") && shape.role.0 && shape.model.0) {
        return Dialect::Anthropic;
    }
    let ollama =
        shape.model.0 && shape.done.0.is_some() && (shape.message.0 || shape.response.0 || shape.done_reason.0);
    if ollama { Dialect::Ollama } else { guess }
}

/// Whether a list's items have a `delta`, as the choices of a chunk do.
#[derive(Default)]
struct Deltas(bool);

impl<'de> Loose<'de> for Deltas {
    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Choice {
            delta: Maybe<IgnoredAny>,
        }
        let mut has_delta = false;
        each(items, |choice: Choice| has_delta |= choice.delta.0.is_some())?;
        Ok(Self(has_delta))
    }
}

loose!(Deltas);

/// Whether a list holds vectors, as the data of OpenAI's embeddings does.
#[derive(Default)]
struct Vectors(bool);

impl<'de> Loose<'de> for Vectors {
    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Item<'a> {
            #[serde(borrow)]
            object: Word<'a>,
        }
        let mut are_vectors = false;
        each(items, |item: Item<'de>| are_vectors |= item.object.is("embedding"))?;
        Ok(Self(are_vectors))
    }
}

loose!(Vectors);

/// What the guess becomes in a framing that it cannot have.
pub(in crate::llm) fn dialect_in(guess: Dialect, framing: Framing) -> Dialect {
    match (guess, framing) {
        // Ollama sends no events: an app that took the same path (`/api/chat` is common) does.
        (Dialect::Ollama | Dialect::PlainText | Dialect::VercelData, Framing::Sse) => Dialect::PlainSse,
        (Dialect::PlainText, Framing::JsonLines | Framing::Json) => Dialect::PlainSse,
        _ => guess,
    }
}

fn is_json_lines(essence: &str) -> bool {
    let kind = essence.strip_prefix("application/").unwrap_or_default();
    matches!(kind, "x-ndjson" | "ndjson" | "jsonl" | "x-jsonlines" | "json-lines" | "jsonlines")
}

/// The media type without parameters, in lower case.
fn essence(content_type: Option<&str>) -> String {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: Option<Dialect>, content_type: &str, first: &[u8]) -> Option<(Dialect, Framing)> {
        recognise_answer(request, AnswerLabels { content_type: Some(content_type), ..AnswerLabels::default() }, first)
    }

    #[test]
    fn labels_settle_most_answers() {
        use Dialect::*;
        use Framing::*;
        let vectors = [
            (None, "text/event-stream; charset=utf-8", Some((PlainSse, Sse))),
            (None, "Text/Event-Stream", Some((PlainSse, Sse))),
            (Some(OpenAiChat), "text/event-stream", Some((OpenAiChat, Sse))),
            (Some(Ollama), "text/event-stream", Some((PlainSse, Sse))),
            (Some(Ollama), "application/x-ndjson", Some((Ollama, JsonLines))),
            (None, "application/x-ndjson", Some((PlainSse, JsonLines))),
            (Some(Anthropic), "application/json", Some((Anthropic, Json))),
            (Some(OpenAiChat), "application/problem+json", Some((OpenAiChat, Json))),
            (None, "application/json", None),
            (Some(PlainSse), "text/plain; charset=utf-8", Some((PlainSse, Opaque))),
            (None, "text/plain", None),
            (Some(OpenAiChat), "text/html", None),
            (Some(OpenAiChat), "image/png", None),
        ];
        for (request, content_type, expected) in vectors {
            assert_eq!(answer(request, content_type, b""), expected, "{request:?} {content_type}");
        }
        assert_eq!(recognise_answer(Some(OpenAiChat), AnswerLabels::default(), b""), Some((OpenAiChat, Opaque)));
        assert_eq!(recognise_answer(None, AnswerLabels::default(), b"data: x\n\n"), None);
    }

    #[test]
    fn vercels_headers_name_the_dialect() {
        let ui = |content_type| {
            AnswerLabels::read(|name| match name {
                "content-type" => Some(content_type),
                "x-vercel-ai-ui-message-stream" => Some("v1"),
                _ => None,
            })
        };
        let data = |content_type| {
            AnswerLabels::read(|name| match name {
                "content-type" => Some(content_type),
                "x-vercel-ai-data-stream" => Some("v1"),
                _ => None,
            })
        };
        let vectors = [
            (None, ui("text/event-stream"), Some((Dialect::VercelUi, Framing::Sse))),
            (Some(Dialect::OpenAiChat), ui("text/event-stream"), Some((Dialect::VercelUi, Framing::Sse))),
            (
                Some(Dialect::PlainSse),
                data("text/plain; charset=utf-8"),
                Some((Dialect::VercelData, Framing::JsonLines)),
            ),
            (None, data("text/event-stream"), Some((Dialect::VercelData, Framing::JsonLines))),
            (None, data("text/html"), None),
        ];
        for (request, labels, expected) in vectors {
            assert_eq!(recognise_answer(request, labels, b""), expected, "{labels:?}");
        }
        let labels = AnswerLabels { vercel_ui: Some("v9"), ..AnswerLabels::default() };
        assert_eq!(recognise_answer(None, labels, b""), None, "a version of the future is not known");
    }

    #[test]
    fn first_bytes_correct_the_label() {
        use Dialect::*;
        use Framing::*;
        let vectors: [(_, _, &[u8], _); 8] = [
            (Some(OpenAiChat), "text/plain", b"data: {", Some((OpenAiChat, Sse))),
            (Some(PlainSse), "text/plain", b"\xef\xbb\xbfevent: x", Some((PlainSse, Sse))),
            (Some(PlainSse), "text/plain", b"dat", Some((PlainSse, Opaque))),
            (Some(PlainSse), "text/plain", b":)", Some((PlainSse, Opaque))),
            (Some(Ollama), "text/plain", b"{\"model\"", Some((Ollama, JsonLines))),
            (Some(OpenAiChat), "application/json", b"data: {", Some((OpenAiChat, Sse))),
            (None, "text/event-stream", b"{\"a\":1}\n", Some((PlainSse, JsonLines))),
            (None, "application/x-ndjson", b"data: 1\n\n", Some((PlainSse, Sse))),
        ];
        for (request, content_type, first, expected) in vectors {
            assert_eq!(answer(request, content_type, first), expected, "{content_type} {first:?}");
        }
    }

    #[test]
    fn a_look_is_settled_soon() {
        for start in SSE_STARTS {
            for len in 1..=start.len() {
                let look = framing_of_bytes(Framing::Opaque, Dialect::PlainSse, &start[..len]);
                let expected = if len == start.len() { Look::Is(Framing::Sse) } else { Look::TooShort };
                assert_eq!(look, expected, "{:?}", &start[..len]);
            }
        }
        assert_eq!(framing_of_bytes(Framing::Opaque, Dialect::PlainSse, b"days"), Look::Is(Framing::Opaque));
        assert_eq!(framing_of_bytes(Framing::Opaque, Dialect::PlainSse, b"\xef\xbb"), Look::TooShort);
        assert_eq!(framing_of_bytes(Framing::Opaque, Dialect::PlainSse, b"\xef\xbb\xbf"), Look::TooShort);
        assert_eq!(
            framing_of_bytes(Framing::Opaque, Dialect::PlainSse, b"\xef\xbb\xbfdays"),
            Look::Is(Framing::Opaque)
        );
    }

    #[test]
    fn an_event_shows_whose_it_is() {
        let vectors = [
            (r#"{"id":"x","object":"chat.completion.chunk","choices":[]}"#, Dialect::OpenAiChat),
            (r#"{"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}"#, Dialect::OpenAiChat),
            (r#"{"id":"x","model":"m","choices":[{"text":"a"}]}"#, Dialect::PlainSse),
            (r#"{"object":"text.completion","choices":[{"text":"a"}]}"#, Dialect::OpenAiChat),
            (r#"{"object":"list","data":[{"object":"embedding","embedding":[0.5]}],"model":"m"}"#, Dialect::OpenAiChat),
            (r#"{"object":"list","data":[{"object":"model","id":"m"}],"model":"m"}"#, Dialect::PlainSse),
            (r#"{"type":"message_start","message":{"id":"m"}}"#, Dialect::Anthropic),
            (r#"{"model":"llama3","message":{"role":"assistant","content":"a"},"done":false}"#, Dialect::Ollama),
            (r#"{"token":"a"}"#, Dialect::PlainSse),
            (r#"{"type":"message","text":"a"}"#, Dialect::PlainSse),
            (r#"{"type":"response.created","response":{"id":"r"}}"#, Dialect::OpenAiResponses),
            (r#"{"id":"r","object":"response","output":[]}"#, Dialect::OpenAiResponses),
            (r#"{"candidates":[{"index":0}],"modelVersion":"gemini-2.5-pro"}"#, Dialect::Gemini),
            (r#"{"candidates":["a","b"]}"#, Dialect::PlainSse),
            (r#"{"type":"start","messageId":"m"}"#, Dialect::VercelUi),
            (r#"{"type":"start"}"#, Dialect::PlainSse),
            (r#"{"type":"text-start","id":"t"}"#, Dialect::VercelUi),
            (r#"f:{"messageId":"m"}"#, Dialect::VercelData),
            (r#"0:"half"#, Dialect::PlainSse),
            ("hello", Dialect::PlainSse),
        ];
        for (data, expected) in vectors {
            assert_eq!(
                dialect_of_event(Dialect::PlainSse, Event::of(data.as_bytes()), &StreamRules::default()),
                expected,
                "{data}"
            );
        }
        let openai = Event::of(vectors[0].0.as_bytes());
        assert_eq!(dialect_of_event(Dialect::Anthropic, openai, &StreamRules::default()), Dialect::Anthropic);
    }
}
