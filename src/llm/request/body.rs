//! What is read of a request's body: by its keys in all dialects, since an app may pass on any of them.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use super::details::Details;
use super::form::{Field, Form, FormKind};
use super::lenient_json;
use super::operation::{CHAT, EMBEDDINGS, GENERATE_CONTENT, INVOKE_AGENT, TEXT_COMPLETION};
use crate::llm::Dialect;
use crate::llm::json::{Filled, Flag, Loose, Number, Word, loose, member};
use crate::llm::json_rpc::Rpc;
use crate::llm::reading::{TEXT_LIMIT, cut};
use crate::words::worded;

/// More tokens than this nobody means to ask for.
const MAX_TOKENS_MAX: f64 = 10_000_000.0;

/// What is read of a body.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) model: Option<String>,
    /// The model is named by something that is no text.
    pub(super) odd_model: bool,
    pub(super) stream: Option<bool>,
    /// The largest of all bounds on an answer's tokens.
    pub(super) max_tokens: Limit,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) choices: Option<u64>,
    pub(super) best_of: Option<u64>,
    /// How many answers are asked for is said with something that is no count.
    pub(super) bad_answers: bool,
    /// Prompts in a list of them.
    pub(super) prompts: u64,
    pub(super) details: Details,
    pub(super) has_messages: bool,
    pub(super) has_prompt: bool,
    pub(super) has_input: bool,
    has_files: bool,
    /// It says in which forms it wants embeddings, as Cohere's requests do.
    wants_embeddings: bool,
    is_form: bool,
    /// The call that JSON-RPC makes.
    pub(super) rpc: Option<Box<Rpc>>,
    /// The keys that came, as bits.
    seen: u32,
    pub(super) repeated: Option<&'static str>,
}

worded! {
    /// The keys that are read. Some backends read keys without regard to case: for them `Model` is `model`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Key {
        Model = "model",
        Stream = "stream",
        StreamOptions = "stream_options",
        MaxTokens = "max_tokens",
        MaxOutputTokens = "max_output_tokens",
        MaxCompletionTokens = "max_completion_tokens",
        MaxNewTokens = "max_new_tokens",
        MaxTokensToSample = "max_tokens_to_sample",
        NPredict = "n_predict",
        MaxGenLen = "max_gen_len",
        N = "n",
        BestOf = "best_of",
        Temperature = "temperature",
        TopP = "top_p",
        Messages = "messages",
        Contents = "contents",
        Prompt = "prompt",
        Input = "input",
        Inputs = "inputs",
        Options = "options",
        GenerationConfig = "generationConfig",
        GenerationConfigSnake = "generation_config",
        Parameters = "parameters",
        InferenceConfig = "inferenceConfig",
    }
}

impl Key {
    fn of(text: &str) -> Option<Self> {
        Self::of_word(text).or_else(|| {
            // Nearly every key is in lower case.
            let mut keys = Self::ALL.into_iter().filter(|_| lenient_json::is_odd(text));
            keys.find(|key| lenient_json::is_same_key(text, key.as_str()))
        })
    }
}

/// Whether a name in brackets, as Node's `qs` reads it, or one in a doubtful place may be that of a key which is read here.
fn names_key(name: &str) -> bool {
    const NESTED: [&str; 5] = ["num_predict", "maxOutputTokens", "maxTokens", "candidateCount", "candidate_count"];
    name.split(['[', ']']).any(|part| Key::of_word(part).is_some() || NESTED.contains(&part))
}

