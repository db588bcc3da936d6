//! `stream` of an upstream, and `[[dialect]]`: the rules by which a stream's events are read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::units::At;
use crate::llm::dialect::shape::{Inside, Places, Several, UsagePlaces};

/// How the events of a stream are read. A place is a JSON pointer (RFC 6901) into an event's data, as "/delta/text", in
/// which `*` stands for each item; "data" is all of it. An event is chosen by the word that it calls itself, as "token"
/// (`*` stands for any run of characters), or by a place, as "/final=true".
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamTable {
    /// Of a [[dialect]]: what logs and `dialect` of an upstream call it.
    pub name: Option<At<String>>,
    /// Of a [[dialect]]: events that only it has.
    pub recognise: Option<At<Vec<String>>>,
    /// Of a [[dialect]]: events that show it where the stream was taken for the dialect of that name so far.
    pub instead_of: Option<At<BTreeMap<String, Vec<String>>>>,
    /// Of a [[dialect]]: the ends of request paths that speak it.
    pub paths: Option<At<Vec<String>>>,
    /// Of a [[dialect]]: who sends it (`gen_ai.provider.name`).
    pub provider: Option<At<String>>,
    /// Where an event says what it is.
    #[schemars(with = "Option<SeveralWords>", extend("default" = ["event", "/type", "/event"]))]
    pub by: Option<At<Several>>,
    /// Where generated text stands, as "/token", or { token = "/content" } by event. Absent: text under the usual keys.
    #[schemars(with = "Option<PlaceWords>")]
    pub text: Option<At<Places>>,
    #[schemars(with = "Option<PlaceWords>")]
    pub reasoning: Option<At<Places>>,
    /// Names and arguments of tools that are called.
    #[schemars(with = "Option<PlaceWords>")]
    pub tool: Option<At<Places>>,
    /// Text in one piece, which repeats what was streamed before it, if anything was.
    #[schemars(with = "Option<PlaceWords>")]
    pub whole: Option<At<Places>>,
    /// Where an error stands, or which events are one. Absent: a top-level `error` key, and events named "error".
    #[schemars(with = "Option<PlaceWords>")]
    pub error: Option<At<Places>>,
    /// Where token usage stands: a number of output tokens, or an object with the usual keys; or the place of each count.
    #[schemars(with = "Option<UsageWords>")]
    pub usage: Option<At<UsagePlaces>>,
    /// Why the model stopped.
    #[schemars(with = "Option<PlaceWords>")]
    pub finish: Option<At<Places>>,
    #[schemars(with = "Option<PlaceWords>")]
    pub model: Option<At<Places>>,
    #[schemars(with = "Option<PlaceWords>")]
    pub id: Option<At<Places>>,
    /// Events of another dialect inside of this one's: { chunk = { at = "/data", as = "openai-chat" } }.
    #[schemars(with = "Option<BTreeMap<String, InsideWords>>")]
    pub inside: Option<At<BTreeMap<String, Inside>>>,
    /// Events that end the stream in order; an end without one is a truncation.
    pub end: Option<At<Vec<String>>>,
    /// Answers that are made in the background and have not ended yet: their usage is booked when they have.
    pub running: Option<At<Vec<String>>>,
    /// Events that open something and carry nothing that was generated.
    pub start: Option<At<Vec<String>>>,
    /// Events that tell of work between tokens: a tool that runs, a search.
    pub work: Option<At<Vec<String>>>,
    /// Events that say nothing of the model.
    pub noise: Option<At<Vec<String>>>,
    /// Events whose text begins with what was said before.
    pub cumulative: Option<At<Vec<String>>>,
    /// The data that ends a stream, as "[DONE]"; an end without it is a truncation.
    pub done: Option<At<String>>,
    /// The body's orderly end is the stream's, though it has events that end it.
    #[schemars(extend("default" = false))]
    pub ends_with_body: Option<At<bool>>,
}

/// One word, or several.
#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[expect(dead_code, reason = "stands for a type in the schema")]
enum SeveralWords {
    One(String),
    Many(Vec<String>),
}

/// Where something stands: in any event, or by event.
#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[expect(dead_code, reason = "stands for a type in the schema")]
enum PlaceWords {
    One(String),
    Many(Vec<String>),
    ByEvent(BTreeMap<String, SeveralWords>),
}

/// Where token counts stand.
#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[expect(dead_code, reason = "stands for a type in the schema")]
enum UsageWords {
    One(String),
    Many(Vec<String>),
    Counts(CountWords),
}

/// The place of each count; of several the sum.
#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
#[expect(dead_code, reason = "stands for a type in the schema")]
struct CountWords {
    input: Option<SeveralWords>,
    cached_input: Option<SeveralWords>,
    cache_write: Option<SeveralWords>,
    output: Option<SeveralWords>,
    reasoning: Option<SeveralWords>,
}

/// An event inside of another.
#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
#[expect(dead_code, reason = "stands for a type in the schema")]
struct InsideWords {
    at: String,
    #[schemars(rename = "as")]
    shape: String,
    /// "json" or "base64".
    coding: Option<String>,
    /// Where the name of the inner event stands.
    event: Option<String>,
    /// Its end is the stream's.
    ends: Option<bool>,
}
