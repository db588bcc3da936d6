//! Messages of typed parts, as the GenAI conventions define them, for captured prompts and answers.

use serde_json::{Map, Value, json};

/// One message of a prompt, or one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub role: String,
    pub parts: Vec<Part>,
}

/// One piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Reasoning(String),
    ToolCall {
        id: Option<String>,
        name: String,
        /// As it was written: JSON, where it was not cut.
        arguments: String,
    },
    ToolResponse {
        id: Option<String>,
        response: String,
    },
}

/// Messages as `gen_ai.input.messages` has them.
pub fn messages(messages: &[Message]) -> Value {
    messages.iter().map(|message| json!({ "role": message.role, "parts": parts(&message.parts) })).collect()
}

/// Answers as `gen_ai.output.messages` has them, each with the reason for which it ended, where that is known.
pub fn answers(messages: &[Message], finish_reasons: &[String]) -> Value {
    let reasons = finish_reasons.iter().map(Some).chain(std::iter::repeat(None));
    messages
        .iter()
        .zip(reasons)
        .map(|(message, reason)| match reason {
            Some(reason) => json!({ "role": message.role, "parts": parts(&message.parts), "finish_reason": reason }),
            None => json!({ "role": message.role, "parts": parts(&message.parts) }),
        })
        .collect()
}

/// Parts alone, as `gen_ai.system_instructions` has them.
pub fn parts(parts: &[Part]) -> Value {
    parts.iter().map(Part::json).collect()
}

impl Part {
    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "type": "text", "content": text }),
            Self::Reasoning(text) => json!({ "type": "reasoning", "content": text }),
            Self::ToolCall { id, name, arguments } => {
                let mut call = with_id("tool_call", id.as_deref());
                call.insert("name".to_owned(), name.as_str().into());
                if !arguments.is_empty() {
                    call.insert("arguments".to_owned(), value(arguments));
                }
                call.into()
            }
            Self::ToolResponse { id, response } => {
                let mut answer = with_id("tool_call_response", id.as_deref());
                answer.insert("response".to_owned(), value(response));
                answer.into()
            }
        }
    }
}

fn with_id(kind: &str, id: Option<&str>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), kind.into());
    if let Some(id) = id {
        fields.insert("id".to_owned(), id.into());
    }
    fields
}

/// The value that a text is written for, where it is an object or a list; else the text.
fn value(text: &str) -> Value {
    let structured = text.trim_start().starts_with(['{', '[']);
    let read = structured.then(|| serde_json::from_str(text).ok()).flatten();
    read.unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_forms_of_the_conventions() {
        let said = [
            Part::Reasoning("hm".to_owned()),
            Part::Text("hi \"you\"".to_owned()),
            Part::ToolCall { id: Some("c1".to_owned()), name: "add".to_owned(), arguments: "{\"a\":1}".to_owned() },
            Part::ToolCall { id: None, name: "cut".to_owned(), arguments: "{\"a\":".to_owned() },
            Part::ToolResponse { id: Some("c1".to_owned()), response: "2".to_owned() },
        ];
        let message = Message { role: "assistant".to_owned(), parts: said.to_vec() };
        let other = Message { role: "assistant".to_owned(), parts: Vec::new() };
        let parts = json!([
            { "type": "reasoning", "content": "hm" },
            { "type": "text", "content": "hi \"you\"" },
            { "type": "tool_call", "id": "c1", "name": "add", "arguments": { "a": 1 } },
            { "type": "tool_call", "name": "cut", "arguments": "{\"a\":" },
            { "type": "tool_call_response", "id": "c1", "response": "2" },
        ]);
        assert_eq!(super::parts(&said), parts);
        assert_eq!(
            answers(&[message, other], &["stop".to_owned()]),
            json!([
                { "role": "assistant", "parts": parts, "finish_reason": "stop" },
                { "role": "assistant", "parts": [] },
            ])
        );
    }
}
