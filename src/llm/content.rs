//! What was said, for those who ask for it: prompts and answers, bounded, in the form that the GenAI conventions have for
//! them. Nothing here runs unless the configuration says `capture_content = true`.

use serde_json::{Value, json};

use super::count::AnswerTexts;
use super::reading::cut;
use super::sse::Event;

/// The most bytes of text kept of a prompt, and of an answer.
pub const CONTENT_MAX: usize = 16 << 10;

/// Longer bodies are not looked into.
const BODY_MAX: usize = 1 << 20;

/// Messages kept of a prompt at most.
const MESSAGES_MAX: usize = 64;

/// The messages of a JSON request as `gen_ai.input.messages`: the last of them that fit into [`CONTENT_MAX`]. `None` where
/// the body is too long to look into, or says nothing.
pub fn input_messages(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body.get(..).filter(|body| body.len() <= BODY_MAX)?).ok()?;
    let mut budget = CONTENT_MAX;
    let mut kept = Vec::new();
    for (role, content) in said(&body).into_iter().rev().take(MESSAGES_MAX) {
        if budget == 0 {
            break;
        }
        let mut texts = Vec::new();
        gather(content, &mut texts, 0);
        let parts: Vec<Value> = texts
            .into_iter()
            .map(|text| {
                let text = cut(text, budget);
                budget -= text.len();
                json!({ "type": "text", "content": text })
            })
            .collect();
        kept.push(json!({ "role": cut(role, 32), "parts": parts }));
    }
    kept.reverse();
    (!kept.is_empty()).then(|| Value::Array(kept).to_string())
}

/// An answer as `gen_ai.output.messages`.
pub fn output_messages(text: &str, finish_reason: Option<&str>) -> String {
    let mut message = json!({ "role": "assistant", "parts": [{ "type": "text", "content": text }] });
    if let (Some(reason), Some(fields)) = (finish_reason, message.as_object_mut()) {
        fields.insert("finish_reason".to_owned(), reason.into());
    }
    Value::Array(vec![message]).to_string()
}

/// Who said what, in order, in any dialect.
fn said(body: &Value) -> Vec<(&str, &Value)> {
    let mut said = Vec::new();
    for key in ["system", "instructions", "systemInstruction", "system_instruction"] {
        said.extend(body.get(key).map(|content| ("system", content)));
    }
    for key in ["messages", "contents", "input", "prompt"] {
        match body.get(key) {
            Some(Value::Array(messages)) => said.extend(messages.iter().map(|message| {
                let role = message.get("role").and_then(Value::as_str).unwrap_or("user");
                (role, message)
            })),
            Some(text @ Value::String(_)) => said.push(("user", text)),
            _ => {}
        }
    }
    said
}

/// The texts of a message, its parts, or a part.
fn gather<'a>(content: &'a Value, texts: &mut Vec<&'a str>, depth: usize) {
    match content {
        Value::String(text) => texts.push(text),
        Value::Array(parts) if depth < 4 => parts.iter().for_each(|part| gather(part, texts, depth + 1)),
        Value::Object(fields) if depth < 4 => {
            for key in ["content", "parts", "text"] {
                if let Some(inner) = fields.get(key) {
                    gather(inner, texts, depth + 1);
                }
            }
        }
        _ => {}
    }
}

/// Gathers the text of an answer as it passes.
#[derive(Default)]
pub(super) struct Capture {
    texts: AnswerTexts,
    text: String,
}

impl Capture {
    pub(super) fn event(&mut self, event: Event<'_>) {
        let Self { texts, text } = self;
        if text.len() < CONTENT_MAX {
            texts.event(event, |piece| text.push_str(cut(piece, CONTENT_MAX.saturating_sub(text.len()))));
        }
    }

    /// Gathers an event whose whole text is known.
    pub(super) fn text_of_event(&mut self, text: &str) {
        self.text.push_str(cut(text, CONTENT_MAX.saturating_sub(self.text.len())));
    }

    /// Whether `text` is all that `event` has to gather.
    pub(super) fn says(&mut self, event: Event<'_>, text: &str) -> bool {
        self.texts.is(event, text)
    }

    /// What the model said so far: reasoning, answer and tool input in the order they came.
    pub(super) fn text(&self) -> Option<Box<str>> {
        (!self.text.is_empty()).then(|| self.text.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(body: &Value) -> Value {
        serde_json::from_str(&input_messages(body.to_string().as_bytes()).unwrap()).unwrap()
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
            assert_eq!(messages(&body), user, "{body}");
        }
        let anthropic = json!({ "system": "be brief", "messages": [{ "role": "user", "content": "hi" }] });
        assert_eq!(messages(&anthropic)[0]["role"], "system");
        assert_eq!(input_messages(b"{}"), None);
        assert_eq!(input_messages(b"no json"), None);
    }

    #[test]
    fn the_last_messages_are_kept_within_the_bound() {
        let long = "ä".repeat(CONTENT_MAX);
        let body = json!({ "messages": [{ "role": "user", "content": "first" }, { "role": "user", "content": long },
            { "role": "user", "content": "last" }] });
        let kept = messages(&body);
        assert_eq!(kept.as_array().unwrap().len(), 2, "the first had no room");
        assert_eq!(kept[1]["parts"][0]["content"], "last");
        assert!(input_messages(body.to_string().as_bytes()).unwrap().len() < CONTENT_MAX + 500);
        let many: Vec<_> = (0..1_000).map(|n| json!({ "role": "user", "content": n.to_string() })).collect();
        assert_eq!(messages(&json!({ "messages": many })).as_array().unwrap().len(), MESSAGES_MAX);
        let huge = json!({ "prompt": "x".repeat(BODY_MAX) });
        assert_eq!(input_messages(huge.to_string().as_bytes()), None);
    }

    #[test]
    fn answers_are_gathered_within_the_bound() {
        let mut capture = Capture::default();
        assert_eq!(capture.text(), None);
        capture.event(Event::of(br#"{"choices":[{"delta":{"role":"assistant","content":"Hel"}}]}"#));
        capture.event(Event::of(br#"{"choices":[{"delta":{"content":"lo"}}]}"#));
        capture.event(Event::of(b"[DONE]"));
        assert_eq!(capture.text().as_deref(), Some("Hello"));
        let chunk = json!({ "choices": [{ "delta": { "content": "ä".repeat(1_000) } }] }).to_string();
        (0..100).for_each(|_| capture.event(Event::of(chunk.as_bytes())));
        let length = capture.text().unwrap().len();
        assert!((CONTENT_MAX - 2..=CONTENT_MAX).contains(&length), "{length}");
    }

    #[test]
    fn an_answer_is_one_message() {
        let message: Value = serde_json::from_str(&output_messages("hi \"you\"", Some("stop"))).unwrap();
        let parts = json!([{ "type": "text", "content": "hi \"you\"" }]);
        assert_eq!(message, json!([{ "role": "assistant", "parts": parts, "finish_reason": "stop" }]));
    }
}
