//! The tokens of an answer, event by event.

use super::{Encoding, TextCounter};
use crate::llm::sse::Event;
use crate::llm::walk_texts::{Role, Sink, walk};

/// Counts what a model generates, from the events of any dialect: answer, reasoning and tool input. Padding, ids, and
/// events that repeat what was streamed before count nothing. Takes 1 KiB at most, however long the answer is, and 16 KiB
/// while the vocabulary is not loaded.
///
/// Several choices in one stream are counted as one text; where they interleave inside a word, that is a token or two off.
#[derive(Debug)]
pub struct AnswerCounter {
    tokens: TextCounter,
    texts: AnswerTexts,
}

/// Finds what a model generates in the events of any dialect.
#[derive(Debug, Default)]
pub(in crate::llm) struct AnswerTexts {
    texts: String,
}

impl AnswerCounter {
    /// A counter for an answer of `model`.
    pub fn new(model: Option<&str>) -> Self {
        Self { tokens: TextCounter::new(Encoding::of_model(model.unwrap_or_default())), texts: AnswerTexts::default() }
    }

    /// Counts one event of a stream, one line, or a whole answer.
    pub fn event(&mut self, event: Event<'_>) {
        let Self { tokens, texts } = self;
        texts.event(event, |text| tokens.push(text));
    }

    /// Counts an event whose whole text is known.
    pub fn text(&mut self, text: &str) {
        self.tokens.push(text);
    }

    /// Whether `text` is all that `event` has to count.
    pub fn says(&mut self, event: Event<'_>, text: &str) -> bool {
        self.texts.is(event, text)
    }

    /// Counts bytes that are text as they are.
    pub fn plain(&mut self, text: &[u8]) {
        self.tokens.push(&String::from_utf8_lossy(text));
    }

    /// All tokens so far.
    pub fn total(&self) -> u64 {
        self.tokens.total()
    }

    /// Whether the vocabulary is there: before, [`AnswerCounter::total`] waits for it.
    pub fn is_ready(&self) -> bool {
        self.tokens.encoding.is_ready()
    }

    /// About how many tokens so far; costs nothing.
    pub fn roughly(&self) -> u64 {
        self.tokens.roughly()
    }
}

impl AnswerTexts {
    /// Hands the texts of one event out, of a line, or of a whole answer.
    pub(in crate::llm) fn event(&mut self, event: Event<'_>, mut take: impl FnMut(&str)) {
        let data = event.data.trim_ascii();
        if data.is_empty() {
            // A lone space may well be generated.
            return take(&String::from_utf8_lossy(event.data));
        }
        if is_ping(event.name) || data == b"[DONE]" {
            return;
        }
        let (role, json) = match data {
            [code @ (b'0' | b'g' | b'c'), b':', json @ ..] => {
                (if *code == b'c' { Role::Through } else { Role::Text }, json)
            }
            [b'1'..=b'9' | b'a'..=b'z', b':', b'"' | b'{' | b'[', ..] => return,
            [b'{' | b'[', ..] => (Role::Through, data),
            [b'"', ..] => (Role::Text, data),
            _ => return take(&String::from_utf8_lossy(event.data)),
        };
        self.json((event.name, role), json, event.data, take);
    }

    /// Whether `text` is all that the event has.
    pub(in crate::llm) fn is(&mut self, event: Event<'_>, text: &str) -> bool {
        let mut is = false;
        self.event(event, |found| is = found == text);
        is
    }

    fn json(&mut self, (name, role): (&[u8], Role), json: &[u8], as_it_came: &[u8], mut take: impl FnMut(&str)) {
        self.texts.clear();
        let repeats = std::str::from_utf8(name).is_ok_and(repeats);
        let mut found = Found { texts: std::mem::take(&mut self.texts), repeats };
        let is_json = walk(json, role, &mut found);
        if !found.repeats && is_json {
            take(&found.texts);
        } else if !is_json && !matches!(json, [b'{' | b'[', ..]) {
            // Text that begins like JSON.
            take(&String::from_utf8_lossy(as_it_came));
        }
        if found.texts.capacity() <= super::PENDING_MAX {
            self.texts = found.texts;
        }
    }
}

fn is_ping(name: &[u8]) -> bool {
    matches!(name, b"ping" | b"heartbeat" | b"keepalive" | b"keep-alive")
}

struct Found {
    texts: String,
    /// The event has nothing new.
    repeats: bool,
}

