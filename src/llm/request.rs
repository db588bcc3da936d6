//! What an LLM-shaped request asks for.

mod body;
pub mod body_kind;
pub mod contents;
pub mod details;
pub mod form;
pub mod lenient_json;
mod operation;
mod parameters;
mod path;
pub mod session;

use std::borrow::Cow;

use super::Dialect;
use super::json_rpc::{Rpc, RpcProtocol};
use super::reading::{TEXT_LIMIT, cut};
use body::Body;
use details::Details;
use form::{Form, FormKind};
use operation::{
    CANCEL, CHAT, COMPACTION, CONTINUE, COUNT_TOKENS, EMBEDDINGS, GENERATE_CONTENT, INVOKE_AGENT, MODERATION, RETRIEVE,
    TEXT_COMPLETION,
};
pub use path::{Unseen, canonical_path, with_model};
use path::{agent_path, bedrock_path, gemini_path, known_path, lists_answers, path_model, unseen_work};

/// The facts of one request that telemetry, routing and limits need. Read from the path and, for JSON, the body.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestFacts {
    /// What the request seems to speak; `None`: not LLM-shaped.
    pub dialect: Option<Dialect>,
    /// `chat`, `text_completion`, `embeddings`, `transcription`, … (`gen_ai.operation.name`).
    pub operation: Option<&'static str>,
    /// Bounded to 256 bytes.
    pub model: Option<String>,
    /// What the `stream` field says, where there is one.
    pub stream: Option<bool>,
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    /// What else telemetry tells of the request.
    pub details: Details,
    /// How many answers to the one prompt are asked for.
    pub choices: u64,
    /// How many answers are generated: the larger of `n` and `best_of`, for each prompt of a list.
    pub answers: u64,
    /// The most tokens are asked for with something that is no whole number from 0 to 10 million, or answers with something that
    /// is no count.
    pub bad_count: bool,
    /// A key that is read here and comes twice, whatever its case: backends differ in which of them they believe.
    pub repeated: Option<&'static str>,
    /// The model of an LLM's request is named by something that is no text.
    pub odd_model: bool,
    /// The client wants a stream to go on that it lost (`Last-Event-ID`): how soon that begins is no measure of a model.
    pub resumes: bool,
    /// Its path is one under which work is asked for that no answer here tells of.
    pub unseen: Option<Unseen>,
    /// The call that a JSON-RPC body makes, where it is no LLM's or A2A's.
    pub rpc: Option<Box<Rpc>>,
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
            details: Details::default(),
            choices: 1,
            answers: 1,
            bad_count: false,
            repeated: None,
            odd_model: false,
            resumes: false,
            unseen: None,
            rpc: None,
        }
    }
}

impl RequestFacts {
    /// Reads a request. `path` may have a query. `body` is the JSON body where one was buffered. Malformed JSON yields what
    /// the path tells; of a key that comes twice the last counts, as for most backends, and of all bounds the largest.
    pub fn read(path: &str, body: Option<&[u8]>) -> Self {
        Self::of(path, body.and_then(Body::read))
    }

    /// Reads a request whose body has to be JSON as the standard has it. `None`: it is not.
    pub fn read_strictly(path: &str, body: &[u8]) -> Option<Self> {
        Body::read_strictly(body).map(|body| Self::of(path, Some(body)))
    }

    /// Reads a request whose body has to be readable. `None`: it is no JSON, not even as the most forgiving backend reads it.
    pub fn read_json(path: &str, body: &[u8]) -> Option<Self> {
        Body::read(body).map(|body| Self::of(path, Some(body)))
    }

    /// Reads a request with a form. `None`: readers differ in what its fields are called.
    pub fn read_form(path: &str, form: &Form<'_>) -> Option<Self> {
        Body::of_form(form).map(|body| Self::of(path, Some(body)))
    }

    /// Whether who goes by the label `kind` finds something in a body that is JSON, too: `{"x":"&model=m&y="}` is a form with a model.
    pub fn hides_in_form(kind: &FormKind, body: &[u8]) -> bool {
        let names_something = |form: &Form<'_>| Body::of_form(form).is_none_or(|body| !body.names_nothing());
        kind.read(body).is_some_and(|form| names_something(&form))
    }

