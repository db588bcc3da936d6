//! Ollama `/api/chat` and `/api/generate`: one JSON object a line, the last with `"done": true` and the usage. An error is a
//! line of its own after a 200.

use serde::Deserialize;
use serde_json::json;

use super::closing_events::Closing;
use super::reader::Reader;
use crate::llm::event_pattern::Varying;
use crate::llm::json::{Fault, Filled, Flag, Maybe, Number, Word, read_object};
use crate::llm::reading::Produced;
use crate::llm::sse::Event;
use crate::llm::{Reading, ServerTimings, Usage};

#[derive(Debug, Default)]
pub(super) struct Ollama {
    /// Lines have a `response`, as those of `/api/generate`.
    generates: bool,
    /// The key of the one text that the last line told.
    only_text: Option<&'static str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    model: Word<'a>,
    message: Maybe<Message>,
    /// Of `/api/generate`.
    response: Filled,
    thinking: Filled,
    done: Flag,
    done_reason: Word<'a>,
    prompt_eval_count: Number,
    /// Part of the count before.
    prompt_eval_cached_count: Number,
    eval_count: Number,
    load_duration: Number,
    prompt_eval_duration: Number,
    eval_duration: Number,
    error: Fault,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Filled,
    thinking: Filled,
    tool_calls: Filled,
}

impl Reader for Ollama {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        self.only_text = None;
        let Some(line) = read_object::<Line<'_>>(event.data) else { return Produced::Unknown };
        reading.note_model(line.model.filled());
        if let Some(error) = &line.error.0 {
            reading.note_error(error);
        }
        let (input, output) = (line.prompt_eval_count.count(), line.eval_count.count());
        if input.is_some() || output.is_some() {
            let cached_input = line.prompt_eval_cached_count.count();
            reading.usage = Usage { input, cached_input, output, ..Usage::default() };
        }
        let times = line.times();
        reading.note_server(times);
        if line.done.0 == Some(false) && line.error.0.is_none() && times == ServerTimings::default() {
            self.only_text = line.only_text().filter(|_| input.is_none() && output.is_none());
        }
        if line.done.0 == Some(true) && !reading.normal_end {
            reading.note_finish_reason(line.done_reason.filled());
            reading.normal_end = true;
        }
        self.generates |= line.response.0;
        line.produced()
    }

    fn varying(&self) -> Option<Varying<'_>> {
        self.only_text.map(|text| Varying { text, noise: Some("created_at") })
    }

    fn closing(&self, reading: &Reading, closing: &mut Closing) -> bool {
        let model = &reading.response_model;
        closing.event(
            "",
            &if self.generates {
                json!({"model": model, "response": "", "done": true, "done_reason": "length"})
            } else {
                let message = json!({"role": "assistant", "content": ""});
                json!({"model": model, "message": message, "done": true, "done_reason": "length"})
            },
        );
        true
    }
}

impl Line<'_> {
    fn times(&self) -> ServerTimings {
        ServerTimings {
            load: self.load_duration.nanos(),
            prefill: self.prompt_eval_duration.nanos(),
            generation: self.eval_duration.nanos(),
            ..ServerTimings::default()
        }
    }

    /// The key of its text, where it has no other.
    fn only_text(&self) -> Option<&'static str> {
        let of_message = |has: fn(&Message) -> bool| self.message.0.as_ref().is_some_and(has);
        let thinks = self.thinking.0 || of_message(|message| message.thinking.0);
        match (self.response.0, of_message(|message| message.content.0), thinks) {
            _ if of_message(|message| message.tool_calls.0) => None,
            (true, false, false) => Some("response"),
            (false, true, false) => Some("content"),
            (false, false, true) => Some("thinking"),
            _ => None,
        }
    }

    fn produced(&self) -> Produced {
        let message = self.message.0.as_ref();
        if self.response.0 || message.is_some_and(|message| message.content.0 || message.tool_calls.0) {
            Produced::Answer
        } else if self.thinking.0 || message.is_some_and(|message| message.thinking.0) {
            Produced::Reasoning
        } else if message.is_some() || self.done.0.is_some() || self.error.0.is_some() {
            Produced::Nothing
        } else {
            Produced::Unknown
        }
    }
}
