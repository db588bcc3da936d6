//! The dialects that frontends and backends speak, and how one is recognised.
//!
//! A dialect is one file below this one, which implements [`Reader`], and a line in each `match` here.

mod anthropic;
mod closing;
mod document;
mod gemini;
mod ollama;
mod openai_chat;
mod openai_responses;
mod plain_text;
mod recognise;
pub mod shape;
mod stream_rules;
mod vercel_data;
mod vercel_ui;

use serde::Deserialize;

use super::Reading;
use super::json::{Fault, read_object};
use super::pattern::Varying;
use super::sse::Event;

pub(super) use closing::Closing;
pub(super) use document::complete;
pub use recognise::{AnswerLabels, recognise_answer};
pub(super) use recognise::{Look, dialect_in, dialect_instead, dialect_of_event, framing_of_bytes};
pub use stream_rules::StreamRules;

use shape::{Shape, ShapeReader};

/// What an LLM-shaped exchange speaks. Settled twice: a guess by the request, the truth by the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI `/chat/completions`, also vLLM, SGLang, llama.cpp and most others.
    OpenAiChat,
    /// OpenAI `/responses`.
    OpenAiResponses,
    /// Anthropic `/messages`.
    Anthropic,
    /// Gemini `:generateContent` and `:streamGenerateContent`.
    Gemini,
    /// Ollama `/api/chat` and `/api/generate`: newline-delimited JSON.
    Ollama,
    /// The UI message stream of Vercel's AI SDK, versions 5 to 7.
    VercelUi,
    /// The data stream of Vercel's AI SDK, version 4: lines of a code and JSON.
    VercelData,
    /// A plain FastAPI (or any other) `text/event-stream` of values.
    PlainSse,
    /// A chunked `text/plain` answer of an LLM-shaped request.
    PlainText,
    /// A shape that rules describe, built in or the user's own: its name.
    Shape(&'static str),
}

/// How the events of an answer are delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON value a line, which may have a code before it.
    JsonLines,
    /// JSON objects in one array that grows, or one after the other, over any lines.
    JsonValues,
    /// Binary frames of AWS, each an event with its name and data.
    AwsEvents,
    /// One JSON document: an answer that is not streamed.
    Json,
    /// Bytes without frames.
    Opaque,
}

impl Dialect {
    /// All dialects that are code.
    pub const ALL: [Self; 9] = [
        Self::OpenAiChat,
        Self::OpenAiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::Ollama,
        Self::VercelUi,
        Self::VercelData,
        Self::PlainSse,
        Self::PlainText,
    ];

    /// The word used in the config, labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::OpenAiResponses => "openai-responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::VercelUi => "vercel-ui",
            Self::VercelData => "vercel-data",
            Self::PlainSse => "plain-sse",
            Self::PlainText => "plain-text",
            Self::Shape(name) => name,
        }
    }

    /// The dialect that is code and has this name.
    pub fn of_code(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == name)
    }

    /// The dialect of this name, code or a shape that is built in.
    pub fn named(name: &str) -> Option<Self> {
        Self::of_code(name).or_else(|| shape::built_in(name).map(|shape| Self::Shape(shape.name())))
    }

    /// All dialects that are known without a configuration.
    pub fn known() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(shape::shapes().iter().map(|shape| Self::Shape(shape.name())))
    }

    /// `gen_ai.provider.name` of OpenTelemetry's GenAI conventions: the well-known value whose format this is, as they
    /// define it, not the vendor behind it; the format that the client sees. They let others have names of their own:
    /// `ollama`, and `custom` where the format is an app's and tells no provider.
    pub fn provider_name(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::OpenAiResponses => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gcp.gemini",
            Self::Ollama => "ollama",
            Self::VercelUi | Self::VercelData | Self::PlainSse | Self::PlainText => "custom",
            Self::Shape(name) => shape::built_in(name).map_or("custom", |shape| shape.provider()),
        }
    }

    pub(super) fn reader(self, rules: &StreamRules) -> Box<dyn Reader> {
        match self {
            Self::OpenAiChat => Box::new(openai_chat::OpenAiChat::default()),
            Self::OpenAiResponses => Box::new(openai_responses::OpenAiResponses::default()),
            Self::Anthropic => Box::new(anthropic::Anthropic::default()),
            Self::Gemini => Box::new(gemini::Gemini::default()),
            Self::Ollama => Box::new(ollama::Ollama::default()),
            Self::VercelUi => Box::new(vercel_ui::VercelUi::default()),
            Self::VercelData => Box::new(vercel_data::VercelData::default()),
            Self::PlainText => Box::new(plain_text::PlainText),
            Self::PlainSse => Box::new(ShapeReader::new(rules.shape.clone().unwrap_or_else(Shape::plain))),
            Self::Shape(name) => {
                let shape = rules.own.named(name).or_else(|| shape::built_in(name)).cloned();
                Box::new(ShapeReader::new(shape.unwrap_or_else(Shape::plain)))
            }
        }
    }
}