impl Body {
    /// Reads JSON as the most forgiving backend would; `None`: not even that could read it.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        Self::read_strictly(json).or_else(|| lenient_json::read(json))
    }

    pub(super) fn read_strictly(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The fields of a form, which have no types. `None`: some readers take a field for another one that is read here.
    pub(super) fn of_form(form: &Form<'_>) -> Option<Self> {
        let mut names = form.fields.iter().map(|field| &*field.name).filter(|name| name.contains(['[', ']']));
        if names.any(names_key) || form.doubtful.iter().any(|name| names_key(name)) {
            return None;
        }
        let mut body = Self { is_form: true, has_files: form.files > 0, ..Self::default() };
        form.fields.iter().for_each(|field| body.field(field));
        Some(body)
    }

    /// Whether nothing that is read here was named.
    pub(super) fn names_nothing(&self) -> bool {
        self.seen == 0
    }

    fn field(&mut self, field: &Field<'_>) {
        let Some(key) = Key::of_word(&field.name) else { return };
        self.note(key);
        let text = String::from_utf8_lossy(&field.value);
        let number = || text.trim().parse::<f64>().ok();
        match key {
            Key::Model => self.model = (!text.is_empty()).then(|| cut(&text, TEXT_LIMIT).to_owned()),
            Key::Stream => {
                self.stream = Some(matches!(&*text.trim().to_ascii_lowercase(), "true" | "1" | "on" | "yes"))
            }
            Key::N | Key::BestOf => self.answers(key, Count::text(&text)),
            Key::MaxTokens | Key::MaxOutputTokens | Key::MaxCompletionTokens | Key::MaxNewTokens => {
                self.max_tokens.widen(number().map_or(Limit::BAD, Limit::number));
            }
            Key::Temperature => self.temperature = number(),
            Key::TopP => self.top_p = number(),
            Key::Prompt => self.has_prompt |= !text.is_empty(),
            Key::Input | Key::Inputs => self.has_input |= !text.is_empty(),
            _ => {}
        }
    }

    /// What the query says beside the body: many readers take its parameters for fields of a form, and of those that read JSON some
    /// take the model from there if the body names none.
    pub(super) fn join_query(&mut self, query: &str) {
        let Some(form) = FormKind::UrlEncoded.read(query.as_bytes()).filter(|_| !query.is_empty()) else { return };
        let takes_model = self.model.is_none();
        for field in &form.fields {
            if self.is_form || takes_model && field.name == "model" {
                self.field(field);
            }
        }
    }

    fn answers(&mut self, key: Key, count: Count) {
        let kept = if key == Key::N { &mut self.choices } else { &mut self.best_of };
        *kept = (*kept).max(count.count);
        self.bad_answers |= count.is_bad;
    }

    /// Whether it says nothing that a model could be asked with.
    pub(super) fn asks_for_nothing(&self) -> bool {
        self.seen == 0 && self.rpc.is_none()
    }

    /// Nothing in it is for a model to answer.
    pub(super) fn asks_no_model(&self) -> bool {
        self.model.is_none() && !self.has_messages && !self.has_prompt && !self.has_input && self.rpc.is_none()
    }

    /// What a body on an app's own path looks like.
    pub(super) fn shape(&self) -> Option<(Dialect, &'static str)> {
        if self.has_messages {
            Some((Dialect::PlainSse, CHAT))
        } else if self.wants_embeddings && self.model.is_some() {
            Some((Dialect::PlainSse, EMBEDDINGS))
        } else if self.has_files && self.model.is_some() {
            Some((Dialect::PlainSse, GENERATE_CONTENT))
        } else if self.has_prompt {
            Some((Dialect::PlainSse, TEXT_COMPLETION))
        } else if self.model.is_some() && (self.has_input || self.stream.is_some()) {
            Some((Dialect::PlainSse, CHAT))
        } else if self.rpc.as_ref().is_some_and(|rpc| rpc.asks_agent().is_some()) {
            Some((Dialect::PlainSse, INVOKE_AGENT))
        } else {
            None
        }
    }

    fn note(&mut self, key: Key) {
        let bit = 1 << (key as u32);
        if self.seen & bit != 0 {
            self.repeated.get_or_insert(key.as_str());
        }
        self.seen |= bit;
    }
}

