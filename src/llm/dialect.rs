//! The dialects that frontends and backends speak, and how one is recognised.
//!
//! A dialect is one file below this one, which implements [`Reader`], and a line in each `match` here.

mod anthropic;
mod ollama;
mod openai_chat;
mod plain;
mod recognise;

use super::sse::Event;
use super::{PlainRules, Reading};

pub use recognise::recognise_answer;
pub(super) use recognise::{Look, dialect_in, dialect_of_event, framing_of_bytes};

/// What an LLM-shaped exchange speaks. Settled twice: a guess by the request, the truth by the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI `/chat/completions`, also vLLM, SGLang, llama.cpp and most others.
    OpenAiChat,
    /// Anthropic `/messages`.
    Anthropic,
    /// Ollama `/api/chat` and `/api/generate`: newline-delimited JSON.
    Ollama,
    /// A plain FastAPI (or any other) `text/event-stream` of values.
    PlainSse,
    /// A chunked `text/plain` answer of an LLM-shaped request.
    PlainText,
}

/// How the events of an answer are delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON value a line.
    JsonLines,
    /// One JSON document: an answer that is not streamed.
    Json,
    /// Bytes without frames.
    Opaque,
}

impl Dialect {
    pub const ALL: [Self; 5] = [Self::OpenAiChat, Self::Anthropic, Self::Ollama, Self::PlainSse, Self::PlainText];

    /// The word used in the config, labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::PlainSse => "plain-sse",
            Self::PlainText => "plain-text",
        }
    }

    /// `gen_ai.provider.name` of OpenTelemetry's GenAI conventions: the well-known value whose format this is, as they
    /// define it, not the vendor behind it. Plain streams tell no provider: `_OTHER`. (`ollama` is a custom value.)
    pub fn provider_name(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::PlainSse | Self::PlainText => "_OTHER",
        }
    }

    pub(super) fn reader(self, rules: &PlainRules) -> Box<dyn Reader> {
        match self {
            Self::OpenAiChat => Box::new(openai_chat::OpenAiChat::default()),
            Self::Anthropic => Box::new(anthropic::Anthropic::default()),
            Self::Ollama => Box::new(ollama::Ollama),
            Self::PlainSse => Box::new(plain::PlainEvents::new(rules)),
            Self::PlainText => Box::new(plain::PlainText),
        }
    }
}

impl Framing {
    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::JsonLines => "json-lines",
            Self::Json => "json",
            Self::Opaque => "opaque",
        }
    }
}

/// What the model produced in one event; of several in one event the greatest counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Produced {
    #[default]
    Nothing,
    Reasoning,
    Answer,
}

/// Reads the events of one answer in one dialect, and notes what they say.
pub(super) trait Reader: Send + Sync {
    /// Reads one event. What it does not know it passes over.
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced;

    /// Reads a whole answer that is not streamed.
    fn document(&mut self, json: &[u8], reading: &mut Reading) {
        self.event(Event::of(json), reading);
    }

    /// The body ended in order: where that alone is the dialect's normal end, says so.
    fn end(&mut self, _: &mut Reading) {}
}
