//! `[[dialect]]`, and `stream` of an upstream: the rules by which a stream's events are read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::config::checker::Checker;
use crate::config::problems::nearest;
use crate::config::units::{At, Table};
use crate::llm::dialect::shape::{
    CallRules, Inside, Known, Places, Recogniser, RuleProblem, Several, Shape, ShapeRules, UsagePlaces, built_in,
};
use crate::llm::{Dialect, StreamRules};

/// Shapes of one configuration at most.
const DIALECTS_MAX: usize = 64;

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
    /// Of a [[dialect]]: the ends of request paths whose answers have it.
    pub paths: Option<At<Vec<String>>>,
    /// Of a [[dialect]]: who sends it (`gen_ai.provider.name`).
    pub provider: Option<At<String>>,
    /// Where the name of an event is.
    #[schemars(with = "Option<SeveralWords>", extend("default" = ["event", "/type", "/event"]))]
    pub by: Option<At<Several>>,
    /// Where generated text is, as "/token", or { token = "/content" } by event. Absent: text under the usual keys.
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
    /// Where an error is, or which events are one. Absent: a top-level `error` key, and events named "error".
    #[schemars(with = "Option<PlaceWords>")]
    pub error: Option<At<Places>>,
    /// Where token usage is: a number of output tokens, or an object with the usual keys; or the place of each count.
    #[schemars(with = "Option<UsageWords>")]
    pub usage: Option<At<UsagePlaces>>,
    /// Where the id of a model's call is, beside its usage, as "/run_id": the usage of several calls adds up, and what one
    /// call tells again counts once. Or what else tells calls apart. Absent: the last usage counts.
    #[schemars(with = "Option<CallWords>")]
    pub calls: Option<At<CallRules>>,
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
    /// Answers in the background that have not ended: their usage is counted when they have.
    pub running: Option<At<Vec<String>>>,
    /// Those that have ended: their usage is counted once, when that is first seen.
    pub ran: Option<At<Vec<String>>>,
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

/// How calls of models are told apart.
#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[expect(dead_code, reason = "stands for a type in the schema")]
enum CallWords {
    One(String),
    Many(Vec<String>),
    Apart(ApartWords),
}

/// What tells calls apart.
#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
#[expect(dead_code, reason = "stands for a type in the schema")]
struct ApartWords {
    /// The place of a call's id; of several the first that has one.
    id: Option<SeveralWords>,
    /// Events after which a call is over: the next usage is another's.
    end: Option<Vec<String>>,
    /// Events whose usage is a piece of their call's: pieces add up.
    pieces: Option<Vec<String>>,
    /// Events of which the first repeats calls of before this answer.
    earlier: Option<Vec<String>>,
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

/// Shows those that were written.
pub fn stream_rules<S: Serializer>(rules: &StreamRules, to: S) -> Result<S::Ok, S::Error> {
    let Some(shape) = &rules.shape else { return to.serialize_none() };
    let mut written = serde_json::to_value(shape.written()).map_err(S::Error::custom)?;
    if let Some(fields) = written.as_object_mut() {
        fields.retain(|key, value| {
            let says_nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                Value::Object(members) => members.is_empty(),
                Value::Bool(true) | Value::Number(_) => false,
            };
            !says_nothing && key != "name"
        });
    }
    written.serialize(to)
}