impl<'de> Loose<'de> for Body {
    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut body = Self::default();
        let mut call = Call::default();
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let text = key.0.as_deref().unwrap_or_default();
            let Some(key) = Key::of(text) else {
                match text {
                    "jsonrpc" => call.version = fields.next_value()?,
                    "method" => call.method = fields.next_value()?,
                    "params" => call.params = fields.next_value()?,
                    "embedding_types" => body.wants_embeddings = fields.next_value::<Filled>()?.0,
                    _ if body.details.read(text, &mut fields)? => {}
                    _ => drop(fields.next_value::<IgnoredAny>()?),
                }
                continue;
            };
            body.note(key);
            match key {
                Key::Model => {
                    let Model { name, is_odd } = fields.next_value()?;
                    (body.model, body.odd_model) = (name, body.odd_model | is_odd);
                }
                Key::Stream => body.stream = fields.next_value::<Flag>()?.0,
                Key::StreamOptions => drop(fields.next_value::<IgnoredAny>()?),
                Key::MaxTokens
                | Key::MaxOutputTokens
                | Key::MaxCompletionTokens
                | Key::MaxNewTokens
                | Key::MaxTokensToSample
                | Key::MaxGenLen => body.max_tokens.widen(fields.next_value()?),
                // llama.cpp's -1 and -2 mean: without limit.
                Key::NPredict => body.max_tokens.widen(fields.next_value::<Limit>()?.or_endless()),
                Key::N | Key::BestOf => body.answers(key, fields.next_value()?),
                Key::Temperature => body.temperature = fields.next_value::<Number>()?.get(),
                Key::TopP => body.top_p = fields.next_value::<Number>()?.get(),
                Key::Messages | Key::Contents => body.has_messages |= fields.next_value::<Listed>()?.0,
                Key::Prompt => {
                    let Prompts { filled, count } = fields.next_value()?;
                    body.has_prompt |= filled;
                    body.prompts = body.prompts.max(count);
                }
                Key::Input | Key::Inputs => body.has_input |= fields.next_value::<Filled>()?.0,
                Key::Options
                | Key::GenerationConfig
                | Key::GenerationConfigSnake
                | Key::Parameters
                | Key::InferenceConfig => body.options(fields.next_value()?),
            }
        }
        body.rpc = call.named();
        Ok(body)
    }

    /// A batch of calls is named by its first.
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let first = items.next_element::<Self>()?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self { rpc: first.and_then(|first| first.rpc), ..Self::default() })
    }
}

/// What is read of a call over JSON-RPC.
#[derive(Default)]
struct Call<'a> {
    version: Word<'a>,
    method: Word<'a>,
    params: Params<'a>,
}

#[derive(Default)]
struct Params<'a> {
    name: Word<'a>,
}

impl Call<'_> {
    fn named(&self) -> Option<Box<Rpc>> {
        self.version.filled()?;
        Some(Box::new(Rpc::call(self.method.filled()?, self.params.name.filled())))
    }
}

impl<'de> Loose<'de> for Params<'de> {
    fn object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        Ok(Self { name: member(fields, "name")? })
    }
}

impl Body {
    fn options(&mut self, options: Options) {
        self.max_tokens.widen(options.max_tokens);
        self.answers(Key::N, options.choices);
        self.answers(Key::BestOf, options.best_of);
        self.temperature = options.temperature.or(self.temperature);
        self.top_p = options.top_p.or(self.top_p);
        self.details.fill(options.details);
    }
}

/// Parameters that stand in an object of their own: Ollama's `options`, Gemini's `generationConfig`, TGI's `parameters`,
/// Bedrock's `inferenceConfig`.
#[derive(Default)]
struct Options {
    max_tokens: Limit,
    choices: Count,
    best_of: Count,
    temperature: Option<f64>,
    top_p: Option<f64>,
    details: Details,
}

impl<'de> Loose<'de> for Options {
    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut options = Self::default();
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let key = key.0.as_deref().unwrap_or_default();
            let is_odd = lenient_json::is_odd(key);
            let is = |names: &[&str]| {
                names.contains(&key) || is_odd && names.iter().any(|name| lenient_json::is_same_key(key, name))
            };
            if is(&["num_predict"]) {
                // Ollama's -1 and -2 mean: without limit.
                options.max_tokens.widen(fields.next_value::<Limit>()?.or_endless());
            } else if is(&["maxOutputTokens", "max_output_tokens", "max_new_tokens", "max_tokens", "maxTokens"]) {
                options.max_tokens.widen(fields.next_value()?);
            } else if is(&["candidateCount", "candidate_count", "n"]) {
                options.choices.widen(fields.next_value()?);
            } else if is(&["best_of"]) {
                options.best_of.widen(fields.next_value()?);
            } else if is(&["temperature"]) {
                options.temperature = fields.next_value::<Number>()?.get();
            } else if is(&["top_p", "topP"]) {
                options.top_p = fields.next_value::<Number>()?.get();
            } else if !options.details.read(key, &mut fields)? {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(options)
    }
}

