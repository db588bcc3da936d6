//! Plain streams: `text/event-stream` or JSON lines of an app's own making, and chunked text.

use memchr::memmem;
use serde::Deserialize;
use serde::de::MapAccess;

use super::{Closing, Produced, Reader};
use crate::llm::json::{Fault, Filled, Loose, Number, Word, loose, read_object, read_value};
use crate::llm::pointer::Pointer;
use crate::llm::sse::Event;
use crate::llm::{PlainRules, Reading};

/// Ends a stream where the route names no other word.
const DONE: &str = "[DONE]";

/// Reads events as the route's rules say; without rules any data is text, and a top-level `error` key an error.
#[derive(Debug)]
pub(super) struct PlainEvents {
    text: Option<Pointer>,
    error: Option<Pointer>,
    usage: Option<Pointer>,
    done: String,
    /// The route expects the word: an end without it is a truncation.
    done_expected: bool,
}

impl PlainEvents {
    pub(super) fn new(rules: &PlainRules) -> Self {
        Self {
            text: rules.text.as_deref().map(Pointer::parse),
            error: rules.error.as_deref().map(Pointer::parse),
            usage: rules.usage.as_deref().map(Pointer::parse),
            done: rules.done.clone().unwrap_or_else(|| DONE.to_owned()),
            done_expected: rules.done.is_some(),
        }
    }

    fn error(&self, event: Event<'_>) -> Option<String> {
        let told = match &self.error {
            Some(pointer) => {
                let value = pointer.find(event.data)?;
                read_value::<Fault>(value.get())?.0
            }
            None => top_level_error(event.data),
        };
        let named = || (event.name == b"error").then(|| String::from_utf8_lossy(event.data).into_owned());
        told.or_else(named)
    }

    fn note_usage(&self, data: &[u8], reading: &mut Reading) {
        let found = self.usage.as_ref().and_then(|pointer| pointer.find(data));
        if let Some(tokens) = found.and_then(|value| read_value::<Tokens>(value.get())) {
            tokens.note(reading);
        }
    }

    fn has_text(&self, data: &[u8]) -> bool {
        match &self.text {
            None => true,
            Some(pointer) => {
                pointer.find(data).and_then(|value| read_value::<Filled>(value.get())).is_some_and(|filled| filled.0)
            }
        }
    }
}

/// Usage as apps write it.
#[derive(Default)]
struct Tokens {
    input: Option<u64>,
    output: Option<u64>,
}

impl Tokens {
    /// The last of each counts.
    fn note(&self, reading: &mut Reading) {
        reading.usage.input = self.input.or(reading.usage.input);
        reading.usage.output = self.output.or(reading.usage.output);
    }
}

impl<'de> Loose<'de> for Tokens {
    fn number(value: f64) -> Self {
        Self { input: None, output: Number(Some(value)).count() }
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut tokens = Self::default();
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let count = fields.next_value::<Number>()?.count();
            match key.0.as_deref().unwrap_or_default() {
                "prompt_tokens" | "input_tokens" | "promptTokens" | "inputTokens" => tokens.input = count,
                "completion_tokens" | "output_tokens" | "completionTokens" | "outputTokens" => tokens.output = count,
                _ => {}
            }
        }
        Ok(tokens)
    }
}

loose!(Tokens);

impl Reader for PlainEvents {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        let data = event.data.trim_ascii();
        if data == self.done.as_bytes() || data == DONE.as_bytes() {
            reading.normal_end |= data == self.done.as_bytes();
            return Produced::Nothing;
        }
        if let Some(error) = self.error(event) {
            reading.note_error(&error);
            return Produced::Nothing;
        }
        self.note_usage(event.data, reading);
        // Whitespace is text: a model may well produce a lone space.
        if event.data.is_empty() || is_ping(event.name) {
            return Produced::Nothing;
        }
        // An event of the app's own: the user may be looking at it already.
        if self.has_text(event.data) { Produced::Answer } else { Produced::Unknown }
    }

    fn document(&mut self, json: &[u8], reading: &mut Reading) {
        if let Some(error) = self.error(Event::of(json)) {
            reading.note_error(&error);
        }
        self.note_usage(json, reading);
    }

    fn end(&mut self, reading: &mut Reading) {
        reading.normal_end |= !self.done_expected;
    }

    fn closing(&self, _: &Reading, closing: &mut Closing) -> bool {
        if self.done_expected {
            closing.data(&self.done);
        }
        true
    }
}

/// Chunked text: whatever comes is answer.
#[derive(Debug)]
pub(super) struct PlainText;

impl Reader for PlainText {
    fn event(&mut self, _: Event<'_>, _: &mut Reading) -> Produced {
        Produced::Answer
    }

    fn document(&mut self, _: &[u8], _: &mut Reading) {}

    fn end(&mut self, reading: &mut Reading) {
        reading.normal_end = true;
    }

    fn closing(&self, _: &Reading, _: &mut Closing) -> bool {
        true
    }
}

fn is_ping(name: &[u8]) -> bool {
    matches!(name, b"ping" | b"heartbeat" | b"keepalive" | b"keep-alive")
}

fn top_level_error(data: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Keyed {
        #[serde(default)]
        error: Fault,
    }
    // Most events have no such word, and need not be parsed.
    memmem::find(data, b"\"error\"")?;
    read_object::<Keyed>(data)?.error.0
}
