//! The reader of one answer's events, in its dialect.

use serde::Deserialize;

use super::closing_events::Closing;
use crate::llm::event_pattern::Varying;
use crate::llm::json::{Fault, read_object};
use crate::llm::reading::{Produced, Reading};
use crate::llm::sse::Event;

/// Reads the events of one answer in one dialect, and notes what they say.
pub(in crate::llm) trait Reader: Send + Sync {
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
pub(super) fn note_failure(json: &[u8], reading: &mut Reading) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Failed {
        error: Fault,
    }
    if let Some(error) = read_object::<Failed>(json).and_then(|failed| failed.error.0) {
        reading.note_error(&error);
    }
}
