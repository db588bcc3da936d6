//! The format of an answer: its dialect, its framing, and how they were recognised.

use crate::words::worded;

/// What an LLM-shaped exchange speaks. Settled twice: a guess by the request, the truth by the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI `/chat/completions`, also vLLM, SGLang, llama.cpp and most others.
    OpenAiChat,
    /// OpenAI `/responses`.
    OpenAiResponses,
    /// Anthropic `/messages`.
    Anthropic,
    /// Gemini `:generateContent` and `:streamGenerateContent`.
    Gemini,
    /// Ollama `/api/chat` and `/api/generate`: newline-delimited JSON.
    Ollama,
    /// The UI message stream of Vercel's AI SDK, versions 5 to 7.
    VercelUi,
    /// The data stream of Vercel's AI SDK, version 4: lines of a code and JSON.
    VercelData,
    /// A plain FastAPI (or any other) `text/event-stream` of values.
    PlainSse,
    /// A chunked `text/plain` answer of an LLM-shaped request.
    PlainText,
    /// A shape that rules describe, built in or the user's own: its name.
    Shape(&'static str),
}

worded! {
    /// How the events of an answer are delimited.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Framing {
        /// Server-sent events.
        Sse = "sse",
        /// One JSON value a line, which may have a code before it.
        JsonLines = "json-lines",
        /// JSON objects in one array that grows, or one after the other, over any lines.
        JsonValues = "json-values",
        /// Binary frames of AWS, each an event with its name and data.
        AwsEvents = "aws-events",
        /// One JSON document: an answer that is not streamed.
        Json = "json",
        /// Bytes without frames.
        Opaque = "opaque",
    }
}

impl Dialect {
    /// All dialects that are code.
    pub const ALL: [Self; 9] = [
        Self::OpenAiChat,
        Self::OpenAiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::Ollama,
        Self::VercelUi,
        Self::VercelData,
        Self::PlainSse,
        Self::PlainText,
    ];

    /// The word used in the config, labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::OpenAiResponses => "openai-responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::VercelUi => "vercel-ui",
            Self::VercelData => "vercel-data",
            Self::PlainSse => "plain-sse",
            Self::PlainText => "plain-text",
            Self::Shape(name) => name,
        }
    }

    /// The dialect that is code and has this name.
    pub fn of_code(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == name)
    }
}

worded! {
    /// By what it is known which event is the first token.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub enum Basis {
        /// The format says so.
        #[default]
        Dialect = "dialect",
        /// The configuration says so.
        Rules = "rules",
        /// Nothing says so: text under the usual keys was taken for it.
        Guess = "guess",
        /// The answer is text without events: its first byte.
        Bytes = "bytes",
    }
}
