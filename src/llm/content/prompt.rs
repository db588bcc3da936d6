//! What was asked.

use serde_json::Value;

use super::parts::{CONTENT_MAX, Left, Parts};
use crate::llm::message::{Message, Part};
use crate::llm::reading::cut;

/// Longer bodies are not looked into.
const BODY_MAX: usize = 1 << 20;

/// Messages kept of a prompt at most.
const MESSAGES_MAX: usize = 64;

/// What a request asks, in any dialect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Instructions that stand apart from the messages.
    pub system: Vec<Part>,
    /// The last of the messages that fit into 16 KiB.
    pub messages: Vec<Message>,
}

impl Prompt {
    /// Reads a JSON request. `None` where it is too long to look into, or says nothing.
    pub fn read(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body.get(..).filter(|body| body.len() <= BODY_MAX)?).ok()?;
        let prompt = Self { system: system(&body), messages: messages(&body) };
        (prompt != Self::default()).then_some(prompt)
    }
}

fn system(body: &Value) -> Vec<Part> {
    let (mut parts, mut left) = (Parts::default(), Left::new(CONTENT_MAX));
    for key in ["system", "instructions", "systemInstruction", "system_instruction"] {
        if let Some(content) = body.get(key) {
            parts.gather(content, &mut left, 0);
        }
    }
    parts.list
}

fn messages(body: &Value) -> Vec<Message> {
    let mut left = Left::new(CONTENT_MAX);
    let mut kept = Vec::new();
    for (role, content) in said(body).into_iter().rev().take(MESSAGES_MAX) {
        if left.bytes == 0 {
            break;
        }
        let mut parts = Parts::default();
        parts.gather(content, &mut left, 0);
        kept.push(Message { role: cut(role, 32).to_owned(), parts: parts.list });
    }
    kept.reverse();
    kept
}

/// Who said what, in order.
fn said(body: &Value) -> Vec<(&str, &Value)> {
    let mut said = Vec::new();
    for key in ["messages", "contents", "input", "prompt"] {
        match body.get(key) {
            Some(Value::Array(messages)) => said.extend(messages.iter().map(|message| (role(message), message))),
            Some(text @ Value::String(_)) => said.push(("user", text)),
            _ => {}
        }
    }
    said
}

