//! What an LLM-shaped request asks for.

use serde::de::{IgnoredAny, MapAccess};

use super::Dialect;
use super::json::{Filled, Flag, Loose, Number, Word, loose};
use super::reading::{TEXT_LIMIT, cut};

/// The facts of one request that telemetry, routing and limits need. Read from the path and, for JSON, the body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestFacts {
    /// What the request seems to speak; `None`: not LLM-shaped.
    pub dialect: Option<Dialect>,
    /// `chat`, `text_completion`, `embeddings`, … (`gen_ai.operation.name`).
    pub operation: Option<&'static str>,
    /// Bounded to 256 bytes.
    pub model: Option<String>,
    /// What the `stream` field says, where there is one.
    pub stream: Option<bool>,
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
}

impl RequestFacts {
    /// Reads a request. `path` may have a query. `body` is the JSON body where one was buffered. Malformed JSON yields what
    /// the path tells; of a key that comes twice the last counts, as for most backends.
    pub fn read(path: &str, body: Option<&[u8]>) -> Self {
        let body = body.and_then(|body| serde_json::from_slice::<Body>(body).ok());
        let known = known_path(path, body.as_ref()).or_else(|| body.as_ref().and_then(Body::shape));
        let (dialect, operation) = known.unzip();
        let Some(body) = body else { return Self { dialect, operation, ..Self::default() } };
        Self {
            dialect,
            operation,
            model: body.model,
            stream: body.stream,
            max_tokens: body.max_completion_tokens.or(body.max_tokens),
            temperature: body.temperature,
            top_p: body.top_p,
        }
    }

    /// Whether the answer will come in one piece: then it has no first token, and its head comes only with its end.
    pub fn answers_whole(&self) -> bool {
        let streams_unasked = match self.dialect {
            Some(Dialect::OpenAiChat | Dialect::Anthropic) => false,
            // Ollama streams unless told not to; of others nothing is known.
            Some(_) | None => true,
        };
        self.is_llm() && !self.stream.unwrap_or(streams_unasked)
    }

    /// Whether this is an LLM request at all: a known path, or a body with messages, a prompt, or a model and its input.
    pub fn is_llm(&self) -> bool {
        self.dialect.is_some()
    }
}

const CHAT: &str = "chat";
const TEXT_COMPLETION: &str = "text_completion";
const EMBEDDINGS: &str = "embeddings";

/// What is read of a JSON body.
#[derive(Debug, Default)]
struct Body {
    model: Option<String>,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    has_messages: bool,
    has_prompt: bool,
    has_input: bool,
}

/// Dialect and operation by the path. The body decides where others use the same path.
fn known_path(path: &str, body: Option<&Body>) -> Option<(Dialect, &'static str)> {
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let fits = |test: fn(&Body) -> bool| body.is_none_or(test);
    // `useChat` posts to `/api/chat` too, but names no model.
    if path.ends_with("/api/chat") && fits(|body| body.model.is_some()) {
        return Some((Dialect::Ollama, CHAT));
    }
    if path.ends_with("/api/generate") && fits(|body| body.model.is_some()) {
        return Some((Dialect::Ollama, TEXT_COMPLETION));
    }
    if path.ends_with("/api/embed") || (path.ends_with("/api/embeddings") && fits(|body| body.has_prompt)) {
        return Some((Dialect::Ollama, EMBEDDINGS));
    }
    if path.ends_with("/chat/completions") {
        return Some((Dialect::OpenAiChat, CHAT));
    }
    if path.ends_with("/completions") {
        return Some((Dialect::OpenAiChat, TEXT_COMPLETION));
    }
    if path.ends_with("/v1/embeddings") || (path.ends_with("/embeddings") && body.is_some_and(|body| body.has_input)) {
        return Some((Dialect::OpenAiChat, EMBEDDINGS));
    }
    let speaks_messages = |body: &Body| body.has_messages && body.model.is_some();
    if path.ends_with("/v1/messages") || (path.ends_with("/messages") && body.is_some_and(speaks_messages)) {
        return Some((Dialect::Anthropic, CHAT));
    }
    None
}

impl Body {
    /// What a body on an app's own path looks like.
    fn shape(&self) -> Option<(Dialect, &'static str)> {
        if self.has_messages {
            Some((Dialect::PlainSse, CHAT))
        } else if self.has_prompt {
            Some((Dialect::PlainSse, TEXT_COMPLETION))
        } else if self.model.is_some() && (self.has_input || self.stream.is_some()) {
            Some((Dialect::PlainSse, CHAT))
        } else {
            None
        }
    }
}

/// Ollama's parameters, which stand in `options`.
#[derive(Default)]
struct Options {
    max_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
}

impl<'de> Loose<'de> for Body {
    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut body = Self::default();
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            match key.0.as_deref().unwrap_or_default() {
                "model" => {
                    let model: Word<'_> = fields.next_value()?;
                    body.model = model.filled().map(|model| cut(model, TEXT_LIMIT).to_owned());
                }
                "stream" => body.stream = fields.next_value::<Flag>()?.0,
                "max_tokens" | "max_output_tokens" => body.max_tokens = fields.next_value::<Number>()?.count(),
                "max_completion_tokens" => body.max_completion_tokens = fields.next_value::<Number>()?.count(),
                "temperature" => body.temperature = fields.next_value::<Number>()?.0,
                "top_p" => body.top_p = fields.next_value::<Number>()?.0,
                "messages" => body.has_messages = fields.next_value::<Listed>()?.0,
                "prompt" => body.has_prompt = fields.next_value::<Filled>()?.0,
                "input" | "inputs" => body.has_input = fields.next_value::<Filled>()?.0,
                "options" => {
                    let options: Options = fields.next_value()?;
                    body.max_tokens = options.max_tokens.or(body.max_tokens);
                    body.temperature = options.temperature.or(body.temperature);
                    body.top_p = options.top_p.or(body.top_p);
                }
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(body)
    }
}

