//! What was answered, gathered as it passes.

use serde_json::{Map, Value};

use super::parts::{CONTENT_MAX, Call, Left, Parts, call_in, word};
use crate::llm::message::Message;
use crate::llm::reading::Produced;
use crate::llm::sse::Event;
use crate::llm::token_count::AnswerTexts;

/// Answers to one prompt that are kept at most.
const CHOICES_MAX: usize = 8;

/// Gathers an answer's messages, event by event, in any dialect.
#[derive(Debug)]
pub(in crate::llm) struct Capture {
    texts: AnswerTexts,
    /// One a choice, by its index.
    choices: Vec<(u64, Parts)>,
    /// Which of them took the last piece.
    last: usize,
    left: Left,
}

impl Default for Capture {
    fn default() -> Self {
        Self { texts: AnswerTexts::default(), choices: Vec::new(), last: 0, left: Left::new(CONTENT_MAX) }
    }
}

impl Capture {
    /// Gathers what an event has, which brought `produced`.
    pub(in crate::llm) fn event(&mut self, event: Event<'_>, produced: Produced) {
        self.left.pieces = 0;
        if self.left.bytes == 0 {
            return;
        }
        let data = event.data.trim_ascii();
        let is_typed = match data {
            [b'{', ..] => serde_json::from_slice(data).is_ok_and(|fields| self.object(&fields)),
            // Lines of the AI SDK's fourth version that tell of tools.
            [b'9' | b'b' | b'c', b':', json @ ..] => {
                serde_json::from_slice(json).is_ok_and(|fields| self.tool_of_line(&fields))
            }
            _ => false,
        };
        if is_typed {
            return;
        }
        let mut texts = std::mem::take(&mut self.texts);
        texts.event(event, |text| self.say(text, produced));
        self.texts = texts;
    }

    /// Gathers an event whose whole text is known.
    pub(in crate::llm) fn said(&mut self, text: &str, produced: Produced) {
        self.left.pieces = 0;
        self.say(text, produced);
    }

    /// Gathers an event that differs from the last one in its text alone.
    pub(in crate::llm) fn again(&mut self, text: &str) {
        self.left.pieces = 0;
        let Self { choices, last, left, .. } = self;
        if let Some((_, parts)) = choices.get_mut(*last) {
            parts.more(text, left);
        }
    }

    /// Whether `text` was all that the last event had to gather.
    pub(in crate::llm) fn has_said(&self, text: &str) -> bool {
        let ends = || self.choices.get(self.last).is_some_and(|(_, parts)| parts.ends_with(text));
        self.left.bytes == 0 || self.left.pieces == 1 && self.left.last == text.len() && ends()
    }

    /// What the model said so far: one message a choice, with its parts in the order they came.
    pub(in crate::llm) fn messages(&self) -> Option<Box<[Message]>> {
        let mut said: Vec<_> = self.choices.iter().filter(|(_, parts)| !parts.list.is_empty()).collect();
        said.sort_by_key(|(index, _)| *index);
        let message = |(_, parts): &(u64, Parts)| Message { role: "assistant".to_owned(), parts: parts.list.clone() };
        (!said.is_empty()).then(|| said.into_iter().map(message).collect())
    }

    fn say(&mut self, text: &str, produced: Produced) {
        self.choice(0, |parts, left| match produced {
            Produced::Reasoning => parts.reasoning(text, left),
            _ => parts.text(text, left),
        });
    }

    /// The choice of this index; beyond the first few none.
    fn choice(&mut self, index: u64, gather: impl FnOnce(&mut Parts, &mut Left)) {
        let at = self.choices.iter().position(|(known, _)| *known == index).unwrap_or_else(|| {
            if self.choices.len() < CHOICES_MAX {
                self.choices.push((index, Parts::joining()));
            }
            self.choices.len() - 1
        });
        if let Some((_, parts)) = self.choices.get_mut(at).filter(|(known, _)| *known == index) {
            self.last = at;
            gather(parts, &mut self.left);
        }
    }

