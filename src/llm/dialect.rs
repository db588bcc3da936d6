//! The dialects that frontends and backends speak, and how one is recognised.
//!
//! A dialect is one file below this one, which implements [`Reader`], and a line in each `match` here.

mod anthropic;
mod closing_events;
mod counts;
mod document;
mod gemini;
mod modalities;
mod ollama;
mod openai_chat;
mod openai_responses;
mod plain_text;
mod reader;
mod recognise;
pub mod shape;
mod stream_rules;
mod vercel_data;
mod vercel_ui;

use super::format::Dialect;

pub(super) use closing_events::Closing;
pub(super) use document::complete;
pub(super) use reader::Reader;
pub use recognise::{AnswerLabels, recognise_answer};
pub(super) use recognise::{Look, dialect_in, dialect_instead, dialect_of_event, framing_of_bytes};
pub use stream_rules::StreamRules;
// Only a WebSocket's messages are read apart from a stream.
#[cfg(feature = "server")]
pub(super) use {counts::Counts, openai_responses::Response};

use shape::{Shape, ShapeReader};

impl Dialect {
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