impl Sink for Found {
    /// The keys of all dialects, and those that apps like to use, in one place.
    fn role(&self, key: &str, depth: usize) -> Role {
        match key {
            "type" if depth == 1 => Role::Kind,
            // They repeat what stands elsewhere: LiteLLM's and llama.cpp's; and OpenRouter's, LiteLLM's and TGI's, unless
            // they come alone.
            "provider_specific_fields" | "__verbose" => Role::Skip,
            "reasoning_details" | "thinking_blocks" | "generated_text" if !self.texts.is_empty() => Role::Skip,
            "content" | "reasoning_content" | "reasoning" | "refusal" | "text" | "thinking" | "partial_json"
            | "arguments" | "delta" | "response" | "argsTextDelta" | "inputTextDelta" | "token" | "chunk"
            | "answer" | "completion" | "generated_text" | "output_text" => Role::Text,
            // A message or output may be a text of its own, or hold some.
            "message" | "output" => Role::Text,
            "args" | "input" => Role::Raw,
            "usage" | "usageMetadata" | "logprobs" | "error" | "metadata" | "messageMetadata" | "context"
            | "obfuscation" => Role::Skip,
            _ => Role::Through,
        }
    }

    fn text(&mut self, text: &str) {
        self.texts.push_str(text);
    }

    fn kind(&mut self, kind: &str) {
        self.repeats |= repeats(kind);
    }
}

