//! The rules of a shape as they are written: in this project's own files (`shapes/*.toml`), and by users in their
//! configuration, with the same words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the events of a stream are told apart, and what each says.
///
/// An *event* is chosen by a word, as `"RUN_STARTED"`: what stands at one of the places of `by`. Or by a place of its own:
/// `"/result/final=true"`, `"/0/type!=human"`, `"/delta"` (something stands there), `"event=messages"` (the name of a
/// server-sent event), `"data=stop"`, `"id=*:*"`. In words `*` stands for any run of characters; `&` joins what must hold together.
///
/// A *place* is a JSON pointer (RFC 6901) into the event's data, in which `*` stands for each item; `"data"` is all of
/// it, and `"event"` its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapeRules {
    /// What the config, logs and labels call it.
    pub name: String,
    /// What it is, and where its format is written down.
    pub about: String,
    /// What the conventions call who sends it (`gen_ai.provider.name`); absent: `custom`.
    pub provider: Option<String>,
    /// The ends of the request paths that speak it, as "/converse-stream".
    pub paths: Vec<String>,
    /// An event that one of these chooses shows that a stream is of this shape.
    pub recognise: Vec<String>,
    /// The same, for streams that were taken for another dialect so far, by its name: events too plain to show it alone.
    pub instead_of: BTreeMap<String, Vec<String>>,
    /// Where an event says what it is; absent: `["event", "/type", "/event"]`.
    pub by: Option<Several>,
    /// Answer text, and each picture or sound.
    pub text: Places,
    pub reasoning: Places,
    /// Names and arguments of tools that are called.
    pub tool: Places,
    /// Text in one piece, which repeats what was streamed before it, if anything was.
    pub whole: Places,
    /// An object with token counts under the usual keys, or the places of each count.
    pub usage: UsagePlaces,
    /// Tells calls of models apart, where one answer is made of several: their usage adds up. Absent: the last usage counts.
    pub calls: CallRules,
    /// What went wrong; the events fail the stream whatever stands there.
    pub error: Places,
    /// Why the model stopped.
    pub finish: Places,
    pub model: Places,
    pub id: Places,
    /// Events of other shapes inside of this one's.
    pub inside: BTreeMap<String, Inside>,
    /// Events that end the stream in order.
    pub end: Vec<String>,
    /// Answers that are made in the background, and have not ended yet.
    pub running: Vec<String>,
    /// Those that have ended: their usage is told to whoever sees it first.
    pub ran: Vec<String>,
    /// Events that open something and carry nothing that was generated.
    pub start: Vec<String>,
    /// Events that tell of work between tokens: tools that run, searches, steps of an agent.
    pub work: Vec<String>,
    /// Events that say nothing of the model.
    pub noise: Vec<String>,
    /// Events whose text begins with what was said before.
    pub cumulative: Vec<String>,
    /// The data that ends the stream, as "[DONE]".
    pub done: Option<String>,
    /// The body's orderly end is the stream's, though it has events that end it.
    pub ends_with_body: bool,
}

/// One word, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Several {
    One(String),
    Many(Vec<String>),
}

/// Where something stands: in any event, or in those that are chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Places {
    Anywhere(Several),
    ByEvent(BTreeMap<String, Several>),
}

/// Where token counts stand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UsagePlaces {
    #[default]
    Nowhere,
    /// Objects with the usual keys, or a number of output tokens.
    Objects(Several),
    Counts(CountPlaces),
}

/// Where each count stands; of several places the sum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CallRules {
    /// All usage is of one call.
    #[default]
    One,
    /// Where the id of a call stands, beside its usage.
    Ids(Several),
    Apart(Apart),
}

/// What tells calls apart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
