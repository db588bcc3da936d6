//! OpenAI `/responses`, and the events and answers of its images, speech and transcriptions, which are made alike.
//!
//! Each event tells its type. Deltas of text, refusals, tool input and reasoning are tokens, and so are the name of a tool in
//! the item that begins and a finished picture; the other events that open, close or repeat a part are none. `response.completed` and `response.incomplete` end a stream and carry the usage; `error` and
//! `response.failed` can come at any point, even right after `response.created`.

use serde::Deserialize;
use serde_json::json;

use super::closing_events::Closing;
use super::counts::Counts;
use super::reader::Reader;
use crate::llm::json::{Fault, Filled, Flag, Maybe, Number, Word, read_object};
use crate::llm::reading::Produced;
use crate::llm::sse::Event;
use crate::llm::{Background, Reading};

#[derive(Debug, Default)]
pub(super) struct OpenAiResponses {
    /// The number that each event has.
    sequence: u64,
    created_at: u64,
    /// A tool was named: the finished item, which names it again, is nothing new.
    named_tool: bool,
    /// The response is made in the background.
    in_background: bool,
}

/// Any event of a stream.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    sequence_number: Number,
    delta: Filled,
    partial_image_b64: Filled,
    /// A picture, and a piece of sound.
    b64_json: Filled,
    audio: Filled,
    /// In boxes: few events have them, and each event is moved.
    usage: Maybe<Box<Counts>>,
    item: Maybe<Box<Item<'a>>>,
    response: Maybe<Box<Response<'a>>>,
    /// Of `error`, which holds them itself; others put them into an object.
    code: Word<'a>,
    message: Word<'a>,
    error: Fault,
}

/// What `response.output_item.added` and `response.output_item.done` hold.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    name: Filled,
    /// Of a picture.
    result: Filled,
}

/// What the events that begin and end a stream hold, what a whole answer is, and what messages of a WebSocket hold.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::llm) struct Response<'a> {
    #[serde(borrow)]
    pub(in crate::llm) id: Word<'a>,
    pub(in crate::llm) model: Word<'a>,
    pub(in crate::llm) status: Word<'a>,
    created_at: Number,
    pub(in crate::llm) background: Flag,
    /// Of the Realtime API, which does not have the next.
    pub(in crate::llm) status_details: Maybe<Details<'a>>,
    pub(in crate::llm) incomplete_details: Maybe<Details<'a>>,
    pub(in crate::llm) usage: Maybe<Counts>,
    pub(in crate::llm) error: Fault,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::llm) struct Details<'a> {
    #[serde(borrow)]
    pub(in crate::llm) reason: Word<'a>,
    pub(in crate::llm) error: Fault,
}

impl Reader for OpenAiResponses {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        let Some(wire) = read_object::<Wire<'_>>(event.data) else {
            if event.name == b"error" {
                reading.note_error(&String::from_utf8_lossy(event.data));
            }
            return Produced::Unknown;
        };
        self.sequence = wire.sequence_number.count().unwrap_or(self.sequence);
        let name = std::str::from_utf8(event.name).unwrap_or_default();
        let kind = wire.kind.filled().unwrap_or(name);
        if let Some(response) = &wire.response.0 {
            self.note_response(response, false, reading);
        }
        match kind {
            // Most of a stream are these.
            "response.output_text.delta" => return if wire.delta.0 { Produced::Answer } else { Produced::Nothing },
            "response.completed" | "response.incomplete" => reading.normal_end = true,
            "response.failed" => reading.note_error("the response failed"),
            "error" => reading.note_error(&wire.fault()),
            _ if is_of_media(kind) => return wire.media(kind, reading),
            "response.output_item.added" | "response.output_item.done" => {
                return wire.item.0.map_or(Produced::Work, |item| self.item(&item, kind.ends_with("done")));
            }
            _ => return wire.produced(kind),
        }
        Produced::Nothing
    }

    fn document(&mut self, json: &[u8], reading: &mut Reading) {
        if let Some(response) = read_object::<Response<'_>>(json) {
            self.note_response(&response, true, reading);
        }
    }

    fn closing(&self, reading: &Reading, closing: &mut Closing) -> bool {
        let Some(id) = &reading.response_id else { return false };
        let usage = reading.usage.input.zip(reading.usage.output).map(|(input, output)| {
            json!({"input_tokens": input, "output_tokens": output, "total_tokens": input.saturating_add(output)})
        });
        closing.event(
            "response.incomplete",
            &json!({
                "type": "response.incomplete",
                "sequence_number": self.sequence.saturating_add(1),
                "response": {
                    "id": id,
                    "object": "response",
                    "created_at": self.created_at,
                    "status": "incomplete",
                    "model": reading.response_model,
                    "incomplete_details": {"reason": "max_output_tokens"},
                    "error": null,
                    "output": [],
                    "usage": usage,
                },
            }),
        );
        true
    }
}