impl Framing {
    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::JsonLines => "json-lines",
            Self::JsonValues => "json-values",
            Self::AwsEvents => "aws-events",
            Self::Json => "json",
            Self::Opaque => "opaque",
        }
    }
}

/// By what it is known which event is the first token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Basis {
    /// The format says so.
    #[default]
    Dialect,
    /// The configuration says so.
    Rules,
    /// Nothing says so: text under the usual keys was taken for it.
    Guess,
    /// The answer is text without events: its first byte.
    Bytes,
}

impl Basis {
    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialect => "dialect",
            Self::Rules => "rules",
            Self::Guess => "guess",
            Self::Bytes => "bytes",
        }
    }
}

/// What the model produced in one event; of several in one event the greatest counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Produced {
    #[default]
    Nothing,
    /// Work goes on that has brought nothing yet: a tool's progress, a web search, a sub-agent, a part that begins or ends.
    Work,
    /// The event is of a kind that the dialect does not have: nobody can say what it means to a client.
    Unknown,
    Reasoning,
    Answer,
}

/// Reads the events of one answer in one dialect, and notes what they say.
pub(super) trait Reader: Send + Sync {
    /// Reads one event. What it does not know it passes over.
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced;

    /// Whether the last event told nothing but one text that was not empty: all else it has may be, and was, noted before. An
    /// event that differs from it only where this names need not be read.
    fn varying(&self) -> Option<Varying<'_>> {
        None
    }

    /// From now on the text of each event is gathered, where the reader can.
    fn gather(&mut self) {}

    /// What the last event generated; `None` from a reader that does not gather.
    fn said(&self) -> Option<&str> {
        None
    }

    /// Reads a whole answer that is not streamed.
    fn document(&mut self, json: &[u8], reading: &mut Reading) {
        self.event(Event::of(json), reading);
    }

    /// The body ended in order: where that alone is the dialect's normal end, says so.
    fn end(&mut self, _: &mut Reading) {}

    /// Writes the events that end the stream here as one whose tokens are used up. False where it cannot be ended so.
    fn closing(&self, reading: &Reading, closing: &mut Closing) -> bool;
}

/// Notes the error of a JSON document that has one under `error`.
fn note_failure(json: &[u8], reading: &mut Reading) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Failed {
        error: Fault,
    }
    if let Some(error) = read_object::<Failed>(json).and_then(|failed| failed.error.0) {
        reading.note_error(&error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_have_the_conventions_names() {
        const WELL_KNOWN: [&str; 3] = ["openai", "anthropic", "gcp.gemini"];
        for dialect in Dialect::ALL {
            let name = dialect.provider_name();
            let of_an_app =
                matches!(dialect, Dialect::VercelUi | Dialect::VercelData | Dialect::PlainSse | Dialect::PlainText);
            assert_eq!(name == "custom", of_an_app, "{dialect:?}");
            assert!(of_an_app || name == "ollama" || WELL_KNOWN.contains(&name), "{dialect:?}");
        }
    }
}