    fn of(path: &str, body: Option<Body>) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = canonical_path(path).unwrap_or(Cow::Borrowed(path));
        let known = known_path(&path, body.as_ref()).or_else(|| body.as_ref().and_then(Body::shape));
        let (dialect, operation) = known.unzip();
        let mut body = body.unwrap_or_default();
        body.join_query(query);
        let rpc = body.rpc.take().filter(|rpc| dialect.is_none() || rpc.asks_agent().is_some());
        let stream = match gemini_path(&path, query).or_else(|| bedrock_path(&path)) {
            Some((stream, _)) => stream,
            None => {
                let asks_agent = agent_path(&path).or(rpc.as_ref().and_then(|rpc| rpc.asks_agent()));
                body.stream.or(asks_agent)
            }
        };
        let model = path_model(&path).map(|model| cut(model, TEXT_LIMIT).to_owned()).or(body.model);
        let choices = body.choices.unwrap_or(1).max(1);
        body.details.of_operation(operation);
        Self {
            dialect,
            operation,
            model,
            stream,
            max_tokens: body.max_tokens.count,
            temperature: body.temperature,
            top_p: body.top_p,
            details: body.details,
            choices,
            answers: choices.max(body.best_of.unwrap_or(1)).saturating_mul(body.prompts.max(1)),
            bad_count: body.max_tokens.is_bad || body.bad_answers && dialect.is_some(),
            repeated: body.repeated,
            odd_model: body.odd_model && dialect.is_some(),
            resumes: false,
            unseen: unseen_work(&path),
            rpc,
        }
    }

    /// The same, as of a route that says whether its answers are an LLM's. `None`: that changes nothing.
    pub fn by_route(&self, llm: bool) -> Option<Self> {
        match (llm, self.dialect) {
            (true, None) => Some(Self { dialect: Some(Dialect::PlainSse), operation: Some(CHAT), ..self.clone() }),
            (false, Some(_)) => Some(Self { dialect: None, operation: None, ..self.clone() }),
            _ => None,
        }
    }

    /// A header shows that this belongs to a session of MCP.
    pub fn note_mcp(&mut self) {
        if self.dialect.is_none() {
            self.rpc.get_or_insert_with(|| Box::new(Rpc::of(RpcProtocol::Mcp))).protocol = RpcProtocol::Mcp;
        }
    }

    /// What the handshake of a WebSocket tells: the model, in the query that the Realtime API has it in, and by its path whether
    /// what is said can be read here.
    pub fn of_websocket(path: &str, query: &str) -> Self {
        let form = FormKind::UrlEncoded.read(query.as_bytes());
        let fields = form.iter().flat_map(|form| &form.fields);
        let mut named =
            fields.filter(|field| matches!(&*field.name, "model" | "deployment") && !field.value.is_empty());
        let model = named.next().map(|field| cut(&String::from_utf8_lossy(&field.value), TEXT_LIMIT).to_owned());
        let path = canonical_path(path).unwrap_or(Cow::Borrowed(path));
        Self { model, repeated: named.next().map(|_| "model"), unseen: unseen_work(&path), ..Self::default() }
    }

    /// Whether the answer will come in one piece: then it has no first token, and its head comes only with its end.
    pub fn answers_whole(&self) -> bool {
        let streams_unasked = match self.dialect {
            _ if !self.writes() => false,
            Some(Dialect::OpenAiChat | Dialect::OpenAiResponses | Dialect::Anthropic) => false,
            // Ollama streams unless told not to, and Gemini's path tells; of others nothing is known.
            Some(_) | None => true,
        };
        self.is_llm() && !self.stream.unwrap_or(streams_unasked)
    }

    /// Whether an answer in events is asked for: as `stream` or the path says, and for Ollama where nothing does.
    pub fn asks_for_stream(&self) -> bool {
        self.stream.unwrap_or(self.dialect == Some(Dialect::Ollama) && self.writes())
    }

    /// Whether this is an LLM request at all: a known path, or a body with messages, a prompt, or a model and its input. One
    /// that only counts tokens, or fetches what was made before, runs no model, and is none.
    pub fn is_llm(&self) -> bool {
        self.dialect.is_some() && !self.counts_tokens() && !self.retrieves()
    }

    /// Whether it asks for an answer that another request had made: to see it, to have its stream resumed, to cancel it or let it
    /// go on.
    pub fn retrieves(&self) -> bool {
        matches!(self.operation, Some(RETRIEVE | CANCEL | CONTINUE))
    }

    /// Whether the times of its answer are not the model's: it was made before, or at least began before.
    pub fn is_delivery(&self) -> bool {
        self.resumes || self.retrieves()
    }

    /// Whether it is for its method to say what is asked for under its path.
    pub fn depends_on_method(&self) -> bool {
        self.retrieves() || self.dialect.is_some_and(lists_answers)
    }

    /// Whether it has an answer go on that waits for it: more may be generated.
    pub fn continues(&self) -> bool {
        self.operation == Some(CONTINUE)
    }

    /// The request's method changes nothing on the server (`safe`), or may: only the former fetches what is there. What is fetched or
    /// cancelled is named by the path: where a body `says` something, a backend with one handler for all paths may answer it.
    pub fn note_method(&mut self, safe: bool, says: bool) {
        match self.operation {
            Some(RETRIEVE) if !safe => (self.dialect, self.operation) = (None, None),
            Some(RETRIEVE | CANCEL) if says => (self.dialect, self.operation) = (None, None),
            Some(CHAT) if safe && self.dialect.is_some_and(lists_answers) => self.operation = Some(RETRIEVE),
            _ => {}
        }
    }

    /// The dialect in which whoever sends it reads what went wrong.
    pub fn reads_errors_in(&self) -> Option<Dialect> {
        self.dialect.or(self.unseen.map(|unseen| unseen.dialect))
    }

    /// Whether the answer is a number of tokens, and no model runs.
    pub fn counts_tokens(&self) -> bool {
        self.operation == Some(COUNT_TOKENS)
    }

    /// Whether the model is to write text: other answers have no tokens that could be counted.
    pub fn writes(&self) -> bool {
        matches!(self.operation, None | Some(CHAT | TEXT_COMPLETION | GENERATE_CONTENT | COMPACTION | INVOKE_AGENT))
    }

    /// Whether the prompt is text that a tokenizer could count.
    pub fn has_countable_prompt(&self) -> bool {
        self.writes() || matches!(self.operation, Some(EMBEDDINGS | MODERATION))
    }
}

#[cfg(test)]
mod tests;