/// The name of a model. A list of one is its item to some programs in JavaScript.
#[derive(Default)]
struct Model {
    name: Option<String>,
    is_odd: bool,
}

impl Model {
    const ODD: Self = Self { name: None, is_odd: true };
}

impl<'de> Loose<'de> for Model {
    fn text(text: &str) -> Self {
        Self { name: (!text.is_empty()).then(|| cut(text, TEXT_LIMIT).to_owned()), is_odd: false }
    }

    fn number(_: f64) -> Self {
        Self::ODD
    }

    fn nested() -> Self {
        Self::ODD
    }
}

/// The most tokens that are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) count: Option<u64>,
    pub(super) is_bad: bool,
}

impl Limit {
    const BAD: Self = Self { count: None, is_bad: true };

    /// The same, but that no count means no limit.
    fn or_endless(self) -> Self {
        if self.count.is_none() { Self::default() } else { self }
    }

    /// Of two bounds the larger counts: which one a backend goes by is not known.
    fn widen(&mut self, other: Self) {
        self.count = self.count.max(other.count);
        self.is_bad |= other.is_bad;
    }
}

impl<'de> Loose<'de> for Limit {
    fn number(value: f64) -> Self {
        let is_good = (0.0..=MAX_TOKENS_MAX).contains(&value) && value.fract() == 0.0;
        Self { count: Number::of(value).count(), is_bad: !is_good }
    }

    fn text(_: &str) -> Self {
        Self::BAD
    }

    fn flag(_: bool) -> Self {
        Self::BAD
    }

    fn nested() -> Self {
        Self::BAD
    }
}

/// A count, which some backends take as a text too, and a few as a list of one.
#[derive(Default)]
struct Count {
    count: Option<u64>,
    is_bad: bool,
}

impl Count {
    const BAD: Self = Self { count: None, is_bad: true };

    fn widen(&mut self, other: Self) {
        self.count = self.count.max(other.count);
        self.is_bad |= other.is_bad;
    }
}

impl<'de> Loose<'de> for Count {
    fn number(value: f64) -> Self {
        let count = Number::of(value).count().filter(|_| value.fract() == 0.0);
        Self { count, is_bad: count.is_none() }
    }

    fn text(text: &str) -> Self {
        text.trim().parse().map_or(Self::BAD, Self::number)
    }

    fn nested() -> Self {
        Self::BAD
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

/// One prompt as a text or its tokens' ids, or a list of such prompts.
#[derive(Default)]
struct Prompts {
    filled: bool,
    count: u64,
}

impl<'de> Loose<'de> for Prompts {
    fn text(text: &str) -> Self {
        Self { filled: !text.is_empty(), count: 1 }
    }

    fn number(_: f64) -> Self {
        Self { filled: true, count: 1 }
    }

    fn flag(_: bool) -> Self {
        Self { filled: true, count: 1 }
    }

    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let (mut filled, mut count) = (false, 0);
        while let Some(Item { is_prompt }) = items.next_element()? {
            filled = true;
            count += u64::from(is_prompt);
        }
        Ok(Self { filled, count: count.max(1) })
    }

    fn object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        Filled::object(fields).map(|Filled(filled)| Self { filled, count: 1 })
    }
}

/// An item of a list of prompts: a token's id alone is none.
#[derive(Default)]
struct Item {
    is_prompt: bool,
}

impl<'de> Loose<'de> for Item {
    fn text(_: &str) -> Self {
        Self { is_prompt: true }
    }

    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        Filled::array(items).map(|_| Self { is_prompt: true })
    }

    fn object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        Filled::object(fields).map(|_| Self { is_prompt: true })
    }
}

loose!(Params<'a>);
loose!(Body, Options, Model, Limit, Count, Listed, Prompts, Item);