impl OpenAiResponses {
    /// What an item tells where it begins, or where it is `done`.
    fn item(&mut self, item: &Item<'_>, done: bool) -> Produced {
        // These tools have one name each: their kind's.
        let is_named = item.name.0 || item.kind.is("shell_call") || item.kind.is("apply_patch_call");
        let is_new = is_named && !(done && self.named_tool);
        self.named_tool |= is_named;
        let is_picture = done && item.kind.is("image_generation_call") && item.result.0;
        if is_new || is_picture { Produced::Answer } else { Produced::Work }
    }

    /// Whether the response is made in the background. In one piece only such a one comes unfinished, and only it queues.
    fn note_background(&mut self, response: &Response<'_>, in_one_piece: bool, reading: &mut Reading) {
        self.in_background |= response.background.0 == Some(true) || response.status.is("queued");
        match response.status.filled() {
            Some("queued" | "in_progress") if self.in_background || in_one_piece => {
                reading.background = Background::Running;
            }
            Some("queued" | "in_progress") | None => {}
            Some(_) if self.in_background => reading.background = Background::Ended,
            Some(_) => {}
        }
    }

    fn note_response(&mut self, response: &Response<'_>, in_one_piece: bool, reading: &mut Reading) {
        self.note_background(response, in_one_piece, reading);
        reading.note_id(response.id.filled());
        reading.note_model(response.model.filled());
        self.created_at = response.created_at.count().unwrap_or(self.created_at);
        if let Some(tokens) = &response.usage.0 {
            reading.usage = tokens.usage();
        }
        if let Some(error) = &response.error.0 {
            reading.note_error(error);
        }
        if !reading.finish_reasons.is_empty() {
            return;
        }
        match response.status.filled() {
            Some(status @ "completed") => reading.note_finish_reason(Some(status)),
            Some(status @ "incomplete") => {
                let told = response.incomplete_details.0.as_ref().and_then(|details| details.reason.filled());
                reading.note_finish_reason(told.or(Some(status)));
            }
            _ => {}
        }
    }
}

/// Whether events of this kind tell of a picture, speech or a transcript.
fn is_of_media(kind: &str) -> bool {
    ["image_generation.", "image_edit.", "speech.audio.", "transcript.text."]
        .iter()
        .any(|start| kind.starts_with(start))
}

impl Wire<'_> {
    /// Items and parts that begin and end and how far a tool is are steps of the work; deltas are tokens, if they have any.
    fn produced(&self, kind: &str) -> Produced {
        if self.partial_image_b64.0 {
            return Produced::Answer;
        }
        let Some(what) = kind.strip_prefix("response.") else {
            return if matches!(kind, "keepalive" | "ping") { Produced::Nothing } else { Produced::Unknown };
        };
        match what.rsplit_once('.').map_or(what, |(_, last)| last) {
            // What a shell printed is the tool's, not the model's.
            "delta" if what == "shell_call_output_content.delta" => Produced::Work,
            "delta" if !self.delta.0 => Produced::Nothing,
            "delta" if what.starts_with("reasoning") => Produced::Reasoning,
            "delta" => Produced::Answer,
            // The response as a whole.
            "created" | "queued" | "in_progress" if !what.contains('.') => Produced::Nothing,
            "created" | "queued" | "in_progress" | "added" | "done" | "searching" | "generating" | "interpreting"
            | "completed" | "failed" | "partial_image" => Produced::Work,
            _ => Produced::Unknown,
        }
    }

    /// Reads an event of media; its last one has the usage.
    fn media(&self, kind: &str, reading: &mut Reading) -> Produced {
        if let Some(tokens) = &self.usage.0 {
            reading.usage = tokens.usage();
        }
        reading.normal_end |= kind.ends_with(".completed") || kind.ends_with(".done");
        let is_output = self.b64_json.0 || self.audio.0 || self.delta.0;
        if is_output { Produced::Answer } else { Produced::Nothing }
    }

    fn fault(&self) -> String {
        if let Some(error) = &self.error.0 {
            return error.clone();
        }
        match (self.code.filled(), self.message.filled()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(word), None) | (None, Some(word)) => word.to_owned(),
            (None, None) => "error".to_owned(),
        }
    }
}
