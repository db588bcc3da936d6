//! The data stream of Vercel's AI SDK, version 4: lines of a code, a colon and JSON.
//!
//! `0` is text, `g` reasoning, `b` and `c` begin and stream a tool call, `9` is a whole one; `e` ends a step, `d` the
//! message, `3` is an error.

use serde::Deserialize;
use serde_json::json;

use super::closing_events::Closing;
use super::counts::Counts;
use super::reader::{Reader, note_failure};
use crate::llm::event_pattern::string_in;
use crate::llm::json::{Fault, Filled, Word, read_object, read_value};
use crate::llm::reading::Produced;
use crate::llm::sse::Event;
use crate::llm::{Reading, Usage};

#[derive(Debug, Default)]
pub(super) struct VercelData {
    /// Tool calls came in pieces: the whole one, which follows, is nothing new.
    streams_tool_calls: bool,
    in_step: bool,
}

/// The value of `e`, `d` and `f`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mark<'a> {
    #[serde(borrow)]
    message_id: Word<'a>,
    finish_reason: Word<'a>,
    usage: Counts,
}

impl Reader for VercelData {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        let Some((code, json)) = coded(event.data) else {
            self.document(event.data, reading);
            return Produced::Unknown;
        };
        match code {
            b'0' if is_filled(json) => return Produced::Answer,
            b'g' if is_filled(json) => return Produced::Reasoning,
            b'b' | b'c' => {
                self.streams_tool_calls = true;
                return Produced::Answer;
            }
            b'9' if !self.streams_tool_calls => return Produced::Answer,
            b'k' => return Produced::Answer,
            b'd' | b'e' | b'f' => self.mark(code, json, reading),
            b'3' => {
                let told = std::str::from_utf8(json).ok().and_then(read_value::<Fault>).and_then(|fault| fault.0);
                reading.note_error(told.as_deref().unwrap_or("error"));
            }
            b'0' | b'g' | b'9' | b'i' | b'j' => {}
            // An app's own data, sources, results of tools: the user may be looking at them already.
            _ => return Produced::Unknown,
        }
        Produced::Nothing
    }

    fn document(&mut self, json: &[u8], reading: &mut Reading) {
        note_failure(json, reading);
    }

    fn closing(&self, _: &Reading, closing: &mut Closing) -> bool {
        if self.in_step {
            closing.data(&format!("e:{}", json!({"finishReason": "length", "isContinued": false})));
        }
        closing.data(&format!("d:{}", json!({"finishReason": "length"})));
        true
    }
}

impl VercelData {
    /// Reads what begins or ends a step or the message. A step's usage adds up; the message's is the sum.
    fn mark(&mut self, code: u8, json: &[u8], reading: &mut Reading) {
        let mark = read_object::<Mark<'_>>(json).unwrap_or_default();
        self.in_step = code == b'f';
        reading.note_id(mark.message_id.filled());
        let told = Some(mark.usage.usage()).filter(Usage::is_known);
        if code == b'd' {
            reading.note_finish_reason(mark.finish_reason.filled().filter(|_| !reading.normal_end));
            reading.usage = told.unwrap_or(reading.usage);
            reading.normal_end = true;
        } else if let Some(step) = told {
            let sum = |old: Option<u64>, new: Option<u64>| new.map(|new| new.saturating_add(old.unwrap_or(0))).or(old);
            reading.usage.input = sum(reading.usage.input, step.input);
            reading.usage.output = sum(reading.usage.output, step.output);
        }
    }
}

/// Takes a line apart; `None` where it is none of this format.
pub(super) fn coded(line: &[u8]) -> Option<(u8, &[u8])> {
    match line {
        [code @ (b'0'..=b'9' | b'a'..=b'z'), b':', json @ ..] => Some((*code, json)),
        _ => None,
    }
}

fn is_filled(json: &[u8]) -> bool {
    // Nearly all are one string, and that without a rare escape.
    if let Some((text, [b'"'])) = json.strip_prefix(b"\"").and_then(string_in) {
        return !text.is_empty();
    }
    std::str::from_utf8(json).ok().and_then(read_value::<Filled>).is_some_and(|filled| filled.0)
}
