//! Anthropic `/messages`.
//!
//! Usage comes in parts that are cumulative, so each number replaces its predecessor; tokens read from and written to a
//! cache stand outside `input_tokens`, and those of a compaction in `iterations` alone. A stream ends with `message_stop`; an `error` event can come at any point, even
//! first after a 200.

use serde::Deserialize;
use serde::de::SeqAccess;
use serde_json::json;

use super::closing_events::Closing;
use super::reader::Reader;
use crate::llm::Reading;
use crate::llm::event_pattern::Varying;
use crate::llm::json::{Fault, Filled, Loose, Maybe, Number, Word, each, loose, read_object};
use crate::llm::reading::Produced;
use crate::llm::sse::Event;

#[derive(Debug, Default)]
pub(super) struct Anthropic {
    tokens: Tokens,
    /// What compactions took.
    compacted: Compacted,
    has_begun: bool,
    /// The index of the block that began and has not ended.
    open_block: Option<u64>,
    /// The key of the text, where the last event was a delta of one.
    only_text: Option<&'static str>,
}

/// Any event of a stream, or a whole answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    message: Maybe<Message<'a>>,
    delta: Maybe<Delta<'a>>,
    content_block: Maybe<Block<'a>>,
    index: Number,
    usage: Maybe<Tokens>,
    error: Fault,
}

/// What `content_block_start` holds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    data: Filled,
    name: Filled,
}

/// What `message_start` holds, and what a whole answer is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    id: Word<'a>,
    model: Word<'a>,
    stop_reason: Word<'a>,
    usage: Maybe<Tokens>,
    error: Fault,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    text: Filled,
    partial_json: Filled,
    thinking: Filled,
    content: Filled,
    stop_reason: Word<'a>,
}

/// As the wire counts: `input_tokens` without what went through a cache.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tokens {
    input_tokens: Number,
    cache_read_input_tokens: Number,
    cache_creation_input_tokens: Number,
    output_tokens: Number,
    output_tokens_details: Maybe<OutputDetails>,
    iterations: Iterations,
}

/// The model's passes over the context, as far as the numbers above leave them out: compactions. Those of another model,
/// an adviser, are billed as that model's.
#[derive(Debug, Default)]
struct Iterations(Option<Compacted>);

/// All compactions of an answer.
#[derive(Debug, Clone, Copy, Default)]
struct Compacted {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    output: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Iteration<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    input_tokens: Number,
    cache_read_input_tokens: Number,
    cache_creation_input_tokens: Number,
    output_tokens: Number,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Number,
}

impl Reader for Anthropic {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        self.only_text = None;
        let Some(wire) = read_object::<Wire<'_>>(event.data) else {
            if event.name == b"error" {
                reading.note_error(&String::from_utf8_lossy(event.data));
            }
            return Produced::Unknown;
        };
        let name = std::str::from_utf8(event.name).unwrap_or_default();
        match wire.kind.filled().unwrap_or(name) {
            "content_block_delta" => {
                let Some(delta) = &wire.delta.0 else { return Produced::Nothing };
                self.only_text = delta.only_text();
                return delta.produced();
            }
            "content_block_start" => {
                self.open_block = wire.index.count();
                return wire.content_block.0.map_or(Produced::Work, |block| block.produced());
            }
            "content_block_stop" => {
                self.open_block = None;
                return Produced::Work;
            }
            "message_start" => {
                self.has_begun = true;
                if let Some(message) = &wire.message.0 {
                    self.note_message(message, reading);
                }
            }
            "message_delta" => {
                if let Some(delta) = &wire.delta.0 {
                    note_stop_reason(&delta.stop_reason, reading);
                }
                self.note_tokens(&wire.usage, reading);
            }
            "message_stop" => reading.normal_end = true,
            "error" => reading.note_error(wire.error.0.as_deref().unwrap_or("error")),
            "ping" => {}
            _ => return Produced::Unknown,
        }
        Produced::Nothing
    }

    fn varying(&self) -> Option<Varying<'_>> {
        self.only_text.map(|text| Varying { text, noise: None })
    }

    fn closing(&self, reading: &Reading, closing: &mut Closing) -> bool {
        if !self.has_begun {
            return false;
        }
        if let Some(index) = self.open_block {
            closing.event("content_block_stop", &json!({"type": "content_block_stop", "index": index}));
        }
        if reading.finish_reasons.is_empty() {
            let delta = json!({"stop_reason": "max_tokens", "stop_sequence": null});
            // Clients need a number here: the last that was told.
            let usage = json!({"output_tokens": self.tokens.output_tokens.count().unwrap_or_default()});
            closing.event("message_delta", &json!({"type": "message_delta", "delta": delta, "usage": usage}));
        }
        closing.event("message_stop", &json!({"type": "message_stop"}));
        true
    }

    fn document(&mut self, json: &[u8], reading: &mut Reading) {
        let Some(message) = read_object::<Message<'_>>(json) else { return };
        self.note_message(&message, reading);
        if let Some(error) = &message.error.0 {
            reading.note_error(error);
        }
    }
}