impl<'de> Loose<'de> for Options {
    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut options = Self::default();
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            match key.0.as_deref().unwrap_or_default() {
                "num_predict" => options.max_tokens = fields.next_value::<Number>()?.count(),
                "temperature" => options.temperature = fields.next_value::<Number>()?.0,
                "top_p" => options.top_p = fields.next_value::<Number>()?.0,
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(options)
    }
}

/// Whether a value is an array.
#[derive(Default)]
struct Listed(bool);

impl<'de> Loose<'de> for Listed {
    fn array<A: serde::de::SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self(true))
    }
}

loose!(Body, Options, Listed);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, body: &str) -> RequestFacts {
        RequestFacts::read(path, Some(body.as_bytes()))
    }

    #[test]
    fn openai_chat_is_read_whole() {
        let body = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"stream":true,
            "max_tokens":7,"max_completion_tokens":100,"temperature":0.5,"top_p":1}"#;
        let expected = RequestFacts {
            dialect: Some(Dialect::OpenAiChat),
            operation: Some("chat"),
            model: Some("gpt-4o".into()),
            stream: Some(true),
            max_tokens: Some(100),
            temperature: Some(0.5),
            top_p: Some(1.0),
        };
        assert_eq!(read("/v1/chat/completions", body), expected);
    }

    #[test]
    fn paths_and_bodies_tell_the_dialect() {
        use Dialect::*;
        let chat = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
        let ui = r#"{"id":"c1","messages":[{"role":"user","parts":[]}],"trigger":"submit-message"}"#;
        let vectors = [
            ("/v1/chat/completions", "", Some((OpenAiChat, "chat"))),
            ("/openai/deployments/x/chat/completions?api-version=1", chat, Some((OpenAiChat, "chat"))),
            ("/v1/completions", r#"{"model":"m","prompt":"p"}"#, Some((OpenAiChat, "text_completion"))),
            ("/v1/embeddings", r#"{"model":"m","input":["a"]}"#, Some((OpenAiChat, "embeddings"))),
            ("/v1/messages", chat, Some((Anthropic, "chat"))),
            ("/v1/messages", "", Some((Anthropic, "chat"))),
            ("/anthropic/messages", chat, Some((Anthropic, "chat"))),
            ("/threads/7/messages", r#"{"text":"hello"}"#, None),
            ("/threads/7/messages", "", None),
            ("/v1/messages/count_tokens", r#"{"model":"m"}"#, None),
            ("/api/chat", chat, Some((Ollama, "chat"))),
            ("/api/chat", ui, Some((PlainSse, "chat"))),
            ("/api/generate", r#"{"model":"m","prompt":"p"}"#, Some((Ollama, "text_completion"))),
            ("/api/embed", r#"{"model":"m","input":"p"}"#, Some((Ollama, "embeddings"))),
            ("/ask", r#"{"prompt":"p"}"#, Some((PlainSse, "text_completion"))),
            ("/ask", chat, Some((PlainSse, "chat"))),
            ("/ask", r#"{"model":"m","input":"p"}"#, Some((PlainSse, "chat"))),
            ("/cars", r#"{"model":"T","colour":"black"}"#, None),
            ("/docs", "", None),
        ];
        for (path, body, expected) in vectors {
            let facts = RequestFacts::read(path, (!body.is_empty()).then_some(body.as_bytes()));
            assert_eq!(facts.dialect.zip(facts.operation), expected, "{path} {body}");
            assert_eq!(facts.is_llm(), expected.is_some(), "{path} {body}");
        }
    }

    #[test]
    fn ollama_options_count() {
        let facts = read("/api/chat", r#"{"model":"m","options":{"num_predict":5,"temperature":0.1,"top_p":0.9}}"#);
        assert_eq!((facts.max_tokens, facts.temperature, facts.top_p), (Some(5), Some(0.1), Some(0.9)));
        assert_eq!(read("/api/chat", r#"{"model":"m","options":{"num_predict":-1}}"#).max_tokens, None);
    }

    #[test]
    fn bad_bodies_spoil_nothing_else() {
        for body in ["{", "", "null", "[1]", "\"x\"", "{\"model\":", "\u{fffd}"] {
            let facts = read("/v1/chat/completions", body);
            let expected =
                RequestFacts { dialect: Some(Dialect::OpenAiChat), operation: Some("chat"), ..Default::default() };
            assert_eq!(facts, expected, "{body}");
        }
        let odd = r#"{"model":["x"],"stream":"yes","max_tokens":"12","temperature":null,"top_p":{},"messages":"m"}"#;
        assert_eq!(read("/x", odd), RequestFacts::default());
        let twice = r#"{"model":"a","stream":false,"stream":true,"model":"b","messages":[]}"#;
        let facts = read("/x", twice);
        assert_eq!((facts.model.as_deref(), facts.stream), (Some("b"), Some(true)));
        let deep =
            format!("{{\"x\":{}1{},\"model\":\"m\",\"prompt\":\"p\"}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read("/x", &deep).model.as_deref(), Some("m"), "depth costs no stack");
        let deep = deep.replace('[', "{\"options\":").replace(']', "}").replace("\"x\"", "\"options\"");
        assert_eq!(read("/x", &deep).model.as_deref(), Some("m"), "depth costs no stack");
    }

    #[test]
    fn a_model_name_is_bounded() {
        let body = format!(r#"{{"model":"{}","prompt":"p"}}"#, "m".repeat(10_000));
        assert_eq!(read("/x", &body).model.map(|model| model.len()), Some(256));
    }
}
