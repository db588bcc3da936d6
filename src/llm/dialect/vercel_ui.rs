//! The UI message stream of Vercel's AI SDK, versions 5 to 7: events of JSON parts.
//!
//! A model call is a step, so `finish-step` ends nothing; `finish` does, with `[DONE]` after it. The protocol has no usage:
//! where the app puts the SDK's own into `messageMetadata`, it is read from there.

use serde::Deserialize;
use serde_json::json;

use super::closing_events::Closing;
use super::counts::Counts;
use super::reader::{Reader, note_failure};
use crate::llm::event_pattern::Varying;
use crate::llm::json::{Filled, Maybe, Word, read_object};
use crate::llm::reading::Produced;
use crate::llm::reading::TEXT_LIMIT;
use crate::llm::sse::Event;
use crate::llm::{Reading, Usage};

/// The most parts that may be open at once to be ended by us.
const OPEN_PARTS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct VercelUi {
    finished: bool,
    in_step: bool,
    /// A tool was named, or its input came in deltas: the whole input, which follows, is nothing new.
    streams_tool_input: bool,
    /// Texts and reasonings that began and have not ended.
    open: Vec<Part>,
    /// A part began that `open` could not take.
    lost_track: bool,
    /// The last event was a delta of text, and told nothing else.
    only_text: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    is_reasoning: bool,
    id: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    id: Word<'a>,
    delta: Filled,
    input_text_delta: Filled,
    message_id: Word<'a>,
    finish_reason: Word<'a>,
    message_metadata: Maybe<Metadata<'a>>,
    error_text: Word<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    model: Word<'a>,
    usage: Counts,
    total_usage: Counts,
}

impl Reader for VercelUi {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        self.only_text = false;
        if event.data.trim_ascii() == b"[DONE]" {
            reading.normal_end = self.finished;
            return Produced::Nothing;
        }
        let Some(wire) = read_object::<Wire<'_>>(event.data) else { return Produced::Unknown };
        if let Some(metadata) = &wire.message_metadata.0 {
            note_metadata(metadata, reading);
        }
        self.note_state(&wire, reading);
        let is_text = wire.delta.0 && (wire.kind.is("text-delta") || wire.kind.is("reasoning-delta"));
        self.only_text = is_text && wire.message_metadata.0.is_none();
        self.produced(&wire)
    }

    fn varying(&self) -> Option<Varying<'_>> {
        self.only_text.then_some(Varying { text: "delta", noise: None })
    }

    fn document(&mut self, json: &[u8], reading: &mut Reading) {
        note_failure(json, reading);
    }

    fn end(&mut self, reading: &mut Reading) {
        reading.normal_end |= self.finished;
    }

    /// Names no finish reason: clients of version 5 refuse a field that they do not know.
    fn closing(&self, _: &Reading, closing: &mut Closing) -> bool {
        if self.lost_track {
            return false;
        }
        for Part { is_reasoning, id } in &self.open {
            let kind = if *is_reasoning { "reasoning-end" } else { "text-end" };
            closing.event("", &json!({ "type": kind, "id": id }));
        }
        if self.in_step {
            closing.event("", &json!({"type": "finish-step"}));
        }
        if !self.finished {
            closing.event("", &json!({"type": "finish"}));
        }
        closing.data("[DONE]");
        true
    }
}

impl VercelUi {
    fn note_state(&mut self, wire: &Wire<'_>, reading: &mut Reading) {
        match wire.kind.filled().unwrap_or_default() {
            "start" => reading.note_id(wire.message_id.filled()),
            "start-step" => self.in_step = true,
            "finish-step" => self.in_step = false,
            "text-start" => self.open(false, &wire.id),
            "reasoning-start" => self.open(true, &wire.id),
            "text-end" => self.open.retain(|part| part.is_reasoning || !wire.id.is(&part.id)),
            "reasoning-end" => self.open.retain(|part| !part.is_reasoning || !wire.id.is(&part.id)),
            "finish" => {
                self.finished = true;
                if reading.finish_reasons.is_empty() {
                    reading.note_finish_reason(wire.finish_reason.filled());
                }
            }
            "error" => reading.note_error(wire.error_text.filled().unwrap_or("error")),
            "abort" => reading.note_error("aborted by the app"),
            _ => {}
        }
    }

    fn produced(&mut self, wire: &Wire<'_>) -> Produced {
        match wire.kind.filled().unwrap_or_default() {
            "text-delta" if wire.delta.0 => Produced::Answer,
            "reasoning-delta" if wire.delta.0 => Produced::Reasoning,
            "tool-input-start" => {
                self.streams_tool_input = true;
                Produced::Answer
            }
            "tool-input-delta" if wire.input_text_delta.0 => {
                self.streams_tool_input = true;
                Produced::Answer
            }
            "tool-input-available" if !self.streams_tool_input => Produced::Answer,
            "file" => Produced::Answer,
            "start" | "finish" | "message-metadata" | "error" | "abort" => Produced::Nothing,
            "text-delta" | "reasoning-delta" | "tool-input-delta" => Produced::Nothing,
            "start-step" | "finish-step" | "text-start" | "text-end" | "reasoning-start" | "reasoning-end" => {
                Produced::Work
            }
            "tool-input-available" => Produced::Work,
            // An app's own data, sources, tool outputs: the user may be looking at them already.
            _ => Produced::Unknown,
        }
    }

    fn open(&mut self, is_reasoning: bool, id: &Word<'_>) {
        match id.filled().filter(|id| id.len() <= TEXT_LIMIT && self.open.len() < OPEN_PARTS_MAX) {
            Some(id) => self.open.push(Part { is_reasoning, id: id.to_owned() }),
            None => self.lost_track = true,
        }
    }
}

fn note_metadata(metadata: &Metadata<'_>, reading: &mut Reading) {
    reading.note_model(metadata.model.filled());
    let told = [metadata.total_usage, metadata.usage].iter().map(Counts::usage).find(Usage::is_known);
    reading.usage = told.unwrap_or(reading.usage);
}
