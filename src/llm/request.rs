//! What an LLM-shaped request asks for.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use super::Dialect;
use super::json::{Filled, Flag, Loose, Number, Word, loose};
use super::reading::{TEXT_LIMIT, cut};

/// The facts of one request that telemetry, routing and limits need. Read from the path and, for JSON, the body.
#[derive(Debug, Clone, PartialEq)]
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
    /// How many answers to the one prompt are asked for.
    pub choices: u64,
    /// The most tokens are asked for with something that is no whole number from 0 to 10 million.
    pub bad_max_tokens: bool,
}

impl Default for RequestFacts {
    fn default() -> Self {
        Self {
            dialect: None,
            operation: None,
            model: None,
            stream: None,
            max_tokens: None,
            temperature: None,
            top_p: None,
            choices: 1,
            bad_max_tokens: false,
        }
    }
}

impl RequestFacts {
    /// Reads a request. `path` may have a query. `body` is the JSON body where one was buffered. Malformed JSON yields what
    /// the path tells; of a key that comes twice the last counts, as for most backends.
    pub fn read(path: &str, body: Option<&[u8]>) -> Self {
        let body = body.and_then(|body| serde_json::from_slice::<Body>(body).ok());
        let known = known_path(path, body.as_ref()).or_else(|| body.as_ref().and_then(Body::shape));
        let (dialect, operation) = known.unzip();
        let body = body.unwrap_or_default();
        let (model, stream) = match dialect {
            Some(Dialect::Gemini) => gemini_path(path).map_or((None, None), |(model, stream, _)| (Some(model), stream)),
            _ => (body.model, body.stream),
        };
        Self {
            dialect,
            operation,
            model,
            stream,
            max_tokens: body.max_completion_tokens.count.or(body.max_tokens.count),
            temperature: body.temperature,
            top_p: body.top_p,
            choices: body.choices.unwrap_or(1).max(1),
            bad_max_tokens: body.max_completion_tokens.is_bad || body.max_tokens.is_bad,
        }
    }

    /// Whether the answer will come in one piece: then it has no first token, and its head comes only with its end.
    pub fn answers_whole(&self) -> bool {
        let streams_unasked = match self.dialect {
            Some(Dialect::OpenAiChat | Dialect::OpenAiResponses | Dialect::Anthropic) => false,
            // Ollama streams unless told not to, and Gemini's path tells; of others nothing is known.
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
const GENERATE_CONTENT: &str = "generate_content";

/// More tokens than this nobody means to ask for.
const MAX_TOKENS_MAX: f64 = 10_000_000.0;

/// What is read of a JSON body.
#[derive(Debug, Default)]
struct Body {
    model: Option<String>,
    stream: Option<bool>,
    max_tokens: Limit,
    max_completion_tokens: Limit,
    temperature: Option<f64>,
    top_p: Option<f64>,
    choices: Option<u64>,
    has_messages: bool,
    has_prompt: bool,
    has_input: bool,
}

/// Dialect and operation by the path. The body decides where others use the same path.
fn known_path(path: &str, body: Option<&Body>) -> Option<(Dialect, &'static str)> {
    if let Some((_, _, operation)) = gemini_path(path) {
        return Some((Dialect::Gemini, operation));
    }
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
    let speaks_responses = |body: &Body| body.model.is_some() && (body.has_input || body.has_prompt);
    if path.ends_with("/v1/responses") || (path.ends_with("/responses") && body.is_some_and(speaks_responses)) {
        return Some((Dialect::OpenAiResponses, CHAT));
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

/// Model, streaming and operation of a path such as `/v1beta/models/gemini-2.5-flash:streamGenerateContent`. Whether it
/// streams is `None` where it streams JSON, not events.
fn gemini_path(path: &str) -> Option<(String, Option<bool>, &'static str)> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (resource, method) = path.rsplit_once(':')?;
    let model = resource.rsplit('/').next().filter(|model| !model.is_empty())?;
    let (stream, operation) = match method {
        "streamGenerateContent" => {
            let as_events =
                query.split('&').any(|pair| pair == "alt=sse" || pair == "%24alt=sse" || pair == "$alt=sse");
            (as_events.then_some(true), GENERATE_CONTENT)
        }
        "generateContent" => (Some(false), GENERATE_CONTENT),
        "embedContent" | "batchEmbedContents" => (Some(false), EMBEDDINGS),
        _ => return None,
    };
    Some((cut(model, TEXT_LIMIT).to_owned(), stream, operation))
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

/// Parameters that stand in an object of their own: Ollama's `options`, Gemini's `generationConfig`.
#[derive(Default)]
struct Options {
    max_tokens: Limit,
    choices: Option<u64>,
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
                "max_tokens" | "max_output_tokens" => body.max_tokens = fields.next_value()?,
                "max_completion_tokens" => body.max_completion_tokens = fields.next_value()?,
                "n" => body.choices = fields.next_value::<Number>()?.count(),
                "temperature" => body.temperature = fields.next_value::<Number>()?.0,
                "top_p" => body.top_p = fields.next_value::<Number>()?.0,
                "messages" => body.has_messages = fields.next_value::<Listed>()?.0,
                "prompt" => body.has_prompt = fields.next_value::<Filled>()?.0,
                "input" | "inputs" => body.has_input = fields.next_value::<Filled>()?.0,
                "options" | "generationConfig" | "generation_config" => {
                    let options: Options = fields.next_value()?;
                    if options.max_tokens != Limit::default() {
                        body.max_tokens = options.max_tokens;
                    }
                    body.choices = options.choices.or(body.choices);
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
                // Ollama's -1 and -2 mean: without limit.
                "num_predict" => options.max_tokens = fields.next_value::<Limit>()?.or_endless(),
                "maxOutputTokens" | "max_output_tokens" => options.max_tokens = fields.next_value()?,
                "candidateCount" | "candidate_count" => options.choices = fields.next_value::<Number>()?.count(),
                "temperature" => options.temperature = fields.next_value::<Number>()?.0,
                "top_p" | "topP" => options.top_p = fields.next_value::<Number>()?.0,
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(options)
    }
}

/// The most tokens that are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Limit {
    count: Option<u64>,
    is_bad: bool,
}

impl Limit {
    const BAD: Self = Self { count: None, is_bad: true };

    /// The same, but that no count means no limit.
    fn or_endless(self) -> Self {
        if self.count.is_none() { Self::default() } else { self }
    }
}

impl<'de> Loose<'de> for Limit {
    fn number(value: f64) -> Self {
        let is_good = (0.0..=MAX_TOKENS_MAX).contains(&value) && value.fract() == 0.0;
        Self { count: Number(Some(value)).count(), is_bad: !is_good }
    }

    fn text(_: &str) -> Self {
        Self::BAD
    }

    fn flag(_: bool) -> Self {
        Self::BAD
    }

    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::BAD)
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::BAD)
    }
}

/// Whether a value is an array.
#[derive(Default)]
struct Listed(bool);

impl<'de> Loose<'de> for Listed {
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self(true))
    }
}

loose!(Body, Options, Limit, Listed);

#[cfg(test)]
mod tests;