/// Whether events of this type carry nothing that was generated just then: they open, close, or repeat a part.
fn repeats(kind: &str) -> bool {
    const PREFIXES: [&str; 11] = [
        "response.",
        "content_block_",
        "message_",
        "tool-output",
        "source-",
        "data-",
        "start",
        "finish",
        "message-metadata",
        "error",
        "abort",
    ];
    const SUFFIXES: [&str; 5] = ["-start", "-end", "-available", ".done", ".added"];
    !kind.contains("delta")
        && (PREFIXES.iter().any(|prefix| kind.starts_with(prefix))
            || SUFFIXES.iter().any(|suffix| kind.ends_with(suffix)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn total(events: &[(&str, &str)]) -> u64 {
        let mut counter = AnswerCounter::new(Some("gpt-4o"));
        for (name, data) in events {
            counter.event(Event { name: name.as_bytes(), data: data.as_bytes(), id: &[] });
        }
        counter.total()
    }

    fn text(text: &str) -> u64 {
        Encoding::O200k.count(text)
    }

    #[test]
    fn every_dialects_stream_is_counted() {
        let vectors: [&[(&str, &str)]; 12] = [
            &[
                ("", r#"{"id":"c1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#),
                ("", r#"{"id":"c1","choices":[{"delta":{"content":"The river "}}],"obfuscation":"aaaaaaaaaaaaa"}"#),
                (
                    "",
                    r#"{"choices":[{"delta":{"content":"is high."},"logprobs":{"content":[{"token":"x","text":"y"}]}}]}"#,
                ),
                ("", r#"{"choices":[],"usage":{"prompt_tokens":1}}"#),
                ("", "[DONE]"),
            ],
            &[
                ("response.created", r#"{"type":"response.created","response":{"instructions":"x","output":[]}}"#),
                ("response.output_text.delta", r#"{"type":"response.output_text.delta","delta":"The river "}"#),
                ("", r#"{"type":"response.output_text.delta","delta":"is high.","obfuscation":"zzzz"}"#),
                ("", r#"{"type":"response.output_text.done","text":"The river is high."}"#),
                (
                    "",
                    r#"{"response":{"output":[{"content":[{"text":"The river is high."}]}]},"type":"response.completed"}"#,
                ),
            ],
            &[
                ("message_start", r#"{"type":"message_start","message":{"id":"m","content":[]}}"#),
                ("content_block_start", r#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#),
                (
                    "content_block_delta",
                    r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"The river "}}"#,
                ),
                (
                    "content_block_delta",
                    r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"is high."}}"#,
                ),
                (
                    "content_block_delta",
                    r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"AAAA"}}"#,
                ),
                ("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{}}"#),
            ],
            &[
                ("", r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"The river "}]}}]}"#),
                (
                    "",
                    r#"{"candidates":[{"content":{"parts":[{"text":"is high.","thought":true}]}}],"usageMetadata":{"text":"x"}}"#,
                ),
            ],
            &[
                ("", r#"{"type":"start"}"#),
                ("", r#"{"type":"text-delta","id":"0","delta":"The river "}"#),
                ("", r#"{"type":"reasoning-delta","id":"0","delta":"is high."}"#),
                ("", r#"{"type":"text-end","id":"0"}"#),
                ("", r#"{"type":"finish","messageMetadata":{"text":"x"}}"#),
            ],
            &[
                ("", r#"f:{"messageId":"m"}"#),
                ("", r#"0:"The river ""#),
                ("", r#"g:"is high.""#),
                ("", r#"d:{"text":"x"}"#),
            ],
            &[
                ("", r#"{"model":"m","message":{"role":"assistant","content":"The river "}}"#),
                ("", r#"{"message":{"content":"is high."},"done":true,"context":[1,2,3]}"#),
            ],
            &[("", r#"{"model":"m","response":"The river "}"#), ("", r#"{"response":"is high.","done":true}"#)],
            &[("", "The river "), ("", "is high.")],
            &[("", r#""The river ""#), ("", r#""is high.""#)],
            &[("", r#"{"token":"The river "}"#), ("", r#"{"type":"token","content":"is high."}"#)],
            &[(
                "",
                r#"{"choices":[{"delta":{"tool_calls":[{"id":"call_1","function":{"arguments":"The river is high."}}]}}]}"#,
            )],
        ];
        for events in vectors {
            assert_eq!(total(events), text("The river is high."), "{events:?}");
        }
    }

    #[test]
    fn whole_answers_are_counted() {
        for answer in [
            r#"{"id":"c","choices":[{"message":{"role":"assistant","content":"The river is high."}}],"usage":{"x":1}}"#,
            r#"{"type":"message","content":[{"type":"text","text":"The river is high."}],"usage":{}}"#,
            r#"{"object":"response","output":[{"type":"message","content":[{"type":"output_text","text":"The river is high."}]}]}"#,
            r#"{"answer":"The river is high.","took_ms":12}"#,
        ] {
            assert_eq!(total(&[("", answer)]), text("The river is high."), "{answer}");
        }
    }

    #[test]
    fn what_is_said_twice_counts_once() {
        for answer in [
            r#"{"choices":[{"delta":{"reasoning":"high","reasoning_details":[{"type":"reasoning.text","text":"high"}]}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"high","thinking_blocks":[{"type":"thinking","thinking":"high"}],
                "provider_specific_fields":{"thinking_blocks":[{"thinking":"high"}]}}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.text","text":"high"}]}}]}"#,
            r#"{"index":2,"token":{"id":1,"text":"high","special":false},"generated_text":"how high"}"#,
            r#"{"choices":[{"delta":{"content":"high"}}],"__verbose":{"content":"high","prompt":"x"}}"#,
        ] {
            assert_eq!(total(&[("", answer)]), text("high"), "{answer}");
        }
    }

    #[test]
    fn errors_and_broken_events_count_nothing() {
        for data in [
            r#"{"error":{"message":"boom","text":"x"}}"#,
            r#"{"text":"half"#,
            "[DONE]",
            r#"{"type":"error","errorText":"x"}"#,
        ] {
            assert_eq!(total(&[("", data)]), 0, "{data}");
        }
        assert_eq!(total(&[("", "\"quoted\" words")]), text("\"quoted\" words"));
        assert_eq!(total(&[("", "a: b")]), text("a: b"));
        assert_eq!(total(&[("ping", "a"), ("heartbeat", "{}")]), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_event_is_survived(data in prop::collection::vec(any::<u8>(), 0..100), name in "[a-z._-]{0,12}") {
            let mut counter = AnswerCounter::new(None);
            counter.event(Event { name: name.as_bytes(), data: &data, id: &[] });
            counter.total();
        }

        #[test]
        fn frames_in_any_pieces_count_as_their_text(words in prop::collection::vec("[a-zA-Z]{1,12}[.,]?", 1..400)) {
            let whole = words.join(" ");
            let mut counter = AnswerCounter::new(None);
            for piece in whole.as_bytes().chunks(5) {
                let piece = std::str::from_utf8(piece).unwrap();
                let event = serde_json::json!({ "choices": [{ "delta": { "content": piece } }] }).to_string();
                counter.event(Event::of(event.as_bytes()));
            }
            prop_assert_eq!(counter.total(), text(&whole));
        }
    }
}
