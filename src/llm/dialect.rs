//! The dialects that frontends and backends speak, and how one is recognised.

/// What an LLM-shaped exchange speaks. Settled twice: a guess by the request, the truth by the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI `/chat/completions`, also vLLM, SGLang, llama.cpp and most others.
    OpenAiChat,
    /// Anthropic `/messages`.
    Anthropic,
    /// Ollama `/api/chat` and `/api/generate`: newline-delimited JSON.
    Ollama,
    /// A plain FastAPI (or any other) `text/event-stream` of values.
    PlainSse,
    /// A chunked `text/plain` answer of an LLM-shaped request.
    PlainText,
}

/// How the events of an answer are delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON value a line.
    JsonLines,
    /// One JSON document: an answer that is not streamed.
    Json,
    /// Bytes without frames.
    Opaque,
}