impl Anthropic {
    fn note_message(&mut self, message: &Message<'_>, reading: &mut Reading) {
        reading.note_id(message.id.filled());
        reading.note_model(message.model.filled());
        note_stop_reason(&message.stop_reason, reading);
        self.note_tokens(&message.usage, reading);
    }

    fn note_tokens(&mut self, told: &Maybe<Tokens>, reading: &mut Reading) {
        let Some(told) = &told.0 else { return };
        let replace = |old: &mut Number, new: Number| *old = new.or(*old);
        let tokens = &mut self.tokens;
        replace(&mut tokens.input_tokens, told.input_tokens);
        replace(&mut tokens.cache_read_input_tokens, told.cache_read_input_tokens);
        replace(&mut tokens.cache_creation_input_tokens, told.cache_creation_input_tokens);
        replace(&mut tokens.output_tokens, told.output_tokens);
        let thinking = told.output_tokens_details.0.as_ref().and_then(|details| details.thinking_tokens.count());
        reading.usage.reasoning = thinking.or(reading.usage.reasoning);

        self.compacted = told.iterations.0.unwrap_or(self.compacted);
        let more = self.compacted;
        let with = |told: Number, more: u64| match told.count() {
            None if more == 0 => None,
            told => Some(told.unwrap_or_default().saturating_add(more)),
        };
        let read = with(tokens.cache_read_input_tokens, more.cache_read);
        let written = with(tokens.cache_creation_input_tokens, more.cache_write);
        let outside = read.unwrap_or_default().saturating_add(written.unwrap_or_default());
        reading.usage.input = with(tokens.input_tokens, more.input).map(|input| input.saturating_add(outside));
        reading.usage.cached_input = read;
        reading.usage.cache_write = written;
        reading.usage.output = with(tokens.output_tokens, more.output);
    }
}

/// There is one choice, and so one reason, however often it is told.
fn note_stop_reason(reason: &Word<'_>, reading: &mut Reading) {
    if reading.finish_reasons.is_empty() {
        reading.note_finish_reason(reason.filled());
    }
}

impl Block<'_> {
    /// Thinking that is not shown comes in one piece, with its block's start, and so does the name of a tool.
    fn produced(&self) -> Produced {
        match self.kind.filled() {
            Some("redacted_thinking") if self.data.0 => Produced::Reasoning,
            Some(kind) if kind.ends_with("tool_use") && self.name.0 => Produced::Answer,
            _ => Produced::Work,
        }
    }
}

impl Delta<'_> {
    fn only_text(&self) -> Option<&'static str> {
        match self.kind.filled() {
            Some("text_delta") if self.text.0 => Some("text"),
            Some("thinking_delta") if self.thinking.0 => Some("thinking"),
            _ => None,
        }
    }

    fn produced(&self) -> Produced {
        match self.kind.filled() {
            Some("text_delta") if self.text.0 => Produced::Answer,
            Some("input_json_delta") if self.partial_json.0 => Produced::Answer,
            Some("compaction_delta") if self.content.0 => Produced::Answer,
            Some("thinking_delta") if self.thinking.0 => Produced::Reasoning,
            Some("text_delta" | "input_json_delta" | "thinking_delta" | "signature_delta" | "compaction_delta") => {
                Produced::Nothing
            }
            _ => Produced::Unknown,
        }
    }
}

impl<'de> Loose<'de> for Iterations {
    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        let mut sum = Compacted::default();
        let add = |sum: &mut u64, told: Number| *sum = sum.saturating_add(told.count().unwrap_or_default());
        each(items, |pass: Iteration<'_>| {
            if pass.kind.is("compaction") {
                add(&mut sum.input, pass.input_tokens);
                add(&mut sum.cache_read, pass.cache_read_input_tokens);
                add(&mut sum.cache_write, pass.cache_creation_input_tokens);
                add(&mut sum.output, pass.output_tokens);
            }
        })?;
        Ok(Self(Some(sum)))
    }
}

loose!(Iterations);
