//! The typed parts of a message in any dialect.

use serde_json::{Map, Value};

use crate::llm::message::Part;
use crate::llm::reading::cut;

/// The most bytes of text kept of a prompt's messages, of its system instructions, and of an answer.
pub(super) const CONTENT_MAX: usize = 16 << 10;

/// Parts kept of a message at most.
const PARTS_MAX: usize = 64;

/// The most bytes kept of a tool's name, and of the id of its call.
const NAME_MAX: usize = 128;

/// Content nests no deeper in any dialect.
const DEPTH_MAX: usize = 4;

/// Gathers the parts of one message.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) list: Vec<Part>,
    /// What comes is a piece of what came before, where it is of the same kind.
    pub(super) joins: bool,
    /// The calls under way, each by the key that its pieces share.
    calls: Vec<(String, usize)>,
}

/// A call of a tool, or a piece of one.
#[derive(Default)]
pub(super) struct Call<'a> {
    /// What the pieces of one call share.
    pub(super) key: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) arguments: Option<&'a Value>,
}

/// How many bytes more may be kept.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) bytes: usize,
    /// Pieces that were kept since this was set to 0, and the length of the last.
    pub(super) pieces: u32,
    pub(super) last: usize,
}

impl Left {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, pieces: 0, last: 0 }
    }

    /// As much of `text` as may be kept.
    fn take<'t>(&mut self, text: &'t str) -> &'t str {
        let kept = cut(text, self.bytes);
        // Where a character did not fit, nothing after it is kept either.
        self.bytes = if kept.len() < text.len() { 0 } else { self.bytes - kept.len() };
        self.pieces += 1;
        self.last = kept.len();
        kept
    }
}

impl Parts {
    pub(super) fn joining() -> Self {
        Self { joins: true, ..Self::default() }
    }