    /// Gathers an event, or a whole answer, that has the parts of a dialect apart. False: it has none that is known here.
    fn object(&mut self, fields: &Map<String, Value>) -> bool {
        for (list, said) in [("choices", &["delta", "message"][..]), ("candidates", &["content"])] {
            if let Some(Value::Array(choices)) = fields.get(list) {
                choices.iter().for_each(|choice| self.choice_of(choice, said));
                return true;
            }
        }
        let kind = word(fields, &["type"]).unwrap_or_default();
        if kind.starts_with("response.") {
            self.of_responses(kind, fields);
            return true;
        }
        let index = fields.get("index").map(Value::to_string);
        match kind {
            "content_block_start" => match fields.get("content_block") {
                Some(Value::Object(block)) if block.contains_key("name") => {
                    let call = call_in(block, word(block, &["id"]), index.as_deref());
                    self.choice(0, |parts, left| parts.call(&call, left));
                }
                Some(block) => self.choice(0, |parts, left| parts.gather(block, left, 0)),
                None => {}
            },
            "content_block_delta" => match fields.get("delta") {
                Some(Value::Object(delta)) if delta.contains_key("partial_json") => {
                    let call = Call { key: index.as_deref(), arguments: delta.get("partial_json"), ..Call::default() };
                    self.choice(0, |parts, left| parts.call(&call, left));
                }
                Some(delta) => self.choice(0, |parts, left| parts.gather(delta, left, 0)),
                None => {}
            },
            "reasoning-delta" => self.say(word(fields, &["delta"]).unwrap_or_default(), Produced::Reasoning),
            "tool-input-start" | "tool-input-delta" | "tool-input-available" => return self.tool_of_line(fields),
            _ => return self.whole(fields),
        }
        true
    }

    /// One of several answers.
    fn choice_of(&mut self, choice: &Value, said: &[&str]) {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or_default();
        let content = said.iter().find_map(|key| choice.get(*key)).unwrap_or(choice);
        self.choice(index, |parts, left| parts.gather(content, left, 0));
    }

    /// An event of the Responses API.
    fn of_responses(&mut self, kind: &str, fields: &Map<String, Value>) {
        let key = word(fields, &["item_id"]);
        match (fields.get("delta"), fields.get("item")) {
            // Sound is no text.
            (Some(Value::String(_)), _) if kind.contains("audio.delta") || !kind.ends_with("delta") => {}
            (Some(Value::String(text)), _) if kind.contains("reasoning") => self.say(text, Produced::Reasoning),
            (arguments @ Some(Value::String(_)), _)
                if ["arguments", "input", "code"].iter().any(|word| kind.contains(word)) =>
            {
                self.choice(0, |parts, left| parts.call(&Call { key, arguments, ..Call::default() }, left));
            }
            (Some(Value::String(text)), _) => self.say(text, Produced::Answer),
            (_, Some(Value::Object(item))) if kind.ends_with("output_item.added") && item.contains_key("name") => {
                let begun =
                    Call { arguments: None, ..call_in(item, word(item, &["call_id", "id"]), word(item, &["id"])) };
                self.choice(0, |parts, left| parts.call(&begun, left));
            }
            _ => {}
        }
    }

    /// What the AI SDK tells of a tool's input. What came in pieces is told once more at its end.
    fn tool_of_line(&mut self, fields: &Map<String, Value>) -> bool {
        let Some(id) = word(fields, &["toolCallId"]) else { return false };
        let whole = call_in(fields, Some(id), Some(id));
        let delta = ["inputTextDelta", "argsTextDelta"].into_iter().find_map(|key| fields.get(key));
        let is_told = |parts: &Parts| parts.has_arguments(id);
        self.choice(0, |parts, left| match delta {
            None if is_told(parts) => {}
            _ => parts.call(&Call { arguments: delta.or(whole.arguments), ..whole }, left),
        });
        true
    }

    /// A whole answer, or one of Ollama's lines.
    fn whole(&mut self, fields: &Map<String, Value>) -> bool {
        let said = match (fields.get("output"), fields.get("content"), fields.get("message")) {
            (Some(output @ Value::Array(_)), ..) if word(fields, &["object"]) == Some("response") => output,
            (_, Some(content @ Value::Array(_)), _) if word(fields, &["type"]) == Some("message") => content,
            (_, _, Some(message @ Value::Object(_))) if fields.contains_key("done") => message,
            _ => return self.of_ollama(fields),
        };
        self.choice(0, |parts, left| parts.gather(said, left, 0));
        true
    }

