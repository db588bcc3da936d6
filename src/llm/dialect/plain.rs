//! Plain streams: `text/event-stream` or JSON lines of an app's own making, and chunked text.

use memchr::memmem;
use serde::Deserialize;

use super::{Closing, Produced, Reader};
use crate::llm::json::{Fault, Filled, read_object, read_value};
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
    done: String,
    /// The route expects the word: an end without it is a truncation.
    done_expected: bool,
}

impl PlainEvents {
    pub(super) fn new(rules: &PlainRules) -> Self {
        Self {
            text: rules.text.as_deref().map(Pointer::parse),
            error: rules.error.as_deref().map(Pointer::parse),
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

    fn has_text(&self, data: &[u8]) -> bool {
        match &self.text {
            None => true,
            Some(pointer) => {
                pointer.find(data).and_then(|value| read_value::<Filled>(value.get())).is_some_and(|filled| filled.0)
            }
        }
    }
}

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
        // Whitespace is text: a model may well produce a lone space.
        if event.data.is_empty() || is_ping(event.name) || !self.has_text(event.data) {
            return Produced::Nothing;
        }
        Produced::Answer
    }

    fn document(&mut self, json: &[u8], reading: &mut Reading) {
        if let Some(error) = self.error(Event::of(json)) {
            reading.note_error(&error);
        }
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
