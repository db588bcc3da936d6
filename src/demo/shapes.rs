//! The events of each dialect, as its servers send them.

use serde_json::{Value, json};

use super::prefix_cache::Prompt;

/// What the backend can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    OpenAi,
    Anthropic,
    /// `chat` or `generate`.
    Ollama {
        chat: bool,
    },
    Plain,
}

/// Tokens of the answer, for its usage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) prompt: Prompt,
    pub(super) output: u64,
}

impl Usage {
    fn openai(self) -> Value {
        let Self { prompt, output } = self;
        let mut usage = json!({ "prompt_tokens": prompt.tokens, "completion_tokens": output, "total_tokens": prompt.tokens + output });
        if let (Some(cached), Some(fields)) = (prompt.cached, usage.as_object_mut()) {
            fields.insert("prompt_tokens_details".to_owned(), json!({ "cached_tokens": cached }));
        }
        usage
    }
}

const ID: &str = "demo-1";

impl Shape {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Ollama { .. } => "application/x-ndjson",
            _ => "text/event-stream",
        }
    }

    /// What comes before the first token.
    pub(super) fn prelude(self, model: &str, usage: Usage) -> String {
        match self {
            Self::OpenAi => openai(model, json!({ "role": "assistant", "content": "" }), None),
            Self::Anthropic => {
                let message = json!({ "id": ID, "type": "message", "role": "assistant", "model": model, "content": [],
                    "usage": { "input_tokens": usage.prompt.tokens, "output_tokens": 1 } });
                named("message_start", json!({ "type": "message_start", "message": message }))
                    + &named(
                        "content_block_start",
                        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
                    )
            }
            Self::Ollama { .. } | Self::Plain => String::new(),
        }
    }

    pub(super) fn ping(self) -> String {
        match self {
            Self::Anthropic => named("ping", json!({ "type": "ping" })),
            Self::Ollama { .. } => String::new(),
            _ => ": ping\n\n".to_owned(),
        }
    }

    pub(super) fn token(self, model: &str, text: &str) -> String {
        match self {
            Self::OpenAi => openai(model, json!({ "content": text }), None),
            Self::Anthropic => delta(json!({ "type": "text_delta", "text": text })),
            Self::Ollama { chat: true } => {
                line(json!({ "model": model, "message": { "role": "assistant", "content": text }, "done": false }))
            }
            Self::Ollama { chat: false } => line(json!({ "model": model, "response": text, "done": false })),
            Self::Plain => event(&json!({ "token": text })),
        }
    }

    pub(super) fn reasoning(self, model: &str, text: &str) -> String {
        match self {
            Self::OpenAi => openai(model, json!({ "reasoning_content": text }), None),
            Self::Anthropic => delta(json!({ "type": "thinking_delta", "thinking": text })),
            Self::Ollama { .. } => line(
                json!({ "model": model, "message": { "role": "assistant", "content": "", "thinking": text }, "done": false }),
            ),
            Self::Plain => event(&json!({ "token": text })),
        }
    }

    pub(super) fn tool_call(self, model: &str) -> String {
        let function = json!({ "name": "look", "arguments": "{\"at\":\"gauge\"}" });
        match self {
            Self::OpenAi => openai(
                model,
                json!({ "tool_calls": [{ "index": 0, "id": "call_1", "type": "function", "function": function }] }),
                None,
            ),
            Self::Anthropic => delta(json!({ "type": "input_json_delta", "partial_json": "{\"at\":\"gauge\"}" })),
            Self::Ollama { .. } => line(
                json!({ "model": model, "message": { "role": "assistant", "content": "", "tool_calls": [{ "function": { "name": "look", "arguments": { "at": "gauge" } } }] }, "done": false }),
            ),
            Self::Plain => event(&json!({ "tool": "look" })),
        }
    }

    pub(super) fn error(self) -> String {
        match self {
            Self::OpenAi => event(&json!({ "error": { "message": "asked for", "type": "api_error", "code": 500 } })),
            Self::Anthropic => named(
                "error",
                json!({ "type": "error", "error": { "type": "overloaded_error", "message": "asked for" } }),
            ),
            Self::Ollama { .. } => line(json!({ "error": "asked for" })),
            Self::Plain => event(&json!({ "error": "asked for" })),
        }
    }

    /// The normal end.
    pub(super) fn end(self, model: &str, usage: Usage, tool: bool, ask_usage: bool) -> String {
        match self {
            Self::OpenAi => {
                let mut text = openai(model, json!({}), Some(if tool { "tool_calls" } else { "stop" }));
                if ask_usage {
                    text += &event(
                        &json!({ "id": ID, "object": "chat.completion.chunk", "model": model, "choices": [], "usage": usage.openai() }),
                    );
                }
                text + "data: [DONE]\n\n"
            }
            Self::Anthropic => {
                let reason = if tool { "tool_use" } else { "end_turn" };
                named("content_block_stop", json!({ "type": "content_block_stop", "index": 0 }))
                    + &named(
                        "message_delta",
                        json!({ "type": "message_delta", "delta": { "stop_reason": reason }, "usage": { "output_tokens": usage.output } }),
                    )
                    + &named("message_stop", json!({ "type": "message_stop" }))
            }
            Self::Ollama { chat } => {
                let mut last = json!({ "model": model, "done": true, "done_reason": "stop", "prompt_eval_count": usage.prompt.tokens, "eval_count": usage.output, "total_duration": 1_000_000 });
                let (key, empty) = match chat {
                    true => ("message", json!({ "role": "assistant", "content": "" })),
                    false => ("response", json!("")),
                };
                if let Some(fields) = last.as_object_mut() {
                    fields.insert(key.to_owned(), empty);
                }
                line(last)
            }
            Self::Plain => "data: [DONE]\n\n".to_owned(),
        }
    }

    /// The answer in one piece.
    pub(super) fn whole(self, model: &str, text: &str, usage: Usage) -> Value {
        match self {
            Self::OpenAi => json!({ "id": ID, "object": "chat.completion", "model": model,
                "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
                "usage": usage.openai() }),
            Self::Anthropic => {
                json!({ "id": ID, "type": "message", "role": "assistant", "model": model, "stop_reason": "end_turn",
                "content": [{ "type": "text", "text": text }], "usage": { "input_tokens": usage.prompt.tokens, "output_tokens": usage.output } })
            }
            Self::Ollama { chat: true } => {
                json!({ "model": model, "message": { "role": "assistant", "content": text }, "done": true,
                "done_reason": "stop", "prompt_eval_count": usage.prompt.tokens, "eval_count": usage.output })
            }
            Self::Ollama { chat: false } => {
                json!({ "model": model, "response": text, "done": true, "done_reason": "stop",
                "prompt_eval_count": usage.prompt.tokens, "eval_count": usage.output })
            }
            Self::Plain => json!({ "text": text }),
        }
    }
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn named(name: &str, data: Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn line(data: Value) -> String {
    format!("{data}\n")
}

fn openai(model: &str, delta: Value, finish: Option<&str>) -> String {
    event(&json!({ "id": ID, "object": "chat.completion.chunk", "created": 1, "model": model,
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] }))
}

fn delta(delta: Value) -> String {
    named("content_block_delta", json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
}
