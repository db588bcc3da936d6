//! What an LLM-shaped request asks for.

use super::Dialect;

/// The facts of one request that telemetry, routing and limits need. Read from the path and, for JSON, the body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestFacts {
    /// What the request seems to speak; `None`: not LLM-shaped.
    pub dialect: Option<Dialect>,
    /// `chat`, `text_completion`, `embeddings`, … (`gen_ai.operation.name`).
    pub operation: Option<&'static str>,
    pub model: Option<String>,
    /// What the `stream` field says, where there is one.
    pub stream: Option<bool>,
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
}

impl RequestFacts {
    /// Reads a request. `body` is the JSON body where one was buffered. Malformed JSON yields what the path tells.
    pub fn read(path: &str, body: Option<&[u8]>) -> Self {
        let _ = (path, body);
        Self::default()
    }

    /// Whether this is an LLM request at all: a known path, or a body with a model, prompt or messages.
    pub fn is_llm(&self) -> bool {
        self.dialect.is_some()
    }
}
