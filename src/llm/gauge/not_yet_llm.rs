//! A stream that is not yet known to be an LLM's: each event is checked until one shows it.

use std::time::Duration;

use crate::llm::dialect::{Reader, StreamRules, dialect_of_event};
use crate::llm::json_rpc::{self, Message};
use crate::llm::llm_basis::{LlmBasis, StreamReading};
use crate::llm::reading::Produced;
use crate::llm::sse::Event;
use crate::llm::{Dialect, Reading};

/// So many events in turn are looked at: a stream that has shown nothing by then is of another kind, however long it lives.
const LOOKS_MAX: u32 = 256;

pub(super) struct NotYetLlm {
    pub(super) reading: StreamReading,
    /// What it makes an LLM's that an event has text; `None`: nothing.
    text: Option<(LlmBasis, Box<dyn Reader>)>,
    looks_left: u32,
}

impl NotYetLlm {
    /// `guesses`: text is enough to take it for an LLM's. Where the configuration says where text stands, only that is.
    pub(super) fn new(rules: &StreamRules, guesses: bool) -> Self {
        let basis = if rules.are_binding() { Some(LlmBasis::Shape) } else { guesses.then_some(LlmBasis::Guess) };
        let text = basis.map(|basis| (basis, Dialect::PlainSse.reader(rules)));
        Self { reading: StreamReading::default(), text, looks_left: LOOKS_MAX }
    }

    /// One that no event makes an LLM's.
    pub(super) fn for_good() -> Self {
        Self { reading: StreamReading::default(), text: None, looks_left: 0 }
    }

    /// Looks at an event; `None`: it shows nothing.
    pub(super) fn look(&mut self, event: Event<'_>, rules: &StreamRules) -> Option<LlmBasis> {
        if self.looks_left == 0 || event.data.trim_ascii().is_empty() {
            return None;
        }
        self.looks_left -= 1;
        match json_rpc::message(event) {
            Some(Message::OfAgent) => return Some(LlmBasis::Shape),
            Some(Message::Rpc(rpc)) => {
                let names_more = self.reading.rpc.as_ref().is_none_or(|known| known.method.is_none());
                if names_more && (rpc.method.is_some() || self.reading.rpc.is_none()) {
                    self.reading.rpc = Some(Box::new(rpc));
                }
                return None;
            }
            None => {}
        }
        if dialect_of_event(Dialect::PlainSse, event, rules) != Dialect::PlainSse {
            return Some(LlmBasis::Shape);
        }
        let (basis, reader) = self.text.as_mut()?;
        let has_text = reader.event(event, &mut Reading::default()) > Produced::Unknown;
        (has_text && (*basis == LlmBasis::Shape || may_be_text(event))).then_some(*basis)
    }

    pub(super) fn note(&mut self, now: Duration) {
        self.reading.note(now);
    }
}

/// Whether what reads as text may be a model's: a name that is not a text's says what else the event is, and a bare number,
/// `true` or `null` is a value.
fn may_be_text(event: Event<'_>) -> bool {
    let named =
        matches!(event.name, b"" | b"message" | b"token" | b"text" | b"delta" | b"chunk" | b"content" | b"data");
    let data = event.data.trim_ascii();
    let is_value = !data.starts_with(b"{")
        && !data.starts_with(b"\"")
        && serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
    named && !is_value
}
