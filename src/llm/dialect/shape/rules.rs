//! The rules of a shape as they are written: in this project's own files (`shapes/*.toml`), and by users in their
//! configuration, with the same words.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the events of a stream are told apart, and what each says.
///
/// An *event* is chosen by a word, as `"RUN_STARTED"`: what stands at one of the places of `by`. Or by a place of its own:
/// `"/result/final=true"`, `"/0/type!=human"`, `"/delta"` (something stands there), `"event=messages"` (the name of a
/// server-sent event), `"data=stop"`, `"id=*:*"`. In words `*` stands for any run of characters; `&` joins what must hold together.
///
/// A *place* is a JSON pointer (RFC 6901) into the event's data, in which `*` stands for each item; `"data"` is all of
/// it, and `"event"` its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "StreamTable")]
pub struct ShapeRules {
    /// Of a `[[dialect]]`: what logs and `dialect` of an upstream call it.
    pub name: String,
    /// What it is, and where its format is written down.
    #[schemars(skip)]
    pub about: String,
    /// Of a `[[dialect]]`: who sends it (`gen_ai.provider.name`).
    pub provider: Option<String>,
    /// Of a `[[dialect]]`: the ends of request paths whose answers have it.
    pub paths: Vec<String>,
    /// Of a `[[dialect]]`: events that only it has.
    pub recognise: Vec<String>,
    /// Of a `[[dialect]]`: events that show it where the stream was taken for the dialect of that name so far.
    pub instead_of: BTreeMap<String, Vec<String>>,
    /// Where the name of an event is.
    #[schemars(extend("default" = ["event", "/type", "/event"]))]
    pub by: Option<Several>,
    /// Where generated text is, as "/token", or { token = "/content" } by event. Absent: text under the usual keys.
    pub text: Places,
    pub reasoning: Places,
    /// Names and arguments of tools that are called.
    pub tool: Places,
    /// Text in one piece, which repeats what was streamed before it, if anything was.
    pub whole: Places,
    /// Where token usage is: a number of output tokens, or an object with the usual keys; or the place of each count.
    pub usage: UsagePlaces,
    /// Where the id of a model's call is, beside its usage, as "/run_id": the usage of several calls adds up, and what one
    /// call tells again counts once. Or what else tells calls apart. Absent: the last usage counts.
    pub calls: CallRules,
    /// Where an error is, or which events are one. Absent: a top-level `error` key, and events named "error".
    pub error: Places,
    /// Why the model stopped.
    pub finish: Places,
    pub model: Places,
    pub id: Places,
    /// Events of another dialect inside of this one's: { chunk = { at = "/data", as = "openai-chat" } }.
    pub inside: BTreeMap<String, Inside>,
    /// Events that end the stream in order; an end without one is a truncation.
    pub end: Vec<String>,
    /// Answers in the background that have not ended: their usage is counted when they have.
    pub running: Vec<String>,
    /// Those that have ended: their usage is counted once, when that is first seen.
    pub ran: Vec<String>,
    /// Events that open something and carry nothing that was generated.
    pub start: Vec<String>,
    /// Events that tell of work between tokens: a tool that runs, a search.
    pub work: Vec<String>,
    /// Events that say nothing of the model.
    pub noise: Vec<String>,
    /// Events whose text begins with what was said before.
    pub cumulative: Vec<String>,
    /// The data that ends a stream, as `"[DONE]"`; an end without it is a truncation.
    pub done: Option<String>,
    /// The body's orderly end is the stream's, though it has events that end it.
    pub ends_with_body: bool,
}

/// One word, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Several {
    One(String),
    Many(Vec<String>),
}

/// Where something stands: in any event, or in those that are chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Places {
    Anywhere(Several),
    ByEvent(BTreeMap<String, Several>),
}

/// Where token counts stand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum UsagePlaces {
    #[default]
    #[schemars(skip)]
    Nowhere,
    /// Objects with the usual keys, or a number of output tokens.
    Objects(Several),
    Counts(CountPlaces),
}

/// Where each count stands; of several places the sum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct CountPlaces {
    /// The whole prompt, with what was read from a cache.
    pub input: Option<Several>,
    pub cached_input: Option<Several>,
    pub cache_write: Option<Several>,
    /// All that was generated, with reasoning.
    pub output: Option<Several>,
    pub reasoning: Option<Several>,
}

/// How the calls of models are told apart whose usage one stream tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum CallRules {
    /// All usage is of one call.
    #[default]
    #[schemars(skip)]
    One,
    /// Where the id of a call stands, beside its usage.
    Ids(Several),
    Apart(Apart),
}

/// What tells calls apart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Apart {
    /// Where the id of a call stands, beside its usage; the first of these places that has one. What a call tells again counts once.
    pub id: Option<Several>,
    /// Events after which a call is over: what comes under the same id, or under none, is another.
    pub end: Vec<String>,
    /// Events whose usage is a piece of their call's: pieces add up. Of others the last counts.
    pub pieces: Vec<String>,
    /// Events of which the first repeats calls that were made before this answer: they are not counted.
    pub earlier: Vec<String>,
}

/// An event inside of another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Inside {
    /// Where it stands; with `*` there may be several.
    pub at: String,
    /// The shape or dialect that it has.
    #[serde(rename = "as")]
    pub shape: String,
    /// `"base64"` where it is a string of that; `"json"` where it is a string of JSON.
    #[serde(default)]
    pub coding: Option<String>,
    /// Where the name of the inner event stands.
    #[serde(default)]
    pub event: Option<String>,
    /// Its end is the stream's: else it ends a part of it.
    #[serde(default)]
    pub ends: bool,
}

impl Several {
    pub fn each(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::ByEvent(BTreeMap::new())
    }
}

impl Places {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Anywhere(several) => several.each().is_empty(),
            Self::ByEvent(events) => events.is_empty(),
        }
    }
}