    /// A line of Ollama's `/api/generate`.
    fn of_ollama(&mut self, fields: &Map<String, Value>) -> bool {
        let Some(response) = word(fields, &["response"]).filter(|_| fields.contains_key("done")) else { return false };
        self.say(word(fields, &["thinking"]).unwrap_or_default(), Produced::Reasoning);
        self.say(response, Produced::Answer);
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::llm::message::answers;

    fn captured(events: &[Value]) -> Value {
        let mut capture = Capture::default();
        for event in events {
            capture.event(Event::of(event.to_string().as_bytes()), Produced::Answer);
        }
        answers(&capture.messages().unwrap_or_default(), &[])
    }

    fn message(parts: &Value) -> Value {
        json!([{ "role": "assistant", "parts": parts }])
    }

    fn typed() -> Value {
        message(&json!([
            { "type": "reasoning", "content": "hmm" },
            { "type": "text", "content": "Hello" },
            { "type": "tool_call", "id": "c1", "name": "add", "arguments": { "a": 1 } },
        ]))
    }

    #[test]
    fn the_parts_of_every_dialects_stream_are_told_apart() {
        let openai = [
            json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "reasoning_content": "h", "content": null } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "reasoning_content": "mm" } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "content": "Hel" } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "content": "lo" } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [{ "index": 0, "id": "c1", "function": { "name": "add", "arguments": "" } }] } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [{ "index": 0, "function": { "arguments": "{\"a\"" } }] } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [{ "index": 0, "function": { "arguments": ":1}" } }] } }] }),
            json!({ "choices": [], "usage": { "prompt_tokens": 1 } }),
        ];
        let anthropic = [
            json!({ "type": "message_start", "message": { "id": "m", "content": [] } }),
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "thinking", "thinking": "" } }),
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "thinking_delta", "thinking": "hmm" } }),
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "signature_delta", "signature": "AAAA" } }),
            json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "text", "text": "" } }),
            json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "text_delta", "text": "Hello" } }),
            json!({ "type": "content_block_start", "index": 2, "content_block": { "type": "tool_use", "id": "c1", "name": "add", "input": {} } }),
            json!({ "type": "content_block_delta", "index": 2, "delta": { "type": "input_json_delta", "partial_json": "{\"a\":" } }),
            json!({ "type": "content_block_delta", "index": 2, "delta": { "type": "input_json_delta", "partial_json": "1}" } }),
            json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" }, "usage": {} }),
        ];
        let responses = [
            json!({ "type": "response.created", "response": { "instructions": "x", "output": [] } }),
            json!({ "type": "response.reasoning_summary_text.delta", "item_id": "r1", "delta": "hmm" }),
            json!({ "type": "response.output_text.delta", "item_id": "m1", "delta": "Hel" }),
            json!({ "type": "response.output_text.delta", "item_id": "m1", "delta": "lo" }),
            json!({ "type": "response.output_text.done", "item_id": "m1", "text": "Hello" }),
            json!({ "type": "response.output_item.added", "item": { "type": "function_call", "id": "f1", "call_id": "c1", "name": "add", "arguments": "" } }),
            json!({ "type": "response.function_call_arguments.delta", "item_id": "f1", "delta": "{\"a\":1}" }),
            json!({ "type": "response.function_call_arguments.done", "item_id": "f1", "arguments": "{\"a\":1}" }),
            json!({ "type": "response.output_audio.delta", "delta": "AAAA" }),
            json!({ "type": "response.completed", "response": { "output": [{ "type": "message", "content": [{ "text": "Hello" }] }] } }),
        ];
        let gemini = [
            json!({ "candidates": [{ "content": { "role": "model", "parts": [{ "text": "hmm", "thought": true }] } }] }),
            json!({ "candidates": [{ "content": { "parts": [{ "text": "Hel" }] } }] }),
            json!({ "candidates": [{ "content": { "parts": [{ "text": "lo" }, { "functionCall": { "id": "c1", "name": "add", "args": { "a": 1 } } }] } }] }),
        ];
        let ollama = [
            json!({ "model": "l", "message": { "role": "assistant", "content": "", "thinking": "hmm" }, "done": false }),
            json!({ "model": "l", "message": { "role": "assistant", "content": "Hello" }, "done": false }),
            json!({ "model": "l", "message": { "content": "", "tool_calls": [{ "id": "c1", "function": { "name": "add", "arguments": { "a": 1 } } }] }, "done": true }),
        ];
        let vercel = [
            json!({ "type": "start" }),
            json!({ "type": "reasoning-delta", "id": "0", "delta": "hmm" }),
            json!({ "type": "text-delta", "id": "1", "delta": "Hello" }),
            json!({ "type": "tool-input-start", "toolCallId": "c1", "toolName": "add" }),
            json!({ "type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": "{\"a\":1}" }),
            json!({ "type": "tool-input-available", "toolCallId": "c1", "toolName": "add", "input": { "a": 1 } }),
            json!({ "type": "finish" }),
        ];
        for events in [&openai[..], &anthropic, &responses, &gemini, &ollama, &vercel] {
            assert_eq!(captured(events), typed(), "{events:?}");
        }
    }

    #[test]
    fn the_parts_of_whole_answers_are_told_apart() {
        for answer in [
            json!({ "choices": [{ "message": { "role": "assistant", "reasoning": "hmm", "content": "Hello",
                "tool_calls": [{ "id": "c1", "function": { "name": "add", "arguments": "{\"a\":1}" } }] } }] }),
            json!({ "type": "message", "role": "assistant", "content": [{ "type": "thinking", "thinking": "hmm" },
                { "type": "text", "text": "Hello" }, { "type": "tool_use", "id": "c1", "name": "add", "input": { "a": 1 } }] }),
            json!({ "object": "response", "output": [{ "type": "reasoning", "summary": [{ "type": "summary_text", "text": "hmm" }] },
                { "type": "message", "content": [{ "type": "output_text", "text": "Hello" }] },
                { "type": "function_call", "id": "f1", "call_id": "c1", "name": "add", "arguments": "{\"a\":1}" }] }),
        ] {
            assert_eq!(captured(std::slice::from_ref(&answer)), typed(), "{answer}");
        }
    }

    #[test]
    fn each_choice_is_a_message_and_parallel_calls_are_two() {
        let chunk = |index: u64, delta: Value| json!({ "choices": [{ "index": index, "delta": delta }] });
        let call = |index: u64, id: Value, name: Value, arguments: &str| json!({ "tool_calls": [{ "index": index, "id": id, "function": { "name": name, "arguments": arguments } }] });
        let said = captured(&[
            chunk(1, json!({ "content": "b" })),
            chunk(0, json!({ "content": "a" })),
            chunk(1, json!({ "content": "b" })),
            chunk(0, call(0, "c0".into(), "x".into(), "")),
            chunk(0, call(1, "c1".into(), "y".into(), "")),
            chunk(0, call(0, Value::Null, Value::Null, "[0]")),
            chunk(0, call(1, Value::Null, Value::Null, "[1]")),
        ]);
        let first = json!([{ "type": "text", "content": "a" },
            { "type": "tool_call", "id": "c0", "name": "x", "arguments": [0] },
            { "type": "tool_call", "id": "c1", "name": "y", "arguments": [1] }]);
        let second = json!([{ "type": "text", "content": "bb" }]);
        assert_eq!(said, json!([{ "role": "assistant", "parts": first }, { "role": "assistant", "parts": second }]));
    }

    #[test]
    fn what_no_dialect_has_is_text_or_reasoning_as_the_reader_says() {
        let mut capture = Capture::default();
        capture.event(Event::of(br#"g:"hm""#), Produced::Reasoning);
        capture.event(Event::of(br#"0:"hi""#), Produced::Answer);
        capture.event(Event::of(br#"9:{"toolCallId":"c1","toolName":"add","args":{"a":1}}"#), Produced::Answer);
        capture.event(Event::of(br#"{"token":" you"}"#), Produced::Answer);
        capture.event(Event::of(b"[DONE]"), Produced::Nothing);
        capture.said("!", Produced::Answer);
        assert!(capture.has_said("!") && !capture.has_said("you!"));
        let said = answers(&capture.messages().unwrap(), &[]);
        let parts = json!([{ "type": "reasoning", "content": "hm" }, { "type": "text", "content": "hi" },
            { "type": "tool_call", "id": "c1", "name": "add", "arguments": { "a": 1 } },
            { "type": "text", "content": " you!" }]);
        assert_eq!(said, message(&parts));
    }

    #[test]
    fn answers_are_gathered_within_the_bound() {
        let mut capture = Capture::default();
        assert_eq!(capture.messages(), None);
        let chunk = json!({ "choices": [{ "delta": { "content": "ä".repeat(1_000) } }] }).to_string();
        (0..100).for_each(|_| capture.event(Event::of(chunk.as_bytes()), Produced::Answer));
        capture.again("more");
        let said = answers(&capture.messages().unwrap(), &[]);
        let length = said[0]["parts"][0]["content"].as_str().unwrap().len();
        assert!((CONTENT_MAX - 2..=CONTENT_MAX).contains(&length), "{length}");
        let mut capture = Capture::default();
        for index in 0..1_000 {
            let chunk = json!({ "choices": [{ "index": index, "delta": { "content": "x" } }] }).to_string();
            capture.event(Event::of(chunk.as_bytes()), Produced::Answer);
        }
        assert_eq!(capture.messages().unwrap().len(), CHOICES_MAX);
    }
}