impl Checker<'_> {
    /// The user's own shapes; one may stand inside of those after it.
    pub fn dialects(&mut self, tables: &[Table<StreamTable>]) -> Arc<Recogniser> {
        let mut shapes: Vec<Arc<Shape>> = Vec::new();
        let mut taken = BTreeMap::new();
        if let Some(table) = tables.get(DIALECTS_MAX) {
            self.problem(&table.span, format!("there are more than {DIALECTS_MAX} [[dialect]]"));
        }
        for table in tables.iter().take(DIALECTS_MAX) {
            if let Some(at) = &table.value.name {
                self.name(at);
                self.unique("dialect", &at.value, &at.span, &mut taken);
                if at.value == "auto" || Dialect::named(&at.value).is_some() {
                    self.problem(&at.span, format!("{:?} is built in: give yours another name", at.value));
                }
            } else {
                self.problem(&table.span, "a [[dialect]] has a `name`, which upstreams and logs call it by");
            }
            let known: Known<'_> =
                &|name| shapes.iter().find(|shape| shape.name() == name).or_else(|| built_in(name)).cloned();
            match Shape::compile(&rules_of(&table.value), known) {
                Ok(shape) => shapes.push(Arc::new(shape)),
                Err(problems) => self.rule_problems(&table.value, &table.span, problems),
            }
        }
        Arc::new(Recogniser::new(shapes))
    }

    /// What the configuration says of the streams of one upstream.
    pub fn stream_rules(
        &mut self,
        dialect: Option<&At<String>>,
        stream: Option<&Table<StreamTable>>,
        own: &Arc<Recogniser>,
    ) -> StreamRules {
        let dialect = dialect.and_then(|at| self.dialect(at, own));
        let rules = StreamRules { dialect, own: Arc::clone(own), ..StreamRules::default() };
        let Some(table) = stream else { return rules };
        let spans = [table.value.name.as_ref().map(|at| &at.span), table.value.recognise.as_ref().map(|at| &at.span)];
        for span in spans.into_iter().flatten() {
            let message = "`name` and `recognise` are for a [[dialect]]: `stream` holds for its upstream alone";
            self.problem(span, message);
        }
        let written = ShapeRules { name: "plain-sse".to_owned(), ..rules_of(&table.value) };
        match rules.clone().with(&written) {
            Ok(rules) => rules,
            Err(problems) => {
                self.rule_problems(&table.value, &table.span, problems);
                rules
            }
        }
    }

    fn dialect(&mut self, at: &At<String>, own: &Recogniser) -> Option<Dialect> {
        if at.value == "auto" {
            return None;
        }
        let known = own.named(&at.value).map(|shape| Dialect::Shape(shape.name()));
        let known = known.or_else(|| Dialect::named(&at.value));
        if known.is_none() {
            let names: Vec<&str> = Dialect::known().map(Dialect::as_str).collect();
            let hint = match nearest(&at.value, names.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are \"auto\", {}, and each [[dialect]]", names.join(", ")),
            };
            self.problem(&at.span, format!("`dialect`: unknown word {:?}: {hint}", at.value));
        }
        known
    }

    fn rule_problems(&mut self, table: &StreamTable, whole: &Range<usize>, problems: Vec<RuleProblem>) {
        for problem in problems {
            let span = span_of(table, problem.key).unwrap_or(whole).clone();
            self.problem(&span, problem.message);
        }
    }
}

fn rules_of(table: &StreamTable) -> ShapeRules {
    fn written<T: Clone + Default>(at: Option<&At<T>>) -> T {
        at.map(|at| at.value.clone()).unwrap_or_default()
    }
    ShapeRules {
        name: written(table.name.as_ref()),
        about: String::new(),
        provider: table.provider.as_ref().map(|at| at.value.clone()),
        paths: written(table.paths.as_ref()),
        recognise: written(table.recognise.as_ref()),
        instead_of: written(table.instead_of.as_ref()),
        by: table.by.as_ref().map(|at| at.value.clone()),
        text: written(table.text.as_ref()),
        reasoning: written(table.reasoning.as_ref()),
        tool: written(table.tool.as_ref()),
        whole: written(table.whole.as_ref()),
        usage: written(table.usage.as_ref()),
        calls: written(table.calls.as_ref()),
        error: written(table.error.as_ref()),
        finish: written(table.finish.as_ref()),
        model: written(table.model.as_ref()),
        id: written(table.id.as_ref()),
        inside: written(table.inside.as_ref()),
        end: written(table.end.as_ref()),
        running: written(table.running.as_ref()),
        ran: written(table.ran.as_ref()),
        start: written(table.start.as_ref()),
        work: written(table.work.as_ref()),
        noise: written(table.noise.as_ref()),
        cumulative: written(table.cumulative.as_ref()),
        done: table.done.as_ref().map(|at| at.value.clone()),
        ends_with_body: written(table.ends_with_body.as_ref()),
    }
}

/// Where a key stands in the file.
fn span_of<'t>(table: &'t StreamTable, key: &str) -> Option<&'t Range<usize>> {
    macro_rules! spans {
        ($($name:ident),+) => { match key { $(stringify!($name) => table.$name.as_ref().map(|at| &at.span),)+ _ => None } };
    }
    spans!(
        by, text, reasoning, tool, whole, usage, calls, error, finish, model, id, inside, end, running, ran, start,
        work, noise, cumulative, recognise, instead_of, done
    )
}