    pub(super) fn text(&mut self, text: &str, left: &mut Left) {
        match self.list.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(said)) if self.joins => said.push_str(left.take(text)),
            _ => self.push(Part::Text(left.take(text).to_owned())),
        }
    }

    pub(super) fn reasoning(&mut self, text: &str, left: &mut Left) {
        match self.list.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Reasoning(said)) if self.joins => said.push_str(left.take(text)),
            _ => self.push(Part::Reasoning(left.take(text).to_owned())),
        }
    }

    pub(super) fn call(&mut self, call: &Call<'_>, left: &mut Left) {
        let written = match call.arguments {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(fields)) if fields.is_empty() && self.joins => String::new(),
            Some(Value::Null) | None => String::new(),
            Some(value) => value.to_string(),
        };
        let known = call.key.and_then(|key| self.calls.iter().find(|(known, _)| known == key).map(|(_, at)| *at));
        let unnamed = call.name.is_none_or(str::is_empty);
        let at = known.or_else(|| unnamed.then(|| self.list.len().checked_sub(1)).flatten()).filter(|_| self.joins);
        if let Some(Part::ToolCall { arguments, .. }) = at.and_then(|at| self.list.get_mut(at)) {
            if !written.is_empty() {
                arguments.push_str(left.take(&written));
            }
            return;
        }
        if unnamed {
            return;
        }
        if let Some(key) = call.key.filter(|_| self.joins && self.list.len() < PARTS_MAX) {
            self.calls.push((cut(key, NAME_MAX).to_owned(), self.list.len()));
        }
        let short = |text: &str| cut(text, NAME_MAX).to_owned();
        let name = call.name.map(short).unwrap_or_default();
        // A name is a piece too.
        left.pieces += 1;
        left.last = 0;
        self.push(Part::ToolCall { id: call.id.map(short), name, arguments: left.take(&written).to_owned() });
    }

    fn response(&mut self, id: Option<&str>, response: &Value, left: &mut Left) {
        let mut texts = String::new();
        let written = match response {
            Value::String(text) => text.as_str(),
            // A list of parts, of which the texts tell.
            Value::Array(_) => {
                each_text(response, 0, &mut |text| texts.push_str(cut(text, left.bytes)));
                &texts
            }
            Value::Null => "",
            value => {
                texts = value.to_string();
                &texts
            }
        };
        let response = left.take(written).to_owned();
        self.push(Part::ToolResponse { id: id.map(|id| cut(id, NAME_MAX).to_owned()), response });
    }

    fn push(&mut self, part: Part) {
        if self.list.len() < PARTS_MAX {
            self.list.push(part);
        }
    }

    /// More of what came last.
    pub(super) fn more(&mut self, text: &str, left: &mut Left) {
        match self.list.last_mut() {
            Some(Part::Text(said) | Part::Reasoning(said) | Part::ToolCall { arguments: said, .. }) => {
                said.push_str(left.take(text));
            }
            Some(Part::ToolResponse { .. }) | None => self.text(text, left),
        }
    }

    /// Whether what came last ends in `text`.
    pub(super) fn ends_with(&self, text: &str) -> bool {
        match self.list.last() {
            Some(Part::Text(said) | Part::Reasoning(said) | Part::ToolCall { arguments: said, .. }) => {
                said.ends_with(text)
            }
            Some(Part::ToolResponse { .. }) | None => false,
        }
    }

    /// Whether the call with this key has come with arguments, or with a piece of them.
    pub(super) fn has_arguments(&self, key: &str) -> bool {
        let at = self.calls.iter().find(|(known, _)| known == key).map(|(_, at)| *at);
        let part = at.and_then(|at| self.list.get(at));
        matches!(part, Some(Part::ToolCall { arguments, .. }) if !arguments.is_empty())
    }

    /// Gathers what a message, its content, or a part of it has.
    pub(super) fn gather(&mut self, content: &Value, left: &mut Left, depth: usize) {
        match content {
            _ if left.bytes == 0 => {}
            Value::String(text) => self.text(text, left),
            Value::Array(items) if depth < DEPTH_MAX => {
                items.iter().for_each(|item| self.gather(item, left, depth + 1));
            }
            Value::Object(fields) if depth < DEPTH_MAX => self.object(fields, left, depth),
            _ => {}
        }
    }

    fn object(&mut self, fields: &Map<String, Value>, left: &mut Left, depth: usize) {
        let kind = word(fields, &["type"]).unwrap_or_default();
        let id = || word(fields, &["call_id", "tool_use_id", "toolCallId", "tool_call_id", "id"]);
        match kind {
            "thinking" | "reasoning" | "reasoning_text" | "summary_text" => {
                for key in ["thinking", "text", "summary", "content", "reasoning"] {
                    if let Some(inner) = fields.get(key) {
                        each_text(inner, depth, &mut |text| self.reasoning(text, left));
                    }
                }
            }
            "tool_use" | "server_tool_use" | "mcp_tool_use" | "function_call" | "custom_tool_call" | "mcp_call"
            | "tool-call" => self.call(&call_in(fields, id(), None), left),
            "tool_result" | "function_call_output" | "custom_tool_call_output" | "tool-result" => {
                let response = ["content", "output", "result"].into_iter().find_map(|key| fields.get(key));
                self.response(id(), response.unwrap_or(&Value::Null), left);
            }
            _ if fields.contains_key("toolCallId") => {
                // A part of the AI SDK's messages, which names the tool in its type.
                let named = Call { name: kind.strip_prefix("tool-"), ..call_in(fields, id(), None) };
                self.call(&if named.name.is_some() { named } else { call_in(fields, id(), None) }, left);
                if let Some(output) = fields.get("output") {
                    self.response(id(), output, left);
                }
            }
            _ => self.message(fields, left, depth),
        }
    }

    /// A message, or a part that has no kind of its own.
    fn message(&mut self, fields: &Map<String, Value>, left: &mut Left, depth: usize) {
        for key in ["functionCall", "function_call"] {
            if let Some(Value::Object(call)) = fields.get(key) {
                self.call(&call_in(call, word(call, &["id"]), None), left);
            }
        }
        for key in ["functionResponse", "function_response"] {
            if let Some(Value::Object(answer)) = fields.get(key) {
                let response = answer.get("response").unwrap_or(&Value::Null);
                self.response(word(answer, &["id", "name"]), response, left);
            }
        }
        if let Some(id) = word(fields, &["tool_call_id"]) {
            return self.response(Some(id), fields.get("content").unwrap_or(&Value::Null), left);
        }
        let is_thought = fields.get("thought").is_some_and(|thought| thought == true);
        for key in ["reasoning_content", "reasoning", "thinking"] {
            if let Some(Value::String(text)) = fields.get(key) {
                self.reasoning(text, left);
                break;
            }
        }
        for key in ["content", "parts", "text", "refusal"] {
            match fields.get(key) {
                Some(Value::String(text)) if is_thought => self.reasoning(text, left),
                Some(inner) => self.gather(inner, left, depth + 1),
                None => {}
            }
        }
        if let Some(Value::Array(calls)) = fields.get("tool_calls") {
            for call in calls.iter().filter_map(Value::as_object) {
                let index = call.get("index").map(Value::to_string);
                let told = match call.get("function") {
                    Some(Value::Object(function)) => function,
                    _ => call,
                };
                self.call(&call_in(told, word(call, &["id"]), index.as_deref()), left);
            }
        }
    }
}

/// The call that an object tells under the names of any dialect.
pub(super) fn call_in<'a>(fields: &'a Map<String, Value>, id: Option<&'a str>, key: Option<&'a str>) -> Call<'a> {
    let arguments = ["arguments", "input", "args"].into_iter().find_map(|key| fields.get(key));
    Call { key, id, name: word(fields, &["name", "toolName", "tool_name"]), arguments }
}

/// The first of these keys that has a string.
pub(super) fn word<'a>(fields: &'a Map<String, Value>, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| fields.get(*key)?.as_str())
}

/// The texts of a content, its parts, or a part.
fn each_text(content: &Value, depth: usize, take: &mut impl FnMut(&str)) {
    match content {
        Value::String(text) => take(text),
        Value::Array(items) if depth < DEPTH_MAX => items.iter().for_each(|item| each_text(item, depth + 1, take)),
        Value::Object(fields) if depth < DEPTH_MAX => {
            for key in ["text", "content"] {
                if let Some(inner) = fields.get(key) {
                    each_text(inner, depth + 1, take);
                }
            }
        }
        _ => {}
    }
}