/// Items of the Responses API that are no messages have none.
fn role(message: &Value) -> &str {
    let word = |key: &str| message.get(key).and_then(Value::as_str);
    word("role").unwrap_or_else(|| match word("type").unwrap_or_default() {
        kind if kind.ends_with("_output") => "tool",
        kind if kind.ends_with("_call") || kind == "reasoning" => "assistant",
        _ => "user",
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Prompt {
        Prompt::read(body.to_string().as_bytes()).unwrap()
    }

    fn json(body: &Value) -> Value {
        crate::llm::message::messages(&read(body).messages)
    }

    #[test]
    fn prompts_of_all_dialects_are_messages() {
        let user = json!([{ "role": "user", "parts": [{ "type": "text", "content": "hi" }] }]);
        for body in [
            json!({ "messages": [{ "role": "user", "content": "hi" }] }),
            json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "hi" }, { "type": "image_url", "image_url": {} }] }] }),
            json!({ "messages": [{ "role": "user", "parts": [{ "type": "text", "text": "hi" }] }] }),
            json!({ "input": "hi" }),
            json!({ "prompt": "hi" }),
            json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }] }),
        ] {
            assert_eq!(json(&body), user, "{body}");
        }
        assert_eq!(Prompt::read(b"{}"), None);
        assert_eq!(Prompt::read(b"no json"), None);
    }

    #[test]
    fn instructions_that_stand_apart_are_no_message() {
        let part = [Part::Text("be brief".to_owned())];
        for body in [
            json!({ "system": "be brief", "messages": [{ "role": "user", "content": "hi" }] }),
            json!({ "system": [{ "type": "text", "text": "be brief" }], "messages": [{ "role": "user", "content": "hi" }] }),
            json!({ "instructions": "be brief", "input": "hi" }),
            json!({ "systemInstruction": { "parts": [{ "text": "be brief" }] }, "contents": [{ "parts": [{ "text": "hi" }] }] }),
        ] {
            let prompt = read(&body);
            assert_eq!(prompt.system, part, "{body}");
            assert_eq!((prompt.messages.len(), &*prompt.messages[0].role), (1, "user"), "{body}");
        }
        let in_history = json!({ "messages": [{ "role": "system", "content": "be brief" }] });
        assert_eq!((read(&in_history).system.len(), &*read(&in_history).messages[0].role), (0, "system"));
    }

    /// A call and its answer, after some thought, as each API has them.
    #[test]
    fn reasoning_and_tools_are_parts_of_their_own() {
        let call = json!({ "type": "tool_call", "id": "c1", "name": "add", "arguments": { "a": 1 } });
        let thought = json!({ "type": "reasoning", "content": "hm" });
        let answer = json!({ "type": "tool_call_response", "id": "c1", "response": "2" });
        let openai = json!({ "messages": [
            { "role": "assistant", "content": null, "reasoning_content": "hm",
              "tool_calls": [{ "id": "c1", "type": "function", "function": { "name": "add", "arguments": "{\"a\":1}" } }] },
            { "role": "tool", "tool_call_id": "c1", "content": "2" },
        ] });
        let anthropic = json!({ "messages": [
            { "role": "assistant", "content": [{ "type": "thinking", "thinking": "hm", "signature": "x" },
              { "type": "tool_use", "id": "c1", "name": "add", "input": { "a": 1 } }] },
            { "role": "tool", "content": [{ "type": "tool_result", "tool_use_id": "c1", "content": [{ "type": "text", "text": "2" }] }] },
        ] });
        for body in [openai, anthropic] {
            let expected =
                json!([{ "role": "assistant", "parts": [thought, call] }, { "role": "tool", "parts": [answer] }]);
            assert_eq!(json(&body), expected, "{body}");
        }
        let responses = json!({ "input": [
            { "type": "reasoning", "id": "r1", "summary": [{ "type": "summary_text", "text": "hm" }] },
            { "type": "function_call", "id": "f1", "call_id": "c1", "name": "add", "arguments": "{\"a\":1}" },
            { "type": "function_call_output", "call_id": "c1", "output": "2" },
        ] });
        let expected = json!([{ "role": "assistant", "parts": [thought] }, { "role": "assistant", "parts": [call] },
            { "role": "tool", "parts": [answer] }]);
        assert_eq!(json(&responses), expected);
        let gemini = json!({ "contents": [
            { "role": "model", "parts": [{ "text": "hm", "thought": true }, { "functionCall": { "id": "c1", "name": "add", "args": { "a": 1 } } }] },
            { "role": "user", "parts": [{ "functionResponse": { "id": "c1", "name": "add", "response": { "sum": 2 } } }] },
        ] });
        let answer = json!({ "type": "tool_call_response", "id": "c1", "response": { "sum": 2 } });
        let expected = json!([{ "role": "model", "parts": [thought, call] }, { "role": "user", "parts": [answer] }]);
        assert_eq!(json(&gemini), expected);
        let ai_sdk = json!({ "messages": [{ "role": "assistant", "parts": [{ "type": "step-start" },
            { "type": "reasoning", "text": "hm" },
            { "type": "tool-add", "toolCallId": "c1", "state": "output-available", "input": { "a": 1 }, "output": { "sum": 2 } }] }] });
        assert_eq!(json(&ai_sdk), json!([{ "role": "assistant", "parts": [thought, call, answer] }]));
    }

    #[test]
    fn the_last_messages_are_kept_within_the_bound() {
        let long = "ä".repeat(CONTENT_MAX);
        let body = json!({ "messages": [{ "role": "user", "content": "first" }, { "role": "user", "content": long },
            { "role": "user", "content": "last" }] });
        let kept = json(&body);
        assert_eq!(kept.as_array().unwrap().len(), 2, "the first had no room");
        assert_eq!(kept[1]["parts"][0]["content"], "last");
        assert!(kept.to_string().len() < CONTENT_MAX + 500);
        let many: Vec<_> = (0..1_000).map(|n| json!({ "role": "user", "content": n.to_string() })).collect();
        assert_eq!(read(&json!({ "messages": many })).messages.len(), MESSAGES_MAX);
        let huge = json!({ "prompt": "x".repeat(BODY_MAX) });
        assert_eq!(Prompt::read(huge.to_string().as_bytes()), None);
        let calls: Vec<_> = (0..10_000).map(|_| json!({ "function": { "name": "n", "arguments": "" } })).collect();
        let prompt = read(&json!({ "messages": [{ "role": "assistant", "tool_calls": calls }] }));
        assert_eq!(prompt.messages[0].parts.len(), 64, "empty parts take room too");
    }
}
